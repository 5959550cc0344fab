/* bind.c - what the objects of Lua share. */
#include "bind.h"

void pgr_bind_metatable(lua_State *L, const char *type, const luaL_Reg *metamethods) {
    if (luaL_getmetatable(L, type) != LUA_TNIL)
        return;
    lua_pop(L, 1);
    lua_newtable(L);
    luaL_setfuncs(L, metamethods, 0);
    lua_pushstring(L, type);
    lua_setfield(L, -2, "__name"); /* for luaL_checkudata's messages */
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_pushvalue(L, -1);
    lua_setfield(L, LUA_REGISTRYINDEX, type);
}

int pgr_bind_missing(lua_State *L, const char *what, const pgr_nearest *nearest) {
    const char *name = luaL_tolstring(L, 2, NULL);
    if (nearest->best == NULL)
        return luaL_error(L, "%s has no \"%s\"", what, name);
    return luaL_error(L, "%s has no \"%s\"; did you mean \"%s\"?", what, name, nearest->best);
}
