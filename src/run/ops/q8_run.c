#include "run/ops/q8_run.h"
#include "run/ops/window_rows.h"

#include "core/alloc.h"
#include "core/checked.h"

#include <string.h>

/* As for float (igemm_run.c): packed weights used again and again by a block of rows should stay in
 * the second-level cache, and so should the block of input rows. */
enum { WEIGHT_BLOCK_BYTES = 512 << 10, INPUT_BLOCK_BYTES = 512 << 10, TASKS_PER_THREAD = 8 };
/* Of this product's columns so much is read ahead; more of what follows, twice as fast. */
enum { AHEAD_BYTES = 512 << 10 };
/* Rows of more bytes are long (qn_q8_igemm.long_rows). */
enum { LONG_ROW = 192 };
/* Columns are cut at multiples of this many panels: what a kernel may take at once. */
enum { PANEL_STEP = 3 };
/* And at multiples of this many where sums are held: there is room for so many of all kernels. */
enum { HELD_PANELS = 12 };
/* Of weights (qn_qweights.parts). */
enum { MOST_PARTS = 3 };

__attribute__((cold)) bool qn__q8_activations(const qn_plan *plan, const qn_qparams *x)
{
    const int32_t lo = x->dtype == QN_DTYPE_I8 ? -128 : 0;
    return !qn__plan_get_options(plan)->reference && x->zero >= lo && x->zero <= lo + 255;
}

__attribute__((cold)) bool qn__q8_applies(const qn_plan *plan, const qn_qparams *x,
                                          const qn_qweights *w)
{
    return (w->fits_i8 || w->parts > 0) && qn__q8_activations(plan, x);
}

__attribute__((cold)) const int8_t *qn__q8_values(const qn_context *ctx, const qn_qweights *w,
                                                  size_t count, int8_t **own)
{
    *own = NULL;
    if (w->bytes != NULL)
        return w->bytes;
    int8_t *const out = qn__reallocarray(ctx, NULL, count, w->parts);
    for (int32_t part = 0; out != NULL && part < w->parts; part++)
        for (size_t i = 0; i < count; i++)
            out[(size_t)part * count + i] = qn_q8_part((int32_t)w->values[i], w->parts, part);
    *own = out;
    return out;
}

qn_q8_out qn__q8_format(const qn_requant *requant)
{
    return (qn_q8_out){.zero = requant->zero,
                       .lo = requant->lo,
                       .hi = requant->hi,
                       .is_float = requant->dtype == QN_DTYPE_F32,
                       .clamp = requant->clamp};
}

__attribute__((cold)) bool qn__q8_set_sizes(qn_q8_packed *out, const qn_qparams *x,
                                            const qn_requant *requant)
{
    const qn_q8_igemm *const kernel = &out->kernel;
    out->flip = x->dtype == QN_DTYPE_I8 ? 0x80 : 0;
    out->small_scales = true;
    out->parts = out->parts == 0 ? 1 : out->parts;
    out->taps = out->ks / out->parts;
    for (size_t i = 0; i < out->groups * out->n; i++)
        out->small_scales &= requant->scale[i] > -1.0f && requant->scale[i] < 1.0f;
    return qn__q8_gemm_packed_bytes(&out->panel_bytes, kernel->nr, out->kc, out->ks, kernel) &&
           qn__q8_gemm_packed_bytes(&out->group_bytes, out->n, out->kc, out->ks, kernel) &&
           qn_mul_size(&out->bytes, out->group_bytes, out->groups);
}

__attribute__((cold)) int32_t qn__q8_base(const qn_q8_packed *p, size_t column)
{
    const size_t in_group = column % p->n, nr = p->kernel.nr;
    int32_t base;
    memcpy(&base,
           p->data + column / p->n * p->group_bytes + in_group / nr * p->panel_bytes +
               sizeof(base) * (in_group % nr),
           sizeof(base));
    return base;
}

