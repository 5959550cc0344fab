/* comm_nccl.c - communicators over NCCL: the world, its splits, closing and aborting. */
#include "comm_nccl.h"
#include "deadline.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ABORT_SECONDS 5.0 /* that aborting may take; then the job ends all the same */

enum { WITH_OTHERS_ABORT = 21900, WITH_GROUP_ABORT = 22200 }; /* versions */

pgr_nccl_world pgr_nccl_the;

const pgr_nccl_library *pgr_nccl(void) {
    return pgr_nccl_the.nccl;
}

static void comms_abort(bool open) {
    for (pgr_nccl_comm *comm = pgr_nccl_the.comms; comm; comm = comm->next) {
        if (!comm->handle || (comm->phase == PGR_NCCL_OPEN) != open)
            continue;
        pgr_nccl_the.nccl->CommAbort(comm->handle);
        comm->handle = NULL;
    }
}

/* In one group, since 2.22 allows it: the abort of one alone may wait for the GPU, and with that
 * for what hangs in another. */
static void *abort_thread(void *unused) {
    bool together = pgr_nccl_the.nccl->version >= WITH_GROUP_ABORT;
    (void)unused;
    if (together)
        pgr_nccl_the.nccl->GroupStart();
    comms_abort(true);
    if (pgr_nccl_the.handle) /* and with it a split that is under way */
        pgr_nccl_the.nccl->CommAbort(pgr_nccl_the.handle);
    pgr_nccl_the.handle = NULL;
    comms_abort(false); /* made by a split that was done, or that the abort has just ended */
    if (together)
        pgr_nccl_the.nccl->GroupEnd();
    atomic_store(&pgr_nccl_the.abort_done, true);
    return NULL;
}

/* Whether NCCL is at work for a communicator in a thread of its own. */
static bool in_background(void) {
    bool busy = pgr_nccl_the.handle && !pgr_nccl_the.ready;
    for (const pgr_nccl_comm *comm = pgr_nccl_the.comms; comm; comm = comm->next)
        busy = busy || comm->launching || comm->phase == PGR_NCCL_SPLIT;
    return busy;
}

/* In a thread of its own: an abort that hangs must not keep the message from being told. What it
 * returns says nothing that the error before it does not. Before 2.19 an abort waits for NCCL's
 * work in the background only where it is called from the same thread as that, else it frees what
 * is in use: it is left to the job's end then. */
void pgr_nccl_abort_all(void) {
    pthread_t thread;
    int64_t rounds = 0;
    if (pgr_nccl_the.aborted)
        return;
    pgr_nccl_the.aborted = true;
    if (pgr_nccl_the.nccl->version < WITH_OTHERS_ABORT && in_background())
        return;
    if (pthread_create(&thread, NULL, abort_thread, NULL) != 0) {
        abort_thread(NULL);
        return;
    }
    double until = pgr_clock_seconds() + ABORT_SECONDS;
    while (!atomic_load(&pgr_nccl_the.abort_done) && pgr_clock_seconds() < until)
        pgr_wait_step_asleep(&rounds);
    if (atomic_load(&pgr_nccl_the.abort_done))
        pthread_join(thread, NULL);
    else
        pthread_detach(thread);
}

pgr_status pgr_nccl_refuse(pgr_error *error) {
    return pgr_error_set(error, PGR_BACKEND,
                         "the job's NCCL communicators were aborted after an earlier error");
}

pgr_status pgr_nccl_state(const pgr_job *job, ncclComm_t handle, bool *ready, pgr_error *error) {
    ncclResult_t state = ncclSuccess;
    ncclResult_t result = pgr_nccl_the.nccl->CommGetAsyncError(handle, &state);
    pgr_status status = pgr_nccl_check(job, result, "ncclCommGetAsyncError", error);
    if (status == PGR_OK)
        status = pgr_nccl_check(job, state, "an asynchronous error", error);
    *ready = status == PGR_OK && state == ncclSuccess;
    return status;
}

/* ---- the world ----------------------------------------------------------------------------- */

