/* Weights packed ahead of time for kernels, found again by what they were made from. An entry is
 * used only where the same bytes would have been packed: the weights are the very constant (by
 * address, which the source keeps alive), the layout is the one asked for, and the key covers all
 * else that went in. A graph that was changed since therefore just packs again. */
#ifndef QN_IR_PACKED_H
#define QN_IR_PACKED_H

#include "core/blob.h"

typedef struct qn_packed_entry {
    const void *weights; /* data of the constant's blob */
    uint64_t key;        /* everything but the weights' values (whoever packs computes it) */
    uint32_t layout;     /* packing id: kernel slot, its sizes and the version of the layout */
    uint32_t flags;      /* of whoever packs */
    const uint8_t *data; /* 64-byte aligned in the file, maybe not in memory */
    size_t bytes;
} qn_packed_entry;

typedef struct qn_packed_store {
    size_t count;
    const qn_packed_entry *entries; /* in rising order, no two alike */
} qn_packed_store;
/* By weights' address, layout, key. */
int qn__packed_order(const qn_packed_entry *a, const qn_packed_entry *b);

/* NULL: there is none (store may be NULL). */
const qn_packed_entry *qn__packed_find(const qn_packed_store *store, const void *weights,
                                       uint32_t layout, uint64_t key);
/* Whether there is any entry of these weights in this layout, whatever its key. */
bool qn__packed_known(const qn_packed_store *store, const void *weights, uint32_t layout);

#endif
