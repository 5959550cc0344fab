/* workload_context.c - padding, the load-balanced split over cp, and the way back, bit for bit. */
#include "random.h"
#include "workload_run.h"

#include <stdlib.h>
#include <string.h>

typedef struct context_state {
    pgr_site *site;
    const pgr_spec *spec;
    pgr_inputs full;  /* the whole sequence of this rank's samples: what enters and comes back */
    pgr_inputs local; /* what this rank should hold, made row by row from the token map */
    pgr_context *layer;
    void *split; /* [local positions] rows: what the split made */
    void *back;  /* [seq_len] rows: what the gather made */
} context_state;

/* The map of the unpadded, unsplit sample: every token, in order. */
static pgr_tokens whole(const pgr_tokens *tokens) {
    pgr_tokens all = *tokens;
    all.cp = all.shares = 1;
    all.cp_rank = all.share = 0;
    all.sequences = 0;
    all.padded = all.positions = all.seq_len;
    all.rows = all.positions * all.batch;
    return all;
}

static int64_t bytes_of(const context_state *state, int64_t positions) {
    return positions * state->layer->row_bytes;
}

static pgr_status create(context_state *state, pgr_error *error) {
    const pgr_spec *spec = state->spec;
    pgr_site *site = state->site;
    int64_t hidden = spec->model.hidden;
    pgr_dtype dtype = spec->model.dtype;
    pgr_tokens tokens;
    pgr_status status = pgr_tokens_create(spec, site->plan, site->job->rank, true, &tokens, error);
    if (status)
        return status;
    pgr_tokens all = whole(&tokens);
    status = pgr_inputs_create(site, &all, hidden, dtype, &state->full, error);
    if (!status)
        status = pgr_inputs_create(site, &tokens, hidden, dtype, &state->local, error);
    if (!status)
        status = pgr_context_create(site, &tokens, hidden, dtype, spec->parallel.sequence_parallel,
                                    &state->layer, error);
    if (!status)
        status = pgr_site_alloc(site, bytes_of(state, tokens.positions), &state->split, error);
    if (!status)
        status = pgr_site_alloc(site, bytes_of(state, tokens.seq_len), &state->back, error);
    return status;
}

static void destroy(context_state *state) {
    pgr_context_free(state->site, state->layer);
    pgr_site_free(state->site, state->split);
    pgr_site_free(state->site, state->back);
    pgr_inputs_free(state->site, &state->full);
    pgr_inputs_free(state->site, &state->local);
}

static pgr_status prepare(void *context, int64_t micro_batch, pgr_error *error) {
    context_state *state = context;
    pgr_site *site = state->site;
    const pgr_device_ops *ops = site->device->ops;
    const pgr_tokens *tokens = &state->layer->tokens;
    pgr_status status = pgr_inputs_fill(site, &state->full, micro_batch, error);
    if (!status)
        status = pgr_context_poison(site, state->layer, error);
    if (!status)
        status = ops->set(site->device, state->split, 0xff, bytes_of(state, tokens->positions),
                          site->stream, error);
    if (!status)
        status = ops->set(site->device, state->back, 0xff, bytes_of(state, tokens->seq_len),
                          site->stream, error);
    return status;
}

static pgr_status forward(void *context, pgr_error *error) {
    context_state *state = context;
    pgr_status status =
        pgr_context_split(state->site, state->layer, state->full.x, state->split, error);
    if (!status)
        status = pgr_context_gather(state->site, state->layer, state->split, state->back, error);
    return status;
}

