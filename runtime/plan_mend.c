/* plan_mend.c - ways out of a layout that breaks a rule of planning: the nearest worlds, sizes and
 * orders. Nothing is proposed that has not been tried on a copy of the spec. */
#include "plan_layout.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum {
    MOST_STEPS = 256,  /* worlds that are tried on either side */
    MOST_SIZES = 4096, /* sizes, most of which a division rules out */
    MOST_STAGES = 256, /* of a pipeline */
    FEW_SIZES = 64     /* sizes, where no world is given, and each is tried in several */
};

static const char ep_is_no_factor[] =
    " (ep divides the data-parallel ranks and is no factor of the world)";

static bool given(int64_t value) {
    return value != PGR_NIL;
}

static void add(char help[PGR_MEND_MAX], const char *format, ...) PGR_PRINTF(2, 3);

static void add(char help[PGR_MEND_MAX], const char *format, ...) {
    size_t used = strlen(help);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(help + used, PGR_MEND_MAX - used, format, arguments);
    va_end(arguments);
}

/* ---- trying ---- */

static bool splits(int64_t value, int64_t ranks) {
    return !given(value) || (ranks > 0 && value % ranks == 0);
}

/* Whether the layers have their places: the rules of PG020, PG025 and PG029. */
static bool layers_fit(const pgr_spec *s) {
    int64_t pp = s->parallel.pp, vpp = given(s->parallel.vpp) ? s->parallel.vpp : 1;
    int64_t first = s->parallel.first_stage_layers, last = s->parallel.last_stage_layers;
    int64_t count = s->parallel.stage_layers.count, layers = s->model.layers;
    if (pp < 1 || (given(s->parallel.pp_split) && s->parallel.pp_split >= pp))
        return false;
    if (count > 0)
        return count == pp || pgr_layout_product(pp, vpp, 1) == count;
    if (!given(layers))
        return true;
    int64_t stages = pp - given(first) - given(last);
    int64_t rest = layers;
    if ((given(first) && __builtin_sub_overflow(rest, first, &rest)) ||
        (given(last) && __builtin_sub_overflow(rest, last, &rest)))
        return false;
    if (stages <= 0)
        return stages == 0 && rest == 0;
    return rest > 0 && splits(rest, pgr_layout_product(stages, vpp, 1));
}

static bool levels_fit(const pgr_spec *s) {
    const pgr_list *levels = &s->parallel.hierarchical_cp;
    int64_t product = 1;
    for (int64_t i = 0; i < levels->count; i++)
        product = pgr_layout_product(product, levels->items[i], 1);
    return levels->count == 0 || product == s->parallel.cp;
}

/* What of the model's shapes does not divide over the sizes, a bit for each. */
static uint32_t misfits(const pgr_spec *s) {
    int64_t tp = s->parallel.tp, kv = s->model.kv_heads;
    int64_t etp = given(s->parallel.etp) ? s->parallel.etp : tp;
    bool experts = s->has_moe && given(s->moe.experts) && s->parallel.expert_view;
    const bool fit[] = {splits(s->model.heads, tp),
                        splits(kv, tp) || (kv > 0 && tp % kv == 0),
                        splits(s->model.ffn, tp),
                        layers_fit(s),
                        levels_fit(s),
                        !experts || splits(s->moe.experts, s->parallel.ep),
                        !experts || splits(given(s->moe.ffn) ? s->moe.ffn : s->model.ffn, etp)};
    uint32_t bits = 0;
    for (size_t i = 0; i < sizeof fit / sizeof fit[0]; i++)
        bits |= (uint32_t)!fit[i] << i;
    return bits;
}

/* Whether the changed spec in this world keeps `rules`, and breaks nothing that was not broken. */
static bool mends(const pgr_layout *l, const pgr_spec *changed, int64_t world, uint32_t rules) {
    pgr_layout after = pgr_layout_of(changed, world);
    return (after.broken & rules) == 0 && (after.broken & ~l->broken) == 0 &&
           (misfits(changed) & ~misfits(l->spec)) == 0;
}

/* ---- worlds ---- */

/* Whether the data-parallel ranks of this world share the batch, the optimizer's instances and the
 * hybrid groups out: PG026, PG028 and PG048. */
static bool shares_fit(const pgr_spec *s, int64_t world) {
    pgr_layout l = pgr_layout_of(s, world);
    int64_t dp = l.dense[PGR_DP], ranks = dp * l.dense[PGR_CP];
    int64_t edp = s->parallel.expert_view ? l.expert[PGR_DP] : ranks;
    if (dp == 0 || edp == 0)
        return false;
    int64_t step = pgr_layout_product(s->model.micro_batch, dp, 1);
    return splits(s->model.global_batch, step) && pgr_shares_fit(s, ranks, edp);
}

