/* Operands of BlockProduct: weights and activations in blocks, and how a product is accumulated. */
#pragma once

enum { TILE = 16 }; /* outputs at once */

typedef struct {
    Kernel base;
    const uint8_t *weights;
    const float *scales, *bias;
    int64_t depth, width, block, bits;
    int64_t group; /* weights of one integer sum: a block, or 64 of it */
    int64_t n_blocks, n_groups;
    int64_t row_size; /* bytes of W's row */
    int activation;
} BlockProduct;

typedef struct {
    const BlockProduct *self;
    const float *x;
    float *y;
    uint8_t *q;           /* of a few rows: in order; of many: as many_x stores them */
    float *scales;        /* of q: [groups, M], M rounded up; of a few rows [M, groups] */
    int32_t *corrections; /* zero point times the sum of a group of q: the same shape */
    int64_t rows, n_padded, parts;
    int failed;
} BlockCall;

INLINE Floats accumulate(Ints sums, Ints correction, Floats x_scale, Floats w_scale, Floats total) {
    const Floats exact = i_to_f(i_sub(sums, correction));
    return f_fma(f_mul(exact, x_scale), w_scale, total);
}

/* Copy the scales of sixteen outputs from n on to out [blocks][16]. */
static void gather_scales(const BlockProduct *self, int64_t n, float *out) {
    const int64_t stride = self->n_blocks;
    const float *from = self->scales + n * stride;
    for (int64_t i = 0; i < TILE * stride; i += LANES) PREFETCH(from + TILE * stride + i);
    int64_t b = 0;
    for (; b + 4 <= stride; b += 4) {
        Floats columns[4];
        f_four_columns(from + b, stride, columns);
        for (int j = 0; j < 4; j++) f_store(out + (b + j) * TILE, columns[j]);
    }
    for (; b < stride; b++)
        for (int i = 0; i < TILE; i++) out[b * TILE + i] = from[i * stride + b];
}

/* The first of the i-th sixteen outputs; the last ones overlap the ones before, where sixteen do
 * not divide the width.
 */
INLINE int64_t first_output(const BlockProduct *self, int64_t i) {
    return (i + 1) * TILE > self->width ? self->width - TILE : i * TILE;
}

/* From x's order to a group's even elements, then its odd ones: the order of 4-bit weights whose
 * bytes' low halves come first.
 */
static void even_first(const int8_t *in, int64_t n, int8_t *out) {
    for (int64_t i = 0; i < n / 2; i++) {
        out[i] = in[2 * i];
        out[n / 2 + i] = in[2 * i + 1];
    }
}

/* Quantize a block of x to q and return its scale. Numbers so small that 127 over the largest
 * overflows are taken for 0.
 */
static float quantize_block(const BlockProduct *self, const float *x, int8_t *q) {
    Floats max_abs = f_all(0), noted = f_all(0);
    for (int64_t k = 0; k < self->block; k += LANES) {
        const Floats v = f_load(x + k);
        noted = note_not_finite(noted, v);
        max_abs = f_max(max_abs, f_abs(v));
    }
    const float largest = f_sum(noted) != 0 ? NAN : f_largest(max_abs);
    const float factor = largest > 0 ? 127.0f / largest : 0.0f;
    const Floats by = f_all(factor < INFINITY ? factor : 0.0f);
    for (int64_t k = 0; k < self->block; k += LANES)
        i_store_s8(q + k, f_to_i(f_mul(f_load(x + k), by)));
    return largest / 127.0f;
}

/* Quantize x [K] to q, as MatMulNBits does, filled with 0 to a multiple of 64. Its scales and
 * corrections are stored `step` elements apart. Of 4 bits q has the order of `even_first`.
 */
static void quantize_blocks(const BlockProduct *self, const float *x, int8_t *q, float *scales,
                            int32_t *corrections, int64_t step) {
    const int32_t zero = self->bits == 8 ? 128 - W_OFFSET : 8;
    const int64_t group = self->group;
    for (int64_t k = 0; k < self->depth; k += self->block) {
        const float scale = quantize_block(self, x + k, q + k);
        for (int64_t g = k / group; g < (k + self->block) / group; g++) {
            int32_t sum = 0;
            for (int64_t i = 0; i < group; i++) sum += q[g * group + i];
            corrections[g * step] = zero * sum;
            scales[g * step] = scale;
            if (self->bits == 4) {
                int8_t in_order[UNIT];
                memcpy(in_order, q + g * group, (size_t)group);
                even_first(in_order, group, q + g * group);
            }
        }
    }
    memset(q + self->depth, 0, (size_t)(round_up(self->depth, UNIT) - self->depth));
}
