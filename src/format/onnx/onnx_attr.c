/* AttributeProto as the graph's attributes. */
#include <inttypes.h>
#include <string.h>

#include "core/context.h"
#include "format/onnx/onnx_source.h"

typedef struct attr_counts {
    size_t floats, ints, strings;
} attr_counts;

typedef struct list_writer {
    void *items;
    size_t count;
} list_writer;

static void put_float(void *arg, uint64_t bits)
{
    list_writer *l = arg;
    const uint32_t low = (uint32_t)bits;
    memcpy((float *)l->items + l->count++, &low, sizeof(low));
}

static void put_int(void *arg, uint64_t bits)
{
    list_writer *l = arg;
    ((int64_t *)l->items)[l->count++] = (int64_t)bits;
}

static qn_status count_lists(const qn_wire *w, const qn_field *f, attr_counts *n, qn_error *error)
{
    if (f->number == ATTR_FLOATS)
        return qn__wire_scalar_count(w, f, PB_WT_32BIT, &n->floats, error);
    if (f->number == ATTR_INTS)
        return qn__wire_scalar_count(w, f, PB_WT_VARINT, &n->ints, error);
    if (f->number == ATTR_STRINGS)
        n->strings++;
    return QN_OK;
}

static qn_status fill_lists(qn_arena *arena, qn_span body, const attr_counts *n, qn_attr *out,
                            qn_error *error)
{
    float *floats = qn__arena_calloc(arena, n->floats, sizeof(*floats));
    int64_t *ints = qn__arena_calloc(arena, n->ints, sizeof(*ints));
    const char **strings = qn__arena_calloc(arena, n->strings, sizeof(*strings));
    if (!floats || !ints || !strings)
        return QN_NOMEM(error);
    list_writer lf = {floats, 0}, li = {ints, 0};
    size_t n_strings = 0;
    qn_wire w = qn__wire_open(body, "AttributeProto", 0);
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(&w, &f, &more, error));
        if (!more)
            break;
        if (f.number == ATTR_FLOATS)
            QN_TRY(qn__wire_scalars(&w, &f, PB_WT_32BIT, put_float, &lf, error));
        else if (f.number == ATTR_INTS)
            QN_TRY(qn__wire_scalars(&w, &f, PB_WT_VARINT, put_int, &li, error));
        else if (f.number == ATTR_STRINGS)
            QN_TRY(qn__wire_string(&w, &f, arena, &strings[n_strings++], error));
    }
    /* One count for all: only the list of the attribute's kind is kept. */
    out->floats = out->kind == QN_ATTR_FLOATS ? floats : NULL;
    out->ints = out->kind == QN_ATTR_INTS ? ints : NULL;
    out->strings = out->kind == QN_ATTR_STRINGS ? strings : NULL;
    return QN_OK;
}

/* Files of IR version 1 and 2 have no type field; kinds follow from what is present. */
static qn_attr_kind kind_of(int64_t type, uint32_t seen, const attr_counts *n)
{
    switch (type) {
    case ATTR_TYPE_FLOAT:
        return QN_ATTR_FLOAT;
    case ATTR_TYPE_INT:
        return QN_ATTR_INT;
    case ATTR_TYPE_STRING:
        return QN_ATTR_STRING;
    case ATTR_TYPE_TENSOR:
        return QN_ATTR_TENSOR;
    case ATTR_TYPE_FLOATS:
        return QN_ATTR_FLOATS;
    case ATTR_TYPE_INTS:
        return QN_ATTR_INTS;
    case ATTR_TYPE_STRINGS:
        return QN_ATTR_STRINGS;
    case 0:
        if (n->ints)
            return QN_ATTR_INTS;
        if (n->floats)
            return QN_ATTR_FLOATS;
        if (n->strings)
            return QN_ATTR_STRINGS;
        if (seen >= ATTR_F && seen <= ATTR_T)
            return seen == ATTR_F   ? QN_ATTR_FLOAT
                   : seen == ATTR_I ? QN_ATTR_INT
                   : seen == ATTR_S ? QN_ATTR_STRING
                                    : QN_ATTR_TENSOR;
        return QN_ATTR_OPAQUE;
    default:
        return QN_ATTR_OPAQUE;
    }
}

