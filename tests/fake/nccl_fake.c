/* nccl_fake.c - stands in for libnccl on the stand-in for CUDA (tests/cuda/fake_cuda.c): data moves
 * between the ranks of a host through a file that all map, at most SLOT bytes of each rank at once.
 * Calls on a communicator return ncclInProgress, and what they enqueue reaches the stream only
 * after ncclCommGetAsyncError was asked a few times. Built twice: NCCL_FAKE_VERSION 21805 has
 * neither the newer calls nor the longer ncclConfig_t. The environment steers it:
 *   PGRUN_FAKE_NCCL_DIR           a folder: the shared file, and log.RANK of what was made and
 * ended PGRUN_FAKE_NCCL_FAIL=CALL[:N][@RANK]  the N-th call (default 1) of that name fails on that
 * rank PGRUN_FAKE_NCCL_ASYNC=N[@RANK]        after N operations there is an asynchronous error
 *   PGRUN_FAKE_NCCL_STUCK=1               ncclCommAbort hangs
 *   PGRUN_FAKE_NCCL_ABSENT=N[@RANK]       that rank's N-th operation never begins; 0: its init
 *   PGRUN_FAKE_NCCL_COUNT=1               each call is a line of the log
 * A communicator takes device memory: WORLD_BYTES or SPLIT_BYTES, and FIRST_BYTES with its first
 * operation. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "nccl_fake.h"

#ifndef NCCL_FAKE_VERSION
#define NCCL_FAKE_VERSION 22809
#endif
#define API __attribute__((visibility("default")))

enum { WORLD_BYTES = 1 << 20, SPLIT_BYTES = 2 << 20, FIRST_BYTES = 4 << 20, GRANULE = 2 << 20 };
static struct ncclComm *all;

static struct ncclComm *comm_make(void) {
    struct ncclComm *made = calloc(1, sizeof *made);
    made->next = all;
    return all = made;
}

/* ---- what the environment plants ----------------------------------------------------------- */

static int world_rank(void) {
    const char *text = getenv("OMPI_COMM_WORLD_RANK");
    return text ? atoi(text) : 0;
}

static bool here(const char *text) {
    const char *at = strchr(text, '@');
    return !at || atoi(at + 1) == world_rank();
}

static void tell(const char *format, ...) {
    char path[512];
    va_list arguments;
    snprintf(path, sizeof path, "%s/log.%d", getenv("PGRUN_FAKE_NCCL_DIR"), world_rank());
    FILE *file = fopen(path, "a");
    if (!file)
        return;
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    fclose(file);
}

static bool faulty(const char *call) {
    static int calls;
    const char *text = getenv("PGRUN_FAKE_NCCL_FAIL");
    size_t length = strlen(call);
    if (getenv("PGRUN_FAKE_NCCL_COUNT"))
        tell("call %s\n", call);
    if (!text || strncmp(text, call, length) != 0 || !here(text) ||
        (text[length] && text[length] != ':' && text[length] != '@'))
        return false;
    bool planted = ++calls == (text[length] == ':' ? atoi(text + length + 1) : 1);
    if (planted)
        tell("planted %s\n", call);
    return planted;
}

#define MAY_FAIL                                                                                   \
    do {                                                                                           \
        if (faulty(__func__))                                                                      \
            return ncclSystemError;                                                                \
    } while (0)

/* Whether the count of operations is the one that `variable` names. */
static bool planted(const char *variable, int count) {
    const char *text = getenv(variable);
    return text && here(text) && atoi(text) == count;
}

static int operations;
static __thread int depth;
static __thread task *group; /* what is put together */

/* ---- streams ------------------------------------------------------------------------------- */

/* A function of fake_cuda.c's, in the module. */
static void *module_symbol(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/libpgrun_cuda.so", getenv("PGRUN_MODULE_PATH"));
    void *module = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    void *found = module ? dlsym(module, name) : NULL;
    if (!found) {
        fprintf(stderr, "nccl_fake: no %s in %s\n", name, path);
        _exit(99);
    }
    return found;
}

/* `step` is called until it returns true, in the stream's order. */
static void stream_enqueue(cudaStream_t stream, bool (*step)(void *), void *context) {
    static void (*enqueue)(cudaStream_t, bool (*)(void *), void *);
    if (!enqueue)
        *(void **)&enqueue = module_symbol("pgr_fake_cuda_enqueue");
    enqueue(stream, step, context);
}

static void memory_take(struct ncclComm *comm, long bytes) {
    static void (*take)(long);
    if (!take)
        *(void **)&take = module_symbol("pgr_fake_cuda_take");
    take(bytes);
    comm->bytes += bytes;
}

/* ---- calls --------------------------------------------------------------------------------- */

