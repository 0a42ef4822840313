/* Quantized Conv, Gemm and MatMul in real integers against the exact float simulation: the same
 * bytes for random shapes, on every instruction set of the machine and any number of threads. */
#include "plan_fault.h"
#include "q8_net.h"
#include "run/packing.h"

static qn_tensor *conv_node(sample *s, size_t *k, float scale)
{
    for (;;) {
        const size_t axes = net_random(6) == 0 ? 1 + 2 * net_random(2) : 2;
        static const int64_t kernels[] = {1, 1, 3, 3, 5, 2};
        const uint32_t kind = net_random(5);
        const int64_t groups = kind == 0 ? between(2, 40) : kind == 1 ? between(2, 5) : 1;
        const int64_t cin = kind == 0 ? 1 : between(1, net_random(2) != 0 ? 9 : 80);
        const int64_t cout = kind == 0 ? (net_random(4) == 0 ? 3 : 1) : between(1, 70);
        int64_t x[5] = {between(1, 2), groups * cin}, w[5] = {groups * cout, cin};
        int64_t strides[3], dilations[3], pads[6];
        bool fits = groups * cout <= MAX_CHANNELS;
        const int64_t kernel = kernels[net_random(6)];
        for (size_t i = 0; i < axes; i++) {
            w[2 + i] = axes == 1 || net_random(5) != 0 ? kernel : kernels[net_random(6)];
            x[2 + i] = between(1, axes == 3 ? 6 : 13);
            strides[i] = between(1, 3);
            dilations[i] = net_random(4) == 0 ? 2 : 1;
            pads[i] = between(0, w[2 + i]);
            pads[axes + i] = between(0, w[2 + i]);
            fits &= x[2 + i] + pads[i] + pads[axes + i] >= (w[2 + i] - 1) * dilations[i] + 1;
        }
        size_t count = 0, w_count = 0;
        assert_true(qn_shape_count(&count, x, axes + 2) && qn_shape_count(&w_count, w, axes + 2));
        if (!fits || count > MAX_IN || w_count > MAX_W)
            continue;
        *k = w_count / (size_t)w[0];
        qn_tensor *in[3] = {bytes_input(s, axes + 2, x, scale), weights(s, axes + 2, w, 0), NULL};
        const bool has_bias = net_random(4) != 0;
        if (has_bias)
            in[2] = int_bias(s, (size_t)w[0]);
        qn_tensor *y = build_node(&s->n->b, QN_OP_CONV, "y", has_bias ? 3 : 2, in);
        set_ints(&s->n->b, y, "pads", 2 * axes, pads);
        set_ints(&s->n->b, y, "strides", axes, strides);
        set_ints(&s->n->b, y, "dilations", axes, dilations);
        set_int(&s->n->b, y, "group", groups);
        s->integers = true; /* weights that do not fit in parts */
        return y;
    }
}

static qn_tensor *matrix_node(sample *s, size_t *k, float scale)
{
    const bool gemm = net_random(2) != 0, trans_a = gemm && net_random(2) != 0;
    const bool trans_b = gemm && net_random(2) != 0;
    const int64_t m = between(1, 20), n = between(1, 100), depth = between(1, 300);
    *k = (size_t)depth;
    if (gemm) {
        const int64_t a[2] = {trans_a ? depth : m, trans_a ? m : depth};
        const int64_t b[2] = {trans_b ? n : depth, trans_b ? depth : n};
        qn_tensor *const in[3] = {bytes_input(s, 2, a, scale), weights(s, 2, b, trans_b ? 0 : 1),
                                  int_bias(s, (size_t)n)};
        qn_tensor *y = build_node(&s->n->b, QN_OP_GEMM, "y", net_random(2) != 0 ? 3 : 2, in);
        set_int(&s->n->b, y, "transA", trans_a);
        set_int(&s->n->b, y, "transB", trans_b);
        s->integers = true;
        return y;
    }
    const int64_t a[3] = {between(1, 4), m, depth}, b[2] = {depth, n};
    qn_tensor *const in[2] = {bytes_input(s, 3, a, scale), weights(s, 2, b, 1)};
    s->integers = true;
    return build_node(&s->n->b, QN_OP_MATMUL, "y", 2, in);
}

/* Two activations: batches that broadcast, and zero points of all kinds on the right. */
static qn_tensor *both_node(sample *s, size_t *k, float scale)
{
    const bool gemm = net_random(3) == 0, trans_a = gemm && net_random(2) != 0;
    const bool trans_b = gemm && net_random(2) != 0;
    const int64_t m = between(1, 20), n = between(1, 100), depth = between(1, 100);
    const int64_t b0 = between(1, 3), b1 = between(1, 2);
    const size_t from = gemm ? 2 : 0; /* batch dimensions left out */
    const int64_t a[4] = {net_random(3) == 0 ? 1 : b0, b1, trans_a ? depth : m,
                          trans_a ? m : depth};
    const int64_t b[4] = {b0, net_random(3) == 0 ? 1 : b1, trans_b ? n : depth,
                          trans_b ? depth : n};
    const size_t skip = from == 0 && net_random(4) == 0 ? 1 : from; /* of the right side's */
    *k = (size_t)depth;
    qn_tensor *const in[2] = {bytes_into(s, s->x, 4 - from, a + from, scale),
                              bytes_into(s, s->x2, 4 - skip, b + skip, 0.006f)};
    qn_tensor *y = build_node(&s->n->b, gemm ? QN_OP_GEMM : QN_OP_MATMUL, "y", 2, in);
    if (gemm) {
        set_int(&s->n->b, y, "transA", trans_a);
        set_int(&s->n->b, y, "transB", trans_b);
    }
    s->integers = true;
    return y;
}

