/* positions.c - a lexer for Lua and a walk of the returned table constructor: `return { ... }`,
 * `local t = { ... } return t`, values that are names of such locals, and later assignments to
 * their fields (`t.parallel.tp = 4`). What is computed otherwise has no position. */
#include "positions.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKENS_MAX ((size_t)1 << 20)
#define ENTRIES_MAX ((size_t)1 << 16)
#define DEPTH_MAX 16 /* of tables in tables */
#define PATH_BYTES 160

typedef enum token_kind {
    TOKEN_END,
    TOKEN_NAME,
    TOKEN_STRING,
    TOKEN_NUMBER,
    TOKEN_SIGN
} token_kind;

typedef struct lua_token {
    token_kind kind;
    uint32_t length;
    const char *at; /* a string's text without its quotes, escapes as written */
    uint32_t line, column;
    int32_t depth; /* of brackets and blocks around it */
    bool in_function;
} lua_token;

typedef struct entry {
    char path[PATH_BYTES];
    pgr_position position;
} entry;

struct pgr_positions {
    const char *text, *end;
    lua_token *tokens; /* the last one is TOKEN_END */
    size_t token_count, token_room;
    entry *entries;
    size_t entry_count, entry_room;
    bool out_of_memory;
};

/* ---- the lexer ---- */

typedef struct lexer {
    const char *at, *end, *line_start;
    uint32_t line;
} lexer;

static int peek(const lexer *lex, size_t ahead) {
    return (size_t)(lex->end - lex->at) > ahead ? (unsigned char)lex->at[ahead] : -1;
}

static void advance(lexer *lex) {
    int byte = peek(lex, 0);
    lex->at++;
    if (byte == '\n' || (byte == '\r' && peek(lex, 0) != '\n')) {
        lex->line++;
        lex->line_start = lex->at;
    }
}

/* The level of a long bracket "[==[" here, or -1. */
static int long_bracket(const lexer *lex) {
    size_t i = 1;
    if (peek(lex, 0) != '[')
        return -1;
    while (peek(lex, i) == '=')
        i++;
    return peek(lex, i) == '[' ? (int)i - 1 : -1;
}

/* Skips "[==[ ... ]==]"; gives its text. */
static void skip_long(lexer *lex, int level, const char **text, uint32_t *length) {
    for (int i = 0; i < level + 2; i++)
        advance(lex);
    *text = lex->at;
    while (lex->at < lex->end) {
        if (peek(lex, 0) == ']') {
            int i = 1;
            while (i <= level && peek(lex, (size_t)i) == '=')
                i++;
            if (i == level + 1 && peek(lex, (size_t)i) == ']') {
                *length = (uint32_t)(lex->at - *text);
                lex->at += level + 2;
                return;
            }
        }
        advance(lex);
    }
    *length = (uint32_t)(lex->at - *text);
}

static void skip_space(lexer *lex) {
    for (;;) {
        int byte = peek(lex, 0);
        if (byte == ' ' || (byte >= '\t' && byte <= '\r')) {
            advance(lex);
        } else if (byte == '-' && peek(lex, 1) == '-') {
            lex->at += 2;
            int level = long_bracket(lex);
            const char *text;
            uint32_t length;
            if (level >= 0)
                skip_long(lex, level, &text, &length);
            else
                while (lex->at < lex->end && peek(lex, 0) != '\n')
                    advance(lex);
        } else {
            return;
        }
    }
}

static void read_short_string(lexer *lex, lua_token *out) {
    int quote = peek(lex, 0);
    lex->at++;
    out->at = lex->at;
    while (lex->at < lex->end && peek(lex, 0) != quote && peek(lex, 0) != '\n') {
        if (peek(lex, 0) == '\\' && lex->at + 1 < lex->end)
            advance(lex);
        advance(lex);
    }
    out->length = (uint32_t)(lex->at - out->at);
    if (peek(lex, 0) == quote)
        lex->at++;
}

static void read_word(lexer *lex, lua_token *out) {
    bool number = out->kind == TOKEN_NUMBER;
    while (lex->at < lex->end) {
        int byte = peek(lex, 0);
        bool sign = number && (byte == '+' || byte == '-') && strchr("eEpP", lex->at[-1]);
        if (!isalnum(byte) && byte != '_' && !(number && byte == '.') && !sign)
            break;
        lex->at++;
    }
    out->length = (uint32_t)(lex->at - out->at);
}