/* Whether one size, which is `field` of the spec, mends, with ranks that share out everything. */
static bool size_mends(const pgr_layout *l, size_t field, int64_t value, uint32_t rules) {
    pgr_spec changed = *l->spec;
    *(int64_t *)(void *)((char *)&changed + field) = value;
    if (!mends(l, &changed, l->asked, rules))
        return false;
    pgr_layout after = pgr_layout_of(&changed, l->asked);
    bool known = after.dense[PGR_DP] > 0 && after.expert[PGR_DP] > 0;
    return !known || shares_fit(&changed, after.world);
}

/* The first world from `start` on that mends; with `whole` only those within a factor of two, and
 * whose ranks share out everything. 0 where there is none. */
static int64_t next_world(const pgr_layout *l, const pgr_spec *spec, uint32_t rules, int64_t start,
                          int64_t step, bool whole) {
    int64_t world = start;
    for (int i = 0; i < MOST_STEPS && world > 0; i++) {
        if (whole && (world < l->world / 2 || world / 2 > l->world))
            return 0;
        if (mends(l, spec, world, rules) && (!whole || shares_fit(spec, world)))
            return world;
        if (__builtin_add_overflow(world, step, &world))
            return 0;
    }
    return 0;
}

static void nearest_worlds(const pgr_layout *l, const pgr_spec *spec, uint32_t rules,
                           char help[PGR_MEND_MAX]) {
    if (l->unit == 0)
        return;
    int64_t under = l->world / l->unit * l->unit, over, below = 0, above = 0;
    if (under == l->world)
        under -= l->unit;
    if (__builtin_add_overflow(under, l->unit, &over) ||
        (over == l->world && __builtin_add_overflow(over, l->unit, &over)))
        over = 0;
    for (int whole = 1; whole >= 0 && below == 0 && above == 0; whole--) {
        below = next_world(l, spec, rules, under, -l->unit, whole);
        above = next_world(l, spec, rules, over, l->unit, whole);
    }
    if (below == 0 && above == 0 && mends(l, spec, l->unit, rules))
        below = l->unit;
    if (below > 0 && above > 0)
        add(help, "the nearest sizes that fit are %" PRId64 " and %" PRId64, below, above);
    else if (below + above > 0)
        add(help, "the nearest size that fits is %" PRId64, below + above);
}

/* With a given dp there is but one world; without it there are the multiples. */
static void worlds_of_rule(const pgr_layout *l, uint32_t rule, char help[PGR_MEND_MAX]) {
    pgr_spec open = *l->spec;
    int64_t dp = open.parallel.dp;
    if (!given(dp)) {
        nearest_worlds(l, &open, rule, help);
        return;
    }
    int64_t world = pgr_layout_product(l->dense_product, dp, 1);
    if (world > 0 && mends(l, &open, world, rule)) {
        add(help, "the size that fits dp = %" PRId64 " is %" PRId64, dp, world);
        return;
    }
    char without[PGR_MEND_MAX] = "";
    open.parallel.dp = PGR_NIL;
    nearest_worlds(l, &open, rule, without);
    if (without[0] != '\0')
        add(help, "without dp, %s", without);
}

/* ---- sizes ---- */

/* The nearest value of a size, from `start` on, that mends; 0 where there is none near. */
static int64_t next_size(const pgr_layout *l, size_t field, int64_t start, int64_t step,
                         uint32_t rules) {
    const int most = l->world_assumed ? FEW_SIZES : MOST_SIZES;
    int64_t size = start;
    for (int i = 0; i < most && size > 0 && size <= l->world; i++) {
        if ((l->world_assumed || l->world % size == 0) && size_mends(l, field, size, rules))
            return size;
        if (__builtin_add_overflow(size, step, &size))
            break;
    }
    return 0;
}

typedef struct axis_key {
    const char *name;
    size_t field;
} axis_key;

static const axis_key dense_axes[] = {{"tp", offsetof(pgr_spec, parallel.tp)},
                                      {"cp", offsetof(pgr_spec, parallel.cp)},
                                      {"pp", offsetof(pgr_spec, parallel.pp)},
                                      {NULL, 0}};
static const axis_key expert_axes[] = {{"etp", offsetof(pgr_spec, parallel.etp)},
                                       {"ep", offsetof(pgr_spec, parallel.ep)},
                                       {"pp", offsetof(pgr_spec, parallel.pp)},
                                       {NULL, 0}};
static const axis_key expert_axes_of_tp[] = {{"tp", offsetof(pgr_spec, parallel.tp)},
                                             {"ep", offsetof(pgr_spec, parallel.ep)},
                                             {"pp", offsetof(pgr_spec, parallel.pp)},
                                             {NULL, 0}};

/* "or, in a world of 100, tp can be 5 or 10, or pp can be 1": of each axis that is cut, the nearest
 * size on either side. */
