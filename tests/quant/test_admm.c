/* Level sets and the weight method admm: against brute force, against max_abs, and on the edges of
 * float32. */
#include "core/context.h"
#include "quant/admm.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint32_t random_state = 20260202;

static float uniform(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (float)(random_state >> 8) / 8388608.0f - 1.0f;
}

/* Long tails, as weights have. */
static float heavy(void)
{
    const float a = uniform();
    return a * a * a + 0.1f * uniform();
}

static qn_levels make(qn_level_set set, uint32_t bits)
{
    qn_levels levels;
    assert_null(qn__levels_make(set, bits, 0, &levels));
    return levels;
}

static qn_context *context(void)
{
    qn_context *ctx;
    assert_int_equal(qn_context_create(NULL, &ctx, NULL), QN_OK);
    return ctx;
}

static double error_of(const qn_context *ctx, const char *method, const float *w, size_t count,
                       const qn_levels *levels)
{
    float scale;
    assert_true(qn__weight_method_find(method)->scale(ctx, w, count, levels, &scale));
    assert_true(isfinite(scale) && scale >= 0);
    return scale > 0 ? qn__levels_error(levels, w, count, scale) : 0;
}

/* Least error over every assignment of levels with its own best scale. */
static double brute_force(const float *w, size_t count, const qn_levels *levels)
{
    const uint32_t n = 2 * qn__levels_count(levels) + 1;
    uint64_t combinations = 1;
    double power = 0, best = 0;
    for (size_t i = 0; i < count; i++) {
        combinations *= n;
        power += (double)w[i] * (double)w[i];
    }
    for (uint64_t index = 0; index < combinations; index++) {
        double wq = 0, qq = 0;
        uint64_t rest = index;
        for (size_t i = 0; i < count; i++, rest /= n) {
            const uint32_t digit = (uint32_t)(rest % n);
            const int32_t q = digit == 0  ? 0
                              : digit % 2 ? qn__levels_magnitude(levels, (digit + 1) / 2)
                                          : -qn__levels_magnitude(levels, (digit + 1) / 2);
            wq += (double)w[i] * q;
            qq += (double)(q * q);
        }
        if (wq > 0 && wq * wq / qq > best)
            best = wq * wq / qq;
    }
    return power - best;
}

static void finds_the_minimum_of_brute_force(void **state)
{
    (void)state;
    const struct {
        qn_levels levels;
        size_t count;
    } cases[] = {{make(QN_LEVELS_TERNARY, 0), 9}, {make(QN_LEVELS_UNIFORM, 2), 9},
                 {make(QN_LEVELS_UNIFORM, 3), 7}, {make(QN_LEVELS_UNIFORM, 4), 5},
                 {make(QN_LEVELS_POW2, 3), 7},    {make(QN_LEVELS_POW2, 4), 5}};
    qn_context *ctx = context();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int round = 0; round < 8; round++) {
            float w[9];
            for (size_t j = 0; j < cases[i].count; j++)
                w[j] = heavy();
            const double least = brute_force(w, cases[i].count, &cases[i].levels);
            const double got = error_of(ctx, "admm", w, cases[i].count, &cases[i].levels);
            /* the scale is a float32 */
            double power = 0;
            for (size_t j = 0; j < cases[i].count; j++)
                power += (double)w[j] * (double)w[j];
            assert_true(got <= least + 1e-6 * power);
            assert_true(got >= least - 1e-6 * power);
        }
    }
    qn_context_destroy(ctx);
}

/* Long vectors are searched from several starts: near the minimum of a fine scan, never above
 * max_abs. */
