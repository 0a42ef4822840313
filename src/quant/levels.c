#include "quant/levels.h"

#include <math.h>
#include <string.h>

enum { MAX_POW2_BITS = 4 /* +-64; the 5 bits of +-2^14 leave int8 */ };

/* Adding and subtracting 1.5 * 2^23 rounds half to even, in a form that vectorizes. */
static const float MAGIC = 12582912.0f;

static const char *const set_names[] = {"uniform", "ternary", "pow2"};

const char *qn__level_set_name(qn_level_set set)
{
    return (size_t)set < sizeof(set_names) / sizeof(set_names[0]) ? set_names[set] : NULL;
}

bool qn__level_set_find(const char *name, qn_level_set *out)
{
    for (int i = 0; qn__level_set_name((qn_level_set)i) != NULL; i++) {
        if (strcmp(set_names[i], name) == 0) {
            *out = (qn_level_set)i;
            return true;
        }
    }
    return false;
}

const char *qn__levels_make(qn_level_set set, uint32_t bits, uint32_t clamp, qn_levels *out)
{
    static const uint32_t usual[] = {8, 2, MAX_POW2_BITS};
    bits = bits == 0 ? usual[set] : bits;
    if (bits < 2 || bits > 8)
        return "weights have 2 to 8 bits";
    if (set == QN_LEVELS_TERNARY && bits != 2)
        return "ternary weights have 2 bits";
    if (set == QN_LEVELS_POW2 && bits > MAX_POW2_BITS)
        return "power-of-two weights have 2 to 4 bits: larger powers do not fit in int8";
    if (clamp > 127)
        return "weights are clamped to 1 to 127";
    const int32_t count = (1 << (bits - 1)) - 1; /* magnitudes */
    int32_t qmax = set == QN_LEVELS_POW2 ? 1 << (count - 1) : count;
    while (clamp != 0 && qmax > (int32_t)clamp)
        qmax = set == QN_LEVELS_POW2 ? qmax / 2 : (int32_t)clamp;
    *out = (qn_levels){set, bits, qmax};
    return NULL;
}

int32_t qn__levels_magnitude(const qn_levels *levels, uint32_t i)
{
    return i == 0 ? 0 : levels->set == QN_LEVELS_POW2 ? 1 << (i - 1) : (int32_t)i;
}

uint32_t qn__levels_count(const qn_levels *levels)
{
    uint32_t count = 1;
    if (levels->set != QN_LEVELS_POW2)
        return (uint32_t)levels->qmax;
    while (1 << (count - 1) < levels->qmax)
        count++;
    return count;
}

uint32_t qn__levels_storage_bits(const qn_levels *levels)
{
    uint32_t bits = 2;
    while ((1 << (bits - 1)) - 1 < levels->qmax)
        bits++;
    return bits;
}

/* Nearest of 0, 1, 2, 4 .. top to r >= 0: the powers whose lower boundary (0.5, 1.5, 3, 6 ..) r has
 * passed. Ties: 0.5 to 0, 1.5 to 2, then up; written without a branch. */
static inline float nearest_power(float r, float top)
{
    float q = r > 0.5f ? 1.0f : 0.0f;
    q = r >= 1.5f ? 2.0f : q;
    q = r >= 3.0f ? 4.0f : q;
    q = r >= 6.0f ? 8.0f : q;
    q = r >= 12.0f ? 16.0f : q;
    q = r >= 24.0f ? 32.0f : q;
    q = r >= 48.0f ? 64.0f : q;
    return q > top ? top : q;
}

static inline float nearest_step(float r, float top)
{
    r = r > top ? top : r;
    r = r < -top ? -top : r;
    return (r + MAGIC) - MAGIC;
}

void qn__levels_round(const qn_levels *levels, const float *restrict w, size_t count, float scale,
                      int8_t *restrict q)
{
    const float top = (float)levels->qmax;
    if (levels->set == QN_LEVELS_POW2) {
        for (size_t i = 0; i < count; i++) {
            const float r = w[i] / scale;
            const float p = nearest_power(fabsf(r), top);
            q[i] = (int8_t)(int32_t)(r < 0 ? -p : p);
        }
        return;
    }
    for (size_t i = 0; i < count; i++)
        q[i] = (int8_t)(int32_t)nearest_step(w[i] / scale, top);
}

int8_t qn__levels_round_one(const qn_levels *levels, float w, float scale)
{
    int8_t q;
    qn__levels_round(levels, &w, 1, scale, &q);
    return q;
}

/* Sums in a few lanes of float32 over blocks short enough to keep six digits. */
qn_level_fit qn__levels_fit(const qn_levels *levels, const float *x, size_t count, float scale)
{
    enum { BLOCK = 256, LANES = 8 };
    int8_t q[BLOCK];
    qn_level_fit total = {0, 0};
    for (size_t i = 0; i < count; i += BLOCK) {
        const size_t n = count - i < BLOCK ? count - i : BLOCK;
        float xq[LANES] = {0};
        int32_t qq = 0;
        qn__levels_round(levels, x + i, n, scale, q);
        for (size_t j = 0; j < n / LANES * LANES; j += LANES)
            for (size_t l = 0; l < LANES; l++)
                xq[l] += x[i + j + l] * (float)q[j + l];
        for (size_t j = n / LANES * LANES; j < n; j++)
            xq[j % LANES] += x[i + j] * (float)q[j];
        for (size_t j = 0; j < n; j++)
            qq += q[j] * q[j];
        for (size_t l = 0; l < LANES; l++)
            total.xq += (double)xq[l];
        total.qq += qq;
    }
    return total;
}

double qn__levels_error(const qn_levels *levels, const float *w, size_t count, float scale)
{
    enum { BLOCK = 256 };
    int8_t q[BLOCK];
    double sum = 0;
    for (size_t i = 0; i < count; i += BLOCK) {
        const size_t n = count - i < BLOCK ? count - i : BLOCK;
        qn__levels_round(levels, w + i, n, scale, q);
        for (size_t j = 0; j < n; j++) {
            const double e = (double)w[i + j] - (double)q[j] * (double)scale;
            sum += e * e;
        }
    }
    return sum;
}
