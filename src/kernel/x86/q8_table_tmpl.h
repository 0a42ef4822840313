/* 256-entry tables by shuffles of 16 bytes. Rows of the table are XORed with the one before: a byte
 * x below 128 gets the XOR of rows 0..x / 16, because x - 16 i has its top bit, which makes a
 * shuffle give zero, exactly for the rows behind. Bytes from 128 on do the same with the other half
 * of the table and x - 128.
 *
 * The including file defines TABLE (the function), V (a register), LOAD, STORE, ROW (16 bytes
 * repeated), SPLAT, XOR, LEAST, SUBTRACT (signed, saturating) and SHUFFLE. */
#include "kernel/kernel.h"

#include <immintrin.h>
#include <string.h>

/* Below LEAST bytes a load for each takes less time than preparing the rows. */
enum { VECTORS = 4 };

void TABLE(const uint8_t table[256], const uint8_t *src, uint8_t *dst, size_t n)
{
    uint8_t rows[256];
    size_t at = 0;
    if (n < LEAST) {
        for (; at < n; at++)
            dst[at] = table[src[at]];
        return;
    }
    memcpy(rows, table, sizeof(rows));
    for (size_t i = 16; i < 128; i++) {
        rows[i] ^= table[i - 16];
        rows[128 + i] ^= table[112 + i];
    }
    for (; at + VECTORS * sizeof(V) <= n; at += VECTORS * sizeof(V)) {
        V low[VECTORS], high[VECTORS], out[VECTORS];
#pragma GCC unroll 4
        for (size_t v = 0; v < VECTORS; v++) {
            low[v] = LOAD(src + at + v * sizeof(V));
            high[v] = XOR(low[v], SPLAT((char)0x80));
            out[v] = XOR(SHUFFLE(ROW(rows), low[v]), SHUFFLE(ROW(rows + 128), high[v]));
        }
        for (size_t i = 1; i < 8; i++) {
            const V a = ROW(rows + 16 * i), b = ROW(rows + 128 + 16 * i);
#pragma GCC unroll 4
            for (size_t v = 0; v < VECTORS; v++) {
                low[v] = SUBTRACT(low[v], SPLAT(16));
                high[v] = SUBTRACT(high[v], SPLAT(16));
                out[v] = XOR(out[v], XOR(SHUFFLE(a, low[v]), SHUFFLE(b, high[v])));
            }
        }
#pragma GCC unroll 4
        for (size_t v = 0; v < VECTORS; v++)
            STORE(dst + at + v * sizeof(V), out[v]);
    }
    for (; at < n; at++)
        dst[at] = table[src[at]];
}
