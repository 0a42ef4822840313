/* Unary, binary and comparing operators, softmax, reductions and normalizations against doubles, in
 * both layouts. */
#include "run_net.h"

#include <float.h>

#define COUNT (2 * 5 * 3 * 7)
static const int64_t DIMS4[4] = {2, 5, 3, 7};
static float A[COUNT], B[COUNT];

typedef double (*unary_fn)(double);
static double relu(double x)
{
    return x > 0 ? x : 0;
}
static double leaky(double x)
{
    return x < 0 ? 0.01 * x : x;
}
static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}
static double unit(double x)
{
    return x < 0 ? 0 : x > 1 ? 1 : x;
}
static double hard_sigmoid(double x)
{
    return unit(0.2f * x + 0.5);
}
static double hard_swish(double x)
{
    return x * unit(x / 6 + 0.5);
}
static double elu(double x)
{
    return x < 0 ? expm1(x) : x;
}
static double selu(double x)
{
    return 1.0507010 * (x < 0 ? 1.6732632 * expm1(x) : x);
}
static double gelu(double x)
{
    return 0.5 * x * (1 + erf(x / sqrt(2)));
}
static double softplus(double x)
{
    return log1p(exp(x));
}
static double reciprocal(double x)
{
    return 1 / x;
}
static double negate(double x)
{
    return -x;
}

static void unary_operators(void **state)
{
    (void)state;
    static const struct {
        qn_op op;
        unary_fn fn;
    } rows[] = {{QN_OP_RELU, relu},
                {QN_OP_LEAKY_RELU, leaky},
                {QN_OP_SIGMOID, sigmoid},
                {QN_OP_TANH, tanh},
                {QN_OP_HARD_SIGMOID, hard_sigmoid},
                {QN_OP_HARD_SWISH, hard_swish},
                {QN_OP_ELU, elu},
                {QN_OP_SELU, selu},
                {QN_OP_GELU, gelu},
                {QN_OP_SOFTPLUS, softplus},
                {QN_OP_EXP, exp},
                {QN_OP_RECIPROCAL, reciprocal},
                {QN_OP_ABS, fabs},
                {QN_OP_NEG, negate},
                {QN_OP_FLOOR, floor},
                {QN_OP_CEIL, ceil},
                {QN_OP_ROUND, rint},
                {QN_OP_ERF, erf}};
    net_fill(A, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        A[i] = A[i] == 0.0f ? 0.5f : A[i];
    A[0] = 2.5f; /* a tie */
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        for (int last = 0; last < 2; last++) {
            net *n = net_start();
            qn_tensor *x = net_input(n, A, last, 4, DIMS4);
            net_run(n, build_node(&n->b, rows[r].op, "y", 1, &x));
            assert_int_equal(n->count, COUNT);
            for (size_t i = 0; i < COUNT; i++)
                net_expect(n, i, rows[r].fn((double)A[i]), 2e-6);
            net_end(n);
        }
    }
}

static void exp_at_the_ends(void **state)
{
    (void)state;
    const float x[8] = {-200, -100, -88, 0, 88.5f, 89, INFINITY, -INFINITY};
    const int64_t dims[1] = {8};
    net *n = net_start();
    qn_tensor *in = net_input(n, x, false, 1, dims);
    net_run(n, NODE(&n->b, EXP, "y", in));
    assert_true(n->result[0] == 0.0f && n->result[7] == 0.0f);
    assert_true(isinf(n->result[5]) && isinf(n->result[6]));
    assert_true(n->result[3] == 1.0f);
    assert_true(fabs(n->result[4] / exp(88.5) - 1) < 1e-6);
    assert_true(fabs(n->result[2] / exp(-88.0) - 1) < 1e-3);
    net_end(n);
}

