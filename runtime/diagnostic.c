/* diagnostic.c - the list of findings. The catalogue itself is in diagnostic_rules.c. */
#include "diagnostic.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const pgr_rule *pgr_rule_find(const char *code) {
    for (int low = 0, high = pgr_rule_count; low < high;) { /* the codes ascend */
        int middle = (low + high) / 2, order = strcasecmp(code, pgr_rules[middle].code);
        if (order == 0)
            return &pgr_rules[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *pgr_severity_name(pgr_severity severity) {
    static const char *const names[] = {"note", "warning", "error"};
    return names[severity];
}

static pgr_diagnostic *add(pgr_diagnostics *list) {
    if (list->count == list->room) {
        int64_t room = list->room ? 2 * list->room : 8;
        void *grown = realloc(list->items, (size_t)room * sizeof *list->items);
        if (!grown) {
            list->out_of_memory = true;
            return NULL;
        }
        list->items = grown;
        list->room = room;
    }
    pgr_diagnostic *added = &list->items[list->count++];
    if (list->bare) { /* made by the hundred: what is behind the texts' ends is never read */
        added->message[0] = added->help[0] = '\0';
        added->at_key = false;
        added->line = added->column = 0;
        added->path_count = 0;
    } else {
        memset(added, 0, sizeof *added);
    }
    return added;
}

static void add_path(char out[PGR_PATH_MAX], const char *path, size_t length) {
    length = length < PGR_PATH_MAX ? length : PGR_PATH_MAX - 1;
    memcpy(out, path, length);
    out[length] = '\0';
}

static void add_paths(pgr_diagnostic *finding, const char *paths) {
    while (*paths && finding->path_count < PGR_DIAGNOSTIC_PATHS) {
        size_t length = strcspn(paths, " ");
        if (length > 0)
            add_path(finding->paths[finding->path_count++], paths, length);
        paths += length;
        paths += *paths == ' ';
    }
}

pgr_diagnostic *pgr_diagnose(pgr_diagnostics *list, const char *code, const char *paths,
                             const char *help, const char *format, ...) {
    pgr_diagnostic *finding = add(list);
    if (!finding)
        return NULL;
    finding->rule = pgr_rule_find(code);
    finding->severity = finding->rule ? finding->rule->severity : PGR_ERROR;
    add_paths(finding, paths);
    if (list->bare)
        return finding;
    snprintf(finding->help, sizeof finding->help, "%s", help ? help : "");
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->message, sizeof finding->message, format, arguments);
    va_end(arguments);
    return finding;
}

pgr_diagnostic *pgr_diagnostics_add(pgr_diagnostics *list, const pgr_diagnostic *finding) {
    pgr_diagnostic *added = add(list);
    if (added)
        *added = *finding;
    return added;
}

/* Stable: findings of one severity stay in the order of finding. */
void pgr_diagnostics_sort(pgr_diagnostics *list) {
    for (int64_t i = 1; i < list->count; i++) {
        pgr_diagnostic moving = list->items[i];
        int64_t at = i;
        while (at > 0 && list->items[at - 1].severity < moving.severity) {
            list->items[at] = list->items[at - 1];
            at--;
        }
        list->items[at] = moving;
    }
}

int64_t pgr_diagnostics_count(const pgr_diagnostics *list, pgr_severity severity) {
    int64_t count = 0;
    for (int64_t i = 0; i < list->count; i++)
        count += list->items[i].severity == severity;
    return count;
}

void pgr_diagnostics_free(pgr_diagnostics *list) {
    free(list->items);
    *list = (pgr_diagnostics){0};
}
