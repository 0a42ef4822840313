/* Observers: known answers, degenerate inputs, and the property everything parallel rests on: the
 * result is the same bytes however the values were split and merged. */
#include "calib/calib.h"
#include "calib/histogram.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
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

static uint64_t rng_state;

static uint32_t rng(void)
{
    rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(rng_state >> 33);
}

/* Roughly normal with a few far outliers and exact zeros, as activations are. */
static float activation(void)
{
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)(rng() & 0xFFFF) / 65536.0f - 0.5f;
    const uint32_t kind = rng() % 100;
    return kind < 20 ? 0.0f : kind == 99 ? sum * 40.0f : sum;
}

static const qn_range_format u8 = {.qmin = 0, .qmax = 255, .positions = 1000};
static const qn_range_format s8sym = {
    .qmin = -127, .qmax = 127, .symmetric = true, .positions = 1000};

static void *new_state(const qn_feature_method *m)
{
    void *state = qn__alloc(ctx, m->state_bytes());
    assert_non_null(state);
    m->init(state);
    return state;
}

static void free_state(const qn_feature_method *m, void *state)
{
    m->release(ctx, state);
    qn__free(ctx, state);
}

/* All passes over `values` cut in samples, dealt to n_parts observers by `deal`, merged in an order
 * that depends on it too. */
static qn_range observe_split(const qn_feature_method *m, const float *values, size_t count,
                              size_t sample_count, size_t n_parts, uint32_t deal,
                              const qn_range_format *format)
{
    enum { MAX_PARTS = 8 };
    void *parts[MAX_PARTS];
    qn_error error = {0};
    assert_true(n_parts <= MAX_PARTS);
    for (size_t p = 0; p < n_parts; p++)
        parts[p] = new_state(m);
    for (uint32_t pass = 0; pass < m->passes; pass++) {
        for (size_t i = 0, sample = 0; i < count; i += sample_count, sample++) {
            const size_t n = count - i < sample_count ? count - i : sample_count;
            const size_t p = (sample * 2654435761u + deal) / 7 % n_parts;
            assert_int_equal(m->observe(ctx, parts[p], pass, sample, values + i, n, &error), QN_OK);
        }
        const size_t root = deal % n_parts;
        void *total = parts[root];
        for (size_t p = 0; p < n_parts; p++)
            if (p != root)
                assert_int_equal(m->merge(ctx, total, parts[p], &error), QN_OK);
        if (pass + 1 == m->passes)
            continue;
        assert_int_equal(m->between_passes(ctx, total, &error), QN_OK);
        for (size_t p = 0; p < n_parts; p++) {
            if (p == root)
                continue;
            m->release(ctx, parts[p]);
            m->init(parts[p]);
            assert_int_equal(m->merge(ctx, parts[p], total, &error), QN_OK);
        }
    }
    qn_range range;
    memset(&range, 0, sizeof(range));
    assert_int_equal(m->finish(ctx, parts[deal % n_parts], format, 4, &range, &error), QN_OK);
    for (size_t p = 0; p < n_parts; p++)
        free_state(m, parts[p]);
    return range;
}

static qn_range observe_all(const char *method, const float *values, size_t count,
                            const qn_range_format *format)
{
    const qn_feature_method *m = qn__feature_method_find(method);
    assert_non_null(m);
    return observe_split(m, values, count, count > 0 ? count : 1, 1, 0, format);
}

static void any_split_gives_the_same_bytes(void **state)
{
    (void)state;
    enum { COUNT = 20011, SAMPLE = 331 };
    static float values[COUNT];
    rng_state = 20240917;
    for (size_t i = 0; i < COUNT; i++)
        values[i] = activation() * (i < COUNT / 2 ? 1.0f : 17.0f);
    for (size_t k = 0; qn__feature_method_at(k) != NULL; k++) {
        const qn_feature_method *m = qn__feature_method_at(k);
        if (m->train != NULL)
            continue; /* no observers */
        const qn_range one = observe_split(m, values, COUNT, SAMPLE, 1, 0, &u8);
        for (uint32_t deal = 0; deal < 12; deal++) {
            const qn_range split = observe_split(m, values, COUNT, SAMPLE, 2 + deal % 7, deal, &u8);
            if (memcmp(&one, &split, sizeof(one)) != 0)
                fail_msg("%s: [%.9g, %.9g] in one, [%.9g, %.9g] split", m->name, (double)one.lo,
                         (double)one.hi, (double)split.lo, (double)split.hi);
        }
    }
}

