/* check_report.h - what `pgrun check` found, between the part that finds and the parts that print.
 * Private to this folder. */
#ifndef PGR_CHECK_REPORT_H
#define PGR_CHECK_REPORT_H

#include "command.h"
#include "diagnostic.h"

#define PGR_SOURCE_BYTES 160

/* Where one contributing key stands, and the line of the file around it, ready to be shown. */
typedef struct pgr_check_location {
    char path[PGR_PATH_MAX]; /* "parallel.tp"; "" for a place that is no key */
    int64_t line, column;    /* from 1; column in bytes. Line 0: not written out in the file */
    int32_t written;         /* false: a place around it, or only near */
    int32_t computed;        /* not written out, but the line sets it */
    int32_t set;             /* not the file's value, so line is 0: a PGR_SET_BY_* */
    int64_t text_column;     /* the same column in code points */
    char source[PGR_SOURCE_BYTES]; /* printable UTF-8 without tabs; a long line's part around it */
    int32_t caret, caret_width;    /* code points: before the carets, and under the value */
} pgr_check_location;

/* What gives a value instead of the file. */
#define PGR_SET_BY_SET 1        /* --set */
#define PGR_SET_BY_WORLD_SIZE 2 /* --world-size */

typedef struct pgr_check_finding {
    const pgr_rule *rule;
    pgr_severity severity;                              /* --strict applied */
    char message[sizeof((pgr_diagnostic *)0)->message]; /* one line of UTF-8, as all texts here */
    char help[sizeof((pgr_diagnostic *)0)->help];       /* "" where there is none */
    int32_t location_count;
    pgr_check_location locations[PGR_DIAGNOSTIC_PATHS]; /* the first is where it is told */
} pgr_check_finding;

/* One combination of the values that --set gives. */
typedef struct pgr_check_choice {
    pgr_config_set sets[PGR_VALUES_MAX]; /* one for each key */
    int set_count;
    char label[256]; /* those of keys that have several values; "" where none has */
} pgr_check_choice;

/* All of them, at least one. Freed with pgr_check_matrix_free. */
typedef struct pgr_check_matrix {
    pgr_check_choice *choices;
    int64_t count;
    char **texts; /* owned, with each text; the sets point there */
    int64_t text_count;
} pgr_check_matrix;

/* One file with one choice at one world size. Findings are sorted, worst first. */
typedef struct pgr_check_entry {
    const char *file;
    const pgr_check_choice *choice;
    int64_t world_size; /* PGR_NIL where there is none */
    pgr_check_finding *findings;
    int64_t count;
} pgr_check_entry;

typedef struct pgr_check_report {
    const pgr_options *options;
    pgr_check_matrix matrix;
    char **files; /* owned, with each name */
    int64_t file_count, file_room;
    pgr_check_entry *entries;
    int64_t entry_count, entry_room;
    int64_t totals[PGR_ERROR + 1]; /* findings by severity */
} pgr_check_report;

/* The combinations of all --set: "parallel.tp=2,4" gives two values. PGR_USAGE for a value that is
 * missing and for too many combinations. */
pgr_status pgr_check_matrix_create(const pgr_options *options, pgr_check_matrix *out,
                                   pgr_error *error);
void pgr_check_matrix_free(pgr_check_matrix *matrix);

/* Whether a name ends as a config's does: "*.lua". */
bool pgr_check_is_lua(const char *name);

/* Whether every link in a path of the command line, which a shell's pattern may have filled in,
 * leads to what lies beside it or below the current folder. PGR_INVALID with the reason for one
 * that does not, or that nobody can tell of; PGR_LIMIT where memory is short. */
pgr_status pgr_check_named_path(const char *path, pgr_error *error);

/* The same for a file that is to be read: one below a named folder may be a link to a *.lua file of
 * a named folder; one that is itself named, see above. */
pgr_status pgr_check_link(const char *file, const pgr_options *options, pgr_error *error);

/* Adds a finding to an entry; NULL where memory is short, or where no rule has the code. */
pgr_check_finding *pgr_check_add(pgr_check_entry *entry, const char *code, const char *message,
                                 const char *help);

/* The findings of one severity in one entry. */
int64_t pgr_check_count(const pgr_check_entry *entry, pgr_severity severity);

/* Where a finding is shown: the first key that is written out, else the first place that is known,
 * else NULL. */
const pgr_check_location *pgr_check_place(const pgr_check_finding *finding);

/* The message without "FILE: " in front, for a finding, which names its file by itself. */
const char *pgr_check_reason(const char *message, const char *file);

/* Evaluates a config in a child process with limits on its processor time and memory, with the
 * entry's choice and at its world size, and adds what it found to `entry`. A child that dies, runs
 * over or has no memory gives PG003. PGR_USAGE for a wrong --set, PGR_LIMIT where this process has
 * no memory for what the child found, and an error of the system where no child can be started. */
pgr_status pgr_check_in_child(const char *text, size_t bytes, pgr_check_entry *entry,
                              pgr_error *error);

/* Fills the shown part of a location, whose path, line and column are set. */
void pgr_check_source(pgr_check_location *location, const char *text, size_t bytes);

/* " at world size 8 with parallel.tp=2": what tells the entries of a file apart; "" for nothing. */
void pgr_check_about(const pgr_check_entry *entry, char *text, size_t bytes);
#define PGR_ABOUT_BYTES 320

/* Makes a text printable and valid UTF-8 in one line, in place. */
void pgr_check_clean(char *text);

/* Writes a text as pgr_check_clean would make it. */
void pgr_check_put(const char *text, FILE *out);

/* The formats. Each writes the whole report. */
void pgr_check_text(const pgr_check_report *report, FILE *out);
void pgr_check_json(const pgr_check_report *report, FILE *out);
void pgr_check_github(const pgr_check_report *report, FILE *out);
void pgr_check_sarif(const pgr_check_report *report, FILE *out);
void pgr_check_junit(const pgr_check_report *report, FILE *out);

/* A JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void pgr_json_string(const char *text, FILE *out);

/* "set": {...}: the choice's keys with their values as they were written. */
void pgr_json_sets(const pgr_check_choice *choice, FILE *out);

/* One of a few bytes of UTF-8 at `text`: how many, or 0 where it is not valid. */
int pgr_utf8_length(const char *text, size_t bytes);

#endif
