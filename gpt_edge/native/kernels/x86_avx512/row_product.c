/* RowProduct: y = bias + scale * (q(x) W), x quantized to 8 bits with one scale for each row, W
 * signed 8-bit [K, N].
 *
 * One operator for the seven of a bundle of scheme int8: the same roundings, integer sums, two
 * multiplications and addition, so the results are bit-identical. A row's result does not depend on
 * its neighbours. Weights are read from the mapped file. A few rows read them in that layout, split
 * along K; more rows interleave 64 columns at a time into the layout of AMX tiles (or of VNNI) and
 * use them for every row.
 */
#include <math.h>
#include <string.h>

#include "../scratch.h"
#include "operators.h"
#include "row_operands.h"
#include "row_product_many.h"

enum { X, W, W_SCALE, BIAS, N_INPUTS };
enum { FEW = 12 }; /* rows; more are worth the packing of row_product_many.c */

/* A few rows times the part-th fraction of the rows of W, sixteen of those at a time, to sums
 * [part][row][N].
 *
 * g[four][j] holds rows 4 four + (0..3) of the sixteen for the columns of `interleave`'s group j.
 * The sums keep its order of columns, which `collect` undoes: once for each output, not for each
 * row of W.
 */
static void accumulate_few_rows(void *data, size_t part) {
    const RowCall *call = data;
    const RowProduct *self = call->self;
    const int64_t n_groups = self->depth / 16, width = self->width, n_rows = call->rows;
    const int64_t first = n_groups * (int64_t)part / call->parts;
    const int64_t end = n_groups * ((int64_t)part + 1) / call->parts;
    int32_t *sums = call->sums + (int64_t)part * n_rows * width;
    memset(sums, 0, (size_t)(n_rows * width) * sizeof *sums);
    for (int64_t group = first; group < end; group++) {
        const int8_t *w = self->weights + group * 16 * width;
        for (int64_t n = 0; n < width; n += COLUMNS) {
            __m512i g[4][4];
            UNROLL
            for (int r = 0; r < 16; r++)
                _mm_prefetch((const char *)(w + n + (16 + r) * width), _MM_HINT_T0);
            UNROLL
            for (int four = 0; four < 4; four++)
                interleave(w + n + four * 4 * width, width, g[four]);
            for (int64_t row = 0; row < n_rows; row++) {
                int32_t q[4];
                memcpy(q, call->q + row * self->depth + group * 16, 16);
                UNROLL
                for (int j = 0; j < 4; j++) {
                    int32_t *partial = sums + row * width + n + 16 * j;
                    __m512i sum = _mm512_load_si512(partial);
                    UNROLL
                    for (int four = 0; four < 4; four++)
                        sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi32(q[four]), g[four][j]);
                    _mm512_store_si512(partial, sum);
                }
            }
        }
    }
}

/* Add up the sums of all parts for 64 columns from n on, in the order of columns. */
static inline void collect(const RowCall *call, int64_t row, int64_t n, __m512i sums[4]) {
    const int64_t size = call->rows * call->self->width;
    for (int j = 0; j < 4; j++) {
        const int32_t *partial = call->sums + row * call->self->width + n + 16 * j;
        sums[j] = _mm512_load_si512(partial);
        for (int64_t part = 1; part < call->parts; part++)
            sums[j] = _mm512_add_epi32(sums[j], _mm512_load_si512(partial + part * size));
    }
    in_order(sums);
}

/* The corrections: zero point times the sum of each column, which is W times a row of ones. */
static OrtStatus *sum_columns(RowProduct *self) {
    RowCall call = {.self = self,
                    .sums = self->corrections,
                    .rows = 1,
                    .parts = 1,
                    .q = malloc((size_t)self->depth)};
    if (!call.q) return fail(self->base.api, "RowProduct: out of memory");
    memset(call.q, 1, (size_t)self->depth);
    accumulate_few_rows(&call, 0);
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

static OrtStatus *multiply_few(OrtContext *context, RowCall *call) {
    const RowProduct *self = call->self;
    call->parts = self->base.threads;
    const size_t sums_size = (size_t)(call->parts * call->rows * self->width) * sizeof(int32_t);
    call->sums = take_scratch(sums_size + (size_t)(call->rows * self->depth));
    if (!call->sums) return fail(self->base.api, "RowProduct: out of memory");
    call->q = (uint8_t *)call->sums + sums_size;
    float scales[FEW];
    for (int64_t row = 0; row < call->rows; row++)
        scales[row] =
            quantize_row(self, call->x + row * self->depth, call->q + row * self->depth, DEPTH);
    OrtStatus *status =
        in_parallel(&self->base, context, accumulate_few_rows, (size_t)call->parts, call);
    for (int64_t row = 0; row < call->rows; row++)
        for (int64_t n = 0; n < self->width; n += COLUMNS) {
            __m512i g[4];
            collect(call, row, n, g);
            for (int j = 0; j < 4; j++)
                finish(self, g[j], scales[row], n + 16 * j, call->y + row * self->width);
        }
    give_scratch(call->sums);
    return status;
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
    if (w.rank != 2 || w.dims[0] % DEPTH || w.dims[1] % COLUMNS)
        return fail(api, "RowProduct: W must be [64 k, 64 n]");
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
        .base = {api, threads},
        .weights = w.data,
        .scales = scale.data,
        .corrections = sums,
        .bias = bias.data,
        .depth = w.dims[0],
        .width = w.dims[1],
        .zero_point = (int32_t)zero_point,
        .high = high,
        .low = low,
        .is_symmetric = low == 0,
        .is_gelu = (int)is_gelu,
    };
    OrtStatus *status = sum_columns(self);
    if (status) destroy(self);
    else *out = self;
    return status;
}

static OrtStatus *compute(void *kernel, OrtContext *context) {
    const RowProduct *self = kernel;
    OrtApi api = self->base.api;
    Tensor x;
    TRY(read_input(api, context, X, &x));
    RowCall call = {.self = self, .x = x.data, .rows = rows_of(&x, self->depth)};
    if (call.rows < 0) return fail(api, "RowProduct: x must be [.., K]");
    x.dims[x.rank - 1] = self->width;
    TRY(make_output(api, context, 0, x.dims, x.rank, (void **)&call.y));
    if (call.rows == 0) return NULL;
    return call.rows <= FEW ? multiply_few(context, &call) : multiply_many(context, &call);
}

static const char *name(const OrtCustomOp *op) { return (void)op, "RowProduct"; }
static size_t n_inputs(const OrtCustomOp *op) { return (void)op, N_INPUTS; }
static int takes(const OrtCustomOp *op, size_t i) {
    return (void)op, i == W ? ORT_INT8 : ORT_FLOAT32;
}
static int is_needed(const OrtCustomOp *op, size_t i) {
    return (void)op, i == BIAS ? ORT_OPTIONAL : ORT_REQUIRED;
}

const OrtCustomOp row_product = {
    OPERATOR,
    .get_name = name,
    .get_input_count = n_inputs,
    .get_input_type = takes,
    .get_input_need = is_needed,
    .get_output_count = one,
    .get_output_type = all_float,
    .create_kernel_or_fail = create,
    .compute_or_fail = compute,
    .destroy = destroy,
};
