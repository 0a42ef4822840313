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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lies),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
