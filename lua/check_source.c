/* check_source.c - the line of the file around a place, made safe to show: the file is a
 * stranger's, and a terminal or a log obeys control characters. */
#include "check_report.h"
#include "lexer.h"

#include <ctype.h>
#include <string.h>

#define BEFORE 90 /* code points shown before the place in a line that is too long */

int pgr_utf8_length(const char *text, size_t bytes) {
    const unsigned char *at = (const unsigned char *)text;
    if (bytes == 0)
        return 0;
    int length = at[0] < 0x80 ? 1 : at[0] < 0xC2 ? 0 : at[0] < 0xE0 ? 2 : at[0] < 0xF0 ? 3 : 4;
    if (at[0] > 0xF4 || (size_t)length > bytes)
        return 0;
    for (int i = 1; i < length; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    bool overlong = (at[0] == 0xE0 && at[1] < 0xA0) || (at[0] == 0xF0 && at[1] < 0x90);
    bool outside = (at[0] == 0xED && at[1] > 0x9F) || (at[0] == 0xF4 && at[1] > 0x8F);
    return overlong || outside ? 0 : length;
}

/* A control character of ASCII, of its second set (C1), or one that turns the direction of text. */
static bool is_unsafe(const char *text, int length) {
    const unsigned char *at = (const unsigned char *)text;
    if (length == 1)
        return at[0] < 0x20 || at[0] == 0x7F;
    if (length == 2)
        return (at[0] == 0xC2 && at[1] < 0xA0) || (at[0] == 0xD8 && at[1] == 0x9C);
    return length == 3 && ((at[0] == 0xE2 && at[1] == 0x80 &&
                            ((at[2] >= 0xA8 && at[2] <= 0xAE) || at[2] == 0x8E || at[2] == 0x8F)) ||
                           (at[0] == 0xE2 && at[1] == 0x81 && at[2] >= 0xA6 && at[2] <= 0xA9) ||
                           (at[0] == 0xEF && at[1] == 0xBB && at[2] == 0xBF));
}

/* Copies one character, safe, from `text`; returns how many bytes of it were read. */
static int copy_character(char *out, int *written, const char *text, size_t bytes) {
    int length = pgr_utf8_length(text, bytes);
    if (length == 0 || is_unsafe(text, length)) {
        out[0] = length == 1 && text[0] == '\t' ? ' ' : '?';
        *written = 1;
        return length > 0 ? length : 1;
    }
    memcpy(out, text, (size_t)length);
    *written = length;
    return length;
}

void pgr_check_clean(char *text) {
    size_t left = strlen(text);
    char *out = text;
    while (left > 0) {
        char copy[4];
        int written, read = copy_character(copy, &written, text, left);
        memcpy(out, copy, (size_t)written); /* never more than was read */
        out += written;
        text += read;
        left -= (size_t)read;
    }
    *out = '\0';
}

void pgr_check_put(const char *text, FILE *out) {
    size_t left = strlen(text);
    while (left > 0) {
        char copy[4];
        int written, read = copy_character(copy, &written, text, left);
        fwrite(copy, 1, (size_t)written, out);
        text += read;
        left -= (size_t)read;
    }
}

/* How many bytes the value at `text` has: a word or number, a string, or one character. */
static size_t value_bytes(const char *text, size_t bytes) {
    size_t length = 0;
    if (bytes > 0 && (text[0] == '"' || text[0] == '\'')) {
        for (length = 1; length < bytes && text[length] != text[0]; length++)
            length += text[length] == '\\' && length + 1 < bytes;
        return length < bytes ? length + 1 : bytes;
    }
    length = bytes > 0 && text[0] == '-';
    while (length < bytes &&
           (isalnum((unsigned char)text[length]) || text[length] == '_' || text[length] == '.'))
        length++;
    return length > 0 ? length : 1;
}

static int32_t count_characters(const char *text, size_t bytes) {
    int32_t count = 0;
    while (bytes > 0) {
        int length = pgr_utf8_length(text, bytes);
        length = length > 0 ? length : 1;
        text += length;
        bytes -= (size_t)length;
        count++;
    }
    return count;
}

/* The line's first byte and length; false where the text has no such line. */
static bool find_line(const char *text, size_t bytes, int64_t line, const char **at,
                      size_t *length) {
    const char *end = text + bytes;
    for (int64_t i = 1; i < line && text; i++)
        text = pgr_line_next(text, end);
    if (!text)
        return false;
    *at = text;
    *length = (size_t)(pgr_line_end(text, end) - text);
    return true;
}

void pgr_check_source(pgr_check_location *location, const char *text, size_t bytes) {
    const char *line;
    size_t length;
    location->text_column = location->column;
    if (location->line == 0 || !find_line(text, bytes, location->line, &line, &length))
        return;
    size_t before = (size_t)location->column - 1;
    before = before < length ? before : length;
    size_t first = 0;
    if (before > BEFORE) {
        first = before - BEFORE;
        while (first < before && ((unsigned char)line[first] & 0xC0) == 0x80)
            first++;
    }
    location->text_column = 1 + count_characters(line, before);
    location->caret = count_characters(line + first, before - first);
    size_t value = value_bytes(line + before, length - before);
    size_t used = 0, at = first;
    while (at < length && used + 5 < sizeof location->source) {
        int written;
        at += (size_t)copy_character(location->source + used, &written, line + at, length - at);
        used += (size_t)written;
    }
    location->source[used] = '\0';
    value = before + value < at ? value : at > before ? at - before : 0;
    location->caret_width = count_characters(line + before, value);
    location->caret_width += location->caret_width == 0;
}

const pgr_check_location *pgr_check_place(const pgr_check_finding *finding) {
    const pgr_check_location *known = NULL;
    for (int32_t i = 0; i < finding->location_count; i++) {
        const pgr_check_location *at = &finding->locations[i];
        if (at->line > 0 && at->written)
            return at;
        if (at->line > 0 && !known)
            known = at;
    }
    return known;
}
