/* cuda_router.h - the router on a GPU: what the host decides for a launch, and the steps of a group
 * of lanes that share a token. A token has L lanes of a warp (1, 8, 16 or 32) with V experts
 * each, so a warp has 32 / L tokens. Lanes hold neighbouring experts, in ascending order: of
 * experts with equal keys the lowest is in the lowest lane. */
#ifndef PGR_CUDA_ROUTER_H
#define PGR_CUDA_ROUTER_H

#include "cuda.h"
#include "router.h"

/* What a kernel does. PLAIN is softmax after top-k over all experts; SUMMED has what needs the
 * softmax over all experts too (softmax before top-k, the losses' sums); ANY has all. */
typedef enum cuda_router_mode {
    CUDA_ROUTER_PLAIN,
    CUDA_ROUTER_SUMMED,
    CUDA_ROUTER_ANY
} cuda_router_mode;

/* A launch. `cells` are zero before and after it: 64-bit sums that all blocks add to in integers,
 * so that the results do not depend on the blocks' order. */
typedef struct cuda_router {
    pgr_router_args args;
    float scaling;           /* 1 where args.scaling is NaN */
    double unit;             /* fixed-point units per 1 of a sum of scores */
    uint64_t *cells;         /* see cuda_router_cells */
    int32_t lanes, per_lane; /* the instance: L and V */
    int32_t columns, rows;   /* the grid: blocks that share a sequence, sequences at a time */
    int32_t groups, size;    /* of experts; without groups 1 and all */
    int32_t group_lanes;     /* lanes of a group; L where they are not laid out in groups */
    int32_t own;             /* experts that a lane has at most, V or less */
    bool grouped, loose;     /* loose: groups that do not fit the lanes, chosen in shared memory */
    bool biased;             /* experts are ranked by score + bias */
    bool distinct;           /* the losses' own top-k differs from the routing's */
    bool tagged;             /* bf16 logits as keys, with the expert in the low bits: no ties */
    bool wide;               /* rows can be read in 16-byte pieces */
    cuda_router_mode mode;
} cuda_router;

/* Decides all but `cells`; `blocks` fill the GPU. False where there is no instance for so many
 * experts. */
bool pgr_cuda_router_plan(const pgr_router_args *args, int blocks, cuda_router *plan);

/* How many cells: tickets, counts, sums and the blocks' parts of z_sum. */
static inline int64_t cuda_router_cells(const cuda_router *plan) {
    int64_t e = plan->args.experts, s = plan->args.sequences;
    return 1 + s + e + 2 * s * e + (int64_t)plan->columns * plan->rows;
}

#ifdef __cplusplus

namespace {

constexpr unsigned FULL = 0xffffffffu;
constexpr int PAD = INT32_MIN;         /* the key of no expert */
constexpr int LIMITED = INT32_MIN + 1; /* of an expert whose group is not chosen; below -inf's */

/* ---- numbers ------------------------------------------------------------------------------- */

/* x, but -0 as 0 and every NaN as 0x7fffffff, which is what a GPU's sum gives. */
__device__ __forceinline__ float canonical(float x) {
#ifdef __CUDA_ARCH__
    return __fadd_rn(x, 0.0f);
#else
    return x != x ? score_float(0x7fffffffu) : x + 0.0f;
#endif
}

/* An integer that orders floats: equal for -0 and 0, NaN the highest. Its own inverse on bits. */
__device__ __forceinline__ int turn(int bits) {
    return bits ^ ((bits >> 31) & 0x7fffffff);
}

__device__ __forceinline__ int key_of(float x) {
    return turn((int)score_bits(canonical(x)));
}

/* The tag goes after the turn, which inverts the low bits of negative values. */
__device__ __forceinline__ float value_of(int key, bool tagged) {
    int bits = turn(key);
    return score_float((uint32_t)(tagged ? bits & (int)0xffff0000u : bits));
}

/* For sums that carry 1e-6, not for choices. */
__device__ __forceinline__ float quick_exp(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504f));
    return y;
#else
    return exp2f(x * 1.44269504f);
#endif
}

__device__ __forceinline__ float quick_log(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y * 0.693147181f;
#else
    return log2f(x) * 0.693147181f;
#endif
}

/* ---- lanes of a token ---------------------------------------------------------------------- */

