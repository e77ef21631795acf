/* BlockProduct: y = bias + sum over blocks of scale * (q(x) (W - zero)), both sides with a scale for each block of rows.
 *
 * What MatMulNBits does for 8 and 4 bits at accuracy level 4, on weights as they lie in the file, sixteen outputs at once;
 * many rows by the CPU's tiles, where it has them. A block's sum is an integer, and blocks are added in their order, so a
 * row's result is the same bits alone and among others.
 */
#include <math.h>
#include <string.h>

#include "ort.h"
#include "vector.h"

enum { X, W, W_SCALE, BIAS, N_INPUTS };
enum { TILE = 16, UNIT = 64 }; /* rows of a tile; its bytes in a row */

typedef struct {
    Kernel base;
    const uint8_t *weights;
    const float *scales, *bias;
    int64_t depth, width, block, bits;
    int64_t group;   /* weights that are summed as integers: a block, or 64 of it */
    int64_t n_blocks, n_groups;
    int64_t row_size; /* bytes of W's row */
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
} Call;

static OrtStatus *create(const OrtCustomOp *op, OrtApi api, const OrtInfo *info, void **out) {
    (void)op;
    Tensor w, scale, bias = {0};
    int64_t threads, depth, width, block, bits, has_bias;
    TRY(ORT_INT(api)(info, "threads", &threads));
    TRY(ORT_INT(api)(info, "depth", &depth));
    TRY(ORT_INT(api)(info, "width", &width));
    TRY(ORT_INT(api)(info, "block", &block));
    TRY(ORT_INT(api)(info, "bits", &bits));
    TRY(ORT_INT(api)(info, "has_bias", &has_bias));
    TRY(read_constant(api, info, W, &w));
    TRY(read_constant(api, info, W_SCALE, &scale));
    if (has_bias) TRY(read_constant(api, info, BIAS, &bias));
    if (depth % UNIT || depth % block || width < TILE || block % TILE)
        return fail(api, "BlockProduct: W must be [16 or more, 64 k], in blocks of 16 k that divide it");
    if (count(&w) != depth * width * bits / 8 || count(&scale) != width * (depth / block) ||
        (has_bias && count(&bias) != width))
        return fail(api, "BlockProduct: W, its scales and the bias must fit N, K and the blocks");
    BlockProduct *self = aligned_alloc(64, (sizeof *self + 63) / 64 * 64);
    if (!self) return fail(api, "BlockProduct: out of memory");
    const int64_t group = block < UNIT ? block : UNIT;
    *self = (BlockProduct){
        .base = {api, threads}, .weights = w.data, .scales = scale.data, .bias = bias.data, .depth = depth,
        .width = width, .block = block, .bits = bits, .group = group, .n_blocks = depth / block,
        .n_groups = depth / group, .row_size = depth * bits / 8,
    };
    int64_t places[8], shifts[8]; /* of a group's bytes, their low halves first and then their high ones */
    for (int i = 0; i < 8; i++) {
        const int words = (int)group / 8, at = i % words;
        places[i] = i / words * (words / 2) + at % (words / 2);
        shifts[i] = at < words / 2 ? 0 : 4;
    }
    self->places = _mm512_loadu_si512(places);
    self->shifts = _mm512_loadu_si512(shifts);
    *out = self;
    return NULL;
}

