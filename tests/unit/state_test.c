/* state_test.c - what a rank is told of itself: the examples of the systems that we follow, what a
 * dry run overrides, and refusals. What it holds is in state_holds_test.c, what is so for every
 * layout in state_random_test.c. */
#include "state_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

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
    assert_int_equal(group_of(&state, "embedding").size, 2); /* of its axis, and another */
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
