/* What of the samples was seen, as bytes. Everything read is checked here. */
#include "calib/stats_journal.h"

#include "core/threads.h"

#include <stdlib.h>
#include <string.h>

qn_status qn__stats_corrupt(const qn_stats *stats, const char *what, qn_error *error)
{
    return qn__error_set(error, QN_CORRUPT, "%s: damaged statistics: %s", stats->path, what);
}

/* --- contributions -----------------------------------------------------------------------------*/
/* Rows of a sample: row r belongs to sample r * n_samples / n_rows. */
static uint64_t first_row(const qn_stats_row *r, uint64_t sample, uint64_t n_samples)
{
    return (uint64_t)(((unsigned __int128)sample * r->n_rows + n_samples - 1) / n_samples);
}

static void put_fixed_sums(qn_strbuf *buf, const qn_fixed *sums, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const unsigned __int128 sum = (unsigned __int128)sums[i];
        qn__put_fixed(buf, (uint64_t)sum, 8);
        qn__put_fixed(buf, (uint64_t)(sum >> 64), 8);
    }
}

static bool all_zero(const qn_fixed *sums, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (sums[i] != 0)
            return false;
    return true;
}

static void put_mean(qn_strbuf *buf, const qn_stats_mean *m)
{
    qn__put_varint(buf, m->channels);
    if (m->channels == 0)
        return;
    const bool few = !all_zero(m->few, m->channels);
    put_fixed_sums(buf, m->sums, m->channels);
    qn__put_fixed(buf, few, 1);
    if (few)
        put_fixed_sums(buf, m->few, m->channels);
    if (m->peaks != NULL)
        qn__put_floats(buf, m->peaks, m->channels);
}

/* What follows a sample: nothing, its values, or their dims and they. */
enum { SAMPLE_SEEN = 0, SAMPLE_KEPT = 1, SAMPLE_SHAPED = 2 };

static void put_samples(const qn_stats *stats, qn_strbuf *buf, const qn_stats_stage *s)
{
    uint64_t last = 0;
    qn__put_varint(buf, s->n_samples);
    for (size_t i = 0; i < s->n_samples; i++) {
        const qn_stats_sample *sample = &s->samples[i];
        qn__put_varint(buf, sample->index - last);
        last = sample->index;
        qn__put_text(buf, sample->name);
        qn__put_fixed(buf, sample->hash, 8);
        qn__put_fixed(buf,
                      sample->inputs == NULL ? SAMPLE_SEEN
                      : sample->dims == NULL ? SAMPLE_KEPT
                                             : SAMPLE_SHAPED,
                      1);
        for (size_t k = 0; sample->inputs != NULL && k < stats->head.n_inputs; k++) {
            const qn_stats_input *input = &stats->head.inputs[k];
            size_t count = input->count;
            for (uint32_t d = 0; sample->dims != NULL && d < input->rank; d++)
                qn__put_varint(buf, (uint64_t)sample->dims[k][d]);
            if (sample->dims != NULL)
                (void)qn_shape_count(&count, sample->dims[k], input->rank);
            qn__put_floats(buf, sample->inputs[k], count);
        }
    }
}

/* A track is one item, mean or set of rows, behind its length. */
static size_t n_tracks(const qn_stats_stage *s)
{
    return s->n_items + s->n_means + s->n_rows;
}

static void put_track(const qn_stats *stats, qn_strbuf *buf, const qn_stats_stage *s, size_t track)
{
    if (track < s->n_items) {
        s->methods[track]->save(stats->ctx, s->states[track], buf);
        return;
    }
    track -= s->n_items;
    if (track < s->n_means) {
        put_mean(buf, &s->means[track]);
        return;
    }
    const qn_stats_row *r = &s->rows[track - s->n_means];
    const size_t width = (size_t)(r->groups * r->k);
    for (size_t i = 0; r->data != NULL && i < s->n_samples; i++) {
        const uint64_t first = first_row(r, s->samples[i].index, stats->head.n_samples);
        const uint64_t end = first_row(r, s->samples[i].index + 1, stats->head.n_samples);
        qn__put_floats(buf, r->data + first * width, (size_t)(end - first) * width);
    }
}

void qn__stats_put_seen(const qn_stats *stats, qn_strbuf *buf, const qn_stats_stage *s)
{
    put_samples(stats, buf, s);
    for (size_t i = 0; i < n_tracks(s); i++) {
        const size_t at = buf->length;
        if (qn__strbuf_extend(buf, 8) == NULL)
            return;
        put_track(stats, buf, s, i);
        if (!buf->failed)
            qn_qnm_put((uint8_t *)buf->data + at, buf->length - at - 8, 8);
    }
}

