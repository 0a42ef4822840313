/* Which samples of a larger set are used.
 *
 * Evenly spaced: sample floor(i * n / count) for i = 0 .. count - 1.
 *
 * Drawn with a seed: the first `count` steps of a Fisher-Yates shuffle of 0 .. n - 1 in which step
 * i swaps elements i and i + floor(r * (n - i) / 2^64), r being the next number of splitmix64
 * started at the seed (Steele, Lea, Flood 2014). The drawn indices are then sorted. */
#include "data/lists.h"

#include <stdlib.h>

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int compare_indices(const void *a, const void *b)
{
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

qn_status qn__select_samples(const qn_context *ctx, size_t n, size_t count, bool use_seed,
                             uint64_t seed, size_t *indices, qn_error *error)
{
    if (!use_seed) {
        for (size_t i = 0; i < count; i++)
            indices[i] = (size_t)((unsigned __int128)i * n / count);
        return QN_OK;
    }
    size_t *all = qn__calloc(ctx, n, sizeof(*all));
    if (all == NULL)
        return QN_NOMEM(error);
    for (size_t i = 0; i < n; i++)
        all[i] = i;
    for (size_t i = 0; i < count; i++) {
        const size_t j = i + (size_t)((unsigned __int128)splitmix64(&seed) * (n - i) >> 64);
        const size_t drawn = all[j];
        all[j] = all[i];
        all[i] = drawn;
        indices[i] = drawn;
    }
    qn__free(ctx, all);
    qsort(indices, count, sizeof(*indices), compare_indices);
    return QN_OK;
}
