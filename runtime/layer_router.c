/* layer_router.c - the MoE router: gating product, top-k kernel, and the losses over their group.
 */
#include "layer.h"
#include "random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

const char *pgr_router_loss_family(pgr_aux_loss type, bool sequence_parallel) {
    bool global = type == PGR_GLOBAL_AUX_LOSS;
    if (sequence_parallel)
        return global ? "tp-dp-cp" : "tp-cp";
    return global ? "dp-cp" : "cp";
}

int64_t pgr_router_capacity(int64_t tokens, int64_t topk, int64_t experts, double factor) {
    return (int64_t)ceil((double)(tokens * topk) / (double)experts * factor);
}

static pgr_status allocate(const pgr_site *site, pgr_router *router, pgr_error *error) {
    const pgr_router_config *config = &router->config;
    int64_t chosen = config->rows * config->topk;
    int64_t sums = router->sequences * config->experts;
    struct {
        void **out;
        int64_t bytes;
    } parts[] = {
        {&router->weight, config->experts * config->hidden * pgr_dtype_bytes(config->dtype)},
        {(void **)&router->logits, config->rows * config->experts * (int64_t)sizeof(float)},
        {(void **)&router->weights, chosen * (int64_t)sizeof(float)},
        {(void **)&router->indices, chosen * (int64_t)sizeof(int32_t)},
        {(void **)&router->tokens_per_expert, config->experts * (int64_t)sizeof(int64_t)},
        {(void **)&router->aux_counts, sums * (int64_t)sizeof(int64_t)},
        {(void **)&router->reduced_counts, sums * (int64_t)sizeof(int64_t)},
        {(void **)&router->aux_score_sums, sums * (int64_t)sizeof(double)},
        {(void **)&router->z_sum, (int64_t)sizeof(double)},
        {(void **)&router->totals, 3 * (int64_t)sizeof(double)},
        {(void **)&router->kept, isnan(config->capacity_factor) ? 0 : chosen},
        {(void **)&router->expert_bias,
         config->expert_bias ? config->experts * (int64_t)sizeof(float) : 0},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i].bytes == 0)
            continue;
        pgr_status status = pgr_site_alloc(site, parts[i].bytes, parts[i].out, error);
        if (status)
            return status;
    }
    return PGR_OK;
}

static pgr_status fill_weight(const pgr_site *site, const pgr_router *router, pgr_error *error) {
    char name[2 * PGR_NAME_MAX];
    snprintf(name, sizeof name, "%s.weight", router->name);
    pgr_fill_args fill = {
        .out = router->weight,
        .dtype = router->config.dtype,
        .rows = router->config.experts,
        .cols = router->config.hidden,
        .ld = router->config.hidden,
        .random = {.seed = site->seed,
                   .tensor = pgr_random_tensor(name),
                   .exponent = router->exponent},
        .row_stride = router->config.hidden,
    };
    return site->device->ops->fill(site->device, &fill, site->stream, error);
}

static pgr_status fill_expert_bias(const pgr_site *site, const pgr_router *router,
                                   pgr_error *error) {
    char name[2 * PGR_NAME_MAX];
    if (!router->expert_bias)
        return PGR_OK;
    snprintf(name, sizeof name, "%s.expert_bias", router->name);
    pgr_fill_args fill = {
        .out = router->expert_bias,
        .dtype = PGR_F32,
        .rows = 1,
        .cols = router->config.experts,
        .ld = router->config.experts,
        .random = {.seed = site->seed,
                   .tensor = pgr_random_tensor(name),
                   .exponent = PGR_EXPERT_BIAS_EXPONENT},
    };
    return site->device->ops->fill(site->device, &fill, site->stream, error);
}

pgr_status pgr_router_create(const pgr_site *site, const pgr_router_config *config,
                             pgr_router **router, pgr_error *error) {
    pgr_router *created = calloc(1, sizeof *created);
    if (!created)
        return pgr_error_set(error, PGR_LIMIT, "no memory for router %s", config->name);
    created->config = *config;
    snprintf(created->name, sizeof created->name, "%s", config->name);
    created->config.name = created->name;
    created->sequences = config->aux_loss_type == PGR_SEQ_AUX_LOSS ? config->batch : 1;
    /* one more than a layer's: logits spread over some units, as a trained router's do */
    created->exponent = pgr_weight_exponent(config->hidden) + 1;
    const char *family = pgr_router_loss_family(config->aux_loss_type, config->sequence_parallel);
    pgr_status status = pgr_site_group(site, family, &created->loss_group, error);
    if (!status)
        status = allocate(site, created, error);
    if (!status)
        status = fill_weight(site, created, error);
    if (!status)
        status = fill_expert_bias(site, created, error);
    if (status) {
        pgr_router_free(site, created);
        return status;
    }
    *router = created;
    return PGR_OK;
}

