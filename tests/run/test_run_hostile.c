/* Operators with random inputs, attributes and indices are refused or run, and never read or write
 * outside their tensors (for the sanitizers); indices out of range are errors that say so. */
#include "run_net.h"

#include "run/op.h"

static int64_t hostile_number(void)
{
    static const int64_t EXTREMES[] = {INT64_MIN, INT64_MAX, INT32_MIN, INT32_MAX, -65536, 1 << 20};
    return net_random(10) == 0 ? EXTREMES[net_random(6)] : (int64_t)net_random(7) - 3;
}

static const qn_dtype DTYPES[] = {QN_DTYPE_F32, QN_DTYPE_I64, QN_DTYPE_I32, QN_DTYPE_BOOL,
                                  QN_DTYPE_U8,  QN_DTYPE_I8,  QN_DTYPE_U16, QN_DTYPE_F64,
                                  QN_DTYPE_U64, QN_DTYPE_F16};

static void hostile_values(void *data, qn_dtype dtype, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const int64_t value = hostile_number();
        if (dtype == QN_DTYPE_F32)
            ((float *)data)[i] = net_random(30) == 0 ? NAN : (float)value * 0.5f;
        else if (dtype == QN_DTYPE_F64)
            ((double *)data)[i] = (double)value;
        else if (dtype == QN_DTYPE_F16)
            ((uint16_t *)data)[i] = (uint16_t)value;
        else
            qn__store_int(data, dtype, i, dtype == QN_DTYPE_BOOL ? value & 1 : value);
    }
}

/* Input or constant of few elements; data stay in buffers. */
static qn_tensor *hostile_operand(builder *b, uint32_t index, void *buffer)
{
    static const size_t RANKS[] = {0, 1, 1, 2, 2, 3, 4, 5};
    int64_t dims[QN_MAX_RANK];
    const size_t rank = RANKS[net_random(8)];
    size_t count = 0;
    for (size_t i = 0; i < rank; i++)
        dims[i] = net_random(25) == 0 ? 0 : 1 + (int64_t)net_random(3);
    const qn_dtype dtype = DTYPES[net_random(3) == 0 ? net_random(10) : net_random(2)];
    assert_true(qn_shape_count(&count, dims, rank));
    hostile_values(buffer, dtype, count);
    char name[16];
    snprintf(name, sizeof(name), "in%u", (unsigned)index);
    if (net_random(2) == 0)
        return build_const(b, name, dtype, buffer, rank, dims);
    qn_tensor *const t = build_input(b, name, rank, dims);
    t->type = qn_type_plain_make(dtype);
    return t;
}

static void hostile_attrs(builder *b, qn_node *node)
{
    static const char *const INTS[] = {
        "axis",       "axes",      "batch_dims", "largest",
        "exclusive",  "reverse",   "upper",      "k",
        "num_groups", "p",         "keepdims",   "select_last_index",
        "fmod",       "blocksize", "dtype",      "noop_with_empty_axes"};
    static const char *const NAMES[][2] = {{"reduction", "add"}, {"reduction", "max"},
                                           {"reduction", "odd"}, {"direction", "RIGHT"},
                                           {"mode", "CRD"},      {"mode", "reflect"}};
    const uint32_t count = net_random(4);
    for (uint32_t i = 0; i < count; i++) {
        const char *const name = INTS[net_random(16)];
        const int64_t list[3] = {hostile_number(), hostile_number(), hostile_number()};
        if (strcmp(name, "axes") == 0)
            assert_true(qn__node_set_ints(b->graph, node, name, list, net_random(4)));
        else
            assert_true(qn__node_set_int(b->graph, node, name, list[0]));
    }
    const size_t which = net_random(12);
    if (which < 6)
        assert_true(qn__node_set_string(b->graph, node, NAMES[which][0], NAMES[which][1]));
}

/* True when it ran. */
static bool try_operator(qn_op op, uint64_t seed)
{
    static uint64_t buffers[4][3 * 3 * 3 * 3 * 3];
    builder b;
    net_random_state = seed * 104729 + (uint64_t)op;
    build_start(&b);
    qn_tensor *operands[4];
    const uint32_t n = 1 + net_random(4);
    const void *data[4] = {NULL};
    for (uint32_t i = 0; i < n; i++) {
        operands[i] = hostile_operand(&b, i, buffers[i]);
        if (operands[i]->constant == NULL)
            data[b.graph->n_inputs - 1] = buffers[i];
    }
    qn_tensor *const out = build_node(&b, op, "node", n, operands);
    hostile_attrs(&b, out->producer);
    build_output(&b, out);
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    qn_status status = qn__graph_verify(b.graph, &b.error);
    if (status == QN_OK)
        status = qn__plan_create(b.graph, NULL, &plan, &b.error);
    if (status == QN_OK)
        assert_ok(&b, qn__exec_create(plan, NULL, &exec, &b.error));
    if (status == QN_OK)
        status = qn__exec_run(exec, data, &b.error);
    assert_true(status == QN_OK || status == QN_CORRUPT || status == QN_LIMIT ||
                status == QN_UNSUPPORTED || status == QN_NONFINITE);
    assert_true(status == QN_OK || b.error.message[0] != '\0');
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    build_end(&b);
    return status == QN_OK;
}

