/* A few rows of BlockProduct: sixteen outputs at a time, on weights in the layout of the file. All
 * rows pass before the next weights are read.
 */
#pragma once

/* Sixteen outputs of row m from n on, for constant bits and n_parts. scales: [blocks][16]. */
INLINE Floats dot_parts(const BlockCall *call, int64_t m, int64_t n, int bits, int n_parts,
                        const float *scales) {
    const BlockProduct *self = call->self;
    const int64_t stride = self->row_size, per_block = self->block / self->group;
    const uint8_t *w = self->weights + n * stride;
    const int8_t *q = (const int8_t *)call->q + m * round_up(self->depth, UNIT);
    const float *x_scales = call->scales + m * self->n_groups;
    const int32_t *corrections = call->corrections + m * self->n_groups;
    Floats total = f_all(0);
    for (int64_t k = 0; k < self->depth; k += UNIT) {
        const uint8_t *from = w + k * bits / 8;
        int64_t row_size = stride;
        uint8_t tail[TILE * UNIT];
        int n_groups = n_parts;
        if (self->depth - k < UNIT) { /* what lies behind a row is another row, or nothing */
            const int64_t n_left = self->depth - k;
            for (int i = 0; i < TILE; i++)
                memcpy(tail + i * UNIT, from + i * stride, (size_t)(n_left * bits / 8));
            n_groups = (int)(n_left / self->group);
            from = tail;
            row_size = UNIT;
        } else if (m == 0) {
            /* of the next outputs as much as is read of these, in the order of memory */
            const uint8_t *next = w + TILE * stride + TILE * k * bits / 8;
            UNROLL
            for (int line = 0; line < TILE * bits / 8; line++) PREFETCH_FAR(next + UNIT * line);
        }
        BlockX x;
        Ints sums[4];
        block_x(&x, q + k, bits, n_parts);
        block_unit(from, row_size, bits, &x, n_parts, sums);
        UNROLL
        for (int i = 0; i < n_parts; i++) {
            if (i >= n_groups) break;
            const int64_t g = k / self->group + i;
            total = accumulate(sums[i], i_all(corrections[g]), f_all(x_scales[g]),
                               f_load(scales + g / per_block * TILE), total);
        }
    }
    return total;
}

static Floats dot_sixteen(const BlockCall *call, int64_t m, int64_t n, const float *scales) {
    const BlockProduct *self = call->self;
    /* Groups of 64, 32 and 16 weights. 48 is skipped: MatMulNBits has powers of two only. */
#define CASE(BITS, PARTS)                                    \
    if (self->bits == BITS && self->group == UNIT / PARTS) \
        return dot_parts(call, m, n, BITS, PARTS, scales);
    CASE(8, 1);
    CASE(8, 2);
    CASE(8, 4);
    CASE(4, 1);
    CASE(4, 2);
    CASE(4, 4);
#undef CASE
    return f_all(NAN); /* no graph has another size */
}

/* The part-th fraction of the outputs of all rows. */
static void multiply_few_blocks(void *data, size_t part) {
    BlockCall *call = data;
    const BlockProduct *self = call->self;
    const int64_t n_tiles = round_up(self->width, TILE) / TILE;
    const int64_t first = n_tiles * (int64_t)part / call->parts;
    const int64_t end = n_tiles * ((int64_t)part + 1) / call->parts;
    float *scales = take_scratch((size_t)(self->n_blocks * TILE) * sizeof(float));
    if (!scales) {
        call->failed = 1;
        return;
    }
    for (int64_t tile = first; tile < end; tile++) {
        const int64_t n = first_output(self, tile);
        gather_scales(self, n, scales);
        for (int64_t m = 0; m < call->rows; m++) {
            Floats total = dot_sixteen(call, m, n, scales);
            if (self->bias) total = f_add(total, f_load(self->bias + n));
            f_store(call->y + m * self->width + n, activate(self->activation, total));
        }
    }
    give_scratch(scales);
}

/* q: [M, K rounded up]; scales and corrections: [M, groups]. */
static OrtStatus *multiply_few_rows(OrtContext *context, BlockCall *call) {
    const BlockProduct *self = call->self;
    const int64_t padded = round_up(self->depth, UNIT), n_groups = self->n_groups;
    for (int64_t m = 0; m < call->rows; m++)
        quantize_blocks(self, call->x + m * self->depth, (int8_t *)call->q + m * padded,
                        call->scales + m * n_groups, call->corrections + m * n_groups, 1);
    call->parts = 2 * self->base.threads;
    return in_parallel(&self->base, context, multiply_few_blocks, (size_t)call->parts, call);
}