/* --- reading contributions ---------------------------------------------------------------------*/
typedef struct seen { /* one contribution taken apart */
    size_t first_sample, n_samples;
    qn_qnm_cursor *tracks;
} seen;

typedef struct adding {
    qn_stats *stats;
    qn_stats_stage *stage;
    seen *parts;
    size_t n_parts;
    qn_status *statuses; /* [tracks] */
    qn_error *errors;
} adding;

static qn_status get_inputs(qn_stats *stats, qn_qnm_cursor *c, qn_stats_sample *sample, bool shaped,
                            qn_error *error)
{
    const qn_stats_head *head = &stats->head;
    sample->inputs = qn__calloc(stats->ctx, head->n_inputs, sizeof(*sample->inputs));
    if (sample->inputs == NULL)
        return QN_NOMEM(error);
    int64_t(*dims)[QN_MODEL_MAX_RANK] =
        shaped ? qn__arena_calloc(&stats->arena, head->n_inputs + 1, sizeof(*dims)) : NULL;
    if (shaped && dims == NULL)
        return QN_NOMEM(error);
    sample->dims = (const int64_t(*)[QN_MODEL_MAX_RANK])dims;
    for (size_t k = 0; k < head->n_inputs; k++) {
        size_t count = head->inputs[k].count;
        if ((shaped && !qn__stats_get_dims(stats, c, head->inputs[k].rank, dims[k], &count)) ||
            !qn_floats_fit(c, count))
            return qn__stats_corrupt(stats, "a sample", error);
        sample->inputs[k] = qn__calloc(stats->ctx, count, sizeof(float));
        if (sample->inputs[k] == NULL)
            return QN_NOMEM(error);
        qn__get_floats(c, sample->inputs[k], count);
    }
    return QN_OK;
}

static qn_status get_sample(qn_stats *stats, qn_stats_stage *s, qn_qnm_cursor *c, uint64_t *last,
                            bool first, qn_error *error)
{
    if (!QN_GROW(stats->ctx, &s->samples, &s->samples_capacity, s->n_samples))
        return QN_NOMEM(error);
    qn_stats_sample *sample = &s->samples[s->n_samples];
    const uint64_t gap = qn__get_varint(c);
    *sample = (qn_stats_sample){.index = *last + gap, .name = qn__stats_get_name(stats, c)};
    sample->hash = qn_qnm_u64(c);
    const uint8_t kept = qn_qnm_u8(c);
    if (c->failed || (gap == 0 && !first) || gap >= stats->head.n_samples - *last ||
        (kept != 0) != qn_is_one_of_few(sample->index, s->n_few, stats->head.n_samples) ||
        kept > SAMPLE_SHAPED)
        return qn__stats_corrupt(stats, "a sample", error);
    if (sample->name == NULL)
        return QN_NOMEM(error);
    *last = sample->index;
    s->n_samples++;
    return kept != SAMPLE_SEEN ? get_inputs(stats, c, sample, kept == SAMPLE_SHAPED, error) : QN_OK;
}

static qn_status take_apart(qn_stats *stats, qn_stats_stage *s, qn_qnm_cursor c, seen *out,
                            qn_error *error)
{
    enum { LEAST_BYTES = 11 };
    const uint64_t n = qn__get_varint(&c);
    if (c.failed || !qn_qnm_fits(&c, (size_t)n, LEAST_BYTES))
        return qn__stats_corrupt(stats, "its samples", error);
    uint64_t last = 0;
    out->first_sample = s->n_samples;
    out->n_samples = (size_t)n;
    for (uint64_t i = 0; i < n; i++)
        QN_TRY(get_sample(stats, s, &c, &last, i == 0, error));
    for (size_t i = 0; i < n_tracks(s); i++) {
        const uint64_t length = qn_qnm_u64(&c);
        if (c.failed || length > c.left)
            return qn__stats_corrupt(stats, "a contribution", error);
        out->tracks[i] = (qn_qnm_cursor){c.at, (size_t)length, false};
        (void)qn_qnm_take(&c, (size_t)length);
    }
    return c.left == 0 ? QN_OK : qn__stats_corrupt(stats, "a contribution", error);
}

