/* Names of data files in a model: only plain names of regular files inside the model's own folder
 * are opened, and the bytes asked for must be there. Every open is counted. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/external_model.h"
#include "format/onnx/onnx_read.h"

enum { DATA_BYTES = 64 };

static char top[] = "/tmp/quench_external_XXXXXX";
static char inside[64], absolute[96];
static qn_io real_io;
static qn_context *ctx;
static unsigned n_opened, n_outside;

static int count_open(void *ignored, const char *path, int flags, int mode)
{
    (void)ignored;
    n_opened++;
    n_outside += strncmp(path, inside, strlen(inside)) != 0 || strstr(path, "/..") != NULL;
    return real_io.open(real_io.ctx, path, flags, mode);
}

static void path_of(char *out, size_t size, const char *folder, const char *name)
{
    assert_true(snprintf(out, size, "%s/%s", folder, name) < (int)size);
}

static void write_file(const char *folder, const char *name)
{
    char path[128];
    path_of(path, sizeof(path), folder, name);
    FILE *const file = fopen(path, "wb");
    assert_non_null(file);
    for (int i = 0; i < DATA_BYTES; i++)
        fputc(i, file);
    assert_int_equal(fclose(file), 0);
}

static void make_folder(const char *folder, const char *name)
{
    char path[128];
    path_of(path, sizeof(path), folder, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void make_link(const char *to, const char *name)
{
    char path[128];
    path_of(path, sizeof(path), inside, name);
    assert_int_equal(symlink(to, path), 0);
}

static int setup(void **state)
{
    (void)state;
    char path[128];
    qn_context_options options;
    if (mkdtemp(top) == NULL)
        return -1;
    path_of(inside, sizeof(inside), top, "model");
    make_folder(top, "model");
    make_folder(top, "models"); /* begins like the model's folder */
    make_folder(inside, "sub");
    write_file(inside, "w.bin");
    write_file(inside, "sub/w.bin");
    write_file(top, "secret");
    write_file(top, "models/w.bin");
    path_of(absolute, sizeof(absolute), top, "secret");
    make_link("w.bin", "link_inside");
    make_link("../secret", "link_outside");
    make_link(absolute, "link_absolute");
    make_link("../models", "folder_outside");
    make_link("nowhere", "link_broken");
    make_link("link_loop", "link_loop");
    make_link("/dev/zero", "link_device");
    path_of(path, sizeof(path), inside, "fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    qn_io_init(&real_io);
    qn_io io = real_io;
    io.open = count_open;
    qn_context_options_init(&options);
    options.io = &io;
    options.n_threads = 1;
    return qn_context_create(&options, &ctx, NULL) == QN_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    static const char *const NAMES[] = {
        "model/link_inside", "model/link_outside", "model/link_absolute", "model/folder_outside",
        "model/link_broken", "model/link_loop",    "model/link_device",   "model/fifo",
        "model/sub/w.bin",   "model/w.bin",        "models/w.bin",        "secret"};
    static const char *const FOLDERS[] = {"model/sub", "model", "models"};
    char path[128];
    qn_context_destroy(ctx);
    for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++) {
        path_of(path, sizeof(path), top, NAMES[i]);
        unlink(path);
    }
    for (size_t i = 0; i < sizeof(FOLDERS) / sizeof(FOLDERS[0]); i++) {
        path_of(path, sizeof(path), top, FOLDERS[i]);
        rmdir(path);
    }
    return rmdir(top);
}

typedef external_entry entry;

static qn_status try(const entry *entries, size_t count, qn_error *error)
{
    qn_graph *graph = NULL;
    char path[128];
    qn_blob *const blob = external_model(ctx, 4, entries, count);
    assert_non_null(blob);
    path_of(path, sizeof(path), inside, "m.onnx");
    const qn_status status = qn__onnx_read(ctx, path, blob, &graph, error);
    qn__blob_unref(blob);
    assert_true((status == QN_OK) == (graph != NULL));
    qn__graph_destroy(graph);
    return status;
}

