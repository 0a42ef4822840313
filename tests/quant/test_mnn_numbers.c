/* Hostile numbers through MNN's quantizer: weights, biases, picture scaling and old records that
 * are not finite, tiny, huge or all the same. Each run is refused with a message that names what,
 * or writes a file in which every scale is a positive finite number. */
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
#include "format/mnn/mnn_format.h"
#include "quench/mnn.h"
#include "small_mnn.h"

typedef struct fixture {
    char folder[64], model[128], config[128], out[128];
    qn_context *ctx;
} fixture;

static void write_bytes(const fixture *f, const char *path, const void *data, size_t size)
{
    assert_int_equal(qn__file_write_all(f->ctx, path, data, size, NULL), QN_OK);
}

/* --- what is written ---------------------------------------------------------------------------*/
static const struct {
    int32_t record;
    uint32_t slot;
} SCALES[] = {
    {QN_MNN_REC_TensorQuantInfo, QN_MNN_TensorQuantInfo_scale},
    {QN_MNN_REC_IDSTQuan, QN_MNN_IDSTQuan_alpha},
    {QN_MNN_REC_IDSTQuan, QN_MNN_IDSTQuan_scaleIn},
    {QN_MNN_REC_IDSTQuan, QN_MNN_IDSTQuan_scaleOut},
    {QN_MNN_REC_IDSTQuan, QN_MNN_IDSTQuan_quantScale},
    {QN_MNN_REC_QuantizedFloatParam, QN_MNN_QuantizedFloatParam_scale},
    {QN_MNN_REC_QuantizedFloatParam, QN_MNN_QuantizedFloatParam_tensorScale},
    {QN_MNN_REC_Convolution2D, QN_MNN_Convolution2D_bias},
};

static void check_object(const char *name, const qn_fb_document *d, const qn_fb_object *o,
                         size_t *seen)
{
    const qn_fb_record *record = &d->schema->records[o->record];
    for (size_t s = 0; s < sizeof(SCALES) / sizeof(SCALES[0]); s++) {
        if (SCALES[s].record != o->record || !qn__fb_has(o, SCALES[s].slot))
            continue;
        const uint32_t slot = SCALES[s].slot;
        const bool vector = record->fields[slot].kind == QN_FB_VECTOR;
        const bool bias = o->record == QN_MNN_REC_Convolution2D;
        const size_t n = vector ? o->values[slot].count : 1;
        for (size_t i = 0; i < n; i++) {
            const double v = vector ? qn__fb_real_at(d, o, slot, i) : qn__fb_real(d, o, slot);
            /* 0 stands for "unknown" where MNN's kernels take the tensor's own */
            const bool may_be_zero =
                bias || slot == QN_MNN_IDSTQuan_scaleIn || slot == QN_MNN_IDSTQuan_scaleOut;
            if (!isfinite(v) || (!bias && v < 0) || (!may_be_zero && !(v > 0)))
                fail_msg("%s: %s.%s[%zu] is %g", name, record->name, record->fields[slot].name, i,
                         v);
            ++*seen;
        }
    }
    for (uint32_t f = 0; f < record->n_fields; f++) {
        const qn_fb_kind kind = record->fields[f].kind;
        if (!qn__fb_has(o, f))
            continue;
        if (kind == QN_FB_TABLE || kind == QN_FB_UNION) {
            check_object(name, d, o->values[f].table, seen);
        } else if (kind == QN_FB_VECTOR_TABLE) {
            for (size_t i = 0; i < o->values[f].count; i++)
                check_object(name, d, o->values[f].tables[i], seen);
        }
    }
}

