/* workload_test.c - every workload on layouts of 1, 2, 4 and 8 ranks: as it is, it must verify;
 * with each of the faults below, planted at the seams (the device's and the communicators' tables),
 * the verification must fail with an error of at least ten times its tolerance.
 *
 *   mpirun -n N workload_test        prints a line per case from rank 0 */
#include "workload_router_faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WARMUP = 1, ITERATIONS = 2, LAST = WARMUP + ITERATIONS };

/* ---- planting faults ----------------------------------------------------------------------- */

static const pgr_comm_ops *real_comm;
static pgr_comm_ops comm_ops;
static const pgr_plan *plan;
static int calls;      /* of the function that the fault replaces */
static void *kept;     /* an earlier result */
static int64_t chunks; /* of the overlapped order that runs; 0: the plain one does */

static bool first_tp_pair(void) {
    return pgr_plan_coordinate(plan, "tp", job->rank) < 2;
}

/* A bias that was left out: by the product that should add it, and after the reduction. */
static pgr_status no_bias_linear(pgr_device *device, const pgr_linear_args *args,
                                 pgr_stream *stream, pgr_error *error) {
    pgr_linear_args changed = *args;
    changed.bias = NULL;
    return real_device->linear(device, &changed, stream, error);
}

static pgr_status no_bias(pgr_device *device, const pgr_bias_args *args, pgr_stream *stream,
                          pgr_error *error) {
    (void)device, (void)args, (void)stream, (void)error;
    return PGR_OK;
}

static void lost_up_bias(void) {
    device_ops.linear = no_bias_linear;
}

static void lost_down_bias(void) {
    device_ops.add_bias = no_bias;
}

/* A bias that was added twice, as when two ranks add it before the reduction. */
static pgr_status twice(pgr_device *device, const pgr_bias_args *args, pgr_stream *stream,
                        pgr_error *error) {
    pgr_status status = real_device->add_bias(device, args, stream, error);
    return status ? status : real_device->add_bias(device, args, stream, error);
}

static void doubled_bias(void) {
    device_ops.add_bias = twice;
}

/* A bias from one element further on. */
static pgr_status fill_other_bias(pgr_device *device, const pgr_fill_args *args, pgr_stream *stream,
                                  pgr_error *error) {
    pgr_fill_args changed = *args;
    if (args->random.tensor == pgr_random_tensor("mlp.up.bias"))
        changed.origin++;
    return real_device->fill(device, &changed, stream, error);
}

static void wrong_bias(void) {
    device_ops.fill = fill_other_bias;
}

/* The first two tp ranks hold each other's shard of the up weight. */
static pgr_status fill_other_shard(pgr_device *device, const pgr_fill_args *args,
                                   pgr_stream *stream, pgr_error *error) {
    pgr_fill_args changed = *args;
    if (args->random.tensor == pgr_random_tensor("mlp.up.weight") && first_tp_pair()) {
        int64_t shard = args->rows * args->row_stride;
        changed.origin += pgr_plan_coordinate(plan, "tp", job->rank) == 0 ? shard : -shard;
    }
    return real_device->fill(device, &changed, stream, error);
}

static void swapped_shards(void) {
    device_ops.fill = fill_other_shard;
}

/* One member's contribution to a sum is lost: it sends zeros. */
static pgr_status all_reduce_without_last(pgr_comm *comm, const void *send, void *receive,
                                          int64_t count, pgr_dtype dtype, pgr_reduce reduce,
                                          pgr_stream *stream, pgr_request *request,
                                          pgr_error *error) {
    if (comm->rank != comm->size - 1)
        return real_comm->all_reduce(comm, send, receive, count, dtype, reduce, stream, request,
                                     error);
    memset(receive, 0, (size_t)(count * pgr_dtype_bytes(dtype)));
    return real_comm->all_reduce(comm, receive, receive, count, dtype, reduce, stream, request,
                                 error);
}

