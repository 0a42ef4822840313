/* Scale, zero point, weights' integers and the saturation proof. */
#include "quant/quant.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static qn_context *ctx;

static int make_context(void **state)
{
    (void)state;
    return qn_context_create(NULL, &ctx, NULL) == QN_OK ? 0 : -1;
}

static int drop_context(void **state)
{
    (void)state;
    qn_context_destroy(ctx);
    return 0;
}

static uint64_t rng_state = 1;

static uint32_t rng(void)
{
    rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(rng_state >> 33);
}

static float uniform(float lo, float hi)
{
    return lo + (hi - lo) * (float)(rng() & 0xFFFFFF) / 16777216.0f;
}

static void parameters_follow_the_table(void **state)
{
    (void)state;
    const struct {
        float lo, hi;
        int32_t qmin, qmax;
        bool symmetric;
        float scale;
        int32_t zero_point;
    } rows[] = {
        {0.0f, 2.55f, 0, 255, false, 0.01f, 0},
        {-1.0f, 1.55f, 0, 255, false, 0.01f, 100},
        {1.0f, 2.55f, 0, 255, false, 0.01f, 0},     /* extended down to 0 */
        {-2.55f, -1.0f, 0, 255, false, 0.01f, 255}, /* extended up to 0 */
        {-1.28f, 1.27f, -128, 127, false, 0.01f, 0},
        {0.0f, 2.55f, -128, 127, false, 0.01f, -128},
        {-0.5f, 1.27f, -127, 127, true, 0.01f, 0},
        {-1.27f, 0.5f, -127, 127, true, 0.01f, 0},
        {-1.0f, 1.0f, 0, 255, true, 2.0f / 255.0f, 128},
        {0.0f, 0.0f, 0, 255, false, 1.0f, 0}, /* degenerate */
        {0.0f, 0.0f, -127, 127, true, 1.0f, 0},
        {0.0f, 0.0f, 0, 255, true, 1.0f, 128},
        {0.0f, 1e-44f, 0, 255, false, 1.0f, 0}, /* scale would be denormal */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        float scale;
        int32_t zero_point;
        qn__quant_params(rows[i].lo, rows[i].hi, rows[i].qmin, rows[i].qmax, rows[i].symmetric,
                         &scale, &zero_point);
        if (fabsf(scale - rows[i].scale) > 1e-6f * rows[i].scale ||
            zero_point != rows[i].zero_point)
            fail_msg("row %zu: scale %g zero point %d", i, (double)scale, zero_point);
    }
}

static void every_range_gives_usable_parameters(void **state)
{
    (void)state;
    const float edges[] = {-FLT_MAX, -1e30f, -1.0f, -1e-30f, -1e-45f, 0.0f,
                           1e-45f,   1e-30f, 1.0f,  1e30f,   FLT_MAX};
    const size_t n = sizeof(edges) / sizeof(edges[0]);
    for (size_t i = 0; i < n; i++)
        for (size_t j = i; j < n; j++)
            for (int symmetric = 0; symmetric < 2; symmetric++) {
                float scale;
                int32_t zero_point;
                qn__quant_params(edges[i], edges[j], 0, 255, symmetric, &scale, &zero_point);
                assert_true(scale >= FLT_MIN && isfinite(scale));
                assert_in_range(zero_point, 0, 255);
                /* zero is exact */
                assert_int_equal(qn__quantize_value(0.0f, scale, zero_point, 0, 255), zero_point);
            }
}

static void rounding_is_half_to_even_and_saturates(void **state)
{
    (void)state;
    assert_int_equal(qn__quantize_value(0.5f, 1, 0, -128, 127), 0);
    assert_int_equal(qn__quantize_value(1.5f, 1, 0, -128, 127), 2);
    assert_int_equal(qn__quantize_value(-2.5f, 1, 0, -128, 127), -2);
    assert_int_equal(qn__quantize_value(2.5f, 1, 3, 0, 255), 5); /* rounded before the zero point */
    assert_int_equal(qn__quantize_value(1e30f, 1, 0, -128, 127), 127);
    assert_int_equal(qn__quantize_value(-1e30f, 1e-3f, 0, -128, 127), -128);
}

