/* Rounding that compensates its errors, against a double-precision reference and its promises. */
#include "core/base64.h"
#include "quant/gptq.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint32_t random_state = 20260101;

static float uniform(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (float)(random_state >> 8) / 8388608.0f - 1.0f;
}

typedef struct fixture {
    qn_context *ctx;
    size_t channels, k, n_rows;
    float *w, *rows, *scales;
    int8_t *q;
} fixture;

/* Correlated inputs: every column is a mixture of a few hidden values and a little noise. */
static fixture make(size_t channels, size_t k, size_t n_rows)
{
    enum { HIDDEN = 5 };
    fixture f = {.channels = channels, .k = k, .n_rows = n_rows};
    assert_int_equal(qn_context_create(NULL, &f.ctx, NULL), QN_OK);
    f.w = calloc(channels * k, sizeof(float));
    f.rows = calloc(n_rows * k + 1, sizeof(float));
    f.scales = calloc(channels, sizeof(float));
    f.q = calloc(channels * k, 1);
    float *mixture = calloc(HIDDEN * k, sizeof(float));
    for (size_t i = 0; i < HIDDEN * k; i++)
        mixture[i] = uniform();
    for (size_t r = 0; r < n_rows; r++) {
        float hidden[HIDDEN];
        for (size_t h = 0; h < HIDDEN; h++)
            hidden[h] = uniform();
        for (size_t j = 0; j < k; j++) {
            float sum = 0.2f * uniform() + 0.5f;
            for (size_t h = 0; h < HIDDEN; h++)
                sum += hidden[h] * mixture[h * k + j];
            f.rows[r * k + j] = sum;
        }
    }
    free(mixture);
    for (size_t c = 0; c < channels; c++) {
        float largest = 0;
        for (size_t j = 0; j < k; j++) {
            f.w[c * k + j] = uniform();
            largest = fmaxf(largest, fabsf(f.w[c * k + j]));
        }
        f.scales[c] = largest / 7.0f; /* coarse: rounding errors are large */
    }
    return f;
}

static void drop(fixture *f)
{
    free(f->w);
    free(f->rows);
    free(f->scales);
    free(f->q);
    qn_context_destroy(f->ctx);
}

static void solve(fixture *f, bool center, bool pairs)
{
    const qn_gptq_problem p = {.channels = f->channels,
                               .levels = {.bits = 8, .qmax = 127},
                               .k = f->k,
                               .w = f->w,
                               .scales = f->scales,
                               .n_rows = f->n_rows,
                               .row_stride = f->k,
                               .rows = f->rows,
                               .center = center,
                               .pairs = pairs};
    qn_error error;
    assert_int_equal(qn__gptq_round(f->ctx, &p, NULL, f->q, &error), QN_OK);
}

static int nearest(float value, float scale)
{
    const float q = rintf(value / scale);
    return (int)(q > 127 ? 127 : q < -127 ? -127 : q);
}

/* Squared output error over the rows, about the mean when centred. */
static double output_error(const fixture *f, const int8_t *q, bool center)
{
    double total = 0;
    for (size_t c = 0; c < f->channels; c++) {
        double sum = 0, squares = 0;
        for (size_t r = 0; r < f->n_rows; r++) {
            double e = 0;
            for (size_t j = 0; j < f->k; j++)
                e += ((double)f->w[c * f->k + j] - (double)q[c * f->k + j] * (double)f->scales[c]) *
                     (double)f->rows[r * f->k + j];
            sum += e;
            squares += e * e;
        }
        total += squares - (center ? sum * sum / (double)f->n_rows : 0);
    }
    return total;
}

/* The same recurrence from the inverse of H, as the GPTQ paper states it, in double. */
static void reference(const fixture *f, int8_t *q)
{
    const size_t k = f->k;
    double *a = calloc(2 * k * k, sizeof(double)); /* [H | inverse] */
    double trace = 0;
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < k; j++) {
            double sum = 0;
            for (size_t r = 0; r < f->n_rows; r++)
                sum += (double)f->rows[r * k + i] * (double)f->rows[r * k + j];
            a[i * 2 * k + j] = sum;
            trace += i == j ? sum : 0;
        }
    for (size_t i = 0; i < k; i++) {
        a[i * 2 * k + i] += 0.01 * trace / (double)k;
        a[i * 2 * k + k + i] = 1;
    }
    for (size_t p = 0; p < k; p++)
        for (size_t i = 0; i < k; i++) {
            const double factor = i == p ? 0 : a[i * 2 * k + p] / a[p * 2 * k + p];
            for (size_t j = 0; j < 2 * k && i != p; j++)
                a[i * 2 * k + j] -= factor * a[p * 2 * k + j];
        }
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < k; j++)
            a[i * 2 * k + k + j] /= a[i * 2 * k + i];
    for (size_t c = 0; c < f->channels; c++) {
        double *w = calloc(k, sizeof(double)), *inv = calloc(k * k, sizeof(double));
        for (size_t i = 0; i < k; i++) {
            w[i] = (double)f->w[c * k + i];
            for (size_t j = 0; j < k; j++)
                inv[i * k + j] = a[i * 2 * k + k + j];
        }
        for (size_t p = 0; p < k; p++) {
            q[c * k + p] = (int8_t)nearest((float)w[p], f->scales[c]);
            const double e = (w[p] - (double)q[c * k + p] * (double)f->scales[c]) / inv[p * k + p];
            for (size_t j = p + 1; j < k; j++)
                w[j] -= e * inv[p * k + j];
            /* the inverse of H without row and column p */
            for (size_t i = p + 1; i < k; i++)
                for (size_t j = p + 1; j < k; j++)
                    inv[i * k + j] -= inv[i * k + p] * inv[p * k + j] / inv[p * k + p];
        }
        free(w);
        free(inv);
    }
    free(a);
}

