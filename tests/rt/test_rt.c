/* The stand-alone runtime: what it computes is what libquench computes, in its own memory or the
 * caller's, on any number of the caller's threads; misuse is an error; running allocates nothing.
 */
#include "rt_net.h"

#include "fault/fault.h"
#include "quench/runtime.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

enum { SIZE = 64, N_IN = 3 * SIZE * SIZE, N_MAP = 16 * SIZE * SIZE / 4, N_CLASSES = 10 };

typedef struct model {
    builder b;
    uint8_t *data;
    size_t bytes;
    qn_rt_model *rt;
    float picture[N_IN];
    qn_error error;
} model;

#define assert_rt(m, expr)                                                                         \
    do {                                                                                           \
        if ((expr) != QN_OK)                                                                       \
            fail_msg("%s: %s", #expr, (m)->error.message);                                         \
    } while (0)

static int start(void **state)
{
    model *const m = calloc(1, sizeof(*m));
    assert_non_null(m);
    rt_build_classifier(&m->b, SIZE);
    m->data = rt_compact(&m->b, &m->bytes);
    assert_rt(m, qn_rt_model_from_memory(m->data, m->bytes, NULL, &m->rt, &m->error));
    for (size_t i = 0; i < N_IN; i++)
        m->picture[i] = (float)((int)(i * 2654435761u >> 24) - 128) / 50.0f;
    *state = m;
    return 0;
}

static int end(void **state)
{
    model *const m = *state;
    qn_rt_model_destroy(m->rt);
    free(m->data);
    build_end(&m->b);
    free(m);
    return 0;
}

typedef struct outputs {
    float classes[N_CLASSES];
    uint8_t map[N_MAP];
} outputs;

static void infer(model *m, qn_rt_session *session, outputs *out)
{
    assert_rt(m, qn_rt_set_input(session, 0, m->picture, N_IN, &m->error));
    assert_rt(m, qn_rt_run(session, &m->error));
    assert_rt(m, qn_rt_get_output(session, 0, out->classes, N_CLASSES, &m->error));
    assert_rt(m, qn_rt_get_output_raw(session, 1, out->map, N_MAP, &m->error));
}

/* What libquench's own planning, from the graph before it was a file, computes. */
static void expected(model *m, outputs *out)
{
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    const void *inputs[1] = {m->picture};
    assert_rt(m, qn__plan_create(m->b.graph, NULL, &plan, &m->error));
    assert_rt(m, qn__exec_create(plan, NULL, &exec, &m->error));
    assert_rt(m, qn__exec_run(exec, inputs, &m->error));
    memcpy(out->classes, qn__exec_output(exec, 0)->data, sizeof(out->classes));
    memcpy(out->map, qn__exec_output(exec, 1)->data, sizeof(out->map));
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
}

static void assert_same(const outputs *a, const outputs *b)
{
    assert_memory_equal(a->classes, b->classes, sizeof(a->classes));
    assert_memory_equal(a->map, b->map, sizeof(a->map));
}

static void results_are_those_of_the_toolkit(void **state)
{
    model *const m = *state;
    qn_rt_session *session = NULL;
    outputs want, got;
    expected(m, &want);
    size_t distinct = 0;
    for (size_t i = 1; i < N_MAP; i++)
        distinct += want.map[i] != want.map[0];
    assert_true(distinct > N_MAP / 2);
    assert_rt(m, qn_rt_session_create(m->rt, NULL, &session, &m->error));
    for (int i = 0; i < 3; i++) {
        memset(&got, 0, sizeof(got));
        infer(m, session, &got);
        assert_same(&want, &got);
    }
    qn_rt_session_destroy(session);
}

static void values_are_described(void **state)
{
    model *const m = *state;
    qn_rt_value v;
    assert_int_equal(qn_rt_n_inputs(m->rt), 1);
    assert_int_equal(qn_rt_n_outputs(m->rt), 2);
    assert_true(qn_rt_input(m->rt, 0, &v));
    assert_string_equal(v.name, "picture");
    assert_string_equal(v.dtype, "float32");
    assert_int_equal(v.rank, 4);
    assert_int_equal(v.dims[0], 1);
    assert_int_equal(v.dims[3], SIZE);
    assert_int_equal(v.count, N_IN);
    assert_int_equal(v.size_bytes, N_IN * sizeof(float));
    assert_int_equal(v.n_scales, 0);
    assert_true(qn_rt_output(m->rt, 1, &v));
    assert_string_equal(v.dtype, "uint8");
    assert_int_equal(v.n_scales, 1);
    assert_true(v.scale == 0.1f);
    assert_int_equal(v.zero_point, 100);
    assert_int_equal(v.axis, -1);
    assert_int_equal(v.size_bytes, N_MAP);
    assert_false(qn_rt_input(m->rt, 1, &v));
    assert_false(qn_rt_output(m->rt, 2, &v));
}

/* Guard bytes on both sides of exactly the memory that was asked for. */
static void an_arena_of_the_caller_is_enough(void **state)
{
    enum { GUARD = 256 };
    model *const m = *state;
    const size_t bytes = qn_rt_model_arena_bytes(m->rt);
    uint8_t *const memory = aligned_alloc(64, (bytes + 2 * GUARD + 63) / 64 * 64);
    assert_non_null(memory);
    memset(memory, 0xA5, bytes + 2 * GUARD);
    qn_rt_session_options options;
    qn_rt_session_options_init(&options);
    options.arena = memory + GUARD;
    options.arena_bytes = bytes;
    qn_rt_session *session = NULL;
    outputs want, got;
    expected(m, &want);
    assert_rt(m, qn_rt_session_create(m->rt, &options, &session, &m->error));
    assert_true((uint8_t *)qn_rt_input_buffer(session, 0) >= memory + GUARD);
    assert_true((uint8_t *)qn_rt_input_buffer(session, 0) < memory + GUARD + bytes);
    infer(m, session, &got);
    assert_same(&want, &got);
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal(memory[i], 0xA5);
        assert_int_equal(memory[GUARD + bytes + i], 0xA5);
    }
    qn_rt_session_destroy(session);
    free(memory);
}

