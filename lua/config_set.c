/* config_set.c - --set KEY=VALUE: the value is a Lua literal or a bare word, put into the table
 * that the config returned before it is read. */
#include "config_reader.h"

#include <ctype.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

#define DEPTH_MAX 8

typedef struct literal {
    lua_State *L;
    const char *at;
    int depth;
} literal;

static bool parse_value(literal *in);

static void skip_space(literal *in) {
    while (isspace((unsigned char)*in->at))
        in->at++;
}

static bool parse_quoted(literal *in) {
    char quote = *in->at++;
    luaL_Buffer buffer;
    luaL_buffinit(in->L, &buffer);
    for (; *in->at && *in->at != quote; in->at++) {
        if (*in->at == '\\' && in->at[1])
            in->at++;
        luaL_addchar(&buffer, *in->at);
    }
    luaL_pushresult(&buffer);
    if (*in->at != quote) {
        lua_pop(in->L, 1);
        return false;
    }
    in->at++;
    return true;
}

/* nil, true, false, a number, or any other word. */
static bool parse_word(literal *in) {
    size_t length = strcspn(in->at, ",{}[]()=;\"' \t\r\n");
    char word[256];
    if (length == 0 || length >= sizeof word)
        return false;
    memcpy(word, in->at, length);
    word[length] = '\0';
    in->at += length;
    if (strcmp(word, "nil") == 0)
        lua_pushnil(in->L);
    else if (strcmp(word, "true") == 0 || strcmp(word, "false") == 0)
        lua_pushboolean(in->L, word[0] == 't');
    else if (lua_stringtonumber(in->L, word) == 0) {
        if (!isalpha((unsigned char)word[0]) && word[0] != '_')
            return false; /* 4x, -, .5.5 */
        lua_pushstring(in->L, word);
    }
    return true;
}

/* The name of "name =" here, pushed; or false and nothing. */
static bool parse_field_name(literal *in) {
    size_t length = 0;
    while (isalnum((unsigned char)in->at[length]) || in->at[length] == '_')
        length++;
    const char *behind = in->at + length;
    while (isspace((unsigned char)*behind))
        behind++;
    if (length == 0 || *behind != '=')
        return false;
    lua_pushlstring(in->L, in->at, length);
    in->at = behind + 1;
    return true;
}

static bool parse_table(literal *in) {
    lua_Integer item = 0;
    in->at++;
    lua_newtable(in->L);
    for (skip_space(in); *in->at && *in->at != '}'; skip_space(in)) {
        if (!parse_field_name(in))
            lua_pushinteger(in->L, ++item);
        if (!parse_value(in)) {
            lua_pop(in->L, 2);
            return false;
        }
        lua_rawset(in->L, -3);
        skip_space(in);
        if (*in->at == ',' || *in->at == ';')
            in->at++;
        else if (*in->at != '}')
            break;
    }
    if (*in->at != '}') {
        lua_pop(in->L, 1);
        return false;
    }
    in->at++;
    return true;
}

/* Pushes one value, or pushes nothing and returns false. */
static bool parse_value(literal *in) {
    luaL_checkstack(in->L, 8, NULL);
    skip_space(in);
    if (++in->depth > DEPTH_MAX)
        return false;
    bool good = *in->at == '{'                      ? parse_table(in)
                : *in->at == '"' || *in->at == '\'' ? parse_quoted(in)
                                                    : parse_word(in);
    in->depth--;
    return good;
}

static bool refuse(pgr_reader *reader, const char *set, const char *why) {
    reader->status = pgr_error_set(reader->error, PGR_USAGE, "--set %s: %s", set, why);
    return false;
}

/* Whether `path` (of `set`) is a key that can be set. */
static bool check_path(pgr_reader *reader, const char *set, const char *path) {
    char why[512];
    const pgr_key *key = pgr_key_find(path);
    if (key && key->type != PGR_KEY_SECTION)
        return true;
    pgr_nearest nearest = pgr_nearest_start(path);
    for (int i = 0; i < pgr_key_count; i++) {
        const char *dot = strchr(pgr_keys[i].path, '.');
        if (pgr_keys[i].type == PGR_KEY_SECTION)
            continue;
        pgr_nearest_offer(&nearest, pgr_keys[i].path);
        if (dot && strcmp(dot + 1, path) == 0) { /* tp for parallel.tp */
            nearest.best = pgr_keys[i].path;
            nearest.edits = 0;
        }
    }
    if (key)
        snprintf(why, sizeof why,
                 "`%s` is a section; set one of its keys, as in --set %s.KEY=VALUE", path, path);
    else if (nearest.best)
        snprintf(why, sizeof why, "there is no key `%s`; did you mean `%s`?", path, nearest.best);
    else
        snprintf(why, sizeof why, "there is no key `%s`; `pgrun --help config` lists them all",
                 path);
    return refuse(reader, set, why);
}

/* Pushes the value of one --set, or returns false. */
static bool parse_set(lua_State *L, pgr_reader *reader, const char *set) {
    char path[PGR_PATH_BYTES];
    size_t length = strcspn(set, "=");
    if (set[length] != '=' || length == 0)
        return refuse(reader, set, "give KEY=VALUE, as in --set parallel.tp=4");
    snprintf(path, sizeof path, "%.*s", (int)(length < 120 ? length : 120), set);
    if (!check_path(reader, set, path))
        return false;
    literal in = {L, set + length + 1, 0};
    if (!parse_value(&in))
        return refuse(reader, set,
                      "the value cannot be read; give a number, true, false, nil, a word, \"text\" "
                      "or a list such as {1, 2}");
    skip_space(&in);
    if (*in.at) {
        lua_pop(L, 1);
        return refuse(reader, set,
                      *in.at == ','
                          ? "this takes one value; several, as in KEY=2,4, go with `pgrun "
                            "check` alone, and a list is {2, 4}"
                          : "there is more behind the value; quote it: KEY=\"...\"");
    }
    return true;
}

bool pgr_sets_parse(lua_State *L, pgr_reader *reader) {
    lua_createtable(L, reader->set_count, 0);
    for (int i = 0; i < reader->set_count; i++) {
        if (!parse_set(L, reader, reader->sets[i])) {
            lua_pop(L, 1);
            return false;
        }
        lua_rawseti(L, -2, i + 1);
    }
    return true;
}

void pgr_sets_apply(lua_State *L, pgr_reader *reader, int sets, int config) {
    int top = lua_gettop(L);
    for (int i = 0; i < reader->set_count; i++, lua_settop(L, top)) {
        const char *path = reader->sets[i], *leaf = path;
        size_t length = strcspn(path, "="), section = strcspn(path, ".=");
        lua_pushvalue(L, config);
        if (section < length) {
            leaf = path + section + 1;
            lua_pushlstring(L, path, section);
            lua_pushvalue(L, -1);
            if (lua_rawget(L, -3) == LUA_TNIL) {
                lua_pop(L, 1);
                lua_newtable(L);
                lua_pushvalue(L, -2);
                lua_pushvalue(L, -2);
                lua_rawset(L, -5);
            }
            if (!lua_istable(L, -1))
                continue; /* told when the section is read */
        }
        lua_pushlstring(L, leaf, length - (size_t)(leaf - path));
        lua_rawgeti(L, sets, i + 1);
        lua_rawset(L, -3);
    }
}
