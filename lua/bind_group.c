/* bind_group.c - a group of ranks. Its fields are made when they are read, since a group may have a
 * million members. */
#include "bind_group.h"
#include "bind.h"

#include <lauxlib.h>

#include <string.h>

static const char *const group_type = "pgrun.group";

enum { LISTED_MAX = 1 << 26 }; /* members: a list of them has a gigabyte */

/* An index, a place or a rank; nil for -1, which is none. */
static void push_or_nil(lua_State *L, int64_t value) {
    if (value < 0)
        lua_pushnil(L);
    else
        lua_pushinteger(L, value);
}

static void demand_listed(lua_State *L, const pgr_state_group *g) {
    if (g->member_count > LISTED_MAX)
        luaL_error(L, "a group of %I ranks is too large to list; ask pg.at(rank) instead",
                   (LUAI_UACINT)g->member_count);
}

static void push_name(lua_State *L, const pgr_state_group *g) {
    lua_pushstring(L, g->family.name);
}

static void push_group_name(lua_State *L, const pgr_state_group *g) {
    demand_listed(L, g);
    int64_t length = pgr_state_group_name(g, NULL, 0);
    if (length == 0) {
        lua_pushnil(L);
        return;
    }
    luaL_Buffer buffer;
    char *name = luaL_buffinitsize(L, &buffer, (size_t)length + 1);
    pgr_state_group_name(g, name, length + 1);
    luaL_pushresultsize(&buffer, (size_t)length);
}

static void push_index(lua_State *L, const pgr_state_group *g) {
    push_or_nil(L, g->index);
}

static void push_count(lua_State *L, const pgr_state_group *g) {
    lua_pushinteger(L, g->family.count);
}

static void push_rank(lua_State *L, const pgr_state_group *g) {
    push_or_nil(L, g->rank);
}

static void push_size(lua_State *L, const pgr_state_group *g) {
    lua_pushinteger(L, g->size);
}

/* The list is kept with the group, which is at index 1. */
static void push_members(lua_State *L, const pgr_state_group *g) {
    if (lua_getiuservalue(L, 1, 1) == LUA_TTABLE)
        return;
    lua_pop(L, 1);
    demand_listed(L, g);
    lua_createtable(L, (int)g->member_count, 0);
    for (int64_t place = 0; place < g->member_count; place++) {
        lua_pushinteger(L, pgr_state_group_member(g, place));
        lua_rawseti(L, -2, place + 1);
    }
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, 1);
}

static void push_source(lua_State *L, const pgr_state_group *g) {
    push_or_nil(L, pgr_state_group_source(g));
}

static void push_last(lua_State *L, const pgr_state_group *g) {
    push_or_nil(L, pgr_state_group_last(g));
}

static void push_next(lua_State *L, const pgr_state_group *g) {
    push_or_nil(L, pgr_state_group_next(g));
}

static void push_previous(lua_State *L, const pgr_state_group *g) {
    push_or_nil(L, pgr_state_group_previous(g));
}

static void push_has_communicator(lua_State *L, const pgr_state_group *g) {
    lua_pushboolean(L, g->has_communicator);
}

static const struct {
    const char *name;
    void (*push)(lua_State *L, const pgr_state_group *g);
} fields[] = {
    {"name", push_name},         {"group_name", push_group_name},
    {"index", push_index},       {"count", push_count},
    {"rank", push_rank},         {"size", push_size},
    {"members", push_members},   {"source", push_source},
    {"last", push_last},         {"next", push_next},
    {"previous", push_previous}, {"has_communicator", push_has_communicator},
};

enum { FIELDS = sizeof fields / sizeof fields[0] };

static int group_index(lua_State *L) {
    const pgr_state_group *g = luaL_checkudata(L, 1, group_type);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    for (int i = 0; i < FIELDS; i++) {
        if (strcmp(fields[i].name, key) == 0) {
            fields[i].push(L, g);
            return 1;
        }
    }
    pgr_nearest nearest = pgr_nearest_start(key);
    for (int i = 0; i < FIELDS; i++)
        pgr_nearest_offer(&nearest, fields[i].name);
    return pgr_bind_missing(L, "a group", &nearest);
}

static int group_text(lua_State *L) {
    const pgr_state_group *g = luaL_checkudata(L, 1, group_type);
    if (g->index < 0)
        lua_pushfstring(L, "no group of %s", g->family.name);
    else
        lua_pushfstring(L, "group %I of %s, rank %I of %I", (LUAI_UACINT)g->index, g->family.name,
                        (LUAI_UACINT)g->rank, (LUAI_UACINT)g->size);
    return 1;
}

static const luaL_Reg metamethods[] = {
    {"__index", group_index}, {"__tostring", group_text}, {NULL, NULL}};

void pgr_bind_group_push(lua_State *L, const pgr_state_group *group) {
    luaL_checkstack(L, 3, "a group");
    pgr_state_group *own = lua_newuserdatauv(L, sizeof *own, 1);
    *own = *group;
    pgr_bind_metatable(L, group_type, metamethods);
    lua_setmetatable(L, -2);
}
