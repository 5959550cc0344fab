/* deadline_test.c - deadlines against a clock that the test sets. */
#include "deadline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static double now;

double pgr_clock_seconds(void) {
    return now;
}

/* The time until the deadline has passed, of looks that are `step` seconds apart; -1: never. */
static double passes_after(double limit, double step) {
    now = 1000;
    pgr_deadline deadline = pgr_deadline_start(limit);
    for (int look = 1; look <= 100000; look++) {
        now = 1000 + look * step;
        if (pgr_deadline_passed(&deadline))
            return now - 1000;
    }
    return -1;
}

static void it_passes_at_the_first_look_after_the_limit(void **state) {
    static const double limits[] = {1, 2, 60, 300, 1e4};
    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        double after = passes_after(limits[i], 0.25);
        assert_true(after > limits[i] && after <= limits[i] + 0.25);
    }
}

static void a_limit_shorter_than_the_looks_passes_too(void **state) {
    (void)state;
    assert_true(passes_after(1e-9, 0.125) == 0.125);
    assert_true(passes_after(0.1, 0.0625) == 0.125);
    assert_true(passes_after(0.1, 0.5) == 0.5);
}

static void a_process_that_did_not_run_starts_over(void **state) {
    static const struct {
        double limit, stopped;
    } cases[] = {{0.1, 1.5}, {2, 1.5}, {2, 1000}, {60, 31}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double limit = cases[i].limit;
        now = 1000;
        pgr_deadline deadline = pgr_deadline_start(limit);
        now += limit * 0.45;
        assert_false(pgr_deadline_passed(&deadline));
        now += cases[i].stopped;
        assert_false(pgr_deadline_passed(&deadline));
        for (int look = 0; look < 2; look++) {
            now += limit * 0.45;
            assert_false(pgr_deadline_passed(&deadline));
        }
        now += limit * 0.45;
        assert_true(pgr_deadline_passed(&deadline));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_passes_at_the_first_look_after_the_limit),
        cmocka_unit_test(a_limit_shorter_than_the_looks_passes_too),
        cmocka_unit_test(a_process_that_did_not_run_starts_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
