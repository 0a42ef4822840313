/* .mnn documents that mean something: every form of weights, and documents that lie. They are made
 * here as FlatBuffers and read back; each lie must end in a message that says what is wrong. */
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

#include "core/context.h"
#include "core/io.h"
#include "fault/fault.h"
#include "format/mnn/mnn_format.h"

#define CONV(field) QN_MNN_Convolution2DCommon_##field

/* --- a model: input -> conv -> relu -> pool, with things to spoil -----------------------------*/
typedef struct model {
    qn_fb_document doc;
    qn_fb_object *ops[8];
    size_t n_ops;
    qn_fb_object *conv, *common, *relu, *pool;
} model;

static qn_context *make_context(void)
{
    qn_context *ctx = NULL;
    assert_int_equal(qn_context_create(NULL, &ctx, NULL), QN_OK);
    return ctx;
}

static void set_ints(qn_fb_document *d, qn_fb_object *o, uint32_t slot, const int32_t *v, size_t n)
{
    assert_true(qn__fb_set_vector(d, o, slot, v, n));
}

static qn_fb_object *add_op(model *m, int64_t type, const char *name, int32_t in, int32_t out,
                            int32_t record)
{
    qn_fb_document *d = &m->doc;
    qn_fb_object *op = qn__fb_new(d, QN_MNN_REC_Op);
    if (in >= 0)
        set_ints(d, op, QN_MNN_Op_inputIndexes, &in, 1);
    set_ints(d, op, QN_MNN_Op_outputIndexes, &out, 1);
    qn__fb_set_int(op, QN_MNN_Op_type, type);
    assert_true(qn__fb_set_string(d, op, QN_MNN_Op_name, name));
    if (record >= 0)
        qn__fb_set_union(d, op, QN_MNN_Op_main, qn__fb_new(d, record));
    m->ops[m->n_ops++] = op;
    return op;
}

static qn_fb_object *main_of(qn_fb_object *op)
{
    return qn__fb_table(op, QN_MNN_Op_main);
}

enum { OUTPUTS = 4, INPUTS = 3, WEIGHTS = OUTPUTS * INPUTS * 9 };

static void build(qn_context *ctx, model *m)
{
    *m = (model){0};
    qn_fb_document *d = &m->doc;
    assert_int_equal(qn__fb_create(ctx, &qn__mnn_schema, d, NULL), QN_OK);
    qn_fb_object *in = add_op(m, QN_MNN_OpType_Input, "in", -1, 0, QN_MNN_REC_Input);
    set_ints(d, main_of(in), QN_MNN_Input_dims, (int32_t[]){1, INPUTS, 8, 8}, 4);
    qn_fb_object *conv =
        add_op(m, QN_MNN_OpType_Convolution, "conv", 0, 1, QN_MNN_REC_Convolution2D);
    m->conv = main_of(conv);
    m->common = qn__fb_new(d, QN_MNN_REC_Convolution2DCommon);
    qn__fb_set_table(m->conv, QN_MNN_Convolution2D_common, m->common);
    qn__fb_set_int(m->common, CONV(kernelX), 3);
    qn__fb_set_int(m->common, CONV(kernelY), 3);
    qn__fb_set_int(m->common, CONV(outputCount), OUTPUTS);
    float weights[WEIGHTS], bias[OUTPUTS] = {0};
    for (int i = 0; i < WEIGHTS; i++)
        weights[i] = (float)(i % 7) - 3.0f;
    assert_true(qn__fb_set_vector(d, m->conv, QN_MNN_Convolution2D_weight, weights, WEIGHTS));
    assert_true(qn__fb_set_vector(d, m->conv, QN_MNN_Convolution2D_bias, bias, OUTPUTS));
    m->relu = add_op(m, QN_MNN_OpType_ReLU, "relu", 1, 2, -1);
    m->pool = main_of(add_op(m, QN_MNN_OpType_Pooling, "pool", 2, 3, QN_MNN_REC_Pool));
    qn__fb_set_int(m->pool, QN_MNN_Pool_kernelX, 2);
    qn__fb_set_int(m->pool, QN_MNN_Pool_kernelY, 2);
    qn__fb_set_int(m->pool, QN_MNN_Pool_strideX, 2);
    qn__fb_set_int(m->pool, QN_MNN_Pool_strideY, 2);
}