static void histogram_state_does_not_depend_on_order(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    static float values[COUNT];
    rng_state = 7;
    for (size_t i = 0; i < COUNT; i++)
        values[i] = ldexpf(activation(), (int)(rng() % 40) - 20);
    qn_histogram a, b;
    qn__histogram_init(&a);
    qn__histogram_init(&b);
    assert_int_equal(qn__histogram_observe(ctx, &a, 0, 0, values, COUNT, NULL), QN_OK);
    for (size_t i = COUNT; i-- > 0;)
        assert_int_equal(qn__histogram_observe(ctx, &b, 0, 0, values + i, 1, NULL), QN_OK);
    assert_int_equal(a.exponent, b.exponent);
    assert_int_equal(a.count, b.count);
    assert_memory_equal(a.hot, b.hot, 2 * QN_HISTOGRAM_BINS * sizeof(uint32_t));
    qn_bins bins;
    assert_int_equal(qn__bins_create(ctx, &a, 2048, &bins, NULL), QN_OK);
    assert_int_equal(bins.zeros + bins.n_pos + bins.n_neg, COUNT);
    qn__bins_free(&bins);
    qn__histogram_release(ctx, &a);
    qn__histogram_release(ctx, &b);
}

static void every_value_is_in_its_bin(void **state)
{
    (void)state;
    const float values[] = {0.0f, -0.0f, 1.0f, 0.25f, -0.25f, 0.999999f, -8191.0f, 8191.5f};
    qn_histogram h;
    qn__histogram_init(&h);
    assert_int_equal(qn__histogram_observe(ctx, &h, 0, 0, values, 8, NULL), QN_OK);
    qn_bins b;
    assert_int_equal(qn__bins_create(ctx, &h, QN_HISTOGRAM_BINS, &b, NULL), QN_OK);
    assert_true(b.width == 1.0);
    assert_int_equal(b.zeros, 2);
    assert_int_equal(b.pos[0], 2);
    assert_int_equal(b.pos[1], 1);
    assert_int_equal(b.neg[0], 1);
    assert_int_equal(b.pos[8191], 1);
    assert_int_equal(b.neg[8191], 1);
    qn__bins_free(&b);
    qn__histogram_release(ctx, &h);
}

static void minmax_is_the_range_seen(void **state)
{
    (void)state;
    float values[37];
    for (size_t i = 0; i < 37; i++)
        values[i] = (float)i - 5.0f;
    const qn_range r = observe_all("minmax", values, 37, &u8);
    assert_true(r.valid && r.lo == -5.0f && r.hi == 31.0f && r.count == 37);
}

static void ema_moves_by_one_percent_per_batch(void **state)
{
    (void)state;
    /* batches of 4 samples of one value: {0 1 2 3}, {4 5 6 7} */
    const float values[] = {0, 1, 2, 3, 4, 5, 6, 7};
    const qn_feature_method *m = qn__feature_method_find("ema");
    const qn_range r = observe_split(m, values, 8, 1, 3, 5, &u8);
    assert_true(fabsf(r.lo - 0.04f) < 1e-6f);
    assert_true(fabsf(r.hi - 3.04f) < 1e-6f);
    assert_true(r.seen_hi == 7.0f);
}

static void percentile_leaves_one_in_ten_thousand_outside(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    static float values[COUNT];
    for (size_t i = 0; i < COUNT; i++)
        values[i] = ((float)i + 0.5f) / COUNT; /* uniform on (0, 1) */
    values[COUNT - 1] = 50.0f;
    const qn_range r = observe_all("percentile", values, COUNT, &u8);
    assert_true(fabsf(r.hi - 0.9999f) < 0.01f);
    assert_true(r.lo == 0.0f);
    assert_true(r.seen_hi == 50.0f);
}

/* Many values near zero and one far away: methods that clip must clip it, and not much else. */
static void clipping_methods_cut_a_lone_outlier(void **state)
{
    (void)state;
    enum { COUNT = 200000 };
    static float values[COUNT];
    static const char *const names[] = {"kl", "percentile", "kl-mnn"};
    rng_state = 99;
    for (size_t i = 0; i < COUNT; i++)
        values[i] = fabsf(activation()) < 2.0f ? activation() : 0.5f;
    for (size_t i = 0; i < COUNT; i++)
        values[i] = fminf(fabsf(values[i]), 2.0f);
    values[1234] = 60.0f;
    for (size_t k = 0; k < 3; k++) {
        const qn_range r = observe_all(names[k], values, COUNT, &u8);
        if (!(r.hi < 30.0f && r.hi > 0.5f))
            fail_msg("%s: hi %g", names[k], (double)r.hi);
    }
}

