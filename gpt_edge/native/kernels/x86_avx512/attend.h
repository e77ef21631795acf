/* Attention of one head: what attention.c lays out and attend.c computes. */
#pragma once

#include <stdint.h>

#include "vector.h"

enum { ROWS = 4 }; /* queries at once */

typedef struct {
    const float *queries;
    const char *keys, *values; /* of one head: rows of D numbers, every so many bytes */
    float *out;
    int64_t query_stride, key_stride, out_stride;
    int64_t size;             /* D */
    int64_t position, window; /* of the first query */
    float scale;
    int is_half;              /* keys and values are float16 */
} Head;

/* ROWS queries, or one. scores: [ROWS, width], width a multiple of 16 that the last position fits into. 0 for a head of
 * a size that it does not know.
 */
int attend(const Head *head, int is_four, float *scores, int64_t width);
