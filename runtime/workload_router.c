/* workload_router.c - gating, top-k and the losses, every decision against the rank's own logits.
 */
#include "random.h"
#include "verify_routing.h"
#include "workload_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct routing_state {
    pgr_site *site;
    const pgr_spec *spec;
    pgr_inputs inputs;
    pgr_router *router;
    pgr_routing routing;
    pgr_reference_linear gate;
} routing_state;

static pgr_status create(routing_state *state, pgr_error *error) {
    const pgr_spec *spec = state->spec;
    pgr_site *site = state->site;
    pgr_tokens tokens;
    pgr_status status = pgr_tokens_create(spec, site->plan, site->job->rank, true, &tokens, error);
    if (!status)
        status = pgr_inputs_create(site, &tokens, spec->model.hidden, spec->model.dtype,
                                   &state->inputs, error);
    if (status)
        return status;
    pgr_router_config config = {
        .name = "router",
        .hidden = spec->model.hidden,
        .experts = spec->moe.experts,
        .topk = spec->moe.topk,
        .score = spec->moe.score,
        .pre_softmax = spec->moe.pre_softmax,
        .groups = spec->moe.groups,
        .group_topk = spec->moe.group_topk,
        .scaling = spec->moe.scaling,
        .expert_bias = spec->moe.expert_bias,
        .aux_loss_type = spec->moe.aux_loss_type,
        .aux_loss_coeff = spec->moe.aux_loss_coeff,
        .z_loss_coeff = spec->moe.z_loss_coeff,
        .capacity_factor = spec->moe.capacity_factor,
        .drop_policy = spec->moe.drop_policy,
        .dtype = spec->model.dtype,
        .sequence_parallel = spec->parallel.sequence_parallel,
        .rows = tokens.rows,
        .batch = tokens.batch,
    };
    status = pgr_router_create(site, &config, &state->router, error);
    if (status)
        return status;
    state->gate = (pgr_reference_linear){
        .weight = {site->seed, pgr_random_tensor("router.weight"), state->router->exponent},
        .input = config.hidden,
        .output = config.experts,
        .activation = PGR_NO_ACTIVATION,
        .dtype = config.dtype,
    };
    return PGR_OK;
}

static void destroy(routing_state *state) {
    pgr_router_free(state->site, state->router);
    pgr_inputs_free(state->site, &state->inputs);
}

static pgr_status prepare(void *context, int64_t micro_batch, pgr_error *error) {
    routing_state *state = context;
    pgr_status status = pgr_inputs_fill(state->site, &state->inputs, micro_batch, error);
    return status ? status : pgr_router_poison(state->site, state->router, error);
}

static pgr_status forward(void *context, pgr_error *error) {
    routing_state *state = context;
    return pgr_router_forward(state->site, state->router, state->inputs.x, state->inputs.valid,
                              NULL, &state->routing, error);
}

/* ---- verification -------------------------------------------------------------------------- */

static pgr_status holding(void *context, int64_t rank, pgr_holding *out, pgr_error *error) {
    const routing_state *state = context;
    out->first_feature = 0;
    out->count = state->router->config.experts;
    return pgr_tokens_create(state->spec, state->site->plan, rank, true, &out->tokens, error);
}

static pgr_status verify_logits(routing_state *state, int64_t micro_batch, pgr_verdict *verdict,
                                pgr_error *error) {
    pgr_features_args args = {
        .what = "logits",
        .layer = &state->gate,
        .input = state->inputs.random,
        .micro_batch = micro_batch,
        .holding = holding,
        .context = state,
        .out = state->router->logits,
        .out_dtype = PGR_F32,
        .tolerance = pgr_tolerance(PGR_F32, (double)state->router->config.hidden, 1),
    };
    return pgr_verify_features(state->site, &args, verdict, error);
}

/* All logits, by Freivalds' method: the decisions below trust them. */
static pgr_status verify_gate(const routing_state *state, pgr_verdict *verdict, pgr_error *error) {
    const pgr_router *router = state->router;
    const pgr_router_config *config = &router->config;
    pgr_linear_args args = {
        .x = state->inputs.x,
        .w = router->weight,
        .y = router->logits,
        .m = config->rows,
        .n = config->experts,
        .k = config->hidden,
        .ldx = config->hidden,
        .ldw = config->hidden,
        .ldy = config->experts,
        .dtype = config->dtype,
        .y_dtype = PGR_F32,
    };
    return pgr_verify_product(state->site, "gating product", &args,
                              pgr_tolerance(PGR_F32, (double)config->hidden, 1), verdict, error);
}

