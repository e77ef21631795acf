/* Integer products with AVX-VNNI: four products of bytes in a lane (vpdpbusd), exact. */
#pragma once

#include "avx2_common.h"

enum { X_OFFSET = 0, W_OFFSET = 0 };

typedef struct {
    int32_t fours[4]; /* four bytes each */
} FewX;

INLINE void few_x(FewX *x, const uint8_t *q) { memcpy(x->fours, q, 16); }

/* Four rows of 32 columns from n on as [column][4 rows]: v[j] has columns 4 j to 4 j + 3, and
 * sixteen more in its second half.
 */
INLINE void interleave_four(const int8_t *const rows[4], int64_t n, __m256i v[4]) {
    const __m256i r0 = load_bytes(rows[0] + n), r1 = load_bytes(rows[1] + n);
    const __m256i r2 = load_bytes(rows[2] + n), r3 = load_bytes(rows[3] + n);
    const __m256i a = _mm256_unpacklo_epi8(r0, r1), b = _mm256_unpackhi_epi8(r0, r1);
    const __m256i c = _mm256_unpacklo_epi8(r2, r3), d = _mm256_unpackhi_epi8(r2, r3);
    v[0] = _mm256_unpacklo_epi16(a, c);
    v[1] = _mm256_unpackhi_epi16(a, c);
    v[2] = _mm256_unpacklo_epi16(b, d);
    v[3] = _mm256_unpackhi_epi16(b, d);
}

INLINE void few_product(const int8_t *w, int64_t stride, const FewX *x, int64_t n_rows,
                        int64_t sums_stride, int32_t *sums) {
    UNROLL
    for (int n = 0; n < COLUMNS; n += 32) {
        __m256i v[4][4];
        UNROLL
        for (int four = 0; four < 4; four++) {
            const int8_t *from = w + 4 * four * stride;
            const int8_t *const rows[4] = {from, from + stride, from + 2 * stride,
                                           from + 3 * stride};
            interleave_four(rows, n, v[four]);
        }
        for (int64_t row = 0; row < n_rows; row++) {
            UNROLL
            for (int j = 0; j < 4; j++) {
                __m256i *total = (__m256i *)(sums + row * sums_stride + n + 8 * j);
                __m256i sum = _mm256_loadu_si256(total);
                UNROLL
                for (int four = 0; four < 4; four++)
                    sum = _mm256_dpbusd_avx_epi32(sum, _mm256_set1_epi32(x[row].fours[four]),
                                                  v[four][j]);
                _mm256_storeu_si256(total, sum);
            }
        }
    }
}

INLINE void few_order(Ints sums[4]) {
    UNROLL
    for (int h = 0; h < 4; h += 2) {
        const Ints a = sums[h], b = sums[h + 1];
        sums[h] = (Ints){first_halves(a.a, a.b), first_halves(b.a, b.b)};
        sums[h + 1] = (Ints){second_halves(a.a, a.b), second_halves(b.a, b.b)};
    }
}

/* Panels are [K / 4][16 columns][4]. */
enum { MANY_ROWS = 6, WEIGHT_SIZE = 1, X_SIZE = 1, FEW_4_BITS = 8, FEW_8_BITS = 1 };

INLINE void many_x(uint8_t *to, int64_t m, int64_t n, const uint8_t *x, int is_rows) {
    (void)is_rows;
    memcpy(to + m * n, x, (size_t)n);
}

INLINE void many_pack_rows(const int8_t *const rows[8], int64_t k, int64_t panel_size,
                           uint8_t *panels) {
    for (int n = 0; n < COLUMNS; n += 32)
        for (int four = 0; four < 8; four += 4) {
            __m256i v[4];
            interleave_four(rows + four, n, v);
            uint8_t *out = panels + n / 16 * panel_size + (k + four) * 16;
            _mm256_storeu_si256((__m256i *)out, first_halves(v[0], v[1]));
            _mm256_storeu_si256((__m256i *)(out + 32), first_halves(v[2], v[3]));
            out += panel_size;
            _mm256_storeu_si256((__m256i *)out, second_halves(v[0], v[1]));
            _mm256_storeu_si256((__m256i *)(out + 32), second_halves(v[2], v[3]));
        }
}

INLINE void many_pack_outputs(const uint8_t *w, int64_t stride, int64_t n, int is_wide,
                              uint8_t *panel) {
    (void)is_wide;
    for (int64_t k = 0; k < n; k += 32)
        for (int half = 0; half < 2; half++) {
            __m256i r[8];
            for (int i = 0; i < 8; i++) r[i] = load_bytes(w + (half * 8 + i) * stride + k);
            transpose8(r);
            for (int i = 0; i < 8; i++)
                _mm256_storeu_si256((__m256i *)(panel + (k + 4 * i) * 16) + half, r[i]);
        }
}

INLINE void many_tile(const uint8_t *x, int64_t row_size, const uint8_t *panel, int64_t k,
                      int64_t n, int is_rows, Ints sums[MANY_ROWS]) {
    __m256i sum[MANY_ROWS][2];
    UNROLL
    for (int row = 0; row < MANY_ROWS; row++) sum[row][0] = sum[row][1] = _mm256_setzero_si256();
    for (int64_t i = k; i < k + n; i += 4) {
        const __m256i w[2] = {load_bytes(panel + i * 16), load_bytes(panel + i * 16 + 32)};
        UNROLL
        for (int row = 0; row < MANY_ROWS; row++) {
            const __m256i four = broadcast((const int32_t *)(x + row * row_size + i));
            UNROLL
            for (int half = 0; half < 2; half++)
                sum[row][half] =
                    is_rows ? _mm256_dpbusd_avx_epi32(sum[row][half], four, w[half])
                            : _mm256_dpbusd_avx_epi32(sum[row][half], w[half], four);
        }
    }
    UNROLL
    for (int row = 0; row < MANY_ROWS; row++) sums[row] = (Ints){sum[row][0], sum[row][1]};
}

struct BlockX {
    __m256i x[2]; /* of 8 bits: in order; of 4 bits: even numbers, odd numbers */
};

INLINE void block_x(BlockX *x, const int8_t *q, int bits, int n_parts) {
    if (bits == 4) {
        split_even_odd(q, n_parts, &x->x[0], &x->x[1]);
        return;
    }
    x->x[0] = load_bytes(q);
    x->x[1] = load_bytes(q + 32);
}

INLINE void block_half(const uint8_t *w, int64_t stride, int bits, const BlockX *x, int n_parts,
                       __m256i out[4]) {
    const __m256i zero = _mm256_setzero_si256();
    const int is_one = bits == 4 || n_parts == 1; /* vector for 64 weights, not for 32 */
    __m256i v[2][8];
    UNROLL
    for (int row = 0; row < 8; row++) {
        const uint8_t *from = w + row * stride;
        const __m256i first = bits == 4 ? low_nibbles(load_bytes(from)) : load_bytes(from);
        const __m256i second = bits == 4 ? high_nibbles(load_bytes(from)) : load_bytes(from + 32);
        v[0][row] = _mm256_dpbusd_avx_epi32(zero, first, x->x[0]);
        v[1][row] = _mm256_dpbusd_avx_epi32(is_one ? v[0][row] : zero, second, x->x[1]);
    }
    if (is_one) {
        sum_lanes(v[1], n_parts, out);
        return;
    }
    __m256i sums[4];
    UNROLL
    for (int i = 0; i < 2; i++) {
        sum_lanes(v[i], n_parts / 2, sums);
        for (int part = 0; part < n_parts / 2; part++) out[i * n_parts / 2 + part] = sums[part];
    }
}
