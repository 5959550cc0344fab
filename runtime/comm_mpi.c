/* comm_mpi.c - communicators over MPI: opening, closing, requests. The module's table is here. */
#include "comm_mpi.h"

#include <stdlib.h>
#include <string.h>

/* Operations of communicators that were given up: MPI may still write into their memory, so that
 * they stay until the process ends. */
static pgr_mpi_pending *given_up;

/* ---- opening and closing ------------------------------------------------------------------- */

/* Whether this rank only takes part in the split. */
static bool is_outside(int64_t group) {
    return group < 0;
}

/* One split of the world per family. Its colour is the group; a rank without others in its group
 * gives none and gets no communicator. */
static pgr_status split_task(void *context, pgr_error *error) {
    pgr_mpi_comm *comm = context;
    bool outside = is_outside(comm->base.group);
    int colour = outside ? MPI_UNDEFINED : (int)comm->base.group;
    int key = outside ? 0 : (int)comm->base.rank;
    int rank = -1, size = -1;
    pgr_status status = pgr_mpi_status(MPI_Comm_split(MPI_COMM_WORLD, colour, key, &comm->comm),
                                       "MPI_Comm_split", error);
    if (status != PGR_OK || outside)
        return status;
    MPI_Comm_set_errhandler(comm->comm, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm->comm, &rank);
    MPI_Comm_size(comm->comm, &size);
    if (rank != comm->base.rank || size != comm->base.size) {
        return pgr_error_set(error, PGR_BACKEND,
                             "family %s, group %lld: the communicator has this rank at place %d of "
                             "%d, the plan at %lld of %lld",
                             comm->base.family, (long long)comm->base.group, rank, size,
                             (long long)comm->base.rank, (long long)comm->base.size);
    }
    return PGR_OK;
}

static pgr_status free_task(void *context, pgr_error *error) {
    pgr_mpi_comm *comm = context;
    return pgr_mpi_status(MPI_Comm_free(&comm->comm), "MPI_Comm_free", error);
}

static pgr_status open_begin(const pgr_comm_open_args *args, pgr_comm **comm, pgr_error *error) {
    bool member = args->size >= 2 && args->rank >= 0 && args->rank < args->size &&
                  args->group >= 0 && args->size <= args->job->size;
    if (!member && !is_outside(args->group)) {
        return pgr_error_set(error, PGR_INTERNAL, "family %s: rank %lld of %lld in group %lld",
                             args->family, (long long)args->rank, (long long)args->size,
                             (long long)args->group);
    }
    pgr_mpi_comm *opened = calloc(1, sizeof *opened);
    if (!opened)
        return pgr_error_set(error, PGR_LIMIT, "out of memory for a communicator");
    opened->base.ops = &pgr_mpi_comm_ops;
    opened->base.job = args->job;
    strncpy(opened->base.family, args->family, sizeof opened->base.family - 1);
    opened->base.group = args->group;
    opened->base.rank = args->rank;
    opened->base.size = args->size;
    opened->base.timeout = args->timeout;
    opened->comm = MPI_COMM_NULL;
    pgr_status status = pgr_mpi_task_post(split_task, opened, free, &opened->opening, error);
    if (status != PGR_OK) {
        free(opened);
        return status;
    }
    *comm = &opened->base;
    return PGR_OK;
}

static pgr_status open_poll(pgr_comm *base, bool *done, pgr_error *error) {
    pgr_mpi_comm *comm = (pgr_mpi_comm *)base;
    *done = true;
    if (!comm->opening)
        return PGR_OK;
    pgr_status status = pgr_mpi_task_poll(comm->opening, done, error);
    if (*done)
        comm->opening = NULL;
    return status;
}

static void comm_abort(pgr_comm *base) {
    pgr_mpi_comm *comm = (pgr_mpi_comm *)base;
    while (comm->pending) { /* the handle is lost: freeing a communicator would be collective */
        pgr_mpi_pending *pending = comm->pending;
        comm->pending = pending->next;
        pgr_mpi_later_drop(pending);
        pending->next = given_up;
        given_up = pending;
    }
    if (comm->opening) {
        pgr_mpi_task_abandon(comm->opening); /* frees comm when the split is over */
        return;
    }
    free(comm);
}

static pgr_status comm_close(pgr_comm *base, pgr_error *error) {
    pgr_mpi_comm *comm = (pgr_mpi_comm *)base;
    if (comm->pending || comm->opening) {
        pgr_status status = pgr_error_set(error, PGR_INTERNAL,
                                          "family %s, group %lld: closed with operations under way",
                                          comm->base.family, (long long)comm->base.group);
        comm_abort(base);
        return status;
    }
    pgr_mpi_task *task;
    pgr_status status = pgr_mpi_task_post(free_task, comm, free, &task, error);
    if (status == PGR_OK) {
        status = pgr_mpi_task_wait(task, comm->base.timeout, "closing a communicator", error);
        if (status == PGR_TIMEOUT)
            return status; /* the worker frees it when it comes back */
    }
    free(comm);
    return status;
}

/* ---- requests ------------------------------------------------------------------------------ */

pgr_status pgr_mpi_pending_create(pgr_mpi_comm *comm, const char *operation, int64_t bytes,
                                  pgr_request *request, pgr_mpi_pending **pending,
                                  pgr_error *error) {
    *request = (pgr_request){.comm = &comm->base,
                             .operation = operation,
                             .sequence = ++comm->base.sequence,
                             .bytes = bytes};
    pgr_mpi_pending *created = calloc(1, sizeof *created);
    if (!created)
        return pgr_error_set(error, PGR_LIMIT, "%s: out of memory", operation);
    created->next = comm->pending;
    created->link = &comm->pending;
    if (created->next)
        created->next->link = &created->next;
    comm->pending = created;
    *pending = created;
    return PGR_OK;
}

