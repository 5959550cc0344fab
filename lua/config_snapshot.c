/* config_snapshot.c - what the config's table held as it was returned, for its places in the text.
 * Raw access only. A stranger's table may be endless or contain itself, so it is cut. */
#include "config_reader.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 6
#define ITEMS_OF_TABLE 2048
#define ITEMS_MAX 16384

/* Adds an item; 0 where there are enough, or memory is short. */
static uint32_t add(pgr_reader *reader, pgr_held item) {
    pgr_snapshot *held = reader->held;
    if (held->count >= ITEMS_MAX)
        return 0;
    if ((held->count & (held->count - 1)) == 0) { /* full: 0, 1, 2, 4, ... */
        size_t room = held->count ? 2 * (size_t)held->count : 1;
        void *grown = realloc(held->items, room * sizeof *held->items);
        if (!grown) {
            reader->out_of_memory = true;
            return 0;
        }
        held->items = grown;
    }
    held->items[held->count] = item;
    return held->count++;
}

/* The value at the top of the stack, without what is in it. */
static pgr_held describe(lua_State *L, uint64_t name) {
    pgr_held item = {.name = name, .kind = PGR_HELD_OTHER};
    size_t length;
    const char *text;
    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN:
        item.kind = PGR_HELD_BOOLEAN;
        item.number = lua_toboolean(L, -1);
        break;
    case LUA_TNUMBER:
        item.kind = PGR_HELD_NUMBER;
        item.number = lua_tonumber(L, -1);
        break;
    case LUA_TSTRING:
        item.kind = PGR_HELD_STRING;
        text = lua_tolstring(L, -1, &length);
        item.text = pgr_positions_name(text, length);
        break;
    case LUA_TTABLE:
        item.kind = PGR_HELD_TABLE;
        break;
    default:
        break;
    }
    return item;
}

/* The key below the top of the stack as paths show it; false for one that no text writes so. */
static bool key_of(lua_State *L, uint64_t *name) {
    char text[32];
    size_t length;
    if (lua_type(L, -2) == LUA_TSTRING) {
        const char *key = lua_tolstring(L, -2, &length);
        *name = pgr_positions_key(key, length);
        return true;
    }
    if (!lua_isinteger(L, -2))
        return false;
    length = (size_t)snprintf(text, sizeof text, "[%lld]", (long long)lua_tointeger(L, -2));
    *name = pgr_positions_key(text, length);
    return true;
}

/* Reads the table at the top of the stack into the item `at`. */
static void read_table(lua_State *L, pgr_reader *reader, uint32_t at, int depth) {
    int left = ITEMS_OF_TABLE;
    if (depth > DEPTH_MAX)
        return;
    luaL_checkstack(L, 4, NULL);
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        uint64_t name = 0;
        if (!key_of(L, &name))
            continue;
        uint32_t item = left-- > 0 ? add(reader, describe(L, name)) : 0;
        if (item == 0) {
            lua_pop(L, 2);
            return;
        }
        reader->held->items[item].next = reader->held->items[at].child;
        reader->held->items[at].child = item;
        if (lua_istable(L, -1))
            read_table(L, reader, item, depth + 1);
    }
    reader->held->items[at].complete = true;
}

void pgr_snapshot_take(lua_State *L, pgr_reader *reader, int config) {
    lua_pushvalue(L, config);
    add(reader, describe(L, 0)); /* the first one, so its number is 0 */
    if (reader->held->count == 1)
        read_table(L, reader, 0, 0);
    lua_pop(L, 1);
}

void pgr_snapshot_free(pgr_snapshot *held) {
    free(held->items);
    *held = (pgr_snapshot){0};
}
