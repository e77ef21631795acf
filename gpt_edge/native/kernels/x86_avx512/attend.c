/* Causal attention of one head, one query or four at a time. All scores of a row are kept, so
 * softmax needs no rescaling, and sums are accumulated in the order of positions, counted from the
 * first.
 */
#include <math.h>

#include "attend.h"

/* sums stay in registers where sizes are constants */
#define INLINE static inline __attribute__((always_inline))

enum { MAX_VECTORS = 8 }; /* of a head */

/* The sums of sixteen vectors v0..v15 as one vector [sum v0, .., sum v15].
 *
 * Each step adds halves, and puts sums of different vectors side by side. For four vectors x, y, z,
 * w (v0..v3, v4..v7, ..), within each quarter of four lanes 0 1 2 3:
 *
 *   x:         x0     x1     x2     x3
 *   a (x, y):  x0+x2  y0+y2  x1+x3  y1+y3
 *   b (a, a):  x      y      z      w          sums of this quarter's lanes
 *
 * Then across quarters, with xq the sums [x, y, z, w] of quarter q, and y the next four vectors:
 *
 *   b:         x0     x1     x2     x3
 *   a (b, b):  x0+x1  x2+x3  y0+y1  y2+y3
 *   result:    x      y      z      w          four vectors in each quarter, in order
 */
static inline __m512 sum_each(const __m512 v[16]) {
    __m512 a[8], b[4];
    for (int i = 0; i < 8; i++)
        a[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]),
                             _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        const __m512d c = _mm512_castps_pd(a[2 * i]), d = _mm512_castps_pd(a[2 * i + 1]);
        b[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
    }
    for (int i = 0; i < 2; i++)
        a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(a[0], a[1], 0x88),
                         _mm512_shuffle_f32x4(a[0], a[1], 0xdd));
}

/* The i-th of n vectors of a query, key or value; `tail` masks the last. */
static inline __m512 load(const float *x, int i, int n, __mmask16 tail) {
    return i + 1 < n ? _mm512_loadu_ps(x + 16 * i) : _mm512_maskz_loadu_ps(tail, x + 16 * i);
}

static inline __m512 load_any(const char *x, int i, int n, __mmask16 tail, int is_half) {
    if (!is_half) return load((const float *)x, i, n, tail);
    const char *half = x + 32 * i;
    if (i + 1 < n) return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)half));
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(tail, half));
}

/* Products of one query with the n_keys keys from j on; lanes past n_keys repeat the last key. */
INLINE __m512 dot16(const Head *head, const __m512 *q, int64_t j, int64_t n_keys, __mmask16 tail,
                    int n, int is_half) {
    __m512 product[16];
    UNROLL
    for (int k = 0; k < 16; k++) {
        const char *key = head->keys + (j + (k < n_keys ? k : n_keys - 1)) * head->key_stride;
        product[k] = _mm512_mul_ps(q[0], load_any(key, 0, n, tail, is_half));
        UNROLL
        for (int i = 1; i < n; i++)
            product[k] = _mm512_fmadd_ps(q[i], load_any(key, i, n, tail, is_half), product[k]);
    }
    return sum_each(product);
}

/* Write the weights e^(score - largest) of the keys from start to end for the r-th query to scores;
 * return their sum, one partial sum in each lane.
 */
