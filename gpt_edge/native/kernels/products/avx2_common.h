/* Shuffles and sums of integers in registers of AVX2, for products with VNNI and without. */
#pragma once

#include "common.h"

/* The two halves of x and y side by side: the first ones, or the second ones. */
INLINE __m256i first_halves(__m256i x, __m256i y) { return _mm256_permute2x128_si256(x, y, 0x20); }
INLINE __m256i second_halves(__m256i x, __m256i y) { return _mm256_permute2x128_si256(x, y, 0x31); }

INLINE __m256i load_bytes(const void *x) { return _mm256_loadu_si256((const __m256i *)x); }

/* Four bytes, eight times. In assembly, so that they are loaded where they are used: compilers load
 * those of all rows first, and run out of registers.
 */
INLINE __m256i broadcast(const int32_t *x) {
#ifdef _MSC_VER
    return _mm256_set1_epi32(*x);
#else
    __m256i out;
    __asm__("vpbroadcastd %1, %0" : "=x"(out) : "m"(*x));
    return out;
#endif
}

/* For four vectors, the sums of each half: [v0 v1 v2 v3 | the second halves]. */
INLINE __m256i sum_halves(const __m256i v[4]) {
    const __m256i x =
        _mm256_add_epi32(_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
    const __m256i y =
        _mm256_add_epi32(_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
    return _mm256_add_epi32(_mm256_unpacklo_epi64(x, y), _mm256_unpackhi_epi64(x, y));
}

/* For eight vectors of eight lanes, the sums of their n_parts parts: out[part][vector]. */
INLINE void sum_lanes(const __m256i v[8], int n_parts, __m256i out[4]) {
    if (n_parts == 4) {
        __m256 low[2], high[2];
        for (int i = 0; i < 2; i++) { /* pair 0 of v0, pair 1, then of v1 | pairs 2 and 3 */
            const __m256 a = _mm256_castsi256_ps(_mm256_hadd_epi32(v[4 * i], v[4 * i + 1]));
            const __m256 b = _mm256_castsi256_ps(_mm256_hadd_epi32(v[4 * i + 2], v[4 * i + 3]));
            low[i] = _mm256_shuffle_ps(a, b, 0x88);  /* pair 0 of v0..v3 | pair 2 */
            high[i] = _mm256_shuffle_ps(a, b, 0xdd); /* pair 1 | pair 3 */
        }
        for (int i = 0; i < 2; i++) {
            const __m256 *from = i ? high : low;
            const __m256i a = _mm256_castps_si256(from[0]), b = _mm256_castps_si256(from[1]);
            out[i] = first_halves(a, b);
            out[i + 2] = second_halves(a, b);
        }
        return;
    }
    const __m256i a = sum_halves(v), b = sum_halves(v + 4);
    out[0] = first_halves(a, b);
    out[1] = second_halves(a, b);
    if (n_parts == 1) out[0] = _mm256_add_epi32(out[0], out[1]);
}

/* Transpose eight rows of eight 32-bit numbers. */
INLINE void transpose8(__m256i r[8]) {
    __m256i a[8], b[8];
    UNROLL
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    UNROLL
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            b[4 * i + 2 * j] = _mm256_unpacklo_epi64(a[4 * i + j], a[4 * i + 2 + j]);
            b[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(a[4 * i + j], a[4 * i + 2 + j]);
        }
    UNROLL
    for (int i = 0; i < 4; i++) {
        r[i] = first_halves(b[i], b[4 + i]);
        r[4 + i] = second_halves(b[i], b[4 + i]);
    }
}

/* Nibbles of 4-bit weights: the low halves of 32 bytes, or the high ones. */
INLINE __m256i low_nibbles(__m256i bytes) {
    return _mm256_and_si256(bytes, _mm256_set1_epi8(15));
}
INLINE __m256i high_nibbles(__m256i bytes) {
    return _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(15));
}

/* x of 64 weights of 4 bits, whose parts have even numbers first: all even ones, then the odd. */
INLINE void split_even_odd(const int8_t *q, int n_parts, __m256i *even, __m256i *odd) {
    const __m256i a = load_bytes(q), b = load_bytes(q + 32);
    if (n_parts == 1) {
        *even = a;
        *odd = b;
    } else if (n_parts == 2) { /* a: 16 even, 16 odd; b: the same */
        *even = first_halves(a, b);
        *odd = second_halves(a, b);
    } else { /* a: 8 even, 8 odd, 8 even, 8 odd; b: the same */
        *even = _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(a, b), 0xd8);
        *odd = _mm256_permute4x64_epi64(_mm256_unpackhi_epi64(a, b), 0xd8);
    }
}

typedef struct BlockX BlockX;

/* The products of eight rows: out[part]. */
INLINE void block_half(const uint8_t *w, int64_t stride, int bits, const BlockX *x, int n_parts,
                       __m256i out[4]);

INLINE void block_unit(const uint8_t *w, int64_t stride, int bits, const BlockX *x, int n_parts,
                       Ints sums[4]) {
    __m256i a[4], b[4];
    block_half(w, stride, bits, x, n_parts, a);
    block_half(w + 8 * stride, stride, bits, x, n_parts, b);
    UNROLL
    for (int part = 0; part < n_parts; part++) sums[part] = (Ints){a[part], b[part]};
}
