/* config_locate.c - where in a config's text the keys of findings stand. */
#include "config.h"

#include "positions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Cuts the last part off a path: "run.workloads[2]", "run.workloads", "run", "". */
static void cut_last_part(char *path) {
    size_t length = strlen(path);
    while (length > 0 && path[length - 1] != '.' && path[length - 1] != '[')
        length--;
    path[length > 0 ? length - 1 : 0] = '\0';
}

/* Fills the place of location->path, or of the nearest written key around it. */
static void locate(const pgr_positions *positions, bool at_key, pgr_location *location) {
    char path[PGR_PATH_MAX];
    snprintf(path, sizeof path, "%s", location->path);
    pgr_position at = pgr_positions_find(positions, path);
    location->written = at.line > 0 && path[0];
    while (at.line == 0 && path[0]) {
        cut_last_part(path);
        at = pgr_positions_find(positions, path);
    }
    bool key = at_key || !location->written;
    location->line = key ? at.key_line : at.line;
    location->column = key ? at.key_column : at.column;
}

/* The column of the first byte of a line that is not blank, or 1. */
static int64_t first_column(const char *text, size_t bytes, int64_t line) {
    const char *at = text, *end = text + bytes;
    for (; line > 1 && at; line--) {
        at = memchr(at, '\n', (size_t)(end - at));
        at = at ? at + 1 : NULL;
    }
    int64_t column = 1;
    for (; at && at < end && (*at == ' ' || *at == '\t'); at++)
        column++;
    return column;
}

static void locate_finding(const char *text, size_t bytes, const pgr_positions *positions,
                           const pgr_diagnostic *finding, pgr_finding_locations *out) {
    out->count = finding->path_count > 0 ? finding->path_count : 1;
    for (int32_t i = 0; i < out->count; i++) {
        pgr_location *location = &out->items[i];
        if (i < finding->path_count)
            snprintf(location->path, sizeof location->path, "%s", finding->paths[i]);
        locate(positions, finding->at_key, location);
    }
    if (finding->path_count == 0 && finding->line > 0) {
        out->items[0].line = finding->line;
        out->items[0].column =
            finding->column > 0 ? finding->column : first_column(text, bytes, finding->line);
        out->items[0].written = true;
    }
}

pgr_status pgr_config_locate(const char *text, size_t bytes, const pgr_diagnostics *found,
                             pgr_locations *out) {
    pgr_positions *positions = NULL;
    pgr_locations made = {NULL, found->count};
    if (found->count > 0) {
        pgr_status status = pgr_positions_create(text, bytes, &positions, NULL);
        if (status != PGR_OK)
            return status;
        made.items = calloc((size_t)found->count, sizeof *made.items);
        if (!made.items) {
            pgr_positions_free(positions);
            return PGR_LIMIT;
        }
    }
    for (int64_t i = 0; i < found->count; i++)
        locate_finding(text, bytes, positions, &found->items[i], &made.items[i]);
    pgr_positions_free(positions);
    *out = made;
    return PGR_OK;
}

void pgr_locations_free(pgr_locations *locations) {
    free(locations->items);
    *locations = (pgr_locations){0};
}
