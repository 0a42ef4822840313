/* What an operator has in the side file, taken into the document: a file that is written anew has
 * no file beside it. */
#include "format/mnn/mnn_source.h"

/* Records that name parts of the side file in `external`: [offset, bytes, bytes...]. Convolutions
 * are below: what their parts are depends on how their weights are stored. */
static const struct {
    int32_t record;
    uint32_t external, parts[2];
} SIDES[] = {
    {QN_MNN_REC_Scale, QN_MNN_Scale_external, {QN_MNN_Scale_scaleData, QN_MNN_Scale_biasData}},
    {QN_MNN_REC_LayerNorm,
     QN_MNN_LayerNorm_external,
     {QN_MNN_LayerNorm_gamma, QN_MNN_LayerNorm_beta}},
    {QN_MNN_REC_Blob, QN_MNN_Blob_external, {QN_MNN_Blob_float32s, QN_MNN_Blob_int32s}},
};

typedef struct taker {
    qn_mnn_source *source;
    qn_fb_document *d;
    const qn_fb_object *op;   /* names the side file */
    const qn_fb_object *main; /* has `external` */
    uint32_t external;
    qn_error *error;
} taker;

/* Part `part`, as the elements of a vector of `into`. Empty or absent: nothing. */
static qn_status take_part(const taker *t, size_t part, size_t element_bytes, qn_fb_object *into,
                           uint32_t slot)
{
    size_t n = 0;
    qn__fb_bytes(t->main, t->external, &n);
    if (part + 1 >= n)
        return QN_OK;
    int64_t offset = qn__fb_int_at(t->d, t->main, t->external, 0);
    for (size_t i = 1; i <= part; i++)
        QN_FAIL_IF(
            __builtin_add_overflow(offset, qn__fb_int_at(t->d, t->main, t->external, i), &offset),
            t->error, QN_CORRUPT, "\"external\": sizes that no file has");
    const int64_t size = qn__fb_int_at(t->d, t->main, t->external, part + 1);
    qn_blob *bytes = NULL;
    if (size == 0)
        return QN_OK;
    QN_TRY(qn__mnn_side_bytes(t->source, t->op, offset, size, &bytes, t->error));
    const bool ok =
        qn__fb_set_vector(t->d, into, slot, bytes->data, bytes->size_bytes / element_bytes);
    qn__blob_unref(bytes);
    return ok ? QN_OK : QN_NOMEM(t->error);
}

static qn_status take_convolution(const taker *t, qn_fb_object *conv)
{
    const qn_fb_object *quan = qn__fb_table(t->main, QN_MNN_Convolution2D_quanParameter);
    if (quan == NULL || qn__fb_int(t->d, quan, QN_MNN_IDSTQuan_type) == 8) {
        if (!qn__fb_has(conv, QN_MNN_Convolution2D_weight))
            QN_TRY(take_part(t, 0, sizeof(float), conv, QN_MNN_Convolution2D_weight));
        if (!qn__fb_has(conv, QN_MNN_Convolution2D_bias))
            QN_TRY(take_part(t, 1, sizeof(float), conv, QN_MNN_Convolution2D_bias));
        qn__fb_clear(conv, QN_MNN_Convolution2D_quanParameter);
        return QN_OK;
    }
    const bool half =
        qn__fb_int(t->d, quan, QN_MNN_IDSTQuan_scaleStorage) == QN_MNN_ScaleStorageType_FP16;
    qn_fb_object *own = qn__fb_copy(t->d, quan);
    if (own == NULL)
        return QN_NOMEM(t->error);
    if (!qn__fb_has(own, QN_MNN_IDSTQuan_buffer))
        QN_TRY(take_part(t, 0, 1, own, QN_MNN_IDSTQuan_buffer));
    const uint32_t alpha = half ? QN_MNN_IDSTQuan_alphaFp16 : QN_MNN_IDSTQuan_alpha;
    if (!qn__fb_has(own, alpha))
        QN_TRY(take_part(t, 1, half ? sizeof(uint16_t) : sizeof(float), own, alpha));
    if (!qn__fb_has(conv, QN_MNN_Convolution2D_bias))
        QN_TRY(take_part(t, 2, sizeof(float), conv, QN_MNN_Convolution2D_bias));
    if (!qn__fb_has(own, QN_MNN_IDSTQuan_index))
        QN_TRY(take_part(t, 3, sizeof(uint32_t), own, QN_MNN_IDSTQuan_index));
    qn__fb_set_table(conv, QN_MNN_Convolution2D_quanParameter, own);
    return QN_OK;
}

qn_status qn__mnn_take_inside(qn_mnn_source *source, qn_fb_document *d, qn_fb_object **op,
                              qn_error *error)
{
    const qn_fb_object *main = qn__fb_table(*op, QN_MNN_Op_main);
    const size_t n = sizeof(SIDES) / sizeof(SIDES[0]);
    size_t side = 0;
    if (main == NULL)
        return QN_OK;
    const bool conv = main->record == QN_MNN_REC_Convolution2D;
    while (!conv && side < n && SIDES[side].record != main->record)
        side++;
    if (side == n)
        return QN_OK;
    const uint32_t external = conv ? QN_MNN_Convolution2D_external : SIDES[side].external;
    if (!qn__fb_has(main, external))
        return QN_OK;
    const int64_t type = main->record == QN_MNN_REC_Blob ? qn__fb_int(d, main, QN_MNN_Blob_dataType)
                                                         : QN_MNN_DataType_DT_FLOAT;
    const bool ints = type == QN_MNN_DataType_DT_INT32;
    QN_FAIL_IF(!ints && type != QN_MNN_DataType_DT_FLOAT, error, QN_UNSUPPORTED,
               "a constant of data type %d in the side file cannot be taken into the file",
               (int)type);
    qn_fb_object *object = qn__fb_copy(d, *op);
    qn_fb_object *own = object ? qn__fb_copy(d, main) : NULL;
    if (own == NULL)
        return QN_NOMEM(error);
    const taker t = {source, d, *op, main, external, error};
    if (conv) {
        QN_TRY(take_convolution(&t, own));
    } else {
        QN_TRY(take_part(&t, 0, sizeof(float), own, SIDES[side].parts[ints]));
        if (main->record != QN_MNN_REC_Blob)
            QN_TRY(take_part(&t, 1, sizeof(float), own, SIDES[side].parts[1]));
    }
    qn__fb_clear(own, external);
    qn__fb_set_union(d, object, QN_MNN_Op_main, own);
    *op = object;
    return QN_OK;
}
