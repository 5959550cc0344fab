/* command.h - the command line's parts. Only this folder's main.c exits. */
#ifndef PGR_COMMAND_H
#define PGR_COMMAND_H

#include "comm.h"
#include "config.h"

#include <stdio.h>

#define PGR_VALUES_MAX 64
#define PGR_FILES_MAX 8192

typedef enum pgr_command {
    PGR_COMMAND_RUN,
    PGR_COMMAND_GROUPS,
    PGR_COMMAND_CHECK,
    PGR_COMMAND_EXPLAIN,
    PGR_COMMAND_VERSION,
    PGR_COMMAND_HELP
} pgr_command;

/* The parsed command line. Strings belong to argv. */
typedef struct pgr_options {
    pgr_command command;
    const char *files[PGR_FILES_MAX]; /* CONFIG..., or the topic of help and explain */
    int file_count;
    pgr_config_set sets[PGR_VALUES_MAX];
    int set_count;
    int64_t world_sizes[PGR_VALUES_MAX];
    int world_size_count;
    const char *group;  /* --group, or NULL */
    int64_t rank;       /* --rank, or PGR_NIL */
    const char *format; /* --format, or NULL */
    const char *report; /* --report DIR, or NULL */
    bool summary, strict;
} pgr_options;

/* One option of the command line. The table is the only place that lists options; it drives parsing
 * and help. */
typedef struct pgr_option {
    const char *name;     /* "--set" */
    const char *argument; /* "KEY=VALUE"; NULL for a switch */
    unsigned commands;    /* bit (1u << pgr_command) of each command that takes it */
    const char *help;     /* one line */
} pgr_option;

extern const pgr_option pgr_option_table[];
extern const int pgr_option_count;

/* The word that starts a command ("groups"); "" for the run, which starts with a config. */
const char *pgr_command_name(pgr_command command);

/* Reads the command line. For help, `files` holds the topic, if any ("config", "groups"). PGR_USAGE
 * with one clear message (the nearest option's name included). The command is set even then, so
 * that a run under mpirun can open MPI before it says so. */
pgr_status pgr_options_parse(int argc, char **argv, pgr_options *options, pgr_error *error);

/* `pgrun --help`, `--help config`, `COMMAND --help`, and the editor definitions (`--help luacats`).
 */
pgr_status pgr_command_help(const pgr_options *options, FILE *out, pgr_error *error);

/* `pgrun groups`. Writes nothing to `out` unless the layout is legal. Opens no module. */
pgr_status pgr_command_groups(const pgr_options *options, FILE *out, pgr_error *error);

/* `pgrun check`: evaluates every file at every --world-size, each in a child process of its own,
 * and prints the findings in the format of --format. Folders stand for the *.lua files below them.
 * Opens no module. PGR_INVALID with an empty message where any finding is an error: it is told
 * already. */
pgr_status pgr_command_check(const pgr_options *options, FILE *out, pgr_error *error);

/* `pgrun explain CODE`. PGR_USAGE with the nearest codes for one that does not exist. */
pgr_status pgr_command_explain(const pgr_options *options, FILE *out, pgr_error *error);

/* `pgrun CONFIG`. Opens the job first; `usage` is the status of pgr_options_parse and `error` its
 * message, so that a wrong command line under mpirun ends cleanly and is told once. Prints the
 * report and, from one rank, the error; returns the exit status of this process. */
int pgr_command_run(const pgr_options *options, pgr_status usage, pgr_error *error);

#endif
