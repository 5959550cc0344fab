/* groups_json.c - groups as JSON, streamed: an odometer walks the ranks. */
#include "groups_format.h"

/* {"tp": 2, ...} of the sizes, or of the rank's coordinates. Names need no escaping. */
static void json_axes(pgr_writer *w, const pgr_groups *r, bool coordinates) {
    const char *names[PGR_VIEWS_MAX * PGR_AXES_MAX];
    int count = pgr_groups_all_axes(&r->plan, names);
    pgr_writer_char(w, '{');
    for (int i = 0; i < count; i++) {
        pgr_writer_text(w, i == 0 ? "\"" : ", \"");
        pgr_writer_text(w, names[i]);
        pgr_writer_text(w, "\": ");
        pgr_writer_number(w, coordinates ? pgr_plan_coordinate(&r->plan, names[i], r->rank)
                                         : pgr_plan_axis_size(&r->plan, names[i]));
    }
    pgr_writer_char(w, '}');
}

/* Which ranks a group has, for both ways of finding them: by an odometer, which is fast, or by
 * their numbers in the group. Neither goes on once writing has failed. */
static void json_members(pgr_writer *w, int64_t size, pgr_odometer *members, int64_t base) {
    pgr_writer_char(w, '[');
    for (int64_t i = 0; i < size && w->failed == 0; i++) {
        char *at = pgr_writer_room(w, PGR_DIGITS_BYTES), *end = at;
        if (i > 0)
            *end++ = ',';
        end = pgr_digits_put(end, (uint64_t)(base + members->value));
        w->used += (size_t)(end - at);
        pgr_odometer_step(members);
    }
    pgr_writer_char(w, ']');
}

static void json_numbered(pgr_writer *w, const pgr_family *family, int64_t group, int64_t offset) {
    int64_t size = pgr_family_group_size(family, group);
    pgr_writer_char(w, '[');
    for (int64_t i = 0; i < size && w->failed == 0; i++) {
        if (i > 0)
            pgr_writer_char(w, ',');
        pgr_writer_number(w, offset + pgr_family_member(family, group, i));
    }
    pgr_writer_char(w, ']');
}

/* All groups of a family: [[0,1],[2,3]]. */
static void json_groups(pgr_writer *w, const pgr_plan *plan, const pgr_family *family) {
    pgr_odometer wholes = pgr_odometer_over(family->others, family->other_count);
    pgr_odometer members = pgr_odometer_over(family->members, family->member_count);
    int64_t piece = 0;
    pgr_writer_char(w, '[');
    for (int64_t group = 0; group < family->count && w->failed == 0; group++) {
        if (group > 0)
            pgr_writer_char(w, ',');
        if (family->stage_count > 0)
            json_numbered(w, family, group, plan->rank_offset);
        else
            json_members(w, pgr_family_group_size(family, group), &members,
                         plan->rank_offset + wholes.value);
        if (++piece == family->pieces) {
            pgr_odometer_step(&wholes);
            piece = 0;
        }
    }
    pgr_writer_char(w, ']');
}

/* The rank's own group: {"index": 1, "rank": 0, "size": 2, "members": [2,3]}; null where it is in
 * none. */
static void json_own_group(pgr_writer *w, const pgr_groups *r, const pgr_family *family) {
    int64_t group = pgr_family_group(family, r->rank), offset = r->plan.rank_offset;
    if (group < 0) {
        pgr_writer_text(w, "null");
        return;
    }
    pgr_writer_text(w, "{\"index\": ");
    pgr_writer_number(w, group);
    pgr_writer_text(w, ", \"rank\": ");
    pgr_writer_number(w, pgr_family_rank(family, r->rank));
    pgr_writer_text(w, ", \"size\": ");
    pgr_writer_number(w, pgr_family_group_size(family, group));
    pgr_writer_text(w, ", \"members\": ");
    if (family->pieces == 1 && family->stage_count == 0) {
        pgr_odometer members = pgr_odometer_over(family->members, family->member_count);
        json_members(w, family->size, &members, offset + pgr_family_member(family, group, 0));
    } else {
        json_numbered(w, family, group, offset);
    }
    pgr_writer_char(w, '}');
}

void pgr_groups_write_json_head(pgr_writer *w, const pgr_groups *r) {
    pgr_writer_text(w, "{\"world_size\": ");
    pgr_writer_number(w, r->plan.world_size);
    if (r->plan.world_size_assumed)
        pgr_writer_text(w, ", \"world_size_assumed\": true");
    pgr_writer_text(w, ", \"order\": \"");
    pgr_writer_text(w, r->plan.order);
    pgr_writer_text(w, "\",\n \"axes\": ");
    json_axes(w, r, false);
    if (r->rank != PGR_NIL) {
        pgr_writer_text(w, ",\n \"rank\": ");
        pgr_writer_number(w, r->plan.rank_offset + r->rank);
        pgr_writer_text(w, ", \"coordinates\": ");
        json_axes(w, r, true);
    }
}

void pgr_groups_write_json(pgr_writer *w, const pgr_groups *r) {
    pgr_groups_write_json_head(w, r);
    pgr_writer_text(w, ",\n \"groups\": {");
    for (int32_t i = 0; i < r->family_count; i++) {
        pgr_writer_text(w, i == 0 ? "\"" : ",\n  \"");
        pgr_writer_text(w, r->families[i].name);
        pgr_writer_text(w, "\": ");
        if (r->rank == PGR_NIL)
            json_groups(w, &r->plan, &r->families[i]);
        else
            json_own_group(w, r, &r->families[i]);
    }
    pgr_writer_text(w, "}}\n");
}
