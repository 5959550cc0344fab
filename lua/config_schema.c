/* config_schema.c - reads the config's table into a pgr_spec, driven by pgr_keys. Raw access only:
 * a metamethod of the config never runs here. Nothing stops at the first problem. */
#include "config_reader.h"

#include <lauxlib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOUND_BYTES 96
#define ALLOWED_BYTES 320
#define LIST_MAX (1 << 20)

const char pgr_padding_function_key = 0;

/* Joins the parts (the last one NULL) into a path; what does not fit is cut. */
static void path_join(char *out, const char *const *parts) {
    size_t used = 0;
    for (; *parts; parts++)
        for (const char *at = *parts; *at && used < PGR_PATH_BYTES - 1; at++)
            out[used++] = *at;
    out[used] = '\0';
}

static void key_path(char *out, const char *section, const char *leaf) {
    path_join(out, (const char *const[]){section, *section ? "." : "", leaf, NULL});
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
static void describe_found(lua_State *L, int index, bool typed, char *text, size_t bytes) {
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
static void wrong(pgr_reader *reader, lua_State *L, int index, bool typed, const char *path,
                  const char *allowed, const char *hint) {
    char found[FOUND_BYTES];
    describe_found(L, index, typed, found, sizeof found);
    pgr_problem_add(reader, path, false, "found %s; allowed: %s%s", found, allowed, hint);
}

static void wrong_key(pgr_reader *reader, lua_State *L, int index, bool typed, const char *path,
                      const pgr_key *key) {
    char allowed[ALLOWED_BYTES];
    pgr_key_describe(key, allowed, sizeof allowed);
    wrong(reader, L, index, typed, path, allowed, "");
}

/* ---- single values ---- */

static bool read_integer(pgr_reader *reader, lua_State *L, int index, const char *path,
                         const pgr_key *key, int64_t *out) {
    if (!lua_isinteger(L, index) || lua_type(L, index) != LUA_TNUMBER) {
        wrong_key(reader, L, index, true, path, key);
        return false;
    }
    int64_t value = lua_tointeger(L, index);
    if ((double)value < key->minimum || (double)value > key->maximum) {
        wrong_key(reader, L, index, false, path, key);
        return false;
    }
    *out = value;
    return true;
}

static void read_number(pgr_reader *reader, lua_State *L, int index, const char *path,
                        const pgr_key *key, double *out) {
    double value = lua_type(L, index) == LUA_TNUMBER ? lua_tonumber(L, index) : 0;
    if (lua_type(L, index) != LUA_TNUMBER)
        wrong_key(reader, L, index, true, path, key);
    else if (!(value >= key->minimum && value <= key->maximum)) /* NaN is out of range */
        wrong_key(reader, L, index, false, path, key);
    else
        *out = value;
}

/* A string of 1 to PGR_NAME_MAX - 1 bytes without NUL. */
static bool read_name(pgr_reader *reader, lua_State *L, int index, const char *path,
                      const char *allowed, char *out) {
    size_t length = 0;
    if (lua_type(L, index) != LUA_TSTRING) {
        wrong(reader, L, index, true, path, allowed, "");
        return false;
    }
    const char *value = lua_tolstring(L, index, &length);
    if (length == 0 || length >= PGR_NAME_MAX || strlen(value) != length) {
        wrong(reader, L, index, false, path, allowed, "");
        return false;
    }
    memset(out, 0, PGR_NAME_MAX);
    memcpy(out, value, length);
    return true;
}

/* The index of the choice at `index`, or -1 with a problem noted. */
static int64_t read_choice(pgr_reader *reader, lua_State *L, int index, const char *path,
                           const pgr_key *key) {
    char allowed[ALLOWED_BYTES], hint[PGR_NAME_MAX + 32] = "";
    char names[16][PGR_NAME_MAX];
    pgr_key one = *key;
    one.type = PGR_KEY_CHOICE; /* an item, where the key takes a list */
    pgr_key_describe(&one, allowed, sizeof allowed);
    if (lua_type(L, index) != LUA_TSTRING) {
        wrong(reader, L, index, true, path, allowed, "");
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
    if (nearest.best)
        snprintf(hint, sizeof hint, "; did you mean `%s`?", nearest.best);
    wrong(reader, L, index, false, path, allowed, hint);
    return -1;
}

/* ---- lists ---- */

/* The length of the list at `index`, or -1 with problems noted: no table, a named item, a hole. */
static int64_t list_length(pgr_reader *reader, lua_State *L, int index, const char *path,
                           const char *allowed) {
    if (!lua_istable(L, index)) {
        wrong(reader, L, index, true, path, allowed, "");
        return -1;
    }
    int64_t length = (int64_t)lua_rawlen(L, index), count = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (!lua_isinteger(L, -2) || lua_tointeger(L, -2) < 1 || lua_tointeger(L, -2) > length) {
            char found[FOUND_BYTES];
            describe_found(L, -2, false, found, sizeof found);
            pgr_problem_add(reader, path, false,
                            "found a table with the key %s; allowed: %s, without keys or holes",
                            found, allowed);
            lua_pop(L, 2);
            return -1;
        }
        count++;
    }
    if (count != length || length > LIST_MAX) {
        pgr_problem_add(reader, path, false, "found a list %s; allowed: %s",
                        count != length ? "with holes" : "of more than 2^20 items", allowed);
        return -1;
    }
    return length;
}

static void *list_items(pgr_reader *reader, int64_t count, size_t bytes) {
    void *items = count > 0 ? calloc((size_t)count, bytes) : NULL;
    if (count > 0 && !items)
        reader->out_of_memory = true;
    return items;
}

static void item_path(char *out, const char *path, int64_t i) {
    char number[32];
    snprintf(number, sizeof number, "[%lld]", (long long)i);
    path_join(out, (const char *const[]){path, number, NULL});
}

/* A list of integers, or of choices. The old items (a default) are freed. */
static void read_list(pgr_reader *reader, lua_State *L, int index, const char *path,
                      const pgr_key *key, pgr_list *out) {
    char allowed[ALLOWED_BYTES], at[PGR_PATH_BYTES];
    bool choices = key->type == PGR_KEY_CHOICE_LIST;
    pgr_key item = *key;
    item.type = PGR_KEY_INTEGER;
    if (key->type == PGR_KEY_PATTERN) {
        item.minimum = 0;
        item.maximum = 1;
    }
    pgr_key_describe(key, allowed, sizeof allowed);
    int64_t length = list_length(reader, L, index, path, allowed);
    if (length == 0 && !choices)
        pgr_problem_add(reader, path, false, "found an empty list; allowed: %s", allowed);
    if (length < 0 || (length == 0 && !choices))
        return;
    free(out->items);
    *out = (pgr_list){0, list_items(reader, length, sizeof *out->items)};
    for (int64_t i = 1; out->items && i <= length; i++, lua_pop(L, 1)) {
        int64_t value = -1;
        lua_rawgeti(L, index, i);
        item_path(at, path, i);
        if (choices)
            value = read_choice(reader, L, lua_gettop(L), at, key);
        else if (!read_integer(reader, L, lua_gettop(L), at, &item, &value))
            value = -1;
        for (int64_t j = 0; choices && value >= 0 && j < out->count; j++) {
            if (out->items[j] == value) {
                wrong(reader, L, lua_gettop(L), false, at, "each name once", "");
                break;
            }
        }
        out->items[out->count++] = value;
    }
}

static void read_names(pgr_reader *reader, lua_State *L, int index, const char *path,
                       const pgr_key *key, pgr_names *out) {
    char allowed[ALLOWED_BYTES], at[PGR_PATH_BYTES], name[PGR_NAME_MAX];
    pgr_key_describe(key, allowed, sizeof allowed);
    int64_t length = list_length(reader, L, index, path, allowed);
    if (length < 0)
        return;
    if (length > 4096) {
        pgr_problem_add(reader, path, false, "found %lld names; allowed: at most 4096",
                        (long long)length);
        return;
    }
    out->items = list_items(reader, length, sizeof *out->items);
    for (int64_t i = 1; out->items && i <= length; i++, lua_pop(L, 1)) {
        lua_rawgeti(L, index, i);
        item_path(at, path, i);
        int top = lua_gettop(L);
        if (key->choices ? read_choice(reader, L, top, at, key) < 0
                         : !read_name(reader, L, top, at, "a name of 1 to 63 bytes", name))
            continue;
        snprintf(name, sizeof name, "%s", lua_tostring(L, top));
        bool again = false;
        for (int64_t j = 0; j < out->count; j++)
            again = again || strcmp(out->items[j], name) == 0;
        if (again)
            wrong(reader, L, top, false, at, "each name once", "");
        else
            snprintf(out->items[out->count++], PGR_NAME_MAX, "%s", name);
    }
}

/* ---- the general grid ---- */

static void read_axis(pgr_reader *reader, lua_State *L, int index, const char *path,
                      pgr_grid *out) {
    static const pgr_key size_key = {
        .path = "", .type = PGR_KEY_INTEGER, .minimum = 1, .maximum = 0x1p40};
    static const char shape[] =
        "an axis such as {\"tp\", 2}, or {\"dp\"} for the size that is left";
    char at[PGR_PATH_BYTES];
    pgr_grid_axis *axis = &out->axes[out->count];
    int64_t length = list_length(reader, L, index, path, shape);
    if (length < 0)
        return;
    if (length != 1 && length != 2) {
        pgr_problem_add(reader, path, false, "found a list of %lld; allowed: %s", (long long)length,
                        shape);
        return;
    }
    axis->size = PGR_NIL;
    lua_rawgeti(L, index, 1);
    item_path(at, path, 1);
    bool good = read_name(reader, L, lua_gettop(L), at, "a name of 1 to 63 bytes", axis->name);
    for (int64_t i = 0; good && i < out->count; i++) {
        if (strcmp(out->axes[i].name, axis->name) == 0) {
            wrong(reader, L, lua_gettop(L), false, at, "each axis once", "");
            good = false;
        }
    }
    lua_pop(L, 1);
    if (length == 2) {
        lua_rawgeti(L, index, 2);
        item_path(at, path, 2);
        good = read_integer(reader, L, lua_gettop(L), at, &size_key, &axis->size) && good;
        lua_pop(L, 1);
    }
    out->count += good;
}

static void read_grid(pgr_reader *reader, lua_State *L, int index, const char *path,
                      pgr_grid *out) {
    static const char shape[] = "a list such as { {\"tp\", 2}, {\"dp\"} }";
    char at[PGR_PATH_BYTES];
    int64_t length = list_length(reader, L, index, path, shape), open = 0;
    if (length == 0 || length > 16) {
        pgr_problem_add(reader, path, false, "found a list of %lld axes; allowed: 1 to 16",
                        (long long)length);
        return;
    }
    if (length < 0)
        return;
    out->axes = list_items(reader, length, sizeof *out->axes);
    for (int64_t i = 1; out->axes && i <= length; i++, lua_pop(L, 1)) {
        lua_rawgeti(L, index, i);
        item_path(at, path, i);
        read_axis(reader, L, lua_gettop(L), at, out);
    }
    for (int64_t i = 0; i < out->count; i++)
        open += out->axes[i].size == PGR_NIL;
    if (open > 1)
        pgr_problem_add(reader, path, false, "found %lld axes without a size; allowed: at most one",
                        (long long)open);
}

/* The number of items of a table whose keys are all names, or -1 with a problem noted. */
static int64_t named_count(pgr_reader *reader, lua_State *L, int index, const char *path,
                           const pgr_key *key) {
    char allowed[ALLOWED_BYTES], name[PGR_NAME_MAX];
    int64_t count = 0;
    pgr_key_describe(key, allowed, sizeof allowed);
    if (!lua_istable(L, index)) {
        wrong(reader, L, index, true, path, allowed, "");
        return -1;
    }
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1), count++) {
        if (!read_name(reader, L, lua_gettop(L) - 1, path, "names of 1 to 63 bytes as keys",
                       name)) {
            lua_pop(L, 2);
            return -1;
        }
    }
    return count;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(a, b); /* both structs start with their name */
}

