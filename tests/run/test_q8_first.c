/* First layers: a QuantizeLinear and the convolution that quantizes on the way to its padded rows,
 * against the reference, and where it may not. */
#include <sys/mman.h>
#include <unistd.h>

#include "plan_fault.h"
#include "q8_net.h"

enum { FIRST = 60, PAINT = 0xa5 };

typedef struct first_layer {
    int64_t x[4], w[4], pads[4], strides[2], rows_apart;
    int32_t zero;
} first_layer;

static const first_layer PICTURE = {.x = {1, 3, 33, 29},
                                    .w = {8, 3, 3, 3},
                                    .pads = {0, 1, 1, 0},
                                    .strides = {2, 2},
                                    .rows_apart = 1,
                                    .zero = 77};

static qn_tensor *floats_of(sample *s, const first_layer *l, bool last)
{
    size_t count = 0;
    assert_true(qn_shape_count(&count, l->x, 4) && count <= MAX_IN);
    for (size_t i = 0; i < count; i++)
        s->x[i] = (float)(between(-40, 300) - l->zero) * 0.02f;
    return net_input(s->n, s->x, last, 4, l->x);
}

static qn_tensor *conv_of(sample *s, const first_layer *l, qn_tensor *q)
{
    const bool has_bias = net_random(2) != 0;
    qn_tensor *in[3] = {q, weights(s, 4, l->w, 0), NULL};
    if (has_bias)
        in[2] = int_bias(s, (size_t)l->w[0]);
    qn_tensor *const y = build_node(&s->n->b, QN_OP_CONV, "y", has_bias ? 3 : 2, in);
    const int64_t dilations[2] = {l->rows_apart, 1};
    set_ints(&s->n->b, y, "pads", 4, l->pads);
    set_ints(&s->n->b, y, "strides", 2, l->strides);
    set_ints(&s->n->b, y, "dilations", 2, dilations);
    return y;
}

static qn_tensor *bytes_of(sample *s, const first_layer *l, qn_tensor *x)
{
    qn_tensor *const q = NODE(&s->n->b, QUANTIZE_LINEAR, "q", x);
    q->type = net_quant(s->n, QN_DTYPE_U8, 0.02f, l->zero);
    return q;
}

/* Odd sizes, windows that reach over any edge, all numbers of channels that are copied. */
static first_layer random_layer(void)
{
    const int64_t kh = between(1, 7), kw = between(2, 7), c = between(1, 5);
    first_layer l = {
        .x = {between(1, 2), c, between(kh, 60), between(kw, 75)},
        .w = {between(1, 33), c, kh, kw},
        .pads = {between(0, kh - 1), between(0, kw - 1), between(0, kh - 1), between(0, kw - 1)},
        .strides = {between(1, 3), between(1, 3)},
        .rows_apart = kh < 4 && net_random(4) == 0 ? 2 : 1,
        .zero = (int32_t)(net_random(3) == 0 ? 0 : between(0, 255))};
    l.x[2] += l.rows_apart * kh;
    return l;
}

static void first_layers_are_the_reference(void **state)
{
    (void)state;
    static const uint32_t threads[] = {1, 3};
    for (size_t i = 0; i < FIRST; i++) {
        sample *const s = sample_start(i * 7121 + 3);
        const first_layer l = random_layer();
        qn_tensor *const y = conv_of(s, &l, bytes_of(s, &l, floats_of(s, &l, net_random(2) != 0)));
        finish(s, y, (size_t)(l.w[1] * l.w[2] * l.w[3]), 0.02f);
        for (size_t k = 0; k < 2; k++) {
            size_t bytes = 0;
            char kernel[64];
            s->kind = KINDS[k];
            uint8_t *const expected = q8_reference(s, true, &bytes, kernel);
            q8_expect(s, i, expected, bytes, threads, 2, false);
            free(expected);
        }
        sample_free(s);
    }
}

/* --- the caller's floats -----------------------------------------------------------------------*/
/* `bytes` right before or right behind memory that must not be touched. */
typedef struct guarded {
    uint8_t *map, *at;
    size_t size;
} guarded;