static sample *sample_make(uint64_t seed, qn_requantize requantize)
{
    sample *const s = sample_start(seed * 7919 + 1);
    s->kind = requantize;
    const float scale = 0.02f;
    size_t k = 0;
    const uint32_t kind = net_random(8);
    qn_tensor *y = kind < 2    ? matrix_node(s, &k, scale)
                   : kind == 2 ? both_node(s, &k, scale)
                               : conv_node(s, &k, scale);
    finish(s, y, k, scale);
    return s;
}

/* As kernels requantize, or by integers. */
static void check_integers(qn_requantize kind)
{
    static const uint32_t threads[] = {1, 2, 5};
    size_t in_integers = 0, distinct = 0, total = 0;
    for (size_t i = 0; i < CASES; i++) {
        sample *const s = sample_make(i, kind);
        size_t bytes = 0;
        char kernel[64];
        uint8_t *const expected = q8_reference(s, false, &bytes, kernel);
        assert_int_equal(kernel[0], 'q');
        assert_null(strstr(kernel, "q8"));
        q8_expect(s, i, expected, bytes, threads, 3, true);
        in_integers += s->integers;
        if (s->y->type.kind == QN_TYPE_QUANT) {
            bool seen[256] = {false};
            for (size_t k = 0; k < bytes; k++) {
                distinct += !seen[expected[k]];
                seen[expected[k]] = true;
            }
            total++;
        }
        free(expected);
        sample_free(s);
    }
    /* The cases are worth something: most run in integers, and outputs are not all saturated. */
    assert_true(in_integers > CASES * 3 / 4);
    assert_true(distinct > total * 16);
}

static void integers_are_the_simulation(void **state)
{
    (void)state;
    check_integers(QN_REQUANTIZE_DEFAULT);
}

static void and_so_they_are_requantized_by_integers(void **state)
{
    (void)state;
    check_integers(QN_REQUANTIZE_GEMMLOWP);
    check_integers(QN_REQUANTIZE_GEMMLOWP_SINGLE);
    check_integers(QN_REQUANTIZE_SHIFT);
}

/* Add, Mul and Sub, of equal shapes, of a picture and its channels, or broadcast along some axes,
 * either way round. */
static sample *sums_make(uint64_t seed)
{
    static const qn_op ops[] = {QN_OP_ADD, QN_OP_MUL, QN_OP_SUB};
    sample *const s = sample_start(seed * 104729 + 3);
    const int64_t dims[4] = {between(1, 2), between(1, 40), between(1, 9), between(1, 9)};
    int64_t small[4];
    const uint32_t kind = net_random(3);
    const bool turned = net_random(2) != 0;
    for (size_t i = 0; i < 4; i++)
        small[i] =
            kind == 0 || (kind == 1 && i < 2) || (kind == 2 && net_random(2) != 0) ? dims[i] : 1;
    const qn_op op = ops[net_random(3)];
    const bool add = op == QN_OP_ADD, far = net_random(4) == 0;
    const float sa = 0.013f, sb = far ? 1e-5f : 0.02f;
    const float sy = op == QN_OP_MUL ? sa * sb * 60.0f : 0.03f;
    qn_tensor *in[2] = {NULL};
    in[turned] = bytes_into(s, s->x, 4, dims, sa);
    in[!turned] = bytes_into(s, s->x2, 4, small, sb);
    qn_tensor *y = build_node(&s->n->b, op, "y", 2, in);
    const bool s8 = net_random(2) != 0;
    y->type = net_quant(s->n, s8 ? QN_DTYPE_I8 : QN_DTYPE_U8, sy,
                        s8 ? (int32_t)between(-128, 127) : (int32_t)between(0, 255));
    y->producer->act = (qn_act)net_random(2);
    s->y = y;
    s->integers = kind < 2 && !(add && far);
    build_output(&s->n->b, y);
    return s;
}

static void sums_are_the_tables(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASES; i++) {
        sample *const s = sums_make(i);
        for (size_t k = 0; k < N_KINDS; k++) {
            size_t bytes = 0;
            char kernel[64];
            s->kind = KINDS[k];
            s->integers &= k == 0;
            uint8_t *const expected = q8_reference(s, false, &bytes, kernel);
            assert_null(strstr(kernel, "q8_"));
            q8_expect(s, i, expected, bytes, NULL, 0, false);
            free(expected);
        }
        sample_free(s);
    }
}

/* Means of windows, softmax of long rows, tables: integer loops of the machine against plain ones.
 */
