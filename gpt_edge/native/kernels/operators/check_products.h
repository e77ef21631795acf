/* The check of RowProduct and BlockProduct. */
#pragma once

#include "check.h"

static void check_row_product(Check *check, int64_t depth, int64_t width, int is_symmetric,
                              int activation) {
    enum { N_ROWS = 21 };
    float *x = some_floats(check, N_ROWS * depth), *scales = some_floats(check, width);
    float *bias = some_floats(check, width), *y = malloc((size_t)(N_ROWS * width) * sizeof *y);
    uint8_t *weights = some_bytes(check, depth * width);
    int32_t *corrections = malloc((size_t)width * sizeof *corrections);
    RowProduct self = {.base = {NULL, 1},
                       .weights = (int8_t *)weights,
                       .scales = scales,
                       .bias = is_symmetric ? NULL : bias,
                       .corrections = corrections,
                       .depth = depth,
                       .width = width,
                       .zero_point = is_symmetric ? 128 : 17,
                       .high = is_symmetric ? 1.0f / 127 : 1.0f / 238,
                       .low = is_symmetric ? 0 : -1.0f / 17,
                       .is_symmetric = is_symmetric,
                       .activation = activation};
    sum_columns(&self);
    const int64_t parts[] = {1, 3, 17};
    for (int i = 0; i < 3; i++) {
        RowCall call = {.self = &self, .x = x + i * depth, .y = y, .rows = parts[i]};
        if (i == 0) multiply_one(NULL, &call);
        else if (i == 1) multiply_few(NULL, &call);
        else multiply_many(NULL, &call);
        add_to_hash(check, y, parts[i] * width);
    }
    free(x), free(scales), free(bias), free(y), free(weights), free(corrections);
}

static void check_block_product(Check *check, int64_t depth, int64_t width, int64_t block,
                                int64_t bits) {
    enum { N_ROWS = 20 };
    float *x = some_floats(check, N_ROWS * depth), *bias = some_floats(check, width);
    float *scales = some_floats(check, width * depth / block);
    float *y = malloc((size_t)(N_ROWS * width) * sizeof *y);
    uint8_t *weights = some_bytes(check, depth * width * bits / 8);
    const int64_t group = block < UNIT ? block : UNIT;
    BlockProduct self = {.base = {NULL, 1},
                         .weights = weights,
                         .scales = scales,
                         .bias = block == 32 ? NULL : bias,
                         .depth = depth,
                         .width = width,
                         .block = block,
                         .bits = bits,
                         .group = group,
                         .n_blocks = depth / block,
                         .n_groups = depth / group,
                         .row_size = depth * bits / 8,
                         .activation = block == 16 ? GELU_TANH : NO_ACTIVATION};
    const int64_t n_rows[] = {1, 3, 18};
    for (int i = 0; i < 3; i++) {
        BlockCall call = {.self = &self, .x = x + i * depth, .y = y, .rows = n_rows[i]};
        multiply_any(NULL, &call);
        add_to_hash(check, y, n_rows[i] * width);
    }
    free(x), free(bias), free(scales), free(y), free(weights);
}

static uint64_t check_products(void) {
    Check check = {0x9e3779b97f4a7c15u, 0xcbf29ce484222325u};
    check_row_product(&check, 128, 192, 1, NO_ACTIVATION);
    check_row_product(&check, 1100, 100, 0, GELU_TANH);
    check_row_product(&check, 64, 80, 0, GELU_ERF);
    static const int64_t shapes[][2] = {{16, 208}, {32, 224}, {64, 192}, {128, 256}};
    for (int i = 0; i < 4; i++)
        for (int64_t bits = 4; bits <= 8; bits += 4)
            check_block_product(&check, shapes[i][1], 37, shapes[i][0], bits);
    return check.hash;
}
