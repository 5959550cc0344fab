/* cpu.c - the CPU device: memory, streams, events and the table that the module exports. A stream
 * is a formality (every call is done when it returns) and an event is a time. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "cpu.h"

#include <cblas.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm.h"

enum { ALIGNMENT = 64 };

struct pgr_stream {
    int32_t priority;
};

struct pgr_event {
    double seconds;
    bool recorded;
};

/* ---- memory -------------------------------------------------------------------------------- */

static pgr_status allocate(int64_t bytes, void **out, pgr_error *error) {
    void *memory = NULL;
    if (bytes < 0)
        return pgr_error_set(error, PGR_INTERNAL, "an allocation of %" PRId64 " bytes", bytes);
    int code = posix_memalign(&memory, ALIGNMENT, bytes > 0 ? (size_t)bytes : ALIGNMENT);
    if (code != 0)
        return pgr_error_set(error, PGR_LIMIT,
                             "no memory for %" PRId64 " bytes (%.1f MiB) on the CPU: %s; make the "
                             "shapes smaller or use more ranks on more hosts",
                             bytes, (double)bytes / 1048576, strerror(code));
    *out = memory;
    return PGR_OK;
}

static pgr_status cpu_alloc(pgr_device *device, pgr_memory memory, int64_t bytes, void **out,
                            pgr_error *error) {
    (void)device, (void)memory; /* the host's memory is both */
    return allocate(bytes, out, error);
}

static void cpu_free(pgr_device *device, pgr_memory memory, void *memory_to_free) {
    (void)device, (void)memory;
    free(memory_to_free);
}

pgr_status pgr_cpu_scratch(pgr_device *device, cpu_scratch area, int64_t bytes, void **out,
                           pgr_error *error) {
    cpu_device *cpu = (cpu_device *)device;
    if (cpu->scratch[area].bytes < bytes || !cpu->scratch[area].memory) {
        free(cpu->scratch[area].memory);
        cpu->scratch[area].memory = NULL;
        cpu->scratch[area].bytes = 0;
        pgr_status status = allocate(bytes, &cpu->scratch[area].memory, error);
        if (status != PGR_OK)
            return status;
        cpu->scratch[area].bytes = bytes;
    }
    *out = cpu->scratch[area].memory;
    return PGR_OK;
}

static pgr_status cpu_memory_left(pgr_device *device, int64_t *bytes, pgr_error *error) {
    (void)device, (void)bytes;
    return pgr_error_set(
        error, PGR_UNSUPPORTED,
        "the memory of a CPU is its machine's: what is left of it is not measured");
}

static pgr_status cpu_copy(pgr_device *device, void *dst, const void *src, int64_t bytes,
                           pgr_stream *stream, pgr_error *error) {
    (void)device, (void)stream, (void)error;
    if (bytes > 0 && dst != src)
        memcpy(dst, src, (size_t)bytes);
    return PGR_OK;
}

static pgr_status cpu_set(pgr_device *device, void *dst, uint8_t byte, int64_t bytes,
                          pgr_stream *stream, pgr_error *error) {
    (void)device, (void)stream, (void)error;
    if (bytes > 0)
        memset(dst, byte, (size_t)bytes);
    return PGR_OK;
}

/* ---- streams and events -------------------------------------------------------------------- */

static pgr_status cpu_stream_create(pgr_device *device, int32_t priority, pgr_stream **stream,
                                    pgr_error *error) {
    (void)device;
    pgr_stream *made = calloc(1, sizeof *made);
    if (!made)
        return pgr_error_set(error, PGR_LIMIT, "no memory for a stream (%zu bytes)", sizeof *made);
    made->priority = priority;
    *stream = made;
    return PGR_OK;
}

static void cpu_stream_free(pgr_device *device, pgr_stream *stream) {
    (void)device;
    free(stream);
}

static pgr_status cpu_stream_sync(pgr_device *device, pgr_stream *stream, pgr_error *error) {
    (void)device, (void)stream, (void)error;
    return PGR_OK;
}

static pgr_status cpu_stream_wait(pgr_device *device, pgr_stream *stream, pgr_event *event,
                                  pgr_error *error) {
    (void)device, (void)stream, (void)event, (void)error;
    return PGR_OK;
}

static pgr_status cpu_event_create(pgr_device *device, pgr_event **event, pgr_error *error) {
    (void)device;
    pgr_event *made = calloc(1, sizeof *made);
    if (!made)
        return pgr_error_set(error, PGR_LIMIT, "no memory for an event (%zu bytes)", sizeof *made);
    *event = made;
    return PGR_OK;
}

static void cpu_event_free(pgr_device *device, pgr_event *event) {
    (void)device;
    free(event);
}

