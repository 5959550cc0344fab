/* positions_values.c - loads and stores of the names and fields of a program that is read but not
 * run: several tables where it may be one of them, a literal only where it must be it. */
#include "positions_values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOCALS_MAX 20000 /* in scope at once, over all functions; Lua allows 200 in each */

void pgr_value_add(pgr_value *v, uint32_t node) {
    if (node && v->count < PGR_NODES_MAX)
        v->nodes[v->count++] = node;
}

void pgr_value_join(pgr_value *v, const pgr_value *other) {
    for (uint32_t i = 0; i < other->count; i++)
        pgr_value_add(v, other->nodes[i]);
    v->guess = v->guess || other->guess;
}

void pgr_value_slot(pgr_scope *s, uint32_t slot, pgr_value *v) {
    bool guess = pgr_slot_nodes(s->p, slot, v->nodes, &v->count);
    v->guess = v->guess || guess;
}

void pgr_value_put(pgr_scope *s, uint32_t slot, bool sure, int64_t line, int64_t column,
                   const pgr_value *v) {
    pgr_place place = {.position = {v->line, v->column, line, column},
                       .written = v->written,
                       .guess = v->guess,
                       .node_count = v->count};
    pgr_place_add(s->p, slot, sure, &place, v->nodes);
}

uint32_t pgr_value_field(pgr_scope *s, uint32_t node, uint64_t name) {
    uint32_t slot = pgr_name_find(s->p, node, name);
    if (slot == 0) {
        slot = pgr_slot_add(s->p, name, s->block, s->loop);
        if (slot == 0 || !pgr_name_set(s->p, node, name, slot))
            return 0;
        s->p->slots[slot].next = s->p->nodes[node].first_slot;
        s->p->nodes[node].first_slot = slot;
    }
    return slot;
}

uint32_t pgr_value_open(pgr_scope *s, uint32_t node) {
    if (s->p->nodes[node].open == 0)
        s->p->nodes[node].open = pgr_slot_add(s->p, 0, 0, 0);
    return s->p->nodes[node].open;
}

uint64_t pgr_value_item(int64_t number) {
    char text[32];
    int length = snprintf(text, sizeof text, "[%lld]", (long long)number);
    return pgr_positions_name(text, (size_t)length);
}

bool pgr_value_key(const pgr_value *key, uint64_t *name) {
    const pgr_written *w = &key->written;
    char text[20], *end;
    if (w->kind == PGR_HELD_STRING && !w->escaped) {
        *name = pgr_positions_key(w->at, w->bytes);
        return true;
    }
    if (w->kind != PGR_HELD_NUMBER || w->bytes >= sizeof text)
        return false;
    snprintf(text, sizeof text, "%.*s", (int)w->bytes, w->at);
    int64_t number = strtoll(text, &end, strncmp(text, "0x", 2) == 0 ? 16 : 10);
    *name = pgr_value_item(w->negative ? -number : number);
    return *end == '\0';
}

/* ---- loads and stores ---- */

static uint32_t slot_of_name(const pgr_scope *s, uint64_t name) {
    uint32_t slot = pgr_name_find(s->p, PGR_NODE_LOCALS, name);
    return slot ? slot : pgr_name_find(s->p, PGR_NODE_GLOBALS, name);
}

/* What a slot holds here: its tables, and its literal where it cannot be another one. */
static void load_slot(pgr_scope *s, uint32_t slot, pgr_value *v) {
    if (slot == 0)
        return;
    const pgr_slot *from = &s->p->slots[slot];
    pgr_value_slot(s, slot, v);
    if (from->newest && s->p->places[from->newest].earlier == 0 && from->loop == s->loop)
        v->written = s->p->places[from->newest].written;
}

/* All that the fields of a table hold, as far as it is looked at. */
static void load_any(pgr_scope *s, uint32_t node, pgr_value *v) {
    uint32_t slot = s->p->nodes[node].first_slot;
    pgr_value_slot(s, s->p->nodes[node].open, v);
    for (int i = 0; i < PGR_NODES_MAX && slot; i++, slot = s->p->slots[slot].next)
        pgr_value_slot(s, slot, v);
}