/* --- saturation --------------------------------------------------------------------------------*/
/* Does any input make this pair leave int16? */
static bool pair_overflows(int a, int b)
{
    for (int x = 0; x < 256; x += 255)
        for (int y = 0; y < 256; y += 255) {
            const int sum = x * a + y * b;
            if (sum > INT16_MAX || sum < INT16_MIN)
                return true;
        }
    return false;
}

static bool brute_any(const int8_t *q, size_t k)
{
    for (size_t i = 0; i < k; i++)
        for (size_t j = i + 1; j < k; j++)
            if (pair_overflows(q[i], q[j]))
                return false;
    return true;
}

/* Writes the row out in the channels-last order and looks at neighbours. */
static bool brute_adjacent(const int8_t *q, size_t k, size_t positions)
{
    int8_t moved[64];
    const size_t cin = k / positions;
    for (size_t c = 0; c < cin; c++)
        for (size_t p = 0; p < positions; p++)
            moved[p * cin + c] = q[c * positions + p];
    for (size_t i = 0; i + 1 < k; i += 2)
        if (pair_overflows(moved[i], moved[i + 1]))
            return false;
    return true;
}

static void proofs_agree_with_brute_force(void **state)
{
    (void)state;
    size_t safe_any = 0, safe_adjacent = 0;
    for (int round = 0; round < 20000; round++) {
        int8_t q[45];
        const size_t positions = (size_t[]){1, 1, 9, 5, 3}[rng() % 5];
        const size_t k = positions * (1 + rng() % (45 / positions));
        const int reach = 50 + (int)(rng() % 78);
        for (size_t i = 0; i < k; i++)
            q[i] = (int8_t)((int)(rng() % (uint32_t)(2 * reach + 1)) - reach);
        const bool any = qn__pairs_safe_any(q, k);
        const bool adjacent = qn__pairs_safe_adjacent(q, k, positions);
        assert_int_equal(any, brute_any(q, k));
        assert_int_equal(adjacent, brute_adjacent(q, k, positions));
        assert_true(!any || adjacent);
        safe_any += any;
        safe_adjacent += adjacent;
    }
    assert_true(safe_any > 100 && safe_any < safe_adjacent && safe_adjacent < 19900);
}

static void quantize(const qn_weight_view *view, const float *w, const float *min_scale, bool prove,
                     qn_weights_plan *plan, float *scales, int8_t *q)
{
    plan->method = qn__weight_method_find("max_abs");
    assert_int_equal(qn__quantize_weights(ctx, view, w, min_scale, prove, plan, scales, q, NULL),
                     QN_OK);
}

static void narrowing_is_safe_and_no_more_than_needed(void **state)
{
    (void)state;
    enum { CHANNELS = 40, K = 36 };
    float w[CHANNELS * K], scales[CHANNELS], plain[CHANNELS];
    int8_t q[CHANNELS * K], q8[CHANNELS * K];
    const qn_weight_view view = {CHANNELS, K, K, 1, 9, true};
    for (size_t i = 0; i < CHANNELS * K; i++)
        w[i] = uniform(-1, 1) * uniform(0, 1) * (i / K % 2 ? 1.0f : 0.1f);
    qn_weights_plan a = {.per_channel = true, .levels = {.bits = 8, .qmax = 127}}, b = a;
    quantize(&view, w, NULL, true, &a, scales, q);
    quantize(&view, w, NULL, false, &b, plain, q8);
    size_t narrowed = 0;
    for (size_t c = 0; c < CHANNELS; c++) {
        assert_true(qn__pairs_safe_adjacent(q + c * K, K, 9));
        const bool was_safe = qn__pairs_safe_adjacent(q8 + c * K, K, 9);
        assert_int_equal(was_safe, scales[c] == plain[c]);
        narrowed += !was_safe;
        assert_true(scales[c] <= 2.0f * plain[c]);
        for (size_t i = 0; !was_safe && i < K; i++) {
            /* a hair less would not be safe */
            const float s = scales[c] * (1.0f - 1.0f / 8192.0f);
            int8_t row[K];
            for (size_t j = 0; j < K; j++)
                row[j] = (int8_t)qn__quantize_value(w[c * K + j], s, 0, -127, 127);
            assert_false(qn__pairs_safe_adjacent(row, K, 9));
            break;
        }
    }
    assert_int_equal(narrowed, a.n_narrowed);
    assert_true(a.saturates && a.bits == 7 && narrowed > 0 && narrowed < CHANNELS);
    assert_true(b.saturates && b.bits == 8);
}

