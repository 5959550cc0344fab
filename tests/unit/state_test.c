/* state_test.c - what a rank is told of itself: the examples of the systems that we follow, what a
 * dry run overrides, and refusals. What holds for every layout is in state_random_test.c. */
#include "state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* One layout, with room for the lists that a spec owns. */
typedef struct layout {
    pgr_spec spec;
    pgr_plan plan;
} layout;

static void set_stages(layout *l, const int64_t *items, int64_t count) {
    int64_t *copy = malloc((size_t)count * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, items, (size_t)count * sizeof *copy);
    free(l->spec.parallel.stage_layers.items);
    l->spec.parallel.stage_layers = (pgr_list){count, copy};
}

static void plan_layout(layout *l, int64_t world) {
    static pgr_error error;
    if (pgr_plan_create(&l->spec, world, &l->plan, &error) != PGR_OK)
        fail_msg("%s", error.message);
}

/* The 16 GPUs of vLLM's docstring: tp 2, pp 4, and so dp 2. */
static void sixteen(layout *l) {
    pgr_spec_init(&l->spec);
    l->spec.parallel.tp = 2;
    l->spec.parallel.pp = 4;
}

static pgr_state state_of(const layout *l, int64_t rank) {
    static pgr_error error;
    pgr_state state;
    if (pgr_state_create(&l->plan, &l->spec, rank, &state, &error) != PGR_OK)
        fail_msg("%s", error.message);
    return state;
}

static pgr_state_group group_of(const pgr_state *state, const char *family) {
    pgr_state_group group;
    assert_int_equal(pgr_state_group_find(state, family, &group, NULL), PGR_OK);
    return group;
}

/* The group's name says its family and all its members. */
static void is_named(const layout *l, int64_t rank, const char *family, const char *want) {
    pgr_state state = state_of(l, rank);
    pgr_state_group group = group_of(&state, family);
    char name[256];
    assert_int_equal(pgr_state_group_name(&group, name, sizeof name), strlen(want));
    assert_string_equal(name, want);
}

static void refused(pgr_status status, pgr_status want, const pgr_error *error, const char *part) {
    assert_int_equal(status, want);
    assert_int_equal(error->status, want);
    if (strstr(error->message, part) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error->message, part);
}

/* ---- groups ---- */

static void vllm_sixteen_gpus(void **unused) {
    (void)unused;
    layout l;
    sixteen(&l);
    plan_layout(&l, 16);
    is_named(&l, 0, "dp", "dp-0-2");
    is_named(&l, 7, "dp", "dp-5-7");
    is_named(&l, 15, "dp", "dp-13-15");
    is_named(&l, 1, "tp", "tp-0-1");
    is_named(&l, 14, "tp", "tp-14-15");
    is_named(&l, 8, "pp", "pp-0-4-8-12");
    is_named(&l, 7, "pp", "pp-3-7-11-15");
    is_named(&l, 5, "tp-pp", "tp-pp-0-1-4-5-8-9-12-13");

    pgr_state state = state_of(&l, 7);
    assert_int_equal(pgr_state_stage(&state), 1);
    assert_int_equal(pgr_state_stages(&state), 4);
    pgr_state_group pp = group_of(&state, "pp"), tp = group_of(&state, "tp");
    assert_int_equal(pp.index, 3);
    assert_int_equal(pp.rank, 1);
    assert_int_equal(pp.size, 4);
    assert_int_equal(pp.member_count, 4);
    assert_int_equal(pgr_state_group_source(&pp), 3); /* ..._first_rank */
    assert_int_equal(pgr_state_group_last(&pp), 15);
    assert_int_equal(pgr_state_group_next(&pp), 11);
    assert_int_equal(pgr_state_group_previous(&pp), 3);
    assert_int_equal(pgr_state_group_source(&tp), 6); /* ..._src_rank */
    pgr_state first = state_of(&l, 3), last = state_of(&l, 15);
    pgr_state_group ring = group_of(&first, "pp");
    assert_int_equal(pgr_state_group_previous(&ring), 15); /* around */
    ring = group_of(&last, "pp");
    assert_int_equal(pgr_state_group_next(&ring), 3);
    assert_true(tp.has_communicator && pp.has_communicator);
    pgr_spec_free(&l.spec);
}

