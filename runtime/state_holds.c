/* state_holds.c - what a rank holds: layers, experts, and its share of a dimension.
 *
 * Sources, all of Megatron-Core: get_num_layers_to_build (transformer_block.py) and
 * get_transformer_layer_offset (transformer_layer.py) for layers, with stage_layers as
 * PipelineParallelLayerLayout; MoELayer (moe_layer.py) for experts. */
#include "state.h"

#include <inttypes.h>

static bool given(int64_t value) {
    return value != PGR_NIL;
}

static int64_t or_zero(int64_t value) {
    return given(value) ? value : 0;
}

/* Which layers are asked for: those of chunk chunk * stages + stage of stages * chunks. */
typedef struct place {
    int64_t stages, stage;
    int64_t chunks, chunk; /* on each stage: 1 and 0 without virtual stages */
} place;

/* ---- stages that are listed ---- */

/* Refuses lists that PG029 refuses too. */
static pgr_status check_list(const pgr_spec *s, const place *p, pgr_error *error) {
    const pgr_list *list = &s->parallel.stage_layers;
    int64_t sum = 0;
    if (given(s->parallel.first_stage_layers) || given(s->parallel.last_stage_layers))
        return pgr_error_set(error, PGR_INVALID,
                             "stage_layers says the layers of all stages; leave first_stage_layers "
                             "and last_stage_layers out");
    if (list->count != p->stages &&
        (list->count % p->chunks != 0 || list->count / p->chunks != p->stages))
        return pgr_error_set(error, PGR_INVALID,
                             "stage_layers has %" PRId64 " entries for %" PRId64
                             " stages; give one for each stage%s",
                             list->count, p->stages, p->chunks > 1 ? ", or each chunk" : "");
    for (int64_t i = 0; i < list->count; i++) {
        if (list->items[i] < 0)
            return pgr_error_set(error, PGR_INVALID,
                                 "stage_layers[%" PRId64 "] = %" PRId64 " must be at least 0",
                                 i + 1, list->items[i]);
        if (__builtin_add_overflow(sum, list->items[i], &sum))
            return pgr_error_set(error, PGR_INVALID,
                                 "stage_layers add up to more than 63 bits hold");
        if (list->count == p->stages && list->items[i] % p->chunks != 0)
            return pgr_error_set(error, PGR_INVALID,
                                 "stage_layers[%" PRId64 "] = %" PRId64
                                 " is not divisible by vpp = %" PRId64
                                 "; give an entry for each chunk",
                                 i + 1, list->items[i], p->chunks);
    }
    if (given(s->model.layers) && sum != s->model.layers)
        return pgr_error_set(error, PGR_INVALID,
                             "stage_layers add up to %" PRId64 ", and layers = %" PRId64
                             "; make them the same",
                             sum, s->model.layers);
    return PGR_OK;
}

static pgr_range listed_layers(const pgr_list *list, const place *p) {
    if (list->count != p->stages) { /* an entry for each chunk, in the model's order */
        int64_t at = p->chunk * p->stages + p->stage, first = 0;
        for (int64_t i = 0; i < at; i++)
            first += list->items[i];
        return (pgr_range){first, list->items[at]};
    }
    /* An entry for each stage; each of its chunks has an equal part of it. */
    int64_t before = 0, round = 0;
    for (int64_t i = 0; i < list->count; i++) {
        before += i < p->stage ? list->items[i] / p->chunks : 0;
        round += list->items[i] / p->chunks;
    }
    return (pgr_range){p->chunk * round + before, list->items[p->stage] / p->chunks};
}

/* ---- even stages, but for the ends ---- */

static pgr_status refuse_layers(const pgr_spec *s, const place *p, int64_t ends, int64_t middle,
                                pgr_error *error) {
    if (!given(s->parallel.first_stage_layers) && !given(s->parallel.last_stage_layers))
        return pgr_error_set(error, PGR_INVALID,
                             "layers = %" PRId64 " do not divide over %" PRId64
                             " stages of %" PRId64 " chunk%s; give first_stage_layers, "
                             "last_stage_layers or stage_layers, or other layers",
                             s->model.layers, p->stages, p->chunks, p->chunks == 1 ? "" : "s");
    return pgr_error_set(error, PGR_INVALID,
                         "layers = %" PRId64 " less %" PRId64 " at the ends leave %" PRId64
                         " for %" PRId64 " other stages, and each has %" PRId64
                         " chunk%s; they do not divide",
                         s->model.layers, ends, s->model.layers - ends, middle < 0 ? 0 : middle,
                         p->chunks, p->chunks == 1 ? "" : "s");
}