static void integers_equal_the_papers_recurrence(void **state)
{
    (void)state;
    const size_t sizes[] = {1, 2, 9, 27, 64, 65, 130};
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        fixture f = make(6, sizes[s], 400);
        int8_t *expected = calloc(f.channels * f.k, 1);
        solve(&f, false, false);
        reference(&f, expected);
        size_t different = 0;
        for (size_t i = 0; i < f.channels * f.k; i++)
            different += f.q[i] != expected[i];
        /* float against double: a value on the edge between two integers may fall either way, and
         * what follows it in its channel with it */
        assert_true(different * 20 <= f.channels * f.k);
        const double ours = output_error(&f, f.q, false),
                     theirs = output_error(&f, expected, false);
        assert_true(ours <= theirs * 1.1 + 1e-9);
        free(expected);
        drop(&f);
    }
}

static void outputs_change_less_than_by_rounding_to_nearest(void **state)
{
    (void)state;
    for (int center = 0; center < 2; center++) {
        fixture f = make(16, 200, 300);
        int8_t *plain = calloc(f.channels * f.k, 1);
        for (size_t i = 0; i < f.channels * f.k; i++)
            plain[i] = (int8_t)nearest(f.w[i], f.scales[i / f.k]);
        solve(&f, center, false);
        assert_true(output_error(&f, f.q, center) < 0.3 * output_error(&f, plain, center));
        free(plain);
        drop(&f);
    }
}

static void the_largest_weight_has_no_step_to_spare(void **state)
{
    (void)state;
    for (size_t k = 9; k < 100; k += 30) {
        fixture f = make(16, k, 300);
        int8_t *plain = calloc(f.channels * f.k, 1);
        for (size_t c = 0; c < f.channels; c++)
            f.scales[c] *= 7.0f / 127.0f;
        for (size_t i = 0; i < f.channels * f.k; i++)
            plain[i] = (int8_t)nearest(f.w[i], f.scales[i / f.k]);
        solve(&f, true, false);
        print_message("%g %g\n", output_error(&f, f.q, true), output_error(&f, plain, true));
        assert_true(output_error(&f, f.q, true) < output_error(&f, plain, true));
        free(plain);
        drop(&f);
    }
}

static void pairs_never_leave_int16(void **state)
{
    (void)state;
    const size_t sizes[] = {7, 64, 147, 1600, 3073};
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        fixture f = make(3, sizes[s], 64);
        for (size_t c = 0; c < f.channels; c++)
            f.scales[c] *= 7.0f / 127.0f;
        solve(&f, true, true);
        for (size_t c = 0; c < f.channels; c++)
            assert_true(qn__pairs_safe_adjacent(f.q + c * f.k, f.k, 1));
        drop(&f);
    }
}

static void rows_without_information_round_to_nearest(void **state)
{
    (void)state;
    fixture f = make(4, 30, 8);
    memset(f.rows, 0, f.n_rows * f.k * sizeof(float));
    for (size_t n = 0; n < 2; n++) {
        f.n_rows = n * 8;
        solve(&f, true, false);
        for (size_t i = 0; i < f.channels * f.k; i++)
            assert_int_equal(f.q[i], nearest(f.w[i], f.scales[i / f.k]));
    }
    drop(&f);
}

static void base64_follows_the_rfc(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    char text[32], back[32];
    for (size_t i = 0; i < 7; i++) {
        const size_t n = strlen(pairs[i][0]);
        qn__base64_encode(pairs[i][0], n, text);
        assert_string_equal(text, pairs[i][1]);
        assert_true(qn__base64_decode(text, strlen(text), back, n));
        assert_memory_equal(back, pairs[i][0], n);
        assert_false(qn__base64_decode(text, strlen(text), back, n + 3));
    }
    static const char *const bad[] = {"Zg=g", "Z===", "Zh==", "Z g=", "Zg\n=", "===="};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(qn__base64_decode(bad[i], 4, back, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_equal_the_papers_recurrence),
        cmocka_unit_test(outputs_change_less_than_by_rounding_to_nearest),
        cmocka_unit_test(the_largest_weight_has_no_step_to_spare),
        cmocka_unit_test(pairs_never_leave_int16),
        cmocka_unit_test(rows_without_information_round_to_nearest),
        cmocka_unit_test(base64_follows_the_rfc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