static void check_file(const fixture *f, const char *name, size_t at_least)
{
    qn_file_view view;
    qn_fb_document d;
    qn_error error = {0};
    char json[160];
    size_t seen = 0;
    assert_int_equal(qn__file_open(f->ctx, f->out, &view, &error), QN_OK);
    qn_blob *file = qn__blob_copy(f->ctx, view.data, view.size_bytes);
    qn__file_close(f->ctx, &view);
    if (qn__fb_read(f->ctx, &qn__mnn_schema, f->out, file, &d, &error) != QN_OK)
        fail_msg("%s: %s", name, error.message);
    check_object(name, &d, d.root, &seen);
    if (seen < at_least)
        fail_msg("%s: %zu scales", name, seen);
    qn__fb_free(&d);
    qn__blob_unref(file);
    snprintf(json, sizeof(json), "%s.json", f->out);
    unlink(json);
    unlink(f->out);
}

/* --- one run -----------------------------------------------------------------------------------*/
typedef struct method {
    const char *name, *config, *exact;
} method;

static const method METHODS[] = {
    {"KL", "\"feature_quantize_method\":\"KL\"", NULL},
    {"KL, searched by divergence", "\"feature_quantize_method\":\"KL\"", "kl"},
    {"ADMM", "\"feature_quantize_method\":\"ADMM\",\"weight_quantize_method\":\"ADMM\"", NULL},
    {"EMA", "\"feature_quantize_method\":\"EMA\",\"batch_size\":2", NULL},
    {"exact KL", "\"feature_quantize_method\":\"KL\"", "all"},
    {"exact ADMM", "\"feature_quantize_method\":\"ADMM\",\"weight_quantize_method\":\"ADMM\"",
     "all"},
    {"exact EMA", "\"feature_quantize_method\":\"EMA\",\"batch_size\":2", "all"},
};
enum { N_METHODS = sizeof(METHODS) / sizeof(METHODS[0]) };

static qn_status quantize(const fixture *f, const method *m, const char *mean, const char *normal,
                          qn_error *error)
{
    char text[512];
    qn_mnn_options options;
    qn_mnn_options_init(&options);
    options.exact = m->exact;
    const int n = snprintf(text, sizeof(text),
                           "{\"format\":\"RGB\",\"mean\":[%s],\"normal\":[%s],\"width\":8,"
                           "\"height\":6,\"path\":\"%s/pictures\",%s}",
                           mean, normal, f->folder, m->config);
    write_bytes(f, f->config, text, (size_t)n);
    *error = (qn_error){0};
    return qn_mnn_quantize(f->ctx, f->model, f->out, f->config, &options, error);
}

static void judge(const fixture *f, const char *name, qn_status status, const qn_error *error,
                  size_t at_least)
{
    struct stat info;
    if (status == QN_OK) {
        check_file(f, name, at_least);
        return;
    }
    if ((status != QN_NONFINITE && status != QN_CORRUPT && status != QN_UNSUPPORTED) ||
        (strchr(error->message, '"') == NULL && strstr(error->message, ": tensor ") == NULL))
        fail_msg("%s: status %d, %s", name, (int)status, error->message);
    assert_int_not_equal(stat(f->out, &info), 0);
}

/* --- weights -----------------------------------------------------------------------------------*/
static void nan_in(float *v, size_t n)
{
    v[n / 2] = NAN;
}
static void inf_in(float *v, size_t n)
{
    v[n / 2] = -INFINITY;
}
static void all_of(float *v, size_t n, float value)
{
    for (size_t i = 0; i < n; i++)
        v[i] = value;
}
static void huge(float *v, size_t n)
{
    all_of(v, n, 1e38f);
}
static void denormal(float *v, size_t n)
{
    all_of(v, n, 1e-42f);
}
static void smallest(float *v, size_t n)
{
    all_of(v, n, 1.4e-45f);
}
static void tiny(float *v, size_t n)
{
    all_of(v, n, 1e-30f);
}
static void zero(float *v, size_t n)
{
    all_of(v, n, 0.0f);
}
static void minus_zero(float *v, size_t n)
{
    all_of(v, n, -0.0f);
}
static void equal(float *v, size_t n)
{
    all_of(v, n, 0.25f);
}
static void outlier(float *v, size_t n)
{
    v[n / 2] = 1e30f;
}
static void zero_channel(float *v, size_t n)
{
    all_of(v, n / 8, 0.0f);
}
static void denormal_channel(float *v, size_t n)
{
    all_of(v, n / 8, 1e-44f);
}

