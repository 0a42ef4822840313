/* Tables of unary operators in files that exact mode writes: every level of the input gives the
 * level of the function's value, what is not a number that of 0; functions without a table stay as
 * they are. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/io.h"
#include "quench/mnn.h"
#include "small_mnn.h"

enum { LEVELS = 255, HALF = 127, UNARY_ID = 2 };

static double square(double x)
{
    return x * x;
}

static double inverse(double x)
{
    return 1 / x;
}

static double inverse_root(double x)
{
    return 1 / sqrt(x);
}

static double softplus(double x)
{
    return log(1 + exp(x));
}

static double logistic(double x)
{
    return 1 / (1 + exp(-x));
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static double hard_swish(double x)
{
    return x <= -3 ? 0 : x >= 3 ? x : x * (x + 3) / 6;
}

static double gelu(double x)
{
    return x * 0.5 * (1 + erf(x / sqrt(2)));
}

static double gelu_by_tanh(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * pow(x, 3))));
}

static const struct function {
    const char *name;
    int64_t type;
    double (*value)(double); /* NULL: no table */
    float gain, center;      /* of what it reads, so that its values are numbers */
} FUNCTIONS[] = {
#define F(n, f)                                                                                    \
    {                                                                                              \
#n, QN_MNN_UnaryOpOperation_##n, f, 1, 0                                                   \
    }
#define NEAR(n, f, center)                                                                         \
    {                                                                                              \
#n, QN_MNN_UnaryOpOperation_##n, f, 0.05f, center                                          \
    }
    F(FLOOR, floor),
    F(CEIL, ceil),
    F(SQUARE, square),
    NEAR(SQRT, sqrt, 1),
    NEAR(RSQRT, inverse_root, 1),
    F(EXP, exp),
    NEAR(LOG, log, 1),
    F(SIN, sin),
    F(COS, cos),
    NEAR(TAN, tan, 0),
    NEAR(ASIN, asin, 0),
    NEAR(ACOS, acos, 0.5f),
    F(ATAN, atan),
    NEAR(RECIPROCAL, inverse, 1),
    NEAR(LOG1P, log1p, 0),
    F(BNLL, softplus),
    NEAR(ACOSH, acosh, 2),
    F(SINH, sinh),
    F(ASINH, asinh),
    NEAR(ATANH, atanh, 0),
    F(ROUND, round),
    F(COSH, cosh),
    F(ERF, erf),
    F(ERFC, erfc),
    F(EXPM1, expm1),
    F(SIGMOID, logistic),
    F(TANH, tanh),
    F(HARDSWISH, hard_swish),
    F(GELU, gelu_by_tanh),
    F(GELU_STANDARD, gelu),
    F(SILU, silu),
    F(NEG, NULL),
    F(SIGN, NULL),
};

static char folder[64], model[96], made[96], config[96];