/* What each rank tells all others before the world is made. */
typedef struct facts {
    int32_t status, version, registers;
    char device[64], host[64];
    ncclUniqueId id; /* of those that make one */
    char message[1024];
} facts;

/* Local: the library, and an id if this rank makes one. */
static void facts_fill(const pgr_job *job, facts *own) {
    cudaStream_t queue;
    pgr_error *error = calloc(1, sizeof *error);
    memset(own, 0, sizeof *own);
    pgr_status status = error ? pgr_nccl_library_open(&pgr_nccl_the.nccl, error) : PGR_LIMIT;
    if (status != PGR_OK && error)
        pgr_error_prefix(error, "rank %lld on %s: ", (long long)job->rank, job->host);
    if (status == PGR_OK) {
        int64_t roots = pgr_nccl_roots(job->size, pgr_nccl_the.nccl->CommInitRankScalable != NULL);
        own->version = pgr_nccl_the.nccl->version;
        for (int64_t root = 0; root < roots && status == PGR_OK; root++) {
            if (pgr_nccl_root_rank(job->size, roots, root) == job->rank)
                status = pgr_nccl_check(job, pgr_nccl_the.nccl->GetUniqueId(&own->id),
                                        "ncclGetUniqueId", error);
        }
        if (status == PGR_OK) /* NCCL takes the current GPU */
            status = pgr_cuda_queue(job->device, NULL, &queue, error);
        own->registers = status == PGR_OK && pgr_nccl_buffers_probe(pgr_nccl_the.nccl);
    }
    own->status = (int32_t)status;
    if (job->device)
        memcpy(own->device, job->device->identity, sizeof own->device);
    memcpy(own->host, job->host, sizeof own->host);
    if (status != PGR_OK)
        snprintf(own->message, sizeof own->message, "%.*s", (int)sizeof own->message - 1,
                 error ? error->message : "out of memory");
    free(error);
}

static int compare_devices(const void *a, const void *b) {
    const facts *x = *(const facts *const *)a, *y = *(const facts *const *)b;
    int order = strcmp(x->device, y->device);
    return order ? order : (x > y) - (x < y);
}

/* NCCL would say "Duplicate GPU detected". Without a device nobody is compared. */
static pgr_status devices_apart(const facts *all, int64_t size, pgr_error *error) {
    const facts **sorted = malloc((size_t)size * sizeof *sorted);
    if (!sorted)
        return pgr_error_set(error, PGR_LIMIT, "out of memory for the GPUs of %lld ranks",
                             (long long)size);
    for (int64_t i = 0; i < size; i++)
        sorted[i] = &all[i];
    qsort(sorted, (size_t)size, sizeof *sorted, compare_devices);
    pgr_status status = PGR_OK;
    for (int64_t i = 0; i + 1 < size && status == PGR_OK; i++) {
        const facts *a = sorted[i], *b = sorted[i + 1];
        if (a->device[0] && strcmp(a->device, b->device) == 0)
            status = pgr_error_set(
                error, PGR_INVALID,
                "ranks %lld and %lld share one GPU, %s on %s, which NCCL refuses: give each rank "
                "a GPU of its own, or use run.comm = \"mpi\", which copies through host memory",
                (long long)(a - all), (long long)(b - all), a->device, a->host);
    }
    free(sorted);
    return status;
}

/* The same on every rank: the lowest rank that failed, versions that differ, a shared GPU. */
static pgr_status facts_check(const facts *all, int64_t size, pgr_error *error) {
    for (int64_t i = 0; i < size; i++)
        if (all[i].status != PGR_OK)
            return pgr_error_set(error, (pgr_status)all[i].status, "%s", all[i].message);
    for (int64_t i = 1; i < size; i++) {
        if (all[i].version != all[0].version)
            return pgr_error_set(error, PGR_UNSUPPORTED,
                                 "rank 0 on %s has NCCL of version code %d, rank %lld on %s %d: "
                                 "all ranks need the same",
                                 all[0].host, all[0].version, (long long)i, all[i].host,
                                 all[i].version);
    }
    return devices_apart(all, size, error);
}

static bool all_register(const facts *all, int64_t size) {
    for (int64_t i = 0; i < size; i++)
        if (!all[i].registers)
            return false;
    return true;
}