API ncclResult_t ncclGetVersion(int *version) {
    MAY_FAIL;
    *version = getenv("PGRUN_FAKE_NCCL_VERSION") ? atoi(getenv("PGRUN_FAKE_NCCL_VERSION"))
                                                 : NCCL_FAKE_VERSION;
    return ncclSuccess;
}

API const char *ncclGetErrorString(ncclResult_t result) {
    return result == ncclSuccess ? "no error" : "unhandled system error";
}

API const char *ncclGetLastError(ncclComm_t comm) {
    (void)comm;
    return "planted";
}

API ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    MAY_FAIL;
    memset(id, 0, sizeof *id);
    static int made;
    snprintf(id->internal, sizeof id->internal, "world.%d.%d", (int)getpid(), made++);
    char path[512];
    snprintf(path, sizeof path, "%s/%s", getenv("PGRUN_FAKE_NCCL_DIR"), id->internal);
    int file = open(path, O_RDWR | O_CREAT, 0600);
    if (file < 0 || ftruncate(file, (off_t)(sizeof(channel) * CHANNELS)) != 0)
        return ncclSystemError;
    close(file);
    return ncclSuccess;
}

/* ncclConfig_t of the version, no other. */
static bool config_fits(const ncclConfig_t *config) {
    size_t wanted = NCCL_FAKE_VERSION < 22700 ? 48 : sizeof(ncclConfig_t);
    return config && config->size == wanted && config->magic == 0xcafebeef &&
           config->version / 100 == NCCL_FAKE_VERSION / 100 && config->blocking == 0;
}

/* "max_ctas=8 net=IB": what was set. */
static void config_tell(const ncclConfig_t *config, char *text, size_t bytes) {
    struct {
        const char *name;
        int value;
    } numbers[] = {
        {"max_ctas", config->maxCTAs},
        {"cga", config->cgaClusterSize},
        {"split_share", config->splitShare},
#if NCCL_FAKE_VERSION >= 22700
        {"traffic", config->trafficClass},
#endif
    };
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (numbers[i].value != NCCL_CONFIG_UNDEF_INT)
            used += (size_t)snprintf(text + used, bytes - used, " %s=%d", numbers[i].name,
                                     numbers[i].value);
    if (config->netName)
        used += (size_t)snprintf(text + used, bytes - used, " net=%s", config->netName);
#if NCCL_FAKE_VERSION >= 22700
    snprintf(text + used, bytes - used, " name=\"%s\"", config->commName);
#endif
}

static ncclResult_t init(ncclComm_t *out, int ranks, int rank, int ids, const ncclUniqueId *id,
                         const ncclConfig_t *config) {
    char path[512], text[256];
    if (!config_fits(config) || ranks > RANKS)
        return ncclInvalidArgument;
    config_tell(config, text, sizeof text);
    snprintf(path, sizeof path, "%s/%s", getenv("PGRUN_FAKE_NCCL_DIR"), id->internal);
    int file = open(path, O_RDWR);
    if (file < 0)
        return ncclSystemError;
    struct ncclComm *comm = comm_make();
    comm->channels =
        mmap(NULL, sizeof(channel) * CHANNELS, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    comm->own = comm->channels;
    comm->rank = rank;
    comm->size = ranks;
    comm->absent = planted("PGRUN_FAKE_NCCL_ABSENT", 0);
    snprintf(comm->name, sizeof comm->name, "world");
    if (!comm->absent)
        atomic_store(&comm->own->arrived[rank], 1);
    memory_take(comm, WORLD_BYTES);
    tell("made world %d of %d ids=%d%s\n", rank, ranks, ids, text);
    *out = comm;
    return ncclInProgress;
}

API ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank,
                                        ncclConfig_t *config) {
    MAY_FAIL;
    return init(comm, ranks, rank, 1, &id, config);
}

#if NCCL_FAKE_VERSION >= 22300
API ncclResult_t ncclCommInitRankScalable(ncclComm_t *comm, int ranks, int rank, int ids,
                                          ncclUniqueId *id, ncclConfig_t *config) {
    MAY_FAIL;
    for (int i = 0; i < ids; i++) /* each of another rank */
        for (int j = 0; j < i; j++)
            if (memcmp(&id[i], &id[j], sizeof *id) == 0 || !id[i].internal[0])
                return ncclInvalidArgument;
    return init(comm, ranks, rank, ids, id, config);
}
#endif

API ncclResult_t ncclCommSplit(ncclComm_t comm, int colour, int key, ncclComm_t *out,
                               ncclConfig_t *config) {
    char text[256];
    MAY_FAIL;
    if (!config_fits(config) || !comm->ready || comm->splits == SPLITS || colour >= RANKS)
        return ncclInvalidArgument;
    int at = comm->splits++;
    comm->own->splits[at].colour[comm->rank] = colour;
    comm->own->splits[at].key[comm->rank] = key;
    atomic_store(&comm->own->splits[at].arrived[comm->rank], 1);
    comm->splitting = out;
    *out = NULL;
    config_tell(config, text, sizeof text);
    tell("split colour=%d key=%d%s\n", colour, key, text);
    return ncclInProgress;
}

