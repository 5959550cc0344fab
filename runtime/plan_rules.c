/* plan_rules.c - from sizes and an order to a plan, or to every reason why there is none: what is
 * told of the rules that plan_layout.c finds broken. */
#include "plan_layout.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The keys that make a product, and with it the sizes that are derived from it. */
#define DENSE_KEYS "parallel.tp parallel.cp parallel.pp"

void pgr_plan_problem(pgr_problems *found, pgr_status status, const char *code, const char *paths,
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

void pgr_tell_size(const char *key, int64_t value, pgr_problems *found) {
    char path[32];
    if (value >= 1)
        return;
    snprintf(path, sizeof path, "parallel.%s", key);
    pgr_plan_problem(found, PGR_INVALID, "PG019", path, "", "%s = %" PRId64 " must be at least 1",
                     key, value);
}

/* Sizes below one, or products that do not fit; false where one is. */
static bool tell_sizes(const pgr_layout *l, pgr_problems *found) {
    const pgr_spec *s = l->spec;
    pgr_tell_size("tp", s->parallel.tp, found);
    pgr_tell_size("cp", s->parallel.cp, found);
    pgr_tell_size("pp", s->parallel.pp, found);
    if (s->parallel.expert_view) {
        pgr_tell_size("ep", s->parallel.ep, found);
        if (s->parallel.etp != PGR_NIL)
            pgr_tell_size("etp", s->parallel.etp, found);
    }
    if (s->parallel.dp != PGR_NIL)
        pgr_tell_size("dp", s->parallel.dp, found);
    if (found->status != PGR_OK)
        return false;
    if (l->dense_product == 0)
        pgr_plan_problem(found, PGR_LIMIT, "PG019", DENSE_KEYS, "take smaller sizes",
                         "tp * cp * pp = %" PRId64 " * %" PRId64 " * %" PRId64
                         " does not fit in 63 bits",
                         l->dense[PGR_TP], l->dense[PGR_CP], l->dense[PGR_PP]);
    if (l->expert_product == 0) {
        char keys[96];
        pgr_plan_problem(
            found, PGR_LIMIT, "PG019", expert_keys(s, "", keys, sizeof keys), "take smaller sizes",
            "etp * ep * pp = %" PRId64 " * %" PRId64 " * %" PRId64 " does not fit in 63 bits",
            l->expert[PGR_TP], l->expert[PGR_EP], l->expert[PGR_PP]);
    }
    return found->status == PGR_OK;
}

/* A smallest world that does not fit. */
static void tell_smallest(const pgr_layout *l, pgr_problems *found) {
    const pgr_spec *s = l->spec;
    if (s->parallel.dp != PGR_NIL) {
        pgr_plan_problem(found, PGR_LIMIT, "PG019", "parallel.dp " DENSE_KEYS, "take smaller sizes",
                         "dp * tp * cp * pp = %" PRId64 " * %" PRId64 " does not fit in 63 bits",
                         s->parallel.dp, l->dense_product);
    } else {
        pgr_plan_problem(found, PGR_LIMIT, "PG019",
                         s->parallel.etp == PGR_NIL ? DENSE_KEYS " parallel.ep"
                                                    : DENSE_KEYS " parallel.etp parallel.ep",
                         "take smaller sizes",
                         "the smallest world, the least common multiple of tp * cp * pp = %" PRId64
                         " and etp * ep * pp = %" PRId64 ", does not fit in 63 bits",
                         l->dense_product, l->expert_product);
    }
}

void pgr_tell_ranks(const pgr_spec *s, int64_t world, bool assumed, pgr_problems *found) {
    char help[64];
    int64_t last, offset = s->parallel.rank_offset;
    if (world < 1 && !assumed)
        pgr_plan_problem(found, PGR_INVALID, "PG019", "world_size", "",
                         "world_size = %" PRId64 " must be at least 1", world);
    if (offset < 0) {
        pgr_plan_problem(found, PGR_INVALID, "PG019", "parallel.rank_offset",
                         "leave rank_offset out", "rank_offset = %" PRId64 " must be at least 0",
                         offset);
    } else if (world > 0 && __builtin_add_overflow(world, offset, &last)) {
        snprintf(help, sizeof help, "rank_offset can be at most %" PRId64, INT64_MAX - world);
        pgr_plan_problem(found, PGR_LIMIT, "PG019", "parallel.rank_offset world_size", help,
                         "rank_offset = %" PRId64 " and world_size = %" PRId64
                         " give ranks that do not fit in 63 bits",
                         offset, world);
    }
}

/* ---- PG013 and PG014: the order ---- */

static void tell_token(const pgr_layout *l, const char *token, size_t length,
                       bool named[PGR_ORDER_AXES], pgr_problems *found) {
    int axis = pgr_layout_axis(token, length);
    char hint[96] = "its axes are tp, cp, ep, dp and pp", help[PGR_MEND_MAX];
    if (axis >= 0 && !named[axis]) {
        named[axis] = true;
        return;
    }
    if (axis >= 0) {
        pgr_mend_order(l, "name each axis once", help);
        pgr_plan_problem(found, PGR_INVALID, "PG013", "parallel.order", help,
                         "order = \"%s\" names \"%s\" twice", l->order, pgr_order_names[axis]);
        return;
    }
    if (length == 3 && token[0] == 'e' && pgr_layout_axis(token + 1, 2) >= 0)
        snprintf(hint, sizeof hint, "name it \"%.2s\", which the expert view reads so", token + 1);
    pgr_mend_order(l, hint, help);
    pgr_plan_problem(found, PGR_INVALID, "PG013", "parallel.order", help,
                     "order = \"%s\" has the unknown axis \"%.*s\"", l->order, (int)length, token);
}

static void tell_order(const pgr_layout *l, pgr_problems *found) {
    bool named[PGR_ORDER_AXES] = {false};
    char help[PGR_MEND_MAX];
    if (l->order[0] == '\0') {
        pgr_mend_order(l, "give the axes from the fastest to the slowest", help);
        pgr_plan_problem(found, PGR_INVALID, "PG013", "parallel.order", help, "order is empty");
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
                         const char *keys, pgr_problems *found) {
    char paths[160], hint[96], help[PGR_MEND_MAX], sized[64];
    const char *named = pgr_order_names[axis];
    snprintf(paths, sizeof paths, "parallel.order %s", keys);
    snprintf(hint, sizeof hint, "add \"%s\"%s", named,
             strcmp(name, named) == 0 ? "" : ", which the expert view reads so");
    pgr_mend_order(l, hint, help);
    snprintf(sized, sizeof sized, "%s", name);
    if (size > 0)
        snprintf(sized, sizeof sized, "%s = %" PRId64, name, size);
    pgr_plan_problem(found, PGR_INVALID, "PG014", paths, help, "%s is missing from order = \"%s\"",
                     sized, l->order);
}

static void tell_all_missing(const pgr_layout *l, pgr_problems *found) {
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

static void tell_world(const pgr_layout *l, pgr_problems *found) {
    char keys[128], help[PGR_MEND_MAX];
    if (l->broken & PGR_PG010) {
        pgr_mend_world(l, PGR_PG010, help);
        pgr_plan_problem(found, PGR_INVALID, "PG010", "world_size " DENSE_KEYS, help,
                         "world_size = %" PRId64 " is not divisible by tp * cp * pp = %" PRId64
                         " * %" PRId64 " * %" PRId64 " = %" PRId64,
                         l->world, l->dense[PGR_TP], l->dense[PGR_CP], l->dense[PGR_PP],
                         l->dense_product);
    }
    if (l->broken & PGR_PG011) {
        pgr_mend_world(l, PGR_PG011, help);
        pgr_plan_problem(found, PGR_INVALID, "PG011",
                         expert_keys(l->spec, "world_size", keys, sizeof keys), help,
                         "world_size = %" PRId64 " is not divisible by etp * ep * pp = %" PRId64
                         " * %" PRId64 " * %" PRId64 " = %" PRId64,
                         l->world, l->expert[PGR_TP], l->expert[PGR_EP], l->expert[PGR_PP],
                         l->expert_product);
    }
    if (l->broken & PGR_PG018) {
        pgr_mend_dp(l, help);
        pgr_plan_problem(found, PGR_INVALID, "PG018", "parallel.dp world_size " DENSE_KEYS, help,
                         "dp = %" PRId64 " was given, but world_size = %" PRId64
                         " over tp * cp * pp = %" PRId64 " makes dp = %" PRId64,
                         l->spec->parallel.dp, l->world, l->dense_product, l->dense[PGR_DP]);
    }
}

/* ---- PG015 to PG017: the pipeline ---- */

/* dp and edp, or where they are not known, the products that make them differ. */
static void tell_unequal(const pgr_layout *l, pgr_problems *found) {
    char help[PGR_MEND_MAX], sizes[160];
    int64_t dp = l->dense[PGR_DP], edp = l->expert[PGR_DP];
    if (dp > 0 && edp > 0)
        snprintf(sizes, sizeof sizes, "dp = %" PRId64 " and edp = %" PRId64 " differ", dp, edp);
    else
        snprintf(sizes, sizeof sizes,
                 "dp and edp differ, as tp * cp = %" PRId64 " and etp * ep = %" PRId64 " do,",
                 l->dense[PGR_TP] * l->dense[PGR_CP], l->expert[PGR_TP] * l->expert[PGR_EP]);
    pgr_mend_pipeline(l, help);
    pgr_plan_problem(found, PGR_INVALID, "PG016", layout_keys(l->spec), help,
                     "%s while pp = %" PRId64 " is not last in order = \"%s\"", sizes,
                     l->dense[PGR_PP], l->order);
}

static const pgr_axis *pp_axis(const pgr_view *view) {
    for (int32_t i = 0; i < view->axis_count; i++)
        if (strcmp(view->axes[i].name, "pp") == 0)
            return &view->axes[i];
    return NULL;
}

/* Both views must cut the same pipelines. */
static void tell_views(const pgr_layout *l, const pgr_plan *plan, pgr_problems *found) {
    char help[PGR_MEND_MAX];
    int64_t dense = pp_axis(&plan->views[PGR_VIEW_DENSE])->stride;
    int64_t expert = pp_axis(&plan->views[PGR_VIEW_EXPERT])->stride;
    pgr_mend_pipeline(l, help);
    if (dense > 0 && expert > 0)
        pgr_plan_problem(
            found, PGR_INVALID, "PG015", layout_keys(l->spec), help,
            "the pp groups of the dense and the expert view differ: with order = \"%s\" and "
            "pp = %" PRId64 " the first ones begin 0, %" PRId64 " and 0, %" PRId64,
            l->order, l->dense[PGR_PP], dense, expert);
    else
        pgr_plan_problem(
            found, PGR_INVALID, "PG015", layout_keys(l->spec), help,
            "the pp groups of the dense and the expert view differ: with order = \"%s\" and "
            "pp = %" PRId64 " the axes behind pp hold %" PRId64 " and %" PRId64 " ranks",
            l->order, l->dense[PGR_PP], pgr_layout_beside_pp(l, l->dense),
            pgr_layout_beside_pp(l, l->expert));
}

static void tell_pipeline(const pgr_layout *l, const pgr_plan *plan, pgr_problems *found) {
    char help[PGR_MEND_MAX];
    if (l->broken & PGR_PG017) {
        pgr_mend_vpp(l, help);
        pgr_plan_problem(found, PGR_INVALID, "PG017", "parallel.vpp parallel.pp", help,
                         "vpp = %" PRId64 " needs pp greater than 1, and pp = 1",
                         l->spec->parallel.vpp);
    }
    if (l->broken & PGR_PG016)
        tell_unequal(l, found);
    if (l->broken & PGR_PG015)
        tell_views(l, plan, found);
}

/* ---- the plan ---- */

/* Writes a view of the short form as one of the general form: the axes that order names, then the
 * rest, all of size 1. */
static pgr_grid write_view(const pgr_layout *l, const char *const names[PGR_ORDER_AXES],
                           const int64_t sizes[PGR_ORDER_AXES],
                           pgr_grid_axis axes[PGR_ORDER_AXES]) {
    pgr_grid grid = {.axes = axes};
    for (int i = 0; i < l->axis_count + PGR_ORDER_AXES; i++) {
        int axis = i < l->axis_count ? l->axes[i] : i - l->axis_count;
        if (names[axis] == NULL || (i >= l->axis_count && l->named[axis]))
            continue;
        pgr_grid_axis *written = &axes[grid.count++];
        snprintf(written->name, sizeof written->name, "%s", names[axis]);
        written->size = sizes[axis];
    }
    return grid;
}

/* What is known of a layout that breaks rules. */
static void build_known(const pgr_layout *l, pgr_plan *plan) {
    pgr_grid_axis axes[PGR_ORDER_AXES];
    bool dense_out = l->order_ok && !l->dense_missing && l->dense_product > 0;
    bool expert_out = l->order_ok && !l->expert_missing && l->expert_product > 0;
    pgr_grid grid = write_view(l, pgr_dense_names, l->dense, axes);
    plan->world_size = l->world > 0 ? l->world : 0;
    plan->view_count = l->spec->parallel.expert_view ? 2 : 1;
    pgr_grid_lay_out(&grid, "dense", dense_out, &plan->views[PGR_VIEW_DENSE]);
    grid = write_view(l, pgr_expert_names, l->expert, axes);
    if (plan->view_count == 2)
        pgr_grid_lay_out(&grid, "expert", expert_out, &plan->views[PGR_VIEW_EXPERT]);
}

/* The short form is a front end: where it keeps its rules, it is written as a grid with a view, and
 * dp and edp are left open there. */
static void build_grid(const pgr_layout *l, pgr_plan *plan, pgr_problems *found) {
    pgr_grid_axis dense[PGR_ORDER_AXES], expert[PGR_ORDER_AXES];
    pgr_grid_view view = {.name = "expert"};
    pgr_spec written = *l->spec; /* nothing in it is freed */
    int64_t sizes[PGR_ORDER_AXES];
    memcpy(sizes, l->dense, sizeof sizes);
    sizes[PGR_DP] = PGR_NIL;
    written.parallel.grid = write_view(l, pgr_dense_names, sizes, dense);
    memcpy(sizes, l->expert, sizeof sizes);
    sizes[PGR_DP] = PGR_NIL;
    view.grid = write_view(l, pgr_expert_names, sizes, expert);
    written.parallel.views.items = &view;
    written.parallel.views.count = l->spec->parallel.expert_view ? 1 : 0;
    pgr_grid_plan(&written, l->world, plan, found);
}

/* The plan of the short form, or every rule that it breaks. */
static void plan_order(const pgr_spec *spec, int64_t world_size, pgr_plan *plan,
                       pgr_problems *found) {
    pgr_layout l = pgr_layout_of(spec, world_size);
    l.bare = found->list->bare;
    if (l.broken & PGR_PG019) {
        if (tell_sizes(&l, found) && l.world_assumed && l.world == 0)
            tell_smallest(&l, found);
        pgr_tell_ranks(spec, l.world, l.world_assumed, found);
    }
    if (l.broken & PGR_PG013)
        tell_order(&l, found);
    tell_world(&l, found);
    if (l.broken & PGR_PG014)
        tell_all_missing(&l, found);
    build_known(&l, plan);
    tell_pipeline(&l, plan, found);
    if (found->status == PGR_OK)
        build_grid(&l, plan, found);
    plan->world_size_assumed = l.world_assumed;
    memcpy(plan->order, l.order, sizeof l.order);
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
    pgr_diagnostics list = {.bare = error == NULL};
    pgr_problems found = {.status = PGR_OK, .list = &list};
    int64_t world;
    open.world_size = PGR_NIL;
    if (spec->parallel.grid.count > 0) {
        pgr_plan plan = {.world_size = 0};
        pgr_grid_plan(&open, PGR_NIL, &plan, &found);
        world = plan.world_size;
    } else {
        pgr_layout l = pgr_layout_of(&open, PGR_NIL);
        if (tell_sizes(&l, &found) && l.world == 0)
            tell_smallest(&l, &found);
        world = l.world;
    }
    if (found.status != PGR_OK)
        return refuse(found.status, &list, error);
    *world_size = world;
    return PGR_OK;
}

pgr_status pgr_plan_check(const pgr_spec *spec, int64_t world_size, pgr_plan *plan,
                          pgr_diagnostics *list) {
    pgr_problems found = {.status = PGR_OK, .list = list};
    *plan = (pgr_plan){.general = spec->parallel.grid.count > 0};
    if (plan->general)
        pgr_grid_plan(spec, world_size, plan, &found);
    else
        plan_order(spec, world_size, plan, &found);
    if (!plan->general && spec->parallel.views.count > 0)
        pgr_plan_problem(&found, PGR_INVALID, "PG047", "parallel.views",
                         "give the axes of the whole world in parallel.grid",
                         "parallel.views are views of a grid, and parallel.grid is missing");
    pgr_plan_parts(spec, plan, &found);
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

void pgr_plan_name_sizes(const pgr_plan *plan, pgr_spec *spec) {
    const struct {
        const char *axis;
        int64_t *size;
    } names[] = {{"tp", &spec->parallel.tp},
                 {"cp", &spec->parallel.cp},
                 {"pp", &spec->parallel.pp},
                 {"ep", &spec->parallel.ep},
                 {"etp", &spec->parallel.etp}};
    if (!plan->general)
        return;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        int64_t size = pgr_plan_axis_size(plan, names[i].axis);
        *names[i].size = size > 0 ? size : 1;
    }
    if (!pgr_plan_has_axis(plan, "ep") && !pgr_plan_has_axis(plan, "etp"))
        spec->parallel.etp = PGR_NIL;
}
