/* EMA on a small document: what happens to its operators, and what lack of memory does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fault/fault.h"
#include "mnntool/tool.h"

enum { SAMPLES = 5, SIDE = 18, CHANNELS = 8, PLANE = SIDE * SIDE };
#define COMMON(field) QN_MNN_Convolution2DCommon_##field

typedef struct fixture {
    fault f;
    qn_context *ctx;
    qn_graph *graph;
    qn_dataset *dataset;
    char data[64];
    qn_mnn_config config;
    qn_mnn_run run;
    size_t lines;
} fixture;

/* --- input -> conv -> BatchNorm -> ReLU6 -> BatchNorm -> conv with ReLU6 -----------------------*/
typedef struct maker {
    qn_fb_document doc;
    qn_fb_object *ops[8];
    int32_t n; /* operator i makes tensor i */
} maker;

static qn_fb_object *add_op(maker *m, int64_t type, const char *name, int32_t record)
{
    const int32_t out = m->n, in = out - 1;
    qn_fb_object *op = qn__fb_new(&m->doc, QN_MNN_REC_Op);
    if (in >= 0)
        assert_true(qn__fb_set_vector(&m->doc, op, QN_MNN_Op_inputIndexes, &in, 1));
    assert_true(qn__fb_set_vector(&m->doc, op, QN_MNN_Op_outputIndexes, &out, 1));
    assert_true(qn__fb_set_string(&m->doc, op, QN_MNN_Op_name, name));
    qn__fb_set_int(op, QN_MNN_Op_type, type);
    qn_fb_object *main = qn__fb_new(&m->doc, record);
    qn__fb_set_union(&m->doc, op, QN_MNN_Op_main, main);
    m->ops[m->n++] = op;
    return main;
}

static void set_floats(maker *m, qn_fb_object *o, uint32_t slot, size_t n, float first, float step)
{
    float v[CHANNELS * CHANNELS * 9];
    for (size_t i = 0; i < n; i++)
        v[i] = first + step * (float)((i * 7) % 11);
    assert_true(qn__fb_set_vector(&m->doc, o, slot, v, n));
}

static void add_conv(maker *m, const char *name, int32_t inputs, int32_t kernel, bool relu6)
{
    qn_fb_object *conv = add_op(m, QN_MNN_OpType_Convolution, name, QN_MNN_REC_Convolution2D);
    qn_fb_object *common = qn__fb_new(&m->doc, QN_MNN_REC_Convolution2DCommon);
    qn__fb_set_int(common, COMMON(kernelX), kernel);
    qn__fb_set_int(common, COMMON(kernelY), kernel);
    qn__fb_set_int(common, COMMON(outputCount), CHANNELS);
    qn__fb_set_int(common, COMMON(relu6), relu6);
    qn__fb_set_table(conv, QN_MNN_Convolution2D_common, common);
    set_floats(m, conv, QN_MNN_Convolution2D_weight, (size_t)(CHANNELS * inputs * kernel * kernel),
               -0.4f, 0.08f);
    set_floats(m, conv, QN_MNN_Convolution2D_bias, CHANNELS, 0.1f, 0.02f);
}

static void add_norm(maker *m, const char *name)
{
    qn_fb_object *norm = add_op(m, QN_MNN_OpType_BatchNorm, name, QN_MNN_REC_BatchNorm);
    qn__fb_set_int(norm, QN_MNN_BatchNorm_channels, CHANNELS);
    set_floats(m, norm, QN_MNN_BatchNorm_slopeData, CHANNELS, 1.5f, 0.1f);
    set_floats(m, norm, QN_MNN_BatchNorm_biasData, CHANNELS, 0.3f, 0.1f);
    set_floats(m, norm, QN_MNN_BatchNorm_meanData, CHANNELS, -0.2f, 0.1f);
    set_floats(m, norm, QN_MNN_BatchNorm_varData, CHANNELS, 0.5f, 0.1f);
}

static qn_status read_document(const qn_context *ctx, const qn_fb_document *d, qn_graph **out)
{
    uint8_t *bytes;
    size_t size;
    qn_error error;
    assert_int_equal(qn__fb_build(d, &bytes, &size, &error), QN_OK);
    qn_blob *file = qn__blob_copy(ctx, bytes, size);
    qn__free(ctx, bytes);
    const qn_status status = qn__mnn_read(ctx, "small.mnn", file, out, &error);
    qn__blob_unref(file);
    if (status != QN_OK)
        print_message("%s\n", error.message);
    return status;
}

