/* Strided copies, gathers by index tables and loop splitting. */
#include "run/nd.h"

#include <string.h>

__attribute__((cold)) void qn__layout_order(size_t rank, qn_layout layout,
                                            size_t order[QN_MAX_RANK])
{
    for (size_t i = 0; i < rank; i++)
        order[i] = i;
    if (layout == QN_LAYOUT_ROW_MAJOR || rank < 3)
        return;
    for (size_t i = 1; i + 1 < rank; i++)
        order[i] = i + 1;
    order[rank - 1] = 1;
}

__attribute__((cold)) size_t qn__layout_position(size_t rank, qn_layout layout, size_t axis)
{
    if (layout == QN_LAYOUT_ROW_MAJOR || rank < 3 || axis == 0)
        return axis;
    return axis == 1 ? rank - 1 : axis - 1;
}

__attribute__((cold)) void qn__layout_dims(size_t rank, const int64_t *dims, qn_layout layout,
                                           int64_t out[QN_MAX_RANK])
{
    size_t order[QN_MAX_RANK];
    qn__layout_order(rank, layout, order);
    for (size_t i = 0; i < rank; i++)
        out[i] = dims[order[i]];
}

__attribute__((cold)) void qn__layout_strides(size_t rank, const int64_t *dims, qn_layout layout,
                                              int64_t out[QN_MAX_RANK])
{
    size_t order[QN_MAX_RANK];
    qn__layout_order(rank, layout, order);
    int64_t stride = 1;
    for (size_t i = rank; i-- > 0;) {
        out[order[i]] = stride;
        stride *= dims[order[i]];
    }
}

__attribute__((cold)) bool qn__layout_trivial(size_t rank, const int64_t *dims)
{
    if (rank < 3 || dims[1] == 1)
        return true;
    for (size_t i = 2; i < rank; i++)
        if (dims[i] != 1)
            return false;
    return true;
}

__attribute__((cold)) qn_axis_view qn__axis_view(size_t rank, const int64_t *dims, qn_layout layout,
                                                 size_t axis)
{
    int64_t memory[QN_MAX_RANK] = {0};
    qn__layout_dims(rank, dims, layout, memory);
    const size_t position = qn__layout_position(rank, layout, axis);
    qn_axis_view view = {1, (size_t)memory[position], 1};
    for (size_t i = 0; i < position; i++)
        view.outer *= (size_t)memory[i];
    for (size_t i = position + 1; i < rank; i++)
        view.inner *= (size_t)memory[i];
    return view;
}

/* --- splitting ------------------------------------------------------------------------------- */
#define PIECE_BYTES ((size_t)64 * 1024) /* below this a piece costs more to hand out than to do */

typedef struct ranges_job {
    qn_range_fn fn;
    void *arg;
    size_t count, piece;
} ranges_job;

static void ranges_task(void *arg, size_t index)
{
    const ranges_job *const job = arg;
    const size_t begin = index * job->piece;
    const size_t end = job->count - begin < job->piece ? job->count : begin + job->piece;
    job->fn(job->arg, begin, end);
}

void qn__parallel_ranges(qn_pool *pool, qn_range_fn fn, void *arg, size_t count, size_t cost)
{
    if (count == 0)
        return;
    const size_t threads = qn__pool_size(pool);
    size_t least = PIECE_BYTES / (cost == 0 ? 1 : cost);
    least = least == 0 ? 1 : least;
    if (threads < 2 || count <= least) {
        fn(arg, 0, count);
        return;
    }
    size_t piece = (count + threads * 4 - 1) / (threads * 4);
    piece = piece < least ? least : piece;
    ranges_job job = {fn, arg, count, piece};
    qn__parallel(pool, ranges_task, &job, (count + piece - 1) / piece);
}

/* --- strided copy ---------------------------------------------------------------------------- */
typedef struct copy_job {
    uint8_t *dst;
    const uint8_t *src;
    size_t rank; /* dims after merging; the last one (and `tile_axis`) are the inner loops */
    int64_t dims[QN_MAX_RANK], strides[QN_MAX_RANK], dst_strides[QN_MAX_RANK];
    size_t elem_bytes;
    size_t n_outer; /* leading axes walked by the index given to a task */
} copy_job;

