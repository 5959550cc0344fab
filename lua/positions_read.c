/* positions_read.c - reads a Lua program once, from its first token to its last, and notes which
 * tables it makes and what it puts into their fields. It follows names through scopes, aliases
 * (`local p = t.parallel`) and returns of functions, and takes every branch and every loop once.
 * Where it cannot know, it notes several places or none. */
#include "lexer.h"
#include "positions_values.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 220 /* Lua itself stops at 200 */
#define STEPS_MAX ((int64_t)1 << 22)
#define ITEMS_KEPT 1024 /* of one list */
#define VALUES_MAX 8    /* of one list of expressions or names that are looked at */

typedef pgr_value value;
typedef pgr_target target;

typedef struct reader {
    pgr_scope scope;
    pgr_lexer lexer;
    pgr_token now, ahead;
    int64_t steps_max;
    uint32_t blocks, loops; /* numbers given so far */
    uint32_t returns;       /* slot: of the function around it, or of the program */
    int depth;
} reader;

/* ---- tokens ---- */

static void stop(reader *r) {
    r->lexer.at = r->lexer.end;
    r->now.kind = r->ahead.kind = PGR_TOKEN_END;
}

static void step(reader *r) {
    r->now = r->ahead;
    r->ahead = pgr_lexer_next(&r->lexer);
    if (++r->scope.p->steps > r->steps_max)
        stop(r);
}

static bool take(reader *r, int kind) {
    if (r->now.kind != kind)
        return false;
    step(r);
    return true;
}

static uint64_t name_of(const pgr_token *token) {
    return pgr_positions_key(token->at, token->length);
}

/* False, with the reading ended, where the program is nested too deep. */
static bool enter(reader *r) {
    if (++r->depth > DEPTH_MAX)
        stop(r);
    return r->depth <= DEPTH_MAX;
}

/* ---- values ---- */

static value value_here(const reader *r) {
    return (value){.line = r->now.line, .column = r->now.column};
}

/* ---- scopes ---- */

static void declare(reader *r, uint64_t name, int64_t line, int64_t column, const value *v) {
    if (!pgr_scope_declare(&r->scope, name, line, column, v))
        stop(r);
}

static void statements(reader *r);

/* A block; `own`: it may not run, or not where it stands. `loop`: it may run again. */
static void block(reader *r, bool own, bool loop) {
    size_t locals = r->scope.local_count;
    uint32_t old_block = r->scope.block, old_loop = r->scope.loop;
    if (own)
        r->scope.block = ++r->blocks;
    if (loop)
        r->scope.loop = ++r->loops;
    if (enter(r))
        statements(r);
    r->depth--;
    pgr_scope_leave(&r->scope, locals);
    r->scope.block = old_block;
    r->scope.loop = old_loop;
}

/* ---- expressions ---- */

static value expression(reader *r);
static value simple(reader *r);

/* Expressions up to the last comma; the first VALUES_MAX of them are given. */
static uint32_t expressions(reader *r, value *out) {
    uint32_t count = 0;
    do {
        value v = expression(r);
        if (count < VALUES_MAX)
            out[count++] = v;
    } while (take(r, ','));
    return count;
}

/* The parameters and body of a function, behind its name. */
static value function_body(reader *r, int64_t line, int64_t column, bool method) {
    value v = {.line = line, .column = column, .written = {.kind = PGR_HELD_OTHER}};
    value unknown = {0};
    uint32_t node = pgr_node_add(r->scope.p, r->scope.block), returns = r->returns;
    uint32_t old_block = r->scope.block, old_loop = r->scope.loop;
    size_t locals = r->scope.local_count;
    pgr_value_add(&v, node);
    r->scope.block = ++r->blocks;
    r->scope.loop = ++r->loops;
    r->returns = node ? pgr_value_open(&r->scope, node) : 0;
    if (method)
        declare(r, pgr_positions_name("self", 4), line, column, &unknown);
    if (take(r, '('))
        for (; r->now.kind != ')' && r->now.kind != PGR_TOKEN_END; step(r))
            if (r->now.kind == PGR_TOKEN_NAME)
                declare(r, name_of(&r->now), r->now.line, r->now.column, &unknown);
    take(r, ')');
    block(r, false, false);
    take(r, PGR_TOKEN_END_WORD);
    pgr_scope_leave(&r->scope, locals);
    r->returns = returns;
    r->scope.block = old_block;
    r->scope.loop = old_loop;
    return v;
}

