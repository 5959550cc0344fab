/* cpu_router_tile.c - the router's fast form: softmax without groups, sixteen tokens at a time. Up
 * to the best two, a tile is transposed to [experts][16], so that every step is a loop over its
 * tokens. For more, the k-th best logit of each token is a threshold: comparing the row with it
 * gives bits, which are read off in ascending order, and only the chosen logits become weights. The
 * exponentials of all experts are made where the losses or a softmax before top-k need them. Tiles
 * with a logit that is not finite go the plain way. */
#include <math.h>
#include <string.h>

#include "bf16.h"
#include "cpu_router.h"
#include "vec.h"

enum {
    LANES = ROUTER_LANES,
    TOPK_MAX = ROUTER_TOPK_MAX,
    FLUSH_TILES = 16 /* f32 partial sums of 256 probabilities before doubles take them */
};

#define ALIGNED ROUTER_ALIGNED

/* What a call works with. The scores and their sums are [experts][16] for the best two, else a row
 * per token and a row per sequence, each of `stride` elements. */
typedef struct tiles {
    const pgr_router_args *args;
    router_ops ops;
    int64_t experts, stride; /* stride: experts rounded up to an odd multiple of LANES, so that the
                                rows do not compete for the same few places of the cache */
    bool all_scores, packed; /* packed: see widen_rows */
    float scaling;
    float *scores, *sums, *wide, *zeros;
    double z;
} tiles;

/* Sixteen tokens. Rows of padding are zeros. */
typedef struct token_tile {
    int64_t first;
    int lanes; /* tokens that there are */
    const float *rows[LANES];
    float active[LANES] ALIGNED;                                          /* 1, or 0 for padding */
    float max[LANES] ALIGNED, sum[LANES] ALIGNED, inverse[LANES] ALIGNED; /* of all scores */
} token_tile;

bool pgr_cpu_router_tiled(const pgr_router_args *args) {
    bool grouped = args->groups > 0 && args->group_topk > 0;
    return args->score == PGR_SOFTMAX && !grouped && !args->expert_bias && args->topk <= TOPK_MAX &&
           args->experts <= ROUTER_EXPERTS_MAX && LANES % args->sequences == 0;
}

/* Scratch: scores, partial sums, sixteen widened rows, and one row of zeros. */
int64_t pgr_cpu_router_tile_floats(const pgr_router_args *args) {
    return (3 * LANES + 1) * (args->experts + 2 * LANES);
}

/* exp(x) for x <= 0. */
PGR_INLINE float exp_of(float x) {
    float scaled = 1.44269504f * x;
    return vec_exp2(scaled > -126.0f ? scaled : -126.0f);
}

/* ---- rows in ------------------------------------------------------------------------------- */

PGR_CLONES
static void widen(const pgr_bf16 *restrict in, float *restrict out, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        out[i] = pgr_bf16_to_f32(in[i]);
}

/* The same, with the expert's rank among equals in the 16 lower bits, so that no two logits of a
 * token are equal: bf16 has many ties. `unpacked` drops it. */
PGR_CLONES
static void widen_packed(const pgr_bf16 *restrict in, float *restrict out, int64_t rows,
                         int64_t experts) {
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t e = 0; e < experts; e++) {
            int32_t bits = vec_bits(pgr_bf16_to_f32(in[r * experts + e]) + 0.0f); /* no -0 */
            int32_t rank = ((bits >> 31) ^ ~(int32_t)e) & 0xffff; /* high is best if x >= 0 */
            out[r * experts + e] = vec_float(bits | rank);
        }
    }
}

PGR_INLINE float unpacked(float x, int32_t keep) {
    return vec_float(vec_bits(x) & keep);
}