static pgr_status reduce_scatter_without_last(pgr_comm *comm, const void *send, void *receive,
                                              int64_t count, pgr_dtype dtype, pgr_reduce reduce,
                                              pgr_stream *stream, pgr_request *request,
                                              pgr_error *error) {
    if (comm->rank == comm->size - 1)
        memset((void *)(uintptr_t)send, 0, (size_t)(comm->size * count * pgr_dtype_bytes(dtype)));
    return real_comm->reduce_scatter(comm, send, receive, count, dtype, reduce, stream, request,
                                     error);
}

static void dropped_contribution(void) {
    comm_ops.all_reduce = all_reduce_without_last;
    comm_ops.reduce_scatter = reduce_scatter_without_last;
}

/* One member's part of an all-gather is another's. */
static pgr_status all_gather_exchanged(pgr_comm *comm, const void *send, void *receive,
                                       int64_t count, pgr_dtype dtype, pgr_stream *stream,
                                       pgr_request *request, pgr_error *error) {
    pgr_request own = {0};
    pgr_status status =
        real_comm->all_gather(comm, send, receive, count, dtype, stream, &own, error);
    if (!status)
        status = pgr_request_wait(&own, error);
    size_t bytes = (size_t)(count * pgr_dtype_bytes(dtype));
    char *parts = receive, *swap = malloc(bytes);
    memcpy(swap, parts, bytes);
    memcpy(parts, parts + bytes, bytes);
    memcpy(parts + bytes, swap, bytes);
    free(swap);
    *request = (pgr_request){.comm = comm};
    return status;
}

static void exchanged_parts(void) {
    comm_ops.all_gather = all_gather_exchanged;
}

/* The activations of the last iteration are still those of the one before. */
static pgr_status stale_fill(pgr_device *device, const pgr_fill_args *args, pgr_stream *stream,
                             pgr_error *error) {
    if (args->random.tensor == pgr_random_tensor("activations") && calls++ == LAST)
        return PGR_OK;
    return real_device->fill(device, args, stream, error);
}

static void stale_input(void) {
    device_ops.fill = stale_fill;
}

/* The split of the last iteration was never made: what is there is the one before. */
static pgr_status stale_split(pgr_device *device, const pgr_context_args *args, pgr_stream *stream,
                              pgr_error *error) {
    size_t bytes = (size_t)(args->local_rows * args->row_bytes);
    if (calls++ == LAST) {
        memcpy(args->dst, kept, bytes);
        return PGR_OK;
    }
    pgr_status status = real_device->context_split(device, args, stream, error);
    kept = realloc(kept, bytes);
    memcpy(kept, args->dst, bytes);
    return status;
}

static void stale_chunks(void) {
    device_ops.context_split = stale_split;
}

/* The two local chunks are exchanged. */
static pgr_status exchanged_split(pgr_device *device, const pgr_context_args *args,
                                  pgr_stream *stream, pgr_error *error) {
    pgr_status status = real_device->context_split(device, args, stream, error);
    size_t half = (size_t)(args->local_rows / 2 * args->row_bytes);
    char *dst = args->dst, *swap = malloc(half);
    memcpy(swap, dst, half);
    memcpy(dst, dst + half, half);
    memcpy(dst + half, swap, half);
    free(swap);
    return status;
}

static void exchanged_chunks(void) {
    device_ops.context_split = exchanged_split;
}

/* One interior element of a product is off, which the samples may well miss. */
static pgr_status off_linear(pgr_device *device, const pgr_linear_args *args, pgr_stream *stream,
                             pgr_error *error) {
    pgr_status status = real_device->linear(device, args, stream, error);
    int64_t at = (args->m / 2) * args->ldy + 3;
    if (args->y_dtype == PGR_F32)
        ((float *)args->y)[at] += 1;
    else
        ((uint16_t *)args->y)[at] ^= 0x8000; /* the sign */
    return status;
}

static void one_element_off(void) {
    device_ops.linear = off_linear;
}

