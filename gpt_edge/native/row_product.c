/* RowProduct: y = bias + scale * (q(x) W), x rounded to 8 bits with one scale for each row, W signed 8-bit [K, N].
 *
 * What a bundle of scheme int8 does in seven operators, in one: the same roundings, the same integer sums, the same two
 * multiplications and the sum after them, so the same bits. A row's result does not depend on its neighbours.
 * Weights are read where the file is mapped. A few rows stream them as they lie, split along K; more rows interleave 64
 * columns at a time into the layout of the matrix units (or of VNNI) and use them for every row.
 */
#include <math.h>
#include <string.h>

#include "ort.h"
#include "vector.h"

enum { X, W, W_SCALE, BIAS, N_INPUTS };
enum { COLUMNS = 64, DEPTH = 64, TILE = 16, AHEAD = 16, STRIP = 4, FEW = 12 };

typedef struct {
    Kernel base;
    const int8_t *weights;
    const float *scales, *bias;
    int32_t *corrections; /* [N]: zero point times the sum of a column */
    int64_t depth, width;
    int32_t zero_point;
    float high, low; /* row scale = max(high * max(x), low * min(x)); without low, high * max(|x|) */
    int is_symmetric, is_gelu;
} RowProduct;

/* Round x [K] to q, 64 values every `stride` bytes, and return its scale; NaN anywhere makes the scale NaN. */
static float quantize(const RowProduct *self, const float *x, uint8_t *q, int64_t stride) {
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
        for (int64_t k = 0; k < self->depth; k += DEPTH) memset(q + k / DEPTH * stride, self->zero_point, DEPTH);
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

/* Four rows of 64 columns to groups [column][4 rows]; groups of 16 columns in order. */
static inline void interleave(const int8_t *w, int64_t stride, __m512i group[4]) {
    const __m512i r0 = _mm512_loadu_si512(w), r1 = _mm512_loadu_si512(w + stride);
    const __m512i r2 = _mm512_loadu_si512(w + 2 * stride), r3 = _mm512_loadu_si512(w + 3 * stride);
    const __m512i a = _mm512_unpacklo_epi8(r0, r1), b = _mm512_unpackhi_epi8(r0, r1);
    const __m512i c = _mm512_unpacklo_epi8(r2, r3), d = _mm512_unpackhi_epi8(r2, r3);
    group[0] = _mm512_unpacklo_epi16(a, c);
    group[1] = _mm512_unpackhi_epi16(a, c);
    group[2] = _mm512_unpacklo_epi16(b, d);
    group[3] = _mm512_unpackhi_epi16(b, d);
}

/* `interleave` leaves columns 16 i + 4 j to 16 i + 4 j + 3 in part i of group j; this puts them in order. */
static inline void in_order(__m512i g[4]) {
    const __m512i a = _mm512_shuffle_i32x4(g[0], g[1], 0x44), b = _mm512_shuffle_i32x4(g[2], g[3], 0x44);
    const __m512i c = _mm512_shuffle_i32x4(g[0], g[1], 0xee), d = _mm512_shuffle_i32x4(g[2], g[3], 0xee);
    g[0] = _mm512_shuffle_i32x4(a, b, 0x88);
    g[1] = _mm512_shuffle_i32x4(a, b, 0xdd);
    g[2] = _mm512_shuffle_i32x4(c, d, 0x88);
    g[3] = _mm512_shuffle_i32x4(c, d, 0xdd);
}

/* Sixteen columns of one row, from integer sums to the result. */
static inline void finish(const RowProduct *self, __m512i sum, float scale, int64_t n, float *y) {
    sum = _mm512_sub_epi32(sum, _mm512_load_si512(self->corrections + n));
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_loadu_ps(self->scales + n));
    v = _mm512_mul_ps(v, _mm512_set1_ps(scale));
    if (self->bias) v = _mm512_add_ps(v, _mm512_loadu_ps(self->bias + n));
    _mm512_storeu_ps(y + n, self->is_gelu ? gelu_tanh16(v) : v);
}

