/* Handing collected statistics back: ranges and inputs of layers of a stage, and the samples that
 * were kept as a dataset. */
#include "calib/stats_journal.h"

#include "data/stored.h"

#include <string.h>

/* --- taking ------------------------------------------------------------------------------------*/
static qn_status check_stage(const qn_stats *stats, uint32_t stage, const qn_graph *graph,
                             const qn_calib_options *o, uint64_t n_used, uint64_t n_few,
                             qn_error *error)
{
    const qn_stats_stage *s = &stats->stages[stage];
    QN_FAIL_IF(!s->present, error, QN_INVALID_ARGUMENT, "%s: %s", stats->path,
               stage == QN_STATS_EQUALIZE ? "statistics made with --equalize off cannot equalize"
                                          : "no statistics");
    QN_FAIL_IF(s->graph != qn__graph_hash(graph), error, QN_INVALID_ARGUMENT,
               "%s: statistics of the model with other weights: --equalize, --calibrate-with, "
               "--recipe or options of weights differ",
               stats->path);
    QN_FAIL_IF(s->n_samples != s->n_used, error, QN_INVALID_ARGUMENT,
               "%s: statistics of %zu of %llu samples: other parts are to be merged first",
               stats->path, s->n_samples, (unsigned long long)s->n_used);
    QN_FAIL_IF(s->n_used != n_used || (o->n_means > 0 && s->n_few != n_few), error, QN_CORRUPT,
               "%s: statistics of other samples", stats->path);
    return QN_OK;
}

/* What was seen, once more as bytes and read back: a state of one's own. */
static qn_status copy_state(const qn_stats *stats, const qn_stats_stage *s, size_t item,
                            void *state, qn_error *error)
{
    return s->methods[item]->merge(stats->ctx, state, s->states[item], error);
}

static size_t find(const char *const *names, size_t count, const char *name, size_t hint)
{
    for (size_t i = 0; i < count; i++) {
        const size_t at = (hint + i) % count;
        if (strcmp(names[at], name) == 0)
            return at;
    }
    return count;
}

static qn_status take_items(const qn_stats *stats, const qn_stats_stage *s, const qn_graph *g,
                            const qn_calib_options *o, void **states, qn_error *error)
{
    for (size_t i = 0; i < o->n_items; i++) {
        const qn_feature_method *m = o->items[i].method;
        const char *name = g->tensors[o->items[i].tensor_id]->name;
        const size_t at = find(s->item_names, s->n_items, name, i);
        QN_FAIL_IF(at == s->n_items, error, QN_INVALID_ARGUMENT,
                   "%s: no statistics of tensor \"%s\": options of quantization differ",
                   stats->path, name);
        QN_FAIL_IF(m->state_kind == NULL || strcmp(m->state_kind, s->methods[at]->state_kind) != 0,
                   error, QN_INVALID_ARGUMENT,
                   "%s: features \"%s\" need other statistics of tensor \"%s\" than were kept, %s",
                   stats->path, m->name, name, s->methods[at]->state_kind);
        QN_TRY(copy_state(stats, s, at, states[i], error));
    }
    return QN_OK;
}

static qn_status take_mean(const qn_stats *stats, const qn_stats_mean *from, qn_stats_mean *to,
                           qn_error *error)
{
    const qn_context *ctx = stats->ctx;
    const size_t n = from->channels;
    to->sums = qn__calloc(ctx, n, sizeof(*to->sums));
    to->few = qn__calloc(ctx, n, sizeof(*to->few));
    to->peaks = qn__calloc(ctx, n, sizeof(*to->peaks));
    if (to->sums == NULL || to->few == NULL || to->peaks == NULL)
        return QN_NOMEM(error);
    to->channels = n;
    if (n == 0)
        return QN_OK;
    memcpy(to->sums, from->sums, n * sizeof(*to->sums));
    memcpy(to->few, from->few, n * sizeof(*to->few));
    if (from->peaks != NULL)
        memcpy(to->peaks, from->peaks, n * sizeof(*to->peaks));
    return QN_OK;
}

