/* state.h - the parallel state of a rank: everything that Megatron-Core's parallel_state, vLLM's
 * and MindSpore's CommGroup answer about a rank, from the plan and the config alone, with nothing
 * opened. docs/getters.md lists each getter of theirs beside the one here.
 *
 * A state is a value that borrows its plan and spec. It is of any rank, not only one's own, so that
 * one process can ask for all of them. Sizes are read from the plan, so that a spec with a grid
 * does as well as one of the short form. Ranks are given and returned as they are reported, from
 * rank_offset on; places in a group, stages, layers, experts and groups count from 0. */
#ifndef PGR_STATE_H
#define PGR_STATE_H

#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PGR_OVERRIDES_MAX 16

/* A size and a place that answer instead of the plan's, for a dry run; PGR_NIL: the plan's. */
typedef struct pgr_override {
    char family[PGR_NAME_MAX];
    int64_t size, rank;
} pgr_override;

typedef struct pgr_state {
    const pgr_plan *plan;                  /* borrowed */
    const pgr_spec *spec;                  /* borrowed */
    int64_t rank;                          /* without rank_offset */
    int64_t virtual_stages, virtual_stage; /* PGR_NIL without parallel.vpp */
    int64_t split;                         /* the stage that begins the decoder, or PGR_NIL */
    int32_t override_count;
    pgr_override overrides[PGR_OVERRIDES_MAX];
} pgr_state;

/* Consecutive items, such as the layers of a stage or the columns of a shard. */
typedef struct pgr_range {
    int64_t first, count;
} pgr_range;

/* The state of `rank`, which counts from plan->rank_offset; with vpp its virtual stage is 0, as
 * initialize_model_parallel sets it. The plan is a whole one, of pgr_plan_create. PGR_INVALID, with
 * the world's ranks, for any other number. */
pgr_status pgr_state_create(const pgr_plan *plan, const pgr_spec *spec, int64_t rank,
                            pgr_state *state, pgr_error *error);

/* ---- groups ---- */

/* The group of this rank in a family. */
typedef struct pgr_state_group {
    pgr_family family;
    int64_t index;         /* of the group among the family's; -1: the rank is in none */
    int64_t rank, size;    /* the place in it and its ranks, as overridden; -1 and 0 in none */
    int64_t member_count;  /* ranks of the plan's group, whatever is overridden; 0 in none */
    int64_t rank_offset;   /* added to members */
    bool has_communicator; /* a group of one has none, and neither has one that is not there */
} pgr_state_group;

/* The group of any family of the plan; errors as pgr_plan_family_find. That a rank is in no group
 * of it is no error: see index. */
pgr_status pgr_state_group_find(const pgr_state *state, const char *family, pgr_state_group *group,
                                pgr_error *error);

/* The rank of member `place`, 0 <= place < member_count (overrides do not change members); -1
 * elsewhere. */
int64_t pgr_state_group_member(const pgr_state_group *group, int64_t place);

/* "tp-0-1", as MindSpore names a group: the family and its members; with many members the name is
 * long, so the length that the whole name has (without NUL) is returned, and as much as fits is
 * written. "" where the rank is in no group. Whether the group has a communicator is
 * group->has_communicator: a group of one has a name and none. */
int64_t pgr_state_group_name(const pgr_state_group *group, char *name, int64_t bytes);

/* The first member (Megatron-Core's source rank of a broadcast), the last, and the neighbours
 * around the ring; -1 where the rank is in no group. The last and the neighbours go by the size and
 * the place as overridden, as get_pipeline_model_parallel_next_rank does, and are -1 where the
 * plan's group has no member there. */
int64_t pgr_state_group_source(const pgr_state_group *group);
int64_t pgr_state_group_last(const pgr_state_group *group);
int64_t pgr_state_group_next(const pgr_state_group *group);
int64_t pgr_state_group_previous(const pgr_state_group *group);

/* For a dry run: lets a family answer another size or place (PGR_NIL: the plan's again), as
 * set_tensor_model_parallel_world_size and _rank do. Stages and layers follow the overrides of
 * "pp", experts those of "ep", shards those of their family; each family is overridden alone.
 * PGR_INVALID for an unknown family or one that the rank is in no group of, a size below 1 or a
 * place outside of it (so that a smaller size may need a place too); PGR_LIMIT above
 * PGR_OVERRIDES_MAX families. */
pgr_status pgr_state_override(pgr_state *state, const char *family, int64_t size, int64_t rank,
                              pgr_error *error);