static qn_status add_item(qn_stats *stats, qn_stats_stage *s, size_t item, qn_qnm_cursor *c,
                          qn_error *error)
{
    const qn_feature_method *m = s->methods[item];
    void *state = qn__alloc(stats->ctx, m->state_bytes());
    if (state == NULL)
        return QN_NOMEM(error);
    m->init(state);
    qn_status status = m->load(stats->ctx, state, c, error);
    if (status == QN_OK && (c->failed || c->left > 0))
        status = qn__error_set(error, QN_CORRUPT, "%s: damaged statistics of tensor \"%s\"",
                               stats->path, s->item_names[item]);
    if (status == QN_OK)
        status = m->merge(stats->ctx, s->states[item], state, error);
    m->release(stats->ctx, state);
    qn__free(stats->ctx, state);
    return status;
}

/* Unsigned, so that hostile sums cannot overflow. */
static void add_sums(qn_qnm_cursor *c, qn_fixed *sums, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const uint64_t low = qn_qnm_u64(c), high = qn_qnm_u64(c);
        sums[i] = (qn_fixed)((unsigned __int128)sums[i] + ((unsigned __int128)high << 64 | low));
    }
}

static qn_status mean_create(const qn_context *ctx, qn_stats_mean *m, size_t channels, bool peaks,
                             qn_error *error)
{
    m->sums = qn__calloc(ctx, channels, sizeof(*m->sums));
    m->few = qn__calloc(ctx, channels, sizeof(*m->few));
    if (peaks)
        m->peaks = qn__calloc(ctx, channels, sizeof(*m->peaks));
    if (m->sums == NULL || m->few == NULL || (peaks && m->peaks == NULL))
        return QN_NOMEM(error);
    m->channels = channels;
    return QN_OK;
}

static void add_peaks(qn_qnm_cursor *c, float *peaks, size_t count)
{
    for (size_t i = 0; i < count && !c->failed; i += 8) {
        float values[8];
        const size_t n = count - i < 8 ? count - i : 8;
        qn__get_floats(c, values, n);
        for (size_t j = 0; j < n && !c->failed; j++) {
            c->failed |= !(values[j] >= 0);
            peaks[i + j] = values[j] > peaks[i + j] ? values[j] : peaks[i + j];
        }
    }
}

static qn_status add_mean(qn_stats *stats, qn_stats_stage *s, size_t mean, qn_qnm_cursor *c,
                          qn_error *error)
{
    qn_stats_mean *m = &s->means[mean];
    const uint64_t channels = qn__get_varint(c);
    bool good = !c->failed && (channels == 0 || qn_qnm_fits(c, (size_t)channels, sizeof(*m->sums)));
    if (good && channels > 0 && m->channels == 0)
        QN_TRY(mean_create(stats->ctx, m, (size_t)channels, s->want_peaks, error));
    good = good && (channels == 0 || channels == m->channels);
    if (good && channels > 0) {
        add_sums(c, m->sums, m->channels);
        const uint8_t few = qn_qnm_u8(c);
        c->failed |= few > 1;
        if (few == 1)
            add_sums(c, m->few, m->channels);
        if (s->want_peaks)
            add_peaks(c, m->peaks, m->channels);
    }
    QN_FAIL_IF(!good || c->failed || c->left > 0, error, QN_CORRUPT,
               "%s: damaged means of tensor \"%s\"", stats->path, s->mean_names[mean]);
    return QN_OK;
}

static qn_status add_rows(qn_stats *stats, const qn_stats_stage *s, const seen *part, size_t row,
                          qn_qnm_cursor *c, qn_error *error)
{
    qn_stats_row *r = &s->rows[row];
    const size_t width = (size_t)(r->groups * r->k);
    for (size_t i = 0; i < part->n_samples && c->left > 0; i++) {
        const uint64_t sample = s->samples[part->first_sample + i].index;
        const uint64_t first = first_row(r, sample, stats->head.n_samples);
        const uint64_t end = first_row(r, sample + 1, stats->head.n_samples);
        const size_t count = (size_t)(end - first) * width;
        if (!qn_floats_fit(c, count))
            break;
        if (r->data == NULL)
            r->data = qn__calloc(stats->ctx, (size_t)r->n_rows * width, sizeof(*r->data));
        if (r->data == NULL)
            return QN_NOMEM(error);
        qn__get_floats(c, r->data + first * width, count);
    }
    QN_FAIL_IF(c->failed || c->left > 0, error, QN_CORRUPT, "%s: damaged rows of node \"%s\"",
               stats->path, r->node);
    return QN_OK;
}

