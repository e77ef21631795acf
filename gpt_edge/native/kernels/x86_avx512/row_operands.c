/* Activations of RowProduct: a row quantized to 8 bits. */
#include "row_operands.h"

#include <math.h>
#include <string.h>

float quantize_row(const RowProduct *self, const float *x, uint8_t *q, int64_t stride) {
    __m512 high = _mm512_setzero_ps(), low = _mm512_setzero_ps();
    __mmask16 is_nan = 0;
    for (int64_t k = 0; k < self->depth; k += 16) {
        __m512 v = _mm512_loadu_ps(x + k);
        is_nan |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
        high = _mm512_max_ps(high, self->is_symmetric ? _mm512_abs_ps(v) : v);
        low = _mm512_min_ps(low, v);
    }
    float scale = self->high * _mm512_reduce_max_ps(high);
    if (!self->is_symmetric) scale = fmaxf(scale, self->low * _mm512_reduce_min_ps(low));
    if (is_nan) scale = NAN;
    if (!(scale > 0)) {
        for (int64_t k = 0; k < self->depth; k += DEPTH)
            memset(q + k / DEPTH * stride, self->zero_point, DEPTH);
        return scale;
    }
    const __m512 by = _mm512_set1_ps(scale);
    const __m512i zero = _mm512_set1_epi32(self->zero_point);
    for (int64_t k = 0; k < self->depth; k += 16) {
        __m512i v = _mm512_cvtps_epi32(_mm512_div_ps(_mm512_loadu_ps(x + k), by));
        v = _mm512_max_epi32(_mm512_add_epi32(v, zero), _mm512_setzero_si512());
        _mm_store_si128((__m128i *)(q + k / DEPTH * stride + k % DEPTH), _mm512_cvtusepi32_epi8(v));
    }
    return scale;
}
