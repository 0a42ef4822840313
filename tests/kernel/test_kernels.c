/* Every row of kernels.def that this CPU can run against the scalar row of its slot: same inputs,
 * then the outputs, the memory around them and the inputs are compared. A slot without a test here
 * does not compile.
 *
 * Float results may differ by the order of summation and by fused multiply-adds: tolerance 1e-5
 * times the sum of magnitudes (at most about 2000 terms: n * 2^-24 is the bound, the usual error
 * its root). Inputs of small integers must give equal bits, because every partial sum is exact. So
 * must the 8-bit kernels (q8_cases.h).
 *
 * Usage: test_kernels [--seed N] [--filter TEXT]. Needs only src/kernel and src/core/cpu.c. */
#include "core/cpu.h"
#include "kernel/kernel.h"
#include "kernel/vmath.h"
#include "kernel/split.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rng_state;
static size_t n_checks;

static uint64_t rng(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state;
}

typedef enum input_class { RANDOM, INTEGERS, CONSTANT, EXTREMES, WITH_NAN, N_CLASSES } input_class;
static const char *const class_names[] = {"random", "integers", "constant", "extremes", "nan"};

static float value_of(input_class kind)
{
    const float unit = (float)((double)(rng() >> 40) / (1 << 23) - 1.0);
    switch (kind) {
    case INTEGERS:
        return (float)((int)(rng() % 33) - 16);
    case CONSTANT:
        return 0.5f;
    case EXTREMES: /* sums cancel or stay finite */
        return rng() % 2 ? 1e15f : -1e15f;
    case WITH_NAN:
        return rng() % 16 == 0 ? NAN : unit;
    default:
        return unit;
    }
}

/* An exact-size block, so that a sanitizer sees every over-read. */
typedef struct block {
    float *data, *copy;
    size_t count;
} block;

