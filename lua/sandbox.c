/* sandbox.c - the limits of the sandbox: memory by the allocator, instructions by a count hook. */
#include "sandbox.h"

#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HOOK_STEP 200 /* instructions between two looks at the budget */

pgr_sandbox *pgr_sandbox_of(lua_State *L) {
    pgr_sandbox *sandbox;
    memcpy(&sandbox, lua_getextraspace(L), sizeof sandbox);
    return sandbox;
}

static void *plain_allocate(void *context, void *block, size_t old_bytes, size_t new_bytes) {
    (void)context;
    (void)old_bytes;
    if (new_bytes == 0) {
        free(block);
        return NULL;
    }
    return realloc(block, new_bytes);
}

/* Counts and bounds. A refusal is not yet sticky: Lua collects garbage and asks again; what it then
 * gives up on reaches sandboxed_pcall() or pgr_sandbox_call() as LUA_ERRMEM, which is. */
static void *limited_allocate(void *context, void *block, size_t old_bytes, size_t new_bytes) {
    pgr_sandbox *sandbox = context;
    size_t held = block ? old_bytes : 0; /* without a block, old_bytes is the kind of object */
    if (new_bytes > held && sandbox->memory_used - held + new_bytes > PGR_SANDBOX_MEMORY) {
        sandbox->refused = true;
        return NULL;
    }
    void *result = sandbox->allocate(sandbox->allocate_context, block, old_bytes, new_bytes);
    if (result || new_bytes == 0)
        sandbox->memory_used += new_bytes - held;
    else
        sandbox->refused = false;
    return result;
}

static double processor_seconds(void) {
    struct timespec now = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Some instructions take long, as joining or comparing long strings: the time is bounded too. */
static void count_hook(lua_State *L, lua_Debug *record) {
    (void)record;
    bool late = processor_seconds() - pgr_sandbox_of(L)->started > PGR_SANDBOX_SECONDS;
    pgr_sandbox_charge(L, late ? 2.0 * (double)PGR_SANDBOX_INSTRUCTIONS : HOOK_STEP);
}

void pgr_sandbox_charge(lua_State *L, double cost) {
    pgr_sandbox *sandbox = pgr_sandbox_of(L);
    double left = (double)(PGR_SANDBOX_INSTRUCTIONS - sandbox->instructions);
    if (!sandbox->over_instructions && cost <= left) {
        sandbox->instructions += (int64_t)cost;
        return;
    }
    sandbox->over_instructions = true;
    lua_sethook(L, count_hook, LUA_MASKCOUNT, 1); /* nothing runs on: not a handler, not a loop */
    luaL_error(L, "over the instruction limit");
}

/* pcall that does not swallow a limit. */
static int sandboxed_pcall(lua_State *L) {
    pgr_sandbox *sandbox = pgr_sandbox_of(L);
    luaL_checkany(L, 1);
    int status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
    if (status == LUA_ERRMEM)
        sandbox->over_memory = true;
    if (sandbox->over_memory || sandbox->over_instructions)
        return lua_error(L);
    lua_pushboolean(L, status == LUA_OK);
    lua_insert(L, 1);
    return lua_gettop(L);
}

static int open_body(lua_State *L) {
    lua_Integer seed = *(const int64_t *)lua_touserdata(L, 1);
    lua_pushcfunction(L, pgr_sandbox_library);
    lua_call(L, 0, 0);
    lua_pushcfunction(L, sandboxed_pcall);
    lua_setglobal(L, "pcall");
    pgr_sandbox_seed(L, seed);
    return 0;
}

pgr_status pgr_sandbox_open(pgr_sandbox *sandbox, int64_t seed, pgr_error *error) {
    if (!sandbox->allocate)
        sandbox->allocate = plain_allocate;
    sandbox->memory_used = 0;
    sandbox->instructions = 0;
    sandbox->started = processor_seconds();
    sandbox->refused = sandbox->over_memory = sandbox->over_instructions = false;
    sandbox->state = lua_newstate(limited_allocate, sandbox);
    if (!sandbox->state)
        return pgr_error_set(error, PGR_LIMIT, "out of memory");
    memcpy(lua_getextraspace(sandbox->state), &sandbox, sizeof sandbox);
    lua_sethook(sandbox->state, count_hook, LUA_MASKCOUNT, HOOK_STEP);
    pgr_status status = pgr_sandbox_protect(sandbox, open_body, &seed, error);
    if (status != PGR_OK)
        pgr_sandbox_close(sandbox);
    return status;
}

void pgr_sandbox_close(pgr_sandbox *sandbox) {
    if (!sandbox || !sandbox->state)
        return;
    lua_close(sandbox->state);
    sandbox->state = NULL;
}

/* The reason of a limit that was hit, or NULL. */
static const char *limit_reason(const pgr_sandbox *sandbox) {
    if (sandbox->over_instructions)
        return "it runs too long: more than 50 million instructions or 5 seconds; a config may "
               "compute, but not loop for ever";
    if (sandbox->over_memory && sandbox->refused)
        return "it needs more than 64 MiB of memory, the most that a config may use";
    if (sandbox->over_memory)
        return "out of memory";
    return NULL;
}

pgr_status pgr_sandbox_protect(pgr_sandbox *sandbox, lua_CFunction body, void *context,
                               pgr_error *error) {
    lua_State *L = sandbox->state;
    lua_pushcfunction(L, body); /* neither push allocates */
    lua_pushlightuserdata(L, context);
    int status = lua_pcall(L, 1, 0, 0);
    if (status == LUA_OK)
        return PGR_OK;
    if (status == LUA_ERRMEM)
        sandbox->over_memory = true;
    const char *reason = limit_reason(sandbox);
    bool short_of_memory = sandbox->over_memory && !sandbox->refused;
    if (reason)
        pgr_error_set(error, short_of_memory ? PGR_LIMIT : PGR_INVALID, "%s", reason);
    else
        pgr_error_set(error, PGR_INTERNAL, "an unexpected Lua error: %s",
                      lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "not a string");
    lua_settop(L, 0);
    return reason ? (short_of_memory ? PGR_LIMIT : PGR_INVALID) : PGR_INTERNAL;
}

/* Puts text in place of the error object at the top. */
static void error_to_text(lua_State *L) {
    int type = lua_type(L, -1);
    if (type == LUA_TSTRING)
        return;
    if (type == LUA_TNUMBER) {
        lua_tostring(L, -1); /* becomes its text in place */
        return;
    }
    if (type == LUA_TNIL)
        lua_pushliteral(L, "it called error() without a message");
    else
        lua_pushfstring(L, "it raised an error that is a %s, not a message", lua_typename(L, type));
    lua_replace(L, -2);
}

bool pgr_sandbox_call(lua_State *L, int arguments, int results) {
    pgr_sandbox *sandbox = pgr_sandbox_of(L);
    int status = lua_pcall(L, arguments, results, 0);
    if (status == LUA_ERRMEM)
        sandbox->over_memory = true;
    const char *reason = limit_reason(sandbox);
    if (reason) {
        /* Out of memory: let the body end too, for it could not go on. */
        if (sandbox->over_memory)
            luaL_error(L, "%s", reason);
        lua_settop(L, status == LUA_OK ? -(results + 1) : -2);
        lua_pushstring(L, reason);
        return false;
    }
    if (status == LUA_OK)
        return true;
    error_to_text(L);
    return false;
}
