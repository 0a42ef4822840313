/* Folding per-channel maps into weights, checked against direct convolution in double. */
#include "ir/graph_build.h"

#include "pass/pass.h"

#include <math.h>

static void simplify(builder *b)
{
    qn_pass_options options;
    qn__pass_options_init(&options);
    assert_ok(b, qn__passes_simplify(b->graph, &options, &b->error));
    assert_ok(b, qn__graph_verify(b->graph, &b->error));
}

/* Output [M, ...] of one pixel: a 1x1 convolution or row of a Gemm of input value x[k] = k + 1, so
 * that every weight counts. The layouts of weights are written out here on their own. */
static void apply(builder *b, const qn_node *node, double *out, size_t n_out)
{
    size_t n_w, n_b = 0;
    const float *w = qn__tensor_floats(b->graph, node->inputs[1], &n_w);
    const float *bias =
        node->n_inputs > 2 ? qn__tensor_floats(b->graph, node->inputs[2], &n_b) : NULL;
    const int64_t group = qn__attr_int(node, "group", 1);
    const size_t n_in = n_w * (size_t)group / n_out;
    const size_t in_g = n_in / (size_t)group, out_g = n_out / (size_t)group;
    const bool trans_b = qn__attr_int(node, "transB", 0) != 0;
    const double alpha = (double)qn__attr_float(node, "alpha", 1);
    const double beta = (double)qn__attr_float(node, "beta", 1);
    for (size_t m = 0; m < n_out; m++) {
        double sum = 0;
        for (size_t k = 0; k < in_g; k++) {
            const size_t c = m / out_g * in_g + k; /* input channel */
            size_t at;
            if (node->op == QN_OP_CONV)
                at = m * in_g + k;
            else if (node->op == QN_OP_CONV_TRANSPOSE)
                at = c * out_g + m % out_g;
            else
                at = trans_b ? m * n_in + c : c * n_out + m;
            sum += (double)w[at] * (double)(c + 1);
        }
        out[m] = alpha * sum + (bias != NULL ? beta * (double)bias[n_b == 1 ? 0 : m] : 0);
    }
}

typedef struct bn_values {
    float scale[6], shift[6], mean[6], var[6], epsilon;
} bn_values;

static qn_tensor *batch_norm(builder *b, const char *name, qn_tensor *x, const bn_values *v)
{
    qn_tensor *y = NODE(b, BATCH_NORMALIZATION, name, x, build_floats(b, "scale", 6, v->scale),
                        build_floats(b, "shift", 6, v->shift), build_floats(b, "mean", 6, v->mean),
                        build_floats(b, "var", 6, v->var));
    assert_true(qn__node_set_float(b->graph, y->producer, "epsilon", v->epsilon));
    return y;
}

static void bn_reference(const bn_values *v, double *x)
{
    for (int c = 0; c < 6; c++)
        x[c] = ((double)v->scale[c] * (x[c] - (double)v->mean[c])) /
                   sqrt((double)v->var[c] + (double)v->epsilon) +
               (double)v->shift[c];
}

static const bn_values ORDINARY = {{1, 0.5f, -2, 3, 0.01f, 1},
                                   {0, 1, -1, 0.5f, 2, 0},
                                   {0.1f, -0.2f, 3, 0, 5, -1},
                                   {1, 2, 0.5f, 4, 0.25f, 1e-3f},
                                   1e-5f};
/* Variances that are zero or denormal, as trained nets with dead channels have. */
static const bn_values DENORMAL = {{1, 0.5f, -2, 3, 0.01f, 1e-20f},
                                   {0, 1, -1, 0.5f, 2, 0},
                                   {0.1f, -0.2f, 3, 0, 5, -1},
                                   {0, 6e-45f, 1e-40f, 1e-38f, 0, 4e-44f},
                                   1e-5f};

