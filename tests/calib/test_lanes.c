/* Samples of different shapes: plans come and go with them, and any allocation may fail. */
#include "calib/lanes.h"
#include "data/data_fixture.h"
#include "fault/fault.h"

#include <sys/stat.h>

enum { SAMPLES = 12 };

/* Sample i has 2 + i % 5 numbers, all of them i. */
static void put_samples(const data_fixture *f)
{
    char path[640];
    for (int i = 0; i < SAMPLES; i++) {
        snprintf(path, sizeof(path), "%s/s%02d", f->folder, i);
        mkdir(path, 0777);
        snprintf(path, sizeof(path), "%s/s%02d/input.json", f->folder, i);
        FILE *json = fopen(path, "w");
        assert_non_null(json);
        fprintf(json, "{\"inputs\": [{\"name\": \"x\", \"shape\": [1, %d]}]}", 2 + i % 5);
        fclose(json);
        snprintf(path, sizeof(path), "%s/s%02d/x.txt", f->folder, i);
        FILE *text = fopen(path, "w");
        assert_non_null(text);
        for (int k = 0; k < 2 + i % 5; k++)
            fprintf(text, "%d\n", i);
        fclose(text);
    }
}

static void drop_samples(const data_fixture *f)
{
    char path[640];
    for (int i = 0; i < SAMPLES; i++) {
        snprintf(path, sizeof(path), "%s/s%02d/input.json", f->folder, i);
        unlink(path);
        snprintf(path, sizeof(path), "%s/s%02d/x.txt", f->folder, i);
        unlink(path);
        snprintf(path, sizeof(path), "%s/s%02d", f->folder, i);
        rmdir(path);
    }
}

/* y = relu(x) for x of [1, ?] */
static qn_status make_graph(const qn_context *ctx, qn_graph **out, qn_error *error)
{
    qn_graph *g = NULL;
    const int64_t dims[2] = {1, 1};
    QN_TRY(qn__graph_create(ctx, &g, error));
    const qn_type plain = qn_type_plain_make(QN_DTYPE_F32);
    qn_tensor *x = qn__graph_add_tensor(g, "x", plain), *y = qn__graph_add_tensor(g, "y", plain);
    qn_node *node = qn__graph_add_node(g, SIZE_MAX, QN_OP_RELU, "relu", 1, 1);
    g->inputs = qn__arena_calloc(&g->arena, 1, sizeof(*g->inputs));
    g->outputs = qn__arena_calloc(&g->arena, 1, sizeof(*g->outputs));
    if (x == NULL || y == NULL || node == NULL || g->inputs == NULL || g->outputs == NULL) {
        qn__graph_destroy(g);
        return QN_NOMEM(error);
    }
    qn__tensor_set_shape(x, 2, dims);
    x->dims[1] = qn_dim_unknown();
    node->inputs[0] = x;
    qn__node_set_output(node, 0, y);
    g->inputs[0] = x;
    g->outputs[0] = y;
    g->n_inputs = g->n_outputs = 1;
    *out = g;
    return QN_OK;
}

static qn_status run_all(const qn_graph *graph, const qn_dataset *dataset, qn_error *error)
{
    qn_plans *plans = NULL;
    qn_lane lanes[2] = {{0}, {0}};
    qn_plan_options options;
    qn_status status = QN_OK;
    size_t last = SIZE_MAX, changes = 0;
    qn__plan_options_init(&options, graph->ctx);
    QN_TRY(qn__plans_create(graph, dataset, &options, 2, &plans, error));
    for (size_t k = 0; k < 2; k++)
        QN_TRY_GOTO(qn__lane_init(&lanes[k], plans, NULL, NULL, NULL, error));
    for (size_t i = 0; i < 2 * SAMPLES; i++) {
        qn_lane *lane = &lanes[i % 2];
        const size_t n = i < SAMPLES ? i : qn__dataset_nth(dataset, i - SAMPLES);
        const size_t shape = qn__dataset_shape_of(dataset, n);
        changes += i >= SAMPLES && shape != last;
        last = shape;
        QN_TRY_GOTO(qn__lane_load(lane, n, error));
        QN_TRY_GOTO(qn__exec_run(lane->exec, lane->feed.pointers, error));
        const qn_view *y = qn__exec_output(lane->exec, 0);
        assert_int_equal(y->count, 2 + n % 5);
        for (size_t v = 0; v < y->count; v++)
            assert_true(((const float *)y->data)[v] == (float)n);
    }
    assert_int_equal(changes, 5); /* shapes lie side by side */
done:
    for (size_t k = 0; k < 2; k++)
        qn__lane_free(&lanes[k]);
    qn__plans_destroy(plans);
    return status;
}

static qn_status scenario(const qn_context *ctx, const char *folder, qn_error *error)
{
    static const qn_input_spec spec = {"x", 2, {1, -1}, false, 0};
    qn_dataset_options o;
    qn_dataset *dataset = NULL;
    qn_graph *graph = NULL;
    qn_status status;
    qn_dataset_options_init(&o);
    o.sequences_dir = folder;
    QN_TRY_GOTO(qn__dataset_create(ctx, &spec, 1, &o, &dataset, error));
    assert_int_equal(qn__dataset_n_shapes(dataset), 5);
    assert_int_equal(qn_dataset_sample_count(dataset, 0), 6);
    for (size_t i = 0; i < SAMPLES; i++) {
        uint32_t rank;
        int64_t dims[QN_MODEL_MAX_RANK];
        assert_true(qn_dataset_sample_dims(dataset, i, 0, &rank, dims));
        assert_int_equal(rank, 2);
        assert_int_equal(dims[1], 2 + i % 5);
        assert_false(qn_dataset_sample_dims(dataset, i, 1, &rank, dims));
    }
    QN_TRY_GOTO(make_graph(ctx, &graph, error));
    status = run_all(graph, dataset, error);
done:
    qn__graph_destroy(graph);
    qn_dataset_destroy(dataset);
    return status;
}

static qn_status run_with(fault *failing, const char *folder, qn_error *error)
{
    qn_context_options options;
    qn_context *ctx = NULL;
    const qn_allocator allocator = fault_allocator(failing);
    qn_context_options_init(&options);
    options.allocator = &allocator;
    options.n_threads = 1;
    qn_status status = qn_context_create(&options, &ctx, error);
    if (status == QN_OK)
        status = scenario(ctx, folder, error);
    qn_context_destroy(ctx);
    assert_int_equal(failing->live, 0);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    data_fixture *f = *state;
    put_samples(f);
    for (int persistent = 0; persistent < 2; persistent++)
        for (uint64_t n = 1;; n++) {
            fault failing = {.fail_at = n, .persistent = persistent != 0};
            const qn_status status = run_with(&failing, f->folder, &f->error);
            if (failing.calls < n) {
                assert_int_equal(status, QN_OK);
                assert_true(n > 100);
                break;
            }
            if (status != QN_OK && status != QN_NO_MEMORY)
                fail_msg("allocation %llu: %s", (unsigned long long)n, f->error.message);
        }
    drop_samples(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_allocation_may_fail, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