PGR_CLONES
static bool all_finite(const float *x, int64_t count) {
    int32_t most[LANES] ALIGNED = {0}, all = 0;
    int64_t whole = count & ~(int64_t)(LANES - 1);
    for (int64_t i = 0; i < whole; i += LANES)
        for (int l = 0; l < LANES; l++) {
            int32_t size = vec_bits(x[i + l]) & INT32_MAX;
            most[l] = most[l] > size ? most[l] : size;
        }
    for (int64_t i = whole; i < count; i++) {
        int32_t size = vec_bits(x[i]) & INT32_MAX;
        all = all > size ? all : size;
    }
    for (int l = 0; l < LANES; l++)
        all = all > most[l] ? all : most[l];
    return all < 0x7f800000;
}

/* Sets the tile's rows; false where a logit is not finite. */
static bool load(const tiles *t, int64_t first, token_tile *tile) {
    const pgr_router_args *args = t->args;
    const int64_t left = args->tokens - first, experts = t->experts;
    const float *base = t->wide;
    tile->first = first;
    tile->lanes = left < LANES ? (int)left : LANES;
    if (args->dtype == PGR_F32)
        base = (const float *)args->logits + first * experts;
    else if (t->packed)
        widen_packed((const pgr_bf16 *)args->logits + first * experts, t->wide, tile->lanes,
                     experts);
    else
        widen((const pgr_bf16 *)args->logits + first * experts, t->wide, tile->lanes * experts);
    for (int l = 0; l < LANES; l++) {
        bool there = l < left && (!args->valid || args->valid[first + l]);
        tile->rows[l] = there ? base + l * experts : t->zeros;
        tile->active[l] = there ? 1.0f : 0.0f;
    }
    return all_finite(base, tile->lanes * experts);
}

/* Asks for a token's row of the next tile; spread over the tokens, so that the requests do not
 * queue. Short rows the hardware fetches in time by itself. */
PGR_INLINE void prefetch_next(const tiles *t, const token_tile *tile, int lane) {
    const int64_t token = tile->first + LANES + lane;
    const int64_t bytes = t->experts * (t->args->dtype == PGR_F32 ? 4 : 2);
    if (bytes >= 512 && token < t->args->tokens)
        for (int64_t at = 0; at < bytes; at += 64)
            __builtin_prefetch((const char *)t->args->logits + token * bytes + at);
}

/* ---- the best two, by columns -------------------------------------------------------------- */

/* Turns the tile into exp(logit - max) and sums it. */
PGR_CLONES
static void exponentials(float *restrict columns, int64_t experts, token_tile *tile) {
    float sum[LANES] ALIGNED = {0};
    for (int64_t e = 0; e < experts; e++) {
        for (int l = 0; l < LANES; l++) {
            float p = exp_of(columns[e * LANES + l] - tile->max[l]);
            sum[l] += p;
            columns[e * LANES + l] = p;
        }
    }
    memcpy(tile->sum, sum, sizeof sum);
    for (int l = 0; l < LANES; l++)
        tile->inverse[l] = tile->active[l] / sum[l];
}

/* sums[e][lane] += probability. */
PGR_CLONES
static void add_columns(const float *restrict columns, const float *restrict inverse,
                        int64_t experts, float *restrict sums) {
    for (int64_t e = 0; e < experts; e++)
        for (int l = 0; l < LANES; l++)
            sums[e * LANES + l] += columns[e * LANES + l] * inverse[l];
}

/* Indices and weights, [16][topk], ascending; -1 and 0 for padding. In integers, so that nothing
 * becomes a branch. */
