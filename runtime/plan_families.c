/* plan_families.c - which families a plan has: Megatron-Core's, by name, and any dash-joined axes.
 *
 * Sources, all of megatron/core/parallel_state.py: initialize_model_parallel for which groups are
 * made of which ranks and in which order, create_hierarchical_groups for cp/0, cp/1, ...,
 * create_hybrid_dp_cp_groups for dp-cp/hybridN. pp_split in the embedding families follows
 * vLLM's older parallel state (vllm/model_executor/parallel_utils/parallel_state.py). */
#include "plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- axes ---- */

static bool find_axis(const pgr_view *view, const char *name, size_t length, int32_t *index) {
    for (int32_t i = 0; i < view->axis_count; i++) {
        if (strlen(view->axes[i].name) == length && memcmp(view->axes[i].name, name, length) == 0) {
            *index = i;
            return true;
        }
    }
    return false;
}

/* The bit of an axis of the view, or 0. */
static uint32_t axis_bit(const pgr_view *view, const char *name) {
    int32_t index;
    return find_axis(view, name, strlen(name), &index) ? 1u << index : 0;
}

/* The view that has an axis of this name, or -1. */
static int32_t view_with(const pgr_plan *plan, const char *axis) {
    for (int32_t view = 0; view < plan->view_count; view++)
        if (axis_bit(&plan->views[view], axis) != 0)
            return view;
    return -1;
}

/* Sets *mask to the axes that the dash-joined `name` lists in `view`; false where one is not of
 * this view or listed twice. */
static bool mask_in_view(const pgr_view *view, const char *name, uint32_t *mask) {
    uint32_t found = 0;
    for (const char *token = name;; token++) {
        size_t length = strcspn(token, "-");
        int32_t index;
        if (!find_axis(view, token, length, &index) || (found >> index & 1u) != 0)
            return false;
        found |= 1u << index;
        token += length;
        if (*token == '\0') {
            *mask = found;
            return true;
        }
    }
}

/* ---- making families ---- */

static void add_digit(pgr_digit *digits, int32_t *count, int64_t size, int64_t stride) {
    if (size > 1)
        digits[(*count)++] = (pgr_digit){size, stride};
}

/* Adds the digits of the view's axes that are in the mask, in the view's order; returns the product
 * of their sizes. */
static int64_t add_axes(const pgr_view *view, uint32_t mask, pgr_digit *digits, int32_t *count) {
    int64_t product = 1;
    for (int32_t i = 0; i < view->axis_count; i++) {
        if ((mask >> i & 1u) != 0) {
            add_digit(digits, count, view->axes[i].size, view->axes[i].stride);
            product *= view->axes[i].size;
        }
    }
    return product;
}

static pgr_family family_of(const pgr_plan *plan, const char *name, int32_t view, uint32_t mask) {
    pgr_family f = {.view = view, .whole_axes = true, .mask = mask, .pieces = 1};
    snprintf(f.name, sizeof f.name, "%s", name);
    f.size = add_axes(&plan->views[view], mask, f.members, &f.member_count);
    add_axes(&plan->views[view], ~mask, f.others, &f.other_count);
    f.whole = f.size;
    f.count = plan->world_size / f.size;
    return f;
}

/* Splits a number in mixed radix where its low part counts to `low`: digits[0..count) become
 * low_digits and high_digits. False where no digit can be cut there. */
static bool split(const pgr_digit *digits, int32_t count, int64_t low, pgr_digit *low_digits,
                  int32_t *low_count, pgr_digit *high_digits, int32_t *high_count) {
    *low_count = *high_count = 0;
    for (int32_t i = 0; i < count; i++) {
        int64_t size = digits[i].size, stride = digits[i].stride;
        int64_t part = low % size == 0 ? size : low;
        if (size % part != 0)
            return false;
        add_digit(low_digits, low_count, part, stride);
        add_digit(high_digits, high_count, size / part, stride * part);
        low /= part;
    }
    return true;
}

/* Puts digits before a family's others, so that they count fastest among the groups. */
static void prepend_others(pgr_family *f, const pgr_digit *digits, int32_t count) {
    memmove(f->others + count, f->others, (size_t)f->other_count * sizeof *f->others);
    memcpy(f->others, digits, (size_t)count * sizeof *digits);
    f->other_count += count;
}

