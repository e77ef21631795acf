/* Integer products with AMX tiles (tdpbusd) for many rows, with AVX-512 VNNI for a few. */
#pragma once

#define TILES
#include "avx512.h"

typedef struct { /* as _tile_loadconfig reads it */
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16]; /* of a tile's row */
    uint8_t rows[16];
} TileConfig;

/* Eight tiles of sixteen rows of 64 bytes; of tiles 4 the number of rows, and of tiles 2 of bytes.
 */
INLINE void use_tiles(int rows, int bytes) {
    TileConfig config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.bytes[i] = i == 2 ? (uint16_t)bytes : 64;
        config.rows[i] = i == 4 ? (uint8_t)rows : 16;
    }
    _tile_loadconfig(&config);
}

/* Of rows: [M / 16][K / 64][16 rows][64]. Of blocks, as the other operand: [M / 16][K / 4][16][4].
 */
INLINE void many_x(uint8_t *to, int64_t m, int64_t n, const uint8_t *x, int is_rows) {
    to += m / 16 * 16 * n;
    if (is_rows) {
        for (int64_t k = 0; k < n; k += 64) memcpy(to + k * 16 + m % 16 * 64, x + k, 64);
    } else {
        for (int64_t k = 0; k < n; k += 4) memcpy(to + k * 16 + m % 16 * 4, x + k, 4);
    }
}

/* 32 rows of x times four panels of n rows, to sums [32][64]. */
INLINE void tile_block(const uint8_t *x, const uint8_t *panels, int64_t n, int32_t *sums) {
    for (int j = 0; j < 4; j += 2) {
        const uint8_t *w = panels + j * n * 16;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t k = 0; k < n; k += 64) {
            _tile_loadd(4, x + k * 16, 64);
            _tile_loadd(5, x + n * 16 + k * 16, 64);
            _tile_loadd(6, w + k * 16, 64);
            _tile_loadd(7, w + n * 16 + k * 16, 64);
            _tile_dpbusd(0, 4, 6);
            _tile_dpbusd(1, 4, 7);
            _tile_dpbusd(2, 5, 6);
            _tile_dpbusd(3, 5, 7);
        }
        int32_t *out = sums + j * 16;
        _tile_stored(0, out, 256);
        _tile_stored(1, out + 16, 256);
        _tile_stored(2, out + 16 * 64, 256);
        _tile_stored(3, out + 16 * 64 + 16, 256);
    }
}
