/* verify.c - comparison with the reference: verdicts, samples, tolerances. */
#include "verify.h"
#include "bf16.h"
#include "random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pgr_verdict pgr_verdict_start(void) {
    return (pgr_verdict){.ok = true, .rank = -1, .row = -1, .col = -1};
}

/* How bad an error is, so that comparisons with different tolerances can be ranked. */
static double badness(double err, double tolerance) {
    if (isnan(err))
        return INFINITY;
    if (tolerance > 0)
        return err / tolerance;
    return err > 0 ? INFINITY : 0;
}

static void record(pgr_verdict *verdict, const char *what, double err, double tolerance,
                   int64_t row, int64_t col, double got, double want) {
    bool good = err <= tolerance; /* false for NaN */
    bool first = verdict->what[0] == 0;
    bool worse = badness(err, tolerance) > badness(verdict->max_err, verdict->tolerance);
    if (!first && !worse && (good || !verdict->ok))
        return;
    verdict->ok = verdict->ok && good;
    verdict->max_err = isnan(err) ? INFINITY : err;
    verdict->tolerance = tolerance;
    snprintf(verdict->what, sizeof verdict->what, "%s", what);
    verdict->row = row;
    verdict->col = col;
    verdict->got = got;
    verdict->want = want;
}

void pgr_verdict_compare(pgr_verdict *verdict, const char *what, int64_t row, int64_t col,
                         double got, double want, double scale, double tolerance) {
    double difference = fabs(got - want);
    double err = difference == 0 ? 0 : difference / scale;
    verdict->checked++;
    record(verdict, what, err, tolerance, row, col, got, want);
}

void pgr_verdict_exact(pgr_verdict *verdict, const char *what, int64_t checked, int64_t wrong,
                       int64_t row, int64_t col, double got, double want) {
    verdict->checked += checked;
    if (wrong > 0)
        record(verdict, what, (double)wrong, 0, row, col, got, want);
}

pgr_status pgr_verdict_agree(pgr_job *job, pgr_verdict *verdict, pgr_error *error) {
    verdict->rank = job->rank;
    pgr_verdict *all = malloc((size_t)job->size * sizeof *all);
    if (!all)
        return pgr_error_set(error, PGR_LIMIT, "no memory for %lld verdicts", (long long)job->size);
    pgr_status status =
        job->bootstrap_ops->all_gather(job->bootstrap, verdict, all, (int64_t)sizeof *all, error);
    if (!status) {
        pgr_verdict worst = all[0];
        for (int64_t i = 1; i < job->size; i++) {
            int64_t checked = worst.checked + all[i].checked;
            bool ok = worst.ok && all[i].ok;
            if (badness(all[i].max_err, all[i].tolerance) > badness(worst.max_err, worst.tolerance))
                worst = all[i];
            worst.checked = checked;
            worst.ok = ok;
        }
        if (worst.checked == 0) { /* nothing was looked at: that is no success */
            worst.ok = false;
            snprintf(worst.what, sizeof worst.what, "nothing was checked");
        }
        *verdict = worst;
    }
    free(all);
    return status;
}

double pgr_tolerance(pgr_dtype dtype, double depth, int roundings) {
    double unit = dtype == PGR_BF16 ? 0x1p-8 : 0x1p-24;
    return 8 * 0x1p-24 * sqrt(depth) + 5 * roundings * unit;
}

double pgr_tolerance_tf32(bool tf32) {
    return tf32 ? 10 * 0x1p-10 : 0;
}

