/* check_crossing.c - groups that cross the boundary of a node or an NVLink domain, and the order or
 * the size that keeps them inside: PG051. */
#include "check_trial.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { AXES = 5, SIZES_SHOWN = 2 };

static bool given(int64_t value) {
    return value != PGR_NIL;
}

/* GPUs that are near each other: an NVLink domain may span nodes. PGR_NIL where not known. */
static int64_t near_gpus(const pgr_spec *s, const char **name) {
    bool domain = given(s->cluster.nvlink_domain);
    *name = domain ? "nvlink_domain" : "gpus_per_node";
    return domain ? s->cluster.nvlink_domain : s->cluster.gpus_per_node;
}

/* The axis, or NULL where there is none or its place in the world is not known. */
static const pgr_axis *axis_of(const pgr_plan *plan, const char *name) {
    for (int32_t view = 0; view < plan->view_count; view++) {
        for (int32_t i = 0; i < plan->views[view].axis_count; i++) {
            const pgr_axis *axis = &plan->views[view].axes[i];
            if (strcmp(axis->name, name) == 0)
                return axis->stride > 0 ? axis : NULL;
        }
    }
    return NULL;
}

/* The groups of an axis fill blocks of stride * size ranks, from the plan's rank 0 on. A boundary
 * between domains inside a block lies between two members of one of its groups. Returns the first
 * such boundary, as a rank without rank_offset; 0 where there is none. */
static int64_t boundary_of(const pgr_plan *plan, const pgr_axis *axis, int64_t domain) {
    if (axis == NULL || axis->size == 1)
        return 0;
    int64_t block = axis->stride * axis->size, first = domain - plan->rank_offset % domain;
    if (first >= plan->world_size)
        return 0;
    if (first % block != 0)
        return first;
    if (domain % block == 0 || domain >= plan->world_size - first)
        return 0;
    return first + domain; /* the first one lies between blocks, so this one does not */
}

/* Two neighbours of a group on both sides of a boundary. The first group of the block has its last
 * member too early where the boundary lies in the block's last stride; the last group does not. */
static void example_of(const pgr_axis *axis, int64_t boundary, int64_t *near, int64_t *far) {
    int64_t inside = boundary % (axis->stride * axis->size);
    int64_t start = boundary - inside, last = axis->stride * (axis->size - 1);
    *near = start + (inside <= last ? (inside - 1) / axis->stride * axis->stride : last - 1);
    *far = *near + axis->stride;
}

bool pgr_check_crosses(const pgr_spec *s, const pgr_plan *plan, const char *axis) {
    const char *name;
    int64_t domain = near_gpus(s, &name);
    return !given(domain) || boundary_of(plan, axis_of(plan, axis), domain) > 0;
}

/* ---- ways out ---- */

/* Steps to the next permutation in lexicographic order; false after the last. */
static bool next_order(int order[AXES]) {
    int i = AXES - 2, j = AXES - 1;
    while (i >= 0 && order[i] > order[i + 1])
        i--;
    if (i < 0)
        return false;
    while (order[j] < order[i])
        j--;
    int other = order[i];
    order[i] = order[j];
    order[j] = other;
    for (i++, j = AXES - 1; i < j; i++, j--) { /* what follows was descending: turn it round */
        other = order[i];
        order[i] = order[j];
        order[j] = other;
    }
    return true;
}

/* Offers the first order that keeps the groups inside, Megatron-Core's own one being tried first
 * and those near it next. */
static bool offer_order(pgr_trial *t) {
    static const char *const names[AXES] = {"tp", "cp", "ep", "dp", "pp"};
    int order[AXES] = {0, 1, 2, 3, 4};
    do {
        snprintf(t->spec.parallel.order, sizeof t->spec.parallel.order, "%s-%s-%s-%s-%s",
                 names[order[0]], names[order[1]], names[order[2]], names[order[3]],
                 names[order[4]]);
        if (pgr_trial_mends(t)) {
            pgr_trial_offer(t, "", "order = \"%s\" keeps it inside", t->spec.parallel.order);
            pgr_trial_reset(t);
            return true;
        }
    } while (next_order(order));
    pgr_trial_reset(t);
    return false;
}

/* Offers the sizes of an axis nearest to its present one, from `least` on, that keep the groups
 * inside. They divide `of`. */
static bool offer_sizes(pgr_trial *t, const char *name, int64_t *field, int64_t now, int64_t of,
                        int64_t least) {
    int64_t values[PGR_TRIAL_VALUES], shown[SIZES_SHOWN], old = *field;
    char list[64];
    int count, below = -1, above = -1, used = 0;
    *field = now; /* etp may be left out */
    pgr_trial_more(t, 4 * PGR_TRIAL_VALUES);
    count = pgr_trial_divisors(t, field, of, values);
    *field = old;
    for (int i = 0; i < count; i++) {
        if (values[i] < now && values[i] >= least)
            below = i;
        if (values[i] > now && above < 0)
            above = i;
    }
    if (below >= 0)
        shown[used++] = values[below];
    if (above >= 0)
        shown[used++] = values[above];
    if (used == 0)
        return false;
    pgr_trial_list(shown, used, list, sizeof list);
    pgr_trial_offer(t, "", "%s = %s keeps it inside", name, list);
    return true;
}

