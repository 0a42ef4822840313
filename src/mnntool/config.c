/* The JSON configuration of MNN's quantizer: its keys, defaults and meaning. Where its own tool
 * reads garbage, crashes or hangs (wrong types, numbers out of range, lists that are too long) this
 * is an error; where it silently does something else, a warning. */
#include "mnntool/tool.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#define MAX_CONFIG_BYTES ((size_t)16 << 20)
#define MAX_SIZE 65535

typedef struct reader {
    const qn_context *ctx;
    const json_t *root;
    qn_mnn_config *out;
    qn_error *error;
} reader;

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "true or false";
    }
}

static qn_status wrong_type(const reader *r, const char *key, const char *wanted,
                            const json_t *value)
{
    QN_FAIL(r->error, QN_INVALID_ARGUMENT, "%s: \"%s\" must be %s, not %s", r->out->file, key,
            wanted, type_name(value));
}

/* --- single values; absent keys leave *out alone -----------------------------------------------*/

static qn_status read_string(const reader *r, const char *key, const char **out)
{
    const json_t *value = json_object_get(r->root, key);
    if (value == NULL)
        return QN_OK;
    if (!json_is_string(value))
        return wrong_type(r, key, "a string", value);
    *out = qn__arena_strdup(&r->out->arena, json_string_value(value));
    return *out != NULL ? QN_OK : QN_NOMEM(r->error);
}

static qn_status read_bool(const reader *r, const char *key, bool *out)
{
    const json_t *value = json_object_get(r->root, key);
    if (value == NULL)
        return QN_OK;
    if (!json_is_boolean(value))
        return wrong_type(r, key, "true or false", value);
    *out = json_is_true(value);
    return QN_OK;
}

static qn_status read_int(const reader *r, const char *key, int64_t lowest, int64_t highest,
                          int64_t *out, bool *found)
{
    const json_t *value = json_object_get(r->root, key);
    if (found != NULL)
        *found = value != NULL;
    if (value == NULL)
        return QN_OK;
    if (!json_is_number(value))
        return wrong_type(r, key, "a whole number", value);
    const double number = json_number_value(value);
    QN_FAIL_IF(number != floor(number), r->error, QN_INVALID_ARGUMENT,
               "%s: \"%s\" is %g: it must be a whole number", r->out->file, key, number);
    QN_FAIL_IF(number < (double)lowest || number > (double)highest, r->error, QN_INVALID_ARGUMENT,
               "%s: \"%s\" is %.17g: it must lie within %lld and %lld", r->out->file, key, number,
               (long long)lowest, (long long)highest);
    *out = json_is_integer(value) ? (int64_t)json_integer_value(value) : (int64_t)number;
    return QN_OK;
}

static qn_status read_fraction(const reader *r, const char *key, double *out)
{
    const json_t *value = json_object_get(r->root, key);
    if (value == NULL)
        return QN_OK;
    if (!json_is_number(value))
        return wrong_type(r, key, "a number", value);
    *out = json_number_value(value);
    QN_FAIL_IF(!(*out > 0 && *out <= 1), r->error, QN_INVALID_ARGUMENT,
               "%s: \"%s\" is %g: it must be above 0 and at most 1", r->out->file, key, *out);
    return QN_OK;
}

/* A number cut to a whole one, as MNN does. */
static qn_status read_clamp(const reader *r, const char *key, int32_t *out, bool *found)
{
    const json_t *value = json_object_get(r->root, key);
    *found = value != NULL;
    if (value == NULL)
        return QN_OK;
    if (!json_is_number(value))
        return wrong_type(r, key, "a number", value);
    const double number = trunc(json_number_value(value));
    QN_FAIL_IF(!(number >= 1 && number <= 127), r->error, QN_INVALID_ARGUMENT,
               "%s: \"%s\" is %g: it must lie within 1 and 127", r->out->file, key,
               json_number_value(value));
    *out = (int32_t)number;
    return QN_OK;
}

