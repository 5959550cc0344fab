/* positions_values.h - what the names and fields of a program stand for while it is read, and what
 * is put into them. Private to positions*.c. */
#ifndef PGR_POSITIONS_VALUES_H
#define PGR_POSITIONS_VALUES_H

#include "positions_store.h"

/* What an expression stands for. */
typedef struct pgr_value {
    int64_t line, column; /* of its first token */
    pgr_written written;
    bool guess;     /* that it is one of these, or made of them */
    uint32_t count; /* of the tables and functions that it may be */
    uint32_t nodes[PGR_NODES_MAX];
} pgr_value;

typedef enum pgr_target_kind {
    PGR_TARGET_NONE,
    PGR_TARGET_NAME,
    PGR_TARGET_FIELD,
    PGR_TARGET_COMPUTED /* a field whose name is not known */
} pgr_target_kind;

/* What stands before a "=": a name, or a field of the tables in `owner`. */
typedef struct pgr_target {
    pgr_target_kind kind;
    uint64_t name;
    pgr_value owner; /* PGR_TARGET_NONE: the value itself */
} pgr_target;

typedef struct pgr_local {
    uint64_t name;
    uint32_t shadowed; /* slot; 0: none */
} pgr_local;

/* Where in the program the reader is. */
typedef struct pgr_scope {
    pgr_positions *p;
    uint32_t block, loop; /* the ones around it; a body that may not run is a block of its own */
    pgr_local *locals;    /* in scope; owned by the reader */
    size_t local_count, local_room;
} pgr_scope;

/* Adds a table or function that the value may be; 0 is none. */
void pgr_value_add(pgr_value *v, uint32_t node);

/* Adds all that another value may be. */
void pgr_value_join(pgr_value *v, const pgr_value *other);

/* Adds all that a slot may hold. */
void pgr_value_slot(pgr_scope *s, uint32_t slot, pgr_value *v);

/* Puts the value into a slot, with the place of its key. */
void pgr_value_put(pgr_scope *s, uint32_t slot, bool sure, int64_t line, int64_t column,
                   const pgr_value *v);

/* The slot of a table's field, and of its fields with computed names or a function's returns; made
 * if need be, 0 where there is no room. */
uint32_t pgr_value_field(pgr_scope *s, uint32_t node, uint64_t name);
uint32_t pgr_value_open(pgr_scope *s, uint32_t node);

/* The name of a key as an expression; false where it is computed. */
bool pgr_value_key(const pgr_value *key, uint64_t *name);
uint64_t pgr_value_item(int64_t number);

pgr_value pgr_target_load(pgr_scope *s, const pgr_target *from);
void pgr_target_store(pgr_scope *s, const pgr_target *to, const pgr_value *v);

/* Whether it is a global name that the program itself does not define. */
bool pgr_target_is(const pgr_scope *s, const pgr_target *target, const char *name);

/* Declares a local name with its value; false where there are too many. */
bool pgr_scope_declare(pgr_scope *s, uint64_t name, int64_t line, int64_t column,
                       const pgr_value *v);
void pgr_scope_leave(pgr_scope *s, size_t local_count);

#endif