/* Whether no sum of a column, which begins with its base, can reach 2^23 whatever is multiplied. */
static __attribute__((cold)) bool has_short_sums(const qn_q8_packed *p, const qn_requant *requant)
{
    const size_t k = p->ks * p->kc, most = (1u << 23) / (UINT8_MAX * 128);
    bool fine = requant->dtype != QN_DTYPE_F32 && k <= most;
    for (size_t i = 0; fine && i < p->groups * p->n; i++) {
        const int64_t base = qn__q8_base(p, i), high = base < 0 ? -base : base;
        fine = requant->scale[i] > 0.0f && high + (int64_t)k * UINT8_MAX * 128 < 1 << 23;
    }
    return fine;
}

/* --- packed ahead of time --------------------------------------------------------------------- */
enum { PACKED_SAFE = 1 }; /* qn_packed_entry.flags */

__attribute__((cold)) bool qn__q8_look_up(const qn_plan *plan, const qn_step *step,
                                          const qn_qparams *x, const qn_requant *requant,
                                          const size_t *numbers, size_t n_numbers, uint64_t salt,
                                          qn_packed_entry *entry)
{
    const qn_tensor *const w = qn__step_input(step, 1);
    const qn_quant *const q = w->type.kind == QN_TYPE_QUANT ? w->type.quant : NULL;
    if ((q == NULL && salt == 0) || !qn__q8_activations(plan, x) ||
        !qn__prepacked_wanted(plan, step, entry->layout)) {
        entry->layout = 0;
        return false;
    }
    const size_t columns = numbers[0] * numbers[1];
    const uint32_t zero = (uint32_t)x->zero << 1 | (x->dtype == QN_DTYPE_I8);
    uint64_t key = qn__prepacked_key(w, numbers, n_numbers, requant->bias, columns);
    key = qn__prepacked_mix(qn__prepacked_mix(key, &zero, 1), requant->scale, columns);
    if (q != NULL && q->zero_points != NULL)
        key = qn__prepacked_mix(~key, q->zero_points, q->n_scales);
    const uint32_t salts[] = {(uint32_t)salt, (uint32_t)(salt >> 32)};
    if (salt != 0)
        key = qn__prepacked_mix(~key, salts, 2);
    entry->key = key;
    return qn__prepacked_find(plan, step, entry);
}

__attribute__((cold)) bool qn__q8_find(const qn_plan *plan, const qn_step *step,
                                       const qn_qparams *x, const qn_requant *requant,
                                       const qn_q8_strides *strides, qn_q8_packed *out)
{
    const size_t numbers[] = {out->groups,    out->n,     out->kc,    out->ks,
                              strides->group, strides->n, strides->p, strides->k};
    if (!qn__q8_set_sizes(out, x, requant))
        return false;
    out->entry = (qn_packed_entry){.layout = qn_q8_gemm_layout(&out->kernel), .bytes = out->bytes};
    if (!qn__q8_look_up(plan, step, x, requant, numbers, sizeof(numbers) / sizeof(numbers[0]),
                        out->salt, &out->entry))
        return false;
    for (size_t g = 0; g < out->groups; g++)
        if (!qn__q8_gemm_packed_ok(out->entry.data + g * out->group_bytes, out->n, out->kc, out->ks,
                                   &out->kernel))
            return false;
    out->data = out->entry.data;
    out->safe = (out->entry.flags & PACKED_SAFE) != 0;
    out->short_sums = has_short_sums(out, requant);
    return true;
}

__attribute__((cold)) qn_status qn__q8_search(const qn_plan *plan, const qn_step *step, int axis,
                                              const qn_qparams *x, qn_qweights *weights,
                                              qn_q8_find_fn find, void *state, qn_q8_found *out,
                                              qn_error *error)
{
    const bool known = weights->bytes != NULL;
    *out = QN_Q8_NO_BYTES;
    if (!qn__q8_activations(plan, x))
        return QN_OK;
    for (size_t parts = 1; parts <= (known ? 1 : MOST_PARTS); parts++)
        if (find(plan, step, state, parts)) {
            *out = QN_Q8_IN_FILE;
            return QN_OK;
        }
    if (!known)
        QN_TRY(qn__qweights_values(plan, step, 1, axis, weights, error));
    if (weights->parts == 0)
        return QN_OK;
    if (!known)
        find(plan, step, state, weights->parts);
    *out = QN_Q8_TO_PACK;
    return QN_OK;
}

