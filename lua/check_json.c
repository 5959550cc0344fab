/* check_json.c - findings as JSON, format_version 1; the same writer serves SARIF and explain. */
#include "check_report.h"

#include <inttypes.h>
#include <string.h>

void pgr_json_string(const char *text, FILE *out) {
    size_t left = strlen(text);
    fputc('"', out);
    while (left > 0) {
        int length = pgr_utf8_length(text, left);
        unsigned char c = (unsigned char)text[0];
        if (length == 0)
            fputs("\\ufffd", out);
        else if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c == '\n')
            fputs("\\n", out);
        else if (c < 0x20 || c == 0x7f)
            fprintf(out, "\\u%04x", c);
        else
            fwrite(text, 1, (size_t)length, out);
        length += length == 0;
        text += length;
        left -= (size_t)length;
    }
    fputc('"', out);
}

static void print_text(const char *key, const char *text, FILE *out) {
    fprintf(out, "\"%s\": ", key);
    pgr_json_string(text, out);
}

/* A number or null, where there is none. */
static void print_number(const char *key, int64_t value, bool known, FILE *out) {
    if (known)
        fprintf(out, "\"%s\": %" PRId64, key, value);
    else
        fprintf(out, "\"%s\": null", key);
}

/* An integer as JSON writes it: no leading zero, few enough digits for every reader. */
static bool is_integer(const char *text) {
    size_t digits = strspn(text + (text[0] == '-'), "0123456789");
    const char *first = text + (text[0] == '-');
    return digits > 0 && digits < 16 && first[digits] == '\0' && (digits == 1 || first[0] != '0');
}

void pgr_json_sets(const pgr_check_choice *choice, FILE *out) {
    const char *joint = "";
    fputs("\"set\": {", out);
    for (int i = 0; i < choice->set_count; i++) {
        char key[256];
        size_t length = strcspn(choice->sets[i], "=");
        snprintf(key, sizeof key, "%.*s", (int)length, choice->sets[i]);
        const char *value = choice->sets[i] + length + 1;
        bool plain = is_integer(value) || strcmp(value, "true") == 0 || strcmp(value, "false") == 0;
        fputs(joint, out);
        pgr_json_string(key, out);
        fputs(": ", out);
        if (plain)
            fputs(value, out);
        else
            pgr_json_string(value, out);
        joint = ", ";
    }
    fputs("}", out);
}

static void print_finding(const pgr_check_finding *finding, FILE *out) {
    fputs("      {", out);
    print_text("code", finding->rule->code, out);
    fputs(", ", out);
    print_text("severity", pgr_severity_name(finding->severity), out);
    fputs(", ", out);
    print_text("message", finding->message, out);
    fputs(", ", out);
    print_text("help", finding->help, out);
    fputs(",\n       \"locations\": [", out);
    for (int32_t i = 0; i < finding->location_count; i++) {
        const pgr_check_location *at = &finding->locations[i];
        fputs(i ? ", {" : "{", out);
        print_text("path", at->path, out);
        fputs(", ", out);
        print_number("line", at->line, at->line > 0, out);
        fputs(", ", out);
        print_number("column", at->column, at->line > 0, out);
        if (at->line > 0 && at->path[0] && !at->written)
            fputs(", \"written\": false", out);
        fputs("}", out);
    }
    fputs("]}", out);
}

static void print_entry(const pgr_check_entry *entry, FILE *out) {
    fputs("    {", out);
    print_text("file", entry->file, out);
    fputs(", ", out);
    print_number("world_size", entry->world_size, entry->world_size != PGR_NIL, out);
    fputs(", ", out);
    pgr_json_sets(entry->choice, out);
    fprintf(out, ", \"valid\": %s, \"diagnostics\": [",
            pgr_check_count(entry, PGR_ERROR) == 0 ? "true" : "false");
    for (int64_t i = 0; i < entry->count; i++) {
        fputs(i ? ",\n" : "\n", out);
        print_finding(&entry->findings[i], out);
    }
    fputs(entry->count ? "\n    ]}" : "]}", out);
}

void pgr_check_json(const pgr_check_report *report, FILE *out) {
    fputs("{\"format_version\": 1,\n  \"files\": [", out);
    for (int64_t i = 0; i < report->entry_count; i++) {
        fputs(i ? ",\n" : "\n", out);
        print_entry(&report->entries[i], out);
    }
    fprintf(out,
            "\n  ],\n  \"summary\": {\"files\": %" PRId64 ", \"errors\": %" PRId64
            ", \"warnings\": %" PRId64 ", \"notes\": %" PRId64 "}}\n",
            report->entry_count, report->totals[PGR_ERROR], report->totals[PGR_WARNING],
            report->totals[PGR_NOTE]);
}
