/* .mnn files read, quantized and written while the Nth allocation or system call fails. A failure
 * comes back as NO_MEMORY or IO with a message, leaks nothing, leaves what was there, and the same
 * call made again succeeds; a process killed inside a system call leaves whole files.
 *
 * QN_TEST_STRIDE=1 covers every N. */
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
#include "fault/fault_sites.h"
#include "quench/mnn.h"
#include "small_mnn.h"

enum { MAX_OUTPUTS = 2, TRIED = 30 };
static const char OLD[] = "the old output";

typedef struct fixture {
    char folder[64], onnx[128], mnn[128], pictures[128], config[128], out[MAX_OUTPUTS][128];
    file_bytes expected[MAX_OUTPUTS]; /* what an undisturbed run writes */
    uint64_t stride;                  /* 0: about TRIED in each sweep */
    bool none;                        /* no old outputs */
} fixture;

typedef struct scenario {
    const char *name;
    const char *config, *exact;      /* the drop-in's; config NULL: load, (quantize,) save */
    bool from_onnx, to_onnx, target; /* target: quantize for MNN between */
} scenario;

static const scenario scenarios[] = {
    {.name = "mnn to mnn"},
    {.name = "mnn quantized", .target = true},
    {.name = "onnx to mnn", .from_onnx = true},
    {.name = "onnx quantized to mnn", .from_onnx = true, .target = true},
    {.name = "mnn to onnx", .to_onnx = true},
    {.name = "KL", .config = "\"feature_quantize_method\":\"KL\""},
    {.name = "KL, 4 bits, clamps, debug",
     .config = "\"feature_quantize_method\":\"KL\",\"quant_bits\":4,\"feature_clamp_value\":100,"
               "\"debug\":true,\"skip_quant_op_names\":[\"second\"]"},
    {.name = "ADMM",
     .config = "\"feature_quantize_method\":\"ADMM\",\"weight_quantize_method\":\"ADMM\""},
    {.name = "EMA", .config = "\"feature_quantize_method\":\"EMA\",\"batch_size\":2"},
    {.name = "exact KL", .config = "\"feature_quantize_method\":\"KL\"", .exact = "all"},
    {.name = "exact ADMM",
     .config = "\"feature_quantize_method\":\"ADMM\",\"weight_quantize_method\":\"ADMM\"",
     .exact = "all"},
    {.name = "exact EMA",
     .config = "\"feature_quantize_method\":\"EMA\",\"batch_size\":2",
     .exact = "all"},
};
enum { N_SCENARIOS = sizeof(scenarios) / sizeof(scenarios[0]), DROP_IN = 5 };

typedef struct run {
    fixture *f;
    const scenario *s;
    fault io;
    bool fail_io;
    qn_context *ctx;
    qn_error error;
    bool saved;
    qn_status first; /* the failure that was retried */
} run;

static file_bytes now;
static fault_sites sites; /* the memory of every run */

static fault *failing(run *r)
{
    return r->fail_io ? &r->io : &sites.memory;
}

static size_t n_outputs(const scenario *s)
{
    return s->config != NULL ? 2 : 1;
}

/* 0: the old file, or none as before, 1: the new one, -1: something else */
static int what_is_there(const fixture *f, size_t output)
{
    struct stat info;
    if (f->none && stat(f->out[output], &info) != 0)
        return 0;
    read_file(f->out[output], &now);
    const file_bytes *e = &f->expected[output];
    if (now.count == sizeof(OLD) && memcmp(now.data, OLD, sizeof(OLD)) == 0)
        return 0;
    return now.count == e->count && memcmp(now.data, e->data, e->count) == 0 ? 1 : -1;
}

#define STEP(call) FAULT_STEP(r, failing(r), r->s->name, call)

static qn_status open_dataset(run *r, const qn_model *model, qn_dataset **out)
{
    qn_dataset_options o;
    qn_dataset_options_init(&o);
    o.images_dir = r->f->pictures;
    o.preprocess.n_normal = 1;
    o.preprocess.normal[0] = 0.01f;
    return qn_dataset_create(r->ctx, model, &o, out, &r->error);
}

static qn_status quantize(run *r, const qn_model *model, const qn_dataset *dataset, qn_model **out)
{
    qn_quantize_options o;
    qn_quantize_options_init(&o);
    o.target = "mnn";
    o.features = "minmax";
    return qn_quantize(model, dataset, &o, out, NULL, &r->error);
}

