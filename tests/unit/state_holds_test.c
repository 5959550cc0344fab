/* state_holds_test.c - the layers, experts and shards of a rank, also of the general grid. */
#include "state_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void set_stages(layout *l, const int64_t *items, int64_t count) {
    int64_t *copy = malloc((size_t)count * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, items, (size_t)count * sizeof *copy);
    free(l->spec.parallel.stage_layers.items);
    l->spec.parallel.stage_layers = (pgr_list){count, copy};
}

/* ---- what the rank holds ---- */

static void layers_are(pgr_state *state, int64_t stage, int64_t chunk, int64_t first,
                       int64_t count) {
    static pgr_error error;
    pgr_range range;
    if (pgr_state_virtual_stages(state) != PGR_NIL)
        assert_int_equal(pgr_state_set_virtual_stage(state, chunk, NULL), PGR_OK);
    if (pgr_state_layers(state, stage, &range, &error) != PGR_OK)
        fail_msg("%s", error.message);
    assert_int_equal(range.first, first);
    assert_int_equal(range.count, count);
}

/* The comment in get_num_layers_to_build: 8 layers and 2 stages, with 4 chunks [0] [2] [4] [6] and
 * [1] [3] [5] [7], with 2 chunks [0, 1] [4, 5] and [2, 3] [6, 7]. */
static void layers_of_megatrons_comment(void **unused) {
    (void)unused;
    layout l;
    pgr_spec_init(&l.spec);
    l.spec.parallel.pp = 2;
    l.spec.model.layers = 8;
    plan_layout(&l, 2);
    pgr_state state = state_of(&l, 0);
    layers_are(&state, 0, 0, 0, 4);
    layers_are(&state, 1, 0, 4, 4);
    assert_int_equal(pgr_state_set_virtual_stages(&state, 4, NULL), PGR_OK);
    for (int64_t chunk = 0; chunk < 4; chunk++) {
        layers_are(&state, 0, chunk, 2 * chunk, 1);
        layers_are(&state, 1, chunk, 2 * chunk + 1, 1);
    }
    assert_int_equal(pgr_state_set_virtual_stages(&state, 2, NULL), PGR_OK);
    layers_are(&state, PGR_NIL, 0, 0, 2);
    layers_are(&state, PGR_NIL, 1, 4, 2);
    layers_are(&state, 1, 0, 2, 2);
    layers_are(&state, 1, 1, 6, 2);
    /* One stage is no pipeline, as there. */
    assert_int_equal(pgr_state_override(&state, "pp", 1, 0, NULL), PGR_OK);
    layers_are(&state, 0, 1, 0, 8);
    pgr_spec_free(&l.spec);
}

static void layers_of_uneven_ends(void **unused) {
    (void)unused;
    layout l;
    sixteen(&l);
    l.spec.model.layers = 22;
    l.spec.parallel.first_stage_layers = 4;
    l.spec.parallel.last_stage_layers = 2;
    plan_layout(&l, 16);
    pgr_state state = state_of(&l, 0);
    layers_are(&state, 0, 0, 0, 4);
    layers_are(&state, 1, 0, 4, 8);
    layers_are(&state, 2, 0, 12, 8);
    layers_are(&state, 3, 0, 20, 2);
    /* With two chunks each, by get_transformer_layer_offset. */
    assert_int_equal(pgr_state_set_virtual_stages(&state, 2, NULL), PGR_OK);
    layers_are(&state, 0, 0, 0, 2);
    layers_are(&state, 1, 0, 2, 4);
    layers_are(&state, 2, 0, 6, 4);
    layers_are(&state, 3, 0, 10, 1);
    layers_are(&state, 0, 1, 11, 2);
    layers_are(&state, 3, 1, 21, 1);
    l.spec.parallel.first_stage_layers = PGR_NIL;
    l.spec.model.layers = 20;
    layers_are(&state, 0, 0, 0, 3);
    layers_are(&state, 3, 0, 9, 1);
    layers_are(&state, 2, 1, 16, 3);
    pgr_spec_free(&l.spec);
}

