/* cuda_capacity.cu - which routed tokens an expert keeps. By weight: four passes over 8 bits of the
 * weights' keys find each expert's threshold, the key of its last place. What is above it stays.
 * What is equal stays in the order of the tokens, as by position everything does: warps count each
 * expert's pairs of their chunks, the counts become counts of earlier pairs, and the warps go
 * through their chunks again in order. */
#include "cuda_capacity.h"
#include "cuda_launch.h"
#include "router.h"

namespace {

constexpr int THREADS = 256, WARP = 32, DIGITS = 256;
constexpr unsigned FULL = 0xffffffffu;

/* Orders weights as the CPU does, unsigned: -0 equals 0, NaN is the highest. */
__device__ uint32_t weight_key(float weight) {
    if (weight != weight)
        return 0xffffffffu;
    uint32_t bits = score_bits(weight + 0.0f);
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

/* A thread of the grid; all its threads together clear `count` words. */
__device__ int64_t thread_of_grid() {
    return (int64_t)blockIdx.x * THREADS + threadIdx.x;
}

__device__ void clear(unsigned long long *words, int64_t count) {
    for (int64_t i = thread_of_grid(); i < count; i += (int64_t)gridDim.x * THREADS)
        words[i] = 0;
}

/* At first every digit is possible and all places are free. */
__global__ void __launch_bounds__(THREADS) begin_kernel(const cuda_capacity a) {
    clear(a.ranks, a.chunks * a.args.experts);
    if (a.args.policy == PGR_DROP_PROBS)
        clear(a.digits, a.args.experts * DIGITS);
    for (int64_t e = thread_of_grid(); e < a.args.experts; e += (int64_t)gridDim.x * THREADS) {
        a.places[e] = a.args.capacity;
        if (a.args.policy == PGR_DROP_PROBS)
            a.threshold[e] = 0;
    }
}

/* Counts the digit at `shift` of the pairs whose higher digits are those of the threshold. */
__global__ void __launch_bounds__(THREADS) count_kernel(const cuda_capacity a, int shift) {
    for (int64_t i = thread_of_grid(); i < a.pairs; i += (int64_t)gridDim.x * THREADS) {
        int expert = a.args.indices[i];
        if (expert < 0)
            continue;
        uint32_t key = weight_key(a.args.weights[i]);
        if ((uint64_t)(key ^ a.threshold[expert]) >> (shift + 8) == 0)
            atomicAdd(&a.digits[(int64_t)expert * DIGITS + (key >> shift & 0xff)], 1ull);
    }
}

/* A warp per expert, eight digits to a lane, the highest first: the digit of the threshold is the
 * highest with which the places are taken; 0 where there are places for all. */
__global__ void __launch_bounds__(THREADS) digit_kernel(const cuda_capacity a, int shift) {
    constexpr int OWN = DIGITS / WARP;
    const int lane = (int)threadIdx.x % WARP;
    for (int64_t e = thread_of_grid() / WARP; e < a.args.experts;
         e += (int64_t)gridDim.x * THREADS / WARP) {
        unsigned long long *highest = &a.digits[e * DIGITS + DIGITS - 1 - lane * OWN];
        unsigned long long own[OWN], sum = 0;
        const int64_t places = a.places[e];
        for (int i = 0; i < OWN; i++) {
            own[i] = highest[-i];
            highest[-i] = 0;
            sum += own[i];
        }
        unsigned long long before = sum; /* pairs with higher digits */
        for (int o = 1; o < WARP; o *= 2) {
            unsigned long long higher = __shfl_up_sync(FULL, before, o, WARP);
            before += lane >= o ? higher : 0;
        }
        before -= sum;
        for (int i = 0; i < OWN; i++) {
            int digit = DIGITS - 1 - lane * OWN - i;
            if ((int64_t)before <= places && (digit == 0 || (int64_t)(before + own[i]) > places)) {
                a.threshold[e] |= (uint32_t)digit << shift;
                a.places[e] = places - (int64_t)before;
            }
            before += own[i];
        }
    }
}

/* What becomes of a pair: it stays, goes, or competes for a place. */
enum { GOES, STAYS, COMPETES };

__device__ int fate(const cuda_capacity &a, int64_t pair, int *expert) {
    *expert = pair < a.pairs ? a.args.indices[pair] : -1;
    if (*expert < 0)
        return GOES;
    if (a.args.policy != PGR_DROP_PROBS)
        return COMPETES;
    uint32_t key = weight_key(a.args.weights[pair]), threshold = a.threshold[*expert];
    return key > threshold ? STAYS : key == threshold ? COMPETES : GOES;
}

/* Goes through a warp's chunk in order. `mark` false: counts its competing pairs by expert; true:
 * gives them the places, the earliest first. Memory of a warp's own, so no atomics. */
__global__ void __launch_bounds__(THREADS) rank_kernel(const cuda_capacity a, bool mark) {
    const int lane = (int)threadIdx.x % WARP;
    const int64_t chunk = thread_of_grid() / WARP;
    if (chunk >= a.chunks)
        return;
    unsigned long long *ranks = a.ranks + chunk * a.args.experts;
    int64_t end = (chunk + 1) * a.chunk < a.pairs ? (chunk + 1) * a.chunk : a.pairs;
    for (int64_t at = chunk * a.chunk; at < end; at += WARP) {
        int64_t pair = at + lane;
        int expert;
        int found = pair < end ? fate(a, pair, &expert) : GOES;
        bool competes = found == COMPETES;
        unsigned peers = __match_any_sync(FULL, competes ? expert : -1 - lane);
        unsigned long long rank = competes ? ranks[expert] + __popc(peers & ((1u << lane) - 1)) : 0;
        __syncwarp();
        if (competes && peers >> lane == 1) /* the last of them */
            ranks[expert] = rank + 1;
        __syncwarp();
        if (mark && pair < end)
            a.args.kept[pair] = found == STAYS || (competes && (int64_t)rank < a.places[expert]);
    }
}

/* Counts become counts of earlier chunks. A thread per expert. */
__global__ void __launch_bounds__(THREADS) scan_kernel(const cuda_capacity a) {
    for (int64_t e = thread_of_grid(); e < a.args.experts; e += (int64_t)gridDim.x * THREADS) {
        unsigned long long before = 0;
        for (int64_t c = 0; c < a.chunks; c++) {
            unsigned long long *at = &a.ranks[c * a.args.experts + e], own = *at;
            *at = before;
            before += own;
        }
    }
}

unsigned blocks_for(int64_t work, int64_t most) {
    int64_t wanted = (work + THREADS - 1) / THREADS;
    return (unsigned)(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

} // namespace

cudaError_t pgr_cuda_launch_capacity(const cuda_capacity *a, cudaStream_t stream) {
    constexpr int64_t MOST = 65535;
    const int64_t words = (a->chunks + DIGITS) * a->args.experts;
    unsigned experts = blocks_for(a->args.experts * WARP, MOST);
    cudaError_t code = CUDA_LAUNCH(begin_kernel, blocks_for(words, MOST), THREADS, stream, *a);
    for (int shift = 24; a->args.policy == PGR_DROP_PROBS && shift >= 0 && code == cudaSuccess;
         shift -= 8) {
        code = CUDA_LAUNCH(count_kernel, blocks_for(a->pairs, MOST), THREADS, stream, *a, shift);
        if (code == cudaSuccess)
            code = CUDA_LAUNCH(digit_kernel, experts, THREADS, stream, *a, shift);
    }
    unsigned chunks = (unsigned)((a->chunks * WARP + THREADS - 1) / THREADS);
    if (code == cudaSuccess)
        code = CUDA_LAUNCH(rank_kernel, chunks, THREADS, stream, *a, false);
    if (code == cudaSuccess)
        code = CUDA_LAUNCH(scan_kernel, blocks_for(a->args.experts, MOST), THREADS, stream, *a);
    if (code == cudaSuccess)
        code = CUDA_LAUNCH(rank_kernel, chunks, THREADS, stream, *a, true);
    return code;
}
