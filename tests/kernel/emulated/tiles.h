/* AMX in plain C: eight tiles of up to 16 rows of up to 64 bytes, in the sizes that
 * _tile_loadconfig was given. Tiles are the calling file's, which is one kernel. What kernels may
 * not count on is not kind to them: whatever a configuration leaves undefined traps, and rows
 * beyond a tile's stay untouched. */
#ifndef QN_TESTS_EMULATED_TILES_H
#define QN_TESTS_EMULATED_TILES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct emulated_tile {
    size_t rows, bytes;
    uint8_t data[16][64];
} emulated_tile;
static __attribute__((unused)) emulated_tile emulated_tiles[8];

static inline __attribute__((unused)) void _tile_loadconfig(const void *config)
{
    const uint8_t *const c = config; /* palette, first row; at 16 widths, at 48 rows */
    if (c[0] != 1 || c[1] != 0)
        __builtin_trap();
    for (size_t t = 0; t < 8; t++) {
        uint16_t bytes;
        memcpy(&bytes, c + 16 + 2 * t, sizeof(bytes));
        if (bytes > 64 || c[48 + t] > 16 || (bytes == 0) != (c[48 + t] == 0))
            __builtin_trap();
        emulated_tiles[t] = (emulated_tile){.rows = c[48 + t], .bytes = bytes};
    }
}

static inline __attribute__((unused)) void _tile_release(void)
{
    memset(emulated_tiles, 0, sizeof(emulated_tiles));
}

static inline emulated_tile *emulated_tile_at(size_t t)
{
    if (t >= 8 || emulated_tiles[t].rows == 0)
        __builtin_trap();
    return &emulated_tiles[t];
}

static inline __attribute__((unused)) void _tile_zero(size_t t)
{
    memset(emulated_tile_at(t)->data, 0, sizeof(emulated_tiles[t].data));
}

static inline __attribute__((unused)) void _tile_loadd(size_t t, const void *base, ptrdiff_t stride)
{
    emulated_tile *const to = emulated_tile_at(t);
    memset(to->data, 0, sizeof(to->data));
    for (size_t r = 0; r < to->rows; r++)
        memcpy(to->data[r], (const char *)base + (ptrdiff_t)r * stride, to->bytes);
}

static inline __attribute__((unused)) void _tile_stored(size_t t, void *base, ptrdiff_t stride)
{
    const emulated_tile *const from = emulated_tile_at(t);
    for (size_t r = 0; r < from->rows; r++)
        memcpy((char *)base + (ptrdiff_t)r * stride, from->data[r], from->bytes);
}

static inline int32_t emulated_byte(uint8_t byte, int is_signed)
{
    return is_signed ? (int8_t)byte : byte;
}

/* sums += a * b, groups of four neighbouring bytes of a's row against four of a column of b. */
static inline void emulated_products(size_t sums, size_t a, size_t b, int a_signed, int b_signed)
{
    emulated_tile *const c = emulated_tile_at(sums);
    const emulated_tile *const x = emulated_tile_at(a), *const w = emulated_tile_at(b);
    if (c->rows != x->rows || c->bytes != w->bytes || x->bytes != 4 * w->rows || sums == a ||
        sums == b || a == b)
        __builtin_trap();
    for (size_t r = 0; r < c->rows; r++)
        for (size_t n = 0; n < c->bytes; n += 4) {
            uint32_t sum;
            memcpy(&sum, &c->data[r][n], sizeof(sum));
            for (size_t k = 0; k < x->bytes; k++)
                sum += (uint32_t)(emulated_byte(x->data[r][k], a_signed) *
                                  emulated_byte(w->data[k / 4][n + k % 4], b_signed));
            memcpy(&c->data[r][n], &sum, sizeof(sum));
        }
}
#define _tile_dpbusd(sums, a, b) emulated_products(sums, a, b, 0, 1)
#define _tile_dpbuud(sums, a, b) emulated_products(sums, a, b, 0, 0)
#define _tile_dpbssd(sums, a, b) emulated_products(sums, a, b, 1, 1)

#endif