static lua_token next_token(lexer *lex) {
    skip_space(lex);
    lua_token out = {.kind = TOKEN_SIGN, .length = 1, .at = lex->at, .line = lex->line};
    out.column = (uint32_t)(lex->at - lex->line_start) + 1;
    int byte = peek(lex, 0), level = long_bracket(lex);
    if (byte < 0) {
        out.kind = TOKEN_END;
        out.length = 0;
    } else if (byte == '"' || byte == '\'') {
        out.kind = TOKEN_STRING;
        read_short_string(lex, &out);
    } else if (level >= 0) {
        out.kind = TOKEN_STRING;
        skip_long(lex, level, &out.at, &out.length);
    } else if (isdigit(byte) || (byte == '.' && isdigit(peek(lex, 1)))) {
        out.kind = TOKEN_NUMBER;
        read_word(lex, &out);
    } else if (isalpha(byte) || byte == '_') {
        out.kind = TOKEN_NAME;
        read_word(lex, &out);
    } else {
        /* "==", "<=", ">=", "~=": so that a lone "=" is an assignment */
        if (strchr("=<>~", byte) && peek(lex, 1) == '=')
            out.length = 2;
        lex->at += out.length;
    }
    return out;
}

static bool is(const lua_token *token, const char *text) {
    return token->kind != TOKEN_STRING && token->length == strlen(text) &&
           memcmp(token->at, text, token->length) == 0;
}

static bool same_name(const lua_token *a, const lua_token *b) {
    return a->kind == TOKEN_NAME && b->kind == TOKEN_NAME && a->length == b->length &&
           memcmp(a->at, b->at, a->length) == 0;
}

static bool is_any(const lua_token *token, const char *const *words) {
    for (; *words; words++)
        if (is(token, *words))
            return true;
    return false;
}

static const char *const openers[] = {"(", "[", "{", "function", "do", "if", "repeat", NULL};
static const char *const closers[] = {")", "]", "}", "end", "until", NULL};

static bool add_token(pgr_positions *positions, lua_token token) {
    if (positions->token_count == positions->token_room) {
        size_t room = positions->token_room ? 2 * positions->token_room : 256;
        void *grown = realloc(positions->tokens, room * sizeof token);
        if (!grown) {
            positions->out_of_memory = true;
            return false;
        }
        positions->tokens = grown;
        positions->token_room = room;
    }
    positions->tokens[positions->token_count++] = token;
    return true;
}

/* Reads all tokens and, of each, how deep it is nested. A closer has the depth of its opener. */
static bool read_tokens(pgr_positions *positions) {
    lexer lex = {positions->text, positions->end, positions->text, 1};
    int32_t depth = 0, function_depth = -1;
    for (;;) {
        lua_token token = next_token(&lex);
        if (positions->token_count >= TOKENS_MAX)
            return false;
        if (is_any(&token, closers))
            depth--;
        if (depth <= function_depth)
            function_depth = -1;
        token.depth = depth;
        token.in_function = function_depth >= 0;
        if (is(&token, "function") && function_depth < 0)
            function_depth = depth;
        if (is_any(&token, openers))
            depth++;
        if (!add_token(positions, token))
            return false;
        if (token.kind == TOKEN_END)
            return true;
    }
}

/* ---- the walk ---- */

static const lua_token *at(const pgr_positions *positions, size_t index) {
    size_t last = positions->token_count - 1;
    return &positions->tokens[index < last ? index : last];
}

static bool ends_expression(const lua_token *token) {
    static const char *const ends[] = {",", ";", "}", ")", "return", "local", "end", NULL};
    return token->kind == TOKEN_END || is_any(token, ends);
}

static void add_entry(pgr_positions *positions, const char *path, const lua_token *key,
                      const lua_token *value) {
    if (positions->entry_count >= ENTRIES_MAX)
        return;
    if (positions->entry_count == positions->entry_room) {
        size_t room = positions->entry_room ? 2 * positions->entry_room : 64;
        void *grown = realloc(positions->entries, room * sizeof *positions->entries);
        if (!grown) {
            positions->out_of_memory = true;
            return;
        }
        positions->entries = grown;
        positions->entry_room = room;
    }
    entry *added = &positions->entries[positions->entry_count++];
    snprintf(added->path, sizeof added->path, "%s", path);
    added->position = (pgr_position){value->line, value->column, key->line, key->column};
}

static void walk_value(pgr_positions *positions, size_t index, const char *path, int depth);

/* The index behind the expression that starts at `index`: of the "," or ";" of its table, or of the
 * table's "}". */
static size_t skip_expression(const pgr_positions *positions, size_t index) {
    int32_t level = at(positions, index)->depth;
    for (; index + 1 < positions->token_count; index++) {
        const lua_token *token = at(positions, index);
        if (token->depth < level || (token->depth == level && (is(token, ",") || is(token, ";"))))
            break;
    }
    return index;
}