typedef struct {
    const RowProduct *self;
    const float *x;
    float *y, *row_scales;
    uint8_t *q;     /* [M, K], rows up to a multiple of two tiles */
    int32_t *sums;  /* of a few rows: [parts, M, N] */
    int64_t rows, parts;
    int failed;
} Call;

/* A few rows times the part-th share of the rows of W, sixteen of those at a time, to sums [part][row][N]. */
static void stream(void *data, size_t part) {
    const Call *call = data;
    const RowProduct *self = call->self;
    const int64_t n_groups = self->depth / 16, width = self->width, n_rows = call->rows;
    const int64_t first = n_groups * (int64_t)part / call->parts, end = n_groups * ((int64_t)part + 1) / call->parts;
    int32_t *sums = call->sums + (int64_t)part * n_rows * width;
    memset(sums, 0, (size_t)(n_rows * width) * sizeof *sums);
    for (int64_t group = first; group < end; group++) {
        const int8_t *w = self->weights + group * 16 * width;
        for (int64_t n = 0; n < width; n += COLUMNS) {
            __m512i g[4][4];
            UNROLL
            for (int r = 0; r < 16; r++) _mm_prefetch((const char *)(w + n + (16 + r) * width), _MM_HINT_T0);
            UNROLL
            for (int four = 0; four < 4; four++) interleave(w + n + four * 4 * width, width, g[four]);
            for (int64_t row = 0; row < n_rows; row++) {
                int32_t q[4];
                memcpy(q, call->q + row * self->depth + group * 16, 16);
                UNROLL
                for (int j = 0; j < 4; j++) {
                    int32_t *place = sums + row * width + n + 16 * j;
                    __m512i sum = _mm512_load_si512(place);
                    UNROLL
                    for (int four = 0; four < 4; four++)
                        sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi32(q[four]), g[four][j]);
                    _mm512_store_si512(place, sum);
                }
            }
        }
    }
}

/* What `stream` left in a place for each part, added up, in the order of columns. */
static inline void collect(const Call *call, int64_t row, int64_t n, __m512i sums[4]) {
    const int64_t size = call->rows * call->self->width;
    for (int j = 0; j < 4; j++) {
        const int32_t *place = call->sums + row * call->self->width + n + 16 * j;
        sums[j] = _mm512_load_si512(place);
        for (int64_t part = 1; part < call->parts; part++)
            sums[j] = _mm512_add_epi32(sums[j], _mm512_load_si512(place + part * size));
    }
    in_order(sums);
}

/* The corrections: zero point times the sum of each column, which is W times a row of ones. */
static OrtStatus *sum_columns(RowProduct *self) {
    Call call = {.self = self, .sums = self->corrections, .rows = 1, .parts = 1, .q = malloc((size_t)self->depth)};
    if (!call.q) return fail(self->base.api, "RowProduct: out of memory");
    memset(call.q, 1, (size_t)self->depth);
    stream(&call, 0);
    for (int64_t n = 0; n < self->width; n += COLUMNS) {
        __m512i g[4];
        collect(&call, 0, n, g);
        for (int j = 0; j < 4; j++)
            _mm512_store_si512(self->corrections + n + 16 * j,
                               _mm512_mullo_epi32(g[j], _mm512_set1_epi32(self->zero_point)));
    }
    free(call.q);
    return NULL;
}

static void destroy(void *kernel) {
    free(((RowProduct *)kernel)->corrections);
    free(kernel);
}

