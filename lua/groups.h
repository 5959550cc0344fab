/* groups.h - what `pgrun groups` prints, once nothing can be refused any more. */
#ifndef PGR_GROUPS_H
#define PGR_GROUPS_H

#include "groups_rank.h"
#include "plan.h"

#include <stdio.h>

/* Families at once. All default ones are fewer: 17 that Megatron-Core always has, 64 levels, 3 of
 * optimizer instances, 61 hybrid sizes and 128 axes of a grid. */
#define PGR_GROUPS_FAMILIES_MAX 320
#define PGR_GROUPS_CELLS_MAX 65536   /* of a picture: ranks times families */
#define PGR_GROUPS_GRID_RANKS_MAX 64 /* of the grid below a table */

typedef enum pgr_groups_format {
    PGR_GROUPS_TEXT,
    PGR_GROUPS_JSON,
    PGR_GROUPS_CSV,
    PGR_GROUPS_SVG
} pgr_groups_format;

typedef struct pgr_groups {
    pgr_plan plan;
    char holds[PGR_GROUPS_HOLDS_MAX]; /* what `rank` holds, lines for the text; "" for none */
    pgr_family families[PGR_GROUPS_FAMILIES_MAX];
    int32_t family_count;
    bool families_named;                  /* by --group; else they are all default ones */
    int64_t rank;                         /* without rank_offset, or PGR_NIL for the whole world */
    int64_t gpus_per_node, nvlink_domain; /* below 1 where the config does not give them */
    pgr_groups_format format;
    bool summary; /* counts instead of members; of the whole world, as text or JSON */
} pgr_groups;

/* Refuses what no format can show: a picture of too many cells (PGR_LIMIT). */
pgr_status pgr_groups_check(const pgr_groups *groups, pgr_error *error);

/* Writes the groups to `out` and flushes it. Keeps nothing per rank. PGR_SYSTEM where writing
 * fails. */
pgr_status pgr_groups_print(const pgr_groups *groups, FILE *out, pgr_error *error);

/* How many groups of the family have ranks in more than one block of `block` >= 1 positions, where
 * the first rank is at position `offset`: those that cross nodes or NVLink domains. Closed form
 * where the strides are multiples of the block; else it takes at most 2^20 steps, and is -1 where
 * that is too few. */
int64_t pgr_groups_crossing(const pgr_family *family, int64_t offset, int64_t block);

#endif
