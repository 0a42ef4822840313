/* Every allocation of planning float Conv (its three ways), ConvTranspose, Gemm, MatMul and pools
 * fails once: the status says so and nothing leaks. Running allocates nothing. */
#include "plan_fault.h"

static qn_tensor *weights(builder *b, const char *name, const int64_t *dims)
{
    static float values[4096];
    return build_const(b, name, QN_DTYPE_F32, values, 4, dims);
}

static void build(builder *b)
{
    qn_tensor *const x = build_input(b, "x", DIMS(1, 3, 12, 12));
    qn_tensor *const stem =
        NODE(b, CONV, "stem", x, weights(b, "w1", (const int64_t[]){8, 3, 3, 3}));
    qn_tensor *const deep =
        NODE(b, CONV, "deep", stem, weights(b, "w2", (const int64_t[]){8, 1, 3, 3}));
    set_int(b, deep, "group", 8);
    qn_tensor *const wide =
        NODE(b, CONV, "wide", deep, weights(b, "w3", (const int64_t[]){20, 8, 3, 3}));
    const int64_t kernel[2] = {2, 2};
    qn_tensor *const top = NODE(b, MAX_POOL, "top", wide);
    assert_true(qn__node_set_ints(b->graph, top->producer, "kernel_shape", kernel, 2));
    qn_tensor *const up =
        NODE(b, CONV_TRANSPOSE, "up", top, weights(b, "w4", (const int64_t[]){20, 5, 2, 2}));
    qn_tensor *const mean = NODE(b, GLOBAL_AVERAGE_POOL, "mean", up);
    const int64_t flat[2] = {1, 5};
    qn_tensor *const row = NODE(b, RESHAPE, "row", mean, build_ints(b, "shape", 2, flat));
    float square[25] = {0};
    const int64_t square_dims[2] = {5, 5};
    qn_tensor *const first =
        NODE(b, GEMM, "gemm", row, build_const(b, "g", QN_DTYPE_F32, square, 2, square_dims),
             build_floats(b, "bias", 5, square));
    qn_tensor *const second =
        NODE(b, MATMUL, "matmul", first, build_const(b, "m", QN_DTYPE_F32, square, 2, square_dims));
    build_output(b, NODE(b, MATMUL, "dynamic",
                         build_const(b, "column", QN_DTYPE_F32, square, 2, (const int64_t[]){5, 1}),
                         second));
}

static void planning_survives_lack_of_memory(void **state)
{
    (void)state;
    fault f = {0};
    builder b = {0};
    plan_fault_start(&f, &b);
    build(&b);
    static float x[3 * 12 * 12];
    net_fill(x, sizeof x / sizeof x[0]);
    const void *inputs[1] = {x};
    plan_fault_sweep(&f, &b, inputs, 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(planning_survives_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
