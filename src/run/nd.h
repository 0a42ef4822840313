/* Moving elements of N-dimensional arrays: layouts, strided copies, gathers by index tables, and
 * splitting of loops over threads. Knows dims and bytes, not operators. */
#ifndef QN_RUN_ND_H
#define QN_RUN_ND_H

#include "core/threads.h"
#include "run/run.h"

#include <string.h>

/* Axis order in memory: order[i] is the graph axis at memory position i. */
void qn__layout_order(size_t rank, qn_layout layout, size_t order[QN_MAX_RANK]);
/* Position in memory order of graph axis `axis`. */
size_t qn__layout_position(size_t rank, qn_layout layout, size_t axis);
/* Dims in memory order. */
void qn__layout_dims(size_t rank, const int64_t *dims, qn_layout layout, int64_t out[QN_MAX_RANK]);
/* Element strides by graph axis. */
void qn__layout_strides(size_t rank, const int64_t *dims, qn_layout layout,
                        int64_t out[QN_MAX_RANK]);
/* Both layouts are the same bytes (at most one of channels and positions is above 1). */
bool qn__layout_trivial(size_t rank, const int64_t *dims);

/* A layout seen around one axis: data[outer][axis][inner]. */
typedef struct qn_axis_view {
    size_t outer, axis, inner;
} qn_axis_view;
qn_axis_view qn__axis_view(size_t rank, const int64_t *dims, qn_layout layout, size_t axis);

/* dst[i0][i1]... (dense) = src[i0 * stride0 + i1 * stride1 + ...], elements of 1, 2, 4 or 8 bytes.
 */
void qn__strided_copy(qn_pool *pool, void *dst, const void *src, size_t rank, const int64_t *dims,
                      const int64_t *strides, size_t elem_bytes);
/* The same values in another layout. */
void qn__convert_layout(qn_pool *pool, void *dst, qn_layout dst_layout, const void *src,
                        qn_layout src_layout, size_t rank, const int64_t *dims, size_t elem_bytes);

/* dst[i0][i1]... (dense) = src[sum of maps[k][ik]], or fill where any map holds a negative entry.
 * Entries are element offsets. Prepared once; running allocates nothing. */
typedef struct qn_gather {
    size_t rank;
    int64_t dims[QN_MAX_RANK];
    int64_t *maps[QN_MAX_RANK];
    size_t elem_bytes;
    size_t block;  /* elements moved together below the last mapped axis */
    size_t n_runs; /* of the last mapped axis: runs[2 * i] is where a run begins, or negative, and
                      runs[2 * i + 1] how many blocks it has */
    int64_t *runs;
    bool has_fill;    /* one of them is negative */
    uint8_t fill[16]; /* as many elements as fit */
    int64_t *storage;
} qn_gather;
/* maps[k] of dims[k] entries each, for memory axes; trailing axes that are copied whole become
 * blocks. Tables are copied. */
qn_status qn__gather_create(const qn_context *ctx, qn_gather *gather, size_t rank,
                            const int64_t *dims, const int64_t *const *maps, size_t elem_bytes,
                            const void *fill, qn_error *error);
void qn__gather_free(const qn_context *ctx, qn_gather *gather);
void qn__gather_run(qn_pool *pool, const qn_gather *gather, void *dst, const void *src);

/* memcpy without a call for what is about as long as an element. */
static inline void qn_copy_short(void *to, const void *from, size_t bytes)
{
    if (bytes == 1)
        memcpy(to, from, 1);
    else if (bytes == 4)
        memcpy(to, from, 4);
    else if (bytes == 8)
        memcpy(to, from, 8);
    else if (bytes == 16)
        memcpy(to, from, 16);
    else
        memcpy(to, from, bytes);
}

/* Calls fn(arg, begin, end) over [0, count) in pieces; `cost` is bytes touched per item: small
 * loops stay in the caller. */
typedef void (*qn_range_fn)(void *arg, size_t begin, size_t end);
void qn__parallel_ranges(qn_pool *pool, qn_range_fn fn, void *arg, size_t count, size_t cost);

#endif
