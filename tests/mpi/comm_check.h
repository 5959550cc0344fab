/* comm_check.h - what the files of comm_test share: the job, and checks that every rank's verdict
 * enters. */
#ifndef COMM_CHECK_H
#define COMM_CHECK_H

#include "comm.h"

#include <stdio.h>

extern pgr_job *job;
extern pgr_error error;
extern int failed; /* checks of the current case, on this rank */

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition) && failed++ < 3) {                                                        \
            fprintf(stderr, "rank %d, line %d: %s: ", (int)job->rank, __LINE__, #condition);       \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fprintf(stderr, "\n");                                                                 \
        }                                                                                          \
    } while (0)
#define CHECK_OK(call) CHECK((call) == PGR_OK, "%s", error.message)

/* Every rank's verdict counts; rank 0 prints the line. */
void case_end(const char *name);

/* comm_test_groups.c: the plan's groups, opened; a plan of the whole job with these sizes. */
void test_groups(void);
pgr_plan plan_of(int64_t tp, int64_t cp);
pgr_groups *groups_open(const pgr_plan *plan, const char *const *families, int64_t count);

/* comm_test_collectives.c: on an open communicator, or NULL where this rank has none. */
void test_collectives(pgr_comm *comm, const char *where);
void test_bf16_sum(pgr_comm *comm);
void test_requests(pgr_comm *comm);

/* comm_test_waiting.c: `other` has the same ranks, and is fit for abort alone after it. */
void test_late_counts(pgr_comm *comm, pgr_comm *other);
void test_progress(pgr_comm *comm); /* of 3 ranks or more, takes seconds */

#endif
