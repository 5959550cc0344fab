/* comm_identity.c - the identity check of a group: members, their order, and sums that are exact.
 */
#include "comm_identity.h"
#include "deadline.h"

#include <string.h>

void pgr_identity_fill(const pgr_job *job, const pgr_plan *plan, pgr_identity *own) {
    memset(own, 0, sizeof *own);
    own->world_rank = job->rank;
    own->plan_digest = pgr_plan_digest(plan);
    memcpy(own->host, job->host, sizeof own->host);
    if (job->device)
        memcpy(own->device, job->device->identity, sizeof own->device);
}

pgr_status pgr_identity_check(const pgr_plan *plan, const pgr_group *group, int64_t place,
                              const pgr_identity *found, pgr_error *error) {
    int64_t wanted = pgr_family_member(&group->family, group->index, place);
    if (found->world_rank != wanted) {
        return pgr_error_set(error, PGR_BACKEND,
                             "family %s, group %lld, place %lld: the communicator has world rank "
                             "%lld (host %.63s, device %.63s) where the plan has %lld",
                             group->family.name, (long long)group->index, (long long)place,
                             (long long)found->world_rank, found->host, found->device,
                             (long long)wanted);
    }
    if (found->plan_digest != pgr_plan_digest(plan)) {
        return pgr_error_set(error, PGR_BACKEND,
                             "family %s, group %lld, place %lld: world rank %lld (host %.63s) has "
                             "another plan: digest %016llx there, %016llx here",
                             group->family.name, (long long)group->index, (long long)place,
                             (long long)found->world_rank, found->host,
                             (unsigned long long)found->plan_digest,
                             (unsigned long long)pgr_plan_digest(plan));
    }
    return PGR_OK;
}

/* A wide integer, and small ones that stay exact in f32 for groups of up to 2^17 ranks. */
pgr_exact_sums pgr_exact_sums_of(int64_t rank) {
    return (pgr_exact_sums){.whole = {(rank + 1) * 4294967311, rank * rank - 7},
                            .small = {(float)(rank % 64 + 1), (float)(rank % 61), 1, -2}};
}

pgr_status pgr_exact_sums_check(const pgr_group *group, const pgr_exact_sums *found,
                                pgr_error *error) {
    pgr_exact_sums want;
    memset(&want, 0, sizeof want);
    for (int64_t i = 0; i < group->size; i++) {
        pgr_exact_sums one = pgr_exact_sums_of(pgr_family_member(&group->family, group->index, i));
        for (int j = 0; j < 2; j++)
            want.whole[j] += one.whole[j];
        for (int j = 0; j < 4; j++)
            want.small[j] += one.small[j];
    }
    pgr_status status = PGR_OK;
    for (int j = 0; j < 2 && status == PGR_OK; j++) {
        if (found->whole[j] != want.whole[j]) {
            status = pgr_error_set(error, PGR_BACKEND,
                                   "family %s, group %lld: an all-reduce of i64 gave %lld where "
                                   "%lld is exact",
                                   group->family.name, (long long)group->index,
                                   (long long)found->whole[j], (long long)want.whole[j]);
        }
    }
    for (int j = 0; j < 4 && status == PGR_OK; j++) {
        if (!(found->small[j] == want.small[j])) {
            status = pgr_error_set(error, PGR_BACKEND,
                                   "family %s, group %lld: an all-reduce of f32 gave %.9g where "
                                   "%.9g is exact",
                                   group->family.name, (long long)group->index,
                                   (double)found->small[j], (double)want.small[j]);
        }
    }
    return status;
}

/* ---- what opening takes -------------------------------------------------------------------- */

pgr_status pgr_measure_take(const pgr_job *job, pgr_measure *measure, pgr_error *error) {
    pgr_measure made = {.clock = pgr_clock_seconds(), .left = PGR_NIL};
    pgr_device *device = job->device;
    pgr_status status =
        device ? device->ops->memory_left(device, &made.left, error) : PGR_UNSUPPORTED;
    if (status != PGR_OK && status != PGR_UNSUPPORTED)
        return status;
    if (error) /* that nothing is measured is no error */
        error->message[0] = '\0';
    *measure = made;
    return PGR_OK;
}

int64_t pgr_measure_taken(const pgr_measure *before, const pgr_measure *after) {
    if (before->left == PGR_NIL || after->left == PGR_NIL)
        return PGR_NIL;
    return before->left > after->left ? before->left - after->left : 0;
}
