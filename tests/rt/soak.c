/* rt_soak MODEL.qnm THREADS RUNS: THREADS sessions of one model run RUNS times each, side by side,
 * on made-up inputs. Every run must give the outputs of a run alone, and memory must not grow.
 * Needs the stand-alone runtime and POSIX threads only. */
#include "quench/runtime.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KINDS = 3, MAX_THREADS = 64 };

typedef struct job {
    const qn_rt_model *model;
    unsigned thread;
    long runs;
    const uint64_t *expected; /* [KINDS] hash of all outputs; NULL: to be found */
    uint64_t found[KINDS];
    char message[1100]; /* empty: all well */
} job;

static void fill(unsigned char *bytes, size_t count, const qn_rt_value *v, unsigned kind)
{
    uint32_t random = kind * 7919 + 1;
    const bool real = strcmp(v->dtype, "float32") == 0;
    for (size_t i = 0; i < (real ? v->count : count); i++) {
        random = random * 1664525 + 1013904223;
        const float value = (float)(int32_t)random / 1e9f;
        if (real)
            memcpy(bytes + i * sizeof(value), &value, sizeof(value));
        else
            bytes[i] = (unsigned char)(random >> 24);
    }
}

static bool infer(job *j, qn_rt_session *session, unsigned kind, uint64_t *hash)
{
    qn_error error = {QN_OK, ""};
    qn_rt_value v;
    for (size_t i = 0; qn_rt_input(j->model, i, &v); i++)
        fill(qn_rt_input_buffer(session, i), v.size_bytes, &v, kind);
    if (qn_rt_run(session, &error) != QN_OK) {
        snprintf(j->message, sizeof(j->message), "%s", error.message);
        return false;
    }
    *hash = 1469598103934665603u;
    for (size_t i = 0; qn_rt_output(j->model, i, &v); i++) {
        const unsigned char *const bytes = qn_rt_output_buffer(session, i);
        for (size_t k = 0; k < v.size_bytes; k++)
            *hash = (*hash ^ bytes[k]) * 1099511628211u;
    }
    return true;
}

static void *work(void *arg)
{
    job *const j = arg;
    qn_error error = {QN_OK, ""};
    qn_rt_session *session = NULL;
    if (qn_rt_session_create(j->model, NULL, &session, &error) != QN_OK)
        snprintf(j->message, sizeof(j->message), "%s", error.message);
    for (long run = 0; session != NULL && run < j->runs; run++) {
        const unsigned kind = (unsigned)((run + j->thread) % KINDS);
        uint64_t hash;
        if (!infer(j, session, kind, &hash))
            break;
        if (j->expected == NULL) {
            j->found[kind] = hash;
        } else if (hash != j->expected[kind]) {
            snprintf(j->message, sizeof(j->message), "thread %u, run %ld: other outputs", j->thread,
                     run);
            break;
        }
    }
    qn_rt_session_destroy(session);
    return NULL;
}

/* Resident memory in KiB, 0 where there is no /proc. */
static long resident(void)
{
    long pages = 0;
    FILE *const file = fopen("/proc/self/statm", "r");
    if (file != NULL && fscanf(file, "%*s %ld", &pages) != 1)
        pages = 0;
    if (file != NULL)
        fclose(file);
    return pages * 4;
}

static int run_all(const qn_rt_model *model, unsigned n_threads, long runs,
                   const uint64_t *expected)
{
    static job jobs[MAX_THREADS];
    pthread_t threads[MAX_THREADS];
    int failed = 0;
    for (unsigned i = 0; i < n_threads; i++) {
        jobs[i] = (job){.model = model, .thread = i, .runs = runs, .expected = expected};
        if (pthread_create(&threads[i], NULL, work, &jobs[i]) != 0)
            return fprintf(stderr, "error: cannot start %u threads\n", n_threads), 1;
    }
    for (unsigned i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
        if (jobs[i].message[0] != '\0')
            failed = fprintf(stderr, "error: %s\n", jobs[i].message) > 0;
    }
    return failed;
}

int main(int argc, char **argv)
{
    qn_error error = {QN_OK, ""};
    qn_rt_model *model = NULL;
    const long threads = argc == 4 ? strtol(argv[2], NULL, 10) : 0;
    const long runs = argc == 4 ? strtol(argv[3], NULL, 10) : 0;
    if (threads < 1 || threads > MAX_THREADS || runs < 1)
        return fprintf(stderr, "usage: rt_soak MODEL.qnm THREADS RUNS\n"), 2;
    if (qn_rt_model_load(argv[1], NULL, &model, &error) != QN_OK)
        return fprintf(stderr, "error: %s\n", error.message), 1;
    job alone = {.model = model, .runs = 2 * KINDS};
    work(&alone);
    if (alone.message[0] != '\0')
        return fprintf(stderr, "error: %s\n", alone.message), 1;
    int failed = run_all(model, (unsigned)threads, KINDS, alone.found);
    const long before = resident();
    failed |= run_all(model, (unsigned)threads, runs, alone.found);
    const long grown = resident() - before;
    printf("%ld threads, %ld runs each: %s, %ld KiB more\n", threads, runs,
           failed ? "FAILED" : "same outputs", grown);
    qn_rt_model_destroy(model);
    /* Stacks and allocator caches of as many threads as before; not of runs. Sanitizers keep books.
     */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    const long allowed = LONG_MAX;
#else
    const long allowed = 2048;
#endif
    if (grown > allowed)
        return fprintf(stderr, "error: memory grew by %ld KiB\n", grown), 1;
    return failed;
}
