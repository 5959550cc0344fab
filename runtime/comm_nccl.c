/* comm_nccl.c - communicators over NCCL: the world, its splits, requests, aborting. */
#include "comm_nccl.h"
#include "comm_request.h"
#include "deadline.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ABORT_SECONDS 5.0 /* that aborting may take; then the job ends all the same */

/* The world of this process's job. */
static struct {
    const pgr_nccl_library *nccl;
    ncclComm_t handle; /* NULL: not made yet, or aborted */
    bool begun, ready, aborted;
    atomic_bool abort_done; /* or it hangs, and communicators are not touched any more */
    int depth;              /* of group_start */
    pgr_nccl_config config;
    pgr_nccl_comm *comms; /* opened, or being opened */
    pgr_nccl_comm *lost;  /* given up while NCCL may still write into them: never freed */
} world;

const pgr_nccl_library *pgr_nccl(void) {
    return world.nccl;
}

static void *abort_thread(void *unused) {
    (void)unused;
    for (pgr_nccl_comm *comm = world.comms; comm; comm = comm->next) {
        if (comm->handle && comm->phase == PGR_NCCL_OPEN) {
            world.nccl->CommAbort(comm->handle);
            comm->handle = NULL;
        }
    }
    if (world.handle) /* and with it a split that is under way */
        world.nccl->CommAbort(world.handle);
    world.handle = NULL;
    /* Made by a split that was done, or that the abort has just ended. */
    for (pgr_nccl_comm *comm = world.comms; comm; comm = comm->next) {
        if (comm->handle)
            world.nccl->CommAbort(comm->handle);
        comm->handle = NULL;
    }
    atomic_store(&world.abort_done, true);
    return NULL;
}

/* In a thread of its own: an abort that hangs must not keep the message from being told. */
void pgr_nccl_abort_all(void) {
    pthread_t thread;
    int64_t rounds = 0;
    if (world.aborted)
        return;
    world.aborted = true;
    if (pthread_create(&thread, NULL, abort_thread, NULL) != 0) {
        abort_thread(NULL);
        return;
    }
    pthread_detach(thread);
    double until = pgr_clock_seconds() + ABORT_SECONDS;
    while (!atomic_load(&world.abort_done) && pgr_clock_seconds() < until)
        pgr_wait_step_asleep(&rounds);
}

static pgr_status refuse_aborted(pgr_error *error) {
    return pgr_error_set(error, PGR_BACKEND,
                         "the job's NCCL communicators were aborted after an earlier error");
}

/* What NCCL says of a communicator now: ncclSuccess, ncclInProgress or an error. */
static pgr_status state_of(const pgr_job *job, ncclComm_t handle, bool *ready, pgr_error *error) {
    ncclResult_t state = ncclSuccess;
    ncclResult_t result = world.nccl->CommGetAsyncError(handle, &state);
    pgr_status status = pgr_nccl_check(job, result, "ncclCommGetAsyncError", error);
    if (status == PGR_OK)
        status = pgr_nccl_check(job, state, "an asynchronous error", error);
    *ready = status == PGR_OK && state == ncclSuccess;
    return status;
}

/* ---- the world ----------------------------------------------------------------------------- */

/* What each rank tells all others before the world is made. */
typedef struct facts {
    int32_t status, version;
    char device[64], host[64];
    ncclUniqueId id; /* of those that make one */
    char message[1024];
} facts;

