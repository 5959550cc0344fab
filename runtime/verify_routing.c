/* verify_routing.c - the router's decisions in double precision, written for being read: sorted
 * insertion, no instruction sets. A choice is compared exactly unless rounding on the device may
 * turn it; then whatever rounding cannot turn is. */
#include "verify_routing.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Twice 16 units of f32: a score function's few roundings, an exponential of reduced accuracy, the
 * sum with the bias. Of the largest score of the token, so that it is the same for all experts. */
static const double SLACK = 0x1p-19;

/* What Megatron-Core adds to a sum of scores that it divides by. */
static const double GUARD = 1e-20;

/* ---- making -------------------------------------------------------------------------------- */

static int64_t group_count(const pgr_router_config *config) {
    return config->groups > 0 && config->group_topk > 0 ? config->groups : 0;
}

pgr_status pgr_routing_reference_create(const pgr_router_config *config, const float *expert_bias,
                                        pgr_routing_reference *reference, pgr_error *error) {
    size_t experts = (size_t)config->experts, groups = (size_t)group_count(config);
    size_t most = experts > groups ? experts : groups;
    pgr_routing_reference made = {
        .config = config,
        .expert_bias = expert_bias ? malloc(experts * sizeof(float)) : NULL,
        .score = malloc(experts * sizeof(double)),
        .rank = malloc(experts * sizeof(double)),
        .value = malloc(most * sizeof(double)),
        .best = malloc((most + 1) * sizeof(int64_t)),
        .allowed = malloc(most),
        .group_open = malloc(groups + 1),
    };
    if ((expert_bias && !made.expert_bias) || !made.score || !made.rank || !made.value ||
        !made.best || !made.allowed || !made.group_open) {
        pgr_routing_reference_free(&made);
        return pgr_error_set(error, PGR_LIMIT, "no memory to verify the choice of %zu experts",
                             experts);
    }
    if (expert_bias)
        memcpy(made.expert_bias, expert_bias, experts * sizeof(float));
    *reference = made;
    return PGR_OK;
}

void pgr_routing_reference_free(pgr_routing_reference *reference) {
    free(reference->expert_bias);
    free(reference->score);
    free(reference->rank);
    free(reference->value);
    free(reference->best);
    free(reference->allowed);
    free(reference->group_open);
    *reference = (pgr_routing_reference){0};
}

/* ---- one token's scores -------------------------------------------------------------------- */

/* Of sigmoid and sqrtsoftplus. */
static double score_of(pgr_score score, double logit) {
    if (score == PGR_SIGMOID)
        return 1 / (1 + exp(-logit));
    return sqrt(logit > 0 ? logit + log1p(exp(-logit)) : log1p(exp(logit))); /* softplus */
}

void pgr_routing_reference_read(pgr_routing_reference *reference, const float *logits) {
    const pgr_router_config *config = reference->config;
    bool softmax = config->score == PGR_SOFTMAX;
    double sum = 0, largest = -INFINITY, exponentials = 0;
    for (int64_t e = 0; e < config->experts; e++)
        largest = fmax(largest, logits[e]);
    for (int64_t e = 0; e < config->experts; e++)
        exponentials += exp(logits[e] - largest);
    reference->logits = logits;
    reference->log_sum_exp = largest + log(exponentials);
    reference->most_score = reference->most_rank = 0;
    for (int64_t e = 0; e < config->experts; e++) {
        double score =
            softmax ? exp(logits[e] - largest) / exponentials : score_of(config->score, logits[e]);
        double bias = reference->expert_bias ? reference->expert_bias[e] : 0;
        reference->score[e] = score;
        reference->rank[e] = softmax ? logits[e] : score + bias;
        reference->most_score = fmax(reference->most_score, score);
        reference->most_rank = fmax(reference->most_rank, score + fabs(bias));
        sum += score;
    }
    reference->score_sum = softmax ? 1 : sum + GUARD;
}

/* ---- choosing ------------------------------------------------------------------------------ */

/* Whether a comes before b: NaN first, then the larger, then the lower index. */
static bool before(const double *value, int64_t a, int64_t b) {
    bool a_nan = isnan(value[a]), b_nan = isnan(value[b]);
    if (a_nan != b_nan)
        return a_nan;
    if (!a_nan && value[a] != value[b])
        return value[a] > value[b];
    return a < b;
}

/* The first `take` of those that are allowed (NULL: all), in order, into `best`; returns how many
 * there are. */
static int64_t first_of(const double *value, int64_t count, const uint8_t *allowed, int64_t take,
                        int64_t *best) {
    int64_t found = 0;
    for (int64_t i = 0; i < count; i++) {
        if (allowed && !allowed[i])
            continue;
        int64_t at = found;
        while (at > 0 && before(value, i, best[at - 1]))
            at--;
        if (at == take)
            continue;
        int64_t last = found < take ? found++ : take - 1;
        memmove(best + at + 1, best + at, (size_t)(last - at) * sizeof *best);
        best[at] = i;
    }
    return found;
}

