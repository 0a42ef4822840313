/* Finding packed weights. Files have at most some hundreds of entries. */
#include "ir/packed.h"

const qn_packed_entry *qn__packed_find(const qn_packed_store *store, const void *weights,
                                       uint32_t layout, uint64_t key)
{
    for (size_t i = 0; store != NULL && i < store->count; i++) {
        const qn_packed_entry *const e = &store->entries[i];
        if (e->weights == weights && e->layout == layout && e->key == key)
            return e;
    }
    return NULL;
}

bool qn__packed_known(const qn_packed_store *store, const void *weights, uint32_t layout)
{
    for (size_t i = 0; store != NULL && i < store->count; i++)
        if (store->entries[i].weights == weights && store->entries[i].layout == layout)
            return true;
    return false;
}