static void a_group_of_one_has_a_name_and_no_communicator(void **unused) {
    (void)unused;
    layout l;
    sixteen(&l);
    plan_layout(&l, 16);
    pgr_state state = state_of(&l, 5);
    pgr_state_group cp = group_of(&state, "cp");
    assert_int_equal(cp.size, 1);
    assert_int_equal(cp.rank, 0);
    assert_false(cp.has_communicator);
    assert_int_equal(pgr_state_group_next(&cp), 5);
    assert_int_equal(pgr_state_group_previous(&cp), 5);
    is_named(&l, 5, "cp", "cp-5");
    pgr_spec_free(&l.spec);
}

static void a_rank_can_be_in_no_group(void **unused) {
    (void)unused;
    layout l;
    sixteen(&l);
    plan_layout(&l, 16);
    pgr_state state = state_of(&l, 4); /* stage 1 */
    pgr_state_group group = group_of(&state, "embedding");
    char name[4] = "xxx";
    assert_int_equal(group.index, -1);
    assert_int_equal(group.rank, -1);
    assert_int_equal(group.size, 0);
    assert_int_equal(group.member_count, 0);
    assert_false(group.has_communicator);
    assert_int_equal(pgr_state_group_source(&group), -1);
    assert_int_equal(pgr_state_group_last(&group), -1);
    assert_int_equal(pgr_state_group_next(&group), -1);
    assert_int_equal(pgr_state_group_previous(&group), -1);
    assert_int_equal(pgr_state_group_member(&group, 0), -1);
    assert_int_equal(pgr_state_group_name(&group, name, sizeof name), 0);
    assert_string_equal(name, "");
    is_named(&l, 0, "embedding", "embedding-0-12");
    pgr_spec_free(&l.spec);
}

static void a_long_name_is_cut_and_its_length_told(void **unused) {
    (void)unused;
    layout l;
    sixteen(&l);
    plan_layout(&l, 16);
    pgr_state state = state_of(&l, 1);
    pgr_state_group pp = group_of(&state, "pp");
    char name[6];
    assert_int_equal(pgr_state_group_name(&pp, name, sizeof name), strlen("pp-1-5-9-13"));
    assert_string_equal(name, "pp-1-");
    assert_int_equal(pgr_state_group_name(&pp, NULL, 0), strlen("pp-1-5-9-13"));
    pgr_spec_free(&l.spec);
}

static void ranks_are_offset_in_and_out(void **unused) {
    (void)unused;
    layout l;
    sixteen(&l);
    l.spec.parallel.rank_offset = 100;
    plan_layout(&l, 16);
    is_named(&l, 107, "pp", "pp-103-107-111-115");
    pgr_state state = state_of(&l, 107);
    pgr_state_group pp = group_of(&state, "pp");
    assert_int_equal(state.rank, 7);
    assert_int_equal(pgr_state_group_source(&pp), 103);
    assert_int_equal(pgr_state_group_next(&pp), 111);
    assert_int_equal(pp.index, 3);
    static pgr_error error;
    refused(pgr_state_create(&l.plan, &l.spec, 7, &state, &error), PGR_INVALID, &error,
            "rank 7 is not in this world of 16; its ranks are 100 to 115");
    refused(pgr_state_create(&l.plan, &l.spec, 116, &state, &error), PGR_INVALID, &error, "116");
    assert_int_equal(state.rank, 7); /* as it was */
    refused(pgr_state_group_find(&state, "tpp", &pp, &error), PGR_INVALID, &error, "\"tp\"");
    assert_int_equal(pp.index, 3);
    pgr_spec_free(&l.spec);
}

/* ---- stages ---- */