/* Whether ranks along this axis count their tokens together. */
static bool counts_together(const pgr_router_config *config, const char *axis) {
    return strcmp(axis, "cp") == 0 || (config->sequence_parallel && strcmp(axis, "tp") == 0) ||
           (config->aux_loss_type == PGR_GLOBAL_AUX_LOSS && strcmp(axis, "dp") == 0);
}

/* Whose tokens the losses count together, by coordinates: all ranks of a pipeline stage, of one
 * data-parallel rank unless the loss is global; without sequence parallelism tp ranks hold copies,
 * as those of any other axis of a grid do, and each set of copies is a group of its own. */
static int64_t loss_groups(const routing_state *state, int64_t *own) {
    const pgr_view *view = &state->site->plan->views[PGR_VIEW_DENSE];
    int64_t rank = state->site->job->rank, groups = 1, index = 0;
    for (int32_t i = 0; i < view->axis_count; i++) {
        const pgr_axis *axis = &view->axes[i];
        if (counts_together(&state->router->config, axis->name))
            continue;
        index = index * axis->size + rank / axis->stride % axis->size;
        groups *= axis->size;
    }
    *own = index;
    return groups;
}

/* The rank's own results on the host, and what the reference makes of its logits. */
typedef struct decisions {
    float *logits, *weights;
    int32_t *indices;
    uint8_t *kept;
    int64_t *tokens_per_expert;
    int64_t *aux_counts;           /* [sequences, experts] */
    double *want_weights;          /* [topk] of one token */
    int64_t *want_counts;          /* [experts], of the indices */
    int64_t *aux_least, *aux_most; /* [sequences, experts] */
    pgr_routing_reference reference;
    double *loss_sums;   /* [loss groups][sequences][2 * experts + 1]: counts, scores, z sum */
    int64_t loss_stride; /* doubles per loss group */
    int64_t loss_group, loss_groups; /* this rank's, by coordinates; how many there are */
} decisions;

static pgr_status fetch(const routing_state *state, void *host, const void *device, int64_t bytes,
                        pgr_error *error) {
    return state->site->device->ops->copy(state->site->device, host, device, bytes,
                                          state->site->stream, error);
}

static pgr_status fetch_results(const routing_state *state, decisions *seen, pgr_error *error) {
    const pgr_router *router = state->router;
    int64_t rows = router->config.rows, experts = router->config.experts;
    int64_t chosen = rows * router->config.topk;
    pgr_status status =
        fetch(state, seen->logits, router->logits, rows * experts * (int64_t)sizeof(float), error);
    if (!status)
        status =
            fetch(state, seen->weights, router->weights, chosen * (int64_t)sizeof(float), error);
    if (!status)
        status =
            fetch(state, seen->indices, router->indices, chosen * (int64_t)sizeof(int32_t), error);
    if (!status)
        status = fetch(state, seen->tokens_per_expert, router->tokens_per_expert,
                       experts * (int64_t)sizeof(int64_t), error);
    if (!status)
        status = fetch(state, seen->aux_counts, router->aux_counts,
                       router->sequences * experts * (int64_t)sizeof(int64_t), error);
    if (!status && router->kept)
        status = fetch(state, seen->kept, router->kept, chosen, error);
    if (!status)
        status =
            state->site->device->ops->stream_sync(state->site->device, state->site->stream, error);
    return status;
}

/* Adds one token to the sums that the losses need, all but the counts. */
static void add_to_losses(const routing_state *state, decisions *seen, int64_t row) {
    const pgr_router *router = state->router;
    pgr_routing_reference *reference = &seen->reference;
    int64_t experts = router->config.experts, sequence = row % router->sequences;
    double *sums =
        seen->loss_sums + seen->loss_group * seen->loss_stride + sequence * (2 * experts + 1);
    pgr_routing_reference_count(reference, seen->aux_least + sequence * experts,
                                seen->aux_most + sequence * experts);
    for (int64_t e = 0; e < experts; e++)
        sums[experts + e] += reference->score[e] / reference->score_sum;
    sums[2 * experts] += reference->log_sum_exp * reference->log_sum_exp;
}