static void empty_channels_and_large_biases_get_fitting_scales(void **state)
{
    (void)state;
    const float w[] = {0, 0, 0, 0.5f, -1, 0.25f, 1e-42f, 0, 0};
    const float bounds[] = {0, 3.0f, 0};
    float scales[3];
    int8_t q[9];
    const qn_weight_view view = {3, 3, 3, 1, 1, true};
    qn_weights_plan plan = {.per_channel = true, .levels = {.bits = 8, .qmax = 127}};
    quantize(&view, w, NULL, true, &plan, scales, q);
    assert_true(scales[0] == scales[1] && scales[2] == scales[1] && scales[1] == 1.0f / 127.0f);
    assert_int_equal(q[0], 0);
    assert_int_equal(q[6], 0);
    quantize(&view, w, bounds, true, &plan, scales, q);
    assert_true(scales[1] == 3.0f);
    const float zeros[9] = {0};
    quantize(&view, zeros, NULL, true, &plan, scales, q);
    assert_true(scales[0] == 1.0f);
}

static void per_tensor_weights_share_one_scale(void **state)
{
    (void)state;
    const float w[] = {0.1f, -0.2f, 1.0f, 0.3f};
    float scales[2];
    int8_t q[4];
    const qn_weight_view view = {2, 2, 1, 2, 1, false}; /* [k][channels] */
    qn_weights_plan plan = {.per_channel = false, .levels = {.bits = 8, .qmax = 127}};
    quantize(&view, w, NULL, true, &plan, scales, q);
    assert_true(scales[0] == scales[1] && scales[0] == 1.0f / 127.0f);
    assert_int_equal(q[2], 127);
    assert_int_equal(q[1], -25);
}

static void mse_clip_is_not_worse_than_the_maximum(void **state)
{
    (void)state;
    const qn_weight_method *mse = qn__weight_method_find("mse");
    float w[500];
    for (size_t i = 0; i < 500; i++)
        w[i] = uniform(-1, 1) * uniform(0, 1) * uniform(0, 1);
    w[7] = 1.6f;
    for (int32_t qmax = 7; qmax <= 127; qmax += 120) {
        const qn_levels levels = {.bits = qmax == 7 ? 4 : 8, .qmax = qmax};
        float step;
        assert_true(mse->scale(NULL, w, 500, &levels, &step));
        double error[2] = {0, 0};
        for (int which = 0; which < 2; which++) {
            const float s = which == 0 ? step : 1.6f / (float)qmax;
            for (size_t i = 0; i < 500; i++) {
                const double e =
                    (double)w[i] - (double)s * qn__quantize_value(w[i], s, 0, -qmax, qmax);
                error[which] += e * e;
            }
        }
        assert_true(step * (float)qmax <= 1.61f &&
                    step * (float)qmax >= (qmax == 7 ? 0.16f : 0.8f));
        assert_true(error[0] <= error[1]);
    }
    const float zeros[4] = {0};
    float scale = 1;
    assert_true(mse->scale(NULL, zeros, 4, &(qn_levels){.bits = 8, .qmax = 127}, &scale));
    assert_true(scale == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_follow_the_table),
        cmocka_unit_test(every_range_gives_usable_parameters),
        cmocka_unit_test(rounding_is_half_to_even_and_saturates),
        cmocka_unit_test(proofs_agree_with_brute_force),
        cmocka_unit_test(narrowing_is_safe_and_no_more_than_needed),
        cmocka_unit_test(empty_channels_and_large_biases_get_fitting_scales),
        cmocka_unit_test(per_tensor_weights_share_one_scale),
        cmocka_unit_test(mse_clip_is_not_worse_than_the_maximum),
    };
    return cmocka_run_group_tests(tests, make_context, drop_context);
}
