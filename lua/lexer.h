/* lexer.h - the tokens of a Lua text, one after the other. Reads any bytes. Knows no Lua state. */
#ifndef PGR_LEXER_H
#define PGR_LEXER_H

#include "status.h"

/* A sign of one byte is that byte; all else has a name here. */
typedef enum pgr_token_kind {
    PGR_TOKEN_END = 256,
    PGR_TOKEN_NAME,
    PGR_TOKEN_STRING,
    PGR_TOKEN_NUMBER,
    PGR_TOKEN_DOTS,     /* "..." */
    PGR_TOKEN_LABEL,    /* "::" */
    PGR_TOKEN_OPERATOR, /* a binary one of two bytes */
    PGR_TOKEN_AND,      /* the keywords, in the order of the alphabet */
    PGR_TOKEN_BREAK,
    PGR_TOKEN_DO,
    PGR_TOKEN_ELSE,
    PGR_TOKEN_ELSEIF,
    PGR_TOKEN_END_WORD,
    PGR_TOKEN_FALSE,
    PGR_TOKEN_FOR,
    PGR_TOKEN_FUNCTION,
    PGR_TOKEN_GOTO,
    PGR_TOKEN_IF,
    PGR_TOKEN_IN,
    PGR_TOKEN_LOCAL,
    PGR_TOKEN_NIL,
    PGR_TOKEN_NOT,
    PGR_TOKEN_OR,
    PGR_TOKEN_REPEAT,
    PGR_TOKEN_RETURN,
    PGR_TOKEN_THEN,
    PGR_TOKEN_TRUE,
    PGR_TOKEN_UNTIL,
    PGR_TOKEN_WHILE
} pgr_token_kind;

typedef struct pgr_token {
    int kind;       /* a pgr_token_kind, or the byte of a sign */
    const char *at; /* a string's text without its quotes, escapes as written */
    size_t length;
    int64_t line, column; /* from 1; columns are bytes */
} pgr_token;

typedef struct pgr_lexer {
    const char *at, *end, *line_start;
    int64_t line;
} pgr_lexer;

/* Starts at the text, behind a byte order mark and a first line with "#". It is not copied. */
pgr_lexer pgr_lexer_start(const char *text, size_t bytes);

/* The next token; PGR_TOKEN_END for ever at the end. */
pgr_token pgr_lexer_next(pgr_lexer *lexer);

/* The end of the line at `at`, and the first byte behind its break, or NULL where there is none.
 * "\n",
 * "\r" and the two together, in any order, are one break each, as Lua counts. */
const char *pgr_line_end(const char *at, const char *end);
const char *pgr_line_next(const char *at, const char *end);

#endif
