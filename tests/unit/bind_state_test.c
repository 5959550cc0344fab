/* bind_state_test.c - `pg`, the parallel state of a rank in Lua: every function and field, every
 * refusal, and an allocation that fails at each place in turn. */
#include "bind_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <lauxlib.h>
#include <lualib.h>

/* tp 2, pp 4 and dp 2 from rank 100 on, with experts and everything that a stage has. */
static pgr_spec spec;
static pgr_plan plan;

static int make_layout(void **unused) {
    (void)unused;
    pgr_spec_init(&spec);
    spec.parallel.tp = 2;
    spec.parallel.pp = 4;
    spec.parallel.ep = 2;
    spec.parallel.vpp = 2;
    spec.parallel.pp_split = 2;
    spec.parallel.rank_offset = 100;
    spec.model.layers = 16;
    spec.moe.experts = 6;
    spec.parallel.etp = 1;
    return pgr_plan_create(&spec, 16, &plan, NULL) == PGR_OK ? 0 : -1;
}

static int free_layout(void **unused) {
    (void)unused;
    pgr_spec_free(&spec);
    return 0;
}

/* Counts down to the allocation that fails, from where Lua's own library is open and the text is
 * read. */
typedef struct failing {
    long left; /* calls until the one that fails; from then on, all fail where `for_good` */
    bool for_good, armed, failed;
    long blocks; /* held now */
} failing;

static failing memory;

/* Runs the text with `pg` of rank 107 as its argument, with Lua's own library there. */
static int body(lua_State *L) {
    const char *text = lua_touserdata(L, 1);
    pgr_state state;
    memory.armed = false;
    luaL_openlibs(L);
    if (luaL_loadstring(L, text) != LUA_OK)
        return lua_error(L);
    if (pgr_state_create(&plan, &spec, 107, &state, NULL) != PGR_OK)
        return luaL_error(L, "no state");
    memory.armed = true;
    pgr_bind_state_push(L, &state);
    lua_call(L, 1, 0);
    return 0;
}

static int run_in(lua_State *L, const char *text) {
    lua_settop(L, 0);
    lua_pushcfunction(L, body);
    lua_pushlightuserdata(L, (void *)(uintptr_t)text);
    return lua_pcall(L, 1, 0, 0);
}