static sample *loops_make(uint64_t seed)
{
    sample *const s = sample_start(seed * 7907 + 11);
    builder *const b = &s->n->b;
    const uint32_t kind = net_random(9);
    const int64_t dims[4] = {between(1, 2), between(1, kind == 2 ? 700 : 90), between(3, 6),
                             between(3, 6)};
    qn_tensor *const x = bytes_into(s, s->x, 4, dims, 0.05f);
    qn_tensor *y;
    if (kind == 0) {
        const int64_t kernel[2] = {between(2, 3), between(2, 3)}, pads[4] = {0, 1, 1, 0};
        y = NODE(b, AVERAGE_POOL, "y", x);
        set_ints(b, y, "kernel_shape", 2, kernel);
        set_ints(b, y, "pads", 4, pads);
        set_int(b, y, "count_include_pad", net_random(2));
    } else if (kind == 1) {
        y = NODE(b, GLOBAL_AVERAGE_POOL, "y", x);
    } else if (kind == 2) {
        y = NODE(b, SOFTMAX, "y", x);
        set_int(b, y, "axis", (int64_t)net_random(4));
    } else if (kind == 4) {
        static const int64_t axes[6][2] = {{2, 3}, {-1, 2}, {0, 1}, {1, 2}, {3, 0}, {1, 3}};
        const bool sum = net_random(2) != 0;
        const int64_t two[1] = {2};
        y = sum ? NODE(b, REDUCE_SUM, "y", x,
                       build_const(b, "axes", QN_DTYPE_I64, axes[net_random(6)], 1, two))
                : NODE(b, REDUCE_MEAN, "y", x,
                       build_const(b, "axes", QN_DTYPE_I64, axes[net_random(6)], 1, two));
        set_int(b, y, "keepdims", net_random(2));
    } else if (kind == 6) {
        const int64_t sizes[4] = {dims[0], dims[1], between(1, 12), between(1, 12)}, four[1] = {4};
        y = NODE(b, RESIZE, "y", x, NULL, NULL,
                 build_const(b, "sizes", QN_DTYPE_I64, sizes, 1, four));
        assert_true(qn__node_set_string(b->graph, y->producer, "mode", "linear"));
    } else if (kind == 5) {
        const int64_t slopes[3] = {dims[1], 1, net_random(4) == 0 ? dims[3] : 1};
        for (size_t i = 0; i < (size_t)(slopes[0] * slopes[2]); i++)
            s->x2[i] = 0.2f * net_random_float();
        y = NODE(b, PRELU, "y", x, build_const(b, "slopes", QN_DTYPE_F32, s->x2, 3, slopes));
    } else if (kind == 7) {
        qn_tensor *const parts[3] = {x, bytes_into(s, s->x2, 4, dims, 0.03f), x};
        y = build_node(b, QN_OP_CONCAT, "y", 3, parts);
        set_int(b, y, "axis", 1);
    } else if (kind == 8) {
        y = NODE(b, REQUANTIZE, "y", x);
    } else {
        y = NODE(b, SIGMOID, "y", x);
    }
    const bool s8 = net_random(2) != 0;
    const float scale = kind < 2 || kind > 3 ? 0.04f : 1.0f / 256.0f;
    y->type = net_quant(s->n, s8 ? QN_DTYPE_I8 : QN_DTYPE_U8, scale,
                        s8 ? (int32_t)between(-128, 127) : (int32_t)between(0, 100));
    s->y = y;
    build_output(b, y);
    return s;
}

/* Windows over one to three axes, in all places at the edges. */
static void pools_do_not_depend_on_the_machine(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASES / 2; i++) {
        sample *const s = sample_start(i * 6007 + 5);
        builder *const b = &s->n->b;
        const size_t axes = 1 + net_random(3);
        const bool max = net_random(3) == 0;
        int64_t dims[5] = {between(1, 2), between(1, 90)}, kernel[3], strides[3], dilations[3];
        int64_t pads[6];
        for (size_t k = 0; k < axes; k++) {
            kernel[k] = between(1, 3);
            strides[k] = between(1, 3);
            dilations[k] = between(1, 2);
            pads[k] = between(0, kernel[k] - 1);
            pads[axes + k] = between(0, kernel[k] - 1);
            dims[2 + k] = between((kernel[k] - 1) * dilations[k] + 1, 7);
        }
        qn_tensor *const x = bytes_into(s, s->x, axes + 2, dims, 0.05f);
        qn_tensor *const y = max ? NODE(b, MAX_POOL, "y", x) : NODE(b, AVERAGE_POOL, "y", x);
        set_ints(b, y, "kernel_shape", axes, kernel);
        set_ints(b, y, "strides", axes, strides);
        set_ints(b, y, "dilations", axes, dilations);
        set_ints(b, y, "pads", 2 * axes, pads);
        set_int(b, y, "ceil_mode", net_random(2));
        if (!max)
            set_int(b, y, "count_include_pad", net_random(2));
        const bool s8 = net_random(2) != 0;
        y->type = max ? x->type
                      : net_quant(s->n, s8 ? QN_DTYPE_I8 : QN_DTYPE_U8, 0.04f,
                                  s8 ? (int32_t)between(-128, 127) : (int32_t)between(0, 255));
        s->y = y;
        build_output(b, y);
        size_t bytes = 0;
        char name[64];
        uint8_t *const expected = q8_reference(s, true, &bytes, name);
        s->integers = true; /* no mask is without kernels for them */
        q8_expect(s, i, expected, bytes, NULL, 0, false);
        free(expected);
        sample_free(s);
    }
}

static void loops_do_not_depend_on_the_machine(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASES; i++) {
        sample *const s = loops_make(i);
        q8_expect_kinds(s, i);
        sample_free(s);
    }
}

