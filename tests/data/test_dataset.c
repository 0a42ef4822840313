/* Datasets: sources, lists, labels, selection, geometry, arrays. */
#include "data/data_fixture.h"

#include "data/lists.h"
#include "data/paths.h"

static const qn_input_spec picture_spec = {"x", 4, {1, 3, 9, 13}};

static qn_status create(data_fixture *f, const qn_input_spec *spec, const qn_dataset_options *o,
                        qn_dataset **out)
{
    *out = NULL;
    return qn__dataset_create(f->ctx, spec, 1, o, out, &f->error);
}

/* A folder of n pictures p00.ppm, p01.ppm..., each of one colour: 10 * i. */
static void make_pictures(data_fixture *f, int n)
{
    for (int i = 0; i < n; i++) {
        char name[16], data[64];
        snprintf(name, sizeof(name), "p%02d.ppm", i);
        const int length = snprintf(data, sizeof(data), "P3 2 2 255\n");
        char *p = data + length;
        for (int k = 0; k < 12; k++)
            p += sprintf(p, "%d ", 10 * i);
        make_text(f, name, data);
    }
}

static void assert_names(const qn_dataset *dataset, const char *const *names, size_t n)
{
    assert_int_equal(qn_dataset_count(dataset), n);
    for (size_t i = 0; i < n; i++)
        assert_string_equal(qn_dataset_name(dataset, i), names[i]);
}

static qn_dataset_options folder_options(const data_fixture *f)
{
    qn_dataset_options o;
    qn_dataset_options_init(&o);
    o.images_dir = f->folder;
    o.preprocess.n_normal = 1;
    o.preprocess.normal[0] = 1;
    return o;
}

static void folder_is_sorted_and_filtered(void **state)
{
    data_fixture *f = *state;
    make_pictures(f, 3);
    make_text(f, "notes.txt", "no picture");
    make_text(f, ".hidden.ppm", "no picture");
    copy_file(f, FILES "color.jpg", "A.JPG");
    const qn_dataset_options o = folder_options(f);
    qn_dataset *dataset;
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_OK);
    static const char *const names[] = {"A.JPG", "p00.ppm", "p01.ppm", "p02.ppm"};
    assert_names(dataset, names, 4);
    uint32_t rank;
    int64_t dims[QN_MODEL_MAX_RANK];
    assert_true(qn_dataset_dims(dataset, 0, &rank, dims));
    assert_int_equal(rank, 4);
    assert_int_equal(dims[1], 3);
    assert_int_equal(dims[2], 9);
    assert_int_equal(dims[3], 13);
    assert_int_equal(qn_dataset_sample_count(dataset, 0), 3 * 9 * 13);
    qn_dataset_destroy(dataset);
}

static void folder_without_pictures_is_an_error(void **state)
{
    data_fixture *f = *state;
    qn_dataset_options o = folder_options(f);
    qn_dataset *dataset;
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_IO);
    assert_message_has(f, f->folder);
    o.images_dir = "/nowhere/at/all";
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_IO);
    assert_message_has(f, "/nowhere/at/all");
}

static void count_first_and_seed_select(void **state)
{
    data_fixture *f = *state;
    make_pictures(f, 10);
    qn_dataset_options o = folder_options(f);
    qn_dataset *dataset;
    o.count = 4; /* floor(i * 10 / 4) */
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_OK);
    static const char *const spaced[] = {"p00.ppm", "p02.ppm", "p05.ppm", "p07.ppm"};
    assert_names(dataset, spaced, 4);
    qn_dataset_destroy(dataset);
    o.count = 0;
    o.first = 2;
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_OK);
    static const char *const first[] = {"p00.ppm", "p01.ppm"};
    assert_names(dataset, first, 2);
    qn_dataset_destroy(dataset);
    o.count = 2;
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_INVALID_ARGUMENT);
    o.first = 0;
    o.count = 20;
    const size_t before = f->warnings;
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_OK);
    assert_int_equal(qn_dataset_count(dataset), 10);
    assert_int_equal(f->warnings, before + 1);
    qn_dataset_destroy(dataset);
}

/* The documented draw, computed apart: splitmix64(1) begins 910a2dec89025cc1 beeb8da1658eec67
 * f893a2eefb32555e, so of 10 the steps draw 0 + floor(10 * 0.566...) = 5, 1 + floor(9 * 0.745...) =
 * 7 and 2 + floor(8 * 0.971...) = 9. */
