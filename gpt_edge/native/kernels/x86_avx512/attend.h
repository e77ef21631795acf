/* Attention of one head: attention.c fills in a Head, attend.c computes it. */
#pragma once

#include <stdint.h>

#include "vector.h"

enum { ROWS = 4 }; /* queries at once */

typedef struct {
    const float *queries;
    const char *keys, *values; /* of one head: rows of D numbers, key_stride bytes apart */
    float *out;
    int64_t query_stride, key_stride, out_stride;
    int64_t size;             /* D */
    int64_t position, window; /* of the first query */
    float scale;
    int is_half; /* keys and values are float16 */
} Head;

/* Compute ROWS queries, or one. scores: [ROWS, width], width a multiple of 16 above the last
 * position. Returns 0 for an unsupported head size, else 1.
 */
int attend(const Head *head, int is_four, float *scores, int64_t width);