/* Cuts each group into groups of `size` consecutive members: by digits where some make that size,
 * else into pieces, the last of which has what is left. */
static void cut_consecutive(pgr_family *f, int64_t size) {
    pgr_digit low[PGR_DIGITS_MAX], high[PGR_DIGITS_MAX];
    int32_t low_count, high_count;
    f->size = size;
    if (f->whole % size == 0 &&
        split(f->members, f->member_count, size, low, &low_count, high, &high_count)) {
        prepend_others(f, high, high_count);
        memcpy(f->members, low, (size_t)low_count * sizeof *low);
        f->member_count = low_count;
        f->count *= f->whole / size;
        f->whole = size;
    } else {
        f->pieces = f->whole / size + (f->whole % size != 0);
        f->count *= f->pieces;
    }
}

/* Cuts each group of one axis into groups of `size` members that lie `step` members apart. */
static void cut_strided(pgr_family *f, int64_t step, int64_t size) {
    pgr_digit low[PGR_DIGITS_MAX], high[PGR_DIGITS_MAX], middle[PGR_DIGITS_MAX];
    int32_t low_count, high_count, middle_count;
    split(f->members, f->member_count, step, low, &low_count, high, &high_count);
    split(high, high_count, size, middle, &middle_count, high, &high_count);
    prepend_others(f, high, high_count);
    prepend_others(f, low, low_count);
    memcpy(f->members, middle, (size_t)middle_count * sizeof *middle);
    f->member_count = middle_count;
    f->count *= f->whole / size;
    f->size = f->whole = size;
}

/* dp-cp of the view that has dp, also where cp is no axis of it. */
static pgr_family data_family(const pgr_plan *plan, const char *name) {
    int32_t view = view_with(plan, "dp");
    const pgr_view *axes = &plan->views[view];
    return family_of(plan, name, view, axis_bit(axes, "dp") | axis_bit(axes, "cp"));
}

static pgr_family expert_data_family(const pgr_plan *plan, const char *name) {
    int32_t view = view_with(plan, "edp");
    return family_of(plan, name, view, axis_bit(&plan->views[view], "edp"));
}

/* Everything that shares one optimizer: the whole shards of the model, one after the other, as many
 * as an instance has data-parallel ranks. */
static pgr_family instance_family(const pgr_plan *plan, const char *name) {
    int32_t view = view_with(plan, "edp");
    pgr_family data = view >= 0 ? expert_data_family(plan, name) : data_family(plan, name),
               f = {.pieces = 1};
    view = data.view;
    snprintf(f.name, sizeof f.name, "%s", name);
    f.view = view;
    f.mask = (1u << plan->views[view].axis_count) - 1;
    int64_t shards = add_axes(&plan->views[view], ~data.mask & f.mask, f.members, &f.member_count);
    add_axes(&plan->views[view], data.mask, f.members, &f.member_count);
    f.whole = f.size = plan->world_size;
    f.count = 1;
    cut_consecutive(&f, shards * (data.size / plan->optimizer_instances));
    return f;
}

/* Adds a stage to those that hold an embedding, each once, ascending. */
static void add_stage(pgr_family *f, int64_t stage) {
    if (f->stage_count == 0 || f->stages[f->stage_count - 1] < stage)
        f->stages[f->stage_count++] = stage;
}

/* First, split and last stage of each pipeline, or first and split. */
static pgr_family embedding_family(const pgr_plan *plan, const char *name, bool last) {
    pgr_family f =
        family_of(plan, name, PGR_VIEW_DENSE, axis_bit(&plan->views[PGR_VIEW_DENSE], "pp"));
    if (f.whole == 1)
        return f;
    add_stage(&f, 0);
    if (plan->pp_split != PGR_NIL)
        add_stage(&f, plan->pp_split);
    if (last)
        add_stage(&f, f.whole - 1);
    f.size = f.stage_count;
    if (f.size == f.whole)
        f.stage_count = 0;
    return f;
}

/* ---- families with names of their own ---- */

/* The parts of a slashed name, and the key that makes them. */
typedef enum special {
    NOT_SPECIAL,
    EMBEDDING,
    POSITION_EMBEDDING,
    OPTIMIZER_INSTANCE,
    CP_LEVEL,
    DATA_INTRA,
    EXPERT_INTRA,
    EXPERT_INTER,
    HYBRID
} special;