/* Conv, ConvTranspose, Gemm x bias or not; group 1 or 2; both layouts of Gemm. */
static qn_tensor *product(builder *b, int form, bool bias, int64_t group)
{
    qn_tensor *x =
        form >= 2 ? build_input(b, "x", DIMS(-1, 4)) : build_input(b, "x", DIMS(-1, 4, 2, 2));
    qn_tensor *w = form == 0   ? build_weights(b, "w", DIMS(6, 4 / group, 1, 1))
                   : form == 1 ? build_weights(b, "w", DIMS(4, 6 / group, 1, 1))
                   : form == 2 ? build_weights(b, "w", DIMS(4, 6))
                               : build_weights(b, "w", DIMS(6, 4));
    static const qn_op OPS[] = {QN_OP_CONV, QN_OP_CONV_TRANSPOSE, QN_OP_GEMM, QN_OP_GEMM};
    qn_tensor *inputs[3] = {x, w, bias ? build_weights(b, "bias", DIMS(6)) : NULL};
    qn_tensor *y = build_node(b, OPS[form], "p", bias ? 3 : 2, inputs);
    if (form < 2) {
        set_int(b, y, "group", group);
    } else {
        set_int(b, y, "transB", form == 3);
        assert_true(qn__node_set_float(b->graph, y->producer, "alpha", 0.5f));
        assert_true(qn__node_set_float(b->graph, y->producer, "beta", 2.0f));
    }
    return y;
}

static void batch_normalization_folds_everywhere(void **state)
{
    (void)state;
    for (int i = 0; i < 32; i++) {
        const int form = i % 4;
        const bool bias = i / 4 % 2 != 0;
        const int64_t group = form < 2 && i / 8 % 2 != 0 ? 2 : 1;
        const bn_values *values = i / 16 != 0 ? &DENORMAL : &ORDINARY;
        builder b;
        build_start(&b);
        qn_tensor *p = product(&b, form, bias, group);
        const qn_node *node = p->producer;
        qn_tensor *y = batch_norm(&b, "bn", p, values);
        build_output(&b, y);
        double expected[6], got[6];
        apply(&b, node, expected, 6);
        bn_reference(values, expected);
        simplify(&b);
        assert_int_equal(b.graph->n_nodes, 1);
        assert_ptr_equal(y->producer, node);
        assert_string_equal(y->name, "bn_out");
        assert_string_equal(node->inputs[1]->name, "w_folded");
        assert_int_equal(node->inputs[1]->source, -1);
        assert_int_equal(node->n_sources, 2);
        apply(&b, node, got, 6);
        for (int c = 0; c < 6; c++)
            if (!(fabs(got[c] - expected[c]) <= 1e-6 * (fabs(expected[c]) + 2000)))
                fail_msg("case %d channel %d: %.9g, expected %.9g", i, c, got[c], expected[c]);
        build_end(&b);
    }
}

/* Zero variance and zero epsilon would give infinite weights: the node stays. */
static void a_map_that_is_not_finite_stays(void **state)
{
    (void)state;
    for (int form = 0; form < 3; form++) {
        builder b;
        build_start(&b);
        bn_values v = ORDINARY;
        if (form == 0)
            v.epsilon = v.var[3] = 0;
        else if (form == 1)
            v.var[2] = -1;
        else
            v.scale[0] = 3e38f; /* weights overflow float */
        qn_tensor *p = product(&b, 0, true, 1);
        const qn_tensor *weight = p->producer->inputs[1];
        build_output(&b, batch_norm(&b, "bn", p, &v));
        simplify(&b);
        assert_int_equal(b.graph->n_nodes, 2);
        assert_ptr_equal(b.graph->nodes[0]->inputs[1], weight);
        build_end(&b);
    }
}

static void what_others_read_does_not_fold(void **state)
{
    (void)state;
    for (int form = 0; form < 3; form++) {
        builder b;
        build_start(&b);
        qn_tensor *p = product(&b, 0, false, 1);
        qn_tensor *y = batch_norm(&b, "bn", p, &ORDINARY);
        build_output(&b, y);
        if (form == 0)
            build_output(&b, p);
        else if (form == 1)
            build_output(&b, NODE(&b, SIGMOID, "s", p));
        else
            set_int(&b, y, "training_mode", 1);
        const size_t before = b.graph->n_nodes;
        simplify(&b);
        assert_int_equal(b.graph->n_nodes, before);
        build_end(&b);
    }
}

