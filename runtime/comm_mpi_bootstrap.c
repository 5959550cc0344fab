/* comm_mpi_bootstrap.c - MPI's world: starting and ending it, and the control traffic between all
 * ranks, on a communicator of its own. */
#define _GNU_SOURCE /* dladdr */
#include "comm_mpi.h"
#include "deadline.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pgr_bootstrap {
    int64_t rank, size;
    MPI_Comm control; /* a duplicate of the world: splits go over the world itself */
    double timeout;
    bool initialised_here, open;
    char name[64];
};

static pgr_bootstrap world; /* MPI is there once per process */

/* ---- errors and limits --------------------------------------------------------------------- */

pgr_status pgr_mpi_status(int code, const char *call, pgr_error *error) {
    if (code == MPI_SUCCESS)
        return PGR_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        snprintf(text, sizeof text, "unknown error");
    return pgr_error_set(error, PGR_BACKEND, "%s on rank %lld of %lld: %s (MPI error %d)", call,
                         (long long)world.rank, (long long)world.size, text, code);
}

int64_t pgr_mpi_max_count(void) {
    static _Atomic int64_t limit; /* any thread may be the first to ask */
    if (limit == 0) {
        const char *given = getenv("PGRUN_MPI_MAX_COUNT");
        long long number = given ? atoll(given) : 0;
        limit = number > 0 && number < INT_MAX ? number : INT_MAX;
    }
    return limit;
}

int pgr_mpi_piece(int64_t left, int64_t limit) {
    return (int)(left < limit ? left : limit);
}

/* ---- starting and ending ------------------------------------------------------------------- */

/* "Open MPI v4.1.4, package: ..." -> "Open MPI 4.1.4" */
static void library_name(char *text, size_t bytes) {
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "MPI";
    int length = 0;
    MPI_Get_library_version(version, &length);
    version[strcspn(version, ",\n")] = '\0';
    char *v = strstr(version, " v");
    if (v && v[2] >= '0' && v[2] <= '9')
        memmove(v + 1, v + 2, strlen(v + 2) + 1);
    snprintf(text, bytes, "%.*s", (int)bytes - 1, version);
}

/* This module is loaded with RTLD_LOCAL, and so is the MPI library that comes with it; but Debian's
 * Open MPI has plugins that name no library and look for MPI's symbols among the global ones. */