static void seeded_draw_is_the_documented_one(void **state)
{
    data_fixture *f = *state;
    size_t indices[10];
    assert_int_equal(qn__select_samples(f->ctx, 10, 3, true, 1, indices, &f->error), QN_OK);
    assert_int_equal(indices[0], 5);
    assert_int_equal(indices[1], 7);
    assert_int_equal(indices[2], 9);
    assert_int_equal(qn__select_samples(f->ctx, 10, 10, true, 99, indices, &f->error), QN_OK);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(indices[i], i);
}

static void saved_list_can_be_listed_and_excluded(void **state)
{
    data_fixture *f = *state;
    make_pictures(f, 5);
    char list[160], folder[128];
    snprintf(folder, sizeof(folder), "%s/lists", f->folder);
    char command[160];
    snprintf(command, sizeof(command), "mkdir %s", folder);
    assert_int_equal(system(command), 0);
    snprintf(list, sizeof(list), "%s/picked.txt", folder);
    qn_dataset_options o = folder_options(f);
    qn_dataset *dataset;
    o.count = 2;
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_OK);
    assert_int_equal(qn_dataset_save_list(dataset, list, &f->error), QN_OK);
    qn_dataset_destroy(dataset);

    o.count = 0;
    o.exclude_file = list;
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_OK);
    static const char *const rest[] = {"p01.ppm", "p03.ppm", "p04.ppm"};
    assert_names(dataset, rest, 3);
    qn_dataset_destroy(dataset);

    o.exclude_file = NULL;
    o.images_dir = NULL;
    o.list_file = list;
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_OK);
    static const char *const picked[] = {"../p00.ppm", "../p02.ppm"};
    assert_names(dataset, picked, 2);
    float *floats = malloc(qn_dataset_sample_count(dataset, 0) * sizeof(*floats));
    assert_int_equal(qn_dataset_load(dataset, 1, &floats, &f->error), QN_OK);
    assert_true(floats[0] == 20.0f);
    free(floats);
    qn_dataset_destroy(dataset);
}

static void plain_names_exclude_too(void **state)
{
    data_fixture *f = *state;
    make_pictures(f, 3);
    make_text(f, "x.txt", "\xef\xbb\xbfp01.ppm\r\n\r\nmissing.ppm\r\n");
    const char list[] = "x.txt";
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", f->folder, list);
    qn_dataset_options o = folder_options(f);
    o.exclude_file = path;
    qn_dataset *dataset;
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_OK);
    static const char *const rest[] = {"p00.ppm", "p02.ppm"};
    assert_names(dataset, rest, 2);
    assert_non_null(strstr(f->warning, "1 of 2 lines name no sample"));
    qn_dataset_destroy(dataset);
    make_text(f, "x.txt", "p00.ppm\np01.ppm\np02.ppm\n");
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_INVALID_ARGUMENT);
}

static void labels_name_samples_or_join_them(void **state)
{
    data_fixture *f = *state;
    make_pictures(f, 3);
    char csv[128];
    strcpy(csv, make_text(f, "labels.csv",
                          "file,class_index,more\r\n\"p02.ppm\",7,x\r\np00.ppm , 5\r\n"));
    qn_dataset_options o = folder_options(f);
    qn_dataset *dataset;
    o.labels_file = csv;
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_OK);
    assert_int_equal(qn_dataset_count(dataset), 3);
    assert_int_equal(qn_dataset_label(dataset, 0), 5);
    assert_int_equal(qn_dataset_label(dataset, 1), -1);
    assert_int_equal(qn_dataset_label(dataset, 2), 7);
    qn_dataset_destroy(dataset);
    o.images_dir = NULL;
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_OK);
    static const char *const names[] = {"p00.ppm", "p02.ppm"};
    assert_names(dataset, names, 2);
    assert_int_equal(qn_dataset_label(dataset, 1), 7);
    qn_dataset_destroy(dataset);
}

static void broken_labels_name_the_line(void **state)
{
    data_fixture *f = *state;
    static const char *const cases[][2] = {
        {"file,class\np00.ppm,1\np01.ppm,cat\n", "line 3"},
        {"p00.ppm,1\np00.ppm,2\n", "lines 1 and 2"},
        {"p00.ppm\n", "one column"},
        {"\"p00.ppm,1\n", "quote"},
        {"p00.ppm,99999999999999999999\np00.ppm,x\n", "line 2"},
        {"a,1\n,2\n", "empty name"},
    };
    make_pictures(f, 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char csv[128];
        qn_dataset_options o = folder_options(f);
        qn_dataset *dataset;
        strcpy(csv, make_text(f, "labels.csv", cases[i][0]));
        o.labels_file = csv;
        assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_CORRUPT);
        assert_message_has(f, cases[i][1]);
        assert_message_has(f, "labels.csv");
    }
}