static qn_status fill_tensor(qn_onnx_source *source, qn_arena *arena, qn_span body, qn_attr *out,
                             qn_error *error)
{
    qn_onnx_tensor tensor;
    QN_TRY(qn__onnx_read_tensor(source, arena, body, source->ctx->limits.nesting, &tensor, error));
    int64_t *dims = qn__arena_memdup(arena, tensor.dims, sizeof(tensor.dims));
    if (!dims) {
        qn__blob_unref(tensor.blob);
        return QN_NOMEM(error);
    }
    out->t = tensor.blob;
    out->t_dtype = tensor.dtype;
    out->t_rank = (uint8_t)tensor.rank;
    out->t_dims = dims;
    return QN_OK;
}

static qn_status read_fields(qn_arena *arena, qn_wire *w, qn_attr *attr, int64_t *type,
                             uint32_t *seen, qn_span *tensor, attr_counts *n, qn_error *error)
{
    qn_field f;
    for (bool more = true;;) {
        QN_TRY(qn__wire_next(w, &f, &more, error));
        if (!more)
            return QN_OK;
        QN_TRY(count_lists(w, &f, n, error));
        switch (f.number) {
        case ATTR_NAME:
            QN_TRY(qn__wire_string(w, &f, arena, &attr->name, error));
            continue;
        case ATTR_TYPE:
            QN_TRY(qn__wire_expect(w, &f, PB_WT_VARINT, error));
            *type = (int64_t)f.value;
            continue;
        case ATTR_F: {
            QN_TRY(qn__wire_expect(w, &f, PB_WT_32BIT, error));
            const uint32_t bits = (uint32_t)f.value;
            memcpy(&attr->f, &bits, sizeof(bits));
            break;
        }
        case ATTR_I:
            QN_TRY(qn__wire_expect(w, &f, PB_WT_VARINT, error));
            attr->i = (int64_t)f.value;
            break;
        case ATTR_S:
            QN_TRY(qn__wire_string(w, &f, arena, &attr->s, error));
            break;
        case ATTR_T:
            QN_TRY(qn__wire_expect(w, &f, PB_WT_STRING, error));
            *tensor = f.body;
            break;
        case ATTR_REF_ATTR_NAME:
            QN_FAIL(error, QN_CORRUPT, "attribute \"%s\" refers to a function's attribute",
                    attr->name);
        default:
            continue;
        }
        *seen = f.number;
    }
}

qn_status qn__onnx_read_attr(qn_onnx_source *source, qn_arena *arena, qn_span body, qn_attr *out,
                             qn_error *error)
{
    qn_attr attr = {.name = "", .s = ""};
    attr_counts n = {0};
    int64_t type = 0;
    uint32_t seen = 0;
    qn_span tensor = {body.data, 0};
    qn_wire w = qn__wire_open(body, "AttributeProto", source->ctx->limits.nesting);
    QN_TRY(read_fields(arena, &w, &attr, &type, &seen, &tensor, &n, error));
    QN_FAIL_IF(attr.name[0] == '\0', error, QN_CORRUPT, "an attribute has no name");
    attr.kind = kind_of(type, seen, &n);
    QN_TRY(fill_lists(arena, body, &n, &attr, error));
    attr.count = attr.kind == QN_ATTR_FLOATS    ? n.floats
                 : attr.kind == QN_ATTR_INTS    ? n.ints
                 : attr.kind == QN_ATTR_STRINGS ? n.strings
                                                : 0;
    if (attr.kind == QN_ATTR_TENSOR) {
        const qn_status status = fill_tensor(source, arena, tensor, &attr, error);
        if (status != QN_OK)
            return qn__error_prefix(error, status, "attribute \"%s\"", attr.name);
    }
    *out = attr;
    return QN_OK;
}
