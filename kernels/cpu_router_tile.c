/* cpu_router_tile.c - the router's fast form: softmax without groups. Sixteen tokens are transposed
 * into a tile [experts][16], so that every step is a loop over 16 tokens that vectorises without
 * sums across a vector. The best two are kept with their experts; without the losses only their
 * exponentials are made. For more, the k-th highest logit of each token is a threshold; the experts
 * at or above it are bits of a mask, read off in ascending order. Ties at the threshold are broken
 * apart, and tiles with a logit that is not finite go the plain way. */
#include <math.h>
#include <string.h>

#include "bf16.h"
#include "cpu_router.h"
#include "vec.h"

enum {
    LANES = ROUTER_LANES,
    TOPK_MAX = ROUTER_TOPK_MAX,
    EXPERTS_MAX = ROUTER_EXPERTS_MAX,
    WORDS_MAX = EXPERTS_MAX / 32,
    FLUSH_TILES = 64 /* f32 partial sums of 64 probabilities per lane before doubles take them */
};

#define ALIGNED ROUTER_ALIGNED

/* What one tile leaves for the tokens' own steps. */
typedef struct tile_result {
    float max[LANES] ALIGNED, threshold[LANES] ALIGNED, sum[LANES] ALIGNED;
    uint32_t mask[WORDS_MAX][LANES] ALIGNED; /* bit e % 32 of word e / 32: logit >= threshold */
} tile_result;

bool pgr_cpu_router_tiled(const pgr_router_args *args) {
    bool grouped = args->groups > 0 && args->group_topk > 0;
    return args->score == PGR_SOFTMAX && !grouped && !args->expert_bias && args->topk <= TOPK_MAX &&
           args->experts <= EXPERTS_MAX && LANES % args->sequences == 0;
}

/* Scratch: the tile, the partial sums, sixteen widened rows, and one row of zeros. */
int64_t pgr_cpu_router_tile_floats(const pgr_router_args *args) {
    return (3 * LANES + 1) * args->experts;
}

/* Turns the tile into exp(logit - max), sums it (32 experts at a time, so that the roundings of a
 * thousand equal terms do not add up), and marks the experts at or above the threshold. False where
 * a logit is not finite. */
PGR_CLONES
static bool exponentials(float *restrict tile, int64_t experts, tile_result *restrict r) {
    float sum[LANES] ALIGNED = {0}, check[LANES] ALIGNED = {0};
    for (int64_t first = 0; first < experts; first += 32) {
        uint32_t mask[LANES] ALIGNED = {0};
        float part[LANES] ALIGNED = {0};
        int64_t last = first + 32 < experts ? first + 32 : experts;
        for (int64_t e = first; e < last; e++) {
            const uint32_t bit = (uint32_t)1 << (e - first);
            for (int l = 0; l < LANES; l++) {
                float x = tile[e * LANES + l], d = x - r->max[l];
                float p = vec_exp2(1.44269504f * vec_limit(d, 87.0f));
                mask[l] |= -(uint32_t)(x >= r->threshold[l]) & bit;
                part[l] += p;
                check[l] += d;
                tile[e * LANES + l] = p;
            }
        }
        for (int l = 0; l < LANES; l++)
            sum[l] += part[l];
        memcpy(r->mask[first / 32], mask, sizeof mask);
    }
    if ((experts + 31) / 32 % 2 != 0)
        memset(r->mask[(experts + 31) / 32], 0, sizeof r->mask[0]);
    memcpy(r->sum, sum, sizeof sum);
    int bad = 0;
    for (int l = 0; l < LANES; l++)
        bad |= !(check[l] > -INFINITY); /* NaN too */
    return !bad;
}

/* sums[e][lane] += probability. */
PGR_CLONES
static void add_scores(const float *restrict tile, const float *restrict inverse, int64_t experts,
                       float *restrict sums) {
    for (int64_t e = 0; e < experts; e++)
        for (int l = 0; l < LANES; l++)
            sums[e * LANES + l] += tile[e * LANES + l] * inverse[l];
}

PGR_CLONES
static double z_squares(const tile_result *r, const float *restrict active) {
    float z[LANES] ALIGNED;
    double total = 0;
    for (int l = 0; l < LANES; l++) {
        float log_sum_exp = vec_log(r->sum[l]) + r->max[l];
        z[l] = log_sum_exp * log_sum_exp * active[l];
    }
    for (int l = 0; l < LANES; l++)
        total += z[l];
    return total;
}

PGR_CLONES
static void widen(const pgr_bf16 *restrict in, float *restrict out, int64_t count) {
    for (int64_t e = 0; e < count; e++)
        out[e] = pgr_bf16_to_f32(in[e]);
}

