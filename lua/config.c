/* config.c - from the text of a config to a checked pgr_spec: reads the file, runs it in the
 * sandbox, applies --set, reads its table by the schema, and asks its padding function. */
#include "config.h"

#include "config_reader.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES_MAX ((int64_t)16 << 20)
#define CHUNK_NAME_MAX 55 /* bytes that Lua shows of a chunk's name, a little less */

/* ---- the file ---- */

static pgr_status read_all(int file, const char *path, size_t bytes, char *text, pgr_error *error) {
    size_t have = 0;
    while (have < bytes) {
        ssize_t got = read(file, text + have, bytes - have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return pgr_error_set(error, PGR_INVALID, "%s: the file cannot be read: %s", path,
                                 strerror(errno));
        if (got == 0)
            return pgr_error_set(error, PGR_INVALID, "%s: the file grew shorter while it was read",
                                 path);
        have += (size_t)got;
    }
    text[have] = '\0';
    return PGR_OK;
}

static pgr_status check_file(const struct stat *about, const char *path, pgr_error *error) {
    if (S_ISDIR(about->st_mode))
        return pgr_error_set(error, PGR_INVALID, "%s: this is a directory; give a config file",
                             path);
    if (!S_ISREG(about->st_mode))
        return pgr_error_set(error, PGR_INVALID,
                             "%s: this is not a regular file; give a config file", path);
    if (about->st_size == 0)
        return pgr_error_set(error, PGR_INVALID,
                             "%s: the file is empty; a config returns a table, such as "
                             "return { parallel = { tp = 2 } }",
                             path);
    if ((int64_t)about->st_size > FILE_BYTES_MAX)
        return pgr_error_set(error, PGR_INVALID,
                             "%s: the file has %lld bytes; a config has at most %lld", path,
                             (long long)about->st_size, (long long)FILE_BYTES_MAX);
    return PGR_OK;
}

pgr_status pgr_config_read(const char *path, pgr_config_text *text, pgr_error *error) {
    struct stat about;
    char *bytes = NULL;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not block */
    if (file < 0)
        return pgr_error_set(error, PGR_INVALID, "%s: the file cannot be opened: %s", path,
                             strerror(errno));
    pgr_status status = PGR_OK;
    if (fstat(file, &about) != 0)
        status = pgr_error_set(error, PGR_INVALID, "%s: the file cannot be read: %s", path,
                               strerror(errno));
    if (status == PGR_OK)
        status = check_file(&about, path, error);
    if (status == PGR_OK) {
        bytes = malloc((size_t)about.st_size + 1);
        if (!bytes)
            status = pgr_error_set(error, PGR_LIMIT, "%s: out of memory", path);
    }
    if (status == PGR_OK)
        status = read_all(file, path, (size_t)about.st_size, bytes, error);
    close(file);
    if (status != PGR_OK) {
        free(bytes);
        return status;
    }
    text->text = bytes;
    text->bytes = (size_t)about.st_size;
    return PGR_OK;
}

/* ---- running it ---- */

/* The way out where a message is about a global that the sandbox leaves out, or "". */
static const char *missing_global_hint(const char *message) {
    static const char *const names[] = {
        "os",      "io",   "debug",  "package",        "coroutine",
        "require", "load", "dofile", "loadfile",       "print",
        "xpcall",  "warn", "utf8",   "collectgarbage", "loadstring"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char wanted[40];
        snprintf(wanted, sizeof wanted, "(global '%s')", names[i]);
        if (strstr(message, wanted))
            return "a config has base, string, table and math, without what reaches outside";
    }
    return "";
}

/* The chunk's name as Lua shows it: the end of a long one. */
static void chunk_name(const char *name, char *out, size_t bytes) {
    size_t length = strlen(name);
    if (length <= CHUNK_NAME_MAX)
        snprintf(out, bytes, "=%s", name);
    else
        snprintf(out, bytes, "=...%s", name + length - CHUNK_NAME_MAX + 3);
}

/* Ends the reading for what makes the config as a whole bad: with a finding, or with an error that
 * says it as "NAME:LINE: message; help". `line` is 0 where it is not known. */
static void end(pgr_reader *reader, const char *code, int64_t line, const char *help,
                const char *message) {
    reader->status = PGR_INVALID;
    if (reader->found) {
        char clean[sizeof(((pgr_diagnostic *)NULL)->message)];
        pgr_text_clean(clean, sizeof clean, message, strlen(message));
        pgr_diagnostic *finding = pgr_diagnose(reader->found, code, "", help, "%s", clean);
        if (finding)
            finding->line = line;
        return;
    }
    char at[32] = "";
    if (line > 0)
        snprintf(at, sizeof at, "%lld:", (long long)line);
    pgr_error_set(reader->error, PGR_INVALID, "%s:%s %s%s%s", reader->name, at, message,
                  *help ? "; " : "", help);
}

/* The same for a limit of the sandbox, whose reason may have its way out behind a semicolon. */
static void end_for_limit(pgr_reader *reader, const char *reason) {
    char message[256];
    size_t length = strcspn(reason, ";");
    snprintf(message, sizeof message, "%.*s", (int)length, reason);
    end(reader, "PG003", 0, reason[length] ? reason + length + 2 : "", message);
}

/* The line of a Lua message "NAME:LINE: text", and the text; or 0 and all of it. */
static int64_t split_line(const char *message, const char *name, const char **text) {
    size_t prefix = strlen(name);
    char *behind;
    *text = message;
    if (strncmp(message, name, prefix) != 0 || message[prefix] != ':' ||
        !isdigit((unsigned char)message[prefix + 1]))
        return 0;
    long long line = strtoll(message + prefix + 1, &behind, 10);
    if (strncmp(behind, ": ", 2) != 0)
        return 0;
    *text = behind + 2;
    return line;
}

/* Ends the reading with the Lua error text at the top of the stack. */
static void fail(lua_State *L, pgr_reader *reader) {
    char shown[CHUNK_NAME_MAX + 8], clean[2048];
    size_t length;
    const char *text, *message = lua_tolstring(L, -1, &length);
    pgr_text_clean(clean, sizeof clean, message, length);
    if (pgr_sandbox_of(L)->over_instructions) {
        end_for_limit(reader, clean);
        return;
    }
    chunk_name(reader->name, shown, sizeof shown);
    int64_t line = split_line(clean, shown + 1, &text);
    if (text[strspn(text, " ")] == '\0')
        text = "it called error() without a message";
    end(reader, "PG002", line, missing_global_hint(clean), text);
}

/* The text without a byte order mark and a first line that starts with "#", whose end stays. */
static const char *skip_first_line(const char *text, size_t *bytes) {
    const char *end = text + *bytes;
    if (*bytes >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
        text += 3;
    if (text < end && *text == '#')
        while (text < end && *text != '\n')
            text++;
    *bytes = (size_t)(end - text);
    return text;
}

/* Pushes the table that the config returns, or ends the reading. */
static bool run_chunk(lua_State *L, pgr_reader *reader) {
    char shown[CHUNK_NAME_MAX + 8];
    size_t bytes = reader->bytes;
    const char *text = skip_first_line(reader->text, &bytes);
    chunk_name(reader->name, shown, sizeof shown);
    if (bytes > 0 && text[0] == LUA_SIGNATURE[0]) {
        end(reader, "PG002", 0, "a config is text", "this is compiled Lua code");
        return false;
    }
    int status = luaL_loadbufferx(L, text, bytes, shown, "t");
    if (status == LUA_ERRMEM)
        lua_error(L);
    if (status != LUA_OK || !pgr_sandbox_call(L, 0, 1)) {
        fail(L, reader);
        return false;
    }
    if (lua_istable(L, -1))
        return true;
    char message[64];
    bool nothing = lua_isnil(L, -1);
    snprintf(message, sizeof message, "the config returns %s%s", nothing ? "" : "a ",
             nothing ? "nothing" : luaL_typename(L, -1));
    end(reader, "PG002", 0, "it must return a table, such as return { parallel = { tp = 2 } }",
        message);
    return false;
}

/* ---- the padding function ---- */

static void set_integer(lua_State *L, const char *name, int64_t value) {
    if (value == PGR_NIL)
        return;
    lua_pushinteger(L, value);
    lua_setfield(L, -2, name);
}

static void set_boolean(lua_State *L, const char *name, bool value) {
    lua_pushboolean(L, value);
    lua_setfield(L, -2, name);
}

/* Pushes what a padding function is given. */
static void push_padding_args(lua_State *L, const pgr_spec *spec) {
    char recipe[PGR_NAME_MAX];
    lua_createtable(L, 0, 8);
    set_integer(L, "seq_len", spec->model.seq_len);
    set_integer(L, "tp", spec->parallel.tp);
    set_integer(L, "cp", spec->parallel.cp);
    set_boolean(L, "sequence_parallel", spec->parallel.sequence_parallel);
    set_boolean(L, "tp_comm_overlap", spec->parallel.tp_comm_overlap);
    set_integer(L, "decoder_seq_len", spec->model.decoder_seq_len);
    set_boolean(L, "fp8", spec->model.fp8);
    pgr_key_choice_name(pgr_key_find("model.fp8_recipe"), spec->model.fp8_recipe, recipe);
    if (recipe[0]) {
        lua_pushstring(L, recipe);
        lua_setfield(L, -2, "fp8_recipe");
    }
}

/* The multiple of Megatron-Core's get_padding for these sizes, where it splits a sequence; a way
 * out. */
static int64_t usual_multiple(const pgr_spec *spec) {
    int64_t tp = spec->parallel.sequence_parallel ? spec->parallel.tp : 1, multiple = tp;
    if (spec->parallel.cp > 1 && (__builtin_mul_overflow(tp, spec->parallel.cp, &multiple) ||
                                  __builtin_mul_overflow(multiple, 2, &multiple)))
        return 1;
    return multiple;
}

/* Takes the result at the top of the stack. */
static void take_multiple(lua_State *L, pgr_reader *reader) {
    char found[96];
    int64_t *multiple = &reader->spec->padding.multiple;
    bool integer = lua_type(L, -1) == LUA_TNUMBER && lua_isinteger(L, -1);
    if (integer && lua_tointeger(L, -1) >= 1 && lua_tointeger(L, -1) <= INT64_C(1) << 40) {
        *multiple = lua_tointeger(L, -1);
        return;
    }
    if (integer)
        snprintf(found, sizeof found, "%lld", (long long)lua_tointeger(L, -1));
    else if (lua_type(L, -1) == LUA_TNUMBER)
        snprintf(found, sizeof found, "%.14g, a float", lua_tonumber(L, -1));
    else
        snprintf(found, sizeof found, "%s%s", lua_isnil(L, -1) ? "" : "a ", luaL_typename(L, -1));
    pgr_problem_add(reader, "PG006", "padding.sequence",
                    "the function returned %s; allowed: an integer from 1 to 2^40", found);
}

static void ask_padding_function(lua_State *L, pgr_reader *reader) {
    if (reader->spec->model.seq_len == PGR_NIL) {
        pgr_problem_add(reader, "PG006", "padding.sequence",
                        "found a function, which is asked about model.seq_len, but model.seq_len "
                        "is missing; give it, or a multiple here");
        return;
    }
    pgr_sandbox_seed(L, reader->spec->run.seed);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &pgr_padding_function_key);
    push_padding_args(L, reader->spec);
    if (pgr_sandbox_call(L, 1, 1)) {
        take_multiple(L, reader);
        return;
    }
    char clean[400];
    size_t length;
    const char *message = lua_tolstring(L, -1, &length);
    pgr_text_clean(clean, sizeof clean, message, length);
    const char *hint = missing_global_hint(clean);
    bool over = pgr_sandbox_of(L)->over_instructions;
    char way[128];
    if (over || *hint)
        snprintf(way, sizeof way, "%s", hint);
    else
        snprintf(way, sizeof way,
                 "allowed: a function that returns a multiple of tokens, such as get_padding's "
                 "%lld here",
                 (long long)usual_multiple(reader->spec));
    pgr_problem_add(reader, over ? "PG003" : "PG006", "padding.sequence",
                    "the function failed: %s%s%s", clean, *way ? "; " : "", way);
}

/* ---- all of it ---- */

/* A list of one entry reads as one number, which means every n-th layer; the rules (PG038) see the
 * longer ones. */
static void check_one_entry(pgr_reader *reader) {
    const pgr_list *pattern = &reader->spec->moe.layer_pattern;
    int64_t layers = reader->spec->model.layers;
    if (reader->pattern_is_list && pattern->count == 1 && pattern->items[0] == 1 &&
        layers != PGR_NIL && layers != 1)
        pgr_problem_add(reader, "PG038", "moe.layer_pattern",
                        "found 1 entry, and model.layers is %lld; allowed: an entry for each "
                        "layer, or one number n for every n-th layer",
                        (long long)layers);
}

static int load_body(lua_State *L) {
    pgr_reader *reader = lua_touserdata(L, 1);
    if (!pgr_sets_parse(L, reader)) /* at index 2 */
        return 0;
    if (!run_chunk(L, reader)) /* at index 3 */
        return 0;
    pgr_snapshot_take(L, reader, 3);
    pgr_sets_apply(L, reader, 2, 3);
    pgr_schema_read(L, reader, 3);
    check_one_entry(reader);
    if (reader->problem_count == 0 && reader->spec->padding.is_function)
        ask_padding_function(L, reader);
    return 0;
}

/* The seed that math.random starts from while the file runs: run.seed is in the file itself, so
 * only
 * --set can name it before. */
static int64_t seed_of(const pgr_config_set *sets, int count) {
    static const char key[] = "run.seed=";
    int64_t seed = 1;
    for (int i = 0; i < count; i++)
        if (strncmp(sets[i], key, sizeof key - 1) == 0)
            seed = strtoll(sets[i] + sizeof key - 1, NULL, 10);
    return seed;
}

/* Runs load_body and says what it ended in. */
static pgr_status load(pgr_reader *reader, pgr_sandbox *sandbox) {
    pgr_status status = pgr_sandbox_protect(sandbox, load_body, reader, reader->error);
    if (status == PGR_INVALID) {
        end_for_limit(reader, reader->error->message);
        return status;
    }
    if (status != PGR_OK) {
        pgr_error_prefix(reader->error, "%s: ", reader->name);
        return status;
    }
    if (reader->status != PGR_OK)
        return reader->status;
    if (reader->out_of_memory)
        return pgr_error_set(reader->error, PGR_LIMIT, "%s: out of memory", reader->name);
    return pgr_problems_report(reader, reader->error);
}

pgr_status pgr_config_check_in(pgr_sandbox *sandbox, const char *name, const char *text,
                               size_t bytes, const pgr_config_set *sets, int set_count,
                               pgr_spec *spec, bool *partial, pgr_diagnostics *found,
                               pgr_snapshot *held, pgr_error *error) {
    pgr_error unused;
    pgr_spec made;
    pgr_reader reader = {.name = name,
                         .text = text,
                         .bytes = bytes,
                         .sets = sets,
                         .set_count = set_count,
                         .spec = &made,
                         .error = error ? error : &unused,
                         .held = held,
                         .found = found};
    pgr_status status = pgr_sandbox_open(sandbox, seed_of(sets, set_count), reader.error);
    if (status != PGR_OK) {
        pgr_error_prefix(reader.error, "%s: ", name);
        return status;
    }
    pgr_spec_init(&made);
    reader.out_of_memory = made.run.workloads.count == 0;
    status = load(&reader, sandbox);
    pgr_sandbox_close(sandbox);
    free(reader.problems);
    if (status == PGR_INVALID && found)
        status = found->out_of_memory
                     ? pgr_error_set(reader.error, PGR_LIMIT, "%s: out of memory", name)
                     : pgr_error_set(reader.error, PGR_INVALID, "%s", ""); /* the findings say it */
    bool has_table = partial && status == PGR_INVALID && reader.status == PGR_OK;
    if (partial)
        *partial = has_table;
    if (status == PGR_OK || has_table)
        *spec = made;
    else
        pgr_spec_free(&made);
    return status;
}

pgr_status pgr_config_load_in(pgr_sandbox *sandbox, const char *name, const char *text,
                              size_t bytes, const pgr_config_set *sets, int set_count,
                              pgr_spec *spec, pgr_error *error) {
    pgr_snapshot held = {0};
    pgr_status status = pgr_config_check_in(sandbox, name, text, bytes, sets, set_count, spec, NULL,
                                            NULL, &held, error);
    pgr_snapshot_free(&held);
    return status;
}

pgr_status pgr_config_load(const char *name, const char *text, size_t bytes,
                           const pgr_config_set *sets, int set_count, pgr_spec *spec,
                           pgr_error *error) {
    pgr_sandbox sandbox = {0};
    return pgr_config_load_in(&sandbox, name, text, bytes, sets, set_count, spec, error);
}

pgr_status pgr_config_check(const char *name, const char *text, size_t bytes,
                            const pgr_config_set *sets, int set_count, pgr_spec *spec,
                            pgr_diagnostics *found, pgr_error *error) {
    pgr_sandbox sandbox = {0};
    pgr_snapshot held = {0};
    pgr_status status = pgr_config_check_in(&sandbox, name, text, bytes, sets, set_count, spec,
                                            NULL, found, &held, error);
    pgr_snapshot_free(&held);
    return status;
}
