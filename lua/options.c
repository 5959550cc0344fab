/* options.c - from argv to pgr_options, by one table of options. */
#include "command.h"

#include <string.h>

#define BIT(command) (1u << PGR_COMMAND_##command)

const pgr_option pgr_option_table[] = {
    {"--set", "KEY=VALUE", BIT(RUN) | BIT(GROUPS) | BIT(CHECK),
     "override a value of the config, as in --set parallel.tp=4; may be repeated (check: one or "
     "more "
     "values, as in parallel.tp=2,4)"},
    {"--report", "DIR", BIT(RUN),
     "write the results to DIR/rows.jsonl, a line as soon as it is known"},
    {"--world-size", "N", BIT(GROUPS) | BIT(CHECK),
     "the number of ranks (check: one or more, as in 512,1024)"},
    {"--group", "FAMILY,...", BIT(GROUPS), "only these families, as in --group tp-pp,dp"},
    {"--rank", "R", BIT(GROUPS), "only the groups that rank R is in, and its coordinates"},
    {"--summary", NULL, BIT(GROUPS),
     "counts, sizes and strides of the groups and how many cross a node, without their members"},
    {"--strict", NULL, BIT(CHECK), "warnings are errors"},
    {"--format", "FORMAT", BIT(GROUPS) | BIT(CHECK) | BIT(EXPLAIN),
     "groups: text, json, csv (a line per member) or svg (a picture, a row per node); check: text, "
     "json, github, sarif or junit; explain: text or json"},
    {"--version", NULL, BIT(VERSION), "print the version"},
    {"--help", NULL, BIT(RUN) | BIT(GROUPS) | BIT(CHECK) | BIT(EXPLAIN) | BIT(HELP),
     "print help; --help config lists every key of the config"},
};
const int pgr_option_count = (int)(sizeof pgr_option_table / sizeof *pgr_option_table);

static const char *const command_names[] = {
    [PGR_COMMAND_RUN] = "",        [PGR_COMMAND_GROUPS] = "groups",
    [PGR_COMMAND_CHECK] = "check", [PGR_COMMAND_EXPLAIN] = "explain",
    [PGR_COMMAND_VERSION] = "",    [PGR_COMMAND_HELP] = "",
};

const char *pgr_command_name(pgr_command command) {
    return command_names[command];
}

/* What the user calls the command in a message. */
static const char *command_text(pgr_command command) {
    switch (command) {
    case PGR_COMMAND_GROUPS:
        return "pgrun groups";
    case PGR_COMMAND_CHECK:
        return "pgrun check";
    case PGR_COMMAND_EXPLAIN:
        return "pgrun explain";
    default:
        return "pgrun CONFIG";
    }
}

/* ---- nearest names ------------------------------------------------------------------------- */

/* Close enough to be what was meant: at most two edits, or a third of the name. */
static bool close_to(const char *word, const char *name, int *best) {
    int distance = pgr_name_edits(word, name);
    int allowed = (int)strlen(name) / 3;
    if (distance > (allowed < 2 ? allowed : 2) || distance >= *best)
        return false;
    *best = distance;
    return true;
}

static const pgr_option *nearest_option(const char *name) {
    const pgr_option *nearest = NULL;
    int best = 100;
    for (int i = 0; i < pgr_option_count; i++)
        if (close_to(name, pgr_option_table[i].name, &best))
            nearest = &pgr_option_table[i];
    if (nearest)
        return nearest;
    /* "--world" for "--world-size": the only one that begins like this */
    for (int i = 0; i < pgr_option_count; i++) {
        if (strlen(name) > 3 && strncmp(name, pgr_option_table[i].name, strlen(name)) == 0) {
            if (nearest)
                return NULL;
            nearest = &pgr_option_table[i];
        }
    }
    return nearest;
}

static const char *nearest_command(const char *word) {
    const char *nearest = NULL;
    int best = 100;
    for (int c = PGR_COMMAND_GROUPS; c <= PGR_COMMAND_EXPLAIN; c++)
        if (close_to(word, command_names[c], &best))
            nearest = command_names[c];
    return nearest;
}

/* ---- values -------------------------------------------------------------------------------- */

