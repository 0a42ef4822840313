/* ONNX files that are cut, flipped or lie: every one ends in an error or a graph that verifies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/context.h"
#include "core/io.h"
#include "fault/fault.h"
#include "format/onnx/onnx_format.h"
#include "format/onnx/onnx_out.h"
#include "format/onnx/onnx_proto.h"
#include "format/onnx/onnx_read.h"

/* --- a small writer, independent of the graph
 * ---------------------------------------------------*/
static void begin(qn_onnx_out *out, const qn_context *ctx)
{
    qn__out_init(out, ctx);
}

static void end(qn_onnx_out *parent, uint32_t field, qn_onnx_out *out)
{
    qn__out_message(parent, field, out);
    qn__out_free(out);
}

/* inputs and outputs: names separated by spaces, "-" for an absent one */
static void put_names(qn_onnx_out *node, uint32_t field, const char *names)
{
    while (*names) {
        const size_t length = strcspn(names, " ");
        const bool absent = length == 1 && names[0] == '-';
        qn__out_span(node, field, names, absent ? 0 : length, false);
        names += length;
        names += *names == ' ';
    }
}

typedef struct int_attr {
    const char *name;
    int64_t values[4];
    size_t count; /* 0: one int */
} int_attr;

static void put_node(qn_onnx_out *graph, const char *op, const char *name, const char *inputs,
                     const char *outputs, const int_attr *attr)
{
    qn_onnx_out node, a;
    begin(&node, graph->ctx);
    put_names(&node, NODE_INPUT, inputs);
    put_names(&node, NODE_OUTPUT, outputs);
    qn__out_string(&node, NODE_NAME, name);
    const char *dot = strrchr(op, '.');
    qn__out_string(&node, NODE_OP_TYPE, dot ? dot + 1 : op);
    if (attr) {
        begin(&a, graph->ctx);
        qn__out_string(&a, ATTR_NAME, attr->name);
        for (size_t i = 0; i < attr->count; i++)
            qn__out_int(&a, ATTR_INTS, attr->values[i]);
        if (attr->count == 0)
            qn__out_int(&a, ATTR_I, attr->values[0]);
        qn__out_int(&a, ATTR_TYPE, attr->count ? ATTR_TYPE_INTS : ATTR_TYPE_INT);
        end(&node, NODE_ATTRIBUTE, &a);
    }
    if (dot)
        qn__out_span(&node, NODE_DOMAIN, op, (size_t)(dot - op), false);
    end(graph, GRAPH_NODE, &node);
}

static void put_tensor(qn_onnx_out *graph, const char *name, int64_t type, size_t rank,
                       const int64_t *dims, const void *data, size_t bytes)
{
    qn_onnx_out tensor;
    begin(&tensor, graph->ctx);
    for (size_t i = 0; i < rank; i++)
        qn__out_int(&tensor, TENSOR_DIMS, dims[i]);
    qn__out_int(&tensor, TENSOR_DATA_TYPE, type);
    qn__out_string(&tensor, TENSOR_NAME, name);
    qn__out_span(&tensor, TENSOR_RAW_DATA, data, bytes, false);
    end(graph, GRAPH_INITIALIZER, &tensor);
}

static void put_value(qn_onnx_out *graph, uint32_t field, const char *name, size_t rank,
                      const int64_t *dims)
{
    qn_onnx_out value, type, elem, shape, dim;
    begin(&shape, graph->ctx);
    for (size_t i = 0; i < rank; i++) {
        begin(&dim, graph->ctx);
        if (dims[i] > 0)
            qn__out_int(&dim, DIM_VALUE, dims[i]);
        else
            qn__out_string(&dim, DIM_PARAM, "N");
        end(&shape, SHAPE_DIM, &dim);
    }
    begin(&elem, graph->ctx);
    qn__out_int(&elem, TYPE_TENSOR_ELEM, 1);
    end(&elem, TYPE_TENSOR_SHAPE, &shape);
    begin(&type, graph->ctx);
    end(&type, TYPE_TENSOR, &elem);
    begin(&value, graph->ctx);
    qn__out_string(&value, VALUE_NAME, name);
    end(&value, VALUE_TYPE, &type);
    end(graph, field, &value);
}

static const float SCALE = 0.05f;
static const int64_t IMAGE[4] = {0, 2, 4, 4}, KERNEL[4] = {3, 2, 1, 1}, THREE[1] = {3};

