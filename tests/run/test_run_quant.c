/* Quantized operators against plain int64 loops: every byte must be the same. */
#include "run_net.h"

#include "core/cpu.h"

static float DATA[NET_MAX];

/* saturate(rne(x / scale) + zero) in float, as QuantizeLinear. */
static int32_t quantize(float x, float scale, int32_t zero, bool s8)
{
    const double v = rint((double)(x / scale)) + zero;
    const double lo = s8 ? -128 : 0, hi = s8 ? 127 : 255;
    return (int32_t)(v < lo ? lo : v > hi ? hi : v);
}

/* Input quantized by a QuantizeLinear in the graph; q receives the expected integers. */
static qn_tensor *quantized_input(net *n, float *data, size_t rank, const int64_t *dims, bool last,
                                  bool s8, float scale, int32_t zero, int32_t *q)
{
    size_t count = 0;
    assert_true(qn_shape_count(&count, dims, rank));
    for (size_t i = 0; i < count; i++) {
        data[i] =
            ((float)net_random(300) - 150.0f + (s8 ? 0 : 128) - (float)zero) * scale + scale * 0.3f;
        q[i] = quantize(data[i], scale, zero, s8);
    }
    qn_tensor *x = net_input(n, data, last, rank, dims);
    char name[32];
    snprintf(name, sizeof(name), "q%zu", n->b.graph->n_inputs);
    qn_tensor *y = build_node(&n->b, QN_OP_QUANTIZE_LINEAR, name, 1, &x);
    y->type = net_quant(n, s8 ? QN_DTYPE_I8 : QN_DTYPE_U8, scale, zero);
    return y;
}

/* Runs with the output's integers dequantized; gives them back as integers. */
static void run_quantized(net *n, qn_tensor *y, float scale, int32_t zero, int32_t *q)
{
    net_run(n, y);
    for (size_t i = 0; i < n->count; i++)
        q[i] = (int32_t)rintf(n->result[i] / scale) + zero;
}

static qn_tensor *quantized_weights(net *n, size_t rank, const int64_t *dims, int axis, int32_t *q,
                                    float *scales, int32_t least)
{
    size_t count = 0;
    assert_true(qn_shape_count(&count, dims, rank));
    int8_t *bytes = qn__arena_calloc(&n->b.graph->arena, count, 1);
    for (size_t i = 0; i < count; i++) {
        bytes[i] = (int8_t)((int)net_random(255) - 127);
        if (bytes[i] > 0 && bytes[i] < least)
            bytes[i] = (int8_t)least;
        q[i] = bytes[i];
    }
    for (int64_t i = 0; i < dims[axis]; i++)
        scales[i] = 0.001f + 0.0001f * (float)net_random(100);
    qn_tensor *w = build_const(&n->b, "w", QN_DTYPE_I8, bytes, rank, dims);
    const qn_quant quant = {.bits = 8,
                            .is_signed = true,
                            .axis = (int8_t)axis,
                            .qmin = -127,
                            .qmax = 127,
                            .n_scales = (size_t)dims[axis],
                            .scales = scales};
    w->type = qn_type_quant_make(QN_DTYPE_I8, qn__graph_quant(n->b.graph, &quant));
    return w;
}

static qn_tensor *int_bias(net *n, size_t count, int32_t *values)
{
    for (size_t i = 0; i < count; i++)
        values[i] = (int32_t)net_random(4000) - 2000;
    const int64_t dims[1] = {(int64_t)count};
    return build_const(&n->b, "bias", QN_DTYPE_I32, values, 1, dims);
}

static int32_t requantize(int64_t acc, float ratio, int32_t zero, int32_t lo, int32_t hi)
{
    const float v = (float)(int32_t)acc * ratio;
    const double r = rint((double)v) + zero;
    return (int32_t)(r < lo ? lo : r > hi ? hi : r);
}

/* Sum of products of one output, in pairs of consecutive k when saturating. */
static int64_t dot(const int32_t *x, const int32_t *w, size_t k, int32_t zero, bool saturate)
{
    int64_t sum = 0, weights = 0;
    for (size_t i = 0; i < k; i += 2) {
        int64_t pair = (int64_t)x[i] * w[i] + (i + 1 < k ? (int64_t)x[i + 1] * w[i + 1] : 0);
        if (saturate)
            pair = pair > 32767 ? 32767 : pair < -32768 ? -32768 : pair;
        sum += pair;
        weights += w[i] + (i + 1 < k ? w[i + 1] : 0);
    }
    return sum - zero * weights;
}