/* When all have said their colours. */
static void split_end(struct ncclComm *comm) {
    int at = comm->splits - 1, mine = comm->own->splits[at].colour[comm->rank];
    if (mine != NCCL_SPLIT_NOCOLOR) {
        struct ncclComm *made = comm_make();
        made->channels = comm->channels;
        made->own = comm->channels + 1 + at * RANKS + mine;
        made->ready = true;
        snprintf(made->name, sizeof made->name, "split%d.%d", at, mine);
        int key = comm->own->splits[at].key[comm->rank];
        for (int r = 0; r < comm->size; r++) {
            if (comm->own->splits[at].colour[r] != mine)
                continue;
            made->size++;
            made->rank += comm->own->splits[at].key[r] < key;
        }
        *comm->splitting = made;
        memory_take(made, SPLIT_BYTES);
        tell("made %s %d of %d\n", made->name, made->rank, made->size);
    }
    comm->splitting = NULL;
}

static bool all_arrived(const atomic_int *arrived, int size) {
    for (int r = 0; r < size; r++)
        if (!atomic_load(&arrived[r]))
            return false;
    return true;
}

API ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state) {
    MAY_FAIL;
    *state = ncclInProgress;
    if (!comm->ready) {
        comm->ready = !comm->absent && all_arrived(comm->own->arrived, comm->size);
        return ncclSuccess;
    }
    if (comm->splitting) {
        if (all_arrived(comm->own->splits[comm->splits - 1].arrived, comm->size))
            split_end(comm);
        return ncclSuccess;
    }
    if (comm->busy > 0 && --comm->busy > 0)
        return ncclSuccess;
    while (comm->waiting) {
        task *t = comm->waiting;
        comm->waiting = t->next;
        stream_enqueue(t->stream, fake_task_step, t);
    }
    /* Of a communicator that has operations, and after they were launched in good order. */
    const char *async = getenv("PGRUN_FAKE_NCCL_ASYNC");
    bool planned = async && here(async) && operations >= atoi(async) && comm->own != comm->channels;
    *state = planned && comm->launched ? ncclRemoteError : ncclSuccess;
    comm->launched = planned;
    return ncclSuccess;
}

static ncclResult_t end(ncclComm_t comm, const char *how) {
    tell("%s %s\n", how, comm->name);
    comm->aborted = true;
    memory_take(comm, -comm->bytes);
    return ncclSuccess;
}

API ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    MAY_FAIL;
    comm->finalized = true;
    comm->busy = 2;
    return ncclInProgress;
}

API ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    if (faulty(__func__)) { /* what is left of it nobody can use */
        end(comm, "destroyed badly");
        return ncclSystemError;
    }
    return comm->finalized ? end(comm, "destroyed") : ncclInvalidUsage;
}

API ncclResult_t ncclCommAbort(ncclComm_t comm) {
    if (getenv("PGRUN_FAKE_NCCL_STUCK"))
        sleep(30);
    end(comm, depth > 0 ? "aborted together" : "aborted");
    MAY_FAIL;
    return ncclSuccess;
}

API ncclResult_t ncclCommCount(const ncclComm_t comm, int *count) {
    MAY_FAIL;
    *count = comm->size;
    return ncclSuccess;
}

API ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank) {
    MAY_FAIL;
    *rank = comm->rank;
    return ncclSuccess;
}

#if NCCL_FAKE_VERSION >= 21900
/* ---- buffers ------------------------------------------------------------------------------- */

API ncclResult_t ncclMemAlloc(void **memory, size_t bytes) {
    static bool (*alloc)(void **, size_t);
    MAY_FAIL;
    if (!alloc)
        *(void **)&alloc = module_symbol("pgr_fake_cuda_alloc");
    if (!alloc(memory, (bytes + GRANULE - 1) / GRANULE * GRANULE))
        return ncclUnhandledCudaError;
    tell("alloc\n");
    return ncclSuccess;
}

/* Where something may still use it, that is an error here and bad luck with NCCL. */
API ncclResult_t ncclMemFree(void *memory) {
    static bool (*give_back)(void *);
    if (!give_back)
        *(void **)&give_back = module_symbol("pgr_fake_cuda_free");
    if (!give_back(memory))
        return ncclInvalidUsage;
    tell("freed\n");
    MAY_FAIL;
    return ncclSuccess;
}