/* On the last rank alone, one row of what a reduction gave is zero. */
static pgr_status add_bias_to_lost_row(pgr_device *device, const pgr_bias_args *args,
                                       pgr_stream *stream, pgr_error *error) {
    size_t bytes = (size_t)(args->cols * pgr_dtype_bytes(args->dtype));
    if (job->rank == job->size - 1)
        memset((char *)args->y + (size_t)(args->rows / 3) * bytes, 0, bytes);
    return real_device->add_bias(device, args, stream, error);
}

static void lost_row_on_last_rank(void) {
    device_ops.add_bias = add_bias_to_lost_row;
}

/* The last reduction never happens: its buffer stays as it was. */
static pgr_status no_all_reduce(pgr_comm *comm, const void *send, void *receive, int64_t count,
                                pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                                pgr_request *request, pgr_error *error) {
    if (dtype == PGR_F64 || calls++ != LAST)
        return real_comm->all_reduce(comm, send, receive, count, dtype, reduce, stream, request,
                                     error);
    *request = (pgr_request){.comm = comm};
    return PGR_OK;
}

static pgr_status no_reduce_scatter(pgr_comm *comm, const void *send, void *receive, int64_t count,
                                    pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                                    pgr_request *request, pgr_error *error) {
    /* the overlapped order has one for each chunk, and the comparison after micro batch 0 one more
     */
    if (calls++ != (chunks > 1 ? LAST * chunks + 1 : LAST))
        return real_comm->reduce_scatter(comm, send, receive, count, dtype, reduce, stream, request,
                                         error);
    *request = (pgr_request){.comm = comm};
    return PGR_OK;
}

static void stale_output(void) {
    comm_ops.all_reduce = no_all_reduce;
    comm_ops.reduce_scatter = no_reduce_scatter;
}

/* Sums stay with the rank, as over a wrong group of one. */
static pgr_status sum_alone(pgr_comm *comm, const void *send, void *receive, int64_t count,
                            pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                            pgr_request *request, pgr_error *error) {
    (void)reduce, (void)stream, (void)error;
    memmove(receive, send, (size_t)(count * pgr_dtype_bytes(dtype)));
    *request = (pgr_request){.comm = comm};
    return PGR_OK;
}

static void wrong_loss_group(void) {
    comm_ops.all_reduce = sum_alone;
}

/* The last rank is late in every product. */
static pgr_status slow_linear(pgr_device *device, const pgr_linear_args *args, pgr_stream *stream,
                              pgr_error *error) {
    struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    if (job->rank == job->size - 1)
        nanosleep(&pause, NULL);
    return real_device->linear(device, args, stream, error);
}

/* A NaN in one element of a product. */
static pgr_status nan_linear(pgr_device *device, const pgr_linear_args *args, pgr_stream *stream,
                             pgr_error *error) {
    pgr_status status = real_device->linear(device, args, stream, error);
    memset(args->y, 0xff, 4);
    return status;
}

static void one_nan(void) {
    device_ops.linear = nan_linear;
}

#include "overlap_faults.h"

typedef struct fault {
    const char *name;
    pgr_workload workload;
    void (*plant)(void); /* NULL: the workload as it is */
    bool needs_tp, needs_cp, needs_sequence_parallel, needs_bias, needs_loss_group, needs_capacity;
    bool needs_expert_bias, needs_groups, needs_scaling;
    overlap_need overlap; /* if any, the comparison with the plain order must see it */
    bool last_rank;       /* it is on the last rank alone, which the verdict must name */
} fault;