static void library_make_global(void) {
    Dl_info mpi;
    union {
        int (*function)(int *, char ***, int, int *);
        void *address;
    } init = {.function = MPI_Init_thread};
    if (dladdr(init.address, &mpi) && mpi.dli_fname)
        dlopen(mpi.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
}

static pgr_status world_init(pgr_bootstrap *bootstrap, pgr_error *error) {
    int initialised = 0, provided = MPI_THREAD_SINGLE, rank = 0, size = 1;
    pgr_status status = pgr_mpi_status(MPI_Initialized(&initialised), "MPI_Initialized", error);
    if (status == PGR_OK && !initialised) {
        status = pgr_mpi_status(MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided),
                                "MPI_Init_thread", error);
        bootstrap->initialised_here = status == PGR_OK;
    } else if (status == PGR_OK) {
        status = pgr_mpi_status(MPI_Query_thread(&provided), "MPI_Query_thread", error);
    }
    if (status != PGR_OK)
        return status;
    library_name(bootstrap->name, sizeof bootstrap->name);
    if (provided < MPI_THREAD_MULTIPLE) {
        return pgr_error_set(
            error, PGR_UNSUPPORTED,
            "%s gives thread level %d, pgrun needs MPI_THREAD_MULTIPLE (%d): use an "
            "MPI library built with it and rebuild libpgrun_mpi.so against that",
            bootstrap->name, provided, MPI_THREAD_MULTIPLE);
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    bootstrap->rank = rank;
    bootstrap->size = size;
    status =
        pgr_mpi_status(MPI_Comm_dup(MPI_COMM_WORLD, &bootstrap->control), "MPI_Comm_dup", error);
    if (status == PGR_OK)
        MPI_Comm_set_errhandler(bootstrap->control, MPI_ERRORS_RETURN);
    return status;
}

static pgr_status world_finalize(pgr_bootstrap *bootstrap, pgr_error *error) {
    pgr_status status = PGR_OK;
    if (bootstrap->control != MPI_COMM_NULL)
        status = pgr_mpi_status(MPI_Comm_free(&bootstrap->control), "MPI_Comm_free", error);
    if (bootstrap->initialised_here) {
        pgr_status last = pgr_mpi_status(MPI_Finalize(), "MPI_Finalize", status ? NULL : error);
        status = status ? status : last;
    }
    return status;
}

static pgr_status init_task(void *context, pgr_error *error) {
    pgr_bootstrap *bootstrap = context;
    pgr_status status = world_init(bootstrap, error);
    if (status != PGR_OK) /* so that mpirun sees an orderly end */
        world_finalize(bootstrap, NULL);
    return status;
}

static pgr_status finalize_task(void *context, pgr_error *error) {
    return world_finalize(context, error);
}

static pgr_status world_open(double init_timeout, pgr_bootstrap **bootstrap, pgr_error *error) {
    if (world.open || world.initialised_here) {
        return pgr_error_set(error, PGR_UNSUPPORTED, "MPI can be opened once per process: %s",
                             world.open ? "the job before is still open" : "a job was closed");
    }
    library_make_global();
    world.timeout = init_timeout;
    world.size = 1;
    world.control = MPI_COMM_NULL;
    pgr_mpi_task *task;
    pgr_status status = pgr_mpi_worker_start(error);
    if (status != PGR_OK)
        return status;
    status = pgr_mpi_task_post(init_task, &world, NULL, &task, error);
    if (status == PGR_OK) {
        status = pgr_mpi_task_wait(task, init_timeout,
                                   "MPI_Init: are all ranks of the job running?", error);
    }
    if (status != PGR_OK) {
        if (status != PGR_TIMEOUT) /* then the worker is still inside MPI_Init */
            pgr_mpi_worker_stop();
        return status;
    }
    world.open = true;
    *bootstrap = &world;
    return PGR_OK;
}

static pgr_status world_close(pgr_bootstrap *bootstrap, pgr_error *error) {
    pgr_mpi_task *task;
    pgr_status status = pgr_mpi_task_post(finalize_task, bootstrap, NULL, &task, error);
    if (status == PGR_OK) {
        status = pgr_mpi_task_wait(task, bootstrap->timeout,
                                   "MPI_Finalize: did another rank end early?", error);
    }
    bootstrap->open = false;
    if (status != PGR_TIMEOUT)
        pgr_mpi_worker_stop();
    return status;
}

/* ---- control traffic ----------------------------------------------------------------------- */

/* Waits for one MPI request at most the bootstrap's timeout. */
static pgr_status control_wait(pgr_bootstrap *bootstrap, int code, MPI_Request *request,
                               const char *call, pgr_error *error) {
    pgr_status status = pgr_mpi_status(code, call, error);
    pgr_deadline deadline = pgr_deadline_start(bootstrap->timeout);
    int64_t rounds = 0;
    int done = 0;
    while (status == PGR_OK) {
        status = pgr_mpi_status(MPI_Test(request, &done, MPI_STATUS_IGNORE), call, error);
        if (status != PGR_OK || done)
            break;
        if (pgr_deadline_passed(&deadline)) {
            return pgr_error_set(error, PGR_TIMEOUT,
                                 "%s between all %lld ranks: rank %lld waited %g seconds without "
                                 "progress; another rank did not take part",
                                 call, (long long)bootstrap->size, (long long)bootstrap->rank,
                                 bootstrap->timeout);
        }
        pgr_wait_step(&rounds, 0);
    }
    return status;
}

static pgr_status control_broadcast(pgr_bootstrap *bootstrap, void *data, int64_t bytes,
                                    int64_t root, pgr_error *error) {
    if (root < 0 || root >= bootstrap->size || bytes < 0) {
        return pgr_error_set(error, PGR_INTERNAL, "broadcast of %lld bytes from rank %lld of %lld",
                             (long long)bytes, (long long)root, (long long)bootstrap->size);
    }
    pgr_status status = PGR_OK;
    for (int64_t at = 0; at < bytes && status == PGR_OK;) {
        int piece = pgr_mpi_piece(bytes - at, pgr_mpi_max_count());
        MPI_Request request;
        int code =
            MPI_Ibcast((char *)data + at, piece, MPI_BYTE, (int)root, bootstrap->control, &request);
        status = control_wait(bootstrap, code, &request, "broadcast", error);
        at += piece;
    }
    return status;
}

/* One piece of every rank's block: the receive type's extent is the whole block, so that the pieces
 * land where they belong. */
static pgr_status gather_piece(pgr_bootstrap *bootstrap, const char *send, char *receive, int piece,
                               int64_t bytes, pgr_error *error) {
    MPI_Datatype plain, spread;
    pgr_status status =
        pgr_mpi_status(MPI_Type_contiguous(piece, MPI_BYTE, &plain), "all-gather", error);
    if (status != PGR_OK)
        return status;
    status = pgr_mpi_status(MPI_Type_create_resized(plain, 0, (MPI_Aint)bytes, &spread),
                            "all-gather", error);
    if (status == PGR_OK) {
        MPI_Type_commit(&spread);
        MPI_Request request;
        int code =
            MPI_Iallgather(send, piece, MPI_BYTE, receive, 1, spread, bootstrap->control, &request);
        status = control_wait(bootstrap, code, &request, "all-gather", error);
        MPI_Type_free(&spread);
    }
    MPI_Type_free(&plain);
    return status;
}

static pgr_status control_all_gather(pgr_bootstrap *bootstrap, const void *send, void *receive,
                                     int64_t bytes, pgr_error *error) {
    pgr_status status = PGR_OK;
    for (int64_t at = 0; at < bytes && status == PGR_OK;) {
        int piece = pgr_mpi_piece(bytes - at, pgr_mpi_max_count());
        status = gather_piece(bootstrap, (const char *)send + at, (char *)receive + at, piece,
                              bytes, error);
        at += piece;
    }
    return status;
}

static pgr_status control_reduce(pgr_bootstrap *bootstrap, double *values, int64_t count, MPI_Op op,
                                 const char *call, pgr_error *error) {
    pgr_status status = PGR_OK;
    for (int64_t at = 0; at < count && status == PGR_OK;) {
        int piece = pgr_mpi_piece(count - at, pgr_mpi_max_count());
        MPI_Request request;
        int code = MPI_Iallreduce(MPI_IN_PLACE, values + at, piece, MPI_DOUBLE, op,
                                  bootstrap->control, &request);
        status = control_wait(bootstrap, code, &request, call, error);
        at += piece;
    }
    return status;
}

static pgr_status control_sum(pgr_bootstrap *bootstrap, double *values, int64_t count,
                              pgr_error *error) {
    return control_reduce(bootstrap, values, count, MPI_SUM, "sum", error);
}

static pgr_status control_max(pgr_bootstrap *bootstrap, double *values, int64_t count,
                              pgr_error *error) {
    return control_reduce(bootstrap, values, count, MPI_MAX, "maximum", error);
}

static pgr_status control_barrier(pgr_bootstrap *bootstrap, pgr_error *error) {
    MPI_Request request;
    int code = MPI_Ibarrier(bootstrap->control, &request);
    return control_wait(bootstrap, code, &request, "barrier", error);
}

/* ---- the rest ------------------------------------------------------------------------------ */

static int64_t world_rank(const pgr_bootstrap *bootstrap) {
    return bootstrap->rank;
}

static int64_t world_size(const pgr_bootstrap *bootstrap) {
    return bootstrap->size;
}

static void world_describe(const pgr_bootstrap *bootstrap, char *text, size_t bytes) {
    snprintf(text, bytes, "%s", bootstrap->name);
}

static void world_timeout(pgr_bootstrap *bootstrap, double seconds) {
    bootstrap->timeout = seconds;
}

/* A message to the others that this rank tells, which it looks for itself before. Empty messages
 * leave at once where a connection is there; where none is, and beyond the first ranks, turns in
 * time must do. One look may come before MPI has taken in what arrived. */
static bool world_claim(pgr_bootstrap *bootstrap) {
    enum { TELLS = 1, LOOKS = 64, MOST_TOLD = 1024 };
    int told = 0;
    for (int i = 0; i < LOOKS && !told; i++)
        MPI_Iprobe(MPI_ANY_SOURCE, TELLS, bootstrap->control, &told, MPI_STATUS_IGNORE);
    for (int rank = 0; rank < bootstrap->size && rank < MOST_TOLD && !told; rank++) {
        MPI_Request request;
        if (rank != bootstrap->rank &&
            MPI_Isend(NULL, 0, MPI_BYTE, rank, TELLS, bootstrap->control, &request) == MPI_SUCCESS)
            MPI_Request_free(&request);
    }
    return !told;
}

/* MPI_Abort with 0 or 256 would make mpirun return 0, hence the clamp. Any thread may call it. */
static void world_abort(pgr_bootstrap *bootstrap, int exit_status) {
    (void)bootstrap;
    int status = exit_status < 1 ? 1 : exit_status > 125 ? 125 : exit_status;
    MPI_Abort(MPI_COMM_WORLD, status);
    for (;;)
        pause();
}

const pgr_bootstrap_ops pgr_mpi_bootstrap_ops = {
    .name = "mpi",
    .open = world_open,
    .rank = world_rank,
    .size = world_size,
    .describe = world_describe,
    .timeout = world_timeout,
    .broadcast = control_broadcast,
    .all_gather = control_all_gather,
    .sum = control_sum,
    .max = control_max,
    .barrier = control_barrier,
    .claim = world_claim,
    .abort = world_abort,
    .close = world_close,
};