typedef enum standing { OUT, OPEN, IN } standing;

/* Who is among the first `take`: `last` is the value of the one that just is, `next` of the one
 * that just is not. Those whose distance is no more than `slack` from the other side are open. */
typedef struct cut {
    double last, next, slack;
} cut;

static cut cut_at(const double *value, const int64_t *best, int64_t take, int64_t found,
                  double slack) {
    double last = found < take ? -INFINITY : value[best[take - 1]];
    return (cut){last, found > take ? value[best[take]] : -INFINITY, slack};
}

static bool is_sure(const cut *c) {
    return c->slack == 0 || c->next == -INFINITY || c->last - c->next > c->slack;
}

static standing stands(const cut *c, double value) {
    if (isnan(value) || value - c->next > c->slack)
        return IN;
    return c->last - value > c->slack ? OUT : OPEN;
}

/* ---- groups -------------------------------------------------------------------------------- */

/* A group's score: the sum of its topk / group_topk highest. Source: megatron/core/transformer/moe/
 * moe_utils.py, group_limited_topk. */
static double group_score(pgr_routing_reference *reference, const double *score, int64_t group) {
    const pgr_router_config *config = reference->config;
    int64_t size = config->experts / config->groups, count = config->topk / config->group_topk;
    double sum = 0;
    int64_t found = first_of(score + group * size, size, NULL, count, reference->best);
    for (int64_t i = 0; i < found; i++)
        sum += score[group * size + reference->best[i]];
    return sum;
}

/* The highest rank of a group's experts. */
static double group_peak(const pgr_routing_reference *reference, int64_t group) {
    int64_t size = reference->config->experts / reference->config->groups;
    double peak = -INFINITY;
    for (int64_t e = group * size; e < (group + 1) * size; e++)
        peak = fmax(peak, reference->rank[e]);
    return peak;
}

/* Takes `left` more of the open groups: first those that `indices` come from, then those whose best
 * experts are the least, which says the least against `indices`. */
static void take_open_groups(pgr_routing_reference *reference, const int32_t *indices, int64_t left,
                             uint8_t *taken) {
    const pgr_router_config *config = reference->config;
    int64_t size = config->experts / config->groups;
    for (int64_t i = 0; i < config->topk && left > 0; i++) {
        int64_t group = indices[i] < 0 ? -1 : indices[i] / size;
        if (group < 0 || group >= config->groups || !reference->group_open[group])
            continue;
        reference->group_open[group] = 0;
        taken[group] = 1;
        left--;
    }
    for (; left > 0; left--) {
        int64_t least = -1;
        double lowest = INFINITY;
        for (int64_t g = 0; g < config->groups; g++) {
            double peak = reference->group_open[g] ? group_peak(reference, g) : INFINITY;
            if (peak < lowest)
                lowest = peak, least = g;
        }
        if (least < 0)
            return;
        reference->group_open[least] = 0;
        taken[least] = 1;
    }
}

/* Marks the experts of the groups that take part. Where rounding may turn the choice of groups,
 * what `indices` came from is taken. */
static void allow_groups(pgr_routing_reference *reference, const int32_t *indices) {
    const pgr_router_config *config = reference->config;
    int64_t groups = config->groups, size = config->experts / groups, sure = 0;
    int64_t count = config->topk / config->group_topk;
    bool softmax = config->score == PGR_SOFTMAX;
    const double *score = softmax && config->pre_softmax ? reference->score : reference->rank;
    double most = 0;
    for (int64_t e = 0; e < config->experts; e++)
        most = fmax(most, fabs(score[e]));
    for (int64_t g = 0; g < groups; g++)
        reference->value[g] = group_score(reference, score, g);
    int64_t found =
        first_of(reference->value, groups, NULL, config->group_topk + 1, reference->best);
    bool exact = softmax && !config->pre_softmax && count <= 1; /* a logit, or nothing */
    cut c = cut_at(reference->value, reference->best, config->group_topk, found,
                   exact ? 0 : SLACK * most * (double)(count + 1));
    uint8_t *taken = reference->allowed;
    memset(taken, 0, (size_t)groups);
    if (is_sure(&c)) {
        for (int64_t i = 0; i < config->group_topk && i < found; i++)
            taken[reference->best[i]] = 1;
    } else {
        for (int64_t g = 0; g < groups; g++) {
            standing s = stands(&c, reference->value[g]);
            taken[g] = s == IN;
            reference->group_open[g] = s == OPEN;
            sure += s == IN;
        }
        take_open_groups(reference, indices, config->group_topk - sure, taken);
    }
    for (int64_t e = config->experts - 1; e >= 0;
         e--) /* downwards: groups become experts in place */
        reference->allowed[e] = taken[e / size];
}

