/* plan_test.c - properties of every plan, over random layouts from a fixed seed. */
#include "draw.h"
#include "plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYOUTS = 1000, WORLD_MAX = 128 };

/* Up to three levels whose product is cp. */
static void draw_levels(pgr_spec *spec) {
    int64_t *levels = calloc(3, sizeof *levels), rest = spec->parallel.cp;
    for (int i = 0; i < 2; i++) {
        levels[i] = draw_divisor(rest);
        rest /= levels[i];
    }
    levels[2] = rest;
    spec->parallel.hierarchical_cp = (pgr_list){3, levels};
}

/* A layout whose sizes divide the world; its order may still make it illegal. */
static void draw_spec(pgr_spec *spec) {
    pgr_spec_init(spec);
    int64_t world = 1 + draw(WORLD_MAX), rest = world;
    spec->parallel.pp = draw(2) == 0 ? 1 : draw_divisor(rest);
    rest /= spec->parallel.pp;
    int64_t per_stage = rest;
    spec->parallel.tp = draw_divisor(rest);
    spec->parallel.cp = draw_divisor(rest / spec->parallel.tp);
    spec->parallel.etp = draw_divisor(per_stage);
    spec->parallel.ep = draw_divisor(per_stage / spec->parallel.etp);
    spec->parallel.expert_view = draw(8) != 0;
    spec->world_size = world;
    if (draw(3) == 0)
        spec->parallel.optimizer_instances = 1 + draw(4);
    spec->parallel.hybrid_cp = draw(3) == 0;
    if (spec->parallel.pp > 1 && draw(2) == 0)
        spec->parallel.pp_split = 1 + draw(spec->parallel.pp - 1);
    if (draw(2) == 0)
        draw_levels(spec);
    draw_order(spec->parallel.order);
}

/* Calls `check` on a thousand legal random layouts. */
static void on_random_layouts(void (*check)(const pgr_spec *spec, const pgr_plan *plan)) {
    generator_state = 20240501;
    for (int legal = 0; legal < LAYOUTS;) {
        pgr_spec spec;
        pgr_plan plan;
        draw_spec(&spec);
        if (pgr_plan_create(&spec, PGR_NIL, &plan, NULL) == PGR_OK) {
            check(&spec, &plan);
            legal++;
        }
        pgr_spec_free(&spec);
    }
}

enum { FAMILIES = 48 };

/* The plan's default families and a few that exist only when asked for. */
static int families_of(const pgr_plan *plan, pgr_family families[FAMILIES]) {
    static const char *const more[] = {"cp-tp", "cp-pp",   "pp-dp-tp-cp",
                                       "ep-pp", "edp-etp", "edp-pp"};
    int count = 0;
    for (int32_t i = 0; i < pgr_plan_family_count(plan); i++)
        families[count++] = pgr_plan_family_at(plan, i);
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++)
        if (pgr_plan_family_find(plan, more[i], &families[count], NULL) == PGR_OK)
            count++;
    return count;
}

/* Each rank once, or in no group and told so; groups are numbered and as large as is said. */
static void check_partition(const pgr_spec *spec, const pgr_plan *plan) {
    (void)spec;
    pgr_family families[FAMILIES];
    int count = families_of(plan, families);
    for (int f = 0; f < count; f++) {
        bool seen[WORLD_MAX] = {false};
        for (int64_t group = 0; group < families[f].count; group++) {
            int64_t size = pgr_family_group_size(&families[f], group);
            assert_in_range(size, 1, families[f].size);
            for (int64_t i = 0; i < size; i++) {
                int64_t rank = pgr_family_member(&families[f], group, i);
                assert_in_range(rank, 0, plan->world_size - 1);
                assert_false(seen[rank]);
                seen[rank] = true;
            }
        }
        for (int64_t rank = 0; rank < plan->world_size; rank++) {
            assert_int_equal(pgr_family_group(&families[f], rank) >= 0, seen[rank]);
            assert_int_equal(pgr_family_rank(&families[f], rank) >= 0, seen[rank]);
            assert_true(seen[rank] || families[f].stage_count > 0);
        }
    }
}

static void every_family_is_a_partition(void **state) {
    (void)state;
    on_random_layouts(check_partition);
}

