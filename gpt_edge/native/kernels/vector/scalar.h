/* Sixteen floats, or sixteen 32-bit integers, in plain C: the definition of what the other files of
 * this folder compute, bit by bit. Tests compare them with it; no machine runs a model with it.
 */
#pragma once

#include <math.h>

#include "common.h"

typedef struct {
    float lane[LANES];
} Floats;

typedef struct {
    int32_t lane[LANES];
} Ints;

enum { MAX_ACCUMULATORS = 4 };

#define EACH(type, value)                                     \
    do {                                                      \
        type out_;                                            \
        for (int i = 0; i < LANES; i++) out_.lane[i] = value; \
        return out_;                                          \
    } while (0)

INLINE Floats f_load(const float *x) { EACH(Floats, x[i]); }
INLINE void f_store(float *x, Floats v) { memcpy(x, v.lane, sizeof v.lane); }
INLINE Floats f_all(float x) { EACH(Floats, x); }
INLINE Floats f_add(Floats x, Floats y) { EACH(Floats, x.lane[i] + y.lane[i]); }
INLINE Floats f_sub(Floats x, Floats y) { EACH(Floats, x.lane[i] - y.lane[i]); }
INLINE Floats f_mul(Floats x, Floats y) { EACH(Floats, x.lane[i] * y.lane[i]); }
INLINE Floats f_div(Floats x, Floats y) { EACH(Floats, x.lane[i] / y.lane[i]); }
/* x y + z, and z - x y, rounded once */
INLINE Floats f_fma(Floats x, Floats y, Floats z) {
    EACH(Floats, fmaf(x.lane[i], y.lane[i], z.lane[i]));
}
INLINE Floats f_fnma(Floats x, Floats y, Floats z) {
    EACH(Floats, fmaf(-x.lane[i], y.lane[i], z.lane[i]));
}
/* the second operand where one is no number */
INLINE Floats f_max(Floats x, Floats y) {
    EACH(Floats, x.lane[i] > y.lane[i] ? x.lane[i] : y.lane[i]);
}
INLINE Floats f_min(Floats x, Floats y) {
    EACH(Floats, x.lane[i] < y.lane[i] ? x.lane[i] : y.lane[i]);
}
INLINE Floats f_abs(Floats x) { EACH(Floats, fabsf(x.lane[i])); }
INLINE Floats f_round(Floats x) { EACH(Floats, rintf(x.lane[i])); } /* halves to even */
/* x 2^n, rounded once, for whole n from -252 to 254 */
INLINE Floats f_scale(Floats x, Floats n) { EACH(Floats, ldexpf(x.lane[i], (int)n.lane[i])); }

/* The first four numbers of sixteen rows that lie `stride` apart, by columns. */
INLINE void f_four_columns(const float *x, int64_t stride, Floats column[4]) {
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < LANES; i++) column[j].lane[i] = x[i * stride + j];
}

/* halves, then quarters, then pairs */
INLINE float f_sum(Floats v) {
    for (int n = LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) v.lane[i] += v.lane[i + n];
    return v.lane[0];
}
INLINE float f_largest(Floats v) {
    for (int i = 1; i < LANES; i++) v.lane[0] = v.lane[0] > v.lane[i] ? v.lane[0] : v.lane[i];
    return v.lane[0];
}
INLINE float f_smallest(Floats v) {
    for (int i = 1; i < LANES; i++) v.lane[0] = v.lane[0] < v.lane[i] ? v.lane[0] : v.lane[i];
    return v.lane[0];
}

