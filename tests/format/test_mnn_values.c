/* Operators of .mnn files that today's converters seldom write: what they compute, against plain
 * loops over the same numbers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "property/mnn_seeds.h"
#include "quench/model.h"

enum { C = 3, H = 4, W = 5, COUNT = C * H * W, MOST = 4 * COUNT };

static qn_context *ctx;
static char path[64];
static float x[COUNT], y[COUNT]; /* the inputs; y only where an operator reads two */

static float at(const float *t, int c, int h, int w)
{
    return t[(c * H + h) * W + w];
}

/* --- operators: parameters, and what they mean
 * --------------------------------------------------*/
static qn_fb_object *normalize(qn_fb_document *d, bool across)
{
    static const float SCALE[C] = {1, -2, 0.5f};
    qn_fb_object *o = qn__fb_new(d, QN_MNN_REC_Normalize);
    qn__fb_set_int(o, QN_MNN_Normalize_acrossSpatial, across);
    qn__fb_set_real(o, QN_MNN_Normalize_eps, 0.5);
    qn__fb_set_vector(d, o, QN_MNN_Normalize_scale, SCALE, C);
    return o;
}

static qn_fb_object *normalize_channels(qn_fb_document *d)
{
    return normalize(d, false);
}

static qn_fb_object *normalize_all(qn_fb_document *d)
{
    return normalize(d, true);
}

static size_t normalized(float *out, bool across)
{
    static const double SCALE[C] = {1, -2, 0.5};
    for (int h = 0; h < H; h++)
        for (int w = 0; w < W; w++) {
            double sum = 0;
            for (int i = 0; i < COUNT; i++)
                sum += across || i % (H * W) == h * W + w ? (double)x[i] * (double)x[i] : 0;
            for (int c = 0; c < C; c++)
                out[(c * H + h) * W + w] =
                    (float)((double)at(x, c, h, w) / sqrt(sum + 0.5) * SCALE[c]);
        }
    return COUNT;
}

static size_t normalized_channels(float *out)
{
    return normalized(out, false);
}

static size_t normalized_all(float *out)
{
    return normalized(out, true);
}

static qn_fb_object *weighted_sum(qn_fb_document *d)
{
    static const float COEFF[2] = {2, -0.5f};
    qn_fb_object *o = qn__fb_new(d, QN_MNN_REC_Eltwise);
    qn__fb_set_int(o, QN_MNN_Eltwise_type, QN_MNN_EltwiseType_SUM);
    qn__fb_set_vector(d, o, QN_MNN_Eltwise_coeff, COEFF, 2);
    return o;
}

static size_t weighted_summed(float *out)
{
    for (int i = 0; i < COUNT; i++)
        out[i] = 2 * x[i] - 0.5f * y[i];
    return COUNT;
}

static qn_fb_object *unary(qn_fb_document *d, int64_t type)
{
    qn_fb_object *o = qn__fb_new(d, QN_MNN_REC_UnaryOp);
    qn__fb_set_int(o, QN_MNN_UnaryOp_opType, type);
    return o;
}

static qn_fb_object *silu(qn_fb_document *d)
{
    return unary(d, QN_MNN_UnaryOpOperation_SILU);
}

static size_t silued(float *out)
{
    for (int i = 0; i < COUNT; i++)
        out[i] = x[i] / (1 + expf(-x[i]));
    return COUNT;
}

static qn_fb_object *complement(qn_fb_document *d)
{
    return unary(d, QN_MNN_UnaryOpOperation_ERFC);
}

static size_t complemented(float *out)
{
    for (int i = 0; i < COUNT; i++)
        out[i] = erfcf(x[i]);
    return COUNT;
}

static qn_fb_object *binary(qn_fb_document *d, int64_t type)
{
    qn_fb_object *o = qn__fb_new(d, QN_MNN_REC_BinaryOp);
    qn__fb_set_int(o, QN_MNN_BinaryOp_opType, type);
    return o;
}

static qn_fb_object *gate(qn_fb_document *d)
{
    return binary(d, QN_MNN_BinaryOpOperation_MUL_SILU);
}

static size_t gated(float *out)
{
    for (int i = 0; i < COUNT; i++)
        out[i] = x[i] * y[i] / (1 + expf(-y[i]));
    return COUNT;
}

static qn_fb_object *whole_quotient(qn_fb_document *d)
{
    return binary(d, QN_MNN_BinaryOpOperation_FLOORDIV);
}

