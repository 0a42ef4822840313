/* Loops between floats and bytes, tables and means: the same bytes as the definitions, all lengths,
 * ends of rounding, what is not a number. */
#ifndef QN_TESTS_KERNEL_Q8_LOOPS_CASES_H
#define QN_TESTS_KERNEL_Q8_LOOPS_CASES_H

static void test_q8_table(const qn_q8_table *kernel, const qn_q8_table *reference)
{
    (void)reference;
    enum { ROOM = 2048 };
    static uint8_t table[256], src[ROOM], dst[ROOM];
    for (size_t n = 0; n < 1500; n += n < 600 ? 1 : 37) {
        const size_t shift = rng() % 64;
        const bool in_place = rng() % 2 != 0;
        for (size_t i = 0; i < 256; i++)
            table[i] = (uint8_t)rng();
        for (size_t i = 0; i < ROOM; i++) {
            src[i] = n % 2 ? (uint8_t)rng() : (uint8_t)i;
            dst[i] = in_place ? src[i] : 0x5A;
        }
        kernel->fn(table, (in_place ? dst : src) + shift, dst + shift, n);
        n_checks++;
        for (size_t i = 0; i < n; i++)
            if (dst[shift + i] != table[src[shift + i]])
                fail(kernel->name, RANDOM, "table", "differs");
        if (dst[shift + n] != (in_place ? src[shift + n] : 0x5A) ||
            (shift > 0 && dst[shift - 1] != (in_place ? src[shift - 1] : 0x5A)))
            fail(kernel->name, RANDOM, "table", "wrote outside its output");
    }
}

static uint8_t quantized(float x, const qn_q8_quantize_args *args)
{
    const float v = x / args->scale;
    double r = isnan(v) ? (double)args->lo : rint((double)v);
    r = r < (double)args->lo ? (double)args->lo : r > (double)args->hi ? (double)args->hi : r;
    return (uint8_t)((int32_t)r + args->zero);
}

/* Neighbours of the places where rounding turns, and values that overflow or vanish. */
static float hard_value(const qn_q8_quantize_args *args)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, 1e-40f, -0.0f, 0.0f};
    const uint64_t kind = rng() % 16;
    if (kind == 0)
        return odd[rng() % 8];
    float x = (float)((int)(rng() % 700) - 350) * 0.5f * args->scale;
    if (kind < 3)
        x = (float)((double)(rng() >> 11) / 9e15 * 600.0 - 300.0) * args->scale;
    for (uint64_t steps = rng() % 4; steps > 0; steps--)
        x = nextafterf(x, kind % 2 ? INFINITY : -INFINITY);
    return x;
}

static void test_q8_quantize(const qn_q8_quantize *kernel, const qn_q8_quantize *reference)
{
    (void)reference;
    static const float far[] = {1e-38f, 1e-30f, 1e30f, 3e38f, 1e-44f, 1.0f};
    for (size_t round = 0; round < 3000; round++) {
        const size_t channels = round % 3 == 0 ? 1 : round % 3 == 1 ? 3 : 1 + rng() % 5;
        const size_t n = rng() % 300, plane = n + rng() % 5;
        const bool s8 = rng() % 2 != 0;
        const int32_t zero = (int32_t)(rng() % 256) - (s8 ? 128 : 0);
        qn_q8_quantize_args args = {
            .n = n,
            .channels = channels,
            .plane = plane,
            .zero = zero,
            .lo = (float)((s8 ? -128 : 0) - zero),
            .hi = (float)((s8 ? 127 : 255) - zero),
            .scale = rng() % 16 == 0 ? far[rng() % 6]
                                     : (float)exp2((double)(rng() % 4000) / 100.0 - 25.0),
        };
        if (round % 2 == 0)
            qn__q8_quantize_factors(&args);
        const size_t count = n == 0 ? 0 : plane * (channels - 1) + n;
        float *const src = need(malloc(count * sizeof(float) + 1));
        /* In rows with a gap behind each, the last of which comes first, or in one. */
        const size_t row = round % 5 < 2 && n > 0 ? 1 + rng() % (n < 70 ? n : 70) : n;
        const size_t gap = row == n ? 0 : 1 + rng() % 40, all = row == 0 ? 0 : n / row;
        const size_t pitch = row * channels + gap, n_rows = row == n ? n > 0 : all;
        uint8_t *const dst = need(malloc(n_rows * pitch + 1));
        uint8_t **const rows = need(malloc((n_rows + 1) * sizeof(*rows)));
        for (size_t i = 0; i < n_rows; i++)
            rows[i] = dst + (n_rows - 1 - i) * pitch;
        for (size_t i = 0; i < count; i++)
            src[i] = hard_value(&args);
        args.src = src;
        args.dst = dst;
        args.n = n_rows * row;
        if (row != n) {
            args.rows = (uint8_t *const *)rows;
            args.row = row;
        }
        memset(dst, 0x5A, n_rows * pitch + 1);
        kernel->fn(&args);
        n_checks++;
        for (size_t i = 0; i < args.n; i++)
            for (size_t c = 0; c < channels; c++) {
                const float x = src[c * plane + i];
                const uint8_t got = rows[i / row][i % row * channels + c];
                if (got != quantized(x, &args)) {
                    char text[128];
                    snprintf(text, sizeof text, "%.9g / %.9g is %d, not %d", (double)x,
                             (double)args.scale, got, quantized(x, &args));
                    fail(kernel->name, RANDOM, "quantize", text);
                }
            }
        for (size_t i = 0; i < n_rows * gap; i++)
            if (rows[i / gap][row * channels + i % gap] != 0x5A)
                fail(kernel->name, RANDOM, "quantize", "wrote behind a row");
        if (dst[n_rows * pitch] != 0x5A)
            fail(kernel->name, RANDOM, "quantize", "wrote behind the end");
        free(src), free(dst), free(rows);
    }
}

