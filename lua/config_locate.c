/* config_locate.c - where in a config's text the keys of findings stand. */
#include "config.h"

#include "lexer.h"
#include "positions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct locator {
    const char *text;
    size_t bytes;
    pgr_positions *positions;
    const pgr_snapshot *held;
} locator;

/* Fills the place of location->path, or of the nearest written key around it. */
static void locate(const locator *in, bool at_key, pgr_location *location) {
    pgr_position at = pgr_positions_find(in->positions, in->held, location->path);
    location->written = at.line > 0 && location->path[0];
    if (at.line == 0)
        at = pgr_positions_near(in->positions, in->held, location->path, &location->computed);
    bool key = at_key || !location->written;
    location->line = key ? at.key_line : at.line;
    location->column = key ? at.key_column : at.column;
}

/* The column of the first byte of a line that is not blank, or 1. */
static int64_t first_column(const char *text, size_t bytes, int64_t line) {
    const char *at = text, *end = text + bytes;
    for (; line > 1 && at; line--)
        at = pgr_line_next(at, end);
    int64_t column = 1;
    for (; at && at < end && (*at == ' ' || *at == '\t'); at++)
        column++;
    return column;
}

static void locate_finding(const locator *in, const pgr_diagnostic *finding,
                           pgr_finding_locations *out) {
    out->count = finding->path_count > 0 ? finding->path_count : 1;
    for (int32_t i = 0; i < out->count; i++) {
        pgr_location *location = &out->items[i];
        if (i < finding->path_count)
            snprintf(location->path, sizeof location->path, "%s", finding->paths[i]);
        locate(in, finding->at_key, location);
    }
    if (finding->path_count == 0 && finding->line > 0) {
        out->items[0].line = finding->line;
        out->items[0].column = finding->column > 0
                                   ? finding->column
                                   : first_column(in->text, in->bytes, finding->line);
        out->items[0].written = true;
    }
}

pgr_status pgr_config_locate(const char *text, size_t bytes, const pgr_snapshot *held,
                             const pgr_diagnostics *found, pgr_locations *out) {
    locator in = {text, bytes, NULL, held};
    pgr_locations made = {NULL, found->count};
    if (found->count > 0) {
        pgr_status status = pgr_positions_create(text, bytes, &in.positions, NULL);
        if (status != PGR_OK)
            return status;
        made.items = calloc((size_t)found->count, sizeof *made.items);
        if (!made.items) {
            pgr_positions_free(in.positions);
            return PGR_LIMIT;
        }
    }
    for (int64_t i = 0; i < found->count; i++)
        locate_finding(&in, &found->items[i], &made.items[i]);
    pgr_positions_free(in.positions);
    *out = made;
    return PGR_OK;
}

void pgr_locations_free(pgr_locations *locations) {
    free(locations->items);
    *locations = (pgr_locations){0};
}
