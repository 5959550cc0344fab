/* plan_rules_test.c - every refusal has the values and the way out, and nothing overflows. */
#include "plan_layout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { HUGE_SIZE = 1 << 30 };

/* A layout with zeros for what is left at its default. */
typedef struct refusal {
    const char *name;
    int64_t world, tp, cp, pp, ep, etp, dp, vpp, rank_offset;
    const char *order;
    pgr_status status;
    const char *message; /* the whole of it */
} refusal;

static const refusal refusals[] = {
    {.name = "the dense product does not divide",
     .world = 37,
     .tp = 6,
     .pp = 2,
     .status = PGR_INVALID,
     .message = "world_size = 37 is not divisible by tp * cp * pp = 6 * 1 * 2 = 12; the nearest "
                "sizes that fit are 36 and 48"},
    {.name = "the expert product does not divide",
     .world = 18,
     .tp = 2,
     .etp = 4,
     .status = PGR_INVALID,
     .message = "world_size = 18 is not divisible by etp * ep * pp = 4 * 1 * 1 = 4; the nearest "
                "sizes that fit are 16 and 20; or, in a world of 18, etp can be 3 or 6"},
    {.name = "ep does not divide the data-parallel ranks",
     .world = 12,
     .tp = 2,
     .ep = 8,
     .etp = 1,
     .status = PGR_INVALID,
     .message = "world_size = 12 is not divisible by etp * ep * pp = 1 * 8 * 1 = 8; the nearest "
                "sizes that fit are 8 and 16; or, in a world of 12, ep can be 6 or 12 (ep divides "
                "the data-parallel ranks and is no factor of the world)"},
    {.name = "both products do not divide",
     .world = 15,
     .tp = 2,
     .ep = 4,
     .etp = 1,
     .status = PGR_INVALID,
     .message = "world_size = 15 is not divisible by tp * cp * pp = 2 * 1 * 1 = 2; the nearest "
                "sizes that fit are 12 and 16; or, in a world of 15, tp can be 1 or 3 (ep divides "
                "the data-parallel ranks and is no factor of the world)\n"
                "world_size = 15 is not divisible by etp * ep * pp = 1 * 4 * 1 = 4; the nearest "
                "sizes that fit are 12 and 16; or, in a world of 15, ep can be 3 or 5 (ep divides "
                "the data-parallel ranks and is no factor of the world)"},
    {.name = "a world smaller than any that fits",
     .world = 3,
     .tp = 8,
     .etp = 1,
     .status = PGR_INVALID,
     .message = "world_size = 3 is not divisible by tp * cp * pp = 8 * 1 * 1 = 8; the nearest size "
                "that fits is 8; or, in a world of 3, tp can be 3"},
    {.name = "an axis missing from order",
     .world = 16,
     .tp = 8,
     .etp = 8,
     .order = "tp-pp",
     .status = PGR_INVALID,
     .message = "dp = 2 is missing from order = \"tp-pp\"; add \"dp\", as in order = \"tp-dp-pp\"\n"
                "edp = 2 is missing from order = \"tp-pp\"; add \"dp\", which the expert view "
                "reads so, as in order = \"tp-dp-pp\""},
    {.name = "ep missing from order",
     .world = 12,
     .ep = 3,
     .order = "pp-dp-cp-tp",
     .status = PGR_INVALID,
     .message = "ep = 3 is missing from order = \"pp-dp-cp-tp\"; add \"ep\", as in order = "
                "\"ep-pp-dp-cp-tp\""},
    {.name = "pp missing from order",
     .world = 2,
     .pp = 2,
     .order = "tp-cp-ep-dp",
     .status = PGR_INVALID,
     .message = "pp = 2 is missing from order = \"tp-cp-ep-dp\"; add \"pp\", as in order = "
                "\"tp-cp-ep-dp-pp\""},
    {.name = "a repeated axis",
     .world = 4,
     .order = "tp-dp-tp",
     .status = PGR_INVALID,
     .message =
         "order = \"tp-dp-tp\" names \"tp\" twice; name each axis once, as in order = \"tp-dp\""},
    {.name = "an unknown axis",
     .world = 4,
     .order = "tp-sp-dp",
     .status = PGR_INVALID,
     .message = "order = \"tp-sp-dp\" has the unknown axis \"sp\"; its axes are tp, cp, ep, dp and "
                "pp, as in order = \"tp-dp\""},
    {.name = "the expert view's name of an axis",
     .world = 4,
     .order = "etp-dp",
     .status = PGR_INVALID,
     .message = "order = \"etp-dp\" has the unknown axis \"etp\"; name it \"tp\", which the expert "
                "view reads so, as in order = \"tp-dp\""},
    {.name = "an empty token",
     .world = 4,
     .order = "tp--dp",
     .status = PGR_INVALID,
     .message = "order = \"tp--dp\" has the unknown axis \"\"; its axes are tp, cp, ep, dp and pp, "
                "as in order = \"tp-dp\""},
    {.name = "pp not last while dp and edp differ",
     .world = 12,
     .cp = 2,
     .pp = 2,
     .etp = 6,
     .order = "pp-dp-ep-cp-tp",
     .status = PGR_INVALID,
     .message = "dp = 3 and edp = 1 differ while pp = 2 is not last in order = \"pp-dp-ep-cp-tp\"; "
                "put pp last (\"dp-ep-cp-tp-pp\"), or take etp = 2"},
    {.name = "views that disagree on pp",
     .world = 32,
     .tp = 2,
     .cp = 2,
     .pp = 4,
     .etp = 4,
     .order = "tp-ep-dp-pp-cp",
     .status = PGR_INVALID,
     .message = "the pp groups of the dense and the expert view differ: with order = "
                "\"tp-ep-dp-pp-cp\" and pp = 4 the first ones begin 0, 4 and 0, 8; put pp last "
                "(\"tp-ep-dp-cp-pp\")"},
    {.name = "vpp without pp",
     .world = 8,
     .tp = 2,
     .vpp = 2,
     .status = PGR_INVALID,
     .message = "vpp = 2 needs pp greater than 1, and pp = 1; leave vpp out, or take pp = 2"},
    {.name = "vpp of one without pp",
     .world = 8,
     .vpp = 1,
     .status = PGR_INVALID,
     .message = "vpp = 1 needs pp greater than 1, and pp = 1; leave vpp out, or take pp = 2"},
    {.name = "a given dp that is not the derived one",
     .world = 8,
     .tp = 2,
     .dp = 2,
     .status = PGR_INVALID,
     .message = "dp = 2 was given, but world_size = 8 over tp * cp * pp = 2 makes dp = 4; take dp "
                "= 4, or leave dp out, or take world_size = 4; or, in a world of 8, tp can be 4"},
    {.name = "several problems at once",
     .world = 9,
     .tp = 2,
     .etp = 3,
     .vpp = 2,
     .order = "tp-dp-dp",
     .status = PGR_INVALID,
     .message =
         "order = \"tp-dp-dp\" names \"dp\" twice; name each axis once, as in order = \"tp-dp\"\n"
         "world_size = 9 is not divisible by tp * cp * pp = 2 * 1 * 1 = 2; the nearest sizes that "
         "fit are 6 and 12; or, in a world of 9, tp can be 1 or 3\n"
         "vpp = 2 needs pp greater than 1, and pp = 1; leave vpp out, or take pp = 3"},
    {.name = "a size below one",
     .world = 8,
     .tp = -2,
     .cp = -1,
     .etp = 1,
     .status = PGR_INVALID,
     .message = "tp = -2 must be at least 1\ncp = -1 must be at least 1"},
    {.name = "a world below one",
     .world = -8,
     .status = PGR_INVALID,
     .message = "world_size = -8 must be at least 1"},
    {.name = "a negative rank offset",
     .world = 8,
     .rank_offset = -1,
     .status = PGR_INVALID,
     .message = "rank_offset = -1 must be at least 0; leave rank_offset out"},
    {.name = "a dense product over 63 bits",
     .world = 8,
     .tp = HUGE_SIZE,
     .cp = HUGE_SIZE,
     .pp = 16,
     .etp = 1,
     .status = PGR_LIMIT,
     .message = "tp * cp * pp = 1073741824 * 1073741824 * 16 does not fit in 63 bits; take smaller "
                "sizes"},
    {.name = "an expert product over 63 bits",
     .world = 8,
     .etp = HUGE_SIZE,
     .ep = HUGE_SIZE,
     .pp = 16,
     .status = PGR_LIMIT,
     .message = "etp * ep * pp = 1073741824 * 1073741824 * 16 does not fit in 63 bits; take "
                "smaller sizes"},
    {.name = "a smallest world over 63 bits",
     .tp = INT64_C(1) << 40,
     .etp = (INT64_C(1) << 40) - 1,
     .status = PGR_LIMIT,
     .message = "the smallest world, the least common multiple of tp * cp * pp = 1099511627776 and "
                "etp * ep * pp = 1099511627775, does not fit in 63 bits; take smaller sizes"},
    {.name = "a smallest world with dp over 63 bits",
     .tp = INT64_C(1) << 40,
     .dp = INT64_C(1) << 40,
     .status = PGR_LIMIT,
     .message = "dp * tp * cp * pp = 1099511627776 * 1099511627776 does not fit in 63 bits; take "
                "smaller sizes"},
    {.name = "a rank offset over 63 bits",
     .world = 8,
     .rank_offset = INT64_MAX - 7,
     .status = PGR_LIMIT,
     .message = "rank_offset = 9223372036854775800 and world_size = 8 give ranks that do not fit "
                "in 63 bits; rank_offset can be at most 9223372036854775799"},
};

