/* Packing of 8-bit GEMM weights: panels of nr columns, each nr bases and nr scales followed by the
 * weights: for each tap and each group of kr consecutive k, kr bytes of every column. For kernels
 * that add two groups in 16 bits, groups are reordered and tables say how (kernel.h). */
#include "core/checked.h"
#include "kernel/kernel.h"

#include <string.h>

/* The largest sum of weights of one sign that cannot leave int16: * 255 <= 32767. */
enum { MOST = INT16_MAX / 255 };
/* Pairs of groups: columns of a panel, sums of products per group (positive and negative ones of
 * two pairs of k per column), groups per part, partners tried for each of them. */
enum { PAIRS_NR = 8, LANES = 4 * PAIRS_NR, GROUPS = QN_Q8_PAIRS_K / 4, TRIES = 64 };
enum { SHORT_K = 32 };
/* Weights looked at together, and how many pairs of them words can add up. */
enum { CHUNK = 64, WORD_CHUNKS = 16 };

typedef int16_t words __attribute__((vector_size(16)));
typedef uint16_t unsigned_words __attribute__((vector_size(16)));
typedef uint8_t bytes16 __attribute__((vector_size(16)));

/* CHUNK weights from w on, n of them there and then zeros; room: where they may be gathered. */
static inline const int8_t *chunk_of(const int8_t *w, size_t stride, size_t n, int8_t room[CHUNK])
{
    if (stride == 1 && n >= CHUNK)
        return w;
    memset(room, 0, CHUNK);
    for (size_t i = 0; i < n && i < CHUNK; i++)
        room[i] = w[i * stride];
    return room;
}

/* Of eight pairs of neighbours: their sums. */
static inline words sum_pairs(const int8_t *w)
{
    words v;
    memcpy(&v, w, sizeof v);
    return ((words)((unsigned_words)v << 8) >> 8) + (v >> 8);
}

/* The sums of their positive weights; *down: of the negative ones, as positive numbers. */
static inline words sums_by_sign(const int8_t *w, words *down)
{
    words v;
    memcpy(&v, w, sizeof v);
    const words first = (words)((unsigned_words)v << 8) >> 8, second = v >> 8;
    const words up = (first & (first > 0)) + (second & (second > 0));
    *down = up - first - second;
    return up;
}

typedef struct columns {
    const int8_t *w;
    size_t n, stride_n, stride_k;
} columns;

static size_t part_of(size_t kc, size_t k0)
{
    return kc - k0 < QN_Q8_PAIRS_K ? kc - k0 : QN_Q8_PAIRS_K;
}

bool qn__q8_gemm_packed_bytes(size_t *out, size_t n, size_t kc, size_t ks,
                              const qn_q8_igemm *kernel)
{
    const size_t nr = kernel->nr, kr = kernel->kr;
    size_t bytes, order, k_up, panels;
    if (!qn_add_size(&k_up, kc, kr - 1))
        return false;
    k_up = k_up / kr * kr;
    if (!qn_mul_size(&bytes, k_up, ks) ||
        !qn_add_size(&bytes, bytes, sizeof(int32_t) + sizeof(float)) ||
        !qn_mul_size(&bytes, bytes, nr) || !qn_add_size(&panels, n, nr - 1))
        return false;
    if (kernel->pairs) {
        /* As many numbers as groups and parts. */
        order = (k_up / kr + k_up / QN_Q8_PAIRS_K + (k_up % QN_Q8_PAIRS_K != 0)) * sizeof(uint16_t);
        if (!qn_mul_size(&order, order, ks) || !qn_add_size(&bytes, bytes, order) ||
            !qn_align_size(&bytes, bytes, 64))
            return false;
    }
    return qn_mul_size(out, bytes, panels / nr);
}

int32_t qn__q8_gemm_sum(const int8_t *w, size_t n, size_t stride)
{
    int8_t room[CHUNK];
    uint32_t sum = 0;
    for (size_t at = 0; at < n;) {
        words part = {0};
        for (size_t i = 0; i < WORD_CHUNKS && at < n; i++, at += CHUNK) {
            const int8_t *const chunk = chunk_of(w + at * stride, stride, n - at, room);
            for (size_t j = 0; j < CHUNK; j += 16)
                part += sum_pairs(chunk + j);
        }
        for (size_t j = 0; j < 8; j++)
            sum += (uint32_t)part[j];
    }
    return (int32_t)sum;
}

