/* check.c - the whole check of a layout: what planning refuses, then the rules by what they look
 * at. */
#include "check.h"

#include <inttypes.h>
#include <stdio.h>

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

/* The general grid replaces the sizes that all rules are about: to check those would say nothing of
 * the layout that is meant. */
static bool refuse_grid(const pgr_spec *spec, pgr_diagnostics *found) {
    bool grid = spec->parallel.grid.count > 0, views = spec->parallel.views.count > 0;
    if (!grid && !views)
        return false;
    pgr_diagnose(found, "PG007",
                 grid && views ? "parallel.grid parallel.views"
                 : grid        ? "parallel.grid"
                               : "parallel.views",
                 "give tp, cp, pp, ep and order instead",
                 "%s (the general form) %s not checked by this version",
                 grid && views ? "parallel.grid and parallel.views"
                 : grid        ? "parallel.grid"
                               : "parallel.views",
                 grid && !views ? "is" : "are");
    return true;
}

void pgr_check(const pgr_spec *spec, int64_t world_size, int64_t *checked_world,
               pgr_diagnostics *found) {
    pgr_plan plan;
    *checked_world = world_size != PGR_NIL ? world_size : spec->world_size;
    if (refuse_grid(spec, found))
        return;
    bool legal = pgr_plan_check(spec, world_size, &plan, found) == PGR_OK;
    if (plan.world_size > 0)
        *checked_world = plan.world_size;
    pgr_check_model(spec, &plan, found);
    pgr_check_moe(spec, &plan, found);
    pgr_check_sequence(spec, &plan, found);
    pgr_check_cluster(spec, &plan, found);
    pgr_check_notes(spec, legal ? &plan : NULL, found);
}