static void check_own_answer(const pgr_spec *spec, const pgr_plan *plan) {
    (void)spec;
    pgr_family families[FAMILIES];
    int count = families_of(plan, families);
    for (int f = 0; f < count; f++) {
        for (int64_t group = 0; group < families[f].count; group++) {
            for (int64_t i = 0; i < pgr_family_group_size(&families[f], group); i++) {
                int64_t rank = pgr_family_member(&families[f], group, i);
                assert_int_equal(pgr_family_group(&families[f], rank), group);
                assert_int_equal(pgr_family_rank(&families[f], rank), i);
            }
        }
    }
}

static void a_ranks_own_answer_is_the_enumerated_one(void **state) {
    (void)state;
    on_random_layouts(check_own_answer);
}

/* The coordinates of a group's members count up with the first axis of the order fastest, and
 * those on every other axis of the view stay. */
static void check_ascending(const pgr_spec *spec, const pgr_plan *plan) {
    (void)spec;
    pgr_family families[FAMILIES];
    int count = families_of(plan, families);
    for (int f = 0; f < count; f++) {
        const pgr_view *view = &plan->views[families[f].view];
        if (!families[f].whole_axes)
            continue;
        for (int64_t group = 0; group < families[f].count; group++) {
            int64_t first = pgr_family_member(&families[f], group, 0), before = -1;
            for (int64_t i = 0; i < families[f].size; i++) {
                int64_t rank = pgr_family_member(&families[f], group, i), rest = i;
                assert_true(rank > before);
                before = rank;
                for (int32_t a = 0; a < view->axis_count; a++) {
                    bool inside = (families[f].mask >> a & 1u) != 0;
                    const char *axis = view->axes[a].name;
                    int64_t want =
                        inside ? rest % view->axes[a].size : pgr_plan_coordinate(plan, axis, first);
                    assert_int_equal(pgr_plan_coordinate(plan, axis, rank), want);
                    rest = inside ? rest / view->axes[a].size : rest;
                }
            }
        }
    }
}

static void members_ascend_along_the_order(void **state) {
    (void)state;
    on_random_layouts(check_ascending);
}

/* Of each rank, the first member of its group and its index there: two families are the same where
 * these are. */
typedef struct enumeration {
    int64_t first[WORLD_MAX], index[WORLD_MAX];
} enumeration;

static void enumerate(const pgr_family *family, enumeration *all) {
    memset(all, 0xff, sizeof *all); /* -1: in no group */
    for (int64_t group = 0; group < family->count; group++) {
        int64_t first = pgr_family_member(family, group, 0);
        for (int64_t i = 0; i < pgr_family_group_size(family, group); i++) {
            int64_t rank = pgr_family_member(family, group, i);
            all->first[rank] = first;
            all->index[rank] = i;
        }
    }
}

static bool same_by_force(const enumeration *a, const enumeration *b, int64_t world) {
    size_t bytes = (size_t)world * sizeof(int64_t);
    return memcmp(a->first, b->first, bytes) == 0 && memcmp(a->index, b->index, bytes) == 0;
}

static int same_across_views;

static void check_same(const pgr_spec *spec, const pgr_plan *plan) {
    (void)spec;
    pgr_family families[FAMILIES];
    static enumeration enumerations[FAMILIES];
    int count = families_of(plan, families);
    for (int f = 0; f < count; f++)
        enumerate(&families[f], &enumerations[f]);
    for (int a = 0; a < count; a++) {
        for (int b = 0; b < count; b++) {
            bool same = pgr_family_same(&families[a], &families[b]);
            bool are = same_by_force(&enumerations[a], &enumerations[b], plan->world_size);
            bool cut = families[a].pieces > 1 || families[b].pieces > 1;
            assert_true(same ? are : !are || cut);
            same_across_views += same && families[a].view != families[b].view &&
                                 families[a].size > 1 && families[a].size < plan->world_size;
        }
    }
}

static void same_agrees_with_brute_force(void **state) {
    (void)state;
    same_across_views = 0;
    on_random_layouts(check_same);
    assert_true(same_across_views > 1000); /* or the cases did not test what they should */
}

static void check_smallest(const pgr_spec *given, const pgr_plan *plan) {
    pgr_spec spec = *given;
    pgr_plan other;
    int64_t smallest = -1;
    assert_int_equal(pgr_plan_smallest_world(&spec, &smallest, NULL), PGR_OK);
    assert_true(smallest <= plan->world_size);
    spec.world_size = PGR_NIL;
    assert_int_equal(pgr_plan_create(&spec, PGR_NIL, &other, NULL), PGR_OK);
    assert_int_equal(other.world_size, smallest);
    assert_true(other.world_size_assumed);
    assert_false(plan->world_size_assumed);
    for (int64_t size = 1; size < smallest; size++)
        assert_int_equal(pgr_plan_create(&spec, size, &other, NULL), PGR_INVALID);
}