/* Local: the library, and an id if this rank makes one. */
static void facts_fill(const pgr_job *job, facts *own) {
    pgr_error *error = calloc(1, sizeof *error);
    memset(own, 0, sizeof *own);
    pgr_status status = error ? pgr_nccl_library_open(&world.nccl, error) : PGR_LIMIT;
    if (status == PGR_OK) {
        int64_t roots = pgr_nccl_roots(job->size, world.nccl->CommInitRankScalable != NULL);
        own->version = world.nccl->version;
        for (int64_t root = 0; root < roots && status == PGR_OK; root++) {
            if (pgr_nccl_root_rank(job->size, roots, root) == job->rank)
                status = pgr_nccl_check(job, world.nccl->GetUniqueId(&own->id), "ncclGetUniqueId",
                                        error);
        }
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
                "ranks %lld and %lld share one GPU, %s on %s, which NCCL does not do: give each "
                "rank a GPU of its own, or use run.device = \"cpu\"",
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

/* Whether a family's options want the resources of the world shared: NCCL asks the communicator
 * that is split, so that all its splits share them. */
static bool shares_resources(const pgr_job *job) {
    for (int64_t i = 0; i < job->nccl_count; i++)
        if (job->nccl[i].split_share)
            return true;
    return false;
}

static pgr_status world_init(pgr_job *job, const facts *all, pgr_error *error) {
    bool scalable = world.nccl->CommInitRankScalable != NULL;
    int64_t roots = pgr_nccl_roots(job->size, scalable);
    pgr_status status =
        pgr_nccl_config_fill(world.nccl->version, "pgrun world", NULL, &world.config, error);
    ncclUniqueId *ids = status == PGR_OK ? malloc((size_t)roots * sizeof *ids) : NULL;
    if (status == PGR_OK && !ids)
        status = pgr_error_set(error, PGR_LIMIT, "out of memory for %lld ids", (long long)roots);
    if (status != PGR_OK)
        return status;
    if (shares_resources(job))
        world.config.split_share = 1;
    for (int64_t i = 0; i < roots; i++)
        ids[i] = all[pgr_nccl_root_rank(job->size, roots, i)].id;
    ncclConfig_t *config = (ncclConfig_t *)(void *)&world.config;
    ncclResult_t result =
        roots > 1 ? world.nccl->CommInitRankScalable(&world.handle, (int)job->size, (int)job->rank,
                                                     (int)roots, ids, config)
                  : world.nccl->CommInitRankConfig(&world.handle, (int)job->size, ids[0],
                                                   (int)job->rank, config);
    free(ids);
    return pgr_nccl_check(job, result,
                          roots > 1 ? "ncclCommInitRankScalable" : "ncclCommInitRankConfig", error);
}

/* Collective, the only step that does not only poll: it has the bootstrap's deadline. */
static pgr_status world_begin(pgr_job *job, pgr_error *error) {
    cudaStream_t queue;
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
    if (status == PGR_OK)
        status = pgr_cuda_queue(job->device, NULL, &queue, error); /* NCCL takes the current GPU */
    if (status == PGR_OK) {
        if (strncmp(job->comm_name, "NCCL ", 5) != 0) {
            char bootstrap[32];
            snprintf(bootstrap, sizeof bootstrap, "%.31s", job->comm_name);
            snprintf(job->comm_name, sizeof job->comm_name, "NCCL %s, %s", world.nccl->text,
                     bootstrap);
        }
        world.begun = true;
        status = world_init(job, all, error);
    }
    free(all);
    return status;
}

static pgr_status destroy(const pgr_job *job, ncclComm_t *handle, double timeout,
                          pgr_error *error) {
    ncclComm_t closing = *handle;
    pgr_deadline deadline = pgr_deadline_start(timeout);
    int64_t rounds = 0;
    bool done = false;
    pgr_status status =
        pgr_nccl_check(job, world.nccl->CommFinalize(closing), "ncclCommFinalize", error);
    while (status == PGR_OK && !done) {
        status = state_of(job, closing, &done, error);
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
    return pgr_nccl_check(job, world.nccl->CommDestroy(closing), "ncclCommDestroy", error);
}

/* The end of the job's groups; a next opening makes a new world. */
static pgr_status leave(pgr_job *job, bool abort, pgr_error *error) {
    pgr_status status = PGR_OK;
    if (!world.begun)
        return PGR_OK;
    if (abort) {
        pgr_nccl_abort_all();
        return PGR_OK;
    }
    if (world.handle && world.ready)
        status = destroy(job, &world.handle, job->timeout, error);
    if (status != PGR_OK)
        pgr_error_prefix(error, "ending NCCL's world: ");
    if (status != PGR_OK || world.handle)
        pgr_nccl_abort_all();
    else
        world.begun = world.ready = false;
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
    if (world.aborted)
        return refuse_aborted(error);
    pgr_status status = world.begun ? PGR_OK : world_begin(args->job, error);
    pgr_nccl_comm *made = status == PGR_OK ? calloc(1, sizeof *made) : NULL;
    if (status == PGR_OK && !made)
        status = pgr_error_set(error, PGR_LIMIT, "out of memory for a communicator");
    if (status != PGR_OK) {
        pgr_error_prefix(error, "opening family %s with NCCL: ", args->family);
        if (world.begun)
            pgr_nccl_abort_all();
        return status;
    }
    made->base.ops = &pgr_nccl_comm_ops;
    made->base.job = args->job;
    strncpy(made->base.family, args->family, sizeof made->base.family - 1);
    made->base.group = args->group;
    made->base.rank = args->rank;
    made->base.size = args->size;
    made->base.timeout = args->timeout;
    made->base.priority = args->nccl && args->nccl->high_priority ? 2 : 1;
    snprintf(made->name, sizeof made->name, "pgrun %s %lld", args->family, (long long)args->group);
    if (args->nccl) {
        made->has_options = true;
        made->options = *args->nccl;
    }
    made->next = world.comms;
    world.comms = made;
    *comm = &made->base;
    return PGR_OK;
}

static pgr_status split_begin(pgr_nccl_comm *comm, pgr_error *error) {
    const pgr_comm *base = &comm->base;
    pgr_nccl_config config;
    cudaStream_t queue;
    pgr_status status = pgr_nccl_config_fill(
        world.nccl->version, comm->name, comm->has_options ? &comm->options : NULL, &config, error);
    if (status == PGR_OK)
        status = pgr_cuda_queue(base->job->device, NULL, &queue, error);
    if (status != PGR_OK)
        return status;
    int colour = is_outside(comm) ? NCCL_SPLIT_NOCOLOR : (int)base->group;
    int key = is_outside(comm) ? 0 : (int)base->rank;
    ncclResult_t result = world.nccl->CommSplit(world.handle, colour, key, &comm->handle,
                                                (ncclConfig_t *)(void *)&config);
    comm->phase = PGR_NCCL_SPLIT;
    return pgr_nccl_check(base->job, result, "ncclCommSplit", error);
}

/* That NCCL put this rank where the plan has it. */
static pgr_status place_check(const pgr_nccl_comm *comm, pgr_error *error) {
    const pgr_comm *base = &comm->base;
    int rank = -1, size = -1;
    if (!comm->handle)
        return pgr_error_set(error, PGR_BACKEND, "ncclCommSplit gave no communicator");
    pgr_status status = pgr_nccl_check(base->job, world.nccl->CommCount(comm->handle, &size),
                                       "ncclCommCount", error);
    if (status == PGR_OK)
        status = pgr_nccl_check(base->job, world.nccl->CommUserRank(comm->handle, &rank),
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
    pgr_status status = state_of(job, world.handle, &ready, error);
    if (status != PGR_OK || !ready)
        return status;
    if (comm->phase == PGR_NCCL_WORLD) {
        world.ready = true;
        return split_begin(comm, error);
    }
    if (!is_outside(comm)) { /* the handle is NULL until the world is done with the split */
        if (comm->handle)
            status = state_of(job, comm->handle, &ready, error);
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
    if (world.aborted)
        return refuse_aborted(error);
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
    pgr_nccl_comm **link = &world.comms;
    if (world.aborted && !atomic_load(&world.abort_done))
        return;
    while (*link && *link != comm)
        link = &(*link)->next;
    if (*link)
        *link = comm->next;
    if (comm->phase == PGR_NCCL_SPLIT) {
        comm->next = world.lost;
        world.lost = comm;
        return;
    }
    pendings_free(device, comm->pending);
    pendings_free(device, comm->spare);
    if (comm->token)
        device->ops->free(device, PGR_MEMORY_DEVICE, comm->token);
    free(comm);
}

static void comm_abort(pgr_comm *base) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)base;
    if (comm->phase == PGR_NCCL_SPLIT)
        pgr_nccl_abort_all(); /* a split can only be ended with its world */
    if (comm->handle && !world.aborted)
        world.nccl->CommAbort(comm->handle);
    comm_free(comm);
}

static pgr_status comm_close(pgr_comm *base, pgr_error *error) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)base;
    pgr_status status = PGR_OK;
    if (comm->pending || comm->phase != PGR_NCCL_OPEN)
        status = pgr_error_set(error, PGR_INTERNAL,
                               "family %s, group %lld: closed with operations under way",
                               base->family, (long long)base->group);
    else if (world.aborted)
        status = refuse_aborted(error);
    else
        status = destroy(base->job, &comm->handle, base->timeout, error);
    if (status == PGR_BACKEND || status == PGR_TIMEOUT)
        pgr_error_prefix(error, "closing family %s, group %lld (world ranks %s): ", base->family,
                         (long long)base->group, base->members);
    if (status != PGR_OK)
        pgr_nccl_abort_all();
    comm_free(comm);
    return status;
}

/* ---- requests ------------------------------------------------------------------------------ */

static pgr_status operation_failed(const pgr_request *request, pgr_status status,
                                   pgr_error *error) {
    char text[512];
    pgr_request_text(request, text, sizeof text);
    pgr_error_prefix(error, "%s: ", text);
    pgr_nccl_abort_all();
    return status;
}

/* An error of any communicator ends the wait for this one: what it waits for may never come. */
static pgr_status watch(const pgr_nccl_comm *own, pgr_error *error) {
    bool ready;
    if (world.aborted)
        return refuse_aborted(error);
    for (const pgr_nccl_comm *comm = world.comms; comm; comm = comm->next) {
        if (!comm->handle || comm->phase != PGR_NCCL_OPEN)
            continue;
        pgr_status status = state_of(comm->base.job, comm->handle, &ready, error);
        if (status != PGR_OK) {
            if (comm != own)
                pgr_error_prefix(
                    error, "seen in family %s, group %lld (world ranks %s): ", comm->base.family,
                    (long long)comm->base.group, comm->base.members);
            return status;
        }
    }
    return state_of(own->base.job, world.handle, &ready, error);
}

/* Records the events of what was enqueued, once NCCL has launched it: an event that was recorded
 * before would be done too early. *done: nothing is left to launch. */
static pgr_status launched(pgr_nccl_comm *comm, bool *done, pgr_error *error) {
    pgr_device *device = comm->base.job->device;
    bool ready = false;
    *done = !comm->launching;
    if (!comm->launching || world.depth > 0)
        return PGR_OK;
    pgr_status status = state_of(comm->base.job, comm->handle, &ready, error);
    if (!ready)
        return status;
    for (pgr_nccl_pending *pending = comm->pending; pending; pending = pending->next) {
        if (!pending->recorded)
            status = device->ops->event_record(device, pending->event, pending->stream, error);
        if (status != PGR_OK)
            return status;
        pending->recorded = true;
    }
    comm->launching = false;
    *done = true;
    return PGR_OK;
}

/* Waits until the operation before is launched. NCCL makes its connections with the first one. */
static pgr_status settle(pgr_nccl_comm *comm, pgr_error *error) {
    pgr_deadline deadline = pgr_deadline_start(comm->base.timeout);
    int64_t rounds = 0;
    bool done = false;
    while (!done && world.depth == 0) {
        pgr_status status = watch(comm, error);
        if (status == PGR_OK)
            status = launched(comm, &done, error);
        if (status == PGR_OK && !done && pgr_deadline_passed(&deadline))
            status = pgr_error_set(error, PGR_TIMEOUT,
                                   "world rank %lld waited %g seconds until the operation before "
                                   "it was launched; a member of the group did not take part",
                                   (long long)comm->base.job->rank, comm->base.timeout);
        if (status != PGR_OK)
            return status;
        if (!done)
            pgr_wait_step(&rounds, 0);
    }
    return PGR_OK;
}

static pgr_status pending_take(pgr_nccl_comm *comm, pgr_nccl_pending **pending, pgr_error *error) {
    pgr_device *device = comm->base.job->device;
    pgr_nccl_pending *taken = comm->spare;
    if (taken) {
        comm->spare = taken->next;
    } else {
        taken = calloc(1, sizeof *taken);
        if (!taken)
            return pgr_error_set(error, PGR_LIMIT, "out of memory for a request");
        pgr_status status = device->ops->event_create(device, &taken->event, error);
        if (status != PGR_OK) {
            free(taken);
            return status;
        }
    }
    taken->recorded = false;
    taken->next = comm->pending;
    comm->pending = taken;
    *pending = taken;
    return PGR_OK;
}

static void pending_done(pgr_nccl_comm *comm, pgr_nccl_pending *pending) {
    pgr_nccl_pending **link = &comm->pending;
    while (*link != pending)
        link = &(*link)->next;
    *link = pending->next;
    pending->next = comm->spare;
    comm->spare = pending;
}

pgr_status pgr_nccl_begin(pgr_comm *base, const char *operation, int64_t count, int64_t blocks,
                          pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                          cudaStream_t *queue, pgr_error *error) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)base;
    int64_t bytes;
    if (count < 0 || __builtin_mul_overflow(count, blocks, &bytes) ||
        __builtin_mul_overflow(bytes, pgr_dtype_bytes(dtype), &bytes)) {
        return pgr_error_set(error, PGR_LIMIT, "%s: a count of %lld elements does not fit",
                             operation, (long long)count);
    }
    *request = (pgr_request){
        .comm = base, .operation = operation, .sequence = ++base->sequence, .bytes = bytes};
    pgr_nccl_pending *pending = NULL;
    pgr_status status = world.aborted ? refuse_aborted(error) : settle(comm, error);
    if (status == PGR_OK)
        status = pending_take(comm, &pending, error);
    if (status == PGR_OK)
        status = pgr_cuda_queue(base->job->device, stream, queue, error);
    if (status != PGR_OK)
        return operation_failed(request, status, error);
    pending->stream = stream;
    request->state = pending;
    return PGR_OK;
}

