/* sandbox_library.c - what a config can call: base, string, table and math, less what reaches
 * outside, defeats the limits, or would let two ranks disagree. Library functions in C run without
 * a hook, so those that can take long are charged for their work before they start. */
#include "sandbox.h"

#include <lauxlib.h>
#include <lualib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_PER_INSTRUCTION 16 /* what copying costs, roughly */

static const char seed_key; /* registry key of the library's own math.randomseed */

/* ---- a fixed order for pairs and next ---- */

typedef struct table_key {
    int kind; /* 0 number, 1 string, 2 boolean */
    bool is_integer, truth;
    lua_Integer integer;
    lua_Number number;
    const char *text; /* anchored by the table */
    size_t length;
} table_key;

static int compare_numbers(const table_key *a, const table_key *b) {
    if (a->is_integer && b->is_integer)
        return (a->integer > b->integer) - (a->integer < b->integer);
    int order = (a->number > b->number) - (a->number < b->number);
    return order ? order : (int)b->is_integer - (int)a->is_integer;
}

static int compare_keys(const void *left, const void *right) {
    const table_key *a = left, *b = right;
    if (a->kind != b->kind)
        return a->kind - b->kind;
    if (a->kind == 0)
        return compare_numbers(a, b);
    if (a->kind == 2)
        return (int)a->truth - (int)b->truth;
    size_t shorter = a->length < b->length ? a->length : b->length;
    int order = memcmp(a->text, b->text, shorter); /* by byte: no locale */
    return order ? order : (a->length > b->length) - (a->length < b->length);
}

/* Reads the key at the top of the stack. */
static void read_key(lua_State *L, table_key *key) {
    memset(key, 0, sizeof *key);
    switch (lua_type(L, -1)) {
    case LUA_TNUMBER:
        key->is_integer = lua_isinteger(L, -1);
        key->integer = key->is_integer ? lua_tointeger(L, -1) : 0;
        key->number = lua_tonumber(L, -1);
        break;
    case LUA_TSTRING:
        key->kind = 1;
        key->text = lua_tolstring(L, -1, &key->length);
        break;
    case LUA_TBOOLEAN:
        key->kind = 2;
        key->truth = lua_toboolean(L, -1);
        break;
    default:
        luaL_error(L, "a key that is a %s has no place in a fixed order; use numbers or strings",
                   luaL_typename(L, -1));
    }
}

static void push_key(lua_State *L, const table_key *key) {
    if (key->kind == 1)
        lua_pushlstring(L, key->text, key->length);
    else if (key->kind == 2)
        lua_pushboolean(L, key->truth);
    else if (key->is_integer)
        lua_pushinteger(L, key->integer);
    else
        lua_pushnumber(L, key->number);
}

/* Pushes a userdata with the sorted keys of the table at `index`; sets *count. */
static table_key *push_sorted_keys(lua_State *L, int index, size_t *count) {
    size_t n = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1))
        n++;
    pgr_sandbox_charge(L, 4.0 * (double)n);
    table_key *keys = lua_newuserdatauv(L, (n + 1) * sizeof *keys, 0);
    size_t i = 0;
    for (lua_pushnil(L); lua_next(L, index); i++) {
        lua_pop(L, 1);
        read_key(L, &keys[i]);
    }
    qsort(keys, n, sizeof *keys, compare_keys);
    *count = n;
    return keys;
}

/* The iterator of pairs. Upvalues: the list of keys, the index of the last one given. */
static int pairs_step(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_Integer i = lua_tointeger(L, lua_upvalueindex(2));
    while (lua_rawgeti(L, lua_upvalueindex(1), ++i) != LUA_TNIL) {
        lua_pushvalue(L, 2);
        if (lua_rawget(L, 1) != LUA_TNIL) { /* not removed since */
            lua_pushinteger(L, i);
            lua_replace(L, lua_upvalueindex(2));
            return 2;
        }
        lua_settop(L, 1);
    }
    return 1;
}

