/* Random quantized nodes, and running them in every way: shared by tests of integer kernels. */
#ifndef QN_TESTS_RUN_Q8_NET_H
#define QN_TESTS_RUN_Q8_NET_H

#include "run_net.h"

#include "core/context.h"
#include "core/cpu.h"

/* What any scales can be requantized by. */
static const qn_requantize KINDS[] = {QN_REQUANTIZE_DEFAULT, QN_REQUANTIZE_GEMMLOWP,
                                      QN_REQUANTIZE_GEMMLOWP_SINGLE};
enum { N_KINDS = sizeof(KINDS) / sizeof(KINDS[0]) };

enum { CASES = 400, MAX_IN = 1 << 18, MAX_W = 1 << 15, MAX_CHANNELS = 128 };

/* --- random nodes ------------------------------------------------------------------------------*/
typedef struct sample {
    net *n;
    qn_tensor *y;
    float x[MAX_IN], x2[MAX_IN];
    float scales[MAX_CHANNELS];
    int8_t w[MAX_W];
    int32_t bias[MAX_CHANNELS], zeros[MAX_CHANNELS];
    bool integers;      /* the integer kernels apply */
    qn_requantize kind; /* of the plan */
} sample;

static inline sample *sample_on(net *n)
{
    sample *const s = calloc(1, sizeof(*s));
    assert_non_null(s);
    s->n = n;
    return s;
}

static inline sample *sample_start(uint64_t seed)
{
    net_random_state = seed;
    return sample_on(net_start());
}

static inline int64_t between(int64_t lo, int64_t hi)
{
    return lo + (int64_t)net_random((uint32_t)(hi - lo + 1));
}

/* Of shifts: powers of two. */
static inline float scale_of(const sample *s, float scale)
{
    return s->kind == QN_REQUANTIZE_SHIFT ? exp2f(rintf(log2f(scale))) : scale;
}

/* Bytes as a QuantizeLinear makes them, full range. */
static inline qn_tensor *bytes_into(sample *s, float *data, size_t rank, const int64_t *dims,
                                    float scale)
{
    net *const n = s->n;
    scale = scale_of(s, scale);
    const bool s8 = net_random(2) != 0;
    const int32_t least = s8 ? -128 : 0, zeros[3] = {least, least + 128, least + 255};
    const uint32_t kind = net_random(8);
    const int32_t zero = kind < 3 ? zeros[kind] : (int32_t)between(least, least + 255);
    size_t count = 0;
    assert_true(qn_shape_count(&count, dims, rank) && count <= MAX_IN);
    for (size_t i = 0; i < count; i++)
        data[i] = (float)(between(0, 255) - (s8 ? 128 : 0) - zero) * scale;
    qn_tensor *x = net_input(n, data, net_random(2) != 0, rank, dims);
    char name[16];
    snprintf(name, sizeof(name), "q%zu", n->b.graph->n_inputs);
    qn_tensor *q = NODE(&n->b, QUANTIZE_LINEAR, name, x);
    q->type = net_quant(n, s8 ? QN_DTYPE_I8 : QN_DTYPE_U8, scale, zero);
    return q;
}

static inline qn_tensor *bytes_input(sample *s, size_t rank, const int64_t *dims, float scale)
{
    return bytes_into(s, s->x, rank, dims, scale);
}

/* Mostly signed, full range or narrow; sometimes unsigned with zero points, which fit int8 or not.
 */