typedef struct conv_case {
    int64_t c, h, w, oc, k, stride, pad, groups;
    bool s8, saturate, relu;
    int64_t d; /* not 0: a third axis, with windows as along the others */
} conv_case;

static int32_t XQ[NET_MAX], WQ[NET_MAX], OUT[NET_MAX], PATCH_X[8192], PATCH_W[8192];

static void check_conv(const conv_case *c, uint32_t cpu_flags)
{
    net *n = net_start();
    n->saturate16 = c->saturate;
    n->cpu_flags = cpu_flags;
    n->cpu_flags_set = true;
    const int64_t cin = c->c / c->groups, cout = c->oc / c->groups, deep = c->d > 0;
    const int64_t d = deep ? c->d : 1, kd = deep ? c->k : 1, pad_d = deep ? c->pad : 0;
    const int64_t xd[5] = {2, c->c, deep ? d : c->h, deep ? c->h : c->w, c->w};
    const int64_t wd[5] = {c->oc, cin, c->k, c->k, c->k};
    const size_t rank = deep ? 5 : 4;
    const float s_x = 0.02f, s_y = 0.7f;
    const int32_t z_x = c->s8 ? -5 : 120, z_y = c->s8 ? -128 : 3;
    float scales[256];
    int32_t bias[256];
    qn_tensor *const in[3] = {
        quantized_input(n, DATA, rank, xd, net_random(2) != 0, c->s8, s_x, z_x, XQ),
        quantized_weights(n, rank, wd, 0, WQ, scales, c->saturate ? 100 : 0),
        int_bias(n, (size_t)c->oc, bias)};
    qn_tensor *y = build_node(&n->b, QN_OP_CONV, "y", 3, in);
    const int64_t pads[6] = {c->pad, c->pad, c->pad, c->pad, c->pad, c->pad},
                  strides[3] = {c->stride, c->stride, c->stride};
    set_ints(&n->b, y, "pads", 2 * (rank - 2), pads);
    set_ints(&n->b, y, "strides", rank - 2, strides);
    set_int(&n->b, y, "group", c->groups);
    y->type = net_quant(n, c->s8 ? QN_DTYPE_I8 : QN_DTYPE_U8, s_y, z_y);
    if (c->relu)
        y->producer->act = QN_ACT_RELU;
    run_quantized(n, y, s_y, z_y, OUT);
    const int64_t oh = (c->h + 2 * c->pad - c->k) / c->stride + 1;
    const int64_t ow = (c->w + 2 * c->pad - c->k) / c->stride + 1;
    const int64_t od = (d + 2 * pad_d - kd) / c->stride + 1;
    assert_int_equal(n->count, 2 * c->oc * od * oh * ow);
    const bool saturate = c->saturate && !(cin == 1 && cout == 1);
    const int32_t shift = c->s8 ? 128 : 0, lo = c->s8 ? -128 : 0, hi = c->s8 ? 127 : 255;
    for (int64_t i = 0; i < (int64_t)n->count; i++) {
        const int64_t ox = i % ow, oy = i / ow % oh, oz = i / (ow * oh) % od,
                      o = i / (ow * oh * od) % c->oc, b = i / (ow * oh * od * c->oc);
        size_t k = 0;
        for (int64_t tap = 0; tap < kd * c->k * c->k; tap++) {
            const int64_t kz = tap / (c->k * c->k), ky = tap / c->k % c->k, kx = tap % c->k;
            const int64_t iz = oz * c->stride + kz - pad_d, iy = oy * c->stride + ky - c->pad,
                          ix = ox * c->stride + kx - c->pad;
            const bool inside = iz >= 0 && iz < d && iy >= 0 && iy < c->h && ix >= 0 && ix < c->w;
            for (int64_t ci = 0; ci < cin; ci++, k++) {
                const int64_t ch = o / cout * cin + ci;
                PATCH_X[k] =
                    shift +
                    (inside ? XQ[(((b * c->c + ch) * d + iz) * c->h + iy) * c->w + ix] : z_x);
                PATCH_W[k] = WQ[(o * cin + ci) * kd * c->k * c->k + tap];
            }
        }
        const int64_t acc = dot(PATCH_X, PATCH_W, k, z_x + shift, saturate) + bias[o];
        const int32_t low = c->relu && z_y > lo ? z_y : lo;
        const int32_t expected = requantize(acc, s_x * scales[o] / s_y, z_y, low, hi);
        if (OUT[i] != expected)
            fail_msg("output %lld is %d, expected %d", (long long)i, OUT[i], expected);
    }
    net_end(n);
}

