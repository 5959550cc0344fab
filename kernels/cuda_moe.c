/* cuda_moe.c - the router and expert capacity on a GPU: what they refuse, which kernel handles a
 * router, and the memory that they need. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "cuda.h"
#include "cuda_capacity.h"
#include "cuda_router.h"

/* ---- the router ---------------------------------------------------------------------------- */

/* Lanes of a token and experts of a lane that there are kernels for (cuda_router.cu); threads of a
 * block, blocks of a multiprocessor for each mode of the kernel. */
static const struct instance {
    int32_t lanes, per_lane, threads, resident[3];
} instances[] = {{1, 8, 128, {6, 5, 4}},  {8, 8, 128, {6, 5, 4}},   {16, 8, 128, {6, 5, 4}},
                 {32, 8, 128, {6, 5, 4}}, {32, 16, 128, {6, 4, 3}}, {32, 32, 64, {7, 5, 4}}};

static int64_t up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

/* Lays the experts out over an instance's lanes: groups in equal, neighbouring numbers of lanes.
 * False where they do not fit. */
static bool lay_out(const struct instance *instance, int64_t piece, cuda_router *plan) {
    int32_t room = 1; /* for how many groups */
    while (room < plan->groups)
        room *= 2;
    if (room > instance->lanes)
        return false;
    int32_t lanes = instance->lanes / room;
    int64_t own = (plan->size + lanes - 1) / lanes;
    if (own > instance->per_lane)
        return false;
    plan->own =
        (int32_t)up(own, piece) <= instance->per_lane ? (int32_t)up(own, piece) : (int32_t)own;
    plan->group_lanes = lanes;
    plan->lanes = instance->lanes;
    plan->per_lane = instance->per_lane;
    return true;
}

/* The smallest instance that holds the experts; NULL where none does. */
static const struct instance *fit(int64_t piece, cuda_router *plan, int64_t groups, size_t from) {
    plan->groups = (int32_t)groups;
    plan->size = (int32_t)(plan->args.experts / groups);
    for (size_t i = from; i < sizeof instances / sizeof *instances; i++)
        if (lay_out(&instances[i], piece, plan))
            return &instances[i];
    return NULL;
}

static const struct instance *choose_instance(int64_t piece, cuda_router *plan) {
    enum {
        WHOLE_WARPS = 3,
        SORTED = 4
    }; /* instances from here on; the best that a lane has sorted */
    const struct instance *found = NULL;
    if (!plan->grouped)
        return fit(piece, plan, 1, 0);
    if (plan->args.topk / plan->args.group_topk <= SORTED)
        found = fit(piece, plan, plan->args.groups, 0);
    plan->loose = !found;
    return found ? found : fit(piece, plan, 1, WHOLE_WARPS);
}

/* Whether every lane's logits begin and end at multiples of 16 bytes. */
static bool reads_wide(const cuda_router *plan, int64_t bytes) {
    const pgr_router_args *a = &plan->args;
    bool groups = plan->groups == 1 || plan->size * bytes % 16 == 0;
    bool lanes = plan->group_lanes == 1 || plan->own * bytes % 16 == 0;
    return (uintptr_t)a->logits % 16 == 0 && a->experts * bytes % 16 == 0 && groups && lanes;
}

/* Sums of scores as integers: a score is 1 at most, so `rows` of them stay below 2^62. */
static double fixed_point_unit(int64_t rows) {
    int bits = 0;
    while (bits < 62 && ((int64_t)1 << bits) < rows)
        bits++;
    return ldexp(1.0, 61 - bits);
}

bool pgr_cuda_router_plan(const pgr_router_args *args, int blocks, cuda_router *plan) {
    memset(plan, 0, sizeof *plan);
    pgr_router_args *a = &plan->args;
    *a = *args;
    if (!a->aux_counts && !a->aux_score_sums)
        a->sequences = 1;
    bool softmax = a->score == PGR_SOFTMAX;
    int64_t bytes = a->dtype == PGR_F32 ? 4 : 2;
    plan->grouped = a->groups > 0 && a->group_topk > 0;
    const struct instance *found =
        a->experts <= PGR_CUDA_EXPERTS_MAX ? choose_instance(16 / bytes, plan) : NULL;
    if (!found)
        return false;
    plan->scaling = isnan(a->scaling) ? 1.0f : (float)a->scaling;
    plan->biased = a->expert_bias && !softmax;
    plan->distinct = plan->grouped || plan->biased;
    plan->tagged = a->dtype == PGR_BF16 && softmax;
    plan->wide = reads_wide(plan, bytes);
    plan->mode = !softmax || plan->grouped                         ? CUDA_ROUTER_ANY
                 : a->pre_softmax || a->aux_score_sums || a->z_sum ? CUDA_ROUTER_SUMMED
                                                                   : CUDA_ROUTER_PLAIN;

    /* multiprocessors, and the blocks that work on one sequence, but no more than it has tokens for
     */
    const int64_t all = (int64_t)(blocks > 8 ? blocks / 8 : 1) * found->resident[plan->mode];
    const int64_t rows = (a->tokens + a->sequences - 1) / a->sequences;
    const int64_t tokens = found->threads / found->lanes, useful = (rows + tokens - 1) / tokens;
    plan->rows = (int32_t)(a->sequences < all ? a->sequences : all);
    int64_t columns = all / plan->rows;
    columns = columns < useful ? columns : useful;
    plan->columns = (int32_t)(columns > 1 ? columns : 1);
    plan->unit = fixed_point_unit(rows);
    return true;
}

