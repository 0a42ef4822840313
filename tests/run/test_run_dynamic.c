/* Scales made at run time: the tensors themselves, products of them against loops in double, on
 * every instruction set of the machine, and the integer operators that ONNX has. */
#include "plan_fault.h"

#include "core/context.h"
#include "core/cpu.h"
#include "run/dynamic.h"

enum { CASES = 150, MAX_SIDE = 90, MAX_K = 700 };

typedef struct sample {
    net *n;
    int64_t m, k, cols;
    float x[MAX_SIDE * MAX_K], bias[MAX_SIDE], scales[MAX_SIDE];
    uint8_t w[MAX_SIDE * MAX_K]; /* [k][cols], or [cols][k] */
    int32_t zeros[MAX_SIDE];
    bool is_signed, transposed, has_bias, per_channel, by_rows;
} sample;

static qn_type dynamic_type(net *n, bool by_rows)
{
    const qn_type type = qn__graph_dynamic_type(n->b.graph, by_rows);
    assert_non_null(type.quant);
    return type;
}

/* Parameters as ONNX defines them, in double where it does not matter. */
static void expected_params(const float *x, size_t count, float *scale, int32_t *zero)
{
    float lo = 0, hi = 0;
    for (size_t i = 0; i < count; i++) {
        lo = fminf(lo, x[i]);
        hi = fmaxf(hi, x[i]);
    }
    *scale = hi > lo ? (hi - lo) / 255.0f : 1.0f;
    *zero = hi > lo ? (int32_t)rintf(-lo / *scale) : 0;
}

static int32_t expected_byte(float x, float scale, int32_t zero)
{
    const float q = rintf(x / scale) + (float)zero;
    return (int32_t)(q < 0 ? 0 : q > 255 ? 255 : q);
}

static float expected_row_scale(const float *x, size_t count)
{
    float most = 1e-30f;
    for (size_t i = 0; i < count; i++)
        most = fmaxf(most, fabsf(x[i]));
    return most / 127.0f;
}

static qn_tensor *weights(sample *s)
{
    const int64_t plain[2] = {s->k, s->cols}, turned[2] = {s->cols, s->k};
    qn_tensor *w = build_const(&s->n->b, "w", s->is_signed ? QN_DTYPE_I8 : QN_DTYPE_U8, s->w, 2,
                               s->transposed ? turned : plain);
    const qn_quant quant = {.bits = 8,
                            .is_signed = s->is_signed,
                            .axis = (int8_t)(!s->per_channel ? -1
                                             : s->transposed ? 0
                                                             : 1),
                            .qmin = s->is_signed ? -128 : 0,
                            .qmax = s->is_signed ? 127 : 255,
                            .n_scales = s->per_channel ? (size_t)s->cols : 1,
                            .scales = s->scales,
                            .zero_points = s->is_signed ? NULL : s->zeros};
    w->type = qn_type_quant_make(w->type.dtype, qn__graph_quant(s->n->b.graph, &quant));
    return w;
}

static void choose(sample *s)
{
    s->m = 1 + net_random(MAX_SIDE);
    s->cols = 1 + net_random(MAX_SIDE);
    s->k = 1 + net_random(net_random(4) == 0 ? MAX_K : 60);
    s->is_signed = net_random(2) != 0;
    s->transposed = net_random(2) != 0;
    s->has_bias = net_random(2) != 0;
    s->per_channel = net_random(3) != 0;
    s->by_rows = net_random(2) != 0;
    const float low = net_random(3) == 0 ? 0.0f : -4.0f; /* sometimes nothing is negative */
    for (int64_t i = 0; i < s->m * s->k; i++)
        s->x[i] = fmaxf(net_random_float(), low) * 0.3f;
    for (int64_t i = 0; i < s->k * s->cols; i++)
        s->w[i] = (uint8_t)net_random(256);
    const bool even = net_random(2) != 0; /* one zero point, 128: weights fit int8 */
    for (int64_t i = 0; i < s->cols; i++) {
        s->scales[i] = 0.001f + 0.0001f * (float)net_random(100);
        s->zeros[i] = even ? 128 : (int32_t)net_random(256);
        s->bias[i] = net_random_float();
    }
}

