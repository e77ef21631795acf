/* Activations of BlockProduct: a row quantized to 8 bits, block by block. */
#include "block_operands.h"

#include <math.h>

/* Quantize a block of x to q and return its scale. q has x's order; for 4 bits, that of `expand`: a
 * group's even elements, then its odd ones.
 */
static float quantize_block(const BlockProduct *self, const float *x, int8_t *q) {
    __m512 max_abs = _mm512_setzero_ps();
    __mmask16 is_nan = 0;
    for (int64_t k = 0; k < self->block; k += 16) {
        const __m512 v = _mm512_loadu_ps(x + k);
        is_nan |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
        max_abs = _mm512_max_ps(max_abs, _mm512_abs_ps(v));
    }
    const float largest = is_nan ? NAN : _mm512_reduce_max_ps(max_abs);
    const __m512 by = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
    for (int64_t k = 0; k < self->block; k += 16) {
        __m128i bytes =
            _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + k), by)));
        if (self->bits == 8) {
            _mm_storeu_si128((__m128i *)(q + k), bytes);
            continue;
        }
        /* 0 1 2 3 .. 15 -> 0 2 4 .. 14, 1 3 5 .. 15: eight even elements, then eight odd ones */
        bytes = _mm_shuffle_epi8(
            bytes, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
        int8_t *group = q + k / self->group * self->group;
        const int64_t offset = k % self->group / 2;
        _mm_storel_epi64((__m128i *)(group + offset), bytes);
        _mm_storel_epi64((__m128i *)(group + self->group / 2 + offset), _mm_srli_si128(bytes, 8));
    }
    return largest / 127.0f;
}

void quantize_blocks(const BlockProduct *self, const float *x, int8_t *q, float *scales,
                     int32_t *corrections, int64_t step) {
    const int32_t zero = self->bits == 8 ? 128 : 8;
    for (int64_t k = 0; k < self->depth; k += self->block) {
        const float scale = quantize_block(self, x + k, q + k);
        for (int64_t g = k / self->group; g < (k + self->block) / self->group; g++) {
            int32_t sum = 0;
            for (int64_t i = 0; i < self->group; i++) sum += q[g * self->group + i];
            corrections[g * step] = zero * sum;
            scales[g * step] = scale;
        }
    }
}
