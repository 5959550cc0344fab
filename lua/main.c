/* main.c - the command line's entry: one command, one exit status, one message. */
#include "command.h"
#include "pgrun.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int print_error(const pgr_error *error) {
    if (error->message[0]) /* empty: the command has told it */
        fprintf(stderr, "pgrun: error: %s\n", error->message);
    return pgr_exit_code(error->status);
}

static pgr_status run_command(const pgr_options *options, pgr_error *error) {
    switch (options->command) {
    case PGR_COMMAND_VERSION:
        fputs("pgrun " PGRUN_VERSION "\n", stdout);
        return PGR_OK;
    case PGR_COMMAND_HELP:
        return pgr_command_help(options, stdout, error);
    case PGR_COMMAND_GROUPS:
        return pgr_command_groups(options, stdout, error);
    case PGR_COMMAND_CHECK:
        return pgr_command_check(options, stdout, error);
    case PGR_COMMAND_EXPLAIN:
        return pgr_command_explain(options, stdout, error);
    default: /* the run, which does not come here */
        return pgr_error_set(error, PGR_INTERNAL, "no such command");
    }
}

/* What was printed has arrived: a full disk or a reader that is gone is an error, not silence. */
static pgr_status flush_output(pgr_error *error) {
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return PGR_OK;
    return pgr_error_set(error, PGR_SYSTEM, "cannot write to standard output: %s",
                         errno ? strerror(errno) : "an earlier write failed");
}

int main(int argc, char **argv) {
    static pgr_options options;
    static pgr_error error;
    int code = 0;

    /* A closed pipe is then a failed write, which is told and gives exit status 3. */
    signal(SIGPIPE, SIG_IGN);

    pgr_status status = pgr_options_parse(argc, argv, &options, &error);
    if (options.command == PGR_COMMAND_RUN) {
        /* Also for a wrong command line: under a launcher MPI is opened before any way out. */
        code = pgr_command_run(&options, status, &error);
    } else {
        if (status == PGR_OK)
            status = run_command(&options, &error);
        if (status != PGR_OK)
            code = print_error(&error);
    }
    status = flush_output(&error);
    if (status != PGR_OK && code != pgr_exit_code(PGR_SYSTEM)) /* not told by the command */
        code = print_error(&error); /* also in place of a 1, whose reason is lost */
    exit(code);
}
