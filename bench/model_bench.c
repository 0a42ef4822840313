/* Latency of whole float networks: every model given is read, simplified, planned and run; the
 * median, fastest and slowest of REPS runs are printed, and with --profile where the time goes.
 *
 *     model_bench [--threads N] [--reps N] [--cpu MASK] [--profile] MODEL...
 *
 * With --serve the program answers lines on stdin with the milliseconds of one run of the model
 * whose index the line holds, so that a script can interleave it with another runtime. */
#include "core/alloc.h"
#include "core/context.h"
#include "core/threads.h"
#include "format/format.h"
#include "pass/pass.h"
#include "run/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct model {
    qn_graph *graph;
    qn_plan *plan;
    qn_exec *exec;
    const void **inputs;
} model;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static qn_status load(qn_context *ctx, qn_pool *pool, const char *path, model *m, qn_error *error)
{
    QN_TRY(qn__format_read(ctx, path, &m->graph, error));
    qn_pass_options passes;
    qn__pass_options_init(&passes);
    passes.resolve = qn__graph_resolve;
    QN_TRY(qn__passes_simplify(m->graph, &passes, error));
    qn_plan_options options;
    qn__plan_options_init(&options, ctx);
    QN_TRY(qn__plan_create(m->graph, &options, &m->plan, error));
    QN_TRY(qn__exec_create(m->plan, pool, &m->exec, error));
    m->inputs = calloc(m->graph->n_inputs + 1, sizeof *m->inputs);
    for (size_t i = 0; m->inputs != NULL && i < m->graph->n_inputs; i++) {
        const qn_tensor *const t = m->graph->inputs[i];
        size_t count = 1;
        for (size_t d = 0; d < t->rank; d++)
            count *= t->dims[d].kind == QN_DIM_CONST ? (size_t)t->dims[d].value : 1;
        float *const values = malloc(count * sizeof *values);
        for (size_t k = 0; values != NULL && k < count; k++)
            values[k] = (float)((double)rand() / RAND_MAX * 2.0 - 1.0);
        m->inputs[i] = values;
    }
    return QN_OK;
}

static qn_status run(model *m, double *seconds, qn_error *error)
{
    const double start = now();
    QN_TRY(qn__exec_run(m->exec, m->inputs, error));
    *seconds = now() - start;
    return QN_OK;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_profile(model *m, qn_error *error)
{
    double seconds, *best = NULL;
    size_t count = 0;
    qn__exec_set_profiling(m->exec, true);
    for (int rep = 0; rep < 10; rep++) {
        if (run(m, &seconds, error) != QN_OK)
            break;
        const qn_step_time *const steps = qn__exec_profile(m->exec, &count);
        if (best == NULL)
            best = calloc(count + 1, sizeof *best);
        for (size_t i = 0; i < count && best != NULL; i++)
            if (rep == 0 || steps[i].seconds < best[i])
                best[i] = steps[i].seconds;
    }
    const qn_step_time *const last = qn__exec_profile(m->exec, &count);
    for (size_t i = 0; i < count && best != NULL; i++)
        printf("%9.1f us %7.1f GFLOP/s  %-30s %s\n", best[i] * 1e6,
               best[i] > 0 ? 2e-9 * (double)last[i].macs / best[i] : 0.0, last[i].kernel,
               last[i].node);
    qn__exec_set_profiling(m->exec, false);
    free(best);
}

int main(int argc, char **argv)
{
    uint32_t threads = 1;
    int reps = 20, first = 1;
    bool profile = false, serve = false;
    const char *mask = "";
    for (; first < argc && argv[first][0] == '-'; first++) {
        if (strcmp(argv[first], "--profile") == 0)
            profile = true;
        else if (strcmp(argv[first], "--serve") == 0)
            serve = true;
        else if (strcmp(argv[first], "--threads") == 0 && first + 1 < argc)
            threads = (uint32_t)atoi(argv[++first]);
        else if (strcmp(argv[first], "--reps") == 0 && first + 1 < argc)
            reps = atoi(argv[++first]);
        else if (strcmp(argv[first], "--cpu") == 0 && first + 1 < argc)
            mask = argv[++first];
    }
    qn_error error = {0};
    qn_context *ctx = NULL;
    qn_pool *pool = NULL;
    qn_context_options options;
    qn_context_options_init(&options);
    options.cpu_mask = mask;
    options.n_threads = threads;
    const int n = argc - first;
    model *const models = calloc((size_t)n + 1, sizeof *models);
    double *const times = calloc((size_t)reps + 1, sizeof *times);
    if (models == NULL || times == NULL || qn_context_create(&options, &ctx, &error) != QN_OK ||
        (threads > 1 && qn__pool_create(ctx, threads, &pool, &error) != QN_OK))
        goto failed;
    for (int i = 0; i < n; i++)
        if (load(ctx, pool, argv[first + i], &models[i], &error) != QN_OK)
            goto failed;
    char line[64];
    while (serve && fgets(line, sizeof line, stdin) != NULL) {
        const int index = atoi(line);
        double seconds;
        if (index < 0 || index >= n || run(&models[index], &seconds, &error) != QN_OK)
            goto failed;
        printf("%.4f\n", seconds * 1e3);
        fflush(stdout);
    }
    for (int i = 0; i < n && !serve; i++) {
        for (int rep = 0; rep < reps; rep++)
            if (run(&models[i], &times[rep], &error) != QN_OK)
                goto failed;
        qsort(times, (size_t)reps, sizeof *times, by_value);
        printf(
            "%s threads %u median %.3f ms fastest %.3f slowest %.3f of %d, arena %zu packed %zu\n",
            argv[first + i], threads, times[reps / 2] * 1e3, times[0] * 1e3, times[reps - 1] * 1e3,
            reps, qn__plan_arena_bytes(models[i].plan), qn__plan_packed_bytes(models[i].plan));
        if (profile)
            print_profile(&models[i], &error);
    }
    for (int i = 0; i < n; i++) {
        for (size_t k = 0; k < models[i].graph->n_inputs; k++)
            free((void *)(uintptr_t)models[i].inputs[k]);
        free(models[i].inputs);
        qn__exec_destroy(models[i].exec);
        qn__plan_destroy(models[i].plan);
        qn__graph_destroy(models[i].graph);
    }
    free(models);
    free(times);
    qn__pool_destroy(ctx, pool);
    qn_context_destroy(ctx);
    return 0;
failed:
    fprintf(stderr, "error: %s\n", error.message);
    return 1;
}
