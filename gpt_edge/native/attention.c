/* CachedAttention and PlainAttention: causal attention of every head, with keys and values in place or of this call alone;
 * CachedAttention16 keeps them in float16.
 *
 * What GroupQueryAttention does for queries, keys and values side by side. Scores of a row are kept whole, so softmax
 * needs no rescaling, and everything is added in the order of positions, counted from the first: a row's result is the
 * same bits, whether it is read alone, in a chunk or in a batch.
 */
#include <math.h>
#include <string.h>

#include "ort.h"
#include "vector.h"

enum { QKV, PAST_KEY, PAST_VALUE, LAST, TOTAL, N_CACHED };
enum { PLAIN_LAST = 1, PLAIN_TOTAL, N_PLAIN };
enum { ROWS = 4, SPAN = 64, MAX_VECTORS = 8 }; /* rows of queries at once, of one task */

typedef struct {
    Kernel base;
    int64_t heads, window;
    float scale;
    int has_past, is_half; /* is_half: of the cache */
} Attention;

typedef struct {
    const Attention *self;
    const float *qkv;
    float *out;
    char *keys, *values;        /* [B, H, S, D], float32 or float16 */
    const int32_t *last;        /* a row's length after this call, minus one */
    int64_t batch, length, capacity, size, total;
    int failed;
} Call;

static OrtStatus *create(OrtApi api, const OrtInfo *info, void **out, int has_past, int is_half) {
    Attention *self = calloc(1, sizeof *self);
    if (!self) return fail(api, "Attention: out of memory");
    self->base.api = api;
    self->has_past = has_past;
    self->is_half = is_half;
    OrtStatus *status = ORT_INT(api)(info, "threads", &self->base.threads);
    if (!status) status = ORT_INT(api)(info, "heads", &self->heads);
    if (!status) status = ORT_INT(api)(info, "window", &self->window);
    if (!status) status = ORT_FLOAT(api)(info, "scale", &self->scale);
    if (status) free(self);
    *out = status ? NULL : self;
    return status;
}

static OrtStatus *create_cached(const OrtCustomOp *op, OrtApi api, const OrtInfo *info, void **out) {
    (void)op;
    return create(api, info, out, 1, 0);
}

static OrtStatus *create_half(const OrtCustomOp *op, OrtApi api, const OrtInfo *info, void **out) {
    (void)op;
    return create(api, info, out, 1, 1);
}

static OrtStatus *create_plain(const OrtCustomOp *op, OrtApi api, const OrtInfo *info, void **out) {
    (void)op;
    return create(api, info, out, 0, 0);
}

/* Tokens of a row before this call. Several rows of several tokens are read only where none has a past. */
static inline int64_t past_of(const Call *call, int64_t row) {
    return call->total == call->length ? 0 : call->last[row] + 1 - call->length;
}

/* The sums of sixteen vectors, in their order. */
static inline __m512 sum_each(const __m512 v[16]) {
    __m512 a[8], b[4];
    for (int i = 0; i < 8; i++)
        a[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        const __m512d c = _mm512_castps_pd(a[2 * i]), d = _mm512_castps_pd(a[2 * i + 1]);
        b[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)), _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
    }
    for (int i = 0; i < 2; i++)
        a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(a[0], a[1], 0x88), _mm512_shuffle_f32x4(a[0], a[1], 0xdd));
}

typedef struct {
    const float *queries;
    const char *keys, *values; /* of one head: rows of D numbers, every so many bytes */
    float *out;
    int64_t query_stride, key_stride, out_stride;
    int64_t position, window; /* of the first query */
    __mmask16 tail;           /* of the last vector of D */
    float scale;
} Head;

static inline __m512 load(const float *x, int i, int n, __mmask16 tail) {
    return i + 1 < n ? _mm512_loadu_ps(x + 16 * i) : _mm512_maskz_loadu_ps(tail, x + 16 * i);
}

/* The same of a key or value. */
static inline __m512 load_any(const char *x, int i, int n, __mmask16 tail, int is_half) {
    if (!is_half) return load((const float *)x, i, n, tail);
    const char *place = x + 32 * i;
    if (i + 1 < n) return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)place));
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(tail, place));
}

