/* Writes any model file as a compact one, for tests of the runtime. */
#ifndef QN_TESTS_RT_COMPACT_H
#define QN_TESTS_RT_COMPACT_H

#include "format/format.h"
#include "format/qnm/qnm.h"
#include "quant/model.h"
#include "run/run.h"

static inline qn_status compact_write(const qn_graph *graph, const char *path, qn_error *error)
{
    qn_graph *simple = NULL, *bound = NULL;
    qn_status status = qn__model_simplified(graph, &simple, error);
    if (status == QN_OK)
        status = qn__graph_bound(simple, NULL, 1, &bound, error);
    if (status == QN_OK)
        status = qn__graph_resolve(bound, (size_t)1 << 28, error);
    if (status == QN_OK)
        status = qn__qnm_write(bound, NULL, path, NULL, error);
    qn__graph_destroy(simple);
    qn__graph_destroy(bound);
    return status;
}

#endif
