/* Graphs without a .mnn source become .mnn documents: what is written for small graphs, and that a
 * refused allocation anywhere comes back as a status and leaks nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "fault/fault.h"
#include "format/mnn/mnn_format.h"

typedef struct builder {
    const qn_context *ctx;
    qn_graph *graph;
    qn_tensor *last;
} builder;

static qn_tensor *constant(builder *b, const char *name, size_t rank, const int64_t *dims)
{
    size_t count = 1;
    void *data = NULL;
    for (size_t i = 0; i < rank; i++)
        count *= (size_t)dims[i];
    qn_blob *blob = qn__blob_create(b->ctx, count * sizeof(float), &data);
    assert_non_null(blob);
    for (size_t i = 0; i < count; i++)
        ((float *)data)[i] = (float)((int)(i * 7 % 11) - 5) * 0.125f;
    qn_tensor *t =
        qn__graph_add_constant(b->graph, name, qn_type_plain_make(QN_DTYPE_F32), rank, dims, blob);
    qn__blob_unref(blob);
    assert_non_null(t);
    return t;
}

static qn_tensor *integers(builder *b, const char *name, const int64_t *values, int64_t count)
{
    qn_blob *blob = qn__blob_copy(b->ctx, values, (size_t)count * sizeof(*values));
    assert_non_null(blob);
    qn_tensor *t =
        qn__graph_add_constant(b->graph, name, qn_type_plain_make(QN_DTYPE_I64), 1, &count, blob);
    qn__blob_unref(blob);
    assert_non_null(t);
    return t;
}

/* A node that reads the last result and up to two more tensors. */
static qn_node *node(builder *b, qn_op op, const char *name, qn_tensor *second, qn_tensor *third)
{
    const uint32_t n = third != NULL ? 3 : second != NULL ? 2 : 1;
    qn_node *made = qn__graph_add_node(b->graph, SIZE_MAX, op, name, n, 1);
    qn_tensor *out = qn__graph_add_tensor(b->graph, name, qn_type_plain_make(QN_DTYPE_F32));
    assert_true(made != NULL && out != NULL);
    made->inputs[0] = b->last;
    if (n > 1)
        made->inputs[1] = second;
    if (n > 2)
        made->inputs[2] = third;
    qn__node_set_output(made, 0, out);
    b->last = out;
    return made;
}

static void begin(builder *b, const qn_context *ctx, size_t rank, const int64_t *dims)
{
    qn_error error = {0};
    b->ctx = ctx;
    assert_int_equal(qn__graph_create(ctx, &b->graph, &error), QN_OK);
    b->graph->opset = 17;
    b->last = qn__graph_add_tensor(b->graph, "x", qn_type_plain_make(QN_DTYPE_F32));
    b->graph->inputs = qn__arena_calloc(&b->graph->arena, 1, sizeof(qn_tensor *));
    b->graph->outputs = qn__arena_calloc(&b->graph->arena, 1, sizeof(qn_tensor *));
    assert_true(b->last && b->graph->inputs && b->graph->outputs);
    qn__tensor_set_shape(b->last, rank, dims);
    b->graph->inputs[b->graph->n_inputs++] = b->last;
}

static void finish(builder *b)
{
    qn_error error = {0};
    b->graph->outputs[b->graph->n_outputs++] = b->last;
    if (qn__graph_infer(b->graph, &error) != QN_OK || qn__graph_verify(b->graph, &error) != QN_OK)
        fail_msg("%s", error.message);
}

static const int64_t IMAGE[4] = {1, 4, 6, 6};

