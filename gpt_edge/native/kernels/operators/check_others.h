/* The check of the operators without integer products. */
#pragma once

#include "check.h"

static void check_norm(Check *check, int64_t width) {
    enum { N_ROWS = 3 };
    float *x = some_floats(check, N_ROWS * width), *skip = some_floats(check, width);
    float *gamma = some_floats(check, width), *beta = some_floats(check, width);
    float *y = malloc((size_t)(N_ROWS * width) * sizeof *y), *sum = malloc(sizeof *y * N_ROWS *
                                                                           (size_t)width);
    const SkipNorm self = {{NULL, 1}, gamma, beta, width % 32 ? gamma : NULL, width, 1e-5f};
    NormCall call = {&self, x, skip, y, sum, N_ROWS, N_ROWS, 1};
    normalize_span(&call, 0);
    add_to_hash(check, y, N_ROWS * width);
    add_to_hash(check, sum, N_ROWS * width);
    free(x), free(skip), free(gamma), free(beta), free(y), free(sum);
}

/* Five tokens behind 70, of two heads. */
static void check_attention(Check *check, int64_t size, int64_t window, int is_half) {
    enum { HEADS = 2, LENGTH = 5, PAST = 70, CAPACITY = 80 };
    const int64_t width = HEADS * size, n_cache = width * CAPACITY;
    float *qkv = some_floats(check, (PAST + LENGTH) * 3 * width);
    float *out = malloc((size_t)(PAST * width) * sizeof *out);
    char *keys = calloc((size_t)n_cache, 4), *values = calloc((size_t)n_cache, 4);
    const Attention self = {{NULL, 1}, HEADS, window, 0.125f, 1, is_half};
    const int64_t lengths[] = {PAST, LENGTH};
    int64_t past = 0;
    for (int i = 0; i < 2; i++) {
        const int32_t last = (int32_t)(past + lengths[i] - 1);
        AttentionCall call = {.self = &self,
                              .qkv = qkv + past * 3 * width,
                              .out = out,
                              .keys = keys,
                              .values = values,
                              .last = &last,
                              .batch = 1,
                              .length = lengths[i],
                              .capacity = CAPACITY,
                              .size = size,
                              .total = last + 1};
        for (size_t head = 0; head < HEADS; head++) append_head(&call, head);
        const size_t n_spans = (size_t)((lengths[i] + SPAN - 1) / SPAN);
        for (size_t span = 0; span < HEADS * n_spans; span++) attend_span(&call, span);
        add_to_hash(check, out, lengths[i] * width);
        past += lengths[i];
    }
    add_to_hash(check, keys, n_cache / (is_half ? 2 : 1));
    free(qkv), free(out), free(keys), free(values);
}

static void check_gelu(Check *check, int64_t width, int activation) {
    enum { N_ROWS = 3 };
    float *x = some_floats(check, N_ROWS * width), *bias = some_floats(check, width);
    for (int64_t i = 0; i < N_ROWS * width; i += 3) x[i] *= 4; /* where one side is nearly 0 */
    const Gelu self = {{NULL, 1}, width % 32 ? bias : NULL, width, activation};
    GeluCall call = {&self, x, x, N_ROWS, width};
    gelu_span(&call, 0);
    add_to_hash(check, x, N_ROWS * width);
    free(x), free(bias);
}

static void check_float_product(Check *check, int64_t depth, int64_t width) {
    float *x = some_floats(check, depth), *weights = some_floats(check, depth * width);
    float *bias = some_floats(check, width), *y = malloc((size_t)width * sizeof *y);
    const FloatProduct self = {{NULL, 1}, weights, bias, depth, width};
    FloatCall call = {&self, x, y};
    multiply_floats(&call, 0);
    add_to_hash(check, y, width);
    free(x), free(weights), free(bias), free(y);
}

static uint64_t check_others(void) {
    Check check = {0x9e3779b97f4a7c15u, 0xcbf29ce484222325u};
    check_norm(&check, 96);
    check_norm(&check, 75);
    const int64_t sizes[] = {20, 64, 80, 128};
    for (int i = 0; i < 4; i++) {
        check_attention(&check, sizes[i], i % 2 ? 9 : -1, 0);
        check_attention(&check, sizes[i], i % 2 ? -1 : 9, 1);
    }
    for (int activation = GELU_TANH; activation <= GELU_ERF; activation++) {
        check_gelu(&check, 96, activation);
        check_gelu(&check, 75, activation);
    }
    check_float_product(&check, 96, 77);
    check_float_product(&check, 75, 3);
    return check.hash;
}
