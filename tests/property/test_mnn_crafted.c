/* .mnn files written with intent, after the known failures of other readers of FlatBuffers models:
 * divisions by a file's zero, indexes and axes out of range, products that wrap, records of another
 * kind, damaged tables, side files that lead elsewhere, bombs. Each is refused with one line that
 * names what; what is accepted gives the values that a plain loop gives. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "format/mnn/mnn_format.h"
#include "property/mnn_seeds.h"
#include "quench/model.h"

static qn_context *ctx;
static char folder[64], model_path[96];
static char outside[256]; /* the first file opened that is not in folder */

static int watched_open(void *io_ctx, const char *path, int flags, int mode)
{
    (void)io_ctx;
    if (strncmp(path, folder, strlen(folder)) != 0 && outside[0] == '\0')
        snprintf(outside, sizeof(outside), "%s", path);
    return open(path, flags, mode);
}

static int setup(void **state)
{
    (void)state;
    qn_context_options options;
    qn_io io;
    qn_io_init(&io);
    io.open = watched_open;
    qn_context_options_init(&options);
    options.io = &io;
    options.n_threads = 1;
    strcpy(folder, "/tmp/quench-crafted-XXXXXX");
    if (mkdtemp(folder) == NULL || qn_context_create(&options, &ctx, NULL) != QN_OK)
        return 1;
    snprintf(model_path, sizeof(model_path), "%s/m.mnn", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[96];
    qn_context_destroy(ctx);
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

static void write_file(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* --- refusing ----------------------------------------------------------------------------------*/
/* word: must be in the message; NULL: what is named is left to the reader. */
static void assert_refused(const char *name, const uint8_t *bytes, size_t size, const char *word)
{
    qn_model *model = NULL;
    qn_error error = {0};
    write_file(model_path, bytes, size);
    const qn_status status = qn_model_load(ctx, model_path, &model, &error);
    if (status == QN_OK) {
        qn_model_destroy(model);
        fail_msg("%s: accepted", name);
    }
    if ((status < QN_CORRUPT || status > QN_NONFINITE) && status != QN_IO)
        fail_msg("%s: status %d: %s", name, (int)status, error.message);
    if (strlen(error.message) < 20 || strchr(error.message, '\n') != NULL ||
        (word != NULL && strstr(error.message, word) == NULL))
        fail_msg("%s: the message does not name \"%s\": %s", name, word ? word : "anything",
                 error.message);
    if (outside[0] != '\0')
        fail_msg("%s: opened %s", name, outside);
}

/* --- lies in a document ------------------------------------------------------------------------*/
typedef struct craft {
    qn_fb_document d;
    qn_fb_object *input, *conv, *pool, *last; /* records; last: of the operator under test */
    qn_fb_object *ops[5];                     /* input, conv, pool, constant, the one under test */
} craft;

/* x [1, 2, 4, 4] -> conv [1, 3, 4, 4] -> pool [1, 3, 2, 2]; constant [1, 3, 1, 1]; the last
 * operator reads the pool's tensor. */
static void begin(craft *c, int32_t type, int32_t record)
{
    const int32_t from = 2;
    assert_int_equal(qn__fb_create(ctx, &qn__mnn_schema, &c->d, NULL), QN_OK);
    c->last = record >= 0 ? qn__fb_new(&c->d, record) : NULL;
    c->ops[0] = seed_input(&c->d);
    c->ops[1] = seed_conv(&c->d, 0, 1);
    c->ops[2] = seed_pool(&c->d, 1, 2);
    c->ops[3] = seed_const(&c->d, 3);
    c->ops[4] = seed_op(&c->d, type, "last", c->last, 1, &from, 4);
    c->input = qn__fb_table(c->ops[0], QN_MNN_Op_main);
    c->conv = qn__fb_table(c->ops[1], QN_MNN_Op_main);
    c->pool = qn__fb_table(c->ops[2], QN_MNN_Op_main);
}

static void end(craft *c, uint8_t **bytes, size_t *size)
{
    static const char *const NAMES[] = {"x", "conv", "pool", "c", "last"};
    seed_net(&c->d, c->ops, 5, NAMES, 5);
    assert_int_equal(qn__fb_build(&c->d, bytes, size, NULL), QN_OK);
    qn__fb_free(&c->d);
}

enum { ON_INPUT, ON_CONV, ON_COMMON, ON_POOL, ON_CONST, ON_LAST, ON_LAST_OP, ON_CONV_OP };

static qn_fb_object *target(craft *c, int where)
{
    switch (where) {
    case ON_INPUT:
        return c->input;
    case ON_CONV:
        return c->conv;
    case ON_COMMON:
        return qn__fb_table(c->conv, QN_MNN_Convolution2D_common);
    case ON_POOL:
        return c->pool;
    case ON_CONST:
        return qn__fb_table(c->ops[3], QN_MNN_Op_main);
    case ON_LAST:
        return c->last;
    case ON_CONV_OP:
        return c->ops[1];
    default:
        return c->ops[4];
    }
}

#define LIST(...) {__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t)
#define BIG INT32_MAX

/* One slot of one record is a number or a list of them. */
static const struct lie {
    const char *name;
    int32_t type, record; /* of the last operator */
    int where;
    uint32_t slot;
    const char *word;
    int32_t values[9];
    size_t n; /* of a vector; a scalar where the schema has one */
} LIES[] = {
#define LAST(t, r) QN_MNN_OpType_##t, QN_MNN_REC_##r
#define RELU LAST(ReLU, Relu)
#define COMMON(f) ON_COMMON, QN_MNN_Convolution2DCommon_##f
    {"convolution, kernel 0", RELU, COMMON(kernelX), "conv", LIST(0)},
    {"convolution, kernel -1", RELU, COMMON(kernelY), "conv", LIST(-1)},
    {"convolution, kernel 2^31-1", RELU, COMMON(kernelY), "conv", LIST(BIG)},
    {"convolution, stride 0", RELU, COMMON(strideX), "conv", LIST(0)},
    {"convolution, stride negative", RELU, COMMON(strideY), "conv", LIST(INT32_MIN)},
    {"convolution, dilation 0", RELU, COMMON(dilateX), "conv", LIST(0)},
    {"convolution, no outputs", RELU, COMMON(outputCount), "conv", LIST(0)},
    {"convolution, outputs negative", RELU, COMMON(outputCount), "conv", LIST(-3)},
    {"convolution, outputs 2^31-1", RELU, COMMON(outputCount), "conv", LIST(BIG)},
    {"convolution, more outputs than weights", RELU, COMMON(outputCount), "conv", LIST(4)},
    {"convolution, unknown padding", RELU, COMMON(padMode), "conv", LIST(100)},
    {"convolution, padding negative", RELU, COMMON(padX), "conv", LIST(-7)},
    {"convolution, pads too few", RELU, COMMON(pads), "conv", LIST(1, 1, 1)},
    {"convolution, pads 2^31-1", RELU, COMMON(pads), NULL, LIST(BIG, BIG, BIG, BIG)},
    {"convolution, groups that do not divide", RELU, ON_INPUT, QN_MNN_Input_dims, "conv",
     LIST(1, 3, 4, 4)},
    {"convolution, input of another rank", RELU, ON_INPUT, QN_MNN_Input_dims, "conv", LIST(1, 2)},
    {"convolution, a tensor index below 0", RELU, ON_CONV_OP, QN_MNN_Op_inputIndexes, "conv",
     LIST(-1)},
    {"convolution, a tensor index past the end", RELU, ON_CONV_OP, QN_MNN_Op_inputIndexes, "conv",
     LIST(5)},
    {"convolution, reads its own output", RELU, ON_CONV_OP, QN_MNN_Op_inputIndexes, "conv",
     LIST(1)},
    {"convolution, reads what comes later", RELU, ON_CONV_OP, QN_MNN_Op_inputIndexes, "conv",
     LIST(4)},
    {"convolution, too many inputs", RELU, ON_CONV_OP, QN_MNN_Op_inputIndexes, "conv",
     LIST(0, 0, 0, 0, 0)},
    {"input, dimension below -1", RELU, ON_INPUT, QN_MNN_Input_dims, "x", LIST(1, 2, -5, 4)},
    {"input, dimensions whose product wraps", RELU, ON_INPUT, QN_MNN_Input_dims, NULL,
     LIST(BIG, 2, BIG, BIG)},
    {"input, nine dimensions", RELU, ON_INPUT, QN_MNN_Input_dims, "x",
     LIST(1, 1, 1, 1, 1, 1, 1, 1, 1)},
    {"input, unknown type", RELU, ON_INPUT, QN_MNN_Input_dtype, "x", LIST(77)},
    {"pooling, kernel 0", RELU, ON_POOL, QN_MNN_Pool_kernelX, "pool", LIST(0)},
    {"pooling, stride 0", RELU, ON_POOL, QN_MNN_Pool_strideY, "pool", LIST(0)},
    {"pooling, padding negative", RELU, ON_POOL, QN_MNN_Pool_padX, "pool", LIST(-1)},
    {"pooling, unknown kind", RELU, ON_POOL, QN_MNN_Pool_type, "pool", LIST(9)},
    {"pooling, unknown padding", RELU, ON_POOL, QN_MNN_Pool_padType, "pool", LIST(-1)},
    {"pooling, pads too few", RELU, ON_POOL, QN_MNN_Pool_pads, "pool", LIST(1, 2)},
    {"constant, dimensions whose product wraps", RELU, ON_CONST, QN_MNN_Blob_dims, "\"c\"",
     LIST(65536, 65536, 65536, 65536)},
    {"constant, more values than there are", RELU, ON_CONST, QN_MNN_Blob_dims, "\"c\"",
     LIST(1, 3, 1, 2)},
    {"constant, dimension negative", RELU, ON_CONST, QN_MNN_Blob_dims, "\"c\"", LIST(-1, -3)},
    {"constant, nine dimensions", RELU, ON_CONST, QN_MNN_Blob_dims, "\"c\"",
     LIST(1, 3, 1, 1, 1, 1, 1, 1, 1)},
    {"constant, read as a wider type", RELU, ON_CONST, QN_MNN_Blob_dataType, "\"c\"",
     LIST(QN_MNN_DataType_DT_INT64)},
    {"constant, unknown type", RELU, ON_CONST, QN_MNN_Blob_dataType, "\"c\"", LIST(-3)},
    {"operator without outputs", RELU, ON_LAST_OP, QN_MNN_Op_outputIndexes, "last", {0}, 0},
    {"operator without inputs", RELU, ON_LAST_OP, QN_MNN_Op_inputIndexes, "last", {0}, 0},
    {"operator, output index below 0", RELU, ON_LAST_OP, QN_MNN_Op_outputIndexes, "last", LIST(-1)},
    {"operator, a tensor made twice", RELU, ON_LAST_OP, QN_MNN_Op_outputIndexes, "last", LIST(2)},
    {"operator, one tensor as two outputs", RELU, ON_LAST_OP, QN_MNN_Op_outputIndexes, "last",
     LIST(4, 4)},
    {"operator of no known type", RELU, ON_LAST_OP, QN_MNN_Op_type, "last", LIST(9999)},
    {"operator of a negative type", RELU, ON_LAST_OP, QN_MNN_Op_type, "last", LIST(-1)},
    {"operator with another's record", RELU, ON_LAST_OP, QN_MNN_Op_type, "last",
     LIST(QN_MNN_OpType_Pooling)},
    {"while loop", RELU, ON_LAST_OP, QN_MNN_Op_type, "last", LIST(QN_MNN_OpType_While)},
    {"condition", RELU, ON_LAST_OP, QN_MNN_Op_type, "last", LIST(QN_MNN_OpType_If)},
    {"softmax, axis past the rank", LAST(Softmax, Axis), ON_LAST, QN_MNN_Axis_axis, "last",
     LIST(4)},
    {"softmax, axis below the rank", LAST(Softmax, Axis), ON_LAST, QN_MNN_Axis_axis, "last",
     LIST(-5)},
    {"softmax, axis the lowest number", LAST(Softmax, Axis), ON_LAST, QN_MNN_Axis_axis, "last",
     LIST(INT32_MIN)},
    {"concatenation, axis past the rank", LAST(Concat, Axis), ON_LAST, QN_MNN_Axis_axis, "last",
     LIST(7)},
    {"flatten, axis past the rank", LAST(Unpack, Axis), ON_LAST, QN_MNN_Axis_axis, "last", LIST(9)},
    {"reshape, product wraps", LAST(Reshape, Reshape), ON_LAST, QN_MNN_Reshape_dims, "last",
     LIST(65536, 65536, 65536, 65536)},
    {"reshape, -1 twice", LAST(Reshape, Reshape), ON_LAST, QN_MNN_Reshape_dims, "last",
     LIST(-1, -1)},
    {"reshape, does not divide", LAST(Reshape, Reshape), ON_LAST, QN_MNN_Reshape_dims, "last",
     LIST(5, -1)},
    {"reshape, negative", LAST(Reshape, Reshape), ON_LAST, QN_MNN_Reshape_dims, "last",
     LIST(-12, -1)},
    {"permutation that repeats an axis", LAST(Permute, Permute), ON_LAST, QN_MNN_Permute_dims,
     "last", LIST(0, 1, 1, 2)},
    {"permutation past the rank", LAST(Permute, Permute), ON_LAST, QN_MNN_Permute_dims, "last",
     LIST(0, 1, 2, 4)},
    {"permutation too short", LAST(Permute, Permute), ON_LAST, QN_MNN_Permute_dims, "last",
     LIST(1, 0)},
    {"space to depth, block 0", LAST(SpaceToDepth, DepthSpaceParam), ON_LAST,
     QN_MNN_DepthSpaceParam_blockSize, "last", LIST(0)},
    {"depth to space, block 0", LAST(DepthToSpace, DepthSpaceParam), ON_LAST,
     QN_MNN_DepthSpaceParam_blockSize, "last", LIST(0)},
    {"depth to space, block negative", LAST(DepthToSpace, DepthSpaceParam), ON_LAST,
     QN_MNN_DepthSpaceParam_blockSize, "last", LIST(-2)},
    {"depth to space, block 2^31-1", LAST(DepthToSpace, DepthSpaceParam), ON_LAST,
     QN_MNN_DepthSpaceParam_blockSize, "last", LIST(BIG)},
    {"split, points past the end", LAST(Slice, Slice), ON_LAST, QN_MNN_Slice_slicePoints, "last",
     LIST(5, 9)},
    {"split, axis past the rank", LAST(Slice, Slice), ON_LAST, QN_MNN_Slice_axis, "last", LIST(4)},
    {"reduction, axis past the rank", LAST(Reduction, ReductionParam), ON_LAST,
     QN_MNN_ReductionParam_dim, "last", LIST(4)},
    {"reduction, unknown kind", LAST(Reduction, ReductionParam), ON_LAST,
     QN_MNN_ReductionParam_operation, "last", LIST(50)},
    {"squeeze of an axis that is not 1", LAST(Squeeze, SqueezeParam), ON_LAST,
     QN_MNN_SqueezeParam_squeezeDims, "last", LIST(2)},
    {"squeeze of an axis past the rank", LAST(Squeeze, SqueezeParam), ON_LAST,
     QN_MNN_SqueezeParam_squeezeDims, "last", LIST(8)},
    {"unary, unknown function", LAST(UnaryOp, UnaryOp), ON_LAST, QN_MNN_UnaryOp_opType, "last",
     LIST(-1)},
    {"unary, table of another size", LAST(UnaryOp, UnaryOp), ON_LAST, QN_MNN_UnaryOp_opType, "last",
     LIST(999)},
    {"binary with one input", LAST(BinaryOp, BinaryOp), ON_LAST, QN_MNN_BinaryOp_opType, "last",
     LIST(0)},
    {"resize to nothing", LAST(Interp, Interp), ON_LAST, QN_MNN_Interp_outputWidth, "last",
     LIST(0)},
    {"resize to a negative size", LAST(Interp, Interp), ON_LAST, QN_MNN_Interp_outputHeight, "last",
     LIST(-4)},
    {"batch normalization without statistics", LAST(BatchNorm, BatchNorm), ON_LAST,
     QN_MNN_BatchNorm_channels, "last", LIST(3)},
    {"scale of other channels", LAST(Scale, Scale), ON_LAST, QN_MNN_Scale_channels, "last",
     LIST(-1)},
    {"PReLU with a slope count and no slopes", LAST(PReLU, PRelu), ON_LAST, QN_MNN_PRelu_slopeCount,
     "last", LIST(BIG)},
    {"inner product without weights", LAST(InnerProduct, InnerProduct), ON_LAST,
     QN_MNN_InnerProduct_outputCount, "last", LIST(BIG)},
    {"inner product, axis past the rank", LAST(InnerProduct, InnerProduct), ON_LAST,
     QN_MNN_InnerProduct_axis, "last", LIST(9)},
    {"crop without a second input", LAST(Crop, Crop), ON_LAST, QN_MNN_Crop_axis, "last", LIST(9)},
#define INPUTS ON_LAST_OP, QN_MNN_Op_inputIndexes, "last"
    {"one hot of two inputs", LAST(OneHot, OneHotParam), INPUTS, LIST(2, 3)},
    {"one hot with three values for what is hit", LAST(OneHot, OneHotParam), INPUTS,
     LIST(2, 3, 3, 3)},
    {"best few by three numbers", LAST(TopKV2, TopKV2), INPUTS, LIST(2, 3)},
    {"best few along an axis that is computed", LAST(TopKV2, TopKV2), INPUTS, LIST(2, 3, 2)},
    {"gathering elements along an axis that is computed", LAST(GatherElements, Axis), INPUTS,
     LIST(2, 2, 2)},
    {"gathering with as many axes of batches as there are", LAST(GatherND, Axis), INPUTS, LIST(2)},
    {"scattering without a shape", LAST(ScatterNd, BinaryOp), INPUTS, LIST(2, 3)},
    {"scattering into a shape that is computed", LAST(ScatterElements, BinaryOp), INPUTS,
     LIST(2, 2, 2, 2)},
    {"sum along two axes", LAST(CumSum, CumSum), INPUTS, LIST(2, 3, 3)},
    {"mirrored by no numbers", LAST(Padding, PadParam), ON_LAST, QN_MNN_PadParam_mode, "last",
     LIST(QN_MNN_PadValueMode_SYMMETRIC)},
    {"layer normalization over a negative axis", LAST(LayerNorm, LayerNorm), ON_LAST,
     QN_MNN_LayerNorm_axis, "last", LIST(-9)},
};
enum { N_LIES = sizeof(LIES) / sizeof(LIES[0]) };

static void spoil(craft *c, const struct lie *lie)
{
    qn_fb_object *o = target(c, lie->where);
    const qn_fb_field *field = &qn__mnn_schema.records[o->record].fields[lie->slot];
    if (field->kind == QN_FB_VECTOR)
        assert_true(qn__fb_set_vector(&c->d, o, lie->slot, lie->values, lie->n));
    else
        qn__fb_set_int(o, lie->slot, lie->values[0]);
}

static void test_lies(void **state)
{
    (void)state;
    craft c;
    uint8_t *bytes;
    size_t size;
    qn_model *model;
    qn_error error = {0};
    begin(&c, QN_MNN_OpType_ReLU, QN_MNN_REC_Relu);
    end(&c, &bytes, &size);
    write_file(model_path, bytes, size);
    if (qn_model_load(ctx, model_path, &model, &error) != QN_OK)
        fail_msg("without a lie: %s", error.message);
    qn_model_destroy(model);
    qn__free(ctx, bytes);
    for (size_t i = 0; i < N_LIES; i++) {
        begin(&c, LIES[i].type, LIES[i].record);
        spoil(&c, &LIES[i]);
        end(&c, &bytes, &size);
        assert_refused(LIES[i].name, bytes, size, LIES[i].word);
        qn__free(ctx, bytes);
    }
}

/* --- damage in the tables ----------------------------------------------------------------------*/
static uint32_t get32(const uint8_t *bytes, size_t at)
{
    uint32_t value;
    memcpy(&value, bytes + at, 4);
    return value;
}

static void put32(uint8_t *bytes, size_t at, uint32_t value)
{
    memcpy(bytes + at, &value, 4);
}

static void put16(uint8_t *bytes, size_t at, uint16_t value)
{
    memcpy(bytes + at, &value, 2);
}

typedef struct spots {
    size_t size, root, vtable, ops_slot, ops_field, ops, first_op, first_vtable, name;
} spots;

static spots find_spots(const uint8_t *bytes, size_t size)
{
    spots s = {.size = size, .root = get32(bytes, 0)};
    uint16_t offset;
    s.vtable = s.root - get32(bytes, s.root);
    s.ops_slot = s.vtable + 4 + 2 * QN_MNN_Net_oplists;
    memcpy(&offset, bytes + s.ops_slot, 2);
    s.ops_field = s.root + offset;
    s.ops = s.ops_field + get32(bytes, s.ops_field);
    s.first_op = s.ops + 4 + get32(bytes, s.ops + 4);
    s.first_vtable = s.first_op - get32(bytes, s.first_op);
    memcpy(&offset, bytes + s.vtable + 4 + 2 * QN_MNN_Net_tensorName, 2);
    const size_t names = s.root + offset + get32(bytes, s.root + offset);
    s.name = names + 4 + get32(bytes, names + 4); /* its length; then "x" and a zero */
    return s;
}

enum { WIDE, NARROW, BYTE };

static void test_tables(void **state)
{
    (void)state;
    craft c;
    uint8_t *bytes;
    size_t size;
    begin(&c, QN_MNN_OpType_ReLU, QN_MNN_REC_Relu);
    end(&c, &bytes, &size);
    const spots s = find_spots(bytes, size);
    assert_int_equal(bytes[s.name + 4], 'x');
    const struct {
        const char *name;
        size_t at;
        int width;
        uint32_t value;
    } damages[] = {
        {"the root is past the end", 0, WIDE, (uint32_t)size + 4},
        {"the root is at 2^32-1", 0, WIDE, UINT32_MAX},
        {"the root is the offset itself", 0, WIDE, 0},
        {"the root is not aligned", 0, WIDE, (uint32_t)s.root + 1},
        {"the root is a vtable", 0, WIDE, (uint32_t)s.vtable},
        {"the root's vtable is past the end", s.root, WIDE, (uint32_t) - (int32_t)size},
        {"the root's vtable is before the file", s.root, WIDE, (uint32_t)s.root + 4},
        {"the root's vtable is the lowest number away", s.root, WIDE, 0x80000000u},
        {"the root's vtable is the root", s.root, WIDE, 0},
        {"the root's vtable is not aligned", s.root, WIDE, (uint32_t)(s.root - s.vtable) + 1},
        {"a vtable of odd size", s.vtable, NARROW, 9},
        {"a vtable of size 0", s.vtable, NARROW, 0},
        {"a vtable past the end", s.vtable, NARROW, 0xfffe},
        {"a table past the end", s.vtable + 2, NARROW, 0xffff},
        {"a table smaller than its fields", s.vtable + 2, NARROW, 4},
        {"a field outside its table", s.ops_slot, NARROW, 0xfff0},
        {"a field that is the table's vtable offset", s.ops_slot, NARROW, 2},
        {"a vector past the end", s.ops_field, WIDE, (uint32_t)size},
        {"a vector at itself", s.ops_field, WIDE, 0},
        {"a vector at 2^31", s.ops_field, WIDE, 0x80000000u},
        {"a vector whose size wraps", s.ops, WIDE, 0x40000000u},
        {"a vector of 2^32-1", s.ops, WIDE, UINT32_MAX},
        {"a vector one too long", s.ops, WIDE, (uint32_t)size / 4},
        {"an element past the end", s.ops + 4, WIDE, (uint32_t)size},
        {"an element at 2^32-1", s.ops + 4, WIDE, UINT32_MAX},
        {"an element that is not aligned", s.ops + 4, WIDE, get32(bytes, s.ops + 4) + 2},
        {"a table whose vtable is past the end", s.first_op, WIDE, 0x7fffffff},
        {"a table whose vtable is not aligned", s.first_op, WIDE, get32(bytes, s.first_op) - 1},
        {"a table's vtable past the end", s.first_vtable, NARROW, 0xfffe},
        {"a string that does not end", s.name + 5, BYTE, 'y'},
        {"a string longer than the file", s.name, WIDE, (uint32_t)size},
        {"a string of 2^32-1", s.name, WIDE, UINT32_MAX},
    };
    uint8_t *copy = qn__alloc(ctx, size);
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        memcpy(copy, bytes, size);
        if (damages[i].width == WIDE)
            put32(copy, damages[i].at, damages[i].value);
        else if (damages[i].width == NARROW)
            put16(copy, damages[i].at, (uint16_t)damages[i].value);
        else
            copy[damages[i].at] = (uint8_t)damages[i].value;
        assert_refused(damages[i].name, copy, size, NULL);
    }
    /* the convolution's record as another member of the union */
    const size_t conv = s.ops + 8 + get32(bytes, s.ops + 8);
    uint16_t offset;
    memcpy(&offset, bytes + conv - get32(bytes, conv) + 4 + 2 * (QN_MNN_Op_main - 1), 2);
    const uint8_t kind = bytes[conv + offset];
    for (int tag = 0; tag < 256; tag++) {
        memcpy(copy, bytes, size);
        copy[conv + offset] = (uint8_t)tag;
        if (tag != kind)
            assert_refused("a union of another kind", copy, size, NULL);
    }
    qn__free(ctx, copy);
    qn__free(ctx, bytes);
}

/* --- side files --------------------------------------------------------------------------------*/
enum { SIDE_BYTES = 36 };

static void side_model(const int64_t *external, size_t n, const char *path, uint8_t **bytes,
                       size_t *size)
{
    craft c;
    begin(&c, QN_MNN_OpType_ReLU, QN_MNN_REC_Relu);
    qn__fb_clear(c.conv, QN_MNN_Convolution2D_weight);
    qn__fb_clear(c.conv, QN_MNN_Convolution2D_bias);
    assert_true(qn__fb_set_vector(&c.d, c.conv, QN_MNN_Convolution2D_external, external, n));
    if (path != NULL)
        assert_true(qn__fb_set_string(&c.d, c.ops[1], QN_MNN_Op_externalPath, path));
    end(&c, bytes, size);
}

static const int64_t EXTERNAL[] = {0, 24, 12};

static void test_side_offsets_and_names(void **state)
{
    (void)state;
    static const int64_t OFFSETS[][3] = {{-1, 24, 12},
                                         {INT64_MIN, 24, 12},
                                         {1, 24, 12},
                                         {SIDE_BYTES, 24, 12},
                                         {SIDE_BYTES + 1, 24, 12},
                                         {INT64_MAX, 24, 12},
                                         {INT64_MAX - 23, 24, 12},
                                         {0, -1, 12},
                                         {0, INT64_MIN, 12},
                                         {0, INT64_MAX, 12},
                                         {0, INT64_MAX, INT64_MAX},
                                         {0, 24, -12},
                                         {0, 24, INT64_MAX},
                                         {0, 24, 16},
                                         {0, 20, 12},
                                         {0, 28, 8},
                                         {0, 0, 0},
                                         {0, 24, 8},
                                         {0, 23, 12}};
    static const char *const PATHS[] = {"/etc/passwd",
                                        "../m.mnn.weight",
                                        "a/../../m.mnn.weight",
                                        "..",
                                        ".",
                                        "/",
                                        "./m.mnn.weight",
                                        "m.mnn.weight/",
                                        "m.mnn.weight/../../x",
                                        "..\\m.mnn.weight",
                                        "%2e%2e/m.mnn.weight",
                                        "file:///etc/passwd",
                                        "~/m.mnn.weight",
                                        "m.mnn",
                                        "M.MNN.WEIGHT",
                                        "other.weight",
                                        "/dev/zero",
                                        "-"};
    char side[160];
    static const char message_word[] = "conv";
    const float numbers[9] = {1, 2, 3, 4, 5, 6, 0, 0, 0};
    uint8_t *bytes;
    size_t size;
    qn_model *model;
    qn_error error = {0};
    snprintf(side, sizeof(side), "%s.weight", model_path);
    write_file(side, numbers, SIDE_BYTES);
    static const char *const GOOD[] = {NULL, "", "m.mnn.weight"};
    for (size_t i = 0; i < 3; i++) {
        side_model(EXTERNAL, 3, GOOD[i], &bytes, &size);
        write_file(model_path, bytes, size);
        if (qn_model_load(ctx, model_path, &model, &error) != QN_OK)
            fail_msg("a sound side file: %s", error.message);
        qn_model_destroy(model);
        qn__free(ctx, bytes);
    }
    for (size_t i = 0; i < sizeof(OFFSETS) / sizeof(OFFSETS[0]); i++) {
        char name[96];
        snprintf(name, sizeof(name), "external %lld, %lld, %lld", (long long)OFFSETS[i][0],
                 (long long)OFFSETS[i][1], (long long)OFFSETS[i][2]);
        side_model(OFFSETS[i], 3, NULL, &bytes, &size);
        assert_refused(name, bytes, size, message_word);
        qn__free(ctx, bytes);
    }
    side_model(EXTERNAL, 1, NULL, &bytes, &size);
    assert_refused("external of one value", bytes, size, message_word);
    qn__free(ctx, bytes);
    for (size_t i = 0; i < sizeof(PATHS) / sizeof(PATHS[0]); i++) {
        side_model(EXTERNAL, 3, PATHS[i], &bytes, &size);
        assert_refused(PATHS[i], bytes, size, PATHS[i]);
        qn__free(ctx, bytes);
    }
    char *long_path = malloc(5001);
    memset(long_path, 'a', 5000);
    long_path[5000] = '\0';
    side_model(EXTERNAL, 3, long_path, &bytes, &size);
    assert_refused("a path of 5000 bytes", bytes, size, message_word);
    qn__free(ctx, bytes);
    free(long_path);
    unlink(side);
}

static void test_side_files(void **state)
{
    (void)state;
    char side[160], elsewhere[64], secret[96], command[160];
    const float numbers[9] = {1, 2, 3, 4, 5, 6, 0, 0, 0};
    uint8_t *bytes;
    size_t size;
    side_model(EXTERNAL, 3, NULL, &bytes, &size);
    snprintf(side, sizeof(side), "%s.weight", model_path);
    strcpy(elsewhere, "/tmp/quench-crafted-XXXXXX");
    assert_non_null(mkdtemp(elsewhere));
    snprintf(secret, sizeof(secret), "%s/w", elsewhere);
    write_file(secret, numbers, SIDE_BYTES);

    assert_refused("no side file", bytes, size, "m.mnn.weight");
    assert_int_equal(symlink(secret, side), 0);
    assert_refused("a link out of the folder", bytes, size, "m.mnn.weight");
    unlink(side);
    assert_int_equal(symlink("/dev/zero", side), 0);
    assert_refused("a link to a device", bytes, size, "m.mnn.weight");
    unlink(side);
    assert_int_equal(symlink("nowhere", side), 0);
    assert_refused("a link to nothing", bytes, size, "m.mnn.weight");
    unlink(side);
    assert_int_equal(symlink("m.mnn.weight", side), 0);
    assert_refused("a link to itself", bytes, size, "m.mnn.weight");
    unlink(side);
    assert_int_equal(mkdir(side, 0777), 0);
    assert_refused("a folder", bytes, size, "m.mnn.weight");
    rmdir(side);
    assert_int_equal(mkfifo(side, 0666), 0);
    assert_refused("a FIFO", bytes, size, "m.mnn.weight");
    unlink(side);
    write_file(side, numbers, 0);
    assert_refused("an empty side file", bytes, size, "conv");
    write_file(side, numbers, SIDE_BYTES - 1);
    assert_refused("a side file one byte short", bytes, size, "conv");
    unlink(side);
    qn__free(ctx, bytes);
    snprintf(command, sizeof(command), "rm -rf %s", elsewhere);
    assert_int_equal(system(command), 0);
}

/* --- bombs -------------------------------------------------------------------------------------*/
enum { BOMB_BYTES = 1 << 20, N_TARGETS = (BOMB_BYTES - 256) / 4 };

/* A net whose vector at slot names one target, the last word, as often as fits into a megabyte. */
static void shared_bomb(uint8_t *bytes, uint32_t slot)
{
    memset(bytes, 0, BOMB_BYTES);
    const size_t vtable = 8, root = 64, vector = BOMB_BYTES - 4 * N_TARGETS - 4;
    put32(bytes, 0, (uint32_t)root);
    put16(bytes, vtable, (uint16_t)(4 + 2 * 12));
    put16(bytes, vtable + 2, 8);
    put16(bytes, vtable + 4 + 2 * slot, 4);
    put32(bytes, root, (uint32_t)(root - vtable));
    put32(bytes, root + 4, (uint32_t)(vector - root - 4));
    put32(bytes, vector, N_TARGETS);
    for (size_t i = 0; i < N_TARGETS; i++)
        put32(bytes, vector + 4 + 4 * i, (uint32_t)(BOMB_BYTES - 4 - (vector + 4 + 4 * i)));
}

/* Loads in a child: how long it took and what it needed beyond what was there before. */
static void assert_cheap(const char *name, const uint8_t *bytes, size_t size, bool refused)
{
    write_file(model_path, bytes, size);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rusage before, after;
        struct timespec start, stop;
        qn_model *model = NULL;
        getrusage(RUSAGE_SELF, &before);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
        const qn_status status = qn_model_load(ctx, model_path, &model, NULL);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &stop);
        getrusage(RUSAGE_SELF, &after);
        const double seconds =
            (double)(stop.tv_sec - start.tv_sec) + 1e-9 * (double)(stop.tv_nsec - start.tv_nsec);
        if (refused && status == QN_OK)
            _exit(3);
#ifndef __SANITIZE_ADDRESS__
        if (after.ru_maxrss - before.ru_maxrss > 64 * 1024) /* KiB */
            _exit(4);
        if (seconds > 0.5) /* 100 ms on an idle machine */
            _exit(5);
#else
        if (seconds > 5)
            _exit(5);
#endif
        _exit(0);
    }
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    if (!WIFEXITED(code) || WEXITSTATUS(code) != 0)
        fail_msg("%s: %s", name,
                 !WIFEXITED(code)         ? "crashed"
                 : WEXITSTATUS(code) == 3 ? "accepted"
                 : WEXITSTATUS(code) == 4 ? "more than 64 MiB"
                                          : "too slow");
}

