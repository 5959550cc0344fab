/* cuda.h - private to the CUDA module: its device, how calls are checked, its kernels' launches. */
#ifndef PGR_CUDA_H
#define PGR_CUDA_H

#include <cuda_runtime_api.h>

#include "cuda_body.h"
#include "cuda_context.h"
#include "cuda_host.h"
#include "device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PGR_CUDA_OUTGROWN = 128 };

/* A queue, and the memory that products on it use: two streams never share any. */
struct pgr_stream {
    cudaStream_t stream;
    void *workspace; /* of cuBLASLt; NULL until the first product */
    void *scratch;   /* what one operation leaves for its next step; grown on demand */
    int64_t scratch_bytes;
    void *cells; /* of the router: zero between its calls; grown on demand */
    int64_t cells_bytes;
    void *outgrown[PGR_CUDA_OUTGROWN]; /* smaller pieces: what is under way may still use them */
    int outgrown_count;
};

struct pgr_event {
    cudaEvent_t event;
    bool recorded;
};

struct cuda_products; /* cuBLASLt's handle and the algorithms found so far: cuda_linear.c */

typedef struct cuda_device {
    pgr_device base;
    int index;           /* among the visible GPUs */
    int64_t rank;        /* of the job, for messages */
    char host[64];       /* the same */
    char model[64];      /* "NVIDIA H100 80GB HBM3" */
    int units;           /* SMs */
    int blocks;          /* thread blocks that fill the GPU: SMs times 8 */
    int least, greatest; /* stream priorities */
    pgr_stream main;     /* what a NULL stream means */
    struct cuda_products *products;
} cuda_device;

/* PGR_OK for cudaSuccess; else PGR_LIMIT (no memory) or PGR_BACKEND with rank, host, the call as
 * the format gives it, the code's name and its text. */
pgr_status pgr_cuda_check(const cuda_device *cuda, cudaError_t code, pgr_error *error,
                          const char *format, ...) PGR_PRINTF(4, 5);

/* Makes the device current in the calling thread, as every call must; and what a stream means. */
pgr_status pgr_cuda_enter(pgr_device *device, pgr_stream *stream, cuda_device **cuda,
                          pgr_stream **used, pgr_error *error);

/* Opens and closes cuBLASLt. close takes NULL. */
pgr_status pgr_cuda_products_open(cuda_device *cuda, pgr_error *error);
void pgr_cuda_products_close(cuda_device *cuda);

/* Named ranges of the host's time for NVIDIA's profilers (NVTX), in the domain "pgrun":
 * cuda_nvtx.c. Nothing where the module was built without its header. */
void pgr_cuda_range_begin(pgr_device *device, const char *name);
void pgr_cuda_range_end(pgr_device *device);

/* The kernels of pgr_device_ops. */
pgr_status pgr_cuda_fill(pgr_device *device, const pgr_fill_args *args, pgr_stream *stream,
                         pgr_error *error);
pgr_status pgr_cuda_linear(pgr_device *device, const pgr_linear_args *args, pgr_stream *stream,
                           pgr_error *error);
pgr_status pgr_cuda_add_bias(pgr_device *device, const pgr_bias_args *args, pgr_stream *stream,
                             pgr_error *error);
pgr_status pgr_cuda_context_split(pgr_device *device, const pgr_context_args *args,
                                  pgr_stream *stream, pgr_error *error);
pgr_status pgr_cuda_context_gather(pgr_device *device, const pgr_context_args *args,
                                   pgr_stream *stream, pgr_error *error);
pgr_status pgr_cuda_router(pgr_device *device, const pgr_router_args *args, pgr_stream *stream,
                           pgr_error *error);
pgr_status pgr_cuda_capacity(pgr_device *device, const pgr_capacity_args *args, pgr_stream *stream,
                             pgr_error *error);

/* Makes *memory of a stream, which has *held bytes, `bytes` at least; what it held is lost where it
 * grows, to a power of two. Waits for nothing, since what is under way may wait for another rank
 * that never comes: smaller pieces stay until the stream ends. */
pgr_status pgr_cuda_grow(const cuda_device *cuda, pgr_stream *stream, void **memory, int64_t *held,
                         int64_t bytes, const char *what, pgr_error *error);

/* Launches (cuda_kernels.cu), with at most `blocks` thread blocks where work is divided in a loop;
 * the code of the launch alone. */
cudaError_t pgr_cuda_launch_fill(const pgr_fill_args *args, float unit, int blocks,
                                 cudaStream_t stream);
cudaError_t pgr_cuda_launch_add_bias(const pgr_bias_args *args, int blocks, cudaStream_t stream);
cudaError_t pgr_cuda_launch_split(const pgr_context_args *args, int blocks, cudaStream_t stream);
cudaError_t pgr_cuda_launch_gather(const pgr_context_args *args, int blocks, cudaStream_t stream);
cudaError_t pgr_cuda_launch_product(const cuda_epilogue *args, int blocks, cudaStream_t stream);
cudaError_t pgr_cuda_launch_epilogue(const cuda_epilogue *args, int blocks, cudaStream_t stream);

/* cuda_router.cu, cuda_router_any.cu, cuda_capacity.cu */
struct cuda_router;
struct cuda_capacity;
cudaError_t pgr_cuda_launch_router(const struct cuda_router *args, cudaStream_t stream);
cudaError_t pgr_cuda_launch_router_any(const struct cuda_router *args, cudaStream_t stream);
cudaError_t pgr_cuda_launch_capacity(const struct cuda_capacity *args, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
