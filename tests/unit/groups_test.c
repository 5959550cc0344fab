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
                    "family      Megatron-Core                     groups    size  members\n"
                    "tp          tensor model parallel                  2       2  [0 1] [2 3]\n"
                    "edp-ep      -                                      1       4  [0 1 2 3]\n");
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
        cmocka_unit_test(a_full_disk_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
