/* Integer products with zero points that are tensors, on 8-bit kernels against plain loops: the
 * same int32 on every instruction set of the machine and any number of threads. */
#include "plan_fault.h"
#include "q8_net.h"

enum { PRODUCTS = 150 };

/* Bytes as a Cast makes them of floats. */
static qn_tensor *plain_bytes(sample *s, qn_dtype dtype, size_t rank, const int64_t *dims)
{
    const int64_t least = dtype == QN_DTYPE_I8 ? -128 : 0;
    const bool edge = net_random(6) == 0;
    size_t count = 0;
    assert_true(qn_shape_count(&count, dims, rank) && count <= MAX_IN);
    for (size_t i = 0; i < count; i++)
        s->x[i] = (float)(edge ? least + 255 : between(least, least + 255));
    qn_tensor *x = net_input(s->n, s->x, net_random(2) != 0, rank, dims);
    qn_tensor *q = NODE(&s->n->b, CAST, "q", x);
    set_int(&s->n->b, q, "to", dtype == QN_DTYPE_I8 ? 3 : 2);
    q->type = qn_type_plain_make(dtype);
    return q;
}

static qn_tensor *constant_bytes(sample *s, const char *name, int8_t *data, qn_dtype dtype,
                                 size_t rank, const int64_t *dims)
{
    size_t count = 0;
    assert_true(qn_shape_count(&count, dims, rank) && count <= MAX_W);
    const bool small = net_random(2) != 0, edge = net_random(8) == 0;
    for (size_t i = 0; i < count; i++)
        data[i] = (int8_t)(edge ? -1 : small ? between(0, 40) : between(0, 255));
    return build_const(&s->n->b, name, dtype, data, rank, dims);
}

static sample *products_make(uint64_t seed)
{
    sample *const s = sample_start(seed * 6007 + 5);
    static int8_t zeros[2][MAX_CHANNELS];
    const qn_dtype left = net_random(2) != 0 ? QN_DTYPE_I8 : QN_DTYPE_U8;
    const qn_dtype right = net_random(2) != 0 ? QN_DTYPE_I8 : QN_DTYPE_U8;
    const bool conv = net_random(2) != 0;
    const int64_t one[1] = {1};
    qn_tensor *in[4] = {NULL};
    int64_t columns, rows = 1;
    size_t axes = net_random(3) == 0 ? 3 : 2;
    axes = net_random(6) == 0 ? 1 : axes;
    if (conv) {
        const uint32_t kind = net_random(4);
        const int64_t groups = kind == 0 ? between(2, 40) : kind == 1 ? between(2, 4) : 1;
        const int64_t cin = kind == 0 ? 1 : between(1, 60), kernel = between(1, 3);
        int64_t x[5] = {between(1, 2), groups * cin, between(3, 9), between(3, 9), 1};
        columns = kind == 0 ? groups : groups * between(1, 7);
        int64_t w[5] = {columns, cin, kernel, kernel, 1};
        if (axes == 3) {
            x[2] = between(3, 5);
            x[4] = between(3, 5);
            w[4] = between(1, 3);
        }
        in[0] = plain_bytes(s, left, 2 + axes, x);
        in[1] = constant_bytes(s, "w", s->w, right, 2 + axes, w);
        rows = groups;
    } else {
        const int64_t m = between(1, 20),
                      k = net_random(3) == 0 ? between(1500, 2500) : between(1, 80);
        columns = between(1, 12);
        rows = m;
        const int64_t x[3] = {1, m, k}, w[2] = {k, columns};
        in[0] = plain_bytes(s, left, 3, x);
        in[1] = constant_bytes(s, "w", s->w, right, 2, w);
    }
    const int64_t many[1] = {columns};
    const int64_t by_row[1] = {rows};
    const bool rowwise = !conv && net_random(2) != 0;
    in[2] = constant_bytes(s, "za", zeros[0], left, 1, rowwise ? by_row : one);
    in[3] = constant_bytes(s, "zb", zeros[1], right, 1, net_random(2) != 0 ? many : one);
    const uint32_t count = 2 + net_random(3);
    qn_tensor *y =
        build_node(&s->n->b, conv ? QN_OP_CONV_INTEGER : QN_OP_MATMUL_INTEGER, "y", count, in);
    if (conv) {
        int64_t pads[6], strides[3], dilations[3];
        for (size_t i = 0; i < axes; i++) {
            pads[i] = between(0, 2);
            pads[axes + i] = between(0, 2);
            strides[i] = between(1, 2);
            const bool apart = in[0]->dims[2 + i].value > 4 && net_random(4) == 0;
            dilations[i] = apart ? 2 : 1;
        }
        set_ints(&s->n->b, y, "pads", 2 * axes, pads);
        set_ints(&s->n->b, y, "strides", axes, strides);
        set_ints(&s->n->b, y, "dilations", axes, dilations);
        set_int(&s->n->b, y, "group", rows);
    }
    s->y = y;
    s->integers = true;
    build_output(&s->n->b, y);
    return s;
}