static void bad_pictures_fail_or_are_skipped(void **state)
{
    data_fixture *f = *state;
    make_pictures(f, 4);
    make_text(f, "p01.ppm", "P3 2 2 255\n1 2 3");
    qn_dataset_options o = folder_options(f);
    qn_dataset *dataset;
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_OK);
    float *floats = malloc(qn_dataset_sample_count(dataset, 0) * sizeof(*floats));
    assert_int_equal(qn_dataset_load(dataset, 1, &floats, &f->error), QN_CORRUPT);
    assert_message_has(f, "p01.ppm");
    free(floats);
    qn_dataset_destroy(dataset);
    o.skip_bad = true;
    const size_t before = f->warnings;
    assert_int_equal(create(f, &picture_spec, &o, &dataset), QN_OK);
    static const char *const rest[] = {"p00.ppm", "p02.ppm", "p03.ppm"};
    assert_names(dataset, rest, 3);
    assert_int_equal(qn_dataset_n_skipped(dataset), 1);
    assert_int_equal(f->warnings, before + 1);
    assert_non_null(strstr(f->warning, "p01.ppm"));
    qn_dataset_destroy(dataset);
}

/* One row of 8 pixels with values 0 10 .. 70: the crop keeps the middle. */
static void crop_is_centred_and_values_are_scaled(void **state)
{
    data_fixture *f = *state;
    make_text(f, "row.ppm",
              "P3 8 1 255\n0 1 2 10 11 12 20 21 22 30 31 32 40 41 42 50 51 52 60 61 62 70 71 72");
    const qn_input_spec spec = {"x", 4, {-1, 3, 1, 3}};
    qn_dataset_options o = folder_options(f);
    o.preprocess.crop_width = 3;
    o.preprocess.crop_height = 1;
    o.preprocess.channels = QN_CHANNELS_BGR;
    o.preprocess.n_mean = 3;
    o.preprocess.mean[0] = 1; /* of blue */
    o.preprocess.mean[2] = 4;
    o.preprocess.normal[0] = 0.5f;
    qn_dataset *dataset;
    float floats[9], *dst[] = {floats};
    assert_int_equal(create(f, &spec, &o, &dataset), QN_OK);
    assert_int_equal(qn_dataset_load(dataset, 0, dst, &f->error), QN_OK);
    static const float wanted[] = {10.5f, 15.5f, 20.5f, 10.5f, 15.5f, 20.5f, 8, 13, 18};
    assert_memory_equal(floats, wanted, sizeof(wanted));
    qn_dataset_destroy(dataset);
    o.preprocess.crop_height = 2;
    const qn_input_spec tall = {"x", 4, {-1, 3, 2, 3}};
    assert_int_equal(create(f, &tall, &o, &dataset), QN_OK);
    assert_int_equal(qn_dataset_load(dataset, 0, dst, &f->error), QN_INVALID_ARGUMENT);
    assert_message_has(f, "row.ppm");
    qn_dataset_destroy(dataset);
}

static void letterbox_pads_with_114(void **state)
{
    data_fixture *f = *state;
    make_text(f, "wide.pgm", "P2 4 2 255\n9 9 9 9 9 9 9 9");
    const qn_input_spec spec = {"x", 4, {1, 4, 4, 1}}; /* NHWC */
    qn_dataset_options o = folder_options(f);
    o.preprocess.letterbox_width = 4;
    o.preprocess.letterbox_height = 4;
    qn_dataset *dataset;
    float floats[16], *dst[] = {floats};
    assert_int_equal(create(f, &spec, &o, &dataset), QN_OK);
    assert_int_equal(qn_dataset_load(dataset, 0, dst, &f->error), QN_OK);
    for (size_t i = 0; i < 16; i++)
        assert_true(floats[i] == (i < 4 || i >= 12 ? 114.0f : 9.0f));
    qn_dataset_destroy(dataset);
}

