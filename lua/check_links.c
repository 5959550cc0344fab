/* check_links.c - which symbolic links `pgrun check` follows. A link may not pull a file of the
 * machine into a public log, for an excerpt quotes it. */
#define _GNU_SOURCE /* realpath */
#include "check_report.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The path without links in it, in PATH_MAX bytes. PGR_INVALID where there is none. */
static pgr_status resolve(const char *file, char *path, pgr_error *error) {
    if (realpath(file, path))
        return PGR_OK;
    if (errno == ENOMEM)
        return pgr_error_set(error, PGR_LIMIT, "%s: out of memory", file);
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

pgr_status pgr_check_named_path(const char *path, pgr_error *error) {
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

pgr_status pgr_check_link(const char *file, const pgr_options *options, pgr_error *error) {
    struct stat about;
    char target[PATH_MAX];
    bool inside = false;
    pgr_status status = PGR_OK;
    for (int i = 0; i < options->file_count && status == PGR_OK && !inside; i++) {
        inside = strcmp(file, options->files[i]) == 0;
        if (inside)
            status = pgr_check_named_path(file, error);
    }
    if (status != PGR_OK || lstat(file, &about) != 0 || !S_ISLNK(about.st_mode))
        return status;
    status = resolve(file, target, error);
    for (int i = 0; i < options->file_count && status == PGR_OK && !inside; i++)
        status = lies_below(target, options->files[i], &inside, error);
    if (status != PGR_OK || (inside && pgr_check_is_lua(target)))
        return status;
    return pgr_error_set(error, PGR_INVALID,
                         "this symbolic link leads to no *.lua file of the checked folder, so it "
                         "is not followed");
}
