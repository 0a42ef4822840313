/* Recipes: what a run decided, written as JSON and replayed. Numbers have nine significant digits,
 * which is enough for a float32 to come back as it was. */
#include "core/base64.h"
#include "core/io.h"
#include "core/strbuf.h"
#include "core/threads.h"
#include "data/data.h"
#include "quant/quant.h"

#include <float.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define RECIPE_VERSION 1
#define MAX_RECIPE_BYTES ((size_t)256 << 20)

static const char *const setting_keys[] = {
    "target", "features",        "weights",  "granularity",   "activations", "calibrate_with",
    "x86",    "bias_correction", "equalize", "weight_levels", "scheme"};
static const char *const number_keys[] = {"weight_bits", "weight_clamp", "feature_clamp",
                                          "weight_block"};
static const char *const other_keys[] = {
    "recipe", "quench",       "batch",    "preprocessing", "samples", "overrides", "ranges",
    "biases", "equalization", "integers", "scales",        "layers",  "notes",     "batch_norm"};
enum {
    N_SETTINGS = sizeof(setting_keys) / sizeof(setting_keys[0]),
    N_NUMBERS = sizeof(number_keys) / sizeof(number_keys[0]),
    N_OTHERS = sizeof(other_keys) / sizeof(other_keys[0])
};

static bool in_list(const char *key, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i], key) == 0)
            return true;
    return false;
}

/* --- reading -----------------------------------------------------------------------------------*/
static qn_status check_overrides(const qn_recipe *r, qn_error *error)
{
    const json_t *list = json_object_get(r->root, "overrides");
    QN_FAIL_IF(list != NULL && !json_is_array(list), error, QN_CORRUPT,
               "%s: \"overrides\" is not a list", r->path);
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *o = json_array_get(list, i);
        QN_FAIL_IF(json_object_size(o) != 3 || !json_is_string(json_object_get(o, "name")) ||
                       !json_is_string(json_object_get(o, "key")) ||
                       !json_is_string(json_object_get(o, "value")),
                   error, QN_CORRUPT, "%s: override %zu is not {name, key, value}", r->path, i);
    }
    return QN_OK;
}

static qn_status check_root(const qn_recipe *r, qn_error *error)
{
    const char *key;
    json_t *value;
    QN_FAIL_IF(!json_is_object(r->root), error, QN_CORRUPT, "%s: not a JSON object", r->path);
    json_object_foreach(r->root, key, value)
    {
        const bool is_setting = in_list(key, setting_keys, N_SETTINGS);
        const bool is_number = in_list(key, number_keys, N_NUMBERS);
        QN_FAIL_IF(!is_setting && !is_number && !in_list(key, other_keys, N_OTHERS), error,
                   QN_INVALID_ARGUMENT, "%s: unknown key \"%s\"", r->path, key);
        QN_FAIL_IF(is_number && (!json_is_integer(value) || json_integer_value(value) < 0 ||
                                 json_integer_value(value) > 256),
                   error, QN_CORRUPT, "%s: \"%s\" is not a whole number of 0 to 256", r->path, key);
        QN_FAIL_IF(is_setting && !json_is_string(value), error, QN_CORRUPT,
                   "%s: \"%s\" is not a string", r->path, key);
    }
    value = json_object_get(r->root, "recipe");
    QN_FAIL_IF(!json_is_integer(value) || json_integer_value(value) != RECIPE_VERSION, error,
               QN_UNSUPPORTED, "%s: \"recipe\" is not %d", r->path, RECIPE_VERSION);
    value = json_object_get(r->root, "batch");
    QN_FAIL_IF(value != NULL && (!json_is_integer(value) || json_integer_value(value) < 1), error,
               QN_CORRUPT, "%s: \"batch\" is not a positive integer", r->path);
    return check_overrides(r, error);
}

