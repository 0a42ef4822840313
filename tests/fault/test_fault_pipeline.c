/* The whole way from a model file to a quantized one, compared and evaluated, while the Nth
 * allocation or system call fails, for every N. A failure comes back as a status with a message;
 * the same call made again with the same objects succeeds; nothing leaks; the output file is the
 * old one or the new one, whole; no other file is left behind.
 *
 * QN_TEST_STRIDE=1 covers every N in the larger scenarios as well. */
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
#include "quench/quantize.h"

#define MODEL QN_SOURCE_DIR "/tests/data/fault.onnx"
#define PICTURES QN_SOURCE_DIR "/tests/data/files/"

enum { MOST_TRIED = 40 }; /* of a sampled sweep */
enum { N_SAMPLES = 3, SAMPLE_FLOATS = 3 * 6 * 6 };
static const char OLD[] = "the old output";

typedef struct scenario {
    const char *features, *weights, *bias_correction, *calibrate_with;
    qn_save_format format;
    bool pictures; /* instead of tensors */
    bool whole;    /* then load the result, run, describe, compare and evaluate it */
    bool recipe;   /* save the recipe, replay it */
} scenario;

typedef struct fixture {
    char folder[64], out[128], recipe[128], npy[128], csv[128], list[128];
    file_bytes expected; /* what an undisturbed run writes */
    unsigned stride;
} fixture;

/* One run, with the failing table in it. */
typedef struct run {
    fixture *f;
    const scenario *s;
    fault io;
    bool fail_io;
    qn_context *ctx;
    qn_error error;
    bool saved;
    qn_status first; /* the failure that was retried, QN_OK: none */
} run;

static fault_sites sites; /* the memory of every run */

static fault *failing(run *r)
{
    return r->fail_io ? &r->io : &sites.memory;
}

/* Leaves through `done` when the failure stays. */
#define STEP(call) FAULT_STEP(r, failing(r), "the pipeline", call)

static bool holds(const file_bytes *b, const void *data, size_t size)
{
    return b->count == size && memcmp(b->data, data, size) == 0;
}

static qn_status open_dataset(run *r, const qn_model *model, qn_dataset **out)
{
    static const char *const pictures[] = {PICTURES "color.jpg", PICTURES "palette.png",
                                           PICTURES "lossy.webp"};
    qn_dataset_options o;
    qn_dataset_options_init(&o);
    if (r->s->pictures) {
        o.files = pictures;
        o.n_files = sizeof(pictures) / sizeof(pictures[0]);
        o.preprocess.n_normal = 1;
        o.preprocess.normal[0] = 0.01f;
    } else {
        o.data_file = r->f->npy;
        o.labels_file = r->f->csv;
    }
    return qn_dataset_create(r->ctx, model, &o, out, &r->error);
}

static qn_status quantize(run *r, const qn_model *model, const qn_dataset *dataset,
                          const char *recipe, qn_model **out, qn_report **report)
{
    qn_quantize_options o;
    qn_quantize_options_init(&o);
    o.features = r->s->features;
    o.weights = r->s->weights;
    o.bias_correction = r->s->bias_correction;
    o.calibrate_with = r->s->calibrate_with;
    o.recipe_file = recipe;
    const qn_status status = qn_quantize(model, dataset, &o, out, report, &r->error);
    if (status != QN_OK && (*out != NULL || *report != NULL))
        fail_msg("qn_quantize failed and gave a model or a report");
    return status;
}

static qn_status use_result(run *r, const qn_model *model, const qn_dataset *dataset)
{
    qn_status status = QN_OK;
    qn_model *back = NULL;
    qn_session *session = NULL;
    qn_session_options options;
    qn_comparison *comparison = NULL;
    qn_evaluation evaluation;
    char *text = NULL;
    int64_t predictions[N_SAMPLES];
    float x[SAMPLE_FLOATS];
    float *const inputs[] = {x};
    qn_session_options_init(&options);
    STEP(qn_model_load(r->ctx, r->f->out, &back, &r->error));
    STEP(qn_model_describe(back, true, &text, &r->error));
    qn_text_destroy(r->ctx, text);
    text = NULL;
    STEP(qn_model_describe(back, false, &text, &r->error));
    STEP(qn_session_create(back, &options, &session, &r->error));
    STEP(qn_dataset_load(dataset, 0, inputs, &r->error));
    STEP(qn_session_run(session, (const float *const *)inputs, &r->error));
    STEP(qn_compare(model, back, dataset, &comparison, &r->error));
    STEP(qn_evaluate(back, dataset, &options, NULL, predictions, &evaluation, &r->error));
    assert_int_equal(evaluation.n, N_SAMPLES);
    STEP(qn_dataset_save_list(dataset, r->f->list, &r->error));
done:
    qn_comparison_destroy(comparison);
    qn_session_destroy(session);
    qn_text_destroy(r->ctx, text);
    qn_model_destroy(back);
    return status;
}

