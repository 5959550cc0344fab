/* workload_mlp.c - column-parallel linear, bias and activation, row-parallel linear, over tp. */
#include "workload_mlp.h"
#include "random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pgr_reference_linear reference_of(const pgr_site *site, const pgr_linear *layer) {
    char weight[2 * PGR_NAME_MAX], bias[2 * PGR_NAME_MAX];
    snprintf(weight, sizeof weight, "%s.weight", layer->name);
    snprintf(bias, sizeof bias, "%s.bias", layer->name);
    return (pgr_reference_linear){
        .weight = {site->seed, pgr_random_tensor(weight), layer->exponent},
        .bias = {site->seed, pgr_random_tensor(bias), 0},
        .has_bias = layer->config.bias,
        .input = layer->config.input,
        .output = layer->config.output,
        .activation = layer->config.activation,
        .dtype = layer->config.dtype,
    };
}

static pgr_status create_layers(mlp *state, pgr_error *error) {
    const pgr_spec *spec = state->spec;
    int64_t halves = spec->model.activation == PGR_SWIGLU ? 2 : 1;
    pgr_linear_config config = {
        .kind = PGR_COLUMN_PARALLEL,
        .name = "mlp.up",
        .input = spec->model.hidden,
        .output = spec->model.ffn * halves,
        .bias = spec->model.bias,
        .activation = spec->model.activation,
        .dtype = spec->model.dtype,
        .sequence_parallel = spec->parallel.sequence_parallel,
        .rows = state->product.rows,
        .overlap_chunks = spec->parallel.tp_comm_overlap ? spec->run.overlap_chunks : 0,
        .tf32 = spec->run.tf32,
    };
    pgr_status status = pgr_linear_create(state->site, &config, &state->up, error);
    if (status)
        return status;
    config.kind = PGR_ROW_PARALLEL;
    config.name = "mlp.down";
    config.input = spec->model.ffn;
    config.output = spec->model.hidden;
    config.activation = PGR_NO_ACTIVATION;
    return pgr_linear_create(state->site, &config, &state->down, error);
}

static pgr_status create(mlp *state, pgr_error *error) {
    const pgr_spec *spec = state->spec;
    pgr_site *site = state->site;
    int64_t element = pgr_dtype_bytes(spec->model.dtype);
    pgr_tokens tokens;
    pgr_status status = pgr_tokens_create(spec, site->plan, site->job->rank, true, &tokens, error);
    if (!status)
        status =
            pgr_tokens_create(spec, site->plan, site->job->rank, false, &state->product, error);
    if (!status)
        status = pgr_inputs_create(site, &tokens, spec->model.hidden, spec->model.dtype,
                                   &state->inputs, error);
    if (!status)
        status = create_layers(state, error);
    if (!status)
        status = pgr_site_alloc(site, state->product.rows * state->up->features * element,
                                &state->h, error);
    if (!status)
        status = pgr_site_alloc(site, tokens.rows * spec->model.hidden * element, &state->y, error);
    if (status)
        return status;
    state->up_reference = reference_of(site, state->up);
    state->down_reference = reference_of(site, state->down);
    return PGR_OK;
}

static void destroy(mlp *state) {
    pgr_linear_free(state->site, state->up);
    pgr_linear_free(state->site, state->down);
    pgr_site_free(state->site, state->h);
    pgr_site_free(state->site, state->y);
    pgr_inputs_free(state->site, &state->inputs);
}

static pgr_status prepare(void *context, int64_t micro_batch, pgr_error *error) {
    mlp *state = context;
    pgr_site *site = state->site;
    const pgr_device_ops *ops = site->device->ops;
    int64_t element = pgr_dtype_bytes(state->spec->model.dtype);
    pgr_status status = pgr_inputs_fill(site, &state->inputs, micro_batch, error);
    if (!status)
        status = pgr_linear_poison(site, state->up, error);
    if (!status)
        status = pgr_linear_poison(site, state->down, error);
    if (!status)
        status = ops->set(site->device, state->h, 0xff,
                          state->product.rows * state->up->features * element, site->stream, error);
    if (!status)
        status = ops->set(site->device, state->y, 0xff,
                          state->inputs.tokens.rows * state->inputs.hidden * element, site->stream,
                          error);
    return status;
}

