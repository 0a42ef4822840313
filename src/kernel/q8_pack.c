/* Packing of 8-bit GEMM weights: panels of nr columns, each nr bases and nr scales followed by the
 * weights: for each tap and each group of kr consecutive k, kr bytes of every column. For kernels
 * that add two groups in 16 bits, groups are reordered and tables say how (kernel.h). */
#include "core/checked.h"
#include "kernel/kernel.h"

#include <string.h>

/* The largest sum of weights of one sign that cannot leave int16: * 255 <= 32767. */
enum { MOST = INT16_MAX / 255 };
/* Pairs of groups: columns of a panel, groups per part. */
enum { PAIRS_NR = 8, GROUPS = QN_Q8_PAIRS_K / 4, SHORT_K = 32 };
/* Weights looked at together, and how many pairs of them words can add up. */
enum { CHUNK = 64, WORD_CHUNKS = 16, WORD_GROUPS = 128 };
enum { MAX_NR = 16 };

typedef int16_t words __attribute__((vector_size(16)));
typedef uint16_t unsigned_words __attribute__((vector_size(16)));
typedef uint32_t fours __attribute__((vector_size(16)));

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

__attribute__((cold)) bool qn__q8_gemm_packed_bytes(size_t *out, size_t n, size_t kc, size_t ks,
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

static bool all_positive(words v)
{
    int16_t all = 0;
    for (size_t j = 0; j < 8; j++)
        all |= v[j];
    return all >= 0;
}

/* Whether two neighbouring products, activations being 0..255, always stay within int16: sums of
 * the positive and of the negative weights of every pair, times 255. */
static bool pairs_are_safe(const int8_t *w, size_t kc, size_t stride_k)
{
    int8_t gathered[CHUNK];
    words room = {0}, down;
    for (size_t k = 0; k < kc; k += CHUNK) {
        const int8_t *const chunk = chunk_of(w + k * stride_k, stride_k, kc - k, gathered);
        for (size_t j = 0; j < CHUNK; j += 16) {
            const words up = sums_by_sign(chunk + j, &down);
            room |= (MOST - up) | (MOST - down); /* below zero: too much */
        }
    }
    return all_positive(room);
}

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (fours){__VA_ARGS__})
#endif

/* Four groups of four k of four columns, all inside. */
static inline void pack_square(uint8_t *at, size_t group_bytes, const int8_t *w, size_t stride_n)
{
    fours v[4];
    for (size_t j = 0; j < 4; j++)
        memcpy(&v[j], w + j * stride_n, sizeof v[j]);
    const fours a = SHUFFLE(v[0], v[1], 0, 4, 1, 5), b = SHUFFLE(v[2], v[3], 0, 4, 1, 5);
    const fours c = SHUFFLE(v[0], v[1], 2, 6, 3, 7), d = SHUFFLE(v[2], v[3], 2, 6, 3, 7);
    const fours groups[4] = {SHUFFLE(a, b, 0, 1, 4, 5), SHUFFLE(a, b, 2, 3, 6, 7),
                             SHUFFLE(c, d, 0, 1, 4, 5), SHUFFLE(c, d, 2, 3, 6, 7)};
    for (size_t g = 0; g < 4; g++)
        memcpy(at + g * group_bytes, &groups[g], sizeof groups[g]);
}