static void *need(void *memory)
{
    if (memory == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return memory;
}

static block block_make(size_t count, input_class kind)
{
    block b = {need(malloc(count * sizeof(float) + (count == 0))),
               need(malloc(count * sizeof(float) + (count == 0))), count};
    for (size_t i = 0; i < count; i++)
        b.data[i] = b.copy[i] = value_of(kind);
    return b;
}
static bool block_unchanged(const block *b)
{
    return memcmp(b->data, b->copy, b->count * sizeof(float)) == 0;
}
static void block_free(block *b)
{
    free(b->data);
    free(b->copy);
}

static void fail(const char *kernel, input_class kind, const char *shape, const char *why)
{
    printf("FAILED %s, %s inputs, %s: %s\n", kernel, class_names[kind], shape, why);
    exit(1);
}

/* Outputs are rows of `columns` floats, `stride` apart, with a guard row before and after; what
 * lies between must keep the guard's bits. magnitude: of each output's sum, or NULL: bits must be
 * equal. */
static const uint32_t GUARD_BITS = 0x7fedcba9u;
static float *outputs_make(size_t rows, size_t stride)
{
    float *const out = need(malloc((rows + 2) * stride * sizeof(float) + 4));
    for (size_t i = 0; i < (rows + 2) * stride; i++)
        memcpy(&out[i], &GUARD_BITS, sizeof GUARD_BITS);
    return out;
}

static void outputs_compare(const char *kernel, input_class kind, const char *shape,
                            const float *expected, const float *got, size_t rows, size_t columns,
                            size_t stride, float terms, float largest)
{
    n_checks++;
    for (size_t i = 0; i < (rows + 2) * stride; i++) {
        const bool inside = i >= stride && i < (rows + 1) * stride && i % stride < columns;
        if (!inside) {
            if (memcmp(&got[i], &GUARD_BITS, sizeof GUARD_BITS) != 0)
                fail(kernel, kind, shape, "wrote outside its output");
            continue;
        }
        if (isnan(expected[i]) && isnan(got[i]))
            continue;
        const float tolerance = kind == INTEGERS ? 0.0f : 1e-5f * terms * largest;
        if (!(fabsf(expected[i] - got[i]) <= tolerance)) {
            char text[128];
            snprintf(text, sizeof text, "[%zu][%zu] is %.9g, not %.9g", i / stride - 1, i % stride,
                     (double)got[i], (double)expected[i]);
            fail(kernel, kind, shape, text);
        }
    }
}

static qn_clamp_f32 clamp_of(size_t i)
{
    static const qn_clamp_f32 clamps[] = {
        {-INFINITY, INFINITY}, {0.0f, INFINITY}, {0.0f, 6.0f}, {-3.0f, -1.0f}};
    return clamps[i % 4];
}

/* Largest possible product of a class. */
static float largest_product(input_class kind)
{
    return kind == EXTREMES ? 1e30f : 1.0f;
}

/* --- indirect GEMM ---------------------------------------------------------------------------- */
typedef struct igemm_problem {
    size_t m, n, kc, ks;
    block a, w, bias;
    qn_clamp_f32 clamp;
} igemm_problem;

static void igemm_run(const qn_f32_igemm *kernel, const igemm_problem *p, float *c, size_t c_stride)
{
    const size_t count = qn__f32_gemm_packed_count(p->n, p->kc, p->ks, kernel->nr);
    float *const packed = need(malloc(count * sizeof(float) + 4));
    const float **const rows = need(malloc(kernel->mr * p->ks * sizeof *rows + 8));
    qn__f32_gemm_pack(packed, p->w.data, p->bias.data, p->n, p->kc, p->ks, p->kc * p->ks, p->kc, 1,
                      kernel->nr);
    if (kernel->repack != NULL)
        kernel->repack(packed, p->n, p->kc * p->ks);
    for (size_t m0 = 0; m0 < p->m; m0 += kernel->mr) {
        const size_t mr = p->m - m0 < kernel->mr ? p->m - m0 : kernel->mr;
        for (size_t t = 0; t < p->ks; t++)
            for (size_t i = 0; i < kernel->mr; i++) {
                /* Rows in no regular order. */
                const size_t row = ((m0 + (i < mr ? i : mr - 1)) * 7 + t * 3) % (p->m + p->ks);
                rows[t * kernel->mr + i] = p->a.data + row * p->kc;
            }
        kernel->fn(mr, p->n, p->kc, p->ks, rows, packed, c + m0 * c_stride, c_stride, &p->clamp);
    }
    free(packed);
    free(rows);
}

static void igemm_case(const qn_f32_igemm *kernel, const qn_f32_igemm *reference, size_t m,
                       size_t n, size_t kc, size_t ks, input_class kind)
{
    igemm_problem p = {m,
                       n,
                       kc,
                       ks,
                       block_make((m + ks) * kc, kind),
                       block_make(n * kc * ks, kind),
                       block_make(n, kind == EXTREMES ? RANDOM : kind),
                       clamp_of(rng())};
    if (kind == WITH_NAN) { /* NaN in the inputs only: the bias may not decide it */
        block_free(&p.w);
        p.w = block_make(n * kc * ks, RANDOM);
    }
    const size_t stride = n + rng() % 3;
    char shape[96];
    snprintf(shape, sizeof shape, "m %zu n %zu kc %zu ks %zu stride %zu", m, n, kc, ks, stride);
    float *const expected = outputs_make(m, stride), *const got = outputs_make(m, stride);
    igemm_run(reference, &p, expected + stride, stride);
    igemm_run(kernel, &p, got + stride, stride);
    outputs_compare(kernel->name, kind, shape, expected, got, m, n, stride, (float)(kc * ks) + 1.0f,
                    largest_product(kind));
    if (!block_unchanged(&p.a) || !block_unchanged(&p.w) || !block_unchanged(&p.bias))
        fail(kernel->name, kind, shape, "changed its inputs");
    block_free(&p.a), block_free(&p.w), block_free(&p.bias);
    free(expected), free(got);
}

static void test_f32_igemm(const qn_f32_igemm *kernel, const qn_f32_igemm *reference)
{
    const size_t mr = kernel->mr, nr = kernel->nr;
    const size_t ms[] = {1, mr - 1, mr, mr + 1, 13},
                 ns[] = {1, nr - 1, nr, nr + 1, 47, 3 * nr, 4 * nr, 5 * nr + 2};
    const size_t kcs[] = {0, 1, 2, 3, 4, 5, 7, 16, 31}, kss[] = {0, 1, 2, 9};
    for (size_t i = 0; i < sizeof ms / sizeof ms[0]; i++)
        for (size_t j = 0; j < sizeof ns / sizeof ns[0]; j++)
            for (size_t k = 0; k < sizeof kcs / sizeof kcs[0]; k++)
                for (size_t t = 0; t < sizeof kss / sizeof kss[0]; t++)
                    if (ms[i] > 0 && ns[j] > 0)
                        igemm_case(kernel, reference, ms[i], ns[j], kcs[k], kss[t],
                                   (input_class)(rng() % N_CLASSES));
    for (int kind = 0; kind < N_CLASSES; kind++) {
        igemm_case(kernel, reference, 49, 100, 64, 9, (input_class)kind);
        igemm_case(kernel, reference, 20, 64, 21, 7, (input_class)kind);
        igemm_case(kernel, reference, 1, 130, 257, 1, (input_class)kind);
        for (size_t m = 1; m <= mr; m++)
            igemm_case(kernel, reference, m, 3 * nr - 1, 11, 3, (input_class)kind);
    }
}

/* Errors are relative to the largest factors, which are 1 here. */
static void test_split_igemm(const qn_split_igemm *split, const qn_f32_igemm *reference)
{
    static const size_t ns[] = {32, 33, 47, 48, 64, 100}, kcs[] = {16, 48, 64, 96, 128, 192};
    static const size_t kss[] = {1, 2, 3, 9};
    const qn_f32_igemm *const kernel = &split->kernel;
    for (size_t m = 1; m <= kernel->mr + 1; m++)
        for (size_t i = 0; i < sizeof(ns) / sizeof(ns[0]); i++)
            for (size_t t = 0; t < sizeof(kss) / sizeof(kss[0]); t++) {
                const size_t kc = kcs[rng() % (sizeof(kcs) / sizeof(kcs[0]))];
                if (split->takes(ns[i], kc, kss[t]))
                    igemm_case(kernel, reference, m, ns[i], kc, kss[t],
                               rng() % 2 == 0 ? RANDOM : INTEGERS);
            }
    igemm_case(kernel, reference, 40, 70, 1024, 1, RANDOM);
}

/* --- windows ---------------------------------------------------------------------------------- */
typedef struct window_shape {
    size_t n, channels, kh, kw, stride, dilation;
} window_shape;

/* in is kh rows of in_w pixels. */
static size_t window_width(const window_shape *s)
{
    return (s->n == 0 ? 0 : (s->n - 1) * s->stride) + (s->kw == 0 ? 0 : (s->kw - 1) * s->dilation) +
           1;
}

static void describe(const window_shape *s, char *text, size_t size)
{
    snprintf(text, size, "n %zu channels %zu window %zux%zu stride %zu dilation %zu", s->n,
             s->channels, s->kh, s->kw, s->stride, s->dilation);
}

static void dwconv_case(const qn_f32_dwconv *kernel, const qn_f32_dwconv *reference,
                        const window_shape *s, input_class kind)
{
    const size_t width = window_width(s), c = s->channels, stride = c + rng() % 3;
    block in = block_make((s->kh == 0 ? 1 : s->kh) * width * c, kind);
    /* Weights of a window one tap wider: edges use a part of it. */
    block w = block_make(s->kh * (s->kw + 1) * c, kind == WITH_NAN ? RANDOM : kind);
    block bias = block_make(c, kind == EXTREMES || kind == WITH_NAN ? RANDOM : kind);
    float *const expected = outputs_make(s->n, stride), *const got = outputs_make(s->n, stride);
    qn_f32_dwconv_args args = {.n = s->n,
                               .channels = c,
                               .kh = s->kh,
                               .kw = s->kw,
                               .in = in.data,
                               .in_row = width * c,
                               .in_col = s->dilation * c,
                               .in_step = s->stride * c,
                               .w = w.data,
                               .w_row = (s->kw + 1) * c,
                               .bias = bias.data,
                               .out_step = stride,
                               .clamp = clamp_of(rng())};
    args.out = expected + stride;
    reference->fn(&args);
    args.out = got + stride;
    kernel->fn(&args);
    char shape[96];
    describe(s, shape, sizeof shape);
    outputs_compare(kernel->name, kind, shape, expected, got, s->n, c, stride,
                    (float)(s->kh * s->kw) + 1.0f, largest_product(kind));
    if (!block_unchanged(&in) || !block_unchanged(&w) || !block_unchanged(&bias))
        fail(kernel->name, kind, shape, "changed its inputs");
    block_free(&in), block_free(&w), block_free(&bias);
    free(expected), free(got);
}

static void pool_case(const qn_f32_pool *kernel, const qn_f32_pool *reference,
                      const window_shape *s, input_class kind)
{
    const size_t width = window_width(s), c = s->channels, stride = c + rng() % 3;
    block in = block_make(s->kh * width * c, kind);
    float *const expected = outputs_make(s->n, stride), *const got = outputs_make(s->n, stride);
    qn_f32_pool_args args = {.n = s->n,
                             .channels = c,
                             .kh = s->kh,
                             .kw = s->kw,
                             .in = in.data,
                             .in_row = width * c,
                             .in_col = s->dilation * c,
                             .in_step = s->stride * c,
                             .out_step = stride,
                             .scale = 1.0f / (float)(s->kh * s->kw)};
    args.out = expected + stride;
    reference->fn(&args);
    args.out = got + stride;
    kernel->fn(&args);
    char shape[96];
    describe(s, shape, sizeof shape);
    outputs_compare(kernel->name, kind, shape, expected, got, s->n, c, stride, 1.0f,
                    kind == EXTREMES ? 1e15f : 1.0f);
    if (!block_unchanged(&in))
        fail(kernel->name, kind, shape, "changed its inputs");
    block_free(&in);
    free(expected), free(got);
}

/* Calls `one` with every shape worth trying. */
#define FOR_EACH_WINDOW(s, body)                                                                   \
    do {                                                                                           \
        static const size_t ns_[] = {0, 1, 3, 4, 5, 13},                                           \
                            cs_[] = {1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65, 144};           \
        static const size_t ks_[][2] = {{1, 1}, {1, 2}, {2, 2}, {2, 3}, {3, 2}, {3, 3},            \
                                        {1, 3}, {5, 5}, {3, 5}, {4, 4}, {7, 7}};                   \
        for (size_t i_ = 0; i_ < sizeof ns_ / sizeof ns_[0]; i_++)                                 \
            for (size_t j_ = 0; j_ < sizeof cs_ / sizeof cs_[0]; j_++)                             \
                for (size_t k_ = 0; k_ < sizeof ks_ / sizeof ks_[0]; k_++)                         \
                    for (int kind_ = 0; kind_ < N_CLASSES; kind_++) {                              \
                        const window_shape s = {ns_[i_],    cs_[j_],       ks_[k_][0],             \
                                                ks_[k_][1], 1 + rng() % 3, 1 + rng() % 2};         \
                        const input_class kind = (input_class)kind_;                               \
                        body;                                                                      \
                    }                                                                              \
    } while (0)

static void test_f32_dwconv(const qn_f32_dwconv *kernel, const qn_f32_dwconv *reference)
{
    FOR_EACH_WINDOW(s, dwconv_case(kernel, reference, &s, kind));
    const window_shape empty = {3, 20, 0, 0, 1, 1};
    dwconv_case(kernel, reference, &empty, RANDOM);
}

/* Integers of 4 or 8 bits, blocks that do not divide k, zero points for each or for all. */
static void ints_case(const qn_f32_ints *kernel, const qn_f32_ints *reference, size_t m, size_t n,
                      size_t k, size_t block_k, bool halves, bool zeros)
{
    const size_t blocks = (k + block_k - 1) / block_k, panels = (n + 15) / 16;
    const size_t heads = 16 * (1 + blocks * (zeros ? 2 : 1));
    const size_t panel_bytes = (heads * sizeof(float) + k * (halves ? 8 : 16) + 63) / 64 * 64;
    const size_t a_stride = k + rng() % 3, stride = n + rng() % 3;
    block a = block_make(m * a_stride, RANDOM);
    uint8_t *const w = need(calloc(panels, panel_bytes));
    for (size_t i = 0; i < panels; i++) {
        for (size_t j = 0; j < panel_bytes; j++)
            w[i * panel_bytes + j] = (uint8_t)rng();
        for (size_t j = 0; j < heads; j++) {
            const float v = (float)(rng() % 255 + 1) / (j % 32 < 16 || !zeros ? 255.0f : 16.0f);
            memcpy(w + i * panel_bytes + j * sizeof v, &v, sizeof v);
        }
    }
    float *const expected = outputs_make(m, stride), *const got = outputs_make(m, stride);
    qn_f32_ints_args args = {.m = m,
                             .n = n,
                             .k = k,
                             .block = block_k,
                             .a = a.data,
                             .a_stride = a_stride,
                             .w = w,
                             .panel_bytes = panel_bytes,
                             .halves = halves,
                             .zeros = zeros,
                             .zero = 8.0f,
                             .c_stride = stride,
                             .clamp = {rng() % 2 != 0 ? -5.0f : -INFINITY, INFINITY}};
    args.c = expected + stride;
    reference->fn(&args);
    args.c = got + stride;
    kernel->fn(&args);
    char shape[96];
    snprintf(shape, sizeof shape, "m %zu n %zu k %zu block %zu halves %d zeros %d", m, n, k,
             block_k, halves, zeros);
    outputs_compare(kernel->name, RANDOM, shape, expected, got, m, n, stride, (float)k + 1.0f,
                    300.0f);
    if (!block_unchanged(&a))
        fail(kernel->name, RANDOM, shape, "changed its inputs");
    /* Rows of the unit matrix read single weights. */
    float *const floats = need(calloc(16 * (k + 2), sizeof(float)));
    if (kernel->expand != NULL)
        kernel->expand(&args, floats);
    for (size_t i = 0; kernel->expand != NULL && i < k; i++) {
        float *const unit = need(calloc(k, sizeof(float)));
        float sums[16];
        unit[i] = 1.0f;
        qn_f32_ints_args row = args;
        row.m = 1, row.n = 16, row.a = unit, row.c = sums, row.clamp.lo = -INFINITY;
        reference->fn(&row);
        for (size_t j = 0; j < 16; j++)
            if (fabsf(sums[j] - (floats[j] + floats[16 * (i + 1) + j])) > 1e-3f)
                fail(kernel->name, RANDOM, shape, "makes other floats");
        free(unit);
    }
    for (size_t j = 16 * (k + 1); j < 16 * (k + 2); j++)
        if (floats[j] != 0.0f)
            fail(kernel->name, RANDOM, shape, "wrote behind the panel");
    free(floats);
    block_free(&a);
    free(w), free(expected), free(got);
}

static void test_f32_ints(const qn_f32_ints *kernel, const qn_f32_ints *reference)
{
    static const size_t ms[] = {0, 1, 2, 3, 4, 7}, ns[] = {1, 15, 16, 17, 32, 33, 70},
                        ks[] = {0, 1, 16, 33, 130};
    const uint64_t state = rng_state; /* other slots go on with the numbers they had */
    for (size_t i = 0; i < sizeof ms / sizeof ms[0]; i++)
        for (size_t j = 0; j < sizeof ns / sizeof ns[0]; j++)
            for (size_t l = 0; l < sizeof ks / sizeof ks[0]; l++)
                for (size_t form = 0; form < 4; form++)
                    ints_case(kernel, reference, ms[i], ns[j], ks[l], rng() % 2 != 0 ? 32 : 1000,
                              form % 2 != 0, form / 2 != 0);
    rng_state = state;
}

static void test_f32_maxpool(const qn_f32_pool *kernel, const qn_f32_pool *reference)
{
    FOR_EACH_WINDOW(s, pool_case(kernel, reference, &s, kind));
}

static void test_f32_avgpool(const qn_f32_pool *kernel, const qn_f32_pool *reference)
{
    FOR_EACH_WINDOW(s, pool_case(kernel, reference, &s, kind));
    const window_shape whole = {1, 300, 1, 49, 1, 1};
    pool_case(kernel, reference, &whole, RANDOM);
}

static void test_f32_range(const qn_f32_range *kernel, const qn_f32_range *reference)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, -NAN, FLT_MAX, -FLT_MAX, 1e-40f, -0.0f};
    for (size_t n = 0; n < 200; n++)
        for (int kind = 0; kind < N_CLASSES; kind++)
            for (size_t place = 0; place <= n; place += 1 + rng() % 7) {
                block b = block_make(n, (input_class)kind);
                if (place < n)
                    b.data[place] = odd[rng() % (sizeof(odd) / sizeof(odd[0]))];
                float lo = 0.25f, hi = 0.5f, expect_lo = lo, expect_hi = hi;
                const bool finite = kernel->fn(b.data, n, &lo, &hi);
                const bool expected = reference->fn(b.data, n, &expect_lo, &expect_hi);
                bool loops = true;
                for (size_t i = 0; i < n; i++)
                    loops &= isfinite(b.data[i]) != 0;
                n_checks++;
                if (finite != expected || finite != loops ||
                    (finite && (lo != expect_lo || hi != expect_hi)))
                    fail(kernel->name, (input_class)kind, "range", "differs");
                for (size_t i = 0; finite && i < n; i++)
                    if (b.data[i] < lo || b.data[i] > hi)
                        fail(kernel->name, (input_class)kind, "range", "a value lies outside");
                block_free(&b);
            }
}