static qn_status replay(run *r, const qn_model *model, const qn_report *report)
{
    qn_status status = QN_OK;
    qn_model *again_quantized = NULL;
    qn_report *again_report = NULL;
    STEP(qn_text_save(r->ctx, r->f->recipe, qn_report_recipe(report), &r->error));
    STEP(quantize(r, model, NULL, r->f->recipe, &again_quantized, &again_report));
    STEP(qn_model_save(again_quantized, r->f->out, r->s->format, NULL, &r->error));
done:
    qn_report_destroy(again_report);
    qn_model_destroy(again_quantized);
    return status;
}

static qn_status pipeline(run *r)
{
    qn_status status = QN_OK;
    qn_model *model = NULL, *quantized = NULL;
    qn_dataset *dataset = NULL;
    qn_report *report = NULL;
    STEP(qn_model_load(r->ctx, MODEL, &model, &r->error));
    STEP(open_dataset(r, model, &dataset));
    STEP(quantize(r, model, dataset, NULL, &quantized, &report));
    STEP(qn_model_save(quantized, r->f->out, r->s->format, NULL, &r->error));
    r->saved = true;
    if (r->s->whole)
        STEP(use_result(r, model, dataset));
    if (r->s->recipe)
        STEP(replay(r, model, report));
done:
    qn_report_destroy(report);
    qn_model_destroy(quantized);
    qn_dataset_destroy(dataset);
    qn_model_destroy(model);
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
    status = pipeline(r);
done:
    qn_context_destroy(r->ctx);
    r->ctx = NULL;
    if (sites.memory.live != 0)
        fail_msg("call %llu: %lld allocations leaked", (unsigned long long)failing(r)->fail_at,
                 (long long)sites.memory.live);
    return status;
}

/* Nothing but the files that belong there. */
static void check_folder(const fixture *f, uint64_t n)
{
    DIR *folder = opendir(f->folder);
    assert_non_null(folder);
    for (struct dirent *e = readdir(folder); e != NULL; e = readdir(folder))
        if (strstr(e->d_name, ".tmp") != NULL)
            fail_msg("call %llu left %s behind", (unsigned long long)n, e->d_name);
    closedir(folder);
}

static file_bytes now;

static void check_output(run *r, qn_status status)
{
    fixture *const f = r->f;
    read_file(f->out, &now);
    const bool is_new = holds(&now, f->expected.data, f->expected.count);
    const bool is_old = holds(&now, OLD, sizeof(OLD));
    const uint64_t n = failing(r)->fail_at;
    if (!is_new && !is_old)
        fail_msg("call %llu: the output is neither the old nor the new file",
                 (unsigned long long)n);
    if (r->saved && !is_new)
        fail_msg("call %llu: saved, but the old file is there", (unsigned long long)n);
    /* a rename that succeeded and a folder that could not be synced: the new file, and an error */
    if (!r->saved && !is_old && !r->fail_io)
        fail_msg("call %llu: not saved, but the old file is gone", (unsigned long long)n);
    if (status == QN_OK)
        assert_true(r->saved);
    check_folder(f, n);
}

static run fresh(fixture *f, const scenario *s, const fault *failing_table, bool fail_io)
{
    run r = {.f = f, .s = s, .fail_io = fail_io};
    sites.memory = (fault){0};
    *(fail_io ? &r.io : &sites.memory) = *failing_table;
    write_file(f->out, OLD, sizeof(OLD));
    return r;
}

