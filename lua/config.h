/* config.h - from the text of a Lua config to a checked pgr_spec. The only way in. */
#ifndef PGR_CONFIG_H
#define PGR_CONFIG_H

#include "spec.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The text of a config file. `text` is owned (free()), NUL-terminated; it may hold NUL bytes. */
typedef struct pgr_config_text {
    char *text;
    size_t bytes;
} pgr_config_text;

/* One --set of the command line: "parallel.tp=4". */
typedef const char *pgr_config_set;

/* Reads a whole regular file of at most 16 MiB. PGR_INVALID with the reason for a missing file, a
 * directory, an unreadable, empty or oversized one. */
pgr_status pgr_config_read(const char *path, pgr_config_text *text, pgr_error *error);

/* Runs the config in the sandbox and reads the table it returns by the schema (pgr_keys), after
 * applying `sets`, then checks it: unknown keys, wrong types and values out of range are all
 * reported, a line each, as "FILE:LINE:COLUMN: PATH: what was found; what is allowed; the nearest
 * name". `name` is what messages call the file. The padding function, where there is one, runs
 * here, with the config's sizes, and its result is stored. On success *spec is owned by the caller
 * (pgr_spec_free). PGR_INVALID for a bad config, PGR_INVALID too where it runs over the sandbox's
 * memory or instruction limit. */
pgr_status pgr_config_load(const char *name, const char *text, size_t bytes,
                           const pgr_config_set *sets, int set_count, pgr_spec *spec,
                           pgr_error *error);

#ifdef __cplusplus
}
#endif
#endif
