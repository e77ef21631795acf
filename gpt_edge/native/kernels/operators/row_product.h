/* RowProduct: y = f(bias + scale * (q(x) W)), x quantized to 8 bits with one scale for each row, W
 * signed 8-bit [K, N], f GELU or nothing.
 *
 * One operator for the seven of a bundle of scheme int8: the same roundings, integer sums, two
 * multiplications and addition, so without GELU the results are bit-identical. A row's result does
 * not depend on its neighbours. Weights are read from the mapped file. One row splits them along K,
 * and reads them in the order of memory; a few rows split them along N; more rows pack 64 columns
 * at a time and use them for every row.
 */
#pragma once

#include "row_operands.h"
#include "row_many.h"

enum { ROW_X, ROW_W, ROW_SCALE, ROW_BIAS, ROW_INPUTS };
enum { FEW = 12 };                        /* rows; more are worth the packing of row_many.h */
enum { FEW_BLOCKS = 16, FEW_AHEAD = 12 }; /* blocks of 64 columns of a part, and to prefetch */

/* The first of the group-th sixteen rows of W; the last ones overlap those before, where 16 do not
 * divide the depth.
 */
INLINE int64_t first_row(const RowProduct *self, int64_t group) {
    return (group + 1) * 16 > self->depth ? self->depth - 16 : group * 16;
}

#ifndef ONE_ROWS
#define ONE_ROWS 16 /* of W at a time, for one row of x */
#define ONE_AHEAD(stride) (16 * (stride)) /* bytes from what is read to what is prefetched */
INLINE void one_product(const int8_t *w, int64_t stride, const FewX *x, int row, int32_t *sums) {
    (void)row;
    few_product(w, stride, x, 1, 0, sums);
}
#endif

/* One row times the part-th fraction of the rows of W, sixteen of those at a time, to sums
 * [part][N]. The sums' order of columns is undone by `collect`: once for each output, not for each
 * row of W.
 */
static void accumulate_row(void *data, size_t part) {
    const RowCall *call = data;
    const RowProduct *self = call->self;
    const int64_t n_groups = round_up(self->depth, 16) / 16;
    const int64_t stride = self->width, sums_stride = round_up(stride, COLUMNS);
    const int64_t first = n_groups * (int64_t)part / call->parts;
    const int64_t end = n_groups * ((int64_t)part + 1) / call->parts;
    int32_t *sums = call->sums + (int64_t)part * sums_stride;
    memset(sums, 0, (size_t)sums_stride * sizeof *sums);
    for (int64_t group = first; group < end; group++) {
        FewX x;
        few_x(&x, call->q + group * 16);
        UNROLL
        for (int row = 0; row < 16; row += ONE_ROWS) {
            const int8_t *w = self->weights + (first_row(self, group) + row) * stride;
            for (int64_t i = 0; i * COLUMNS < stride; i++) {
                /* in the order of memory, as much as is read now */
                const int8_t *next = w + ONE_AHEAD(stride) + ONE_ROWS * COLUMNS * i;
                UNROLL
                for (int line = 0; line < ONE_ROWS; line++) PREFETCH_FAR(next + COLUMNS * line);
                one_product(w + first_column(self, i), stride, &x, row, sums + i * COLUMNS);
            }
        }
    }
}

/* Where the last sixteen rows of W overlap those before: x is 0 for rows that were there already.
 */
static void shift_tail(const RowProduct *self, uint8_t *q) {
    const int64_t tail = self->depth % 16;
    if (tail == 0) return;
    uint8_t *last = q + self->depth - tail;
    memmove(last + 16 - tail, last, (size_t)tail);
    memset(last, X_OFFSET, (size_t)(16 - tail));
}

/* Add up the sums of all parts of one row for the i-th 64 columns, in the order of columns. */
static inline void collect(const RowCall *call, int64_t i, Ints sums[4]) {
    const int64_t stride = round_up(call->self->width, COLUMNS);
    for (int j = 0; j < 4; j++) {
        const int32_t *partial = call->sums + i * COLUMNS + LANES * j;
        sums[j] = i_load(partial);
        for (int64_t part = 1; part < call->parts; part++)
            sums[j] = i_add(sums[j], i_load(partial + part * stride));
    }
    few_order(sums);
}

/* Memory of n sums, with the quantized rows behind them. */
static OrtStatus *take_few(RowCall *call, int64_t n) {
    const int64_t padded = round_up(call->self->depth, UNIT);
    const size_t sums_size = (size_t)n * sizeof(int32_t);
    call->sums = take_scratch(sums_size + (size_t)(call->rows * padded));
    if (!call->sums) return fail(call->self->base.api, "RowProduct: out of memory");
    call->q = (uint8_t *)call->sums + sums_size;
    return NULL;
}

