/* groups_rank_test.c - what `pgrun groups --rank` tells of a rank beside its groups. */
#include "groups_rank.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static pgr_spec spec;

/* tp 2 and pp 4 of 8 ranks: stage s are the ranks 2 * s and 2 * s + 1. */
static int begin(void **unused) {
    (void)unused;
    pgr_spec_init(&spec);
    spec.parallel.tp = 2;
    spec.parallel.pp = 4;
    return 0;
}

static int end(void **unused) {
    (void)unused;
    pgr_spec_free(&spec);
    return 0;
}

static void tells(int64_t rank, const char *want) {
    pgr_plan plan;
    char text[PGR_GROUPS_HOLDS_MAX];
    assert_int_equal(pgr_plan_create(&spec, PGR_NIL, &plan, NULL), PGR_OK);
    pgr_groups_rank_holds(&plan, &spec, rank, text);
    assert_string_equal(text, want);
}

static void only_what_the_config_gives(void **unused) {
    (void)unused;
    tells(3, "stage 1 of 4\n");
    spec.model.layers = 30; /* they do not divide: no matter of groups */
    tells(3, "stage 1 of 4: layers not known: pgrun check tells why\n");
    spec.model.layers = 32;
    tells(3, "stage 1 of 4: layers 8 to 15\n");
    spec.parallel.pp = 1;
    spec.model.layers = PGR_NIL;
    tells(1, "");
    spec.model.layers = 3;
    tells(1, "layers 0 to 2\n");
    spec.parallel.rank_offset = 10;
    tells(11, "layers 0 to 2\n");
    tells(12, "");
    tells(1, "");
    tells(PGR_NIL, "");
}

static void layers_of_virtual_stages(void **unused) {
    (void)unused;
    spec.parallel.vpp = 2;
    spec.model.layers = 16;
    tells(3, "stage 1 of 4: layers 2 to 3, 10 to 11\n");
    spec.model.layers = 8;
    tells(7, "stage 3 of 4: layers 3, 7\n");
    spec.parallel.vpp = 9;
    spec.model.layers = 36;
    tells(0, "stage 0 of 4: layers 0, 4, 8, 12, 16, 20, 24, 28, ...\n");
    spec.parallel.vpp = INT64_C(1) << 40;
    tells(0, "stage 0 of 4: layers not known: pgrun check tells why\n");
}

static void layers_of_a_list(void **unused) {
    (void)unused;
    spec.parallel.stage_layers = (pgr_list){4, (int64_t[]){1, 2, 0, 3}};
    tells(0, "stage 0 of 4: layer 0\n");
    tells(2, "stage 1 of 4: layers 1 to 2\n");
    tells(4, "stage 2 of 4: no layers\n");
    tells(6, "stage 3 of 4: layers 3 to 5\n");
    spec.parallel.vpp = 2;
    spec.parallel.stage_layers = (pgr_list){8, (int64_t[]){1, 0, 0, 3, 1, 1, 0, 3}};
    tells(2, "stage 1 of 4: layer 5\n");
    spec.parallel.stage_layers = (pgr_list){0, NULL};
}

static void experts(void **unused) {
    (void)unused;
    spec.parallel.pp = 1;
    spec.parallel.ep = 4;
    spec.parallel.etp = 1;
    spec.moe.experts = 8;
    tells(3, "experts 6 to 7 of 8\n");
    spec.moe.experts = 4;
    tells(2, "expert 2 of 4\n");
    spec.moe.experts = 6;
    tells(2, "experts not known: pgrun check tells why\n");
    spec.parallel.ep = 1;
    tells(1, "experts 0 to 5 of 6\n");
    spec.parallel.pp = 2;
    spec.model.layers = 4;
    spec.has_moe = true;
    spec.moe.layer_pattern = (pgr_list){4, (int64_t[]){0, 0, 0, 1}};
    tells(0, "stage 0 of 2: layers 0 to 1\nno experts: its layers are dense\n");
    tells(2, "stage 1 of 2: layers 2 to 3\nexperts 0 to 5 of 6\n");
    spec.moe.layer_pattern = (pgr_list){0, NULL};
}

static void embeddings(void **unused) {
    (void)unused;
    spec.model.vocab = 1000;
    tells(0, "stage 0 of 4\nholds the embedding\n");
    tells(2, "stage 1 of 4\n");
    tells(7, "stage 3 of 4\nholds the output layer\n");
    spec.model.tie_embeddings = true;
    tells(0, "stage 0 of 4\nholds the embedding\n");
    tells(7, "stage 3 of 4\nholds a copy of the embedding as the output layer\n");
    spec.parallel.pp_split = 2;
    tells(4, "stage 2 of 4\nholds the embedding\n");
    spec.parallel.pp = 1;
    spec.parallel.pp_split = PGR_NIL;
    tells(1, "holds the embedding, which is the output layer too\n");
    spec.model.tie_embeddings = false;
    tells(1, "holds the embedding and the output layer\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_what_the_config_gives, begin, end),
        cmocka_unit_test_setup_teardown(layers_of_virtual_stages, begin, end),
        cmocka_unit_test_setup_teardown(layers_of_a_list, begin, end),
        cmocka_unit_test_setup_teardown(experts, begin, end),
        cmocka_unit_test_setup_teardown(embeddings, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
