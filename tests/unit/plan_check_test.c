/* plan_check_test - each refusal as a finding: its code, the keys that contribute, its way out; and
 * the old message is the findings' text, a line each. */
#include "plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* A layout with zeros for what is left at its default, and its only finding. */
typedef struct row {
    const char *name;
    int64_t world, tp, cp, pp, ep, etp, dp, vpp, rank_offset;
    const char *order;
    const char *code, *paths, *message, *help;
} row;

static const row rows[] = {
    {.name = "world by tp * cp * pp",
     .world = 100,
     .tp = 8,
     .pp = 2,
     .code = "PG010",
     .paths = "world_size parallel.tp parallel.cp parallel.pp",
     .message = "world_size = 100 is not divisible by tp * cp * pp = 8 * 1 * 2 = 16",
     .help = "the nearest sizes that fit are 96 and 112; or, in a world of 100, tp can be 5 or 10"},
    {.name = "world by tp * cp * pp, of a given dp",
     .world = 100,
     .tp = 8,
     .pp = 2,
     .dp = 4,
     .code = "PG010",
     .paths = "world_size parallel.tp parallel.cp parallel.pp",
     .message = "world_size = 100 is not divisible by tp * cp * pp = 8 * 1 * 2 = 16",
     .help = "the size that fits dp = 4 is 64"},
    {.name = "world by etp * ep * pp",
     .world = 12,
     .tp = 2,
     .ep = 8,
     .etp = 1,
     .code = "PG011",
     .paths = "world_size parallel.etp parallel.ep parallel.pp",
     .message = "world_size = 12 is not divisible by etp * ep * pp = 1 * 8 * 1 = 8",
     .help = "the nearest sizes that fit are 8 and 16; or, in a world of 12, ep can be 6 or 12 (ep "
             "divides the data-parallel ranks and is no factor of the world)"},
    {.name = "etp from tp",
     .world = 12,
     .tp = 2,
     .ep = 4,
     .code = "PG011",
     .paths = "world_size parallel.tp parallel.ep parallel.pp",
     .message = "world_size = 12 is not divisible by etp * ep * pp = 2 * 4 * 1 = 8",
     .help = "take etp = 1; or, the nearest sizes that fit are 8 and 16; or, in a world of 12, tp "
             "can be 1 or 3, or "
             "ep can be 3 or 6 (ep divides the data-parallel ranks and is no factor of the world)"},
    {.name = "an unknown axis",
     .world = 4,
     .order = "tp-sp-dp",
     .code = "PG013",
     .paths = "parallel.order",
     .message = "order = \"tp-sp-dp\" has the unknown axis \"sp\"",
     .help = "its axes are tp, cp, ep, dp and pp, as in order = \"tp-dp\""},
    {.name = "the expert view's name of an axis",
     .world = 4,
     .order = "tp-edp",
     .code = "PG013",
     .paths = "parallel.order",
     .message = "order = \"tp-edp\" has the unknown axis \"edp\"",
     .help = "name it \"dp\", which the expert view reads so, as in order = \"tp-dp\""},
    {.name = "an axis twice",
     .world = 4,
     .order = "tp-dp-tp",
     .code = "PG013",
     .paths = "parallel.order",
     .message = "order = \"tp-dp-tp\" names \"tp\" twice",
     .help = "name each axis once, as in order = \"tp-dp\""},
    {.name = "an axis that order leaves out",
     .world = 4,
     .cp = 2,
     .etp = 1,
     .order = "tp-ep-dp-pp",
     .code = "PG014",
     .paths = "parallel.order parallel.cp",
     .message = "cp = 2 is missing from order = \"tp-ep-dp-pp\"",
     .help = "add \"cp\", as in order = \"tp-cp-ep-dp-pp\""},
    {.name = "a derived axis that order leaves out",
     .world = 4,
     .cp = 2,
     .ep = 4,
     .order = "tp-cp-ep-pp",
     .code = "PG014",
     .paths = "parallel.order world_size parallel.tp parallel.cp parallel.pp",
     .message = "dp = 2 is missing from order = \"tp-cp-ep-pp\"",
     .help = "add \"dp\", as in order = \"tp-cp-ep-dp-pp\""},
    {.name = "a given axis that order leaves out",
     .world = 4,
     .cp = 2,
     .ep = 4,
     .dp = 2,
     .order = "tp-cp-ep-pp",
     .code = "PG014",
     .paths = "parallel.order parallel.dp world_size parallel.tp parallel.cp parallel.pp",
     .message = "dp = 2 is missing from order = \"tp-cp-ep-pp\"",
     .help = "add \"dp\", as in order = \"tp-cp-ep-dp-pp\""},
    {.name = "edp that order leaves out",
     .world = 4,
     .cp = 4,
     .ep = 2,
     .order = "tp-cp-ep-pp",
     .code = "PG014",
     .paths = "parallel.order world_size parallel.tp parallel.ep parallel.pp",
     .message = "edp = 2 is missing from order = \"tp-cp-ep-pp\"",
     .help = "add \"dp\", which the expert view reads so, as in order = \"tp-cp-ep-dp-pp\""},
    {.name = "views that disagree on pp",
     .world = 32,
     .tp = 2,
     .cp = 2,
     .pp = 4,
     .etp = 4,
     .order = "tp-ep-dp-pp-cp",
     .code = "PG015",
     .paths = "parallel.order parallel.pp parallel.tp parallel.cp parallel.etp parallel.ep",
     .message = "the pp groups of the dense and the expert view differ: with order = "
                "\"tp-ep-dp-pp-cp\" and pp = 4 the first ones begin 0, 4 and 0, 8",
     .help = "put pp last (\"tp-ep-dp-cp-pp\")"},
    {.name = "edp is not dp where pp is not last",
     .world = 16,
     .tp = 2,
     .pp = 2,
     .ep = 2,
     .order = "tp-pp-cp-ep-dp",
     .code = "PG016",
     .paths = "parallel.order parallel.pp parallel.tp parallel.cp parallel.ep",
     .message = "dp = 4 and edp = 2 differ while pp = 2 is not last in order = "
                "\"tp-pp-cp-ep-dp\"",
     .help = "put pp last (\"tp-cp-ep-dp-pp\"), or take ep = 1"},
    {.name = "vpp without pp",
     .world = 8,
     .vpp = 2,
     .code = "PG017",
     .paths = "parallel.vpp parallel.pp",
     .message = "vpp = 2 needs pp greater than 1, and pp = 1",
     .help = "leave vpp out, or take pp = 2"},
    {.name = "a dp that is not the derived one",
     .world = 8,
     .tp = 2,
     .dp = 2,
     .code = "PG018",
     .paths = "parallel.dp world_size parallel.tp parallel.cp parallel.pp",
     .message = "dp = 2 was given, but world_size = 8 over tp * cp * pp = 2 makes dp = 4",
     .help =
         "take dp = 4, or leave dp out, or take world_size = 4; or, in a world of 8, tp can be 4"},
    {.name = "ep multiplied into the world",
     .world = 32,
     .tp = 2,
     .pp = 2,
     .ep = 4,
     .etp = 1,
     .dp = 2,
     .code = "PG018",
     .paths = "parallel.dp world_size parallel.tp parallel.cp parallel.pp",
     .message = "dp = 2 was given, but world_size = 32 over tp * cp * pp = 4 makes dp = 8",
     .help = "take dp = 8, or leave dp out, or take world_size = 8; or, in a world of 32, tp can "
             "be 8, or pp can be 8 (ep divides the data-parallel ranks and is no factor of the "
             "world)"},
    {.name = "a size below one",
     .world = 8,
     .cp = -1,
     .code = "PG019",
     .paths = "parallel.cp",
     .message = "cp = -1 must be at least 1",
     .help = ""},
    {.name = "a dense product over 63 bits",
     .world = 8,
     .tp = INT64_C(1) << 40,
     .cp = INT64_C(1) << 40,
     .etp = 1,
     .code = "PG019",
     .paths = "parallel.tp parallel.cp parallel.pp",
     .message = "tp * cp * pp = 1099511627776 * 1099511627776 * 1 does not fit in 63 bits",
     .help = "take smaller sizes"},
    {.name = "ranks over 63 bits",
     .world = 8,
     .rank_offset = INT64_MAX - 7,
     .code = "PG019",
     .paths = "parallel.rank_offset world_size",
     .message = "rank_offset = 9223372036854775800 and world_size = 8 give ranks that do not fit "
                "in 63 bits",
     .help = "rank_offset can be at most 9223372036854775799"},
};

