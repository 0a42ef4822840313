/* Random small networks compute the same after simplification, and their inputs and outputs keep
 * names and shapes. */
#include "ir/graph_build.h"

#include "pass/pass.h"
#include "run/run.h"

#include <math.h>
#include <stdlib.h>

#define CHANNELS 4
#define SIDE 6

static uint32_t random_state;
static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)(random_state >> 8) * n) >> 24);
}

static float random_float(void)
{
    return (float)random_below(2001) / 1000.0f - 1.0f;
}

static qn_tensor *random_const(builder *b, const char *name, bool positive, size_t rank,
                               const int64_t *dims)
{
    size_t count = 0;
    assert_true(qn_shape_count(&count, dims, rank));
    float *values = qn__arena_calloc(&b->graph->arena, count + 1, sizeof(*values));
    assert_non_null(values);
    for (size_t i = 0; i < count; i++)
        values[i] = positive ? fabsf(random_float()) : random_float();
    return build_const(b, name, QN_DTYPE_F32, values, rank, dims);
}

static qn_tensor *random_conv(builder *b, const char *name, qn_tensor *x)
{
    const int64_t group = random_below(2) != 0 ? 1 : 2, k = random_below(2) != 0 ? 1 : 3;
    qn_tensor *w = random_const(b, "w", false, DIMS(CHANNELS, CHANNELS / group, k, k));
    qn_tensor *bias = random_below(2) != 0 ? random_const(b, "b", false, DIMS(CHANNELS)) : NULL;
    qn_tensor *y = bias != NULL ? NODE(b, CONV, name, x, w, bias) : NODE(b, CONV, name, x, w);
    set_int(b, y, "group", group);
    set_ints(b, y, "pads", DIMS(k / 2, k / 2, k / 2, k / 2));
    return y;
}

static qn_tensor *random_bn(builder *b, const char *name, qn_tensor *x)
{
    return NODE(b, BATCH_NORMALIZATION, name, x, random_const(b, "g", false, DIMS(CHANNELS)),
                random_const(b, "h", false, DIMS(CHANNELS)),
                random_const(b, "m", false, DIMS(CHANNELS)),
                random_const(b, "v", true, DIMS(CHANNELS)));
}

/* [N, CHANNELS, SIDE, SIDE] to the same. */
static qn_tensor *random_layer(builder *b, const char *name, qn_tensor *x, qn_tensor *other)
{
    const float six = 0.7f;
    qn_tensor *y;
    switch (random_below(11)) {
    case 0:
    case 1:
        return random_conv(b, name, x);
    case 2:
    case 3:
        return random_bn(b, name, x);
    case 4:
        return NODE(b, RELU, name, x);
    case 5:
        return NODE(b, CLIP, name, x, NULL, build_const(b, "max", QN_DTYPE_F32, &six, 0, NULL));
    case 6:
        return NODE(b, MUL, name, random_const(b, "k", false, DIMS(CHANNELS, 1, 1)), x);
    case 7:
        return NODE(b, SUB, name, random_const(b, "k", false, DIMS(1, CHANNELS, 1, 1)), x);
    case 8:
        return NODE(b, ADD, name, x, other);
    case 9:
        return NODE(b, IDENTITY, name, x);
    default:
        y = NODE(b, TRANSPOSE, name, x);
        set_ints(b, y, "perm", 4,
                 random_below(2) != 0 ? (const int64_t[]){0, 1, 2, 3}
                                      : (const int64_t[]){0, 1, 3, 2});
        return y;
    }
}

static void random_network(builder *b, uint32_t seed)
{
    random_state = seed;
    build_start(b);
    qn_tensor *pool[32];
    uint32_t n = 0;
    char name[16];
    pool[n++] = build_input(b, "x", DIMS(-1, CHANNELS, SIDE, SIDE));
    const uint32_t count = 3 + random_below(12);
    for (uint32_t i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "n%u", i);
        /* Mostly a chain, so that things fuse; sometimes a branch. */
        qn_tensor *x = random_below(5) == 0 ? pool[random_below(n)] : pool[n - 1];
        pool[n] = random_layer(b, name, x, pool[random_below(n)]);
        n++;
    }
    qn_tensor *mean = NODE(b, REDUCE_MEAN, "mean", pool[n - 1], build_ints(b, "ax", DIMS(2, 3)));
    qn_tensor *flat = NODE(b, RESHAPE, "flat", mean, build_ints(b, "to", DIMS(-1, CHANNELS)));
    qn_tensor *mm = NODE(b, MATMUL, "mm", flat, random_const(b, "wm", false, DIMS(CHANNELS, 3)));
    build_output(b, NODE(b, ADD, "scores", mm, random_const(b, "wb", false, DIMS(3))));
    build_output(b, pool[1 + random_below(n - 1)]);
    assert_ok(b, qn__graph_infer(b->graph, &b->error));
    assert_ok(b, qn__graph_verify(b->graph, &b->error));
}