static void read_views(pgr_reader *reader, lua_State *L, int index, const char *path,
                       const pgr_key *key) {
    int64_t count = named_count(reader, L, index, path, key), *used;
    if (count <= 0)
        return;
    pgr_grid_view *views = list_items(reader, count, sizeof *views);
    if (!views)
        return;
    reader->spec->parallel.views.items = views;
    used = &reader->spec->parallel.views.count;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        char at[PGR_PATH_BYTES];
        pgr_grid_view *view = &views[(*used)++];
        snprintf(view->name, sizeof view->name, "%s", lua_tostring(L, -2));
        key_path(at, path, view->name);
        read_grid(reader, L, lua_gettop(L), at, &view->grid);
    }
    qsort(views, (size_t)count, sizeof *views, compare_names); /* lua_next has no fixed order */
}

/* ---- tables of keys ---- */

static void read_fields(pgr_reader *reader, lua_State *L, int index, const pgr_key *keys, int count,
                        const char *section, const char *shown, void *base);

#define OPTION(name, type, low, high)                                                              \
    { #name, type, offsetof(pgr_nccl_options, name), low, high, "nil", NULL, NULL, "" }

static const pgr_key nccl_keys[] = {
    OPTION(max_ctas, PGR_KEY_INTEGER, 1, 1024),
    OPTION(cga_cluster_size, PGR_KEY_INTEGER, 0, 8),
    OPTION(traffic_class, PGR_KEY_INTEGER, 0, 0x1p31),
    OPTION(split_share, PGR_KEY_BOOLEAN, 0, 1),
    OPTION(high_priority, PGR_KEY_BOOLEAN, 0, 1),
    OPTION(net_name, PGR_KEY_STRING, 1, PGR_NAME_MAX - 1),
};

static void read_nccl(pgr_reader *reader, lua_State *L, int index, const char *path,
                      const pgr_key *key) {
    int64_t count = named_count(reader, L, index, path, key);
    if (count <= 0)
        return;
    pgr_nccl_options *items = list_items(reader, count, sizeof *items);
    if (!items)
        return;
    reader->spec->run.nccl.items = items;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        char at[PGR_PATH_BYTES];
        pgr_nccl_options *options = &items[reader->spec->run.nccl.count++];
        options->max_ctas = options->cga_cluster_size = options->traffic_class = PGR_NIL;
        snprintf(options->family, sizeof options->family, "%s", lua_tostring(L, -2));
        key_path(at, path, options->family);
        if (lua_istable(L, -1))
            read_fields(reader, L, lua_gettop(L), nccl_keys,
                        (int)(sizeof nccl_keys / sizeof *nccl_keys), "", at, options);
        else
            wrong(reader, L, lua_gettop(L), true, at, "a table such as { max_ctas = 8 }", "");
    }
    qsort(items, (size_t)count, sizeof *items, compare_names);
}

