/* IDSTQuan.buffer: integers as indexes into a table of levels, densely or with the zeros left out.
 *
 * dense:  rank (u8, 2), rows and columns (u16, or u32 when one does not fit), number of levels (u8,
 *         0: 256), the levels (i8), one index per weight
 * sparse: the same head, number of entries (u32), bits of a step (u8), one step per entry, levels,
 *         one index per entry
 *
 * Indexes and steps are one string of bits, most significant first, filled up with zeros. A step is
 * the distance to the entry before; distances too long for it are bridged by entries of value 0. */
#include "core/checked.h"
#include "format/mnn/mnn_format.h"

#include <string.h>

enum { TYPE_DENSE = 1, TYPE_SPARSE = 2, MIN_STEP_BITS = 2, MAX_STEP_BITS = 8 };

typedef struct level_table {
    int32_t first;       /* the smallest level */
    uint32_t count;      /* up to 256 */
    uint32_t index_bits; /* of an index */
} level_table;

typedef struct bit_writer {
    uint8_t *out;
    uint32_t pending, n_pending; /* bits that do not fill a byte yet */
} bit_writer;

static void put_bits(bit_writer *w, uint32_t value, uint32_t bits)
{
    w->pending = w->pending << bits | value;
    w->n_pending += bits;
    while (w->n_pending >= 8) {
        w->n_pending -= 8;
        *w->out++ = (uint8_t)(w->pending >> w->n_pending);
    }
    w->pending &= (1u << w->n_pending) - 1;
}

static void end_bits(bit_writer *w)
{
    if (w->n_pending > 0)
        *w->out++ = (uint8_t)(w->pending << (8 - w->n_pending));
    w->pending = w->n_pending = 0;
}

static void put_u16(uint8_t **at, uint32_t value)
{
    *(*at)++ = (uint8_t)value;
    *(*at)++ = (uint8_t)(value >> 8);
}

static void put_u32(uint8_t **at, uint32_t value)
{
    put_u16(at, value & 0xffff);
    put_u16(at, value >> 16);
}

/* Bytes of count values; count is at most 2^31, so this cannot overflow in 64 bits. */
static uint64_t bit_bytes(uint64_t count, uint32_t bits)
{
    return (count * bits + 7) / 8;
}

static uint32_t bits_for(uint32_t count)
{
    uint32_t bits = 1;
    while (count > 1u << bits)
        bits++;
    return bits;
}

/* MNN gives its integer kernels a table with 2^b levels from -2^(b-1) as it is and expands any
 * other; a table that would look like that by chance gets one level more. */
static level_table narrow_table(const int8_t *q, size_t count)
{
    int32_t lowest = q[0], highest = q[0];
    for (size_t i = 1; i < count; i++) {
        lowest = q[i] < lowest ? q[i] : lowest;
        highest = q[i] > highest ? q[i] : highest;
    }
    if (lowest == highest && highest < INT8_MAX)
        highest++;
    else if (lowest == highest)
        lowest--;
    level_table table = {lowest, (uint32_t)(highest - lowest + 1), 0};
    table.index_bits = bits_for(table.count);
    const int32_t half = 1 << (table.index_bits - 1);
    if (table.index_bits < 8 && lowest == -half && highest == half - 1)
        table.index_bits = bits_for(++table.count);
    return table;
}

/* Entries that a sparse form with steps of that many bits has. */
static uint64_t sparse_entries(const int8_t *q, size_t count, uint32_t step_bits)
{
    const size_t longest = ((size_t)1 << step_bits) - 1;
    uint64_t entries = 0;
    for (size_t i = 0, last = 0; i < count; i++) {
        if (q[i] == 0)
            continue;
        entries += 1 + (i > last ? (i - last - 1) / longest : 0);
        last = i;
    }
    return entries;
}

static void put_levels(uint8_t **at, const level_table *table)
{
    *(*at)++ = (uint8_t)table->count; /* 256 wraps to 0 */
    for (uint32_t i = 0; i < table->count; i++)
        *(*at)++ = (uint8_t)(table->first + (int32_t)i);
}

