/* Schemes without samples: types that products get, what is refused, and blocks of weights against
 * a search in double. */
#include "quant/model.h"
#include "quant/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { K = 40, N = 5 };

typedef struct fixture {
    qn_context *ctx;
    qn_model *model;
} fixture;

static uint64_t rng_state;
static float uniform(void)
{
    rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
    return (float)((rng_state >> 33) & 0xFFFFFF) / 8388608.0f - 1.0f;
}

static qn_tensor *constant(qn_graph *g, const char *name, size_t rank, const int64_t *dims)
{
    size_t count = 1;
    void *data;
    for (size_t i = 0; i < rank; i++)
        count *= (size_t)dims[i];
    qn_blob *blob = qn__blob_create(g->ctx, count * sizeof(float), &data);
    assert_non_null(blob);
    for (size_t i = 0; i < count; i++)
        ((float *)data)[i] = uniform();
    qn_tensor *t =
        qn__graph_add_constant(g, name, qn_type_plain_make(QN_DTYPE_F32), rank, dims, blob);
    qn__blob_unref(blob);
    return t;
}

static qn_node *node(qn_graph *g, qn_op op, const char *name, uint32_t n_inputs)
{
    char out[64];
    (void)snprintf(out, sizeof(out), "%s_out", name);
    qn_node *n = qn__graph_add_node(g, SIZE_MAX, op, name, n_inputs, 1);
    qn__node_set_output(n, 0, qn__graph_add_tensor(g, out, qn_type_plain_make(QN_DTYPE_F32)));
    return n;
}

/* x -> MatMul "first" -> Sigmoid -> Gemm "second" with transB and a bias; x -> MatMul "third" */
static qn_graph *build(const qn_context *ctx)
{
    qn_graph *g;
    qn_error error = {0};
    assert_int_equal(qn__graph_create(ctx, &g, NULL), QN_OK);
    rng_state = 5;
    qn_tensor *x = qn__graph_add_tensor(g, "x", qn_type_plain_make(QN_DTYPE_F32));
    qn__tensor_set_shape(x, 2, (const int64_t[]){3, K});
    g->inputs = qn__arena_calloc(&g->arena, 1, sizeof(*g->inputs));
    g->inputs[0] = x;
    g->n_inputs = 1;
    qn_node *first = node(g, QN_OP_MATMUL, "first", 2);
    first->inputs[0] = x;
    first->inputs[1] = constant(g, "w1", 2, (const int64_t[]){K, K});
    qn_node *sigmoid = node(g, QN_OP_SIGMOID, "sigmoid", 1);
    sigmoid->inputs[0] = first->outputs[0];
    qn_node *second = node(g, QN_OP_GEMM, "second", 3);
    second->inputs[0] = sigmoid->outputs[0];
    second->inputs[1] = constant(g, "w2", 2, (const int64_t[]){N, K});
    second->inputs[2] = constant(g, "b2", 1, (const int64_t[]){N});
    assert_true(qn__node_set_int(g, second, "transB", 1));
    qn_node *third = node(g, QN_OP_MATMUL, "third", 2);
    third->inputs[0] = x;
    third->inputs[1] = constant(g, "w3", 2, (const int64_t[]){K, N});
    g->outputs = qn__arena_calloc(&g->arena, 2, sizeof(*g->outputs));
    g->outputs[0] = second->outputs[0];
    g->outputs[1] = third->outputs[0];
    g->n_outputs = 2;
    if (qn__graph_infer(g, &error) != QN_OK || qn__graph_verify(g, &error) != QN_OK)
        fail_msg("%s", error.message);
    return g;
}

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof(*f));
    qn_error error = {0};
    qn_context_options options;
    qn_context_options_init(&options);
    options.n_threads = 2;
    assert_non_null(f);
    assert_int_equal(qn_context_create(&options, &f->ctx, &error), QN_OK);
    assert_int_equal(qn__model_create(f->ctx, build(f->ctx), "p.onnx", 0, &f->model, &error),
                     QN_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    qn_model_destroy(f->model);
    qn_context_destroy(f->ctx);
    free(f);
    return 0;
}

