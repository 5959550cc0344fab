/* comm_mpi_collectives.c - the operations of a communicator over MPI's nonblocking calls.
 *
 * `stream` is not looked at: on a CPU a kernel is done when it returns, so that what an operation
 * reads is there when it is started, and what it writes is there when its request is done.
 *
 * MPI counts are 32-bit. A larger operation is split into pieces of at most mpi_max_count()
 * elements (over all blocks, since libraries multiply count and size in 32 bits), all started at
 * once. */
#include "bf16.h"
#include "comm_mpi.h"

#include <stdlib.h>
#include <string.h>

enum { TAG_MESSAGE = 0, TAG_ALL_TO_ALL_V = 1, TAGS_ALL_TO_ALL_V = 16384 };

/* An all-to-all-v: its arguments, until its counts are ready. */
struct mpi_all_to_all_v {
    const char *send;
    char *receive;
    const int64_t *send_counts, *send_displacements, *receive_counts, *receive_displacements;
    pgr_event *counts_ready;
    pgr_dtype dtype;
    int tag;
};

static MPI_Datatype type_of(pgr_dtype dtype) {
    switch (dtype) {
    case PGR_F32:
        return MPI_FLOAT;
    case PGR_BF16:
        return MPI_UINT16_T; /* moved, never reduced */
    case PGR_F64:
        return MPI_DOUBLE;
    case PGR_I32:
        return MPI_INT32_T;
    case PGR_I64:
        return MPI_INT64_T;
    case PGR_U8:
        break;
    }
    return MPI_UINT8_T;
}

static MPI_Op op_of(pgr_reduce reduce) {
    return reduce == PGR_SUM ? MPI_SUM : reduce == PGR_MAX ? MPI_MAX : MPI_MIN;
}

static int piece_of(int64_t left, int64_t limit) {
    return (int)(left < limit ? left : limit);
}

/* Elements of one piece of an operation that has a block per rank. */
static int64_t block_limit(const mpi_comm *comm) {
    int64_t limit = mpi_max_count() / comm->base.size;
    return limit > 0 ? limit : 1;
}

static const void *at(const void *base, int64_t elements, int64_t width) {
    return (const char *)base + elements * width;
}

static void *at_mutable(void *base, int64_t elements, int64_t width) {
    return (char *)base + elements * width;
}

static bool overlap(const void *a, int64_t a_bytes, const void *b, int64_t b_bytes) {
    uintptr_t first = (uintptr_t)a, second = (uintptr_t)b;
    return first < second + (uintptr_t)b_bytes && second < first + (uintptr_t)a_bytes;
}

static void bf16_to_f32(const pgr_bf16 *restrict from, float *restrict to, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        to[i] = pgr_bf16_to_f32(from[i]);
}

void mpi_pending_finish(const mpi_pending *pending) {
    if (pending->finish == MPI_FINISH_COPY) {
        memcpy(pending->receive, pending->scratch[1], (size_t)pending->finish_bytes);
    } else if (pending->finish == MPI_FINISH_TO_BF16) {
        const float *from = pending->scratch[1];
        pgr_bf16 *to = pending->receive;
        for (int64_t i = 0; i < pending->finish_count; i++)
            to[i] = pgr_bf16_from_f32(from[i]);
    }
}

/* The start of an operation: its pending state, or an error where its arguments cannot be. */
static pgr_status begin(pgr_comm *base, const char *operation, int64_t count, int64_t blocks,
                        pgr_dtype dtype, pgr_request *request, mpi_pending **pending,
                        pgr_error *error) {
    int64_t bytes;
    if (count < 0 || __builtin_mul_overflow(count, blocks, &bytes) ||
        __builtin_mul_overflow(bytes, (int64_t)sizeof(double), &bytes)) {
        return pgr_error_set(error, PGR_LIMIT, "%s: a count of %lld elements does not fit",
                             operation, (long long)count);
    }
    return mpi_pending_create((mpi_comm *)base, operation, count * blocks * pgr_dtype_bytes(dtype),
                              request, pending, error);
}

static pgr_status check_peer(const pgr_comm *comm, const char *operation, int64_t peer,
                             pgr_error *error) {
    if (peer < 0 || peer >= comm->size) {
        return pgr_error_set(error, PGR_INTERNAL, "%s: rank %lld of a group of %lld", operation,
                             (long long)peer, (long long)comm->size);
    }
    return PGR_OK;
}