static void nearest_sizes(const pgr_layout *l, const axis_key *axes, uint32_t rules,
                          char help[PGR_MEND_MAX]) {
    char first[64] = "", world[40];
    snprintf(world, sizeof world, "in a world of %" PRId64 ", ", l->world);
    if (help[0] != '\0')
        snprintf(first, sizeof first, "; or, %s", world);
    else
        snprintf(first, sizeof first, "%s", world);
    const char *before = l->world_assumed ? help[0] != '\0' ? "; or, " : "" : first;
    for (; axes->name != NULL; axes++) {
        int64_t size = *(const int64_t *)(const void *)((const char *)l->spec + axes->field);
        if (size <= 1)
            continue;
        int64_t under = size - 1 < l->world ? size - 1 : l->world;
        int64_t below = next_size(l, axes->field, under, -1, rules);
        int64_t above = size < l->world ? next_size(l, axes->field, size + 1, 1, rules) : 0;
        if (below == 0 && above == 0)
            continue;
        add(help, "%s%s can be %" PRId64, before, axes->name, below > 0 ? below : above);
        if (below > 0 && above > 0)
            add(help, " or %" PRId64, above);
        before = ", or ";
    }
}

void pgr_mend_world(const pgr_layout *l, uint32_t rule, char help[PGR_MEND_MAX]) {
    const axis_key *axes = rule == PGR_PG010              ? dense_axes
                           : given(l->spec->parallel.etp) ? expert_axes
                                                          : expert_axes_of_tp;
    help[0] = '\0';
    if (l->bare)
        return;
    if (rule == PGR_PG011 && !given(l->spec->parallel.etp) && l->expert[PGR_TP] > 1 &&
        size_mends(l, offsetof(pgr_spec, parallel.etp), 1, rule))
        add(help, "take etp = 1; or, ");
    worlds_of_rule(l, rule, help);
    nearest_sizes(l, axes, rule, help);
    if (help[0] == '\0')
        add(help, "take smaller sizes");
    if (l->expert[PGR_EP] > 1)
        add(help, "%s", ep_is_no_factor);
}

void pgr_mend_dp(const pgr_layout *l, char help[PGR_MEND_MAX]) {
    int64_t dp = l->spec->parallel.dp, world = pgr_layout_product(l->dense_product, dp, 1);
    help[0] = '\0';
    if (l->bare)
        return;
    add(help, "take dp = %" PRId64 ", or leave dp out", l->dense[PGR_DP]);
    if (world > 0 && mends(l, l->spec, world, PGR_PG018) && shares_fit(l->spec, world))
        add(help, ", or take world_size = %" PRId64, world);
    nearest_sizes(l, dense_axes, PGR_PG018, help);
    if (l->expert[PGR_EP] > 1 &&
        pgr_layout_product(l->dense_product, l->expert[PGR_EP], dp) == l->world)
        add(help, "%s", ep_is_no_factor);
}

/* ---- orders ---- */

typedef struct axis_list {
    int axes[PGR_ORDER_AXES];
    int count;
} axis_list;

static int place_of(const axis_list *list, int axis) {
    for (int i = 0; i < list->count; i++)
        if (list->axes[i] == axis)
            return i;
    return -1;
}

static void insert(axis_list *list, int at, int axis) {
    for (int i = list->count++; i > at; i--)
        list->axes[i] = list->axes[i - 1];
    list->axes[at] = axis;
}

static axis_list with_pp_last(const axis_list *list) {
    axis_list last = {.count = 0};
    for (int i = 0; i < list->count; i++)
        if (list->axes[i] != PGR_PP)
            insert(&last, last.count, list->axes[i]);
    insert(&last, last.count, PGR_PP);
    return last;
}

static void order_text(const axis_list *list, char out[PGR_NAME_MAX]) {
    out[0] = '\0';
    for (int i = 0; i < list->count; i++) {
        strcat(out, i == 0 ? "" : "-");
        strcat(out, pgr_order_names[list->axes[i]]);
    }
}

/* The axes that order means, each once; the expert view's names are taken for the axes. */
static axis_list axes_meant(const pgr_layout *l) {
    axis_list list = {.count = 0};
    for (const char *token = l->order; *token != '\0'; token += *token == '-') {
        size_t length = strcspn(token, "-");
        int axis = pgr_layout_axis(token, length);
        if (axis < 0 && length == 3 && token[0] == 'e')
            axis = pgr_layout_axis(token + 1, length - 1);
        if (axis >= 0 && place_of(&list, axis) < 0)
            insert(&list, list.count, axis);
        token += length;
    }
    return list;
}

/* Adds the axes that must be named, each before those that follow it in the default order, or at
 * the end. */
