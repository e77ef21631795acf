/* SkipNorm: the sum of a block's output, its bias and its input, and the layer normalization of
 * that sum (Ba 2016).
 */
#pragma once

enum { NORM_X, NORM_SKIP, NORM_GAMMA, NORM_BETA, NORM_BIAS, NORM_INPUTS };
enum { NORM_SPAN = 16 }; /* rows of one task */

typedef struct {
    Kernel base;
    const float *gamma, *beta, *bias;
    int64_t width;
    float epsilon;
} SkipNorm;

typedef struct {
    const SkipNorm *self;
    const float *x, *skip;
    float *y, *sum;
    int64_t rows, x_rows, skip_rows; /* the shorter of the two is repeated */
} NormCall;

static OrtStatus *norm_create(const OrtCustomOp *op, OrtApi api, const OrtInfo *info, void **out) {
    (void)op;
    Tensor gamma, beta, bias = {0};
    int64_t threads, has_bias;
    float epsilon;
    TRY(ORT_INT(api)(info, "threads", &threads));
    TRY(ORT_INT(api)(info, "has_bias", &has_bias));
    TRY(ORT_FLOAT(api)(info, "epsilon", &epsilon));
    TRY(read_constant(api, info, NORM_GAMMA, &gamma));
    TRY(read_constant(api, info, NORM_BETA, &beta));
    if (has_bias) TRY(read_constant(api, info, NORM_BIAS, &bias));
    if (gamma.rank != 1) return fail(api, "SkipNorm: gamma must be [C]");
    if (count(&beta) != gamma.dims[0] || (has_bias && count(&bias) != gamma.dims[0]))
        return fail(api, "SkipNorm: gamma, beta and the bias must have one length");
    SkipNorm *self = malloc(sizeof *self);
    if (!self) return fail(api, "SkipNorm: out of memory");
    *self = (SkipNorm){{api, threads}, gamma.data, beta.data, bias.data, gamma.dims[0], epsilon};
    *out = self;
    return NULL;
}

static void normalize(const SkipNorm *self, const float *x, const float *skip, float *y,
                      float *sum) {
    const int64_t n = self->width;
    Floats total = f_all(0), squares = f_all(0);
    for (int64_t i = 0; i < n; i += LANES) {
        Floats v = f_add(load_some(x + i, n - i), load_some(skip + i, n - i));
        if (self->bias) v = f_add(v, load_some(self->bias + i, n - i));
        store_some(sum + i, v, n - i);
        total = f_add(total, v);
    }
    const float width = (float)n, mean = f_sum(total) / width;
    const Floats centre = f_all(mean);
    for (int64_t i = 0; i < n; i += LANES) {
        Floats v = f_sub(load_some(sum + i, n - i), centre);
        if (n - i < LANES) v = f_lanes(v, 0, (int)(n - i), f_all(0));
        squares = f_fma(v, v, squares);
    }
    const Floats inverse = f_all(1.0f / sqrtf(f_sum(squares) / width + self->epsilon));
    for (int64_t i = 0; i < n; i += LANES) {
        const Floats v = f_mul(f_sub(load_some(sum + i, n - i), centre), inverse);
        const Floats gamma = load_some(self->gamma + i, n - i);
        store_some(y + i, f_fma(v, gamma, load_some(self->beta + i, n - i)), n - i);
    }
}

static void normalize_span(void *data, size_t span) {
    const NormCall *call = data;
    const int64_t first = (int64_t)span * NORM_SPAN;
    const int64_t end = first + NORM_SPAN < call->rows ? first + NORM_SPAN : call->rows;
    for (int64_t row = first; row < end; row++) {
        const int64_t width = call->self->width;
        normalize(call->self, call->x + row % call->x_rows * width,
                  call->skip + row % call->skip_rows * width, call->y + row * width,
                  call->sum + row * width);
    }
}

static OrtStatus *norm_compute(void *kernel, OrtContext *context) {
    const SkipNorm *self = kernel;
    OrtApi api = self->base.api;
    Tensor x, skip;
    TRY(read_input(api, context, NORM_X, &x));
    TRY(read_input(api, context, NORM_SKIP, &skip));
    const int64_t x_rows = rows_of(&x, self->width), skip_rows = rows_of(&skip, self->width);
    const int is_x = x_rows != skip_rows ? x_rows > skip_rows : x.rank >= skip.rank;
    const Tensor *larger_one = is_x ? &x : &skip;
    const int64_t rows = is_x ? x_rows : skip_rows, fewer = is_x ? skip_rows : x_rows;
    if (fewer < 0 || (fewer ? rows % fewer : rows))
        return fail(api, "SkipNorm: x and skip must be [.., C], one repeated");
    NormCall call = {self, x.data, skip.data, NULL, NULL, rows, x_rows, skip_rows};
    TRY(make_output(api, context, 0, larger_one->dims, larger_one->rank, (void **)&call.y));
    TRY(make_output(api, context, 1, larger_one->dims, larger_one->rank, (void **)&call.sum));
    return in_parallel(&self->base, context, normalize_span,
                       (size_t)(round_up(rows, NORM_SPAN) / NORM_SPAN), &call);
}

static const char *norm_name(const OrtCustomOp *op) { return (void)op, "SkipNorm"; }
static size_t norm_inputs(const OrtCustomOp *op) { return (void)op, NORM_INPUTS; }
static size_t norm_outputs(const OrtCustomOp *op) { return (void)op, 2; }
static int norm_needs(const OrtCustomOp *op, size_t i) {
    return (void)op, i == NORM_BIAS ? ORT_OPTIONAL : ORT_REQUIRED;
}

static const OrtCustomOp skip_norm = {
    OPERATOR,
    .get_name = norm_name,
    .get_input_count = norm_inputs,
    .get_input_type = all_float,
    .get_input_need = norm_needs,
    .get_output_count = norm_outputs,
    .get_output_type = all_float,
    .create_kernel_or_fail = norm_create,
    .compute_or_fail = norm_compute,
    .destroy = free,
};
