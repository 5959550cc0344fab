/* bind_state.c - `pg`: a table of functions, each with the state as its upvalue. */
#include "bind_state.h"
#include "bind.h"
#include "bind_group.h"

#include <lauxlib.h>

#include <limits.h>
#include <string.h>

static pgr_state *own_state(lua_State *L) {
    return lua_touserdata(L, lua_upvalueindex(1));
}

/* Raises the error of a function of state.h. */
static void demand(lua_State *L, pgr_status status, const pgr_error *error) {
    if (status != PGR_OK)
        luaL_error(L, "%s", error->message);
}

/* ---- arguments and results ---- */

/* A name in an argument; C takes it up to the first NUL, so that there may be none. */
static const char *name_argument(lua_State *L, int index) {
    size_t length;
    const char *name = luaL_checklstring(L, index, &length);
    luaL_argcheck(L, strlen(name) == length, index, "a name has no zero bytes");
    return name;
}

/* An optional integer; the smallest one stands for nil in C, and is no number to ask for. */
static int64_t integer_or_nil(lua_State *L, int index) {
    if (lua_isnoneornil(L, index))
        return PGR_NIL;
    int64_t value = luaL_checkinteger(L, index);
    luaL_argcheck(L, value != PGR_NIL, index, "the number is out of range");
    return value;
}

static void push_integer_or_nil(lua_State *L, int64_t value) {
    if (value == PGR_NIL)
        lua_pushnil(L);
    else
        lua_pushinteger(L, value);
}

/* Refuses keys of an optional table of options but these two (the second may be NULL). */
static void check_options(lua_State *L, int index, const char *first, const char *second) {
    if (lua_isnoneornil(L, index))
        return;
    luaL_checktype(L, index, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
        if (strcmp(key, first) != 0 && (second == NULL || strcmp(key, second) != 0))
            luaL_error(L, "unknown option \"%s\"; known %s %s%s%s", luaL_tolstring(L, -2, NULL),
                       second == NULL ? "is" : "are", first, second == NULL ? "" : " and ",
                       second == NULL ? "" : second);
    }
}

/* Pushes an option's value, nil where it is not given; returns its type. */
static int push_option(lua_State *L, int index, const char *name) {
    if (lua_isnoneornil(L, index)) {
        lua_pushnil(L);
        return LUA_TNIL;
    }
    lua_pushstring(L, name);
    return lua_rawget(L, index);
}

static bool ignore_virtual(lua_State *L) {
    check_options(L, 1, "ignore_virtual", NULL);
    int type = push_option(L, 1, "ignore_virtual");
    if (type != LUA_TNIL && type != LUA_TBOOLEAN)
        luaL_error(L, "ignore_virtual must be true or false, not a %s", lua_typename(L, type));
    return lua_toboolean(L, -1);
}

static int64_t integer_option(lua_State *L, int index, const char *name) {
    int type = push_option(L, index, name), whole = 0;
    if (type == LUA_TNIL)
        return PGR_NIL;
    int64_t value = type == LUA_TNUMBER ? lua_tointegerx(L, -1, &whole) : 0;
    if (whole && value == PGR_NIL)
        luaL_error(L, "%s is out of range", name);
    if (!whole)
        luaL_error(L, "%s must be an integer, not %s", name, luaL_tolstring(L, -1, NULL));
    return value;
}

/* ---- ranks and groups ---- */

static int state_at(lua_State *L) {
    const pgr_state *own = own_state(L);
    pgr_state other;
    pgr_error error;
    demand(L, pgr_state_create(own->plan, own->spec, luaL_checkinteger(L, 1), &other, &error),
           &error);
    pgr_bind_state_push(L, &other);
    return 1;
}

static int state_coordinate(lua_State *L) {
    const pgr_state *own = own_state(L);
    const char *axis = name_argument(L, 1);
    if (!pgr_plan_has_axis(own->plan, axis)) {
        pgr_family family;
        pgr_error error;
        demand(L, pgr_plan_family_find(own->plan, axis, &family, &error), &error);
        luaL_error(L, "family \"%s\" is no axis and has no coordinate; ask pg.group(\"%s\").rank",
                   axis, axis);
    }
    lua_pushinteger(L, pgr_plan_coordinate(own->plan, axis, own->rank));
    return 1;
}

static int state_group(lua_State *L) {
    pgr_state_group group;
    pgr_error error;
    demand(L, pgr_state_group_find(own_state(L), name_argument(L, 1), &group, &error), &error);
    pgr_bind_group_push(L, &group);
    return 1;
}

static int state_override(lua_State *L) {
    const char *family = name_argument(L, 1);
    check_options(L, 2, "size", "rank");
    int64_t size = integer_option(L, 2, "size"), rank = integer_option(L, 2, "rank");
    pgr_error error;
    demand(L, pgr_state_override(own_state(L), family, size, rank, &error), &error);
    return 0;
}

/* ---- the pipeline ---- */

static int state_stage(lua_State *L) {
    lua_pushinteger(L, pgr_state_stage(own_state(L)));
    return 1;
}

static int state_stages(lua_State *L) {
    lua_pushinteger(L, pgr_state_stages(own_state(L)));
    return 1;
}

static int state_virtual_stage(lua_State *L) {
    push_integer_or_nil(L, pgr_state_virtual_stage(own_state(L)));
    return 1;
}

static int state_virtual_stages(lua_State *L) {
    push_integer_or_nil(L, pgr_state_virtual_stages(own_state(L)));
    return 1;
}

static int state_set_virtual_stage(lua_State *L) {
    pgr_error error;
    demand(L, pgr_state_set_virtual_stage(own_state(L), luaL_checkinteger(L, 1), &error), &error);
    return 0;
}

