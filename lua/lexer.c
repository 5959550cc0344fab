/* lexer.c - the tokens of a Lua text. Strange bytes are signs that no statement knows. */
#include "lexer.h"

#include <ctype.h>
#include <string.h>

static int peek(const pgr_lexer *lex, size_t ahead) {
    return (size_t)(lex->end - lex->at) > ahead ? (unsigned char)lex->at[ahead] : -1;
}

const char *pgr_line_end(const char *at, const char *end) {
    while (at < end && *at != '\n' && *at != '\r')
        at++;
    return at;
}

const char *pgr_line_next(const char *at, const char *end) {
    at = pgr_line_end(at, end);
    if (at == end)
        return NULL;
    bool pair = at + 1 < end && (at[1] == '\n' || at[1] == '\r') && at[1] != at[0];
    return at + 1 + pair;
}

/* One byte, or a line break as a whole. */
static void advance(pgr_lexer *lex) {
    int byte = peek(lex, 0);
    if (byte != '\n' && byte != '\r') {
        lex->at++;
        return;
    }
    lex->at = pgr_line_next(lex->at, lex->end);
    lex->line++;
    lex->line_start = lex->at;
}

pgr_lexer pgr_lexer_start(const char *text, size_t bytes) {
    pgr_lexer lex = {text, text + bytes, text, 1};
    if (bytes >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
        lex.at += 3;
    if (peek(&lex, 0) == '#')
        while (lex.at < lex.end && *lex.at != '\n')
            lex.at++;
    return lex;
}

/* The level of a long bracket "[==[" here, or -1. */
static int64_t long_bracket(const pgr_lexer *lex) {
    size_t i = 1;
    if (peek(lex, 0) != '[')
        return -1;
    while (peek(lex, i) == '=')
        i++;
    return peek(lex, i) == '[' ? (int64_t)i - 1 : -1;
}

/* Skips "[==[ ... ]==]"; gives its text, without a line break at its start. */
static void skip_long(pgr_lexer *lex, int64_t level, pgr_token *out) {
    lex->at += level + 2;
    int first = peek(lex, 0);
    if (first == '\n' || first == '\r') {
        advance(lex);
        if ((peek(lex, 0) == '\n' || peek(lex, 0) == '\r') && peek(lex, 0) != first)
            advance(lex);
    }
    out->at = lex->at;
    while (lex->at < lex->end) {
        if (peek(lex, 0) == ']') {
            int64_t i = 1;
            while (i <= level && peek(lex, (size_t)i) == '=')
                i++;
            if (i == level + 1 && peek(lex, (size_t)i) == ']') {
                out->length = (size_t)(lex->at - out->at);
                lex->at += level + 2;
                return;
            }
        }
        advance(lex);
    }
    out->length = (size_t)(lex->at - out->at);
}

static void skip_space(pgr_lexer *lex) {
    for (;;) {
        int byte = peek(lex, 0);
        if (byte == ' ' || (byte >= '\t' && byte <= '\r')) {
            advance(lex);
        } else if (byte == '-' && peek(lex, 1) == '-') {
            lex->at += 2;
            int64_t level = long_bracket(lex);
            pgr_token unused;
            if (level >= 0)
                skip_long(lex, level, &unused);
            else
                while (lex->at < lex->end && peek(lex, 0) != '\n' && peek(lex, 0) != '\r')
                    advance(lex);
        } else {
            return;
        }
    }
}

/* Behind a backslash: the byte that it escapes, or a line break, or with "z" all blanks. */
static void skip_escaped(pgr_lexer *lex) {
    int byte = peek(lex, 0);
    if (byte < 0)
        return;
    advance(lex);
    while (byte == 'z' && peek(lex, 0) >= 0 && isspace(peek(lex, 0)))
        advance(lex);
}

static void read_short_string(pgr_lexer *lex, pgr_token *out) {
    int quote = peek(lex, 0);
    lex->at++;
    out->at = lex->at;
    while (lex->at < lex->end && peek(lex, 0) != quote && peek(lex, 0) != '\n' &&
           peek(lex, 0) != '\r') {
        bool escape = peek(lex, 0) == '\\';
        advance(lex);
        if (escape)
            skip_escaped(lex);
    }
    out->length = (size_t)(lex->at - out->at);
    if (peek(lex, 0) == quote)
        lex->at++;
}

static void read_word(pgr_lexer *lex, pgr_token *out) {
    bool number = out->kind == PGR_TOKEN_NUMBER;
    bool hex = number && peek(lex, 0) == '0' && (peek(lex, 1) | 0x20) == 'x';
    while (lex->at < lex->end) {
        int byte = peek(lex, 0);
        bool sign = number && (byte == '+' || byte == '-') && lex->at > out->at &&
                    (lex->at[-1] | 0x20) == (hex ? 'p' : 'e');
        if (!isalnum(byte) && byte != '_' && !(number && byte == '.') && !sign)
            break;
        lex->at++;
    }
    out->length = (size_t)(lex->at - out->at);
}

static int keyword(const pgr_token *word) {
    static const char *const words[] = {"and",   "break", "do",       "else", "elseif", "end",
                                        "false", "for",   "function", "goto", "if",     "in",
                                        "local", "nil",   "not",      "or",   "repeat", "return",
                                        "then",  "true",  "until",    "while"};
    int low = 0, high = (int)(sizeof words / sizeof *words) - 1;
    while (low <= high && word->length <= 8) {
        int middle = (low + high) / 2;
        int order = strncmp(words[middle], word->at, word->length);
        if (order == 0)
            order = words[middle][word->length] != '\0';
        if (order == 0)
            return PGR_TOKEN_AND + middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle - 1;
    }
    return PGR_TOKEN_NAME;
}

static void read_sign(pgr_lexer *lex, pgr_token *out) {
    int byte = peek(lex, 0), next = peek(lex, 1);
    out->kind = byte;
    if (byte == '.' && next == '.') {
        out->length = peek(lex, 2) == '.' ? 3 : 2;
        out->kind = out->length == 3 ? PGR_TOKEN_DOTS : PGR_TOKEN_OPERATOR;
    } else if (byte == ':' && next == ':') {
        out->length = 2;
        out->kind = PGR_TOKEN_LABEL;
    } else if ((next == '=' && (byte == '=' || byte == '<' || byte == '>' || byte == '~')) ||
               (next == byte && (byte == '<' || byte == '>' || byte == '/'))) {
        out->length = 2;
        out->kind = PGR_TOKEN_OPERATOR;
    }
    lex->at += out->length;
}

pgr_token pgr_lexer_next(pgr_lexer *lex) {
    skip_space(lex);
    pgr_token out = {.kind = PGR_TOKEN_END, .length = 1, .at = lex->at, .line = lex->line};
    out.column = (int64_t)(lex->at - lex->line_start) + 1;
    int byte = peek(lex, 0);
    int64_t level = long_bracket(lex);
    if (byte < 0) {
        out.length = 0;
    } else if (byte == '"' || byte == '\'') {
        out.kind = PGR_TOKEN_STRING;
        read_short_string(lex, &out);
    } else if (level >= 0) {
        out.kind = PGR_TOKEN_STRING;
        skip_long(lex, level, &out);
    } else if (isdigit(byte) || (byte == '.' && peek(lex, 1) >= 0 && isdigit(peek(lex, 1)))) {
        out.kind = PGR_TOKEN_NUMBER;
        read_word(lex, &out);
    } else if (isalpha(byte) || byte == '_') {
        out.kind = PGR_TOKEN_NAME;
        read_word(lex, &out);
        out.kind = keyword(&out);
    } else {
        read_sign(lex, &out);
    }
    return out;
}