/* Removes axes of one element and joins neighbours that are one run in both arrays. */
static __attribute__((cold)) size_t merge_axes(size_t rank, const int64_t *dims,
                                               const int64_t *strides, int64_t *out_dims,
                                               int64_t *out_strides)
{
    size_t n = 0;
    for (size_t i = 0; i < rank; i++) {
        if (dims[i] == 1)
            continue;
        if (n > 0 && out_strides[n - 1] == strides[i] * dims[i]) {
            out_dims[n - 1] *= dims[i];
            out_strides[n - 1] = strides[i];
        } else {
            out_dims[n] = dims[i];
            out_strides[n++] = strides[i];
        }
    }
    if (n == 0) {
        out_dims[0] = 1;
        out_strides[0] = 1;
        n = 1;
    }
    return n;
}

static void outer_offsets(const copy_job *job, size_t index, ptrdiff_t *src, ptrdiff_t *dst)
{
    ptrdiff_t s = 0, d = 0;
    for (size_t i = job->n_outer; i-- > 0;) {
        const size_t dim = (size_t)job->dims[i];
        const ptrdiff_t at = (ptrdiff_t)(index % dim);
        index /= dim;
        s += at * job->strides[i];
        d += at * job->dst_strides[i];
    }
    *src = s;
    *dst = d;
}

#define DEFINE_ROW(bits)                                                                           \
    static void row_##bits(uint8_t *dst8, const uint8_t *src8, ptrdiff_t stride, size_t n)         \
    {                                                                                              \
        uint##bits##_t *restrict dst = (uint##bits##_t *)(void *)dst8;                             \
        const uint##bits##_t *restrict src = (const uint##bits##_t *)(const void *)src8;           \
        for (size_t i = 0; i < n; i++)                                                             \
            dst[i] = src[(ptrdiff_t)i * stride];                                                   \
    }
DEFINE_ROW(8)
DEFINE_ROW(16)
DEFINE_ROW(32)
DEFINE_ROW(64)

static void copy_rows(void *arg, size_t begin, size_t end)
{
    const copy_job *const job = arg;
    const size_t n = (size_t)job->dims[job->rank - 1];
    const ptrdiff_t stride = (ptrdiff_t)job->strides[job->rank - 1];
    const size_t e = job->elem_bytes;
    for (size_t index = begin; index < end; index++) {
        ptrdiff_t s, d;
        outer_offsets(job, index, &s, &d);
        uint8_t *const dst = job->dst + d * (ptrdiff_t)e;
        const uint8_t *const src = job->src + s * (ptrdiff_t)e;
        if (stride == 1)
            memcpy(dst, src, n * e);
        else if (e == 1)
            row_8(dst, src, stride, n);
        else if (e == 2)
            row_16(dst, src, stride, n);
        else if (e == 4)
            row_32(dst, src, stride, n);
        else
            row_64(dst, src, stride, n);
    }
}

/* dst[r][c] = src[c][r] for a rows x cols part; strides in elements between dst rows and between
 * src rows. The vector type is GCC's generic one: 4 x 4 blocks become shuffles on every ISA. */
typedef uint32_t u32x4 __attribute__((vector_size(16), aligned(4), may_alias));
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (u32x4){__VA_ARGS__})
#endif