/* One step of the iteration as it is defined, in double over every value. */
static double admm_step(const float *values, size_t count, double levels, double a)
{
    double qx = 0, qq = 0;
    for (size_t i = 0; i < count; i++) {
        const double q = fmax(-levels, fmin(levels, round((double)values[i] / a)));
        qx += q * (double)values[i];
        qq += q * q;
    }
    return qx / qq;
}

static double admm_reference(const float *values, size_t count, double levels)
{
    double largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs((double)values[i]));
    double a = largest / (2.5 * levels);
    for (int k = 0; k < 300; k++)
        a = admm_step(values, count, levels, a);
    return a;
}

static void admm_finds_the_scale_of_the_full_iteration(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    static float values[COUNT];
    static const double levels[] = {127, 100, 7};
    rng_state = 71;
    for (int kind = 0; kind < 6; kind++) {
        for (size_t i = 0; i < COUNT; i++) {
            const float x = activation();
            values[i] = kind == 0   ? x
                        : kind == 1 ? fmaxf(x, 0)
                        : kind == 2 ? 1.0f / (1.0f + expf(-3 * x))    /* one side, up to 1 */
                        : kind == 3 ? fminf(fmaxf(8 * x, 0), 6)       /* a relu6 */
                        : kind == 4 ? (float)(rng() % 256) - 127      /* integers */
                                    : expf(6 * fminf(x, 5)) * 1e-12f; /* many octaves */
        }
        const size_t count = kind == 5 ? 300 : COUNT; /* few values: each has its own bin */
        for (size_t k = 0; k < 3; k++) {
            const int32_t top = (int32_t)levels[k];
            const qn_range_format format = {.qmin = -top, .qmax = top, .symmetric = true};
            const qn_range r = observe_all("admm", values, count, &format);
            const double want = admm_reference(values, count, levels[k]);
            const double got = (double)r.hi / levels[k];
            /* Another step over all values leaves it where it is. */
            const double next = admm_step(values, count, levels[k], got);
            if (!(fabs(next / got - 1) < 2e-5 && fabs(got / want - 1) < 1e-3))
                fail_msg("kind %d, %d levels: %.9g, then %.9g, expected %.9g", kind, top, got, next,
                         want);
            if (kind == 5)
                assert_true(fabs(got / want - 1) < 1e-6);
            assert_true(r.lo == -r.hi);
        }
    }
}

static double quantization_error(const float *values, size_t count, float lo, float hi)
{
    const double scale = (double)(hi - lo) / 255, zero = rint(-(double)lo / scale);
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        const double q = fmin(255, fmax(0, rint((double)values[i] / scale) + zero));
        const double e = (double)values[i] - (q - zero) * scale;
        sum += e * e;
    }
    return sum;
}

static void mse_beats_the_range_seen_and_its_neighbours(void **state)
{
    (void)state;
    enum { COUNT = 50000 };
    static float values[COUNT];
    rng_state = 5;
    for (size_t i = 0; i < COUNT; i++)
        values[i] = activation();
    const qn_feature_method *m = qn__feature_method_find("mse");
    const qn_range r = observe_split(m, values, COUNT, 10000, 1, 0, &u8);
    const double best = quantization_error(values, COUNT, r.lo, r.hi);
    assert_true(best < quantization_error(values, COUNT, r.seen_lo, r.seen_hi));
    assert_true(best < 1.02 * quantization_error(values, COUNT, r.lo * 0.9f, r.hi));
    assert_true(best < 1.02 * quantization_error(values, COUNT, r.lo, r.hi * 0.9f));
    assert_true(best < 1.02 * quantization_error(values, COUNT, r.lo * 1.1f, r.hi * 1.1f));
}