/* One query with the n_keys keys from j on, and what is left of sixteen with the last of them again. */
static inline __attribute__((always_inline)) __m512 dot16(const Head *head, const __m512 *q, int64_t j, int64_t n_keys,
                                                          const int n, const int is_half) {
    __m512 product[16];
    UNROLL
    for (int k = 0; k < 16; k++) {
        const char *key = head->keys + (j + (k < n_keys ? k : n_keys - 1)) * head->key_stride;
        product[k] = _mm512_mul_ps(q[0], load_any(key, 0, n, head->tail, is_half));
        UNROLL
        for (int i = 1; i < n; i++)
            product[k] = _mm512_fmadd_ps(q[i], load_any(key, i, n, head->tail, is_half), product[k]);
    }
    return sum_each(product);
}

/* `rows` queries, at most ROWS. scores: [ROWS, width], width a multiple of 16 that the last position fits into. */
static inline __attribute__((always_inline)) void attend(const Head *head, int rows, float *scores, int64_t width,
                                                         const int n, const int is_half) {
    const int64_t end = head->position + rows; /* past the last key of the last row */
    const int64_t first = head->window > 0 && head->position + 1 > head->window ? head->position + 1 - head->window : 0;
    const int64_t start = first / 16 * 16;
    const __m512 never = _mm512_set1_ps(-INFINITY);
    __m512 total[ROWS], largest[ROWS];
    for (int r = 0; r < rows; r++) {
        const int64_t own_end = head->position + r + 1;
        const int64_t own_first = head->window > 0 && own_end > head->window ? own_end - head->window : 0;
        __m512 q[MAX_VECTORS];
        UNROLL
        for (int i = 0; i < n; i++) q[i] = load(head->queries + r * head->query_stride, i, n, head->tail);
        largest[r] = never;
        for (int64_t j = start; j < end; j += 16) {
            const int64_t n_keys = end - j < 16 ? end - j : 16;
            const __m512 products = n_keys == 16 ? dot16(head, q, j, 16, n, is_half)
                                                : dot16(head, q, j, n_keys, n, is_half);
            __mmask16 seen = 0xffff;
            if (own_end - j < 16) seen &= (__mmask16)(own_end <= j ? 0 : (1u << (own_end - j)) - 1);
            if (own_first > j) seen &= (__mmask16)(own_first - j >= 16 ? 0 : ~((1u << (own_first - j)) - 1));
            const __m512 s = _mm512_mask_mul_ps(never, seen, products, _mm512_set1_ps(head->scale));
            _mm512_store_ps(scores + r * width + j, s);
            largest[r] = _mm512_max_ps(largest[r], s);
        }
        const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(largest[r]));
        total[r] = _mm512_setzero_ps();
        for (int64_t j = start; j < end; j += 16) {
            const __m512 e = exp16(_mm512_sub_ps(_mm512_load_ps(scores + r * width + j), top));
            const __m512 s = _mm512_maskz_mov_ps(
                _mm512_cmp_ps_mask(_mm512_load_ps(scores + r * width + j), never, _CMP_NEQ_UQ), e);
            _mm512_store_ps(scores + r * width + j, s);
            total[r] = _mm512_add_ps(total[r], s);
        }
    }
    __m512 sum[ROWS][MAX_VECTORS];
    UNROLL
    for (int r = 0; r < rows; r++)
        UNROLL
        for (int i = 0; i < n; i++) sum[r][i] = _mm512_setzero_ps();
    for (int64_t j = first; j < end; j++) {
        const char *value = head->values + j * head->key_stride;
        __m512 v[MAX_VECTORS];
        UNROLL
        for (int i = 0; i < n; i++) v[i] = load_any(value, i, n, head->tail, is_half);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const __m512 weight = _mm512_set1_ps(scores[r * width + j]);
            UNROLL
            for (int i = 0; i < n; i++) sum[r][i] = _mm512_fmadd_ps(weight, v[i], sum[r][i]);
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        const __m512 share = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(total[r]));
        UNROLL
        for (int i = 0; i < n; i++) {
            float *out = head->out + r * head->out_stride + 16 * i;
            _mm512_mask_storeu_ps(out, i + 1 < n ? 0xffff : head->tail, _mm512_mul_ps(sum[r][i], share));
        }
    }
}

/* Rows one at a time or four; sizes that the compiler knows, so that sums stay in registers. */
static int attend_rows(const Head *head, int is_four, float *scores, int64_t width, int n, int is_half) {
#define CASE(N, HALF)                                                  \
    if (n == N && is_half == HALF) {                                   \
        if (is_four) attend(head, ROWS, scores, width, N, HALF);       \
        else attend(head, 1, scores, width, N, HALF);                  \
        return 1;                                                      \
    }
    CASE(1, 0) CASE(2, 0) CASE(3, 0) CASE(4, 0) CASE(6, 0) CASE(8, 0)
    CASE(1, 1) CASE(2, 1) CASE(3, 1) CASE(4, 1) CASE(6, 1) CASE(8, 1)
#undef CASE
    return 0;
}