static qn_status convert(run *r)
{
    qn_status status = QN_OK;
    qn_model *model = NULL, *quantized = NULL;
    qn_dataset *dataset = NULL;
    STEP(qn_model_load(r->ctx, r->s->from_onnx ? r->f->onnx : r->f->mnn, &model, &r->error));
    if (r->s->target) {
        STEP(open_dataset(r, model, &dataset));
        STEP(quantize(r, model, dataset, &quantized));
    }
    STEP(qn_model_save(quantized != NULL ? quantized : model, r->f->out[0], QN_SAVE_QDQ, NULL,
                       &r->error));
    r->saved = true;
    qn_model_destroy(quantized);
    quantized = NULL;
    STEP(qn_model_load(r->ctx, r->f->out[0], &quantized, &r->error));
done:
    qn_dataset_destroy(dataset);
    qn_model_destroy(quantized);
    qn_model_destroy(model);
    return status;
}

static qn_status drop_in(run *r)
{
    qn_status status;
    qn_mnn_options options;
    qn_mnn_options_init(&options);
    options.exact = r->s->exact;
    STEP(qn_mnn_quantize(r->ctx, r->f->mnn, r->f->out[0], r->f->config, &options, &r->error));
    r->saved = true;
done:
    return status;
}

static qn_status perform(run *r)
{
    qn_context_options options;
    qn_context_options_init(&options);
    const qn_allocator allocator = sites_allocator(&sites);
    const qn_io io = fault_io(&r->io);
    options.allocator = &allocator;
    options.io = &io;
    options.n_threads = 1;
    qn_status status;
    STEP(qn_context_create(&options, &r->ctx, &r->error));
    r->ctx->arena_block_bytes = 16; /* a block for each request */
    status = r->s->config != NULL ? drop_in(r) : convert(r);
done:
    qn_context_destroy(r->ctx);
    r->ctx = NULL;
    if (sites.memory.live != 0)
        fail_msg("%s: call %llu: %lld allocations leaked", r->s->name,
                 (unsigned long long)failing(r)->fail_at, (long long)sites.memory.live);
    return status;
}

static void check_folder(const fixture *f, const char *name, uint64_t n)
{
    DIR *folder = opendir(f->folder);
    assert_non_null(folder);
    for (struct dirent *e = readdir(folder); e != NULL; e = readdir(folder))
        if (strstr(e->d_name, ".tmp") != NULL)
            fail_msg("%s: call %llu left %s behind", name, (unsigned long long)n, e->d_name);
    closedir(folder);
}

static void check_outputs(run *r, qn_status status)
{
    const unsigned long long n = failing(r)->fail_at;
    int is[MAX_OUTPUTS] = {0};
    for (size_t i = 0; i < n_outputs(r->s); i++) {
        is[i] = what_is_there(r->f, i);
        if (is[i] < 0)
            fail_msg("%s: call %llu: output %zu is neither the old nor the new file", r->s->name, n,
                     i);
        if (r->saved && is[i] == 0)
            fail_msg("%s: call %llu: saved, but the old file is there", r->s->name, n);
        /* a folder that could not be synced, or nothing works any more, the putting back included
         */
        const bool said = strstr(r->error.message, "synced") != NULL ||
                          strstr(r->error.message, ".json is the new one already") != NULL;
        if (!r->saved && is[i] == 1 && (!r->fail_io || !said))
            fail_msg("%s: call %llu: not saved, but the old file is gone: %s", r->s->name, n,
                     r->error.message);
    }
    if (is[0] != is[1] && n_outputs(r->s) == 2 && !failing(r)->persistent)
        fail_msg("%s: call %llu: half of the pair is new: %s", r->s->name, n, r->error.message);
    if (is[0] == 1 && n_outputs(r->s) == 2 && is[1] == 0)
        fail_msg("%s: call %llu: a new model beside old scales", r->s->name, n);
    if (status == QN_OK)
        assert_true(r->saved);
    check_folder(r->f, r->s->name, n);
}