/* Round x [K] block by block, as MatMulNBits does: q in K's order, or with a group's even places first for 4 bits. */
static void quantize(const BlockProduct *self, const float *x, int8_t *q, float *block_scales) {
    for (int64_t b = 0; b < self->n_blocks; b++) {
        const float *from = x + b * self->block;
        __m512 top = _mm512_setzero_ps();
        __mmask16 is_nan = 0;
        for (int64_t k = 0; k < self->block; k += 16) {
            const __m512 v = _mm512_loadu_ps(from + k);
            is_nan |= _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
            top = _mm512_max_ps(top, _mm512_abs_ps(v));
        }
        const float largest = is_nan ? NAN : _mm512_reduce_max_ps(top);
        block_scales[b] = largest / 127.0f;
        const __m512 by = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
        for (int64_t k = 0; k < self->block; k += 16) {
            const __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from + k), by));
            __m128i bytes = _mm512_cvtsepi32_epi8(v);
            if (self->bits == 8) {
                _mm_storeu_si128((__m128i *)(q + b * self->block + k), bytes);
                continue;
            }
            bytes = _mm_shuffle_epi8(bytes, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
            int8_t *group = q + (b * self->block + k) / self->group * self->group;
            const int64_t place = k % self->group / 2;
            _mm_storel_epi64((__m128i *)(group + place), bytes);
            _mm_storel_epi64((__m128i *)(group + self->group / 2 + place), _mm_srli_si128(bytes, 8));
        }
    }
}

static void correct(const BlockProduct *self, const int8_t *q, const float *block_scales, float *scales,
                    int32_t *corrections, int64_t stride) {
    const int32_t zero = self->bits == 8 ? 128 : 8;
    for (int64_t g = 0; g < self->n_groups; g++) {
        int32_t sum = 0;
        for (int64_t k = 0; k < self->group; k++) sum += q[g * self->group + k];
        corrections[g * stride] = zero * sum;
        scales[g * stride] = block_scales[g * self->group / self->block];
    }
}

/* 32 bytes to 64 weights. */
static inline __m512i expand(const BlockProduct *self, const uint8_t *w) {
    const __m512i both = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)w));
    const __m512i spread = _mm512_srlv_epi64(_mm512_permutexvar_epi64(self->places, both), self->shifts);
    return _mm512_and_si512(spread, _mm512_set1_epi8(15));
}

/* Scales of sixteen rows from n on as [blocks][16]. */
static void scales_of(const BlockProduct *self, int64_t n, float *out) {
    const __m512i at = _mm512_mullo_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32((int)self->n_blocks));
    for (int64_t b = 0; b < self->n_blocks; b++)
        _mm512_store_ps(out + b * TILE, _mm512_i32gather_ps(at, self->scales + n * self->n_blocks + b, 4));
}

static inline __m512 accumulate(__m512i sums, __m512i correction, __m512 x_scale, __m512 w_scale, __m512 total) {
    const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, correction));
    return _mm512_fmadd_ps(_mm512_mul_ps(exact, x_scale), w_scale, total);
}

/* Of each of sixteen vectors, in the vectors' order: the sums of all sixteen places, of both halves, or of the quarters. */
static inline void sum_parts(const __m512i v[TILE], int n_parts, __m512i out[4]) {
    __m512i a[8], b[4], c[4];
    UNROLL
    for (int i = 0; i < 8; i++)
        a[i] = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]),
                                _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    UNROLL
    for (int i = 0; i < 4; i++) /* [part][four vectors] */
        b[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(a[2 * i], a[2 * i + 1]),
                                _mm512_unpackhi_epi64(a[2 * i], a[2 * i + 1]));
    UNROLL
    for (int i = 0; i < 2; i++) { /* parts 0 and 2, and 1 and 3, of eight vectors */
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

/* Sixteen outputs of one row. w: rows of W every `stride` bytes, in `bits`; scales: [blocks][16]; step: of x's scales. */
static inline __attribute__((always_inline)) __m512 multiply(const BlockProduct *self, const uint8_t *w, int64_t stride,
                                                             const int8_t *q, const float *x_scales,
                                                             const int32_t *corrections, int64_t step,
                                                             const float *scales, int bits, int n_parts, int is_far) {
    __m512 total = _mm512_setzero_ps();
    const int64_t per_block = self->block / self->group;
    for (int64_t unit = 0; unit < self->depth / UNIT; unit++) {
        const __m512i x = _mm512_loadu_si512(q + unit * UNIT);
        const uint8_t *from = w + unit * UNIT * bits / 8;
        __m512i products[TILE], sums[4];
        UNROLL
        for (int i = 0; i < TILE; i++) {
            if (is_far) _mm_prefetch((const char *)(from + (TILE + i) * stride), _MM_HINT_T0);
            const __m512i v = bits == 4 ? expand(self, from + i * stride) : _mm512_loadu_si512(from + i * stride);
            products[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), v, x);
        }
        sum_parts(products, n_parts, sums);
        UNROLL
        for (int i = 0; i < n_parts; i++) {
            const int64_t g = unit * n_parts + i;
            total = accumulate(sums[i], _mm512_set1_epi32(corrections[g * step]), _mm512_set1_ps(x_scales[g * step]),
                               _mm512_load_ps(scales + g / per_block * TILE), total);
        }
    }
    return total;
}

