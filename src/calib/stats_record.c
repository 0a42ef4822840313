/* Tables and contributions of statistics files as bytes. Everything read is checked here. */
#include "calib/stats.h"

#include "core/checked.h"
#include "core/threads.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_NAMED = 1 << 20, /* inputs, items, means, rows of a table */
    STATE_BYTES = 1 << 17 /* about what one observer may take */
};
#define MOST_SAMPLES ((uint64_t)1 << 40)
#define MOST_ROW_FLOATS ((uint64_t)1 << 24)

static qn_status corrupt(const qn_stats *stats, const char *what, qn_error *error)
{
    return qn__error_set(error, QN_CORRUPT, "%s: damaged statistics: %s", stats->path, what);
}

/* --- head --------------------------------------------------------------------------------------*/
static void put_preprocess(qn_strbuf *buf, const qn_preprocess *p)
{
    qn__put_fixed(buf, (uint64_t)p->channels, 1);
    qn__put_fixed(buf, (uint64_t)p->filter, 1);
    qn__put_fixed(buf, p->n_mean, 1);
    for (uint32_t i = 0; i < p->n_mean; i++)
        qn__put_f32(buf, p->mean[i]);
    qn__put_fixed(buf, p->n_normal, 1);
    for (uint32_t i = 0; i < p->n_normal; i++)
        qn__put_f32(buf, p->normal[i]);
    const uint32_t sizes[] = {p->resize_shorter,  p->resize_width, p->resize_height,
                              p->crop_width,      p->crop_height,  p->letterbox_width,
                              p->letterbox_height};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        qn__put_fixed(buf, sizes[i], 4);
    qn__put_f64(buf, p->centre_width);
    qn__put_f64(buf, p->centre_height);
}

static void get_preprocess(qn_qnm_cursor *c, qn_preprocess *p)
{
    qn_preprocess_init(p);
    const uint8_t channels = qn_qnm_u8(c), filter = qn_qnm_u8(c);
    c->failed |= channels > QN_CHANNELS_BGRA || filter > QN_FILTER_MNN_TRUNCATE;
    p->channels = (qn_channels)channels;
    p->filter = (qn_filter)filter;
    p->n_mean = qn_qnm_u8(c);
    c->failed |= p->n_mean > 4;
    for (uint32_t i = 0; i < p->n_mean && !c->failed; i++)
        p->mean[i] = qn_qnm_f32(c);
    p->n_normal = qn_qnm_u8(c);
    c->failed |= p->n_normal > 4;
    for (uint32_t i = 0; i < p->n_normal && !c->failed; i++)
        p->normal[i] = qn_qnm_f32(c);
    uint32_t *const sizes[] = {&p->resize_shorter,  &p->resize_width, &p->resize_height,
                               &p->crop_width,      &p->crop_height,  &p->letterbox_width,
                               &p->letterbox_height};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        *sizes[i] = qn_qnm_u32(c);
    p->centre_width = qn__get_f64(c);
    p->centre_height = qn__get_f64(c);
    for (uint32_t i = 0; i < 4; i++)
        c->failed |= !isfinite(p->mean[i]) || !isfinite(p->normal[i]);
    c->failed |= !isfinite(p->centre_width) || !isfinite(p->centre_height);
}

void qn__stats_put_head(qn_strbuf *buf, const qn_stats_head *head)
{
    qn__put_fixed(buf, head->model, 8);
    qn__put_fixed(buf, head->names, 8);
    qn__put_varint(buf, head->n_samples);
    qn__put_fixed(buf, head->pictures, 1);
    put_preprocess(buf, &head->preprocess);
    qn__put_varint(buf, head->n_inputs);
    for (size_t i = 0; i < head->n_inputs; i++) {
        const qn_stats_input *input = &head->inputs[i];
        qn__put_text(buf, input->name);
        qn__put_fixed(buf, input->rank, 1);
        for (uint32_t d = 0; d < input->rank; d++)
            qn__put_varint(buf, (uint64_t)input->dims[d]);
    }
}

/* A text in the arena; NULL: out of memory, or the cursor failed. */
static const char *get_name(qn_stats *stats, qn_qnm_cursor *c)
{
    size_t length = 0;
    const char *text = qn__get_text(c, &length);
    return text == NULL ? NULL : qn__arena_strndup(&stats->arena, text, length);
}

/* An array in the arena for `count` things of at least `bytes` bytes each in the file. NULL: out of
 * memory, or the cursor failed. */
static void *get_list(qn_stats *stats, qn_qnm_cursor *c, size_t *count, size_t bytes, size_t size)
{
    const uint64_t n = qn__get_varint(c);
    c->failed |= n > MOST_NAMED || !qn_qnm_fits(c, (size_t)n, bytes);
    *count = c->failed ? 0 : (size_t)n;
    return c->failed ? NULL : qn__arena_calloc(&stats->arena, *count + 1, size);
}

