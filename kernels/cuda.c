/* cuda.c - the CUDA device: which GPU a rank takes, memory, streams, events, and the table that the
 * module exports. */
#include "cuda.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm.h"
#ifdef PGRUN_WITH_NCCL
#include "comm_nccl.h"
#define COMM &pgr_nccl_comm_ops
#else
#define COMM NULL
#endif

_Static_assert((int)PGR_CUDA_SUCCESS == (int)cudaSuccess, "cuda_host.h's codes are CUDA's");
_Static_assert((int)PGR_CUDA_OUT_OF_MEMORY == (int)cudaErrorMemoryAllocation, "the same");
_Static_assert((int)PGR_CUDA_INSUFFICIENT_DRIVER == (int)cudaErrorInsufficientDriver, "the same");
_Static_assert((int)PGR_CUDA_NO_DEVICE == (int)cudaErrorNoDevice, "the same");

/* ---- errors -------------------------------------------------------------------------------- */

pgr_status pgr_cuda_check(const cuda_device *cuda, cudaError_t code, pgr_error *error,
                          const char *format, ...) {
    if (code == cudaSuccess)
        return PGR_OK;
    char call[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(call, sizeof call, format, arguments);
    va_end(arguments);
    /* A failed allocation must not be found again by the next launch's check. */
    if (code == cudaErrorMemoryAllocation)
        (void)cudaGetLastError();
    return pgr_error_set(error, code == cudaErrorMemoryAllocation ? PGR_LIMIT : PGR_BACKEND,
                         "rank %" PRId64 " on %s: %s: %s (%s), GPU %d%s%s", cuda->rank, cuda->host,
                         call, cudaGetErrorName(code), cudaGetErrorString(code), cuda->index,
                         cuda->model[0] ? ", " : "", cuda->model);
}

pgr_status pgr_cuda_enter(pgr_device *device, pgr_stream *stream, cuda_device **cuda,
                          pgr_stream **used, pgr_error *error) {
    cuda_device *own = (cuda_device *)device;
    pgr_status status =
        pgr_cuda_check(own, cudaSetDevice(own->index), error, "cudaSetDevice(%d)", own->index);
    if (status != PGR_OK)
        return status;
    *cuda = own;
    *used = stream ? stream : &own->main;
    return PGR_OK;
}

/* The same where no stream is wanted. */
static pgr_status enter(pgr_device *device, pgr_error *error) {
    cuda_device *cuda;
    pgr_stream *stream;
    return pgr_cuda_enter(device, NULL, &cuda, &stream, error);
}

/* ---- memory -------------------------------------------------------------------------------- */

static pgr_status no_memory(const cuda_device *cuda, int64_t bytes, pgr_error *error) {
    size_t free_bytes = 0, total = 0;
    if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess)
        (void)cudaGetLastError();
    return pgr_error_set(
        error, PGR_LIMIT,
        "rank %" PRId64 " on %s: no memory for %" PRId64
        " bytes (%.1f MiB) on GPU %d, %s, which has %.1f of %.1f MiB free "
        "(cudaMalloc: cudaErrorMemoryAllocation); make the shapes smaller or use more ranks",
        cuda->rank, cuda->host, bytes, (double)bytes / 1048576, cuda->index, cuda->model,
        (double)free_bytes / 1048576, (double)total / 1048576);
}

static pgr_status cuda_alloc(pgr_device *device, pgr_memory memory, int64_t bytes, void **out,
                             pgr_error *error) {
    const cuda_device *cuda = (const cuda_device *)device;
    void *made = NULL;
    if (bytes < 0)
        return pgr_error_set(error, PGR_INTERNAL, "an allocation of %" PRId64 " bytes", bytes);
    pgr_status status = enter(device, error);
    if (status != PGR_OK)
        return status;
    size_t size = bytes > 0 ? (size_t)bytes : 1;
    if (memory == PGR_MEMORY_PINNED) {
        status = pgr_cuda_check(cuda, cudaHostAlloc(&made, size, cudaHostAllocPortable), error,
                                "cudaHostAlloc of %" PRId64 " bytes", bytes);
    } else {
        cudaError_t code = cudaMalloc(&made, size);
        if (code == cudaErrorMemoryAllocation) {
            (void)cudaGetLastError();
            return no_memory(cuda, bytes, error);
        }
        status = pgr_cuda_check(cuda, code, error, "cudaMalloc of %" PRId64 " bytes", bytes);
    }
    if (status == PGR_OK)
        *out = made;
    return status;
}

static void cuda_free(pgr_device *device, pgr_memory memory, void *memory_to_free) {
    if (!memory_to_free || enter(device, NULL) != PGR_OK)
        return;
    if (memory == PGR_MEMORY_PINNED)
        (void)cudaFreeHost(memory_to_free);
    else
        (void)cudaFree(memory_to_free);
}

