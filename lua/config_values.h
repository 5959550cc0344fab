/* config_values.h - single values and lists of a config, as config_schema.c reads them. Each
 * function notes what is wrong in the reader and goes on. Private to this folder. */
#ifndef PGR_CONFIG_VALUES_H
#define PGR_CONFIG_VALUES_H

#include "config_reader.h"

#define PGR_FOUND_BYTES 96
#define PGR_ALLOWED_BYTES 320

/* Joins the parts (the last one NULL) into a path of PGR_PATH_BYTES; what does not fit is cut. */
void pgr_path_join(char *out, const char *const *parts);

/* "section.leaf", or "leaf" where the section is "". */
void pgr_path_key(char *out, const char *section, const char *leaf);

/* "path[i]" */
void pgr_path_item(char *out, const char *path, int64_t i);

/* The value at `index` in words; with its type where `typed`, for a value of the wrong one. */
void pgr_value_describe(lua_State *L, int index, bool typed, char *text, size_t bytes);

/* Notes "found X; allowed: Y" for the value at `index`, then the hint. */
void pgr_value_wrong(pgr_reader *reader, lua_State *L, int index, bool typed, const char *path,
                     const char *allowed, const char *hint);

/* The same, with what the key takes. */
void pgr_value_wrong_for(pgr_reader *reader, lua_State *L, int index, bool typed, const char *path,
                         const pgr_key *key);

/* An integer within the key's bounds; false, with `out` as it was, where it is none. */
bool pgr_value_integer(pgr_reader *reader, lua_State *L, int index, const char *path,
                       const pgr_key *key, int64_t *out);

/* A string of 1 to PGR_NAME_MAX - 1 bytes without NUL, zero-filled to PGR_NAME_MAX. */
bool pgr_value_name(pgr_reader *reader, lua_State *L, int index, const char *path,
                    const char *allowed, char *out);

/* The length of the list at `index`, or -1 with problems noted: no table, a named item, a hole. */
int64_t pgr_list_length(pgr_reader *reader, lua_State *L, int index, const char *path,
                        const char *allowed);

/* Zeroed items, to be owned by the spec; NULL where count is 0, or without memory (noted). */
void *pgr_list_alloc(pgr_reader *reader, int64_t count, size_t bytes);

/* Reads the value at `index` (not nil) of a key that is an integer, a number, a boolean, a choice,
 * a string, a pattern or a list of these into the key's field. */
void pgr_value_read(pgr_reader *reader, lua_State *L, int index, const char *path,
                    const pgr_key *key, void *field);

#endif
