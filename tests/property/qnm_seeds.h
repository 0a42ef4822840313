/* Small compact files made on the spot, and what is done with a damaged one. Files are written into
 * memory. */
#ifndef TEST_QNM_SEEDS_H
#define TEST_QNM_SEEDS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/context.h"
#include "core/strbuf.h"
#include "format/qnm/qnm.h"
#include "format/qnm/qnm_wire.h"
#include "memory_file.h"
#include "quant/model.h"
#include "run/packing.h"

enum { N_QNM_SEEDS = 5, QNM_MOST_BYTES = 1 << 22 };

/* A context whose files are all `file`, to be written only; limits hold hostile models small. */
static inline qn_context *qnm_context(memory_file *file, const qn_allocator *allocator)
{
    qn_limits limits;
    qn_limits_init(&limits);
    limits.tensor_bytes = 1 << 24;
    limits.arena_bytes = 1 << 24;
    return memory_context(file, QNM_MOST_BYTES, &limits, allocator);
}

/* --- graphs ----------------------------------------------------------------------------------- */
static inline qn_tensor *qnm_tensor(qn_graph *g, const char *name, qn_type type, size_t rank,
                                    const int64_t *dims)
{
    qn_tensor *const t = qn__graph_add_tensor(g, name, type);
    if (t != NULL)
        qn__tensor_set_shape(t, rank, dims);
    return t;
}

/* Constant of made-up bytes. */
static inline qn_tensor *qnm_constant(qn_graph *g, const char *name, qn_type type, size_t rank,
                                      const int64_t *dims, uint32_t seed)
{
    size_t count, bytes;
    void *data;
    if (!qn_shape_count(&count, dims, rank) || !qn__dtype_bytes(&bytes, type.dtype, count))
        return NULL;
    qn_blob *const blob = qn__blob_create(g->ctx, bytes, &data);
    if (blob == NULL)
        return NULL;
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)data)[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
    if (type.dtype == QN_DTYPE_F32)
        for (size_t i = 0; i < count; i++)
            ((float *)data)[i] =
                (float)(int)((seed = seed * 1664525u + 1013904223u) >> 24) / 64 - 2;
    qn_tensor *const t = qn__graph_add_constant(g, name, type, rank, dims, blob);
    qn__blob_unref(blob);
    return t;
}

static inline bool qnm_node(qn_graph *g, qn_op op, const char *name, size_t n_in,
                            qn_tensor *const *in, qn_tensor *out, qn_node **node)
{
    *node = qn__graph_add_node(g, SIZE_MAX, op, name, (uint32_t)n_in, 1);
    if (*node == NULL || out == NULL)
        return false;
    for (size_t i = 0; i < n_in; i++)
        (*node)->inputs[i] = in[i];
    qn__node_set_output(*node, 0, out);
    return true;
}

static inline bool qnm_ends(qn_graph *g, qn_tensor *in, qn_tensor *out)
{
    qn_tensor **const lists = qn__arena_calloc(&g->arena, 2, sizeof(*lists));
    if (lists == NULL || in == NULL || out == NULL)
        return false;
    lists[0] = in;
    lists[1] = out;
    g->inputs = lists;
    g->outputs = lists + 1;
    g->n_inputs = g->n_outputs = 1;
    return true;
}

static inline qn_type qnm_quant(qn_graph *g, qn_dtype dtype, const qn_quant *q)
{
    return qn_type_quant_make(dtype, qn__graph_quant(g, q));
}

static inline qn_type qnm_act(qn_graph *g, float scale, int32_t zero)
{
    const qn_quant q = {
        .bits = 8, .axis = -1, .qmax = 255, .n_scales = 1, .scales = &scale, .zero_points = &zero};
    return qnm_quant(g, QN_DTYPE_U8, &q);
}