static void run(const char *text) {
    lua_State *L = luaL_newstate();
    assert_non_null(L);
    if (run_in(L, text) != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
    lua_close(L);
}

/* ---- what it says ---- */

/* local functions of every text below */
#define HELPERS                                                                                    \
    "local pg = ...\n"                                                                             \
    "local function is(got, want)\n"                                                               \
    "  if got ~= want then error('got ' .. tostring(got) .. ', want ' .. tostring(want), 2) end\n" \
    "end\n"                                                                                        \
    "local function list(got, want) is(table.concat(got, ' '), want) end\n"                        \
    "local function refused(part, f, ...)\n"                                                       \
    "  local good, why = pcall(f, ...)\n"                                                          \
    "  if good then error('nothing was refused', 2) end\n"                                         \
    "  if not tostring(why):find(part, 1, true) then error(tostring(why), 2) end\n"                \
    "end\n"

static const char groups_text[] =
    HELPERS "is(pg.world_size, 16) is(pg.rank, 107)\n"
            "is(tostring(pg), 'pg of rank 107 of a world of 16')\n"
            "is(pg.coordinate('tp'), 1) is(pg.coordinate('dp'), 1) is(pg.coordinate('pp'), 1)\n"
            "is(pg.coordinate('ep'), 1) is(pg.coordinate('cp'), 0)\n"
            "local pp = pg.group('pp')\n"
            "is(pp.name, 'pp') is(pp.group_name, 'pp-103-107-111-115') is(pp.index, 3)\n"
            "is(pp.rank, 1) is(pp.size, 4) is(pp.count, 4) is(#pp.members, 4)\n"
            "list(pp.members, '103 107 111 115') assert(rawequal(pp.members, pp.members))\n"
            "is(pp.source, 103) is(pp.last, 115) is(pp.next, 111) is(pp.previous, 103)\n"
            "is(pp.has_communicator, true) is(tostring(pp), 'group 3 of pp, rank 1 of 4')\n"
            "local cp = pg.group('cp')\n"
            "is(cp.group_name, 'cp-107') is(cp.has_communicator, false) is(cp.size, 1)\n"
            "local none = pg.group('embedding')\n"
            "is(none.index, nil) is(none.rank, nil) is(none.size, 0) is(#none.members, 0)\n"
            "is(none.group_name, nil) is(none.source, nil) is(none.last, nil) is(none.next, nil)\n"
            "is(none.previous, nil) is(none.has_communicator, false) is(none.count, 4)\n"
            "is(tostring(none), 'no group of embedding')\n"
            "local other = pg.at(100)\n"
            "is(other.rank, 100) is(other.stage(), 0) is(pg.rank, 107) is(pg.stage(), 1)\n"
            "is(other.at(115).group('tp-pp').source, 102)\n"
            "list(other.group('embedding').members, '100 108 112')\n";

static const char stages_text[] = HELPERS
    "is(pg.stage(), 1) is(pg.stages(), 4) is(pg.virtual_stage(), 0) is(pg.virtual_stages(), 2)\n"
    "is(pg.split(), 2) is(pg.is_first_stage(), false) is(pg.is_last_stage(), false)\n"
    "is(pg.is_before_split(), true) is(pg.is_after_split(), false) is(pg.is_at_split(), true)\n"
    "is(pg.is_before_split(2), false) is(pg.is_after_split(2), true)\n"
    "is(pg.in_embedding_group(), false) is(pg.in_position_embedding_group(), false)\n"
    "local last = pg.at(113)\n"
    "is(last.is_last_stage(), false) is(last.is_last_stage{ignore_virtual = true}, true)\n"
    "is(last.in_embedding_group{}, false)\n"
    "is(last.in_embedding_group{ignore_virtual = true}, true)\n"
    "last.set_virtual_stage(1)\n"
    "is(last.virtual_stage(), 1) is(last.is_last_stage(), true) is(pg.virtual_stage(), 0)\n"
    "is(last.in_embedding_group{ignore_virtual = false}, true)\n"
    "last.set_virtual_stages(nil)\n"
    "is(last.virtual_stage(), nil) is(last.virtual_stages(), nil) is(last.is_last_stage(), true)\n"
    "last.set_virtual_stages(4) is(last.virtual_stages(), 4) is(last.virtual_stage(), 0)\n"
    "last.set_split(1) is(last.split(), 1) last.set_split() is(last.split(), nil)\n"
    "is(last.is_at_split(), true)\n"
    "local first = pg.at(100)\n"
    "is(first.is_first_stage(), true) first.set_virtual_stage(1)\n"
    "is(first.is_first_stage(), false) is(first.is_first_stage{ignore_virtual = true}, true)\n"
    "is(first.in_position_embedding_group(), true)\n";

static const char holds_text[] =
    HELPERS "local own = pg.layers()\n"
            "is(own.first, 2) is(own.count, 2) is(pg.layers(3).first, 6)\n"
            "pg.set_virtual_stage(1) is(pg.layers().first, 10)\n"
            "list(pg.experts(), '3 4 5') list(pg.at(100).experts(), '0 1 2')\n"
            "local first, count = pg.shard(64, 'tp')\n"
            "is(first, 32) is(count, 32)\n"
            "pg.override('tp', {size = 8, rank = 5})\n"
            "is(pg.group('tp').size, 8) is(pg.group('tp').rank, 5) is(pg.group('tp').next, nil)\n"
            "first, count = pg.shard(64, 'tp') is(first, 40) is(count, 8)\n"
            "is(pg.at(107).group('tp').size, 2)\n"
            "pg.override('tp', {rank = 0}) is(pg.group('tp').size, 2) is(pg.group('tp').rank, 0)\n"
            "pg.override('tp') is(pg.group('tp').rank, 1)\n"
            "pg.override('pp', {size = 2, rank = 1}) is(pg.stages(), 2) is(pg.stage(), 1)\n"
            "is(pg.layers().first, 12) is(pg.layers().count, 4)\n"
            "pg.override('pp', {}) is(pg.stages(), 4)\n";

static const char refusals_text[] = HELPERS
    "refused('its ranks are 100 to 115', pg.at, 99)\n"
    "refused('number expected', pg.at)\n"
    "refused('integer', pg.at, 100.5)\n"
    "refused('unknown family', pg.coordinate, 'tq')\n"
    "refused('is no axis', pg.coordinate, 'tp-dp')\n"
    "refused('did you mean \"tp\"', pg.group, 'tpp')\n"
    "refused('zero bytes', pg.group, 'tp\\0')\n"
    "refused('string expected', pg.group, nil)\n"
    "refused('virtual stage 2', pg.set_virtual_stage, 2)\n"
    "refused('fewest is 1', pg.set_virtual_stages, 0)\n"
    "refused('1 to 3', pg.set_split, 4)\n"
    "refused('unknown option \"ignore\"', pg.is_first_stage, {ignore = true})\n"
    "refused('unknown option \"1\"', pg.is_last_stage, {true})\n"
    "refused('true or false, not a number', pg.in_embedding_group, {ignore_virtual = 1})\n"
    "refused('table expected', pg.in_embedding_group, true)\n"
    "refused('known are size and rank', pg.override, 'tp', {sise = 2})\n"
    "refused('size must be an integer, not 2.5', pg.override, 'tp', {size = 2.5})\n"
    "refused('rank must be an integer, not 1', pg.override, 'tp', {rank = '1'})\n"
    "refused('size is out of range', pg.override, 'tp', {size = math.mininteger})\n"
    "refused('out of range', pg.layers, math.mininteger)\n"
    "refused('out of range', pg.set_split, math.mininteger)\n"
    "refused('out of range', pg.set_virtual_stages, math.mininteger)\n"
    "refused('smallest size', pg.override, 'tp', {size = 0})\n"
    "refused('no stage 4', pg.layers, 4)\n"
    "refused('cannot be cut', pg.shard, 7, 'tp')\n"
    "refused('pg has no \"grup\"; did you mean \"group\"?', function() return pg.grup('tp') end)\n"
    "refused('pg has no \"zzzzzz\"', function() return pg.zzzzzz end)\n"
    "refused('pg has no \"1\"', function() return pg[1] end)\n"
    "local tp = pg.group('tp')\n"
    "refused('a group has no \"sise\"; did you mean \"size\"?', function() return tp.sise end)\n"
    "refused('a group has no \"1\"', function() return tp[1] end)\n"
    "is(getmetatable(tp), false) is(getmetatable(pg), false)\n"
    "refused('', function() tp.size = 3 end)\n"
    "is(pg.virtual_stage(), 0) is(tp.size, 2) is(pg.stages(), 4)\n";

static void groups(void **unused) {
    (void)unused;
    run(groups_text);
}

static void stages(void **unused) {
    (void)unused;
    run(stages_text);
}

static void what_a_rank_holds(void **unused) {
    (void)unused;
    run(holds_text);
}

static void refusals(void **unused) {
    (void)unused;
    run(refusals_text);
}

/* Many objects in a row leave nothing behind. */
static void objects_are_collected(void **unused) {
    (void)unused;
    run("local pg = ...\n"
        "collectgarbage() local before = collectgarbage('count')\n"
        "for i = 1, 20000 do local g = pg.at(100 + i % 16).group('tp-pp') assert(g.members[1]) "
        "end\n"
        "collectgarbage() collectgarbage()\n"
        "assert(collectgarbage('count') < before + 64)\n");
}

/* A group is listed only when it is asked to, and not where that would eat the machine. */
static void large_groups(void **unused) {
    (void)unused;
    pgr_spec usual_spec = spec;
    pgr_plan usual_plan = plan;
    pgr_spec_init(&spec);
    assert_int_equal(pgr_plan_create(&spec, 100000, &plan, NULL), PGR_OK);
    run("local dp = (...).at(99999).group('dp')\n"
        "assert(dp.rank == 99999 and dp.next == 0 and #dp.members == 100000)\n"
        "assert(dp.members[100000] == 99999 and #dp.group_name == 588892)\n");
    assert_int_equal(pgr_plan_create(&spec, INT64_C(1) << 40, &plan, NULL), PGR_OK);
    run("local dp = (...).group('dp')\n"
        "assert(dp.size == 1 << 40 and dp.last == (1 << 40) - 1)\n"
        "local good, why = pcall(function() return dp.members end)\n"
        "assert(not good and why:find('1099511627776 ranks is too large to list', 1, true))\n"
        "good, why = pcall(function() return dp.group_name end)\n"
        "assert(not good and why:find('too large to list', 1, true))\n");
    pgr_spec_free(&spec);
    spec = usual_spec;
    plan = usual_plan;
}

/* ---- every allocation fails once ---- */

static void *failing_allocate(void *context, void *block, size_t old_bytes, size_t new_bytes) {
    (void)context;
    if (new_bytes == 0) {
        memory.blocks -= block != NULL;
        free(block);
        return NULL;
    }
    /* Lua may count on a block that shrinks; only growing fails. */
    bool grows = (block == NULL || new_bytes > old_bytes) && memory.armed;
    if (grows && (memory.left-- == 0 || (memory.for_good && memory.failed))) {
        memory.failed = true;
        return NULL;
    }
    void *result = realloc(block, new_bytes);
    memory.blocks += block == NULL && result != NULL;
    return result;
}

/* Runs the text with the k-th allocation failing, and once more in the same state where memory is
 * back; returns whether one failed. */
static bool run_failing(const char *text, long k, bool for_good) {
    memory = (failing){.left = k, .for_good = for_good};
    lua_State *L = lua_newstate(failing_allocate, NULL);
    assert_non_null(L);
    int status = run_in(L, text);
    if (status != LUA_OK && !(status == LUA_ERRMEM && memory.failed))
        fail_msg("%ld: %s", k, lua_tostring(L, -1));
    bool failed = memory.failed;
    memory.left = -1;
    memory.failed = false;
    if (failed && run_in(L, text) != LUA_OK)
        fail_msg("%ld, again: %s", k, lua_tostring(L, -1));
    lua_close(L);
    assert_int_equal(memory.blocks, 0);
    return failed;
}

static void fail_everywhere(const char *text) {
    for (int for_good = 0; for_good < 2; for_good++) {
        long k = 0;
        while (run_failing(text, k, for_good))
            assert_true(++k < 20000);
        assert_true(k > 60); /* pg alone takes some thirty */
    }
}

static void memory_is_short_for_groups(void **unused) {
    (void)unused;
    fail_everywhere(groups_text);
}

static void memory_is_short_for_stages(void **unused) {
    (void)unused;
    fail_everywhere(stages_text);
}

static void memory_is_short_for_what_a_rank_holds(void **unused) {
    (void)unused;
    fail_everywhere(holds_text);
}

/* Messages too; pcall takes the place of `refused`, for a failure of memory is one as well. */
static void memory_is_short_for_refusals(void **unused) {
    (void)unused;
    fail_everywhere("local pg = ...\n"
                    "local function refused(f, ...)\n"
                    "  local good, why = pcall(f, ...)\n"
                    "  assert(not good)\n"
                    "  if why == 'not enough memory' then error(why, 0) end\n"
                    "end\n"
                    "refused(pg.at, 99) refused(pg.group, 'tpp')\n"
                    "refused(pg.is_first_stage, {ignore = true})\n"
                    "refused(pg.override, 'tp', {size = 2.5})\n"
                    "refused(function() return pg.grup end)\n"
                    "refused(function() return pg.group('tp').sise end)\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups),
        cmocka_unit_test(stages),
        cmocka_unit_test(what_a_rank_holds),
        cmocka_unit_test(refusals),
        cmocka_unit_test(objects_are_collected),
        cmocka_unit_test(large_groups),
        cmocka_unit_test(memory_is_short_for_groups),
        cmocka_unit_test(memory_is_short_for_stages),
        cmocka_unit_test(memory_is_short_for_what_a_rank_holds),
        cmocka_unit_test(memory_is_short_for_refusals),
    };
    return cmocka_run_group_tests(tests, make_layout, free_layout);
}
