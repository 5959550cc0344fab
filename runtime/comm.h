/* comm.h - the job (its ranks, its device), and communicators for the plan's groups.
 *
 * Backends are modules, opened when a run needs them; each exports one table, `pgr_module`. A job
 * is bootstrapped by MPI (or by nothing: one rank alone), and groups are opened by MPI or NCCL. */
#ifndef PGR_COMM_H
#define PGR_COMM_H

#include "device.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pgr_job pgr_job;
typedef struct pgr_comm pgr_comm;
typedef struct pgr_bootstrap pgr_bootstrap; /* opaque; a backend's world */

/* ---- modules ------------------------------------------------------------------------------- */

#define PGR_MODULE_ABI 5u

typedef struct pgr_bootstrap_ops pgr_bootstrap_ops;
typedef struct pgr_comm_ops pgr_comm_ops;

/* The one symbol of a module. Tables that a module does not have are NULL. */
typedef struct pgr_module {
    uint32_t abi;     /* PGR_MODULE_ABI */
    const char *name; /* "mpi", "cpu", "cuda" */
    const pgr_bootstrap_ops *bootstrap;
    const pgr_comm_ops *comm;
    const pgr_device_ops *device;
} pgr_module;

/* Opens libpgrun_<name>.so from $PGRUN_MODULE_PATH, or from where this pgrun's modules are (beside
 * the build, or ../lib/pgrun of the installed tree wherever that was moved). A module stays open.
 * PGR_UNSUPPORTED names the file, the places looked at and the loader's reason. */
pgr_status pgr_module_open(const char *name, const pgr_module **module, pgr_error *error);

/* Whether there is a file of that module where pgr_module_open would look; opens nothing. */
bool pgr_module_present(const char *name);

/* ---- the job ------------------------------------------------------------------------------- */

/* Control traffic between all ranks on host memory, before and beside the communicators: the
 * config, digests, times, the verification's sums. All calls but rank, size, describe, claim and
 * abort are collective. */
struct pgr_bootstrap_ops {
    const char *name; /* "mpi", "self" */
    pgr_status (*open)(double init_timeout, pgr_bootstrap **bootstrap, pgr_error *error);
    int64_t (*rank)(const pgr_bootstrap *bootstrap);
    int64_t (*size)(const pgr_bootstrap *bootstrap);
    void (*describe)(const pgr_bootstrap *bootstrap, char *text,
                     size_t bytes);                            /* "Open MPI 4.1.4" */
    void (*timeout)(pgr_bootstrap *bootstrap, double seconds); /* for the calls below */
    pgr_status (*broadcast)(pgr_bootstrap *bootstrap, void *data, int64_t bytes, int64_t root,
                            pgr_error *error);
    /* receive: [size][bytes] */
    pgr_status (*all_gather)(pgr_bootstrap *bootstrap, const void *send, void *receive,
                             int64_t bytes, pgr_error *error);
    /* in place, on doubles */
    pgr_status (*sum)(pgr_bootstrap *bootstrap, double *values, int64_t count, pgr_error *error);
    pgr_status (*max)(pgr_bootstrap *bootstrap, double *values, int64_t count, pgr_error *error);
    pgr_status (*barrier)(pgr_bootstrap *bootstrap, pgr_error *error);
    /* Before abort: whether this rank is the one that tells why the job ends. False where another
     * rank has said that it does. */
    bool (*claim)(pgr_bootstrap *bootstrap);
    /* ends every rank of the job with this exit status (1..125); does not return */
    void (*abort)(pgr_bootstrap *bootstrap, int exit_status);
    pgr_status (*close)(pgr_bootstrap *bootstrap, pgr_error *error);
};

/* What a run needs to start. */
typedef struct pgr_job_args {
    pgr_device_kind device;
    pgr_comm_kind comm;
    double timeout, init_timeout; /* seconds without progress */
    bool share_gpu;               /* several ranks may use one GPU */
    const pgr_nccl_options *nccl; /* [nccl_count] run.nccl; must outlive the job */
    int64_t nccl_count;
    const char *cuda_lacks; /* what the run needs and the CUDA device does not have (see
                               pgr_workload_cuda_lacks), or NULL; the same on every rank */
} pgr_job_args;