static int compare_indices(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int add_sample(int64_t *out, int found, int64_t index, int64_t count) {
    if (index < 0 || index >= count || found == PGR_SAMPLES)
        return found;
    for (int i = 0; i < found; i++)
        if (out[i] == index)
            return found;
    out[found] = index;
    return found + 1;
}

int pgr_sample(int64_t count, const int64_t *edges, int edge_count, uint64_t seed, int64_t *out) {
    int found = 0;
    for (int i = 0; i < edge_count; i++)
        found = add_sample(out, found, edges[i], count);
    for (uint32_t draw = 0; draw < 4 * PGR_SAMPLES && found < PGR_SAMPLES; draw++) {
        uint32_t counter[4] = {draw, 0, 0x5a3d1e77u, 0};
        uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
        uint32_t words[4];
        pgr_philox4x32(counter, key, words);
        uint64_t wide = (uint64_t)words[0] << 32 | words[1];
        if (count > 0)
            found = add_sample(out, found, (int64_t)(wide % (uint64_t)count), count);
    }
    qsort(out, (size_t)found, sizeof *out, compare_indices);
    return found;
}

enum { BOUNDARIES = 3 };

/* How many chunks or paddings begin within the local positions; where those after the first
 * `skipped` do, into `first` [BOUNDARIES] or NULL. */
static int64_t boundaries(const pgr_tokens *tokens, int64_t skipped, int64_t *first) {
    int64_t count = 0, token;
    for (int64_t at = pgr_tokens_run(tokens, 0, &token); at < tokens->positions;
         at += pgr_tokens_run(tokens, at, &token), count++)
        if (first && count >= skipped && count < skipped + BOUNDARIES)
            first[count - skipped] = at;
    return count;
}

int pgr_sample_rows(const pgr_tokens *tokens, uint64_t seed, int64_t *rows) {
    int64_t edges[2 + 2 * BOUNDARIES] = {0, tokens->rows - 1};
    int64_t count = boundaries(tokens, 0, NULL), skipped = 0;
    int found = 2;
    if (count > BOUNDARIES) /* packed sequences have many: others with every seed */
        skipped = (int64_t)(seed % (uint64_t)(count - BOUNDARIES + 1));
    int64_t first[BOUNDARIES];
    (void)boundaries(tokens, skipped, first);
    for (int64_t i = 0; i < BOUNDARIES && i < count; i++) {
        edges[found++] = first[i] * tokens->batch - 1;
        edges[found++] = first[i] * tokens->batch;
    }
    uint64_t holder = (uint64_t)((tokens->dp_rank * tokens->cp + tokens->cp_rank) * tokens->shares +
                                 tokens->share);
    return pgr_sample(tokens->rows, edges, found, seed + (holder << 32), rows);
}

/* ---- the reference ------------------------------------------------------------------------- */

double pgr_reference_gelu(double z) {
    return 0.5 * z * (1 + tanh(0.79788456080286535588 * (z + 0.044715 * z * z * z)));
}

double pgr_reference_silu(double z) {
    return z / (1 + exp(-z));
}

void pgr_reference_load(const pgr_reference_linear *layer, int64_t feature,
                        pgr_reference_feature *loaded) {
    int halves = layer->activation == PGR_SWIGLU ? 2 : 1;
    for (int half = 0; half < halves; half++) {
        int64_t row = feature + half * (layer->output / 2);
        pgr_random_values(&layer->weight, row * layer->input, layer->input, layer->dtype,
                          loaded->weights + half * layer->input);
        loaded->bias[half] =
            layer->has_bias ? pgr_random_value(&layer->bias, row, layer->dtype) : 0;
    }
}

/* Sums of products and of their squares, in lanes that the compiler can keep in one register. */
static void dot(const double *x, const double *w, int64_t count, double bias, double *value,
                double *squares) {
    enum { LANES = 8 };
    double sums[LANES] = {0}, square_sums[LANES] = {0};
    int64_t k = 0;
    for (; k + LANES <= count; k += LANES)
        for (int lane = 0; lane < LANES; lane++) {
            double term = x[k + lane] * w[k + lane];
            sums[lane] += term;
            square_sums[lane] += term * term;
        }
    double sum = bias, square = bias * bias;
    for (; k < count; k++) {
        double term = x[k] * w[k];
        sum += term;
        square += term * term;
    }
    for (int lane = 0; lane < LANES; lane++) {
        sum += sums[lane];
        square += square_sums[lane];
    }
    *value = sum;
    *squares = square;
}

void pgr_reference_value(const pgr_reference_linear *layer, const pgr_reference_feature *loaded,
                         const double *x, double *value, double *scale) {
    double z, squares;
    dot(x, loaded->weights, layer->input, loaded->bias[0], &z, &squares);
    if (layer->activation == PGR_SWIGLU) {
        double u, u_squares;
        dot(x, loaded->weights + layer->input, layer->input, loaded->bias[1], &u, &u_squares);
        double gate = pgr_reference_silu(z);
        *value = gate * u;
        /* |d silu| <= 1.1: an error of either factor weighs with the size of the other */
        *scale = sqrt(gate * gate * u_squares + 1.21 * u * u * squares);
        return;
    }
    *value = layer->activation == PGR_GELU ? pgr_reference_gelu(z) : z;
    *scale = sqrt(squares);
}

void pgr_reference_token(const pgr_tokens *tokens, int64_t micro_batch, int64_t row,
                         const pgr_random *input, pgr_dtype dtype, int64_t hidden, double *out) {
    int64_t id = pgr_tokens_id(tokens, micro_batch, row);
    if (id < 0)
        memset(out, 0, (size_t)hidden * sizeof *out);
    else
        pgr_random_values(input, id * hidden, hidden, dtype, out);
}

/* ---- sampled outputs of one layer ---------------------------------------------------------- */

typedef struct samples {
    pgr_holding holding;
    int64_t rows[PGR_SAMPLES], columns[PGR_SAMPLES];
    int row_count, column_count;
} samples;

/* What `rank` samples; every rank knows it of every other. */
static pgr_status sample_rank(const pgr_site *site, const pgr_features_args *args, int64_t rank,
                              samples *out, pgr_error *error) {
    pgr_status status = args->holding(args->context, rank, &out->holding, error);
    if (status)
        return status;
    uint64_t seed = site->seed + (uint64_t)args->micro_batch;
    int64_t edges[] = {0, out->holding.count - 1};
    out->row_count = pgr_sample_rows(&out->holding.tokens, seed, out->rows);
    out->column_count = pgr_sample(out->holding.count, edges, 2, seed + 1, out->columns);
    return PGR_OK;
}

/* Reference values and scales of one rank's samples into its place of `results`. */
static pgr_status refer(const pgr_features_args *args, const samples *sampled, double *values,
                        double *scales, pgr_error *error) {
    int64_t depth = args->layer->input;
    double *scratch = malloc((size_t)(PGR_SAMPLES + 2) * (size_t)depth * sizeof *scratch);
    if (!scratch)
        return pgr_error_set(error, PGR_LIMIT, "no memory to verify %s", args->what);
    pgr_reference_feature loaded = {.weights = scratch + PGR_SAMPLES * depth};
    for (int r = 0; r < sampled->row_count; r++)
        pgr_reference_token(&sampled->holding.tokens, args->micro_batch, sampled->rows[r],
                            &args->input, args->layer->dtype, depth, scratch + r * depth);
    for (int c = 0; c < sampled->column_count; c++) {
        pgr_reference_load(args->layer, sampled->holding.first_feature + sampled->columns[c],
                           &loaded);
        for (int r = 0; r < sampled->row_count; r++)
            pgr_reference_value(args->layer, &loaded, scratch + r * depth,
                                &values[r * PGR_SAMPLES + c], &scales[r * PGR_SAMPLES + c]);
    }
    free(scratch);
    return PGR_OK;
}

static pgr_status compare(const pgr_site *site, const pgr_features_args *args,
                          const samples *sampled, const double *values, const double *scales,
                          pgr_verdict *verdict, pgr_error *error) {
    int64_t count = sampled->holding.count;
    double *row = malloc((size_t)count * sizeof *row);
    if (!row)
        return pgr_error_set(error, PGR_LIMIT, "no memory to verify %s", args->what);
    pgr_status status = PGR_OK;
    for (int r = 0; !status && r < sampled->row_count; r++) {
        status = pgr_fetch_row(site, args->out, args->out_dtype, sampled->rows[r], count, count,
                               row, error);
        for (int c = 0; !status && c < sampled->column_count; c++)
            pgr_verdict_compare(verdict, args->what, sampled->rows[r], sampled->columns[c],
                                row[sampled->columns[c]], values[r * PGR_SAMPLES + c],
                                scales[r * PGR_SAMPLES + c], args->tolerance);
    }
    free(row);
    return status;
}

pgr_status pgr_verify_features(const pgr_site *site, const pgr_features_args *args,
                               pgr_verdict *verdict, pgr_error *error) {
    enum { CELLS = PGR_SAMPLES * PGR_SAMPLES };
    const pgr_job *job = site->job;
    double *results = calloc((size_t)job->size * 2 * CELLS, sizeof *results);
    if (!results)
        return pgr_error_set(error, PGR_LIMIT, "no memory to verify %s", args->what);
    int64_t next = (job->rank + 1) % job->size;
    samples sampled;
    pgr_status status = sample_rank(site, args, next, &sampled, error);
    if (!status)
        status = refer(args, &sampled, results + next * 2 * CELLS,
                       results + next * 2 * CELLS + CELLS, error);
    if (!status)
        status = job->bootstrap_ops->sum(job->bootstrap, results, job->size * 2 * CELLS, error);
    if (!status)
        status = sample_rank(site, args, job->rank, &sampled, error);
    if (!status)
        status = compare(site, args, &sampled, results + job->rank * 2 * CELLS,
                         results + job->rank * 2 * CELLS + CELLS, verdict, error);
    free(results);
    return status;
}

/* ---- reading results ----------------------------------------------------------------------- */

/* One element at `raw`, which may be unaligned. */
static double widen(const char *raw, pgr_dtype dtype) {
    if (dtype == PGR_BF16) {
        pgr_bf16 value;
        memcpy(&value, raw, sizeof value);
        return pgr_bf16_to_f32(value);
    }
    float value;
    memcpy(&value, raw, sizeof value);
    return value;
}

pgr_status pgr_fetch_row(const pgr_site *site, const void *base, pgr_dtype dtype, int64_t row,
                         int64_t ld, int64_t count, double *out, pgr_error *error) {
    int64_t element = pgr_dtype_bytes(dtype);
    /* the raw row goes to the upper half of `out`: widening from the front never overtakes it */
    char *raw = (char *)out + count * ((int64_t)sizeof *out - element);
    const char *from = (const char *)base + row * ld * element;
    pgr_status status =
        site->device->ops->copy(site->device, raw, from, count * element, site->stream, error);
    if (!status)
        status = site->device->ops->stream_sync(site->device, site->stream, error);
    if (status)
        return status;
    for (int64_t i = 0; i < count; i++)
        out[i] = widen(raw + i * element, dtype);
    return PGR_OK;
}
