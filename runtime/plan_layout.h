/* plan_layout.h - the inside of planning: the sizes of a layout and which rules it breaks, without
 * a word of text, so that a way out can be tried before it is told. plan_layout.c derives it,
 * plan_rules.c tells what is broken, plan_mend.c finds what would mend it. The general form has its
 * own rules, plan_grid.c. */
#ifndef PGR_PLAN_LAYOUT_H
#define PGR_PLAN_LAYOUT_H

#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The axes that `order` may name. In the expert view tp and dp read etp and edp and cp is absent;
 * in the dense view ep is absent. */
enum { PGR_TP, PGR_CP, PGR_EP, PGR_DP, PGR_PP, PGR_ORDER_AXES };
extern const char *const pgr_dense_names[PGR_ORDER_AXES], *const pgr_expert_names[PGR_ORDER_AXES];
extern const char *const pgr_order_names[PGR_ORDER_AXES];

/* The rules that a layout can break, by their codes. */
enum {
    PGR_PG010 = 1u << 0,
    PGR_PG011 = 1u << 1,
    PGR_PG013 = 1u << 3,
    PGR_PG014 = 1u << 4,
    PGR_PG015 = 1u << 5,
    PGR_PG016 = 1u << 6,
    PGR_PG017 = 1u << 7,
    PGR_PG018 = 1u << 8,
    PGR_PG019 = 1u << 9,
    PGR_PG028 = 1u << 10,
    PGR_PG048 = 1u << 11
};

/* Everything the rules talk about. A size that is not known is 0. */
typedef struct pgr_layout {
    const pgr_spec *spec;
    int64_t asked; /* the world that was asked for, or PGR_NIL */
    int64_t world;
    bool world_assumed;
    int64_t dense[PGR_ORDER_AXES], expert[PGR_ORDER_AXES]; /* sizes per axis of `order` */
    int64_t dense_product, expert_product; /* without dp and edp; 0 where it overflows */
    int64_t unit; /* every legal world is a multiple of it; 0 where it does not fit */
    char order[PGR_NAME_MAX];
    int axes[PGR_ORDER_AXES]; /* the axes that order names, in order */
    int axis_count;
    bool named[PGR_ORDER_AXES];
    bool order_ok;
    bool dense_missing, expert_missing; /* order leaves out an axis that is larger than 1 */
    uint32_t broken;                    /* PGR_PG010, ... */
    bool bare;                          /* no way out is asked for: help stays empty */
} pgr_layout;

/* The layout of a spec in a world of `world_size` ranks, as pgr_plan_create takes it. It points to
 * the spec. */
pgr_layout pgr_layout_of(const pgr_spec *spec, int64_t world_size);

/* The axis of `order` that a token names, or -1. */
int pgr_layout_axis(const char *token, size_t length);

/* Whether dp is left out of an order whose every legal world needs it, though dp is not known. */
bool pgr_layout_needs_dp(const pgr_layout *l);

/* The product of the axes on that side of pp which dp is not on. */
int64_t pgr_layout_beside_pp(const pgr_layout *l, const int64_t sizes[PGR_ORDER_AXES]);

/* The product of three sizes, or 0 where it does not fit in 63 bits. */
int64_t pgr_layout_product(int64_t a, int64_t b, int64_t c);

/* ---- what is told ---- */

/* The refusals so far. */
typedef struct pgr_problems {
    pgr_status status; /* of the first one; PGR_OK while there are none */
    pgr_diagnostics *list;
} pgr_problems;

/* Notes a refusal. */
void pgr_plan_problem(pgr_problems *found, pgr_status status, const char *code, const char *paths,
                      const char *help, const char *format, ...) PGR_PRINTF(6, 7);

/* A size below 1, by the last part of its key: PG019. */
void pgr_tell_size(const char *key, int64_t value, pgr_problems *found);

/* A world below 1, or ranks that do not fit with rank_offset: PG019. */
void pgr_tell_ranks(const pgr_spec *spec, int64_t world, bool assumed, pgr_problems *found);

/* ---- the general form (plan_grid.c) ---- */

/* Lays the axes of a view out, the first varying fastest, once all sizes are set. What lies behind
 * an axis of unknown size (0) has no stride (0), and nothing has where the view is not `laid_out`.
 */
void pgr_grid_lay_out(const pgr_grid *axes, const char *name, bool laid_out, pgr_view *view);

/* Makes the plan of spec->parallel.grid and views, or tells why there is none (PG019, PG044 to
 * PG046); what is not known is 0 in *plan. `world_size` as in pgr_plan_create. */
void pgr_grid_plan(const pgr_spec *spec, int64_t world_size, pgr_plan *plan, pgr_problems *found);

/* ---- parts of groups (plan_parts.c) ---- */

/* Copies into the plan what families are made of beside axes, and tells where it does not fit the
 * axes: PG025, PG027, PG028, PG048. Sizes that are not known are not told of. */
void pgr_plan_parts(const pgr_spec *spec, pgr_plan *plan, pgr_problems *found);

/* "1, 2, 4 or 8": the divisors of `value`, for a way out; cut with "..." where long, and only 1 of
 * a value beyond 2^32. */
void pgr_plan_divisors(int64_t value, char *text, size_t bytes);

/* Whether the data-parallel ranks share the optimizer's instances out (PG028), and the hybrid
 * groups (PG048); and both. */
bool pgr_instances_fit(const pgr_spec *spec, int64_t data_ranks, int64_t expert_data_ranks);
bool pgr_hybrid_fits(const pgr_spec *spec, int64_t data_ranks);
bool pgr_shares_fit(const pgr_spec *spec, int64_t data_ranks, int64_t expert_data_ranks);

/* ---- ways out (plan_mend.c) ----
 *
 * Each value that they name has been tried: with it and nothing else the rule is kept, and no rule
 * is broken that was not before, neither of planning nor of the model's shapes. */

enum { PGR_MEND_MAX = 384 }; /* bytes of a way out, NUL included */

/* For PG010 or PG011: the nearest worlds, and in this world the nearest sizes of each axis. */
void pgr_mend_world(const pgr_layout *l, uint32_t rule, char help[PGR_MEND_MAX]);

/* For PG018. */
void pgr_mend_dp(const pgr_layout *l, char help[PGR_MEND_MAX]);

/* For PG013 and PG014: an order that keeps both, beginning with what is said in `hint`. */
void pgr_mend_order(const pgr_layout *l, const char *hint, char help[PGR_MEND_MAX]);

/* For PG015 and PG016: what keeps both. */
void pgr_mend_pipeline(const pgr_layout *l, char help[PGR_MEND_MAX]);

/* For PG017. */
void pgr_mend_vpp(const pgr_layout *l, char help[PGR_MEND_MAX]);

#ifdef __cplusplus
}
#endif
#endif
