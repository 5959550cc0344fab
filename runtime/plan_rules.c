/* plan_rules.c - from sizes and an order to a plan, or to every reason why there is none: what is
 * told of the rules that plan_layout.c finds broken. */
#include "plan_layout.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The refusals so far. */
typedef struct problems {
    pgr_status status; /* of the first one; PGR_OK while there are none */
    pgr_diagnostics *list;
} problems;

/* The keys that make a product, and with it the sizes that are derived from it. */
#define DENSE_KEYS "parallel.tp parallel.cp parallel.pp"

/* Notes a refusal. */
static void problem(problems *found, pgr_status status, const char *code, const char *paths,
                    const char *help, const char *format, ...) PGR_PRINTF(6, 7);

static void problem(problems *found, pgr_status status, const char *code, const char *paths,
                    const char *help, const char *format, ...) {
    char text[sizeof(((pgr_diagnostic *)NULL)->message)];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (found->status == PGR_OK)
        found->status = status;
    pgr_diagnose(found->list, code, paths, help, "%s", text);
}

/* The key that gives etp: its own, or tp where it is left out. */
static const char *etp_key(const pgr_spec *spec) {
    return spec->parallel.etp == PGR_NIL ? "parallel.tp" : "parallel.etp";
}

/* The keys that make the expert product, behind those in `first`. */
static const char *expert_keys(const pgr_spec *spec, const char *first, char *out, size_t bytes) {
    snprintf(out, bytes, "%s%s%s parallel.ep parallel.pp", first, *first ? " " : "", etp_key(spec));
    return out;
}

/* The keys that both views' sizes come from, told at order. */
static const char *layout_keys(const pgr_spec *spec) {
    return spec->parallel.etp == PGR_NIL
               ? "parallel.order parallel.pp parallel.tp parallel.cp parallel.ep"
               : "parallel.order parallel.pp parallel.tp parallel.cp parallel.etp parallel.ep";
}

/* ---- PG019 ---- */

static void tell_size(const char *key, int64_t value, problems *found) {
    char path[32];
    if (value >= 1)
        return;
    snprintf(path, sizeof path, "parallel.%s", key);
    problem(found, PGR_INVALID, "PG019", path, "", "%s = %" PRId64 " must be at least 1", key,
            value);
}

/* Sizes below one, or products that do not fit; false where one is. */
static bool tell_sizes(const pgr_layout *l, problems *found) {
    const pgr_spec *s = l->spec;
    tell_size("tp", s->parallel.tp, found);
    tell_size("cp", s->parallel.cp, found);
    tell_size("pp", s->parallel.pp, found);
    if (s->parallel.expert_view) {
        tell_size("ep", s->parallel.ep, found);
        if (s->parallel.etp != PGR_NIL)
            tell_size("etp", s->parallel.etp, found);
    }
    if (s->parallel.dp != PGR_NIL)
        tell_size("dp", s->parallel.dp, found);
    if (found->status != PGR_OK)
        return false;
    if (l->dense_product == 0)
        problem(found, PGR_LIMIT, "PG019", DENSE_KEYS, "take smaller sizes",
                "tp * cp * pp = %" PRId64 " * %" PRId64 " * %" PRId64 " does not fit in 63 bits",
                l->dense[PGR_TP], l->dense[PGR_CP], l->dense[PGR_PP]);
    if (l->expert_product == 0) {
        char keys[96];
        problem(found, PGR_LIMIT, "PG019", expert_keys(s, "", keys, sizeof keys),
                "take smaller sizes",
                "etp * ep * pp = %" PRId64 " * %" PRId64 " * %" PRId64 " does not fit in 63 bits",
                l->expert[PGR_TP], l->expert[PGR_EP], l->expert[PGR_PP]);
    }
    return found->status == PGR_OK;
}

/* A smallest world that does not fit. */
static void tell_smallest(const pgr_layout *l, problems *found) {
    const pgr_spec *s = l->spec;
    if (s->parallel.dp != PGR_NIL) {
        problem(found, PGR_LIMIT, "PG019", "parallel.dp " DENSE_KEYS, "take smaller sizes",
                "dp * tp * cp * pp = %" PRId64 " * %" PRId64 " does not fit in 63 bits",
                s->parallel.dp, l->dense_product);
    } else {
        problem(found, PGR_LIMIT, "PG019",
                s->parallel.etp == PGR_NIL ? DENSE_KEYS " parallel.ep"
                                           : DENSE_KEYS " parallel.etp parallel.ep",
                "take smaller sizes",
                "the smallest world, the least common multiple of tp * cp * pp = %" PRId64
                " and etp * ep * pp = %" PRId64 ", does not fit in 63 bits",
                l->dense_product, l->expert_product);
    }
}