static __m512 multiply_any(const BlockProduct *self, const uint8_t *w, int64_t stride, const int8_t *q,
                           const float *x_scales, const int32_t *corrections, int64_t step, const float *scales,
                           int bits, int is_far) {
#define CASE(BITS, PARTS)                                             \
    if (bits == BITS && self->group == UNIT / PARTS)                  \
        return multiply(self, w, stride, q, x_scales, corrections, step, scales, BITS, PARTS, is_far);
    CASE(8, 1)
    CASE(8, 2)
    CASE(8, 4)
    CASE(4, 1)
    CASE(4, 2)
    CASE(4, 4)
#undef CASE
    return _mm512_set1_ps(NAN); /* no other size gets past create */
}

/* The part-th share of the outputs of one row. */
static void multiply_row(void *data, size_t part) {
    Call *call = data;
    const BlockProduct *self = call->self;
    const int64_t n_tiles = (self->width + TILE - 1) / TILE;
    const int64_t first = n_tiles * (int64_t)part / call->parts, end = n_tiles * ((int64_t)part + 1) / call->parts;
    float *scales = take_scratch((size_t)(self->n_blocks * TILE) * sizeof(float));
    if (!scales) {
        call->failed = 1;
        return;
    }
    for (int64_t tile = first; tile < end; tile++) {
        const int64_t n = (tile + 1) * TILE > self->width ? self->width - TILE : tile * TILE;
        scales_of(self, n, scales);
        __m512 total = multiply_any(self, self->weights + n * self->row_size, self->row_size, call->tiles, call->scales,
                                    call->corrections, 1, scales, (int)self->bits, 1);
        if (self->bias) total = _mm512_add_ps(total, _mm512_loadu_ps(self->bias + n));
        _mm512_storeu_ps(call->y + n, total);
    }
    give_scratch(scales);
}

static OrtStatus *multiply_one(OrtContext *context, Call *call) {
    const BlockProduct *self = call->self;
    float *block_scales = (float *)(call->tiles + self->depth);
    quantize(self, call->x, call->tiles, block_scales);
    correct(self, call->tiles, block_scales, call->scales, call->corrections, 1);
    call->parts = 2 * self->base.threads;
    return in_parallel(&self->base, context, multiply_row, (size_t)call->parts, call);
}

/* Row m as a column of its tiles, [M / 16][groups][places of 4][16][4], or without tiles as it is. */
static void quantize_row(void *data, size_t index) {
    Call *call = data;
    const BlockProduct *self = call->self;
    const int64_t m = (int64_t)index;
    int8_t *q = take_scratch((size_t)(self->depth + self->n_blocks * (int64_t)sizeof(float)));
    if (!q) {
        call->failed = 1;
        return;
    }
    float *block_scales = (float *)(q + self->depth);
    quantize(self, call->x + m * self->depth, q, block_scales);
    correct(self, q, block_scales, call->scales + m, call->corrections + m, call->n_padded);
    if (has_matrix_units) {
        int8_t *tiles = call->tiles + m / TILE * TILE * self->depth + m % TILE * 4;
        for (int64_t k = 0; k < self->depth; k += 4) memcpy(tiles + k * TILE, q + k, 4);
    } else {
        memcpy(call->tiles + m * self->depth, q, (size_t)self->depth);
    }
    give_scratch(q);
}

