/* comm_nccl_requests.c - operations under way over NCCL: from the call to the event behind them,
 * and what is watched while they are waited for. */
#include "comm_nccl.h"
#include "comm_request.h"
#include "deadline.h"

#include <stdlib.h>

/* ---- requests ------------------------------------------------------------------------------ */

static pgr_status operation_failed(const pgr_request *request, pgr_status status,
                                   pgr_error *error) {
    char text[512];
    pgr_request_text(request, text, sizeof text);
    pgr_error_prefix(error, "%s: ", text);
    pgr_nccl_abort_all();
    return status;
}

/* An error of any communicator ends the wait for this one: what it waits for may never come. */
static pgr_status watch(const pgr_nccl_comm *own, pgr_error *error) {
    bool ready;
    if (pgr_nccl_the.aborted)
        return pgr_nccl_refuse(error);
    for (const pgr_nccl_comm *comm = pgr_nccl_the.comms; comm; comm = comm->next) {
        if (!comm->handle || comm->phase != PGR_NCCL_OPEN)
            continue;
        pgr_status status = pgr_nccl_state(comm->base.job, comm->handle, &ready, error);
        if (status != PGR_OK) {
            if (comm != own)
                pgr_error_prefix(
                    error, "seen in family %s, group %lld (world ranks %s): ", comm->base.family,
                    (long long)comm->base.group, comm->base.members);
            return status;
        }
    }
    return pgr_nccl_state(own->base.job, pgr_nccl_the.handle, &ready, error);
}

/* Records the events of what was enqueued, once NCCL has launched it: an event that was recorded
 * before would be done too early. *done: nothing is left to launch. */
static pgr_status launched(pgr_nccl_comm *comm, bool *done, pgr_error *error) {
    pgr_device *device = comm->base.job->device;
    bool ready = false;
    *done = !comm->launching;
    if (!comm->launching || pgr_nccl_the.depth > 0)
        return PGR_OK;
    pgr_status status = pgr_nccl_state(comm->base.job, comm->handle, &ready, error);
    if (!ready)
        return status;
    for (pgr_nccl_pending *pending = comm->pending; pending; pending = pending->next) {
        if (!pending->recorded)
            status = device->ops->event_record(device, pending->event, pending->stream, error);
        if (status != PGR_OK)
            return status;
        pending->recorded = true;
    }
    comm->launching = false;
    *done = true;
    return PGR_OK;
}

pgr_status pgr_nccl_settle(pgr_nccl_comm *comm, const char *what, pgr_error *error) {
    pgr_deadline deadline = pgr_deadline_start(comm->base.timeout);
    int64_t rounds = 0;
    bool done = false;
    while (!done && pgr_nccl_the.depth == 0) {
        pgr_status status = watch(comm, error);
        if (status == PGR_OK)
            status = launched(comm, &done, error);
        if (status == PGR_OK && !done && pgr_deadline_passed(&deadline))
            status = pgr_error_set(error, PGR_TIMEOUT,
                                   "world rank %lld waited %g seconds until NCCL launched the "
                                   "operation %s; a member of the group did not take part",
                                   (long long)comm->base.job->rank, comm->base.timeout, what);
        if (status != PGR_OK)
            return status;
        if (!done)
            pgr_wait_step(&rounds, 0);
    }
    return PGR_OK;
}

/* Those of all communicators: NCCL launches from a thread of its own, so that two that are called
 * one after the other might reach the GPU in another order than on another rank, and wait for each
 * other there. Before 2.24 there is also but one place for what is to be launched. */
static pgr_status settle_all(const pgr_nccl_comm *own, pgr_error *error) {
    pgr_status status = pgr_nccl_the.depth > 0 ? PGR_OK : watch(own, error);
    for (pgr_nccl_comm *comm = pgr_nccl_the.comms; comm && status == PGR_OK; comm = comm->next)
        if (comm->launching)
            status = pgr_nccl_settle(comm, "before it", error);
    return status;
}

static pgr_status pending_take(pgr_nccl_comm *comm, pgr_nccl_pending **pending, pgr_error *error) {
    pgr_device *device = comm->base.job->device;
    pgr_nccl_pending *taken = comm->spare;
    if (taken) {
        comm->spare = taken->next;
    } else {
        taken = calloc(1, sizeof *taken);
        if (!taken)
            return pgr_error_set(error, PGR_LIMIT, "out of memory for a request");
        pgr_status status = device->ops->event_create(device, &taken->event, error);
        if (status != PGR_OK) {
            free(taken);
            return status;
        }
    }
    taken->recorded = false;
    taken->next = comm->pending;
    comm->pending = taken;
    *pending = taken;
    return PGR_OK;
}

static void pending_done(pgr_nccl_comm *comm, pgr_nccl_pending *pending) {
    pgr_nccl_pending **link = &comm->pending;
    while (*link != pending)
        link = &(*link)->next;
    *link = pending->next;
    pending->next = comm->spare;
    comm->spare = pending;
}

