/* Integer products with NEON as every 64-bit Arm has it: products of 16 bits (smull), added in
 * pairs (sadalp).
 */
#pragma once

#include "neon_common.h"

INLINE int32x4_t dot_bytes(int32x4_t sum, int8x16_t w, int8x16_t x) {
    sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(w), vget_low_s8(x)));
    return vpadalq_s16(sum, vmull_high_s8(w, x));
}

typedef struct {
    int16_t pairs[8]; /* two bytes each */
} FewX;

INLINE void few_x(FewX *x, const uint8_t *q) {
    vst1q_s16(x->pairs, vreinterpretq_s16_s8(minus_128(load_signed(q))));
}

/* Add the products of two rows of sixteen columns, as [16 columns][2 rows]. */
INLINE void add_pair(int32x4_t sum[4], const int8x16_t v[2], int16_t pair) {
    const int8x8_t x = vreinterpret_s8_s16(vdup_n_s16(pair));
    const int8x16_t both = vcombine_s8(x, x);
    UNROLL
    for (int i = 0; i < 2; i++) {
        sum[2 * i] = vpadalq_s16(sum[2 * i], vmull_s8(vget_low_s8(v[i]), x));
        sum[2 * i + 1] = vpadalq_s16(sum[2 * i + 1], vmull_high_s8(v[i], both));
    }
}

INLINE void few_product(const int8_t *w, int64_t stride, const FewX *x, int64_t n_rows,
                        int64_t sums_stride, int32_t *sums) {
    for (int n = 0; n < COLUMNS; n += 16) {
        int8x16_t v[8][2];
        UNROLL
        for (int pair = 0; pair < 8; pair++) {
            const int8x16_t r0 = load_signed(w + 2 * pair * stride + n);
            const int8x16_t r1 = load_signed(w + (2 * pair + 1) * stride + n);
            v[pair][0] = vzip1q_s8(r0, r1);
            v[pair][1] = vzip2q_s8(r0, r1);
        }
        for (int64_t row = 0; row < n_rows; row++) {
            Ints total = i_load(sums + row * sums_stride + n);
            UNROLL
            for (int pair = 0; pair < 8; pair++) add_pair(total.val, v[pair], x[row].pairs[pair]);
            i_store(sums + row * sums_stride + n, total);
        }
    }
}

/* Panels are [K / 2][16 columns][2]. */
INLINE void many_pack_rows(const int8_t *const rows[8], int64_t k, int64_t panel_size,
                           uint8_t *panels) {
    for (int n = 0; n < COLUMNS; n += 16)
        for (int i = 0; i < 8; i += 2) {
            const int8x16_t r0 = load_signed(rows[i] + n), r1 = load_signed(rows[i + 1] + n);
            int8_t *out = (int8_t *)panels + n / 16 * panel_size + (k + i) * 16;
            vst1q_s8(out, vzip1q_s8(r0, r1));
            vst1q_s8(out + 16, vzip2q_s8(r0, r1));
        }
}

/* From [K / 4][16 rows][4] to [K / 2][16 rows][2], in place. */
INLINE void many_pack_outputs(const uint8_t *w, int64_t stride, int64_t n, int is_wide,
                              uint8_t *panel) {
    transpose_words(w, stride, n, is_wide, panel);
    for (int64_t k = 0; k < n; k += 4) {
        int16_t *four = (int16_t *)(panel + k * 16);
        const int16x8x2_t low = vld2q_s16(four), high = vld2q_s16(four + 16);
        vst1q_s16(four, low.val[0]);
        vst1q_s16(four + 8, high.val[0]);
        vst1q_s16(four + 16, low.val[1]);
        vst1q_s16(four + 24, high.val[1]);
    }
}

INLINE void many_tile(const uint8_t *x, int64_t row_size, const uint8_t *panel, int64_t k,
                      int64_t n, int is_rows, Ints sums[MANY_ROWS]) {
    (void)is_rows;
    int32x4_t sum[MANY_ROWS][4];
    UNROLL
    for (int row = 0; row < MANY_ROWS; row++) {
        UNROLL
        for (int j = 0; j < 4; j++) sum[row][j] = vdupq_n_s32(0);
    }
    for (int64_t i = k; i < k + n; i += 2) {
        const int8x16_t w[2] = {load_signed(panel + i * 16), load_signed(panel + i * 16 + 16)};
        UNROLL
        for (int row = 0; row < MANY_ROWS; row++) {
            int16_t pair;
            memcpy(&pair, x + row * row_size + i, 2);
            add_pair(sum[row], w, pair);
        }
    }
    store_tile(sum, sums);
}
