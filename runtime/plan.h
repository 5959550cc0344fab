/* plan.h - who is in which group. Pure arithmetic on a few sizes: nothing of the world's size is
 * stored, `rank` is always an argument, and every query is closed-form. Links libc alone.
 *
 * A world of N ranks is factored by named axes, the first varying fastest: rank = sum over axes of
 * coordinate * stride. Several views factor the same ranks: the short form has the dense one (tp cp
 * dp pp) and the expert one (etp ep edp pp), the general form any. A family is a set of axes of one
 * view, or a part of their groups; its groups are the sets of ranks that agree on everything else.
 * Source: RankGenerator, HyperCommGrid and initialize_model_parallel of Megatron-Core. */
#ifndef PGR_PLAN_H
#define PGR_PLAN_H

#include "diagnostic.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PGR_AXES_MAX 16   /* of a view */
#define PGR_VIEWS_MAX 8   /* the dense one and those of parallel.views */
#define PGR_LEVELS_MAX 64 /* of hierarchical context parallelism */

typedef struct pgr_axis {
    char name[PGR_NAME_MAX];
    int64_t size, stride; /* ranks */
} pgr_axis;

typedef struct pgr_view {
    char name[PGR_NAME_MAX]; /* "dense", "expert", or as in parallel.views */
    int32_t axis_count;
    pgr_axis axes[PGR_AXES_MAX]; /* in order, the first varies fastest */
} pgr_view;

/* Of the short form; in the general form the grid is the dense view, and the others follow by
 * name. */
enum { PGR_VIEW_DENSE, PGR_VIEW_EXPERT };

typedef struct pgr_plan {
    int64_t world_size;
    int64_t rank_offset;                     /* added to every rank that is reported */
    char order[PGR_AXES_MAX * PGR_NAME_MAX]; /* dash-joined; in the general form, of the grid */
    bool general;                            /* parallel.grid was given */
    int32_t view_count; /* of the short form 2, or 1 where parallel.expert_view = false */
    pgr_view views[PGR_VIEWS_MAX];
    bool world_size_assumed; /* nothing gave a size: this is the smallest legal one */

    /* What families are made of beside axes. */
    int64_t pp_split;            /* the stage that begins the decoder, or PGR_NIL */
    int64_t optimizer_instances; /* 1: one, and no families of its own */
    bool hybrid_cp;
    int32_t level_count; /* of hierarchical cp, innermost first; 0: none */
    int64_t levels[PGR_LEVELS_MAX];
} pgr_plan;

/* A digit of a number in mixed radix: `size` ranks that lie `stride` apart. */
typedef struct pgr_digit {
    int64_t size, stride;
} pgr_digit;

#define PGR_DIGITS_MAX (PGR_AXES_MAX + 2) /* a cut makes two digits of an axis */
#define PGR_STAGES_MAX 3                  /* that hold an embedding: first, split, last */

/* One family. A value: it owns nothing, and answers without its plan. */
typedef struct pgr_family {
    char name[PGR_NAME_MAX]; /* as asked for: "tp", "etp-ep", "dp-cp/hybrid4" */
    int64_t size;            /* ranks in each group; see `whole` */
    int64_t count;           /* groups */
    int32_t view;
    bool whole_axes; /* made of axes and nothing else: each order of their names is a spelling */
    uint32_t mask;   /* bit i: axis i of the view is in the family, at least in part */

    /* Which ranks: the members of a whole are numbered by `members`, first digit fastest, the
     * wholes by `others`. A whole is a group; or each is cut into `pieces` groups of `size`
     * consecutive members (the last has the rest); or only some of its members are in the group. */
    int32_t member_count, other_count;
    pgr_digit members[PGR_DIGITS_MAX], others[PGR_DIGITS_MAX]; /* none of size 1 */
    int64_t whole;                                             /* members of a whole */
    int64_t pieces;                                            /* groups cut from each whole */
    int32_t stage_count; /* 0: every member is in a group; else these alone, ascending */
    int64_t stages[PGR_STAGES_MAX];
} pgr_family;

/* Builds the plan of `spec` for a world of `world_size` ranks; PGR_NIL takes spec->world_size, and
 * where that is PGR_NIL too the smallest legal size. PGR_INVALID, with the values and the nearest
 * sizes that would do, for every rule by which Megatron-Core refuses a layout: world not divisible
 * by tp*cp*pp or etp*ep*pp, an axis larger than 1 missing from `order` (or one repeated or
 * unknown), views that disagree on pp, edp != dp where pp > 1 is not last, vpp with pp = 1, a given
 * dp that is not the derived one, levels of hierarchical cp that do not make cp, optimizer
 * instances that do not divide dp*cp and edp, hybrid cp over an odd number of ranks; and a pp_split
 * outside of the pipeline. With spec->parallel.grid the sizes and the order of the short form are
 * not read: its rules are those of the grid (PG044 to PG046). PGR_LIMIT where a product overflows
 * 63 bits. All problems found are in the message, a line each; a value that a way out names has
 * been tried, and with it alone the rule is kept and no other is broken. */
