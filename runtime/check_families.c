/* check_families.c - names of families that a run would refuse: PG061. */
#include "check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

pgr_status pgr_check_nccl_family(const pgr_spec *spec, const pgr_plan *plan, int64_t index,
                                 pgr_error *error) {
    pgr_family family, other;
    const char *name = spec->run.nccl.items[index].family;
    pgr_status status = pgr_plan_family_find(plan, name, &family, error);
    if (status != PGR_OK) {
        pgr_error_prefix(error, "run.nccl: ");
        return status;
    }
    for (int64_t i = 0; i < index; i++) {
        const char *before = spec->run.nccl.items[i].family;
        if (pgr_plan_family_find(plan, before, &other, NULL) == PGR_OK &&
            pgr_family_is(&other, &family))
            return pgr_error_set(error, PGR_INVALID,
                                 "run.nccl: %s and %s are one family; give its options once",
                                 before, name);
    }
    return PGR_OK;
}

/* What follows the error's first "; " is the way out. The path is set apart from the others: a name
 * that no family has may have blanks in it. */
static void tell(pgr_diagnostics *found, const char *path, bool at_key, const pgr_error *error) {
    const char *rest = strstr(error->message, "; ");
    int length = rest ? (int)(rest - error->message) : (int)strlen(error->message);
    pgr_diagnostic *finding =
        pgr_diagnose(found, "PG061", "", rest ? rest + 2 : NULL, "%.*s", length, error->message);
    if (!finding)
        return;
    snprintf(finding->paths[0], sizeof finding->paths[0], "%s", path);
    finding->path_count = 1;
    finding->at_key = at_key;
}

/* Not in a trial: a layout that is mended would be blamed for names that nobody could look up in
 * the broken one. */
void pgr_check_families(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found) {
    char path[PGR_PATH_MAX];
    pgr_family family;
    pgr_error error;
    if (plan == NULL || found->bare)
        return;
    for (int64_t i = 0; i < spec->run.families.count; i++) {
        if (pgr_plan_family_find(plan, spec->run.families.items[i], &family, &error) == PGR_OK)
            continue;
        pgr_error_prefix(&error, "run.families: ");
        snprintf(path, sizeof path, "run.families[%" PRId64 "]", i + 1);
        tell(found, path, false, &error);
    }
    for (int64_t i = 0; i < spec->run.nccl.count; i++) {
        if (pgr_check_nccl_family(spec, plan, i, &error) == PGR_OK)
            continue;
        snprintf(path, sizeof path, "run.nccl.%s", spec->run.nccl.items[i].family);
        tell(found, path, true, &error);
    }
}