static void read_padding(pgr_reader *reader, lua_State *L, int index, const char *path,
                         const pgr_key *key) {
    pgr_spec *spec = reader->spec;
    char allowed[ALLOWED_BYTES];
    if (lua_isfunction(L, index)) {
        lua_pushvalue(L, index);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &pgr_padding_function_key);
        spec->padding.rule = PGR_PAD_MULTIPLE;
        spec->padding.is_function = true;
    } else if (lua_type(L, index) == LUA_TSTRING) {
        pgr_nearest nearest = pgr_nearest_start(lua_tostring(L, index));
        if (strcmp(lua_tostring(L, index), "megatron") == 0)
            return;
        pgr_nearest_offer(&nearest, "megatron");
        pgr_key_describe(key, allowed, sizeof allowed);
        wrong(reader, L, index, false, path, allowed,
              nearest.best ? "; did you mean `megatron`?" : "");
    } else if (read_integer(reader, L, index, path, key, &spec->padding.multiple)) {
        spec->padding.rule = PGR_PAD_MULTIPLE;
    }
}

static void read_section(pgr_reader *reader, lua_State *L, int index, const pgr_key *key) {
    if (!lua_istable(L, index)) {
        wrong_key(reader, L, index, true, key->path, key);
        return;
    }
    if (strcmp(key->path, "model") == 0)
        reader->spec->has_model = true;
    if (strcmp(key->path, "moe") == 0)
        reader->spec->has_moe = true;
    read_fields(reader, L, index, pgr_keys, pgr_key_count, key->path, key->path, reader->spec);
}