static const fault faults[] = {
    {"mlp", PGR_MLP, NULL, .needs_tp = false},
    {"mlp, lost bias of up", PGR_MLP, lost_up_bias, .needs_bias = true},
    {"mlp, lost bias of down", PGR_MLP, lost_down_bias, .needs_tp = true, .needs_bias = true},
    {"mlp, doubled bias", PGR_MLP, doubled_bias, .needs_tp = true, .needs_bias = true},
    {"mlp, wrong bias", PGR_MLP, wrong_bias, .needs_bias = true},
    {"mlp, swapped shards", PGR_MLP, swapped_shards, .needs_tp = true},
    {"mlp, a rank's contribution dropped", PGR_MLP, dropped_contribution, .needs_tp = true},
    {"mlp, all-gather out of order", PGR_MLP, exchanged_parts, .needs_sequence_parallel = true},
    {"mlp, stale last iteration", PGR_MLP, stale_input, .needs_tp = false},
    {"mlp, stale output", PGR_MLP, stale_output, .needs_tp = true},
    {"mlp, one element off", PGR_MLP, one_element_off, .needs_tp = false},
    {"mlp, a row lost on the last rank", PGR_MLP, lost_row_on_last_rank, .needs_tp = true,
     .needs_bias = true, .last_rank = true},
    {"mlp, one NaN", PGR_MLP, one_nan, .needs_tp = false},
    OVERLAP_FAULTS{"router", PGR_ROUTER, NULL, .needs_tp = false},
    {"router, a token routed twice", PGR_ROUTER, token_routed_twice, .needs_tp = false},
    {"router, weights not normalised", PGR_ROUTER, wrong_weights, .needs_tp = false},
    {"router, a token not counted", PGR_ROUTER, wrong_count, .needs_tp = false},
    {"router, a rank's counts dropped", PGR_ROUTER, dropped_contribution, .needs_loss_group = true},
    {"router, stale last iteration", PGR_ROUTER, stale_input, .needs_tp = false},
    {"router, one element off", PGR_ROUTER, one_element_off, .needs_tp = false},
    {"router, losses over the wrong group", PGR_ROUTER, wrong_loss_group, .needs_loss_group = true},
    {"router, wrong z sum on the last rank", PGR_ROUTER, wrong_z_sum, .needs_tp = false},
    {"router, kept beyond the capacity", PGR_ROUTER, kept_beyond_capacity, .needs_capacity = true},
    {"router, expert bias lost", PGR_ROUTER, lost_expert_bias, .needs_expert_bias = true},
    {"router, expert bias of others", PGR_ROUTER, wrong_expert_bias, .needs_expert_bias = true},
    {"router, other groups", PGR_ROUTER, wrong_groups, .needs_groups = true},
    {"router, groups lost", PGR_ROUTER, lost_groups, .needs_groups = true},
    {"router, scaling lost", PGR_ROUTER, lost_scaling, .needs_scaling = true},
    {"router, wrong counts for the loss", PGR_ROUTER, wrong_aux_counts, .needs_expert_bias = true,
     .last_rank = true},
    {"router, one NaN", PGR_ROUTER, one_nan, .needs_tp = false},
    {"context", PGR_CONTEXT, NULL, .needs_tp = false},
    {"context, two chunks exchanged", PGR_CONTEXT, exchanged_chunks, .needs_cp = true},
    {"context, all-gather out of order", PGR_CONTEXT, exchanged_parts, .needs_cp = true},
    {"context, stale last iteration", PGR_CONTEXT, stale_chunks, .needs_tp = false},
};

/* ---- layouts ------------------------------------------------------------------------------- */

/* What differs from softmax after the choice among all experts. */
typedef struct routing {
    pgr_score score;
    int64_t groups, group_topk; /* PGR_NIL: none */
    bool expert_bias, pre_softmax;
    double scaling;
} routing;

static const routing deepseek = {PGR_SIGMOID, 8, 4, true, false, 2.5};
static const routing softplus = {PGR_SQRTSOFTPLUS, 4, 2, true, false, 0.5};
static const routing biased = {PGR_SIGMOID, PGR_NIL, PGR_NIL, true, false, 1.25};
static const routing pre_grouped = {PGR_SOFTMAX, 4, 3, false, true, 1.5};
static const routing grouped = {PGR_SOFTMAX, 8, 2, false, false, 3};

typedef struct layout {
    int64_t ranks, tp, cp, pp;
    bool sequence_parallel;
    pgr_dtype dtype;
    pgr_activation activation;
    bool bias;
    int64_t seq_len, batch, hidden, ffn, experts, topk;
    pgr_aux_loss aux_loss;
    double capacity_factor; /* 0: none */
    pgr_drop_policy drop;
    const routing *routing; /* NULL: plain softmax */
} layout;