static void set(int64_t *field, int64_t value) {
    if (value != 0)
        *field = value;
}

static void spec_of(const row *r, pgr_spec *spec) {
    pgr_spec_init(spec);
    set(&spec->world_size, r->world);
    set(&spec->parallel.tp, r->tp);
    set(&spec->parallel.cp, r->cp);
    set(&spec->parallel.pp, r->pp);
    set(&spec->parallel.ep, r->ep);
    set(&spec->parallel.etp, r->etp);
    set(&spec->parallel.dp, r->dp);
    set(&spec->parallel.vpp, r->vpp);
    set(&spec->parallel.rank_offset, r->rank_offset);
    if (r->order)
        snprintf(spec->parallel.order, sizeof spec->parallel.order, "%s", r->order);
}

static void join_paths(const pgr_diagnostic *finding, char *out, size_t bytes) {
    size_t used = 0;
    out[0] = '\0';
    for (int32_t i = 0; i < finding->path_count; i++)
        used += (size_t)snprintf(out + used, bytes - used, "%s%s", i ? " " : "", finding->paths[i]);
}

static void every_code(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const row *r = &rows[i];
        char paths[PGR_DIAGNOSTIC_PATHS * PGR_PATH_MAX], line[1200];
        pgr_spec spec;
        pgr_plan plan, before;
        pgr_diagnostics found = {0};
        pgr_error error = {0};
        spec_of(r, &spec);
        pgr_status status = pgr_plan_check(&spec, PGR_NIL, &plan, &found);
        if (found.count != 1)
            fail_msg("%s: %lld findings", r->name, (long long)found.count);
        const pgr_diagnostic *finding = &found.items[0];
        join_paths(finding, paths, sizeof paths);
        if (!finding->rule || strcmp(finding->rule->code, r->code) || strcmp(paths, r->paths) ||
            strcmp(finding->message, r->message) || strcmp(finding->help, r->help))
            fail_msg("%s:\ngot %s at %s: %s; %s\nexpected %s at %s: %s; %s", r->name,
                     finding->rule ? finding->rule->code : "no rule", paths, finding->message,
                     finding->help, r->code, r->paths, r->message, r->help);
        assert_int_equal(finding->severity, PGR_ERROR);
        assert_false(finding->at_key);
        memset(&plan, 0x5a, sizeof plan);
        before = plan;
        snprintf(line, sizeof line, "%s%s%s", r->message, r->help[0] ? "; " : "", r->help);
        assert_int_equal(pgr_plan_create(&spec, PGR_NIL, &plan, &error), status);
        assert_memory_equal(&plan, &before, sizeof plan);
        assert_string_equal(error.message, line);
        pgr_diagnostics_free(&found);
        pgr_spec_free(&spec);
    }
}