/* The bits of a token's mask in ascending order; false unless there are exactly `topk`. The loop
 * has the same length for every token and no branch inside: mispredictions would cost more than the
 * rest of the router. */
PGR_INLINE bool read_mask(const tile_result *r, int64_t words, int lane, int64_t topk,
                          int32_t *picks) {
    uint64_t word[WORDS_MAX / 2], filled = 0;
    int64_t count = 0, wide = (words + 1) / 2;
    if (wide == 1) {
        uint64_t bits = r->mask[0][lane] | (uint64_t)r->mask[1][lane] << 32;
        if (__builtin_popcountll(bits) != topk)
            return false;
        for (int64_t j = 0; j < topk; j++, bits &= bits - 1)
            picks[j] = __builtin_ctzll(bits);
        return true;
    }
    for (int64_t w = 0; w < wide; w++) { /* an odd last word has zeros beside it */
        word[w] = r->mask[2 * w][lane] | (uint64_t)r->mask[2 * w + 1][lane] << 32;
        count += __builtin_popcountll(word[w]);
        filled |= (uint64_t)(word[w] != 0) << w;
    }
    if (count != topk)
        return false;
    for (int64_t j = 0; j < topk; j++) {
        int w = __builtin_ctzll(filled);
        uint64_t bits = word[w];
        picks[j] = w * 64 + __builtin_ctzll(bits);
        word[w] = bits &= bits - 1;
        filled &= ~((uint64_t)(bits == 0) << w);
    }
    return true;
}

/* Where several experts tie at the threshold, the lowest of them fill what is left. */
PGR_INLINE void break_ties(const tile_result *r, int64_t words, int lane, const float *logits,
                           int64_t topk, int32_t *picks) {
    const float threshold = r->threshold[lane];
    int64_t left = topk, count = 0;
    for (int pass = 0; pass < 2; pass++) { /* count the ones above, then take */
        for (int64_t w = 0; w < words; w++) {
            for (uint32_t bits = r->mask[w][lane]; bits; bits &= bits - 1) {
                int32_t e = (int32_t)(w * 32 + __builtin_ctz(bits));
                bool above = logits[e] > threshold;
                if (pass == 0)
                    left -= above;
                else if (above || left-- > 0)
                    picks[count++] = e;
            }
        }
    }
}

/* Indices, weights and counts of the tile's tokens. */
PGR_INLINE void emit_tokens(const pgr_router_args *args, int64_t first, const float *const *rows,
                            const float *restrict tile, const tile_result *restrict r,
                            const float *restrict inverse, const int64_t k) {
    const int64_t words = (args->experts + 31) / 32;
    const int lanes = args->tokens - first < LANES ? (int)(args->tokens - first) : LANES;
    const float scaling = isnan(args->scaling) ? 1.0f : (float)args->scaling;
    const bool pre = args->pre_softmax, per_sequence = args->aux_counts && args->sequences > 1;
    int64_t *restrict counts = args->tokens_per_expert;
    const uint8_t *valid = args->valid ? args->valid + first : NULL;
    for (int l = 0; l < lanes; l++) {
        int32_t *restrict picks = args->indices + (first + l) * k;
        float *restrict weights = args->weights + (first + l) * k;
        float sum = 0;
        if (valid && !valid[l]) {
            for (int64_t j = 0; j < k; j++) {
                picks[j] = -1;
                weights[j] = 0;
            }
            continue;
        }
        if (!read_mask(r, words, l, k, picks))
            break_ties(r, words, l, rows[l], k, picks);
        for (int64_t j = 0; j < k; j++)
            sum += tile[picks[j] * LANES + l];
        float factor = pre ? inverse[l] * scaling : scaling / sum;
        for (int64_t j = 0; j < k; j++) {
            weights[j] = tile[picks[j] * LANES + l] * factor;
            counts[picks[j]]++;
        }
        if (per_sequence)
            for (int64_t j = 0; j < k; j++)
                args->aux_counts[l % args->sequences * args->experts + picks[j]]++;
    }
}

PGR_CLONES
static void emit(const pgr_router_args *args, int64_t first, const float *const *rows,
                 const float *tile, const tile_result *r, const float *inverse) {
    switch (args->topk) { /* constants, so that the short loops are unrolled */
    case 4:
        emit_tokens(args, first, rows, tile, r, inverse, 4);
        break;
    case 6:
        emit_tokens(args, first, rows, tile, r, inverse, 6);
        break;
    case 8:
        emit_tokens(args, first, rows, tile, r, inverse, 8);
        break;
    default:
        emit_tokens(args, first, rows, tile, r, inverse, args->topk);
    }
}

