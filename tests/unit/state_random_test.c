/* state_random_test.c - what holds of every rank of every layout, over random ones from a fixed
 * seed: groups against a naive enumeration, layers that cover the model once and agree with the
 * rules of `pgrun check`, shards that cover a dimension. */
#include "check.h"
#include "draw.h"
#include "state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYOUTS = 200, WORLD_MAX = 96, LAYER_LAYOUTS = 30000, STAGES_MAX = 6, CHUNKS_MAX = 4 };

/* ---- groups ---- */

static void draw_spec(pgr_spec *spec) {
    pgr_spec_init(spec);
    int64_t rest = spec->world_size = 1 + draw(WORLD_MAX);
    spec->parallel.pp = draw(2) == 0 ? 1 : draw_divisor(rest);
    rest /= spec->parallel.pp;
    spec->parallel.tp = draw_divisor(rest);
    spec->parallel.cp = draw_divisor(rest / spec->parallel.tp);
    spec->parallel.etp = draw_divisor(rest);
    spec->parallel.ep = draw_divisor(rest / spec->parallel.etp);
    spec->parallel.hybrid_cp = draw(3) == 0;
    spec->parallel.rank_offset = draw(2) * 1000;
    if (draw(3) == 0)
        spec->parallel.optimizer_instances = 1 + draw(4);
    if (spec->parallel.pp > 1 && draw(2) == 0)
        spec->parallel.pp_split = 1 + draw(spec->parallel.pp - 1);
    draw_order(spec->parallel.order);
}

static void on_random_layouts(void (*check)(const pgr_spec *spec, const pgr_plan *plan)) {
    generator_state = 20261121;
    for (int legal = 0; legal < LAYOUTS;) {
        pgr_spec spec;
        pgr_plan plan;
        draw_spec(&spec);
        if (pgr_plan_create(&spec, PGR_NIL, &plan, NULL) == PGR_OK) {
            check(&spec, &plan);
            legal++;
        }
        pgr_spec_free(&spec);
    }
}

static pgr_state_group group_of(const pgr_plan *plan, const pgr_spec *spec, int64_t rank,
                                const char *family) {
    pgr_state state;
    pgr_state_group group;
    assert_int_equal(pgr_state_create(plan, spec, rank, &state, NULL), PGR_OK);
    assert_int_equal(pgr_state_group_find(&state, family, &group, NULL), PGR_OK);
    return group;
}

/* Everything about the neighbours of one rank in one family. */
static void check_neighbours(const pgr_spec *spec, const pgr_plan *plan, int64_t rank,
                             const char *family) {
    pgr_state_group g = group_of(plan, spec, rank, family);
    if (g.index < 0) {
        assert_int_equal(pgr_state_group_next(&g), -1);
        return;
    }
    int64_t next = pgr_state_group_next(&g), previous = pgr_state_group_previous(&g);
    pgr_state_group after = group_of(plan, spec, next, family);
    pgr_state_group before = group_of(plan, spec, previous, family);
    assert_int_equal(pgr_state_group_previous(&after), rank);
    assert_int_equal(pgr_state_group_next(&before), rank);
    assert_int_equal(after.index, g.index);
    assert_int_equal(after.rank, (g.rank + 1) % g.size);
    assert_int_equal(pgr_state_group_member(&g, g.rank), rank);
    assert_int_equal(pgr_state_group_member(&g, g.size), -1);
    int64_t source = pgr_state_group_source(&g);
    pgr_state_group of_source = group_of(plan, spec, source, family);
    assert_int_equal(of_source.rank, 0);
    assert_int_equal(of_source.index, g.index);
    assert_int_equal(group_of(plan, spec, pgr_state_group_last(&g), family).rank, g.size - 1);
    assert_int_equal(g.has_communicator, next != rank);
}

static void check_all_neighbours(const pgr_spec *spec, const pgr_plan *plan) {
    int32_t count = pgr_plan_family_count(plan);
    for (int32_t f = 0; f < count; f++) {
        pgr_family family = pgr_plan_family_at(plan, f);
        for (int64_t rank = 0; rank < plan->world_size; rank++)
            check_neighbours(spec, plan, plan->rank_offset + rank, family.name);
    }
}

static void neighbours_and_sources(void **unused) {
    (void)unused;
    on_random_layouts(check_all_neighbours);
}

/* The place of a rank on an axis of the dense or the expert view, by walking the order. */
static int64_t naive_coordinate(const pgr_spec *s, const char *axis, int64_t rank) {
    bool expert = axis[0] == 'e';
    const char *base = expert && strcmp(axis, "ep") != 0 ? axis + 1 : axis;
    int64_t etp = s->parallel.etp, tp = expert ? etp : s->parallel.tp;
    int64_t cp = expert ? 1 : s->parallel.cp, ep = expert ? s->parallel.ep : 1;
    int64_t dp = s->world_size / (tp * cp * ep * s->parallel.pp), stride = 1;
    for (const char *at = s->parallel.order; *at != '\0'; at += at[2] == '-' ? 3 : 2) {
        int64_t size = at[0] == 't'   ? tp
                       : at[0] == 'c' ? cp
                       : at[0] == 'e' ? ep
                       : at[0] == 'd' ? dp
                                      : s->parallel.pp;
        if (strncmp(at, base, 2) == 0)
            return rank / stride % size;
        stride *= size;
    }
    return -1;
}