/* Convolution and clipping in float. */
static inline bool qnm_seed_float(qn_graph *g)
{
    static const int64_t X[] = {1, 2, 5, 5}, W[] = {3, 2, 3, 3}, B[] = {3}, Y[] = {1, 3, 5, 5};
    static const int64_t PADS[] = {1, 1, 1, 1};
    const qn_type f32 = qn_type_plain_make(QN_DTYPE_F32);
    qn_node *conv, *act;
    qn_tensor *const x = qnm_tensor(g, "x", f32, 4, X), *const h = qnm_tensor(g, "h", f32, 4, Y);
    qn_tensor *const y = qnm_tensor(g, "y", f32, 4, Y);
    qn_tensor *const in[] = {x, qnm_constant(g, "w", f32, 4, W, 1),
                             qnm_constant(g, "b", f32, 1, B, 2)};
    if (in[1] == NULL || in[2] == NULL || !qnm_node(g, QN_OP_CONV, "conv", 3, in, h, &conv) ||
        !qnm_node(g, QN_OP_LEAKY_RELU, "leaky", 1, &h, y, &act) ||
        !qn__node_set_ints(g, conv, "pads", PADS, 4) || !qn__node_set_float(g, act, "alpha", 0.25f))
        return false;
    conv->act = QN_ACT_CLIP;
    conv->act_lo = -1;
    conv->act_hi = 6;
    conv->act_name = "clip";
    return qnm_ends(g, x, y);
}

static inline qn_quant qnm_signed_bytes(int32_t axis, size_t n_scales, const float *scales)
{
    return (qn_quant){.bits = 8,
                      .is_signed = true,
                      .axis = axis,
                      .qmin = -128,
                      .qmax = 127,
                      .n_scales = n_scales,
                      .scales = scales};
}

/* Quantized convolution and product, weights per channel. */
static inline bool qnm_seed_quantized(qn_graph *g)
{
    static const int64_t X[] = {1, 4, 4, 4}, W[] = {8, 4, 1, 1}, B[] = {8}, Y[] = {1, 8, 4, 4};
    static const int64_t F[] = {1, 128}, M[] = {128, 6}, Z[] = {1, 6};
    static const float SCALES[] = {.01f, .02f, .03f, .04f, .05f, .06f, .07f, .08f};
    const qn_quant per_channel = qnm_signed_bytes(0, 8, SCALES);
    const qn_quant per_tensor = qnm_signed_bytes(-1, 1, SCALES);
    const qn_type f32 = qn_type_plain_make(QN_DTYPE_F32);
    qn_node *node;
    qn_tensor *const x = qnm_tensor(g, "x", f32, 4, X);
    qn_tensor *const q = qnm_tensor(g, "q", qnm_act(g, 0.05f, 100), 4, X);
    qn_tensor *const h = qnm_tensor(g, "h", qnm_act(g, 0.25f, 30), 4, Y);
    qn_tensor *const f = qnm_tensor(g, "f", qnm_act(g, 0.25f, 30), 2, F);
    qn_tensor *const z = qnm_tensor(g, "z", qnm_act(g, 0.5f, 128), 2, Z);
    qn_tensor *const y = qnm_tensor(g, "y", f32, 2, Z);
    qn_tensor *const conv[] = {
        q, qnm_constant(g, "w", qnm_quant(g, QN_DTYPE_I8, &per_channel), 4, W, 3),
        qnm_constant(g, "b", qn_type_plain_make(QN_DTYPE_F32), 1, B, 4)};
    qn_tensor *const product[] = {
        f, qnm_constant(g, "m", qnm_quant(g, QN_DTYPE_I8, &per_tensor), 2, M, 5)};
    return conv[1] != NULL && conv[2] != NULL && product[1] != NULL &&
           qnm_node(g, QN_OP_QUANTIZE_LINEAR, "quantize", 1, &x, q, &node) &&
           qnm_node(g, QN_OP_CONV, "conv", 3, conv, h, &node) &&
           qnm_node(g, QN_OP_FLATTEN, "flatten", 1, &h, f, &node) &&
           qnm_node(g, QN_OP_MATMUL, "product", 2, product, z, &node) &&
           qnm_node(g, QN_OP_DEQUANTIZE_LINEAR, "dequantize", 1, &z, y, &node) && qnm_ends(g, x, y);
}

/* What is packed in other forms: depthwise convolution of bytes and of floats, float convolution
 * and product, a product with scales made at run time. */