static void put_common(qn_onnx_out *graph)
{
    const int8_t weights[6] = {1, -2, 3, -4, 5, -6};
    const float scales[3] = {0.1f, 0.2f, 0.3f};
    const uint8_t zero = 0;
    const int8_t zeros[3] = {0};
    const int32_t bias[3] = {100, -100, 5};
    put_tensor(graph, "s", 1, 0, NULL, &SCALE, sizeof(SCALE));
    put_tensor(graph, "z", 2, 0, NULL, &zero, 1);
    put_tensor(graph, "w", 3, 4, KERNEL, weights, sizeof(weights));
    put_tensor(graph, "ws", 1, 1, THREE, scales, sizeof(scales));
    put_tensor(graph, "wz", 3, 1, THREE, zeros, sizeof(zeros));
    put_tensor(graph, "b", 6, 1, THREE, bias, sizeof(bias));
}

static void qdq_graph(qn_onnx_out *graph)
{
    const int_attr axis = {"axis", {0}, 0};
    const float bias_scales[3] = {0.05f * 0.1f, 0.05f * 0.2f, 0.05f * 0.3f};
    put_node(graph, "QuantizeLinear", "q0", "x s z", "xq", NULL);
    put_node(graph, "DequantizeLinear", "d0", "xq s z", "xd", NULL);
    put_node(graph, "DequantizeLinear", "dw", "w ws wz", "wd", &axis);
    put_node(graph, "DequantizeLinear", "db", "b bs", "bd", &axis);
    put_node(graph, "Conv", "conv", "xd wd bd", "c", NULL);
    put_node(graph, "Relu", "relu", "c", "r", NULL);
    put_node(graph, "QuantizeLinear", "q1", "r s z", "rq", NULL);
    put_node(graph, "DequantizeLinear", "d1", "rq s z", "rd", NULL);
    put_node(graph, "MaxPool", "pool", "rd", "p", &(int_attr){"kernel_shape", {2, 2}, 2});
    put_node(graph, "QuantizeLinear", "q2", "p s z", "pq", NULL);
    put_node(graph, "DequantizeLinear", "d2", "pq s z", "y", NULL);
    put_common(graph);
    put_tensor(graph, "bs", 1, 1, THREE, bias_scales, sizeof(bias_scales));
}

static void qoperator_graph(qn_onnx_out *graph)
{
    put_node(graph, "QuantizeLinear", "q0", "x s z", "xq", NULL);
    put_node(graph, "QLinearConv", "conv", "xq s z w ws wz s z b", "cq", NULL);
    put_node(graph, "com.microsoft.QLinearAdd", "add", "cq s z cq s z s z", "aq", NULL);
    put_node(graph, "com.microsoft.QLinearConcat", "cat", "s z aq s z cq s z", "kq",
             &(int_attr){"axis", {1}, 0});
    put_node(graph, "MaxPool", "pool", "kq", "pq", &(int_attr){"kernel_shape", {2, 2}, 2});
    put_node(graph, "DequantizeLinear", "d2", "pq s z", "y", NULL);
    put_common(graph);
}

static void float_graph(qn_onnx_out *graph)
{
    const float weights[6] = {1, -2, 3, -4, 5, -6};
    put_node(graph, "Conv", "conv", "x w", "c", NULL);
    put_node(graph, "Clip", "clip", "c", "k", NULL);
    put_node(graph, "Unsqueeze", "un", "k", "u", &(int_attr){"axes", {0}, 1});
    put_node(graph, "Squeeze", "sq", "u", "v", &(int_attr){"axes", {0}, 1});
    put_node(graph, "ReduceMean", "mean", "v", "m", &(int_attr){"axes", {2, 3}, 2});
    put_node(graph, "Softmax", "soft", "m", "y", NULL);
    put_tensor(graph, "w", 1, 4, KERNEL, weights, sizeof(weights));
}

typedef void (*graph_fn)(qn_onnx_out *graph);