static OrtStatus *create(const OrtCustomOp *op, OrtApi api, const OrtInfo *info, void **out) {
    (void)op;
    Tensor w, scale, bias = {0};
    int64_t threads, zero_point, has_bias, is_gelu;
    float high, low;
    TRY(ORT_INT(api)(info, "threads", &threads));
    TRY(ORT_INT(api)(info, "zero_point", &zero_point));
    TRY(ORT_INT(api)(info, "has_bias", &has_bias));
    TRY(ORT_INT(api)(info, "is_gelu", &is_gelu));
    TRY(ORT_FLOAT(api)(info, "high", &high));
    TRY(ORT_FLOAT(api)(info, "low", &low));
    TRY(read_constant(api, info, W, &w));
    TRY(read_constant(api, info, W_SCALE, &scale));
    if (has_bias) TRY(read_constant(api, info, BIAS, &bias));
    if (w.rank != 2 || w.dims[0] % DEPTH || w.dims[1] % COLUMNS) return fail(api, "RowProduct: W must be [64 k, 64 n]");
    if (count(&scale) != w.dims[1] || (has_bias && count(&bias) != w.dims[1]))
        return fail(api, "RowProduct: W's scales and the bias must be [N]");
    RowProduct *self = calloc(1, sizeof *self);
    int32_t *sums = aligned_alloc(64, (size_t)w.dims[1] * sizeof *sums);
    if (!self || !sums) {
        free(self);
        free(sums);
        return fail(api, "RowProduct: out of memory");
    }
    *self = (RowProduct){
        .base = {api, threads}, .weights = w.data, .scales = scale.data, .corrections = sums,
        .bias = bias.data, .depth = w.dims[0], .width = w.dims[1], .zero_point = (int32_t)zero_point,
        .high = high, .low = low, .is_symmetric = low == 0, .is_gelu = (int)is_gelu,
    };
    OrtStatus *status = sum_columns(self);
    if (status) destroy(self);
    else *out = self;
    return status;
}

static OrtStatus *multiply_few(OrtContext *context, Call *call) {
    const RowProduct *self = call->self;
    call->parts = self->base.threads;
    const size_t sums_size = (size_t)(call->parts * call->rows * self->width) * sizeof(int32_t);
    call->sums = take_scratch(sums_size + (size_t)(call->rows * self->depth));
    if (!call->sums) return fail(self->base.api, "RowProduct: out of memory");
    call->q = (uint8_t *)call->sums + sums_size;
    float scales[FEW];
    for (int64_t row = 0; row < call->rows; row++)
        scales[row] = quantize(self, call->x + row * self->depth, call->q + row * self->depth, DEPTH);
    OrtStatus *status = in_parallel(&self->base, context, stream, (size_t)call->parts, call);
    for (int64_t row = 0; row < call->rows; row++)
        for (int64_t n = 0; n < self->width; n += COLUMNS) {
            __m512i g[4];
            collect(call, row, n, g);
            for (int j = 0; j < 4; j++) finish(self, g[j], scales[row], n + 16 * j, call->y + row * self->width);
        }
    give_scratch(call->sums);
    return status;
}

/* Row m of q for several rows: [M / 16][K / 64][16 rows][64]. */
static inline uint8_t *row_of(const Call *call, int64_t m) {
    return call->q + m / TILE * TILE * call->self->depth + m % TILE * DEPTH;
}

static void quantize_row(void *data, size_t row) {
    const Call *call = data;
    const float *x = call->x + (int64_t)row * call->self->depth;
    call->row_scales[row] = quantize(call->self, x, row_of(call, (int64_t)row), TILE * DEPTH);
}

/* Columns n to end of W as [N / 64][K / 64][4 groups of 16 columns][16 groups of 4 rows][16 columns][4 rows]. */
static void pack(const RowProduct *self, int64_t n, int64_t end, int8_t *packed) {
    const int64_t stride = self->width;
    for (int64_t k = 0; k < self->depth; k += 4) {
        int8_t *out = packed + k / DEPTH * DEPTH * COLUMNS + k % DEPTH / 4 * 64;
        for (const int8_t *w = self->weights + k * stride + n; w < self->weights + k * stride + end; w += COLUMNS) {
            __m512i g[4];
            for (int r = 0; r < 4; r++) _mm_prefetch((const char *)(w + (AHEAD + r) * stride), _MM_HINT_T0);
            interleave(w, stride, g);
            in_order(g);
            for (int j = 0; j < 4; j++) _mm512_store_si512(out + j * TILE * 64, g[j]);
            out += self->depth * COLUMNS;
        }
    }
}

