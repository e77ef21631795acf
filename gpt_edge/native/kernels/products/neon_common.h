/* What the products of NEON have in common, with dot products and without.
 *
 * Bytes are signed: x minus 128 and weights of 8 bits in blocks minus 128, so that one instruction
 * serves all. The corrections that the zero points ask for take that into account (X_OFFSET,
 * W_OFFSET).
 */
#pragma once

#include "common.h"

enum { X_OFFSET = 128, W_OFFSET = 128 };

INLINE int8x16_t load_signed(const void *x) { return vld1q_s8(x); }
INLINE int8x16_t minus_128(int8x16_t x) { return veorq_s8(x, vdupq_n_s8(-128)); }

INLINE void few_order(Ints sums[4]) { (void)sums; }

/* Weights 16 i to 16 i + 15 of the 64 of a row, in the order of x; of 4 bits in the order that
 * block_x gives to x: the low halves of sixteen bytes, then the high ones.
 */
INLINE int8x16_t load_weights(const uint8_t *w, int bits, int i) {
    if (bits == 8) return minus_128(load_signed(w + 16 * i));
    const uint8x16_t bytes = vld1q_u8(w + i / 2 * 16);
    return vreinterpretq_s8_u8(i % 2 ? vshrq_n_u8(bytes, 4) : vandq_u8(bytes, vdupq_n_u8(15)));
}

typedef struct {
    int8x16_t x[4];
} BlockX;

INLINE void block_x(BlockX *x, const int8_t *q, int bits, int n_parts) {
    int8x16_t v[4];
    UNROLL
    for (int i = 0; i < 4; i++) v[i] = load_signed(q + 16 * i);
    memcpy(x->x, v, sizeof v);
    if (bits == 8 || n_parts == 2) return; /* of 2 parts: 16 even, 16 odd, 16 even, 16 odd */
    if (n_parts == 1) {                    /* 32 even, 32 odd */
        x->x[1] = v[2];
        x->x[2] = v[1];
        return;
    }
    for (int i = 0; i < 4; i += 2) { /* 8 even, 8 odd, four times */
        x->x[i] = vcombine_s8(vget_low_s8(v[i]), vget_low_s8(v[i + 1]));
        x->x[i + 1] = vcombine_s8(vget_high_s8(v[i]), vget_high_s8(v[i + 1]));
    }
}

/* The sums of four vectors. */
INLINE int32x4_t sum_four(const int32x4_t v[4]) {
    return vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]));
}

INLINE int32x4_t dot_bytes(int32x4_t sum, int8x16_t w, int8x16_t x);

INLINE void block_unit(const uint8_t *w, int64_t stride, int bits, const BlockX *x, int n_parts,
                       Ints sums[4]) {
    UNROLL
    for (int four = 0; four < 4; four++) {
        int32x4_t v[4][4]; /* [part][row] */
        UNROLL
        for (int row = 0; row < 4; row++) {
            const uint8_t *from = w + (4 * four + row) * stride;
            int32x4_t part[4];
            UNROLL
            for (int i = 0; i < 4; i++) part[i] = vdupq_n_s32(0);
            if (bits == 8 || n_parts < 4) {
                UNROLL
                for (int i = 0; i < 4; i++)
                    part[i * n_parts / 4] = dot_bytes(part[i * n_parts / 4],
                                                      load_weights(from, bits, i), x->x[i]);
            } else { /* two parts of eight bytes in a vector */
                UNROLL
                for (int i = 0; i < 4; i++) {
                    const int8x16_t bytes = load_weights(from, bits, i);
                    const int8x8_t none = vdup_n_s8(0);
                    const int8x16_t first = vcombine_s8(vget_low_s8(x->x[i]), none);
                    const int8x16_t second = vcombine_s8(none, vget_high_s8(x->x[i]));
                    part[i / 2 * 2] = dot_bytes(part[i / 2 * 2], bytes, first);
                    part[i / 2 * 2 + 1] = dot_bytes(part[i / 2 * 2 + 1], bytes, second);
                }
            }
            for (int p = 0; p < n_parts; p++) v[p][row] = part[p];
        }
        UNROLL
        for (int p = 0; p < n_parts; p++) sums[p].val[four] = sum_four(v[p]);
    }
}

