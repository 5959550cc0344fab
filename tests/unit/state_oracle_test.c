/* state_oracle_test.c - the layers of every chunk as Megatron-Core builds them
 * (tests/oracles/megatron-layers.jsonl). */
#include "state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

enum { ROWS = 400, CHUNKS_MAX = 32 };

static int64_t number_or_nil(const json_t *row, const char *key) {
    const json_t *value = json_object_get(row, key);
    return value == NULL ? PGR_NIL : json_integer_value(value);
}

/* The row as a spec; its list is `items`. */
static void spec_of(const json_t *row, int64_t items[CHUNKS_MAX], pgr_spec *spec) {
    const json_t *stages = json_object_get(row, "stages");
    pgr_spec_init(spec);
    spec->parallel.pp = json_integer_value(json_object_get(row, "pp"));
    spec->parallel.vpp = number_or_nil(row, "vpp");
    spec->model.layers = number_or_nil(row, "layers");
    spec->parallel.first_stage_layers = number_or_nil(row, "first");
    spec->parallel.last_stage_layers = number_or_nil(row, "last");
    size_t count = json_array_size(stages);
    assert_in_range(count, 0, CHUNKS_MAX);
    for (size_t i = 0; i < count; i++)
        items[i] = json_integer_value(json_array_get(stages, i));
    spec->parallel.stage_layers = (pgr_list){(int64_t)count, count > 0 ? items : NULL};
}

static void check_chunk(int row, const pgr_spec *spec, const pgr_plan *plan, int64_t chunk,
                        const json_t *chunks) {
    static pgr_error error;
    pgr_state state;
    pgr_range range;
    assert_int_equal(pgr_state_create(plan, spec, chunk % spec->parallel.pp, &state, NULL), PGR_OK);
    if (spec->parallel.vpp != PGR_NIL)
        assert_int_equal(pgr_state_set_virtual_stage(&state, chunk / spec->parallel.pp, NULL),
                         PGR_OK);
    pgr_status status = pgr_state_layers(&state, PGR_NIL, &range, &error);
    if (chunks == NULL) {
        assert_int_equal(status, PGR_INVALID);
        return;
    }
    if (status != PGR_OK)
        fail_msg("row %d: %s", row, error.message);
    const json_t *want = json_array_get(chunks, (size_t)chunk);
    assert_int_equal(range.first, json_integer_value(json_array_get(want, 0)));
    assert_int_equal(range.count, json_integer_value(json_array_get(want, 1)));
}

static void every_oracle_row(void **unused) {
    (void)unused;
    FILE *file = fopen(PGR_ORACLES "/megatron-layers.jsonl", "r");
    assert_non_null(file);
    static char line[1 << 14];
    int rows = 0, refusals = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        json_t *row = json_loads(line, 0, NULL);
        assert_non_null(row);
        rows++;
        int64_t items[CHUNKS_MAX];
        pgr_spec spec;
        pgr_plan plan;
        spec_of(row, items, &spec);
        assert_int_equal(pgr_plan_create(&spec, PGR_NIL, &plan, NULL), PGR_OK);
        const json_t *chunks = json_object_get(row, "chunks");
        int64_t count = spec.parallel.pp * (spec.parallel.vpp == PGR_NIL ? 1 : spec.parallel.vpp);
        assert_true(chunks == NULL || (int64_t)json_array_size(chunks) == count);
        for (int64_t chunk = 0; chunk < count; chunk++)
            check_chunk(rows, &spec, &plan, chunk, chunks);
        refusals += chunks == NULL;
        spec.parallel.stage_layers = (pgr_list){0, NULL};
        pgr_spec_free(&spec);
        json_decref(row);
    }
    fclose(file);
    assert_int_equal(rows, ROWS);
    assert_true(refusals > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_oracle_row)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
