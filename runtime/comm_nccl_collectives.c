/* comm_nccl_collectives.c - the operations of a communicator over NCCL's calls. Counts are size_t
 * there: nothing is split. */
#include "comm_nccl.h"

#include <stdlib.h>

static ncclDataType_t type_of(pgr_dtype dtype) {
    switch (dtype) {
    case PGR_F32:
        return ncclFloat32;
    case PGR_BF16:
        return ncclBfloat16;
    case PGR_F64:
        return ncclFloat64;
    case PGR_I32:
        return ncclInt32;
    case PGR_I64:
        return ncclInt64;
    case PGR_U8:
        break;
    }
    return ncclUint8;
}

static ncclRedOp_t op_of(pgr_reduce reduce) {
    return reduce == PGR_SUM ? ncclSum : reduce == PGR_MAX ? ncclMax : ncclMin;
}

static ncclComm_t handle_of(const pgr_comm *comm) {
    return ((const pgr_nccl_comm *)comm)->handle;
}

static pgr_status check_peer(const pgr_comm *comm, const char *operation, int64_t peer,
                             pgr_error *error) {
    if (peer >= 0 && peer < comm->size)
        return PGR_OK;
    return pgr_error_set(error, PGR_INTERNAL, "%s: rank %lld of a group of %lld", operation,
                         (long long)peer, (long long)comm->size);
}

/* ---- collectives --------------------------------------------------------------------------- */

pgr_status pgr_nccl_all_reduce(pgr_comm *comm, const void *send, void *receive, int64_t count,
                               pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                               pgr_request *request, pgr_error *error) {
    cudaStream_t queue;
    pgr_status status =
        pgr_nccl_begin(comm, "all-reduce", count, 1, dtype, stream, request, &queue, error);
    if (status != PGR_OK)
        return status;
    ncclResult_t result = pgr_nccl()->AllReduce(send, receive, (size_t)count, type_of(dtype),
                                                op_of(reduce), handle_of(comm), queue);
    return pgr_nccl_end(request, result, "ncclAllReduce", error);
}

pgr_status pgr_nccl_reduce_scatter(pgr_comm *comm, const void *send, void *receive, int64_t count,
                                   pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                                   pgr_request *request, pgr_error *error) {
    cudaStream_t queue;
    pgr_status status = pgr_nccl_begin(comm, "reduce-scatter", count, comm->size, dtype, stream,
                                       request, &queue, error);
    if (status != PGR_OK)
        return status;
    ncclResult_t result = pgr_nccl()->ReduceScatter(send, receive, (size_t)count, type_of(dtype),
                                                    op_of(reduce), handle_of(comm), queue);
    return pgr_nccl_end(request, result, "ncclReduceScatter", error);
}

pgr_status pgr_nccl_all_gather(pgr_comm *comm, const void *send, void *receive, int64_t count,
                               pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                               pgr_error *error) {
    cudaStream_t queue;
    pgr_status status = pgr_nccl_begin(comm, "all-gather", count, comm->size, dtype, stream,
                                       request, &queue, error);
    if (status != PGR_OK)
        return status;
    ncclResult_t result =
        pgr_nccl()->AllGather(send, receive, (size_t)count, type_of(dtype), handle_of(comm), queue);
    return pgr_nccl_end(request, result, "ncclAllGather", error);
}

pgr_status pgr_nccl_broadcast(pgr_comm *comm, void *data, int64_t count, pgr_dtype dtype,
                              int64_t root, pgr_stream *stream, pgr_request *request,
                              pgr_error *error) {
    cudaStream_t queue;
    pgr_status status = check_peer(comm, "broadcast", root, error);
    if (status == PGR_OK)
        status = pgr_nccl_begin(comm, "broadcast", count, 1, dtype, stream, request, &queue, error);
    if (status != PGR_OK)
        return status;
    ncclResult_t result = pgr_nccl()->Broadcast(data, data, (size_t)count, type_of(dtype),
                                                (int)root, handle_of(comm), queue);
    return pgr_nccl_end(request, result, "ncclBroadcast", error);
}

