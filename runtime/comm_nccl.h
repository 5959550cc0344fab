/* comm_nccl.h - private to the communicators over NCCL. nccl.h is seen here and nowhere else.
 *
 * libnccl is opened when the first communicator is: the module loads without it. Everything is
 * nonblocking (blocking = 0) and polled by ncclCommGetAsyncError. One communicator of the world is
 * made first; each family is one ncclCommSplit of it. The first error aborts all of them: the job
 * cannot go on. */
#ifndef PGR_COMM_NCCL_H
#define PGR_COMM_NCCL_H

#include <nccl.h>
#include <stdatomic.h>

#include "comm.h"
#include "cuda_queue.h"

#if NCCL_VERSION_CODE < 21800
#error "pgrun needs nccl.h of NCCL 2.18 or later: PGRUN_NCCL_INCLUDE"
#endif

/* ---- the library --------------------------------------------------------------------------- */

/* The calls of NCCL 2.18 that are used. */
#define PGR_NCCL_CALLS(X)                                                                          \
    X(GetVersion)                                                                                  \
    X(GetUniqueId)                                                                                 \
    X(GetErrorString)                                                                              \
    X(GetLastError)                                                                                \
    X(CommInitRankConfig)                                                                          \
    X(CommSplit)                                                                                   \
    X(CommFinalize)                                                                                \
    X(CommDestroy)                                                                                 \
    X(CommAbort)                                                                                   \
    X(CommGetAsyncError)                                                                           \
    X(CommCount)                                                                                   \
    X(CommUserRank)                                                                                \
    X(AllReduce)                                                                                   \
    X(ReduceScatter)                                                                               \
    X(AllGather)                                                                                   \
    X(Broadcast)                                                                                   \
    X(Send)                                                                                        \
    X(Recv)                                                                                        \
    X(GroupStart)                                                                                  \
    X(GroupEnd)

/* Those that later versions added; NULL before. */
#define PGR_NCCL_NEWER_CALLS(X)                                                                    \
    X(MemAlloc, ncclResult_t, (void **memory, size_t bytes)) /* 2.19 */                            \
    X(MemFree, ncclResult_t, (void *memory))                 /* 2.19 */                            \
    X(CommRegister, ncclResult_t,                                                                  \
      (const ncclComm_t comm, void *buffer, size_t bytes, void **registration))  /* 2.19 */        \
    X(CommDeregister, ncclResult_t, (const ncclComm_t comm, void *registration)) /* 2.19 */        \
    X(CommInitRankScalable, ncclResult_t,                                                          \
      (ncclComm_t * comm, int ranks, int rank, int roots, ncclUniqueId *ids,                       \
       ncclConfig_t *config)) /* 2.23 */

/* ncclConfig_t of NCCL 2.28, which older headers have only the beginning of. `size` and `version`
 * say how much of it a call may read. */
typedef struct pgr_nccl_config {
    size_t size;
    unsigned int magic, version;
    int blocking, cga_cluster_size, min_ctas, max_ctas; /* 2.17 */
    const char *net_name;
    int split_share;       /* 2.18 */
    int traffic_class;     /* 2.26 */
    const char *comm_name; /* from here on 2.27 */
    int collnet_enable, cta_policy, shrink_share, nvls_ctas;
    int channels_per_net_peer, nvlink_centric; /* 2.28 */
} pgr_nccl_config;

typedef struct pgr_nccl_library {
    int version;    /* NCCL_VERSION_CODE; 0: not open */
    char text[24];  /* "2.28.9" */
    char file[256]; /* as it was opened */
#define PGR_NCCL_POINTER(name) __typeof__(nccl##name) *name;
    PGR_NCCL_CALLS(PGR_NCCL_POINTER)
#undef PGR_NCCL_POINTER
#define PGR_NCCL_NEWER_POINTER(name, type, arguments) type(*name) arguments;
    PGR_NCCL_NEWER_CALLS(PGR_NCCL_NEWER_POINTER)
#undef PGR_NCCL_NEWER_POINTER
} pgr_nccl_library;

/* Opens $PGRUN_NCCL_LIBRARY, or libnccl.so.2 as the loader finds it, once. PGR_UNSUPPORTED where it
 * is missing, lacks a call or is older than 2.18. */
pgr_status pgr_nccl_library_open(const pgr_nccl_library **library, pgr_error *error);