#ifdef __AMX_INT8__
/* Rows m to m + 15 times sixteen outputs, to out [outputs][rows]. w: rows of W, a byte each weight, every `stride` bytes. */
static void multiply_tile_amx(const Call *call, int64_t m, int64_t n, const uint8_t *w, int64_t stride,
                              const float *scales, float out[TILE][TILE]) {
    const BlockProduct *self = call->self;
    const int64_t group = self->group, per_block = self->block / group;
    const int8_t *x = call->tiles + m * self->depth;
    const uint8_t *next = self->weights + (n + TILE) * self->row_size; /* the next outputs', once for all rows */
    const int64_t chunk = m == 0 && n + 2 * TILE <= self->width ? TILE * self->row_size / self->n_groups : 0;
    int32_t sums[2][TILE * TILE] __attribute__((aligned(64)));
    __m512 total[TILE];
    UNROLL
    for (int i = 0; i < TILE; i++) total[i] = _mm512_setzero_ps();
    for (int64_t g = 0; g < self->n_groups; g++) {
        int32_t *sum = sums[g & 1];
        _tile_zero(0);
        _tile_loadd(2, w + g * group, stride);
        _tile_loadd(4, x + g * group * TILE, 64);
        _tile_dpbusd(0, 2, 4);
        _tile_stored(0, sum, 64);
        const __m512i correction = _mm512_loadu_si512(call->corrections + g * call->n_padded + m);
        const __m512 x_scale = _mm512_loadu_ps(call->scales + g * call->n_padded + m);
        const float *w_scale = scales + g / per_block * TILE;
        for (int64_t i = g * chunk; i < (g + 1) * chunk; i += 64) _mm_prefetch((const char *)(next + i), _MM_HINT_T0);
        UNROLL
        for (int i = 0; i < TILE; i++)
            total[i] = accumulate(_mm512_load_si512(sum + i * TILE), correction, x_scale, _mm512_set1_ps(w_scale[i]),
                                  total[i]);
    }
    UNROLL
    for (int i = 0; i < TILE; i++) {
        if (self->bias) total[i] = _mm512_add_ps(total[i], _mm512_set1_ps(self->bias[n + i]));
        _mm512_store_ps(out[i], total[i]);
    }
}

static void set_tiles(int group) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {
        .palette = 1, /* sums, weights and activations are tiles 0, 2 and 4 */
        .rows = {TILE, 0, TILE, 0, (uint8_t)(group / 4)}, .bytes = {64, 0, (uint16_t)group, 0, 64},
    };
    _tile_loadconfig(&config);
}
#endif

/* All rows times the outputs from n to n + 15. */
static void multiply_tile(void *data, size_t tile) {
    Call *call = data;
    const BlockProduct *self = call->self;
    const int64_t n = ((int64_t)tile + 1) * TILE > self->width ? self->width - TILE : (int64_t)tile * TILE;
    const size_t scales_size = (size_t)(self->n_blocks * TILE) * sizeof(float);
    float *scales = take_scratch(scales_size + (size_t)(TILE * self->depth));
    if (!scales) {
        call->failed = 1;
        return;
    }
    const uint8_t *w = self->weights + n * self->row_size;
    int64_t stride = self->row_size;
    scales_of(self, n, scales);
    if (self->bits == 4) { /* once for all rows */
        uint8_t *wide = (uint8_t *)scales + scales_size;
        for (int64_t i = 0; i < TILE; i++)
            for (int64_t k = 0; k < self->depth; k += UNIT)
                _mm512_storeu_si512(wide + i * self->depth + k, expand(self, w + i * self->row_size + k / 2));
        w = wide, stride = self->depth;
    }
#ifdef __AMX_INT8__
    if (has_matrix_units) {
        float out[TILE][TILE] __attribute__((aligned(64)));
        set_tiles((int)self->group);
        for (int64_t m = 0; m < call->rows; m += TILE) {
            multiply_tile_amx(call, m, n, w, stride, scales, out);
            const int64_t n_rows = call->rows - m < TILE ? call->rows - m : TILE;
            for (int64_t r = 0; r < n_rows; r++)
                for (int i = 0; i < TILE; i++) call->y[(m + r) * self->width + n + i] = out[i][r];
        }
        _tile_release();
        give_scratch(scales);
        return;
    }
#endif
    for (int64_t m = 0; m < call->rows; m++) {
        __m512 total = multiply_any(self, w, stride, call->tiles + m * self->depth, call->scales + m,
                                    call->corrections + m, call->n_padded, scales, 8, 0);
        if (self->bias) total = _mm512_add_ps(total, _mm512_loadu_ps(self->bias + n));
        _mm512_storeu_ps(call->y + m * self->width + n, total);
    }
    give_scratch(scales);
}

