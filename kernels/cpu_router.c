/* cpu_router.c - the MoE router: scores, top-k, weights and the sums of its losses. This file is
 * the plain form, a token at a time, for every score function; cpu_router_tile.c is a fast form of
 * the commonest case that must agree with it. */
#include "cpu_router.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"
#include "router.h"

/* An integer that orders floats: -0 equals 0, every NaN equals every other and ranks highest. */
static int32_t order_key(float value) {
    if (value != value)
        return INT32_MAX;
    int32_t bits;
    value += 0.0f; /* -0 becomes 0 */
    memcpy(&bits, &value, sizeof bits);
    return bits < 0 ? bits ^ INT32_MAX : bits;
}

static float logit(const pgr_router_args *args, int64_t token, int64_t expert) {
    int64_t at = token * args->experts + expert;
    return args->dtype == PGR_F32 ? ((const float *)args->logits)[at]
                                  : pgr_bf16_to_f32(((const pgr_bf16 *)args->logits)[at]);
}

/* The `count` indices with the highest keys, into `best` from the highest down, the lowest index
 * first where keys are equal; returns how many there are. By insertion: most keys are below the
 * last of `best` and cost one comparison. */
static int64_t highest(const int32_t *key, int64_t size, int64_t count, int32_t *best) {
    int64_t found = 0;
    for (int64_t e = 0; e < size; e++) {
        if (found == count && (count == 0 || key[e] <= key[best[count - 1]]))
            continue;
        int64_t at = found < count ? found++ : count - 1;
        for (; at > 0 && key[e] > key[best[at - 1]]; at--)
            best[at] = best[at - 1];
        best[at] = (int32_t)e;
    }
    return found;
}

/* The `topk` experts with the highest keys, the lowest expert first where keys are equal; ascending
 * in `picks`. */
static void choose(const int32_t *key, int64_t experts, int64_t topk, int32_t *picks) {
    int64_t found = highest(key, experts, topk, picks);
    for (int64_t j = 1; j < found; j++) {
        int32_t expert = picks[j];
        int64_t at = j;
        for (; at > 0 && picks[at - 1] > expert; at--)
            picks[at] = picks[at - 1];
        picks[at] = expert;
    }
}

/* A group's score: the sum of its `count` highest scores, whose keys are `key`. `best` is scratch.
 */
static float group_score(const float *score, const int32_t *key, int64_t size, int64_t count,
                         int32_t *best) {
    float sum = 0;
    int64_t found = highest(key, size, count, best);
    for (int64_t j = 0; j < found; j++)
        sum += score[best[j]];
    return sum;
}

/* Lowers the keys of experts outside of the best `group_topk` groups below every real key; a group
 * counts the sum of its topk / group_topk highest scores. Source: megatron/core/transformer/moe/
 * moe_utils.py, group_limited_topk. */
static void limit_groups(const router_row *row, const pgr_router_args *args, const float *ranked) {
    int64_t groups = args->groups, size = args->experts / groups;
    int64_t count = args->topk / args->group_topk;
    const float *score = ranked;
    const int32_t *key = row->key;
    if (args->score == PGR_SOFTMAX && args->pre_softmax) { /* ranked are the logits */
        for (int64_t e = 0; e < args->experts; e++)
            row->score_key[e] = order_key(row->score[e]);
        score = row->score;
        key = row->score_key;
    }
    for (int64_t g = 0; g < groups; g++)
        row->group_key[g] =
            order_key(group_score(score + g * size, key + g * size, size, count, row->group_picks));
    choose(row->group_key, groups, args->group_topk, row->group_picks);
    for (int64_t g = 0, next = 0; g < groups; g++) {
        if (next < args->group_topk && row->group_picks[next] == g) {
            next++;
            continue;
        }
        for (int64_t e = g * size; e < (g + 1) * size; e++)
            row->key[e] = INT32_MIN;
    }
}

/* Fills row->score with softmax over all experts, or the score function, and returns the sum that
 * normalises it (softmax: 1); *log_sum_exp as the name says. */
