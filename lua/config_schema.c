/* config_schema.c - reads the config's table into a pgr_spec, driven by pgr_keys. Raw access only:
 * a metamethod of the config never runs here. Nothing stops at the first problem. */
#include "config_values.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char pgr_padding_function_key = 0;

/* ---- the general grid ---- */

enum { MOST_AXES = 12 }; /* of a view; the plan adds up to four of its own */

static void read_axis(pgr_reader *reader, lua_State *L, int index, const char *path,
                      pgr_grid *out) {
    static const pgr_key size_key = {
        .path = "", .type = PGR_KEY_INTEGER, .minimum = 1, .maximum = 0x1p40};
    static const char shape[] =
        "an axis such as {\"tp\", 2}, or {\"dp\"} for the size that is left";
    char at[PGR_PATH_BYTES];
    pgr_grid_axis *axis = &out->axes[out->count];
    int64_t length = pgr_list_length(reader, L, index, path, shape);
    if (length < 0)
        return;
    if (length != 1 && length != 2) {
        pgr_problem_add(reader, "PG005", path, "found a list of %lld; allowed: %s",
                        (long long)length, shape);
        return;
    }
    axis->size = PGR_NIL;
    lua_rawgeti(L, index, 1);
    pgr_path_item(at, path, 1);
    bool good = pgr_value_name(reader, L, lua_gettop(L), at, "a name of 1 to 63 bytes", axis->name);
    for (int64_t i = 0; good && i < out->count; i++) {
        if (strcmp(out->axes[i].name, axis->name) == 0) {
            pgr_value_wrong(reader, L, lua_gettop(L), false, at, "each axis once", "");
            good = false;
        }
    }
    lua_pop(L, 1);
    if (length == 2) {
        lua_rawgeti(L, index, 2);
        pgr_path_item(at, path, 2);
        good = pgr_value_integer(reader, L, lua_gettop(L), at, &size_key, &axis->size) && good;
        lua_pop(L, 1);
    }
    out->count += good;
}

/* Reads a list of axes; a view may leave several sizes out, for those that the grid gives. */
static void read_grid(pgr_reader *reader, lua_State *L, int index, const char *path,
                      int64_t most_open, pgr_grid *out) {
    static const char shape[] = "a list such as { {\"tp\", 2}, {\"dp\"} }";
    char at[PGR_PATH_BYTES];
    int64_t length = pgr_list_length(reader, L, index, path, shape), open = 0;
    if (length == 0 || length > MOST_AXES) {
        pgr_problem_add(reader, "PG005", path, "found a list of %lld axes; allowed: 1 to %d",
                        (long long)length, MOST_AXES);
        return;
    }
    if (length < 0)
        return;
    out->axes = pgr_list_alloc(reader, length, sizeof *out->axes);
    for (int64_t i = 1; out->axes && i <= length; i++, lua_pop(L, 1)) {
        lua_rawgeti(L, index, i);
        pgr_path_item(at, path, i);
        read_axis(reader, L, lua_gettop(L), at, out);
    }
    for (int64_t i = 0; i < out->count; i++)
        open += out->axes[i].size == PGR_NIL;
    if (open > most_open)
        pgr_problem_add(reader, "PG005", path,
                        "found %lld axes without a size; allowed: at most one", (long long)open);
}