static void convolutions_are_exact(void **state)
{
    (void)state;
    static const conv_case cases[] = {
        {3, 9, 7, 8, 3, 1, 1, 1, false, false, false, 0},
        {16, 6, 6, 24, 1, 1, 0, 1, true, false, true, 0},
        {8, 7, 7, 8, 3, 2, 1, 8, false, false, true, 0}, /* depthwise */
        {70, 5, 5, 70, 3, 1, 1, 70, true, false, false, 0},
        {6, 5, 8, 9, 3, 2, 0, 3, false, false, false, 0},    /* grouped */
        {4, 6, 6, 12, 3, 1, 1, 4, true, false, false, 0},    /* depth multiplier */
        {130, 3, 3, 33, 3, 1, 1, 1, false, false, false, 0}, /* many K blocks */
        {600, 2, 2, 40, 1, 1, 0, 1, true, false, false, 0},
        {2, 20, 20, 3, 17, 1, 8, 1, false, false, false, 0}, /* many taps */
        {3, 9, 7, 8, 3, 1, 1, 1, false, true, false, 0},
        {64, 4, 4, 70, 1, 1, 0, 1, true, true, true, 0},
        {130, 3, 3, 9, 3, 1, 1, 1, false, true, false, 0},
        {8, 7, 7, 8, 3, 2, 1, 8, false, true, false, 0},
        {6, 5, 8, 9, 3, 2, 0, 3, true, true, false, 0},
        {5, 6, 5, 9, 3, 2, 1, 1, false, false, false, 4},
        {5, 6, 5, 9, 3, 2, 1, 1, false, true, false, 4},
        {70, 3, 4, 9, 3, 1, 1, 1, true, true, true, 2}, /* parts that begin within a tap */
        {6, 4, 5, 9, 2, 1, 0, 3, true, true, false, 3},
        {8, 4, 5, 8, 3, 1, 1, 8, false, true, false, 3},
    };
    const uint32_t have = qn__cpu_detect();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        check_conv(&cases[i], have);
        check_conv(&cases[i], have & QN_CPU_AVX2);
        check_conv(&cases[i], 0);
    }
}

/* 64 channels of one value: what an AVX2 machine without VNNI answers instead of 100. */
static void saturation_as_measured(void **state)
{
    (void)state;
    static const struct {
        int x, w, expected;
    } rows[] = {{255, 127, 51}, {255, 100, 64}, {255, 65, 99}, {255, 64, 100}, {128, 127, 100}};
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        net *n = net_start();
        n->saturate16 = true;
        const int64_t xd[4] = {1, 64, 1, 1}, wd[4] = {1, 64, 1, 1};
        int8_t w[64];
        for (int i = 0; i < 64; i++) {
            DATA[i] = (float)rows[r].x;
            w[i] = (int8_t)rows[r].w;
        }
        const float one = 1.0f, s_y = (float)(64.0 * rows[r].x * rows[r].w / 100.0);
        qn_tensor *x = net_input(n, DATA, false, 4, xd);
        qn_tensor *q = NODE(&n->b, QUANTIZE_LINEAR, "q", x);
        q->type = net_quant(n, QN_DTYPE_U8, one, 0);
        qn_tensor *weights = build_const(&n->b, "w", QN_DTYPE_I8, w, 4, wd);
        weights->type = net_quant(n, QN_DTYPE_I8, one, 0);
        qn_tensor *y = NODE(&n->b, CONV, "y", q, weights);
        y->type = net_quant(n, QN_DTYPE_U8, s_y, 0);
        run_quantized(n, y, s_y, 0, OUT);
        assert_int_equal(OUT[0], rows[r].expected);
        net_end(n);
    }
}

