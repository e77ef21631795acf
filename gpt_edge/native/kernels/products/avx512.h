/* Integer products with AVX-512 VNNI: four products of bytes in a lane (vpdpbusd), exact. */
#pragma once

#include "common.h"

enum { X_OFFSET = 0, W_OFFSET = 0 };

typedef struct {
    int32_t fours[4]; /* four bytes each */
} FewX;

INLINE void few_x(FewX *x, const uint8_t *q) { memcpy(x->fours, q, 16); }

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
INLINE void interleave(const int8_t *const rows[4], int64_t n, __m512i group[4]) {
    const __m512i r0 = _mm512_loadu_si512(rows[0] + n), r1 = _mm512_loadu_si512(rows[1] + n);
    const __m512i r2 = _mm512_loadu_si512(rows[2] + n), r3 = _mm512_loadu_si512(rows[3] + n);
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
INLINE void few_order(Ints g[4]) {
    const __m512i a = _mm512_shuffle_i32x4(g[0], g[1], 0x44);
    const __m512i b = _mm512_shuffle_i32x4(g[2], g[3], 0x44);
    const __m512i c = _mm512_shuffle_i32x4(g[0], g[1], 0xee);
    const __m512i d = _mm512_shuffle_i32x4(g[2], g[3], 0xee);
    g[0] = _mm512_shuffle_i32x4(a, b, 0x88);
    g[1] = _mm512_shuffle_i32x4(a, b, 0xdd);
    g[2] = _mm512_shuffle_i32x4(c, d, 0x88);
    g[3] = _mm512_shuffle_i32x4(c, d, 0xdd);
}

INLINE void few_product(const int8_t *w, int64_t stride, const FewX *x, int64_t n_rows,
                        int64_t sums_stride, int32_t *sums) {
    __m512i g[4][4];
    UNROLL
    for (int four = 0; four < 4; four++) {
        const int8_t *from = w + 4 * four * stride;
        const int8_t *const rows[4] = {from, from + stride, from + 2 * stride, from + 3 * stride};
        interleave(rows, 0, g[four]);
    }
    for (int64_t row = 0; row < n_rows; row++) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            int32_t *total = sums + row * sums_stride + 16 * j;
            __m512i sum = _mm512_loadu_si512(total);
            UNROLL
            for (int four = 0; four < 4; four++)
                sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi32(x[row].fours[four]), g[four][j]);
            _mm512_storeu_si512(total, sum);
        }
    }
}

/* One row of x times the four rows of W from `row` of sixteen on: from memory, fewer rows at a time
 * are read faster.
 */
#define ONE_ROWS 4
#define ONE_AHEAD(stride) 12288 /* bytes; 6 and 24 KB are no better */
INLINE void one_product(const int8_t *w, int64_t stride, const FewX *x, int row, int32_t *sums) {
    const int8_t *const rows[4] = {w, w + stride, w + 2 * stride, w + 3 * stride};
    __m512i g[4];
    interleave(rows, 0, g);
    const __m512i four = _mm512_set1_epi32(x->fours[row / 4]);
    UNROLL
    for (int j = 0; j < 4; j++)
        _mm512_storeu_si512(sums + 16 * j,
                            _mm512_dpbusd_epi32(_mm512_loadu_si512(sums + 16 * j), four, g[j]));
}

/* Panels are [K / 4][16 columns][4]. */
enum { MANY_ROWS = 12, WEIGHT_SIZE = 1, X_SIZE = 1 };
#ifdef TILES
enum { FEW_4_BITS = 8, FEW_8_BITS = 1 };
#else
enum { FEW_4_BITS = 16, FEW_8_BITS = 16 };
#endif

#ifndef TILES
INLINE void many_x(uint8_t *to, int64_t m, int64_t n, const uint8_t *x, int is_rows) {
    (void)is_rows;
    memcpy(to + m * n, x, (size_t)n);
}
#endif

INLINE void many_pack_rows(const int8_t *const rows[8], int64_t k, int64_t panel_size,
                           uint8_t *panels) {
    for (int four = 0; four < 8; four += 4) {
        __m512i g[4];
        interleave(rows + four, 0, g);
        few_order(g);
        for (int j = 0; j < 4; j++)
            _mm512_storeu_si512(panels + j * panel_size + (k + four) * 16, g[j]);
    }
}

INLINE void many_pack_outputs(const uint8_t *w, int64_t stride, int64_t n, int is_wide,
                              uint8_t *panel) {
    (void)is_wide;
    const __m512i outputs = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i offsets = _mm512_mullo_epi32(outputs, _mm512_set1_epi32((int)stride));
    for (int64_t k = 0; k < n; k += 4)
        _mm512_storeu_si512(panel + k * 16, _mm512_i32gather_epi32(offsets, w + k, 1));
}