static double scores(const router_row *row, const pgr_router_args *args, double *log_sum_exp) {
    float max = -INFINITY;
    double sum = 0, total = 0;
    for (int64_t e = 0; e < args->experts; e++)
        max = row->logit[e] > max || row->logit[e] != row->logit[e] ? row->logit[e] : max;
    for (int64_t e = 0; e < args->experts; e++) {
        row->score[e] = score_exp_below(row->logit[e] - max);
        sum += row->score[e];
    }
    *log_sum_exp = log(sum) + max;
    for (int64_t e = 0; e < args->experts; e++) {
        row->score[e] = args->score == PGR_SOFTMAX ? (float)(row->score[e] / sum)
                                                   : score_of(args->score, row->logit[e]);
        total += row->score[e];
    }
    return args->score == PGR_SOFTMAX ? 1 : total + 1e-20; /* 1e-20: Megatron's guard */
}

/* The weights of the chosen experts. */
static void weigh(const router_row *row, const pgr_router_args *args, const int32_t *picks,
                  float *weights) {
    const int64_t k = args->topk;
    double sum = 0, scaling = isnan(args->scaling) ? 1 : args->scaling;
    if (args->score == PGR_SOFTMAX && !args->pre_softmax) {
        float max = -INFINITY;
        for (int64_t j = 0; j < k; j++)
            max = row->logit[picks[j]] > max ? row->logit[picks[j]] : max;
        for (int64_t j = 0; j < k; j++)
            sum += weights[j] = expf(row->logit[picks[j]] - max);
    } else {
        for (int64_t j = 0; j < k; j++)
            sum += weights[j] = row->score[picks[j]];
        sum = args->score == PGR_SOFTMAX || k == 1 ? 1 : sum + 1e-20;
    }
    for (int64_t j = 0; j < k; j++)
        weights[j] = (float)(weights[j] / sum * scaling);
}

void pgr_cpu_router_token(const router_row *row, const pgr_router_args *args, int64_t token) {
    const int64_t experts = args->experts, k = args->topk;
    int32_t *picks = args->indices + token * k, *aux_picks = picks;
    float *weights = args->weights + token * k;
    if (args->valid && !args->valid[token]) {
        for (int64_t j = 0; j < k; j++) {
            picks[j] = -1;
            weights[j] = 0;
        }
        return;
    }
    for (int64_t e = 0; e < experts; e++)
        row->logit[e] = logit(args, token, e);
    double log_sum_exp, total = scores(row, args, &log_sum_exp);

    bool grouped = args->groups > 0 && args->group_topk > 0;
    const float *ranked = args->score == PGR_SOFTMAX ? row->logit : row->score;
    for (int64_t e = 0; e < experts; e++)
        row->key[e] = order_key(ranked[e]);
    bool aux = args->aux_counts || args->aux_score_sums;
    if (aux && (grouped || args->expert_bias)) {
        aux_picks = row->aux_picks;
        choose(row->key, experts, k, aux_picks);
    }
    if (args->expert_bias && args->score != PGR_SOFTMAX) {
        for (int64_t e = 0; e < experts; e++) {
            row->biased[e] = row->score[e] + args->expert_bias[e];
            row->key[e] = order_key(row->biased[e]);
        }
        ranked = row->biased;
    }
    if (grouped)
        limit_groups(row, args, ranked);
    choose(row->key, experts, k, picks);
    weigh(row, args, picks, weights);

    for (int64_t j = 0; j < k; j++)
        args->tokens_per_expert[picks[j]]++;
    int64_t base = token % args->sequences * experts;
    if (args->aux_counts)
        for (int64_t j = 0; j < k; j++)
            args->aux_counts[base + aux_picks[j]]++;
    if (args->aux_score_sums)
        for (int64_t e = 0; e < experts; e++)
            args->aux_score_sums[base + e] += row->score[e] / total;
    if (args->z_sum)
        *args->z_sum += log_sum_exp * log_sum_exp;
}

/* Cuts one allocation into the arrays of a row. */
static pgr_status row_scratch(pgr_device *device, int64_t experts, router_row *row,
                              pgr_error *error) {
    void *memory;
    const int64_t arrays = 8;
    pgr_status status =
        pgr_cpu_scratch(device, CPU_SCRATCH_ROUTER, experts * arrays * 4, &memory, error);
    if (status != PGR_OK)
        return status;
    float *at = memory;
    row->logit = at;
    row->score = at + experts;
    row->biased = at + 2 * experts;
    row->key = (int32_t *)(at + 3 * experts);
    row->aux_picks = (int32_t *)(at + 4 * experts);
    row->group_key = (int32_t *)(at + 5 * experts);
    row->group_picks = (int32_t *)(at + 6 * experts);
    row->score_key = (int32_t *)(at + 7 * experts);
    return PGR_OK;
}

