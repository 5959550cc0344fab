/* comm_staged.c - communicators over host memory for ranks whose memory is a GPU's: opening,
 * closing, operations and their requests. */
#include "comm_staged.h"
#include "comm_request.h"

#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES ((int64_t)32 << 20)
#define PIECE_BYTES_MOST ((int64_t)1 << 40) /* sums and doubles of it stay within 63 bits */

/* Communicators that were given up while the worker was inside of a call that did not come back: it
 * may still touch them, so that they stay until the process ends. */
static pgr_staged_comm *lost;

/* Bytes of pinned memory of a piece; tests make many pieces of little data. The same on all ranks,
 * since the pieces of an operation must be. */
static int64_t piece_bytes(void) {
    const char *given = getenv("PGRUN_STAGED_BYTES");
    long long number = given ? atoll(given) : 0;
    if (number > PIECE_BYTES_MOST)
        return PIECE_BYTES_MOST;
    return number > 0 ? number : PIECE_BYTES;
}

/* ---- opening and closing ------------------------------------------------------------------- */

static pgr_status open_begin(const pgr_comm_open_args *args, pgr_comm **comm, pgr_error *error) {
    const pgr_comm_ops *inner_ops = args->job->staged_ops;
    if (!inner_ops || !args->job->device)
        return pgr_error_set(error, PGR_INTERNAL, "family %s: staged without %s", args->family,
                             inner_ops ? "a device" : "a backend for host memory");
    pgr_staged_comm *opened = calloc(1, sizeof *opened);
    if (!opened)
        return pgr_error_set(error, PGR_LIMIT, "out of memory for a communicator");
    pgr_status status = inner_ops->open_begin(args, &opened->inner, error);
    if (status != PGR_OK) {
        free(opened);
        return status;
    }
    opened->base = (pgr_comm){.ops = &pgr_staged_comm_ops,
                              .job = args->job,
                              .group = args->group,
                              .rank = args->rank,
                              .size = args->size,
                              .timeout = args->timeout};
    strncpy(opened->base.family, args->family, sizeof opened->base.family - 1);
    opened->piece_bytes = piece_bytes();
    *comm = &opened->base;
    return PGR_OK;
}

/* The streams of its copies, above computation as communication is; and the worker. */
static pgr_status start(pgr_staged_comm *comm, pgr_error *error) {
    pgr_device *device = comm->base.job->device;
    pgr_status status = PGR_OK;
    if (!comm->in)
        status = device->ops->stream_create(device, 1, &comm->in, error);
    if (status == PGR_OK && !comm->out)
        status = device->ops->stream_create(device, 1, &comm->out, error);
    if (status == PGR_OK)
        status = pgr_staged_worker_enter(error);
    comm->open = status == PGR_OK;
    return status;
}

static pgr_status open_poll(pgr_comm *base, bool *done, pgr_error *error) {
    pgr_staged_comm *comm = (pgr_staged_comm *)base;
    *done = true;
    if (comm->open)
        return PGR_OK;
    pgr_status status = comm->inner->ops->open_poll(comm->inner, done, error);
    if (status != PGR_OK || !*done)
        return status;
    base->size = comm->inner->size;
    return base->size > 0 ? start(comm, error) : PGR_OK;
}

/* All that is this communicator's own: no operation is under way, or the worker has dropped them.
 */
static void comm_free(pgr_staged_comm *comm) {
    pgr_device *device = comm->base.job->device;
    device->ops->stream_free(device, comm->in); /* waits for the copies */
    device->ops->stream_free(device, comm->out);
    pgr_staged_pieces_free(comm);
    while (comm->every) {
        pgr_staged_operation *operation = comm->every;
        comm->every = operation->other;
        device->ops->event_free(device, operation->ready);
        free(operation->v);
        free(operation);
    }
    free(comm);
}

/* Requests of operations under way end with it. */
static void comm_abort(pgr_comm *base) {
    pgr_staged_comm *comm = (pgr_staged_comm *)base;
    pgr_comm *inner = comm->inner;
    if (comm->open && comm->under_way > 0 && !pgr_staged_drop(comm)) {
        comm->lost = lost;
        lost = comm;
        return;
    }
    if (comm->open)
        pgr_staged_worker_leave();
    comm_free(comm);
    inner->ops->abort(inner);
}

static pgr_status comm_close(pgr_comm *base, pgr_error *error) {
    pgr_staged_comm *comm = (pgr_staged_comm *)base;
    pgr_comm *inner = comm->inner;
    if (comm->under_way > 0 || !comm->open) {
        pgr_status status = pgr_error_set(error, PGR_INTERNAL,
                                          "family %s, group %lld: closed with operations under way",
                                          base->family, (long long)base->group);
        comm_abort(base);
        return status;
    }
    pgr_staged_worker_leave();
    comm_free(comm);
    return inner->ops->close(inner, error);
}