static void anything_is_refused_or_runs(void **state)
{
    (void)state;
    const char *const text = getenv("QN_TEST_ROUNDS"); /* longer campaigns */
    const uint64_t rounds = text != NULL ? strtoull(text, NULL, 0) : 400;
    size_t ran = 0;
    for (int op = QN_OP_NONE + 1; op < QN_OP_COUNT; op++)
        for (uint64_t seed = 1; seed <= rounds && qn__run_op_find((qn_op)op) != NULL; seed++)
            ran += try_operator((qn_op)op, seed);
    assert_true(ran > (size_t)QN_OP_COUNT * 10);
}

/* A node that picks from x [3, 4] by run-time indices, the last of which is `last`. */
static qn_status pick(qn_op op, int64_t last, char *message)
{
    static const float x[12] = {0};
    static const float updates[2] = {1, 2};
    builder b;
    build_start(&b);
    qn_tensor *operands[3];
    operands[0] = build_input(&b, "x", DIMS(3, 4));
    operands[1] = build_input(&b, "index", DIMS(1, 2));
    operands[1]->type = qn_type_plain_make(QN_DTYPE_I64);
    const bool scatters = op == QN_OP_SCATTER_ELEMENTS || op == QN_OP_SCATTER_ND;
    if (op == QN_OP_SCATTER_ND)
        operands[2] = build_input(&b, "updates", DIMS(1));
    else
        operands[2] = build_input(&b, "updates", DIMS(1, 2));
    qn_tensor *const out = build_node(&b, op, "pick", scatters ? 3 : 2, operands);
    if (op == QN_OP_SCATTER_ELEMENTS || op == QN_OP_GATHER_ELEMENTS)
        assert_true(qn__node_set_int(b.graph, out->producer, "axis", 1));
    build_output(&b, out);
    const int64_t indices[2] = {0, last};
    const void *const data[3] = {x, indices, updates};
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    assert_ok(&b, qn__plan_create(b.graph, NULL, &plan, &b.error));
    assert_ok(&b, qn__exec_create(plan, NULL, &exec, &b.error));
    const qn_status status = qn__exec_run(exec, data, &b.error);
    snprintf(message, 1024, "%s", b.error.message);
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    build_end(&b);
    return status;
}

static void indices_are_checked_when_running(void **state)
{
    (void)state;
    static const qn_op OPS[] = {QN_OP_GATHER_ELEMENTS, QN_OP_SCATTER_ELEMENTS, QN_OP_GATHER_ND,
                                QN_OP_SCATTER_ND};
    static const int64_t BAD[] = {4, -5, INT64_MAX, INT64_MIN};
    char message[1024];
    for (size_t i = 0; i < 4; i++) {
        for (int64_t index = -4; index < 4; index++)
            assert_int_equal(pick(OPS[i], index, message), QN_OK);
        for (size_t k = 0; k < 4; k++) {
            assert_int_equal(pick(OPS[i], BAD[k], message), QN_CORRUPT);
            assert_non_null(strstr(message, "\"pick\""));
            assert_non_null(strstr(message, " of 4"));
        }
    }
}

static void top_k_takes_at_most_what_is_there(void **state)
{
    (void)state;
    static const int64_t KS[] = {0, 3, 4, -1, INT64_MAX};
    for (size_t i = 0; i < 5; i++) {
        builder b;
        build_start(&b);
        qn_tensor *operands[2] = {build_input(&b, "x", DIMS(2, 3)), build_ints(&b, "k", 1, &KS[i])};
        build_node(&b, QN_OP_TOP_K, "top", 2, operands);
        assert_int_equal(qn__graph_infer(b.graph, &b.error), i < 2 ? QN_OK : QN_CORRUPT);
        build_end(&b);
    }
}

/* Runs a graph whose one input has no elements. */
static void run_nothing(builder *b, qn_plan **plan, qn_exec **exec)
{
    const float nothing = 0;
    const void *const data[1] = {&nothing};
    assert_ok(b, qn__plan_create(b->graph, NULL, plan, &b->error));
    assert_ok(b, qn__exec_create(*plan, NULL, exec, &b->error));
    assert_ok(b, qn__exec_run(*exec, data, &b->error));
}

