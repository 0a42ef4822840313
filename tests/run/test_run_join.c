/* Concats whose inputs are computed in their places: random networks give the bytes of a plan in
 * which every tensor exists by itself, and what is in its place is not copied. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "q8_net.h"

#include <time.h>

enum { H = 5, W = 6, MOST = 24, ROUNDS = 300 };

typedef struct joined {
    net *n;
    qn_tensor *all[MOST]; /* of as many pictures of H x W, of one type */
    int64_t channels[MOST];
    size_t count;
    bool bytes;
    float x[2 * 16 * H * W];
} joined;

static const char *name_of(const joined *j, char name[16])
{
    snprintf(name, 16, "t%zu", j->count);
    return name;
}

static qn_tensor *keep(joined *j, qn_tensor *t, int64_t channels)
{
    assert_true(j->count < MOST);
    j->channels[j->count] = channels;
    if (j->bytes && t->type.kind != QN_TYPE_QUANT)
        t->type = net_quant(j->n, QN_DTYPE_U8, net_random(8) == 0 ? 0.06f : 0.05f, 100);
    j->all[j->count++] = t;
    return t;
}

static qn_tensor *start(joined *j, int64_t images, bool bytes)
{
    *j = (joined){.n = net_start(), .bytes = bytes};
    const int64_t dims[4] = {images, 1 + net_random(16), H, W};
    net_fill(j->x, (size_t)(images * dims[1] * H * W));
    qn_tensor *x = net_input(j->n, j->x, net_random(2) != 0, 4, dims);
    return keep(j, bytes ? NODE(&j->n->b, QUANTIZE_LINEAR, "q", x) : x, dims[1]);
}

/* Same size; sometimes by channel. */
static qn_tensor *conv(joined *j, size_t of)
{
    builder *const b = &j->n->b;
    const bool depthwise = net_random(6) == 0;
    const int64_t c = j->channels[of], oc = depthwise ? c : 1 + net_random(40);
    const int64_t k = net_random(2) != 0 ? 3 : 1, pads[4] = {k / 2, k / 2, k / 2, k / 2};
    const int64_t dims[4] = {oc, depthwise ? 1 : c, k, k};
    const size_t count = (size_t)(dims[0] * dims[1] * k * k);
    char name[16], weights[16];
    snprintf(weights, sizeof(weights), "w%zu", j->count);
    int8_t *const bytes = calloc(count, 1);
    float *const floats = calloc(count, sizeof(float));
    assert_true(bytes != NULL && floats != NULL);
    for (size_t i = 0; i < count; i++) {
        bytes[i] = (int8_t)between(-128, 127);
        floats[i] = 0.2f * net_random_float();
    }
    qn_tensor *const w = j->bytes ? build_const(b, weights, QN_DTYPE_I8, bytes, 4, dims)
                                  : build_const(b, weights, QN_DTYPE_F32, floats, 4, dims);
    if (j->bytes)
        w->type = net_quant(j->n, QN_DTYPE_I8, 0.002f, 0);
    qn_tensor *const y = NODE(b, CONV, name_of(j, name), j->all[of], w);
    set_ints(b, y, "pads", 4, pads);
    if (depthwise)
        set_int(b, y, "group", c);
    free(bytes);
    free(floats);
    return keep(j, y, oc);
}

static qn_tensor *concat(joined *j, const size_t *of, uint32_t n)
{
    char name[16];
    qn_tensor *parts[4];
    int64_t channels = 0;
    for (uint32_t i = 0; i < n; i++) {
        parts[i] = j->all[of[i]];
        channels += j->channels[of[i]];
    }
    qn_tensor *const y = build_node(&j->n->b, QN_OP_CONCAT, name_of(j, name), n, parts);
    set_int(&j->n->b, y, "axis", 1);
    return keep(j, y, channels);
}