static const layout layouts[] = {
    /* two features, whose terms cancel more often than not: the tolerance must know */
    {1, 1, 1, 1, false, PGR_F32, PGR_SWIGLU, false, 64, 1, 1024, 2, 8, 2, PGR_AUX_LOSS, 0,
     PGR_DROP_PROBS, NULL},
    {1, 1, 1, 1, false, PGR_F32, PGR_GELU, true, 37, 2, 72, 152, 8, 2, PGR_AUX_LOSS, 0,
     PGR_DROP_PROBS, NULL},
    {1, 1, 1, 1, true, PGR_BF16, PGR_SWIGLU, false, 64, 1, 64, 96, 60, 6, PGR_SEQ_AUX_LOSS, 0.75,
     PGR_DROP_PROBS, NULL},
    {1, 1, 1, 1, false, PGR_F32, PGR_GELU, true, 70, 2, 64, 96, 64, 8, PGR_SEQ_AUX_LOSS, 1.25,
     PGR_DROP_PROBS, &deepseek},
    {2, 2, 1, 1, true, PGR_F32, PGR_GELU, true, 37, 2, 72, 152, 8, 2, PGR_AUX_LOSS, 0,
     PGR_DROP_PROBS, NULL},
    {2, 2, 1, 1, true, PGR_F32, PGR_GELU, true, 77, 1, 64, 96, 24, 1, PGR_AUX_LOSS, 0.8,
     PGR_DROP_POSITION, &biased},
    {2, 1, 2, 1, false, PGR_BF16, PGR_GELU, true, 61, 2, 64, 96, 60, 6, PGR_AUX_LOSS, 0.5,
     PGR_DROP_POSITION, &pre_grouped},
    {2, 2, 1, 1, false, PGR_BF16, PGR_SWIGLU, true, 37, 1, 72, 152, 8, 8, PGR_SEQ_AUX_LOSS, 0,
     PGR_DROP_PROBS, NULL},
    {2, 1, 2, 1, false, PGR_F32, PGR_SWIGLU, true, 37, 3, 40, 88, 16, 4, PGR_SEQ_AUX_LOSS, 0,
     PGR_DROP_PROBS, NULL},
    {2, 1, 1, 1, false, PGR_F32, PGR_GELU, false, 5, 1, 64, 64, 8, 2, PGR_GLOBAL_AUX_LOSS, 0,
     PGR_DROP_PROBS, NULL},
    {4, 2, 2, 1, true, PGR_F32, PGR_GELU, true, 101, 1, 72, 152, 8, 2, PGR_AUX_LOSS, 0,
     PGR_DROP_PROBS, NULL},
    {4, 4, 1, 1, false, PGR_F32, PGR_SWIGLU, true, 33, 2, 64, 128, 64, 6, PGR_AUX_LOSS, 0.5,
     PGR_DROP_POSITION, NULL},
    {4, 2, 2, 1, false, PGR_BF16, PGR_GELU, true, 61, 2, 72, 152, 8, 2, PGR_SEQ_AUX_LOSS, 0,
     PGR_DROP_PROBS, NULL},
    {4, 2, 1, 2, true, PGR_BF16, PGR_GELU, true, 30, 1, 64, 128, 8, 1, PGR_GLOBAL_AUX_LOSS, 0,
     PGR_DROP_PROBS, NULL},
    {4, 2, 2, 1, true, PGR_F32, PGR_GELU, true, 90, 1, 64, 96, 40, 4, PGR_GLOBAL_AUX_LOSS, 0,
     PGR_DROP_PROBS, &softplus},
    {4, 1, 4, 1, false, PGR_BF16, PGR_GELU, true, 90, 2, 64, 96, 48, 6, PGR_SEQ_AUX_LOSS, 0,
     PGR_DROP_PROBS, &grouped},
    {8, 2, 2, 1, true, PGR_F32, PGR_GELU, true, 61, 2, 64, 96, 256, 8, PGR_SEQ_AUX_LOSS, 1.0,
     PGR_DROP_PROBS, &deepseek},
    {8, 2, 2, 1, true, PGR_F32, PGR_GELU, true, 101, 1, 72, 152, 8, 2, PGR_GLOBAL_AUX_LOSS, 1.0,
     PGR_DROP_PROBS, NULL},
    {8, 8, 1, 1, true, PGR_BF16, PGR_GELU, true, 61, 1, 128, 256, 32, 4, PGR_AUX_LOSS, 0,
     PGR_DROP_PROBS, NULL},
    {8, 2, 4, 1, false, PGR_F32, PGR_SWIGLU, true, 77, 1, 64, 128, 8, 2, PGR_AUX_LOSS, 0,
     PGR_DROP_PROBS, NULL},
    {8, 2, 2, 2, true, PGR_F32, PGR_GELU, true, 64, 2, 64, 128, 8, 3, PGR_SEQ_AUX_LOSS, 0,
     PGR_DROP_PROBS, NULL},
};