static int sandboxed_pairs(lua_State *L) {
    luaL_checkany(L, 1);
    if (luaL_getmetafield(L, 1, "__pairs") != LUA_TNIL) {
        lua_pushvalue(L, 1);
        lua_call(L, 1, 3);
        return 3;
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    size_t count;
    const table_key *keys = push_sorted_keys(L, 1, &count);
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        push_key(L, &keys[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, pairs_step, 2);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

static int sandboxed_next(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 2);
    size_t count, i = 0;
    const table_key *keys = push_sorted_keys(L, 1, &count);
    if (!lua_isnil(L, 2)) {
        table_key last;
        lua_pushvalue(L, 2);
        read_key(L, &last);
        lua_pop(L, 1);
        while (i < count && compare_keys(&keys[i], &last) <= 0)
            i++;
    }
    if (i == count) {
        lua_pushnil(L);
        return 1;
    }
    push_key(L, &keys[i]);
    lua_pushvalue(L, -1);
    lua_rawget(L, 1);
    return 2;
}

/* ---- texts without addresses, which differ between ranks ---- */

static bool has_address(lua_State *L, int index) {
    int type = lua_type(L, index);
    if (type != LUA_TTABLE && type != LUA_TFUNCTION && type != LUA_TUSERDATA &&
        type != LUA_TLIGHTUSERDATA && type != LUA_TTHREAD)
        return false;
    return luaL_getmetafield(L, index, "__tostring") == LUA_TNIL || (lua_pop(L, 1), false);
}

static int sandboxed_tostring(lua_State *L) {
    luaL_checkany(L, 1);
    if (has_address(L, 1))
        lua_pushstring(L, luaL_typename(L, 1));
    else
        luaL_tolstring(L, 1, NULL);
    return 1;
}

/* Upvalue: string.format. */
static int sandboxed_format(lua_State *L) {
    size_t length;
    const char *format = luaL_checklstring(L, 1, &length);
    for (const char *at = format; (at = strchr(at, '%')) != NULL; at++) {
        at++;
        at += strspn(at, "-+ #0123456789.");
        if (*at == 'p')
            return luaL_error(L, "%%p is not there in a config: addresses differ between ranks");
        if (!*at)
            break;
    }
    int top = lua_gettop(L);
    double bytes = (double)length;
    for (int i = 2; i <= top; i++) {
        if (has_address(L, i)) {
            lua_pushstring(L, luaL_typename(L, i));
            lua_replace(L, i);
        }
        bytes += 16 + (double)(lua_type(L, i) == LUA_TSTRING ? lua_rawlen(L, i) : 0);
    }
    pgr_sandbox_charge(L, bytes / BYTES_PER_INSTRUCTION);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, top, 1);
    return 1;
}

/* ---- functions that can take long, charged beforehand ---- */

/* The most steps a pattern can take: each repetition, and an unanchored start, can try every length
 * of the subject. */
static double pattern_cost(lua_State *L) {
    size_t subject, length;
    luaL_checklstring(L, 1, &subject);
    const char *pattern = luaL_checklstring(L, 2, &length);
    double cost = 1 + (double)length, each = 1 + (double)subject;
    if (length == 0 || pattern[0] != '^')
        cost *= each;
    for (size_t i = 0; i < length; i++)
        if (pattern[i] == '%')
            cost *= pattern[++i] == 'b' ? each : 1; /* %b looks for its end to the end */
        else if (strchr("*+-?", pattern[i]) && pattern[i])
            cost *= pattern[i] == '?' ? 2 : each;
    return cost;
}

static double string_cost(lua_State *L) {
    double bytes = 0;
    for (int i = lua_gettop(L); i > 0; i--)
        bytes += (double)(lua_type(L, i) == LUA_TSTRING ? lua_rawlen(L, i) : 0);
    return bytes;
}

static double repeat_cost(lua_State *L) {
    size_t text, separator = 0;
    luaL_checklstring(L, 1, &text);
    double count = (double)luaL_checkinteger(L, 2);
    luaL_optlstring(L, 3, "", &separator);
    return count > 0 ? count * (double)(text + separator + 1) : 0;
}

/* A table whose length is its own: __len could name any number of steps. */
static double plain_length(lua_State *L, int index) {
    luaL_checktype(L, index, LUA_TTABLE);
    if (luaL_getmetafield(L, index, "__len") != LUA_TNIL)
        luaL_error(L, "a table with __len cannot be given to the table library in a config");
    return (double)lua_rawlen(L, index);
}

/* Of the items behind a given position, which move by one; without a position none does. */
static double shift_cost(lua_State *L, bool has_position) {
    double n = plain_length(L, 1);
    double position = has_position ? (double)luaL_checkinteger(L, 2) : n;
    return position < n ? BYTES_PER_INSTRUCTION * (n - position) : 0;
}

static double insert_cost(lua_State *L) {
    return shift_cost(L, lua_gettop(L) >= 3);
}

static double remove_cost(lua_State *L) {
    return shift_cost(L, !lua_isnoneornil(L, 2));
}

static double sort_cost(lua_State *L) {
    double n = plain_length(L, 1);
    return BYTES_PER_INSTRUCTION * n * log2(n + 2);
}

static double range(lua_State *L, int first, double low, int last, double high) {
    low = lua_isnoneornil(L, first) ? low : (double)luaL_checkinteger(L, first);
    high = lua_isnoneornil(L, last) ? high : (double)luaL_checkinteger(L, last);
    return high >= low ? BYTES_PER_INSTRUCTION * (high - low + 1) : 0;
}

static double move_cost(lua_State *L) {
    plain_length(L, 1);
    return range(L, 2, 1, 3, 0);
}

static double concat_cost(lua_State *L) {
    return range(L, 3, 1, 4, plain_length(L, 1));
}

static double unpack_cost(lua_State *L) {
    return range(L, 2, 1, 3, plain_length(L, 1));
}

typedef struct charged {
    const char *library, *name;
    double (*cost)(lua_State *L); /* in units of a byte copied */
} charged;

static const charged charged_functions[] = {
    {"_G", "tonumber", string_cost},    {"string", "find", pattern_cost},
    {"string", "match", pattern_cost},  {"string", "gmatch", pattern_cost},
    {"string", "gsub", pattern_cost},   {"string", "rep", repeat_cost},
    {"string", "reverse", string_cost}, {"string", "lower", string_cost},
    {"string", "upper", string_cost},   {"string", "sub", string_cost},
    {"string", "byte", string_cost},    {"string", "pack", string_cost},
    {"string", "unpack", string_cost},  {"string", "packsize", string_cost},
    {"table", "insert", insert_cost},   {"table", "remove", remove_cost},
    {"table", "sort", sort_cost},       {"table", "move", move_cost},
    {"table", "concat", concat_cost},   {"table", "unpack", unpack_cost},
};

/* Upvalues: the wrapped function, the index of its entry. */
static int charged_call(lua_State *L) {
    const charged *entry = &charged_functions[lua_tointeger(L, lua_upvalueindex(2))];
    pgr_sandbox_charge(L, entry->cost(L) / BYTES_PER_INSTRUCTION);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

/* ---- what would defeat the limits or the sameness ---- */

/* Upvalue: setmetatable. */
static int sandboxed_setmetatable(lua_State *L) {
    static const char *const refused[] = {"__gc", "__mode"};
    for (size_t i = 0; lua_istable(L, 2) && i < sizeof refused / sizeof refused[0]; i++) {
        lua_pushstring(L, refused[i]);
        if (lua_rawget(L, 2) != LUA_TNIL)
            return luaL_error(L, "%s is not there in a config", refused[i]);
        lua_pop(L, 1);
    }
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    return 1;
}

/* Upvalue: math.randomseed, which without an argument takes the time. */
static int sandboxed_randomseed(lua_State *L) {
    luaL_checknumber(L, 1);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 0);
    return 0;
}

void pgr_sandbox_seed(lua_State *L, int64_t seed) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &seed_key);
    lua_pushinteger(L, seed);
    lua_call(L, 1, 0);
}