/* Reads the number that ends a name, without a sign or leading zeros. */
static bool read_number(const char *text, int64_t *number) {
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || text[digits] != '\0' || (text[0] == '0' && digits > 1))
        return false;
    errno = 0;
    *number = strtoll(text, NULL, 10);
    return errno == 0;
}

static special special_of(const char *name, int64_t *number) {
    static const struct {
        const char *name;
        special kind;
    } fixed[] = {{"embedding", EMBEDDING},
                 {"position-embedding", POSITION_EMBEDDING},
                 {"optimizer-instance", OPTIMIZER_INSTANCE},
                 {"dp-cp/intra", DATA_INTRA},
                 {"edp/intra", EXPERT_INTRA},
                 {"edp/inter", EXPERT_INTER}};
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        if (strcmp(name, fixed[i].name) == 0)
            return fixed[i].kind;
    if (strncmp(name, "cp/", 3) == 0 && read_number(name + 3, number))
        return CP_LEVEL;
    if (strncmp(name, "dp-cp/hybrid", 12) == 0 && read_number(name + 12, number))
        return HYBRID;
    return NOT_SPECIAL;
}

/* The largest group of hybrid data and context parallelism: the powers of two below half of the
 * ranks' own; 0 where there is none. */
static int64_t largest_hybrid(const pgr_plan *plan) {
    int64_t ranks = data_family(plan, "").size, power = 1;
    while (power <= ranks / 2)
        power *= 2;
    return plan->hybrid_cp && power > 2 ? power / 2 : 0;
}

static bool has_special(const pgr_plan *plan, special kind, int64_t number) {
    bool instances = plan->optimizer_instances > 1;
    switch (kind) {
    case EMBEDDING:
    case POSITION_EMBEDDING:
        return axis_bit(&plan->views[PGR_VIEW_DENSE], "pp") != 0;
    case OPTIMIZER_INSTANCE:
        return true;
    case CP_LEVEL:
        return number < plan->level_count;
    case DATA_INTRA:
        return instances;
    case EXPERT_INTRA:
    case EXPERT_INTER:
        return instances && view_with(plan, "edp") >= 0;
    case HYBRID:
        return number >= 2 && number <= largest_hybrid(plan) && (number & (number - 1)) == 0;
    default:
        return false;
    }
}

static pgr_family special_family(const pgr_plan *plan, const char *name, special kind,
                                 int64_t number) {
    pgr_family f;
    int64_t instances = plan->optimizer_instances, below = 1;
    switch (kind) {
    case EMBEDDING:
    case POSITION_EMBEDDING:
        return embedding_family(plan, name, kind == EMBEDDING);
    case OPTIMIZER_INSTANCE:
        return instance_family(plan, name);
    case CP_LEVEL:
        pgr_plan_family_find(plan, "cp", &f, NULL);
        for (int64_t i = 0; i < number; i++)
            below *= plan->levels[i];
        cut_strided(&f, below, plan->levels[number]);
        break;
    case EXPERT_INTER:
        f = expert_data_family(plan, name);
        cut_strided(&f, f.size / instances, instances);
        break;
    case EXPERT_INTRA:
        f = expert_data_family(plan, name);
        cut_consecutive(&f, f.size / instances);
        break;
    default: /* DATA_INTRA, HYBRID */
        f = data_family(plan, name);
        cut_consecutive(&f, kind == HYBRID ? number : f.size / instances);
        break;
    }
    snprintf(f.name, sizeof f.name, "%s", name);
    return f;
}

/* ---- the families that exist by default ---- */

/* Those of initialize_model_parallel that are made of axes. */
static const char *const base_names[] = {"tp",    "cp",     "dp",        "dp-cp",    "pp",
                                         "tp-pp", "tp-cp",  "tp-dp",     "tp-dp-cp", "ep",
                                         "etp",   "etp-ep", "etp-ep-pp", "edp"};
enum { BASE_NAMES = sizeof base_names / sizeof base_names[0] };

static bool is_base_name(const char *name) {
    for (int i = 0; i < BASE_NAMES; i++)
        if (strcmp(name, base_names[i]) == 0)
            return true;
    return false;
}

/* Goes through the default names up to the wanted one. */
typedef struct naming {
    const pgr_plan *plan;
    int32_t wanted; /* -1: only count */
    int32_t count;
    char name[PGR_NAME_MAX];
} naming;

