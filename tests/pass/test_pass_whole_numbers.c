/* Convolutions between whole numbers become integer ones where the scales behind them are one, or
 * one per channel, and nowhere else. */
#include "ir/graph_build.h"

#include "pass/pass.h"

#include <cmocka.h>

static qn_tensor *rounded(builder *b, qn_tensor *x, const char *round, const char *clip)
{
    static const float lo = -127.0f, hi = 127.0f;
    return build_node(b, QN_OP_CLIP, clip, 3,
                      (qn_tensor *const[]){build_node(b, QN_OP_ROUND, round, 1, &x),
                                           build_const(b, "lo", QN_DTYPE_F32, &lo, 0, NULL),
                                           build_const(b, "hi", QN_DTYPE_F32, &hi, 0, NULL)});
}

/* Is the convolution [1, 2, 3, 2], times a constant of these dims, an integer one? */
static bool becomes_integer(size_t rank, const int64_t *dims)
{
    static const float w[4] = {1, -2, 3, 4}, scales[2] = {0.25f, 0.5f};
    builder b;
    build_start(&b);
    qn_tensor *const x = rounded(&b, build_input(&b, "x", DIMS(1, 2, 3, 2)), "r0", "c0");
    qn_tensor *const sums =
        NODE(&b, CONV, "conv", x, build_const(&b, "w", QN_DTYPE_F32, w, DIMS(2, 2, 1, 1)));
    const qn_node *const conv = sums->producer;
    qn_tensor *const scaled =
        NODE(&b, MUL, "mul", sums, build_const(&b, "s", QN_DTYPE_F32, scales, rank, dims));
    qn_tensor *const y = rounded(&b, scaled, "r1", "c1");
    build_output(&b, y);
    assert_ok(&b, qn__graph_infer(b.graph, &b.error));
    assert_ok(&b, qn__whole_numbers_to_bytes(b.graph, &b.error));
    assert_ok(&b, qn__graph_verify(b.graph, &b.error));
    assert_int_equal(y->producer->op, QN_OP_DEQUANTIZE_LINEAR);
    const bool integer = conv->outputs[0]->type.kind == QN_TYPE_QUANT;
    assert_true(integer == (y->producer->inputs[0] == conv->outputs[0]));
    build_end(&b);
    return integer;
}

static void scales_are_one_or_one_per_channel(void **state)
{
    (void)state;
    assert_true(becomes_integer(0, NULL));
    assert_true(becomes_integer(DIMS(1)));
    assert_true(becomes_integer(DIMS(1, 1, 1, 1)));
    assert_true(becomes_integer(DIMS(1, 2, 1, 1)));
}

static void scales_of_columns_are_none(void **state)
{
    (void)state;
    assert_false(becomes_integer(DIMS(2)));
    assert_false(becomes_integer(DIMS(1, 2)));
    assert_false(becomes_integer(DIMS(1, 1, 1, 2)));
    assert_false(becomes_integer(DIMS(1, 1, 1, 1, 1)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scales_are_one_or_one_per_channel),
        cmocka_unit_test(scales_of_columns_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