/* Reads the value at `index` (not nil) of one key into its field of `base`. */
static void read_value(pgr_reader *reader, lua_State *L, int index, const pgr_key *key,
                       const char *path, void *base) {
    void *field = (char *)base + key->offset;
    int64_t choice;
    switch (key->type) {
    case PGR_KEY_SECTION:
        read_section(reader, L, index, key);
        break;
    case PGR_KEY_INTEGER:
        read_integer(reader, L, index, path, key, field);
        break;
    case PGR_KEY_NUMBER:
        read_number(reader, L, index, path, key, field);
        break;
    case PGR_KEY_BOOLEAN:
        if (lua_isboolean(L, index))
            *(bool *)field = lua_toboolean(L, index);
        else
            wrong_key(reader, L, index, true, path, key);
        break;
    case PGR_KEY_CHOICE:
        choice = read_choice(reader, L, index, path, key);
        if (choice >= 0)
            *(int *)field = (int)choice;
        break;
    case PGR_KEY_STRING:
        read_name(reader, L, index, path, "a string of 1 to 63 bytes", field);
        break;
    case PGR_KEY_PATTERN:
        if (lua_type(L, index) == LUA_TNUMBER) {
            pgr_list *list = field;
            list->items = list_items(reader, 1, sizeof *list->items);
            list->count = list->items && read_integer(reader, L, index, path, key, list->items);
            break;
        }
        read_list(reader, L, index, path, key, field);
        break;
    case PGR_KEY_INTEGER_LIST:
    case PGR_KEY_CHOICE_LIST:
        read_list(reader, L, index, path, key, field);
        break;
    case PGR_KEY_NAME_LIST:
        if (field == (void *)&reader->spec->run.families)
            reader->spec->run.families_given = true;
        read_names(reader, L, index, path, key, field);
        break;
    case PGR_KEY_PADDING_RULE:
        read_padding(reader, L, index, path, key);
        break;
    case PGR_KEY_GRID:
        read_grid(reader, L, index, path, field);
        break;
    case PGR_KEY_VIEWS:
        read_views(reader, L, index, path, key);
        break;
    case PGR_KEY_NCCL:
        read_nccl(reader, L, index, path, key);
        break;
    case PGR_KEY_FUNCTION:
        if (lua_isfunction(L, index))
            *(bool *)field = true;
        else
            wrong_key(reader, L, index, true, path, key);
        break;
    }
}

