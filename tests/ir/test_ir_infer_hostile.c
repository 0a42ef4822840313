/* Every operator with random inputs and attributes, absurd ones included: inference answers with a
 * status, and a graph it accepts still verifies. Meant for the sanitizers. */
#include "ir/graph_build.h"

#include <math.h>
#include <stdlib.h>

static uint64_t random_state;
static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % n);
}

static int64_t random_number(void)
{
    static const int64_t EXTREMES[] = {INT64_MIN,        INT64_MIN + 1, INT32_MIN,
                                       -65536,           INT32_MAX,     (int64_t)INT32_MAX + 1,
                                       (int64_t)1 << 40, INT64_MAX - 1, INT64_MAX};
    switch (random_below(8)) {
    case 0:
        return EXTREMES[random_below(sizeof(EXTREMES) / sizeof(EXTREMES[0]))];
    case 1:
        return -(int64_t)random_below(5);
    default:
        return (int64_t)random_below(6);
    }
}

static qn_tensor *random_input(builder *b)
{
    int64_t dims[QN_MAX_RANK];
    const size_t rank = random_below(10) == 0 ? random_below(9) : random_below(5);
    for (size_t i = 0; i < rank; i++) {
        const int64_t value = (int64_t)random_below(9);
        dims[i] = value == 8 ? -1 - (int64_t)random_below(3) : value;
    }
    if (rank > 0 && random_below(20) == 0)
        dims[random_below((uint32_t)rank)] = INT64_MAX >> random_below(40);
    qn_tensor *t = build_input(b, "in", rank, dims);
    t->has_shape = random_below(12) != 0;
    if (random_below(10) == 0)
        t->type.dtype = (qn_dtype)random_below(QN_DTYPE_COUNT);
    return t;
}

static qn_tensor *random_operand(builder *b)
{
    int64_t ints[8];
    float floats[8];
    const uint32_t n = random_below(9);
    switch (random_below(6)) {
    case 0:
        return NULL;
    case 1:
    case 2:
        for (uint32_t i = 0; i < n; i++)
            ints[i] = random_number();
        return build_ints(b, "ints", n, ints);
    case 3:
        for (uint32_t i = 0; i < n; i++)
            floats[i] = random_below(9) == 0 ? NAN : (float)random_number() * 0.5f;
        return build_floats(b, "floats", n, floats);
    case 4: /* shape arithmetic */
        return NODE(b, SHAPE, "shape", random_input(b));
    default:
        return random_input(b);
    }
}

static void random_attrs(builder *b, qn_node *node)
{
    static const char *const NAMES[] = {
        "strides",        "pads",      "dilations",    "kernel_shape", "group",
        "axis",           "axes",      "perm",         "to",           "keepdims",
        "ceil_mode",      "auto_pad",  "blocksize",    "starts",       "ends",
        "split",          "allowzero", "output_shape", "transA",       "transB",
        "output_padding", "steps",     "start",        "end",          "num_outputs",
        "shape",          "value",     "size",         "epsilon",      "noop_with_empty_axes"};
    static const char *const PADS[] = {"SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "ODD"};
    const uint32_t count = random_below(5);
    for (uint32_t i = 0; i < count; i++) {
        const char *name = NAMES[random_below(sizeof(NAMES) / sizeof(NAMES[0]))];
        int64_t list[9];
        const uint32_t n = random_below(9);
        for (uint32_t k = 0; k < n; k++)
            list[k] = random_number();
        if (strcmp(name, "auto_pad") == 0)
            assert_true(qn__node_set_string(b->graph, node, name, PADS[random_below(5)]));
        else if (random_below(2) != 0)
            assert_true(qn__node_set_int(b->graph, node, name, random_number()));
        else if (random_below(6) == 0)
            assert_true(qn__node_set_float(b->graph, node, name, -INFINITY));
        else
            assert_true(qn__node_set_ints(b->graph, node, name, list, n));
    }
}

static uint32_t try_operator(qn_op op, uint64_t seed)
{
    builder b;
    random_state = seed * 7919 + (uint64_t)op;
    build_start(&b);
    qn_tensor *inputs[4];
    const uint32_t n = random_below(5);
    for (uint32_t i = 0; i < n; i++)
        inputs[i] = i == 0 ? random_input(&b) : random_operand(&b);
    qn_tensor *out = build_node(&b, op, "node", n, inputs);
    random_attrs(&b, out->producer);
    const qn_status status = qn__graph_infer(b.graph, &b.error);
    if (status == QN_OK)
        assert_true(out->rank <= QN_MAX_RANK);
    else
        assert_true(status == QN_CORRUPT || status == QN_LIMIT || status == QN_UNSUPPORTED ||
                    status == QN_NONFINITE);
    for (size_t i = 0; status == QN_OK && i < out->rank; i++)
        assert_true(out->dims[i].value >= (out->dims[i].kind == QN_DIM_DATA ? -1 : 0));
    build_end(&b);
    return status == QN_OK;
}

static void any_numbers_give_a_status(void **state)
{
    (void)state;
    const char *const text = getenv("QN_TEST_ROUNDS"); /* longer campaigns */
    const uint64_t rounds = text != NULL ? strtoull(text, NULL, 0) : 1000;
    for (int op = QN_OP_NONE + 1; op < QN_OP_COUNT; op++) {
        uint32_t accepted = 0;
        for (uint64_t seed = 1; seed <= rounds; seed++)
            accepted += try_operator((qn_op)op, seed);
        if (accepted == 0 && op != QN_OP_CONSTANT)
            print_message("%s: nothing accepted\n", qn__op_name((qn_op)op));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_numbers_give_a_status)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
