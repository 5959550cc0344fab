/* groups_print.c - what the formats of `pgrun groups` share, and which of them is printed. The
 * output of a million ranks is a hundred megabytes, so nothing is kept per rank. */
#include "groups_format.h"

#include <errno.h>
#include <inttypes.h>

/* ---- walking ranks ---- */

pgr_odometer pgr_odometer_over(const pgr_digit *digits, int32_t count) {
    pgr_odometer o = {.value = 0, .count = count};
    for (int32_t i = 0; i < count; i++) {
        o.wheels[i].at = 0;
        o.wheels[i].size = digits[i].size;
        o.wheels[i].stride = digits[i].stride;
    }
    return o;
}

/* ---- names ---- */

int pgr_groups_view_axes(const pgr_plan *plan, int32_t view, const char *names[PGR_AXES_MAX]) {
    static const char *const usual[] = {"tp", "cp", "dp", "etp", "ep", "edp", "pp"};
    const pgr_view *v = &plan->views[view];
    int count = 0;
    for (size_t i = 0; i < sizeof usual / sizeof usual[0] && !plan->general; i++)
        for (int32_t a = 0; a < v->axis_count; a++)
            if (strcmp(v->axes[a].name, usual[i]) == 0)
                names[count++] = v->axes[a].name;
    for (int32_t a = 0; a < v->axis_count && plan->general; a++)
        names[count++] = v->axes[a].name;
    return count;
}

int pgr_groups_all_axes(const pgr_plan *plan, const char *names[PGR_VIEWS_MAX * PGR_AXES_MAX]) {
    int count = 0;
    for (int32_t view = 0; view < plan->view_count; view++) {
        const char *of_view[PGR_AXES_MAX];
        int more = pgr_groups_view_axes(plan, view, of_view);
        for (int i = 0; i < more; i++) {
            bool told = false;
            for (int j = 0; j < count; j++)
                told = told || strcmp(names[j], of_view[i]) == 0;
            if (!told)
                names[count++] = of_view[i];
        }
    }
    return count;
}

const char *pgr_groups_megatron_name(const pgr_plan *plan, const pgr_family *family) {
    static const char *const names[][2] = {
        {"tp", "tensor model parallel"},
        {"cp", "context parallel"},
        {"dp", "data parallel"},
        {"dp-cp", "data parallel with CP"},
        {"pp", "pipeline model parallel"},
        {"tp-pp", "model parallel"},
        {"tp-cp", "tensor and context parallel"},
        {"tp-dp", "tensor and data parallel"},
        {"tp-dp-cp", "tensor, data and context"},
        {"ep", "expert model parallel"},
        {"etp", "expert tensor parallel"},
        {"etp-ep", "expert tensor and model"},
        {"etp-ep-pp", "expert tensor, model, pipeline"},
        {"edp", "expert data parallel"},
        {"embedding", "embedding"},
        {"position-embedding", "position embedding"},
        {"optimizer-instance", "intra optimizer instance"},
        {"dp-cp/intra", "intra partial data with CP"},
        {"edp/intra", "intra partial expert data"},
        {"edp/inter", "inter partial expert data"},
    };
    if (strncmp(family->name, "cp/", 3) == 0)
        return "hierarchical context parallel";
    if (strncmp(family->name, "dp-cp/hybrid", 12) == 0)
        return "hybrid data and context";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        pgr_family known;
        if (strcmp(names[i][0], family->name) == 0)
            return names[i][1];
        if (family->whole_axes && pgr_plan_family_find(plan, names[i][0], &known, NULL) == PGR_OK &&
            pgr_family_is(&known, family))
            return names[i][1];
    }
    return "-";
}

void pgr_groups_write_axes(pgr_writer *w, const pgr_plan *plan, const char *const names[],
                           int count, int64_t rank) {
    for (int i = 0; i < count; i++) {
        int64_t number = rank == PGR_NIL ? pgr_plan_axis_size(plan, names[i])
                                         : pgr_plan_coordinate(plan, names[i], rank);
        pgr_writer_format(w, "%s%s %" PRId64, i == 0 ? "" : ", ", names[i], number);
    }
}

/* ---- pictures ---- */

pgr_nodes pgr_groups_nodes(const pgr_groups *g) {
    bool given = g->gpus_per_node > 0;
    pgr_nodes nodes = {.gpus = given ? g->gpus_per_node : PGR_GPUS_ASSUMED, .assumed = !given};
    nodes.first = g->plan.rank_offset / nodes.gpus;
    nodes.count = (g->plan.rank_offset + (g->plan.world_size - 1)) / nodes.gpus - nodes.first + 1;
    int64_t before = g->plan.rank_offset % nodes.gpus; /* positions of the first node */
    bool part = g->plan.world_size < nodes.gpus - before;
    nodes.columns = part ? before + g->plan.world_size : nodes.gpus;
    return nodes;
}

const pgr_family *pgr_groups_default_family(const pgr_groups *g) {
    for (int32_t i = 0; i < g->family_count; i++)
        if (g->families[i].size > 1 && g->families[i].count > 1)
            return &g->families[i];
    for (int32_t i = 0; i < g->family_count; i++)
        if (g->families[i].size > 1)
            return &g->families[i];
    return &g->families[0];
}

/* ---- any of them ---- */

pgr_status pgr_groups_check(const pgr_groups *g, pgr_error *error) {
    int64_t panels = g->families_named ? g->family_count : 1;
    if (g->format != PGR_GROUPS_SVG || g->plan.world_size <= PGR_GROUPS_CELLS_MAX / panels)
        return PGR_OK;
    if (panels == 1) {
        return pgr_error_set(error, PGR_LIMIT,
                             "--format svg draws at most %d ranks, not %" PRId64
                             "; take a smaller --world-size, or --summary, or --format csv",
                             PGR_GROUPS_CELLS_MAX, g->plan.world_size);
    }
    return pgr_error_set(error, PGR_LIMIT,
                         "--format svg draws at most %d cells, not %" PRId64 " families of %" PRId64
                         " ranks; take fewer families, a smaller --world-size, or --format csv",
                         PGR_GROUPS_CELLS_MAX, panels, g->plan.world_size);
}

static void (*format_of(const pgr_groups *g))(pgr_writer *, const pgr_groups *) {
    if (g->summary)
        return pgr_groups_write_summary;
    switch (g->format) {
    case PGR_GROUPS_JSON:
        return pgr_groups_write_json;
    case PGR_GROUPS_CSV:
        return pgr_groups_write_csv;
    case PGR_GROUPS_SVG:
        return pgr_groups_write_svg;
    default:
        return pgr_groups_write_text;
    }
}

pgr_status pgr_groups_print(const pgr_groups *groups, FILE *out, pgr_error *error) {
    pgr_writer w;
    w.out = out;
    w.failed = 0;
    w.used = 0;
    format_of(groups)(&w, groups);
    pgr_writer_flush(&w);
    if (w.failed == 0 && fflush(out) != 0)
        w.failed = errno;
    if (w.failed != 0)
        return pgr_error_set(error, PGR_SYSTEM, "cannot write the groups: %s", strerror(w.failed));
    return PGR_OK;
}