static qn_status read_model(qn_context *ctx, model *m, qn_graph **out, qn_error *error)
{
    qn_fb_document *d = &m->doc;
    static const char *const NAMES[] = {"x", "a", "b", "y"};
    uint8_t *bytes;
    size_t size;
    assert_true(qn__fb_set_tables(d, d->root, QN_MNN_Net_oplists, m->ops, m->n_ops));
    assert_true(qn__fb_set_strings(d, d->root, QN_MNN_Net_tensorName, NAMES, 4));
    assert_int_equal(qn__fb_build(d, &bytes, &size, NULL), QN_OK);
    qn_blob *file = qn__blob_copy(ctx, bytes, size);
    qn__free(ctx, bytes);
    assert_non_null(file);
    assert_true(qn__format_mnn.probe(ctx, file->data, file->size_bytes));
    const qn_status status = qn__mnn_read(ctx, "m.mnn", file, out, error);
    qn__blob_unref(file);
    qn__fb_free(d);
    return status;
}

static void test_reads(void **state)
{
    (void)state;
    qn_context *ctx = make_context();
    model m;
    qn_graph *g;
    qn_error error;
    build(ctx, &m);
    assert_int_equal(read_model(ctx, &m, &g, &error), QN_OK);
    assert_int_equal(g->n_nodes, 3);
    assert_int_equal(g->n_inputs, 1);
    assert_int_equal(g->n_outputs, 1);
    assert_string_equal(g->outputs[0]->name, "y");
    assert_int_equal(g->outputs[0]->source, 3);
    int64_t dims[QN_MAX_RANK];
    assert_true(qn__tensor_static_dims(g->outputs[0], dims));
    assert_int_equal(dims[1], OUTPUTS);
    assert_int_equal(dims[2], 3);
    assert_int_equal(g->nodes[0]->op, QN_OP_CONV);
    assert_string_equal(g->nodes[0]->name, "conv");
    assert_int_equal(g->nodes[0]->sources[0], 1);
    assert_non_null(qn__mnn_source_of(g));
    qn__graph_destroy(g);
    qn_context_destroy(ctx);
}

/* --- lies -------------------------------------------------------------------------------------*/
typedef struct lie {
    const char *name;
    void (*tell)(model *m);
    qn_status status;
    const char *says;
} lie;

#define LIE(name, ...)                                                                             \
    static void name(model *m)                                                                     \
    {                                                                                              \
        __VA_ARGS__;                                                                               \
    }

LIE(kernel_0, qn__fb_set_int(m->common, CONV(kernelX), 0))
LIE(kernel_negative, qn__fb_set_int(m->common, CONV(kernelY), -3))
LIE(kernel_huge, qn__fb_set_int(m->common, CONV(kernelY), INT32_MAX))
LIE(stride_0, qn__fb_set_int(m->common, CONV(strideX), 0))
LIE(dilation_0, qn__fb_set_int(m->common, CONV(dilateY), 0))
LIE(dilation_huge, qn__fb_set_int(m->common, CONV(dilateY), INT32_MAX))
LIE(no_outputs, qn__fb_set_int(m->common, CONV(outputCount), 0))
LIE(many_outputs, qn__fb_set_int(m->common, CONV(outputCount), INT32_MAX))
LIE(pad_negative, qn__fb_set_int(m->common, CONV(padX), -1))
LIE(pad_mode, qn__fb_set_int(m->common, CONV(padMode), 9))
LIE(short_pads, set_ints(&m->doc, m->common, CONV(pads), (int32_t[]){1, 1}, 2))
LIE(no_common, qn__fb_clear(m->conv, QN_MNN_Convolution2D_common))
LIE(no_weights, qn__fb_clear(m->conv, QN_MNN_Convolution2D_weight))
LIE(few_weights,
    assert_true(qn__fb_set_vector(&m->doc, m->conv, QN_MNN_Convolution2D_weight, &(float){1}, 1)))
LIE(few_biases,
    assert_true(qn__fb_set_vector(&m->doc, m->conv, QN_MNN_Convolution2D_bias, &(float){1}, 1)))
