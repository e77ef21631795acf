/* Integer products with NEON's matrix products (Armv8.6 i8mm): 2 rows by 2 columns by 8 bytes. */
#pragma once

#define MATRIX_PRODUCTS
#include "dotprod.h"

/* Panels are [K / 8][16 columns][8]; x is [M / 2][K / 8][2 rows][8]. */
INLINE void many_x(uint8_t *to, int64_t m, int64_t n, const uint8_t *x, int is_rows) {
    const int8x8_t offset = vdup_n_s8(is_rows ? -128 : 0);
    int8_t *out = (int8_t *)to + m / 2 * 2 * n + m % 2 * 8;
    for (int64_t k = 0; k < n; k += 8)
        vst1_s8(out + 2 * k, veor_s8(vld1_s8((const int8_t *)x + k), offset));
}

/* Two halves of a panel's eights, [16 columns][4] each, to [16 columns][8]. */
INLINE void join_fours(const int8x16_t first[4], const int8x16_t second[4], int8_t *out) {
    UNROLL
    for (int i = 0; i < 4; i++) {
        const int32x4_t a = vreinterpretq_s32_s8(first[i]), b = vreinterpretq_s32_s8(second[i]);
        vst1q_s8(out + 32 * i, vreinterpretq_s8_s32(vzip1q_s32(a, b)));
        vst1q_s8(out + 32 * i + 16, vreinterpretq_s8_s32(vzip2q_s32(a, b)));
    }
}

INLINE void many_pack_rows(const int8_t *const rows[8], int64_t k, int64_t panel_size,
                           uint8_t *panels) {
    for (int n = 0; n < COLUMNS; n += 16) {
        int8x16_t first[4], second[4];
        interleave_four(rows, n, first);
        interleave_four(rows + 4, n, second);
        join_fours(first, second, (int8_t *)panels + n / 16 * panel_size + k * 16);
    }
}

INLINE void many_pack_outputs(const uint8_t *w, int64_t stride, int64_t n, int is_wide,
                              uint8_t *panel) {
    transpose_words(w, stride, n, is_wide, panel);
    for (int64_t k = 0; k < n; k += 8) {
        int8_t *eight = (int8_t *)panel + k * 16;
        int8x16_t v[8];
        for (int i = 0; i < 8; i++) v[i] = load_signed(eight + 16 * i);
        join_fours(v, v + 4, eight);
    }
}

INLINE void many_tile(const uint8_t *x, int64_t row_size, const uint8_t *panel, int64_t k,
                      int64_t n, int is_rows, Ints sums[MANY_ROWS]) {
    (void)is_rows;
    int32x4_t sum[MANY_ROWS / 2][8]; /* [r0 c0, r0 c1, r1 c0, r1 c1] */
    UNROLL
    for (int pair = 0; pair < MANY_ROWS / 2; pair++) {
        UNROLL
        for (int j = 0; j < 8; j++) sum[pair][j] = vdupq_n_s32(0);
    }
    for (int64_t i = k; i < k + n; i += 8) {
        int8x16_t bytes[MANY_ROWS / 2];
        UNROLL
        for (int pair = 0; pair < MANY_ROWS / 2; pair++)
            bytes[pair] = load_signed(x + pair * 2 * row_size + 2 * i);
        UNROLL
        for (int j = 0; j < 8; j++) {
            const int8x16_t w = load_signed(panel + i * 16 + 16 * j);
            UNROLL
            for (int pair = 0; pair < MANY_ROWS / 2; pair++)
                sum[pair][j] = vmmlaq_s32(sum[pair][j], bytes[pair], w);
        }
    }
    UNROLL
    for (int pair = 0; pair < MANY_ROWS / 2; pair++) {
        UNROLL
        for (int j = 0; j < 4; j++) {
            const int64x2_t a = vreinterpretq_s64_s32(sum[pair][2 * j]);
            const int64x2_t b = vreinterpretq_s64_s32(sum[pair][2 * j + 1]);
            sums[2 * pair].val[j] = vreinterpretq_s32_s64(vzip1q_s64(a, b));
            sums[2 * pair + 1].val[j] = vreinterpretq_s32_s64(vzip2q_s64(a, b));
        }
    }
}
