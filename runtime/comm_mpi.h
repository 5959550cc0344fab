/* comm_mpi.h - what the files of the MPI module share. The only part of pgrun that knows mpi.h. */
#ifndef PGR_COMM_MPI_H
#define PGR_COMM_MPI_H

#include "comm.h"

#include <mpi.h>

/* ---- the worker ---------------------------------------------------------------------------- */

/* MPI_Init, MPI_Comm_split, MPI_Comm_free and MPI_Finalize have no nonblocking form. They run one
 * after the other in one thread of this module, so that the caller can watch them against a
 * deadline (MPI_THREAD_MULTIPLE is there for this). MPI wants to be finalised by the thread that
 * initialised it, which is the worker too. */
typedef struct pgr_mpi_task pgr_mpi_task;

/* Starts the worker; stops it once its queue is empty. */
pgr_status pgr_mpi_worker_start(pgr_error *error);
void pgr_mpi_worker_stop(void);

/* Queues `run(context)`. `context` must live until the task is done; `drop` frees it where the task
 * was abandoned, after it ran, and may be NULL. */
pgr_status pgr_mpi_task_post(pgr_status (*run)(void *context, pgr_error *error), void *context,
                             void (*drop)(void *context), pgr_mpi_task **task, pgr_error *error);

/* Whether the task is done; its status and error are then passed on and it is freed. */
pgr_status pgr_mpi_task_poll(pgr_mpi_task *task, bool *done, pgr_error *error);

/* Waits for it, at most `seconds`; then abandons it with PGR_TIMEOUT: "`what`: not done within ..."
 */
pgr_status pgr_mpi_task_wait(pgr_mpi_task *task, double seconds, const char *what,
                             pgr_error *error);

/* Gives it up: it still runs, and is freed after that. */
void pgr_mpi_task_abandon(pgr_mpi_task *task);

/* ---- errors and limits --------------------------------------------------------------------- */

/* PGR_OK for MPI_SUCCESS; else PGR_BACKEND with MPI's own words. The only place that reads MPI's
 * codes. */
pgr_status pgr_mpi_status(int code, const char *call, pgr_error *error);

/* The largest count that one MPI call is given: INT_MAX, or $PGRUN_MPI_MAX_COUNT, by which tests
 * make calls split. */
int64_t pgr_mpi_max_count(void);

/* Elements of the next piece, where `left` are left to move and a piece has at most `limit`. */
int pgr_mpi_piece(int64_t left, int64_t limit);

/* ---- the tables ---------------------------------------------------------------------------- */

extern const pgr_bootstrap_ops pgr_mpi_bootstrap_ops;
extern const pgr_comm_ops pgr_mpi_comm_ops;

/* ---- communicators ------------------------------------------------------------------------- */

typedef struct pgr_mpi_pending pgr_mpi_pending;

typedef struct pgr_mpi_comm {
    pgr_comm base;
    MPI_Comm comm;
    pgr_mpi_task *opening;    /* until open_poll has seen it done */
    pgr_mpi_pending *pending; /* operations under way */
    uint64_t all_to_all_v_count;
} pgr_mpi_comm;

/* What is left to do when the messages of an operation have come. */
typedef enum pgr_mpi_finish {
    PGR_MPI_FINISH_NONE,
    PGR_MPI_FINISH_COPY,
    PGR_MPI_FINISH_TO_BF16
} pgr_mpi_finish;

/* The state of one request: the MPI requests it waits for and the scratch memory they use. */
struct pgr_mpi_pending {
    pgr_mpi_pending *next, **link; /* in its communicator's list */
    MPI_Request *requests;
    int count, capacity, completed;
    uint64_t progress; /* of the request */
    void *scratch[2];
    MPI_Datatype types[2]; /* of pieces of blocks, for pieces of type_pieces elements; 0: none */
    int type_pieces[2];
    pgr_mpi_finish finish; /* scratch[1] -> receive, `finish_count` elements */
    void *receive;
    int64_t finish_count, finish_bytes;
    struct pgr_mpi_later *later; /* an all-to-all-v that waits for its counts, or NULL */
};

/* A new pending operation of `comm`, in its list; sets the request's fields but `state`. */
pgr_status pgr_mpi_pending_create(pgr_mpi_comm *comm, const char *operation, int64_t bytes,
                                  pgr_request *request, pgr_mpi_pending **pending,
                                  pgr_error *error);