static void long_vectors_come_close_to_a_fine_scan(void **state)
{
    (void)state;
    enum { N = 5000 };
    qn_context *ctx = context();
    float *w = malloc(N * sizeof(*w));
    for (size_t i = 0; i < N; i++)
        w[i] = heavy();
    for (uint32_t bits = 2; bits <= 8; bits++) {
        for (int set = 0; set < 3; set++) {
            qn_levels levels;
            if (qn__levels_make((qn_level_set)set, bits, 0, &levels) != NULL)
                continue;
            const float max = qn__max_abs(w, N);
            double least = INFINITY;
            for (int i = 0; i < 1000; i++)
                least = fmin(least, qn__levels_error(&levels, w, N,
                                                     max * (float)(1000 - i) / 1000.0f /
                                                         (float)levels.qmax));
            const double got = error_of(ctx, "admm", w, N, &levels);
            assert_true(got <= 1.01 * least);
            assert_true(got <= error_of(ctx, "max_abs", w, N, &levels));
            if (bits <= 6)
                assert_true(got < error_of(ctx, "max_abs", w, N, &levels));
        }
    }
    free(w);
    qn_context_destroy(ctx);
}

static void is_never_worse_than_max_abs(void **state)
{
    (void)state;
    qn_context *ctx = context();
    const float powers[] = {1.0f, 1e-30f, 1e30f};
    for (int round = 0; round < 600; round++) {
        float w[80];
        const size_t count = 1 + (size_t)round % 80;
        for (size_t i = 0; i < count; i++)
            w[i] = (round % 2 ? heavy() : uniform()) * powers[round % 3];
        for (uint32_t bits = 2; bits <= 8; bits++) {
            const qn_levels levels = make(QN_LEVELS_UNIFORM, bits);
            assert_true(error_of(ctx, "admm", w, count, &levels) <=
                        error_of(ctx, "max_abs", w, count, &levels));
        }
    }
    qn_context_destroy(ctx);
}

static void edges_of_float32(void **state)
{
    (void)state;
    qn_context *ctx = context();
    const float zeros[7] = {0, -0.0f};
    const float one[1] = {-0.37f};
    const float tiny[5] = {1e-44f, -3e-43f, 2e-42f, 0, 1e-45f};
    const float huge[5] = {1e38f, -3e38f, 2e38f, FLT_MAX, 7};
    const float alone[6] = {0, 0, 0, 5e-3f, 0, 0};
    const float equal[4] = {0.5f, -0.5f, 0.5f, 0.5f};
    for (uint32_t bits = 2; bits <= 8; bits++) {
        for (int set = 0; set < 3; set++) {
            qn_levels levels;
            if (qn__levels_make((qn_level_set)set, bits, 0, &levels) != NULL)
                continue;
            float scale = -1;
            assert_true(qn__weight_admm.scale(ctx, zeros, 7, &levels, &scale));
            assert_true(scale == 0);
            assert_true(error_of(ctx, "admm", one, 1, &levels) <= 1e-13);
            assert_true(error_of(ctx, "admm", alone, 6, &levels) <= 1e-16);
            assert_true(error_of(ctx, "admm", equal, 4, &levels) <= 1e-13);
            assert_true(error_of(ctx, "admm", huge, 5, &levels) <=
                        error_of(ctx, "max_abs", huge, 5, &levels));
            /* steps below the smallest normal number are the caller's to replace */
            assert_true(qn__weight_admm.scale(ctx, tiny, 5, &levels, &scale));
            assert_true(scale >= 0 && scale <= 2e-42f);
        }
    }
    qn_context_destroy(ctx);
}

