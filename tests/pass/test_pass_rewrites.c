/* What each pass does and what it leaves alone. */
#include "ir/graph_build.h"

#include "pass/pass.h"

#include <math.h>

static void simplify(builder *b)
{
    qn_pass_options options;
    qn__pass_options_init(&options);
    assert_ok(b, qn__graph_infer(b->graph, &b->error));
    assert_ok(b, qn__graph_verify(b->graph, &b->error));
    assert_ok(b, qn__passes_simplify(b->graph, &options, &b->error));
    assert_ok(b, qn__graph_verify(b->graph, &b->error));
}

static qn_tensor *conv(builder *b, const char *name, qn_tensor *x)
{
    char weight[32];
    snprintf(weight, sizeof(weight), "%s_w", name);
    return NODE(b, CONV, name, x, build_weights(b, weight, DIMS(4, 4, 1, 1)));
}

static void no_ops_go_and_outputs_keep_their_names(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(-1, 4, 3, 3));
    qn_tensor *id = NODE(&b, IDENTITY, "id", x);
    qn_tensor *drop = NODE(&b, DROPOUT, "drop", id);
    qn_tensor *relu = NODE(&b, RELU, "relu", drop);
    qn_tensor *pad = NODE(&b, PAD, "pad", relu, build_ints(&b, "p", DIMS(0, 0, 0, 0, 0, 0, 0, 0)));
    qn_tensor *tr = NODE(&b, TRANSPOSE, "tr", pad);
    set_ints(&b, tr, "perm", DIMS(0, 1, 2, 3));
    qn_tensor *cast = NODE(&b, CAST, "cast", tr);
    set_int(&b, cast, "to", 1);
    qn_tensor *rs = NODE(&b, RESHAPE, "rs", cast, build_ints(&b, "s", DIMS(-1, 4, 3, 3)));
    qn_tensor *sl = NODE(&b, SLICE, "sl", rs, build_ints(&b, "s0", DIMS(0)),
                         build_ints(&b, "s1", DIMS(100)), build_ints(&b, "s2", DIMS(1)));
    qn_tensor *last = NODE(&b, IDENTITY, "last", sl);
    qn_tensor *side = NODE(&b, SIGMOID, "side", relu); /* read relu before it was renamed */
    build_output(&b, last);
    build_output(&b, side);
    simplify(&b);
    assert_int_equal(b.graph->n_nodes, 2);
    assert_ptr_equal(b.graph->outputs[0], last);
    assert_string_equal(b.graph->outputs[0]->name, "last_out");
    assert_string_equal(last->producer->name, "relu");
    assert_ptr_equal(last->producer->inputs[0], x);
    assert_ptr_equal(side->producer->inputs[0], last);
    assert_shape(last, DIMS(-1, 4, 3, 3));
    build_end(&b);
}

static void what_only_looks_like_a_no_op_stays(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(2, 2));
    qn_tensor *tr = NODE(&b, TRANSPOSE, "tr", x); /* same shape, other order */
    qn_tensor *reversed = NODE(&b, SLICE, "rev", x, build_ints(&b, "st", DIMS(-1)),
                               build_ints(&b, "en", DIMS(INT64_MIN)), build_ints(&b, "ax", DIMS(0)),
                               build_ints(&b, "sp", DIMS(-1)));
    qn_tensor *through = NODE(&b, IDENTITY, "through", x); /* an input cannot take its name */
    qn_tensor *cut = NODE(&b, PAD, "cut", x, build_ints(&b, "p", DIMS(0, 1, 0, -1)));
    qn_tensor *outs[] = {tr, reversed, through, cut};
    for (size_t i = 0; i < 4; i++)
        build_output(&b, outs[i]);
    simplify(&b);
    assert_int_equal(b.graph->n_nodes, 4);
    build_end(&b);
}

static qn_tensor *slice(builder *b, const char *name, qn_tensor *x, int64_t start, int64_t end,
                        int64_t axis)
{
    char names[3][32];
    for (size_t i = 0; i < 3; i++)
        snprintf(names[i], sizeof(names[i]), "%s_%zu", name, i);
    qn_tensor *const inputs[4] = {x, build_ints(b, names[0], 1, &start),
                                  build_ints(b, names[1], 1, &end),
                                  build_ints(b, names[2], 1, &axis)};
    return build_node(b, QN_OP_SLICE, name, 4, inputs);
}

