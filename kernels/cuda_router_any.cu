/* cuda_router_any.cu - the router's kernels for all scores, with expert bias and groups. */
#include "cuda_router_kernel.h"

cudaError_t pgr_cuda_launch_router_any(const cuda_router *a, cudaStream_t stream) {
    return launch_mode<ANY>(a, stream);
}
