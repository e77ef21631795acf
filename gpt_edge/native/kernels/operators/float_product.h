/* FloatProduct: y = x W + bias in float32, W [K, N]: the head of a classifier, a few hundred
 * columns at most. Products are added in the order of K, each rounded once with its sum.
 */
#pragma once

enum { FLOAT_X, FLOAT_W, FLOAT_BIAS, FLOAT_INPUTS };

typedef struct {
    Kernel base;
    const float *weights, *bias;
    int64_t depth, width;
} FloatProduct;

typedef struct {
    const FloatProduct *self;
    const float *x;
    float *y;
} FloatCall;

static OrtStatus *float_create(const OrtCustomOp *op, OrtApi api, const OrtInfo *info, void **out) {
    (void)op;
    Tensor w, bias;
    int64_t threads;
    TRY(ORT_INT(api)(info, "threads", &threads));
    TRY(read_constant(api, info, FLOAT_W, &w));
    TRY(read_constant(api, info, FLOAT_BIAS, &bias));
    if (w.rank != 2 || count(&bias) != w.dims[1])
        return fail(api, "FloatProduct: W must be [K, N] and the bias [N]");
    FloatProduct *self = malloc(sizeof *self);
    if (!self) return fail(api, "FloatProduct: out of memory");
    *self = (FloatProduct){{api, threads}, w.data, bias.data, w.dims[0], w.dims[1]};
    *out = self;
    return NULL;
}

static void multiply_floats(void *data, size_t row) {
    const FloatCall *call = data;
    const FloatProduct *self = call->self;
    const float *x = call->x + (int64_t)row * self->depth;
    for (int64_t n = 0; n < self->width; n += LANES) {
        const int64_t n_left = self->width - n;
        Floats total = f_all(0);
        for (int64_t k = 0; k < self->depth; k++) {
            const Floats w = load_some(self->weights + k * self->width + n, n_left);
            total = f_fma(f_all(x[k]), w, total);
        }
        total = f_add(total, load_some(self->bias + n, n_left));
        store_some(call->y + (int64_t)row * self->width + n, total, n_left);
    }
}

static OrtStatus *float_compute(void *kernel, OrtContext *context) {
    const FloatProduct *self = kernel;
    OrtApi api = self->base.api;
    Tensor x;
    TRY(read_input(api, context, FLOAT_X, &x));
    FloatCall call = {self, x.data, NULL};
    const int64_t rows = rows_of(&x, self->depth);
    if (rows < 0) return fail(api, "FloatProduct: x must be [.., K]");
    x.dims[x.rank - 1] = self->width;
    TRY(make_output(api, context, 0, x.dims, x.rank, (void **)&call.y));
    return in_parallel(&self->base, context, multiply_floats, (size_t)rows, &call);
}

static const char *float_name(const OrtCustomOp *op) { return (void)op, "FloatProduct"; }
static size_t float_inputs(const OrtCustomOp *op) { return (void)op, FLOAT_INPUTS; }

static const OrtCustomOp float_product = {
    OPERATOR,
    .get_name = float_name,
    .get_input_count = float_inputs,
    .get_input_type = all_float,
    .get_input_need = all_needed,
    .get_output_count = one,
    .get_output_type = all_float,
    .create_kernel_or_fail = float_create,
    .compute_or_fail = float_compute,
    .destroy = free,
};
