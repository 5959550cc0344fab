/* groups_svg.c - one picture of the world: a row per node, a cell per GPU, a colour per group, and
 * all that is known of a rank where the pointer rests on it. A panel for each family. */
#include "groups_format.h"

#include <inttypes.h>
#include <stdarg.h>

/* Seven hues that also those tell apart who see few colours (Paul Tol's "light" scheme, made for
 * dark text, without its grey, which here is a rank in no group, and its olive), each plain, paler
 * and darker. Colour i has hue i % 7 and shade i % 3, so groups that lie a power of two apart, as
 * neighbours in a picture do, differ in both. The order of the hues is that with the largest
 * smallest difference (CIELAB, also as seen without one kind of cones) between such neighbours. */
enum { COLOURS = 21 };
static const char *const colours[COLOURS] = {
    "#77aadd", "#b47783", "#f8f2d3", "#99ddff", "#838f21", "#abe0d0", "#ee8866",
    "#618bb6", "#ffe0e6", "#eedd88", "#618ea4", "#e1e9a3", "#44bb99", "#c77154",
    "#c5d9ef", "#ffaabb", "#938852", "#dcf4ff", "#bbcc33", "#36987c", "#f8cfc1"};

enum { MARGIN = 16, LINE = 18, TEXT_PX = 13, TITLE_PX = 17, PANEL_GAP = 28, BLOCK_GAP = 16 };
enum { LEGEND_CELL = 26, LEGEND_LEFT = 44, LEGEND_LINES = 2 };

/* Sizes in pixels. */
typedef struct layout {
    pgr_nodes nodes;
    int64_t cell_width, cell_height;
    int64_t number_px;     /* of the group numbers in the cells; 0: they do not fit */
    int64_t label_width;   /* of the nodes' numbers */
    int64_t blocks, rows;  /* columns of nodes, and nodes in each */
    int64_t width, height; /* of a panel */
    int64_t panels, panel_columns;
    int64_t head, total_width, total_height;
} layout;

/* ---- layout ---- */

/* What a line of text takes, on the safe side; no font is measured here. */
static int64_t text_width(const char *text, int px) {
    return (int64_t)strlen(text) * px * 6 / 10;
}

/* The cells of smaller worlds are larger; from 16384 ranks on there is no room for numbers. */
static void set_cells(layout *l, int64_t world, int64_t digits) {
    static const struct {
        int64_t world, height, px;
    } sizes[] = {{64, 40, 16},  {128, 32, 14},  {512, 24, 11},    {1024, 20, 10},
                 {4096, 16, 9}, {16384, 10, 0}, {INT64_MAX, 6, 0}};
    int i = 0;
    while (world > sizes[i].world)
        i++;
    l->cell_width = l->cell_height = sizes[i].height;
    l->number_px = sizes[i].px;
    int64_t wide = digits * l->number_px * 64 / 100 + 5;
    if (wide > l->cell_width)
        l->cell_width = wide;
}

static int64_t row_height(const layout *l) {
    return l->cell_height + 1 + l->cell_height / 10;
}

static int64_t block_width(const layout *l) {
    return l->label_width + l->nodes.columns * l->cell_width + BLOCK_GAP;
}

/* How far a picture is from three to two, which a screen shows well: 1 is just that. */
static double distance(int64_t width, int64_t height) {
    double ratio = (double)width / (double)height / 1.5;
    return ratio > 1 ? ratio : 1 / ratio;
}

/* As many columns of nodes as make the panel neither a ribbon nor a tower. */
static void set_blocks(layout *l) {
    double best = 0;
    for (int64_t blocks = 1; blocks <= l->nodes.count; blocks++) {
        int64_t rows = (l->nodes.count + blocks - 1) / blocks;
        double off = distance(blocks * block_width(l), rows * row_height(l) + LINE);
        if (l->nodes.count % rows != 0)
            off *= 1.5; /* columns of equal length show what repeats */
        if (blocks == 1 || off < best) {
            best = off;
            l->blocks = blocks;
            l->rows = rows;
        }
    }
    l->blocks = (l->nodes.count + l->rows - 1) / l->rows; /* none that is empty */
}

