/* Requantization by integers against formulas of its own: 128-bit integers, ties told apart by
 * remainders, and values known from gemmlowp's definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "run/ops/fixed_point.h"

#include <math.h>

static const int32_t EDGES[] = {INT32_MIN,
                                INT32_MIN + 1,
                                -(1 << 30) - 1,
                                -(1 << 30),
                                -65537,
                                -65536,
                                -3,
                                -2,
                                -1,
                                0,
                                1,
                                2,
                                3,
                                65535,
                                65536,
                                (1 << 30) - 1,
                                1 << 30,
                                (1 << 30) + 1,
                                INT32_MAX - 1,
                                INT32_MAX};
enum { N_EDGES = sizeof(EDGES) / sizeof(EDGES[0]) };

static uint32_t random_bits(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 32);
}

/* Quotient of a / b rounded to the nearest; ties: up, or away from zero. b > 0. */
static __int128 nearest(__int128 a, __int128 b, bool away)
{
    __int128 floor = a / b - (a % b < 0);
    const __int128 twice = 2 * (a - floor * b);
    if (twice > b || (twice == b && (!away || a >= 0)))
        floor++;
    return floor;
}

static __int128 bounded(__int128 v)
{
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : v;
}

static void check_product(int32_t a, int32_t b)
{
    const __int128 wanted = bounded(nearest((__int128)a * b, (__int128)1 << 31, false));
    assert_int_equal(qn_fixed_high_product(a, b), (int32_t)wanted);
}

static void high_products_round_ties_up_and_saturate(void **state)
{
    (void)state;
    assert_int_equal(qn_fixed_high_product(INT32_MIN, INT32_MIN), INT32_MAX);
    assert_int_equal(qn_fixed_high_product(INT32_MIN, INT32_MAX), -INT32_MAX);
    assert_int_equal(qn_fixed_high_product(1, 1 << 30), 1);   /* half: up */
    assert_int_equal(qn_fixed_high_product(-1, 1 << 30), 0);  /* minus half: up */
    assert_int_equal(qn_fixed_high_product(-3, 1 << 30), -1); /* minus one and a half */
    for (size_t i = 0; i < N_EDGES; i++)
        for (size_t j = 0; j < N_EDGES; j++)
            check_product(EDGES[i], EDGES[j]);
    uint64_t seed = 1;
    for (int i = 0; i < 100000; i++) {
        const int32_t a = (int32_t)random_bits(&seed);
        check_product(a, (int32_t)random_bits(&seed));
    }
}

static void check_division(int32_t x, int n)
{
    const __int128 wanted = nearest(x, (__int128)1 << n, true);
    assert_int_equal(qn_fixed_divide(x, n), (int32_t)wanted);
}

static void divisions_round_ties_away_from_zero(void **state)
{
    (void)state;
    assert_int_equal(qn_fixed_divide(-1, 1), -1);
    assert_int_equal(qn_fixed_divide(1, 1), 1);
    assert_int_equal(qn_fixed_divide(-6, 2), -2);
    assert_int_equal(qn_fixed_divide(-5, 2), -1);
    uint64_t seed = 2;
    for (int n = 0; n <= 31; n++) {
        for (size_t i = 0; i < N_EDGES; i++)
            check_division(EDGES[i], n);
        for (int i = 0; i < 2000; i++) {
            const int32_t x = (int32_t)random_bits(&seed) >> (i % 31);
            check_division(x, n);
            if (n > 0) /* ties */
                check_division((int32_t)(((uint32_t)x << n) | (1u << (n - 1))), n);
        }
    }
}

static int32_t model(int32_t x, double real, qn_requantize kind)
{
    int e;
    const double q = frexp(real, &e);
    __int128 m = (__int128)floor(fabs(q) * 2147483648.0 + 0.5);
    if (m == (__int128)1 << 31) {
        m >>= 1;
        e++;
    }
    if (e < -31)
        m = e = 0;
    m = real < 0 ? -m : m;
    if (kind == QN_REQUANTIZE_GEMMLOWP_SINGLE)
        return (int32_t)bounded(nearest(x * m, (__int128)1 << (31 - e), false));
    if (kind == QN_REQUANTIZE_SHIFT)
        return e > 0 ? (int32_t)bounded(
                           nearest(bounded((__int128)x * ((__int128)1 << (e - 1))), 1, false))
                     : (int32_t)nearest(x, (__int128)1 << (1 - e), false);
    const __int128 moved = e > 0 ? bounded((__int128)x * ((__int128)1 << e)) : x;
    const __int128 high = bounded(nearest(moved * m, (__int128)1 << 31, false));
    return (int32_t)nearest(high, (__int128)1 << (e < 0 ? -e : 0), true);
}

