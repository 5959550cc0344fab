/* cuda_kernels.cu - the kernels: launches of cuda_body.h's threads. */
#include "cuda.h"

namespace {

constexpr int THREADS = 256;
constexpr int64_t RANGES_MOST = 65535; /* of a grid's second dimension */

__device__ cuda_lane lane_of_grid() {
    cuda_lane lane;
    lane.index = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    lane.count = (int64_t)gridDim.x * blockDim.x;
    return lane;
}

/* Blocks for `work` items: no more than there are items, nor than fill the GPU. */
unsigned blocks_for(int64_t work, int most) {
    int64_t wanted = (work + THREADS - 1) / THREADS;
    return (unsigned)(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

__global__ void __launch_bounds__(THREADS) fill_kernel(pgr_fill_args args, float unit) {
    cuda_fill(&args, unit, lane_of_grid());
}

__global__ void __launch_bounds__(THREADS) add_bias_kernel(pgr_bias_args args) {
    cuda_add_bias(&args, lane_of_grid());
}

__global__ void __launch_bounds__(THREADS) split_kernel(pgr_context_args args) {
    cuda_range range = cuda_split_range(&args, (int)blockIdx.y);
    cuda_range_move(&range, lane_of_grid());
}

__global__ void __launch_bounds__(THREADS) gather_kernel(pgr_context_args args, int64_t ranges) {
    for (int64_t i = blockIdx.y; i < ranges; i += gridDim.y) {
        cuda_range range = cuda_gather_range(&args, i);
        cuda_range_move(&range, lane_of_grid());
    }
}

__global__ void __launch_bounds__(THREADS) product_kernel(cuda_epilogue args) {
    cuda_product(&args, lane_of_grid());
}

__global__ void __launch_bounds__(THREADS) epilogue_kernel(cuda_epilogue args) {
    cuda_epilogue_apply(&args, lane_of_grid());
}

} // namespace

cudaError_t pgr_cuda_launch_fill(const pgr_fill_args *args, float unit, int blocks,
                                 cudaStream_t stream) {
    int64_t work = args->rows * cuda_fill_blocks(args->cols);
    fill_kernel<<<blocks_for(work, blocks), THREADS, 0, stream>>>(*args, unit);
    return cudaGetLastError();
}

cudaError_t pgr_cuda_launch_add_bias(const pgr_bias_args *args, int blocks, cudaStream_t stream) {
    add_bias_kernel<<<blocks_for(args->rows * args->cols, blocks), THREADS, 0, stream>>>(*args);
    return cudaGetLastError();
}

cudaError_t pgr_cuda_launch_split(const pgr_context_args *args, int blocks, cudaStream_t stream) {
    unsigned chunks = args->cp == 1 ? 1 : 2;
    int64_t work = args->local_rows * args->row_bytes / 16 / chunks + 1;
    dim3 grid(blocks_for(work, blocks), chunks);
    split_kernel<<<grid, THREADS, 0, stream>>>(*args);
    return cudaGetLastError();
}

cudaError_t pgr_cuda_launch_gather(const pgr_context_args *args, int blocks, cudaStream_t stream) {
    int64_t ranges = args->cp == 1 ? 1 : 2 * args->cp;
    int64_t rows = ranges < RANGES_MOST ? ranges : RANGES_MOST;
    int64_t work = args->seq_len * args->row_bytes / 16 / ranges + 1;
    int most = (int)(blocks / rows);
    dim3 grid(blocks_for(work, most > 4 ? most : 4), (unsigned)rows);
    gather_kernel<<<grid, THREADS, 0, stream>>>(*args, ranges);
    return cudaGetLastError();
}

cudaError_t pgr_cuda_launch_product(const cuda_epilogue *args, int blocks, cudaStream_t stream) {
    int64_t work = cuda_epilogue_rows(args) * args->linear.n;
    product_kernel<<<blocks_for(work, blocks), THREADS, 0, stream>>>(*args);
    return cudaGetLastError();
}

cudaError_t pgr_cuda_launch_epilogue(const cuda_epilogue *args, int blocks, cudaStream_t stream) {
    int64_t work = cuda_epilogue_rows(args) * args->linear.n;
    epilogue_kernel<<<blocks_for(work, blocks), THREADS, 0, stream>>>(*args);
    return cudaGetLastError();
}