INLINE void many_tile(const uint8_t *x, int64_t row_size, const uint8_t *panel, int64_t k,
                      int64_t n, int is_rows, Ints sums[MANY_ROWS]) {
    /* in registers: in `sums` they would be stored at every step, as x may be the same memory */
    __m512i sum[MANY_ROWS];
    UNROLL
    for (int row = 0; row < MANY_ROWS; row++) sum[row] = _mm512_setzero_si512();
    for (int64_t i = k; i < k + n; i += 4) {
        const __m512i w = _mm512_loadu_si512(panel + i * 16);
        UNROLL
        for (int row = 0; row < MANY_ROWS; row++) {
            int32_t bytes;
            memcpy(&bytes, x + row * row_size + i, 4);
            const __m512i four = _mm512_set1_epi32(bytes);
            sum[row] = is_rows ? _mm512_dpbusd_epi32(sum[row], four, w)
                               : _mm512_dpbusd_epi32(sum[row], w, four);
        }
    }
    UNROLL
    for (int row = 0; row < MANY_ROWS; row++) sums[row] = sum[row];
}

typedef struct {
    __m512i x, words, shifts;
} BlockX;

/* words, shifts: how 32 bytes become 64 weights of 4 bits, a byte each.
 *
 * Byte i of a part holds weight 2 i in its low half and weight 2 i + 1 in its high half. So a
 * part's bytes are copied twice, the first copy is masked and the second shifted: first the even
 * weights, then the odd ones. x has that order, too. By words of eight bytes w0..w3:
 *
 *   parts   words                         shifts
 *   1       w0 w1 w2 w3  w0 w1 w2 w3      0 0 0 0  4 4 4 4
 *   2       w0 w1 w0 w1  w2 w3 w2 w3      0 0 4 4  0 0 4 4
 *   4       w0 w0 w1 w1  w2 w2 w3 w3      0 4 0 4  0 4 0 4
 */
INLINE void block_x(BlockX *x, const int8_t *q, int bits, int n_parts) {
    (void)bits;
    x->x = _mm512_loadu_si512(q);
    if (n_parts == 1) {
        x->words = _mm512_setr_epi64(0, 1, 2, 3, 0, 1, 2, 3);
        x->shifts = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
    } else if (n_parts == 2) {
        x->words = _mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3);
        x->shifts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
    } else {
        x->words = _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3);
        x->shifts = _mm512_setr_epi64(0, 4, 0, 4, 0, 4, 0, 4);
    }
}

INLINE __m512i load_weights(const uint8_t *w, int bits, const BlockX *x) {
    if (bits == 8) return _mm512_loadu_si512(w);
    const __m512i bytes = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)w));
    const __m512i copies = _mm512_srlv_epi64(_mm512_permutexvar_epi64(x->words, bytes), x->shifts);
    return _mm512_and_si512(copies, _mm512_set1_epi8(15));
}

/* For each of sixteen vectors v0..v15, the sums of its n_parts parts: all lanes (1), halves (2) or
 * quarters (4). out[p] = [part p of v0, .., part p of v15].
 *
 * a and b add within each quarter, as f_sum_quarters does: quarter q of b[i] is [v4i, .., v4i+3],
 * the sums of these vectors' lanes in quarter q. Written vq for four vectors, w0..w3 for the next
 * four:
 *
 *   b:              v0 v1 v2 v3
 *   c[0], c[1]:     v0 v2 w0 w2      for vectors 0..7 and 8..15
 *   c[2], c[3]:     v1 v3 w1 w3
 *   n_parts 4:      out[0] = v0 w0 x0 y0, out[1] = v1 w1 x1 y1, out[2] = v2 .., out[3] = v3 ..
 *   n_parts 2:      c[0] + c[2] = v0+v1 v2+v3 w0+w1 w2+w3; out[0] first halves, out[1] second
 *   n_parts 1:      out[0] + out[1]
 */
INLINE void sum_parts(const __m512i v[16], int n_parts, __m512i out[4]) {
    __m512i a[8], b[4], c[4];
    UNROLL
    for (int i = 0; i < 8; i++)
        a[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                                _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    UNROLL
    for (int i = 0; i < 4; i++)
        b[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(a[2 * i], a[2 * i + 1]),
                                _mm512_unpackhi_epi64(a[2 * i], a[2 * i + 1]));
    UNROLL
    for (int i = 0; i < 2; i++) {
        c[i] = _mm512_shuffle_i32x4(b[2 * i], b[2 * i + 1], 0x88);
        c[2 + i] = _mm512_shuffle_i32x4(b[2 * i], b[2 * i + 1], 0xdd);
    }
    if (n_parts == 4) {
        out[0] = _mm512_shuffle_i32x4(c[0], c[1], 0x88);
        out[1] = _mm512_shuffle_i32x4(c[2], c[3], 0x88);
        out[2] = _mm512_shuffle_i32x4(c[0], c[1], 0xdd);
        out[3] = _mm512_shuffle_i32x4(c[2], c[3], 0xdd);
        return;
    }
    c[0] = _mm512_add_epi32(c[0], c[2]);
    c[1] = _mm512_add_epi32(c[1], c[3]);
    out[0] = _mm512_shuffle_i32x4(c[0], c[1], 0x88);
    out[1] = _mm512_shuffle_i32x4(c[0], c[1], 0xdd);
    if (n_parts == 1) out[0] = _mm512_add_epi32(out[0], out[1]);
}

INLINE void block_unit(const uint8_t *w, int64_t stride, int bits, const BlockX *x, int n_parts,
                       Ints sums[4]) {
    __m512i products[16];
    UNROLL
    for (int i = 0; i < 16; i++)
        products[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(),
                                          load_weights(w + i * stride, bits, x), x->x);
    sum_parts(products, n_parts, sums);
}
