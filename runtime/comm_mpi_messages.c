/* comm_mpi_messages.c - the operations of a communicator that are messages between two ranks: send,
 * receive, and all-to-all-v, which MPI has for 32-bit counts alone. See comm_mpi_collectives.c for
 * streams and for the splitting of large counts. */
#include "comm_mpi.h"

#include <stdlib.h>
#include <string.h>

enum { TAG_MESSAGE = 0, TAG_ALL_TO_ALL_V = 1, TAGS_ALL_TO_ALL_V = 16384 };

/* An all-to-all-v: its arguments, until its counts are ready. */
struct pgr_mpi_all_to_all_v {
    const char *send;
    char *receive;
    const int64_t *send_counts, *send_displacements, *receive_counts, *receive_displacements;
    pgr_event *counts_ready;
    pgr_dtype dtype;
    int tag;
};

/* ---- messages ------------------------------------------------------------------------------ */

static pgr_status start_send(pgr_mpi_comm *comm, pgr_mpi_pending *pending, const void *data,
                             int64_t count, pgr_dtype dtype, int64_t peer, int tag,
                             pgr_error *error) {
    int64_t width = pgr_dtype_bytes(dtype);
    pgr_status status = PGR_OK;
    for (int64_t done = 0; done < count && status == PGR_OK;) {
        int piece = pgr_mpi_piece(count - done, pgr_mpi_max_count());
        MPI_Request *slot = pgr_mpi_pending_request(pending, error);
        status =
            slot ? pgr_mpi_status(MPI_Isend((const char *)data + done * width, piece,
                                            pgr_mpi_type(dtype), (int)peer, tag, comm->comm, slot),
                                  "MPI_Isend", error)
                 : PGR_LIMIT;
        done += piece;
    }
    return status;
}

static pgr_status start_receive(pgr_mpi_comm *comm, pgr_mpi_pending *pending, void *data,
                                int64_t count, pgr_dtype dtype, int64_t peer, int tag,
                                pgr_error *error) {
    int64_t width = pgr_dtype_bytes(dtype);
    pgr_status status = PGR_OK;
    for (int64_t done = 0; done < count && status == PGR_OK;) {
        int piece = pgr_mpi_piece(count - done, pgr_mpi_max_count());
        MPI_Request *slot = pgr_mpi_pending_request(pending, error);
        status =
            slot ? pgr_mpi_status(MPI_Irecv((char *)data + done * width, piece, pgr_mpi_type(dtype),
                                            (int)peer, tag, comm->comm, slot),
                                  "MPI_Irecv", error)
                 : PGR_LIMIT;
        done += piece;
    }
    return status;
}

