/* Short ways to build graphs in tests. Every call checks itself. */
#ifndef QN_TESTS_GRAPH_BUILD_H
#define QN_TESTS_GRAPH_BUILD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/context.h"
#include "ir/graph.h"

typedef struct builder {
    qn_context *ctx;
    qn_graph *graph;
    qn_error error;
} builder;

static inline void build_start(builder *b)
{
    memset(b, 0, sizeof(*b));
    qn_context_options options;
    qn_context_options_init(&options);
    options.n_threads = 1; /* thousands of graphs: no threads for each */
    assert_int_equal(qn_context_create(&options, &b->ctx, &b->error), QN_OK);
    assert_int_equal(qn__graph_create(b->ctx, &b->graph, &b->error), QN_OK);
    b->graph->file = "test.onnx";
    b->graph->opset = 21;
}

static inline void build_end(builder *b)
{
    qn__graph_destroy(b->graph);
    qn_context_destroy(b->ctx);
}

#define DIMS(...)                                                                                  \
    (sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                        \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

/* A dimension of -1 becomes the symbol N, -2 the symbol M, -3 unknown. */
static inline qn_dim build_dim(builder *b, int64_t value)
{
    if (value == -3)
        return qn_dim_unknown();
    if (value >= 0)
        return qn_dim_const(value);
    return (qn_dim){QN_DIM_SYMBOL, 1, qn__graph_intern(b->graph, value == -1 ? "N" : "M")};
}

static inline qn_tensor *build_input(builder *b, const char *name, size_t rank, const int64_t *dims)
{
    qn_tensor *t = qn__graph_add_tensor(b->graph, name, qn_type_plain_make(QN_DTYPE_F32));
    assert_non_null(t);
    qn__tensor_set_shape(t, rank, dims);
    for (size_t i = 0; i < rank; i++)
        t->dims[i] = build_dim(b, dims[i]);
    qn_tensor **inputs =
        qn__arena_calloc(&b->graph->arena, b->graph->n_inputs + 1, sizeof(*inputs));
    assert_non_null(inputs);
    for (size_t i = 0; i < b->graph->n_inputs; i++)
        inputs[i] = b->graph->inputs[i];
    inputs[b->graph->n_inputs++] = t;
    b->graph->inputs = inputs;
    return t;
}

static inline void build_output(builder *b, qn_tensor *t)
{
    qn_tensor **outputs =
        qn__arena_calloc(&b->graph->arena, b->graph->n_outputs + 1, sizeof(*outputs));
    assert_non_null(outputs);
    for (size_t i = 0; i < b->graph->n_outputs; i++)
        outputs[i] = b->graph->outputs[i];
    outputs[b->graph->n_outputs++] = t;
    b->graph->outputs = outputs;
}

static inline qn_tensor *build_const(builder *b, const char *name, qn_dtype dtype, const void *data,
                                     size_t rank, const int64_t *dims)
{
    size_t count = 0, bytes = 0;
    assert_true(qn_shape_count(&count, dims, rank));
    assert_true(qn__dtype_bytes(&bytes, dtype, count));
    qn_blob *blob = qn__blob_copy(b->ctx, data, bytes);
    assert_non_null(blob);
    qn_tensor *t =
        qn__graph_add_constant(b->graph, name, qn_type_plain_make(dtype), rank, dims, blob);
    qn__blob_unref(blob);
    assert_non_null(t);
    return t;
}

/* Constants with made-up values: 0.25, 0.5 ... changing sign. */
static inline qn_tensor *build_weights(builder *b, const char *name, size_t rank,
                                       const int64_t *dims)
{
    size_t count = 0;
    assert_true(qn_shape_count(&count, dims, rank));
    float *values = qn__arena_calloc(&b->graph->arena, count, sizeof(*values));
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)((int)(i * 7 % 11) - 5) * 0.25f;
    return build_const(b, name, QN_DTYPE_F32, values, rank, dims);
}

static inline qn_tensor *build_ints(builder *b, const char *name, size_t count,
                                    const int64_t *values)
{
    const int64_t dims[1] = {(int64_t)count};
    return build_const(b, name, QN_DTYPE_I64, values, 1, dims);
}

static inline qn_tensor *build_floats(builder *b, const char *name, size_t count,
                                      const float *values)
{
    const int64_t dims[1] = {(int64_t)count};
    return build_const(b, name, QN_DTYPE_F32, values, 1, dims);
}

/* Node with inputs in order (NULL allowed) and one new output named after it. */
static inline qn_tensor *build_node(builder *b, qn_op op, const char *name, uint32_t n,
                                    qn_tensor *const *inputs)
{
    static const uint32_t sources[64] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,
                                         13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
                                         26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38};
    char out_name[64];
    snprintf(out_name, sizeof(out_name), "%s_out", name);
    qn_node *node = qn__graph_add_node(b->graph, SIZE_MAX, op, name, n, 1);
    assert_non_null(node);
    for (uint32_t i = 0; i < n; i++)
        node->inputs[i] = inputs[i];
    if (node->id < 39) {
        node->sources = &sources[node->id];
        node->n_sources = 1;
    }
    qn_tensor *out = qn__graph_add_tensor(b->graph, out_name, qn_type_plain_make(QN_DTYPE_NONE));
    assert_non_null(out);
    qn__node_set_output(node, 0, out);
    return out;
}
#define NODE(b, op, name, ...)                                                                     \
    build_node((b), QN_OP_##op, (name),                                                            \
               sizeof((qn_tensor *[]){__VA_ARGS__}) / sizeof(qn_tensor *),                         \
               (qn_tensor *const[]){__VA_ARGS__})

static inline void set_ints(builder *b, const qn_tensor *out, const char *name, size_t count,
                            const int64_t *values)
{
    assert_true(qn__node_set_ints(b->graph, out->producer, name, values, count));
}
static inline void set_int(builder *b, const qn_tensor *out, const char *name, int64_t value)
{
    assert_true(qn__node_set_int(b->graph, out->producer, name, value));
}

#define assert_ok(b, expr)                                                                         \
    do {                                                                                           \
        const qn_status assert_status_ = (expr);                                                   \
        if (assert_status_ != QN_OK)                                                               \
            fail_msg("%s: %s", #expr, (b)->error.message);                                         \
    } while (0)
#define assert_fails(b, expr, code, text)                                                          \
    do {                                                                                           \
        assert_int_equal((expr), (code));                                                          \
        if (strstr((b)->error.message, (text)) == NULL)                                            \
            fail_msg("message \"%s\" lacks \"%s\"", (b)->error.message, (text));                   \
    } while (0)

/* Same marks as build_dim; -4: any multiple of N, checked apart. */
static inline void assert_shape(const qn_tensor *t, size_t rank, const int64_t *dims)
{
    assert_true(t->has_shape);
    assert_int_equal(t->rank, rank);
    for (size_t i = 0; i < rank; i++) {
        if (dims[i] >= 0) {
            assert_int_equal(t->dims[i].kind, QN_DIM_CONST);
            assert_int_equal(t->dims[i].value, dims[i]);
        } else if (dims[i] == -3) {
            assert_int_equal(t->dims[i].kind, QN_DIM_DATA);
        } else {
            assert_int_equal(t->dims[i].kind, QN_DIM_SYMBOL);
            assert_string_equal(t->dims[i].symbol, dims[i] == -1 ? "N" : "M");
            assert_int_equal(t->dims[i].value, 1);
        }
    }
}

#endif
