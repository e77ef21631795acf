/* Sixteen floats, or sixteen 32-bit integers, in two registers of AVX2, with FMA and F16C.
 *
 * Every kind of vector (see the other files of this folder) gives the same bits: scalar.h defines
 * them.
 */
#pragma once

#include <immintrin.h>

#include "common.h"

typedef struct {
    __m256 a, b; /* lanes 0..7 and 8..15 */
} Floats;

typedef struct {
    __m256i a, b;
} Ints;

enum { MAX_ACCUMULATORS = 4 }; /* Floats that fit the registers beside what is added to them */

#define EACH(type, call_a, call_b) ((type){(call_a), (call_b)})

INLINE Floats f_load(const float *x) {
    return EACH(Floats, _mm256_loadu_ps(x), _mm256_loadu_ps(x + 8));
}
INLINE void f_store(float *x, Floats v) {
    _mm256_storeu_ps(x, v.a);
    _mm256_storeu_ps(x + 8, v.b);
}
INLINE Floats f_all(float x) { return EACH(Floats, _mm256_set1_ps(x), _mm256_set1_ps(x)); }
INLINE Floats f_add(Floats x, Floats y) {
    return EACH(Floats, _mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b));
}
INLINE Floats f_sub(Floats x, Floats y) {
    return EACH(Floats, _mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b));
}
INLINE Floats f_mul(Floats x, Floats y) {
    return EACH(Floats, _mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b));
}
INLINE Floats f_div(Floats x, Floats y) {
    return EACH(Floats, _mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b));
}
INLINE Floats f_fma(Floats x, Floats y, Floats z) {
    return EACH(Floats, _mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b));
}
INLINE Floats f_fnma(Floats x, Floats y, Floats z) {
    return EACH(Floats, _mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b));
}
INLINE Floats f_max(Floats x, Floats y) {
    return EACH(Floats, _mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b));
}
INLINE Floats f_min(Floats x, Floats y) {
    return EACH(Floats, _mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b));
}
INLINE Floats f_abs(Floats x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return EACH(Floats, _mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b));
}
INLINE Floats f_round(Floats x) {
    return EACH(Floats, _mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8));
}

/* 2^n for whole n from -126 to 127. */
INLINE __m256 power_of_two(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
/* In two steps, so that both factors are normal numbers: only the second rounds. */
INLINE __m256 scale_half(__m256 x, __m256 n) {
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    const __m256 once = _mm256_mul_ps(x, power_of_two(half));
    return _mm256_mul_ps(once, power_of_two(_mm256_sub_epi32(whole, half)));
}
INLINE Floats f_scale(Floats x, Floats n) {
    return EACH(Floats, scale_half(x.a, n.a), scale_half(x.b, n.b));
}

/* Eight rows of four columns: half h of row[r] is row 4 h + r, and a transpose of 4 x 4 in each half
 * makes columns of them.
 */
INLINE void four_columns_of_eight(const float *x, int64_t stride, __m256 column[4]) {
    __m256 row[4];
    UNROLL
    for (int r = 0; r < 4; r++)
        row[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(x + r * stride)),
                                      _mm_loadu_ps(x + (4 + r) * stride), 1);
    const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(row[0], row[1]));
    const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(row[0], row[1]));
    const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(row[2], row[3]));
    const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(row[2], row[3]));
    column[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
    column[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
    column[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
    column[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
}
INLINE void f_four_columns(const float *x, int64_t stride, Floats column[4]) {
    __m256 first[4], second[4];
    four_columns_of_eight(x, stride, first);
    four_columns_of_eight(x + 8 * stride, stride, second);
    UNROLL
    for (int j = 0; j < 4; j++) column[j] = (Floats){first[j], second[j]};
}

INLINE float f_sum(Floats v) {
    const __m256 half = _mm256_add_ps(v.a, v.b);
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(x) + _mm_cvtss_f32(_mm_shuffle_ps(x, x, 1));
}
INLINE float f_largest(Floats v) {
    const __m256 half = _mm256_max_ps(v.a, v.b);
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}
INLINE float f_smallest(Floats v) {
    const __m256 half = _mm256_min_ps(v.a, v.b);
    __m128 x = _mm_min_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    x = _mm_min_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_min_ss(x, _mm_shuffle_ps(x, x, 1)));
}

INLINE Floats f_load_half(const void *x) {
    const __m128i *half = x;
    return EACH(Floats, _mm256_cvtph_ps(_mm_loadu_si128(half)),
                _mm256_cvtph_ps(_mm_loadu_si128(half + 1)));
}
INLINE void f_store_half(void *x, Floats v) {
    __m128i *half = x;
    _mm_storeu_si128(half, _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(half + 1, _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT));
}

INLINE __m256 lanes_from_to(int first_lane, int first, int end) {
    const __m256i lane = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                                          _mm256_set1_epi32(first_lane));
    return _mm256_castsi256_ps(
        _mm256_and_si256(_mm256_cmpgt_epi32(lane, _mm256_set1_epi32(first - 1)),
                         _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane)));
}
INLINE Floats f_lanes(Floats v, int first, int end, Floats other) {
    return EACH(Floats, _mm256_blendv_ps(other.a, v.a, lanes_from_to(0, first, end)),
                _mm256_blendv_ps(other.b, v.b, lanes_from_to(8, first, end)));
}
INLINE Floats f_zero_where_equal(Floats v, Floats x, Floats y) {
    return EACH(Floats, _mm256_and_ps(v.a, _mm256_cmp_ps(x.a, y.a, _CMP_NEQ_UQ)),
                _mm256_and_ps(v.b, _mm256_cmp_ps(x.b, y.b, _CMP_NEQ_UQ)));
}

