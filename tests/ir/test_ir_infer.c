/* Shape inference: formulas, symbols, shape arithmetic, hostile numbers. */
#include "ir/graph_build.h"

#include <math.h>

#define INFER(b) qn__graph_infer((b)->graph, &(b)->error)

static void conv_follows_the_formula(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(-1, 6, 15, 20));
    qn_tensor *w = build_weights(&b, "w", DIMS(8, 3, 3, 5));
    qn_tensor *y = NODE(&b, CONV, "c", x, w);
    set_int(&b, y, "group", 2);
    set_ints(&b, y, "strides", DIMS(2, 3));
    set_ints(&b, y, "dilations", DIMS(2, 1));
    set_ints(&b, y, "pads", DIMS(1, 0, 3, 2));
    assert_ok(&b, INFER(&b));
    /* (15 + 4 - 5) / 2 + 1, (20 + 2 - 5) / 3 + 1 */
    assert_shape(y, DIMS(-1, 8, 8, 6));
    assert_int_equal(y->type.dtype, QN_DTYPE_F32);
    build_end(&b);
}

static void same_padding_is_resolved(void **state)
{
    (void)state;
    for (int lower = 0; lower < 2; lower++) {
        builder b;
        build_start(&b);
        qn_tensor *x = build_input(&b, "x", DIMS(1, 3, 224, 7));
        qn_tensor *w = build_weights(&b, "w", DIMS(4, 3, 3, 3));
        qn_tensor *y = NODE(&b, CONV, "c", x, w);
        set_ints(&b, y, "strides", DIMS(2, 2));
        assert_true(qn__node_set_string(b.graph, y->producer, "auto_pad",
                                        lower ? "SAME_LOWER" : "SAME_UPPER"));
        assert_ok(&b, INFER(&b));
        assert_shape(y, DIMS(1, 4, 112, 4));
        size_t count;
        const int64_t *pads = qn__attr_ints(y->producer, "pads", &count);
        const int64_t expected[4] = {lower ? 1 : 0, 1, lower ? 0 : 1, 1};
        assert_int_equal(count, 4);
        assert_memory_equal(pads, expected, sizeof(expected));
        assert_null(qn__node_attr(y->producer, "auto_pad"));
        build_end(&b);
    }
}

static void same_padding_waits_for_a_size(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(1, 3, -1, -2));
    qn_tensor *y = NODE(&b, CONV, "c", x, build_weights(&b, "w", DIMS(4, 3, 3, 3)));
    assert_true(qn__node_set_string(b.graph, y->producer, "auto_pad", "SAME_UPPER"));
    assert_ok(&b, INFER(&b));
    assert_shape(y, DIMS(1, 4, -1, -2));
    assert_non_null(qn__node_attr(y->producer, "auto_pad"));
    build_end(&b);
}

static void conv_transpose_sizes(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(-1, 4, 5, 5));
    qn_tensor *w = build_weights(&b, "w", DIMS(4, 3, 3, 3));
    qn_tensor *plain = NODE(&b, CONV_TRANSPOSE, "plain", x, w);
    set_int(&b, plain, "group", 2);
    set_ints(&b, plain, "strides", DIMS(2, 2));
    set_ints(&b, plain, "pads", DIMS(1, 1, 1, 1));
    set_ints(&b, plain, "output_padding", DIMS(1, 0));
    qn_tensor *same = NODE(&b, CONV_TRANSPOSE, "same", x, w);
    set_ints(&b, same, "strides", DIMS(2, 2));
    assert_true(qn__node_set_string(b.graph, same->producer, "auto_pad", "SAME_UPPER"));
    qn_tensor *shaped = NODE(&b, CONV_TRANSPOSE, "shaped", x, w);
    set_ints(&b, shaped, "strides", DIMS(2, 2));
    set_ints(&b, shaped, "output_shape", DIMS(10, 9));
    assert_ok(&b, INFER(&b));
    assert_shape(plain, DIMS(-1, 6, 10, 9));
    assert_shape(same, DIMS(-1, 3, 10, 10));
    assert_shape(shaped, DIMS(-1, 3, 10, 9));
    build_end(&b);
}

