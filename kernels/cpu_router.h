/* cpu_router.h - between the router's plain form and its fast one. */
#ifndef PGR_CPU_ROUTER_H
#define PGR_CPU_ROUTER_H

#include "cpu.h"

/* Scratch for one token; every array has `experts` elements. */
typedef struct router_row {
    float *logit, *score, *biased;
    int32_t *key, *aux_picks, *group_key, *group_picks;
    uint8_t *taken;
} router_row;

/* Routes one token and adds it to the sums. */
void pgr_cpu_router_token(const router_row *row, const pgr_router_args *args, int64_t token);

/* Whether the fast form handles these arguments: softmax without groups, topk and experts within
 * its limits. */
bool pgr_cpu_router_tiled(const pgr_router_args *args);

/* Floats of scratch that it needs, aligned to 64 bytes. */
int64_t pgr_cpu_router_tile_floats(const pgr_router_args *args);

/* Routes all tokens, sixteen at a time. The outputs that sum are zero before. `row` is for the
 * tokens that it leaves to the plain form. */
void pgr_cpu_router_tiles(const pgr_router_args *args, const router_row *row, float *scratch);

#endif