/* The whole of qn__quantize_weights keeps to the levels, per channel and per tensor. */
static void integers_are_levels(void **state)
{
    (void)state;
    enum { CHANNELS = 6, K = 27 };
    qn_context *ctx = context();
    float w[CHANNELS * K], scales[CHANNELS];
    int8_t q[CHANNELS * K];
    for (size_t i = 0; i < CHANNELS * K; i++)
        w[i] = i / K == 3 ? 0 : heavy(); /* channel 3 is empty */
    const qn_weight_view view = {
        .channels = CHANNELS, .k = K, .stride_c = K, .stride_k = 1, .positions = 9, .pairs = true};
    for (size_t m = 0; qn__weight_method_at(m) != NULL; m++) {
        for (uint32_t bits = 2; bits <= 8; bits++) {
            for (int set = 0; set < 6; set++) {
                qn_weights_plan plan = {.method = qn__weight_method_at(m), .per_channel = set < 3};
                if (qn__levels_make((qn_level_set)(set % 3), bits, 0, &plan.levels) != NULL)
                    continue;
                assert_int_equal(
                    qn__quantize_weights(ctx, &view, w, NULL, true, &plan, scales, q, NULL), QN_OK);
                int32_t largest = 0;
                for (size_t i = 0; i < CHANNELS * K; i++) {
                    const int32_t a = abs(q[i]);
                    largest = a > largest ? a : largest;
                    if (plan.levels.set == QN_LEVELS_POW2)
                        assert_int_equal(a & (a - 1), 0);
                }
                assert_true(largest <= plan.levels.qmax && largest > plan.levels.qmax / 3);
                assert_int_equal(plan.bits, plan.n_narrowed > 0 ? 7 : bits);
                assert_true(bits == 8 || plan.n_narrowed == 0);
                for (size_t c = 0; c < CHANNELS; c++)
                    assert_true(scales[c] >= FLT_MIN);
            }
        }
    }
    qn_context_destroy(ctx);
}

static void level_sets_are_what_they_say(void **state)
{
    (void)state;
    const qn_levels pow2 = make(QN_LEVELS_POW2, 0), ternary = make(QN_LEVELS_TERNARY, 0);
    assert_int_equal(pow2.qmax, 64);
    assert_int_equal(qn__levels_count(&pow2), 7);
    assert_int_equal(qn__levels_storage_bits(&pow2), 8);
    assert_int_equal(ternary.qmax, 1);
    assert_int_equal(qn__levels_storage_bits(&ternary), 2);
    for (uint32_t bits = 2; bits <= 8; bits++) {
        const qn_levels u = make(QN_LEVELS_UNIFORM, bits);
        assert_int_equal(u.qmax, (1 << (bits - 1)) - 1);
        assert_int_equal(qn__levels_storage_bits(&u), bits);
    }
    qn_levels out;
    assert_non_null(qn__levels_make(QN_LEVELS_UNIFORM, 1, 0, &out));
    assert_non_null(qn__levels_make(QN_LEVELS_UNIFORM, 9, 0, &out));
    assert_non_null(qn__levels_make(QN_LEVELS_TERNARY, 3, 0, &out));
    assert_non_null(qn__levels_make(QN_LEVELS_POW2, 5, 0, &out));
    assert_null(qn__levels_make(QN_LEVELS_UNIFORM, 8, 100, &out));
    assert_int_equal(out.qmax, 100);
    assert_null(qn__levels_make(QN_LEVELS_UNIFORM, 4, 100, &out));
    assert_int_equal(out.qmax, 7);
    assert_null(qn__levels_make(QN_LEVELS_POW2, 4, 20, &out));
    assert_int_equal(out.qmax, 16);
}

/* Rounding finds the nearest level, whatever the set. */
static void rounds_to_the_nearest_level(void **state)
{
    (void)state;
    for (int set = 0; set < 3; set++) {
        const qn_levels levels = make((qn_level_set)set, 0);
        for (int i = -4000; i <= 4000; i++) {
            const float w = (float)i / 30.0f + 0.001f, scale = 0.75f;
            const int8_t q = qn__levels_round_one(&levels, w, scale);
            double nearest = fabs((double)w);
            for (uint32_t l = 1; l <= qn__levels_count(&levels); l++) {
                const double level = (double)scale * qn__levels_magnitude(&levels, l);
                nearest = fmin(nearest, fabs(fabs((double)w) - level));
            }
            assert_true(fabs((double)w - (double)scale * q) <= nearest + 1e-5);
        }
    }
}

