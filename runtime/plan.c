/* plan.c - who is in which group: closed-form arithmetic on the strides of a plan's axes. How a
 * plan comes to be, or is refused, is in plan_rules.c. */
#include "plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The families of initialize_model_parallel, in plan order. */
static const char *const default_families[] = {"tp",    "cp",     "dp",        "dp-cp",    "pp",
                                               "tp-pp", "tp-cp",  "tp-dp",     "tp-dp-cp", "ep",
                                               "etp",   "etp-ep", "etp-ep-pp", "edp"};
enum { DENSE_FAMILIES = 9, ALL_FAMILIES = 14 };

/* Megatron-Core's other families, which a later version makes. */
static const char *const later_families[] = {"embedding", "position-embedding",
                                             "optimizer-instance"};

/* ---- axes ---- */

static const pgr_axis *axis_in_view(const pgr_view *view, const char *name, size_t length,
                                    int32_t *index) {
    for (int32_t i = 0; i < view->axis_count; i++) {
        const pgr_axis *axis = &view->axes[i];
        if (strlen(axis->name) == length && memcmp(axis->name, name, length) == 0) {
            if (index != NULL)
                *index = i;
            return axis;
        }
    }
    return NULL;
}

static const pgr_axis *axis_find(const pgr_plan *plan, const char *name) {
    for (int32_t view = 0; view < plan->view_count; view++) {
        const pgr_axis *axis = axis_in_view(&plan->views[view], name, strlen(name), NULL);
        if (axis != NULL)
            return axis;
    }
    return NULL;
}

int64_t pgr_plan_axis_size(const pgr_plan *plan, const char *axis) {
    const pgr_axis *found = axis_find(plan, axis);
    return found == NULL ? 0 : found->size;
}

int64_t pgr_plan_coordinate(const pgr_plan *plan, const char *axis, int64_t rank) {
    const pgr_axis *found = axis_find(plan, axis);
    return found == NULL ? -1 : rank / found->stride % found->size;
}

/* ---- families by name ---- */

/* Sets *mask to the axes that the dash-joined `name` lists in `view`; false where one is not of
 * this view or listed twice. */
static bool mask_in_view(const pgr_view *view, const char *name, uint32_t *mask) {
    uint32_t found = 0;
    for (const char *token = name;; token++) {
        size_t length = strcspn(token, "-");
        int32_t index;
        if (axis_in_view(view, token, length, &index) == NULL || (found >> index & 1u) != 0)
            return false;
        found |= 1u << index;
        token += length;
        if (*token == '\0') {
            *mask = found;
            return true;
        }
    }
}

static pgr_family family_of(const pgr_plan *plan, const char *name, int32_t view, uint32_t mask) {
    pgr_family family = {.view = view, .mask = mask, .size = 1};
    snprintf(family.name, sizeof family.name, "%s", name);
    for (int32_t i = 0; i < plan->views[view].axis_count; i++)
        if ((mask >> i & 1u) != 0)
            family.size *= plan->views[view].axes[i].size;
    family.count = plan->world_size / family.size;
    return family;
}

/* Edit distance of two short names, for "did you mean". */
static int edit_distance(const char *a, const char *b) {
    int row[PGR_NAME_MAX + 1];
    int length = (int)strnlen(b, PGR_NAME_MAX);
    for (int j = 0; j <= length; j++)
        row[j] = j;
    for (int i = 1; a[i - 1] != '\0'; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= length; j++) {
            int above = row[j];
            int best = diagonal + (a[i - 1] != b[j - 1]);
            best = above + 1 < best ? above + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            row[j] = best;
            diagonal = above;
        }
    }
    return row[length];
}

static const char *nearest_family(const pgr_plan *plan, const char *name) {
    const char *nearest = NULL;
    int nearest_distance = 3; /* further away is no typing mistake */
    for (int32_t i = 0; i < pgr_plan_family_count(plan); i++) {
        int distance = edit_distance(name, default_families[i]);
        if (distance < nearest_distance) {
            nearest_distance = distance;
            nearest = default_families[i];
        }
    }
    return nearest;
}

/* " (tp cp dp pp)": the axes of a view in order. */
static void view_text(const pgr_view *view, char *out, size_t bytes) {
    size_t length = 0;
    out[0] = '\0';
    for (int32_t i = 0; i < view->axis_count && length < bytes; i++) {
        int added =
            snprintf(out + length, bytes - length, "%s%s", i == 0 ? "" : " ", view->axes[i].name);
        length += added > 0 ? (size_t)added : 0;
    }
}

