/* Chains between quantized tensors become tables where nothing else reads what lies between, and
 * compute what their nodes computed, however sums are requantized. */
#include "run_net.h"

#include "pass/pass.h"

enum { COUNT = 512 };
static uint8_t INPUT[COUNT], BEFORE[COUNT], AFTER[COUNT];

static void run_graph(const builder *b, const qn_graph *graph, qn_requantize kind, uint8_t *out)
{
    qn_plan_options options;
    qn_error error;
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    qn__plan_options_init(&options, b->ctx);
    options.requantize = kind;
    if (qn__plan_create(graph, &options, &plan, &error) != QN_OK ||
        qn__exec_create(plan, NULL, &exec, &error) != QN_OK ||
        qn__exec_run(exec, (const void *const[]){INPUT}, &error) != QN_OK)
        fail_msg("%s", error.message);
    const qn_view *const view = qn__exec_output(exec, 0);
    assert_int_equal(view->count, COUNT);
    memcpy(out, view->data, COUNT);
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
}

static qn_tensor *bytes_input(net *n, qn_dtype dtype)
{
    qn_tensor *const x = build_input(&n->b, "x", DIMS(2, 4, 8, 8));
    x->type = net_quant(n, dtype, 0.0625f, dtype == QN_DTYPE_I8 ? -20 : 100);
    for (size_t i = 0; i < COUNT; i++)
        INPUT[i] = (uint8_t)i;
    return x;
}

static qn_tensor *scalar(net *n, const char *name, float value, size_t rank)
{
    return build_const(&n->b, name, QN_DTYPE_F32, &value, rank, (const int64_t[]){1, 1, 1, 1, 1});
}

static qn_tensor *quantized(net *n, qn_tensor *t, qn_dtype dtype, float scale, int32_t zero)
{
    t->type = net_quant(n, dtype, scale, zero);
    return t;
}

/* How many nodes are left, how many of them tables; outputs must be equal for every kind that the
 * graph's scales allow. */
static void check(net *n, qn_tensor *y, size_t n_nodes, size_t n_tables, bool integers)
{
    static const qn_requantize KINDS[] = {QN_REQUANTIZE_DEFAULT, QN_REQUANTIZE_GEMMLOWP,
                                          QN_REQUANTIZE_GEMMLOWP_SINGLE};
    builder *const b = &n->b;
    build_output(b, y);
    assert_ok(b, qn__graph_infer(b->graph, &b->error));
    assert_ok(b, qn__graph_verify(b->graph, &b->error));
    for (size_t k = 0; k < (integers ? sizeof(KINDS) / sizeof(KINDS[0]) : 1); k++) {
        qn_graph *copy = NULL;
        size_t tables = 0;
        assert_ok(b, qn__graph_clone(b->graph, &copy, &b->error));
        assert_ok(b, qn__bytes_to_tables(copy, KINDS[k], qn__graph_resolve, &b->error));
        for (size_t i = 0; i < copy->n_nodes; i++)
            tables += copy->nodes[i]->op == QN_OP_TABLE;
        assert_int_equal(copy->n_nodes, n_nodes);
        assert_int_equal(tables, n_tables);
        run_graph(b, b->graph, KINDS[k], BEFORE);
        run_graph(b, copy, KINDS[k], AFTER);
        assert_memory_equal(BEFORE, AFTER, COUNT);
        qn__graph_destroy(copy);
    }
    net_end(n);
}

/* x * hard_sigmoid(x + 1) - x^2 / 8, on floats. */
static void floats_between(void **state)
{
    (void)state;
    for (int s8 = 0; s8 < 2; s8++) {
        net *const n = net_start();
        const qn_dtype dtype = s8 ? QN_DTYPE_I8 : QN_DTYPE_U8;
        qn_tensor *const x = NODE(&n->b, DEQUANTIZE_LINEAR, "dq", bytes_input(n, dtype));
        qn_tensor *t = NODE(&n->b, ADD, "add", scalar(n, "one", 1.0f, 4), x);
        t = NODE(&n->b, MUL, "mul", x, NODE(&n->b, HARD_SIGMOID, "hard", t));
        qn_tensor *const p = NODE(&n->b, POW, "pow", x, scalar(n, "two", 2.0f, 0));
        t = NODE(&n->b, SUB, "sub", t, NODE(&n->b, DIV, "div", p, scalar(n, "eight", 8.0f, 1)));
        t = NODE(&n->b, QUANTIZE_LINEAR, "q", t);
        check(n, quantized(n, t, dtype, 0.05f, s8 ? -7 : 120), 1, 1, false);
    }
}

