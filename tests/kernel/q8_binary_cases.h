/* Addition, multiplication and subtraction of bytes: the same bytes as loops in double, all
 * lengths, in place; largest bytes of windows. */
#ifndef QN_TESTS_KERNEL_Q8_BINARY_CASES_H
#define QN_TESTS_KERNEL_Q8_BINARY_CASES_H

typedef enum binary_op { BINARY_ADD, BINARY_MUL, BINARY_SUB } binary_op;

static uint8_t binary_expected(const qn_q8_binary_args *args, size_t i, binary_op op)
{
    const double x = (double)((args->a[i] ^ args->a_flip) - args->a_off);
    const double y = (double)((args->b[i] ^ args->b_flip) - args->b_off);
    double v;
    if (op == BINARY_ADD)
        v = (double)(float)(x * (double)args->ra +
                            (double)(float)(y * (double)args->rb + (double)args->fixed));
    else if (op == BINARY_MUL)
        v = (double)((float)(x * y) * args->ra + args->fixed);
    else
        v = (double)(((float)x * args->ra - (float)y * args->rb) / args->fixed);
    v = rint(v);
    v = v < (double)args->lo ? (double)args->lo : v > (double)args->hi ? (double)args->hi : v;
    return (uint8_t)((int32_t)v + args->zero);
}

static void binary_case(const qn_q8_binary *kernel, binary_op op, size_t n, size_t shift,
                        int in_place)
{
    enum { ROOM = 1024 };
    static uint8_t a[ROOM], b[ROOM], out[ROOM], expected[ROOM];
    for (size_t i = 0; i < ROOM; i++) {
        a[i] = (uint8_t)rng();
        b[i] = (uint8_t)rng();
        out[i] = 0xA5;
    }
    const bool sa = rng() % 2, sb = rng() % 2, sy = rng() % 2;
    const float steps = exp2f((float)(rng() % 18) - 9.0f);
    qn_q8_binary_args args = {
        .n = n,
        .a = a + shift,
        .b = b + shift,
        .a_flip = sa ? 0x80 : 0,
        .b_flip = sb ? 0x80 : 0,
        .a_off = (float)(rng() % 256),
        .b_off = (float)(rng() % 256),
        .ra = rng() % 3 == 0 ? steps : 0.3f + (float)(rng() % 1000) * 0.001f,
        .rb = rng() % 3 == 0 ? 0.5f : 0.3f + (float)(rng() % 1000) * 0.001f,
        .fixed = rng() % 3 == 0 ? 3.0f : (float)(rng() % 100000) * 0.003f - 150.0f,
        .lo = sy          ? -128.0f
              : rng() % 2 ? 0.0f
                          : 7.0f,
        .hi = sy ? 127.0f : 255.0f,
    };
    if (rng() % 2 == 0) { /* as quantized types have them */
        args.a_off = sa ? 128.0f : 0.0f;
        args.b_off = sb ? 128.0f : 0.0f;
    }
    if (rng() % 4 == 0) { /* unsigned bytes that are summed as signed ones */
        args.a_flip = args.b_flip = 0;
        args.a_off = args.b_off = 128.0f;
        args.zero = 128;
        args.lo = rng() % 2 ? -128.0f : -7.0f;
        args.hi = 127.0f;
    }
    if (op == BINARY_MUL)
        args.ra *= 0.01f;
    if (op == BINARY_SUB) {
        args.fixed = 0.01f + (float)(rng() % 1000) * 0.003f;
        args.zero = (int32_t)(rng() % 256) - 128;
    }
    for (size_t i = 0; i < n; i++)
        expected[i] = binary_expected(&args, i, op);
    args.out = in_place == 0 ? out + shift : in_place == 1 ? a + shift : b + shift;
    const uint8_t before = args.out[n];
    kernel->fn(&args);
    n_checks++;
    char shape[64];
    snprintf(shape, sizeof(shape), "%zu bytes, shift %zu, in place %d", n, shift, in_place);
    if (memcmp(args.out, expected, n) != 0)
        fail(kernel->name, RANDOM, shape, "differs");
    if (args.out[n] != before)
        fail(kernel->name, RANDOM, shape, "wrote behind the end");
}

static void binary_cases(const qn_q8_binary *kernel, binary_op op)
{
    for (size_t n = 0; n < 300; n++)
        for (int in_place = 0; in_place < 3; in_place++)
            binary_case(kernel, op, n, rng() % 64, in_place);
    /* What is not a number is the lower end. */
    uint8_t byte = 3, out = 9;
    qn_q8_binary_args args = {.n = 1, .a = &byte, .b = &byte, .out = &out, .ra = 1.0f, .rb = 1.0f};
    args.fixed = NAN;
    args.lo = 5.0f;
    args.hi = 200.0f;
    kernel->fn(&args);
    if (out != 5)
        fail(kernel->name, RANDOM, "NaN", "is not the lower end");
}

static void test_q8_add(const qn_q8_binary *kernel, const qn_q8_binary *reference)
{
    (void)reference;
    binary_cases(kernel, BINARY_ADD);
}

static void test_q8_mul(const qn_q8_binary *kernel, const qn_q8_binary *reference)
{
    (void)reference;
    binary_cases(kernel, BINARY_MUL);
}

static void test_q8_sub(const qn_q8_binary *kernel, const qn_q8_binary *reference)
{
    (void)reference;
    binary_cases(kernel, BINARY_SUB);
}

static void test_q8_maxpool(const qn_q8_maxpool *kernel, const qn_q8_maxpool *reference)
{
    (void)reference;
    enum { ROWS = 5, COLS = 16, CHANNELS = 300, MOST = 4 };
    static uint8_t in[ROWS * COLS * CHANNELS], out[MOST * CHANNELS + 1];
    for (int round = 0; round < 400; round++) {
        for (size_t i = 0; i < sizeof(in); i++)
            in[i] = (uint8_t)rng();
        const uint8_t flip = rng() % 2 ? 0x80 : 0;
        const size_t channels = 1 + rng() % CHANNELS;
        const size_t n = 1 + rng() % MOST;
        const qn_q8_maxpool_args args = {
            .n = n,
            .channels = channels,
            .rows = rng() % (ROWS + 1),
            .cols = rng() % 4,
            .in = in,
            .step = (1 + rng() % 3) * channels,
            .row = COLS * CHANNELS,
            .col = (1 + rng() % 2) * channels,
            .out = out,
            .flip = flip,
            .least = (uint8_t)(rng() % 20),
            .lo = (uint8_t)(rng() % 100),
            .hi = (uint8_t)(255 - rng() % 100),
        };
        out[n * channels] = 0x5A;
        kernel->fn(&args);
        n_checks++;
        for (size_t at = 0; at < n * channels; at++) {
            const uint8_t *const first = in + at / channels * args.step + at % channels;
            int best = args.least;
            for (size_t i = 0; i < args.rows; i++)
                for (size_t j = 0; j < args.cols; j++) {
                    const int v = first[i * args.row + j * args.col] ^ flip;
                    best = v > best ? v : best;
                }
            best = best < args.lo ? args.lo : best > args.hi ? args.hi : best;
            if (out[at] != (uint8_t)(best ^ flip))
                fail(kernel->name, RANDOM, "window", "differs");
        }
        if (out[n * channels] != 0x5A)
            fail(kernel->name, RANDOM, "window", "wrote behind the end");
    }
}

#endif
