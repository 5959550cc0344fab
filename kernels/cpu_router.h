/* cpu_router.h - between the router's plain form and its fast one, and between the fast form and
 * the steps of it that have a form for each instruction set. */
#ifndef PGR_CPU_ROUTER_H
#define PGR_CPU_ROUTER_H

#include "cpu.h"

/* Scratch for one token; every array has `experts` elements. */
typedef struct router_row {
    float *logit, *score, *biased;
    int32_t *key, *score_key, *aux_picks, *group_key, *group_picks;
} router_row;

/* Routes one token and adds it to the sums. */
void pgr_cpu_router_token(const router_row *row, const pgr_router_args *args, int64_t token);

/* ---- the fast form ------------------------------------------------------------------------- */

/* Whether the fast form handles these arguments: softmax without groups, topk and experts within
 * its limits. */
bool pgr_cpu_router_tiled(const pgr_router_args *args);

/* Floats of scratch that it needs, aligned to 64 bytes. */
int64_t pgr_cpu_router_tile_floats(const pgr_router_args *args);

/* Routes all tokens, sixteen at a time. The outputs that sum are zero before. `row` is for the
 * tokens that it leaves to the plain form. */
void pgr_cpu_router_tiles(const pgr_router_args *args, const router_row *row, float *scratch);

/* ---- its steps for an instruction set ------------------------------------------------------ */

enum {
    ROUTER_LANES = 16, /* tokens of a tile */
    ROUTER_TOPK_MAX = 8,
    ROUTER_EXPERTS_MAX = 1024
};

#define ROUTER_ALIGNED __attribute__((aligned(64)))

/* The best two logits of each token and their experts; of equal ones, the lowest experts. */
typedef struct router_two {
    float value[2][ROUTER_LANES] ROUTER_ALIGNED;
    float expert[2][ROUTER_LANES] ROUTER_ALIGNED; /* whole numbers: they share the vectors' type */
} router_two;

/* The best logits of each token, sorted. */
typedef struct router_best {
    float value[ROUTER_TOPK_MAX][ROUTER_LANES] ROUTER_ALIGNED;
} router_best;

/* Sixteen rows of `experts` logits each; what a NaN does to the values is undefined; `tile` is
 * [experts][16], aligned to 64 bytes. */
typedef struct router_ops {
    /* Writes the tile: the rows' transpose. */
    void (*transpose)(const float *const *rows, int64_t experts, float *tile);
    /* Reads the tile. */
    void (*two)(const float *tile, int64_t experts, router_two *two);
    /* Writes the tile too; values down to `topk`. */
    void (*best)(const float *const *rows, int64_t experts, int64_t topk, float *tile,
                 router_best *best);
} router_ops;

/* The forms that are fastest on the machine that runs this. */
router_ops pgr_cpu_router_ops(void);

#endif
