/* The whole run on a small network built in memory: what becomes integer, the types it gets, the
 * simulated accuracy, and recipes that give the same result again. */
#include "core/strbuf.h"
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

enum { SIZE = 12, CHANNELS = 3, SAMPLES = 9, CLASSES = 10 };

typedef struct fixture {
    char dir[64], data[128], recipe[128];
    qn_context *ctx;
    qn_model *model;
    qn_dataset *dataset;
} fixture;

static uint64_t rng_state;

static float uniform(float lo, float hi)
{
    rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
    return lo + (hi - lo) * (float)((rng_state >> 33) & 0xFFFFFF) / 16777216.0f;
}

static qn_tensor *constant(qn_graph *g, const char *name, size_t rank, const int64_t *dims,
                           float reach)
{
    size_t count = 1;
    void *data;
    for (size_t i = 0; i < rank; i++)
        count *= (size_t)dims[i];
    qn_blob *blob = qn__blob_create(g->ctx, count * sizeof(float), &data);
    assert_non_null(blob);
    for (size_t i = 0; i < count; i++)
        ((float *)data)[i] = uniform(-reach, reach);
    qn_tensor *t =
        qn__graph_add_constant(g, name, qn_type_plain_make(QN_DTYPE_F32), rank, dims, blob);
    qn__blob_unref(blob);
    return t;
}

static qn_node *node(qn_graph *g, qn_op op, const char *name, uint32_t n_inputs, const char *out)
{
    qn_node *n = qn__graph_add_node(g, SIZE_MAX, op, name, n_inputs, 1);
    qn__node_set_output(n, 0, qn__graph_add_tensor(g, out, qn_type_plain_make(QN_DTYPE_F32)));
    return n;
}

static qn_tensor *conv(qn_graph *g, const char *name, qn_tensor *x, int64_t cout, int64_t cin,
                       int64_t kernel, int64_t group, const char *out)
{
    char w[64], b[64];
    const int64_t dims[4] = {cout, cin / group, kernel, kernel},
                  pads[4] = {kernel / 2, kernel / 2, kernel / 2, kernel / 2};
    (void)snprintf(w, sizeof(w), "%s_w", name);
    (void)snprintf(b, sizeof(b), "%s_b", name);
    qn_node *n = node(g, QN_OP_CONV, name, 3, out);
    n->inputs[0] = x;
    n->inputs[1] = constant(g, w, 4, dims, 0.5f);
    n->inputs[2] = constant(g, b, 1, dims, 0.3f);
    assert_true(qn__node_set_ints(g, n, "pads", pads, 4));
    assert_true(qn__node_set_int(g, n, "group", group));
    return n->outputs[0];
}

static qn_tensor *unary(qn_graph *g, qn_op op, qn_tensor *x, const char *out)
{
    qn_node *n = node(g, op, out, 1, out);
    n->inputs[0] = x;
    return n->outputs[0];
}

/* conv-relu-maxpool, depthwise-relu, two 1x1 branches joined by Concat, residual Add, global
 * average, Flatten, Gemm, Softmax. */
