/* Channels scaled through a sum of two convolutions; and drift of the means, on a network whose
 * roundings can be told by hand. */
#include "calib/drift.h"
#include "quant/model.h"
#include "quant/quant.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SIZE = 5, CHANNELS = 4, SAMPLES = 7, VALUES = CHANNELS * SIZE * SIZE };

typedef struct fixture {
    char dir[64], data[128];
    qn_context *ctx;
    qn_graph *graph;
} fixture;

static qn_tensor *constant(qn_graph *g, const char *name, size_t rank, const int64_t *dims,
                           const float *values, size_t count)
{
    qn_blob *blob = qn__blob_copy(g->ctx, values, count * sizeof(float));
    assert_non_null(blob);
    qn_tensor *t =
        qn__graph_add_constant(g, name, qn_type_plain_make(QN_DTYPE_F32), rank, dims, blob);
    qn__blob_unref(blob);
    return t;
}

static qn_node *node(qn_graph *g, qn_op op, const char *name, uint32_t n_inputs)
{
    char out[64];
    (void)snprintf(out, sizeof(out), "%s_out", name);
    qn_node *n = qn__graph_add_node(g, SIZE_MAX, op, name, n_inputs, 1);
    qn__node_set_output(n, 0, qn__graph_add_tensor(g, out, qn_type_plain_make(QN_DTYPE_F32)));
    return n;
}

/* 1x1 convolution: weight of channel c to channel o is w[o][c], all biases are `bias`. */
static qn_tensor *conv(qn_graph *g, const char *name, qn_tensor *x, const float *w, float bias)
{
    char weights[64], biases[64];
    const float b[CHANNELS] = {bias, bias, bias, bias};
    (void)snprintf(weights, sizeof(weights), "%s_w", name);
    (void)snprintf(biases, sizeof(biases), "%s_b", name);
    qn_node *n = node(g, QN_OP_CONV, name, 3);
    n->inputs[0] = x;
    n->inputs[1] = constant(g, weights, 4, (const int64_t[]){CHANNELS, CHANNELS, 1, 1}, w,
                            (size_t)CHANNELS * CHANNELS);
    n->inputs[2] = constant(g, biases, 1, (const int64_t[]){CHANNELS}, b, CHANNELS);
    return n->outputs[0];
}

static qn_tensor *start(qn_graph *g)
{
    qn_tensor *x = qn__graph_add_tensor(g, "image", qn_type_plain_make(QN_DTYPE_F32));
    qn__tensor_set_shape(x, 4, (const int64_t[]){1, CHANNELS, SIZE, SIZE});
    g->inputs = qn__arena_calloc(&g->arena, 1, sizeof(*g->inputs));
    g->inputs[0] = x;
    g->n_inputs = 1;
    return x;
}

static void finish(qn_graph *g, qn_tensor *out)
{
    qn_error error = {0};
    g->outputs = qn__arena_calloc(&g->arena, 1, sizeof(*g->outputs));
    g->outputs[0] = out;
    g->n_outputs = 1;
    if (qn__graph_infer(g, &error) != QN_OK || qn__graph_verify(g, &error) != QN_OK)
        fail_msg("%s", error.message);
}

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof(*f));
    qn_context_options options;
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/quench-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->data, sizeof(f->data), "%s/data.raw", f->dir);
    qn_context_options_init(&options);
    options.n_threads = 3;
    assert_int_equal(qn_context_create(&options, &f->ctx, NULL), QN_OK);
    assert_int_equal(qn__graph_create(f->ctx, &f->graph, NULL), QN_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    qn__graph_destroy(f->graph);
    qn_context_destroy(f->ctx);
    (void)unlink(f->data);
    (void)rmdir(f->dir);
    free(f);
    return 0;
}

