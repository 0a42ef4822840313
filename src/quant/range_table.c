/* Which table it is, the formats made of lines, and what becomes of a plan. */
#include "quant/range_table.h"

#include "core/io.h"
#include "core/number.h"
#include "quant/quant.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

#define MAX_LINE ((size_t)1 << 16)

bool qn__range_table_add(qn_range_table *t, const char *name, size_t length, double lo, double hi,
                         bool of_layer)
{
    if (!isfinite((float)lo) || !isfinite((float)hi) || lo > hi || length == 0)
        return false;
    char *copy = qn__arena_strndup(t->arena, name, length);
    if (copy == NULL || !QN_GROW(t->arena->ctx, &t->items, &t->capacity, t->count)) {
        t->nomem = true;
        return false;
    }
    t->items[t->count++] = (qn_table_range){copy, lo, hi, of_layer};
    return true;
}

/* --- lines -------------------------------------------------------------------------------------*/
typedef struct line {
    const char *text;
    size_t length, number;
} line;

/* The next line that is not empty, without its end; false: there is none. */
static bool next_line(const char **at, const char *end, line *l)
{
    while (*at < end) {
        const char *stop = memchr(*at, '\n', (size_t)(end - *at));
        stop = stop == NULL ? end : stop;
        l->text = *at;
        l->length = (size_t)(stop - *at);
        l->number++;
        *at = stop < end ? stop + 1 : end;
        while (l->length > 0 && isspace((unsigned char)l->text[l->length - 1]))
            l->length--;
        if (l->length > 0)
            return true;
    }
    return false;
}

/* A number that is all of text[0 .. length). */
static bool number(const char *text, size_t length, double *out)
{
    char copy[64];
    if (length == 0 || length >= sizeof(copy))
        return false;
    memcpy(copy, text, length);
    copy[length] = '\0';
    return qn__parse_f64(copy, NULL, out) && isfinite(*out);
}

static qn_status bad_line(const qn_range_table *t, const line *l, qn_error *error)
{
    if (t->nomem)
        return QN_NOMEM(error);
    const int shown = l->length < 60 ? (int)l->length : 60;
    return qn__error_set(error, QN_CORRUPT, "%s:%zu: \"%.*s\" is not a line of %s", t->path,
                         l->number, shown, l->text, t->kind);
}

