/* groups_csv.c - groups for spreadsheets and scripts: a line for each member of each group. */
#include "groups_format.h"

/* "tp,3," in front of each line of a group. */
typedef struct prefix {
    char text[PGR_NAME_MAX + PGR_DIGITS_BYTES + 2];
    size_t length;
} prefix;

static void prefix_set(prefix *p, const pgr_family *family, int64_t group) {
    size_t length = strlen(family->name);
    memcpy(p->text, family->name, length);
    p->text[length] = ',';
    char *end = pgr_digits_put(p->text + length + 1, (uint64_t)group);
    *end++ = ',';
    p->length = (size_t)(end - p->text);
}

static void csv_line(pgr_writer *w, const prefix *p, int64_t place, int64_t rank) {
    char *at = pgr_writer_room(w, sizeof p->text + 2 * PGR_DIGITS_BYTES), *end = at + p->length;
    memcpy(at, p->text, p->length);
    end = pgr_digits_put(end, (uint64_t)place);
    *end++ = ',';
    end = pgr_digits_put(end, (uint64_t)rank);
    *end++ = '\n';
    w->used += (size_t)(end - at);
}

/* One group, its members by their numbers in it. */
static void csv_group(pgr_writer *w, const pgr_family *family, int64_t group, int64_t offset) {
    int64_t size = pgr_family_group_size(family, group);
    prefix p;
    prefix_set(&p, family, group);
    for (int64_t place = 0; place < size && w->failed == 0; place++)
        csv_line(w, &p, place, offset + pgr_family_member(family, group, place));
}

/* All groups of a family. An odometer walks those that it can. */
static void csv_groups(pgr_writer *w, const pgr_family *family, int64_t offset) {
    pgr_odometer wholes = pgr_odometer_over(family->others, family->other_count);
    pgr_odometer members = pgr_odometer_over(family->members, family->member_count);
    bool walked = family->pieces == 1 && family->stage_count == 0;
    prefix p;
    for (int64_t group = 0; group < family->count && w->failed == 0; group++) {
        if (!walked) {
            csv_group(w, family, group, offset);
            continue;
        }
        prefix_set(&p, family, group);
        for (int64_t place = 0; place < family->size && w->failed == 0; place++) {
            csv_line(w, &p, place, offset + wholes.value + members.value);
            pgr_odometer_step(&members);
        }
        pgr_odometer_step(&wholes);
    }
}

void pgr_groups_write_csv(pgr_writer *w, const pgr_groups *g) {
    pgr_writer_text(w, "family,group,place,rank\n");
    for (int32_t i = 0; i < g->family_count; i++) {
        const pgr_family *family = &g->families[i];
        if (g->rank == PGR_NIL) {
            csv_groups(w, family, g->plan.rank_offset);
        } else {
            int64_t group = pgr_family_group(family, g->rank);
            if (group >= 0)
                csv_group(w, family, group, g->plan.rank_offset);
        }
    }
}