static void pools_and_ceil_mode(void **state)
{
    (void)state;
    /* size, kernel, stride, pad, dilation, ceil, expected */
    static const int64_t CASES[][7] = {{112, 3, 2, 1, 1, 0, 56}, {112, 3, 2, 0, 1, 1, 56},
                                       {112, 3, 2, 0, 1, 0, 55}, {5, 2, 2, 1, 1, 1, 3},
                                       {4, 1, 3, 0, 1, 1, 2},    {10, 2, 1, 0, 3, 0, 7},
                                       {2, 2, 2, 1, 1, 1, 2}};
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        const int64_t *c = CASES[i];
        builder b;
        build_start(&b);
        qn_tensor *x = build_input(&b, "x", DIMS(1, 3, c[0], c[0]));
        qn_tensor *y = NODE(&b, MAX_POOL, "p", x);
        set_ints(&b, y, "kernel_shape", DIMS(c[1], c[1]));
        set_ints(&b, y, "strides", DIMS(c[2], c[2]));
        set_ints(&b, y, "pads", DIMS(c[3], c[3], c[3], c[3]));
        set_ints(&b, y, "dilations", DIMS(c[4], c[4]));
        set_int(&b, y, "ceil_mode", c[5]);
        if (c[3] >= c[4] * (c[1] - 1) + 1) {
            assert_int_equal(INFER(&b), QN_CORRUPT);
        } else {
            assert_ok(&b, INFER(&b));
            assert_shape(y, DIMS(1, 3, c[6], c[6]));
        }
        build_end(&b);
    }
}

static void reshape_keeps_a_symbolic_batch(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(-1, 32, 7, 7));
    qn_tensor *flat = NODE(&b, RESHAPE, "flat", x, build_ints(&b, "s0", DIMS(-1, 1568)));
    qn_tensor *keep = NODE(&b, RESHAPE, "keep", x, build_ints(&b, "s1", DIMS(0, -1)));
    qn_tensor *half = NODE(&b, RESHAPE, "half", x, build_ints(&b, "s2", DIMS(-1, 784)));
    qn_tensor *flatten = NODE(&b, FLATTEN, "flatten", x);
    qn_tensor *all = NODE(&b, FLATTEN, "all", x);
    set_int(&b, all, "axis", 0);
    assert_ok(&b, INFER(&b));
    assert_shape(flat, DIMS(-1, 1568));
    assert_shape(keep, DIMS(-1, 1568));
    assert_shape(flatten, DIMS(-1, 1568));
    assert_int_equal(half->dims[0].kind, QN_DIM_SYMBOL);
    assert_int_equal(half->dims[0].value, 2);
    assert_int_equal(all->dims[1].value, 1568);
    assert_string_equal(all->dims[1].symbol, "N");
    build_end(&b);
}

/* x.view(x.size(0), -1) as exporters write it: Shape, Gather, Unsqueeze, Concat, Reshape. */
static void shape_arithmetic_reaches_reshape(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(-1, 32, 7, 7));
    const int64_t zero = 0;
    qn_tensor *index = build_const(&b, "zero", QN_DTYPE_I64, &zero, 0, NULL);
    qn_tensor *shape = NODE(&b, SHAPE, "shape", x);
    qn_tensor *batch = NODE(&b, GATHER, "gather", shape, index);
    qn_tensor *vector = NODE(&b, UNSQUEEZE, "unsq", batch, build_ints(&b, "axes", DIMS(0)));
    qn_tensor *twice = NODE(&b, MUL, "twice", vector, build_ints(&b, "two", DIMS(2)));
    qn_tensor *cast = NODE(&b, CAST, "cast", twice);
    set_int(&b, cast, "to", 7);
    qn_tensor *target = NODE(&b, CONCAT, "concat", cast, build_ints(&b, "rest", DIMS(-1)));
    set_int(&b, target, "axis", 0);
    qn_tensor *y = NODE(&b, RESHAPE, "reshape", x, target);
    qn_tensor *tail = NODE(&b, SLICE, "slice", shape, build_ints(&b, "st", DIMS(-2)),
                           build_ints(&b, "en", DIMS(INT64_MAX)), build_ints(&b, "ax", DIMS(0)));
    qn_tensor *z = NODE(&b, CONSTANT_OF_SHAPE, "zeros", tail);
    assert_ok(&b, INFER(&b));
    assert_int_equal(shape->type.dtype, QN_DTYPE_I64);
    assert_shape(batch, 0, NULL);
    assert_int_equal(y->rank, 2);
    assert_int_equal(y->dims[0].kind, QN_DIM_SYMBOL);
    assert_int_equal(y->dims[0].value, 2);
    assert_int_equal(y->dims[1].value, 784);
    assert_shape(z, DIMS(7, 7));
    build_end(&b);
}