/* One of the words; *out is its index. */
static qn_status read_word(const reader *r, const char *key, const char *const *words,
                           size_t n_words, size_t *out)
{
    const char *text = NULL;
    QN_TRY(read_string(r, key, &text));
    if (text == NULL)
        return QN_OK;
    for (size_t i = 0; i < n_words; i++)
        if (strcmp(text, words[i]) == 0) {
            *out = i;
            return QN_OK;
        }
    char list[64] = "";
    for (size_t i = 0; i < n_words; i++) {
        const size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s",
                 i == 0             ? ""
                 : i + 1 == n_words ? " or "
                                    : ", ",
                 words[i]);
    }
    QN_FAIL(r->error, QN_INVALID_ARGUMENT, "%s: \"%s\" is \"%.80s\": it must be %s", r->out->file,
            key, text, list);
}

/* --- lists -------------------------------------------------------------------------------------*/

static qn_status read_channels(const reader *r, const char *key, float out[4])
{
    const json_t *list = json_object_get(r->root, key);
    if (list == NULL)
        return QN_OK;
    if (!json_is_array(list))
        return wrong_type(r, key, "a list of numbers", list);
    QN_FAIL_IF(json_array_size(list) > 4, r->error, QN_INVALID_ARGUMENT,
               "%s: \"%s\" has %zu numbers, at most 4 (one for each channel) are possible",
               r->out->file, key, json_array_size(list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_number(value))
            return wrong_type(r, key, "a list of numbers", value);
        out[i] = (float)json_number_value(value);
        QN_FAIL_IF(!isfinite(out[i]), r->error, QN_INVALID_ARGUMENT,
                   "%s: \"%s\" holds %g, which is no float", r->out->file, key,
                   json_number_value(value));
    }
    return QN_OK;
}

static qn_status read_skips(const reader *r)
{
    static const char key[] = "skip_quant_op_names";
    qn_mnn_config *out = r->out;
    const json_t *list = json_object_get(r->root, key);
    if (list == NULL)
        return QN_OK;
    if (!json_is_array(list))
        return wrong_type(r, key, "a list of names", list);
    out->skips = qn__arena_calloc(&out->arena, json_array_size(list) + 1, sizeof(*out->skips));
    if (out->skips == NULL)
        return QN_NOMEM(r->error);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_string(value))
            return wrong_type(r, key, "a list of names", value);
        out->skips[i] = qn__arena_strdup(&out->arena, json_string_value(value));
        if (out->skips[i] == NULL)
            return QN_NOMEM(r->error);
        out->n_skips++;
    }
    return QN_OK;
}

static qn_status read_input(const reader *r, const json_t *entry, qn_mnn_input *out)
{
    if (!json_is_object(entry))
        return wrong_type(r, "inputs", "a list of {\"name\", \"shape\"}", entry);
    const json_t *name = json_object_get(entry, "name"), *shape = json_object_get(entry, "shape");
    const json_t *value = json_object_get(entry, "value");
    QN_FAIL_IF(!json_is_string(name) || !json_is_array(shape), r->error, QN_INVALID_ARGUMENT,
               "%s: \"inputs\": each entry needs a \"name\" (string) and a \"shape\" (list)",
               r->out->file);
    QN_FAIL_IF(value != NULL && !json_is_number(value), r->error, QN_INVALID_ARGUMENT,
               "%s: \"inputs\": \"value\" of \"%.80s\" must be a number", r->out->file,
               json_string_value(name));
    out->name = qn__arena_strdup(&r->out->arena, json_string_value(name));
    if (out->name == NULL)
        return QN_NOMEM(r->error);
    out->value = value == NULL ? 0.0f : (float)json_number_value(value);
    out->rank = json_array_size(shape);
    QN_FAIL_IF(out->rank > QN_MAX_RANK, r->error, QN_LIMIT,
               "%s: \"inputs\": \"%.80s\" has %zu dimensions, at most %d", r->out->file, out->name,
               out->rank, QN_MAX_RANK);
    for (size_t i = 0; i < out->rank; i++) {
        const json_t *dim = json_array_get(shape, i);
        QN_FAIL_IF(!json_is_integer(dim) || json_integer_value(dim) < 1 ||
                       json_integer_value(dim) > INT32_MAX,
                   r->error, QN_INVALID_ARGUMENT,
                   "%s: \"inputs\": the shape of \"%.80s\" must be a list of whole numbers above 0",
                   r->out->file, out->name);
        out->dims[i] = json_integer_value(dim);
    }
    return QN_OK;
}

