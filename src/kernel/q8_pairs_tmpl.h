/* Which groups of k of a panel may be added to each other in 16 bits (kernel.h): the body of a
 * qn_q8_pairs_fn, included once per instruction set after
 *   PAIRS_NAME   the function
 *   NO_SUM_OVER(a, b, most)   whether no byte of a plus that of b is above `most`, of which neither
 *                alone is, and
 *   SUM_SIGNS(v, up, down)   words: sums of the positive and of the negative bytes of every pair
 *   ADD_SQUARES(up, down)   every lane of 32 bits: the sum of the squares of its four words, and
 *   ADD_LANES(to, from, n)   n (a multiple of four) sums of eight lanes, and the result all of them
 *                together by "or": where the instruction set has them in fewer steps than C
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
    /* Groups are sorted by so many leading bits of their weights. */
    WEIGHT_BITS = 6,
    /* Groups whose sums of weights fit 16 bits. */
    WORD_GROUPS = 128,
};

typedef int16_t pair_words __attribute__((vector_size(LANES)));
typedef uint16_t pair_uwords __attribute__((vector_size(LANES)));
typedef uint32_t pair_dwords __attribute__((vector_size(LANES)));
typedef uint8_t pair_bytes __attribute__((vector_size(LANES)));

#ifndef SUM_SIGNS
#define SUM_SIGNS(v, up, down)                                                                     \
    do {                                                                                           \
        const pair_words first = (pair_words)((pair_uwords)(v) << 8) >> 8, second = (v) >> 8;      \
        (up) = (first & (first > 0)) + (second & (second > 0));                                    \
        (down) = (up)-first - second;                                                              \
    } while (0)
#endif
#ifndef ADD_SQUARES
/* Of a pair that fits both squares do, too. */
#define SQUARES(up, down)                                                                          \
    ((pair_dwords)((pair_uwords)(up) * (pair_uwords)(up) +                                         \
                   (pair_uwords)(down) * (pair_uwords)(down)))
#define ADD_SQUARES(up, down) ((SQUARES(up, down) & 0xFFFF) + (SQUARES(up, down) >> 16))
#endif

/* Sums of positive and of negative weights of the pairs of k of every column, how heavy groups are
 * (*top: all of them together by "or"), and the sums of columns; whether no pair leaves int16. */
static bool weigh_groups(uint8_t (*sums)[LANES], uint32_t *heavy, uint32_t *top,
                         const uint8_t *packed, size_t groups, uint32_t *columns)
{
    pair_words room = {0};
    pair_dwords parts[WORD_GROUPS];
    for (size_t g0 = 0; g0 < groups; g0 += WORD_GROUPS) {
        const size_t end = groups - g0 < WORD_GROUPS ? groups : g0 + WORD_GROUPS;
        pair_words total = {0};
        for (size_t g = g0; g < end; g++) {
            pair_words v, up, down;
            memcpy(&v, packed + g * LANES, sizeof v);
            SUM_SIGNS(v, up, down);
            const pair_words both = up | (pair_words)((pair_uwords)down << 8);
            memcpy(sums[g], &both, sizeof both);
            room |= (MOST - up) | (MOST - down); /* below zero: too much */
            total += up - down;
            parts[g - g0] = ADD_SQUARES(up, down);
        }
        size_t g = g0;
#ifdef ADD_LANES
        g += (end - g0) / 4 * 4;
        *top |= ADD_LANES(heavy + g0, parts, g - g0);
#endif
        for (; g < end; g++) {
            uint64_t quarter[4];
            memcpy(quarter, &parts[g - g0], sizeof quarter);
            const uint64_t sum = quarter[0] + quarter[1] + quarter[2] + quarter[3];
            heavy[g] = (uint32_t)sum + (uint32_t)(sum >> 32);
            *top |= heavy[g];
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

/* Groups from heavy to light, those that are about as heavy as each other in order. */
static void sort_groups(uint16_t *by_weight, const uint32_t *heavy, uint32_t top, size_t groups)
{
    uint16_t places[1 << WEIGHT_BITS] = {0}, at = 0;
    unsigned shift = 0;
    while (top >> shift >> WEIGHT_BITS != 0)
        shift++;
    for (size_t g = 0; g < groups; g++)
        places[heavy[g] >> shift]++;
    for (size_t d = 1 << WEIGHT_BITS; d-- > 0;) {
        const uint16_t n = places[d];
        places[d] = at;
        at = (uint16_t)(at + n);
    }
    for (size_t g = 0; g < groups; g++)
        by_weight[places[heavy[g] >> shift]++] = (uint16_t)g;
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
                          const uint32_t *heavy, uint32_t top, size_t groups)
{
    uint16_t list[GROUPS], light[GROUPS / 2 + 1], single[GROUPS];
    sort_groups(list, heavy, top, groups);
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
    _Alignas(LANES) uint8_t sums[GROUPS][LANES];
    uint32_t heavy[GROUPS], top = 0;
    uint16_t order[GROUPS + 2];
    if (!weigh_groups(sums, heavy, &top, packed, groups, columns))
        return false;
    const size_t pairs = groups > 0 ? pair_groups(order, sums, heavy, top, groups) : 0;
    table[0] = (uint16_t)(pairs < most ? pairs : most);
    for (size_t g = 0; g < groups; g++) {
        pair_bytes group; /* in one step where there are registers of its size */
        memcpy(&group, packed + order[g] * (size_t)LANES, LANES);
        memcpy(out + g * LANES, &group, LANES);
        table[1 + g] = (uint16_t)(4 * order[g]);
    }
    return true;
}
