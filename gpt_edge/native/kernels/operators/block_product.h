/* BlockProduct: y = f(bias + sum over blocks of x_scale * w_scale * (q(x) (W - zero))), f GELU or
 * nothing.
 *
 * The same function as MatMulNBits of 8 and 4 bits at accuracy level 4, on weights in the layout of
 * the file, sixteen outputs at once. A block's sum is an integer, and blocks are added in order, so
 * a row's result is bit-identical alone and among others.
 */
#pragma once

#include "block_operands.h"
#ifdef TILES
#include "block_tiles.h"
#endif
#include "block_many.h"
#include "block_few.h"

enum { BLOCK_X, BLOCK_W, BLOCK_SCALE, BLOCK_BIAS, BLOCK_INPUTS };

static OrtStatus *block_create(const OrtCustomOp *op, OrtApi api, const OrtInfo *info, void **out) {
    (void)op;
    Tensor w, scale, bias = {0};
    int64_t threads, depth, width, block, bits, has_bias, activation;
    TRY(ORT_INT(api)(info, "threads", &threads));
    TRY(ORT_INT(api)(info, "depth", &depth));
    TRY(ORT_INT(api)(info, "width", &width));
    TRY(ORT_INT(api)(info, "block", &block));
    TRY(ORT_INT(api)(info, "bits", &bits));
    TRY(ORT_INT(api)(info, "has_bias", &has_bias));
    TRY(ORT_INT(api)(info, "activation", &activation));
    TRY(read_constant(api, info, BLOCK_W, &w));
    TRY(read_constant(api, info, BLOCK_SCALE, &scale));
    if (has_bias) TRY(read_constant(api, info, BLOCK_BIAS, &bias));
    if (block < TILE || block & (block - 1) || depth % block || width < TILE)
        return fail(api, "BlockProduct: W must be [16 or more, K], in blocks of a power of two");
    if (count(&w) != depth * width * bits / 8 || count(&scale) != width * (depth / block) ||
        (has_bias && count(&bias) != width))
        return fail(api, "BlockProduct: W, its scales and the bias must fit N, K and the blocks");
    BlockProduct *self = malloc(sizeof *self);
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
        .activation = (int)activation,
    };
    *out = self;
    return NULL;
}

/* call: self, x, y and rows. */
static OrtStatus *multiply_any(OrtContext *context, BlockCall *call) {
    const BlockProduct *self = call->self;
    const int64_t padded = round_up(self->depth, UNIT);
    /* a few rows read weights as they are: to pack those would take longer */
    const int64_t few = self->bits == 4 ? FEW_4_BITS : FEW_8_BITS;
    call->n_padded = call->rows <= few ? call->rows : round_up(call->rows, BLOCK_TILE);
    const int64_t n_scales = round_up(self->n_groups * call->n_padded, LANES);
    call->scales = take_scratch((size_t)(n_scales * 8 + call->n_padded * padded * X_SIZE));
    if (!call->scales) return fail(self->base.api, "BlockProduct: out of memory");
    call->corrections = (int32_t *)(call->scales + n_scales);
    call->q = (uint8_t *)(call->corrections + n_scales);
    OrtStatus *status =
        call->rows <= few ? multiply_few_rows(context, call) : multiply_blocks(context, call);
    give_scratch(call->scales);
    return !status && call->failed ? fail(self->base.api, "BlockProduct: out of memory") : status;
}

static OrtStatus *block_compute(void *kernel, OrtContext *context) {
    const BlockProduct *self = kernel;
    OrtApi api = self->base.api;
    Tensor x;
    TRY(read_input(api, context, BLOCK_X, &x));
    BlockCall call = {.self = self, .x = x.data, .rows = rows_of(&x, self->depth)};
    if (call.rows < 0) return fail(api, "BlockProduct: x must be [.., K]");
    x.dims[x.rank - 1] = self->width;
    TRY(make_output(api, context, 0, x.dims, x.rank, (void **)&call.y));
    return call.rows == 0 ? NULL : multiply_any(context, &call);
}

static const char *block_name(const OrtCustomOp *op) { return (void)op, "BlockProduct"; }
static size_t block_inputs(const OrtCustomOp *op) { return (void)op, BLOCK_INPUTS; }
static int block_takes(const OrtCustomOp *op, size_t i) {
    return (void)op, i == BLOCK_W ? ORT_UINT8 : ORT_FLOAT32;
}
static int block_needs(const OrtCustomOp *op, size_t i) {
    return (void)op, i == BLOCK_BIAS ? ORT_OPTIONAL : ORT_REQUIRED;
}

static const OrtCustomOp block_product = {
    OPERATOR,
    .get_name = block_name,
    .get_input_count = block_inputs,
    .get_input_type = block_takes,
    .get_input_need = block_needs,
    .get_output_count = one,
    .get_output_type = all_float,
    .create_kernel_or_fail = block_create,
    .compute_or_fail = block_compute,
    .destroy = free,
};