static void parts_sliced_off_again_are_what_was_joined(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(1, 4, 2)), *y = build_input(&b, "y", DIMS(1, 4, 3));
    qn_tensor *p = NODE(&b, RELU, "p", x), *q = NODE(&b, ABS, "q", y), *r = NODE(&b, EXP, "r", x);
    qn_tensor *all = NODE(&b, CONCAT, "all", p, q, r);
    set_int(&b, all, "axis", -1);
    qn_tensor *outs[] = {NODE(&b, NEG, "first", slice(&b, "s0", all, 0, 2, 2)),
                         NODE(&b, NEG, "second", slice(&b, "s1", all, 2, -2, -1)),
                         NODE(&b, NEG, "third", slice(&b, "s2", all, -2, INT64_MAX, 2))};
    qn_tensor *named = slice(&b, "s3", all, 2, 5, 2); /* the producer of the part gets its name */
    for (size_t i = 0; i < 3; i++)
        build_output(&b, outs[i]);
    build_output(&b, named);
    simplify(&b);
    assert_int_equal(b.graph->n_nodes, 6);
    assert_ptr_equal(outs[0]->producer->inputs[0], p);
    assert_ptr_equal(outs[1]->producer->inputs[0], named);
    assert_ptr_equal(outs[2]->producer->inputs[0], r);
    assert_string_equal(named->producer->name, "q");
    build_end(&b);
}

static void other_slices_of_what_was_joined_stay(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(1, 4, 4));
    qn_tensor *all = NODE(&b, CONCAT, "all", NODE(&b, RELU, "p", x), NODE(&b, ABS, "q", x));
    set_int(&b, all, "axis", 2);
    const int64_t two[] = {0, 0}, ends[] = {4, 2}, axes[] = {2, 1};
    qn_tensor *outs[] = {slice(&b, "more", all, 0, 5, 2),
                         slice(&b, "less", all, 4, 7, 2),
                         slice(&b, "across", all, 2, 6, 2),
                         slice(&b, "other", all, 0, 2, 1),
                         NODE(&b, SLICE, "backwards", all, build_ints(&b, "b0", DIMS(3)),
                              build_ints(&b, "b1", DIMS(INT64_MIN)), build_ints(&b, "b2", DIMS(2)),
                              build_ints(&b, "b3", DIMS(-1))),
                         NODE(&b, SLICE, "both", all, build_ints(&b, "c0", 2, two),
                              build_ints(&b, "c1", 2, ends), build_ints(&b, "c2", 2, axes)),
                         all};
    for (size_t i = 0; i < sizeof(outs) / sizeof(outs[0]); i++)
        build_output(&b, outs[i]);
    simplify(&b);
    assert_int_equal(b.graph->n_nodes, 9);
    build_end(&b);
}

/* Of more parts than a node may have when it runs. */
static void many_parts_sliced_off_again(void **state)
{
    (void)state;
    enum { PARTS = 3000 };
    builder b;
    build_start(&b);
    qn_tensor *x[2] = {build_input(&b, "x", DIMS(1, 4)), build_input(&b, "y", DIMS(1, 3))};
    qn_tensor *part[2] = {NODE(&b, RELU, "p", x[0]), NODE(&b, ABS, "q", x[1])};
    qn_node *node = qn__graph_add_node(b.graph, SIZE_MAX, QN_OP_CONCAT, "all", PARTS, 1);
    qn_tensor *all = qn__graph_add_tensor(b.graph, "all", qn_type_plain_make(QN_DTYPE_NONE));
    for (uint32_t i = 0; i < PARTS; i++)
        node->inputs[i] = part[i % 2];
    qn__node_set_output(node, 0, all);
    set_int(&b, all, "axis", 1);
    for (int64_t i = 0; i < PARTS; i++) {
        const int64_t start = i / 2 * 7 + i % 2 * 4;
        char name[32];
        snprintf(name, sizeof(name), "s%d", (int)i);
        build_output(&b, NODE(&b, NEG, name + 1,
                              slice(&b, name, all, start, start + (i % 2 != 0 ? 3 : 4), 1)));
    }
    simplify(&b);
    assert_int_equal(b.graph->n_nodes, PARTS + 2);
    for (size_t i = 0; i < PARTS; i++)
        assert_ptr_equal(b.graph->outputs[i]->producer->inputs[0], part[i % 2]);
    build_end(&b);
}