/* ---- requests ------------------------------------------------------------------------------ */

static pgr_status call_failed(const pgr_request *request, pgr_status status, pgr_error *error) {
    char text[512];
    pgr_request_text(request, text, sizeof text);
    pgr_error_prefix(error, "%s: ", text);
    return status;
}

/* The communicator's error, as an operation tells it: its own, or one before it. */
static pgr_status broken(const pgr_request *request, pgr_error *error) {
    const pgr_staged_comm *comm = (const pgr_staged_comm *)request->comm;
    if (error) {
        *error = comm->error;
        if (comm->culprit_sequence != request->sequence)
            pgr_error_prefix(error, "%s number %llu %s it failed: ", comm->culprit,
                             (unsigned long long)comm->culprit_sequence,
                             comm->culprit_sequence < request->sequence ? "before" : "after");
    }
    return comm->error.status;
}

static pgr_status operation_take(pgr_staged_comm *comm, pgr_staged_operation **operation,
                                 pgr_error *error) {
    pgr_device *device = comm->base.job->device;
    pgr_staged_operation *taken = comm->spare;
    if (taken) {
        comm->spare = taken->next;
        *operation = taken;
        return PGR_OK;
    }
    taken = calloc(1, sizeof *taken);
    if (!taken)
        return pgr_error_set(error, PGR_LIMIT, "out of memory for a request");
    pgr_status status = device->ops->event_create(device, &taken->ready, error);
    if (status != PGR_OK) {
        free(taken);
        return status;
    }
    taken->other = comm->every;
    comm->every = taken;
    *operation = taken;
    return PGR_OK;
}

static void operation_return(pgr_staged_comm *comm, pgr_staged_operation *operation) {
    operation->next = comm->spare;
    comm->spare = operation;
}

/* The arguments of a call, of which each operation uses some. */
typedef struct call_args {
    const char *name;
    pgr_staged_kind kind;
    const void *send;
    void *receive;
    int64_t count, blocks; /* elements of a block; blocks that `bytes` of the request counts */
    pgr_dtype dtype;
    pgr_reduce reduce;
    int64_t peer;
    const int64_t *v[4]; /* of an all-to-all-v */
    bool v_on_device;
    pgr_event *v_ready;
} call_args;

/* Counts of the host are copied here, those of the device when they are there. */
static pgr_status take_counts(pgr_staged_operation *operation, const call_args *call,
                              pgr_error *error) {
    int64_t size = operation->comm->base.size;
    if (!call->v[0])
        return PGR_OK;
    if (!operation->v)
        operation->v = malloc((size_t)(4 * size) * sizeof *operation->v);
    if (!operation->v)
        return pgr_error_set(error, PGR_LIMIT, "out of memory for the counts of %lld ranks",
                             (long long)size);
    for (int i = 0; i < 4; i++) {
        operation->device_v[i] = call->v[i];
        if (!call->v_on_device)
            memcpy(operation->v + i * size, call->v[i], (size_t)size * sizeof **call->v);
    }
    operation->v_state = call->v_on_device ? PGR_STAGED_COUNTS_LATE : PGR_STAGED_COUNTS_HERE;
    operation->v_ready = call->v_ready;
    return PGR_OK;
}

static void operation_fill(pgr_staged_operation *operation, const call_args *call,
                           const pgr_request *request) {
    pgr_event *ready = operation->ready;
    int64_t *v = operation->v;
    *operation = (pgr_staged_operation){.other = operation->other,
                                        .comm = (pgr_staged_comm *)request->comm,
                                        .name = call->name,
                                        .sequence = request->sequence,
                                        .kind = call->kind,
                                        .send = call->send,
                                        .receive = call->receive,
                                        .count = call->count,
                                        .dtype = call->dtype,
                                        .reduce = call->reduce,
                                        .peer = call->peer,
                                        .v = v,
                                        .ready = ready};
    pgr_staged_cut(operation);
}

static pgr_status check_call(const pgr_comm *comm, const call_args *call, pgr_error *error) {
    int64_t bytes;
    if (call->count < 0 || __builtin_mul_overflow(call->count, call->blocks, &bytes) ||
        __builtin_mul_overflow(bytes, (int64_t)sizeof(double), &bytes))
        return pgr_error_set(error, PGR_LIMIT, "%s: a count of %lld elements does not fit",
                             call->name, (long long)call->count);
    if (call->peer < 0 || call->peer >= comm->size)
        return pgr_error_set(error, PGR_INTERNAL, "%s: rank %lld of a group of %lld", call->name,
                             (long long)call->peer, (long long)comm->size);
    return PGR_OK;
}

