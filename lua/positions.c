/* positions.c - follows a path through the tables that a config's text makes, from its return. Of
 * several places it takes the newest one that does not contradict what the table held. */
#include "positions.h"

#include "positions_store.h"

#include <stdlib.h>
#include <string.h>

#define BUDGET 20000 /* steps of one search; what a program needs is a few hundred */
#define BUDGET_ALL ((int64_t)1 << 19) /* of all searches, but for a few steps each */
#define BUDGET_LEAST 500
#define FIELDS_SEEN 64 /* of one table, for how well it fits */
#define FIT_DEPTH 4    /* of tables in tables, for the same */
#define HELD_UNKNOWN UINT32_MAX
#define HELD_NOTHING (UINT32_MAX - 1)

typedef struct search {
    pgr_positions *p;
    const pgr_snapshot *held; /* or NULL */
    int64_t budget;
    uint32_t found_held; /* what the table held where the search ended */
} search;

/* ---- what the table held ---- */

static uint32_t held_in(search *s, uint32_t held, uint64_t name) {
    if (held == HELD_UNKNOWN || held == HELD_NOTHING)
        return held;
    const pgr_held *table = &s->held->items[held];
    if (table->kind != PGR_HELD_TABLE)
        return HELD_NOTHING;
    int seen = 0;
    for (uint32_t at = table->child; at; at = s->held->items[at].next, seen++) {
        s->budget -= seen % 8 == 7;
        if (s->held->items[at].name == name)
            return at;
    }
    return table->complete ? HELD_NOTHING : HELD_UNKNOWN;
}

static double number_of(const pgr_written *written) {
    char text[80];
    double value;
    if (written->bytes >= sizeof text)
        return 0;
    memcpy(text, written->at, written->bytes);
    text[written->bytes] = '\0';
    bool hex = written->bytes > 2 && (text[1] | 0x20) == 'x' &&
               strspn(text + 2, "0123456789abcdefABCDEF") == written->bytes - 2;
    if (hex && written->bytes > 18) /* it wraps around */
        memmove(text, text + written->bytes - 16, 17);
    if (hex) {
        uint64_t bits = strtoull(text, NULL, 16);
        int64_t wrapped;
        memcpy(&wrapped, &bits, sizeof wrapped);
        value = (double)wrapped;
    } else {
        value = strtod(text, NULL);
    }
    return written->negative ? -value : value;
}

/* Whether what is written there can be what the table held. */
static bool agrees(const search *s, const pgr_place *place, uint32_t held) {
    const pgr_written *written = &place->written;
    if (held == HELD_UNKNOWN || written->kind == PGR_HELD_ANY)
        return true;
    if (held == HELD_NOTHING)
        return written->kind == PGR_HELD_NIL;
    const pgr_held *is = &s->held->items[held];
    if (written->kind != is->kind)
        return false;
    if (is->kind == PGR_HELD_NUMBER)
        return number_of(written) == is->number;
    if (is->kind == PGR_HELD_BOOLEAN)
        return written->truth == (is->number != 0);
    if (is->kind == PGR_HELD_STRING)
        return written->escaped || pgr_positions_name(written->at, written->bytes) == is->text;
    return true;
}

/* ---- which of several tables it is ---- */

static int misfits(search *s, uint32_t node, uint32_t held, int depth);

/* 0 where a place of the slot can hold it, else how many of its values contradict, at least 1. */
static int slot_misfits(search *s, uint32_t slot, uint32_t held, int depth) {
    int least = 1000;
    uint32_t at = s->p->slots[slot].newest;
    for (int i = 0; i < PGR_PLACES_MAX && at && least > 0; i++, at = s->p->places[at].earlier) {
        const pgr_place *place = &s->p->places[at];
        if (s->budget-- <= 0)
            return 0;
        if (!agrees(s, place, held))
            continue;
        if (place->node_count == 0)
            return 0;
        for (uint32_t k = 0; k < place->node_count && least > 0; k++) {
            int count = misfits(s, s->p->refs[place->first_node + k], held, depth + 1);
            least = count < least ? count : least;
        }
    }
    return least == 1000 ? 1 : least;
}

