/* .mnn file -> document; the side file with large weights. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/context.h"
#include "core/io.h"
#include "format/mnn/mnn_source.h"

static void source_destroy(qn_source *base)
{
    qn_mnn_source *source = (qn_mnn_source *)base;
    const qn_context *ctx = source->ctx;
    qn__blob_unref(source->side_file);
    qn__fb_free(&source->doc);
    qn__free(ctx, source);
}

/* The operators of 2019 are never written anew. */
static bool in_integers(const qn_source *base, const qn_node *node)
{
    const qn_mnn_source *source = (const qn_mnn_source *)base;
    for (uint32_t i = 0; i < node->n_sources; i++) {
        if (node->sources[i] >= source->n_ops)
            continue;
        switch (qn__fb_int(&source->doc, source->ops[node->sources[i]], QN_MNN_Op_type)) {
        case QN_MNN_OpType_ConvInt8:
        case QN_MNN_OpType_DepthwiseConvInt8:
        case QN_MNN_OpType_FloatToInt8:
        case QN_MNN_OpType_Int8ToFloat:
        case QN_MNN_OpType_EltwiseInt8:
            return true;
        default:
            break;
        }
    }
    return false;
}

static const struct qn_source_vtable VTABLE = {source_destroy, in_integers};

qn_mnn_source *qn__mnn_source_of(const qn_graph *graph)
{
    return graph->source && graph->source->vtable == &VTABLE ? (qn_mnn_source *)graph->source
                                                             : NULL;
}

qn_status qn__mnn_source_read(const qn_context *ctx, const char *path, qn_blob *file,
                              qn_mnn_source **out, qn_error *error)
{
    qn_fb_document doc;
    QN_TRY(qn__fb_read(ctx, &qn__mnn_schema, path, file, &doc, error));
    qn_mnn_source *source = qn__calloc(ctx, 1, sizeof(*source));
    if (!source) {
        qn__fb_free(&doc);
        return QN_NOMEM(error);
    }
    source->base.format = "mnn";
    source->base.vtable = &VTABLE;
    source->base.refs = 1;
    source->ctx = ctx;
    source->doc = doc;
    source->path = qn__arena_strdup(&source->doc.arena, path);
    source->ops = qn__fb_tables(doc.root, QN_MNN_Net_oplists, &source->n_ops);
    source->n_tensors = doc.root->values[QN_MNN_Net_tensorName].present
                            ? doc.root->values[QN_MNN_Net_tensorName].count
                            : 0;
    if (!source->path) {
        qn__source_unref(&source->base);
        return QN_NOMEM(error);
    }
    *out = source;
    return QN_OK;
}

/* --- side file --------------------------------------------------------------------------------*/
static qn_status open_side_file(qn_mnn_source *source, qn_error *error)
{
    qn_arena *arena = &source->doc.arena;
    const char *path = qn__arena_printf(arena, "%s.weight", source->path);
    const char *slash = strrchr(source->path, '/');
    const char *folder = slash == source->path ? "/" : ".";
    if (slash && slash != source->path)
        folder = qn__arena_strndup(arena, source->path, (size_t)(slash - source->path));
    if (!path || !folder)
        return QN_NOMEM(error);
    char real_folder[PATH_MAX], real_path[PATH_MAX];
    QN_FAIL_IF(!realpath(folder, real_folder), error, QN_IO, "%s: %s", folder, strerror(errno));
    QN_FAIL_IF(!realpath(path, real_path), error, QN_IO, "external weights %s: %s", path,
               strerror(errno));
    const size_t length = strlen(real_folder);
    const bool inside = strcmp(real_folder, "/") == 0 ||
                        (strncmp(real_path, real_folder, length) == 0 && real_path[length] == '/');
    QN_FAIL_IF(!inside, error, QN_UNSAFE_PATH,
               "external weights \"%s\" lead outside the model's folder", path);
    struct stat info;
    QN_FAIL_IF(stat(real_path, &info) != 0, error, QN_IO, "external weights %s: %s", path,
               strerror(errno));
    QN_FAIL_IF(!S_ISREG(info.st_mode), error, QN_UNSAFE_PATH,
               "external weights \"%s\" are not a regular file", path);
    qn_file_view view;
    QN_TRY(qn__file_open(source->ctx, real_path, &view, error));
    source->side_file = qn__blob_from_file(source->ctx, &view);
    if (!source->side_file) {
        qn__file_close(source->ctx, &view);
        return QN_NOMEM(error);
    }
    return QN_OK;
}

/* MODEL.mnn.weight is the only file that weights are read from, under whatever name. */
static qn_status check_external_path(const qn_mnn_source *source, const qn_fb_object *op,
                                     qn_error *error)
{
    const char *named = qn__fb_string(op, QN_MNN_Op_externalPath);
    const char *slash = strrchr(source->path, '/');
    const char *own = slash ? slash + 1 : source->path;
    const size_t length = strlen(own);
    if (!named || named[0] == '\0' ||
        (strncmp(named, own, length) == 0 && strcmp(named + length, ".weight") == 0))
        return QN_OK;
    const char *name = qn__fb_string(op, QN_MNN_Op_name);
    QN_FAIL(error, QN_UNSAFE_PATH,
            "operator \"%.80s\": weights in \"%.200s\", only \"%s.weight\" beside the model is "
            "read",
            name ? name : "", named, own);
}

