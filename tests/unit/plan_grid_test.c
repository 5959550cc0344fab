/* plan_grid_test.c - the general form: its refusals, and that the short form is a front end to it.
 */
#include "check.h"
#include "draw.h"
#include "plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- writing a grid as text: "tp 2, mine 4, dp" ---- */

static void read_grid(const char *text, pgr_grid *grid) {
    grid->axes = calloc(20, sizeof *grid->axes);
    grid->count = 0;
    while (*text != '\0') {
        pgr_grid_axis *axis = &grid->axes[grid->count++];
        size_t length = strcspn(text, " ,");
        snprintf(axis->name, sizeof axis->name, "%.*s", (int)length, text);
        text += length;
        axis->size = *text == ' ' ? strtoll(text, (char **)&text, 10) : PGR_NIL;
        text += strspn(text, ", ");
    }
}

static void read_form(pgr_spec *spec, int64_t world, const char *grid, const char *first,
                      const char *second) {
    const char *const texts[] = {first, second};
    static const char *const names[] = {"expert", "other"};
    pgr_spec_init(spec);
    spec->world_size = world;
    read_grid(grid, &spec->parallel.grid);
    spec->parallel.views.items = calloc(2, sizeof *spec->parallel.views.items);
    for (int i = 0; i < 2 && texts[i] != NULL; i++) {
        pgr_grid_view *view = &spec->parallel.views.items[spec->parallel.views.count++];
        snprintf(view->name, sizeof view->name, "%s", names[i]);
        read_grid(texts[i], &view->grid);
    }
}

/* ---- what is made ---- */

static const struct {
    int64_t world;
    const char *grid, *expert;
    const char *family;
    int64_t size, count, first, second; /* the first two members of group 0 */
    int64_t whole;                      /* the world that is assumed or given */
} made[] = {
    {24, "tp 2, mine 3, dp", NULL, "mine", 3, 8, 0, 2, 24},
    {24, "tp 2, mine 3, dp", NULL, "dp-tp", 8, 3, 0, 1, 24},
    {24, "mine, tp 2", NULL, "mine", 12, 2, 0, 1, 24},
    {PGR_NIL, "tp 2, mine 3, dp", NULL, "mine", 3, 2, 0, 2, 6},
    {PGR_NIL, "tp 2, mine 3, dp", "ep 4, edp", "ep", 4, 3, 0, 1, 12},
    {PGR_NIL, "tp 2, dp, pp 2", "ep 4, edp, pp", "edp", 1, 8, 0, 0, 8},
    {PGR_NIL, "tp 2, dp, pp 2", "ep 4, edp 3, pp", "edp", 3, 8, 0, 4, 24},
    {16, "tp 2, dp, pp 2", "ep 4, edp, pp 2", "ep-pp", 8, 2, 0, 1, 16},
    {16, "tp 2, dp", "etp 2, ep 4, edp", "etp-ep", 8, 2, 0, 1, 16},
    {16, "tp 2, dp", "ep 4, dp, x", "x", 1, 32, 0, 0, 32},
};

static void grids_make_plans(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof made / sizeof made[0]; i++) {
        pgr_spec spec;
        pgr_plan plan;
        pgr_family family;
        pgr_error error = {0};
        read_form(&spec, made[i].world, made[i].grid, made[i].expert, NULL);
        if (i + 1 == sizeof made / sizeof made[0]) { /* dp, of the grid, is 8 in both: 4 * 8 * x */
            assert_int_equal(pgr_plan_create(&spec, 32, &plan, &error), PGR_INVALID);
            pgr_spec_free(&spec);
            continue;
        }
        if (pgr_plan_create(&spec, PGR_NIL, &plan, &error) != PGR_OK ||
            pgr_plan_family_find(&plan, made[i].family, &family, &error) != PGR_OK)
            fail_msg("%s: %s", made[i].grid, error.message);
        assert_int_equal(plan.world_size, made[i].whole);
        assert_int_equal(plan.world_size_assumed, made[i].world == PGR_NIL);
        assert_int_equal(family.size, made[i].size);
        assert_int_equal(family.count, made[i].count);
        assert_int_equal(pgr_family_member(&family, 0, 0), made[i].first);
        if (family.size > 1)
            assert_int_equal(pgr_family_member(&family, 0, 1), made[i].second);
        pgr_spec_free(&spec);
    }
}