/* Sixteen rows of W [N, K] as [K / 4][16 rows][4]: 4 x 4 words at a time. */
INLINE void transpose_words(const uint8_t *w, int64_t stride, int64_t n, int is_wide,
                            uint8_t *panel) {
    for (int64_t k = 0; k < n; k += 16)
        for (int four = 0; four < 4; four++) {
            int32x4_t r[4];
            for (int i = 0; i < 4; i++) {
                int8x16_t bytes = load_signed(w + (4 * four + i) * stride + k);
                if (is_wide) bytes = minus_128(bytes);
                r[i] = vreinterpretq_s32_s8(bytes);
            }
            const int32x4_t a = vtrn1q_s32(r[0], r[1]), b = vtrn2q_s32(r[0], r[1]);
            const int32x4_t c = vtrn1q_s32(r[2], r[3]), d = vtrn2q_s32(r[2], r[3]);
#define PAIRS(which, x, y) \
    vreinterpretq_s32_s64( \
        vtrn##which##q_s64(vreinterpretq_s64_s32(x), vreinterpretq_s64_s32(y)))
            const int32x4_t out[4] = {PAIRS(1, a, c), PAIRS(1, b, d), PAIRS(2, a, c),
                                      PAIRS(2, b, d)};
#undef PAIRS
            for (int i = 0; i < 4; i++)
                vst1q_s32((int32_t *)(panel + (k + 4 * i) * 16 + 16 * four), out[i]);
        }
}

enum { MANY_ROWS = 4, WEIGHT_SIZE = 1, X_SIZE = 1, FEW_4_BITS = 8, FEW_8_BITS = 1 };

/* The sums of a tile, which are kept in registers. Not in `sums` while they grow: the compiler would
 * store them at every step, as x may be the same memory.
 */
INLINE void store_tile(int32x4_t sum[MANY_ROWS][4], Ints sums[MANY_ROWS]) {
    UNROLL
    for (int row = 0; row < MANY_ROWS; row++) {
        UNROLL
        for (int j = 0; j < 4; j++) sums[row].val[j] = sum[row][j];
    }
}

#ifndef MATRIX_PRODUCTS /* which have an order of their own */
INLINE void many_x(uint8_t *to, int64_t m, int64_t n, const uint8_t *x, int is_rows) {
    for (int64_t k = 0; k < n; k += 16) {
        const int8x16_t bytes = load_signed(x + k);
        vst1q_s8((int8_t *)to + m * n + k, is_rows ? minus_128(bytes) : bytes);
    }
}
#endif

/* Four rows of sixteen columns as [16 columns][4 rows]. */
INLINE void interleave_four(const int8_t *const rows[4], int64_t n, int8x16_t out[4]) {
    const int8x16_t r0 = load_signed(rows[0] + n), r1 = load_signed(rows[1] + n);
    const int8x16_t r2 = load_signed(rows[2] + n), r3 = load_signed(rows[3] + n);
    const int16x8_t a = vreinterpretq_s16_s8(vzip1q_s8(r0, r1));
    const int16x8_t b = vreinterpretq_s16_s8(vzip2q_s8(r0, r1));
    const int16x8_t c = vreinterpretq_s16_s8(vzip1q_s8(r2, r3));
    const int16x8_t d = vreinterpretq_s16_s8(vzip2q_s8(r2, r3));
    out[0] = vreinterpretq_s8_s16(vzip1q_s16(a, c));
    out[1] = vreinterpretq_s8_s16(vzip2q_s16(a, c));
    out[2] = vreinterpretq_s8_s16(vzip1q_s16(b, d));
    out[3] = vreinterpretq_s8_s16(vzip2q_s16(b, d));
}