LIE(nan_bias, float v[OUTPUTS] = {0}; const uint32_t nan = 0x7fc00000; memcpy(&v[2], &nan, 4);
    assert_true(qn__fb_set_vector(&m->doc, m->conv, QN_MNN_Convolution2D_bias, v, OUTPUTS)))
LIE(no_parameters, qn__fb_clear(m->ops[1], QN_MNN_Op_main);
    qn__fb_clear(m->ops[1], QN_MNN_Op_main_type))
LIE(other_parameters,
    qn__fb_set_union(&m->doc, m->ops[1], QN_MNN_Op_main, qn__fb_new(&m->doc, QN_MNN_REC_Axis)))
LIE(pool_kernel_0, qn__fb_set_int(m->pool, QN_MNN_Pool_kernelX, 0))
LIE(pool_stride_0, qn__fb_set_int(m->pool, QN_MNN_Pool_strideY, 0))
LIE(pool_pad, qn__fb_set_int(m->pool, QN_MNN_Pool_padX, -7))
LIE(pool_type, qn__fb_set_int(m->pool, QN_MNN_Pool_type, 5))
LIE(pool_pads_3, set_ints(&m->doc, m->pool, QN_MNN_Pool_pads, (int32_t[]){1, 1, 1}, 3))
LIE(input_id_high, set_ints(&m->doc, m->relu, QN_MNN_Op_inputIndexes, (int32_t[]){77}, 1))
LIE(input_id_negative, set_ints(&m->doc, m->relu, QN_MNN_Op_inputIndexes, (int32_t[]){-1}, 1))
LIE(output_id_high, set_ints(&m->doc, m->relu, QN_MNN_Op_outputIndexes, (int32_t[]){4}, 1))
LIE(output_id_negative,
    set_ints(&m->doc, m->relu, QN_MNN_Op_outputIndexes, (int32_t[]){INT32_MIN}, 1))
LIE(cycle, set_ints(&m->doc, m->relu, QN_MNN_Op_inputIndexes, (int32_t[]){3}, 1))
LIE(own_input, set_ints(&m->doc, m->relu, QN_MNN_Op_inputIndexes, (int32_t[]){2}, 1))
LIE(made_before, set_ints(&m->doc, m->relu, QN_MNN_Op_outputIndexes, (int32_t[]){1}, 1))
LIE(made_twice, set_ints(&m->doc, m->relu, QN_MNN_Op_outputIndexes, (int32_t[]){2, 2}, 2))
LIE(more_outputs, set_ints(&m->doc, m->ops[1], QN_MNN_Op_outputIndexes, (int32_t[]){1, 3}, 2);
    m->n_ops = 2)
LIE(no_inputs, qn__fb_clear(m->relu, QN_MNN_Op_inputIndexes))
LIE(makes_nothing, qn__fb_clear(m->relu, QN_MNN_Op_outputIndexes))
LIE(unknown_type, qn__fb_set_int(m->relu, QN_MNN_Op_type, 12345))
LIE(loop, qn__fb_set_int(m->relu, QN_MNN_Op_type, QN_MNN_OpType_While))
LIE(branch, qn__fb_set_int(m->relu, QN_MNN_Op_type, QN_MNN_OpType_If))
LIE(input_rank, set_ints(&m->doc, main_of(m->ops[0]), QN_MNN_Input_dims, (int32_t[]){1, 3}, 2))
LIE(input_rank_9, set_ints(&m->doc, main_of(m->ops[0]), QN_MNN_Input_dims,
                           (int32_t[]){1, 1, 1, 1, 1, 1, 1, 1, 1}, 9))
LIE(input_dim,
    set_ints(&m->doc, main_of(m->ops[0]), QN_MNN_Input_dims, (int32_t[]){1, 3, -5, 8}, 4))
LIE(input_channels,
    set_ints(&m->doc, main_of(m->ops[0]), QN_MNN_Input_dims, (int32_t[]){1, 5, 8, 8}, 4))
LIE(input_type, qn__fb_set_int(main_of(m->ops[0]), QN_MNN_Input_dtype, QN_MNN_DataType_DT_STRING))
LIE(output_name, assert_true(qn__fb_set_strings(&m->doc, m->doc.root, QN_MNN_Net_outputName,
                                                (const char *[]){"nobody"}, 1)))
