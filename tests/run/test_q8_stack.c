/* How much stack a run takes, on every instruction set of the machine: docs/runtime.md says it, and
 * threads that programs lend have no more. */
#include "q8_net.h"

#include <pthread.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { INSTRUMENTED = 1 };
#else
enum { INSTRUMENTED = 0 };
#endif
enum { KIB = 1024, LIMIT = 128 * KIB, LIMIT_AMX = 224 * KIB, STACK = 512 * KIB, PAINT = 0x5a };

typedef struct layer {
    const char *name;
    int64_t c, oc, size, kernel, group;
    bool is_signed, by_integers;
} layer;

typedef struct job {
    qn_exec *exec;
    const void *inputs[1];
    qn_error error;
    qn_status status;
    uintptr_t top;
} job;

static void *run_job(void *arg)
{
    job *const j = arg;
    j->top = (uintptr_t)__builtin_frame_address(0);
    j->status = qn__exec_run(j->exec, j->inputs, &j->error);
    return NULL;
}

/* Bytes between a thread's first frame and the lowest byte that a run wrote. */
static size_t stack_of(qn_exec *exec, const void *input)
{
    uint8_t *const stack = aligned_alloc(4096, STACK);
    job j = {.exec = exec, .inputs = {input}};
    pthread_attr_t attributes;
    pthread_t thread;
    size_t low = 0;
    assert_non_null(stack);
    memset(stack, PAINT, STACK);
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstack(&attributes, stack, STACK), 0);
    assert_int_equal(pthread_create(&thread, &attributes, run_job, &j), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(pthread_attr_destroy(&attributes), 0);
    assert_int_equal(j.status, QN_OK);
    while (low < STACK && stack[low] == PAINT)
        low++;
    const size_t used = (size_t)(j.top - (uintptr_t)stack) - low;
    free(stack);
    return used;
}

static sample *sample_of(const layer *l)
{
    sample *const s = sample_start(5);
    builder *const b = &s->n->b;
    const int64_t x[4] = {1, l->c, l->size, l->size};
    const int64_t w[4] = {l->oc, l->c / l->group, l->kernel, l->kernel};
    const int64_t pad = l->kernel / 2, pads[4] = {pad, pad, pad, pad};
    size_t count = 0;
    assert_true(qn_shape_count(&count, x, 4) && count <= MAX_IN);
    qn_tensor *const q = NODE(b, QUANTIZE_LINEAR, "q", net_input(s->n, s->x, true, 4, x));
    q->type = net_quant(s->n, l->is_signed ? QN_DTYPE_I8 : QN_DTYPE_U8, 0.02f, 0);
    assert_true(qn_shape_count(&count, w, 4) && count <= MAX_W);
    for (size_t i = 0; i < count; i++)
        s->w[i] = (int8_t)between(-128, 127);
    qn_tensor *const weight = build_const(b, "w", QN_DTYPE_I8, s->w, 4, w);
    weight->type = net_quant(s->n, QN_DTYPE_I8, 0.006f, 0);
    s->y = NODE(b, CONV, "y", q, weight);
    set_ints(b, s->y, "pads", 4, pads);
    set_int(b, s->y, "group", l->group);
    s->y->type = net_quant(s->n, QN_DTYPE_U8, 0.5f, 100);
    build_output(b, s->y);
    return s;
}

static void runs_take_what_is_documented(void **state)
{
    (void)state;
    static const layer layers[] = {
        {"Winograd", 64, 48, 8, 3, 1, false, false},
        {"Winograd, most channels", 128, 16, 8, 3, 1, false, false},
        {"products in place", 128, 64, 8, 1, 1, false, false},
        {"copied rows", 60, 48, 8, 3, 1, true, false},
        {"copied rows, 24 columns", 21, 24, 8, 1, 1, true, false},
        {"copied rows by integers", 60, 48, 8, 3, 1, true, true},
        {"rows too long to copy", 1800, 16, 3, 1, 1, true, false},
        {"depthwise in place", 64, 64, 12, 3, 64, false, false},
        {"depthwise in place by integers", 64, 64, 12, 3, 64, false, true},
        {"depthwise, copied", 40, 40, 12, 5, 40, true, false},
        {"depthwise, copied, by integers", 40, 40, 12, 5, 40, true, true},
        {"depthwise, folded", 8, 8, 12, 3, 8, true, true},
    };
    uint32_t flags[8];
    const size_t n_flags = masks(flags);
    if (INSTRUMENTED)
        skip();
    for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]); i++)
        for (size_t f = 0; f < n_flags; f++) {
            const layer *const l = &layers[i];
            sample *const s = sample_of(l);
            builder *const b = &s->n->b;
            qn_plan_options options;
            qn_plan *plan = NULL;
            qn_exec *exec = NULL;
            qn__plan_options_init(&options, b->ctx);
            options.cpu_flags = flags[f];
            options.requantize = l->by_integers ? QN_REQUANTIZE_GEMMLOWP : QN_REQUANTIZE_DEFAULT;
            assert_ok(b, qn__plan_create(b->graph, &options, &plan, &b->error));
            assert_ok(b, qn__exec_create(plan, NULL, &exec, &b->error));
            const size_t used = stack_of(exec, s->x);
            const size_t limit = (flags[f] & QN_CPU_AMX) != 0 ? LIMIT_AMX : LIMIT;
            if (used >= limit)
                fail_msg("%s, instruction sets %#x: %zu bytes of stack, limit %zu", l->name,
                         flags[f], used, limit);
            qn__exec_destroy(exec);
            qn__plan_destroy(plan);
            sample_free(s);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(runs_take_what_is_documented)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
