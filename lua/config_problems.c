/* config_problems.c - problems of a config: collecting, placing, sorting and telling them. */
#include "config_reader.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBLEMS_MAX 200 /* listed of one config */

bool pgr_problem_fits(pgr_reader *reader) {
    bool fits = reader->problem_count < PROBLEMS_MAX;
    reader->problems_left_out += !fits;
    return fits;
}

void pgr_problem_add(pgr_reader *reader, const char *code, const char *path, const char *format,
                     ...) {
    if (!pgr_problem_fits(reader))
        return;
    if (reader->problem_count == reader->problem_room) {
        size_t room = reader->problem_room ? 2 * reader->problem_room : 8;
        void *grown = realloc(reader->problems, room * sizeof *reader->problems);
        if (!grown) {
            reader->out_of_memory = true;
            return;
        }
        reader->problems = grown;
        reader->problem_room = room;
    }
    pgr_problem *problem = &reader->problems[reader->problem_count++];
    snprintf(problem->path, sizeof problem->path, "%s", path);
    problem->code = code;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problem->text, sizeof problem->text, format, arguments);
    va_end(arguments);
}

void pgr_text_clean(char *out, size_t bytes, const char *text, size_t length) {
    size_t n = length < bytes - 1 ? length : bytes - 1;
    while (n < length && n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80)
        n--; /* not inside a character */
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    out[n] = '\0';
}

/* ---- the nearest name ---- */

pgr_nearest pgr_nearest_start(const char *word) {
    size_t length = strlen(word);
    return (pgr_nearest){word, NULL, (int)(length < 30 ? (length + 2) / 3 : 10) + 1};
}

void pgr_nearest_offer(pgr_nearest *nearest, const char *candidate) {
    int edits = pgr_name_edits(nearest->word, candidate);
    if (edits < nearest->edits) {
        nearest->edits = edits;
        nearest->best = candidate;
    }
}

/* ---- telling ---- */

static bool is_at_key(const pgr_problem *problem) {
    return strcmp(problem->code, "PG004") == 0;
}

typedef struct placed {
    const pgr_problem *problem;
    int set; /* index of the --set that it comes from, or -1 */
    int64_t line, column;
    size_t order;
} placed;

/* The last --set whose value covers `path`, or -1. */
static int covering_set(const pgr_reader *reader, const char *path) {
    for (int i = reader->set_count - 1; i >= 0; i--) {
        size_t length = strcspn(reader->sets[i], "=");
        if (strncmp(reader->sets[i], path, length) == 0 &&
            (path[length] == '\0' || path[length] == '[' || path[length] == '.'))
            return i;
    }
    return -1;
}

static int compare_placed(const void *left, const void *right) {
    const placed *a = left, *b = right;
    if (a->set != b->set)
        return a->set < b->set ? -1 : 1;
    if (a->line != b->line) /* what has no place comes last */
        return a->line == 0 ? 1 : b->line == 0 ? -1 : a->line < b->line ? -1 : 1;
    if (a->column != b->column)
        return a->column < b->column ? -1 : 1;
    int order = strcmp(a->problem->path, b->problem->path);
    return order ? order : (a->order > b->order) - (a->order < b->order);
}

static void place(const pgr_reader *reader, pgr_positions *positions, placed *all) {
    for (size_t i = 0; i < reader->problem_count; i++) {
        const pgr_problem *problem = &reader->problems[i];
        pgr_position at = pgr_positions_find(positions, reader->held, problem->path);
        bool at_key = is_at_key(problem);
        all[i] = (placed){problem, covering_set(reader, problem->path),
                          at_key ? at.key_line : at.line, at_key ? at.key_column : at.column, i};
    }
    qsort(all, reader->problem_count, sizeof *all, compare_placed);
}

/* Writes one line into `line`. */
static void tell(const pgr_reader *reader, const placed *at, char *line, size_t bytes) {
    const pgr_problem *problem = at->problem;
    if (at->set >= 0)
        snprintf(line, bytes, "--set %s: %s", reader->sets[at->set], problem->text);
    else if (at->line)
        snprintf(line, bytes, "%s:%lld:%lld: %s: %s", reader->name, (long long)at->line,
                 (long long)at->column, problem->path, problem->text);
    else
        snprintf(line, bytes, "%s: %s: %s", reader->name, problem->path, problem->text);
}