/* Layouts that overlap: chunks of 10 rows; of 10 and 11; of one row each; with cp. */
static const struct {
    int64_t chunks;
    layout layout;
} overlapped[] = {
    {4,
     {2, 2, 1, 1, true, PGR_F32, PGR_GELU, true, 37, 2, 72, 152, 8, 2, PGR_AUX_LOSS, 0,
      PGR_DROP_PROBS, NULL}},
    {3,
     {2, 2, 1, 1, true, PGR_BF16, PGR_SWIGLU, true, 63, 1, 72, 152, 8, 2, PGR_AUX_LOSS, 0,
      PGR_DROP_PROBS, NULL}},
    {32,
     {4, 4, 1, 1, true, PGR_F32, PGR_SWIGLU, false, 13, 1, 64, 128, 8, 2, PGR_AUX_LOSS, 0,
      PGR_DROP_PROBS, NULL}},
    {2,
     {4, 2, 2, 1, true, PGR_BF16, PGR_GELU, false, 61, 2, 64, 128, 8, 2, PGR_AUX_LOSS, 0,
      PGR_DROP_PROBS, NULL}},
    {3,
     {8, 4, 2, 1, true, PGR_F32, PGR_GELU, true, 101, 1, 72, 152, 8, 2, PGR_AUX_LOSS, 0,
      PGR_DROP_PROBS, NULL}},
};

static bool applies(const fault *f, const layout *l) {
    bool scattered = l->sequence_parallel && l->tp > 1;
    bool global = l->aux_loss == PGR_GLOBAL_AUX_LOSS;
    int64_t dp = l->ranks / (l->tp * l->cp * l->pp);
    bool loss_group = l->cp > 1 || scattered || (global && dp > 1);
    if (l->routing && f->workload != PGR_ROUTER)
        return false; /* a layout of its own for the router alone */
    return overlap_applies(f->workload, f->overlap) && (!f->needs_tp || l->tp > 1) &&
           (!f->needs_cp || l->cp > 1) && (!f->needs_sequence_parallel || scattered) &&
           (!f->needs_bias || l->bias) && (!f->needs_loss_group || loss_group) &&
           (!f->needs_capacity || l->capacity_factor > 0) &&
           (!f->needs_expert_bias || (l->routing && l->routing->expert_bias)) &&
           (!f->needs_groups || (l->routing && l->routing->groups != PGR_NIL)) &&
           (!f->needs_scaling || l->routing) &&
           !(f->plant == wrong_loss_group && global && !l->sequence_parallel && l->cp == 1) &&
           !(f->workload == PGR_ROUTER && l->topk < 2 && f->plant == token_routed_twice);
}