struct pgr_job {
    int64_t rank, size;
    int32_t local_rank, local_size; /* on this host */
    int32_t host_count;
    char host[64];
    const pgr_bootstrap_ops *bootstrap_ops;
    pgr_bootstrap *bootstrap;
    const pgr_comm_ops *comm_ops;
    const pgr_comm_ops *staged_ops; /* of the communicators for host memory that comm_ops stages
                                       device memory through; NULL where it does not */
    pgr_device *device;             /* NULL until pgr_job_open_device */
    char comm_name[64];    /* "Open MPI 4.1.4", "self", "Open MPI 4.1.4, staged through ..." */
    char device_note[512]; /* why "auto" is the CPU; "" where it is not, or was not asked for */
    char comm_note[512];   /* why run.comm = "auto" is MPI though ranks are on GPUs; or "" */
    double timeout, init_timeout;
    const pgr_nccl_options *nccl; /* [nccl_count], borrowed from pgr_job_args */
    int64_t nccl_count;
    struct pgr_groups *groups; /* that are open, or being opened; NULL: none. Borrowed */
};

/* The number of ranks the launcher says it started (OMPI_COMM_WORLD_SIZE, PMIX_*, PMI_SIZE,
 * SLURM_NTASKS), or 1. */
int64_t pgr_launcher_size(void);

/* Whether a launcher started this process as one of several ranks or as a job of its own with MPI.
 */
bool pgr_launcher_present(void);

/* Collective. Opens the bootstrap: MPI where a launcher is present, else one rank alone. Must come
 * before any exit path under mpirun. PGR_USAGE where the launcher says more ranks than MPI sees.
 * Where it fails there is no job in which ranks could agree on who speaks: one rank's error (one
 * per host, where the reason is the host's) has the message, the others' is empty and not for
 * printing. */
pgr_status pgr_job_open(double init_timeout, pgr_job **job, pgr_error *error);

/* Collective. Chooses device and communication (auto: by all ranks together) and opens the device.
 * All ranks return the same status. Device "cuda": PGR_UNSUPPORTED where a rank has no GPU, or a
 * driver too old; PGR_INVALID where two ranks are on one GPU without share_gpu. Device "auto" is
 * the CPU in these cases, and job->device_note says why. On GPUs communication "mpi" is staged
 * through pinned host memory; "auto" is that where ranks share a GPU, which NCCL does not do, and
 * else NCCL. */
pgr_status pgr_job_open_device(pgr_job *job, const pgr_job_args *args, pgr_error *error);

/* Collective. Closes the device and the bootstrap and frees the job. NULL is allowed. */
pgr_status pgr_job_close(pgr_job *job, pgr_error *error);

/* Collective. Every rank passes its own status; if any failed, all return the lowest failing rank's
 * error, so that one message is printed. */
pgr_status pgr_job_agree(pgr_job *job, pgr_status status, pgr_error *error);

/* ---- communicators ------------------------------------------------------------------------- */

typedef enum pgr_reduce { PGR_SUM, PGR_MAX, PGR_MIN } pgr_reduce;

/* A collective or a message under way. Owned by the caller, valid until waited for. */
typedef struct pgr_request {
    pgr_comm *comm;
    void *state; /* the backend's; NULL: already done */
    const char *operation;
    uint64_t sequence;
    int64_t bytes;
    uint64_t progress; /* parts that test has seen done, such as single messages */
} pgr_request;

/* One open communicator. A backend's own struct starts with this one. */
struct pgr_comm {
    const pgr_comm_ops *ops;
    pgr_job *job;
    char family[PGR_NAME_MAX]; /* the family it was opened for */
    int64_t group, rank, size; /* group index; this rank in it; its size, > 1 */
    char members[192];         /* their world ranks, for messages; elided where many */
    uint64_t sequence;         /* operations started so far */
    double timeout;            /* seconds without progress in one operation */
    int32_t priority;          /* of its stream; computation has 0, higher runs first; 0 from
                                  open_begin: the usual one of communication, 1 */
    pgr_stream *stream;        /* its own, of higher priority than computation, for operations that
                                  overlap with it; NULL in a job without a device */
    int32_t units;             /* SMs of the GPU to leave to its operations; 0: they use none */
    bool identified;           /* set by the core once it may be used: over NCCL an operation is on
                                  its stream when its call returns from then on */
};