/* Room for one more MPI request; NULL where there is no memory. */
MPI_Request *pgr_mpi_pending_request(pgr_mpi_pending *pending, pgr_error *error);

/* Memory of the operation: freed with it. */
pgr_status pgr_mpi_pending_scratch(pgr_mpi_pending *pending, int which, int64_t bytes,
                                   pgr_error *error);

/* Hands the operation over to its request (status OK), or frees it and returns the status. */
pgr_status pgr_mpi_pending_start(pgr_mpi_pending *pending, pgr_status status, pgr_request *request);

/* Copies or converts the result into its place, once the messages have come. */
void pgr_mpi_pending_finish(const pgr_mpi_pending *pending);

void pgr_mpi_pending_free(pgr_mpi_pending *pending);

/* Starts every all-to-all-v, of any communicator, whose counts have come since it was called.
 * Returns why that of `pending` could not start; PGR_OK where it did, still waits or there is none.
 */
pgr_status pgr_mpi_later_poll(const pgr_mpi_pending *pending, pgr_error *error);

/* Gives up the one of `pending` that has not started, if there is one. */
void pgr_mpi_later_drop(pgr_mpi_pending *pending);

/* The start of an operation on `blocks` blocks of `count` elements: its pending state, or an error
 * where they cannot be. */
pgr_status pgr_mpi_begin(pgr_comm *comm, const char *operation, int64_t count, int64_t blocks,
                         pgr_dtype dtype, pgr_request *request, pgr_mpi_pending **pending,
                         pgr_error *error);

/* PGR_INTERNAL where `peer` is no rank of the group. */
pgr_status pgr_mpi_check_peer(const pgr_comm *comm, const char *operation, int64_t peer,
                              pgr_error *error);

MPI_Datatype pgr_mpi_type(pgr_dtype dtype); /* bf16 is moved as 16 bits, never reduced */

/* The operations: see pgr_comm_ops. comm_mpi_collectives.c */
pgr_status pgr_mpi_all_reduce(pgr_comm *comm, const void *send, void *receive, int64_t count,
                              pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                              pgr_request *request, pgr_error *error);
pgr_status pgr_mpi_reduce_scatter(pgr_comm *comm, const void *send, void *receive, int64_t count,
                                  pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                                  pgr_request *request, pgr_error *error);
pgr_status pgr_mpi_all_gather(pgr_comm *comm, const void *send, void *receive, int64_t count,
                              pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                              pgr_error *error);
pgr_status pgr_mpi_broadcast(pgr_comm *comm, void *data, int64_t count, pgr_dtype dtype,
                             int64_t root, pgr_stream *stream, pgr_request *request,
                             pgr_error *error);
pgr_status pgr_mpi_all_to_all(pgr_comm *comm, const void *send, void *receive, int64_t count,
                              pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                              pgr_error *error);
pgr_status pgr_mpi_barrier(pgr_comm *comm, pgr_stream *stream, pgr_request *request,
                           pgr_error *error);

/* comm_mpi_messages.c */
pgr_status pgr_mpi_all_to_all_v(pgr_comm *comm, const void *send, const int64_t *send_counts,
                                const int64_t *send_displacements, void *receive,
                                const int64_t *receive_counts, const int64_t *receive_displacements,
                                pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                                pgr_error *error);
pgr_status pgr_mpi_all_to_all_v_device(pgr_comm *comm, const void *send, const int64_t *send_counts,
                                       const int64_t *send_displacements, void *receive,
                                       const int64_t *receive_counts,
                                       const int64_t *receive_displacements,
                                       pgr_event *counts_ready, pgr_dtype dtype, pgr_stream *stream,
                                       pgr_request *request, pgr_error *error);
pgr_status pgr_mpi_send(pgr_comm *comm, const void *data, int64_t count, pgr_dtype dtype,
                        int64_t peer, pgr_stream *stream, pgr_request *request, pgr_error *error);
pgr_status pgr_mpi_receive(pgr_comm *comm, void *data, int64_t count, pgr_dtype dtype, int64_t peer,
                           pgr_stream *stream, pgr_request *request, pgr_error *error);

#endif
