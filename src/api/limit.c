/* What the machine can do at most, for profiles. */
#include <time.h>

#include "core/context.h"
#include "kernel/kernel.h"
#include "quench/model.h"

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Short runs, because the fastest is wanted: longer ones are interrupted. */
double qn_context_integer_limit(const qn_context *ctx, const char **instruction)
{
    enum { RUNS = 50, MACS = 1 << 23 };
    qn_kernels kernels;
    if (ctx == NULL)
        return 0.0;
    qn__kernels_init(&kernels, ctx->cpu_flags);
    const qn_q8_peak *const peak = &kernels.q8_peak;
    const size_t n = MACS / peak->macs / (ctx->cpu_flags == 0 ? 64 : 1) + 1;
    double best = 0.0;
    for (int i = 0; i < RUNS; i++) {
        const double start = now_seconds();
        peak->fn(n);
        const double seconds = now_seconds() - start;
        if (i == 0 || seconds < best)
            best = seconds;
    }
    if (instruction != NULL)
        *instruction = peak->instruction;
    return best > 0.0 ? (double)(n * peak->macs) / best : 0.0;
}
