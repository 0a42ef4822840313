/* Parts of the reader. */
#ifndef QN_FORMAT_QNM_READ_H
#define QN_FORMAT_QNM_READ_H

#include "format/qnm/qnm.h"
#include "format/qnm/qnm_wire.h"

typedef struct qn_qnm_range {
    size_t offset, bytes; /* in the file */
} qn_qnm_range;

/* What the header says. A section that is not there has no bytes. */
typedef struct qn_qnm_layout {
    qn_qnm_range graph, data, packed;
} qn_qnm_layout;

/* Reads the graph section into graph, whose ctx and file are set. */
qn_status qn__qnm_read_graph(qn_graph *graph, qn_blob *bytes, const qn_qnm_layout *layout,
                             qn_error *error);

#endif
