/* Every allocation of clone, sort, verify and simplify fails once: the answer is NO_MEMORY, nothing
 * leaks (run with the sanitizers) and the graph can still be destroyed. */
#include "ir/graph_build.h"

#include "pass/pass.h"
#include "run/run.h"

#include <stdlib.h>

typedef struct fault {
    uint64_t left; /* allocations until one fails; 0: never */
    bool hit;
} fault;

static bool fails(fault *f)
{
    if (f->left == 0 || --f->left > 0)
        return false;
    f->hit = true;
    return true;
}

static void *fault_alloc(void *ctx, size_t size)
{
    return fails(ctx) ? NULL : malloc(size);
}

static void *fault_realloc(void *ctx, void *ptr, size_t size)
{
    return fails(ctx) ? NULL : realloc(ptr, size);
}

static void fault_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

static void start(builder *b, fault *f)
{
    const qn_allocator allocator = {fault_alloc, fault_realloc, fault_free, f};
    qn_context_options options;
    qn_context_options_init(&options);
    options.allocator = &allocator;
    options.n_threads = 1;
    memset(b, 0, sizeof(*b));
    assert_int_equal(qn_context_create(&options, &b->ctx, &b->error), QN_OK);
    assert_int_equal(qn__graph_create(b->ctx, &b->graph, &b->error), QN_OK);
}

static qn_tensor *whole(builder *b, qn_tensor *x, const char *round, const char *clip)
{
    static const float lo = -127.0f, hi = 127.0f;
    return NODE(b, CLIP, clip, NODE(b, ROUND, round, x),
                build_const(b, "lo", QN_DTYPE_F32, &lo, 0, NULL),
                build_const(b, "hi", QN_DTYPE_F32, &hi, 0, NULL));
}

static void build(builder *b)
{
    static const float ints[4] = {1, -2, 3, 4};
    qn_tensor *x = build_input(b, "x", DIMS(-1, 4, 3, 3));
    qn_tensor *i = NODE(b, CONV, "iconv", whole(b, x, "iround", "iclip"),
                        build_const(b, "iw", QN_DTYPE_F32, ints, DIMS(1, 4, 1, 1)));
    i = NODE(b, MUL, "imul", i, build_const(b, "is", QN_DTYPE_F32, &ints[0], 0, NULL));
    i = whole(b, i, "iround2", "iclip2");
    i = NODE(b, MUL, "chained", NODE(b, SIGMOID, "chain", i), i);
    build_output(b, whole(b, i, "iround3", "iclip3"));
    qn_tensor *p = build_weights(b, "p", DIMS(4));
    const float ones[4] = {1, 1, 1, 1};
    qn_tensor *var = build_floats(b, "var", 4, ones);
    qn_tensor *y = NODE(b, CONV, "conv", x, build_weights(b, "w", DIMS(4, 4, 1, 1)));
    y = NODE(b, BATCH_NORMALIZATION, "bn", y, p, p, p, var);
    y = NODE(b, RELU, "relu", y);
    y = NODE(b, IDENTITY, "id", y);
    y = NODE(b, REDUCE_MEAN, "mean", y, build_ints(b, "axes", DIMS(2, 3)));
    qn_tensor *shape = NODE(b, SHAPE, "shape", y);
    qn_tensor *batch = NODE(b, GATHER, "batch", shape, build_ints(b, "zero", DIMS(0)));
    qn_tensor *to = NODE(b, CONCAT, "to", batch, build_ints(b, "rest", DIMS(-1)));
    set_int(b, to, "axis", 0);
    y = NODE(b, RESHAPE, "flat", y, to);
    y = NODE(b, MATMUL, "mm", y, build_weights(b, "wm", DIMS(4, 3)));
    y = NODE(b, ADD, "scores", y, build_weights(b, "wb", DIMS(3)));
    build_output(b, y);
    qn_node *wide = qn__graph_add_node(b->graph, SIZE_MAX, QN_OP_CONCAT, "wide", 65, 1);
    qn_tensor *all = qn__graph_add_tensor(b->graph, "all", qn_type_plain_make(QN_DTYPE_NONE));
    for (uint32_t k = 0; k < 65; k++)
        wide->inputs[k] = y;
    qn__node_set_output(wide, 0, all);
    set_int(b, all, "axis", 1);
    build_output(b, all);
    build_output(b, NODE(b, ABS, "abs",
                         NODE(b, SLICE, "part", all, build_ints(b, "start", DIMS(3)),
                              build_ints(b, "end", DIMS(6)), build_ints(b, "axis", DIMS(1)))));
}

static qn_status scenario(builder *b)
{
    qn_graph *copy = NULL;
    qn_pass_options options;
    qn__pass_options_init(&options);
    QN_TRY(qn__graph_clone(b->graph, &copy, &b->error));
    qn_status status = qn__graph_sort(copy, &b->error);
    if (status == QN_OK)
        status = qn__graph_infer(copy, &b->error);
    if (status == QN_OK)
        status = qn__whole_numbers_to_bytes(copy, &b->error);
    if (status == QN_OK)
        status = qn__signed_bytes_to_unsigned(copy, &b->error);
    if (status == QN_OK)
        status = qn__passes_simplify(copy, &options, &b->error);
    const size_t n_nodes = copy->n_nodes;
    if (status == QN_OK)
        status = qn__bytes_to_tables(copy, QN_REQUANTIZE_DEFAULT, qn__graph_resolve, &b->error);
    if (status == QN_OK)
        assert_int_equal(copy->n_nodes, n_nodes - 3); /* of DQ, Sigmoid, Mul and Q */
    if (status == QN_OK)
        status = qn__graph_verify(copy, &b->error);
    qn__graph_destroy(copy);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    uint64_t n = 1;
    for (;; n++) {
        builder b;
        fault f = {0};
        start(&b, &f);
        build(&b);
        f.left = n;
        const qn_status status = scenario(&b);
        f.left = 0;
        if (f.hit && status != QN_NO_MEMORY)
            fail_msg("allocation %u: %s %s", (unsigned)n, qn_status_name(status), b.error.message);
        assert_int_equal(qn__graph_verify(b.graph, &b.error), QN_OK); /* the original is whole */
        build_end(&b);
        if (!f.hit) {
            assert_int_equal(status, QN_OK);
            break;
        }
    }
    assert_true(n > 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
