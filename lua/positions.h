/* positions.h - where in a config's text each value stands, found by reading the table constructor
 * that the config returns. Needed for messages alone. Knows no Lua state. */
#ifndef PGR_POSITIONS_H
#define PGR_POSITIONS_H

#include "status.h"

/* Lines and columns count from 1; columns are bytes. Line 0: unknown. */
typedef struct pgr_position {
    int64_t line, column;         /* of the value */
    int64_t key_line, key_column; /* of its key, or of the value for a list item */
} pgr_position;

typedef struct pgr_positions pgr_positions;

/* Reads the text. Never fails for strange text, which just has fewer positions. PGR_LIMIT where
 * memory is short. Free with pgr_positions_free(). */
pgr_status pgr_positions_create(const char *text, size_t bytes, pgr_positions **positions,
                                pgr_error *error);
void pgr_positions_free(pgr_positions *positions);

/* The position of a path: "parallel.tp", "run.workloads[2]". Line 0 where it is not written out as
 * part of the returned table, but computed. "" is what the config returns, its key the `return`. */
pgr_position pgr_positions_find(const pgr_positions *positions, const char *path);

#endif
