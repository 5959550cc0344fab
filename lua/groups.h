/* groups.h - what `pgrun groups` prints, once nothing can be refused any more. */
#ifndef PGR_GROUPS_H
#define PGR_GROUPS_H

#include "groups_rank.h"
#include "plan.h"

#include <stdio.h>

#define PGR_GROUPS_FAMILIES_MAX 64 /* of one --group */

typedef enum pgr_groups_format { PGR_GROUPS_TEXT, PGR_GROUPS_JSON } pgr_groups_format;

typedef struct pgr_groups {
    pgr_plan plan;
    char holds[PGR_GROUPS_HOLDS_MAX]; /* what `rank` holds, lines for the text; "" for none */
    pgr_family families[PGR_GROUPS_FAMILIES_MAX];
    int32_t family_count;
    int64_t rank; /* without rank_offset, or PGR_NIL for the whole world */
    pgr_groups_format format;
} pgr_groups;

/* Writes the groups to `out` and flushes it. Keeps nothing per rank. PGR_SYSTEM where writing
 * fails. */
pgr_status pgr_groups_print(const pgr_groups *groups, FILE *out, pgr_error *error);

#endif
