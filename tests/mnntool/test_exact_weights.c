/* Rounding of weights in exact mode: known answers and degenerate rows. */
#include "mnntool/exact_weights.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void rounds_half_away_from_zero(void **state)
{
    (void)state;
    /* scale 1: 7 / 7 */
    float w[] = {7.0f, 2.5f, -2.5f, 0.49f, -6.5f, 0.0f};
    const float want[] = {7, 3, -3, 0, -7, 0};
    qn__mnn_fake_quantize(w, 1, 6, 7);
    for (size_t i = 0; i < 6; i++)
        assert_true(w[i] == want[i]);
}

static void rows_have_scales_of_their_own(void **state)
{
    (void)state;
    const float w[] = {1.27f, -0.5f, 0.02f, 0.0f, -254.0f, 100.0f};
    float scales[2];
    int8_t q[6];
    qn__mnn_scales_max_abs(w, 2, 3, 127, scales);
    assert_true(fabsf(scales[0] - 0.01f) < 1e-8f && scales[1] == 2.0f);
    qn__mnn_round_weights(w, 2, 3, 8, scales, q);
    const int8_t want[] = {127, -50, 2, 0, -127, 50};
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(q[i], want[i]);
}

/* Scaled for 127 and cut to four bits, as the tool does without weight_clamp_value. */
static void integers_stay_within_their_bits(void **state)
{
    (void)state;
    const float w[] = {127.0f, -127.0f, 7.4f, -8.4f, 3.0f};
    const float scale = 1;
    int8_t q[5];
    qn__mnn_round_weights(w, 1, 5, 4, &scale, q);
    const int8_t want[] = {7, -8, 7, -8, 3};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(q[i], want[i]);
}

static void rows_of_zeros_are_harmless(void **state)
{
    (void)state;
    float w[] = {0, 0, 0, 0, 4.0f, -8.0f};
    float scales[3], only[2] = {0, 0};
    int8_t q[6];
    qn__mnn_fake_quantize(w, 3, 2, 127);
    qn__mnn_scales_max_abs(w, 3, 2, 127, scales);
    qn__mnn_round_weights(w, 3, 2, 8, scales, q);
    qn__mnn_fill_scales(scales, 3);
    assert_true(scales[0] == scales[2] && scales[1] == scales[2] && scales[2] > 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(q[i], 0);
    (void)qn__mnn_scales_admm(w, 2, 2, 127, only);
    assert_true(only[0] == 0 && only[1] == 0);
    qn__mnn_fill_scales(only, 2);
    assert_true(only[0] > 0 && only[1] > 0);
}

/* Derivative of the squared error by the scale, over sum(q q). */
static double slope(const float *w, size_t n, float scale, float limit)
{
    double wq = 0, qq = 0;
    for (size_t i = 0; i < n; i++) {
        const float q = fmaxf(-limit, fminf(limit, roundf(w[i] / scale)));
        wq += (double)(w[i] - q * scale) * (double)q;
        qq += (double)(q * q);
    }
    return wq / qq;
}

static void admm_ends_where_the_error_is_least_for_its_integers(void **state)
{
    (void)state;
    enum { COUNT = 500 };
    float w[COUNT];
    uint32_t seed = 12345;
    for (size_t i = 0; i < COUNT; i++) {
        float sum = 0;
        for (int k = 0; k < 4; k++) {
            seed = seed * 1664525u + 1013904223u;
            sum += (float)(seed >> 8) / 16777216.0f - 0.5f;
        }
        w[i] = sum;
    }
    static const int32_t clamps[] = {7, 15, 127};
    for (size_t k = 0; k < 3; k++) {
        const float limit = (float)clamps[k];
        float plain, admm;
        qn__mnn_scales_max_abs(w, 1, COUNT, clamps[k], &plain);
        const float diff = qn__mnn_scales_admm(w, 1, COUNT, clamps[k], &admm);
        assert_true(isfinite(diff));
        assert_true(fabs(slope(w, COUNT, admm, limit)) < 1e-5 * (double)admm);
        assert_true(fabs(slope(w, COUNT, plain, limit)) > 1e-5 * (double)plain);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_half_away_from_zero),
        cmocka_unit_test(rows_have_scales_of_their_own),
        cmocka_unit_test(integers_stay_within_their_bits),
        cmocka_unit_test(rows_of_zeros_are_harmless),
        cmocka_unit_test(admm_ends_where_the_error_is_least_for_its_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
