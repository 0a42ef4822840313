/* Packing of 8-bit GEMM weights: panels of nr columns, each nr bases and nr scales followed by the
 * weights: for each tap and each group of kr consecutive k, kr bytes of every column. */
#include "core/checked.h"
#include "kernel/kernel.h"

#include <string.h>

bool qn__q8_gemm_packed_bytes(size_t *out, size_t n, size_t kc, size_t ks, size_t nr, size_t kr)
{
    size_t bytes, k_up, panels;
    if (!qn_add_size(&k_up, kc, kr - 1) || !qn_mul_size(&bytes, k_up / kr * kr, ks) ||
        !qn_add_size(&bytes, bytes, sizeof(int32_t) + sizeof(float)) ||
        !qn_mul_size(&bytes, bytes, nr) || !qn_add_size(&panels, n, nr - 1))
        return false;
    return qn_mul_size(out, bytes, panels / nr);
}

/* Whether two neighbouring products, activations being 0..255, always stay within int16: sums of
 * the positive and of the negative weights of every pair, times 255. */
static inline bool pairs_are_safe(const int8_t *w, size_t kc, size_t stride_k)
{
    int32_t above = 0, below = 0;
    for (size_t k = 0; k + 1 < kc; k += 2) {
        const int32_t w0 = w[k * stride_k], w1 = w[(k + 1) * stride_k];
        const int32_t up = (w0 > 0 ? w0 : 0) + (w1 > 0 ? w1 : 0);
        const int32_t down = (w0 < 0 ? w0 : 0) + (w1 < 0 ? w1 : 0);
        above = up > above ? up : above;
        below = down < below ? down : below;
    }
    return above * 255 <= INT16_MAX && below * 255 >= INT16_MIN;
}

/* kr consecutive k of nr columns, all inside. */
static inline uint8_t *pack_whole(uint8_t *at, const int8_t *w, size_t stride_n, size_t nr,
                                  const size_t kr)
{
    for (size_t j = 0; j < nr; j++, at += kr)
        memcpy(at, w + j * stride_n, kr);
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
    for (; k0 < kc; k0 += kr)
        for (size_t j = 0; j < nr; j++)
            for (size_t k = k0; k < k0 + kr; k++)
                *at++ = j < width && k < kc ? (uint8_t)tap[j * stride_n + k * stride_k] : 0;
    return at;
}

bool qn__q8_gemm_pack(void *packed, const int8_t *w, const int32_t *base, const float *scale,
                      size_t n, size_t kc, size_t ks, size_t stride_n, size_t stride_p,
                      size_t stride_k, size_t nr, size_t kr)
{
    bool safe = true;
    uint8_t *at = packed;
    for (size_t n0 = 0; n0 < n; n0 += nr) {
        const size_t width = n - n0 < nr ? n - n0 : nr;
        memset(at, 0, nr * (sizeof(int32_t) + sizeof(float)));
        memcpy(at, base + n0, width * sizeof(int32_t));
        memcpy(at + nr * sizeof(int32_t), scale + n0, width * sizeof(float));
        at += nr * (sizeof(int32_t) + sizeof(float));
        for (size_t p = 0; p < ks; p++) {
            const int8_t *const tap = w + n0 * stride_n + p * stride_p;
            for (size_t j = 0; safe && j < width; j++)
                safe = stride_k == 1 ? pairs_are_safe(tap + j * stride_n, kc, 1)
                                     : pairs_are_safe(tap + j * stride_n, kc, stride_k);
            at = pack_tap(at, tap, width, kc, stride_n, stride_k, nr, kr);
        }
    }
    return safe;
}