static double expected(const sample *s, int64_t m, int64_t col, float scale, int32_t zero)
{
    if (s->by_rows)
        scale = expected_row_scale(s->x + m * s->k, (size_t)s->k);
    const int64_t c = s->per_channel ? col : 0;
    const int32_t zw = s->is_signed ? 0 : s->zeros[c];
    int64_t sum = 0;
    for (int64_t k = 0; k < s->k; k++) {
        const uint8_t byte = s->w[s->transposed ? col * s->k + k : k * s->cols + col];
        const int32_t w = s->is_signed ? (int8_t)byte : byte;
        const float x = s->x[m * s->k + k];
        const int32_t q =
            s->by_rows ? (int32_t)rintf(x / scale) : expected_byte(x, scale, zero) - zero;
        sum += q * (int64_t)(w - zw);
    }
    return (double)sum * (double)scale * (double)s->scales[c] +
           (s->has_bias ? (double)s->bias[col] : 0);
}

static void run_sample(sample *s, uint32_t cpu_flags)
{
    net *const n = s->n = net_start();
    const int64_t dims[2] = {s->m, s->k}, width[1] = {s->cols};
    n->cpu_flags = cpu_flags;
    n->cpu_flags_set = true;
    qn_tensor *x = net_input(n, s->x, false, 2, dims);
    qn_tensor *q = NODE(&n->b, QUANTIZE_LINEAR, "q", x), *w, *y;
    q->type = dynamic_type(n, s->by_rows);
    w = weights(s);
    qn_tensor *bias =
        s->has_bias ? build_const(&n->b, "bias", QN_DTYPE_F32, s->bias, 1, width) : NULL;
    if (s->transposed) {
        y = bias != NULL ? NODE(&n->b, GEMM, "y", q, w, bias) : NODE(&n->b, GEMM, "y", q, w);
        set_int(&n->b, y, "transB", 1);
    } else {
        y = bias != NULL ? NODE(&n->b, MATMUL, "y", q, w, bias) : NODE(&n->b, MATMUL, "y", q, w);
    }
    y->producer->act = net_random(2) != 0 ? QN_ACT_RELU : QN_ACT_NONE;
    net_run(n, y);
}

static void products_are_the_sums(void **state)
{
    (void)state;
    sample *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    const uint32_t mine = qn__cpu_detect();
    float *first = malloc(sizeof(float) * MAX_SIDE * MAX_SIDE);
    assert_non_null(first);
    net_random_state = 7;
    for (int i = 0; i < CASES; i++) {
        choose(s);
        const uint64_t seed = net_random_state;
        float scale;
        int32_t zero;
        expected_params(s->x, (size_t)(s->m * s->k), &scale, &zero);
        for (int isa = 0; isa < 2; isa++) {
            net_random_state = seed;
            run_sample(s, isa == 0 ? 0 : mine);
            const bool relu = s->n->b.graph->outputs[0]->producer->act == QN_ACT_RELU;
            assert_int_equal(s->n->count, s->m * s->cols);
            double largest = 0;
            for (int64_t e = 0; e < s->m * s->cols; e++)
                largest = fmax(largest, fabs(expected(s, e / s->cols, e % s->cols, scale, zero)));
            for (int64_t e = 0; e < s->m * s->cols; e++) {
                double want = expected(s, e / s->cols, e % s->cols, scale, zero);
                want = relu && want < 0 ? 0 : want;
                if (!(fabs((double)s->n->result[e] - want) <= 2e-6 * (1e-3 + largest)))
                    fail_msg("case %d element %lld: %.9g, expected %.9g", i, (long long)e,
                             (double)s->n->result[e], want);
            }
            const size_t bytes = s->n->count * sizeof(float);
            if (isa == 0)
                memcpy(first, s->n->result, bytes);
            else
                assert_memory_equal(first, s->n->result, bytes);
            net_end(s->n);
        }
    }
    free(first);
    free(s);
}