typedef struct pgr_comm_open_args {
    pgr_job *job;
    const char *family;
    int64_t group, rank, size;    /* colour, key and size of the group; size > 1. -1, -1, 0: this
                                     rank shares no group of the family, and only takes part */
    double timeout;               /* for later operations, seconds */
    const pgr_nccl_options *nccl; /* or NULL */
} pgr_comm_open_args;

/* Counts and displacements are in elements and 64-bit. In place: all-reduce, reduce-scatter and
 * all-to-all with send == receive where the operation allows it; all-gather with send == receive +
 * rank * count; reduce-scatter with receive == send + rank * count. Every operation is enqueued on
 * `stream` and returns a request. */
struct pgr_comm_ops {
    const char *name; /* "mpi", "nccl" */

    /* Collective; NULL: nothing to do. Begins what the communicators of a job share, at its first
     * call, and moves on: called until done, before the first of them is opened. */
    pgr_status (*join)(pgr_job *job, bool *done, pgr_error *error);

    /* Opening: begin on every rank of the job, family by family in the same order, poll until done,
     * then use it; or abort. Never blocks. A rank that only takes part does the same, and aborts
     * once it is done: there is nothing to use. */
    pgr_status (*open_begin)(const pgr_comm_open_args *args, pgr_comm **comm, pgr_error *error);
    pgr_status (*open_poll)(pgr_comm *comm, bool *done, pgr_error *error);
    void (*abort)(pgr_comm *comm); /* local: gives it up and frees it, whatever is under way */
    pgr_status (*close)(pgr_comm *comm, pgr_error *error); /* collective; frees it */

    /* Local; NULL: nothing to do. Ends what the communicators of a job share, after they were all
     * closed. With `abort` it also aborts all communicators, as a job does that cannot go on: they
     * are good for `abort` alone after that, and no others are opened. */
    pgr_status (*leave)(pgr_job *job, bool abort, pgr_error *error);

    /* Memory that this backend sends from and receives into at full speed. */
    pgr_status (*buffer_alloc)(pgr_comm *comm, int64_t bytes, void **buffer, pgr_error *error);
    void (*buffer_free)(pgr_comm *comm, void *buffer);

    pgr_status (*group_start)(pgr_comm *comm, pgr_error *error);
    pgr_status (*group_end)(pgr_comm *comm, pgr_error *error);

    pgr_status (*all_reduce)(pgr_comm *comm, const void *send, void *receive, int64_t count,
                             pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                             pgr_request *request, pgr_error *error);
    /* send [size][count], receive [count] */
    pgr_status (*reduce_scatter)(pgr_comm *comm, const void *send, void *receive, int64_t count,
                                 pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                                 pgr_request *request, pgr_error *error);
    /* send [count], receive [size][count] */
    pgr_status (*all_gather)(pgr_comm *comm, const void *send, void *receive, int64_t count,
                             pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                             pgr_error *error);
    pgr_status (*broadcast)(pgr_comm *comm, void *data, int64_t count, pgr_dtype dtype,
                            int64_t root, pgr_stream *stream, pgr_request *request,
                            pgr_error *error);
    /* send and receive [size][count] */
    pgr_status (*all_to_all)(pgr_comm *comm, const void *send, void *receive, int64_t count,
                             pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                             pgr_error *error);
    /* counts and displacements [size], host memory, copied before the call returns */
    pgr_status (*all_to_all_v)(pgr_comm *comm, const void *send, const int64_t *send_counts,
                               const int64_t *send_displacements, void *receive,
                               const int64_t *receive_counts, const int64_t *receive_displacements,
                               pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                               pgr_error *error);
    /* the same with counts and displacements in device memory, readable once `counts_ready` is
     * done; they stay valid until the request is */
    pgr_status (*all_to_all_v_device)(pgr_comm *comm, const void *send, const int64_t *send_counts,
                                      const int64_t *send_displacements, void *receive,
                                      const int64_t *receive_counts,
                                      const int64_t *receive_displacements, pgr_event *counts_ready,
                                      pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                                      pgr_error *error);
    pgr_status (*send)(pgr_comm *comm, const void *data, int64_t count, pgr_dtype dtype,
                       int64_t peer, pgr_stream *stream, pgr_request *request, pgr_error *error);
    pgr_status (*receive)(pgr_comm *comm, void *data, int64_t count, pgr_dtype dtype, int64_t peer,
                          pgr_stream *stream, pgr_request *request, pgr_error *error);
    pgr_status (*barrier)(pgr_comm *comm, pgr_stream *stream, pgr_request *request,
                          pgr_error *error);

