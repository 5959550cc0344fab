/* gpu_bench.h - shared by the parts of gpu_bench: what is measured on a GPU through the device
 * seam, cold in L2, with medians of device events, measured and baseline in turns.
 *
 * Cold: each call has operands of its own out of pools that are many times the L2, so that what it
 * reads was last touched that long ago. Nothing is written to flush the cache, since the dirty
 * lines would be written back on the measured call's time. */
#ifndef PGR_GPU_BENCH_H
#define PGR_GPU_BENCH_H

#include <stdio.h>

#include "comm.h"
#include "random.h"

enum {
    GPU_POOL_OF_L2 = 8,
    GPU_CALLS_MAX = 20,
    GPU_ROUNDS_MAX = 64,
    GPU_ACTIONS_MAX = 2,
    GPU_TORCH_MAX = 512
};

/* What CUDA says of GPU 0 (gpu_bench_bare.c). */
typedef struct gpu_facts {
    char name[128];
    int major, minor, sms;
    int64_t clock_hz; /* of the SMs, the highest; 0: not known */
    int64_t l2_bytes, memory_bytes;
    int driver, runtime, cublaslt; /* versions as CUDA writes them: 13000 */
} gpu_facts;

/* What PyTorch took for a case, by the case's key: "router/f32/256/8/0/0/65536/1". */
typedef struct gpu_torch {
    char key[80];
    double us;
} gpu_torch;

typedef struct gpu_bench {
    pgr_device *device;
    pgr_stream *stream;
    pgr_event *events[GPU_ROUNDS_MAX * GPU_ACTIONS_MAX * 2];
    FILE *json;    /* NULL: none */
    bool list;     /* prints the keys that PyTorch is asked for, and measures nothing */
    bool quick;    /* few shapes */
    bool tiny;     /* shapes that the stand-in for a GPU can do: numbers mean nothing */
    bool stand_in; /* it is one */
    double limit;  /* seconds, negative: none */
    double end;    /* pgr_clock_seconds() after which rows are left out; 0: never */
    int rounds;    /* of each measurement; the median of so many is taken */
    gpu_facts facts;
    double copy_rate;  /* bytes read and written per second by a large copy of this run */
    double issue_rate; /* warp instructions per second */
    pgr_linear_args ahead;
    int ahead_calls; /* see gpu_measure */
    gpu_torch torch[GPU_TORCH_MAX];
    int torch_count;
    int met, missed, skipped;
    int late; /* rounds in which the host had not enqueued all before the GPU came to it */
} gpu_bench;

/* Something to measure. `enqueue` puts call number i on the bench's stream; i never repeats within
 * a measurement, and says which operands to take. */
typedef struct gpu_action {
    pgr_status (*enqueue)(gpu_bench *bench, void *context, int64_t i, pgr_error *error);
    void *context;
    double us; /* out: the median of a call */
} gpu_action;

/* Measures the actions in turns. Where one cannot be done here (PGR_UNSUPPORTED, PGR_LIMIT), the
 * status and the reason, also where the program's time is over; any other error ends it.
 *
 * A round of an action is as many calls as take 100 us (at most GPU_CALLS_MAX) between two events.
 * Each round starts behind a product that keeps the GPU busy while the host enqueues all of it, so
 * that no time of the host's is in between. */
pgr_status gpu_measure(gpu_bench *bench, gpu_action *actions, int count, pgr_error *error);

/* Prepares what gpu_measure needs: the events and the product that it starts with. */
void gpu_measure_open(gpu_bench *bench);
void gpu_measure_close(gpu_bench *bench);

/* How many operands of so many bytes a pool must have for a call to find its own cold; at least
 * two. */
int64_t gpu_slots(const gpu_bench *bench, int64_t bytes);

/* Device memory; PGR_LIMIT where there is none left. gpu_free takes NULL. */
pgr_status gpu_alloc(gpu_bench *bench, int64_t bytes, void *out, pgr_error *error);
void gpu_free(gpu_bench *bench, void *memory);

/* Random values of the generator, [rows, cols]. */
pgr_status gpu_fill(gpu_bench *bench, void *out, const char *name, int64_t rows, int64_t cols,
                    pgr_dtype dtype, pgr_error *error);

/* Ends the program where `status` is an error. */
void gpu_must(pgr_status status, const pgr_error *error);

/* What PyTorch took, in microseconds, or NaN. */
double gpu_torch_us(const gpu_bench *bench, const char *key);

/* "met", "MISSED" or "-" where there is no aim (0) or the device is a stand-in; counts them. */
const char *gpu_aim(gpu_bench *bench, double ratio, double aim);

/* A row that could not be measured, with why; the message ends at its first line. */
void gpu_skip(gpu_bench *bench, const char *what, const pgr_error *error);

/* A number of a table: so wide, "-" where it is NaN. */
const char *gpu_number(double value, int width, int decimals);
/* The same for JSON: null where it is NaN. */
const char *gpu_json(double value);

/* The parts. */
void gpu_bench_router(gpu_bench *bench);
void gpu_bench_linear(gpu_bench *bench);
void gpu_bench_context(gpu_bench *bench);

/* ---- bare cuBLASLt (gpu_bench_bare.c, which alone sees CUDA) -------------------------------- */

pgr_status gpu_facts_read(gpu_facts *facts, pgr_error *error);

/* One call of cublasLtMatmul: y [m, n] = x [m, k] w^T [n, k] in bf16, accumulated in f32, with its
 * own bias and GELU where asked, the first algorithm that cuBLASLt proposes and 32 MiB of
 * workspace. */
typedef struct gpu_bare gpu_bare;
pgr_status gpu_bare_open(gpu_bench *bench, int64_t m, int64_t n, int64_t k, const void *bias,
                         bool gelu, gpu_bare **bare, pgr_error *error);
void gpu_bare_close(gpu_bench *bench, gpu_bare *bare);
pgr_status gpu_bare_run(gpu_bench *bench, gpu_bare *bare, const void *x, const void *w, void *y,
                        pgr_error *error);

#endif
