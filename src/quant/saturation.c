/* vpmaddubsw multiplies unsigned by signed bytes and adds products in pairs into a saturating
 * int16. Activations reach it as 0..255 (int8 ones are shifted by 128), so a pair of weights is
 * exact for every input when 255 * (sum of its positive weights) <= 32767 and 255 * (sum of its
 * negative weights) >= -32768: both sums within +-128. */
#include "quant/quant.h"

enum { PAIR_LIMIT = 128 };

static bool pair_safe(int a, int b)
{
    const int pos = (a > 0 ? a : 0) + (b > 0 ? b : 0);
    const int neg = (a < 0 ? a : 0) + (b < 0 ? b : 0);
    return pos <= PAIR_LIMIT && neg >= -PAIR_LIMIT;
}

bool qn__pairs_safe_any(const int8_t *q, size_t k)
{
    int top = 0, second = 0, low = 0, lower = 0; /* two largest, two smallest */
    for (size_t i = 0; i < k; i++) {
        const int v = q[i];
        if (v > top) {
            second = top;
            top = v;
        } else if (v > second) {
            second = v;
        }
        if (v < low) {
            lower = low;
            low = v;
        } else if (v < lower) {
            lower = v;
        }
    }
    return pair_safe(top, second) && pair_safe(low, lower);
}

bool qn__pairs_safe_adjacent(const int8_t *q, size_t k, size_t positions)
{
    if (positions == 1) {
        int worst =
            0; /* largest sum of one sign; the loop has no branch, so that it is vectorized */
        for (size_t i = 0; i + 1 < k; i += 2) {
            const int a = q[i], b = q[i + 1];
            const int pos = (a > 0 ? a : 0) + (b > 0 ? b : 0);
            const int neg = (a < 0 ? -a : 0) + (b < 0 ? -b : 0);
            worst = pos > worst ? pos : worst;
            worst = neg > worst ? neg : worst;
        }
        return worst <= PAIR_LIMIT;
    }
    const size_t cin = k / positions; /* channels-last: entry i is tap i / cin of channel i % cin */
    for (size_t i = 0; i < k; i += 2) {
        const size_t n = i + 1;
        const int a = q[i % cin * positions + i / cin];
        const int b = n < k ? q[n % cin * positions + n / cin] : 0;
        if (!pair_safe(a, b))
            return false;
    }
    return true;
}
