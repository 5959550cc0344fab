/* config_diagnose.c - everything that is wrong with a config: what its reading finds, then the
 * rules, also on what could be read of a config with wrong keys. */
#include "check.h"
#include "config_reader.h"

#include <string.h>

/* Whether one path is the other, or holds it: "parallel" and "parallel.tp". */
static bool related(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b), least = n < m ? n : m;
    if (least == 0 || strncmp(a, b, least) != 0)
        return least == 0;
    const char *longer = n < m ? b : a;
    return n == m || longer[least] == '.' || longer[least] == '[';
}

static bool same_section(const char *a, const char *b) {
    size_t n = strcspn(a, "."), m = strcspn(b, ".");
    return n == m && strncmp(a, b, n) == 0;
}

/* Rules that read no key but those that they name. Others read modes and defaults, too, which a
 * wrong key may have been meant to change. */
static bool reads_what_it_names(const pgr_rule *rule) {
    static const char *const codes[] = {"PG012", "PG013", "PG021", "PG022", "PG027", "PG032"};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(rule->code, codes[i]) == 0)
            return true;
    return false;
}

/* Whether what was meant at the wrong key could be the value at `at`: its own, or, for a misspelt
 * key, one that is not written. */
static bool casts_doubt(const pgr_diagnostic *problem, const pgr_location *at) {
    const char *path = problem->paths[0];
    bool misspelt = strcmp(problem->rule->code, "PG004") == 0;
    bool on_top = strpbrk(path, ".[") == NULL;
    return related(path, at->path) ||
           (misspelt && !at->written && (on_top || same_section(path, at->path)));
}

/* Whether a rule's finding holds whatever the keys of the first `count` problems were meant to say.
 */
static bool is_sound(const pgr_diagnostic *finding, const pgr_finding_locations *places,
                     const pgr_diagnostics *problems, int64_t count) {
    if (finding->severity != PGR_ERROR || !reads_what_it_names(finding->rule))
        return false;
    for (int64_t i = 0; i < count; i++)
        for (int32_t k = 0; k < places->count; k++)
            if (problems->items[i].path_count == 0 ||
                casts_doubt(&problems->items[i], &places->items[k]))
                return false;
    return true;
}

/* Adds the errors of the rules that do not hang on the wrong keys in `found`. */
static pgr_status check_partial(const pgr_spec *spec, const char *text, size_t bytes,
                                const pgr_snapshot *held, int64_t world_size,
                                pgr_diagnostics *found) {
    pgr_diagnostics rules = {0};
    pgr_locations places = {0};
    int64_t unused, problems = found->count;
    pgr_check(spec, world_size, &unused, &rules);
    pgr_status status = rules.out_of_memory ? PGR_LIMIT : PGR_OK;
    if (status == PGR_OK)
        status = pgr_config_locate(text, bytes, held, &rules, &places);
    for (int64_t i = 0; i < rules.count && status == PGR_OK; i++)
        if (is_sound(&rules.items[i], &places.items[i], found, problems) &&
            !pgr_diagnostics_add(found, &rules.items[i]))
            status = PGR_LIMIT;
    pgr_locations_free(&places);
    pgr_diagnostics_free(&rules);
    return status;
}

/* Reads and checks; what is wrong is in `found`. */
static pgr_status find_all(const char *name, const char *text, size_t bytes,
                           const pgr_config_set *sets, int set_count, int64_t world_size,
                           int64_t *checked_world, pgr_diagnostics *found, pgr_snapshot *held,
                           pgr_error *error) {
    pgr_sandbox sandbox = {0};
    pgr_spec spec;
    bool partial = false;
    pgr_status status = pgr_config_check_in(&sandbox, name, text, bytes, sets, set_count, &spec,
                                            &partial, found, held, error);
    if ((status == PGR_OK || partial) && world_size != PGR_NIL)
        spec.world_size = world_size; /* ways out are for the size that is checked */
    if (status == PGR_OK)
        pgr_check(&spec, world_size, checked_world, found);
    else if (partial)
        status = check_partial(&spec, text, bytes, held, world_size, found);
    else if (status == PGR_INVALID)
        return PGR_OK; /* told by the findings */
    else
        return status;
    pgr_spec_free(&spec);
    if (status != PGR_OK || found->out_of_memory)
        return pgr_error_set(error, PGR_LIMIT, "%s: out of memory", name);
    return PGR_OK;
}

pgr_status pgr_config_diagnose(const char *name, const char *text, size_t bytes,
                               const pgr_config_set *sets, int set_count, int64_t world_size,
                               int64_t *checked_world, pgr_diagnostics *found,
                               pgr_locations *places, pgr_error *error) {
    pgr_snapshot held = {0};
    *checked_world = PGR_NIL;
    pgr_status status = find_all(name, text, bytes, sets, set_count, world_size, checked_world,
                                 found, &held, error);
    if (status == PGR_OK) {
        pgr_diagnostics_sort(found);
        status = pgr_config_locate(text, bytes, &held, found, places);
        if (status != PGR_OK)
            pgr_error_set(error, status, "%s: out of memory", name);
    }
    pgr_snapshot_free(&held);
    return status;
}