/* The undisturbed run: learns the expected bytes, returns the number of calls that can fail. */
static uint64_t learn(fixture *f, const scenario *s, bool fail_io, const fault *table)
{
    run r = fresh(f, s, table, fail_io);
    sites.n_calls = 0;
    sites.learns = !fail_io;
    assert_int_equal(perform(&r), QN_OK);
    sites.learns = false;
    read_file(f->out, &f->expected);
    assert_true(f->expected.count > 1000);
    return failing(&r)->calls;
}

/* Returns whether the failure was noticed. */
static bool fail_one(fixture *f, const scenario *s, bool fail_io, fault *table, uint64_t n)
{
    table->fail_at = n;
    run r = fresh(f, s, table, fail_io);
    const qn_status status = perform(&r);
    check_output(&r, status);
    const bool reported = r.first != QN_OK || status != QN_OK;
    if (fail_io && table->error_number == EINTR && reported)
        fail_msg("call %llu: an interrupted call was not repeated: %s", (unsigned long long)n,
                 r.error.message);
    return reported;
}

/* Every stride-th N, starting anywhere so that repeated sweeps see different ones, and every way to
 * an allocation that was not failed before. */
static void sweep(fixture *f, const scenario *s, bool fail_io, fault table, unsigned stride)
{
    const fault quiet = {.at_most = table.at_most};
    const uint64_t calls = learn(f, s, fail_io, &quiet);
    uint64_t benign = 0, tried = 0;
    if (stride > 1 && getenv("QN_TEST_STRIDE") == NULL && calls / stride > MOST_TRIED)
        stride = (unsigned)(calls / MOST_TRIED);
    for (uint64_t n = 1 + calls % stride; n <= calls; n += stride, tried++)
        benign += !fail_one(f, s, fail_io, &table, n);
    for (size_t i = 0; i < sites.n_calls && !fail_io && stride > 1; i++, tried++)
        benign += !fail_one(f, s, false, &table, sites.calls[i]);
    /* A failure may be harmless only where there is another way to do it: a file that cannot be
     * mapped is read, a folder that cannot be opened is not synced, a read file's close. A
     * lost allocation is always reported. */
    if (!fail_io && benign > 0)
        fail_msg("%llu of %llu failed allocations went unnoticed", (unsigned long long)benign,
                 (unsigned long long)tried);
}

static const scenario small = {.features = "minmax", .weights = "max_abs"};
static const scenario all = {.features = "minmax",
                             .weights = "max_abs",
                             .bias_correction = "on",
                             .calibrate_with = "quantized-weights",
                             .whole = true,
                             .recipe = true};

static void every_allocation_of_the_small_scenario(void **state)
{
    for (int persistent = 0; persistent < 2; persistent++)
        sweep(*state, &small, false, (fault){.persistent = persistent != 0}, 1);
}

static void allocations_of_the_whole_scenario(void **state)
{
    fixture *const f = *state;
    for (int persistent = 0; persistent < 2; persistent++)
        sweep(f, &all, false, (fault){.persistent = persistent != 0}, f->stride);
}

static void allocations_with_pictures_and_operators(void **state)
{
    fixture *const f = *state;
    const scenario s = {
        .features = "kl", .weights = "mse", .pictures = true, .format = QN_SAVE_QOPERATOR};
    for (int persistent = 0; persistent < 2; persistent++)
        sweep(f, &s, false, (fault){.persistent = persistent != 0}, f->stride);
}

static void allocations_of_every_method(void **state)
{
    fixture *const f = *state;
    size_t n = 0;
    for (const char *name; (name = qn_feature_method_name(n)) != NULL; n++) {
        const scenario s = {.features = name, .weights = "max_abs"};
        sweep(f, &s, false, (fault){0}, f->stride);
    }
    assert_true(n >= 5);
    n = 0;
    for (const char *name; (name = qn_weight_method_name(n)) != NULL; n++) {
        const scenario s = {.features = "minmax", .weights = name, .bias_correction = "on"};
        sweep(f, &s, false, (fault){0}, f->stride);
    }
    assert_true(n >= 3);
}

static void every_system_call_fails(void **state)
{
    static const int errors[] = {EIO, ENOSPC, EMFILE, EINTR, 0};
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        for (int persistent = 0; persistent < (errors[i] == EINTR ? 1 : 2); persistent++)
            sweep(*state, &all, true,
                  (fault){.error_number = errors[i], .persistent = persistent != 0}, 1);
}