/* SAMPLES samples: value i of each is of(i). The model owns the fixture's graph from here on. */
static qn_dataset *open_data(fixture *f, float (*of)(size_t), qn_model **model)
{
    qn_error error = {0};
    qn_dataset *dataset = NULL;
    qn_dataset_options d;
    FILE *file = fopen(f->data, "wb");
    assert_non_null(file);
    for (size_t i = 0; i < (size_t)SAMPLES * VALUES; i++) {
        const float v = of(i);
        assert_int_equal(fwrite(&v, sizeof(v), 1, file), 1);
    }
    assert_int_equal(fclose(file), 0);
    qn_graph *graph = f->graph;
    f->graph = NULL;
    assert_int_equal(qn__model_create(f->ctx, graph, "small.onnx", 0, model, &error), QN_OK);
    qn_dataset_options_init(&d);
    d.data_file = f->data;
    d.raw_type = "f32";
    d.raw_shape = "4,5,5";
    if (qn_dataset_create(f->ctx, *model, &d, &dataset, &error) != QN_OK)
        fail_msg("%s", error.message);
    return dataset;
}

static float wave(size_t i)
{
    return sinf((float)i * 0.7f) + 0.4f * cosf((float)i * 2.3f);
}

static float zero(size_t i)
{
    (void)i;
    return 0;
}

static void outputs_of(const fixture *f, qn_graph *graph, const qn_dataset *dataset, float *out)
{
    qn_error error = {0};
    qn_model *model = NULL;
    qn_session *session = NULL;
    float sample[VALUES];
    float *const dst[] = {sample};
    const float *const src[] = {sample};
    assert_int_equal(qn__model_create(f->ctx, graph, "", 0, &model, &error), QN_OK);
    if (qn_session_create(model, NULL, &session, &error) != QN_OK)
        fail_msg("%s", error.message);
    for (size_t i = 0; i < SAMPLES; i++) {
        size_t count;
        assert_int_equal(qn_dataset_load(dataset, i, dst, NULL), QN_OK);
        assert_int_equal(qn_session_run(session, src, NULL), QN_OK);
        const float *values = qn_session_output(session, 0, &count);
        assert_int_equal(count, VALUES);
        memcpy(out + i * VALUES, values, count * sizeof(float));
    }
    qn_session_destroy(session);
    qn_model_destroy(model);
}

/* Channel 3 of both terms is 32 times as large as the others. */
static void build_sum(qn_graph *g)
{
    static const float one[CHANNELS * CHANNELS] = {.5f, .2f, -.1f, .1f, .1f, .4f, .2f,   -.3f,
                                                   .3f, .1f, .6f,  .2f, 16,  6,   -6.5f, 9};
    static const float two[CHANNELS * CHANNELS] = {.2f, -.2f, .4f, .1f, .3f, .4f, -.2f, .1f,
                                                   .1f, .1f,  .2f, .5f, 8,   -9,  7,    14};
    static const float reading[CHANNELS * CHANNELS] = {1, -1, 1,   .05f,  .5f, 1,   -1, .03f,
                                                       1, 1,  .5f, -.04f, -1,  .6f, 1,  .03f};
    qn_tensor *x = start(g);
    qn_tensor *a = conv(g, "one", x, one, 0.1f);
    qn_tensor *b = conv(g, "two", x, two, -0.1f);
    qn_node *add = node(g, QN_OP_ADD, "sum", 2);
    add->inputs[0] = a;
    add->inputs[1] = b;
    qn_node *relu = node(g, QN_OP_RELU, "relu", 1);
    relu->inputs[0] = add->outputs[0];
    finish(g, conv(g, "reading", relu->outputs[0], reading, 0.2f));
}

static size_t node_at(const qn_graph *g, const char *name)
{
    for (size_t n = 0; n < g->n_nodes; n++)
        if (strcmp(g->nodes[n]->name, name) == 0)
            return n;
    fail_msg("no node %s", name);
    return 0;
}

