/* config_test - the parts of config reading that a spec in Lua cannot reach: an allocation that
 * fails at every place in turn, defaults and digests, positions, and what a run does not have yet.
 */
#include "config_reader.h"
#include "positions.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char whole_config[] =
    "local p = { vpp = 2, stage_layers = { 1, 2 },\n"
    "            grid = { {'tp', 2}, {'dp'} }, views = { b = { {'ep', 2} }, a = { {'dp'} } } }\n"
    "for k, v in pairs({ a = 1, b = 2 }) do p.vpp = p.vpp * math.random(1, 1) end\n"
    "assert(pcall(string.format, '%s %d', 'x', 1))\n"
    "return { parallel = p, model = { hidden = 64, seq_len = 100 },\n"
    "         padding = { sequence = function(q) return q.tp * 4 end, packed = { 3, 4 } },\n"
    "         run = { families = { 'tp', 'dp' }, nccl = { tp = { max_ctas = 2 } } } }\n";

/* ---- every allocation fails once ---- */

typedef struct failing {
    long left; /* calls until the one that fails; from then on, all fail where `for_good` */
    bool for_good;
    bool failed;
    long blocks; /* held now */
} failing;

static void *failing_allocate(void *context, void *block, size_t old_bytes, size_t new_bytes) {
    failing *state = context;
    (void)old_bytes;
    if (new_bytes == 0) {
        state->blocks -= block != NULL;
        free(block);
        return NULL;
    }
    /* Lua may count on a block that shrinks; only growing fails. */
    bool grows = !block || new_bytes > old_bytes;
    if (grows && (state->left-- == 0 || (state->for_good && state->failed))) {
        state->failed = true;
        return NULL;
    }
    void *result = realloc(block, new_bytes);
    state->blocks += !block && result;
    return result;
}

/* Loads with the k-th allocation failing; returns whether one failed. */
static bool load_failing(long k, bool for_good, const char *text, int expected_without) {
    static pgr_error error;
    failing state = {k, for_good, false, 0};
    pgr_sandbox sandbox = {.allocate = failing_allocate, .allocate_context = &state};
    const char *sets[] = {"parallel.pp_split=2", "run.workloads={mlp,\"router\"}"};
    pgr_spec spec;
    memset(&spec, 0x5a, sizeof spec);
    pgr_status status =
        pgr_config_load_in(&sandbox, "t.lua", text, strlen(text), sets, 2, &spec, &error);
    if (!state.failed)
        assert_int_equal(status, expected_without);
    else if (status == PGR_LIMIT)
        assert_non_null(strstr(error.message, "out of memory"));
    else /* Lua collected garbage and went on */
        assert_int_equal(status, expected_without);
    if (status == PGR_OK)
        pgr_spec_free(&spec);
    assert_int_equal(state.blocks, 0);
    return state.failed;
}

static void fail_everywhere(const char *text, int expected_without) {
    for (int for_good = 0; for_good < 2; for_good++) {
        long k = 0;
        while (load_failing(k, for_good, text, expected_without))
            assert_true(++k < 20000);
        assert_true(k > 200);
    }
}

static void test_memory_of_a_good_config(void **state) {
    (void)state;
    fail_everywhere(whole_config, PGR_OK);
}

static void test_memory_of_a_bad_config(void **state) {
    (void)state;
    fail_everywhere("return { parallel = { tp = 0, tq = 3 }, model = { dtype = 'f16' } }",
                    PGR_INVALID);
}

static void test_memory_of_a_failing_config(void **state) {
    (void)state;
    fail_everywhere("local t = {} for i = 1, 100 do t[i] = {} end error('mine')", PGR_INVALID);
}

/* ---- the table, defaults and digests ---- */