qn_status qn__recipe_load(const qn_context *ctx, const char *path, qn_recipe *out, qn_error *error)
{
    qn_file_view view;
    json_error_t where;
    QN_TRY(qn__file_open(ctx, path, &view, error));
    *out = (qn_recipe){.ctx = ctx, .path = qn__strdup(ctx, path)};
    if (out->path != NULL)
        out->root =
            json_loadb((const char *)view.data, view.size_bytes, JSON_REJECT_DUPLICATES, &where);
    qn__file_close(ctx, &view);
    qn_status status = QN_OK;
    if (out->path == NULL)
        status = QN_NOMEM(error);
    else if (out->root == NULL)
        status = qn__error_set(error, QN_CORRUPT, "%s:%d:%d: %s", path, where.line, where.column,
                               where.text);
    else
        status = check_root(out, error);
    if (status != QN_OK)
        qn__recipe_free(out);
    return status;
}

void qn__recipe_free(qn_recipe *recipe)
{
    if (recipe->ctx == NULL)
        return;
    json_decref(recipe->root);
    qn__free(recipe->ctx, recipe->path);
    *recipe = (qn_recipe){0};
}

const char *qn__recipe_setting(const qn_recipe *recipe, const char *key)
{
    return json_string_value(json_object_get(recipe->root, key));
}

uint32_t qn__recipe_number(const qn_recipe *recipe, const char *key)
{
    return (uint32_t)json_integer_value(json_object_get(recipe->root, key));
}

int64_t qn__recipe_batch(const qn_recipe *recipe, int64_t fallback)
{
    const json_t *value = json_object_get(recipe->root, "batch");
    return value == NULL ? fallback : (int64_t)json_integer_value(value);
}

size_t qn__recipe_n_overrides(const qn_recipe *recipe)
{
    return json_array_size(json_object_get(recipe->root, "overrides"));
}

void qn__recipe_override(const qn_recipe *recipe, size_t index, qn_override *out)
{
    const json_t *o = json_array_get(json_object_get(recipe->root, "overrides"), index);
    *out = (qn_override){json_string_value(json_object_get(o, "name")),
                         json_string_value(json_object_get(o, "key")),
                         json_string_value(json_object_get(o, "value"))};
}

qn_status qn__recipe_section(const qn_recipe *recipe, const char *key, json_t **out,
                             qn_error *error)
{
    *out = json_object_get(recipe->root, key);
    QN_FAIL_IF(*out != NULL && !json_is_object(*out), error, QN_CORRUPT,
               "%s: \"%s\" is not an object", recipe->path, key);
    return QN_OK;
}

qn_status qn__recipe_ranges(const qn_recipe *recipe, qn_quant_plan *plan, qn_error *error)
{
    json_t *ranges;
    const char *name;
    json_t *value;
    QN_TRY(qn__recipe_section(recipe, "ranges", &ranges, error));
    json_object_foreach(ranges, name, value)
    {
        const qn_tensor *t = qn__graph_find_tensor(plan->graph, name);
        QN_FAIL_IF(t == NULL, error, QN_INVALID_ARGUMENT, "%s: no tensor \"%s\" in the model",
                   recipe->path, name);
        const json_t *lo = json_array_get(value, 0), *hi = json_array_get(value, 1);
        QN_FAIL_IF(json_array_size(value) != 2 || !json_is_number(lo) || !json_is_number(hi) ||
                       !isfinite((float)json_number_value(lo)) ||
                       !isfinite((float)json_number_value(hi)) ||
                       json_number_value(lo) > json_number_value(hi),
                   error, QN_CORRUPT, "%s: range of \"%s\" is not [low, high]", recipe->path, name);
        qn_tensor_plan *p = &plan->tensors[t->id];
        p->has_range = true;
        p->lo = (float)json_number_value(lo);
        p->hi = (float)json_number_value(hi);
    }
    return QN_OK;
}