static void parameters_are_those_of_onnx(void **state)
{
    (void)state;
    const qn_dynamic_params none = qn__dynamic_params(0, 0);
    assert_true(none.scale == 1.0f && none.zero == 0);
    const qn_dynamic_params up = qn__dynamic_params(1.0f, 2.0f);
    assert_true(up.scale == 2.0f / 255.0f && up.zero == 0);
    const qn_dynamic_params down = qn__dynamic_params(-3.0f, -1.0f);
    assert_true(down.scale == 3.0f / 255.0f && down.zero == 255);
    const qn_dynamic_params both = qn__dynamic_params(-1.0f, 2.0f);
    assert_true(both.scale == 3.0f / 255.0f && both.zero == 85);
    const qn_dynamic_params tiny = qn__dynamic_params(0, 1e-45f);
    assert_true(tiny.scale == 1.0f && tiny.zero == 0);
}

static void values_of_a_dynamic_tensor(void **state)
{
    (void)state;
    static float x[300];
    net *n = net_start();
    const int64_t dims[2] = {20, 15};
    float scale;
    int32_t zero;
    net_fill(x, 300);
    expected_params(x, 300, &scale, &zero);
    qn_tensor *q = NODE(&n->b, QUANTIZE_LINEAR, "q", net_input(n, x, false, 2, dims));
    q->type = dynamic_type(n, false);
    net_run(n, q);
    for (size_t i = 0; i < 300; i++)
        net_expect(n, i, (expected_byte(x[i], scale, zero) - zero) * (double)scale, 1e-6);
    net_end(n);
}

static void values_of_rows(void **state)
{
    (void)state;
    static float x[300];
    net *n = net_start();
    const int64_t dims[3] = {4, 5, 15};
    net_fill(x, 300);
    for (size_t i = 0; i < 300; i++)
        x[i] = i / 15 == 3 ? 0.0f : x[i] * powf(10.0f, (float)(i / 15) - 9.0f);
    qn_tensor *q = NODE(&n->b, QUANTIZE_LINEAR, "q", net_input(n, x, false, 3, dims));
    q->type = dynamic_type(n, true);
    net_run(n, q);
    for (size_t i = 0; i < 300; i++) {
        const float scale = expected_row_scale(x + i / 15 * 15, 15);
        assert_true(n->result[i] == rintf(x[i] / scale) * scale);
    }
    net_end(n);
}

static void numbers_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    for (int by_rows = 0; by_rows < 2; by_rows++) {
        net *n = net_start();
        const float x[4] = {1, 2, NAN, 3};
        const int64_t dims[2] = {2, 2};
        qn_tensor *q = NODE(&n->b, QUANTIZE_LINEAR, "q", net_input(n, x, false, 2, dims));
        q->type = dynamic_type(n, by_rows != 0);
        assert_int_equal(net_try(n, q), QN_NONFINITE);
        assert_non_null(strstr(n->b.error.message, "in0"));
        net_end(n);
    }
}

static void only_rows_or_one_scale(void **state)
{
    (void)state;
    static const float x[4];
    const qn_quant quant = {.bits = 8, .is_signed = true, .axis = 1, .qmin = -127, .qmax = 127};
    net *n = net_start();
    const int64_t dims[2] = {2, 2};
    qn_tensor *q = NODE(&n->b, QUANTIZE_LINEAR, "q", net_input(n, x, false, 2, dims));
    q->type = (qn_type){QN_TYPE_DYNAMIC, QN_DTYPE_I8, qn__graph_quant(n->b.graph, &quant)};
    assert_int_equal(net_try(n, q), QN_UNSUPPORTED);
    assert_non_null(strstr(n->b.error.message, "its type cannot be executed"));
    net_end(n);
}

/* Only MatMul and Gemm read them, and only with weights they know. */
static void other_readers_are_refused(void **state)
{
    (void)state;
    static const float x[16], values[16];
    for (int kind = 0; kind < 3; kind++) {
        net *n = net_start();
        const int64_t dims[2] = {4, 4};
        qn_tensor *q = NODE(&n->b, QUANTIZE_LINEAR, "q", net_input(n, x, false, 2, dims));
        q->type = dynamic_type(n, false);
        qn_tensor *w = build_const(&n->b, "w", QN_DTYPE_F32, values, 2, dims);
        qn_tensor *y = kind == 0   ? NODE(&n->b, SIGMOID, "y", q)
                       : kind == 1 ? NODE(&n->b, MATMUL, "y", q, w)
                                   : NODE(&n->b, DEQUANTIZE_LINEAR, "y", q);
        y->type = qn_type_plain_make(QN_DTYPE_F32);
        assert_int_equal(net_try(n, y), QN_UNSUPPORTED);
        net_end(n);
    }
}