/* Queries of SPAN tokens of one head of one row, the index counting spans, then heads, then rows of the batch. */
static void attend_span(void *data, size_t index) {
    Call *call = data;
    const int64_t n_spans = (call->length + SPAN - 1) / SPAN, heads = call->self->heads, size = call->size;
    const int64_t span = (int64_t)index % n_spans, head = (int64_t)index / n_spans % heads;
    const int64_t row = (int64_t)index / n_spans / heads, past = past_of(call, row), width = heads * size;
    const int64_t t = span * SPAN, end = t + SPAN < call->length ? t + SPAN : call->length;
    const float *qkv = call->qkv + row * call->length * 3 * width + head * size;
    const int n = (int)((size + 15) / 16);
    const int64_t n_scores = (past + end + 15) / 16 * 16;
    float *scores = take_scratch((size_t)(ROWS * n_scores) * sizeof(float));
    if (!scores) {
        call->failed = 1;
        return;
    }
    Head h = {.query_stride = 3 * width, .out_stride = width, .window = call->self->window,
              .tail = (__mmask16)(size % 16 ? (1u << size % 16) - 1 : 0xffff), .scale = call->self->scale};
    if (call->self->has_past) {
        h.key_stride = size * (call->self->is_half ? 2 : 4);
        h.keys = call->keys + (row * heads + head) * call->capacity * h.key_stride;
        h.values = call->values + (row * heads + head) * call->capacity * h.key_stride;
    } else {
        h.keys = (const char *)(qkv + width), h.values = (const char *)(qkv + 2 * width), h.key_stride = 12 * width;
    }
    for (int64_t at = t; at < end; at += end - at < ROWS ? 1 : ROWS) {
        h.queries = qkv + at * 3 * width;
        h.out = call->out + (row * call->length + at) * width + head * size;
        h.position = past + at;
        if (!attend_rows(&h, end - at >= ROWS, scores, n_scores, n, call->self->is_half)) call->failed = 1;
    }
    give_scratch(scores);
}

