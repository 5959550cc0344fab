/* workload.h - what a run does with the layers: verifies them, then times them. Each workload gives
 * one result, the same on every rank. */
#ifndef PGR_WORKLOAD_H
#define PGR_WORKLOAD_H

#include "layer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- verification -------------------------------------------------------------------------- */

/* The outcome of comparing results with a reference. An error is |got - want| / scale, the scale
 * of a sum being sqrt(sum (x_i w_i)^2) over its terms (bias included), so that it does not depend
 * on cancellation; exact comparisons have tolerance 0 and count wrong elements. NaN fails. */
typedef struct pgr_verdict {
    bool ok;
    int64_t checked;  /* elements compared */
    double max_err;   /* of the comparison that is worst relative to its tolerance */
    double tolerance; /* of that comparison */
    char what[64];    /* its name: "output", "up product", "indices" */
    int64_t rank;     /* where: world rank, */
    int64_t row, col; /* local row and column */
    double got, want;
} pgr_verdict;

/* ---- results ------------------------------------------------------------------------------- */

/* Milliseconds of the slowest rank per iteration. */
typedef struct pgr_times {
    double min, median, p95;
    int64_t iterations;
} pgr_times;

typedef struct pgr_shape {
    const char *name; /* "tokens", "hidden" */
    int64_t value;
} pgr_shape;

typedef struct pgr_rate {
    const char *name; /* in the JSON row, with its unit: "gflops_per_rank", "busbw_gb_per_s" */
    const char *unit; /* after the number in the table: "GF/s" */
    double value;
} pgr_rate;

enum { PGR_SHAPES_MAX = 8, PGR_RATES_MAX = 4 };

typedef struct pgr_result {
    const char *workload;
    pgr_shape shape[PGR_SHAPES_MAX]; /* of one rank; unused ones have no name */
    pgr_dtype dtype;
    int64_t ranks;
    const char *group; /* the family that it communicates over */
    const char *device, *comm;
    pgr_verdict verify;
    pgr_times time, compute, communication;
    pgr_rate rates[PGR_RATES_MAX];
} pgr_result;

/* ---- workloads ----------------------------------------------------------------------------- */

/* Sets *names (owned by the caller, free(names->items)) to the families that the spec's workloads
 * use, in no order and each once; with run.families, those instead. PGR_INVALID where a given list
 * lacks one that a workload needs and whose groups are larger than one, or a family that does not
 * exist. */
pgr_status pgr_workload_families(const pgr_spec *spec, const pgr_plan *plan, pgr_names *names,
                                 pgr_error *error);

/* Checks that the spec has what its workloads need and that the sizes divide: every problem found,
 * a line each, with the values that would do. PGR_INVALID otherwise. */
pgr_status pgr_workload_check(const pgr_spec *spec, const pgr_plan *plan, pgr_error *error);

/* Whether the run needs what the CUDA device does not have yet (communication over MPI of a family
 * whose groups are larger than one, a router of more than 1024 experts); what, into `text`. */
bool pgr_workload_cuda_lacks(const pgr_spec *spec, const pgr_plan *plan, const pgr_names *families,
                             char *text, size_t bytes);

/* Collective over the whole job. Runs one workload on the open groups. PGR_OK also where the
 * verification failed: the result says so. */
pgr_status pgr_workload_run(pgr_job *job, const pgr_spec *spec, const pgr_plan *plan,
                            const pgr_groups *groups, pgr_workload workload, pgr_result *result,
                            pgr_error *error);

#ifdef __cplusplus
}
#endif
#endif