static void tell_ranks(const pgr_layout *l, problems *found) {
    const pgr_spec *s = l->spec;
    char help[64];
    int64_t last, offset = s->parallel.rank_offset;
    if (l->world < 1 && !l->world_assumed)
        problem(found, PGR_INVALID, "PG019", "world_size", "",
                "world_size = %" PRId64 " must be at least 1", l->world);
    if (offset < 0) {
        problem(found, PGR_INVALID, "PG019", "parallel.rank_offset", "leave rank_offset out",
                "rank_offset = %" PRId64 " must be at least 0", offset);
    } else if (l->world > 0 && __builtin_add_overflow(l->world, offset, &last)) {
        snprintf(help, sizeof help, "rank_offset can be at most %" PRId64, INT64_MAX - l->world);
        problem(found, PGR_LIMIT, "PG019", "parallel.rank_offset world_size", help,
                "rank_offset = %" PRId64 " and world_size = %" PRId64
                " give ranks that do not fit in 63 bits",
                offset, l->world);
    }
}

/* ---- PG013 and PG014: the order ---- */

static void tell_token(const pgr_layout *l, const char *token, size_t length,
                       bool named[PGR_ORDER_AXES], problems *found) {
    int axis = pgr_layout_axis(token, length);
    char hint[96] = "its axes are tp, cp, ep, dp and pp", help[PGR_MEND_MAX];
    if (axis >= 0 && !named[axis]) {
        named[axis] = true;
        return;
    }
    if (axis >= 0) {
        pgr_mend_order(l, "name each axis once", help);
        problem(found, PGR_INVALID, "PG013", "parallel.order", help,
                "order = \"%s\" names \"%s\" twice", l->order, pgr_order_names[axis]);
        return;
    }
    if (length == 3 && token[0] == 'e' && pgr_layout_axis(token + 1, 2) >= 0)
        snprintf(hint, sizeof hint, "name it \"%.2s\", which the expert view reads so", token + 1);
    pgr_mend_order(l, hint, help);
    problem(found, PGR_INVALID, "PG013", "parallel.order", help,
            "order = \"%s\" has the unknown axis \"%.*s\"", l->order, (int)length, token);
}

static void tell_order(const pgr_layout *l, problems *found) {
    bool named[PGR_ORDER_AXES] = {false};
    char help[PGR_MEND_MAX];
    if (l->order[0] == '\0') {
        pgr_mend_order(l, "give the axes from the fastest to the slowest", help);
        problem(found, PGR_INVALID, "PG013", "parallel.order", help, "order is empty");
        return;
    }
    for (const char *token = l->order;; token++) {
        size_t length = strcspn(token, "-");
        tell_token(l, token, length, named, found);
        token += length;
        if (*token == '\0')
            return;
    }
}

/* An axis larger than 1 that order does not name; `keys` are those that its size comes from. */
static void tell_missing(const pgr_layout *l, const char *name, int axis, int64_t size,
                         const char *keys, problems *found) {
    char paths[160], hint[96], help[PGR_MEND_MAX], sized[64];
    const char *named = pgr_order_names[axis];
    snprintf(paths, sizeof paths, "parallel.order %s", keys);
    snprintf(hint, sizeof hint, "add \"%s\"%s", named,
             strcmp(name, named) == 0 ? "" : ", which the expert view reads so");
    pgr_mend_order(l, hint, help);
    snprintf(sized, sizeof sized, "%s", name);
    if (size > 0)
        snprintf(sized, sizeof sized, "%s = %" PRId64, name, size);
    problem(found, PGR_INVALID, "PG014", paths, help, "%s is missing from order = \"%s\"", sized,
            l->order);
}

static void tell_all_missing(const pgr_layout *l, problems *found) {
    static const char *const dense_keys[PGR_ORDER_AXES] = {
        "parallel.tp", "parallel.cp", NULL, "parallel.dp world_size " DENSE_KEYS, "parallel.pp"};
    const pgr_spec *s = l->spec;
    char edp_keys[128];
    const char *const keys[PGR_ORDER_AXES] = {
        etp_key(s), NULL, "parallel.ep", expert_keys(s, "world_size", edp_keys, sizeof edp_keys),
        NULL};
    for (int axis = 0; axis < PGR_ORDER_AXES; axis++) {
        if (l->named[axis])
            continue;
        bool derived = axis == PGR_DP && s->parallel.dp == PGR_NIL;
        if (l->dense[axis] > 1)
            tell_missing(l, pgr_dense_names[axis], axis, l->dense[axis],
                         derived ? "world_size " DENSE_KEYS : dense_keys[axis], found);
        if (l->expert[axis] > 1 && s->parallel.expert_view && axis != PGR_PP)
            tell_missing(l, pgr_expert_names[axis], axis, l->expert[axis], keys[axis], found);
    }
    if (pgr_layout_needs_dp(l))
        tell_missing(l, "dp", PGR_DP, 0, "world_size " DENSE_KEYS, found);
}

