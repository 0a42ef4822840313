/* Sums to bytes by integers: the same bytes as the reference for all multipliers, ties of both
 * roundings, sums of all sizes, and nothing written beside the rows. */
#ifndef QN_TESTS_KERNEL_Q8_FIXED_CASES_H
#define QN_TESTS_KERNEL_Q8_FIXED_CASES_H

enum { Q8_FIXED_MAX_N = 70, Q8_FIXED_MAX_ROWS = 11 };

/* kind 0: as of trained layers; 1: any; 2: powers of two. */
static qn_multiplier q8_multiplier(size_t kind)
{
    qn_multiplier m = {(int32_t)(1u << 30 | (uint32_t)rng() >> 2), -1 - (int32_t)(rng() % 12)};
    if (kind == 1)
        m.exponent = (int32_t)(rng() % 62) - 31;
    if (kind == 2 || rng() % 8 == 0)
        m.multiplier = 1 << 30;
    if (rng() % 16 == 0)
        m.multiplier = INT32_MAX;
    if (rng() % 16 == 0)
        m = (qn_multiplier){0, -1};
    if (kind == 1 && rng() % 16 == 0)
        m.multiplier = -m.multiplier;
    return m;
}

/* Around steps and halves of steps of the result, or anything. */
static int32_t q8_sum(qn_multiplier m)
{
    static const int32_t ends[] = {INT32_MIN, INT32_MIN + 1, -1, 0, 1, INT32_MAX - 1, INT32_MAX};
    const uint64_t kind = rng() % 8;
    if (kind == 0)
        return ends[rng() % (sizeof ends / sizeof ends[0])];
    if (kind == 1 || m.multiplier == 0)
        return (int32_t)rng();
    const double step = ldexp(1.0, 31 - m.exponent) / (double)m.multiplier;
    const double x = ((double)(rng() % 1200) - 600.0) * 0.5 * step + (double)(rng() % 5) - 2.0;
    return x > 2147483647.0 ? INT32_MAX : x < -2147483648.0 ? INT32_MIN : (int32_t)x;
}

static void q8_fixed_case(const qn_q8_fixed *kernel, const qn_q8_fixed *reference, size_t rows,
                          size_t n, size_t kind)
{
    enum { ROOM = Q8_FIXED_MAX_ROWS * (Q8_FIXED_MAX_N + 3) + 64 };
    static const int32_t bounds[][3] = {{0, -128, 127},  {-128, -128, 127}, {127, -128, 127},
                                        {0, 0, 255},     {255, 0, 255},     {128, 0, 255},
                                        {3, 3, 90},      {-5, -5, 100},     {100, 20, 200},
                                        {-20, -60, -20}, {7, 7, 7},         {-128, -100, 100}};
    static uint8_t expected[ROOM], got[ROOM];
    guard_used = 0;
    qn_multiplier *const fixed = guarded(n * sizeof *fixed);
    for (size_t i = 0; i < n; i++)
        fixed[i] = q8_multiplier(kind == 1 && rng() % 4 != 0 ? 0 : kind);
    const size_t stride = n + rng() % 4, out_stride = n + rng() % 4;
    const size_t count = rows == 0 ? 0 : (rows - 1) * stride + n;
    int32_t *const sums = guarded((count + QN_Q8_FIXED_OVER) * sizeof *sums);
    for (size_t i = 0; i < count; i++)
        sums[i] = q8_sum(fixed[i % stride < n ? i % stride : 0]);
    const int32_t *const b = bounds[rng() % (sizeof bounds / sizeof bounds[0])];
    qn_q8_fixed_args args = {.rows = rows,
                             .n = n,
                             .sums = sums,
                             .sums_stride = stride,
                             .fixed = fixed,
                             .once = kind == 2 || rng() % 2 != 0,
                             .zero = b[0],
                             .lo = b[1],
                             .hi = b[2],
                             .out_stride = out_stride};
    memset(expected, 0x5A, sizeof expected);
    memset(got, 0x5A, sizeof got);
    args.out = expected + 32;
    reference->fn(&args);
    args.out = got + 32;
    kernel->fn(&args);
    n_checks++;
    for (size_t i = 0; i < ROOM; i++)
        if (expected[i] != got[i]) {
            printf(
                "FAILED %s: rows %zu n %zu stride %zu kind %zu once %d zero %d lo %d hi %d: byte "
                "%td is %d, not %d\n",
                kernel->name, rows, n, out_stride, kind, args.once, args.zero, args.lo, args.hi,
                (ptrdiff_t)i - 32, got[i], expected[i]);
            exit(1);
        }
}

/* Where the two roundings, and ties of each, differ. */
static void q8_fixed_known(const qn_q8_fixed *kernel)
{
    static const struct {
        int32_t x;
        qn_multiplier by;
        int32_t twice, once;
    } cases[] = {
        {-2, {1 << 30, -1}, -1, 0},
        {2, {1 << 30, -1}, 1, 1},
        {-6, {1 << 30, -1}, -2, -1},
        {6, {1 << 30, -1}, 2, 2},
        {5, {1 << 30, -1}, 2, 1},
        {-100000, {1 << 30, -9}, -98, -98},
        {INT32_MIN, {1 << 30, -1}, -128, -128},
        {INT32_MAX, {INT32_MAX, -24}, 127, 127},
        {1 << 30, {1 << 30, -23}, 64, 64},
        {-3, {INT32_MAX, -1}, -2, -1},
        {INT32_MAX, {INT32_MAX, 30}, 127, 127},
        {-1, {1 << 30, 3}, -4, -4},
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
        const bool once = i % 2 != 0;
        int32_t sums[2 + QN_Q8_FIXED_OVER] = {cases[i / 2].x, cases[i / 2].x};
        const qn_multiplier by[2] = {cases[i / 2].by, cases[i / 2].by};
        uint8_t out[2];
        const qn_q8_fixed_args args = {.rows = 1,
                                       .n = 2,
                                       .sums = sums,
                                       .fixed = by,
                                       .once = once,
                                       .lo = -128,
                                       .hi = 127,
                                       .out = out};
        kernel->fn(&args);
        const int32_t wanted = once ? cases[i / 2].once : cases[i / 2].twice;
        n_checks++;
        if ((int8_t)out[0] != wanted || (int8_t)out[1] != wanted) {
            printf("FAILED %s: case %zu once %d: %d %d, not %d\n", kernel->name, i / 2, once,
                   (int8_t)out[0], (int8_t)out[1], wanted);
            exit(1);
        }
    }
}

static void test_q8_fixed(const qn_q8_fixed *kernel, const qn_q8_fixed *reference)
{
    q8_fixed_known(kernel);
    for (size_t times = 0; times < 40; times++)
        for (size_t n = 1; n <= Q8_FIXED_MAX_N; n += n < 35 ? 1 : 7)
            for (size_t kind = 0; kind < 3; kind++)
                q8_fixed_case(kernel, reference, rng() % (Q8_FIXED_MAX_ROWS + 1), n, kind);
}

#endif
