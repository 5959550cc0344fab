/* groups_summary.c - each family in one line: how many groups, of which size, how far apart, and
 * how many cross a node or an NVLink domain. No rank is walked where arithmetic does. */
#include "groups_format.h"

#include <inttypes.h>

/* ---- groups that cross ---- */

/* What a count may take, of values of a digit or members of a piece: well under a second. Blocks
 * that are no factor of the strides, and groups cut into pieces, are walked in part. */
enum { MOST_STEPS = 1 << 20 };

/* The ranks that the numbers of these digits span: the largest of them. */
static int64_t reach(const pgr_digit *digits, int32_t count) {
    int64_t sum = 0;
    for (int32_t i = 0; i < count; i++)
        sum += (digits[i].size - 1) * digits[i].stride;
    return sum;
}

/* How many numbers of the digits, added to `first`, lie so in their block that `span` more leave
 * it. Only the place in the block counts, and a digit repeats the places of its values after block
 * / gcd(stride, block) of them; so a stride that is a multiple of the block is a factor. The digits
 * ascend in stride, and the last is walked first: what is below it may not reach the block's end.
 */
static int64_t count_crossing(const pgr_digit *digits, int32_t count, int64_t first, int64_t span,
                              int64_t block, int64_t *steps) {
    int64_t place = first % block;
    if (--*steps < 0)
        return 0;
    if (place + reach(digits, count) + span < block)
        return 0;
    if (count == 0)
        return 1;
    pgr_digit top = digits[count - 1];
    int64_t period = block / pgr_greatest_divisor(top.stride % block, block);
    int64_t walked = top.size < period ? top.size : period, crossing = 0;
    for (int64_t i = 0; i < walked && *steps >= 0; i++) {
        /* values i, i + period, i + 2 * period, ... lie alike */
        int64_t alike = (top.size - 1 - i) / period + 1;
        crossing +=
            alike * count_crossing(digits, count - 1, place + i * top.stride, span, block, steps);
    }
    return crossing;
}

/* The lowest and the highest rank of a group of the first whole, without walking it where its
 * digits tell. */
static void extent(const pgr_family *f, int64_t group, int64_t *low, int64_t *high,
                   int64_t *steps) {
    if (f->pieces == 1 && f->stage_count == 0) {
        *low = 0;
        *high = reach(f->members, f->member_count);
        return;
    }
    int64_t size = pgr_family_group_size(f, group);
    *low = *high = pgr_family_member(f, group, 0);
    for (int64_t i = 1; i < size && --*steps >= 0; i++) {
        int64_t rank = pgr_family_member(f, group, i);
        *low = rank < *low ? rank : *low;
        *high = rank > *high ? rank : *high;
    }
}

int64_t pgr_groups_crossing(const pgr_family *f, int64_t offset, int64_t block) {
    pgr_digit others[PGR_DIGITS_MAX];
    int64_t crossing = 0, low, high, steps = MOST_STEPS;
    for (int32_t i = 0; i < f->other_count; i++) { /* ascending in stride */
        int32_t at = i;
        for (; at > 0 && others[at - 1].stride > f->others[i].stride; at--)
            others[at] = others[at - 1];
        others[at] = f->others[i];
    }
    for (int64_t piece = 0; piece < f->pieces && steps >= 0; piece++) {
        extent(f, piece, &low, &high, &steps);
        if (high - low >= block)
            crossing += f->count / f->pieces;
        else if (high > low)
            crossing += count_crossing(others, f->other_count, offset % block + low % block,
                                       high - low, block, &steps);
    }
    return steps >= 0 ? crossing : -1;
}

/* -1 where the config does not give the block, or counting takes too long. */
static int64_t crossing(const pgr_groups *g, const pgr_family *family, int64_t block) {
    return block > 0 ? pgr_groups_crossing(family, g->plan.rank_offset, block) : -1;
}

/* ---- strides ---- */

/* "2 x 1, 4 x 16": two ranks 1 apart, and four such 16 apart. Where only some stages are in, how
 * far they lie from the first: "+0 +8 +56". */
static void strides_text(const pgr_family *f, char *out, size_t bytes) {
    pgr_digit strides[PGR_DIGITS_MAX];
    int32_t count = pgr_family_strides(f, strides);
    size_t used = 0;
    out[0] = '\0';
    if (f->stage_count > 2) {
        for (int64_t i = 0; i < f->size && used < bytes; i++)
            used += (size_t)snprintf(out + used, bytes - used, "%s+%" PRId64, i == 0 ? "" : " ",
                                     pgr_family_member(f, 0, i) - pgr_family_member(f, 0, 0));
        return;
    }
    if (f->pieces > 1)
        used += (size_t)snprintf(out, bytes, "%" PRId64 " of ", f->size);
    for (int32_t i = 0; i < count && used < bytes; i++)
        used += (size_t)snprintf(out + used, bytes - used, "%s%" PRId64 " x %" PRId64,
                                 i == 0 ? "" : ", ", strides[i].size, strides[i].stride);
    if (count == 0)
        snprintf(out, bytes, "-");
}

