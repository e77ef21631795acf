/* The operators of this folder, one for each file that defines one. */
#pragma once

#include "../ort.h"

extern const OrtCustomOp row_product;
extern const OrtCustomOp block_product;
extern const OrtCustomOp skip_norm;
extern const OrtCustomOp cached_attention;
extern const OrtCustomOp half_cached_attention;
extern const OrtCustomOp plain_attention;
