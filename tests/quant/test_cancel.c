/* Evaluating and comparing, stopped by the context's progress callback: the status and message say
 * so, results are as they were, nothing leaks, and the same model runs to the end afterwards. */
#include "quant/model.h"
#include "quench/quantize.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SAMPLES = 8, FEATURES = 16, CLASSES = 4 };

typedef struct fixture {
    char data[64];
    atomic_long live; /* allocations */
    qn_context *ctx;
    qn_model *model;
    qn_dataset *dataset;
    const char *phase;
    uint64_t stop_at; /* false from here on; 0: never */
    uint64_t calls, last;
} fixture;

static void *count_alloc(void *ctx, size_t bytes)
{
    void *const made = malloc(bytes);
    atomic_fetch_add((atomic_long *)ctx, made != NULL);
    return made;
}

static void *count_realloc(void *ctx, void *old, size_t bytes)
{
    void *const made = realloc(old, bytes);
    atomic_fetch_add((atomic_long *)ctx, old == NULL && made != NULL);
    return made;
}

static void count_free(void *ctx, void *old)
{
    atomic_fetch_sub((atomic_long *)ctx, old != NULL);
    free(old);
}

/* Never called by two threads at once: the counts need no lock. */
static bool progress(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    fixture *const f = ctx;
    f->calls++;
    if (strcmp(phase, f->phase) != 0 || total != SAMPLES || done != f->last + 1)
        f->calls += 1000; /* a worker's thread cannot fail the test itself */
    f->last = done;
    return f->stop_at == 0 || done < f->stop_at;
}

static qn_graph *build(const qn_context *ctx)
{
    qn_graph *g;
    void *data;
    const int64_t dims[2] = {CLASSES, FEATURES};
    assert_int_equal(qn__graph_create(ctx, &g, NULL), QN_OK);
    qn_tensor *x = qn__graph_add_tensor(g, "x", qn_type_plain_make(QN_DTYPE_F32));
    qn__tensor_set_shape(x, 2, (const int64_t[]){1, FEATURES});
    qn_blob *blob = qn__blob_create(ctx, CLASSES * FEATURES * sizeof(float), &data);
    assert_non_null(blob);
    for (int i = 0; i < CLASSES * FEATURES; i++)
        ((float *)data)[i] = (float)(i * 7 % 11 - 5);
    qn_node *gemm = qn__graph_add_node(g, SIZE_MAX, QN_OP_GEMM, "gemm", 2, 1);
    gemm->inputs[0] = x;
    gemm->inputs[1] =
        qn__graph_add_constant(g, "w", qn_type_plain_make(QN_DTYPE_F32), 2, dims, blob);
    qn__blob_unref(blob);
    assert_true(qn__node_set_int(g, gemm, "transB", 1));
    qn__node_set_output(gemm, 0,
                        qn__graph_add_tensor(g, "scores", qn_type_plain_make(QN_DTYPE_F32)));
    g->inputs = qn__arena_calloc(&g->arena, 1, sizeof(*g->inputs));
    g->outputs = qn__arena_calloc(&g->arena, 1, sizeof(*g->outputs));
    g->inputs[0] = x;
    g->outputs[0] = gemm->outputs[0];
    g->n_inputs = g->n_outputs = 1;
    assert_int_equal(qn__graph_infer(g, NULL), QN_OK);
    return g;
}

