/* bench.h - shared by the CPU benchmarks: medians of many, measured and baseline alternating in one
 * loop, so that both see the same machine. */
#ifndef PGR_BENCH_H
#define PGR_BENCH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm.h"
#include "random.h"

enum { BENCH_MAX = 1000 };

extern const pgr_module cpu_module __asm__("pgr_module");

/* Seconds of each round, for the measured form and its baselines. */
typedef struct bench_times {
    double seconds[BENCH_MAX];
    int count;
} bench_times;

static inline int bench_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static inline void bench_add(bench_times *times, double seconds) {
    if (times->count < BENCH_MAX)
        times->seconds[times->count++] = seconds;
}

static inline double bench_median(bench_times *times) {
    qsort(times->seconds, (size_t)times->count, sizeof(double), bench_compare);
    return times->count ? times->seconds[times->count / 2] : 0;
}

/* Device memory, or the end of the benchmark. */
static inline void *bench_alloc(pgr_device *device, int64_t bytes) {
    void *out;
    pgr_error error;
    if (device->ops->alloc(device, PGR_MEMORY_DEVICE, bytes, &out, &error) != PGR_OK) {
        fprintf(stderr, "%s\n", error.message);
        exit(3);
    }
    memset(out, 0, (size_t)bytes);
    return out;
}

static inline void bench_fill(pgr_device *device, void *out, const char *name, int64_t rows,
                              int64_t cols, pgr_dtype dtype, int exponent) {
    pgr_error error;
    pgr_fill_args fill = {.out = out,
                          .dtype = dtype,
                          .rows = rows,
                          .cols = cols,
                          .ld = cols,
                          .random = {1, pgr_random_tensor(name), exponent},
                          .row_stride = cols};
    device->ops->fill(device, &fill, NULL, &error);
}

static inline pgr_device *bench_open(int threads) {
    pgr_device *device;
    pgr_error error;
    pgr_device_open_args args = {.local_size = 1, .threads = threads};
    if (cpu_module.device->open(&args, &device, &error) != PGR_OK) {
        fprintf(stderr, "%s\n", error.message);
        exit(3);
    }
    return device;
}

#endif