static pgr_status cpu_event_record(pgr_device *device, pgr_event *event, pgr_stream *stream,
                                   pgr_error *error) {
    (void)device, (void)stream, (void)error;
    event->seconds = pgr_clock_seconds();
    event->recorded = true;
    return PGR_OK;
}

static pgr_status cpu_event_query(pgr_device *device, pgr_event *event, bool *done,
                                  pgr_error *error) {
    (void)device, (void)event, (void)error;
    *done = true; /* whatever was recorded is done; an event never recorded waits for nothing */
    return PGR_OK;
}

static pgr_status cpu_event_elapsed(pgr_device *device, pgr_event *begin, pgr_event *end,
                                    double *seconds, pgr_error *error) {
    (void)device;
    if (!begin->recorded || !end->recorded)
        return pgr_error_set(error, PGR_INTERNAL,
                             "the time between events, but the %s was never "
                             "recorded",
                             begin->recorded ? "second" : "first");
    *seconds = end->seconds - begin->seconds;
    return PGR_OK;
}

/* No profiler of the CPU is told. */
static void cpu_range_begin(pgr_device *device, const char *name) {
    (void)device, (void)name;
}

static void cpu_range_end(pgr_device *device) {
    (void)device;
}

/* ---- the device ---------------------------------------------------------------------------- */

/* Threads of this rank: its share of the cores that it may run on. */
static int32_t thread_count(const pgr_device_open_args *args) {
    if (args->threads > 0)
        return args->threads;
    cpu_set_t cores;
    int count = 1;
    if (sched_getaffinity(0, sizeof cores, &cores) == 0)
        count = CPU_COUNT(&cores);
    int share = args->local_size > 1 ? count / args->local_size : count;
    return share > 1 ? share : 1;
}

static void cpu_model(char *model, size_t bytes) {
    snprintf(model, bytes, "unknown model");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file)
        return;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value)
            continue;
        value += strspn(value, ": \t");
        value[strcspn(value, "\n")] = '\0';
        snprintf(model, bytes, "%s", value);
        break;
    }
    fclose(file);
}

static const pgr_device_ops cpu_ops;

static pgr_status cpu_open(const pgr_device_open_args *args, pgr_device **device,
                           pgr_error *error) {
    cpu_device *cpu = calloc(1, sizeof *cpu);
    if (!cpu)
        return pgr_error_set(error, PGR_LIMIT, "no memory for a device (%zu bytes)", sizeof *cpu);
    char model[90], host[64] = "";
    cpu_model(model, sizeof model);
    if (gethostname(host, sizeof host - 1) != 0 || !host[0])
        snprintf(host, sizeof host, "localhost");
    cpu->base.ops = &cpu_ops;
    cpu->base.kind = cpu_ops.kind;
    cpu->base.threads = thread_count(args);
    snprintf(cpu->base.name, sizeof cpu->base.name, "cpu: %s, %d thread%s", model,
             (int)cpu->base.threads, cpu->base.threads == 1 ? "" : "s");
    snprintf(cpu->base.identity, sizeof cpu->base.identity, "%.44s/cpu%d", host,
             (int)args->local_rank);
    openblas_set_num_threads(cpu->base.threads);
    *device = &cpu->base;
    return PGR_OK;
}

static void cpu_close(pgr_device *device) {
    if (!device)
        return;
    cpu_device *cpu = (cpu_device *)device;
    for (int i = 0; i < CPU_SCRATCHES; i++)
        free(cpu->scratch[i].memory);
    free(cpu);
}

static const pgr_device_ops cpu_ops = {
    .kind = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .memory_left = cpu_memory_left,
    .copy = cpu_copy,
    .set = cpu_set,
    .stream_create = cpu_stream_create,
    .stream_free = cpu_stream_free,
    .stream_sync = cpu_stream_sync,
    .stream_wait = cpu_stream_wait,
    .event_create = cpu_event_create,
    .event_free = cpu_event_free,
    .event_record = cpu_event_record,
    .event_query = cpu_event_query,
    .event_elapsed = cpu_event_elapsed,
    .range_begin = cpu_range_begin,
    .range_end = cpu_range_end,
    .fill = pgr_cpu_fill,
    .linear = pgr_cpu_linear,
    .add_bias = pgr_cpu_add_bias,
    .context_split = pgr_cpu_context_split,
    .context_gather = pgr_cpu_context_gather,
    .router = pgr_cpu_router,
    .capacity = pgr_cpu_capacity,
};

/* The module's one symbol. C has one name space for types and objects, and `pgr_module` is the
 * type, so the object gets the name for the loader alone. */
extern const pgr_module cpu_module __asm__("pgr_module") __attribute__((visibility("default")));
const pgr_module cpu_module = {.abi = PGR_MODULE_ABI, .name = "cpu", .device = &cpu_ops};