pgr_status pgr_mpi_send(pgr_comm *base, const void *data, int64_t count, pgr_dtype dtype,
                        int64_t peer, pgr_stream *stream, pgr_request *request, pgr_error *error) {
    (void)stream;
    pgr_mpi_pending *pending;
    pgr_status status = pgr_mpi_check_peer(base, "send", peer, error);
    if (status == PGR_OK)
        status = pgr_mpi_begin(base, "send", count, 1, dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    status =
        start_send((pgr_mpi_comm *)base, pending, data, count, dtype, peer, TAG_MESSAGE, error);
    return pgr_mpi_pending_start(pending, status, request);
}

pgr_status pgr_mpi_receive(pgr_comm *base, void *data, int64_t count, pgr_dtype dtype, int64_t peer,
                           pgr_stream *stream, pgr_request *request, pgr_error *error) {
    (void)stream;
    pgr_mpi_pending *pending;
    pgr_status status = pgr_mpi_check_peer(base, "receive", peer, error);
    if (status == PGR_OK)
        status = pgr_mpi_begin(base, "receive", count, 1, dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    status =
        start_receive((pgr_mpi_comm *)base, pending, data, count, dtype, peer, TAG_MESSAGE, error);
    return pgr_mpi_pending_start(pending, status, request);
}

/* ---- all-to-all-v -------------------------------------------------------------------------- */

/* Receives first, so that what comes has a place; empty parts send nothing. */
static pgr_status start_all_to_all_v(pgr_mpi_comm *comm, pgr_mpi_pending *pending,
                                     const struct pgr_mpi_all_to_all_v *args, pgr_error *error) {
    int64_t width = pgr_dtype_bytes(args->dtype), size = comm->base.size, rank = comm->base.rank;
    pgr_status status = PGR_OK;
    for (int64_t peer = 0; peer < size; peer++) {
        if (args->send_counts[peer] < 0 || args->receive_counts[peer] < 0) {
            return pgr_error_set(error, PGR_INTERNAL, "all-to-all-v: negative count for rank %lld",
                                 (long long)peer);
        }
    }
    if (args->send_counts[rank] != args->receive_counts[rank]) {
        return pgr_error_set(error, PGR_INTERNAL,
                             "all-to-all-v: rank %lld sends itself %lld elements but receives %lld",
                             (long long)rank, (long long)args->send_counts[rank],
                             (long long)args->receive_counts[rank]);
    }
    for (int64_t step = 1; step < size && status == PGR_OK; step++) {
        int64_t peer = (rank + size - step) % size;
        status =
            start_receive(comm, pending, args->receive + args->receive_displacements[peer] * width,
                          args->receive_counts[peer], args->dtype, peer, args->tag, error);
    }
    for (int64_t step = 1; step < size && status == PGR_OK; step++) {
        int64_t peer = (rank + step) % size;
        status = start_send(comm, pending, args->send + args->send_displacements[peer] * width,
                            args->send_counts[peer], args->dtype, peer, args->tag, error);
    }
    if (status == PGR_OK && args->send_counts[rank] > 0) {
        memcpy(args->receive + args->receive_displacements[rank] * width,
               args->send + args->send_displacements[rank] * width,
               (size_t)(args->send_counts[rank] * width));
    }
    return status;
}

static int64_t sum_of(const int64_t *counts, int64_t size) {
    int64_t sum = 0;
    for (int64_t i = 0; i < size; i++)
        sum += counts[i];
    return sum;
}

/* A tag of its own, since a call that waits for its counts may start after a later one. */
static int next_tag(pgr_mpi_comm *comm) {
    return TAG_ALL_TO_ALL_V + (int)(comm->all_to_all_v_count++ % TAGS_ALL_TO_ALL_V);
}

pgr_status pgr_mpi_all_to_all_v(pgr_comm *base, const void *send, const int64_t *send_counts,
                                const int64_t *send_displacements, void *receive,
                                const int64_t *receive_counts, const int64_t *receive_displacements,
                                pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                                pgr_error *error) {
    (void)stream;
    pgr_mpi_comm *comm = (pgr_mpi_comm *)base;
    pgr_mpi_pending *pending;
    pgr_status status = pgr_mpi_begin(base, "all-to-all-v", sum_of(send_counts, base->size), 1,
                                      dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    struct pgr_mpi_all_to_all_v args = {.send = send,
                                        .receive = receive,
                                        .send_counts = send_counts,
                                        .send_displacements = send_displacements,
                                        .receive_counts = receive_counts,
                                        .receive_displacements = receive_displacements,
                                        .dtype = dtype,
                                        .tag = next_tag(comm)};
    status = start_all_to_all_v(comm, pending, &args, error);
    return pgr_mpi_pending_start(pending, status, request);
}

pgr_status pgr_mpi_all_to_all_v_advance(pgr_mpi_comm *comm, pgr_mpi_pending *pending,
                                        pgr_error *error) {
    struct pgr_mpi_all_to_all_v *args = pending->later;
    pgr_device *device = comm->base.job->device;
    bool ready = true;
    if (args->counts_ready) {
        pgr_status status = device->ops->event_query(device, args->counts_ready, &ready, error);
        if (status != PGR_OK)
            return status;
    }
    if (!ready)
        return PGR_OK;
    pgr_status status = start_all_to_all_v(comm, pending, args, error);
    if (status == PGR_OK) {
        pending->later = NULL;
        free(args);
    }
    return status;
}

/* On a CPU device memory is host memory: only the wait for the event is left. */
pgr_status pgr_mpi_all_to_all_v_device(pgr_comm *base, const void *send, const int64_t *send_counts,
                                       const int64_t *send_displacements, void *receive,
                                       const int64_t *receive_counts,
                                       const int64_t *receive_displacements,
                                       pgr_event *counts_ready, pgr_dtype dtype, pgr_stream *stream,
                                       pgr_request *request, pgr_error *error) {
    (void)stream;
    pgr_mpi_comm *comm = (pgr_mpi_comm *)base;
    pgr_device *device = base->job->device;
    if (device ? strcmp(device->kind, "cpu") != 0 : counts_ready != NULL) {
        return pgr_error_set(error, PGR_UNSUPPORTED,
                             "all-to-all-v with counts on the device is not there yet for "
                             "device \"%s\" with comm \"mpi\"",
                             device ? device->kind : "none");
    }
    pgr_mpi_pending *pending;
    pgr_status status = pgr_mpi_begin(base, "all-to-all-v", 0, 1, dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    pending->later = malloc(sizeof *pending->later);
    if (!pending->later) {
        status = pgr_error_set(error, PGR_LIMIT, "all-to-all-v: out of memory");
        return pgr_mpi_pending_start(pending, status, request);
    }
    *pending->later = (struct pgr_mpi_all_to_all_v){.send = send,
                                                    .receive = receive,
                                                    .send_counts = send_counts,
                                                    .send_displacements = send_displacements,
                                                    .receive_counts = receive_counts,
                                                    .receive_displacements = receive_displacements,
                                                    .counts_ready = counts_ready,
                                                    .dtype = dtype,
                                                    .tag = next_tag(comm)};
    status = pgr_mpi_all_to_all_v_advance(comm, pending, error);
    return pgr_mpi_pending_start(pending, status, request);
}
