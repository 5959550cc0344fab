/* groups_print.c - groups as a table or as JSON.
 *
 * The output of a million ranks is a hundred megabytes, so it is streamed: groups are walked with
 * an odometer over the axes' strides, digits are written by hand into one fixed buffer, and nothing
 * is kept per rank. */
#include "groups.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum {
    BUFFER_BYTES = 64 * 1024,
    NUMBER_BYTES = 24,  /* the longest 64-bit number, a separator and some room */
    WHOLE_GROUPS = 8,   /* a table prints up to this many groups in full */
    HEAD_GROUPS = 3,    /* and of more, these first ones and the last */
    WHOLE_MEMBERS = 16, /* the same for the members of a group */
    HEAD_MEMBERS = 6
};

/* ---- the writer ---- */

typedef struct writer {
    FILE *out;
    int failed; /* errno of the first write that failed, 0 while all is well */
    size_t used;
    char buffer[BUFFER_BYTES];
} writer;

static void writer_flush(writer *w) {
    if (w->failed == 0 && fwrite(w->buffer, 1, w->used, w->out) != w->used)
        w->failed = errno != 0 ? errno : EIO;
    w->used = 0;
}

static void writer_room(writer *w, size_t bytes) {
    if (BUFFER_BYTES - w->used < bytes)
        writer_flush(w);
}

static void put_char(writer *w, char c) {
    writer_room(w, 1);
    w->buffer[w->used++] = c;
}

static void put_text(writer *w, const char *text) {
    for (; *text != '\0'; text++)
        put_char(w, *text);
}

/* Text, filled up with spaces to `width`. */
static void put_column(writer *w, const char *text, size_t width) {
    put_text(w, text);
    for (size_t length = strlen(text); length < width; length++)
        put_char(w, ' ');
}

/* The digits of a number >= 0, from the right, two at a time; returns where they begin. */
static char *digits_of(uint64_t value, char *end) {
    static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                                "25262728293031323334353637383940414243444546474849"
                                "50515253545556575859606162636465666768697071727374"
                                "75767778798081828384858687888990919293949596979899";
    while (value >= 100) {
        const char *pair = &pairs[value % 100 * 2];
        value /= 100;
        *--end = pair[1];
        *--end = pair[0];
    }
    if (value >= 10) {
        *--end = pairs[value * 2 + 1];
        *--end = pairs[value * 2];
    } else {
        *--end = (char)('0' + value);
    }
    return end;
}

static void put_number(writer *w, int64_t value) {
    char digits[NUMBER_BYTES];
    char *end = digits + sizeof digits;
    char *begin = digits_of((uint64_t)value, end);
    writer_room(w, NUMBER_BYTES);
    memcpy(w->buffer + w->used, begin, (size_t)(end - begin));
    w->used += (size_t)(end - begin);
}

/* The number right-aligned in `width`. */
static void put_number_column(writer *w, int64_t value, int width) {
    char digits[NUMBER_BYTES];
    char *end = digits + sizeof digits;
    for (int64_t length = end - digits_of((uint64_t)value, end); length < width; length++)
        put_char(w, ' ');
    put_number(w, value);
}

/* ---- walking ranks ---- */

/* An odometer over some axes of a view: `value` is the sum of coordinate * stride, the first axis
 * fastest; after the last value it is 0 again. */
typedef struct odometer {
    int64_t value;
    int32_t count;
    struct {
        int64_t at, size, stride;
    } wheels[PGR_AXES_MAX];
} odometer;

static odometer odometer_over(const pgr_view *view, uint32_t mask) {
    odometer o = {.value = 0};
    for (int32_t i = 0; i < view->axis_count; i++) {
        if ((mask >> i & 1u) != 0 && view->axes[i].size > 1) {
            o.wheels[o.count].at = 0;
            o.wheels[o.count].size = view->axes[i].size;
            o.wheels[o.count++].stride = view->axes[i].stride;
        }
    }
    return o;
}

static void odometer_step(odometer *o) {
    for (int32_t i = 0; i < o->count; i++) {
        o->value += o->wheels[i].stride;
        if (++o->wheels[i].at < o->wheels[i].size)
            return;
        o->value -= o->wheels[i].size * o->wheels[i].stride;
        o->wheels[i].at = 0;
    }
}

