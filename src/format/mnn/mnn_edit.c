/* Changes to .mnn documents: a convolution with integer weights, what is known of tensors' values,
 * and saving. */
#include "core/io.h"
#include "format/mnn/mnn_format.h"

enum { DEFAULT_CLAMP = 127 };

static void set_ints(qn_fb_object *object, const int64_t (*values)[2], size_t count)
{
    for (size_t i = 0; i < count; i++)
        qn__fb_set_int(object, (uint32_t)values[i][0], values[i][1]);
}

/* All scalars are written, as MNN's own writer does: its reader takes quantScale 0 at its word. */
static qn_status make_weights(qn_fb_document *d, const qn_mnn_conv_edit *edit, qn_fb_object **out,
                              qn_error *error)
{
    uint8_t *buffer = NULL;
    size_t size_bytes = 0;
    int32_t type = 0;
    bool wide = false;
    QN_TRY(qn__mnn_pack(d->ctx, edit->q, edit->rows, edit->columns, edit->bits, edit->linear,
                        edit->sparse, &buffer, &size_bytes, &type, &wide, error));
    const int64_t values[][2] = {
        {QN_MNN_IDSTQuan_type, type},       {QN_MNN_IDSTQuan_useInt32, 0},
        {QN_MNN_IDSTQuan_aMin, 0},          {QN_MNN_IDSTQuan_aMaxOrBits, edit->bits},
        {QN_MNN_IDSTQuan_readType, 0},      {QN_MNN_IDSTQuan_has_scaleInt, 0},
        {QN_MNN_IDSTQuan_shapeInt32, wide}, {QN_MNN_IDSTQuan_weightSize, 0},
        {QN_MNN_IDSTQuan_scaleStorage, 0},
    };
    qn_fb_object *quan = qn__fb_new(d, QN_MNN_REC_IDSTQuan);
    bool ok = quan != NULL &&
              qn__fb_set_vector(d, quan, QN_MNN_IDSTQuan_buffer, buffer, size_bytes) &&
              qn__fb_set_vector(d, quan, QN_MNN_IDSTQuan_alpha, edit->scales, edit->rows);
    qn__free(d->ctx, buffer);
    if (!ok)
        return QN_NOMEM(error);
    set_ints(quan, values, sizeof(values) / sizeof(values[0]));
    qn__fb_set_real(quan, QN_MNN_IDSTQuan_quantScale, 1.0);
    qn__fb_set_real(quan, QN_MNN_IDSTQuan_scaleIn, (double)edit->scale_in);
    qn__fb_set_real(quan, QN_MNN_IDSTQuan_scaleOut, (double)edit->scale_out);
    *out = quan;
    return QN_OK;
}

static qn_fb_object *make_symmetric(qn_fb_document *d, const qn_mnn_conv_edit *edit)
{
    const bool clamped = edit->clamp_min != 0 || edit->clamp_max != 0;
    const int64_t values[][2] = {
        {QN_MNN_QuantizedFloatParam_method, QN_MNN_QuantizeAlgo_DEFAULT},
        {QN_MNN_QuantizedFloatParam_nbits, edit->nbits},
        {QN_MNN_QuantizedFloatParam_zeroPoint, edit->zero_in},
        {QN_MNN_QuantizedFloatParam_outputZeroPoint, edit->zero_out},
        {QN_MNN_QuantizedFloatParam_clampMin, clamped ? edit->clamp_min : -DEFAULT_CLAMP},
        {QN_MNN_QuantizedFloatParam_clampMax, clamped ? edit->clamp_max : DEFAULT_CLAMP},
        {QN_MNN_QuantizedFloatParam_outputDataType, QN_MNN_DataType_DT_INT8},
    };
    qn_fb_object *object = qn__fb_new(d, QN_MNN_REC_QuantizedFloatParam);
    if (object == NULL)
        return NULL;
    set_ints(object, values, sizeof(values) / sizeof(values[0]));
    if (edit->winograd != NULL &&
        !qn__fb_set_vector(d, object, QN_MNN_QuantizedFloatParam_winogradAttr, edit->winograd,
                           edit->n_winograd))
        return NULL;
    return object;
}

