/* check.c - the whole check of a layout: what planning refuses, then the rules by what they look
 * at. */
#include "check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { DIVISORS_SHOWN = 12 };

/* Trial division up to the square root of this is quick, also for hostile sizes. */
static const int64_t largest_factored = INT64_C(1) << 32;

/* The next divisor of `value` above `last`, at most `most`; 0 where there is none. */
static int64_t next_divisor(int64_t value, int64_t last, int64_t most) {
    for (int64_t d = last + 1; d <= value / d; d++)
        if (value % d == 0)
            return d <= most ? d : 0;
    /* the larger half: value / d for falling d below the root */
    int64_t root = 1;
    while ((root + 1) <= value / (root + 1))
        root++;
    for (int64_t d = last < root ? root : value / (last + 1); d >= 1; d--)
        if (value % d == 0 && value / d > last)
            return value / d <= most ? value / d : 0;
    return 0;
}

void pgr_check_divisors(int64_t value, int64_t most, char *text, size_t bytes) {
    snprintf(text, bytes, "1");
    if (value < 1 || value > largest_factored)
        return;
    int64_t found[DIVISORS_SHOWN + 1];
    int count = 0;
    for (int64_t d = 0; count <= DIVISORS_SHOWN && (d = next_divisor(value, d, most)) != 0;)
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
    if (plan.general && !legal)
        return; /* its sizes are not known */
    pgr_plan_name_sizes(&plan, &named);
    pgr_check_model(spec, &plan, found);
    pgr_check_moe(spec, &plan, found);
    pgr_check_sequence(spec, &plan, found);
    pgr_check_cluster(spec, &plan, found);
    pgr_check_notes(spec, legal ? &plan : NULL, found);
    for (int64_t i = before; i < found->count && plan.general; i++)
        name_grid(spec, &found->items[i]);
}
