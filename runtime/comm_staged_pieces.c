/* comm_staged_pieces.c - what a piece of each operation copies, and gives to the inner
 * communicator.
 */
#include "comm_staged.h"

#include <stdlib.h>

enum { ALIGNMENT = 64, SMALLEST = 4096 };

/* Pieces that an inner communicator was given up with: it may still write into their memory. */
static pgr_staged_piece *given_up;

/* ---- where things lie ---------------------------------------------------------------------- */

/* A piece of `count` elements has so many of them in each of these blocks. Blocks lie `count` of
 * the operation apart on the device, and side by side in pinned memory. */
typedef struct shape {
    int64_t sent, received; /* blocks */
    bool overlaid;          /* the smaller part lies within the larger one */
} shape;

static shape shape_of(const pgr_staged_operation *o) {
    int64_t size = o->comm->base.size;
    bool root = o->peer == o->comm->base.rank;
    switch (o->kind) {
    case PGR_STAGED_ALL_REDUCE:
        return (shape){1, 1, true};
    case PGR_STAGED_REDUCE_SCATTER:
        return (shape){size, 1, false};
    case PGR_STAGED_ALL_GATHER:
        return (shape){1, size, true};
    case PGR_STAGED_BROADCAST:
        return root ? (shape){1, 0, true} : (shape){0, 1, true};
    case PGR_STAGED_ALL_TO_ALL:
        return (shape){size, size, false};
    case PGR_STAGED_SEND:
        return (shape){1, 0, false};
    case PGR_STAGED_RECEIVE:
        return (shape){0, 1, false};
    case PGR_STAGED_ALL_TO_ALL_V:
    case PGR_STAGED_BARRIER:
        break;
    }
    return (shape){0, 0, false};
}