/* One token's indices and its weights; returns the number of wrong indices. */
static int64_t check_token(const routing_state *state, decisions *seen, int64_t row,
                           pgr_verdict *verdict) {
    const pgr_router_config *config = &state->router->config;
    const int32_t *indices = seen->indices + row * config->topk;
    const float *weights = seen->weights + row * config->topk;
    double tolerance = 64 * 0x1p-24;
    int64_t wrong = 0;
    if (!state->inputs.host_valid[row]) {
        for (int64_t i = 0; i < config->topk; i++)
            wrong += indices[i] != -1 || weights[i] != 0;
        return wrong;
    }
    pgr_routing_reference_read(&seen->reference, seen->logits + row * config->experts);
    wrong = pgr_routing_reference_wrong(&seen->reference, indices);
    pgr_routing_reference_weigh(&seen->reference, indices, seen->want_weights);
    add_to_losses(state, seen, row);
    for (int64_t i = 0; i < config->topk; i++) {
        if (indices[i] >= 0 && indices[i] < config->experts)
            seen->want_counts[indices[i]]++;
        pgr_verdict_compare(verdict, "weights", row, i, weights[i], seen->want_weights[i],
                            isnan(config->scaling) ? 1 : fabs(config->scaling), tolerance);
    }
    return wrong;
}

static void check_tokens(const routing_state *state, decisions *seen, pgr_verdict *verdict) {
    const pgr_router_config *config = &state->router->config;
    int64_t wrong = 0, first = -1;
    for (int64_t row = 0; row < config->rows; row++) {
        int64_t here = check_token(state, seen, row, verdict);
        if (here && first < 0)
            first = row;
        wrong += here;
    }
    pgr_verdict_exact(verdict, "indices", config->rows * config->topk, wrong, first, -1,
                      (double)wrong, 0);
    for (int64_t e = 0; e < config->experts; e++)
        pgr_verdict_exact(verdict, "tokens per expert", 1,
                          llabs(seen->tokens_per_expert[e] - seen->want_counts[e]), -1, e,
                          (double)seen->tokens_per_expert[e], (double)seen->want_counts[e]);
}

/* The counts of the auxiliary loss's own top-k, which the losses below are then made of. */
static void check_aux_counts(const routing_state *state, decisions *seen, pgr_verdict *verdict) {
    const pgr_router *router = state->router;
    int64_t experts = router->config.experts;
    for (int64_t s = 0; s < router->sequences; s++) {
        const int64_t *got = seen->aux_counts + s * experts, *least = seen->aux_least + s * experts;
        const int64_t *most = seen->aux_most + s * experts;
        double *sums =
            seen->loss_sums + seen->loss_group * seen->loss_stride + s * (2 * experts + 1);
        for (int64_t e = 0; e < experts; e++) {
            int64_t want = got[e] < least[e] ? least[e] : got[e] > most[e] ? most[e] : got[e];
            pgr_verdict_exact(verdict, "counts of the auxiliary loss", 1, llabs(got[e] - want), s,
                              e, (double)got[e], (double)want);
            sums[e] += (double)got[e];
        }
    }
}

/* A routed (token, choice) pair in the order in which its expert takes it. */
typedef struct claim {
    int32_t expert;
    float weight;
    int64_t pair;
} claim;

static int by_position(const void *a, const void *b) {
    const claim *x = a, *y = b;
    if (x->expert != y->expert)
        return (x->expert > y->expert) - (x->expert < y->expert);
    return (x->pair > y->pair) - (x->pair < y->pair);
}

static int by_weight(const void *a, const void *b) {
    const claim *x = a, *y = b;
    if (x->expert == y->expert && x->weight != y->weight)
        return (x->weight < y->weight) - (x->weight > y->weight);
    return by_position(a, b);
}