/* The parts of a Concat of Concats in order. */
static void collect_parts(const qn_tensor *t, const qn_tensor *const *leaves, size_t *at)
{
    const qn_node *const node = t->producer;
    if (node->op != QN_OP_CONCAT) {
        assert_ptr_equal(t, leaves[(*at)++ % 2]);
        return;
    }
    assert_in_range(node->n_inputs, 2, QN_PASS_MOST_PARTS);
    assert_int_equal(qn__attr_int(node, "axis", 7), -1);
    for (uint32_t i = 0; i < node->n_inputs; i++)
        collect_parts(node->inputs[i], leaves, at);
}

static void wide_concats_are_concats_of_concats(void **state)
{
    (void)state;
    static const struct {
        uint32_t parts;
        size_t concats;
    } cases[] = {{64, 1}, {65, 2}, {66, 3}, {4096, 65}, {4097, 66}, {9000, 145}};
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        builder b;
        build_start(&b);
        qn_tensor *x = build_input(&b, "x", DIMS(2, 3));
        const qn_tensor *const part[2] = {NODE(&b, RELU, "p", x), NODE(&b, ABS, "q", x)};
        qn_node *node =
            qn__graph_add_node(b.graph, SIZE_MAX, QN_OP_CONCAT, "all", cases[c].parts, 1);
        qn_tensor *all = qn__graph_add_tensor(b.graph, "all", qn_type_plain_make(QN_DTYPE_NONE));
        for (uint32_t i = 0; i < cases[c].parts; i++)
            node->inputs[i] = (qn_tensor *)part[i % 2];
        qn__node_set_output(node, 0, all);
        set_int(&b, all, "axis", -1);
        build_output(&b, all);
        simplify(&b);
        size_t at = 0;
        collect_parts(all, part, &at);
        assert_int_equal(at, cases[c].parts);
        assert_int_equal(b.graph->n_nodes, 2 + cases[c].concats);
        assert_int_equal(all->dims[1].value, 3 * cases[c].parts);
        build_end(&b);
    }
}

static void dropout_with_a_read_mask_stays(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(2, 2));
    qn_node *node = qn__graph_add_node(b.graph, SIZE_MAX, QN_OP_DROPOUT, "d", 1, 2);
    node->inputs[0] = x;
    for (uint32_t i = 0; i < 2; i++)
        qn__node_set_output(node, i,
                            qn__graph_add_tensor(b.graph, "o", qn_type_plain_make(QN_DTYPE_NONE)));
    build_output(&b, NODE(&b, RELU, "r", node->outputs[0]));
    build_output(&b, node->outputs[1]);
    simplify(&b);
    assert_int_equal(b.graph->n_nodes, 2);
    build_end(&b);
}

static void two_outputs_of_one_value_keep_both_names(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *r = NODE(&b, SIGMOID, "r", build_input(&b, "x", DIMS(2)));
    qn_tensor *one = NODE(&b, IDENTITY, "one", r), *two = NODE(&b, IDENTITY, "two", r);
    build_output(&b, one);
    build_output(&b, two);
    simplify(&b);
    assert_int_equal(b.graph->n_nodes, 2);
    assert_string_equal(one->producer->name, "r");
    assert_ptr_equal(two->producer->inputs[0], one);
    build_end(&b);
}

static void dead_nodes_go(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(2));
    qn_tensor *live = NODE(&b, SIGMOID, "live", x);
    NODE(&b, TANH, "dead2", NODE(&b, TANH, "dead1", live));
    build_output(&b, live);
    simplify(&b);
    assert_int_equal(b.graph->n_nodes, 1);
    assert_null(qn__graph_find_node(b.graph, "dead1"));
    build_end(&b);
}