pgr_status pgr_nccl_end(pgr_request *request, ncclResult_t result, const char *call,
                        pgr_error *error) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)request->comm;
    bool done;
    pgr_status status = pgr_nccl_check(comm->base.job, result, call, error);
    comm->launching = true;
    if (status == PGR_OK)
        status = launched(comm, &done, error);
    return status == PGR_OK ? PGR_OK : operation_failed(request, status, error);
}

pgr_status pgr_nccl_event_wait(pgr_comm *base, pgr_event *event, const char *operation,
                               pgr_error *error) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)base;
    pgr_device *device = base->job->device;
    pgr_deadline deadline = pgr_deadline_start(base->timeout);
    int64_t rounds = 0;
    for (bool done = false; !done;) {
        pgr_status status = watch(comm, error);
        if (status == PGR_OK)
            status = device->ops->event_query(device, event, &done, error);
        if (status == PGR_OK && !done && pgr_deadline_passed(&deadline))
            status = pgr_error_set(error, PGR_TIMEOUT,
                                   "%s in family %s, group %lld (world ranks %s): world rank %lld "
                                   "waited %g seconds for its counts",
                                   operation, base->family, (long long)base->group, base->members,
                                   (long long)base->job->rank, base->timeout);
        if (status != PGR_OK) {
            pgr_nccl_abort_all();
            return status;
        }
        if (!done)
            pgr_wait_step(&rounds, 0);
    }
    return PGR_OK;
}

