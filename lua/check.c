/* check.c - `pgrun check`: which files, at which sizes, and what they end in. */
#include "check_report.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static bool ends_in_lua(const char *name) {
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
    return ends_in_lua(name) ? add_file(report, path, error) : PGR_OK;
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

static pgr_status check_named(const char *path, pgr_error *error);

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
        pgr_error refused = {0}; /* told when the name is checked as a file */
        if (stat(name, &about) == 0 && S_ISDIR(about.st_mode) &&
            check_named(name, &refused) == PGR_OK)
            status = add_below(report, name, 0, error);
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

/* The path without links in it, in PATH_MAX bytes. PGR_INVALID where there is none. */
static pgr_status resolve(const char *file, char *path, pgr_error *error) {
    if (realpath(file, path))
        return PGR_OK;
    if (errno == ENOMEM)
        return no_memory(file, error);
    return pgr_error_set(error, PGR_INVALID, "the symbolic link cannot be followed: %s",
                         strerror(errno));
}

/* Whether `path`, a real one, lies below `folder`; the root is no folder that one means. PGR_LIMIT
 * where memory is short. */
static pgr_status lies_below(const char *path, const char *folder, bool *below, pgr_error *error) {
    char real[PATH_MAX];
    pgr_status status = resolve(folder, real, error);
    size_t length = status == PGR_OK ? strlen(real) : 0;
    if (status == PGR_LIMIT)
        return status;
    *below = length > 1 && strncmp(path, real, length) == 0 && path[length] == '/';
    return PGR_OK;
}

/* Whether it lies in the folder of `file` or below it. */
static pgr_status lies_beside(const char *path, const char *file, bool *beside, pgr_error *error) {
    char folder[PATH_MAX];
    const char *slash = strrchr(file, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - file) : 1, slash ? file : ".");
    return lies_below(path, folder, beside, error);
}

/* Whether one may follow a link in a path that was named: where it stays below the current folder
 * or beside the link. */
static pgr_status check_named_link(const char *link, pgr_error *error) {
    char target[PATH_MAX], here[PATH_MAX];
    bool inside = false;
    pgr_status status = resolve(link, target, error);
    if (status == PGR_OK)
        status = resolve(".", here, error);
    if (status == PGR_OK && strcmp(target, here) == 0)
        return PGR_OK;
    if (status == PGR_OK)
        status = lies_below(target, ".", &inside, error);
    if (status == PGR_OK && !inside)
        status = lies_beside(target, link, &inside, error);
    if (status != PGR_OK || inside)
        return status;
    return pgr_error_set(error, PGR_INVALID,
                         "this path goes through a symbolic link that leads out of the current "
                         "folder, so it is not followed; name what it leads to");
}

/* The part of a named path that a shell's pattern may have filled in: all of it, but for the
 * folders around the current one. */
static size_t start_of_doubt(const char *path) {
    char here[PATH_MAX];
    size_t length = getcwd(here, sizeof here) ? strlen(here) : 0;
    if (path[0] != '/')
        return 0;
    if (length > 1 && strncmp(path, here, length) == 0 && path[length] == '/')
        return length + 1;
    const char *last = strrchr(path, '/');
    return (size_t)(last - path) + 1;
}

/* Each folder of a named path, and its end, that is a link. */
static pgr_status check_named(const char *path, pgr_error *error) {
    char part[PATH_MAX];
    pgr_status status = PGR_OK;
    for (size_t at = start_of_doubt(path); path[at] && status == PGR_OK;) {
        struct stat about;
        at += strcspn(path + at, "/");
        snprintf(part, sizeof part, "%.*s", (int)at, path);
        if (part[0] && lstat(part, &about) == 0 && S_ISLNK(about.st_mode))
            status = check_named_link(part, error);
        at += path[at] == '/';
    }
    return status;
}

/* A link may not pull a file of the machine into a public log, for an excerpt quotes it. It is
 * followed to a *.lua file below a named folder; one in a path that is itself named, as a shell's
 * `*.lua` does, to what lies beside it or below the current folder. PGR_INVALID for any other, and
 * for one that nobody can tell of. */
static pgr_status check_link(const char *file, const pgr_options *options, pgr_error *error) {
    struct stat about;
    char target[PATH_MAX];
    bool inside = false;
    pgr_status status = PGR_OK;
    for (int i = 0; i < options->file_count && status == PGR_OK && !inside; i++) {
        inside = strcmp(file, options->files[i]) == 0;
        if (inside)
            status = check_named(file, error);
    }
    if (status != PGR_OK || lstat(file, &about) != 0 || !S_ISLNK(about.st_mode))
        return status;
    status = resolve(file, target, error);
    for (int i = 0; i < options->file_count && status == PGR_OK && !inside; i++)
        status = lies_below(target, options->files[i], &inside, error);
    if (status != PGR_OK || (inside && ends_in_lua(target)))
        return status;
    return pgr_error_set(error, PGR_INVALID,
                         "this symbolic link leads to no *.lua file of the checked folder, so it "
                         "is not followed");
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
    pgr_status status = check_link(file, options, error);
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
