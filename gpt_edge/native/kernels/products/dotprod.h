/* Integer products with NEON's dot products (Armv8.2 dotprod): four products of bytes in a lane. */
#pragma once

#include "neon_common.h"

INLINE int32x4_t dot_bytes(int32x4_t sum, int8x16_t w, int8x16_t x) {
    return vdotq_s32(sum, w, x);
}

typedef struct {
    int8x16_t x;
} FewX;

INLINE void few_x(FewX *x, const uint8_t *q) { x->x = minus_128(load_signed(q)); }

/* sum += w times four bytes of x, the i-th of its four */
#define DOT_FOUR(sum, w, x, i)                         \
    ((i) == 0   ? vdotq_laneq_s32((sum), (w), (x), 0)  \
     : (i) == 1 ? vdotq_laneq_s32((sum), (w), (x), 1)  \
     : (i) == 2 ? vdotq_laneq_s32((sum), (w), (x), 2)  \
                : vdotq_laneq_s32((sum), (w), (x), 3))

INLINE void few_product(const int8_t *w, int64_t stride, const FewX *x, int64_t n_rows,
                        int64_t sums_stride, int32_t *sums) {
    for (int n = 0; n < COLUMNS; n += 16) {
        int8x16_t v[4][4];
        UNROLL
        for (int four = 0; four < 4; four++) {
            const int8_t *from = w + 4 * four * stride;
            const int8_t *const rows[4] = {from, from + stride, from + 2 * stride,
                                           from + 3 * stride};
            interleave_four(rows, n, v[four]);
        }
        for (int64_t row = 0; row < n_rows; row++) {
            Ints total = i_load(sums + row * sums_stride + n);
            UNROLL
            for (int four = 0; four < 4; four++) {
                UNROLL
                for (int i = 0; i < 4; i++)
                    total.val[i] = DOT_FOUR(total.val[i], v[four][i], x[row].x, four);
            }
            i_store(sums + row * sums_stride + n, total);
        }
    }
}

#ifndef MATRIX_PRODUCTS
/* Panels are [K / 4][16 columns][4]. */
INLINE void many_pack_rows(const int8_t *const rows[8], int64_t k, int64_t panel_size,
                           uint8_t *panels) {
    for (int n = 0; n < COLUMNS; n += 16)
        for (int four = 0; four < 8; four += 4) {
            int8x16_t v[4];
            interleave_four(rows + four, n, v);
            int8_t *out = (int8_t *)panels + n / 16 * panel_size + (k + four) * 16;
            for (int i = 0; i < 4; i++) vst1q_s8(out + 16 * i, v[i]);
        }
}

INLINE void many_pack_outputs(const uint8_t *w, int64_t stride, int64_t n, int is_wide,
                              uint8_t *panel) {
    transpose_words(w, stride, n, is_wide, panel);
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
    for (int64_t i = k; i < k + n; i += 16) {
        int8x16_t bytes[MANY_ROWS];
        UNROLL
        for (int row = 0; row < MANY_ROWS; row++) bytes[row] = load_signed(x + row * row_size + i);
        UNROLL
        for (int four = 0; four < 4; four++) {
            UNROLL
            for (int j = 0; j < 4; j++) {
                const int8x16_t w = load_signed(panel + (i + 4 * four) * 16 + 16 * j);
                UNROLL
                for (int row = 0; row < MANY_ROWS; row++)
                    sum[row][j] = DOT_FOUR(sum[row][j], w, bytes[row], four);
            }
        }
    }
    store_tile(sum, sums);
}
#endif
