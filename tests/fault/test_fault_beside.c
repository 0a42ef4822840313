/* A model written as two files, weights beside it, while the Nth system call or allocation fails or
 * is the last: both files are the old ones, or both are the new ones, and nothing else is left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "fault/fault_calls.h"
#include "quench/model.h"

#define MODEL QN_SOURCE_DIR "/tests/data/beside.onnx"

static const char OLD_MODEL[] = "the old model", OLD_DATA[] = "the old weights";

typedef struct fixture {
    char folder[64], out[96], data[96];
    file_bytes model, weights; /* what an undisturbed run writes */
} fixture;

static bool is_text(const file_bytes *b, const char *text)
{
    return b->exists && b->count == strlen(text) && memcmp(b->data, text, b->count) == 0;
}

static bool is_same(const file_bytes *a, const file_bytes *b)
{
    return a->exists && b->exists && a->count == b->count &&
           memcmp(a->data, b->data, a->count) == 0;
}

static size_t n_files(const fixture *f)
{
    size_t n = 0;
    DIR *dir = opendir(f->folder);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;)
        n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void remove_all(const fixture *f)
{
    DIR *dir = opendir(f->folder);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        char path[512];
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", f->folder, e->d_name);
        assert_int_equal(unlink(path), 0);
    }
    closedir(dir);
}

/* Loads the model and writes it in two files. */
static qn_status convert(const fixture *f, fault *memory, fault *io, qn_error *error)
{
    qn_limits limits;
    qn_limits_init(&limits);
    limits.model_bytes = 256;
    const qn_allocator allocator = fault_allocator(memory);
    const qn_io table = fault_io(io);
    qn_context_options o;
    qn_context_options_init(&o);
    o.allocator = &allocator;
    o.io = &table;
    o.limits = &limits;
    o.n_threads = 1;
    qn_context *ctx = NULL;
    qn_model *model = NULL;
    qn_status status = qn_context_create(&o, &ctx, error);
    if (status == QN_OK)
        status = qn_model_load(ctx, MODEL, &model, error);
    if (status == QN_OK)
        status = qn_model_save(model, f->out, QN_SAVE_QDQ, NULL, error);
    qn_model_destroy(model);
    qn_context_destroy(ctx);
    if (memory->live != 0)
        fail_msg("%lld allocations are left", (long long)memory->live);
    return status;
}

static int make_fixture(void **state)
{
    static fixture f;
    fault memory = {0}, io = {0};
    qn_error error = {0};
    strcpy(f.folder, "/tmp/quench-beside-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    snprintf(f.out, sizeof(f.out), "%s/out.onnx", f.folder);
    snprintf(f.data, sizeof(f.data), "%s/out.onnx.data", f.folder);
    if (convert(&f, &memory, &io, &error) != QN_OK)
        fail_msg("%s", error.message);
    read_if_there(f.out, &f.model);
    read_if_there(f.data, &f.weights);
    assert_true(f.model.exists && f.weights.exists && f.weights.count >= 1024);
    assert_int_equal(n_files(&f), 2);
    *state = &f;
    return 0;
}

static int free_fixture(void **state)
{
    const fixture *f = *state;
    remove_all(f);
    return rmdir(f->folder);
}

static void old_files(const fixture *f, bool exist)
{
    remove_all(f);
    if (exist) {
        write_file(f->out, OLD_MODEL, strlen(OLD_MODEL));
        write_file(f->data, OLD_DATA, strlen(OLD_DATA));
    }
}

/* Both old, or both new. */
static void check_pair(const fixture *f, bool existed, bool written, uint64_t call)
{
    static file_bytes model, data;
    read_if_there(f->out, &model);
    read_if_there(f->data, &data);
    const bool old = existed ? is_text(&model, OLD_MODEL) && is_text(&data, OLD_DATA)
                             : !model.exists && !data.exists;
    const bool now = is_same(&model, &f->model) && is_same(&data, &f->weights);
    if (!(written ? now : old || now))
        fail_msg("call %llu: the files do not belong together", (unsigned long long)call);
    if (n_files(f) != (old && !existed ? 0 : 2))
        fail_msg("call %llu: %zu files are left", (unsigned long long)call, n_files(f));
}

static void sweep(const fixture *f, bool fail_io, int error_number, bool existed)
{
    for (uint64_t n = 1;; n++) {
        fault memory = {0}, io = {0};
        fault *const failing = fail_io ? &io : &memory;
        qn_error error = {0};
        failing->fail_at = n;
        failing->error_number = error_number;
        old_files(f, existed);
        const qn_status status = convert(f, &memory, &io, &error);
        check_pair(f, existed, status == QN_OK, n);
        if (status != QN_OK && (error.message[0] == '\0' || strchr(error.message, '\n') != NULL))
            fail_msg("call %llu fails without a line of reason", (unsigned long long)n);
        if (failing->calls < n) {
            assert_int_equal(status, QN_OK);
            break;
        }
    }
}

static void test_every_system_call(void **state)
{
    for (int existed = 0; existed < 2; existed++) {
        sweep(*state, true, 0, existed != 0);
        sweep(*state, true, EINTR, existed != 0);
        sweep(*state, true, ENOSPC, existed != 0);
    }
}

static void test_every_allocation(void **state)
{
    sweep(*state, false, 0, true);
}

/* Killed at a system call: the model that is there finds weights that were written for it, except
 * between the renames, where the old weights are still in the folder under another name. */
static void test_killed(void **state)
{
    const fixture *f = *state;
    static file_bytes model, data;
    size_t torn = 0;
    for (uint64_t n = 1;; n++) {
        old_files(f, true);
        fflush(NULL);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            fault memory = {0}, io = {.fail_at = n, .kills = true};
            qn_error error = {0};
            _exit(convert(f, &memory, &io, &error) == QN_OK ? 0 : 1);
        }
        int result;
        assert_int_equal(waitpid(child, &result, 0), child);
        read_if_there(f->out, &model);
        read_if_there(f->data, &data);
        const bool new_model = is_same(&model, &f->model), new_data = is_same(&data, &f->weights);
        assert_true(new_model || is_text(&model, OLD_MODEL));
        if (new_model)
            assert_true(new_data); /* the model is placed last */
        else if (!is_text(&data, OLD_DATA))
            torn++;
        if (WIFEXITED(result)) {
            assert_true(new_model);
            break;
        }
        assert_true(WIFSIGNALED(result) && WTERMSIG(result) == SIGKILL);
    }
    assert_true(torn <= 2); /* before the second and before the third rename */
}

