/* groups_grid.c - a small world in the terminal: a row per node, a column per GPU, in each place
 * the number of the group that the GPU is in; families side by side. */
#include "groups_format.h"

#include <inttypes.h>

enum { GRID_WIDTH = 100 /* columns of a terminal */, FAMILY_GAP = 3, NODE_WIDTH = 6 };

/* A number and a place on each side of it for the marks of the own rank. */
static size_t cell_width(const pgr_family *family) {
    return pgr_digits_count(family->count - 1) + 2;
}

static size_t family_width(const pgr_family *family, int64_t columns) {
    size_t cells = (size_t)columns * cell_width(family), name = strlen(family->name) + 1;
    return cells > name ? cells : name;
}

/* The cells of one family in one row. */
static void write_cells(pgr_writer *w, const pgr_groups *g, const pgr_family *family,
                        int64_t position, int64_t columns) {
    size_t width = cell_width(family) - 2;
    for (int64_t column = 0; column < columns; column++) {
        int64_t rank = position + column - g->plan.rank_offset;
        bool inside = rank >= 0 && rank < g->plan.world_size, own = inside && rank == g->rank;
        int64_t group = inside ? pgr_family_group(family, rank) : -1;
        pgr_writer_char(w, own ? '[' : ' ');
        if (group >= 0)
            pgr_writer_number_column(w, group, width);
        else
            pgr_writer_format(w, "%*s", (int)width, inside ? "-" : "");
        pgr_writer_char(w, own ? ']' : ' ');
    }
    size_t used = (size_t)columns * (width + 2);
    pgr_writer_column(w, "", family_width(family, columns) - used);
}

/* Families [from, to) beside each other. */
static void write_band(pgr_writer *w, const pgr_groups *g, const pgr_family *families,
                       int32_t count, const pgr_nodes *nodes, int64_t columns) {
    pgr_writer_column(w, "node", NODE_WIDTH);
    for (int32_t i = 0; i < count; i++) {
        pgr_writer_format(w, "%*s ", i == 0 ? 0 : FAMILY_GAP, "");
        pgr_writer_column(w, families[i].name,
                          i + 1 < count ? family_width(&families[i], columns) - 1 : 0);
    }
    for (int64_t node = nodes->first; node < nodes->first + nodes->count; node++) {
        pgr_writer_line_end(w);
        pgr_writer_number_column(w, node, 4);
        pgr_writer_column(w, "", NODE_WIDTH - 4);
        for (int32_t i = 0; i < count; i++) {
            pgr_writer_column(w, "", i == 0 ? 0 : FAMILY_GAP);
            write_cells(w, g, &families[i], node * nodes->gpus, columns);
        }
    }
    pgr_writer_line_end(w);
}

/* How many of the families fit beside each other; at least one. */
static int32_t band_of(const pgr_family *families, int32_t count, int64_t columns) {
    size_t width = NODE_WIDTH;
    for (int32_t i = 0; i < count; i++) {
        width += family_width(&families[i], columns) + (i > 0 ? FAMILY_GAP : 0);
        if (i > 0 && width > GRID_WIDTH)
            return i;
    }
    return count;
}

/* Whether one of the families says where groups lie: not one group, and not groups of one. */
static bool worth_it(const pgr_family *families, int32_t count) {
    for (int32_t i = 0; i < count; i++)
        if (families[i].count > 1 && families[i].size > 1)
            return true;
    return false;
}

void pgr_groups_write_grid(pgr_writer *w, const pgr_groups *g) {
    pgr_nodes nodes = pgr_groups_nodes(g);
    const pgr_family *families = g->families_named ? g->families : pgr_groups_default_family(g);
    int32_t count = g->families_named ? g->family_count : 1;
    if (g->plan.world_size > PGR_GROUPS_GRID_RANKS_MAX || !worth_it(families, count))
        return;
    int64_t columns = nodes.columns;
    for (int32_t i = 0; i < count; i++)
        if (NODE_WIDTH + family_width(&families[i], columns) > GRID_WIDTH)
            return;
    pgr_writer_format(w, "\nthe group of each GPU, a row per node of %" PRId64 "%s%s\n", nodes.gpus,
                      nodes.assumed ? " (cluster.gpus_per_node is not given)" : "",
                      g->rank != PGR_NIL ? "; [the rank's own]" : "");
    for (int32_t i = 0; i < count;) {
        int32_t band = band_of(families + i, count - i, columns);
        if (i > 0)
            pgr_writer_char(w, '\n');
        write_band(w, g, families + i, band, &nodes, columns);
        i += band;
    }
}