static guarded guard(size_t bytes, bool before)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;
    guarded g = {.size = room + 2 * page};
    g.map = mmap(NULL, g.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.map != MAP_FAILED);
    assert_int_equal(mprotect(g.map + page, room, PROT_READ | PROT_WRITE), 0);
    g.at = g.map + page + (before ? (room - bytes) / sizeof(uint64_t) * sizeof(uint64_t) : 0);
    return g;
}

/* They are read where they are, which may be the end of what can be read. */
static void no_other_floats_are_read(void **state)
{
    (void)state;
    uint32_t flags[8];
    const size_t n_flags = masks(flags);
    qn_plan_options options;
    for (size_t i = 0; i < FIRST; i++) {
        sample *const s = sample_start(i * 5237 + 1);
        builder *const b = &s->n->b;
        first_layer l = random_layer();
        size_t count = 0, bytes = 0, got = 0;
        char kernel[64];
        if (l.x[3] > 20 + l.w[3]) /* mostly narrow ones */
            l.x[3] = l.w[3] + between(0, 20);
        assert_true(qn_shape_count(&count, l.x, 4));
        finish(s, conv_of(s, &l, bytes_of(s, &l, floats_of(s, &l, false))),
               (size_t)(l.w[1] * l.w[2] * l.w[3]), 0.02f);
        uint8_t *const expected = q8_reference(s, true, &bytes, kernel);
        const guarded g = guard(count * sizeof(float), i % 4 != 0);
        memcpy(g.at, s->x, count * sizeof(float));
        s->n->data[0] = (const float *)(const void *)g.at;
        qn__plan_options_init(&options, b->ctx);
        for (size_t f = 0; f < n_flags; f++) {
            options.cpu_flags = flags[f];
            uint8_t *const y = run_sample(s, &options, 1 + (uint32_t)f % 3, &got, kernel);
            expect_same(y, got, expected, bytes, i, kernel, 1 + (uint32_t)f % 3);
            free(y);
        }
        free(expected);
        munmap(g.map, g.size);
        sample_free(s);
    }
}

/* --- what is fused -----------------------------------------------------------------------------*/
typedef struct seen {
    bool q, y;
    uint64_t sum; /* of the bytes of q */
} seen;

static qn_status look(void *ctx, const qn_view *view, qn_error *error)
{
    seen *const s = ctx;
    (void)error;
    s->y |= strcmp(view->tensor->name, "y_out") == 0;
    if (strcmp(view->tensor->name, "q_out") != 0)
        return QN_OK;
    s->q = true;
    for (size_t i = 0; i < view->count; i++)
        s->sum += ((const uint8_t *)view->data)[i];
    return QN_OK;
}

/* Runs it twice and says whether the QuantizeLinear was a step of its own; out: the first output's
 * bytes. */
static bool quantizes_apart(sample *s, const qn_plan_options *options, seen *hook, uint8_t *out)
{
    builder *const b = &s->n->b;
    qn_plan *plan = NULL;
    qn_plan_memory memory;
    size_t room = 0, count = 0, bytes = 0;
    const void *const inputs[1] = {s->x};
    assert_ok(b, qn__plan_create(b->graph, options, &plan, &b->error));
    qn__plan_memory(plan, &memory);
    assert_true(memory.arena <= memory.live + memory.live / 10);
    /* In memory that was somebody else's. */
    assert_ok(b, qn__exec_bytes(plan, &room, &b->error));
    uint8_t *const own = aligned_alloc(64, (room + 63) / 64 * 64);
    assert_non_null(own);
    memset(own, PAINT, room);
    qn_exec *const exec = qn__exec_place(plan, NULL, own);
    qn__exec_set_profiling(exec, true);
    if (hook != NULL)
        qn__exec_set_hook(exec, look, hook);
    for (int twice = 0; twice < 2; twice++)
        assert_ok(b, qn__exec_run(exec, inputs, &b->error));
    const qn_view *const view = qn__exec_output(exec, 0);
    assert_true(qn__dtype_bytes(&bytes, view->tensor->type.dtype, view->count) && bytes <= MAX_IN);
    memcpy(out, view->data, bytes);
    bool apart = false;
    const qn_step_time *const steps = qn__exec_profile(exec, &count);
    for (size_t i = 0; i < count; i++)
        apart |= strcmp(steps[i].node, "q") == 0;
    free(own);
    qn__plan_destroy(plan);
    return apart;
}