LIE(output_twice, assert_true(qn__fb_set_strings(&m->doc, m->doc.root, QN_MNN_Net_outputName,
                                                 (const char *[]){"y", "y"}, 2)))
LIE(all_read, set_ints(&m->doc, m->ops[1], QN_MNN_Op_inputIndexes, (int32_t[]){0, 0, 0, 0}, 4))

/* Packed weights instead of plain ones. */
static qn_fb_object *packed(model *m, int64_t type, const void *buffer, size_t size,
                            const float *alpha, size_t n_alpha)
{
    qn_fb_object *q = qn__fb_new(&m->doc, QN_MNN_REC_IDSTQuan);
    qn__fb_clear(m->conv, QN_MNN_Convolution2D_weight);
    qn__fb_set_table(m->conv, QN_MNN_Convolution2D_quanParameter, q);
    qn__fb_set_int(q, QN_MNN_IDSTQuan_type, type);
    qn__fb_set_real(q, QN_MNN_IDSTQuan_quantScale, 1.0);
    assert_true(qn__fb_set_vector(&m->doc, q, QN_MNN_IDSTQuan_buffer, buffer, size));
    if (alpha)
        assert_true(qn__fb_set_vector(&m->doc, q, QN_MNN_IDSTQuan_alpha, alpha, n_alpha));
    return q;
}

static const float ONES[2 * OUTPUTS] = {1, 1, 1, 1, 1, 1, 1, 1};
static const uint8_t DENSE[6 + 2 + 2 + 14] = {2, OUTPUTS, 0, INPUTS * 9, 0, 2, 0x01, 0xff};
static const uint8_t SPARSE[] = {2, OUTPUTS, 0, INPUTS * 9, 0, 2, 0, 0, 0, 8, 5, 200, 1, 3, 0};

LIE(no_alpha, packed(m, 1, DENSE, sizeof(DENSE), NULL, 0))
LIE(few_alphas, packed(m, 1, DENSE, sizeof(DENSE), ONES, 3))
LIE(odd_blocks, packed(m, 1, DENSE, sizeof(DENSE), ONES, 8))
LIE(short_buffer, packed(m, 1, DENSE, 12, ONES, OUTPUTS))
LIE(no_table, packed(m, 1, DENSE, 6, ONES, OUTPUTS))
LIE(no_dims, packed(m, 1, DENSE, 2, ONES, OUTPUTS))
LIE(empty_buffer, packed(m, 1, DENSE, 0, ONES, OUTPUTS))
LIE(other_dims, const uint8_t b[] = {2, 9, 0, 9, 0, 1, 0}; packed(m, 1, b, sizeof(b), ONES, 4))
LIE(level_beyond, uint8_t b[64] = {2, OUTPUTS, 0, INPUTS * 9, 0, 3, 1, 2, 3};
    memset(b + 9, 0xff, sizeof(b) - 9); packed(m, 1, b, sizeof(b), ONES, OUTPUTS))
LIE(sparse_beyond, packed(m, 2, SPARSE, sizeof(SPARSE), ONES, OUTPUTS))
LIE(sparse_many, const uint8_t b[] = {2, OUTPUTS, 0, 27, 0, 255, 255, 255, 255, 8};
    packed(m, 2, b, sizeof(b), ONES, OUTPUTS))
LIE(sparse_bits, const uint8_t b[] = {2, OUTPUTS, 0, 27, 0, 1, 0, 0, 0, 9, 0};
    packed(m, 2, b, sizeof(b), ONES, OUTPUTS))
LIE(raw_short, packed(m, 4, DENSE, 5, ONES, OUTPUTS))
LIE(half_short, packed(m, 3, DENSE, 10, NULL, 0))
LIE(unknown_packing, float b[WEIGHTS] = {0}; packed(m, 77, b, sizeof(b), ONES, OUTPUTS))
LIE(external_missing, qn__fb_clear(m->conv, QN_MNN_Convolution2D_weight);
    assert_true(qn__fb_set_vector(&m->doc, m->conv, QN_MNN_Convolution2D_external,
                                  (int64_t[]){0, WEIGHTS * 4, 16}, 3)))
