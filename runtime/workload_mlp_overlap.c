/* workload_mlp_overlap.c - the overlapped order of the mlp workload against the plain one. */
#include "workload_mlp.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

double pgr_mlp_squares(const double *x, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += x[i] * x[i];
    return sum;
}

/* One row of each of two matrices. */
typedef struct row_pair {
    const pgr_site *site;
    pgr_dtype dtype;
    int64_t cols;
    double *got, *want; /* [cols] each, one allocation */
} row_pair;

static pgr_status pair_make(const mlp *state, int64_t cols, row_pair *pair, pgr_error *error) {
    double *rows = malloc((size_t)cols * 2 * sizeof *rows);
    if (!rows)
        return pgr_error_set(error, PGR_LIMIT, "no memory to compare the overlapped order");
    *pair = (row_pair){state->site, state->spec->model.dtype, cols, rows, rows + cols};
    return PGR_OK;
}

static pgr_status pair_fetch(row_pair *pair, const void *got, int64_t got_row, const void *want,
                             int64_t want_row, pgr_error *error) {
    pgr_status status = pgr_fetch_row(pair->site, got, pair->dtype, got_row, pair->cols, pair->cols,
                                      pair->got, error);
    return status ? status
                  : pgr_fetch_row(pair->site, want, pair->dtype, want_row, pair->cols, pair->cols,
                                  pair->want, error);
}

static const char *named(const mlp *state, const char *overlap, const char *plain) {
    return state->plain ? plain : overlap;
}

/* The gathered chunks are the gathered rows in another order: nothing may differ. */
static pgr_status compare_gathered(mlp *state, pgr_error *error) {
    const pgr_linear *up = state->up;
    int64_t tp = up->tp->size, share = up->config.rows / tp, wrong = 0;
    int64_t at_row = -1, at_col = -1;
    double got = 0, want = 0;
    row_pair pair;
    pgr_status status = pair_make(state, up->config.input, &pair, error);
    if (status)
        return status;
    for (int64_t i = 0; i < up->chunks * tp && !status; i++) {
        pgr_chunk chunk = pgr_linear_chunk(up, i / tp);
        int64_t from = tp * chunk.begin + i % tp * chunk.rows, to = i % tp * share + chunk.begin;
        for (int64_t row = 0; row < chunk.rows && !status; row++) {
            status = pair_fetch(&pair, up->chunked, from + row, up->gathered, to + row, error);
            for (int64_t c = 0; c < pair.cols && !status; c++) {
                if (pair.got[c] == pair.want[c])
                    continue;
                if (wrong++ == 0)
                    at_row = to + row, at_col = c, got = pair.got[c], want = pair.want[c];
            }
        }
    }
    free(pair.got);
    if (!status)
        pgr_verdict_exact(&state->overlap, "overlap gather", up->config.rows * up->config.input,
                          wrong, at_row, at_col, got, want);
    return status;
}

/* sum x_k^2 of every row. */
static pgr_status rows_squares(const mlp *state, const void *x, int64_t rows, int64_t cols,
                               double *squares, pgr_error *error) {
    double *row = malloc((size_t)cols * sizeof *row);
    if (!row)
        return pgr_error_set(error, PGR_LIMIT, "no memory to compare the overlapped order");
    pgr_status status = PGR_OK;
    for (int64_t r = 0; r < rows && !status; r++) {
        status = pgr_fetch_row(state->site, x, state->spec->model.dtype, r, cols, cols, row, error);
        if (!status)
            squares[r] = pgr_mlp_squares(row, cols);
    }
    free(row);
    return status;
}

/* h against the plain order's. The same product in other pieces may add in another order, which
 * differs by roundings of f32 on the scale of its terms; the activation passes that on (gelu by at
 * most 1.13; swiglu multiplies it with a factor that is below four times the scale of its own
 * terms), and the result is rounded. */
static pgr_status compare_up(mlp *state, const void *plain, const double *squares,
                             pgr_error *error) {
    const pgr_linear *up = state->up;
    pgr_dtype dtype = up->config.dtype;
    double sum = pgr_tolerance(PGR_F32, (double)up->depth, 1) + pgr_tolerance_tf32(up->tf32);
    double own = pgr_tolerance(dtype, 1, dtype == PGR_F32 ? 8 : 1);
    row_pair pair;
    pgr_status status = pair_make(state, up->features, &pair, error);
    if (status)
        return status;
    for (int64_t row = 0; row < up->config.rows && !status; row++) {
        double terms = pgr_mlp_row_scale(up, squares[row]);
        terms *= up->config.activation == PGR_SWIGLU ? 8 * terms : 1.13;
        status = pair_fetch(&pair, state->h, row, plain, row, error);
        for (int64_t c = 0; c < pair.cols && !status; c++) {
            double value = fabs(pair.want[c]), scale = value + terms;
            pgr_verdict_compare(&state->overlap, named(state, "overlap up", "plain up"), row, c,
                                pair.got[c], pair.want[c], scale,
                                scale > 0 ? (own * value + sum * terms) / scale : 0);
        }
    }
    free(pair.got);
    return status;
}

