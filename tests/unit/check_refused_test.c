/* check_refused_test.c - all problems at once: where planning refuses a layout, the rules that need
 * no more than what is known of it are told all the same. */
#include "check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A layout with zeros for what is left at its default, and the codes it gives, in order. */
typedef struct row {
    int64_t world, tp, cp, pp, ep, etp, dp, vpp, instances, batch, node;
    const char *order, *codes;
} row;

static const row rows[] = {
    {.world = 12, .tp = 2, .vpp = 2, .batch = 7, .node = 8, .codes = "PG017 PG026 PG057"},
    {.world = 12, .tp = 2, .etp = 1, .ep = 8, .batch = 7, .node = 12, .codes = "PG011 PG026 PG060"},
    {.world = 12, .tp = 2, .etp = 1, .ep = 8, .node = 8, .codes = "PG011 PG057"},
    {.world = 12, .tp = 2, .etp = 1, .ep = 8, .instances = 4, .codes = "PG011 PG028"},
    {.world = 100, .tp = 16, .node = 8, .codes = "PG010 PG051 PG057"},
    {.world = 100, .tp = 8, .pp = 2, .dp = 4, .batch = 7, .codes = "PG010 PG026"},
    {.world = 100, .tp = 8, .pp = 2, .batch = 7, .codes = "PG010"},
    {.world = 100, .tp = 8, .pp = 2, .instances = 7, .codes = "PG010"},
    {.world = 16, .tp = 2, .dp = 4, .instances = 3, .codes = "PG018 PG028"},
    {.world = 16, .tp = 16, .dp = 4, .codes = "PG018"},
    {.world = 16, .tp = 16, .order = "tp-tp", .codes = "PG013 PG058"},
    {.world = 16, .tp = 2, .order = "tp-tp", .node = 1, .codes = "PG013"},
    {.world = 100, .tp = 3, .pp = 2, .etp = 1, .order = "tp-pp-dp", .codes = "PG010 PG016 PG015"},
    {.world = 100, .tp = 3, .etp = 1, .ep = 4, .order = "tp-ep", .codes = "PG010 PG014"},
    {.tp = INT64_C(1) << 40, .cp = INT64_C(1) << 40, .etp = 1, .node = 8, .codes = "PG019"},
    {.tp = 8, .instances = 2, .codes = ""},
    {.tp = 8, .ep = 2, .etp = 1, .instances = 6, .batch = 12, .codes = "PG060"},
    {.tp = 8, .instances = 2, .batch = 7, .codes = "PG026"},
};

static void set(int64_t *field, int64_t value) {
    if (value != 0)
        *field = value;
}

static void spec_of(const row *r, pgr_spec *spec) {
    pgr_spec_init(spec);
    set(&spec->world_size, r->world);
    set(&spec->parallel.tp, r->tp);
    set(&spec->parallel.cp, r->cp);
    set(&spec->parallel.pp, r->pp);
    set(&spec->parallel.ep, r->ep);
    set(&spec->parallel.etp, r->etp);
    set(&spec->parallel.dp, r->dp);
    set(&spec->parallel.vpp, r->vpp);
    set(&spec->parallel.optimizer_instances, r->instances);
    set(&spec->model.global_batch, r->batch);
    set(&spec->cluster.gpus_per_node, r->node);
    spec->has_model = r->batch != 0;
    if (r->order != NULL)
        snprintf(spec->parallel.order, sizeof spec->parallel.order, "%s", r->order);
}

static void join_codes(const pgr_diagnostics *found, char *text, size_t bytes) {
    text[0] = '\0';
    for (int64_t i = 0; i < found->count; i++) {
        size_t used = strlen(text);
        if (found->items[i].severity != PGR_NOTE)
            snprintf(text + used, bytes - used, "%s%s", used > 0 ? " " : "",
                     found->items[i].rule->code);
    }
}

static void all_at_once(void **state) {
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pgr_spec spec;
        pgr_diagnostics found = {0};
        int64_t world;
        char codes[200];
        spec_of(&rows[i], &spec);
        pgr_check(&spec, PGR_NIL, &world, &found);
        join_codes(&found, codes, sizeof codes);
        if (strcmp(codes, rows[i].codes) != 0) {
            print_error("row %zu: %s, not %s\n", i, codes, rows[i].codes);
            wrong++;
        }
        pgr_diagnostics_free(&found);
        pgr_spec_free(&spec);
    }
    assert_int_equal(wrong, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
