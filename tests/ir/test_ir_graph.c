/* Building and changing graphs, clone, sort, verify; random graphs. */
#include "ir/graph_build.h"

#include "core/strbuf.h"

#include <math.h>
#include <stdlib.h>

static void names_become_unique(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    const qn_type f32 = qn_type_plain_make(QN_DTYPE_F32);
    qn_tensor *first = qn__graph_add_tensor(b.graph, "t", f32);
    qn_tensor *taken = qn__graph_add_tensor(b.graph, "t_1", f32);
    qn_tensor *second = qn__graph_add_tensor(b.graph, "t", f32);
    qn_tensor *unnamed = qn__graph_add_tensor(b.graph, NULL, f32);
    assert_string_equal(first->name, "t");
    assert_string_equal(taken->name, "t_1");
    assert_string_equal(second->name, "t_2");
    assert_true(unnamed->name[0] != '\0');
    assert_ptr_equal(qn__graph_find_tensor(b.graph, "t_2"), second);
    assert_null(qn__graph_find_tensor(b.graph, "t_3"));
    qn_node *node = qn__graph_add_node(b.graph, 0, QN_OP_RELU, "n", 1, 1);
    qn__graph_remove_node(b.graph, node);
    assert_null(qn__graph_find_node(b.graph, "n"));
    qn_node *again = qn__graph_add_node(b.graph, 0, QN_OP_RELU, "n", 1, 1);
    assert_string_equal(again->name, "n");
    assert_int_not_equal(again->id, node->id);
    build_end(&b);
}

static void a_hundred_thousand_equal_names_take_no_time(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    for (int i = 0; i < 100000; i++)
        assert_non_null(qn__graph_add_tensor(b.graph, "same", qn_type_plain_make(QN_DTYPE_F32)));
    assert_string_equal(b.graph->tensors[99999]->name, "same_99999");
    build_end(&b);
}

static void attributes_add_replace_and_go(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(2));
    qn_node *node = NODE(&b, RELU, "r", x)->producer;
    assert_true(qn__node_set_int(b.graph, node, "i", 7));
    assert_true(qn__node_set_float(b.graph, node, "f", 0.5f));
    assert_true(qn__node_set_string(b.graph, node, "s", "text"));
    assert_true(qn__node_set_tensor(b.graph, node, "t", build_weights(&b, "w", DIMS(3))->constant,
                                    QN_DTYPE_F32, DIMS(3)));
    assert_int_equal(qn__attr_int(node, "i", 0), 7);
    assert_true(qn__attr_float(node, "f", 0) == 0.5f);
    assert_string_equal(qn__attr_string(node, "s", ""), "text");
    assert_int_equal(qn__attr_int(node, "s", -3), -3);    /* of another kind */
    assert_true(qn__node_set_int(b.graph, node, "t", 9)); /* replaces the tensor */
    assert_int_equal(qn__attr_int(node, "t", 0), 9);
    assert_int_equal(node->n_attrs, 4);
    qn__node_remove_attr(node, "f");
    assert_null(qn__node_attr(node, "f"));
    assert_int_equal(qn__attr_int(node, "t", 0), 9);
    size_t count = 5;
    assert_null(qn__attr_ints(node, "none", &count));
    assert_int_equal(count, 0);
    build_end(&b);
}

static void uses_count_slots_and_outputs(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(2));
    qn_tensor *a = NODE(&b, RELU, "a", x);
    qn_tensor *c = NODE(&b, ADD, "c", a, a);
    build_output(&b, c);
    qn_uses uses;
    assert_ok(&b, qn__uses_build(b.graph, &uses, &b.error));
    assert_int_equal(qn_uses_count(&uses, x), 1);
    assert_int_equal(qn_uses_count(&uses, a), 2);
    assert_int_equal(qn_uses_count(&uses, c), 0);
    assert_ptr_equal(uses.users[uses.offsets[a->id]], c->producer);
    assert_true(uses.is_output[c->id] && !uses.is_output[a->id]);
    qn__uses_free(&uses);
    build_end(&b);
}

