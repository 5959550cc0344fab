/* workload_mlp.h - what the mlp workload's own run (workload_mlp.c) and its comparison of the
 * overlapped with the plain order (workload_mlp_overlap.c) share. Private to them. */
#ifndef PGR_WORKLOAD_MLP_H
#define PGR_WORKLOAD_MLP_H

#include "workload_run.h"

typedef struct mlp {
    pgr_site *site;
    const pgr_spec *spec;
    pgr_inputs inputs;  /* what enters and leaves the block on this rank */
    pgr_tokens product; /* what the products see: the whole context-parallel share */
    pgr_linear *up, *down;
    void *h; /* [product.rows, up->features] */
    void *y; /* [inputs.tokens.rows, hidden] */
    pgr_reference_linear up_reference, down_reference;
    bool plain;          /* forward takes the plain order, whatever the layers are made for */
    pgr_verdict overlap; /* of the overlapped order against the plain one */
} mlp;

/* Collective over tp. Adds a host array. */
pgr_status pgr_mlp_sum_over_tp(const mlp *state, double *values, int64_t count, pgr_error *error);

/* The scale of the terms x_k w_k and b of an element, where `squares` is the sum of x_k^2: what
 * random weights and biases give on average, over the columns of a row. */
double pgr_mlp_row_scale(const pgr_linear *layer, double squares);

/* The sum of x[i]^2. */
double pgr_mlp_squares(const double *x, int64_t count);

/* Collective over tp. Compares h and y of the forward pass that is done, element by element, with
 * those that the plain order gives (y from the same h), and the gathered rows bit by bit; into
 * state->overlap. Leaves up->gathered in the plain order. */
pgr_status pgr_mlp_verify_overlap(mlp *state, pgr_error *error);

/* Collective. After the run in the overlapped order: times the plain order, compares its last
 * iteration too, and fills what the result says of both. */
pgr_status pgr_mlp_run_plain(mlp *state, const pgr_steps *steps, pgr_result *result,
                             pgr_error *error);

#endif