static void impossible_preprocessing_names_the_option(void **state)
{
    data_fixture *f = *state;
    make_pictures(f, 1);
    const qn_input_spec fixed = {"x", 4, {1, 3, 9, 13}}, open = {"x", 4, {-1, 3, -1, -1}};
    const qn_input_spec odd = {"x", 4, {1, 5, 9, 13}}, flat = {"x", 2, {1, 100}};
    const qn_input_spec gray = {"x", 4, {1, 1, 9, 13}};
    qn_dataset *dataset;
    struct {
        const qn_input_spec *spec;
        qn_preprocess p;
        const char *message;
    } cases[] = {
        {&open, {0}, "--resize"},
        {&fixed, {.resize_shorter = 20}, "--crop"},
        {&fixed, {.resize_width = 8, .resize_height = 8}, "takes 13 x 9"},
        {&fixed,
         {.letterbox_width = 13, .letterbox_height = 9, .resize_shorter = 9},
         "--letterbox"},
        {&fixed, {.n_mean = 2}, "--mean has 2"},
        {&gray, {.n_normal = 3}, "--normal has 3"},
        {&gray, {.channels = QN_CHANNELS_BGR}, "BGR"},
        {&fixed, {.channels = QN_CHANNELS_GRAY}, "GRAY"},
        {&odd, {0}, "1 or 3 channels"},
        {&flat, {0}, "rank 2"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        qn_dataset_options o = folder_options(f);
        o.preprocess = cases[i].p;
        assert_int_equal(create(f, cases[i].spec, &o, &dataset), QN_INVALID_ARGUMENT);
        assert_message_has(f, cases[i].message);
    }
}

static void arrays_are_read_as_floats(void **state)
{
    data_fixture *f = *state;
    static const char *const names[] = {"rows.npy", "rows_big_endian.npy", "rows_i16.npy"};
    const qn_input_spec specs[] = {{"x", 3, {-1, 2, 3}}, {"x", 2, {2, 3}}, {"x", 4, {1, 1, 6, 1}}};
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < 3; k++) {
            char path[512];
            qn_dataset_options o;
            qn_dataset *dataset;
            float floats[6], *dst[] = {floats};
            snprintf(path, sizeof(path), FILES "%s", names[i]);
            qn_dataset_options_init(&o);
            o.data_file = path;
            assert_int_equal(create(f, &specs[k], &o, &dataset), QN_OK);
            assert_int_equal(qn_dataset_count(dataset), 4);
            assert_int_equal(qn_dataset_load(dataset, 2, dst, &f->error), QN_OK);
            for (int v = 0; v < 6; v++)
                assert_true(floats[v] == (float)(12 + v - 5));
            assert_string_equal(qn_dataset_name(dataset, 2), "row 2");
            qn_dataset_destroy(dataset);
        }
}

static void raw_rows_have_labels_and_lists(void **state)
{
    data_fixture *f = *state;
    int8_t bytes[12];
    char data[128], csv[128], list[128];
    for (int i = 0; i < 12; i++)
        bytes[i] = (int8_t)(i - 6);
    strcpy(data, make_file(f, "rows.i8", bytes, sizeof(bytes)));
    strcpy(csv, make_text(f, "labels.csv", "row,class_index\n2,9\n0,4\n"));
    strcpy(list, make_text(f, "rows.txt", "row 2\nrow 0\n"));
    const qn_input_spec spec = {"x", 3, {-1, 2, 2}};
    qn_dataset_options o;
    qn_dataset *dataset;
    float floats[4], *dst[] = {floats};
    qn_dataset_options_init(&o);
    o.data_file = data;
    o.raw_type = "i8";
    o.raw_shape = "2,2";
    o.labels_file = csv;
    o.list_file = list;
    assert_int_equal(create(f, &spec, &o, &dataset), QN_OK);
    assert_int_equal(qn_dataset_count(dataset), 2);
    assert_int_equal(qn_dataset_label(dataset, 0), 9);
    assert_int_equal(qn_dataset_label(dataset, 1), 4);
    assert_int_equal(qn_dataset_load(dataset, 0, dst, &f->error), QN_OK);
    assert_true(floats[0] == 2.0f && floats[3] == 5.0f);
    uint64_t hash;
    assert_int_equal(qn__dataset_hash(dataset, 0, &hash, &f->error), QN_OK);
    uint64_t wanted = 0xcbf29ce484222325u;
    for (int i = 8; i < 12; i++)
        wanted = (wanted ^ (uint8_t)bytes[i]) * 0x100000001b3u;
    assert_true(hash == wanted);
    qn_dataset_destroy(dataset);

    o.list_file = NULL;
    o.exclude_file = list;
    assert_int_equal(create(f, &spec, &o, &dataset), QN_OK);
    static const char *const rest[] = {"row 1"};
    assert_names(dataset, rest, 1);
    qn_dataset_destroy(dataset);
    o.raw_shape = "5";
    assert_int_equal(create(f, &spec, &o, &dataset), QN_CORRUPT); /* 12 is no multiple of 5 */
    o.raw_type = "i7";
    assert_int_equal(create(f, &spec, &o, &dataset), QN_INVALID_ARGUMENT);
}

