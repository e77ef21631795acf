/* Causal attention of every head. CachedAttention appends keys and values to a cache in place,
 * CachedAttention16 to a cache of float16; PlainAttention has those of this call alone.
 *
 * The same function as GroupQueryAttention on packed queries, keys and values; attend.h computes
 * it. A row's result is bit-identical whether it is computed alone, in a chunk or in a batch.
 */
#pragma once

#include "attend.h"

enum { QKV, PAST_KEY, PAST_VALUE, LAST, TOTAL, N_CACHED };
enum { PLAIN_LAST = 1, PLAIN_TOTAL, N_PLAIN };
enum { SPAN = 64 }; /* tokens of one task */

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
    char *keys, *values; /* [B, H, S, D], float32 or float16 */
    const int32_t *last; /* a row's length after this call, minus one */
    int64_t batch, length, capacity, size, total;
    int failed;
} AttentionCall;

static OrtStatus *attention_create(OrtApi api, const OrtInfo *info, void **out, int has_past, int is_half) {
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

static OrtStatus *create_cached(const OrtCustomOp *op, OrtApi api, const OrtInfo *info,
                                void **out) {
    (void)op;
    return attention_create(api, info, out, 1, 0);
}

static OrtStatus *create_half(const OrtCustomOp *op, OrtApi api, const OrtInfo *info, void **out) {
    (void)op;
    return attention_create(api, info, out, 1, 1);
}

static OrtStatus *create_plain(const OrtCustomOp *op, OrtApi api, const OrtInfo *info, void **out) {
    (void)op;
    return attention_create(api, info, out, 0, 0);
}

/* Tokens of a row before this call. Several rows of several tokens occur only without a past. */
static inline int64_t past_of(const AttentionCall *call, int64_t row) {
    return call->total == call->length ? 0 : call->last[row] + 1 - call->length;
}

/* Queries of SPAN tokens of one head of one row, the index counting spans, then heads, then rows of
 * the batch.
 */
static void attend_span(void *data, size_t index) {
    AttentionCall *call = data;
    const int64_t n_spans = (call->length + SPAN - 1) / SPAN;
    const int64_t heads = call->self->heads;
    const int64_t size = call->size;
    const int64_t span = (int64_t)index % n_spans, head = (int64_t)index / n_spans % heads;
    const int64_t row = (int64_t)index / n_spans / heads;
    const int64_t past = past_of(call, row);
    const int64_t width = heads * size;
    const int64_t t = span * SPAN, end = t + SPAN < call->length ? t + SPAN : call->length;
    const float *qkv = call->qkv + row * call->length * 3 * width + head * size;
    const int64_t n_scores = (past + end + 15) / 16 * 16;
    float *scores = take_scratch((size_t)(ROWS * n_scores) * sizeof(float));
    if (!scores) {
        call->failed = 1;
        return;
    }
    Head h = {.query_stride = 3 * width,
              .out_stride = width,
              .size = size,
              .window = call->self->window,
              .scale = call->self->scale,
              .is_half = call->self->is_half};
    if (call->self->has_past) {
        h.key_stride = size * (call->self->is_half ? 2 : 4);
        h.keys = call->keys + (row * heads + head) * call->capacity * h.key_stride;
        h.values = call->values + (row * heads + head) * call->capacity * h.key_stride;
    } else {
        h.keys = (const char *)(qkv + width);
        h.values = (const char *)(qkv + 2 * width);
        h.key_stride = 12 * width;
    }
    for (int64_t i = t; i < end; i += end - i < ROWS ? 1 : ROWS) {
        h.queries = qkv + i * 3 * width;
        h.out = call->out + (row * call->length + i) * width + head * size;
        h.position = past + i;
        if (!attend(&h, end - i >= ROWS, scores, n_scores)) call->failed = 1;
    }
    give_scratch(scores);
}

/* Store n floats in a cache; float16 saturates at its largest finite number. */
static void store_keys(const float *x, char *cache, int64_t n, int is_half) {
    if (!is_half) {
        memcpy(cache, x, (size_t)n * sizeof(float));
        return;
    }
    const Floats max = f_all(65504.0f), min = f_all(-65504.0f);
    for (int64_t i = 0; i < n; i += LANES) {
        Floats v = load_some(x + i, n - i);
        v = f_max(min, f_min(max, v)); /* in this order NaN is kept */
        if (n - i >= LANES) {
            f_store_half(cache + 2 * i, v);
        } else {
            uint16_t some[LANES];
            f_store_half(some, v);
            memcpy(cache + 2 * i, some, (size_t)(n - i) * sizeof *some);
        }
    }
}

/* Append the new keys and values of one head of one row to the cache. */
static void append(const AttentionCall *call, int64_t row, int64_t head) {
    const int64_t width = call->self->heads * call->size;
    const int64_t past = past_of(call, row);
    const int64_t size = call->size;
    const int is_half = call->self->is_half;
    const int64_t stride = size * (is_half ? 2 : 4);
    const int64_t offset = ((row * call->self->heads + head) * call->capacity + past) * stride;
    const float *qkv = call->qkv + row * call->length * 3 * width + head * size;
    for (int64_t t = 0; t < call->length; t++) {
        store_keys(qkv + t * 3 * width + width, call->keys + offset + t * stride, size, is_half);
        store_keys(qkv + t * 3 * width + 2 * width, call->values + offset + t * stride, size, is_half);
    }
}

static void append_head(void *data, size_t index) {
    const AttentionCall *call = data;
    append(call, (int64_t)index / call->self->heads, (int64_t)index % call->self->heads);
}

static void append_and_attend(void *data, size_t index) {
    append_head(data, index);
    attend_span(data, index);
}

/* Past and present are the same memory if the caller bound them so; else the past is copied. */
static OrtStatus *present(OrtContext *context, AttentionCall *call, size_t input, size_t output,
                          char **memory) {
    OrtApi api = call->self->base.api;
    Tensor past;
    TRY(read_input(api, context, input, &past));
    const int is_cache =
        past.rank == 4 && past.dims[0] == call->batch && past.dims[1] == call->self->heads;
    if (!is_cache || past.dims[3] != call->size)
        return fail(api, "CachedAttention: past must be [B, H, S, D]");
    call->capacity = past.dims[2];
    TRY(make_output(api, context, output, past.dims, 4, (void **)memory));
    if (*memory != past.data) {
        const size_t n = (size_t)(past.dims[0] * past.dims[1] * past.dims[2] * past.dims[3]);
        memcpy(*memory, past.data, n * (call->self->is_half ? 2 : 4));
    }
    return NULL;
}

static OrtStatus *attention_compute(void *kernel, OrtContext *context) {
    const Attention *self = kernel;
    OrtApi api = self->base.api;
    Tensor qkv, last, total;
    TRY(read_input(api, context, QKV, &qkv));
    TRY(read_input(api, context, self->has_past ? LAST : PLAIN_LAST, &last));
    TRY(read_input(api, context, self->has_past ? TOTAL : PLAIN_TOTAL, &total));
    if (qkv.rank != 3 || qkv.dims[2] % (3 * self->heads) || last.dims[0] != qkv.dims[0])
        return fail(api, "Attention: qkv must be [B, T, 3 H D], with one length for each row");
    AttentionCall call = {.self = self,
                 .qkv = qkv.data,
                 .last = last.data,
                 .total = *(const int32_t *)total.data,
                 .batch = qkv.dims[0],
                 .length = qkv.dims[1],
                 .size = qkv.dims[2] / 3 / self->heads};
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
    return call.failed ? fail(api, "Attention: out of memory, or a head of an unknown width")
                       : NULL;
}

static const char *cached_name(const OrtCustomOp *op) { return (void)op, "CachedAttention"; }
static const char *half_name(const OrtCustomOp *op) { return (void)op, "CachedAttention16"; }
static const char *plain_name(const OrtCustomOp *op) { return (void)op, "PlainAttention"; }
static size_t n_cached(const OrtCustomOp *op) { return (void)op, N_CACHED; }
static size_t n_plain(const OrtCustomOp *op) { return (void)op, N_PLAIN; }
static size_t three(const OrtCustomOp *op) { return (void)op, 3; }
static int cached_takes(const OrtCustomOp *op, size_t i) {
    return (void)op, i >= LAST ? ORT_INT32 : ORT_FLOAT32;
}
static int half_takes(const OrtCustomOp *op, size_t i) {
    return (void)op, i >= LAST ? ORT_INT32 : i == QKV ? ORT_FLOAT32 : ORT_FLOAT16;
}
static int half_makes(const OrtCustomOp *op, size_t i) {
    return (void)op, i == 0 ? ORT_FLOAT32 : ORT_FLOAT16;
}
static int plain_takes(const OrtCustomOp *op, size_t i) {
    return (void)op, i >= PLAIN_LAST ? ORT_INT32 : ORT_FLOAT32;
}

static const OrtCustomOp cached_attention = {
    OPERATOR,
    .get_name = cached_name,
    .get_input_count = n_cached,
    .get_input_type = cached_takes,
    .get_input_need = all_needed,
    .get_output_count = three,
    .get_output_type = all_float,
    .create_kernel_or_fail = create_cached,
    .compute_or_fail = attention_compute,
    .destroy = free,
};

static const OrtCustomOp half_cached_attention = {
    OPERATOR,
    .get_name = half_name,
    .get_input_count = n_cached,
    .get_input_type = half_takes,
    .get_input_need = all_needed,
    .get_output_count = three,
    .get_output_type = half_makes,
    .create_kernel_or_fail = create_half,
    .compute_or_fail = attention_compute,
    .destroy = free,
};

static const OrtCustomOp plain_attention = {
    OPERATOR,
    .get_name = plain_name,
    .get_input_count = n_plain,
    .get_input_type = plain_takes,
    .get_input_need = all_needed,
    .get_output_count = one,
    .get_output_type = all_float,
    .create_kernel_or_fail = create_plain,
    .compute_or_fail = attention_compute,
    .destroy = free,
};