/* All outputs one after another. */
static uint8_t *run_joined(joined *j, const qn_plan_options *options, uint32_t threads,
                           size_t *bytes, size_t *concats)
{
    builder *const b = &j->n->b;
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    qn_pool *pool = NULL;
    assert_ok(b, qn__plan_create(b->graph, options, &plan, &b->error));
    qn_plan_memory memory;
    qn__plan_memory(plan, &memory);
    assert_true(memory.arena <= memory.live + memory.live / 4 + 64 * 64);
    if (threads > 1)
        assert_ok(b, qn__pool_create(b->ctx, threads, &pool, &b->error));
    assert_ok(b, qn__exec_create(plan, pool, &exec, &b->error));
    qn__exec_set_profiling(exec, true);
    float moved[2 * 16 * H * W];
    const void *inputs[1] = {j->x};
    if (j->n->last[0]) {
        qn__convert_layout(NULL, moved, QN_LAYOUT_CHANNELS_LAST, j->x, QN_LAYOUT_ROW_MAJOR, 4,
                           j->n->dims[0], sizeof(float));
        inputs[0] = moved;
    }
    for (int twice = 0; twice < 2; twice++)
        assert_ok(b, qn__exec_run(exec, inputs, &b->error));
    uint8_t *all = NULL;
    *bytes = 0;
    for (size_t i = 0; i < b->graph->n_outputs; i++) {
        const qn_view *const view = qn__exec_output(exec, i);
        size_t size;
        assert_int_equal(view->pitch, 0);
        assert_true(qn__dtype_bytes(&size, view->tensor->type.dtype, view->count));
        all = realloc(all, *bytes + size + 1);
        assert_non_null(all);
        memcpy(all + *bytes, view->data, size);
        *bytes += size;
    }
    size_t steps = 0;
    const qn_step_time *const times = qn__exec_profile(exec, &steps);
    *concats = 0;
    for (size_t i = 0; i < steps; i++)
        *concats += strcmp(times[i].kernel, "Concat") == 0;
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    qn__pool_destroy(b->ctx, pool);
    return all;
}

/* Every instruction set and some threads, against tensors that exist by themselves. concats: steps
 * that copy, or SIZE_MAX. */
static void expect_joined(joined *j, size_t index, size_t concats)
{
    uint32_t flags[8];
    const size_t n_flags = masks(flags);
    qn_plan_options options;
    qn__plan_options_init(&options, j->n->b.ctx);
    for (size_t f = 0; f < n_flags; f++) {
        size_t bytes, got_bytes, copied;
        options.cpu_flags = flags[f];
        options.keep_all = true;
        uint8_t *const expected = run_joined(j, &options, 1, &bytes, &copied);
        options.keep_all = false;
        uint8_t *const got = run_joined(j, &options, index % 10 == 0 ? 3 : 1, &got_bytes, &copied);
        expect_same(got, got_bytes, expected, bytes, index, "joined", 1);
        if (concats != SIZE_MAX)
            assert_int_equal(copied, concats);
        free(expected);
        free(got);
    }
    net_end(j->n);
}

static void random_networks(void **state)
{
    (void)state;
    joined *const j = calloc(1, sizeof(*j));
    assert_non_null(j);
    for (size_t round = 0; round < ROUNDS; round++) {
        qn_tensor *x = start(j, 1 + net_random(2), net_random(2) != 0);
        for (size_t i = 3 + net_random(12); i > 0; i--) {
            char name[16];
            size_t of[4];
            int64_t channels = 0;
            const uint32_t kind = net_random(8), n = 2 + net_random(3);
            for (uint32_t k = 0; k < 4; k++) {
                of[k] = j->count - 1 - net_random(j->count < 4 ? (uint32_t)j->count : 4);
                channels += k < n ? j->channels[of[k]] : 0;
            }
            if (kind < 3 && channels < 100)
                x = concat(j, of, n);
            else if (kind == 3)
                x = keep(j, NODE(&j->n->b, RELU, name_of(j, name), j->all[of[0]]),
                         j->channels[of[0]]);
            else
                x = conv(j, of[0]);
        }
        build_output(&j->n->b, x);
        for (uint32_t k = net_random(3); k > 0; k--) {
            qn_tensor *const more = j->all[net_random((uint32_t)j->count)];
            if (more != x && more->producer != NULL)
                build_output(&j->n->b, more);
        }
        expect_joined(j, round, SIZE_MAX);
    }
    free(j);
}