/* The number of items of a table whose keys are all names, or -1 with a problem noted. */
static int64_t named_count(pgr_reader *reader, lua_State *L, int index, const char *path,
                           const pgr_key *key) {
    char allowed[PGR_ALLOWED_BYTES], name[PGR_NAME_MAX];
    int64_t count = 0;
    pgr_key_describe(key, allowed, sizeof allowed);
    if (!lua_istable(L, index)) {
        pgr_value_wrong(reader, L, index, true, path, allowed, "");
        return -1;
    }
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1), count++) {
        if (!pgr_value_name(reader, L, lua_gettop(L) - 1, path, "names of 1 to 63 bytes as keys",
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
    pgr_grid_view *views = pgr_list_alloc(reader, count, sizeof *views);
    if (!views)
        return;
    reader->spec->parallel.views.items = views;
    used = &reader->spec->parallel.views.count;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        char at[PGR_PATH_BYTES];
        pgr_grid_view *view = &views[(*used)++];
        snprintf(view->name, sizeof view->name, "%s", lua_tostring(L, -2));
        pgr_path_key(at, path, view->name);
        read_grid(reader, L, lua_gettop(L), at, MOST_AXES, &view->grid);
    }
    qsort(views, (size_t)count, sizeof *views, compare_names); /* lua_next has no fixed order */
}

/* ---- tables of keys ---- */

static void read_fields(pgr_reader *reader, lua_State *L, int index, const pgr_key *keys, int count,
                        const char *section, const char *shown, void *base);

#define OPTION(name, type, low, high)                                                              \
    { #name, type, offsetof(pgr_nccl_options, name), low, high, "nil", NULL, NULL, "" }

static const pgr_key nccl_keys[] = {
    OPTION(max_ctas, PGR_KEY_INTEGER, 1, 64), /* MAXCHANNELS; 32 before 2.25, which cuts it */
    OPTION(cga_cluster_size, PGR_KEY_INTEGER, 0, 8),
    OPTION(traffic_class, PGR_KEY_INTEGER, 0, 0x1p31 - 1), /* an int of ncclConfig_t */
    OPTION(split_share, PGR_KEY_BOOLEAN, 0, 1),
    OPTION(high_priority, PGR_KEY_BOOLEAN, 0, 1),
    OPTION(net_name, PGR_KEY_STRING, 1, PGR_NAME_MAX - 1),
};

static void read_nccl(pgr_reader *reader, lua_State *L, int index, const char *path,
                      const pgr_key *key) {
    int64_t count = named_count(reader, L, index, path, key);
    if (count <= 0)
        return;
    pgr_nccl_options *items = pgr_list_alloc(reader, count, sizeof *items);
    if (!items)
        return;
    reader->spec->run.nccl.items = items;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        char at[PGR_PATH_BYTES];
        pgr_nccl_options *options = &items[reader->spec->run.nccl.count++];
        options->max_ctas = options->cga_cluster_size = options->traffic_class = PGR_NIL;
        snprintf(options->family, sizeof options->family, "%s", lua_tostring(L, -2));
        pgr_path_key(at, path, options->family);
        if (lua_istable(L, -1))
            read_fields(reader, L, lua_gettop(L), nccl_keys,
                        (int)(sizeof nccl_keys / sizeof *nccl_keys), "", at, options);
        else
            pgr_value_wrong(reader, L, lua_gettop(L), true, at, "a table such as { max_ctas = 8 }",
                            "");
    }
    qsort(items, (size_t)count, sizeof *items, compare_names);
}

static void read_padding(pgr_reader *reader, lua_State *L, int index, const char *path,
                         const pgr_key *key) {
    pgr_spec *spec = reader->spec;
    char allowed[PGR_ALLOWED_BYTES];
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
        pgr_value_wrong(reader, L, index, false, path, allowed,
                        nearest.best ? "; did you mean `megatron`?" : "");
    } else if (pgr_value_integer(reader, L, index, path, key, &spec->padding.multiple)) {
        spec->padding.rule = PGR_PAD_MULTIPLE;
    }
}