static void constant_nodes_become_constants(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    const float values[2] = {0.5f, 2.0f};
    qn_tensor *x = build_input(&b, "x", DIMS(2));
    qn_node *node = qn__graph_add_node(b.graph, SIZE_MAX, QN_OP_CONSTANT, "k", 0, 1);
    qn_tensor *k = qn__graph_add_tensor(b.graph, "k", qn_type_plain_make(QN_DTYPE_NONE));
    qn__node_set_output(node, 0, k);
    qn_blob *blob = qn__blob_copy(b.ctx, values, sizeof(values));
    assert_true(qn__node_set_tensor(b.graph, node, "value", blob, QN_DTYPE_F32, DIMS(2)));
    qn__blob_unref(blob);
    qn_node *scalar = qn__graph_add_node(b.graph, SIZE_MAX, QN_OP_CONSTANT, "s", 0, 1);
    qn_tensor *s = qn__graph_add_tensor(b.graph, "s", qn_type_plain_make(QN_DTYPE_NONE));
    qn__node_set_output(scalar, 0, s);
    assert_true(qn__node_set_float(b.graph, scalar, "value_float", 3.0f));
    build_output(&b, NODE(&b, POW, "pow", NODE(&b, POW, "p", x, k), s));
    simplify(&b);
    assert_int_equal(b.graph->n_nodes, 2);
    size_t count;
    const float *read = qn__tensor_floats(b.graph, k, &count);
    assert_int_equal(count, 2);
    assert_memory_equal(read, values, sizeof(values));
    read = qn__tensor_floats(b.graph, s, &count);
    assert_true(count == 1 && s->rank == 0 && read[0] == 3.0f);
    build_end(&b);
}

static void mean_over_space_is_a_global_pool(void **state)
{
    (void)state;
    static const int64_t AXES[4][2] = {{2, 3}, {-1, -2}, {1, 2}, {2, 3}};
    for (int form = 0; form < 4; form++) {
        builder b;
        build_start(&b);
        qn_tensor *x = build_input(&b, "x", DIMS(-1, 4, 5, 5));
        qn_tensor *y = form == 1 ? NODE(&b, REDUCE_MEAN, "m", x, build_ints(&b, "a", 2, AXES[1]))
                                 : NODE(&b, REDUCE_MEAN, "m", x);
        if (form != 1)
            set_ints(&b, y, "axes", 2, AXES[form]);
        if (form == 3)
            set_int(&b, y, "keepdims", 0);
        build_output(&b, y);
        simplify(&b);
        assert_int_equal(y->producer->op, form < 2 ? QN_OP_GLOBAL_AVERAGE_POOL : QN_OP_REDUCE_MEAN);
        if (form < 2) {
            assert_shape(y, DIMS(-1, 4, 1, 1));
            assert_int_equal(y->producer->n_inputs, 1);
            assert_int_equal(y->producer->n_attrs, 0);
        }
        build_end(&b);
    }
}

static void activations_fuse(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(-1, 4, 3, 3));
    const float bounds[2] = {0, 6};
    qn_tensor *lo = build_const(&b, "lo", QN_DTYPE_F32, &bounds[0], 0, NULL);
    qn_tensor *hi = build_const(&b, "hi", QN_DTYPE_F32, &bounds[1], 0, NULL);
    qn_tensor *r = NODE(&b, RELU, "relu", conv(&b, "c1", x));
    qn_tensor *clip = NODE(&b, CLIP, "clip", conv(&b, "c2", r), lo, hi);
    qn_tensor *half = NODE(&b, CLIP, "half", NODE(&b, ADD, "add", clip, r), NULL, hi);
    build_output(&b, half);
    simplify(&b);
    assert_int_equal(b.graph->n_nodes, 3);
    const qn_node *c1 = r->producer, *c2 = clip->producer, *add = half->producer;
    assert_string_equal(c1->name, "c1");
    assert_int_equal(c1->act, QN_ACT_RELU);
    assert_true(c1->act_lo == 0 && isinf(c1->act_hi));
    assert_string_equal(c1->act_name, "relu");
    assert_int_equal(c1->act_source, 1);
    assert_int_equal(c2->act, QN_ACT_CLIP);
    assert_true(c2->act_lo == 0 && c2->act_hi == 6);
    assert_string_equal(add->name, "add");
    assert_true(isinf(add->act_lo) && add->act_lo < 0 && add->act_hi == 6);
    build_end(&b);
}