static qn_graph *build(const qn_context *ctx)
{
    qn_graph *g;
    assert_int_equal(qn__graph_create(ctx, &g, NULL), QN_OK);
    rng_state = 42;
    qn_tensor *x = qn__graph_add_tensor(g, "image", qn_type_plain_make(QN_DTYPE_F32));
    qn__tensor_set_shape(x, 4, (const int64_t[]){1, CHANNELS, SIZE, SIZE});
    g->inputs = qn__arena_calloc(&g->arena, 1, sizeof(*g->inputs));
    g->inputs[0] = x;
    g->n_inputs = 1;
    qn_tensor *t = conv(g, "first", x, 8, CHANNELS, 3, 1, "first_out");
    t = unary(g, QN_OP_RELU, t, "first_relu");
    qn_node *pool = node(g, QN_OP_MAX_POOL, "pool", 1, "pooled");
    pool->inputs[0] = t;
    assert_true(qn__node_set_ints(g, pool, "kernel_shape", (const int64_t[]){2, 2}, 2));
    assert_true(qn__node_set_ints(g, pool, "strides", (const int64_t[]){2, 2}, 2));
    qn_tensor *pooled = pool->outputs[0];
    t = conv(g, "depthwise", pooled, 8, 8, 3, 8, "depthwise_out");
    t = unary(g, QN_OP_RELU, t, "depthwise_relu");
    qn_tensor *left = conv(g, "left", t, 4, 8, 1, 1, "left_out");
    qn_tensor *right = conv(g, "right", t, 4, 8, 1, 1, "right_out");
    qn_node *cat = node(g, QN_OP_CONCAT, "concat", 2, "joined");
    cat->inputs[0] = left;
    cat->inputs[1] = right;
    assert_true(qn__node_set_int(g, cat, "axis", 1));
    qn_node *add = node(g, QN_OP_ADD, "add", 2, "sum");
    add->inputs[0] = cat->outputs[0];
    add->inputs[1] = pooled;
    t = unary(g, QN_OP_GLOBAL_AVERAGE_POOL, add->outputs[0], "mean");
    t = unary(g, QN_OP_FLATTEN, t, "flat");
    qn_node *gemm = node(g, QN_OP_GEMM, "classify", 3, "scores");
    gemm->inputs[0] = t;
    gemm->inputs[1] = constant(g, "classify_w", 2, (const int64_t[]){CLASSES, 8}, 1.0f);
    gemm->inputs[2] = constant(g, "classify_b", 1, (const int64_t[]){CLASSES}, 0.1f);
    assert_true(qn__node_set_int(g, gemm, "transB", 1));
    t = unary(g, QN_OP_SOFTMAX, gemm->outputs[0], "probabilities");
    g->outputs = qn__arena_calloc(&g->arena, 1, sizeof(*g->outputs));
    g->outputs[0] = t;
    g->n_outputs = 1;
    qn_error error = {0};
    if (qn__graph_infer(g, &error) != QN_OK || qn__graph_verify(g, &error) != QN_OK)
        fail_msg("%s", error.message);
    return g;
}

static void open_context(fixture *f, uint32_t n_threads)
{
    qn_error error = {0};
    qn_context_options options;
    qn_context_options_init(&options);
    options.n_threads = n_threads;
    assert_int_equal(qn_context_create(&options, &f->ctx, &error), QN_OK);
    assert_int_equal(qn__model_create(f->ctx, build(f->ctx), "small.onnx", 0, &f->model, &error),
                     QN_OK);
    qn_dataset_options d;
    qn_dataset_options_init(&d);
    d.data_file = f->data;
    d.raw_type = "f32";
    d.raw_shape = "3,12,12";
    if (qn_dataset_create(f->ctx, f->model, &d, &f->dataset, &error) != QN_OK)
        fail_msg("%s", error.message);
}

static void close_context(fixture *f)
{
    qn_dataset_destroy(f->dataset);
    qn_model_destroy(f->model);
    qn_context_destroy(f->ctx);
}

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof(*f));
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/quench-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->data, sizeof(f->data), "%s/data.raw", f->dir);
    (void)snprintf(f->recipe, sizeof(f->recipe), "%s/recipe.json", f->dir);
    FILE *file = fopen(f->data, "wb");
    assert_non_null(file);
    rng_state = 77;
    for (size_t i = 0; i < (size_t)SAMPLES * CHANNELS * SIZE * SIZE; i++) {
        const float v = uniform(-1, 1) + sinf((float)i * 0.05f);
        assert_int_equal(fwrite(&v, sizeof(v), 1, file), 1);
    }
    assert_int_equal(fclose(file), 0);
    open_context(f, 1);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    close_context(f);
    (void)unlink(f->data);
    (void)unlink(f->recipe);
    (void)rmdir(f->dir);
    free(f);
    return 0;
}

static void run_ok(const fixture *f, const qn_quantize_options *options, const qn_dataset *dataset,
                   qn_model **quantized, qn_report **report)
{
    qn_error error = {0};
    if (qn_quantize(f->model, dataset, options, quantized, report, &error) != QN_OK)
        fail_msg("%s", error.message);
    assert_int_equal(qn__graph_verify((*quantized)->graph, &error), QN_OK);
}