/* Weights are never written through a link out of the folder, nor over anything but a file. */
static void test_places(void **state)
{
    const fixture *f = *state;
    fault memory = {0}, io = {0};
    qn_error error = {0};
    char elsewhere[128];
    snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", f->folder);
    old_files(f, false);
    write_file(elsewhere, OLD_DATA, strlen(OLD_DATA));
    assert_int_equal(symlink("elsewhere", f->data), 0);
    assert_int_equal(convert(f, &memory, &io, &error), QN_UNSAFE_PATH);
    assert_int_equal(unlink(f->data), 0);
    assert_int_equal(mkfifo(f->data, 0600), 0);
    assert_int_equal(convert(f, &memory, &io, &error), QN_UNSAFE_PATH);
    static file_bytes data;
    read_if_there(elsewhere, &data);
    assert_true(is_text(&data, OLD_DATA));
    assert_int_equal(n_files(f), 2);
    assert_int_equal(unlink(f->data), 0);
    assert_int_equal(mkdir(f->data, 0700), 0);
    assert_int_equal(convert(f, &memory, &io, &error), QN_UNSAFE_PATH);
    assert_int_equal(rmdir(f->data), 0);
}

/* A model read from two files cannot replace its own weights while they are still wanted. */
static void test_own_weights(void **state)
{
    const fixture *f = *state;
    fault memory = {0}, io = {0};
    qn_error error = {0};
    qn_limits limits;
    qn_context_options o;
    qn_context *ctx = NULL;
    qn_model *model = NULL;
    char copy[128], copy_data[160];
    old_files(f, false);
    assert_int_equal(convert(f, &memory, &io, &error), QN_OK);
    qn_limits_init(&limits);
    limits.model_bytes = 256;
    qn_context_options_init(&o);
    o.limits = &limits;
    assert_int_equal(qn_context_create(&o, &ctx, &error), QN_OK);
    assert_int_equal(qn_model_load(ctx, f->out, &model, &error), QN_OK);
    assert_int_equal(qn_model_save(model, f->out, QN_SAVE_QDQ, NULL, &error), QN_INVALID_ARGUMENT);
    /* under another name it is the same model */
    snprintf(copy, sizeof(copy), "%s/copy.onnx", f->folder);
    assert_int_equal(qn_model_save(model, copy, QN_SAVE_QDQ, NULL, &error), QN_OK);
    static file_bytes now;
    snprintf(copy_data, sizeof(copy_data), "%s.data", copy);
    read_if_there(copy_data, &now);
    assert_true(is_same(&now, &f->weights));
    qn_model_destroy(model);
    qn_context_destroy(ctx);
    remove_all(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_system_call),
        cmocka_unit_test(test_every_allocation),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_own_weights),
    };
    return cmocka_run_group_tests(tests, make_fixture, free_fixture);
}