static void offer_name(naming *n, const char *name) {
    if (n->count++ == n->wanted)
        snprintf(n->name, sizeof n->name, "%s", name);
}

static void offer_special(naming *n, const char *name) {
    int64_t number = 0;
    special kind = special_of(name, &number);
    if (has_special(n->plan, kind, number))
        offer_name(n, name);
}

/* The axes of the general form that have no name of Megatron-Core's, each once. */
static void offer_own_axes(naming *n) {
    const pgr_plan *plan = n->plan;
    for (int32_t view = 0; view < plan->view_count; view++) {
        for (int32_t i = 0; i < plan->views[view].axis_count; i++) {
            const char *name = plan->views[view].axes[i].name;
            if (!is_base_name(name) && view_with(plan, name) == view)
                offer_name(n, name);
        }
    }
}

static void offer_all(naming *n) {
    char name[PGR_NAME_MAX];
    for (int i = 0; i < BASE_NAMES; i++) {
        uint32_t mask;
        bool known = false;
        for (int32_t view = 0; view < n->plan->view_count; view++)
            known = known || mask_in_view(&n->plan->views[view], base_names[i], &mask);
        if (known)
            offer_name(n, base_names[i]);
    }
    offer_special(n, "embedding");
    offer_special(n, "position-embedding");
    offer_special(n, "optimizer-instance");
    for (int32_t i = 0; i < n->plan->level_count; i++) {
        snprintf(name, sizeof name, "cp/%" PRId32, i);
        offer_name(n, name);
    }
    offer_special(n, "dp-cp/intra");
    offer_special(n, "edp/intra");
    offer_special(n, "edp/inter");
    for (int64_t size = 2; size <= largest_hybrid(n->plan); size *= 2) {
        snprintf(name, sizeof name, "dp-cp/hybrid%" PRId64, size);
        offer_name(n, name);
    }
    if (n->plan->general)
        offer_own_axes(n);
}

int32_t pgr_plan_family_count(const pgr_plan *plan) {
    naming n = {.plan = plan, .wanted = -1};
    offer_all(&n);
    return n.count;
}

pgr_family pgr_plan_family_at(const pgr_plan *plan, int32_t index) {
    naming n = {.plan = plan, .wanted = index};
    pgr_family family = {.count = 0};
    offer_all(&n);
    pgr_plan_family_find(plan, n.name, &family, NULL);
    return family;
}

/* ---- refusals ---- */

static bool nearest_family(const pgr_plan *plan, const char *name, char nearest[PGR_NAME_MAX]) {
    int nearest_distance = 3; /* further away is no typing mistake */
    int32_t count = pgr_plan_family_count(plan);
    for (int32_t i = 0; i < count; i++) {
        pgr_family known = pgr_plan_family_at(plan, i);
        int distance = pgr_name_edits(name, known.name);
        if (distance < nearest_distance) {
            nearest_distance = distance;
            memcpy(nearest, known.name, PGR_NAME_MAX);
        }
    }
    return nearest_distance < 3;
}

/* Text that grows in a buffer, and is cut at its end. */
typedef struct text {
    char *out;
    size_t bytes, used;
} text;

static void add_text(text *t, const char *format, ...) PGR_PRINTF(2, 3);

static void add_text(text *t, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int added = vsnprintf(t->out + t->used, t->bytes - t->used, format, arguments);
    va_end(arguments);
    t->used += added > 0 ? (size_t)added : 0;
    t->used = t->used < t->bytes ? t->used : t->bytes - 1;
}

/* "of the dense view (tp cp dp pp) or of the expert view (etp ep edp pp)" */
static void views_text(const pgr_plan *plan, char *out, size_t bytes) {
    text t = {.out = out, .bytes = bytes};
    for (int32_t i = 0; i < plan->view_count; i++) {
        const pgr_view *view = &plan->views[i];
        add_text(&t, "%sof the %s view (", i == 0 ? "" : " or ", view->name);
        for (int32_t a = 0; a < view->axis_count; a++)
            add_text(&t, "%s%s", a == 0 ? "" : " ", view->axes[a].name);
        add_text(&t, ")");
    }
    if (!plan->general && plan->view_count == 1)
        add_text(&t, "; parallel.expert_view = false, so there are no expert families");
}