static void clip_and_fused_activation(void **state)
{
    (void)state;
    const float lo = -0.5f, hi = 1.25f;
    net_fill(A, COUNT);
    net_fill(B, COUNT);
    for (int last = 0; last < 2; last++) {
        net *n = net_start();
        qn_tensor *x = net_input(n, A, last, 4, DIMS4);
        qn_tensor *y =
            NODE(&n->b, CLIP, "y", x, build_const(&n->b, "lo", QN_DTYPE_F32, &lo, 0, NULL),
                 build_const(&n->b, "hi", QN_DTYPE_F32, &hi, 0, NULL));
        net_run(n, y);
        for (size_t i = 0; i < COUNT; i++)
            net_expect(n, i, A[i] < lo ? lo : A[i] > hi ? hi : A[i], 0);
        net_end(n);
        n = net_start();
        x = net_input(n, A, last, 4, DIMS4);
        y = NODE(&n->b, ADD, "y", x, net_input(n, B, !last, 4, DIMS4));
        y->producer->act = QN_ACT_CLIP;
        y->producer->act_lo = 0.0f;
        y->producer->act_hi = 2.0f;
        net_run(n, y);
        for (size_t i = 0; i < COUNT; i++) {
            const double sum = (double)A[i] + (double)B[i];
            net_expect(n, i, sum < 0 ? 0 : sum > 2 ? 2 : sum, 1e-6);
        }
        net_end(n);
    }
}

static double binary(qn_op op, double x, double y)
{
    switch (op) {
    case QN_OP_ADD:
        return x + y;
    case QN_OP_SUB:
        return x - y;
    case QN_OP_MUL:
        return x * y;
    case QN_OP_DIV:
        return x / y;
    case QN_OP_MIN:
        return x < y ? x : y;
    case QN_OP_MAX:
        return x > y ? x : y;
    case QN_OP_GREATER:
        return x > y;
    case QN_OP_LESS:
        return x < y;
    case QN_OP_EQUAL:
        return x == y;
    default:
        return x < 0 ? x * y : x; /* PRelu */
    }
}

/* Element of an array of dims `d` at the coordinates of element i of DIMS4, broadcast. */
static size_t broadcast_at(size_t i, size_t rank, const int64_t *d)
{
    size_t c[4], at = 0;
    for (size_t k = 4; k-- > 0;) {
        c[k] = i % (size_t)DIMS4[k];
        i /= (size_t)DIMS4[k];
    }
    for (size_t k = 0; k < rank; k++)
        at = at * (size_t)d[k] + (d[k] == 1 ? 0 : c[4 - rank + k]);
    return at;
}

static void binary_operators(void **state)
{
    (void)state;
    static const qn_op ops[] = {QN_OP_ADD, QN_OP_SUB,   QN_OP_MUL,     QN_OP_DIV,  QN_OP_MIN,
                                QN_OP_MAX, QN_OP_PRELU, QN_OP_GREATER, QN_OP_LESS, QN_OP_EQUAL};
    static const struct {
        size_t rank;
        int64_t dims[4];
    } shapes[] = {{4, {2, 5, 3, 7}}, {0, {0}},          {1, {7}},
                  {3, {5, 1, 1}},    {4, {1, 5, 1, 1}}, {4, {2, 1, 3, 1}},
                  {4, {2, 5, 1, 1}}, {3, {5, 3, 7}},    {2, {3, 1}}};
    net_fill(A, COUNT);
    net_fill(B, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        B[i] = fabsf(B[i]) < 0.01f ? 0.5f : i % 9 == 0 ? A[i] : B[i];
    for (size_t o = 0; o < sizeof(ops) / sizeof(ops[0]); o++) {
        for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
            for (int mode = 0; mode < 12; mode++) {
                const bool constant = mode & 1, last = mode & 2, swap = mode >= 8;
                if ((mode & 4) != 0 && constant)
                    continue;
                if (swap && (ops[o] == QN_OP_PRELU || constant))
                    continue;
                net *n = net_start();
                qn_tensor *x = net_input(n, A, last, 4, DIMS4);
                qn_tensor *y =
                    constant
                        ? build_const(&n->b, "c", QN_DTYPE_F32, B, shapes[s].rank, shapes[s].dims)
                        : net_input(n, B, (mode & 4) != 0, shapes[s].rank, shapes[s].dims);
                qn_tensor *const in[2] = {swap ? y : x, swap ? x : y};
                net_run(n, build_node(&n->b, ops[o], "y", 2, in));
                assert_int_equal(n->count, COUNT);
                for (size_t i = 0; i < COUNT; i++) {
                    const double a = A[i], b = B[broadcast_at(i, shapes[s].rank, shapes[s].dims)];
                    net_expect(n, i, swap ? binary(ops[o], b, a) : binary(ops[o], a, b), 1e-6);
                }
                net_end(n);
            }
        }
    }
}