static void check_gemm(bool trans_a, bool trans_b, bool saturate, bool to_float)
{
    enum { M = 7, K = 601, N = 45 };
    net *n = net_start();
    n->saturate16 = saturate;
    const int64_t ad[2] = {trans_a ? K : M, trans_a ? M : K},
                  bd[2] = {trans_b ? N : K, trans_b ? K : N};
    const float s_a = 0.03f, s_y = 1.5f;
    float scales[N];
    int32_t bias[N];
    qn_tensor *const in[3] = {quantized_input(n, DATA, 2, ad, false, false, s_a, 100, XQ),
                              quantized_weights(n, 2, bd, trans_b ? 0 : 1, WQ, scales, 0),
                              int_bias(n, N, bias)};
    qn_tensor *y = build_node(&n->b, QN_OP_GEMM, "y", 3, in);
    set_int(&n->b, y, "transA", trans_a);
    set_int(&n->b, y, "transB", trans_b);
    if (!to_float)
        y->type = net_quant(n, QN_DTYPE_U8, s_y, 128);
    run_quantized(n, y, s_y, 128, OUT);
    for (size_t i = 0; i < M * N; i++) {
        const size_t m = i / N, c = i % N;
        for (size_t k = 0; k < K; k++) {
            PATCH_X[k] = XQ[trans_a ? k * M + m : m * K + k];
            PATCH_W[k] = WQ[trans_b ? c * K + k : k * N + c];
        }
        const int64_t acc = dot(PATCH_X, PATCH_W, K, 100, saturate) + bias[c];
        if (to_float)
            net_expect(n, i, (double)((float)acc * (s_a * scales[c])), 0);
        else
            assert_int_equal(OUT[i], requantize(acc, s_a * scales[c] / s_y, 128, 0, 255));
    }
    net_end(n);
}

static void products_are_exact(void **state)
{
    (void)state;
    for (int mode = 0; mode < 16; mode++)
        check_gemm(mode & 1, (mode & 2) != 0, (mode & 4) != 0, (mode & 8) != 0);
}

static void products_of_activations(void **state)
{
    (void)state;
    enum { B = 3, M = 5, K = 37, N = 11 };
    static float other[B * K * N];
    net *n = net_start();
    const int64_t ad[3] = {B, M, K}, bd[3] = {B, K, N};
    qn_tensor *const in[2] = {quantized_input(n, DATA, 3, ad, false, true, 0.05f, 7, XQ),
                              quantized_input(n, other, 3, bd, false, true, 0.04f, -9, WQ)};
    qn_tensor *y = build_node(&n->b, QN_OP_MATMUL, "y", 2, in);
    y->type = net_quant(n, QN_DTYPE_I8, 0.9f, 4);
    run_quantized(n, y, 0.9f, 4, OUT);
    for (size_t i = 0; i < B * M * N; i++) {
        const size_t c = i % N, m = i / N % M, b = i / (N * M);
        int64_t acc = 0;
        for (size_t k = 0; k < K; k++)
            acc += (int64_t)(XQ[(b * M + m) * K + k] - 7) * (WQ[(b * K + k) * N + c] + 9);
        assert_int_equal(OUT[i], requantize(acc, 0.05f * 0.04f / 0.9f, 4, -128, 127));
    }
    net_end(n);
}