/* Packs every group, with or without pairs; base: room for numbers of columns. Whether the weights
 * are safe; where they are not, pairs were asked for and the kernel has such, nothing is of use. */
static __attribute__((cold)) bool pack_all(const qn_q8_packed *p, const int8_t *w,
                                           const qn_qparams *x, const qn_requant *requant,
                                           const qn_q8_strides *strides, int32_t *base, bool pairs)
{
    const uint32_t zero = (uint32_t)x->zero + p->flip;
    bool safe = true;
    for (size_t g = 0; g < p->groups && (safe || !pairs || p->kernel.pairs == NULL); g++) {
        uint8_t *const to = p->own + g * p->group_bytes;
        safe &=
            qn__q8_gemm_pack_weights(to, w + g * strides->group, p->n, p->kc, p->ks, strides->n,
                                     strides->p, strides->k, &p->kernel, pairs, (uint32_t *)base);
        /* bias - (zero + flip) * sum: the kernel multiplies unsigned bytes. */
        for (size_t n = 0; n < p->n; n++) {
            const int32_t bias = requant->bias != NULL ? requant->bias[g * p->n + n] : 0;
            base[n] = (int32_t)((uint32_t)bias - zero * (uint32_t)base[n]);
        }
        qn__q8_gemm_pack_heads(to, base, requant->scale + g * p->n, p->n, p->panel_bytes,
                               &p->kernel);
    }
    return safe;
}

__attribute__((cold)) qn_status qn__q8_pack(const qn_plan *plan, const qn_step *step,
                                            const qn_qparams *x, const qn_requant *requant,
                                            const int8_t *w, const qn_q8_strides *strides,
                                            qn_q8_packed *out, qn_error *error)
{
    const qn_context *const ctx = qn__plan_context(plan);
    if (!qn__q8_set_sizes(out, x, requant))
        return qn__step_fail(step, error, QN_LIMIT, "packed weights are too large");
    out->own = qn__plan_packed_room(plan, out->bytes);
    out->in_room = out->own != NULL;
    if (!out->in_room)
        out->own = qn__alloc_aligned(ctx, out->bytes);
    out->data = out->own;
    int32_t *const base = qn__calloc(ctx, out->n, sizeof(*base));
    if (out->own == NULL || base == NULL) {
        qn__free(ctx, base);
        return QN_NOMEM(error);
    }
    qn__will_write(out->own, out->bytes);
    out->safe = pack_all(out, w, x, requant, strides, base, true);
    if (!out->safe && out->kernel.pairs != NULL)
        pack_all(out, w, x, requant, strides, base, false);
    qn__free(ctx, base);
    out->short_sums = has_short_sums(out, requant);
    out->entry.data = out->data;
    out->entry.flags = out->safe ? PACKED_SAFE : 0;
    return qn__prepacked_keep(plan, step, &out->entry, error);
}

__attribute__((cold)) void qn__q8_packed_free(const qn_context *ctx, qn_q8_packed *packed)
{
    if (!packed->in_room)
        qn__free_aligned(ctx, packed->own);
    packed->own = NULL;
    packed->data = NULL;
}

/* --- running -----------------------------------------------------------------------------------*/
typedef struct blocks {
    const qn_q8_job *job;
    size_t tiles;      /* of mr rows, or of cut */
    size_t cut;        /* not 0: rows of a tile */
    size_t units;      /* otherwise, what the rows are cut into evenly before tiles take them */
    size_t row_blocks; /* the tiles are cut into */
    size_t panels, panels_per_block, column_blocks;
    bool rows_outer; /* task order: row blocks outside, column blocks inside */
    size_t threads;
    size_t held_columns; /* whose sums are held at once */
} blocks;