/* Axes of one's own come last among the default families; missing ones of Megatron-Core's are 1. */
static void default_families_of_a_grid(void **state) {
    (void)state;
    static const char *const want[] = {"tp",
                                       "cp",
                                       "dp",
                                       "dp-cp",
                                       "pp",
                                       "tp-pp",
                                       "tp-cp",
                                       "tp-dp",
                                       "tp-dp-cp",
                                       "ep",
                                       "edp",
                                       "embedding",
                                       "position-embedding",
                                       "optimizer-instance",
                                       "mine"};
    pgr_spec spec;
    pgr_plan plan;
    read_form(&spec, 24, "tp 2, mine 3, dp", "ep 4, edp", NULL);
    assert_int_equal(pgr_plan_create(&spec, PGR_NIL, &plan, NULL), PGR_OK);
    assert_int_equal(pgr_plan_family_count(&plan), sizeof want / sizeof want[0]);
    for (int i = 0; i < (int)(sizeof want / sizeof want[0]); i++)
        assert_string_equal(pgr_plan_family_at(&plan, i).name, want[i]);
    assert_int_equal(pgr_plan_axis_size(&plan, "pp"), 1);
    assert_string_equal(plan.order, "tp-mine-dp");
    pgr_plan_name_sizes(&plan, &spec);
    assert_int_equal(spec.parallel.tp, 2);
    assert_int_equal(spec.parallel.ep, 4);
    assert_int_equal(spec.parallel.etp, 1);
    pgr_spec_free(&spec);
}

/* ---- what is refused ---- */

static const struct {
    int64_t world;
    const char *grid, *expert, *other;
    const char *code, *message, *help, *paths;
} refused[] = {
    {12, "tp 8, dp", NULL, NULL, "PG044",
     "world_size = 12 is not divisible by the dense view's tp = 8",
     "the nearest sizes that fit are 8 and 16", "parallel.grid world_size"},
    {12, "tp 2, mine 4", NULL, NULL, "PG044",
     "the dense view's tp * mine = 2 * 4 = 8 make no world of 12", "the size that fits is 8",
     "parallel.grid world_size"},
    {12, "tp 2, dp", "ep 4, edp 4", NULL, "PG044",
     "the expert view's ep * edp = 4 * 4 = 16 make no world of 12", "the size that fits is 16",
     "parallel.views.expert world_size"},
    {12, "tp 2, dp", "ep 8, edp", NULL, "PG044",
     "world_size = 12 is not divisible by the expert view's ep = 8",
     "the nearest sizes that fit are 8 and 16", "parallel.views.expert world_size"},
    {12, "tp 2, dp", "ep, edp", NULL, "PG044", "the expert view has 2 axes without a size",
     "give all sizes but one", "parallel.views.expert"},
    {8, "my-axis 2, dp", NULL, NULL, "PG045", "\"my-axis\" in the dense view is no name of an axis",
     "take letters, digits, _ and ., and no digit first", "parallel.grid"},
    {8, "2d 2, dp", NULL, NULL, "PG045", "\"2d\" in the dense view is no name of an axis",
     "take letters, digits, _ and ., and no digit first", "parallel.grid"},
    {8, "tp 2, tp 2, dp", NULL, NULL, "PG045", "the dense view names \"tp\" twice",
     "name each axis once", "parallel.grid"},
    {8, "embedding 2, dp", NULL, NULL, "PG045",
     "\"embedding\" in the dense view is a word of a family's name", "take another name",
     "parallel.grid"},
    {8, "a 1, b 1, c 1, d 1, e 1, f 1, g 1, h 1, i 1, j 1, k 1, l 1, m", NULL, NULL, "PG045",
     "the dense view has 13 axes, and at most 12 are taken", "join axes that no group tells apart",
     "parallel.grid"},
    {16, "tp 2, pp 2, dp", "ep 4, pp, edp", NULL, "PG046",
     "axis \"pp\" is 2 ranks that lie 2 apart in the dense view, and 2 ranks that lie 4 apart in "
     "the expert view",
     "give it one size, and before it axes of one product in both; or another name in one of them",
     "parallel.grid parallel.views.expert"},
    {16, "tp 2, dp", "ep 4, x 2, y", "ep 2, z", "PG046",
     "axis \"ep\" is 4 ranks that lie 1 apart in the expert view, and 2 ranks that lie 1 apart in "
     "the other view",
     "give it one size, and before it axes of one product in both; or another name in one of them",
     "parallel.views.expert parallel.views.other"},
    {0, "tp 2, dp", NULL, NULL, "PG019", "world_size = 0 must be at least 1", "", "world_size"},
};