/* Two convolutions and what was joined of others. */
static void nothing_is_copied(void **state)
{
    (void)state;
    joined *const j = calloc(1, sizeof(*j));
    assert_non_null(j);
    for (int kind = 0; kind < 4; kind++) {
        const bool bytes = kind % 2 != 0;
        qn_tensor *x = start(j, kind < 2 ? 1 : 2, false);
        builder *const b = &j->n->b;
        if (bytes) {
            x = NODE(b, QUANTIZE_LINEAR, "q", x);
            x->type = net_quant(j->n, QN_DTYPE_U8, 0.05f, 100);
        }
        qn_tensor *parts[2];
        for (int i = 0; i < 2; i++) {
            const int64_t dims[4] = {8 + i, j->channels[0], 1, 1};
            char name[2][16];
            float floats[9 * 16];
            int8_t weights[9 * 16];
            for (size_t k = 0; k < 9 * 16; k++)
                weights[k] = (int8_t)(floats[k] = (float)between(-128, 127));
            snprintf(name[0], 16, "w%d", i);
            snprintf(name[1], 16, "y%d", i);
            qn_tensor *const w = bytes ? build_const(b, name[0], QN_DTYPE_I8, weights, 4, dims)
                                       : build_const(b, name[0], QN_DTYPE_F32, floats, 4, dims);
            if (bytes)
                w->type = net_quant(j->n, QN_DTYPE_I8, 0.002f, 0);
            parts[i] = NODE(b, CONV, name[1], x, w);
            if (bytes)
                parts[i]->type = x->type;
        }
        qn_tensor *y = build_node(b, QN_OP_CONCAT, "y", 2, parts);
        set_int(b, y, "axis", 1);
        if (bytes)
            y->type = x->type;
        build_output(b, y);
        expect_joined(j, (size_t)kind, 0);
    }
    free(j);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Every part is in its place, and no Concat has to look at all values to find that out. */
static void very_many_concats(void **state)
{
    (void)state;
    enum { CONCATS = 20000 }; /* an even number: each changes the sign */
    static const int64_t dims[2] = {1, 16}, first[1] = {0}, end[1] = {1}, axis[1] = {0};
    float x[16];
    net *const n = net_start();
    builder *const b = &n->b;
    net_fill(x, 16);
    qn_tensor *t = net_input(n, x, false, 2, dims);
    qn_tensor *const cut[3] = {build_ints(b, "first", 1, first), build_ints(b, "end", 1, end),
                               build_ints(b, "axis", 1, axis)};
    for (int i = 0; i < CONCATS; i++) {
        char name[4][16];
        for (int k = 0; k < 4; k++)
            snprintf(name[k], sizeof(name[k]), "%c%d", "pqcs"[k], i);
        qn_tensor *const p = NODE(b, ABS, name[0], t), *const q = NODE(b, NEG, name[1], t);
        qn_tensor *const both = NODE(b, CONCAT, name[2], q, p);
        set_int(b, both, "axis", 0);
        t = NODE(b, SLICE, name[3], both, cut[0], cut[1], cut[2]);
    }
    build_output(b, t);
    qn_plan_options options;
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    qn__plan_options_init(&options, b->ctx);
    const double start = seconds();
    assert_ok(b, qn__plan_create(b->graph, &options, &plan, &b->error));
    assert_true(seconds() - start < 10.0); /* looking at all values took 15 */
    assert_ok(b, qn__exec_create(plan, NULL, &exec, &b->error));
    qn__exec_set_profiling(exec, true);
    const void *inputs[1] = {x};
    assert_ok(b, qn__exec_run(exec, inputs, &b->error));
    for (size_t i = 0; i < 16; i++)
        assert_true(((const float *)qn__exec_output(exec, 0)->data)[i] == x[i]);
    size_t steps = 0, copied = 0;
    const qn_step_time *const times = qn__exec_profile(exec, &steps);
    for (size_t i = 0; i < steps; i++)
        copied += strcmp(times[i].kernel, "Concat") == 0;
    assert_int_equal(copied, 1); /* the first, one part of which lies in the caller's memory */
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    net_end(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_networks),
        cmocka_unit_test(nothing_is_copied),
        cmocka_unit_test(very_many_concats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