/* Dims, and the floats they stand for. */
static bool get_dims(const qn_stats *stats, qn_qnm_cursor *c, uint32_t rank, int64_t *dims,
                     size_t *count)
{
    for (uint32_t d = 0; d < rank; d++) {
        const uint64_t dim = qn__get_varint(c);
        c->failed |= dim > INT32_MAX;
        dims[d] = (int64_t)dim;
    }
    return !c->failed && qn_shape_count(count, dims, rank) &&
           *count <= stats->ctx->limits.tensor_bytes / sizeof(float);
}

static qn_status get_input(qn_stats *stats, qn_qnm_cursor *c, qn_stats_input *input,
                           qn_error *error)
{
    input->name = get_name(stats, c);
    input->rank = qn_qnm_u8(c);
    if (c->failed || input->rank > QN_MODEL_MAX_RANK)
        return corrupt(stats, "its inputs", error);
    if (input->name == NULL)
        return QN_NOMEM(error);
    return get_dims(stats, c, input->rank, input->dims, &input->count)
               ? QN_OK
               : corrupt(stats, "its inputs", error);
}

qn_status qn__stats_get_head(qn_stats *stats, qn_qnm_cursor *c, qn_error *error)
{
    enum { LEAST_BYTES = 2 };
    qn_stats_head *head = &stats->head;
    head->model = qn_qnm_u64(c);
    head->names = qn_qnm_u64(c);
    head->n_samples = qn__get_varint(c);
    const uint8_t pictures = qn_qnm_u8(c);
    head->pictures = pictures != 0;
    get_preprocess(c, &head->preprocess);
    head->inputs = get_list(stats, c, &head->n_inputs, LEAST_BYTES, sizeof(*head->inputs));
    if (c->failed || head->n_samples == 0 || head->n_samples > MOST_SAMPLES || pictures > 1)
        return corrupt(stats, "its head", error);
    if (head->inputs == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < head->n_inputs; i++)
        QN_TRY(get_input(stats, c, &head->inputs[i], error));
    return c->left == 0 ? QN_OK : corrupt(stats, "its head", error);
}

/* --- tables ------------------------------------------------------------------------------------*/
void qn__stats_put_table(qn_strbuf *buf, const qn_stats_stage *stage)
{
    qn__put_fixed(buf, stage->graph, 8);
    qn__put_varint(buf, stage->n_used);
    qn__put_varint(buf, stage->n_few);
    qn__put_fixed(buf, stage->want_peaks, 1);
    qn__put_varint(buf, stage->n_items);
    for (size_t i = 0; i < stage->n_items; i++) {
        qn__put_text(buf, stage->item_names[i]);
        qn__put_text(buf, stage->methods[i]->state_kind);
    }
    qn__put_varint(buf, stage->n_means);
    for (size_t i = 0; i < stage->n_means; i++)
        qn__put_text(buf, stage->mean_names[i]);
    qn__put_varint(buf, stage->n_rows);
    for (size_t i = 0; i < stage->n_rows; i++) {
        qn__put_text(buf, stage->rows[i].node);
        qn__put_varint(buf, stage->rows[i].groups);
        qn__put_varint(buf, stage->rows[i].k);
        qn__put_varint(buf, stage->rows[i].n_rows);
    }
}

static qn_status get_items(qn_stats *stats, qn_qnm_cursor *c, qn_stats_stage *s, qn_error *error)
{
    enum { LEAST_BYTES = 2 };
    size_t n = 0, length = 0;
    s->item_names = get_list(stats, c, &n, LEAST_BYTES, sizeof(*s->item_names));
    if (c->failed || n > stats->ctx->limits.tensor_bytes / STATE_BYTES)
        return corrupt(stats, "its tensors", error);
    s->methods = qn__arena_calloc(&stats->arena, n + 1, sizeof(*s->methods));
    s->states = qn__arena_calloc(&stats->arena, n + 1, sizeof(*s->states));
    if (s->item_names == NULL || s->methods == NULL || s->states == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n; i++) {
        s->item_names[i] = get_name(stats, c);
        const char *kind = qn__get_text(c, &length);
        if (c->failed)
            return corrupt(stats, "its tensors", error);
        if (s->item_names[i] == NULL)
            return QN_NOMEM(error);
        s->methods[i] = qn__feature_method_of_kind(kind, length);
        QN_FAIL_IF(s->methods[i] == NULL, error, QN_UNSUPPORTED,
                   "%s: statistics of an unknown kind, \"%.*s\"", stats->path,
                   (int)(length < 40 ? length : 40), kind);
        s->states[i] = qn__alloc(stats->ctx, s->methods[i]->state_bytes());
        if (s->states[i] == NULL)
            return QN_NOMEM(error);
        s->methods[i]->init(s->states[i]);
        s->n_items = i + 1;
    }
    return QN_OK;
}