static void a_cycle_is_named(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(2));
    qn_tensor *p = NODE(&b, ADD, "p", x, x);
    qn_tensor *q = NODE(&b, RELU, "q", p);
    qn_tensor *behind = NODE(&b, RELU, "behind", q);
    p->producer->inputs[1] = q;
    /* Put the innocent node first: it waits for the cycle but is not on it. */
    qn_node *node = behind->producer;
    b.graph->nodes[2] = b.graph->nodes[0];
    b.graph->nodes[0] = node;
    assert_int_equal(qn__graph_sort(b.graph, &b.error), QN_CORRUPT);
    assert_null(strstr(b.error.message, "behind"));
    assert_non_null(strstr(b.error.message, "cycle"));
    build_end(&b);
}

static void macs_of_known_layers(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(1, 8, 10, 10));
    qn_tensor *conv = NODE(&b, CONV, "c", x, build_weights(&b, "w", DIMS(16, 4, 3, 3)));
    set_int(&b, conv, "group", 2);
    qn_tensor *gemm =
        NODE(&b, GEMM, "g", build_input(&b, "y", DIMS(3, 5)), build_weights(&b, "v", DIMS(7, 5)));
    set_int(&b, gemm, "transB", 1);
    assert_ok(&b, qn__graph_infer(b.graph, &b.error));
    assert_int_equal(qn__node_macs(conv->producer), 16 * 8 * 8 * 4 * 9);
    assert_int_equal(qn__node_macs(gemm->producer), 3 * 5 * 7);
    build_end(&b);
}

/* --- random graphs ----------------------------------------------------------------------------*/
static uint32_t random_state;
static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)(random_state >> 8) * n) >> 24);
}

/* Elementwise nodes over earlier tensors; always valid and in order. */
static void random_graph(builder *b, uint32_t seed)
{
    random_state = seed;
    build_start(b);
    qn_tensor *pool[64];
    uint32_t n = 0;
    pool[n++] = build_input(b, "x", DIMS(-1, 3));
    pool[n++] = build_input(b, "y", DIMS(1, 3));
    pool[n++] = build_weights(b, "w", DIMS(3));
    const uint32_t count = 1 + random_below(40);
    for (uint32_t i = 0; i < count; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%u", i);
        qn_tensor *in[2] = {pool[random_below(n)], pool[random_below(n)]};
        const bool binary = random_below(2) != 0;
        qn_tensor *out = build_node(b, binary ? QN_OP_ADD : QN_OP_RELU, name, binary ? 2 : 1, in);
        if (random_below(3) == 0)
            assert_true(qn__node_set_int(b->graph, out->producer, "mark", i));
        pool[n++] = out;
    }
    build_output(b, pool[n - 1]);
    if (random_below(2) != 0 && n > 5)
        build_output(b, pool[4]);
    assert_ok(b, qn__graph_infer(b->graph, &b->error));
    assert_ok(b, qn__graph_verify(b->graph, &b->error));
}

static char *dump(const builder *b, const qn_graph *graph)
{
    qn_strbuf text;
    qn__strbuf_init(&text, b->ctx, 1 << 20);
    qn__graph_dump(graph, &text);
    assert_false(text.failed);
    return text.data;
}

static void a_clone_is_equal_and_independent(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 200; seed++) {
        builder b;
        random_graph(&b, seed);
        qn_graph *copy = NULL;
        assert_ok(&b, qn__graph_clone(b.graph, &copy, &b.error));
        assert_ok(&b, qn__graph_verify(copy, &b.error));
        char *before = dump(&b, b.graph), *after = dump(&b, copy);
        assert_string_equal(before, after);
        assert_int_equal(copy->n_tensors, b.graph->n_tensors);
        for (size_t i = 0; i < copy->n_nodes; i++) {
            assert_int_equal(copy->nodes[i]->id, b.graph->nodes[i]->id);
            assert_int_equal(copy->nodes[i]->n_sources, b.graph->nodes[i]->n_sources);
        }
        qn__graph_destroy(b.graph); /* the copy must not lean on it */
        b.graph = copy;
        char *alone = dump(&b, copy);
        assert_string_equal(before, alone);
        qn__free(b.ctx, before);
        qn__free(b.ctx, after);
        qn__free(b.ctx, alone);
        build_end(&b);
    }
}