static void virtual_stages(void **unused) {
    (void)unused;
    static pgr_error error;
    layout l;
    sixteen(&l);
    l.spec.parallel.vpp = 3;
    plan_layout(&l, 16);
    pgr_state first = state_of(&l, 1), last = state_of(&l, 13);
    assert_int_equal(pgr_state_virtual_stages(&first), 3);
    assert_int_equal(pgr_state_virtual_stage(&first), 0);
    assert_true(pgr_state_is_first_stage(&first, false));
    assert_false(pgr_state_is_last_stage(&first, true));
    assert_true(pgr_state_is_last_stage(&last, true));
    assert_false(pgr_state_is_last_stage(&last, false)); /* virtual stage 0 */
    assert_int_equal(pgr_state_set_virtual_stage(&first, 2, NULL), PGR_OK);
    assert_int_equal(pgr_state_set_virtual_stage(&last, 2, NULL), PGR_OK);
    assert_int_equal(pgr_state_virtual_stage(&last), 2);
    assert_false(pgr_state_is_first_stage(&first, false));
    assert_true(pgr_state_is_first_stage(&first, true));
    assert_true(pgr_state_is_last_stage(&last, false));
    refused(pgr_state_set_virtual_stage(&last, 3, &error), PGR_INVALID, &error, "0 to 2");
    refused(pgr_state_set_virtual_stage(&last, -1, &error), PGR_INVALID, &error, "-1");
    assert_int_equal(pgr_state_virtual_stage(&last), 2);
    assert_int_equal(pgr_state_set_virtual_stages(&last, 2, NULL), PGR_OK);
    assert_int_equal(pgr_state_virtual_stages(&last), 2);
    assert_int_equal(pgr_state_virtual_stage(&last), 0);
    refused(pgr_state_set_virtual_stages(&last, 0, &error), PGR_INVALID, &error, "fewest is 1");
    assert_int_equal(pgr_state_set_virtual_stages(&last, PGR_NIL, NULL), PGR_OK);
    assert_true(pgr_state_virtual_stages(&last) == PGR_NIL);
    assert_true(pgr_state_virtual_stage(&last) == PGR_NIL);
    assert_true(pgr_state_is_last_stage(&last, false));
    refused(pgr_state_set_virtual_stage(&last, 0, &error), PGR_INVALID, &error, "parallel.vpp");
    pgr_spec_free(&l.spec);
}

/* Asks about a stage, as vLLM's functions with a rank in the pipeline. */
static void split_is(const pgr_state *state, int64_t stage, bool before, bool after) {
    assert_int_equal(pgr_state_is_before_split(state, stage), before);
    assert_int_equal(pgr_state_is_after_split(state, stage), after);
}

static void the_split(void **unused) {
    (void)unused;
    static pgr_error error;
    layout l;
    sixteen(&l);
    l.spec.parallel.pp_split = 2;
    plan_layout(&l, 16);
    is_named(&l, 0, "embedding", "embedding-0-8-12");
    is_named(&l, 8, "position-embedding", "position-embedding-0-8");
    pgr_state state = state_of(&l, 4); /* stage 1 */
    assert_int_equal(pgr_state_split(&state), 2);
    split_is(&state, PGR_NIL, true, false);
    split_is(&state, 1, true, false);
    split_is(&state, 2, false, true);
    assert_true(pgr_state_is_at_split(&state));
    pgr_state at = state_of(&l, 8);
    split_is(&at, PGR_NIL, false, true);
    assert_false(pgr_state_is_at_split(&at));
    at = state_of(&l, 0);
    assert_false(pgr_state_is_at_split(&at));
    assert_int_equal(pgr_state_set_split(&at, 1, NULL), PGR_OK);
    assert_true(pgr_state_is_at_split(&at));
    refused(pgr_state_set_split(&at, 4, &error), PGR_INVALID, &error, "1 to 3");
    refused(pgr_state_set_split(&at, 0, &error), PGR_INVALID, &error, "stage 0 of 4");
    assert_int_equal(pgr_state_split(&at), 1);
    assert_int_equal(pgr_state_set_split(&at, PGR_NIL, NULL), PGR_OK);
    split_is(&at, PGR_NIL, true, true);
    assert_true(pgr_state_is_at_split(&at));
    /* A dry run with one stage: everything is on both sides. */
    assert_int_equal(pgr_state_override(&state, "pp", 1, 0, NULL), PGR_OK);
    split_is(&state, PGR_NIL, true, true);
    refused(pgr_state_set_split(&state, 1, &error), PGR_INVALID, &error, "one stage");
    pgr_spec_free(&l.spec);
}