/* How many values of a table and of what it held contradict each other. */
static int misfits(search *s, uint32_t node, uint32_t held, int depth) {
    int count = 0, seen = 0;
    if (held == HELD_UNKNOWN || held == HELD_NOTHING || depth > FIT_DEPTH)
        return 0;
    for (uint32_t at = s->held->items[held].child; at && seen < FIELDS_SEEN; seen++) {
        uint32_t slot = pgr_name_find(s->p, node, s->held->items[at].name);
        if (s->budget-- <= 0)
            return count;
        if (slot)
            count += slot_misfits(s, slot, at, depth);
        else
            count += s->p->nodes[node].open == 0;
        at = s->held->items[at].next;
    }
    uint32_t slot = s->p->nodes[node].first_slot;
    for (seen = 0; slot && seen < FIELDS_SEEN; seen++, slot = s->p->slots[slot].next) {
        bool nothing = held_in(s, held, s->p->slots[slot].name) == HELD_NOTHING;
        if (s->budget-- <= 0)
            return count;
        if (nothing)
            count += slot_misfits(s, slot, HELD_NOTHING, depth);
    }
    return count;
}

/* Sorts the items by their misfits, fewest first, else as they are. */
static void sort_by_misfits(uint32_t *items, int *counts, uint32_t count) {
    for (uint32_t i = 1; i < count; i++) {
        for (uint32_t k = i; k > 0 && counts[k] < counts[k - 1]; k--) {
            uint32_t item = items[k];
            int misfit = counts[k];
            items[k] = items[k - 1];
            counts[k] = counts[k - 1];
            items[k - 1] = item;
            counts[k - 1] = misfit;
        }
    }
}

/* The tables that a place may be, the one that fits best first. */
static uint32_t tables_of(search *s, const pgr_place *place, uint32_t held,
                          uint32_t nodes[PGR_NODES_MAX]) {
    int counts[PGR_NODES_MAX];
    for (uint32_t i = 0; i < place->node_count; i++) {
        nodes[i] = s->p->refs[place->first_node + i];
        counts[i] = place->node_count > 1 ? misfits(s, nodes[i], held, 0) : 0;
    }
    sort_by_misfits(nodes, counts, place->node_count);
    return place->node_count;
}

/* The places of a slot that can have set what the table held, the best first. */
static uint32_t places_of(search *s, uint32_t slot, uint32_t held,
                          uint32_t places[PGR_PLACES_MAX]) {
    int counts[PGR_PLACES_MAX];
    uint32_t count = 0, at = s->p->slots[slot].newest;
    for (int i = 0; i < PGR_PLACES_MAX && at; i++, at = s->p->places[at].earlier)
        if (s->budget-- > 0 && agrees(s, &s->p->places[at], held))
            places[count++] = at;
    for (uint32_t i = 0; i < count; i++) {
        const pgr_place *place = &s->p->places[places[i]];
        counts[i] = count > 1 && place->node_count ? 1000 : 0;
        for (uint32_t k = 0; k < place->node_count && counts[i] > 0; k++) {
            int misfit = misfits(s, s->p->refs[place->first_node + k], held, 0);
            counts[i] = misfit < counts[i] ? misfit : counts[i];
        }
    }
    sort_by_misfits(places, counts, count);
    return count;
}

/* ---- following a path ---- */

static uint32_t seek(search *s, uint32_t slot, uint32_t held, const char *rest, bool guess);

/* The place of a path in a table, or 0. A key may hold a dot or a bracket itself. */
static uint32_t seek_in(search *s, uint32_t node, uint32_t held, const char *rest, bool guess) {
    for (size_t i = 1; rest[0] && s->budget > 0; i++) {
        if (rest[i] == '\0' || rest[i] == '.' || rest[i] == '[') {
            uint64_t name = pgr_positions_key(rest, i);
            s->budget--;
            uint32_t slot = pgr_name_find(s->p, node, name);
            const char *behind = rest + i + (rest[i] == '.');
            if (slot == 0 && rest[i])
                slot = s->p->nodes[node].open;
            uint32_t place =
                slot && s->budget > 0 ? seek(s, slot, held_in(s, held, name), behind, guess) : 0;
            if (place)
                return place;
        }
        if (rest[i] == '\0')
            break;
    }
    return 0;
}

/* The place of a path in what a slot holds, or 0. `guess`: it may be another table's, so that the
 * value must be written there. */
