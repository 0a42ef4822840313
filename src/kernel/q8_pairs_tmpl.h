/* Which groups of k of a panel may be added to each other in 16 bits (kernel.h): the body of a
 * qn_q8_pairs_fn, included once per instruction set after
 *   PAIRS_NAME   the function
 *   NO_SUM_OVER(a, b, most)   whether no byte of a plus that of b is above `most`, of which neither
 *                alone is, and
 *   ADD_SQUARES(up, down)   every lane of 32 bits: the sum of the squares of its four words, and
 *   HALVE_SUMS(to, from, n)   n (a multiple of four) sums of eight lanes, >> HEAVY_SHIFT: where
 *                the instruction set has them in fewer steps than C
 * Integers only: every instruction set packs the same bytes. */
#include "kernel/kernel.h"

#include <string.h>

enum {
    NR = 8,
    LANES = 4 * NR, /* bytes of a group; sums: positive and negative ones of two pairs of k */
    GROUPS = QN_Q8_PAIRS_K / 4,
    MOST = INT16_MAX / 255, /* the largest sum of weights of one sign: * 255 <= 32767 */
    /* How groups find partners: rounds of all at once, then so many tries for each. */
    ROUNDS = 2,
    TRIES = 64,
    /* Digits of a group's weight when they are sorted. */
    HEAVY_SHIFT = 7,
    DIGITS = 64,
    /* Groups whose sums of weights fit 16 bits. */
    WORD_GROUPS = 128,
};
_Static_assert((LANES / 2 * MOST * MOST) >> HEAVY_SHIFT < DIGITS * DIGITS, "two digits");

typedef int16_t pair_words __attribute__((vector_size(LANES)));
typedef uint16_t pair_uwords __attribute__((vector_size(LANES)));
typedef uint32_t pair_dwords __attribute__((vector_size(LANES)));
typedef uint8_t pair_bytes __attribute__((vector_size(LANES)));

#ifndef ADD_SQUARES
/* Of a pair that fits both squares do, too. */
#define SQUARES(up, down)                                                                          \
    ((pair_dwords)((pair_uwords)(up) * (pair_uwords)(up) +                                         \
                   (pair_uwords)(down) * (pair_uwords)(down)))
#define ADD_SQUARES(up, down) ((SQUARES(up, down) & 0xFFFF) + (SQUARES(up, down) >> 16))
#endif

/* Sums of positive and of negative weights of the pairs of k of every column, how heavy groups are,
 * and the sums of columns; whether no pair leaves int16. */
static bool weigh_groups(uint8_t (*sums)[LANES], uint16_t *heavy, const uint8_t *packed,
                         size_t groups, uint32_t *columns)
{
    pair_words room = {0};
    pair_dwords parts[WORD_GROUPS];
    for (size_t g0 = 0; g0 < groups; g0 += WORD_GROUPS) {
        const size_t end = groups - g0 < WORD_GROUPS ? groups : g0 + WORD_GROUPS;
        pair_words total = {0};
        for (size_t g = g0; g < end; g++) {
            pair_words v;
            memcpy(&v, packed + g * LANES, sizeof v);
            const pair_words first = (pair_words)((pair_uwords)v << 8) >> 8, second = v >> 8;
            const pair_words up = (first & (first > 0)) + (second & (second > 0));
            const pair_words down = up - first - second;
            const pair_words both = up | (pair_words)((pair_uwords)down << 8);
            memcpy(sums[g], &both, sizeof both);
            room |= (MOST - up) | (MOST - down); /* below zero: too much */
            total += first + second;
            parts[g - g0] = ADD_SQUARES(up, down);
        }
        size_t g = g0;
#ifdef HALVE_SUMS
        g += (end - g0) / 4 * 4;
        HALVE_SUMS(heavy + g0, parts, g - g0);
#endif
        for (; g < end; g++) {
            uint64_t quarter[4];
            memcpy(quarter, &parts[g - g0], sizeof quarter);
            const uint64_t sum = quarter[0] + quarter[1] + quarter[2] + quarter[3];
            heavy[g] = (uint16_t)(((uint32_t)sum + (uint32_t)(sum >> 32)) >> HEAVY_SHIFT);
        }
        for (size_t j = 0; columns != NULL && j < NR; j++)
            columns[j] += (uint32_t)total[2 * j] + (uint32_t)total[2 * j + 1];
    }
    int16_t least = 0;
    for (size_t j = 0; j < 2 * NR; j++)
        least |= room[j];
    return least >= 0;
}