/* One field of a table constructor. */
static void constructor_field(reader *r, uint32_t node, int64_t *item) {
    value key = value_here(r), v;
    uint64_t name = 0;
    bool named = true, list = false;
    if (r->now.kind == PGR_TOKEN_NAME && r->ahead.kind == '=') {
        name = name_of(&r->now);
        step(r);
        step(r);
        v = expression(r);
    } else if (take(r, '[')) {
        value inner = expression(r);
        named = pgr_value_key(&inner, &name);
        take(r, ']');
        take(r, '=');
        v = expression(r);
    } else {
        list = true;
        v = expression(r);
        if (*item < ITEMS_KEPT)
            name = pgr_value_item(*item + 1);
        ++*item;
    }
    if (node && (!list || *item <= ITEMS_KEPT))
        pgr_value_put(&r->scope,
                      named ? pgr_value_field(&r->scope, node, name)
                            : pgr_value_open(&r->scope, node),
                      named, key.line, key.column, &v);
}

static value constructor(reader *r) {
    value v = value_here(r);
    int64_t item = 0;
    v.written.kind = PGR_HELD_TABLE;
    pgr_value_add(&v, pgr_node_add(r->scope.p, r->scope.block));
    step(r);
    while (r->now.kind != '}' && r->now.kind != PGR_TOKEN_END && enter(r)) {
        const char *before = r->now.at;
        constructor_field(r, v.count ? v.nodes[0] : 0, &item);
        r->depth--;
        if (!take(r, ',') && !take(r, ';') && r->now.at == before)
            step(r); /* strange */
    }
    take(r, '}');
    return v;
}

/* Whether a function's result is not known, or has fields whose names are not. */
static bool is_open(const reader *r, const value *result) {
    bool open = result->count == 0;
    for (uint32_t i = 0; i < result->count; i++)
        open = open || r->scope.p->nodes[result->nodes[i]].open;
    return open;
}

/* The call of `callee`, at its arguments. */
static void call(reader *r, target *callee) {
    value arguments[VALUES_MAX];
    uint32_t count = 0;
    value function = pgr_target_load(&r->scope, callee);
    value v = {.line = callee->owner.line, .column = callee->owner.column};
    if (take(r, '(')) {
        if (r->now.kind != ')')
            count = expressions(r, arguments);
        take(r, ')');
    } else {
        arguments[count++] = simple(r);
    }
    for (uint32_t i = 0; i < function.count; i++)
        pgr_value_slot(&r->scope, r->scope.p->nodes[function.nodes[i]].open, &v);
    if (count > 0 && pgr_target_is(&r->scope, callee, "setmetatable")) {
        v = arguments[0];
    } else if (count > 2 && pgr_target_is(&r->scope, callee, "rawset")) {
        target to = {.owner = arguments[0]};
        to.kind = pgr_value_key(&arguments[1], &to.name) ? PGR_TARGET_FIELD : PGR_TARGET_COMPUTED;
        to.owner.line = callee->owner.line;
        to.owner.column = callee->owner.column;
        pgr_target_store(&r->scope, &to, &arguments[2]);
        v = arguments[0];
    } else if (is_open(r, &v)) { /* perhaps it copies or merges them, or gives one back */
        for (uint32_t i = count; i > 0; i--)
            pgr_value_join(&v, &arguments[i - 1]);
        v.guess = true;
    }
    v.line = callee->owner.line;
    v.column = callee->owner.column;
    *callee = (target){.owner = v};
}