static const struct {
    const char *name;
    void (*spoil)(float *values, size_t n);
    bool refused;
} HOSTILE[] = {
    {"NaN", nan_in, true},
    {"infinity", inf_in, true},
    {"1e38", huge, false},
    {"denormal", denormal, false},
    {"smallest", smallest, false},
    {"1e-30", tiny, false},
    {"0", zero, false},
    {"-0", minus_zero, false},
    {"equal", equal, false},
    {"outlier", outlier, false},
    {"channel of zeros", zero_channel, false},
    {"denormal channel", denormal_channel, false},
};

/* The model with the values of operator op's slot spoiled. */
static void make_model(const fixture *f, size_t op, uint32_t slot, void (*spoil)(float *, size_t))
{
    small_mnn m = {.seed = 1};
    float values[8 * 8 * 9];
    uint8_t *bytes;
    size_t size, n;
    assert_int_equal(qn__fb_create(f->ctx, &qn__mnn_schema, &m.doc, NULL), QN_OK);
    small_build(&m, 3, 6, 8, "NCHW");
    if (spoil != NULL) {
        qn_fb_object *conv = qn__fb_table(m.ops[op], QN_MNN_Op_main);
        const uint8_t *old = qn__fb_bytes(conv, slot, &n);
        assert_true(n <= sizeof(values) / sizeof(values[0]));
        memcpy(values, old, n * sizeof(float));
        spoil(values, n);
        assert_true(qn__fb_set_vector(&m.doc, conv, slot, values, n));
    }
    assert_int_equal(qn__fb_build(&m.doc, &bytes, &size, NULL), QN_OK);
    write_bytes(f, f->model, bytes, size);
    qn__free(f->ctx, bytes);
    qn__fb_free(&m.doc);
}

static void weights_and_biases(void **state)
{
    const fixture *f = *state;
    enum { FIRST = 2, SECOND = 3 };
    for (size_t h = 0; h < sizeof(HOSTILE) / sizeof(HOSTILE[0]); h++)
        for (size_t where = 0; where < 4; where++) {
            const uint32_t slot =
                where < 2 ? QN_MNN_Convolution2D_weight : QN_MNN_Convolution2D_bias;
            make_model(f, where % 2 == 0 ? FIRST : SECOND, slot, HOSTILE[h].spoil);
            for (size_t m = 0; m < N_METHODS; m++) {
                char name[128];
                qn_error error;
                snprintf(name, sizeof(name), "%s, %s %zu, %s", HOSTILE[h].name,
                         where < 2 ? "weight" : "bias", where % 2, METHODS[m].name);
                const qn_status status = quantize(f, &METHODS[m], "128", "0.01", &error);
                if (HOSTILE[h].refused && status != QN_NONFINITE)
                    fail_msg("%s: status %d %s", name, (int)status, error.message);
                judge(f, name, status, &error, 20);
            }
        }
}

/* --- pictures ----------------------------------------------------------------------------------*/
static void picture_scaling(void **state)
{
    const fixture *f = *state;
    static const char *const NUMBERS[][2] = {
        {"0", "0"},     {"1e38", "1"},    {"-1e38", "1"},   {"0", "1e38"},  {"1e38", "1e38"},
        {"0", "1e-38"}, {"0", "1e-44"},   {"0", "-1"},      {"0", "1e300"}, {"1e300", "1"},
        {"0", "1e-60"}, {"-0.0", "-0.0"}, {"1e30", "1e30"}, {"0", "1e-300"}};
    make_model(f, 0, 0, NULL);
    for (size_t i = 0; i < sizeof(NUMBERS) / sizeof(NUMBERS[0]); i++)
        for (size_t m = 0; m < N_METHODS; m++) {
            char name[128];
            qn_error error;
            snprintf(name, sizeof(name), "mean %s, normal %s, %s", NUMBERS[i][0], NUMBERS[i][1],
                     METHODS[m].name);
            const qn_status status = quantize(f, &METHODS[m], NUMBERS[i][0], NUMBERS[i][1], &error);
            if (status == QN_INVALID_ARGUMENT && strchr(error.message, '"') != NULL)
                continue; /* the configuration's own check */
            judge(f, name, status, &error, 20);
        }
}