static pgr_status forward(void *context, pgr_error *error) {
    mlp *state = context;
    pgr_status (*layer)(const pgr_site *, pgr_linear *, const void *, void *, pgr_saved *,
                        pgr_error *) = state->plain ? pgr_linear_forward_plain : pgr_linear_forward;
    pgr_status status = layer(state->site, state->up, state->inputs.x, state->h, NULL, error);
    return status ? status : layer(state->site, state->down, state->h, state->y, NULL, error);
}

/* ---- verification -------------------------------------------------------------------------- */

/* The rows of h that a rank holds: all of its context-parallel share, and its slice of the
 * features.
 */
static pgr_status holding(void *context, int64_t rank, pgr_holding *out, pgr_error *error) {
    const mlp *state = context;
    const pgr_plan *plan = state->site->plan;
    pgr_status status = pgr_tokens_create(state->spec, plan, rank, false, &out->tokens, error);
    out->count = state->up->features;
    out->first_feature = pgr_plan_coordinate(plan, "tp", rank) * out->count;
    return status;
}

static pgr_status verify_up(mlp *state, int64_t micro_batch, pgr_verdict *verdict,
                            pgr_error *error) {
    pgr_features_args args = {
        .what = "up output",
        .layer = &state->up_reference,
        .input = state->inputs.random,
        .micro_batch = micro_batch,
        .holding = holding,
        .context = state,
        .out = state->h,
        .out_dtype = state->spec->model.dtype,
        .tolerance = pgr_tolerance(state->spec->model.dtype, (double)state->spec->model.hidden, 1) +
                     pgr_tolerance_tf32(state->up->tf32),
    };
    return pgr_verify_features(state->site, &args, verdict, error);
}

static pgr_linear_args product_args(const mlp *state, const pgr_linear *layer, const void *x,
                                    const void *bias) {
    return (pgr_linear_args){
        .x = x,
        .w = layer->weight,
        .bias = bias,
        .m = state->product.rows,
        .n = layer->width,
        .k = layer->depth,
        .ldx = layer->depth,
        .ldw = layer->depth,
        .dtype = layer->config.dtype,
        .y_dtype = layer->config.dtype,
        .activation = layer->config.activation,
        .tf32 = layer->tf32,
    };
}

double pgr_mlp_row_scale(const pgr_linear *layer, double squares) {
    return sqrt((ldexp(squares, 2 * layer->exponent) + (layer->bias ? 1 : 0)) / 3);
}

/* h [rows, features] must be the activation of z [rows, width], element by element. `x` is the
 * product's input. z was made by another product than h, which may add in another order: that
 * difference is on the scale of the product's terms, not of z, and comes on top. */
static pgr_status verify_activation(const mlp *state, const void *x, const void *z,
                                    pgr_verdict *verdict, pgr_error *error) {
    const pgr_linear *up = state->up;
    pgr_dtype dtype = up->config.dtype;
    bool gated = up->config.activation == PGR_SWIGLU;
    /* z, h and in f32 the kernel's exponential are rounded; the scale is what they multiply */
    double own = pgr_tolerance(dtype, 1, dtype == PGR_F32 ? 8 : 2);
    double sum = pgr_tolerance(PGR_F32, (double)up->depth, 1) + pgr_tolerance_tf32(up->tf32);
    double *before = malloc((size_t)(up->width + up->features + up->depth) * sizeof *before);
    if (!before)
        return pgr_error_set(error, PGR_LIMIT, "no memory to verify the activation");
    double *after = before + up->width, *input = after + up->features;
    pgr_status status = PGR_OK;
    for (int64_t row = 0; !status && row < state->product.rows; row++) {
        status = pgr_fetch_row(state->site, z, dtype, row, up->width, up->width, before, error);
        if (!status)
            status = pgr_fetch_row(state->site, state->h, dtype, row, up->features, up->features,
                                   after, error);
        if (!status)
            status = pgr_fetch_row(state->site, x, dtype, row, up->depth, up->depth, input, error);
        double terms = status ? 0 : pgr_mlp_row_scale(up, pgr_mlp_squares(input, up->depth));
        for (int64_t c = 0; !status && c < up->features; c++) {
            double g = before[c];
            double factor = gated ? before[up->features + c] : 1;
            double want = gated ? pgr_reference_silu(g) * factor : pgr_reference_gelu(g);
            double slope = gated ? 1.1 * fabs(factor) + fabs(pgr_reference_silu(g)) : 1.13;
            double value = fabs(g * factor), scale = value + slope * terms;
            double tolerance = scale > 0 ? (own * value + sum * slope * terms) / scale : own;
            pgr_verdict_compare(verdict, "activation", row, c, after[c], want, scale, tolerance);
        }
    }
    free(before);
    return status;
}