/* Whether two ranks differ in the family's axes alone. */
static bool naive_together(const pgr_spec *s, const char *family, int64_t a, int64_t b) {
    static const char *const dense[] = {"tp", "cp", "dp", "pp"};
    static const char *const expert[] = {"etp", "ep", "edp", "pp"};
    const char *const *axes = family[0] == 'e' ? expert : dense;
    for (int i = 0; i < 4; i++) {
        bool inside = false;
        for (const char *token = family; *token != '\0';
             token += strcspn(token, "-"), token += *token == '-')
            inside = inside || (strncmp(token, axes[i], strlen(axes[i])) == 0 &&
                                strcspn(token, "-") == strlen(axes[i]));
        if (!inside && naive_coordinate(s, axes[i], a) != naive_coordinate(s, axes[i], b))
            return false;
    }
    return true;
}

static void check_enumeration(const pgr_spec *spec, const pgr_plan *plan) {
    static const char *const families[] = {"tp",    "cp",       "dp", "dp-cp", "pp",     "tp-pp",
                                           "tp-dp", "tp-dp-cp", "ep", "etp",   "etp-ep", "edp"};
    for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
        for (int64_t rank = 0; rank < plan->world_size; rank++) {
            pgr_state_group g = group_of(plan, spec, plan->rank_offset + rank, families[f]);
            int64_t place = 0;
            for (int64_t other = 0; other < plan->world_size; other++) {
                if (!naive_together(spec, families[f], rank, other))
                    continue;
                if (other == rank)
                    assert_int_equal(g.rank, place);
                if (place == 0) /* the smallest member */
                    assert_int_equal(pgr_state_group_source(&g), plan->rank_offset + other);
                assert_int_equal(pgr_state_group_member(&g, place), plan->rank_offset + other);
                place++;
            }
            assert_int_equal(g.size, place);
        }
    }
}

static void groups_are_those_of_an_enumeration(void **unused) {
    (void)unused;
    on_random_layouts(check_enumeration);
}

static void check_stages(const pgr_spec *spec, const pgr_plan *plan) {
    for (int64_t rank = 0; rank < plan->world_size; rank++) {
        pgr_state state;
        assert_int_equal(pgr_state_create(plan, spec, plan->rank_offset + rank, &state, NULL),
                         PGR_OK);
        int64_t stage = naive_coordinate(spec, "pp", rank), pp = spec->parallel.pp;
        int64_t split = spec->parallel.pp_split;
        assert_int_equal(pgr_state_stage(&state), stage);
        assert_int_equal(pgr_state_stages(&state), pp);
        assert_int_equal(pgr_state_is_first_stage(&state, false), stage == 0);
        assert_int_equal(pgr_state_is_last_stage(&state, false), stage == pp - 1);
        assert_int_equal(pgr_state_in_embedding_group(&state, false),
                         stage == 0 || stage == pp - 1 || stage == split);
        assert_int_equal(pgr_state_in_position_embedding_group(&state),
                         stage == 0 || stage == split);
        assert_int_equal(pgr_state_is_before_split(&state, PGR_NIL),
                         split == PGR_NIL || stage < split);
        assert_int_equal(pgr_state_is_after_split(&state, PGR_NIL),
                         split == PGR_NIL || stage >= split);
        assert_int_equal(pgr_state_is_at_split(&state), split == PGR_NIL || stage == split - 1);
    }
}

static void stages_are_those_of_an_enumeration(void **unused) {
    (void)unused;
    on_random_layouts(check_stages);
}

/* The shares of a group's members lie side by side and fill the dimension; so do experts. */
static void check_shares(const pgr_spec *given, const pgr_plan *plan) {
    static const char *const families[] = {"tp", "dp-cp", "etp-ep", "ep"};
    pgr_spec spec = *given;
    spec.moe.experts = 3 * spec.parallel.ep;
    for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
        for (int64_t rank = 0; rank < plan->world_size; rank++) {
            pgr_state_group g = group_of(plan, &spec, plan->rank_offset + rank, families[f]);
            int64_t at = 0;
            for (int64_t i = 0; g.rank == 0 && i < g.size; i++) {
                pgr_state state;
                pgr_range shard, experts;
                pgr_state_create(plan, &spec, pgr_state_group_member(&g, i), &state, NULL);
                assert_int_equal(pgr_state_shard(&state, families[f], 3 * g.size, &shard, NULL),
                                 PGR_OK);
                assert_int_equal(pgr_state_experts(&state, &experts, NULL), PGR_OK);
                assert_int_equal(shard.first, at);
                assert_true(strcmp(families[f], "ep") != 0 ||
                            (experts.first == at && experts.count == shard.count));
                at += shard.count;
            }
            assert_true(g.rank != 0 || at == 3 * g.size);
        }
    }
}