static pgr_status cuda_memory_left(pgr_device *device, int64_t *bytes, pgr_error *error) {
    size_t left = 0, total = 0;
    pgr_status status = enter(device, error);
    if (status == PGR_OK)
        status = pgr_cuda_check((const cuda_device *)device, cudaMemGetInfo(&left, &total), error,
                                "cudaMemGetInfo");
    if (status == PGR_OK)
        *bytes = (int64_t)left;
    return status;
}

static pgr_status cuda_copy(pgr_device *device, void *dst, const void *src, int64_t bytes,
                            pgr_stream *stream, pgr_error *error) {
    cuda_device *cuda;
    if (bytes <= 0 || dst == src)
        return PGR_OK;
    pgr_status status = pgr_cuda_enter(device, stream, &cuda, &stream, error);
    if (status != PGR_OK)
        return status;
    return pgr_cuda_check(
        cuda, cudaMemcpyAsync(dst, src, (size_t)bytes, cudaMemcpyDefault, stream->stream), error,
        "cudaMemcpyAsync of %" PRId64 " bytes", bytes);
}

static pgr_status cuda_set(pgr_device *device, void *dst, uint8_t byte, int64_t bytes,
                           pgr_stream *stream, pgr_error *error) {
    cuda_device *cuda;
    if (bytes <= 0)
        return PGR_OK;
    pgr_status status = pgr_cuda_enter(device, stream, &cuda, &stream, error);
    if (status != PGR_OK)
        return status;
    return pgr_cuda_check(cuda, cudaMemsetAsync(dst, byte, (size_t)bytes, stream->stream), error,
                          "cudaMemsetAsync of %" PRId64 " bytes", bytes);
}

pgr_status pgr_cuda_grow(const cuda_device *cuda, pgr_stream *stream, void **memory, int64_t *held,
                         int64_t bytes, const char *what, pgr_error *error) {
    int64_t room = 1024;
    void *made = NULL;
    if (*held >= bytes)
        return PGR_OK;
    while (room < bytes)
        room *= 2;
    pgr_status status = pgr_cuda_check(cuda, cudaMalloc(&made, (size_t)room), error,
                                       "cudaMalloc of %s, %" PRId64 " bytes", what, room);
    if (status != PGR_OK)
        return status;
    if (*memory && stream->outgrown_count < PGR_CUDA_OUTGROWN) /* each is half as large: always */
        stream->outgrown[stream->outgrown_count++] = *memory;
    *memory = made;
    *held = room;
    return PGR_OK;
}

/* ---- streams and events -------------------------------------------------------------------- */

/* Non-blocking: CUDA's default stream, which nothing here uses, must not hold it up. */
static pgr_status stream_open(const cuda_device *cuda, int32_t priority, pgr_stream *stream,
                              pgr_error *error) {
    int wanted = pgr_cuda_priority(priority, cuda->least, cuda->greatest);
    return pgr_cuda_check(
        cuda, cudaStreamCreateWithPriority(&stream->stream, cudaStreamNonBlocking, wanted), error,
        "cudaStreamCreateWithPriority(%d)", wanted);
}

/* What is under way is waited for first: it may use the memory. */
static void stream_close(pgr_stream *stream) {
    if (!stream->stream)
        return;
    (void)cudaStreamSynchronize(stream->stream);
    (void)cudaFree(stream->workspace);
    (void)cudaFree(stream->scratch);
    (void)cudaFree(stream->cells);
    for (int i = 0; i < stream->outgrown_count; i++)
        (void)cudaFree(stream->outgrown[i]);
    (void)cudaStreamDestroy(stream->stream);
}

static pgr_status cuda_stream_create(pgr_device *device, int32_t priority, pgr_stream **stream,
                                     pgr_error *error) {
    pgr_stream *made = calloc(1, sizeof *made);
    if (!made)
        return pgr_error_set(error, PGR_LIMIT, "no memory for a stream (%zu bytes)", sizeof *made);
    pgr_status status = enter(device, error);
    if (status == PGR_OK)
        status = stream_open((const cuda_device *)device, priority, made, error);
    if (status != PGR_OK)
        free(made);
    else
        *stream = made;
    return status;
}

static void cuda_stream_free(pgr_device *device, pgr_stream *stream) {
    if (!stream)
        return;
    if (enter(device, NULL) == PGR_OK)
        stream_close(stream);
    free(stream);
}

static pgr_status cuda_stream_sync(pgr_device *device, pgr_stream *stream, pgr_error *error) {
    cuda_device *cuda;
    pgr_status status = pgr_cuda_enter(device, stream, &cuda, &stream, error);
    if (status != PGR_OK)
        return status;
    return pgr_cuda_check(cuda, cudaStreamSynchronize(stream->stream), error,
                          "cudaStreamSynchronize (an operation enqueued before it failed, or the "
                          "wait itself)");
}