/* The whole of the column-parallel output: the product is made again with its values before the
 * activation saved; those are checked by Freivalds' method, and h against them. */
static pgr_status verify_up_whole(mlp *state, pgr_verdict *verdict, pgr_error *error) {
    const pgr_site *site = state->site;
    const pgr_device_ops *ops = site->device->ops;
    const pgr_linear *up = state->up;
    int64_t rows = state->product.rows, element = pgr_dtype_bytes(up->config.dtype);
    const void *x = up->gathered ? up->gathered : state->inputs.x;
    void *z = NULL, *again = NULL;
    pgr_linear_args args = product_args(state, up, x, up->bias);
    pgr_status status = pgr_site_alloc(site, rows * up->width * element, &z, error);
    if (!status)
        status = pgr_site_alloc(site, rows * up->features * element, &again, error);
    if (!status)
        status = ops->set(site->device, z, 0xff, rows * up->width * element, site->stream, error);
    args.y = again;
    args.ldy = up->features;
    args.saved = z;
    if (!status)
        status = ops->linear(site->device, &args, site->stream, error);
    args.y = z;
    args.ldy = up->width;
    if (!status)
        status = pgr_verify_product(site, "up product", &args,
                                    pgr_tolerance(up->config.dtype, (double)args.k, 1) +
                                        pgr_tolerance_tf32(up->tf32),
                                    verdict, error);
    if (!status)
        status = verify_activation(state, x, z, verdict, error);
    pgr_site_free(site, z);
    pgr_site_free(site, again);
    return status;
}

pgr_status pgr_mlp_sum_over_tp(const mlp *state, double *values, int64_t count, pgr_error *error) {
    const pgr_site *site = state->site;
    const pgr_device_ops *ops = site->device->ops;
    pgr_comm *comm = state->down->tp->comm;
    int64_t bytes = count * (int64_t)sizeof *values;
    void *buffer = NULL;
    if (!comm)
        return PGR_OK;
    pgr_request request = {0};
    pgr_status status = pgr_site_buffer_alloc(site, state->down->tp, bytes, &buffer, error);
    if (!status)
        status = ops->copy(site->device, buffer, values, bytes, site->stream, error);
    if (!status)
        status = pgr_site_comm_begin(site, comm, error);
    if (!status)
        status = comm->ops->all_reduce(comm, buffer, buffer, count, PGR_F64, PGR_SUM, comm->stream,
                                       &request, error);
    status = pgr_site_comm_end(site, status, &request, error);
    if (!status)
        status = ops->copy(site->device, values, buffer, bytes, site->stream, error);
    if (!status)
        status = ops->stream_sync(site->device, site->stream, error);
    pgr_site_buffer_free(site, state->down->tp, buffer);
    return status;
}

/* The whole output, from h to y, the reduction and the bias included: every row, by Freivalds'
 * method; the ranks of tp add what each expects of its part. */
