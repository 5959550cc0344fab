/* pg_eval - runs a Lua script with `pg`, the parallel state of one rank, as its argument:
 * pg_eval CONFIG WORLD RANK SCRIPT. For tests/spec/getters_spec.lua, which asks in Lua what
 * docs/getters.md says that can be asked. */
#include "bind_state.h"
#include "config.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

static pgr_status load_plan(char **argv, pgr_spec *spec, pgr_plan *plan, pgr_error *error) {
    pgr_config_text text;
    pgr_status status = pgr_config_read(argv[1], &text, error);
    if (status)
        return status;
    status = pgr_config_load(argv[1], text.text, text.bytes, NULL, 0, spec, error);
    free(text.text);
    if (status)
        return status;
    status = pgr_plan_create(spec, strtoll(argv[2], NULL, 10), plan, error);
    if (status)
        pgr_spec_free(spec);
    return status;
}

/* Runs the script; what is wrong with it goes to standard error. */
static int run_script(const pgr_state *state, const char *script) {
    lua_State *L = luaL_newstate();
    if (!L)
        return 3;
    luaL_openlibs(L);
    int failed = luaL_loadfile(L, script);
    if (!failed) {
        pgr_bind_state_push(L, state);
        failed = lua_pcall(L, 1, 0, 0);
    }
    if (failed)
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
    lua_close(L);
    return failed ? 1 : 0;
}

int main(int argc, char **argv) {
    pgr_spec spec;
    pgr_plan plan;
    pgr_state state;
    pgr_error error;
    if (argc != 5)
        return 2;
    pgr_status status = load_plan(argv, &spec, &plan, &error);
    if (status == PGR_OK) {
        status = pgr_state_create(&plan, &spec, strtoll(argv[3], NULL, 10), &state, &error);
        if (status == PGR_OK) {
            int failed = run_script(&state, argv[4]);
            pgr_spec_free(&spec);
            return failed;
        }
        pgr_spec_free(&spec);
    }
    fprintf(stderr, "%s\n", error.message);
    return pgr_exit_code(status);
}