static int64_t most(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t aligned(int64_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

void pgr_staged_cut(pgr_staged_operation *o) {
    shape s = shape_of(o);
    int64_t blocks = s.overlaid ? most(s.sent, s.received) : s.sent + s.received;
    o->total = o->step = 1;
    if (blocks == 0)
        return;
    o->total = o->count;
    o->step = most(o->comm->piece_bytes / (blocks * pgr_dtype_bytes(o->dtype)), 1);
}

static int64_t sum_of(const int64_t *counts, int64_t size) {
    int64_t sum = 0;
    for (int64_t i = 0; i < size; i++)
        sum += counts[i];
    return sum;
}

/* ---- pinned memory ------------------------------------------------------------------------- */

/* The smallest of the pool that is large enough. */
static pgr_staged_slot **slot_find(pgr_staged_comm *comm, int64_t bytes) {
    pgr_staged_slot **best = NULL;
    for (pgr_staged_slot **link = &comm->pool; *link; link = &(*link)->next)
        if ((*link)->bytes >= bytes && (!best || (*link)->bytes < (*best)->bytes))
            best = link;
    return best;
}

static pgr_status slot_take(pgr_staged_comm *comm, int64_t bytes, pgr_staged_slot **slot,
                            pgr_error *error) {
    pgr_device *device = comm->base.job->device;
    pgr_staged_slot **found = slot_find(comm, bytes);
    if (found) {
        *slot = *found;
        *found = (*found)->next;
        return PGR_OK;
    }
    int64_t room = SMALLEST;
    while (room < bytes && room < comm->piece_bytes)
        room *= 2;
    room = most(room, bytes);
    pgr_staged_slot *made = calloc(1, sizeof *made);
    if (!made)
        return pgr_error_set(error, PGR_LIMIT, "out of memory for pinned memory's record");
    void *memory = NULL;
    pgr_status status = device->ops->alloc(device, PGR_MEMORY_PINNED, room, &memory, error);
    if (status != PGR_OK) {
        free(made);
        return status;
    }
    made->memory = memory;
    made->bytes = room;
    *slot = made;
    return PGR_OK;
}

static void slot_free(const pgr_staged_comm *comm, pgr_staged_slot *slot) {
    pgr_device *device = comm->base.job->device;
    if (slot)
        device->ops->free(device, PGR_MEMORY_PINNED, slot->memory);
    free(slot);
}

/* Back to the pool, which keeps nothing that is larger than a piece of 64-byte-aligned parts. */
static void slot_return(pgr_staged_comm *comm, pgr_staged_slot *slot) {
    if (!slot)
        return;
    if (slot->bytes > 2 * most(comm->piece_bytes, SMALLEST)) {
        slot_free(comm, slot);
        return;
    }
    slot->next = comm->pool;
    comm->pool = slot;
}

/* ---- pieces -------------------------------------------------------------------------------- */

static pgr_status piece_take(pgr_staged_operation *o, int64_t bytes, pgr_staged_piece **piece,
                             pgr_error *error) {
    pgr_staged_comm *comm = o->comm;
    pgr_device *device = comm->base.job->device;
    pgr_staged_piece *taken = comm->spare_pieces;
    pgr_status status = PGR_OK;
    if (taken) {
        comm->spare_pieces = taken->next;
    } else {
        taken = calloc(1, sizeof *taken);
        if (!taken)
            return pgr_error_set(error, PGR_LIMIT, "out of memory for a piece");
        status = device->ops->event_create(device, &taken->event, error);
        if (status != PGR_OK) {
            free(taken);
            return status;
        }
    }
    *taken = (pgr_staged_piece){.event = taken->event};
    if (bytes > 0)
        status = slot_take(comm, bytes, &taken->slot, error);
    if (status != PGR_OK) {
        taken->next = comm->spare_pieces;
        comm->spare_pieces = taken;
        return status;
    }
    pgr_staged_piece **end = &o->pieces;
    while (*end)
        end = &(*end)->next;
    *end = taken;
    o->depth++;
    *piece = taken;
    return PGR_OK;
}

/* Out of its operation: its memory is free. */
static void piece_return(pgr_staged_operation *o, pgr_staged_piece *piece) {
    pgr_staged_comm *comm = o->comm;
    pgr_staged_piece **link = &o->pieces;
    while (*link != piece)
        link = &(*link)->next;
    *link = piece->next;
    o->depth--;
    slot_return(comm, piece->slot);
    piece->slot = NULL;
    piece->next = comm->spare_pieces;
    comm->spare_pieces = piece;
}

void pgr_staged_pieces_free(pgr_staged_comm *comm) {
    pgr_device *device = comm->base.job->device;
    pgr_staged_piece **lists[] = {&comm->stuck, &comm->spare_pieces};
    for (int i = 0; i < 2; i++) {
        while (*lists[i]) {
            pgr_staged_piece *piece = *lists[i];
            *lists[i] = piece->next;
            if (piece->phase == PGR_STAGED_INNER && piece->inner.state) {
                piece->next = given_up;
                given_up = piece;
                continue;
            }
            slot_free(comm, piece->slot);
            device->ops->event_free(device, piece->event);
            free(piece);
        }
    }
    while (comm->pool) {
        pgr_staged_slot *slot = comm->pool;
        comm->pool = slot->next;
        slot_free(comm, slot);
    }
}

/* ---- copies -------------------------------------------------------------------------------- */

/* One block of the piece, or all of them where they lie side by side on the device too. */
static pgr_status copy_blocks(const pgr_staged_operation *o, const pgr_staged_piece *piece,
                              bool out, pgr_error *error) {
    pgr_device *device = o->comm->base.job->device;
    shape s = shape_of(o);
    int64_t width = pgr_dtype_bytes(o->dtype), blocks = out ? s.received : s.sent;
    int64_t each = piece->count * width;
    bool together = piece->count == o->count;
    int64_t copies = together ? 1 : blocks, bytes = together ? blocks * each : each;
    pgr_status status = PGR_OK;
    for (int64_t b = 0; b < copies && status == PGR_OK; b++) {
        int64_t there = (b * o->count + piece->first) * width;
        status = out ? device->ops->copy(device, o->receive + there, piece->receive + b * each,
                                         bytes, o->comm->out, error)
                     : device->ops->copy(device, piece->send + b * each, o->send + there, bytes,
                                         o->comm->in, error);
    }
    return status;
}

/* The parts of an all-to-all-v, which lie one behind the other in pinned memory. */
static pgr_status copy_parts(const pgr_staged_operation *o, const pgr_staged_piece *piece, bool out,
                             pgr_error *error) {
    pgr_device *device = o->comm->base.job->device;
    int64_t size = o->comm->base.size, width = pgr_dtype_bytes(o->dtype), at = 0;
    const int64_t *counts = o->v + (out ? 2 * size : 0), *places = counts + size;
    pgr_status status = PGR_OK;
    for (int64_t p = 0; p < size && status == PGR_OK; p++) {
        int64_t bytes = counts[p] * width, there = places[p] * width;
        status = out ? device->ops->copy(device, o->receive + there, piece->receive + at, bytes,
                                         o->comm->out, error)
                     : device->ops->copy(device, piece->send + at, o->send + there, bytes,
                                         o->comm->in, error);
        at += bytes;
    }
    return status;
}

/* Enqueues the copies of one direction, and the event behind them. */
static pgr_status copy(const pgr_staged_operation *o, pgr_staged_piece *piece, bool out,
                       pgr_error *error) {
    pgr_device *device = o->comm->base.job->device;
    bool parts = o->kind == PGR_STAGED_ALL_TO_ALL_V;
    shape s = shape_of(o);
    piece->copying = parts || (out ? s.received : s.sent) > 0;
    if (!piece->copying)
        return PGR_OK;
    pgr_status status =
        parts ? copy_parts(o, piece, out, error) : copy_blocks(o, piece, out, error);
    if (status == PGR_OK)
        status = device->ops->event_record(device, piece->event, out ? o->comm->out : o->comm->in,
                                           error);
    return status;
}

static pgr_status copied(const pgr_staged_operation *o, pgr_staged_piece *piece, bool *done,
                         pgr_error *error) {
    pgr_device *device = o->comm->base.job->device;
    *done = true;
    pgr_status status = PGR_OK;
    if (piece->copying)
        status = device->ops->event_query(device, piece->event, done, error);
    if (status == PGR_OK && *done)
        piece->copying = false;
    return status;
}

/* ---- beginning ----------------------------------------------------------------------------- */

static pgr_status parts_begin(pgr_staged_operation *o, pgr_error *error) {
    int64_t size = o->comm->base.size, width = pgr_dtype_bytes(o->dtype);
    for (int64_t p = 0; p < size; p++)
        if (o->v[p] < 0 || o->v[2 * size + p] < 0)
            return pgr_error_set(error, PGR_INTERNAL, "%s: negative count for rank %lld", o->name,
                                 (long long)p);
    int64_t sent = aligned(sum_of(o->v, size) * width);
    int64_t received = aligned(sum_of(o->v + 2 * size, size) * width);
    pgr_staged_piece *piece;
    pgr_status status = piece_take(o, most(sent + received, ALIGNMENT), &piece, error);
    if (status != PGR_OK)
        return status;
    piece->send = piece->slot->memory;
    piece->receive = piece->slot->memory + sent;
    piece->count = 1;
    return copy(o, piece, false, error);
}

pgr_status pgr_staged_piece_begin(pgr_staged_operation *o, pgr_error *error) {
    int64_t first = o->begun, left = o->total - o->begun;
    int64_t count = left < o->step ? left : o->step;
    o->begun += count;
    if (o->kind == PGR_STAGED_ALL_TO_ALL_V)
        return parts_begin(o, error);
    shape s = shape_of(o);
    int64_t each = count * pgr_dtype_bytes(o->dtype);
    int64_t sent = aligned(s.sent * each), received = aligned(s.received * each);
    pgr_staged_piece *piece;
    pgr_status status =
        piece_take(o, s.overlaid ? most(sent, received) : sent + received, &piece, error);
    if (status != PGR_OK)
        return status;
    piece->first = first;
    piece->count = count;
    if (piece->slot) {
        piece->send = piece->receive = piece->slot->memory;
        if (!s.overlaid)
            piece->receive += sent;
        if (o->kind == PGR_STAGED_ALL_GATHER)
            piece->send += o->comm->base.rank * each;
    }
    return copy(o, piece, false, error);
}

/* ---- the inner communicator ---------------------------------------------------------------- */

static pgr_status inner_parts(const pgr_staged_operation *o, pgr_staged_piece *piece,
                              pgr_error *error) {
    pgr_comm *inner = o->comm->inner;
    int64_t size = o->comm->base.size;
    int64_t *places = malloc((size_t)(2 * size) * sizeof *places);
    if (!places)
        return pgr_error_set(error, PGR_LIMIT, "out of memory for %lld displacements",
                             (long long)(2 * size));
    for (int side = 0; side < 2; side++) {
        int64_t at = 0;
        for (int64_t p = 0; p < size; p++) {
            places[side * size + p] = at;
            at += o->v[2 * side * size + p];
        }
    }
    pgr_status status =
        inner->ops->all_to_all_v(inner, piece->send, o->v, places, piece->receive, o->v + 2 * size,
                                 places + size, o->dtype, NULL, &piece->inner, error);
    free(places);
    return status;
}

static pgr_status inner_start(const pgr_staged_operation *o, pgr_staged_piece *piece,
                              pgr_error *error) {
    pgr_comm *inner = o->comm->inner;
    const pgr_comm_ops *ops = inner->ops;
    pgr_request *request = &piece->inner;
    switch (o->kind) {
    case PGR_STAGED_ALL_REDUCE:
        return ops->all_reduce(inner, piece->send, piece->receive, piece->count, o->dtype,
                               o->reduce, NULL, request, error);
    case PGR_STAGED_REDUCE_SCATTER:
        return ops->reduce_scatter(inner, piece->send, piece->receive, piece->count, o->dtype,
                                   o->reduce, NULL, request, error);
    case PGR_STAGED_ALL_GATHER:
        return ops->all_gather(inner, piece->send, piece->receive, piece->count, o->dtype, NULL,
                               request, error);
    case PGR_STAGED_BROADCAST:
        return ops->broadcast(inner, piece->send, piece->count, o->dtype, o->peer, NULL, request,
                              error);
    case PGR_STAGED_ALL_TO_ALL:
        return ops->all_to_all(inner, piece->send, piece->receive, piece->count, o->dtype, NULL,
                               request, error);
    case PGR_STAGED_ALL_TO_ALL_V:
        return inner_parts(o, piece, error);
    case PGR_STAGED_BARRIER:
        return ops->barrier(inner, NULL, request, error);
    case PGR_STAGED_SEND:
        return ops->send(inner, piece->send, piece->count, o->dtype, o->peer, NULL, request, error);
    case PGR_STAGED_RECEIVE:
        return ops->receive(inner, piece->receive, piece->count, o->dtype, o->peer, NULL, request,
                            error);
    }
    return pgr_error_set(error, PGR_INTERNAL, "unknown operation %d", (int)o->kind);
}

static pgr_status inner_test(pgr_staged_operation *o, pgr_staged_piece *piece, bool *done,
                             pgr_error *error) {
    *done = true;
    pgr_status status = PGR_OK;
    if (piece->inner.state)
        status = piece->inner.comm->ops->test(&piece->inner, done, error);
    atomic_fetch_add(&o->progress, piece->inner.progress - piece->counted);
    piece->counted = piece->inner.progress;
    return status;
}

pgr_status pgr_staged_piece_advance(pgr_staged_operation *o, pgr_staged_piece *piece,
                                    bool may_start, bool *moved, pgr_error *error) {
    bool done = false;
    pgr_status status = PGR_OK;
    switch (piece->phase) {
    case PGR_STAGED_COPY_IN:
        status = copied(o, piece, &done, error);
        if (status != PGR_OK || !done || !may_start)
            return status;
        *moved = true;
        piece->phase = PGR_STAGED_INNER; /* also where the start fails: MPI may have begun */
        return inner_start(o, piece, error);
    case PGR_STAGED_INNER:
        status = inner_test(o, piece, &done, error);
        if (status != PGR_OK || !done)
            return status;
        *moved = true;
        piece->phase = PGR_STAGED_COPY_OUT;
        return copy(o, piece, true, error);
    case PGR_STAGED_COPY_OUT:
        status = copied(o, piece, &done, error);
        if (status != PGR_OK || !done)
            return status;
        *moved = true;
        o->ended += piece->count;
        atomic_fetch_add(&o->progress, 1);
        piece_return(o, piece);
        return PGR_OK;
    }
    return PGR_OK;
}

/* ---- counts on the device ------------------------------------------------------------------ */

static pgr_status counts_copy(pgr_staged_operation *o, pgr_error *error) {
    pgr_device *device = o->comm->base.job->device;
    int64_t bytes = o->comm->base.size * (int64_t)sizeof(int64_t);
    pgr_staged_piece *piece;
    pgr_status status = piece_take(o, 4 * bytes, &piece, error);
    for (int i = 0; i < 4 && status == PGR_OK; i++)
        status = device->ops->copy(device, piece->slot->memory + i * bytes, o->device_v[i], bytes,
                                   o->comm->in, error);
    if (status == PGR_OK) {
        piece->copying = true;
        o->v_state = PGR_STAGED_COUNTS_COPY;
        status = device->ops->event_record(device, piece->event, o->comm->in, error);
    }
    return status;
}

pgr_status pgr_staged_counts_advance(pgr_staged_operation *o, bool *moved, pgr_error *error) {
    pgr_device *device = o->comm->base.job->device;
    bool done = true;
    if (o->v_state == PGR_STAGED_COUNTS_LATE) {
        pgr_status status =
            o->v_ready ? device->ops->event_query(device, o->v_ready, &done, error) : PGR_OK;
        if (status != PGR_OK || !done)
            return status;
        *moved = true;
        return counts_copy(o, error);
    }
    pgr_status status = copied(o, o->pieces, &done, error);
    if (status != PGR_OK || !done)
        return status;
    *moved = true;
    const int64_t *here = (const int64_t *)(const void *)o->pieces->slot->memory;
    for (int64_t i = 0; i < 4 * o->comm->base.size; i++)
        o->v[i] = here[i];
    piece_return(o, o->pieces);
    o->v_state = PGR_STAGED_COUNTS_HERE;
    atomic_fetch_add(&o->progress, 1);
    return PGR_OK;
}