/* A list of one float for each output channel of a quantized node, in the plan's arena. */
static qn_status read_channels(const qn_recipe *recipe, qn_quant_plan *plan, size_t position,
                               const json_t *list, const char *what, float **out, qn_error *error)
{
    const qn_node *node = plan->graph->nodes[position];
    qn_weight_view view;
    const size_t count = json_array_size(list);
    QN_FAIL_IF(!plan->nodes[position].quantized || plan->nodes[position].rule != QN_RULE_WEIGHTS ||
                   !qn__weight_view(node, &view) || count != view.channels,
               error, QN_INVALID_ARGUMENT, "%s: %zu %ss do not fit node \"%s\"", recipe->path,
               count, what, node->name);
    float *values = qn__arena_calloc(&plan->arena, count, sizeof(*values));
    if (values == NULL)
        return QN_NOMEM(error);
    for (size_t c = 0; c < count; c++) {
        values[c] = (float)json_number_value(json_array_get(list, c));
        QN_FAIL_IF(!isfinite(values[c]), error, QN_CORRUPT, "%s: %s %zu of \"%s\"", recipe->path,
                   what, c, node->name);
    }
    *out = values;
    return QN_OK;
}

static qn_status find_position(const qn_recipe *recipe, const qn_graph *graph, const char *name,
                               size_t *out, qn_error *error)
{
    size_t n = 0;
    while (n < graph->n_nodes && strcmp(graph->nodes[n]->name, name) != 0)
        n++;
    QN_FAIL_IF(n == graph->n_nodes, error, QN_INVALID_ARGUMENT, "%s: no node \"%s\" in the model",
               recipe->path, name);
    *out = n;
    return QN_OK;
}

static qn_status read_integers(const qn_recipe *recipe, qn_quant_plan *plan, size_t position,
                               const json_t *text, qn_error *error)
{
    const qn_node *node = plan->graph->nodes[position];
    qn_weight_view view;
    QN_FAIL_IF(!plan->nodes[position].quantized || plan->nodes[position].rule != QN_RULE_WEIGHTS ||
                   !qn__weight_view(node, &view),
               error, QN_INVALID_ARGUMENT, "%s: integers for \"%s\", which has no weights",
               recipe->path, node->name);
    const size_t count = view.channels * view.k;
    int8_t *integers = qn__arena_alloc(&plan->arena, count);
    if (integers == NULL)
        return QN_NOMEM(error);
    bool good =
        json_is_string(text) &&
        qn__base64_decode(json_string_value(text), json_string_length(text), integers, count);
    const qn_levels *levels = &plan->nodes[position].weights.levels;
    for (size_t i = 0; good && i < count; i++)
        good = qn__levels_round_one(levels, (float)integers[i], 1.0f) == integers[i];
    QN_FAIL_IF(!good, error, QN_CORRUPT,
               "%s: integers of \"%s\" are not %zu %s levels within -%d..%d", recipe->path,
               node->name, count, qn__level_set_name(levels->set), (int)levels->qmax,
               (int)levels->qmax);
    plan->nodes[position].integers = integers;
    return QN_OK;
}

/* Scales that belong to the integers read. */
static qn_status read_scales(const qn_recipe *recipe, qn_quant_plan *plan, qn_error *error)
{
    json_t *scales;
    const char *name;
    json_t *value;
    QN_TRY(qn__recipe_section(recipe, "scales", &scales, error));
    json_object_foreach(scales, name, value)
    {
        size_t n = 0;
        float *list = NULL;
        QN_TRY(find_position(recipe, plan->graph, name, &n, error));
        QN_TRY(read_channels(recipe, plan, n, value, "scale", &list, error));
        for (size_t c = 0; c < json_array_size(value); c++)
            QN_FAIL_IF(!(list[c] >= FLT_MIN), error, QN_CORRUPT, "%s: scale %zu of \"%s\" is %g",
                       recipe->path, c, name, (double)list[c]);
        if (plan->nodes[n].integers != NULL) /* removed to have them chosen again */
            plan->nodes[n].scales = list;
    }
    return QN_OK;
}

qn_status qn__recipe_integers(const qn_recipe *recipe, qn_quant_plan *plan, qn_error *error)
{
    json_t *integers;
    const char *name;
    json_t *value;
    QN_TRY(qn__recipe_section(recipe, "integers", &integers, error));
    json_object_foreach(integers, name, value)
    {
        size_t n = 0;
        QN_TRY(find_position(recipe, plan->graph, name, &n, error));
        QN_TRY(read_integers(recipe, plan, n, value, error));
    }
    return read_scales(recipe, plan, error);
}

