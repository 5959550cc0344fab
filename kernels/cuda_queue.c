/* cuda_queue.c - see cuda_queue.h. */
#include "cuda_queue.h"

#include "cuda.h"

pgr_status pgr_cuda_queue(pgr_device *device, pgr_stream *stream, cudaStream_t *queue,
                          pgr_error *error) {
    cuda_device *cuda;
    pgr_stream *used;
    pgr_status status = pgr_cuda_enter(device, stream, &cuda, &used, error);
    if (status == PGR_OK)
        *queue = used->stream;
    return status;
}

void pgr_cuda_idle(pgr_device *device) {
    cuda_device *cuda;
    pgr_stream *stream = NULL;
    if (pgr_cuda_enter(device, NULL, &cuda, &stream, NULL) == PGR_OK)
        (void)cudaDeviceSynchronize();
}