/* ---- PG010, PG011 and PG018: the world ---- */

static void tell_world(const pgr_layout *l, problems *found) {
    char keys[128], help[PGR_MEND_MAX];
    if (l->broken & PGR_PG010) {
        pgr_mend_world(l, PGR_PG010, help);
        problem(found, PGR_INVALID, "PG010", "world_size " DENSE_KEYS, help,
                "world_size = %" PRId64 " is not divisible by tp * cp * pp = %" PRId64 " * %" PRId64
                " * %" PRId64 " = %" PRId64,
                l->world, l->dense[PGR_TP], l->dense[PGR_CP], l->dense[PGR_PP], l->dense_product);
    }
    if (l->broken & PGR_PG011) {
        pgr_mend_world(l, PGR_PG011, help);
        problem(found, PGR_INVALID, "PG011", expert_keys(l->spec, "world_size", keys, sizeof keys),
                help,
                "world_size = %" PRId64 " is not divisible by etp * ep * pp = %" PRId64
                " * %" PRId64 " * %" PRId64 " = %" PRId64,
                l->world, l->expert[PGR_TP], l->expert[PGR_EP], l->expert[PGR_PP],
                l->expert_product);
    }
    if (l->broken & PGR_PG018) {
        pgr_mend_dp(l, help);
        problem(found, PGR_INVALID, "PG018", "parallel.dp world_size " DENSE_KEYS, help,
                "dp = %" PRId64 " was given, but world_size = %" PRId64
                " over tp * cp * pp = %" PRId64 " makes dp = %" PRId64,
                l->spec->parallel.dp, l->world, l->dense_product, l->dense[PGR_DP]);
    }
}

/* ---- PG015 to PG017: the pipeline ---- */

/* dp and edp, or where they are not known, the products that make them differ. */
static void tell_unequal(const pgr_layout *l, problems *found) {
    char help[PGR_MEND_MAX], sizes[160];
    int64_t dp = l->dense[PGR_DP], edp = l->expert[PGR_DP];
    if (dp > 0 && edp > 0)
        snprintf(sizes, sizeof sizes, "dp = %" PRId64 " and edp = %" PRId64 " differ", dp, edp);
    else
        snprintf(sizes, sizeof sizes,
                 "dp and edp differ, as tp * cp = %" PRId64 " and etp * ep = %" PRId64 " do,",
                 l->dense[PGR_TP] * l->dense[PGR_CP], l->expert[PGR_TP] * l->expert[PGR_EP]);
    pgr_mend_pipeline(l, help);
    problem(found, PGR_INVALID, "PG016", layout_keys(l->spec), help,
            "%s while pp = %" PRId64 " is not last in order = \"%s\"", sizes, l->dense[PGR_PP],
            l->order);
}

static const pgr_axis *pp_axis(const pgr_view *view) {
    for (int32_t i = 0; i < view->axis_count; i++)
        if (strcmp(view->axes[i].name, "pp") == 0)
            return &view->axes[i];
    return NULL;
}

/* Both views must cut the same pipelines. */
static void tell_views(const pgr_layout *l, const pgr_plan *plan, problems *found) {
    char help[PGR_MEND_MAX];
    int64_t dense = pp_axis(&plan->views[PGR_VIEW_DENSE])->stride;
    int64_t expert = pp_axis(&plan->views[PGR_VIEW_EXPERT])->stride;
    pgr_mend_pipeline(l, help);
    if (dense > 0 && expert > 0)
        problem(found, PGR_INVALID, "PG015", layout_keys(l->spec), help,
                "the pp groups of the dense and the expert view differ: with order = \"%s\" and "
                "pp = %" PRId64 " the first ones begin 0, %" PRId64 " and 0, %" PRId64,
                l->order, l->dense[PGR_PP], dense, expert);
    else
        problem(found, PGR_INVALID, "PG015", layout_keys(l->spec), help,
                "the pp groups of the dense and the expert view differ: with order = \"%s\" and "
                "pp = %" PRId64 " the axes behind pp hold %" PRId64 " and %" PRId64 " ranks",
                l->order, l->dense[PGR_PP], pgr_layout_beside_pp(l, l->dense),
                pgr_layout_beside_pp(l, l->expert));
}

static void tell_pipeline(const pgr_layout *l, const pgr_plan *plan, problems *found) {
    char help[PGR_MEND_MAX];
    if (l->broken & PGR_PG017) {
        pgr_mend_vpp(l, help);
        problem(found, PGR_INVALID, "PG017", "parallel.vpp parallel.pp", help,
                "vpp = %" PRId64 " needs pp greater than 1, and pp = 1", l->spec->parallel.vpp);
    }
    if (l->broken & PGR_PG016)
        tell_unequal(l, found);
    if (l->broken & PGR_PG015)
        tell_views(l, plan, found);
}

