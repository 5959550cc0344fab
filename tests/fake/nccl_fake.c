/* nccl_fake.c - stands in for libnccl on the stand-in for CUDA (tests/cuda/fake_cuda.c): data moves
 * between the ranks of a host through a file that all map, at most SLOT bytes of each rank at once.
 * Calls on a communicator return ncclInProgress, and what they enqueue reaches the stream only
 * after ncclCommGetAsyncError was asked a few times. Built twice: NCCL_FAKE_VERSION 21805 has
 * neither the newer calls nor the longer ncclConfig_t. The environment steers it:
 *   PGRUN_FAKE_NCCL_DIR           a folder: the shared file, and log.RANK of what was made and
 * ended PGRUN_FAKE_NCCL_FAIL=CALL[:N][@RANK]  the N-th call (default 1) of that name fails on that
 * rank PGRUN_FAKE_NCCL_ASYNC=N[@RANK]        after N operations there is an asynchronous error
 *   PGRUN_FAKE_NCCL_STUCK=1               ncclCommAbort hangs
 *   PGRUN_FAKE_NCCL_ABSENT=N[@RANK]       that rank's N-th operation never begins; 0: its init */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <nccl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef NCCL_FAKE_VERSION
#define NCCL_FAKE_VERSION 22809
#endif
#define API __attribute__((visibility("default")))

enum { RANKS = 8, SPLITS = 11, CHANNELS = 1 + SPLITS * RANKS, SLOT = 65536, BOX = 4096 };

typedef struct channel {
    atomic_int arrived[RANKS];
    atomic_ulong published[RANKS], taken[RANKS];
    struct {
        atomic_int arrived[RANKS];
        int colour[RANKS], key[RANKS];
    } splits[SPLITS];
    struct {
        atomic_int full;
        char data[BOX];
    } boxes[RANKS][RANKS];
    char slots[RANKS][SLOT];
} channel;

struct ncclComm {
    struct ncclComm *next; /* of all: none is freed, tasks still look at them */
    channel *channels;     /* of the file */
    channel *own;
    int rank, size, parts[RANKS]; /* parts: ranks in the world's channel */
    bool ready, aborted, finalized, absent;
    char name[64];
    int busy, splits;
    unsigned long sequence;
    struct ncclComm **splitting; /* where a split under way puts its result */
    struct task *waiting;        /* called, but not launched */
};

static struct ncclComm *all;

static struct ncclComm *comm_make(void) {
    struct ncclComm *made = calloc(1, sizeof *made);
    made->next = all;
    return all = made;
}

typedef enum kind { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST, SEND, RECV } kind;

typedef struct op {
    kind kind;
    struct ncclComm *comm;
    const void *send;
    void *receive;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t reduce;
    int peer;
    unsigned long sequence;
    int state; /* 0: to publish, 1: published, 2: done */
    bool never;
} op;

/* What is one task of the stream: a collective, or a group of messages. */
typedef struct task {
    struct task *next;
    cudaStream_t stream;
    int count;
    op ops[4 * RANKS];
} task;

/* ---- what the environment plants ----------------------------------------------------------- */

static int world_rank(void) {
    const char *text = getenv("OMPI_COMM_WORLD_RANK");
    return text ? atoi(text) : 0;
}

static bool here(const char *text) {
    const char *at = strchr(text, '@');
    return !at || atoi(at + 1) == world_rank();
}

