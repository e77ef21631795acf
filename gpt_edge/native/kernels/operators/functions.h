/* Functions of sixteen floats. Each lane's result depends on that lane alone, so a row's result
 * does not depend on its offset in memory.
 */
#pragma once

#include <math.h>

INLINE int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

/* The first n of sixteen floats, or all of them; the rest is 0. */
INLINE Floats load_some(const float *x, int64_t n) {
    if (n >= LANES) return f_load(x);
    float some[LANES] = {0};
    memcpy(some, x, (size_t)n * sizeof *x);
    return f_load(some);
}

INLINE void store_some(float *x, Floats v, int64_t n) {
    if (n >= LANES) {
        f_store(x, v);
        return;
    }
    float some[LANES];
    f_store(some, v);
    memcpy(x, some, (size_t)n * sizeof *x);
}

/* NaN in a lane that has ever been given a number that is not finite, else 0. */
INLINE Floats note_not_finite(Floats noted, Floats v) { return f_add(noted, f_sub(v, v)); }

/* e^x to 2 units in the last place: x = n ln 2 + r, e^r by a polynomial of degree 6 (Cephes' expf).
 * 0 for -infinity.
 */
INLINE Floats exp16(Floats x) {
    x = f_min(f_all(89.0f), f_max(f_all(-104.0f), x)); /* in this order NaN is kept */
    const Floats n = f_round(f_mul(x, f_all(1.44269504088896341f)));
    Floats r = f_fnma(n, f_all(0.693359375f), x);
    r = f_fnma(n, f_all(-2.12194440e-4f), r);
    Floats p = f_all(1.9875691500e-4f);
    p = f_fma(p, r, f_all(1.3981999507e-3f));
    p = f_fma(p, r, f_all(8.3334519073e-3f));
    p = f_fma(p, r, f_all(4.1665795894e-2f));
    p = f_fma(p, r, f_all(1.6666665459e-1f));
    p = f_fma(p, r, f_all(5.0000001201e-1f));
    p = f_add(f_fma(p, f_mul(r, r), r), f_all(1.0f));
    return f_scale(p, n);
}

/* GELU by the hyperbolic tangent (Hendrycks and Gimpel 2016): x / (1 + e^(-2u)), u = sqrt(2 / pi)
 * (x + 0.044715 x^3).
 */
INLINE Floats gelu_tanh16(Floats x) {
    const Floats inner = f_fma(f_mul(x, x), f_all(0.044715f), f_all(1.0f));
    const Floats minus_2u = f_mul(f_mul(x, inner), f_all(-1.5957691216057308f));
    return f_div(x, f_add(f_all(1.0f), exp16(minus_2u)));
}

/* GELU by the normal distribution (Hendrycks and Gimpel 2016): x P(X <= x) = max(x, 0) - |x| h, h =
 * P(X > |x|) = erfc(|x| / sqrt(2)) / 2, to 7.5e-8 (Abramowitz and Stegun 1964, 7.1.26).
 */
INLINE Floats gelu_erf16(Floats x) {
    const Floats size = f_abs(x);
    const Floats t = f_div(f_all(1.0f), f_fma(size, f_all(0.23164189f), f_all(1.0f)));
    Floats p = f_all(0.5307027145f);
    p = f_fma(p, t, f_all(-0.7265760135f));
    p = f_fma(p, t, f_all(0.7107068705f));
    p = f_fma(p, t, f_all(-0.142248368f));
    p = f_fma(p, t, f_all(0.127414796f));
    const Floats power = exp16(f_mul(f_mul(x, x), f_all(-0.5f)));
    const Floats positive = f_max(f_all(0.0f), x); /* in this order NaN is kept */
    return f_fnma(size, f_mul(f_mul(p, t), power), positive);
}

enum { NO_ACTIVATION, GELU_TANH, GELU_ERF }; /* as in gpt_edge/native/rewrite.py */

INLINE Floats activate(int activation, Floats v) {
    if (activation == GELU_TANH) return gelu_tanh16(v);
    return activation == GELU_ERF ? gelu_erf16(v) : v;
}