static qn_status read_inputs(const reader *r)
{
    qn_mnn_config *out = r->out;
    const json_t *list = json_object_get(r->root, "inputs");
    if (list == NULL)
        return QN_OK;
    if (!json_is_array(list))
        return wrong_type(r, "inputs", "a list of {\"name\", \"shape\"}", list);
    out->inputs = qn__arena_calloc(&out->arena, json_array_size(list) + 1, sizeof(*out->inputs));
    if (out->inputs == NULL)
        return QN_NOMEM(r->error);
    for (size_t i = 0; i < json_array_size(list); i++, out->n_inputs++)
        QN_TRY(read_input(r, json_array_get(list, i), &out->inputs[i]));
    return QN_OK;
}

/* --- keys with rules of their own --------------------------------------------------------------*/

static qn_status read_format(const reader *r)
{
    static const struct {
        const char *name;
        uint32_t channels;
    } formats[] = {{"BGR", 3}, {"RGB", 3}, {"GRAY", 1}, {"RGBA", 4}, {"BGRA", 4}};
    const char *text = formats[0].name;
    QN_TRY(read_string(r, "format", &text));
    size_t i = 0;
    while (i < 5 && strcmp(text, formats[i].name) != 0)
        i++;
    if (i == 5) {
        qn__log(r->ctx, QN_LOG_WARNING,
                "%s: \"format\" is \"%.80s\", not RGB, BGR, GRAY, RGBA or BGRA: BGR is used",
                r->out->file, text);
        i = 0;
    }
    r->out->format = formats[i].name;
    r->out->channels = formats[i].channels;
    return QN_OK;
}

qn_status qn__mnn_exact_parse(const char *list, const char *where, uint32_t *out, qn_error *error)
{
    static const struct {
        const char *name;
        uint32_t bit;
    } names[] = {{"all", QN_MNN_EXACT_ALL},          {"symmetric", QN_MNN_EXACT_SYMMETRIC},
                 {"resize", QN_MNN_EXACT_RESIZE},    {"kl", QN_MNN_EXACT_KL},
                 {"admm", QN_MNN_EXACT_ADMM},        {"bits", QN_MNN_EXACT_BITS},
                 {"winograd", QN_MNN_EXACT_WINOGRAD}};
    for (const char *p = list;;) {
        const size_t length = strcspn(p, ",");
        size_t i = 0;
        while (i < 7 && (strlen(names[i].name) != length || memcmp(p, names[i].name, length) != 0))
            i++;
        QN_FAIL_IF(i == 7, error, QN_INVALID_ARGUMENT,
                   "%s: \"%.*s\" is not one of all, symmetric, resize, kl, admm, bits, winograd",
                   where, (int)(length > 80 ? 80 : length), p);
        *out |= names[i].bit;
        if (p[length] == '\0')
            return QN_OK;
        p += length + 1;
    }
}

static qn_status read_exact(const reader *r)
{
    const json_t *value = json_object_get(r->root, "exact_mnn");
    if (value == NULL || json_is_false(value))
        return QN_OK;
    if (json_is_true(value)) {
        r->out->exact |= QN_MNN_EXACT_ALL;
        return QN_OK;
    }
    if (!json_is_string(value))
        return wrong_type(r, "exact_mnn", "true, false or a string", value);
    char where[512];
    snprintf(where, sizeof(where), "%.400s: \"exact_mnn\"", r->out->file);
    return qn__mnn_exact_parse(json_string_value(value), where, &r->out->exact, r->error);
}

