/* cuda_router_rank.h - the first half of the router's kernel: a token's logits as they are loaded,
 * and the keys by which its experts are ranked (scores, bias, groups). */
#ifndef PGR_CUDA_ROUTER_RANK_H
#define PGR_CUDA_ROUTER_RANK_H

#include "cuda_router.h"

namespace {

constexpr int PLAIN = CUDA_ROUTER_PLAIN, SUMMED = CUDA_ROUTER_SUMMED, ANY = CUDA_ROUTER_ANY;

enum { FLUSH = 64 }; /* tokens per lane whose scores are summed in f32 */

constexpr uint64_t NOT_A_NUMBER = (uint64_t)1 << 63; /* of a fixed-point sum: sticky */

template <int V> constexpr int threads = V == 32 ? 64 : 128;

/* Blocks of a multiprocessor that registers must allow, and shared memory does where there are 228
 * KiB of it (sm_90, sm_100; A100 has 164); cuda_moe.c fills the GPU with them. */
template <int V, int MODE>
constexpr int resident = V == 8    ? (MODE == PLAIN    ? 6
                                      : MODE == SUMMED ? 5
                                                       : 4)
                         : V == 16 ? (MODE == PLAIN    ? 6
                                      : MODE == SUMMED ? 4
                                                       : 3)
                                   : (MODE == PLAIN    ? 7
                                      : MODE == SUMMED ? 5
                                                       : 4);

template <int L, int V> struct block_memory {
    static constexpr int WARPS = threads<V> / 32;
    unsigned counts[L * V], aux_counts[L * V];
    unsigned long long sums[L * V];
    uint16_t picks[WARPS][32 * V];
    float weights[WARPS][32 * V]; /* before they are normalised */
    double z[WARPS];
    bool last;
};

/* A lane's place: of a warp's tokens its `slot`-th, of the token's lanes the `sub`-th. */
struct place {
    int warp, slot, sub, first, own;
    uint32_t mask; /* a bit for each expert that it has */
};

template <int L, int V> __device__ place place_of(const cuda_router &a) {
    place p;
    int lane = (int)threadIdx.x % 32;
    p.warp = (int)threadIdx.x / 32;
    p.slot = lane / L;
    p.sub = lane % L;
    int group = p.sub / a.group_lanes, from = p.sub % a.group_lanes * a.own;
    p.first = group * a.size + from;
    p.own = a.size - from < a.own ? a.size - from : a.own;
    p.own = group < a.groups && p.own > 0 ? p.own : 0;
    p.mask = p.own == 32 ? FULL : (1u << p.own) - 1;
    return p;
}

/* ---- logits -------------------------------------------------------------------------------- */

/* A lane's logits as they lie in memory, the first of them the `at`-th of all; -inf where it has no
 * expert, and 0 of padding, which so has finite scores. */
template <int V>
__device__ __forceinline__ void load(const cuda_router &a, int64_t at, const place &p, bool live,
                                     uint32_t (&raw)[V]) {
    const int own = live ? p.own : 0;
    if (a.args.dtype == PGR_F32) {
        const uint32_t *from = (const uint32_t *)a.args.logits + at;
        const uint32_t none = live ? 0xff800000u : 0;
#pragma unroll
        for (int i = 0; i < V; i++)
            raw[i] = none;
        if (a.wide) {
#pragma unroll
            for (int i = 0; i < V; i += 4)
                if (i < own) {
                    uint4 four = *(const uint4 *)(from + i);
                    raw[i] = four.x, raw[i + 1] = four.y, raw[i + 2] = four.z, raw[i + 3] = four.w;
                }
        } else {
#pragma unroll
            for (int i = 0; i < V; i++)
                if (i < own)
                    raw[i] = from[i];
        }
        return;
    }
    const uint16_t *from = (const uint16_t *)a.args.logits + at;
    const uint32_t none = live ? 0xff80ff80u : 0;
#pragma unroll
    for (int i = 0; i < V / 2; i++)
        raw[i] = none;
    if (a.wide) {
#pragma unroll
        for (int i = 0; i < V / 2; i += 4)
            if (2 * i < own) {
                uint4 four = *(const uint4 *)(from + 2 * i);
                raw[i] = four.x, raw[i + 1] = four.y, raw[i + 2] = four.z, raw[i + 3] = four.w;
            }
    } else {
#pragma unroll
        for (int i = 0; i < V / 2; i++) {
            if (2 * i < own)
                raw[i] = (raw[i] & 0xffff0000u) | from[2 * i];
            if (2 * i + 1 < own)
                raw[i] = (raw[i] & 0x0000ffffu) | (uint32_t)from[2 * i + 1] << 16;
        }
    }
}

template <int V>
__device__ __forceinline__ void widen(const cuda_router &a, const uint32_t (&raw)[V],
                                      float (&x)[V]) {
    if (a.args.dtype == PGR_F32) {
#pragma unroll
        for (int i = 0; i < V; i++)
            x[i] = score_float(raw[i]);
    } else {
#pragma unroll
        for (int i = 0; i < V; i++)
            x[i] = score_float(i % 2 ? raw[i / 2] & 0xffff0000u : raw[i / 2] << 16);
    }
}

__device__ __forceinline__ float logit(const cuda_router &a, int64_t at) {
    return a.args.dtype == PGR_F32
               ? ((const float *)a.args.logits)[at]
               : score_float((uint32_t)((const uint16_t *)a.args.logits)[at] << 16);
}

/* Keys of the logits; of bf16 with the expert below, the lower the better. */
template <int V>
__device__ __forceinline__ void keys_of(const float (&x)[V], bool tagged, int first,
                                        int (&key)[V]) {
#pragma unroll
    for (int i = 0; i < V; i++)
        key[i] = key_of(x[i]);
    if (tagged) {
#pragma unroll
        for (int i = 0; i < V; i++)
            key[i] = (key[i] & (int)0xffff0000u) | (0xffff - first - i);
    }
}

/* ---- groups of experts --------------------------------------------------------------------- */

/* What a group's score adds up: logits, probabilities or ranked scores. */
__device__ __forceinline__ float group_value(const cuda_router &a, int key, float top,
                                             double inverse) {
    float value = value_of(key, a.tagged);
    if (a.args.score != PGR_SOFTMAX || !a.args.pre_softmax)
        return value;
    return (float)(score_exp_below(value - top) * inverse);
}

/* Whether the lane's group is among the best: of those that lie in lanes of their own. */
template <int L, int D>
__device__ bool group_chosen(const cuda_router &a, const int (&best)[D], const place &p, float top,
                             double inverse) {
    int rest[D];
#pragma unroll
    for (int i = 0; i < D; i++)
        rest[i] = best[i];
    int lane = (int)threadIdx.x % 32, lanes = a.group_lanes;
    unsigned mine = (lanes == 32 ? FULL : (1u << lanes) - 1) << (lane & ~(lanes - 1));
    int count = (int)(a.args.topk / a.args.group_topk), left = count < a.size ? count : a.size;
    float sum = 0;
    for (int j = 0; j < count; j++) {
        int m = rest[0];
        for (int o = lanes / 2; o > 0; o /= 2) {
            int other = __shfl_xor_sync(FULL, m, o);
            m = m > other ? m : other;
        }
        float value = group_value(a, m, top, inverse);
        bool won = rest[0] == m;
        for (int n = __popc(__ballot_sync(FULL, won) & mine); n > 0 && left > 0; n--, left--)
            sum += value;
        drop_best(rest, won);
    }
    int key = key_of(sum), group = p.sub / lanes, better = 0;
    for (int g = 0; g < a.groups; g++) {
        int other = __shfl_sync(FULL, key, g * lanes, L);
        better += other > key || (other == key && g < group);
    }
    return better < a.args.group_topk;
}

/* The next of a group's keys after (key, expert) in descending order, the lowest expert first. */
__device__ int next_key(const int *keys, int size, int *key, int *expert) {
    int best = PAD, at = -1;
    for (int e = 0; e < size; e++) {
        bool after = keys[e] < *key || (keys[e] == *key && e > *expert);
        if (after && (at < 0 || keys[e] > best))
            best = keys[e], at = e;
    }
    *key = best;
    *expert = at;
    return best;
}

/* The same for groups of any number and size: a lane scores every 32nd group, with the keys in
 * shared memory; returns the mask of the lane's experts whose groups are chosen. A warp has one
 * token. */
template <int V>
__device__ uint32_t groups_loose(const cuda_router &a, const int (&key)[V], const place &p,
                                 float top, double inverse, int *keys, uint16_t *chosen) {
    __shared__ float scores[threads<V> / 32][32 * V];
    int *group_key = (int *)scores[p.warp];
    const int groups = (int)a.args.groups, size = (int)a.args.experts / groups;
    int count = (int)(a.args.topk / a.args.group_topk);
    __syncwarp();
    for (int i = 0; i < V; i++)
        if (i < p.own)
            keys[p.first + i] = key[i];
    __syncwarp();
    for (int g = p.sub; g < groups; g += 32) {
        float sum = 0;
        int at = INT32_MAX, expert = -1;
        for (int j = 0; j < count && j < size; j++)
            sum += group_value(a, next_key(keys + g * size, size, &at, &expert), top, inverse);
        group_key[g] = key_of(sum);
    }
    __syncwarp();
    for (int g = p.sub; g < groups; g += 32) {
        int better = 0;
        for (int h = 0; h < groups; h++)
            better += group_key[h] > group_key[g] || (group_key[h] == group_key[g] && h < g);
        chosen[g] = better < a.args.group_topk;
    }
    __syncwarp();
    uint32_t mask = 0;
    for (int i = 0; i < p.own; i++)
        mask |= (uint32_t)chosen[(p.first + i) / size] << i;
    __syncwarp();
    return mask;
}

/* ---- scores of all experts ----------------------------------------------------------------- */

template <int L, int V>
__device__ __forceinline__ float exponentials(const float (&x)[V], float top, float (&score)[V]) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < V; i++) {
        score[i] = quick_exp(x[i] - top);
        sum += score[i];
    }
    return group_sum<L>(sum);
}

