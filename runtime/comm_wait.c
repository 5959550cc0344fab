/* comm_wait.c - waiting for requests, against a deadline that progress moves. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "comm_request.h"
#include "deadline.h"

#include <sched.h>

/* Looks before the core is given away: some where each rank has a core of its own, none where ranks
 * share cores. */
static int64_t spin_rounds(const pgr_job *job) {
    static int64_t cores;
    if (cores == 0) {
        cpu_set_t set;
        cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    }
    return job->local_size <= cores ? 2000 : 0;
}

static pgr_status request_timeout(const pgr_request *request, pgr_error *error) {
    const pgr_comm *comm = request->comm;
    char text[512];
    pgr_request_text(request, text, sizeof text);
    pgr_error_set(
        error, PGR_TIMEOUT,
        "%s: world rank %lld waited %g seconds without progress (%llu of its parts were done "
        "before); a member of the group did not take part, or one part takes longer than that (a "
        "larger run.timeout waits longer)",
        text, (long long)comm->job->rank, comm->timeout, (unsigned long long)request->progress);
    if (comm->ops->leave)
        comm->ops->leave(comm->job, true, NULL);
    return PGR_TIMEOUT;
}

pgr_status pgr_request_wait(pgr_request *request, pgr_error *error) {
    if (!request->state)
        return PGR_OK;
    pgr_comm *comm = request->comm;
    pgr_deadline deadline = pgr_deadline_start(comm->timeout);
    int64_t rounds = 0, spin = spin_rounds(comm->job);
    for (;;) {
        bool done = false;
        uint64_t progress = request->progress;
        pgr_status status = comm->ops->test(request, &done, error);
        if (status != PGR_OK) {
            char text[512];
            pgr_request_text(request, text, sizeof text);
            pgr_error_prefix(error, "%s: ", text);
            return status;
        }
        if (done)
            return PGR_OK;
        if (request->progress != progress)
            deadline = pgr_deadline_start(comm->timeout);
        else if (pgr_deadline_passed(&deadline))
            return request_timeout(request, error);
        pgr_wait_step(&rounds, spin);
    }
}