/* Whether two neighbouring products, activations being 0..255, always stay within int16: sums of
 * the positive and of the negative weights of every pair, times 255. */
static bool pairs_are_safe(const int8_t *w, size_t kc, size_t stride_k)
{
    int8_t room[CHUNK];
    words over = {0}, down;
    for (size_t k = 0; k < kc; k += CHUNK) {
        const int8_t *const chunk = chunk_of(w + k * stride_k, stride_k, kc - k, room);
        for (size_t j = 0; j < CHUNK; j += 16) {
            const words up = sums_by_sign(chunk + j, &down);
            over |= (up > MOST) | (down > MOST);
        }
    }
    for (size_t j = 1; j < 8; j++)
        over[0] |= over[j];
    return over[0] == 0;
}

/* kr consecutive k of nr columns, all inside. */
static inline uint8_t *pack_whole(uint8_t *at, const int8_t *w, size_t stride_n, size_t nr,
                                  const size_t kr)
{
    for (size_t j = 0; j < nr; j++, at += kr)
        memcpy(at, w + j * stride_n, kr);
    return at;
}

/* The same of columns that lie side by side. */
static inline uint8_t *pack_rows(uint8_t *at, const int8_t *w, size_t stride_k, size_t nr)
{
    const uint8_t *const r = (const uint8_t *)w;
    for (size_t j = 0; j < nr; j++, at += 4) {
        const uint8_t four[4] = {r[j], r[stride_k + j], r[2 * stride_k + j], r[3 * stride_k + j]};
        memcpy(at, four, 4);
    }
    return at;
}

/* One tap of a panel. */
static uint8_t *pack_tap(uint8_t *at, const int8_t *tap, size_t width, size_t kc, size_t stride_n,
                         size_t stride_k, size_t nr, size_t kr)
{
    size_t k0 = 0;
    if (width == nr && stride_k == 1 && kr == 4)
        for (; k0 + 4 <= kc; k0 += 4)
            at = pack_whole(at, tap + k0, stride_n, nr, 4);
    if (width == nr && stride_n == 1 && kr == 4)
        for (; k0 + 4 <= kc; k0 += 4)
            at = pack_rows(at, tap + k0 * stride_k, stride_k, nr);
    for (; k0 < kc; k0 += kr)
        for (size_t j = 0; j < nr; j++)
            for (size_t k = k0; k < k0 + kr; k++)
                *at++ = j < width && k < kc ? (uint8_t)tap[j * stride_n + k * stride_k] : 0;
    return at;
}

bool qn__q8_gemm_safe(const int8_t *w, size_t n, size_t kc, size_t ks, size_t stride_n,
                      size_t stride_p, size_t stride_k)
{
    bool safe = true;
    for (size_t j = 0; j < n; j++)
        for (size_t p = 0; safe && p < ks; p++)
            safe = pairs_are_safe(w + j * stride_n + p * stride_p, kc, stride_k);
    return safe;
}

/* One group of four k from k0 on, to what lies behind kc zeros. */
static uint8_t *pack_group(uint8_t *at, const columns *c, size_t k0, size_t kc, size_t nr)
{
    const size_t n = kc - k0 < 4 ? kc - k0 : 4;
    return pack_tap(at, c->w + k0 * c->stride_k, c->n, n, c->stride_n, c->stride_k, nr, 4);
}

/* Sums of positive and of negative weights of the pairs of k of every column, for the groups of the
 * n weights from k0 on. */
static void weigh_groups(uint8_t (*sums)[LANES], const columns *c, size_t k0, size_t n)
{
    int8_t room[CHUNK];
    const size_t groups = (n + 3) / 4;
    memset(sums, 0, groups * sizeof *sums);
    for (size_t j = 0; j < c->n; j++) {
        for (size_t k = 0; k < n; k += CHUNK) {
            const int8_t *const chunk =
                chunk_of(c->w + j * c->stride_n + (k0 + k) * c->stride_k, c->stride_k, n - k, room);
            uint8_t bytes[CHUNK];
            for (size_t i = 0; i < CHUNK; i += 16) {
                words down;
                const words up = sums_by_sign(chunk + i, &down);
                const words both = up | (words)((unsigned_words)down << 8);
                memcpy(bytes + i, &both, sizeof both);
            }
            const size_t left = groups - k / 4 < CHUNK / 4 ? groups - k / 4 : CHUNK / 4;
            for (size_t g = 0; g < left; g++)
                memcpy(&sums[k / 4 + g][4 * j], bytes + 4 * g, 4);
        }
    }
}

