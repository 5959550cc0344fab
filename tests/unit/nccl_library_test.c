/* nccl_library_test.c - what is decided about NCCL without it: unique ids and who makes them, and
 * the configuration that each version takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "comm_nccl.h"

static pgr_error error;

/* rootIdFromRank of NCCL's bootstrap.cc, 2.23 to 2.28: which id a rank reports to. */
static int64_t nccl_root_of(int64_t rank, int64_t ranks, int64_t roots) {
    int64_t larger = ranks % roots, each = ranks / roots, first = larger * (each + 1);
    return rank < first ? rank / (each + 1) : (rank - first) / each + larger;
}

/* Each id is made by the first of the ranks that report to it. */
static void test_root_ranks(void **state) {
    (void)state;
    for (int64_t ranks = 1; ranks <= 300; ranks++)
        for (int64_t roots = 1; roots <= ranks; roots += 1 + roots / 16)
            for (int64_t rank = 0; rank < ranks; rank++) {
                int64_t root = nccl_root_of(rank, ranks, roots);
                bool first = rank == 0 || nccl_root_of(rank - 1, ranks, roots) != root;
                assert_int_equal(first, pgr_nccl_root_rank(ranks, roots, root) == rank);
            }
    assert_int_equal(pgr_nccl_root_rank(1000000, 3907, 3906), 1000000 - 255);
}

static void test_roots(void **state) {
    (void)state;
    unsetenv("PGRUN_NCCL_RANKS_PER_ROOT");
    assert_int_equal(pgr_nccl_roots(1, true), 1);
    assert_int_equal(pgr_nccl_roots(256, true), 1);
    assert_int_equal(pgr_nccl_roots(257, true), 2);
    assert_int_equal(pgr_nccl_roots(512, true), 2);
    assert_int_equal(pgr_nccl_roots(513, true), 3);
    assert_int_equal(pgr_nccl_roots(1000000, true), 3907);
    assert_int_equal(pgr_nccl_roots(1000000, false), 1);
}

/* sizeof(ncclConfig_t), and the version that is told, by version of the library: the tags of NCCL's
 * nccl.h.in. */
static void test_config_sizes(void **state) {
    static const struct {
        int version;
        size_t size;
        unsigned int told;
        bool named;
    } known[] = {{21803, 48, 21803, false}, {21903, 48, 21903, false}, {22304, 48, 22304, false},
                 {22602, 48, 22602, false}, {22703, 72, 22703, true},  {22707, 72, 22707, true},
                 {22803, 80, 22800, true},  {22809, 80, 22800, true},  {22907, 80, 22800, true},
                 {23007, 80, 22800, true}};
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        pgr_nccl_config made;
        assert_int_equal(pgr_nccl_config_fill(known[i].version, "pgrun tp 3", NULL, &made, &error),
                         PGR_OK);
        assert_int_equal(made.size, known[i].size);
        assert_int_equal(made.version, known[i].told);
        assert_int_equal(made.magic, 0xcafebeef);
        assert_int_equal(made.blocking, 0);
        assert_int_equal(made.comm_name != NULL, known[i].named);
        assert_null(made.net_name);
        const int *numbers[] = {&made.cga_cluster_size, &made.min_ctas,
                                &made.max_ctas,         &made.split_share,
                                &made.traffic_class,    &made.collnet_enable,
                                &made.cta_policy,       &made.shrink_share,
                                &made.nvls_ctas,        &made.channels_per_net_peer,
                                &made.nvlink_centric};
        for (size_t j = 0; j < sizeof numbers / sizeof *numbers; j++)
            assert_int_equal(*numbers[j], NCCL_CONFIG_UNDEF_INT);
    }
}

static void test_options(void **state) {
    pgr_nccl_options options = {.family = "tp",
                                .max_ctas = 16,
                                .cga_cluster_size = 0,
                                .traffic_class = INT_MAX,
                                .split_share = true,
                                .net_name = "IB"};
    pgr_nccl_config made;
    (void)state;
    assert_int_equal(pgr_nccl_config_fill(22602, "", &options, &made, &error), PGR_OK);
    assert_int_equal(made.max_ctas, 16);
    assert_int_equal(made.cga_cluster_size, 0);
    assert_int_equal(made.traffic_class, INT_MAX);
    assert_int_equal(made.split_share, 1);
    assert_string_equal(made.net_name, "IB");
    assert_int_equal(pgr_nccl_config_fill(22501, "", &options, &made, &error), PGR_UNSUPPORTED);
    assert_string_equal(error.message,
                        "run.nccl.tp.traffic_class needs NCCL 2.26 or later, this one is 2.25.1: "
                        "leave it out or update NCCL");
    options.traffic_class = PGR_NIL;
    assert_int_equal(pgr_nccl_config_fill(22501, "", &options, &made, &error), PGR_OK);
    assert_int_equal(made.traffic_class, NCCL_CONFIG_UNDEF_INT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_root_ranks),
        cmocka_unit_test(test_roots),
        cmocka_unit_test(test_config_sizes),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