static void sort_keeps_sorted_lists_and_mends_others(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 200; seed++) {
        builder b;
        random_graph(&b, seed);
        qn_node *order[64], *sorted[64];
        const size_t n = b.graph->n_nodes;
        memcpy(order, b.graph->nodes, n * sizeof(*order));
        assert_ok(&b, qn__graph_sort(b.graph, &b.error));
        assert_memory_equal(order, b.graph->nodes, n * sizeof(*order));
        for (size_t i = n; i > 1; i--) {
            const size_t k = random_below((uint32_t)i);
            qn_node *swap = b.graph->nodes[i - 1];
            b.graph->nodes[i - 1] = b.graph->nodes[k];
            b.graph->nodes[k] = swap;
        }
        assert_ok(&b, qn__graph_sort(b.graph, &b.error));
        assert_ok(&b, qn__graph_verify(b.graph, &b.error));
        memcpy(sorted, b.graph->nodes, n * sizeof(*sorted));
        assert_ok(&b, qn__graph_sort(b.graph, &b.error));
        assert_memory_equal(sorted, b.graph->nodes, n * sizeof(*sorted));
        build_end(&b);
    }
}

/* Breaks one thing; false when this graph has no place for it. */
static bool corrupt(builder *b, uint32_t kind)
{
    qn_graph *g = b->graph;
    qn_node *node = g->nodes[random_below((uint32_t)g->n_nodes)];
    qn_node *last = g->nodes[g->n_nodes - 1];
    qn_tensor *tensor = g->tensors[random_below((uint32_t)g->n_tensors)];
    switch (kind) {
    case 0: /* order */
        if (node == last || last->inputs[0] != g->nodes[0]->outputs[0])
            return false;
        g->nodes[g->n_nodes - 1] = g->nodes[0];
        g->nodes[0] = last;
        return true;
    case 1:
        node->outputs[0]->producer = NULL;
        return true;
    case 2:
        node->outputs[0]->producer_output = 3;
        return true;
    case 3:
        tensor->id++;
        return true;
    case 4:
        tensor->has_shape = true;
        tensor->rank = 9;
        return true;
    case 5:
        tensor->dims[0] = qn_dim_const(-2);
        return true;
    case 6:
        tensor->name = tensor == g->tensors[0] ? "y" : "x";
        return true;
    case 7:
        g->tensors[2]->dims[0] = qn_dim_const(4); /* constant of 3 values */
        return true;
    case 8:
        node->op = QN_OP_COUNT;
        return true;
    case 9:
        node->name = "nobody";
        return true;
    case 10:
        node->act = QN_ACT_CLIP;
        node->act_lo = 1;
        node->act_hi = NAN;
        return true;
    case 11:
        g->outputs[0] = qn__graph_add_tensor(g, "orphan", qn_type_plain_make(QN_DTYPE_F32));
        return true;
    case 12:
        node->inputs[0] = qn__graph_add_tensor(g, "orphan", qn_type_plain_make(QN_DTYPE_F32));
        return true;
    case 13:
        if (g->n_nodes < 2 || node == last)
            return false;
        qn__node_set_output(last, 0, node->outputs[0]); /* two producers */
        return true;
    case 14: /* an output more than the operator has */
        node = qn__graph_add_node(g, g->n_nodes, QN_OP_RELU, "two", 1, 2);
        node->inputs[0] = last->outputs[0];
        for (uint32_t i = 0; i < 2; i++)
            qn__node_set_output(node, i,
                                qn__graph_add_tensor(g, NULL, qn_type_plain_make(QN_DTYPE_F32)));
        return true;
    default:
        tensor->type.kind = QN_TYPE_QUANT; /* without parameters */
        return true;
    }
}

static void verify_sees_every_corruption(void **state)
{
    (void)state;
    for (uint32_t kind = 0; kind < 16; kind++) {
        uint32_t tried = 0;
        for (uint32_t seed = 1; seed <= 60; seed++) {
            builder b;
            random_graph(&b, seed);
            if (corrupt(&b, kind)) {
                tried++;
                if (qn__graph_verify(b.graph, &b.error) != QN_CORRUPT)
                    fail_msg("corruption %u with seed %u was not seen", kind, seed);
                assert_non_null(strstr(b.error.message, "test.onnx: "));
            }
            build_end(&b);
        }
        assert_true(tried > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_become_unique),
        cmocka_unit_test(a_hundred_thousand_equal_names_take_no_time),
        cmocka_unit_test(attributes_add_replace_and_go),
        cmocka_unit_test(uses_count_slots_and_outputs),
        cmocka_unit_test(a_cycle_is_named),
        cmocka_unit_test(macs_of_known_layers),
        cmocka_unit_test(a_clone_is_equal_and_independent),
        cmocka_unit_test(sort_keeps_sorted_lists_and_mends_others),
        cmocka_unit_test(verify_sees_every_corruption),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
