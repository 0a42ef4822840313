/* Speed of every kernel this CPU can run, on shapes of real networks: one line each, best of
 * several repetitions. An argument limits it to names that hold it. */
#include "core/cpu.h"
#include "kernel/kernel.h"
#include "kernel/split.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static float *floats(size_t count)
{
    float *const p = aligned_alloc(64, (count * sizeof(float) + 127) / 64 * 64);
    for (size_t i = 0; p != NULL && i < count; i++)
        p[i] = (float)((double)rand() / RAND_MAX - 0.5);
    return p;
}

/* A convolution of m pixels as the executor runs it: rows of kc channels, ks taps. */
static void bench_igemm(const qn_f32_igemm *kernel, size_t m, size_t n, size_t kc, size_t ks)
{
    float *const a = floats((m + ks) * kc), *const c = floats(m * n),
                 *const w = floats(n * kc * ks);
    float *const packed = floats(qn__f32_gemm_packed_count(n, kc, ks, kernel->nr));
    const float **const rows = malloc(kernel->mr * ks * sizeof *rows);
    const qn_clamp_f32 clamp = {0.0f, INFINITY};
    qn__f32_gemm_pack(packed, w, NULL, n, kc, ks, kc * ks, kc, 1, kernel->nr);
    if (kernel->repack != NULL)
        kernel->repack(packed, n, kc * ks);
    double best = 1e30;
    const double stop = now() + 0.3;
    while (now() < stop) {
        const double start = now();
        for (size_t m0 = 0; m0 < m; m0 += kernel->mr) {
            const size_t mr = m - m0 < kernel->mr ? m - m0 : kernel->mr;
            for (size_t p = 0; p < ks; p++)
                for (size_t i = 0; i < kernel->mr; i++)
                    rows[p * kernel->mr + i] = a + (m0 + (i < mr ? i : mr - 1) + p) * kc;
            kernel->fn(mr, n, kc, ks, rows, packed, c + m0 * n, n, &clamp);
        }
        const double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    printf("%-28s m %6zu n %5zu kc %5zu ks %zu %8.1f us %7.1f GFLOP/s\n", kernel->name, m, n, kc,
           ks, best * 1e6, 2e-9 * (double)(m * n * kc * ks) / best);
    free(a), free(c), free(w), free(packed), free(rows);
}

static void bench_kernel_f32_igemm(const qn_f32_igemm *kernel)
{
    static const size_t shapes[][4] = {
        {48, 48, 256, 1},   {12544, 64, 32, 1}, {12544, 16, 32, 1},  {3136, 128, 128, 1},
        {784, 256, 256, 1}, {196, 512, 512, 1}, {49, 1024, 1024, 1}, {3136, 64, 64, 9},
        {784, 128, 128, 9}, {196, 256, 256, 9}, {49, 512, 512, 9},   {12544, 64, 21, 7},
        {12544, 32, 9, 3},  {1, 1000, 1024, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        bench_igemm(kernel, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]);
}

static void bench_split_igemm(const qn_split_igemm *split)
{
    static const size_t shapes[][4] = {{3136, 128, 64, 1}, {3136, 128, 128, 1}, {784, 256, 256, 1},
                                       {196, 512, 512, 1}, {49, 1024, 1024, 1}, {784, 144, 144, 1},
                                       {3136, 64, 64, 9}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        if (split->takes(shapes[i][1], shapes[i][2], shapes[i][3]))
            bench_igemm(&split->kernel, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]);
}

/* One output row of a 3x3 window over rows of `width` pixels, many times. */
typedef struct window_shape {
    size_t width, channels, stride;
} window_shape;
static const window_shape windows[] = {{112, 32, 1}, {112, 96, 2}, {56, 128, 1}, {28, 256, 1},
                                       {14, 512, 1}, {7, 1024, 1}, {14, 576, 1}};

static void bench_kernel_f32_dwconv(const qn_f32_dwconv *kernel)
{
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        const window_shape *const s = &windows[i];
        const size_t c = s->channels, n = (s->width - 3) / s->stride + 1;
        float *const in = floats(3 * s->width * c), *const w = floats(10 * c);
        float *const out = floats(n * c);
        const qn_f32_dwconv_args args = {
            n, c,     3,         3,   in, s->width * c,    c, s->stride * c,
            w, 3 * c, w + 9 * c, out, c,  {0.0f, INFINITY}};
        double best = 1e30;
        const double stop = now() + 0.1;
        while (now() < stop) {
            const double start = now();
            kernel->fn(&args);
            const double seconds = now() - start;
            best = seconds < best ? seconds : best;
        }
        printf("%-28s width %4zu channels %4zu stride %zu %8.2f us %7.1f GFLOP/s\n", kernel->name,
               s->width, c, s->stride, best * 1e6, 18e-9 * (double)(n * c) / best);
        free(in), free(w), free(out);
    }
}

static void bench_pool(const qn_f32_pool *kernel)
{
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        const window_shape *const s = &windows[i];
        const size_t c = s->channels, n = (s->width - 3) / s->stride + 1;
        float *const in = floats(3 * s->width * c), *const out = floats(n * c);
        const qn_f32_pool_args args = {n,   c, 3,          3, in, s->width * c, c, s->stride * c,
                                       out, c, 1.0f / 9.0f};
        double best = 1e30;
        const double stop = now() + 0.1;
        while (now() < stop) {
            const double start = now();
            kernel->fn(&args);
            const double seconds = now() - start;
            best = seconds < best ? seconds : best;
        }
        printf("%-28s width %4zu channels %4zu stride %zu %8.2f us %7.1f GB/s\n", kernel->name,
               s->width, c, s->stride, best * 1e6, 36e-9 * (double)(n * c) / best);
        free(in), free(out);
    }
}
static void bench_kernel_f32_ints(const qn_f32_ints *kernel)
{
    enum { N = 768, K = 768, BLOCK = 32 };
    const size_t blocks = K / BLOCK, panel_bytes = 16 * (1 + blocks) * sizeof(float) + 16 * K;
    float *const w = floats(N / 16 * panel_bytes / sizeof(float)), *const a = floats(4 * K),
                 *const c = floats(4 * N);
    for (size_t m = 1; m <= 4; m += 3) {
        const qn_f32_ints_args args = {.m = m,
                                       .n = N,
                                       .k = K,
                                       .block = BLOCK,
                                       .a = a,
                                       .a_stride = K,
                                       .w = (const uint8_t *)w,
                                       .panel_bytes = panel_bytes,
                                       .c = c,
                                       .c_stride = N,
                                       .clamp = {-INFINITY, INFINITY}};
        double best = 1e30;
        const double stop = now() + 0.1;
        while (now() < stop) {
            const double start = now();
            kernel->fn(&args);
            const double seconds = now() - start;
            best = seconds < best ? seconds : best;
        }
        printf("%-28s m %zu n %d k %d %8.2f us %7.1f GFLOP/s\n", kernel->name, m, N, K, best * 1e6,
               2e-9 * (double)m * N * K / best);
    }
    free(w), free(a), free(c);
}
static void bench_kernel_f32_maxpool(const qn_f32_pool *kernel)
{
    bench_pool(kernel);
}
static void bench_kernel_f32_avgpool(const qn_f32_pool *kernel)
{
    bench_pool(kernel);
}
static void bench_kernel_f32_range(const qn_f32_range *kernel)
{
    static const size_t counts[] = {4096, 100352, 802816};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        float *const values = floats(counts[i]);
        float lo = 0, hi = 0;
        double best = 1e30;
        const double stop = now() + 0.1;
        while (now() < stop) {
            const double start = now();
            kernel->fn(values, counts[i], &lo, &hi);
            const double seconds = now() - start;
            best = seconds < best ? seconds : best;
        }
        printf("%-28s %7zu values %8.2f us %7.1f GB/s\n", kernel->name, counts[i], best * 1e6,
               4e-9 * (double)counts[i] / best);
        free(values);
    }
}