qn_status qn__mnn_side_bytes(qn_mnn_source *source, const qn_fb_object *op, int64_t offset,
                             int64_t size_bytes, qn_blob **out, qn_error *error)
{
    QN_TRY(check_external_path(source, op, error));
    if (!source->side_file)
        QN_TRY(open_side_file(source, error));
    const size_t have = source->side_file->size_bytes;
    QN_FAIL_IF(offset < 0 || size_bytes < 0 || (uint64_t)offset > have ||
                   (uint64_t)size_bytes > have - (uint64_t)offset,
               error, QN_CORRUPT,
               "external weights: %" PRId64 " bytes at %" PRId64 " of a file of %zu", size_bytes,
               offset, have);
    *out = qn__blob_slice(source->side_file, (size_t)offset, (size_t)size_bytes);
    return *out ? QN_OK : QN_NOMEM(error);
}

/* --- weights ----------------------------------------------------------------------------------*/
/* Where the records that carry weights have them; -1: nowhere. */
static const struct {
    int32_t record;
    int32_t weight, bias, quan, external;
} CARRIERS[] = {
    {QN_MNN_REC_Convolution2D, QN_MNN_Convolution2D_weight, QN_MNN_Convolution2D_bias,
     QN_MNN_Convolution2D_quanParameter, QN_MNN_Convolution2D_external},
    {QN_MNN_REC_InnerProduct, QN_MNN_InnerProduct_weight, QN_MNN_InnerProduct_bias,
     QN_MNN_InnerProduct_quanParameter, -1},
    {QN_MNN_REC_MatMul, QN_MNN_MatMul_weight, QN_MNN_MatMul_bias, -1, -1},
};

static qn_status slice(const qn_mnn_source *source, const qn_fb_object *object, int32_t slot,
                       size_t element_bytes, qn_blob **out, qn_error *error)
{
    size_t count = 0;
    const uint8_t *bytes = slot >= 0 ? qn__fb_bytes(object, (uint32_t)slot, &count) : NULL;
    if (count == 0)
        return QN_OK;
    qn_blob *file = source->doc.file;
    *out = qn__blob_slice(file, (size_t)(bytes - file->data), count * element_bytes);
    return *out ? QN_OK : QN_NOMEM(error);
}

/* external: [offset, sizes of consecutive parts...] */
static qn_status read_external(qn_mnn_source *source, const qn_fb_object *op, uint32_t slot,
                               qn_mnn_stored *out, qn_error *error)
{
    const qn_fb_object *main = qn__fb_table(op, QN_MNN_Op_main);
    size_t n = 0;
    qn__fb_bytes(main, slot, &n);
    const bool floats =
        !out->quan || qn__fb_int(&source->doc, out->quan, QN_MNN_IDSTQuan_type) == 8;
    qn_blob **const plain[] = {&out->blob, &out->bias};
    qn_blob **const packed[] = {&out->blob, &out->alpha, &out->bias};
    const size_t most = floats ? 2 : 3;
    QN_FAIL_IF(n < 2, error, QN_CORRUPT, "\"external\" has %zu values", n);
    int64_t offset = qn__fb_int_at(&source->doc, main, slot, 0);
    for (size_t i = 0; i < most && i + 1 < n; i++) {
        const int64_t size = qn__fb_int_at(&source->doc, main, slot, i + 1);
        qn_blob **part = floats ? plain[i] : packed[i];
        if (size != 0 && !*part)
            QN_TRY(qn__mnn_side_bytes(source, op, offset, size, part, error));
        QN_FAIL_IF(size < 0 || __builtin_add_overflow(offset, size, &offset), error, QN_CORRUPT,
                   "\"external\": part %zu has %" PRId64 " bytes", i, size);
    }
    return QN_OK;
}

qn_status qn__mnn_stored(qn_mnn_source *source, size_t op, qn_mnn_stored *out, qn_error *error)
{
    *out = (qn_mnn_stored){0};
    const qn_fb_object *main =
        op < source->n_ops ? qn__fb_table(source->ops[op], QN_MNN_Op_main) : NULL;
    size_t c = 0;
    const size_t n = sizeof(CARRIERS) / sizeof(CARRIERS[0]);
    while (main && c < n && CARRIERS[c].record != main->record)
        c++;
    QN_FAIL_IF(!main || c == n, error, QN_CORRUPT, "the operator has no weights");
    if (CARRIERS[c].quan >= 0)
        out->quan = qn__fb_table(main, (uint32_t)CARRIERS[c].quan);
    qn_status status;
    QN_TRY_GOTO(slice(source, main, CARRIERS[c].bias, 4, &out->bias, error));
    QN_TRY_GOTO(slice(source, main, CARRIERS[c].weight, 4, &out->blob, error));
    if (out->blob)
        out->quan = NULL; /* floats win, as in MNN */
    if (out->quan) {
        out->alpha_is_half = qn__fb_int(&source->doc, out->quan, QN_MNN_IDSTQuan_scaleStorage) ==
                             QN_MNN_ScaleStorageType_FP16;
        QN_TRY_GOTO(slice(source, out->quan, QN_MNN_IDSTQuan_buffer, 1, &out->blob, error));
        if (out->alpha_is_half)
            QN_TRY_GOTO(slice(source, out->quan, QN_MNN_IDSTQuan_alphaFp16, 2, &out->alpha, error));
        else
            QN_TRY_GOTO(slice(source, out->quan, QN_MNN_IDSTQuan_alpha, 4, &out->alpha, error));
    }
    if (!out->blob && CARRIERS[c].external >= 0 && qn__fb_has(main, (uint32_t)CARRIERS[c].external))
        QN_TRY_GOTO(
            read_external(source, source->ops[op], (uint32_t)CARRIERS[c].external, out, error));
    return QN_OK;
done:
    qn__mnn_stored_free(out);
    return status;
}

void qn__mnn_stored_free(qn_mnn_stored *stored)
{
    qn__blob_unref(stored->blob);
    qn__blob_unref(stored->alpha);
    qn__blob_unref(stored->bias);
    *stored = (qn_mnn_stored){0};
}