/* float16 (IEEE 754 binary16), rounded to even */
INLINE float half_to_float(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    float x = exponent ? ldexpf((float)(fraction + 1024), exponent - 25)
                       : ldexpf((float)fraction, -24);
    if (exponent == 31) x = fraction ? NAN : INFINITY;
    return half >> 15 ? -x : x;
}
INLINE uint16_t float_to_half(float x) {
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    if (isnan(x)) return sign | 0x7e00;
    if (x == 0) return sign;
    int exponent;
    (void)frexpf(x, &exponent); /* |x| is in [0.5, 1) * 2^exponent */
    if (exponent < -13) exponent = -13;
    const float steps = rintf(ldexpf(fabsf(x), 11 - exponent)); /* of half's spacing */
    if (!(ldexpf(steps, exponent - 11) < 65520.0f)) return sign | 0x7c00;
    return sign | (uint16_t)((exponent + 13) * 1024 + (int)steps);
}
INLINE Floats f_load_half(const void *x) { EACH(Floats, half_to_float(((const uint16_t *)x)[i])); }
INLINE void f_store_half(void *x, Floats v) {
    for (int i = 0; i < LANES; i++) ((uint16_t *)x)[i] = float_to_half(v.lane[i]);
}

/* v in the lanes from first to end - 1, other elsewhere */
INLINE Floats f_lanes(Floats v, int first, int end, Floats other) {
    EACH(Floats, first <= i && i < end ? v.lane[i] : other.lane[i]);
}
/* 0 where x == y, v elsewhere, as where one is no number */
INLINE Floats f_zero_where_equal(Floats v, Floats x, Floats y) {
    EACH(Floats, x.lane[i] == y.lane[i] ? 0.0f : v.lane[i]);
}

/* Lane 4 q + i: the sum of quarter q of v[i], even and odd lanes first. */
INLINE Floats f_sum_quarters(const Floats v[4]) {
    EACH(Floats, (v[i % 4].lane[i / 4 * 4] + v[i % 4].lane[i / 4 * 4 + 2]) +
                     (v[i % 4].lane[i / 4 * 4 + 1] + v[i % 4].lane[i / 4 * 4 + 3]));
}
/* Lane 4 q + i: the sum of lane i of the four quarters of v[q], halves first. */
INLINE Floats f_sum_across(const Floats v[4]) {
    EACH(Floats, (v[i / 4].lane[i % 4] + v[i / 4].lane[i % 4 + 4]) +
                     (v[i / 4].lane[i % 4 + 8] + v[i / 4].lane[i % 4 + 12]));
}

INLINE Ints i_load(const int32_t *x) { EACH(Ints, x[i]); }
INLINE void i_store(int32_t *x, Ints v) { memcpy(x, v.lane, sizeof v.lane); }
INLINE Ints i_all(int32_t x) { EACH(Ints, x); }
INLINE Ints i_add(Ints x, Ints y) { EACH(Ints, x.lane[i] + y.lane[i]); }
INLINE Ints i_sub(Ints x, Ints y) { EACH(Ints, x.lane[i] - y.lane[i]); }
INLINE Ints i_mul(Ints x, Ints y) { EACH(Ints, x.lane[i] * y.lane[i]); }
INLINE Floats i_to_f(Ints x) { EACH(Floats, (float)x.lane[i]); }
/* halves to even; the smallest number where x does not fit or is no number */
INLINE Ints f_to_i(Floats x) {
    EACH(Ints, fabsf(x.lane[i]) < 2147483648.0f ? (int32_t)rintf(x.lane[i]) : INT32_MIN);
}
/* saturated */
INLINE int32_t clamp(int32_t x, int32_t low, int32_t high) {
    return x < low ? low : x > high ? high : x;
}
INLINE void i_store_u8(uint8_t *bytes, Ints x) {
    for (int i = 0; i < LANES; i++) bytes[i] = (uint8_t)clamp(x.lane[i], 0, 255);
}
INLINE void i_store_s8(int8_t *bytes, Ints x) {
    for (int i = 0; i < LANES; i++) bytes[i] = (int8_t)clamp(x.lane[i], -128, 127);
}

#undef EACH
#define PREFETCH(address) ((void)(address))
#define PREFETCH_FAR(address) ((void)(address))