static void inputs_and_outputs_can_be_used_in_place(void **state)
{
    model *const m = *state;
    qn_rt_session *session = NULL;
    outputs want;
    expected(m, &want);
    assert_rt(m, qn_rt_session_create(m->rt, NULL, &session, &m->error));
    float *const in = qn_rt_input_buffer(session, 0);
    for (int i = 0; i < 2; i++) {
        memcpy(in, m->picture, sizeof(m->picture));
        assert_rt(m, qn_rt_run(session, &m->error));
        assert_memory_equal(qn_rt_output_buffer(session, 0), want.classes, sizeof(want.classes));
        assert_memory_equal(qn_rt_output_buffer(session, 1), want.map, sizeof(want.map));
    }
    float real[N_MAP];
    assert_rt(m, qn_rt_get_output(session, 1, real, N_MAP, &m->error));
    for (size_t i = 0; i < N_MAP; i++)
        assert_true(real[i] == (float)(want.map[i] - 100) * 0.1f);
    assert_null(qn_rt_input_buffer(session, 1));
    assert_null(qn_rt_output_buffer(session, 2));
    qn_rt_session_destroy(session);
}

/* --- the caller's threads ----------------------------------------------------------------------*/
typedef struct crew {
    uint32_t size;
    uint64_t loops;
} crew;

typedef struct loop {
    void (*task)(void *arg, uint32_t worker, size_t index);
    void *arg;
    size_t count;
    _Atomic size_t next;
    _Atomic uint32_t worker;
} loop;

static void *crew_member(void *arg)
{
    loop *const l = arg;
    const uint32_t worker = atomic_fetch_add(&l->worker, 1);
    for (size_t i; (i = atomic_fetch_add(&l->next, 1)) < l->count;)
        l->task(l->arg, worker, i);
    return NULL;
}

static void crew_for(void *ctx, void (*task)(void *arg, uint32_t worker, size_t index), void *arg,
                     size_t count)
{
    crew *const c = ctx;
    loop l = {.task = task, .arg = arg, .count = count};
    pthread_t threads[16];
    c->loops++;
    for (uint32_t i = 1; i < c->size; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, crew_member, &l), 0);
    crew_member(&l);
    for (uint32_t i = 1; i < c->size; i++)
        pthread_join(threads[i], NULL);
}

static void threads_of_the_caller_give_the_same_bytes(void **state)
{
    model *const m = *state;
    outputs want, got;
    expected(m, &want);
    for (uint32_t n = 1; n <= 16; n++) {
        crew c = {.size = n};
        qn_rt_session_options options;
        qn_rt_session_options_init(&options);
        options.parallel_for = crew_for;
        options.parallel_ctx = &c;
        options.n_workers = n;
        qn_rt_session *session = NULL;
        assert_rt(m, qn_rt_session_create(m->rt, &options, &session, &m->error));
        infer(m, session, &got);
        assert_same(&want, &got);
        assert_true(n == 1 || c.loops > 3);
        qn_rt_session_destroy(session);
    }
}