void pgr_router_free(const pgr_site *site, pgr_router *router) {
    if (!router)
        return;
    void *parts[] = {router->weight,         router->logits, router->weights,
                     router->indices,        router->kept,   router->tokens_per_expert,
                     router->aux_counts,     router->z_sum,  router->aux_score_sums,
                     router->reduced_counts, router->totals, router->expert_bias};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        pgr_site_free(site, parts[i]);
    free(router);
}

pgr_status pgr_router_poison(const pgr_site *site, pgr_router *router, pgr_error *error) {
    const pgr_router_config *config = &router->config;
    int64_t chosen = config->rows * config->topk;
    int64_t sums = router->sequences * config->experts;
    struct {
        void *memory;
        int64_t bytes;
    } parts[] = {
        {router->logits, config->rows * config->experts * (int64_t)sizeof(float)},
        {router->weights, chosen * (int64_t)sizeof(float)},
        {router->indices, chosen * (int64_t)sizeof(int32_t)},
        {router->tokens_per_expert, config->experts * (int64_t)sizeof(int64_t)},
        {router->aux_counts, sums * (int64_t)sizeof(int64_t)},
        {router->reduced_counts, sums * (int64_t)sizeof(int64_t)},
        {router->aux_score_sums, sums * (int64_t)sizeof(double)},
        {router->z_sum, (int64_t)sizeof(double)},
        {router->totals, 3 * (int64_t)sizeof(double)},
        {router->kept, router->kept ? chosen : 0},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i].bytes == 0)
            continue;
        pgr_status status = site->device->ops->set(site->device, parts[i].memory, 0xff,
                                                   parts[i].bytes, site->stream, error);
        if (status)
            return status;
    }
    return PGR_OK;
}

static pgr_status gate(const pgr_site *site, pgr_router *router, const void *x, pgr_error *error) {
    const pgr_router_config *config = &router->config;
    pgr_linear_args args = {
        .x = x,
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
        .activation = PGR_NO_ACTIVATION,
    };
    return site->device->ops->linear(site->device, &args, site->stream, error);
}

static pgr_status route(const pgr_site *site, pgr_router *router, const uint8_t *valid,
                        pgr_error *error) {
    const pgr_router_config *config = &router->config;
    pgr_router_args args = {
        .logits = router->logits,
        .dtype = PGR_F32,
        .expert_bias = router->expert_bias,
        .valid = valid,
        .tokens = config->rows,
        .experts = config->experts,
        .topk = config->topk,
        .score = config->score,
        .pre_softmax = config->pre_softmax,
        .groups = config->groups,
        .group_topk = config->group_topk,
        .scaling = config->scaling,
        .sequences = router->sequences,
        .indices = router->indices,
        .weights = router->weights,
        .tokens_per_expert = router->tokens_per_expert,
        .aux_counts = router->aux_counts,
        .aux_score_sums = router->aux_score_sums,
        .z_sum = router->z_sum,
    };
    return site->device->ops->router(site->device, &args, site->stream, error);
}

/* Switch load balancing (Fedus et al. 2021, as Megatron-Core's switch_load_balancing_loss_func has
 * it): experts * coeff / (topk * T^2) * sum over experts of (sum of scores) * (tokens routed), T
 * the tokens of the group; each rank takes its own scores with the group's counts. seq_aux_loss
 * does so per sequence and takes the mean. */
static double local_aux_loss(const pgr_router *router, const double *score_sums,
                             const int64_t *counts) {
    const pgr_router_config *config = &router->config;
    double loss = 0;
    for (int64_t s = 0; s < router->sequences; s++) {
        double total = 0, weighted = 0;
        for (int64_t e = 0; e < config->experts; e++) {
            double count = (double)counts[s * config->experts + e];
            total += count;
            weighted += score_sums[s * config->experts + e] * count;
        }
        double tokens = total / (double)config->topk;
        if (tokens > 0)
            loss += weighted * (double)config->experts * config->aux_loss_coeff /
                    ((double)config->topk * tokens * tokens);
    }
    return loss / (double)router->sequences;
}

static pgr_status fetch(const pgr_site *site, void *host, const void *device, int64_t bytes,
                        pgr_error *error) {
    return site->device->ops->copy(site->device, host, device, bytes, site->stream, error);
}

/* Sums `count` elements over the loss group, or copies them in a group of one. */
static pgr_status sum_over_group(const pgr_site *site, const pgr_router *router, const void *send,
                                 void *receive, int64_t count, pgr_dtype dtype, pgr_error *error) {
    pgr_comm *comm = router->loss_group->comm;
    if (!comm && send == receive)
        return PGR_OK;
    if (!comm)
        return site->device->ops->copy(site->device, receive, send, count * pgr_dtype_bytes(dtype),
                                       site->stream, error);
    pgr_request request = {0};
    pgr_status status = pgr_site_comm_begin(site, comm, error);
    if (!status)
        status = comm->ops->all_reduce(comm, send, receive, count, dtype, PGR_SUM, comm->stream,
                                       &request, error);
    return pgr_site_comm_end(site, status, &request, error);
}