static void bench_kernel_f32_exp(const qn_f32_exp *kernel)
{
    static const size_t counts[] = {16, 1000, 8000};
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        float *const x = floats(counts[i]), *const y = floats(counts[i]);
        double best = 1e30;
        const double stop = now() + 0.05;
        while (now() < stop) {
            const double start = now();
            kernel->fn(x, y, counts[i]);
            const double seconds = now() - start;
            best = seconds < best ? seconds : best;
        }
        printf("%-28s %7zu values %8.2f us\n", kernel->name, counts[i], best * 1e6);
        free(x), free(y);
    }
}

static void bench_kernel_f32_sums(const qn_f32_sums *kernel)
{
    static const size_t channels[] = {32, 64, 512};
    static double sums[512];
    for (size_t i = 0; i < sizeof(channels) / sizeof(channels[0]); i++) {
        enum { ROWS = 64 };
        float *const x = floats(ROWS * channels[i]);
        double best = 1e30;
        const double stop = now() + 0.05;
        while (now() < stop) {
            const double start = now();
            kernel->fn(x, ROWS, channels[i], sums);
            const double seconds = now() - start;
            best = seconds < best ? seconds : best;
        }
        printf("%-28s channels %4zu %8.2f us %7.1f GB/s\n", kernel->name, channels[i], best * 1e6,
               4e-9 * (double)(ROWS * channels[i]) / best);
        free(x);
    }
}