/* The sum in double precision of scores that decide between groups. */
template <int L, int V>
__device__ double inverse_sum(const float (&x)[V], float top, const place &p) {
    double sum = 0;
    for (int i = 0; i < V; i++)
        sum += i < p.own ? score_exp_below(x[i] - top) : 0.0f;
    for (int o = L / 2; o > 0; o /= 2)
        sum += __shfl_xor_sync(FULL, sum, o);
    return 1.0 / sum;
}

/* ---- a token ------------------------------------------------------------------------------- */

/* What lanes sum over their tokens. */
template <int V> struct partial {
    float score[V];
    float z;
};

/* The scores of padding are finite, so that times 0 they are 0. */
template <int V>
__device__ __forceinline__ void add_scores(partial<V> &sums, const float (&score)[V], float inverse,
                                           bool live) {
    inverse = live ? inverse : 0.0f;
#pragma unroll
    for (int i = 0; i < V; i++)
        sums.score[i] += score[i] * inverse;
}

/* The highest logit of a token. */
template <int L, int V> __device__ __forceinline__ float highest(const int (&key)[V], bool tagged) {
    int best = key[0];
#pragma unroll
    for (int i = 1; i < V; i++)
        best = key[i] > best ? key[i] : best;
    return value_of(group_max<L>(best), tagged);
}