static inline bool qnm_seed_forms(qn_graph *g)
{
    static const int64_t X[] = {1, 4, 4, 4}, D[] = {4, 1, 3, 3}, W[] = {6, 4, 3, 3}, B[] = {6};
    static const int64_t H[] = {1, 6, 2, 2}, V[] = {6, 1, 3, 3}, F[] = {1, 24}, M[] = {6, 24};
    static const int64_t Z[] = {1, 6}, P[] = {6, 6}, PADS[] = {1, 1, 1, 1}, STRIDES[] = {2, 2};
    static const float SCALES[] = {.01f, .02f, .03f, .04f};
    const qn_quant per_channel = qnm_signed_bytes(0, 4, SCALES);
    const qn_quant per_tensor = qnm_signed_bytes(-1, 1, SCALES);
    const qn_quant at_run = {.bits = 8, .axis = -1, .qmax = 255};
    const qn_type f32 = qn_type_plain_make(QN_DTYPE_F32);
    qn_node *node, *first, *second, *third, *last;
    qn_tensor *const x = qnm_tensor(g, "x", f32, 4, X);
    qn_tensor *const q = qnm_tensor(g, "q", qnm_act(g, 0.05f, 100), 4, X);
    qn_tensor *const d = qnm_tensor(g, "d", qnm_act(g, 0.25f, 30), 4, X);
    qn_tensor *const e = qnm_tensor(g, "e", f32, 4, X), *const h = qnm_tensor(g, "h", f32, 4, H);
    qn_tensor *const v = qnm_tensor(g, "v", f32, 4, H), *const f = qnm_tensor(g, "f", f32, 2, F);
    qn_tensor *const y = qnm_tensor(g, "y", f32, 2, Z), *const z = qnm_tensor(g, "z", f32, 2, Z);
    const qn_type dynamic = {QN_TYPE_DYNAMIC, QN_DTYPE_U8, qn__graph_quant(g, &at_run)};
    qn_tensor *const r = qnm_tensor(g, "r", dynamic, 2, Z);
    qn_tensor *const bytes[] = {
        q, qnm_constant(g, "wd", qnm_quant(g, QN_DTYPE_I8, &per_channel), 4, D, 11)};
    qn_tensor *const conv[] = {e, qnm_constant(g, "w", f32, 4, W, 12),
                               qnm_constant(g, "b", f32, 1, B, 13)};
    qn_tensor *const depthwise[] = {h, qnm_constant(g, "wv", f32, 4, V, 14)};
    qn_tensor *const gemm[] = {f, qnm_constant(g, "m", f32, 2, M, 15),
                               qnm_constant(g, "c", f32, 1, B, 16)};
    qn_tensor *const product[] = {
        r, qnm_constant(g, "p", qnm_quant(g, QN_DTYPE_I8, &per_tensor), 2, P, 17)};
    return bytes[1] != NULL && conv[1] != NULL && conv[2] != NULL && depthwise[1] != NULL &&
           gemm[1] != NULL && gemm[2] != NULL && product[1] != NULL &&
           qnm_node(g, QN_OP_QUANTIZE_LINEAR, "quantize", 1, &x, q, &node) &&
           qnm_node(g, QN_OP_CONV, "bytes", 2, bytes, d, &first) &&
           qnm_node(g, QN_OP_DEQUANTIZE_LINEAR, "dequantize", 1, &d, e, &node) &&
           qnm_node(g, QN_OP_CONV, "conv", 3, conv, h, &second) &&
           qnm_node(g, QN_OP_CONV, "depthwise", 2, depthwise, v, &third) &&
           qnm_node(g, QN_OP_FLATTEN, "flatten", 1, &v, f, &node) &&
           qnm_node(g, QN_OP_GEMM, "gemm", 3, gemm, z, &last) &&
           qnm_node(g, QN_OP_QUANTIZE_LINEAR, "at run", 1, &z, r, &node) &&
           qnm_node(g, QN_OP_MATMUL, "product", 2, product, y, &node) &&
           qn__node_set_ints(g, first, "pads", PADS, 4) && qn__node_set_int(g, first, "group", 4) &&
           qn__node_set_ints(g, second, "pads", PADS, 4) &&
           qn__node_set_ints(g, second, "strides", STRIDES, 2) &&
           qn__node_set_ints(g, third, "pads", PADS, 4) && qn__node_set_int(g, third, "group", 6) &&
           qn__node_set_int(g, last, "transB", 1) && qn__node_set_float(g, last, "alpha", 0.5f) &&
           qnm_ends(g, x, y);
}