/* What a chain of fields stands for, whose last part is not looked up yet. */
static void index_by(reader *r, target *chain, bool named, uint64_t name) {
    value owner = pgr_target_load(&r->scope, chain);
    *chain = (target){named ? PGR_TARGET_FIELD : PGR_TARGET_COMPUTED, name, owner};
}

/* One ".name", "[key]", ":name" or list of arguments; false where there is none. */
static bool suffix(reader *r, target *chain) {
    uint64_t name = 0;
    switch (r->now.kind) {
    case '.':
    case ':':
        step(r);
        index_by(r, chain, true, name_of(&r->now));
        take(r, PGR_TOKEN_NAME);
        return true;
    case '[': {
        step(r);
        value key = expression(r);
        bool named = pgr_value_key(&key, &name);
        take(r, ']');
        index_by(r, chain, named, name);
        return true;
    }
    case '(':
    case '{':
    case PGR_TOKEN_STRING:
        call(r, chain);
        return true;
    default:
        return false;
    }
}

static target suffixed(reader *r) {
    target chain = {.owner = value_here(r)};
    if (r->now.kind == PGR_TOKEN_NAME) {
        chain.kind = PGR_TARGET_NAME;
        chain.name = name_of(&r->now);
        step(r);
    } else if (take(r, '(')) {
        int64_t line = chain.owner.line, column = chain.owner.column;
        chain.owner = expression(r);
        take(r, ')');
        if (r->now.kind == '.' || r->now.kind == '[' || r->now.kind == ':' || r->now.kind == '(') {
            chain.owner.line = line;
            chain.owner.column = column;
        }
    }
    while (suffix(r, &chain))
        ;
    return chain;
}

static value literal(reader *r, pgr_held_kind kind) {
    value v = value_here(r);
    v.written.kind = kind;
    v.written.at = r->now.at;
    v.written.bytes = (uint32_t)r->now.length;
    v.written.truth = r->now.kind == PGR_TOKEN_TRUE;
    v.written.escaped = kind == PGR_HELD_STRING && memchr(r->now.at, '\\', r->now.length) &&
                        r->now.at[-1] != '['; /* in a long one it is itself */
    step(r);
    return v;
}

static value simple(reader *r) {
    value v = value_here(r);
    target chain;
    switch (r->now.kind) {
    case PGR_TOKEN_NUMBER:
        return literal(r, PGR_HELD_NUMBER);
    case PGR_TOKEN_STRING:
        return literal(r, PGR_HELD_STRING);
    case PGR_TOKEN_TRUE:
    case PGR_TOKEN_FALSE:
        return literal(r, PGR_HELD_BOOLEAN);
    case PGR_TOKEN_NIL:
        return literal(r, PGR_HELD_NIL);
    case PGR_TOKEN_DOTS:
        step(r);
        return v;
    case PGR_TOKEN_FUNCTION:
        step(r);
        return function_body(r, v.line, v.column, false);
    case '{':
        return constructor(r);
    default:
        chain = suffixed(r);
        return pgr_target_load(&r->scope, &chain);
    }
}

/* An operand with the signs before it. */
static value operand(reader *r) {
    value first = value_here(r);
    int minus = 0, others = 0;
    for (;; step(r))
        if (r->now.kind == '-')
            minus++;
        else if (r->now.kind == '#' || r->now.kind == '~' || r->now.kind == PGR_TOKEN_NOT)
            others++;
        else
            break;
    value v = simple(r);
    if (minus == 0 && others == 0)
        return v;
    if (minus == 1 && others == 0 && v.written.kind == PGR_HELD_NUMBER && !v.written.negative)
        first.written = v.written;
    first.written.negative = true;
    return first;
}

static bool is_binary(int kind) {
    return (kind < 256 && kind > 0 && strchr("+-*/%^&|~<>", kind)) || kind == PGR_TOKEN_OPERATOR ||
           kind == PGR_TOKEN_AND || kind == PGR_TOKEN_OR;
}