/* ---- names ---- */

/* The axes in the order in which they are reported; the last three are the expert view's own. */
static const char *const axis_names[] = {"tp", "cp", "dp", "pp", "etp", "ep", "edp"};
enum { DENSE_AXES = 4, ALL_AXES = 7 };

static int axis_count(const pgr_plan *plan) {
    return plan->view_count == 2 ? ALL_AXES : DENSE_AXES;
}

/* What Megatron-Core calls a family. */
static const char *megatron_name(const pgr_plan *plan, const pgr_family *family) {
    static const char *const names[][2] = {
        {"tp", "tensor model parallel"},
        {"cp", "context parallel"},
        {"dp", "data parallel"},
        {"dp-cp", "data parallel with CP"},
        {"pp", "pipeline model parallel"},
        {"tp-pp", "model parallel"},
        {"tp-cp", "tensor and context parallel"},
        {"tp-dp", "tensor and data parallel"},
        {"tp-dp-cp", "tensor, data and context"},
        {"ep", "expert model parallel"},
        {"etp", "expert tensor parallel"},
        {"etp-ep", "expert tensor and model"},
        {"etp-ep-pp", "expert tensor, model, pipeline"},
        {"edp", "expert data parallel"},
    };
    for (int32_t i = 0; i < pgr_plan_family_count(plan); i++) {
        pgr_family known = pgr_plan_family_at(plan, i);
        if (known.view != family->view || known.mask != family->mask)
            continue;
        for (size_t j = 0; j < sizeof names / sizeof names[0]; j++)
            if (strcmp(names[j][0], known.name) == 0)
                return names[j][1];
    }
    return "-";
}

/* ---- JSON ---- */

/* {"tp": 2, ...} of the sizes, or of the rank's coordinates. Names need no escaping: they are made
 * of axes. */
static void json_axes(writer *w, const pgr_groups *r, bool coordinates) {
    put_char(w, '{');
    for (int i = 0; i < axis_count(&r->plan); i++) {
        put_text(w, i == 0 ? "\"" : ", \"");
        put_text(w, axis_names[i]);
        put_text(w, "\": ");
        put_number(w, coordinates ? pgr_plan_coordinate(&r->plan, axis_names[i], r->rank)
                                  : pgr_plan_axis_size(&r->plan, axis_names[i]));
    }
    put_char(w, '}');
}

static void json_members(writer *w, const pgr_family *family, odometer *members, int64_t base) {
    put_char(w, '[');
    for (int64_t i = 0; i < family->size; i++) {
        if (i > 0)
            put_char(w, ',');
        put_number(w, base + members->value);
        odometer_step(members);
    }
    put_char(w, ']');
}

/* All groups of a family: [[0,1],[2,3]]. */
static void json_groups(writer *w, const pgr_plan *plan, const pgr_family *family) {
    const pgr_view *view = &plan->views[family->view];
    odometer groups = odometer_over(view, ~family->mask);
    odometer members = odometer_over(view, family->mask);
    put_char(w, '[');
    for (int64_t group = 0; group < family->count && w->failed == 0; group++) {
        if (group > 0)
            put_char(w, ',');
        json_members(w, family, &members, plan->rank_offset + groups.value);
        odometer_step(&groups);
    }
    put_char(w, ']');
}

/* The rank's own group: {"index": 1, "rank": 0, "size": 2, "members": [2,3]}. */
static void json_own_group(writer *w, const pgr_groups *r, const pgr_family *family) {
    const pgr_view *view = &r->plan.views[family->view];
    int64_t group = pgr_family_group(&r->plan, family, r->rank);
    odometer members = odometer_over(view, family->mask);
    put_text(w, "{\"index\": ");
    put_number(w, group);
    put_text(w, ", \"rank\": ");
    put_number(w, pgr_family_rank(&r->plan, family, r->rank));
    put_text(w, ", \"size\": ");
    put_number(w, family->size);
    put_text(w, ", \"members\": ");
    json_members(w, family, &members,
                 r->plan.rank_offset + pgr_family_member(&r->plan, family, group, 0));
    put_char(w, '}');
}