/* Unsigned bytes with one zero point, or one for each index of axis 1. */
static inline qn_tensor *qnm_off_centre(qn_graph *g, const char *name, size_t rank,
                                        const int64_t *dims, bool by_column, uint32_t seed)
{
    static const float SCALES[] = {.01f, .02f, .03f, .04f, .05f, .06f};
    static const int32_t ZEROS[] = {40, 200, 128, 60, 210, 90};
    const qn_quant q = {.bits = 8,
                        .axis = by_column ? 1 : -1,
                        .qmax = 255,
                        .n_scales = by_column ? 6 : 1,
                        .scales = SCALES,
                        .zero_points = ZEROS};
    return qnm_constant(g, name, qnm_quant(g, QN_DTYPE_U8, &q), rank, dims, seed);
}

static inline bool qnm_reshape(qn_graph *g, const char *name, qn_tensor *in, qn_tensor *out)
{
    qn_node *node;
    int64_t dims[QN_MAX_RANK], rank = out->rank;
    for (size_t i = 0; i < out->rank; i++)
        dims[i] = out->dims[i].value;
    qn_blob *const blob = qn__blob_copy(g->ctx, dims, out->rank * sizeof(*dims));
    qn_tensor *const to =
        qn__graph_add_constant(g, name, qn_type_plain_make(QN_DTYPE_I64), 1, &rank, blob);
    qn__blob_unref(blob);
    qn_tensor *const inputs[] = {in, to};
    return to != NULL && qnm_node(g, QN_OP_RESHAPE, name, 2, inputs, out, &node);
}

static inline bool qnm_cast(qn_graph *g, const char *name, qn_tensor *in, qn_tensor *out)
{
    qn_node *node;
    return qnm_node(g, QN_OP_CAST, name, 1, &in, out, &node) &&
           qn__node_set_int(g, node, "to", out->type.dtype == QN_DTYPE_F32 ? 1 : 2);
}

/* What is packed in orders of its own: weights in parts, of windows, of a product and of channels;
 * convolutions over three axes and transposed ones, of bytes and of floats; products of integers,
 * whole and in parts. */
