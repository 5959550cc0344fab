/* groups_test.c - what `pgrun groups` prints: the table, and JSON that says what the plan says. */
#include "groups.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

/* tp 2, ep 4, etp 1 on `world` ranks with all families, or those of the comma-separated list. */
static pgr_groups groups_of(int64_t world, int64_t rank_offset, const char *names) {
    pgr_groups groups = {.rank = PGR_NIL};
    pgr_spec spec;
    pgr_spec_init(&spec);
    spec.parallel.tp = 2;
    spec.parallel.ep = 4;
    spec.parallel.etp = 1;
    spec.parallel.rank_offset = rank_offset;
    assert_int_equal(pgr_plan_create(&spec, world, &groups.plan, NULL), PGR_OK);
    pgr_spec_free(&spec);
    if (names == NULL) {
        for (int32_t i = 0; i < pgr_plan_family_count(&groups.plan); i++)
            groups.families[groups.family_count++] = pgr_plan_family_at(&groups.plan, i);
        return groups;
    }
    groups.families_named = true;
    char list[256];
    snprintf(list, sizeof list, "%s", names);
    for (char *name = strtok(list, ","); name != NULL; name = strtok(NULL, ",")) {
        pgr_family *family = &groups.families[groups.family_count++];
        assert_int_equal(pgr_plan_family_find(&groups.plan, name, family, NULL), PGR_OK);
    }
    return groups;
}

/* The output; free() it. */
static char *printed(const pgr_groups *groups) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    assert_int_equal(pgr_groups_print(groups, out, NULL), PGR_OK);
    fclose(out);
    return text;
}

static void prints(const pgr_groups *groups, const char *want) {
    char *got = printed(groups);
    assert_string_equal(got, want);
    free(got);
}

static void the_json_of_the_design(void **state) {
    (void)state;
    pgr_groups groups = groups_of(8, 0, "tp,dp");
    groups.format = PGR_GROUPS_JSON;
    prints(&groups, "{\"world_size\": 8, \"order\": \"tp-cp-ep-dp-pp\",\n"
                    " \"axes\": {\"tp\": 2, \"cp\": 1, \"dp\": 4, \"pp\": 1, \"etp\": 1, \"ep\": "
                    "4, \"edp\": 2},\n"
                    " \"groups\": {\"tp\": [[0,1],[2,3],[4,5],[6,7]],\n"
                    "  \"dp\": [[0,2,4,6],[1,3,5,7]]}}\n");
}

static void the_json_of_one_rank(void **state) {
    (void)state;
    pgr_groups groups = groups_of(8, 100, "dp,cp-tp");
    groups.format = PGR_GROUPS_JSON;
    groups.rank = 5;
    prints(
        &groups,
        "{\"world_size\": 8, \"order\": \"tp-cp-ep-dp-pp\",\n"
        " \"axes\": {\"tp\": 2, \"cp\": 1, \"dp\": 4, \"pp\": 1, \"etp\": 1, \"ep\": 4, \"edp\": "
        "2},\n"
        " \"rank\": 105, \"coordinates\": {\"tp\": 1, \"cp\": 0, \"dp\": 2, \"pp\": 0, \"etp\": 0, "
        "\"ep\": 1, \"edp\": 1},\n"
        " \"groups\": {\"dp\": {\"index\": 1, \"rank\": 2, \"size\": 4, \"members\": "
        "[101,103,105,107]},\n"
        "  \"cp-tp\": {\"index\": 2, \"rank\": 1, \"size\": 2, \"members\": [104,105]}}}\n");
}

static void the_table(void **state) {
    (void)state;
    pgr_groups groups = groups_of(PGR_NIL, 0, "tp,edp-ep");
    prints(&groups, "4 ranks, order tp-cp-ep-dp-pp (the first varies fastest)\n"
                    "no world size given: the smallest legal one, 4\n"
                    "dense view:  tp 2, cp 1, dp 2, pp 1\n"
                    "expert view: etp 1, ep 4, edp 1, pp 1\n"
                    "\n"
                    "family      Megatron-Core          groups    size  members\n"
                    "tp          tensor model parallel       2       2  [0 1] [2 3]\n"
                    "edp-ep      -                           1       4  [0 1 2 3]\n"
                    "\n"
                    "the group of each GPU, a row per node of 8 (cluster.gpus_per_node is not "
                    "given)\n"
                    "node   tp             edp-ep\n"
                    "   0   0  0  1  1     0  0  0  0\n");
}