qn_status qn__mnn_edit_conv(qn_fb_document *d, qn_fb_object *op, const qn_mnn_conv_edit *edit,
                            qn_error *error)
{
    const char *name = qn__fb_string(op, QN_MNN_Op_name);
    const qn_fb_object *main = qn__fb_table(op, QN_MNN_Op_main);
    QN_FAIL_IF(main == NULL || main->record != QN_MNN_REC_Convolution2D, error, QN_UNSUPPORTED,
               "operator \"%s\" has no convolution's parameters", name ? name : "");
    qn_fb_object *quan = NULL;
    QN_TRY(make_weights(d, edit, &quan, error));
    qn_fb_object *conv = qn__fb_copy(d, main), *symmetric = make_symmetric(d, edit);
    if (conv == NULL || symmetric == NULL)
        return QN_NOMEM(error);
    if (edit->bias != NULL &&
        !qn__fb_set_vector(d, conv, QN_MNN_Convolution2D_bias, edit->bias, edit->rows))
        return QN_NOMEM(error);
    const qn_fb_object *common = qn__fb_table(conv, QN_MNN_Convolution2D_common);
    if (edit->input_channels > 0 && common != NULL) {
        qn_fb_object *own = qn__fb_copy(d, common);
        if (own == NULL)
            return QN_NOMEM(error);
        qn__fb_set_int(own, QN_MNN_Convolution2DCommon_inputCount, edit->input_channels);
        qn__fb_set_table(conv, QN_MNN_Convolution2D_common, own);
    }
    qn__fb_clear(conv, QN_MNN_Convolution2D_weight);
    qn__fb_clear(conv, QN_MNN_Convolution2D_external);
    qn__fb_set_table(conv, QN_MNN_Convolution2D_quanParameter, quan);
    qn__fb_set_table(conv, QN_MNN_Convolution2D_symmetricQuan, symmetric);
    qn__fb_set_union(d, op, QN_MNN_Op_main, conv);
    return QN_OK;
}

static qn_fb_object *make_quant_info(qn_fb_document *d, const qn_mnn_tensor_quant *q)
{
    qn_fb_object *info = qn__fb_new(d, QN_MNN_REC_TensorQuantInfo);
    if (info == NULL)
        return NULL;
    qn__fb_set_real(info, QN_MNN_TensorQuantInfo_scale, (double)q->scale);
    qn__fb_set_real(info, QN_MNN_TensorQuantInfo_zero, q->zero);
    qn__fb_set_real(info, QN_MNN_TensorQuantInfo_min, q->min);
    qn__fb_set_real(info, QN_MNN_TensorQuantInfo_max, q->max);
    qn__fb_set_int(info, QN_MNN_TensorQuantInfo_type, QN_MNN_DataType_DT_INT8);
    return info;
}

qn_status qn__mnn_edit_quants(qn_fb_document *d, const qn_mnn_tensor_quant *quants, size_t count,
                              qn_error *error)
{
    qn_status status = QN_OK;
    size_t n_old = 0, n_tensors = 0, n = 0;
    qn_fb_object **old = qn__fb_tables(d->root, QN_MNN_Net_extraTensorDescribe, &n_old);
    const qn_fb_value *names = &d->root->values[QN_MNN_Net_tensorName];
    n_tensors = names->present ? names->count : 0;
    size_t *place =
        qn__calloc(d->ctx, n_tensors, sizeof(*place)); /* index of quants + 1, 0: none */
    qn_fb_object **list = qn__calloc(d->ctx, n_old + count, sizeof(*list));
    if (place == NULL || list == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < count; i++) {
        if (quants[i].index >= n_tensors)
            QN_FAIL_GOTO(error, QN_INVALID_ARGUMENT, "there is no tensor %u of %zu",
                         quants[i].index, n_tensors);
        place[quants[i].index] = i + 1;
    }
    for (size_t i = 0; i < n_old; i++) {
        const int64_t index = qn__fb_int(d, old[i], QN_MNN_TensorDescribe_index);
        const bool known = index >= 0 && (uint64_t)index < n_tensors;
        if (known && place[index] == SIZE_MAX)
            continue; /* a second description is of no use */
        list[n] = old[i];
        if (known && place[index] != 0) {
            list[n] = qn__fb_copy(d, old[i]);
            qn_fb_object *info = make_quant_info(d, &quants[place[index] - 1]);
            if (list[n] == NULL || info == NULL)
                QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
            qn__fb_set_table(list[n], QN_MNN_TensorDescribe_quantInfo, info);
            place[index] = SIZE_MAX;
        }
        n++;
    }
    for (size_t i = 0; i < count; i++) {
        if (place[quants[i].index] != i + 1)
            continue;
        qn_fb_object *describe = qn__fb_new(d, QN_MNN_REC_TensorDescribe);
        qn_fb_object *info = make_quant_info(d, &quants[i]);
        if (describe == NULL || info == NULL)
            QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
        qn__fb_set_int(describe, QN_MNN_TensorDescribe_index, quants[i].index);
        qn__fb_set_table(describe, QN_MNN_TensorDescribe_quantInfo, info);
        list[n++] = describe;
    }
    if (n > 0 && !qn__fb_set_tables(d, d->root, QN_MNN_Net_extraTensorDescribe, list, n))
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
done:
    qn__free(d->ctx, place);
    qn__free(d->ctx, list);
    return status;
}

qn_status qn__mnn_save(const qn_fb_document *d, const char *path, uint64_t *bytes, qn_error *error)
{
    uint8_t *data = NULL;
    size_t size_bytes = 0;
    QN_TRY(qn__fb_build(d, &data, &size_bytes, error));
    const qn_status status = qn__file_write_all(d->ctx, path, data, size_bytes, error);
    qn__free(d->ctx, data);
    if (status == QN_OK && bytes != NULL)
        *bytes = size_bytes;
    return status;
}