/* NCCL has none: the smallest all-reduce, which ends when all have begun it. */
pgr_status pgr_nccl_barrier(pgr_comm *comm, pgr_stream *stream, pgr_request *request,
                            pgr_error *error) {
    void *token = ((const pgr_nccl_comm *)comm)->token;
    cudaStream_t queue;
    pgr_status status =
        pgr_nccl_begin(comm, "barrier", 0, 1, PGR_U8, stream, request, &queue, error);
    if (status != PGR_OK)
        return status;
    ncclResult_t result =
        pgr_nccl()->AllReduce(token, token, 1, ncclInt32, ncclSum, handle_of(comm), queue);
    return pgr_nccl_end(request, result, "ncclAllReduce", error);
}

/* ---- messages ------------------------------------------------------------------------------ */

pgr_status pgr_nccl_send(pgr_comm *comm, const void *data, int64_t count, pgr_dtype dtype,
                         int64_t peer, pgr_stream *stream, pgr_request *request, pgr_error *error) {
    cudaStream_t queue;
    pgr_status status = check_peer(comm, "send", peer, error);
    if (status == PGR_OK)
        status = pgr_nccl_begin(comm, "send", count, 1, dtype, stream, request, &queue, error);
    if (status != PGR_OK)
        return status;
    ncclResult_t result =
        pgr_nccl()->Send(data, (size_t)count, type_of(dtype), (int)peer, handle_of(comm), queue);
    return pgr_nccl_end(request, result, "ncclSend", error);
}

pgr_status pgr_nccl_receive(pgr_comm *comm, void *data, int64_t count, pgr_dtype dtype,
                            int64_t peer, pgr_stream *stream, pgr_request *request,
                            pgr_error *error) {
    cudaStream_t queue;
    pgr_status status = check_peer(comm, "receive", peer, error);
    if (status == PGR_OK)
        status = pgr_nccl_begin(comm, "receive", count, 1, dtype, stream, request, &queue, error);
    if (status != PGR_OK)
        return status;
    ncclResult_t result =
        pgr_nccl()->Recv(data, (size_t)count, type_of(dtype), (int)peer, handle_of(comm), queue);
    return pgr_nccl_end(request, result, "ncclRecv", error);
}

/* ---- all-to-all ---------------------------------------------------------------------------- */

/* What one rank sends and receives; NULL counts: `count` for each peer, one block after the other.
 */
typedef struct exchange {
    const char *send;
    char *receive;
    int64_t count;
    const int64_t *send_counts, *send_displacements, *receive_counts, *receive_displacements;
    pgr_dtype dtype;
} exchange;

/* One group of sends and receives; parts of nothing are left out on both sides. The group is ended
 * in any case. */
static ncclResult_t exchange_start(const pgr_comm *comm, const exchange *parts, cudaStream_t queue,
                                   const char **call) {
    const pgr_nccl_library *nccl = pgr_nccl();
    int64_t width = pgr_dtype_bytes(parts->dtype);
    *call = "ncclGroupStart";
    ncclResult_t result = nccl->GroupStart();
    if (result != ncclSuccess)
        return result;
    for (int64_t peer = 0; peer < comm->size; peer++) {
        int64_t sent = parts->send_counts ? parts->send_counts[peer] : parts->count;
        int64_t got = parts->receive_counts ? parts->receive_counts[peer] : parts->count;
        int64_t from = parts->send_counts ? parts->send_displacements[peer] : peer * parts->count;
        int64_t to =
            parts->receive_counts ? parts->receive_displacements[peer] : peer * parts->count;
        *call = "ncclSend";
        if (sent > 0)
            result = nccl->Send(parts->send + from * width, (size_t)sent, type_of(parts->dtype),
                                (int)peer, handle_of(comm), queue);
        if (result != ncclSuccess && result != ncclInProgress)
            break;
        *call = "ncclRecv";
        if (got > 0)
            result = nccl->Recv(parts->receive + to * width, (size_t)got, type_of(parts->dtype),
                                (int)peer, handle_of(comm), queue);
        if (result != ncclSuccess && result != ncclInProgress)
            break;
    }
    ncclResult_t ended = nccl->GroupEnd();
    if (result != ncclSuccess && result != ncclInProgress)
        return result;
    *call = "ncclGroupEnd";
    return ended;
}