static void set_panels(layout *l) {
    double best = 0;
    for (int64_t columns = 1; columns <= l->panels; columns++) {
        int64_t rows = (l->panels + columns - 1) / columns;
        double off = distance(columns * (l->width + PANEL_GAP), rows * (l->height + PANEL_GAP));
        if (columns == 1 || off < best) {
            best = off;
            l->panel_columns = columns;
        }
    }
}

static layout layout_of(const pgr_groups *g, const pgr_family *families, int32_t count) {
    layout l = {.nodes = pgr_groups_nodes(g), .panels = count};
    int64_t digits = 1;
    for (int32_t i = 0; i < count; i++) {
        int64_t more = (int64_t)pgr_digits_count(families[i].count - 1);
        digits = more > digits ? more : digits;
    }
    set_cells(&l, g->plan.world_size, digits);
    l.label_width = (int64_t)pgr_digits_count(l.nodes.first + l.nodes.count - 1) * 7 + 10;
    if (l.label_width < 36)
        l.label_width = 36; /* "node" stands above */
    set_blocks(&l);
    l.width = l.blocks * block_width(&l) - BLOCK_GAP;
    if (l.width < 10 * LEGEND_CELL)
        l.width = 10 * LEGEND_CELL;
    l.height = (2 + LEGEND_LINES) * LINE + 14 + l.rows * row_height(&l);
    set_panels(&l);
    return l;
}

/* ---- head ---- */

enum { HEAD_LINES = PGR_VIEWS_MAX + 6, HEAD_BYTES = 768 };

typedef struct head {
    int count;
    char lines[HEAD_LINES][HEAD_BYTES];
} head;

static void head_line(head *h, const char *format, ...) PGR_PRINTF(2, 3);

static void head_line(head *h, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(h->lines[h->count++], HEAD_BYTES, format, arguments);
    va_end(arguments);
}

static void head_views(head *h, const pgr_plan *plan) {
    for (int32_t view = 0; view < plan->view_count; view++) {
        const char *names[PGR_AXES_MAX];
        int count = pgr_groups_view_axes(plan, view, names);
        char *line = h->lines[h->count++];
        size_t used = (size_t)snprintf(line, HEAD_BYTES, "%s view: ", plan->views[view].name);
        for (int i = 0; i < count && used < HEAD_BYTES; i++)
            used +=
                (size_t)snprintf(line + used, HEAD_BYTES - used, "%s%s %" PRId64,
                                 i == 0 ? "" : ", ", names[i], pgr_plan_axis_size(plan, names[i]));
    }
}

static void head_of(const pgr_groups *g, const layout *l, const pgr_family *families, head *h) {
    const pgr_plan *plan = &g->plan;
    h->count = 0;
    head_line(h, "%" PRId64 " rank%s, order %s%s", plan->world_size,
              plan->world_size == 1 ? "" : "s", plan->order,
              plan->world_size_assumed ? " (the smallest legal world: no size is given)" : "");
    head_views(h, plan);
    if (plan->rank_offset > 0)
        head_line(h, "rank_offset %" PRId64 ": ranks are %" PRId64 " to %" PRId64,
                  plan->rank_offset, plan->rank_offset, plan->rank_offset + (plan->world_size - 1));
    head_line(h, "a row per node of %" PRId64 " GPU%s%s; %s", l->nodes.gpus,
              l->nodes.gpus == 1 ? "" : "s",
              l->nodes.assumed ? " (assumed: cluster.gpus_per_node is not given)" : "",
              l->number_px == 0    ? "rest on a cell for its group and coordinates"
              : l->number_px >= 14 ? "in a cell the group's number, above it the rank"
                                   : "in a cell the group's number");
    if (!g->families_named)
        head_line(h, "family %s is drawn; --group picks others", families[0].name);
    if (g->rank != PGR_NIL)
        head_line(h, "rank %" PRId64 " has a thick border, the rest of its group a thin one",
                  plan->rank_offset + g->rank);
}