/* n floats to a cache; what float16 cannot hold becomes its largest number. */
static inline void keep(const float *x, char *place, int64_t n, int is_half) {
    if (!is_half) {
        memcpy(place, x, (size_t)n * sizeof(float));
        return;
    }
    const __m512 most = _mm512_set1_ps(65504.0f), least = _mm512_set1_ps(-65504.0f);
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 mask = n - i < 16 ? (__mmask16)((1u << (n - i)) - 1) : 0xffff;
        __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
        v = _mm512_max_ps(least, _mm512_min_ps(most, v)); /* in this order NaN stays */
        _mm256_mask_storeu_epi16(place + 2 * i, mask, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
}

/* The new keys and values of one head of one row, to their places. */
static void append(const Call *call, int64_t row, int64_t head) {
    const int64_t width = call->self->heads * call->size, past = past_of(call, row), size = call->size;
    const int is_half = call->self->is_half;
    const int64_t stride = size * (is_half ? 2 : 4);
    const int64_t place = ((row * call->self->heads + head) * call->capacity + past) * stride;
    const float *qkv = call->qkv + row * call->length * 3 * width + head * size;
    for (int64_t t = 0; t < call->length; t++) {
        keep(qkv + t * 3 * width + width, call->keys + place + t * stride, size, is_half);
        keep(qkv + t * 3 * width + 2 * width, call->values + place + t * stride, size, is_half);
    }
}

static void append_head(void *data, size_t index) {
    const Call *call = data;
    append(call, (int64_t)index / call->self->heads, (int64_t)index % call->self->heads);
}

static void append_and_attend(void *data, size_t index) {
    append_head(data, index);
    attend_span(data, index);
}

/* Past and present are the same memory where the caller bound them so; where not, the past is copied. */
static OrtStatus *present(OrtContext *context, Call *call, size_t input, size_t output, char **memory) {
    OrtApi api = call->self->base.api;
    Tensor past;
    TRY(read_input(api, context, input, &past));
    const int is_cache = past.rank == 4 && past.dims[0] == call->batch && past.dims[1] == call->self->heads;
    if (!is_cache || past.dims[3] != call->size) return fail(api, "CachedAttention: past must be [B, H, S, D]");
    call->capacity = past.dims[2];
    TRY(make_output(api, context, output, past.dims, 4, (void **)memory));
    if (*memory != past.data) {
        const size_t n = (size_t)(past.dims[0] * past.dims[1] * past.dims[2] * past.dims[3]);
        memcpy(*memory, past.data, n * (call->self->is_half ? 2 : 4));
    }
    return NULL;
}

static OrtStatus *compute(void *kernel, OrtContext *context) {
    const Attention *self = kernel;
    OrtApi api = self->base.api;
    Tensor qkv, last, total;
    TRY(read_input(api, context, QKV, &qkv));
    TRY(read_input(api, context, self->has_past ? LAST : PLAIN_LAST, &last));
    TRY(read_input(api, context, self->has_past ? TOTAL : PLAIN_TOTAL, &total));
    if (qkv.rank != 3 || qkv.dims[2] % (3 * self->heads) || last.dims[0] != qkv.dims[0])
        return fail(api, "Attention: qkv must be [B, T, 3 H D], with one length for each row");
    Call call = {.self = self, .qkv = qkv.data, .last = last.data, .total = *(const int32_t *)total.data,
                 .batch = qkv.dims[0], .length = qkv.dims[1], .size = qkv.dims[2] / 3 / self->heads};
    const int64_t dims[] = {call.batch, call.length, self->heads * call.size};
    TRY(make_output(api, context, 0, dims, 3, (void **)&call.out));
    const size_t n_heads = (size_t)(call.batch * self->heads);
    const size_t n_spans = (size_t)((call.length + SPAN - 1) / SPAN);
    if (!self->has_past) {
        TRY(in_parallel(&self->base, context, attend_span, n_heads * n_spans, &call));
    } else {
        TRY(present(context, &call, PAST_KEY, 1, &call.keys));
        TRY(present(context, &call, PAST_VALUE, 2, &call.values));
        for (int64_t row = 0; row < call.batch; row++)
            if (past_of(&call, row) < 0 || past_of(&call, row) + call.length > call.capacity)
                return fail(api, "CachedAttention: the tokens do not fit into the cache");
        if (n_spans == 1) {
            TRY(in_parallel(&self->base, context, append_and_attend, n_heads, &call));
        } else {
            TRY(in_parallel(&self->base, context, append_head, n_heads, &call));
            TRY(in_parallel(&self->base, context, attend_span, n_heads * n_spans, &call));
        }
    }
    return call.failed ? fail(api, "Attention: out of memory, or a head of an unknown width") : NULL;
}

static const char *cached_name(const OrtCustomOp *op) { return (void)op, "CachedAttention"; }
static const char *half_name(const OrtCustomOp *op) { return (void)op, "CachedAttention16"; }
static const char *plain_name(const OrtCustomOp *op) { return (void)op, "PlainAttention"; }
static size_t n_cached(const OrtCustomOp *op) { return (void)op, N_CACHED; }
static size_t n_plain(const OrtCustomOp *op) { return (void)op, N_PLAIN; }
static size_t three(const OrtCustomOp *op) { return (void)op, 3; }
static int cached_takes(const OrtCustomOp *op, size_t i) { return (void)op, i >= LAST ? ORT_INT32 : ORT_FLOAT32; }
static int half_takes(const OrtCustomOp *op, size_t i) {
    return (void)op, i >= LAST ? ORT_INT32 : i == QKV ? ORT_FLOAT32 : ORT_FLOAT16;
}
static int half_makes(const OrtCustomOp *op, size_t i) { return (void)op, i == 0 ? ORT_FLOAT32 : ORT_FLOAT16; }
static int plain_takes(const OrtCustomOp *op, size_t i) { return (void)op, i >= PLAIN_LAST ? ORT_INT32 : ORT_FLOAT32; }

const OrtCustomOp cached_attention = {
    OPERATOR, .get_output_type = all_float, .get_name = cached_name, .get_input_type = cached_takes, .get_input_count = n_cached,
    .get_output_count = three, .get_input_need = all_needed, .create_kernel_or_fail = create_cached, .compute_or_fail = compute, .destroy = free,
};

const OrtCustomOp half_cached_attention = {
    OPERATOR, .get_output_type = half_makes, .get_name = half_name, .get_input_type = half_takes,
    .get_input_count = n_cached, .get_output_count = three, .get_input_need = all_needed,
    .create_kernel_or_fail = create_half, .compute_or_fail = compute, .destroy = free,
};

const OrtCustomOp plain_attention = {
    OPERATOR, .get_output_type = all_float, .get_name = plain_name, .get_input_type = plain_takes, .get_input_count = n_plain,
    .get_output_count = one, .get_input_need = all_needed, .create_kernel_or_fail = create_plain, .compute_or_fail = compute, .destroy = free,
};