pgr_status pgr_nccl_begin(pgr_comm *base, const char *operation, int64_t count, int64_t blocks,
                          pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                          cudaStream_t *queue, pgr_error *error) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)base;
    int64_t bytes;
    if (count < 0 || __builtin_mul_overflow(count, blocks, &bytes) ||
        __builtin_mul_overflow(bytes, pgr_dtype_bytes(dtype), &bytes)) {
        return pgr_error_set(error, PGR_LIMIT, "%s: a count of %lld elements does not fit",
                             operation, (long long)count);
    }
    *request = (pgr_request){
        .comm = base, .operation = operation, .sequence = ++base->sequence, .bytes = bytes};
    pgr_nccl_pending *pending = NULL;
    pgr_status status = pgr_nccl_the.aborted ? pgr_nccl_refuse(error) : settle_all(comm, error);
    if (status == PGR_OK)
        status = pending_take(comm, &pending, error);
    if (status == PGR_OK)
        status = pgr_cuda_queue(base->job->device, stream, queue, error);
    if (status != PGR_OK)
        return operation_failed(request, status, error);
    pending->stream = stream;
    request->state = pending;
    return PGR_OK;
}

pgr_status pgr_nccl_end(pgr_request *request, ncclResult_t result, const char *call,
                        pgr_error *error) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)request->comm;
    bool done;
    pgr_status status = pgr_nccl_check(comm->base.job, result, call, error);
    comm->launching = comm->launching || status == PGR_OK;
    if (status == PGR_OK)
        status = comm->base.identified ? pgr_nccl_settle(comm, "itself", error)
                                       : launched(comm, &done, error);
    return status == PGR_OK ? PGR_OK : operation_failed(request, status, error);
}

pgr_status pgr_nccl_event_wait(pgr_comm *base, pgr_event *event, const char *operation,
                               pgr_error *error) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)base;
    pgr_device *device = base->job->device;
    pgr_deadline deadline = pgr_deadline_start(base->timeout);
    int64_t rounds = 0;
    for (bool done = false; !done;) {
        pgr_status status = watch(comm, error);
        if (status == PGR_OK)
            status = device->ops->event_query(device, event, &done, error);
        if (status == PGR_OK && !done && pgr_deadline_passed(&deadline))
            status = pgr_error_set(error, PGR_TIMEOUT,
                                   "%s in family %s, group %lld (world ranks %s): world rank %lld "
                                   "waited %g seconds for its counts",
                                   operation, base->family, (long long)base->group, base->members,
                                   (long long)base->job->rank, base->timeout);
        if (status != PGR_OK) {
            pgr_nccl_abort_all();
            return status;
        }
        if (!done)
            pgr_wait_step(&rounds, 0);
    }
    return PGR_OK;
}

pgr_status pgr_nccl_test(pgr_request *request, bool *done, pgr_error *error) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)request->comm;
    pgr_nccl_pending *pending = request->state;
    pgr_device *device = comm->base.job->device;
    bool ready;
    *done = true;
    if (!pending)
        return PGR_OK;
    *done = false;
    pgr_status status = watch(comm, error);
    if (status == PGR_OK)
        status = launched(comm, &ready, error);
    if (status == PGR_OK && pending->recorded)
        status = device->ops->event_query(device, pending->event, done, error);
    if (status != PGR_OK) {
        pgr_nccl_abort_all();
        return status;
    }
    if (*done) {
        pending_done(comm, pending);
        request->state = NULL;
    }
    return PGR_OK;
}

/* ---- grouping ------------------------------------------------------------------------------- */

static pgr_status group_failed(const pgr_comm *comm, pgr_status status, pgr_error *error) {
    pgr_error_prefix(error, "family %s, group %lld (world ranks %s): ", comm->family,
                     (long long)comm->group, comm->members);
    pgr_nccl_abort_all();
    return status;
}

pgr_status pgr_nccl_group_start(pgr_comm *comm, pgr_error *error) {
    if (pgr_nccl_the.aborted)
        return pgr_nccl_refuse(error);
    pgr_status status = settle_all((pgr_nccl_comm *)comm, error);
    if (status == PGR_OK)
        status =
            pgr_nccl_check(comm->job, pgr_nccl_the.nccl->GroupStart(), "ncclGroupStart", error);
    if (status != PGR_OK)
        return group_failed(comm, status, error);
    pgr_nccl_the.depth++;
    return PGR_OK;
}

pgr_status pgr_nccl_group_end(pgr_comm *comm, pgr_error *error) {
    if (pgr_nccl_the.depth == 0)
        return pgr_error_set(error, PGR_INTERNAL, "group_end without group_start");
    pgr_nccl_the.depth--;
    if (pgr_nccl_the.aborted) /* NCCL's group has communicators that are no more */
        return pgr_nccl_refuse(error);
    pgr_status status =
        pgr_nccl_check(comm->job, pgr_nccl_the.nccl->GroupEnd(), "ncclGroupEnd", error);
    if (status == PGR_OK)
        status = settle_all((pgr_nccl_comm *)comm, error);
    return status == PGR_OK ? PGR_OK : group_failed(comm, status, error);
}

pgr_status pgr_nccl_stream_wait(pgr_request *request, pgr_stream *stream, pgr_error *error) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)request->comm;
    const pgr_nccl_pending *pending = request->state;
    pgr_device *device = comm->base.job->device;
    if (!pending)
        return PGR_OK;
    pgr_status status = pgr_nccl_settle(comm, "that a stream waits for", error);
    if (status == PGR_OK && !pending->recorded)
        status = pgr_error_set(error, PGR_INTERNAL, "a stream waits for it inside of its group");
    if (status == PGR_OK)
        status = device->ops->stream_wait(device, stream, pending->event, error);
    return status == PGR_OK ? PGR_OK : operation_failed(request, status, error);
}