/* Rows of a call, of k bytes; SIZE_MAX: of which sums are held. Threads share calls, of which there
 * must be enough. One thread reads weights, from wherever they are, once for as many rows as it
 * can, and each row but once for some panels of them. */
static size_t call_rows(const qn_q8_packed *p, size_t k, size_t threads)
{
    const size_t mr = p->kernel.mr, part = p->kernel.long_rows;
    if (part != 0 && (k == SIZE_MAX || (threads > 1 && k > LONG_ROW)))
        return part;
    return part != 0 && threads > 1 ? mr / 2 : mr;
}

__attribute__((cold)) bool qn__q8_buffer_bytes(size_t *out, const qn_q8_packed *packed, size_t m)
{
    const size_t mr = packed->kernel.mr;
    size_t tile, count;
    if (!qn_mul_size(&tile, packed->ks, mr))
        return false;
    if (tile <= QN_Q8_STACK_ROWS) {
        *out = 0;
        return true;
    }
    return qn_mul_size(&count, tile, qn_div_up(m, call_rows(packed, SIZE_MAX, 1))) &&
           qn_mul_size(&count, count, packed->groups) &&
           qn_mul_size(out, count, sizeof(const uint8_t *));
}

/* Rows of a tile of two halves, none of which is spread over two runs of rows; 0: however they lie.
 */
static size_t cut_runs(const qn_q8_job *job)
{
    const size_t most = job->packed->kernel.run;
    if (most == 0 || job->run == 0 || job->row_buffer != NULL)
        return 0;
    const size_t half = job->run / qn_div_up(job->run, most);
    return job->run % half == 0 && 3 * half > 2 * most - 4 ? 2 * half : 0;
}

/* Threads share the rows, as they do those of other layers: what one of them wrote it reads, and
 * bytes from another core's cache are slow. Where weights are much more than rows, or rows few,
 * they share the columns. */
static __attribute__((cold, noinline)) void cut_blocks(blocks *b)
{
    const qn_q8_job *const job = b->job;
    const qn_q8_packed *const p = job->packed;
    const size_t threads = b->threads;
    const size_t input_bytes = job->m * p->kc, wanted = threads * TASKS_PER_THREAD;
    const size_t long_tiles =
        qn_div_up(job->m, b->cut != 0 ? b->cut : call_rows(p, SIZE_MAX, threads));
    const bool by_columns = long_tiles < 2 * threads || p->group_bytes > 4 * input_bytes;
    /* A private row buffer per tile is written by whoever runs the tile: columns stay together. */
    if (job->row_buffer == NULL) {
        if (p->group_bytes > WEIGHT_BLOCK_BYTES)
            b->panels_per_block = WEIGHT_BLOCK_BYTES / p->panel_bytes;
        const size_t most = qn_div_up(b->panels, by_columns ? wanted : TASKS_PER_THREAD);
        if (threads > 1 && b->panels_per_block > most &&
            (by_columns || p->group_bytes > WEIGHT_BLOCK_BYTES))
            b->panels_per_block = most;
        b->panels_per_block =
            qn_div_up(b->panels_per_block == 0 ? 1 : b->panels_per_block, PANEL_STEP) * PANEL_STEP;
        if (b->panels > b->panels_per_block)
            b->row_blocks = qn_div_up(input_bytes, INPUT_BLOCK_BYTES);
        b->rows_outer = input_bytes > p->group_bytes;
        if (threads > 1 && !by_columns) {
            b->rows_outer = true;
            b->row_blocks = qn_div_up(b->row_blocks, threads) * threads;
            if (b->cut == 0 && p->kernel.unit != 0)
                b->tiles = qn_div_up(b->tiles, threads) * threads;
        }
    }
    b->column_blocks = qn_div_up(b->panels, b->panels_per_block);
    const size_t tasks = b->column_blocks * p->groups;
    if (threads > 1 && tasks * b->row_blocks < wanted)
        b->row_blocks = qn_div_up(wanted, tasks);
    b->row_blocks = b->row_blocks < b->tiles ? b->row_blocks : b->tiles;
}

