/* reopen_test.c - groups that are opened and closed a hundred times leave nothing behind: no
 * communicator of MPI, no file descriptor, no memory. It links MPI to look at its handles.
 *
 *   mpirun -n 4 reopen_test        prints a line per measure from rank 0 */
#include "comm.h"

#include <dirent.h>
#include <malloc.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

enum { WARMUP = 60, ROUNDS = 100 };

/* What may be there after the rounds and was not before, in bytes. Of MPI's lists and malloc's
 * caches, which malloc counts as used: measured 9 to 17 kB (a loop of bare splits and collectives:
 * 5 to 8 kB), and 33 kB after ten times as many rounds. An opening allocates 8 kB for the set of
 * groups, 4 kB for its families, and 0.4 kB or more for each communicator, its task and its
 * identities; losing any of these in each round is far above. The address sanitizer counts exactly:
 * there a few hundred bytes are MPI's, and what is smaller shows too. */
#define HEAP_BOUND 36e3
#define EXACT_BOUND 2e3

static pgr_job *job;
static int failed;

static void must(pgr_status status, const pgr_error *error) {
    if (status == PGR_OK)
        return;
    fprintf(stderr, "rank %lld: %s\n", (long long)job->rank, error->message);
    job->bootstrap_ops->abort(job->bootstrap, 3);
}

/* ---- what could grow ----------------------------------------------------------------------- */

typedef struct measures {
    double communicators, files, bytes;
} measures;

/* The number of a communicator's handle: libraries give the first one that is free, so that each
 * one that is never freed moves it on. */
static double next_communicator(void) {
    MPI_Comm probe;
    if (MPI_Comm_dup(MPI_COMM_SELF, &probe) != MPI_SUCCESS)
        return -1;
    double number = (double)MPI_Comm_c2f(probe);
    MPI_Comm_free(&probe);
    return number;
}

static double open_files(void) {
    double count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder && readdir(folder))
        count++;
    if (folder)
        closedir(folder);
    return count;
}

/* Under the address sanitizer malloc is its own. */
size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static double heap_bytes(void) {
    if (__sanitizer_get_current_allocated_bytes)
        return (double)__sanitizer_get_current_allocated_bytes();
    struct mallinfo2 info = mallinfo2();
    return (double)(info.uordblks + info.hblkhd);
}

static measures measure(void) {
    return (measures){next_communicator(), open_files(), heap_bytes()};
}

/* The largest growth of any rank, at most `bound`. */
static void judge(const char *what, double before, double after, double bound) {
    pgr_error error;
    double growth = after - before;
    must(job->bootstrap_ops->max(job->bootstrap, &growth, 1, &error), &error);
    failed += growth > bound;
    if (job->rank == 0)
        printf("%s %s: %g more after %d rounds, %g allowed\n", growth > bound ? "FAIL" : "ok", what,
               growth, ROUNDS, bound);
}

/* ---- opening ------------------------------------------------------------------------------- */

/* Alike families, ranks in no group, and one that shares. */
static char items[][PGR_NAME_MAX] = {"pp", "dp", "dp-cp", "embedding", "position-embedding"};

static void round_trip(const pgr_plan *plan) {
    pgr_names names = {.count = sizeof items / sizeof items[0], .items = items};
    pgr_groups *groups;
    pgr_error error;
    must(pgr_groups_open_begin(job, plan, &names, &groups, &error), &error);
    must(pgr_groups_open_finish(groups, &error), &error);
    must(pgr_groups_close(groups, &error), &error);
}

int main(void) {
    pgr_error error;
    pgr_spec spec;
    pgr_plan plan;
    if (pgr_job_open(60, &job, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 3;
    }
    pgr_spec_init(&spec);
    spec.parallel.pp = 4;
    spec.parallel.pp_split = 1;
    must(pgr_plan_create(&spec, job->size, &plan, &error), &error);
    pgr_spec_free(&spec);
    for (int i = 0; i < WARMUP; i++)
        round_trip(&plan);
    measures before = measure();
    for (int i = 0; i < ROUNDS; i++)
        round_trip(&plan);
    measures after = measure();
    judge("communicators", before.communicators, after.communicators, 0);
    judge("open files", before.files, after.files, 0);
    judge("bytes of heap", before.bytes, after.bytes,
          __sanitizer_get_current_allocated_bytes ? EXACT_BOUND : HEAP_BOUND);
    must(pgr_job_close(job, &error), &error);
    return failed > 0;
}
