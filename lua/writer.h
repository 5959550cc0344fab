/* writer.h - buffered output that remembers its first failure: text, and numbers without printf,
 * since a million ranks are a hundred megabytes of digits. */
#ifndef PGR_WRITER_H
#define PGR_WRITER_H

#include "status.h"

#include <stdio.h>
#include <string.h>

enum {
    PGR_WRITER_BYTES = 64 * 1024,
    PGR_DIGITS_BYTES = 24 /* the longest 64-bit number, a separator and some room */
};

/* Owned by the caller, who sets `out` and zeroes `failed` and `used`; no need to free anything. */
typedef struct pgr_writer {
    FILE *out;
    int failed; /* errno of the first write that failed, 0 while all is well */
    size_t used;
    char buffer[PGR_WRITER_BYTES];
} pgr_writer;

/* Writes out what is buffered. */
void pgr_writer_flush(pgr_writer *w);

/* Where the next `bytes` <= PGR_WRITER_BYTES can be put; the caller then moves `used` on. */
static inline char *pgr_writer_room(pgr_writer *w, size_t bytes) {
    if (PGR_WRITER_BYTES - w->used < bytes)
        pgr_writer_flush(w);
    return w->buffer + w->used;
}

static inline void pgr_writer_char(pgr_writer *w, char c) {
    *pgr_writer_room(w, 1) = c;
    w->used++;
}

void pgr_writer_text(pgr_writer *w, const char *text);

/* As printf; at most 1023 bytes of it. */
void pgr_writer_format(pgr_writer *w, const char *format, ...) PGR_PRINTF(2, 3);

/* Text, filled up with spaces to `width` bytes. */
void pgr_writer_column(pgr_writer *w, const char *text, size_t width);

/* Ends a line without the spaces at its end, as far as they are still in the buffer. */
void pgr_writer_line_end(pgr_writer *w);

/* Text with what XML reserves escaped. */
void pgr_writer_xml(pgr_writer *w, const char *text);

/* Puts the digits of a number at `at`, where there is room for PGR_DIGITS_BYTES; returns their end.
 */
char *pgr_digits_put(char *at, uint64_t value);

/* How many digits a number has; 1 for one below 0, which is written as "-". */
static inline size_t pgr_digits_count(int64_t value) {
    char digits[PGR_DIGITS_BYTES];
    return value < 0 ? 1 : (size_t)(pgr_digits_put(digits, (uint64_t)value) - digits);
}

/* A number >= 0. */
static inline void pgr_writer_number(pgr_writer *w, int64_t value) {
    char *at = pgr_writer_room(w, PGR_DIGITS_BYTES);
    w->used += (size_t)(pgr_digits_put(at, (uint64_t)value) - at);
}

/* The number right-aligned in `width`; "-" for one below 0. */
void pgr_writer_number_column(pgr_writer *w, int64_t value, size_t width);

#endif