static uint32_t heaviness(const uint8_t sums[LANES])
{
    uint32_t heavy = 0;
    for (size_t i = 0; i < LANES; i += 16) {
        /* No byte is above 128: two squares fit. */
        unsigned_words v;
        memcpy(&v, sums + i, sizeof v);
        const unsigned_words low = v & 255, high = v >> 8;
        const unsigned_words part = low * low + high * high;
        for (size_t j = 0; j < 8; j++)
            heavy += part[j];
    }
    return heavy;
}

static inline bool may_be_added(const uint8_t a[LANES], const uint8_t b[LANES])
{
    bytes16 over = {0};
    for (size_t i = 0; i < LANES; i += 16) {
        bytes16 x, y;
        memcpy(&x, a + i, sizeof x);
        memcpy(&y, b + i, sizeof y);
        over |= (bytes16)(x > MOST - y);
    }
    uint64_t any[2];
    memcpy(any, &over, sizeof any);
    return (any[0] | any[1]) == 0;
}

/* Groups from heavy to light, those that are as heavy as each other in order. */
static void sort_groups(uint16_t *by_weight, const uint32_t *heavy, size_t groups)
{
    enum { BITS = 7, PASSES = 3, BUCKETS = 1 << BITS };
    _Static_assert(LANES * MOST * MOST < 1 << BITS * PASSES, "all digits are sorted by");
    uint16_t other[GROUPS], *from = other, *to = by_weight;
    for (size_t g = 0; g < groups; g++)
        other[g] = (uint16_t)g;
    for (size_t pass = 0; pass < PASSES; pass++) {
        uint16_t start[BUCKETS + 1] = {0};
#define DIGIT(g) (BUCKETS - 1 - (heavy[g] >> (BITS * pass)) % BUCKETS)
        for (size_t g = 0; g < groups; g++)
            start[DIGIT(g) + 1]++;
        for (size_t d = 0; d < BUCKETS; d++)
            start[d + 1] = (uint16_t)(start[d + 1] + start[d]);
        for (size_t i = 0; i < groups; i++)
            to[start[DIGIT(from[i])]++] = from[i];
#undef DIGIT
        uint16_t *const swap = from;
        from = to;
        to = swap;
    }
}

/* Fills order with the groups of the part's n of k and returns how many pairs, at most `most`, come
 * first: a heavy group goes with the lightest of those left. */
static size_t pair_groups(uint16_t order[GROUPS], const columns *c, size_t k0, size_t n,
                          size_t most)
{
    uint8_t sums[GROUPS][LANES];
    uint32_t heavy[GROUPS];
    uint16_t by_weight[GROUPS], single[GROUPS];
    const size_t groups = (n + 3) / 4;
    weigh_groups(sums, c, k0, n);
    for (size_t g = 0; g < groups; g++)
        heavy[g] = heaviness(sums[g]);
    sort_groups(by_weight, heavy, groups);
    size_t left = groups, n_single = 0, n_paired = 0;
    for (size_t first = 0; first < left; first++) {
        const uint16_t g = by_weight[first];
        size_t i = left;
        while (i > first + 1 && left - i < TRIES && !may_be_added(sums[g], sums[by_weight[i - 1]]))
            i--;
        if (i == first + 1 || left - i == TRIES || n_paired == 2 * most) {
            single[n_single++] = g;
            continue;
        }
        order[n_paired++] = g;
        order[n_paired++] = by_weight[i - 1];
        left--;
        memmove(by_weight + i - 1, by_weight + i, (left - (i - 1)) * sizeof *by_weight);
    }
    memcpy(order + n_paired, single, n_single * sizeof *single);
    return n_paired / 2;
}

static void pack_pairs(uint8_t **at, uint8_t **table, const columns *c, size_t kc, size_t nr,
                       size_t most)
{
    for (size_t k0 = 0; k0 < kc; k0 += QN_Q8_PAIRS_K) {
        const size_t n = part_of(kc, k0), groups = (n + 3) / 4;
        uint16_t order[1 + GROUPS] = {0};
        for (size_t g = 0; g < groups; g++)
            order[1 + g] = (uint16_t)g;
        if (most > 0)
            order[0] = (uint16_t)pair_groups(order + 1, c, k0, n, most);
        for (size_t g = 0; g < groups; g++) {
            *at = pack_group(*at, c, k0 + 4 * (size_t)order[1 + g], kc, nr);
            order[1 + g] = (uint16_t)(4 * order[1 + g]);
        }
        memcpy(*table, order, (1 + groups) * sizeof *order);
        *table += (1 + groups) * sizeof *order;
    }
}