MPI_Request *pgr_mpi_pending_request(pgr_mpi_pending *pending, pgr_error *error) {
    if (pending->count == pending->capacity) {
        int capacity = pending->capacity ? 2 * pending->capacity : 4;
        MPI_Request *grown = realloc(pending->requests, (size_t)capacity * sizeof *grown);
        if (!grown) {
            pgr_error_set(error, PGR_LIMIT, "out of memory for %d MPI requests", capacity);
            return NULL;
        }
        pending->requests = grown;
        pending->capacity = capacity;
    }
    pending->requests[pending->count] = MPI_REQUEST_NULL;
    return &pending->requests[pending->count++];
}

static pgr_status aligned_memory(int64_t bytes, void **memory, pgr_error *error) {
    void *got = NULL;
    size_t size = bytes > 0 ? (size_t)bytes : 1;
    if (bytes < 0 || posix_memalign(&got, 64, size) != 0) {
        return pgr_error_set(error, PGR_LIMIT,
                             "out of memory for a communication buffer of %lld bytes",
                             (long long)bytes);
    }
    *memory = got;
    return PGR_OK;
}

pgr_status pgr_mpi_pending_scratch(pgr_mpi_pending *pending, int which, int64_t bytes,
                                   pgr_error *error) {
    return aligned_memory(bytes, &pending->scratch[which], error);
}

void pgr_mpi_pending_free(pgr_mpi_pending *pending) {
    *pending->link = pending->next;
    if (pending->next)
        pending->next->link = pending->link;
    for (int i = 0; i < 2; i++)
        if (pending->type_pieces[i] != 0)
            MPI_Type_free(&pending->types[i]);
    free(pending->scratch[0]);
    free(pending->scratch[1]);
    free(pending->requests);
    pgr_mpi_later_drop(pending);
    free(pending);
}

pgr_status pgr_mpi_pending_start(pgr_mpi_pending *pending, pgr_status status,
                                 pgr_request *request) {
    bool nothing = pending->count == 0 && !pending->later;
    if (nothing)
        pgr_mpi_pending_free(pending);
    else
        request->state = pending; /* also of a failed start: MPI may be using its memory */
    return status;
}

/* Counts the MPI requests that are done. One after the other finishes, and each is progress: a look
 * at all of them together would not tell. */
static pgr_status count_completed(pgr_mpi_pending *pending, const char *operation,
                                  pgr_error *error) {
    enum { AT_ONCE = 64 };
    int indices[AT_ONCE];
    for (int first = 0; first < pending->count; first += AT_ONCE) {
        int left = pending->count - first, some = 0;
        int code = MPI_Testsome(left < AT_ONCE ? left : AT_ONCE, pending->requests + first, &some,
                                indices, MPI_STATUSES_IGNORE);
        pgr_status status = pgr_mpi_status(code, operation, error);
        if (status != PGR_OK)
            return status;
        if (some == MPI_UNDEFINED) /* all of these were done before */
            continue;
        pending->completed += some;
        pending->progress += (uint64_t)some;
    }
    return PGR_OK;
}

static pgr_status request_test(pgr_request *request, bool *done, pgr_error *error) {
    pgr_mpi_pending *pending = request->state;
    *done = true;
    if (!pending)
        return PGR_OK;
    pgr_status status = pgr_mpi_later_poll(pending, error);
    if (status == PGR_OK)
        status = count_completed(pending, request->operation, error);
    request->progress = pending->progress;
    if (status != PGR_OK || pending->later || pending->completed < pending->count) {
        *done = false;
        return status;
    }
    pgr_mpi_pending_finish(pending);
    pgr_mpi_pending_free(pending);
    request->state = NULL;
    return PGR_OK;
}

/* ---- memory and grouping ------------------------------------------------------------------- */

static pgr_status buffer_alloc(pgr_comm *comm, int64_t bytes, void **buffer, pgr_error *error) {
    (void)comm;
    return aligned_memory(bytes, buffer, error);
}

static void buffer_free(pgr_comm *comm, void *buffer) {
    (void)comm;
    free(buffer);
}

/* Everything is nonblocking and starts at once: a group has nothing to put together. */
static pgr_status group_start_or_end(pgr_comm *comm, pgr_error *error) {
    (void)comm, (void)error;
    return PGR_OK;
}

const pgr_comm_ops pgr_mpi_comm_ops = {
    .name = "mpi",
    .open_begin = open_begin,
    .open_poll = open_poll,
    .abort = comm_abort,
    .close = comm_close,
    .buffer_alloc = buffer_alloc,
    .buffer_free = buffer_free,
    .group_start = group_start_or_end,
    .group_end = group_start_or_end,
    .all_reduce = pgr_mpi_all_reduce,
    .reduce_scatter = pgr_mpi_reduce_scatter,
    .all_gather = pgr_mpi_all_gather,
    .broadcast = pgr_mpi_broadcast,
    .all_to_all = pgr_mpi_all_to_all,
    .all_to_all_v = pgr_mpi_all_to_all_v,
    .all_to_all_v_device = pgr_mpi_all_to_all_v_device,
    .send = pgr_mpi_send,
    .receive = pgr_mpi_receive,
    .barrier = pgr_mpi_barrier,
    .test = request_test,
};

/* The symbol is pgr_module, which in C is already the name of the type. */
extern const pgr_module pgr_mpi_module __asm__("pgr_module") __attribute__((visibility("default")));
const pgr_module pgr_mpi_module = {
    .abi = PGR_MODULE_ABI,
    .name = "mpi",
    .bootstrap = &pgr_mpi_bootstrap_ops,
    .comm = &pgr_mpi_comm_ops,
    .device = NULL,
};
