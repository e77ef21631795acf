/* Causal attention of one head, one query or four at a time. All scores of a row are kept, so
 * softmax needs no rescaling, and sums are accumulated in the order of positions, counted from the
 * first.
 */
#pragma once

enum { ROWS = 4 };        /* queries at once */
enum { MAX_VECTORS = 8 }; /* of a head */

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

/* The i-th sixteen numbers of a key or value of `size`, as floats. */
INLINE Floats load_any(const char *x, int64_t i, int64_t size, int is_half) {
    const int64_t n = size - LANES * i;
    if (!is_half) return load_some((const float *)x + LANES * i, n);
    const char *half = x + 2 * LANES * i;
    if (n >= LANES) return f_load_half(half);
    uint16_t some[LANES] = {0};
    memcpy(some, half, (size_t)n * sizeof *some);
    return f_load_half(some);
}

/* Products of one query of n vectors with the n_keys keys from j on; lanes past n_keys repeat the
 * last key.
 */
INLINE Floats dot_keys(const Head *head, const Floats *q, int64_t j, int64_t n_keys, int64_t size,
                       int n, int is_half) {
    Floats quarters[4];
    for (int four = 0; four < 4; four++) {
        Floats product[4];
        UNROLL
        for (int i = 0; i < 4; i++) {
            const int64_t k = 4 * four + i;
            const char *key = head->keys + (j + (k < n_keys ? k : n_keys - 1)) * head->key_stride;
            product[i] = f_mul(q[0], load_any(key, 0, size, is_half));
            UNROLL
            for (int v = 1; v < n; v++)
                product[i] = f_fma(q[v], load_any(key, v, size, is_half), product[i]);
        }
        quarters[four] = f_sum_quarters(product);
    }
    return f_sum_across(quarters);
}

/* Sixteen keys or values that come later, for a single query: it has little to compute meanwhile. */
INLINE void prefetch_later(const char *keys, int64_t key_stride, int n, int is_half) {
    const char *later = keys + 2 * LANES * key_stride;
    const int n_lines = n * LANES * (is_half ? 2 : 4) * LANES / 64;
    for (int line = 0; line < n_lines; line++) PREFETCH(later + 64 * line);
}

/* Write the weights e^(score - largest) of the keys from start to end for the r-th query of `rows`
 * to scores; return their sum, one partial sum in each lane.
 */
INLINE Floats weigh(const Head *head, int r, int rows, int64_t start, int64_t end, float *scores,
                    int64_t size, int n, int is_half) {
    const Floats never = f_all(-INFINITY);
    const int64_t own_end = head->position + r + 1; /* past the last key that it sees */
    const int64_t own_first = head->window > 0 && own_end > head->window ? own_end - head->window
                                                                         : 0;
    Floats q[MAX_VECTORS], largest = never, total = f_all(0);
    UNROLL
    for (int i = 0; i < n; i++)
        q[i] = load_some(head->queries + r * head->query_stride + LANES * i, size - LANES * i);
    for (int64_t j = start; j < end; j += LANES) {
        if (rows == 1)
            prefetch_later(head->keys + j * head->key_stride, head->key_stride, n, is_half);
        const Floats products = dot_keys(head, q, j, end - j, size, n, is_half);
        Floats s = f_mul(products, f_all(head->scale));
        if (own_first > j || own_end - j < LANES) {
            const int64_t first = own_first - j < LANES ? own_first - j : LANES;
            const int64_t last = own_end - j < LANES ? own_end - j : LANES;
            s = f_lanes(s, first > 0 ? (int)first : 0, last > 0 ? (int)last : 0, never);
        }
        f_store(scores + j, s);
        largest = f_max(largest, s);
    }
    const Floats row_max = f_all(f_largest(largest));
    for (int64_t j = start; j < end; j += LANES) {
        const Floats s = f_load(scores + j);
        const Floats weight = f_zero_where_equal(exp16(f_sub(s, row_max)), s, never);
        f_store(scores + j, weight);
        total = f_add(total, weight);
    }
    return total;
}

