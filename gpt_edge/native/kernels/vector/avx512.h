/* Sixteen floats, or sixteen 32-bit integers, in one register of AVX-512. */
#pragma once

#include <immintrin.h>

#include "common.h"

typedef __m512 Floats;
typedef __m512i Ints;

enum { MAX_ACCUMULATORS = 16 }; /* Floats that fit the registers beside what is added to them */

INLINE Floats f_load(const float *x) { return _mm512_loadu_ps(x); }
INLINE void f_store(float *x, Floats v) { _mm512_storeu_ps(x, v); }
INLINE Floats f_all(float x) { return _mm512_set1_ps(x); }
INLINE Floats f_add(Floats x, Floats y) { return _mm512_add_ps(x, y); }
INLINE Floats f_sub(Floats x, Floats y) { return _mm512_sub_ps(x, y); }
INLINE Floats f_mul(Floats x, Floats y) { return _mm512_mul_ps(x, y); }
INLINE Floats f_div(Floats x, Floats y) { return _mm512_div_ps(x, y); }
INLINE Floats f_fma(Floats x, Floats y, Floats z) { return _mm512_fmadd_ps(x, y, z); }
INLINE Floats f_fnma(Floats x, Floats y, Floats z) { return _mm512_fnmadd_ps(x, y, z); }
INLINE Floats f_max(Floats x, Floats y) { return _mm512_max_ps(x, y); }
INLINE Floats f_min(Floats x, Floats y) { return _mm512_min_ps(x, y); }
INLINE Floats f_abs(Floats x) { return _mm512_abs_ps(x); }
INLINE Floats f_round(Floats x) { return _mm512_roundscale_ps(x, 8); }
INLINE Floats f_scale(Floats x, Floats n) { return _mm512_scalef_ps(x, n); }

/* The first four numbers of sixteen rows that lie `stride` apart, by columns: quarter q of row[r] is
 * row 4 q + r, and a transpose of 4 x 4 in each quarter makes columns of them.
 */
INLINE void f_four_columns(const float *x, int64_t stride, Floats column[4]) {
    __m512 row[4];
    UNROLL
    for (int r = 0; r < 4; r++) {
        row[r] = _mm512_castps128_ps512(_mm_loadu_ps(x + r * stride));
        row[r] = _mm512_insertf32x4(row[r], _mm_loadu_ps(x + (4 + r) * stride), 1);
        row[r] = _mm512_insertf32x4(row[r], _mm_loadu_ps(x + (8 + r) * stride), 2);
        row[r] = _mm512_insertf32x4(row[r], _mm_loadu_ps(x + (12 + r) * stride), 3);
    }
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(row[0], row[1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(row[0], row[1]));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(row[2], row[3]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(row[2], row[3]));
    column[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    column[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    column[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    column[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
}

INLINE float f_sum(Floats v) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(x) + _mm_cvtss_f32(_mm_shuffle_ps(x, x, 1));
}
INLINE float f_largest(Floats v) { return _mm512_reduce_max_ps(v); }
INLINE float f_smallest(Floats v) { return _mm512_reduce_min_ps(v); }

INLINE Floats f_load_half(const void *x) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x));
}
INLINE void f_store_half(void *x, Floats v) {
    _mm256_storeu_si256((__m256i *)x, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

INLINE Floats f_lanes(Floats v, int first, int end, Floats other) {
    const unsigned below = end >= LANES ? 0xffff : end <= 0 ? 0 : (1u << end) - 1;
    const unsigned before = first >= LANES ? 0xffff : first <= 0 ? 0 : (1u << first) - 1;
    return _mm512_mask_mov_ps(other, (__mmask16)(below & ~before), v);
}
INLINE Floats f_zero_where_equal(Floats v, Floats x, Floats y) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, y, _CMP_NEQ_UQ), v);
}

INLINE Floats f_sum_quarters(const Floats v[4]) {
    const __m512d x = _mm512_castps_pd(
        _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1])));
    const __m512d y = _mm512_castps_pd(
        _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3])));
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}
/* Written xq for quarter q of v[0], y for v[1]:  a: x0+x1 x2+x3 y0+y1 y2+y3 */
INLINE Floats f_sum_across(const Floats v[4]) {
    Floats a[2];
    for (int i = 0; i < 2; i++)
        a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(v[2 * i], v[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(a[0], a[1], 0x88),
                         _mm512_shuffle_f32x4(a[0], a[1], 0xdd));
}

INLINE Ints i_load(const int32_t *x) { return _mm512_loadu_si512(x); }
INLINE void i_store(int32_t *x, Ints v) { _mm512_storeu_si512(x, v); }
INLINE Ints i_all(int32_t x) { return _mm512_set1_epi32(x); }
INLINE Ints i_add(Ints x, Ints y) { return _mm512_add_epi32(x, y); }
INLINE Ints i_sub(Ints x, Ints y) { return _mm512_sub_epi32(x, y); }
INLINE Ints i_mul(Ints x, Ints y) { return _mm512_mullo_epi32(x, y); }
INLINE Floats i_to_f(Ints x) { return _mm512_cvtepi32_ps(x); }
INLINE Ints f_to_i(Floats x) { return _mm512_cvtps_epi32(x); }
INLINE void i_store_u8(uint8_t *bytes, Ints x) {
    x = _mm512_max_epi32(x, _mm512_setzero_si512());
    _mm_storeu_si128((__m128i *)bytes, _mm512_cvtusepi32_epi8(x));
}
INLINE void i_store_s8(int8_t *bytes, Ints x) {
    _mm_storeu_si128((__m128i *)bytes, _mm512_cvtsepi32_epi8(x));
}

#define PREFETCH(address) _mm_prefetch((const char *)(address), _MM_HINT_T0)
#define PREFETCH_FAR(address) PREFETCH(address)