static inline bool may_be_added(const uint8_t a[LANES], const uint8_t b[LANES])
{
#ifdef NO_SUM_OVER
    return NO_SUM_OVER(a, b, MOST);
#else
    pair_bytes x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    const pair_bytes over = (pair_bytes)(x > MOST - y);
    uint64_t any[4];
    memcpy(any, &over, sizeof any);
    return (any[0] | any[1] | any[2] | any[3]) == 0;
#endif
}

/* Groups from heavy to light, those that are as heavy as each other in order. */
static void sort_groups(uint16_t *by_weight, const uint16_t *heavy, size_t groups)
{
    uint16_t other[GROUPS], low[DIGITS] = {0}, high[DIGITS] = {0};
    for (size_t g = 0; g < groups; g++) {
        low[heavy[g] % DIGITS]++;
        high[heavy[g] / DIGITS]++;
    }
    uint16_t low_at = 0, high_at = 0;
    for (size_t d = DIGITS; d-- > 0;) {
        const uint16_t n_low = low[d], n_high = high[d];
        low[d] = low_at;
        high[d] = high_at;
        low_at = (uint16_t)(low_at + n_low);
        high_at = (uint16_t)(high_at + n_high);
    }
    for (size_t g = 0; g < groups; g++)
        other[low[heavy[g] % DIGITS]++] = (uint16_t)g;
    for (size_t i = 0; i < groups; i++)
        by_weight[high[heavy[other[i]] / DIGITS]++] = other[i];
}

/* Pairs the i-th of n heavy groups with the i-th of as many light ones, then what is left with its
 * neighbour's partner. No branch depends on weights: they could not be predicted. Returns how many
 * numbers were added to order, which has room for two more; *n: how many of each are left. */
static size_t pair_halves(uint16_t *order, uint16_t *heavy, uint16_t *light, size_t *n,
                          const uint8_t (*sums)[LANES])
{
    size_t n_paired = 0, count = *n;
    for (size_t round = 0; round < ROUNDS && count > 0; round++) {
        const size_t shift = round > 0;
        size_t left = 0;
        light[count] = light[0];
        for (size_t i = 0; i < count; i++) {
            const uint16_t g = heavy[i], h = light[i + shift];
            const bool fits = may_be_added(sums[g], sums[h]);
            order[n_paired] = g;
            order[n_paired + 1] = h;
            n_paired += fits ? 2 : 0;
            heavy[left] = g;
            light[left] = h;
            left += !fits;
        }
        count = left;
    }
    *n = count;
    return n_paired;
}

/* Fills order and returns how many pairs come first: a heavy group goes with a light one. */
static size_t pair_groups(uint16_t order[GROUPS + 2], const uint8_t (*sums)[LANES],
                          const uint16_t *heavy, size_t groups)
{
    uint16_t list[GROUPS], light[GROUPS / 2 + 1], single[GROUPS];
    sort_groups(list, heavy, groups);
    const uint16_t middle = list[groups / 2];
    size_t half = groups / 2, n_single = 0;
    for (size_t i = 0; i < half; i++)
        light[i] = list[groups - 1 - i];
    size_t n_paired = pair_halves(order, list, light, &half, sums);
    size_t left = half;
    if (groups % 2 != 0)
        list[left++] = middle;
    for (size_t i = half; i-- > 0;)
        list[left++] = light[i];
    for (size_t first = 0; first < left; first++) {
        const uint16_t g = list[first];
        size_t i = left;
        while (i > first + 1 && left - i < TRIES && !may_be_added(sums[g], sums[list[i - 1]]))
            i--;
        if (i == first + 1 || left - i == TRIES) {
            single[n_single++] = g;
            continue;
        }
        order[n_paired++] = g;
        order[n_paired++] = list[i - 1];
        for (left--; i <= left; i++)
            list[i - 1] = list[i];
    }
    memcpy(order + n_paired, single, n_single * sizeof *single);
    return n_paired / 2;
}

bool PAIRS_NAME(uint8_t *out, uint16_t *table, const uint8_t *packed, size_t groups, size_t most,
                uint32_t *columns)
{
    uint8_t sums[GROUPS][LANES];
    uint16_t heavy[GROUPS], order[GROUPS + 2];
    if (!weigh_groups(sums, heavy, packed, groups, columns))
        return false;
    const size_t pairs = groups > 0 ? pair_groups(order, sums, heavy, groups) : 0;
    table[0] = (uint16_t)(pairs < most ? pairs : most);
    for (size_t g = 0; g < groups; g++) {
        pair_bytes group; /* in one step where there are registers of its size */
        memcpy(&group, packed + order[g] * (size_t)LANES, LANES);
        memcpy(out + g * LANES, &group, LANES);
        table[1 + g] = (uint16_t)(4 * order[g]);
    }
    return true;
}