static pgr_status verify_output_whole(const mlp *state, pgr_verdict *verdict, pgr_error *error) {
    const pgr_linear *down = state->down;
    const pgr_tokens *own = &state->inputs.tokens;
    int64_t rows = state->product.rows, tp = down->tp->size;
    pgr_dtype dtype = down->config.dtype;
    double *want = malloc((size_t)(2 * rows + own->rows) * sizeof *want);
    if (!want)
        return pgr_error_set(error, PGR_LIMIT, "no memory to verify the output");
    double *squares = want + rows, *got = squares + rows;
    pgr_linear_args args =
        product_args(state, down, state->h, down->tp->rank == 0 ? down->bias : NULL);
    pgr_status status = pgr_product_sums(state->site, &args, want, squares, error);
    if (!status)
        status = pgr_mlp_sum_over_tp(state, want, 2 * rows, error);
    if (!status)
        status = pgr_row_sums(state->site, state->y, dtype, state->inputs.hidden, own->rows,
                              state->inputs.hidden, got, error);
    int roundings = (tp > 1 ? 3 : 1) + (dtype == PGR_F32 ? (int)tp : 0);
    double tolerance = pgr_tolerance(dtype, (double)down->config.input, roundings) +
                       pgr_tolerance_tf32(down->tf32);
    for (int64_t row = 0; !status && row < own->rows; row++) {
        int64_t at = own->share * own->rows + row;
        pgr_verdict_compare(verdict, "output rows", row, -1, got[row], want[at], sqrt(squares[at]),
                            tolerance);
    }
    free(want);
    return status;
}

/* The reference of the block's output: every distinct holder of tokens (dp, cp and, scattered, tp)
 * samples its rows; all sample the same columns. Each rank takes every n-th block of the ffn
 * features, another partition than the tp shards, and the partial sums are added over the world. */
typedef struct block_reference {
    mlp *state;
    int64_t micro_batch;
    int64_t holders; /* dp * cp * shares */
    int64_t columns[PGR_SAMPLES];
    int column_count;
    /* [holders][PGR_SAMPLES rows][PGR_SAMPLES columns]: the sum of the terms h w, of their squares,
     * and of (s w)^2 with s the scale of h's own error */
    double *sums, *squares, *spreads;
} block_reference;

enum { FEATURE_BLOCK = 8, TOKENS_AT_ONCE = 256, CELLS = PGR_SAMPLES * PGR_SAMPLES };

/* The token map of the i-th holder. */
static pgr_tokens holder_tokens(const block_reference *reference, int64_t holder) {
    pgr_tokens tokens = reference->state->inputs.tokens;
    tokens.share = holder % tokens.shares;
    tokens.cp_rank = holder / tokens.shares % tokens.cp;
    tokens.dp_rank = holder / tokens.shares / tokens.cp;
    return tokens;
}

static int64_t own_holder(const pgr_tokens *tokens) {
    return (tokens->dp_rank * tokens->cp + tokens->cp_rank) * tokens->shares + tokens->share;
}

static uint64_t sample_seed(const block_reference *reference) {
    return reference->state->site->seed + (uint64_t)reference->micro_batch;
}

/* One token's terms: feature values times the down weights of the sampled columns. */
static void add_feature(const block_reference *reference, double value, double scale,
                        const double *weights, int64_t cell) {
    for (int c = 0; c < reference->column_count; c++) {
        double term = value * weights[c], spread = scale * weights[c];
        reference->sums[cell + c] += term;
        reference->squares[cell + c] += term * term;
        reference->spreads[cell + c] += spread * spread;
    }
}