static qn_quantize_options options_of(const char *scheme)
{
    qn_quantize_options o;
    qn_quantize_options_init(&o);
    o.scheme = scheme;
    return o;
}

static qn_model *run_ok(fixture *f, const qn_quantize_options *o, qn_report **report)
{
    qn_model *q = NULL;
    qn_error error = {0};
    if (qn_quantize(f->model, NULL, o, &q, report, &error) != QN_OK)
        fail_msg("%s", error.message);
    return q;
}

static const qn_node *find(const qn_model *model, const char *name)
{
    const qn_node *n = qn__graph_find_node(model->graph, name);
    assert_non_null(n);
    return n;
}

static void dynamic_products(void **state)
{
    fixture *f = *state;
    const qn_quantize_options o = options_of("dynamic");
    qn_report *report = NULL;
    qn_model *q = run_ok(f, &o, &report);
    const qn_node *first = find(q, "first"), *second = find(q, "second"), *third = find(q, "third");
    assert_int_equal(first->inputs[0]->type.kind, QN_TYPE_DYNAMIC);
    assert_ptr_equal(first->inputs[0], third->inputs[0]); /* quantized once */
    assert_int_equal(second->inputs[0]->type.kind, QN_TYPE_DYNAMIC);
    assert_int_equal(first->inputs[1]->type.kind, QN_TYPE_QUANT);
    assert_int_equal(first->inputs[1]->type.quant->n_scales, K);
    assert_int_equal(second->inputs[1]->type.quant->axis, 0);
    assert_int_equal(second->inputs[2]->type.dtype, QN_DTYPE_F32);
    assert_int_equal(first->outputs[0]->type.kind, QN_TYPE_PLAIN);
    assert_string_equal(qn_report_method(report, "scheme"), "dynamic");
    assert_string_equal(qn_report_method(report, "weights"), "mse");
    assert_non_null(strstr(qn_report_recipe(report), "\"scheme\": \"dynamic\""));
    qn_report_node row;
    size_t n_int8 = 0;
    for (size_t i = 0; qn_report_node_at(report, i, &row); i++) {
        n_int8 += row.quantized;
        assert_true(row.quantized || strstr(row.reason, "run time") != NULL);
    }
    assert_int_equal(n_int8, 3);
    qn_report_destroy(report);
    qn_model_destroy(q);
}

static void one_scale_where_it_is_asked_for(void **state)
{
    fixture *f = *state;
    const qn_override over[] = {{"third", "granularity", "tensor"}, {"second", "float", "1"}};
    qn_quantize_options o = options_of("dynamic");
    o.overrides = over;
    o.n_overrides = 2;
    qn_model *q = run_ok(f, &o, NULL);
    assert_int_equal(find(q, "third")->inputs[1]->type.quant->n_scales, 1);
    assert_int_equal(find(q, "second")->inputs[0]->type.kind, QN_TYPE_PLAIN);
    assert_int_equal(find(q, "second")->inputs[1]->type.kind, QN_TYPE_PLAIN);
    qn_model_destroy(q);
}

/* Squared error of a block with its own scale and zero point. */
static double block_error(const float *w, const qn_tensor *q, size_t n, size_t first, size_t count)
{
    const qn_quant *t = q->type.quant;
    const size_t at = first / (size_t)t->block * N + n;
    double lost = 0;
    for (size_t k = first; k < first + count; k++) {
        const int64_t v = qn__load_int(q->constant->data, q->type.dtype, k * N + n);
        assert_true(v >= t->qmin && v <= t->qmax);
        const int32_t zero = t->zero_points != NULL ? t->zero_points[at] : 0;
        const double e = (double)w[k * N + n] - (double)(v - zero) * (double)t->scales[at];
        lost += e * e;
    }
    return lost;
}

