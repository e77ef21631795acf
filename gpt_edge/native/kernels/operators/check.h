/* Numbers for the checks of operators, and a hash of what they make of them (see body.h). The same
 * numbers everywhere; few rows and many, sizes that fill vectors and sizes that do not.
 */
#pragma once

typedef struct {
    uint64_t state, hash;
} Check;

/* Xorshift (Marsaglia 2003). */
static uint32_t next_number(Check *check) {
    check->state ^= check->state << 13;
    check->state ^= check->state >> 7;
    check->state ^= check->state << 17;
    return (uint32_t)(check->state >> 32);
}

/* n floats, between -4 and 4 and some of other sizes. */
static float *some_floats(Check *check, int64_t n) {
    float *x = malloc((size_t)n * sizeof *x);
    for (int64_t i = 0; x && i < n; i++) {
        x[i] = (float)((int32_t)next_number(check) >> 8) * (1.0f / (1 << 21));
        if (i % 37 == 5) x[i] *= 1e-3f;
    }
    return x;
}

static uint8_t *some_bytes(Check *check, int64_t n) {
    uint8_t *bytes = malloc((size_t)n);
    for (int64_t i = 0; bytes && i < n; i++) bytes[i] = (uint8_t)next_number(check);
    return bytes;
}

/* FNV-1a (Fowler, Noll, Vo), a word at a time. */
static void add_to_hash(Check *check, const void *data, int64_t n_words) {
    const uint32_t *words = data;
    for (int64_t i = 0; i < n_words; i++) check->hash = (check->hash ^ words[i]) * 0x100000001b3u;
}