/* ---- the plan ---- */

/* Lays the axes of a view out: those that order names, then the rest, all of size 1. What lies
 * behind an axis of unknown size has no stride. */
static void build_view(const pgr_layout *l, const char *const names[PGR_ORDER_AXES],
                       const int64_t sizes[PGR_ORDER_AXES], const char *name, bool laid_out,
                       pgr_view *view) {
    int64_t stride = laid_out ? 1 : 0;
    snprintf(view->name, sizeof view->name, "%s", name);
    for (int i = 0; i < l->axis_count + PGR_ORDER_AXES; i++) {
        int axis = i < l->axis_count ? l->axes[i] : i - l->axis_count;
        if (names[axis] == NULL || (i >= l->axis_count && l->named[axis]))
            continue;
        pgr_axis *a = &view->axes[view->axis_count++];
        snprintf(a->name, sizeof a->name, "%s", names[axis]);
        a->size = sizes[axis];
        a->stride = stride;
        stride = pgr_layout_product(stride, a->size, 1);
    }
}

static pgr_plan build(const pgr_layout *l) {
    bool dense_out = l->order_ok && !l->dense_missing && l->dense_product > 0;
    bool expert_out = l->order_ok && !l->expert_missing && l->expert_product > 0;
    pgr_plan plan = {.world_size = l->world > 0 ? l->world : 0,
                     .rank_offset = l->spec->parallel.rank_offset,
                     .view_count = l->spec->parallel.expert_view ? 2 : 1,
                     .world_size_assumed = l->world_assumed};
    memcpy(plan.order, l->order, sizeof plan.order);
    build_view(l, pgr_dense_names, l->dense, "dense", dense_out, &plan.views[PGR_VIEW_DENSE]);
    if (plan.view_count == 2)
        build_view(l, pgr_expert_names, l->expert, "expert", expert_out,
                   &plan.views[PGR_VIEW_EXPERT]);
    return plan;
}

/* Writes the refusals into an error, a line each with its way out, and frees them. */
static pgr_status refuse(pgr_status status, pgr_diagnostics *list, pgr_error *error) {
    char text[sizeof error->message] = "";
    size_t used = 0;
    for (int64_t i = 0; i < list->count && used < sizeof text; i++) {
        const pgr_diagnostic *at = &list->items[i];
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s%s%s", i ? "\n" : "",
                                 at->message, at->help[0] ? "; " : "", at->help);
    }
    bool short_of_memory = list->out_of_memory;
    pgr_diagnostics_free(list);
    if (short_of_memory)
        return pgr_error_set(error, PGR_LIMIT, "out of memory");
    return pgr_error_set(error, status, "%s", text);
}

pgr_status pgr_plan_smallest_world(const pgr_spec *spec, int64_t *world_size, pgr_error *error) {
    pgr_spec open = *spec; /* nothing in it is freed */
    pgr_diagnostics list = {0};
    problems found = {.status = PGR_OK, .list = &list};
    open.world_size = PGR_NIL;
    pgr_layout l = pgr_layout_of(&open, PGR_NIL);
    if (tell_sizes(&l, &found) && l.world == 0)
        tell_smallest(&l, &found);
    if (found.status != PGR_OK)
        return refuse(found.status, &list, error);
    *world_size = l.world;
    return PGR_OK;
}

pgr_status pgr_plan_check(const pgr_spec *spec, int64_t world_size, pgr_plan *plan,
                          pgr_diagnostics *list) {
    pgr_layout l = pgr_layout_of(spec, world_size);
    problems found = {.status = PGR_OK, .list = list};
    l.bare = list->bare;
    *plan = build(&l);
    if (l.broken & PGR_PG019) {
        if (tell_sizes(&l, &found) && l.world_assumed && l.world == 0)
            tell_smallest(&l, &found);
        tell_ranks(&l, &found);
    }
    if (l.broken & PGR_PG013)
        tell_order(&l, &found);
    tell_world(&l, &found);
    if (l.broken & PGR_PG014)
        tell_all_missing(&l, &found);
    tell_pipeline(&l, plan, &found);
    return list->out_of_memory && found.status != PGR_OK ? PGR_LIMIT : found.status;
}

pgr_status pgr_plan_create(const pgr_spec *spec, int64_t world_size, pgr_plan *plan,
                           pgr_error *error) {
    pgr_diagnostics list = {.bare = error == NULL};
    pgr_plan made;
    pgr_status status = pgr_plan_check(spec, world_size, &made, &list);
    if (status != PGR_OK)
        return refuse(status, &list, error);
    *plan = made;
    return PGR_OK;
}