static void moving_operators(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(-1, 8, 9, 10));
    qn_tensor *tr = NODE(&b, TRANSPOSE, "tr", x);
    set_ints(&b, tr, "perm", DIMS(0, 2, 3, 1));
    qn_tensor *sl = NODE(&b, SLICE, "sl", x, build_ints(&b, "a", DIMS(1, -1)),
                         build_ints(&b, "e", DIMS(100, INT64_MIN)),
                         build_ints(&b, "ax", DIMS(2, 3)), build_ints(&b, "st", DIMS(3, -2)));
    qn_tensor *pad = NODE(&b, PAD, "pad", x, build_ints(&b, "p", DIMS(0, 0, 1, 2, 0, 0, 3, -1)));
    qn_tensor *cc = NODE(&b, CONCAT, "cc", x, x);
    set_int(&b, cc, "axis", -3);
    qn_tensor *sq = NODE(&b, REDUCE_MEAN, "rm", x, build_ints(&b, "rax", DIMS(-1, -2)));
    qn_tensor *no_dims = NODE(&b, REDUCE_MAX, "rx", x);
    set_ints(&b, no_dims, "axes", DIMS(1));
    set_int(&b, no_dims, "keepdims", 0);
    qn_tensor *arg = NODE(&b, ARG_MAX, "am", x);
    set_int(&b, arg, "axis", 1);
    qn_tensor *d2s = NODE(&b, DEPTH_TO_SPACE, "d2s", x);
    set_int(&b, d2s, "blocksize", 2);
    qn_tensor *ga = NODE(&b, GLOBAL_AVERAGE_POOL, "ga", x);
    qn_tensor *squeezed = NODE(&b, SQUEEZE, "sqz", ga, build_ints(&b, "qax", DIMS(2, 3)));
    assert_ok(&b, INFER(&b));
    assert_shape(tr, DIMS(-1, 9, 10, 8));
    assert_shape(sl, DIMS(-1, 8, 3, 5));
    assert_shape(pad, DIMS(-1, 8, 13, 11));
    assert_shape(cc, DIMS(-1, 16, 9, 10));
    assert_shape(sq, DIMS(-1, 8, 1, 1));
    assert_shape(no_dims, DIMS(-1, 9, 10));
    assert_shape(arg, DIMS(-1, 1, 9, 10));
    assert_int_equal(arg->type.dtype, QN_DTYPE_I64);
    assert_shape(d2s, DIMS(-1, 2, 18, 20));
    assert_shape(squeezed, DIMS(-1, 8));
    build_end(&b);
}

static void resize_by_scales_and_sizes(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(-1, 8, 9, 10));
    const float scales[4] = {1, 1, 2, 1.55f};
    qn_tensor *by_scale = NODE(&b, RESIZE, "r1", x, NULL, build_floats(&b, "s", 4, scales));
    qn_tensor *shape = NODE(&b, SHAPE, "sh", x);
    qn_tensor *head =
        NODE(&b, SLICE, "hd", shape, build_ints(&b, "s0", DIMS(0)), build_ints(&b, "s2", DIMS(2)));
    qn_tensor *sizes = NODE(&b, CONCAT, "cc", head, build_ints(&b, "hw", DIMS(30, 40)));
    set_int(&b, sizes, "axis", 0);
    qn_tensor *empty = build_floats(&b, "none", 0, scales);
    qn_tensor *by_size = NODE(&b, RESIZE, "r2", x, NULL, empty, sizes);
    assert_ok(&b, INFER(&b));
    assert_shape(by_scale, DIMS(-1, 8, 18, 15));
    assert_shape(by_size, DIMS(-1, 8, 30, 40));
    build_end(&b);
}

static void split_in_every_form(void **state)
{
    (void)state;
    for (int form = 0; form < 3; form++) {
        builder b;
        build_start(&b);
        qn_tensor *x = build_input(&b, "x", DIMS(-1, 7));
        qn_node *node = qn__graph_add_node(b.graph, SIZE_MAX, QN_OP_SPLIT, "split", 2, 3);
        qn_tensor *out[3];
        for (uint32_t i = 0; i < 3; i++) {
            out[i] = qn__graph_add_tensor(b.graph, "o", qn_type_plain_make(QN_DTYPE_NONE));
            qn__node_set_output(node, i, out[i]);
        }
        node->inputs[0] = x;
        set_int(&b, out[0], "axis", 1);
        if (form == 0)
            node->inputs[1] = build_ints(&b, "sizes", DIMS(1, 2, 4));
        else if (form == 1)
            set_int(&b, out[0], "num_outputs", 3);
        else
            set_ints(&b, out[0], "split", DIMS(3, 3, 2)); /* one too many */
        if (form == 2) {
            assert_int_equal(INFER(&b), QN_CORRUPT);
        } else {
            assert_ok(&b, INFER(&b));
            const int64_t expected[2][3] = {{1, 2, 4}, {3, 3, 1}};
            for (uint32_t i = 0; i < 3; i++)
                assert_shape(out[i], DIMS(-1, expected[form][i]));
        }
        build_end(&b);
    }
}

