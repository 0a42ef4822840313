/* Packing weights when a model is written, for machines that need not be this one. */
#ifndef QN_RUN_PACKING_H
#define QN_RUN_PACKING_H

#include "ir/packed.h"
#include "run/run.h"

/* Copies of packed weights, no two alike. */
typedef struct qn_packed_list {
    const qn_context *ctx;
    size_t count, capacity;
    qn_packed_entry *entries; /* data: own, 64-byte aligned */
} qn_packed_list;
bool qn__packed_list_add(qn_packed_list *list, const qn_packed_entry *entry);
void qn__packed_list_free(qn_packed_list *list);

/* Packs the weights of a graph whose shapes are static for every instruction set in a
 * list of names separated by commas (those of --cpu-mask, dotprod, and "native": this machine's).
 * INVALID_ARGUMENT: unknown name. */
qn_status qn__graph_pack(const qn_graph *graph, const char *names, qn_packed_list *out,
                         qn_error *error);

#endif