#ifdef __AMX_INT8__
static void set_tiles(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.bytes[i] = 64, config.rows[i] = TILE;
    _tile_loadconfig(&config);
}

/* Two times 16 rows of q with 32 columns of W, from group j on, to sums [32][64]. */
static void multiply_block_amx(const RowProduct *self, const uint8_t *q, const int8_t *packed, int j, int32_t *sums) {
    const int64_t depth = self->depth;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < depth; k += DEPTH) {
        const int8_t *w = packed + k * COLUMNS + j * TILE * 64;
        _tile_loadd(4, q + k * TILE, DEPTH);
        _tile_loadd(5, q + TILE * depth + k * TILE, DEPTH);
        _tile_loadd(6, w, 64);
        _tile_loadd(7, w + TILE * 64, 64);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
    }
    sums += j * TILE;
    _tile_stored(0, sums, COLUMNS * 4);
    _tile_stored(1, sums + TILE, COLUMNS * 4);
    _tile_stored(2, sums + TILE * COLUMNS, COLUMNS * 4);
    _tile_stored(3, sums + TILE * COLUMNS + TILE, COLUMNS * 4);
}
#endif

static void multiply_block_vnni(const RowProduct *self, const uint8_t *q, const int8_t *packed, int j, int32_t *sums) {
    const int64_t depth = self->depth;
    for (int m = 0; m < 2 * TILE; m += 8) {
        __m512i sum[8][2];
        for (int i = 0; i < 8; i++) sum[i][0] = sum[i][1] = _mm512_setzero_si512();
        for (int64_t k = 0; k < depth; k += 4) {
            const int8_t *w = packed + k / DEPTH * DEPTH * COLUMNS + k % DEPTH / 4 * 64 + j * TILE * 64;
            const __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + TILE * 64);
            for (int i = 0; i < 8; i++) {
                int32_t four;
                memcpy(&four, q + m / TILE * TILE * depth + k / DEPTH * TILE * DEPTH + (m % TILE + i) * DEPTH + k % DEPTH, 4);
                sum[i][0] = _mm512_dpbusd_epi32(sum[i][0], _mm512_set1_epi32(four), w0);
                sum[i][1] = _mm512_dpbusd_epi32(sum[i][1], _mm512_set1_epi32(four), w1);
            }
        }
        for (int i = 0; i < 8; i++)
            for (int half = 0; half < 2; half++)
                _mm512_store_si512(sums + (m + i) * COLUMNS + (j + half) * TILE, sum[i][half]);
    }
}

static void multiply_block(const RowProduct *self, const uint8_t *q, const int8_t *packed, int j, int32_t *sums) {
#ifdef __AMX_INT8__
    if (has_matrix_units) {
        multiply_block_amx(self, q, packed, j, sums);
        return;
    }
#endif
    multiply_block_vnni(self, q, packed, j, sums);
}

/* All rows times 64 columns from n on, which `packed` holds. */
static void multiply_columns(const Call *call, int64_t n, const int8_t *packed) {
    const RowProduct *self = call->self;
    int32_t sums[2 * TILE * COLUMNS] __attribute__((aligned(64)));
    for (int64_t m = 0; m < call->rows; m += 2 * TILE) {
        multiply_block(self, row_of(call, m), packed, 0, sums);
        multiply_block(self, row_of(call, m), packed, 2, sums);
        const int64_t n_rows = call->rows - m < 2 * TILE ? call->rows - m : 2 * TILE;
        for (int64_t i = 0; i < n_rows; i++)
            for (int j = 0; j < 4; j++)
                finish(self, _mm512_load_si512(sums + i * COLUMNS + j * TILE), call->row_scales[m + i], n + j * TILE,
                       call->y + (m + i) * self->width);
    }
}

