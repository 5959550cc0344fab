/* positions_store.h - what the text of a config says about its tables: nodes (tables and
 * functions), their slots (fields), and for each slot the places that may have given it its value.
 * Private to positions*.c. */
#ifndef PGR_POSITIONS_STORE_H
#define PGR_POSITIONS_STORE_H

#include "positions.h"

#define PGR_NODES_MAX 8  /* tables that one expression may stand for */
#define PGR_PLACES_MAX 8 /* places that are looked at for one slot, the newest */

/* A value as far as it is written out: a literal, a constructor, a function, or anything. */
typedef struct pgr_written {
    pgr_held_kind kind;
    bool negative;  /* a number with a minus before it */
    bool truth;     /* of a boolean */
    bool escaped;   /* a string with a backslash, whose text is not known */
    uint32_t bytes; /* of a number or a string */
    const char *at;
} pgr_written;

/* One place where a slot gets a value. */
typedef struct pgr_place {
    pgr_position position;
    pgr_written written;
    uint32_t first_node, node_count; /* the tables it may be, in `refs` */
    bool guess;                      /* that it is one of these tables, or made of them */
    uint32_t earlier;                /* the next older place of its slot; 0: none */
} pgr_place;

/* A field of a table, or a local name. */
typedef struct pgr_slot {
    uint64_t name;
    uint32_t newest;      /* place; 0: none */
    uint32_t next;        /* field of the same node; 0: none */
    uint32_t block, loop; /* where a local name is declared, or the field first got a value */
} pgr_slot;

typedef struct pgr_node {
    uint32_t block;      /* where it is made: what this block assigns later is in force */
    uint32_t first_slot; /* its fields; 0: none */
    uint32_t open;       /* slot: of fields with computed names, or what a function returns */
} pgr_node;

typedef struct pgr_name_slot {
    uint64_t name;
    uint32_t node, slot;
    bool used;
} pgr_name_slot;

/* Numbers of nodes, slots and places start at 1. Node 1 is the globals; node 0 stands for the local
 * names that are in scope. */
#define PGR_NODE_LOCALS 0
#define PGR_NODE_GLOBALS 1

struct pgr_positions {
    pgr_place *places;
    pgr_slot *slots;
    pgr_node *nodes;
    uint32_t *refs;
    pgr_name_slot *names; /* a hash table over (node, name) */
    uint32_t place_count, place_room, slot_count, slot_room, node_count, node_room, ref_count,
        ref_room, name_count, name_room;
    uint32_t root; /* slot: what the config returns */
    int64_t steps, search_steps;
    bool out_of_memory;
};

/* Each gives 0 where memory is short (noted) or the text has more of them than are kept. */
uint32_t pgr_node_add(pgr_positions *p, uint32_t block);
uint32_t pgr_slot_add(pgr_positions *p, uint64_t name, uint32_t block, uint32_t loop);

/* Adds a place to a slot; where it is `sure`, it is the only one from now on. */
void pgr_place_add(pgr_positions *p, uint32_t slot, bool sure, const pgr_place *place,
                   const uint32_t *nodes);

/* The slot of a name, or 0. */
uint32_t pgr_name_find(const pgr_positions *p, uint32_t node, uint64_t name);

/* Gives a name its slot; false where there is no room. */
bool pgr_name_set(pgr_positions *p, uint32_t node, uint64_t name, uint32_t slot);

/* Adds to `nodes`, of which there are *count, those of the slot's newest places; true where one of
 * these is a guess. */
bool pgr_slot_nodes(pgr_positions *p, uint32_t slot, uint32_t *nodes, uint32_t *count);

/* Reads the program into the empty store. */
void pgr_positions_read(pgr_positions *p, const char *text, size_t bytes);

#endif