/* The contract in loops, one channel after the other. */
static void round_plain(const qn_f32_round_args *a, float *moved, float *errors, int8_t *q)
{
    for (size_t c = 0; c < a->channels; c++)
        for (size_t j = 0; j < a->n; j++) {
            const size_t left = a->n - 1 - j;
            float *shift = moved + c * a->moved_stride;
            float r = (a->w[c * a->w_stride + j] + shift[left]) / a->scales[c];
            r = nearbyintf(r > a->top ? a->top : r < -a->top ? -a->top : r);
            const float before = j % 2 == 1 ? (float)q[c * a->q_stride + j - 1] : 0;
            if (a->pairs && before > 0)
                r = fminf(r, a->pair_limit - before);
            if (a->pairs && before < 0)
                r = fmaxf(r, -a->pair_limit - before);
            const float product = r * a->scales[c];
            const float lost = a->w[c * a->w_stride + j] - product;
            q[c * a->q_stride + j] = (int8_t)r;
            errors[c * a->errors_stride + left] = lost;
            for (size_t i = 0; i < left; i++) {
                const float step = lost * a->u[left * a->u_stride + i];
                shift[i] += step;
            }
        }
}

static void round_case(const qn_f32_round *kernel, size_t channels, size_t n, bool pairs)
{
    const size_t stride = n + rng() % 5;
    block w = block_make(channels * stride, RANDOM), u = block_make(n * stride, RANDOM);
    block scales = block_make(channels, RANDOM), moved = block_make(channels * stride, RANDOM);
    float *const errors = need(calloc(2 * channels, stride * sizeof(float)));
    int8_t *const q = need(calloc(2 * channels, stride));
    for (size_t c = 0; c < channels; c++)
        scales.data[c] = (float)(1 + rng() % 64) / 4096.0f;
    qn_f32_round_args a = {channels, n,      w.data, stride, scales.data, u.data, stride, NULL,
                           stride,   errors, stride, q,      stride,      127.0f, 128.0f, pairs};
    round_plain(&a, moved.copy, errors + channels * stride, q + channels * stride);
    a.moved = moved.data;
    kernel->fn(&a);
    n_checks++;
    if (memcmp(errors, errors + channels * stride, channels * stride * sizeof(float)) != 0 ||
        memcmp(q, q + channels * stride, channels * stride) != 0)
        fail(kernel->name, RANDOM, pairs ? "rounding of pairs" : "rounding", "differs");
    if (!block_unchanged(&w) || !block_unchanged(&u))
        fail(kernel->name, RANDOM, "rounding", "changed its inputs");
    block_free(&w), block_free(&u), block_free(&scales), block_free(&moved);
    free(errors), free(q);
}

