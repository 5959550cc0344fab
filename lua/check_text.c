/* check_text.c - findings for a person: each with the lines of the file and carets under the keys.
 */
#include "check_report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Colours, or empty strings. */
typedef struct colours {
    const char *severity[PGR_ERROR + 1];
    const char *bold, *line, *off;
} colours;

static const colours *choose_paint(FILE *out) {
    static const colours plain = {{"", "", ""}, "", "", ""};
    static const colours coloured = {
        {"\033[1;36m", "\033[1;33m", "\033[1;31m"}, "\033[1m", "\033[1;34m", "\033[0m"};
    const char *no_color = getenv("NO_COLOR");
    bool wanted = isatty(fileno(out)) && !(no_color && no_color[0]);
    return wanted ? &coloured : &plain;
}

static int compare_locations(const void *a, const void *b) {
    const pgr_check_location *x = a, *y = b;
    if (x->line != y->line)
        return x->line < y->line ? -1 : 1;
    return (x->caret > y->caret) - (x->caret < y->caret);
}

static int digits_of(int64_t line) {
    int digits = 1;
    for (; line >= 10; line /= 10)
        digits++;
    return digits;
}

/* One line of the file with carets under each of the `count` places on it. */
static void print_line(const pgr_check_location *at, int32_t count, int width, const colours *paint,
                       const char *colour, FILE *out) {
    fprintf(out, "%s%*" PRId64 " |%s %s\n", paint->line, width, at[0].line, paint->off,
            at[0].source);
    fprintf(out, "%s%*s |%s %s", paint->line, width, "", paint->off, colour);
    int32_t column = 0;
    for (int32_t i = 0; i < count; i++) {
        if (at[i].caret < column)
            continue; /* the same place */
        for (; column < at[i].caret; column++)
            fputc(' ', out);
        for (; column < at[i].caret + at[i].caret_width; column++)
            fputc('^', out);
    }
    const char *joint = " ";
    for (int32_t i = 0; i < count; i++) {
        if (!at[i].path[0])
            continue;
        fprintf(out, "%s%s%s", joint, at[i].path, at[i].written ? "" : " (not written out)");
        joint = ", ";
    }
    fprintf(out, "%s\n", paint->off);
}

static void print_excerpt(const pgr_check_finding *finding, int width, const colours *paint,
                          FILE *out) {
    pgr_check_location sorted[PGR_DIAGNOSTIC_PATHS];
    int32_t count = 0;
    const pgr_check_location *first = pgr_check_place(finding);
    for (int32_t i = 0; i < finding->location_count; i++) {
        const pgr_check_location *at = &finding->locations[i];
        /* What is left out is shown where it would be, but not beside what is there. */
        if (at->line > 0 && (at->written == first->written || at->computed))
            sorted[count++] = *at;
    }
    qsort(sorted, (size_t)count, sizeof sorted[0], compare_locations);
    if (count > 0)
        fprintf(out, "%s%*s |%s\n", paint->line, width, "", paint->off);
    for (int32_t i = 0, next; i < count; i = next) {
        for (next = i + 1; next < count && sorted[next].line == sorted[i].line &&
                           strcmp(sorted[next].source, sorted[i].source) == 0;
             next++)
            ;
        if (i > 0 && sorted[i].line > sorted[i - 1].line + 1)
            fprintf(out, "%s%*s ...%s\n", paint->line, width, "", paint->off);
        print_line(sorted + i, next - i, width, paint, paint->severity[finding->severity], out);
    }
}

static void print_head(const pgr_check_finding *finding, const colours *paint, FILE *out) {
    fprintf(out, "%s%s[%s]%s%s: %s%s\n", paint->severity[finding->severity],
            pgr_severity_name(finding->severity), finding->rule->code, paint->off, paint->bold,
            finding->message, paint->off);
}

/* Why a key has no place. */
static const char *absence(const pgr_check_location *at) {
    return at->set == PGR_SET_BY_SET          ? "is given by --set"
           : at->set == PGR_SET_BY_WORLD_SIZE ? "is given by --world-size"
                                              : "is not set by the file";
}

