/* Collecting statistics, merging them and quantizing from them while the Nth allocation or system
 * call fails. Every failure comes back as a status; the same call with `resume` then goes on and
 * gives the same bytes; nothing leaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "fault/fault_calls.h"
#include "quench/quantize.h"
#include "small_mnn.h"

enum { TRIED = 60, N_ROWS = 3, ROW = 3 * 24 * 32 };

static char folder[64], model_path[128], data_path[128], stats_path[128], merged_path[128],
    partial_path[160], out_path[128];
static file_bytes expected_stats, expected_model, now;

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static int prepare(void **state)
{
    static float rows[N_ROWS * ROW];
    qn_context *ctx = NULL;
    (void)state;
    strcpy(folder, "/tmp/quench-stats-XXXXXX");
    if (mkdtemp(folder) == NULL || qn_context_create(NULL, &ctx, NULL) != QN_OK)
        return -1;
    snprintf(model_path, sizeof(model_path), "%s/m.mnn", folder);
    snprintf(data_path, sizeof(data_path), "%s/x.bin", folder);
    snprintf(stats_path, sizeof(stats_path), "%s/s.stats", folder);
    snprintf(partial_path, sizeof(partial_path), "%s/s.stats.partial", folder);
    snprintf(merged_path, sizeof(merged_path), "%s/m.stats", folder);
    snprintf(out_path, sizeof(out_path), "%s/q.mnn", folder);
    for (size_t i = 0; i < N_ROWS * ROW; i++)
        rows[i] = (float)((i * 2654435761u >> 7) % 1000) / 250.0f - 2;
    write_file(data_path, rows, sizeof(rows));
    uint8_t *model = NULL;
    size_t size = 0;
    if (small_mnn_bytes(ctx, 3, 24, 32, "NCHW", &model, &size, NULL) != QN_OK)
        return -1;
    write_file(model_path, model, size);
    qn__free(ctx, model);
    qn_context_destroy(ctx);
    return 0;
}

typedef struct run {
    qn_context *ctx;
    qn_model *model;
    qn_dataset *dataset;
    fault memory, io;
} run;

static void start(run *r)
{
    qn_error error = {0};
    qn_context_options options;
    qn_dataset_options data;
    qn_context_options_init(&options);
    qn_dataset_options_init(&data);
    const qn_allocator allocator = fault_allocator(&r->memory);
    const qn_io io = fault_io(&r->io);
    options.allocator = &allocator;
    options.io = &io;
    options.n_threads = 1;
    data.data_file = data_path;
    data.raw_type = "f32";
    assert_int_equal(qn_context_create(&options, &r->ctx, &error), QN_OK);
    assert_int_equal(qn_model_load(r->ctx, model_path, &r->model, &error), QN_OK);
    if (qn_dataset_create(r->ctx, r->model, &data, &r->dataset, &error) != QN_OK)
        fail_msg("%s", error.message);
    r->memory.calls = r->io.calls = 0;
}

static void stop(run *r)
{
    qn_dataset_destroy(r->dataset);
    qn_model_destroy(r->model);
    qn_context_destroy(r->ctx);
    assert_int_equal(r->memory.live, 0);
}

/* Collect, merge (of one), quantize. */
static qn_status perform(run *r, bool resume, qn_error *error)
{
    qn_stats_options how;
    qn_quantize_options o;
    qn_model *quantized = NULL;
    const char *paths[] = {stats_path};
    qn_stats_options_init(&how);
    qn_quantize_options_init(&o);
    how.resume = resume;
    qn_status status = qn_stats_collect(r->model, r->dataset, &o, &how, stats_path, error);
    if (status == QN_OK)
        status = qn_stats_merge(r->ctx, paths, 1, merged_path, error);
    o.stats_file = merged_path;
    if (status == QN_OK)
        status = qn_quantize(r->model, NULL, &o, &quantized, NULL, error);
    if (status == QN_OK)
        status = qn_model_save(quantized, out_path, QN_SAVE_QDQ, NULL, error);
    qn_model_destroy(quantized);
    return status;
}

static void check(const char *path, const file_bytes *expected)
{
    read_file(path, &now);
    assert_int_equal(now.count, expected->count);
    assert_memory_equal(now.data, expected->data, now.count);
}

static void clean(void)
{
    const char *const paths[] = {stats_path, partial_path, merged_path, out_path};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        unlink(paths[i]);
}

static uint64_t undisturbed(bool of_io)
{
    run r = {.ctx = NULL};
    qn_error error = {0};
    clean();
    start(&r);
    if (perform(&r, false, &error) != QN_OK)
        fail_msg("%s", error.message);
    const uint64_t calls = of_io ? r.io.calls : r.memory.calls;
    stop(&r);
    read_file(merged_path, &expected_stats);
    read_file(out_path, &expected_model);
    assert_false(exists(partial_path));
    return calls;
}

static void sweep(bool of_io)
{
    const uint64_t calls = undisturbed(of_io), stride = calls / TRIED + 1;
    for (uint64_t n = 1; n <= calls; n += stride) {
        run r = {.ctx = NULL};
        qn_error error = {0};
        clean();
        start(&r);
        fault *f = of_io ? &r.io : &r.memory;
        f->fail_at = n;
        const qn_status status = perform(&r, false, &error);
        f->fail_at = 0;
        if (status != QN_OK && status != (of_io ? QN_IO : QN_NO_MEMORY))
            fail_msg("call %llu: %s", (unsigned long long)n, error.message);
        if (status != QN_OK && perform(&r, true, &error) != QN_OK)
            fail_msg("call %llu, then resumed: %s", (unsigned long long)n, error.message);
        stop(&r);
        check(merged_path, &expected_stats);
        check(out_path, &expected_model);
    }
}

static void test_allocations(void **state)
{
    (void)state;
    sweep(false);
}

static void test_system_calls(void **state)
{
    (void)state;
    sweep(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allocations),
        cmocka_unit_test(test_system_calls),
    };
    const int failed = cmocka_run_group_tests_name("fault_stats", tests, prepare, NULL);
    clean();
    unlink(model_path);
    unlink(data_path);
    rmdir(folder);
    return failed;
}