/* One of each family. */
static void varied(builder *b, const qn_context *ctx)
{
    const int64_t grouped[4] = {6, 2, 3, 3}, slopes[3] = {1, 4, 4}, pads[8] = {0, 0, 1, 1},
                  axes[1] = {1};
    begin(b, ctx, 4, IMAGE);
    qn_node *conv = node(b, QN_OP_CONV, "grouped", constant(b, "w", 4, grouped), NULL);
    assert_true(qn__node_set_int(b->graph, conv, "group", 2));
    node(b, QN_OP_RELU, "relu", NULL, NULL);
    node(b, QN_OP_PRELU, "slopes", constant(b, "s", 3, slopes), NULL);
    node(b, QN_OP_SOFTPLUS, "softplus", NULL, NULL);
    node(b, QN_OP_PAD, "pad", integers(b, "pads", pads, 8), NULL);
    qn_node *pool = node(b, QN_OP_MAX_POOL, "pool", NULL, NULL);
    const int64_t kernel[2] = {1, 1};
    assert_true(qn__node_set_ints(b->graph, pool, "kernel_shape", kernel, 2));
    node(b, QN_OP_HARD_SIGMOID, "sigmoid", NULL, NULL);
    const int64_t flat[3] = {1, 6, 25};
    node(b, QN_OP_RESHAPE, "flat", integers(b, "flat_shape", flat, 3), NULL);
    const int64_t product[2] = {25, 3};
    node(b, QN_OP_MATMUL, "product", constant(b, "m", 2, product), NULL);
    node(b, QN_OP_LOG_SOFTMAX, "log_softmax", NULL, NULL);
    qn_node *sum = node(b, QN_OP_REDUCE_SUM, "sum", integers(b, "axes", axes, 1), NULL);
    assert_true(qn__node_set_int(b->graph, sum, "keepdims", 0));
    finish(b);
}

/* Convolution with a rectifier and a pooling, all int8. */
static void quantized(builder *b, const qn_context *ctx, int32_t zero)
{
    const int64_t shape[4] = {8, 4, 1, 1};
    const float scale = 0.05f;
    const float scales[8] = {0.01f, 0.02f, 0.03f, 0.04f, 0.05f, 0.06f, 0.07f, 0.08f};
    begin(b, ctx, 4, IMAGE);
    qn_quant activation = {.bits = 8,
                           .is_signed = true,
                           .axis = -1,
                           .qmin = -127,
                           .qmax = 127,
                           .n_scales = 1,
                           .scales = &scale,
                           .zero_points = &zero};
    qn_quant weight = activation;
    weight.axis = 0;
    weight.n_scales = 8;
    weight.scales = scales;
    weight.zero_points = NULL;
    const qn_quant *a = qn__graph_quant(b->graph, &activation);
    const qn_quant *w = qn__graph_quant(b->graph, &weight);
    assert_true(a != NULL && w != NULL);
    void *q = NULL;
    qn_blob *blob = qn__blob_create(ctx, 32, &q);
    assert_non_null(blob);
    for (int i = 0; i < 32; i++)
        ((int8_t *)q)[i] = (int8_t)(i * 8 - 127);
    qn_tensor *weights =
        qn__graph_add_constant(b->graph, "w", qn_type_quant_make(QN_DTYPE_I8, w), 4, shape, blob);
    qn__blob_unref(blob);
    node(b, QN_OP_QUANTIZE_LINEAR, "x_q", NULL, NULL);
    b->last->type = qn_type_quant_make(QN_DTYPE_I8, a);
    qn_node *conv = node(b, QN_OP_CONV, "conv", weights, NULL);
    conv->act = QN_ACT_RELU;
    conv->act_name = "relu";
    b->last->type = qn_type_quant_make(QN_DTYPE_I8, a);
    qn_node *pool = node(b, QN_OP_MAX_POOL, "pool", NULL, NULL);
    const int64_t kernel[2] = {2, 2};
    assert_true(qn__node_set_ints(b->graph, pool, "kernel_shape", kernel, 2));
    b->last->type = qn_type_quant_make(QN_DTYPE_I8, a);
    node(b, QN_OP_DEQUANTIZE_LINEAR, "y", NULL, NULL);
    finish(b);
}

static qn_context *context(void)
{
    qn_context *ctx = NULL;
    qn_error error = {0};
    assert_int_equal(qn_context_create(NULL, &ctx, &error), QN_OK);
    return ctx;
}