/* More taps times rows than the stack holds pointers for. */
static void very_many_taps(void **state)
{
    (void)state;
    sample *const s = sample_start(5);
    const int64_t x[4] = {2, 10, 12, 19}, w[4] = {5, 10, 16, 18};
    qn_tensor *const in[2] = {bytes_input(s, 4, x, 0.02f), NULL};
    int8_t *const values = malloc(5 * 10 * 16 * 18);
    assert_non_null(values);
    for (size_t i = 0; i < 5 * 10 * 16 * 18; i++)
        values[i] = (int8_t)between(-128, 127);
    qn_tensor *weight = build_const(&s->n->b, "w", QN_DTYPE_I8, values, 4, w);
    weight->type = net_quant(s->n, QN_DTYPE_I8, 0.005f, 0);
    qn_tensor *y = NODE(&s->n->b, CONV, "y", in[0], weight);
    const int64_t pads[4] = {7, 8, 8, 9};
    set_ints(&s->n->b, y, "pads", 4, pads);
    finish(s, y, 10 * 16 * 18, 0.02f);
    qn_plan_options options;
    qn__plan_options_init(&options, s->n->b.ctx);
    for (size_t k = 0; k < N_KINDS; k++) {
        options.reference = true;
        options.requantize = KINDS[k];
        size_t bytes = 0, got_bytes = 0;
        char kernel[64];
        uint8_t *const expected = run_sample(s, &options, 1, &bytes, kernel);
        options.reference = false;
        for (uint32_t threads = 1; threads < 5; threads += 2) {
            uint8_t *const got = run_sample(s, &options, threads, &got_bytes, kernel);
            assert_non_null(strstr(kernel, "q8_"));
            expect_same(got, got_bytes, expected, bytes, k, kernel, threads);
            free(got);
        }
        free(expected);
    }
    free(values);
    sample_free(s);
}

/* What the simulation gives, on every instruction set and with one to three threads. */
static void expect_simulated(sample *s, size_t i)
{
    static const uint32_t threads[] = {1, 2, 3};
    for (size_t k = 0; k < N_KINDS; k++) {
        size_t bytes = 0;
        char kernel[64];
        s->kind = KINDS[k];
        uint8_t *const expected = q8_reference(s, false, &bytes, kernel);
        s->integers = true;
        q8_expect(s, i, expected, bytes, threads, 3, false);
        free(expected);
    }
}

/* Widths of outputs at whose ends tiles are cut, where a kernel reads rows in place, and some that
 * are not; strides too. */
static void tiles_end_with_rows(void **state)
{
    (void)state;
    static const int64_t widths[] = {7, 14, 19, 20, 28, 29, 30, 32};
    for (size_t i = 0; i < 2 * sizeof(widths) / sizeof(widths[0]); i++) {
        sample *const s = sample_start(100 + i);
        const int64_t stride = 1 + (int64_t)(i % 2), cin = between(24, 40);
        const int64_t x[4] = {1, cin, 11, stride * widths[i / 2]}, w[4] = {70, cin, 3, 3};
        const int64_t strides[2] = {stride, stride}, pads[4] = {1, 1, 1, 1};
        qn_tensor *in[2] = {bytes_input(s, 4, x, 0.02f), NULL};
        static int8_t values[70 * 40 * 9];
        for (size_t k = 0; k < sizeof(values); k++)
            values[k] = (int8_t)between(-128, 127);
        in[1] = build_const(&s->n->b, "w", QN_DTYPE_I8, values, 4, w);
        in[1]->type = net_quant(s->n, QN_DTYPE_I8, 0.005f, 0);
        qn_tensor *const y = build_node(&s->n->b, QN_OP_CONV, "y", 2, in);
        set_ints(&s->n->b, y, "pads", 4, pads);
        set_ints(&s->n->b, y, "strides", 2, strides);
        finish(s, y, (size_t)cin * 9, 0.02f);
        expect_simulated(s, i);
        sample_free(s);
    }
}

/* A channel whose window, times the parts of its weights, is too tall for depthwise layers is a
 * product, of two outputs at once where their number is even. */
static void parts_of_one_channel(void **state)
{
    (void)state;
    for (size_t i = 0; i < 8; i++) {
        sample *const s = sample_start(500 + i);
        const int64_t stride = 1 + (int64_t)(i / 2 % 2), kh = i < 4 ? 12 : 24;
        const int64_t x[4] = {2, 1, 30, stride * 8 + 3 - stride}, w[4] = {1, 1, kh, 3};
        const int64_t strides[2] = {stride, stride}, bias[1] = {1};
        for (int64_t k = 0; k < kh * 3; k++)
            s->w[k] = (int8_t)between(0, 255);
        s->bias[0] = -9000;
        qn_tensor *in[3] = {bytes_input(s, 4, x, 0.02f), NULL,
                            build_const(&s->n->b, "bias", QN_DTYPE_I32, s->bias, 1, bias)};
        in[1] = build_const(&s->n->b, "w", QN_DTYPE_U8, s->w, 4, w);
        in[1]->type = net_quant(s->n, QN_DTYPE_U8, 0.005f, i % 2 == 0 ? 0 : 90);
        qn_tensor *const y = build_node(&s->n->b, QN_OP_CONV, "y", 3, in);
        set_ints(&s->n->b, y, "strides", 2, strides);
        finish(s, y, (size_t)kh * 3, 0.02f);
        expect_simulated(s, i);
        sample_free(s);
    }
}

