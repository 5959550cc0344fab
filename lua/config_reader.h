/* config_reader.h - what the parts of config reading share: the list of problems found so far, the
 * nearest name, and the description of a key. Private to this folder. */
#ifndef PGR_CONFIG_READER_H
#define PGR_CONFIG_READER_H

#include "config.h"
#include "positions.h"
#include "sandbox.h"

#define PGR_PATH_BYTES PGR_PATH_MAX

/* One thing that is wrong, before it has a position. */
typedef struct pgr_problem {
    char path[PGR_PATH_BYTES];
    const char *code; /* of the catalogue; at PG004 the key itself is wrong, not its value */
    char text[640];   /* "found X; allowed: Y; HINT" */
} pgr_problem;

/* The state of one pgr_config_load() or pgr_config_check(). It owns what a Lua error would
 * otherwise lose. */
typedef struct pgr_reader {
    const char *name, *text;
    size_t bytes;
    const pgr_config_set *sets;
    int set_count;
    pgr_spec *spec; /* filled as the keys are read; freed by the caller where that fails */
    pgr_problem *problems;
    size_t problem_count, problem_room;
    size_t problems_left_out; /* beyond those that are listed */
    bool pattern_is_list;     /* moe.layer_pattern is written as a list */
    bool out_of_memory;
    pgr_status status; /* set by a step that ends the reading, with *error or a finding */
    pgr_error *error;
    pgr_snapshot *held;     /* what the file's table held, before the sets */
    pgr_diagnostics *found; /* takes what is wrong as findings; NULL: *error takes it as text */
} pgr_reader;

/* Whether one more problem is listed; where not, it is counted. For those that are dear to
 * describe. */
bool pgr_problem_fits(pgr_reader *reader);

/* Notes a problem of the value (with PG004: of the key) at `path`. */
void pgr_problem_add(pgr_reader *reader, const char *code, const char *path, const char *format,
                     ...) PGR_PRINTF(4, 5);

/* Turns the problems into findings or into one message, a line each: first those in the file in its
 * order, then those of --set. PGR_OK where there are none, else PGR_INVALID. */
pgr_status pgr_problems_report(pgr_reader *reader, pgr_error *error);

/* Copies at most `bytes` - 1 bytes of a text that came from a user, control characters as "?". */
void pgr_text_clean(char *out, size_t bytes, const char *text, size_t length);

/* The candidate with the fewest edits, where they are few enough to be a slip. */
typedef struct pgr_nearest {
    const char *word;
    const char *best; /* or NULL */
    int edits;
} pgr_nearest;

pgr_nearest pgr_nearest_start(const char *word);
void pgr_nearest_offer(pgr_nearest *nearest, const char *candidate); /* kept, not copied */

/* What a key takes: "an integer from 1 to 2^40". */
void pgr_key_describe(const pgr_key *key, char *text, size_t bytes);

/* Inside the sandbox. Parses every --set onto one Lua list, pushed; on a bad one sets
 * reader->status to PGR_USAGE and pushes nothing. */
bool pgr_sets_parse(lua_State *L, pgr_reader *reader);

/* Puts the values of the list at `sets` into the config's table at `config`. */
void pgr_sets_apply(lua_State *L, pgr_reader *reader, int sets, int config);

/* Notes in reader->held, which is empty, what the config's table at `config` holds. */
void pgr_snapshot_take(lua_State *L, pgr_reader *reader, int config);
void pgr_snapshot_free(pgr_snapshot *held);

/* Reads the config's table at `config` into reader->spec by pgr_keys. A padding function is left
 * in the registry, at the address of pgr_padding_function_key. */
void pgr_schema_read(lua_State *L, pgr_reader *reader, int config);
extern const char pgr_padding_function_key;

/* pgr_config_load() and pgr_config_check() in a sandbox that is not open yet, whose allocator the
 * caller may have set. With `partial`, *partial says whether a table with wrong keys was read:
 * *spec is then the caller's too, the wrong keys left at their defaults. */
pgr_status pgr_config_load_in(pgr_sandbox *sandbox, const char *name, const char *text,
                              size_t bytes, const pgr_config_set *sets, int set_count,
                              pgr_spec *spec, pgr_error *error);
pgr_status pgr_config_check_in(pgr_sandbox *sandbox, const char *name, const char *text,
                               size_t bytes, const pgr_config_set *sets, int set_count,
                               pgr_spec *spec, bool *partial, pgr_diagnostics *found,
                               pgr_snapshot *held, pgr_error *error);

#endif