/* --- memory ------------------------------------------------------------------------------------*/
static void running_allocates_nothing(void **state)
{
    model *const m = *state;
    fault f = {0};
    const qn_allocator allocator = fault_allocator(&f);
    qn_rt_options options;
    qn_rt_options_init(&options);
    options.allocator = &allocator;
    qn_rt_model *rt = NULL;
    qn_rt_session *session = NULL;
    outputs want, got;
    expected(m, &want);
    assert_rt(m, qn_rt_model_from_memory(m->data, m->bytes, &options, &rt, &m->error));
    const uint64_t loading = f.calls;
    assert_true(loading > 10);
    assert_rt(m, qn_rt_session_create(rt, NULL, &session, &m->error));
    assert_int_equal(f.calls, loading + 1);
    f.fail_at = 1;
    f.persistent = true;
    for (int i = 0; i < 1000; i++) {
        infer(m, session, &got);
        assert_int_equal(f.calls, loading + 1);
    }
    assert_same(&want, &got);
    qn_rt_session_destroy(session);
    void *const memory = aligned_alloc(64, (qn_rt_model_arena_bytes(rt) + 63) / 64 * 64);
    qn_rt_session_options own;
    qn_rt_session_options_init(&own);
    own.arena = memory;
    own.arena_bytes = qn_rt_model_arena_bytes(rt);
    assert_rt(m, qn_rt_session_create(rt, &own, &session, &m->error));
    infer(m, session, &got);
    qn_rt_session_destroy(session);
    assert_int_equal(f.calls, loading + 1);
    free(memory);
    qn_rt_model_destroy(rt);
    assert_int_equal(f.live, 0);
}

static void loading_survives_lack_of_memory(void **state)
{
    model *const m = *state;
    fault f = {0};
    const qn_allocator allocator = fault_allocator(&f);
    qn_rt_options options;
    qn_rt_options_init(&options);
    options.allocator = &allocator;
    uint64_t failures = 0;
    for (uint64_t at = 1;; at++) {
        f.calls = 0;
        f.fail_at = at;
        qn_rt_model *rt = NULL;
        qn_rt_session *session = NULL;
        qn_status status = qn_rt_model_from_memory(m->data, m->bytes, &options, &rt, &m->error);
        if (status == QN_OK)
            status = qn_rt_session_create(rt, NULL, &session, &m->error);
        qn_rt_session_destroy(session);
        qn_rt_model_destroy(rt);
        assert_int_equal(f.live, 0);
        if (status == QN_OK && f.calls < at)
            break;
        assert_int_equal(status, QN_NO_MEMORY);
        failures++;
    }
    assert_true(failures > 50);
}

/* At odd addresses constants are copied where that is needed. */
static void a_file_may_lie_anywhere(void **state)
{
    model *const m = *state;
    outputs want, got;
    expected(m, &want);
    for (size_t shift = 1; shift < 8; shift += 2) {
        uint8_t *const moved = malloc(m->bytes + shift);
        assert_non_null(moved);
        memcpy(moved + shift, m->data, m->bytes);
        qn_rt_model *rt = NULL;
        qn_rt_session *session = NULL;
        assert_rt(m, qn_rt_model_from_memory(moved + shift, m->bytes, NULL, &rt, &m->error));
        assert_rt(m, qn_rt_session_create(rt, NULL, &session, &m->error));
        infer(m, session, &got);
        assert_same(&want, &got);
        qn_rt_session_destroy(session);
        qn_rt_model_destroy(rt);
        free(moved);
    }
}

/* --- bytes in, bytes out -----------------------------------------------------------------------*/
static void integers_go_in_and_out_as_they_are(void **state)
{
    (void)state;
    enum { N = 64 };
    builder b;
    rt_build_tiny(&b);
    size_t bytes;
    uint8_t *const data = rt_compact(&b, &bytes);
    qn_rt_model *rt = NULL;
    qn_rt_session *session = NULL;
    assert_ok(&b, qn_rt_model_from_memory(data, bytes, NULL, &rt, &b.error));
    assert_ok(&b, qn_rt_session_create(rt, NULL, &session, &b.error));
    uint8_t in[N], raw[N], from_real[N];
    float real[N];
    for (int i = 0; i < N; i++) {
        in[i] = (uint8_t)(i * 73);
        real[i] = (float)(in[i] - 100) * 0.05f;
    }
    assert_ok(&b, qn_rt_set_input_raw(session, 0, in, N, &b.error));
    assert_ok(&b, qn_rt_run(session, &b.error));
    assert_ok(&b, qn_rt_get_output_raw(session, 0, raw, N, &b.error));
    assert_ok(&b, qn_rt_set_input(session, 0, real, N, &b.error));
    assert_memory_equal(qn_rt_input_buffer(session, 0), in, N);
    assert_ok(&b, qn_rt_run(session, &b.error));
    assert_ok(&b, qn_rt_get_output_raw(session, 0, from_real, N, &b.error));
    assert_memory_equal(raw, from_real, N);
    assert_ok(&b, qn_rt_get_output(session, 0, real, N, &b.error));
    for (int i = 0; i < N; i++)
        assert_true(real[i] == (float)(raw[i] - 120) * 0.08f);
    /* Beyond the range is its end. */
    for (int i = 0; i < N; i++)
        real[i] = i % 2 != 0 ? 1e9f : -1e9f;
    assert_ok(&b, qn_rt_set_input(session, 0, real, N, &b.error));
    const uint8_t *const ends = qn_rt_input_buffer(session, 0);
    for (int i = 0; i < N; i++)
        assert_int_equal(ends[i], i % 2 != 0 ? 255 : 0);
    qn_rt_session_destroy(session);
    qn_rt_model_destroy(rt);
    free(data);
    build_end(&b);
}

