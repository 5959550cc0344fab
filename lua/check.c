/* check.c - `pgrun check`: which files, at which sizes, and what they end in. */
#include "check_report.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static pgr_status no_memory(const char *file, pgr_error *error) {
    return pgr_error_set(error, PGR_LIMIT, "%s: out of memory", file);
}

/* ---- which files ---- */

static pgr_status add_file(pgr_check_report *report, const char *name, pgr_error *error) {
    if (report->file_count == report->file_room) {
        int64_t room = report->file_room ? 2 * report->file_room : 64;
        void *grown = realloc(report->files, (size_t)room * sizeof *report->files);
        if (!grown)
            return no_memory(name, error);
        report->files = grown;
        report->file_room = room;
    }
    report->files[report->file_count] = strdup(name);
    if (!report->files[report->file_count])
        return no_memory(name, error);
    report->file_count++;
    return PGR_OK;
}

bool pgr_check_is_lua(const char *name) {
    size_t length = strlen(name);
    return length > 4 && strcmp(name + length - 4, ".lua") == 0;
}

static pgr_status add_below(pgr_check_report *report, const char *folder, int depth,
                            pgr_error *error);

/* One name in a folder. Hidden ones are left out, and links to folders: what they lead to is either
 * walked anyway or not part of this tree. */
static pgr_status add_member(pgr_check_report *report, const char *path, const char *name,
                             int depth, pgr_error *error) {
    struct stat about;
    if (name[0] == '.' || lstat(path, &about) != 0)
        return PGR_OK;
    if (S_ISDIR(about.st_mode))
        return add_below(report, path, depth + 1, error);
    return pgr_check_is_lua(name) ? add_file(report, path, error) : PGR_OK;
}

/* FOLDER/NAME, owned by the caller; NULL where memory is short. */
static char *join_path(const char *folder, const char *name) {
    size_t length = strlen(folder), bytes = length + strlen(name) + 2;
    const char *joint = length > 0 && folder[length - 1] == '/' ? "" : "/";
    char *path = malloc(bytes);
    if (path)
        snprintf(path, bytes, "%s%s%s", folder, joint, name);
    return path;
}