static void transpose_32(uint8_t *dst8, const uint8_t *src8, size_t rows, size_t cols,
                         ptrdiff_t dst_stride, ptrdiff_t src_stride)
{
    uint32_t *const dst = (uint32_t *)(void *)dst8;
    const uint32_t *const src = (const uint32_t *)(const void *)src8;
    size_t c = 0;
    for (; c + 4 <= cols; c += 4) {
        size_t r = 0;
        for (; r + 4 <= rows; r += 4) {
            const uint32_t *const s = src + (ptrdiff_t)c * src_stride + (ptrdiff_t)r;
            uint32_t *const d = dst + (ptrdiff_t)r * dst_stride + (ptrdiff_t)c;
            const u32x4 a = *(const u32x4 *)(const void *)s;
            const u32x4 b = *(const u32x4 *)(const void *)(s + src_stride);
            const u32x4 e = *(const u32x4 *)(const void *)(s + 2 * src_stride);
            const u32x4 f = *(const u32x4 *)(const void *)(s + 3 * src_stride);
            const u32x4 ab0 = SHUFFLE(a, b, 0, 4, 1, 5);
            const u32x4 ab1 = SHUFFLE(a, b, 2, 6, 3, 7);
            const u32x4 ef0 = SHUFFLE(e, f, 0, 4, 1, 5);
            const u32x4 ef1 = SHUFFLE(e, f, 2, 6, 3, 7);
            *(u32x4 *)(void *)d = SHUFFLE(ab0, ef0, 0, 1, 4, 5);
            *(u32x4 *)(void *)(d + dst_stride) = SHUFFLE(ab0, ef0, 2, 3, 6, 7);
            *(u32x4 *)(void *)(d + 2 * dst_stride) = SHUFFLE(ab1, ef1, 0, 1, 4, 5);
            *(u32x4 *)(void *)(d + 3 * dst_stride) = SHUFFLE(ab1, ef1, 2, 3, 6, 7);
        }
        for (; r < rows; r++)
            for (size_t j = c; j < c + 4; j++)
                dst[(ptrdiff_t)r * dst_stride + (ptrdiff_t)j] =
                    src[(ptrdiff_t)j * src_stride + (ptrdiff_t)r];
    }
    for (; c < cols; c++)
        for (size_t r = 0; r < rows; r++)
            dst[(ptrdiff_t)r * dst_stride + (ptrdiff_t)c] =
                src[(ptrdiff_t)c * src_stride + (ptrdiff_t)r];
}

/* 16 x 16 bytes: interleaving the first half of the rows with the second, four times over. */
typedef uint8_t u8x16 __attribute__((vector_size(16), aligned(1), may_alias));
#ifdef __clang__
#define SHUFFLE_8(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE_8(a, b, ...) __builtin_shuffle(a, b, (u8x16){__VA_ARGS__})
#endif