/* Adds this rank's features for the samples of holders [first, last). */
static pgr_status refer_holders(block_reference *reference, int64_t first, int64_t last,
                                pgr_error *error) {
    mlp *state = reference->state;
    int64_t hidden = state->inputs.hidden, ffn = state->spec->model.ffn;
    int64_t rank = state->site->job->rank, size = state->site->job->size;
    int64_t most = (last - first) * PGR_SAMPLES;
    double *x = malloc((size_t)(most + 2) * (size_t)hidden * sizeof *x);
    int64_t *cells = malloc((size_t)most * sizeof *cells);
    if (!x || !cells) {
        free(x);
        free(cells);
        return pgr_error_set(error, PGR_LIMIT, "no memory to verify the block's output");
    }
    int64_t count = 0;
    for (int64_t holder = first; holder < last; holder++) {
        pgr_tokens tokens = holder_tokens(reference, holder);
        int64_t rows[PGR_SAMPLES];
        int found = pgr_sample_rows(&tokens, sample_seed(reference), rows);
        for (int r = 0; r < found; r++, count++) {
            pgr_reference_token(&tokens, reference->micro_batch, rows[r], &state->inputs.random,
                                state->spec->model.dtype, hidden, x + count * hidden);
            cells[count] = holder * CELLS + r * PGR_SAMPLES;
        }
    }
    pgr_reference_feature loaded = {.weights = x + most * hidden};
    const pgr_reference_linear *down = &state->down_reference;
    for (int64_t feature = 0; feature < ffn; feature++) {
        if ((feature / FEATURE_BLOCK + 1) % size != rank)
            continue;
        double weights[PGR_SAMPLES], value, scale;
        for (int c = 0; c < reference->column_count; c++)
            weights[c] = pgr_random_value(
                &down->weight, reference->columns[c] * down->input + feature, down->dtype);
        pgr_reference_load(&state->up_reference, feature, &loaded);
        for (int64_t i = 0; i < count; i++) {
            pgr_reference_value(&state->up_reference, &loaded, x + i * hidden, &value, &scale);
            add_feature(reference, value, scale, weights, cells[i]);
        }
    }
    free(x);
    free(cells);
    return PGR_OK;
}

/* The tolerance of an element on the scale of its terms h w: of its own sum and of the storage
 * roundings of h and y (where tp > 1 also of the partial products, and of the sum before the bias;
 * f32 sums over tp round at every hop), and of h's own sum, which is on the scale s of h's terms:
 * few features can be much smaller than the terms that cancelled in them. */
static double block_tolerance(const mlp *state, double scale, double spread) {
    int64_t tp = state->down->tp->size;
    bool f32 = state->spec->model.dtype == PGR_F32;
    int roundings = (tp == 1 ? 2 : 4) + (f32 ? (int)tp : 0);
    double tf32 = pgr_tolerance_tf32(state->up->tf32);
    double own =
        pgr_tolerance(state->spec->model.dtype, (double)state->spec->model.ffn, roundings) + tf32;
    double inner = pgr_tolerance(PGR_F32, (double)state->spec->model.hidden, 1) + tf32;
    return own + (scale > 0 ? inner * spread / scale : 0);
}

static pgr_status compare_block(const block_reference *reference, pgr_verdict *verdict,
                                pgr_error *error) {
    const mlp *state = reference->state;
    const pgr_reference_linear *down = &state->down_reference;
    int64_t rows[PGR_SAMPLES], hidden = state->inputs.hidden;
    int found = pgr_sample_rows(&state->inputs.tokens, sample_seed(reference), rows);
    double *row = malloc((size_t)hidden * sizeof *row);
    if (!row)
        return pgr_error_set(error, PGR_LIMIT, "no memory to verify the block's output");
    pgr_status status = PGR_OK;
    for (int r = 0; !status && r < found; r++) {
        int64_t cell = own_holder(&state->inputs.tokens) * CELLS + r * PGR_SAMPLES;
        status =
            pgr_fetch_row(state->site, state->y, down->dtype, rows[r], hidden, hidden, row, error);
        for (int c = 0; !status && c < reference->column_count; c++) {
            int64_t column = reference->columns[c];
            double bias = down->has_bias ? pgr_random_value(&down->bias, column, down->dtype) : 0;
            double scale = sqrt(reference->squares[cell + c] + bias * bias);
            double spread = sqrt(reference->spreads[cell + c]);
            pgr_verdict_compare(verdict, "output", rows[r], column, row[column],
                                reference->sums[cell + c] + bias, scale,
                                block_tolerance(state, scale, spread));
        }
    }
    free(row);
    return status;
}

