/* plan.h - who is in which group. Pure arithmetic on a few sizes: nothing of the world's size is
 * stored, `rank` is always an argument, and every query is closed-form. Links libc alone.
 *
 * A world of N ranks is factored by named axes, the first varying fastest: rank = sum over axes of
 * coordinate * stride. Two views factor the same ranks: dense (tp cp dp pp) and expert (etp ep edp
 * pp). A family is a set of axes of one view; its groups are the sets of ranks that agree on all
 * the other axes. Source: RankGenerator and initialize_model_parallel of Megatron-Core. */
#ifndef PGR_PLAN_H
#define PGR_PLAN_H

#include "diagnostic.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PGR_AXES_MAX 16

typedef struct pgr_axis {
    char name[PGR_NAME_MAX];
    int64_t size, stride; /* ranks */
} pgr_axis;

typedef struct pgr_view {
    char name[PGR_NAME_MAX]; /* "dense", "expert" */
    int32_t axis_count;
    pgr_axis axes[PGR_AXES_MAX]; /* in order, the first varies fastest */
} pgr_view;

enum { PGR_VIEW_DENSE, PGR_VIEW_EXPERT };

typedef struct pgr_plan {
    int64_t world_size;
    int64_t rank_offset; /* added to every rank that is reported */
    char order[PGR_NAME_MAX];
    int32_t view_count;      /* 2, or 1 where parallel.expert_view = false */
    pgr_view views[2];       /* PGR_VIEW_DENSE, PGR_VIEW_EXPERT */
    bool world_size_assumed; /* nothing gave a size: this is the smallest legal one */
} pgr_plan;

/* One family. A value: it owns nothing and stays valid as long as its plan's sizes do. */
typedef struct pgr_family {
    char name[PGR_NAME_MAX]; /* as asked for: "tp", "etp-ep" */
    int32_t view;
    uint32_t mask; /* bit i: axis i of the view is in the family */
    int64_t size;  /* ranks in each group */
    int64_t count; /* groups */
} pgr_family;

/* Builds the plan of `spec` for a world of `world_size` ranks; PGR_NIL takes spec->world_size, and
 * where that is PGR_NIL too the smallest legal size. PGR_INVALID, with the values and the nearest
 * sizes that would do, for every rule by which Megatron-Core refuses a layout: world not divisible
 * by tp*cp*pp or etp*ep*pp, an axis larger than 1 missing from `order` (or one repeated or
 * unknown), views that disagree on pp, edp != dp where pp > 1 is not last, vpp with pp = 1, a given
 * dp that is not the derived one. PGR_LIMIT where a product overflows 63 bits. All problems found
 * are in the message, a line each; a value that a way out names has been tried, and with it alone
 * the rule is kept and no other is broken. */
pgr_status pgr_plan_create(const pgr_spec *spec, int64_t world_size, pgr_plan *plan,
                           pgr_error *error);

/* The same, with every refusal as a finding (PG010 to PG019) with the keys that contribute, added
 * to `found`, and its way out in `help`. PGR_OK adds nothing; else the status is the first
 * refusal's, or PGR_LIMIT where memory is short (found->out_of_memory), and *plan holds what is
 * known all the same, for the rules that need no more: the world and an axis's size are 0 where
 * they are not known, and its stride is 0 where its place in the world is not. No family may be
 * asked of such a plan. */
pgr_status pgr_plan_check(const pgr_spec *spec, int64_t world_size, pgr_plan *plan,
                          pgr_diagnostics *found);

/* The smallest world size that the spec's sizes allow: the smallest multiple of lcm(tp*cp*pp,
 * etp*ep*pp) in which optimizer_instances divide dp*cp and edp, or where dp is given the one size
 * that has it, dp*tp*cp*pp. */
pgr_status pgr_plan_smallest_world(const pgr_spec *spec, int64_t *world_size, pgr_error *error);

/* The size of an axis of either view by name ("tp", "edp"); 0 for an unknown name, or where what
 * pgr_plan_check refused leaves it open. */
int64_t pgr_plan_axis_size(const pgr_plan *plan, const char *axis);

/* The coordinate of `rank` on an axis by name, or -1 for an unknown axis. Ranks here and below
 * count from 0 without rank_offset. */
int64_t pgr_plan_coordinate(const pgr_plan *plan, const char *axis, int64_t rank);

/* The families that exist by default, in plan order (the order of opening): Megatron-Core's. */
int32_t pgr_plan_family_count(const pgr_plan *plan);
pgr_family pgr_plan_family_at(const pgr_plan *plan, int32_t index);

/* The family of that name: a default one or any dash-joined set of axes of one view, in any order
 * of its axes. "tp-cp" and "cp-tp" are one family, named as asked for. PGR_INVALID with the known
 * names, and the nearest, otherwise. */
pgr_status pgr_plan_family_find(const pgr_plan *plan, const char *name, pgr_family *family,
                                pgr_error *error);

/* The index of the group that `rank` is in, 0 <= index < family->count. */
int64_t pgr_family_group(const pgr_plan *plan, const pgr_family *family, int64_t rank);

/* The rank of `rank` within its group, 0 <= result < family->size. */
int64_t pgr_family_rank(const pgr_plan *plan, const pgr_family *family, int64_t rank);

/* The world rank (without rank_offset) of member `index` of group `group`. */
int64_t pgr_family_member(const pgr_plan *plan, const pgr_family *family, int64_t group,
                          int64_t index);

/* Whether two families have the same groups with the same members in the same order, over the
 * whole world; they can then share one communicator. */
bool pgr_family_same(const pgr_plan *plan, const pgr_family *a, const pgr_family *b);

/* A 64-bit digest of the plan. */
uint64_t pgr_plan_digest(const pgr_plan *plan);

/* The greatest common divisor of two sizes, neither negative; the other one where one is 0. */
int64_t pgr_greatest_divisor(int64_t a, int64_t b);

#ifdef __cplusplus
}
#endif
#endif
