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

enum { WARM_UP = 200, CYCLES = 10000, VALUES = 1024, MOST_GROWTH_KIB = 1024 };

static const char MODEL[] = QN_SOURCE_DIR "/tests/data/fault.onnx";
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_grows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
