/* layer_linear.h - what the two orders of a linear layer share: one after the other
 * (layer_linear.c), and in chunks that overlap (layer_overlap.c). Private to them. */
#ifndef PGR_LAYER_LINEAR_H
#define PGR_LAYER_LINEAR_H

#include "layer.h"

/* Keeps the input and makes room for the pre-activation values; nothing where `saved` is NULL. */
pgr_status pgr_linear_save(const pgr_site *site, const pgr_linear *layer, const void *input,
                           pgr_saved *saved, pgr_error *error);

/* The layer's whole product, x [rows, depth] to y [rows, features]. */
pgr_linear_args pgr_linear_product_args(const pgr_linear *layer, const void *x, const void *bias,
                                        void *y, const pgr_saved *saved);

/* Of a row-parallel layer: the bias is added once, after the reduction. With its lap. */
pgr_status pgr_linear_add_bias(const pgr_site *site, const pgr_linear *layer, void *y,
                               pgr_error *error);

/* pgr_linear_forward where layer->chunks > 1. */
pgr_status pgr_linear_overlap(const pgr_site *site, pgr_linear *layer, const void *x, void *y,
                              pgr_saved *saved, pgr_error *error);

#endif