/* Windows of all sizes that decide how much is copied and computed at once: few channels, rows and
 * channels cut into parts, dilations beyond what stays, and windows too large for any of it. */
static void depthwise_in_parts(void **state)
{
    (void)state;
    static const struct {
        int64_t c, h, w, kh, kw, stride, dilation, pad;
    } cases[] = {
        {1, 9, 40, 3, 3, 1, 1, 1},     {2, 9, 33, 3, 3, 2, 1, 1},    {3, 7, 50, 5, 5, 1, 1, 2},
        {4, 5, 19, 3, 3, 3, 1, 0},     {5, 6, 64, 3, 3, 1, 2, 2},    {8, 20, 48, 3, 3, 1, 1, 1},
        {8, 21, 49, 3, 3, 2, 1, 1},    {8, 9, 30, 5, 5, 2, 3, 6},    {10, 6, 3, 3, 3, 1, 1, 1},
        {12, 9, 31, 3, 3, 2, 1, 1},    {16, 24, 24, 3, 3, 2, 1, 1},  {24, 11, 28, 3, 3, 1, 1, 1},
        {24, 11, 29, 3, 3, 2, 2, 2},   {33, 9, 17, 3, 3, 2, 1, 1},   {40, 9, 14, 5, 5, 1, 1, 2},
        {72, 9, 14, 5, 5, 2, 1, 2},    {300, 9, 9, 3, 3, 1, 1, 1},   {1027, 4, 7, 3, 3, 2, 1, 1},
        {600, 5, 5, 5, 3, 1, 1, 1},    {32, 3, 900, 3, 3, 1, 1, 1},  {80, 4, 300, 3, 3, 2, 1, 1},
        {20, 60, 60, 3, 3, 1, 24, 9},  {7, 84, 90, 3, 3, 1, 40, 0},  {64, 30, 30, 3, 3, 1, 12, 12},
        {20, 33, 33, 31, 31, 1, 1, 3}, {3, 40, 40, 33, 33, 1, 1, 0}, {2, 9, 9, 3, 3, 9, 1, 1},
        {18, 3, 3, 3, 3, 1, 1, 3},     {6, 2, 2, 2, 2, 1, 5, 9},     {256, 1, 2, 3, 3, 1, 1, 1},
        {2, 9, 9, 3, 3, 1, 1, 1},      {579, 14, 21, 5, 5, 1, 1, 0}, {8, 4, 2101, 3, 3, 1, 1, 1},
        {8, 5, 1500, 3, 3, 2, 1, 1},   {6, 6, 1000, 5, 5, 1, 1, 2},  {5, 4, 1400, 3, 3, 3, 1, 1},
        {8, 4, 1501, 3, 3, 1, 9, 9},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sample *const s = sample_start(300 + i);
        const int64_t c = cases[i].c, kh = cases[i].kh, kw = cases[i].kw, pad = cases[i].pad;
        const int64_t x[4] = {1 + (i % 5 == 0), c, cases[i].h, cases[i].w}, w[4] = {c, 1, kh, kw};
        const int64_t strides[2] = {cases[i].stride, cases[i].stride};
        const int64_t dilations[2] = {cases[i].dilation, cases[i].dilation};
        const int64_t pads[4] = {pad, pad / 2, pad, pad};
        qn_tensor *in[2] = {bytes_input(s, 4, x, 0.02f), NULL};
        static int8_t values[20 * 31 * 31];
        for (size_t k = 0; k < sizeof(values); k++)
            values[k] = (int8_t)between(-128, 127);
        in[1] = build_const(&s->n->b, "w", QN_DTYPE_I8, values, 4, w);
        in[1]->type = net_quant(s->n, QN_DTYPE_I8, 0.005f, 0);
        qn_tensor *const y = build_node(&s->n->b, QN_OP_CONV, "y", 2, in);
        set_ints(&s->n->b, y, "pads", 4, pads);
        set_ints(&s->n->b, y, "strides", 2, strides);
        set_ints(&s->n->b, y, "dilations", 2, dilations);
        set_int(&s->n->b, y, "group", c);
        finish(s, y, (size_t)(kh * kw), 0.02f);
        expect_simulated(s, i);
        sample_free(s);
    }
}

/* Depthwise layers that are read in place, with and without a column beside the picture on either
 * side, and first layers of few outputs, two of which may be one. */