static void the_table_of_a_big_world_is_short(void **state) {
    (void)state;
    pgr_groups groups = groups_of(1 << 20, 0, "tp,dp");
    char *text = printed(&groups);
    assert_non_null(strstr(text, "[0 1] [2 3] [4 5] ... [1048574 1048575] (524284 more)\n"));
    assert_non_null(strstr(text, "[0 2 4 6 8 10 ... 1048574] [1 3 5 7 9 11 ... 1048575]\n"));
    assert_true(strlen(text) < 600);
    free(text);
}

/* Every number of every family, over more than one buffer, is the plan's. */
static void a_large_json_is_the_plans(void **state) {
    (void)state;
    enum { OFFSET = 99990, WORLD = 4096 };
    pgr_groups groups = groups_of(WORLD, OFFSET, NULL);
    groups.format = PGR_GROUPS_JSON;
    char *text = printed(&groups);
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    const json_t *families = json_object_get(root, "groups");
    assert_int_equal(json_object_size(families), groups.family_count);
    for (int32_t f = 0; f < groups.family_count; f++) {
        const pgr_family *family = &groups.families[f];
        const json_t *lists = json_object_get(families, family->name);
        assert_int_equal(json_array_size(lists), family->count);
        for (int64_t group = 0; group < family->count; group++) {
            const json_t *members = json_array_get(lists, (size_t)group);
            assert_int_equal(json_array_size(members), family->size);
            for (int64_t i = 0; i < family->size; i++) {
                assert_int_equal(json_integer_value(json_array_get(members, (size_t)i)),
                                 OFFSET + pgr_family_member(family, group, i));
            }
        }
    }
    json_decref(root);
    free(text);
}

/* Names wider than a column's usual width push the others. */
static void long_names_fit(void **state) {
    (void)state;
    pgr_groups groups = groups_of(8, 0, "position-embedding,tp");
    char *text = printed(&groups);
    assert_non_null(strstr(text,
                           "family              Megatron-Core          groups    size  members\n"
                           "position-embedding  position embedding          8       1  [0]"));
    assert_non_null(
        strstr(text, "\ntp                  tensor model parallel       4       2  [0 1]"));
    free(text);
}

/* ---- the grid ---- */

static void the_grid_of_one_rank(void **state) {
    (void)state;
    pgr_groups groups = groups_of(16, 4, "tp,dp");
    groups.gpus_per_node = 8;
    groups.families_named = true;
    groups.rank = 5;
    char *text = printed(&groups);
    const char *grid = strstr(text, "\nthe group");
    assert_non_null(grid);
    assert_string_equal(grid, "\nthe group of each GPU, a row per node of 8; [the rank's own]\n"
                              "node   tp                         dp\n"
                              "   0               0  0  1  1                 0  1  0  1\n"
                              "   1   2 [2] 3  3  4  4  5  5     0 [1] 0  1  0  1  0  1\n"
                              "   2   6  6  7  7                 0  1  0  1\n");
    free(text);
}

static void a_large_world_has_no_grid(void **state) {
    (void)state;
    pgr_groups groups = groups_of(PGR_GROUPS_GRID_RANKS_MAX + 4, 0, "tp");
    char *text = printed(&groups);
    assert_null(strstr(text, "the group of each GPU"));
    free(text);
}

/* ---- CSV ---- */

