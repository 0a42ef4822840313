/* Small .mnn documents made on the spot, and what is done with a damaged one. */
#ifndef TEST_MNN_SEEDS_H
#define TEST_MNN_SEEDS_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "core/checked.h"
#include "core/context.h"
#include "core/io.h"
#include "format/mnn/mnn_format.h"
#include "memory_file.h"
#include "quant/model.h"

enum { N_MNN_SEEDS = 4 };

static inline qn_fb_object *seed_op(qn_fb_document *d, int32_t type, const char *name,
                                    qn_fb_object *main, size_t n_in, const int32_t *in, int32_t out)
{
    qn_fb_object *op = qn__fb_new(d, QN_MNN_REC_Op);
    qn__fb_set_int(op, QN_MNN_Op_type, type);
    qn__fb_set_string(d, op, QN_MNN_Op_name, name);
    if (main)
        qn__fb_set_union(d, op, QN_MNN_Op_main, main);
    if (n_in)
        qn__fb_set_vector(d, op, QN_MNN_Op_inputIndexes, in, n_in);
    qn__fb_set_vector(d, op, QN_MNN_Op_outputIndexes, &out, 1);
    qn__fb_set_int(op, QN_MNN_Op_defaultDimentionFormat, QN_MNN_MNN_DATA_FORMAT_NCHW);
    return op;
}

static inline qn_fb_object *seed_input(qn_fb_document *d)
{
    static const int32_t DIMS[] = {1, 2, 4, 4};
    qn_fb_object *input = qn__fb_new(d, QN_MNN_REC_Input);
    qn__fb_set_vector(d, input, QN_MNN_Input_dims, DIMS, 4);
    qn__fb_set_int(input, QN_MNN_Input_dtype, QN_MNN_DataType_DT_FLOAT);
    qn__fb_set_int(input, QN_MNN_Input_dformat, QN_MNN_MNN_DATA_FORMAT_NC4HW4);
    return seed_op(d, QN_MNN_OpType_Input, "x", input, 0, NULL, 0);
}

static inline qn_fb_object *seed_conv(qn_fb_document *d, int32_t from, int32_t to)
{
    static const float W[] = {1, -2, 3, -4, 5, -6}, B[] = {0.5f, 0, -1};
    qn_fb_object *common = qn__fb_new(d, QN_MNN_REC_Convolution2DCommon);
    qn_fb_object *conv = qn__fb_new(d, QN_MNN_REC_Convolution2D);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_kernelX, 1);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_kernelY, 1);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_outputCount, 3);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_inputCount, 2);
    qn__fb_set_int(common, QN_MNN_Convolution2DCommon_relu, 1);
    qn__fb_set_table(conv, QN_MNN_Convolution2D_common, common);
    qn__fb_set_vector(d, conv, QN_MNN_Convolution2D_weight, W, 6);
    qn__fb_set_vector(d, conv, QN_MNN_Convolution2D_bias, B, 3);
    return seed_op(d, QN_MNN_OpType_Convolution, "conv", conv, 1, &from, to);
}

static inline qn_fb_object *seed_pool(qn_fb_document *d, int32_t from, int32_t to)
{
    qn_fb_object *pool = qn__fb_new(d, QN_MNN_REC_Pool);
    const uint32_t twos[] = {QN_MNN_Pool_kernelX, QN_MNN_Pool_kernelY, QN_MNN_Pool_strideX,
                             QN_MNN_Pool_strideY};
    for (size_t i = 0; i < 4; i++)
        qn__fb_set_int(pool, twos[i], 2);
    return seed_op(d, QN_MNN_OpType_Pooling, "pool", pool, 1, &from, to);
}

static inline qn_fb_object *seed_const(qn_fb_document *d, int32_t to)
{
    static const int32_t DIMS[] = {1, 3, 1, 1};
    static const float VALUES[] = {1, 2, 3};
    qn_fb_object *blob = qn__fb_new(d, QN_MNN_REC_Blob);
    qn__fb_set_vector(d, blob, QN_MNN_Blob_dims, DIMS, 4);
    qn__fb_set_vector(d, blob, QN_MNN_Blob_float32s, VALUES, 3);
    qn__fb_set_int(blob, QN_MNN_Blob_dataFormat, QN_MNN_MNN_DATA_FORMAT_NCHW);
    return seed_op(d, QN_MNN_OpType_Const, "c", blob, 0, NULL, to);
}