static void write_file(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* The convolution's values times gain, around center. */
static void shift(small_mnn *m, qn_fb_object *conv, const struct function *f)
{
    float weights[8 * 27], bias[8];
    size_t n;
    const uint8_t *old = qn__fb_bytes(conv, QN_MNN_Convolution2D_weight, &n);
    assert_int_equal(n, 8 * 27);
    memcpy(weights, old, sizeof(weights));
    for (size_t i = 0; i < n; i++)
        weights[i] *= f->gain;
    for (size_t i = 0; i < 8; i++)
        bias[i] = f->center;
    assert_true(qn__fb_set_vector(&m->doc, conv, QN_MNN_Convolution2D_weight, weights, n));
    assert_true(qn__fb_set_vector(&m->doc, conv, QN_MNN_Convolution2D_bias, bias, 8));
}

/* data -> convolution -> the function -> convolution -> out */
static void write_model(const qn_context *ctx, const struct function *f)
{
    static const int32_t DIMS[4] = {1, 3, 6, 8};
    const int64_t nchw = QN_MNN_MNN_DATA_FORMAT_NCHW, nc4 = QN_MNN_MNN_DATA_FORMAT_NC4HW4;
    const char *const output = "out";
    small_mnn m = {.seed = 1};
    uint8_t *bytes;
    size_t size;
    assert_int_equal(qn__fb_create(ctx, &qn__mnn_schema, &m.doc, NULL), QN_OK);
    int32_t x = small_add_input(&m, "data", DIMS, nc4);
    x = small_add_conv(&m, "first", x, 3, 8, 1, false);
    shift(&m, qn__fb_table(m.ops[x], QN_MNN_Op_main), f);
    qn_fb_object *unary = small_make(&m, QN_MNN_REC_UnaryOp);
    qn__fb_set_int(unary, QN_MNN_UnaryOp_opType, f->type);
    assert_int_equal(small_add_op(&m, "function", QN_MNN_OpType_UnaryOp, &x, 1, unary), UNARY_ID);
    x = small_add_conv(&m, "second", UNARY_ID, 8, 4, 1, false);
    small_add_convert(&m, "out", x, nc4, nchw);
    qn_fb_object *root = m.doc.root;
    assert_true(qn__fb_set_tables(&m.doc, root, QN_MNN_Net_oplists, m.ops, m.n_ops));
    assert_true(
        qn__fb_set_strings(&m.doc, root, QN_MNN_Net_tensorName, m.names, (size_t)m.n_tensors));
    assert_true(qn__fb_set_strings(&m.doc, root, QN_MNN_Net_outputName, &output, 1));
    qn__fb_set_int(root, QN_MNN_Net_sourceType, 3);
    assert_false(m.failed);
    assert_int_equal(qn__fb_build(&m.doc, &bytes, &size, NULL), QN_OK);
    write_file(model, bytes, size);
    qn__free(ctx, bytes);
    qn__fb_free(&m.doc);
}

/* Scale and zero point of a tensor; false: it has none. */
static bool quant_of(const qn_fb_document *d, int64_t id, double *scale, double *zero)
{
    size_t n;
    qn_fb_object **described = qn__fb_tables(d->root, QN_MNN_Net_extraTensorDescribe, &n);
    for (size_t i = 0; i < n; i++) {
        const qn_fb_object *info = qn__fb_table(described[i], QN_MNN_TensorDescribe_quantInfo);
        if (qn__fb_int(d, described[i], QN_MNN_TensorDescribe_index) != id || info == NULL)
            continue;
        *scale = qn__fb_real(d, info, QN_MNN_TensorQuantInfo_scale);
        *zero = qn__fb_real(d, info, QN_MNN_TensorQuantInfo_zero);
        return true;
    }
    return false;
}

static void check_table(const qn_context *ctx, const struct function *f)
{
    qn_file_view view;
    qn_fb_document d;
    size_t n_ops, n = 0;
    double in, in_zero, out, out_zero;
    assert_int_equal(qn__file_open(ctx, made, &view, NULL), QN_OK);
    qn_blob *file = qn__blob_from_file(ctx, &view);
    assert_non_null(file);
    assert_int_equal(qn__fb_read(ctx, &qn__mnn_schema, made, file, &d, NULL), QN_OK);
    qn_fb_object **ops = qn__fb_tables(d.root, QN_MNN_Net_oplists, &n_ops);
    const qn_fb_object *unary = qn__fb_table(ops[UNARY_ID], QN_MNN_Op_main);
    assert_int_equal(qn__fb_int(&d, unary, QN_MNN_UnaryOp_opType), f->type);
    const uint8_t *table = qn__fb_bytes(unary, QN_MNN_UnaryOp_tableInt8, &n);
    if (f->value == NULL) {
        assert_int_equal(n, 0);
    } else {
        assert_int_equal(n, LEVELS);
        assert_true(quant_of(&d, UNARY_ID - 1, &in, &in_zero));
        assert_true(quant_of(&d, UNARY_ID, &out, &out_zero));
        for (int i = -HALF; i <= HALF; i++) {
            const double y = f->value((i - in_zero) * in);
            const double level = isnan(y) ? out_zero : y / out + out_zero;
            const double held = fmax(-HALF, fmin(HALF, level));
            const int got = (int8_t)table[i + HALF];
            if (fabs(got - held) > 0.5 + 1e-6 * fabs(held))
                fail_msg("%s: level %d: %d, should be %.3f", f->name, i, got, held);
        }
    }
    qn__fb_free(&d);
    qn__blob_unref(file);
}

static void tables_hold_the_functions(void **state)
{
    (void)state;
    qn_context *ctx;
    assert_int_equal(qn_context_create(NULL, &ctx, NULL), QN_OK);
    for (size_t i = 0; i < sizeof(FUNCTIONS) / sizeof(FUNCTIONS[0]); i++) {
        qn_mnn_options options;
        qn_error error = {0};
        qn_mnn_options_init(&options);
        options.exact = "all";
        write_model(ctx, &FUNCTIONS[i]);
        if (qn_mnn_quantize(ctx, model, made, config, &options, &error) != QN_OK)
            fail_msg("%s: %s", FUNCTIONS[i].name, error.message);
        check_table(ctx, &FUNCTIONS[i]);
    }
    qn_context_destroy(ctx);
}

static int setup(void **state)
{
    (void)state;
    char path[128], text[256];
    strcpy(folder, "/tmp/quench-unary-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return 1;
    snprintf(model, sizeof(model), "%s/m.mnn", folder);
    snprintf(made, sizeof(made), "%s/out.mnn", folder);
    snprintf(config, sizeof(config), "%s/config.json", folder);
    snprintf(path, sizeof(path), "%s/pictures", folder);
    if (mkdir(path, 0777) != 0)
        return 1;
    for (int k = 0; k < 3; k++) {
        uint8_t pixels[11 + 8 * 6 * 3] = "P6 8 6 255\n";
        for (size_t i = 0; i < 8 * 6 * 3; i++)
            pixels[11 + i] = (uint8_t)(i * 37 * (size_t)(k + 1) % 251);
        snprintf(path, sizeof(path), "%s/pictures/%d.ppm", folder, k);
        write_file(path, pixels, sizeof(pixels));
    }
    const int n = snprintf(
        text, sizeof(text),
        "{\"format\":\"RGB\",\"mean\":[128,128,128],\"normal\":[0.008,0.008,0.008],\"width\":8,"
        "\"height\":6,\"path\":\"%s/pictures/\","
        "\"feature_quantize_method\":\"KL\"}",
        folder);
    write_file(config, text, (size_t)n);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[96];
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tables_hold_the_functions)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
