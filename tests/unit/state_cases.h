/* state_cases.h - what the tests of a rank's state share: a layout, its states and groups. */
#ifndef PGR_TEST_STATE_CASES_H
#define PGR_TEST_STATE_CASES_H

#include "state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

typedef struct layout {
    pgr_spec spec;
    pgr_plan plan;
} layout;

static inline void plan_layout(layout *l, int64_t world) {
    static pgr_error error;
    if (pgr_plan_create(&l->spec, world, &l->plan, &error) != PGR_OK)
        fail_msg("%s", error.message);
}

/* The 16 GPUs of vLLM's docstring: tp 2, pp 4, and so dp 2. */
static inline void sixteen(layout *l) {
    pgr_spec_init(&l->spec);
    l->spec.parallel.tp = 2;
    l->spec.parallel.pp = 4;
}

static inline pgr_state state_of(const layout *l, int64_t rank) {
    static pgr_error error;
    pgr_state state;
    if (pgr_state_create(&l->plan, &l->spec, rank, &state, &error) != PGR_OK)
        fail_msg("%s", error.message);
    return state;
}

static inline pgr_state_group group_of(const pgr_state *state, const char *family) {
    pgr_state_group group;
    assert_int_equal(pgr_state_group_find(state, family, &group, NULL), PGR_OK);
    return group;
}

/* The group's name says its family and all its members. */
static inline void is_named(const layout *l, int64_t rank, const char *family, const char *want) {
    pgr_state state = state_of(l, rank);
    pgr_state_group group = group_of(&state, family);
    char name[256];
    assert_int_equal(pgr_state_group_name(&group, name, sizeof name), strlen(want));
    assert_string_equal(name, want);
}

static inline void refused(pgr_status status, pgr_status want, const pgr_error *error,
                           const char *part) {
    assert_int_equal(status, want);
    assert_int_equal(error->status, want);
    if (strstr(error->message, part) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", error->message, part);
}

#endif