static void broadcasting(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *x = build_input(&b, "x", DIMS(-1, 1, 9));
    qn_tensor *y = build_input(&b, "y", DIMS(5, 1));
    qn_tensor *sum = NODE(&b, ADD, "add", x, y);
    qn_tensor *less = NODE(&b, LESS, "less", x, y);
    qn_tensor *mm = NODE(&b, MATMUL, "mm", build_input(&b, "a", DIMS(-1, 1, 4, 6)),
                         build_input(&b, "c", DIMS(3, 6, 2)));
    assert_ok(&b, INFER(&b));
    assert_shape(sum, DIMS(-1, 5, 9));
    assert_int_equal(less->type.dtype, QN_DTYPE_BOOL);
    assert_shape(mm, DIMS(-1, 3, 4, 2));
    build_end(&b);
}

/* One bad thing each; the error names file, node and what is wrong. */
typedef void (*spoil)(builder *b);
static void bad_stride(builder *b)
{
    qn_tensor *x = build_input(b, "x", DIMS(1, 3, 8, 8));
    set_ints(b, NODE(b, CONV, "bad", x, build_weights(b, "w", DIMS(4, 3, 3, 3))), "strides",
             DIMS(0, 1));
}
static void bad_group(builder *b)
{
    qn_tensor *x = build_input(b, "x", DIMS(1, 3, 8, 8));
    set_int(b, NODE(b, CONV, "bad", x, build_weights(b, "w", DIMS(4, 3, 3, 3))), "group", -1);
}
static void bad_channels(builder *b)
{
    qn_tensor *x = build_input(b, "x", DIMS(1, 4, 8, 8));
    NODE(b, CONV, "bad", x, build_weights(b, "w", DIMS(4, 3, 3, 3)));
}
static void bad_pads(builder *b)
{
    qn_tensor *x = build_input(b, "x", DIMS(1, 3, 8, 8));
    set_ints(b, NODE(b, CONV, "bad", x, build_weights(b, "w", DIMS(4, 3, 3, 3))), "pads",
             DIMS(-1, 0, 0, 0));
}
static void bad_dilation(builder *b)
{
    qn_tensor *x = build_input(b, "x", DIMS(1, 3, 8, 8));
    set_ints(b, NODE(b, CONV, "bad", x, build_weights(b, "w", DIMS(4, 3, 3, 3))), "dilations",
             DIMS(INT64_MAX, 1));
}
static void bad_window(builder *b)
{
    qn_tensor *x = build_input(b, "x", DIMS(1, 3, 2, 8));
    NODE(b, CONV, "bad", x, build_weights(b, "w", DIMS(4, 3, 3, 3)));
}
static void bad_bias(builder *b)
{
    qn_tensor *x = build_input(b, "x", DIMS(1, 3, 8, 8));
    NODE(b, CONV, "bad", x, build_weights(b, "w", DIMS(4, 3, 3, 3)),
         build_weights(b, "bias", DIMS(5)));
}
static void bad_axis(builder *b)
{
    set_int(b, NODE(b, SOFTMAX, "bad", build_input(b, "x", DIMS(1, 3))), "axis", 2);
}
static void bad_reshape(builder *b)
{
    NODE(b, RESHAPE, "bad", build_input(b, "x", DIMS(3, 5)), build_ints(b, "s", DIMS(4, -1)));
}
static void bad_two_free(builder *b)
{
    NODE(b, RESHAPE, "bad", build_input(b, "x", DIMS(3, 5)), build_ints(b, "s", DIMS(-1, -1)));
}
static void bad_tile(builder *b)
{
    NODE(b, TILE, "bad", build_input(b, "x", DIMS(3, 5)),
         build_ints(b, "s", DIMS(INT64_MAX, INT64_MAX)));
}
static void bad_pad_bomb(builder *b)
{
    NODE(b, PAD, "bad", build_input(b, "x", DIMS(3, 5)),
         build_ints(b, "s", DIMS(0, 0, INT64_MAX - 9, INT64_MAX - 9)));
}
static void bad_perm(builder *b)
{
    set_ints(b, NODE(b, TRANSPOSE, "bad", build_input(b, "x", DIMS(3, 5))), "perm", DIMS(1, 1));
}
static void bad_index(builder *b)
{
    NODE(b, GATHER, "bad", build_input(b, "x", DIMS(3, 5)), build_ints(b, "i", DIMS(3)));
}
static void bad_step(builder *b)
{
    NODE(b, SLICE, "bad", build_input(b, "x", DIMS(3)), build_ints(b, "s", DIMS(0)),
         build_ints(b, "e", DIMS(2)), build_ints(b, "a", DIMS(0)), build_ints(b, "t", DIMS(0)));
}
static void bad_broadcast(builder *b)
{
    NODE(b, ADD, "bad", build_input(b, "x", DIMS(3)), build_input(b, "y", DIMS(4)));
}
static void bad_scale(builder *b)
{
    const float scales[2] = {1, NAN};
    NODE(b, RESIZE, "bad", build_input(b, "x", DIMS(3, 4)), NULL, build_floats(b, "s", 2, scales));
}
static void bad_missing(builder *b)
{
    NODE(b, CONV, "bad", build_input(b, "x", DIMS(1, 3, 8, 8)));
}
static void bad_bn(builder *b)
{
    qn_tensor *p = build_weights(b, "p", DIMS(4));
    NODE(b, BATCH_NORMALIZATION, "bad", build_input(b, "x", DIMS(1, 3, 8, 8)), p, p, p, p);
}
static void bad_gemm(builder *b)
{
    NODE(b, GEMM, "bad", build_input(b, "x", DIMS(1, 3)), build_weights(b, "w", DIMS(4, 2)));
}