static void add_track(void *arg, size_t track)
{
    adding *a = arg;
    qn_stats_stage *s = a->stage;
    qn_status status = QN_OK;
    qn_error *error = &a->errors[track];
    for (size_t p = 0; p < a->n_parts && status == QN_OK; p++) {
        qn_qnm_cursor *c = &a->parts[p].tracks[track];
        if (track < s->n_items)
            status = add_item(a->stats, s, track, c, error);
        else if (track < s->n_items + s->n_means)
            status = add_mean(a->stats, s, track - s->n_items, c, error);
        else
            status = add_rows(a->stats, s, &a->parts[p], track - s->n_items - s->n_means, c, error);
    }
    a->statuses[track] = status;
}

qn_status qn__stats_add_seen(qn_stats *stats, qn_stats_stage *stage, const qn_qnm_cursor *from,
                             size_t n_from, qn_error *error)
{
    const qn_context *ctx = stats->ctx;
    const size_t n = n_tracks(stage);
    qn_status status = QN_OK;
    adding a = {.stats = stats, .stage = stage, .n_parts = n_from};
    qn_qnm_cursor *tracks = qn__calloc(ctx, n_from * n, sizeof(*tracks));
    a.parts = qn__calloc(ctx, n_from, sizeof(*a.parts));
    a.statuses = qn__calloc(ctx, n, sizeof(*a.statuses));
    a.errors = qn__calloc(ctx, n, sizeof(*a.errors));
    if (tracks == NULL || a.parts == NULL || a.statuses == NULL || a.errors == NULL)
        QN_FAIL_GOTO(error, QN_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < n_from; i++) {
        a.parts[i].tracks = tracks + i * n;
        QN_TRY_GOTO(take_apart(stats, stage, from[i], &a.parts[i], error));
    }
    qn__parallel(ctx->pool, add_track, &a, n);
    for (size_t i = 0; i < n; i++)
        if (a.statuses[i] != QN_OK)
            QN_FAIL_GOTO(error, a.statuses[i], "%s", a.errors[i].message);
done:
    qn__free(ctx, tracks);
    qn__free(ctx, a.parts);
    qn__free(ctx, a.statuses);
    qn__free(ctx, a.errors);
    return status;
}

static int by_index(const void *a, const void *b)
{
    const uint64_t x = ((const qn_stats_sample *)a)->index, y = ((const qn_stats_sample *)b)->index;
    return x < y ? -1 : x > y;
}

qn_status qn__stats_sort(const qn_stats *stats, qn_stats_stage *stage, qn_error *error)
{
    if (stage->n_samples > 0)
        qsort(stage->samples, stage->n_samples, sizeof(*stage->samples), by_index);
    for (size_t i = 1; i < stage->n_samples; i++)
        QN_FAIL_IF(stage->samples[i].index == stage->samples[i - 1].index, error,
                   QN_INVALID_ARGUMENT, "%s: sample %llu, \"%s\", is in the statistics twice",
                   stats->path, (unsigned long long)stage->samples[i].index,
                   stage->samples[i].name);
    return QN_OK;
}

bool qn__stats_has(const qn_stats_stage *stage, uint64_t sample)
{
    const qn_stats_sample key = {.index = sample};
    return stage->n_samples > 0 && bsearch(&key, stage->samples, stage->n_samples,
                                           sizeof(*stage->samples), by_index) != NULL;
}

void qn__stats_stage_clear(qn_stats *stats, qn_stats_stage *s)
{
    const qn_context *ctx = stats->ctx;
    for (size_t i = 0; i < s->n_items; i++) {
        s->methods[i]->release(ctx, s->states[i]);
        s->methods[i]->init(s->states[i]);
    }
    for (size_t i = 0; s->means != NULL && i < s->n_means; i++) {
        qn__free(ctx, s->means[i].sums);
        qn__free(ctx, s->means[i].few);
        qn__free(ctx, s->means[i].peaks);
        s->means[i] = (qn_stats_mean){0};
    }
    for (size_t i = 0; i < s->n_rows; i++) {
        qn__free(ctx, s->rows[i].data);
        s->rows[i].data = NULL;
    }
    /* a sample that was read in part has its inputs in the array too */
    for (size_t i = 0; i < s->n_samples; i++) {
        for (size_t k = 0; s->samples[i].inputs != NULL && k < stats->head.n_inputs; k++)
            qn__free(ctx, s->samples[i].inputs[k]);
        qn__free(ctx, (void *)s->samples[i].inputs);
    }
    qn__free(ctx, s->samples);
    s->samples = NULL;
    s->n_samples = s->samples_capacity = 0;
}
