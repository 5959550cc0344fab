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

/* The number right-aligned in `width`; "-" for none. */
static void put_number_column(writer *w, int64_t value, int width) {
    char digits[NUMBER_BYTES];
    char *end = digits + sizeof digits;
    int64_t length = value < 0 ? 1 : end - digits_of((uint64_t)value, end);
    for (; length < width; length++)
        put_char(w, ' ');
    if (value < 0)
        put_char(w, '-');
    else
        put_number(w, value);
}

/* ---- walking ranks ---- */

/* An odometer over some digits: `value` is the sum of coordinate * stride, the first digit fastest;
 * after the last value it is 0 again. */
typedef struct odometer {
    int64_t value;
    int32_t count;
    struct {
        int64_t at, size, stride;
    } wheels[PGR_DIGITS_MAX];
} odometer;

static odometer odometer_over(const pgr_digit *digits, int32_t count) {
    odometer o = {.value = 0, .count = count};
    for (int32_t i = 0; i < count; i++) {
        o.wheels[i].at = 0;
        o.wheels[i].size = digits[i].size;
        o.wheels[i].stride = digits[i].stride;
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

/* The axes of a view in the order in which they are reported: Megatron-Core's in a fixed one, those
 * of a grid as they are declared. */
static int view_axes(const pgr_plan *plan, int32_t view, const char *names[PGR_AXES_MAX]) {
    static const char *const usual[] = {"tp", "cp", "dp", "etp", "ep", "edp", "pp"};
    const pgr_view *v = &plan->views[view];
    int count = 0;
    for (size_t i = 0; i < sizeof usual / sizeof usual[0] && !plan->general; i++)
        for (int32_t a = 0; a < v->axis_count; a++)
            if (strcmp(v->axes[a].name, usual[i]) == 0)
                names[count++] = v->axes[a].name;
    for (int32_t a = 0; a < v->axis_count && plan->general; a++)
        names[count++] = v->axes[a].name;
    return count;
}

/* Those of all views, each once. */
static int all_axes(const pgr_plan *plan, const char *names[PGR_VIEWS_MAX * PGR_AXES_MAX]) {
    int count = 0;
    for (int32_t view = 0; view < plan->view_count; view++) {
        const char *of_view[PGR_AXES_MAX];
        int more = view_axes(plan, view, of_view);
        for (int i = 0; i < more; i++) {
            bool told = false;
            for (int j = 0; j < count; j++)
                told = told || strcmp(names[j], of_view[i]) == 0;
            if (!told)
                names[count++] = of_view[i];
        }
    }
    return count;
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
        {"embedding", "embedding"},
        {"position-embedding", "position embedding"},
        {"optimizer-instance", "intra optimizer instance"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        pgr_family known;
        if (strcmp(names[i][0], family->name) == 0)
            return names[i][1];
        if (family->whole_axes && pgr_plan_family_find(plan, names[i][0], &known, NULL) == PGR_OK &&
            known.whole_axes && known.view == family->view && known.mask == family->mask)
            return names[i][1];
    }
    return "-";
}

/* ---- JSON ---- */

/* {"tp": 2, ...} of the sizes, or of the rank's coordinates. Names need no escaping. */
static void json_axes(writer *w, const pgr_groups *r, bool coordinates) {
    const char *names[PGR_VIEWS_MAX * PGR_AXES_MAX];
    int count = all_axes(&r->plan, names);
    put_char(w, '{');
    for (int i = 0; i < count; i++) {
        put_text(w, i == 0 ? "\"" : ", \"");
        put_text(w, names[i]);
        put_text(w, "\": ");
        put_number(w, coordinates ? pgr_plan_coordinate(&r->plan, names[i], r->rank)
                                  : pgr_plan_axis_size(&r->plan, names[i]));
    }
    put_char(w, '}');
}

/* The members of one group; `members` goes on to the next group's. */
static void json_members(writer *w, int64_t size, odometer *members, int64_t base) {
    put_char(w, '[');
    for (int64_t i = 0; i < size; i++) {
        if (i > 0)
            put_char(w, ',');
        put_number(w, base + members->value);
        odometer_step(members);
    }
    put_char(w, ']');
}
/* The members of one group by its number, for those that no odometer walks. */
static void json_numbered(writer *w, const pgr_family *family, int64_t group, int64_t offset) {
    int64_t size = pgr_family_group_size(family, group);
    put_char(w, '[');
    for (int64_t i = 0; i < size; i++) {
        if (i > 0)
            put_char(w, ',');
        put_number(w, offset + pgr_family_member(family, group, i));
    }
    put_char(w, ']');
}

/* All groups of a family: [[0,1],[2,3]]. */
static void json_groups(writer *w, const pgr_plan *plan, const pgr_family *family) {
    odometer wholes = odometer_over(family->others, family->other_count);
    odometer members = odometer_over(family->members, family->member_count);
    int64_t piece = 0;
    put_char(w, '[');
    for (int64_t group = 0; group < family->count && w->failed == 0; group++) {
        if (group > 0)
            put_char(w, ',');
        if (family->stage_count > 0)
            json_numbered(w, family, group, plan->rank_offset);
        else
            json_members(w, pgr_family_group_size(family, group), &members,
                         plan->rank_offset + wholes.value);
        if (++piece == family->pieces) {
            odometer_step(&wholes);
            piece = 0;
        }
    }
    put_char(w, ']');
}

/* The rank's own group: {"index": 1, "rank": 0, "size": 2, "members": [2,3]}; null where it is in
 * none. */
static void json_own_group(writer *w, const pgr_groups *r, const pgr_family *family) {
    int64_t group = pgr_family_group(family, r->rank), offset = r->plan.rank_offset;
    if (group < 0) {
        put_text(w, "null");
        return;
    }
    put_text(w, "{\"index\": ");
    put_number(w, group);
    put_text(w, ", \"rank\": ");
    put_number(w, pgr_family_rank(family, r->rank));
    put_text(w, ", \"size\": ");
    put_number(w, pgr_family_group_size(family, group));
    put_text(w, ", \"members\": ");
    if (family->pieces == 1 && family->stage_count == 0) {
        odometer members = odometer_over(family->members, family->member_count);
        json_members(w, family->size, &members, offset + pgr_family_member(family, group, 0));
    } else {
        json_numbered(w, family, group, offset);
    }
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

/* "tp 2, cp 1, dp 4, pp 1" of these axes. */
static void text_axes(writer *w, const pgr_groups *r, const char *const names[], int count,
                      bool coordinates) {
    for (int i = 0; i < count; i++) {
        put_text(w, i == 0 ? "" : ", ");
        put_text(w, names[i]);
        put_char(w, ' ');
        put_number(w, coordinates ? pgr_plan_coordinate(&r->plan, names[i], r->rank)
                                  : pgr_plan_axis_size(&r->plan, names[i]));
    }
}

/* A line for each view, their axes below each other. */
static void text_views(writer *w, const pgr_groups *r) {
    size_t widest = 0;
    for (int32_t view = 0; view < r->plan.view_count; view++) {
        size_t length = strlen(r->plan.views[view].name);
        widest = length > widest ? length : widest;
    }
    for (int32_t view = 0; view < r->plan.view_count; view++) {
        const char *names[PGR_AXES_MAX];
        int count = view_axes(&r->plan, view, names);
        put_text(w, r->plan.views[view].name);
        put_column(w, " view:", sizeof " view: " - 1 + widest - strlen(r->plan.views[view].name));
        text_axes(w, r, names, count, false);
        put_char(w, '\n');
    }
}

static void text_header(writer *w, const pgr_groups *r) {
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
    text_views(w, r);
    if (r->rank != PGR_NIL) {
        const char *names[PGR_VIEWS_MAX * PGR_AXES_MAX];
        int count = all_axes(&r->plan, names);
        put_text(w, "rank ");
        put_number(w, r->plan.rank_offset + r->rank);
        put_text(w, " is at ");
        text_axes(w, r, names, count, true);
        put_char(w, '\n');
        put_text(w, r->holds);
    }
    put_char(w, '\n');
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
            int64_t group = pgr_family_group(family, r->rank);
            text_row(w, &r->plan, family, group, pgr_family_rank(family, r->rank));
            if (group >= 0)
                group_text(&r->plan, family, group, own, sizeof own);
            put_text(w, group >= 0 ? own : "in no group");
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