/* The model's bytes, freed with free. The graph is the last field: every cut hits something. */
static uint8_t *model_bytes(const qn_context *ctx, graph_fn fill, int64_t opset, size_t *size)
{
    qn_onnx_out model, graph, import;
    begin(&graph, ctx);
    fill(&graph);
    qn__out_string(&graph, GRAPH_NAME, "g");
    put_value(&graph, GRAPH_INPUT, "x", 4, IMAGE);
    put_value(&graph, GRAPH_OUTPUT, "y", 0, NULL);
    begin(&model, ctx);
    qn__out_int(&model, MODEL_IR_VERSION, 7);
    begin(&import, ctx);
    qn__out_int(&import, OPSET_VERSION, opset);
    end(&model, MODEL_OPSET_IMPORT, &import);
    end(&model, MODEL_GRAPH, &graph);
    uint8_t *bytes = malloc((size_t)model.total);
    assert_non_null(bytes);
    size_t at = 0;
    for (size_t i = 0; i < model.n_parts; i++) {
        const qn_out_part *part = &model.parts[i];
        memcpy(bytes + at, part->borrowed ? part->borrowed : model.text.data + part->offset,
               part->size);
        at += part->size;
    }
    *size = at;
    qn__out_free(&model);
    return bytes;
}

static qn_status read_bytes(const qn_context *ctx, const uint8_t *bytes, size_t size,
                            qn_graph **graph, qn_error *error)
{
    qn_blob *blob = qn__blob_copy(ctx, bytes, size);
    assert_non_null(blob);
    const qn_status status = qn__onnx_read(ctx, "test.onnx", blob, graph, error);
    qn__blob_unref(blob);
    return status;
}

static int skip_fsync(void *ctx, int fd)
{
    (void)ctx;
    (void)fd;
    return 0;
}

static qn_context *new_context(void)
{
    qn_io io;
    qn_io_init(&io);
    io.fsync = skip_fsync;
    qn_context_options options;
    qn_context_options_init(&options);
    options.io = &io;
    options.n_threads = 1;
    qn_context *ctx = NULL;
    assert_int_equal(qn_context_create(&options, &ctx, NULL), QN_OK);
    return ctx;
}

static const struct {
    graph_fn fill;
    int64_t opset;
} MODELS[] = {{qdq_graph, 13}, {qoperator_graph, 13}, {float_graph, 9}, {float_graph, 7}};
enum { N_MODELS = sizeof(MODELS) / sizeof(MODELS[0]) };

/* --- tests ------------------------------------------------------------------------------------*/
static void whole_models_are_read(void **state)
{
    (void)state;
    qn_context *ctx = new_context();
    for (size_t m = 0; m < N_MODELS; m++) {
        size_t size;
        uint8_t *bytes = model_bytes(ctx, MODELS[m].fill, MODELS[m].opset, &size);
        qn_graph *graph = NULL;
        qn_error error = {0};
        if (read_bytes(ctx, bytes, size, &graph, &error) != QN_OK)
            fail_msg("model %zu: %s", m, error.message);
        assert_int_equal(qn__onnx_opset_of(graph), MODELS[m].opset);
        assert_int_equal(qn__onnx_opset_written(graph, NULL), 13);
        qn__graph_destroy(graph);
        free(bytes);
    }
    qn_context_destroy(ctx);
}

static void pairs_become_types(void **state)
{
    (void)state;
    qn_context *ctx = new_context();
    size_t size;
    uint8_t *bytes = model_bytes(ctx, qdq_graph, 13, &size);
    qn_graph *graph = NULL;
    assert_int_equal(read_bytes(ctx, bytes, size, &graph, NULL), QN_OK);
    const qn_node *conv = qn__graph_find_node(graph, "conv");
    assert_non_null(conv);
    assert_int_equal(graph->n_nodes, 4); /* Quantize, Conv, MaxPool, Dequantize */
    assert_int_equal(conv->act, QN_ACT_RELU);
    assert_int_equal(conv->inputs[0]->type.kind, QN_TYPE_QUANT);
    assert_int_equal(conv->inputs[1]->type.quant->axis, 0);
    assert_int_equal(conv->inputs[1]->type.quant->n_scales, 3);
    assert_int_equal(conv->inputs[2]->type.dtype, QN_DTYPE_I32);
    assert_string_equal(conv->outputs[0]->name, "r");
    assert_int_equal(conv->outputs[0]->type.kind, QN_TYPE_QUANT);
    assert_int_equal(qn__graph_find_node(graph, "pool")->outputs[0]->type.kind, QN_TYPE_QUANT);
    qn__graph_destroy(graph);
    free(bytes);
    qn_context_destroy(ctx);
}