static void check(int32_t x, double real, qn_requantize kind)
{
    qn_multiplier fixed;
    assert_true(qn__fixed_make(real, kind, &fixed));
    assert_int_equal(qn__fixed_apply(x, fixed, kind), model(x, real, kind));
}

static void multipliers_of_every_size_are_the_models(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (int e = -34; e <= 29; e++) {
        for (int i = 0; i < 300; i++) {
            double real = ldexp(1.0 + (double)random_bits(&seed) / 4294967296.0, e - 1);
            if (i % 7 == 0)
                real = ldexp(1.0, e); /* powers of two meet ties */
            if (i % 11 == 0)
                real = ldexp(1.0 - 0x1p-40, e); /* rounds up to the next power */
            if (i % 5 == 0)
                real = -real;
            const int32_t x = (int32_t)random_bits(&seed) >> (i % 31);
            check(x, real, QN_REQUANTIZE_GEMMLOWP);
            check(x, real, QN_REQUANTIZE_GEMMLOWP_SINGLE);
            check(EDGES[i % N_EDGES], real, QN_REQUANTIZE_GEMMLOWP);
            check(EDGES[i % N_EDGES], real, QN_REQUANTIZE_GEMMLOWP_SINGLE);
            if (e < -31)
                continue;
            check(x, ldexp(1.0, e), QN_REQUANTIZE_SHIFT);
            check(EDGES[i % N_EDGES], ldexp(1.0, e), QN_REQUANTIZE_SHIFT);
        }
    }
}

static void what_has_no_multiplier_is_refused(void **state)
{
    (void)state;
    qn_multiplier fixed;
    assert_false(qn__fixed_make(0.3, QN_REQUANTIZE_SHIFT, &fixed));
    assert_false(qn__fixed_make(-0.5, QN_REQUANTIZE_SHIFT, &fixed));
    assert_false(qn__fixed_make(0.0, QN_REQUANTIZE_SHIFT, &fixed));
    assert_false(qn__fixed_make(0x1p40, QN_REQUANTIZE_GEMMLOWP, &fixed));
    assert_false(qn__fixed_make((double)INFINITY, QN_REQUANTIZE_GEMMLOWP, &fixed));
    assert_false(qn__fixed_make((double)NAN, QN_REQUANTIZE_GEMMLOWP_SINGLE, &fixed));
    assert_true(qn__fixed_make(0.0, QN_REQUANTIZE_GEMMLOWP, &fixed));
    assert_int_equal(qn__fixed_apply(INT32_MAX, fixed, QN_REQUANTIZE_GEMMLOWP), 0);
}

static void the_two_roundings_differ_where_they_should(void **state)
{
    (void)state;
    /* -0.5: the second rounding takes ties away from zero, the only one takes them up. */
    qn_multiplier half;
    assert_true(qn__fixed_make(0.25, QN_REQUANTIZE_GEMMLOWP, &half));
    assert_int_equal(qn__fixed_apply(-2, half, QN_REQUANTIZE_GEMMLOWP), -1);
    assert_int_equal(qn__fixed_apply(-2, half, QN_REQUANTIZE_GEMMLOWP_SINGLE), 0);
    assert_int_equal(qn_fixed_byte(1000, half, QN_REQUANTIZE_GEMMLOWP, 10, 0, 255), 255);
    assert_int_equal(qn_fixed_byte(-1000, half, QN_REQUANTIZE_GEMMLOWP, 10, 3, 255), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(high_products_round_ties_up_and_saturate),
        cmocka_unit_test(divisions_round_ties_away_from_zero),
        cmocka_unit_test(multipliers_of_every_size_are_the_models),
        cmocka_unit_test(what_has_no_multiplier_is_refused),
        cmocka_unit_test(the_two_roundings_differ_where_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