/* Whether a family's options want the resources of the world shared: NCCL asks the communicator
 * that is split, so that all its splits share them. */
static bool shares_resources(const pgr_job *job) {
    for (int64_t i = 0; i < job->nccl_count; i++)
        if (job->nccl[i].split_share)
            return true;
    return false;
}

static pgr_status world_init(pgr_job *job, const facts *all, pgr_error *error) {
    bool scalable = pgr_nccl_the.nccl->CommInitRankScalable != NULL;
    int64_t roots = pgr_nccl_roots(job->size, scalable);
    pgr_status status = pgr_nccl_config_fill(pgr_nccl_the.nccl->version, "pgrun world", NULL,
                                             &pgr_nccl_the.config, error);
    ncclUniqueId *ids = status == PGR_OK ? malloc((size_t)roots * sizeof *ids) : NULL;
    if (status == PGR_OK && !ids)
        status = pgr_error_set(error, PGR_LIMIT, "out of memory for %lld ids", (long long)roots);
    if (status != PGR_OK)
        return status;
    if (shares_resources(job))
        pgr_nccl_the.config.split_share = 1;
    for (int64_t i = 0; i < roots; i++)
        ids[i] = all[pgr_nccl_root_rank(job->size, roots, i)].id;
    ncclConfig_t *config = (ncclConfig_t *)(void *)&pgr_nccl_the.config;
    ncclResult_t result =
        roots > 1 ? pgr_nccl_the.nccl->CommInitRankScalable(&pgr_nccl_the.handle, (int)job->size,
                                                            (int)job->rank, (int)roots, ids, config)
                  : pgr_nccl_the.nccl->CommInitRankConfig(&pgr_nccl_the.handle, (int)job->size,
                                                          ids[0], (int)job->rank, config);
    free(ids);
    return pgr_nccl_check(job, result,
                          roots > 1 ? "ncclCommInitRankScalable" : "ncclCommInitRankConfig", error);
}

/* Collective, the only step that does not only poll: it has the bootstrap's deadline. */
static pgr_status world_begin(pgr_job *job, pgr_error *error) {
    facts own;
    facts *all = calloc((size_t)job->size, sizeof *all);
    facts_fill(job, &own);
    if (!all)
        return pgr_error_set(error, PGR_LIMIT, "out of memory for the NCCL versions of %lld ranks",
                             (long long)job->size);
    job->bootstrap_ops->timeout(job->bootstrap, job->init_timeout);
    pgr_status status =
        job->bootstrap_ops->all_gather(job->bootstrap, &own, all, (int64_t)sizeof own, error);
    job->bootstrap_ops->timeout(job->bootstrap, job->timeout);
    if (status == PGR_OK)
        status = facts_check(all, job->size, error);
    if (status == PGR_OK) {
        if (strncmp(job->comm_name, "NCCL ", 5) != 0) {
            char bootstrap[32];
            snprintf(bootstrap, sizeof bootstrap, "%.31s", job->comm_name);
            snprintf(job->comm_name, sizeof job->comm_name, "NCCL %s, %s", pgr_nccl_the.nccl->text,
                     bootstrap);
        }
        pgr_nccl_the.begun = true;
        pgr_nccl_the.registers = all_register(all, job->size);
        status = world_init(job, all, error);
    }
    free(all);
    return status;
}

static pgr_status join(pgr_job *job, bool *done, pgr_error *error) {
    *done = pgr_nccl_the.ready;
    if (*done)
        return PGR_OK;
    if (pgr_nccl_the.aborted)
        return pgr_nccl_refuse(error);
    pgr_status status = pgr_nccl_the.begun ? pgr_nccl_state(job, pgr_nccl_the.handle, done, error)
                                           : world_begin(job, error);
    pgr_nccl_the.ready = status == PGR_OK && *done;
    if (status == PGR_OK)
        return PGR_OK;
    pgr_error_prefix(error, "opening NCCL's world: ");
    if (pgr_nccl_the.begun)
        pgr_nccl_abort_all();
    return status;
}

