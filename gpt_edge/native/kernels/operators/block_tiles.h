/* Many rows of BlockProduct with AMX tiles: sixteen rows by sixteen outputs at a time. */
#pragma once

/* Rows m to m + 15 times sixteen outputs, to out [outputs][rows]. w: rows of W `stride` bytes
 * apart, one byte a weight.
 */
static void multiply_tile(const BlockCall *call, int64_t m, int64_t n, const uint8_t *w,
                          int64_t stride, const float *scales, float out[TILE][TILE]) {
    const BlockProduct *self = call->self;
    const int64_t group = self->group, per_block = self->block / group;
    const uint8_t *x = call->q + m * round_up(self->depth, UNIT);
    /* the next outputs' rows, prefetched once for all m */
    const uint8_t *next = self->weights + (n + TILE) * self->row_size;
    const int64_t chunk =
        m == 0 && n + 2 * TILE <= self->width ? TILE * self->row_size / self->n_groups : 0;
    int32_t sums[2][TILE * TILE] __attribute__((aligned(64)));
    Floats total[TILE];
    UNROLL
    for (int i = 0; i < TILE; i++) total[i] = f_all(0);
    for (int64_t g = 0; g < self->n_groups; g++) {
        int32_t *sum = sums[g & 1];
        _tile_zero(0);
        _tile_loadd(2, w + g * group, stride);
        _tile_loadd(4, x + g * group * TILE, 64);
        _tile_dpbusd(0, 2, 4);
        _tile_stored(0, sum, 64);
        const Ints correction = i_load(call->corrections + g * call->n_padded + m);
        const Floats x_scale = f_load(call->scales + g * call->n_padded + m);
        const float *w_scale = scales + g / per_block * TILE;
        for (int64_t i = g * chunk; i < (g + 1) * chunk; i += 64) PREFETCH(next + i);
        UNROLL
        for (int i = 0; i < TILE; i++)
            total[i] = accumulate(i_load(sum + i * TILE), correction, x_scale, f_all(w_scale[i]),
                                  total[i]);
    }
    UNROLL
    for (int i = 0; i < TILE; i++) {
        if (self->bias) total[i] = f_add(total[i], f_all(self->bias[n + i]));
        f_store(out[i], total[i]);
    }
    for (int i = 0; i < TILE; i++) f_store(out[i], activate(self->activation, f_load(out[i])));
}

/* All rows times sixteen outputs. w, stride: as for `multiply_tile`. */
static void multiply_block_tiles(const BlockCall *call, int64_t n, const uint8_t *w, int64_t stride,
                                 const float *scales) {
    const BlockProduct *self = call->self;
    float out[TILE][TILE] __attribute__((aligned(64)));
    use_tiles((int)(self->group / 4), (int)self->group);
    for (int64_t m = 0; m < call->rows; m += TILE) {
        multiply_tile(call, m, n, w, stride, scales, out);
        const int64_t n_rows = call->rows - m < TILE ? call->rows - m : TILE;
        for (int64_t r = 0; r < n_rows; r++)
            for (int i = 0; i < TILE; i++) call->y[(m + r) * self->width + n + i] = out[i][r];
    }
    _tile_release();
}