static void known_text(const pgr_plan *plan, char *out, size_t bytes) {
    text t = {.out = out, .bytes = bytes};
    int32_t count = pgr_plan_family_count(plan);
    for (int32_t i = 0; i < count; i++)
        add_text(&t, "%s%s", i == 0 ? "" : ", ", pgr_plan_family_at(plan, i).name);
}

/* Whether every dash-joined part of `name` is an axis of some view. */
static bool all_axes_known(const pgr_plan *plan, const char *name) {
    for (const char *token = name;; token++) {
        size_t length = strcspn(token, "-");
        bool known = false;
        int32_t index;
        for (int32_t view = 0; view < plan->view_count; view++)
            known = known || find_axis(&plan->views[view], token, length, &index);
        token += length;
        if (!known)
            return false;
        if (*token == '\0')
            return true;
    }
}

/* A family that Megatron-Core has with another config. */
static pgr_status refuse_special(const pgr_plan *plan, const char *name, special kind,
                                 pgr_error *error) {
    int64_t largest = largest_hybrid(plan);
    switch (kind) {
    case CP_LEVEL:
        if (plan->level_count == 0)
            return pgr_error_set(error, PGR_INVALID,
                                 "family \"%s\" needs parallel.hierarchical_cp, which is not given",
                                 name);
        return pgr_error_set(error, PGR_INVALID,
                             "family \"%s\" is no level of parallel.hierarchical_cp; its levels "
                             "are cp/0 to cp/%" PRId32,
                             name, plan->level_count - 1);
    case HYBRID:
        if (!plan->hybrid_cp)
            return pgr_error_set(error, PGR_INVALID,
                                 "family \"%s\" needs parallel.hybrid_cp = true", name);
        if (largest == 0)
            return pgr_error_set(error, PGR_INVALID,
                                 "family \"%s\": dp * cp is below 4, so parallel.hybrid_cp makes "
                                 "no groups",
                                 name);
        return pgr_error_set(error, PGR_INVALID,
                             "family \"%s\": the sizes of parallel.hybrid_cp are the powers of two "
                             "from 2 to %" PRId64,
                             name, largest);
    case EXPERT_INTRA:
    case EXPERT_INTER:
        if (view_with(plan, "edp") < 0)
            return pgr_error_set(error, PGR_INVALID,
                                 "family \"%s\" needs an expert view with edp, and there is none",
                                 name);
        break;
    case EMBEDDING:
    case POSITION_EMBEDDING:
        return pgr_error_set(error, PGR_INVALID, "family \"%s\" needs an axis pp in parallel.grid",
                             name);
    default:
        break;
    }
    return pgr_error_set(error, PGR_INVALID,
                         "family \"%s\" needs parallel.optimizer_instances above 1", name);
}

static pgr_status refuse_family(const pgr_plan *plan, const char *name, pgr_error *error) {
    char views[768], known[768], nearest[PGR_NAME_MAX];
    views_text(plan, views, sizeof views);
    if (all_axes_known(plan, name)) {
        return pgr_error_set(error, PGR_INVALID,
                             "family \"%s\" must name different axes of one view: %s", name, views);
    }
    bool near = nearest_family(plan, name, nearest);
    known_text(plan, known, sizeof known);
    return pgr_error_set(error, PGR_INVALID,
                         "unknown family \"%s\"%s%s%s; known are %s, and any dash-joined axes %s",
                         name, near ? ", did you mean \"" : "", near ? nearest : "",
                         near ? "\"?" : "", known, views);
}

pgr_status pgr_plan_family_find(const pgr_plan *plan, const char *name, pgr_family *family,
                                pgr_error *error) {
    if (strnlen(name, PGR_NAME_MAX) == PGR_NAME_MAX)
        return refuse_family(plan, name, error);
    int64_t number = 0;
    special kind = special_of(name, &number);
    if (has_special(plan, kind, number)) {
        *family = special_family(plan, name, kind, number);
        family->whole_axes = false;
        return PGR_OK;
    }
    if (kind != NOT_SPECIAL)
        return refuse_special(plan, name, kind, error);
    for (int32_t view = 0; view < plan->view_count; view++) {
        uint32_t mask;
        if (mask_in_view(&plan->views[view], name, &mask)) {
            *family = family_of(plan, name, view, mask);
            return PGR_OK;
        }
    }
    return refuse_family(plan, name, error);
}
