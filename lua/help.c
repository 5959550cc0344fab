/* help.c - everything that pgrun says about itself. Keys and options come from their tables, so
 * that help, the editor definitions and what is accepted cannot drift. */
#include "command.h"
#include "config_reader.h"

#include <string.h>

static const char usage_text[] =
    "pgrun checks, generates, runs and verifies parallel layouts of large models.\n"
    "\n"
    "Usage:\n"
    "  pgrun CONFIG [--set KEY=VALUE] [--report DIR]\n"
    "      run the layout under mpirun, srun, or alone as one rank: open its groups, run its\n"
    "      workloads on them, verify every result, time it and report\n"
    "  pgrun groups CONFIG [--world-size N] [--group FAMILY,...] [--rank R] [--summary]\n"
    "               [--format text|json|csv|svg]\n"
    "      print, count (--summary) or draw (svg) the rank groups of the layout, as Megatron-Core\n"
    "      builds them\n"
    "  pgrun check CONFIG... [--world-size N,...] [--set KEY=VALUE] [--strict]\n"
    "              [--format text|json|github|sarif|junit]\n"
    "      check layouts without MPI or GPUs, each file and each *.lua below a folder\n"
    "  pgrun explain [CODE] [--format text|json]\n"
    "      what a diagnostic means and how to mend it\n"
    "  pgrun --version | --help | --help config | --help luacats | COMMAND --help\n";

static const char exit_text[] =
    "Exit status:\n"
    "  0  good\n"
    "  1  the config is invalid or goes over its limits, check found an error, or a run failed "
    "its\n"
    "     verification\n"
    "  2  wrong usage of the command line or of the launcher\n"
    "  3  an internal error, a limit, a feature that is not there, or a lost rank\n";

/* One option of `command`, in two columns. */
static void print_option(const pgr_option *option, FILE *out) {
    char left[64];
    snprintf(left, sizeof left, "%s%s%s", option->name, option->argument ? " " : "",
             option->argument ? option->argument : "");
    fprintf(out, "  %-20s %s\n", left, option->help);
}

static void print_options(unsigned commands, FILE *out) {
    fputs("\nOptions:\n", out);
    for (int i = 0; i < pgr_option_count; i++)
        if (pgr_option_table[i].commands & commands)
            print_option(&pgr_option_table[i], out);
}

static void print_usage(FILE *out) {
    fputs(usage_text, out);
    print_options(~0u, out);
    fputs("\n", out);
    fputs(exit_text, out);
}

/* ---- one command ---- */

typedef struct command_text {
    pgr_command command;
    const char *text;
} command_text;

static const command_text command_texts[] = {
    {PGR_COMMAND_GROUPS,
     "pgrun groups CONFIG - print the rank groups of a layout\n"
     "\n"
     "Prints every family of groups that Megatron-Core builds from the same sizes, or those named\n"
     "with --group: tp, cp, dp, pp, ep, etp, edp and dash-joined ones such as tp-pp, etp-ep, or "
     "any\n"
     "set of axes of one view. Without a world size in the config or the command line it takes "
     "the\n"
     "smallest legal one and says so. A layout that is not legal prints nothing on standard "
     "output.\n"
     "Opens no MPI.\n"
     "\n"
     "  --format text   a table; of at most 64 ranks also a grid, a row per node\n"
     "  --format json   every group of every family, or with --rank that rank's own\n"
     "  --format csv    family,group,place,rank: a line for each member of each group\n"
     "  --format svg    a picture: a row per node, a cell per GPU, its coordinates on hover, and "
     "a\n"
     "                  colour per group; a panel for each family of --group, or one of the first\n"
     "                  family of more than one group. With --rank that rank's groups stand out.\n"
     "                  At most 65536 cells\n"
     "  --summary       text or json: of each family the number of groups, their size, how far\n"
     "                  members lie apart, and how many groups cross a node and an NVLink domain\n"
     "                  (cluster.gpus_per_node, cluster.nvlink_domain)\n"},
    {PGR_COMMAND_CHECK,
     "pgrun check CONFIG... - check layouts without MPI or GPUs\n"
     "\n"
     "Reports every problem of every CONFIG at once, worst first, with the place of each key that\n"
     "contributes and a way out. A folder stands for the *.lua files below it. Each file is\n"
     "evaluated in a process of its own, with limits on its time and memory, once for each world\n"
     "size and each combination of the values of --set.\n"
     "Without a world size in the config or the command line it takes the smallest legal one.\n"
     "With --format github the findings beyond ten go to the file in GITHUB_STEP_SUMMARY.\n"
     "Opens no MPI.\n"},
    {PGR_COMMAND_EXPLAIN, "pgrun explain [CODE] - what a diagnostic means and how to mend it\n"
                          "\n"
                          "Prints why the rule is there, a config that breaks it, and the same\n"
                          "config mended: pgrun explain PG012. Without a code, or with `all`,\n"
                          "every rule as one page of Markdown: docs/diagnostics.md is this.\n"},
    {PGR_COMMAND_RUN,
     "pgrun CONFIG - run a layout: mpirun -n 8 pgrun CONFIG\n"
     "\n"
     "Opens the layout's groups, runs run.workloads on them, verifies every result against an\n"
     "unsharded reference, times it and reports. Alone it runs as one rank.\n"},
};