/* What else there is about the bytes that are convolved. */
typedef enum reader { ALONE, OUTPUT, SECOND_READER, TWO_CONVOLUTIONS, KEPT, REFERENCE } reader;

static sample *with_reader(reader other)
{
    sample *const s = sample_start(11);
    qn_tensor *const q = bytes_of(s, &PICTURE, floats_of(s, &PICTURE, false));
    qn_tensor *const y = conv_of(s, &PICTURE, q);
    finish(s, y, 27, 0.02f);
    if (other == OUTPUT)
        build_output(&s->n->b, q);
    if (other == SECOND_READER)
        build_output(&s->n->b, NODE(&s->n->b, DEQUANTIZE_LINEAR, "floats", q));
    if (other == TWO_CONVOLUTIONS) {
        qn_tensor *const z = NODE(&s->n->b, CONV, "z", q, y->producer->inputs[1]);
        z->type = net_quant(s->n, QN_DTYPE_U8, 0.5f, 100);
        build_output(&s->n->b, z);
    }
    return s;
}

static void only_what_nobody_sees_is_fused(void **state)
{
    (void)state;
    static uint8_t expected[MAX_IN], got[MAX_IN];
    for (reader r = ALONE; r <= REFERENCE; r++) {
        sample *const s = with_reader(r);
        qn_plan_options options;
        seen hook = {0};
        memset(got, 0, sizeof(got));
        qn__plan_options_init(&options, s->n->b.ctx);
        options.keep_all = r == KEPT;
        options.reference = r == REFERENCE;
        assert_int_equal(quantizes_apart(s, &options, &hook, got), r != ALONE);
        assert_true(hook.y);
        assert_int_equal(hook.q, r != ALONE);
        assert_int_equal(hook.sum > 0, r != ALONE);
        if (r == ALONE)
            memcpy(expected, got, sizeof(got));
        assert_memory_equal(got, expected, sizeof(got));
        sample_free(s);
    }
}

/* Floats that something else reads later, too, and that would be gone by then. */
static void floats_are_kept(void **state)
{
    (void)state;
    static uint8_t got[MAX_IN];
    for (int order = 0; order < 2; order++) {
        sample *const s = sample_start(23);
        builder *const b = &s->n->b;
        qn_tensor *const x = NODE(b, RELU, "x", floats_of(s, &PICTURE, false)), *r = NULL;
        qn_tensor *const q = bytes_of(s, &PICTURE, x);
        if (order == 0)
            r = NODE(b, EXP, "r", x);
        qn_tensor *const y = conv_of(s, &PICTURE, q);
        if (order == 1)
            r = NODE(b, EXP, "r", x);
        y->type = net_quant(s->n, QN_DTYPE_U8, 0.5f, 100);
        s->y = y;
        build_output(b, y);
        build_output(b, NODE(b, MUL, "rr", r, r));
        size_t bytes = 0;
        char kernel[64];
        qn_plan_options options;
        qn__plan_options_init(&options, b->ctx);
        uint8_t *const expected = q8_reference(s, true, &bytes, kernel);
        assert_int_equal(quantizes_apart(s, &options, NULL, got), order == 0);
        assert_memory_equal(got, expected, bytes);
        free(expected);
        sample_free(s);
    }
}

static void planning_survives_lack_of_memory(void **state)
{
    (void)state;
    fault f = {0};
    sample *const s = sample_on(plan_fault_net(&f));
    finish(s, conv_of(s, &PICTURE, bytes_of(s, &PICTURE, floats_of(s, &PICTURE, false))), 27,
           0.02f);
    const void *inputs[1] = {s->x};
    plan_fault_sweep(&f, &s->n->b, inputs, 12);
    free(s->n);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_layers_are_the_reference),
        cmocka_unit_test(no_other_floats_are_read),
        cmocka_unit_test(only_what_nobody_sees_is_fused),
        cmocka_unit_test(floats_are_kept),
        cmocka_unit_test(planning_survives_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