/* The corrections: zero point times the sum of each column, which is W times a row of ones. */
static OrtStatus *sum_columns(RowProduct *self) {
    RowCall call = {.self = self, .rows = 1, .parts = 1};
    TRY(take_few(&call, round_up(self->width, COLUMNS)));
    memset(call.q, X_OFFSET + 1, (size_t)self->depth);
    shift_tail(self, call.q);
    accumulate_row(&call, 0);
    for (int64_t i = 0; i * COLUMNS < self->width; i++) {
        Ints sums[4];
        collect(&call, i, sums);
        for (int j = 0; j < 4; j++)
            i_store(self->corrections + first_column(self, i) + LANES * j,
                    i_mul(sums[j], i_all(self->zero_point - X_OFFSET)));
    }
    give_scratch(call.sums);
    return NULL;
}

static void quantize_few(RowCall *call) {
    const RowProduct *self = call->self;
    for (int64_t row = 0; row < call->rows; row++) {
        uint8_t *q = call->q + row * round_up(self->depth, UNIT);
        call->row_scales[row] = quantize_row(self, call->x + row * self->depth, q);
        shift_tail(self, q);
    }
}

/* The i-th 64 columns of a row, from the sums in the order of few_product. */
INLINE void finish_columns(const RowCall *call, int64_t row, int64_t i, Ints sums[4]) {
    for (int j = 0; j < 4; j++)
        finish(call->self, sums[j], call->row_scales[row], first_column(call->self, i) + LANES * j,
               call->y + row * call->self->width);
}

static OrtStatus *multiply_one(OrtContext *context, RowCall *call) {
    const RowProduct *self = call->self;
    call->parts = self->base.threads;
    TRY(take_few(call, call->parts * round_up(self->width, COLUMNS)));
    float scale;
    call->row_scales = &scale;
    quantize_few(call);
    OrtStatus *status =
        in_parallel(&self->base, context, accumulate_row, (size_t)call->parts, call);
    for (int64_t i = 0; i * COLUMNS < self->width; i++) {
        Ints sums[4];
        collect(call, i, sums);
        finish_columns(call, 0, i, sums);
    }
    give_scratch(call->sums);
    return status;
}

/* A few rows times the part-th fraction of the columns of W, sixteen rows of W at a time. */
static void multiply_strip_of_few(void *data, size_t part) {
    const RowCall *call = data;
    const RowProduct *self = call->self;
    const int64_t stride = self->width, padded = round_up(self->depth, UNIT);
    const int64_t n_blocks = round_up(stride, COLUMNS) / COLUMNS;
    const int64_t n_groups = round_up(self->depth, 16) / 16;
    const int64_t first = n_blocks * (int64_t)part / call->parts;
    const int64_t end = n_blocks * ((int64_t)part + 1) / call->parts;
    const int64_t sums_stride = (end - first) * COLUMNS;
    /* so many rows of W are prefetched that there is time for them to arrive */
    const int64_t ahead = 16 * (1 + FEW_AHEAD / (end - first));
    int32_t *sums = call->sums + first * COLUMNS * call->rows;
    memset(sums, 0, (size_t)(call->rows * sums_stride) * sizeof *sums);
    for (int64_t group = 0; group < n_groups; group++) {
        const int8_t *w = self->weights + first_row(self, group) * stride;
        FewX x[FEW];
        for (int64_t row = 0; row < call->rows; row++)
            few_x(&x[row], call->q + row * padded + group * 16);
        for (int64_t i = first; i < end; i++) {
            const int8_t *from = w + first_column(self, i);
            UNROLL
            for (int line = 0; line < 16; line++) PREFETCH_FAR(from + (ahead + line) * stride);
            few_product(from, stride, x, call->rows, sums_stride, sums + (i - first) * COLUMNS);
        }
    }
    for (int64_t row = 0; row < call->rows; row++)
        for (int64_t i = first; i < end; i++) {
            const int32_t *from = sums + row * sums_stride + (i - first) * COLUMNS;
            Ints four[4];
            for (int j = 0; j < 4; j++) four[j] = i_load(from + LANES * j);
            few_order(four);
            finish_columns(call, row, i, four);
        }
}