/* --- records that are already there ------------------------------------------------------------*/
static void old_records(void **state)
{
    const fixture *f = *state;
    static const float SCALE[] = {0, 1e-42f, -0.1f, NAN, INFINITY, 1e38f, 1.5f};
    static const float ZERO[] = {0, 1000, -1e30f, NAN};
    for (size_t i = 0; i < sizeof(SCALE) / sizeof(SCALE[0]); i++)
        for (size_t z = 0; z < sizeof(ZERO) / sizeof(ZERO[0]); z++) {
            small_mnn m = {.seed = 1};
            uint8_t *bytes;
            size_t size;
            char name[128];
            assert_int_equal(qn__fb_create(f->ctx, &qn__mnn_schema, &m.doc, NULL), QN_OK);
            small_build(&m, 3, 6, 8, "NCHW");
            qn_fb_object *info = qn__fb_new(&m.doc, QN_MNN_REC_TensorQuantInfo);
            qn_fb_object *describe = qn__fb_new(&m.doc, QN_MNN_REC_TensorDescribe);
            qn__fb_set_real(info, QN_MNN_TensorQuantInfo_scale, SCALE[i]);
            qn__fb_set_real(info, QN_MNN_TensorQuantInfo_zero, ZERO[z]);
            qn__fb_set_int(describe, QN_MNN_TensorDescribe_index, 2);
            qn__fb_set_table(describe, QN_MNN_TensorDescribe_quantInfo, info);
            qn__fb_set_tables(&m.doc, m.doc.root, QN_MNN_Net_extraTensorDescribe, &describe, 1);
            assert_int_equal(qn__fb_build(&m.doc, &bytes, &size, NULL), QN_OK);
            write_bytes(f, f->model, bytes, size);
            qn__free(f->ctx, bytes);
            qn__fb_free(&m.doc);
            for (size_t k = 0; k < N_METHODS; k++) {
                qn_error error;
                snprintf(name, sizeof(name), "record of %g, %g, %s", (double)SCALE[i],
                         (double)ZERO[z], METHODS[k].name);
                const qn_status status = quantize(f, &METHODS[k], "128", "0.01", &error);
                judge(f, name, status, &error, 20);
            }
        }
}

static int setup(void **state)
{
    static fixture f;
    char path[192];
    strcpy(f.folder, "/tmp/quench-numbers-XXXXXX");
    if (mkdtemp(f.folder) == NULL || qn_context_create(NULL, &f.ctx, NULL) != QN_OK)
        return 1;
    snprintf(f.model, sizeof(f.model), "%s/m.mnn", f.folder);
    snprintf(f.config, sizeof(f.config), "%s/config.json", f.folder);
    snprintf(f.out, sizeof(f.out), "%s/q.mnn", f.folder);
    snprintf(path, sizeof(path), "%s/pictures", f.folder);
    if (mkdir(path, 0777) != 0)
        return 1;
    for (int i = 0; i < 2; i++) {
        uint8_t picture[11 + 8 * 6 * 3] = "P6 8 6 255\n";
        for (size_t k = 0; k < 8 * 6 * 3; k++)
            picture[11 + k] = (uint8_t)(k * 37 * (size_t)(i + 1) % 251);
        snprintf(path, sizeof(path), "%s/pictures/%d.ppm", f.folder, i);
        write_bytes(&f, path, picture, sizeof(picture));
    }
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    fixture *const f = *state;
    char command[128];
    qn_context_destroy(f->ctx);
    snprintf(command, sizeof(command), "rm -rf %s", f->folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_and_biases),
        cmocka_unit_test(picture_scaling),
        cmocka_unit_test(old_records),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