static void the_csv(void **state) {
    (void)state;
    pgr_groups groups = groups_of(4, 10, "tp,dp");
    groups.format = PGR_GROUPS_CSV;
    prints(&groups, "family,group,place,rank\n"
                    "tp,0,0,10\ntp,0,1,11\ntp,1,0,12\ntp,1,1,13\n"
                    "dp,0,0,10\ndp,0,1,12\ndp,1,0,11\ndp,1,1,13\n");
    groups.rank = 3;
    prints(&groups, "family,group,place,rank\n"
                    "tp,1,0,12\ntp,1,1,13\ndp,1,0,11\ndp,1,1,13\n");
}

/* ---- the summary ---- */

/* Counts by looking at every member. */
static int64_t counted_crossing(const pgr_family *family, int64_t offset, int64_t block) {
    int64_t crossing = 0;
    for (int64_t group = 0; group < family->count; group++) {
        int64_t first = (offset + pgr_family_member(family, group, 0)) / block;
        for (int64_t i = 1; i < pgr_family_group_size(family, group); i++) {
            if ((offset + pgr_family_member(family, group, i)) / block != first) {
                crossing++;
                break;
            }
        }
    }
    return crossing;
}

/* The strides of a family whose groups are wholes place every member. */
static void check_strides(const pgr_family *family) {
    pgr_digit strides[PGR_DIGITS_MAX];
    int32_t count = pgr_family_strides(family, strides);
    for (int64_t i = 0; i < family->size; i++) {
        int64_t rest = i, place = pgr_family_member(family, family->count - 1, 0);
        for (int32_t d = 0; d < count; d++) {
            place += rest % strides[d].size * strides[d].stride;
            rest /= strides[d].size;
        }
        assert_int_equal(rest, 0);
        assert_int_equal(pgr_family_member(family, family->count - 1, i), place);
    }
}

/* Every family of a layout, against blocks and offsets that fit and that do not. */
static void check_crossing(const pgr_spec *spec, int64_t world) {
    static const int64_t blocks[] = {1, 2, 3, 4, 5, 7, 8, 12, 16, 36, 72, 100, 4096};
    static const int64_t offsets[] = {0, 1, 3, 4, 8, 100};
    pgr_plan plan;
    assert_int_equal(pgr_plan_create(spec, world, &plan, NULL), PGR_OK);
    for (int32_t f = 0; f < pgr_plan_family_count(&plan); f++) {
        pgr_family family = pgr_plan_family_at(&plan, f);
        if (family.pieces == 1 && family.stage_count < 3)
            check_strides(&family);
        for (size_t b = 0; b < sizeof blocks / sizeof blocks[0]; b++)
            for (size_t o = 0; o < sizeof offsets / sizeof offsets[0]; o++)
                assert_int_equal(pgr_groups_crossing(&family, offsets[o], blocks[b]),
                                 counted_crossing(&family, offsets[o], blocks[b]));
    }
}

static void crossings_are_counted_right(void **state) {
    (void)state;
    static const char *const orders[] = {"tp-cp-ep-dp-pp", "tp-cp-ep-pp-dp", "pp-dp-ep-cp-tp"};
    pgr_spec spec;
    pgr_spec_init(&spec);
    spec.parallel.tp = 3;
    spec.parallel.cp = 2;
    spec.parallel.pp = 4;
    spec.parallel.ep = 3;
    spec.parallel.etp = 1;
    spec.parallel.pp_split = 2;
    spec.parallel.optimizer_instances = 2;
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        spec.parallel.ep = i == 0 ? 3 : 6;
        snprintf(spec.parallel.order, sizeof spec.parallel.order, "%s", orders[i]);
        check_crossing(&spec, 144);
    }
    pgr_spec_free(&spec);
    pgr_spec_init(&spec);
    spec.parallel.cp = 3; /* hybrid groups that are cut into pieces, the last one smaller */
    spec.parallel.pp = 2;
    spec.parallel.hybrid_cp = true;
    check_crossing(&spec, 60);
    pgr_spec_free(&spec);
}