static const char style[] =
    "<style>\n"
    "text{font-family:'DejaVu Sans',Verdana,Helvetica,sans-serif;fill:#1a1a1a}\n"
    ".cell text,.key text{text-anchor:middle}\n"
    ".cell rect{stroke:#8c8c8c;stroke-width:.4}\n"
    ".quiet{fill:#595959}\n"
    ".none{fill:#d0d0d0}\n"
    ".far rect{fill-opacity:.25}\n.far text{fill:#6b6b6b}\n"
    ".near rect{stroke:#1a1a1a;stroke-width:1.5}\n"
    ".own rect{stroke:#1a1a1a;stroke-width:4}\n";

static void write_head(pgr_writer *w, const layout *l, const head *h) {
    pgr_writer_format(w,
                      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%" PRId64
                      "\" height=\"%" PRId64 "\" viewBox=\"0 0 %" PRId64 " %" PRId64 "\">\n<title>",
                      l->total_width, l->total_height, l->total_width, l->total_height);
    pgr_writer_xml(w, h->lines[0]);
    pgr_writer_text(w, "</title>\n");
    pgr_writer_text(w, style);
    for (int i = 0; i < COLOURS; i++)
        pgr_writer_format(w, ".c%d{fill:%s}\n", i, colours[i]);
    pgr_writer_format(
        w, "</style>\n<rect width=\"%" PRId64 "\" height=\"%" PRId64 "\" fill=\"#ffffff\"/>\n",
        l->total_width, l->total_height);
    for (int i = 0; i < h->count; i++) {
        pgr_writer_format(w, "<text x=\"%d\" y=\"%d\" font-size=\"%d\"%s>", MARGIN,
                          MARGIN + TITLE_PX + i * LINE, i == 0 ? TITLE_PX : TEXT_PX,
                          i == 0 ? " font-weight=\"bold\"" : " class=\"quiet\"");
        pgr_writer_xml(w, h->lines[i]);
        pgr_writer_text(w, "</text>\n");
    }
}

/* ---- cells ---- */

/* A number whose middle is at x, y. */
static void write_number(pgr_writer *w, int64_t x, int64_t y, int64_t px, const char *more,
                         int64_t number) {
    pgr_writer_format(w,
                      "<text x=\"%" PRId64 "\" y=\"%" PRId64 "\" font-size=\"%" PRId64
                      "\"%s>%" PRId64 "</text>",
                      x, y + px * 36 / 100, px, more, number);
}

/* Everything that is known of a rank, shown where the pointer rests on it. */
static void write_hover(pgr_writer *w, const pgr_groups *g, const layout *l, const pgr_family *f,
                        int64_t rank, int64_t group) {
    const char *names[PGR_VIEWS_MAX * PGR_AXES_MAX];
    int count = pgr_groups_all_axes(&g->plan, names);
    int64_t position = g->plan.rank_offset + rank;
    pgr_writer_format(w, "<title>rank %" PRId64 ", node %" PRId64 ", GPU %" PRId64 "\n", position,
                      position / l->nodes.gpus, position % l->nodes.gpus);
    pgr_groups_write_axes(w, &g->plan, names, count, rank);
    pgr_writer_char(w, '\n');
    pgr_writer_xml(w, f->name);
    if (group < 0)
        pgr_writer_text(w, ": in no group</title>");
    else
        pgr_writer_format(w, ": group %" PRId64 ", place %" PRId64 " of %" PRId64 "</title>", group,
                          pgr_family_rank(f, rank), pgr_family_group_size(f, group));
}

/* How a cell stands to the rank of --rank, as a class. */
static const char *standing(const pgr_groups *g, int64_t rank, int64_t group, int64_t own_group) {
    if (g->rank == PGR_NIL)
        return "";
    if (rank == g->rank)
        return " own";
    return own_group >= 0 && group == own_group ? " near" : " far";
}

