/* verify.h - the unsharded reference in double precision, and the comparison with it. Private to
 * the workloads. */
#ifndef PGR_VERIFY_H
#define PGR_VERIFY_H

#include "workload.h"

enum { PGR_SAMPLES = 16 }; /* rows and columns that a rank samples, at most */

/* Starts a verdict: good, nothing checked. */
pgr_verdict pgr_verdict_start(void);

/* Compares one element. `scale` is its sqrt(sum (x_i w_i)^2). */
void pgr_verdict_compare(pgr_verdict *verdict, const char *what, int64_t row, int64_t col,
                         double got, double want, double scale, double tolerance);

/* Records `wrong` of `checked` elements that had to be exact; row and col of the first wrong one.
 */
void pgr_verdict_exact(pgr_verdict *verdict, const char *what, int64_t checked, int64_t wrong,
                       int64_t row, int64_t col, double got, double want);

/* Collective. Every rank's verdict becomes the worst of all, with the sum of what was checked. */
pgr_status pgr_verdict_agree(pgr_job *job, pgr_verdict *verdict, pgr_error *error);

/* The tolerance of a sum of `depth` products, accumulated in f32, whose value went through
 * `roundings` roundings to `dtype` on the way (its own storage, stored intermediates, reduction
 * hops): 8 * 2^-24 * sqrt(depth) + 5 * roundings * u, with the unit roundoff u = 2^-8 for bf16 and
 * 2^-24 for f32.
 * The first term bounds a random walk of f32 roundings (Higham, "Accuracy and Stability of
 * Numerical Algorithms", 2002, section 2.8), the second takes outputs of up to four times the
 * scale. */
double pgr_tolerance(pgr_dtype dtype, double depth, int roundings);

/* What is added to that where the operands of the product may be cut to TF32: 5 * 2 * 2^-10, since
 * each of both loses at most 2^-10 of itself. */
double pgr_tolerance_tf32(bool tf32);

/* Up to PGR_SAMPLES distinct indices below `count`, ascending: all of `edges` (in order, -1 and
 * beyond count are left out), the rest drawn from `seed`. Returns how many. */
int pgr_sample(int64_t count, const int64_t *edges, int edge_count, uint64_t seed, int64_t *out);

/* Rows that a rank samples of its tokens: both ends of its share, both sides of its chunk and
 * padding boundaries, the rest at random, the same on ranks that hold the same tokens. */
int pgr_sample_rows(const pgr_tokens *tokens, uint64_t seed, int64_t *rows);

/* A linear layer (unsharded) as the reference sees it: tensors of the generator. */
typedef struct pgr_reference_linear {
    pgr_random weight, bias;
    bool has_bias;
    int64_t input, output; /* output counts both halves of a gated activation */
    pgr_activation activation;
    pgr_dtype dtype;
} pgr_reference_linear;

/* The weights of one output feature: [input], with a gated activation [2][input]. */
typedef struct pgr_reference_feature {
    double *weights; /* owned by the caller: 2 * input doubles */
    double bias[2];
} pgr_reference_feature;

/* GELU (tanh form) and SiLU in double. */
double pgr_reference_gelu(double z);
double pgr_reference_silu(double z);

/* Makes the weights of `feature` (< output, or < output / 2 with a gated activation). */
void pgr_reference_load(const pgr_reference_linear *layer, int64_t feature,
                        pgr_reference_feature *loaded);

/* *value = act(sum_k x_k w_k + b) of the loaded feature; *scale = sqrt of the sum of the squares of
 * its terms (gated: of both factors', each weighed with the other's size). */
void pgr_reference_value(const pgr_reference_linear *layer, const pgr_reference_feature *loaded,
                         const double *x, double *value, double *scale);

/* Which outputs of a layer a rank holds. */
typedef struct pgr_holding {
    pgr_tokens tokens;            /* its rows */
    int64_t first_feature, count; /* its columns: features [first, first + count) */
} pgr_holding;

typedef struct pgr_features_args {
    const char *what;
    const pgr_reference_linear *layer;
    pgr_random input; /* the activations' tensor */
    int64_t micro_batch;
    pgr_status (*holding)(void *context, int64_t rank, pgr_holding *holding, pgr_error *error);
    void *context;
    const void *out; /* this rank's output, [rows, count], device memory */
    pgr_dtype out_dtype;
    double tolerance;
} pgr_features_args;

/* Collective. Compares sampled elements of every rank's output of one layer, whose input is the
 * activations, with the reference; each rank computes the reference of the next rank's samples. */
pgr_status pgr_verify_features(const pgr_site *site, const pgr_features_args *args,
                               pgr_verdict *verdict, pgr_error *error);

/* The activations of one token (a row of a rank's map), as doubles; zeros where it is padding. */
void pgr_reference_token(const pgr_tokens *tokens, int64_t micro_batch, int64_t row,
                         const pgr_random *input, pgr_dtype dtype, int64_t hidden, double *out);

/* Freivalds' check of whole products (Freivalds, "Probabilistic machines can use less running
 * time", 1977): y r = x (W^T r) + b r in double for a random vector r of +-1, one comparison per
 * row, on the scale sqrt(sum_k x_k^2 sum_n w_nk^2 + sum_n b_n^2), which is that of the row's terms.
 * r depends on the seed and the column alone, so that ranks can add their parts.
 *
 * Of a product's inputs (x [m, k], w [n, k], bias [n] or NULL of `args`, in device memory):
 * values[m] = x (W^T r) + b r, squares[m] = the scale's square. */
pgr_status pgr_product_sums(const pgr_site *site, const pgr_linear_args *args, double *values,
                            double *squares, pgr_error *error);

/* Of a result y [rows, cols] in device memory: sums[rows] = y r. */
pgr_status pgr_row_sums(const pgr_site *site, const void *y, pgr_dtype dtype, int64_t ld,
                        int64_t rows, int64_t cols, double *sums, pgr_error *error);

/* Both, and the comparison: y of `args` against its inputs, without an activation. */
pgr_status pgr_verify_product(const pgr_site *site, const char *what, const pgr_linear_args *args,
                              double tolerance, pgr_verdict *verdict, pgr_error *error);

/* Copies one row of device memory to doubles. */
pgr_status pgr_fetch_row(const pgr_site *site, const void *base, pgr_dtype dtype, int64_t row,
                         int64_t ld, int64_t count, double *out, pgr_error *error);

#endif
