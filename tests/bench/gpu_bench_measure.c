/* gpu_bench_measure.c - how a call on a GPU is timed, and where its operands are. */
#include "gpu_bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { AHEAD_MN = 256, AHEAD_K = 8192 };

static const double round_us = 100, ahead_us = 600;

void gpu_must(pgr_status status, const pgr_error *error) {
    if (status == PGR_OK)
        return;
    fprintf(stderr, "gpu_bench: error: %s\n", error->message);
    exit(3);
}

/* ---- memory -------------------------------------------------------------------------------- */

int64_t gpu_slots(const gpu_bench *bench, int64_t bytes) {
    int64_t pool = GPU_POOL_OF_L2 * bench->facts.l2_bytes;
    int64_t slots = bytes > 0 ? (pool + bytes - 1) / bytes : 1;
    return slots > 2 ? slots : 2;
}

pgr_status gpu_alloc(gpu_bench *bench, int64_t bytes, void *out, pgr_error *error) {
    void *made;
    pgr_status status =
        bench->device->ops->alloc(bench->device, PGR_MEMORY_DEVICE, bytes, &made, error);
    if (status == PGR_OK)
        memcpy(out, &made, sizeof made);
    return status;
}

void gpu_free(gpu_bench *bench, void *memory) {
    if (memory)
        bench->device->ops->free(bench->device, PGR_MEMORY_DEVICE, memory);
}

pgr_status gpu_fill(gpu_bench *bench, void *out, const char *name, int64_t rows, int64_t cols,
                    pgr_dtype dtype, pgr_error *error) {
    pgr_fill_args fill = {.out = out,
                          .dtype = dtype,
                          .rows = rows,
                          .cols = cols,
                          .ld = cols,
                          .random = {1, pgr_random_tensor(name), 1},
                          .row_stride = cols};
    return bench->device->ops->fill(bench->device, &fill, bench->stream, error);
}

/* ---- time ---------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* `calls` calls between two events; the numbers from *next on. */
static pgr_status enqueue(gpu_bench *bench, gpu_action *action, int calls, int64_t *next,
                          pgr_event **events, pgr_error *error) {
    const pgr_device_ops *ops = bench->device->ops;
    pgr_status status = ops->event_record(bench->device, events[0], bench->stream, error);
    for (int c = 0; c < calls && status == PGR_OK; c++)
        status = action->enqueue(bench, action->context, (*next)++, error);
    if (status == PGR_OK)
        status = ops->event_record(bench->device, events[1], bench->stream, error);
    return status;
}

static pgr_status elapsed_us(gpu_bench *bench, pgr_event **events, double *us, pgr_error *error) {
    double seconds;
    pgr_status status =
        bench->device->ops->event_elapsed(bench->device, events[0], events[1], &seconds, error);
    if (status == PGR_OK)
        *us = 1e6 * seconds;
    return status;
}

static pgr_status keep_busy(gpu_bench *bench, pgr_error *error) {
    pgr_status status = PGR_OK;
    for (int i = 0; i < bench->ahead_calls && status == PGR_OK; i++)
        status = bench->device->ops->linear(bench->device, &bench->ahead, bench->stream, error);
    return status;
}

/* Twice, so that what is made at the first call is there; then the calls of a round. */
static pgr_status warm_up(gpu_bench *bench, gpu_action *action, int64_t *next, int *calls,
                          pgr_error *error) {
    double us = 0;
    for (int i = 0; i < 3; i++) {
        pgr_status status = keep_busy(bench, error);
        if (status == PGR_OK)
            status = enqueue(bench, action, 1, next, bench->events, error);
        if (status == PGR_OK)
            status = bench->device->ops->stream_sync(bench->device, bench->stream, error);
        if (status == PGR_OK)
            status = elapsed_us(bench, bench->events, &us, error);
        if (status != PGR_OK)
            return status;
    }
    double wanted = us > 0 ? ceil(round_us / us) : 1;
    *calls = bench->tiny              ? 2
             : wanted < 1             ? 1
             : wanted > GPU_CALLS_MAX ? GPU_CALLS_MAX
                                      : (int)wanted;
    return PGR_OK;
}

static pgr_status run_rounds(gpu_bench *bench, gpu_action *actions, int count, const int *calls,
                             int64_t *next, pgr_error *error) {
    pgr_status status = PGR_OK;
    for (int round = 0; round < bench->rounds && status == PGR_OK; round++) {
        status = keep_busy(bench, error);
        for (int a = 0; a < count && status == PGR_OK; a++)
            status = enqueue(bench, &actions[a], calls[a], next,
                             &bench->events[2 * (round * count + a)], error);
        /* The first event is behind the product: where it is done, the host came late. */
        bool late = false;
        if (status == PGR_OK)
            status = bench->device->ops->event_query(
                bench->device, bench->events[2 * round * count], &late, error);
        bench->late += status == PGR_OK && late;
    }
    if (status == PGR_OK)
        status = bench->device->ops->stream_sync(bench->device, bench->stream, error);
    return status;
}