static void plan_blocks(const qn_q8_job *job, size_t threads, blocks *b)
{
    const qn_q8_packed *const p = job->packed;
    *b = (blocks){.job = job, .threads = threads, .row_blocks = 1, .column_blocks = 1};
    if (job->fixed.columns != NULL) {
        const size_t unit = HELD_PANELS * p->kernel.nr;
        b->held_columns =
            QN_Q8_SUMS / (call_rows(p, SIZE_MAX, threads) + QN_Q8_SUMS_OVER) / unit * unit;
    }
    b->cut = cut_runs(job);
    /* Sums that are requantized have room for a few rows. */
    const size_t k = job->fixed.columns != NULL ? SIZE_MAX : p->ks * p->kc;
    b->tiles = qn_div_up(job->m, b->cut != 0 ? b->cut : call_rows(p, k, threads));
    b->units = b->cut == 0 && p->kernel.unit != 0 ? qn_div_up(job->m, p->kernel.unit) : b->tiles;
    b->panels = qn_div_up(p->n, p->kernel.nr);
    b->panels_per_block = b->panels;
    if (threads > 1 || (job->row_buffer == NULL && p->group_bytes > WEIGHT_BLOCK_BYTES))
        cut_blocks(b);
}

/* What the last units of a task prefetch, each a part: the task's next columns, or what follows
 * this product. */
typedef struct look_ahead {
    const uint8_t *at;
    size_t bytes, part, units; /* so many units of rows before the end */
    bool twice;                /* as fast */
} look_ahead;

static __attribute__((cold, noinline)) look_ahead make_look_ahead(const blocks *b, size_t group,
                                                                  size_t column_block, size_t units)
{
    const qn_q8_packed *const p = b->job->packed;
    const size_t block_bytes = b->panels_per_block * p->panel_bytes;
    look_ahead l = {.at = b->job->ahead, .bytes = b->job->ahead_bytes};
    if (column_block + 1 < b->column_blocks) {
        const size_t begin = (column_block + 1) * block_bytes;
        l.at = p->data + group * p->group_bytes + begin;
        l.bytes = p->group_bytes - begin < block_bytes ? p->group_bytes - begin : block_bytes;
        l.bytes = l.bytes < AHEAD_BYTES ? l.bytes : AHEAD_BYTES;
    }
    if (l.at == NULL || p->kernel.ahead_panels == 0)
        return l;
    const size_t first = column_block * b->panels_per_block;
    const size_t panels =
        b->panels - first < b->panels_per_block ? b->panels - first : b->panels_per_block;
    l.part = qn_div_up(panels, p->kernel.ahead_panels) * (p->panel_bytes / 2);
    l.twice = l.bytes > AHEAD_BYTES;
    l.part <<= l.twice;
    l.units = qn_div_up(l.bytes, l.part);
    l.units = l.units < units ? l.units : units;
    return l;
}

/* i * count / parts for rising i, without a division for each: cuts as even as igemm_run.c's. */
typedef struct even_cut {
    size_t at, rest, whole, more, parts; /* at: the quotient, rest: what is left over */
} even_cut;

static even_cut cut_from(size_t i, size_t count, size_t parts)
{
    even_cut cut = {.whole = parts == 1 ? count : count / parts, .parts = parts};
    cut.more = count - cut.whole * parts;
    if (i != 0) {
        cut.at = i * count / parts;
        cut.rest = i * count - cut.at * parts;
    }
    return cut;
}

static inline void cut_next(even_cut *cut, size_t by)
{
    cut->at += by * cut->whole;
    for (cut->rest += by * cut->more; cut->rest >= cut->parts; cut->rest -= cut->parts)
        cut->at++;
}

/* Of units u0 to u1, of which `left` are to come with them. */
static void set_ahead(const look_ahead *l, size_t u0, size_t u1, size_t left, qn_q8_out *out)
{
    if (left - (u1 - u0) >= l->units)
        return;
    const size_t begin = left < l->units ? (l->units - left) * l->part : 0;
    const size_t bytes = (u1 - u0) * l->part;
    out->ahead_twice = l->twice;
    out->ahead_bytes = bytes < l->bytes ? bytes : l->bytes;
    out->ahead =
        l->at + (l->bytes - begin < out->ahead_bytes ? l->bytes - out->ahead_bytes : begin);
}

