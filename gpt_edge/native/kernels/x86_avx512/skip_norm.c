/* SkipNorm: the sum of a block's output, its bias and its input, and the layer normalization of
 * that sum (Ba 2016).
 */
#include <math.h>

#include "operators.h"
#include "vector.h"

enum { X, SKIP, GAMMA, BETA, BIAS, N_INPUTS };
enum { SPAN = 16 }; /* rows of one task */

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
} Call;

static OrtStatus *create(const OrtCustomOp *op, OrtApi api, const OrtInfo *info, void **out) {
    (void)op;
    Tensor gamma, beta, bias = {0};
    int64_t threads, has_bias;
    float epsilon;
    TRY(ORT_INT(api)(info, "threads", &threads));
    TRY(ORT_INT(api)(info, "has_bias", &has_bias));
    TRY(ORT_FLOAT(api)(info, "epsilon", &epsilon));
    TRY(read_constant(api, info, GAMMA, &gamma));
    TRY(read_constant(api, info, BETA, &beta));
    if (has_bias) TRY(read_constant(api, info, BIAS, &bias));
    if (gamma.rank != 1 || gamma.dims[0] % 16)
        return fail(api, "SkipNorm: rows must be multiples of 16");
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
    __m512 total = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (int64_t i = 0; i < self->width; i += 16) {
        __m512 v = _mm512_add_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(skip + i));
        if (self->bias) v = _mm512_add_ps(v, _mm512_loadu_ps(self->bias + i));
        _mm512_storeu_ps(sum + i, v);
        total = _mm512_add_ps(total, v);
    }
    const float width = (float)self->width, mean = _mm512_reduce_add_ps(total) / width;
    const __m512 centre = _mm512_set1_ps(mean);
    for (int64_t i = 0; i < self->width; i += 16) {
        const __m512 v = _mm512_sub_ps(_mm512_loadu_ps(sum + i), centre);
        squares = _mm512_fmadd_ps(v, v, squares);
    }
    const __m512 inverse =
        _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / width + self->epsilon));
    for (int64_t i = 0; i < self->width; i += 16) {
        const __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(sum + i), centre), inverse);
        const __m512 scaled =
            _mm512_fmadd_ps(v, _mm512_loadu_ps(self->gamma + i), _mm512_loadu_ps(self->beta + i));
        _mm512_storeu_ps(y + i, scaled);
    }
}

static void normalize_span(void *data, size_t span) {
    const Call *call = data;
    const int64_t first = (int64_t)span * SPAN;
    const int64_t end = first + SPAN < call->rows ? first + SPAN : call->rows;
    for (int64_t row = first; row < end; row++) {
        const int64_t width = call->self->width;
        normalize(call->self, call->x + row % call->x_rows * width,
                  call->skip + row % call->skip_rows * width, call->y + row * width,
                  call->sum + row * width);
    }
}

static OrtStatus *compute(void *kernel, OrtContext *context) {
    const SkipNorm *self = kernel;
    OrtApi api = self->base.api;
    Tensor x, skip;
    TRY(read_input(api, context, X, &x));
    TRY(read_input(api, context, SKIP, &skip));
    const int64_t x_rows = rows_of(&x, self->width), skip_rows = rows_of(&skip, self->width);
    const int is_x = x_rows != skip_rows ? x_rows > skip_rows : x.rank >= skip.rank;
    const Tensor *larger = is_x ? &x : &skip;
    const int64_t rows = is_x ? x_rows : skip_rows, fewer = is_x ? skip_rows : x_rows;
    if (fewer < 0 || (fewer ? rows % fewer : rows))
        return fail(api, "SkipNorm: x and skip must be [.., C], one repeated");
    Call call = {self, x.data, skip.data, NULL, NULL, rows, x_rows, skip_rows};
    TRY(make_output(api, context, 0, larger->dims, larger->rank, (void **)&call.y));
    TRY(make_output(api, context, 1, larger->dims, larger->rank, (void **)&call.sum));
    return in_parallel(&self->base, context, normalize_span, (size_t)((rows + SPAN - 1) / SPAN),
                       &call);
}

static const char *name(const OrtCustomOp *op) { return (void)op, "SkipNorm"; }
static size_t n_inputs(const OrtCustomOp *op) { return (void)op, N_INPUTS; }
static size_t two(const OrtCustomOp *op) { return (void)op, 2; }
static int is_needed(const OrtCustomOp *op, size_t i) {
    return (void)op, i == BIAS ? ORT_OPTIONAL : ORT_REQUIRED;
}

const OrtCustomOp skip_norm = {
    OPERATOR,
    .get_name = name,
    .get_input_count = n_inputs,
    .get_input_type = all_float,
    .get_input_need = is_needed,
    .get_output_count = two,
    .get_output_type = all_float,
    .create_kernel_or_fail = create,
    .compute_or_fail = compute,
    .destroy = free,
};