static int setup_threads(void **state, uint32_t n_threads)
{
    fixture *f = calloc(1, sizeof(*f));
    const qn_allocator allocator = {count_alloc, count_realloc, count_free, &f->live};
    qn_context_options options;
    qn_dataset_options samples;
    qn_error error = {0};
    (void)snprintf(f->data, sizeof(f->data), "/tmp/quench-cancel-XXXXXX");
    const int fd = mkstemp(f->data);
    assert_true(fd >= 0);
    for (int i = 0; i < SAMPLES * FEATURES; i++) {
        const float value = (float)(i * 5 % 13 - 6);
        assert_int_equal(write(fd, &value, sizeof(value)), sizeof(value));
    }
    assert_int_equal(close(fd), 0);
    qn_context_options_init(&options);
    options.allocator = &allocator;
    options.n_threads = n_threads;
    options.progress = progress;
    options.progress_ctx = f;
    assert_int_equal(qn_context_create(&options, &f->ctx, &error), QN_OK);
    assert_int_equal(qn__model_create(f->ctx, build(f->ctx), "small.onnx", 0, &f->model, &error),
                     QN_OK);
    qn_dataset_options_init(&samples);
    samples.data_file = f->data;
    samples.raw_type = "f32";
    samples.raw_shape = "16";
    if (qn_dataset_create(f->ctx, f->model, &samples, &f->dataset, &error) != QN_OK)
        fail_msg("%s", error.message);
    *state = f;
    return 0;
}

static int setup_one(void **state)
{
    return setup_threads(state, 1);
}

static int setup_many(void **state)
{
    return setup_threads(state, 4);
}

static int teardown(void **state)
{
    fixture *f = *state;
    qn_dataset_destroy(f->dataset);
    qn_model_destroy(f->model);
    qn_context_destroy(f->ctx);
    const long live = atomic_load(&f->live);
    (void)unlink(f->data);
    free(f);
    return live == 0 ? 0 : -1;
}

/* Stops at sample `stop_at`, and not once more is the callback called. */
static void evaluate(fixture *f, uint64_t stop_at)
{
    int64_t predictions[SAMPLES];
    qn_evaluation out;
    qn_error error = {0};
    char text[64];
    for (int i = 0; i < SAMPLES; i++)
        predictions[i] = -7;
    f->phase = "evaluate";
    f->stop_at = stop_at;
    f->calls = f->last = 0;
    const long live = atomic_load(&f->live);
    const qn_status status =
        qn_evaluate(f->model, f->dataset, NULL, NULL, predictions, &out, &error);
    assert_int_equal(atomic_load(&f->live), live);
    assert_int_equal(status, stop_at > 0 ? QN_CANCELLED : QN_OK);
    assert_int_equal(f->calls, stop_at > 0 ? stop_at : SAMPLES);
    for (int i = 0; i < SAMPLES; i++)
        assert_true(stop_at > 0 ? predictions[i] == -7 : predictions[i] >= 0);
    (void)snprintf(text, sizeof(text), "evaluate: cancelled after %d of 8 samples", (int)stop_at);
    if (stop_at > 0)
        assert_string_equal(error.message, text);
}

static void compare(fixture *f, uint64_t stop_at)
{
    qn_comparison *out = NULL;
    qn_error error = {0};
    char text[64];
    f->phase = "compare";
    f->stop_at = stop_at;
    f->calls = f->last = 0;
    const long live = atomic_load(&f->live);
    const qn_status status = qn_compare(f->model, f->model, f->dataset, &out, &error);
    assert_int_equal(status, stop_at > 0 ? QN_CANCELLED : QN_OK);
    assert_int_equal(f->calls, stop_at > 0 ? stop_at : SAMPLES);
    (void)snprintf(text, sizeof(text), "compare: cancelled after %d of 8 samples", (int)stop_at);
    if (stop_at > 0) {
        assert_string_equal(error.message, text);
        assert_null(out);
    }
    qn_comparison_destroy(out);
    assert_int_equal(atomic_load(&f->live), live);
}

static void evaluating_can_be_cancelled(void **state)
{
    for (uint64_t at = 1; at <= SAMPLES; at++)
        evaluate(*state, at);
    evaluate(*state, 0);
}

static void comparing_can_be_cancelled(void **state)
{
    for (uint64_t at = 1; at <= SAMPLES; at++)
        compare(*state, at);
    compare(*state, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(evaluating_can_be_cancelled, setup_one, teardown),
        cmocka_unit_test_setup_teardown(comparing_can_be_cancelled, setup_one, teardown),
        cmocka_unit_test_setup_teardown(evaluating_can_be_cancelled, setup_many, teardown),
        cmocka_unit_test_setup_teardown(comparing_can_be_cancelled, setup_many, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
