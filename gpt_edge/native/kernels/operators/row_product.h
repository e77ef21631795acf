/* RowProduct: y = f(bias + scale * (q(x) W)), x quantized to 8 bits with one scale for each row, W
 * signed 8-bit [K, N], f GELU or nothing.
 *
 * One operator for the seven of a bundle of scheme int8: the same roundings, integer sums, two
 * multiplications and addition, so without GELU the results are bit-identical. A row's result does not depend on
 * its neighbours. Weights are read from the mapped file. A few rows read them in that layout, split
 * along K; more rows pack 64 columns at a time and use them for every row.
 */
#pragma once

#include "row_operands.h"
#include "row_many.h"

enum { ROW_X, ROW_W, ROW_SCALE, ROW_BIAS, ROW_INPUTS };
enum { FEW = 12 }; /* rows; more are worth the packing of row_many.h */

/* A few rows times the part-th fraction of the rows of W, sixteen of those at a time, to sums
 * [part][row][N]. The sums' order of columns is undone by `collect`: once for each output, not for
 * each row of W.
 */
static void accumulate_few_rows(void *data, size_t part) {
    const RowCall *call = data;
    const RowProduct *self = call->self;
    const int64_t n_groups = round_up(self->depth, 16) / 16, n_rows = call->rows;
    const int64_t stride = self->width, sums_stride = round_up(stride, COLUMNS);
    const int64_t first = n_groups * (int64_t)part / call->parts;
    const int64_t end = n_groups * ((int64_t)part + 1) / call->parts;
    const int64_t padded = round_up(self->depth, UNIT);
    int32_t *sums = call->sums + (int64_t)part * n_rows * sums_stride;
    memset(sums, 0, (size_t)(n_rows * sums_stride) * sizeof *sums);
    for (int64_t group = first; group < end; group++) {
        /* the last sixteen rows of W overlap those before, where 16 do not divide the depth */
        const int64_t k = (group + 1) * 16 > self->depth ? self->depth - 16 : group * 16;
        const int8_t *w = self->weights + k * stride;
        FewX x[FEW];
        for (int64_t row = 0; row < n_rows; row++)
            few_x(&x[row], call->q + row * padded + group * 16);
        for (int64_t i = 0; i * COLUMNS < stride; i++) {
            const int64_t n = first_column(self, i);
            /* of the next sixteen rows as much as is read of these, in the order of memory */
            const int8_t *next = w + 16 * stride + 16 * COLUMNS * i;
            UNROLL
            for (int line = 0; line < 16; line++) PREFETCH_FAR(next + COLUMNS * line);
            if (n_rows == 1)
                few_product(w + n, stride, x, 1, sums_stride, sums + i * COLUMNS);
            else
                few_product(w + n, stride, x, n_rows, sums_stride, sums + i * COLUMNS);
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

/* Add up the sums of all parts for the i-th 64 columns, in the order of columns. */
static inline void collect(const RowCall *call, int64_t row, int64_t i, Ints sums[4]) {
    const int64_t stride = round_up(call->self->width, COLUMNS);
    for (int j = 0; j < 4; j++) {
        const int32_t *partial = call->sums + row * stride + i * COLUMNS + LANES * j;
        sums[j] = i_load(partial);
        for (int64_t part = 1; part < call->parts; part++)
            sums[j] = i_add(sums[j], i_load(partial + part * call->rows * stride));
    }
    few_order(sums);
}

/* Memory of `parts` times `rows` sums, with the quantized rows behind them. */
static OrtStatus *take_few(RowCall *call) {
    const int64_t padded = round_up(call->self->depth, UNIT);
    const size_t sums_size =
        (size_t)(call->parts * call->rows * round_up(call->self->width, COLUMNS)) * sizeof(int32_t);
    call->sums = take_scratch(sums_size + (size_t)(call->rows * padded));
    if (!call->sums) return fail(call->self->base.api, "RowProduct: out of memory");
    call->q = (uint8_t *)call->sums + sums_size;
    return NULL;
}

/* The corrections: zero point times the sum of each column, which is W times a row of ones. */
static OrtStatus *sum_columns(RowProduct *self) {
    RowCall call = {.self = self, .rows = 1, .parts = 1};
    TRY(take_few(&call));
    memset(call.q, X_OFFSET + 1, (size_t)self->depth);
    shift_tail(self, call.q);
    accumulate_few_rows(&call, 0);
    for (int64_t i = 0; i * COLUMNS < self->width; i++) {
        Ints sums[4];
        collect(&call, 0, i, sums);
        for (int j = 0; j < 4; j++)
            i_store(self->corrections + first_column(self, i) + LANES * j,
                    i_mul(sums[j], i_all(self->zero_point - X_OFFSET)));
    }
    give_scratch(call.sums);
    return NULL;
}

static OrtStatus *multiply_few(OrtContext *context, RowCall *call) {
    const RowProduct *self = call->self;
    const int64_t padded = round_up(self->depth, UNIT);
    call->parts = self->base.threads;
    TRY(take_few(call));
    float scales[FEW];
    for (int64_t row = 0; row < call->rows; row++) {
        uint8_t *q = call->q + row * padded;
        scales[row] = quantize_row(self, call->x + row * self->depth, q);
        shift_tail(self, q);
    }
    OrtStatus *status =
        in_parallel(&self->base, context, accumulate_few_rows, (size_t)call->parts, call);
    for (int64_t row = 0; row < call->rows; row++)
        for (int64_t i = 0; i * COLUMNS < self->width; i++) {
            Ints sums[4];
            collect(call, row, i, sums);
            for (int j = 0; j < 4; j++)
                finish(self, sums[j], scales[row], first_column(self, i) + LANES * j,
                       call->y + row * self->width);
        }
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
