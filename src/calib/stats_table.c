/* The head and the tables of statistics files as bytes. Everything read is checked here. */
#include "calib/stats_journal.h"

#include <math.h>
#include <string.h>

enum {
    MOST_NAMED = 1 << 20, /* inputs, items, means, rows of a table */
    STATE_BYTES = 1 << 17 /* about what one observer may take */
};
#define MOST_SAMPLES ((uint64_t)1 << 40)
#define MOST_ROW_FLOATS ((uint64_t)1 << 24)

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

const char *qn__stats_get_name(qn_stats *stats, qn_qnm_cursor *c)
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

bool qn__stats_get_dims(const qn_stats *stats, qn_qnm_cursor *c, uint32_t rank, int64_t *dims,
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
    input->name = qn__stats_get_name(stats, c);
    input->rank = qn_qnm_u8(c);
    if (c->failed || input->rank > QN_MODEL_MAX_RANK)
        return qn__stats_corrupt(stats, "its inputs", error);
    if (input->name == NULL)
        return QN_NOMEM(error);
    return qn__stats_get_dims(stats, c, input->rank, input->dims, &input->count)
               ? QN_OK
               : qn__stats_corrupt(stats, "its inputs", error);
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
        return qn__stats_corrupt(stats, "its head", error);
    if (head->inputs == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < head->n_inputs; i++)
        QN_TRY(get_input(stats, c, &head->inputs[i], error));
    return c->left == 0 ? QN_OK : qn__stats_corrupt(stats, "its head", error);
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
        return qn__stats_corrupt(stats, "its tensors", error);
    s->methods = qn__arena_calloc(&stats->arena, n + 1, sizeof(*s->methods));
    s->states = qn__arena_calloc(&stats->arena, n + 1, sizeof(*s->states));
    if (s->item_names == NULL || s->methods == NULL || s->states == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n; i++) {
        s->item_names[i] = qn__stats_get_name(stats, c);
        const char *kind = qn__get_text(c, &length);
        if (c->failed)
            return qn__stats_corrupt(stats, "its tensors", error);
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
        return qn__stats_corrupt(stats, "its rows", error);
    if (s->rows == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n; i++) {
        qn_stats_row *r = &s->rows[i];
        r->node = qn__stats_get_name(stats, c);
        r->groups = qn__get_varint(c);
        r->k = qn__get_varint(c);
        r->n_rows = qn__get_varint(c);
        if (c->failed || r->groups == 0 || r->k == 0 || r->n_rows == 0 ||
            r->groups > MOST_ROW_FLOATS || r->k > MOST_ROW_FLOATS || r->n_rows > MOST_ROW_FLOATS ||
            r->groups * r->k > MOST_ROW_FLOATS || r->groups * r->k * r->n_rows > MOST_ROW_FLOATS)
            return qn__stats_corrupt(stats, "its rows", error);
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
        return qn__stats_corrupt(stats, "its table", error);
    QN_TRY(get_items(stats, c, s, error));
    s->mean_names = get_list(stats, c, &s->n_means, 1, sizeof(*s->mean_names));
    if (c->failed)
        return qn__stats_corrupt(stats, "its means", error);
    s->means = qn__arena_calloc(&stats->arena, s->n_means + 1, sizeof(*s->means));
    if (s->mean_names == NULL || s->means == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < s->n_means; i++) {
        s->mean_names[i] = qn__stats_get_name(stats, c);
        if (c->failed)
            return qn__stats_corrupt(stats, "its means", error);
        if (s->mean_names[i] == NULL)
            return QN_NOMEM(error);
    }
    QN_TRY(get_rows(stats, c, s, error));
    return c->left == 0 ? QN_OK : qn__stats_corrupt(stats, "its table", error);
}
