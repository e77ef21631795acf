/* Operands of BlockProduct: weights and activations in blocks, and how a product is accumulated. */
#pragma once

#include "../ort.h"
#include "tiles.h"
#include "vector.h"

enum { UNIT = 64 }; /* bytes of a tile's row */

typedef struct {
    Kernel base;
    const uint8_t *weights;
    const float *scales, *bias;
    int64_t depth, width, block, bits;
    int64_t group; /* weights of one integer sum: a block, or 64 of it */
    int64_t n_blocks, n_groups;
    int64_t row_size;      /* bytes of W's row */
    __m512i words, shifts; /* of 4-bit weights: see expand */
} BlockProduct;

typedef struct {
    const BlockProduct *self;
    const float *x;
    float *y;
    int8_t *tiles;        /* q(x); several rows in the layout of AMX tiles, on a CPU with tiles */
    float *scales;        /* of q(x): [groups, M], M rounded up to a multiple of TILE */
    int32_t *corrections; /* zero point times the sum of a group of q(x): the same shape */
    int64_t rows, n_padded, parts;
    int failed;
} BlockCall;

/* One row of q(x): its bytes, and its groups' scales and corrections, `step` elements apart. */
typedef struct {
    const int8_t *q;
    const float *scales;
    const int32_t *corrections;
    int64_t step;
} Row;

/* Expand 32 bytes to 64 weights of 4 bits, a byte each.
 *
 * Byte i of a group holds weight 2 i in its low half and weight 2 i + 1 in its high half. So a
 * group's bytes are copied twice, the first copy is masked and the second shifted: first the even
 * weights, then the odd ones. q(x) has that order, too (quantize_block). By words of eight bytes
 * w0..w3:
 *
 *   group   words                         shifts
 *   64      w0 w1 w2 w3  w0 w1 w2 w3      0 0 0 0  4 4 4 4
 *   32      w0 w1 w0 w1  w2 w3 w2 w3      0 0 4 4  0 0 4 4
 *   16      w0 w0 w1 w1  w2 w2 w3 w3      0 4 0 4  0 4 0 4
 */
static inline __m512i expand(const BlockProduct *self, const uint8_t *w) {
    const __m512i bytes = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)w));
    const __m512i copies =
        _mm512_srlv_epi64(_mm512_permutexvar_epi64(self->words, bytes), self->shifts);
    return _mm512_and_si512(copies, _mm512_set1_epi8(15));
}

static inline __m512 accumulate(__m512i sums, __m512i correction, __m512 x_scale, __m512 w_scale,
                                __m512 total) {
    const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, correction));
    return _mm512_fmadd_ps(_mm512_mul_ps(exact, x_scale), w_scale, total);
}

/* Quantize x [K] to q, as MatMulNBits does. Its scales and corrections are stored `step` elements
 * apart.
 */
void quantize_blocks(const BlockProduct *self, const float *x, int8_t *q, float *scales,
                     int32_t *corrections, int64_t step);
