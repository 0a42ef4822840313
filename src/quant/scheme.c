/* What is quantized at all: weights and activations with calibrated ranges, products whose
 * activations get their scale at run time, or weights alone. */
#include "quant/quant.h"

#include <string.h>

static const struct {
    const char *word;
    qn_scheme scheme;
    uint32_t bits;
    bool zero_points;
} words[] = {
    {"static", QN_SCHEME_STATIC, 0, false},        {"dynamic", QN_SCHEME_DYNAMIC, 0, false},
    {"int8", QN_SCHEME_WEIGHTS, 8, false},         {"int4", QN_SCHEME_WEIGHTS, 4, false},
    {"uint8", QN_SCHEME_WEIGHTS, 8, true},         {"uint4", QN_SCHEME_WEIGHTS, 4, true},
    {"dynamic-rows", QN_SCHEME_DYNAMIC, 0, false},
};

static bool is_on(const char *word)
{
    return word != NULL && strcmp(word, "on") == 0;
}

/* Options about ranges, which nothing but the static scheme has. */
static qn_status refuse_ranges(const char *word, const qn_quantize_options *o, qn_error *error)
{
    const struct {
        const char *name;
        bool given;
    } list[] = {{"features", o->features != NULL},
                {"activations", o->activations != NULL},
                {"calibrate-with", o->calibrate_with != NULL},
                {"bias-correction", is_on(o->bias_correction)},
                {"equalize", is_on(o->equalize)},
                {"feature-clamp", o->feature_clamp != 0},
                {"ranges", o->ranges_file != NULL}};
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        QN_FAIL_IF(list[i].given, error, QN_INVALID_ARGUMENT,
                   "%s is about calibrated ranges, which the scheme \"%s\" has not", list[i].name,
                   word);
    return QN_OK;
}

static qn_status choose_blocks(const char *word, uint32_t bits, uint32_t block,
                               const qn_quantize_options *o, qn_settings *s, qn_error *error)
{
    QN_FAIL_IF(o->weight_bits != 0 || o->weight_clamp != 0 || o->weight_levels != NULL ||
                   o->granularity != NULL,
               error, QN_INVALID_ARGUMENT,
               "weight-bits, weight-levels, weight-clamp and granularity do not go with \"%s\", "
               "which says how weights are stored",
               word);
    QN_FAIL_IF(block != 0 && (block & (block - 1)) != 0, error, QN_INVALID_ARGUMENT,
               "weight-block %u: expected 16, 32, 64, 128 or 256", block);
    QN_FAIL_IF(o->weights != NULL && s->weights->round != NULL, error, QN_INVALID_ARGUMENT,
               "weights \"%s\" does not know blocks: expected max_abs or mse", o->weights);
    if (s->weights->round != NULL)
        s->weights = qn__weight_method_find("mse");
    s->weight_bits = bits;
    s->block = block != 0 ? block : QN_DEFAULT_BLOCK;
    return QN_OK;
}

qn_status qn__scheme_choose(const char *word, uint32_t block, bool data,
                            const qn_quantize_options *options, qn_settings *s, qn_error *error)
{
    size_t i = 0;
    while (i < sizeof(words) / sizeof(words[0]) && strcmp(words[i].word, word) != 0)
        i++;
    QN_FAIL_IF(i == sizeof(words) / sizeof(words[0]), error, QN_INVALID_ARGUMENT,
               "scheme \"%s\": expected static, dynamic, dynamic-rows, int8, int4, uint8 or uint4",
               word);
    s->scheme = words[i].scheme;
    s->scheme_word = words[i].word;
    s->zero_points = words[i].zero_points;
    s->dynamic_rows = strcmp(word, "dynamic-rows") == 0;
    QN_FAIL_IF(block != 0 && options->weight_block != 0 && s->scheme != QN_SCHEME_WEIGHTS, error,
               QN_INVALID_ARGUMENT,
               "weight-block %u: only weights that are quantized alone are in blocks", block);
    if (s->scheme == QN_SCHEME_STATIC)
        return QN_OK;
    QN_FAIL_IF(strncmp(s->target->name, "onnxruntime", strlen("onnxruntime")) != 0, error,
               QN_INVALID_ARGUMENT, "the scheme \"%s\" is for onnxruntime, not for %s", word,
               s->target->name);
    QN_TRY(refuse_ranges(word, options, error));
    s->bias_correction = s->equalize = s->quantized_weights = false;
    s->feature_clamp = 0;
    s->activation = QN_DTYPE_U8;
    s->symmetric = false;
    if (s->features->train != NULL) /* of a recipe */
        s->features = qn__feature_method_find(qn_quantize_default("features"));
    if (s->scheme == QN_SCHEME_WEIGHTS)
        return choose_blocks(word, words[i].bits, block, options, s, error);
    QN_FAIL_IF(
        options->weights != NULL && s->weights->round != NULL && !data, error, QN_INVALID_ARGUMENT,
        "weights \"%s\" looks at the inputs of layers: samples are needed", options->weights);
    if (s->weights->round != NULL && !data)
        s->weights = qn__weight_method_find("mse");
    return QN_OK;
}

qn_rule qn__scheme_rule(const qn_settings *settings, qn_op op, const char **reason)
{
    if (op == QN_OP_MATMUL || op == QN_OP_GEMM)
        return QN_RULE_WEIGHTS;
    if (op == QN_OP_CONV && settings->scheme == QN_SCHEME_DYNAMIC)
        *reason = "the target's ConvInteger is slower than its float Conv";
    else
        *reason = settings->scheme == QN_SCHEME_DYNAMIC
                      ? "only products with constant weights are quantized at run time"
                      : "only weights of products are quantized";
    return QN_RULE_FLOAT;
}

qn_status qn__scheme_override(const qn_settings *settings, const qn_override *o, qn_error *error)
{
    static const char *const ranges[] = {"features", "range", "feature-clamp"};
    static const char *const formats[] = {"granularity", "weight-bits", "weight-levels",
                                          "weight-clamp"};
    bool refused = false;
    if (settings->scheme == QN_SCHEME_STATIC)
        return QN_OK;
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++)
        refused |= strcmp(o->key, ranges[i]) == 0;
    for (size_t i = 0;
         settings->scheme == QN_SCHEME_WEIGHTS && i < sizeof(formats) / sizeof(formats[0]); i++)
        refused |= strcmp(o->key, formats[i]) == 0;
    if (settings->scheme == QN_SCHEME_WEIGHTS && strcmp(o->key, "weights") == 0) {
        const qn_weight_method *method = qn__weight_method_find(o->value);
        refused |= method != NULL && method->round != NULL;
    }
    QN_FAIL_IF(refused, error, QN_INVALID_ARGUMENT, "%s:%s=%s does not go with the scheme \"%s\"",
               o->pattern, o->key, o->value, settings->scheme_word);
    return QN_OK;
}
