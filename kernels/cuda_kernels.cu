/* cuda_kernels.cu - the kernels: launches of cuda_body.h's threads. */
#include "cuda.h"

namespace {

constexpr int THREADS = 256;

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

unsigned blocks_for_tiles(int64_t bytes, int64_t tile_bytes, int most) {
    int64_t tiles = (bytes + tile_bytes - 1) / tile_bytes;
    return (unsigned)(tiles < most ? tiles : most);
}

__global__ void __launch_bounds__(THREADS) fill_kernel(pgr_fill_args args, float unit) {
    cuda_fill(&args, unit, lane_of_grid());
}

__global__ void __launch_bounds__(THREADS) add_bias_kernel(pgr_bias_args args) {
    cuda_add_bias(&args, lane_of_grid());
}

/* The tiles of a split or a gather, one after the other for each block. */
__device__ void move_tiles(const pgr_context_args *args, bool gather, int64_t bytes,
                           int64_t tile_bytes) {
    cuda_lane lane = {(int64_t)threadIdx.x, (int64_t)blockDim.x};
    for (int64_t tile = blockIdx.x; tile * tile_bytes < bytes; tile += gridDim.x)
        cuda_context_tile(args, gather, bytes, tile_bytes, tile, lane);
}

__global__ void __launch_bounds__(THREADS)
    split_kernel(pgr_context_args args, int64_t bytes, int64_t tile_bytes) {
    move_tiles(&args, false, bytes, tile_bytes);
}

__global__ void __launch_bounds__(THREADS)
    gather_kernel(pgr_context_args args, int64_t bytes, int64_t tile_bytes) {
    move_tiles(&args, true, bytes, tile_bytes);
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
    int64_t bytes = cuda_split_bytes(args), tile = cuda_context_tile_bytes(bytes, blocks);
    split_kernel<<<blocks_for_tiles(bytes, tile, blocks), THREADS, 0, stream>>>(*args, bytes, tile);
    return cudaGetLastError();
}

cudaError_t pgr_cuda_launch_gather(const pgr_context_args *args, int blocks, cudaStream_t stream) {
    int64_t bytes = cuda_gather_bytes(args), tile = cuda_context_tile_bytes(bytes, blocks);
    gather_kernel<<<blocks_for_tiles(bytes, tile, blocks), THREADS, 0, stream>>>(*args, bytes,
                                                                                 tile);
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
