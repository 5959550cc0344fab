/* plan_grid.c - the general form of a layout: any named axes, and any further views of the same
 * ranks. After HyperCommGrid of Megatron-Core (megatron/core/hyper_comm_grid.py), with one size
 * inferred and with the views proven to agree on the axes that they share. */
#include "plan_layout.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    MOST_WORLDS = 256, /* multiples of the unit that are tried */
    MOST_VIEWS = PGR_VIEWS_MAX - 1
};

/* One view as it is declared; the first is the grid. */
typedef struct declared {
    const char *name;
    const pgr_grid *grid;
    char path[PGR_NAME_MAX + 16]; /* "parallel.grid", "parallel.views.expert" */
} declared;

typedef struct grid_form {
    const pgr_spec *spec;
    int count;
    declared views[PGR_VIEWS_MAX];
    int64_t sizes[PGR_VIEWS_MAX][PGR_AXES_MAX]; /* 0: not known */
    int64_t world;
} grid_form;

static grid_form form_of(const pgr_spec *spec) {
    grid_form form = {.spec = spec, .count = 1};
    form.views[0] = (declared){"dense", &spec->parallel.grid, "parallel.grid"};
    for (int64_t i = 0; i < spec->parallel.views.count && i < MOST_VIEWS; i++) {
        const pgr_grid_view *view = &spec->parallel.views.items[i];
        declared *d = &form.views[form.count++];
        *d = (declared){.name = view->name, .grid = &view->grid};
        snprintf(d->path, sizeof d->path, "parallel.views.%s", view->name);
    }
    return form;
}

/* ---- PG045: names; PG019: sizes below 1 ---- */

/* Letters, digits, '_' and '.', not beginning with a digit: names that dashes, slashes and commas
 * can join. */
static bool is_name(const char *name) {
    if (name[0] == '\0' || isdigit((unsigned char)name[0]))
        return false;
    for (; *name != '\0'; name++)
        if (!isalnum((unsigned char)*name) && *name != '_' && *name != '.')
            return false;
    return true;
}

static void tell_axes_of(const declared *d, pgr_problems *found) {
    const pgr_grid *grid = d->grid;
    if (grid->count > PGR_AXES_MAX - 4)
        pgr_plan_problem(found, PGR_INVALID, "PG045", d->path,
                         "join axes that no group tells apart",
                         "the %s view has %" PRId64 " axes, and at most %d are taken", d->name,
                         grid->count, PGR_AXES_MAX - 4);
    for (int64_t i = 0; i < grid->count && i < PGR_AXES_MAX; i++) {
        const char *name = grid->axes[i].name;
        if (!is_name(name))
            pgr_plan_problem(found, PGR_INVALID, "PG045", d->path,
                             "take letters, digits, _ and ., and no digit first",
                             "\"%s\" in the %s view is no name of an axis", name, d->name);
        else if (strcmp(name, "embedding") == 0 || strcmp(name, "instance") == 0)
            pgr_plan_problem(found, PGR_INVALID, "PG045", d->path, "take another name",
                             "\"%s\" in the %s view is a word of a family's name", name, d->name);
        if (grid->axes[i].size != PGR_NIL && grid->axes[i].size < 1)
            pgr_plan_problem(found, PGR_INVALID, "PG019", d->path, "",
                             "%s = %" PRId64 " in the %s view must be at least 1", name,
                             grid->axes[i].size, d->name);
        for (int64_t j = 0; j < i; j++)
            if (strcmp(grid->axes[j].name, name) == 0)
                pgr_plan_problem(found, PGR_INVALID, "PG045", d->path, "name each axis once",
                                 "the %s view names \"%s\" twice", d->name, name);
    }
}

/* Names and sizes that can be worked with; false where some can't. */
static bool tell_axes(const grid_form *form, pgr_problems *found) {
    const pgr_spec *spec = form->spec;
    if (spec->parallel.views.count > MOST_VIEWS)
        pgr_plan_problem(found, PGR_INVALID, "PG045", "parallel.views", "leave some views out",
                         "parallel.views has %" PRId64 " views, and at most %d are taken",
                         spec->parallel.views.count, MOST_VIEWS);
    for (int i = 0; i < form->count; i++) {
        const declared *d = &form->views[i];
        tell_axes_of(d, found);
        if (i > 0 && (strcmp(d->name, "dense") == 0 || !is_name(d->name)))
            pgr_plan_problem(
                found, PGR_INVALID, "PG045", "parallel.views", "take another name for it",
                strcmp(d->name, "dense") == 0 ? "\"%s\" is the view that parallel.grid declares"
                                              : "\"%s\" is no name of a view",
                d->name);
    }
    return found->status == PGR_OK;
}

/* ---- PG044: sizes ---- */

