/* Exact integer products with AVX2: numbers of 16 bits, two products in a lane (vpmaddwd).
 *
 * vpmaddubsw would take bytes, but it saturates. It is used for weights of 4 bits, where it cannot.
 */
#pragma once

#include "avx2_common.h"

enum { X_OFFSET = 0, W_OFFSET = 0 };

typedef struct {
    int32_t pairs[8]; /* two numbers of 16 bits each */
} FewX;

INLINE void few_x(FewX *x, const uint8_t *q) {
    const __m256i words = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)q));
    _mm256_storeu_si256((__m256i *)x->pairs, words);
}

/* Two rows of 32 columns, as words of 16 bits [column][two rows]: of even columns times 256, of odd
 * columns.
 *
 *   r0, r1:    c0 c1 | c2 c3 | ..                          words of two columns
 *   low:       r0 c0 c1 | r1 c0 c1 | r0 c2 c3 | ..  c7     and high: c8..c15
 *   v[0]:      c0 c2 c4 c6, rows 0 and 1, times 256        v[1]: c1 c3 c5 c7
 *   v[2]:      c8 c10 c12 c14                              v[3]: c9 c11 c13 c15
 *
 * and 16 more in the second halves.
 */
INLINE void interleave_pair(const int8_t *w, int64_t stride, __m256i v[4]) {
    const __m256i r0 = load_bytes(w), r1 = load_bytes(w + stride);
    const __m256i low = _mm256_unpacklo_epi16(r0, r1), high = _mm256_unpackhi_epi16(r0, r1);
    v[0] = _mm256_slli_epi16(low, 8);
    v[1] = _mm256_srai_epi16(low, 8);
    v[2] = _mm256_slli_epi16(high, 8);
    v[3] = _mm256_srai_epi16(high, 8);
}

INLINE void add_pair(__m256i sum[4], const __m256i v[4], int32_t pair) {
    const __m256i x = _mm256_set1_epi32(pair);
    UNROLL
    for (int i = 0; i < 4; i++) sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(v[i], x));
}

/* Sums of sixteen rows are below 2^28, so those of even columns can be taken times 256. */
INLINE void add_sums(int32_t *to, const __m256i sum[4]) {
    UNROLL
    for (int i = 0; i < 4; i++) {
        __m256i *total = (__m256i *)(to + 8 * i);
        const __m256i exact = i % 2 ? sum[i] : _mm256_srai_epi32(sum[i], 8);
        _mm256_storeu_si256(total, _mm256_add_epi32(_mm256_loadu_si256(total), exact));
    }
}

/* Two rows of x times sixteen rows of W, as interleave_pair has them. Not inlined, and without
 * unrolling: compilers would take all products before the first sum, and store them.
 */
static __attribute__((noinline)) void multiply_pairs(const __m256i v[8][4], const FewX *x,
                                                     int64_t sums_stride, int32_t *sums) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i first[4] = {zero, zero, zero, zero}, second[4] = {zero, zero, zero, zero};
    NO_UNROLL
    for (int pair = 0; pair < 8; pair++) {
        const __m256i a = broadcast(x[0].pairs + pair), b = broadcast(x[1].pairs + pair);
        UNROLL
        for (int i = 0; i < 4; i++) {
            const __m256i w = _mm256_loadu_si256(&v[pair][i]);
            first[i] = _mm256_add_epi32(first[i], _mm256_madd_epi16(w, a));
            second[i] = _mm256_add_epi32(second[i], _mm256_madd_epi16(w, b));
        }
    }
    add_sums(sums, first);
    add_sums(sums + sums_stride, second);
}

/* One row of x: see multiply_pairs. */
static __attribute__((noinline)) void multiply_pair(const __m256i v[8][4], const FewX *x,
                                                    int32_t *sums) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i sum[4] = {zero, zero, zero, zero};
    NO_UNROLL
    for (int pair = 0; pair < 8; pair++) add_pair(sum, v[pair], x->pairs[pair]);
    add_sums(sums, sum);
}