static void declare(const layout *l, pgr_spec *spec) {
    pgr_spec_init(spec);
    spec->parallel.tp = l->tp;
    spec->parallel.cp = l->cp;
    spec->parallel.pp = l->pp;
    spec->parallel.etp = 1;
    spec->parallel.sequence_parallel = l->sequence_parallel;
    spec->model.hidden = l->hidden;
    spec->model.ffn = l->ffn;
    spec->model.seq_len = l->seq_len;
    spec->model.micro_batch = l->batch;
    spec->model.dtype = l->dtype;
    spec->model.activation = l->activation;
    spec->model.bias = l->bias;
    spec->moe.experts = l->experts;
    spec->moe.topk = l->topk;
    spec->moe.aux_loss_type = l->aux_loss;
    spec->moe.z_loss_coeff = 0.001;
    if (l->capacity_factor > 0)
        spec->moe.capacity_factor = l->capacity_factor;
    spec->moe.drop_policy = l->drop;
    if (l->routing) {
        spec->moe.score = l->routing->score;
        spec->moe.groups = l->routing->groups;
        spec->moe.group_topk = l->routing->group_topk;
        spec->moe.expert_bias = l->routing->expert_bias;
        spec->moe.pre_softmax = l->routing->pre_softmax;
        spec->moe.scaling = l->routing->scaling;
    }
    overlap_declare(spec);
    spec->run.warmup = WARMUP;
    spec->run.iterations = ITERATIONS;
}

/* ---- cases --------------------------------------------------------------------------------- */

static int failures;

static void fail_now(pgr_status status, const pgr_error *error) {
    if (!status)
        return;
    fprintf(stderr, "rank %lld: %s\n", (long long)job->rank, error->message);
    job->bootstrap_ops->abort(job->bootstrap, 3);
}

static void judge(const fault *f, const layout *l, const pgr_result *result) {
    const pgr_verdict *v = &result->verify;
    bool caught = !v->ok && v->max_err >= 10 * v->tolerance && v->max_err > 0;
    bool blamed = !f->last_rank || v->rank == job->size - 1;
    bool good = f->plant ? caught && blamed : v->ok && v->checked > 0;
    if (f->workload == PGR_MLP && chunks > 1)
        good = good && overlap_good(result, f->plant != NULL, f->overlap);
    failures += !good;
    if (job->rank == 0)
        printf(
            "%s %s (tp %lld cp %lld pp %lld of %lld, %s%s%s): %s, error %.3g, tolerance %.3g%s%s\n",
            good ? "ok  " : "FAIL", f->name, (long long)l->tp, (long long)l->cp, (long long)l->pp,
            (long long)l->ranks, pgr_dtype_name(l->dtype), l->sequence_parallel ? ", sp" : "",
            chunks > 1 ? ", overlapped" : "", v->ok ? "verified" : "refused", v->max_err,
            v->tolerance, v->what[0] ? ", " : "", v->what);
}

static void run_case(const fault *f, const layout *l, const pgr_spec *spec,
                     const pgr_groups *groups) {
    pgr_error error;
    pgr_result result;
    calls = 0;
    device_ops = *real_device;
    if (real_comm)
        comm_ops = *real_comm;
    if (f->plant)
        f->plant();
    job->device->ops = &device_ops;
    for (int64_t i = 0; i < pgr_groups_count(groups); i++)
        if (pgr_groups_at(groups, i)->comm)
            pgr_groups_at(groups, i)->comm->ops = &comm_ops;
    fail_now(pgr_workload_run(job, spec, plan, groups, f->workload, &result, &error), &error);
    job->device->ops = real_device;
    for (int64_t i = 0; i < pgr_groups_count(groups); i++)
        if (pgr_groups_at(groups, i)->comm)
            pgr_groups_at(groups, i)->comm->ops = real_comm;
    judge(f, l, &result);
}

static void check(bool good, const char *what) {
    failures += !good;
    if (job->rank == 0 && !good)
        printf("FAIL %s\n", what);
}