static uint32_t seek(search *s, uint32_t slot, uint32_t held, const char *rest, bool guess) {
    uint32_t places[PGR_PLACES_MAX], nodes[PGR_NODES_MAX];
    uint32_t count = places_of(s, slot, held, places);
    bool doubt = guess && (held == HELD_UNKNOWN || held == HELD_NOTHING);
    for (uint32_t i = 0; i < count; i++) {
        const pgr_place *place = &s->p->places[places[i]];
        if (*rest == '\0') {
            s->found_held = held;
            if (!guess || (!doubt && place->written.kind != PGR_HELD_ANY))
                return places[i];
            continue;
        }
        uint32_t tables = tables_of(s, place, held, nodes);
        for (uint32_t k = 0; k < tables; k++) {
            uint32_t found = seek_in(s, nodes[k], held, rest, guess || place->guess);
            if (found)
                return found;
        }
    }
    return 0;
}

static uint32_t start(search *s, pgr_positions *positions, const pgr_snapshot *held,
                      const char *path) {
    uint32_t known = held && held->count > 0 ? 0 : HELD_UNKNOWN;
    int64_t left = BUDGET_ALL - positions->search_steps;
    int64_t budget = left < BUDGET_LEAST ? BUDGET_LEAST : left < BUDGET ? left : BUDGET;
    *s = (search){positions, held, budget, HELD_UNKNOWN};
    uint32_t place = seek(s, positions->root, known, path, false);
    positions->search_steps += budget - s->budget;
    return place || *path ? place : positions->slots[positions->root].newest;
}

pgr_position pgr_positions_find(pgr_positions *positions, const pgr_snapshot *held,
                                const char *path) {
    search s;
    uint32_t place = start(&s, positions, held, path);
    return place ? positions->places[place].position : (pgr_position){0, 0, 0, 0};
}

/* The newest assignment to a computed key of the table at `place` that can be that of `leaf`. */
static uint32_t computed_place(search *s, uint32_t place, const char *leaf) {
    uint32_t nodes[PGR_NODES_MAX], places[PGR_PLACES_MAX];
    uint32_t held = held_in(s, s->found_held, pgr_positions_key(leaf, strlen(leaf)));
    uint32_t tables = tables_of(s, &s->p->places[place], s->found_held, nodes);
    bool known = held != HELD_NOTHING && !s->p->places[place].guess;
    for (uint32_t i = 0; i < tables && known; i++) {
        uint32_t open = s->p->nodes[nodes[i]].open;
        if (open && places_of(s, open, held, places) > 0)
            return places[0];
    }
    return 0;
}

pgr_position pgr_positions_near(pgr_positions *positions, const pgr_snapshot *held,
                                const char *path, bool *computed) {
    char around[256];
    size_t length = strlen(path);
    search s;
    if (length >= sizeof around)
        length = sizeof around - 1;
    memcpy(around, path, length);
    around[length] = '\0';
    for (bool leaf = true;; leaf = false) {
        while (length > 0 && around[length - 1] != '.' && around[length - 1] != '[')
            length--;
        length -= length > 0;
        around[length] = '\0';
        uint32_t place = start(&s, positions, held, around);
        uint32_t set = place && leaf && *path
                           ? computed_place(&s, place, path + length + (path[length] == '.'))
                           : 0;
        *computed = set != 0;
        if (set || place)
            return positions->places[set ? set : place].position;
        if (length == 0)
            return (pgr_position){0, 0, 0, 0};
    }
}

/* ---- making them ---- */

pgr_status pgr_positions_create(const char *text, size_t bytes, pgr_positions **positions,
                                pgr_error *error) {
    pgr_positions *made = calloc(1, sizeof *made);
    if (!made)
        return pgr_error_set(error, PGR_LIMIT, "out of memory");
    pgr_positions_read(made, text, bytes);
    if (made->out_of_memory) {
        pgr_positions_free(made);
        return pgr_error_set(error, PGR_LIMIT, "out of memory");
    }
    *positions = made;
    return PGR_OK;
}

void pgr_positions_free(pgr_positions *positions) {
    if (!positions)
        return;
    free(positions->places);
    free(positions->slots);
    free(positions->nodes);
    free(positions->refs);
    free(positions->names);
    free(positions);
}

int64_t pgr_positions_steps(const pgr_positions *positions) {
    return positions->steps + positions->search_steps;
}