INLINE void few_product(const int8_t *w, int64_t stride, const FewX *x, int64_t n_rows,
                        int64_t sums_stride, int32_t *sums) {
    const __m256i zero = _mm256_setzero_si256();
    UNROLL
    for (int n = 0; n < COLUMNS; n += 32) {
        if (n_rows == 1) {
            __m256i sum[4] = {zero, zero, zero, zero}, v[4];
            UNROLL
            for (int pair = 0; pair < 8; pair++) {
                interleave_pair(w + 2 * pair * stride + n, stride, v);
                add_pair(sum, v, x->pairs[pair]);
            }
            add_sums(sums + n, sum);
            continue;
        }
        __m256i v[8][4];
        UNROLL
        for (int pair = 0; pair < 8; pair++)
            interleave_pair(w + 2 * pair * stride + n, stride, v[pair]);
        int64_t row = 0;
        for (; row + 1 < n_rows; row += 2)
            multiply_pairs(v, x + row, sums_stride, sums + row * sums_stride + n);
        if (row < n_rows) multiply_pair(v, x + row, sums + row * sums_stride + n);
    }
}

/* sums[2 h], sums[2 h + 1]: the four sums of interleave_pair, for columns 32 h and more. */
INLINE void few_order(Ints sums[4]) {
    UNROLL
    for (int h = 0; h < 4; h += 2) {
        const __m256i a = _mm256_unpacklo_epi32(sums[h].a, sums[h].b);         /* 0..3 | 16..19 */
        const __m256i b = _mm256_unpackhi_epi32(sums[h].a, sums[h].b);         /* 4..7 | 20..23 */
        const __m256i c = _mm256_unpacklo_epi32(sums[h + 1].a, sums[h + 1].b); /* 8..11 | 24.. */
        const __m256i d = _mm256_unpackhi_epi32(sums[h + 1].a, sums[h + 1].b); /* 12..15 | 28.. */
        sums[h] = (Ints){first_halves(a, b), first_halves(c, d)};
        sums[h + 1] = (Ints){second_halves(a, b), second_halves(c, d)};
    }
}

/* Panels are [K / 2][16 columns][2], of 16 bits. */
enum { MANY_ROWS = 4, WEIGHT_SIZE = 2, X_SIZE = 2, FEW_4_BITS = 16, FEW_8_BITS = 1 };

INLINE void many_x(uint8_t *to, int64_t m, int64_t n, const uint8_t *x, int is_rows) {
    for (int64_t k = 0; k < n; k += 16) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(x + k));
        const __m256i words = is_rows ? _mm256_cvtepu8_epi16(bytes) : _mm256_cvtepi8_epi16(bytes);
        _mm256_storeu_si256((__m256i *)(to + (m * n + k) * X_SIZE), words);
    }
}

INLINE void many_pack_rows(const int8_t *const rows[8], int64_t k, int64_t panel_size,
                           uint8_t *panels) {
    for (int n = 0; n < COLUMNS; n += 16)
        for (int i = 0; i < 8; i += 2) {
            const __m128i r0 = _mm_loadu_si128((const __m128i *)(rows[i] + n));
            const __m128i r1 = _mm_loadu_si128((const __m128i *)(rows[i + 1] + n));
            __m256i *out = (__m256i *)(panels + n / 16 * panel_size + (k + i) * 16 * WEIGHT_SIZE);
            _mm256_storeu_si256(out, _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(r0, r1)));
            _mm256_storeu_si256(out + 1, _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(r0, r1)));
        }
}

