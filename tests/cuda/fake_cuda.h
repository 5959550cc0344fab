/* fake_cuda.h - what the stand-ins of CUDA, cuBLASLt and NCCL share. */
#ifndef PGR_FAKE_CUDA_H
#define PGR_FAKE_CUDA_H

#include "cuda.h"

enum { PGR_FAKE_MULTIPROCESSORS = 4 };

/* Whether this call is the one that PGRUN_FAKE_FAIL wants to fail. */
bool pgr_fake_cuda_faulty(const char *call);

/* Calls `step` in the stream's order, device memory open, until it returns true. The stand-in of
 * NCCL finds it by name. */
void pgr_fake_cuda_enqueue(cudaStream_t stream, bool (*step)(void *), void *context);

#endif