pgr_status pgr_plan_create(const pgr_spec *spec, int64_t world_size, pgr_plan *plan,
                           pgr_error *error);

/* The same, with every refusal as a finding (PG010 to PG019, PG025, PG027, PG028, PG044 to PG048)
 * with the keys that contribute, added to `found`, and its way out in `help`. PGR_OK adds nothing;
 * else the status is the first refusal's, or PGR_LIMIT where memory is short
 * (found->out_of_memory), and *plan holds what is known all the same, for the rules that need no
 * more: the world and an axis's size are 0 where they are not known, and its stride is 0 where its
 * place in the world is not. No family may be asked of such a plan. */
pgr_status pgr_plan_check(const pgr_spec *spec, int64_t world_size, pgr_plan *plan,
                          pgr_diagnostics *found);

/* The smallest world size that the spec's sizes allow: the smallest multiple of lcm(tp*cp*pp,
 * etp*ep*pp), or of the views of the grid, in which optimizer_instances divide dp*cp and edp and
 * hybrid_cp has an even number of ranks; or where dp is given, or a view has no open size, the one
 * size that there is. */
pgr_status pgr_plan_smallest_world(const pgr_spec *spec, int64_t *world_size, pgr_error *error);

/* Writes the sizes of a grid's axes named tp, cp, pp, ep, etp into the spec's short form, which
 * layers, padding and the rules of the model's shapes read; what the grid does not name is 1; only
 * in a grid without ep and etp is etp not given, and then is tp. Nothing to do in the short form.
 */
void pgr_plan_name_sizes(const pgr_plan *plan, pgr_spec *spec);

/* The size of an axis of any view by name ("tp", "edp"); 0 for an unknown name, or where what
 * pgr_plan_check refused leaves it open. */
int64_t pgr_plan_axis_size(const pgr_plan *plan, const char *axis);

/* Whether some view has an axis of this name. */
bool pgr_plan_has_axis(const pgr_plan *plan, const char *axis);

/* The coordinate of `rank` on an axis by name, or -1 for an unknown axis. Ranks here and below
 * count from 0 without rank_offset. */
int64_t pgr_plan_coordinate(const pgr_plan *plan, const char *axis, int64_t rank);

/* The families that exist by default, in plan order (the order of opening): Megatron-Core's, as far
 * as there are axes for them; then, in the general form, each other axis. */
int32_t pgr_plan_family_count(const pgr_plan *plan);
pgr_family pgr_plan_family_at(const pgr_plan *plan, int32_t index);

/* The family of that name: a default one or any dash-joined set of axes of one view, in any order
 * of its axes. "tp-cp" and "cp-tp" are one family, named as asked for. PGR_INVALID with the known
 * names, and the nearest, otherwise, or with the key that a slashed family needs. */
pgr_status pgr_plan_family_find(const pgr_plan *plan, const char *name, pgr_family *family,
                                pgr_error *error);

/* The index of the group that `rank` is in, 0 <= index < family->count; -1 where it is in none, as
 * the ranks of the middle stages in `embedding`. */
int64_t pgr_family_group(const pgr_family *family, int64_t rank);

/* The rank of `rank` within its group, 0 <= result < its size; -1 where it is in none. */
int64_t pgr_family_rank(const pgr_family *family, int64_t rank);

/* The ranks in group `group`: family->size, or fewer in the last piece that a hybrid family cuts
 * from ranks that it does not divide. */
int64_t pgr_family_group_size(const pgr_family *family, int64_t group);

/* The world rank (without rank_offset) of member `index` of group `group`. */
int64_t pgr_family_member(const pgr_family *family, int64_t group, int64_t index);

/* How far the members of a group lie apart: its digits with neighbours that continue each other
 * merged, the first fastest; returns how many, 0 for groups of one. {2, 1}, {4, 16}: two ranks 1
 * apart, and four such 16 apart. They are the same for equal partitions in equal order, and only
 * for those, where a group is a whole; where it is a piece, they are the whole's; of three stages,
 * the whole pipeline's. */
int32_t pgr_family_strides(const pgr_family *family, pgr_digit strides[PGR_DIGITS_MAX]);

/* Whether two families of one plan are one, under the same or another spelling: "tp-cp", "cp-tp".
 */
bool pgr_family_is(const pgr_family *a, const pgr_family *b);

/* Whether two families have the same groups with the same members in the same order, over the
 * whole world; they can then share one communicator. (Families cut into pieces that no axis has can
 * be told apart though they are the same; none are told the same that are not.) */
bool pgr_family_same(const pgr_family *a, const pgr_family *b);

/* A 64-bit digest of the plan. */
uint64_t pgr_plan_digest(const pgr_plan *plan);

/* The greatest common divisor of two sizes, neither negative; the other one where one is 0. */
int64_t pgr_greatest_divisor(int64_t a, int64_t b);

#ifdef __cplusplus
}
#endif
#endif