static void test_defaults_are_in_range(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_spec_init(&spec);
    assert_int_equal(spec.parallel.tp, 1);
    assert_true(spec.parallel.etp == PGR_NIL);
    assert_string_equal(spec.parallel.order, "tp-cp-ep-dp-pp");
    assert_true(spec.parallel.expert_view);
    assert_int_equal(spec.model.fp8_recipe, PGR_FP8_NONE);
    assert_int_equal(spec.moe.drop_policy, PGR_DROP_PROBS);
    assert_true(spec.moe.capacity_factor != spec.moe.capacity_factor);
    assert_int_equal(spec.run.workloads.count, 3);
    assert_int_equal(spec.run.workloads.items[2], PGR_CONTEXT);
    assert_true(spec.run.timeout == 60);
    pgr_spec_free(&spec);
    assert_null(spec.run.workloads.items);
}

static void test_choices_name_the_enums(void **state) {
    (void)state;
    char name[PGR_NAME_MAX];
    pgr_key_choice_name(pgr_key_find("model.fp8_recipe"), PGR_FP8_MXFP8, name);
    assert_string_equal(name, "mxfp8");
    pgr_key_choice_name(pgr_key_find("moe.aux_loss_type"), PGR_NO_AUX_LOSS, name);
    assert_string_equal(name, "none");
    pgr_key_choice_name(pgr_key_find("model.dtype"), 2, name);
    assert_string_equal(name, "");
    const pgr_key *score = pgr_key_find("moe.score");
    assert_int_equal(pgr_key_choice_index(score, "sqrtsoftplus"), PGR_SQRTSOFTPLUS);
    assert_int_equal(pgr_key_choice_index(score, "soft"), -1);
    const pgr_key *workloads = pgr_key_find("run.workloads");
    for (int64_t i = 0; i < PGR_WORKLOADS; i++) {
        pgr_key_choice_name(workloads, i, name);
        assert_string_equal(name, pgr_workload_name(i));
    }
}

static pgr_spec loaded(const char *text) {
    static pgr_error error;
    pgr_spec spec;
    if (pgr_config_load("t.lua", text, strlen(text), NULL, 0, &spec, &error) != PGR_OK)
        fail_msg("%s", error.message);
    return spec;
}

/* Each change of one value must change the digest. */
static void test_digest_sees_every_field(void **state) {
    (void)state;
    static const char *const texts[] = {
        "return { parallel = {} }",
        "return { parallel = {}, world_size = 8 }",
        "return { parallel = {}, model = {} }",
        "return { parallel = {}, moe = {} }",
        "return { parallel = {}, experiment = function() end }",
        "return { parallel = { tp = 2 } }",
        "return { parallel = { cp = 2 } }",
        "return { parallel = { order = 'tp' } }",
        "return { parallel = { stage_layers = { 1, 2 } } }",
        "return { parallel = { stage_layers = { 2, 1 } } }",
        "return { parallel = { grid = { {'tp', 2} } } }",
        "return { parallel = { grid = { {'tp'} } } }",
        "return { parallel = { views = { a = { {'tp'} } } } }",
        "return { parallel = { views = { b = { {'tp'} } } } }",
        "return { parallel = {}, run = { families = {} } }",
        "return { parallel = {}, run = { families = { 'tp' } } }",
        "return { parallel = {}, run = { collectives = { 'all_reduce' } } }",
        "return { parallel = {}, run = { workloads = { 'mlp' } } }",
        "return { parallel = {}, run = { timeout = 61 } }",
        "return { parallel = {}, run = { nccl = { tp = {} } } }",
        "return { parallel = {}, run = { nccl = { tp = { high_priority = true } } } }",
        "return { parallel = {}, padding = { sequence = 1 } }",
        "return { parallel = {}, padding = { sequence = 2 } }",
        "return { parallel = {}, padding = { packed = { 2 } } }",
    };
    enum { COUNT = sizeof texts / sizeof texts[0] };
    uint64_t digests[COUNT];
    for (int i = 0; i < COUNT; i++) {
        pgr_spec spec = loaded(texts[i]);
        digests[i] = pgr_spec_digest(&spec);
        pgr_spec_free(&spec);
        for (int j = 0; j < i; j++)
            if (digests[i] == digests[j])
                fail_msg("one digest: %s and %s", texts[i], texts[j]);
    }
}