static OrtStatus *compute(void *kernel, OrtContext *context) {
    const BlockProduct *self = kernel;
    OrtApi api = self->base.api;
    Tensor x;
    TRY(read_input(api, context, X, &x));
    if (x.rank < 1 || x.dims[x.rank - 1] != self->depth) return fail(api, "BlockProduct: x must be [.., K]");
    Call call = {.self = self, .x = x.data, .rows = 1};
    for (size_t i = 0; i + 1 < x.rank; i++) call.rows *= x.dims[i];
    x.dims[x.rank - 1] = self->width;
    TRY(make_output(api, context, 0, x.dims, x.rank, (void **)&call.y));
    if (call.rows == 0) return NULL;
    call.n_padded = call.rows == 1 ? 1 : (call.rows + TILE - 1) / TILE * TILE;
    const int64_t n_scales = (self->n_groups * call.n_padded + 15) / 16 * 16;
    const int64_t tiles_size = call.rows == 1 ? self->depth + 4 * self->n_blocks
                                              : call.n_padded * self->depth;
    call.scales = take_scratch((size_t)(n_scales * 8 + tiles_size));
    if (!call.scales) return fail(api, "BlockProduct: out of memory");
    call.corrections = (int32_t *)(call.scales + n_scales);
    call.tiles = (int8_t *)(call.corrections + n_scales);
    OrtStatus *status = NULL;
    if (call.rows == 1) {
        status = multiply_one(context, &call);
    } else {
        memset(call.scales, 0, (size_t)(n_scales * 8));
        memset(call.tiles + call.rows / TILE * TILE * self->depth, 0,
               (size_t)((call.n_padded - call.rows / TILE * TILE) * self->depth));
        status = in_parallel(&self->base, context, quantize_row, (size_t)call.rows, &call);
        const size_t n_tiles = (size_t)((self->width + TILE - 1) / TILE);
        if (!status) status = in_parallel(&self->base, context, multiply_tile, n_tiles, &call);
    }
    give_scratch(call.scales);
    return !status && call.failed ? fail(api, "BlockProduct: out of memory") : status;
}

static const char *name(const OrtCustomOp *op) { return (void)op, "BlockProduct"; }
static size_t n_inputs(const OrtCustomOp *op) { return (void)op, N_INPUTS; }
static int takes(const OrtCustomOp *op, size_t i) { return (void)op, i == W ? ORT_UINT8 : ORT_FLOAT32; }
static int is_needed(const OrtCustomOp *op, size_t i) { return (void)op, i == BIAS ? ORT_OPTIONAL : ORT_REQUIRED; }

const OrtCustomOp block_product = {
    OPERATOR, .get_output_type = all_float, .get_name = name, .get_input_type = takes, .get_input_count = n_inputs, .get_input_need = is_needed,
    .get_output_count = one, .create_kernel_or_fail = create, .compute_or_fail = compute, .destroy = free,
};
