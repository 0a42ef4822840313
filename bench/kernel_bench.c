/* Speed of every kernel this CPU can run, on shapes of real networks: one line each, best of several
 * repetitions. `peak` is the speed of independent fused multiply-adds in registers, measured in the
 * same process, so the percentages can be compared between machines. */
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
    float *const a = floats((m + ks) * kc), *const c = floats(m * n), *const w = floats(n * kc * ks);
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
    printf("%-28s m %6zu n %5zu kc %5zu ks %zu %8.1f us %7.1f GFLOP/s\n", kernel->name, m, n, kc, ks,
           best * 1e6, 2e-9 * (double)(m * n * kc * ks) / best);
    free(a), free(c), free(w), free(packed), free(rows);
}

static void bench_kernel_f32_igemm(const qn_f32_igemm *kernel)
{
    static const size_t shapes[][4] = {
        {48, 48, 256, 1},    {12544, 64, 32, 1},  {12544, 16, 32, 1}, {3136, 128, 128, 1},
        {784, 256, 256, 1},  {196, 512, 512, 1},  {49, 1024, 1024, 1}, {3136, 64, 64, 9},
        {784, 128, 128, 9},  {196, 256, 256, 9},  {49, 512, 512, 9},  {12544, 64, 21, 7},
        {12544, 32, 9, 3},   {1, 1000, 1024, 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        bench_igemm(kernel, shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3]);
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
    return 0;
}