static void activations_that_cannot_fuse_stay(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(1, 4, 3, 3));
    qn_tensor *shared = conv(&b, "shared", x);
    qn_tensor *r1 = NODE(&b, RELU, "r1", shared), *s1 = NODE(&b, SIGMOID, "s1", shared);
    qn_tensor *shown = conv(&b, "shown", x);
    qn_tensor *r2 = NODE(&b, RELU, "r2", shown);
    qn_tensor *bound = NODE(&b, REDUCE_MAX, "bound", x); /* not a constant */
    set_int(&b, bound, "keepdims", 0);
    qn_tensor *dynamic = NODE(&b, CLIP, "dynamic", conv(&b, "c3", x), NULL, bound);
    const float bounds[2] = {6, 0};
    qn_tensor *empty = NODE(&b, CLIP, "empty", conv(&b, "c4", x),
                            build_const(&b, "lo", QN_DTYPE_F32, &bounds[0], 0, NULL),
                            build_const(&b, "hi", QN_DTYPE_F32, &bounds[1], 0, NULL));
    qn_tensor *outs[] = {r1, s1, shown, r2, dynamic, empty};
    for (size_t i = 0; i < 6; i++)
        build_output(&b, outs[i]);
    const size_t before = b.graph->n_nodes;
    simplify(&b);
    assert_int_equal(b.graph->n_nodes, before);
    for (size_t i = 0; i < b.graph->n_nodes; i++)
        assert_int_equal(b.graph->nodes[i]->act, QN_ACT_NONE);
    build_end(&b);
}

static void fusing_can_be_turned_off(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    build_output(&b, NODE(&b, RELU, "r", conv(&b, "c", build_input(&b, "x", DIMS(1, 4, 3, 3)))));
    qn_pass_options options;
    qn__pass_options_init(&options);
    options.fuse_activations = false;
    assert_ok(&b, qn__passes_simplify(b.graph, &options, &b.error));
    assert_int_equal(b.graph->n_nodes, 2);
    build_end(&b);
}

static void matmul_and_bias_are_gemm(void **state)
{
    (void)state;
    for (int form = 0; form < 4; form++) {
        builder b;
        build_start(&b);
        qn_tensor *x =
            form == 3 ? build_input(&b, "x", DIMS(-1, 2, 6)) : build_input(&b, "x", DIMS(-1, 6));
        qn_tensor *mm = NODE(&b, MATMUL, "mm", x, build_weights(&b, "w", DIMS(6, 5)));
        qn_tensor *bias = form == 2   ? build_weights(&b, "bias", DIMS(3, 1, 5))
                          : form == 1 ? build_weights(&b, "bias", DIMS(1, 5))
                                      : build_weights(&b, "bias", DIMS(5));
        qn_tensor *y = form == 1 ? NODE(&b, ADD, "add", bias, mm) : NODE(&b, ADD, "add", mm, bias);
        build_output(&b, y);
        simplify(&b);
        const bool joined = form < 2;
        assert_int_equal(b.graph->n_nodes, joined ? 1 : 2);
        assert_int_equal(y->producer->op, joined ? QN_OP_GEMM : QN_OP_ADD);
        if (joined) {
            assert_string_equal(y->producer->name, "mm");
            assert_int_equal(y->producer->n_sources, 2);
            assert_int_equal(y->producer->sources[0], 0);
            assert_int_equal(y->producer->sources[1], 1);
            assert_shape(y, DIMS(-1, 5));
        }
        build_end(&b);
    }
}

static qn_status broken_resolve(qn_graph *graph, size_t max_bytes, qn_error *error)
{
    (void)graph;
    return qn__error_set(error, QN_LIMIT, "resolve saw %zu", max_bytes);
}

static void resolve_is_called_first(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    build_output(&b, NODE(&b, RELU, "r", build_input(&b, "x", DIMS(1))));
    qn_pass_options options;
    qn__pass_options_init(&options);
    options.resolve = broken_resolve;
    options.resolve_max_bytes = 77;
    assert_fails(&b, qn__passes_simplify(b.graph, &options, &b.error), QN_LIMIT, "saw 77");
    build_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_ops_go_and_outputs_keep_their_names),
        cmocka_unit_test(what_only_looks_like_a_no_op_stays),
        cmocka_unit_test(parts_sliced_off_again_are_what_was_joined),
        cmocka_unit_test(other_slices_of_what_was_joined_stay),
        cmocka_unit_test(many_parts_sliced_off_again),
        cmocka_unit_test(wide_concats_are_concats_of_concats),
        cmocka_unit_test(dropout_with_a_read_mask_stays),
        cmocka_unit_test(two_outputs_of_one_value_keep_both_names),
        cmocka_unit_test(dead_nodes_go),
        cmocka_unit_test(constant_nodes_become_constants),
        cmocka_unit_test(mean_over_space_is_a_global_pool),
        cmocka_unit_test(activations_fuse),
        cmocka_unit_test(activations_that_cannot_fuse_stay),
        cmocka_unit_test(fusing_can_be_turned_off),
        cmocka_unit_test(matmul_and_bias_are_gemm),
        cmocka_unit_test(resolve_is_called_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
