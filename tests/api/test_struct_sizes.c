/* Options of a program that was built with another version: refused, and nothing behind their first
 * field is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "quench/mnn.h"
#include "quench/runtime.h"
#include "small_mnn.h"

typedef struct fixture {
    qn_context *ctx;
    qn_model *model;
    qn_dataset *dataset;
    qn_error error;
    char path[64];
} fixture;

static float sample[3 * 6 * 8];

/* A struct of one field whose value is size: the sanitizer sees what is read behind it. */
static void *of_size(size_t size)
{
    size_t *const only = malloc(sizeof(*only));
    assert_non_null(only);
    *only = size;
    return only;
}

/* call, on `only` for the struct's pointer, fails and names the function that should have been
 * called, for a struct of one field, of none, and of a field more. */
#define REFUSED(f, type, init, call)                                                               \
    do {                                                                                           \
        const size_t sizes[] = {sizeof(size_t), 0, sizeof(type) + sizeof(size_t), SIZE_MAX};       \
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {                            \
            type *const only = of_size(sizes[i]);                                                  \
            assert_int_equal((call), QN_INVALID_ARGUMENT);                                         \
            if (strstr((f)->error.message, init) == NULL)                                          \
                fail_msg("%s: %s", #call, (f)->error.message);                                     \
            free(only);                                                                            \
        }                                                                                          \
    } while (0)

static int setup(void **state)
{
    static fixture f;
    uint8_t *bytes = NULL;
    size_t size = 0;
    snprintf(f.path, sizeof(f.path), "/tmp/quench-sizes-%d.mnn", (int)getpid());
    qn_status status = qn_context_create(NULL, &f.ctx, &f.error);
    if (status == QN_OK)
        status = small_mnn_bytes(f.ctx, 3, 6, 8, "NCHW", &bytes, &size, &f.error);
    FILE *const file = status == QN_OK ? fopen(f.path, "wb") : NULL;
    if (file == NULL || fwrite(bytes, 1, size, file) != size || fclose(file) != 0)
        return 1;
    qn__free(f.ctx, bytes);
    status = qn_model_load(f.ctx, f.path, &f.model, &f.error);
    char raw[80];
    snprintf(raw, sizeof(raw), "%s.raw", f.path);
    FILE *const samples = fopen(raw, "wb");
    if (samples == NULL || fwrite(sample, sizeof(sample), 1, samples) != 1 || fclose(samples) != 0)
        return 1;
    qn_dataset_options options;
    qn_dataset_options_init(&options);
    options.data_file = raw;
    options.raw_type = "f32";
    if (status == QN_OK)
        status = qn_dataset_create(f.ctx, f.model, &options, &f.dataset, &f.error);
    unlink(raw);
    if (status != QN_OK)
        fprintf(stderr, "%s\n", f.error.message);
    *state = &f;
    return status == QN_OK ? 0 : 1;
}

static int teardown(void **state)
{
    fixture *const f = *state;
    qn_dataset_destroy(f->dataset);
    qn_model_destroy(f->model);
    qn_context_destroy(f->ctx);
    return unlink(f->path);
}

static void contexts_and_limits(void **state)
{
    fixture *const f = *state;
    qn_context *made = NULL;
    REFUSED(f, qn_context_options, "qn_context_options_init",
            qn_context_create(only, &made, &f->error));
    qn_context_options options;
    qn_context_options_init(&options);
    REFUSED(f, qn_limits, "qn_limits_init",
            (options.limits = only, qn_context_create(&options, &made, &f->error)));
    assert_null(made);
}

static void models_and_sessions(void **state)
{
    fixture *const f = *state;
    qn_session *session = NULL;
    REFUSED(f, qn_session_options, "qn_session_options_init",
            qn_session_create(f->model, only, &session, &f->error));
    assert_null(session);
    REFUSED(f, qn_compact_options, "qn_compact_options_init",
            qn_model_save_compact(f->model, "/tmp/is-not-written.qnm", only, NULL, &f->error));
    assert_int_equal(access("/tmp/is-not-written.qnm", F_OK), -1);
    qn_evaluation evaluation;
    REFUSED(f, qn_session_options, "qn_session_options_init",
            qn_evaluate(f->model, f->dataset, only, NULL, NULL, &evaluation, &f->error));
}

static void the_stand_alone_runtime(void **state)
{
    fixture *const f = *state;
    qn_rt_model *made = NULL;
    REFUSED(f, qn_rt_options, "qn_rt_options_init",
            qn_rt_model_load(f->path, only, &made, &f->error));
    qn_rt_options options;
    qn_rt_options_init(&options);
    REFUSED(f, qn_limits, "qn_limits_init",
            (options.limits = only, qn_rt_model_load(f->path, &options, &made, &f->error)));
    assert_null(made);
}

static void datasets(void **state)
{
    fixture *const f = *state;
    qn_dataset *made = NULL;
    REFUSED(f, qn_dataset_options, "qn_dataset_options_init",
            qn_dataset_create(f->ctx, f->model, only, &made, &f->error));
    qn_dataset_options options;
    qn_dataset_options_init(&options);
    options.preprocess.struct_size = 0;
    assert_int_equal(qn_dataset_create(f->ctx, f->model, &options, &made, &f->error),
                     QN_INVALID_ARGUMENT);
    assert_non_null(strstr(f->error.message, "qn_preprocess_init"));
    assert_null(made);
}

static void quantizing(void **state)
{
    fixture *const f = *state;
    qn_model *made = NULL;
    qn_quantize_options options;
    qn_quantize_options_init(&options);
    REFUSED(f, qn_quantize_options, "qn_quantize_options_init",
            qn_quantize(f->model, f->dataset, only, &made, NULL, &f->error));
    REFUSED(f, qn_preprocess, "qn_preprocess_init",
            (options.stats_preprocess = only,
             qn_quantize(f->model, f->dataset, &options, &made, NULL, &f->error)));
    assert_null(made);
    REFUSED(f, qn_quantize_options, "qn_quantize_options_init",
            qn_stats_collect(f->model, f->dataset, only, NULL, "/tmp/none.stats", &f->error));
    REFUSED(f, qn_stats_options, "qn_stats_options_init",
            qn_stats_collect(f->model, f->dataset, NULL, only, "/tmp/none.stats", &f->error));
    REFUSED(f, qn_mnn_options, "qn_mnn_options_init",
            qn_mnn_quantize(f->ctx, f->path, "/tmp/none.mnn", "none.json", only, &f->error));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contexts_and_limits),
        cmocka_unit_test(models_and_sessions),
        cmocka_unit_test(the_stand_alone_runtime),
        cmocka_unit_test(datasets),
        cmocka_unit_test(quantizing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
