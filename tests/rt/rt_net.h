/* Networks for tests of the runtime, written as compact files. */
#ifndef QN_TESTS_RT_NET_H
#define QN_TESTS_RT_NET_H

#include "ir/graph_build.h"

#include "rt/compact.h"

#include <stdlib.h>
#include <unistd.h>

static inline qn_type rt_bytes(builder *b, bool is_signed, float scale, int32_t zero)
{
    const qn_quant q = {.bits = 8,
                        .is_signed = is_signed,
                        .axis = -1,
                        .qmin = is_signed ? -128 : 0,
                        .qmax = is_signed ? 127 : 255,
                        .n_scales = 1,
                        .scales = &scale,
                        .zero_points = &zero};
    const qn_quant *const kept = qn__graph_quant(b->graph, &q);
    assert_non_null(kept);
    return qn_type_quant_make(is_signed ? QN_DTYPE_I8 : QN_DTYPE_U8, kept);
}

static inline qn_tensor *rt_weights(builder *b, const char *name, size_t rank, const int64_t *dims)
{
    size_t count = 0;
    assert_true(qn_shape_count(&count, dims, rank));
    int8_t *const values = qn__arena_alloc(&b->graph->arena, count);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = (int8_t)((int)(i * 37 % 127) - 63);
    qn_tensor *const w = build_const(b, name, QN_DTYPE_I8, values, rank, dims);
    w->type = rt_bytes(b, true, 0.01f, 0);
    return w;
}

static inline qn_tensor *rt_conv(builder *b, const char *name, qn_tensor *x, int64_t in,
                                 int64_t out, int64_t kernel, int64_t groups)
{
    char weights[32];
    snprintf(weights, sizeof(weights), "%s_w", name);
    const int64_t pads[4] = {kernel / 2, kernel / 2, kernel / 2, kernel / 2};
    qn_tensor *const w = rt_weights(b, weights, DIMS(out, in / groups, kernel, kernel));
    qn_tensor *const y = NODE(b, CONV, name, x, w);
    set_ints(b, y, "pads", 4, pads);
    set_int(b, y, "group", groups);
    y->type = rt_bytes(b, false, 0.08f, 120);
    return y;
}

/* Integer and float operators: [N, 3, size, size] to probabilities [N, 10] and bytes [N, 16, h, w].
 * Large enough (size 64) for every loop to be split over threads. */
static inline void rt_build_classifier(builder *b, int64_t size)
{
    build_start(b);
    const int64_t two[2] = {2, 2}, flat[2] = {1, 16};
    qn_tensor *const x = build_input(b, "picture", DIMS(-1, 3, size, size));
    qn_tensor *const q = NODE(b, QUANTIZE_LINEAR, "q", x);
    q->type = rt_bytes(b, false, 0.02f, 128);
    qn_tensor *const c1 = rt_conv(b, "c1", q, 3, 16, 3, 1);
    qn_tensor *const dw = rt_conv(b, "dw", c1, 16, 16, 3, 16);
    qn_tensor *const c2 = rt_conv(b, "c2", dw, 16, 16, 1, 1);
    qn_tensor *const sum = NODE(b, ADD, "sum", c2, c1);
    sum->type = rt_bytes(b, false, 0.1f, 100);
    qn_tensor *const pooled = NODE(b, MAX_POOL, "pooled", sum);
    set_ints(b, pooled, "kernel_shape", 2, two);
    set_ints(b, pooled, "strides", 2, two);
    pooled->type = sum->type;
    qn_tensor *const real = NODE(b, DEQUANTIZE_LINEAR, "real", pooled);
    qn_tensor *const soft = NODE(b, SIGMOID, "soft", real);
    qn_tensor *const mean = NODE(b, GLOBAL_AVERAGE_POOL, "mean", soft);
    qn_tensor *const row = NODE(b, RESHAPE, "row", mean, build_ints(b, "flat", 2, flat));
    qn_tensor *const gemm = NODE(b, GEMM, "gemm", row, build_weights(b, "gw", DIMS(16, 10)),
                                 build_weights(b, "gb", DIMS(10)));
    build_output(b, NODE(b, SOFTMAX, "prob", gemm));
    build_output(b, pooled);
}

/* A few microseconds: bytes [1, 4, 4, 4] in and out. */
static inline void rt_build_tiny(builder *b)
{
    build_start(b);
    qn_tensor *const x = build_input(b, "bytes", DIMS(1, 4, 4, 4));
    x->type = rt_bytes(b, false, 0.05f, 100);
    build_output(b, rt_conv(b, "c", x, 4, 4, 3, 1));
}

/* The graph as a file's bytes at a multiple of 64, for free(). */
static inline uint8_t *rt_compact(builder *b, size_t *bytes)
{
    char path[] = "/tmp/quench-rt-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_ok(b, compact_write(b->graph, path, &b->error));
    FILE *const file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *bytes = (size_t)ftell(file);
    rewind(file);
    uint8_t *const data = aligned_alloc(64, (*bytes + 63) / 64 * 64);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *bytes, file), *bytes);
    fclose(file);
    close(fd);
    unlink(path);
    return data;
}

#endif
