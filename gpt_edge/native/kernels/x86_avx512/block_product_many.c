/* Many rows of BlockProduct: sixteen rows by sixteen outputs at a time, with AMX tiles if the CPU
 * has them.
 */
#include "block_product_many.h"

#include <string.h>

#include "../scratch.h"
#include "block_dot.h"

/* Quantize row m, as a column of its tiles [M / 16][groups][group / 4][16 rows][4], or in its own
 * order without tiles.
 */
static void quantize_each(void *data, size_t index) {
    BlockCall *call = data;
    const BlockProduct *self = call->self;
    const int64_t m = (int64_t)index;
    int8_t *q = take_scratch((size_t)self->depth);
    if (!q) {
        call->failed = 1;
        return;
    }
    quantize_blocks(self, call->x + m * self->depth, q, call->scales + m, call->corrections + m,
                    call->n_padded);
    if (has_amx_tiles) {
        int8_t *tiles = call->tiles + m / TILE * TILE * self->depth + m % TILE * 4;
        for (int64_t k = 0; k < self->depth; k += 4) memcpy(tiles + k * TILE, q + k, 4);
    } else {
        memcpy(call->tiles + m * self->depth, q, (size_t)self->depth);
    }
    give_scratch(q);
}

#ifdef __AMX_INT8__
/* Rows m to m + 15 times sixteen outputs, to out [outputs][rows]. w: rows of W `stride` bytes
 * apart, one byte a weight.
 */
static void multiply_tile_amx(const BlockCall *call, int64_t m, int64_t n, const uint8_t *w,
                              int64_t stride, const float *scales, float out[TILE][TILE]) {
    const BlockProduct *self = call->self;
    const int64_t group = self->group, per_block = self->block / group;
    const int8_t *x = call->tiles + m * self->depth;
    const uint8_t *next =
        self->weights +
        (n + TILE) * self->row_size; /* the next outputs' rows, prefetched once for all m */
    const int64_t chunk =
        m == 0 && n + 2 * TILE <= self->width ? TILE * self->row_size / self->n_groups : 0;
    int32_t sums[2][TILE * TILE] __attribute__((aligned(64)));
    __m512 total[TILE];
    UNROLL
    for (int i = 0; i < TILE; i++) total[i] = _mm512_setzero_ps();
    for (int64_t g = 0; g < self->n_groups; g++) {
        int32_t *sum = sums[g & 1];
        _tile_zero(0);
        _tile_loadd(2, w + g * group, stride);
        _tile_loadd(4, x + g * group * TILE, 64);
        _tile_dpbusd(0, 2, 4);
        _tile_stored(0, sum, 64);
        const __m512i correction = _mm512_loadu_si512(call->corrections + g * call->n_padded + m);
        const __m512 x_scale = _mm512_loadu_ps(call->scales + g * call->n_padded + m);
        const float *w_scale = scales + g / per_block * TILE;
        for (int64_t i = g * chunk; i < (g + 1) * chunk; i += 64)
            _mm_prefetch((const char *)(next + i), _MM_HINT_T0);
        UNROLL
        for (int i = 0; i < TILE; i++)
            total[i] = accumulate(_mm512_load_si512(sum + i * TILE), correction, x_scale,
                                  _mm512_set1_ps(w_scale[i]), total[i]);
    }
    UNROLL
    for (int i = 0; i < TILE; i++) {
        if (self->bias) total[i] = _mm512_add_ps(total[i], _mm512_set1_ps(self->bias[n + i]));
        _mm512_store_ps(out[i], total[i]);
    }
}

/* All rows times sixteen outputs. w, stride: as for `multiply_tile_amx`. */
static void multiply_by_tiles(const BlockCall *call, int64_t n, const uint8_t *w, int64_t stride,
                              const float *scales) {
    const BlockProduct *self = call->self;
    float out[TILE][TILE] __attribute__((aligned(64)));
    const TileConfig config = {
        .palette = 1, /* sums, weights and activations are tiles 0, 2 and 4 */
        .rows = {TILE, 0, TILE, 0, (uint8_t)(self->group / 4)},
        .bytes = {64, 0, (uint16_t)self->group, 0, 64},
    };
    _tile_loadconfig(&config);
    for (int64_t m = 0; m < call->rows; m += TILE) {
        multiply_tile_amx(call, m, n, w, stride, scales, out);
        const int64_t n_rows = call->rows - m < TILE ? call->rows - m : TILE;
        for (int64_t r = 0; r < n_rows; r++)
            for (int i = 0; i < TILE; i++) call->y[(m + r) * self->width + n + i] = out[i][r];
    }
    _tile_release();
}
#endif

static void multiply_by_vectors(const BlockCall *call, int64_t n, const uint8_t *w, int64_t stride,
                                const float *scales) {
    const BlockProduct *self = call->self;
    for (int64_t m = 0; m < call->rows; m++) {
        const Row row = {call->tiles + m * self->depth, call->scales + m, call->corrections + m,
                         call->n_padded};
        __m512 total = dot_sixteen(self, w, stride, 8, &row, scales, 0);
        if (self->bias) total = _mm512_add_ps(total, _mm512_loadu_ps(self->bias + n));
        _mm512_storeu_ps(call->y + m * self->width + n, total);
    }
}

/* All rows times the outputs from n to n + 15. */
static void multiply_tile(void *data, size_t tile) {
    BlockCall *call = data;
    const BlockProduct *self = call->self;
    const int64_t n =
        ((int64_t)tile + 1) * TILE > self->width ? self->width - TILE : (int64_t)tile * TILE;
    const size_t scales_size = (size_t)(self->n_blocks * TILE) * sizeof(float);
    float *scales = take_scratch(scales_size + (size_t)(TILE * self->depth));
    if (!scales) {
        call->failed = 1;
        return;
    }
    const uint8_t *w = self->weights + n * self->row_size;
    int64_t stride = self->row_size;
    gather_scales(self, n, scales);
    if (self->bits == 4) { /* expanded once for all rows */
        uint8_t *wide = (uint8_t *)scales + scales_size;
        for (int64_t i = 0; i < TILE; i++)
            for (int64_t k = 0; k < self->depth; k += UNIT)
                _mm512_storeu_si512(wide + i * self->depth + k,
                                    expand(self, w + i * self->row_size + k / 2));
        w = wide;
        stride = self->depth;
    }
#ifdef __AMX_INT8__
    if (has_amx_tiles) multiply_by_tiles(call, n, w, stride, scales);
    else
#endif
        multiply_by_vectors(call, n, w, stride, scales);
    give_scratch(scales);
}

OrtStatus *multiply_tiles(OrtContext *context, BlockCall *call) {
    const BlockProduct *self = call->self;
    const int64_t first_padded =
        call->rows / TILE * TILE; /* row of the last tile; its real rows are overwritten */
    memset(call->scales, 0, (size_t)(self->n_groups * call->n_padded) * sizeof(float));
    memset(call->corrections, 0, (size_t)(self->n_groups * call->n_padded) * sizeof(int32_t));
    memset(call->tiles + first_padded * self->depth, 0,
           (size_t)((call->n_padded - first_padded) * self->depth));
    TRY(in_parallel(&self->base, context, quantize_each, (size_t)call->rows, call));
    return in_parallel(&self->base, context, multiply_tile,
                       (size_t)((self->width + TILE - 1) / TILE), call);
}