#define MAX_OUT (2 * CHANNELS * SIDE * SIDE)

/* Both outputs for a batch of 2. */
static void run(builder *b, float out[2][MAX_OUT], size_t count[2])
{
    static float x[MAX_OUT];
    for (size_t i = 0; i < MAX_OUT; i++)
        x[i] = sinf((float)i);
    qn_plan_options options;
    qn__plan_options_init(&options, b->ctx);
    options.batch = 2;
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    const void *inputs[1] = {x};
    assert_ok(b, qn__plan_create(b->graph, &options, &plan, &b->error));
    assert_ok(b, qn__exec_create(plan, NULL, &exec, &b->error));
    assert_ok(b, qn__exec_run(exec, inputs, &b->error));
    for (size_t i = 0; i < 2; i++) {
        const qn_view *view = qn__exec_output(exec, i);
        assert_in_range(view->count, 1, MAX_OUT);
        count[i] = view->count;
        qn__view_to_f32(view, out[i]);
    }
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
}

/* Number of nodes that passes took away from `seeds` networks; bits of `without` are left out. */
static size_t compare(uint32_t seeds, uint32_t without)
{
    static float before[2][MAX_OUT], after[2][MAX_OUT];
    size_t n_before[2], n_after[2], removed = 0;
    for (uint32_t seed = 1; seed <= seeds; seed++) {
        builder b;
        random_network(&b, seed);
        const char *names[2] = {b.graph->outputs[0]->name, b.graph->outputs[1]->name};
        const size_t n_nodes = b.graph->n_nodes;
        qn_pass_options options;
        qn__pass_options_init(&options);
        options.without = without;
        options.resolve = seed % 2 != 0 ? qn__graph_resolve : NULL;
        run(&b, before, n_before);
        if (qn__passes_simplify(b.graph, &options, &b.error) != QN_OK)
            fail_msg("seed %u: %s", seed, b.error.message);
        run(&b, after, n_after);
        removed += n_nodes - b.graph->n_nodes;
        for (size_t k = 0; k < 2; k++) {
            assert_string_equal(b.graph->outputs[k]->name, names[k]);
            assert_int_equal(n_before[k], n_after[k]);
            double largest = 1;
            for (size_t i = 0; i < n_before[k]; i++)
                largest = fmax(largest, fabs((double)before[k][i]));
            for (size_t i = 0; i < n_before[k]; i++)
                if (!(fabs((double)before[k][i] - (double)after[k][i]) <= 1e-4 * largest))
                    fail_msg("seed %u without %x output %zu element %zu: %g became %g", seed,
                             without, k, i, (double)before[k][i], (double)after[k][i]);
        }
        build_end(&b);
    }
    return removed;
}

static void simplified_networks_compute_the_same(void **state)
{
    (void)state;
    const size_t removed = compare(300, 0);
    if (removed < 600) /* the passes must find work */
        fail_msg("only %zu nodes were removed", removed);
}

/* Each pass left out in turn, and all but one: none needs another to be right. */
static void any_pass_may_be_left_out(void **state)
{
    (void)state;
    const size_t all = compare(100, 0);
    size_t fewer = 0;
    assert_int_equal(compare(100, UINT32_MAX), 0);
    for (size_t i = 0; qn__pass_name(i) != NULL; i++) {
        fewer += compare(100, 1u << i) < all;
        (void)compare(100, ~(1u << i));
    }
    assert_true(fewer >= 3); /* some of them do something here */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(simplified_networks_compute_the_same),
        cmocka_unit_test(any_pass_may_be_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