static pgr_status request_test(pgr_request *request, bool *done, pgr_error *error) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)request->comm;
    pgr_nccl_pending *pending = request->state;
    pgr_device *device = comm->base.job->device;
    bool ready;
    *done = true;
    if (!pending)
        return PGR_OK;
    *done = false;
    pgr_status status = watch(comm, error);
    if (status == PGR_OK)
        status = launched(comm, &ready, error);
    if (status == PGR_OK && pending->recorded)
        status = device->ops->event_query(device, pending->event, done, error);
    if (status != PGR_OK) {
        pgr_nccl_abort_all();
        return status;
    }
    if (*done) {
        pending_done(comm, pending);
        request->state = NULL;
    }
    return PGR_OK;
}

/* ---- memory and grouping ------------------------------------------------------------------- */

static pgr_status buffer_alloc(pgr_comm *comm, int64_t bytes, void **buffer, pgr_error *error) {
    pgr_device *device = comm->job->device;
    return device->ops->alloc(device, PGR_MEMORY_DEVICE, bytes, buffer, error);
}

static void buffer_free(pgr_comm *comm, void *buffer) {
    pgr_device *device = comm->job->device;
    device->ops->free(device, PGR_MEMORY_DEVICE, buffer);
}

static pgr_status group_failed(const pgr_comm *comm, pgr_status status, pgr_error *error) {
    pgr_error_prefix(error, "family %s, group %lld (world ranks %s): ", comm->family,
                     (long long)comm->group, comm->members);
    pgr_nccl_abort_all();
    return status;
}