static void set(int64_t *field, int64_t value) {
    if (value != 0)
        *field = value;
}

static void spec_of(const refusal *r, pgr_spec *spec) {
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
    if (r->order != NULL)
        snprintf(spec->parallel.order, sizeof spec->parallel.order, "%s", r->order);
}

static void every_refusal(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        const refusal *r = &refusals[i];
        pgr_spec spec;
        spec_of(r, &spec);
        pgr_plan plan, before;
        memset(&plan, 0x5a, sizeof plan);
        before = plan;
        pgr_error error = {0};
        pgr_status status = pgr_plan_create(&spec, PGR_NIL, &plan, &error);
        if (status != r->status || strcmp(error.message, r->message) != 0) {
            fail_msg("%s:\ngot %s: %s\nexpected %s: %s", r->name, pgr_status_name(status),
                     error.message, pgr_status_name(r->status), r->message);
        }
        assert_int_equal(error.status, status);
        assert_memory_equal(&plan, &before, sizeof plan);
        assert_int_equal(pgr_plan_create(&spec, PGR_NIL, &plan, NULL), status);
        pgr_spec_free(&spec);
    }
}

/* A dense model has none of the experts' rules and none of their families. */
static void without_the_expert_view(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_plan plan;
    pgr_family family;
    pgr_error error = {0};
    pgr_spec_init(&spec);
    spec.parallel.pp = 2;
    spec.parallel.cp = 2;
    spec.parallel.etp = 5;
    snprintf(spec.parallel.order, sizeof spec.parallel.order, "PP-dp-cp");
    assert_int_equal(pgr_plan_create(&spec, 12, &plan, &error), PGR_INVALID);
    spec.parallel.expert_view = false;
    assert_int_equal(pgr_plan_create(&spec, 12, &plan, &error), PGR_OK);
    assert_int_equal(plan.view_count, 1);
    assert_string_equal(plan.order, "pp-dp-cp");
    assert_int_equal(pgr_plan_family_count(&plan), 12);
    assert_int_equal(pgr_plan_family_find(&plan, "ep", &family, &error), PGR_INVALID);
    assert_non_null(strstr(error.message, "parallel.expert_view = false"));
    pgr_spec_free(&spec);
}