LIE(external_short, qn__fb_clear(m->conv, QN_MNN_Convolution2D_weight);
    assert_true(qn__fb_set_vector(&m->doc, m->conv, QN_MNN_Convolution2D_external, (int64_t[]){0},
                                  1)))

static const lie LIES[] = {
    {"kernel_0", kernel_0, QN_CORRUPT, "kernel, stride or dilation is 3x0"},
    {"kernel_negative", kernel_negative, QN_CORRUPT, "is -3x3"},
    {"kernel_huge", kernel_huge, QN_CORRUPT, "weights do not fit"},
    {"stride_0", stride_0, QN_CORRUPT, "stride"},
    {"dilation_0", dilation_0, QN_CORRUPT, "dilation"},
    {"dilation_huge", dilation_huge, QN_CORRUPT, "window has size"},
    {"no_outputs", no_outputs, QN_CORRUPT, "\"outputCount\" is 0"},
    {"many_outputs", many_outputs, QN_CORRUPT, "weights do not fit"},
    {"pad_negative", pad_negative, QN_UNSUPPORTED, "padding of -1"},
    {"pad_mode", pad_mode, QN_UNSUPPORTED, "padding of kind 9"},
    {"short_pads", short_pads, QN_CORRUPT, "has 2 pads"},
    {"no_common", no_common, QN_CORRUPT, "has no \"common\""},
    {"no_weights", no_weights, QN_CORRUPT, "there are no weights"},
    {"few_weights", few_weights, QN_CORRUPT, "1 weights do not fit 4 outputs"},
    {"few_biases", few_biases, QN_CORRUPT, "4 bytes of bias for 4 outputs"},
    {"nan_bias", nan_bias, QN_NONFINITE, "a bias is not finite"},
    {"no_parameters", no_parameters, QN_CORRUPT, "has no parameters"},
    {"other_parameters", other_parameters, QN_CORRUPT, "parameters of another operator, Axis"},
    {"pool_kernel_0", pool_kernel_0, QN_CORRUPT, "kernel 0"},
    {"pool_stride_0", pool_stride_0, QN_CORRUPT, "stride 0"},
    {"pool_pad", pool_pad, QN_CORRUPT, "padding of -7"},
    {"pool_type", pool_type, QN_UNSUPPORTED, "pooling of kind 5"},
    {"pool_pads_3", pool_pads_3, QN_UNSUPPORTED, "3 pads"},
    {"input_id_high", input_id_high, QN_CORRUPT, "reads tensor 77 of 4"},
    {"input_id_negative", input_id_negative, QN_CORRUPT, "reads tensor -1 of 4"},
    {"output_id_high", output_id_high, QN_CORRUPT, "makes tensor 4 of 4"},
    {"output_id_negative", output_id_negative, QN_CORRUPT, "makes tensor -2147483648"},
    {"cycle", cycle, QN_CORRUPT, "reads tensor 3, which no operator before it makes"},
    {"own_input", own_input, QN_CORRUPT, "reads tensor 2, which no operator before it makes"},
    {"made_before", made_before, QN_CORRUPT, "makes tensor 1, which is already made"},
    {"made_twice", made_twice, QN_CORRUPT, "makes tensor 2, which is already made"},
    {"more_outputs", more_outputs, QN_CORRUPT, "has 2 outputs"},
    {"no_inputs", no_inputs, QN_CORRUPT, "has no inputs"},
    {"makes_nothing", makes_nothing, QN_CORRUPT, "makes nothing"},
    {"unknown_type", unknown_type, QN_UNSUPPORTED, "\"relu\" of type 12345: the operator"},
    {"loop", loop, QN_UNSUPPORTED, "\"relu\" While: the operator is not supported"},
    {"branch", branch, QN_UNSUPPORTED, "\"relu\" If: the operator is not supported"},
    {"input_rank", input_rank, QN_CORRUPT, "has rank 2"},
    {"input_rank_9", input_rank_9, QN_CORRUPT, "\"dims\" has 9 values"},
    {"input_dim", input_dim, QN_CORRUPT, "dimension 2 is -5"},
    {"input_channels", input_channels, QN_CORRUPT, "weights for 3 channels, the input has 5"},
    {"input_type", input_type, QN_UNSUPPORTED, "data type 7"},
    {"output_name", output_name, QN_CORRUPT, "\"nobody\""},
    {"output_twice", output_twice, QN_CORRUPT, "\"y\" is listed twice"},
    {"all_read", all_read, QN_CORRUPT, "has 4 inputs"},
    {"no_alpha", no_alpha, QN_CORRUPT, "0 scales for 4 rows"},
    {"few_alphas", few_alphas, QN_CORRUPT, "3 scales for 4 rows"},
    {"odd_blocks", odd_blocks, QN_CORRUPT, "27 weights in 2 blocks"},
    {"short_buffer", short_buffer, QN_CORRUPT, "in"},
    {"no_table", no_table, QN_CORRUPT, "in"},
    {"no_dims", no_dims, QN_CORRUPT, "end in their dimensions"},
    {"empty_buffer", empty_buffer, QN_CORRUPT, "there are no weights"},
    {"other_dims", other_dims, QN_CORRUPT, "81 weights do not fit"},
    {"level_beyond", level_beyond, QN_CORRUPT, "level 3 of 3"},
    {"sparse_beyond", sparse_beyond, QN_CORRUPT, "sparse weight"},
    {"sparse_many", sparse_many, QN_CORRUPT, "4294967295 entries"},
    {"sparse_bits", sparse_bits, QN_CORRUPT, "steps of 9 bits"},
    {"raw_short", raw_short, QN_CORRUPT, "5 weights do not fit"},
    {"half_short", half_short, QN_CORRUPT, "5 weights do not fit"},
    {"unknown_packing", unknown_packing, QN_UNSUPPORTED, "packed weights of type 77"},
    {"external_missing", external_missing, QN_IO, "m.mnn.weight"},
    {"external_short", external_short, QN_CORRUPT, "\"external\" has 1 values"},
};

