/* bench_open.c - opening every family of a layout, under mpirun: pgrun's opening (one split per
 * distinct partition, then the identity check of each communicator) against a bare MPI_Comm_split
 * and MPI_Comm_free per partition in the same run. Milliseconds of the slowest rank, medians of
 * many.
 *
 *   mpirun -n N bench_open        N a multiple of 8 */
#include "pgrun.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 15 };

static pgr_job *job;

static void must(pgr_status status, const pgr_error *error) {
    if (!status)
        return;
    fprintf(stderr, "rank %lld: %s\n", (long long)job->rank, error->message);
    job->bootstrap_ops->abort(job->bootstrap, 3);
}

static void sync_ranks(void) {
    pgr_error error;
    must(job->bootstrap_ops->barrier(job->bootstrap, &error), &error);
}

/* Seconds to open all families; they are closed again outside the measured time. */
static double open_all(const pgr_plan *plan, const pgr_names *names, int64_t *splits) {
    pgr_error error;
    pgr_groups *groups;
    sync_ranks();
    double start = pgr_clock_seconds();
    must(pgr_groups_open_begin(job, plan, names, &groups, &error), &error);
    must(pgr_groups_open_finish(groups, &error), &error);
    double seconds = pgr_clock_seconds() - start;
    *splits = 0;
    for (int64_t i = 0; i < pgr_groups_count(groups); i++) {
        const pgr_group *group = pgr_groups_at(groups, i);
        *splits += group->comm && !group->shared_with;
    }
    must(pgr_groups_close(groups, &error), &error);
    return seconds;
}

/* Seconds of as many bare splits of the world, with the colours and keys of the partitions that
 * pgrun opens: the first family of each. */
static double split_bare(const pgr_plan *plan) {
    MPI_Comm comms[64];
    pgr_family opened[64];
    int count = 0;
    sync_ranks();
    double start = pgr_clock_seconds();
    for (int32_t i = 0; i < pgr_plan_family_count(plan); i++) {
        pgr_family family = pgr_plan_family_at(plan, i);
        bool known = family.size == 1;
        for (int other = 0; other < count; other++)
            known = known || pgr_family_same(&opened[other], &family);
        if (known)
            continue;
        int64_t group = pgr_family_group(&family, job->rank);
        MPI_Comm_split(MPI_COMM_WORLD, group < 0 ? MPI_UNDEFINED : (int)group,
                       (int)pgr_family_rank(&family, job->rank), &comms[count]);
        opened[count++] = family;
    }
    double seconds = pgr_clock_seconds() - start;
    for (int i = 0; i < count; i++)
        if (comms[i] != MPI_COMM_NULL)
            MPI_Comm_free(&comms[i]);
    return seconds;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median over the rounds of the slowest rank's milliseconds. */
static double median_ms(double *seconds) {
    pgr_error error;
    must(job->bootstrap_ops->max(job->bootstrap, seconds, ROUNDS, &error), &error);
    qsort(seconds, ROUNDS, sizeof *seconds, compare);
    return 1e3 * seconds[ROUNDS / 2];
}

int main(void) {
    pgr_error error;
    pgr_spec spec;
    pgr_plan plan;
    if (pgr_job_open(120, &job, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 3;
    }
    pgr_job_args args = {.device = PGR_DEVICE_CPU, .timeout = 60, .init_timeout = 120};
    must(pgr_job_open_device(job, &args, &error), &error);
    pgr_spec_init(&spec);
    spec.parallel.tp = 2;
    spec.parallel.cp = 2;
    spec.parallel.pp = 2;
    spec.parallel.ep = 2;
    spec.parallel.etp = 1;
    must(pgr_plan_create(&spec, job->size, &plan, &error), &error);
    pgr_names names = {.items = calloc((size_t)pgr_plan_family_count(&plan), PGR_NAME_MAX)};
    for (int32_t i = 0; i < pgr_plan_family_count(&plan); i++)
        snprintf(names.items[names.count++], PGR_NAME_MAX, "%s", pgr_plan_family_at(&plan, i).name);

    double ours[ROUNDS], bare[ROUNDS];
    int64_t splits = 0;
    for (int round = 0; round < ROUNDS; round++) {
        ours[round] = open_all(&plan, &names, &splits);
        bare[round] = split_bare(&plan);
    }
    double our_ms = median_ms(ours), bare_ms = median_ms(bare);
    if (job->rank == 0)
        printf(
            "open %3lld ranks, %lld families, %lld communicators: %8.3f ms, %6.3f per split; bare "
            "MPI_Comm_split %8.3f ms, %6.3f per split; ratio %.2f\n",
            (long long)job->size, (long long)names.count, (long long)splits, our_ms,
            our_ms / (double)splits, bare_ms, bare_ms / (double)splits, our_ms / bare_ms);
    free(names.items);
    pgr_spec_free(&spec);
    must(pgr_job_close(job, &error), &error);
    return 0;
}
