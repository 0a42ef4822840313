/* Defaults and settings of a run of qn_quantize. */
#include "quant/quantize.h"

#include <string.h>

/* Chosen on calibration pictures; docs/results.md has the comparison. */
#define DEFAULT_TARGET "onnxruntime"
#define DEFAULT_GRANULARITY "channel"
#define DEFAULT_X86 "any"
#define DEFAULT_FEATURES "lp"
#define DEFAULT_WEIGHTS "gptq"
#define DEFAULT_CALIBRATE_WITH "float"
#define DEFAULT_BIAS_CORRECTION "on"
#define DEFAULT_EQUALIZE "on"
#define DEFAULT_WEIGHT_LEVELS "uniform"

#define QN_STRING_(x) #x
#define QN_STRING(x) QN_STRING_(x)

void qn_quantize_options_init(qn_quantize_options *options)
{
    *options = (qn_quantize_options){.struct_size = sizeof(*options), .batch = 1};
}

const char *qn_quantize_default(const char *which)
{
    static const struct {
        const char *key, *value;
    } rows[] = {
        {"target", DEFAULT_TARGET},
        {"features", DEFAULT_FEATURES},
        {"weights", DEFAULT_WEIGHTS},
        {"granularity", DEFAULT_GRANULARITY},
        {"calibrate_with", DEFAULT_CALIBRATE_WITH},
        {"bias_correction", DEFAULT_BIAS_CORRECTION},
        {"equalize", DEFAULT_EQUALIZE},
        {"x86", DEFAULT_X86},
        {"weight_levels", DEFAULT_WEIGHT_LEVELS},
        {"scheme", QN_DEFAULT_SCHEME},
        {"weight_block", QN_STRING(QN_DEFAULT_BLOCK)},
    };
    for (size_t i = 0; which != NULL && i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].key, which) == 0)
            return rows[i].value;
    return NULL;
}

const char *qn_feature_method_name(size_t index)
{
    const qn_feature_method *m = qn__feature_method_at(index);
    return m == NULL ? NULL : m->name;
}

const char *qn_feature_method_summary(size_t index)
{
    const qn_feature_method *m = qn__feature_method_at(index);
    return m == NULL ? NULL : m->summary;
}

/* The caller's word, else the recipe's, else the default. */
static const char *choose(const qn_run *r, const char *given, const char *key, const char *fallback)
{
    const char *recorded = r->recipe.ctx == NULL ? NULL : qn__recipe_setting(&r->recipe, key);
    return given != NULL ? given : recorded != NULL ? recorded : fallback;
}

/* Which of two words (three: c not NULL) is it? */
static qn_status one_of(const char *value, const char *key, const char *a, const char *b,
                        const char *c, int *out, qn_error *error)
{
    *out = strcmp(value, a) == 0 ? 0 : strcmp(value, b) == 0 ? 1 : 2;
    QN_FAIL_IF(*out == 2 && (c == NULL || strcmp(value, c) != 0), error, QN_INVALID_ARGUMENT,
               "%s \"%s\": expected %s%s%s%s%s", key, value, a, c != NULL ? ", " : " or ", b,
               c != NULL ? " or " : "", c != NULL ? c : "");
    return QN_OK;
}

/* The runtime that reads the format the model came in. */
static const char *default_target(const qn_model *model)
{
    const qn_source *source = model->graph->source;
    return source != NULL && strcmp(source->format, "mnn") == 0 ? "mnn" : DEFAULT_TARGET;
}

static qn_status choose_methods(qn_run *r, qn_error *error)
{
    qn_settings *s = &r->settings;
    const char *name = choose(r, r->options->target, "target", default_target(r->model));
    s->target = qn__target_find(name);
    QN_FAIL_IF(s->target == NULL, error, QN_INVALID_ARGUMENT, "no target \"%s\"", name);
    name = choose(r, r->options->features, "features", DEFAULT_FEATURES);
    s->features = qn__feature_method_find(name);
    QN_FAIL_IF(s->features == NULL, error, QN_INVALID_ARGUMENT, "no feature method \"%s\"", name);
    name = choose(r, r->options->weights, "weights", DEFAULT_WEIGHTS);
    s->weights = qn__weight_method_find(name);
    QN_FAIL_IF(s->weights == NULL, error, QN_INVALID_ARGUMENT, "no weight method \"%s\"", name);
    return QN_OK;
}

