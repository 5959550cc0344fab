/* comm_staged_worker.c - the thread that moves staged operations on, each as far as it can.
 *
 * Nothing in it waits for one operation: a rank that waited for a send alone would never come to
 * the receive that lets its peer's send end. Order is kept where another rank relies on it:
 * collectives of a communicator start in the order of the calls, and so do sends to one peer and
 * receives from one. */
#include "comm_staged.h"
#include "deadline.h"

#include <pthread.h>
#include <string.h>

enum { PIECES_AT_ONCE = 2 }; /* of an operation: one is copied while another is on its way */

#define DROP_SECONDS 5.0

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    int64_t users;
    bool stop;
    pgr_staged_operation *submitted, **last;
    pgr_staged_comm *drop; /* is to be forgotten; NULL when it is */
} worker = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* The worker's alone: what was submitted and is not over, in the order of the calls. */
static pgr_staged_operation *active;

/* ---- order --------------------------------------------------------------------------------- */

/* Whether two operations of one communicator must start in order. */
static bool same_lane(const pgr_staged_operation *a, const pgr_staged_operation *b) {
    bool message = a->kind == PGR_STAGED_SEND || a->kind == PGR_STAGED_RECEIVE;
    if (a->comm != b->comm)
        return false;
    return message ? a->kind == b->kind && a->peer == b->peer
                   : b->kind != PGR_STAGED_SEND && b->kind != PGR_STAGED_RECEIVE;
}

/* Whether it is the operation's turn to begin pieces: those before it have begun all theirs. */
static bool its_turn(const pgr_staged_operation *operation) {
    for (const pgr_staged_operation *o = active; o != operation; o = o->next)
        if (same_lane(operation, o) && o->begun < o->total)
            return false;
    return true;
}

/* Whether all pieces before this one have started. */
static bool may_start(const pgr_staged_operation *operation, const pgr_staged_piece *piece) {
    for (const pgr_staged_operation *o = active;; o = o->next) {
        if (!same_lane(operation, o))
            continue;
        for (const pgr_staged_piece *p = o->pieces; p; p = p->next) {
            if (p == piece)
                return true;
            if (p->phase == PGR_STAGED_COPY_IN)
                return false;
        }
    }
}

/* ---- one operation ------------------------------------------------------------------------- */

static pgr_status look_ready(pgr_staged_operation *operation, bool *moved, pgr_error *error) {
    pgr_device *device = operation->comm->base.job->device;
    if (operation->is_ready)
        return PGR_OK;
    pgr_status status =
        device->ops->event_query(device, operation->ready, &operation->is_ready, error);
    *moved = *moved || operation->is_ready;
    return status;
}

static pgr_status advance(pgr_staged_operation *operation, bool *moved, pgr_error *error) {
    pgr_status status = look_ready(operation, moved, error);
    if (status != PGR_OK || !operation->is_ready)
        return status;
    if (operation->v_state != PGR_STAGED_COUNTS_HERE)
        return pgr_staged_counts_advance(operation, moved, error);
    while (status == PGR_OK && operation->begun < operation->total &&
           operation->depth < PIECES_AT_ONCE && its_turn(operation)) {
        status = pgr_staged_piece_begin(operation, error);
        *moved = true;
    }
    for (pgr_staged_piece *next, *piece = operation->pieces; piece && status == PGR_OK;
         piece = next) {
        bool start = piece->phase == PGR_STAGED_COPY_IN && may_start(operation, piece);
        next = piece->next;
        status = pgr_staged_piece_advance(operation, piece, start, moved, error);
    }
    return status;
}

static void keep_pieces(pgr_staged_operation *operation) {
    pgr_staged_comm *comm = operation->comm;
    while (operation->pieces) {
        pgr_staged_piece *piece = operation->pieces;
        operation->pieces = piece->next;
        piece->next = comm->stuck;
        comm->stuck = piece;
    }
}

static void fail(pgr_staged_operation *operation) {
    pgr_staged_comm *comm = operation->comm;
    if (!atomic_load(&comm->broken)) {
        comm->culprit = operation->name;
        comm->culprit_sequence = operation->sequence;
        atomic_store(&comm->broken, true);
    }
    keep_pieces(operation);
}

