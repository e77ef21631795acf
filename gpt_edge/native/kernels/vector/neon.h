/* Sixteen floats, or sixteen 32-bit integers, in four registers of NEON. */
#pragma once

#include <arm_neon.h>

#include "common.h"

typedef float32x4x4_t Floats;
typedef int32x4x4_t Ints;

enum { MAX_ACCUMULATORS = 4 }; /* Floats that fit the registers beside what is added to them */

#define EACH(type, call)                                   \
    do {                                                   \
        type out_;                                         \
        UNROLL                                             \
        for (int i = 0; i < 4; i++) out_.val[i] = (call);  \
        return out_;                                       \
    } while (0)

INLINE Floats f_load(const float *x) { EACH(Floats, vld1q_f32(x + 4 * i)); }
INLINE void f_store(float *x, Floats v) {
    UNROLL
    for (int i = 0; i < 4; i++) vst1q_f32(x + 4 * i, v.val[i]);
}
INLINE Floats f_all(float x) { EACH(Floats, vdupq_n_f32(x)); }
INLINE Floats f_add(Floats x, Floats y) { EACH(Floats, vaddq_f32(x.val[i], y.val[i])); }
INLINE Floats f_sub(Floats x, Floats y) { EACH(Floats, vsubq_f32(x.val[i], y.val[i])); }
INLINE Floats f_mul(Floats x, Floats y) { EACH(Floats, vmulq_f32(x.val[i], y.val[i])); }
INLINE Floats f_div(Floats x, Floats y) { EACH(Floats, vdivq_f32(x.val[i], y.val[i])); }
INLINE Floats f_fma(Floats x, Floats y, Floats z) {
    EACH(Floats, vfmaq_f32(z.val[i], x.val[i], y.val[i]));
}
INLINE Floats f_fnma(Floats x, Floats y, Floats z) {
    EACH(Floats, vfmsq_f32(z.val[i], x.val[i], y.val[i]));
}
/* As on x86: the second operand where one is no number. vmaxq_f32 has another rule. */
INLINE float32x4_t larger(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
INLINE float32x4_t smaller(float32x4_t x, float32x4_t y) {
    return vbslq_f32(vcltq_f32(x, y), x, y);
}
INLINE Floats f_max(Floats x, Floats y) { EACH(Floats, larger(x.val[i], y.val[i])); }
INLINE Floats f_min(Floats x, Floats y) { EACH(Floats, smaller(x.val[i], y.val[i])); }
INLINE Floats f_abs(Floats x) { EACH(Floats, vabsq_f32(x.val[i])); }
INLINE Floats f_round(Floats x) { EACH(Floats, vrndnq_f32(x.val[i])); }

/* 2^n for whole n from -126 to 127. */
INLINE float32x4_t power_of_two(int32x4_t n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}
/* In two steps, so that both factors are normal numbers: only the second rounds. */
INLINE float32x4_t scale_quarter(float32x4_t x, float32x4_t n) {
    const int32x4_t whole = vcvtnq_s32_f32(n), half = vshrq_n_s32(whole, 1);
    return vmulq_f32(vmulq_f32(x, power_of_two(half)), power_of_two(vsubq_s32(whole, half)));
}
INLINE Floats f_scale(Floats x, Floats n) { EACH(Floats, scale_quarter(x.val[i], n.val[i])); }

/* The first four numbers of sixteen rows that lie `stride` apart, by columns. */
INLINE void f_four_columns(const float *x, int64_t stride, Floats column[4]) {
    UNROLL
    for (int q = 0; q < 4; q++) {
        const float *from = x + 4 * q * stride;
        const float32x4x2_t a = vtrnq_f32(vld1q_f32(from), vld1q_f32(from + stride));
        const float32x4x2_t b =
            vtrnq_f32(vld1q_f32(from + 2 * stride), vld1q_f32(from + 3 * stride));
        UNROLL
        for (int j = 0; j < 2; j++) {
            column[j].val[q] = vcombine_f32(vget_low_f32(a.val[j]), vget_low_f32(b.val[j]));
            column[2 + j].val[q] = vcombine_f32(vget_high_f32(a.val[j]), vget_high_f32(b.val[j]));
        }
    }
}

INLINE float f_sum(Floats v) {
    const float32x4_t x = vaddq_f32(vaddq_f32(v.val[0], v.val[2]), vaddq_f32(v.val[1], v.val[3]));
    const float32x2_t y = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    return vget_lane_f32(y, 0) + vget_lane_f32(y, 1);
}
INLINE float f_largest(Floats v) {
    const float32x4_t x = larger(larger(v.val[0], v.val[2]), larger(v.val[1], v.val[3]));
    float lanes[4];
    vst1q_f32(lanes, x);
    for (int i = 1; i < 4; i++) lanes[0] = lanes[0] > lanes[i] ? lanes[0] : lanes[i];
    return lanes[0];
}
INLINE float f_smallest(Floats v) {
    const float32x4_t x = smaller(smaller(v.val[0], v.val[2]), smaller(v.val[1], v.val[3]));
    float lanes[4];
    vst1q_f32(lanes, x);
    for (int i = 1; i < 4; i++) lanes[0] = lanes[0] < lanes[i] ? lanes[0] : lanes[i];
    return lanes[0];
}

INLINE Floats f_load_half(const void *x) {
    const uint16_t *half = x;
    EACH(Floats, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(half + 4 * i))));
}
INLINE void f_store_half(void *x, Floats v) {
    uint16_t *half = x;
    UNROLL
    for (int i = 0; i < 4; i++)
        vst1_u16(half + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(v.val[i])));
}

