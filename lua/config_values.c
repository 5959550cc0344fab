/* config_values.c - reads single values and lists of a config: integers, numbers, names, choices.
 * What is wrong with one is noted in words, with what was found and what is allowed. */
#include "config_values.h"

#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LIST_MAX (1 << 20)

/* Joins the parts (the last one NULL) into a path; what does not fit is cut. */
void pgr_path_join(char *out, const char *const *parts) {
    size_t used = 0;
    for (; *parts; parts++)
        for (const char *at = *parts; *at && used < PGR_PATH_BYTES - 1; at++)
            out[used++] = *at;
    out[used] = '\0';
}

void pgr_path_key(char *out, const char *section, const char *leaf) {
    pgr_path_join(out, (const char *const[]){section, *section ? "." : "", leaf, NULL});
}

/* ---- what was found, in words ---- */

static void describe_string(lua_State *L, int index, char *text, size_t bytes) {
    char clean[48];
    size_t length;
    const char *value = lua_tolstring(L, index, &length);
    pgr_text_clean(clean, sizeof clean, value, length);
    snprintf(text, bytes, "\"%s%s\"", clean, length >= sizeof clean ? "..." : "");
}

/* The value at `index`; with its type where `typed`, for a value of the wrong one. */
void pgr_value_describe(lua_State *L, int index, bool typed, char *text, size_t bytes) {
    switch (lua_type(L, index)) {
    case LUA_TNUMBER:
        if (lua_isinteger(L, index)) {
            snprintf(text, bytes, "%lld%s", (long long)lua_tointeger(L, index),
                     typed ? ", an integer" : "");
        } else {
            char number[40];
            double value = lua_tonumber(L, index);
            snprintf(number, sizeof number, "%.14g", isnan(value) ? fabs(value) : value);
            bool plain = strspn(number, "-0123456789") == strlen(number);
            snprintf(text, bytes, "%s%s%s", number, plain ? ".0" : "", typed ? ", a float" : "");
        }
        break;
    case LUA_TSTRING:
        describe_string(L, index, text, bytes);
        if (typed)
            snprintf(text + strlen(text), bytes - strlen(text), ", a string");
        break;
    case LUA_TBOOLEAN:
        snprintf(text, bytes, "%s", lua_toboolean(L, index) ? "true" : "false");
        break;
    case LUA_TNIL:
        snprintf(text, bytes, "nil");
        break;
    default:
        snprintf(text, bytes, "a %s", luaL_typename(L, index));
    }
}

/* "found X; allowed: Y" for the value at `index`. */
void pgr_value_wrong(pgr_reader *reader, lua_State *L, int index, bool typed, const char *path,
                     const char *allowed, const char *hint) {
    char found[PGR_FOUND_BYTES];
    pgr_value_describe(L, index, typed, found, sizeof found);
    pgr_problem_add(reader, "PG005", path, "found %s; allowed: %s%s", found, allowed, hint);
}

void pgr_value_wrong_for(pgr_reader *reader, lua_State *L, int index, bool typed, const char *path,
                         const pgr_key *key) {
    char allowed[PGR_ALLOWED_BYTES];
    pgr_key_describe(key, allowed, sizeof allowed);
    pgr_value_wrong(reader, L, index, typed, path, allowed, "");
}

/* ---- single values ---- */

bool pgr_value_integer(pgr_reader *reader, lua_State *L, int index, const char *path,
                       const pgr_key *key, int64_t *out) {
    if (!lua_isinteger(L, index) || lua_type(L, index) != LUA_TNUMBER) {
        pgr_value_wrong_for(reader, L, index, true, path, key);
        return false;
    }
    int64_t value = lua_tointeger(L, index);
    if ((double)value < key->minimum || (double)value > key->maximum) {
        pgr_value_wrong_for(reader, L, index, false, path, key);
        return false;
    }
    *out = value;
    return true;
}

static void read_number(pgr_reader *reader, lua_State *L, int index, const char *path,
                        const pgr_key *key, double *out) {
    double value = lua_type(L, index) == LUA_TNUMBER ? lua_tonumber(L, index) : 0;
    if (lua_type(L, index) != LUA_TNUMBER)
        pgr_value_wrong_for(reader, L, index, true, path, key);
    else if (!(value >= key->minimum && value <= key->maximum)) /* NaN is out of range */
        pgr_value_wrong_for(reader, L, index, false, path, key);
    else
        *out = value;
}