static qn_status choose_words(qn_run *r, qn_error *error)
{
    const qn_quantize_options *o = r->options;
    qn_settings *s = &r->settings;
    int word;
    QN_TRY(one_of(choose(r, o->granularity, "granularity", DEFAULT_GRANULARITY), "granularity",
                  "channel", "tensor", NULL, &word, error));
    s->per_channel = word == 0;
    QN_TRY(one_of(choose(r, o->calibrate_with, "calibrate_with", DEFAULT_CALIBRATE_WITH),
                  "calibrate-with", "float", "quantized-weights", NULL, &word, error));
    s->quantized_weights = word == 1;
    QN_TRY(one_of(choose(r, o->bias_correction, "bias_correction", DEFAULT_BIAS_CORRECTION),
                  "bias-correction", "on", "off", NULL, &word, error));
    s->bias_correction = word == 0;
    QN_TRY(one_of(choose(r, o->equalize, "equalize", DEFAULT_EQUALIZE), "equalize", "on", "off",
                  NULL, &word, error));
    s->equalize = word == 0;
    static const char *const x86[] = {"any", "avx2", "vnni"};
    QN_TRY(
        one_of(choose(r, o->x86, "x86", DEFAULT_X86), "x86", x86[0], x86[1], x86[2], &word, error));
    s->x86 = x86[word];
    s->x86_pairs = s->target->x86_pairs && word != 2;
    const char *activations = choose(r, o->activations, "activations", NULL);
    s->activation = s->target->activation;
    s->symmetric = s->target->symmetric;
    if (activations != NULL) {
        QN_TRY(one_of(activations, "activations", "u8", "s8", "s8sym", &word, error));
        s->activation = word == 0 ? QN_DTYPE_U8 : QN_DTYPE_I8;
        s->symmetric = word == 2;
    }
    return QN_OK;
}

/* The caller's number, else the recipe's, else 0. */
static qn_status choose_number(const qn_run *r, uint32_t given, const char *key, uint32_t lowest,
                               uint32_t highest, uint32_t *out, qn_error *error)
{
    *out = given != 0 || r->recipe.ctx == NULL ? given : qn__recipe_number(&r->recipe, key);
    QN_FAIL_IF(*out != 0 && (*out < lowest || *out > highest), error, QN_INVALID_ARGUMENT,
               "%s %u: expected %u to %u", key, *out, lowest, highest);
    return QN_OK;
}

static qn_status choose_levels(qn_run *r, qn_error *error)
{
    const qn_quantize_options *o = r->options;
    qn_settings *s = &r->settings;
    qn_levels levels;
    const char *name = choose(r, o->weight_levels, "weight_levels", DEFAULT_WEIGHT_LEVELS);
    QN_FAIL_IF(!qn__level_set_find(name, &s->level_set), error, QN_INVALID_ARGUMENT,
               "weight-levels \"%s\": expected uniform, ternary or pow2", name);
    if (s->scheme != QN_SCHEME_WEIGHTS)
        QN_TRY(choose_number(r, o->weight_bits, "weight_bits", 2, 8, &s->weight_bits, error));
    QN_TRY(choose_number(r, o->weight_clamp, "weight_clamp", 1, 127, &s->weight_clamp, error));
    QN_TRY(choose_number(r, o->feature_clamp, "feature_clamp", 1, 127, &s->feature_clamp, error));
    const char *problem = qn__levels_make(s->level_set, s->weight_bits, s->weight_clamp, &levels);
    QN_FAIL_IF(problem != NULL, error, QN_INVALID_ARGUMENT, "%s, not %u", problem, s->weight_bits);
    QN_FAIL_IF(s->feature_clamp != 0 && !s->symmetric, error, QN_INVALID_ARGUMENT,
               "feature-clamp %u: only s8sym activations have a largest integer", s->feature_clamp);
    return QN_OK;
}

static qn_status choose_scheme(qn_run *r, qn_error *error)
{
    const qn_quantize_options *o = r->options;
    uint32_t block = 0;
    QN_TRY(choose_number(r, o->weight_block, "weight_block", 16, 256, &block, error));
    return qn__scheme_choose(choose(r, o->scheme, "scheme", QN_DEFAULT_SCHEME), block,
                             r->dataset != NULL || r->recipe.ctx != NULL, o, &r->settings, error);
}

qn_status qn__run_choose(qn_run *r, qn_error *error)
{
    const qn_quantize_options *o = r->options;
    const size_t n_recorded = r->recipe.ctx == NULL ? 0 : qn__recipe_n_overrides(&r->recipe);
    QN_TRY(choose_methods(r, error));
    QN_TRY(choose_words(r, error));
    QN_TRY(choose_scheme(r, error));
    QN_TRY(choose_levels(r, error));
    r->settings.batch =
        r->recipe.ctx == NULL || o->batch > 1 ? o->batch : qn__recipe_batch(&r->recipe, o->batch);
    QN_FAIL_IF(r->settings.batch < 1, error, QN_INVALID_ARGUMENT, "batch %lld is not positive",
               (long long)r->settings.batch);
    QN_FAIL_IF(o->n_overrides > 0 && o->overrides == NULL, error, QN_INVALID_ARGUMENT,
               "overrides are missing");
    r->overrides = qn__calloc(r->ctx, n_recorded + o->n_overrides, sizeof(*r->overrides));
    if (r->overrides == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n_recorded; i++)
        qn__recipe_override(&r->recipe, i, &r->overrides[i]);
    for (size_t i = 0; i < o->n_overrides; i++) {
        const qn_override *const v = &o->overrides[i];
        QN_FAIL_IF(v->pattern == NULL || v->key == NULL || v->value == NULL, error,
                   QN_INVALID_ARGUMENT, "override %zu: pattern, key or value is missing", i);
        r->overrides[n_recorded + i] = *v;
    }
    r->settings.overrides = r->overrides;
    r->settings.n_overrides = n_recorded + o->n_overrides;
    r->settings.recipe_path = r->recipe.path;
    r->settings.n_recorded = n_recorded;
    return QN_OK;
}