INLINE uint32x4_t lanes_from_to(int quarter, int first, int end) {
    static const int32_t numbers[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const int32x4_t lane = vld1q_s32(numbers + 4 * quarter);
    return vandq_u32(vcgeq_s32(lane, vdupq_n_s32(first)), vcltq_s32(lane, vdupq_n_s32(end)));
}
INLINE Floats f_lanes(Floats v, int first, int end, Floats other) {
    EACH(Floats, vbslq_f32(lanes_from_to(i, first, end), v.val[i], other.val[i]));
}
INLINE Floats f_zero_where_equal(Floats v, Floats x, Floats y) {
    EACH(Floats, vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v.val[i]),
                                                 vceqq_f32(x.val[i], y.val[i]))));
}

INLINE float32x4_t sum_quarter(float32x4_t v0, float32x4_t v1, float32x4_t v2, float32x4_t v3) {
    const float64x2_t x = vreinterpretq_f64_f32(vaddq_f32(vzip1q_f32(v0, v1), vzip2q_f32(v0, v1)));
    const float64x2_t y = vreinterpretq_f64_f32(vaddq_f32(vzip1q_f32(v2, v3), vzip2q_f32(v2, v3)));
    return vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(x, y)),
                     vreinterpretq_f32_f64(vzip2q_f64(x, y)));
}
INLINE Floats f_sum_quarters(const Floats v[4]) {
    EACH(Floats, sum_quarter(v[0].val[i], v[1].val[i], v[2].val[i], v[3].val[i]));
}
INLINE Floats f_sum_across(const Floats v[4]) {
    EACH(Floats, vaddq_f32(vaddq_f32(v[i].val[0], v[i].val[1]),
                           vaddq_f32(v[i].val[2], v[i].val[3])));
}

INLINE Ints i_load(const int32_t *x) { EACH(Ints, vld1q_s32(x + 4 * i)); }
INLINE void i_store(int32_t *x, Ints v) {
    UNROLL
    for (int i = 0; i < 4; i++) vst1q_s32(x + 4 * i, v.val[i]);
}
INLINE Ints i_all(int32_t x) { EACH(Ints, vdupq_n_s32(x)); }
INLINE Ints i_add(Ints x, Ints y) { EACH(Ints, vaddq_s32(x.val[i], y.val[i])); }
INLINE Ints i_sub(Ints x, Ints y) { EACH(Ints, vsubq_s32(x.val[i], y.val[i])); }
INLINE Ints i_mul(Ints x, Ints y) { EACH(Ints, vmulq_s32(x.val[i], y.val[i])); }
INLINE Floats i_to_f(Ints x) { EACH(Floats, vcvtq_f32_s32(x.val[i])); }
/* As on x86: the smallest number where x does not fit or is no number. */
INLINE int32x4_t to_int(float32x4_t x) {
    const uint32x4_t fits = vcaltq_f32(x, vdupq_n_f32(2147483648.0f));
    return vbslq_s32(fits, vcvtnq_s32_f32(x), vdupq_n_s32(INT32_MIN));
}
INLINE Ints f_to_i(Floats x) { EACH(Ints, to_int(x.val[i])); }
INLINE int16x8_t to_words(Ints x, int half) {
    return vcombine_s16(vqmovn_s32(x.val[2 * half]), vqmovn_s32(x.val[2 * half + 1]));
}
INLINE void i_store_u8(uint8_t *bytes, Ints x) {
    vst1q_u8(bytes, vcombine_u8(vqmovun_s16(to_words(x, 0)), vqmovun_s16(to_words(x, 1))));
}
INLINE void i_store_s8(int8_t *bytes, Ints x) {
    vst1q_s8(bytes, vcombine_s8(vqmovn_s16(to_words(x, 0)), vqmovn_s16(to_words(x, 1))));
}

#undef EACH
#define PREFETCH(address) __builtin_prefetch(address)
#define PREFETCH_FAR(address) __builtin_prefetch(address, 0, 2) /* to the second cache */