static size_t whole_quotients(float *out)
{
    for (int i = 0; i < COUNT; i++)
        out[i] = floorf(x[i] / y[i]);
    return COUNT;
}

static qn_fb_object *nothing(qn_fb_document *d)
{
    (void)d;
    return NULL;
}

static size_t zeros(float *out)
{
    memset(out, 0, COUNT * sizeof(*out));
    return COUNT;
}

static qn_fb_object *middle(qn_fb_document *d)
{
    qn_fb_object *o = qn__fb_new(d, QN_MNN_REC_Flatten);
    qn__fb_set_int(o, QN_MNN_Flatten_axis, 1);
    qn__fb_set_int(o, QN_MNN_Flatten_endAxis, 2);
    return o;
}

static size_t same(float *out)
{
    memcpy(out, x, sizeof(x));
    return COUNT;
}

/* Twice as large in both directions. */
static qn_fb_object *interp(qn_fb_document *d, bool corners)
{
    qn_fb_object *o = qn__fb_new(d, QN_MNN_REC_Interp);
    qn__fb_set_int(o, QN_MNN_Interp_resizeType, 2);
    qn__fb_set_int(o, QN_MNN_Interp_outputHeight, 2 * H);
    qn__fb_set_int(o, QN_MNN_Interp_outputWidth, 2 * W);
    qn__fb_set_int(o, QN_MNN_Interp_alignCorners, corners);
    return o;
}

static qn_fb_object *interp_corners(qn_fb_document *d)
{
    return interp(d, true);
}

static qn_fb_object *interp_plain(qn_fb_document *d)
{
    return interp(d, false);
}

static qn_fb_object *by_scale(qn_fb_document *d)
{
    qn_fb_object *o = qn__fb_new(d, QN_MNN_REC_Interp);
    qn__fb_set_int(o, QN_MNN_Interp_resizeType, 2);
    qn__fb_set_real(o, QN_MNN_Interp_heightScale, 2);
    qn__fb_set_real(o, QN_MNN_Interp_widthScale, 2);
    return o;
}

static qn_fb_object *caffe_resize(qn_fb_document *d)
{
    qn_fb_object *o = qn__fb_new(d, QN_MNN_REC_Resize);
    qn__fb_set_real(o, QN_MNN_Resize_xScale, 2);
    qn__fb_set_real(o, QN_MNN_Resize_yScale, 2);
    return o;
}

static double line(int i, int n, bool corners)
{
    return corners ? (double)i * (n - 1) / (2 * n - 1) : (double)i / 2;
}

static size_t interpolated(float *out, bool corners)
{
    size_t n = 0;
    for (int c = 0; c < C; c++)
        for (int i = 0; i < 2 * H; i++)
            for (int k = 0; k < 2 * W; k++) {
                const double h = line(i, H, corners), w = line(k, W, corners);
                const int h0 = (int)h, w0 = (int)w, h1 = h0 + 1 < H ? h0 + 1 : h0,
                          w1 = w0 + 1 < W ? w0 + 1 : w0;
                const double a = h - h0, b = w - w0;
                out[n++] = (float)((1 - a) * ((1 - b) * (double)at(x, c, h0, w0) +
                                              b * (double)at(x, c, h0, w1)) +
                                   a * ((1 - b) * (double)at(x, c, h1, w0) +
                                        b * (double)at(x, c, h1, w1)));
            }
    return n;
}

static size_t interpolated_corners(float *out)
{
    return interpolated(out, true);
}

static size_t interpolated_plain(float *out)
{
    return interpolated(out, false);
}

