/* cuda_router_kernel.h - the router as one kernel: logits are read once, experts stay in registers,
 * and only choices, weights and sums are written. Warps go through the tokens of a sequence in a
 * fixed order and load the next ones as soon as these are ranked. Counts are kept in shared memory
 * and go to the cells once per block; sums of scores go the same way, as fixed-point integers; the
 * last block of a sequence (of all) moves its cells to the outputs and leaves zeros. Two files have
 * its instances, so that they compile side by side. */
#ifndef PGR_CUDA_ROUTER_KERNEL_H
#define PGR_CUDA_ROUTER_KERNEL_H

#include "cuda_launch.h"
#include "cuda_router_rank.h"

namespace {

/* ---- what is written ----------------------------------------------------------------------- */

/* A chosen expert's weight before it is normalised. */
__device__ __forceinline__ float weight_of(const cuda_router &a, bool softmax, float x, float max) {
    return softmax ? score_exp_below(x - max) : score_of(a.args.score, x);
}

/* What a token's weights, which add up to `sum`, are multiplied by. */
template <int MODE>
__device__ __forceinline__ float scale_of(const cuda_router &a, bool softmax, float sum,
                                          float total) {
    if (softmax) /* 1 at least, or NaN */
        return score_reciprocal(a.args.pre_softmax ? total : sum) * a.scaling;
    return a.args.topk > 1 ? 1.0f / (sum + 1e-20f) * a.scaling : a.scaling;
}

/* `live`: the token is not padding, which has no experts. */
__device__ __forceinline__ void put(const cuda_router &a, int64_t at, bool live, int expert,
                                    float weight, unsigned *counts) {
    a.args.indices[at] = live ? expert : -1;
    a.args.weights[at] = live ? weight : 0.0f;
    if (live)
        atomicAdd(&counts[expert], 1u);
}

/* Indices, weights and counts of the `token`-th token, whose experts are in `picks`. */
template <int L, int MODE>
__device__ __forceinline__ void write(const cuda_router &a, const place &p, int64_t token,
                                      bool live, float max, float total, const uint16_t *picks,
                                      float *weights, unsigned *counts) {
    const int k = (int)a.args.topk;
    const bool softmax = MODE != ANY || a.args.score == PGR_SOFTMAX;
    const bool there = token < a.args.tokens;
    const int64_t from = token * (uint32_t)a.args.experts, to = token * (uint32_t)k;
    if (L > 1 && k <= L) { /* a lane has one choice at most */
        const bool mine = there && p.sub < k;
        int expert = 0;
        float weight = 0;
        if (mine && live) {
            expert = picks[p.sub];
            weight = weight_of(a, softmax, logit(a, from + expert), max);
        }
        weight *= scale_of<MODE>(a, softmax, group_sum<L>(weight), total);
        if (mine)
            put(a, to + p.sub, live, expert, weight, counts);
        return;
    }
    float sum = 0;
    for (int j = p.sub; live && j < k; j += L) {
        float weight = weight_of(a, softmax, logit(a, from + picks[j]), max);
        weights[j] = weight;
        sum += weight;
    }
    float scale = scale_of<MODE>(a, softmax, group_sum<L>(sum), total);
    for (int j = p.sub; there && j < k; j += L)
        put(a, to + j, live, picks[j], weights[j] * scale, counts);
}

/* One token per L lanes, `live` where it is there and no padding. `fetch` loads the next ones'
 * logits to `raw`, when these are ranked. */
template <int L, int V, int MODE, class F>
__device__ __forceinline__ void route(const cuda_router &a, const place &p, int64_t token,
                                      bool live, const uint32_t (&raw)[V], F fetch,
                                      partial<V> &sums, block_memory<L, V> &memory) {
    ranking<V, depth<L, MODE>> r;
    const int k = (int)a.args.topk;
    uint16_t *picks = memory.picks[p.warp] + p.slot * k;
    float *weights = memory.weights[p.warp];
    float x[V];
    widen(a, raw, x);
    r.total = 1;
    if constexpr (MODE == ANY) {
        rank_any<L>(a, p, live, x, r, sums, memory.aux_counts);
        best_of(r.key, r.best);
        if (a.grouped)
            limit_groups<L>(a, p, x, r, (int *)weights, memory.picks[p.warp]);
        r.top = group_max<L>(r.best[0]);
        if (a.args.score == PGR_SOFTMAX && !a.args.pre_softmax)
            r.max = value_of(r.top, a.tagged);
    } else {
        keys_of(x, a.tagged, p.first, r.key);
        best_of(r.key, r.best);
        r.top = group_max<L>(r.best[0]);
        r.max = value_of(r.top, a.tagged);
    }
    if constexpr (MODE == SUMMED) {
        float score[V];
        r.total = exponentials<L>(x, r.max, score);
        add_scores(sums, score, score_reciprocal(r.total), live);
        float log_sum = quick_log(r.total) + r.max;
        sums.z += live ? log_sum * log_sum : 0.0f;
    }
    fetch();
    choice c = choose<L>(r.key, r.best, r.top, p.mask, p.sub, k, live);
    for (int at = c.before; live && c.mask; c.mask &= c.mask - 1)
        picks[at++] = (uint16_t)(p.first + __ffs((int)c.mask) - 1);
    __syncwarp();
    write<L, MODE>(a, p, token, live, r.max, r.total, picks, weights + p.slot * k, memory.counts);
    __syncwarp();
}

/* ---- sums ---------------------------------------------------------------------------------- */

/* Adds to a fixed-point sum. Sums are below 2^62, so nothing is carried into the sticky bit. */
__device__ void add_fixed(unsigned long long *cell, uint64_t amount) {
    if (amount & NOT_A_NUMBER)
        atomicOr(cell, (unsigned long long)NOT_A_NUMBER);
    else if (amount)
        atomicAdd(cell, (unsigned long long)amount);
}

/* Moves the lanes' sums to the block's; of the warp's tokens first, in a fixed order. */
template <int L, int V>
__device__ __forceinline__ void flush(const cuda_router &a, const place &p, partial<V> &sums,
                                      double &z, unsigned long long *block_sums) {
#pragma unroll
    for (int i = 0; i < V; i++) {
        float sum = sums.score[i];
#pragma unroll
        for (int o = L; o < 32; o *= 2)
            sum += __shfl_xor_sync(FULL, sum, o);
        if (p.slot == 0 && i < p.own && a.args.aux_score_sums)
            add_fixed(&block_sums[p.first + i],
                      sum == sum ? (uint64_t)((double)sum * a.unit) : NOT_A_NUMBER);
        sums.score[i] = 0;
    }
    z += p.sub == 0 ? sums.z : 0.0f;
    sums.z = 0;
}

/* Where the cells are. */
struct cell_map {
    unsigned long long *done, *tickets, *counts, *aux_counts, *sums, *z;
};

__device__ cell_map cells_of(const cuda_router &a) {
    int64_t e = a.args.experts, s = a.args.sequences;
    cell_map m;
    m.done = (unsigned long long *)a.cells;
    m.tickets = m.done + 1;
    m.counts = m.tickets + s;
    m.aux_counts = m.counts + e;
    m.sums = m.aux_counts + s * e;
    m.z = m.sums + s * e;
    return m;
}

/* Whether this block is the last of `blocks` to come here; what the others wrote is then seen. */
__device__ bool last_of(unsigned long long *ticket, unsigned long long blocks, bool *shared) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        *shared = atomicAdd(ticket, 1ull) == blocks - 1;
        if (*shared)
            *ticket = 0;
    }
    __syncthreads();
    __threadfence();
    return *shared;
}