/* Starts an operation: behind what is on `stream` now. One of nothing is done. */
static pgr_status begin(pgr_comm *base, const call_args *call, pgr_stream *stream,
                        pgr_request *request, pgr_error *error) {
    pgr_staged_comm *comm = (pgr_staged_comm *)base;
    pgr_device *device = base->job->device;
    pgr_status status = check_call(base, call, error);
    if (status != PGR_OK)
        return status;
    *request = (pgr_request){.comm = base,
                             .operation = call->name,
                             .sequence = ++base->sequence,
                             .bytes = call->count * call->blocks * pgr_dtype_bytes(call->dtype)};
    if (atomic_load(&comm->broken))
        return call_failed(request, broken(request, error), error);
    pgr_staged_operation *operation = NULL;
    status = operation_take(comm, &operation, error);
    if (status != PGR_OK)
        return call_failed(request, status, error);
    operation_fill(operation, call, request);
    status = take_counts(operation, call, error);
    if (status == PGR_OK && operation->total > 0)
        status = device->ops->event_record(device, operation->ready, stream, error);
    if (status != PGR_OK || operation->total == 0) {
        operation_return(comm, operation);
        return status == PGR_OK ? PGR_OK : call_failed(request, status, error);
    }
    request->state = operation;
    comm->under_way++;
    pgr_staged_submit(operation);
    return PGR_OK;
}

static pgr_status request_test(pgr_request *request, bool *done, pgr_error *error) {
    pgr_staged_comm *comm = (pgr_staged_comm *)request->comm;
    pgr_staged_operation *operation = request->state;
    *done = true;
    if (!operation)
        return PGR_OK;
    int state = atomic_load(&operation->state);
    request->progress = atomic_load(&operation->progress);
    *done = state == PGR_STAGED_DONE;
    if (state == PGR_STAGED_FAILED)
        return broken(request, error);
    if (*done) {
        request->state = NULL;
        comm->under_way--;
        operation_return(comm, operation);
    }
    return PGR_OK;
}

/* ---- operations ---------------------------------------------------------------------------- */

static pgr_status all_reduce(pgr_comm *comm, const void *send, void *receive, int64_t count,
                             pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                             pgr_request *request, pgr_error *error) {
    call_args made = {.name = "all-reduce",
                      .kind = PGR_STAGED_ALL_REDUCE,
                      .send = send,
                      .receive = receive,
                      .count = count,
                      .blocks = 1,
                      .dtype = dtype,
                      .reduce = reduce};
    return begin(comm, &made, stream, request, error);
}

static pgr_status reduce_scatter(pgr_comm *comm, const void *send, void *receive, int64_t count,
                                 pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                                 pgr_request *request, pgr_error *error) {
    call_args made = {.name = "reduce-scatter",
                      .kind = PGR_STAGED_REDUCE_SCATTER,
                      .send = send,
                      .receive = receive,
                      .count = count,
                      .blocks = comm->size,
                      .dtype = dtype,
                      .reduce = reduce};
    return begin(comm, &made, stream, request, error);
}

static pgr_status all_gather(pgr_comm *comm, const void *send, void *receive, int64_t count,
                             pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                             pgr_error *error) {
    call_args made = {.name = "all-gather",
                      .kind = PGR_STAGED_ALL_GATHER,
                      .send = send,
                      .receive = receive,
                      .count = count,
                      .blocks = comm->size,
                      .dtype = dtype};
    return begin(comm, &made, stream, request, error);
}

static pgr_status broadcast(pgr_comm *comm, void *data, int64_t count, pgr_dtype dtype,
                            int64_t root, pgr_stream *stream, pgr_request *request,
                            pgr_error *error) {
    call_args made = {.name = "broadcast",
                      .kind = PGR_STAGED_BROADCAST,
                      .send = data,
                      .receive = data,
                      .count = count,
                      .blocks = 1,
                      .dtype = dtype,
                      .peer = root};
    return begin(comm, &made, stream, request, error);
}

static pgr_status all_to_all(pgr_comm *comm, const void *send, void *receive, int64_t count,
                             pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                             pgr_error *error) {
    call_args made = {.name = "all-to-all",
                      .kind = PGR_STAGED_ALL_TO_ALL,
                      .send = send,
                      .receive = receive,
                      .count = count,
                      .blocks = comm->size,
                      .dtype = dtype};
    return begin(comm, &made, stream, request, error);
}