pgr_status pgr_cpu_router(pgr_device *device, const pgr_router_args *args, pgr_stream *stream,
                          pgr_error *error) {
    (void)stream;
    router_row row;
    void *tile = NULL;
    pgr_status status = pgr_router_check(args, error);
    if (status == PGR_OK)
        status = row_scratch(device, args->experts, &row, error);
    if (status == PGR_OK && pgr_cpu_router_tiled(args))
        status = pgr_cpu_scratch(device, CPU_SCRATCH_TILE, pgr_cpu_router_tile_floats(args) * 4,
                                 &tile, error);
    if (status != PGR_OK)
        return status;
    size_t sums = (size_t)(args->sequences * args->experts);
    memset(args->tokens_per_expert, 0, (size_t)args->experts * sizeof(int64_t));
    if (args->aux_counts)
        memset(args->aux_counts, 0, sums * sizeof(int64_t));
    if (args->aux_score_sums)
        memset(args->aux_score_sums, 0, sums * sizeof(double));
    if (args->z_sum)
        *args->z_sum = 0;
    if (tile) {
        pgr_cpu_router_tiles(args, &row, tile);
        return PGR_OK;
    }
    for (int64_t token = 0; token < args->tokens; token++)
        pgr_cpu_router_token(&row, args, token);
    return PGR_OK;
}

/* ---- capacity ------------------------------------------------------------------------------ */

/* A routed pair, for sorting those of one expert. */
typedef struct routed {
    float weight;
    int32_t expert;
    int64_t at; /* token * topk + choice: ascending in the token */
} routed;

static int by_weight(const void *a, const void *b) {
    const routed *x = a, *y = b;
    if (x->expert != y->expert)
        return x->expert < y->expert ? -1 : 1;
    int32_t kx = order_key(x->weight), ky = order_key(y->weight);
    if (kx != ky)
        return kx > ky ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static pgr_status keep_by_weight(const pgr_capacity_args *args, pgr_error *error) {
    int64_t pairs = args->tokens * args->topk, count = 0;
    routed *sorted = malloc((size_t)(pairs > 0 ? pairs : 1) * sizeof *sorted);
    if (!sorted)
        return pgr_error_set(error, PGR_LIMIT,
                             "no memory to sort %" PRId64 " routed tokens (%" PRId64 " bytes)",
                             pairs, pairs * (int64_t)sizeof *sorted);
    for (int64_t i = 0; i < pairs; i++)
        if (args->indices[i] >= 0)
            sorted[count++] = (routed){args->weights[i], args->indices[i], i};
    qsort(sorted, (size_t)count, sizeof *sorted, by_weight);
    for (int64_t i = 0, first = 0; i < count; i++) {
        first = sorted[i].expert == sorted[first].expert ? first : i;
        args->kept[sorted[i].at] = i - first < args->capacity;
    }
    free(sorted);
    return PGR_OK;
}

static pgr_status keep_by_position(const pgr_capacity_args *args, pgr_error *error) {
    int64_t *held = calloc((size_t)args->experts, sizeof *held);
    if (!held)
        return pgr_error_set(error, PGR_LIMIT, "no memory to count %" PRId64 " experts",
                             args->experts);
    for (int64_t i = 0; i < args->tokens * args->topk; i++)
        if (args->indices[i] >= 0)
            args->kept[i] = held[args->indices[i]]++ < args->capacity;
    free(held);
    return PGR_OK;
}

pgr_status pgr_cpu_capacity(pgr_device *device, const pgr_capacity_args *args, pgr_stream *stream,
                            pgr_error *error) {
    (void)device, (void)stream;
    memset(args->kept, 0, (size_t)(args->tokens * args->topk));
    return args->policy == PGR_DROP_PROBS ? keep_by_weight(args, error)
                                          : keep_by_position(args, error);
}