static run fresh(fixture *f, const scenario *s, const fault *table, bool fail_io)
{
    run r = {.f = f, .s = s, .fail_io = fail_io};
    sites.memory = (fault){0};
    *(fail_io ? &r.io : &sites.memory) = *table;
    snprintf(f->out[0], sizeof(f->out[0]), "%s/out.%s", f->folder, s->to_onnx ? "onnx" : "mnn");
    snprintf(f->out[1], sizeof(f->out[1]), "%s/out.mnn.json", f->folder);
    for (size_t i = 0; i < n_outputs(s); i++) {
        unlink(f->out[i]);
        if (!f->none)
            write_file(f->out[i], OLD, sizeof(OLD));
    }
    if (s->config != NULL) {
        char text[512];
        const int n = snprintf(text, sizeof(text),
                               "{\"format\":\"RGB\",\"mean\":[128],\"normal\":[0.01],\"width\":8,"
                               "\"height\":6,\"path\":\"%s/\",%s}",
                               f->pictures, s->config);
        write_file(f->config, text, (size_t)n);
    }
    return r;
}

/* The undisturbed run: learns the expected bytes, returns the number of calls that can fail. */
static uint64_t learn(fixture *f, const scenario *s, bool fail_io, const fault *table)
{
    run r = fresh(f, s, table, fail_io);
    sites.n_calls = 0;
    sites.learns = !fail_io;
    if (perform(&r) != QN_OK)
        fail_msg("%s: %s", s->name, r.error.message);
    sites.learns = false;
    for (size_t i = 0; i < n_outputs(s); i++) {
        read_file(f->out[i], &f->expected[i]);
        assert_true(f->expected[i].count > 500);
    }
    return failing(&r)->calls;
}

static void fail_one(fixture *f, const scenario *s, bool fail_io, fault *table, uint64_t n,
                     uint64_t calls)
{
    table->fail_at = n;
    run r = fresh(f, s, table, fail_io);
    const qn_status status = perform(&r);
    check_outputs(&r, status);
    const bool reported = r.first != QN_OK || status != QN_OK;
    if (!fail_io && !reported)
        fail_msg("%s: allocation %llu of %llu failed unnoticed", s->name, (unsigned long long)n,
                 (unsigned long long)calls);
    if (fail_io && table->error_number == EINTR && reported)
        fail_msg("%s: call %llu: an interrupted call was not repeated: %s", s->name,
                 (unsigned long long)n, r.error.message);
}

/* Some calls, and every way to an allocation that was not failed before. */
static void sweep(fixture *f, const scenario *s, bool fail_io, fault table, uint64_t stride)
{
    const uint64_t calls = learn(f, s, fail_io, &(fault){.at_most = table.at_most});
    if (stride == 0)
        stride = calls / TRIED + 1;
    for (uint64_t n = 1 + calls % stride; n <= calls; n += stride)
        fail_one(f, s, fail_io, &table, n, calls);
    for (size_t i = 0; i < sites.n_calls && !fail_io && stride > 1; i++)
        fail_one(f, s, false, &table, sites.calls[i], calls);
}

static void allocations(void **state)
{
    fixture *const f = *state;
    for (size_t i = 0; i < N_SCENARIOS; i++)
        for (int persistent = 0; persistent < 2; persistent++)
            sweep(f, &scenarios[i], false, (fault){.persistent = persistent != 0}, f->stride);
}

static void every_system_call_fails(void **state)
{
    static const int errors[] = {EIO, ENOSPC, EMFILE, EINTR, 0};
    static const size_t which[] = {1, 2, 4, DROP_IN};
    for (size_t s = 0; s < sizeof(which) / sizeof(which[0]); s++)
        for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
            for (int persistent = 0; persistent < (errors[i] == EINTR ? 1 : 2); persistent++)
                sweep(*state, &scenarios[which[s]], true,
                      (fault){.error_number = errors[i], .persistent = persistent != 0}, 1);
}

static void a_pair_is_new_or_not_there(void **state)
{
    fixture *const f = *state;
    f->none = true;
    for (int persistent = 0; persistent < 2; persistent++)
        sweep(f, &scenarios[DROP_IN], true,
              (fault){.error_number = EIO, .persistent = persistent != 0}, 1);
    f->none = false;
}

/* A few bytes a call, and files that cannot be mapped. */
static void short_reads_and_writes_change_nothing(void **state)
{
    fixture *const f = *state;
    for (size_t i = 0; i < N_SCENARIOS; i++) {
        learn(f, &scenarios[i], true, &(fault){0});
        run r = fresh(f, &scenarios[i], &(fault){.at_most = 7}, true);
        assert_int_equal(perform(&r), QN_OK);
        for (size_t k = 0; k < n_outputs(&scenarios[i]); k++)
            assert_int_equal(what_is_there(f, k), 1);
    }
    sweep(f, &scenarios[DROP_IN], true, (fault){.error_number = EIO, .at_most = 500}, 1);
}