/* Tells all problems in one message, as far as there is room. */
static pgr_status tell_all(const pgr_reader *reader, const placed *all, pgr_error *error) {
    char message[sizeof error->message] = "", line[4096];
    const size_t room = sizeof message - 80; /* for the line that counts the rest */
    size_t used = 0, told = 0;
    for (; told < reader->problem_count; told++) {
        tell(reader, &all[told], line, sizeof line);
        size_t length = strlen(line);
        if (used + length + 2 > room)
            break;
        used +=
            (size_t)snprintf(message + used, sizeof message - used, "%s%s", used ? "\n" : "", line);
    }
    size_t rest = reader->problem_count - told + reader->problems_left_out;
    if (rest > 0)
        snprintf(message + used, sizeof message - used, "\n... and %zu more problems", rest);
    return pgr_error_set(error, PGR_INVALID, "%s", message);
}

/* The last place where `text` has `part`, or NULL. */
static const char *last_of(const char *text, const char *part) {
    const char *last = NULL;
    for (const char *at = strstr(text, part); at; at = strstr(at + 1, part))
        last = at;
    return last;
}

/* The way out of a problem, with the "; " before it, or the end of its text. It is the last place
 * that looks so, for a value that is quoted before it may look so too. */
static const char *way_out(const char *text) {
    static const char *const ways[] = {"; allowed: ", "; give it, or a multiple here",
                                       "; a config may compute", "; a config has base"};
    const char *last = NULL;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const char *at = last_of(text, ways[i]);
        if (at && (!last || at > last))
            last = at;
    }
    return last ? last : text + strlen(text);
}

/* Writes the way out as a finding tells it: the hint first, for the list of what is allowed may be
 * long and cut. */
static void write_help(const char *way, char *help, size_t bytes) {
    static const char *const hints[] = {"; did you mean ", "; edp is derived", "; f16 is not one"};
    const char *hint = NULL;
    if (*way)
        way += 2;
    for (size_t i = 0; i < sizeof hints / sizeof *hints && !hint; i++)
        hint = strstr(way, hints[i]);
    if (hint)
        snprintf(help, bytes, "%s%s%.*s", hint + 2, hint[strlen(hint) - 1] == '?' ? " " : "; ",
                 (int)(hint - way), way);
    else
        snprintf(help, bytes, "%s", way);
}

/* Adds one problem to the findings. Its path may hold blanks, so it is put in by itself. */
static void find(pgr_reader *reader, const placed *at) {
    char line[4096], message[sizeof(((pgr_diagnostic *)NULL)->message)], help[512], clean[384];
    const pgr_problem *problem = at->problem;
    const char *way = way_out(problem->text);
    int length = (int)(way - problem->text);
    write_help(way, help, sizeof help);
    if (at->set >= 0)
        snprintf(line, sizeof line, "--set %.400s: %.*s", reader->sets[at->set], length,
                 problem->text);
    else
        snprintf(line, sizeof line, "%s: %.*s", problem->path, length, problem->text);
    pgr_text_clean(message, sizeof message, line, strlen(line));
    pgr_text_clean(clean, sizeof clean, help, strlen(help));
    pgr_diagnostic *finding = pgr_diagnose(reader->found, problem->code, "", clean, "%s", message);
    if (!finding)
        return;
    finding->at_key = is_at_key(problem);
    finding->path_count = 1;
    snprintf(finding->paths[0], PGR_PATH_MAX, "%s", problem->path);
}

pgr_status pgr_problems_report(pgr_reader *reader, pgr_error *error) {
    if (reader->problem_count == 0)
        return PGR_OK;
    pgr_positions *positions = NULL;
    pgr_status status = pgr_positions_create(reader->text, reader->bytes, &positions, error);
    if (status != PGR_OK) {
        pgr_error_prefix(error, "%s: ", reader->name);
        return status;
    }
    placed all[PROBLEMS_MAX];
    place(reader, positions, all);
    pgr_positions_free(positions);
    if (!reader->found)
        return tell_all(reader, all, error);
    for (size_t i = 0; i < reader->problem_count; i++)
        find(reader, &all[i]);
    if (reader->problems_left_out > 0)
        pgr_diagnose(reader->found, "PG003", "", "mend these first, then check again",
                     "%zu more problems are not listed", reader->problems_left_out);
    return PGR_INVALID;
}
