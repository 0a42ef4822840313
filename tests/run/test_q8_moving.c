/* Operators that move, choose or look up bytes, pools of maxima and Resize: the bytes of scalar
 * kernels on one thread, on every instruction set of the machine and with one to three threads. */
#include "q8_net.h"

enum { ROUNDS = 12 };

typedef struct source {
    builder *b;
    sample *s;
    qn_tensor *x;
    int64_t dims[4];
} source;

static qn_tensor *whole_numbers(const source *f, const char *name, size_t n, const int64_t *values)
{
    const int64_t count[1] = {(int64_t)n};
    return build_const(&f->s->n->b, name, QN_DTYPE_I64, values, 1, count);
}

static qn_tensor *transpose(const source *f)
{
    static const int64_t orders[3][4] = {{0, 2, 3, 1}, {1, 0, 3, 2}, {3, 2, 1, 0}};
    qn_tensor *const y = NODE(f->b, TRANSPOSE, "y", f->x);
    set_ints(f->b, y, "perm", 4, orders[net_random(3)]);
    return y;
}

static qn_tensor *pad(const source *f)
{
    static const char *const modes[] = {"constant", "reflect", "edge"};
    const int64_t pads[8] = {0, 0, 1, 2, 0, net_random(2), 2, 0};
    qn_tensor *const y = NODE(f->b, PAD, "y", f->x, whole_numbers(f, "pads", 8, pads));
    assert_true(qn__node_set_string(f->b->graph, y->producer, "mode", modes[net_random(2) * 2]));
    return y;
}

static qn_tensor *slice(const source *f)
{
    const int64_t starts[3] = {1, -1, 0}, ends[3] = {f->dims[1], INT64_MIN, 5};
    const int64_t axes[3] = {1, 2, 3}, steps[3] = {1, -2, 2};
    return NODE(f->b, SLICE, "y", f->x, whole_numbers(f, "starts", 3, starts),
                whole_numbers(f, "ends", 3, ends), whole_numbers(f, "axes", 3, axes),
                whole_numbers(f, "steps", 3, steps));
}

static qn_tensor *gather(const source *f)
{
    const int64_t axis = (int64_t)net_random(3) + 1, at[3] = {f->dims[axis] - 1, 0, -2};
    qn_tensor *const y = NODE(f->b, GATHER, "y", f->x, whole_numbers(f, "at", 3, at));
    set_int(f->b, y, "axis", axis);
    return y;
}

static qn_tensor *split(const source *f)
{
    const int64_t axis = (int64_t)net_random(3) + 1, sizes[2] = {1, f->dims[axis] - 1};
    qn_node *const node = qn__graph_add_node(f->b->graph, SIZE_MAX, QN_OP_SPLIT, "y", 2, 2);
    node->inputs[0] = f->x;
    node->inputs[1] = whole_numbers(f, "sizes", 2, sizes);
    for (uint32_t i = 0; i < 2; i++)
        qn__node_set_output(node, i,
                            qn__graph_add_tensor(f->b->graph, i == 0 ? "first" : "y", f->x->type));
    set_int(f->b, node->outputs[0], "axis", axis);
    return node->outputs[1];
}

static qn_tensor *tile(const source *f)
{
    const int64_t times[4] = {1, 2, 1, 3};
    return NODE(f->b, TILE, "y", f->x, whole_numbers(f, "times", 4, times));
}

static qn_tensor *expand(const source *f)
{
    const int64_t to[5] = {3, 1, 1, 1, 1};
    return NODE(f->b, EXPAND, "y", f->x, whole_numbers(f, "to", 5, to));
}

static qn_tensor *depth_to_space(const source *f)
{
    qn_tensor *const y = NODE(f->b, DEPTH_TO_SPACE, "y", f->x);
    set_int(f->b, y, "blocksize", 2);
    assert_true(
        qn__node_set_string(f->b->graph, y->producer, "mode", net_random(2) != 0 ? "CRD" : "DCR"));
    return y;
}

static qn_tensor *space_to_depth(const source *f)
{
    qn_tensor *const y = NODE(f->b, SPACE_TO_DEPTH, "y", f->x);
    set_int(f->b, y, "blocksize", 2);
    return y;
}

