/* Writing a recipe. Numbers have nine significant digits, which is enough for a float32 to come
 * back as it was. */
#include "core/base64.h"
#include "core/strbuf.h"
#include "core/threads.h"
#include "data/data.h"
#include "quant/quant.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#define MAX_RECIPE_BYTES ((size_t)256 << 20)
#define MAX_INTEGER_BYTES ((size_t)160 << 20) /* as bytes, before they are text */

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
    const bool blocks = s->scheme == QN_SCHEME_WEIGHTS;
    put(root, "scheme", json_string(s->scheme_word), ok);
    put(root, "weight_bits", json_integer(blocks ? 0 : s->weight_bits), ok);
    put(root, "weight_clamp", json_integer(s->weight_clamp), ok);
    put(root, "feature_clamp", json_integer(s->feature_clamp), ok);
    put(root, "weight_block", json_integer(blocks ? s->block : 0), ok);
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

bool qn__recipe_has_integers(const qn_quant_plan *plan)
{
    size_t total = 0;
    for (size_t n = 0; n < plan->graph->n_nodes; n++) {
        qn_weight_view view;
        if (plan->nodes[n].integers != NULL && qn__weight_view(plan->graph->nodes[n], &view))
            total += view.channels * view.k;
    }
    return total <= MAX_INTEGER_BYTES;
}

/* The section "integers" as jansson would write it, without the two copies and the look at every
 * character that it would take for what is the bulk of a recipe. */
static bool dump_integers(const qn_quant_plan *plan, qn_strbuf *buf)
{
    bool any = false;
    const size_t n_nodes = qn__recipe_has_integers(plan) ? plan->graph->n_nodes : 0;
    qn__strbuf_puts(buf, "\n \"integers\": {");
    for (size_t n = 0; n < n_nodes; n++) {
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
    put(root, "recipe", json_integer(QN_RECIPE_VERSION), &ok);
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