static pgr_status cuda_stream_wait(pgr_device *device, pgr_stream *stream, pgr_event *event,
                                   pgr_error *error) {
    cuda_device *cuda;
    pgr_status status = pgr_cuda_enter(device, stream, &cuda, &stream, error);
    if (status != PGR_OK)
        return status;
    return pgr_cuda_check(cuda, cudaStreamWaitEvent(stream->stream, event->event, 0), error,
                          "cudaStreamWaitEvent");
}

static pgr_status cuda_event_create(pgr_device *device, pgr_event **event, pgr_error *error) {
    pgr_event *made = calloc(1, sizeof *made);
    if (!made)
        return pgr_error_set(error, PGR_LIMIT, "no memory for an event (%zu bytes)", sizeof *made);
    pgr_status status = enter(device, error);
    if (status == PGR_OK)
        status = pgr_cuda_check((const cuda_device *)device, cudaEventCreate(&made->event), error,
                                "cudaEventCreate");
    if (status != PGR_OK)
        free(made);
    else
        *event = made;
    return status;
}

static void cuda_event_free(pgr_device *device, pgr_event *event) {
    if (!event)
        return;
    if (enter(device, NULL) == PGR_OK)
        (void)cudaEventDestroy(event->event);
    free(event);
}

static pgr_status cuda_event_record(pgr_device *device, pgr_event *event, pgr_stream *stream,
                                    pgr_error *error) {
    cuda_device *cuda;
    pgr_status status = pgr_cuda_enter(device, stream, &cuda, &stream, error);
    if (status == PGR_OK)
        status = pgr_cuda_check(cuda, cudaEventRecord(event->event, stream->stream), error,
                                "cudaEventRecord");
    if (status == PGR_OK)
        event->recorded = true;
    return status;
}

static pgr_status cuda_event_query(pgr_device *device, pgr_event *event, bool *done,
                                   pgr_error *error) {
    pgr_status status = enter(device, error);
    if (status != PGR_OK)
        return status;
    cudaError_t code = cudaEventQuery(event->event);
    if (code == cudaErrorNotReady) {
        (void)cudaGetLastError(); /* not an error: the next launch's check must not find it */
        *done = false;
        return PGR_OK;
    }
    status = pgr_cuda_check((const cuda_device *)device, code, error, "cudaEventQuery");
    if (status == PGR_OK)
        *done = true;
    return status;
}

static pgr_status cuda_event_elapsed(pgr_device *device, pgr_event *begin, pgr_event *end,
                                     double *seconds, pgr_error *error) {
    if (!begin->recorded || !end->recorded)
        return pgr_error_set(error, PGR_INTERNAL,
                             "the time between events, but the %s was never recorded",
                             begin->recorded ? "second" : "first");
    float milliseconds = 0;
    pgr_status status = enter(device, error);
    if (status == PGR_OK)
        status = pgr_cuda_check((const cuda_device *)device,
                                cudaEventElapsedTime(&milliseconds, begin->event, end->event),
                                error, "cudaEventElapsedTime");
    if (status == PGR_OK)
        *seconds = (double)milliseconds * 1e-3;
    return status;
}

/* ---- the device ---------------------------------------------------------------------------- */

static void kernel_driver(char *text, size_t bytes) {
    char line[256] = "";
    FILE *file = fopen("/proc/driver/nvidia/version", "r");
    if (file) {
        if (!fgets(line, sizeof line, file))
            line[0] = '\0';
        fclose(file);
    }
    pgr_cuda_driver_text(line, text, bytes);
}

/* How many GPUs there are, or why none. cudaGetDeviceCount leaves its output alone when it fails.
 */
static pgr_status count_devices(const cuda_device *cuda, pgr_cuda_facts *facts, pgr_error *error) {
    cudaError_t code = cudaGetDeviceCount(&facts->count);
    facts->code = (int)code;
    facts->code_name = cudaGetErrorName(code);
    if (cudaDriverGetVersion(&facts->driver_version) != cudaSuccess)
        facts->driver_version = 0;
    if (cudaRuntimeGetVersion(&facts->toolkit_version) != cudaSuccess)
        facts->toolkit_version = CUDART_VERSION;
    if (code != cudaSuccess)
        (void)cudaGetLastError();
    facts->visible = getenv("CUDA_VISIBLE_DEVICES");
    pgr_status status = pgr_cuda_facts_check(facts, error);
    if (status == PGR_BACKEND) /* the others are of the machine, and alike on many ranks */
        pgr_error_prefix(error, "rank %" PRId64 " on %s: ", cuda->rank, cuda->host);
    return status;
}