static void make_graph(fixture *f)
{
    static const char *const names[] = {"x", "a", "b", "c", "d", "y"};
    maker m = {.n = 0};
    assert_int_equal(qn__fb_create(f->ctx, &qn__mnn_schema, &m.doc, NULL), QN_OK);
    qn_fb_object *input = add_op(&m, QN_MNN_OpType_Input, "x", QN_MNN_REC_Input);
    assert_true(qn__fb_set_vector(&m.doc, input, QN_MNN_Input_dims,
                                  (const int32_t[]){1, 3, SIDE, SIDE}, 4));
    add_conv(&m, "first", 3, 3, false);
    add_norm(&m, "inside");
    qn_fb_object *relu6 = add_op(&m, QN_MNN_OpType_ReLU6, "relu6", QN_MNN_REC_Relu6);
    qn__fb_set_real(relu6, QN_MNN_Relu6_maxValue, 6);
    add_norm(&m, "alone");
    add_conv(&m, "last", CHANNELS, 3, true);
    assert_true(qn__fb_set_tables(&m.doc, m.doc.root, QN_MNN_Net_oplists, m.ops, (size_t)m.n));
    assert_true(qn__fb_set_strings(&m.doc, m.doc.root, QN_MNN_Net_tensorName, names, 6));
    assert_int_equal(read_document(f->ctx, &m.doc, &f->graph), QN_OK);
    qn__fb_free(&m.doc);
}

/* --- samples and the run -----------------------------------------------------------------------*/
static void make_dataset(fixture *f)
{
    float values[SAMPLES * 3 * PLANE];
    for (size_t i = 0; i < SAMPLES * 3 * PLANE; i++)
        values[i] = (float)((i * 37 + i / 50) % 101) / 50.0f - 0.9f;
    strcpy(f->data, "/tmp/quench-ema-XXXXXX");
    const int file = mkstemp(f->data);
    assert_true(file >= 0 && write(file, values, sizeof(values)) == (ssize_t)sizeof(values));
    close(file);
    const qn_input_spec spec = {"x", 4, {1, 3, SIDE, SIDE}};
    qn_dataset_options o;
    qn_dataset_options_init(&o);
    o.data_file = f->data;
    o.raw_type = "f32";
    o.raw_shape = "1,3,18,18";
    assert_int_equal(qn__dataset_create(f->ctx, &spec, 1, &o, &f->dataset, NULL), QN_OK);
    assert_int_equal(qn_dataset_count(f->dataset), SAMPLES);
}

static void count_lines(void *ctx, const char *text)
{
    fixture *f = ctx;
    f->lines += strstr(text, "100.00 %") != NULL;
}

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof(*f));
    const qn_allocator allocator = fault_allocator(&f->f);
    qn_context_options o;
    qn_context_options_init(&o);
    o.allocator = &allocator;
    o.n_threads = 1;
    assert_int_equal(qn_context_create(&o, &f->ctx, NULL), QN_OK);
    make_graph(f);
    make_dataset(f);
    f->config.bits = 8;
    f->config.batch = 2;
    f->config.feature = QN_MNN_EMA;
    f->config.winograd = true;
    f->run = (qn_mnn_run){.ctx = f->ctx,
                          .config = &f->config,
                          .graph = f->graph,
                          .source = qn__mnn_source_of(f->graph),
                          .dataset = f->dataset,
                          .print = count_lines,
                          .print_ctx = f};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture *f = *state;
    qn_dataset_destroy(f->dataset);
    qn__graph_destroy(f->graph);
    qn_context_destroy(f->ctx);
    assert_int_equal(f->f.live, 0);
    unlink(f->data);
    free(f);
    return 0;
}

/* --- tests -------------------------------------------------------------------------------------*/
static qn_fb_object *main_of(qn_fb_object *op)
{
    return qn__fb_table(op, QN_MNN_Op_main);
}