static void test_f32_round(const qn_f32_round *kernel, const qn_f32_round *reference)
{
    static const size_t widths[] = {1, 2, 3, 9, 31, 63, 64};
    (void)reference;
    for (size_t channels = 1; channels < 40; channels++)
        for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++)
            for (int pairs = 0; pairs < 2; pairs++)
                round_case(kernel, channels, widths[i], pairs != 0);
}

/* The same bits as the function of one value. */
static void test_f32_exp(const qn_f32_exp *kernel, const qn_f32_exp *reference)
{
    (void)reference;
    enum { MOST = 70 };
    float expected[MOST], got[MOST + 1];
    for (size_t n = 0; n <= MOST; n++)
        for (int kind = 0; kind < N_CLASSES; kind++)
            for (int times = 0; times < 8; times++) {
                block x = block_make(n, (input_class)kind);
                const float scale = (float[]){1.0f, 30.0f, 104.0f, 0.01f}[times % 4];
                for (size_t i = 0; i < n; i++)
                    x.data[i] *= scale;
                const float guard = 17.0f;
                got[n] = guard;
                for (size_t i = 0; i < n; i++)
                    expected[i] = qn_exp_f32(x.data[i]);
                kernel->fn(x.data, got, n);
                kernel->fn(x.data, x.data, n); /* in place */
                n_checks++;
                if (memcmp(got, expected, n * sizeof *got) != 0 || got[n] != guard ||
                    memcmp(x.data, expected, n * sizeof *got) != 0)
                    fail(kernel->name, (input_class)kind, "exponentials", "differs");
                block_free(&x);
            }
}