/* --- the loop over a layer's output ------------------------------------------------------------*/
enum { CHANNELS = 21, COLUMNS = 70, ROWS = 300 };

typedef struct layer {
    float w[CHANNELS * COLUMNS], rows[ROWS * COLUMNS], scales[CHANNELS];
    int8_t q[CHANNELS * COLUMNS];
} layer;

/* Correlated inputs, so that errors can compensate each other. */
static layer *make_layer(const qn_context *ctx, const qn_levels *levels, float size)
{
    layer *l = calloc(1, sizeof(*l));
    float mixture[5][COLUMNS];
    for (size_t h = 0; h < 5; h++)
        for (size_t j = 0; j < COLUMNS; j++)
            mixture[h][j] = uniform();
    for (size_t r = 0; r < ROWS; r++) {
        float hidden[5];
        for (size_t h = 0; h < 5; h++)
            hidden[h] = uniform();
        for (size_t j = 0; j < COLUMNS; j++) {
            l->rows[r * COLUMNS + j] = (0.3f * uniform() + 0.5f) * size;
            for (size_t h = 0; h < 5; h++)
                l->rows[r * COLUMNS + j] += hidden[h] * mixture[h][j] * size;
        }
    }
    for (size_t i = 0; i < CHANNELS * COLUMNS; i++)
        l->w[i] = i / COLUMNS == 4 ? 0 : heavy(); /* channel 4 is empty */
    for (size_t c = 0; c < CHANNELS; c++) {
        assert_true(qn__weight_admm.scale(ctx, l->w + c * COLUMNS, COLUMNS, levels, &l->scales[c]));
        if (l->scales[c] == 0)
            l->scales[c] = 0.01f;
    }
    return l;
}

static qn_status round_layer(const qn_context *ctx, layer *l, const qn_levels *levels, double slack,
                             bool pairs, qn_error *error)
{
    const qn_gptq_problem p = {.channels = CHANNELS,
                               .k = COLUMNS,
                               .w = l->w,
                               .scales = l->scales,
                               .levels = *levels,
                               .n_rows = ROWS,
                               .row_stride = COLUMNS,
                               .rows = l->rows,
                               .slack = slack,
                               .pairs = pairs,
                               .pool = ctx->pool};
    return qn__weight_admm.round(ctx, &p, l->scales, l->q, error);
}

/* Squared errors of a channel's outputs and of its weights. */
static void errors_of(const layer *l, const float *scales, const int8_t *q, size_t c,
                      double *output, double *weights)
{
    *output = *weights = 0;
    for (size_t j = 0; j < COLUMNS; j++) {
        const size_t i = c * COLUMNS + j;
        const double e = (double)l->w[i] - (double)q[i] * (double)scales[c];
        *weights += e * e;
    }
    for (size_t r = 0; r < ROWS; r++) {
        double sum = 0;
        for (size_t j = 0; j < COLUMNS; j++) {
            const size_t i = c * COLUMNS + j;
            const double e = (double)l->w[i] - (double)q[i] * (double)scales[c];
            sum += e * (double)l->rows[r * COLUMNS + j];
        }
        *output += sum * sum;
    }
}

