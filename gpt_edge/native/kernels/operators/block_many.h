/* Many rows of BlockProduct: sixteen outputs at a time are packed into a panel, and used for every
 * row.
 */
#pragma once

#ifdef TILES
enum { BLOCK_TILE = 16 }; /* rows at once */
#else
enum { BLOCK_TILE = MANY_ROWS };
#endif

static void quantize_block_row(void *data, size_t index) {
    BlockCall *call = data;
    const BlockProduct *self = call->self;
    const int64_t m = (int64_t)index, padded = round_up(self->depth, UNIT);
    int8_t *q = take_scratch((size_t)padded);
    if (!q) {
        call->failed = 1;
        return;
    }
    quantize_blocks(self, call->x + m * self->depth, q, call->scales + m, call->corrections + m,
                    call->n_padded);
    many_x(call->q, m, padded, (const uint8_t *)q, 0);
    give_scratch(q);
}

/* Sixteen rows of W with a byte for each weight, filled with 0 to a multiple of 64; of 4 bits in
 * the order of `even_first`.
 */
static void widen(const BlockProduct *self, const uint8_t *w, uint8_t *wide) {
    const int64_t padded = round_up(self->depth, UNIT), half = self->group / 2;
    for (int i = 0; i < TILE; i++, w += self->row_size, wide += padded) {
        memset(wide + self->depth, 0, (size_t)(padded - self->depth));
        if (self->bits == 8) {
            memcpy(wide, w, (size_t)self->depth);
            continue;
        }
        for (int64_t k = 0; k < self->depth; k += self->group) {
            const uint8_t *bytes = w + k / 2;
            for (int64_t j = 0; j < half; j += 8) {
                uint64_t eight;
                memcpy(&eight, bytes + j, 8);
                const uint64_t low = eight & 0x0f0f0f0f0f0f0f0f;
                const uint64_t high = eight >> 4 & 0x0f0f0f0f0f0f0f0f;
                memcpy(wide + k + j, &low, 8);
                memcpy(wide + k + half + j, &high, 8);
            }
        }
    }
}

#ifndef TILES
/* Not inlined: see tile_of_rows. */
static __attribute__((noinline)) void tile_of_blocks(const uint8_t *x, int64_t row_size,
                                                     const uint8_t *panel, int64_t k, int64_t n,
                                                     Ints sums[MANY_ROWS]) {
    many_tile(x, row_size, panel, k, n, 0, sums);
}

/* All rows times the sixteen outputs of a panel, from n on. */
static void multiply_block_panel(const BlockCall *call, int64_t n, const uint8_t *panel,
                                 const float *scales) {
    const BlockProduct *self = call->self;
    const int64_t padded = round_up(self->depth, UNIT), per_block = self->block / self->group;
    /* of the next outputs as much as there is for each group, in the order of memory, while the
     * first rows are multiplied */
    const uint8_t *next = self->weights + (n + TILE) * self->row_size;
    const int64_t n_next = TILE * self->group * self->bits / 8;
    for (int64_t m = 0; m < call->rows; m += MANY_ROWS) {
        Floats total[MANY_ROWS];
        UNROLL
        for (int i = 0; i < MANY_ROWS; i++) total[i] = f_all(0);
        for (int64_t g = 0; g < self->n_groups; g++) {
            Ints sums[MANY_ROWS];
            if (m == 0)
                for (int64_t i = g * n_next; i < (g + 1) * n_next; i += 64) PREFETCH_FAR(next + i);
            tile_of_blocks(call->q + m * padded * X_SIZE, padded, panel, g * self->group,
                           self->group, sums);
            const Floats w_scale = f_load(scales + g / per_block * TILE);
            const float *x_scales = call->scales + g * call->n_padded + m;
            const int32_t *corrections = call->corrections + g * call->n_padded + m;
            UNROLL
            for (int i = 0; i < MANY_ROWS; i++)
                total[i] = accumulate(sums[i], i_all(corrections[i]), f_all(x_scales[i]), w_scale,
                                      total[i]);
        }
        for (int i = 0; i < MANY_ROWS && m + i < call->rows; i++) {
            if (self->bias) total[i] = f_add(total[i], f_load(self->bias + n));
            f_store(call->y + (m + i) * self->width + n, activate(self->activation, total[i]));
        }
    }
}
#endif

/* All rows times the index-th sixteen outputs. */
static void multiply_outputs(void *data, size_t index) {
    BlockCall *call = data;
    const BlockProduct *self = call->self;
    const int64_t n = first_output(self, (int64_t)index), padded = round_up(self->depth, UNIT);
    const size_t scales_size = (size_t)(self->n_blocks * TILE) * sizeof(float);
    float *scales = take_scratch(scales_size + (size_t)(TILE * padded * (1 + WEIGHT_SIZE)));
    if (!scales) {
        call->failed = 1;
        return;
    }
    gather_scales(self, n, scales);
    uint8_t *wide = (uint8_t *)scales + scales_size;
    const uint8_t *w = self->weights + n * self->row_size;
    int64_t stride = self->row_size;
    if (self->bits == 4 || padded != self->depth) {
        widen(self, w, wide);
        w = wide;
        stride = padded;
    }
#ifdef TILES
    multiply_block_tiles(call, n, w, stride, scales);
#else
    uint8_t *panel = wide + TILE * padded;
    many_pack_outputs(w, stride, padded, self->bits == 8, panel);
    multiply_block_panel(call, n, panel, scales);
#endif
    give_scratch(scales);
}

static OrtStatus *multiply_blocks(OrtContext *context, BlockCall *call) {
    const BlockProduct *self = call->self;
    const int64_t padded = round_up(self->depth, UNIT) * X_SIZE;
    /* rows past the last are computed and not used */
    const int64_t first_padded = call->rows / BLOCK_TILE * BLOCK_TILE;
    memset(call->scales, 0, (size_t)(self->n_groups * call->n_padded) * sizeof(float));
    memset(call->corrections, 0, (size_t)(self->n_groups * call->n_padded) * sizeof(int32_t));
    memset(call->q + first_padded * padded, 0, (size_t)((call->n_padded - first_padded) * padded));
    TRY(in_parallel(&self->base, context, quantize_block_row, (size_t)call->rows, call));
    return in_parallel(&self->base, context, multiply_outputs,
                       (size_t)(round_up(self->width, TILE) / TILE), call);
}
