/* Sixteen outputs of one row of BlockProduct, on weights in the layout of the file. */
#include "block_dot.h"

#include <math.h>

void gather_scales(const BlockProduct *self, int64_t n, float *out) {
    const __m512i outputs = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i offsets = _mm512_mullo_epi32(outputs, _mm512_set1_epi32((int)self->n_blocks));
    for (int64_t b = 0; b < self->n_blocks; b++)
        _mm512_store_ps(out + b * TILE,
                        _mm512_i32gather_ps(offsets, self->scales + n * self->n_blocks + b, 4));
}

/* For each of sixteen vectors v0..v15, the sums of its n_parts parts: all lanes (1), halves (2) or
 * quarters (4). out[p] = [part p of v0, .., part p of v15].
 *
 * a and b add within each quarter, as in attend.c's sum_each: quarter q of b[i] is [v4i, ..,
 * v4i+3], the sums of these vectors' lanes in quarter q. Written vq for four vectors, w0..w3 for
 * the next four:
 *
 *   b:              v0 v1 v2 v3
 *   c[0], c[1]:     v0 v2 w0 w2      for vectors 0..7 and 8..15
 *   c[2], c[3]:     v1 v3 w1 w3
 *   n_parts 4:      out[0] = v0 w0 x0 y0, out[1] = v1 w1 x1 y1, out[2] = v2 .., out[3] = v3 ..
 *   n_parts 2:      c[0] + c[2] = v0+v1 v2+v3 w0+w1 w2+w3; out[0] first halves, out[1] second
 *   n_parts 1:      out[0] + out[1]
 */
static inline void sum_parts(const __m512i v[TILE], int n_parts, __m512i out[4]) {
    __m512i a[8], b[4], c[4];
    UNROLL
    for (int i = 0; i < 8; i++)
        a[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                                _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    UNROLL
    for (int i = 0; i < 4; i++)
        b[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(a[2 * i], a[2 * i + 1]),
                                _mm512_unpackhi_epi64(a[2 * i], a[2 * i + 1]));
    UNROLL
    for (int i = 0; i < 2; i++) {
        c[i] = _mm512_shuffle_i32x4(b[2 * i], b[2 * i + 1], 0x88);
        c[2 + i] = _mm512_shuffle_i32x4(b[2 * i], b[2 * i + 1], 0xdd);
    }
    if (n_parts == 4) {
        out[0] = _mm512_shuffle_i32x4(c[0], c[1], 0x88);
        out[1] = _mm512_shuffle_i32x4(c[2], c[3], 0x88);
        out[2] = _mm512_shuffle_i32x4(c[0], c[1], 0xdd);
        out[3] = _mm512_shuffle_i32x4(c[2], c[3], 0xdd);
        return;
    }
    c[0] = _mm512_add_epi32(c[0], c[2]);
    c[1] = _mm512_add_epi32(c[1], c[3]);
    out[0] = _mm512_shuffle_i32x4(c[0], c[1], 0x88);
    out[1] = _mm512_shuffle_i32x4(c[0], c[1], 0xdd);
    if (n_parts == 1) out[0] = _mm512_add_epi32(out[0], out[1]);
}

/* `dot_sixteen` for constant bits and n_parts. */
static inline __attribute__((always_inline)) __m512 dot(const BlockProduct *self, const uint8_t *w,
                                                        int64_t stride, int bits, const Row *row,
                                                        const float *scales, int is_far,
                                                        int n_parts) {
    __m512 total = _mm512_setzero_ps();
    const int64_t per_block = self->block / self->group;
    for (int64_t unit = 0; unit < self->depth / UNIT; unit++) {
        const __m512i x = _mm512_loadu_si512(row->q + unit * UNIT);
        const uint8_t *w_unit = w + unit * UNIT * bits / 8;
        __m512i products[TILE], sums[4];
        UNROLL
        for (int i = 0; i < TILE; i++) {
            if (is_far) _mm_prefetch((const char *)(w_unit + (TILE + i) * stride), _MM_HINT_T0);
            const __m512i v = bits == 4 ? expand(self, w_unit + i * stride)
                                        : _mm512_loadu_si512(w_unit + i * stride);
            products[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), v, x);
        }
        sum_parts(products, n_parts, sums);
        UNROLL
        for (int i = 0; i < n_parts; i++) {
            const int64_t g = unit * n_parts + i;
            const __m512i correction = _mm512_set1_epi32(row->corrections[g * row->step]);
            total = accumulate(sums[i], correction, _mm512_set1_ps(row->scales[g * row->step]),
                               _mm512_load_ps(scales + g / per_block * TILE), total);
        }
    }
    return total;
}

__m512 dot_sixteen(const BlockProduct *self, const uint8_t *w, int64_t stride, int bits,
                   const Row *row, const float *scales, int is_far) {
    /* Groups of 64, 32 and 16 weights. 48 is skipped: MatMulNBits has powers of two only. */
#define CASE(BITS, PARTS)                            \
    if (bits == BITS && self->group == UNIT / PARTS) \
        return dot(self, w, stride, BITS, row, scales, is_far, PARTS);
    CASE(8, 1);
    CASE(8, 2);
    CASE(8, 4);
    CASE(4, 1);
    CASE(4, 2);
    CASE(4, 4);
#undef CASE
    return _mm512_set1_ps(NAN); /* no graph has another size */
}
