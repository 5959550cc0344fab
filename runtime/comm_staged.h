/* comm_staged.h - private to the communicators that stage device memory through pinned host memory:
 * the backend for GPUs whose ranks communicate over MPI, several of them on one GPU if need be.
 *
 * An operation is cut into pieces. A piece is copied to pinned memory, given to the inner
 * communicator (MPI's), and copied back. One thread of the process, the worker, does all of that
 * for all communicators; the caller goes on meanwhile. Whose is what:
 *   - the caller's thread makes operations, looks at their state, and frees them;
 *   - from submission until the state says that it is over, an operation is the worker's, and so
 * are all pieces, pinned memory and the inner communicator's operations. */
#ifndef PGR_COMM_STAGED_H
#define PGR_COMM_STAGED_H

#include <stdatomic.h>

#include "comm.h"

/* The backend. Its inner one is job->staged_ops, whose operations take host memory. `name` is that
 * of the inner one to users: "mpi". */
extern const pgr_comm_ops pgr_staged_comm_ops;

/* ---- pieces -------------------------------------------------------------------------------- */

typedef enum pgr_staged_kind {
    PGR_STAGED_ALL_REDUCE,
    PGR_STAGED_REDUCE_SCATTER,
    PGR_STAGED_ALL_GATHER,
    PGR_STAGED_BROADCAST,
    PGR_STAGED_ALL_TO_ALL,
    PGR_STAGED_ALL_TO_ALL_V,
    PGR_STAGED_BARRIER,
    PGR_STAGED_SEND,
    PGR_STAGED_RECEIVE
} pgr_staged_kind;

/* Pinned memory. */
typedef struct pgr_staged_slot {
    struct pgr_staged_slot *next; /* in the pool */
    char *memory;
    int64_t bytes;
} pgr_staged_slot;

typedef enum pgr_staged_phase {
    PGR_STAGED_COPY_IN, /* or waiting until the pieces before it have started */
    PGR_STAGED_INNER,
    PGR_STAGED_COPY_OUT
} pgr_staged_phase;

typedef struct pgr_staged_piece {
    struct pgr_staged_piece
        *next; /* of its operation, in order; or in a list of its communicator */
    pgr_staged_phase phase;
    bool copying;         /* `event` is behind a copy under way */
    int64_t first, count; /* elements of each block */
    pgr_staged_slot *slot;
    char *send, *receive; /* in the slot; they may overlap */
    pgr_event *event;
    pgr_request inner;
    uint64_t counted; /* of the inner request's progress */
} pgr_staged_piece;

typedef enum pgr_staged_state {
    PGR_STAGED_UNDER_WAY,
    PGR_STAGED_DONE,
    PGR_STAGED_FAILED /* the communicator has the error */
} pgr_staged_state;

typedef enum pgr_staged_counts { /* of an all-to-all-v, where they are on the device */
                                 PGR_STAGED_COUNTS_HERE,
                                 PGR_STAGED_COUNTS_LATE,
                                 PGR_STAGED_COUNTS_COPY /* by the operation's first piece */
} pgr_staged_counts;

typedef struct pgr_staged_comm pgr_staged_comm;

typedef struct pgr_staged_operation {
    struct pgr_staged_operation *next;  /* submitted or active; or spare */
    struct pgr_staged_operation *other; /* of all that the communicator made */
    pgr_staged_comm *comm;
    const char *name; /* the request's, for messages */
    uint64_t sequence;

    pgr_staged_kind kind;
    const char *send; /* device memory */
    char *receive;
    int64_t count; /* elements of a block */
    pgr_dtype dtype;
    pgr_reduce reduce;
    int64_t peer; /* or root */
    int64_t *v;   /* [4][size] of an all-to-all-v: send counts and displacements, then receive's */
    const int64_t *device_v[4];
    pgr_event *v_ready; /* the caller's */
    pgr_staged_counts v_state;

    pgr_event *ready; /* behind what was on the caller's stream */
    bool is_ready;
    int64_t total,
        step; /* elements of a block; of a piece. An operation that cannot be cut: 1, 1 */
    int64_t begun, ended;
    pgr_staged_piece *pieces; /* under way */
    int depth;                /* their number */

    _Atomic int state; /* pgr_staged_state */
    _Atomic uint64_t progress;
} pgr_staged_operation;

struct pgr_staged_comm {
    pgr_comm base;
    pgr_comm *inner;
    bool open;           /* the worker knows it */
    int64_t piece_bytes; /* of pinned memory, at most, where an operation can be cut */

    /* the caller's */
    int64_t under_way;                   /* requests that nobody has seen done */
    pgr_staged_operation *spare, *every; /* to be used again; all */
    struct pgr_staged_comm *lost;        /* the next of those that could not be freed */

    /* the worker's */
    pgr_stream *in, *out; /* copies from the device and to it */
    pgr_staged_slot *pool;
    pgr_staged_piece *spare_pieces;
    pgr_staged_piece *stuck; /* of operations that failed: their memory may be in use */

    /* The first error. Nothing is started after it, since other ranks would take it for another
     * operation. Written before `broken` is. */
    _Atomic bool broken;
    pgr_error error;
    const char *culprit;
    uint64_t culprit_sequence;
};

/* Sets total and step for an operation whose other fields are filled. */
void pgr_staged_cut(pgr_staged_operation *operation);

/* Begins the next piece: its pinned memory, and the copies out of the device. */
pgr_status pgr_staged_piece_begin(pgr_staged_operation *operation, pgr_error *error);

/* Moves the piece on by one phase where it can; *moved says whether it did. `may_start`: the inner
 * operation may be started, which is in order. A piece that is over is taken out of the operation.
 */
pgr_status pgr_staged_piece_advance(pgr_staged_operation *operation, pgr_staged_piece *piece,
                                    bool may_start, bool *moved, pgr_error *error);

/* Moves on the counts that come from the device. */
pgr_status pgr_staged_counts_advance(pgr_staged_operation *operation, bool *moved,
                                     pgr_error *error);

/* Frees the pool and all pieces of a communicator without operations under way. What MPI may still
 * write to stays until the process ends. */
void pgr_staged_pieces_free(pgr_staged_comm *comm);

/* ---- the worker ---------------------------------------------------------------------------- */

/* The first communicator starts the thread, the last one ends it. */
pgr_status pgr_staged_worker_enter(pgr_error *error);
void pgr_staged_worker_leave(void);

void pgr_staged_submit(pgr_staged_operation *operation);

/* Takes all operations of the communicator from the worker; its pieces are then in `stuck`. False
 * where the worker does not answer for 5 seconds: it may touch them at any time. */
bool pgr_staged_drop(pgr_staged_comm *comm);

#endif
