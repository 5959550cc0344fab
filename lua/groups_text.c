/* groups_text.c - groups as a table for people. */
#include "groups_format.h"

#include <inttypes.h>

enum {
    WHOLE_GROUPS = 8,   /* a table prints up to this many groups in full */
    HEAD_GROUPS = 3,    /* and of more, these first ones and the last */
    WHOLE_MEMBERS = 16, /* the same for the members of a group */
    HEAD_MEMBERS = 6
};

/* A line for each view, their axes below each other. */
static void text_views(pgr_writer *w, const pgr_groups *r) {
    size_t widest = 0;
    for (int32_t view = 0; view < r->plan.view_count; view++) {
        size_t length = strlen(r->plan.views[view].name);
        widest = length > widest ? length : widest;
    }
    for (int32_t view = 0; view < r->plan.view_count; view++) {
        const char *names[PGR_AXES_MAX];
        int count = pgr_groups_view_axes(&r->plan, view, names);
        pgr_writer_text(w, r->plan.views[view].name);
        pgr_writer_column(
            w, " view:", sizeof " view: " - 1 + widest - strlen(r->plan.views[view].name));
        pgr_groups_write_axes(w, &r->plan, names, count, PGR_NIL);
        pgr_writer_char(w, '\n');
    }
}

void pgr_groups_write_text_head(pgr_writer *w, const pgr_groups *r) {
    pgr_writer_number(w, r->plan.world_size);
    pgr_writer_text(w, r->plan.world_size == 1 ? " rank, order " : " ranks, order ");
    pgr_writer_text(w, r->plan.order);
    pgr_writer_text(w, " (the first varies fastest)\n");
    if (r->plan.world_size_assumed) {
        pgr_writer_text(w, "no world size given: the smallest legal one, ");
        pgr_writer_number(w, r->plan.world_size);
        pgr_writer_char(w, '\n');
    }
    if (r->plan.rank_offset > 0) {
        pgr_writer_text(w, "rank_offset ");
        pgr_writer_number(w, r->plan.rank_offset);
        pgr_writer_text(w, ": ranks are ");
        pgr_writer_number(w, r->plan.rank_offset);
        pgr_writer_text(w, " to ");
        pgr_writer_number(w, r->plan.rank_offset + (r->plan.world_size - 1));
        pgr_writer_char(w, '\n');
    }
    text_views(w, r);
    if (r->rank != PGR_NIL) {
        const char *names[PGR_VIEWS_MAX * PGR_AXES_MAX];
        int count = pgr_groups_all_axes(&r->plan, names);
        pgr_writer_text(w, "rank ");
        pgr_writer_number(w, r->plan.rank_offset + r->rank);
        pgr_writer_text(w, " is at ");
        pgr_groups_write_axes(w, &r->plan, names, count, r->rank);
        pgr_writer_char(w, '\n');
        pgr_writer_text(w, r->holds);
    }
    pgr_writer_char(w, '\n');
}

/* Writes one group as "[0 1 2]", a long one as "[0 1 2 3 4 5 ... 63]", into `out`. */
static void group_text(const pgr_plan *plan, const pgr_family *family, int64_t group, char *out,
                       size_t bytes) {
    int64_t size = pgr_family_group_size(family, group);
    bool whole = size <= WHOLE_MEMBERS;
    int64_t shown = whole ? size : HEAD_MEMBERS;
    size_t length = 0;
    for (int64_t i = 0; i < shown; i++) {
        int64_t rank = plan->rank_offset + pgr_family_member(family, group, i);
        length +=
            (size_t)snprintf(out + length, bytes - length, "%c%" PRId64, i == 0 ? '[' : ' ', rank);
    }
    if (!whole) {
        int64_t last = plan->rank_offset + pgr_family_member(family, group, size - 1);
        length += (size_t)snprintf(out + length, bytes - length, " ... %" PRId64, last);
    }
    snprintf(out + length, bytes - length, "]");
}

/* ---- the table ---- */

enum { LINE_WIDTH = 120, GAP = 2 };

/* Widths of the columns in front of the members; each fits what is in it. */
typedef struct table {
    size_t name, megatron, first, second;
    size_t members; /* where the members begin */
} table;

static size_t wider(size_t width, size_t other) {
    return other > width ? other : width;
}