/* A string of 1 to PGR_NAME_MAX - 1 bytes without NUL. */
bool pgr_value_name(pgr_reader *reader, lua_State *L, int index, const char *path,
                    const char *allowed, char *out) {
    size_t length = 0;
    if (lua_type(L, index) != LUA_TSTRING) {
        pgr_value_wrong(reader, L, index, true, path, allowed, "");
        return false;
    }
    const char *value = lua_tolstring(L, index, &length);
    if (length == 0 || length >= PGR_NAME_MAX || strlen(value) != length) {
        pgr_value_wrong(reader, L, index, false, path, allowed, "");
        return false;
    }
    memset(out, 0, PGR_NAME_MAX);
    memcpy(out, value, length);
    return true;
}

/* IEEE half precision, by whatever name: it is no misspelt bf16. */
static bool is_half(const char *name) {
    static const char *const names[] = {"f16", "fp16", "float16", "half", "torch.float16"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return false;
}

/* The index of the choice at `index`, or -1 with a problem noted. */
static int64_t read_choice(pgr_reader *reader, lua_State *L, int index, const char *path,
                           const pgr_key *key) {
    char allowed[PGR_ALLOWED_BYTES], hint[PGR_NAME_MAX + 32] = "";
    char names[16][PGR_NAME_MAX];
    pgr_key one = *key;
    one.type = PGR_KEY_CHOICE; /* an item, where the key takes a list */
    pgr_key_describe(&one, allowed, sizeof allowed);
    if (lua_type(L, index) != LUA_TSTRING) {
        pgr_value_wrong(reader, L, index, true, path, allowed, "");
        return -1;
    }
    size_t length;
    const char *value = lua_tolstring(L, index, &length);
    int64_t choice = length && strlen(value) == length ? pgr_key_choice_index(key, value) : -1;
    if (choice >= 0)
        return choice;
    pgr_nearest nearest = pgr_nearest_start(value);
    for (int i = 0; i < 16; i++) {
        pgr_key_choice_name(key, i, names[i]);
        if (names[i][0])
            pgr_nearest_offer(&nearest, names[i]);
    }
    bool half = strcmp(path, "model.dtype") == 0 && is_half(value);
    if (half)
        snprintf(hint, sizeof hint, "; f16 is not one of pgrun's dtypes");
    else if (nearest.best)
        snprintf(hint, sizeof hint, "; did you mean `%s`?", nearest.best);
    pgr_value_wrong(reader, L, index, false, path, allowed, hint);
    return -1;
}

/* ---- lists ---- */

/* The length of the list at `index`, or -1 with problems noted: no table, a named item, a hole. */
int64_t pgr_list_length(pgr_reader *reader, lua_State *L, int index, const char *path,
                        const char *allowed) {
    if (!lua_istable(L, index)) {
        pgr_value_wrong(reader, L, index, true, path, allowed, "");
        return -1;
    }
    int64_t length = (int64_t)lua_rawlen(L, index), count = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (!lua_isinteger(L, -2) || lua_tointeger(L, -2) < 1 || lua_tointeger(L, -2) > length) {
            char found[PGR_FOUND_BYTES];
            pgr_value_describe(L, -2, false, found, sizeof found);
            pgr_problem_add(reader, "PG005", path,
                            "found a table with the key %s; allowed: %s, without keys or holes",
                            found, allowed);
            lua_pop(L, 2);
            return -1;
        }
        count++;
    }
    if (count != length || length > LIST_MAX) {
        pgr_problem_add(reader, "PG005", path, "found a list %s; allowed: %s",
                        count != length ? "with holes" : "of more than 2^20 items", allowed);
        return -1;
    }
    return length;
}

void *pgr_list_alloc(pgr_reader *reader, int64_t count, size_t bytes) {
    void *items = count > 0 ? calloc((size_t)count, bytes) : NULL;
    if (count > 0 && !items)
        reader->out_of_memory = true;
    return items;
}

void pgr_path_item(char *out, const char *path, int64_t i) {
    char number[32];
    snprintf(number, sizeof number, "[%lld]", (long long)i);
    pgr_path_join(out, (const char *const[]){path, number, NULL});
}