/* One group of four k of nr columns, all inside. */
static inline uint8_t *pack_whole(uint8_t *at, const int8_t *w, size_t stride_n, size_t nr)
{
    for (size_t j = 0; j < nr; j++, at += 4)
        memcpy(at, w + j * stride_n, 4);
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
    if (width == nr && stride_k == 1 && kr == 4) {
        for (; nr % 4 == 0 && k0 + 16 <= kc; k0 += 16, at += 16 * nr)
            for (size_t j = 0; j < nr; j += 4)
                pack_square(at + 4 * j, 4 * nr, tap + j * stride_n + k0, stride_n);
        for (; k0 + 4 <= kc; k0 += 4)
            at = pack_whole(at, tap + k0, stride_n, nr);
    }
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

/* The n weights of every column from k0 on. */
static uint8_t *pack_part(uint8_t *at, const columns *c, size_t k0, size_t n, size_t nr)
{
    return pack_tap(at, c->w + k0 * c->stride_k, c->n, n, c->stride_n, c->stride_k, nr, 4);
}

/* One tap of a panel and its tables, with `most` pairs; false: the weights are not safe. */
static bool pack_pairs(uint8_t **at, uint8_t **table, const columns *c, size_t kc, size_t most,
                       const qn_q8_igemm *kernel, uint32_t *sums)
{
    for (size_t k0 = 0; k0 < kc; k0 += QN_Q8_PAIRS_K) {
        const size_t n = part_of(kc, k0), groups = (n + 3) / 4;
        _Alignas(64) uint8_t plain[GROUPS * 4 * PAIRS_NR];
        uint16_t order[1 + GROUPS] = {0};
        if (most > 0) {
            pack_part(plain, c, k0, n, kernel->nr);
            if (!kernel->pairs(*at, order, plain, groups, most, sums))
                return false;
            *at += groups * 4 * kernel->nr;
        } else {
            *at = pack_part(*at, c, k0, n, kernel->nr);
            for (size_t g = 0; g < groups; g++)
                order[1 + g] = (uint16_t)(4 * g);
        }
        memcpy(*table, order, (1 + groups) * sizeof *order);
        *table += (1 + groups) * sizeof *order;
    }
    return true;
}

/* Pairs that every part of every panel may have: where rows are short they are as many everywhere,
 * as loops of a new length each time would cost more than pairs save. */
static __attribute__((cold, noinline)) size_t most_pairs(const columns *all, size_t kc, size_t ks,
                                                         size_t stride_p, const qn_q8_igemm *kernel)
{
    size_t most = GROUPS;
    if (kc > SHORT_K)
        return most;
    for (size_t n0 = 0; n0 < all->n; n0 += PAIRS_NR) {
        for (size_t p = 0; p < ks && most > 0; p++) {
            const columns c = {all->w + n0 * all->stride_n + p * stride_p,
                               all->n - n0 < PAIRS_NR ? all->n - n0 : PAIRS_NR, all->stride_n,
                               all->stride_k};
            _Alignas(64) uint8_t plain[SHORT_K * PAIRS_NR], packed[SHORT_K * PAIRS_NR];
            uint16_t order[1 + SHORT_K / 4] = {0};
            pack_part(plain, &c, 0, kc, PAIRS_NR);
            most = kernel->pairs(packed, order, plain, (kc + 3) / 4, most, NULL) ? order[0] : 0;
        }
    }
    return most;
}

/* Adds the sums of a tap's columns, packed from `packed` on by four k, and tells whether they are
 * safe. */
static __attribute__((noinline)) bool sum_packed(uint32_t *sums, const uint8_t *packed, size_t kc,
                                                 const qn_q8_igemm *kernel)
{
    const size_t groups = (kc + 3) / 4, group_bytes = 4 * kernel->nr;
    words room = {0};
    for (size_t n0 = 0; n0 < kernel->nr; n0 += 4) {
        for (size_t g0 = 0; g0 < groups; g0 += WORD_GROUPS) {
            const uint8_t *at = packed + g0 * group_bytes + 4 * n0;
            const size_t n = groups - g0 < WORD_GROUPS ? groups - g0 : WORD_GROUPS;
            words total = {0};
            for (size_t g = 0; g < n; g++, at += group_bytes) {
                words down;
                const words up = sums_by_sign((const int8_t *)at, &down);
                room |= (MOST - up) | (MOST - down);
                total += up - down;
            }
            for (size_t j = 0; j < 4; j++)
                sums[n0 + j] += (uint32_t)total[2 * j] + (uint32_t)total[2 * j + 1];
        }
    }
    return all_positive(room);
}

/* The same of columns as they lie: of forms that are packed byte by byte anyway. */
static __attribute__((cold, noinline)) bool sum_columns(uint32_t *sums, const columns *c, size_t kc)
{
    bool safe = true;
    for (size_t j = 0; j < c->n; j++) {
        const int8_t *const w = c->w + j * c->stride_n;
        safe = safe && pairs_are_safe(w, kc, c->stride_k);
        sums[j] += (uint32_t)qn__q8_gemm_sum(w, kc, c->stride_k);
    }
    return safe;
}

/* The columns of a tap are on their way from memory while those before are packed. */
static __attribute__((noinline)) void fetch_columns(const columns *c, size_t kc)
{
    for (size_t j = 0; j < c->n && c->stride_k == 1; j++)
        for (size_t k = 0; k < kc; k += 64)
            __builtin_prefetch(c->w + j * c->stride_n + k);
}

__attribute__((cold)) bool qn__q8_gemm_pack_weights(void *packed, const int8_t *w, size_t n,
                                                    size_t kc, size_t ks, size_t stride_n,
                                                    size_t stride_p, size_t stride_k,
                                                    const qn_q8_igemm *kernel, bool pairs,
                                                    uint32_t *sums)
{
    const size_t nr = kernel->nr, kr = kernel->kr;
    const columns all = {w, n, stride_n, stride_k};
    size_t panel_bytes = 0, most = 0;
    bool safe = true;
    if (!qn__q8_gemm_packed_bytes(&panel_bytes, nr, kc, ks, kernel))
        return false; /* whoever reserved the memory would have seen it */
    if (kernel->pairs != NULL && pairs && nr == PAIRS_NR)
        most = most_pairs(&all, kc, ks, stride_p, kernel);
    for (size_t n0 = 0; n0 < n; n0 += nr) {
        uint8_t *const panel = (uint8_t *)packed + n0 / nr * panel_bytes;
        uint8_t *at = panel + nr * (sizeof(int32_t) + sizeof(float));
        uint8_t *table = at + ks * ((kc + kr - 1) / kr * kr) * nr;
        uint32_t panel_sums[MAX_NR] = {0};
        const size_t width = n - n0 < nr ? n - n0 : nr;
        for (size_t p = 0; p < ks; p++) {
            const columns c = {w + n0 * stride_n + p * stride_p, width, stride_n, stride_k};
            const uint8_t *const tap = at;
            if (n - n0 >= 2 * nr) {
                const columns next = {c.w + nr * stride_n, nr, stride_n, stride_k};
                fetch_columns(&next, kc);
            }
            if (kernel->pairs == NULL)
                at = pack_tap(at, c.w, width, kc, stride_n, stride_k, nr, kr);
            else if (!pack_pairs(&at, &table, &c, kc, most, kernel, panel_sums))
                return false;
            if (sums != NULL && most == 0)
                safe &= kr == 4 && nr <= MAX_NR && nr % 4 == 0
                            ? sum_packed(panel_sums, tap, kc, kernel)
                            : sum_columns(panel_sums, &c, kc);
        }
        if (kernel->pairs != NULL)
            memset(table, 0, (size_t)(panel + panel_bytes - table));
        if (sums != NULL)
            memcpy(sums + n0, panel_sums, width * sizeof(uint32_t));
    }
    return safe;
}

__attribute__((cold)) void qn__q8_gemm_pack_heads(void *packed, const int32_t *base,
                                                  const float *scale, size_t n, size_t panel_bytes,
                                                  const qn_q8_igemm *kernel)
{
    const size_t nr = kernel->nr;
    uint8_t *panel = packed;
    for (size_t n0 = 0; n0 < n; n0 += nr, panel += panel_bytes) {
        const size_t width = n - n0 < nr ? n - n0 : nr;
        memset(panel, 0, nr * (sizeof(int32_t) + sizeof(float)));
        memcpy(panel, base + n0, width * sizeof(int32_t));
        memcpy(panel + nr * sizeof(int32_t), scale + n0, width * sizeof(float));
    }
}

void qn__q8_gemm_pack(void *packed, const int8_t *w, const int32_t *base, const float *scale,
                      size_t n, size_t kc, size_t ks, size_t stride_n, size_t stride_p,
                      size_t stride_k, const qn_q8_igemm *kernel, bool safe)
{
    size_t panel_bytes = 0;
    if (!qn__q8_gemm_packed_bytes(&panel_bytes, kernel->nr, kc, ks, kernel))
        return; /* whoever reserved the memory would have seen it */
    qn__q8_gemm_pack_weights(packed, w, n, kc, ks, stride_n, stride_p, stride_k, kernel, safe,
                             NULL);
    qn__q8_gemm_pack_heads(packed, base, scale, n, panel_bytes, kernel);
}

/* A table's distances: of whole groups, all of them among the first n. */
static bool distances_are_inside(const uint8_t *table, size_t n)
{
    const uint16_t most = (uint16_t)(4 * (n - 1));
    unsigned_words wrong = {0};
    for (; n >= 8; n -= 8, table += sizeof wrong) {
        unsigned_words v;
        memcpy(&v, table, sizeof v);
        wrong |= (v & 3) | (unsigned_words)(v > most);
    }
    uint16_t all = 0, rest[8] = {0};
    memcpy(rest, table, n * sizeof *rest);
    for (size_t j = 0; j < 8; j++)
        all |= wrong[j] | (rest[j] & 3) | (rest[j] > most);
    return all == 0;
}

__attribute__((cold)) bool qn__q8_gemm_packed_ok(const void *packed, size_t n, size_t kc, size_t ks,
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
                uint16_t n_pairs;
                memcpy(&n_pairs, table, sizeof n_pairs);
                const bool fine = 2 * (size_t)n_pairs <= groups &&
                                  distances_are_inside(table + sizeof n_pairs, groups);
                table += (1 + groups) * sizeof n_pairs;
                if (!fine)
                    return false;
            }
        }
    }
    return true;
}