/* All rows times the part-th share of the columns. */
static void multiply_strip(void *data, size_t part) {
    Call *call = data;
    const RowProduct *self = call->self;
    const int64_t n_blocks = self->width / COLUMNS;
    const int64_t n = n_blocks * (int64_t)part / call->parts * COLUMNS;
    const int64_t end = n_blocks * ((int64_t)part + 1) / call->parts * COLUMNS;
    int8_t *packed = take_scratch((size_t)((end - n) * self->depth));
    if (!packed) {
        call->failed = 1;
        return;
    }
    pack(self, n, end, packed);
#ifdef __AMX_INT8__
    if (has_matrix_units) set_tiles();
#endif
    for (int64_t at = n; at < end; at += COLUMNS) multiply_columns(call, at, packed + (at - n) * self->depth);
#ifdef __AMX_INT8__
    if (has_matrix_units) _tile_release();
#endif
    give_scratch(packed);
}

static OrtStatus *multiply_rows(OrtContext *context, Call *call) {
    const RowProduct *self = call->self;
    const int64_t n_padded = (call->rows + 2 * TILE - 1) / (2 * TILE) * (2 * TILE);
    const int64_t n_blocks = self->width / COLUMNS, wanted = (n_blocks + STRIP - 1) / STRIP;
    call->parts = wanted > 2 * self->base.threads ? wanted : 2 * self->base.threads;
    if (call->parts > n_blocks) call->parts = n_blocks;
    call->q = take_scratch((size_t)(n_padded * (self->depth + (int64_t)sizeof(float))));
    if (!call->q) return fail(self->base.api, "RowProduct: out of memory");
    call->row_scales = (float *)(call->q + n_padded * self->depth);
    OrtStatus *status = in_parallel(&self->base, context, quantize_row, (size_t)call->rows, call);
    if (!status) status = in_parallel(&self->base, context, multiply_strip, (size_t)call->parts, call);
    give_scratch(call->q);
    return !status && call->failed ? fail(self->base.api, "RowProduct: out of memory") : status;
}

static OrtStatus *compute(void *kernel, OrtContext *context) {
    const RowProduct *self = kernel;
    OrtApi api = self->base.api;
    Tensor x;
    TRY(read_input(api, context, X, &x));
    if (x.rank < 1 || x.dims[x.rank - 1] != self->depth) return fail(api, "RowProduct: x must be [.., K]");
    Call call = {.self = self, .x = x.data, .rows = 1};
    for (size_t i = 0; i + 1 < x.rank; i++) call.rows *= x.dims[i];
    x.dims[x.rank - 1] = self->width;
    TRY(make_output(api, context, 0, x.dims, x.rank, (void **)&call.y));
    if (call.rows == 0) return NULL;
    return call.rows <= FEW ? multiply_few(context, &call) : multiply_rows(context, &call);
}

static const char *name(const OrtCustomOp *op) { return (void)op, "RowProduct"; }
static size_t n_inputs(const OrtCustomOp *op) { return (void)op, N_INPUTS; }
static int takes(const OrtCustomOp *op, size_t i) { return (void)op, i == W ? ORT_INT8 : ORT_FLOAT32; }
static int is_needed(const OrtCustomOp *op, size_t i) { return (void)op, i == BIAS ? ORT_OPTIONAL : ORT_REQUIRED; }

const OrtCustomOp row_product = {
    OPERATOR, .get_output_type = all_float, .get_name = name, .get_input_type = takes, .get_input_count = n_inputs, .get_input_need = is_needed,
    .get_output_count = one, .create_kernel_or_fail = create, .compute_or_fail = compute, .destroy = destroy,
};