qn_status qn__recipe_biases(const qn_recipe *recipe, qn_quant_plan *plan, float **shifts,
                            bool *found, qn_error *error)
{
    json_t *biases;
    const char *name;
    json_t *value;
    QN_TRY(qn__recipe_section(recipe, "biases", &biases, error));
    *found = biases != NULL;
    json_object_foreach(biases, name, value)
    {
        size_t n = 0;
        QN_TRY(find_position(recipe, plan->graph, name, &n, error));
        QN_TRY(read_channels(recipe, plan, n, value, "bias correction", &shifts[n], error));
    }
    return QN_OK;
}

static qn_status read_exponents(const qn_recipe *recipe, qn_graph *graph, size_t n,
                                const json_t *value, qn_equalization *list, qn_error *error)
{
    const size_t count = json_array_size(value);
    int32_t *e = qn__arena_calloc(&graph->arena, count, sizeof(*e));
    if (e == NULL)
        return QN_NOMEM(error);
    for (size_t c = 0; c < count; c++) {
        const json_t *one = json_array_get(value, c);
        const json_int_t x = json_integer_value(one);
        QN_FAIL_IF(!json_is_integer(one) || x < -64 || x > 64, error, QN_CORRUPT,
                   "%s: exponent %zu of \"%s\" is not in -64..64", recipe->path, c,
                   graph->nodes[n]->name);
        e[c] = (int32_t)x;
    }
    list->exponents[n] = e;
    list->n_exponents[n] = count;
    return QN_OK;
}

qn_status qn__recipe_equalization(const qn_recipe *recipe, qn_graph *graph, qn_equalization *list,
                                  bool *found, qn_error *error)
{
    json_t *all;
    const char *name;
    json_t *value;
    QN_TRY(qn__recipe_section(recipe, "equalization", &all, error));
    *found = all != NULL;
    json_object_foreach(all, name, value)
    {
        size_t n = 0;
        QN_TRY(find_position(recipe, graph, name, &n, error));
        QN_TRY(read_exponents(recipe, graph, n, value, list, error));
    }
    return QN_OK;
}

/* --- writing -----------------------------------------------------------------------------------*/
const char *qn__setting_activations(const qn_settings *settings)
{
    return settings->activation == QN_DTYPE_U8 ? "u8" : settings->symmetric ? "s8sym" : "s8";
}

/* jansson takes the reference; a NULL value (out of memory) makes *ok false. */
static void put(json_t *object, const char *key, json_t *value, bool *ok)
{
    *ok &= json_object_set_new(object, key, value) == 0;
}

static json_t *float_list(const float *values, size_t count, bool *ok)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        *ok &= json_array_append_new(list, json_real((double)values[i])) == 0;
    return list;
}

static void put_settings(json_t *root, const qn_settings *s, bool *ok)
{
    put(root, "target", json_string(s->target->name), ok);
    put(root, "features", json_string(s->features->name), ok);
    put(root, "weights", json_string(s->weights->name), ok);
    put(root, "granularity", json_string(s->per_channel ? "channel" : "tensor"), ok);
    put(root, "activations", json_string(qn__setting_activations(s)), ok);
    put(root, "calibrate_with", json_string(s->quantized_weights ? "quantized-weights" : "float"),
        ok);
    put(root, "bias_correction", json_string(s->bias_correction ? "on" : "off"), ok);
    put(root, "equalize", json_string(s->equalize ? "on" : "off"), ok);
    put(root, "x86", json_string(s->x86), ok);
    put(root, "weight_levels", json_string(qn__level_set_name(s->level_set)), ok);
    put(root, "scheme", json_string(s->scheme_word), ok);
    const bool blocks = s->scheme == QN_SCHEME_WEIGHTS;
    const uint32_t numbers[N_NUMBERS] = {blocks ? 0 : s->weight_bits, s->weight_clamp,
                                         s->feature_clamp, blocks ? s->block : 0};
    for (size_t i = 0; i < N_NUMBERS; i++)
        put(root, number_keys[i], json_integer(numbers[i]), ok);
    put(root, "batch", json_integer(s->batch), ok);
    json_t *list = json_array();
    for (size_t i = 0; i < s->n_overrides; i++) {
        const qn_override *o = &s->overrides[i];
        *ok &= json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "name", o->pattern, "key",
                                                     o->key, "value", o->value)) == 0;
    }
    put(root, "overrides", list, ok);
}

