/* groups.c - `pgrun groups`: from a config to the families that are printed, or to a refusal, in
 * which case nothing is. */
#include "groups.h"
#include "command.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Of a name that the options' table has let through. */
static pgr_groups_format format_of(const char *name) {
    static const char *const names[] = {[PGR_GROUPS_TEXT] = "text",
                                        [PGR_GROUPS_JSON] = "json",
                                        [PGR_GROUPS_CSV] = "csv",
                                        [PGR_GROUPS_SVG] = "svg"};
    for (int i = PGR_GROUPS_JSON; name != NULL && i <= PGR_GROUPS_SVG; i++)
        if (strcmp(name, names[i]) == 0)
            return (pgr_groups_format)i;
    return PGR_GROUPS_TEXT;
}

static pgr_status check_usage(const pgr_options *options, pgr_groups_format *format,
                              pgr_error *error) {
    if (options->file_count != 1) {
        return pgr_error_set(error, PGR_USAGE,
                             "pgrun groups takes one config, and %d were given; use pgrun groups "
                             "CONFIG",
                             options->file_count);
    }
    if (options->world_size_count > 1) {
        return pgr_error_set(error, PGR_USAGE,
                             "pgrun groups takes one --world-size, and %d were given",
                             options->world_size_count);
    }
    if (options->summary && options->rank != PGR_NIL) {
        return pgr_error_set(error, PGR_USAGE,
                             "--summary is of the whole world; leave --summary or --rank out");
    }
    *format = format_of(options->format);
    if (options->summary && (*format == PGR_GROUPS_CSV || *format == PGR_GROUPS_SVG)) {
        return pgr_error_set(error, PGR_USAGE, "--summary has no format %s; it can be text or json",
                             options->format);
    }
    return PGR_OK;
}

static bool has_family(const pgr_groups *r, const char *name) {
    for (int32_t i = 0; i < r->family_count; i++)
        if (strcmp(r->families[i].name, name) == 0)
            return true;
    return false;
}

/* Finds the families of --group, each once, in the order asked for. */
static pgr_status pick_families(pgr_groups *r, const char *list, pgr_error *error) {
    for (const char *at = list;; at++) {
        size_t length = strcspn(at, ",");
        char name[PGR_NAME_MAX];
        if (length == 0 || length >= sizeof name) {
            return pgr_error_set(error, PGR_USAGE,
                                 "--group %s: a name is empty or too long; give families with "
                                 "commas between, as --group tp-pp,dp",
                                 list);
        }
        memcpy(name, at, length);
        name[length] = '\0';
        if (!has_family(r, name)) {
            if (r->family_count == PGR_GROUPS_FAMILIES_MAX) {
                return pgr_error_set(error, PGR_LIMIT, "--group takes at most %d families",
                                     PGR_GROUPS_FAMILIES_MAX);
            }
            pgr_status status =
                pgr_plan_family_find(&r->plan, name, &r->families[r->family_count], error);
            if (status != PGR_OK)
                return status;
            r->family_count++;
        }
        at += length;
        if (*at == '\0')
            return PGR_OK;
    }
}

static pgr_status choose_families(pgr_groups *r, const char *list, pgr_error *error) {
    r->families_named = list != NULL;
    if (list != NULL)
        return pick_families(r, list, error);
    int32_t count = pgr_plan_family_count(&r->plan);
    if (count > PGR_GROUPS_FAMILIES_MAX) {
        return pgr_error_set(error, PGR_LIMIT,
                             "the layout has %" PRId32 " families, more than %d; pick some with "
                             "--group",
                             count, PGR_GROUPS_FAMILIES_MAX);
    }
    for (int32_t i = 0; i < count; i++)
        r->families[r->family_count++] = pgr_plan_family_at(&r->plan, i);
    return PGR_OK;
}

/* --rank counts as ranks are reported, from rank_offset on. */
static pgr_status choose_rank(pgr_groups *r, const pgr_spec *spec, int64_t rank, pgr_error *error) {
    pgr_state state;
    r->rank = PGR_NIL;
    if (rank == PGR_NIL)
        return PGR_OK;
    pgr_status status = pgr_state_create(&r->plan, spec, rank, &state, error);
    if (status != PGR_OK)
        pgr_error_prefix(error, "--");
    else
        r->rank = state.rank;
    return status;
}

/* The plan of the config, or its problems under the config's name. */
static pgr_status make_plan(const pgr_options *options, const pgr_spec *spec, pgr_plan *plan,
                            pgr_error *error) {
    int64_t world = options->world_size_count == 1 ? options->world_sizes[0] : PGR_NIL;
    pgr_status status = pgr_plan_create(spec, world, plan, error);
    if (status != PGR_OK && error != NULL) {
        bool lines = strchr(error->message, '\n') != NULL;
        pgr_error_prefix(error, lines ? "%s: no such layout:\n" : "%s: ", options->files[0]);
    }
    return status;
}

static pgr_status load(const pgr_options *options, pgr_spec *spec, pgr_error *error) {
    pgr_config_text text;
    pgr_status status = pgr_config_read(options->files[0], &text, error);
    if (status == PGR_OK) {
        status = pgr_config_load(options->files[0], text.text, text.bytes, options->sets,
                                 options->set_count, spec, error);
        free(text.text);
    }
    return status;
}

/* Everything that can be refused, before the first byte is written. */
static pgr_status prepare(const pgr_options *options, pgr_groups *r, pgr_error *error) {
    pgr_spec spec;
    pgr_status status = load(options, &spec, error);
    if (status != PGR_OK)
        return status;
    status = make_plan(options, &spec, &r->plan, error);
    if (status == PGR_OK)
        pgr_groups_rank_holds(&r->plan, &spec, options->rank, r->holds);
    if (status == PGR_OK)
        status = choose_families(r, options->group, error);
    if (status == PGR_OK)
        status = choose_rank(r, &spec, options->rank, error);
    if (status == PGR_OK)
        status = pgr_groups_check(r, error);
    r->gpus_per_node = spec.cluster.gpus_per_node;
    r->nvlink_domain = spec.cluster.nvlink_domain;
    pgr_spec_free(&spec);
    return status;
}

pgr_status pgr_command_groups(const pgr_options *options, FILE *out, pgr_error *error) {
    pgr_groups groups = {.rank = PGR_NIL};
    pgr_status status = check_usage(options, &groups.format, error);
    groups.summary = options->summary;
    if (status == PGR_OK)
        status = prepare(options, &groups, error);
    return status == PGR_OK ? pgr_groups_print(&groups, out, error) : status;
}