template <int L> __device__ __forceinline__ int group_max(int v) {
    if constexpr (L == 32) {
        return __reduce_max_sync(FULL, v);
    } else {
#pragma unroll
        for (int o = L / 2; o > 0; o /= 2) {
            int other = __shfl_xor_sync(FULL, v, o);
            v = v > other ? v : other;
        }
        return v;
    }
}

template <int L> __device__ __forceinline__ int group_sum(int v) {
    if constexpr (L == 32) {
        return __reduce_add_sync(FULL, v);
    } else {
#pragma unroll
        for (int o = L / 2; o > 0; o /= 2)
            v += __shfl_xor_sync(FULL, v, o);
        return v;
    }
}

template <int L> __device__ __forceinline__ float group_sum(float v) {
#pragma unroll
    for (int o = L / 2; o > 0; o /= 2)
        v += __shfl_xor_sync(FULL, v, o);
    return v;
}

/* The sum over lower lanes, and over all. */
template <int L> __device__ __forceinline__ int group_before(int v, int sub, int *total) {
    int sum = v;
#pragma unroll
    for (int o = 1; o < L; o *= 2) {
#ifdef __CUDA_ARCH__ /* the shuffle itself says whether there is such a lane */
        asm volatile("{\n .reg .pred p;\n .reg .b32 lower;\n"
                     " shfl.sync.up.b32 lower|p, %0, %1, %2, 0xffffffff;\n"
                     " @p add.s32 %0, %0, lower;\n}"
                     : "+r"(sum)
                     : "r"(o), "r"((32 - L) << 8));
#else
        int lower = __shfl_up_sync(FULL, sum, o, L);
        sum += sub >= o ? lower : 0;
#endif
    }
    *total = L == 1 ? sum : __shfl_sync(FULL, sum, L - 1, L);
    return sum - v;
}

/* ---- a lane's best ------------------------------------------------------------------------- */

__device__ __forceinline__ void order(int &high, int &low) {
    int a = high, b = low;
    high = a > b ? a : b;
    low = a > b ? b : a;
}

__device__ __forceinline__ void sort4(int *v) {
    order(v[0], v[1]), order(v[2], v[3]), order(v[0], v[2]), order(v[1], v[3]), order(v[1], v[2]);
}

/* How many of a lane's keys are kept sorted: all where it has the token for itself, few where it is
 * rare that one lane of many holds more of the best. */
template <int L, int MODE>
constexpr int depth = L == 1                               ? 8
                      : L == 32 && MODE != CUDA_ROUTER_ANY ? 3
                                                           : 4;

/* The best D of V keys, the highest first. */
template <int V, int D>
__device__ __forceinline__ void best_of(const int (&key)[V], int (&best)[D]) {
    if constexpr (D == 8) { /* Batcher's network of 19 */
        static_assert(V == 8, "the network is for 8");
        constexpr int8_t pairs[19][2] = {{0, 1}, {2, 3}, {4, 5}, {6, 7}, {0, 2}, {1, 3}, {4, 6},
                                         {5, 7}, {1, 2}, {5, 6}, {0, 4}, {1, 5}, {2, 6}, {3, 7},
                                         {2, 4}, {3, 5}, {1, 2}, {3, 4}, {5, 6}};
#pragma unroll
        for (int i = 0; i < 8; i++)
            best[i] = key[i];
#pragma unroll
        for (int i = 0; i < 19; i++)
            order(best[pairs[i][0]], best[pairs[i][1]]);
    } else { /* fours, sorted and merged: the better half of two sorted fours is bitonic */
        int four[4] = {key[0], key[1], key[2], key[3]};
        sort4(four);
#pragma unroll
        for (int at = 4; at < V; at += 4) {
            int next[4] = {key[at], key[at + 1], key[at + 2], key[at + 3]};
            sort4(next);
#pragma unroll
            for (int i = 0; i < 4; i++)
                four[i] = four[i] > next[3 - i] ? four[i] : next[3 - i];
            order(four[0], four[2]), order(four[1], four[3]);
            order(four[0], four[1]), order(four[2], four[3]);
        }
#pragma unroll
        for (int i = 0; i < D; i++)
            best[i] = four[i];
    }
}

template <int D> __device__ __forceinline__ void drop_best(int (&best)[D], bool drop) {
#pragma unroll
    for (int i = 0; i + 1 < D; i++)
        best[i] = drop ? best[i + 1] : best[i];
    best[D - 1] = drop ? PAD : best[D - 1];
}