static void the_summary(void **state) {
    (void)state;
    pgr_groups groups = groups_of(16, 0, "tp,dp,edp-ep");
    groups.summary = true;
    groups.gpus_per_node = 8;
    char *text = printed(&groups);
    assert_non_null(strstr(
        text,
        "family      Megatron-Core          groups    size  strides     cross a node        cross "
        "NVLink\n"
        "tp          tensor model parallel       8       2  2 x 1                  0               "
        " "
        "   -\n"
        "dp          data parallel               2       8  8 x 2                  2               "
        " "
        "   -\n"
        "edp-ep      -                           1      16  16 x 1                 1               "
        " "
        "   -\n"));
    free(text);
    groups = groups_of(16, 0, "tp,dp");
    groups.summary = true;
    groups.nvlink_domain = 4;
    groups.format = PGR_GROUPS_JSON;
    prints(
        &groups,
        "{\"world_size\": 16, \"order\": \"tp-cp-ep-dp-pp\",\n"
        " \"axes\": {\"tp\": 2, \"cp\": 1, \"dp\": 8, \"pp\": 1, \"etp\": 1, \"ep\": 4, \"edp\": "
        "4},\n"
        " \"families\": [\n"
        "  {\"family\": \"tp\", \"groups\": 8, \"size\": 2, \"strides\": [{\"size\": 2, "
        "\"stride\": 1}], \"cross_node\": null, \"cross_nvlink_domain\": 0},\n"
        "  {\"family\": \"dp\", \"groups\": 2, \"size\": 8, \"strides\": [{\"size\": 8, "
        "\"stride\": 2}], \"cross_node\": null, \"cross_nvlink_domain\": 2}]}\n");
}

/* ---- pictures ---- */

static void a_picture_has_a_limit(void **state) {
    (void)state;
    pgr_error error;
    pgr_groups groups = groups_of(PGR_GROUPS_CELLS_MAX, 0, NULL);
    groups.format = PGR_GROUPS_SVG;
    assert_int_equal(pgr_groups_check(&groups, &error), PGR_OK);
    groups.families_named = true; /* a panel for each */
    assert_int_equal(pgr_groups_check(&groups, &error), PGR_LIMIT);
    assert_non_null(strstr(error.message, "65536 cells"));
    groups = groups_of(PGR_GROUPS_CELLS_MAX + 4, 0, NULL);
    assert_int_equal(pgr_groups_check(&groups, &error), PGR_OK); /* a table has none */
    groups.format = PGR_GROUPS_SVG;
    assert_int_equal(pgr_groups_check(&groups, &error), PGR_LIMIT);
    assert_non_null(strstr(error.message, "65536 ranks, not 65540"));
}

/* ---- the largest worlds ---- */

/* 2^62 ranks from 2^62 - 1 on: every number fits in 63 bits, and none is walked. */
static void the_largest_world_is_summed_up(void **state) {
    (void)state;
    const int64_t world = INT64_C(1) << 62;
    pgr_groups groups = groups_of(world, world - 1, NULL);
    groups.gpus_per_node = 8;
    groups.nvlink_domain = 72;
    groups.summary = true;
    char *text = printed(&groups);
    assert_non_null(strstr(text, "ranks are 4611686018427387903 to 9223372036854775806\n"));
    assert_non_null(strstr(text, " 2305843009213693952                    2  2 x 1 "));
    free(text);
    groups.summary = false;
    groups.rank = world - 1;
    text = printed(&groups);
    assert_non_null(strstr(text, "[9223372036854775805 9223372036854775806]\n"));
    free(text);
}

/* Where walking would take too long, there is no count: pieces of 4 from a billion and six ranks.
 */
static void a_count_that_takes_too_long_is_not_made(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_plan plan;
    pgr_family family;
    pgr_spec_init(&spec);
    spec.parallel.hybrid_cp = true;
    assert_int_equal(pgr_plan_create(&spec, 1000000006, &plan, NULL), PGR_OK);
    assert_int_equal(pgr_plan_family_find(&plan, "dp-cp/hybrid4", &family, NULL), PGR_OK);
    assert_int_equal(pgr_groups_crossing(&family, 0, 8), -1);
    assert_int_equal(pgr_plan_create(&spec, 10, &plan, NULL), PGR_OK);
    assert_int_equal(pgr_plan_family_find(&plan, "dp-cp/hybrid4", &family, NULL), PGR_OK);
    assert_int_equal(pgr_groups_crossing(&family, 0, 8), 0);
    assert_int_equal(pgr_groups_crossing(&family, 2, 8), 1);
    pgr_spec_free(&spec);
}