static inline bool qnm_seed_orders(qn_graph *g)
{
    static const int64_t X[] = {1, 4, 4, 4}, W[] = {4, 4, 3, 2}, D[] = {4, 1, 2, 3};
    static const int64_t X5[] = {1, 1, 4, 4, 4}, W5[] = {2, 1, 2, 3, 2}, Y5[] = {1, 2, 3, 2, 3};
    static const int64_t T[] = {1, 6, 2, 3}, WT[] = {6, 2, 3, 2}, V[] = {1, 2, 4, 4};
    static const int64_t WF[] = {2, 3, 2, 2}, F[] = {1, 3, 8, 8}, WI[] = {2, 3, 3, 3};
    static const int64_t I[] = {1, 2, 3, 4}, WD[] = {2, 1, 2, 2}, DI[] = {1, 2, 2, 3};
    static const int64_t M[] = {1, 12}, WM[] = {12, 6}, Z[] = {1, 6}, WG[] = {6, 6}, B[] = {3};
    static const int64_t ONE[] = {0}, TWO[] = {2, 2}, SAME[] = {1, 0, 1, 1}, ROUND[] = {0, 1, 1, 1};
    static const int64_t RIGHT[] = {0, 0, 0, 1};
    static const float SCALES[] = {.01f, .02f};
    const qn_quant bytes = qnm_signed_bytes(1, 2, SCALES);
    const qn_type f32 = qn_type_plain_make(QN_DTYPE_F32), u8 = qn_type_plain_make(QN_DTYPE_U8);
    const qn_type i32 = qn_type_plain_make(QN_DTYPE_I32);
    qn_node *node, *n[6];
    qn_tensor *const x = qnm_tensor(g, "x", f32, 4, X), *const y = qnm_tensor(g, "y", f32, 2, Z);
    qn_tensor *const q = qnm_tensor(g, "q", qnm_act(g, 0.05f, 100), 4, X);
    qn_tensor *const c = qnm_tensor(g, "c", qnm_act(g, 0.1f, 120), 4, X);
    qn_tensor *const d = qnm_tensor(g, "d", qnm_act(g, 0.1f, 120), 4, X);
    qn_tensor *const d5 = qnm_tensor(g, "d5", qnm_act(g, 0.1f, 120), 5, X5);
    qn_tensor *const y5 = qnm_tensor(g, "y5", qnm_act(g, 0.1f, 120), 5, Y5);
    qn_tensor *const t = qnm_tensor(g, "t", qnm_act(g, 0.1f, 120), 4, T);
    qn_tensor *const v = qnm_tensor(g, "v", qnm_act(g, 0.1f, 120), 4, V);
    qn_tensor *const vf = qnm_tensor(g, "vf", f32, 4, V), *const f = qnm_tensor(g, "f", f32, 4, F);
    qn_tensor *const u = qnm_tensor(g, "u", u8, 4, F), *const i = qnm_tensor(g, "i", i32, 4, I);
    qn_tensor *const iu = qnm_tensor(g, "iu", u8, 4, I);
    qn_tensor *const e = qnm_tensor(g, "e", i32, 4, DI), *const eu = qnm_tensor(g, "eu", u8, 4, DI);
    qn_tensor *const m = qnm_tensor(g, "m", u8, 2, M), *const p = qnm_tensor(g, "p", i32, 2, Z);
    qn_tensor *const pf = qnm_tensor(g, "pf", f32, 2, Z);
    qn_tensor *const r = qnm_tensor(g, "r", qnm_act(g, 900.0f, 20), 2, Z);
    qn_tensor *const z = qnm_tensor(g, "z", qnm_act(g, 2000.0f, 90), 2, Z);
    qn_tensor *const conv[] = {q, qnm_off_centre(g, "w", 4, W, false, 21)};
    qn_tensor *const channels[] = {c, qnm_off_centre(g, "wd", 4, D, false, 22)};
    qn_tensor *const axes[] = {d5, qnm_off_centre(g, "w5", 5, W5, false, 23)};
    qn_tensor *const back[] = {t,
                               qnm_constant(g, "wt", qnm_quant(g, QN_DTYPE_I8, &bytes), 4, WT, 24)};
    qn_tensor *const floats[] = {vf, qnm_constant(g, "wf", f32, 4, WF, 25),
                                 qnm_constant(g, "bf", f32, 1, B, 26)};
    qn_tensor *const zero = qnm_constant(g, "zero", u8, 0, ONE, 27);
    qn_tensor *const window[] = {u, qnm_constant(g, "wi", u8, 4, WI, 28), zero,
                                 qnm_constant(g, "zi", u8, 1, TWO, 29)};
    qn_tensor *const each[] = {
        iu, qnm_constant(g, "we", qn_type_plain_make(QN_DTYPE_I8), 4, WD, 30), zero};
    qn_tensor *const matrix[] = {m, qnm_constant(g, "wm", u8, 2, WM, 31), zero, zero};
    qn_tensor *const product[] = {r, qnm_off_centre(g, "wg", 2, WG, true, 32)};
    const bool made = conv[1] != NULL && channels[1] != NULL && axes[1] != NULL &&
                      back[1] != NULL && floats[1] != NULL && floats[2] != NULL && zero != NULL &&
                      window[1] != NULL && window[3] != NULL && each[1] != NULL &&
                      matrix[1] != NULL && product[1] != NULL;
    return made && qnm_node(g, QN_OP_QUANTIZE_LINEAR, "quantize", 1, &x, q, &node) &&
           qnm_node(g, QN_OP_CONV, "parts", 2, conv, c, &n[0]) &&
           qn__node_set_ints(g, n[0], "pads", SAME, 4) &&
           qnm_node(g, QN_OP_CONV, "channels", 2, channels, d, &n[1]) &&
           qn__node_set_ints(g, n[1], "pads", ROUND, 4) && qn__node_set_int(g, n[1], "group", 4) &&
           qnm_reshape(g, "to axes", d, d5) &&
           qnm_node(g, QN_OP_CONV, "axes", 2, axes, y5, &node) &&
           qnm_reshape(g, "to picture", y5, t) &&
           qnm_node(g, QN_OP_CONV_TRANSPOSE, "back", 2, back, v, &n[2]) &&
           qn__node_set_ints(g, n[2], "strides", TWO, 2) &&
           qn__node_set_ints(g, n[2], "pads", ROUND, 4) &&
           qnm_node(g, QN_OP_DEQUANTIZE_LINEAR, "dequantize", 1, &v, vf, &node) &&
           qnm_node(g, QN_OP_CONV_TRANSPOSE, "floats", 3, floats, f, &n[3]) &&
           qn__node_set_ints(g, n[3], "strides", TWO, 2) && qnm_cast(g, "bytes", f, u) &&
           qnm_node(g, QN_OP_CONV_INTEGER, "window", 4, window, i, &n[4]) &&
           qn__node_set_ints(g, n[4], "strides", TWO, 2) &&
           qn__node_set_ints(g, n[4], "pads", RIGHT, 4) && qnm_cast(g, "again", i, iu) &&
           qnm_node(g, QN_OP_CONV_INTEGER, "each", 3, each, e, &n[5]) &&
           qn__node_set_int(g, n[5], "group", 2) && qnm_cast(g, "once more", e, eu) &&
           qnm_reshape(g, "to row", eu, m) &&
           qnm_node(g, QN_OP_MATMUL_INTEGER, "matrix", 4, matrix, p, &node) &&
           qnm_cast(g, "to floats", p, pf) &&
           qnm_node(g, QN_OP_QUANTIZE_LINEAR, "quantize again", 1, &pf, r, &node) &&
           qnm_node(g, QN_OP_MATMUL, "product", 2, product, z, &node) &&
           qnm_node(g, QN_OP_DEQUANTIZE_LINEAR, "last", 1, &z, y, &node) && qnm_ends(g, x, y);
}