static void degenerate_inputs_give_finite_ranges(void **state)
{
    (void)state;
    static float values[1000];
    const float fills[] = {0.0f, 3.0f, -2.5f, 1e-42f, -1e-42f, 3e38f, 1e-30f};
    const qn_range_format *formats[] = {&u8, &s8sym};
    for (size_t k = 0; qn__feature_method_at(k) != NULL; k++) {
        const char *name = qn__feature_method_at(k)->name;
        if (qn__feature_method_at(k)->train != NULL)
            continue;
        for (size_t f = 0; f < 2; f++) {
            for (size_t i = 0; i < sizeof(fills) / sizeof(fills[0]); i++) {
                for (size_t j = 0; j < 1000; j++)
                    values[j] = fills[i];
                const qn_range r = observe_all(name, values, 1000, formats[f]);
                if (!r.valid || !isfinite(r.lo) || !isfinite(r.hi) || r.lo > r.hi)
                    fail_msg("%s of constant %g: [%g, %g]", name, (double)fills[i], (double)r.lo,
                             (double)r.hi);
            }
            for (size_t j = 0; j < 1000; j++)
                values[j] = -(float)j;
            values[500] = 1e30f;
            const qn_range r = observe_all(name, values, 1000, formats[f]);
            if (!r.valid || !isfinite(r.lo) || !isfinite(r.hi) || r.lo > r.hi)
                fail_msg("%s with an outlier: [%g, %g]", name, (double)r.lo, (double)r.hi);
        }
        const qn_range none = observe_all(name, values, 0, &u8);
        assert_false(none.valid);
    }
}

static void nan_and_infinity_are_refused(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t k = 0; qn__feature_method_at(k) != NULL; k++) {
        const qn_feature_method *m = qn__feature_method_at(k);
        if (m->train != NULL)
            continue; /* no observers */
        for (size_t i = 0; i < 3; i++)
            for (size_t at = 0; at < 50; at += 7) {
                float values[50] = {1, 2, 3};
                qn_error error = {0};
                void *s = new_state(m);
                values[at] = bad[i];
                assert_int_equal(m->observe(ctx, s, 0, 0, values, 50, &error), QN_NONFINITE);
                assert_non_null(strstr(error.message, "value"));
                free_state(m, s);
            }
    }
}

static void mnn_histograms_of_different_ranges_refuse_to_merge(void **state)
{
    (void)state;
    const qn_feature_method *m = qn__feature_method_find("kl-mnn");
    void *a = new_state(m), *b = new_state(m);
    const float x = 1, y = 2;
    qn_error error = {0};
    assert_int_equal(m->observe(ctx, a, 0, 0, &x, 1, NULL), QN_OK);
    assert_int_equal(m->observe(ctx, b, 0, 0, &y, 1, NULL), QN_OK);
    assert_int_equal(m->between_passes(ctx, a, NULL), QN_OK);
    assert_int_equal(m->between_passes(ctx, b, NULL), QN_OK);
    assert_int_equal(m->merge(ctx, a, b, &error), QN_STATE);
    free_state(m, a);
    free_state(m, b);
}

static void mnn_keeps_the_maximum_of_small_tensors(void **state)
{
    (void)state;
    const qn_range_format small = {.qmin = -127, .qmax = 127, .symmetric = true, .positions = 99};
    float values[500];
    rng_state = 3;
    for (size_t i = 0; i < 500; i++)
        values[i] = fmaxf(-20.0f, fminf(20.0f, activation()));
    values[17] = -30.0f;
    const qn_range r = observe_all("kl-mnn", values, 500, &small);
    assert_true(fabsf(r.hi - 2047.5f * (30.0f / 2048.0f)) < 1e-4f);
    assert_true(r.lo == -r.hi);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_split_gives_the_same_bytes),
        cmocka_unit_test(histogram_state_does_not_depend_on_order),
        cmocka_unit_test(every_value_is_in_its_bin),
        cmocka_unit_test(minmax_is_the_range_seen),
        cmocka_unit_test(ema_moves_by_one_percent_per_batch),
        cmocka_unit_test(percentile_leaves_one_in_ten_thousand_outside),
        cmocka_unit_test(clipping_methods_cut_a_lone_outlier),
        cmocka_unit_test(admm_finds_the_scale_of_the_full_iteration),
        cmocka_unit_test(mse_beats_the_range_seen_and_its_neighbours),
        cmocka_unit_test(degenerate_inputs_give_finite_ranges),
        cmocka_unit_test(nan_and_infinity_are_refused),
        cmocka_unit_test(mnn_histograms_of_different_ranges_refuse_to_merge),
        cmocka_unit_test(mnn_keeps_the_maximum_of_small_tensors),
    };
    return cmocka_run_group_tests(tests, make_context, drop_context);
}