static void output_errors_fall_within_the_bound(void **state)
{
    (void)state;
    qn_context *ctx = context();
    const qn_levels sets[] = {make(QN_LEVELS_TERNARY, 0), make(QN_LEVELS_UNIFORM, 3),
                              make(QN_LEVELS_UNIFORM, 5), make(QN_LEVELS_UNIFORM, 8),
                              make(QN_LEVELS_POW2, 4)};
    for (size_t s = 0; s < sizeof(sets) / sizeof(sets[0]); s++) {
        for (int tight = 0; tight < 2; tight++) {
            const double slack = tight ? 1.0 : 1.5;
            layer *l = make_layer(ctx, &sets[s], 1);
            float scales[CHANNELS];
            int8_t q[CHANNELS * COLUMNS];
            memcpy(scales, l->scales, sizeof(scales));
            for (size_t c = 0; c < CHANNELS; c++)
                qn__levels_round(&sets[s], l->w + c * COLUMNS, COLUMNS, scales[c], q + c * COLUMNS);
            assert_int_equal(round_layer(ctx, l, &sets[s], slack, true, NULL), QN_OK);
            double before = 0, after = 0;
            for (size_t c = 0; c < CHANNELS; c++) {
                double o[2], w[2];
                errors_of(l, scales, q, c, &o[0], &w[0]);
                errors_of(l, l->scales, l->q, c, &o[1], &w[1]);
                assert_true(w[1] <= slack * w[0] * (1 + 1e-12));
                before += o[0];
                after += o[1];
                assert_true(c != 4 || (o[1] == 0 && w[1] == 0));
                if (sets[s].qmax > 64)
                    assert_true(memcmp(q + c * COLUMNS, l->q + c * COLUMNS, COLUMNS) == 0 ||
                                qn__pairs_safe_adjacent(l->q + c * COLUMNS, COLUMNS, 1));
            }
            /* at a slack of 1 the start, the nearest there is, has no room */
            assert_true(after <= before * (1 + 1e-9));
            assert_true(tight || after < (sets[s].qmax > 64 ? 1.0 : 0.5) * before);
            for (size_t i = 0; i < CHANNELS * COLUMNS; i++)
                assert_int_equal(qn__levels_round_one(&sets[s], (float)l->q[i], 1), l->q[i]);
            free(l);
        }
    }
    qn_context_destroy(ctx);
}

static void threads_do_not_show(void **state)
{
    (void)state;
    const qn_levels levels = make(QN_LEVELS_UNIFORM, 4);
    layer *results[2];
    for (uint32_t i = 0; i < 2; i++) {
        qn_context_options options;
        qn_context *ctx;
        qn_context_options_init(&options);
        options.n_threads = i == 0 ? 1 : 4;
        assert_int_equal(qn_context_create(&options, &ctx, NULL), QN_OK);
        random_state = 7;
        results[i] = make_layer(ctx, &levels, 1);
        assert_int_equal(round_layer(ctx, results[i], &levels, 1.5, false, NULL), QN_OK);
        qn_context_destroy(ctx);
    }
    assert_memory_equal(results[0], results[1], sizeof(layer));
    free(results[0]);
    free(results[1]);
}

/* Inputs whose squares leave float32: the weights alone decide. */
static void huge_inputs_leave_the_projection(void **state)
{
    (void)state;
    qn_context *ctx = context();
    const qn_levels levels = make(QN_LEVELS_UNIFORM, 4);
    layer *l = make_layer(ctx, &levels, 1e30f);
    float scales[CHANNELS];
    memcpy(scales, l->scales, sizeof(scales));
    assert_int_equal(round_layer(ctx, l, &levels, 1.5, false, NULL), QN_OK);
    assert_memory_equal(scales, l->scales, sizeof(scales));
    for (size_t i = 0; i < CHANNELS * COLUMNS; i++)
        assert_int_equal(l->q[i], qn__levels_round_one(&levels, l->w[i], scales[i / COLUMNS]));
    free(l);
    qn_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_minimum_of_brute_force),
        cmocka_unit_test(long_vectors_come_close_to_a_fine_scan),
        cmocka_unit_test(is_never_worse_than_max_abs),
        cmocka_unit_test(edges_of_float32),
        cmocka_unit_test(integers_are_levels),
        cmocka_unit_test(level_sets_are_what_they_say),
        cmocka_unit_test(rounds_to_the_nearest_level),
        cmocka_unit_test(output_errors_fall_within_the_bound),
        cmocka_unit_test(threads_do_not_show),
        cmocka_unit_test(huge_inputs_leave_the_projection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
