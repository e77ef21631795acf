/* Sixteen outputs of one row of BlockProduct. */
#pragma once

#include "block_operands.h"

/* Scales of sixteen outputs from n on as [blocks][16]. */
void gather_scales(const BlockProduct *self, int64_t n, float *out);

/* Sixteen outputs of one row, without the bias. w: rows of W every `stride` bytes, in `bits`; scales: [blocks][16];
 * is_far: the next rows of W are asked for early.
 */
__m512 dot_sixteen(const BlockProduct *self, const uint8_t *w, int64_t stride, int bits, const Row *row,
                   const float *scales, int is_far);
