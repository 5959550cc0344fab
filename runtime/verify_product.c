/* verify_product.c - Freivalds' check of whole products. */
#include "random.h"
#include "verify.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void fill_signs(uint64_t seed, int64_t count, double *signs) {
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (int64_t i = 0; i < count; i++) {
        uint32_t counter[4] = {(uint32_t)i, (uint32_t)(i >> 32), 0x46726569u, 0};
        uint32_t words[4];
        pgr_philox4x32(counter, key, words);
        signs[i] = words[0] & 1 ? 1.0 : -1.0;
    }
}

/* folded[k] = sum_n r[n] W[n][k] and weight_squares[k] = sum_n W[n][k]^2. */
static pgr_status fold_weight(const pgr_site *site, const pgr_linear_args *args,
                              const double *signs, double *folded, double *weight_squares,
                              double *row, pgr_error *error) {
    memset(folded, 0, (size_t)args->k * sizeof *folded);
    memset(weight_squares, 0, (size_t)args->k * sizeof *weight_squares);
    for (int64_t n = 0; n < args->n; n++) {
        pgr_status status =
            pgr_fetch_row(site, args->w, args->dtype, n, args->ldw, args->k, row, error);
        if (status)
            return status;
        for (int64_t k = 0; k < args->k; k++) {
            folded[k] += signs[n] * row[k];
            weight_squares[k] += row[k] * row[k];
        }
    }
    return PGR_OK;
}

/* b r and the sum of b^2; both 0 without a bias. */
static pgr_status fold_bias(const pgr_site *site, const pgr_linear_args *args, const double *signs,
                            double *row, double *value, double *square, pgr_error *error) {
    *value = *square = 0;
    if (!args->bias)
        return PGR_OK;
    pgr_status status =
        pgr_fetch_row(site, args->bias, args->dtype, 0, args->n, args->n, row, error);
    for (int64_t n = 0; !status && n < args->n; n++) {
        *value += signs[n] * row[n];
        *square += row[n] * row[n];
    }
    return status;
}

pgr_status pgr_product_sums(const pgr_site *site, const pgr_linear_args *args, double *values,
                            double *squares, pgr_error *error) {
    int64_t longest = args->n > args->k ? args->n : args->k;
    double *scratch = malloc((size_t)(args->n + 2 * args->k + longest) * sizeof *scratch);
    if (!scratch)
        return pgr_error_set(error, PGR_LIMIT, "no memory to verify a product");
    double *signs = scratch, *folded = signs + args->n, *weight_squares = folded + args->k;
    double *row = weight_squares + args->k, bias, bias_square;
    fill_signs(site->seed, args->n, signs);
    pgr_status status = fold_bias(site, args, signs, row, &bias, &bias_square, error);
    if (!status)
        status = fold_weight(site, args, signs, folded, weight_squares, row, error);
    for (int64_t m = 0; !status && m < args->m; m++) {
        status = pgr_fetch_row(site, args->x, args->dtype, m, args->ldx, args->k, row, error);
        values[m] = bias;
        squares[m] = bias_square;
        for (int64_t k = 0; !status && k < args->k; k++) {
            values[m] += row[k] * folded[k];
            squares[m] += row[k] * row[k] * weight_squares[k];
        }
    }
    free(scratch);
    return status;
}

pgr_status pgr_row_sums(const pgr_site *site, const void *y, pgr_dtype dtype, int64_t ld,
                        int64_t rows, int64_t cols, double *sums, pgr_error *error) {
    double *signs = malloc((size_t)cols * 2 * sizeof *signs);
    if (!signs)
        return pgr_error_set(error, PGR_LIMIT, "no memory to verify a product");
    double *row = signs + cols;
    fill_signs(site->seed, cols, signs);
    pgr_status status = PGR_OK;
    for (int64_t r = 0; !status && r < rows; r++) {
        status = pgr_fetch_row(site, y, dtype, r, ld, cols, row, error);
        sums[r] = 0;
        for (int64_t c = 0; !status && c < cols; c++)
            sums[r] += signs[c] * row[c];
    }
    free(signs);
    return status;
}

pgr_status pgr_verify_product(const pgr_site *site, const char *what, const pgr_linear_args *args,
                              double tolerance, pgr_verdict *verdict, pgr_error *error) {
    double *want = malloc((size_t)args->m * 3 * sizeof *want + 1);
    if (!want)
        return pgr_error_set(error, PGR_LIMIT, "no memory to verify %s", what);
    double *squares = want + args->m, *got = squares + args->m;
    pgr_status status = pgr_product_sums(site, args, want, squares, error);
    if (!status)
        status =
            pgr_row_sums(site, args->y, args->y_dtype, args->ldy, args->m, args->n, got, error);
    for (int64_t m = 0; !status && m < args->m; m++)
        pgr_verdict_compare(verdict, what, m, -1, got[m], want[m], sqrt(squares[m]), tolerance);
    free(want);
    return status;
}