/* The index of an axis in a declared view, or -1. */
static int64_t declared_axis(const declared *d, const char *name) {
    for (int64_t i = 0; i < d->grid->count; i++)
        if (strcmp(d->grid->axes[i].name, name) == 0)
            return i;
    return -1;
}

/* The axis of the view whose size only the world gives, or -1; an axis that the grid has too takes
 * the grid's. */
static int64_t open_axis(const grid_form *form, int view, int *open_count) {
    int64_t open = -1;
    *open_count = 0;
    for (int64_t i = 0; i < form->views[view].grid->count; i++) {
        const pgr_grid_axis *axis = &form->views[view].grid->axes[i];
        if (axis->size != PGR_NIL || (view > 0 && declared_axis(&form->views[0], axis->name) >= 0))
            continue;
        open = i;
        ++*open_count;
    }
    return open;
}

/* Sets the sizes of a view in a world; false where they do not make it. Views after the grid need
 * the grid's sizes. */
static bool solve_view(grid_form *form, int view, int64_t world) {
    const pgr_grid *grid = form->views[view].grid;
    int64_t *sizes = form->sizes[view], product = 1;
    int open_count;
    int64_t open = open_axis(form, view, &open_count);
    for (int64_t i = 0; i < grid->count; i++) {
        int64_t shared = declared_axis(&form->views[0], grid->axes[i].name);
        sizes[i] = grid->axes[i].size != PGR_NIL ? grid->axes[i].size
                   : view > 0 && shared >= 0     ? form->sizes[0][shared]
                                                 : 0;
        if (i != open)
            product = pgr_layout_product(product, sizes[i], 1);
    }
    if (product <= 0 || world % product != 0 || (open < 0 && product != world))
        return false;
    if (open >= 0)
        sizes[open] = world / product;
    return true;
}

/* The first view that names the axis, or -1. */
static int view_with(const grid_form *form, const char *axis) {
    for (int view = 0; view < form->count; view++)
        if (declared_axis(&form->views[view], axis) >= 0)
            return view;
    return -1;
}

/* The size of a view's axis by name in the solved form; 1 where the view has none. */
static int64_t solved_size(const grid_form *form, int view, const char *axis) {
    int64_t at = declared_axis(&form->views[view], axis);
    return at < 0 ? 1 : form->sizes[view][at];
}

/* Whether all views make this world. */
static bool solve(grid_form *form, int64_t world) {
    for (int view = 0; view < form->count; view++)
        if (!solve_view(form, view, world))
            return false;
    return true;
}

/* Whether a world has all its sizes, and shares out the optimizer's instances and hybrid groups. */
static bool fits(const grid_form *form, int64_t world, bool shares) {
    grid_form tried = *form;
    if (!solve(&tried, world))
        return false;
    int dp = view_with(form, "dp"), edp = view_with(form, "edp");
    dp = dp < 0 ? 0 : dp; /* of size 1 */
    int64_t data = solved_size(&tried, dp, "dp") * solved_size(&tried, dp, "cp");
    int64_t experts = edp < 0 ? data : solved_size(&tried, edp, "edp");
    return !shares || pgr_shares_fit(form->spec, data, experts);
}

/* The product of a view's own sizes; 0 where it does not fit. */
static int64_t own_product(const grid_form *form, int view) {
    const pgr_grid *grid = form->views[view].grid;
    int64_t product = 1;
    for (int64_t i = 0; i < grid->count; i++)
        if (grid->axes[i].size != PGR_NIL)
            product = pgr_layout_product(product, grid->axes[i].size, 1);
    return product;
}

/* What every world of the form is a multiple of, and *only the one world that a view without an
 * open size allows, else 0. 0 where it does not fit. */
static int64_t unit_of(const grid_form *form, int64_t *only) {
    int64_t unit = 1;
    *only = 0;
    for (int view = 0; view < form->count; view++) {
        int64_t product = own_product(form, view), open = 0;
        if (product == 0)
            return 0;
        for (int64_t i = 0; i < form->views[view].grid->count; i++)
            open += form->views[view].grid->axes[i].size == PGR_NIL;
        if (open == 0 && *only == 0)
            *only = product;
        unit = pgr_layout_product(unit / pgr_greatest_divisor(unit, product), product, 1);
    }
    return unit;
}

/* The first world from `start` on, by `step`, that fits; 0 where there is none near. */
static int64_t next_world(const grid_form *form, int64_t start, int64_t step) {
    for (int shares = 1; shares >= 0; shares--) {
        int64_t world = start;
        for (int i = 0; i < MOST_WORLDS && world > 0; i++) {
            if (fits(form, world, shares != 0))
                return world;
            if (__builtin_add_overflow(world, step, &world))
                break;
        }
    }
    return 0;
}