static void test_digest_ignores_how_it_was_written(void **state) {
    (void)state;
    pgr_spec a =
        loaded("return { parallel = { vpp = nil, views = { x = {{'a'}}, y = {{'b'}} } } }");
    pgr_spec b =
        loaded("local t = {} t.y = {{'b'}} t.x = {{'a'}} return { parallel = { views = t } }");
    assert_true(pgr_spec_digest(&a) == pgr_spec_digest(&b));
    pgr_spec_free(&a);
    pgr_spec_free(&b);
}

/* ---- what a run does not have yet ---- */

static void test_not_runnable_is_told_by_name(void **state) {
    (void)state;
    static pgr_error error;
    static const char *const rows[][2] = {
        {"parallel = { rank_offset = 2 }", "parallel.rank_offset"},
        {"parallel = {}, model = { fp8 = true }", "model.fp8"},
        {"parallel = {}, moe = { pad_to_capacity = true }", "moe.pad_to_capacity"},
        {"parallel = {}, run = { collectives = { 'all_reduce' } }", "run.collectives"},
        {"parallel = {}, experiment = function() end", "experiment"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[256], key[64];
        snprintf(text, sizeof text, "return { %s }", rows[i][0]);
        snprintf(key, sizeof key, "(%s)", rows[i][1]);
        pgr_spec spec = loaded(text);
        assert_int_equal(pgr_spec_runnable(&spec, &error), PGR_UNSUPPORTED);
        if (!strstr(error.message, key))
            fail_msg("%s: no %s in: %s", text, key, error.message);
        pgr_spec_free(&spec);
    }
}

static void test_runnable(void **state) {
    (void)state;
    static pgr_error error;
    pgr_spec spec =
        loaded("return { parallel = { pp = 2, vpp = 2 }, cluster = { gpus_per_node = 8 },"
               "moe = { capacity_factor = 1.5, drop_policy = 'position', scaling = 2,"
               "        score = 'sigmoid', groups = 4, group_topk = 2, expert_bias = true },"
               "model = { vocab = 32000, tie_embeddings = true, heads = 4 } }");
    assert_int_equal(pgr_spec_runnable(&spec, &error), PGR_OK);
    pgr_spec_free(&spec);
    spec = loaded("return { parallel = {}, run = { device = 'cuda', share_gpu = true } }");
    assert_int_equal(pgr_spec_runnable(&spec, &error), PGR_OK);
    pgr_spec_free(&spec);
    spec = loaded("return { parallel = {}, run = { workloads = {} } }");
    assert_int_equal(pgr_spec_runnable(&spec, &error), PGR_INVALID);
    pgr_spec_free(&spec);
    /* keys that add groups and change no workload */
    spec = loaded("return { parallel = { cp = 4, hierarchical_cp = { 2, 2 }, hybrid_cp = true, "
                  "optimizer_instances = 2 } }");
    assert_int_equal(pgr_spec_runnable(&spec, &error), PGR_OK);
    pgr_spec_free(&spec);
    spec = loaded("return { parallel = { grid = { {'tp', 2}, {'mine', 2}, {'dp'} }, "
                  "views = { expert = { {'ep', 4}, {'edp'} } } } }");
    assert_int_equal(pgr_spec_runnable(&spec, &error), PGR_OK);
    pgr_spec_free(&spec);
    spec = loaded("return { parallel = { cp = 2 }, padding = { packed = { 4, 1 } } }");
    assert_int_equal(pgr_spec_runnable(&spec, &error), PGR_OK);
    pgr_spec_free(&spec);
    /* a router that is not run may ask for anything */
    spec = loaded("return { parallel = {}, run = { workloads = { 'mlp' } },"
                  "moe = { pad_to_capacity = true } }");
    assert_int_equal(pgr_spec_runnable(&spec, &error), PGR_OK);
    pgr_spec_free(&spec);
}

/* ---- positions ---- */

typedef struct position_row {
    const char *text, *path;
    int line, column;
} position_row;

static void test_positions(void **state) {
    (void)state;
    static const position_row rows[] = {
        {"return { tp = 1 }", "tp", 1, 15},
        {"return { a = { b = 1,\n  c = 'x' } }", "a.c", 2, 7},
        {"return { a = { 1, 2, { 3 } } }", "a[3][1]", 1, 24},
        {"return { ['a'] = 1, [ \"b\" ] = 2 }", "b", 1, 31},
        {"return { [3] = 1 }", "[3]", 1, 16},
        {"-- a = { --[[ x\nreturn { --[==[ , } \n]] ]==] tp = 1 }", "tp", 3, 14},
        {"return { s = [[\n, } ]], tp = 1 }", "tp", 2, 14},
        {"return { s = 'it\\'s, }', tp = 1 }", "tp", 1, 31},
        {"return { s = \"\\\n\", tp = 1 }", "tp", 2, 9},
        {"return { f = function(a, b) local c, d = 1, 2; if a then return b end end, tp = 1 }",
         "tp", 1, 81},
        {"return { f = (1 + 2) * 3, g = x{ 1, 2 }, tp = -1 }", "tp", 1, 47},
        {"return { a = 1; b = 2; }", "b", 1, 21},
        {"local t = { tp = 1 }\nreturn t", "tp", 1, 18},
        {"local p <const> = { tp = 1 }\nreturn { parallel = p }", "parallel", 2, 21},
        {"local p = { tp = 1 }\nreturn { parallel = p, q = 1 }", "parallel.tp", 1, 18},
        {"local t = {}\nt.parallel = { tp = 1 }\nt.parallel.cp = 2\nreturn t", "parallel.cp", 3,
         17},
        {"local t = {}\nt.parallel = { tp = 1 }\nreturn t", "parallel.tp", 2, 21},
        {"return { a = 1, a = 2 }", "a", 1, 21},
        {"return { a = 1e-5, b = 0x1p-4, c = 3 }", "c", 1, 36},
        {"local function f() return { tp = 3 } end\nreturn { tp = 1 }", "tp", 2, 15},
        {"local t = { tp = 1 }\nt = { tp = 2 }\nreturn t", "tp", 2, 12},
        {"if x then return { tp = 1 } end\nreturn { tp = 2 }", "tp", 2, 15},
        /* not to be known */
        {"return f({ tp = 1 })", "tp", 0, 0},
        {"return { tp = ", "cp", 0, 0},
        {"return {{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{", "tp", 0, 0},
        {"local a = { x = a } return a", "x.x.y", 0, 0},
        {")]}end until return { tp = 1 }", "cp", 0, 0},
        {"", "tp", 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pgr_positions *positions = NULL;
        assert_int_equal(pgr_positions_create(rows[i].text, strlen(rows[i].text), &positions, NULL),
                         PGR_OK);
        pgr_position at = pgr_positions_find(positions, NULL, rows[i].path);
        pgr_positions_free(positions);
        if (at.line != rows[i].line || at.column != rows[i].column)
            fail_msg("%s: %s is at %d:%d, not %lld:%lld", rows[i].text, rows[i].path, rows[i].line,
                     rows[i].column, (long long)at.line, (long long)at.column);
    }
}

/* A text cut anywhere, in a block of just its size: the lexer must not read past it. */
static void test_positions_of_cut_texts(void **state) {
    (void)state;
    static const char text[] = "local t = { a = [==[ x ]==], 'q\\', 1.5e-3 } --[[ z ]] -- y\n"
                               "t.b.c = function(x) return { 1, [2] = 3 } end return t";
    for (size_t bytes = 0; bytes < sizeof text; bytes++) {
        char *copy = malloc(bytes + (bytes == 0));
        assert_non_null(copy);
        memcpy(copy, text, bytes);
        pgr_positions *positions = NULL;
        assert_int_equal(pgr_positions_create(copy, bytes, &positions, NULL), PGR_OK);
        pgr_positions_free(positions);
        free(copy);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_of_a_good_config),
        cmocka_unit_test(test_memory_of_a_bad_config),
        cmocka_unit_test(test_memory_of_a_failing_config),
        cmocka_unit_test(test_defaults_are_in_range),
        cmocka_unit_test(test_choices_name_the_enums),
        cmocka_unit_test(test_digest_sees_every_field),
        cmocka_unit_test(test_digest_ignores_how_it_was_written),
        cmocka_unit_test(test_not_runnable_is_told_by_name),
        cmocka_unit_test(test_runnable),
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_positions_of_cut_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