/* Each expert keeps the first `capacity` pairs that claim it. */
static pgr_status check_kept(const routing_state *state, const decisions *seen,
                             pgr_verdict *verdict, pgr_error *error) {
    const pgr_router_config *config = &state->router->config;
    int64_t pairs = config->rows * config->topk, tokens = 0, wrong = 0, first = -1, taken = 0;
    if (!state->router->kept)
        return PGR_OK;
    claim *claims = malloc((size_t)pairs * sizeof *claims);
    if (!claims)
        return pgr_error_set(error, PGR_LIMIT, "no memory to verify what the router kept");
    for (int64_t i = 0; i < pairs; i++)
        claims[i] = (claim){seen->indices[i], seen->weights[i], i};
    for (int64_t row = 0; row < config->rows; row++)
        tokens += state->inputs.host_valid[row];
    int64_t capacity = (int64_t)ceil((double)tokens * (double)config->topk /
                                     (double)config->experts * config->capacity_factor);
    qsort(claims, (size_t)pairs, sizeof *claims,
          config->drop_policy == PGR_DROP_PROBS ? by_weight : by_position);
    for (int64_t i = 0; i < pairs; i++) {
        taken = i > 0 && claims[i].expert == claims[i - 1].expert ? taken + 1 : 0;
        bool stays = claims[i].expert >= 0 && taken < capacity;
        if (seen->kept[claims[i].pair] == stays) /* 1 or 0, nothing else */
            continue;
        if (wrong++ == 0)
            first = claims[i].pair;
    }
    free(claims);
    pgr_verdict_exact(verdict, "kept", pairs, wrong, first / config->topk, first % config->topk,
                      (double)wrong, 0);
    return PGR_OK;
}

/* The losses from the sums of every rank, added over the world by group: another way than the
 * router's own communicator. */
static pgr_status check_losses(const routing_state *state, decisions *seen, pgr_verdict *verdict,
                               pgr_error *error) {
    const pgr_router *router = state->router;
    const pgr_router_config *config = &router->config;
    const pgr_job *job = state->site->job;
    int64_t count = seen->loss_groups * seen->loss_stride;
    pgr_status status = job->bootstrap_ops->sum(job->bootstrap, seen->loss_sums, count, error);
    if (status)
        return status;
    double aux = 0, z = 0, tokens = 0, E = (double)config->experts, k = (double)config->topk;
    for (int64_t s = 0; s < router->sequences; s++) {
        const double *sums =
            seen->loss_sums + seen->loss_group * seen->loss_stride + s * (2 * config->experts + 1);
        double routed = 0, weighted = 0;
        for (int64_t e = 0; e < config->experts; e++) {
            routed += sums[e];
            weighted += sums[e] * sums[config->experts + e];
        }
        double here = routed / k;
        if (here > 0)
            aux += config->aux_loss_coeff * E * weighted / (k * here * here);
        z += sums[2 * config->experts];
        tokens += here;
    }
    double want_aux =
        config->aux_loss_type == PGR_NO_AUX_LOSS ? 0 : aux / (double)router->sequences;
    double want_z = tokens > 0 ? config->z_loss_coeff * z / tokens : 0;
    pgr_verdict_compare(verdict, "aux loss", -1, -1, state->routing.aux_loss, want_aux,
                        fabs(want_aux), 64 * 0x1p-24);
    pgr_verdict_compare(verdict, "z loss", -1, -1, state->routing.z_loss, want_z, fabs(want_z),
                        64 * 0x1p-24);
    return PGR_OK;
}

/* The reference with its own expert bias, out of the generator. */
static pgr_status make_reference(const routing_state *state, pgr_routing_reference *reference,
                                 pgr_error *error) {
    const pgr_router_config *config = &state->router->config;
    pgr_random random = {state->site->seed, pgr_random_tensor("router.expert_bias"),
                         PGR_EXPERT_BIAS_EXPONENT};
    float *bias = malloc((size_t)config->experts * sizeof *bias);
    if (!bias)
        return pgr_error_set(error, PGR_LIMIT, "no memory for the expert bias");
    for (int64_t e = 0; e < config->experts; e++)
        bias[e] = pgr_random_value(&random, e, PGR_F32);
    pgr_status status =
        pgr_routing_reference_create(config, config->expert_bias ? bias : NULL, reference, error);
    free(bias);
    return status;
}