static void interleave_rows(const u8x16 in[16], u8x16 out[16])
{
    for (size_t i = 0; i < 8; i++) {
        out[2 * i] =
            SHUFFLE_8(in[i], in[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        out[2 * i + 1] = SHUFFLE_8(in[i], in[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
                                   14, 30, 15, 31);
    }
}

static void transpose_16x16(uint8_t *dst, const uint8_t *src, ptrdiff_t dst_stride,
                            ptrdiff_t src_stride)
{
    u8x16 a[16], b[16];
    for (ptrdiff_t i = 0; i < 16; i++)
        a[i] = *(const u8x16 *)(src + i * src_stride);
    interleave_rows(a, b);
    interleave_rows(b, a);
    interleave_rows(a, b);
    interleave_rows(b, a);
    for (ptrdiff_t i = 0; i < 16; i++)
        *(u8x16 *)(dst + i * dst_stride) = a[i];
}

#define DEFINE_TRANSPOSE(bits)                                                                     \
    static void transpose_##bits(uint8_t *dst8, const uint8_t *src8, size_t rows, size_t cols,     \
                                 ptrdiff_t dst_stride, ptrdiff_t src_stride)                       \
    {                                                                                              \
        uint##bits##_t *const dst = (uint##bits##_t *)(void *)dst8;                                \
        const uint##bits##_t *const src = (const uint##bits##_t *)(const void *)src8;              \
        for (size_t r0 = 0; r0 < rows; r0 += 16) {                                                 \
            const size_t r1 = rows - r0 < 16 ? rows : r0 + 16;                                     \
            for (size_t c = 0; c < cols; c++)                                                      \
                for (size_t r = r0; r < r1; r++)                                                   \
                    dst[(ptrdiff_t)r * dst_stride + (ptrdiff_t)c] =                                \
                        src[(ptrdiff_t)c * src_stride + (ptrdiff_t)r];                             \
        }                                                                                          \
    }
DEFINE_TRANSPOSE(8)
DEFINE_TRANSPOSE(16)
DEFINE_TRANSPOSE(64)

static void transpose_bytes(uint8_t *dst, const uint8_t *src, size_t rows, size_t cols,
                            ptrdiff_t dst_stride, ptrdiff_t src_stride)
{
    const size_t whole_rows = rows / 16 * 16, whole_cols = cols / 16 * 16;
    for (size_t c = 0; c < whole_cols; c += 16)
        for (size_t r = 0; r < whole_rows; r += 16)
            transpose_16x16(dst + (ptrdiff_t)r * dst_stride + (ptrdiff_t)c,
                            src + (ptrdiff_t)c * src_stride + (ptrdiff_t)r, dst_stride, src_stride);
    if (whole_cols < cols)
        transpose_8(dst + whole_cols, src + (ptrdiff_t)whole_cols * src_stride, whole_rows,
                    cols - whole_cols, dst_stride, src_stride);
    if (whole_rows < rows)
        transpose_8(dst + (ptrdiff_t)whole_rows * dst_stride, src + whole_rows, rows - whole_rows,
                    cols, dst_stride, src_stride);
}

#define TILE 64 /* rows of one transposing task */

/* Axes are ordered outer..., rows (stride 1 in src), cols (stride 1 in dst). */
static void copy_tiles(void *arg, size_t begin, size_t end)
{
    const copy_job *const job = arg;
    const size_t rows = (size_t)job->dims[job->rank - 2], cols = (size_t)job->dims[job->rank - 1];
    const size_t tiles = (rows + TILE - 1) / TILE;
    const ptrdiff_t dst_stride = (ptrdiff_t)job->dst_strides[job->rank - 2];
    const ptrdiff_t src_stride = (ptrdiff_t)job->strides[job->rank - 1];
    const ptrdiff_t e = (ptrdiff_t)job->elem_bytes;
    for (size_t index = begin; index < end; index++) {
        ptrdiff_t s, d;
        outer_offsets(job, index / tiles, &s, &d);
        const size_t r0 = index % tiles * TILE;
        const size_t n = rows - r0 < TILE ? rows - r0 : TILE;
        uint8_t *const dst = job->dst + (d + (ptrdiff_t)r0 * dst_stride) * e;
        const uint8_t *const src = job->src + (s + (ptrdiff_t)r0) * e;
        if (e == 1)
            transpose_bytes(dst, src, n, cols, dst_stride, src_stride);
        else if (e == 2)
            transpose_16(dst, src, n, cols, dst_stride, src_stride);
        else if (e == 4)
            transpose_32(dst, src, n, cols, dst_stride, src_stride);
        else
            transpose_64(dst, src, n, cols, dst_stride, src_stride);
    }
}

/* Moves axis `from` to position `to`, keeping the order of the others. */
static void move_axis(copy_job *job, size_t from, size_t to)
{
    const int64_t dim = job->dims[from], stride = job->strides[from];
    const int64_t dst_stride = job->dst_strides[from];
    for (size_t i = from; i < to; i++) {
        job->dims[i] = job->dims[i + 1];
        job->strides[i] = job->strides[i + 1];
        job->dst_strides[i] = job->dst_strides[i + 1];
    }
    job->dims[to] = dim;
    job->strides[to] = stride;
    job->dst_strides[to] = dst_stride;
}

__attribute__((cold)) void qn__strided_copy(qn_pool *pool, void *dst, const void *src, size_t rank,
                                            const int64_t *dims, const int64_t *strides,
                                            size_t elem_bytes)
{
    for (size_t i = 0; i < rank; i++)
        if (dims[i] == 0)
            return;
    copy_job job = {.dst = dst, .src = src, .elem_bytes = elem_bytes};
    job.rank = merge_axes(rank, dims, strides, job.dims, job.strides);
    int64_t step = 1;
    for (size_t i = job.rank; i-- > 0;) {
        job.dst_strides[i] = step;
        step *= job.dims[i];
    }
    size_t unit = job.rank; /* the axis that is contiguous in src */
    for (size_t i = 0; i + 1 < job.rank; i++)
        if (job.strides[i] == 1)
            unit = i;
    if (job.strides[job.rank - 1] != 1 && unit < job.rank) {
        move_axis(&job, unit, job.rank - 2);
        job.n_outer = job.rank - 2;
        size_t tasks = ((size_t)job.dims[job.rank - 2] + TILE - 1) / TILE;
        for (size_t i = 0; i < job.n_outer; i++)
            tasks *= (size_t)job.dims[i];
        qn__parallel_ranges(pool, copy_tiles, &job, tasks,
                            TILE * (size_t)job.dims[job.rank - 1] * elem_bytes);
        return;
    }
    job.n_outer = job.rank - 1;
    size_t rows = 1;
    for (size_t i = 0; i < job.n_outer; i++)
        rows *= (size_t)job.dims[i];
    qn__parallel_ranges(pool, copy_rows, &job, rows, (size_t)job.dims[job.rank - 1] * elem_bytes);
}

__attribute__((cold)) void qn__convert_layout(qn_pool *pool, void *dst, qn_layout dst_layout,
                                              const void *src, qn_layout src_layout, size_t rank,
                                              const int64_t *dims, size_t elem_bytes)
{
    size_t order[QN_MAX_RANK];
    int64_t by_axis[QN_MAX_RANK], out_dims[QN_MAX_RANK], strides[QN_MAX_RANK];
    qn__layout_order(rank, dst_layout, order);
    qn__layout_strides(rank, dims, src_layout, by_axis);
    for (size_t i = 0; i < rank; i++) {
        out_dims[i] = dims[order[i]];
        strides[i] = by_axis[order[i]];
    }
    qn__strided_copy(pool, dst, src, rank, out_dims, strides, elem_bytes);
}

/* --- gather ---------------------------------------------------------------------------------- */
__attribute__((cold)) qn_status qn__gather_create(const qn_context *ctx, qn_gather *gather,
                                                  size_t rank, const int64_t *dims,
                                                  const int64_t *const *maps, size_t elem_bytes,
                                                  const void *fill, qn_error *error)
{
    qn_gather g = {.rank = rank, .elem_bytes = elem_bytes, .block = 1};
    for (size_t i = 0; i < sizeof(g.fill) && fill != NULL; i++)
        g.fill[i] = ((const uint8_t *)fill)[i % elem_bytes];
    /* Trailing axes whose map counts up in steps of what lies below are one block. Where it starts
     * is added to the axis above. */
    int64_t start = 0;
    while (g.rank > 1) {
        const int64_t *const map = maps[g.rank - 1];
        const int64_t dim = dims[g.rank - 1];
        bool whole = dim > 0 && map[0] >= 0;
        for (int64_t i = 1; i < dim && whole; i++)
            whole = map[i] == map[0] + i * (int64_t)g.block;
        if (!whole)
            break;
        start += map[0];
        g.block *= (size_t)dim;
        g.rank--;
    }
    size_t total = 0;
    for (size_t i = 0; i < g.rank; i++)
        total += (size_t)dims[i];
    const size_t last = g.rank - 1;
    g.storage = qn__calloc(ctx, total + 1 + 2 * (size_t)dims[last], sizeof(*g.storage));
    if (g.storage == NULL)
        return QN_NOMEM(error);
    int64_t *next = g.storage;
    for (size_t i = 0; i < g.rank; i++) {
        g.dims[i] = dims[i];
        g.maps[i] = next;
        memcpy(next, maps[i], (size_t)dims[i] * sizeof(*next));
        next += dims[i];
    }
    g.runs = next;
    for (int64_t i = 0; i < dims[last]; i++) {
        int64_t *const at = &g.maps[last][i], *const run = g.runs + 2 * g.n_runs;
        *at += *at < 0 ? 0 : start;
        const bool joins =
            g.n_runs > 0 &&
            (*at < 0 ? run[-2] < 0 : run[-2] >= 0 && *at == run[-2] + run[-1] * (int64_t)g.block);
        if (joins) {
            run[-1]++;
        } else {
            run[0] = *at;
            run[1] = 1;
            g.n_runs++;
            g.has_fill |= *at < 0;
        }
    }
    *gather = g;
    return QN_OK;
}

__attribute__((cold)) void qn__gather_free(const qn_context *ctx, qn_gather *gather)
{
    qn__free(ctx, gather->storage);
    gather->storage = NULL;
}

typedef struct gather_job {
    const qn_gather *g;
    uint8_t *dst;
    const uint8_t *src;
} gather_job;

static void fill_elements(uint8_t *dst, const qn_gather *g, size_t count)
{
    size_t bytes = count * g->elem_bytes;
    for (; bytes >= sizeof(g->fill); bytes -= sizeof(g->fill), dst += sizeof(g->fill))
        memcpy(dst, g->fill, sizeof(g->fill));
    if (bytes > 0)
        qn_copy_short(dst, g->fill, bytes);
}

/* n blocks (of a size known after inlining) that do not lie together. */
static inline __attribute__((always_inline)) void gather_blocks(uint8_t *dst, const uint8_t *src,
                                                                const int64_t *map, size_t n,
                                                                size_t elem_bytes,
                                                                const size_t bytes)
{
    for (size_t i = 0; i < n; i++)
        memcpy(dst + i * bytes, src + (size_t)map[i] * elem_bytes, bytes);
}

static void gather_row(const qn_gather *g, uint8_t *dst, const uint8_t *src)
{
    const size_t n = (size_t)g->dims[g->rank - 1], e = g->elem_bytes, bytes = g->block * e;
    if (g->n_runs == n && !g->has_fill && (bytes == 4 || bytes == 8)) {
        const int64_t *const map = g->maps[g->rank - 1];
        if (bytes == 4)
            gather_blocks(dst, src, map, n, e, 4);
        else
            gather_blocks(dst, src, map, n, e, 8);
        return;
    }
    for (size_t i = 0; i < g->n_runs; i++) {
        const int64_t from = g->runs[2 * i];
        const size_t count = (size_t)g->runs[2 * i + 1];
        if (from < 0)
            fill_elements(dst, g, count * g->block);
        else
            qn_copy_short(dst, src + (size_t)from * e, count * bytes);
        dst += count * bytes;
    }
}

static void gather_rows(void *arg, size_t begin, size_t end)
{
    const gather_job *const job = arg;
    const qn_gather *const g = job->g;
    const size_t row = (size_t)g->dims[g->rank - 1] * g->block;
    for (size_t index = begin; index < end; index++) {
        size_t rest = index;
        int64_t offset = 0;
        bool filled = false;
        for (size_t i = g->rank - 1; i-- > 0;) {
            const int64_t at = g->maps[i][rest % (size_t)g->dims[i]];
            rest /= (size_t)g->dims[i];
            filled = filled || at < 0;
            offset += at;
        }
        uint8_t *const dst = job->dst + index * row * g->elem_bytes;
        if (filled)
            fill_elements(dst, g, row);
        else
            gather_row(g, dst, job->src + (size_t)offset * g->elem_bytes);
    }
}

void qn__gather_run(qn_pool *pool, const qn_gather *gather, void *dst, const void *src)
{
    size_t rows = 1;
    for (size_t i = 0; i + 1 < gather->rank; i++)
        rows *= (size_t)gather->dims[i];
    const size_t row = (size_t)gather->dims[gather->rank - 1] * gather->block;
    if (rows == 0 || row == 0)
        return;
    gather_job job = {gather, dst, src};
    qn__parallel_ranges(pool, gather_rows, &job, rows, row * gather->elem_bytes);
}
