/* Arena planner: the largest first, each into the tightest gap between those that live at the same
 * time. Where that leaves holes, in the order of time, and the smaller arena counts. */
#include "run/plan.h"

#include <stdlib.h>

#define ALIGNMENT 64

typedef struct by_size {
    size_t bytes;
    uint32_t first;
    uint32_t index;
    size_t offset; /* of the best placement so far */
} by_size;

static int compare_size(const void *a, const void *b)
{
    const by_size *const x = a, *const y = b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int compare_time(const void *a, const void *b)
{
    const by_size *const x = a, *const y = b;
    return x->first != y->first ? (x->first < y->first ? -1 : 1) : compare_size(a, b);
}

/* Inserts index into placed[0..n), which is sorted by offset. */
static void insert_by_offset(const qn_mem_item *items, uint32_t *placed, size_t n, uint32_t index)
{
    size_t at = n;
    while (at > 0 && items[placed[at - 1]].offset > items[index].offset) {
        placed[at] = placed[at - 1];
        at--;
    }
    placed[at] = index;
}

static bool place(qn_mem_item *items, const uint32_t *placed, size_t n, uint32_t index,
                  size_t bytes)
{
    const qn_mem_item *const item = &items[index];
    size_t best = SIZE_MAX, best_gap = SIZE_MAX, end = 0;
    for (size_t i = 0; i < n; i++) {
        const qn_mem_item *const other = &items[placed[i]];
        if (other->last < item->first || other->first > item->last)
            continue;
        if (other->offset > end) {
            const size_t gap = other->offset - end;
            if (gap >= bytes && gap < best_gap) {
                best_gap = gap;
                best = end;
            }
        }
        size_t size, other_end;
        if (!qn_align_size(&size, other->bytes, ALIGNMENT) ||
            !qn_add_size(&other_end, other->offset, size))
            return false;
        if (other_end > end)
            end = other_end;
    }
    items[index].offset = best != SIZE_MAX ? best : end;
    return true;
}

size_t qn__memory_bound(const qn_mem_item *items, size_t count, uint64_t *change, size_t times)
{
    uint64_t live = 0, most = 0;
    for (size_t t = 0; t < times; t++)
        change[t] = 0;
    for (size_t i = 0; i < count; i++) {
        change[items[i].first] += items[i].bytes;
        change[items[i].last + 1] -= items[i].bytes;
    }
    for (size_t t = 0; t < times; t++) {
        live += change[t];
        most = live > most ? live : most;
    }
    return (size_t)most;
}

/* Places items in this order. False: more than can be addressed. */
static bool place_all(qn_mem_item *items, const by_size *order, uint32_t *placed, size_t count,
                      size_t *total)
{
    *total = 0;
    for (size_t i = 0; i < count; i++) {
        const uint32_t index = order[i].index;
        size_t bytes, end;
        if (!qn_align_size(&bytes, items[index].bytes, ALIGNMENT) ||
            !place(items, placed, i, index, bytes) ||
            !qn_add_size(&end, items[index].offset, bytes))
            return false;
        insert_by_offset(items, placed, i, index);
        *total = end > *total ? end : *total;
    }
    return true;
}

qn_status qn__memory_plan(const qn_context *ctx, qn_mem_item *items, size_t count, size_t bound,
                          size_t *total_bytes, qn_error *error)
{
    by_size *const order = qn__calloc(ctx, count + 1, sizeof(*order));
    uint32_t *const placed = qn__calloc(ctx, count + 1, sizeof(*placed));
    qn_status status = QN_OK;
    size_t total;
    if (order == NULL || placed == NULL) {
        status = QN_NOMEM(error);
        goto done;
    }
    for (size_t i = 0; i < count; i++)
        order[i] = (by_size){items[i].bytes, items[i].first, (uint32_t)i, 0};
    qsort(order, count, sizeof(*order), compare_size);
    if (!place_all(items, order, placed, count, total_bytes))
        QN_FAIL_GOTO(error, QN_LIMIT, "activations need more memory than can be addressed");
    if (*total_bytes <= bound + bound / ALIGNMENT) /* what rounding up may take is no hole */
        goto done;
    for (size_t i = 0; i < count; i++)
        order[i].offset = items[order[i].index].offset;
    qsort(order, count, sizeof(*order), compare_time);
    if (place_all(items, order, placed, count, &total) && total < *total_bytes)
        *total_bytes = total;
    else
        for (size_t i = 0; i < count; i++)
            items[order[i].index].offset = order[i].offset;
done:
    qn__free(ctx, order);
    qn__free(ctx, placed);
    return status;
}
