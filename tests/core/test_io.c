/* Files: reading, and writing that is atomic whatever fails. */
#include "core/io.h"
#include "fault/fault.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct folder {
    char path[64];
    char file[96];
} folder;

static int make_folder(void **state)
{
    folder *f = test_calloc(1, sizeof *f);
    strcpy(f->path, "/tmp/quench-io-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    snprintf(f->file, sizeof f->file, "%s/out.bin", f->path);
    *state = f;
    return 0;
}

static int remove_folder(void **state)
{
    folder *f = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", f->path);
    const int code = system(command);
    test_free(f);
    return code;
}

static size_t count_files(const char *path)
{
    DIR *dir = opendir(path);
    assert_non_null(dir);
    size_t n = 0;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void write_plain(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void assert_content(const char *path, const char *text)
{
    char buffer[256] = "";
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    const size_t n = fread(buffer, 1, sizeof buffer - 1, file);
    fclose(file);
    assert_int_equal(n, strlen(text));
    assert_string_equal(buffer, text);
}

static qn_context *context_with(const qn_io *io, const qn_limits *limits)
{
    qn_context_options options;
    qn_context_options_init(&options);
    options.io = io;
    options.limits = limits;
    options.n_threads = 1;
    qn_context *ctx = NULL;
    assert_int_equal(qn_context_create(&options, &ctx, NULL), QN_OK);
    return ctx;
}

static void a_file_is_written_whole_and_read_back(void **state)
{
    folder *f = *state;
    qn_context *ctx = context_with(NULL, NULL);
    static uint8_t big[300000];
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (uint8_t)(i * 31 >> 3);
    assert_int_equal(qn__file_write_all(ctx, f->file, big, sizeof big, NULL), QN_OK);
    qn_file_view view;
    assert_int_equal(qn__file_open(ctx, f->file, &view, NULL), QN_OK);
    assert_int_equal(view.size_bytes, sizeof big);
    assert_memory_equal(view.data, big, sizeof big);
    qn__file_close(ctx, &view);
    assert_int_equal(count_files(f->path), 1);
    qn_context_destroy(ctx);
}

static void what_is_no_plain_file_is_refused_by_name(void **state)
{
    folder *f = *state;
    qn_context *ctx = context_with(NULL, NULL);
    qn_file_view view;
    qn_error error;
    assert_int_equal(qn__file_open(ctx, f->file, &view, &error), QN_IO);
    assert_non_null(strstr(error.message, f->file));
    assert_int_equal(qn__file_open(ctx, f->path, &view, &error), QN_IO);
    assert_non_null(strstr(error.message, "not a regular file"));
    assert_int_equal(mkfifo(f->file, 0600), 0);
    assert_int_equal(qn__file_open(ctx, f->file, &view, &error), QN_IO);
    assert_int_equal(qn__file_write_all(ctx, f->file, "x", 1, &error), QN_IO);
    assert_int_equal(qn__file_write_all(ctx, f->path, "x", 1, &error), QN_IO);
    assert_int_equal(qn__file_write_all(ctx, "/nonexistent/x", "x", 1, &error), QN_IO);
    qn_context_destroy(ctx);
}

static void a_file_above_the_limit_is_refused(void **state)
{
    folder *f = *state;
    qn_limits limits;
    qn_limits_init(&limits);
    limits.file_bytes = 4;
    qn_context *ctx = context_with(NULL, &limits);
    write_plain(f->file, "12345");
    qn_file_view view;
    qn_error error;
    assert_int_equal(qn__file_open(ctx, f->file, &view, &error), QN_LIMIT);
    qn_context_destroy(ctx);
}

static void a_link_is_followed_and_stays_a_link(void **state)
{
    folder *f = *state;
    qn_context *ctx = context_with(NULL, NULL);
    char link_path[112];
    snprintf(link_path, sizeof link_path, "%s/link", f->path);
    write_plain(f->file, "old");
    assert_int_equal(symlink("out.bin", link_path), 0);
    assert_int_equal(qn__file_write_all(ctx, link_path, "new", 3, NULL), QN_OK);
    struct stat info;
    assert_int_equal(lstat(link_path, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_content(f->file, "new");
    qn_context_destroy(ctx);
}

static void every_failing_call_leaves_the_old_file(void **state)
{
    folder *f = *state;
    const int numbers[] = {EIO, ENOSPC, EMFILE};
    for (size_t e = 0; e < 3; e++) {
        for (int persistent = 0; persistent < 2; persistent++) {
            bool failed = true;
            for (uint64_t n = 1; failed; n++) {
                assert_true(n < 100);
                fault bad = {.fail_at = n, .persistent = persistent, .error_number = numbers[e]};
                const qn_io io = fault_io(&bad);
                qn_context *ctx = context_with(&io, NULL);
                write_plain(f->file, "old");
                qn_error error;
                const qn_status status = qn__file_write_all(ctx, f->file, "new!", 4, &error);
                failed = bad.calls >= n;
                if (status == QN_OK) {
                    assert_content(f->file, "new!");
                } else {
                    assert_int_equal(status, QN_IO);
                    /* only the folder's own sync comes after the rename */
                    assert_content(f->file,
                                   strstr(error.message, "synced") != NULL ? "new!" : "old");
                }
                assert_int_equal(count_files(f->path), 1);
                qn_context_destroy(ctx);
            }
        }
    }
}

static void every_failing_call_of_a_read_is_reported(void **state)
{
    folder *f = *state;
    write_plain(f->file, "content");
    bool failed = true;
    for (uint64_t n = 1; failed; n++) {
        fault bad = {.fail_at = n, .persistent = true, .error_number = EIO};
        const qn_io io = fault_io(&bad);
        qn_context *ctx = context_with(&io, NULL);
        qn_file_view view;
        const qn_status status = qn__file_open(ctx, f->file, &view, NULL);
        failed = bad.calls >= n;
        if (status == QN_OK) {
            assert_memory_equal(view.data, "content", 7);
            qn__file_close(ctx, &view);
        } else {
            assert_int_equal(status, QN_IO);
        }
        qn_context_destroy(ctx);
    }
}

/* The process dies at the Nth call. */
typedef struct killer {
    qn_io io;
    int left;
} killer;

static void die_at_zero(killer *k)
{
    if (k->left-- == 0)
        (void)raise(SIGKILL);
}

static int64_t killer_write(void *ctx, int fd, const void *buf, size_t size_bytes)
{
    killer *k = ctx;
    die_at_zero(k);
    return k->io.write(k->io.ctx, fd, buf, size_bytes);
}

static int killer_fsync(void *ctx, int fd)
{
    killer *k = ctx;
    die_at_zero(k);
    return k->io.fsync(k->io.ctx, fd);
}

static int killer_rename(void *ctx, const char *from, const char *to)
{
    killer *k = ctx;
    die_at_zero(k);
    return k->io.rename(k->io.ctx, from, to);
}

static int killer_open(void *ctx, const char *path, int flags, int mode)
{
    killer *k = ctx;
    return k->io.open(k->io.ctx, path, flags, mode);
}

static int killer_close(void *ctx, int fd)
{
    killer *k = ctx;
    die_at_zero(k);
    return k->io.close(k->io.ctx, fd);
}

static void a_killed_writer_leaves_old_or_new(void **state)
{
    folder *f = *state;
    static char new_text[200001];
    memset(new_text, 'n', sizeof new_text - 1);
    bool finished = false;
    for (int ordinal = 0; !finished; ordinal++) {
        assert_true(ordinal < 50);
        write_plain(f->file, "old");
        const pid_t child = fork();
        if (child == 0) {
            killer k = {.left = ordinal};
            qn_io_init(&k.io);
            qn_io io = k.io;
            io.ctx = &k;
            io.write = killer_write;
            io.fsync = killer_fsync;
            io.rename = killer_rename;
            io.open = killer_open;
            io.close = killer_close;
            qn_context *ctx = context_with(&io, NULL);
            qn__file_write_all(ctx, f->file, new_text, sizeof new_text - 1, NULL);
            qn_context_destroy(ctx);
            _exit(0);
        }
        int code = 0;
        assert_int_equal(waitpid(child, &code, 0), child);
        finished = WIFEXITED(code); /* what it leaks is its status under valgrind */
        struct stat info;
        assert_int_equal(stat(f->file, &info), 0);
        if (info.st_size == 3)
            assert_content(f->file, "old");
        else
            assert_int_equal(info.st_size, sizeof new_text - 1);
        if (finished)
            assert_int_equal(info.st_size, sizeof new_text - 1);
    }
}

int main(void)
{
#define IN_FOLDER(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_file_is_written_whole_and_read_back),
        IN_FOLDER(what_is_no_plain_file_is_refused_by_name),
        IN_FOLDER(a_file_above_the_limit_is_refused),
        IN_FOLDER(a_link_is_followed_and_stays_a_link),
        IN_FOLDER(every_failing_call_leaves_the_old_file),
        IN_FOLDER(every_failing_call_of_a_read_is_reported),
        IN_FOLDER(a_killed_writer_leaves_old_or_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