static axis_list with_all_axes(const pgr_layout *l, axis_list list, bool at_end) {
    for (int axis = 0; axis < PGR_ORDER_AXES; axis++) {
        bool needed = l->dense[axis] > 1 || l->expert[axis] > 1 || axis == PGR_DP;
        if (!needed || place_of(&list, axis) >= 0)
            continue;
        int at = 0;
        while (at < list.count && (at_end || list.axes[at] < axis))
            at++;
        insert(&list, at, axis);
    }
    return list;
}

static bool order_mends(const pgr_layout *l, const axis_list *list, uint32_t rules,
                        char out[PGR_NAME_MAX]) {
    pgr_spec changed = *l->spec;
    order_text(list, changed.parallel.order);
    memcpy(out, changed.parallel.order, PGR_NAME_MAX);
    return mends(l, &changed, l->asked, rules);
}

void pgr_mend_order(const pgr_layout *l, const char *hint, char help[PGR_MEND_MAX]) {
    static const axis_list usual = {{PGR_TP, PGR_CP, PGR_EP, PGR_DP, PGR_PP}, PGR_ORDER_AXES};
    const uint32_t rules = PGR_PG013 | PGR_PG014;
    axis_list meant = axes_meant(l);
    axis_list between = with_all_axes(l, meant, false), behind = with_all_axes(l, meant, true);
    axis_list last = with_pp_last(&between);
    char order[PGR_NAME_MAX];
    help[0] = '\0';
    if (l->bare)
        return;
    snprintf(help, PGR_MEND_MAX, "%s", hint);
    if (order_mends(l, &between, rules, order) || order_mends(l, &behind, rules, order) ||
        order_mends(l, &last, rules, order) || order_mends(l, &usual, rules, order))
        add(help, ", as in order = \"%s\"", order);
}

/* ---- pipelines ---- */

static bool experts_mend(const pgr_layout *l, int64_t etp, int64_t ep, uint32_t rules) {
    pgr_spec changed = *l->spec;
    changed.parallel.etp = etp;
    changed.parallel.ep = ep;
    return mends(l, &changed, l->asked, rules);
}

/* Sizes of the expert view that make it cut the same pipelines. */
static void alike_experts(const pgr_layout *l, uint32_t rules, char help[PGR_MEND_MAX]) {
    int64_t tp = l->dense[PGR_TP], cp = l->dense[PGR_CP], replica = tp * cp;
    int64_t etp = l->expert[PGR_TP], ep = l->expert[PGR_EP], written = l->spec->parallel.etp;
    if (replica % etp == 0 && experts_mend(l, written, replica / etp, rules))
        add(help, ", or take ep = %" PRId64, replica / etp);
    else if (replica % ep == 0 && experts_mend(l, replica / ep, ep, rules))
        add(help, ", or take etp = %" PRId64, replica / ep);
    else if (experts_mend(l, tp, cp, rules))
        add(help, ", or take etp = %" PRId64 " and ep = %" PRId64, tp, cp);
}

void pgr_mend_pipeline(const pgr_layout *l, char help[PGR_MEND_MAX]) {
    const uint32_t rules = PGR_PG015 | PGR_PG016;
    axis_list named = {.count = l->axis_count};
    memcpy(named.axes, l->axes, sizeof named.axes);
    axis_list last = with_pp_last(&named);
    pgr_spec dense = *l->spec;
    char order[PGR_NAME_MAX];
    help[0] = '\0';
    if (l->bare)
        return;
    order_text(&last, order);
    add(help, "put pp last (\"%s\")", order);
    alike_experts(l, rules, help);
    dense.parallel.expert_view = false;
    bool experts = (l->spec->has_moe && given(l->spec->moe.experts)) || l->expert[PGR_EP] > 1 ||
                   given(l->spec->parallel.etp);
    if (!experts && mends(l, &dense, l->asked, rules))
        add(help, ", or, where the model is dense, expert_view = false");
}

/* The smallest pipeline with which every rule is kept, or else with which no other is broken. */
void pgr_mend_vpp(const pgr_layout *l, char help[PGR_MEND_MAX]) {
    const int64_t most = l->world_assumed ? FEW_SIZES : MOST_STAGES;
    help[0] = '\0';
    if (l->bare)
        return;
    snprintf(help, PGR_MEND_MAX, "leave vpp out");
    for (uint32_t rules = ~0u;; rules = PGR_PG017) {
        for (int64_t pp = 2; pp <= most; pp++) {
            if (!l->world_assumed && !(l->broken & PGR_PG010) && l->world % pp != 0)
                continue; /* it would break PG010 */
            if (size_mends(l, offsetof(pgr_spec, parallel.pp), pp, rules)) {
                add(help, ", or take pp = %" PRId64, pp);
                return;
            }
        }
        if (rules == PGR_PG017)
            return;
    }
}
