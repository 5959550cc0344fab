/* workload_run.h - what the workloads share: a site, inputs, iterations. Private to them. */
#ifndef PGR_WORKLOAD_RUN_H
#define PGR_WORKLOAD_RUN_H

#include "verify.h"
#include "workload.h"

/* The activations that a rank holds: the tensor "activations", [samples, seq_len, hidden]. */
typedef struct pgr_inputs {
    pgr_tokens tokens;
    int64_t hidden;
    pgr_dtype dtype;
    pgr_random random;
    void *x;        /* [tokens.rows, hidden], device memory */
    int64_t *ids;   /* [tokens.rows], device memory; -1 is padding */
    uint8_t *valid; /* [tokens.rows], device memory */
    int64_t *host_ids;
    uint8_t *host_valid;
} pgr_inputs;

pgr_status pgr_inputs_create(const pgr_site *site, const pgr_tokens *tokens, int64_t hidden,
                             pgr_dtype dtype, pgr_inputs *inputs, pgr_error *error);
void pgr_inputs_free(const pgr_site *site, pgr_inputs *inputs);

/* Makes x, ids and valid those of a micro batch. */
pgr_status pgr_inputs_fill(const pgr_site *site, pgr_inputs *inputs, int64_t micro_batch,
                           pgr_error *error);

/* One workload's steps. prepare makes the inputs of a micro batch and poisons every buffer (not
 * timed); forward is what is timed; verify compares the outputs of that micro batch. */
typedef struct pgr_steps {
    pgr_status (*prepare)(void *state, int64_t micro_batch, pgr_error *error);
    pgr_status (*forward)(void *state, pgr_error *error);
    pgr_status (*verify)(void *state, int64_t micro_batch, pgr_verdict *verdict, pgr_error *error);
    void *state;
} pgr_steps;

/* Collective. Micro batch 0 is verified before anything is timed; then warm-up and timed
 * iterations, each on a micro batch of its own; then the last timed one is verified too. Fills the
 * result's verdict and times (the slowest rank per iteration). */
pgr_status pgr_steps_run(pgr_site *site, const pgr_spec *spec, const pgr_steps *steps,
                         pgr_result *result, pgr_error *error);

/* Collective. The warm-up and timed iterations alone: fills the result's times. */
pgr_status pgr_steps_time(pgr_site *site, const pgr_spec *spec, const pgr_steps *steps,
                          pgr_result *result, pgr_error *error);

/* Minimum, median and 95th percentile (nearest rank) of `count` > 0 times, which it sorts. */
pgr_times pgr_times_summarize(double *milliseconds, int64_t count);

/* bytes on the bus over the median time, GB/s: nccl-tests' busbw with its factors in `bus_bytes`.
 */
double pgr_rate_gb(double bus_bytes, double milliseconds);

pgr_status pgr_mlp_run(pgr_site *site, const pgr_spec *spec, pgr_result *result, pgr_error *error);
pgr_status pgr_router_run(pgr_site *site, const pgr_spec *spec, pgr_result *result,
                          pgr_error *error);
pgr_status pgr_context_run(pgr_site *site, const pgr_spec *spec, pgr_result *result,
                           pgr_error *error);

#endif