static pgr_status destroy(const pgr_job *job, ncclComm_t *handle, double timeout,
                          pgr_error *error) {
    ncclComm_t closing = *handle;
    pgr_deadline deadline = pgr_deadline_start(timeout);
    int64_t rounds = 0;
    bool done = false;
    pgr_status status =
        pgr_nccl_check(job, pgr_nccl_the.nccl->CommFinalize(closing), "ncclCommFinalize", error);
    while (status == PGR_OK && !done) {
        status = pgr_nccl_state(job, closing, &done, error);
        if (status == PGR_OK && !done && pgr_deadline_passed(&deadline))
            status = pgr_error_set(error, PGR_TIMEOUT,
                                   "rank %lld on %s waited %g seconds in ncclCommFinalize; another "
                                   "rank did not take part",
                                   (long long)job->rank, job->host, timeout);
        if (!done)
            pgr_wait_step_asleep(&rounds);
    }
    if (status != PGR_OK)
        return status;
    *handle = NULL; /* also where this fails: half of it may be freed */
    return pgr_nccl_check(job, pgr_nccl_the.nccl->CommDestroy(closing), "ncclCommDestroy", error);
}

/* The end of the job's groups; a next opening makes a new world. */
static pgr_status leave(pgr_job *job, bool abort, pgr_error *error) {
    pgr_status status = PGR_OK;
    if (!pgr_nccl_the.begun)
        return PGR_OK;
    if (abort) {
        pgr_nccl_abort_all();
        return PGR_OK;
    }
    if (pgr_nccl_the.handle && pgr_nccl_the.ready)
        status = destroy(job, &pgr_nccl_the.handle, job->timeout, error);
    if (status != PGR_OK)
        pgr_error_prefix(error, "ending NCCL's world: ");
    if (status != PGR_OK || pgr_nccl_the.handle)
        pgr_nccl_abort_all();
    else
        pgr_nccl_the.begun = pgr_nccl_the.ready = false;
    return status;
}

/* ---- opening ------------------------------------------------------------------------------- */

static bool is_outside(const pgr_nccl_comm *comm) {
    return comm->base.group < 0;
}

/* Any error of NCCL ends all: it is told where it happened, then everything is aborted. */
static pgr_status opening_failed(pgr_nccl_comm *comm, pgr_status status, pgr_error *error) {
    const pgr_comm *base = &comm->base;
    if (is_outside(comm))
        pgr_error_prefix(error,
                         "opening family %s, of which this rank shares no group: ", base->family);
    else
        pgr_error_prefix(error, "opening family %s, group %lld (world ranks %s): ", base->family,
                         (long long)base->group, base->members[0] ? base->members : "unknown");
    pgr_nccl_abort_all();
    return status;
}

static pgr_status open_begin(const pgr_comm_open_args *args, pgr_comm **comm, pgr_error *error) {
    bool member = args->size >= 2 && args->rank >= 0 && args->rank < args->size &&
                  args->group >= 0 && args->group <= INT_MAX && args->size <= args->job->size;
    if (!member && args->group >= 0) {
        return pgr_error_set(error, PGR_INTERNAL, "family %s: rank %lld of %lld in group %lld",
                             args->family, (long long)args->rank, (long long)args->size,
                             (long long)args->group);
    }
    if (pgr_nccl_the.aborted)
        return pgr_nccl_refuse(error);
    if (!pgr_nccl_the.ready)
        return pgr_error_set(error, PGR_INTERNAL, "family %s: opened before NCCL's world",
                             args->family);
    pgr_nccl_comm *made = calloc(1, sizeof *made);
    if (!made)
        return pgr_error_set(error, PGR_LIMIT, "out of memory for a communicator");
    made->base.ops = &pgr_nccl_comm_ops;
    made->base.job = args->job;
    strncpy(made->base.family, args->family, sizeof made->base.family - 1);
    made->base.group = args->group;
    made->base.rank = args->rank;
    made->base.size = args->size;
    made->base.timeout = args->timeout;
    made->base.priority = args->nccl && args->nccl->high_priority ? 2 : 1;
    made->base.units = args->nccl && args->nccl->max_ctas != PGR_NIL ? (int32_t)args->nccl->max_ctas
                                                                     : PGR_NCCL_UNITS;
    snprintf(made->name, sizeof made->name, "pgrun %s %lld", args->family, (long long)args->group);
    if (args->nccl) {
        made->has_options = true;
        made->options = *args->nccl;
    }
    made->next = pgr_nccl_the.comms;
    pgr_nccl_the.comms = made;
    *comm = &made->base;
    return PGR_OK;
}