static qn_tensor *reduce(const source *f)
{
    static const int64_t axes[4][2] = {{2, 3}, {1, 2}, {1, 3}, {0, 1}};
    qn_tensor *const list = whole_numbers(f, "axes", 2, axes[net_random(4)]);
    qn_tensor *const y = net_random(2) != 0 ? NODE(f->b, REDUCE_MAX, "y", f->x, list)
                                            : NODE(f->b, REDUCE_MIN, "y", f->x, list);
    set_int(f->b, y, "keepdims", net_random(2));
    return y;
}

static qn_tensor *arg_max(const source *f)
{
    qn_tensor *const y = NODE(f->b, ARG_MAX, "y", f->x);
    set_int(f->b, y, "axis", (int64_t)net_random(3) + 1);
    set_int(f->b, y, "select_last_index", net_random(2));
    return y;
}

static qn_tensor *global_max(const source *f)
{
    return NODE(f->b, GLOBAL_MAX_POOL, "y", f->x);
}

static qn_tensor *flatten(const source *f)
{
    qn_tensor *const y = NODE(f->b, FLATTEN, "y", f->x);
    set_int(f->b, y, "axis", (int64_t)net_random(4));
    return y;
}

static qn_tensor *leaky(const source *f)
{
    return NODE(f->b, LEAKY_RELU, "y", f->x);
}

static qn_tensor *resize(const source *f)
{
    static const char *const coordinates[] = {"half_pixel", "asymmetric", "align_corners"};
    const int64_t sizes[4] = {f->dims[0], f->dims[1], between(1, 17), between(1, 17)};
    qn_tensor *const y =
        NODE(f->b, RESIZE, "y", f->x, NULL, NULL, whole_numbers(f, "sizes", 4, sizes));
    qn_node *const node = y->producer;
    assert_true(qn__node_set_string(f->b->graph, node, "coordinate_transformation_mode",
                                    coordinates[net_random(3)]));
    if (net_random(3) != 0)
        assert_true(qn__node_set_string(f->b->graph, node, "mode", "linear"));
    set_int(f->b, y, "truncates", net_random(2));
    return y;
}

static const struct {
    const char *name;
    qn_tensor *(*make)(const source *from);
} OPERATORS[] = {
    {"Transpose", transpose},
    {"Pad", pad},
    {"Slice", slice},
    {"Gather", gather},
    {"Split", split},
    {"Tile", tile},
    {"Expand", expand},
    {"DepthToSpace", depth_to_space},
    {"SpaceToDepth", space_to_depth},
    {"ReduceMax", reduce},
    {"ArgMax", arg_max},
    {"GlobalMaxPool", global_max},
    {"Flatten", flatten},
    {"LeakyRelu", leaky},
    {"Resize", resize},
};

static void bytes_do_not_depend_on_the_machine(void **state)
{
    (void)state;
    static const uint32_t threads[] = {1, 2, 3};
    for (size_t i = 0; i < sizeof(OPERATORS) / sizeof(OPERATORS[0]) * ROUNDS; i++) {
        sample *const s = sample_start(i * 9973 + 17);
        source from = {&s->n->b, s, NULL, {between(1, 2), 4 * between(1, 20), 6, 8}};
        from.x = bytes_into(s, s->x, 4, from.dims, 0.05f);
        qn_tensor *const y = OPERATORS[i / ROUNDS].make(&from);
        y->type =
            y->producer->op == QN_OP_ARG_MAX ? qn_type_plain_make(QN_DTYPE_I64) : from.x->type;
        s->y = y;
        build_output(&s->n->b, y);
        size_t bytes = 0;
        char kernel[64];
        uint8_t *const expected = q8_reference(s, true, &bytes, kernel);
        bool varies = false;
        for (size_t k = 1; k < bytes; k++)
            varies |= expected[k] != expected[0];
        if (!varies && bytes > 1)
            fail_msg("%s: all bytes are %d", OPERATORS[i / ROUNDS].name, expected[0]);
        q8_expect(s, i, expected, bytes, threads, 3, false);
        free(expected);
        sample_free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bytes_do_not_depend_on_the_machine)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