/* Reads the digits in [text, end) as an integer >= minimum; false if it is anything else. */
static bool read_integer(const char *text, const char *end, int64_t minimum, int64_t *value) {
    int64_t result = 0;
    if (text == end)
        return false;
    for (; text < end; text++)
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(result, (int64_t)10, &result) ||
            __builtin_add_overflow(result, (int64_t)(*text - '0'), &result))
            return false;
    if (result < minimum)
        return false;
    *value = result;
    return true;
}

static pgr_status take_world_sizes(pgr_options *options, const char *text, pgr_error *error) {
    for (const char *at = text;; at++) {
        const char *end = at + strcspn(at, ",");
        int64_t size;
        if (!read_integer(at, end, 1, &size))
            return pgr_error_set(
                error, PGR_USAGE, "--world-size takes a number of ranks, 1 or more%s, not \"%s\"",
                options->command == PGR_COMMAND_CHECK ? " (or several, as in 512,1024)" : "", text);
        if (options->world_size_count == PGR_VALUES_MAX)
            return pgr_error_set(error, PGR_USAGE, "--world-size takes at most %d sizes",
                                 PGR_VALUES_MAX);
        options->world_sizes[options->world_size_count++] = size;
        at = end;
        if (*at == '\0')
            break;
    }
    if (options->command != PGR_COMMAND_CHECK && options->world_size_count > 1)
        return pgr_error_set(error, PGR_USAGE, "%s takes one --world-size, not \"%s\"",
                             command_text(options->command), text);
    return PGR_OK;
}

static pgr_status take_set(pgr_options *options, const char *text, pgr_error *error) {
    const char *equals = strchr(text, '=');
    if (!equals || equals == text || equals[1] == '\0')
        return pgr_error_set(error, PGR_USAGE,
                             "--set takes KEY=VALUE, as in parallel.tp=4, not \"%s\"", text);
    if (options->set_count == PGR_VALUES_MAX)
        return pgr_error_set(error, PGR_USAGE, "--set can be given at most %d times",
                             PGR_VALUES_MAX);
    options->sets[options->set_count++] = text;
    return PGR_OK;
}

static pgr_status take_format(pgr_options *options, const char *text, pgr_error *error) {
    static const struct {
        const char *names[6];
        const char *said;
    } formats[] = {
        [PGR_COMMAND_GROUPS] = {{"text", "json", "csv", "svg"}, "text, json, csv or svg"},
        [PGR_COMMAND_CHECK] = {{"text", "json", "github", "sarif", "junit"},
                               "text, json, github, sarif or junit"},
        [PGR_COMMAND_EXPLAIN] = {{"text", "json"}, "text or json"},
    };
    for (const char *const *name = formats[options->command].names; *name; name++) {
        if (strcmp(*name, text) == 0) {
            options->format = *name;
            return PGR_OK;
        }
    }
    return pgr_error_set(error, PGR_USAGE, "%s has no format \"%s\"; it can be %s",
                         command_text(options->command), text, formats[options->command].said);
}

static pgr_status take_text(const pgr_option *option, const char **slot, const char *text,
                            pgr_error *error) {
    if (*text == '\0')
        return pgr_error_set(error, PGR_USAGE, "%s needs a value: %s %s", option->name,
                             option->name, option->argument);
    *slot = text;
    return PGR_OK;
}

static pgr_status take_value(pgr_options *options, const pgr_option *option, const char *value,
                             pgr_error *error) {
    if (strcmp(option->name, "--set") == 0)
        return take_set(options, value, error);
    if (strcmp(option->name, "--world-size") == 0)
        return take_world_sizes(options, value, error);
    if (strcmp(option->name, "--format") == 0)
        return take_format(options, value, error);
    if (strcmp(option->name, "--report") == 0)
        return take_text(option, &options->report, value, error);
    if (strcmp(option->name, "--group") == 0)
        return take_text(option, &options->group, value, error);
    /* --rank */
    if (!read_integer(value, value + strlen(value), 0, &options->rank))
        return pgr_error_set(error, PGR_USAGE, "--rank takes a rank, 0 or more, not \"%s\"", value);
    return PGR_OK;
}

/* ---- the command line ---------------------------------------------------------------------- */

