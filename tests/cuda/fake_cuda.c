/* fake_cuda.c - stands in for the CUDA runtime and the kernels' launches, so that all else of
 * libpgrun_cuda.so runs where there is no GPU: linked with the module's own C files, and with the
 * stand-in of cuBLASLt (fake_cublaslt.c), into a module of that name in a folder of its own.
 *
 * It is stricter than a GPU: device memory cannot be touched from the host (a fault, not luck),
 * what is enqueued happens only when somebody waits, pageable memory as CUDA documents it. Says
 * nothing about the kernels' speed. The environment steers it:
 *   PGRUN_FAKE_GPUS=N        visible GPUs (default 1); 0: cudaErrorNoDevice
 *   PGRUN_FAKE_OWN_GPU=1     each rank of mpirun sees GPUs of its own
 *   PGRUN_FAKE_DRIVER=12020  the driver's CUDA version (default: the toolkit's)
 *   PGRUN_FAKE_FAIL=CALL[:N][@RANK] the N-th call (default 1) of that name fails, on that rank
 * alone */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake_cuda.h"

enum { REGIONS = 4096, LANES = 3, BLOCKS = 2 };

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

/* As CUDA's, the calls may come from several threads: one at a time. */
static pthread_mutex_t calls_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static int lock_calls(void) {
    return pthread_mutex_lock(&calls_lock);
}

static void unlock_calls(const int *locked) {
    (void)locked;
    pthread_mutex_unlock(&calls_lock);
}

#define LOCKED __attribute__((cleanup(unlock_calls), unused)) int locked = lock_calls()

bool pgr_fake_cuda_faulty(const char *call) {
    LOCKED;
    static int calls;
    const char *wanted = getenv("PGRUN_FAKE_FAIL");
    size_t length = strlen(call);
    const char *rank = wanted ? strchr(wanted, '@') : NULL;
    if (!wanted || strncmp(wanted, call, length) != 0 || !strchr(":@", wanted[length]) ||
        (rank && atoi(rank + 1) != number("OMPI_COMM_WORLD_RANK", 0)))
        return false;
    return ++calls == (wanted[length] == ':' ? atoi(wanted + length + 1) : 1);
}

#define MAY_FAIL                                                                                   \
    LOCKED;                                                                                        \
    if (pgr_fake_cuda_faulty(__func__))                                                            \
    return cudaErrorLaunchFailure

/* ---- memory -------------------------------------------------------------------------------- */

static struct {
    char *memory;
    size_t bytes;
    bool pinned;
} regions[REGIONS];