INLINE void many_pack_outputs(const uint8_t *w, int64_t stride, int64_t n, int is_wide,
                              uint8_t *panel) {
    (void)is_wide;
    /* eight rows of 32 bytes become eight vectors [row][4 weights] */
    for (int64_t k = 0; k < n; k += 32)
        for (int half = 0; half < 2; half++) {
            __m256i r[8];
            for (int i = 0; i < 8; i++) r[i] = load_bytes(w + (half * 8 + i) * stride + k);
            transpose8(r);
            for (int i = 0; i < 8; i++) {
                const __m256i even = _mm256_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12,
                                                      -1, 13, -1, 0, -1, 1, -1, 4, -1, 5, -1, 8, -1,
                                                      9, -1, 12, -1, 13, -1);
                const __m256i odd = _mm256_setr_epi8(2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14,
                                                     -1, 15, -1, 2, -1, 3, -1, 6, -1, 7, -1, 10, -1,
                                                     11, -1, 14, -1, 15, -1);
                __m256i *out = (__m256i *)(panel + (k + 4 * i) * 16 * WEIGHT_SIZE) + half;
                _mm256_storeu_si256(out, _mm256_shuffle_epi8(r[i], even));
                _mm256_storeu_si256(out + 2, _mm256_shuffle_epi8(r[i], odd));
            }
        }
}

INLINE void many_tile(const uint8_t *x, int64_t row_size, const uint8_t *panel, int64_t k,
                      int64_t n, int is_rows, Ints sums[MANY_ROWS]) {
    (void)is_rows;
    __m256i sum[MANY_ROWS][2];
    const int32_t *from[MANY_ROWS];
    UNROLL
    for (int row = 0; row < MANY_ROWS; row++) {
        sum[row][0] = sum[row][1] = _mm256_setzero_si256();
        from[row] = (const int32_t *)(x + (row * row_size + k) * X_SIZE);
    }
    const __m256i *w = (const __m256i *)(panel + k * 16 * WEIGHT_SIZE);
    for (int64_t i = 0; i < n / 2; i++) {
        const __m256i w0 = _mm256_loadu_si256(w + 2 * i), w1 = _mm256_loadu_si256(w + 2 * i + 1);
        UNROLL
        for (int row = 0; row < MANY_ROWS; row++) {
            const __m256i both = broadcast(from[row] + i);
            sum[row][0] = _mm256_add_epi32(sum[row][0], _mm256_madd_epi16(w0, both));
            sum[row][1] = _mm256_add_epi32(sum[row][1], _mm256_madd_epi16(w1, both));
        }
    }
    UNROLL
    for (int row = 0; row < MANY_ROWS; row++) sums[row] = (Ints){sum[row][0], sum[row][1]};
}

struct BlockX {
    __m256i x[4]; /* of 8 bits: 64 words; of 4 bits: the even numbers' bytes, the odd numbers' */
};

INLINE void block_x(BlockX *x, const int8_t *q, int bits, int n_parts) {
    if (bits == 4) {
        split_even_odd(q, n_parts, &x->x[0], &x->x[1]);
        return;
    }
    for (int i = 0; i < 4; i++)
        x->x[i] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(q + 16 * i)));
}

INLINE void block_half(const uint8_t *w, int64_t stride, int bits, const BlockX *x, int n_parts,
                       __m256i out[4]) {
    __m256i v[4][8];
    UNROLL
    for (int row = 0; row < 8; row++) {
        const uint8_t *from = w + row * stride;
        if (bits == 4) {
            const __m256i bytes = load_bytes(from);
            const __m256i pairs = _mm256_add_epi16( /* at most 4 * 15 * 128 */
                _mm256_maddubs_epi16(low_nibbles(bytes), x->x[0]),
                _mm256_maddubs_epi16(high_nibbles(bytes), x->x[1]));
            v[0][row] = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
            continue;
        }
        UNROLL
        for (int i = 0; i < 4; i++) {
            const __m128i bytes = _mm_loadu_si128((const __m128i *)(from + 16 * i));
            const __m256i product = _mm256_madd_epi16(_mm256_cvtepu8_epi16(bytes), x->x[i]);
            const int part = i * n_parts / 4;
            v[part][row] =
                i * n_parts % 4 ? _mm256_add_epi32(v[part][row], product) : product;
        }
    }
    if (bits == 4) {
        sum_lanes(v[0], n_parts, out);
        return;
    }
    UNROLL
    for (int part = 0; part < n_parts; part++) {
        __m256i sums[4];
        sum_lanes(v[part], 1, sums);
        out[part] = sums[0];
    }
}
