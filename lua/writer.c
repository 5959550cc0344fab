/* writer.c - buffered output and the digits of numbers. */
#include "writer.h"

#include <errno.h>
#include <stdarg.h>

void pgr_writer_flush(pgr_writer *w) {
    if (w->failed == 0 && fwrite(w->buffer, 1, w->used, w->out) != w->used)
        w->failed = errno != 0 ? errno : EIO;
    w->used = 0;
}

static void put_bytes(pgr_writer *w, const char *bytes, size_t count) {
    while (count > 0) {
        size_t part = count < PGR_WRITER_BYTES ? count : PGR_WRITER_BYTES;
        memcpy(pgr_writer_room(w, part), bytes, part);
        w->used += part;
        bytes += part;
        count -= part;
    }
}

void pgr_writer_text(pgr_writer *w, const char *text) {
    put_bytes(w, text, strlen(text));
}

void pgr_writer_format(pgr_writer *w, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    pgr_writer_text(w, text);
}

void pgr_writer_column(pgr_writer *w, const char *text, size_t width) {
    pgr_writer_text(w, text);
    for (size_t length = strlen(text); length < width; length++)
        pgr_writer_char(w, ' ');
}

void pgr_writer_line_end(pgr_writer *w) {
    while (w->used > 0 && w->buffer[w->used - 1] == ' ')
        w->used--;
    pgr_writer_char(w, '\n');
}

void pgr_writer_xml(pgr_writer *w, const char *text) {
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '&':
            pgr_writer_text(w, "&amp;");
            break;
        case '<':
            pgr_writer_text(w, "&lt;");
            break;
        case '>':
            pgr_writer_text(w, "&gt;");
            break;
        case '"':
            pgr_writer_text(w, "&quot;");
            break;
        default:
            pgr_writer_char(w, *text);
        }
    }
}

static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                            "25262728293031323334353637383940414243444546474849"
                            "50515253545556575859606162636465666768697071727374"
                            "75767778798081828384858687888990919293949596979899";

/* One to four digits, without leading zeros. */
static char *put_small(char *at, uint32_t value) {
    if (value >= 100) {
        uint32_t high = value / 100;
        if (high >= 10)
            *at++ = pairs[2 * high];
        *at++ = pairs[2 * high + 1];
        memcpy(at, &pairs[2 * (value % 100)], 2);
        return at + 2;
    }
    if (value >= 10)
        *at++ = pairs[2 * value];
    *at++ = pairs[2 * value + 1];
    return at;
}

/* Four digits. */
static char *put_four(char *at, uint32_t value) {
    memcpy(at, &pairs[2 * (value / 100)], 2);
    memcpy(at + 2, &pairs[2 * (value % 100)], 2);
    return at + 4;
}

char *pgr_digits_put(char *at, uint64_t value) {
    if (value < 10000)
        return put_small(at, (uint32_t)value);
    if (value < 100000000) {
        uint32_t small = (uint32_t)value;
        return put_four(put_small(at, small / 10000), small % 10000);
    }
    uint32_t low = (uint32_t)(value % 100000000);
    at = pgr_digits_put(at, value / 100000000);
    return put_four(put_four(at, low / 10000), low % 10000);
}

void pgr_writer_number_column(pgr_writer *w, int64_t value, size_t width) {
    char digits[PGR_DIGITS_BYTES] = "-";
    char *end = value < 0 ? digits + 1 : pgr_digits_put(digits, (uint64_t)value);
    size_t length = (size_t)(end - digits);
    for (size_t i = length; i < width; i++)
        pgr_writer_char(w, ' ');
    put_bytes(w, digits, length);
}
