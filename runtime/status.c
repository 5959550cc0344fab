/* status.c - the error record, status names and the fatal handler. */
#include "status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static pgr_fatal_handler fatal_handler;
static void *fatal_context;

/* The largest length <= `length` at which `text` does not end inside a UTF-8 character. */
static size_t character_boundary(const char *text, size_t length) {
    size_t start = length;
    while (start > 0 && length - start < 4) {
        unsigned char byte = (unsigned char)text[--start];
        if ((byte & 0xC0) == 0x80)
            continue; /* a continuation byte: the character starts further left */
        size_t width = byte < 0x80 ? 1 : byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
        return start + width <= length ? length : start;
    }
    return length; /* empty, or not UTF-8 at all */
}

/* Formats into `out`; where the text was too long it ends at a character boundary. */
static void format_text(char *out, size_t bytes, const char *format, va_list arguments) {
    int wanted = vsnprintf(out, bytes, format, arguments);
    if (wanted < 0)
        out[0] = '\0';
    else if ((size_t)wanted >= bytes)
        out[character_boundary(out, bytes - 1)] = '\0';
}

pgr_status pgr_error_set(pgr_error *error, pgr_status status, const char *format, ...) {
    if (error == NULL)
        return status;
    /* Through a copy, since a caller may quote error->message itself in the arguments. */
    char text[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    format_text(text, sizeof text, format, arguments);
    va_end(arguments);
    memcpy(error->message, text, strlen(text) + 1);
    error->status = status;
    return status;
}

void pgr_error_prefix(pgr_error *error, const char *format, ...) {
    if (error == NULL)
        return;
    char text[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    format_text(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t front = strlen(text);
    size_t rest = strlen(error->message);
    size_t room = sizeof text - 1 - front;
    if (rest > room)
        rest = character_boundary(error->message, room);
    memcpy(text + front, error->message, rest);
    text[front + rest] = '\0';
    memcpy(error->message, text, front + rest + 1);
}

const char *pgr_status_name(pgr_status status) {
    switch (status) {
    case PGR_OK:
        return "ok";
    case PGR_INVALID:
        return "invalid";
    case PGR_MISMATCH:
        return "mismatch";
    case PGR_USAGE:
        return "usage";
    case PGR_UNSUPPORTED:
        return "unsupported";
    case PGR_LIMIT:
        return "limit";
    case PGR_TIMEOUT:
        return "timeout";
    case PGR_SYSTEM:
        return "system";
    case PGR_BACKEND:
        return "backend";
    case PGR_LOST:
        return "lost";
    case PGR_INTERNAL:
        return "internal";
    }
    return "unknown";
}

int pgr_exit_code(pgr_status status) {
    switch (status) {
    case PGR_OK:
        return 0;
    case PGR_INVALID:
    case PGR_MISMATCH:
        return 1;
    case PGR_USAGE:
        return 2;
    default:
        return 3;
    }
}

void pgr_fatal_handler_set(pgr_fatal_handler handler, void *context) {
    fatal_context = context;
    fatal_handler = handler;
}

void pgr_fatal(const pgr_error *error) {
    if (fatal_handler != NULL)
        fatal_handler(error, fatal_context);
}

double pgr_clock_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