/* A list of integers, or of choices. The old items (a default) are freed. */
static void read_list(pgr_reader *reader, lua_State *L, int index, const char *path,
                      const pgr_key *key, pgr_list *out) {
    char allowed[PGR_ALLOWED_BYTES], at[PGR_PATH_BYTES];
    bool choices = key->type == PGR_KEY_CHOICE_LIST;
    pgr_key item = *key;
    item.type = PGR_KEY_INTEGER;
    if (key->type == PGR_KEY_PATTERN) {
        item.minimum = 0;
        item.maximum = 1;
    }
    pgr_key_describe(key, allowed, sizeof allowed);
    int64_t length = pgr_list_length(reader, L, index, path, allowed);
    if (length == 0 && !choices)
        pgr_problem_add(reader, "PG005", path, "found an empty list; allowed: %s", allowed);
    if (length < 0 || (length == 0 && !choices))
        return;
    free(out->items);
    *out = (pgr_list){0, pgr_list_alloc(reader, length, sizeof *out->items)};
    for (int64_t i = 1; out->items && i <= length; i++, lua_pop(L, 1)) {
        int64_t value = -1;
        lua_rawgeti(L, index, i);
        pgr_path_item(at, path, i);
        if (choices)
            value = read_choice(reader, L, lua_gettop(L), at, key);
        else if (!pgr_value_integer(reader, L, lua_gettop(L), at, &item, &value))
            value = -1;
        for (int64_t j = 0; choices && value >= 0 && j < out->count; j++) {
            if (out->items[j] == value) {
                pgr_value_wrong(reader, L, lua_gettop(L), false, at, "each name once", "");
                break;
            }
        }
        out->items[out->count++] = value;
    }
}

static void read_names(pgr_reader *reader, lua_State *L, int index, const char *path,
                       const pgr_key *key, pgr_names *out) {
    char allowed[PGR_ALLOWED_BYTES], at[PGR_PATH_BYTES], name[PGR_NAME_MAX];
    pgr_key_describe(key, allowed, sizeof allowed);
    int64_t length = pgr_list_length(reader, L, index, path, allowed);
    if (length < 0)
        return;
    if (length > 4096) {
        pgr_problem_add(reader, "PG005", path, "found %lld names; allowed: at most 4096",
                        (long long)length);
        return;
    }
    out->items = pgr_list_alloc(reader, length, sizeof *out->items);
    for (int64_t i = 1; out->items && i <= length; i++, lua_pop(L, 1)) {
        lua_rawgeti(L, index, i);
        pgr_path_item(at, path, i);
        int top = lua_gettop(L);
        if (key->choices ? read_choice(reader, L, top, at, key) < 0
                         : !pgr_value_name(reader, L, top, at, "a name of 1 to 63 bytes", name))
            continue;
        snprintf(name, sizeof name, "%s", lua_tostring(L, top));
        bool again = false;
        for (int64_t j = 0; j < out->count; j++)
            again = again || strcmp(out->items[j], name) == 0;
        if (again)
            pgr_value_wrong(reader, L, top, false, at, "each name once", "");
        else
            snprintf(out->items[out->count++], PGR_NAME_MAX, "%s", name);
    }
}

/* ---- any plain value ---- */

/* A list of integers, or one integer for "every n-th". */
static void read_pattern(pgr_reader *reader, lua_State *L, int index, const char *path,
                         const pgr_key *key, pgr_list *out) {
    if (lua_type(L, index) != LUA_TNUMBER) {
        read_list(reader, L, index, path, key, out);
        reader->pattern_is_list = true; /* { 1 } and 1 read alike */
        return;
    }
    reader->pattern_is_list = false;
    out->items = pgr_list_alloc(reader, 1, sizeof *out->items);
    out->count = out->items && pgr_value_integer(reader, L, index, path, key, out->items);
}

/* A list, of whatever the key takes. */
static void read_items(pgr_reader *reader, lua_State *L, int index, const char *path,
                       const pgr_key *key, void *field) {
    if (field == (void *)&reader->spec->run.families)
        reader->spec->run.families_given = true;
    if (key->type == PGR_KEY_PATTERN)
        read_pattern(reader, L, index, path, key, field);
    else if (key->type == PGR_KEY_NAME_LIST)
        read_names(reader, L, index, path, key, field);
    else
        read_list(reader, L, index, path, key, field);
}

void pgr_value_read(pgr_reader *reader, lua_State *L, int index, const char *path,
                    const pgr_key *key, void *field) {
    int64_t choice;
    switch (key->type) {
    case PGR_KEY_INTEGER:
        pgr_value_integer(reader, L, index, path, key, field);
        break;
    case PGR_KEY_NUMBER:
        read_number(reader, L, index, path, key, field);
        break;
    case PGR_KEY_BOOLEAN:
        if (lua_isboolean(L, index))
            *(bool *)field = lua_toboolean(L, index);
        else
            pgr_value_wrong_for(reader, L, index, true, path, key);
        break;
    case PGR_KEY_CHOICE:
        choice = read_choice(reader, L, index, path, key);
        if (choice >= 0)
            *(int *)field = (int)choice;
        break;
    case PGR_KEY_STRING:
        pgr_value_name(reader, L, index, path, "a string of 1 to 63 bytes", field);
        break;
    default:
        read_items(reader, L, index, path, key, field);
    }
}