/* The cells are zero between calls: every launch leaves them so. */
static pgr_status cells_make(const cuda_device *cuda, pgr_stream *stream, int64_t bytes,
                             pgr_error *error) {
    if (stream->cells_bytes >= bytes)
        return PGR_OK;
    pgr_status status = pgr_cuda_grow(cuda, stream, &stream->cells, &stream->cells_bytes, bytes,
                                      "a router's sums", error);
    if (status == PGR_OK)
        status = pgr_cuda_check(
            cuda, cudaMemsetAsync(stream->cells, 0, (size_t)stream->cells_bytes, stream->stream),
            error, "cudaMemsetAsync of a router's sums, %" PRId64 " bytes", stream->cells_bytes);
    if (status != PGR_OK)
        stream->cells_bytes = 0; /* not known to be zero */
    return status;
}

pgr_status pgr_cuda_router(pgr_device *device, const pgr_router_args *args, pgr_stream *stream,
                           pgr_error *error) {
    cuda_device *cuda;
    cuda_router plan;
    pgr_status status = pgr_router_check(args, error);
    if (status == PGR_OK)
        status = pgr_cuda_enter(device, stream, &cuda, &stream, error);
    if (status != PGR_OK)
        return status;
    if (!pgr_cuda_router_plan(args, cuda->blocks, &plan))
        return pgr_error_set(error, PGR_UNSUPPORTED,
                             "a router of %" PRId64
                             " experts; libpgrun_cuda.so has it for up to %d: "
                             "use run.device = \"cpu\"",
                             args->experts, PGR_CUDA_EXPERTS_MAX);
    int64_t bytes = cuda_router_cells(&plan) * (int64_t)sizeof(uint64_t);
    status = cells_make(cuda, stream, bytes, error);
    if (status != PGR_OK)
        return status;
    plan.cells = stream->cells;
    return pgr_cuda_check(cuda, pgr_cuda_launch_router(&plan, stream->stream), error,
                          "routing %" PRId64 " tokens to the best %" PRId64 " of %" PRId64
                          " experts",
                          args->tokens, args->topk, args->experts);
}

/* ---- capacity ------------------------------------------------------------------------------ */

/* Cuts the pairs into chunks, a warp's each, and the scratch into its arrays. */
static int64_t capacity_plan(const pgr_capacity_args *args, int blocks, cuda_capacity *plan) {
    enum { CHUNK = 256, WARPS = 8, RANKS = 1 << 23, DIGITS = 256 }; /* RANKS: 64 MiB of them */
    *plan = (cuda_capacity){.args = *args, .pairs = args->tokens * args->topk};
    int64_t most = RANKS / args->experts, chunks = (plan->pairs + CHUNK - 1) / CHUNK;
    most = most < (int64_t)blocks * WARPS ? most : (int64_t)blocks * WARPS;
    chunks = chunks < most ? chunks : most;
    plan->chunk = up((plan->pairs + (chunks > 1 ? chunks : 1) - 1) / (chunks > 1 ? chunks : 1), 32);
    plan->chunks = (plan->pairs + plan->chunk - 1) / plan->chunk;
    return (plan->chunks + DIGITS + 2) * args->experts * 8;
}

static void capacity_place(void *scratch, cuda_capacity *plan) {
    const int64_t experts = plan->args.experts;
    plan->ranks = scratch;
    plan->digits = plan->ranks + plan->chunks * experts;
    plan->places = (int64_t *)(plan->digits + 256 * experts);
    plan->threshold = (uint32_t *)(plan->places + experts);
}

pgr_status pgr_cuda_capacity(pgr_device *device, const pgr_capacity_args *args, pgr_stream *stream,
                             pgr_error *error) {
    cuda_device *cuda;
    cuda_capacity plan;
    if (args->tokens <= 0 || args->topk <= 0)
        return PGR_OK;
    pgr_status status = pgr_cuda_enter(device, stream, &cuda, &stream, error);
    if (status != PGR_OK)
        return status;
    int64_t bytes = capacity_plan(args, cuda->blocks, &plan);
    status = pgr_cuda_grow(cuda, stream, &stream->scratch, &stream->scratch_bytes, bytes,
                           "expert capacity's scratch", error);
    if (status != PGR_OK)
        return status;
    capacity_place(stream->scratch, &plan);
    return pgr_cuda_check(cuda, pgr_cuda_launch_capacity(&plan, stream->stream), error,
                          "keeping %" PRId64 " tokens of each of %" PRId64 " experts",
                          args->capacity, args->experts);
}