/* Three bytes a call, and files that cannot be mapped. */
static void short_reads_and_writes_change_nothing(void **state)
{
    fixture *const f = *state;
    learn(f, &all, true, &(fault){0});
    const file_bytes *const expected = &f->expected;
    run r = fresh(f, &all, &(fault){.at_most = 3}, true);
    assert_int_equal(perform(&r), QN_OK);
    assert_true(r.io.calls > expected->count / 3);
    read_file(f->out, &now);
    assert_true(holds(&now, expected->data, expected->count));
    sweep(f, &small, true, (fault){.error_number = EIO, .at_most = 500}, 1);
}

/* The process ends inside each system call: old or new file, and what it left is never read. */
static void a_killed_run_leaves_a_whole_file(void **state)
{
    fixture *const f = *state;
    const uint64_t calls = learn(f, &small, true, &(fault){.at_most = 200});
    uint64_t olds = 0, news = 0;
    for (uint64_t n = 1; n <= calls; n++) {
        const fault table = {.fail_at = n, .kills = true, .at_most = 200};
        run r = fresh(f, &small, &table, true);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            perform(&r);
            _exit(1);
        }
        int code;
        assert_int_equal(waitpid(child, &code, 0), child);
        assert_true(WIFSIGNALED(code) && WTERMSIG(code) == SIGKILL);
        read_file(f->out, &now);
        const bool is_new = holds(&now, f->expected.data, f->expected.count);
        if (!is_new && !holds(&now, OLD, sizeof(OLD)))
            fail_msg("killed at call %llu: a damaged output", (unsigned long long)n);
        *(is_new ? &news : &olds) += 1;
    }
    assert_true(olds > 10 && news > 0);
    /* with the stale temporaries still there */
    run r = fresh(f, &small, &(fault){0}, true);
    assert_int_equal(perform(&r), QN_OK);
    read_file(f->out, &now);
    assert_true(holds(&now, f->expected.data, f->expected.count));
    char command[160];
    snprintf(command, sizeof(command), "rm -f %s/*.tmp*", f->folder);
    assert_int_equal(system(command), 0);
}

static int setup(void **state)
{
    static fixture f;
    static const char header[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3, 6, 6)}";
    const char *const stride = getenv("QN_TEST_STRIDE");
    f.stride = stride != NULL && atoi(stride) > 0 ? (unsigned)atoi(stride) : 23;
    strcpy(f.folder, "/tmp/quench-fault-XXXXXX");
    if (mkdtemp(f.folder) == NULL)
        return 1;
    snprintf(f.out, sizeof(f.out), "%s/out.onnx", f.folder);
    snprintf(f.recipe, sizeof(f.recipe), "%s/recipe.json", f.folder);
    snprintf(f.npy, sizeof(f.npy), "%s/x.npy", f.folder);
    snprintf(f.csv, sizeof(f.csv), "%s/labels.csv", f.folder);
    snprintf(f.list, sizeof(f.list), "%s/list.txt", f.folder);
    write_file(f.csv, "row,class_index\n0,1\n1,4\n2,0\n", 28);
    FILE *npy = fopen(f.npy, "wb");
    if (npy == NULL)
        return 1;
    fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, npy);
    fprintf(npy, "%-117s\n", header);
    uint32_t random = 1;
    for (int i = 0; i < N_SAMPLES * SAMPLE_FLOATS; i++) {
        random = random * 1664525 + 1013904223;
        const float value = (float)(random >> 8) / (1 << 23) - 1.0f;
        fwrite(&value, sizeof(value), 1, npy);
    }
    fclose(npy);
    *state = &f;
    return 0;
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
        cmocka_unit_test(every_allocation_of_the_small_scenario),
        cmocka_unit_test(allocations_of_the_whole_scenario),
        cmocka_unit_test(allocations_with_pictures_and_operators),
        cmocka_unit_test(allocations_of_every_method),
        cmocka_unit_test(every_system_call_fails),
        cmocka_unit_test(short_reads_and_writes_change_nothing),
        cmocka_unit_test(a_killed_run_leaves_a_whole_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