static void write_json(writer *w, const pgr_groups *r) {
    put_text(w, "{\"world_size\": ");
    put_number(w, r->plan.world_size);
    if (r->plan.world_size_assumed)
        put_text(w, ", \"world_size_assumed\": true");
    put_text(w, ", \"order\": \"");
    put_text(w, r->plan.order);
    put_text(w, "\",\n \"axes\": ");
    json_axes(w, r, false);
    if (r->rank != PGR_NIL) {
        put_text(w, ",\n \"rank\": ");
        put_number(w, r->plan.rank_offset + r->rank);
        put_text(w, ", \"coordinates\": ");
        json_axes(w, r, true);
    }
    put_text(w, ",\n \"groups\": {");
    for (int32_t i = 0; i < r->family_count; i++) {
        put_text(w, i == 0 ? "\"" : ",\n  \"");
        put_text(w, r->families[i].name);
        put_text(w, "\": ");
        if (r->rank == PGR_NIL)
            json_groups(w, &r->plan, &r->families[i]);
        else
            json_own_group(w, r, &r->families[i]);
    }
    put_text(w, "}}\n");
}

/* ---- text ---- */

/* "tp 2, cp 1, dp 4, pp 1" of the axes [first, end). */
static void text_axes(writer *w, const pgr_groups *r, int first, int end, bool coordinates) {
    for (int i = first; i < end; i++) {
        put_text(w, i == first ? "" : ", ");
        put_text(w, axis_names[i]);
        put_char(w, ' ');
        put_number(w, coordinates ? pgr_plan_coordinate(&r->plan, axis_names[i], r->rank)
                                  : pgr_plan_axis_size(&r->plan, axis_names[i]));
    }
}

static void text_header(writer *w, const pgr_groups *r) {
    bool experts = r->plan.view_count == 2;
    put_number(w, r->plan.world_size);
    put_text(w, r->plan.world_size == 1 ? " rank, order " : " ranks, order ");
    put_text(w, r->plan.order);
    put_text(w, " (the first varies fastest)\n");
    if (r->plan.world_size_assumed) {
        put_text(w, "no world size given: the smallest legal one, ");
        put_number(w, r->plan.world_size);
        put_char(w, '\n');
    }
    if (r->plan.rank_offset > 0) {
        put_text(w, "rank_offset ");
        put_number(w, r->plan.rank_offset);
        put_text(w, ": ranks are ");
        put_number(w, r->plan.rank_offset);
        put_text(w, " to ");
        put_number(w, r->plan.rank_offset + (r->plan.world_size - 1));
        put_char(w, '\n');
    }
    put_text(w, experts ? "dense view:  " : "dense view: ");
    text_axes(w, r, 0, DENSE_AXES, false);
    put_char(w, '\n');
    if (experts) {
        put_text(w, "expert view: ");
        text_axes(w, r, DENSE_AXES, ALL_AXES, false);
        put_text(w, ", pp ");
        put_number(w, pgr_plan_axis_size(&r->plan, "pp"));
        put_char(w, '\n');
    }
    if (r->rank != PGR_NIL) {
        put_text(w, "rank ");
        put_number(w, r->plan.rank_offset + r->rank);
        put_text(w, " is at ");
        text_axes(w, r, 0, axis_count(&r->plan), true);
        put_char(w, '\n');
    }
    put_char(w, '\n');
}

/* Writes one group as "[0 1 2]", a long one as "[0 1 2 3 4 5 ... 63]", into `out`. */
static void group_text(const pgr_plan *plan, const pgr_family *family, int64_t group, char *out,
                       size_t bytes) {
    bool whole = family->size <= WHOLE_MEMBERS;
    int64_t shown = whole ? family->size : HEAD_MEMBERS;
    size_t length = 0;
    for (int64_t i = 0; i < shown; i++) {
        int64_t rank = plan->rank_offset + pgr_family_member(plan, family, group, i);
        length +=
            (size_t)snprintf(out + length, bytes - length, "%c%" PRId64, i == 0 ? '[' : ' ', rank);
    }
    if (!whole) {
        int64_t last = plan->rank_offset + pgr_family_member(plan, family, group, family->size - 1);
        length += (size_t)snprintf(out + length, bytes - length, " ... %" PRId64, last);
    }
    snprintf(out + length, bytes - length, "]");
}

