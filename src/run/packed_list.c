/* Copies of packed weights, gathered while planning. */
#include "run/packing.h"

#include <string.h>

bool qn__packed_list_add(qn_packed_list *list, const qn_packed_entry *entry)
{
    for (size_t i = 0; i < list->count; i++) /* instruction sets may share a form */
        if (qn__packed_order(&list->entries[i], entry) == 0)
            return true;
    uint8_t *const copy = qn__alloc_aligned(list->ctx, entry->bytes);
    if (copy == NULL || !QN_GROW(list->ctx, &list->entries, &list->capacity, list->count)) {
        qn__free_aligned(list->ctx, copy);
        return false;
    }
    memcpy(copy, entry->data, entry->bytes);
    list->entries[list->count] = *entry;
    list->entries[list->count++].data = copy;
    return true;
}

void qn__packed_list_free(qn_packed_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        qn__free_aligned(list->ctx, (void *)list->entries[i].data);
    qn__free(list->ctx, list->entries);
    *list = (qn_packed_list){.ctx = list->ctx};
}