static pgr_status add_below(pgr_check_report *report, const char *folder, int depth,
                            pgr_error *error) {
    enum { DEEPEST = 64 };
    if (depth > DEEPEST)
        return pgr_error_set(error, PGR_LIMIT, "%s: folders more than %d deep", folder, DEEPEST);
    DIR *opened = opendir(folder);
    if (!opened && errno == ENOMEM)
        return no_memory(folder, error);
    if (!opened)
        return add_file(report, folder, error); /* its reading says why, as PG001 */
    pgr_status status = PGR_OK;
    struct dirent *member;
    while (status == PGR_OK && (member = readdir(opened)) != NULL) {
        char *path = join_path(folder, member->d_name);
        status = path ? add_member(report, path, member->d_name, depth, error)
                      : no_memory(folder, error);
        free(path);
    }
    closedir(opened);
    return status;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The files of the command line in its order; those below a folder are sorted. A folder without any
 * stays in the list, so that it does not pass unseen. */
static pgr_status find_files(pgr_check_report *report, pgr_error *error) {
    pgr_status status = PGR_OK;
    for (int i = 0; i < report->options->file_count && status == PGR_OK; i++) {
        const char *name = report->options->files[i];
        struct stat about;
        int64_t first = report->file_count;
        if (stat(name, &about) == 0 && S_ISDIR(about.st_mode)) {
            status = pgr_check_named_path(name, error);
            if (status == PGR_OK)
                status = add_below(report, name, 0, error);
            else if (status == PGR_INVALID)
                status = PGR_OK; /* told when the name is checked as a file */
        }
        if (status == PGR_OK && report->file_count == first)
            status = add_file(report, name, error);
        if (report->file_count > first)
            qsort(report->files + first, (size_t)(report->file_count - first),
                  sizeof *report->files, compare_names);
    }
    return status;
}

/* ---- one file ---- */

pgr_check_finding *pgr_check_add(pgr_check_entry *entry, const char *code, const char *message,
                                 const char *help) {
    const pgr_rule *rule = pgr_rule_find(code);
    void *grown =
        rule ? realloc(entry->findings, (size_t)(entry->count + 1) * sizeof *entry->findings)
             : NULL;
    if (!grown)
        return NULL;
    entry->findings = grown;
    pgr_check_finding *finding = &entry->findings[entry->count++];
    memset(finding, 0, sizeof *finding);
    finding->rule = rule;
    finding->severity = finding->rule->severity;
    snprintf(finding->message, sizeof finding->message, "%s", message);
    snprintf(finding->help, sizeof finding->help, "%s", help);
    pgr_check_clean(finding->message);
    pgr_check_clean(finding->help);
    return finding;
}

int64_t pgr_check_count(const pgr_check_entry *entry, pgr_severity severity) {
    int64_t count = 0;
    for (int64_t i = 0; i < entry->count; i++)
        count += entry->findings[i].severity == severity;
    return count;
}

void pgr_check_about(const pgr_check_entry *entry, char *text, size_t bytes) {
    char size[48] = "";
    if (entry->world_size != PGR_NIL)
        snprintf(size, sizeof size, " at world size %" PRId64, entry->world_size);
    snprintf(text, bytes, "%s%s%s", size, entry->choice->label[0] ? " with " : "",
             entry->choice->label);
}

static pgr_check_entry *add_entry(pgr_check_report *report, const char *file,
                                  const pgr_check_choice *choice, int64_t world_size,
                                  pgr_error *error) {
    if (report->entry_count == report->entry_room) {
        int64_t room = report->entry_room ? 2 * report->entry_room : 64;
        void *grown = realloc(report->entries, (size_t)room * sizeof *report->entries);
        if (!grown) {
            no_memory(file, error);
            return NULL;
        }
        report->entries = grown;
        report->entry_room = room;
    }
    pgr_check_entry *entry = &report->entries[report->entry_count++];
    *entry = (pgr_check_entry){.file = file, .choice = choice, .world_size = world_size};
    return entry;
}

const char *pgr_check_reason(const char *message, const char *file) {
    size_t prefix = strlen(file);
    bool named = strncmp(message, file, prefix) == 0 && strncmp(message + prefix, ": ", 2) == 0;
    return named ? message + prefix + 2 : message;
}

/* A file that cannot be read is a finding, and the others are still checked. */
static pgr_status add_unreadable(pgr_check_report *report, const char *file, pgr_error *error) {
    const pgr_options *options = report->options;
    struct stat about;
    const char *reason = pgr_check_reason(error->message, file);
    if (strstr(reason, "is a directory") && stat(file, &about) == 0 && S_ISDIR(about.st_mode))
        reason = "the folder has no *.lua file that can be read";
    pgr_check_entry *entry =
        add_entry(report, file, &report->matrix.choices[0],
                  options->world_size_count > 0 ? options->world_sizes[0] : PGR_NIL, error);
    if (!entry || !pgr_check_add(entry, "PG001", reason,
                                 "give a Lua file that returns a table, or a folder of them"))
        return no_memory(file, error);
    return PGR_OK;
}

static void apply_strict(pgr_check_report *report, pgr_check_entry *entry) {
    for (int64_t i = 0; i < entry->count; i++) {
        pgr_check_finding *finding = &entry->findings[i];
        if (report->options->strict && finding->severity == PGR_WARNING)
            finding->severity = PGR_ERROR;
    }
}

static pgr_status check_file(pgr_check_report *report, const char *file, pgr_error *error) {
    const pgr_options *options = report->options;
    pgr_config_text text;
    pgr_status status = pgr_check_link(file, options, error);
    if (status == PGR_OK)
        status = pgr_config_read(file, &text, error);
    if (status == PGR_INVALID)
        return add_unreadable(report, file, error);
    if (status != PGR_OK)
        return status;
    int64_t sizes = options->world_size_count > 0 ? options->world_size_count : 1;
    for (int64_t i = 0; i < report->matrix.count * sizes && status == PGR_OK; i++) {
        int64_t world = options->world_size_count > 0 ? options->world_sizes[i % sizes] : PGR_NIL;
        const pgr_check_choice *choice = &report->matrix.choices[i / sizes];
        pgr_check_entry *entry = add_entry(report, file, choice, world, error);
        status = entry ? pgr_check_in_child(text.text, text.bytes, entry, error) : PGR_LIMIT;
    }
    free(text.text);
    return status;
}

/* ---- all of it ---- */

static void print(const pgr_check_report *report, FILE *out) {
    static const struct {
        const char *name;
        void (*print)(const pgr_check_report *, FILE *);
    } formats[] = {{"text", pgr_check_text},
                   {"json", pgr_check_json},
                   {"github", pgr_check_github},
                   {"sarif", pgr_check_sarif},
                   {"junit", pgr_check_junit}};
    const char *wanted = report->options->format ? report->options->format : "text";
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (strcmp(formats[i].name, wanted) == 0)
            formats[i].print(report, out);
}

static void free_report(pgr_check_report *report) {
    for (int64_t i = 0; i < report->entry_count; i++)
        free(report->entries[i].findings);
    for (int64_t i = 0; i < report->file_count; i++)
        free(report->files[i]);
    free(report->entries);
    free(report->files);
    pgr_check_matrix_free(&report->matrix);
}

pgr_status pgr_command_check(const pgr_options *options, FILE *out, pgr_error *error) {
    pgr_check_report report = {.options = options};
    pgr_status status = pgr_check_matrix_create(options, &report.matrix, error);
    if (status == PGR_OK)
        status = find_files(&report, error);
    for (int64_t i = 0; i < report.file_count && status == PGR_OK; i++)
        status = check_file(&report, report.files[i], error);
    if (status == PGR_OK) {
        for (int64_t i = 0; i < report.entry_count; i++) {
            apply_strict(&report, &report.entries[i]);
            for (int s = PGR_NOTE; s <= PGR_ERROR; s++)
                report.totals[s] += pgr_check_count(&report.entries[i], (pgr_severity)s);
        }
        print(&report, out);
        if (report.totals[PGR_ERROR] > 0)
            status = pgr_error_set(error, PGR_INVALID, "%s", ""); /* told already */
    }
    free_report(&report);
    return status;
}