enum { LINE_WIDTH = 120, NAME_WIDTH = 12, MEGATRON_WIDTH = 32, NUMBER_WIDTH = 8 };
enum { MEMBERS_COLUMN = NAME_WIDTH + MEGATRON_WIDTH + 2 * NUMBER_WIDTH + 2 };

/* Puts `text` after what the line has, or at the members' column of a new line. */
static void put_wrapped(writer *w, const char *text, size_t *column) {
    size_t length = strlen(text);
    if (*column > MEMBERS_COLUMN && *column + 1 + length > LINE_WIDTH) {
        put_char(w, '\n');
        put_column(w, "", MEMBERS_COLUMN);
        *column = MEMBERS_COLUMN;
    } else if (*column > MEMBERS_COLUMN) {
        put_char(w, ' ');
        *column += 1;
    }
    put_text(w, text);
    *column += length;
}

/* The groups of a family: all of a few, the first and the last of many. */
static void text_groups(writer *w, const pgr_plan *plan, const pgr_family *family) {
    bool whole = family->count <= WHOLE_GROUPS;
    int64_t shown = whole ? family->count : HEAD_GROUPS;
    size_t column = MEMBERS_COLUMN;
    char text[(WHOLE_MEMBERS + 1) * NUMBER_BYTES];
    for (int64_t group = 0; group < shown; group++) {
        group_text(plan, family, group, text, sizeof text);
        put_wrapped(w, text, &column);
    }
    if (!whole) {
        put_wrapped(w, "...", &column);
        group_text(plan, family, family->count - 1, text, sizeof text);
        put_wrapped(w, text, &column);
        snprintf(text, sizeof text, "(%" PRId64 " more)", family->count - HEAD_GROUPS - 1);
        put_wrapped(w, text, &column);
    }
}

/* The columns in front of the members. */
static void text_row(writer *w, const pgr_plan *plan, const pgr_family *family, int64_t first,
                     int64_t second) {
    /* A family that was asked for by a long name keeps a space to its neighbour. */
    put_column(w, family->name, NAME_WIDTH);
    if (strlen(family->name) >= NAME_WIDTH)
        put_char(w, ' ');
    put_column(w, megatron_name(plan, family), MEGATRON_WIDTH);
    put_number_column(w, first, NUMBER_WIDTH);
    put_number_column(w, second, NUMBER_WIDTH);
    put_text(w, "  ");
}

static void text_heading(writer *w, const char *first, const char *second) {
    put_column(w, "family", NAME_WIDTH);
    put_column(w, "Megatron-Core", MEGATRON_WIDTH);
    put_column(w, "", NUMBER_WIDTH - strlen(first));
    put_text(w, first);
    put_column(w, "", NUMBER_WIDTH - strlen(second));
    put_text(w, second);
    put_text(w, "  members\n");
}

static void write_text(writer *w, const pgr_groups *r) {
    char own[(WHOLE_MEMBERS + 1) * NUMBER_BYTES];
    text_header(w, r);
    text_heading(w, r->rank == PGR_NIL ? "groups" : "group", r->rank == PGR_NIL ? "size" : "rank");
    for (int32_t i = 0; i < r->family_count; i++) {
        const pgr_family *family = &r->families[i];
        if (r->rank == PGR_NIL) {
            text_row(w, &r->plan, family, family->count, family->size);
            text_groups(w, &r->plan, family);
        } else {
            int64_t group = pgr_family_group(&r->plan, family, r->rank);
            text_row(w, &r->plan, family, group, pgr_family_rank(&r->plan, family, r->rank));
            group_text(&r->plan, family, group, own, sizeof own);
            put_text(w, own);
        }
        put_char(w, '\n');
    }
}

/* ---- either ---- */

pgr_status pgr_groups_print(const pgr_groups *groups, FILE *out, pgr_error *error) {
    writer w;
    w.out = out;
    w.failed = 0;
    w.used = 0;
    if (groups->format == PGR_GROUPS_JSON)
        write_json(&w, groups);
    else
        write_text(&w, groups);
    writer_flush(&w);
    if (w.failed == 0 && fflush(out) != 0)
        w.failed = errno;
    if (w.failed != 0)
        return pgr_error_set(error, PGR_SYSTEM, "cannot write the groups: %s", strerror(w.failed));
    return PGR_OK;
}