static void read_section(pgr_reader *reader, lua_State *L, int index, const pgr_key *key) {
    if (!lua_istable(L, index)) {
        pgr_value_wrong_for(reader, L, index, true, key->path, key);
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
    switch (key->type) {
    case PGR_KEY_SECTION:
        read_section(reader, L, index, key);
        break;
    case PGR_KEY_PADDING_RULE:
        read_padding(reader, L, index, path, key);
        break;
    case PGR_KEY_GRID:
        read_grid(reader, L, index, path, 1, field);
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
            pgr_value_wrong_for(reader, L, index, true, path, key);
        break;
    default:
        pgr_value_read(reader, L, index, path, key, field);
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

/* What Megatron-Core and vLLM call some keys. */
static const char *foreign_name(const char *name) {
    static const char *const names[][2] = {{"tensor_model_parallel_size", "parallel.tp"},
                                           {"tensor_parallel_size", "parallel.tp"},
                                           {"pipeline_model_parallel_size", "parallel.pp"},
                                           {"pipeline_parallel_size", "parallel.pp"},
                                           {"context_parallel_size", "parallel.cp"},
                                           {"expert_model_parallel_size", "parallel.ep"},
                                           {"expert_tensor_parallel_size", "parallel.etp"},
                                           {"data_parallel_size", "parallel.dp"},
                                           {"virtual_pipeline_model_parallel_size", "parallel.vpp"},
                                           {"num_layers", "model.layers"},
                                           {"hidden_size", "model.hidden"},
                                           {"ffn_hidden_size", "model.ffn"},
                                           {"intermediate_size", "model.ffn"},
                                           {"num_attention_heads", "model.heads"},
                                           {"num_query_groups", "model.kv_heads"},
                                           {"num_key_value_heads", "model.kv_heads"},
                                           {"kv_channels", "model.head_dim"},
                                           {"seq_length", "model.seq_len"},
                                           {"micro_batch_size", "model.micro_batch"},
                                           {"global_batch_size", "model.global_batch"},
                                           {"vocab_size", "model.vocab"},
                                           {"num_experts", "moe.experts"},
                                           {"num_moe_experts", "moe.experts"},
                                           {"router_topk", "moe.topk"},
                                           {"moe_router_topk", "moe.topk"},
                                           {"moe_ffn_hidden_size", "moe.ffn"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i][0], name) == 0)
            return names[i][1];
    return NULL;
}

/* Notes the unknown key `name` of a section. */
static void unknown_key(pgr_reader *reader, const pgr_key *keys, int count, const char *section,
                        const char *name, const char *path) {
    char allowed[420] = "", hint[PGR_NAME_MAX + 80] = "";
    size_t used = 0;
    if (!pgr_problem_fits(reader))
        return;
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
    if (foreign_name(name))
        nearest.best = foreign_name(name);
    if (strcmp(name, "edp") == 0)
        snprintf(hint, sizeof hint, "; edp is derived: world_size / (etp * ep * pp)");
    else if (nearest.best)
        snprintf(hint, sizeof hint, "; did you mean `%s`?", nearest.best);
    pgr_problem_add(reader, "PG004", path, "found an unknown key; allowed: %s%s", allowed, hint);
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
            pgr_path_key(path, shown, name);
            unknown_key(reader, keys, count, section, name, path);
        } else {
            char found[PGR_FOUND_BYTES];
            pgr_value_describe(L, -2, false, found, sizeof found);
            pgr_path_join(path, (const char *const[]){shown, "[", found, "]", NULL});
            pgr_problem_add(reader, "PG004", path,
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
        pgr_path_key(path, shown, leaf);
        if (!lua_isnil(L, -1))
            read_value(reader, L, lua_gettop(L), &keys[i], path, base);
        lua_pop(L, 1);
    }
    read_unknown(reader, L, index, keys, count, section, shown);
}

/* Pushes a field and returns its type, without metamethods. */
static int raw_field(lua_State *L, int table, const char *name) {
    lua_pushstring(L, name);
    return lua_rawget(L, table);
}

/* The keys that the general form replaces. */
static void refuse_both_forms(lua_State *L, pgr_reader *reader, int parallel) {
    static const char *const keys[] = {"tp", "cp", "pp", "ep", "etp", "dp", "order", "expert_view"};
    bool grid = raw_field(L, parallel, "grid") != LUA_TNIL;
    lua_pop(L, 1);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && grid; i++, lua_pop(L, 1)) {
        char path[PGR_PATH_BYTES];
        pgr_path_key(path, "parallel", keys[i]);
        if (raw_field(L, parallel, keys[i]) != LUA_TNIL)
            pgr_problem_add(reader, "PG047", path,
                            "%s is given beside parallel.grid, which says it all; leave one out",
                            keys[i]);
    }
}

/* What reads the short form before the world is known, such as a padding function, finds the sizes
 * of the grid's axes there; the one that is left open is not known. */
static void name_sizes(pgr_spec *spec) {
    const struct {
        const char *axis;
        int64_t *size;
    } names[] = {{"tp", &spec->parallel.tp}, {"cp", &spec->parallel.cp}};
    for (int64_t i = 0; i < spec->parallel.grid.count; i++)
        for (size_t n = 0; n < sizeof names / sizeof names[0]; n++)
            if (strcmp(spec->parallel.grid.axes[i].name, names[n].axis) == 0)
                *names[n].size = spec->parallel.grid.axes[i].size;
}

void pgr_schema_read(lua_State *L, pgr_reader *reader, int config) {
    read_fields(reader, L, config, pgr_keys, pgr_key_count, "", "", reader->spec);
    name_sizes(reader->spec);
    lua_pushliteral(L, "parallel");
    if (lua_rawget(L, config) == LUA_TTABLE)
        refuse_both_forms(L, reader, lua_gettop(L));
    if (lua_isnil(L, -1))
        pgr_problem_add(reader, "PG005", "parallel",
                        "found nothing; allowed: a table with the layout, such as parallel = "
                        "{ tp = 2 }");
    lua_pop(L, 1);
}