/* The name of a key within `section`, or NULL where it is in another one. */
static const char *leaf_of(const pgr_key *key, const char *section) {
    size_t length = strlen(section);
    const char *dot = strchr(key->path, '.');
    if (length == 0)
        return dot ? NULL : key->path;
    return dot && (size_t)(dot - key->path) == length && strncmp(key->path, section, length) == 0
               ? dot + 1
               : NULL;
}

/* Notes the unknown key `name` of a section. */
static void unknown_key(pgr_reader *reader, const pgr_key *keys, int count, const char *section,
                        const char *name, const char *path) {
    char allowed[420] = "", hint[PGR_NAME_MAX + 80] = "";
    size_t used = 0;
    pgr_nearest nearest = pgr_nearest_start(name);
    for (int i = 0; i < count; i++) {
        const char *leaf = leaf_of(&keys[i], section);
        if (!leaf || used >= sizeof allowed)
            continue;
        used +=
            (size_t)snprintf(allowed + used, sizeof allowed - used, "%s%s", used ? ", " : "", leaf);
        pgr_nearest_offer(&nearest, leaf);
    }
    for (int i = 0; i < pgr_key_count && nearest.edits > 0; i++) { /* of another section? */
        const char *dot = strchr(pgr_keys[i].path, '.');
        if (strcmp(dot ? dot + 1 : pgr_keys[i].path, name) == 0) {
            nearest.edits = 0;
            nearest.best = pgr_keys[i].path;
        }
    }
    if (strcmp(name, "edp") == 0)
        snprintf(hint, sizeof hint, "; edp is derived: world_size / (etp * ep * pp)");
    else if (nearest.best)
        snprintf(hint, sizeof hint, "; did you mean `%s`?", nearest.best);
    pgr_problem_add(reader, path, true, "found an unknown key; allowed: %s%s", allowed, hint);
}

