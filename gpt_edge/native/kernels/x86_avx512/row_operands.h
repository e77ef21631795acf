/* What the two ways of RowProduct share: a few rows (row_product.c) and many (row_product_many.c). */
#pragma once

#include "../ort.h"
#include "vector.h"

enum { COLUMNS = 64, DEPTH = 64 }; /* of W, taken together */

typedef struct {
    Kernel base;
    const int8_t *weights;
    const float *scales, *bias;
    int32_t *corrections; /* [N]: zero point times the sum of a column */
    int64_t depth, width;
    int32_t zero_point;
    float high, low; /* row scale = max(high * max(x), low * min(x)); without low, high * max(|x|) */
    int is_symmetric, is_gelu;
} RowProduct;

typedef struct {
    const RowProduct *self;
    const float *x;
    float *y, *row_scales;
    uint8_t *q;    /* [M, K], rows up to a multiple of two tiles */
    int32_t *sums; /* of a few rows: [parts, M, N] */
    int64_t rows, parts;
    int failed;
} RowCall;

/* Four rows of 64 columns to groups [column][4 rows]; groups of 16 columns in order. */
static inline void interleave(const int8_t *w, int64_t stride, __m512i group[4]) {
    const __m512i r0 = _mm512_loadu_si512(w), r1 = _mm512_loadu_si512(w + stride);
    const __m512i r2 = _mm512_loadu_si512(w + 2 * stride), r3 = _mm512_loadu_si512(w + 3 * stride);
    const __m512i a = _mm512_unpacklo_epi8(r0, r1), b = _mm512_unpackhi_epi8(r0, r1);
    const __m512i c = _mm512_unpacklo_epi8(r2, r3), d = _mm512_unpackhi_epi8(r2, r3);
    group[0] = _mm512_unpacklo_epi16(a, c);
    group[1] = _mm512_unpackhi_epi16(a, c);
    group[2] = _mm512_unpacklo_epi16(b, d);
    group[3] = _mm512_unpackhi_epi16(b, d);
}

/* `interleave` leaves columns 16 i + 4 j to 16 i + 4 j + 3 in part i of group j; this puts them in order. */
static inline void in_order(__m512i g[4]) {
    const __m512i a = _mm512_shuffle_i32x4(g[0], g[1], 0x44), b = _mm512_shuffle_i32x4(g[2], g[3], 0x44);
    const __m512i c = _mm512_shuffle_i32x4(g[0], g[1], 0xee), d = _mm512_shuffle_i32x4(g[2], g[3], 0xee);
    g[0] = _mm512_shuffle_i32x4(a, b, 0x88);
    g[1] = _mm512_shuffle_i32x4(a, b, 0xdd);
    g[2] = _mm512_shuffle_i32x4(c, d, 0x88);
    g[3] = _mm512_shuffle_i32x4(c, d, 0xdd);
}

/* Sixteen columns of one row, from integer sums to the result. */
static inline void finish(const RowProduct *self, __m512i sum, float scale, int64_t n, float *y) {
    sum = _mm512_sub_epi32(sum, _mm512_load_si512(self->corrections + n));
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(self->scales + n));
    v = _mm512_mul_ps(v, _mm512_set1_ps(scale));
    if (self->bias) v = _mm512_add_ps(v, _mm512_loadu_ps(self->bias + n));
    _mm512_storeu_ps(y + n, self->is_gelu ? gelu_tanh16(v) : v);
}

/* Round x [K] to q, 64 values every `stride` bytes, and return its scale; NaN anywhere makes the scale NaN. */
float quantize_row(const RowProduct *self, const float *x, uint8_t *q, int64_t stride);