static pgr_status split_begin(pgr_nccl_comm *comm, pgr_error *error) {
    const pgr_comm *base = &comm->base;
    pgr_nccl_config config;
    cudaStream_t queue;
    pgr_status status =
        pgr_nccl_config_fill(pgr_nccl_the.nccl->version, comm->name,
                             comm->has_options ? &comm->options : NULL, &config, error);
    if (status == PGR_OK)
        status = pgr_cuda_queue(base->job->device, NULL, &queue, error);
    if (status != PGR_OK)
        return status;
    int colour = is_outside(comm) ? NCCL_SPLIT_NOCOLOR : (int)base->group;
    int key = is_outside(comm) ? 0 : (int)base->rank;
    ncclResult_t result = pgr_nccl_the.nccl->CommSplit(
        pgr_nccl_the.handle, colour, key, &comm->handle, (ncclConfig_t *)(void *)&config);
    status = pgr_nccl_check(base->job, result, "ncclCommSplit", error);
    if (status == PGR_OK)
        comm->phase = PGR_NCCL_SPLIT;
    return status;
}

/* That NCCL put this rank where the plan has it. */
static pgr_status place_check(const pgr_nccl_comm *comm, pgr_error *error) {
    const pgr_comm *base = &comm->base;
    int rank = -1, size = -1;
    if (!comm->handle)
        return pgr_error_set(error, PGR_BACKEND, "ncclCommSplit gave no communicator");
    pgr_status status = pgr_nccl_check(base->job, pgr_nccl_the.nccl->CommCount(comm->handle, &size),
                                       "ncclCommCount", error);
    if (status == PGR_OK)
        status = pgr_nccl_check(base->job, pgr_nccl_the.nccl->CommUserRank(comm->handle, &rank),
                                "ncclCommUserRank", error);
    if (status == PGR_OK && (rank != base->rank || size != base->size))
        status = pgr_error_set(error, PGR_BACKEND,
                               "the communicator has this rank at place %d of %d, the plan at %lld "
                               "of %lld",
                               rank, size, (long long)base->rank, (long long)base->size);
    return status;
}

/* What a barrier sums; allocated here, since an allocation waits for the GPU. */
static pgr_status token_alloc(pgr_nccl_comm *comm, pgr_error *error) {
    pgr_device *device = comm->base.job->device;
    pgr_status status =
        device->ops->alloc(device, PGR_MEMORY_DEVICE, sizeof(int32_t), &comm->token, error);
    return status == PGR_OK ? device->ops->set(device, comm->token, 0, sizeof(int32_t), NULL, error)
                            : status;
}

static pgr_status open_step(pgr_nccl_comm *comm, bool *done, pgr_error *error) {
    const pgr_job *job = comm->base.job;
    bool ready = false;
    pgr_status status = pgr_nccl_state(job, pgr_nccl_the.handle, &ready, error);
    if (status != PGR_OK || !ready)
        return status;
    if (comm->phase == PGR_NCCL_NEW)
        return split_begin(comm, error);
    if (!is_outside(comm)) { /* the handle is NULL until the world is done with the split */
        if (comm->handle)
            status = pgr_nccl_state(job, comm->handle, &ready, error);
        if (status == PGR_OK && ready)
            status = place_check(comm, error);
        if (status == PGR_OK && ready)
            status = token_alloc(comm, error);
        if (status != PGR_OK || !ready)
            return status;
    }
    comm->phase = PGR_NCCL_OPEN;
    *done = true;
    return PGR_OK;
}

static pgr_status open_poll(pgr_comm *base, bool *done, pgr_error *error) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)base;
    *done = comm->phase == PGR_NCCL_OPEN;
    if (*done)
        return PGR_OK;
    if (pgr_nccl_the.aborted)
        return pgr_nccl_refuse(error);
    pgr_status status = open_step(comm, done, error);
    return status == PGR_OK ? PGR_OK : opening_failed(comm, status, error);
}