/* ---- indices ------------------------------------------------------------------------------- */

/* Whether a lower expert with the very same inputs was passed over for this one. */
static bool passed_over(const pgr_routing_reference *reference, const uint8_t *chosen,
                        int64_t expert) {
    for (int64_t e = 0; e < expert; e++) {
        bool same_bias =
            !reference->expert_bias || reference->expert_bias[e] == reference->expert_bias[expert];
        if (same_bias && reference->logits[e] == reference->logits[expert] &&
            reference->allowed[e] && !chosen[e])
            return true;
    }
    return false;
}

/* Indices that rounding may turn: ascending, all that must be there, none that must not. */
static int64_t wrong_of_open(pgr_routing_reference *reference, const cut *c,
                             const int32_t *indices) {
    const pgr_router_config *config = reference->config;
    uint8_t *chosen = (uint8_t *)reference->value; /* [experts] of the doubles' bytes */
    int64_t wrong = 0;
    memset(chosen, 0, (size_t)config->experts);
    for (int64_t i = 0; i < config->topk; i++) {
        bool good = indices[i] >= 0 && indices[i] < config->experts &&
                    (i == 0 || indices[i] > indices[i - 1]);
        if (good)
            chosen[indices[i]] = 1;
        wrong += !good;
    }
    for (int64_t e = 0; e < config->experts; e++) {
        standing s = reference->allowed[e] ? stands(c, reference->rank[e]) : OUT;
        wrong += chosen[e] ? s == OUT || (s == OPEN && passed_over(reference, chosen, e)) : s == IN;
    }
    return wrong;
}

static int compare_indices(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int64_t pgr_routing_reference_wrong(pgr_routing_reference *reference, const int32_t *indices) {
    const pgr_router_config *config = reference->config;
    if (group_count(config))
        allow_groups(reference, indices);
    else
        memset(reference->allowed, 1, (size_t)config->experts);
    int64_t found = first_of(reference->rank, config->experts, reference->allowed, config->topk + 1,
                             reference->best);
    double slack = config->score == PGR_SOFTMAX ? 0 : SLACK * reference->most_rank;
    cut c = cut_at(reference->rank, reference->best, config->topk, found, slack);
    if (!is_sure(&c))
        return wrong_of_open(reference, &c, indices);
    int64_t wrong = 0, count = found < config->topk ? found : config->topk;
    qsort(reference->best, (size_t)count, sizeof *reference->best, compare_indices);
    for (int64_t i = 0; i < config->topk; i++)
        wrong += i >= count || indices[i] != reference->best[i];
    return wrong;
}

/* ---- weights and counts -------------------------------------------------------------------- */

void pgr_routing_reference_weigh(const pgr_routing_reference *reference, const int32_t *indices,
                                 double *weights) {
    const pgr_router_config *config = reference->config;
    bool softmax = config->score == PGR_SOFTMAX;
    bool over_chosen = softmax && !config->pre_softmax;
    double scaling = isnan(config->scaling) ? 1 : config->scaling, sum = 0, most = -INFINITY;
    for (int64_t i = 0; i < config->topk; i++)
        if (indices[i] >= 0 && indices[i] < config->experts)
            most = fmax(most, reference->logits[indices[i]]);
    for (int64_t i = 0; i < config->topk; i++) {
        weights[i] = 0;
        if (indices[i] >= 0 && indices[i] < config->experts)
            weights[i] = over_chosen ? exp(reference->logits[indices[i]] - most)
                                     : reference->score[indices[i]];
        sum += weights[i];
    }
    if (!softmax)
        sum += GUARD;
    if (softmax ? config->pre_softmax : config->topk == 1)
        sum = 1; /* weights as they are */
    for (int64_t i = 0; i < config->topk; i++)
        weights[i] *= scaling / sum;
}

void pgr_routing_reference_count(pgr_routing_reference *reference, int64_t *least, int64_t *most) {
    const pgr_router_config *config = reference->config;
    bool softmax = config->score == PGR_SOFTMAX;
    for (int64_t e = 0; e < config->experts; e++)
        reference->value[e] = softmax ? reference->logits[e] : reference->score[e];
    int64_t found =
        first_of(reference->value, config->experts, NULL, config->topk + 1, reference->best);
    cut c = cut_at(reference->value, reference->best, config->topk, found,
                   softmax ? 0 : SLACK * reference->most_score);
    if (is_sure(&c)) {
        for (int64_t i = 0; i < config->topk && i < found; i++) {
            least[reference->best[i]]++;
            most[reference->best[i]]++;
        }
        return;
    }
    for (int64_t e = 0; e < config->experts; e++) {
        standing s = stands(&c, reference->value[e]);
        least[e] += s == IN;
        most[e] += s != OUT;
    }
}
