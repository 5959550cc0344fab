/* positions.h - where in a config's text each value stands, found by reading the text as a program:
 * tables, the names that hold them, and what is assigned to their fields. Needed for messages
 * alone. Knows no Lua state. */
#ifndef PGR_POSITIONS_H
#define PGR_POSITIONS_H

#include "status.h"

/* Lines and columns count from 1; columns are bytes. Line 0: unknown. */
typedef struct pgr_position {
    int64_t line, column;         /* of the value */
    int64_t key_line, key_column; /* of its key, or of the value for a list item */
} pgr_position;

typedef enum pgr_held_kind {
    PGR_HELD_ANY, /* not known */
    PGR_HELD_NIL,
    PGR_HELD_BOOLEAN,
    PGR_HELD_NUMBER,
    PGR_HELD_STRING,
    PGR_HELD_TABLE,
    PGR_HELD_OTHER /* a function */
} pgr_held_kind;

/* One value that the config's table held. */
typedef struct pgr_held {
    uint64_t name;        /* pgr_positions_key() of it */
    uint32_t child, next; /* the first one in it, and the next beside it; 0: none */
    pgr_held_kind kind;
    bool complete; /* a table: all that it holds is here */
    double number; /* or 0 and 1 for false and true */
    uint64_t text; /* a string, by pgr_positions_name() */
} pgr_held;

/* What the config's table held as it was returned; the first item is the table itself. A place in
 * the text whose value is written out and is another one than this cannot be the value's. */
typedef struct pgr_snapshot {
    pgr_held *items;
    uint32_t count;
} pgr_snapshot;

/* A text as a number. */
uint64_t pgr_positions_name(const char *text, size_t bytes);

/* A key as a number: a name as paths show it, control characters as "?" and the end of a long one
 * left out; "[3]" for a list item. */
uint64_t pgr_positions_key(const char *text, size_t bytes);

typedef struct pgr_positions pgr_positions;

/* Reads the text, which must stay as long as the positions. Takes time and memory in proportion to
 * the text, whatever it says. Never fails for strange text, which just has fewer positions.
 * PGR_LIMIT where memory is short. Free with pgr_positions_free(). */
pgr_status pgr_positions_create(const char *text, size_t bytes, pgr_positions **positions,
                                pgr_error *error);
void pgr_positions_free(pgr_positions *positions);

/* The steps that reading and searching took: tokens, and values that were looked at. */
int64_t pgr_positions_steps(const pgr_positions *positions);

/* The position of a path: "parallel.tp", "run.workloads[2]". Line 0 where it is not written out
 * anywhere that leads to the returned table, or only as another value than the table held
 * (`held` may be NULL: not known). All searches of one text take a bounded time together. "" is
 * what the config returns, its key the `return`. */
pgr_position pgr_positions_find(pgr_positions *positions, const pgr_snapshot *held,
                                const char *path);

/* For a path that pgr_positions_find() does not find: an assignment to its table whose key is
 * computed, or the nearest key around it that is written. *computed is whether it is such an
 * assignment. Line 0 where the text has not even a return. */
pgr_position pgr_positions_near(pgr_positions *positions, const pgr_snapshot *held,
                                const char *path, bool *computed);

#endif