/* All refusals at once, behind what is in the list already. */
static void several_are_added(void **state) {
    (void)state;
    static const char *const codes[] = {"PG005", "PG013", "PG010", "PG017"};
    const row several = {.world = 9, .tp = 2, .etp = 3, .vpp = 2, .order = "tp-dp-dp"};
    pgr_spec spec;
    pgr_plan plan;
    pgr_diagnostics found = {0};
    spec_of(&several, &spec);
    pgr_diagnose(&found, "PG005", "model.hidden", NULL, "an earlier one");
    assert_int_equal(pgr_plan_check(&spec, PGR_NIL, &plan, &found), PGR_INVALID);
    assert_int_equal(found.count, 4);
    for (int i = 0; i < 4; i++)
        assert_string_equal(found.items[i].rule->code, codes[i]);
    pgr_diagnostics_free(&found);
    pgr_spec_free(&spec);
}

/* edp is not dp, and the views cut other pipelines: two rules, and one way out of both. */
static void two_rules_of_pp(void **state) {
    (void)state;
    const row both = {.world = 16, .tp = 2, .etp = 1, .ep = 4, .pp = 2, .order = "tp-pp-ep-dp"};
    const char *help = "put pp last (\"tp-ep-dp-pp\"), or take etp = 2 and ep = 1";
    pgr_spec spec;
    pgr_plan plan;
    pgr_diagnostics found = {0};
    spec_of(&both, &spec);
    assert_int_equal(pgr_plan_check(&spec, PGR_NIL, &plan, &found), PGR_INVALID);
    assert_int_equal(found.count, 2);
    assert_string_equal(found.items[0].rule->code, "PG016");
    assert_string_equal(found.items[1].rule->code, "PG015");
    assert_string_equal(found.items[0].help, help);
    assert_string_equal(found.items[1].help, help);
    pgr_diagnostics_free(&found);
    pgr_spec_free(&spec);
}