/* --- misuse ------------------------------------------------------------------------------------*/
static void misuse_is_an_error(void **state)
{
    model *const m = *state;
    static float values[N_IN];
    qn_rt_model *rt = NULL;
    qn_rt_session *s = NULL;
    qn_error *const e = &m->error;
    qn_rt_options options;
    qn_rt_options_init(&options);
    options.cpu_mask = "pentium";
    assert_fails(m, qn_rt_model_from_memory(m->data, m->bytes, &options, &rt, e),
                 QN_INVALID_ARGUMENT, "pentium");
    options.struct_size = 1;
    assert_fails(m, qn_rt_model_from_memory(m->data, m->bytes, &options, &rt, e),
                 QN_INVALID_ARGUMENT, "qn_rt_options_init");
    assert_fails(m, qn_rt_model_load(NULL, NULL, &rt, e), QN_INVALID_ARGUMENT, "NULL");
    assert_fails(m, qn_rt_model_from_memory(NULL, 0, NULL, &rt, e), QN_INVALID_ARGUMENT, "NULL");
    assert_fails(m, qn_rt_model_load("/there/is/no.qnm", NULL, &rt, e), QN_IO, "/there/is/no.qnm");
    assert_fails(m, qn_rt_model_from_memory("hello", 5, NULL, &rt, e), QN_CORRUPT, "(memory)");
    qn_limits limits;
    qn_limits_init(&limits);
    limits.file_bytes = m->bytes - 1;
    qn_rt_options_init(&options);
    options.limits = &limits;
    assert_fails(m, qn_rt_model_from_memory(m->data, m->bytes, &options, &rt, e), QN_LIMIT,
                 "limit");
    qn_limits_init(&limits);
    limits.arena_bytes = 1000;
    assert_fails(m, qn_rt_model_from_memory(m->data, m->bytes, &options, &rt, e), QN_LIMIT, "1000");
    assert_null(rt);

    qn_rt_session_options own;
    qn_rt_session_options_init(&own);
    own.arena = values;
    own.arena_bytes = 64;
    assert_fails(m, qn_rt_session_create(m->rt, &own, &s, e), QN_INVALID_ARGUMENT, "needs");
    own.arena = (char *)aligned_alloc(64, 64) + 1;
    own.arena_bytes = SIZE_MAX;
    assert_fails(m, qn_rt_session_create(m->rt, &own, &s, e), QN_INVALID_ARGUMENT, "multiple");
    free((char *)own.arena - 1);
    qn_rt_session_options_init(&own);
    own.n_workers = 2;
    assert_fails(m, qn_rt_session_create(m->rt, &own, &s, e), QN_INVALID_ARGUMENT, "parallel_for");
    own.n_workers = 0;
    assert_fails(m, qn_rt_session_create(m->rt, &own, &s, e), QN_INVALID_ARGUMENT, "workers");
    own.struct_size = 0;
    assert_fails(m, qn_rt_session_create(m->rt, &own, &s, e), QN_INVALID_ARGUMENT, "init");
    assert_fails(m, qn_rt_session_create(NULL, NULL, &s, e), QN_INVALID_ARGUMENT, "NULL");
    assert_null(s);

    assert_rt(m, qn_rt_session_create(m->rt, NULL, &s, e));
    assert_fails(m, qn_rt_run(s, e), QN_STATE, "picture");
    assert_fails(m, qn_rt_get_output(s, 0, values, N_CLASSES, e), QN_STATE, "before a run");
    assert_null(qn_rt_output_buffer(s, 0));
    assert_fails(m, qn_rt_set_input(s, 1, values, N_IN, e), QN_INVALID_ARGUMENT, "no input 1");
    assert_fails(m, qn_rt_set_input(s, 0, values, 7, e), QN_INVALID_ARGUMENT, "not 7");
    assert_fails(m, qn_rt_set_input(s, 0, NULL, N_IN, e), QN_INVALID_ARGUMENT, "NULL");
    assert_fails(m, qn_rt_set_input_raw(s, 0, values, N_IN, e), QN_INVALID_ARGUMENT, "bytes");
    assert_rt(m, qn_rt_set_input(s, 0, values, N_IN, e));
    assert_rt(m, qn_rt_run(s, e));
    assert_fails(m, qn_rt_get_output(s, 2, values, 1, e), QN_INVALID_ARGUMENT, "no output 2");
    assert_fails(m, qn_rt_get_output(s, 0, values, 9, e), QN_INVALID_ARGUMENT, "not 9");
    assert_fails(m, qn_rt_get_output_raw(s, 0, values, 9, e), QN_INVALID_ARGUMENT, "not 9");
    assert_fails(m, qn_rt_run(s, e), QN_STATE, "not set since");
    assert_rt(m, qn_rt_get_output(s, 0, values, N_CLASSES, e));
    assert_rt(m, qn_rt_set_input(s, 0, m->picture, N_IN, e));
    assert_fails(m, qn_rt_get_output(s, 0, values, N_CLASSES, e), QN_STATE, "input was set");
    qn_rt_session_destroy(s);
    qn_rt_session_destroy(NULL);
    qn_rt_model_destroy(NULL);
}

