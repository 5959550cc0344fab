/* cpu.h - private to the CPU module: its device, its kernels, and how they are compiled for more
 * than one instruction set. */
#ifndef PGR_CPU_H
#define PGR_CPU_H

#include "device.h"

/* A loop marked PGR_CLONES is compiled for AVX-512, AVX2 and the baseline, and the loader picks the
 * one that the machine has, so that one binary is both portable and fast. Sanitizers start after
 * the loader, so they get the baseline alone. */
#if defined(__x86_64__) && defined(__ELF__) && defined(__GNUC__) && !defined(__clang__) &&         \
    __GNUC__ >= 12 && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PGR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PGR_CLONES
#endif

/* Pieces of a PGR_CLONES function must end up inside it to be compiled for its instruction set. */
#define PGR_INLINE static inline __attribute__((always_inline))

/* Scratch memory that a device keeps between calls, one area per use; grown on demand. */
typedef enum cpu_scratch {
    CPU_SCRATCH_X,
    CPU_SCRATCH_W,
    CPU_SCRATCH_Z,
    CPU_SCRATCH_ROUTER,
    CPU_SCRATCH_TILE,
    CPU_SCRATCHES
} cpu_scratch;

typedef struct cpu_device {
    pgr_device base;
    struct {
        void *memory;
        int64_t bytes;
    } scratch[CPU_SCRATCHES];
} cpu_device;

/* At least `bytes` of scratch, aligned to 64 bytes, content undefined; valid until the next call
 * for the same area. PGR_LIMIT where there is no memory. */
pgr_status pgr_cpu_scratch(pgr_device *device, cpu_scratch area, int64_t bytes, void **out,
                           pgr_error *error);

/* The kernels of pgr_device_ops. */
pgr_status pgr_cpu_fill(pgr_device *device, const pgr_fill_args *args, pgr_stream *stream,
                        pgr_error *error);
pgr_status pgr_cpu_linear(pgr_device *device, const pgr_linear_args *args, pgr_stream *stream,
                          pgr_error *error);
pgr_status pgr_cpu_add_bias(pgr_device *device, const pgr_bias_args *args, pgr_stream *stream,
                            pgr_error *error);
pgr_status pgr_cpu_context_split(pgr_device *device, const pgr_context_args *args,
                                 pgr_stream *stream, pgr_error *error);
pgr_status pgr_cpu_context_gather(pgr_device *device, const pgr_context_args *args,
                                  pgr_stream *stream, pgr_error *error);
pgr_status pgr_cpu_router(pgr_device *device, const pgr_router_args *args, pgr_stream *stream,
                          pgr_error *error);
pgr_status pgr_cpu_capacity(pgr_device *device, const pgr_capacity_args *args, pgr_stream *stream,
                            pgr_error *error);

#endif
