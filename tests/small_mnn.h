/* A float .mnn of two convolutions and a sum: input "data" [1, channels, height, width], NCHW
 * unless layout is "NC4HW4"; output "out". With layout "two" a second input "bias" [1, 8, half,
 * half] is added to the sum. Weights are a fixed sequence. */
#ifndef TEST_SMALL_MNN_H
#define TEST_SMALL_MNN_H

#include <stdlib.h>
#include <string.h>

#include "core/context.h"
#include "format/mnn/mnn_schema.h"

typedef struct small_mnn {
    qn_fb_document doc;
    qn_fb_object *ops[16];
    size_t n_ops;
    const char *names[16];
    int32_t n_tensors;
    uint32_t seed;
    bool failed;
} small_mnn;

static inline qn_fb_object *small_make(small_mnn *m, int32_t record)
{
    qn_fb_object *o = qn__fb_new(&m->doc, record);
    if (o == NULL)
        exit(1);
    return o;
}

static inline int32_t small_add_op(small_mnn *m, const char *name, int64_t type,
                                   const int32_t *inputs, size_t n, qn_fb_object *main)
{
    qn_fb_object *op = small_make(m, QN_MNN_REC_Op);
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

static inline int32_t small_add_input(small_mnn *m, const char *name, const int32_t dims[4],
                                      int64_t format)
{
    qn_fb_object *input = small_make(m, QN_MNN_REC_Input);
    m->failed |= !qn__fb_set_vector(&m->doc, input, QN_MNN_Input_dims, dims, 4);
    qn__fb_set_int(input, QN_MNN_Input_dtype, QN_MNN_DataType_DT_FLOAT);
    qn__fb_set_int(input, QN_MNN_Input_dformat, format);
    return small_add_op(m, name, QN_MNN_OpType_Input, NULL, 0, input);
}

static inline int32_t small_add_convert(small_mnn *m, const char *name, int32_t from,
                                        int64_t source, int64_t dest)
{
    qn_fb_object *info = small_make(m, QN_MNN_REC_TensorConvertInfo);
    qn__fb_set_int(info, QN_MNN_TensorConvertInfo_source, source);
    qn__fb_set_int(info, QN_MNN_TensorConvertInfo_dest, dest);
    return small_add_op(m, name, QN_MNN_OpType_ConvertTensor, &from, 1, info);
}

static inline float small_next_weight(small_mnn *m)
{
    m->seed = m->seed * 1664525u + 1013904223u;
    return ((float)(m->seed >> 8) / 16777216.0f - 0.5f) * 0.5f;
}

static inline int32_t small_add_conv(small_mnn *m, const char *name, int32_t from, int32_t inputs,
                                     int32_t outputs, int32_t stride, bool relu)
{
    qn_fb_object *common = small_make(m, QN_MNN_REC_Convolution2DCommon);
    qn_fb_object *conv = small_make(m, QN_MNN_REC_Convolution2D);
    const size_t n = (size_t)inputs * (size_t)outputs * 9;
    float *weights = calloc(n + (size_t)outputs, sizeof(*weights));
    if (weights == NULL)
        exit(1);
    for (size_t i = 0; i < n + (size_t)outputs; i++)
        weights[i] = small_next_weight(m);
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
    return small_add_op(m, name, QN_MNN_OpType_Convolution, &from, 1, conv);
}

static inline int32_t small_add_sum(small_mnn *m, const char *name, int32_t a, int32_t b)
{
    const int32_t inputs[2] = {a, b};
    qn_fb_object *sum = small_make(m, QN_MNN_REC_Eltwise);
    qn__fb_set_int(sum, QN_MNN_Eltwise_type, QN_MNN_EltwiseType_SUM);
    return small_add_op(m, name, QN_MNN_OpType_Eltwise, inputs, 2, sum);
}

static inline void small_build(small_mnn *m, int32_t channels, int32_t height, int32_t width,
                               const char *layout)
{
    const bool packed = strcmp(layout, "NC4HW4") == 0;
    const int64_t nchw = QN_MNN_MNN_DATA_FORMAT_NCHW, nc4 = QN_MNN_MNN_DATA_FORMAT_NC4HW4;
    const int32_t dims[4] = {1, channels, height, width};
    const int32_t bias_dims[4] = {1, 8, (height + 1) / 2, (width + 1) / 2};
    int32_t x = small_add_input(m, "data", dims, packed ? nc4 : nchw);
    if (!packed)
        x = small_add_convert(m, "data_packed", x, nchw, nc4);
    const int32_t a = small_add_conv(m, "first", x, channels, 8, 2, true);
    const int32_t b = small_add_conv(m, "second", a, 8, 8, 1, false);
    int32_t sum = small_add_sum(m, "sum", a, b);
    if (strcmp(layout, "two") == 0) {
        const int32_t bias = small_add_input(m, "bias", bias_dims, nchw);
        sum =
            small_add_sum(m, "shifted", sum, small_add_convert(m, "bias_packed", bias, nchw, nc4));
    }
    small_add_convert(m, "out", sum, nc4, nchw);
    qn_fb_object *root = m->doc.root;
    const char *output = "out";
    m->failed |= !qn__fb_set_tables(&m->doc, root, QN_MNN_Net_oplists, m->ops, m->n_ops);
    m->failed |=
        !qn__fb_set_strings(&m->doc, root, QN_MNN_Net_tensorName, m->names, (size_t)m->n_tensors);
    m->failed |= !qn__fb_set_strings(&m->doc, root, QN_MNN_Net_outputName, &output, 1);
    qn__fb_set_int(root, QN_MNN_Net_sourceType, 3);
}

/* Its bytes, freed with qn__free. */
static inline qn_status small_mnn_bytes(const qn_context *ctx, int32_t channels, int32_t height,
                                        int32_t width, const char *layout, uint8_t **bytes,
                                        size_t *size_bytes, qn_error *error)
{
    small_mnn m = {.seed = 1};
    QN_TRY(qn__fb_create(ctx, &qn__mnn_schema, &m.doc, error));
    small_build(&m, channels, height, width, layout);
    const qn_status status =
        m.failed ? QN_NOMEM(error) : qn__fb_build(&m.doc, bytes, size_bytes, error);
    qn__fb_free(&m.doc);
    return status;
}

#endif
