/* comm_mpi_messages.c - the operations of a communicator that are messages between two ranks: send,
 * receive, and all-to-all-v, which MPI has for 32-bit counts alone. See comm_mpi_collectives.c for
 * streams and for the splitting of large counts. */
#include "comm_mpi.h"

#include <stdlib.h>
#include <string.h>

enum { TAG_MESSAGE = 0, TAG_ALL_TO_ALL_V = 1, TAGS_ALL_TO_ALL_V = 16384 };

/* The arguments of an all-to-all-v. */
typedef struct all_to_all_v {
    const char *send;
    char *receive;
    const int64_t *send_counts, *send_displacements, *receive_counts, *receive_displacements;
    pgr_dtype dtype;
    int tag;
} all_to_all_v;

/* One that waits for its counts. */
struct pgr_mpi_later {
    struct pgr_mpi_later *next, **link; /* in `waiting` */
    pgr_mpi_comm *comm;
    pgr_mpi_pending *pending;
    all_to_all_v args;
    pgr_event *counts_ready; /* or NULL: they are */
    pgr_status status;       /* why it could not start */
    pgr_error error;
};

/* Those of all communicators. Whoever waits for anything starts the ones that can be: as in a
 * stream, an operation must not wait for the host to ask for it, since another rank may need it to
 * come to what this one waits for. */
static struct pgr_mpi_later *waiting;

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
                                     const all_to_all_v *args, pgr_error *error) {
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
    all_to_all_v args = {.send = send,
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

void pgr_mpi_later_drop(pgr_mpi_pending *pending) {
    struct pgr_mpi_later *later = pending->later;
    if (!later)
        return;
    *later->link = later->next;
    if (later->next)
        later->next->link = later->link;
    free(later);
    pending->later = NULL;
}

/* Starts it if its counts are there; one that failed stays as it is. */
static void later_advance(struct pgr_mpi_later *later) {
    pgr_mpi_pending *pending = later->pending;
    pgr_device *device = later->comm->base.job->device;
    bool ready = true;
    if (later->status == PGR_OK && later->counts_ready)
        later->status =
            device->ops->event_query(device, later->counts_ready, &ready, &later->error);
    if (later->status != PGR_OK || !ready)
        return;
    later->status = start_all_to_all_v(later->comm, pending, &later->args, &later->error);
    pending->progress++;
    if (later->status == PGR_OK)
        pgr_mpi_later_drop(pending);
}

pgr_status pgr_mpi_later_poll(const pgr_mpi_pending *pending, pgr_error *error) {
    for (struct pgr_mpi_later *next, *later = waiting; later; later = next) {
        next = later->next;
        later_advance(later);
    }
    if (!pending->later || pending->later->status == PGR_OK)
        return PGR_OK;
    if (error)
        *error = pending->later->error;
    return pending->later->status;
}

static pgr_status later_create(pgr_mpi_comm *comm, pgr_mpi_pending *pending, pgr_error *error) {
    struct pgr_mpi_later *created = calloc(1, sizeof *created);
    if (!created)
        return pgr_error_set(error, PGR_LIMIT, "all-to-all-v: out of memory");
    created->comm = comm;
    created->pending = pending;
    created->next = waiting;
    created->link = &waiting;
    if (created->next)
        created->next->link = &created->next;
    waiting = created;
    pending->later = created;
    return PGR_OK;
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
    int tag = next_tag(comm);
    status = later_create(comm, pending, error);
    if (status == PGR_OK) {
        pending->later->counts_ready = counts_ready;
        pending->later->args = (all_to_all_v){.send = send,
                                              .receive = receive,
                                              .send_counts = send_counts,
                                              .send_displacements = send_displacements,
                                              .receive_counts = receive_counts,
                                              .receive_displacements = receive_displacements,
                                              .dtype = dtype,
                                              .tag = tag};
        status = pgr_mpi_later_poll(pending, error);
    }
    return pgr_mpi_pending_start(pending, status, request);
}