/* Pairs that every part of every panel may have: where rows are short they are as many everywhere,
 * as loops of a new length each time would cost more than pairs save. */
static size_t most_pairs(const int8_t *w, size_t n, size_t kc, size_t ks, size_t stride_n,
                         size_t stride_p, size_t stride_k, size_t nr)
{
    size_t most = GROUPS;
    if (kc > SHORT_K)
        return most;
    for (size_t n0 = 0; n0 < n; n0 += nr) {
        for (size_t p = 0; p < ks && most > 0; p++) {
            const columns c = {w + n0 * stride_n + p * stride_p, n - n0 < nr ? n - n0 : nr,
                               stride_n, stride_k};
            uint16_t order[GROUPS];
            most = pair_groups(order, &c, 0, kc, most);
        }
    }
    return most;
}

void qn__q8_gemm_pack(void *packed, const int8_t *w, const int32_t *base, const float *scale,
                      size_t n, size_t kc, size_t ks, size_t stride_n, size_t stride_p,
                      size_t stride_k, const qn_q8_igemm *kernel, bool safe)
{
    const size_t nr = kernel->nr, kr = kernel->kr;
    size_t panel_bytes = 0;
    if (!qn__q8_gemm_packed_bytes(&panel_bytes, nr, kc, ks, kernel))
        return; /* whoever reserved the memory would have seen it */
    const size_t most = kernel->pairs && safe && nr <= PAIRS_NR
                            ? most_pairs(w, n, kc, ks, stride_n, stride_p, stride_k, nr)
                            : 0;
    uint8_t *panel = packed;
    for (size_t n0 = 0; n0 < n; n0 += nr, panel += panel_bytes) {
        const size_t width = n - n0 < nr ? n - n0 : nr;
        uint8_t *at = panel;
        memset(at, 0, nr * (sizeof(int32_t) + sizeof(float)));
        memcpy(at, base + n0, width * sizeof(int32_t));
        memcpy(at + nr * sizeof(int32_t), scale + n0, width * sizeof(float));
        at += nr * (sizeof(int32_t) + sizeof(float));
        uint8_t *table = at + ks * ((kc + kr - 1) / kr * kr) * nr;
        for (size_t p = 0; p < ks; p++) {
            const columns c = {w + n0 * stride_n + p * stride_p, width, stride_n, stride_k};
            if (kernel->pairs)
                pack_pairs(&at, &table, &c, kc, nr, most);
            else
                at = pack_tap(at, c.w, width, kc, stride_n, stride_k, nr, kr);
        }
        if (kernel->pairs)
            memset(table, 0, (size_t)(panel + panel_bytes - table));
    }
}

bool qn__q8_gemm_packed_ok(const void *packed, size_t n, size_t kc, size_t ks,
                           const qn_q8_igemm *kernel)
{
    const size_t nr = kernel->nr, kr = kernel->kr;
    size_t panel_bytes;
    if (!kernel->pairs)
        return true;
    if (!qn__q8_gemm_packed_bytes(&panel_bytes, nr, kc, ks, kernel))
        return false;
    const size_t table_at =
        nr * (sizeof(int32_t) + sizeof(float)) + ks * ((kc + kr - 1) / kr * kr) * nr;
    for (size_t n0 = 0; n0 < n; n0 += nr) {
        const uint8_t *table = (const uint8_t *)packed + n0 / nr * panel_bytes + table_at;
        for (size_t p = 0; p < ks; p++) {
            for (size_t k0 = 0; k0 < kc; k0 += QN_Q8_PAIRS_K) {
                const size_t groups = (part_of(kc, k0) + 3) / 4;
                uint16_t order[1 + GROUPS];
                memcpy(order, table, (1 + groups) * sizeof *order);
                table += (1 + groups) * sizeof *order;
                bool fine = 2 * (size_t)order[0] <= groups;
                for (size_t g = 0; g < groups; g++)
                    fine &= order[1 + g] % 4 == 0 && order[1 + g] / 4 < groups;
                if (!fine)
                    return false;
            }
        }
    }
    return true;
}
