/* simt_test good|missing|other - what simt.h does with a kernel whose threads meet, with one where
 * a thread has ended, and with one where threads come to different places: the last two end with a
 * message (the tests look for it), not with a hang. */
#include "simt.h"

#include "cuda_launch.h"

#include <stdio.h>

cudaError_t pgr_fake_cuda_launch(cudaStream_t stream, bool (*step)(void *), void *context) {
    (void)stream;
    return step(context) ? cudaSuccess : cudaErrorLaunchFailure;
}

namespace {

constexpr unsigned FULL = 0xffffffffu;

__global__ void good(int *out) {
    __shared__ int parts[2];
    int lane = (int)threadIdx.x % 32, sum = (int)threadIdx.x + (int)blockIdx.x;
    for (int o = 16; o > 0; o /= 2)
        sum += __shfl_xor_sync(FULL, sum, o);
    bool same = __reduce_max_sync(FULL, lane - 40) == -9 && __ballot_sync(FULL, lane < 3) == 7;
    int before = __shfl_up_sync(FULL, lane, 3, 8), first = __shfl_sync(FULL, lane, 0, 16);
    same = same && before == (lane % 8 < 3 ? lane : lane - 3) && first == lane / 16 * 16;
    same = same && __match_any_sync(FULL, lane % 4) == 0x11111111u << lane % 4;
    if (lane == 0)
        parts[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0)
        atomicAdd(out, parts[0] + parts[1]);
    if (!same)
        atomicAdd(out, 1000000);
}

__global__ void missing(int *out) {
    if (threadIdx.x == 35)
        return;
    *out = __shfl_xor_sync(FULL, *out, 1);
}

__global__ void other(int *out) {
    if (threadIdx.x == 3)
        __syncwarp();
    *out = __shfl_xor_sync(FULL, *out, 1);
}

} // namespace

int main(int count, char **words) {
    int out = 0;
    if (count > 1 && strcmp(words[1], "missing") == 0)
        (void)CUDA_LAUNCH(missing, 1, 64, NULL, &out);
    else if (count > 1 && strcmp(words[1], "other") == 0)
        (void)CUDA_LAUNCH(other, 1, 32, NULL, &out);
    else
        (void)CUDA_LAUNCH(good, 3, 64, NULL, &out);
    printf("%d\n", out);
    return out != 3 * 63 * 32 + 64 * 3;
}