static int state_set_virtual_stages(lua_State *L) {
    pgr_error error;
    demand(L, pgr_state_set_virtual_stages(own_state(L), integer_or_nil(L, 1), &error), &error);
    return 0;
}

static int state_is_first_stage(lua_State *L) {
    lua_pushboolean(L, pgr_state_is_first_stage(own_state(L), ignore_virtual(L)));
    return 1;
}

static int state_is_last_stage(lua_State *L) {
    lua_pushboolean(L, pgr_state_is_last_stage(own_state(L), ignore_virtual(L)));
    return 1;
}

static int state_split(lua_State *L) {
    push_integer_or_nil(L, pgr_state_split(own_state(L)));
    return 1;
}

static int state_set_split(lua_State *L) {
    pgr_error error;
    demand(L, pgr_state_set_split(own_state(L), integer_or_nil(L, 1), &error), &error);
    return 0;
}

static int state_is_before_split(lua_State *L) {
    lua_pushboolean(L, pgr_state_is_before_split(own_state(L), integer_or_nil(L, 1)));
    return 1;
}

static int state_is_after_split(lua_State *L) {
    lua_pushboolean(L, pgr_state_is_after_split(own_state(L), integer_or_nil(L, 1)));
    return 1;
}

static int state_is_at_split(lua_State *L) {
    lua_pushboolean(L, pgr_state_is_at_split(own_state(L)));
    return 1;
}

static int state_in_embedding_group(lua_State *L) {
    lua_pushboolean(L, pgr_state_in_embedding_group(own_state(L), ignore_virtual(L)));
    return 1;
}

static int state_in_position_embedding_group(lua_State *L) {
    lua_pushboolean(L, pgr_state_in_position_embedding_group(own_state(L)));
    return 1;
}

/* ---- what the rank holds ---- */

static int state_layers(lua_State *L) {
    pgr_range layers;
    pgr_error error;
    demand(L, pgr_state_layers(own_state(L), integer_or_nil(L, 1), &layers, &error), &error);
    lua_createtable(L, 0, 2);
    lua_pushinteger(L, layers.first);
    lua_setfield(L, -2, "first");
    lua_pushinteger(L, layers.count);
    lua_setfield(L, -2, "count");
    return 1;
}

static int state_experts(lua_State *L) {
    pgr_range experts;
    pgr_error error;
    demand(L, pgr_state_experts(own_state(L), &experts, &error), &error);
    lua_createtable(L, experts.count < INT_MAX ? (int)experts.count : INT_MAX, 0);
    for (int64_t i = 0; i < experts.count; i++) {
        lua_pushinteger(L, experts.first + i);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static int state_shard(lua_State *L) {
    int64_t size = luaL_checkinteger(L, 1);
    const char *family = name_argument(L, 2);
    pgr_range shard;
    pgr_error error;
    demand(L, pgr_state_shard(own_state(L), family, size, &shard, &error), &error);
    lua_pushinteger(L, shard.first);
    lua_pushinteger(L, shard.count);
    return 2;
}

/* ---- the object ---- */

static const luaL_Reg functions[] = {
    {"at", state_at},
    {"coordinate", state_coordinate},
    {"experts", state_experts},
    {"group", state_group},
    {"in_embedding_group", state_in_embedding_group},
    {"in_position_embedding_group", state_in_position_embedding_group},
    {"is_after_split", state_is_after_split},
    {"is_at_split", state_is_at_split},
    {"is_before_split", state_is_before_split},
    {"is_first_stage", state_is_first_stage},
    {"is_last_stage", state_is_last_stage},
    {"layers", state_layers},
    {"override", state_override},
    {"set_split", state_set_split},
    {"set_virtual_stage", state_set_virtual_stage},
    {"set_virtual_stages", state_set_virtual_stages},
    {"shard", state_shard},
    {"split", state_split},
    {"stage", state_stage},
    {"stages", state_stages},
    {"virtual_stage", state_virtual_stage},
    {"virtual_stages", state_virtual_stages},
    {NULL, NULL},
};

/* A key that the object does not have: a misspelt name, most likely. */
static int object_missing(lua_State *L) {
    pgr_nearest nearest =
        pgr_nearest_start(lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "");
    for (lua_pushnil(L); lua_next(L, 1) != 0; lua_pop(L, 1))
        if (lua_type(L, -2) == LUA_TSTRING)
            pgr_nearest_offer(&nearest, lua_tostring(L, -2)); /* held by the table */
    return pgr_bind_missing(L, "pg", &nearest);
}

static int object_text(lua_State *L) {
    lua_getfield(L, 1, "rank");
    lua_getfield(L, 1, "world_size");
    lua_pushfstring(L, "pg of rank %I of a world of %I", (LUAI_UACINT)lua_tointeger(L, -2),
                    (LUAI_UACINT)lua_tointeger(L, -1));
    return 1;
}

static const luaL_Reg metamethods[] = {
    {"__index", object_missing}, {"__tostring", object_text}, {NULL, NULL}};

void pgr_bind_state_push(lua_State *L, const pgr_state *state) {
    luaL_checkstack(L, 4, "pg");
    luaL_newlibtable(L, functions);
    pgr_state *own = lua_newuserdatauv(L, sizeof *own, 0);
    *own = *state;
    luaL_setfuncs(L, functions, 1);
    lua_pushinteger(L, state->plan->world_size);
    lua_setfield(L, -2, "world_size");
    lua_pushinteger(L, state->plan->rank_offset + state->rank);
    lua_setfield(L, -2, "rank");
    pgr_bind_metatable(L, "pgrun.state", metamethods);
    lua_setmetatable(L, -2);
}