static qn_status read_size(const reader *r)
{
    int64_t width = 0, height = 0;
    QN_TRY(read_int(r, "width", 1, MAX_SIZE, &width, NULL));
    QN_TRY(read_int(r, "height", 1, MAX_SIZE, &height, NULL));
    r->out->width = (uint32_t)width;
    r->out->height = (uint32_t)height;
    QN_TRY(read_fraction(r, "center_crop_h", &r->out->center_crop_h));
    return read_fraction(r, "center_crop_w", &r->out->center_crop_w);
}

/* The number of samples: MNN takes everything below 1 as "all"; the second key wins. */
static qn_status read_samples(const reader *r)
{
    static const char *const keys[] = {"used_image_num", "used_sample_num"};
    for (size_t i = 0; i < 2; i++) {
        int64_t n = 0;
        bool found;
        QN_TRY(read_int(r, keys[i], INT32_MIN, INT32_MAX, &n, &found));
        if (found)
            r->out->used_number = n < 1 ? 0 : (uint64_t)n;
    }
    const char *type = "image";
    QN_TRY(read_string(r, "input_type", &type));
    r->out->sequence = strcmp(type, "sequence") == 0;
    if (!r->out->sequence && strcmp(type, "image") != 0)
        qn__log(r->ctx, QN_LOG_WARNING,
                "%s: \"input_type\" is \"%.80s\", not image or sequence: image is used",
                r->out->file, type);
    QN_TRY(read_string(r, "path", &r->out->path));
    QN_FAIL_IF(r->out->path == NULL || r->out->path[0] == '\0', r->error, QN_INVALID_ARGUMENT,
               "%s: \"path\", the folder of calibration samples, is missing", r->out->file);
    return QN_OK;
}

static qn_status read_methods(const reader *r)
{
    static const char *const features[] = {"KL", "ADMM", "EMA"};
    static const char *const weights[] = {"MAX_ABS", "ADMM"};
    qn_mnn_config *out = r->out;
    size_t feature = 0, weight = 0;
    bool ignored;
    int64_t bits = 8;
    QN_TRY(read_word(r, "feature_quantize_method", features, 3, &feature));
    QN_TRY(read_word(r, "weight_quantize_method", weights, 2, &weight));
    out->feature = (qn_mnn_feature)feature;
    out->weight = (qn_mnn_weight)weight;
    QN_TRY(read_clamp(r, "feature_clamp_value", &out->feature_clamp, &ignored));
    QN_TRY(read_clamp(r, "weight_clamp_value", &out->weight_clamp, &out->has_weight_clamp));
    QN_TRY(read_int(r, "batch_size", 1, 65536, &out->batch, NULL));
    QN_TRY(read_int(r, "quant_bits", 2, 8, &bits, NULL));
    out->bits = (int32_t)bits;
    QN_TRY(read_bool(r, "winogradOpt", &out->winograd));
    out->has_winograd = json_object_get(r->root, "winogradOpt") != NULL;
    return read_bool(r, "debug", &out->debug);
}

/* Fewer bits have fewer levels. MNN only knows when a clamp is given, whatever its value. */
static void limit_levels(qn_mnn_config *out)
{
    const int32_t levels = (1 << (out->bits - 1)) - 1;
    const bool own = (out->exact & QN_MNN_EXACT_BITS) == 0;
    if (out->bits == 8)
        return;
    if (out->has_weight_clamp && !own)
        out->weight_clamp = levels;
    else if (own && out->weight_clamp > levels)
        out->weight_clamp = levels;
}