static void the_smallest_world_is_legal_and_no_smaller_one(void **state) {
    (void)state;
    on_random_layouts(check_smallest);
}

static void check_sizes(const pgr_spec *spec, const pgr_plan *plan) {
    const char *const dense[] = {"tp", "cp", "dp", "pp"}, *const expert[] = {"etp", "ep", "edp"};
    int64_t product = 1;
    for (int i = 0; i < 4; i++)
        product *= pgr_plan_axis_size(plan, dense[i]);
    assert_int_equal(product, plan->world_size);
    product = spec->parallel.expert_view ? spec->parallel.pp : plan->world_size;
    for (int i = 0; i < 3; i++) {
        int64_t size = pgr_plan_axis_size(plan, expert[i]);
        assert_int_equal(size == 0, !spec->parallel.expert_view);
        product *= size == 0 ? 1 : size;
    }
    assert_int_equal(product, plan->world_size);
    assert_int_equal(pgr_plan_axis_size(plan, "sp"), 0);
    assert_int_equal(pgr_plan_coordinate(plan, "sp", 0), -1);
}

static void the_axes_multiply_to_the_world(void **state) {
    (void)state;
    on_random_layouts(check_sizes);
}

static uint64_t digest_of(int64_t world, int64_t tp, int64_t cp, const char *order) {
    pgr_spec spec;
    pgr_plan plan;
    pgr_spec_init(&spec);
    spec.parallel.tp = tp;
    spec.parallel.cp = cp;
    snprintf(spec.parallel.order, sizeof spec.parallel.order, "%s", order);
    assert_int_equal(pgr_plan_create(&spec, world, &plan, NULL), PGR_OK);
    pgr_spec_free(&spec);
    return pgr_plan_digest(&plan);
}

static void the_greatest_divisor_is_the_largest_of_all(void **state) {
    (void)state;
    for (int64_t a = 0; a <= 40; a++) {
        for (int64_t b = 0; b <= 40; b++) {
            int64_t found = a + b == 0 ? 0 : a > b ? a : b;
            while (found > 1 && (a % found != 0 || b % found != 0))
                found--;
            assert_int_equal(pgr_greatest_divisor(a, b), found);
        }
    }
}

static void the_digest_covers_sizes_and_order(void **state) {
    (void)state;
    uint64_t digest = digest_of(16, 2, 4, "tp-cp-ep-dp-pp");
    assert_true(digest == digest_of(16, 2, 4, "tp-cp-ep-dp-pp"));
    assert_true(digest != digest_of(32, 2, 4, "tp-cp-ep-dp-pp"));
    assert_true(digest != digest_of(16, 4, 2, "tp-cp-ep-dp-pp"));
    assert_true(digest != digest_of(16, 2, 4, "cp-tp-ep-dp-pp"));
}

/* Ranks near the top of 63 bits, where nothing may be stored per rank. */
static void a_huge_world_answers_in_closed_form(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_plan plan;
    pgr_family family;
    pgr_spec_init(&spec);
    spec.parallel.tp = 8;
    spec.parallel.pp = 16;
    int64_t world = INT64_C(1) << 62;
    assert_int_equal(pgr_plan_create(&spec, world, &plan, NULL), PGR_OK);
    assert_int_equal(pgr_plan_family_find(&plan, "pp-tp", &family, NULL), PGR_OK);
    assert_string_equal(family.name, "pp-tp");
    assert_int_equal(family.size, 128);
    int64_t group = pgr_family_group(&family, world - 1);
    assert_int_equal(group, family.count - 1);
    assert_int_equal(pgr_family_rank(&family, world - 1), 127);
    assert_true(pgr_family_member(&family, group, 127) == world - 1);
    pgr_spec_free(&spec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_is_a_partition),
        cmocka_unit_test(a_ranks_own_answer_is_the_enumerated_one),
        cmocka_unit_test(members_ascend_along_the_order),
        cmocka_unit_test(same_agrees_with_brute_force),
        cmocka_unit_test(the_smallest_world_is_legal_and_no_smaller_one),
        cmocka_unit_test(the_axes_multiply_to_the_world),
        cmocka_unit_test(the_greatest_divisor_is_the_largest_of_all),
        cmocka_unit_test(the_digest_covers_sizes_and_order),
        cmocka_unit_test(a_huge_world_answers_in_closed_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
