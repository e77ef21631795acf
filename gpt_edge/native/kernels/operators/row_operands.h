/* Operands of RowProduct: weights, quantized rows, and how a result is made of an integer sum. */
#pragma once

typedef struct {
    Kernel base;
    const int8_t *weights;
    const float *scales, *bias;
    int32_t *corrections; /* [N]: zero point times the sum of a column */
    int64_t depth, width;
    int32_t zero_point;
    float high, low; /* scale of a row: max(high * max(x), low * min(x)), or high * max(|x|) */
    int is_symmetric, activation;
} RowProduct;

typedef struct {
    const RowProduct *self;
    const float *x;
    float *y, *row_scales;
    uint8_t *q;      /* of many rows: as many_x stores them; of a few: [M, padded depth] */
    int32_t *sums;   /* of one row: [parts, blocks of columns, COLUMNS]; of a few: [parts, M, ..] */
    int64_t rows, parts;
    int failed;
} RowCall;

/* The first of the i-th 64 columns; the last ones overlap the ones before, where 64 do not divide
 * the width.
 */
INLINE int64_t first_column(const RowProduct *self, int64_t i) {
    return (i + 1) * COLUMNS > self->width ? self->width - COLUMNS : i * COLUMNS;
}

/* Compute sixteen columns of one row from their integer sums. */
INLINE void finish(const RowProduct *self, Ints sum, float scale, int64_t n, float *y) {
    sum = i_sub(sum, i_load(self->corrections + n));
    Floats v = f_mul(i_to_f(sum), f_load(self->scales + n));
    v = f_mul(v, f_all(scale));
    if (self->bias) v = f_add(v, f_load(self->bias + n));
    f_store(y + n, activate(self->activation, v));
}

/* Quantize x [K] to q, filled to a multiple of 64 with what stands for 0, and return its scale: NaN
 * if x has any number that is not finite.
 */
static float quantize_row(const RowProduct *self, const float *x, uint8_t *q) {
    const int64_t depth = self->depth, padded = round_up(depth, UNIT);
    Floats high = f_all(0), low = f_all(0), noted = f_all(0);
    for (int64_t k = 0; k < depth; k += LANES) {
        const Floats v = load_some(x + k, depth - k);
        noted = note_not_finite(noted, v);
        high = f_max(high, self->is_symmetric ? f_abs(v) : v);
        low = f_min(low, v);
    }
    float scale = self->high * f_largest(high);
    if (!self->is_symmetric) scale = fmaxf(scale, self->low * f_smallest(low));
    if (f_sum(noted) != 0) scale = NAN;
    if (scale > 0) {
        const Floats by = f_all(scale);
        const Ints zero = i_all(self->zero_point);
        for (int64_t k = 0; k < depth; k += LANES)
            i_store_u8(q + k, i_add(f_to_i(f_div(load_some(x + k, depth - k), by)), zero));
    } else {
        memset(q, self->zero_point, (size_t)depth);
    }
    memset(q + depth, X_OFFSET, (size_t)(padded - depth));
    return scale;
}