/* What is known of a refused layout is in the plan, and 0 is what is not. */
static void what_is_known_is_kept(void **state) {
    (void)state;
    static const struct {
        row layout;
        int64_t dp, edp, pp_stride;
    } known[] = {{{.world = 12, .tp = 2, .vpp = 2}, 6, 6, 12},
                 {{.world = 12, .tp = 2, .ep = 8, .etp = 1}, 6, 0, 12},
                 {{.world = 10, .tp = 4, .etp = 1, .ep = 5}, 0, 2, 0},
                 {{.world = 100, .tp = 8, .pp = 2, .dp = 4}, 4, 4, 32},
                 {{.world = 16, .tp = 2, .dp = 4}, 8, 8, 16},
                 {{.world = 16, .tp = 2, .cp = 2, .order = "tp-dp-pp"}, 4, 8, 0},
                 {{.tp = INT64_C(1) << 40, .cp = INT64_C(1) << 40, .etp = 1}, 0, 0, 0}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        pgr_spec spec;
        pgr_plan plan;
        pgr_diagnostics found = {0};
        spec_of(&known[i].layout, &spec);
        assert_int_not_equal(pgr_plan_check(&spec, PGR_NIL, &plan, &found), PGR_OK);
        const pgr_view *dense = &plan.views[PGR_VIEW_DENSE];
        int64_t stride = dense->axes[dense->axis_count - 1].stride;
        if (pgr_plan_axis_size(&plan, "dp") != known[i].dp ||
            pgr_plan_axis_size(&plan, "edp") != known[i].edp || stride != known[i].pp_stride)
            fail_msg("row %zu: dp = %lld, edp = %lld, pp is %lld apart", i,
                     (long long)pgr_plan_axis_size(&plan, "dp"),
                     (long long)pgr_plan_axis_size(&plan, "edp"), (long long)stride);
        pgr_diagnostics_free(&found);
        pgr_spec_free(&spec);
    }
}

static void a_legal_layout_adds_nothing(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_plan plan;
    pgr_diagnostics found = {0};
    pgr_spec_init(&spec);
    spec.parallel.tp = 2;
    assert_int_equal(pgr_plan_check(&spec, 8, &plan, &found), PGR_OK);
    assert_int_equal(found.count, 0);
    assert_int_equal(pgr_plan_axis_size(&plan, "dp"), 4);
    pgr_diagnostics_free(&found);
    pgr_spec_free(&spec);
}

/* What does not fit has another status than what is not legal; the first one counts. */
static void the_status_is_the_first_ones(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_plan plan;
    pgr_diagnostics found = {0};
    pgr_spec_init(&spec);
    spec.parallel.tp = spec.parallel.cp = INT64_C(1) << 40;
    assert_int_equal(pgr_plan_check(&spec, 8, &plan, &found), PGR_LIMIT);
    pgr_diagnostics_free(&found);
    spec.parallel.tp = 0;
    assert_int_equal(pgr_plan_check(&spec, 8, &plan, &found), PGR_INVALID);
    pgr_diagnostics_free(&found);
    pgr_spec_free(&spec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code),
        cmocka_unit_test(several_are_added),
        cmocka_unit_test(two_rules_of_pp),
        cmocka_unit_test(what_is_known_is_kept),
        cmocka_unit_test(a_legal_layout_adds_nothing),
        cmocka_unit_test(the_status_is_the_first_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