static pgr_status unknown_option(const pgr_options *options, const char *word, size_t length,
                                 pgr_error *error) {
    char name[64];
    if (length >= sizeof name)
        length = sizeof name - 1;
    memcpy(name, word, length);
    name[length] = '\0';
    if (strcmp(name, "-n") == 0 || strcmp(name, "-np") == 0)
        return pgr_error_set(error, PGR_USAGE,
                             "unknown option %s: the number of ranks is the launcher's, as in "
                             "`mpirun -n 8 pgrun CONFIG`",
                             name);
    const pgr_option *nearest = nearest_option(name);
    if (nearest)
        return pgr_error_set(error, PGR_USAGE, "unknown option %s; did you mean %s?", name,
                             nearest->name);
    return pgr_error_set(error, PGR_USAGE, "unknown option %s; `%s --help` lists the options", name,
                         options->command == PGR_COMMAND_RUN ? "pgrun"
                                                             : command_text(options->command));
}

static pgr_status wrong_command(const pgr_options *options, const pgr_option *option,
                                pgr_error *error) {
    char takers[128] = "";
    for (int c = PGR_COMMAND_RUN; c <= PGR_COMMAND_EXPLAIN; c++) {
        if (option->commands & (1u << c)) {
            strcat(takers, *takers ? " or `" : "`");
            strcat(takers, command_text((pgr_command)c));
            strcat(takers, "`");
        }
    }
    if (*takers == '\0')
        return pgr_error_set(error, PGR_USAGE, "%s stands alone: `pgrun %s`", option->name,
                             option->name);
    const char *way = "";
    if (options->command == PGR_COMMAND_RUN && strcmp(option->name, "--world-size") == 0)
        way = "; the size of a run is the launcher's, as in `mpirun -n 8 pgrun CONFIG`";
    return pgr_error_set(error, PGR_USAGE, "%s does not go with `%s`, only with %s%s", option->name,
                         command_text(options->command), takers, way);
}

/* Reads the option at argv[*at] and moves *at on to its value where that is the next word. */
static pgr_status read_option(int argc, char **argv, int *at, unsigned *seen, pgr_options *options,
                              pgr_error *error) {
    const char *word = argv[*at];
    size_t length = strcspn(word, "=");
    const char *value = word[length] == '=' ? word + length + 1 : NULL;
    const pgr_option *option = NULL;
    for (int i = 0; i < pgr_option_count && !option; i++) {
        const char *name = pgr_option_table[i].name;
        if (strlen(name) == length && memcmp(name, word, length) == 0)
            option = &pgr_option_table[i];
    }
    if (!option)
        return unknown_option(options, word, length, error);
    if (!(option->commands & (1u << options->command)))
        return wrong_command(options, option, error);
    unsigned bit = 1u << (option - pgr_option_table);
    bool repeats = strcmp(option->name, "--set") == 0;
    if ((*seen & bit) && !repeats)
        return pgr_error_set(error, PGR_USAGE, "%s is given twice", option->name);
    *seen |= bit;

    if (!option->argument) {
        if (value)
            return pgr_error_set(error, PGR_USAGE, "%s takes no value, but was given \"%s\"",
                                 option->name, value);
        options->summary |= strcmp(option->name, "--summary") == 0;
        options->strict |= strcmp(option->name, "--strict") == 0;
        return PGR_OK;
    }
    if (!value) {
        /* A forgotten value must not swallow the next option. */
        if (*at + 1 >= argc || strncmp(argv[*at + 1], "--", 2) == 0)
            return pgr_error_set(error, PGR_USAGE, "%s needs a value: %s %s", option->name,
                                 option->name, option->argument);
        value = argv[++*at];
    }
    return take_value(options, option, value, error);
}

static pgr_status add_file(pgr_options *options, const char *file, pgr_error *error) {
    if (*file == '\0')
        return pgr_error_set(error, PGR_USAGE, "an empty file name was given to `%s`",
                             command_text(options->command));
    if (options->file_count == PGR_FILES_MAX)
        return pgr_error_set(error, PGR_USAGE, "`%s` takes at most %d files at once",
                             command_text(options->command), PGR_FILES_MAX);
    options->files[options->file_count++] = file;
    return PGR_OK;
}