static void print_command(pgr_command command, FILE *out) {
    for (size_t i = 0; i < sizeof command_texts / sizeof command_texts[0]; i++)
        if (command_texts[i].command == command)
            fputs(command_texts[i].text, out);
    print_options(1u << command, out);
    fputs("\n", out);
    fputs(exit_text, out);
}

/* ---- the config ---- */

/* The part of a path behind the section's name. */
static const char *leaf_of(const pgr_key *key) {
    const char *dot = strchr(key->path, '.');
    return dot ? dot + 1 : key->path;
}

static void print_key(const pgr_key *key, FILE *out) {
    char takes[320];
    pgr_key_describe(key, takes, sizeof takes);
    if (key->type == PGR_KEY_SECTION) {
        fprintf(out, "\n%s = { ... }\n  %s\n", key->path, key->help);
        return;
    }
    fprintf(out, "\n  %s\n      %s\n      %s; default %s\n", key->path, key->help, takes,
            key->fallback);
    if (key->later)
        fprintf(out, "      not in a run yet: %s\n", key->later);
}

static void print_config(FILE *out) {
    fputs("A config is one Lua file that returns a table. Only `parallel` is required:\n"
          "\n"
          "  return { parallel = { tp = 2 }, model = { hidden = 1024 } }\n"
          "\n"
          "Unknown keys are errors. `--set KEY=VALUE` overrides a key of the returned table.\n"
          "The file runs with Lua's base, string, table and math, without what reaches outside.\n",
          out);
    for (int i = 0; i < pgr_key_count; i++)
        print_key(&pgr_keys[i], out);
}

/* ---- editor definitions ---- */

/* "a"|"b" */
static void print_union(const pgr_key *key, FILE *out) {
    char name[PGR_NAME_MAX];
    const char *joint = "";
    int64_t i = 0;
    for (const char *at = key->choices; at; at = strchr(at, '|'), at += at != NULL, i++) {
        pgr_key_choice_name(key, i, name);
        if (!name[0])
            continue;
        fprintf(out, "%s\"%s\"", joint, name);
        joint = "|";
    }
}

static void print_type(const pgr_key *key, FILE *out) {
    switch (key->type) {
    case PGR_KEY_SECTION:
        fprintf(out, "pgrun.%s", key->path);
        break;
    case PGR_KEY_INTEGER:
        fputs("integer", out);
        break;
    case PGR_KEY_NUMBER:
        fputs("number", out);
        break;
    case PGR_KEY_BOOLEAN:
        fputs("boolean", out);
        break;
    case PGR_KEY_CHOICE:
        print_union(key, out);
        break;
    case PGR_KEY_STRING:
        fputs("string", out);
        break;
    case PGR_KEY_INTEGER_LIST:
        fputs("integer[]", out);
        break;
    case PGR_KEY_PATTERN:
        fputs("integer|(0|1)[]", out);
        break;
    case PGR_KEY_CHOICE_LIST:
    case PGR_KEY_NAME_LIST:
        fputs(key->choices ? "(" : "string", out);
        if (key->choices)
            print_union(key, out);
        fputs(key->choices ? ")[]" : "[]", out);
        break;
    case PGR_KEY_PADDING_RULE:
        fputs("\"megatron\"|integer|fun(p: pgrun.padding_args): integer", out);
        break;
    case PGR_KEY_GRID:
        fputs("pgrun.grid_axis[]", out);
        break;
    case PGR_KEY_VIEWS:
        fputs("table<string, pgrun.grid_axis[]>", out);
        break;
    case PGR_KEY_NCCL:
        fputs("table<string, pgrun.nccl_options>", out);
        break;
    case PGR_KEY_FUNCTION:
        fputs("fun(pg: table)", out);
        break;
    }
}

