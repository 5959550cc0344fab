/* plan_oracle_test.c - every recorded answer of Megatron-Core: the same families, no more and no
 * fewer, or a refusal by the same rule. */
#include "plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

enum { ROWS = 140 };

static int64_t integer_of(const json_t *object, const char *key, int64_t otherwise) {
    const json_t *value = json_object_get(object, key);
    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

static void spec_of(const json_t *config, pgr_spec *spec) {
    pgr_spec_init(spec);
    spec->world_size = integer_of(config, "world", PGR_NIL);
    spec->parallel.tp = integer_of(config, "tp", 1);
    spec->parallel.cp = integer_of(config, "cp", 1);
    spec->parallel.pp = integer_of(config, "pp", 1);
    spec->parallel.ep = integer_of(config, "ep", 1);
    spec->parallel.etp = integer_of(config, "etp", PGR_NIL);
    spec->parallel.vpp = integer_of(config, "vpp", PGR_NIL);
    spec->parallel.optimizer_instances = integer_of(config, "dist_opt", 1);
    spec->parallel.hybrid_cp = json_is_true(json_object_get(config, "hybrid_cp"));
    const json_t *levels = json_object_get(config, "hcp");
    spec->parallel.hierarchical_cp.count = (int64_t)json_array_size(levels);
    if (json_array_size(levels) > 0)
        spec->parallel.hierarchical_cp.items = calloc(json_array_size(levels), sizeof(int64_t));
    for (size_t i = 0; i < json_array_size(levels); i++)
        spec->parallel.hierarchical_cp.items[i] = json_integer_value(json_array_get(levels, i));
    const char *order = json_string_value(json_object_get(config, "order"));
    if (order != NULL)
        snprintf(spec->parallel.order, sizeof spec->parallel.order, "%s", order);
}

static void check_family(int row, const pgr_plan *plan, const char *name, const json_t *groups) {
    pgr_family family;
    pgr_error error = {0};
    if (pgr_plan_family_find(plan, name, &family, &error) != PGR_OK)
        fail_msg("row %d, family %s: %s", row, name, error.message);
    if (family.count != (int64_t)json_array_size(groups)) {
        fail_msg("row %d, family %s: %lld groups, not %zu", row, name, (long long)family.count,
                 json_array_size(groups));
    }
    for (int64_t group = 0; group < family.count; group++) {
        const json_t *members = json_array_get(groups, (size_t)group);
        int64_t size = pgr_family_group_size(&family, group);
        if (size != (int64_t)json_array_size(members)) {
            fail_msg("row %d, family %s, group %lld: size %lld, not %zu", row, name,
                     (long long)group, (long long)size, json_array_size(members));
        }
        for (int64_t i = 0; i < size; i++) {
            int64_t want = json_integer_value(json_array_get(members, (size_t)i));
            int64_t got = pgr_family_member(&family, group, i);
            if (got != want) {
                fail_msg("row %d, family %s, group %lld, member %lld: got %lld, expected %lld", row,
                         name, (long long)group, (long long)i, (long long)got, (long long)want);
            }
        }
    }
}

/* Checks a row that Megatron-Core accepted; returns the number of families compared. */
static int check_families(int row, const pgr_spec *spec, const json_t *families) {
    pgr_plan plan;
    pgr_error error = {0};
    if (pgr_plan_create(spec, PGR_NIL, &plan, &error) != PGR_OK)
        fail_msg("row %d is refused: %s", row, error.message);
    int checked = 0;
    const char *name;
    json_t *groups;
    json_object_foreach((json_t *)families, name, groups) {
        check_family(row, &plan, name, groups);
        checked++;
    }
    assert_int_equal(checked, pgr_plan_family_count(&plan)); /* none that Megatron-Core has not */
    return checked;
}

/* For each refusal of Megatron-Core, a part of ours that tells the same rule. */
static const char *rule_of(const char *message) {
    static const char *const rules[][2] = {
        {"expert_tensor_model_pipeline", "is not divisible by etp * ep * pp"},
        {"is not divisible by", "is not divisible by tp * cp * pp"},
        {"greater than 1 with interleaved", "vpp = "},
        {"specified the order", "is missing from order"},
        {"pp-last rank ordering", "is not last in order"},
        {"Expert data parallel size should be divisible", " does not divide edp = "},
        {"Data parallel size should be divisible", " does not divide dp * cp = "},
        {"requires an even number of ranks", "hybrid_cp needs an even number"},
        {"Pipeline parallel groups are expected", "the pp groups of the dense and the expert view"},
    };
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++)
        if (strstr(message, rules[i][0]) != NULL)
            return rules[i][1];
    fail_msg("a refusal of an unknown rule: %s", message);
    return NULL;
}

static void check_refusal(int row, const pgr_spec *spec, const char *message) {
    pgr_plan plan;
    pgr_error error = {0};
    assert_int_equal(pgr_plan_create(spec, PGR_NIL, &plan, &error), PGR_INVALID);
    if (strstr(error.message, rule_of(message)) == NULL)
        fail_msg("row %d: Megatron-Core said \"%s\", and we \"%s\"", row, message, error.message);
}

static void every_oracle_row(void **state) {
    (void)state;
    FILE *file = fopen(PGR_ORACLES "/megatron-groups.jsonl", "r");
    assert_non_null(file);
    static char line[1 << 20];
    int rows = 0, families = 0, refusals = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        json_t *row = json_loads(line, 0, NULL);
        assert_non_null(row);
        rows++;
        const json_t *config = json_object_get(row, "config");
        const char *message = json_string_value(json_object_get(row, "message"));
        pgr_spec spec;
        spec_of(config, &spec);
        if (json_is_true(json_object_get(row, "ok"))) {
            families += check_families(rows, &spec, json_object_get(row, "groups"));
        } else {
            check_refusal(rows, &spec, message);
            refusals++;
        }
        pgr_spec_free(&spec);
        json_decref(row);
    }
    fclose(file);
    print_message("%d rows: %d families equal, %d refusals equal\n", rows, families, refusals);
    assert_int_equal(rows, ROWS);
    assert_true(families >= 17 * (ROWS - refusals));
    assert_true(refusals > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_oracle_row)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