/* The table constructor whose "{" is at `index`. */
static void walk_table(pgr_positions *positions, size_t index, const char *path, int depth) {
    char name[2 * PATH_BYTES];
    int64_t item = 0;
    int32_t outside = at(positions, index)->depth;
    const char *dot = *path ? "." : "";
    index++;
    while (at(positions, index)->kind != TOKEN_END && at(positions, index)->depth > outside) {
        const lua_token *key = at(positions, index);
        if (is(key, ",") || is(key, ";")) {
            index++;
            continue;
        }
        const lua_token *inner = at(positions, index + 1);
        bool bracket =
            is(key, "[") && is(at(positions, index + 2), "]") && is(at(positions, index + 3), "=");
        if (key->kind == TOKEN_NAME && is(inner, "=")) {
            snprintf(name, sizeof name, "%s%s%.*s", path, dot, (int)key->length, key->at);
            index += 2;
        } else if (bracket && inner->kind == TOKEN_STRING) {
            snprintf(name, sizeof name, "%s%s%.*s", path, dot, (int)inner->length, inner->at);
            index += 4;
        } else if (bracket) {
            snprintf(name, sizeof name, "%s[%.*s]", path, (int)inner->length, inner->at);
            index += 4;
        } else if (is(key, "[")) { /* a computed key */
            snprintf(name, sizeof name, "%s[?]", path);
        } else {
            snprintf(name, sizeof name, "%s[%lld]", path, (long long)++item);
        }
        if (strlen(name) < PATH_BYTES) {
            add_entry(positions, name, key, at(positions, index));
            walk_value(positions, index, name, depth + 1);
        }
        index = skip_expression(positions, index);
    }
}

/* The fields of a local that are assigned after its constructor: NAME.a.b = value. */
static void walk_assignments(pgr_positions *positions, const lua_token *name, const char *path,
                             int depth) {
    for (size_t i = 0; i + 1 < positions->token_count; i++) {
        char full[2 * PATH_BYTES];
        if (!same_name(at(positions, i), name) || at(positions, i)->in_function ||
            !is(at(positions, i + 1), "."))
            continue;
        snprintf(full, sizeof full, "%s", path);
        size_t j = i + 1;
        while (is(at(positions, j), ".") && at(positions, j + 1)->kind == TOKEN_NAME) {
            const lua_token *part = at(positions, j + 1);
            size_t used = strlen(full);
            snprintf(full + used, sizeof full - used, "%s%.*s", used ? "." : "", (int)part->length,
                     part->at);
            j += 2;
        }
        if (is(at(positions, j), "=") && strlen(full) < PATH_BYTES) {
            add_entry(positions, full, at(positions, i), at(positions, j + 1));
            walk_value(positions, j + 1, full, depth + 1);
        }
        i = j - 1;
    }
}

/* The one place that assigns to the plain name, as the index of its value; 0 for none or several.
 */
static size_t assignment_of(const pgr_positions *positions, const lua_token *name) {
    size_t found = 0;
    for (size_t i = 0; i + 2 < positions->token_count; i++) {
        bool field = i > 0 && (is(at(positions, i - 1), ".") || is(at(positions, i - 1), ":"));
        bool in_table = i > 0 && (is(at(positions, i - 1), "{") || is(at(positions, i - 1), ","));
        if (!same_name(at(positions, i), name) || field || !is(at(positions, i + 1), "="))
            continue;
        if (in_table)
            continue;
        if (found)
            return 0;
        found = i + 2;
    }
    return found;
}

static void walk_value(pgr_positions *positions, size_t index, const char *path, int depth) {
    const lua_token *value = at(positions, index);
    if (depth > DEPTH_MAX)
        return;
    if (is(value, "{")) {
        walk_table(positions, index, path, depth);
        return;
    }
    if (value->kind != TOKEN_NAME || !ends_expression(at(positions, index + 1)))
        return;
    size_t constructor = assignment_of(positions, value);
    if (constructor && is(at(positions, constructor), "{")) {
        walk_table(positions, constructor, path, depth);
        walk_assignments(positions, value, path, depth);
    }
}

/* The value of the config's own return, where there is exactly one. The last one is the place of
 * the config as a whole. */
static size_t returned_value(pgr_positions *positions) {
    size_t found = 0, count = 0;
    for (size_t i = 0; i < positions->token_count; i++) {
        if (!is(at(positions, i), "return") || at(positions, i)->in_function)
            continue;
        found = i + 1;
        count++;
    }
    if (found)
        add_entry(positions, "", at(positions, found - 1), at(positions, found));
    return count == 1 ? found : 0;
}

pgr_status pgr_positions_create(const char *text, size_t bytes, pgr_positions **positions,
                                pgr_error *error) {
    pgr_positions *made = calloc(1, sizeof *made);
    if (!made)
        return pgr_error_set(error, PGR_LIMIT, "out of memory");
    made->text = text;
    made->end = text + bytes;
    if (read_tokens(made)) {
        size_t value = returned_value(made);
        if (value)
            walk_value(made, value, "", 0);
    }
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
    free(positions->tokens);
    free(positions->entries);
    free(positions);
}

pgr_position pgr_positions_find(const pgr_positions *positions, const char *path) {
    for (size_t i = positions->entry_count; i > 0; i--) /* the last one holds */
        if (strcmp(positions->entries[i - 1].path, path) == 0)
            return positions->entries[i - 1].position;
    return (pgr_position){0, 0, 0, 0};
}