static void print_field(const pgr_key *key, FILE *out) {
    bool required = strcmp(key->path, "parallel") == 0;
    fprintf(out, "---@field %s%s ", leaf_of(key), required ? "" : "?");
    print_type(key, out);
    fprintf(out, " # %s", key->help);
    if (key->type != PGR_KEY_SECTION && strcmp(key->fallback, "nil") != 0)
        fprintf(out, " (default %s)", key->fallback);
    fputs("\n", out);
}

/* The class of one section; NULL is the config itself. */
static void print_class(const pgr_key *section, FILE *out) {
    if (section)
        fprintf(out, "\n---%s.\n---@class (exact) pgrun.%s\n", section->help, section->path);
    else
        fputs("\n---The table that a config returns.\n---@class (exact) pgrun.config\n", out);
    size_t length = section ? strlen(section->path) : 0;
    for (int i = 0; i < pgr_key_count; i++) {
        const char *path = pgr_keys[i].path, *dot = strchr(path, '.');
        bool inside = section ? dot && (size_t)(dot - path) == length &&
                                    strncmp(path, section->path, length) == 0
                              : !dot;
        if (inside)
            print_field(&pgr_keys[i], out);
    }
}

static const char luacats_head[] =
    "---@meta\n"
    "-- Editor definitions of a pgrun config, for the Lua language server: generated by\n"
    "-- `pgrun --help luacats`. Write `---@type pgrun.config` above the table of a config.\n";

static const char luacats_tail[] =
    "\n---What a padding function is given.\n"
    "---@class (exact) pgrun.padding_args\n"
    "---@field seq_len integer # Tokens of a sequence, before padding\n"
    "---@field tp integer # Tensor parallel size\n"
    "---@field cp integer # Context parallel size\n"
    "---@field sequence_parallel boolean\n"
    "---@field tp_comm_overlap boolean\n"
    "---@field decoder_seq_len? integer # Tokens of the decoder's sequence\n"
    "---@field fp8 boolean\n"
    "---@field fp8_recipe? \"delayed\"|\"tensorwise\"|\"blockwise\"|\"mxfp8\"\n"
    "\n---One axis of the general grid: its name, and its size unless it is the one that is left.\n"
    "---@class (exact) pgrun.grid_axis\n"
    "---@field [1] string\n"
    "---@field [2]? integer\n"
    "\n---NCCL options of one family.\n"
    "---@class (exact) pgrun.nccl_options\n"
    "---@field max_ctas? integer # Thread blocks of a collective at most, 1 to 64\n"
    "---@field cga_cluster_size? integer # Blocks of a cluster, 0 to 8\n"
    "---@field traffic_class? integer # Of the network, from 0; NCCL 2.26 or later\n"
    "---@field split_share? boolean # Share resources; one family that sets it sets it for all\n"
    "---@field high_priority? boolean # Of the family's stream\n"
    "---@field net_name? string # Network that NCCL takes\n";

static void print_luacats(FILE *out) {
    fputs(luacats_head, out);
    print_class(NULL, out);
    for (int i = 0; i < pgr_key_count; i++)
        if (pgr_keys[i].type == PGR_KEY_SECTION)
            print_class(&pgr_keys[i], out);
    fputs(luacats_tail, out);
}

/* ---- */

pgr_status pgr_command_help(const pgr_options *options, FILE *out, pgr_error *error) {
    const char *topic = options->file_count > 0 ? options->files[0] : NULL;
    if (!topic) {
        print_usage(out);
        return PGR_OK;
    }
    if (strcmp(topic, "config") == 0) {
        print_config(out);
        return PGR_OK;
    }
    if (strcmp(topic, "luacats") == 0) {
        print_luacats(out);
        return PGR_OK;
    }
    if (strcmp(topic, "run") == 0) {
        print_command(PGR_COMMAND_RUN, out);
        return PGR_OK;
    }
    for (int c = PGR_COMMAND_GROUPS; c <= PGR_COMMAND_EXPLAIN; c++) {
        if (strcmp(topic, pgr_command_name((pgr_command)c)) == 0) {
            print_command((pgr_command)c, out);
            return PGR_OK;
        }
    }
    return pgr_error_set(error, PGR_USAGE,
                         "there is no help on `%s`; the topics are config, luacats, run, groups, "
                         "check and explain",
                         topic);
}