static void shards_cover_the_dimension(void **unused) {
    (void)unused;
    on_random_layouts(check_shares);
}

/* ---- layers ---- */

/* Ends or lists of small numbers, near enough to what fits that many of them do. */
static void draw_layers(pgr_spec *spec) {
    static int64_t items[STAGES_MAX * CHUNKS_MAX + 1];
    pgr_spec_init(spec);
    spec->parallel.pp = spec->world_size = 1 + draw(STAGES_MAX);
    if (spec->parallel.pp > 1 && draw(2) == 0)
        spec->parallel.vpp = 1 + draw(CHUNKS_MAX);
    int64_t vpp = spec->parallel.vpp == PGR_NIL ? 1 : spec->parallel.vpp;
    spec->model.layers = 1 + draw(4 * spec->parallel.pp * vpp);
    if (draw(2) == 0)
        spec->model.layers = spec->parallel.pp * vpp * (1 + draw(3));
    if (draw(3) == 0)
        spec->parallel.first_stage_layers = vpp * (1 + draw(3)) + (draw(4) == 0);
    if (draw(3) == 0)
        spec->parallel.last_stage_layers = vpp * (1 + draw(3)) + (draw(4) == 0);
    if (draw(3) != 0)
        return;
    int64_t count = spec->parallel.pp * (draw(2) == 0 ? 1 : vpp) + (draw(8) == 0), sum = 0;
    for (int64_t i = 0; i < count; i++) {
        items[i] = draw(4) * (draw(2) == 0 ? 1 : vpp);
        sum += items[i];
    }
    spec->parallel.stage_layers = (pgr_list){count, items};
    if (draw(4) != 0 && sum > 0)
        spec->model.layers = sum;
    if (draw(8) != 0)
        spec->parallel.first_stage_layers = spec->parallel.last_stage_layers = PGR_NIL;
}

/* Whether PG020 or PG029 says anything. */
static bool check_accepts(const pgr_spec *spec, const pgr_plan *plan) {
    pgr_diagnostics found = {.bare = true};
    pgr_check_layers(spec, plan, &found);
    bool accepts = found.count == 0 && !found.out_of_memory;
    pgr_diagnostics_free(&found);
    return accepts;
}

/* Walks the chunks in the model's order; returns whether all of them told their layers. */
static bool layers_follow(const pgr_spec *spec, const pgr_plan *plan) {
    int64_t vpp = spec->parallel.vpp == PGR_NIL ? 1 : spec->parallel.vpp, at = 0;
    for (int64_t chunk = 0; chunk < vpp * spec->parallel.pp; chunk++) {
        pgr_state state;
        pgr_range own, range;
        pgr_state_create(plan, spec, chunk % spec->parallel.pp, &state, NULL);
        if (spec->parallel.vpp != PGR_NIL)
            pgr_state_set_virtual_stage(&state, chunk / spec->parallel.pp, NULL);
        if (pgr_state_layers(&state, PGR_NIL, &own, NULL) != PGR_OK) {
            assert_int_equal(chunk, 0); /* no stage, or all */
            return false;
        }
        /* Any rank knows them. */
        state.rank = 0;
        assert_int_equal(pgr_state_layers(&state, chunk % spec->parallel.pp, &range, NULL), PGR_OK);
        assert_int_equal(range.first, own.first);
        assert_int_equal(range.count, own.count);
        assert_int_equal(own.first, at);
        assert_true(own.count >= 0);
        at += own.count;
    }
    assert_int_equal(at, spec->model.layers);
    return true;
}

static void layers_cover_the_model_once_where_check_agrees(void **unused) {
    (void)unused;
    int accepted[2][3] = {{0}}; /* without and with vpp; even, ends, list */
    generator_state = 20;
    for (int i = 0; i < LAYER_LAYOUTS; i++) {
        pgr_spec spec;
        pgr_plan plan;
        draw_layers(&spec);
        assert_int_equal(pgr_plan_create(&spec, PGR_NIL, &plan, NULL), PGR_OK);
        bool accepts = check_accepts(&spec, &plan);
        assert_int_equal(layers_follow(&spec, &plan), accepts);
        bool list = spec.parallel.stage_layers.count > 0;
        bool ends = spec.parallel.first_stage_layers != PGR_NIL ||
                    spec.parallel.last_stage_layers != PGR_NIL;
        accepted[spec.parallel.vpp != PGR_NIL][list ? 2 : ends] += accepts;
        spec.parallel.stage_layers = (pgr_list){0, NULL};
        pgr_spec_free(&spec);
    }
    for (int i = 0; i < 6; i++) /* each kind was met, or the test says nothing */
        assert_true(accepted[i / 3][i % 3] > 200);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_and_sources),
        cmocka_unit_test(groups_are_those_of_an_enumeration),
        cmocka_unit_test(stages_are_those_of_an_enumeration),
        cmocka_unit_test(shards_cover_the_dimension),
        cmocka_unit_test(layers_cover_the_model_once_where_check_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