static pgr_status verify_decisions(routing_state *state, pgr_verdict *verdict, pgr_error *error) {
    const pgr_router *router = state->router;
    size_t rows = (size_t)router->config.rows, experts = (size_t)router->config.experts;
    size_t topk = (size_t)router->config.topk, sums = (size_t)router->sequences * experts;
    decisions seen = {.loss_stride = router->sequences * (2 * router->config.experts + 1)};
    seen.logits = malloc(rows * experts * sizeof *seen.logits);
    seen.weights = malloc(rows * topk * sizeof *seen.weights);
    seen.indices = malloc(rows * topk * sizeof *seen.indices);
    seen.kept = malloc(rows * topk);
    seen.tokens_per_expert = malloc(experts * sizeof *seen.tokens_per_expert);
    seen.aux_counts = malloc(sums * sizeof *seen.aux_counts);
    seen.aux_least = calloc(sums, sizeof *seen.aux_least);
    seen.aux_most = calloc(sums, sizeof *seen.aux_most);
    seen.want_weights = malloc(topk * sizeof *seen.want_weights);
    seen.want_counts = calloc(experts, sizeof *seen.want_counts);
    seen.loss_groups = loss_groups(state, &seen.loss_group);
    seen.loss_sums = calloc((size_t)(seen.loss_groups * seen.loss_stride), sizeof *seen.loss_sums);
    pgr_status status = PGR_OK;
    if (!seen.logits || !seen.weights || !seen.indices || !seen.kept || !seen.tokens_per_expert ||
        !seen.aux_counts || !seen.aux_least || !seen.aux_most || !seen.want_weights ||
        !seen.want_counts || !seen.loss_sums)
        status = pgr_error_set(error, PGR_LIMIT, "no memory to verify the router");
    if (!status)
        status = make_reference(state, &seen.reference, error);
    if (!status)
        status = fetch_results(state, &seen, error);
    if (!status) {
        check_tokens(state, &seen, verdict);
        check_aux_counts(state, &seen, verdict);
        status = check_kept(state, &seen, verdict, error);
    }
    if (!status)
        status = check_losses(state, &seen, verdict, error);
    free(seen.logits);
    free(seen.weights);
    free(seen.indices);
    free(seen.kept);
    free(seen.tokens_per_expert);
    free(seen.aux_counts);
    free(seen.aux_least);
    free(seen.aux_most);
    pgr_routing_reference_free(&seen.reference);
    free(seen.want_weights);
    free(seen.want_counts);
    free(seen.loss_sums);
    return status;
}

static pgr_status verify(void *context, int64_t micro_batch, pgr_verdict *verdict,
                         pgr_error *error) {
    routing_state *state = context;
    pgr_status status = verify_logits(state, micro_batch, verdict, error);
    if (!status)
        status = verify_gate(state, verdict, error);
    return status ? status : verify_decisions(state, verdict, error);
}

static void describe(const routing_state *state, pgr_result *result) {
    const pgr_router *router = state->router;
    const pgr_router_config *config = &router->config;
    pgr_shape shape[] = {{"tokens", config->rows},
                         {"hidden", config->hidden},
                         {"experts", config->experts},
                         {"topk", config->topk}};
    memcpy(result->shape, shape, sizeof shape);
    if (config->group_topk != PGR_NIL) {
        result->shape[4] = (pgr_shape){"groups", config->groups};
        result->shape[5] = (pgr_shape){"group_topk", config->group_topk};
    }
    result->group = pgr_router_loss_family(config->aux_loss_type, config->sequence_parallel);
    double flops = 2.0 * (double)config->rows * (double)(config->hidden * config->experts);
    result->rates[0] = (pgr_rate){"gflops_per_rank", "GF/s", flops / result->compute.median * 1e-6};
    result->rates[1] = (pgr_rate){"mtokens_per_s_per_rank", "Mtoken/s",
                                  (double)config->rows / result->time.median * 1e-3};
}

pgr_status pgr_router_run(pgr_site *site, const pgr_spec *spec, pgr_result *result,
                          pgr_error *error) {
    routing_state state = {.site = site, .spec = spec};
    pgr_steps steps = {prepare, forward, verify, &state};
    pgr_status status = create(&state, error);
    if (!status)
        status = pgr_steps_run(site, spec, &steps, result, error);
    if (!status)
        describe(&state, result);
    destroy(&state);
    return status;
}