/* Rates and times have the meaning that they claim. */
static void check_numbers(const layout *l, const pgr_spec *spec, const pgr_groups *groups) {
    pgr_error error;
    pgr_result result;
    device_ops = *real_device;
    device_ops.linear = slow_linear;
    job->device->ops = &device_ops;
    fail_now(pgr_workload_run(job, spec, plan, groups, PGR_MLP, &result, &error), &error);
    job->device->ops = real_device;
    check(result.time.min >= 40, "the slowest rank's time counts: two products, 20 ms late each");
    check(result.compute.min >= 40, "the slowest rank's computation counts");
    check(result.time.iterations == ITERATIONS, "as many iterations as were asked for");
    double rows = (double)result.shape[0].value, hidden = (double)l->hidden;
    double halves = l->activation == PGR_SWIGLU ? 3 : 2, tp = (double)l->tp;
    double flops = 2 * rows * hidden * (double)l->ffn / tp * halves;
    double bytes = rows * hidden * (double)pgr_dtype_bytes(l->dtype);
    double want = flops / result.compute.median * 1e-6;
    check(result.rates[0].value > 0.999 * want && result.rates[0].value < 1.001 * want,
          "GFLOP/s of the products");
    if (chunks > 1) {
        check(result.plain.min >= 40 && result.plain.iterations == ITERATIONS,
              "the plain order's time");
        check(!result.rates[1].name, "no rate of communication that is hidden");
    }
    if (l->tp == 1 || chunks > 1)
        return;
    want = 2 * (tp - 1) / tp * bytes / result.communication.median * 1e-6;
    check(result.rates[1].value > 0.999 * want && result.rates[1].value < 1.001 * want,
          "busbw with nccl-tests' factors");
}

static void check_summary(void) {
    double odd[] = {5, 1, 9}, even[] = {4, 2, 8, 6};
    double twenty[20];
    for (int i = 0; i < 20; i++)
        twenty[i] = 20 - i;
    pgr_times a = pgr_times_summarize(odd, 3), b = pgr_times_summarize(even, 4);
    pgr_times c = pgr_times_summarize(twenty, 20);
    check(a.min == 1 && a.median == 5 && a.p95 == 9 && a.iterations == 3, "summary of three");
    check(b.min == 2 && b.median == 5 && b.p95 == 8, "summary of four");
    check(c.median == 10.5 && c.p95 == 19, "summary of twenty");
}

static void run_layout(const layout *l) {
    pgr_error error;
    pgr_spec spec;
    pgr_plan made;
    pgr_names names;
    pgr_groups *groups;
    declare(l, &spec);
    fail_now(pgr_plan_create(&spec, job->size, &made, &error), &error);
    fail_now(pgr_workload_check(&spec, &made, &error), &error);
    fail_now(pgr_workload_families(&spec, &made, &names, &error), &error);
    fail_now(pgr_groups_open_begin(job, &made, &names, &groups, &error), &error);
    fail_now(pgr_groups_open_finish(groups, &error), &error);
    plan = &made;
    fail_now(overlap_learn(&spec, &error), &error);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        if (applies(&faults[i], l))
            run_case(&faults[i], l, &spec, groups);
    if (!l->routing)
        check_numbers(l, &spec, groups);
    fail_now(pgr_groups_close(groups, &error), &error);
    free(names.items);
    pgr_spec_free(&spec);
}

int main(void) {
    pgr_error error;
    if (pgr_job_open(60, &job, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 3;
    }
    pgr_job_args args = {.device = PGR_DEVICE_CPU, .timeout = 30, .init_timeout = 60};
    fail_now(pgr_job_open_device(job, &args, &error), &error);
    real_device = job->device->ops;
    real_comm = job->comm_ops;
    check_summary();
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (layouts[i].ranks == job->size)
            run_layout(&layouts[i]);
    for (size_t i = 0; i < sizeof overlapped / sizeof *overlapped; i++)
        if (overlapped[i].layout.ranks == job->size) {
            wanted_chunks = overlapped[i].chunks;
            run_layout(&overlapped[i].layout);
        }
    free(kept);
    fail_now(pgr_job_close(job, &error), &error);
    return failures > 0;
}