/* Add the values of keys first to end, weighed, for `rows` queries, in the n vectors from v on. */
INLINE void add_values(const Head *head, int rows, const float *scores, int64_t width,
                       int64_t first, int64_t end, const Floats inverse[ROWS], int64_t size, int v,
                       int n, int is_half) {
    Floats sum[ROWS][MAX_VECTORS];
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int i = 0; i < n; i++) sum[r][i] = f_all(0);
    }
    for (int64_t j = first; j < end; j++) {
        if (rows == 1 && v == 0 && j % LANES == 0)
            prefetch_later(head->values + j * head->key_stride, head->key_stride, n, is_half);
        Floats value[MAX_VECTORS];
        UNROLL
        for (int i = 0; i < n; i++)
            value[i] = load_any(head->values + j * head->key_stride, v + i, size, is_half);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const Floats weight = f_all(scores[r * width + j]);
            UNROLL
            for (int i = 0; i < n; i++) sum[r][i] = f_fma(weight, value[i], sum[r][i]);
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int i = 0; i < n; i++)
            store_some(head->out + r * head->out_stride + LANES * (v + i),
                       f_mul(sum[r][i], inverse[r]), size - LANES * (v + i));
    }
}

/* Compute `rows` queries of a head of n vectors. scores: [rows, width]. */
INLINE void attend_rows(const Head *head, int rows, float *scores, int64_t width, int64_t size,
                        int n, int is_half) {
    const int64_t end = head->position + rows; /* past the last key of the last row */
    const int64_t first = head->window > 0 && head->position + 1 > head->window
                              ? head->position + 1 - head->window
                              : 0;
    Floats inverse[ROWS];
    for (int r = 0; r < rows; r++)
        inverse[r] = f_all(1.0f / f_sum(weigh(head, r, rows, first / LANES * LANES, end,
                                              scores + r * width, size, n, is_half)));
    const int at_once = MAX_ACCUMULATORS / rows;
    int v = 0;
    for (; v + at_once <= n; v += at_once)
        add_values(head, rows, scores, width, first, end, inverse, size, v, at_once, is_half);
    if (n % at_once > 0)
        add_values(head, rows, scores, width, first, end, inverse, size, v, n % at_once, is_half);
}

/* The same for a head that does not fill its last vector: one query at a time. */
static void attend_ragged(const Head *head, int is_four, float *scores, int64_t width) {
    Head single = *head;
    const int n = (int)((head->size + LANES - 1) / LANES);
    for (int r = 0; r < (is_four ? ROWS : 1); r++) {
        attend_rows(&single, 1, scores, width, head->size, n, head->is_half);
        single.queries += head->query_stride;
        single.out += head->out_stride;
        single.position++;
    }
}

/* Compute ROWS queries, or one. scores: [ROWS, width], width a multiple of 16 above the last
 * position. Returns 0 for an unsupported head size, else 1.
 */
static int attend(const Head *head, int is_four, float *scores, int64_t width) {
    if (head->size < 1 || head->size > MAX_VECTORS * LANES) return 0;
    if (head->size % LANES != 0) { /* in nearly no model */
        attend_ragged(head, is_four, scores, width);
        return 1;
    }
#define CASE(N, HALF)                                                          \
    if (head->size == N * LANES && head->is_half == HALF) {                    \
        if (is_four) attend_rows(head, ROWS, scores, width, N * LANES, N, HALF); \
        else attend_rows(head, 1, scores, width, N * LANES, N, HALF);          \
        return 1;                                                              \
    }
    CASE(1, 0)
    CASE(2, 0)
    CASE(3, 0)
    CASE(4, 0)
    CASE(5, 0)
    CASE(6, 0)
    CASE(7, 0)
    CASE(8, 0)
    CASE(1, 1)
    CASE(2, 1)
    CASE(3, 1)
    CASE(4, 1)
    CASE(5, 1)
    CASE(6, 1)
    CASE(7, 1)
    CASE(8, 1)
#undef CASE
    return 0;
}