void qn__q8_fixed_rows(const qn_q8_by_fixed *fixed, const qn_q8_out *out, const int32_t *sums,
                       size_t rows, size_t n, size_t column, uint8_t *to, size_t to_stride)
{
    const qn_q8_fixed_args args = {.rows = rows,
                                   .n = n,
                                   .sums = sums,
                                   .sums_stride = qn_q8_sums_stride(n),
                                   .fixed = fixed->columns + column,
                                   .once = fixed->once,
                                   .zero = out->zero,
                                   .lo = out->lo,
                                   .hi = out->hi,
                                   .out = to,
                                   .out_stride = to_stride};
    fixed->fn(&args);
}

static void put_held(const qn_q8_job *job, qn_q8_held *held, size_t n, size_t column)
{
    if (held->rows > 0)
        qn__q8_fixed_rows(&job->fixed, &job->out, held->sums, held->rows, n, column, held->c,
                          job->c_stride);
    held->rows = 0;
}

/* A tile of sums below those held; of very many columns some at a time. */
static void fixed_tile(const blocks *b, size_t mr, size_t nc, const uint8_t *const *a,
                       const uint8_t *packed, uint8_t *c, size_t column, qn_q8_out *out,
                       qn_q8_held *held)
{
    const qn_q8_job *const job = b->job;
    const qn_q8_packed *const p = job->packed;
    if ((held->rows + mr + QN_Q8_SUMS_OVER) * qn_q8_sums_stride(nc) > QN_Q8_SUMS)
        put_held(job, held, nc, column);
    for (size_t n = 0, part; n < nc; n += part) {
        part = nc - n < b->held_columns ? nc - n : b->held_columns;
        const size_t stride = qn_q8_sums_stride(part);
        if (held->rows == 0)
            held->c = c + n;
        p->kernel.fn(mr, part, p->kc, p->ks, a, p->flip, p->safe, packed,
                     held->sums + held->rows * stride, stride, out);
        held->rows += mr;
        if (part == nc)
            break;
        put_held(job, held, part, column + n);
        packed += b->held_columns / p->kernel.nr * p->panel_bytes;
        out->ahead_bytes = 0;
    }
}

void qn__q8_spaced_rows(const qn_q8_igemm *kernel, const uint8_t *first, size_t step, size_t mr,
                        const uint8_t **a)
{
    if (kernel->spaced != NULL)
        kernel->spaced(a, first, step, mr);
    else
        qn__spaced_rows(a, first, step, mr);
}

static void rows_in_line(const qn_q8_job *job, const uint8_t *first, size_t mr, const uint8_t **a)
{
    const qn_q8_igemm *const kernel = &job->packed->kernel;
    qn__q8_spaced_rows(kernel, first, job->step, mr, a);
    qn__repeat_last(a, 1, mr, qn_q8_rows_end(kernel, mr), kernel->mr);
}