static inline void seed_net(qn_fb_document *d, qn_fb_object *const *ops, size_t n_ops,
                            const char *const *names, size_t n_names)
{
    qn__fb_set_tables(d, d->root, QN_MNN_Net_oplists, ops, n_ops);
    qn__fb_set_strings(d, d->root, QN_MNN_Net_tensorName, names, n_names);
    qn__fb_set_strings(d, d->root, QN_MNN_Net_outputName, names + n_names - 1, 1);
    qn__fb_set_int(d->root, QN_MNN_Net_tensorNumber, (int64_t)n_names);
}

/* Constants, arithmetic, shapes. */
static inline void seed_moving(qn_fb_document *d)
{
    static const char *const NAMES[] = {"x", "conv", "c", "sum", "flat", "both", "y"};
    static const int32_t SHAPE[] = {1, -1, 1, 1}, SUM[] = {1, 2}, BOTH[] = {4, 4};
    static const int32_t FLAT[] = {3}, SOFT[] = {5};
    qn_fb_object *add = qn__fb_new(d, QN_MNN_REC_BinaryOp);
    qn_fb_object *reshape = qn__fb_new(d, QN_MNN_REC_Reshape);
    qn_fb_object *axis = qn__fb_new(d, QN_MNN_REC_Axis), *axis1 = qn__fb_new(d, QN_MNN_REC_Axis);
    qn__fb_set_int(add, QN_MNN_BinaryOp_opType, 0);
    qn__fb_set_vector(d, reshape, QN_MNN_Reshape_dims, SHAPE, 4);
    qn__fb_set_int(axis, QN_MNN_Axis_axis, 1);
    qn__fb_set_int(axis1, QN_MNN_Axis_axis, 1);
    qn_fb_object *ops[] = {seed_input(d),
                           seed_conv(d, 0, 1),
                           seed_const(d, 2),
                           seed_op(d, QN_MNN_OpType_BinaryOp, "sum", add, 2, SUM, 3),
                           seed_op(d, QN_MNN_OpType_Reshape, "flat", reshape, 1, FLAT, 4),
                           seed_op(d, QN_MNN_OpType_Concat, "both", axis, 2, BOTH, 5),
                           seed_op(d, QN_MNN_OpType_Softmax, "y", axis1, 1, SOFT, 6)};
    seed_net(d, ops, 7, NAMES, 7);
}

/* Records inside records, which only the table reader looks into. */
static inline void seed_nested(qn_fb_document *d)
{
    static const char *const NAMES[] = {"x"};
    static const int64_t EXTERNAL[] = {0, 4, 1};
    qn_fb_object *inner = NULL;
    for (int i = 0; i < 3; i++) {
        qn_fb_object *attribute = qn__fb_new(d, QN_MNN_REC_Attribute);
        qn_fb_object *list = qn__fb_new(d, QN_MNN_REC_NamedAttrList);
        qn_fb_object *blob = qn__fb_new(d, QN_MNN_REC_Blob);
        qn__fb_set_vector(d, blob, QN_MNN_Blob_external, EXTERNAL, 3);
        qn__fb_set_table(attribute, QN_MNN_Attribute_tensor, blob);
        qn__fb_set_string(d, attribute, QN_MNN_Attribute_key, "k");
        qn__fb_set_real(attribute, QN_MNN_Attribute_f, 0.5);
        if (inner)
            qn__fb_set_tables(d, list, QN_MNN_NamedAttrList_attr, &inner, 1);
        qn__fb_set_table(attribute, QN_MNN_Attribute_func, list);
        inner = attribute;
    }
    qn_fb_object *extra = qn__fb_new(d, QN_MNN_REC_Extra);
    qn__fb_set_tables(d, extra, QN_MNN_Extra_attr, &inner, 1);
    qn_fb_object *graph = qn__fb_new(d, QN_MNN_REC_SubGraphProto);
    qn_fb_object *op = seed_op(d, QN_MNN_OpType_Extra, "e", extra, 0, NULL, 0);
    qn__fb_set_tables(d, graph, QN_MNN_SubGraphProto_nodes, &op, 1);
    qn__fb_set_tables(d, d->root, QN_MNN_Net_subgraphs, &graph, 1);
    seed_net(d, &op, 1, NAMES, 1);
}

