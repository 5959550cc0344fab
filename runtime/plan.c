/* plan.c - who is in which group: closed-form arithmetic on the strides of a plan's axes. Which
 * families there are is in plan_families.c; how a plan comes to be, or is refused, in plan_rules.c
 * and plan_grid.c. */
#include "plan.h"

#include <string.h>

/* ---- axes ---- */

static const pgr_axis *axis_find(const pgr_plan *plan, const char *name) {
    for (int32_t view = 0; view < plan->view_count; view++)
        for (int32_t i = 0; i < plan->views[view].axis_count; i++)
            if (strcmp(plan->views[view].axes[i].name, name) == 0)
                return &plan->views[view].axes[i];
    return NULL;
}

int64_t pgr_plan_axis_size(const pgr_plan *plan, const char *axis) {
    const pgr_axis *found = axis_find(plan, axis);
    return found == NULL ? 0 : found->size;
}

bool pgr_plan_has_axis(const pgr_plan *plan, const char *axis) {
    return axis_find(plan, axis) != NULL;
}

int64_t pgr_plan_coordinate(const pgr_plan *plan, const char *axis, int64_t rank) {
    const pgr_axis *found = axis_find(plan, axis);
    return found == NULL ? -1 : rank / found->stride % found->size;
}

/* ---- ranks and groups ---- */

/* a / b and a % b for a >= 0 and b > 0. Sizes are mostly powers of two, and worlds mostly fit in 32
 * bits; a division of 64 bits takes several times as long as those. */
static inline int64_t divide(int64_t a, int64_t b, int64_t *rest) {
    if ((b & (b - 1)) == 0) {
        *rest = a & (b - 1);
        return a >> __builtin_ctzll((uint64_t)b);
    }
    if (((a | b) >> 32) == 0) {
        *rest = (uint32_t)a % (uint32_t)b;
        return (uint32_t)a / (uint32_t)b;
    }
    *rest = a % b;
    return a / b;
}

/* The mixed-radix number that `rank` has in these digits. */
static int64_t number_of(const pgr_digit *digits, int32_t count, int64_t rank) {
    int64_t number = 0, weight = 1, rest;
    for (int32_t i = 0; i < count; i++) {
        divide(divide(rank, digits[i].stride, &rest), digits[i].size, &rest);
        number += rest * weight;
        weight *= digits[i].size;
    }
    return number;
}

/* The inverse of number_of: the rank with this number, and 0 in all other digits. */
static int64_t rank_of(const pgr_digit *digits, int32_t count, int64_t number) {
    int64_t rank = 0, rest;
    for (int32_t i = 0; i < count; i++) {
        number = divide(number, digits[i].size, &rest);
        rank += rest * digits[i].stride;
    }
    return rank;
}

static int64_t member_number(const pgr_family *f, int64_t rank) {
    return number_of(f->members, f->member_count, rank);
}

/* Where a whole's member is among the stages that are in, or -1. */
static int64_t stage_place(const pgr_family *f, int64_t member) {
    for (int32_t i = 0; i < f->stage_count; i++)
        if (f->stages[i] == member)
            return i;
    return -1;
}

int64_t pgr_family_group(const pgr_family *f, int64_t rank) {
    if (f->stage_count > 0 && stage_place(f, member_number(f, rank)) < 0)
        return -1;
    int64_t whole = number_of(f->others, f->other_count, rank);
    return f->pieces == 1 ? whole : whole * f->pieces + member_number(f, rank) / f->size;
}

int64_t pgr_family_rank(const pgr_family *f, int64_t rank) {
    int64_t member = member_number(f, rank);
    if (f->stage_count > 0)
        return stage_place(f, member);
    return f->pieces == 1 ? member : member % f->size;
}

int64_t pgr_family_group_size(const pgr_family *f, int64_t group) {
    bool last = f->pieces > 1 && group % f->pieces == f->pieces - 1;
    return last ? f->whole - (f->pieces - 1) * f->size : f->size;
}