static pgr_status group_start(pgr_comm *comm, pgr_error *error) {
    if (world.aborted)
        return refuse_aborted(error);
    pgr_status status = settle((pgr_nccl_comm *)comm, error);
    if (status == PGR_OK)
        status = pgr_nccl_check(comm->job, world.nccl->GroupStart(), "ncclGroupStart", error);
    if (status != PGR_OK)
        return group_failed(comm, status, error);
    world.depth++;
    return PGR_OK;
}

static pgr_status group_end(pgr_comm *comm, pgr_error *error) {
    if (world.depth == 0)
        return pgr_error_set(error, PGR_INTERNAL, "group_end without group_start");
    world.depth--;
    pgr_status status = pgr_nccl_check(comm->job, world.nccl->GroupEnd(), "ncclGroupEnd", error);
    return status == PGR_OK ? PGR_OK : group_failed(comm, status, error);
}

const pgr_comm_ops pgr_nccl_comm_ops = {
    .name = "nccl",
    .open_begin = open_begin,
    .open_poll = open_poll,
    .abort = comm_abort,
    .close = comm_close,
    .leave = leave,
    .buffer_alloc = buffer_alloc,
    .buffer_free = buffer_free,
    .group_start = group_start,
    .group_end = group_end,
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
    .test = request_test,
};