/* PGR_OK for ncclSuccess and ncclInProgress; else PGR_BACKEND with rank, host, the call, the code's
 * name, its text and NCCL's last words. */
pgr_status pgr_nccl_check(const pgr_job *job, ncclResult_t result, const char *call,
                          pgr_error *error);

/* The configuration of a communicator for this version: nonblocking, named (NCCL keeps the pointer
 * to the name as long as the communicator lives, and copies the network's), with `options` (may be
 * NULL). PGR_UNSUPPORTED where an option is newer than the version. */
pgr_status pgr_nccl_config_fill(int version, const char *name, const pgr_nccl_options *options,
                                pgr_nccl_config *config, pgr_error *error);

/* The number of unique ids for a world of so many ranks, and the rank that makes one: NCCL gives
 * each id an equal part of the ranks, in order (rootIdFromRank in its init.cc). */
int64_t pgr_nccl_roots(int64_t ranks, bool scalable);
int64_t pgr_nccl_root_rank(int64_t ranks, int64_t roots, int64_t root);

/* ---- communicators ------------------------------------------------------------------------- */

typedef struct pgr_nccl_pending pgr_nccl_pending;

typedef enum pgr_nccl_phase {
    PGR_NCCL_NEW,   /* nothing was called for it */
    PGR_NCCL_SPLIT, /* the split is under way */
    PGR_NCCL_OPEN
} pgr_nccl_phase;

/* Memory of ncclMemAlloc, registered with its communicator. */
typedef struct pgr_nccl_buffer {
    struct pgr_nccl_buffer *next;
    void *memory, *registration;
} pgr_nccl_buffer;

typedef struct pgr_nccl_comm {
    pgr_comm base;
    struct pgr_nccl_comm *next; /* of the world */
    pgr_nccl_phase phase;
    ncclComm_t handle; /* NULL: not made yet, none for this rank, or aborted */
    char name[PGR_NAME_MAX + 32];
    bool has_options;
    pgr_nccl_options options;
    void *token;                       /* what a barrier sums: one i32 on the device */
    bool launching;                    /* something was enqueued, but not launched when last seen */
    pgr_nccl_pending *pending, *spare; /* under way; done, to be used again */
    pgr_nccl_buffer *buffers;
    pgr_error *lost; /* the first error of giving back a buffer, told when it is closed; or NULL */
} pgr_nccl_comm;

/* One operation under way. */
struct pgr_nccl_pending {
    pgr_nccl_pending *next;
    pgr_stream *stream;
    pgr_event *event; /* recorded behind the operation once NCCL has launched it */
    bool recorded;
};

/* The world of this process's job. */
typedef struct pgr_nccl_world {
    const pgr_nccl_library *nccl;
    ncclComm_t handle; /* NULL: not made yet, or aborted */
    bool begun, ready, aborted;
    atomic_bool abort_done; /* or it hangs, and communicators are not touched any more */
    bool registers;         /* buffers: all ranks have ncclMemAlloc and ncclCommRegister */
    int depth;              /* of group_start */
    pgr_nccl_config config;
    pgr_nccl_comm *comms; /* opened, or being opened */
    pgr_nccl_comm *lost;  /* given up while NCCL may still write into them: never freed */
} pgr_nccl_world;

extern pgr_nccl_world pgr_nccl_the;

extern const pgr_comm_ops pgr_nccl_comm_ops;

/* SMs that are left to a communicator whose options do not bound them. NCCL does not tell how many
 * it takes; max_ctas makes it sure. */
enum { PGR_NCCL_UNITS = 16 };
/* Whether this rank can have registered buffers: tries one. The device must be current. */
bool pgr_nccl_buffers_probe(const pgr_nccl_library *nccl);

/* Gives back what is left of a communicator's buffers. */
void pgr_nccl_buffers_free(pgr_nccl_comm *comm);

/* What NCCL says of a communicator now: *ready for ncclSuccess, an error, or neither. */
pgr_status pgr_nccl_state(const pgr_job *job, ncclComm_t handle, bool *ready, pgr_error *error);

/* PGR_BACKEND: all was aborted before. */
pgr_status pgr_nccl_refuse(pgr_error *error);

/* The library, once the world was begun. */
const pgr_nccl_library *pgr_nccl(void);