static void products_are_the_plain_loops(void **state)
{
    (void)state;
    for (size_t i = 0; i < PRODUCTS; i++) {
        sample *const s = products_make(i);
        q8_expect_kinds(s, i);
        sample_free(s);
    }
}

static sample *transposed_make(uint64_t seed)
{
    sample *const s = sample_start(seed * 3001 + 17);
    const size_t axes = net_random(5) == 0 ? 1 : 2;
    const uint32_t kind = net_random(4);
    const int64_t groups = kind == 0 ? between(2, 30) : kind == 1 ? between(2, 4) : 1;
    const int64_t cin = kind == 0 ? 1 : between(1, 40), cout = kind == 0 ? 1 : between(1, 12);
    int64_t x[4] = {between(1, 2), groups * cin}, w[4] = {groups * cin, cout};
    int64_t strides[2], dilations[2], pads[4] = {0}, more[2];
    for (size_t i = 0; i < axes; i++) {
        x[2 + i] = between(1, 7);
        w[2 + i] = between(1, 4);
        strides[i] = between(1, 4);
        dilations[i] = between(1, net_random(3) == 0 ? 4 : 1);
        more[i] = between(0, strides[i] - 1);
        const int64_t out = (x[2 + i] - 1) * strides[i] + (w[2 + i] - 1) * dilations[i] + 1;
        pads[i] = between(0, (out - 1) / 2);
        pads[axes + i] = between(0, (out - 1) / 2);
    }
    qn_tensor *in[3] = {bytes_input(s, axes + 2, x, 0.02f), weights(s, axes + 2, w, 1), NULL};
    const bool has_bias = net_random(2) != 0;
    if (has_bias)
        in[2] = int_bias(s, (size_t)(groups * cout));
    qn_tensor *y = build_node(&s->n->b, QN_OP_CONV_TRANSPOSE, "y", has_bias ? 3 : 2, in);
    set_ints(&s->n->b, y, "pads", 2 * axes, pads);
    set_ints(&s->n->b, y, "strides", axes, strides);
    set_ints(&s->n->b, y, "dilations", axes, dilations);
    set_ints(&s->n->b, y, "output_padding", axes, more);
    set_int(&s->n->b, y, "group", groups);
    finish(s, y, (size_t)(cin * 2), 0.02f);
    return s;
}

static void transposed_is_the_plain_loop(void **state)
{
    (void)state;
    for (size_t i = 0; i < PRODUCTS; i++) {
        sample *const s = transposed_make(i);
        q8_expect_kinds(s, i);
        sample_free(s);
    }
}

static void planning_survives_lack_of_memory(void **state)
{
    (void)state;
    for (int kind = 0; kind < 5; kind++) { /* 3, 4: over three axes, depthwise */
        fault f = {0};
        sample *const s = sample_on(plan_fault_net(&f));
        builder *const b = &s->n->b;
        const int64_t x[4] = {1, 8, 5, 5}, w[4] = {6, 8, 3, 3}, matrix[2] = {8, 8};
        qn_tensor *in[4] = {NULL};
        if (kind == 2) {
            const int64_t turned[4] = {8, 6, 3, 3}, strides[2] = {2, 2};
            in[0] = bytes_input(s, 4, x, 0.02f);
            in[1] = weights(s, 4, turned, 1);
            qn_tensor *const y = build_node(b, QN_OP_CONV_TRANSPOSE, "y", 2, in);
            set_ints(b, y, "strides", 2, strides);
            finish(s, y, 8, 0.02f);
            plan_fault_sweep(&f, b, NULL, 12);
            free(s->n);
            free(s);
            continue;
        }
        const int64_t block[5] = {1, 8, 3, 5, 5}, filter[5] = {8, kind == 4 ? 1 : 8, 2, 3, 1};
        const size_t rank = kind == 0 ? 4 : kind == 1 ? 2 : 5;
        in[0] = plain_bytes(s, QN_DTYPE_U8, rank, kind == 0 ? x : kind == 1 ? matrix : block);
        for (size_t i = 0; i < 8 * 6 * 9; i++)
            s->w[i] = (int8_t)i; /* parts: the zero point is far from them */
        in[1] = build_const(b, "w", QN_DTYPE_U8, s->w, rank,
                            kind == 0   ? w
                            : kind == 1 ? matrix
                                        : filter);
        static const uint8_t zero[1] = {200};
        const int64_t one[1] = {1};
        in[3] = build_const(b, "zb", QN_DTYPE_U8, zero, 1, one);
        qn_tensor *const y =
            build_node(b, kind == 1 ? QN_OP_MATMUL_INTEGER : QN_OP_CONV_INTEGER, "y", 4, in);
        if (kind == 4)
            set_int(b, y, "group", 8);
        build_output(b, y);
        plan_fault_sweep(&f, b, NULL, 12);
        free(s->n);
        free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_the_plain_loops),
        cmocka_unit_test(transposed_is_the_plain_loop),
        cmocka_unit_test(planning_survives_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