static void run_fails(const fixture *f, const qn_quantize_options *options,
                      const qn_dataset *dataset, qn_status status, const char *text)
{
    qn_error error = {0};
    qn_model *quantized = NULL;
    assert_int_equal(qn_quantize(f->model, dataset, options, &quantized, NULL, &error), status);
    assert_null(quantized);
    if (strstr(error.message, text) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", text, error.message);
}

/* Everything a graph says, constants' bytes included. */
static char *fingerprint(const qn_model *model)
{
    qn_strbuf out;
    qn__strbuf_init(&out, model->ctx, (size_t)1 << 24);
    qn__graph_dump(model->graph, &out);
    for (size_t i = 0; i < model->graph->n_tensors; i++) {
        const qn_tensor *t = model->graph->tensors[i];
        qn__strbuf_printf(&out, "%s", t->name);
        for (size_t k = 0; t->constant != NULL && k < t->constant->size_bytes; k++)
            qn__strbuf_printf(&out, " %u", t->constant->data[k]);
        for (size_t k = 0; t->type.kind == QN_TYPE_QUANT && k < t->type.quant->n_scales; k++)
            qn__strbuf_printf(&out, " %a %d", (double)t->type.quant->scales[k],
                              t->type.quant->zero_points ? t->type.quant->zero_points[k] : 0);
    }
    assert_false(out.failed);
    return out.data;
}

static const qn_tensor *tensor(const qn_model *m, const char *name)
{
    const qn_tensor *t = qn__graph_find_tensor(m->graph, name);
    assert_non_null(t);
    return t;
}

static qn_report_node find_node(const qn_report *r, const char *name)
{
    qn_report_node n;
    for (size_t i = 0; qn_report_node_at(r, i, &n); i++)
        if (strcmp(n.name, name) == 0)
            return n;
    fail_msg("no node %s", name);
    return n;
}

static void types_are_the_target_s(void **state)
{
    const fixture *f = *state;
    qn_quantize_options o;
    qn_quantize_options_init(&o);
    qn_model *q = NULL;
    qn_report *r = NULL;
    o.features = "minmax";
    run_ok(f, &o, f->dataset, &q, &r);
    const qn_tensor *relu = tensor(q, "first_relu"), *w = tensor(q, "first_w");
    const qn_tensor *b = tensor(q, "first_b"), *x = tensor(q, "image_quantized");
    assert_int_equal(relu->type.kind, QN_TYPE_QUANT);
    assert_int_equal(relu->type.dtype, QN_DTYPE_U8);
    assert_int_equal(relu->type.quant->zero_points[0], 0); /* so that the Relu is absorbed */
    assert_int_equal(w->type.dtype, QN_DTYPE_I8);
    assert_int_equal(w->type.quant->axis, 0);
    assert_int_equal(w->type.quant->n_scales, 8);
    assert_int_equal(b->type.dtype, QN_DTYPE_I32);
    for (size_t c = 0; c < 8; c++)
        assert_true(b->type.quant->scales[c] ==
                    x->type.quant->scales[0] * w->type.quant->scales[c]);
    /* pooling passes values through; Concat's inputs and output agree */
    assert_true(tensor(q, "pooled")->type.quant->scales[0] == relu->type.quant->scales[0]);
    assert_true(tensor(q, "left_out")->type.quant->scales[0] ==
                tensor(q, "joined")->type.quant->scales[0]);
    /* the softmax only feeds the output, which keeps its name and type */
    assert_int_equal(tensor(q, "probabilities")->type.kind, QN_TYPE_PLAIN);
    assert_false(find_node(r, "probabilities").quantized);
    assert_non_null(find_node(r, "probabilities").reason);
    assert_true(find_node(r, "classify").quantized);
    assert_int_equal(find_node(r, "first").macs, 8 * CHANNELS * 9 * SIZE * SIZE);
    assert_int_equal(find_node(r, "depthwise").weight_bits, 8);
    qn_report_destroy(r);
    qn_model_destroy(q);
}

static void other_targets_choose_other_types(void **state)
{
    const fixture *f = *state;
    qn_quantize_options o;
    qn_quantize_options_init(&o);
    qn_model *q = NULL;
    qn_report *r = NULL;
    o.target = "onnxruntime-arm";
    run_ok(f, &o, f->dataset, &q, &r);
    assert_int_equal(tensor(q, "first_relu")->type.dtype, QN_DTYPE_I8);
    assert_int_equal(tensor(q, "first_relu")->type.quant->zero_points[0], -128);
    qn_report_destroy(r);
    qn_model_destroy(q);
    o.target = "tensorrt";
    run_ok(f, &o, f->dataset, &q, &r);
    assert_int_equal(tensor(q, "joined")->type.dtype, QN_DTYPE_I8);
    assert_int_equal(tensor(q, "joined")->type.quant->zero_points[0], 0);
    assert_int_equal(tensor(q, "first_b")->type.dtype, QN_DTYPE_F32);
    qn_report_destroy(r);
    qn_model_destroy(q);
}

static void simulation_stays_close_to_float(void **state)
{
    const fixture *f = *state;
    for (size_t k = 0; qn_feature_method_name(k) != NULL; k++) {
        qn_quantize_options o;
        qn_quantize_options_init(&o);
        qn_model *q = NULL;
        qn_report *r = NULL;
        qn_comparison *c = NULL;
        qn_error error = {0};
        o.features = qn_feature_method_name(k);
        run_ok(f, &o, f->dataset, &q, &r);
        if (qn_compare(f->model, q, f->dataset, &c, &error) != QN_OK)
            fail_msg("%s", error.message);
        qn_compare_row row;
        size_t rows = 0;
        double last = -1e9;
        for (; qn_comparison_row(c, rows, &row); rows++) {
            if (row.cosine < 0.98 || row.sqnr_db < last)
                fail_msg("%s: %s cosine %g sqnr %g", o.features, row.name, row.cosine, row.sqnr_db);
            last = row.sqnr_db;
        }
        assert_true(rows >= 10);
        qn_comparison_destroy(c);
        qn_report_destroy(r);
        qn_model_destroy(q);
    }
}

static void recipe_replays_to_identical_bytes_without_data(void **state)
{
    const fixture *f = *state;
    qn_quantize_options o, replay;
    qn_quantize_options_init(&o);
    qn_quantize_options_init(&replay);
    const qn_override overrides[] = {{"right", "weights", "max_abs"},
                                     {"op:Add", "skip", ""},
                                     {"pooled", "features", "percentile"},
                                     {"/^depth.*relu$/", "range", "0:1.5"}};
    o.overrides = overrides;
    o.n_overrides = 4;
    o.features = "kl";
    o.bias_correction = "on";
    qn_model *q = NULL, *again = NULL;
    qn_report *r = NULL, *r2 = NULL;
    run_ok(f, &o, f->dataset, &q, &r);
    assert_false(find_node(r, "add").quantized);
    assert_true(fabsf(tensor(q, "depthwise_relu_equalized")->type.quant->scales[0] -
                      1.5f / 255.0f) < 1e-8f);
    assert_int_equal(qn_text_save(f->ctx, f->recipe, qn_report_recipe(r), NULL), QN_OK);
    replay.recipe_file = f->recipe;
    run_ok(f, &replay, NULL, &again, &r2);
    char *a = fingerprint(q), *b = fingerprint(again);
    assert_string_equal(a, b);
    assert_string_equal(qn_report_recipe(r), qn_report_recipe(r2));
    qn__free(f->ctx, a);
    qn__free(f->ctx, b);
    qn_report_destroy(r);
    qn_report_destroy(r2);
    qn_model_destroy(q);
    qn_model_destroy(again);
}

static void threads_do_not_show_in_the_result(void **state)
{
    fixture *f = *state;
    for (size_t k = 0; qn_feature_method_name(k) != NULL; k++) {
        char *first = NULL, *first_recipe = NULL;
        for (uint32_t threads = 1; threads <= 4; threads += 3) {
            fixture other = *f;
            open_context(&other, threads);
            qn_quantize_options o;
            qn_quantize_options_init(&o);
            o.features = qn_feature_method_name(k);
            o.batch = 2;
            qn_model *q = NULL;
            qn_report *r = NULL;
            run_ok(&other, &o, other.dataset, &q, &r);
            char *print = fingerprint(q);
            if (first == NULL) {
                first = strdup(print);
                first_recipe = strdup(qn_report_recipe(r));
            } else {
                assert_string_equal(first, print);
                assert_string_equal(first_recipe, qn_report_recipe(r));
            }
            qn__free(other.ctx, print);
            qn_report_destroy(r);
            qn_model_destroy(q);
            close_context(&other);
        }
        free(first);
        free(first_recipe);
    }
}

static void write_recipe(const fixture *f, const char *text)
{
    assert_int_equal(qn_text_save(f->ctx, f->recipe, text, NULL), QN_OK);
}

static void wrong_requests_are_named(void **state)
{
    const fixture *f = *state;
    qn_quantize_options o;
    qn_override over = {"nobody", "skip", ""};
    qn_quantize_options_init(&o);
    o.overrides = &over;
    o.n_overrides = 1;
    run_fails(f, &o, f->dataset, QN_INVALID_ARGUMENT, "nobody");
    over = (qn_override){"/(/", "skip", ""};
    run_fails(f, &o, f->dataset, QN_INVALID_ARGUMENT, "/(/");
    over = (qn_override){"first", "colour", "red"};
    run_fails(f, &o, f->dataset, QN_INVALID_ARGUMENT, "colour");
    over = (qn_override){"first_relu", "range", "1:0"};
    run_fails(f, &o, f->dataset, QN_INVALID_ARGUMENT, "range=1:0");
    o.n_overrides = 0;
    o.features = "magic";
    run_fails(f, &o, f->dataset, QN_INVALID_ARGUMENT, "magic");
    o.features = NULL;
    o.granularity = "row";
    run_fails(f, &o, f->dataset, QN_INVALID_ARGUMENT, "row");
    o.granularity = NULL;
    run_fails(f, &o, NULL, QN_INVALID_ARGUMENT, "no calibration data");
    o.recipe_file = f->recipe;
    write_recipe(f, "{\"recipe\": 1, \"colour\": 3}");
    run_fails(f, &o, f->dataset, QN_INVALID_ARGUMENT, "colour");
    write_recipe(f, "{\"recipe\": 1, \"ranges\": {\"nobody\": [0, 1]}}");
    run_fails(f, &o, f->dataset, QN_INVALID_ARGUMENT, "nobody");
    write_recipe(f, "{\"recipe\": 1, \"ranges\": {\"first_relu\": [2, 1]}}");
    run_fails(f, &o, f->dataset, QN_CORRUPT, "first_relu");
    write_recipe(f, "{\"recipe\": 1,,}");
    run_fails(f, &o, f->dataset, QN_CORRUPT, "recipe.json:1:");
}

static void strict_names_what_stays_in_float(void **state)
{
    const fixture *f = *state;
    qn_quantize_options o;
    const qn_override over = {"left", "skip", ""};
    qn_quantize_options_init(&o);
    o.overrides = &over;
    o.n_overrides = 1;
    o.strict = true;
    run_fails(f, &o, f->dataset, QN_UNSUPPORTED, "left");
}

static void outputs_of(const fixture *f, qn_graph *graph, float *out)
{
    qn_error error = {0};
    qn_model *model = NULL;
    qn_session *session = NULL;
    float sample[CHANNELS * SIZE * SIZE];
    float *const dst[] = {sample};
    const float *const src[] = {sample};
    assert_int_equal(qn__model_create(f->ctx, graph, "", 0, &model, &error), QN_OK);
    if (qn_session_create(model, NULL, &session, &error) != QN_OK)
        fail_msg("%s", error.message);
    for (size_t i = 0; i < SAMPLES; i++) {
        size_t count;
        assert_int_equal(qn_dataset_load(f->dataset, i, dst, NULL), QN_OK);
        assert_int_equal(qn_session_run(session, src, NULL), QN_OK);
        const float *values = qn_session_output(session, 0, &count);
        assert_int_equal(count, CLASSES);
        memcpy(out + i * CLASSES, values, count * sizeof(float));
    }
    qn_session_destroy(session);
    qn_model_destroy(model);
}

static void equalizing_keeps_float_outputs_to_the_bit(void **state)
{
    const fixture *f = *state;
    qn_graph *plain, *scaled;
    uint32_t *ids;
    qn_ranges ranges = {0};
    qn_calib_options o = {.batch = 1};
    static float before[SAMPLES * CLASSES], after[SAMPLES * CLASSES];
    assert_int_equal(qn__model_simplified(f->model->graph, &plain, NULL), QN_OK);
    assert_int_equal(qn__graph_clone(plain, &scaled, NULL), QN_OK);
    assert_int_equal(qn__equalize_candidates(scaled, &ids, &o.n_means, NULL), QN_OK);
    assert_true(o.n_means > 0);
    o.mean_ids = ids;
    o.want_peaks = true;
    assert_int_equal(qn__calibrate(scaled, f->dataset, &o, &ranges, NULL), QN_OK);
    qn_equalization list = {qn__calloc(f->ctx, scaled->n_nodes, sizeof(int32_t *)),
                            qn__calloc(f->ctx, scaled->n_nodes, sizeof(size_t))};
    assert_int_equal(qn__equalize(scaled, ranges.peaks, &list, NULL), QN_OK);
    size_t changed = 0;
    for (size_t n = 0; n < scaled->n_nodes; n++)
        for (size_t c = 0; c < list.n_exponents[n]; c++)
            changed += list.exponents[n][c] != 0;
    assert_true(changed > 0);
    assert_non_null(qn__graph_find_tensor(scaled, "depthwise_relu_equalized"));
    qn__free(f->ctx, list.exponents);
    qn__free(f->ctx, list.n_exponents);
    qn__free(f->ctx, ids);
    qn__ranges_free(&ranges);
    outputs_of(f, plain, before); /* owns the graphs from here on */
    outputs_of(f, scaled, after);
    assert_memory_equal(before, after, sizeof(before));
}

static bool stop_early(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    (void)phase;
    assert_true(total >= SAMPLES);
    *(uint64_t *)arg = done;
    return done < 3;
}

static void progress_can_cancel(void **state)
{
    const fixture *f = *state;
    qn_quantize_options o;
    uint64_t seen = 0;
    qn_quantize_options_init(&o);
    o.progress = stop_early;
    o.progress_ctx = &seen;
    run_fails(f, &o, f->dataset, QN_CANCELLED, "cancelled");
    assert_int_equal(seen, 3);
}

static void unlike_concat_inputs_are_kept_apart(void **state)
{
    const fixture *f = *state;
    qn_quantize_options o;
    const qn_override over[] = {{"left_out", "range", "-0.1:0.1"}, {"right_out", "range", "-8:8"}};
    qn_quantize_options_init(&o);
    o.overrides = over;
    o.n_overrides = 2;
    qn_model *q = NULL;
    qn_report *r = NULL;
    run_ok(f, &o, f->dataset, &q, &r);
    assert_true(tensor(q, "left_out")->type.quant->scales[0] <
                tensor(q, "right_out")->type.quant->scales[0] / 50);
    assert_non_null(qn_report_note(r, 0));
    assert_non_null(strstr(qn_report_note(r, 0), "concat"));
    qn_report_destroy(r);
    qn_model_destroy(q);
}

static void incomplete_overrides_are_refused(void **state)
{
    const fixture *f = *state;
    const qn_override over[] = {
        {NULL, "features", "kl"}, {"/.*/", NULL, "kl"}, {"/.*/", "features", NULL}};
    for (size_t i = 0; i < 3; i++) {
        qn_quantize_options o;
        qn_error error = {0};
        qn_model *q = NULL;
        qn_quantize_options_init(&o);
        o.overrides = &over[i];
        o.n_overrides = 1;
        assert_int_equal(qn_quantize(f->model, f->dataset, &o, &q, NULL, &error),
                         QN_INVALID_ARGUMENT);
        assert_string_equal(error.message, "override 0: pattern, key or value is missing");
        assert_int_equal(qn_stats_collect(f->model, f->dataset, &o, NULL, "never", &error),
                         QN_INVALID_ARGUMENT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(incomplete_overrides_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(types_are_the_target_s, setup, teardown),
        cmocka_unit_test_setup_teardown(other_targets_choose_other_types, setup, teardown),
        cmocka_unit_test_setup_teardown(simulation_stays_close_to_float, setup, teardown),
        cmocka_unit_test_setup_teardown(recipe_replays_to_identical_bytes_without_data, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(threads_do_not_show_in_the_result, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_requests_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(strict_names_what_stays_in_float, setup, teardown),
        cmocka_unit_test_setup_teardown(equalizing_keeps_float_outputs_to_the_bit, setup, teardown),
        cmocka_unit_test_setup_teardown(progress_can_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(unlike_concat_inputs_are_kept_apart, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