/* With dp given there is one size; it is legal only where the experts fit it. */
static void the_smallest_world_with_dp(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_plan plan;
    pgr_error error = {0};
    int64_t smallest = 0;
    pgr_spec_init(&spec);
    spec.parallel.tp = 2;
    spec.parallel.dp = 6;
    spec.parallel.etp = 1;
    spec.parallel.ep = 4;
    assert_int_equal(pgr_plan_smallest_world(&spec, &smallest, &error), PGR_OK);
    assert_int_equal(smallest, 12);
    assert_int_equal(pgr_plan_create(&spec, PGR_NIL, &plan, &error), PGR_OK);
    assert_int_equal(pgr_plan_axis_size(&plan, "edp"), 3);
    spec.parallel.ep = 5;
    assert_int_equal(pgr_plan_create(&spec, PGR_NIL, &plan, &error), PGR_INVALID);
    assert_non_null(strstr(error.message, "etp * ep * pp = 1 * 5 * 1 = 5"));
    pgr_spec_free(&spec);
}

/* The argument goes before the config's own size. */
static void the_argument_overrides_the_world(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_plan plan;
    pgr_spec_init(&spec);
    spec.world_size = 8;
    assert_int_equal(pgr_plan_create(&spec, 4, &plan, NULL), PGR_OK);
    assert_int_equal(plan.world_size, 4);
    pgr_spec_free(&spec);
}