/* y against the plain order's, from the same h: other pieces, and sums over tp in another order. */
static pgr_status compare_down(mlp *state, const void *plain, const double *squares,
                               pgr_error *error) {
    const pgr_linear *down = state->down;
    const pgr_tokens *own = &state->inputs.tokens;
    pgr_dtype dtype = down->config.dtype;
    int roundings = 3 + (dtype == PGR_F32 ? (int)down->tp->size : 0);
    double tolerance = pgr_tolerance(dtype, (double)down->config.input, roundings) +
                       pgr_tolerance_tf32(down->tf32);
    row_pair pair;
    pgr_status status = pair_make(state, down->config.output, &pair, error);
    if (status)
        return status;
    for (int64_t row = 0; row < own->rows && !status; row++) {
        double scale = pgr_mlp_row_scale(down, squares[own->share * own->rows + row]);
        status = pair_fetch(&pair, state->y, row, plain, row, error);
        for (int64_t c = 0; c < pair.cols && !status; c++)
            pgr_verdict_compare(&state->overlap, named(state, "overlap down", "plain down"), row, c,
                                pair.got[c], pair.want[c], scale, tolerance);
    }
    free(pair.got);
    return status;
}

/* Memory of the plain results, poisoned. */
static pgr_status scratch(const mlp *state, int64_t bytes, void **out, pgr_error *error) {
    const pgr_device_ops *ops = state->site->device->ops;
    pgr_status status = pgr_site_alloc(state->site, bytes, out, error);
    return status ? status
                  : ops->set(state->site->device, *out, 0xff, bytes, state->site->stream, error);
}

static pgr_status compare_layers(mlp *state, void *h, void *y, double *squares, pgr_error *error) {
    pgr_site site = *state->site;
    site.stopwatch = NULL; /* not what is timed */
    int64_t rows = state->product.rows;
    pgr_status status = pgr_linear_forward_plain(&site, state->up, state->inputs.x, h, NULL, error);
    if (!status && !state->plain)
        status = compare_gathered(state, error);
    if (!status)
        status = rows_squares(state, state->up->gathered, rows, state->up->depth, squares, error);
    if (!status)
        status = compare_up(state, h, squares, error);
    if (!status)
        status = pgr_linear_forward_plain(&site, state->down, state->h, y, NULL, error);
    if (!status)
        status = rows_squares(state, state->h, rows, state->down->depth, squares, error);
    if (!status)
        status = pgr_mlp_sum_over_tp(state, squares, rows, error);
    return status ? status : compare_down(state, y, squares, error);
}

pgr_status pgr_mlp_verify_overlap(mlp *state, pgr_error *error) {
    int64_t rows = state->product.rows, element = pgr_dtype_bytes(state->spec->model.dtype);
    double *squares = malloc((size_t)rows * sizeof *squares);
    if (!squares)
        return pgr_error_set(error, PGR_LIMIT, "no memory to compare the overlapped order");
    void *h = NULL, *y = NULL;
    pgr_status status = scratch(state, rows * state->up->features * element, &h, error);
    if (!status)
        status =
            scratch(state, state->inputs.tokens.rows * state->inputs.hidden * element, &y, error);
    if (!status)
        status = compare_layers(state, h, y, squares, error);
    pgr_site_free(state->site, h);
    pgr_site_free(state->site, y);
    free(squares);
    return status;
}

/* A failure of the comparison is one of the run. */
static void merge(const pgr_verdict *overlap, pgr_verdict *verify) {
    int64_t checked = verify->checked + overlap->checked;
    if (verify->ok && !overlap->ok)
        *verify = *overlap;
    verify->checked = checked;
}

pgr_status pgr_mlp_run_plain(mlp *state, const pgr_steps *steps, pgr_result *result,
                             pgr_error *error) {
    pgr_result plain = {0};
    state->plain = true;
    pgr_status status = pgr_steps_time(state->site, state->spec, steps, &plain, error);
    if (!status)
        status = pgr_mlp_verify_overlap(state, error);
    if (!status)
        status = pgr_verdict_agree(state->site->job, &state->overlap, error);
    if (status)
        return status;
    result->overlap_chunks = state->up->chunks;
    result->overlap = state->overlap;
    result->plain = plain.time;
    merge(&state->overlap, &result->verify);
    return PGR_OK;
}
