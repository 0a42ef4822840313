/* small_mnn FILE CHANNELS [LAYOUT]: writes a float .mnn of two convolutions and a sum for tests of
 * the commands: input "data" [1, CHANNELS, 24, 32], NCHW unless LAYOUT is NC4HW4; output "out".
 * With LAYOUT two a second input "bias" [1, 8, 12, 16] is added to the sum. Weights are a fixed
 * sequence. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/io.h"
#include "format/mnn/mnn_schema.h"

typedef struct maker {
    qn_fb_document doc;
    qn_fb_object *ops[16];
    size_t n_ops;
    const char *names[16];
    int32_t n_tensors;
    uint32_t seed;
    bool failed;
} maker;

static qn_fb_object *make(maker *m, int32_t record)
{
    qn_fb_object *o = qn__fb_new(&m->doc, record);
    if (o == NULL)
        exit(1);
    return o;
}

static int32_t add_op(maker *m, const char *name, int64_t type, const int32_t *inputs, size_t n,
                      qn_fb_object *main)
{
    qn_fb_object *op = make(m, QN_MNN_REC_Op);
    const int32_t output = m->n_tensors;
    if (n > 0)
        m->failed |= !qn__fb_set_vector(&m->doc, op, QN_MNN_Op_inputIndexes, inputs, n);
    m->failed |= !qn__fb_set_vector(&m->doc, op, QN_MNN_Op_outputIndexes, &output, 1);
    m->failed |= !qn__fb_set_string(&m->doc, op, QN_MNN_Op_name, name);
    qn__fb_set_int(op, QN_MNN_Op_type, type);
    qn__fb_set_union(&m->doc, op, QN_MNN_Op_main, main);
    m->ops[m->n_ops++] = op;
    m->names[m->n_tensors++] = name;
    return output;
}

static int32_t add_input(maker *m, const char *name, const int32_t dims[4], int64_t format)
{
    qn_fb_object *input = make(m, QN_MNN_REC_Input);
    m->failed |= !qn__fb_set_vector(&m->doc, input, QN_MNN_Input_dims, dims, 4);
    qn__fb_set_int(input, QN_MNN_Input_dtype, QN_MNN_DataType_DT_FLOAT);
    qn__fb_set_int(input, QN_MNN_Input_dformat, format);
    return add_op(m, name, QN_MNN_OpType_Input, NULL, 0, input);
}

static int32_t add_convert(maker *m, const char *name, int32_t from, int64_t source, int64_t dest)
{
    qn_fb_object *info = make(m, QN_MNN_REC_TensorConvertInfo);
    qn__fb_set_int(info, QN_MNN_TensorConvertInfo_source, source);
    qn__fb_set_int(info, QN_MNN_TensorConvertInfo_dest, dest);
    return add_op(m, name, QN_MNN_OpType_ConvertTensor, &from, 1, info);
}

static float next_weight(maker *m)
{
    m->seed = m->seed * 1664525u + 1013904223u;
    return ((float)(m->seed >> 8) / 16777216.0f - 0.5f) * 0.5f;
}

static int32_t add_conv(maker *m, const char *name, int32_t from, int32_t inputs, int32_t outputs,
                        int32_t stride, bool relu)
{
    qn_fb_object *common = make(m, QN_MNN_REC_Convolution2DCommon);
    qn_fb_object *conv = make(m, QN_MNN_REC_Convolution2D);
    const size_t n = (size_t)inputs * (size_t)outputs * 9;
    float *weights = calloc(n + (size_t)outputs, sizeof(*weights));
    if (weights == NULL)
        exit(1);
    for (size_t i = 0; i < n + (size_t)outputs; i++)
        weights[i] = next_weight(m);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_padX, 1);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_padY, 1);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_kernelX, 3);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_kernelY, 3);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_strideX, stride);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_strideY, stride);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_dilateX, 1);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_dilateY, 1);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_group, 1);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_inputCount, inputs);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_outputCount, outputs);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_relu, relu);
    qn__fb_set_table(conv, QN_MNN_Convolution2D_common, common);
    m->failed |= !qn__fb_set_vector(&m->doc, conv, QN_MNN_Convolution2D_weight, weights, n);
    m->failed |=
        !qn__fb_set_vector(&m->doc, conv, QN_MNN_Convolution2D_bias, weights + n, (size_t)outputs);
    free(weights);
    return add_op(m, name, QN_MNN_OpType_Convolution, &from, 1, conv);
}

static int32_t add_sum(maker *m, const char *name, int32_t a, int32_t b)
{
    const int32_t inputs[2] = {a, b};
    qn_fb_object *sum = make(m, QN_MNN_REC_Eltwise);
    qn__fb_set_int(sum, QN_MNN_Eltwise_type, QN_MNN_EltwiseType_SUM);
    return add_op(m, name, QN_MNN_OpType_Eltwise, inputs, 2, sum);
}

static void build(maker *m, int32_t channels, const char *layout)
{
    const bool packed = strcmp(layout, "NC4HW4") == 0;
    const int64_t nchw = QN_MNN_MNN_DATA_FORMAT_NCHW, nc4 = QN_MNN_MNN_DATA_FORMAT_NC4HW4;
    const int32_t dims[4] = {1, channels, 24, 32}, bias_dims[4] = {1, 8, 12, 16};
    int32_t x = add_input(m, "data", dims, packed ? nc4 : nchw);
    if (!packed)
        x = add_convert(m, "data_packed", x, nchw, nc4);
    const int32_t a = add_conv(m, "first", x, channels, 8, 2, true);
    const int32_t b = add_conv(m, "second", a, 8, 8, 1, false);
    int32_t sum = add_sum(m, "sum", a, b);
    if (strcmp(layout, "two") == 0) {
        const int32_t bias = add_input(m, "bias", bias_dims, nchw);
        sum = add_sum(m, "shifted", sum, add_convert(m, "bias_packed", bias, nchw, nc4));
    }
    add_convert(m, "out", sum, nc4, nchw);
    qn_fb_object *root = m->doc.root;
    const char *output = "out";
    m->failed |= !qn__fb_set_tables(&m->doc, root, QN_MNN_Net_oplists, m->ops, m->n_ops);
    m->failed |=
        !qn__fb_set_strings(&m->doc, root, QN_MNN_Net_tensorName, m->names, (size_t)m->n_tensors);
    m->failed |= !qn__fb_set_strings(&m->doc, root, QN_MNN_Net_outputName, &output, 1);
    qn__fb_set_int(root, QN_MNN_Net_sourceType, 3);
}

static qn_status write_model(const qn_context *ctx, const char *path, int32_t channels,
                             const char *layout, qn_error *error)
{
    maker m = {.seed = 1};
    uint8_t *bytes = NULL;
    size_t size_bytes = 0;
    QN_TRY(qn__fb_create(ctx, &qn__mnn_schema, &m.doc, error));
    build(&m, channels, layout);
    qn_status status =
        m.failed ? QN_NOMEM(error) : qn__fb_build(&m.doc, &bytes, &size_bytes, error);
    if (status == QN_OK)
        status = qn__file_write_all(ctx, path, bytes, size_bytes, error);
    qn__free(ctx, bytes);
    qn__fb_free(&m.doc);
    return status;
}

int main(int argc, char **argv)
{
    qn_error error;
    qn_context *ctx = NULL;
    if (argc < 3)
        return 2;
    if (qn_context_create(NULL, &ctx, &error) != QN_OK)
        return 1;
    const qn_status status =
        write_model(ctx, argv[1], atoi(argv[2]), argc > 3 ? argv[3] : "NCHW", &error);
    if (status != QN_OK)
        fprintf(stderr, "%s: %s\n", qn_status_name(status), error.message);
    qn_context_destroy(ctx);
    return status == QN_OK ? 0 : 1;
}