static void weights_in_blocks(void **state)
{
    static const struct {
        const char *word;
        qn_dtype dtype;
        int bits;
        bool zeros;
    } rows[] = {{"int8", QN_DTYPE_I8, 8, false},
                {"int4", QN_DTYPE_I4, 4, false},
                {"uint8", QN_DTYPE_U8, 8, true},
                {"uint4", QN_DTYPE_U4, 4, true}};
    fixture *f = *state;
    const float *w = (const void *)qn__graph_find_tensor(f->model->graph, "w3")->constant->data;
    for (size_t i = 0; i < 4; i++) {
        double lost[2] = {0, 0}, worst = 0;
        for (int method = 0; method < 2; method++) {
            qn_quantize_options o = options_of(rows[i].word);
            o.weight_block = 16;
            o.weights = method == 0 ? "max_abs" : "mse";
            qn_model *q = run_ok(f, &o, NULL);
            const qn_node *third = find(q, "third"), *second = find(q, "second");
            const qn_tensor *t = third->inputs[1];
            assert_int_equal(third->inputs[0]->type.kind, QN_TYPE_PLAIN);
            assert_int_equal(t->type.dtype, rows[i].dtype);
            assert_int_equal(t->type.quant->block, 16);
            assert_int_equal(t->type.quant->axis, 0);
            assert_int_equal(t->type.quant->n_scales, 3 * N);
            assert_int_equal(t->type.quant->zero_points != NULL, rows[i].zeros);
            assert_int_equal(second->inputs[1]->type.quant->axis, 1);
            for (size_t n = 0; n < N; n++)
                for (size_t k = 0; k < K; k += 16)
                    lost[method] += block_error(w, t, n, k, K - k < 16 ? K - k : 16);
            qn_model_destroy(q);
        }
        /* values within -1..1: a step is at most 2 / 2^bits or 1 / (2^(bits - 1) - 1) */
        const double step =
            rows[i].zeros ? 2.0 / ((1 << rows[i].bits) - 1) : 1.0 / ((1 << (rows[i].bits - 1)) - 1);
        worst = K * N * step * step / 4;
        assert_true(lost[0] <= worst && lost[0] > 0);
        assert_true(lost[1] <= lost[0]);
    }
}

static void expect_refused(fixture *f, const qn_quantize_options *o, const char *word)
{
    qn_model *q = NULL;
    qn_error error = {0};
    assert_int_equal(qn_quantize(f->model, NULL, o, &q, NULL, &error), QN_INVALID_ARGUMENT);
    assert_null(q);
    if (strstr(error.message, word) == NULL)
        fail_msg("\"%s\" does not name %s", error.message, word);
}

static void options_that_do_not_go_together(void **state)
{
    fixture *f = *state;
    qn_quantize_options o = options_of("sometimes");
    expect_refused(f, &o, "sometimes");
    o = options_of("dynamic");
    o.features = "kl";
    expect_refused(f, &o, "features");
    o = options_of("dynamic");
    o.weights = "gptq";
    expect_refused(f, &o, "gptq");
    o = options_of("dynamic");
    o.target = "tensorrt";
    expect_refused(f, &o, "tensorrt");
    o = options_of("dynamic");
    o.weight_block = 32;
    expect_refused(f, &o, "32");
    o = options_of("int4");
    o.weight_block = 48;
    expect_refused(f, &o, "48");
    o = options_of("int4");
    o.weight_bits = 3;
    expect_refused(f, &o, "weight-bits");
    o = options_of("uint4");
    o.weights = "gptq";
    expect_refused(f, &o, "gptq");
    const qn_override over[] = {{"first", "weight-bits", "4"}, {"x", "range", "0:1"}};
    o = options_of("int8");
    o.overrides = over;
    o.n_overrides = 1;
    expect_refused(f, &o, "weight-bits");
    o = options_of("dynamic");
    o.overrides = over + 1;
    o.n_overrides = 1;
    expect_refused(f, &o, "range");
}

static void there_are_defaults(void **state)
{
    (void)state;
    assert_string_equal(qn_quantize_default("scheme"), "static");
    assert_string_equal(qn_quantize_default("weight_block"), "32");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(dynamic_products, setup, teardown),
        cmocka_unit_test_setup_teardown(one_scale_where_it_is_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(weights_in_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(options_that_do_not_go_together, setup, teardown),
        cmocka_unit_test(there_are_defaults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