static void test_files_inside_are_read(void **state)
{
    (void)state;
    static const char *const NAMES[] = {"w.bin", "sub/w.bin", "link_inside", "./w.bin"};
    for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++) {
        qn_error error = {0};
        const entry entries[] = {
            {"location", NAMES[i], 0}, {"offset", "48", 0}, {"length", "16", 0}};
        n_opened = n_outside = 0;
        if (try(entries, 3, &error) != QN_OK)
            fail_msg("%s: %s", NAMES[i], error.message);
        assert_int_equal(n_opened, 1);
        assert_int_equal(n_outside, 0);
    }
}

static void test_other_names_are_refused(void **state)
{
    (void)state;
    static char longest[5001];
    memset(longest, 'a', sizeof(longest) - 1);
    const entry names[] = {
        {"location", absolute, 0},
        {"location", "../secret", 0},
        {"location", "..", 0},
        {"location", "../model/w.bin", 0},
        {"location", "sub/../w.bin", 0},
        {"location", "sub/../../secret", 0},
        {"location", "a/../../secret", 0},
        {"location", "./../secret", 0},
        {"location", "/", 0},
        {"location", "//", 0},
        {"location", "/dev/zero", 0},
        {"location", "/proc/self/environ", 0},
        {"location", "", 0},
        {"location", ".", 0},
        {"location", "sub", 0},
        {"location", "sub/", 0},
        {"location", "sub//w.bin", 0},
        {"location", "w.bin/", 0},
        {"location", "w.bin/..", 0},
        {"location", "w.bin\0secret", 12},
        {"location", "..\\secret", 0},
        {"location", "sub\\w.bin", 0},
        {"location", "C:\\secret", 0},
        {"location", "file:///etc/passwd", 0},
        {"location", "%2e%2e/secret", 0},
        {"location", "..%2fsecret", 0},
        {"location", "~/secret", 0},
        {"location", "$HOME/secret", 0},
        {"location", "link_outside", 0},
        {"location", "link_absolute", 0},
        {"location", "folder_outside/w.bin", 0},
        {"location", "link_broken", 0},
        {"location", "link_loop", 0},
        {"location", "link_device", 0},
        {"location", "fifo", 0},
        {"location", "nowhere", 0},
        {"location", longest, 0},
        {"location", "w.bin\n", 0},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        qn_error error = {0};
        n_opened = n_outside = 0;
        const qn_status status = try(names + i, 1, &error);
        if (status != QN_UNSAFE_PATH && status != QN_CORRUPT && status != QN_IO)
            fail_msg("%.40s: %s: %s", names[i].value, qn_status_name(status), error.message);
        if (n_opened != 0 || n_outside != 0)
            fail_msg("%.40s was opened", names[i].value);
        assert_non_null(strstr(error.message, "m.onnx"));
        assert_null(strchr(error.message, '\n'));
    }
}

static void test_ranges_that_are_not_there(void **state)
{
    (void)state;
    static const struct {
        const char *offset, *length;
    } RANGES[] = {{"0", "15"},
                  {"0", "17"},
                  {"0", "0"},
                  {"49", "16"},
                  {"64", "16"},
                  {"4096", "16"},
                  {"-1", "16"},
                  {"0", "-1"},
                  {"-16", "16"},
                  {"9223372036854775807", "16"},
                  {"18446744073709551608", "16"},
                  {"18446744073709551616", "16"},
                  {"0", "18446744073709551615"},
                  {"1", "9223372036854775807"},
                  {"0x10", "16"},
                  {"1e1", "16"},
                  {" 0", "16"},
                  {"", "16"},
                  {"0", "sixteen"}};
    for (size_t i = 0; i < sizeof(RANGES) / sizeof(RANGES[0]); i++) {
        qn_error error = {0};
        const entry entries[] = {{"location", "w.bin", 0},
                                 {"offset", RANGES[i].offset, 0},
                                 {"length", RANGES[i].length, 0}};
        const qn_status status = try(entries, 3, &error);
        if (status != QN_CORRUPT)
            fail_msg("\"%s\" \"%s\": %s: %s", RANGES[i].offset, RANGES[i].length,
                     qn_status_name(status), error.message);
    }
    assert_int_equal(try(NULL, 0, NULL), QN_CORRUPT); /* outside, nowhere */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_inside_are_read),
        cmocka_unit_test(test_other_names_are_refused),
        cmocka_unit_test(test_ranges_that_are_not_there),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
