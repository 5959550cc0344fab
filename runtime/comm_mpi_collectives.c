/* comm_mpi_collectives.c - the operations of a communicator over MPI's nonblocking calls.
 *
 * `stream` is not looked at: on a CPU a kernel is done when it returns, so that what an operation
 * reads is there when it is started, and what it writes is there when its request is done.
 *
 * MPI counts are 32-bit. A larger operation is split into pieces of at most pgr_mpi_max_count()
 * elements (over all blocks, since libraries multiply count and size in 32 bits), all started at
 * once. */
#include "bf16.h"
#include "comm_mpi.h"

#include <string.h>

MPI_Datatype pgr_mpi_type(pgr_dtype dtype) {
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

/* Elements of one piece of an operation that has a block per rank. */
static int64_t block_limit(const pgr_mpi_comm *comm) {
    int64_t limit = pgr_mpi_max_count() / comm->base.size;
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

void pgr_mpi_pending_finish(const pgr_mpi_pending *pending) {
    if (pending->finish == PGR_MPI_FINISH_COPY) {
        memcpy(pending->receive, pending->scratch[1], (size_t)pending->finish_bytes);
    } else if (pending->finish == PGR_MPI_FINISH_TO_BF16) {
        const float *from = pending->scratch[1];
        pgr_bf16 *to = pending->receive;
        for (int64_t i = 0; i < pending->finish_count; i++)
            to[i] = pgr_bf16_from_f32(from[i]);
    }
}

pgr_status pgr_mpi_begin(pgr_comm *base, const char *operation, int64_t count, int64_t blocks,
                         pgr_dtype dtype, pgr_request *request, pgr_mpi_pending **pending,
                         pgr_error *error) {
    int64_t bytes;
    if (count < 0 || __builtin_mul_overflow(count, blocks, &bytes) ||
        __builtin_mul_overflow(bytes, (int64_t)sizeof(double), &bytes)) {
        return pgr_error_set(error, PGR_LIMIT, "%s: a count of %lld elements does not fit",
                             operation, (long long)count);
    }
    return pgr_mpi_pending_create((pgr_mpi_comm *)base, operation,
                                  count * blocks * pgr_dtype_bytes(dtype), request, pending, error);
}

pgr_status pgr_mpi_check_peer(const pgr_comm *comm, const char *operation, int64_t peer,
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
static pgr_status widen(pgr_mpi_pending *pending, const void *send, int64_t count, void *receive,
                        int64_t result, pgr_error *error) {
    pgr_status status = pgr_mpi_pending_scratch(pending, 0, count * (int64_t)sizeof(float), error);
    if (status == PGR_OK)
        status = pgr_mpi_pending_scratch(pending, 1, result * (int64_t)sizeof(float), error);
    if (status == PGR_OK) {
        bf16_to_f32(send, pending->scratch[0], count);
        pending->finish = PGR_MPI_FINISH_TO_BF16;
        pending->receive = receive;
        pending->finish_count = result;
    }
    return status;
}

static pgr_status start_all_reduce(pgr_mpi_comm *comm, pgr_mpi_pending *pending, const void *send,
                                   void *receive, int64_t count, pgr_dtype dtype, pgr_reduce reduce,
                                   pgr_error *error) {
    int64_t width = pgr_dtype_bytes(dtype), limit = pgr_mpi_max_count();
    for (int64_t done = 0; done < count;) {
        int piece = pgr_mpi_piece(count - done, limit);
        const void *from = send == receive ? MPI_IN_PLACE : at(send, done, width);
        MPI_Request *slot = pgr_mpi_pending_request(pending, error);
        if (!slot)
            return PGR_LIMIT;
        int code = MPI_Iallreduce(from, at_mutable(receive, done, width), piece,
                                  pgr_mpi_type(dtype), op_of(reduce), comm->comm, slot);
        pgr_status status = pgr_mpi_status(code, "MPI_Iallreduce", error);
        if (status != PGR_OK)
            return status;
        done += piece;
    }
    return PGR_OK;
}

pgr_status pgr_mpi_all_reduce(pgr_comm *base, const void *send, void *receive, int64_t count,
                              pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                              pgr_request *request, pgr_error *error) {
    (void)stream;
    pgr_mpi_comm *comm = (pgr_mpi_comm *)base;
    pgr_mpi_pending *pending;
    pgr_status status =
        pgr_mpi_begin(base, "all-reduce", count, 1, dtype, request, &pending, error);
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
    return pgr_mpi_pending_start(pending, status, request);
}

/* In one call where it fits, else one reduction to each rank for every piece of its block. */
static pgr_status start_reduce_scatter(pgr_mpi_comm *comm, pgr_mpi_pending *pending,
                                       const void *send, void *receive, int64_t count,
                                       pgr_dtype dtype, pgr_reduce reduce, pgr_error *error) {
    int64_t width = pgr_dtype_bytes(dtype), limit = pgr_mpi_max_count();
    if (count > 0 && count <= block_limit(comm) && limit / comm->base.size > 0) {
        MPI_Request *slot = pgr_mpi_pending_request(pending, error);
        return slot ? pgr_mpi_status(MPI_Ireduce_scatter_block(send, receive, (int)count,
                                                               pgr_mpi_type(dtype), op_of(reduce),
                                                               comm->comm, slot),
                                     "MPI_Ireduce_scatter_block", error)
                    : PGR_LIMIT;
    }
    for (int64_t root = 0; root < comm->base.size; root++) {
        for (int64_t done = 0; done < count;) {
            int piece = pgr_mpi_piece(count - done, limit);
            MPI_Request *slot = pgr_mpi_pending_request(pending, error);
            if (!slot)
                return PGR_LIMIT;
            int code =
                MPI_Ireduce(at(send, root * count + done, width), at_mutable(receive, done, width),
                            piece, pgr_mpi_type(dtype), op_of(reduce), (int)root, comm->comm, slot);
            pgr_status status = pgr_mpi_status(code, "MPI_Ireduce", error);
            if (status != PGR_OK)
                return status;
            done += piece;
        }
    }
    return PGR_OK;
}

pgr_status pgr_mpi_reduce_scatter(pgr_comm *base, const void *send, void *receive, int64_t count,
                                  pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                                  pgr_request *request, pgr_error *error) {
    (void)stream;
    pgr_mpi_comm *comm = (pgr_mpi_comm *)base;
    pgr_mpi_pending *pending;
    pgr_status status =
        pgr_mpi_begin(base, "reduce-scatter", count, base->size, dtype, request, &pending, error);
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
        status = pgr_mpi_pending_scratch(pending, 1, bytes, error);
        pending->finish = PGR_MPI_FINISH_COPY;
        pending->receive = receive;
        pending->finish_bytes = bytes;
        receive = pending->scratch[1];
    }
    if (status == PGR_OK)
        status = start_reduce_scatter(comm, pending, send, receive, count, dtype, reduce, error);
    return pgr_mpi_pending_start(pending, status, request);
}

/* ---- blocks -------------------------------------------------------------------------------- */

/* A type of `piece` elements whose extent is a whole block of `block` bytes: with it a call moves
 * one piece of every rank's block to where it belongs. It is freed with the operation. */
static pgr_status block_type(pgr_mpi_pending *pending, int piece, pgr_dtype dtype, int64_t block,
                             MPI_Datatype *type, pgr_error *error) {
    int slot = pending->type_pieces[0] == 0 || pending->type_pieces[0] == piece ? 0 : 1;
    *type = pending->types[slot];
    if (pending->type_pieces[slot] == piece)
        return PGR_OK;
    MPI_Datatype plain;
    pgr_status status = pgr_mpi_status(MPI_Type_contiguous(piece, pgr_mpi_type(dtype), &plain),
                                       "MPI_Type_contiguous", error);
    if (status != PGR_OK)
        return status;
    status = pgr_mpi_status(MPI_Type_create_resized(plain, 0, (MPI_Aint)block, type),
                            "MPI_Type_create_resized", error);
    if (status == PGR_OK) {
        pending->types[slot] = *type;
        pending->type_pieces[slot] = piece;
        status = pgr_mpi_status(MPI_Type_commit(&pending->types[slot]), "MPI_Type_commit", error);
    }
    MPI_Type_free(&plain);
    return status;
}

/* One piece of every block, by all-gather or by all-to-all. */
static pgr_status start_piece(pgr_mpi_comm *comm, pgr_mpi_pending *pending, bool gather,
                              const void *send, void *receive, int piece, int64_t count,
                              pgr_dtype dtype, pgr_error *error) {
    MPI_Request *slot = pgr_mpi_pending_request(pending, error);
    if (!slot)
        return PGR_LIMIT;
    MPI_Datatype type = pgr_mpi_type(dtype);
    bool whole = piece == count;
    if (!whole) {
        pgr_status status =
            block_type(pending, piece, dtype, count * pgr_dtype_bytes(dtype), &type, error);
        if (status != PGR_OK)
            return status;
    }
    int blocks = whole ? piece : 1;
    if (gather) {
        return pgr_mpi_status(MPI_Iallgather(send, piece, pgr_mpi_type(dtype), receive, blocks,
                                             type, comm->comm, slot),
                              "MPI_Iallgather", error);
    }
    return pgr_mpi_status(
        MPI_Ialltoall(send, blocks, type, receive, blocks, type, comm->comm, slot), "MPI_Ialltoall",
        error);
}

static pgr_status start_pieces(pgr_mpi_comm *comm, pgr_mpi_pending *pending, bool gather,
                               const void *send, void *receive, int64_t count, pgr_dtype dtype,
                               pgr_error *error) {
    int64_t width = pgr_dtype_bytes(dtype), limit = block_limit(comm);
    pgr_status status = PGR_OK;
    for (int64_t done = 0; done < count && status == PGR_OK;) {
        int piece = pgr_mpi_piece(count - done, limit);
        const void *from = send == MPI_IN_PLACE ? send : at(send, done, width);
        status = start_piece(comm, pending, gather, from, at_mutable(receive, done, width), piece,
                             count, dtype, error);
        done += piece;
    }
    return status;
}

pgr_status pgr_mpi_all_gather(pgr_comm *base, const void *send, void *receive, int64_t count,
                              pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                              pgr_error *error) {
    (void)stream;
    pgr_mpi_pending *pending;
    pgr_status status =
        pgr_mpi_begin(base, "all-gather", count, base->size, dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    bool in_place = send == at(receive, base->rank * count, pgr_dtype_bytes(dtype));
    status = start_pieces((pgr_mpi_comm *)base, pending, true, in_place ? MPI_IN_PLACE : send,
                          receive, count, dtype, error);
    return pgr_mpi_pending_start(pending, status, request);
}

pgr_status pgr_mpi_all_to_all(pgr_comm *base, const void *send, void *receive, int64_t count,
                              pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                              pgr_error *error) {
    (void)stream;
    pgr_mpi_pending *pending;
    pgr_status status =
        pgr_mpi_begin(base, "all-to-all", count, base->size, dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    if (send == receive && request->bytes > 0) { /* in place: send from a copy */
        status = pgr_mpi_pending_scratch(pending, 0, request->bytes, error);
        if (status == PGR_OK) {
            memcpy(pending->scratch[0], send, (size_t)request->bytes);
            send = pending->scratch[0];
        }
    }
    if (status == PGR_OK)
        status =
            start_pieces((pgr_mpi_comm *)base, pending, false, send, receive, count, dtype, error);
    return pgr_mpi_pending_start(pending, status, request);
}

pgr_status pgr_mpi_broadcast(pgr_comm *base, void *data, int64_t count, pgr_dtype dtype,
                             int64_t root, pgr_stream *stream, pgr_request *request,
                             pgr_error *error) {
    (void)stream;
    pgr_mpi_pending *pending;
    pgr_status status = pgr_mpi_check_peer(base, "broadcast", root, error);
    if (status == PGR_OK)
        status = pgr_mpi_begin(base, "broadcast", count, 1, dtype, request, &pending, error);
    if (status != PGR_OK)
        return status;
    int64_t width = pgr_dtype_bytes(dtype);
    for (int64_t done = 0; done < count && status == PGR_OK;) {
        int piece = pgr_mpi_piece(count - done, pgr_mpi_max_count());
        MPI_Request *slot = pgr_mpi_pending_request(pending, error);
        status = slot ? pgr_mpi_status(MPI_Ibcast(at_mutable(data, done, width), piece,
                                                  pgr_mpi_type(dtype), (int)root,
                                                  ((pgr_mpi_comm *)base)->comm, slot),
                                       "MPI_Ibcast", error)
                      : PGR_LIMIT;
        done += piece;
    }
    return pgr_mpi_pending_start(pending, status, request);
}

pgr_status pgr_mpi_barrier(pgr_comm *base, pgr_stream *stream, pgr_request *request,
                           pgr_error *error) {
    (void)stream;
    pgr_mpi_pending *pending;
    pgr_status status = pgr_mpi_begin(base, "barrier", 0, 1, PGR_U8, request, &pending, error);
    if (status != PGR_OK)
        return status;
    MPI_Request *slot = pgr_mpi_pending_request(pending, error);
    status = slot ? pgr_mpi_status(MPI_Ibarrier(((pgr_mpi_comm *)base)->comm, slot), "MPI_Ibarrier",
                                   error)
                  : PGR_LIMIT;
    return pgr_mpi_pending_start(pending, status, request);
}