static void grids_are_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        pgr_spec spec;
        pgr_plan plan;
        pgr_diagnostics found = {0};
        char paths[400] = "";
        read_form(&spec, refused[i].world, refused[i].grid, refused[i].expert, refused[i].other);
        assert_int_equal(pgr_plan_check(&spec, PGR_NIL, &plan, &found), PGR_INVALID);
        if (found.count != 1)
            fail_msg("%s: %s; %s", refused[i].grid, found.items[0].message, found.items[1].message);
        for (int32_t p = 0; p < found.items[0].path_count; p++) {
            strcat(paths, p == 0 ? "" : " ");
            strcat(paths, found.items[0].paths[p]);
        }
        assert_string_equal(found.items[0].rule->code, refused[i].code);
        assert_string_equal(found.items[0].message, refused[i].message);
        assert_string_equal(found.items[0].help, refused[i].help);
        assert_string_equal(paths, refused[i].paths);
        pgr_diagnostics_free(&found);
        pgr_spec_free(&spec);
    }
}

/* The rules of parts of groups hold in a grid, too. */
static void parts_are_refused(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_plan plan;
    pgr_diagnostics found = {0};
    read_form(&spec, 18, "tp 2, cp 3, dp", NULL, NULL);
    spec.parallel.vpp = 2;
    spec.parallel.pp_split = 1;
    spec.parallel.hybrid_cp = true;
    spec.parallel.optimizer_instances = 2;
    spec.parallel.hierarchical_cp = (pgr_list){1, calloc(1, sizeof(int64_t))};
    spec.parallel.hierarchical_cp.items[0] = 2;
    assert_int_equal(pgr_plan_check(&spec, PGR_NIL, &plan, &found), PGR_INVALID);
    static const char *const codes[] = {"PG017", "PG025", "PG027", "PG028", "PG048"};
    assert_int_equal(found.count, 5);
    for (int i = 0; i < 5; i++)
        assert_string_equal(found.items[i].rule->code, codes[i]);
    pgr_diagnostics_free(&found);
    pgr_spec_free(&spec);
}

/* A world that makes the sizes and then breaks PG028 or PG048 is told with what it needs besides.
 */