/* in_embedding_group of the rank at each virtual stage, and with virtual stages ignored. */
static void embedding_is(const layout *l, int64_t rank, bool any, bool first, bool last) {
    pgr_state state = state_of(l, rank);
    assert_int_equal(pgr_state_in_embedding_group(&state, true), any);
    assert_int_equal(pgr_state_in_embedding_group(&state, false), first);
    assert_int_equal(pgr_state_set_virtual_stage(&state, 1, NULL), PGR_OK);
    assert_int_equal(pgr_state_in_embedding_group(&state, true), any);
    assert_int_equal(pgr_state_in_embedding_group(&state, false), last);
}

static void the_embedding_group(void **unused) {
    (void)unused;
    layout l;
    sixteen(&l);
    l.spec.parallel.pp_split = 2;
    l.spec.parallel.vpp = 2;
    plan_layout(&l, 16);
    embedding_is(&l, 1, true, true, false);   /* first stage */
    embedding_is(&l, 5, false, false, false); /* stage 1 */
    embedding_is(&l, 9, true, true, true);    /* the split: at every virtual stage */
    embedding_is(&l, 13, true, false, true);  /* last stage */
    pgr_state split = state_of(&l, 9), last = state_of(&l, 13);
    assert_true(pgr_state_in_position_embedding_group(&split));
    assert_false(pgr_state_in_position_embedding_group(&last));
    /* An override moves the two virtual checks and not the group. */
    assert_int_equal(pgr_state_override(&last, "pp", PGR_NIL, 1, NULL), PGR_OK);
    assert_int_equal(pgr_state_set_virtual_stage(&last, 1, NULL), PGR_OK);
    assert_true(pgr_state_in_embedding_group(&last, true));
    assert_false(pgr_state_in_embedding_group(&last, false));
    pgr_spec_free(&l.spec);
}

/* ---- dry runs ---- */

static void overrides_answer_instead_of_the_plan(void **unused) {
    (void)unused;
    layout l;
    sixteen(&l);
    l.spec.model.layers = 24;
    plan_layout(&l, 16);
    pgr_state state = state_of(&l, 0);
    assert_int_equal(pgr_state_override(&state, "tp", 8, 5, NULL), PGR_OK);
    pgr_state_group tp = group_of(&state, "tp"), etp = group_of(&state, "etp");
    assert_int_equal(tp.size, 8);
    assert_int_equal(tp.rank, 5);
    assert_int_equal(tp.member_count, 2);
    assert_int_equal(tp.index, 0);
    assert_true(tp.has_communicator);
    assert_int_equal(pgr_state_group_member(&tp, 1), 1);
    assert_int_equal(pgr_state_group_source(&tp), 0);
    assert_int_equal(pgr_state_group_next(&tp), -1); /* place 6 of 2 */
    assert_int_equal(etp.size, 2);                   /* the same ranks, another family */
    pgr_range range;
    assert_int_equal(pgr_state_shard(&state, "tp", 64, &range, NULL), PGR_OK);
    assert_int_equal(range.first, 40);
    assert_int_equal(range.count, 8);

    assert_int_equal(pgr_state_override(&state, "pp", 6, 5, NULL), PGR_OK);
    assert_int_equal(pgr_state_stage(&state), 5);
    assert_int_equal(pgr_state_stages(&state), 6);
    assert_true(pgr_state_is_last_stage(&state, false));
    assert_int_equal(pgr_state_layers(&state, PGR_NIL, &range, NULL), PGR_OK);
    assert_int_equal(range.first, 20);
    assert_int_equal(range.count, 4);
    assert_int_equal(pgr_state_override(&state, "pp", PGR_NIL, 2, NULL), PGR_OK);
    assert_int_equal(pgr_state_stages(&state), 4);
    pgr_state_group pp = group_of(&state, "pp");
    assert_int_equal(pgr_state_group_next(&pp), 12);
    assert_int_equal(pgr_state_group_previous(&pp), 4);
    assert_int_equal(pgr_state_override(&state, "pp", PGR_NIL, PGR_NIL, NULL), PGR_OK);
    assert_int_equal(pgr_state_stage(&state), 0);
    assert_int_equal(group_of(&state, "tp").size, 8); /* still */
    pgr_spec_free(&l.spec);
}

