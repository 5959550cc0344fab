/* state.c - the groups of a rank and its place in the pipeline.
 *
 * Sources: megatron/core/parallel_state.py of Megatron-Core; vLLM's older
 * vllm/model_executor/parallel_utils/parallel_state.py for the split of encoder and decoder;
 * MindSpore's CommGroup for the names of groups. */
#include "state.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool given(int64_t value) {
    return value != PGR_NIL;
}

pgr_status pgr_state_create(const pgr_plan *plan, const pgr_spec *spec, int64_t rank,
                            pgr_state *state, pgr_error *error) {
    int64_t first = plan->rank_offset, last = first + (plan->world_size - 1);
    if (rank < first || rank > last)
        return pgr_error_set(error, PGR_INVALID,
                             "rank %" PRId64 " is not in this world of %" PRId64
                             "; its ranks are %" PRId64 " to %" PRId64,
                             rank, plan->world_size, first, last);
    *state = (pgr_state){.plan = plan,
                         .spec = spec,
                         .rank = rank - first,
                         .virtual_stages = spec->parallel.vpp,
                         .virtual_stage = given(spec->parallel.vpp) ? 0 : PGR_NIL,
                         .split = plan->pp_split};
    return PGR_OK;
}

/* ---- overrides ---- */

/* The place of a family's override in the state, or override_count where it has none. */
static int32_t override_at(const pgr_state *state, const pgr_family *family) {
    int32_t i = 0;
    for (; i < state->override_count; i++) {
        pgr_family known;
        if (pgr_plan_family_find(state->plan, state->overrides[i].family, &known, NULL) == PGR_OK &&
            pgr_family_is(&known, family))
            break;
    }
    return i;
}

/* The same for an axis by name. */
static const pgr_override *override_of_axis(const pgr_state *state, const char *axis) {
    for (int32_t i = 0; i < state->override_count; i++)
        if (strcmp(state->overrides[i].family, axis) == 0)
            return &state->overrides[i];
    return NULL;
}

static void remove_override(pgr_state *state, int32_t at) {
    if (at < state->override_count)
        state->overrides[at] = state->overrides[--state->override_count];
}

pgr_status pgr_state_override(pgr_state *state, const char *name, int64_t size, int64_t rank,
                              pgr_error *error) {
    pgr_family f;
    pgr_status status = pgr_plan_family_find(state->plan, name, &f, error);
    if (status != PGR_OK)
        return status;
    int32_t at = override_at(state, &f);
    if (!given(size) && !given(rank)) {
        remove_override(state, at);
        return PGR_OK;
    }
    int64_t group = pgr_family_group(&f, state->rank);
    if (group < 0)
        return pgr_error_set(error, PGR_INVALID,
                             "rank %" PRId64 " is in no group of family \"%s\"; nothing of it can "
                             "be overridden",
                             state->plan->rank_offset + state->rank, name);
    if (given(size) && size < 1)
        return pgr_error_set(
            error, PGR_INVALID,
            "family \"%s\" cannot have groups of %" PRId64 "; the smallest size is 1", name, size);
    int64_t top = given(size) ? size : pgr_family_group_size(&f, group);
    int64_t place = given(rank) ? rank : pgr_family_rank(&f, state->rank);
    if (place < 0 || place >= top)
        return pgr_error_set(error, PGR_INVALID,
                             "%s %" PRId64 " is outside of a group of %" PRId64
                             " of family \"%s\"; give a rank of 0 to %" PRId64,
                             given(rank) ? "rank" : "the plan's rank", place, top, name, top - 1);
    if (at == PGR_OVERRIDES_MAX)
        return pgr_error_set(
            error, PGR_LIMIT,
            "%d families are overridden, which is the most; let one of them answer "
            "the plan's again",
            PGR_OVERRIDES_MAX);
    pgr_override *o = &state->overrides[at];
    if (at == state->override_count) {
        state->override_count++;
        snprintf(o->family, sizeof o->family, "%s", f.name);
    }
    o->size = size;
    o->rank = rank;
    return PGR_OK;
}

