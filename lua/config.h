/* config.h - from the text of a Lua config to a checked pgr_spec. The only way in. */
#ifndef PGR_CONFIG_H
#define PGR_CONFIG_H

#include "diagnostic.h"

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

/* The same for `pgrun check`: what is wrong with the config is added to `found` as findings, PG002
 * to PG006 in the order of the file, with the keys' paths, and PGR_INVALID returned without a
 * message. What is not about the config keeps its status and its message in `error`: PGR_USAGE for
 * a bad --set, PGR_LIMIT where memory is short. */
pgr_status pgr_config_check(const char *name, const char *text, size_t bytes,
                            const pgr_config_set *sets, int set_count, pgr_spec *spec,
                            pgr_diagnostics *found, pgr_error *error);

/* Where in the file a finding points: one of its keys. */
typedef struct pgr_location {
    char path[PGR_PATH_MAX]; /* "" for the place that Lua named, and for the config as a whole */
    int64_t line, column;    /* from 1, in bytes; 0 where nothing is known */
    bool written;  /* false: `computed`, or the nearest key around it that is written there */
    bool computed; /* the line sets it, by a key that is not written there: t[k] = v */
} pgr_location;

/* The places of one finding, one for each of its paths, in their order; at least one. */
typedef struct pgr_finding_locations {
    int32_t count;
    pgr_location items[PGR_DIAGNOSTIC_PATHS];
} pgr_finding_locations;

/* Parallel to the findings. Freed with pgr_locations_free. */
typedef struct pgr_locations {
    pgr_finding_locations *items;
    int64_t count;
} pgr_locations;

/* What the table that the file returned held, before --set (config_reader.h). */
typedef struct pgr_snapshot pgr_snapshot;

/* Finds the keys of all findings in the text of their config. A place whose written value is not
 * what the table held (`held` may be NULL: not known) is no place of it. A key that is not written
 * falls back to an assignment whose key is computed, to the nearest key around it, and at last to
 * the config's return. PGR_LIMIT where memory is short, with *out as it was. */
pgr_status pgr_config_locate(const char *text, size_t bytes, const pgr_snapshot *held,
                             const pgr_diagnostics *found, pgr_locations *out);
void pgr_locations_free(pgr_locations *locations);

/* All that `pgrun check` tells of a config: reads it, checks it at `world_size` (as pgr_check), and
 * finds the places. Where keys are wrong, the errors of those rules are added which hold whatever
 * was meant. `found`, worst first, and `places` are the caller's to free. *checked_world is
 * PGR_NIL where no layout was checked. PGR_OK also for a bad config; PGR_USAGE for a bad --set,
 * PGR_LIMIT where memory is short. */
pgr_status pgr_config_diagnose(const char *name, const char *text, size_t bytes,
                               const pgr_config_set *sets, int set_count, int64_t world_size,
                               int64_t *checked_world, pgr_diagnostics *found,
                               pgr_locations *places, pgr_error *error);

#ifdef __cplusplus
}
#endif
#endif