/* "name: 3c010a14": bits of a float32, the real value of one of 127 steps. */
static bool add_tensorrt(qn_range_table *t, const line *l)
{
    uint32_t bits = 0;
    float scale;
    enum { DIGITS = 8 };
    if (l->length < DIGITS + 3 || memcmp(l->text + l->length - DIGITS - 2, ": ", 2) != 0)
        return false;
    for (size_t i = l->length - DIGITS; i < l->length; i++) {
        const char c = (char)tolower((unsigned char)l->text[i]);
        if (!isxdigit((unsigned char)c))
            return false;
        bits = bits << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    memcpy(&scale, &bits, sizeof(scale));
    const double most = (double)scale * 127;
    return scale >= 0 &&
           qn__range_table_add(t, l->text, l->length - DIGITS - 2, -most, most, false);
}

/* "name 3.5": the largest magnitude. The name may have spaces. */
static bool add_onnxruntime(qn_range_table *t, const line *l)
{
    size_t space = l->length;
    double most;
    while (space > 0 && l->text[space - 1] != ' ')
        space--;
    if (space < 2 || !number(l->text + space, l->length - space, &most) || most < 0)
        return false;
    return qn__range_table_add(t, l->text, space - 1, -most, most, false);
}

static size_t first_word(const line *l)
{
    size_t n = 0;
    while (n < l->length && l->text[n] != ' ')
        n++;
    return n;
}

/* Weights' scales: "name_param_0 s s s". */
static bool is_weights(const line *l)
{
    static const char PARAM[] = "_param_";
    size_t n = first_word(l), digits = 0;
    while (n > 0 && isdigit((unsigned char)l->text[n - 1])) {
        n--;
        digits++;
    }
    return digits > 0 && n >= sizeof(PARAM) - 1 &&
           memcmp(l->text + n - (sizeof(PARAM) - 1), PARAM, sizeof(PARAM) - 1) == 0;
}

/* "name 36.3": steps for 1 of a layer's input, of 127. Scales of weights are quench's to find. */
static bool add_ncnn(qn_range_table *t, const line *l)
{
    const size_t word = first_word(l);
    double scale;
    if (is_weights(l))
        return true;
    if (word >= l->length || !number(l->text + word + 1, l->length - word - 1, &scale) ||
        !(scale > 0))
        return false;
    return qn__range_table_add(t, l->text, word, -127 / scale, 127 / scale, true);
}

static bool has_weights(const char *at, const char *end)
{
    line l = {.number = 0};
    while (next_line(&at, end, &l))
        if (is_weights(&l))
            return true;
    return false;
}

static qn_status read_lines(qn_range_table *t, const char *at, const char *end, qn_error *error)
{
    line l = {.number = 0};
    bool (*add)(qn_range_table *, const line *) = add_onnxruntime;
    t->kind = "onnxruntime's calibration cache";
    if (end - at >= 4 && memcmp(at, "TRT-", 4) == 0) {
        (void)next_line(&at, end, &l);
        add = add_tensorrt;
        t->kind = "TensorRT's calibration cache";
    } else if (has_weights(at, end)) {
        add = add_ncnn;
        t->kind = "ncnn's table";
    }
    while (next_line(&at, end, &l))
        if (l.length > MAX_LINE * 64 || !add(t, &l))
            return bad_line(t, &l, error);
    return QN_OK;
}

qn_status qn__range_table_read(qn_range_table *t, const uint8_t *data, size_t bytes,
                               qn_error *error)
{
    const char *text = (const char *)data, *const end = text + bytes;
    const char *first = text;
    QN_FAIL_IF(bytes == 0, error, QN_CORRUPT, "%s: the table is empty", t->path);
    while (first < end && isspace((unsigned char)*first))
        first++;
    qn_status status;
    if (first < end && *first == '{')
        status = qn__range_table_json(t, text, bytes, error);
    else if (memchr(text, 0, bytes) != NULL)
        status = qn__range_table_fb(t, data, bytes, error);
    else
        status = read_lines(t, text, end, error);
    QN_FAIL_IF(status == QN_OK && t->count == 0, error, QN_CORRUPT, "%s: no ranges in %s", t->path,
               t->kind);
    return status;
}

/* --- the plan ----------------------------------------------------------------------------------*/
static const qn_tensor *find(const qn_graph *g, const qn_table_range *r)
{
    const qn_node *node = r->of_layer ? qn__graph_find_node(g, r->name) : NULL;
    if (node != NULL)
        return node->n_inputs > 0 ? node->inputs[0] : NULL;
    return qn__graph_find_tensor(g, r->name);
}

static qn_status apply(const qn_range_table *t, qn_quant_plan *plan, qn_error *error)
{
    size_t unknown = 0, used = 0;
    const char *first = NULL;
    uint8_t *given = qn__calloc(plan->graph->ctx, plan->graph->n_tensors, 1);
    if (given == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < t->count; i++) {
        const qn_table_range *r = &t->items[i];
        const qn_tensor *tensor = find(plan->graph, r);
        qn_tensor_plan *p = tensor == NULL ? NULL : &plan->tensors[tensor->id];
        if (p == NULL || (p->has_range && given[tensor->id] == 0)) { /* --set wins */
            first = p == NULL && unknown++ == 0 ? r->name : first;
            continue;
        }
        /* layers that read one tensor: the widest */
        const bool again = given[tensor->id] != 0;
        p->lo = again && p->lo < (float)r->lo ? p->lo : (float)r->lo;
        p->hi = again && p->hi > (float)r->hi ? p->hi : (float)r->hi;
        p->has_range = true;
        given[tensor->id] = 1;
        used++;
    }
    qn__free(plan->graph->ctx, given);
    QN_FAIL_IF(used == 0, error, QN_INVALID_ARGUMENT,
               "%s: none of the %zu names of %s is in the model, \"%s\" the first", t->path,
               t->count, t->kind, t->items[0].name);
    if (unknown > 0)
        qn__log(plan->graph->ctx, QN_LOG_WARNING,
                "%s: %zu of %zu names are not in the model, \"%s\" the first", t->path, unknown,
                t->count, first);
    return qn__quant_plan_note(plan, "%zu ranges from %s", used, t->kind) ? QN_OK : QN_NOMEM(error);
}

qn_status qn__quant_range_table(qn_quant_plan *plan, const char *path, qn_error *error)
{
    const qn_context *ctx = plan->graph->ctx;
    qn_file_view view;
    qn_arena arena;
    QN_TRY(qn__file_open(ctx, path, &view, error));
    qn__arena_init(&arena, ctx);
    qn_range_table t = {.path = path, .kind = "a calibration table", .arena = &arena};
    qn_status status = qn__range_table_read(&t, view.data, view.size_bytes, error);
    if (status == QN_OK)
        status = apply(&t, plan, error);
    qn__free(ctx, t.items);
    qn__arena_free(&arena);
    qn__file_close(ctx, &view);
    return status;
}