static pgr_status measure(gpu_bench *bench, gpu_action *actions, int count, pgr_error *error) {
    int calls[GPU_ACTIONS_MAX];
    int64_t next = 0;
    if (bench->end > 0 && pgr_clock_seconds() > bench->end)
        return pgr_error_set(error, PGR_LIMIT, "the time of --limit is over");
    pgr_status status = PGR_OK;
    for (int a = 0; a < count && status == PGR_OK; a++)
        status = warm_up(bench, &actions[a], &next, &calls[a], error);
    if (status == PGR_OK)
        status = run_rounds(bench, actions, count, calls, &next, error);
    for (int a = 0; a < count && status == PGR_OK; a++) {
        double us[GPU_ROUNDS_MAX];
        for (int round = 0; round < bench->rounds && status == PGR_OK; round++)
            status = elapsed_us(bench, &bench->events[2 * (round * count + a)], &us[round], error);
        if (status != PGR_OK)
            break;
        qsort(us, (size_t)bench->rounds, sizeof *us, compare);
        actions[a].us = us[bench->rounds / 2] / calls[a];
    }
    return status;
}

pgr_status gpu_measure(gpu_bench *bench, gpu_action *actions, int count, pgr_error *error) {
    pgr_status status = measure(bench, actions, count, error);
    if (status != PGR_UNSUPPORTED && status != PGR_LIMIT)
        gpu_must(status, error);
    return status;
}

/* The product that keeps the GPU busy: few blocks, a long sum, operands that leave the L2 clean. */
void gpu_measure_open(gpu_bench *bench) {
    pgr_error error;
    float *x, *w, *y;
    int64_t mn = bench->tiny ? 8 : AHEAD_MN, k = bench->tiny ? 8 : AHEAD_K;
    int events = (int)(sizeof bench->events / sizeof *bench->events);
    for (int i = 0; i < events; i++)
        gpu_must(bench->device->ops->event_create(bench->device, &bench->events[i], &error),
                 &error);
    gpu_must(gpu_alloc(bench, mn * k * 4, &x, &error), &error);
    gpu_must(gpu_alloc(bench, mn * k * 4, &w, &error), &error);
    gpu_must(gpu_alloc(bench, mn * mn * 4, &y, &error), &error);
    gpu_must(gpu_fill(bench, x, "x", mn, k, PGR_F32, &error), &error);
    gpu_must(gpu_fill(bench, w, "w", mn, k, PGR_F32, &error), &error);
    bench->ahead = (pgr_linear_args){.x = x,
                                     .w = w,
                                     .y = y,
                                     .m = mn,
                                     .n = mn,
                                     .k = k,
                                     .ldx = k,
                                     .ldw = k,
                                     .ldy = mn,
                                     .activation = PGR_NO_ACTIVATION};
    double us = ahead_us;
    bench->ahead_calls = 1;
    for (int i = 0; i < 3; i++) {
        const pgr_device_ops *ops = bench->device->ops;
        gpu_must(ops->event_record(bench->device, bench->events[0], bench->stream, &error), &error);
        gpu_must(keep_busy(bench, &error), &error);
        gpu_must(ops->event_record(bench->device, bench->events[1], bench->stream, &error), &error);
        gpu_must(ops->stream_sync(bench->device, bench->stream, &error), &error);
        gpu_must(elapsed_us(bench, bench->events, &us, &error), &error);
    }
    if (!bench->tiny && us > 0)
        bench->ahead_calls = (int)fmin(fmax(ceil(ahead_us / us), 1), 100);
}

void gpu_measure_close(gpu_bench *bench) {
    int events = (int)(sizeof bench->events / sizeof *bench->events);
    gpu_free(bench, (void *)bench->ahead.x);
    gpu_free(bench, (void *)bench->ahead.w);
    gpu_free(bench, bench->ahead.y);
    for (int i = 0; i < events; i++)
        bench->device->ops->event_free(bench->device, bench->events[i]);
}

/* ---- rows ---------------------------------------------------------------------------------- */

double gpu_torch_us(const gpu_bench *bench, const char *key) {
    for (int i = 0; i < bench->torch_count; i++)
        if (strcmp(bench->torch[i].key, key) == 0)
            return bench->torch[i].us;
    return NAN;
}

const char *gpu_aim(gpu_bench *bench, double ratio, double aim) {
    if (bench->stand_in || aim <= 0)
        return "-";
    bench->met += ratio >= aim;
    bench->missed += !(ratio >= aim);
    return ratio >= aim ? "met" : "MISSED";
}

void gpu_skip(gpu_bench *bench, const char *what, const pgr_error *error) {
    int length = (int)strcspn(error->message, "\n");
    printf("%s  skip (%.*s)\n", what, length, error->message);
    fflush(stdout);
    bench->skipped++;
}

/* Text that lives as long as a line needs it. */
static char *line_text(void) {
    static char texts[32][32];
    static int next;
    next = (next + 1) % 32;
    return texts[next];
}

const char *gpu_number(double value, int width, int decimals) {
    char *text = line_text();
    if (isnan(value))
        snprintf(text, 32, "%*s", width, "-");
    else
        snprintf(text, 32, "%*.*f", width, decimals, value);
    return text;
}

const char *gpu_json(double value) {
    char *text = line_text();
    if (isnan(value))
        snprintf(text, 32, "null");
    else
        snprintf(text, 32, "%.6g", value);
    return text;
}