/* Sigmoid, Mul and Add of bytes; rounded as the kind says. */
static void integers_between(void **state)
{
    (void)state;
    for (int s8 = 0; s8 < 2; s8++) {
        net *const n = net_start();
        const qn_dtype dtype = s8 ? QN_DTYPE_I8 : QN_DTYPE_U8;
        qn_tensor *const x = bytes_input(n, dtype);
        qn_tensor *const s =
            quantized(n, NODE(&n->b, SIGMOID, "s", x), QN_DTYPE_U8, 1.0f / 256.0f, 0);
        qn_tensor *const m = quantized(n, NODE(&n->b, MUL, "m", x, s), dtype, 0.03f, s8 ? 0 : 9);
        qn_tensor *const a = quantized(n, NODE(&n->b, ADD, "a", m, x), dtype, 0.07f, s8 ? 3 : 90);
        n->b.graph->requantize = QN_REQUANTIZE_DEFAULT;
        check(n, a, 1, 1, true);
    }
}

/* Two roots, an output of the model in between, a constant of several elements, another rank. */
static void what_stays(void **state)
{
    (void)state;
    for (int which = 0; which < 4; which++) {
        static const float four[4] = {1, 2, 3, 4};
        net *const n = net_start();
        qn_tensor *const x = bytes_input(n, QN_DTYPE_U8);
        qn_tensor *const dq = NODE(&n->b, DEQUANTIZE_LINEAR, "dq", x);
        qn_tensor *t = NODE(&n->b, SIGMOID, "s", dq);
        qn_tensor *between = NULL;
        if (which == 0) {
            qn_tensor *const turned = NODE(&n->b, TRANSPOSE, "turned", dq);
            set_ints(&n->b, turned, "perm", 4, (const int64_t[]){0, 1, 3, 2});
            t = NODE(&n->b, MUL, "m", t, turned);
        } else if (which == 1) {
            between = t;
            t = NODE(&n->b, MUL, "m", t, dq);
        } else if (which == 2) {
            t = NODE(&n->b, MUL, "m", t,
                     build_const(&n->b, "c", QN_DTYPE_F32, four, DIMS(1, 4, 1, 1)));
        } else {
            t = NODE(&n->b, MUL, "m", t, scalar(n, "c", 2.0f, 5));
        }
        t = quantized(n, NODE(&n->b, QUANTIZE_LINEAR, "q", t), QN_DTYPE_U8, 0.03f, 50);
        const size_t n_nodes = n->b.graph->n_nodes;
        if (between == NULL) {
            check(n, t, n_nodes, 0, false);
            continue;
        }
        build_output(&n->b, t);
        check(n, between, n_nodes, 0, false);
    }
}

/* A hundred in a row: the last 64 nodes are one, what is before them is another. */
static void long_chains(void **state)
{
    (void)state;
    net *const n = net_start();
    qn_tensor *t = bytes_input(n, QN_DTYPE_U8);
    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%d", i);
        t = NODE(&n->b, LEAKY_RELU, name, t);
        t = quantized(n, t, QN_DTYPE_U8, 0.06f, 100 + i % 3);
    }
    check(n, t, 2, 2, false);
}

/* What a file may have in place of a table. */
static void tables_are_checked(void **state)
{
    (void)state;
    static const uint8_t bytes[257] = {0};
    for (int which = 0; which < 4; which++) {
        net *const n = net_start();
        qn_tensor *const x = bytes_input(n, QN_DTYPE_U8);
        const int64_t count = which == 0 ? 256 : which == 1 ? 255 : 257;
        qn_tensor *const table = build_const(&n->b, "t", QN_DTYPE_U8, bytes, 1, &count);
        qn_tensor *const y =
            which == 3 ? NODE(&n->b, TABLE, "y", x) : NODE(&n->b, TABLE, "y", x, table);
        build_output(&n->b, quantized(n, y, QN_DTYPE_U8, 0.1f, 3));
        qn_plan_options options;
        qn_plan *plan = NULL;
        qn__plan_options_init(&options, n->b.ctx);
        assert_int_equal(qn__plan_create(n->b.graph, &options, &plan, &n->b.error),
                         which == 0 ? QN_OK : QN_CORRUPT);
        qn__plan_destroy(plan);
        net_end(n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_between),     cmocka_unit_test(integers_between),
        cmocka_unit_test(what_stays),         cmocka_unit_test(long_chains),
        cmocka_unit_test(tables_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