static void test_lies(void **state)
{
    (void)state;
    qn_context *ctx = make_context();
    for (size_t i = 0; i < sizeof(LIES) / sizeof(LIES[0]); i++) {
        model m;
        qn_graph *g = NULL;
        qn_error error = {0};
        build(ctx, &m);
        LIES[i].tell(&m);
        const qn_status status = read_model(ctx, &m, &g, &error);
        if (status != LIES[i].status || !strstr(error.message, LIES[i].says) ||
            strncmp(error.message, "m.mnn: ", 7) != 0)
            fail_msg("%s: status %d, \"%s\"", LIES[i].name, (int)status, error.message);
    }
    qn_context_destroy(ctx);
}

/* --- weights ----------------------------------------------------------------------------------*/
static const float *weights_of(const qn_graph *g)
{
    const qn_tensor *w = g->nodes[0]->inputs[1];
    assert_int_equal(w->constant->size_bytes, WEIGHTS * sizeof(float));
    return (const float *)w->constant->data;
}

static void read_packed(qn_context *ctx, model *m, qn_graph **g)
{
    qn_error error;
    if (read_model(ctx, m, g, &error) != QN_OK)
        fail_msg("%s", error.message);
}

static void test_dense_levels(void **state)
{
    (void)state;
    qn_context *ctx = make_context();
    model m;
    qn_graph *g;
    /* levels 5, -2, 1 in the file's order, sorted -2, 1, 5; two bits each: 0, 1, 2, 0, ... */
    uint8_t b[9 + WEIGHTS / 4] = {2, OUTPUTS, 0, INPUTS * 9, 0, 3, 5, 0xfe, 1};
    for (size_t i = 0; i < WEIGHTS; i++)
        b[9 + i / 4] |= (uint8_t)((i % 3) << (6 - 2 * (i % 4)));
    const float alpha[OUTPUTS] = {0.5f, 1.0f, 2.0f, 4.0f};
    build(ctx, &m);
    packed(&m, 1, b, sizeof(b), alpha, OUTPUTS);
    read_packed(ctx, &m, &g);
    static const float LEVELS[] = {-2, 1, 5};
    for (size_t i = 0; i < WEIGHTS; i++)
        assert_float_equal(weights_of(g)[i], LEVELS[i % 3] * alpha[i / 27], 0);
    qn__graph_destroy(g);
    qn_context_destroy(ctx);
}