static const qn_fb_object *op_of(const qn_fb_document *d, int64_t type, size_t index)
{
    size_t n;
    qn_fb_object **ops = qn__fb_tables(d->root, QN_MNN_Net_oplists, &n);
    for (size_t i = 0; i < n; i++)
        if (qn__fb_int(d, ops[i], QN_MNN_Op_type) == type && index-- == 0)
            return ops[i];
    fail_msg("no %s", qn__mnn_op_name(type));
    return NULL;
}

/* Record of the first output of an operator. */
static const qn_fb_object *record_of(const qn_fb_document *d, const qn_fb_object *op)
{
    size_t n;
    const int64_t id = qn__fb_int_at(d, op, QN_MNN_Op_outputIndexes, 0);
    qn_fb_object **list = qn__fb_tables(d->root, QN_MNN_Net_extraTensorDescribe, &n);
    for (size_t i = 0; i < n; i++)
        if (qn__fb_int(d, list[i], QN_MNN_TensorDescribe_index) == id)
            return qn__fb_table(list[i], QN_MNN_TensorDescribe_quantInfo);
    return NULL;
}

static size_t count_of(const qn_fb_document *d, int64_t type)
{
    size_t n, found = 0;
    qn_fb_object **ops = qn__fb_tables(d->root, QN_MNN_Net_oplists, &n);
    for (size_t i = 0; i < n; i++)
        found += qn__fb_int(d, ops[i], QN_MNN_Op_type) == type;
    return found;
}

/* Convolutions are packed, so are the operators between; one conversion in, one out. */
static void test_layouts(void **state)
{
    (void)state;
    qn_context *ctx = context();
    qn_fb_document d;
    qn_error error = {0};
    builder b;
    varied(&b, ctx);
    if (qn__mnn_export(b.graph, NULL, &d, &error) != QN_OK)
        fail_msg("%s", error.message);
    assert_int_equal(count_of(&d, QN_MNN_OpType_Convolution), 3); /* two groups, the product */
    assert_int_equal(count_of(&d, QN_MNN_OpType_Slice), 1);
    assert_int_equal(count_of(&d, QN_MNN_OpType_Input), 1);
    const qn_fb_object *input = op_of(&d, QN_MNN_OpType_Input, 0);
    const qn_fb_object *dims = qn__fb_table(input, QN_MNN_Op_main);
    assert_int_equal(qn__fb_int_at(&d, dims, QN_MNN_Input_dims, 1), 4);
    assert_int_equal(qn__fb_int(&d, dims, QN_MNN_Input_dformat), QN_MNN_MNN_DATA_FORMAT_NCHW);
    assert_string_equal(qn__fb_string_at(d.root, QN_MNN_Net_outputName, 0), "sum");
    /* Every input of an operator is made before it. */
    size_t n_ops, n_names, n;
    qn_fb_object **ops = qn__fb_tables(d.root, QN_MNN_Net_oplists, &n_ops);
    n_names = d.root->values[QN_MNN_Net_tensorName].count;
    uint8_t *made = calloc(n_names, 1);
    for (size_t i = 0; i < n_ops; i++) {
        qn__fb_bytes(ops[i], QN_MNN_Op_inputIndexes, &n);
        for (size_t k = 0; k < n; k++)
            assert_true(made[qn__fb_int_at(&d, ops[i], QN_MNN_Op_inputIndexes, k)]);
        qn__fb_bytes(ops[i], QN_MNN_Op_outputIndexes, &n);
        assert_true(n > 0);
        for (size_t k = 0; k < n; k++) {
            const int64_t id = qn__fb_int_at(&d, ops[i], QN_MNN_Op_outputIndexes, k);
            assert_in_range(id, 0, n_names - 1);
            assert_false(made[id]);
            made[id] = 1;
        }
    }
    free(made);
    qn__fb_free(&d);
    qn__graph_destroy(b.graph);
    qn_context_destroy(ctx);
}