/* Its inputs' memory was used: a second try with what is left there would give other values. */
static void a_run_that_fails_has_used_its_inputs(void **state)
{
    builder b;
    size_t bytes = 0;
    qn_error error;
    qn_rt_model *rt = NULL;
    qn_rt_session *s = NULL;
    float values[8] = {0, 1, 2, 3, 4, 5, 6, NAN};
    uint8_t q[8];
    (void)state;
    build_start(&b);
    qn_tensor *const x = build_input(&b, "x", DIMS(8));
    static const char *const names[3] = {"q", "scale", "zero"};
    qn_node *const ranged =
        qn__graph_add_node(b.graph, SIZE_MAX, QN_OP_DYNAMIC_QUANTIZE_LINEAR, "ranged", 1, 3);
    assert_non_null(ranged);
    ranged->inputs[0] = x;
    for (uint32_t i = 0; i < 3; i++) {
        qn_tensor *const t =
            qn__graph_add_tensor(b.graph, names[i], qn_type_plain_make(QN_DTYPE_NONE));
        assert_non_null(t);
        qn__node_set_output(ranged, i, t);
    }
    build_output(&b, ranged->outputs[0]);
    uint8_t *const data = rt_compact(&b, &bytes);
    assert_int_equal(qn_rt_model_from_memory(data, bytes, NULL, &rt, &error), QN_OK);
    assert_int_equal(qn_rt_session_create(rt, NULL, &s, &error), QN_OK);
    assert_int_equal(qn_rt_set_input(s, 0, values, 8, &error), QN_OK);
    assert_int_equal(qn_rt_run(s, &error), QN_NONFINITE);
    assert_int_equal(qn_rt_get_output_raw(s, 0, q, 8, &error), QN_STATE);
    assert_int_equal(qn_rt_run(s, &error), QN_STATE);
    values[7] = 7;
    assert_int_equal(qn_rt_set_input(s, 0, values, 8, &error), QN_OK);
    assert_int_equal(qn_rt_run(s, &error), QN_OK);
    assert_int_equal(qn_rt_get_output_raw(s, 0, q, 8, &error), QN_OK);
    assert_int_equal(q[7], 255);
    qn_rt_session_destroy(s);
    qn_rt_model_destroy(rt);
    free(data);
    build_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_are_those_of_the_toolkit),
        cmocka_unit_test(values_are_described),
        cmocka_unit_test(an_arena_of_the_caller_is_enough),
        cmocka_unit_test(inputs_and_outputs_can_be_used_in_place),
        cmocka_unit_test(threads_of_the_caller_give_the_same_bytes),
        cmocka_unit_test(running_allocates_nothing),
        cmocka_unit_test(loading_survives_lack_of_memory),
        cmocka_unit_test(a_file_may_lie_anywhere),
        cmocka_unit_test(integers_go_in_and_out_as_they_are),
        cmocka_unit_test(misuse_is_an_error),
        cmocka_unit_test(a_run_that_fails_has_used_its_inputs),
    };
    return cmocka_run_group_tests(tests, start, end);
}