/* What the choice of a token is made from. */
template <int V, int D> struct ranking {
    int key[V], best[D];
    int top;     /* the highest key */
    float max;   /* what softmax before top-k subtracts: the highest logit */
    float total; /* and divides by */
};

/* Other scores than softmax: their keys, sums, and the losses' choice where it is another one. */
template <int L, int V, int D>
__device__ void rank_any(const cuda_router &a, const place &p, bool live, const float (&x)[V],
                         ranking<V, D> &r, partial<V> &sums, unsigned *aux_counts) {
    float score[V];
    const bool softmax = a.args.score == PGR_SOFTMAX;
    r.max = 0;
    if (softmax || a.args.z_sum) {
        keys_of(x, a.tagged, p.first, r.key);
        r.max = highest<L>(r.key, a.tagged);
        r.total = exponentials<L>(x, r.max, score);
        float log_sum = quick_log(r.total) + r.max;
        sums.z += live ? log_sum * log_sum : 0.0f;
    }
    if (!softmax) {
        float sum = 0;
#pragma unroll
        for (int i = 0; i < V; i++) {
            score[i] = i < p.own ? score_of(a.args.score, x[i]) : 0.0f;
            sum += score[i];
        }
        if (a.args.aux_score_sums)
            add_scores(sums, score, 1.0f / (group_sum<L>(sum) + 1e-20f), live);
        keys_of(score, false, 0, r.key);
    } else if (a.args.aux_score_sums) {
        add_scores(sums, score, 1.0f / r.total, live);
    }
#pragma unroll
    for (int i = 0; i < V; i++)
        r.key[i] = i < p.own ? r.key[i] : PAD;
    if (a.distinct && a.args.aux_counts) {
        best_of(r.key, r.best);
        uint32_t mask =
            choose<L>(r.key, r.best, group_max<L>(r.best[0]), p.mask, p.sub, (int)a.args.topk, live)
                .mask;
        for (mask = live ? mask : 0; mask; mask &= mask - 1)
            atomicAdd(&aux_counts[p.first + __ffs((int)mask) - 1], 1u);
    }
    if (a.biased) {
#pragma unroll
        for (int i = 0; i < V; i++)
            if (i < p.own)
                r.key[i] = key_of(score[i] + a.args.expert_bias[p.first + i]);
    }
}

/* Leaves the experts of the chosen groups; `best` are the sorted keys before and after. */
template <int L, int V, int D>
__device__ void limit_groups(const cuda_router &a, const place &p, const float (&x)[V],
                             ranking<V, D> &r, int *keys, uint16_t *chosen) {
    double inverse = 0;
    uint32_t mask = 0;
    if (a.args.score == PGR_SOFTMAX && a.args.pre_softmax)
        inverse = inverse_sum<L>(x, r.max, p);
    if constexpr (L == 32)
        if (a.loose)
            mask = groups_loose(a, r.key, p, r.max, inverse, keys, chosen);
    if (!a.loose)
        mask = group_chosen<L>(a, r.best, p, r.max, inverse) ? FULL : 0;
#pragma unroll
    for (int i = 0; i < V; i++)
        r.key[i] = mask >> i & 1 ? r.key[i] : i < p.own ? LIMITED : PAD;
    if (a.loose)
        best_of(r.key, r.best);
    else /* all or none of a lane's experts stay */
#pragma unroll
        for (int i = 0; i < D; i++)
            r.best[i] = mask ? r.best[i] : LIMITED;
}

} // namespace

#endif