pgr_status pgr_nccl_all_to_all(pgr_comm *comm, const void *send, void *receive, int64_t count,
                               pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                               pgr_error *error) {
    exchange parts = {.send = send, .receive = receive, .count = count, .dtype = dtype};
    const char *call;
    cudaStream_t queue;
    if (send == receive && count > 0)
        return pgr_error_set(error, PGR_UNSUPPORTED,
                             "all-to-all over NCCL does not work in place: use two buffers");
    pgr_status status = pgr_nccl_begin(comm, "all-to-all", count, comm->size, dtype, stream,
                                       request, &queue, error);
    if (status != PGR_OK)
        return status;
    ncclResult_t result = exchange_start(comm, &parts, queue, &call);
    return pgr_nccl_end(request, result, call, error);
}

/* Sum of what is sent; an error where a count is negative or the own part differs. */
static pgr_status counts_check(const pgr_comm *comm, const int64_t *send_counts,
                               const int64_t *receive_counts, int64_t *sum, pgr_error *error) {
    *sum = 0;
    for (int64_t peer = 0; peer < comm->size; peer++) {
        if (send_counts[peer] < 0 || receive_counts[peer] < 0 ||
            __builtin_add_overflow(*sum, send_counts[peer], sum))
            return pgr_error_set(
                error, PGR_INTERNAL, "all-to-all-v: counts %lld and %lld for rank %lld",
                (long long)send_counts[peer], (long long)receive_counts[peer], (long long)peer);
    }
    int64_t rank = comm->rank;
    if (send_counts[rank] != receive_counts[rank])
        return pgr_error_set(error, PGR_INTERNAL,
                             "all-to-all-v: rank %lld sends itself %lld elements but receives %lld",
                             (long long)rank, (long long)send_counts[rank],
                             (long long)receive_counts[rank]);
    return PGR_OK;
}

pgr_status pgr_nccl_all_to_all_v(pgr_comm *comm, const void *send, const int64_t *send_counts,
                                 const int64_t *send_displacements, void *receive,
                                 const int64_t *receive_counts,
                                 const int64_t *receive_displacements, pgr_dtype dtype,
                                 pgr_stream *stream, pgr_request *request, pgr_error *error) {
    exchange parts = {.send = send,
                      .receive = receive,
                      .send_counts = send_counts,
                      .send_displacements = send_displacements,
                      .receive_counts = receive_counts,
                      .receive_displacements = receive_displacements,
                      .dtype = dtype};
    const char *call;
    cudaStream_t queue;
    int64_t sum;
    pgr_status status = counts_check(comm, send_counts, receive_counts, &sum, error);
    if (status == PGR_OK)
        status =
            pgr_nccl_begin(comm, "all-to-all-v", sum, 1, dtype, stream, request, &queue, error);
    if (status != PGR_OK)
        return status;
    ncclResult_t result = exchange_start(comm, &parts, queue, &call);
    return pgr_nccl_end(request, result, call, error);
}

/* NCCL takes counts from the host: they are waited for and copied there, here and now, since a
 * message that is enqueued later than on another rank may come behind another operation. */
pgr_status
pgr_nccl_all_to_all_v_device(pgr_comm *comm, const void *send, const int64_t *send_counts,
                             const int64_t *send_displacements, void *receive,
                             const int64_t *receive_counts, const int64_t *receive_displacements,
                             pgr_event *counts_ready, pgr_dtype dtype, pgr_stream *stream,
                             pgr_request *request, pgr_error *error) {
    pgr_device *device = comm->job->device;
    const int64_t *from[4] = {send_counts, send_displacements, receive_counts,
                              receive_displacements};
    size_t size = (size_t)comm->size;
    int64_t *host = malloc(4 * size * sizeof *host);
    if (!host)
        return pgr_error_set(error, PGR_LIMIT, "all-to-all-v: out of memory for counts");
    pgr_status status =
        counts_ready ? pgr_nccl_event_wait(comm, counts_ready, "all-to-all-v", error) : PGR_OK;
    for (size_t i = 0; i < 4 && status == PGR_OK; i++)
        status = device->ops->copy(device, host + i * size, from[i], (int64_t)(size * sizeof *host),
                                   stream, error);
    if (status == PGR_OK)
        status = device->ops->stream_sync(device, stream, error);
    if (status == PGR_OK)
        status = pgr_nccl_all_to_all_v(comm, send, host, host + size, receive, host + 2 * size,
                                       host + 3 * size, dtype, stream, request, error);
    free(host);
    return status;
}