static void edges_and_folds(void **state)
{
    (void)state;
    static const int64_t sizes[][2] = {{1, 1}, {1, 2}, {2, 1}, {5, 2}, {7, 7}, {9, 16}, {13, 28}};
    static const int64_t layers[][5] = {
        /* c, oc (0: depthwise), kernel, stride, that of rows (0: the same) */
        {64, 0, 3, 1}, {64, 0, 3, 2},    {70, 0, 3, 1}, {200, 0, 3, 2},  {144, 0, 3, 1},
        {3, 8, 3, 2},  {3, 5, 3, 1},     {4, 8, 5, 1},  {2, 7, 3, 1},    {1, 8, 3, 2},
        {2, 8, 4, 3},  {64, 0, 3, 1, 9}, {16, 0, 3, 1}, {32, 0, 3, 2},   {40, 0, 3, 1},
        {48, 0, 3, 2}, {80, 0, 3, 1},    {97, 0, 3, 2}, {32, 0, 3, 1, 2}};
    enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };
    for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]) * SIZES * 4; i++) {
        const int64_t *const layer = layers[i / 4 / SIZES], *const size = sizes[i / 4 % SIZES];
        const int64_t c = layer[0], oc = layer[1] == 0 ? c : layer[1], k = layer[2];
        const int64_t pads[4] = {1, (int64_t)(i & 1), 1, (int64_t)(i >> 1 & 1)};
        if (size[1] + pads[1] + pads[3] < k || size[0] + 2 < k)
            continue;
        sample *const s = sample_start(700 + i);
        const int64_t x[4] = {1 + (int64_t)(i % 3 == 0), c, size[0], size[1]};
        const int64_t w[4] = {oc, layer[1] == 0 ? 1 : c, k, k};
        const int64_t strides[2] = {layer[4] == 0 ? layer[3] : layer[4], layer[3]};
        qn_tensor *in[2] = {bytes_input(s, 4, x, 0.02f), NULL};
        int8_t values[8 * 4 * 5 * 5 + 200 * 9];
        for (size_t j = 0; j < sizeof(values); j++)
            values[j] = (int8_t)between(-128, 127);
        in[1] = build_const(&s->n->b, "w", QN_DTYPE_I8, values, 4, w);
        in[1]->type = net_quant(s->n, QN_DTYPE_I8, 0.005f, 0);
        qn_tensor *const y = build_node(&s->n->b, QN_OP_CONV, "y", 2, in);
        set_ints(&s->n->b, y, "pads", 4, pads);
        set_ints(&s->n->b, y, "strides", 2, strides);
        set_int(&s->n->b, y, "group", layer[1] == 0 ? c : 1);
        finish(s, y, (size_t)(k * k * w[1]), 0.02f);
        expect_simulated(s, i);
        sample_free(s);
    }
}

/* Weights of a filter in the order [kh][kw][c]: the full range; narrow ones; or as large as they
 * may be where neighbouring pairs have to fit int16, as quantizers count them. */
enum { FULL_RANGE, NARROW, IN_PAIRS, N_RANGES };
static void window_weights(int8_t *values, const int64_t w[4], int range)
{
    const int64_t taps = w[2] * w[3], k = taps * w[1];
    int64_t last = 0;
    for (int64_t i = 0; i < w[0] * k; i++) {
        const int64_t at = i % k, o = i / k, tap = at / w[1], c = at % w[1];
        const int64_t sign = last < 0 ? -1 : 1;
        int64_t v = range == FULL_RANGE ? between(-128, 127) : between(-20, 20);
        if (range == IN_PAIRS && at % 2 == 0)
            v = between(-120, 120);
        else if (range == IN_PAIRS)
            v = net_random(2) != 0 ? sign * between(0, 128 - sign * last) : -sign * between(0, 127);
        last = v;
        v = v > 127 ? 127 : v;
        values[(o * w[1] + c) * taps + tap] = (int8_t)v;
    }
}

/* Windows that are read from a copy of the input: in one tap, with bytes behind whole groups put
 * together or not, at every edge, in pictures of one row and several pictures. */
static void windows_are_spread(void **state)
{
    (void)state;
    static const int64_t layers[][7] = {
        /* c, oc, kernel, strides, dilation of rows */
        {3, 8, 3, 3, 2, 2, 1},   {3, 17, 3, 3, 1, 1, 1}, {3, 9, 3, 3, 3, 3, 1},
        {3, 12, 3, 3, 1, 2, 2},  {3, 16, 3, 3, 4, 1, 1}, {1, 10, 10, 4, 2, 2, 1},
        {1, 16, 3, 3, 1, 1, 1},  {1, 9, 3, 5, 1, 3, 1},  {2, 20, 3, 3, 2, 1, 1},
        {4, 9, 3, 3, 1, 2, 1},   {2, 13, 5, 5, 3, 2, 1}, {3, 24, 7, 7, 2, 2, 1},
        {3, 10, 5, 5, 1, 1, 3},  {3, 11, 2, 3, 1, 1, 1}, {1, 12, 3, 13, 1, 4, 1},
        {12, 20, 3, 3, 1, 1, 1}, {37, 9, 3, 3, 2, 1, 1}, {64, 16, 3, 3, 1, 2, 1},
        {48, 9, 5, 5, 1, 1, 1},
    };
    static const int64_t sizes[][2] = {{1, 9}, {5, 4}, {7, 13}, {10, 40}};
    enum { SIZES = sizeof(sizes) / sizeof(sizes[0]), MOST = 16 * 64 * 9 + 9 * 48 * 25 };
    static int8_t values[MOST];
    for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]) * SIZES * N_RANGES; i++) {
        const int64_t *const layer = layers[i / SIZES / N_RANGES];
        const int64_t *const size = sizes[i / N_RANGES % SIZES];
        const int64_t w[4] = {layer[1], layer[0], layer[2], layer[3]};
        const int64_t strides[2] = {layer[4], layer[5]}, dilations[2] = {layer[6], 1};
        const int64_t x[4] = {1 + (int64_t)(i % 4 == 0), layer[0], size[0], size[1]};
        const int range = (int)(i % N_RANGES);
        sample *const s = sample_start(1300 + i);
        const int64_t rows = (w[2] - 1) * layer[6];
        const int64_t pads[4] = {between(0, rows), between(0, w[3] - 1), between(0, rows),
                                 between(0, w[3] - 1)};
        qn_tensor *in[2] = {bytes_input(s, 4, x, 0.02f), NULL};
        assert_true(w[0] * w[1] * w[2] * w[3] <= MOST);
        window_weights(values, w, range);
        in[1] = build_const(&s->n->b, "w", QN_DTYPE_I8, values, 4, w);
        in[1]->type = net_quant(s->n, QN_DTYPE_I8, 0.005f, 0);
        qn_tensor *const y = build_node(&s->n->b, QN_OP_CONV, "y", 2, in);
        set_ints(&s->n->b, y, "pads", 4, pads);
        set_ints(&s->n->b, y, "strides", 2, strides);
        set_ints(&s->n->b, y, "dilations", 2, dilations);
        finish(s, y, (size_t)(w[1] * w[2] * w[3]), 0.02f);
        if (size[0] + pads[0] + pads[2] > rows && size[1] + pads[1] + pads[3] >= w[3])
            expect_simulated(s, i);
        sample_free(s);
    }
}