static void blocks_are_folded_and_others_stay(void **state)
{
    fixture *f = *state;
    qn_mnn_scales scales;
    qn_fb_document d;
    qn_error error;
    if (qn__mnn_ema(&f->run, &scales, &d, &error) != QN_OK)
        fail_msg("%s", error.message);
    assert_int_equal(f->lines, 1);
    size_t n;
    qn_fb_object **ops = qn__fb_tables(d.root, QN_MNN_Net_oplists, &n);
    assert_int_equal(n, 4);
    static const char *const left[] = {"x", "first", "alone", "last"};
    for (size_t i = 0; i < n; i++)
        assert_string_equal(qn__fb_string(ops[i], QN_MNN_Op_name), left[i]);
    assert_int_equal(qn__fb_int_at(&d, ops[1], QN_MNN_Op_outputIndexes, 0), 3);
    for (size_t i = 1; i < 4; i += 2) {
        const qn_fb_object *conv = main_of(ops[i]);
        const qn_fb_object *common = qn__fb_table(conv, QN_MNN_Convolution2D_common);
        assert_int_equal(qn__fb_int(&d, common, COMMON(relu)), 1);
        assert_int_equal(qn__fb_int(&d, common, COMMON(relu6)), 0);
        assert_false(qn__fb_has(conv, QN_MNN_Convolution2D_weight));
        assert_non_null(qn__fb_table(conv, QN_MNN_Convolution2D_quanParameter));
    }
    /* the statistics of the one outside a block moved by 1 % a batch */
    const double before = qn__fb_real_at(&f->run.source->doc, main_of(f->run.source->ops[4]),
                                         QN_MNN_BatchNorm_meanData, 0);
    const double after = qn__fb_real_at(&d, main_of(ops[2]), QN_MNN_BatchNorm_meanData, 0);
    assert_true(after != before && after < before + 0.2 && after > before - 0.2);
    const bool tracked[] = {true, false, false, true, true, true};
    for (size_t i = 0; i < 6; i++)
        assert_true(scales.tracked[i] == tracked[i] && (scales.items[i].scale > 0) == tracked[i]);
    assert_int_equal(scales.items[3].zero, -127); /* after an activation */
    assert_true(scales.items[3].scale <= 6.0f / 254.0f * 1.0001f);
    (void)qn__fb_tables(d.root, QN_MNN_Net_extraTensorDescribe, &n);
    assert_int_equal(n, 4);
    qn_graph *again;
    assert_int_equal(read_document(f->ctx, &d, &again), QN_OK);
    qn__graph_destroy(again);
    qn__mnn_scales_free(&scales);
    qn__fb_free(&d);
}

/* That the numbers are MNN's is checked against its tool (tests/interop/test_mnn_ema.py). */
static void winograd_is_for_convolutions_that_gain(void **state)
{
    enum { HEAD = 9, ALPHA = 6, POSITIONS = ALPHA * ALPHA };
    static const int64_t head[HEAD] = {0, 1, 6 + POSITIONS * (2 + CHANNELS), 0, 0, 3, 3, 4, 4};
    const uint32_t slot = QN_MNN_QuantizedFloatParam_winogradAttr;
    fixture *f = *state;
    for (int on = 0; on < 2; on++) {
        qn_mnn_scales scales;
        qn_fb_document d;
        qn_error error;
        size_t n;
        f->config.exact = on ? QN_MNN_EXACT_WINOGRAD : QN_MNN_EXACT_SYMMETRIC;
        assert_int_equal(qn__mnn_ema(&f->run, &scales, &d, &error), QN_OK);
        qn_fb_object **ops = qn__fb_tables(d.root, QN_MNN_Net_oplists, &n);
        for (size_t c = 1; c < 4; c += 2) {
            const qn_fb_object *conv = main_of(ops[c]);
            conv = qn__fb_table(conv, QN_MNN_Convolution2D_symmetricQuan);
            assert_true(qn__fb_has(conv, slot) == (on == 1));
            for (size_t i = 0; on && i < HEAD; i++)
                assert_int_equal(qn__fb_int_at(&d, conv, slot, i), head[i]);
            for (size_t i = 0; on && i < POSITIONS * (2 + CHANNELS); i++) {
                const int32_t bits = (int32_t)qn__fb_int_at(&d, conv, slot, HEAD + i);
                float scale;
                memcpy(&scale, &bits, sizeof(scale));
                if (i / POSITIONS == 1)
                    assert_true(bits >= -127 && bits <= 127);
                else
                    assert_true(scale > 0 && scale < 100);
            }
        }
        qn__mnn_scales_free(&scales);
        qn__fb_free(&d);
    }
}

static void every_allocation_fails_once(void **state)
{
    fixture *f = *state;
    f->config.exact = QN_MNN_EXACT_ALL;
    const int64_t live = f->f.live;
    size_t failures = 0;
    for (uint64_t at = 1;; at++) {
        qn_mnn_scales scales;
        qn_fb_document d;
        qn_error error = {0};
        f->f.calls = 0;
        f->f.fail_at = at;
        const qn_status status = qn__mnn_ema(&f->run, &scales, &d, &error);
        const bool failed = f->f.calls >= at;
        f->f.fail_at = 0;
        if (status == QN_OK) {
            qn__mnn_scales_free(&scales);
            qn__fb_free(&d);
        } else if (status != QN_NO_MEMORY) {
            fail_msg("allocation %llu: %s", (unsigned long long)at, error.message);
        }
        if (f->f.live != live)
            fail_msg("allocation %llu leaves %lld more", (unsigned long long)at,
                     (long long)(f->f.live - live));
        failures += status != QN_OK;
        if (!failed)
            break;
    }
    assert_true(failures > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(blocks_are_folded_and_others_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(winograd_is_for_convolutions_that_gain, setup, teardown),
        cmocka_unit_test_setup_teardown(every_allocation_fails_once, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