/* The caller would have to know where the scale lies. */
static void inputs_have_their_scale(void **state)
{
    (void)state;
    static const float x[16];
    static const int8_t values[16];
    net *n = net_start();
    const int64_t dims[2] = {4, 4};
    qn_tensor *q = net_input(n, x, false, 2, dims);
    q->type = dynamic_type(n, false);
    qn_tensor *w = build_const(&n->b, "w", QN_DTYPE_I8, values, 2, dims);
    w->type = net_quant(n, QN_DTYPE_I8, 0.1f, 0);
    qn_tensor *y = NODE(&n->b, MATMUL, "y", q, w);
    assert_int_equal(net_try(n, y), QN_UNSUPPORTED);
    assert_non_null(strstr(n->b.error.message, "in0"));
    net_end(n);
}

static void weights_in_blocks_run_in_float(void **state)
{
    (void)state;
    enum { K = 40, N = 6, BLOCK = 16, N_BLOCKS = 3 };
    static float x[2 * K], scales[N_BLOCKS * N];
    static int32_t zeros[N_BLOCKS * N];
    static uint8_t packed[K * N / 2];
    net *n = net_start();
    const int64_t dims[2] = {2, K}, shape[2] = {K, N};
    net_fill(x, 2 * K);
    for (size_t i = 0; i < N_BLOCKS * N; i++) {
        scales[i] = 0.01f * (float)(1 + net_random(50));
        zeros[i] = (int32_t)net_random(16);
    }
    for (size_t i = 0; i < sizeof(packed); i++)
        packed[i] = (uint8_t)net_random(256);
    qn_tensor *a = net_input(n, x, false, 2, dims);
    qn_tensor *w = build_const(&n->b, "w", QN_DTYPE_U4, packed, 2, shape);
    const qn_quant quant = {.bits = 4,
                            .axis = 0,
                            .block = BLOCK,
                            .qmax = 15,
                            .n_scales = N_BLOCKS * N,
                            .scales = scales,
                            .zero_points = zeros};
    w->type = qn_type_quant_make(QN_DTYPE_U4, qn__graph_quant(n->b.graph, &quant));
    net_run(n, NODE(&n->b, MATMUL, "y", a, w));
    for (size_t e = 0; e < 2 * N; e++) {
        double sum = 0;
        for (size_t k = 0; k < K; k++) {
            const size_t at = k * N + e % N, s = k / BLOCK * N + e % N;
            const int32_t q = packed[at / 2] >> (at % 2 * 4) & 15;
            sum += (double)x[e / N * K + k] * (q - zeros[s]) * (double)scales[s];
        }
        net_expect(n, e, sum, 1e-4);
    }
    net_end(n);
}

static void planning_survives_lack_of_memory(void **state)
{
    (void)state;
    fault f = {0};
    sample *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    choose(s);
    s->is_signed = s->transposed = false;
    s->has_bias = s->per_channel = true;
    s->n = plan_fault_net(&f);
    builder *b = &s->n->b;
    const int64_t dims[2] = {s->m, s->k}, width[1] = {s->cols};
    qn_tensor *q = NODE(b, QUANTIZE_LINEAR, "q", net_input(s->n, s->x, false, 2, dims));
    q->type = dynamic_type(s->n, s->by_rows);
    qn_tensor *bias = build_const(b, "bias", QN_DTYPE_F32, s->bias, 1, width);
    build_output(b, NODE(b, MATMUL, "y", q, weights(s), bias));
    plan_fault_sweep(&f, b, NULL, 20);
    free(s->n);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_the_sums),
        cmocka_unit_test(parameters_are_those_of_onnx),
        cmocka_unit_test(values_of_a_dynamic_tensor),
        cmocka_unit_test(values_of_rows),
        cmocka_unit_test(only_rows_or_one_scale),
        cmocka_unit_test(numbers_that_are_not_finite_are_refused),
        cmocka_unit_test(other_readers_are_refused),
        cmocka_unit_test(inputs_have_their_scale),
        cmocka_unit_test(weights_in_blocks_run_in_float),
        cmocka_unit_test(planning_survives_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