/* ---- the best two -------------------------------------------------------------------------- */

/* What a tile of them needs; `active` is 0 for padding, else 1. */
typedef struct two_args {
    const pgr_router_args *args;
    const float *active, *sum; /* sum of all exponentials, if pre_softmax */
    float scaling;
} two_args;

/* exp(x) for x <= 0. */
PGR_INLINE float exp_of(float x) {
    float scaled = 1.44269504f * x;
    return vec_exp2(scaled > -126.0f ? scaled : -126.0f);
}

/* Whether all of a transposed tile is. */
PGR_CLONES
static bool all_finite(const float *tile, int64_t experts) {
    int32_t most[LANES] ALIGNED = {0}, all = 0;
    for (int64_t e = 0; e < experts; e++)
        for (int l = 0; l < LANES; l++) {
            int32_t size = vec_bits(tile[e * LANES + l]) & INT32_MAX;
            most[l] = most[l] > size ? most[l] : size;
        }
    for (int l = 0; l < LANES; l++)
        all = all > most[l] ? all : most[l];
    return all < 0x7f800000;
}

/* Indices and weights, [16][topk], ascending; -1 and 0 for padding. In integers, so that nothing
 * becomes a branch. */
PGR_CLONES
static void weigh_two(const two_args *t, const router_two *two, int32_t *restrict picks,
                      float *restrict weights) {
    float sum[LANES] ALIGNED, low[LANES] ALIGNED, high[LANES] ALIGNED;
    int32_t from[LANES] ALIGNED, to[LANES] ALIGNED;
    const int64_t last = t->args->topk - 1;
    for (int l = 0; l < LANES; l++)
        low[l] = exp_of(two->value[last][l] - two->value[0][l]); /* the first's is 1 */
    for (int l = 0; l < LANES; l++)
        sum[l] = last == 0 ? 1.0f : 1.0f + low[l];
    if (t->args->pre_softmax)
        memcpy(sum, t->sum, sizeof sum);
    for (int l = 0; l < LANES; l++) {
        int32_t first = (int32_t)two->expert[0][l], second = (int32_t)two->expert[last][l];
        int32_t padding = (int32_t)t->active[l] - 1, swap = (second - first) >> 31;
        float factor = t->scaling * t->active[l] / sum[l];
        int32_t best = vec_bits(factor), next = vec_bits(low[l] * factor);
        from[l] = (first < second ? first : second) | padding;
        to[l] = (first < second ? second : first) | padding;
        low[l] = vec_float((best & ~swap) | (next & swap));
        high[l] = vec_float((next & ~swap) | (best & swap));
    }
    if (last == 0) {
        memcpy(picks, from, sizeof from);
        memcpy(weights, low, sizeof low);
        return;
    }
    for (int l = 0; l < LANES; l++) {
        picks[2 * l] = from[l];
        picks[2 * l + 1] = to[l];
        weights[2 * l] = low[l];
        weights[2 * l + 1] = high[l];
    }
}

/* Indices, weights and counts of the tile's tokens. */
static void emit_two(const two_args *t, int64_t first, const router_two *two) {
    const pgr_router_args *args = t->args;
    const int64_t k = args->topk, left = args->tokens - first;
    const int64_t pairs = (left < LANES ? left : LANES) * k;
    int32_t picks[2 * LANES] ALIGNED;
    float weights[2 * LANES] ALIGNED;
    weigh_two(t, two, picks, weights);
    memcpy(args->indices + first * k, picks, (size_t)pairs * sizeof *picks);
    memcpy(args->weights + first * k, weights, (size_t)pairs * sizeof *weights);
    for (int64_t i = 0; i < pairs; i++)
        if (picks[i] >= 0)
            args->tokens_per_expert[picks[i]]++;
    for (int64_t i = 0; i < pairs && args->aux_counts && args->sequences > 1; i++)
        if (picks[i] >= 0)
            args->aux_counts[i / k % args->sequences * args->experts + picks[i]]++;
}

/* Turns the tile into exp(logit - max) and sums it. */
PGR_CLONES
static void exponentials_two(float *restrict tile, int64_t experts, tile_result *restrict r) {
    float sum[LANES] ALIGNED = {0};
    for (int64_t first = 0; first < experts; first += 32) {
        float part[LANES] ALIGNED = {0};
        int64_t last = first + 32 < experts ? first + 32 : experts;
        for (int64_t e = first; e < last; e++) {
            for (int l = 0; l < LANES; l++) {
                float p = exp_of(tile[e * LANES + l] - r->max[l]);
                part[l] += p;
                tile[e * LANES + l] = p;
            }
        }
        for (int l = 0; l < LANES; l++)
            sum[l] += part[l];
    }
    memcpy(r->sum, sum, sizeof sum);
}