/* ---- reductions ---------------------------------------------------------------------------- */

/* bf16 is reduced as f32 and rounded once at the end: makes the f32 copy of `count` elements of
 * `send` and room for `result` elements. */
static pgr_status widen(mpi_pending *pending, const void *send, int64_t count, void *receive,
                        int64_t result, pgr_error *error) {
    pgr_status status = mpi_pending_scratch(pending, 0, count * (int64_t)sizeof(float), error);
    if (status == PGR_OK)
        status = mpi_pending_scratch(pending, 1, result * (int64_t)sizeof(float), error);
    if (status == PGR_OK) {
        bf16_to_f32(send, pending->scratch[0], count);
        pending->finish = MPI_FINISH_TO_BF16;
        pending->receive = receive;
        pending->finish_count = result;
    }
    return status;
}

static pgr_status start_all_reduce(mpi_comm *comm, mpi_pending *pending, const void *send,
                                   void *receive, int64_t count, pgr_dtype dtype, pgr_reduce reduce,
                                   pgr_error *error) {
    int64_t width = pgr_dtype_bytes(dtype), limit = mpi_max_count();
    for (int64_t done = 0; done < count;) {
        int piece = piece_of(count - done, limit);
        const void *from = send == receive ? MPI_IN_PLACE : at(send, done, width);
        MPI_Request *slot = mpi_pending_request(pending, error);
        if (!slot)
            return PGR_LIMIT;
        int code = MPI_Iallreduce(from, at_mutable(receive, done, width), piece, type_of(dtype),
                                  op_of(reduce), comm->comm, slot);
        pgr_status status = mpi_status(code, "MPI_Iallreduce", error);
        if (status != PGR_OK)
            return status;
        done += piece;
    }
    return PGR_OK;
}