/* The process ends inside each system call: each file is the old or the new one, the model last. */
static void a_killed_run_leaves_whole_files(void **state)
{
    fixture *const f = *state;
    const scenario *const s = &scenarios[DROP_IN];
    const uint64_t calls = learn(f, s, true, &(fault){.at_most = 400});
    uint64_t seen[4] = {0};
    for (uint64_t n = 1; n <= calls; n++) {
        run r = fresh(f, s, &(fault){.fail_at = n, .kills = true, .at_most = 400}, true);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            perform(&r);
            _exit(1);
        }
        int code;
        assert_int_equal(waitpid(child, &code, 0), child);
        assert_true(WIFSIGNALED(code) && WTERMSIG(code) == SIGKILL);
        const int model = what_is_there(f, 0), scales = what_is_there(f, 1);
        if (model < 0 || scales < 0)
            fail_msg("killed at call %llu: a damaged output", (unsigned long long)n);
        seen[model * 2 + scales]++;
    }
    assert_true(seen[0] > 10); /* neither */
    assert_true(seen[2] == 0); /* a model beside the scales of another */
    assert_true(seen[3] > 0);
    /* what the killed ones left is never read and never in the way */
    run r = fresh(f, s, &(fault){0}, true);
    assert_int_equal(perform(&r), QN_OK);
    assert_int_equal(what_is_there(f, 0), 1);
    assert_int_equal(what_is_there(f, 1), 1);
    char command[160];
    snprintf(command, sizeof(command), "rm -f %s/*.tmp*", f->folder);
    assert_int_equal(system(command), 0);
}

static void write_picture(const char *folder, int which)
{
    char path[256];
    uint8_t pixels[11 + 8 * 6 * 3] = "P6 8 6 255\n";
    for (size_t i = 0; i < 8 * 6 * 3; i++)
        pixels[11 + i] = (uint8_t)(i * 37 * (size_t)(which + 1) % 251);
    snprintf(path, sizeof(path), "%s/%d.ppm", folder, which);
    write_file(path, pixels, sizeof(pixels));
}

static int setup(void **state)
{
    static fixture f;
    const char *const stride = getenv("QN_TEST_STRIDE");
    f.stride = stride != NULL && atoi(stride) > 0 ? (uint64_t)atoi(stride) : 0;
    strcpy(f.folder, "/tmp/quench-fault-XXXXXX");
    if (mkdtemp(f.folder) == NULL)
        return 1;
    snprintf(f.onnx, sizeof(f.onnx), "%s/m.onnx", f.folder);
    snprintf(f.mnn, sizeof(f.mnn), "%s/m.mnn", f.folder);
    snprintf(f.config, sizeof(f.config), "%s/config.json", f.folder);
    snprintf(f.pictures, sizeof(f.pictures), "%s/pictures", f.folder);
    if (mkdir(f.pictures, 0777) != 0)
        return 1;
    for (int i = 0; i < 3; i++)
        write_picture(f.pictures, i);
    qn_context *ctx = NULL;
    qn_model *model = NULL;
    qn_error error = {0};
    uint8_t *model_bytes = NULL;
    size_t size = 0;
    qn_status status = qn_context_create(NULL, &ctx, &error);
    if (status == QN_OK)
        status = small_mnn_bytes(ctx, 3, 6, 8, "NCHW", &model_bytes, &size, &error);
    if (status == QN_OK) {
        write_file(f.mnn, model_bytes, size);
        status = qn_model_load(ctx, f.mnn, &model, &error);
    }
    if (status == QN_OK)
        status = qn_model_save(model, f.onnx, QN_SAVE_QDQ, NULL, &error);
    if (status != QN_OK)
        fprintf(stderr, "%s\n", error.message);
    qn__free(ctx, model_bytes);
    qn_model_destroy(model);
    qn_context_destroy(ctx);
    *state = &f;
    return status == QN_OK ? 0 : 1;
}

static int teardown(void **state)
{
    const fixture *const f = *state;
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", f->folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations),
        cmocka_unit_test(every_system_call_fails),
        cmocka_unit_test(a_pair_is_new_or_not_there),
        cmocka_unit_test(short_reads_and_writes_change_nothing),
        cmocka_unit_test(a_killed_run_leaves_whole_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
