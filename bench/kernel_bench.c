/* Speed of every kernel this CPU can run, on shapes of real networks: one line each, best of
 * several repetitions. An argument limits it to names that hold it. */
#include "core/cpu.h"
#include "kernel/kernel.h"
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

#if defined(__x86_64__)
/* Independent vpdpbusd without memory: what no 8-bit GEMM on this machine can exceed. */
__attribute__((target("avx512f,avx512vnni"))) static void bench_dpbusd_limit(void)
{
    enum { CHAINS = 16, STEPS = 4096 };
    double best = 1e30;
    const double stop = now() + 0.2;
    while (now() < stop) {
        const double start = now();
        for (size_t i = 0; i < STEPS; i++)
            __asm__ volatile(
                "vpdpbusd %%zmm16, %%zmm16, %%zmm0\n\tvpdpbusd %%zmm16, %%zmm16, %%zmm1\n\t"
                "vpdpbusd %%zmm16, %%zmm16, %%zmm2\n\tvpdpbusd %%zmm16, %%zmm16, %%zmm3\n\t"
                "vpdpbusd %%zmm16, %%zmm16, %%zmm4\n\tvpdpbusd %%zmm16, %%zmm16, %%zmm5\n\t"
                "vpdpbusd %%zmm16, %%zmm16, %%zmm6\n\tvpdpbusd %%zmm16, %%zmm16, %%zmm7\n\t"
                "vpdpbusd %%zmm16, %%zmm16, %%zmm8\n\tvpdpbusd %%zmm16, %%zmm16, %%zmm9\n\t"
                "vpdpbusd %%zmm16, %%zmm16, %%zmm10\n\tvpdpbusd %%zmm16, %%zmm16, %%zmm11\n\t"
                "vpdpbusd %%zmm16, %%zmm16, %%zmm12\n\tvpdpbusd %%zmm16, %%zmm16, %%zmm13\n\t"
                "vpdpbusd %%zmm16, %%zmm16, %%zmm14\n\tvpdpbusd %%zmm16, %%zmm16, %%zmm15\n\t" ::
                    : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                      "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16");
        const double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    __asm__ volatile("vzeroupper");
    printf("%-28s %7.1f GMAC/s\n", "limit of vpdpbusd", 64e-9 * CHAINS * STEPS / best);
}
#endif

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

/* kh is 3, or 2 at the upper and lower edge. */
static void bench_q8_dwconv(const qn_q8_dwconv *kernel, const window_shape *s, size_t kh)
{
    const size_t c = s->channels, n = (s->width - 3) / s->stride + 1;
    uint8_t *const in = bytes(3 * s->width * c), *const w = bytes(9 * c);
    uint8_t *const out = bytes(n * c);
    int32_t *const bias = calloc(c, sizeof *bias);
    float *const scale = floats(c);
    const qn_q8_dwconv_args args = {.n = n,
                                    .channels = c,
                                    .kh = kh,
                                    .kw = 3,
                                    .in = in,
                                    .in_zero = 5,
                                    .in_row = s->width * c,
                                    .in_col = c,
                                    .in_step = s->stride * c,
                                    .w = (const int8_t *)w,
                                    .w_row = 3 * c,
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
    printf("%-28s width %4zu channels %4zu stride %zu window %zux3 %8.2f us %7.1f GMAC/s\n",
           kernel->name, s->width, c, s->stride, kh, best * 1e6,
           1e-9 * (double)(3 * kh * n * c) / best);
    free(in), free(w), free(out), free(bias), free(scale);
}

static void bench_kernel_q8_dwconv(const qn_q8_dwconv *kernel)
{
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        bench_q8_dwconv(kernel, &windows[i], 3);
        bench_q8_dwconv(kernel, &windows[i], 2);
    }
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
            for (size_t x = 0; x + 2 < width; x++) {
                const qn_q8_maxpool_args args = {.channels = c,
                                                 .rows = 3,
                                                 .cols = 3,
                                                 .in = in + x * c,
                                                 .row = width * c,
                                                 .col = c,
                                                 .out = out + x * c,
                                                 .hi = 255};
                kernel->fn(&args);
            }
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

int main(int argc, char **argv)
{
    const uint32_t flags = qn__cpu_detect();
#if defined(__x86_64__)
    if ((flags & QN_CPU_AVX512_VNNI) != 0 && (argc < 2 || strstr(argv[1], "q8_igemm")))
        bench_dpbusd_limit();
#endif
#define QN_KERNEL(slot_, isa, function, ...)                                                       \
    if ((flags & QN_ISA_##isa) == QN_ISA_##isa && (argc < 2 || strstr(#function, argv[1]))) {      \
        const __typeof__(((qn_kernels *)0)->slot_) kernel = {                                      \
            .fn = function, .name = #function, __VA_ARGS__};                                       \
        bench_kernel_##slot_(&kernel);                                                             \
    }
#include "kernel/kernels.def"
#undef QN_KERNEL
    return 0;
}