/* "tp * mine = 2 * 4 = 8": the sizes of a view that are known without the world. */
static void product_text(const grid_form *form, int view, char *out, size_t bytes) {
    const pgr_grid *grid = form->views[view].grid;
    char names[256] = "", values[256] = "";
    int64_t product = 1;
    int count = 0;
    for (int64_t i = 0; i < grid->count; i++) {
        int64_t shared = declared_axis(&form->views[0], grid->axes[i].name);
        int64_t size = grid->axes[i].size;
        if (size == PGR_NIL && view > 0 && shared >= 0)
            size = form->sizes[0][shared];
        if (size == PGR_NIL || size == 0)
            continue;
        size_t n = strlen(names), v = strlen(values);
        snprintf(names + n, sizeof names - n, "%s%s", count ? " * " : "", grid->axes[i].name);
        snprintf(values + v, sizeof values - v, "%s%" PRId64, count ? " * " : "", size);
        product = pgr_layout_product(product, size, 1);
        count++;
    }
    if (count == 0)
        snprintf(out, bytes, "1");
    else if (count == 1)
        snprintf(out, bytes, "%s = %s", names, values);
    else if (product == 0)
        snprintf(out, bytes, "%s = %s", names, values);
    else
        snprintf(out, bytes, "%s = %s = %" PRId64, names, values, product);
}

/* What a world that fits needs besides, where it does not share its data-parallel ranks out. */
static const char *proviso(const grid_form *form, int64_t world) {
    grid_form tried = *form;
    pgr_spec changed = *form->spec; /* nothing in it is freed */
    tried.spec = &changed;
    if (fits(&tried, world, true))
        return "";
    changed.parallel.hybrid_cp = false;
    if (fits(&tried, world, true))
        return ", without hybrid_cp";
    changed.parallel.hybrid_cp = form->spec->parallel.hybrid_cp;
    changed.parallel.optimizer_instances = 1;
    if (fits(&tried, world, true))
        return ", with optimizer_instances = 1";
    return ", with optimizer_instances = 1 and without hybrid_cp";
}

static void worlds_help(const grid_form *form, char *help, size_t bytes) {
    int64_t only, unit = unit_of(form, &only);
    help[0] = '\0';
    if (only > 0) {
        if (fits(form, only, false))
            snprintf(help, bytes, "the size that fits is %" PRId64 "%s", only, proviso(form, only));
        return;
    }
    if (unit == 0)
        return;
    int64_t under = form->world / unit * unit, above = 0, over;
    int64_t below = next_world(form, under == form->world ? under - unit : under, -unit);
    if (!__builtin_add_overflow(under, unit, &over))
        above = next_world(form, over, unit);
    if (below > 0 && above > 0 && *proviso(form, above) != '\0')
        above = 0;
    if (below > 0 && above > 0 && *proviso(form, below) != '\0')
        below = 0;
    if (below > 0 && above > 0)
        snprintf(help, bytes, "the nearest sizes that fit are %" PRId64 " and %" PRId64, below,
                 above);
    else if (below + above > 0)
        snprintf(help, bytes, "the nearest size that fits is %" PRId64 "%s", below + above,
                 proviso(form, below + above));
}

/* Views with more than one open size; false where there are some. */
static bool tell_open(const grid_form *form, pgr_problems *found) {
    for (int view = 0; view < form->count; view++) {
        int count;
        open_axis(form, view, &count);
        if (count > 1)
            pgr_plan_problem(found, PGR_INVALID, "PG044", form->views[view].path,
                             "give all sizes but one", "the %s view has %d axes without a size",
                             form->views[view].name, count);
    }
    return found->status == PGR_OK;
}

static void tell_sizes(grid_form *form, pgr_problems *found) {
    for (int view = 0; view < form->count; view++) {
        const declared *d = &form->views[view];
        char sizes[544], paths[PGR_NAME_MAX + 48], help[160];
        int open_count;
        if (solve_view(form, view, form->world))
            continue;
        int64_t open = open_axis(form, view, &open_count);
        product_text(form, view, sizes, sizeof sizes);
        help[0] = '\0';
        if (!found->list->bare)
            worlds_help(form, help, sizeof help);
        snprintf(paths, sizeof paths, "%s world_size", d->path);
        if (open >= 0)
            pgr_plan_problem(found, PGR_INVALID, "PG044", paths, help,
                             "world_size = %" PRId64 " is not divisible by the %s view's %s",
                             form->world, d->name, sizes);
        else
            pgr_plan_problem(found, PGR_INVALID, "PG044", paths,
                             help[0] != '\0' ? help : "leave one of its sizes out, to be inferred",
                             "the %s view's %s make no world of %" PRId64, d->name, sizes,
                             form->world);
        if (view == 0)
            return; /* the others may take sizes from it */
    }
}