    /* Whether the request is done; frees its state when it is. Else counts its parts that are. */
    pgr_status (*test)(pgr_request *request, bool *done, pgr_error *error);

    /* NULL: only the host can wait. Lets what is enqueued on `stream` from now on wait for the
     * request, which is still to be waited for: the host waits until it is launched, not until it
     * is done. Not inside of a group. */
    pgr_status (*stream_wait)(pgr_request *request, pgr_stream *stream, pgr_error *error);
};

/* Waits until the request is done, at most comm->timeout seconds without progress: without a part
 * of it being done. Then PGR_TIMEOUT with family, group, members, operation, bytes and sequence
 * number; the request may be waited for again, but not over NCCL, whose communicators are all
 * aborted then, as with any error. */
pgr_status pgr_request_wait(pgr_request *request, pgr_error *error);

/* ---- the plan's groups, opened ------------------------------------------------------------- */

/* What it took to get a communicator, on this rank. */
typedef struct pgr_setup {
    double open_seconds;  /* until it was there, with its stream and buffers; 0: none was opened */
    double first_seconds; /* its first collectives, in which NCCL connects: the identities'
                             all-gather and two all-reduces; 0: none */
    int64_t memory_bytes; /* what both took of the device's free memory, buffers not counted;
                             PGR_NIL: not measured (on a CPU) */
} pgr_setup;

/* This rank's group of one family. */
typedef struct pgr_group {
    pgr_family family;
    int64_t index, rank, size; /* -1, -1, 0: this rank is in no group of the family */
    pgr_comm *comm;            /* NULL for a group of one, and in none */
    const char *shared_with;   /* the family whose communicator this one uses, or NULL */
    pgr_setup setup;
} pgr_group;

/* The open groups of a job, in plan order. */
typedef struct pgr_groups pgr_groups;

/* Opening all of `names` (family names of the plan, each once): one collective per distinct
 * partition, in plan order on every rank, also on those that are in no group of a family. begin
 * starts, poll moves on, finish waits until all are open and identified, at most job->init_timeout
 * seconds without progress. A job has one set of groups: a second begin is PGR_USAGE, without any
 * communication, and names the families that are open. close and abort end that, and free all that
 * was opened (abort cannot free communicators of MPI, since that is collective). Identified: each
 * communicator gathers (world rank, plan digest, host, device) from its members, compares members
 * and their order with the plan, and does one exact all-reduce; the error (PGR_BACKEND) names the
 * family, the place and what was found. abort gives up locally; close is collective. */
pgr_status pgr_groups_open_begin(pgr_job *job, const pgr_plan *plan, const pgr_names *names,
                                 pgr_groups **groups, pgr_error *error);
pgr_status pgr_groups_open_poll(pgr_groups *groups, bool *done, pgr_error *error);
pgr_status pgr_groups_open_finish(pgr_groups *groups, pgr_error *error);
void pgr_groups_abort(pgr_groups *groups);
pgr_status pgr_groups_close(pgr_groups *groups, pgr_error *error);

int64_t pgr_groups_count(const pgr_groups *groups);
const pgr_group *pgr_groups_at(const pgr_groups *groups, int64_t index);

/* What the communicators share, such as NCCL's communicator of the world: what it took, or NULL
 * where nothing was opened for it (over MPI it is there from the start). */
const pgr_setup *pgr_groups_world(const pgr_groups *groups);

/* The open group of a family, by any spelling of its name, or NULL where it was not opened. */
const pgr_group *pgr_groups_find(const pgr_groups *groups, const char *family);

#ifdef __cplusplus
}
#endif
#endif