/* What the words together must be: the number of files that the command takes. */
static pgr_status check_files(const pgr_options *options, pgr_error *error) {
    const char *const *files = options->files;
    if (options->command == PGR_COMMAND_EXPLAIN) {
        if (options->file_count <= 1)
            return PGR_OK;
        return pgr_error_set(error, PGR_USAGE,
                             "pgrun explain takes one code, as in `pgrun explain PG012`");
    }
    if (options->file_count == 0)
        return pgr_error_set(error, PGR_USAGE, "no CONFIG given: `%s`; see `pgrun --help`",
                             options->command == PGR_COMMAND_GROUPS  ? "pgrun groups CONFIG"
                             : options->command == PGR_COMMAND_CHECK ? "pgrun check CONFIG..."
                                                                     : "pgrun CONFIG");
    if (options->file_count == 1 || options->command == PGR_COMMAND_CHECK)
        return PGR_OK;
    if (options->command == PGR_COMMAND_RUN) {
        const char *nearest = nearest_command(files[0]);
        if (nearest)
            return pgr_error_set(error, PGR_USAGE, "unknown command \"%s\"; did you mean %s?",
                                 files[0], nearest);
    }
    return pgr_error_set(error, PGR_USAGE, "`%s` takes one config, not %d: \"%s\", \"%s\"%s",
                         command_text(options->command), options->file_count, files[0], files[1],
                         options->file_count > 2 ? ", ..." : "");
}

static pgr_command command_of(const char *word) {
    for (int c = PGR_COMMAND_GROUPS; c <= PGR_COMMAND_EXPLAIN; c++)
        if (strcmp(word, command_names[c]) == 0)
            return (pgr_command)c;
    return PGR_COMMAND_RUN;
}

static bool is_help(const char *word) {
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* `--help [TOPIC]` first, or `--help` anywhere before `--`: the topic is then the command. */
static bool wants_help(int argc, char **argv, pgr_options *options) {
    int at = 1;
    while (at < argc && !is_help(argv[at])) {
        if (strcmp(argv[at], "--") == 0)
            return false;
        at++;
    }
    if (at == argc)
        return false;
    const char *topic = command_names[options->command];
    options->command = PGR_COMMAND_HELP;
    if (at == 1 && argc > 2)
        topic = argv[2];
    if (*topic)
        options->files[options->file_count++] = topic;
    return true;
}

static const char usage_text[] =
    "usage: pgrun CONFIG [--set KEY=VALUE] [--report DIR]    run it, as in `mpirun -n 8 pgrun "
    "CONFIG`\n"
    "       pgrun check CONFIG... [OPTION...]                is this layout legal?\n"
    "       pgrun groups CONFIG [OPTION...]                  which ranks talk to which\n"
    "       pgrun explain [CODE]                             what a diagnostic means\n"
    "       pgrun --help [config|COMMAND] | --version";

pgr_status pgr_options_parse(int argc, char **argv, pgr_options *options, pgr_error *error) {
    *options = (pgr_options){.command = PGR_COMMAND_RUN, .rank = PGR_NIL};
    if (argc < 2)
        return pgr_error_set(error, PGR_USAGE, "no CONFIG given\n%s", usage_text);
    options->command = command_of(argv[1]);
    if (wants_help(argc, argv, options))
        return PGR_OK;
    if (strcmp(argv[1], "--version") == 0) {
        options->command = PGR_COMMAND_VERSION;
        if (argc > 2)
            return pgr_error_set(error, PGR_USAGE, "--version stands alone, without \"%s\"",
                                 argv[2]);
        return PGR_OK;
    }
    unsigned seen = 0;
    bool options_ended = false;
    for (int at = options->command == PGR_COMMAND_RUN ? 1 : 2; at < argc; at++) {
        pgr_status status;
        if (!options_ended && strcmp(argv[at], "--") == 0) {
            options_ended = true;
            continue;
        }
        if (!options_ended && argv[at][0] == '-' && argv[at][1] != '\0')
            status = read_option(argc, argv, &at, &seen, options, error);
        else
            status = add_file(options, argv[at], error);
        if (status != PGR_OK)
            return status;
    }
    return check_files(options, error);
}