/* Opens device memory to this file, and closes it to all others. */
static void guard(bool open) {
    for (int i = 0; i < REGIONS; i++)
        if (regions[i].memory && !regions[i].pinned)
            mprotect(regions[i].memory, regions[i].bytes,
                     open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

static int region_of(const void *memory) {
    for (int i = 0; i < REGIONS; i++)
        if (regions[i].memory && (const char *)memory >= regions[i].memory &&
            (const char *)memory < regions[i].memory + regions[i].bytes)
            return i;
    return -1;
}

static bool pageable(const void *memory) {
    return region_of(memory) < 0;
}

static cudaError_t region_make(void **out, size_t bytes, bool pinned) {
    int slot = 0;
    while (slot < REGIONS && regions[slot].memory)
        slot++;
    if (slot == REGIONS || bytes > (size_t)1 << 36)
        return cudaErrorMemoryAllocation;
    bytes = (bytes + 4095) / 4096 * 4096;
    void *memory = mmap(NULL, bytes, pinned ? PROT_READ | PROT_WRITE : PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return cudaErrorMemoryAllocation;
    regions[slot].memory = memory;
    regions[slot].bytes = bytes;
    regions[slot].pinned = pinned;
    *out = memory;
    return cudaSuccess;
}

/* ---- what is enqueued ---------------------------------------------------------------------- */

typedef enum kind {
    COPY,
    SET,
    FILL,
    BIAS,
    SPLIT,
    GATHER,
    PRODUCT,
    EPILOGUE,
    RECORD,
    EXTERNAL
} kind;

typedef struct task {
    struct task *next;
    kind kind;
    void *staged; /* a copy's pageable source */
    union {
        struct {
            void *dst;
            const void *src;
            size_t bytes;
            int byte;
        } bytes;
        struct {
            pgr_fill_args args;
            float unit;
        } fill;
        pgr_bias_args bias;
        pgr_context_args context;
        cuda_epilogue epilogue;
        struct CUevent_st *event;
        struct {
            bool (*step)(void *context);
            void *context;
        } external;
    } of;
} task;

struct CUevent_st {
    bool recorded, done;
    int queries;
    double seconds;
};

static task *first_task, **last_task = &first_task;

static cudaError_t enqueue(task made) {
    LOCKED;
    task *copy = malloc(sizeof *copy);
    *copy = made;
    copy->next = NULL;
    *last_task = copy;
    last_task = &copy->next;
    return cudaSuccess;
}

static void tiles_run(const pgr_context_args *args, bool gather, cuda_lane lane) {
    int64_t bytes = gather ? cuda_gather_bytes(args) : cuda_split_bytes(args);
    int64_t tile = cuda_context_tile_bytes(bytes, BLOCKS);
    for (int64_t i = 0; i * tile < bytes; i++)
        cuda_context_tile(args, gather, bytes, tile, i, lane);
}

/* In as many lanes as LANES, one after the other. */
static void task_run(const task *t) {
    for (int64_t i = 0; i < LANES; i++) {
        cuda_lane lane = {i, LANES};
        if (t->kind == FILL)
            cuda_fill(&t->of.fill.args, t->of.fill.unit, lane);
        if (t->kind == BIAS)
            cuda_add_bias(&t->of.bias, lane);
        if (t->kind == PRODUCT)
            cuda_product(&t->of.epilogue, lane);
        if (t->kind == EPILOGUE)
            cuda_epilogue_apply(&t->of.epilogue, lane);
        if (t->kind == SPLIT || t->kind == GATHER)
            tiles_run(&t->of.context, t->kind == GATHER, lane);
    }
    if (t->kind == COPY)
        memcpy(t->of.bytes.dst, t->of.bytes.src, t->of.bytes.bytes);
    if (t->kind == SET)
        memset(t->of.bytes.dst, t->of.bytes.byte, t->of.bytes.bytes);
    if (t->kind == RECORD) {
        t->of.event->done = true;
        t->of.event->seconds = pgr_clock_seconds();
    }
}

/* Runs what can be run now; true where nothing is left. */
static bool run_some(void) {
    guard(true);
    while (first_task) {
        task *t = first_task;
        if (t->kind == EXTERNAL && !t->of.external.step(t->of.external.context))
            break;
        task_run(t);
        first_task = t->next;
        free(t->staged);
        free(t);
    }
    if (!first_task)
        last_task = &first_task;
    guard(false);
    return !first_task;
}

static void run_all(void) {
    while (!run_some())
        usleep(50);
}

__attribute__((visibility("default"))) void
pgr_fake_cuda_enqueue(cudaStream_t stream, bool (*step)(void *), void *context) {
    (void)stream;
    LOCKED;
    task t = {.kind = EXTERNAL};
    t.of.external.step = step;
    t.of.external.context = context;
    enqueue(t);
}

/* For its memory: a region, or false; freed where nothing is under way; bytes of which nothing is
 * known but that they are taken. */
static size_t taken;
bool pgr_fake_cuda_alloc(void **out, size_t bytes);
bool pgr_fake_cuda_free(void *memory);
void pgr_fake_cuda_take(long bytes);
__attribute__((visibility("default"))) bool pgr_fake_cuda_alloc(void **out, size_t bytes) {
    return region_make(out, bytes, false) == cudaSuccess;
}

__attribute__((visibility("default"))) bool pgr_fake_cuda_free(void *memory) {
    return !first_task && region_of(memory) >= 0 && cudaFree(memory) == cudaSuccess;
}

__attribute__((visibility("default"))) void pgr_fake_cuda_take(long bytes) {
    taken += (size_t)bytes;
}

/* A kernel that simt.h runs. */
cudaError_t pgr_fake_cuda_launch(cudaStream_t stream, bool (*step)(void *), void *context);
cudaError_t pgr_fake_cuda_launch(cudaStream_t stream, bool (*step)(void *), void *context) {
    MAY_FAIL;
    pgr_fake_cuda_enqueue(stream, step, context);
    return cudaSuccess;
}

/* ---- the runtime --------------------------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *count) {
    MAY_FAIL;
    if (number("PGRUN_FAKE_DRIVER", CUDART_VERSION) < CUDART_VERSION)
        return cudaErrorInsufficientDriver;
    if (number("PGRUN_FAKE_GPUS", 1) == 0)
        return cudaErrorNoDevice;
    *count = (int)number("PGRUN_FAKE_GPUS", 1);
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version) {
    *version = (int)number("PGRUN_FAKE_DRIVER", CUDART_VERSION);
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

const char *cudaGetErrorName(cudaError_t code) {
    switch (code) {
    case cudaErrorLaunchFailure:
        return "cudaErrorLaunchFailure";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    default:
        return code == cudaSuccess ? "cudaSuccess" : "another code";
    }
}

const char *cudaGetErrorString(cudaError_t code) {
    return code == cudaErrorMemoryAllocation ? "out of memory" : "planted";
}

cudaError_t cudaGetLastError(void) {
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
    MAY_FAIL;
    return device < number("PGRUN_FAKE_GPUS", 1) ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    MAY_FAIL;
    memset(properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "Stand-in GPU");
    properties->major = 9;
    properties->totalGlobalMem = (size_t)80 << 30;
    properties->multiProcessorCount = PGR_FAKE_MULTIPROCESSORS;
    properties->uuid.bytes[0] = (char)device;
    if (number("PGRUN_FAKE_OWN_GPU", 0))
        properties->uuid.bytes[1] = (char)number("OMPI_COMM_WORLD_LOCAL_RANK", 0);
    return cudaSuccess;
}

/* Benchmarks ask for the clock (kHz) and the L2 cache (bytes). */
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr name, int device) {
    (void)device;
    *value = name == cudaDevAttrClockRate ? 1000000 : name == cudaDevAttrL2CacheSize ? 4096 : 0;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    MAY_FAIL;
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **out, size_t bytes) {
    MAY_FAIL;
    return region_make(out, bytes, false);
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned flags) {
    (void)flags;
    MAY_FAIL;
    return region_make(out, bytes, true);
}

cudaError_t cudaFree(void *memory) {
    LOCKED;
    run_all(); /* CUDA's waits for the device too */
    int slot = memory ? region_of(memory) : -1;
    if (slot < 0)
        return memory ? cudaErrorInvalidValue : cudaSuccess;
    munmap(regions[slot].memory, regions[slot].bytes);
    regions[slot].memory = NULL;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory) {
    return cudaFree(memory);
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    MAY_FAIL;
    *free_bytes = *total = (size_t)80 << 30;
    for (int i = 0; i < REGIONS; i++)
        *free_bytes -= regions[i].memory && !regions[i].pinned ? regions[i].bytes : 0;
    *free_bytes -= taken;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void) {
    run_all();
    return cudaSuccess;
}

/* Pageable sources are read before the call returns, pageable destinations are written before. */
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind how,
                            cudaStream_t stream) {
    (void)how, (void)stream;
    MAY_FAIL;
    task t = {.kind = COPY};
    t.of.bytes.dst = dst;
    t.of.bytes.src = src;
    t.of.bytes.bytes = bytes;
    if (pageable(src)) {
        t.staged = malloc(bytes);
        memcpy(t.staged, src, bytes);
        t.of.bytes.src = t.staged;
    }
    cudaError_t code = enqueue(t);
    if (pageable(dst))
        run_all();
    return code;
}

cudaError_t cudaMemsetAsync(void *dst, int byte, size_t bytes, cudaStream_t stream) {
    (void)stream;
    MAY_FAIL;
    task t = {.kind = SET};
    t.of.bytes.dst = dst;
    t.of.bytes.byte = byte;
    t.of.bytes.bytes = bytes;
    return enqueue(t);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    MAY_FAIL;
    if (flags != cudaStreamNonBlocking || priority > 0 || priority < -5)
        return cudaErrorInvalidValue;
    *stream = malloc(1);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    free(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    (void)stream;
    MAY_FAIL;
    run_all();
    return cudaSuccess;
}

/* All streams are one queue in the order of the calls, which is stricter than any wait. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    (void)stream, (void)event, (void)flags;
    MAY_FAIL;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    MAY_FAIL;
    *event = calloc(1, sizeof **event);
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    LOCKED;
    run_all();
    free(event);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    (void)stream;
    MAY_FAIL;
    event->recorded = true;
    event->done = false;
    event->queries = 0;
    task t = {.kind = RECORD};
    t.of.event = event;
    return enqueue(t);
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    MAY_FAIL;
    if (event->recorded && !event->done && event->queries++ > 2)
        run_some();
    return event->recorded && !event->done ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    MAY_FAIL;
    if (!begin->recorded || !end->recorded)
        return cudaErrorInvalidResourceHandle;
    if (!begin->done || !end->done)
        return cudaErrorNotReady;
    *milliseconds = (float)(1e3 * (end->seconds - begin->seconds));
    return cudaSuccess;
}

/* ---- the launches -------------------------------------------------------------------------- */

cudaError_t pgr_cuda_launch_fill(const pgr_fill_args *args, float unit, int blocks,
                                 cudaStream_t stream) {
    (void)blocks, (void)stream;
    MAY_FAIL;
    task t = {.kind = FILL};
    t.of.fill.args = *args;
    t.of.fill.unit = unit;
    return enqueue(t);
}

cudaError_t pgr_cuda_launch_add_bias(const pgr_bias_args *args, int blocks, cudaStream_t stream) {
    (void)blocks, (void)stream;
    MAY_FAIL;
    return enqueue((task){.kind = BIAS, .of.bias = *args});
}

cudaError_t pgr_cuda_launch_split(const pgr_context_args *args, int blocks, cudaStream_t stream) {
    (void)blocks, (void)stream;
    MAY_FAIL;
    return enqueue((task){.kind = SPLIT, .of.context = *args});
}

cudaError_t pgr_cuda_launch_gather(const pgr_context_args *args, int blocks, cudaStream_t stream) {
    (void)blocks, (void)stream;
    MAY_FAIL;
    return enqueue((task){.kind = GATHER, .of.context = *args});
}

cudaError_t pgr_cuda_launch_product(const cuda_epilogue *args, int blocks, cudaStream_t stream) {
    (void)blocks, (void)stream;
    MAY_FAIL;
    return enqueue((task){.kind = PRODUCT, .of.epilogue = *args});
}

cudaError_t pgr_cuda_launch_epilogue(const cuda_epilogue *args, int blocks, cudaStream_t stream) {
    (void)blocks, (void)stream;
    MAY_FAIL;
    return enqueue((task){.kind = EPILOGUE, .of.epilogue = *args});
}