static bool known_leaf(const pgr_key *keys, int count, const char *section, const char *name) {
    for (int i = 0; i < count; i++) {
        const char *leaf = leaf_of(&keys[i], section);
        if (leaf && strcmp(leaf, name) == 0)
            return true;
    }
    return false;
}

/* Notes every key of the table at `index` that the schema does not have. */
static void read_unknown(pgr_reader *reader, lua_State *L, int index, const pgr_key *keys,
                         int count, const char *section, const char *shown) {
    char path[PGR_PATH_BYTES], name[PGR_NAME_MAX];
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (lua_type(L, -2) == LUA_TSTRING) {
            size_t length;
            const char *text = lua_tolstring(L, -2, &length);
            pgr_text_clean(name, sizeof name, text, length);
            if (strlen(text) == length && known_leaf(keys, count, section, text))
                continue;
            key_path(path, shown, name);
            unknown_key(reader, keys, count, section, name, path);
        } else {
            char found[FOUND_BYTES];
            describe_found(L, -2, false, found, sizeof found);
            path_join(path, (const char *const[]){shown, "[", found, "]", NULL});
            pgr_problem_add(reader, path, true,
                            "found a value without a name; allowed: NAME = value");
        }
    }
}

static void read_fields(pgr_reader *reader, lua_State *L, int index, const pgr_key *keys, int count,
                        const char *section, const char *shown, void *base) {
    char path[PGR_PATH_BYTES];
    luaL_checkstack(L, 16, NULL);
    for (int i = 0; i < count; i++) {
        const char *leaf = leaf_of(&keys[i], section);
        if (!leaf)
            continue;
        lua_pushstring(L, leaf);
        lua_rawget(L, index);
        key_path(path, shown, leaf);
        if (!lua_isnil(L, -1))
            read_value(reader, L, lua_gettop(L), &keys[i], path, base);
        lua_pop(L, 1);
    }
    read_unknown(reader, L, index, keys, count, section, shown);
}

void pgr_schema_read(lua_State *L, pgr_reader *reader, int config) {
    read_fields(reader, L, config, pgr_keys, pgr_key_count, "", "", reader->spec);
    lua_pushliteral(L, "parallel");
    if (lua_rawget(L, config) == LUA_TNIL)
        pgr_problem_add(reader, "parallel", false,
                        "found nothing; allowed: a table with the layout, such as parallel = "
                        "{ tp = 2 }");
    lua_pop(L, 1);
}