static bool is_later_family(const char *name) {
    for (size_t i = 0; i < sizeof later_families / sizeof later_families[0]; i++)
        if (strcmp(name, later_families[i]) == 0)
            return true;
    static const char *const parts[] = {"cp/", "dp-cp/intra", "dp-cp/hybrid", "edp/intra",
                                        "edp/inter"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (strncmp(name, parts[i], strlen(parts[i])) == 0)
            return true;
    return false;
}

/* Whether every dash-joined part of `name` is an axis of some view. */
static bool all_axes_known(const pgr_plan *plan, const char *name) {
    for (const char *token = name;; token++) {
        size_t length = strcspn(token, "-");
        bool known = false;
        for (int32_t view = 0; view < plan->view_count; view++)
            known = known || axis_in_view(&plan->views[view], token, length, NULL) != NULL;
        token += length;
        if (!known)
            return false;
        if (*token == '\0')
            return true;
    }
}

static pgr_status refuse_family(const pgr_plan *plan, const char *name, pgr_error *error) {
    if (is_later_family(name))
        return pgr_error_set(error, PGR_UNSUPPORTED, "family \"%s\" is not there yet", name);
    char dense[PGR_AXES_MAX * 8], expert[PGR_AXES_MAX * 8], views[320], known[256] = "";
    view_text(&plan->views[PGR_VIEW_DENSE], dense, sizeof dense);
    view_text(&plan->views[PGR_VIEW_EXPERT], expert, sizeof expert);
    if (plan->view_count == 2) {
        snprintf(views, sizeof views, "of the dense view (%s) or of the expert view (%s)", dense,
                 expert);
    } else {
        snprintf(views, sizeof views,
                 "of the dense view (%s); parallel.expert_view = false, so there are no expert "
                 "families",
                 dense);
    }
    for (int32_t i = 0; i < pgr_plan_family_count(plan); i++) {
        strcat(known, i == 0 ? "" : ", ");
        strcat(known, default_families[i]);
    }
    if (all_axes_known(plan, name)) {
        return pgr_error_set(error, PGR_INVALID,
                             "family \"%s\" must name different axes of one view: %s", name, views);
    }
    const char *nearest = nearest_family(plan, name);
    return pgr_error_set(error, PGR_INVALID,
                         "unknown family \"%s\"%s%s%s; known are %s, and any dash-joined axes %s",
                         name, nearest == NULL ? "" : ", did you mean \"",
                         nearest == NULL ? "" : nearest, nearest == NULL ? "" : "\"?", known,
                         views);
}

int32_t pgr_plan_family_count(const pgr_plan *plan) {
    return plan->view_count == 2 ? ALL_FAMILIES : DENSE_FAMILIES;
}

pgr_family pgr_plan_family_at(const pgr_plan *plan, int32_t index) {
    int32_t view = index < DENSE_FAMILIES ? PGR_VIEW_DENSE : PGR_VIEW_EXPERT;
    uint32_t mask = 0;
    mask_in_view(&plan->views[view], default_families[index], &mask);
    return family_of(plan, default_families[index], view, mask);
}

pgr_status pgr_plan_family_find(const pgr_plan *plan, const char *name, pgr_family *family,
                                pgr_error *error) {
    for (int32_t view = 0; view < plan->view_count; view++) {
        uint32_t mask;
        if (strnlen(name, PGR_NAME_MAX) < PGR_NAME_MAX &&
            mask_in_view(&plan->views[view], name, &mask)) {
            *family = family_of(plan, name, view, mask);
            return PGR_OK;
        }
    }
    return refuse_family(plan, name, error);
}

/* ---- ranks and groups ---- */

/* The mixed-radix number that `rank`'s coordinates give on the axes inside (or outside) the mask.
 */
static int64_t digits_of(const pgr_view *view, uint32_t mask, int64_t rank) {
    int64_t number = 0, weight = 1;
    for (int32_t i = 0; i < view->axis_count; i++) {
        const pgr_axis *axis = &view->axes[i];
        if ((mask >> i & 1u) != 0 && axis->size > 1) {
            number += rank / axis->stride % axis->size * weight;
            weight *= axis->size;
        }
    }
    return number;
}

/* The inverse of digits_of: the rank with these digits on the mask's axes and 0 elsewhere. */
static int64_t rank_of(const pgr_view *view, uint32_t mask, int64_t number) {
    int64_t rank = 0;
    for (int32_t i = 0; i < view->axis_count; i++) {
        const pgr_axis *axis = &view->axes[i];
        if ((mask >> i & 1u) != 0 && axis->size > 1) {
            rank += number % axis->size * axis->stride;
            number /= axis->size;
        }
    }
    return rank;
}

int64_t pgr_family_group(const pgr_plan *plan, const pgr_family *family, int64_t rank) {
    return digits_of(&plan->views[family->view], ~family->mask, rank);
}

int64_t pgr_family_rank(const pgr_plan *plan, const pgr_family *family, int64_t rank) {
    return digits_of(&plan->views[family->view], family->mask, rank);
}

int64_t pgr_family_member(const pgr_plan *plan, const pgr_family *family, int64_t group,
                          int64_t index) {
    const pgr_view *view = &plan->views[family->view];
    return rank_of(view, ~family->mask, group) + rank_of(view, family->mask, index);
}

/* One arithmetic progression of ranks: `size` of them, `stride` apart. */
typedef struct run {
    int64_t size, stride;
} run;

/* The family's axes without those of size 1, with neighbours that continue each other merged. Each
 * stride divides the next, so that this form is the same for equal partitions and only for those.
 */
static int32_t runs_of(const pgr_plan *plan, const pgr_family *family, run runs[PGR_AXES_MAX]) {
    const pgr_view *view = &plan->views[family->view];
    int32_t count = 0;
    for (int32_t i = 0; i < view->axis_count; i++) {
        const pgr_axis *axis = &view->axes[i];
        if ((family->mask >> i & 1u) == 0 || axis->size == 1)
            continue;
        if (count > 0 && runs[count - 1].size * runs[count - 1].stride == axis->stride)
            runs[count - 1].size *= axis->size;
        else
            runs[count++] = (run){axis->size, axis->stride};
    }
    return count;
}

bool pgr_family_same(const pgr_plan *plan, const pgr_family *a, const pgr_family *b) {
    run of_a[PGR_AXES_MAX], of_b[PGR_AXES_MAX];
    int32_t count = runs_of(plan, a, of_a);
    if (count != runs_of(plan, b, of_b))
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
    return digest;
}
