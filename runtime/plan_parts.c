/* plan_parts.c - what families are made of beside axes: the split of the pipeline, levels of
 * context parallelism, optimizer instances and hybrid groups; and the rules that they keep: PG019,
 * PG025, PG027, PG028 and PG048. */
#include "plan_layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool pgr_instances_fit(const pgr_spec *s, int64_t data_ranks, int64_t expert_data_ranks) {
    int64_t instances = s->parallel.optimizer_instances;
    return instances >= 1 && data_ranks % instances == 0 && expert_data_ranks % instances == 0;
}

bool pgr_hybrid_fits(const pgr_spec *s, int64_t data_ranks) {
    return !s->parallel.hybrid_cp || data_ranks % 2 == 0;
}

bool pgr_shares_fit(const pgr_spec *s, int64_t data_ranks, int64_t expert_data_ranks) {
    return pgr_instances_fit(s, data_ranks, expert_data_ranks) && pgr_hybrid_fits(s, data_ranks);
}

/* The keys that a size of the plan comes from. */
static const char *size_keys(const pgr_plan *plan, const char *of_short_form) {
    return plan->general ? "parallel.grid" : of_short_form;
}

/* PG017; of the short form plan_rules.c tells it, with sizes that would do. */
static void tell_chunks(const pgr_spec *s, const pgr_plan *plan, pgr_problems *found) {
    if (s->parallel.vpp != PGR_NIL && pgr_plan_axis_size(plan, "pp") == 1)
        pgr_plan_problem(found, PGR_INVALID, "PG017", "parallel.vpp parallel.grid", "leave vpp out",
                         "vpp = %" PRId64 " needs pp greater than 1, and pp = 1", s->parallel.vpp);
}

static void tell_split(const pgr_spec *s, const pgr_plan *plan, pgr_problems *found) {
    int64_t split = s->parallel.pp_split, pp = pgr_plan_axis_size(plan, "pp");
    char help[64] = "leave pp_split out", paths[64];
    if (split == PGR_NIL || pp == 0 || (split >= 1 && split < pp))
        return;
    snprintf(paths, sizeof paths, "parallel.pp_split %s", size_keys(plan, "parallel.pp"));
    if (pp == 2)
        snprintf(help, sizeof help, "take pp_split = 1");
    else if (pp > 2)
        snprintf(help, sizeof help, "pp_split can be 1 to %" PRId64, pp - 1);
    pgr_plan_problem(found, PGR_INVALID, "PG025", paths, help,
                     "pp_split = %" PRId64 " is out of range for pp = %" PRId64, split, pp);
}

static void tell_levels(const pgr_spec *s, const pgr_plan *plan, pgr_problems *found) {
    const pgr_list *levels = &s->parallel.hierarchical_cp;
    int64_t product = 1, before = 1, cp = pgr_plan_axis_size(plan, "cp");
    char paths[64], help[128] = "leave hierarchical_cp out";
    for (int64_t i = 0; i < levels->count && product > 0; i++) {
        if (levels->items[i] < 1) {
            pgr_plan_problem(found, PGR_INVALID, "PG027", "parallel.hierarchical_cp", help,
                             "hierarchical_cp has a level of %" PRId64 ", and the smallest is 1",
                             levels->items[i]);
            return;
        }
        before = product;
        product = pgr_layout_product(product, levels->items[i], 1);
    }
    snprintf(paths, sizeof paths, "parallel.hierarchical_cp %s", size_keys(plan, "parallel.cp"));
    if (levels->count > PGR_LEVELS_MAX)
        pgr_plan_problem(found, PGR_INVALID, "PG027", "parallel.hierarchical_cp",
                         "leave levels of 1 out",
                         "hierarchical_cp has %" PRId64 " levels, and at most %d are taken",
                         levels->count, PGR_LEVELS_MAX);
    if (levels->count == 0 || cp == 0 || product == cp)
        return;
    if (cp % before == 0)
        snprintf(help, sizeof help, "make the last level %" PRId64 ", or leave hierarchical_cp out",
                 cp / before);
    if (product > 0)
        pgr_plan_problem(found, PGR_INVALID, "PG027", paths, help,
                         "the levels of hierarchical_cp multiply to %" PRId64 ", and cp = %" PRId64,
                         product, cp);
    else
        pgr_plan_problem(found, PGR_INVALID, "PG027", paths, "leave hierarchical_cp out",
                         "the levels of hierarchical_cp multiply to more than fits in 63 bits, and "
                         "cp = %" PRId64,
                         cp);
}

enum { DIVISORS_SHOWN = 12 };

/* Trial division up to the square root of this is quick, also for hostile sizes. */
static const int64_t largest_factored = INT64_C(1) << 32;