static qn_status get_rows(qn_stats *stats, qn_qnm_cursor *c, qn_stats_stage *s, qn_error *error)
{
    enum { LEAST_BYTES = 4 };
    uint64_t total = 0;
    size_t n = 0;
    s->rows = get_list(stats, c, &n, LEAST_BYTES, sizeof(*s->rows));
    if (c->failed)
        return corrupt(stats, "its rows", error);
    if (s->rows == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n; i++) {
        qn_stats_row *r = &s->rows[i];
        r->node = get_name(stats, c);
        r->groups = qn__get_varint(c);
        r->k = qn__get_varint(c);
        r->n_rows = qn__get_varint(c);
        if (c->failed || r->groups == 0 || r->k == 0 || r->n_rows == 0 ||
            r->groups > MOST_ROW_FLOATS || r->k > MOST_ROW_FLOATS || r->n_rows > MOST_ROW_FLOATS ||
            r->groups * r->k > MOST_ROW_FLOATS || r->groups * r->k * r->n_rows > MOST_ROW_FLOATS)
            return corrupt(stats, "its rows", error);
        total += r->groups * r->k * r->n_rows;
        QN_FAIL_IF(total > stats->ctx->limits.tensor_bytes / sizeof(float), error, QN_LIMIT,
                   "%s: its rows are larger than the limit", stats->path);
        if (r->node == NULL)
            return QN_NOMEM(error);
        s->n_rows = i + 1;
    }
    return QN_OK;
}

qn_status qn__stats_get_table(qn_stats *stats, qn_qnm_cursor *c, qn_stats_stage *s, qn_error *error)
{
    s->present = true;
    s->graph = qn_qnm_u64(c);
    s->n_used = qn__get_varint(c);
    s->n_few = qn__get_varint(c);
    const uint8_t peaks = qn_qnm_u8(c);
    s->want_peaks = peaks != 0;
    if (c->failed || peaks > 1 || s->n_used == 0 || s->n_used > stats->head.n_samples ||
        s->n_few > stats->head.n_samples)
        return corrupt(stats, "its table", error);
    QN_TRY(get_items(stats, c, s, error));
    s->mean_names = get_list(stats, c, &s->n_means, 1, sizeof(*s->mean_names));
    if (c->failed)
        return corrupt(stats, "its means", error);
    s->means = qn__arena_calloc(&stats->arena, s->n_means + 1, sizeof(*s->means));
    if (s->mean_names == NULL || s->means == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < s->n_means; i++) {
        s->mean_names[i] = get_name(stats, c);
        if (c->failed)
            return corrupt(stats, "its means", error);
        if (s->mean_names[i] == NULL)
            return QN_NOMEM(error);
    }
    QN_TRY(get_rows(stats, c, s, error));
    return c->left == 0 ? QN_OK : corrupt(stats, "its table", error);
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
        if ((shaped && !get_dims(stats, c, head->inputs[k].rank, dims[k], &count)) ||
            !qn_floats_fit(c, count))
            return corrupt(stats, "a sample", error);
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
    *sample = (qn_stats_sample){.index = *last + gap, .name = get_name(stats, c)};
    sample->hash = qn_qnm_u64(c);
    const uint8_t kept = qn_qnm_u8(c);
    if (c->failed || (gap == 0 && !first) || gap >= stats->head.n_samples - *last ||
        (kept != 0) != qn_is_one_of_few(sample->index, s->n_few, stats->head.n_samples) ||
        kept > SAMPLE_SHAPED)
        return corrupt(stats, "a sample", error);
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
        return corrupt(stats, "its samples", error);
    uint64_t last = 0;
    out->first_sample = s->n_samples;
    out->n_samples = (size_t)n;
    for (uint64_t i = 0; i < n; i++)
        QN_TRY(get_sample(stats, s, &c, &last, i == 0, error));
    for (size_t i = 0; i < n_tracks(s); i++) {
        const uint64_t length = qn_qnm_u64(&c);
        if (c.failed || length > c.left)
            return corrupt(stats, "a contribution", error);
        out->tracks[i] = (qn_qnm_cursor){c.at, (size_t)length, false};
        (void)qn_qnm_take(&c, (size_t)length);
    }
    return c.left == 0 ? QN_OK : corrupt(stats, "a contribution", error);
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