/* Aborts every communicator and the world; later calls return an error. */
void pgr_nccl_abort_all(void);

/* Waits until NCCL has launched what was called on the communicator: it does so in the background,
 * and no call may meet it there. At most comm->base.timeout seconds; `what` is for the message. An
 * error is not yet told to anyone, and nothing aborted. */
pgr_status pgr_nccl_settle(pgr_nccl_comm *comm, const char *what, pgr_error *error);

/* The start of an operation of `count` elements in each of `blocks` blocks: waits until those
 * before, of any communicator, are launched (all ranks launch in the order of their calls), fills
 * the request, gives the CUDA stream. */
pgr_status pgr_nccl_begin(pgr_comm *comm, const char *operation, int64_t count, int64_t blocks,
                          pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                          cudaStream_t *queue, pgr_error *error);

/* Its end: `result` is what NCCL's last call returned. Once the communicator is identified, it is
 * on its stream then. An error aborts all communicators. */
pgr_status pgr_nccl_end(pgr_request *request, ncclResult_t result, const char *call,
                        pgr_error *error);

/* Waits until an event of the device is done, at most comm->timeout seconds. */
pgr_status pgr_nccl_event_wait(pgr_comm *comm, pgr_event *event, const char *operation,
                               pgr_error *error);

/* Of pgr_comm_ops. comm_nccl_buffers.c, comm_nccl_requests.c */
pgr_status pgr_nccl_test(pgr_request *request, bool *done, pgr_error *error);
pgr_status pgr_nccl_stream_wait(pgr_request *request, pgr_stream *stream, pgr_error *error);
pgr_status pgr_nccl_buffer_alloc(pgr_comm *comm, int64_t bytes, void **buffer, pgr_error *error);
void pgr_nccl_buffer_free(pgr_comm *comm, void *buffer);
pgr_status pgr_nccl_group_start(pgr_comm *comm, pgr_error *error);
pgr_status pgr_nccl_group_end(pgr_comm *comm, pgr_error *error);

/* The operations: see pgr_comm_ops. comm_nccl_collectives.c */
pgr_status pgr_nccl_all_reduce(pgr_comm *comm, const void *send, void *receive, int64_t count,
                               pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                               pgr_request *request, pgr_error *error);
pgr_status pgr_nccl_reduce_scatter(pgr_comm *comm, const void *send, void *receive, int64_t count,
                                   pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                                   pgr_request *request, pgr_error *error);
pgr_status pgr_nccl_all_gather(pgr_comm *comm, const void *send, void *receive, int64_t count,
                               pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                               pgr_error *error);
pgr_status pgr_nccl_broadcast(pgr_comm *comm, void *data, int64_t count, pgr_dtype dtype,
                              int64_t root, pgr_stream *stream, pgr_request *request,
                              pgr_error *error);
pgr_status pgr_nccl_all_to_all(pgr_comm *comm, const void *send, void *receive, int64_t count,
                               pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                               pgr_error *error);
pgr_status pgr_nccl_all_to_all_v(pgr_comm *comm, const void *send, const int64_t *send_counts,
                                 const int64_t *send_displacements, void *receive,
                                 const int64_t *receive_counts,
                                 const int64_t *receive_displacements, pgr_dtype dtype,
                                 pgr_stream *stream, pgr_request *request, pgr_error *error);
pgr_status pgr_nccl_all_to_all_v_device(pgr_comm *comm, const void *send,
                                        const int64_t *send_counts,
                                        const int64_t *send_displacements, void *receive,
                                        const int64_t *receive_counts,
                                        const int64_t *receive_displacements,
                                        pgr_event *counts_ready, pgr_dtype dtype,
                                        pgr_stream *stream, pgr_request *request, pgr_error *error);
pgr_status pgr_nccl_send(pgr_comm *comm, const void *data, int64_t count, pgr_dtype dtype,
                         int64_t peer, pgr_stream *stream, pgr_request *request, pgr_error *error);
pgr_status pgr_nccl_receive(pgr_comm *comm, void *data, int64_t count, pgr_dtype dtype,
                            int64_t peer, pgr_stream *stream, pgr_request *request,
                            pgr_error *error);
pgr_status pgr_nccl_barrier(pgr_comm *comm, pgr_stream *stream, pgr_request *request,
                            pgr_error *error);

#endif