static pgr_status verify_block(mlp *state, int64_t micro_batch, pgr_verdict *verdict,
                               pgr_error *error) {
    const pgr_tokens *tokens = &state->inputs.tokens;
    const pgr_job *job = state->site->job;
    block_reference reference = {.state = state, .micro_batch = micro_batch};
    reference.holders = tokens->dp * tokens->cp * tokens->shares;
    int64_t edges[] = {0, state->inputs.hidden - 1};
    reference.column_count =
        pgr_sample(state->inputs.hidden, edges, 2, sample_seed(&reference) + 2, reference.columns);
    reference.sums = calloc((size_t)reference.holders * 3 * CELLS, sizeof *reference.sums);
    if (!reference.sums)
        return pgr_error_set(error, PGR_LIMIT, "no memory to verify the block's output");
    reference.squares = reference.sums + reference.holders * CELLS;
    reference.spreads = reference.squares + reference.holders * CELLS;

    pgr_status status = PGR_OK;
    int64_t at_once = TOKENS_AT_ONCE / PGR_SAMPLES;
    for (int64_t first = 0; !status && first < reference.holders; first += at_once) {
        int64_t last = first + at_once < reference.holders ? first + at_once : reference.holders;
        status = refer_holders(&reference, first, last, error);
    }
    if (!status)
        status = job->bootstrap_ops->sum(job->bootstrap, reference.sums,
                                         reference.holders * 3 * CELLS, error);
    if (!status)
        status = compare_block(&reference, verdict, error);
    free(reference.sums);
    return status;
}

static pgr_status verify(void *context, int64_t micro_batch, pgr_verdict *verdict,
                         pgr_error *error) {
    mlp *state = context;
    pgr_status status = PGR_OK;
    if (state->up->chunks > 1) /* first: it leaves the gathered rows in the order of ranks */
        status = pgr_mlp_verify_overlap(state, error);
    if (!status)
        status = verify_up(state, micro_batch, verdict, error);
    if (!status)
        status = verify_block(state, micro_batch, verdict, error);
    if (!status)
        status = verify_up_whole(state, verdict, error);
    return status ? status : verify_output_whole(state, verdict, error);
}

/* ---- result -------------------------------------------------------------------------------- */

/* Bytes on the bus per rank, nccl-tests' factors: all-gather and reduce-scatter (n-1)/n, all-reduce
 * 2(n-1)/n of the whole activation. */
static double bus_bytes(const mlp *state) {
    double n = (double)state->up->tp->size;
    double bytes = (double)(state->product.rows * state->inputs.hidden *
                            pgr_dtype_bytes(state->spec->model.dtype));
    return 2 * (n - 1) / n * bytes;
}

static void describe(const mlp *state, pgr_result *result) {
    const pgr_linear *up = state->up, *down = state->down;
    double flops = 2.0 * (double)state->product.rows *
                   (double)(up->width * up->depth + down->width * down->depth);
    pgr_shape shape[] = {{"tokens", state->product.rows},
                         {"hidden", state->inputs.hidden},
                         {"ffn", state->spec->model.ffn},
                         {"ffn_per_rank", up->features}};
    memcpy(result->shape, shape, sizeof shape);
    result->group = "tp";
    result->rates[0] = (pgr_rate){"gflops_per_rank", "GF/s", flops / result->compute.median * 1e-6};
    result->tf32 = up->tf32;
    if (up->tp->size == 1 || up->chunks > 1) /* what is hidden has no time, so no rate */
        return;
    double n = (double)up->tp->size, ms = result->communication.median;
    result->rates[1] = (pgr_rate){"busbw_gb_per_s", "GB/s", pgr_rate_gb(bus_bytes(state), ms)};
    result->rates[2] =
        (pgr_rate){"algbw_gb_per_s", "GB/s", pgr_rate_gb(bus_bytes(state) * n / (n - 1), ms)};
}

pgr_status pgr_mlp_run(pgr_site *site, const pgr_spec *spec, pgr_result *result, pgr_error *error) {
    mlp state = {.site = site, .spec = spec, .overlap = pgr_verdict_start()};
    pgr_steps steps = {prepare, forward, verify, &state};
    pgr_status status = create(&state, error);
    if (!status)
        status = pgr_steps_run(site, spec, &steps, result, error);
    if (!status && state.up->chunks > 1)
        status = pgr_mlp_run_plain(&state, &steps, result, error);
    if (!status)
        describe(&state, result);
    destroy(&state);
    return status;
}