/* ---- the pipeline ---- */

/* The rank's stage, and how many there are. */
int64_t pgr_state_stage(const pgr_state *state);
int64_t pgr_state_stages(const pgr_state *state);

/* Virtual stages on each rank: parallel.vpp, or PGR_NIL without. */
int64_t pgr_state_virtual_stages(const pgr_state *state);

/* The virtual stage that is being worked on; PGR_NIL without vpp. */
int64_t pgr_state_virtual_stage(const pgr_state *state);

/* For a dry run with another number of them (PGR_NIL: none), as
 * set_virtual_pipeline_model_parallel_world_size; the virtual stage is 0 then. PGR_INVALID below 1.
 */
pgr_status pgr_state_set_virtual_stages(pgr_state *state, int64_t count, pgr_error *error);

/* PGR_INVALID without vpp, or where it is not 0 to vpp - 1. */
pgr_status pgr_state_set_virtual_stage(pgr_state *state, int64_t virtual_stage, pgr_error *error);

/* Whether this is the pipeline's first or last stage; unless `ignore_virtual`, also the first or
 * last virtual stage. Source: is_pipeline_first_stage and is_pipeline_last_stage of Megatron-Core.
 */
bool pgr_state_is_first_stage(const pgr_state *state, bool ignore_virtual);
bool pgr_state_is_last_stage(const pgr_state *state, bool ignore_virtual);

/* The stage that begins the decoder: parallel.pp_split, or PGR_NIL without. Setting it (PGR_NIL:
 * none) changes the three questions below and no group, as set_pipeline_model_parallel_split_rank.
 * PGR_INVALID where it is not 1 to stages - 1. */
int64_t pgr_state_split(const pgr_state *state);
pgr_status pgr_state_set_split(pgr_state *state, int64_t split, pgr_error *error);

/* Whether `stage` (PGR_NIL: the rank's own) is before the split of encoder and decoder, at or after
 * it; both are true without pp_split and with one stage. At the split: the last stage before it,
 * and so every stage without a split. Source: is_pipeline_stage_before_split, _after_split,
 * _at_split of vLLM's older parallel state. */
bool pgr_state_is_before_split(const pgr_state *state, int64_t stage);
bool pgr_state_is_after_split(const pgr_state *state, int64_t stage);
bool pgr_state_is_at_split(const pgr_state *state);

/* Whether the rank is in the group of those that hold a copy of the embedding; unless
 * `ignore_virtual`, as the group's first rank only at the first virtual stage of the first stage,
 * and as its last only at the last of the last. The group is the plan's: an override of "pp"
 * changes no more than these two stages. Source: is_rank_in_embedding_group of Megatron-Core. */
bool pgr_state_in_embedding_group(const pgr_state *state, bool ignore_virtual);
bool pgr_state_in_position_embedding_group(const pgr_state *state);

/* ---- what the rank holds ---- */

/* The layers of a stage (PGR_NIL: the rank's own), those of the virtual stage being worked on where
 * there is vpp, numbered through the model. Virtual stages go round the stages: stage s of pp holds
 * chunks s, pp + s, 2 * pp + s, ... first_stage_layers and last_stage_layers are heeded, and so is
 * stage_layers, with an entry for each stage or for each chunk in the model's order. Source:
 * get_num_layers_to_build and get_transformer_layer_offset of Megatron-Core, with one stage without
 * virtual ones, as there. PGR_INVALID for a stage that is not there, where model.layers is needed
 * and not given, and where they do not divide, by the rules of PG020 and PG029. */
pgr_status pgr_state_layers(const pgr_state *state, int64_t stage, pgr_range *layers,
                            pgr_error *error);

/* The experts that the rank holds, by their global numbers: moe.experts / ep of them from
 * ep rank * that on; all of them where no axis is ep. Source: MoELayer of Megatron-Core
 * (local_expert_indices). PGR_INVALID where moe.experts is not given or ep does not divide it. */
pgr_status pgr_state_experts(const pgr_state *state, pgr_range *experts, pgr_error *error);

/* The share of the rank in a dimension of `size` elements that is cut evenly over a family, as tp
 * cuts the columns of a weight. PGR_INVALID where it does not divide, or the rank is in no group.
 */
pgr_status pgr_state_shard(const pgr_state *state, const char *family, int64_t size,
                           pgr_range *shard, pgr_error *error);

#ifdef __cplusplus
}
#endif
#endif
