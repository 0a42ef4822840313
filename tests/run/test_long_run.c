/* Thousands of models loaded, run and destroyed in one process, refused ones among them: memory and
 * descriptors stay as they were. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "quench/model.h"

enum { WARM_UP = 200, CYCLES = 10000, AT_ONCE = 1000, VALUES = 1024, MOST_GROWTH_KIB = 1024 };

static const char MODEL[] = QN_SOURCE_DIR "/tests/data/fault.onnx";
static const char *const MODELS[] = {MODEL, QN_SOURCE_DIR "/tests/data/beside.onnx",
                                     QN_SOURCE_DIR "/tests/data/quantized.onnx",
                                     QN_SOURCE_DIR "/tests/data/nested.onnx"};
static const char NOT_A_MODEL[] = QN_SOURCE_DIR "/tests/data/files/rows.npy";

static size_t count_descriptors(void)
{
    size_t count = 0;
    DIR *const folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

static long resident_kib(void)
{
    long pages = 0, resident = 0;
    FILE *const file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld %ld", &pages, &resident), 2);
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void cycle(const qn_context *ctx)
{
    static float zeros[VALUES];
    qn_model *model = NULL, *none = NULL;
    qn_session *session = NULL;
    qn_error error = {0};
    const float *input = zeros;
    assert_int_equal(qn_model_load(ctx, MODEL, &model, &error), QN_OK);
    assert_int_equal(qn_session_create(model, NULL, &session, &error), QN_OK);
    assert_int_equal(qn_session_run(session, &input, &error), QN_OK);
    qn_session_destroy(session);
    qn_model_destroy(model);
    assert_int_not_equal(qn_model_load(ctx, NOT_A_MODEL, &none, &error), QN_OK);
    assert_null(none);
}

static void nothing_grows(void **state)
{
    (void)state;
    qn_context *ctx = NULL;
    assert_int_equal(qn_context_create(NULL, &ctx, NULL), QN_OK);
    for (int i = 0; i < WARM_UP; i++)
        cycle(ctx);
    const size_t descriptors = count_descriptors();
    const long before = resident_kib();
    for (int i = 0; i < CYCLES; i++)
        cycle(ctx);
    const long growth = resident_kib() - before;
    assert_int_equal(count_descriptors(), descriptors);
#ifndef __SANITIZE_ADDRESS__ /* keeps what was freed for a while */
    if (growth >= MOST_GROWTH_KIB)
        fail_msg("%ld KiB more after %d models", growth, CYCLES);
#else
    (void)growth;
#endif
    qn_context_destroy(ctx);
}

/* All at once, the first of each four with a session; destroyed in another order. */
static void many(const qn_context *ctx, size_t descriptors)
{
    static qn_model *models[AT_ONCE];
    static qn_session *sessions[AT_ONCE];
    static float zeros[VALUES];
    const float *input = zeros;
    qn_error error = {0};
    for (size_t i = 0; i < AT_ONCE; i++) {
        if (qn_model_load(ctx, MODELS[i % 4], &models[i], &error) != QN_OK)
            fail_msg("%s", error.message);
        sessions[i] = NULL;
        if (i % 4 == 0)
            assert_int_equal(qn_session_create(models[i], NULL, &sessions[i], &error), QN_OK);
    }
    assert_int_equal(count_descriptors(), descriptors);
    for (size_t i = 0; i < AT_ONCE; i += 4)
        assert_int_equal(qn_session_run(sessions[i], &input, &error), QN_OK);
    for (size_t i = 0; i < AT_ONCE; i++) {
        const size_t at = i * 7 % AT_ONCE;
        qn_session_destroy(sessions[at]);
        qn_model_destroy(models[at]);
    }
}

static void a_thousand_models_at_once(void **state)
{
    (void)state;
    qn_context *ctx = NULL;
    assert_int_equal(qn_context_create(NULL, &ctx, NULL), QN_OK);
    const size_t descriptors = count_descriptors();
    for (int i = 0; i < 20; i++) /* until malloc has cut its heap into such pieces */
        many(ctx, descriptors);
    const long before = resident_kib();
    for (int i = 0; i < 3; i++)
        many(ctx, descriptors);
    const long growth = resident_kib() - before;
    assert_int_equal(count_descriptors(), descriptors);
#ifndef __SANITIZE_ADDRESS__
    if (growth >= MOST_GROWTH_KIB)
        fail_msg("%ld KiB more after three times %d models", growth, AT_ONCE);
#else
    (void)growth;
#endif
    qn_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_grows),
                                       cmocka_unit_test(a_thousand_models_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