static json_t *preprocessing(const qn_preprocess *p, bool *ok)
{
    static const char *const channels[] = {"RGB", "BGR", "GRAY", "RGBA", "BGRA"};
    static const char *const filters[] = {"bilinear", "bilinear-plain", "bicubic", "nearest",
                                          "mnn",      "mnn-truncate"};
    json_t *o = json_object();
    put(o, "channels", json_string(channels[p->channels % 5]), ok);
    put(o, "mean", float_list(p->mean, p->n_mean, ok), ok);
    put(o, "normal", float_list(p->normal, p->n_normal, ok), ok);
    put(o, "resize_shorter", json_integer(p->resize_shorter), ok);
    put(o, "resize", json_pack("[i, i]", (int)p->resize_width, (int)p->resize_height), ok);
    put(o, "crop", json_pack("[i, i]", (int)p->crop_width, (int)p->crop_height), ok);
    put(o, "letterbox", json_pack("[i, i]", (int)p->letterbox_width, (int)p->letterbox_height), ok);
    put(o, "filter", json_string(filters[p->filter % 6]), ok);
    if (p->centre_width != 0 || p->centre_height != 0)
        put(o, "centre", json_pack("[f, f]", p->centre_width, p->centre_height), ok);
    return o;
}

typedef struct hash_job {
    const qn_dataset *dataset;
    uint64_t *hashes;
    qn_status *statuses;
} hash_job;

static void hash_sample(void *arg, size_t index)
{
    const hash_job *j = arg;
    j->statuses[index] = qn__dataset_hash(j->dataset, index, &j->hashes[index], NULL);
}

static qn_status hash_samples(const qn_context *ctx, const qn_dataset *dataset, uint64_t *hashes,
                              qn_error *error)
{
    const size_t count = qn_dataset_count(dataset);
    qn_status status = QN_OK;
    hash_job job = {dataset, hashes, qn__calloc(ctx, count, sizeof(qn_status))};
    if (job.statuses == NULL)
        return QN_NOMEM(error);
    qn__parallel(ctx->pool, hash_sample, &job, count);
    for (size_t i = 0; status == QN_OK && i < count; i++)
        if (job.statuses[i] != QN_OK) /* once more, for its message */
            status = qn__dataset_hash(dataset, i, &hashes[i], error);
    qn__free(ctx, job.statuses);
    return status;
}

static qn_status put_samples(json_t *root, const qn_context *ctx, const qn_dataset *dataset,
                             bool *ok, qn_error *error)
{
    json_t *list = json_array();
    qn_status status = QN_OK;
    uint64_t *hashes = qn__calloc(ctx, qn_dataset_count(dataset), sizeof(*hashes));
    put(root, "preprocessing", preprocessing(&qn__dataset_options(dataset)->preprocess, ok), ok);
    put(root, "samples", list, ok);
    if (hashes == NULL)
        return QN_NOMEM(error);
    QN_TRY_GOTO(hash_samples(ctx, dataset, hashes, error));
    for (size_t i = 0; *ok && i < qn_dataset_count(dataset); i++) {
        char text[17];
        (void)snprintf(text, sizeof(text), "%016" PRIx64, hashes[i]);
        json_t *entry = json_object();
        put(entry, "name", json_string_nocheck(qn_dataset_name(dataset, i)), ok);
        put(entry, "hash", json_string(text), ok);
        *ok &= json_array_append_new(list, entry) == 0;
    }
done:
    qn__free(ctx, hashes);
    return status;
}