static int64_t first_number(const pgr_groups *r, const pgr_family *family) {
    return r->rank == PGR_NIL ? family->count : pgr_family_group(family, r->rank);
}

static int64_t second_number(const pgr_groups *r, const pgr_family *family) {
    return r->rank == PGR_NIL ? family->size : pgr_family_rank(family, r->rank);
}

static table table_of(const pgr_groups *r) {
    table t = {.name = 10, .megatron = 13, .first = 6, .second = 6};
    for (int32_t i = 0; i < r->family_count; i++) {
        const pgr_family *family = &r->families[i];
        t.name = wider(t.name, strlen(family->name));
        t.megatron = wider(t.megatron, strlen(pgr_groups_megatron_name(&r->plan, family)));
        t.first = wider(t.first, pgr_digits_count(first_number(r, family)));
        t.second = wider(t.second, pgr_digits_count(second_number(r, family)));
    }
    t.members = t.name + t.megatron + t.first + t.second + 4 * GAP;
    return t;
}

/* Puts `text` after what the line has, or at the members' column of a new line. */
static void put_wrapped(pgr_writer *w, const table *t, const char *text, size_t *column) {
    size_t length = strlen(text);
    if (*column > t->members && *column + 1 + length > LINE_WIDTH) {
        pgr_writer_char(w, '\n');
        pgr_writer_column(w, "", t->members);
        *column = t->members;
    } else if (*column > t->members) {
        pgr_writer_char(w, ' ');
        *column += 1;
    }
    pgr_writer_text(w, text);
    *column += length;
}

/* The groups of a family: all of a few, the first and the last of many. */
static void text_groups(pgr_writer *w, const table *t, const pgr_plan *plan,
                        const pgr_family *family) {
    bool whole = family->count <= WHOLE_GROUPS;
    int64_t shown = whole ? family->count : HEAD_GROUPS;
    size_t column = t->members;
    char text[(WHOLE_MEMBERS + 1) * PGR_DIGITS_BYTES];
    for (int64_t group = 0; group < shown; group++) {
        group_text(plan, family, group, text, sizeof text);
        put_wrapped(w, t, text, &column);
    }
    if (!whole) {
        put_wrapped(w, t, "...", &column);
        group_text(plan, family, family->count - 1, text, sizeof text);
        put_wrapped(w, t, text, &column);
        snprintf(text, sizeof text, "(%" PRId64 " more)", family->count - HEAD_GROUPS - 1);
        put_wrapped(w, t, text, &column);
    }
}

static void text_heading(pgr_writer *w, const table *t, const pgr_groups *r) {
    bool world = r->rank == PGR_NIL;
    pgr_writer_column(w, "family", t->name + GAP);
    pgr_writer_column(w, "Megatron-Core", t->megatron + GAP);
    pgr_writer_format(w, "%*s  %*s  members\n", (int)t->first, world ? "groups" : "group",
                      (int)t->second, world ? "size" : "rank");
}

static void text_own_group(pgr_writer *w, const pgr_groups *r, const pgr_family *family) {
    char text[(WHOLE_MEMBERS + 1) * PGR_DIGITS_BYTES] = "in no group";
    int64_t group = pgr_family_group(family, r->rank);
    if (group >= 0)
        group_text(&r->plan, family, group, text, sizeof text);
    pgr_writer_text(w, text);
}

void pgr_groups_write_text(pgr_writer *w, const pgr_groups *r) {
    table t = table_of(r);
    pgr_groups_write_text_head(w, r);
    text_heading(w, &t, r);
    for (int32_t i = 0; i < r->family_count; i++) {
        const pgr_family *family = &r->families[i];
        pgr_writer_column(w, family->name, t.name + GAP);
        pgr_writer_column(w, pgr_groups_megatron_name(&r->plan, family), t.megatron + GAP);
        pgr_writer_number_column(w, first_number(r, family), t.first);
        pgr_writer_number_column(w, second_number(r, family), t.second + GAP);
        pgr_writer_column(w, "", GAP);
        if (r->rank == PGR_NIL)
            text_groups(w, &t, &r->plan, family);
        else
            text_own_group(w, r, family);
        pgr_writer_char(w, '\n');
    }
    pgr_groups_write_grid(w, r);
}