/* What is left of the world for the axis. */
static int64_t ranks_for(const pgr_plan *plan, int64_t other, int64_t another) {
    int64_t rest = plan->world_size / other;
    return rest / another;
}

static bool offer_ep(pgr_trial *t, const pgr_spec *s, const pgr_plan *plan, int64_t etp,
                     int64_t least) {
    int64_t of = ranks_for(plan, etp, s->parallel.pp);
    if (s->has_moe && given(s->moe.experts))
        of = pgr_greatest_divisor(of, s->moe.experts);
    return offer_sizes(t, "ep", &t->spec.parallel.ep, s->parallel.ep, of, least);
}

static bool offer_etp(pgr_trial *t, const pgr_spec *s, const pgr_plan *plan, int64_t etp) {
    return offer_sizes(t, "etp", &t->spec.parallel.etp, etp,
                       ranks_for(plan, s->parallel.ep, s->parallel.pp), 1);
}

/* The smallest domain of whole nodes that would hold the groups; only where no order and no size
 * does. */
static void offer_domain(pgr_trial *t, const pgr_spec *s, const pgr_axis *axis) {
    int64_t node = given(s->cluster.gpus_per_node) ? s->cluster.gpus_per_node : 1;
    int64_t step = pgr_least_multiple(node, axis->stride * axis->size);
    pgr_trial_more(t, 1);
    t->spec.cluster.nvlink_domain = step;
    if (step > 0 && pgr_trial_mends(t))
        pgr_trial_offer(t, "", "nvlink_domain = %" PRId64 " would keep it inside", step);
    pgr_trial_reset(t);
}

static void crossing(const pgr_spec *s, const pgr_plan *plan, const pgr_axis *axis,
                     const char *paths, pgr_diagnostics *found) {
    const char *name;
    int64_t domain = near_gpus(s, &name), near, far;
    int64_t boundary = given(domain) ? boundary_of(plan, axis, domain) : 0;
    pgr_trial t;
    if (boundary == 0)
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG051", paths)) {
        const pgr_axis *etp = axis_of(plan, "etp");
        int64_t cut = etp != NULL ? etp->size : 1;
        bool any = offer_order(&t);
        if (!any && strcmp(axis->name, "tp") == 0)
            any = offer_sizes(&t, "tp", &t.spec.parallel.tp, axis->size,
                              ranks_for(plan, s->parallel.cp, s->parallel.pp), 1);
        else if (!any && strcmp(axis->name, "ep") == 0)
            any = offer_ep(&t, s, plan, cut, 2) || (cut > 1 && offer_etp(&t, s, plan, cut)) ||
                  offer_ep(&t, s, plan, cut, 1);
        else if (!any)
            any = offer_etp(&t, s, plan, cut);
        if (!any)
            offer_domain(&t, s, axis);
        pgr_trial_end(&t, found);
    }
    example_of(axis, boundary, &near, &far);
    pgr_diagnose(found, "PG051", paths, t.help,
                 "%s groups of %" PRId64 " ranks, %" PRId64
                 " apart, cross the boundaries of %s = %" PRId64 ", as between ranks %" PRId64
                 " and %" PRId64,
                 axis->name, axis->size, axis->stride, name, domain, near + plan->rank_offset,
                 far + plan->rank_offset);
}

void pgr_check_crossings(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    const char *name;
    (void)near_gpus(s, &name);
    const char *offset = s->parallel.rank_offset > 0 ? " parallel.rank_offset" : "";
    const char *cut = given(s->parallel.etp) ? "parallel.etp" : "parallel.tp";
    const pgr_axis *tp = axis_of(plan, "tp");
    const pgr_axis *etp = axis_of(plan, "etp");
    char paths[200];
    snprintf(paths, sizeof paths, "parallel.tp cluster.%s parallel.order%s", name, offset);
    crossing(s, plan, tp, paths, found);
    if (etp == NULL || pgr_plan_axis_size(plan, "edp") == 0)
        return; /* expert groups that fit no world are no groups */
    if (s->parallel.ep > 1) {
        snprintf(paths, sizeof paths, "parallel.ep %s%scluster.%s parallel.order%s",
                 etp->size > 1 ? cut : "", etp->size > 1 ? " " : "", name, offset);
        crossing(s, plan, axis_of(plan, "ep"), paths, found);
    }
    bool same = tp != NULL && etp->size == tp->size && etp->stride == tp->stride;
    if (!same) {
        snprintf(paths, sizeof paths, "%s cluster.%s parallel.order parallel.ep%s", cut, name,
                 offset);
        crossing(s, plan, etp, paths, found);
    }
}
