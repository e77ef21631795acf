/* Functions of sixteen floats. Each lane's result depends on that lane alone, so a row's result
 * does not depend on its offset in memory.
 */
#pragma once

#include <immintrin.h>

#define UNROLL _Pragma("GCC unroll 16")

/* e^x to 2 units in the last place: x = n ln 2 + r, e^r by a polynomial of degree 6 (Cephes' expf).
 * 0 for -infinity.
 */
static inline __m512 exp16(__m512 x) {
    x = _mm512_min_ps(_mm512_set1_ps(89.0f),
                      _mm512_max_ps(_mm512_set1_ps(-104.0f), x)); /* in this order NaN is kept */
    const __m512 n =
        _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), 8);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* GELU by the hyperbolic tangent (Hendrycks and Gimpel 2016): x / (1 + e^(-2u)), u = sqrt(2 / pi)
 * (x + 0.044715 x^3).
 */
static inline __m512 gelu_tanh16(__m512 x) {
    const __m512 square = _mm512_mul_ps(x, x);
    const __m512 inner = _mm512_fmadd_ps(square, _mm512_set1_ps(0.044715f), _mm512_set1_ps(1.0f));
    const __m512 minus_2u =
        _mm512_mul_ps(_mm512_mul_ps(x, inner), _mm512_set1_ps(-1.5957691216057308f));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), exp16(minus_2u)));
}