static void test_sparse(void **state)
{
    (void)state;
    qn_context *ctx = make_context();
    model m;
    qn_graph *g;
    /* two weights: 3 at position 5, -4 at 5 + 100 */
    const uint8_t b[] = {2, OUTPUTS, 0, INPUTS * 9, 0, 2, 0, 0, 0, 8, 5, 100, 2, 3, 0xfc, 0x80};
    build(ctx, &m);
    packed(&m, 2, b, sizeof(b), ONES, OUTPUTS);
    read_packed(ctx, &m, &g);
    for (size_t i = 0; i < WEIGHTS; i++)
        assert_float_equal(weights_of(g)[i], (i == 5 ? 3.0f : i == 105 ? -4.0f : 0.0f), 0);
    qn__graph_destroy(g);
    qn_context_destroy(ctx);
}

static void test_raw_asymmetric_half(void **state)
{
    (void)state;
    qn_context *ctx = make_context();
    model m;
    qn_graph *g;
    int8_t raw[WEIGHTS];
    uint16_t half[WEIGHTS];
    float pairs[2 * OUTPUTS];
    for (size_t i = 0; i < WEIGHTS; i++) {
        raw[i] = (int8_t)(i - 50);
        half[i] = i % 2 ? 0x3c00 : 0xc000; /* 1, -2 */
    }
    for (size_t i = 0; i < OUTPUTS; i++) {
        pairs[2 * i] = -(float)i;
        pairs[2 * i + 1] = 0.25f;
    }
    build(ctx, &m);
    packed(&m, 4, raw, WEIGHTS, ONES, OUTPUTS);
    read_packed(ctx, &m, &g);
    for (size_t i = 0; i < WEIGHTS; i++)
        assert_float_equal(weights_of(g)[i], (float)raw[i], 0);
    qn__graph_destroy(g);

    build(ctx, &m);
    qn_fb_object *q = packed(&m, 4, raw, WEIGHTS, pairs, 2 * OUTPUTS);
    qn__fb_set_int(q, QN_MNN_IDSTQuan_readType, OUTPUTS);
    qn__fb_set_int(q, QN_MNN_IDSTQuan_aMin, -100);
    read_packed(ctx, &m, &g);
    for (size_t i = 0; i < WEIGHTS; i++)
        assert_float_equal(weights_of(g)[i], ((float)raw[i] + 100) * 0.25f - (float)(i / 27), 1e-6);
    qn__graph_destroy(g);

    build(ctx, &m);
    packed(&m, 3, half, sizeof(half), NULL, 0);
    read_packed(ctx, &m, &g);
    for (size_t i = 0; i < WEIGHTS; i++)
        assert_float_equal(weights_of(g)[i], (i % 2 ? 1.0f : -2.0f), 0);
    qn__graph_destroy(g);
    qn_context_destroy(ctx);
}

static void test_blocks(void **state)
{
    (void)state;
    qn_context *ctx = make_context();
    model m;
    qn_graph *g;
    int8_t raw[WEIGHTS];
    float alpha[3 * OUTPUTS];
    memset(raw, 1, sizeof(raw));
    for (size_t i = 0; i < 3 * OUTPUTS; i++)
        alpha[i] = (float)(i + 1);
    build(ctx, &m);
    packed(&m, 4, raw, WEIGHTS, alpha, 3 * OUTPUTS);
    read_packed(ctx, &m, &g);
    for (size_t i = 0; i < WEIGHTS; i++)
        assert_float_equal(weights_of(g)[i], alpha[i / 9], 0);
    qn__graph_destroy(g);
    qn_context_destroy(ctx);
}

/* --- bytes ------------------------------------------------------------------------------------*/
static qn_blob *saved_file(qn_context *ctx)
{
    model m;
    uint8_t *bytes;
    size_t size;
    static const char *const NAMES[] = {"x", "a", "b", "y"};
    build(ctx, &m);
    qn_fb_document *d = &m.doc;
    assert_true(qn__fb_set_tables(d, d->root, QN_MNN_Net_oplists, m.ops, m.n_ops));
    assert_true(qn__fb_set_strings(d, d->root, QN_MNN_Net_tensorName, NAMES, 4));
    assert_int_equal(qn__fb_build(d, &bytes, &size, NULL), QN_OK);
    qn_blob *file = qn__blob_copy(ctx, bytes, size);
    qn__free(ctx, bytes);
    qn__fb_free(d);
    return file;
}