static void sums_scale_both_terms_and_keep_outputs(void **state)
{
    fixture *f = *state;
    qn_model *model;
    qn_graph *plain, *scaled;
    uint32_t *ids;
    qn_ranges ranges = {0};
    qn_calib_options o = {.batch = 1, .want_peaks = true};
    static float before[SAMPLES * VALUES], after[SAMPLES * VALUES];
    build_sum(f->graph);
    qn_dataset *dataset = open_data(f, wave, &model);
    assert_int_equal(qn__model_simplified(model->graph, &plain, NULL), QN_OK);
    assert_int_equal(qn__graph_clone(plain, &scaled, NULL), QN_OK);
    assert_int_equal(qn__equalize_candidates(scaled, &ids, &o.n_means, NULL), QN_OK);
    assert_int_equal(o.n_means, 3); /* both terms, the sum with its Relu */
    o.mean_ids = ids;
    assert_int_equal(qn__calibrate(scaled, dataset, &o, &ranges, NULL), QN_OK);
    qn_equalization list = {qn__calloc(f->ctx, scaled->n_nodes, sizeof(int32_t *)),
                            qn__calloc(f->ctx, scaled->n_nodes, sizeof(size_t))};
    assert_int_equal(qn__equalize(scaled, ranges.peaks, &list, NULL), QN_OK);
    const int32_t *e = list.exponents[node_at(scaled, "one")];
    assert_non_null(e);
    for (size_t c = 0; c < 3; c++)
        assert_true(e[3] >= e[c] + 2);
    assert_null(list.exponents[node_at(scaled, "two")]); /* scaled with the other */
    assert_non_null(qn__graph_find_tensor(scaled, "one_out_equalized"));
    assert_non_null(qn__graph_find_tensor(scaled, "two_out_equalized"));
    assert_non_null(qn__graph_find_tensor(scaled, "relu_out_equalized"));
    qn__free(f->ctx, list.exponents);
    qn__free(f->ctx, list.n_exponents);
    qn__free(f->ctx, ids);
    qn__ranges_free(&ranges);
    outputs_of(f, plain, dataset, before); /* owns the graphs from here on */
    outputs_of(f, scaled, dataset, after);
    assert_memory_equal(before, after, sizeof(before));
    qn_dataset_destroy(dataset);
    qn_model_destroy(model);
}

/* An image of zeros; three layers that hand their input on, the first adding 0.3. */
static void build_chain(qn_graph *g)
{
    static const float same[CHANNELS * CHANNELS] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
    qn_tensor *t = conv(g, "first", start(g), same, 0.3f);
    t = conv(g, "second", t, same, 0);
    finish(g, conv(g, "third", t, same, 0));
}

static void drift_of_a_chain(fixture *f, bool correct_second, double first, double second)
{
    qn_error error = {0};
    qn_model *model;
    build_chain(f->graph);
    qn_dataset *dataset = open_data(f, zero, &model);
    const qn_graph *g = model->graph;
    const uint32_t ids[2] = {qn__graph_find_tensor(g, "first_out")->id,
                             qn__graph_find_tensor(g, "second_out")->id};
    const double means[CHANNELS] = {(double)0.3f, (double)0.3f, (double)0.3f, (double)0.3f};
    qn_drift_grid *grids = calloc(g->n_tensors, sizeof(*grids));
    const double **all = calloc(g->n_tensors, sizeof(*all));
    uint8_t *corrected = calloc(g->next_node_id, 1);
    float **drifts = NULL;
    /* 0.3 is 0 of the first's steps of 1, and one of the second's of 0.5 */
    grids[ids[0]] = (qn_drift_grid){1.0f, 0, -128, 127};
    grids[ids[1]] = (qn_drift_grid){0.5f, 3, 0, 255};
    all[ids[0]] = all[ids[1]] = means;
    corrected[g->nodes[node_at(g, "second")]->id] = correct_second;
    const qn_drift_options o = {grids, ids, 2, corrected, (double *const *)all, 4};
    if (qn__drift(g, dataset, &o, &drifts, &error) != QN_OK)
        fail_msg("%s", error.message);
    for (size_t c = 0; c < CHANNELS; c++) {
        assert_true(fabs((double)drifts[ids[0]][c] - first) < 1e-6);
        assert_true(fabs((double)drifts[ids[1]][c] - second) < 1e-6);
    }
    assert_null(drifts[g->inputs[0]->id]);
    qn__drift_free(g, drifts);
    free(corrected);
    free((void *)all);
    free(grids);
    qn_dataset_destroy(dataset);
    qn_model_destroy(model);
}

static void what_earlier_layers_lose_is_made_up_for(void **state)
{
    drift_of_a_chain(*state, true, 0.3, -0.2);
}

static void without_correction_the_loss_goes_on(void **state)
{
    drift_of_a_chain(*state, false, 0.3, 0.3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sums_scale_both_terms_and_keep_outputs, setup, teardown),
        cmocka_unit_test_setup_teardown(what_earlier_layers_lose_is_made_up_for, setup, teardown),
        cmocka_unit_test_setup_teardown(without_correction_the_loss_goes_on, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