static void load_field(pgr_scope *s, uint32_t node, const pgr_target *from, pgr_value *v) {
    uint32_t slot = pgr_name_find(s->p, node, from->name), open = s->p->nodes[node].open;
    if (from->kind == PGR_TARGET_COMPUTED)
        load_any(s, node, v);
    else if (slot)
        load_slot(s, slot, v);
    if (from->kind == PGR_TARGET_FIELD && open) {
        pgr_value_slot(s, open, v);
        v->written = (pgr_written){0}; /* it may be set there too */
    }
}

pgr_value pgr_target_load(pgr_scope *s, const pgr_target *from) {
    pgr_value v = {.line = from->owner.line, .column = from->owner.column};
    if (from->kind == PGR_TARGET_NONE)
        return from->owner;
    if (from->kind == PGR_TARGET_NAME) {
        load_slot(s, slot_of_name(s, from->name), &v);
        return v;
    }
    for (uint32_t i = 0; i < from->owner.count; i++)
        load_field(s, from->owner.nodes[i], from, &v);
    v.guess = v.guess || from->owner.guess;
    if (from->owner.count != 1)
        v.written = (pgr_written){0};
    return v;
}

void pgr_target_store(pgr_scope *s, const pgr_target *to, const pgr_value *v) {
    int64_t line = to->owner.line, column = to->owner.column;
    if (to->kind == PGR_TARGET_NAME) {
        uint32_t slot = slot_of_name(s, to->name);
        if (slot == 0)
            slot = pgr_value_field(s, PGR_NODE_GLOBALS, to->name);
        pgr_value_put(s, slot, slot && s->p->slots[slot].block == s->block, line, column, v);
    }
    for (uint32_t i = 0; i < to->owner.count && to->kind > PGR_TARGET_NAME; i++) {
        uint32_t node = to->owner.nodes[i];
        bool sure = to->owner.count == 1 && s->p->nodes[node].block == s->block;
        if (to->kind == PGR_TARGET_FIELD)
            pgr_value_put(s, pgr_value_field(s, node, to->name), sure, line, column, v);
        else
            pgr_value_put(s, pgr_value_open(s, node), false, line, column, v);
    }
}

bool pgr_target_is(const pgr_scope *s, const pgr_target *target, const char *name) {
    return target->kind == PGR_TARGET_NAME &&
           target->name == pgr_positions_name(name, strlen(name)) &&
           slot_of_name(s, target->name) == 0;
}

/* ---- local names ---- */

bool pgr_scope_declare(pgr_scope *s, uint64_t name, int64_t line, int64_t column,
                       const pgr_value *v) {
    if (s->local_count == s->local_room) {
        size_t room = s->local_room ? 2 * s->local_room : 64;
        void *grown = room <= LOCALS_MAX ? realloc(s->locals, room * sizeof *s->locals) : NULL;
        if (!grown) {
            s->p->out_of_memory = s->p->out_of_memory || room <= LOCALS_MAX;
            return false;
        }
        s->locals = grown;
        s->local_room = room;
    }
    uint32_t shadowed = pgr_name_find(s->p, PGR_NODE_LOCALS, name);
    uint32_t slot = pgr_slot_add(s->p, name, s->block, s->loop);
    if (!pgr_name_set(s->p, PGR_NODE_LOCALS, name, slot))
        return false;
    s->locals[s->local_count++] = (pgr_local){name, shadowed};
    pgr_value_put(s, slot, true, line, column, v);
    return true;
}

void pgr_scope_leave(pgr_scope *s, size_t local_count) {
    while (s->local_count > local_count) {
        const pgr_local *gone = &s->locals[--s->local_count];
        pgr_name_set(s->p, PGR_NODE_LOCALS, gone->name, gone->shadowed);
    }
}