static OrtStatus *multiply_few(OrtContext *context, RowCall *call) {
    const RowProduct *self = call->self;
    const int64_t n_blocks = round_up(self->width, COLUMNS) / COLUMNS;
    TRY(take_few(call, call->rows * n_blocks * COLUMNS));
    float scales[FEW];
    call->row_scales = scales;
    quantize_few(call);
    call->parts = (n_blocks + FEW_BLOCKS - 1) / FEW_BLOCKS;
    if (call->parts < 2 * self->base.threads && self->base.threads > 1)
        call->parts = 2 * self->base.threads;
    if (call->parts > n_blocks) call->parts = n_blocks;
    OrtStatus *status =
        in_parallel(&self->base, context, multiply_strip_of_few, (size_t)call->parts, call);
    give_scratch(call->sums);
    return status;
}

static void row_destroy(void *kernel) {
    free(((RowProduct *)kernel)->corrections);
    free(kernel);
}

static OrtStatus *row_create(const OrtCustomOp *op, OrtApi api, const OrtInfo *info, void **out) {
    (void)op;
    Tensor w, scale, bias = {0};
    int64_t threads, zero_point, has_bias, activation;
    float high, low;
    TRY(ORT_INT(api)(info, "threads", &threads));
    TRY(ORT_INT(api)(info, "zero_point", &zero_point));
    TRY(ORT_INT(api)(info, "has_bias", &has_bias));
    TRY(ORT_INT(api)(info, "activation", &activation));
    TRY(ORT_FLOAT(api)(info, "high", &high));
    TRY(ORT_FLOAT(api)(info, "low", &low));
    TRY(read_constant(api, info, ROW_W, &w));
    TRY(read_constant(api, info, ROW_SCALE, &scale));
    if (has_bias) TRY(read_constant(api, info, ROW_BIAS, &bias));
    if (w.rank != 2 || w.dims[0] < 16 || w.dims[1] < COLUMNS)
        return fail(api, "RowProduct: W must be [16 or more, 64 or more]");
    if (count(&scale) != w.dims[1] || (has_bias && count(&bias) != w.dims[1]))
        return fail(api, "RowProduct: W's scales and the bias must be [N]");
    RowProduct *self = calloc(1, sizeof *self);
    int32_t *corrections = malloc((size_t)w.dims[1] * sizeof *corrections);
    if (!self || !corrections) {
        free(self);
        free(corrections);
        return fail(api, "RowProduct: out of memory");
    }
    *self = (RowProduct){
        .base = {api, threads},
        .weights = w.data,
        .scales = scale.data,
        .corrections = corrections,
        .bias = bias.data,
        .depth = w.dims[0],
        .width = w.dims[1],
        .zero_point = (int32_t)zero_point,
        .high = high,
        .low = low,
        .is_symmetric = low == 0,
        .activation = (int)activation,
    };
    OrtStatus *status = sum_columns(self);
    if (status) row_destroy(self);
    else *out = self;
    return status;
}

static OrtStatus *row_compute(void *kernel, OrtContext *context) {
    const RowProduct *self = kernel;
    OrtApi api = self->base.api;
    Tensor x;
    TRY(read_input(api, context, ROW_X, &x));
    RowCall call = {.self = self, .x = x.data, .rows = rows_of(&x, self->depth)};
    if (call.rows < 0) return fail(api, "RowProduct: x must be [.., K]");
    x.dims[x.rank - 1] = self->width;
    TRY(make_output(api, context, 0, x.dims, x.rank, (void **)&call.y));
    if (call.rows == 0) return NULL;
    if (call.rows == 1) return multiply_one(context, &call);
    return call.rows <= FEW ? multiply_few(context, &call) : multiply_many(context, &call);
}

static const char *row_name(const OrtCustomOp *op) { return (void)op, "RowProduct"; }
static size_t row_inputs(const OrtCustomOp *op) { return (void)op, ROW_INPUTS; }
static int row_takes(const OrtCustomOp *op, size_t i) {
    return (void)op, i == ROW_W ? ORT_INT8 : ORT_FLOAT32;
}
static int row_needs(const OrtCustomOp *op, size_t i) {
    return (void)op, i == ROW_BIAS ? ORT_OPTIONAL : ORT_REQUIRED;
}

static const OrtCustomOp row_product = {
    OPERATOR,
    .get_name = row_name,
    .get_input_count = row_inputs,
    .get_input_type = row_takes,
    .get_input_need = row_needs,
    .get_output_count = one,
    .get_output_type = all_float,
    .create_kernel_or_fail = row_create,
    .compute_or_fail = row_compute,
    .destroy = row_destroy,
};