static qn_status take_rows(const qn_stats *stats, const qn_stats_stage *s, const qn_graph *g,
                           const qn_rows *r, qn_error *error)
{
    const char *name = g->nodes[r->node]->name;
    const qn_stats_row *found = NULL;
    for (size_t i = 0; i < s->n_rows && found == NULL; i++)
        if (strcmp(s->rows[i].node, name) == 0)
            found = &s->rows[i];
    QN_FAIL_IF(found == NULL, error, QN_INVALID_ARGUMENT,
               "%s: no rows of node \"%s\", which its weight method looks at: statistics are to be "
               "made with the same --weights",
               stats->path, name);
    QN_FAIL_IF(found->groups != r->groups || found->k != r->k || found->n_rows != r->n_rows, error,
               QN_INVALID_ARGUMENT, "%s: rows of node \"%s\" have another size", stats->path, name);
    if (found->data != NULL)
        memcpy(r->data, found->data, r->n_rows * r->groups * r->k * sizeof(*r->data));
    return QN_OK;
}

qn_status qn__stats_take(const qn_stats *stats, uint32_t stage, const qn_graph *graph,
                         const qn_calib_options *o, uint64_t n_used, uint64_t n_few, void **states,
                         qn_stats_mean *means, qn_error *error)
{
    const qn_stats_stage *s = &stats->stages[stage];
    QN_TRY(check_stage(stats, stage, graph, o, n_used, n_few, error));
    QN_TRY(take_items(stats, s, graph, o, states, error));
    for (size_t i = 0; i < o->n_means; i++) {
        const char *name = graph->tensors[o->mean_ids[i]]->name;
        const size_t at = find(s->mean_names, s->n_means, name, i);
        QN_FAIL_IF(at == s->n_means, error, QN_INVALID_ARGUMENT,
                   "%s: no channel means of tensor \"%s\": statistics are to be made with the same "
                   "--bias-correction and --equalize",
                   stats->path, name);
        QN_TRY(take_mean(stats, &s->means[at], &means[i], error));
    }
    for (size_t i = 0; i < o->n_rows; i++)
        if (o->rows[i].data != NULL)
            QN_TRY(take_rows(stats, s, graph, &o->rows[i], error));
    return QN_OK;
}

/* --- as a dataset ------------------------------------------------------------------------------*/
static const char *sample_name(const void *arg, size_t index)
{
    return ((const qn_stats *)arg)->stages[QN_STATS_MAIN].samples[index].name;
}

static uint64_t sample_hash(const void *arg, size_t index)
{
    return ((const qn_stats *)arg)->stages[QN_STATS_MAIN].samples[index].hash;
}

static const float *sample_values(const void *arg, size_t index, size_t input)
{
    const qn_stats_sample *s = &((const qn_stats *)arg)->stages[QN_STATS_MAIN].samples[index];
    return s->inputs == NULL ? NULL : s->inputs[input];
}

static const int64_t (*sample_dims(const void *arg, size_t index))[QN_MODEL_MAX_RANK]
{
    return ((const qn_stats *)arg)->stages[QN_STATS_MAIN].samples[index].dims;
}

qn_status qn__stats_dataset(const qn_stats *stats, qn_dataset **out, qn_error *error)
{
    const qn_stats_head *head = &stats->head;
    const qn_stats_stage *main = &stats->stages[QN_STATS_MAIN];
    QN_FAIL_IF(main->n_samples != head->n_samples, error, QN_INVALID_ARGUMENT,
               "%s: statistics of %zu of %llu samples: other parts are to be merged first",
               stats->path, main->n_samples, (unsigned long long)head->n_samples);
    qn_input_spec *specs = qn__calloc(stats->ctx, head->n_inputs, sizeof(*specs));
    if (specs == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < head->n_inputs; i++) {
        specs[i].name = head->inputs[i].name;
        specs[i].rank = head->inputs[i].rank;
        memcpy(specs[i].dims, head->inputs[i].dims, sizeof(specs[i].dims));
    }
    const qn_stored_samples stored = {.arg = stats,
                                      .where = stats->path,
                                      .count = main->n_samples,
                                      .name = sample_name,
                                      .hash = sample_hash,
                                      .values = sample_values,
                                      .dims = sample_dims};
    const qn_status status = qn__dataset_stored(stats->ctx, specs, head->n_inputs,
                                                &head->preprocess, &stored, out, error);
    qn__free(stats->ctx, specs);
    return status;
}