/* Whether weights that fit where quantizers count pairs fit for the kernel that adds them, too. */
static void windows_keep_pairs(void **state)
{
    (void)state;
    static const int64_t layers[][4] = {{3, 3, 3, 2}, {3, 3, 3, 1}, {1, 10, 4, 2}, {1, 3, 3, 1},
                                        {3, 5, 5, 2}, {3, 7, 7, 2}, {5, 3, 3, 1}};
    for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]); i++) {
        sample *const s = sample_start(77 + i);
        builder *const b = &s->n->b;
        const int64_t x[4] = {1, layers[i][0], 20, 20};
        const int64_t w[4] = {12, layers[i][0], layers[i][1], layers[i][2]};
        const int64_t strides[2] = {layers[i][3], layers[i][3]}, pads[4] = {1, 1, 1, 1};
        int8_t values[12 * 3 * 7 * 7];
        window_weights(values, w, IN_PAIRS);
        qn_tensor *in[2] = {bytes_input(s, 4, x, 0.02f), NULL};
        in[1] = build_const(b, "w", QN_DTYPE_I8, values, 4, w);
        in[1]->type = net_quant(s->n, QN_DTYPE_I8, 0.005f, 0);
        qn_tensor *const y = build_node(b, QN_OP_CONV, "y", 2, in);
        set_ints(b, y, "pads", 4, pads);
        set_ints(b, y, "strides", 2, strides);
        y->type = net_quant(s->n, QN_DTYPE_U8, 0.05f, 100);
        build_output(b, y);
        qn_packed_list list = {.ctx = b->ctx};
        assert_ok(b, qn__graph_infer(b->graph, &b->error));
        assert_ok(b, qn__graph_pack(b->graph, "avx2", &list, &b->error));
        assert_int_equal(list.count, 1);
        assert_int_equal(list.entries[0].flags, 1);
        qn__packed_list_free(&list);
        sample_free(s);
    }
}

/* Two outputs that are one have weights repeated a stride apart: what is packed for one stride is
 * not taken for another, whatever else is the same. */
static void folds_are_packed_by_stride(void **state)
{
    (void)state;
    sample *const s = sample_start(11);
    builder *const b = &s->n->b;
    const int64_t x[4] = {1, 2, 6, 16}, w[4] = {4, 2, 1, 4}, pads[4] = {0, 1, 0, 2};
    int8_t values[4 * 2 * 4];
    for (size_t i = 0; i < sizeof(values); i++)
        values[i] = (int8_t)between(-128, 127);
    qn_tensor *const q = bytes_input(s, 4, x, 0.02f);
    qn_tensor *const weight = build_const(b, "w", QN_DTYPE_I8, values, 4, w);
    weight->type = net_quant(s->n, QN_DTYPE_I8, 0.005f, 0);
    for (int64_t stride = 1; stride <= 2; stride++) {
        const int64_t strides[2] = {1, stride};
        qn_tensor *const y = NODE(b, CONV, stride == 1 ? "y1" : "y2", q, weight);
        set_ints(b, y, "pads", 4, pads);
        set_ints(b, y, "strides", 2, strides);
        y->type = net_quant(s->n, QN_DTYPE_U8, 0.05f, 100);
        build_output(b, y);
    }
    qn_packed_list list = {.ctx = b->ctx};
    assert_ok(b, qn__graph_infer(b->graph, &b->error));
    assert_ok(b, qn__graph_pack(b->graph, "vnni", &list, &b->error));
    assert_int_equal(list.count, 2);
    assert_int_equal(list.entries[0].bytes, list.entries[1].bytes);
    qn__packed_list_free(&list);
    sample_free(s);
}