static void a_family_is_one_in_each_spelling(void **unused) {
    (void)unused;
    layout l;
    sixteen(&l);
    plan_layout(&l, 16);
    pgr_state state = state_of(&l, 0);
    assert_int_equal(pgr_state_override(&state, "tp-dp", 5, 4, NULL), PGR_OK);
    assert_int_equal(group_of(&state, "dp-tp").size, 5);
    assert_int_equal(pgr_state_override(&state, "dp-tp", 6, 0, NULL), PGR_OK);
    assert_int_equal(state.override_count, 1);
    assert_int_equal(group_of(&state, "tp-dp").size, 6);
    /* cp and dp-cp of other axes stay, and so do families of the stages of pp. */
    assert_int_equal(pgr_state_override(&state, "cp", 2, 1, NULL), PGR_OK);
    assert_int_equal(pgr_state_override(&state, "embedding", 9, 8, NULL), PGR_OK);
    assert_int_equal(group_of(&state, "pp").size, 4);
    assert_int_equal(group_of(&state, "ep").size, 1);
    assert_int_equal(group_of(&state, "embedding").size, 9);
    assert_int_equal(pgr_state_override(&state, "tp-dp", PGR_NIL, PGR_NIL, NULL), PGR_OK);
    assert_int_equal(group_of(&state, "tp-dp").size, 4);
    assert_int_equal(group_of(&state, "cp").size, 2);
    assert_int_equal(group_of(&state, "embedding").size, 9);
    pgr_spec_free(&l.spec);
}

static void overrides_are_refused(void **unused) {
    (void)unused;
    static pgr_error error;
    static const char *const many[PGR_OVERRIDES_MAX] = {
        "tp",    "cp",       "dp", "dp-cp", "pp",  "tp-pp", "tp-cp",  "tp-dp",
        "cp-pp", "tp-dp-cp", "ep", "etp",   "edp", "ep-pp", "ep-etp", "edp-pp"};
    layout l;
    sixteen(&l);
    plan_layout(&l, 16);
    pgr_state state = state_of(&l, 1);
    refused(pgr_state_override(&state, "tq", 2, 0, &error), PGR_INVALID, &error, "tq");
    refused(pgr_state_override(&state, "tp", 0, 0, &error), PGR_INVALID, &error, "smallest size");
    refused(pgr_state_override(&state, "tp", 4, 4, &error), PGR_INVALID, &error, "rank 4");
    refused(pgr_state_override(&state, "tp", PGR_NIL, -1, &error), PGR_INVALID, &error, "0 to 1");
    refused(pgr_state_override(&state, "tp", 1, PGR_NIL, &error), PGR_INVALID, &error,
            "the plan's rank 1");
    pgr_state middle = state_of(&l, 4);
    refused(pgr_state_override(&middle, "embedding", 2, 1, &error), PGR_INVALID, &error,
            "rank 4 is in no group");
    assert_int_equal(state.override_count, 0);
    for (int i = 0; i < PGR_OVERRIDES_MAX; i++)
        assert_int_equal(pgr_state_override(&state, many[i], 7, 0, NULL), PGR_OK);
    refused(pgr_state_override(&state, "dp-pp", 7, 0, &error), PGR_LIMIT, &error, "16 families");
    assert_int_equal(pgr_state_override(&state, "cp", 8, 0, NULL), PGR_OK); /* one that is there */
    pgr_spec_free(&l.spec);
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
        cmocka_unit_test(vllm_sixteen_gpus),
        cmocka_unit_test(a_group_of_one_has_a_name_and_no_communicator),
        cmocka_unit_test(a_rank_can_be_in_no_group),
        cmocka_unit_test(a_long_name_is_cut_and_its_length_told),
        cmocka_unit_test(ranks_are_offset_in_and_out),
        cmocka_unit_test(virtual_stages),
        cmocka_unit_test(the_split),
        cmocka_unit_test(the_embedding_group),
        cmocka_unit_test(overrides_answer_instead_of_the_plan),
        cmocka_unit_test(a_family_is_one_in_each_spelling),
        cmocka_unit_test(overrides_are_refused),
        cmocka_unit_test(layers_of_megatrons_comment),
        cmocka_unit_test(layers_of_uneven_ends),
        cmocka_unit_test(layers_of_a_list),
        cmocka_unit_test(layers_that_do_not_work_out),
        cmocka_unit_test(experts_of_a_rank),
        cmocka_unit_test(a_grid_with_a_pipeline),
        cmocka_unit_test(a_grid_without_a_pipeline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