static void print_finding(const pgr_check_entry *entry, const pgr_check_finding *finding,
                          const colours *paint, FILE *out) {
    int width = 2;
    const pgr_check_location *first = pgr_check_place(finding);
    for (int32_t i = 0; i < finding->location_count; i++) {
        const pgr_check_location *at = &finding->locations[i];
        width = digits_of(at->line) > width ? digits_of(at->line) : width;
    }
    print_head(finding, paint, out);
    fprintf(out, "%s%*s-->%s ", paint->line, width, "", paint->off);
    pgr_check_put(entry->file, out);
    if (first)
        fprintf(out, ":%" PRId64 ":%" PRId64, first->line, first->column);
    fputs("\n", out);
    print_excerpt(finding, width, paint, out);
    for (int32_t i = 0; i < finding->location_count; i++)
        if (finding->locations[i].line == 0 && finding->locations[i].path[0])
            fprintf(out, "%s%*s =%s %s %s\n", paint->line, width, "", paint->off,
                    finding->locations[i].path, absence(&finding->locations[i]));
    if (finding->help[0])
        fprintf(out, "%s%*s =%s help: %s\n", paint->line, width, "", paint->off, finding->help);
    fputs("\n", out);
}

/* A note is one line: it tells, and asks for nothing. */
static void print_note(const pgr_check_finding *finding, const colours *paint, FILE *out) {
    print_head(finding, paint, out);
    if (finding->help[0])
        fprintf(out, "  %s\n", finding->help);
}

static void print_count(int64_t count, const char *what, FILE *out) {
    fprintf(out, "%" PRId64 " %s%s", count, what, count == 1 ? "" : "s");
}

static void print_entry(const pgr_check_entry *entry, const colours *paint, FILE *out) {
    int64_t errors = pgr_check_count(entry, PGR_ERROR);
    int64_t warnings = pgr_check_count(entry, PGR_WARNING);
    char about[PGR_ABOUT_BYTES];
    for (int64_t i = 0; i < entry->count; i++)
        if (entry->findings[i].severity != PGR_NOTE)
            print_finding(entry, &entry->findings[i], paint, out);
    for (int64_t i = 0; i < entry->count && errors == 0; i++)
        if (entry->findings[i].severity == PGR_NOTE)
            print_note(&entry->findings[i], paint, out);
    pgr_check_put(entry->file, out);
    pgr_check_about(entry, about, sizeof about);
    fprintf(out, "%s: ", about);
    if (errors == 0 && warnings == 0) {
        fputs("good\n", out);
        return;
    }
    print_count(errors, "error", out);
    fputs(", ", out);
    print_count(warnings, "warning", out);
    fputs("\n", out);
}

static void print_totals(const pgr_check_report *report, FILE *out) {
    fputs("\nin all ", out);
    print_count(report->entry_count, "layout", out);
    fputs(": ", out);
    print_count(report->totals[PGR_ERROR], "error", out);
    fputs(", ", out);
    print_count(report->totals[PGR_WARNING], "warning", out);
    fputs("\n", out);
}

/* The first finding that is no note: the worst of the first layout that has any; or NULL. */
static const pgr_check_finding *first_problem(const pgr_check_report *report) {
    for (int64_t i = 0; i < report->entry_count; i++) {
        const pgr_check_entry *entry = &report->entries[i];
        if (entry->count > 0 && entry->findings[0].severity != PGR_NOTE)
            return &entry->findings[0];
    }
    return NULL;
}

void pgr_check_text(const pgr_check_report *report, FILE *out) {
    const colours *paint = choose_paint(out);
    const pgr_check_finding *problem = first_problem(report);
    for (int64_t i = 0; i < report->entry_count; i++)
        print_entry(&report->entries[i], paint, out);
    if (report->entry_count > 1)
        print_totals(report, out);
    if (problem)
        fprintf(out, "`pgrun explain %s` tells more\n", problem->rule->code);
}