/* The next divisor of `value` above `last`; 0 where there is none. */
static int64_t next_divisor(int64_t value, int64_t last) {
    for (int64_t d = last + 1; d <= value / d; d++)
        if (value % d == 0)
            return d;
    /* the larger half: value / d for falling d below the root */
    int64_t root = 1;
    while ((root + 1) <= value / (root + 1))
        root++;
    for (int64_t d = last < root ? root : value / (last + 1); d >= 1; d--)
        if (value % d == 0 && value / d > last)
            return value / d;
    return 0;
}

void pgr_plan_divisors(int64_t value, char *text, size_t bytes) {
    snprintf(text, bytes, "1");
    if (value < 1 || value > largest_factored)
        return;
    int64_t found[DIVISORS_SHOWN + 1];
    int count = 0;
    for (int64_t d = 0; count <= DIVISORS_SHOWN && (d = next_divisor(value, d)) != 0;)
        found[count++] = d;
    size_t length = 0;
    for (int i = 0; i < count && i < DIVISORS_SHOWN && length < bytes; i++) {
        const char *before = i == 0 ? "" : i == count - 1 ? " or " : ", ";
        int wanted = snprintf(text + length, bytes - length, "%s%" PRId64, before, found[i]);
        length += (size_t)wanted;
    }
    if (count > DIVISORS_SHOWN && length < bytes)
        snprintf(text + length, bytes - length, ", ...");
}

/* Whether the view has an axis of this name, and its size. */
static bool size_in(const pgr_view *view, const char *axis, int64_t *size) {
    for (int32_t i = 0; i < view->axis_count; i++) {
        if (strcmp(view->axes[i].name, axis) != 0)
            continue;
        *size = view->axes[i].size;
        return true;
    }
    return false;
}

/* The sizes that make the data-parallel ranks: dp, and cp in the view that has dp. */
static void data_sizes(const pgr_plan *plan, int64_t *dp, int64_t *cp) {
    int32_t view = 0;
    *dp = 0;
    *cp = 1;
    while (view < plan->view_count && !size_in(&plan->views[view], "dp", dp))
        view++;
    if (view < plan->view_count)
        size_in(&plan->views[view], "cp", cp);
}

static void tell_shares(const pgr_spec *s, const pgr_plan *plan, pgr_problems *found) {
    int64_t instances = s->parallel.optimizer_instances;
    int64_t dp, cp, edp = pgr_plan_axis_size(plan, "edp");
    data_sizes(plan, &dp, &cp);
    int64_t ranks = pgr_layout_product(dp, cp, 1);
    int64_t common = pgr_greatest_divisor(ranks, edp); /* of the one that is known */
    pgr_tell_size("optimizer_instances", instances, found);
    if (instances >= 1 && (ranks % instances != 0 || edp % instances != 0)) { /* 0: not known */
        char list[160], help[224];
        bool dense = ranks % instances != 0;
        pgr_plan_divisors(common, list, sizeof list);
        snprintf(help, sizeof help, "optimizer_instances can be %s", list);
        pgr_plan_problem(found, PGR_INVALID, "PG028",
                         plan->general ? "parallel.optimizer_instances world_size parallel.grid"
                         : dense
                             ? "parallel.optimizer_instances world_size parallel.tp parallel.pp"
                             : "parallel.optimizer_instances world_size parallel.etp parallel.ep "
                               "parallel.pp",
                         help, "optimizer_instances = %" PRId64 " does not divide %s = %" PRId64,
                         instances, dense ? "dp * cp" : "edp", dense ? ranks : edp);
    }
    if (s->parallel.hybrid_cp && ranks % 2 != 0)
        pgr_plan_problem(found, PGR_INVALID, "PG048",
                         plan->general ? "parallel.hybrid_cp world_size parallel.grid"
                                       : "parallel.hybrid_cp world_size parallel.tp parallel.pp",
                         "leave hybrid_cp out",
                         "hybrid_cp needs an even number of data and context parallel ranks, and "
                         "dp * cp = %" PRId64 " * %" PRId64 " = %" PRId64,
                         dp, cp, ranks);
}

/* What families are made of beside axes. */
static void copy(const pgr_spec *spec, pgr_plan *plan) {
    const pgr_list *levels = &spec->parallel.hierarchical_cp;
    plan->rank_offset = spec->parallel.rank_offset;
    plan->pp_split = spec->parallel.pp_split;
    plan->optimizer_instances = spec->parallel.optimizer_instances;
    plan->hybrid_cp = spec->parallel.hybrid_cp;
    for (int64_t i = 0; i < levels->count && i < PGR_LEVELS_MAX; i++)
        plan->levels[plan->level_count++] = levels->items[i];
}

void pgr_plan_parts(const pgr_spec *spec, pgr_plan *plan, pgr_problems *found) {
    copy(spec, plan);
    if (spec->parallel.vpp != PGR_NIL)
        pgr_tell_size("vpp", spec->parallel.vpp, found);
    if (plan->general)
        tell_chunks(spec, plan, found);
    tell_split(spec, plan, found);
    tell_levels(spec, plan, found);
    tell_shares(spec, plan, found);
}
