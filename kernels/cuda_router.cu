/* cuda_router.cu - the router's kernels for softmax over all experts, and the launch of all. */
#include "cuda_router_kernel.h"

cudaError_t pgr_cuda_launch_router(const cuda_router *a, cudaStream_t stream) {
    if (a->mode == CUDA_ROUTER_ANY)
        return pgr_cuda_launch_router_any(a, stream);
    return a->mode == CUDA_ROUTER_SUMMED ? launch_mode<SUMMED>(a, stream)
                                         : launch_mode<PLAIN>(a, stream);
}