enum { RESIZE_TAPS = 4, RESIZE_WIDTH = 500, RESIZED = 224 };
static void bench_kernel_u8_columns(const qn_u8_columns *kernel)
{
    static uint8_t rows[RESIZE_TAPS * 3 * RESIZED], out[3 * RESIZED];
    static const int32_t weights[RESIZE_TAPS] = {1 << 20, 1 << 20, 1 << 20, 1 << 20};
    double best = 1e30;
    const double stop = now() + 0.05;
    while (now() < stop) {
        const double start = now();
        kernel->fn(rows, sizeof(out), weights, RESIZE_TAPS, sizeof(out), out);
        const double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    printf("%-28s %d columns of %d taps %8.2f us\n", kernel->name, 3 * RESIZED, RESIZE_TAPS,
           best * 1e6);
}

static void bench_kernel_u8_pixels(const qn_u8_pixels *kernel)
{
    static uint8_t row[3 * RESIZE_WIDTH], out[3 * RESIZED];
    static int32_t weights[RESIZED * RESIZE_TAPS];
    static uint32_t first[RESIZED];
    static size_t offset[RESIZED + 1];
    for (size_t x = 0; x < RESIZED; x++) {
        first[x] = (uint32_t)(x * 2);
        offset[x + 1] = (x + 1) * RESIZE_TAPS;
    }
    double best = 1e30;
    const double stop = now() + 0.05;
    while (now() < stop) {
        const double start = now();
        kernel->fn(row, RESIZE_WIDTH, first, offset, weights, RESIZED, out);
        const double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    printf("%-28s %d pixels of %d taps %8.2f us\n", kernel->name, RESIZED, RESIZE_TAPS, best * 1e6);
}

static void bench_kernel_f32_round(const qn_f32_round *kernel)
{
    enum { CHANNELS = 256, N = QN_ROUND_COLUMNS };
    float *const w = floats(CHANNELS * N), *const u = floats(N * N);
    float *const moved = floats(CHANNELS * N), *const errors = floats(CHANNELS * N);
    float *const scales = floats(CHANNELS);
    static int8_t q[CHANNELS * N];
    for (size_t i = 0; i < CHANNELS; i++)
        scales[i] = 1.0f / 128.0f;
    const qn_f32_round_args args = {CHANNELS, N,      w, N, scales, u,      N,      moved,
                                    N,        errors, N, q, N,      127.0f, 128.0f, true};
    double best = 1e30;
    const double stop = now() + 0.1;
    while (now() < stop) {
        memset(moved, 0, CHANNELS * N * sizeof(float));
        const double start = now();
        kernel->fn(&args);
        const double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    printf("%-28s %7d weights %8.2f us %7.2f ns each\n", kernel->name, CHANNELS * N, best * 1e6,
           1e9 * best / (CHANNELS * N));
    free(w), free(u), free(moved), free(errors), free(scales);
}

static uint8_t *bytes(size_t count)
{
    uint8_t *const p = aligned_alloc(64, (count + 127) / 64 * 64);
    for (size_t i = 0; p != NULL && i < count; i++)
        p[i] = (uint8_t)rand();
    return p;
}

static const qn_q8_out bench_out = {.zero = 0, .lo = 0, .hi = 255, .small_scales = true};

static void bench_q8_igemm(const qn_q8_igemm *kernel, size_t m, size_t n, size_t kc, size_t ks,
                           uint8_t flip, bool safe)
{
    uint8_t *const a = bytes((m + ks) * kc), *const c = bytes(m * n), *const w = bytes(n * kc * ks);
    int32_t *const base = calloc(n, sizeof *base);
    float *const scale = floats(n);
    size_t packed_bytes = 0;
    if (!qn__q8_gemm_packed_bytes(&packed_bytes, n, kc, ks, kernel))
        exit(1);
    if (safe)
        for (size_t i = 0; i < n * kc * ks; i++)
            w[i] = (uint8_t)((rand() % 43 + rand() % 43 + rand() % 43) - 63);
    uint8_t *const packed = bytes(packed_bytes);
    const uint8_t **const rows = malloc(kernel->mr * ks * sizeof *rows);
    safe = qn__q8_gemm_safe((const int8_t *)w, n, kc, ks, kc * ks, kc, 1);
    qn__q8_gemm_pack(packed, (const int8_t *)w, base, scale, n, kc, ks, kc * ks, kc, 1, kernel,
                     safe);
    double best = 1e30;
    const double stop = now() + 0.2;
    while (now() < stop) {
        const double start = now();
        for (size_t m0 = 0; m0 < m; m0 += kernel->mr) {
            const size_t mr = m - m0 < kernel->mr ? m - m0 : kernel->mr;
            for (size_t p = 0; p < ks; p++)
                for (size_t i = 0; i < kernel->mr; i++)
                    rows[p * kernel->mr + i] = a + (m0 + (i < mr ? i : mr - 1) + p) * kc;
            kernel->fn(mr, n, kc, ks, rows, flip, safe, packed, c + m0 * n, n, &bench_out);
        }
        const double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    printf("%-28s m %6zu n %5zu kc %5zu ks %zu %-8s %-6s %8.1f us %7.1f GMAC/s\n", kernel->name, m,
           n, kc, ks, flip ? "signed" : "unsigned", safe ? "safe" : "unsafe", best * 1e6,
           1e-9 * (double)(m * n * kc * ks) / best);
    free(a), free(c), free(w), free(base), free(scale), free(packed), free(rows);
}

static void bench_kernel_q8_igemm(const qn_q8_igemm *kernel)
{
    static const size_t shapes[][4] = {
        {48, 48, 256, 1},   {12544, 64, 32, 1},  {3136, 128, 64, 1}, {784, 256, 256, 1},
        {196, 512, 512, 1}, {49, 1024, 1024, 1}, {3136, 64, 64, 9},  {784, 128, 128, 9},
        {196, 256, 256, 9}, {49, 512, 512, 9},   {12544, 64, 21, 7}, {12544, 32, 9, 3},
        {1, 1000, 1024, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const size_t *const s = shapes[i];
        bench_q8_igemm(kernel, s[0], s[1], s[2], s[3], 0, true);
        bench_q8_igemm(kernel, s[0], s[1], s[2], s[3], 0x80, false);
    }
}

static void bench_q8_dwconv(const qn_q8_dwconv *kernel, const window_shape *s, size_t k)
{
    const size_t c = s->channels, n = (s->width - k) / s->stride + 1;
    uint8_t *const data = bytes(k * s->width * c), *const w = bytes(k * k * c);
    uint8_t *const out = bytes(n * c);
    int32_t *const bias = calloc(c, sizeof *bias);
    float *const scale = floats(c);
    const uint8_t *in[5];
    size_t in_col[5];
    for (size_t i = 0; i < k; i++) {
        in[i] = data + i * s->width * c;
        in_col[i] = i * c;
    }
    const qn_q8_dwconv_args args = {.rows = 1,
                                    .n = n,
                                    .channels = c,
                                    .kh = k,
                                    .kw = k,
                                    .in = in,
                                    .in_col = in_col,
                                    .in_step = s->stride * c,
                                    .w = (const int8_t *)w,
                                    .w_step = c,
                                    .bias = bias,
                                    .scale = scale,
                                    .out = out,
                                    .out_step = c,
                                    .format = bench_out};
    double best = 1e30;
    const double stop = now() + 0.1;
    while (now() < stop) {
        const double start = now();
        kernel->fn(&args);
        const double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    printf("%-28s width %4zu channels %4zu stride %zu window %zux%zu %8.2f us %7.1f GMAC/s\n",
           kernel->name, s->width, c, s->stride, k, k, best * 1e6,
           1e-9 * (double)(k * k * n * c) / best);
    free(data), free(w), free(out), free(bias), free(scale);
}

static void bench_kernel_q8_dwconv(const qn_q8_dwconv *kernel)
{
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        bench_q8_dwconv(kernel, &windows[i], 3);
        bench_q8_dwconv(kernel, &windows[i], 5);
    }
}

static void bench_q8_winograd(const qn_q8_winograd *kernel, size_t tiles, size_t c, size_t n)
{
    enum { TILES = 24 };
    const size_t panels = n / QN_WINOGRAD_CHANNELS * qn_q8_winograd_panel_bytes(c);
    int8_t *const w = (int8_t *)bytes(n * c * 9);
    float *const scale = floats(n);
    uint8_t *const in = bytes(TILES * QN_WINOGRAD_IN * c), *const out = bytes(QN_WINOGRAD_OUT * n);
    void *const packed = aligned_alloc(64, panels);
    int16_t *const v = aligned_alloc(64, QN_WINOGRAD_IN * 2 * qn_q8_winograd_step(tiles, c));
    qn_q8_winograd_tile tile[TILES];
    for (size_t t = 0; t < tiles; t++) {
        tile[t] = (qn_q8_winograd_tile){.out = out, .right = 6, .rows = 4, .columns = 4};
        for (size_t i = 0; i < 6; i++)
            tile[t].in[i] = in + (t * 6 + i) * 6 * c;
    }
    const qn_q8_winograd_args args = {.tiles = tiles,
                                      .channels = c,
                                      .n = n,
                                      .tile = tile,
                                      .zeros = in,
                                      .out_row = 4 * n,
                                      .out_step = n,
                                      .w = packed,
                                      .v = v,
                                      .v_step = qn_q8_winograd_step(tiles, c),
                                      .format = &bench_out};
    double best = 1e30;
    qn__q8_winograd_pack(packed, w, n, c, NULL, 128, scale);
    const double stop = now() + 0.1;
    while (now() < stop) {
        const double start = now();
        kernel->inputs(&args);
        kernel->fn(&args);
        const double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    printf("%-28s tiles %4zu channels %4zu columns %4zu %8.2f us %7.1f GMAC/s\n", kernel->name,
           tiles, c, n, best * 1e6, 1e-9 * (double)(9 * QN_WINOGRAD_OUT * tiles * n * c) / best);
    free(w), free(scale), free(in), free(out), free(packed), free(v);
}

static void bench_kernel_q8_winograd(const qn_q8_winograd *kernel)
{
    static const size_t shapes[][3] = {
        {12, 16, 16}, {12, 32, 32}, {12, 64, 64}, {6, 128, 128}, {16, 256, 256}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        bench_q8_winograd(kernel, shapes[i][0], shapes[i][1], shapes[i][2]);
}

static void bench_binary(const qn_q8_binary *kernel)
{
    static const size_t counts[] = {4096, 100352, 802816};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        const size_t n = counts[i];
        uint8_t *const a = bytes(n), *const b = bytes(n), *const out = bytes(n);
        const qn_q8_binary_args args = {.n = n,
                                        .a = a,
                                        .b = b,
                                        .out = out,
                                        .a_off = 3,
                                        .b_off = 4,
                                        .ra = 0.7f,
                                        .rb = 0.4f,
                                        .hi = 255};
        double best = 1e30;
        const double stop = now() + 0.1;
        while (now() < stop) {
            const double start = now();
            kernel->fn(&args);
            const double seconds = now() - start;
            best = seconds < best ? seconds : best;
        }
        printf("%-28s %7zu bytes %8.2f us %7.2f GB/s\n", kernel->name, n, best * 1e6,
               1e-9 * (double)n / best);
        free(a), free(b), free(out);
    }
}
static void bench_kernel_q8_maxpool(const qn_q8_maxpool *kernel)
{
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        const size_t c = windows[i].channels, width = windows[i].width;
        uint8_t *const in = bytes(3 * width * c), *const out = bytes(width * c);
        double best = 1e30;
        const double stop = now() + 0.1;
        while (now() < stop) {
            const double start = now();
            const qn_q8_maxpool_args args = {.n = width - 2,
                                             .channels = c,
                                             .rows = 3,
                                             .cols = 3,
                                             .in = in,
                                             .step = c,
                                             .row = width * c,
                                             .col = c,
                                             .out = out,
                                             .hi = 255};
            kernel->fn(&args);
            const double seconds = now() - start;
            best = seconds < best ? seconds : best;
        }
        printf("%-28s width %4zu channels %4zu %8.2f us %7.1f GB/s\n", kernel->name, width, c,
               best * 1e6, 9e-9 * (double)((width - 2) * c) / best);
        free(in), free(out);
    }
}
static void bench_kernel_q8_add(const qn_q8_binary *kernel)
{
    bench_binary(kernel);
}
static void bench_kernel_q8_mul(const qn_q8_binary *kernel)
{
    bench_binary(kernel);
}

/* The fastest of calls of `call` within a tenth of a second; one line. */
#define BENCH_LOOP(kernel, what, n, bytes_each, call)                                              \
    do {                                                                                           \
        double best_ = 1e30;                                                                       \
        const double stop_ = now() + 0.1;                                                          \
        while (now() < stop_) {                                                                    \
            const double start_ = now();                                                           \
            call;                                                                                  \
            const double seconds_ = now() - start_;                                                \
            best_ = seconds_ < best_ ? seconds_ : best_;                                           \
        }                                                                                          \
        printf("%-28s %7zu %s %8.2f us %7.2f GB/s\n", (kernel)->name, (size_t)(n), what,           \
               best_ * 1e6, 1e-9 * (double)(n) * (bytes_each) / best_);                            \
    } while (0)

/* What no 8-bit GEMM on this machine can exceed. */
static void bench_kernel_q8_peak(const qn_q8_peak *kernel)
{
    const size_t n = ((size_t)1 << 22) / kernel->macs;
    volatile uint32_t sum = 0;
    double best = 1e30;
    const double stop = now() + 0.2;
    while (now() < stop) {
        const double start = now();
        sum += kernel->fn(n);
        const double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    printf("%-28s limit of %-20s %7.1f GMAC/s\n", kernel->name, kernel->instruction,
           1e-9 * (double)(n * kernel->macs) / best);
}
static void bench_kernel_q8_sub(const qn_q8_binary *kernel)
{
    bench_binary(kernel);
}
static void bench_kernel_q8_table(const qn_q8_table *kernel)
{
    static const size_t counts[] = {64, 512, 4096, 100352};
    uint8_t *const table = bytes(256);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        uint8_t *const src = bytes(counts[i]), *const dst = bytes(counts[i]);
        BENCH_LOOP(kernel, "bytes", counts[i], 1.0, kernel->fn(table, src, dst, counts[i]));
        free(src), free(dst);
    }
    free(table);
}
static void bench_kernel_q8_fixed(const qn_q8_fixed *kernel)
{
    static const size_t shapes[][2] = {{24, 192}, {24, 24}, {112, 64}, {7, 64}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const size_t rows = shapes[i][0], n = shapes[i][1];
        int32_t *const sums = (int32_t *)(void *)bytes((rows * n + QN_Q8_FIXED_OVER) * 4);
        uint8_t *const out = bytes(rows * n);
        qn_multiplier fixed[192];
        for (size_t k = 0; k < n; k++)
            fixed[k] = (qn_multiplier){1500000000 + (int32_t)k, -9};
        for (int way = 0; way < 2; way++) {
            const qn_q8_fixed_args args = {.rows = rows,
                                           .n = n,
                                           .sums = sums,
                                           .sums_stride = n,
                                           .fixed = fixed,
                                           .zero = way == 0 ? 0 : 3,
                                           .hi = 255,
                                           .out = out,
                                           .out_stride = n};
            BENCH_LOOP(kernel, way == 0 ? "from zero up" : "ties away from zero", rows * n, 1.0,
                       kernel->fn(&args));
        }
        free(sums), free(out);
    }
}
static void bench_kernel_q8_quantize(const qn_q8_quantize *kernel)
{
    static const size_t counts[][2] = {{4096, 1}, {150528, 1}, {50176, 3}, {9216, 3}, {9216, 4}};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        const size_t n = counts[i][0], channels = counts[i][1];
        float *const src = floats(n * channels);
        uint8_t *const dst = bytes(n * channels);
        const qn_q8_quantize_args args = {.n = n,
                                          .channels = channels,
                                          .src = src,
                                          .plane = n,
                                          .dst = dst,
                                          .scale = 0.004f,
                                          .lo = -128,
                                          .hi = 127,
                                          .zero = 128};
        BENCH_LOOP(kernel, channels == 1 ? "floats" : "floats of each channel", n,
                   4.0 * (double)channels, kernel->fn(&args));
        free(src), free(dst);
    }
}
static void bench_kernel_q8_dequantize(const qn_q8_dequantize *kernel)
{
    const size_t n = 100352;
    uint8_t *const src = bytes(n);
    float *const dst = floats(n);
    const qn_q8_dequantize_args args = {.n = n, .src = src, .dst = dst, .scale = 0.1f, .zero = 3};
    BENCH_LOOP(kernel, "bytes", n, 1.0, kernel->fn(&args));
    free(src), free(dst);
}
static void bench_kernel_q8_avgpool(const qn_q8_avgpool *kernel)
{
    static const size_t shapes[][2] = {{1024, 7}, {256, 7}, {64, 8}, {512, 2}, {24, 3}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const size_t c = shapes[i][0], k = shapes[i][1];
        uint8_t *const in = bytes(c * k * k), *const out = bytes(c);
        const qn_q8_avgpool_args args = {.channels = c,
                                         .planes = 1,
                                         .rows = k,
                                         .cols = k,
                                         .in = in,
                                         .row = c * k,
                                         .col = c,
                                         .out = out,
                                         .divides = k < 4,
                                         .factor = 0.02f,
                                         .count = 9.0f,
                                         .scale = 0.02f,
                                         .hi = 255};
        BENCH_LOOP(kernel, "bytes", c * k * k, 1.0, kernel->fn(&args));
        free(in), free(out);
    }
}

int main(int argc, char **argv)
{
    const uint32_t flags = qn__cpu_detect();
#define QN_KERNEL(slot_, isa, function, ...)                                                       \
    if ((flags & QN_ISA_##isa) == QN_ISA_##isa && (argc < 2 || strstr(#function, argv[1]))) {      \
        const __typeof__(((qn_kernels *)0)->slot_) kernel = {                                      \
            .fn = function, .name = #function, __VA_ARGS__};                                       \
        bench_kernel_##slot_(&kernel);                                                             \
    }
#include "kernel/kernels.def"
#undef QN_KERNEL
    const qn_split_igemm *const split = qn__split_igemm(flags);
    if (split != NULL && (argc < 2 || strstr(split->kernel.name, argv[1])))
        bench_split_igemm(split);
    return 0;
}