/* Operators are read from the left without regard to their rank: a place needs no more. */
static value expression(reader *r) {
    value v = value_here(r);
    if (enter(r)) {
        v = operand(r);
        while (is_binary(r->now.kind)) {
            bool either = r->now.kind == PGR_TOKEN_AND || r->now.kind == PGR_TOKEN_OR;
            step(r);
            value right = operand(r);
            v.written = (pgr_written){0};
            v.count = either ? v.count : 0;
            if (either)
                pgr_value_join(&v, &right);
        }
    }
    r->depth--;
    return v;
}

/* ---- statements ---- */

/* The i-th of `count` values, for a list of names that is longer: what a call gives besides, or nil
 * where there are no values at all. */
static value nth(const value *values, uint32_t count, uint32_t i, int64_t line, int64_t column) {
    value v = {.line = line, .column = column};
    if (i < count)
        return values[i];
    if (count == 0)
        v.written.kind = PGR_HELD_NIL;
    return v;
}

static void local_names(reader *r) {
    struct {
        uint64_t name;
        int64_t line, column;
    } names[VALUES_MAX];
    value values[VALUES_MAX];
    uint32_t count = 0, given = 0;
    do {
        if (count < VALUES_MAX) {
            names[count].name = name_of(&r->now);
            names[count].line = r->now.line;
            names[count++].column = r->now.column;
        }
        take(r, PGR_TOKEN_NAME);
        if (take(r, '<')) {
            take(r, PGR_TOKEN_NAME);
            take(r, '>');
        }
    } while (take(r, ','));
    if (take(r, '='))
        given = expressions(r, values);
    for (uint32_t i = 0; i < count; i++) {
        value v = nth(values, given, i, names[i].line, names[i].column);
        declare(r, names[i].name, names[i].line, names[i].column, &v);
    }
}

static void local_statement(reader *r) {
    step(r);
    if (!take(r, PGR_TOKEN_FUNCTION)) {
        local_names(r);
        return;
    }
    value unknown = {0};
    pgr_token name = r->now;
    take(r, PGR_TOKEN_NAME);
    declare(r, name_of(&name), name.line, name.column, &unknown);
    value v = function_body(r, name.line, name.column, false);
    pgr_value_put(&r->scope, pgr_name_find(r->scope.p, PGR_NODE_LOCALS, name_of(&name)), true,
                  name.line, name.column, &v);
}

static void function_statement(reader *r) {
    value start = value_here(r);
    bool method = false;
    step(r);
    target chain = {PGR_TARGET_NAME, name_of(&r->now), value_here(r)};
    take(r, PGR_TOKEN_NAME);
    while ((r->now.kind == '.' || r->now.kind == ':') && !method) {
        method = r->now.kind == ':';
        suffix(r, &chain);
    }
    value v = function_body(r, start.line, start.column, method);
    pgr_target_store(&r->scope, &chain, &v);
}

/* An assignment or a call. */
static void expression_statement(reader *r) {
    target targets[VALUES_MAX];
    value values[VALUES_MAX];
    uint32_t count = 0, given;
    do {
        target to = suffixed(r);
        if (count < VALUES_MAX)
            targets[count++] = to;
    } while (take(r, ','));
    if (!take(r, '='))
        return;
    int64_t line = r->now.line, column = r->now.column;
    given = expressions(r, values);
    for (uint32_t i = 0; i < count; i++) {
        value v = nth(values, given, i, line, column);
        pgr_target_store(&r->scope, &targets[i], &v);
    }
}