/* ---- all tokens ---------------------------------------------------------------------------- */

/* Adds the partial sums to the doubles and clears them. Lane l is of sequence l % sequences, since
 * sequences divides LANES and tiles begin at multiples of LANES. */
static void flush_scores(const pgr_router_args *args, float *sums) {
    for (int64_t e = 0; e < args->experts; e++)
        for (int64_t l = 0; l < LANES; l++)
            args->aux_score_sums[l % args->sequences * args->experts + e] += sums[e * LANES + l];
    memset(sums, 0, (size_t)(args->experts * LANES) * sizeof *sums);
}

static void plain_tokens(const router_row *row, const pgr_router_args *args, int64_t first) {
    for (int64_t token = first; token < first + LANES && token < args->tokens; token++)
        pgr_cpu_router_token(row, args, token);
}

/* The tile's logits as f32: as they are, or widened into `wide`, all in one go. */
static const float *tile_logits(const pgr_router_args *args, int64_t first, float *wide) {
    const int64_t left = args->tokens - first, begin = first * args->experts;
    if (args->dtype == PGR_F32)
        return (const float *)args->logits + begin;
    widen((const pgr_bf16 *)args->logits + begin, wide,
          (left < LANES ? left : LANES) * args->experts);
    return wide;
}

void pgr_cpu_router_tiles(const pgr_router_args *args, const router_row *row, float *scratch) {
    const int64_t experts = args->experts;
    float *tile = scratch, *sums = tile + LANES * experts, *wide = sums + LANES * experts;
    float *zeros = wide + LANES * experts;
    memset(sums, 0, (size_t)(LANES * experts) * sizeof *sums);
    memset(zeros, 0, (size_t)experts * sizeof *zeros);
    double z = 0;
    int64_t pending = 0;
    const router_ops ops = pgr_cpu_router_ops();
    const bool all = args->pre_softmax || args->aux_score_sums || args->z_sum; /* exponentials */
    const float scaling = isnan(args->scaling) ? 1.0f : (float)args->scaling;
    pgr_router_args plain = *args; /* with one sequence, aux_counts are filled at the end */
    if (args->sequences == 1)
        plain.aux_counts = NULL;
    for (int64_t first = 0; first < args->tokens; first += LANES) {
        const float *rows[LANES];
        float active[LANES] ALIGNED, inverse[LANES] ALIGNED;
        tile_result r;
        const float *logits = tile_logits(args, first, wide);
        for (int l = 0; l < LANES; l++) {
            bool there = first + l < args->tokens && (!args->valid || args->valid[first + l]);
            rows[l] = there ? logits + l * experts : zeros; /* zeros: padding */
            active[l] = there ? 1.0f : 0.0f;
        }
        if (args->topk <= 2) {
            router_two two;
            ops.transpose(rows, experts, tile);
            if (!all_finite(tile, experts)) {
                plain_tokens(row, &plain, first);
                continue;
            }
            ops.two(tile, experts, &two);
            memcpy(r.max, two.value[0], sizeof r.max);
            if (all)
                exponentials_two(tile, experts, &r);
            emit_two(&(two_args){args, active, r.sum, scaling}, first, &two);
        } else {
            router_best best;
            ops.best(rows, experts, args->topk, tile, &best);
            memcpy(r.max, best.value[0], sizeof r.max);
            memcpy(r.threshold, best.value[args->topk - 1], sizeof r.threshold);
            if (!exponentials(tile, experts, &r)) {
                plain_tokens(row, &plain, first);
                continue;
            }
        }
        for (int l = 0; all && l < LANES; l++)
            inverse[l] = active[l] / r.sum[l];
        if (args->topk > 2)
            emit(args, first, rows, tile, &r, inverse);
        if (args->z_sum)
            z += z_squares(&r, active);
        if (args->aux_score_sums) {
            add_scores(tile, inverse, experts, sums);
            if (++pending == FLUSH_TILES) {
                flush_scores(args, sums);
                pending = 0;
            }
        }
    }
    if (args->aux_score_sums)
        flush_scores(args, sums);
    if (args->z_sum)
        *args->z_sum += z;
    if (args->aux_counts && args->sequences == 1)
        memcpy(args->aux_counts, args->tokens_per_expert, (size_t)experts * sizeof(int64_t));
}