static inline qn_tensor *weights(sample *s, size_t rank, const int64_t *dims, size_t axis)
{
    net *const n = s->n;
    const uint32_t kind = net_random(8);
    const bool is_signed = kind != 0, per_channel = net_random(3) != 0;
    const int64_t range = kind == 1 ? 20 : 255;
    size_t count = 0;
    assert_true(qn_shape_count(&count, dims, rank) && count <= MAX_W);
    for (size_t i = 0; i < count; i++)
        s->w[i] = (int8_t)(is_signed ? between(-128, range - 128) + (range < 255 ? 118 : 0)
                                     : between(0, 255));
    static const int32_t ZEROS[] = {128, 128, 128, 100, 100, 0, 255, 1};
    const int32_t zero = ZEROS[net_random(8)];
    const size_t n_scales = per_channel ? (size_t)dims[axis] : 1;
    assert_true(n_scales <= MAX_CHANNELS);
    for (size_t i = 0; i < n_scales; i++) {
        s->scales[i] = scale_of(s, 0.001f + 0.0001f * (float)net_random(100));
        s->zeros[i] = is_signed ? 0 : zero;
    }
    s->integers = is_signed;
    if (!is_signed) {
        s->integers = true;
        for (size_t i = 0; i < count; i++)
            s->integers &= (uint8_t)s->w[i] - zero <= 127 && (uint8_t)s->w[i] - zero >= -128;
    }
    const qn_dtype dtype = is_signed ? QN_DTYPE_I8 : QN_DTYPE_U8;
    qn_tensor *w = build_const(&n->b, "w", dtype, s->w, rank, dims);
    const qn_quant quant = {.bits = 8,
                            .is_signed = is_signed,
                            .axis = per_channel ? (int8_t)axis : -1,
                            .qmin = is_signed ? -128 : 0,
                            .qmax = is_signed ? 127 : 255,
                            .n_scales = n_scales,
                            .scales = s->scales,
                            .zero_points = s->zeros};
    w->type = qn_type_quant_make(dtype, qn__graph_quant(n->b.graph, &quant));
    return w;
}

static inline qn_tensor *int_bias(sample *s, size_t count)
{
    const bool huge = net_random(8) == 0; /* sums wrap */
    for (size_t i = 0; i < count; i++)
        s->bias[i] = huge ? (int32_t)(INT32_MAX - (int32_t)net_random(1000))
                          : (int32_t)net_random(40000) - 20000;
    const int64_t dims[1] = {(int64_t)count};
    return build_const(&s->n->b, "bias", QN_DTYPE_I32, s->bias, 1, dims);
}

/* Type and activation of the output; sums of k products spread over its range. */
static inline void finish(sample *s, qn_tensor *y, size_t k, float x_scale)
{
    const uint32_t kind = net_random(5);
    const float spread = sqrtf((float)k) * 75.0f * 75.0f * x_scale * 0.006f;
    if (kind != 0) {
        const bool s8 = kind % 2 != 0;
        /* Some multipliers are not below one. */
        const float steps = s->kind != QN_REQUANTIZE_DEFAULT && net_random(8) == 0 ? 1e4f : 50.0f;
        y->type = net_quant(s->n, s8 ? QN_DTYPE_I8 : QN_DTYPE_U8, scale_of(s, spread / steps),
                            s8 ? (int32_t)between(-128, 127) : (int32_t)between(0, 255));
    }
    qn_node *const node = y->producer;
    node->act = (qn_act)net_random(3);
    if (node->act == QN_ACT_CLIP) {
        node->act_lo = -0.5f * spread;
        node->act_hi = 0.75f * spread;
    }
    s->y = y;
    build_output(&s->n->b, y);
}

static inline void sample_free(sample *s)
{
    net_end(s->n);
    free(s);
}

/* --- running -----------------------------------------------------------------------------------*/
/* Bytes of the output (free) and the name of the kernel that made it. */
static inline uint8_t *run_sample(sample *s, const qn_plan_options *options, uint32_t threads,
                                  size_t *bytes, char kernel[64])
{
    builder *const b = &s->n->b;
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    qn_pool *pool = NULL;
    assert_ok(b, qn__plan_create(b->graph, options, &plan, &b->error));
    if (threads > 1)
        assert_ok(b, qn__pool_create(b->ctx, threads, &pool, &b->error));
    assert_ok(b, qn__exec_create(plan, pool, &exec, &b->error));
    qn__exec_set_profiling(exec, true);
    float *const moved = calloc(2 * MAX_IN, sizeof(float));
    assert_non_null(moved);
    const void *inputs[2] = {NULL};
    for (size_t i = 0; i < b->graph->n_inputs; i++) {
        inputs[i] = s->n->data[i];
        if (!s->n->last[i])
            continue;
        qn__convert_layout(NULL, moved + i * MAX_IN, QN_LAYOUT_CHANNELS_LAST, s->n->data[i],
                           QN_LAYOUT_ROW_MAJOR, s->n->rank[i], s->n->dims[i], sizeof(float));
        inputs[i] = moved + i * MAX_IN;
    }
    for (int twice = 0; twice < 2; twice++)
        assert_ok(b, qn__exec_run(exec, inputs, &b->error));
    const qn_view *const view = qn__exec_output(exec, 0);
    assert_true(qn__dtype_bytes(bytes, view->tensor->type.dtype, view->count));
    uint8_t *const result = malloc(*bytes + 1);
    assert_non_null(result);
    memcpy(result, view->data, *bytes);
    size_t count = 0;
    const qn_step_time *const steps = qn__exec_profile(exec, &count);
    kernel[0] = '\0';
    for (size_t i = 0; i < count; i++)
        if (strcmp(steps[i].node, s->y->producer->name) == 0)
            snprintf(kernel, 64, "%s", steps[i].kernel);
    free(moved);
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    qn__pool_destroy(b->ctx, pool);
    return result;
}