/* Conv, BatchNormalization, then x * k, k - x, x / 4, x + v: all in one weight. */
static void chains_fold_in_one_walk(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    const float four = 4;
    qn_tensor *p = product(&b, 0, true, 2);
    const qn_node *node = p->producer;
    qn_tensor *k = build_weights(&b, "k", DIMS(6, 1, 1));
    qn_tensor *v = build_weights(&b, "v", DIMS(1, 6, 1, 1));
    qn_tensor *y = batch_norm(&b, "bn", p, &ORDINARY);
    y = NODE(&b, MUL, "mul", k, y);
    y = NODE(&b, SUB, "sub", v, y);
    y = NODE(&b, DIV, "div", y, build_const(&b, "four", QN_DTYPE_F32, &four, 0, NULL));
    y = NODE(&b, ADD, "add", y, v);
    build_output(&b, y);
    double expected[6], got[6];
    size_t count;
    const float *kv = qn__tensor_floats(b.graph, k, &count);
    const float *vv = qn__tensor_floats(b.graph, v, &count);
    apply(&b, node, expected, 6);
    bn_reference(&ORDINARY, expected);
    for (int c = 0; c < 6; c++)
        expected[c] = ((double)vv[c] - expected[c] * (double)kv[c]) / 4 + (double)vv[c];
    simplify(&b);
    assert_int_equal(b.graph->n_nodes, 1);
    assert_int_equal(node->n_sources, 6);
    apply(&b, node, got, 6);
    for (int c = 0; c < 6; c++)
        assert_true(fabs(got[c] - expected[c]) <= 1e-5 * (fabs(expected[c]) + 10));
    build_end(&b);
}

static void maps_that_are_not_per_channel_stay(void **state)
{
    (void)state;
    for (int form = 0; form < 4; form++) {
        builder b;
        build_start(&b);
        qn_tensor *p = product(&b, 0, true, 1);
        qn_tensor *k = form == 0   ? build_weights(&b, "k", DIMS(2)) /* along width */
                       : form == 1 ? build_weights(&b, "k", DIMS(6, 2, 1))
                       : form == 2 ? build_weights(&b, "k", DIMS(1, 1, 6, 1, 1)) /* adds a rank */
                                   : build_input(&b, "k", DIMS(6, 1, 1));
        build_output(&b, NODE(&b, MUL, "mul", p, k));
        simplify(&b);
        assert_int_equal(b.graph->n_nodes, 2);
        build_end(&b);
    }
}

/* Two nodes share weights; one is followed by BatchNormalization. */
static void shared_weights_are_copied(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *p = product(&b, 0, false, 1);
    qn_tensor *weight = p->producer->inputs[1];
    qn_tensor *other = NODE(&b, CONV, "other", p->producer->inputs[0], weight);
    const qn_node *node = p->producer;
    build_output(&b, batch_norm(&b, "bn", p, &ORDINARY));
    build_output(&b, other);
    simplify(&b);
    assert_int_equal(b.graph->n_nodes, 2);
    assert_ptr_equal(other->producer->inputs[1], weight);
    assert_non_null(weight->constant);
    assert_string_equal(node->inputs[1]->name, "w_folded");
    build_end(&b);
}

static void activation_follows_folding(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *y =
        NODE(&b, RELU, "relu", batch_norm(&b, "bn", product(&b, 0, false, 1), &ORDINARY));
    build_output(&b, y);
    simplify(&b);
    assert_int_equal(b.graph->n_nodes, 1);
    assert_int_equal(y->producer->act, QN_ACT_RELU);
    assert_int_equal(y->producer->act_source, 2);
    assert_int_equal(y->producer->n_sources, 2);
    build_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batch_normalization_folds_everywhere),
        cmocka_unit_test(a_map_that_is_not_finite_stays),
        cmocka_unit_test(what_others_read_does_not_fold),
        cmocka_unit_test(chains_fold_in_one_walk),
        cmocka_unit_test(maps_that_are_not_per_channel_stay),
        cmocka_unit_test(shared_weights_are_copied),
        cmocka_unit_test(activation_follows_folding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