static void test_f32_sums(const qn_f32_sums *kernel, const qn_f32_sums *reference)
{
    enum { MOST = 150 };
    (void)reference;
    for (size_t channels = 1; channels <= MOST; channels++)
        for (size_t rows = 0; rows < 10; rows++) {
            block x = block_make(rows * channels, RANDOM);
            double sums[MOST];
            for (size_t c = 0; c < channels; c++)
                sums[c] = (double)c;
            kernel->fn(x.data, rows, channels, sums);
            n_checks++;
            for (size_t c = 0; c < channels; c++) {
                float sum = 0;
                for (size_t r = 0; r < rows; r++)
                    sum += x.copy[r * channels + c];
                if (sums[c] != (double)c + (double)sum)
                    fail(kernel->name, RANDOM, "sums", "differs");
            }
            block_free(&x);
        }
}

static uint8_t resized(int64_t sum)
{
    sum = (sum + (1 << (QN_RESIZE_BITS - 1))) >> QN_RESIZE_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* A weight of a filter, negative ones among them. Six of them times 255 are within int32, as the
 * contract has it, and may be below 0 or above 255. */
static int32_t resize_weight(void)
{
    return (int32_t)(rng() % (5u << (QN_RESIZE_BITS - 4))) - (1 << (QN_RESIZE_BITS - 3));
}

static void test_u8_columns(const qn_u8_columns *kernel, const qn_u8_columns *reference)
{
    enum { TAPS = 6 };
    (void)reference;
    for (size_t n = 0; n < 200; n++)
        for (size_t taps = 1; taps <= TAPS; taps++) {
            const size_t stride = n + rng() % 3;
            uint8_t *const rows = need(malloc(taps * stride + 1)), *const out = need(malloc(n + 1));
            int32_t weights[TAPS];
            for (size_t i = 0; i < taps * stride; i++)
                rows[i] = (uint8_t)rng();
            for (size_t t = 0; t < taps; t++)
                weights[t] = resize_weight();
            out[n] = 0x5A;
            kernel->fn(rows, stride, weights, taps, n, out);
            n_checks++;
            for (size_t i = 0; i < n; i++) {
                int64_t sum = 0;
                for (size_t t = 0; t < taps; t++)
                    sum += (int64_t)weights[t] * rows[t * stride + i];
                if (out[i] != resized(sum))
                    fail(kernel->name, RANDOM, "columns", "differs");
            }
            if (out[n] != 0x5A)
                fail(kernel->name, RANDOM, "columns", "writes behind its output");
            free(rows), free(out);
        }
}

static void test_u8_pixels(const qn_u8_pixels *kernel, const qn_u8_pixels *reference)
{
    enum { MOST = 40, TAPS = 4 }; /* sums fit an int32 */
    (void)reference;
    for (size_t n = 1; n <= MOST; n++)
        for (size_t width = 1; width <= MOST; width++) {
            uint8_t *const row = need(malloc(3 * width)), *const out = need(malloc(3 * n));
            uint32_t first[MOST];
            size_t offset[MOST + 1] = {0};
            int32_t weights[MOST * TAPS];
            for (size_t i = 0; i < 3 * width; i++)
                row[i] = (uint8_t)rng();
            for (size_t x = 0; x < n; x++) {
                const size_t taps = 1 + rng() % (width < TAPS ? width : TAPS);
                first[x] = (uint32_t)(rng() % (width - taps + 1));
                offset[x + 1] = offset[x] + taps;
            }
            for (size_t i = 0; i < offset[n]; i++)
                weights[i] = resize_weight();
            kernel->fn(row, width, first, offset, weights, n, out);
            n_checks++;
            for (size_t i = 0; i < 3 * n; i++) {
                int64_t sum = 0;
                for (size_t t = offset[i / 3]; t < offset[i / 3 + 1]; t++)
                    sum +=
                        (int64_t)weights[t] * row[3 * (first[i / 3] + t - offset[i / 3]) + i % 3];
                if (out[i] != resized(sum))
                    fail(kernel->name, RANDOM, "pixels", "differs");
            }
            free(row), free(out);
        }
}

#include "q8_binary_cases.h"
#include "q8_cases.h"
#include "q8_fixed_cases.h"
#include "q8_loops_cases.h"
#include "q8_winograd_cases.h"

/* --- the reference itself against double --------------------------------------------------------
 */
static void test_reference_igemm(const qn_f32_igemm *reference)
{
    const size_t m = 5, n = 7, kc = 3, ks = 2;
    igemm_problem p = {m,
                       n,
                       kc,
                       ks,
                       block_make((m + ks) * kc, RANDOM),
                       block_make(n * kc * ks, RANDOM),
                       block_make(n, RANDOM),
                       {-0.25f, 0.5f}};
    float c[5 * 7];
    igemm_run(reference, &p, c, n);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = (double)p.bias.data[j];
            for (size_t t = 0; t < ks; t++)
                for (size_t k = 0; k < kc; k++)
                    sum += (double)p.a.data[(i * 7 + t * 3) % (m + ks) * kc + k] *
                           (double)p.w.data[(j * ks + t) * kc + k];
            sum = sum < -0.25 ? -0.25 : sum > 0.5 ? 0.5 : sum;
            if (fabs(sum - (double)c[i * n + j]) > 1e-6)
                fail(reference->name, RANDOM, "5x7x3x2", "differs from loops in double");
        }
    block_free(&p.a), block_free(&p.w), block_free(&p.bias);
}