/* The quotients of C, whatever the divisor: some are computed as products. */
static void quotients_are_exact(void **state)
{
    (void)state;
    static const float divisors[] = {2.0f,    -0.25f,    1.0f,     0x1p-119f, -0x1p119f, 0x1p120f,
                                     0x1p-3f, 0x1p-126f, 0x1p127f, 3.0f,      0.0f,      -0.0f,
                                     1e-40f,  INFINITY,  NAN,      0x1.8p1f,  0x1p-149f};
    float data[77];
    net_fill(data, 77);
    const float odd[] = {0.0f,     -0.0f,     INFINITY, -INFINITY, NAN,
                         0x1p127f, 0x1p-149f, 1e-42f,   FLT_MAX,   0x1.fffffep-126f};
    memcpy(data, odd, sizeof(odd));
    for (size_t d = 0; d < sizeof(divisors) / sizeof(divisors[0]); d++) {
        for (int64_t count = 1; count <= 77; count += 4) {
            net *n = net_start();
            qn_tensor *x = net_input(n, data, false, 1, &count);
            net_run(n, NODE(&n->b, DIV, "y", x,
                            build_const(&n->b, "d", QN_DTYPE_F32, &divisors[d], 0, NULL)));
            for (int64_t i = 0; i < count; i++) {
                const float expected = data[i] / divisors[d];
                assert_true(isnan(expected) ? isnan(n->result[i])
                                            : memcmp(&expected, &n->result[i], 4) == 0);
            }
            net_end(n);
        }
    }
}

/* Rows give the same bits alone and among others. */
static void softmax_of_many_rows(void **state)
{
    (void)state;
    net_fill(A, COUNT);
    for (int64_t axis = 2; axis <= 5; axis++) {
        for (int64_t rows = 1; rows * axis <= COUNT; rows += rows < 20 ? 1 : 11) {
            const int64_t dims[2] = {rows, axis}, row[2] = {1, axis};
            net *n = net_start();
            net_run(n, NODE(&n->b, SOFTMAX, "y", net_input(n, A, false, 2, dims)));
            for (int64_t r = 0; r < rows; r++) {
                net *one = net_start();
                net_run(one,
                        NODE(&one->b, SOFTMAX, "y", net_input(one, A + r * axis, false, 2, row)));
                assert_memory_equal(one->result, n->result + r * axis,
                                    (size_t)axis * sizeof(float));
                net_end(one);
            }
            net_end(n);
        }
    }
}

/* Rows of two are computed by their difference, what is no number and infinities too. */
static void softmax_of_odd_pairs(void **state)
{
    (void)state;
    enum { N = 6, ROWS = 80 };
    static const float odd[N] = {INFINITY, -INFINITY, NAN, 0.0f, 88.0f, -3e38f};
    const int64_t dims[2] = {ROWS, 2}, row[2] = {1, 2};
    float x[2 * ROWS];
    net_fill(x, 2 * ROWS);
    for (size_t i = 0; i < N; i++)
        for (size_t k = 0; k < N; k++) {
            x[2 * (i * N + k)] = odd[i];
            x[2 * (i * N + k) + 1] = odd[k];
        }
    net *n = net_start();
    net_run(n, NODE(&n->b, SOFTMAX, "y", net_input(n, x, false, 2, dims)));
    for (size_t r = 0; r < ROWS; r++) {
        net *one = net_start();
        net_run(one, NODE(&one->b, SOFTMAX, "y", net_input(one, x + 2 * r, false, 2, row)));
        for (size_t i = 0; i < 2; i++) {
            const float got = n->result[2 * r + i], wanted = one->result[i];
            assert_true(isnan(wanted) ? isnan(got) : got == wanted);
        }
        net_end(one);
    }
    net_end(n);
}