static void test_bombs(void **state)
{
    (void)state;
    static uint8_t bytes[BOMB_BYTES];
    shared_bomb(bytes, QN_MNN_Net_tensorName);
    assert_cheap("one string as a quarter of a million names", bytes, BOMB_BYTES, true);
    shared_bomb(bytes, QN_MNN_Net_oplists);
    assert_cheap("one table as a quarter of a million operators", bytes, BOMB_BYTES, true);
    shared_bomb(bytes, QN_MNN_Net_subgraphs);
    assert_cheap("one table as a quarter of a million subgraphs", bytes, BOMB_BYTES, true);

    /* an empty operator, or an empty string, for each of them */
    for (int which = 0; which < 2; which++) {
        shared_bomb(bytes, which == 0 ? QN_MNN_Net_oplists : QN_MNN_Net_tensorName);
        const size_t vector = BOMB_BYTES - 4 * N_TARGETS - 4, n = N_TARGETS / 3;
        const size_t target = vector + 4 + 4 * n;
        put32(bytes, vector, (uint32_t)n);
        for (size_t i = 0; i < n; i++)
            put32(bytes, vector + 4 + 4 * i, (uint32_t)(target + 8 - (vector + 4 + 4 * i)));
        put16(bytes, target, 4); /* a vtable without fields, then its table; an empty string */
        put16(bytes, target + 2, 4);
        put32(bytes, target + 8, which == 0 ? 8 : 0);
        put32(bytes, target + 12, 0);
        assert_cheap(which == 0 ? "empty operators" : "empty names", bytes, BOMB_BYTES, true);
    }

    /* packed weights that say more than they hold */
    static const uint8_t HEADS[][16] = {{2, 0xff, 0xff, 0xff, 0xff, 0, 1, 2, 3},
                                        {2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
                                        {255, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
                                        {0, 1},
                                        {2, 3, 0, 2, 0, 0xff, 0xff, 0xff, 0xff, 2, 0, 0}};
    for (size_t i = 0; i < 5 * 5; i++) {
        craft c;
        uint8_t *made;
        size_t size;
        begin(&c, QN_MNN_OpType_ReLU, QN_MNN_REC_Relu);
        qn_fb_object *quan = qn__fb_new(&c.d, QN_MNN_REC_IDSTQuan);
        qn__fb_clear(c.conv, QN_MNN_Convolution2D_weight);
        qn__fb_set_vector(&c.d, quan, QN_MNN_IDSTQuan_buffer, HEADS[i % 5], 16);
        qn__fb_set_vector(&c.d, quan, QN_MNN_IDSTQuan_alpha, (float[]){1, 1, 1}, 3);
        qn__fb_set_int(quan, QN_MNN_IDSTQuan_type, (int64_t)(i / 5));
        qn__fb_set_int(quan, QN_MNN_IDSTQuan_shapeInt32, i % 2);
        qn__fb_set_table(c.conv, QN_MNN_Convolution2D_quanParameter, quan);
        if (i % 5 < 2)
            qn__fb_set_int(target(&c, ON_COMMON), QN_MNN_Convolution2DCommon_outputCount, 65535);
        end(&c, &made, &size);
        assert_cheap("packed weights", made, size, true);
        qn__free(ctx, made);
    }
}

/* --- degenerate convolutions -------------------------------------------------------------------*/
typedef struct geometry {
    const char *name;
    int32_t channels, outputs, height, width, kernel_y, kernel_x, stride, dilation, pad, group;
    bool refused;
} geometry;

static int32_t extent(int32_t size, int32_t kernel, const geometry *g)
{
    return (size + 2 * g->pad - (kernel - 1) * g->dilation - 1) / g->stride + 1;
}

static void plain_loop(const geometry *g, const float *x, const float *w, float *y)
{
    const int32_t in = g->channels / g->group, out = g->outputs / g->group;
    const int32_t h = extent(g->height, g->kernel_y, g), v = extent(g->width, g->kernel_x, g);
    for (int32_t o = 0; o < g->outputs; o++)
        for (int32_t i = 0; i < h * v; i++) {
            double sum = 0;
            for (int32_t k = 0; k < in * g->kernel_y * g->kernel_x; k++) {
                const int32_t c = k / (g->kernel_y * g->kernel_x);
                const int32_t dy = k / g->kernel_x % g->kernel_y, dx = k % g->kernel_x;
                const int32_t py = i / v * g->stride - g->pad + dy * g->dilation;
                const int32_t px = i % v * g->stride - g->pad + dx * g->dilation;
                if (py >= 0 && py < g->height && px >= 0 && px < g->width)
                    sum += (double)w[o * in * g->kernel_y * g->kernel_x + k] *
                           (double)x[((o / out * in + c) * g->height + py) * g->width + px];
            }
            y[o * h * v + i] = (float)sum;
        }
}

enum { MOST = 2048 };

static void geometry_model(const geometry *g, const float *w, uint8_t **bytes, size_t *size)
{
    static const char *const NAMES[] = {"x", "y"};
    static const float BIAS[16] = {0};
    const int32_t dims[] = {1, g->channels, g->height, g->width};
    const size_t n = (size_t)(g->outputs * (g->channels / g->group) * g->kernel_y * g->kernel_x);
    qn_fb_document d;
    assert_int_equal(qn__fb_create(ctx, &qn__mnn_schema, &d, NULL), QN_OK);
    qn_fb_object *ops[2] = {seed_input(&d)};
    qn__fb_set_vector(&d, qn__fb_table(ops[0], QN_MNN_Op_main), QN_MNN_Input_dims, dims, 4);
    qn_fb_object *common = qn__fb_new(&d, QN_MNN_REC_Convolution2DCommon);
    qn_fb_object *conv = qn__fb_new(&d, QN_MNN_REC_Convolution2D);
#define SET(field, value) qn__fb_set_int(common, QN_MNN_Convolution2DCommon_##field, value)
    SET(kernelX, g->kernel_x);
    SET(kernelY, g->kernel_y);
    SET(strideX, g->stride);
    SET(strideY, g->stride);
    SET(dilateX, g->dilation);
    SET(dilateY, g->dilation);
    SET(padX, g->pad);
    SET(padY, g->pad);
    SET(group, g->group);
    SET(outputCount, g->outputs);
    SET(inputCount, g->channels);
#undef SET
    qn__fb_set_table(conv, QN_MNN_Convolution2D_common, common);
    qn__fb_set_vector(&d, conv, QN_MNN_Convolution2D_weight, w, n);
    qn__fb_set_vector(&d, conv, QN_MNN_Convolution2D_bias, BIAS, (size_t)g->outputs);
    const bool depthwise = g->group == g->channels && g->group > 1;
    const int32_t from = 0;
    ops[1] = seed_op(&d, depthwise ? QN_MNN_OpType_ConvolutionDepthwise : QN_MNN_OpType_Convolution,
                     "y", conv, 1, &from, 1);
    seed_net(&d, ops, 2, NAMES, 2);
    assert_int_equal(qn__fb_build(&d, bytes, size, NULL), QN_OK);
    qn__fb_free(&d);
}

static void test_degenerate_convolutions(void **state)
{
    (void)state;
    static const geometry CASES[] = {
        {"one of everything", 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, false},
        {"one pixel, padded", 3, 4, 1, 1, 3, 3, 1, 1, 1, 1, false},
        {"kernel larger than the input", 2, 3, 2, 2, 5, 5, 1, 1, 0, 1, true},
        {"kernel larger than the input, padded", 2, 3, 2, 2, 5, 5, 1, 1, 2, 1, false},
        {"kernel larger in one direction", 2, 3, 7, 2, 1, 3, 1, 1, 0, 1, true},
        {"padding larger than the kernel", 2, 3, 3, 3, 1, 1, 1, 1, 2, 1, false},
        {"stride larger than the input", 2, 3, 3, 3, 1, 1, 7, 1, 0, 1, false},
        {"dilation", 2, 3, 7, 7, 3, 3, 1, 3, 0, 1, false},
        {"dilation past the input", 2, 3, 7, 7, 3, 3, 1, 4, 0, 1, true},
        {"dilation past the input, padded", 2, 3, 3, 3, 3, 3, 1, 9, 9, 1, false},
        {"depthwise", 5, 5, 5, 5, 3, 3, 1, 1, 1, 5, false},
        {"groups", 4, 6, 3, 3, 3, 3, 2, 1, 1, 2, false},
        {"one row", 3, 2, 1, 9, 1, 3, 2, 1, 0, 1, false},
        {"one column", 3, 2, 9, 1, 3, 1, 2, 1, 0, 1, false},
        {"nothing high", 2, 3, 0, 4, 1, 1, 1, 1, 0, 1, true},
        {"stride 0", 2, 3, 4, 4, 1, 1, 0, 1, 0, 1, true},
        {"dilation 0", 2, 3, 4, 4, 1, 1, 1, 0, 0, 1, true},
        {"outputs that groups do not divide", 4, 5, 4, 4, 1, 1, 1, 1, 0, 2, true},
    };
    static float x[MOST], w[MOST], want[MOST];
    for (size_t i = 0; i < MOST; i++) {
        x[i] = (float)((int)(i * 37 % 101) - 50) / 50;
        w[i] = (float)((int)(i * 53 % 89) - 44) / 44;
    }
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        const geometry *g = &CASES[i];
        uint8_t *bytes;
        size_t size, count = 0;
        qn_model *model = NULL;
        qn_session *session = NULL;
        qn_session_options options;
        qn_error error = {0};
        const float *const inputs[] = {x};
        geometry_model(g, w, &bytes, &size);
        write_file(model_path, bytes, size);
        qn__free(ctx, bytes);
        qn_session_options_init(&options);
        qn_status status = qn_model_load(ctx, model_path, &model, &error);
        if (status == QN_OK)
            status = qn_session_create(model, &options, &session, &error);
        if (status == QN_OK)
            status = qn_session_run(session, inputs, &error);
        if ((status != QN_OK) != g->refused || (g->refused && strlen(error.message) < 20))
            fail_msg("%s: status %d %s", g->name, (int)status, error.message);
        if (status == QN_OK) {
            const float *got = qn_session_output(session, 0, &count);
            plain_loop(g, x, w, want);
            assert_int_equal(count, (size_t)g->outputs * (size_t)extent(g->height, g->kernel_y, g) *
                                        (size_t)extent(g->width, g->kernel_x, g));
            for (size_t k = 0; k < count; k++)
                if (!(fabsf(got[k] - want[k]) <= 1e-4f))
                    fail_msg("%s: value %zu is %g, not %g", g->name, k, (double)got[k],
                             (double)want[k]);
        }
        qn_session_destroy(session);
        qn_model_destroy(model);
    }
}

/* --- records that are there twice --------------------------------------------------------------*/
static void test_records_described_twice(void **state)
{
    (void)state;
    static const int32_t DESCRIBED[] = {1, 1, 0, 1, -7, 9, 1};
    const qn_mnn_tensor_quant quants[] = {{1, 0.5f, 3, -127, 127}, {0, 0.25f, 0, -127, 127}};
    enum { N = sizeof(DESCRIBED) / sizeof(DESCRIBED[0]) };
    craft c;
    qn_fb_object *list[N];
    size_t n;
    begin(&c, QN_MNN_OpType_ReLU, -1);
    for (size_t i = 0; i < N; i++) {
        list[i] = qn__fb_new(&c.d, QN_MNN_REC_TensorDescribe);
        qn__fb_set_int(list[i], QN_MNN_TensorDescribe_index, DESCRIBED[i]);
    }
    assert_true(qn__fb_set_tables(&c.d, c.d.root, QN_MNN_Net_extraTensorDescribe, list, (size_t)N));
    static const char *const NAMES[] = {"x", "conv", "pool", "c", "last"};
    seed_net(&c.d, c.ops, 5, NAMES, 5);
    assert_int_equal(qn__mnn_edit_quants(&c.d, quants, 2, NULL), QN_OK);
    qn_fb_object **made = qn__fb_tables(c.d.root, QN_MNN_Net_extraTensorDescribe, &n);
    assert_int_equal(n, 4); /* 1, 0 and the two that name no tensor */
    for (size_t i = 0; i < 2; i++) {
        const qn_fb_object *info = qn__fb_table(made[i], QN_MNN_TensorDescribe_quantInfo);
        assert_int_equal(qn__fb_int(&c.d, made[i], QN_MNN_TensorDescribe_index), quants[i].index);
        assert_true(qn__fb_real(&c.d, info, QN_MNN_TensorQuantInfo_scale) ==
                    (double)quants[i].scale);
    }
    qn__fb_free(&c.d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_records_described_twice),
        cmocka_unit_test(test_side_offsets_and_names),
        cmocka_unit_test(test_side_files),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_degenerate_convolutions),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