static void strides_json(pgr_writer *w, const pgr_family *f) {
    pgr_digit strides[PGR_DIGITS_MAX];
    int32_t count = pgr_family_strides(f, strides);
    if (f->pieces > 1)
        pgr_writer_format(w, ", \"cut_from\": %" PRId64, f->whole);
    if (f->stage_count > 2) {
        pgr_writer_text(w, ", \"offsets\": [");
        for (int64_t i = 0; i < f->size; i++)
            pgr_writer_format(w, "%s%" PRId64, i == 0 ? "" : ",",
                              pgr_family_member(f, 0, i) - pgr_family_member(f, 0, 0));
        pgr_writer_char(w, ']');
        return;
    }
    pgr_writer_text(w, ", \"strides\": [");
    for (int32_t i = 0; i < count; i++)
        pgr_writer_format(w, "%s{\"size\": %" PRId64 ", \"stride\": %" PRId64 "}",
                          i == 0 ? "" : ", ", strides[i].size, strides[i].stride);
    pgr_writer_char(w, ']');
}

/* ---- JSON ---- */

static void json_count(pgr_writer *w, const char *key, int64_t count) {
    pgr_writer_format(w, ", \"%s\": ", key);
    if (count < 0)
        pgr_writer_text(w, "null");
    else
        pgr_writer_number(w, count);
}

static void summary_json(pgr_writer *w, const pgr_groups *g) {
    pgr_groups_write_json_head(w, g);
    pgr_writer_text(w, ",\n \"families\": [");
    for (int32_t i = 0; i < g->family_count; i++) {
        const pgr_family *f = &g->families[i];
        pgr_writer_format(w, "%s{\"family\": \"%s\", \"groups\": %" PRId64 ", \"size\": %" PRId64,
                          i == 0 ? "\n  " : ",\n  ", f->name, f->count, f->size);
        strides_json(w, f);
        json_count(w, "cross_node", crossing(g, f, g->gpus_per_node));
        json_count(w, "cross_nvlink_domain", crossing(g, f, g->nvlink_domain));
        pgr_writer_char(w, '}');
    }
    pgr_writer_text(w, "]}\n");
}

/* ---- text ---- */

enum { STRIDES_BYTES = 256 };

static size_t wider(size_t width, const char *text) {
    return strlen(text) > width ? strlen(text) : width;
}

static void summary_text(pgr_writer *w, const pgr_groups *g) {
    size_t name = 10, megatron = 13, numbers = 6, strides = 10;
    char text[STRIDES_BYTES];
    for (int32_t i = 0; i < g->family_count; i++) {
        const pgr_family *f = &g->families[i];
        name = wider(name, f->name);
        megatron = wider(megatron, pgr_groups_megatron_name(&g->plan, f));
        strides_text(f, text, sizeof text);
        strides = wider(strides, text);
        snprintf(text, sizeof text, "%" PRId64, f->count > f->size ? f->count : f->size);
        numbers = wider(numbers, text);
    }
    pgr_groups_write_text_head(w, g);
    pgr_writer_format(w, "%-*s  %-*s  %*s  %*s  %-*s  %12s  %18s\n", (int)name, "family",
                      (int)megatron, "Megatron-Core", (int)numbers, "groups", (int)numbers, "size",
                      (int)strides, "strides", "cross a node", "cross NVLink");
    for (int32_t i = 0; i < g->family_count; i++) {
        const pgr_family *f = &g->families[i];
        strides_text(f, text, sizeof text);
        pgr_writer_format(w, "%-*s  %-*s  %*" PRId64 "  %*" PRId64 "  %-*s", (int)name, f->name,
                          (int)megatron, pgr_groups_megatron_name(&g->plan, f), (int)numbers,
                          f->count, (int)numbers, f->size, (int)strides, text);
        pgr_writer_number_column(w, crossing(g, f, g->gpus_per_node), 14);
        pgr_writer_number_column(w, crossing(g, f, g->nvlink_domain), 20);
        pgr_writer_char(w, '\n');
    }
    pgr_writer_text(w, "\nstrides: 2 x 1, 4 x 16 is two ranks 1 apart, and four such 16 apart\n");
    if (g->gpus_per_node > 0)
        pgr_writer_format(w, "a node has %" PRId64 " GPUs (cluster.gpus_per_node)\n",
                          g->gpus_per_node);
    if (g->nvlink_domain > 0)
        pgr_writer_format(w, "an NVLink domain has %" PRId64 " GPUs (cluster.nvlink_domain)\n",
                          g->nvlink_domain);
    if (g->gpus_per_node < 1 && g->nvlink_domain < 1)
        pgr_writer_text(w, "what crosses is known where the config has cluster.gpus_per_node and "
                           "nvlink_domain\n");
}

void pgr_groups_write_summary(pgr_writer *w, const pgr_groups *g) {
    if (g->format == PGR_GROUPS_JSON)
        summary_json(w, g);
    else
        summary_text(w, g);
}
