/* Binding, views that share memory, hooks, folding, integer inputs, parallel sessions. */
#include "run_net.h"

#include "core/threads.h"

typedef struct seen {
    size_t n;
    char names[16][32];
    const char *change; /* tensor whose values are set to 100 */
} seen;

static qn_status look(void *ctx, const qn_view *view, qn_error *error)
{
    (void)error;
    seen *s = ctx;
    assert_true(s->n < 16);
    snprintf(s->names[s->n++], sizeof(s->names[0]), "%s", view->tensor->name);
    if (s->change != NULL && strcmp(s->change, view->tensor->name) == 0)
        for (size_t i = 0; i < view->count; i++)
            ((float *)view->data)[i] = 100.0f;
    return QN_OK;
}

/* x -> Relu a; a -> Reshape r; y = a(reshaped back) + r: r and a are both read after r is made. */
static void shared_memory_and_hooks(void **state)
{
    (void)state;
    for (int keep = 0; keep < 2; keep++) {
        net *n = net_start();
        builder *b = &n->b;
        const float x[6] = {-1, 2, -3, 4, -5, 6};
        const int64_t shape[2] = {3, 2}, back[2] = {2, 3};
        qn_tensor *in = build_input(b, "x", DIMS(2, 3));
        qn_tensor *a = NODE(b, RELU, "a", in);
        qn_tensor *r = NODE(b, RESHAPE, "r", a, build_ints(b, "shape", 2, shape));
        qn_tensor *q = NODE(b, RESHAPE, "q", r, build_ints(b, "back", 2, back));
        qn_tensor *y = NODE(b, ADD, "y", a, q);
        build_output(b, y);
        qn_plan_options options;
        qn__plan_options_init(&options, b->ctx);
        options.keep_all = keep != 0;
        qn_plan *plan = NULL;
        qn_exec *exec = NULL;
        assert_ok(b, qn__plan_create(b->graph, &options, &plan, &b->error));
        assert_ok(b, qn__exec_create(plan, NULL, &exec, &b->error));
        seen s = {0};
        qn__exec_set_hook(exec, look, &s);
        const void *inputs[1] = {x};
        assert_ok(b, qn__exec_run(exec, inputs, &b->error));
        assert_int_equal(s.n, 5);
        static const char *const order[5] = {"x", "a_out", "r_out", "q_out", "y_out"};
        for (size_t i = 0; i < 5; i++)
            assert_string_equal(s.names[i], order[i]);
        const float *out = qn__exec_output(exec, 0)->data;
        for (size_t i = 0; i < 6; i++)
            assert_true(out[i] == (x[i] > 0 ? 2 * x[i] : 0));
        assert_null(qn__exec_output(exec, 1));
        if (keep) { /* a changed view must not change what it was made from */
            s = (seen){.change = "r_out"};
            assert_ok(b, qn__exec_run(exec, inputs, &b->error));
            for (size_t i = 0; i < 6; i++)
                assert_true(out[i] == (x[i] > 0 ? x[i] : 0) + 100.0f);
        }
        size_t count = 0;
        qn__exec_set_profiling(exec, true);
        assert_ok(b, qn__exec_run(exec, inputs, &b->error));
        const qn_step_time *times = qn__exec_profile(exec, &count);
        assert_true(count >= 2 && count <= 4);
        assert_string_equal(times[0].node, "a");
        qn__exec_destroy(exec);
        qn__plan_destroy(plan);
        net_end(n);
    }
}

static qn_status stop(void *ctx, const qn_view *view, qn_error *error)
{
    (void)ctx;
    return qn__error_set(error, QN_CANCELLED, "stopped at %s", view->tensor->name);
}

static void symbols_are_bound(void **state)
{
    (void)state;
    net *n = net_start();
    builder *b = &n->b;
    qn_tensor *x = build_input(b, "x", DIMS(-1, 2, -2));
    build_output(b, NODE(b, NEG, "y", x));
    qn_plan_options options;
    qn__plan_options_init(&options, b->ctx);
    qn_plan *plan = NULL;
    assert_fails(b, qn__plan_create(b->graph, &options, &plan, &b->error), QN_INVALID_ARGUMENT,
                 "\"x\"");
    options.batch = 3;
    options.symbol = 5;
    assert_ok(b, qn__plan_create(b->graph, &options, &plan, &b->error));
    qn_exec *exec = NULL;
    assert_ok(b, qn__exec_create(plan, NULL, &exec, &b->error));
    const qn_view *out = qn__exec_output(exec, 0);
    assert_int_equal(out->count, 30);
    assert_int_equal(out->dims[0], 3);
    assert_int_equal(out->dims[2], 5);
    float data[30] = {0};
    const void *inputs[1] = {data};
    qn__exec_set_hook(exec, stop, NULL);
    assert_fails(b, qn__exec_run(exec, inputs, &b->error), QN_CANCELLED, "stopped at x");
    inputs[0] = NULL;
    assert_fails(b, qn__exec_run(exec, inputs, &b->error), QN_INVALID_ARGUMENT, "\"x\"");
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    const int64_t dims[1][QN_MAX_RANK] = {{2, 3, 4}};
    options.input_dims = dims;
    assert_fails(b, qn__plan_create(b->graph, &options, &plan, &b->error), QN_INVALID_ARGUMENT,
                 "dimension 1");
    /* The graph itself keeps its symbols. */
    assert_int_equal(x->dims[0].kind, QN_DIM_SYMBOL);
    net_end(n);
}

