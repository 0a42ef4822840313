/* Compact files loaded, run, packed and written while the Nth allocation or system call fails: a
 * status with a message, nothing leaked, the old output or the whole new one, and the same call
 * succeeds when it is made again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <sys/stat.h>

#include "fault/fault_calls.h"
#include "ir/packed.h"
#include "quant/model.h"

#define SEED(n) QN_SOURCE_DIR "/tests/fuzz/corpus/qnm/seed" n ".qnm"
static const char OLD[] = "the old output";

enum { N_IN = 64, N_OUT = 6 };

static char folder[64], out_path[128];
static const char *seed = SEED("1"), *cpu_mask = "";
static size_t n_packed = 4; /* of the seed, in two forms */
static bool as_it_is;       /* it is not written again */
/* Without memory to look for packed weights others are looked for, or weights are packed. */
static size_t most_unnoticed;
static file_bytes expected, found;
static float answer[N_OUT];

typedef struct run {
    fault memory, io;
    bool fail_io, saved;
    qn_context *ctx;
    qn_error error;
    qn_status first;
} run;

static fault *failing(run *r)
{
    return r->fail_io ? &r->io : &r->memory;
}

#define STEP(call) FAULT_STEP(r, failing(r), "a compact file", call)

static void work(run *r)
{
    qn_status status;
    qn_model *model = NULL, *written = NULL;
    qn_session *session = NULL;
    qn_compact_options compact;
    float x[N_IN];
    const float *const inputs[] = {x};
    for (int i = 0; i < N_IN; i++)
        x[i] = (float)(i % 11 - 5);
    qn_compact_options_init(&compact);
    compact.packed = "scalar,avx512";
    if (!as_it_is) {
        STEP(qn_model_load(r->ctx, seed, &model, &r->error));
        STEP(qn_model_save_compact(model, out_path, &compact, NULL, &r->error));
    }
    const char *const path = as_it_is ? seed : out_path;
    r->saved = true;
    STEP(qn_model_verify_checksum(r->ctx, path, &r->error));
    STEP(qn_model_load(r->ctx, path, &written, &r->error));
    STEP(qn_session_create(written, NULL, &session, &r->error));
    STEP(qn_session_run(session, inputs, &r->error));
    /* what was packed in the file read is packed in the file written */
    assert_int_equal(written->graph->source->packed->count, n_packed);
    size_t count = 0;
    const float *const y = qn_session_output(session, 0, &count);
    assert_int_equal(count, N_OUT);
    if (failing(r)->fail_at == 0)
        memcpy(answer, y, sizeof(answer));
    assert_memory_equal(answer, y, sizeof(answer));
done:
    qn_session_destroy(session);
    qn_model_destroy(written);
    qn_model_destroy(model);
}

static void perform(run *r)
{
    qn_context_options options;
    qn_status status;
    qn_context_options_init(&options);
    const qn_allocator allocator = fault_allocator(&r->memory);
    const qn_io io = fault_io(&r->io);
    options.allocator = &allocator;
    options.io = &io;
    options.n_threads = 1;
    options.cpu_mask = cpu_mask;
    write_file(out_path, OLD, sizeof(OLD));
    STEP(qn_context_create(&options, &r->ctx, &r->error));
    r->ctx->arena_block_bytes = 16; /* a block for each request */
    work(r);
done:
    qn_context_destroy(r->ctx);
    assert_int_equal(r->memory.live, 0);
    read_file(out_path, &found);
    if (failing(r)->fail_at == 0)
        expected = found;
    assert_true(r->saved);
    assert_int_equal(found.count, expected.count);
    assert_memory_equal(found.data, expected.data, expected.count);
}

static void sweep(bool fail_io, int error_number, size_t at_most)
{
    run r = {.fail_io = fail_io};
    failing(&r)->at_most = at_most;
    perform(&r);
    const uint64_t calls = failing(&r)->calls;
    size_t n_unnoticed = 0;
    assert_true(calls > 20);
    for (uint64_t n = 1; n <= calls; n++) {
        run one = {.fail_io = fail_io};
        *failing(&one) = (fault){.fail_at = n, .error_number = error_number, .at_most = at_most};
        perform(&one);
        if (!fail_io && one.first == QN_OK && n_unnoticed++ == most_unnoticed)
            fail_msg("allocation %llu failed unnoticed", (unsigned long long)n);
    }
}

static void every_allocation(void **state)
{
    (void)state;
    sweep(false, 0, 0);
}

static void every_system_call(void **state)
{
    (void)state;
    sweep(true, EIO, 0);
    sweep(true, EINTR, 0);
    sweep(true, 0, 0);
}

/* What is packed is packed again where it cannot be used, and used where it can. */
static void every_allocation_of_other_orders(void **state)
{
    (void)state;
    static const char *const MASKS[] = {"scalar", "avx2"};
    seed = SEED("4");
    n_packed = 3 * 14 - 4; /* depthwise windows and floats are the same in two forms, or in all */
    as_it_is = true;
    most_unnoticed = 5;
    for (size_t i = 0; i < 2; i++) {
        cpu_mask = MASKS[i];
        sweep(false, 0, 0);
    }
    seed = SEED("1");
    n_packed = 4;
    as_it_is = false;
    most_unnoticed = 0;
    cpu_mask = "";
}

/* Files that cannot be mapped, a few bytes a call. */
static void short_reads_and_writes(void **state)
{
    (void)state;
    run r = {.fail_io = true};
    r.io.at_most = 100;
    perform(&r);
    run one = {.fail_io = true, .io = {.at_most = 700}};
    perform(&one);
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/qnm-fault-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(out_path, sizeof(out_path), "%s/out.qnm", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(out_path);
    return rmdir(folder); /* fails when something was left behind */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation),
        cmocka_unit_test(every_allocation_of_other_orders),
        cmocka_unit_test(every_system_call),
        cmocka_unit_test(short_reads_and_writes),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