static void for_statement(reader *r) {
    value unknown = {0}, unused[VALUES_MAX];
    pgr_token names[VALUES_MAX];
    size_t locals = r->scope.local_count;
    uint32_t count = 0, old_loop = r->scope.loop;
    step(r);
    do {
        if (count < VALUES_MAX)
            names[count++] = r->now;
        take(r, PGR_TOKEN_NAME);
    } while (take(r, ','));
    if (take(r, '=') || take(r, PGR_TOKEN_IN))
        expressions(r, unused);
    take(r, PGR_TOKEN_DO);
    r->scope.loop = ++r->loops;
    for (uint32_t i = 0; i < count; i++)
        declare(r, name_of(&names[i]), names[i].line, names[i].column, &unknown);
    block(r, true, false);
    take(r, PGR_TOKEN_END_WORD);
    pgr_scope_leave(&r->scope, locals);
    r->scope.loop = old_loop;
}

static void if_statement(reader *r) {
    do {
        step(r);
        expression(r);
        take(r, PGR_TOKEN_THEN);
        block(r, true, false);
    } while (r->now.kind == PGR_TOKEN_ELSEIF);
    if (take(r, PGR_TOKEN_ELSE))
        block(r, true, false);
    take(r, PGR_TOKEN_END_WORD);
}

static void loop_statement(reader *r) {
    bool repeat = r->now.kind == PGR_TOKEN_REPEAT;
    step(r);
    if (!repeat) {
        expression(r);
        take(r, PGR_TOKEN_DO);
    }
    block(r, true, true);
    take(r, repeat ? PGR_TOKEN_UNTIL : PGR_TOKEN_END_WORD);
    if (repeat)
        expression(r);
}

static bool ends_block(int kind) {
    return kind == PGR_TOKEN_END || kind == PGR_TOKEN_END_WORD || kind == PGR_TOKEN_ELSE ||
           kind == PGR_TOKEN_ELSEIF || kind == PGR_TOKEN_UNTIL;
}

static void return_statement(reader *r) {
    value values[VALUES_MAX], start = value_here(r);
    step(r);
    values[0] = value_here(r);
    if (!ends_block(r->now.kind) && r->now.kind != ';')
        expressions(r, values);
    pgr_value_put(&r->scope, r->returns, false, start.line, start.column, &values[0]);
}

static void statement(reader *r) {
    switch (r->now.kind) {
    case PGR_TOKEN_IF:
        if_statement(r);
        break;
    case PGR_TOKEN_WHILE:
    case PGR_TOKEN_REPEAT:
        loop_statement(r);
        break;
    case PGR_TOKEN_DO:
        step(r);
        block(r, false, false);
        take(r, PGR_TOKEN_END_WORD);
        break;
    case PGR_TOKEN_FOR:
        for_statement(r);
        break;
    case PGR_TOKEN_FUNCTION:
        function_statement(r);
        break;
    case PGR_TOKEN_LOCAL:
        local_statement(r);
        break;
    case PGR_TOKEN_RETURN:
        return_statement(r);
        break;
    case PGR_TOKEN_GOTO:
        step(r);
        take(r, PGR_TOKEN_NAME);
        break;
    case PGR_TOKEN_NAME:
    case '(':
        expression_statement(r);
        break;
    default: /* ";", "break", "::name::", and what is no Lua */
        step(r);
    }
}

/* Statements up to the end of the block. */
static void statements(reader *r) {
    while (!ends_block(r->now.kind))
        statement(r);
}

void pgr_positions_read(pgr_positions *p, const char *text, size_t bytes) {
    reader r = {.scope = {.p = p, .block = 1, .loop = 1},
                .lexer = pgr_lexer_start(text, bytes),
                .blocks = 1,
                .loops = 1};
    r.steps_max = 64 * (int64_t)bytes + 4096;
    r.steps_max = r.steps_max < STEPS_MAX ? r.steps_max : STEPS_MAX;
    p->root = r.returns = pgr_slot_add(p, 0, 1, 1);
    if (pgr_node_add(p, 1) != PGR_NODE_GLOBALS)
        return;
    step(&r);
    step(&r);
    statements(&r);
    while (r.now.kind != PGR_TOKEN_END) { /* an "end" too many: no Lua */
        step(&r);
        statements(&r);
    }
    free(r.scope.locals);
}