/* ---- the top-k ----------------------------------------------------------------------------- */

/* A lane's chosen experts as bits, and how many lower lanes have. */
struct choice {
    uint32_t mask;
    int before;
};

template <int V>
__device__ __forceinline__ uint32_t keys_above(const int (&key)[V], int threshold, uint32_t own) {
    uint32_t mask = 0;
#pragma unroll
    for (int i = 0; i < V; i++) {
#ifdef __CUDA_ARCH__ /* two instructions a key; the compiler makes three of the line below */
        asm("{\n .reg .pred p;\n setp.gt.s32 p, %1, %2;\n @p or.b32 %0, %0, %3;\n}"
            : "+r"(mask)
            : "r"(key[i]), "r"(threshold), "r"(1u << i));
#else
        mask |= key[i] > threshold ? 1u << i : 0u;
#endif
    }
    return mask & own;
}

/* The k-th highest of a token's keys, bit by bit from the top: for any k. */
template <int L, int V> __device__ int threshold_search(const int (&key)[V], uint32_t own, int k) {
    uint32_t found = 0;
    for (int bit = 31; bit >= 0; bit--) {
        uint32_t trial = found | 1u << bit;
        uint32_t mask = keys_above(key, (int)((trial - 1) ^ 0x80000000u), own);
        if (group_sum<L>(__popc(mask)) >= k)
            found = trial;
    }
    return (int)(found ^ 0x80000000u);
}

/* Exactly k experts where a threshold gave others: too many where keys are equal, or where a lane
 * had more of the best than it kept sorted; too few where keys of no expert were counted. */
template <int L, int V>
__device__ __noinline__ choice settle(const int (&key)[V], uint32_t own, int sub, int k,
                                      int threshold, int got) {
    if (threshold == PAD || __any_sync(FULL, got < k))
        threshold = threshold_search<L, V>(key, own, k);
    uint32_t above;
    int count;
    for (;;) { /* raise it, one key at a time, until fewer than k are above */
        above = keys_above(key, threshold, own);
        count = group_sum<L>(__popc(above));
        if (!__any_sync(FULL, count >= k))
            break;
        int lowest = INT32_MAX;
#pragma unroll
        for (int i = 0; i < V; i++)
            lowest = (above >> i & 1) && key[i] < lowest ? key[i] : lowest;
        lowest = ~group_max<L>(~lowest);
        threshold = count >= k ? lowest : threshold;
    }
    uint32_t equal = keys_above(key, threshold - 1, own) & ~above; /* a threshold is no PAD */
    int total, before = group_before<L>(__popc(equal), sub, &total);
    choice c = {above, 0};
    for (int left = k - count - before; left > 0 && equal; left--, equal &= equal - 1)
        c.mask |= equal & (~equal + 1); /* of equal ones, the lowest */
    c.before = group_before<L>(__popc(c.mask), sub, &total);
    return c;
}

/* The k highest keys of a token; `best` are the lane's sorted ones, `top` the highest of all. Takes
 * the best of all lanes k times and so has a threshold, which nearly always gives exactly k. */
template <int L, int V, int D>
__device__ __forceinline__ choice choose(const int (&key)[V], int (&best)[D], int top, uint32_t own,
                                         int sub, int k, bool live) {
    int threshold = top;
    if (k <= 32)
        for (int j = 1; j < k; j++) {
            drop_best(best, best[0] == threshold);
            threshold = group_max<L>(best[0]);
        }
    else
        threshold = LIMITED; /* whatever it is, settle finds the right one */
    threshold = threshold < LIMITED ? LIMITED : threshold;
    /* keys of no expert can be among these where all -inf are: then there are more than k */
    choice c = {keys_above(key, threshold - 1, FULL), 0};
    int total;
    c.before = group_before<L>(__popc(c.mask), sub, &total);
    if (__any_sync(FULL, live && total != k)) {
        int copy[V]; /* in memory, for a function of its own, so that the registers are free */
#pragma unroll
        for (int i = 0; i < V; i++)
            copy[i] = key[i];
        c = settle<L, V>(copy, own, sub, k, k <= 32 ? threshold : PAD, live ? total : k);
    }
    return c;
}

} // namespace

#endif
#endif