static void layers_of_a_list(void **unused) {
    (void)unused;
    layout l;
    sixteen(&l);
    set_stages(&l, (int64_t[]){2, 4, 6, 0}, 4);
    plan_layout(&l, 16);
    pgr_state state = state_of(&l, 0);
    layers_are(&state, 0, 0, 0, 2); /* model.layers is not needed */
    layers_are(&state, 2, 0, 6, 6);
    layers_are(&state, 3, 0, 12, 0);
    assert_int_equal(pgr_state_set_virtual_stages(&state, 2, NULL), PGR_OK);
    layers_are(&state, 1, 0, 1, 2);
    layers_are(&state, 0, 1, 6, 1);
    layers_are(&state, 2, 1, 9, 3);
    /* An entry for each chunk, in the model's order: those of all stages, and once more. */
    set_stages(&l, (int64_t[]){1, 2, 3, 4, 5, 6, 7, 8}, 8);
    layers_are(&state, 0, 0, 0, 1);
    layers_are(&state, 3, 0, 6, 4);
    layers_are(&state, 0, 1, 10, 5);
    layers_are(&state, 3, 1, 28, 8);
    pgr_spec_free(&l.spec);
}

static void layers_refused(pgr_state *state, const char *part) {
    static pgr_error error;
    pgr_range range = {-7, -7};
    refused(pgr_state_layers(state, PGR_NIL, &range, &error), PGR_INVALID, &error, part);
    assert_int_equal(range.first, -7);
}

static void layers_that_do_not_work_out(void **unused) {
    (void)unused;
    static pgr_error error;
    layout l;
    sixteen(&l);
    plan_layout(&l, 16);
    pgr_state state = state_of(&l, 0);
    pgr_range range;
    layers_refused(&state, "model.layers");
    l.spec.model.layers = 30;
    layers_refused(&state, "layers = 30 do not divide over 4 stages");
    l.spec.model.layers = 32;
    refused(pgr_state_layers(&state, 4, &range, &error), PGR_INVALID, &error, "0 to 3");
    refused(pgr_state_layers(&state, -1, &range, &error), PGR_INVALID, &error, "stage -1");
    assert_int_equal(pgr_state_set_virtual_stages(&state, 3, NULL), PGR_OK);
    layers_refused(&state, "3 chunks");
    assert_int_equal(pgr_state_set_virtual_stages(&state, PGR_NIL, NULL), PGR_OK);
    l.spec.parallel.first_stage_layers = 4;
    layers_refused(&state, "less 4 at the ends leave 28 for 3");
    l.spec.parallel.first_stage_layers = INT64_MAX;
    l.spec.parallel.last_stage_layers = INT64_MAX;
    layers_refused(&state, "do not divide");
    l.spec.parallel.first_stage_layers = PGR_NIL;
    set_stages(&l, (int64_t[]){8, 8, 8, 8}, 4);
    layers_refused(&state, "leave first_stage_layers and last_stage_layers out");
    l.spec.parallel.last_stage_layers = PGR_NIL;
    layers_are(&state, 3, 0, 24, 8);
    l.spec.model.layers = 31;
    layers_refused(&state, "add up to 32, and layers = 31");
    set_stages(&l, (int64_t[]){8, 8, 8}, 3);
    layers_refused(&state, "3 entries for 4 stages");
    set_stages(&l, (int64_t[]){INT64_MAX, 1, 0, 0}, 4);
    layers_refused(&state, "63 bits");
    set_stages(&l, (int64_t[]){8, 8, 7, 8}, 4);
    assert_int_equal(pgr_state_set_virtual_stages(&state, 2, NULL), PGR_OK);
    layers_refused(&state, "stage_layers[3] = 7");
    pgr_spec_free(&l.spec);
}

/* What no config can hold, but a C program can give. */
static void layers_below_zero(void **unused) {
    (void)unused;
    layout l;
    sixteen(&l);
    l.spec.model.layers = 16;
    l.spec.parallel.vpp = 2;
    l.spec.parallel.first_stage_layers = 1;
    plan_layout(&l, 16);
    pgr_state state = state_of(&l, 0);
    layers_refused(&state, "first_stage_layers = 1 is not divisible by the 2 virtual stages");
    l.spec.parallel.first_stage_layers = -2;
    layers_refused(&state, "must be at least 0");
    l.spec.parallel.first_stage_layers = PGR_NIL;
    set_stages(&l, (const int64_t[]){8, -4, 4, 8}, 4);
    layers_refused(&state, "stage_layers[2] = -4 must be at least 0");
    pgr_spec_free(&l.spec);
}

