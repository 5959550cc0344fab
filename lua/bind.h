/* bind.h - what the objects of Lua share. Private to this folder. */
#ifndef PGR_BIND_H
#define PGR_BIND_H

#include "config_reader.h"

#include <lauxlib.h>

/* Pushes the metatable of a kind of object. It is registered under `type` once it is whole, so that
 * a Lua error on the way (memory) leaves no half of it behind. Scripts do not see it. */
void pgr_bind_metatable(lua_State *L, const char *type, const luaL_Reg *metamethods);

/* From an __index: raises that `what` has nothing of the name at index 2, with the nearest one. */
int pgr_bind_missing(lua_State *L, const char *what, const pgr_nearest *nearest);

#endif
