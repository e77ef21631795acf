/* Operands of RowProduct: weights, quantized rows, and the shuffles that reorder weights. */
#pragma once

#include "../ort.h"
#include "vector.h"

enum { COLUMNS = 64, DEPTH = 64 }; /* of W, handled together */

typedef struct {
    Kernel base;
    const int8_t *weights;
    const float *scales, *bias;
    int32_t *corrections; /* [N]: zero point times the sum of a column */
    int64_t depth, width;
    int32_t zero_point;
    float high, low; /* scale of a row: max(high * max(x), low * min(x)), or high * max(|x|) */
    int is_symmetric, is_gelu;
} RowProduct;

typedef struct {
    const RowProduct *self;
    const float *x;
    float *y, *row_scales;
    uint8_t *q;    /* [M, K], M rounded up to a multiple of two tiles */
    int32_t *sums; /* of a few rows: [parts, M, N] */
    int64_t rows, parts;
    int failed;
} RowCall;

/* Interleave four rows of 64 columns: 16 columns in each group, as [column][4 rows].
 *
 * unpack works within each quarter of 16 bytes. In quarter i, with column 0 short for 16 i:
 *
 *   r0:        column 0 of row 0, column 1, .., column 15;  r1, r2, r3: the same of rows 1, 2, 3
 *   a (r0 r1): columns 0..7, as column 0 of rows 0 1, column 1 of rows 0 1, ..;  b: columns 8..15
 *   c (r2 r3): columns 0..7 of rows 2 3;                                         d: columns 8..15
 *   group[0]:  columns 0..3 of rows 0 1 2 3       (a and c)
 *   group[1]:  columns 4..7                       (a and c)
 *   group[2]:  columns 8..11                      (b and d)
 *   group[3]:  columns 12..15                     (b and d)
 */
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

/* Reorder what `interleave` leaves: from columns 16 i + 4 j + (0..3) in quarter i of g[j], to the
 * same columns in quarter j of g[i], a transpose of 4 x 4 quarters. Written ij for these four
 * columns:
 *
 *   g[0] = 00 10 20 30      a (g0, g1) = 00 10 01 11      g[0] = 00 01 02 03      (a, b)
 *   g[1] = 01 11 21 31      b (g2, g3) = 02 12 03 13      g[1] = 10 11 12 13      (a, b)
 *   g[2] = 02 12 22 32      c (g0, g1) = 20 30 21 31      g[2] = 20 21 22 23      (c, d)
 *   g[3] = 03 13 23 33      d (g2, g3) = 22 32 23 33      g[3] = 30 31 32 33      (c, d)
 */
static inline void in_order(__m512i g[4]) {
    const __m512i a = _mm512_shuffle_i32x4(g[0], g[1], 0x44);
    const __m512i b = _mm512_shuffle_i32x4(g[2], g[3], 0x44);
    const __m512i c = _mm512_shuffle_i32x4(g[0], g[1], 0xee);
    const __m512i d = _mm512_shuffle_i32x4(g[2], g[3], 0xee);
    g[0] = _mm512_shuffle_i32x4(a, b, 0x88);
    g[1] = _mm512_shuffle_i32x4(a, b, 0xdd);
    g[2] = _mm512_shuffle_i32x4(c, d, 0x88);
    g[3] = _mm512_shuffle_i32x4(c, d, 0xdd);
}

/* Compute sixteen columns of one row from their integer sums. */
static inline void finish(const RowProduct *self, __m512i sum, float scale, int64_t n, float *y) {
    sum = _mm512_sub_epi32(sum, _mm512_load_si512(self->corrections + n));
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(self->scales + n));
    v = _mm512_mul_ps(v, _mm512_set1_ps(scale));
    if (self->bias) v = _mm512_add_ps(v, _mm512_loadu_ps(self->bias + n));
    _mm512_storeu_ps(y + n, self->is_gelu ? gelu_tanh16(v) : v);
}

/* Quantize x [K] to q, 64 values every `stride` bytes, and return its scale, NaN if x has any. */
float quantize_row(const RowProduct *self, const float *x, uint8_t *q, int64_t stride);