/* A spec from C can have sizes that no config has; each is refused by name. */
static void sizes_below_one(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_plan plan;
    int64_t levels[] = {-2, -2};
    for (int i = 0; i < 4; i++) {
        static const char *const parts[] = {
            "optimizer_instances = 0 must be at least 1", "vpp = -1 must be at least 1",
            "hierarchical_cp has a level of -2, and the smallest is 1",
            "pp = 0 must be at least 1"};
        pgr_error error = {0};
        pgr_spec_init(&spec);
        spec.parallel.pp = i == 3 ? 0 : 2;
        spec.parallel.cp = 4;
        spec.parallel.etp = 7; /* so that ways out are tried too */
        spec.parallel.optimizer_instances = i == 0 ? 0 : 1;
        spec.parallel.vpp = i == 1 ? -1 : PGR_NIL;
        if (i == 2) {
            spec.parallel.hierarchical_cp.count = 2;
            spec.parallel.hierarchical_cp.items = levels;
        }
        assert_int_equal(pgr_plan_create(&spec, 16, &plan, &error), PGR_INVALID);
        if (strstr(error.message, parts[i]) == NULL)
            fail_msg("%s: %s", parts[i], error.message);
        spec.parallel.hierarchical_cp.items = NULL;
        pgr_spec_free(&spec);
    }
}

/* Ways out are looked for up to the last size that there is, and not beyond. */
static void ways_out_near_the_last_size(void **state) {
    (void)state;
    const int64_t sizes[] = {INT64_MAX, INT64_MAX - 1, INT64_C(1) << 62};
    for (int tp = 0; tp < 3; tp++) {
        for (int world = 0; world < 3; world++) {
            pgr_spec spec;
            pgr_plan plan;
            pgr_error error = {0};
            pgr_spec_init(&spec);
            spec.parallel.tp = sizes[tp];
            spec.parallel.ep = 7;
            spec.parallel.etp = 3;
            spec.model.layers = 1;
            spec.parallel.first_stage_layers = spec.parallel.last_stage_layers = INT64_MAX;
            assert_int_equal(pgr_plan_create(&spec, sizes[world], &plan, &error), PGR_INVALID);
            assert_non_null(strstr(error.message, " is not divisible by "));
            pgr_spec_free(&spec);
        }
    }
}

/* Each family of a world of 2^62 ranks can be asked for by its name, dp-cp/hybrid2^61 too. */
static void families_of_the_largest_world(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_plan plan;
    pgr_family family;
    pgr_error error = {0};
    pgr_spec_init(&spec);
    spec.parallel.hybrid_cp = true;
    assert_int_equal(pgr_plan_create(&spec, INT64_C(1) << 62, &plan, &error), PGR_OK);
    for (int32_t i = pgr_plan_family_count(&plan) - 1; i >= 0; i--)
        assert_true(pgr_plan_family_at(&plan, i).size > 0);
    assert_int_equal(
        pgr_plan_family_find(&plan, "dp-cp/hybrid2305843009213693952", &family, &error), PGR_OK);
    assert_int_equal(family.count, 2);
    assert_int_equal(
        pgr_plan_family_find(&plan, "dp-cp/hybrid9223372036854775808", &family, &error),
        PGR_INVALID);
    pgr_spec_free(&spec);
}