static void check_quantized(int32_t zero, double lowest, bool spread)
{
    qn_context *ctx = context();
    qn_fb_document d;
    qn_error error = {0};
    builder b;
    quantized(&b, ctx, zero);
    if (qn__mnn_export(b.graph, NULL, &d, &error) != QN_OK)
        fail_msg("%s", error.message);
    const qn_fb_object *conv = op_of(&d, QN_MNN_OpType_Convolution, 0);
    const qn_fb_object *main_table = qn__fb_table(conv, QN_MNN_Op_main);
    const qn_fb_object *common = qn__fb_table(main_table, QN_MNN_Convolution2D_common);
    assert_false(qn__fb_has(main_table, QN_MNN_Convolution2D_weight));
    assert_true(qn__fb_has(main_table, QN_MNN_Convolution2D_quanParameter));
    assert_true(qn__fb_int(&d, common, QN_MNN_Convolution2DCommon_relu));
    const qn_fb_object *record = record_of(&d, conv);
    assert_non_null(record);
    assert_float_equal(qn__fb_real(&d, record, QN_MNN_TensorQuantInfo_scale), 0.05, 1e-6);
    assert_float_equal(qn__fb_real(&d, record, QN_MNN_TensorQuantInfo_zero), zero, 0);
    assert_float_equal(qn__fb_real(&d, record, QN_MNN_TensorQuantInfo_min), lowest, 0);
    assert_non_null(record_of(&d, op_of(&d, QN_MNN_OpType_Input, 0)));
    assert_non_null(record_of(&d, op_of(&d, QN_MNN_OpType_ConvertTensor, 0)));
    const qn_fb_object *pooled = record_of(&d, op_of(&d, QN_MNN_OpType_Pooling, 0));
    assert_non_null(pooled);
    assert_true((qn__fb_real(&d, pooled, QN_MNN_TensorQuantInfo_scale) !=
                 qn__fb_real(&d, record, QN_MNN_TensorQuantInfo_scale)) == spread);
    qn__fb_free(&d);
    qn__graph_destroy(b.graph);
    qn_context_destroy(ctx);
}

/* The rectifier is the record's lower end; a maximum over levels of both signs is kept in float. */
static void test_records(void **state)
{
    (void)state;
    check_quantized(0, 0, false);
    check_quantized(-127, -127, true);
    check_quantized(-20, -20, true);
}

static void sweep(void (*build)(builder *b, const qn_context *ctx))
{
    for (uint64_t n = 1;; n++) {
        fault memory = {.fail_at = 0};
        const qn_allocator allocator = fault_allocator(&memory);
        qn_context_options options;
        qn_context_options_init(&options);
        options.allocator = &allocator;
        options.n_threads = 1;
        qn_context *ctx = NULL;
        qn_error error = {0};
        builder b;
        qn_fb_document d;
        assert_int_equal(qn_context_create(&options, &ctx, &error), QN_OK);
        ctx->arena_block_bytes = 16; /* a block for each request */
        build(&b, ctx);
        memory.calls = 0;
        memory.fail_at = n;
        memory.persistent = n % 2 == 0;
        const qn_status status = qn__mnn_export(b.graph, NULL, &d, &error);
        const bool reached = memory.calls >= n;
        memory.fail_at = 0;
        if (status == QN_OK)
            qn__fb_free(&d);
        qn__graph_destroy(b.graph);
        qn_context_destroy(ctx);
        assert_int_equal(memory.live, 0);
        if (!reached) {
            assert_int_equal(status, QN_OK);
            return;
        }
        if (status != QN_NO_MEMORY)
            fail_msg("allocation %llu: status %d \"%s\"", (unsigned long long)n, (int)status,
                     error.message);
    }
}

static void symmetric(builder *b, const qn_context *ctx)
{
    quantized(b, ctx, 0);
}

static void test_memory(void **state)
{
    (void)state;
    sweep(varied);
    sweep(symmetric);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