/* Bytes of seed number `which`, freed with qn__free; NULL: out of memory or a mistake here. */
static inline uint8_t *mnn_seed(const qn_context *ctx, int which, size_t *size)
{
    static const char *const NAMES[] = {"x", "conv", "pool"};
    static const int8_t Q[] = {1, -2, 3, -4, 5, -6};
    static const float SCALES[] = {1, 1, 1}, BIAS[] = {0.5f, 0, -1};
    static const qn_mnn_tensor_quant QUANTS[] = {{0, 0.1f, 0, -127, 127}, {1, 0.2f, 0, -127, 127}};
    const qn_mnn_conv_edit edit = {.q = Q,
                                   .scales = SCALES,
                                   .bias = BIAS,
                                   .rows = 3,
                                   .columns = 2,
                                   .bits = 8,
                                   .nbits = 8,
                                   .scale_in = 0.1f,
                                   .scale_out = 0.2f,
                                   .input_channels = 2};
    qn_fb_document d;
    uint8_t *bytes = NULL;
    if (qn__fb_create(ctx, &qn__mnn_schema, &d, NULL) != QN_OK)
        return NULL;
    bool ok = true;
    qn_error error = {0};
    if (which == 2) {
        seed_moving(&d);
    } else if (which == 3) {
        seed_nested(&d);
    } else {
        qn_fb_object *ops[] = {seed_input(&d), seed_conv(&d, 0, 1), seed_pool(&d, 1, 2)};
        seed_net(&d, ops, 3, NAMES, 3);
        if (which == 1)
            ok = qn__mnn_edit_conv(&d, ops[1], &edit, &error) == QN_OK &&
                 qn__mnn_edit_quants(&d, QUANTS, 2, &error) == QN_OK;
    }
    if (!ok || qn__fb_build(&d, &bytes, size, &error) != QN_OK) {
        fprintf(stderr, "seed %d: %s\n", which, error.message);
        bytes = NULL;
    }
    qn__fb_free(&d);
    return bytes;
}

/* --- files that are nowhere --------------------------------------------------------------------*/
static inline int null_open(void *ctx, const char *path, int flags, int mode)
{
    (void)ctx, (void)path, (void)mode;
    if ((flags & (O_CREAT | O_DIRECTORY)) != 0)
        return 1000;
    errno = ENOENT;
    return -1;
}

static inline int64_t null_write(void *ctx, int fd, const void *bytes, size_t size)
{
    (void)ctx, (void)fd, (void)bytes;
    return (int64_t)size;
}

/* A context that reads no files and writes to nowhere; limits hold hostile models small. */
static inline qn_context *mnn_hostile_context(void)
{
    qn_context *ctx = NULL;
    qn_context_options options;
    qn_limits limits;
    qn_io io;
    qn_io_init(&io);
    io.open = null_open;
    io.close = memory_one;
    io.fsync = memory_one;
    io.write = null_write;
    io.rename = memory_rename;
    io.unlink = memory_unlink;
    qn_limits_init(&limits);
    limits.tensor_bytes = 1 << 24;
    limits.arena_bytes = 1 << 24;
    qn_context_options_init(&options);
    options.io = &io;
    options.limits = &limits;
    options.n_threads = 1;
    return qn_context_create(&options, &ctx, NULL) == QN_OK ? ctx : NULL;
}

/* What was written is read, and written once more the same; unless it has a field that the schema
 * does not know and whose bytes look like an offset where they are now. */
static inline bool mnn_same_again(const qn_context *ctx, const uint8_t *bytes, size_t size)
{
    qn_fb_document doc;
    uint8_t *again = NULL;
    size_t again_size = 0;
    qn_blob *file = qn__blob_copy(ctx, bytes, size);
    if (!file || qn__fb_read(ctx, &qn__mnn_schema, "o.mnn", file, &doc, NULL) != QN_OK) {
        qn__blob_unref(file);
        return false;
    }
    const qn_status built = qn__fb_build(&doc, &again, &again_size, NULL);
    const bool same = built == QN_UNSUPPORTED ||
                      (built == QN_OK && again_size == size && memcmp(again, bytes, size) == 0);
    qn__free(ctx, again);
    qn__fb_free(&doc);
    qn__blob_unref(file);
    return same;
}