PGR_CLONES
static void weigh_columns(const tiles *t, const token_tile *tile, const router_two *two,
                          int32_t *restrict picks, float *restrict weights) {
    float sum[LANES] ALIGNED, low[LANES] ALIGNED, high[LANES] ALIGNED;
    int32_t from[LANES] ALIGNED, to[LANES] ALIGNED;
    const int64_t last = t->args->topk - 1;
    for (int l = 0; l < LANES; l++)
        low[l] = exp_of(two->value[last][l] - two->value[0][l]); /* the first's is 1 */
    for (int l = 0; l < LANES; l++)
        sum[l] = last == 0 ? 1.0f : 1.0f + low[l];
    if (t->args->pre_softmax)
        memcpy(sum, tile->sum, sizeof sum);
    for (int l = 0; l < LANES; l++) {
        int32_t first = (int32_t)two->expert[0][l], second = (int32_t)two->expert[last][l];
        int32_t padding = (int32_t)tile->active[l] - 1, swap = (second - first) >> 31;
        float factor = t->scaling * tile->active[l] / sum[l];
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

static void route_columns(tiles *t, token_tile *tile) {
    const pgr_router_args *args = t->args;
    const int64_t k = args->topk, pairs = tile->lanes * k;
    int32_t picks[2 * LANES] ALIGNED;
    float weights[2 * LANES] ALIGNED;
    router_two two;
    t->ops.transpose(tile->rows, t->experts, t->scores);
    t->ops.two(t->scores, t->experts, &two);
    if (t->all_scores) {
        memcpy(tile->max, two.value[0], sizeof tile->max);
        exponentials(t->scores, t->experts, tile);
        if (args->aux_score_sums)
            add_columns(t->scores, tile->inverse, t->experts, t->sums);
    }
    weigh_columns(t, tile, &two, picks, weights);
    memcpy(args->indices + tile->first * k, picks, (size_t)pairs * sizeof *picks);
    memcpy(args->weights + tile->first * k, weights, (size_t)pairs * sizeof *weights);
    for (int64_t i = 0; i < pairs; i++)
        if (picks[i] >= 0)
            args->tokens_per_expert[picks[i]]++;
    for (int64_t i = 0; i < pairs && args->aux_counts && args->sequences > 1; i++)
        if (picks[i] >= 0)
            args->aux_counts[i / k % args->sequences * t->experts + picks[i]]++;
}

/* Lane l is of sequence l % sequences, since sequences divides LANES and tiles begin at multiples
 * of LANES. */
static void flush_columns(const tiles *t) {
    for (int64_t e = 0; e < t->experts; e++)
        for (int64_t l = 0; l < LANES; l++)
            t->args->aux_score_sums[l % t->args->sequences * t->experts + e] +=
                (double)t->sums[e * LANES + l];
}

/* ---- more, by rows ------------------------------------------------------------------------- */

/* Fills the rows of scores, exp(logit - max), and the ends of their strides with zeros; partial[l]
 * are sums of row l. */
PGR_CLONES
static void exp_rows(const float *const *rows, int64_t experts, int64_t stride,
                     const float *restrict max, int32_t keep, float *restrict scores,
                     float (*restrict partial)[LANES]) {
    for (int64_t e = 0; e + LANES <= experts; e += LANES) {
        for (int row = 0; row < LANES; row++) {
            const float *restrict in = rows[row] + e;
            float *restrict out = scores + row * stride + e;
            for (int l = 0; l < LANES; l++) {
                float p = exp_of(unpacked(in[l], keep) - max[row]);
                out[l] = p;
                partial[row][l] = p + (e > 0 ? partial[row][l] : 0.0f);
            }
        }
    }
    const int64_t whole = experts & ~(int64_t)(LANES - 1);
    for (int row = 0; row < LANES && whole < experts; row++) {
        float *restrict out = scores + row * stride + whole;
        memset(out, 0, LANES * sizeof *out);
        for (int64_t e = whole; e < experts; e++)
            out[e - whole] = exp_of(unpacked(rows[row][e], keep) - max[row]);
        for (int l = 0; l < LANES; l++)
            partial[row][l] = out[l] + (whole > 0 ? partial[row][l] : 0.0f);
    }
}

/* All scores and their sums. */
static void score_rows(const tiles *t, token_tile *tile, const router_best *best) {
    const int32_t keep = t->packed ? ~0xffff : ~0;
    float partial[LANES][LANES] ALIGNED, columns[LANES][LANES] ALIGNED;
    const float *rows[LANES];
    for (int l = 0; l < LANES; l++) {
        rows[l] = partial[l];
        tile->max[l] = unpacked(best->value[0][l], keep);
        tile->sum[l] = 0;
    }
    exp_rows(tile->rows, t->experts, t->stride, tile->max, keep, t->scores, partial);
    t->ops.transpose(rows, LANES, columns[0]);
    for (int i = 0; i < LANES; i++)
        for (int l = 0; l < LANES; l++)
            tile->sum[l] += columns[i][l];
    for (int l = 0; l < LANES; l++)
        tile->inverse[l] = tile->active[l] / tile->sum[l];
}

typedef float vec16 __attribute__((vector_size(64), aligned(4), may_alias));

/* sums[sequence][e] += probability. */
PGR_CLONES
static void add_rows(const float *restrict scores, const float *restrict inverse, int64_t experts,
                     int64_t stride, int64_t sequences, float *restrict sums) {
    for (int64_t s = 0; s < sequences; s++) {
        for (int64_t first = 0; first < experts; first += LANES) {
            vec16 *sum = (vec16 *)(sums + s * stride + first), total = *sum;
            for (int64_t l = s; l < LANES; l += sequences)
                total += *(const vec16 *)(scores + l * stride + first) * inverse[l];
            *sum = total;
        }
    }
}

/* Where several experts tie at the threshold, the lowest of them fill what is left. */
static void break_ties(const float *row, int64_t experts, float threshold, int64_t topk,
                       int32_t *picks, float *picked) {
    int64_t left = topk, count = 0;
    for (int64_t e = 0; e < experts; e++)
        left -= row[e] > threshold;
    for (int64_t e = 0; e < experts && count < topk; e++) {
        if (row[e] > threshold || (row[e] == threshold && left-- > 0)) {
            picks[count] = (int32_t)e;
            picked[count++] = row[e];
        }
    }
}

/* Weights of the chosen logits, in place. Those beyond topk are computed, not used. */
PGR_CLONES
static void weigh_rows(const tiles *t, const token_tile *tile, router_best *restrict best) {
    const int32_t keep = t->packed ? ~0xffff : ~0;
    float max[LANES] ALIGNED, sum[LANES] ALIGNED = {0}, factor[LANES] ALIGNED;
    for (int l = 0; l < LANES; l++)
        max[l] = unpacked(best->value[0][l], keep);
    if (!t->args->pre_softmax)
        for (int64_t j = 0; j < t->args->topk; j++)
            for (int l = 0; l < LANES; l++)
                sum[l] += exp_of(unpacked(best->value[j][l], keep) - max[l]);
    for (int l = 0; l < LANES; l++)
        factor[l] = t->scaling * (t->args->pre_softmax ? tile->inverse[l] : 1 / sum[l]);
    for (int l = 0; l < LANES; l++)
        for (int j = 0; j < TOPK_MAX; j++)
            best->logit[l][j] = exp_of(unpacked(best->logit[l][j], keep) - max[l]) * factor[l];
}

/* Indices, weights and counts of the tile's tokens. */
PGR_INLINE void emit_rows(const tiles *t, const token_tile *tile, router_best *best,
                          const int64_t k) {
    const pgr_router_args *args = t->args;
    const bool per_sequence = args->aux_counts && args->sequences > 1;
    int64_t *restrict counts = args->tokens_per_expert;
    for (int l = 0; l < tile->lanes; l++) {
        int32_t *restrict indices = args->indices + (tile->first + l) * k;
        int32_t *restrict picks = best->expert[l];
        prefetch_next(t, tile, l);
        if (tile->active[l] == 0) {
            memset(indices, 0xff, (size_t)k * sizeof *indices);
            continue;
        }
        if (best->count[l] != k)
            break_ties(tile->rows[l], t->experts, best->value[k - 1][l], k, picks, best->logit[l]);
        memcpy(indices, picks, (size_t)k * sizeof *indices);
        for (int64_t j = 0; j < k; j++)
            counts[picks[j]]++;
        if (per_sequence)
            for (int64_t j = 0; j < k; j++)
                args->aux_counts[l % args->sequences * t->experts + picks[j]]++;
    }
    weigh_rows(t, tile, best);
    for (int l = 0; l < tile->lanes; l++) {
        float *weights = args->weights + (tile->first + l) * k;
        if (tile->active[l] != 0)
            memcpy(weights, best->logit[l], (size_t)k * sizeof *weights);
        else
            memset(weights, 0, (size_t)k * sizeof *weights);
    }
}

PGR_CLONES
static void emit(const tiles *t, const token_tile *tile, router_best *best) {
    switch (t->args->topk) { /* constants, so that the short loops are unrolled */
    case 4:
        emit_rows(t, tile, best, 4);
        break;
    case 6:
        emit_rows(t, tile, best, 6);
        break;
    case 8:
        emit_rows(t, tile, best, 8);
        break;
    default:
        emit_rows(t, tile, best, t->args->topk);
    }
}

static void route_rows(tiles *t, token_tile *tile) {
    const int64_t k = t->args->topk;
    router_best best;
    t->ops.best(tile->rows, t->experts, k, t->scores, &best);
    t->ops.pick(tile->rows, t->experts, k, &best);
    if (t->all_scores) {
        score_rows(t, tile, &best);
        if (t->args->aux_score_sums)
            add_rows(t->scores, tile->inverse, t->experts, t->stride, t->args->sequences, t->sums);
    }
    emit(t, tile, &best);
}

static void flush_rows(const tiles *t) {
    for (int64_t s = 0; s < t->args->sequences; s++)
        for (int64_t e = 0; e < t->experts; e++)
            t->args->aux_score_sums[s * t->experts + e] += (double)t->sums[s * t->stride + e];
}

/* ---- all tokens ---------------------------------------------------------------------------- */

PGR_CLONES
static double z_squares(const token_tile *tile) {
    float z[LANES] ALIGNED;
    double total = 0;
    for (int l = 0; l < LANES; l++) {
        float log_sum_exp = vec_log(tile->sum[l]) + tile->max[l];
        z[l] = log_sum_exp * log_sum_exp * tile->active[l];
    }
    for (int l = 0; l < LANES; l++)
        total += z[l];
    return total;
}

static void flush(const tiles *t) {
    if (!t->args->aux_score_sums)
        return;
    if (t->args->topk <= 2)
        flush_columns(t);
    else
        flush_rows(t);
    memset(t->sums, 0, (size_t)(t->stride * LANES) * sizeof *t->sums);
}

void pgr_cpu_router_tiles(const pgr_router_args *args, const router_row *row, float *scratch) {
    const int64_t stride = (args->experts + LANES - 1) / LANES * LANES | LANES;
    const bool columns = args->topk <= 2;
    tiles t = {.args = args,
               .ops = pgr_cpu_router_ops(),
               .experts = args->experts,
               .stride = stride,
               .all_scores = args->pre_softmax || args->aux_score_sums || args->z_sum,
               .packed = args->dtype == PGR_BF16 && !columns,
               .scaling = isnan(args->scaling) ? 1.0f : (float)args->scaling,
               .scores = scratch,
               .sums = scratch + LANES * stride,
               .wide = scratch + 2 * LANES * stride,
               .zeros = scratch + 3 * LANES * stride};
    memset(t.sums, 0, (size_t)(LANES * stride) * sizeof *t.sums);
    memset(t.zeros, 0, (size_t)stride * sizeof *t.zeros);
    pgr_router_args plain = *args; /* with one sequence, aux_counts are filled at the end */
    if (args->sequences == 1)
        plain.aux_counts = NULL;
    for (int64_t first = 0, count = 0; first < args->tokens; first += LANES) {
        token_tile tile;
        if (!load(&t, first, &tile)) {
            for (int l = 0; l < tile.lanes; l++)
                pgr_cpu_router_token(row, &plain, first + l);
            continue;
        }
        if (columns)
            route_columns(&t, &tile);
        else
            route_rows(&t, &tile);
        if (args->z_sum)
            t.z += z_squares(&tile);
        if (++count % FLUSH_TILES == 0)
            flush(&t);
    }
    flush(&t);
    if (args->z_sum)
        *args->z_sum += t.z;
    if (args->aux_counts && args->sequences == 1)
        memcpy(args->aux_counts, args->tokens_per_expert, (size_t)args->experts * sizeof(int64_t));
}
