/* groups_format.h - what the formats of `pgrun groups` share: walking ranks, names, and the nodes
 * of the cluster. Each format is a file of its own, groups_json.c, groups_text.c, ... */
#ifndef PGR_GROUPS_FORMAT_H
#define PGR_GROUPS_FORMAT_H

#include "groups.h"
#include "writer.h"

enum { PGR_GPUS_ASSUMED = 8 }; /* of a node, in pictures, where the config does not say */

/* An odometer over some digits: `value` is the sum of coordinate * stride, the first digit fastest;
 * after the last value it is 0 again. */
typedef struct pgr_odometer {
    int64_t value;
    int32_t count;
    struct {
        int64_t at, size, stride;
    } wheels[PGR_DIGITS_MAX];
} pgr_odometer;

pgr_odometer pgr_odometer_over(const pgr_digit *digits, int32_t count);

static inline void pgr_odometer_step(pgr_odometer *o) {
    for (int32_t i = 0; i < o->count; i++) {
        o->value += o->wheels[i].stride;
        if (++o->wheels[i].at < o->wheels[i].size)
            return;
        o->value -= o->wheels[i].size * o->wheels[i].stride;
        o->wheels[i].at = 0;
    }
}

/* The axes of a view in the order in which they are reported: Megatron-Core's in a fixed one, those
 * of a grid as they are declared. Returns how many. */
int pgr_groups_view_axes(const pgr_plan *plan, int32_t view, const char *names[PGR_AXES_MAX]);

/* Those of all views, each once. */
int pgr_groups_all_axes(const pgr_plan *plan, const char *names[PGR_VIEWS_MAX * PGR_AXES_MAX]);

/* What Megatron-Core calls a family; "-" where it has none such. */
const char *pgr_groups_megatron_name(const pgr_plan *plan, const pgr_family *family);

/* "tp 2, cp 1" of these axes: their sizes, or the coordinates of `rank` unless that is PGR_NIL. */
void pgr_groups_write_axes(pgr_writer *w, const pgr_plan *plan, const char *const names[],
                           int count, int64_t rank);

/* The world's place in the cluster: position = rank + rank_offset, node = position / gpus. */
typedef struct pgr_nodes {
    int64_t gpus; /* of a node */
    bool assumed; /* cluster.gpus_per_node is not given */
    int64_t first, count;
    int64_t columns; /* GPUs in a row: those of a node, or of the one node up to its last rank */
} pgr_nodes;

pgr_nodes pgr_groups_nodes(const pgr_groups *g);

/* The family that a picture shows where --group names none: the first in plan order that has more
 * than one group and more than one rank in each; else the first. */
const pgr_family *pgr_groups_default_family(const pgr_groups *g);

/* The formats. Each writes what it can; the writer remembers a failure. */
void pgr_groups_write_json(pgr_writer *w, const pgr_groups *g);
void pgr_groups_write_text(pgr_writer *w, const pgr_groups *g);
void pgr_groups_write_csv(pgr_writer *w, const pgr_groups *g);
void pgr_groups_write_svg(pgr_writer *w, const pgr_groups *g);
void pgr_groups_write_summary(pgr_writer *w, const pgr_groups *g); /* text or JSON */

/* Parts of them: the table's head (sizes, views, the rank's place), the JSON's (up to "axes" and,
 * of a rank, "coordinates"; the object stays open), and the small world as a grid of group numbers
 * below a table, or nothing where it does not fit in a terminal. */
void pgr_groups_write_text_head(pgr_writer *w, const pgr_groups *g);
void pgr_groups_write_json_head(pgr_writer *w, const pgr_groups *g);
void pgr_groups_write_grid(pgr_writer *w, const pgr_groups *g);

#endif
