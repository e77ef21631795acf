/* Many rows of RowProduct: 64 columns of W at a time are packed into four panels, and used for
 * every row.
 */
#pragma once

enum { AHEAD = 16, STRIP = 4 }; /* rows of W to prefetch; blocks of columns in a part */
enum { PANEL_SIZE = 16 << 10 }; /* bytes that stay in the first cache */

static void quantize_many(void *data, size_t row) {
    RowCall *call = data;
    const int64_t padded = round_up(call->self->depth, UNIT);
    uint8_t *q = take_scratch((size_t)padded);
    if (!q) {
        call->failed = 1;
        return;
    }
    call->row_scales[row] =
        quantize_row(call->self, call->x + (int64_t)row * call->self->depth, q);
    many_x(call->q, (int64_t)row, padded, q, 1);
    give_scratch(q);
}

/* Pack 64 columns from n on; rows past the last are 0. */
static void pack_columns(const RowProduct *self, int64_t n, uint8_t *panels) {
    static const int8_t zeros[COLUMNS];
    const int64_t padded = round_up(self->depth, UNIT);
    const int8_t *w = self->weights + n;
    for (int64_t k = 0; k < padded; k += 8) {
        const int8_t *rows[8];
        for (int i = 0; i < 8; i++) {
            rows[i] = k + i < self->depth ? w + (k + i) * self->width : zeros;
            PREFETCH(w + (k + i + AHEAD) * self->width);
        }
        many_pack_rows(rows, k, padded * LANES * WEIGHT_SIZE, panels);
    }
}

#ifdef TILES
enum { ROW_TILE = 32 };

static void multiply_columns(const RowCall *call, int64_t n, const uint8_t *panels, int32_t *sums) {
    const int64_t padded = round_up(call->self->depth, UNIT);
    for (int64_t m = 0; m < call->rows; m += ROW_TILE) {
        tile_block(call->q + m * padded, panels, padded, sums);
        const int64_t n_rows = call->rows - m < ROW_TILE ? call->rows - m : ROW_TILE;
        for (int64_t i = 0; i < n_rows; i++)
            for (int j = 0; j < COLUMNS; j += LANES)
                finish(call->self, i_load(sums + i * COLUMNS + j), call->row_scales[m + i], n + j,
                       call->y + (m + i) * call->self->width);
    }
}
#else
enum { ROW_TILE = MANY_ROWS };

/* All rows times sixteen columns from n on. A part of the panel at a time stays in the first cache
 * while all rows pass. sums: [M, 16].
 */
static void multiply_panel(const RowCall *call, int64_t n, const uint8_t *panel, int32_t *sums) {
    const int64_t padded = round_up(call->self->depth, UNIT);
    const int64_t n_parts = round_up(padded * LANES * WEIGHT_SIZE, PANEL_SIZE) / PANEL_SIZE;
    const int64_t step = round_up((padded + n_parts - 1) / n_parts, UNIT);
    for (int64_t k = 0; k < padded; k += step) {
        const int64_t n_k = padded - k < step ? padded - k : step;
        for (int64_t m = 0; m < call->rows; m += MANY_ROWS) {
            Ints sum[MANY_ROWS];
            many_tile(call->q + m * padded * X_SIZE, padded, panel, k, n_k, 1, sum);
            for (int i = 0; i < MANY_ROWS; i++) {
                int32_t *partial = sums + (m + i) * LANES;
                if (k > 0) sum[i] = i_add(sum[i], i_load(partial));
                if (k + n_k < padded)
                    i_store(partial, sum[i]);
                else if (m + i < call->rows)
                    finish(call->self, sum[i], call->row_scales[m + i], n,
                           call->y + (m + i) * call->self->width);
            }
        }
    }
}

static void multiply_columns(const RowCall *call, int64_t n, const uint8_t *panels, int32_t *sums) {
    const int64_t panel_size = round_up(call->self->depth, UNIT) * LANES * WEIGHT_SIZE;
    for (int j = 0; j < COLUMNS / LANES; j++)
        multiply_panel(call, n + j * LANES, panels + j * panel_size, sums);
}
#endif

/* All rows times the part-th fraction of the columns. */
static void multiply_strip(void *data, size_t part) {
    RowCall *call = data;
    const RowProduct *self = call->self;
    const int64_t n_blocks = round_up(self->width, COLUMNS) / COLUMNS;
    const int64_t first = n_blocks * (int64_t)part / call->parts;
    const int64_t end = n_blocks * ((int64_t)part + 1) / call->parts;
    const int64_t panels_size = round_up(self->depth, UNIT) * COLUMNS * WEIGHT_SIZE;
    const int64_t n_sums = round_up(call->rows, ROW_TILE) * LANES + ROW_TILE * COLUMNS;
    int32_t *sums = take_scratch((size_t)(panels_size + n_sums * (int64_t)sizeof *sums));
    if (!sums) {
        call->failed = 1;
        return;
    }
    uint8_t *panels = (uint8_t *)(sums + n_sums);
#ifdef TILES
    use_tiles(LANES, UNIT);
#endif
    for (int64_t i = first; i < end; i++) {
        const int64_t n = first_column(self, i);
        pack_columns(self, n, panels);
        multiply_columns(call, n, panels, sums);
    }
#ifdef TILES
    _tile_release();
#endif
    give_scratch(sums);
}

static OrtStatus *multiply_many(OrtContext *context, RowCall *call) {
    const RowProduct *self = call->self;
    const int64_t n_rows = round_up(call->rows, ROW_TILE);
    const int64_t n_blocks = round_up(self->width, COLUMNS) / COLUMNS;
    const int64_t n_strips = (n_blocks + STRIP - 1) / STRIP;
    call->parts = n_strips > 2 * self->base.threads ? n_strips : 2 * self->base.threads;
    if (call->parts > n_blocks) call->parts = n_blocks;
    const int64_t row_size = round_up(self->depth, UNIT) * X_SIZE;
    call->q = take_scratch((size_t)(n_rows * (row_size + (int64_t)sizeof(float))));
    if (!call->q) return fail(self->base.api, "RowProduct: out of memory");
    call->row_scales = (float *)(call->q + n_rows * row_size);
    /* rows past the last are computed and not used */
    memset(call->q + call->rows / ROW_TILE * ROW_TILE * row_size, 0,
           (size_t)((n_rows - call->rows / ROW_TILE * ROW_TILE) * row_size));
    OrtStatus *status = in_parallel(&self->base, context, quantize_many, (size_t)call->rows, call);
    if (!status)
        status = in_parallel(&self->base, context, multiply_strip, (size_t)call->parts, call);
    give_scratch(call->q);
    return !status && call->failed ? fail(self->base.api, "RowProduct: out of memory") : status;
}
