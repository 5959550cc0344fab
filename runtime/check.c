/* check.c - the whole check of a layout: what planning refuses, then the rules by what they look
 * at. */
#include "check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- the general form ---- */

/* The key that gives an axis its size: its place in the grid, or in the view that has it. */
static void axis_path(const pgr_spec *spec, const char *axis, char path[PGR_PATH_MAX]) {
    const pgr_grid *grid = &spec->parallel.grid;
    for (int64_t i = 0; i < grid->count; i++) {
        if (strcmp(grid->axes[i].name, axis) == 0) {
            snprintf(path, PGR_PATH_MAX, "parallel.grid[%" PRId64 "]", i + 1);
            return;
        }
    }
    for (int64_t v = 0; v < spec->parallel.views.count; v++) {
        const pgr_grid_view *view = &spec->parallel.views.items[v];
        for (int64_t i = 0; i < view->grid.count; i++) {
            if (strcmp(view->grid.axes[i].name, axis) == 0) {
                snprintf(path, PGR_PATH_MAX, "parallel.views.%s[%" PRId64 "]", view->name, i + 1);
                return;
            }
        }
    }
    snprintf(path, PGR_PATH_MAX, "parallel.grid"); /* by not having it */
}

/* Rules name the short form's keys; of the general form these are the grid's axes. */
static void name_grid(const pgr_spec *spec, pgr_diagnostic *finding) {
    static const char *const axes[] = {"tp", "cp", "pp", "ep", "etp", "dp"};
    for (int32_t p = 0; p < finding->path_count; p++) {
        char *path = finding->paths[p];
        if (strcmp(path, "parallel.order") == 0)
            snprintf(path, PGR_PATH_MAX, "parallel.grid");
        for (size_t i = 0; i < sizeof axes / sizeof axes[0]; i++)
            if (strncmp(path, "parallel.", 9) == 0 && strcmp(path + 9, axes[i]) == 0)
                axis_path(spec, axes[i], path);
    }
    int32_t kept = 0; /* each once */
    for (int32_t p = 0; p < finding->path_count; p++) {
        bool again = false;
        for (int32_t q = 0; q < kept; q++)
            again = again || strcmp(finding->paths[q], finding->paths[p]) == 0;
        if (!again && kept != p)
            memcpy(finding->paths[kept], finding->paths[p], PGR_PATH_MAX);
        kept += !again;
    }
    finding->path_count = kept;
}

/* ---- all rules ---- */

void pgr_check(const pgr_spec *given, int64_t world_size, int64_t *checked_world,
               pgr_diagnostics *found) {
    pgr_plan plan;
    pgr_spec named = *given; /* nothing in it is freed */
    const pgr_spec *spec = &named;
    int64_t before = found->count;
    *checked_world = world_size != PGR_NIL ? world_size : spec->world_size;
    bool legal = pgr_plan_check(spec, world_size, &plan, found) == PGR_OK;
    if (plan.world_size > 0)
        *checked_world = plan.world_size;
    if (plan.general && plan.view_count == 0)
        return; /* its sizes are not known */
    pgr_plan_name_sizes(&plan, &named);
    pgr_check_model(spec, &plan, found);
    pgr_check_moe(spec, &plan, found);
    pgr_check_sequence(spec, &plan, found);
    pgr_check_cluster(spec, &plan, found);
    pgr_check_families(spec, legal ? &plan : NULL, found);
    pgr_check_notes(spec, legal ? &plan : NULL, found);
    for (int64_t i = before; i < found->count && plan.general; i++)
        name_grid(spec, &found->items[i]);
}