static void experts_of_a_rank(void **unused) {
    (void)unused;
    static pgr_error error;
    layout l;
    pgr_spec_init(&l.spec);
    l.spec.parallel.tp = 2;
    l.spec.parallel.ep = 4;
    l.spec.parallel.etp = 1;
    plan_layout(&l, 8);
    pgr_state state = state_of(&l, 6);
    pgr_range range;
    refused(pgr_state_experts(&state, &range, &error), PGR_INVALID, &error, "moe.experts");
    l.spec.moe.experts = 8;
    assert_int_equal(pgr_state_experts(&state, &range, NULL), PGR_OK);
    assert_int_equal(range.first, 4); /* ep rank 2 */
    assert_int_equal(range.count, 2);
    l.spec.moe.experts = 10;
    refused(pgr_state_experts(&state, &range, &error), PGR_INVALID, &error, "ep = 4");
    assert_int_equal(pgr_state_override(&state, "ep", 5, 3, NULL), PGR_OK);
    assert_int_equal(pgr_state_experts(&state, &range, NULL), PGR_OK);
    assert_int_equal(range.first, 6);
    assert_int_equal(range.count, 2);
    refused(pgr_state_shard(&state, "tp", 7, &range, &error), PGR_INVALID, &error, "of 7");
    refused(pgr_state_shard(&state, "tp", -2, &range, &error), PGR_INVALID, &error, "of -2");
    refused(pgr_state_shard(&state, "tq", 8, &range, &error), PGR_INVALID, &error, "tq");
    assert_int_equal(pgr_state_shard(&state, "dp", 64, &range, NULL), PGR_OK);
    assert_int_equal(range.first, 48);
    assert_int_equal(range.count, 16);
    pgr_spec_free(&l.spec);
}

/* ---- the general grid ---- */

static void a_grid(layout *l, const char *const names[], const int64_t *sizes, int count) {
    pgr_spec_init(&l->spec);
    pgr_grid *grid = &l->spec.parallel.grid;
    grid->axes = calloc((size_t)count, sizeof *grid->axes);
    assert_non_null(grid->axes);
    grid->count = count;
    for (int i = 0; i < count; i++) {
        snprintf(grid->axes[i].name, PGR_NAME_MAX, "%s", names[i]);
        grid->axes[i].size = sizes[i];
    }
}

/* Sizes are the plan's: the short form of the spec says 1 everywhere. */
static void a_grid_with_a_pipeline(void **unused) {
    (void)unused;
    layout l;
    a_grid(&l, (const char *const[]){"tp", "mine", "pp", "ep"}, (int64_t[]){2, 3, 4, 2}, 4);
    l.spec.model.layers = 16;
    l.spec.moe.experts = 6;
    plan_layout(&l, 48);
    pgr_state state = state_of(&l, 47 - 6); /* tp 1, mine 2, pp 2, ep 1 */
    pgr_range range;
    assert_int_equal(pgr_state_stage(&state), 2);
    assert_int_equal(pgr_state_stages(&state), 4);
    layers_are(&state, PGR_NIL, 0, 8, 4);
    assert_int_equal(pgr_state_experts(&state, &range, NULL), PGR_OK);
    assert_int_equal(range.first, 3);
    assert_int_equal(range.count, 3);
    assert_int_equal(pgr_state_shard(&state, "mine", 9, &range, NULL), PGR_OK);
    assert_int_equal(range.first, 6);
    assert_int_equal(pgr_state_group_find(&state, "mine", &(pgr_state_group){0}, NULL), PGR_OK);
    pgr_spec_free(&l.spec);
}

static void a_grid_without_a_pipeline(void **unused) {
    (void)unused;
    layout l;
    a_grid(&l, (const char *const[]){"a", "b"}, (int64_t[]){2, 3}, 2);
    l.spec.model.layers = 5;
    l.spec.moe.experts = 7;
    plan_layout(&l, 6);
    pgr_state state = state_of(&l, 5);
    pgr_range range;
    assert_int_equal(pgr_state_stage(&state), 0);
    assert_int_equal(pgr_state_stages(&state), 1);
    assert_true(pgr_state_is_first_stage(&state, false) && pgr_state_is_last_stage(&state, false));
    layers_are(&state, PGR_NIL, 0, 0, 5);
    assert_int_equal(pgr_state_experts(&state, &range, NULL), PGR_OK); /* all of them */
    assert_int_equal(range.first, 0);
    assert_int_equal(range.count, 7);
    is_named(&l, 5, "b", "b-1-3-5");
    pgr_spec_free(&l.spec);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_of_megatrons_comment),
        cmocka_unit_test(layers_of_uneven_ends),
        cmocka_unit_test(layers_of_a_list),
        cmocka_unit_test(layers_that_do_not_work_out),
        cmocka_unit_test(layers_below_zero),
        cmocka_unit_test(experts_of_a_rank),
        cmocka_unit_test(a_grid_with_a_pipeline),
        cmocka_unit_test(a_grid_without_a_pipeline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