/* Every kind of type and of attribute, which need not make sense. */
static inline bool qnm_seed_kinds(qn_graph *g)
{
    static const int64_t X[] = {2, 6}, E[] = {0};
    static const float SCALES[] = {1, 2, 3, 4}, BOOK[] = {-1, -0.25f, 0.5f, 1};
    static const int32_t ZEROS[] = {1, 2, 3, 0};
    static const float FLOATS[] = {1.5f, -0.0f};
    static const char *const STRINGS[] = {"one", "", "drei"};
    const qn_quant block = {.bits = 4,
                            .axis = 1,
                            .block = 4,
                            .qmax = 15,
                            .n_scales = 4,
                            .scales = SCALES,
                            .zero_points = ZEROS};
    const qn_quant book = {.bits = 2,
                           .axis = -1,
                           .qmax = 3,
                           .n_scales = 1,
                           .scales = SCALES,
                           .n_codebook = 4,
                           .codebook = BOOK};
    const qn_quant dynamic = {.bits = 8, .is_signed = true, .axis = 0};
    const qn_type f32 = qn_type_plain_make(QN_DTYPE_F32);
    qn_type at_run = {QN_TYPE_DYNAMIC, QN_DTYPE_I8, qn__graph_quant(g, &dynamic)};
    qn_node *node, *last;
    qn_tensor *const x = qnm_tensor(g, "x", f32, 2, X);
    qn_tensor *const d = qnm_tensor(g, "d", at_run, 2, X), *const y = qnm_tensor(g, "y", f32, 0, E);
    qn_tensor *const in[] = {x, NULL,
                             qnm_constant(g, "int4", qnm_quant(g, QN_DTYPE_U4, &block), 2, X, 6),
                             qnm_constant(g, "book", qnm_quant(g, QN_DTYPE_U2, &book), 2, X, 7),
                             qnm_constant(g, "none", qn_type_plain_make(QN_DTYPE_I64), 1, E, 8)};
    if (in[2] == NULL || in[3] == NULL || in[4] == NULL ||
        !qnm_node(g, QN_OP_SUM, "many", 5, in, d, &node) ||
        !qnm_node(g, QN_OP_REQUANTIZE, "last", 1, &d, y, &last) ||
        !qn__node_set_int(g, node, "int", INT64_MIN) ||
        !qn__node_set_float(g, node, "float", -1.5f) ||
        !qn__node_set_string(g, node, "string", "text") ||
        !qn__node_set_ints(g, node, "ints", X, 2) ||
        !qn__node_set_tensor(g, node, "tensor", in[2]->constant, QN_DTYPE_I8, 1,
                             (const int64_t[]){6}))
        return false;
    qn_attr *const attrs = qn__arena_calloc(&g->arena, 2, sizeof(*attrs));
    if (attrs == NULL)
        return false;
    attrs[0] = (qn_attr){.name = "floats", .kind = QN_ATTR_FLOATS, .count = 2, .floats = FLOATS};
    attrs[1] =
        (qn_attr){.name = "strings", .kind = QN_ATTR_STRINGS, .count = 3, .strings = STRINGS};
    last->attrs = attrs;
    last->n_attrs = 2;
    last->act = QN_ACT_RELU;
    g->opset = 7;
    g->name = "kinds";
    return qnm_ends(g, x, y);
}