/* ---- PG046: shared axes ---- */

static void tell_shared(const grid_form *form, const pgr_plan *plan, int a, int b,
                        pgr_problems *found) {
    const pgr_view *first = &plan->views[a], *second = &plan->views[b];
    for (int32_t i = 0; i < second->axis_count; i++) {
        const pgr_axis *axis = &second->axes[i];
        for (int32_t j = 0; j < first->axis_count; j++) {
            const pgr_axis *other = &first->axes[j];
            if (strcmp(axis->name, other->name) != 0 ||
                (axis->size == other->size && (axis->size == 1 || axis->stride == other->stride)))
                continue;
            char paths[2 * PGR_NAME_MAX + 48];
            snprintf(paths, sizeof paths, "%s %s", form->views[a].path, form->views[b].path);
            pgr_plan_problem(found, PGR_INVALID, "PG046", paths,
                             "give it one size, and before it axes of one product in both; or "
                             "another name in one of them",
                             "axis \"%s\" is %" PRId64 " ranks that lie %" PRId64
                             " apart in the %s view, and %" PRId64 " ranks that lie %" PRId64
                             " apart in the %s view",
                             axis->name, other->size, other->stride, first->name, axis->size,
                             axis->stride, second->name);
        }
    }
}

/* ---- the plan ---- */

void pgr_grid_lay_out(const pgr_grid *axes, const char *name, bool laid_out, pgr_view *view) {
    int64_t stride = laid_out ? 1 : 0;
    snprintf(view->name, sizeof view->name, "%s", name);
    view->axis_count = 0;
    for (int64_t i = 0; i < axes->count; i++) {
        pgr_axis *axis = &view->axes[view->axis_count++];
        memcpy(axis->name, axes->axes[i].name, sizeof axis->name);
        axis->size = axes->axes[i].size;
        axis->stride = stride;
        stride = pgr_layout_product(stride, axis->size, 1);
    }
}

/* Axes of Megatron-Core's that no view names have size 1, as in the short form. */
static void add_implied(const grid_form *form, pgr_grid *dense) {
    static const char *const implied[] = {"tp", "cp", "dp", "pp"};
    for (size_t i = 0; i < sizeof implied / sizeof implied[0]; i++) {
        if (view_with(form, implied[i]) >= 0)
            continue;
        pgr_grid_axis *axis = &dense->axes[dense->count++];
        snprintf(axis->name, sizeof axis->name, "%s", implied[i]);
        axis->size = 1;
    }
}

static void build(const grid_form *form, pgr_plan *plan) {
    plan->order[0] = '\0';
    plan->world_size = form->world;
    plan->view_count = form->count;
    for (int view = 0; view < form->count; view++) {
        pgr_grid_axis axes[PGR_AXES_MAX];
        pgr_grid solved = {.count = form->views[view].grid->count, .axes = axes};
        for (int64_t i = 0; i < solved.count; i++) {
            axes[i] = form->views[view].grid->axes[i];
            axes[i].size = form->sizes[view][i];
            if (view == 0) {
                strcat(plan->order, i == 0 ? "" : "-");
                strcat(plan->order, axes[i].name);
            }
        }
        if (view == 0)
            add_implied(form, &solved);
        pgr_grid_lay_out(&solved, form->views[view].name, true, &plan->views[view]);
    }
}

static void choose_world(grid_form *form, int64_t world_size, pgr_plan *plan, pgr_problems *found) {
    int64_t asked = world_size != PGR_NIL ? world_size : form->spec->world_size, only;
    int64_t unit = unit_of(form, &only);
    plan->world_size_assumed = asked == PGR_NIL;
    form->world = asked;
    if (plan->world_size_assumed) {
        form->world = only > 0 ? only : next_world(form, unit, unit);
        if (form->world == 0)
            form->world = unit;
    }
    if (unit == 0)
        pgr_plan_problem(found, PGR_LIMIT, "PG019", "parallel.grid", "take smaller sizes",
                         "the sizes of parallel.grid and its views do not fit in 63 bits");
    pgr_tell_ranks(form->spec, form->world, plan->world_size_assumed, found);
}

void pgr_grid_plan(const pgr_spec *spec, int64_t world_size, pgr_plan *plan, pgr_problems *found) {
    grid_form form = form_of(spec);
    if (!tell_axes(&form, found) || !tell_open(&form, found))
        return;
    choose_world(&form, world_size, plan, found);
    if (found->status == PGR_OK)
        tell_sizes(&form, found);
    if (found->status != PGR_OK) {
        plan->world_size = form.world > 0 ? form.world : 0;
        return;
    }
    build(&form, plan);
    for (int b = 1; b < plan->view_count; b++)
        for (int a = 0; a < b; a++)
            tell_shared(&form, plan, a, b, found);
}