static void softmax_of_long_rows(void **state)
{
    (void)state;
    enum { MOST = 1003 };
    static const int64_t lengths[] = {15, 16, 127, 128, 129, 144, 1000, MOST};
    float x[MOST];
    net_fill(x, MOST);
    for (size_t l = 0; l < sizeof(lengths) / sizeof(lengths[0]); l++) {
        const int64_t dims[2] = {1, lengths[l]};
        double sum = 0.0;
        net *n = net_start();
        net_run(n, NODE(&n->b, SOFTMAX, "y", net_input(n, x, false, 2, dims)));
        for (int64_t i = 0; i < lengths[l]; i++)
            sum += exp((double)x[i]);
        for (int64_t i = 0; i < lengths[l]; i++) {
            const double wanted = exp((double)x[i]) / sum;
            assert_true(fabs((double)n->result[i] - wanted) < 1e-6 * wanted);
        }
        net_end(n);
    }
}

static void softmax_both_ways(void **state)
{
    (void)state;
    net_fill(A, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        A[i] = A[i] * 30.0f + 100.0f; /* would overflow without the shift */
    for (int64_t axis = -4; axis < 4; axis++) {
        for (int mode = 0; mode < 4; mode++) {
            const bool log_form = (mode & 1) != 0;
            net *n = net_start();
            qn_tensor *x = net_input(n, A, (mode & 2) != 0, 4, DIMS4);
            qn_tensor *y =
                build_node(&n->b, log_form ? QN_OP_LOG_SOFTMAX : QN_OP_SOFTMAX, "y", 1, &x);
            set_int(&n->b, y, "axis", axis);
            net_run(n, y);
            const qn_axis_view v =
                qn__axis_view(4, DIMS4, QN_LAYOUT_ROW_MAJOR, (size_t)(axis < 0 ? axis + 4 : axis));
            for (size_t i = 0; i < COUNT; i++) {
                const size_t base = i / (v.axis * v.inner) * v.axis * v.inner + i % v.inner;
                double top = -1e30, sum = 0;
                for (size_t k = 0; k < v.axis; k++)
                    top = fmax(top, (double)A[base + k * v.inner]);
                for (size_t k = 0; k < v.axis; k++)
                    sum += exp((double)A[base + k * v.inner] - top);
                const double l = (double)A[i] - top - log(sum);
                net_expect(n, i, log_form ? l : exp(l), 3e-6);
            }
            net_end(n);
        }
    }
}

static void reductions(void **state)
{
    (void)state;
    static const qn_op ops[] = {QN_OP_REDUCE_MEAN, QN_OP_REDUCE_SUM, QN_OP_REDUCE_MAX,
                                QN_OP_REDUCE_MIN, QN_OP_REDUCE_PROD};
    net_fill(A, COUNT);
    for (unsigned mask = 1; mask < 16; mask++) {
        for (int mode = 0; mode < 4 * 5; mode++) {
            const bool keep = (mode & 1) != 0, last = (mode & 2) != 0;
            const qn_op op = ops[mode / 4];
            int64_t axes[4];
            size_t n_axes = 0;
            for (size_t i = 0; i < 4; i++)
                if (mask & (1u << i))
                    axes[n_axes++] = i % 2 == 0 ? (int64_t)i : (int64_t)i - 4;
            net *n = net_start();
            qn_tensor *const in[2] = {net_input(n, A, last, 4, DIMS4),
                                      build_ints(&n->b, "axes", n_axes, axes)};
            qn_tensor *y = build_node(&n->b, op, "y", 2, in);
            set_int(&n->b, y, "keepdims", keep);
            net_run(n, y);
            double expected[COUNT];
            size_t counts[COUNT] = {0}, out_count = 1;
            int64_t dims[4];
            for (size_t i = 0; i < 4; i++) {
                dims[i] = mask & (1u << i) ? 1 : DIMS4[i];
                out_count *= (size_t)dims[i];
            }
            assert_int_equal(n->count, out_count);
            assert_int_equal(n->result_rank, keep ? 4 : 4 - n_axes);
            for (size_t i = 0; i < COUNT; i++) {
                const size_t at = broadcast_at(i, 4, dims);
                const double v = A[i];
                double *e = &expected[at];
                if (counts[at]++ == 0)
                    *e = v;
                else if (op == QN_OP_REDUCE_MAX)
                    *e = fmax(*e, v);
                else if (op == QN_OP_REDUCE_MIN)
                    *e = fmin(*e, v);
                else if (op == QN_OP_REDUCE_PROD)
                    *e *= v;
                else
                    *e += v;
            }
            for (size_t i = 0; i < out_count; i++)
                net_expect(n, i,
                           op == QN_OP_REDUCE_MEAN ? expected[i] / (double)counts[i] : expected[i],
                           1e-6);
            net_end(n);
        }
    }
}

static void normalizations(void **state)
{
    (void)state;
    const float scale[5] = {1, 2, -1, 0.5f, 3}, bias[5] = {0, 1, 2, -1, 0.25f};
    const float mean[5] = {0.5f, -1, 0, 2, 1}, var[5] = {1, 0.25f, 4, 2, 0.5f};
    net_fill(A, COUNT);
    for (int last = 0; last < 2; last++) {
        net *n = net_start();
        builder *b = &n->b;
        qn_tensor *x = net_input(n, A, last, 4, DIMS4);
        net_run(n, NODE(b, BATCH_NORMALIZATION, "y", x, build_floats(b, "s", 5, scale),
                        build_floats(b, "b", 5, bias), build_floats(b, "m", 5, mean),
                        build_floats(b, "v", 5, var)));
        for (size_t i = 0; i < COUNT; i++) {
            const size_t c = i / 21 % 5;
            net_expect(n, i, ((double)A[i] - mean[c]) / sqrt(var[c] + 1e-5) * scale[c] + bias[c],
                       2e-6);
        }
        net_end(n);
        n = net_start();
        b = &n->b;
        x = net_input(n, A, last, 4, DIMS4);
        net_run(n, NODE(b, INSTANCE_NORMALIZATION, "y", x, build_floats(b, "s", 5, scale),
                        build_floats(b, "b", 5, bias)));
        for (size_t r = 0; r < 10; r++) {
            double m = 0, v = 0;
            for (size_t i = 0; i < 21; i++)
                m += (double)A[r * 21 + i] / 21;
            for (size_t i = 0; i < 21; i++)
                v += pow((double)A[r * 21 + i] - m, 2) / 21;
            for (size_t i = 0; i < 21; i++)
                net_expect(n, r * 21 + i,
                           ((double)A[r * 21 + i] - m) / sqrt(v + 1e-5) * scale[r % 5] +
                               bias[r % 5],
                           3e-6);
        }
        net_end(n);
        n = net_start();
        b = &n->b;
        x = net_input(n, A, last, 4, DIMS4);
        qn_tensor *y = NODE(b, LRN, "y", x);
        set_int(b, y, "size", 3);
        net_run(n, y);
        for (size_t i = 0; i < COUNT; i++) {
            const size_t c = i / 21 % 5;
            double sum = 0;
            for (size_t k = c == 0 ? 0 : c - 1; k <= c + 1 && k < 5; k++)
                sum += pow((double)A[i + k * 21 - c * 21], 2);
            net_expect(n, i, A[i] / pow(1 + 1e-4 / 3 * sum, 0.75), 2e-6);
        }
        net_end(n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unary_operators),      cmocka_unit_test(exp_at_the_ends),
        cmocka_unit_test(binary_operators),     cmocka_unit_test(clip_and_fused_activation),
        cmocka_unit_test(softmax_both_ways),    cmocka_unit_test(softmax_of_many_rows),
        cmocka_unit_test(softmax_of_odd_pairs), cmocka_unit_test(softmax_of_long_rows),
        cmocka_unit_test(quotients_are_exact),  cmocka_unit_test(reductions),
        cmocka_unit_test(normalizations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