static void write_fill(pgr_writer *w, int64_t group) {
    if (group < 0)
        pgr_writer_text(w, "<rect class=\"none\"");
    else
        pgr_writer_format(w, "<rect class=\"c%d\"", (int)(group % COLOURS));
}

static void write_cell(pgr_writer *w, const pgr_groups *g, const layout *l, const pgr_family *f,
                       int64_t rank, int64_t own_group, int64_t x, int64_t y) {
    int64_t group = pgr_family_group(f, rank), number = g->plan.rank_offset + rank;
    int64_t gap = l->cell_height >= 24 ? 2 : 1;
    bool two = l->number_px >= 14 && (int64_t)pgr_digits_count(number) * 6 <= l->cell_width - 4;
    pgr_writer_format(w, "<g class=\"cell%s\">", standing(g, rank, group, own_group));
    write_hover(w, g, l, f, rank, group);
    write_fill(w, group);
    pgr_writer_format(
        w, " x=\"%" PRId64 "\" y=\"%" PRId64 "\" width=\"%" PRId64 "\" height=\"%" PRId64 "\"/>", x,
        y, l->cell_width - gap, l->cell_height - gap);
    int64_t middle = x + (l->cell_width - gap) / 2, centre = y + (l->cell_height - gap) / 2;
    if (two)
        write_number(w, middle, y + 7, 9, "", number);
    if (l->number_px > 0 && group >= 0)
        write_number(w, middle, centre + (two ? 5 : 0), l->number_px, "", group);
    pgr_writer_text(w, "</g>\n");
}

/* Every how many of `size` pixels a label of `room` pixels can stand. */
static int64_t step_of(int64_t size, int64_t room) {
    return (room + size - 1) / size;
}

/* The numbers of the GPUs above a column of nodes. */
static void write_columns(pgr_writer *w, const layout *l, int64_t x, int64_t y) {
    int64_t step = step_of(l->cell_width, (int64_t)pgr_digits_count(l->nodes.columns - 1) * 7 + 4);
    pgr_writer_format(w,
                      "<text class=\"quiet\" x=\"%" PRId64 "\" y=\"%" PRId64
                      "\" font-size=\"10\">node</text>\n",
                      x, y);
    for (int64_t column = 0; column < l->nodes.columns; column += step)
        write_number(w, x + l->label_width + column * l->cell_width + l->cell_width / 2, y - 3, 10,
                     " class=\"quiet\" text-anchor=\"middle\"", column);
    pgr_writer_char(w, '\n');
}

/* One node: its number and those of its GPUs that are in this world. */
static void write_node(pgr_writer *w, const pgr_groups *g, const layout *l, const pgr_family *f,
                       int64_t node, int64_t own_group, int64_t x, int64_t y) {
    int64_t row = (node - l->nodes.first) % l->rows;
    if (row % step_of(row_height(l), 10) == 0)
        write_number(w, x, y + l->cell_height / 2, l->cell_height < 14 ? 9 : 11, " class=\"quiet\"",
                     node);
    for (int64_t column = 0; column < l->nodes.columns && w->failed == 0; column++) {
        int64_t rank = node * l->nodes.gpus + column - g->plan.rank_offset;
        if (rank >= 0 && rank < g->plan.world_size)
            write_cell(w, g, l, f, rank, own_group, x + l->label_width + column * l->cell_width, y);
    }
}

/* ---- panels ---- */