/* ---- groups ---- */

pgr_status pgr_state_group_find(const pgr_state *state, const char *name, pgr_state_group *group,
                                pgr_error *error) {
    pgr_state_group g = {.rank = -1, .rank_offset = state->plan->rank_offset};
    pgr_status status = pgr_plan_family_find(state->plan, name, &g.family, error);
    if (status != PGR_OK)
        return status;
    g.index = pgr_family_group(&g.family, state->rank);
    if (g.index >= 0) {
        g.rank = pgr_family_rank(&g.family, state->rank);
        g.size = g.member_count = pgr_family_group_size(&g.family, g.index);
        g.has_communicator = g.member_count > 1;
        int32_t at = override_at(state, &g.family);
        if (at < state->override_count) {
            const pgr_override *o = &state->overrides[at];
            g.size = given(o->size) ? o->size : g.size;
            g.rank = given(o->rank) ? o->rank : g.rank;
        }
    }
    *group = g;
    return PGR_OK;
}

int64_t pgr_state_group_member(const pgr_state_group *group, int64_t place) {
    if (place < 0 || place >= group->member_count)
        return -1;
    return group->rank_offset + pgr_family_member(&group->family, group->index, place);
}

/* Adds `text` at `length` of a name, as far as it fits; returns the length that it makes. */
static int64_t add_to_name(char *name, int64_t bytes, int64_t length, const char *text) {
    for (; *text != '\0'; text++, length++)
        if (length < bytes - 1)
            name[length] = *text;
    return length;
}

int64_t pgr_state_group_name(const pgr_state_group *group, char *name, int64_t bytes) {
    int64_t length = 0;
    if (group->index >= 0)
        length = add_to_name(name, bytes, length, group->family.name);
    for (int64_t place = 0; place < group->member_count; place++) {
        char number[24];
        snprintf(number, sizeof number, "-%" PRId64, pgr_state_group_member(group, place));
        length = add_to_name(name, bytes, length, number);
    }
    if (bytes > 0)
        name[length < bytes ? length : bytes - 1] = '\0';
    return length;
}

int64_t pgr_state_group_source(const pgr_state_group *group) {
    return pgr_state_group_member(group, 0);
}

int64_t pgr_state_group_last(const pgr_state_group *group) {
    return pgr_state_group_member(group, group->size - 1);
}

int64_t pgr_state_group_next(const pgr_state_group *group) {
    return pgr_state_group_member(group, group->rank + 1 < group->size ? group->rank + 1 : 0);
}

int64_t pgr_state_group_previous(const pgr_state_group *group) {
    return pgr_state_group_member(group, group->rank > 0 ? group->rank - 1 : group->size - 1);
}

/* ---- stages ---- */

int64_t pgr_state_stage(const pgr_state *state) {
    const pgr_override *o = override_of_axis(state, "pp");
    if (o != NULL && given(o->rank))
        return o->rank;
    int64_t stage = pgr_plan_coordinate(state->plan, "pp", state->rank);
    return stage < 0 ? 0 : stage; /* a grid without pp has one stage */
}

int64_t pgr_state_stages(const pgr_state *state) {
    const pgr_override *o = override_of_axis(state, "pp");
    if (o != NULL && given(o->size))
        return o->size;
    int64_t stages = pgr_plan_axis_size(state->plan, "pp");
    return stages < 1 ? 1 : stages;
}

int64_t pgr_state_virtual_stages(const pgr_state *state) {
    return state->virtual_stages;
}

int64_t pgr_state_virtual_stage(const pgr_state *state) {
    return state->virtual_stage;
}

