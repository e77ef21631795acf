/* Sixteen outputs of one row of BlockProduct. */
#pragma once

#include "block_operands.h"

/* Copy the scales of sixteen outputs from n on to out [blocks][16]. */
void gather_scales(const BlockProduct *self, int64_t n, float *out);

/* Sixteen outputs of one row, without the bias. w: rows of W every `stride` bytes, in `bits`;
 * scales: [blocks][16]; is_far: prefetch the next rows of W.
 */
__m512 dot_sixteen(const BlockProduct *self, const uint8_t *w, int64_t stride, int bits,
                   const Row *row, const float *scales, int is_far);
