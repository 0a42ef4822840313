/* Finding packed weights: entries are in the order of qn__packed_order. */
#include "ir/packed.h"

int qn__packed_order(const qn_packed_entry *a, const qn_packed_entry *b)
{
    const uintptr_t wa = (uintptr_t)a->weights, wb = (uintptr_t)b->weights;
    if (wa != wb)
        return wa < wb ? -1 : 1;
    if (a->layout != b->layout)
        return a->layout < b->layout ? -1 : 1;
    return a->key < b->key ? -1 : a->key > b->key;
}

/* First entry that is not before the wanted one; count when all are. */
static size_t lower_bound(const qn_packed_store *store, const qn_packed_entry *wanted)
{
    size_t begin = 0, end = store != NULL ? store->count : 0;
    while (begin < end) {
        const size_t middle = begin + (end - begin) / 2;
        if (qn__packed_order(&store->entries[middle], wanted) < 0)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

const qn_packed_entry *qn__packed_find(const qn_packed_store *store, const void *weights,
                                       uint32_t layout, uint64_t key)
{
    const qn_packed_entry wanted = {.weights = weights, .layout = layout, .key = key};
    const size_t at = lower_bound(store, &wanted);
    const bool found =
        store != NULL && at < store->count && qn__packed_order(&store->entries[at], &wanted) == 0;
    return found ? &store->entries[at] : NULL;
}

bool qn__packed_known(const qn_packed_store *store, const void *weights, uint32_t layout)
{
    const qn_packed_entry wanted = {.weights = weights, .layout = layout};
    const size_t at = lower_bound(store, &wanted);
    return store != NULL && at < store->count && store->entries[at].weights == weights &&
           store->entries[at].layout == layout;
}