/* Replaces library[name] by function with the old value as its first upvalue. */
static void wrap(lua_State *L, const char *library, const char *name, lua_CFunction function) {
    lua_getglobal(L, library);
    lua_getfield(L, -1, name);
    lua_pushcclosure(L, function, 1);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
}

static void wrap_charged(lua_State *L) {
    size_t count = sizeof charged_functions / sizeof charged_functions[0];
    for (size_t i = 0; i < count; i++) {
        lua_getglobal(L, charged_functions[i].library);
        lua_getfield(L, -1, charged_functions[i].name);
        lua_pushinteger(L, (lua_Integer)i);
        lua_pushcclosure(L, charged_call, 2);
        lua_setfield(L, -2, charged_functions[i].name);
        lua_pop(L, 1);
    }
}

static void drop(lua_State *L, const char *library, const char *const *names) {
    lua_getglobal(L, library);
    for (; *names; names++) {
        lua_pushnil(L);
        lua_setfield(L, -2, *names);
    }
    lua_pop(L, 1);
}

int pgr_sandbox_library(lua_State *L) {
    static const char *const base_dropped[] = {
        "load",           "loadfile", "loadstring", "dofile", "require",
        "collectgarbage", "xpcall",   "print",      "warn",   NULL};
    static const char *const string_dropped[] = {"dump", NULL};
    luaL_requiref(L, LUA_GNAME, luaopen_base, 1);
    luaL_requiref(L, LUA_STRLIBNAME, luaopen_string, 1);
    luaL_requiref(L, LUA_TABLIBNAME, luaopen_table, 1);
    luaL_requiref(L, LUA_MATHLIBNAME, luaopen_math, 1);
    lua_getfield(L, -1, "randomseed");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &seed_key);
    lua_settop(L, 0);

    drop(L, LUA_GNAME, base_dropped);
    drop(L, LUA_STRLIBNAME, string_dropped);
    wrap_charged(L);
    wrap(L, LUA_GNAME, "setmetatable", sandboxed_setmetatable);
    wrap(L, LUA_STRLIBNAME, "format", sandboxed_format);
    wrap(L, LUA_MATHLIBNAME, "randomseed", sandboxed_randomseed);
    lua_register(L, "pairs", sandboxed_pairs);
    lua_register(L, "next", sandboxed_next);
    lua_register(L, "tostring", sandboxed_tostring);

    /* The metatable of strings is out of reach. */
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_settop(L, 0);
    return 0;
}
