/* Integer products in plain C: the definition of what the other files of this folder compute, each
 * with instructions of its own. Sums are exact, so all agree.
 *
 * Few rows (`few_`): x times W [K, N], signed, in the layout of the file, sixteen rows of W by 64
 * columns at a time. Many rows (`many_`): sixteen columns of W at a time, packed into a panel. A
 * row of blocks (`block_`): x times sixteen rows of W [N, K], unsigned, in the layout of the file.
 */
#pragma once

#include "common.h"

/* x comes as unsigned bytes; products are of x - X_OFFSET. */
enum { X_OFFSET = 0 };
/* Weights of 8 bits in blocks are unsigned bytes; products are of w - W_OFFSET. */
enum { W_OFFSET = 0 };

typedef struct {
    int32_t x[16];
} FewX; /* x of sixteen rows of W */

INLINE void few_x(FewX *x, const uint8_t *q) {
    for (int k = 0; k < 16; k++) x->x[k] = q[k];
}

/* Add the products of n_rows rows of x to sums [n_rows][64], sums_stride apart, in an order of
 * columns that few_order undoes.
 */
INLINE void few_product(const int8_t *w, int64_t stride, const FewX *x, int64_t n_rows,
                        int64_t sums_stride, int32_t *sums) {
    for (int64_t row = 0; row < n_rows; row++)
        for (int k = 0; k < 16; k++)
            for (int n = 0; n < COLUMNS; n++)
                sums[row * sums_stride + n] += x[row].x[k] * w[k * stride + n];
}

INLINE void few_order(Ints sums[4]) { (void)sums; }

enum { MANY_ROWS = 4 };   /* rows of x that many_tile takes */
enum { WEIGHT_SIZE = 1 }; /* bytes of a weight of a panel */
enum { X_SIZE = 1 };      /* bytes of a number of x, as many_x stores them */
enum { FEW_4_BITS = 8 };  /* rows that BlockProduct multiplies as block_few.h does it */
enum { FEW_8_BITS = 1 };

/* Store row m of x, of n numbers, for many_tile. is_rows: unsigned bytes, or signed ones. */
INLINE void many_x(uint8_t *to, int64_t m, int64_t n, const uint8_t *x, int is_rows) {
    (void)is_rows;
    memcpy(to + m * n, x, (size_t)n);
}

/* Eight rows of 64 columns of W, from row k on, to four panels, panel_size bytes apart. */
INLINE void many_pack_rows(const int8_t *const rows[8], int64_t k, int64_t panel_size,
                           uint8_t *panels) {
    for (int i = 0; i < 8; i++)
        for (int n = 0; n < COLUMNS; n++)
            panels[n / 16 * panel_size + (k + i) * 16 + n % 16] = (uint8_t)rows[i][n];
}

/* Sixteen rows of W [N, K], n bytes each, to a panel. is_wide: of 8 bits, not 4 in a byte. */
INLINE void many_pack_outputs(const uint8_t *w, int64_t stride, int64_t n, int is_wide,
                              uint8_t *panel) {
    (void)is_wide;
    for (int64_t k = 0; k < n; k++)
        for (int i = 0; i < 16; i++) panel[k * 16 + i] = w[i * stride + k];
}

/* MANY_ROWS rows, x of row_size numbers each, from number k on, times n rows of a panel from row k
 * on.
 */
INLINE void many_tile(const uint8_t *x, int64_t row_size, const uint8_t *panel, int64_t k,
                      int64_t n, int is_rows, Ints sums[MANY_ROWS]) {
    for (int row = 0; row < MANY_ROWS; row++) {
        sums[row] = i_all(0);
        for (int64_t i = k; i < k + n; i++)
            for (int j = 0; j < 16; j++) {
                const uint8_t one = x[row * row_size + i], w = panel[i * 16 + j];
                sums[row].lane[j] += is_rows ? one * (int8_t)w : (int8_t)one * w;
            }
    }
}

typedef struct {
    int8_t x[UNIT];
} BlockX; /* x of 64 weights of a row */

INLINE void block_x(BlockX *x, const int8_t *q, int bits, int n_parts) {
    (void)bits, (void)n_parts;
    memcpy(x->x, q, UNIT);
}

/* Products of x with sixteen rows of 64 weights: sums[p] of the p-th of n_parts parts. */
INLINE void block_unit(const uint8_t *w, int64_t stride, int bits, const BlockX *x, int n_parts,
                       Ints sums[4]) {
    const int size = UNIT / n_parts;
    for (int p = 0; p < n_parts; p++) sums[p] = i_all(0);
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < UNIT; k++) {
            /* of 4 bits: a part's even weights are the low halves, and come first */
            const int i = bits == 8 ? k : k / size * (size / 2) + k % (size / 2);
            const int shift = bits == 4 && k % size >= size / 2 ? 4 : 0;
            const int weight = bits == 8 ? w[row * stride + i] : w[row * stride + i] >> shift & 15;
            sums[k / size].lane[row] += weight * x->x[k];
        }
}