/* ---- closing ------------------------------------------------------------------------------- */

static void pendings_free(pgr_device *device, pgr_nccl_pending *list) {
    while (list) {
        pgr_nccl_pending *next = list->next;
        device->ops->event_free(device, list->event);
        free(list);
        list = next;
    }
}

static void comm_free(pgr_nccl_comm *comm) {
    pgr_device *device = comm->base.job->device;
    pgr_nccl_comm **link = &pgr_nccl_the.comms;
    if (pgr_nccl_the.aborted && !atomic_load(&pgr_nccl_the.abort_done))
        return;
    while (*link && *link != comm)
        link = &(*link)->next;
    if (*link)
        *link = comm->next;
    if (comm->phase == PGR_NCCL_SPLIT) {
        comm->next = pgr_nccl_the.lost;
        pgr_nccl_the.lost = comm;
        return;
    }
    pgr_nccl_buffers_free(comm);
    pendings_free(device, comm->pending);
    pendings_free(device, comm->spare);
    free(comm->lost);
    if (comm->token)
        device->ops->free(device, PGR_MEMORY_DEVICE, comm->token);
    free(comm);
}

static void comm_abort(pgr_comm *base) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)base;
    if (comm->phase == PGR_NCCL_SPLIT)
        pgr_nccl_abort_all(); /* a split can only be ended with its world */
    if (comm->handle && !pgr_nccl_the.aborted) {
        pgr_nccl_the.nccl->CommAbort(comm->handle);
        comm->handle = NULL;
    }
    comm_free(comm);
}

/* What keeps a communicator from being destroyed in peace. */
static pgr_status close_check(const pgr_nccl_comm *comm, pgr_error *error) {
    if (comm->pending || comm->phase != PGR_NCCL_OPEN)
        return pgr_error_set(error, PGR_INTERNAL,
                             "family %s, group %lld: closed with operations under way",
                             comm->base.family, (long long)comm->base.group);
    if (comm->lost)
        return pgr_error_set(error, comm->lost->status, "%s", comm->lost->message);
    return pgr_nccl_the.aborted ? pgr_nccl_refuse(error) : PGR_OK;
}

static pgr_status comm_close(pgr_comm *base, pgr_error *error) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)base;
    if (!comm->pending)
        pgr_nccl_buffers_free(comm);
    pgr_status status = close_check(comm, error);
    if (status == PGR_OK)
        status = destroy(base->job, &comm->handle, base->timeout, error);
    if (status == PGR_BACKEND || status == PGR_TIMEOUT)
        pgr_error_prefix(error, "closing family %s, group %lld (world ranks %s): ", base->family,
                         (long long)base->group, base->members);
    if (status != PGR_OK)
        pgr_nccl_abort_all();
    comm_free(comm);
    return status;
}

const pgr_comm_ops pgr_nccl_comm_ops = {
    .name = "nccl",
    .join = join,
    .open_begin = open_begin,
    .open_poll = open_poll,
    .abort = comm_abort,
    .close = comm_close,
    .leave = leave,
    .buffer_alloc = pgr_nccl_buffer_alloc,
    .buffer_free = pgr_nccl_buffer_free,
    .group_start = pgr_nccl_group_start,
    .group_end = pgr_nccl_group_end,
    .all_reduce = pgr_nccl_all_reduce,
    .reduce_scatter = pgr_nccl_reduce_scatter,
    .all_gather = pgr_nccl_all_gather,
    .broadcast = pgr_nccl_broadcast,
    .all_to_all = pgr_nccl_all_to_all,
    .all_to_all_v = pgr_nccl_all_to_all_v,
    .all_to_all_v_device = pgr_nccl_all_to_all_v_device,
    .send = pgr_nccl_send,
    .receive = pgr_nccl_receive,
    .barrier = pgr_nccl_barrier,
    .test = pgr_nccl_test,
    .stream_wait = pgr_nccl_stream_wait,
};