pgr_status mpi_all_reduce(pgr_comm *base, const void *send, void *receive, int64_t count,
                          pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                          pgr_request *request, pgr_error *error) {
    (void)stream;
    mpi_comm *comm = (mpi_comm *)base;
    mpi_pending *pending;
    pgr_status status = begin(base, "all-reduce", count, 1, dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    if (dtype == PGR_BF16) {
        status = widen(pending, send, count, receive, count, error);
        send = pending->scratch[0];
        receive = pending->scratch[1];
        dtype = PGR_F32;
    }
    if (status == PGR_OK)
        status = start_all_reduce(comm, pending, send, receive, count, dtype, reduce, error);
    return mpi_pending_start(pending, status, request);
}

/* In one call where it fits, else one reduction to each rank for every piece of its block. */
static pgr_status start_reduce_scatter(mpi_comm *comm, mpi_pending *pending, const void *send,
                                       void *receive, int64_t count, pgr_dtype dtype,
                                       pgr_reduce reduce, pgr_error *error) {
    int64_t width = pgr_dtype_bytes(dtype), limit = mpi_max_count();
    if (count > 0 && count <= block_limit(comm) && limit / comm->base.size > 0) {
        MPI_Request *slot = mpi_pending_request(pending, error);
        return slot
                   ? mpi_status(MPI_Ireduce_scatter_block(send, receive, (int)count, type_of(dtype),
                                                          op_of(reduce), comm->comm, slot),
                                "MPI_Ireduce_scatter_block", error)
                   : PGR_LIMIT;
    }
    for (int64_t root = 0; root < comm->base.size; root++) {
        for (int64_t done = 0; done < count;) {
            int piece = piece_of(count - done, limit);
            MPI_Request *slot = mpi_pending_request(pending, error);
            if (!slot)
                return PGR_LIMIT;
            int code =
                MPI_Ireduce(at(send, root * count + done, width), at_mutable(receive, done, width),
                            piece, type_of(dtype), op_of(reduce), (int)root, comm->comm, slot);
            pgr_status status = mpi_status(code, "MPI_Ireduce", error);
            if (status != PGR_OK)
                return status;
            done += piece;
        }
    }
    return PGR_OK;
}

pgr_status mpi_reduce_scatter(pgr_comm *base, const void *send, void *receive, int64_t count,
                              pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                              pgr_request *request, pgr_error *error) {
    (void)stream;
    mpi_comm *comm = (mpi_comm *)base;
    mpi_pending *pending;
    pgr_status status =
        begin(base, "reduce-scatter", count, base->size, dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    int64_t bytes = count * pgr_dtype_bytes(dtype);
    if (dtype == PGR_BF16) {
        status = widen(pending, send, count * base->size, receive, count, error);
        send = pending->scratch[0];
        receive = pending->scratch[1];
        dtype = PGR_F32;
    } else if (overlap(send, bytes * base->size, receive, bytes)) {
        /* in place: MPI allows no overlap, so the result waits beside */
        status = mpi_pending_scratch(pending, 1, bytes, error);
        pending->finish = MPI_FINISH_COPY;
        pending->receive = receive;
        pending->finish_bytes = bytes;
        receive = pending->scratch[1];
    }
    if (status == PGR_OK)
        status = start_reduce_scatter(comm, pending, send, receive, count, dtype, reduce, error);
    return mpi_pending_start(pending, status, request);
}

/* ---- blocks -------------------------------------------------------------------------------- */

/* A type of `piece` elements whose extent is a whole block of `block` bytes: with it a call moves
 * one piece of every rank's block to where it belongs. It is freed with the operation. */
static pgr_status block_type(mpi_pending *pending, int piece, pgr_dtype dtype, int64_t block,
                             MPI_Datatype *type, pgr_error *error) {
    int slot = pending->type_pieces[0] == 0 || pending->type_pieces[0] == piece ? 0 : 1;
    *type = pending->types[slot];
    if (pending->type_pieces[slot] == piece)
        return PGR_OK;
    MPI_Datatype plain;
    pgr_status status = mpi_status(MPI_Type_contiguous(piece, type_of(dtype), &plain),
                                   "MPI_Type_contiguous", error);
    if (status != PGR_OK)
        return status;
    status = mpi_status(MPI_Type_create_resized(plain, 0, (MPI_Aint)block, type),
                        "MPI_Type_create_resized", error);
    if (status == PGR_OK) {
        pending->types[slot] = *type;
        pending->type_pieces[slot] = piece;
        status = mpi_status(MPI_Type_commit(&pending->types[slot]), "MPI_Type_commit", error);
    }
    MPI_Type_free(&plain);
    return status;
}

/* One piece of every block, by all-gather or by all-to-all. */
static pgr_status start_piece(mpi_comm *comm, mpi_pending *pending, bool gather, const void *send,
                              void *receive, int piece, int64_t count, pgr_dtype dtype,
                              pgr_error *error) {
    MPI_Request *slot = mpi_pending_request(pending, error);
    if (!slot)
        return PGR_LIMIT;
    MPI_Datatype type = type_of(dtype);
    bool whole = piece == count;
    if (!whole) {
        pgr_status status =
            block_type(pending, piece, dtype, count * pgr_dtype_bytes(dtype), &type, error);
        if (status != PGR_OK)
            return status;
    }
    int blocks = whole ? piece : 1;
    if (gather) {
        return mpi_status(
            MPI_Iallgather(send, piece, type_of(dtype), receive, blocks, type, comm->comm, slot),
            "MPI_Iallgather", error);
    }
    return mpi_status(MPI_Ialltoall(send, blocks, type, receive, blocks, type, comm->comm, slot),
                      "MPI_Ialltoall", error);
}

static pgr_status start_pieces(mpi_comm *comm, mpi_pending *pending, bool gather, const void *send,
                               void *receive, int64_t count, pgr_dtype dtype, pgr_error *error) {
    int64_t width = pgr_dtype_bytes(dtype), limit = block_limit(comm);
    pgr_status status = PGR_OK;
    for (int64_t done = 0; done < count && status == PGR_OK;) {
        int piece = piece_of(count - done, limit);
        const void *from = send == MPI_IN_PLACE ? send : at(send, done, width);
        status = start_piece(comm, pending, gather, from, at_mutable(receive, done, width), piece,
                             count, dtype, error);
        done += piece;
    }
    return status;
}

pgr_status mpi_all_gather(pgr_comm *base, const void *send, void *receive, int64_t count,
                          pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                          pgr_error *error) {
    (void)stream;
    mpi_pending *pending;
    pgr_status status =
        begin(base, "all-gather", count, base->size, dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    bool in_place = send == at(receive, base->rank * count, pgr_dtype_bytes(dtype));
    status = start_pieces((mpi_comm *)base, pending, true, in_place ? MPI_IN_PLACE : send, receive,
                          count, dtype, error);
    return mpi_pending_start(pending, status, request);
}

pgr_status mpi_all_to_all(pgr_comm *base, const void *send, void *receive, int64_t count,
                          pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                          pgr_error *error) {
    (void)stream;
    mpi_pending *pending;
    pgr_status status =
        begin(base, "all-to-all", count, base->size, dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    if (send == receive && request->bytes > 0) { /* in place: send from a copy */
        status = mpi_pending_scratch(pending, 0, request->bytes, error);
        if (status == PGR_OK) {
            memcpy(pending->scratch[0], send, (size_t)request->bytes);
            send = pending->scratch[0];
        }
    }
    if (status == PGR_OK)
        status = start_pieces((mpi_comm *)base, pending, false, send, receive, count, dtype, error);
    return mpi_pending_start(pending, status, request);
}

pgr_status mpi_broadcast(pgr_comm *base, void *data, int64_t count, pgr_dtype dtype, int64_t root,
                         pgr_stream *stream, pgr_request *request, pgr_error *error) {
    (void)stream;
    mpi_pending *pending;
    pgr_status status = check_peer(base, "broadcast", root, error);
    if (status == PGR_OK)
        status = begin(base, "broadcast", count, 1, dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    int64_t width = pgr_dtype_bytes(dtype);
    for (int64_t done = 0; done < count && status == PGR_OK;) {
        int piece = piece_of(count - done, mpi_max_count());
        MPI_Request *slot = mpi_pending_request(pending, error);
        status = slot ? mpi_status(MPI_Ibcast(at_mutable(data, done, width), piece, type_of(dtype),
                                              (int)root, ((mpi_comm *)base)->comm, slot),
                                   "MPI_Ibcast", error)
                      : PGR_LIMIT;
        done += piece;
    }
    return mpi_pending_start(pending, status, request);
}

pgr_status mpi_barrier(pgr_comm *base, pgr_stream *stream, pgr_request *request, pgr_error *error) {
    (void)stream;
    mpi_pending *pending;
    pgr_status status = begin(base, "barrier", 0, 1, PGR_U8, request, &pending, error);
    if (status != PGR_OK)
        return status;
    MPI_Request *slot = mpi_pending_request(pending, error);
    status = slot ? mpi_status(MPI_Ibarrier(((mpi_comm *)base)->comm, slot), "MPI_Ibarrier", error)
                  : PGR_LIMIT;
    return mpi_pending_start(pending, status, request);
}

/* ---- messages ------------------------------------------------------------------------------ */

static pgr_status start_send(mpi_comm *comm, mpi_pending *pending, const void *data, int64_t count,
                             pgr_dtype dtype, int64_t peer, int tag, pgr_error *error) {
    pgr_status status = PGR_OK;
    for (int64_t done = 0; done < count && status == PGR_OK;) {
        int piece = piece_of(count - done, mpi_max_count());
        MPI_Request *slot = mpi_pending_request(pending, error);
        status = slot ? mpi_status(MPI_Isend(at(data, done, pgr_dtype_bytes(dtype)), piece,
                                             type_of(dtype), (int)peer, tag, comm->comm, slot),
                                   "MPI_Isend", error)
                      : PGR_LIMIT;
        done += piece;
    }
    return status;
}

static pgr_status start_receive(mpi_comm *comm, mpi_pending *pending, void *data, int64_t count,
                                pgr_dtype dtype, int64_t peer, int tag, pgr_error *error) {
    pgr_status status = PGR_OK;
    for (int64_t done = 0; done < count && status == PGR_OK;) {
        int piece = piece_of(count - done, mpi_max_count());
        MPI_Request *slot = mpi_pending_request(pending, error);
        status = slot ? mpi_status(MPI_Irecv(at_mutable(data, done, pgr_dtype_bytes(dtype)), piece,
                                             type_of(dtype), (int)peer, tag, comm->comm, slot),
                                   "MPI_Irecv", error)
                      : PGR_LIMIT;
        done += piece;
    }
    return status;
}

pgr_status mpi_send(pgr_comm *base, const void *data, int64_t count, pgr_dtype dtype, int64_t peer,
                    pgr_stream *stream, pgr_request *request, pgr_error *error) {
    (void)stream;
    mpi_pending *pending;
    pgr_status status = check_peer(base, "send", peer, error);
    if (status == PGR_OK)
        status = begin(base, "send", count, 1, dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    status = start_send((mpi_comm *)base, pending, data, count, dtype, peer, TAG_MESSAGE, error);
    return mpi_pending_start(pending, status, request);
}

pgr_status mpi_receive(pgr_comm *base, void *data, int64_t count, pgr_dtype dtype, int64_t peer,
                       pgr_stream *stream, pgr_request *request, pgr_error *error) {
    (void)stream;
    mpi_pending *pending;
    pgr_status status = check_peer(base, "receive", peer, error);
    if (status == PGR_OK)
        status = begin(base, "receive", count, 1, dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    status = start_receive((mpi_comm *)base, pending, data, count, dtype, peer, TAG_MESSAGE, error);
    return mpi_pending_start(pending, status, request);
}

/* ---- all-to-all-v -------------------------------------------------------------------------- */

/* Receives first, so that what comes has a place; empty parts send nothing. */
static pgr_status start_all_to_all_v(mpi_comm *comm, mpi_pending *pending,
                                     const struct mpi_all_to_all_v *args, pgr_error *error) {
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
static int next_tag(mpi_comm *comm) {
    return TAG_ALL_TO_ALL_V + (int)(comm->all_to_all_v_count++ % TAGS_ALL_TO_ALL_V);
}

pgr_status mpi_all_to_all_v(pgr_comm *base, const void *send, const int64_t *send_counts,
                            const int64_t *send_displacements, void *receive,
                            const int64_t *receive_counts, const int64_t *receive_displacements,
                            pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                            pgr_error *error) {
    (void)stream;
    mpi_comm *comm = (mpi_comm *)base;
    mpi_pending *pending;
    pgr_status status = begin(base, "all-to-all-v", sum_of(send_counts, base->size), 1, dtype,
                              request, &pending, error);
    if (status != PGR_OK)
        return status;
    struct mpi_all_to_all_v args = {.send = send,
                                    .receive = receive,
                                    .send_counts = send_counts,
                                    .send_displacements = send_displacements,
                                    .receive_counts = receive_counts,
                                    .receive_displacements = receive_displacements,
                                    .dtype = dtype,
                                    .tag = next_tag(comm)};
    status = start_all_to_all_v(comm, pending, &args, error);
    return mpi_pending_start(pending, status, request);
}

pgr_status mpi_all_to_all_v_advance(mpi_comm *comm, mpi_pending *pending, pgr_error *error) {
    struct mpi_all_to_all_v *args = pending->later;
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
pgr_status mpi_all_to_all_v_device(pgr_comm *base, const void *send, const int64_t *send_counts,
                                   const int64_t *send_displacements, void *receive,
                                   const int64_t *receive_counts,
                                   const int64_t *receive_displacements, pgr_event *counts_ready,
                                   pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                                   pgr_error *error) {
    (void)stream;
    mpi_comm *comm = (mpi_comm *)base;
    pgr_device *device = base->job->device;
    if (device ? strcmp(device->kind, "cpu") != 0 : counts_ready != NULL) {
        return pgr_error_set(error, PGR_UNSUPPORTED,
                             "all-to-all-v with counts on the device is not there yet for "
                             "device \"%s\" with comm \"mpi\"",
                             device ? device->kind : "none");
    }
    mpi_pending *pending;
    pgr_status status = begin(base, "all-to-all-v", 0, 1, dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    pending->later = malloc(sizeof *pending->later);
    if (!pending->later) {
        status = pgr_error_set(error, PGR_LIMIT, "all-to-all-v: out of memory");
        return mpi_pending_start(pending, status, request);
    }
    *pending->later = (struct mpi_all_to_all_v){.send = send,
                                                .receive = receive,
                                                .send_counts = send_counts,
                                                .send_displacements = send_displacements,
                                                .receive_counts = receive_counts,
                                                .receive_displacements = receive_displacements,
                                                .counts_ready = counts_ready,
                                                .dtype = dtype,
                                                .tag = next_tag(comm)};
    status = mpi_all_to_all_v_advance(comm, pending, error);
    return mpi_pending_start(pending, status, request);
}