/* Integer weights and bytes take a quarter of the memory of the simulation's. */
static void memory_shrinks(void **state)
{
    (void)state;
    sample *const s = sample_start(9);
    const int64_t x[4] = {1, 64, 16, 16}, w[4] = {64, 64, 1, 1};
    static int8_t values[64 * 64];
    for (size_t i = 0; i < sizeof(values); i++)
        values[i] = (int8_t)between(-128, 127);
    qn_tensor *q = bytes_input(s, 4, x, 0.02f);
    qn_tensor *weight = build_const(&s->n->b, "w", QN_DTYPE_I8, values, 4, w);
    weight->type = net_quant(s->n, QN_DTYPE_I8, 0.005f, 0);
    finish(s, NODE(&s->n->b, CONV, "y", q, weight), 64, 0.02f);
    size_t packed[2], arena[2];
    for (int reference = 0; reference < 2; reference++) {
        qn_plan_options options;
        qn__plan_options_init(&options, s->n->b.ctx);
        options.reference = reference != 0;
        qn_plan *plan = NULL;
        assert_ok(&s->n->b, qn__plan_create(s->n->b.graph, &options, &plan, &s->n->b.error));
        packed[reference] = qn__plan_packed_bytes(plan);
        arena[reference] = qn__plan_arena_bytes(plan);
        qn__plan_destroy(plan);
    }
    assert_true(packed[0] >= sizeof(values) && packed[0] * 3 < packed[1]);
    assert_true(arena[0] + 64 * 16 * 16 <= arena[1]); /* q in float, while x is not needed */
    sample_free(s);
}

/* Every allocation of planning fails once, for every way that a product can go. */
static void other_weights_survive_it(void **state)
{
    (void)state;
    /* a matrix, a window and channels in parts; the latter two over three axes */
    for (int kind = 0; kind < 5; kind++) {
        fault f = {0};
        net *const n = plan_fault_net(&f);
        builder *const b = &n->b;
        static uint8_t values[8 * 8 * 27];
        for (size_t i = 0; i < sizeof(values); i++)
            values[i] = (uint8_t)between(0, 255);
        const bool deep = kind > 2, channels = kind % 2 == 0;
        const int64_t x[5] = {1, 8, 5, 5, 5}, w[5] = {8, channels ? 1 : 8, 3, 3, 3};
        const size_t rank = kind == 0 ? 2 : deep ? 5 : 4;
        const int64_t matrix[2] = {8, 8};
        const int64_t *const dims = kind == 0 ? matrix : w;
        qn_tensor *const q = build_input(b, "x", rank, kind == 0 ? matrix : x);
        q->type = net_quant(n, QN_DTYPE_U8, 0.02f, 120);
        qn_tensor *const weight = build_const(b, "w", QN_DTYPE_U8, values, rank, dims);
        weight->type = net_quant(n, QN_DTYPE_U8, 0.005f, 77);
        qn_tensor *const y =
            kind == 0 ? NODE(b, MATMUL, "y", q, weight) : NODE(b, CONV, "y", q, weight);
        if (kind != 0)
            set_int(b, y, "group", channels ? 8 : 1);
        y->type = net_quant(n, QN_DTYPE_U8, 0.3f, 7);
        build_output(b, y);
        plan_fault_sweep(&f, b, NULL, 15);
        free(n);
    }
}

static void planning_survives_lack_of_memory(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        fault f = {0};
        sample *const s = sample_on(plan_fault_net(&f));
        builder *const b = &s->n->b;
        static int8_t values[16 * 16 * 9];
        for (size_t i = 0; i < sizeof(values); i++)
            values[i] = (int8_t)between(-128, 127);
        /* depthwise, first layer, taps, matrix */
        const int64_t c = kind == 1 ? 3 : 16;
        const int64_t x[4] = {1, c, 6, 6}, w[4] = {16, kind == 0 ? 1 : c, 3, 3};
        const int64_t matrix[2] = {16, 16};
        qn_tensor *q = bytes_input(s, kind == 3 ? 2 : 4, kind == 3 ? matrix : x, 0.02f);
        qn_tensor *weight = kind == 3 ? build_const(b, "w", QN_DTYPE_I8, values, 2, matrix)
                                      : build_const(b, "w", QN_DTYPE_I8, values, 4, w);
        weight->type = net_quant(s->n, QN_DTYPE_I8, 0.005f, 0);
        qn_tensor *y = kind == 3 ? NODE(b, MATMUL, "y", q, weight) : NODE(b, CONV, "y", q, weight);
        set_int(b, y, "group", kind == 0 ? 16 : 1);
        y->type = net_quant(s->n, QN_DTYPE_U8, 0.3f, 7);
        build_output(b, y);
        plan_fault_sweep(&f, b, NULL, 20);
        free(s->n);
        free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_the_simulation),
        cmocka_unit_test(and_so_they_are_requantized_by_integers),
        cmocka_unit_test(sums_are_the_tables),
        cmocka_unit_test(loops_do_not_depend_on_the_machine),
        cmocka_unit_test(pools_do_not_depend_on_the_machine),
        cmocka_unit_test(very_many_taps),
        cmocka_unit_test(tiles_end_with_rows),
        cmocka_unit_test(parts_of_one_channel),
        cmocka_unit_test(depthwise_in_parts),
        cmocka_unit_test(edges_and_folds),
        cmocka_unit_test(windows_are_spread),
        cmocka_unit_test(windows_keep_pairs),
        cmocka_unit_test(folds_are_packed_by_stride),
        cmocka_unit_test(memory_shrinks),
        cmocka_unit_test(planning_survives_lack_of_memory),
        cmocka_unit_test(other_weights_survive_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