/* Pictures without a pixel: every value of the output is written. */
static void global_pools_of_nothing_have_a_value(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        builder b;
        build_start(&b);
        qn_tensor *operands[1] = {build_input(&b, "x", DIMS(1, 3, 0, 2))};
        qn_tensor *const out = build_node(
            &b, i == 0 ? QN_OP_GLOBAL_AVERAGE_POOL : QN_OP_GLOBAL_MAX_POOL, "pool", 1, operands);
        build_output(&b, out);
        qn_plan *plan = NULL;
        qn_exec *exec = NULL;
        run_nothing(&b, &plan, &exec);
        const qn_view *const view = qn__exec_output(exec, 0);
        assert_int_equal(view->count, 3);
        for (int k = 0; k < 3; k++) {
            const float value = ((const float *)view->data)[k];
            assert_true(i == 0 ? isnan(value) : value == -INFINITY);
        }
        qn__exec_destroy(exec);
        qn__plan_destroy(plan);
        build_end(&b);
    }
}

/* A file says what its tensors are, and may say so of quantized parts, too. */
static void parts_of_other_types_are_refused(void **state)
{
    (void)state;
    static const qn_dtype OTHERS[] = {QN_DTYPE_U8, QN_DTYPE_I16, QN_DTYPE_F32, QN_DTYPE_I8};
    for (size_t i = 0; i < 4; i++) {
        net *const n = net_start();
        builder *const b = &n->b;
        qn_tensor *const x = build_input(b, "x", DIMS(2, 64));
        x->type = net_quant(n, QN_DTYPE_I8, 0.5f, 0);
        qn_node *const split = qn__graph_add_node(b->graph, SIZE_MAX, QN_OP_SPLIT, "split", 1, 2);
        assert_non_null(split);
        split->inputs[0] = x;
        for (uint32_t k = 0; k < 2; k++) {
            const qn_type type = k == 0 ? x->type : qn_type_plain_make(OTHERS[i]);
            qn_tensor *const y = qn__graph_add_tensor(b->graph, k == 0 ? "y0" : "y1", type);
            assert_non_null(y);
            qn__node_set_output(split, k, y);
            build_output(b, y);
        }
        set_int(b, split->outputs[0], "axis", 1);
        qn_plan *plan = NULL;
        assert_int_equal(qn__plan_create(b->graph, NULL, &plan, &b->error),
                         i < 3 ? QN_CORRUPT : QN_OK);
        qn__plan_destroy(plan);
        net_end(n);
    }
}

/* So may one that resizes integers. */
static void resized_bytes_of_other_types_are_refused(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        net *const n = net_start();
        builder *const b = &n->b;
        qn_tensor *const x = build_input(b, "x", DIMS(1, 2, 3, 4));
        x->type = net_quant(n, QN_DTYPE_U8, 0.5f, 7);
        qn_tensor *const y =
            NODE(b, RESIZE, "y", x, NULL, NULL, build_ints(b, "sizes", DIMS(1, 2, 5, 9)));
        assert_true(qn__node_set_string(b->graph, y->producer, "mode", "linear"));
        set_int(b, y, "truncates", i / 2);
        y->type = net_quant(n, i % 2 != 0 ? QN_DTYPE_I8 : QN_DTYPE_U8, 0.5f, 7);
        build_output(b, y);
        qn_plan *plan = NULL;
        assert_int_equal(qn__plan_create(b->graph, NULL, &plan, &b->error),
                         i == 3 ? QN_CORRUPT : QN_OK);
        qn__plan_destroy(plan);
        net_end(n);
    }
}

/* However many rows of nothing there are. */
static void rows_of_nothing_take_no_time(void **state)
{
    (void)state;
    builder b;
    build_start(&b);
    qn_tensor *operands[1] = {build_input(&b, "x", DIMS(INT64_C(1) << 40, 0))};
    build_output(&b, build_node(&b, QN_OP_SOFTMAX, "softmax", 1, operands));
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    run_nothing(&b, &plan, &exec);
    assert_int_equal(qn__exec_output(exec, 0)->count, 0);
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    build_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(anything_is_refused_or_runs),
        cmocka_unit_test(indices_are_checked_when_running),
        cmocka_unit_test(global_pools_of_nothing_have_a_value),
        cmocka_unit_test(parts_of_other_types_are_refused),
        cmocka_unit_test(resized_bytes_of_other_types_are_refused),
        cmocka_unit_test(rows_of_nothing_take_no_time),
        cmocka_unit_test(top_k_takes_at_most_what_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