/* Compares two arrays of positions bit by bit, position by position. */
static pgr_status compare(const context_state *state, const char *what, const void *got,
                          const void *want, int64_t positions, pgr_verdict *verdict,
                          pgr_error *error) {
    const pgr_site *site = state->site;
    const pgr_device_ops *ops = site->device->ops;
    int64_t row_bytes = state->layer->row_bytes, element = pgr_dtype_bytes(state->layer->dtype);
    char *rows = malloc((size_t)row_bytes * 2);
    if (!rows)
        return pgr_error_set(error, PGR_LIMIT, "no memory to verify %s", what);
    int64_t wrong = 0, first_row = -1, first_col = -1;
    pgr_status status = PGR_OK;
    for (int64_t row = 0; !status && row < positions; row++) {
        int64_t offset = row * row_bytes;
        status = ops->copy(site->device, rows, (const char *)got + offset, row_bytes, site->stream,
                           error);
        if (!status)
            status = ops->copy(site->device, rows + row_bytes, (const char *)want + offset,
                               row_bytes, site->stream, error);
        if (!status)
            status = ops->stream_sync(site->device, site->stream, error);
        if (status || memcmp(rows, rows + row_bytes, (size_t)row_bytes) == 0)
            continue;
        for (int64_t at = 0; at < row_bytes; at += element) {
            if (memcmp(rows + at, rows + row_bytes + at, (size_t)element) == 0)
                continue;
            if (wrong++ == 0) {
                first_row = row;
                first_col = at / element;
            }
        }
    }
    free(rows);
    double values[2] = {0, 0};
    if (!status && wrong > 0) {
        int64_t at = first_row * (row_bytes / element) + first_col;
        status = pgr_fetch_row(site, got, state->layer->dtype, at, 1, 1, &values[0], error);
        if (!status)
            status = pgr_fetch_row(site, want, state->layer->dtype, at, 1, 1, &values[1], error);
    }
    if (!status)
        pgr_verdict_exact(verdict, what, positions * (row_bytes / element), wrong, first_row,
                          first_col, values[0], values[1]);
    return status;
}

static pgr_status verify(void *context, int64_t micro_batch, pgr_verdict *verdict,
                         pgr_error *error) {
    context_state *state = context;
    const pgr_tokens *tokens = &state->layer->tokens;
    pgr_status status = pgr_inputs_fill(state->site, &state->local, micro_batch, error);
    if (!status)
        status = compare(state, "split", state->split, state->local.x, tokens->positions, verdict,
                         error);
    /* the input again from the generator: a gather that had overwritten it would not pass */
    if (!status)
        status = pgr_inputs_fill(state->site, &state->full, micro_batch, error);
    if (!status)
        status =
            compare(state, "gathered", state->back, state->full.x, tokens->seq_len, verdict, error);
    return status;
}

/* Bytes on the bus per rank of the all-gathers over tp and cp: (n-1)/n of what each returns. */
static double bus_bytes(const context_state *state) {
    const pgr_tokens *tokens = &state->layer->tokens;
    double tp = (double)tokens->shares, cp = (double)tokens->cp;
    return (tp - 1) / tp * (double)bytes_of(state, tokens->padded / tokens->cp) +
           (cp - 1) / cp * (double)bytes_of(state, tokens->padded);
}

/* What the all-gathers return on a rank. */
static double gathered_bytes(const context_state *state) {
    const pgr_tokens *tokens = &state->layer->tokens;
    return (double)(tokens->shares > 1 ? bytes_of(state, tokens->padded / tokens->cp) : 0) +
           (double)(tokens->cp > 1 ? bytes_of(state, tokens->padded) : 0);
}

static void describe(const context_state *state, pgr_result *result) {
    const pgr_tokens *tokens = &state->layer->tokens;
    pgr_shape shape[] = {{"seq_len", tokens->seq_len},
                         {"padded", tokens->padded},
                         {"per_rank", tokens->positions},
                         {"batch", tokens->batch},
                         {"hidden", state->full.hidden}};
    memcpy(result->shape, shape, sizeof shape);
    if (tokens->sequences > 0)
        result->shape[sizeof shape / sizeof *shape] = (pgr_shape){"sequences", tokens->sequences};
    result->group = tokens->shares > 1 ? "tp,cp" : "cp";
    /* read and written once each: the local share by the split, the whole sequence by the gather */
    double copied = 2.0 * (double)bytes_of(state, tokens->positions + tokens->seq_len);
    result->rates[0] =
        (pgr_rate){"copy_gb_per_s", "GB/s", pgr_rate_gb(copied, result->compute.median)};
    if (tokens->cp * tokens->shares > 1)
        result->rates[2] =
            (pgr_rate){"algbw_gb_per_s", "GB/s",
                       pgr_rate_gb(gathered_bytes(state), result->communication.median)};
    if (tokens->cp * tokens->shares > 1)
        result->rates[1] = (pgr_rate){"busbw_gb_per_s", "GB/s",
                                      pgr_rate_gb(bus_bytes(state), result->communication.median)};
}

pgr_status pgr_context_run(pgr_site *site, const pgr_spec *spec, pgr_result *result,
                           pgr_error *error) {
    context_state state = {.site = site, .spec = spec};
    pgr_steps steps = {prepare, forward, verify, &state};
    pgr_status status = create(&state, error);
    if (!status)
        status = pgr_steps_run(site, spec, &steps, result, error);
    if (!status)
        describe(&state, result);
    destroy(&state);
    return status;
}