/* Moves all operations on; whether anything moved. An operation that is over is its caller's from
 * the store of its state on. */
static bool sweep(void) {
    bool moved = false;
    for (pgr_staged_operation **link = &active; *link;) {
        pgr_staged_operation *operation = *link;
        pgr_staged_comm *comm = operation->comm;
        bool failed =
            atomic_load(&comm->broken) || advance(operation, &moved, &comm->error) != PGR_OK;
        bool done = !failed && operation->ended == operation->total;
        if (failed)
            fail(operation);
        if (failed || done) {
            moved = true;
            *link = operation->next;
            atomic_store(&operation->state, failed ? PGR_STAGED_FAILED : PGR_STAGED_DONE);
        } else {
            link = &operation->next;
        }
    }
    return moved;
}

/* ---- the thread ---------------------------------------------------------------------------- */

static void forget(const pgr_staged_comm *comm) {
    for (pgr_staged_operation **link = &active; *link;) {
        pgr_staged_operation *operation = *link;
        if (operation->comm == comm) {
            *link = operation->next;
            keep_pieces(operation);
            atomic_store(&operation->state, PGR_STAGED_FAILED);
        } else {
            link = &operation->next;
        }
    }
}

/* Under the lock: takes over what is new. */
static void take_over(void) {
    pgr_staged_operation **end = &active;
    while (*end)
        end = &(*end)->next;
    *end = worker.submitted;
    worker.submitted = NULL;
    worker.last = &worker.submitted;
    if (worker.drop) {
        forget(worker.drop);
        worker.drop = NULL;
        pthread_cond_broadcast(&worker.changed);
    }
}

static void *worker_main(void *unused) {
    (void)unused;
    int64_t rounds = 0;
    for (;;) {
        pthread_mutex_lock(&worker.lock);
        while (!active && !worker.submitted && !worker.drop && !worker.stop)
            pthread_cond_wait(&worker.changed, &worker.lock);
        bool stop = worker.stop;
        if (worker.submitted)
            rounds = 0;
        take_over();
        pthread_mutex_unlock(&worker.lock);
        if (stop)
            return NULL;
        if (active && sweep())
            rounds = 0;
        else if (active)
            pgr_wait_step(&rounds, 0);
    }
}

pgr_status pgr_staged_worker_enter(pgr_error *error) {
    pthread_mutex_lock(&worker.lock);
    int code = 0;
    if (worker.users == 0) {
        worker.stop = false;
        worker.submitted = NULL;
        worker.last = &worker.submitted;
        code = pthread_create(&worker.thread, NULL, worker_main, NULL);
    }
    worker.users += code == 0;
    pthread_mutex_unlock(&worker.lock);
    return code == 0 ? PGR_OK
                     : pgr_error_set(error, PGR_SYSTEM,
                                     "cannot start the thread that stages communication: %s",
                                     strerror(code));
}

void pgr_staged_worker_leave(void) {
    pthread_mutex_lock(&worker.lock);
    bool last = --worker.users == 0;
    worker.stop = last;
    pthread_cond_broadcast(&worker.changed);
    pthread_mutex_unlock(&worker.lock);
    if (last)
        pthread_join(worker.thread, NULL);
}

void pgr_staged_submit(pgr_staged_operation *operation) {
    operation->next = NULL;
    pthread_mutex_lock(&worker.lock);
    *worker.last = operation;
    worker.last = &operation->next;
    pthread_cond_broadcast(&worker.changed);
    pthread_mutex_unlock(&worker.lock);
}

bool pgr_staged_drop(pgr_staged_comm *comm) {
    double start = pgr_clock_seconds();
    int64_t rounds = 0;
    bool dropped = false;
    pthread_mutex_lock(&worker.lock);
    worker.drop = comm;
    pthread_cond_broadcast(&worker.changed);
    pthread_mutex_unlock(&worker.lock);
    while (!dropped && pgr_clock_seconds() - start < DROP_SECONDS) {
        pgr_wait_step_asleep(&rounds);
        pthread_mutex_lock(&worker.lock);
        dropped = worker.drop != comm;
        pthread_mutex_unlock(&worker.lock);
    }
    return dropped;
}