/* 2^63 - 1 = 7 * 7 * 73 * ...: the largest number of ranks that there is. */
static void the_largest_number_of_ranks(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_groups groups = {.rank = PGR_NIL, .gpus_per_node = INT64_MAX, .nvlink_domain = 7};
    pgr_spec_init(&spec);
    spec.parallel.tp = 7;
    spec.parallel.pp = 7;
    spec.parallel.hybrid_cp = true;
    assert_int_equal(pgr_plan_create(&spec, INT64_MAX, &groups.plan, NULL), PGR_INVALID);
    spec.parallel.hybrid_cp = false; /* it takes an even number of ranks */
    assert_int_equal(pgr_plan_create(&spec, INT64_MAX, &groups.plan, NULL), PGR_OK);
    for (int32_t i = 0; i < pgr_plan_family_count(&groups.plan); i++)
        groups.families[groups.family_count++] = pgr_plan_family_at(&groups.plan, i);
    groups.summary = true;
    char *text = printed(&groups);
    assert_non_null(strstr(text, " 1317624576693539401                    7  7 x 1 "));
    free(text);
    groups.summary = false;
    for (int64_t rank = PGR_NIL; rank != 0; rank = rank == PGR_NIL ? INT64_MAX - 1 : 0) {
        groups.rank = rank;
        text = printed(&groups);
        assert_non_null(strstr(text, "9223372036854775806]"));
        free(text);
    }
    spec.parallel.rank_offset = 1;
    assert_int_equal(pgr_plan_create(&spec, INT64_MAX, &groups.plan, NULL), PGR_LIMIT);
    pgr_spec_free(&spec);
}

/* A world without an end in sight ends where writing does. */
static void the_largest_world_stops_at_a_full_disk(void **state) {
    (void)state;
    static const pgr_groups_format formats[] = {PGR_GROUPS_JSON, PGR_GROUPS_CSV};
    for (int i = 0; i < 4; i++) {
        FILE *full = fopen("/dev/full", "w");
        if (full == NULL)
            skip();
        pgr_groups groups = groups_of(INT64_C(1) << 62, 0, "dp,embedding");
        groups.format = formats[i % 2];
        groups.rank = i < 2 ? PGR_NIL : 7;
        assert_int_equal(pgr_groups_print(&groups, full, NULL), PGR_SYSTEM);
        fclose(full);
    }
}

static void a_full_disk_is_an_error(void **state) {
    (void)state;
    FILE *full = fopen("/dev/full", "w");
    if (full == NULL)
        skip();
    pgr_groups groups = groups_of(8, 0, NULL);
    pgr_error error = {0};
    assert_int_equal(pgr_groups_print(&groups, full, &error), PGR_SYSTEM);
    assert_non_null(strstr(error.message, "No space left"));
    fclose(full);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_json_of_the_design),
        cmocka_unit_test(the_json_of_one_rank),
        cmocka_unit_test(the_table),
        cmocka_unit_test(the_table_of_a_big_world_is_short),
        cmocka_unit_test(a_large_json_is_the_plans),
        cmocka_unit_test(long_names_fit),
        cmocka_unit_test(the_grid_of_one_rank),
        cmocka_unit_test(a_large_world_has_no_grid),
        cmocka_unit_test(the_csv),
        cmocka_unit_test(crossings_are_counted_right),
        cmocka_unit_test(the_summary),
        cmocka_unit_test(a_picture_has_a_limit),
        cmocka_unit_test(the_largest_world_is_summed_up),
        cmocka_unit_test(the_largest_number_of_ranks),
        cmocka_unit_test(a_count_that_takes_too_long_is_not_made),
        cmocka_unit_test(the_largest_world_stops_at_a_full_disk),
        cmocka_unit_test(a_full_disk_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