static void test_cut_and_flipped(void **state)
{
    (void)state;
    qn_context *ctx = make_context();
    qn_blob *file = saved_file(ctx);
    for (size_t i = 0; i < file->size_bytes; i++) {
        for (int what = 0; what < 3; what++) {
            void *to;
            const size_t size = what == 0 ? i : file->size_bytes;
            qn_blob *bad = qn__blob_create(ctx, size, &to);
            memcpy(to, file->data, size);
            if (what > 0)
                ((uint8_t *)to)[i] ^= what == 1 ? 0x01 : 0x80;
            qn_graph *g = NULL;
            qn_error error = {0};
            const qn_status status = qn__mnn_read(ctx, "m.mnn", bad, &g, &error);
            if (status == QN_OK) {
                assert_int_equal(qn__graph_verify(g, NULL), QN_OK);
                qn__graph_destroy(g);
            } else {
                assert_true(error.message[0] != '\0');
            }
            qn__blob_unref(bad);
        }
    }
    qn__blob_unref(file);
    qn_context_destroy(ctx);
}

/* Every allocation of reading fails once, and from then on: a status, and nothing leaks. */
static void test_out_of_memory(void **state)
{
    (void)state;
    qn_context *plain = make_context();
    qn_blob *file = saved_file(plain);
    for (int persistent = 0; persistent < 2; persistent++) {
        qn_status status = QN_NO_MEMORY;
        uint64_t n = 1;
        for (; status != QN_OK; n++) {
            fault f = {.fail_at = n, .persistent = persistent != 0};
            qn_context ctx = *plain;
            ctx.allocator = fault_allocator(&f);
            ctx.arena_block_bytes = 256;
            qn_blob *mine = NULL;
            qn_graph *g = NULL;
            status = QN_NO_MEMORY;
            mine = qn__blob_copy(&ctx, file->data, file->size_bytes);
            if (mine)
                status = qn__mnn_read(&ctx, "m.mnn", mine, &g, NULL);
            if (status == QN_OK)
                qn__graph_destroy(g);
            qn__blob_unref(mine);
            if (status != QN_OK && status != QN_NO_MEMORY)
                fail_msg("allocation %d: %s", (int)n, qn_status_name(status));
            assert_int_equal(f.live, 0);
            assert_true(n < 100000);
        }
        assert_true(n > 20); /* the injection reached the code */
    }
    qn__blob_unref(file);
    qn_context_destroy(plain);
}

/* A few bytes must not ask for any number of constants: LayerNorm without gamma needs ones. */
static void test_bounded_constants(void **state)
{
    (void)state;
    qn_context *ctx = make_context();
    for (int64_t size = 1 << 10; size <= 1 << 26; size <<= 16) {
        model m;
        qn_graph *g = NULL;
        qn_error error = {0};
        build(ctx, &m);
        m.n_ops = 1;
        set_ints(&m.doc, main_of(m.ops[0]), QN_MNN_Input_dims, (int32_t[]){1, (int32_t)size}, 2);
        qn_fb_object *norm =
            main_of(add_op(&m, QN_MNN_OpType_LayerNorm, "norm", 0, 1, QN_MNN_REC_LayerNorm));
        set_ints(&m.doc, norm, QN_MNN_LayerNorm_axis, (int32_t[]){-1}, 1);
        const qn_status status = read_model(ctx, &m, &g, &error);
        if (size == 1 << 10) {
            assert_int_equal(status, QN_OK);
            qn__graph_destroy(g);
        } else {
            if (status != QN_LIMIT)
                fail_msg("%s", error.message);
            assert_non_null(strstr(error.message, "too many for a file"));
        }
    }
    qn_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_lies),
        cmocka_unit_test(test_dense_levels),
        cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_raw_asymmetric_half),
        cmocka_unit_test(test_cut_and_flipped),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_bounded_constants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
