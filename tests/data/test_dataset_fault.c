/* A dataset whose Nth allocation or system call fails reports it and leaks nothing. */
#include "data/data_fixture.h"
#include "fault/fault.h"

static qn_status load_all(const qn_dataset *dataset, qn_error *error)
{
    float *floats = malloc(qn_dataset_sample_count(dataset, 0) * sizeof(*floats));
    qn_status status = QN_OK;
    uint64_t hash;
    for (size_t i = 0; i < qn_dataset_count(dataset) && status == QN_OK; i++) {
        status = qn_dataset_load(dataset, i, &floats, error);
        if (status == QN_OK)
            status = qn__dataset_hash(dataset, i, &hash, error);
    }
    free(floats);
    return status;
}

static qn_status scenario(const qn_context *ctx, const char *folder, qn_error *error)
{
    static const qn_input_spec spec = {"x", 4, {1, 3, 6, 5}};
    char csv[160], list[160];
    snprintf(csv, sizeof(csv), "%s/labels.csv", folder);
    snprintf(list, sizeof(list), "%s/list.txt", folder);
    qn_dataset_options o;
    qn_dataset *dataset = NULL;
    qn_dataset_options_init(&o);
    o.images_dir = folder;
    o.labels_file = csv;
    o.count = 3;
    o.use_seed = true;
    o.preprocess.resize_shorter = 7;
    o.preprocess.crop_width = 5;
    o.preprocess.crop_height = 6;
    QN_TRY(qn__dataset_create(ctx, &spec, 1, &o, &dataset, error));
    qn_status status = load_all(dataset, error);
    if (status == QN_OK)
        status = qn_dataset_save_list(dataset, list, error);
    qn_dataset_destroy(dataset);
    if (status != QN_OK)
        return status;
    o.exclude_file = list;
    o.count = 0;
    o.use_seed = false;
    QN_TRY(qn__dataset_create(ctx, &spec, 1, &o, &dataset, error));
    status = load_all(dataset, error);
    qn_dataset_destroy(dataset);
    return status;
}

static qn_status run_with(fault *f, bool fail_io, const char *folder, qn_error *error)
{
    qn_context_options options;
    qn_context *ctx = NULL;
    fault quiet = {0};
    qn_io_init(&quiet.io);
    f->io = quiet.io;
    const qn_allocator allocator = fault_allocator(fail_io ? &quiet : f);
    const qn_io io = fault_io(fail_io ? f : &quiet);
    qn_context_options_init(&options);
    options.allocator = &allocator;
    options.io = &io;
    options.n_threads = 1;
    qn_status status = qn_context_create(&options, &ctx, error);
    if (status == QN_OK)
        status = scenario(ctx, folder, error);
    qn_context_destroy(ctx);
    assert_int_equal(fail_io ? quiet.live : f->live, 0);
    return status;
}

static void prepare(data_fixture *f)
{
    static const char *const names[] = {"color.jpg",   "gray.jpg",   "cmyk.jpg",  "palette.png",
                                        "color24.bmp", "lossy.webp", "plain.pgm", "raw.pbm"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[512];
        snprintf(path, sizeof(path), FILES "%s", names[i]);
        copy_file(f, path, names[i]);
    }
    make_text(f, "labels.csv", "file,class_index\ncolor.jpg,1\ngray.jpg,2\n");
}

static void every_failing_allocation_is_reported(void **state)
{
    data_fixture *f = *state;
    prepare(f);
    for (int persistent = 0; persistent < 2; persistent++)
        for (uint64_t n = 1;; n++) {
            fault failing = {.fail_at = n, .persistent = persistent != 0, .error_number = ENOMEM};
            const qn_status status = run_with(&failing, false, f->folder, &f->error);
            if (failing.calls < n) {
                assert_int_equal(status, QN_OK);
                assert_true(n > 50);
                break;
            }
            if (status != QN_OK && status != QN_NO_MEMORY)
                fail_msg("allocation %llu: %s", (unsigned long long)n, f->error.message);
        }
}

static void every_failing_system_call_is_reported(void **state)
{
    data_fixture *f = *state;
    prepare(f);
    for (uint64_t n = 1;; n++) {
        fault failing = {.fail_at = n, .error_number = EIO};
        const qn_status status = run_with(&failing, true, f->folder, &f->error);
        if (failing.calls < n) {
            assert_int_equal(status, QN_OK);
            assert_true(n > 20);
            break;
        }
        if (status != QN_OK && status != QN_IO)
            fail_msg("call %llu: %s", (unsigned long long)n, f->error.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_failing_allocation_is_reported, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(every_failing_system_call_is_reported, fixture_setup,
                                        fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