pgr_status pgr_state_set_virtual_stages(pgr_state *state, int64_t count, pgr_error *error) {
    if (given(count) && count < 1)
        return pgr_error_set(error, PGR_INVALID,
                             "a rank cannot have %" PRId64 " virtual stages; the fewest is 1",
                             count);
    state->virtual_stages = count;
    state->virtual_stage = given(count) ? 0 : PGR_NIL;
    return PGR_OK;
}

pgr_status pgr_state_set_virtual_stage(pgr_state *state, int64_t virtual_stage, pgr_error *error) {
    if (!given(state->virtual_stages))
        return pgr_error_set(error, PGR_INVALID,
                             "there are no virtual stages to choose from; give parallel.vpp");
    if (virtual_stage < 0 || virtual_stage >= state->virtual_stages)
        return pgr_error_set(error, PGR_INVALID,
                             "virtual stage %" PRId64 " is not there; vpp = %" PRId64
                             ", so they are 0 to %" PRId64,
                             virtual_stage, state->virtual_stages, state->virtual_stages - 1);
    state->virtual_stage = virtual_stage;
    return PGR_OK;
}

bool pgr_state_is_first_stage(const pgr_state *state, bool ignore_virtual) {
    if (!ignore_virtual && given(state->virtual_stages) && state->virtual_stage != 0)
        return false;
    return pgr_state_stage(state) == 0;
}

bool pgr_state_is_last_stage(const pgr_state *state, bool ignore_virtual) {
    if (!ignore_virtual && given(state->virtual_stages) &&
        state->virtual_stage != state->virtual_stages - 1)
        return false;
    return pgr_state_stage(state) == pgr_state_stages(state) - 1;
}

/* ---- the split of encoder and decoder ---- */

int64_t pgr_state_split(const pgr_state *state) {
    return state->split;
}

pgr_status pgr_state_set_split(pgr_state *state, int64_t split, pgr_error *error) {
    int64_t stages = pgr_state_stages(state);
    if (given(split) && stages == 1)
        return pgr_error_set(error, PGR_INVALID,
                             "a pipeline of one stage cannot be split; it needs pp of at least 2");
    if (given(split) && (split < 1 || split >= stages))
        return pgr_error_set(error, PGR_INVALID,
                             "the decoder cannot begin at stage %" PRId64 " of %" PRId64
                             "; it can at 1 to %" PRId64,
                             split, stages, stages - 1);
    state->split = split;
    return PGR_OK;
}

bool pgr_state_is_before_split(const pgr_state *state, int64_t stage) {
    if (pgr_state_stages(state) == 1 || !given(state->split))
        return true;
    return (given(stage) ? stage : pgr_state_stage(state)) < state->split;
}

bool pgr_state_is_after_split(const pgr_state *state, int64_t stage) {
    if (pgr_state_stages(state) == 1 || !given(state->split))
        return true;
    return (given(stage) ? stage : pgr_state_stage(state)) >= state->split;
}

bool pgr_state_is_at_split(const pgr_state *state) {
    int64_t stage = pgr_state_stage(state);
    return pgr_state_is_before_split(state, stage) && pgr_state_is_after_split(state, stage + 1);
}

/* ---- embeddings ---- */

/* The rank's group of a family, or one with index -1 where the plan has no such family. */
static pgr_state_group group_if_any(const pgr_state *state, const char *family) {
    pgr_state_group group = {.index = -1, .rank = -1};
    pgr_state_group_find(state, family, &group, NULL);
    return group;
}

bool pgr_state_in_embedding_group(const pgr_state *state, bool ignore_virtual) {
    pgr_state_group group = group_if_any(state, "embedding");
    int64_t place = group.index < 0 ? -1 : pgr_family_rank(&group.family, state->rank);
    if (place < 0 || ignore_virtual)
        return place >= 0;
    if (place == 0)
        return pgr_state_is_first_stage(state, false);
    if (place == group.member_count - 1)
        return pgr_state_is_last_stage(state, false);
    return true;
}

bool pgr_state_in_position_embedding_group(const pgr_state *state) {
    return group_if_any(state, "position-embedding").index >= 0;
}
