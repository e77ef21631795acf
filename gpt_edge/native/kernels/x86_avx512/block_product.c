/* BlockProduct: y = bias + sum over blocks of x_scale * w_scale * (q(x) (W - zero)).
 *
 * The same function as MatMulNBits of 8 and 4 bits at accuracy level 4, on weights in the layout of
 * the file, sixteen outputs at once; many rows use AMX tiles, if the CPU has them. A block's sum is
 * an integer, and blocks are added in order, so a row's result is bit-identical alone and among
 * others.
 */
#include "../scratch.h"
#include "block_dot.h"
#include "block_operands.h"
#include "block_product_many.h"
#include "operators.h"

enum { X, W, W_SCALE, BIAS, N_INPUTS };

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
        return fail(api,
                    "BlockProduct: W must be [16 or more, 64 k], in blocks of 16 k that divide it");
    if (count(&w) != depth * width * bits / 8 || count(&scale) != width * (depth / block) ||
        (has_bias && count(&bias) != width))
        return fail(api, "BlockProduct: W, its scales and the bias must fit N, K and the blocks");
    BlockProduct *self = aligned_alloc(64, (sizeof *self + 63) / 64 * 64);
    if (!self) return fail(api, "BlockProduct: out of memory");
    const int64_t group = block < UNIT ? block : UNIT;
    *self = (BlockProduct){
        .base = {api, threads},
        .weights = w.data,
        .scales = scale.data,
        .bias = bias.data,
        .depth = depth,
        .width = width,
        .block = block,
        .bits = bits,
        .group = group,
        .n_blocks = depth / block,
        .n_groups = depth / group,
        .row_size = depth * bits / 8,
    };
    int64_t words[8], shifts[8]; /* see expand */
    for (int i = 0; i < 8; i++) {
        const int n_words = (int)group / 8, word = i % n_words;
        words[i] = i / n_words * (n_words / 2) + word % (n_words / 2);
        shifts[i] = word < n_words / 2 ? 0 : 4;
    }
    self->words = _mm512_loadu_si512(words);
    self->shifts = _mm512_loadu_si512(shifts);
    *out = self;
    return NULL;
}

/* The part-th fraction of the outputs of one row. */
static void multiply_row(void *data, size_t part) {
    BlockCall *call = data;
    const BlockProduct *self = call->self;
    const int64_t n_tiles = (self->width + TILE - 1) / TILE;
    const int64_t first = n_tiles * (int64_t)part / call->parts;
    const int64_t end = n_tiles * ((int64_t)part + 1) / call->parts;
    const Row row = {call->tiles, call->scales, call->corrections, 1};
    float *scales = take_scratch((size_t)(self->n_blocks * TILE) * sizeof(float));
    if (!scales) {
        call->failed = 1;
        return;
    }
    for (int64_t tile = first; tile < end; tile++) {
        const int64_t n = (tile + 1) * TILE > self->width ? self->width - TILE : tile * TILE;
        gather_scales(self, n, scales);
        const uint8_t *w = self->weights + n * self->row_size;
        __m512 total = dot_sixteen(self, w, self->row_size, (int)self->bits, &row, scales, 1);
        if (self->bias) total = _mm512_add_ps(total, _mm512_loadu_ps(self->bias + n));
        _mm512_storeu_ps(call->y + n, total);
    }
    give_scratch(scales);
}

static OrtStatus *multiply_one(OrtContext *context, BlockCall *call) {
    const BlockProduct *self = call->self;
    quantize_blocks(self, call->x, call->tiles, call->scales, call->corrections, 1);
    call->parts = 2 * self->base.threads;
    return in_parallel(&self->base, context, multiply_row, (size_t)call->parts, call);
}

static OrtStatus *compute(void *kernel, OrtContext *context) {
    const BlockProduct *self = kernel;
    OrtApi api = self->base.api;
    Tensor x;
    TRY(read_input(api, context, X, &x));
    BlockCall call = {.self = self, .x = x.data, .rows = rows_of(&x, self->depth)};
    if (call.rows < 0) return fail(api, "BlockProduct: x must be [.., K]");
    x.dims[x.rank - 1] = self->width;
    TRY(make_output(api, context, 0, x.dims, x.rank, (void **)&call.y));
    if (call.rows == 0) return NULL;
    call.n_padded = call.rows == 1 ? 1 : (call.rows + TILE - 1) / TILE * TILE;
    const int64_t n_scales = (self->n_groups * call.n_padded + 15) / 16 * 16;
    call.scales = take_scratch((size_t)(n_scales * 8 + call.n_padded * self->depth));
    if (!call.scales) return fail(api, "BlockProduct: out of memory");
    call.corrections = (int32_t *)(call.scales + n_scales);
    call.tiles = (int8_t *)(call.corrections + n_scales);
    OrtStatus *status =
        call.rows == 1 ? multiply_one(context, &call) : multiply_tiles(context, &call);
    give_scratch(call.scales);
    return !status && call.failed ? fail(api, "BlockProduct: out of memory") : status;
}

static const char *name(const OrtCustomOp *op) { return (void)op, "BlockProduct"; }
static size_t n_inputs(const OrtCustomOp *op) { return (void)op, N_INPUTS; }
static int takes(const OrtCustomOp *op, size_t i) {
    return (void)op, i == W ? ORT_UINT8 : ORT_FLOAT32;
}
static int is_needed(const OrtCustomOp *op, size_t i) {
    return (void)op, i == BIAS ? ORT_OPTIONAL : ORT_REQUIRED;
}

const OrtCustomOp block_product = {
    OPERATOR,
    .get_name = name,
    .get_input_count = n_inputs,
    .get_input_type = takes,
    .get_input_need = is_needed,
    .get_output_count = one,
    .get_output_type = all_float,
    .create_kernel_or_fail = create,
    .compute_or_fail = compute,
    .destroy = free,
};