static void worlds_that_need_more(void **state) {
    (void)state;
    static const struct {
        const char *grid;
        int64_t instances;
        bool hybrid_cp;
        const char *help;
    } cases[] = {
        {"mine 8", 2, false, "the size that fits is 8, with optimizer_instances = 1"},
        {"mine 8", 1, true, "the size that fits is 8, without hybrid_cp"},
        {"mine 8, dp 2", 3, true, "the size that fits is 16, with optimizer_instances = 1"},
        {"mine 8, dp 3", 3, true, "the size that fits is 24, without hybrid_cp"},
        {"mine, tp 7", 2, true,
         "the nearest size that fits is 7, with optimizer_instances = 1 and without hybrid_cp"},
        {"tp 7, dp", 2, true, "the nearest size that fits is 14"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pgr_spec spec;
        pgr_plan plan;
        pgr_diagnostics found = {0};
        read_form(&spec, 10, cases[i].grid, NULL, NULL);
        spec.parallel.optimizer_instances = cases[i].instances;
        spec.parallel.hybrid_cp = cases[i].hybrid_cp;
        assert_int_equal(pgr_plan_check(&spec, PGR_NIL, &plan, &found), PGR_INVALID);
        assert_int_equal(found.count, 1);
        assert_string_equal(found.items[0].rule->code, "PG044");
        assert_string_equal(found.items[0].help, cases[i].help);
        pgr_diagnostics_free(&found);
        pgr_spec_free(&spec);
    }
}

/* Products beyond 63 bits, of the sizes and with rank_offset. */
static void sizes_that_do_not_fit(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_plan plan;
    read_form(&spec, 8, "a 1099511627776, b 1099511627776, dp", NULL, NULL);
    assert_int_equal(pgr_plan_create(&spec, PGR_NIL, &plan, NULL), PGR_LIMIT);
    assert_int_equal(pgr_plan_create(&spec, INT64_MAX, &plan, NULL), PGR_LIMIT);
    pgr_spec_free(&spec);
    read_form(&spec, INT64_C(1) << 62, "a 1099511627776, dp", NULL, NULL);
    assert_int_equal(pgr_plan_create(&spec, PGR_NIL, &plan, NULL), PGR_OK);
    assert_int_equal(pgr_plan_axis_size(&plan, "dp"), 1 << 22);
    spec.parallel.rank_offset = INT64_MAX - 1;
    assert_int_equal(pgr_plan_create(&spec, PGR_NIL, &plan, NULL), PGR_LIMIT);
    pgr_spec_free(&spec);
}

static void views_need_a_grid(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_plan plan;
    pgr_diagnostics found = {0};
    pgr_spec_init(&spec);
    spec.parallel.views.items = calloc(1, sizeof *spec.parallel.views.items);
    spec.parallel.views.count = 1;
    assert_int_equal(pgr_plan_check(&spec, 8, &plan, &found), PGR_INVALID);
    assert_string_equal(found.items[0].rule->code, "PG047");
    pgr_diagnostics_free(&found);
    pgr_spec_free(&spec);
}

/* ---- the short form is a front end ---- */

/* The grid that says what the plan of the short form has; one size is left to be inferred. */
static void write_view(const pgr_view *view, int64_t open, pgr_grid *grid) {
    grid->axes = calloc((size_t)view->axis_count, sizeof *grid->axes);
    for (int32_t i = 0; i < view->axis_count; i++) {
        pgr_grid_axis *axis = &grid->axes[grid->count++];
        memcpy(axis->name, view->axes[i].name, sizeof axis->name);
        axis->size = i == open ? PGR_NIL : view->axes[i].size;
    }
}

static void draw_short_form(pgr_spec *spec) {
    static const char *const orders[] = {"tp-cp-ep-dp-pp", "tp-cp-pp-ep-dp", "dp-tp-ep-cp-pp",
                                         "cp-tp-dp-ep-pp", "tp-pp-dp-cp-ep"};
    pgr_spec_init(spec);
    spec->parallel.tp = 1 + draw(3);
    spec->parallel.cp = 1 + draw(3);
    spec->parallel.pp = 1 + draw(3);
    spec->parallel.ep = 1 + draw(4);
    spec->parallel.etp = 1 + draw(3);
    spec->parallel.hybrid_cp = draw(2) == 0;
    spec->parallel.optimizer_instances = 1 + draw(2);
    spec->world_size = (1 + draw(20)) * spec->parallel.tp * spec->parallel.cp * spec->parallel.pp;
    snprintf(spec->parallel.order, sizeof spec->parallel.order, "%s", orders[draw(5)]);
}

static void the_short_form_is_a_front_end(void **state) {
    (void)state;
    int compared = 0;
    generator_state = 7;
    while (compared < 300) {
        pgr_spec brief, spec;
        pgr_plan plan, grid;
        pgr_error error = {0};
        draw_short_form(&brief);
        if (pgr_plan_create(&brief, PGR_NIL, &plan, NULL) != PGR_OK) {
            pgr_spec_free(&brief);
            continue;
        }
        read_form(&spec, brief.world_size, "", "", NULL);
        free(spec.parallel.grid.axes);
        free(spec.parallel.views.items[0].grid.axes);
        spec.parallel.grid = spec.parallel.views.items[0].grid = (pgr_grid){0, NULL};
        spec.parallel.hybrid_cp = brief.parallel.hybrid_cp;
        spec.parallel.optimizer_instances = brief.parallel.optimizer_instances;
        write_view(&plan.views[PGR_VIEW_DENSE], draw(5), &spec.parallel.grid);
        write_view(&plan.views[PGR_VIEW_EXPERT], draw(5), &spec.parallel.views.items[0].grid);
        if (pgr_plan_create(&spec, PGR_NIL, &grid, &error) != PGR_OK)
            fail_msg("%s: %s", plan.order, error.message);
        assert_int_equal(pgr_plan_family_count(&grid), pgr_plan_family_count(&plan));
        for (int32_t i = 0; i < pgr_plan_family_count(&plan); i++) {
            pgr_family a = pgr_plan_family_at(&plan, i), b = pgr_plan_family_at(&grid, i);
            assert_string_equal(a.name, b.name);
            assert_true(pgr_family_same(&a, &b));
            for (int64_t g = 0; g < a.count; g++)
                assert_int_equal(pgr_family_member(&a, g, 0), pgr_family_member(&b, g, 0));
        }
        compared++;
        pgr_spec_free(&brief);
        pgr_spec_free(&spec);
    }
}

/* dp of a view that is not the grid: its ranks are shared out, with cp where the view has that. */
static void data_parallel_of_another_view(void **state) {
    (void)state;
    static const struct {
        const char *grid, *expert, *other;
        int64_t size; /* of a hybrid group's whole; 0: refused */
    } cases[] = {
        {"x 8", "dp 8", NULL, 8},          {"x 8", "cp 2, dp", NULL, 8},
        {"x 2, cp 4", "dp, y 2", NULL, 4}, {"cp 8", "dp 1, y", NULL, 0},
        {"x 8", "dp 4, y 2", "cp 8", 4},   {"x 8", "dp 4, y 2", "ep 8, edp 1", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pgr_spec spec;
        pgr_plan plan;
        pgr_family hybrid, instance;
        pgr_error error = {0};
        read_form(&spec, 8, cases[i].grid, cases[i].expert, cases[i].other);
        spec.parallel.hybrid_cp = true;
        spec.parallel.optimizer_instances = 2;
        pgr_status status = pgr_plan_create(&spec, PGR_NIL, &plan, &error);
        if (status != (cases[i].size == 0 ? PGR_INVALID : PGR_OK))
            fail_msg("%s and %s: %s", cases[i].grid, cases[i].expert, error.message);
        if (status == PGR_OK) {
            assert_int_equal(pgr_plan_family_find(&plan, "dp-cp/hybrid2", &hybrid, &error), PGR_OK);
            assert_int_equal(hybrid.size, 2);
            assert_int_equal(pgr_plan_family_find(&plan, "optimizer-instance", &instance, &error),
                             PGR_OK);
            assert_int_equal(instance.count, 2);
            assert_int_equal(pgr_plan_family_find(&plan, "dp-cp/intra", &instance, &error), PGR_OK);
            assert_int_equal(instance.size, cases[i].size / 2);
        }
        pgr_spec_free(&spec);
    }
}

/* A spec from C can have sizes that no config has. */
static void sizes_below_one_in_a_grid(void **state) {
    (void)state;
    const int64_t sizes[] = {0, -1, -INT64_MAX};
    for (int i = 0; i < 3; i++) {
        pgr_spec spec;
        pgr_plan plan;
        pgr_error error = {0};
        read_form(&spec, 8, "x, y 2", "z 8", NULL);
        spec.parallel.grid.axes[1].size = sizes[i];
        assert_int_equal(pgr_plan_create(&spec, INT64_MAX, &plan, &error), PGR_INVALID);
        assert_non_null(strstr(error.message, " in the dense view must be at least 1"));
        pgr_spec_free(&spec);
    }
}

/* The rules of the model's shapes read the grid's sizes, and tell its axes. */
static void shapes_are_checked_over_the_grid(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_diagnostics found = {0};
    int64_t world;
    read_form(&spec, 12, "mine 4, tp 3, dp", NULL, NULL);
    spec.has_model = true;
    spec.model.heads = 52;
    pgr_check(&spec, PGR_NIL, &world, &found);
    assert_int_equal(world, 12);
    assert_true(found.count >= 1);
    assert_string_equal(found.items[0].rule->code, "PG012");
    assert_string_equal(found.items[0].message, "tp = 3 does not divide heads = 52");
    assert_string_equal(found.items[0].paths[0], "parallel.grid[2]");
    pgr_diagnostics_free(&found);
    pgr_spec_free(&spec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grids_make_plans),
        cmocka_unit_test(default_families_of_a_grid),
        cmocka_unit_test(grids_are_refused),
        cmocka_unit_test(parts_are_refused),
        cmocka_unit_test(worlds_that_need_more),
        cmocka_unit_test(sizes_that_do_not_fit),
        cmocka_unit_test(views_need_a_grid),
        cmocka_unit_test(the_short_form_is_a_front_end),
        cmocka_unit_test(data_parallel_of_another_view),
        cmocka_unit_test(sizes_below_one_in_a_grid),
        cmocka_unit_test(shapes_are_checked_over_the_grid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