static inline void expect_same(const uint8_t *got, size_t got_bytes, const uint8_t *expected,
                               size_t bytes, size_t index, const char *kernel, uint32_t threads)
{
    assert_int_equal(got_bytes, bytes);
    for (size_t i = 0; i < bytes; i++)
        if (got[i] != expected[i])
            fail_msg("case %zu, %s, %u threads: byte %zu of %zu is %d, expected %d", index, kernel,
                     threads, i, bytes, got[i], expected[i]);
}

static inline size_t masks(uint32_t out[8])
{
    static const char *const names[] = {"scalar", "avx2", "avxvnni", "avx512",
                                        "vnni",   "neon", "dotprod", ""};
    size_t n = 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        uint32_t flags = qn__cpu_detect();
        assert_true(qn__cpu_mask(&flags, names[i]));
        bool known = false;
        for (size_t k = 0; k < n; k++)
            known |= out[k] == flags;
        if (!known)
            out[n++] = flags;
    }
    return n;
}

/* What the exact simulation gives, with scalar kernels or the machine's; kernel: whose it is. */
static inline uint8_t *q8_reference(sample *s, bool scalar, size_t *bytes, char kernel[64])
{
    qn_plan_options options;
    qn__plan_options_init(&options, s->n->b.ctx);
    options.reference = true;
    options.requantize = s->kind;
    if (scalar)
        options.cpu_flags = 0;
    return run_sample(s, &options, 1, bytes, kernel);
}

/* The same bytes from all instruction sets of the machine, with each number of threads (none given:
 * one thread more for each set). Kernels on bytes run where s->integers is set, and where `only`
 * nowhere else. */
static inline void q8_expect(sample *s, size_t index, const uint8_t *expected, size_t bytes,
                             const uint32_t *threads, size_t n_threads, bool only)
{
    uint32_t flags[8];
    const size_t n_flags = masks(flags);
    qn_plan_options options;
    qn__plan_options_init(&options, s->n->b.ctx);
    options.requantize = s->kind;
    for (size_t f = 0; f < n_flags; f++) {
        const uint32_t own = 1 + (uint32_t)f;
        options.cpu_flags = flags[f];
        for (size_t t = 0; t < (n_threads > 0 ? n_threads : 1); t++) {
            const uint32_t n = n_threads > 0 ? threads[t] : own;
            size_t got_bytes = 0;
            char kernel[64];
            uint8_t *const got = run_sample(s, &options, n, &got_bytes, kernel);
            if (s->integers || only)
                assert_int_equal(strstr(kernel, "q8_") != NULL, s->integers);
            expect_same(got, got_bytes, expected, bytes, index, kernel, n);
            free(got);
        }
    }
}

/* The same bytes as from the simulation with scalar kernels. */
static inline void q8_expect_reference(sample *s, size_t index)
{
    size_t bytes = 0;
    char kernel[64];
    uint8_t *const expected = q8_reference(s, true, &bytes, kernel);
    q8_expect(s, index, expected, bytes, NULL, 0, false);
    free(expected);
}

/* However sums are requantized. */
static inline void q8_expect_kinds(sample *s, size_t index)
{
    for (size_t k = 0; k < N_KINDS; k++) {
        s->kind = KINDS[k];
        q8_expect_reference(s, index);
    }
}

#endif
