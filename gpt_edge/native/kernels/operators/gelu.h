/* Gelu: y = GELU(x + bias), where it does not follow a product that applies it. */
#pragma once

enum { GELU_X, GELU_BIAS, GELU_INPUTS };
enum { GELU_SPAN = 16 }; /* rows of one task */

typedef struct {
    Kernel base;
    const float *bias; /* [C], or NULL */
    int64_t width;     /* of the bias; without one, 0: rows have the width that they come with */
    int activation;
} Gelu;

typedef struct {
    const Gelu *self;
    const float *x;
    float *y;
    int64_t rows, width;
} GeluCall;

static OrtStatus *gelu_create(const OrtCustomOp *op, OrtApi api, const OrtInfo *info, void **out) {
    (void)op;
    Tensor bias = {0};
    int64_t threads, has_bias, activation;
    TRY(ORT_INT(api)(info, "threads", &threads));
    TRY(ORT_INT(api)(info, "has_bias", &has_bias));
    TRY(ORT_INT(api)(info, "activation", &activation));
    if (has_bias) TRY(read_constant(api, info, GELU_BIAS, &bias));
    if (has_bias && bias.rank != 1) return fail(api, "Gelu: the bias must be [C]");
    Gelu *self = malloc(sizeof *self);
    if (!self) return fail(api, "Gelu: out of memory");
    *self = (Gelu){{api, threads}, bias.data, has_bias ? bias.dims[0] : 0, (int)activation};
    *out = self;
    return NULL;
}

static void gelu_span(void *data, size_t span) {
    const GeluCall *call = data;
    const Gelu *self = call->self;
    const int64_t first = (int64_t)span * GELU_SPAN, width = call->width;
    const int64_t end = first + GELU_SPAN < call->rows ? first + GELU_SPAN : call->rows;
    for (int64_t row = first; row < end; row++)
        for (int64_t i = 0; i < width; i += LANES) {
            Floats v = load_some(call->x + row * width + i, width - i);
            if (self->bias) v = f_add(v, load_some(self->bias + i, width - i));
            store_some(call->y + row * width + i, activate(self->activation, v), width - i);
        }
}

static OrtStatus *gelu_compute(void *kernel, OrtContext *context) {
    const Gelu *self = kernel;
    OrtApi api = self->base.api;
    Tensor x;
    TRY(read_input(api, context, GELU_X, &x));
    const int64_t width = x.rank ? x.dims[x.rank - 1] : 0;
    if (!x.rank || (self->bias && width != self->width))
        return fail(api, "Gelu: x must be [.., C]");
    GeluCall call = {self, x.data, NULL, rows_of(&x, width), width};
    TRY(make_output(api, context, 0, x.dims, x.rank, (void **)&call.y));
    return in_parallel(&self->base, context, gelu_span,
                       (size_t)(round_up(call.rows, GELU_SPAN) / GELU_SPAN), &call);
}

static const char *gelu_name(const OrtCustomOp *op) { return (void)op, "Gelu"; }
static size_t gelu_inputs(const OrtCustomOp *op) { return (void)op, GELU_INPUTS; }
static int gelu_needs(const OrtCustomOp *op, size_t i) {
    return (void)op, i == GELU_BIAS ? ORT_OPTIONAL : ORT_REQUIRED;
}

static const OrtCustomOp gelu = {
    OPERATOR,
    .get_name = gelu_name,
    .get_input_count = gelu_inputs,
    .get_input_type = all_float,
    .get_input_need = gelu_needs,
    .get_output_count = one,
    .get_output_type = all_float,
    .create_kernel_or_fail = gelu_create,
    .compute_or_fail = gelu_compute,
    .destroy = free,
};