int main(int argc, char **argv)
{
    const char *filter = "";
    rng_state = 20240607;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seed") == 0)
            rng_state = strtoull(argv[i + 1], NULL, 0) | 1u;
        else if (strcmp(argv[i], "--filter") == 0)
            filter = argv[i + 1];
    }
    printf("--seed %llu\n", (unsigned long long)rng_state);
    const uint32_t flags = qn__cpu_detect();
    qn_kernels scalar;
    qn__kernels_init(&scalar, 0);
    test_reference_igemm(&scalar.f32_igemm);
    test_q8_references(&scalar.q8_igemm, &scalar.q8_dwconv);
    test_q8_safety();
#define QN_KERNEL(slot_, isa, function, ...)                                                       \
    if ((flags & QN_ISA_##isa) == QN_ISA_##isa && strstr(#function, filter) != NULL) {             \
        const __typeof__(scalar.slot_) kernel = {.fn = function, .name = #function, __VA_ARGS__};  \
        const size_t before = n_checks;                                                            \
        test_##slot_(&kernel, &scalar.slot_);                                                      \
        printf("%-32s %zu checks\n", #function, n_checks - before);                                \
    }
#include "kernel/kernels.def"
#undef QN_KERNEL
    const qn_split_igemm *const split = qn__split_igemm(flags);
    if (split != NULL && strstr(split->kernel.name, filter) != NULL)
        test_split_igemm(split, &scalar.f32_igemm);
    printf("%zu checks passed\n", n_checks);
    return 0;
}