static void unknown_families(void **state) {
    (void)state;
    static const struct {
        const char *name, *part;
        pgr_status status;
    } cases[] = {
        {"dp-cpp", "did you mean \"dp-cp\"?", PGR_INVALID},
        {"tensor", "unknown family \"tensor\"; known are tp, cp, dp, dp-cp, pp", PGR_INVALID},
        {"", "unknown family \"\"", PGR_INVALID},
        {"tp-", "unknown family \"tp-\"", PGR_INVALID},
        {"tp-ep",
         "must name different axes of one view: of the dense view (tp cp dp pp) or of the "
         "expert view (etp ep edp pp)",
         PGR_INVALID},
        {"tp-tp", "must name different axes of one view", PGR_INVALID},
        {"embeding", "did you mean \"embedding\"?", PGR_INVALID},
        {"cp/0", "needs parallel.hierarchical_cp, which is not given", PGR_INVALID},
        {"dp-cp/hybrid4", "needs parallel.hybrid_cp = true", PGR_INVALID},
        {"dp-cp/intra", "needs parallel.optimizer_instances above 1", PGR_INVALID},
        {"edp/inter", "needs parallel.optimizer_instances above 1", PGR_INVALID},
        {"cp/-1", "unknown family \"cp/-1\"", PGR_INVALID},
        {"cp/00", "unknown family \"cp/00\"", PGR_INVALID},
        {"dp-cp/hybrid", "unknown family \"dp-cp/hybrid\"", PGR_INVALID},
        {"tp/intra", "unknown family \"tp/intra\"", PGR_INVALID},
    };
    pgr_spec spec;
    pgr_plan plan;
    pgr_spec_init(&spec);
    assert_int_equal(pgr_plan_create(&spec, 8, &plan, NULL), PGR_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pgr_family family;
        pgr_error error = {0};
        pgr_status status = pgr_plan_family_find(&plan, cases[i].name, &family, &error);
        if (status != cases[i].status || strstr(error.message, cases[i].part) == NULL)
            fail_msg("%s: %s: %s", cases[i].name, pgr_status_name(status), error.message);
    }
    pgr_spec_free(&spec);
}

/* For ways out. */
static void divisors_are_listed(void **state) {
    (void)state;
    static const struct {
        int64_t value;
        const char *text;
    } wanted[] = {{1, "1"},
                  {7, "1 or 7"},
                  {52, "1, 2, 4, 13, 26 or 52"},
                  {36, "1, 2, 3, 4, 6, 9, 12, 18 or 36"},
                  {720720, "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, ..."}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        char text[200];
        pgr_plan_divisors(wanted[i].value, text, sizeof text);
        assert_string_equal(text, wanted[i].text);
    }
}

/* A message that is too long ends at a whole character, and NULL is no error record. */
static void long_messages_are_cut_at_a_character(void **state) {
    (void)state;
    static char text[3 * 4000 + 1];
    for (int i = 0; i < 4000; i++)
        memcpy(text + 3 * i, "\xe2\x82\xac", 4); /* the euro sign, three bytes */
    static pgr_error error;
    for (int shift = 0; shift < 3; shift++) {
        pgr_error_set(&error, PGR_LIMIT, "%.*s%s", shift, "ab", text);
        size_t length = strlen(error.message);
        assert_int_equal((length - (size_t)shift) % 3, 0);
        assert_true(length > sizeof error.message - 4);
        pgr_error_prefix(&error, "%s", "x");
        length = strlen(error.message);
        assert_int_equal((length - (size_t)shift - 1) % 3, 0);
        assert_true(error.message[0] == 'x' && length > sizeof error.message - 4);
    }
    assert_int_equal(pgr_error_set(NULL, PGR_LIMIT, "%s", "nowhere"), PGR_LIMIT);
    pgr_error_prefix(NULL, "%s", "nowhere");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_refusal),
        cmocka_unit_test(without_the_expert_view),
        cmocka_unit_test(the_smallest_world_with_dp),
        cmocka_unit_test(the_argument_overrides_the_world),
        cmocka_unit_test(sizes_below_one),
        cmocka_unit_test(ways_out_near_the_last_size),
        cmocka_unit_test(families_of_the_largest_world),
        cmocka_unit_test(unknown_families),
        cmocka_unit_test(divisors_are_listed),
        cmocka_unit_test(long_messages_are_cut_at_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