static inline qn_graph *qnm_seed_graph(const qn_context *ctx, int which)
{
    qn_graph *g = NULL;
    if (qn__graph_create(ctx, &g, NULL) != QN_OK)
        return NULL;
    g->opset = 21;
    const bool ok = which == 0   ? qnm_seed_float(g)
                    : which == 1 ? qnm_seed_quantized(g)
                    : which == 2 ? qnm_seed_kinds(g)
                    : which == 3 ? qnm_seed_forms(g)
                                 : qnm_seed_orders(g);
    if (ok)
        return g;
    qn__graph_destroy(g);
    return NULL;
}

/* Writes seed number `which` into the context's file; those that have something to pack with packed
 * weights. */
static inline bool qnm_seed(const qn_context *ctx, int which)
{
    qn_graph *const g = qnm_seed_graph(ctx, which);
    qn_packed_list list = {.ctx = ctx};
    qn_error error = {0};
    bool ok = g != NULL;
    if (ok && (which == 1 || which >= 3))
        ok = qn__graph_pack(g, "scalar,avx2,avx512", &list, &error) == QN_OK;
    const qn_packed_store store = {list.count, list.entries};
    const qn_qnm_write_options options = {&store, which == 0};
    ok = ok && qn__qnm_write(g, &options, "o.qnm", NULL, &error) == QN_OK;
    if (!ok)
        fprintf(stderr, "seed %d: %s\n", which, error.message);
    qn__packed_list_free(&list);
    qn__graph_destroy(g);
    return ok;
}

/* --- damaged files ---------------------------------------------------------------------------- */
enum { QNM_MOST_MACS = 1000000, QNM_MOST_INPUTS = 8, QNM_MOST_VALUES = 1 << 16 };

static inline bool qnm_is_long(const qn_graph *graph)
{
    uint64_t macs = 0;
    for (size_t i = 0; i < graph->n_nodes && macs < QNM_MOST_MACS; i++) {
        const uint64_t own = qn__node_macs(graph->nodes[i]);
        macs = own > QNM_MOST_MACS ? QNM_MOST_MACS : macs + own;
    }
    return macs >= QNM_MOST_MACS || graph->n_inputs > QNM_MOST_INPUTS;
}

/* As the stand-alone runtime does it: planned as it is after shape inference, and run on zeros. */
static inline qn_status qnm_run_static(const qn_context *ctx, const qn_graph *graph)
{
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    const void *inputs[QNM_MOST_INPUTS];
    if (qnm_is_long(graph))
        return QN_LIMIT;
    void *const zeros = qn__calloc(ctx, QNM_MOST_VALUES, sizeof(double));
    qn_status status = zeros != NULL ? QN_OK : QN_NO_MEMORY;
    if (status == QN_OK)
        status = qn__plan_create_static(graph, NULL, &plan, NULL);
    if (status == QN_OK)
        status = qn__exec_create(plan, NULL, &exec, NULL);
    for (size_t i = 0; status == QN_OK && i < graph->n_inputs; i++) {
        inputs[i] = zeros;
        if (qn__exec_input(exec, i)->count > QNM_MOST_VALUES)
            status = QN_LIMIT;
    }
    if (status == QN_OK)
        status = qn__exec_run(exec, inputs, NULL);
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    qn__free(ctx, zeros);
    return status;
}