static uint8_t *put_dense(uint8_t *at, const int8_t *q, size_t count, const level_table *table)
{
    put_levels(&at, table);
    bit_writer w = {at, 0, 0};
    for (size_t i = 0; i < count; i++)
        put_bits(&w, (uint32_t)(q[i] - table->first), table->index_bits);
    end_bits(&w);
    return w.out;
}

static uint8_t *put_sparse(uint8_t *at, const int8_t *q, size_t count, const level_table *table,
                           uint64_t entries, uint32_t step_bits)
{
    const size_t longest = ((size_t)1 << step_bits) - 1;
    put_u32(&at, (uint32_t)entries);
    *at++ = (uint8_t)step_bits;
    bit_writer steps = {at, 0, 0};
    at += bit_bytes(entries, step_bits);
    put_levels(&at, table);
    bit_writer indexes = {at, 0, 0};
    for (size_t i = 0, last = 0; i < count; i++) {
        if (q[i] == 0)
            continue;
        for (; i - last > longest; last += longest) {
            put_bits(&steps, (uint32_t)longest, step_bits);
            put_bits(&indexes, (uint32_t)-table->first, table->index_bits);
        }
        put_bits(&steps, (uint32_t)(i - last), step_bits);
        put_bits(&indexes, (uint32_t)(q[i] - table->first), table->index_bits);
        last = i;
    }
    end_bits(&steps);
    end_bits(&indexes);
    return indexes.out;
}

static qn_status check_levels(const int8_t *q, size_t count, uint32_t bits, qn_error *error)
{
    const int32_t half = 1 << (bits - 1);
    for (size_t i = 0; i < count; i++)
        QN_FAIL_IF(q[i] < -half || q[i] >= half, error, QN_INVALID_ARGUMENT,
                   "weight %zu is %d, which %u bits cannot hold", i, q[i], bits);
    return QN_OK;
}

qn_status qn__mnn_pack(const qn_context *ctx, const int8_t *q, size_t rows, size_t columns,
                       uint32_t bits, bool linear, bool sparse, uint8_t **buffer,
                       size_t *size_bytes, int32_t *type, bool *wide, qn_error *error)
{
    size_t count;
    QN_FAIL_IF(bits < 2 || bits > 8, error, QN_INVALID_ARGUMENT, "cannot pack weights of %u bits",
               bits);
    QN_FAIL_IF(!qn_mul_size(&count, rows, columns) || count > INT32_MAX, error, QN_LIMIT,
               "%zu x %zu weights are too many for one operator", rows, columns);
    QN_FAIL_IF(count == 0, error, QN_INVALID_ARGUMENT, "there are no weights to pack");
    QN_TRY(check_levels(q, count, bits, error));
    const int32_t half = 1 << (bits - 1);
    const level_table table =
        linear ? (level_table){-half, 2u * (uint32_t)half, bits} : narrow_table(q, count);
    uint64_t best = bit_bytes(count, table.index_bits), entries = 0;
    uint32_t step_bits = 0;
    /* bridging entries need the level 0 */
    const bool has_zero = table.first <= 0 && table.first + (int32_t)table.count > 0;
    for (uint32_t s = MIN_STEP_BITS; sparse && has_zero && s <= MAX_STEP_BITS; s++) {
        const uint64_t n = sparse_entries(q, count, s);
        const uint64_t bytes = 5 + bit_bytes(n, s) + bit_bytes(n, table.index_bits);
        if (n > 0 && n <= UINT32_MAX && bytes < best) {
            best = bytes;
            entries = n;
            step_bits = s;
        }
    }
    *wide = rows > UINT16_MAX || columns > UINT16_MAX;
    *type = step_bits > 0 ? TYPE_SPARSE : TYPE_DENSE;
    *size_bytes = 1 + (*wide ? 8u : 4u) + 1 + table.count + (size_t)best;
    uint8_t *at = *buffer = qn__alloc(ctx, *size_bytes);
    if (at == NULL)
        return QN_NOMEM(error);
    *at++ = 2;
    if (*wide) {
        put_u32(&at, (uint32_t)rows);
        put_u32(&at, (uint32_t)columns);
    } else {
        put_u16(&at, (uint32_t)rows);
        put_u16(&at, (uint32_t)columns);
    }
    if (step_bits > 0)
        put_sparse(at, q, count, &table, entries, step_bits);
    else
        put_dense(at, q, count, &table);
    return QN_OK;
}
