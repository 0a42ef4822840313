/* Limit of AMX: tdpbusd on full tiles. */
#include "kernel/kernel.h"

#include <immintrin.h>
#include <string.h>

typedef struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t columns[16]; /* bytes */
    uint8_t rows[16];
} tile_config;

static uint32_t add_tile(const uint32_t lanes[256])
{
    uint32_t total = 0;
    for (size_t i = 0; i < 256; i++)
        total += lanes[i];
    return total;
}

uint32_t qn__q8_peak_amx(size_t n)
{
    tile_config config = {.palette = 1};
    uint8_t ones[1024];
    uint32_t sums[4][256];
    for (size_t i = 0; i < 6; i++) {
        config.columns[i] = 64;
        config.rows[i] = 16;
    }
    memset(ones, 1, sizeof(ones));
    __asm__ volatile("" : : "r"(ones) : "memory"); /* tile loads do not tell what they read */
    _tile_loadconfig(&config);
    _tile_loadd(4, ones, 64);
    _tile_loadd(5, ones, 64);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t i = 0; i < n; i++) {
        _tile_dpbuud(0, 4, 5);
        _tile_dpbuud(1, 4, 5);
        _tile_dpbuud(2, 4, 5);
        _tile_dpbuud(3, 4, 5);
    }
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
    _tile_release();
    __asm__ volatile("" : : "r"(sums) : "memory");
    return add_tile(sums[0]) + add_tile(sums[1]) + add_tile(sums[2]) + add_tile(sums[3]);
}