/* One inference of zeros, unless it is long. The graph goes with it. */
static inline qn_status qnm_run(const qn_context *ctx, qn_graph *graph)
{
    qn_model *model = NULL;
    qn_session *session = NULL;
    const float *inputs[QNM_MOST_INPUTS];
    if (qnm_is_long(graph) || qn__model_create(ctx, graph, "f.qnm", 0, &model, NULL) != QN_OK) {
        qn__graph_destroy(graph);
        return QN_LIMIT;
    }
    qn_status status = qn_session_create(model, NULL, &session, NULL);
    float *const zeros = status == QN_OK ? qn__calloc(ctx, QNM_MOST_VALUES, sizeof(*zeros)) : NULL;
    for (size_t i = 0; zeros != NULL && i < qn_model_n_inputs(model); i++) {
        uint32_t rank;
        int64_t dims[QN_MODEL_MAX_RANK];
        size_t count;
        inputs[i] = zeros;
        if (!qn_session_dims(session, false, i, &rank, dims) ||
            !qn_shape_count(&count, dims, rank) || count > QNM_MOST_VALUES)
            status = QN_LIMIT;
    }
    if (zeros != NULL && status == QN_OK)
        status = qn_session_run(session, inputs, NULL);
    qn__free(ctx, zeros);
    qn_session_destroy(session);
    qn_model_destroy(model);
    return status;
}

/* What a damaged file went through; ok false: something that was accepted does not hold. */
typedef struct qnm_fate {
    bool is_graph, is_whole, ran, ok;
} qnm_fate;

/* Reads, writes what was accepted, and reads and writes that: the same bytes. */
static inline bool qnm_same_again(const qn_context *ctx, memory_file *file, const qn_graph *graph)
{
    qn_graph *again = NULL;
    if (qn__qnm_write(graph, NULL, "o.qnm", NULL, NULL) != QN_OK)
        return file->size > QNM_MOST_BYTES / 2; /* too large for the test's file */
    qn_blob *const blob = qn__blob_copy(ctx, file->data, file->size);
    bool same = blob != NULL && qn__qnm_read(ctx, blob, "o.qnm", true, &again, NULL) == QN_OK &&
                qn__qnm_write(again, NULL, "o.qnm", NULL, NULL) == QN_OK;
    same =
        same && file->size == blob->size_bytes && memcmp(file->data, blob->data, file->size) == 0;
    qn__graph_destroy(again);
    qn__blob_unref(blob);
    return same;
}

static inline qnm_fate qnm_try(const qn_context *ctx, memory_file *file, const uint8_t *data,
                               size_t size)
{
    qnm_fate fate = {.ok = true};
    qn_graph *graph = NULL;
    qn_error error = {0};
    qn_blob *const blob = qn__blob_copy(ctx, data, size);
    if (blob == NULL)
        return (qnm_fate){.ok = false};
    if (qn__qnm_read(ctx, blob, "f.qnm", true, &graph, &error) == QN_OK) {
        fate.is_whole = true;
        qn__graph_destroy(graph);
        graph = NULL;
    }
    const qn_status status = qn__qnm_read(ctx, blob, "f.qnm", false, &graph, &error);
    fate.is_graph = status == QN_OK;
    fate.ok = (fate.is_graph || !fate.is_whole) && status != QN_INTERNAL && status != QN_IO &&
              (fate.is_graph || error.message[0] != '\0');
    if (fate.is_graph) {
        fate.ok = fate.ok && qnm_same_again(ctx, file, graph);
        const bool inferred = qn__graph_infer(graph, NULL) == QN_OK;
        if (inferred)
            fate.ok = fate.ok && qnm_run_static(ctx, graph) != QN_INTERNAL;
        if (inferred && qn__graph_verify(graph, NULL) == QN_OK) {
            const qn_status run = qnm_run(ctx, graph);
            fate.ran = run == QN_OK;
            fate.ok = fate.ok && run != QN_INTERNAL;
        } else {
            qn__graph_destroy(graph);
        }
    }
    qn__blob_unref(blob);
    return fate;
}

#endif
