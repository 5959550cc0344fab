/* cuda_queue.h - the CUDA stream behind a pgr_stream, for NCCL. */
#ifndef PGR_CUDA_QUEUE_H
#define PGR_CUDA_QUEUE_H

#include <cuda_runtime_api.h>

#include "device.h"

/* Makes the device current in the calling thread, as NCCL's calls want it, and gives the CUDA
 * stream of `stream` (NULL: the device's main one). */
pgr_status pgr_cuda_queue(pgr_device *device, pgr_stream *stream, cudaStream_t *queue,
                          pgr_error *error);

/* Waits until the device has done all that was enqueued; says nothing of errors. */
void pgr_cuda_idle(pgr_device *device);

#endif