/* Tiles [begin, end) of a block of columns of a group; a thread's rows go on to tile `last`. */
static __attribute__((noinline)) void run_tiles(const blocks *b, size_t group, size_t column_block,
                                                size_t begin, size_t end, size_t last,
                                                qn_q8_held *held)
{
    const qn_q8_job *const job = b->job;
    const qn_q8_packed *const p = job->packed;
    const size_t mr_max = p->kernel.mr, elem = job->out.is_float ? sizeof(float) : 1;
    const size_t n_block = b->panels_per_block * p->kernel.nr;
    const size_t n0 = column_block * n_block;
    const size_t nc = p->n - n0 < n_block ? p->n - n0 : n_block;
    const uint8_t *const packed =
        p->data + group * p->group_bytes + column_block * b->panels_per_block * p->panel_bytes;
    even_cut unit = cut_from(begin, b->units, b->tiles), row;
    if (b->cut != 0)
        row = (even_cut){.at = unit.at * b->cut, .whole = b->cut, .parts = 1};
    else
        row = cut_from(unit.at, job->m, b->units);
    const size_t unit_end = last == b->tiles ? b->units : last * b->units / b->tiles;
    const look_ahead ahead = make_look_ahead(b, group, column_block, unit_end - unit.at);
    qn_q8_out out = job->out;
    if (job->fixed.columns != NULL)
        out.is_float = out.is_sums = true;
    for (size_t tile = begin; tile < end; tile++) {
        const size_t u0 = unit.at, m0 = row.at;
        cut_next(&unit, 1);
        cut_next(&row, unit.at - u0);
        const size_t mr = (row.at < job->m ? row.at : job->m) - m0;
        const uint8_t **const a =
            job->row_buffer == NULL ? held->pointers
                                    : job->row_buffer + (group * b->tiles + tile) * p->ks * mr_max;
        if (job->first != NULL)
            rows_in_line(job, job->first + group * job->first_group + m0 * job->step, mr, a);
        else
            job->rows(job, group, m0, mr, a);
        for (size_t i = p->taps; i < p->ks; i += p->taps)
            memcpy(a + i * mr_max, a, p->taps * mr_max * sizeof(*a));
        uint8_t *const c =
            (uint8_t *)job->c + (group * job->c_group + m0 * job->c_stride + n0) * elem;
        set_ahead(&ahead, u0, unit.at, unit_end - u0, &out);
        if (job->fixed.columns != NULL)
            fixed_tile(b, mr, nc, a, packed, c, group * p->n + n0, &out, held);
        else
            p->kernel.fn(mr, nc, p->kc, p->ks, a, p->flip, p->safe, packed, c, job->c_stride, &out);
        if (job->finish != NULL)
            job->finish(job, m0, mr, n0, nc);
    }
    put_held(job, held, nc, group * p->n + n0);
}

static __attribute__((cold, noinline)) void run_part(const blocks *b, size_t index,
                                                     qn_q8_held *held)
{
    const size_t tasks = b->row_blocks * b->column_blocks;
    const size_t group = index / tasks, task = index % tasks;
    const size_t row_block = b->rows_outer ? task / b->column_blocks : task % b->row_blocks;
    const size_t column_block = b->rows_outer ? task % b->column_blocks : task / b->row_blocks;
    const size_t end = (row_block + 1) * b->tiles / b->row_blocks;
    /* Of one block of columns, a thread's rows are one run. */
    const size_t last = b->column_blocks == 1
                            ? (row_block * b->threads / b->row_blocks + 1) * b->tiles / b->threads
                            : end;
    run_tiles(b, group, column_block, row_block * b->tiles / b->row_blocks, end,
              last < end ? end : last, held);
}

/* Divisions take longer than all else that a small layer has to do. */
static void run_task(void *arg, size_t index)
{
    const blocks *const b = arg;
    qn_q8_held held;
    held.rows = 0;
    if (b->row_blocks == 1 && b->column_blocks == 1)
        run_tiles(b, index, 0, 0, b->tiles, b->tiles, &held);
    else
        run_part(b, index, &held);
}

static void plan_job(qn_q8_job *job, size_t threads, blocks *b)
{
    job->out.small_scales = job->packed->small_scales;
    job->out.short_sums = job->packed->short_sums;
    plan_blocks(job, threads, b);
}

void qn__q8_run(qn_q8_job *job, qn_pool *pool)
{
    blocks b;
    if (job->m == 0 || job->packed->n == 0)
        return;
    plan_job(job, qn__pool_size(pool), &b);
    qn__parallel(pool, run_task, &b, b.row_blocks * b.column_blocks * job->packed->groups);
}

void qn__q8_run_held(qn_q8_job *job, qn_q8_held *held)
{
    blocks b;
    plan_job(job, 1, &b);
    run_tiles(&b, 0, 0, 0, b.tiles, b.tiles, held);
}