/* The block's share of a sequence goes to the cells; the last one's goes on to the outputs. */
template <int L, int V>
__device__ void add_block(const cuda_router &a, int64_t sequence, block_memory<L, V> &memory) {
    const int experts = (int)a.args.experts;
    const cell_map cells = cells_of(a);
    unsigned long long *aux = cells.aux_counts + sequence * experts;
    unsigned long long *sums = cells.sums + sequence * experts;
    __syncthreads();
    for (int e = (int)threadIdx.x; e < experts; e += threads<V>) {
        unsigned own = a.distinct ? memory.aux_counts[e] : memory.counts[e];
        if (memory.counts[e])
            atomicAdd(&cells.counts[e], (unsigned long long)memory.counts[e]);
        if (a.args.aux_counts && own)
            atomicAdd(&aux[e], (unsigned long long)own);
        if (a.args.aux_score_sums)
            add_fixed(&sums[e], memory.sums[e]);
    }
    if (!last_of(&cells.tickets[sequence], gridDim.x, &memory.last))
        return;
    int64_t at = sequence * experts;
    for (int e = (int)threadIdx.x; e < experts; e += threads<V>) {
        if (a.args.aux_counts)
            a.args.aux_counts[at + e] = (int64_t)atomicExch(&aux[e], 0ull);
        if (!a.args.aux_score_sums)
            continue;
        uint64_t sum = atomicExch(&sums[e], 0ull);
        a.args.aux_score_sums[at + e] =
            sum & NOT_A_NUMBER ? (double)score_float(0x7fffffffu) : (double)sum / a.unit;
    }
}

/* A warp's lanes' sum, in a fixed order. */
__device__ double warp_sum(double v) {
    for (int o = 16; o > 0; o /= 2)
        v += __shfl_xor_sync(FULL, v, o);
    return v;
}

