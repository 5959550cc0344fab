/* comm_identity.h - what the members of a group that was just opened tell each other, and what it
 * must be. Internal to the core. */
#ifndef PGR_COMM_IDENTITY_H
#define PGR_COMM_IDENTITY_H

#include "comm.h"

/* What each member tells the others right after opening. Compared byte by byte on arrival, so that
 * no padding may be uninitialised. */
typedef struct pgr_identity {
    int64_t world_rank;
    uint64_t plan_digest;
    char host[64];
    char device[64];
} pgr_identity;

/* Sums that are exact in their dtype whatever the order of adding. */
typedef struct pgr_exact_sums {
    int64_t whole[2];
    float small[4];
} pgr_exact_sums;

void pgr_identity_fill(const pgr_job *job, const pgr_plan *plan, pgr_identity *own);

/* That the member at `place` is the plan's, and has the same plan: else PGR_BACKEND. */
pgr_status pgr_identity_check(const pgr_plan *plan, const pgr_group *group, int64_t place,
                              const pgr_identity *found, pgr_error *error);

/* What a world rank puts into the sums. */
pgr_exact_sums pgr_exact_sums_of(int64_t rank);

/* That the all-reduces of the group's gave what is exact: else PGR_BACKEND. */
pgr_status pgr_exact_sums_check(const pgr_group *group, const pgr_exact_sums *found,
                                pgr_error *error);

/* ---- what opening takes -------------------------------------------------------------------- */

/* A look at the clock and the device. */
typedef struct pgr_measure {
    double clock;
    int64_t left; /* bytes free on the device; PGR_NIL: not measured */
} pgr_measure;

pgr_status pgr_measure_take(const pgr_job *job, pgr_measure *measure, pgr_error *error);

/* Bytes that are free no more; 0 where others gave back more meanwhile; PGR_NIL: not measured. */
int64_t pgr_measure_taken(const pgr_measure *before, const pgr_measure *after);

#endif