static void warn_unknown_keys(const reader *r)
{
    static const char *const known[] = {"format",
                                        "mean",
                                        "normal",
                                        "center_crop_h",
                                        "center_crop_w",
                                        "width",
                                        "height",
                                        "path",
                                        "used_image_num",
                                        "used_sample_num",
                                        "feature_quantize_method",
                                        "weight_quantize_method",
                                        "feature_clamp_value",
                                        "weight_clamp_value",
                                        "batch_size",
                                        "quant_bits",
                                        "winogradOpt",
                                        "skip_quant_op_names",
                                        "input_type",
                                        "inputs",
                                        "debug",
                                        "exact_mnn",
                                        "model" /* of older manuals: the file of a single model */};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)r->root, key, value)
    {
        size_t i = 0;
        while (i < sizeof(known) / sizeof(known[0]) && strcmp(key, known[i]) != 0)
            i++;
        if (i == sizeof(known) / sizeof(known[0]))
            qn__log(r->ctx, QN_LOG_WARNING, "%s: unknown key \"%.80s\"", r->out->file, key);
    }
}

static qn_status read_all(const reader *r)
{
    QN_FAIL_IF(!json_is_object(r->root), r->error, QN_INVALID_ARGUMENT,
               "%s: the configuration must be a JSON object", r->out->file);
    QN_TRY(read_exact(r));
    QN_TRY(read_format(r));
    QN_TRY(read_channels(r, "mean", r->out->mean));
    QN_TRY(read_channels(r, "normal", r->out->normal));
    for (uint32_t i = 0; i < r->out->channels; i++)
        if (r->out->normal[i] == 0) {
            qn__log(r->ctx, QN_LOG_WARNING, "%s: \"normal\" holds 0: all pictures look the same",
                    r->out->file);
            break;
        }
    QN_TRY(read_size(r));
    QN_TRY(read_samples(r));
    QN_TRY(read_methods(r));
    QN_TRY(read_skips(r));
    QN_TRY(read_inputs(r));
    const char *model = NULL;
    QN_TRY(read_string(r, "model", &model));
    warn_unknown_keys(r);
    return QN_OK;
}

qn_status qn__mnn_config_read(const qn_context *ctx, const char *path, uint32_t exact,
                              qn_mnn_config *out, qn_error *error)
{
    qn_file_view view;
    json_error_t where;
    qn_mnn_config config = {.center_crop_h = 1,
                            .center_crop_w = 1,
                            .normal = {1, 1, 1, 1},
                            .feature_clamp = 127,
                            .weight_clamp = 127,
                            .bits = 8,
                            .winograd = true,
                            .exact = exact};
    QN_TRY(qn__file_open(ctx, path, &view, error));
    if (view.size_bytes > MAX_CONFIG_BYTES) {
        qn__file_close(ctx, &view);
        QN_FAIL(error, QN_LIMIT, "%s: a configuration of %zu bytes", path, view.size_bytes);
    }
    /* Editors put a byte order mark in front, which is no JSON. */
    const size_t mark = view.size_bytes >= 3 && memcmp(view.data, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    json_t *root = json_loadb((const char *)view.data + mark, view.size_bytes - mark,
                              JSON_REJECT_DUPLICATES, &where);
    qn__file_close(ctx, &view);
    QN_FAIL_IF(root == NULL, error, QN_INVALID_ARGUMENT,
               "%s: invalid JSON at line %d, column %d: %s", path, where.line < 1 ? 1 : where.line,
               where.column < 1 ? 1 : where.column, where.text);
    qn__arena_init(&config.arena, ctx);
    config.file = qn__arena_strdup(&config.arena, path);
    qn_status status;
    if (config.file == NULL) {
        status = QN_NOMEM(error);
    } else {
        const reader r = {ctx, root, &config, error};
        status = read_all(&r);
    }
    json_decref(root);
    if (status != QN_OK) {
        qn__mnn_config_free(&config);
        return status;
    }
    limit_levels(&config);
    *out = config;
    return QN_OK;
}

void qn__mnn_config_free(qn_mnn_config *config)
{
    if (config->arena.ctx != NULL)
        qn__arena_free(&config->arena);
    *config = (qn_mnn_config){0};
}