/* The block's share of what is summed over all sequences. */
template <int L, int V>
__device__ void finish(const cuda_router &a, const place &p, double z, block_memory<L, V> &memory) {
    const cell_map cells = cells_of(a);
    const int blocks = (int)(gridDim.x * gridDim.y), warps = threads<V> / 32;
    z = warp_sum(z);
    if (threadIdx.x % 32 == 0)
        memory.z[p.warp] = z;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < warps; w++)
            z += memory.z[w];
        memcpy(&cells.z[blockIdx.y * gridDim.x + blockIdx.x], &z, sizeof z);
    }
    if (!last_of(cells.done, (unsigned long long)blocks, &memory.last))
        return;
    for (int e = (int)threadIdx.x; e < (int)a.args.experts; e += threads<V>)
        a.args.tokens_per_expert[e] = (int64_t)atomicExch(&cells.counts[e], 0ull);
    z = 0;
    for (int i = (int)threadIdx.x; i < blocks; i += threads<V>) {
        unsigned long long bits = atomicExch(&cells.z[i], 0ull);
        double part;
        memcpy(&part, &bits, sizeof part);
        z += part;
    }
    z = warp_sum(z);
    if (threadIdx.x % 32 == 0)
        memory.z[p.warp] = z;
    __syncthreads();
    if (threadIdx.x == 0 && a.args.z_sum) {
        for (int w = 1; w < warps; w++)
            z += memory.z[w];
        *a.args.z_sum = z;
    }
}

/* ---- the kernel ---------------------------------------------------------------------------- */

template <int L, int V, int MODE>
__device__ __forceinline__ void route_sequence(const cuda_router &a, const place &p,
                                               int64_t sequence, double &z,
                                               block_memory<L, V> &memory) {
    constexpr int SLOTS = 32 / L, WARPS = threads<V> / 32;
    const int64_t sequences = a.args.sequences;
    const int64_t step = (int64_t)gridDim.x * WARPS * SLOTS * sequences;
    partial<V> sums = {};
    uint32_t raw[V];
    int64_t row = ((int64_t)blockIdx.x * WARPS + p.warp) * SLOTS + p.slot;
    int64_t token = row * sequences + sequence;
    int live; /* no bool, which is packed into a register with others */
    auto fetch = [&](int64_t at) {
        live = at < a.args.tokens && (!a.args.valid || a.args.valid[at]);
        load(a, at * (uint32_t)a.args.experts + p.first, p, live, raw);
    };
    fetch(token);
    for (int pending = 0; __any_sync(FULL, token < a.args.tokens); token += step) {
        route<L, V, MODE>(
            a, p, token, live, raw, [&] { fetch(token + step); }, sums, memory);
#ifdef __CUDA_ARCH__ /* else the compiler makes a dozen counters out of this one, and spills */
        asm volatile("" : "+l"(token));
#endif
        if (MODE != PLAIN && ++pending == FLUSH) {
            flush<L>(a, p, sums, z, memory.sums);
            pending = 0;
        }
    }
    if (MODE != PLAIN)
        flush<L>(a, p, sums, z, memory.sums);
}

template <int L, int V, int MODE>
__global__ void __launch_bounds__(threads<V>, resident<V, MODE>)
    router_kernel(const cuda_router a) {
    __shared__ block_memory<L, V> memory;
    const place p = place_of<L, V>(a);
    double z = 0;
    for (int64_t sequence = blockIdx.y; sequence < a.args.sequences; sequence += gridDim.y) {
        __syncthreads();
        for (int e = (int)threadIdx.x; e < L * V; e += threads<V>)
            memory.counts[e] = memory.aux_counts[e] = 0, memory.sums[e] = 0;
        __syncthreads();
        route_sequence<L, V, MODE>(a, p, sequence, z, memory);
        add_block(a, sequence, memory);
    }
    __syncthreads();
    finish(a, p, z, memory);
}

template <int L, int V, int MODE> cudaError_t launch(const cuda_router *a, cudaStream_t stream) {
    dim3 grid((unsigned)a->columns, (unsigned)a->rows);
    return CUDA_LAUNCH((router_kernel<L, V, MODE>), grid, threads<V>, stream, *a);
}

template <int MODE> cudaError_t launch_mode(const cuda_router *a, cudaStream_t stream) {
    if (a->per_lane == 32)
        return launch<32, 32, MODE>(a, stream);
    if (a->per_lane == 16)
        return launch<32, 16, MODE>(a, stream);
    switch (a->lanes) {
    case 1:
        return launch<1, 8, MODE>(a, stream);
    case 8:
        return launch<8, 8, MODE>(a, stream);
    case 16:
        return launch<16, 8, MODE>(a, stream);
    default:
        return launch<32, 8, MODE>(a, stream);
    }
}

} // namespace

#endif