static pgr_status describe(cuda_device *cuda, const pgr_cuda_facts *facts, pgr_error *error) {
    struct cudaDeviceProp properties;
    pgr_status status = pgr_cuda_check(cuda, cudaGetDeviceProperties(&properties, cuda->index),
                                       error, "cudaGetDeviceProperties(%d)", cuda->index);
    if (status == PGR_OK)
        status =
            pgr_cuda_capability_check(properties.name, properties.major, properties.minor, error);
    if (status != PGR_OK)
        return status;
    snprintf(cuda->model, sizeof cuda->model, "%.63s", properties.name);
    snprintf(cuda->base.name, sizeof cuda->base.name,
             "cuda: %.48s, %.1f GiB, driver %.20s (CUDA %d.%d)", properties.name,
             (double)properties.totalGlobalMem / 1073741824.0,
             facts->driver[0] ? facts->driver : "unknown", facts->driver_version / 1000,
             facts->driver_version % 1000 / 10);
    pgr_cuda_uuid_text((const uint8_t *)properties.uuid.bytes, cuda->base.identity);
    cuda->units = properties.multiProcessorCount;
    cuda->blocks = cuda->units * 8;
    return PGR_OK;
}

/* From here on the GPU is used: the context is made. */
static pgr_status start(cuda_device *cuda, pgr_error *error) {
    pgr_status status =
        pgr_cuda_check(cuda, cudaSetDevice(cuda->index), error, "cudaSetDevice(%d)", cuda->index);
    if (status == PGR_OK)
        status =
            pgr_cuda_check(cuda, cudaDeviceGetStreamPriorityRange(&cuda->least, &cuda->greatest),
                           error, "cudaDeviceGetStreamPriorityRange");
    if (status == PGR_OK)
        status = stream_open(cuda, 0, &cuda->main, error);
    if (status == PGR_OK)
        status = pgr_cuda_products_open(cuda, error);
    return status;
}

static const pgr_device_ops cuda_ops;

static void cuda_close(pgr_device *device) {
    if (!device)
        return;
    cuda_device *cuda = (cuda_device *)device;
    if (cuda->main.stream && enter(device, NULL) == PGR_OK) {
        stream_close(&cuda->main);
        pgr_cuda_products_close(cuda);
    }
    free(cuda);
}

static pgr_status cuda_open(const pgr_device_open_args *args, pgr_device **device,
                            pgr_error *error) {
    char driver[32];
    kernel_driver(driver, sizeof driver);
    pgr_cuda_facts facts = {.driver = driver};
    cuda_device *cuda = calloc(1, sizeof *cuda);
    if (!cuda)
        return pgr_error_set(error, PGR_LIMIT, "no memory for a device (%zu bytes)", sizeof *cuda);
    cuda->base.ops = &cuda_ops;
    cuda->base.kind = cuda_ops.kind;
    cuda->base.threads = args->threads > 0 ? args->threads : 1;
    cuda->base.tf32 = true; /* from compute capability 8.0 on, and older ones are refused */
    cuda->rank = args->rank;
    snprintf(cuda->host, sizeof cuda->host, "%.63s", args->host ? args->host : "this host");
    pgr_status status = count_devices(cuda, &facts, error);
    cuda->index = pgr_cuda_index(args->local_rank, facts.count);
    if (status == PGR_OK)
        status = describe(cuda, &facts, error);
    if (status == PGR_OK)
        status = start(cuda, error);
    if (status != PGR_OK)
        cuda_close(&cuda->base);
    else
        *device = &cuda->base;
    return status;
}

static const pgr_device_ops cuda_ops = {
    .kind = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .memory_left = cuda_memory_left,
    .copy = cuda_copy,
    .set = cuda_set,
    .stream_create = cuda_stream_create,
    .stream_free = cuda_stream_free,
    .stream_sync = cuda_stream_sync,
    .stream_wait = cuda_stream_wait,
    .event_create = cuda_event_create,
    .event_free = cuda_event_free,
    .event_record = cuda_event_record,
    .event_query = cuda_event_query,
    .event_elapsed = cuda_event_elapsed,
    .range_begin = pgr_cuda_range_begin,
    .range_end = pgr_cuda_range_end,
    .fill = pgr_cuda_fill,
    .linear = pgr_cuda_linear,
    .add_bias = pgr_cuda_add_bias,
    .context_split = pgr_cuda_context_split,
    .context_gather = pgr_cuda_context_gather,
    .router = pgr_cuda_router,
    .capacity = pgr_cuda_capacity,
};

/* The module's one symbol, as in cpu.c. */
extern const pgr_module cuda_module __asm__("pgr_module") __attribute__((visibility("default")));
const pgr_module cuda_module = {
    .abi = PGR_MODULE_ABI, .name = "cuda", .comm = COMM, .device = &cuda_ops};