int64_t pgr_family_member(const pgr_family *f, int64_t group, int64_t index) {
    int64_t whole = group / f->pieces, member = group % f->pieces * f->size + index;
    if (f->stage_count > 0)
        member = f->stages[index];
    return rank_of(f->others, f->other_count, whole) + rank_of(f->members, f->member_count, member);
}

/* Digits with neighbours that continue each other merged, and none of size 1. */
static int32_t merge(const pgr_digit *digits, int32_t count, pgr_digit merged[PGR_DIGITS_MAX]) {
    int32_t used = 0;
    for (int32_t i = 0; i < count; i++)
        if (used > 0 && merged[used - 1].size * merged[used - 1].stride == digits[i].stride)
            merged[used - 1].size *= digits[i].size;
        else
            merged[used++] = digits[i];
    return used;
}

int32_t pgr_family_strides(const pgr_family *f, pgr_digit merged[PGR_DIGITS_MAX]) {
    if (f->stage_count == 2) { /* two ranks: one step */
        int64_t step = rank_of(f->members, f->member_count, f->stages[1] - f->stages[0]);
        merged[0] = (pgr_digit){2, step};
        return 1;
    }
    if (f->stage_count == 1)
        return 0;
    return merge(f->members, f->member_count, merged);
}

bool pgr_family_is(const pgr_family *a, const pgr_family *b) {
    if (!a->whole_axes || !b->whole_axes)
        return strcmp(a->name, b->name) == 0;
    return a->view == b->view && a->mask == b->mask;
}

bool pgr_family_same(const pgr_family *a, const pgr_family *b) {
    pgr_digit of_a[PGR_DIGITS_MAX], of_b[PGR_DIGITS_MAX];
    int32_t count = pgr_family_strides(a, of_a);
    if (count != pgr_family_strides(b, of_b) || a->size != b->size || a->pieces != b->pieces ||
        a->count != b->count || a->stage_count != b->stage_count)
        return false;
    for (int32_t i = 0; i < a->stage_count; i++)
        if (a->stages[i] != b->stages[i])
            return false;
    for (int32_t i = 0; i < count; i++)
        if (of_a[i].size != of_b[i].size || of_a[i].stride != of_b[i].stride)
            return false;
    return true;
}

/* ---- digest ---- */

/* FNV-1a over the value's eight bytes, lowest first, so that every machine gives the same. */
static uint64_t digest_number(uint64_t digest, int64_t value) {
    for (int shift = 0; shift < 64; shift += 8)
        digest = (digest ^ ((uint64_t)value >> shift & 0xff)) * UINT64_C(0x100000001b3);
    return digest;
}

static uint64_t digest_text(uint64_t digest, const char *text) {
    for (; *text != '\0'; text++)
        digest = (digest ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    return digest_number(digest, 0);
}

uint64_t pgr_plan_digest(const pgr_plan *plan) {
    uint64_t digest = UINT64_C(0xcbf29ce484222325);
    digest = digest_number(digest, plan->world_size);
    digest = digest_number(digest, plan->rank_offset);
    digest = digest_text(digest, plan->order);
    digest = digest_number(digest, plan->view_count);
    for (int32_t view = 0; view < plan->view_count; view++) {
        const pgr_view *v = &plan->views[view];
        digest = digest_text(digest, v->name);
        digest = digest_number(digest, v->axis_count);
        for (int32_t i = 0; i < v->axis_count; i++) {
            digest = digest_text(digest, v->axes[i].name);
            digest = digest_number(digest, v->axes[i].size);
            digest = digest_number(digest, v->axes[i].stride);
        }
    }
    digest = digest_number(digest, plan->pp_split);
    digest = digest_number(digest, plan->optimizer_instances);
    digest = digest_number(digest, plan->hybrid_cp);
    digest = digest_number(digest, plan->level_count);
    for (int32_t i = 0; i < plan->level_count; i++)
        digest = digest_number(digest, plan->levels[i]);
    return digest;
}
