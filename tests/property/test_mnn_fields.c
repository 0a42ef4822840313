/* Every operator that is read, with every number and list of its parameters set to values that fit
 * and values that do not, over inputs of several ranks and layouts, and with other numbers of
 * inputs: what is refused names the operator, what is accepted is a graph that can be planned or is
 * refused with a reason then. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/context.h"
#include "format/mnn/mnn_format.h"
#include "pass/pass.h"
#include "run/run.h"

#define BIG INT32_MAX

static qn_context *ctx;
static size_t n_accepted, n_refused, n_planned;

typedef struct op_case {
    int32_t type, record;          /* record -1: none */
    int32_t n_in;                  /* of float tensors like x, constants follow */
    const int32_t *constants[3];   /* values of further inputs, integers */
    size_t n_constants, counts[3]; /* and how many */
} op_case;

#define INTS(...)                                                                                  \
    (const int32_t[])                                                                              \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define OP(t, r, n)                                                                                \
    {                                                                                              \
        QN_MNN_OpType_##t, QN_MNN_REC_##r, n, {NULL}, 0,                                           \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }
#define BARE(t, n)                                                                                 \
    {                                                                                              \
        QN_MNN_OpType_##t, -1, n, {NULL}, 0,                                                       \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }
#define OP1(t, r, n, a, na)                                                                        \
    {                                                                                              \
        QN_MNN_OpType_##t, QN_MNN_REC_##r, n, {a}, 1,                                              \
        {                                                                                          \
            na                                                                                     \
        }                                                                                          \
    }
#define OP2(t, r, n, a, na, b, nb)                                                                 \
    {                                                                                              \
        QN_MNN_OpType_##t, QN_MNN_REC_##r, n, {a, b}, 2,                                           \
        {                                                                                          \
            na, nb                                                                                 \
        }                                                                                          \
    }
#define OP3(t, r, n, a, na, b, nb, c, nc)                                                          \
    {                                                                                              \
        QN_MNN_OpType_##t, QN_MNN_REC_##r, n, {a, b, c}, 3,                                        \
        {                                                                                          \
            na, nb, nc                                                                             \
        }                                                                                          \
    }

static const op_case OPS[] = {
    OP(Convolution, Convolution2D, 1),
    OP(Convolution, Convolution2D, 3),
    OP(ConvolutionDepthwise, Convolution2D, 1),
    OP(Deconvolution, Convolution2D, 1),
    OP1(Deconvolution, Convolution2D, 1, INTS(1, 8, 8, 3), 4),
    OP(DeconvolutionDepthwise, Convolution2D, 1),
    OP(InnerProduct, InnerProduct, 1),
    OP(MatMul, MatMul, 2),
    OP(MatMul, MatMul, 3),
    OP(BatchMatMul, BatchMatMulParam, 2),
    OP(FloatToInt8, QuantizedFloatParam, 1),
    OP(Int8ToFloat, QuantizedFloatParam, 1),
    OP(ConvInt8, Convolution2D, 1),
    OP(DepthwiseConvInt8, Convolution2D, 1),
    OP(EltwiseInt8, EltwiseInt8, 2),
    OP(Pooling, Pool, 1),
    OP(Pooling3D, Pool3D, 1),
    OP(Reduction, ReductionParam, 1),
    OP1(Reduction, ReductionParam, 1, INTS(1), 1),
    OP(ArgMax, ArgMax, 1),
    OP1(ArgMin, ArgMax, 1, INTS(1), 1),
    OP(BinaryOp, BinaryOp, 2),
    OP1(BinaryOp, BinaryOp, 1, INTS(3), 1),
    OP(Eltwise, Eltwise, 2),
    OP(Eltwise, Eltwise, 3),
    OP(UnaryOp, UnaryOp, 1),
    BARE(AbsVal, 1),
    BARE(Bnll, 1),
    OP(ReLU, Relu, 1),
    OP(ReLU6, Relu6, 1),
    OP(PReLU, PRelu, 1),
    OP(ELU, ELU, 1),
    OP(Selu, Selu, 1),
    OP(Cast, CastParam, 1),
    BARE(Select, 3),
    OP(Scale, Scale, 1),
    OP(BatchNorm, BatchNorm, 1),
    OP(LRN, LRN, 1),
    OP(Normalize, Normalize, 1),
    OP(LayerNorm, LayerNorm, 1),
    OP(Softmax, Axis, 1),
    BARE(Identity, 1),
    BARE(Identity, 2),
    OP(ConvertTensor, TensorConvertInfo, 1),
    OP(Reshape, Reshape, 1),
    OP1(Reshape, Reshape, 1, INTS(1, -1), 2),
    OP1(Reshape, Reshape, 1, INTS(1, 3, 2, 8), 4),
    OP(Reshape, Reshape, 2),
    OP(Squeeze, SqueezeParam, 1),
    OP1(Squeeze, SqueezeParam, 1, INTS(0), 1),
    OP(Unsqueeze, SqueezeParam, 1),
    OP1(ExpandDims, ExpandDims, 1, INTS(1), 1),
    OP(ExpandDims, ExpandDims, 1),
    OP(Flatten, Flatten, 1),
    OP(Permute, Permute, 1),
    OP1(Transpose, Permute, 1, INTS(1, 0, 2, 3), 4),
    OP(Concat, Axis, 2),
    OP(Slice, Slice, 1),
    OP2(SliceTf, SliceTf, 1, INTS(0, 1, 0, 0), 4, INTS(1, -1, 2, 2), 4),
    OP3(StridedSlice, StridedSliceParam, 1, INTS(0, 1), 2, INTS(1, 3), 2, INTS(1, 1), 2),
    OP3(StridedSlice, StridedSliceParam, 1, INTS(0, 1, 3, 3), 4, INTS(1, 3, 0, -9), 4,
        INTS(1, 1, -1, -2), 4),
    OP2(StridedSlice, StridedSliceParam, 1, INTS(0, 1), 2, INTS(1, 3, 3), 3),
    OP(Crop, Crop, 2),
    OP1(Gather, Gather, 1, INTS(0, 1), 2),
    OP2(GatherV2, GatherV2, 1, INTS(0, 1), 2, INTS(1), 1),
    OP1(GatherV2, Axis, 1, INTS(0, 1), 2),
    OP(Pack, PackParam, 2),
    OP(Unpack, Axis, 1),
    OP1(Padding, PadParam, 1, INTS(0, 0, 0, 0, 1, 1, 2, 0), 8),
    OP1(Padding, PadParam, 1, INTS(0, 0, 1), 3),
    OP2(Padding, PadParam, 1, INTS(0, 0, 0, 0, 1, 1, 2, 0), 8, INTS(5), 1),
    OP1(BroadcastTo, Axis, 1, INTS(2, 3, 4, 4), 4),
    OP1(Tile, Axis, 1, INTS(1, 2, 1, 1), 4),
    OP(DepthToSpace, DepthSpaceParam, 1),
    OP(SpaceToDepth, DepthSpaceParam, 1),
    OP(Interp, Interp, 1),
    OP1(Interp, Interp, 1, INTS(6, 7), 2),
    OP1(Interp, Interp, 1, INTS(1, 3, 6, 7), 4),
    OP1(Interp, Interp, 1, INTS(1, 2, 3), 3),
    OP(Resize, Resize, 1),
    OP1(GatherND, Axis, 1, INTS(0, 1), 2),
    OP1(GatherElements, Axis, 1, INTS(0, 1), 2),
    OP3(ScatterNd, BinaryOp, 0, INTS(0, 1), 2, INTS(5, 6), 2, INTS(4), 1),
    OP2(ScatterElements, BinaryOp, 1, INTS(0, 1), 2, INTS(5, 6), 2),
    OP1(TopKV2, TopKV2, 1, INTS(2), 1),
    OP2(TopKV2, TopKV2, 1, INTS(2), 1, INTS(0), 1),
    OP3(OneHot, OneHotParam, 0, INTS(0, 2), 2, INTS(4), 1, INTS(1), 1),
    OP1(CumSum, CumSum, 1, INTS(1), 1),
    BARE(EyeLike, 1),
    BARE(Shape, 1),
    OP(Shape, ShapeParam, 1),
    BARE(Size, 1),
    BARE(Rank, 1),
    OP3(Range, Range, 0, INTS(0), 1, INTS(9), 1, INTS(2), 1),
    OP2(Fill, Fill, 0, INTS(2, 3), 2, INTS(7), 1),
    BARE(ZerosLike, 1),
};
enum { N_OPS = sizeof(OPS) / sizeof(OPS[0]), MOST_IN = 12 };

/* Inputs like these. */
static const struct shape {
    int32_t dims[4];
    size_t rank;
    int32_t format;
} SHAPES[] = {{{1, 3, 4, 4}, 4, QN_MNN_MNN_DATA_FORMAT_NC4HW4},
              {{1, 4, 4, 3}, 4, QN_MNN_MNN_DATA_FORMAT_NHWC},
              {{1, 3, 4, 4}, 4, QN_MNN_MNN_DATA_FORMAT_NCHW},
              {{2, 3}, 2, QN_MNN_MNN_DATA_FORMAT_NCHW},
              {{-1, 3, -1, -1}, 4, QN_MNN_MNN_DATA_FORMAT_NCHW}};
enum { N_SHAPES = sizeof(SHAPES) / sizeof(SHAPES[0]) };

/* What a scalar, a list of integers and a list of reals are set to. */
static const int64_t NUMBERS[] = {-1, 0, 1, 2, 3, 100, BIG, INT32_MIN};
static const double REALS[] = {0, -1, 1.5, NAN, INFINITY};
static const struct list {
    int64_t values[9];
    size_t n;
} LISTS[] = {{{0}, 0},          {{0}, 1},          {{1}, 1},
             {{-1}, 1},         {{2, 2}, 2},       {{1, 2, 1}, 3},
             {{3, 0, 1, 2}, 4}, {{1, 1, 1, 1}, 4}, {{BIG, BIG, BIG, BIG}, 4},
             {{1, 3}, 2},       {{1, 2, 3}, 3},    {{1, 1, 1, 1, 1, 1, 1, 1, 1}, 9}};
enum { N_NUMBERS = 8, N_REALS = 5, N_LISTS = sizeof(LISTS) / sizeof(LISTS[0]) };

/* --- one document ------------------------------------------------------------------------------*/
typedef struct net {
    qn_fb_document d;
    qn_fb_object *ops[MOST_IN + 1];
    const char *names[MOST_IN + 1];
    size_t n;
} net;

static qn_fb_object *add(net *t, int32_t type, const char *name, qn_fb_object *main)
{
    qn_fb_object *op = qn__fb_new(&t->d, QN_MNN_REC_Op);
    const int32_t id = (int32_t)t->n;
    qn__fb_set_int(op, QN_MNN_Op_type, type);
    assert_true(qn__fb_set_string(&t->d, op, QN_MNN_Op_name, name));
    if (main != NULL)
        qn__fb_set_union(&t->d, op, QN_MNN_Op_main, main);
    assert_true(qn__fb_set_vector(&t->d, op, QN_MNN_Op_outputIndexes, &id, 1));
    t->names[t->n] = name;
    t->ops[t->n++] = op;
    return op;
}

/* Inputs x0, x1..., constants c0..., and the operator "last"; its parameters are returned. */
static qn_fb_object *begin(net *t, const op_case *c, const struct shape *s, int32_t record)
{
    static const char *const X[] = {"x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8"};
    static const char *const C[] = {"c0", "c1", "c2"};
    int32_t from[MOST_IN];
    *t = (net){0};
    assert_int_equal(qn__fb_create(ctx, &qn__mnn_schema, &t->d, NULL), QN_OK);
    for (int32_t i = 0; i < c->n_in; i++) {
        qn_fb_object *input = qn__fb_new(&t->d, QN_MNN_REC_Input);
        assert_true(qn__fb_set_vector(&t->d, input, QN_MNN_Input_dims, s->dims, s->rank));
        qn__fb_set_int(input, QN_MNN_Input_dtype, QN_MNN_DataType_DT_FLOAT);
        qn__fb_set_int(input, QN_MNN_Input_dformat, s->format);
        add(t, QN_MNN_OpType_Input, X[i], input);
    }
    for (size_t i = 0; i < c->n_constants; i++) {
        qn_fb_object *blob = qn__fb_new(&t->d, QN_MNN_REC_Blob);
        const int32_t count = (int32_t)c->counts[i];
        assert_true(qn__fb_set_vector(&t->d, blob, QN_MNN_Blob_dims, &count, 1));
        assert_true(
            qn__fb_set_vector(&t->d, blob, QN_MNN_Blob_int32s, c->constants[i], c->counts[i]));
        qn__fb_set_int(blob, QN_MNN_Blob_dataType, QN_MNN_DataType_DT_INT32);
        qn__fb_set_int(blob, QN_MNN_Blob_dataFormat, QN_MNN_MNN_DATA_FORMAT_NCHW);
        add(t, QN_MNN_OpType_Const, C[i], blob);
    }
    const size_t n_in = t->n;
    for (size_t i = 0; i < n_in; i++)
        from[i] = (int32_t)i;
    qn_fb_object *main = record >= 0 ? qn__fb_new(&t->d, record) : NULL;
    qn_fb_object *op = add(t, c->type, "last", main);
    if (n_in > 0)
        assert_true(qn__fb_set_vector(&t->d, op, QN_MNN_Op_inputIndexes, from, n_in));
    qn__fb_set_int(op, QN_MNN_Op_defaultDimentionFormat, s->format);
    return main;
}

static void plan(qn_graph *g, const char *what)
{
    qn_pass_options passes;
    qn_plan_options options;
    qn_plan *made = NULL;
    qn_error error = {0};
    qn__pass_options_init(&passes);
    passes.resolve = qn__graph_resolve;
    qn__plan_options_init(&options, ctx);
    qn_status status = qn__passes_simplify(g, &passes, &error);
    if (status == QN_OK)
        status = qn__plan_create(g, &options, &made, &error);
    n_planned += status == QN_OK;
    if (status != QN_OK && (status == QN_INTERNAL || strlen(error.message) < 15))
        fail_msg("%s: planning: %s \"%s\"", what, qn_status_name(status), error.message);
    qn__plan_destroy(made);
}

static void end(net *t, const char *what)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    qn_graph *g = NULL;
    qn_error error = {0};
    assert_true(qn__fb_set_tables(&t->d, t->d.root, QN_MNN_Net_oplists, t->ops, t->n));
    assert_true(qn__fb_set_strings(&t->d, t->d.root, QN_MNN_Net_tensorName, t->names, t->n));
    assert_true(
        qn__fb_set_strings(&t->d, t->d.root, QN_MNN_Net_outputName, &t->names[t->n - 1], 1));
    assert_int_equal(qn__fb_build(&t->d, &bytes, &size, NULL), QN_OK);
    qn__fb_free(&t->d);
    qn_blob *file = qn__blob_copy(ctx, bytes, size);
    qn__free(ctx, bytes);
    assert_non_null(file);
    const qn_status status = qn__mnn_read(ctx, "m.mnn", file, &g, &error);
    qn__blob_unref(file);
    if (status == QN_OK) {
        n_accepted++;
        plan(g, what);
        qn__graph_destroy(g);
        return;
    }
    n_refused++;
    if (status < QN_CORRUPT || status > QN_NONFINITE || strncmp(error.message, "m.mnn", 5) != 0 ||
        strstr(error.message, "last") == NULL || strchr(error.message, '\n') != NULL)
        fail_msg("%s: %s \"%s\" does not name the operator", what, qn_status_name(status),
                 error.message);
}

/* --- fields ------------------------------------------------------------------------------------*/
static size_t n_values(const qn_fb_field *f)
{
    const bool real = f->element == QN_FB_F32 || f->element == QN_FB_F64;
    switch (f->kind) {
    case QN_FB_SCALAR:
        return real ? N_REALS : N_NUMBERS;
    case QN_FB_VECTOR:
        return N_LISTS;
    case QN_FB_TABLE:
        return 1;
    default:
        return 0;
    }
}

static void set_list(net *t, qn_fb_object *o, uint32_t slot, qn_fb_scalar element,
                     const struct list *l)
{
    uint8_t bytes[9 * 8];
    for (size_t i = 0; i < l->n; i++) {
        const float real = (float)l->values[i];
        if (element == QN_FB_F32)
            memcpy(bytes + 4 * i, &real, 4);
        else
            memcpy(bytes + qn__fb_scalar_bytes(element) * i, &l->values[i],
                   qn__fb_scalar_bytes(element)); /* little-endian */
    }
    assert_true(qn__fb_set_vector(&t->d, o, slot, bytes, l->n));
}

static void set(net *t, qn_fb_object *o, uint32_t slot, size_t which)
{
    const qn_fb_field *const f = &qn__mnn_schema.records[o->record].fields[slot];
    if (f->kind == QN_FB_VECTOR)
        set_list(t, o, slot, f->element, &LISTS[which]);
    else if (f->kind == QN_FB_TABLE)
        qn__fb_set_table(o, slot, qn__fb_new(&t->d, f->target));
    else if (f->element == QN_FB_F32 || f->element == QN_FB_F64)
        qn__fb_set_real(o, slot, REALS[which]);
    else
        qn__fb_set_int(o, slot, NUMBERS[which]);
}

static void describe(char *to, size_t size, const op_case *c, const struct shape *s,
                     const char *field, size_t which)
{
    snprintf(to, size, "operator %d, %d inputs of rank %zu in layout %d, %s, value %zu",
             (int)c->type, (int)c->n_in, s->rank, (int)s->format, field, which);
}

/* Weights and counts that fit the first shape, where lists of one kind alone would never. */
static void fill(net *t, qn_fb_object *main, const struct shape *s)
{
    static const float ONES[27] = {1, -1, 0.5f, 1, 2, 3, 0.25f, 1, 1};
    static const int8_t LEVELS[9] = {1, -2, 3, 4, -5, 6, 7, 8, -9};
    const int32_t channels =
        s->rank == 4 && s->format == QN_MNN_MNN_DATA_FORMAT_NHWC ? s->dims[3] : 3;
    qn_fb_document *const d = &t->d;
    switch (main->record) {
    case QN_MNN_REC_Convolution2D: {
        qn_fb_object *common = qn__fb_new(d, QN_MNN_REC_Convolution2DCommon);
        qn__fb_set_int(common, QN_MNN_Convolution2DCommon_kernelX, 1);
        qn__fb_set_int(common, QN_MNN_Convolution2DCommon_kernelY, 1);
        qn__fb_set_int(common, QN_MNN_Convolution2DCommon_outputCount, channels);
        qn__fb_set_table(main, QN_MNN_Convolution2D_common, common);
        qn_fb_object *quan = qn__fb_new(d, QN_MNN_REC_QuantizedFloatParam);
        qn__fb_set_vector(d, quan, QN_MNN_QuantizedFloatParam_weight, LEVELS, 9);
        qn__fb_set_vector(d, quan, QN_MNN_QuantizedFloatParam_scale, ONES, 3);
        qn__fb_set_table(main, QN_MNN_Convolution2D_symmetricQuan, quan);
        qn__fb_set_vector(d, main, QN_MNN_Convolution2D_weight, ONES, 9);
        qn__fb_set_vector(d, main, QN_MNN_Convolution2D_bias, ONES, 3);
        break;
    }
    case QN_MNN_REC_InnerProduct:
        qn__fb_set_int(main, QN_MNN_InnerProduct_outputCount, 9);
        qn__fb_set_int(main, QN_MNN_InnerProduct_axis, 1);
        qn__fb_set_int(main, QN_MNN_InnerProduct_biasTerm, 1);
        qn__fb_set_vector(d, main, QN_MNN_InnerProduct_weight, ONES, 27);
        qn__fb_set_vector(d, main, QN_MNN_InnerProduct_bias, ONES, 9);
        break;
    case QN_MNN_REC_EltwiseInt8:
        for (uint32_t slot = QN_MNN_EltwiseInt8_inputQuan0; slot <= QN_MNN_EltwiseInt8_outputQuan;
             slot++) {
            qn_fb_object *quan = qn__fb_new(d, QN_MNN_REC_QuantizedFloatParam);
            qn__fb_set_vector(d, quan, QN_MNN_QuantizedFloatParam_tensorScale, ONES, 1);
            qn__fb_set_table(main, slot, quan);
        }
        break;
    case QN_MNN_REC_QuantizedFloatParam:
        qn__fb_set_vector(d, main, QN_MNN_QuantizedFloatParam_tensorScale, ONES, 3);
        break;
    case QN_MNN_REC_Scale:
        qn__fb_set_int(main, QN_MNN_Scale_channels, channels);
        qn__fb_set_vector(d, main, QN_MNN_Scale_scaleData, ONES, 3);
        qn__fb_set_vector(d, main, QN_MNN_Scale_biasData, ONES, 3);
        break;
    case QN_MNN_REC_BatchNorm:
        qn__fb_set_int(main, QN_MNN_BatchNorm_channels, channels);
        for (uint32_t slot = QN_MNN_BatchNorm_slopeData; slot <= QN_MNN_BatchNorm_biasData; slot++)
            qn__fb_set_vector(d, main, slot, ONES, 3);
        break;
    case QN_MNN_REC_Normalize:
        qn__fb_set_real(main, QN_MNN_Normalize_eps, 1e-3);
        qn__fb_set_vector(d, main, QN_MNN_Normalize_scale, ONES, 3);
        break;
    case QN_MNN_REC_PRelu:
        qn__fb_set_int(main, QN_MNN_PRelu_slopeCount, 3);
        qn__fb_set_vector(d, main, QN_MNN_PRelu_slope, ONES, 3);
        break;
    case QN_MNN_REC_LRN:
        qn__fb_set_int(main, QN_MNN_LRN_localSize, 3);
        break;
    case QN_MNN_REC_LayerNorm: {
        const int32_t last = (int32_t)s->rank - 1;
        qn__fb_set_vector(d, main, QN_MNN_LayerNorm_axis, &last, 1);
        break;
    }
    case QN_MNN_REC_Pool:
        qn__fb_set_int(main, QN_MNN_Pool_kernelX, 2);
        qn__fb_set_int(main, QN_MNN_Pool_kernelY, 2);
        break;
    case QN_MNN_REC_Interp:
        qn__fb_set_int(main, QN_MNN_Interp_outputWidth, 7);
        qn__fb_set_int(main, QN_MNN_Interp_outputHeight, 6);
        qn__fb_set_int(main, QN_MNN_Interp_resizeType, 2);
        break;
    case QN_MNN_REC_Resize:
        qn__fb_set_real(main, QN_MNN_Resize_xScale, 2);
        qn__fb_set_real(main, QN_MNN_Resize_yScale, 2);
        break;
    case QN_MNN_REC_DepthSpaceParam:
        qn__fb_set_int(main, QN_MNN_DepthSpaceParam_blockSize, 2);
        break;
    case QN_MNN_REC_Axis:
        qn__fb_set_int(main, QN_MNN_Axis_axis, 1);
        break;
    default:
        break;
    }
}

static void every_field_of_every_operator(void **state)
{
    (void)state;
    char what[256];
    for (size_t i = 0; i < N_OPS; i++)
        for (size_t s = 0; s < N_SHAPES; s++) {
            const op_case *const c = &OPS[i];
            net t;
            const uint32_t n_fields =
                c->record >= 0 ? qn__mnn_schema.records[c->record].n_fields : 0;
            describe(what, sizeof(what), c, &SHAPES[s], "as it is", 0);
            qn_fb_object *main = begin(&t, c, &SHAPES[s], c->record);
            if (main != NULL)
                fill(&t, main, &SHAPES[s]);
            end(&t, what);
            for (uint32_t slot = 0; slot < n_fields; slot++) {
                const qn_fb_field *const f = &qn__mnn_schema.records[c->record].fields[slot];
                for (size_t v = 0; v < n_values(f); v++) {
                    describe(what, sizeof(what), c, &SHAPES[s], f->name, v);
                    main = begin(&t, c, &SHAPES[s], c->record);
                    fill(&t, main, &SHAPES[s]);
                    set(&t, main, slot, v);
                    end(&t, what);
                }
            }
        }
    /* a table that refuses, or accepts, everything would show nothing */
    assert_true(n_accepted > 4000);
    assert_true(n_refused > 4000);
    assert_true(n_planned > 3000);
}

/* The records inside a record: geometry of convolutions, scales of integers. */
static void every_field_of_inner_records(void **state)
{
    (void)state;
    static const struct {
        int32_t record;
        uint32_t slot;
    } INNER[] = {{QN_MNN_REC_Convolution2D, QN_MNN_Convolution2D_common},
                 {QN_MNN_REC_Convolution2D, QN_MNN_Convolution2D_symmetricQuan},
                 {QN_MNN_REC_EltwiseInt8, QN_MNN_EltwiseInt8_inputQuan0},
                 {QN_MNN_REC_EltwiseInt8, QN_MNN_EltwiseInt8_outputQuan}};
    char what[256];
    for (size_t i = 0; i < N_OPS; i++)
        for (size_t k = 0; k < sizeof(INNER) / sizeof(INNER[0]); k++) {
            if (INNER[k].record != OPS[i].record)
                continue;
            const int32_t target =
                qn__mnn_schema.records[INNER[k].record].fields[INNER[k].slot].target;
            const qn_fb_record *const record = &qn__mnn_schema.records[target];
            for (size_t s = 0; s < N_SHAPES; s++)
                for (uint32_t slot = 0; slot < record->n_fields; slot++)
                    for (size_t v = 0; v < n_values(&record->fields[slot]); v++) {
                        net t;
                        describe(what, sizeof(what), &OPS[i], &SHAPES[s], record->fields[slot].name,
                                 v);
                        qn_fb_object *main = begin(&t, &OPS[i], &SHAPES[s], OPS[i].record);
                        fill(&t, main, &SHAPES[s]);
                        set(&t, qn__fb_table(main, INNER[k].slot), slot, v);
                        end(&t, what);
                    }
        }
}

/* None, one, many inputs; the parameters of another operator, and none. */
static void inputs_and_parameters_of_another_operator(void **state)
{
    (void)state;
    char what[256];
    const size_t before = n_refused;
    for (size_t i = 0; i < N_OPS; i++)
        for (size_t s = 0; s < N_SHAPES; s++)
            for (int32_t n = 0; n < 10; n += n < 2 ? 1 : 7)
                for (int which = 0; which < 3; which++) {
                    op_case c = {.type = OPS[i].type, .n_in = n};
                    const int32_t records[3] = {OPS[i].record, QN_MNN_REC_Blob, -1};
                    net t;
                    describe(what, sizeof(what), &c, &SHAPES[s], "parameters", (size_t)which);
                    qn_fb_object *main = begin(&t, &c, &SHAPES[s], records[which]);
                    if (main != NULL)
                        fill(&t, main, &SHAPES[s]);
                    end(&t, what);
                }
    assert_true(n_refused - before > 2000);
}

static int setup(void **state)
{
    (void)state;
    qn_context_options options;
    qn_context_options_init(&options);
    options.n_threads = 1;
    qn_limits limits;
    qn_limits_init(&limits);
    limits.tensor_bytes = 1 << 20;
    options.limits = &limits;
    return qn_context_create(&options, &ctx, NULL) == QN_OK ? 0 : 1;
}

static int teardown(void **state)
{
    (void)state;
    qn_context_destroy(ctx);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_of_every_operator),
        cmocka_unit_test(every_field_of_inner_records),
        cmocka_unit_test(inputs_and_parameters_of_another_operator),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