/* {own aux loss, z sum, tokens} -> the group's sums, through device memory. */
static pgr_status sum_totals(const pgr_site *site, const pgr_router *router, double totals[3],
                             pgr_error *error) {
    const pgr_device_ops *ops = site->device->ops;
    int64_t bytes = 3 * (int64_t)sizeof *totals;
    pgr_status status = ops->copy(site->device, router->totals, totals, bytes, site->stream, error);
    if (!status)
        status = sum_over_group(site, router, router->totals, router->totals, 3, PGR_F64, error);
    if (!status)
        status = fetch(site, totals, router->totals, bytes, error);
    return status ? status : ops->stream_sync(site->device, site->stream, error);
}

/* The losses of the group: two small all-reduces, of the counts and of {aux, z, tokens}. */
static pgr_status losses(const pgr_site *site, pgr_router *router, pgr_routing *routing,
                         pgr_error *error) {
    const pgr_router_config *config = &router->config;
    int64_t sums = router->sequences * config->experts;
    double *scores = malloc((size_t)sums * (sizeof(double) + sizeof(int64_t)));
    if (!scores)
        return pgr_error_set(error, PGR_LIMIT, "no memory for the router's losses");
    int64_t *counts = (int64_t *)(scores + sums);
    double totals[3] = {0, 0, (double)routing->tokens};
    pgr_status status = sum_over_group(site, router, router->aux_counts, router->reduced_counts,
                                       sums, PGR_I64, error);
    if (!status)
        status = fetch(site, counts, router->reduced_counts, sums * (int64_t)sizeof *counts, error);
    if (!status)
        status = fetch(site, scores, router->aux_score_sums, sums * (int64_t)sizeof *scores, error);
    if (!status)
        status = fetch(site, &totals[1], router->z_sum, sizeof totals[1], error);
    if (!status)
        status = site->device->ops->stream_sync(site->device, site->stream, error);
    if (!status) {
        totals[0] = local_aux_loss(router, scores, counts);
        status = sum_totals(site, router, totals, error);
    }
    free(scores);
    if (status)
        return status;
    routing->aux_loss = config->aux_loss_type == PGR_NO_AUX_LOSS ? 0 : totals[0];
    routing->z_loss = totals[2] > 0 ? config->z_loss_coeff * totals[1] / totals[2] : 0;
    return PGR_OK;
}

/* Tokens that are no padding: each routed topk times. */
static pgr_status count_tokens(const pgr_site *site, pgr_router *router, pgr_routing *routing,
                               pgr_error *error) {
    int64_t experts = router->config.experts;
    int64_t *counts = malloc((size_t)experts * sizeof *counts);
    if (!counts)
        return pgr_error_set(error, PGR_LIMIT, "no memory for the router's counts");
    pgr_status status =
        fetch(site, counts, router->tokens_per_expert, experts * (int64_t)sizeof *counts, error);
    if (!status)
        status = site->device->ops->stream_sync(site->device, site->stream, error);
    int64_t routed = 0;
    for (int64_t e = 0; !status && e < experts; e++)
        routed += counts[e];
    free(counts);
    if (!status)
        routing->tokens = routed / router->config.topk;
    return status;
}

static pgr_status drop(const pgr_site *site, pgr_router *router, pgr_routing *routing,
                       pgr_error *error) {
    const pgr_router_config *config = &router->config;
    if (!router->kept)
        return PGR_OK;
    routing->capacity = pgr_router_capacity(routing->tokens, config->topk, config->experts,
                                            config->capacity_factor);
    pgr_capacity_args args = {
        .indices = router->indices,
        .weights = router->weights,
        .tokens = config->rows,
        .topk = config->topk,
        .experts = config->experts,
        .capacity = routing->capacity,
        .policy = config->drop_policy,
        .kept = router->kept,
    };
    return site->device->ops->capacity(site->device, &args, site->stream, error);
}

pgr_status pgr_router_forward(const pgr_site *site, pgr_router *router, const void *x,
                              const uint8_t *valid, pgr_saved *saved, pgr_routing *routing,
                              pgr_error *error) {
    pgr_routing result = {0};
    if (saved)
        saved->input = x;
    pgr_status status = gate(site, router, x, error);
    if (!status)
        status = route(site, router, valid, error);
    if (!status)
        status = count_tokens(site, router, &result, error);
    if (!status)
        status = drop(site, router, &result, error);
    if (!status)
        status = pgr_stopwatch_lap(site->stopwatch, PGR_COMPUTE, site->stream, error);
    if (!status)
        status = losses(site, router, &result, error);
    if (!status)
        status = pgr_stopwatch_lap(site->stopwatch, PGR_COMMUNICATION, site->stream, error);
    if (!status)
        *routing = result;
    return status;
}
