/* Time from a model file to the first answer: reading, planning, first inference.
 *
 *     load_bench MODEL [ROUNDS]      one thread; the file is in the page cache after the first
 * round
 */
#include "core/io.h"
#include "format/qnm/qnm.h"
#include "quench/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { READ, LOAD, SESSION, FIRST, TOTAL, N_TIMES };

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void fail(const qn_error *error)
{
    fprintf(stderr, "error: %s\n", error->message);
    exit(1);
}

/* The reader alone, as the stand-alone runtime calls it. */
static double read_ms(const qn_context *ctx, const char *path)
{
    qn_file_view view;
    qn_error error = {0};
    qn_graph *graph = NULL;
    const double begin = now_ms();
    if (qn__file_open(ctx, path, &view, &error) != QN_OK)
        fail(&error);
    qn_blob *const file = qn__blob_from_file(ctx, &view);
    if (file == NULL || !qn__qnm_probe(file->data, file->size_bytes)) {
        qn__blob_unref(file);
        return 0;
    }
    if (qn__qnm_read(ctx, file, path, false, &graph, &error) != QN_OK)
        fail(&error);
    const double end = now_ms();
    qn__graph_destroy(graph);
    qn__blob_unref(file);
    return end - begin;
}

static void round_ms(const qn_context *ctx, const char *path, double times[N_TIMES])
{
    qn_error error = {0};
    qn_model *model = NULL;
    qn_session *session = NULL;
    const double t0 = now_ms();
    if (qn_model_load(ctx, path, &model, &error) != QN_OK)
        fail(&error);
    const double t1 = now_ms();
    if (qn_session_create(model, NULL, &session, &error) != QN_OK)
        fail(&error);
    const double t2 = now_ms();
    const size_t n = qn_model_n_inputs(model);
    float **inputs = calloc(n + 1, sizeof(*inputs));
    for (size_t i = 0; inputs != NULL && i < n; i++) {
        uint32_t rank;
        int64_t dims[QN_MODEL_MAX_RANK];
        size_t count = 1;
        if (!qn_session_dims(session, false, i, &rank, dims))
            exit(1);
        for (uint32_t d = 0; d < rank; d++)
            count *= (size_t)dims[d];
        inputs[i] = calloc(count, sizeof(float));
        if (inputs[i] == NULL)
            exit(1);
    }
    const double t3 = now_ms();
    if (inputs == NULL || qn_session_run(session, (const float *const *)inputs, &error) != QN_OK)
        fail(&error);
    const double t4 = now_ms();
    times[LOAD] = t1 - t0;
    times[SESSION] = t2 - t1;
    times[FIRST] = t4 - t3;
    times[TOTAL] = times[LOAD] + times[SESSION] + times[FIRST];
    for (size_t i = 0; i < n; i++)
        free(inputs[i]);
    free(inputs);
    qn_session_destroy(session);
    qn_model_destroy(model);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: load_bench MODEL [ROUNDS]\n");
        return 2;
    }
    const int rounds = argc > 2 ? atoi(argv[2]) : 10;
    qn_context_options options;
    qn_error error = {0};
    qn_context *ctx = NULL;
    qn_context_options_init(&options);
    options.n_threads = 1;
    options.cpu_mask = getenv("QN_CPU_MASK");
    if (qn_context_create(&options, &ctx, &error) != QN_OK)
        fail(&error);
    double least[N_TIMES], cold[N_TIMES] = {0};
    for (int r = 0; r < rounds; r++) {
        double times[N_TIMES];
        round_ms(ctx, argv[1], times);
        times[READ] = read_ms(ctx, argv[1]);
        for (int i = 0; i < N_TIMES; i++) {
            if (r == 0)
                cold[i] = times[i];
            least[i] = r == 0 || times[i] < least[i] ? times[i] : least[i];
        }
    }
    static const char *const NAMES[] = {"read (.qnm reader alone)", "load", "session",
                                        "first inference", "load + session + first inference"};
    printf("%-34s %10s %10s\n", "", "first ms", "least ms");
    for (int i = 0; i < N_TIMES; i++)
        printf("%-34s %10.3f %10.3f\n", NAMES[i], cold[i], least[i]);
    qn_context_destroy(ctx);
    return 0;
}