static call_args all_to_all_v_args(const void *send, void *receive, int64_t count,
                                   pgr_dtype dtype) {
    return (call_args){.name = "all-to-all-v",
                       .kind = PGR_STAGED_ALL_TO_ALL_V,
                       .send = send,
                       .receive = receive,
                       .count = count, /* of all parts that are sent */
                       .blocks = 1,
                       .dtype = dtype};
}

static pgr_status all_to_all_v(pgr_comm *comm, const void *send, const int64_t *send_counts,
                               const int64_t *send_displacements, void *receive,
                               const int64_t *receive_counts, const int64_t *receive_displacements,
                               pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                               pgr_error *error) {
    int64_t sent = 0;
    for (int64_t p = 0; p < comm->size; p++)
        sent += send_counts[p];
    call_args made = all_to_all_v_args(send, receive, sent, dtype);
    made.v[0] = send_counts;
    made.v[1] = send_displacements;
    made.v[2] = receive_counts;
    made.v[3] = receive_displacements;
    return begin(comm, &made, stream, request, error);
}

static pgr_status all_to_all_v_device(pgr_comm *comm, const void *send, const int64_t *send_counts,
                                      const int64_t *send_displacements, void *receive,
                                      const int64_t *receive_counts,
                                      const int64_t *receive_displacements, pgr_event *counts_ready,
                                      pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                                      pgr_error *error) {
    call_args made = all_to_all_v_args(send, receive, 0, dtype);
    made.v[0] = send_counts;
    made.v[1] = send_displacements;
    made.v[2] = receive_counts;
    made.v[3] = receive_displacements;
    made.v_on_device = true;
    made.v_ready = counts_ready;
    return begin(comm, &made, stream, request, error);
}

static pgr_status send_to(pgr_comm *comm, const void *data, int64_t count, pgr_dtype dtype,
                          int64_t peer, pgr_stream *stream, pgr_request *request,
                          pgr_error *error) {
    call_args made = {.name = "send",
                      .kind = PGR_STAGED_SEND,
                      .send = data,
                      .count = count,
                      .blocks = 1,
                      .dtype = dtype,
                      .peer = peer};
    return begin(comm, &made, stream, request, error);
}

static pgr_status receive_from(pgr_comm *comm, void *data, int64_t count, pgr_dtype dtype,
                               int64_t peer, pgr_stream *stream, pgr_request *request,
                               pgr_error *error) {
    call_args made = {.name = "receive",
                      .kind = PGR_STAGED_RECEIVE,
                      .receive = data,
                      .count = count,
                      .blocks = 1,
                      .dtype = dtype,
                      .peer = peer};
    return begin(comm, &made, stream, request, error);
}

static pgr_status barrier(pgr_comm *comm, pgr_stream *stream, pgr_request *request,
                          pgr_error *error) {
    call_args made = {.name = "barrier", .kind = PGR_STAGED_BARRIER, .dtype = PGR_U8};
    return begin(comm, &made, stream, request, error);
}

/* ---- memory and grouping ------------------------------------------------------------------- */

static pgr_status buffer_alloc(pgr_comm *comm, int64_t bytes, void **buffer, pgr_error *error) {
    pgr_device *device = comm->job->device;
    return device->ops->alloc(device, PGR_MEMORY_DEVICE, bytes, buffer, error);
}

static void buffer_free(pgr_comm *comm, void *buffer) {
    pgr_device *device = comm->job->device;
    device->ops->free(device, PGR_MEMORY_DEVICE, buffer);
}

/* The worker waits for none alone: a group has nothing to put together. */
static pgr_status group_start_or_end(pgr_comm *comm, pgr_error *error) {
    (void)comm, (void)error;
    return PGR_OK;
}

const pgr_comm_ops pgr_staged_comm_ops = {
    .name = "mpi",
    .open_begin = open_begin,
    .open_poll = open_poll,
    .abort = comm_abort,
    .close = comm_close,
    .buffer_alloc = buffer_alloc,
    .buffer_free = buffer_free,
    .group_start = group_start_or_end,
    .group_end = group_start_or_end,
    .all_reduce = all_reduce,
    .reduce_scatter = reduce_scatter,
    .all_gather = all_gather,
    .broadcast = broadcast,
    .all_to_all = all_to_all,
    .all_to_all_v = all_to_all_v,
    .all_to_all_v_device = all_to_all_v_device,
    .send = send_to,
    .receive = receive_from,
    .barrier = barrier,
    .test = request_test,
};