static bool faulty(const char *call) {
    static int calls;
    const char *text = getenv("PGRUN_FAKE_NCCL_FAIL");
    size_t length = strlen(call);
    if (!text || strncmp(text, call, length) != 0 || !here(text) ||
        (text[length] && text[length] != ':' && text[length] != '@'))
        return false;
    return ++calls == (text[length] == ':' ? atoi(text + length + 1) : 1);
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

/* ---- streams ------------------------------------------------------------------------------- */

/* fake_cuda.c's: `step` is called until it returns true, in the stream's order. */
static void stream_enqueue(cudaStream_t stream, bool (*step)(void *), void *context) {
    static void (*enqueue)(cudaStream_t, bool (*)(void *), void *);
    if (!enqueue) {
        char path[512];
        snprintf(path, sizeof path, "%s/libpgrun_cuda.so", getenv("PGRUN_MODULE_PATH"));
        void *module = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
        *(void **)&enqueue = module ? dlsym(module, "pgr_fake_cuda_enqueue") : NULL;
        if (!enqueue) {
            fprintf(stderr, "nccl_fake: no pgr_fake_cuda_enqueue in %s\n", path);
            _exit(99);
        }
    }
    enqueue(stream, step, context);
}

static size_t width(ncclDataType_t type) {
    switch (type) {
    case ncclUint8:
        return 1;
    case ncclBfloat16:
        return 2;
    case ncclInt32:
    case ncclFloat32:
        return 4;
    default:
        return 8;
    }
}

static double value(const void *data, size_t at, ncclDataType_t type) {
    if (type == ncclFloat32)
        return ((const float *)data)[at];
    if (type == ncclFloat64)
        return ((const double *)data)[at];
    if (type == ncclInt32)
        return ((const int32_t *)data)[at];
    if (type == ncclUint8)
        return ((const uint8_t *)data)[at];
    uint32_t bits = (uint32_t)((const uint16_t *)data)[at] << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

static void put(void *data, size_t at, ncclDataType_t type, double what) {
    if (type == ncclFloat32)
        ((float *)data)[at] = (float)what;
    if (type == ncclFloat64)
        ((double *)data)[at] = what;
    if (type == ncclInt32)
        ((int32_t *)data)[at] = (int32_t)what;
    if (type == ncclUint8)
        ((uint8_t *)data)[at] = (uint8_t)what;
    if (type == ncclBfloat16) {
        float narrow = (float)what;
        uint32_t bits;
        memcpy(&bits, &narrow, sizeof bits);
        ((uint16_t *)data)[at] = (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
}

static void reduce(const op *o, size_t from) {
    for (size_t i = 0; i < o->count; i++) {
        int64_t whole = 0;
        double sum = 0;
        for (int r = 0; r < o->comm->size; r++) {
            const void *slot = o->comm->own->slots[r];
            int64_t w = o->type == ncclInt64 ? ((const int64_t *)slot)[from + i] : 0;
            double v = o->type == ncclInt64 ? 0 : value(slot, from + i, o->type);
            whole =
                r == 0 || (o->reduce == ncclMax && w > whole) || (o->reduce == ncclMin && w < whole)
                    ? w
                : o->reduce == ncclSum ? whole + w
                                       : whole;
            sum = r == 0 || (o->reduce == ncclMax && v > sum) || (o->reduce == ncclMin && v < sum)
                      ? v
                  : o->reduce == ncclSum ? sum + v
                                         : sum;
        }
        if (o->type == ncclInt64)
            ((int64_t *)o->receive)[i] = whole;
        else
            put(o->receive, i, o->type, sum);
    }
}

static bool all_at_least(const atomic_ulong *values, int size, unsigned long least) {
    for (int r = 0; r < size; r++)
        if (atomic_load(&values[r]) < least)
            return false;
    return true;
}

static void collective_step(op *o) {
    struct ncclComm *comm = o->comm;
    channel *own = comm->own;
    size_t bytes = o->count * width(o->type);
    size_t sent = o->kind == REDUCE_SCATTER ? bytes * (size_t)comm->size : bytes;
    if (o->state == 0 && all_at_least(own->taken, comm->size, o->sequence - 1)) {
        memcpy(own->slots[comm->rank], o->send, sent);
        atomic_store(&own->published[comm->rank], o->sequence);
        o->state = 1;
    }
    if (o->state != 1 || !all_at_least(own->published, comm->size, o->sequence))
        return;
    if (o->kind == ALL_REDUCE)
        reduce(o, 0);
    else if (o->kind == REDUCE_SCATTER)
        reduce(o, o->count * (size_t)comm->rank);
    else if (o->kind == BROADCAST)
        memcpy(o->receive, own->slots[o->peer], bytes);
    else
        for (int r = 0; r < comm->size; r++)
            memcpy((char *)o->receive + (size_t)r * bytes, own->slots[r], bytes);
    atomic_store(&own->taken[comm->rank], o->sequence);
    o->state = 2;
}

static void message_step(op *o) {
    struct ncclComm *comm = o->comm;
    int from = o->kind == SEND ? comm->rank : o->peer, to = o->kind == SEND ? o->peer : comm->rank;
    size_t bytes = o->count * width(o->type);
    if (atomic_load(&comm->own->boxes[from][to].full) != (o->kind == RECV))
        return;
    if (o->kind == SEND)
        memcpy(comm->own->boxes[from][to].data, o->send, bytes);
    else
        memcpy(o->receive, comm->own->boxes[from][to].data, bytes);
    atomic_store(&comm->own->boxes[from][to].full, o->kind == SEND);
    o->state = 2;
}

static bool task_step(void *context) {
    task *t = context;
    bool done = true;
    for (int i = 0; i < t->count; i++) {
        op *o = &t->ops[i];
        if (o->comm->aborted)
            continue;
        if (o->state != 2 && !o->never && o->kind < SEND)
            collective_step(o);
        else if (o->state != 2 && !o->never)
            message_step(o);
        done = done && o->state == 2;
    }
    if (done)
        free(t);
    return done;
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
    const char *async = getenv("PGRUN_FAKE_NCCL_ASYNC");
    if (async && here(async) && operations >= atoi(async) && operations > 0) {
        *state = ncclRemoteError;
        return ncclSuccess;
    }
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
        stream_enqueue(t->stream, task_step, t);
    }
    *state = ncclSuccess;
    return ncclSuccess;
}

static ncclResult_t end(ncclComm_t comm, const char *how) {
    tell("%s %s\n", how, comm->name);
    comm->aborted = true;
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
    return end(comm, "aborted");
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

/* ---- operations ---------------------------------------------------------------------------- */

/* nccl.h's are no prototypes */
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);

static int depth;
static task *group; /* what is put together */

static ncclResult_t launch(task *t) {
    struct ncclComm *comm = t->ops[0].comm;
    task **last = &comm->waiting;
    while (*last)
        last = &(*last)->next;
    *last = t;
    comm->busy = 3;
    return ncclInProgress;
}

static ncclResult_t add(op made, cudaStream_t stream) {
    size_t bytes =
        made.count * width(made.type) * (made.kind == REDUCE_SCATTER ? (size_t)made.comm->size : 1);
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