/* Reshape to a shape computed from Shape: folded, whatever the batch. */
static void shapes_are_folded(void **state)
{
    (void)state;
    net *n = net_start();
    builder *b = &n->b;
    const int64_t zero = 0, minus = -1;
    qn_tensor *x = build_input(b, "x", DIMS(-1, 2, 3));
    qn_tensor *shape = NODE(b, SHAPE, "shape", x);
    qn_tensor *first = NODE(b, GATHER, "first", shape, build_ints(b, "zero", 1, &zero));
    qn_tensor *target = NODE(b, CONCAT, "target", first, build_ints(b, "minus", 1, &minus));
    set_int(b, target, "axis", 0);
    build_output(b, NODE(b, RESHAPE, "y", x, target));
    qn_plan_options options;
    qn__plan_options_init(&options, b->ctx);
    options.batch = 4;
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    assert_ok(b, qn__plan_create(b->graph, &options, &plan, &b->error));
    assert_ok(b, qn__exec_create(plan, NULL, &exec, &b->error));
    assert_int_equal(qn__exec_output(exec, 0)->rank, 2);
    assert_int_equal(qn__exec_output(exec, 0)->dims[0], 4);
    assert_int_equal(qn__exec_output(exec, 0)->dims[1], 6);
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    /* Resolving the graph itself: constants only, and not above the limit. */
    const float values[4] = {1, 2, 3, 4};
    qn_tensor *c = NODE(b, NEG, "c", build_floats(b, "values", 4, values));
    assert_ok(b, qn__graph_resolve(b->graph, 8, &b->error));
    assert_null(c->constant);
    assert_ok(b, qn__graph_resolve(b->graph, 64, &b->error));
    assert_non_null(c->constant);
    assert_true(((const float *)(const void *)c->constant->data)[3] == -4.0f);
    assert_null(qn__graph_find_tensor(b->graph, "c_out")->producer);
    assert_ok(b, qn__graph_verify(b->graph, &b->error));
    net_end(n);
}

static void integer_inputs(void **state)
{
    (void)state;
    net *n = net_start();
    builder *b = &n->b;
    qn_tensor *index = build_input(b, "index", DIMS(3));
    index->type = qn_type_plain_make(QN_DTYPE_I64);
    const float table[8] = {0, 1, 10, 11, 20, 21, 30, 31};
    const int64_t dims[2] = {4, 2};
    qn_tensor *y =
        NODE(b, GATHER, "y", build_const(b, "table", QN_DTYPE_F32, table, 2, dims), index);
    build_output(b, y);
    qn_plan *plan = NULL;
    qn_exec *exec = NULL;
    assert_ok(b, qn__plan_create(b->graph, NULL, &plan, &b->error));
    assert_ok(b, qn__exec_create(plan, NULL, &exec, &b->error));
    const int64_t good[3] = {3, 0, -2}, bad[3] = {0, 4, 0};
    const void *inputs[1] = {good};
    assert_ok(b, qn__exec_run(exec, inputs, &b->error));
    const float *out = qn__exec_output(exec, 0)->data;
    const float expected[6] = {30, 31, 0, 1, 20, 21};
    assert_memory_equal(out, expected, sizeof(expected));
    inputs[0] = bad;
    assert_fails(b, qn__exec_run(exec, inputs, &b->error), QN_CORRUPT, "index 4 of 4");
    qn__exec_destroy(exec);
    qn__plan_destroy(plan);
    net_end(n);
}

/* The same bytes with one thread, several, and two sessions at once. */
static void threads_change_nothing(void **state)
{
    (void)state;
    net *n = net_start();
    builder *b = &n->b;
    enum { COUNT = 2 * 24 * 40 * 40 };
    qn_tensor *x = build_input(b, "x", DIMS(2, 40, 40, 24));
    qn_tensor *t = NODE(b, TRANSPOSE, "t", x);
    const int64_t perm[4] = {0, 3, 1, 2};
    set_ints(b, t, "perm", 4, perm);
    qn_tensor *s = NODE(b, SIGMOID, "s", t);
    qn_tensor *m = NODE(b, MUL, "m", s, t);
    qn_tensor *f = NODE(b, SOFTMAX, "f", m);
    set_int(b, f, "axis", 1);
    build_output(b, f);
    qn_plan *plan = NULL;
    qn_exec *exec[2] = {NULL};
    qn_pool *pool = NULL;
    assert_ok(b, qn__pool_create(b->ctx, 3, &pool, &b->error));
    assert_ok(b, qn__plan_create(b->graph, NULL, &plan, &b->error));
    assert_ok(b, qn__exec_create(plan, NULL, &exec[0], &b->error));
    assert_ok(b, qn__exec_create(plan, pool, &exec[1], &b->error));
    float *data = calloc(COUNT, sizeof(float));
    assert_non_null(data);
    net_fill(data, COUNT);
    const void *inputs[1] = {data};
    for (int i = 0; i < 2; i++)
        assert_ok(b, qn__exec_run(exec[i], inputs, &b->error));
    assert_memory_equal(qn__exec_output(exec[0], 0)->data, qn__exec_output(exec[1], 0)->data,
                        COUNT * sizeof(float));
    free(data);
    qn__exec_destroy(exec[0]);
    qn__exec_destroy(exec[1]);
    qn__plan_destroy(plan);
    qn__pool_destroy(b->ctx, pool);
    net_end(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_memory_and_hooks), cmocka_unit_test(symbols_are_bound),
        cmocka_unit_test(shapes_are_folded),       cmocka_unit_test(integer_inputs),
        cmocka_unit_test(threads_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