static void put_ranges(json_t *root, const qn_quant_plan *plan, bool *ok)
{
    json_t *ranges = json_object();
    for (size_t t = 0; t < plan->graph->n_tensors; t++) {
        const qn_tensor_plan *p = &plan->tensors[t];
        const float range[2] = {p->lo, p->hi};
        if (p->own_range)
            put(ranges, plan->graph->tensors[t]->name, float_list(range, 2, ok), ok);
    }
    put(root, "ranges", ranges, ok);
}

static void put_biases(json_t *root, const qn_quant_plan *plan, float *const *shifts, bool *ok)
{
    json_t *biases = json_object();
    for (size_t n = 0; n < plan->graph->n_nodes; n++) {
        qn_weight_view view;
        if (shifts[n] != NULL && qn__weight_view(plan->graph->nodes[n], &view))
            put(biases, plan->graph->nodes[n]->name, float_list(shifts[n], view.channels, ok), ok);
    }
    put(root, "biases", biases, ok);
}

static void put_scales(json_t *root, const qn_quant_plan *plan, bool *ok)
{
    json_t *scales = json_object();
    for (size_t n = 0; n < plan->graph->n_nodes; n++) {
        const float *list = plan->nodes[n].scales;
        qn_weight_view view;
        if (list != NULL && qn__weight_view(plan->graph->nodes[n], &view))
            put(scales, plan->graph->nodes[n]->name, float_list(list, view.channels, ok), ok);
    }
    put(root, "scales", scales, ok);
}

static void put_equalization(json_t *root, const qn_graph *graph, const qn_equalization *list,
                             bool *ok)
{
    json_t *all = json_object();
    for (size_t n = 0; n < graph->n_nodes; n++) {
        if (list->exponents[n] == NULL)
            continue;
        json_t *one = json_array();
        for (size_t c = 0; c < list->n_exponents[n]; c++)
            *ok &= json_array_append_new(one, json_integer(list->exponents[n][c])) == 0;
        put(all, graph->nodes[n]->name, one, ok);
    }
    put(root, "equalization", all, ok);
}

static void put_layers(json_t *root, const qn_quant_plan *plan, bool *ok)
{
    json_t *layers = json_array();
    for (size_t n = 0; n < plan->graph->n_nodes; n++) {
        const qn_node *node = plan->graph->nodes[n];
        const qn_node_plan *p = &plan->nodes[n];
        json_t *o = json_object();
        put(o, "name", json_string(node->name), ok);
        put(o, "op", json_string(qn__op_name(node->op)), ok);
        put(o, "int8", json_boolean(p->quantized), ok);
        if (p->reason != NULL)
            put(o, "reason", json_string(p->reason), ok);
        if (p->quantized && p->rule == QN_RULE_WEIGHTS) {
            put(o, "weights", json_string(p->weights.method->name), ok);
            put(o, "granularity", json_string(p->weights.per_channel ? "channel" : "tensor"), ok);
            put(o, "levels", json_string(qn__level_set_name(p->weights.levels.set)), ok);
            put(o, "bits", json_integer((json_int_t)p->weights.bits), ok);
            put(o, "error", json_real(p->weights.error), ok);
            put(o, "saturates", json_boolean(p->weights.saturates), ok);
            put(o, "narrowed", json_integer((json_int_t)p->weights.n_narrowed), ok);
        }
        *ok &= json_array_append_new(layers, o) == 0;
    }
    put(root, "layers", layers, ok);
    json_t *notes = json_array();
    for (size_t i = 0; i < plan->n_notes; i++)
        *ok &= json_array_append_new(notes, json_string(plan->notes[i])) == 0;
    put(root, "notes", notes, ok);
}

static int append(const char *data, size_t size, void *arg)
{
    qn__strbuf_append(arg, data, size);
    return 0;
}