enum { MNN_MOST_MACS = 1000000, MNN_MOST_INPUTS = 8, MNN_MOST_VALUES = 1 << 16 };

/* One inference of zeros, unless it is long. The graph goes with it. */
static inline qn_status mnn_run(const qn_context *ctx, qn_graph *graph)
{
    qn_model *model = NULL;
    qn_session *session = NULL;
    qn_session_options options;
    const float *inputs[MNN_MOST_INPUTS];
    uint64_t macs = 0;
    for (size_t i = 0; i < graph->n_nodes && macs < MNN_MOST_MACS; i++) {
        const uint64_t own = qn__node_macs(graph->nodes[i]);
        macs = own > MNN_MOST_MACS ? MNN_MOST_MACS : macs + own;
    }
    if (macs >= MNN_MOST_MACS || graph->n_inputs > MNN_MOST_INPUTS ||
        qn__model_create(ctx, graph, "f.mnn", 0, &model, NULL) != QN_OK) {
        qn__graph_destroy(graph);
        return QN_LIMIT;
    }
    qn_session_options_init(&options);
    qn_status status = qn_session_create(model, &options, &session, NULL);
    float *zeros = status == QN_OK ? qn__calloc(ctx, MNN_MOST_VALUES, sizeof(*zeros)) : NULL;
    for (size_t i = 0; zeros && i < qn_model_n_inputs(model); i++) {
        uint32_t rank;
        int64_t dims[QN_MODEL_MAX_RANK];
        size_t count;
        inputs[i] = zeros;
        if (!qn_session_dims(session, false, i, &rank, dims) ||
            !qn_shape_count(&count, dims, rank) || count > MNN_MOST_VALUES)
            status = QN_LIMIT;
    }
    if (zeros && status == QN_OK)
        status = qn_session_run(session, inputs, NULL);
    qn__free(ctx, zeros);
    qn_session_destroy(session);
    qn_model_destroy(model);
    return status;
}

/* What a damaged file went through; false: something that was accepted does not hold. */
typedef struct mnn_fate {
    bool is_tree, is_graph, ok;
} mnn_fate;

static inline mnn_fate mnn_try(const qn_context *ctx, const uint8_t *data, size_t size)
{
    mnn_fate fate = {.ok = true};
    qn_fb_document doc;
    qn_graph *graph = NULL;
    qn_blob *file = qn__blob_copy(ctx, data, size);
    if (!file)
        return (mnn_fate){.ok = false};
    qn__format_mnn.probe(ctx, file->data, size);
    if (qn__fb_read(ctx, &qn__mnn_schema, "f.mnn", file, &doc, NULL) == QN_OK) {
        uint8_t *again = NULL;
        size_t again_size;
        qn_strbuf text;
        qn__strbuf_init(&text, ctx, 1u << 20);
        qn__fb_dump(&doc, &text);
        qn__strbuf_free(&text);
        const qn_status built = qn__fb_build(&doc, &again, &again_size, NULL);
        fate.is_tree = true;
        fate.ok = built == QN_OK || built == QN_UNSUPPORTED;
        if (built == QN_OK)
            fate.ok = mnn_same_again(ctx, again, again_size);
        qn__free(ctx, again);
        qn__fb_free(&doc);
    }
    if (qn__mnn_read(ctx, "f.mnn", file, &graph, NULL) == QN_OK) {
        fate.is_graph = true;
        fate.ok = fate.ok && fate.is_tree && qn__graph_verify(graph, NULL) == QN_OK;
        static const char *const PATHS[] = {"o.mnn", "o.onnx"};
        for (int i = 0; i < 2; i++) {
            const qn_status status = qn__format_write(graph, PATHS[i], NULL, NULL, NULL);
            fate.ok = fate.ok && status != QN_INTERNAL && status != QN_IO;
        }
        const qn_status status = mnn_run(ctx, graph);
        fate.ok = fate.ok && status != QN_INTERNAL;
    }
    qn__blob_unref(file);
    return fate;
}

#endif
