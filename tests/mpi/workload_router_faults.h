/* workload_router_faults.h - the faults of the router that workload_test.c plants, and what they
 * are planted in. */
#ifndef WORKLOAD_ROUTER_FAULTS_H
#define WORKLOAD_ROUTER_FAULTS_H

#include "pgrun.h"
#include "workload_run.h"

#include <string.h>

static pgr_job *job;
static const pgr_device_ops *real_device;
static pgr_device_ops device_ops;

/* The first token's second choice is its first choice again. */
static pgr_status route_twice(pgr_device *device, const pgr_router_args *args, pgr_stream *stream,
                              pgr_error *error) {
    pgr_status status = real_device->router(device, args, stream, error);
    args->tokens_per_expert[args->indices[1]]--;
    args->indices[1] = args->indices[0];
    args->tokens_per_expert[args->indices[1]]++;
    return status;
}

static void token_routed_twice(void) {
    device_ops.router = route_twice;
}

/* Weights that do not sum to one. */
static pgr_status unnormalised(pgr_device *device, const pgr_router_args *args, pgr_stream *stream,
                               pgr_error *error) {
    pgr_status status = real_device->router(device, args, stream, error);
    for (int64_t i = 0; i < args->tokens * args->topk; i++)
        args->weights[i] *= 1.01f;
    return status;
}

static void wrong_weights(void) {
    device_ops.router = unnormalised;
}

/* One token of an expert is not counted. */
static pgr_status miscount(pgr_device *device, const pgr_router_args *args, pgr_stream *stream,
                           pgr_error *error) {
    pgr_status status = real_device->router(device, args, stream, error);
    for (int64_t e = 0; e < args->experts; e++)
        if (args->tokens_per_expert[e] > 1) {
            args->tokens_per_expert[e]--;
            break;
        }
    return status;
}

static void wrong_count(void) {
    device_ops.router = miscount;
}

/* The choice without its bias, with each expert's bias at the next one, of other groups, without
 * groups, and weights without their factor. */
static pgr_status router_without_bias(pgr_device *device, const pgr_router_args *args,
                                      pgr_stream *stream, pgr_error *error) {
    pgr_router_args changed = *args;
    changed.expert_bias = NULL;
    return real_device->router(device, &changed, stream, error);
}

static void lost_expert_bias(void) {
    device_ops.router = router_without_bias;
}

static pgr_status fill_other_expert_bias(pgr_device *device, const pgr_fill_args *args,
                                         pgr_stream *stream, pgr_error *error) {
    pgr_fill_args changed = *args;
    if (args->random.tensor == pgr_random_tensor("router.expert_bias"))
        changed.origin++;
    return real_device->fill(device, &changed, stream, error);
}

static void wrong_expert_bias(void) {
    device_ops.fill = fill_other_expert_bias;
}

static pgr_status router_of_other_groups(pgr_device *device, const pgr_router_args *args,
                                         pgr_stream *stream, pgr_error *error) {
    pgr_router_args changed = *args;
    changed.groups = 2;
    changed.group_topk = 1;
    return real_device->router(device, &changed, stream, error);
}

static void wrong_groups(void) {
    device_ops.router = router_of_other_groups;
}

static pgr_status router_without_groups(pgr_device *device, const pgr_router_args *args,
                                        pgr_stream *stream, pgr_error *error) {
    pgr_router_args changed = *args;
    changed.groups = changed.group_topk = PGR_NIL;
    return real_device->router(device, &changed, stream, error);
}

static void lost_groups(void) {
    device_ops.router = router_without_groups;
}

static pgr_status router_unscaled(pgr_device *device, const pgr_router_args *args,
                                  pgr_stream *stream, pgr_error *error) {
    pgr_router_args changed = *args;
    changed.scaling = 1;
    return real_device->router(device, &changed, stream, error);
}

static void lost_scaling(void) {
    device_ops.router = router_unscaled;
}

/* The auxiliary loss counts the biased, grouped choice on the last rank, not its own. */
static pgr_status router_counting_choice(pgr_device *device, const pgr_router_args *args,
                                         pgr_stream *stream, pgr_error *error) {
    pgr_status status = real_device->router(device, args, stream, error);
    if (job->rank != job->size - 1)
        return status;
    memset(args->aux_counts, 0, (size_t)(args->sequences * args->experts) * sizeof(int64_t));
    for (int64_t i = 0; i < args->tokens * args->topk; i++)
        if (args->indices[i] >= 0)
            args->aux_counts[i / args->topk % args->sequences * args->experts + args->indices[i]]++;
    return status;
}

static void wrong_aux_counts(void) {
    device_ops.router = router_counting_choice;
}

/* The z sums of one rank are off by a hundredth. */
static pgr_status wrong_z_router(pgr_device *device, const pgr_router_args *args,
                                 pgr_stream *stream, pgr_error *error) {
    pgr_status status = real_device->router(device, args, stream, error);
    if (job->rank == job->size - 1)
        *args->z_sum *= 1.01;
    return status;
}

static void wrong_z_sum(void) {
    device_ops.router = wrong_z_router;
}

/* One routed pair that has to go stays, and one byte is neither yes nor no. */
static pgr_status keep_all(pgr_device *device, const pgr_capacity_args *args, pgr_stream *stream,
                           pgr_error *error) {
    pgr_status status = real_device->capacity(device, args, stream, error);
    for (int64_t i = 0; i < args->tokens * args->topk; i++)
        if (args->indices[i] >= 0 && args->kept[i] == 0) {
            args->kept[i] = 1;
            break;
        }
    return status;
}

static void kept_beyond_capacity(void) {
    device_ops.capacity = keep_all;
}

#endif
