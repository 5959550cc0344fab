/* positions_store.c - nodes, slots and places in growing arrays, and names in a hash table. Texts
 * are strangers', so all of it has a most, and a search an end. */
#include "positions_store.h"

#include <stdlib.h>
#include <string.h>

#define ITEMS_MAX ((uint32_t)1 << 16) /* of each kind */
#define RETURNS_KEPT 256              /* places that only the config's returns may take */
#define KEY_BYTES 63                  /* of a key that a path shows */
#define PROBES_MAX 64                 /* for one name */

uint64_t pgr_positions_name(const char *text, size_t bytes) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    return hash;
}

uint64_t pgr_positions_key(const char *text, size_t bytes) {
    char clean[KEY_BYTES];
    size_t length = bytes < sizeof clean ? bytes : sizeof clean;
    while (length < bytes && length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80)
        length--; /* not inside a character */
    for (size_t i = 0; i < length; i++)
        clean[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    return pgr_positions_name(clean, length);
}

/* Makes room for one more; `items` is a pointer to the array. Item 0 is never used. */
static bool grow(pgr_positions *p, void *items, size_t size, uint32_t *count, uint32_t *room) {
    void *old;
    if (*count + 1 < *room)
        return true;
    if (*count >= ITEMS_MAX)
        return false;
    memcpy(&old, items, sizeof old);
    uint32_t wanted = *room ? 2 * *room : 64;
    void *grown = realloc(old, wanted * size);
    if (!grown) {
        p->out_of_memory = true;
        return false;
    }
    memcpy(items, &grown, sizeof grown);
    *room = wanted;
    return true;
}

uint32_t pgr_node_add(pgr_positions *p, uint32_t block) {
    if (!grow(p, &p->nodes, sizeof *p->nodes, &p->node_count, &p->node_room))
        return 0;
    p->nodes[++p->node_count] = (pgr_node){block, 0, 0};
    return p->node_count;
}

uint32_t pgr_slot_add(pgr_positions *p, uint64_t name, uint32_t block, uint32_t loop) {
    if (!grow(p, &p->slots, sizeof *p->slots, &p->slot_count, &p->slot_room))
        return 0;
    p->slots[++p->slot_count] = (pgr_slot){name, 0, 0, block, loop};
    return p->slot_count;
}

void pgr_place_add(pgr_positions *p, uint32_t slot, bool sure, const pgr_place *place,
                   const uint32_t *nodes) {
    if (slot != p->root && p->place_count >= ITEMS_MAX - RETURNS_KEPT)
        return;
    if (slot == 0 || !grow(p, &p->places, sizeof *p->places, &p->place_count, &p->place_room))
        return;
    pgr_place *made = &p->places[p->place_count + 1];
    *made = *place;
    made->first_node = p->ref_count + 1;
    made->node_count = 0;
    for (uint32_t i = 0; i < place->node_count; i++) {
        if (!grow(p, &p->refs, sizeof *p->refs, &p->ref_count, &p->ref_room))
            break;
        p->refs[++p->ref_count] = nodes[i];
        made->node_count++;
    }
    made->earlier = sure ? 0 : p->slots[slot].newest;
    p->slots[slot].newest = ++p->place_count;
}

/* ---- names ---- */

/* The entry of a name, or the free one where it would be; NULL after too many others. */
static pgr_name_slot *probe(pgr_name_slot *names, uint32_t room, uint32_t node, uint64_t name) {
    uint64_t mixed = (name ^ (node * UINT64_C(0x9e3779b97f4a7c15))) * UINT64_C(0xff51afd7ed558ccd);
    uint32_t at = (uint32_t)(mixed >> 32);
    for (uint32_t i = 0; i < PROBES_MAX && i < room; i++) {
        pgr_name_slot *entry = &names[(at + i) & (room - 1)];
        if (!entry->used || (entry->node == node && entry->name == name))
            return entry;
    }
    return NULL;
}

static bool grow_names(pgr_positions *p) {
    uint32_t room = p->name_room ? 2 * p->name_room : 256;
    if (2 * (p->name_count + 1) <= p->name_room)
        return true;
    if (p->name_count >= ITEMS_MAX)
        return false;
    pgr_name_slot *grown = calloc(room, sizeof *grown);
    if (!grown) {
        p->out_of_memory = true;
        return false;
    }
    p->name_count = 0;
    for (uint32_t i = 0; i < p->name_room; i++) {
        const pgr_name_slot *old = &p->names[i];
        pgr_name_slot *entry =
            old->used && old->slot ? probe(grown, room, old->node, old->name) : NULL;
        if (!entry)
            continue;
        *entry = *old;
        p->name_count++;
    }
    free(p->names);
    p->names = grown;
    p->name_room = room;
    return true;
}

uint32_t pgr_name_find(const pgr_positions *p, uint32_t node, uint64_t name) {
    const pgr_name_slot *entry = p->name_room ? probe(p->names, p->name_room, node, name) : NULL;
    return entry && entry->used ? entry->slot : 0;
}

bool pgr_name_set(pgr_positions *p, uint32_t node, uint64_t name, uint32_t slot) {
    if (!grow_names(p))
        return false;
    pgr_name_slot *entry = probe(p->names, p->name_room, node, name);
    if (!entry)
        return false;
    p->name_count += !entry->used;
    *entry = (pgr_name_slot){name, node, slot, true};
    return true;
}

/* ---- tables of a slot ---- */

bool pgr_slot_nodes(pgr_positions *p, uint32_t slot, uint32_t *nodes, uint32_t *count) {
    uint32_t at = slot ? p->slots[slot].newest : 0;
    bool guess = false;
    for (int i = 0; i < PGR_PLACES_MAX && at; i++, at = p->places[at].earlier) {
        const pgr_place *place = &p->places[at];
        for (uint32_t k = 0; k < place->node_count && *count < PGR_NODES_MAX; k++) {
            uint32_t node = p->refs[place->first_node + k], j = 0;
            p->steps++;
            while (j < *count && nodes[j] != node)
                j++;
            if (j == *count)
                nodes[(*count)++] = node;
        }
        guess = guess || place->guess;
        p->steps++;
    }
    return guess;
}