static void elementwise_and_pools(void **state)
{
    (void)state;
    const int64_t dims[4] = {2, 5, 6, 7};
    enum { COUNT = 2 * 5 * 6 * 7 };
    static float other[COUNT];
    for (int mode = 0; mode < 8; mode++) {
        const bool s8 = mode & 1, last = (mode & 2) != 0, multiply = (mode & 4) != 0;
        const qn_dtype dtype = s8 ? QN_DTYPE_I8 : QN_DTYPE_U8;
        const int32_t zero = s8 ? 3 : 130;
        net *n = net_start();
        qn_tensor *const in[2] = {
            quantized_input(n, DATA, 4, dims, last, s8, 0.02f, zero, XQ),
            quantized_input(n, other, 4, dims, !last, s8, 0.03f, zero - 10, WQ)};
        qn_tensor *y = build_node(&n->b, multiply ? QN_OP_MUL : QN_OP_ADD, "y", 2, in);
        y->type = net_quant(n, dtype, 0.04f, zero + 5);
        run_quantized(n, y, 0.04f, zero + 5, OUT);
        for (size_t i = 0; i < COUNT; i++) {
            /* onnxruntime's arithmetic, fitted on all pairs of bytes (interop/test_simulation.py)
             */
            const float ra = 0.02f / 0.04f, rb = 0.03f / 0.04f;
            const float fixed = (float)(zero + 5) - fmaf(ra, (float)zero, rb * (float)(zero - 10));
            const float sum = fmaf((float)XQ[i], ra, fmaf((float)WQ[i], rb, fixed));
            const float product =
                (float)((XQ[i] - zero) * (WQ[i] - zero + 10)) * (0.02f * 0.03f / 0.04f) +
                (float)(zero + 5);
            assert_int_equal(OUT[i], quantize(multiply ? product : sum, 1.0f, 0, s8));
        }
        net_end(n);
        n = net_start();
        qn_tensor *x = quantized_input(n, DATA, 4, dims, last, s8, 0.02f, zero, XQ);
        y = build_node(&n->b, QN_OP_MAX_POOL, "y", 1, &x);
        const int64_t kernel[2] = {3, 2}, pads[4] = {1, 0, 1, 0};
        set_ints(&n->b, y, "kernel_shape", 2, kernel);
        set_ints(&n->b, y, "pads", 4, pads);
        y->type = net_quant(n, dtype, 0.02f, zero);
        run_quantized(n, y, 0.02f, zero, OUT);
        assert_int_equal(n->count, 2 * 5 * 6 * 6);
        for (size_t i = 0; i < n->count; i++) {
            const int ox = (int)(i % 6), oy = (int)(i / 6 % 6);
            int32_t best = INT32_MIN;
            for (int iy = oy - 1; iy <= oy + 1; iy++)
                for (int ix = ox; ix < ox + 2; ix++)
                    if (iy >= 0 && iy < 6 && XQ[(i / 36 * 6 + (size_t)iy) * 7 + (size_t)ix] > best)
                        best = XQ[(i / 36 * 6 + (size_t)iy) * 7 + (size_t)ix];
            assert_int_equal(OUT[i], best);
        }
        net_end(n);
        n = net_start();
        x = quantized_input(n, DATA, 4, dims, last, s8, 0.02f, zero, XQ);
        y = build_node(&n->b, QN_OP_GLOBAL_AVERAGE_POOL, "y", 1, &x);
        y->type = net_quant(n, dtype, 0.01f, zero);
        run_quantized(n, y, 0.01f, zero, OUT);
        for (size_t i = 0; i < 10; i++) {
            int32_t sum = 0;
            for (size_t k = 0; k < 42; k++)
                sum += XQ[i * 42 + k] - zero;
            assert_int_equal(OUT[i], requantize(sum, 0.02f / (0.01f * 42.0f), zero, s8 ? -128 : 0,
                                                s8 ? 127 : 255));
        }
        net_end(n);
    }
}

static void tables_and_concat(void **state)
{
    (void)state;
    const int64_t dims[4] = {1, 4, 8, 8};
    enum { COUNT = 256 };
    static float other[COUNT];
    for (int last = 0; last < 2; last++) {
        net *n = net_start();
        qn_tensor *const in[2] = {quantized_input(n, DATA, 4, dims, last, false, 0.02f, 128, XQ),
                                  quantized_input(n, other, 4, dims, last, false, 0.05f, 100, WQ)};
        qn_tensor *y = build_node(&n->b, QN_OP_CONCAT, "y", 2, in);
        set_int(&n->b, y, "axis", 1);
        y->type = net_quant(n, QN_DTYPE_U8, 0.05f, 100);
        qn_tensor *z = build_node(&n->b, QN_OP_SIGMOID, "z", 1, &y);
        z->type = net_quant(n, QN_DTYPE_U8, 1.0f / 256.0f, 0);
        qn_tensor *r = build_node(&n->b, QN_OP_REQUANTIZE, "r", 1, &z);
        r->type = net_quant(n, QN_DTYPE_I8, 1.0f / 128.0f, -20);
        run_quantized(n, r, 1.0f / 128.0f, -20, OUT);
        assert_int_equal(n->count, 2 * COUNT);
        for (size_t i = 0; i < 2 * COUNT; i++) {
            const int32_t c = i < COUNT ? quantize((float)(XQ[i] - 128) * 0.02f, 0.05f, 100, false)
                                        : WQ[i - COUNT];
            const double x = (double)((float)(c - 100) * 0.05f);
            const int32_t s = quantize((float)(1 / (1 + exp(-x))), 1.0f / 256.0f, 0, false);
            assert_int_equal(OUT[i], quantize((float)s / 256.0f, 1.0f / 128.0f, -20, true));
        }
        net_end(n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_are_exact), cmocka_unit_test(saturation_as_measured),
        cmocka_unit_test(products_are_exact),     cmocka_unit_test(products_of_activations),
        cmocka_unit_test(elementwise_and_pools),  cmocka_unit_test(tables_and_concat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