/* Not while there is work in the background, which would look at the same list. */
static ncclResult_t registered(struct ncclComm *comm, const char *how) {
    if (!comm->ready || comm->aborted || comm->waiting || comm->busy > 0)
        return ncclInvalidUsage;
    tell("%s\n", how);
    return ncclSuccess;
}

API ncclResult_t ncclCommRegister(const ncclComm_t comm, void *buffer, size_t bytes, void **out) {
    MAY_FAIL;
    (void)bytes;
    *out = buffer;
    return registered(comm, "registered");
}

API ncclResult_t ncclCommDeregister(const ncclComm_t comm, void *registration) {
    (void)registration;
    ncclResult_t result = registered(comm, "deregistered");
    MAY_FAIL;
    return result;
}
#endif

/* ---- operations ---------------------------------------------------------------------------- */

/* nccl.h's are no prototypes */
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);

static ncclResult_t launch(task *t) {
    struct ncclComm *comm = t->ops[0].comm;
    task **last = &comm->waiting;
    while (*last)
        last = &(*last)->next;
    *last = t;
    if (comm->bytes == SPLIT_BYTES)
        memory_take(comm, FIRST_BYTES);
    comm->busy = 3;
    return ncclInProgress;
}

static ncclResult_t add(op made, cudaStream_t stream) {
    size_t bytes = made.count * fake_width(made.type) *
                   (made.kind == REDUCE_SCATTER ? (size_t)made.comm->size : 1);
    if (bytes > (made.kind >= SEND ? BOX : SLOT)) {
        fprintf(stderr, "nccl_fake: %zu bytes are too many\n", bytes);
        return ncclInvalidArgument;
    }
    operations++;
    made.never = planted("PGRUN_FAKE_NCCL_ABSENT", operations);
    if (made.kind < SEND)
        made.sequence = ++made.comm->sequence;
    task *t = group;
    if (!t) {
        t = calloc(1, sizeof *t);
        t->stream = stream;
    }
    if (t->count == 4 * RANKS)
        return ncclInvalidUsage;
    t->ops[t->count++] = made;
    if (depth == 0)
        return launch(t);
    group = t;
    return ncclSuccess;
}

API ncclResult_t ncclGroupStart(void) {
    MAY_FAIL;
    depth++;
    return ncclSuccess;
}

API ncclResult_t ncclGroupEnd(void) {
    task *t = group;
    MAY_FAIL;
    if (depth == 0)
        return ncclInvalidUsage;
    if (--depth > 0 || !t)
        return ncclSuccess;
    group = NULL;
    return launch(t);
}

API ncclResult_t ncclAllReduce(const void *send, void *receive, size_t count, ncclDataType_t type,
                               ncclRedOp_t how, ncclComm_t comm, cudaStream_t stream) {
    MAY_FAIL;
    return add((op){.kind = ALL_REDUCE,
                    .comm = comm,
                    .send = send,
                    .receive = receive,
                    .count = count,
                    .type = type,
                    .reduce = how},
               stream);
}

API ncclResult_t ncclReduceScatter(const void *send, void *receive, size_t count,
                                   ncclDataType_t type, ncclRedOp_t how, ncclComm_t comm,
                                   cudaStream_t stream) {
    MAY_FAIL;
    return add((op){.kind = REDUCE_SCATTER,
                    .comm = comm,
                    .send = send,
                    .receive = receive,
                    .count = count,
                    .type = type,
                    .reduce = how},
               stream);
}

API ncclResult_t ncclAllGather(const void *send, void *receive, size_t count, ncclDataType_t type,
                               ncclComm_t comm, cudaStream_t stream) {
    MAY_FAIL;
    return add((op){.kind = ALL_GATHER,
                    .comm = comm,
                    .send = send,
                    .receive = receive,
                    .count = count,
                    .type = type},
               stream);
}

API ncclResult_t ncclBroadcast(const void *send, void *receive, size_t count, ncclDataType_t type,
                               int root, ncclComm_t comm, cudaStream_t stream) {
    MAY_FAIL;
    return add((op){.kind = BROADCAST,
                    .comm = comm,
                    .send = send,
                    .receive = receive,
                    .count = count,
                    .type = type,
                    .peer = root},
               stream);
}

API ncclResult_t ncclSend(const void *data, size_t count, ncclDataType_t type, int peer,
                          ncclComm_t comm, cudaStream_t stream) {
    MAY_FAIL;
    return add(
        (op){.kind = SEND, .comm = comm, .send = data, .count = count, .type = type, .peer = peer},
        stream);
}

API ncclResult_t ncclRecv(void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                          cudaStream_t stream) {
    MAY_FAIL;
    return add((op){.kind = RECV,
                    .comm = comm,
                    .receive = data,
                    .count = count,
                    .type = type,
                    .peer = peer},
               stream);
}