static void hostile_numbers_are_refused(void **state)
{
    (void)state;
    static const struct {
        spoil make;
        qn_status status;
        const char *text;
    } CASES[] = {{bad_stride, QN_CORRUPT, "\"strides\" has value 0"},
                 {bad_group, QN_CORRUPT, "\"group\" is -1"},
                 {bad_channels, QN_CORRUPT, "weight \"w\" has 3 channels"},
                 {bad_pads, QN_CORRUPT, "\"pads\" has value -1"},
                 {bad_dilation, QN_CORRUPT, "\"dilations\""},
                 {bad_window, QN_CORRUPT, "larger than the padded input"},
                 {bad_bias, QN_CORRUPT, "bias \"bias\""},
                 {bad_axis, QN_CORRUPT, "axis 2 is out of range"},
                 {bad_reshape, QN_CORRUPT, "do not divide"},
                 {bad_two_free, QN_CORRUPT, "-1 twice"},
                 {bad_tile, QN_CORRUPT, "too large"},
                 {bad_pad_bomb, QN_CORRUPT, "counted"},
                 {bad_perm, QN_CORRUPT, "not a permutation"},
                 {bad_index, QN_CORRUPT, "index 3 is out of range"},
                 {bad_step, QN_CORRUPT, "step 0"},
                 {bad_broadcast, QN_CORRUPT, "does not broadcast"},
                 {bad_scale, QN_CORRUPT, "not positive"},
                 {bad_missing, QN_CORRUPT, "input 1 is missing"},
                 {bad_bn, QN_CORRUPT, "parameter \"p\" has 4 values"},
                 {bad_gemm, QN_CORRUPT, "weight \"w\" has 4 rows"}};
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        builder b;
        build_start(&b);
        CASES[i].make(&b);
        assert_fails(&b, INFER(&b), CASES[i].status, CASES[i].text);
        assert_non_null(strstr(b.error.message, "test.onnx: node 0 "));
        assert_non_null(strstr(b.error.message, "\"bad\""));
        build_end(&b);
    }
}

static void a_tensor_above_the_limit_is_refused(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    NODE(&b, EXPAND, "e", build_input(&b, "x", DIMS(1)),
         build_ints(&b, "s", DIMS(1 << 20, 1 << 12)));
    assert_fails(&b, INFER(&b), QN_LIMIT, "limit");
    build_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conv_follows_the_formula),
        cmocka_unit_test(same_padding_is_resolved),
        cmocka_unit_test(same_padding_waits_for_a_size),
        cmocka_unit_test(conv_transpose_sizes),
        cmocka_unit_test(pools_and_ceil_mode),
        cmocka_unit_test(reshape_keeps_a_symbolic_batch),
        cmocka_unit_test(shape_arithmetic_reaches_reshape),
        cmocka_unit_test(moving_operators),
        cmocka_unit_test(resize_by_scales_and_sizes),
        cmocka_unit_test(split_in_every_form),
        cmocka_unit_test(broadcasting),
        cmocka_unit_test(hostile_numbers_are_refused),
        cmocka_unit_test(a_tensor_above_the_limit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
