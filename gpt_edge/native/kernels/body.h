/* A body: all operators, compiled for one set of instructions. All bodies give the same bits. */
#pragma once

#include "ort.h"

enum { N_PRODUCTS = 2, N_OTHERS = 6 };

typedef struct {
    const OrtCustomOp *operators[N_OTHERS]; /* what has no integer products */
    uint64_t (*check)(void);                /* see operators/check.h */
} Others;

typedef struct {
    const char *name;
    const OrtCustomOp *products[N_PRODUCTS];
    uint64_t (*check)(void);
    const Others *others; /* bodies with the same vectors share them */
} Body;

/* The hashes of a right body. */
static const uint64_t PRODUCTS_HASH = 0xd8e711253944f279u;
static const uint64_t OTHERS_HASH = 0xf51dec48f9bbee36u;

extern const Others others_scalar, others_avx2, others_avx512, others_neon;
extern const Body body_scalar, body_avx2, body_avxvnni, body_avx512, body_amx;
extern const Body body_neon, body_dotprod, body_i8mm;