static void older_attributes_become_inputs(void **state)
{
    (void)state;
    qn_context *ctx = new_context();
    size_t size;
    uint8_t *bytes = model_bytes(ctx, float_graph, 9, &size);
    qn_graph *graph = NULL;
    assert_int_equal(read_bytes(ctx, bytes, size, &graph, NULL), QN_OK);
    const qn_node *mean = qn__graph_find_node(graph, "mean");
    size_t count = 0;
    assert_null(qn__node_attr(mean, "axes"));
    const int64_t *axes = qn__tensor_ints(graph, mean->inputs[1], &count);
    assert_non_null(axes);
    assert_int_equal(count, 2);
    assert_int_equal(axes[1], 3);
    /* [N, 3, 1, 1] from axis 1 on is one row of 3: the same as along axis 1 */
    assert_int_equal(qn__attr_int(qn__graph_find_node(graph, "soft"), "axis", -9), 1);
    qn__graph_destroy(graph);
    free(bytes);
    qn_context_destroy(ctx);
}

static void every_cut_is_refused(void **state)
{
    (void)state;
    qn_context *ctx = new_context();
    for (size_t m = 0; m < N_MODELS; m++) {
        size_t size;
        uint8_t *bytes = model_bytes(ctx, MODELS[m].fill, MODELS[m].opset, &size);
        for (size_t cut = 0; cut < size; cut++) {
            qn_graph *graph = NULL;
            qn_error error = {0};
            const qn_status status = read_bytes(ctx, bytes, cut, &graph, &error);
            if (status == QN_OK)
                fail_msg("model %zu: %zu of %zu bytes were accepted", m, cut, size);
            assert_null(graph);
            assert_int_equal(error.status, status);
            assert_non_null(strstr(error.message, "test.onnx"));
        }
        free(bytes);
    }
    qn_context_destroy(ctx);
}

/* Whatever is accepted can be written and read again. */
static void check_rewrite(const qn_graph *graph, const char *path)
{
    for (int format = 0; format < 2; format++) {
        const qn_write_options options = {.format = (qn_write_format)format};
        const qn_status status = qn__format_write(graph, path, &options, NULL, NULL);
        assert_true(status == QN_OK || status == QN_UNSUPPORTED || status == QN_LIMIT);
    }
}

static void flipped_bits_do_no_harm(void **state)
{
    (void)state;
    char path[] = "/tmp/quench_flip_XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    qn_context *ctx = new_context();
    size_t accepted = 0, refused = 0;
    for (size_t m = 0; m < N_MODELS; m++) {
        size_t size;
        uint8_t *bytes = model_bytes(ctx, MODELS[m].fill, MODELS[m].opset, &size);
        for (size_t i = 0; i < size * 8; i++) {
            qn_graph *graph = NULL;
            bytes[i / 8] ^= (uint8_t)(1u << (i % 8));
            if (read_bytes(ctx, bytes, size, &graph, NULL) == QN_OK) {
                if (accepted++ % 7 == 0)
                    check_rewrite(graph, path);
                qn__graph_destroy(graph);
            } else {
                refused++;
            }
            bytes[i / 8] ^= (uint8_t)(1u << (i % 8));
        }
        free(bytes);
    }
    assert_true(accepted > 100 && refused > 100);
    unlink(path);
    qn_context_destroy(ctx);
}

/* --- memory runs out
 * ----------------------------------------------------------------------------*/
static qn_status read_and_write(const qn_context *ctx, const uint8_t *bytes, size_t size,
                                const char *path)
{
    qn_graph *graph = NULL;
    qn_blob *blob = qn__blob_copy(ctx, bytes, size);
    if (!blob)
        return QN_NO_MEMORY;
    qn_status status = qn__onnx_read(ctx, "test.onnx", blob, &graph, NULL);
    qn__blob_unref(blob);
    for (int format = 0; format < 2 && status == QN_OK; format++) {
        const qn_write_options options = {.format = (qn_write_format)format};
        status = qn__format_write(graph, path, &options, NULL, NULL);
    }
    qn__graph_destroy(graph);
    return status;
}

static void every_failing_allocation_is_reported(void **state)
{
    (void)state;
    char path[] = "/tmp/quench_fault_XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    qn_context *plain = new_context();
    for (size_t m = 0; m < N_MODELS; m++) {
        size_t size;
        uint8_t *bytes = model_bytes(plain, MODELS[m].fill, MODELS[m].opset, &size);
        qn_status status = QN_NO_MEMORY;
        uint64_t n = 1;
        for (; status != QN_OK; n++) {
            fault f = {0};
            qn_context ctx = *plain;
            ctx.allocator = fault_allocator(&f);
            f.fail_at = n;
            status = read_and_write(&ctx, bytes, size, path);
            if (status != QN_OK && status != QN_NO_MEMORY)
                fail_msg("model %zu, allocation %d: %s", m, (int)n, qn_status_name(status));
            assert_int_equal(f.live, 0);
            assert_true(n < 100000);
        }
        assert_true(n > 100); /* the injection reached the code */
        free(bytes);
    }
    unlink(path);
    qn_context_destroy(plain);
}

