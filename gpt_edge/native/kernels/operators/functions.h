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
