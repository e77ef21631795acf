/* What the parts of BlockProduct share: sixteen outputs of a row (block_dot.c), one row and many. */
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
    int64_t group;          /* weights that are summed as integers: a block, or 64 of it */
    int64_t n_blocks, n_groups;
    int64_t row_size;       /* bytes of W's row */
    __m512i places, shifts; /* where four bits go: see expand */
} BlockProduct;

typedef struct {
    const BlockProduct *self;
    const float *x;
    float *y;
    int8_t *tiles;        /* q(x), of several rows as the CPU's tiles want it, where there are any */
    float *scales;        /* of q(x): [groups, M], M up to a multiple of a tile */
    int32_t *corrections; /* zero times the sum of a group of q(x): the same shape */
    int64_t rows, n_padded, parts;
    int failed;
} BlockCall;

/* One row of q(x): its bytes, and with `step` between them its groups' scales and corrections. */
typedef struct {
    const int8_t *q;
    const float *scales;
    const int32_t *corrections;
    int64_t step;
} Row;

/* 32 bytes to 64 weights. */
static inline __m512i expand(const BlockProduct *self, const uint8_t *w) {
    const __m512i both = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)w));
    const __m512i spread = _mm512_srlv_epi64(_mm512_permutexvar_epi64(self->places, both), self->shifts);
    return _mm512_and_si512(spread, _mm512_set1_epi8(15));
}

static inline __m512 accumulate(__m512i sums, __m512i correction, __m512 x_scale, __m512 w_scale, __m512 total) {
    const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, correction));
    return _mm512_fmadd_ps(_mm512_mul_ps(exact, x_scale), w_scale, total);
}

/* Round x [K] to q, as MatMulNBits does; its scales and corrections go to every step-th place. */
void quantize_blocks(const BlockProduct *self, const float *x, int8_t *q, float *scales, int32_t *corrections,
                     int64_t step);