INLINE __m512 weigh(const Head *head, int r, int64_t start, int64_t end, float *scores,
                    __mmask16 tail, int n, int is_half) {
    const int64_t own_end = head->position + r + 1;
    const int64_t own_first =
        head->window > 0 && own_end > head->window ? own_end - head->window : 0;
    const __m512 never = _mm512_set1_ps(-INFINITY);
    __m512 largest = never, total = _mm512_setzero_ps(), q[MAX_VECTORS];
    UNROLL
    for (int i = 0; i < n; i++) q[i] = load(head->queries + r * head->query_stride, i, n, tail);
    for (int64_t j = start; j < end; j += 16) {
        const int64_t n_keys = end - j < 16 ? end - j : 16;
        const __m512 products = n_keys == 16 ? dot16(head, q, j, 16, tail, n, is_half)
                                             : dot16(head, q, j, n_keys, tail, n, is_half);
        __mmask16 seen = 0xffff;
        if (own_end - j < 16) seen &= (__mmask16)(own_end <= j ? 0 : (1u << (own_end - j)) - 1);
        if (own_first > j)
            seen &= (__mmask16)(own_first - j >= 16 ? 0 : ~((1u << (own_first - j)) - 1));
        const __m512 s = _mm512_mask_mul_ps(never, seen, products, _mm512_set1_ps(head->scale));
        _mm512_store_ps(scores + j, s);
        largest = _mm512_max_ps(largest, s);
    }
    const __m512 row_max = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
    for (int64_t j = start; j < end; j += 16) {
        const __m512 s = _mm512_load_ps(scores + j), e = exp16(_mm512_sub_ps(s, row_max));
        const __m512 weight = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(s, never, _CMP_NEQ_UQ), e);
        _mm512_store_ps(scores + j, weight);
        total = _mm512_add_ps(total, weight);
    }
    return total;
}

/* Compute `rows` queries. scores: [rows, width]. */
INLINE void attend_rows(const Head *head, int rows, float *scores, int64_t width, __mmask16 tail,
                        int n, int is_half) {
    const int64_t end = head->position + rows; /* past the last key of the last row */
    const int64_t first = head->window > 0 && head->position + 1 > head->window
                              ? head->position + 1 - head->window
                              : 0;
    __m512 total[ROWS], sum[ROWS][MAX_VECTORS];
    for (int r = 0; r < rows; r++)
        total[r] = weigh(head, r, first / 16 * 16, end, scores + r * width, tail, n, is_half);
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int i = 0; i < n; i++) sum[r][i] = _mm512_setzero_ps();
    }
    for (int64_t j = first; j < end; j++) {
        __m512 v[MAX_VECTORS];
        UNROLL
        for (int i = 0; i < n; i++)
            v[i] = load_any(head->values + j * head->key_stride, i, n, tail, is_half);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const __m512 weight = _mm512_set1_ps(scores[r * width + j]);
            UNROLL
            for (int i = 0; i < n; i++) sum[r][i] = _mm512_fmadd_ps(weight, v[i], sum[r][i]);
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        const __m512 inverse = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(total[r]));
        UNROLL
        for (int i = 0; i < n; i++) {
            float *out = head->out + r * head->out_stride + 16 * i;
            _mm512_mask_storeu_ps(out, i + 1 < n ? 0xffff : tail,
                                  _mm512_mul_ps(sum[r][i], inverse));
        }
    }
}

int attend(const Head *head, int is_four, float *scores, int64_t width) {
    const int n_vectors = (int)((head->size + 15) / 16);
    const __mmask16 tail = (__mmask16)(head->size % 16 ? (1u << head->size % 16) - 1 : 0xffff);
    /* Heads of up to 128 floats, as GPT models have them. Sizes of 5 and 7 vectors are skipped:
     * native/rewrite.py (HEAD_VECTORS) leaves such heads to onnxruntime. */
#define CASE(N, HALF)                                                       \
    if (n_vectors == N && head->is_half == HALF) {                          \
        if (is_four) attend_rows(head, ROWS, scores, width, tail, N, HALF); \
        else attend_rows(head, 1, scores, width, tail, N, HALF);            \
        return 1;                                                           \
    }
    CASE(1, 0);
    CASE(2, 0);
    CASE(3, 0);
    CASE(4, 0);
    CASE(6, 0);
    CASE(8, 0);
    CASE(1, 1);
    CASE(2, 1);
    CASE(3, 1);
    CASE(4, 1);
    CASE(6, 1);
    CASE(8, 1);
#undef CASE
    return 0;
}