/* Half of f_sum_quarters: two quarters of each vector. */
INLINE __m256 sum_two_quarters(__m256 v0, __m256 v1, __m256 v2, __m256 v3) {
    const __m256d x =
        _mm256_castps_pd(_mm256_add_ps(_mm256_unpacklo_ps(v0, v1), _mm256_unpackhi_ps(v0, v1)));
    const __m256d y =
        _mm256_castps_pd(_mm256_add_ps(_mm256_unpacklo_ps(v2, v3), _mm256_unpackhi_ps(v2, v3)));
    return _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)),
                         _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
}
INLINE Floats f_sum_quarters(const Floats v[4]) {
    return EACH(Floats, sum_two_quarters(v[0].a, v[1].a, v[2].a, v[3].a),
                sum_two_quarters(v[0].b, v[1].b, v[2].b, v[3].b));
}
/* Eight sums from the quarters of two times four vectors. */
INLINE __m256 sum_four_quarters(Floats x, Floats y) {
    const __m256 first = _mm256_add_ps(_mm256_permute2f128_ps(x.a, y.a, 0x20),
                                       _mm256_permute2f128_ps(x.a, y.a, 0x31));
    const __m256 second = _mm256_add_ps(_mm256_permute2f128_ps(x.b, y.b, 0x20),
                                        _mm256_permute2f128_ps(x.b, y.b, 0x31));
    return _mm256_add_ps(first, second);
}
INLINE Floats f_sum_across(const Floats v[4]) {
    return EACH(Floats, sum_four_quarters(v[0], v[1]), sum_four_quarters(v[2], v[3]));
}

INLINE Ints i_load(const int32_t *x) {
    return EACH(Ints, _mm256_loadu_si256((const __m256i *)x),
                _mm256_loadu_si256((const __m256i *)(x + 8)));
}
INLINE void i_store(int32_t *x, Ints v) {
    _mm256_storeu_si256((__m256i *)x, v.a);
    _mm256_storeu_si256((__m256i *)(x + 8), v.b);
}
INLINE Ints i_all(int32_t x) { return EACH(Ints, _mm256_set1_epi32(x), _mm256_set1_epi32(x)); }
INLINE Ints i_add(Ints x, Ints y) {
    return EACH(Ints, _mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b));
}
INLINE Ints i_sub(Ints x, Ints y) {
    return EACH(Ints, _mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b));
}
INLINE Ints i_mul(Ints x, Ints y) {
    return EACH(Ints, _mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b));
}
INLINE Floats i_to_f(Ints x) {
    return EACH(Floats, _mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b));
}
INLINE Ints f_to_i(Floats x) {
    return EACH(Ints, _mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
}
/* Saturated to sixteen bits, in order. */
INLINE __m256i to_words(Ints x) {
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
}
INLINE void i_store_u8(uint8_t *bytes, Ints x) {
    const __m256i words = to_words(x);
    _mm_storeu_si128((__m128i *)bytes, _mm_packus_epi16(_mm256_castsi256_si128(words),
                                                        _mm256_extracti128_si256(words, 1)));
}
INLINE void i_store_s8(int8_t *bytes, Ints x) {
    const __m256i words = to_words(x);
    _mm_storeu_si128((__m128i *)bytes, _mm_packs_epi16(_mm256_castsi256_si128(words),
                                                       _mm256_extracti128_si256(words, 1)));
}

#undef EACH
#define PREFETCH(address) _mm_prefetch((const char *)(address), _MM_HINT_T0)
/* what is read a dozen KB later: the first cache would lose it again */
#define PREFETCH_FAR(address) _mm_prefetch((const char *)(address), _MM_HINT_T1)
