/* Many rows of RowProduct: 64 columns of W at a time are interleaved into the layout of AMX tiles,
 * or of VNNI, and used for every row.
 */
#include "row_product_many.h"

#include <string.h>

#include "../scratch.h"
#include "tiles.h"

enum { AHEAD = 16, STRIP = 4 }; /* rows of W to prefetch; blocks of columns in a part */

/* Row m of q for several rows: [M / 16][K / 64][16 rows][64]. */
static inline uint8_t *row_of(const RowCall *call, int64_t m) {
    return call->q + m / TILE * TILE * call->self->depth + m % TILE * DEPTH;
}

static void quantize_each(void *data, size_t row) {
    const RowCall *call = data;
    const float *x = call->x + (int64_t)row * call->self->depth;
    call->row_scales[row] = quantize_row(call->self, x, row_of(call, (int64_t)row), TILE * DEPTH);
}

/* Pack columns n to end of W as [N / 64][K / 64][4 groups of 16 columns][16 groups of 4 rows]
 * [16 columns][4 rows].
 */
static void pack(const RowProduct *self, int64_t n, int64_t end, int8_t *packed) {
    const int64_t stride = self->width;
    for (int64_t k = 0; k < self->depth; k += 4) {
        int8_t *out = packed + k / DEPTH * DEPTH * COLUMNS + k % DEPTH / 4 * 64;
        for (const int8_t *w = self->weights + k * stride + n; w < self->weights + k * stride + end;
             w += COLUMNS) {
            __m512i g[4];
            for (int r = 0; r < 4; r++)
                _mm_prefetch((const char *)(w + (AHEAD + r) * stride), _MM_HINT_T0);
            interleave(w, stride, g);
            in_order(g);
            for (int j = 0; j < 4; j++) _mm512_store_si512(out + j * TILE * 64, g[j]);
            out += self->depth * COLUMNS;
        }
    }
}

#ifdef __AMX_INT8__
/* 32 rows of q times 32 columns of W, from group j on, to sums [32][64]. */
static void multiply_block_amx(const RowProduct *self, const uint8_t *q, const int8_t *packed,
                               int j, int32_t *sums) {
    const int64_t depth = self->depth;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < depth; k += DEPTH) {
        const int8_t *w = packed + k * COLUMNS + j * TILE * 64;
        _tile_loadd(4, q + k * TILE, DEPTH);
        _tile_loadd(5, q + TILE * depth + k * TILE, DEPTH);
        _tile_loadd(6, w, 64);
        _tile_loadd(7, w + TILE * 64, 64);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    sums += j * TILE;
    _tile_stored(0, sums, COLUMNS * 4);
    _tile_stored(1, sums + TILE, COLUMNS * 4);
    _tile_stored(2, sums + TILE * COLUMNS, COLUMNS * 4);
    _tile_stored(3, sums + TILE * COLUMNS + TILE, COLUMNS * 4);
}
#endif

static void multiply_block_vnni(const RowProduct *self, const uint8_t *q, const int8_t *packed,
                                int j, int32_t *sums) {
    const int64_t depth = self->depth;
    for (int m = 0; m < 2 * TILE; m += 8) {
        __m512i sum[8][2];
        for (int i = 0; i < 8; i++) sum[i][0] = sum[i][1] = _mm512_setzero_si512();
        for (int64_t k = 0; k < depth; k += 4) {
            const int8_t *w =
                packed + k / DEPTH * DEPTH * COLUMNS + k % DEPTH / 4 * 64 + j * TILE * 64;
            const __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + TILE * 64);
            const uint8_t *q_rows = q + m / TILE * TILE * depth + k / DEPTH * TILE * DEPTH +
                                    m % TILE * DEPTH + k % DEPTH;
            for (int i = 0; i < 8; i++) {
                int32_t four;
                memcpy(&four, q_rows + i * DEPTH, 4);
                sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], _mm512_set1_epi32(four), w0);
                sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], _mm512_set1_epi32(four), w1);
            }
        }
        for (int i = 0; i < 8; i++)
            for (int half = 0; half < 2; half++)
                _mm512_store_si512(sums + (m + i) * COLUMNS + (j + half) * TILE, sum[i][half]);
    }
}

static void multiply_block(const RowProduct *self, const uint8_t *q, const int8_t *packed, int j,
                           int32_t *sums) {
#ifdef __AMX_INT8__
    if (has_amx_tiles) {
        multiply_block_amx(self, q, packed, j, sums);
        return;
    }
#endif
    multiply_block_vnni(self, q, packed, j, sums);
}

/* All rows times the 64 columns from n on, in `packed`. */
static void multiply_columns(const RowCall *call, int64_t n, const int8_t *packed) {
    const RowProduct *self = call->self;
    int32_t sums[2 * TILE * COLUMNS] __attribute__((aligned(64)));
    for (int64_t m = 0; m < call->rows; m += 2 * TILE) {
        multiply_block(self, row_of(call, m), packed, 0, sums);
        multiply_block(self, row_of(call, m), packed, 2, sums);
        const int64_t n_rows = call->rows - m < 2 * TILE ? call->rows - m : 2 * TILE;
        for (int64_t i = 0; i < n_rows; i++)
            for (int j = 0; j < 4; j++)
                finish(self, _mm512_load_si512(sums + i * COLUMNS + j * TILE),
                       call->row_scales[m + i], n + j * TILE, call->y + (m + i) * self->width);
    }
}

/* All rows times the part-th fraction of the columns. */
static void multiply_strip(void *data, size_t part) {
    RowCall *call = data;
    const RowProduct *self = call->self;
    const int64_t n_blocks = self->width / COLUMNS;
    const int64_t n = n_blocks * (int64_t)part / call->parts * COLUMNS;
    const int64_t end = n_blocks * ((int64_t)part + 1) / call->parts * COLUMNS;
    int8_t *packed = take_scratch((size_t)((end - n) * self->depth));
    if (!packed) {
        call->failed = 1;
        return;
    }
    pack(self, n, end, packed);
#ifdef __AMX_INT8__
    if (has_amx_tiles) {
        TileConfig config = {.palette = 1};
        for (int i = 0; i < 8; i++) {
            config.bytes[i] = 64;
            config.rows[i] = TILE;
        }
        _tile_loadconfig(&config);
    }
#endif
    for (int64_t i = n; i < end; i += COLUMNS)
        multiply_columns(call, i, packed + (i - n) * self->depth);
#ifdef __AMX_INT8__
    if (has_amx_tiles) _tile_release();
#endif
    give_scratch(packed);
}

OrtStatus *multiply_many(OrtContext *context, RowCall *call) {
    const RowProduct *self = call->self;
    const int64_t n_padded = (call->rows + 2 * TILE - 1) / (2 * TILE) * (2 * TILE);
    const int64_t n_blocks = self->width / COLUMNS, n_strips = (n_blocks + STRIP - 1) / STRIP;
    call->parts = n_strips > 2 * self->base.threads ? n_strips : 2 * self->base.threads;
    if (call->parts > n_blocks) call->parts = n_blocks;
    call->q = take_scratch((size_t)(n_padded * (self->depth + (int64_t)sizeof(float))));
    if (!call->q) return fail(self->base.api, "RowProduct: out of memory");
    call->row_scales = (float *)(call->q + n_padded * self->depth);
    OrtStatus *status = in_parallel(&self->base, context, quantize_each, (size_t)call->rows, call);
    if (!status)
        status = in_parallel(&self->base, context, multiply_strip, (size_t)call->parts, call);
    give_scratch(call->q);
    return !status && call->failed ? fail(self->base.api, "RowProduct: out of memory") : status;
}