static const struct operation {
    const char *name;
    int32_t type;
    size_t n_in;
    qn_fb_object *(*parameters)(qn_fb_document *d);
    size_t (*expected)(float *out);
} OPERATIONS[] = {
    {"Normalize of channels", QN_MNN_OpType_Normalize, 1, normalize_channels, normalized_channels},
    {"Normalize of everything", QN_MNN_OpType_Normalize, 1, normalize_all, normalized_all},
    {"Eltwise with coefficients", QN_MNN_OpType_Eltwise, 2, weighted_sum, weighted_summed},
    {"UnaryOp SILU", QN_MNN_OpType_UnaryOp, 1, silu, silued},
    {"UnaryOp ERFC", QN_MNN_OpType_UnaryOp, 1, complement, complemented},
    {"BinaryOp MUL_SILU", QN_MNN_OpType_BinaryOp, 2, gate, gated},
    {"BinaryOp FLOORDIV", QN_MNN_OpType_BinaryOp, 2, whole_quotient, whole_quotients},
    {"ZerosLike", QN_MNN_OpType_ZerosLike, 1, nothing, zeros},
    {"Flatten to an axis", QN_MNN_OpType_Flatten, 1, middle, same},
    {"Interp, corners aligned", QN_MNN_OpType_Interp, 1, interp_corners, interpolated_corners},
    {"Interp of old files", QN_MNN_OpType_Interp, 1, interp_plain, interpolated_plain},
    {"Interp by scales", QN_MNN_OpType_Interp, 1, by_scale, interpolated_plain},
    {"Resize of Caffe", QN_MNN_OpType_Resize, 1, caffe_resize, interpolated_plain},
};
enum { N_OPERATIONS = sizeof(OPERATIONS) / sizeof(OPERATIONS[0]) };

static qn_fb_object *input(qn_fb_document *d, const char *name, int32_t id)
{
    static const int32_t DIMS[] = {1, C, H, W};
    qn_fb_object *o = qn__fb_new(d, QN_MNN_REC_Input);
    qn__fb_set_vector(d, o, QN_MNN_Input_dims, DIMS, 4);
    qn__fb_set_int(o, QN_MNN_Input_dtype, QN_MNN_DataType_DT_FLOAT);
    qn__fb_set_int(o, QN_MNN_Input_dformat, QN_MNN_MNN_DATA_FORMAT_NCHW);
    return seed_op(d, QN_MNN_OpType_Input, name, o, 0, NULL, id);
}

static void write_model(const struct operation *o)
{
    static const char *const ONE[] = {"x", "out"}, *const TWO[] = {"x", "y", "out"};
    static const int32_t FROM[] = {0, 1};
    qn_fb_document d;
    uint8_t *bytes;
    size_t size;
    assert_int_equal(qn__fb_create(ctx, &qn__mnn_schema, &d, NULL), QN_OK);
    qn_fb_object *ops[3] = {input(&d, "x", 0), input(&d, "y", 1)};
    ops[o->n_in] = seed_op(&d, o->type, "it", o->parameters(&d), o->n_in, FROM, (int32_t)o->n_in);
    seed_net(&d, ops, o->n_in + 1, o->n_in == 1 ? ONE : TWO, o->n_in + 1);
    assert_int_equal(qn__fb_build(&d, &bytes, &size, NULL), QN_OK);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    qn__free(ctx, bytes);
    qn__fb_free(&d);
}

static void values_are_those_of_plain_loops(void **state)
{
    (void)state;
    static float expected[MOST];
    const float *const inputs[2] = {x, y};
    for (size_t i = 0; i < N_OPERATIONS; i++) {
        const struct operation *const o = &OPERATIONS[i];
        qn_model *model = NULL;
        qn_session *session = NULL;
        qn_error error = {0};
        size_t n = 0;
        write_model(o);
        if (qn_model_load(ctx, path, &model, &error) != QN_OK ||
            qn_session_create(model, NULL, &session, &error) != QN_OK ||
            qn_session_run(session, inputs, &error) != QN_OK)
            fail_msg("%s: %s", o->name, error.message);
        const float *const got = qn_session_output(session, 0, &n);
        assert_int_equal(n, o->expected(expected));
        for (size_t k = 0; k < n; k++)
            if (!(fabsf(got[k] - expected[k]) <= 1e-5f * (1 + fabsf(expected[k]))))
                fail_msg("%s: value %zu is %g, should be %g", o->name, k, (double)got[k],
                         (double)expected[k]);
        qn_session_destroy(session);
        qn_model_destroy(model);
    }
}

static int setup(void **state)
{
    (void)state;
    strcpy(path, "/tmp/quench-values-XXXXXX.mnn");
    const int fd = mkstemps(path, 4);
    if (fd < 0)
        return 1;
    close(fd);
    for (int i = 0; i < COUNT; i++) {
        x[i] = (float)(i * 37 % 61) / 15.0f - 2.0f;
        y[i] = (float)(i * 23 % 59) / 20.0f - 1.47f;
    }
    return qn_context_create(NULL, &ctx, NULL) == QN_OK ? 0 : 1;
}

static int teardown(void **state)
{
    (void)state;
    qn_context_destroy(ctx);
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(values_are_those_of_plain_loops)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
