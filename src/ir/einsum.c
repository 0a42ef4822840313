/* Einsum: its equation, and the shape of its output. */
#include "ir/einsum.h"

#include <string.h>

#include "ir/infer_util.h"

enum { ELLIPSIS = 52 }; /* labels 52.. are the axes of "...", last one first */

typedef struct parser {
    int64_t sizes[QN_EINSUM_LABELS]; /* -1: not seen */
    int order[QN_EINSUM_LABELS];     /* position among the result's labels, -1: none */
    size_t uses[QN_EINSUM_LABELS];
    int64_t strides[QN_EINSUM_INPUTS][QN_EINSUM_LABELS];
    size_t ellipsis; /* axes of "..." */
} parser;

static int letter(char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : -1;
}

static bool add_axis(parser *p, size_t input, int label, int64_t size, int64_t stride)
{
    int64_t *const known = &p->sizes[label];
    if (*known < 0 || *known == 1)
        *known = size;
    if (size != *known && size != 1)
        return false;
    /* An axis of one element is repeated. */
    return size == 1 ||
           !__builtin_add_overflow(p->strides[input][label], stride, &p->strides[input][label]);
}

/* One operand's labels; *text is left at the comma, arrow or end. */
static const char *read_operand(parser *p, const char **text, size_t input, const qn_tensor *t)
{
    const char *s = *text;
    int64_t strides[QN_MAX_RANK];
    int64_t stride = 1;
    size_t letters = 0, axis = 0;
    bool dots = false;
    for (const char *c = s; *c != '\0' && *c != ',' && *c != '-'; c++)
        letters += letter(*c) >= 0;
    if (letters > t->rank)
        return "more letters than axes";
    for (size_t i = t->rank; i-- > 0;) {
        strides[i] = stride;
        if (__builtin_mul_overflow(stride, t->dims[i].value, &stride))
            return "an input is too large";
    }
    const size_t rest = t->rank - letters;
    while (*s != '\0' && *s != ',' && *s != '-') {
        if (*s == ' ') {
            s++;
        } else if (strncmp(s, "...", 3) == 0 && !dots) {
            dots = true;
            for (size_t i = 0; i < rest; i++, axis++)
                if (!add_axis(p, input, ELLIPSIS + (int)(rest - 1 - i), t->dims[axis].value,
                              strides[axis]))
                    return "sizes of \"...\" do not fit";
            p->ellipsis = rest > p->ellipsis ? rest : p->ellipsis;
            s += 3;
        } else if (letter(*s) >= 0) {
            if (!add_axis(p, input, letter(*s), t->dims[axis].value, strides[axis]))
                return "sizes of a letter do not fit";
            p->uses[letter(*s)]++;
            axis++;
            s++;
        } else {
            return "cannot be read";
        }
    }
    if (axis != t->rank)
        return "fewer letters than axes";
    *text = s;
    return NULL;
}

static const char *read_result(parser *p, const char *s, int *n_out)
{
    bool dots = false;
    for (; *s != '\0';) {
        const int label = letter(*s);
        if (*s == ' ') {
            s++;
        } else if (strncmp(s, "...", 3) == 0 && !dots) {
            dots = true;
            for (size_t i = p->ellipsis; i-- > 0;)
                p->order[ELLIPSIS + i] = (*n_out)++;
            s += 3;
        } else if (label >= 0 && p->sizes[label] >= 0 && p->order[label] < 0) {
            p->order[label] = (*n_out)++;
            s++;
        } else {
            return "its result cannot be read";
        }
    }
    return NULL;
}

bool qn__einsum_read(qn_einsum *e, const char *equation, const qn_tensor *const *inputs,
                     size_t n_inputs, const char **reason)
{
    parser p;
    int n_out = 0;
    memset(&p, 0, sizeof(p));
    memset(e, 0, sizeof(*e));
    for (size_t i = 0; i < QN_EINSUM_LABELS; i++)
        p.sizes[i] = p.order[i] = -1;
    const char *s = equation;
    *reason = n_inputs == 0 || n_inputs > QN_EINSUM_INPUTS ? "needs 1 to 8 inputs" : NULL;
    for (size_t i = 0; i < n_inputs && *reason == NULL; i++) {
        *reason = read_operand(&p, &s, i, inputs[i]);
        if (*reason == NULL && i + 1 < n_inputs && *s++ != ',')
            *reason = "has fewer operands than inputs";
    }
    if (*reason == NULL && strncmp(s, "->", 2) == 0)
        *reason = read_result(&p, s + 2, &n_out);
    else if (*reason == NULL && *s != '\0')
        *reason = "cannot be read";
    else if (*reason ==
             NULL) { /* no result: "...", then letters met once, in the alphabet's order */
        for (size_t i = p.ellipsis; i-- > 0;)
            p.order[ELLIPSIS + i] = n_out++;
        for (int i = 0; i < ELLIPSIS; i++)
            if (p.uses[i] == 1)
                p.order[i] = n_out++;
    }
    if (*reason == NULL && n_out > QN_MAX_RANK)
        *reason = "its result has too many axes";
    if (*reason != NULL)
        return false;
    size_t summed = (size_t)n_out;
    e->n_inputs = n_inputs;
    e->n_out = (size_t)n_out;
    for (size_t i = 0; i < QN_EINSUM_LABELS; i++) {
        if (p.sizes[i] < 0)
            continue;
        const size_t at = p.order[i] >= 0 ? (size_t)p.order[i] : summed++;
        e->dims[at] = p.sizes[i];
        for (size_t k = 0; k < n_inputs; k++)
            e->strides[k][at] = p.strides[k][i];
    }
    e->n_labels = summed;
    return true;
}

qn_status qn__infer_einsum(qn_infer *in, qn_error *error)
{
    const qn_node *const node = in->node;
    const char *const equation = qn__attr_string(node, "equation", "");
    const char *reason;
    qn_einsum e;
    int64_t dims[QN_MAX_RANK];
    for (uint32_t i = 0; i < node->n_inputs; i++)
        QN_TRY(qn__infer_need(in, i, error));
    QN_TRY(qn__infer_need(in, 0, error));
    qn__infer_dtype_like(in, 0, node->inputs[0]);
    for (uint32_t i = 0; i < node->n_inputs; i++)
        if (!node->inputs[i]->has_shape || !qn__tensor_static_dims(node->inputs[i], dims))
            return QN_OK;
    QN_INFER_CHECK(in, error,
                   qn__einsum_read(&e, equation, (const qn_tensor *const *)node->inputs,
                                   node->n_inputs, &reason),
                   "\"equation\" is \"%.200s\": %s", equation, reason);
    qn_dim out[QN_MAX_RANK];
    for (size_t i = 0; i < e.n_out; i++)
        out[i] = qn_dim_const(e.dims[i]);
    return qn__infer_shape_set(in, 0, e.n_out, out, error);
}
