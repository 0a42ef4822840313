/* Parts of the writer. */
#ifndef QN_FORMAT_QNM_WRITE_H
#define QN_FORMAT_QNM_WRITE_H

#include "core/strbuf.h"
#include "format/qnm/qnm.h"
#include "format/qnm/qnm_wire.h"

/* Constants of the data section, each stored once however many tensors share it. */
typedef struct qn_qnm_constant {
    const qn_blob *blob;
    size_t element; /* bytes whose order is the host's */
    size_t offset;  /* in the section; SIZE_MAX: not placed yet */
} qn_qnm_constant;

typedef struct qn_qnm_constants {
    size_t count, capacity;
    qn_qnm_constant *items;  /* by address of their data */
    qn_qnm_constant **order; /* in the order of the file */
    size_t n_placed, bytes;
} qn_qnm_constants;

/* Collects the constants that the graph uses. */
qn_status qn__qnm_constants_collect(const qn_graph *graph, qn_qnm_constants *out, qn_error *error);
void qn__qnm_constants_free(const qn_context *ctx, qn_qnm_constants *constants);
/* Place of a blob, given now if it has none. */
size_t qn__qnm_constant_place(qn_qnm_constants *constants, const qn_blob *blob, size_t element);
/* The same for data by address; SIZE_MAX: no constant of the file. */
size_t qn__qnm_constant_find(const qn_qnm_constants *constants, const void *data);

/* The graph section; places constants. */
qn_status qn__qnm_write_graph(const qn_graph *graph, bool strip_names, qn_qnm_constants *constants,
                              qn_strbuf *out, qn_error *error);

static inline void qn_qnm_append(qn_strbuf *out, uint64_t value, size_t bytes)
{
    uint8_t data[8];
    qn_qnm_put(data, value, bytes);
    qn__strbuf_append(out, data, bytes);
}

#endif