static pgr_status even_layers(const pgr_spec *s, const place *p, pgr_range *layers,
                              pgr_error *error) {
    bool has_first = given(s->parallel.first_stage_layers);
    bool has_last = given(s->parallel.last_stage_layers);
    int64_t first = or_zero(s->parallel.first_stage_layers);
    int64_t last = or_zero(s->parallel.last_stage_layers);
    if (!given(s->model.layers))
        return pgr_error_set(error, PGR_INVALID,
                             "the layers of a stage need model.layers, which is not given");
    if (first < 0 || last < 0 || s->model.layers < 0)
        return pgr_error_set(error, PGR_INVALID,
                             "layers = %" PRId64 ", first_stage_layers and last_stage_layers must "
                             "be at least 0",
                             s->model.layers);
    if (first % p->chunks != 0 || last % p->chunks != 0)
        return pgr_error_set(error, PGR_INVALID,
                             "%s_stage_layers = %" PRId64 " is not divisible by the %" PRId64
                             " virtual stages of a rank",
                             first % p->chunks != 0 ? "first" : "last",
                             first % p->chunks != 0 ? first : last, p->chunks);
    int64_t ends, middle = p->stages - has_first - has_last;
    if (__builtin_add_overflow(first, last, &ends))
        ends = INT64_MAX;
    int64_t rest = s->model.layers - ends; /* no size is negative, so that it fits */
    bool whole = middle > 0 ? rest > 0 && rest % middle == 0 && rest / middle % p->chunks == 0
                            : middle == 0 && rest == 0;
    if (!whole)
        return refuse_layers(s, p, ends, middle, error);
    int64_t each = middle > 0 ? rest / middle / p->chunks : 0; /* of a chunk */
    int64_t at = p->chunk * (s->model.layers / p->chunks);     /* where a round of chunks begins */
    bool is_first = has_first && p->stage == 0;
    bool is_last = has_last && p->stage == p->stages - 1;
    if (p->stage > 0)
        at += first / p->chunks + (p->stage - has_first) * each;
    *layers = (pgr_range){at, (is_first ? first : is_last ? last : each * p->chunks) / p->chunks};
    return PGR_OK;
}

pgr_status pgr_state_layers(const pgr_state *state, int64_t stage, pgr_range *layers,
                            pgr_error *error) {
    const pgr_spec *s = state->spec;
    place p = {.stages = pgr_state_stages(state), .chunks = 1};
    p.stage = given(stage) ? stage : pgr_state_stage(state);
    if (p.stage < 0 || p.stage >= p.stages)
        return pgr_error_set(error, PGR_INVALID,
                             "there is no stage %" PRId64 "; the stages are 0 to %" PRId64, p.stage,
                             p.stages - 1);
    /* One stage is no pipeline, and has no virtual stages, whatever is given. */
    if (p.stages > 1 && given(state->virtual_stages)) {
        p.chunks = state->virtual_stages;
        p.chunk = state->virtual_stage;
    }
    if (s->parallel.stage_layers.count == 0)
        return even_layers(s, &p, layers, error);
    pgr_status status = check_list(s, &p, error);
    if (status == PGR_OK)
        *layers = listed_layers(&s->parallel.stage_layers, &p);
    return status;
}

/* ---- experts and shards ---- */

pgr_status pgr_state_experts(const pgr_state *state, pgr_range *experts, pgr_error *error) {
    int64_t count = state->spec->moe.experts;
    if (!given(count))
        return pgr_error_set(error, PGR_INVALID,
                             "a dense model has no experts: moe.experts is not given");
    if (!pgr_plan_has_axis(state->plan, "ep")) {
        *experts = (pgr_range){0, count};
        return PGR_OK;
    }
    pgr_state_group group;
    pgr_status status = pgr_state_group_find(state, "ep", &group, error);
    if (status != PGR_OK)
        return status;
    if (count % group.size != 0)
        return pgr_error_set(error, PGR_INVALID,
                             "ep = %" PRId64 " does not divide experts = %" PRId64
                             "; give as many experts as a multiple of ep",
                             group.size, count);
    *experts = (pgr_range){group.rank * (count / group.size), count / group.size};
    return PGR_OK;
}

pgr_status pgr_state_shard(const pgr_state *state, const char *family, int64_t size,
                           pgr_range *shard, pgr_error *error) {
    pgr_state_group group;
    pgr_status status = pgr_state_group_find(state, family, &group, error);
    if (status != PGR_OK)
        return status;
    if (group.index < 0)
        return pgr_error_set(error, PGR_INVALID,
                             "rank %" PRId64 " is in no group of family \"%s\" and has no share",
                             state->plan->rank_offset + state->rank, family);
    if (size < 0 || size % group.size != 0)
        return pgr_error_set(error, PGR_INVALID,
                             "a dimension of %" PRId64 " cannot be cut evenly over the %" PRId64
                             " ranks of a group of family \"%s\"",
                             size, group.size, family);
    *shard = (pgr_range){group.rank * (size / group.size), size / group.size};
    return PGR_OK;
}