static bool dump(const json_t *value, size_t more_flags, qn_strbuf *buf)
{
    const size_t flags = JSON_INDENT(1) | JSON_REAL_PRECISION(9) | JSON_ENCODE_ANY;
    return json_dump_callback(value, append, buf, flags | more_flags) == 0;
}

/* The members of an object, without its braces and the line break behind the last. */
static bool dump_members(const json_t *object, qn_strbuf *buf)
{
    if (!dump(object, JSON_EMBED, buf) || buf->failed)
        return false;
    while (buf->length > 0 && buf->data[buf->length - 1] == '\n')
        buf->data[--buf->length] = '\0';
    return true;
}

/* The section "integers" as jansson would write it, without the two copies and the look at every
 * character that it would take for what is the bulk of a recipe. */
static bool dump_integers(const qn_quant_plan *plan, qn_strbuf *buf)
{
    bool any = false;
    qn__strbuf_puts(buf, "\n \"integers\": {");
    for (size_t n = 0; n < plan->graph->n_nodes; n++) {
        qn_weight_view view;
        if (plan->nodes[n].integers == NULL || !qn__weight_view(plan->graph->nodes[n], &view))
            continue;
        const size_t count = view.channels * view.k;
        json_t *name = json_string(plan->graph->nodes[n]->name);
        qn__strbuf_puts(buf, any ? ",\n  " : "\n  ");
        const bool named = name != NULL && dump(name, 0, buf);
        json_decref(name);
        qn__strbuf_puts(buf, ": \"");
        char *text = qn__strbuf_extend(buf, qn__base64_length(count));
        if (!named || text == NULL)
            return false;
        qn__base64_encode(plan->nodes[n].integers, count, text);
        qn__strbuf_puts(buf, "\"");
        any = true;
    }
    qn__strbuf_puts(buf, any ? "\n }" : "}");
    return true;
}

qn_status qn__recipe_write(const qn_quant_plan *plan, const qn_dataset *dataset,
                           const qn_recipe *replayed, float *const *shifts,
                           const qn_equalization *equalization, char **text, qn_error *error)
{
    bool ok = true;
    qn_status status = QN_OK;
    qn_strbuf buf;
    qn__strbuf_init(&buf, plan->graph->ctx, MAX_RECIPE_BYTES);
    json_t *root = json_object(), *rest = json_object(); /* before and behind the integers */
    put(root, "recipe", json_integer(RECIPE_VERSION), &ok);
    put(root, "quench", json_string(QN_VERSION_STRING), &ok);
    put_settings(root, plan->settings, &ok);
    if (dataset != NULL) {
        QN_TRY_GOTO(put_samples(root, plan->graph->ctx, dataset, &ok, error));
    } else if (replayed != NULL) {
        static const char *const kept[] = {"preprocessing", "samples"};
        for (size_t i = 0; i < 2; i++)
            if (json_object_get(replayed->root, kept[i]) != NULL)
                ok &= json_object_set(root, kept[i], json_object_get(replayed->root, kept[i])) == 0;
    }
    put_ranges(root, plan, &ok);
    if (plan->settings->bias_correction)
        put_biases(root, plan, shifts, &ok);
    if (plan->n_norms > 0)
        put(rest, "batch_norm", qn__recipe_norms_json(plan->norms, plan->n_norms, &ok), &ok);
    put_scales(rest, plan, &ok);
    if (plan->settings->equalize)
        put_equalization(rest, plan->graph, equalization, &ok);
    put_layers(rest, plan, &ok);
    qn__strbuf_puts(&buf, "{");
    ok = ok && dump_members(root, &buf);
    qn__strbuf_puts(&buf, ",");
    ok = ok && dump_integers(plan, &buf);
    qn__strbuf_puts(&buf, ",");
    ok = ok && dump_members(rest, &buf);
    qn__strbuf_puts(&buf, "\n}\n");
    if (!ok || buf.failed)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "the recipe cannot be written");
    *text = buf.data;
    buf.data = NULL;
done:
    json_decref(root);
    json_decref(rest);
    qn__strbuf_free(&buf);
    return status;
}
