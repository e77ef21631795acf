/* AMX: eight tiles of sixteen rows of 64 bytes. */
#pragma once

#include <stdint.h>

enum { TILE = 16 }; /* rows */

extern int has_amx_tiles; /* whether this process may use them; 0 until request_tiles */

void request_tiles(void); /* ask Linux for the tiles, once for the process */

typedef struct { /* as _tile_loadconfig reads it */
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16]; /* of a tile's row */
    uint8_t rows[16];
} TileConfig;