static void test_q8_dequantize(const qn_q8_dequantize *kernel, const qn_q8_dequantize *reference)
{
    (void)reference;
    for (size_t n = 0; n < 400; n++) {
        const bool s8 = rng() % 2 != 0;
        uint8_t *const src = need(malloc(n + 1));
        float *const dst = need(malloc((n + 1) * sizeof(float)));
        for (size_t i = 0; i < n; i++)
            src[i] = (uint8_t)rng();
        memcpy(&dst[n], &GUARD_BITS, sizeof GUARD_BITS);
        const int32_t zero = (int32_t)(rng() % 256) - (s8 ? 128 : 0);
        const qn_q8_dequantize_args args = {.n = n,
                                            .src = src,
                                            .dst = dst,
                                            .scale = 0.001f + (float)(rng() % 1000) * 0.013f,
                                            .zero = zero + (s8 ? 128 : 0),
                                            .flip = s8 ? 0x80 : 0};
        kernel->fn(&args);
        n_checks++;
        for (size_t i = 0; i < n; i++)
            if (dst[i] != (float)((s8 ? (int8_t)src[i] : src[i]) - zero) * args.scale)
                fail(kernel->name, RANDOM, "dequantize", "differs");
        if (memcmp(&dst[n], &GUARD_BITS, sizeof GUARD_BITS) != 0)
            fail(kernel->name, RANDOM, "dequantize", "wrote behind the end");
        free(src), free(dst);
    }
}

static uint8_t mean_expected(const qn_q8_avgpool_args *args, size_t c)
{
    int64_t sum = -(int64_t)args->offset;
    for (size_t p = 0; p < args->planes; p++)
        for (size_t i = 0; i < args->rows; i++)
            for (size_t j = 0; j < args->cols; j++)
                sum += args->in[p * args->plane + i * args->row + j * args->col + c] ^ args->flip;
    float v = (float)sum * args->factor;
    if (args->divides) {
        v = v / args->count;
        v = v / args->scale;
    }
    double r = rint((double)v);
    r = r < (double)args->lo ? (double)args->lo : r > (double)args->hi ? (double)args->hi : r;
    return (uint8_t)((int32_t)r + args->zero);
}

static void test_q8_avgpool(const qn_q8_avgpool *kernel, const qn_q8_avgpool *reference)
{
    (void)reference;
    for (size_t round = 0; round < 600; round++) {
        /* Now and then more taps than 16 bits hold, all of them 255. */
        const bool large = round % 50 == 0;
        const size_t rows = large ? 30 : rng() % 6, cols = large ? 30 : rng() % 8;
        const size_t planes = rng() % 2 != 0 ? 1 : rng() % 5;
        const size_t channels = 1 + rng() % (large ? 40 : 200), col = channels + rng() % 3;
        const size_t row = cols * col + rng() % 5;
        const size_t plane = rows * row + rng() % 3 * col, taps_count = planes * rows * cols;
        const size_t count =
            taps_count == 0 ? 0 : (planes - 1) * plane + (rows - 1) * row + (cols - 1) * col;
        uint8_t *const in = need(malloc(count + channels));
        uint8_t *const out = need(malloc(channels + 1));
        for (size_t i = 0; i < count + channels; i++)
            in[i] = large && round % 100 == 0 ? 255 : (uint8_t)rng();
        const bool s8 = rng() % 2 != 0;
        const int32_t zero = (int32_t)(rng() % 256) - (s8 ? 128 : 0);
        const float taps = (float)(taps_count == 0 ? 1 : taps_count);
        qn_q8_avgpool_args args = {.channels = channels,
                                   .planes = planes,
                                   .rows = rows,
                                   .cols = cols,
                                   .in = in,
                                   .plane = plane,
                                   .row = row,
                                   .col = col,
                                   .out = out,
                                   .flip = s8 ? 0x80 : 0,
                                   .divides = rng() % 2 != 0,
                                   .offset = (int32_t)(rng() % 200) * (int32_t)taps_count,
                                   .zero = zero,
                                   .factor = 0.031f,
                                   .count = taps,
                                   .scale = 0.029f,
                                   .lo = (float)((s8 ? -128 : 0) - zero),
                                   .hi = (float)((s8 ? 127 : 255) - zero)};
        if (!args.divides)
            args.factor = 1.1f / taps;
        out[channels] = 0x5A;
        kernel->fn(&args);
        n_checks++;
        for (size_t c = 0; c < channels; c++)
            if (out[c] != mean_expected(&args, c))
                fail(kernel->name, RANDOM, "mean", "differs");
        if (out[channels] != 0x5A)
            fail(kernel->name, RANDOM, "mean", "wrote behind the end");
        free(in), free(out);
    }
}

/* The limit is of as many multiply-adds as it says. */
static void test_q8_peak(const qn_q8_peak *kernel, const qn_q8_peak *reference)
{
    (void)reference;
    for (size_t n = 0; n < 100; n++) {
        n_checks++;
        if (kernel->macs == 0 || kernel->fn(n) != (uint32_t)(n * kernel->macs))
            fail(kernel->name, INTEGERS, "limit", "does not make its multiply-adds");
    }
}

#endif