/* The first groups with their colours, and what else there is to know of them. */
static void write_legend(pgr_writer *w, const layout *l, const pgr_family *f, int64_t x,
                         int64_t y) {
    int64_t cell = LEGEND_CELL, fit = (l->width - LEGEND_LEFT) / cell, shown = f->count;
    if (shown > COLOURS)
        shown = COLOURS;
    if (shown > fit)
        shown = fit;
    pgr_writer_format(w,
                      "<text x=\"%" PRId64 "\" y=\"%" PRId64
                      "\" font-size=\"11\" class=\"quiet\">group</text>\n",
                      x, y + 12);
    for (int64_t group = 0; group < shown; group++) {
        int64_t at = x + LEGEND_LEFT + group * cell;
        pgr_writer_text(w, "<g class=\"key\">");
        write_fill(w, group);
        pgr_writer_format(
            w, " x=\"%" PRId64 "\" y=\"%" PRId64 "\" width=\"%" PRId64 "\" height=\"16\"/>", at, y,
            cell - 2);
        write_number(w, at + cell / 2 - 1, y + 8, 11, "", group);
        pgr_writer_text(w, "</g>\n");
    }
    pgr_writer_format(w,
                      "<text x=\"%" PRId64 "\" y=\"%" PRId64 "\" font-size=\"11\" class=\"quiet\">",
                      x, y + 12 + LINE);
    if (f->count > shown)
        pgr_writer_format(w, "and so on to group %" PRId64, f->count - 1);
    if (f->count > COLOURS)
        pgr_writer_format(w, ", in %d colours again and again", COLOURS);
    if (f->stage_count > 0)
        pgr_writer_format(w, "%sgrey: in no group", f->count > shown ? "; " : "");
    pgr_writer_text(w, "</text>\n");
}

static void write_panel(pgr_writer *w, const pgr_groups *g, const layout *l, const pgr_family *f,
                        int64_t x, int64_t y) {
    const char *name = pgr_groups_megatron_name(&g->plan, f);
    int64_t own_group = g->rank == PGR_NIL ? -1 : pgr_family_group(f, g->rank);
    pgr_writer_format(w,
                      "<g class=\"panel\">\n<text x=\"%" PRId64 "\" y=\"%" PRId64
                      "\" font-size=\"14\" font-weight=\"bold\">",
                      x, y + 14);
    pgr_writer_xml(w, f->name);
    pgr_writer_format(w,
                      "<tspan dx=\"8\" font-weight=\"normal\" font-size=\"12\">%s%s%" PRId64
                      " group%s of %" PRId64 "</tspan></text>\n",
                      strcmp(name, "-") == 0 ? "" : name, strcmp(name, "-") == 0 ? "" : ", ",
                      f->count, f->count == 1 ? "" : "s", f->size);
    y += 2 * LINE + 2;
    for (int64_t block = 0; block < l->blocks; block++) {
        int64_t left = x + block * block_width(l);
        write_columns(w, l, left, y - 4);
        for (int64_t row = 0; row < l->rows && w->failed == 0; row++) {
            int64_t node = block * l->rows + row;
            if (node < l->nodes.count)
                write_node(w, g, l, f, l->nodes.first + node, own_group, left,
                           y + row * row_height(l));
        }
    }
    write_legend(w, l, f, x, y + l->rows * row_height(l) + 8);
    pgr_writer_text(w, "</g>\n");
}

void pgr_groups_write_svg(pgr_writer *w, const pgr_groups *g) {
    const pgr_family *families = g->families_named ? g->families : pgr_groups_default_family(g);
    int32_t count = g->families_named ? g->family_count : 1;
    layout l = layout_of(g, families, count);
    head h;
    head_of(g, &l, families, &h);
    int64_t panel_rows = (l.panels + l.panel_columns - 1) / l.panel_columns;
    l.head = MARGIN + h.count * LINE + 12;
    l.total_width = 2 * MARGIN + l.panel_columns * (l.width + PANEL_GAP) - PANEL_GAP;
    for (int i = 0; i < h.count; i++) {
        int64_t width = 2 * MARGIN + text_width(h.lines[i], i == 0 ? TITLE_PX : TEXT_PX);
        l.total_width = width > l.total_width ? width : l.total_width;
    }
    l.total_height = l.head + panel_rows * (l.height + PANEL_GAP) - PANEL_GAP + MARGIN;
    write_head(w, &l, &h);
    for (int32_t i = 0; i < count; i++)
        write_panel(w, g, &l, &families[i], MARGIN + i % l.panel_columns * (l.width + PANEL_GAP),
                    l.head + i / l.panel_columns * (l.height + PANEL_GAP));
    pgr_writer_text(w, "</svg>\n");
}