static void several_inputs_take_named_files(void **state)
{
    data_fixture *f = *state;
    char text[512];
    const qn_input_spec specs[] = {{"a", 3, {1, 2, 3}}, {"b", 2, {-1, 6}}};
    qn_dataset_options o;
    qn_dataset *dataset;
    float a[6], b[6], *dst[] = {a, b};
    qn_dataset_options_init(&o);
    snprintf(text, sizeof(text), "b=%s,a=%s", FILES "rows.npy", FILES "rows_i16.npy");
    o.data_file = text;
    assert_int_equal(qn__dataset_create(f->ctx, specs, 2, &o, &dataset, &f->error), QN_OK);
    assert_int_equal(qn_dataset_load(dataset, 3, dst, &f->error), QN_OK);
    assert_memory_equal(a, b, sizeof(a));
    assert_true(a[0] == 13.0f);
    qn_dataset_destroy(dataset);
    o.data_file = FILES "rows.npy";
    assert_int_equal(qn__dataset_create(f->ctx, specs, 2, &o, &dataset, &f->error),
                     QN_INVALID_ARGUMENT);
    assert_message_has(f, "\"a\"");
}

static void broken_arrays_are_refused(void **state)
{
    data_fixture *f = *state;
    const qn_input_spec spec = {"x", 3, {-1, 2, 3}};
    qn_dataset_options o;
    qn_dataset *dataset;
    qn_file_view view;
    assert_int_equal(qn__file_open(f->ctx, FILES "rows.npy", &view, &f->error), QN_OK);
    qn_dataset_options_init(&o);
    for (size_t n = 0; n < view.size_bytes; n++) {
        o.data_file = make_file(f, "cut.npy", view.data, n);
        assert_int_equal(create(f, &spec, &o, &dataset), QN_CORRUPT);
    }
    qn__file_close(f->ctx, &view);
    o.data_file = FILES "fortran.npy";
    assert_int_equal(create(f, &spec, &o, &dataset), QN_UNSUPPORTED);
    assert_message_has(f, "Fortran");
    const qn_input_spec other = {"x", 3, {-1, 5, 3}};
    o.data_file = FILES "rows.npy";
    assert_int_equal(create(f, &other, &o, &dataset), QN_INVALID_ARGUMENT);
    assert_message_has(f, "[4,2,3] does not fit input \"x\" [?,5,3]");
    o.preprocess.n_mean = 1;
    assert_int_equal(create(f, &spec, &o, &dataset), QN_INVALID_ARGUMENT);
}

static void paths_are_normalised(void **state)
{
    data_fixture *f = *state;
    static const char *const cases[][3] = {
        {"/a/b", "/a/c/d", "../c/d"}, {"/a/b", "/a/b/c", "c"},    {"/", "/x", "x"},
        {"/a/bc", "/a/b", "../b"},    {"/a/./b/..", "/a/x", "x"}, {"x", "x/y//z", "y/z"},
        {"", "p.jpg", "p.jpg"},       {"/a", "/../../b", "../b"},
    };
    qn_arena arena;
    qn__arena_init(&arena, f->ctx);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(qn__path_relative(&arena, cases[i][0], cases[i][1]), cases[i][2]);
    qn__arena_free(&arena);
}

#define DATA_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        DATA_TEST(folder_is_sorted_and_filtered),
        DATA_TEST(folder_without_pictures_is_an_error),
        DATA_TEST(count_first_and_seed_select),
        DATA_TEST(seeded_draw_is_the_documented_one),
        DATA_TEST(saved_list_can_be_listed_and_excluded),
        DATA_TEST(plain_names_exclude_too),
        DATA_TEST(labels_name_samples_or_join_them),
        DATA_TEST(broken_labels_name_the_line),
        DATA_TEST(bad_pictures_fail_or_are_skipped),
        DATA_TEST(crop_is_centred_and_values_are_scaled),
        DATA_TEST(letterbox_pads_with_114),
        DATA_TEST(impossible_preprocessing_names_the_option),
        DATA_TEST(arrays_are_read_as_floats),
        DATA_TEST(raw_rows_have_labels_and_lists),
        DATA_TEST(several_inputs_take_named_files),
        DATA_TEST(broken_arrays_are_refused),
        DATA_TEST(paths_are_normalised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