/* --- files that lie
 * -----------------------------------------------------------------------------*/
static void cycle_graph(qn_onnx_out *graph)
{
    put_node(graph, "Add", "one", "x b", "a", NULL);
    put_node(graph, "Add", "two", "a a", "b", NULL);
    put_node(graph, "Relu", "three", "b", "y", NULL);
}
static void unknown_input_graph(qn_onnx_out *graph)
{
    put_node(graph, "Relu", "relu", "nowhere", "y", NULL);
}
static void twice_graph(qn_onnx_out *graph)
{
    put_node(graph, "Relu", "first", "x", "y", NULL);
    put_node(graph, "Relu", "second", "x", "y", NULL);
}
static void unknown_op_graph(qn_onnx_out *graph)
{
    put_node(graph, "com.example.Wonder", "odd", "x", "y", NULL);
}
static void short_tensor_graph(qn_onnx_out *graph)
{
    put_node(graph, "Conv", "conv", "x w", "y", NULL);
    put_tensor(graph, "w", 1, 4, KERNEL, &SCALE, sizeof(SCALE));
}
static void huge_tensor_graph(qn_onnx_out *graph)
{
    const int64_t dims[4] = {INT64_MAX, INT64_MAX, 2, 2};
    put_node(graph, "Conv", "conv", "x w", "y", NULL);
    put_tensor(graph, "w", 1, 4, dims, &SCALE, sizeof(SCALE));
}
static void negative_dim_graph(qn_onnx_out *graph)
{
    const int64_t dims[1] = {-1};
    put_node(graph, "Add", "add", "x w", "y", NULL);
    put_tensor(graph, "w", 1, 1, dims, &SCALE, sizeof(SCALE));
}
static void zero_scale_graph(qn_onnx_out *graph)
{
    const float scale = 0;
    const uint8_t zero = 0;
    put_node(graph, "QuantizeLinear", "q", "x s z", "q", NULL);
    put_node(graph, "DequantizeLinear", "d", "q s z", "y", NULL);
    put_tensor(graph, "s", 1, 0, NULL, &scale, sizeof(scale));
    put_tensor(graph, "z", 2, 0, NULL, &zero, 1);
}
static void deep_rank_graph(qn_onnx_out *graph)
{
    const int64_t dims[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    put_node(graph, "Add", "add", "x w", "y", NULL);
    put_tensor(graph, "w", 1, 9, dims, &SCALE, sizeof(SCALE));
}

static void lies_are_named(void **state)
{
    (void)state;
    static const struct {
        graph_fn fill;
        qn_status status;
        const char *named;
    } CASES[] = {{cycle_graph, QN_CORRUPT, "cycle"},
                 {unknown_input_graph, QN_CORRUPT, "nowhere"},
                 {twice_graph, QN_CORRUPT, "second"},
                 {unknown_op_graph, QN_UNSUPPORTED, "com.example.Wonder"},
                 {short_tensor_graph, QN_CORRUPT, "\"w\""},
                 {huge_tensor_graph, QN_CORRUPT, "\"w\""},
                 {negative_dim_graph, QN_CORRUPT, "\"w\""},
                 {zero_scale_graph, QN_NONFINITE, "\"s\""},
                 {deep_rank_graph, QN_LIMIT, "\"w\""}};
    qn_context *ctx = new_context();
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        size_t size;
        uint8_t *bytes = model_bytes(ctx, CASES[i].fill, 13, &size);
        qn_graph *graph = NULL;
        qn_error error = {0};
        const qn_status status = read_bytes(ctx, bytes, size, &graph, &error);
        if (status != CASES[i].status || !strstr(error.message, CASES[i].named))
            fail_msg("case %zu: %s: %s", i, qn_status_name(status), error.message);
        free(bytes);
    }
    qn_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_models_are_read),
        cmocka_unit_test(pairs_become_types),
        cmocka_unit_test(older_attributes_become_inputs),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(flipped_bits_do_no_harm),
        cmocka_unit_test(lies_are_named),
        cmocka_unit_test(every_failing_allocation_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
