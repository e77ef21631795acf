/* The matrix units of a CPU (AMX): eight tiles of sixteen rows of 64 bytes. */
#pragma once

#include <stdint.h>

enum { TILE = 16 }; /* rows */

extern int has_matrix_units; /* may this process use them? */

typedef struct { /* as _tile_loadconfig reads it */
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16]; /* of a tile's row */
    uint8_t rows[16];
} TileConfig;
