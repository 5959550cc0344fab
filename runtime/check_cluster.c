/* check_cluster.c - layouts that are legal and slow, or not what was meant: PG050 to PG053 and
 * PG056 to PG058. */
#include "check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { LARGEST_FITTING = 1 << 16 }; /* no domain is larger */

static bool given(int64_t value) {
    return value != PGR_NIL;
}

static bool has_experts(const pgr_spec *s) {
    return s->has_moe && given(s->moe.experts) && s->parallel.expert_view;
}

/* GPUs that are near each other: an NVLink domain may span nodes. PGR_NIL where not known. */
static int64_t near_gpus(const pgr_spec *s, const char **name) {
    bool domain = given(s->cluster.nvlink_domain);
    *name = domain ? "nvlink_domain" : "gpus_per_node";
    return domain ? s->cluster.nvlink_domain : s->cluster.gpus_per_node;
}

/* The axis, or NULL where there is none or its place in the world is not known. */
static const pgr_axis *axis_of(const pgr_plan *plan, int view, const char *name) {
    if (view >= plan->view_count)
        return NULL;
    for (int32_t i = 0; i < plan->views[view].axis_count; i++) {
        const pgr_axis *axis = &plan->views[view].axes[i];
        if (strcmp(axis->name, name) == 0)
            return axis->stride > 0 ? axis : NULL;
    }
    return NULL;
}

/* The groups of an axis fill aligned blocks of stride * size ranks. A boundary between domains
 * inside a block lies between two members of one of its groups; there is none exactly where the
 * blocks divide the domain, or the world has but one. */
static bool crosses(const pgr_plan *plan, const pgr_axis *axis, int64_t domain) {
    return axis != NULL && axis->size > 1 && plan->world_size > domain &&
           domain % (axis->stride * axis->size) != 0;
}

/* Two neighbours of a group on both sides of the first boundary. The first group of the block has
 * its last member too early where the boundary lies in the block's last stride; the last group does
 * not. */
static void example_of(const pgr_axis *axis, int64_t boundary, int64_t *near, int64_t *far) {
    int64_t inside = boundary % (axis->stride * axis->size);
    int64_t start = boundary - inside, last = axis->stride * (axis->size - 1);
    *near = start + (inside <= last ? (inside - 1) / axis->stride * axis->stride : last - 1);
    *far = *near + axis->stride;
}

/* The largest divisor of `size` whose groups, `stride` apart, stay inside. */
static int64_t fitting_size(int64_t size, int64_t stride, int64_t domain) {
    int64_t most = size < domain ? size : domain;
    most = most < LARGEST_FITTING ? most : LARGEST_FITTING;
    for (int64_t n = most; n > 1; n--)
        if (size % n == 0 && domain % (stride * n) == 0)
            return n;
    return 1;
}

static void crossing(const pgr_spec *s, const pgr_plan *plan, const pgr_axis *axis,
                     int64_t innermost, const char *order, const char *paths,
                     pgr_diagnostics *found) {
    const char *name;
    int64_t domain = near_gpus(s, &name), near, far;
    if (!given(domain) || !crosses(plan, axis, domain))
        return;
    char help[384];
    if (axis->stride > innermost && domain % (innermost * axis->size) == 0)
        snprintf(help, sizeof help, "order = \"%s\" keeps it inside", order);
    else if (innermost < domain && fitting_size(axis->size, innermost, domain) > 1)
        snprintf(help, sizeof help, "%s = %" PRId64 "%s%s%s keeps it inside", axis->name,
                 fitting_size(axis->size, innermost, domain),
                 axis->stride > innermost ? " with order = \"" : "",
                 axis->stride > innermost ? order : "", axis->stride > innermost ? "\"" : "");
    else
        snprintf(help, sizeof help, "a domain of %" PRId64 " GPUs would keep it inside",
                 innermost * axis->size);
    example_of(axis, domain, &near, &far);
    pgr_diagnose(found, "PG051", paths, help,
                 "%s groups of %" PRId64 " ranks, %" PRId64
                 " apart, cross the boundaries of %s = %" PRId64 ", as between ranks %" PRId64
                 " and %" PRId64,
                 axis->name, axis->size, axis->stride, name, domain, near, far);
}

static void check_crossings(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    const char *name;
    (void)near_gpus(s, &name);
    char paths[200];
    snprintf(paths, sizeof paths, "parallel.tp cluster.%s parallel.order", name);
    crossing(s, plan, axis_of(plan, PGR_VIEW_DENSE, "tp"), 1, "tp-cp-ep-dp-pp", paths, found);
    const pgr_axis *etp = axis_of(plan, PGR_VIEW_EXPERT, "etp");
    if (s->parallel.ep == 1 || etp == NULL)
        return;
    snprintf(paths, sizeof paths, "parallel.ep %scluster.%s parallel.order",
             etp->size > 1 ? given(s->parallel.etp) ? "parallel.etp " : "parallel.tp " : "", name);
    crossing(s, plan, axis_of(plan, PGR_VIEW_EXPERT, "ep"), etp->size, "tp-cp-ep-dp-pp", paths,
             found);
}

static void check_experts(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    int64_t ep = s->parallel.ep, experts = s->moe.experts;
    char help[128];
    if (ep == 1)
        return;
    if (!given(s->parallel.etp) && s->parallel.tp > 1 && s->parallel.expert_view) {
        snprintf(help, sizeof help, "write etp = 1 for whole experts, or etp = %" PRId64,
                 s->parallel.tp);
        pgr_diagnose(found, "PG050", "parallel.ep parallel.tp parallel.etp", help,
                     "etp is left out with ep = %" PRId64 ", so it equals tp = %" PRId64
                     ": every expert is cut in %" PRId64,
                     ep, s->parallel.tp, s->parallel.tp);
    }
    if (!has_experts(s) || experts != ep)
        return;
    const char *name;
    int64_t domain = near_gpus(s, &name);
    const pgr_axis *axis = plan == NULL ? NULL : axis_of(plan, PGR_VIEW_EXPERT, "ep");
    if (given(domain) && axis != NULL && !crosses(plan, axis, domain))
        return; /* all-to-all is cheap there */
    int64_t fewer = 1;
    for (int64_t n = 2; n <= ep / 2; n++)
        if (ep % n == 0)
            fewer = n;
    snprintf(help, sizeof help, "ep = %" PRId64 " gives each rank %" PRId64 " experts", fewer,
             experts / fewer);
    pgr_diagnose(found, "PG053", "parallel.ep moe.experts", help,
                 "ep = %" PRId64 " = experts: one expert on each rank, and %.0f%% of the routed "
                 "tokens leave their rank",
                 ep, 100.0 * (double)(ep - 1) / (double)ep);
}

/* ---- shapes ---- */

/* Elements in the 16 bytes that matrix units want rows to be multiples of; f32 runs as TF32.
 * Source: NVIDIA, Matrix Multiplication Background User's Guide, section 4.1. */
static int64_t alignment(const pgr_spec *s) {
    return s->model.fp8 ? 16 : 16 / pgr_dtype_bytes(s->model.dtype);
}

static void check_aligned(const pgr_spec *s, const char *name, int64_t size, const char *axis,
                          int64_t ranks, const char *paths, pgr_diagnostics *found) {
    int64_t step = alignment(s);
    if (!given(size) || size % ranks != 0 || size / ranks % step == 0)
        return;
    char help[192];
    int64_t whole = step * ranks, below = size / whole * whole;
    if (below > 0)
        snprintf(help, sizeof help, "%s = %" PRId64 " or %" PRId64 " is aligned", name, below,
                 below + whole);
    else
        snprintf(help, sizeof help, "%s = %" PRId64 " is aligned", name, whole);
    const char *dtype = s->model.fp8 ? "fp8" : pgr_dtype_name(s->model.dtype);
    if (axis[0] != '\0')
        pgr_diagnose(found, "PG056", paths, help,
                     "%s / %s = %" PRId64 " / %" PRId64 " = %" PRId64
                     " is not a multiple of %" PRId64 " (16 bytes in %s)",
                     name, axis, size, ranks, size / ranks, step, dtype);
    else
        pgr_diagnose(found, "PG056", paths, help,
                     "%s = %" PRId64 " is not a multiple of %" PRId64 " (16 bytes in %s)", name,
                     size, step, dtype);
}

static void check_shapes(const pgr_spec *s, pgr_diagnostics *found) {
    int64_t tp = s->parallel.tp, kv = s->model.kv_heads, width;
    check_aligned(s, "hidden", s->model.hidden, "", 1, "model.hidden model.dtype", found);
    check_aligned(s, "ffn", s->model.ffn, "tp", tp, "model.ffn parallel.tp model.dtype", found);
    if (has_experts(s) && given(s->moe.ffn)) {
        bool cut = given(s->parallel.etp);
        check_aligned(s, "moe.ffn", s->moe.ffn, "etp", cut ? s->parallel.etp : tp,
                      cut ? "moe.ffn parallel.etp model.dtype" : "moe.ffn parallel.tp model.dtype",
                      found);
    }
    if (given(s->model.heads) && given(s->model.head_dim) && s->model.heads % tp == 0 &&
        !__builtin_mul_overflow(s->model.heads, s->model.head_dim, &width))
        check_aligned(s, "heads * head_dim", width, "tp", tp,
                      "model.heads model.head_dim parallel.tp model.dtype", found);
    if (given(kv) && tp > kv && tp % kv == 0) {
        char help[128];
        snprintf(help, sizeof help, "tp = %" PRId64 " keeps each on one rank", kv);
        pgr_diagnose(found, "PG052", "parallel.tp model.kv_heads", help,
                     "tp = %" PRId64 " is larger than kv_heads = %" PRId64
                     ": each key-value head is held by %" PRId64 " ranks",
                     tp, kv, tp / kv);
    }
}

/* ---- the world ---- */

static void check_world(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    int64_t node = s->cluster.gpus_per_node, world = plan->world_size;
    int64_t dp = pgr_plan_axis_size(plan, "dp");
    char help[128];
    if (plan->world_size_assumed || world == 0)
        return; /* nobody asked for this size */
    if (given(node) && world % node != 0) {
        int64_t below = world / node * node;
        if (below > 0)
            snprintf(help, sizeof help, "whole nodes have %" PRId64 " or %" PRId64 " ranks", below,
                     below + node);
        else
            snprintf(help, sizeof help, "a whole node has %" PRId64 " ranks", node);
        pgr_diagnose(found, "PG057", "world_size cluster.gpus_per_node", help,
                     "world_size = %" PRId64 " is not a multiple of gpus_per_node = %" PRId64,
                     world, node);
    }
    if (dp != 1 || world == 1 || s->parallel.mode == PGR_MODE_INFER)
        return;
    if (given(s->parallel.dp) && s->parallel.dp != dp)
        return; /* PG018 tells that dp is not what was meant */
    if (world <= INT64_MAX / 2)
        snprintf(help, sizeof help, "world_size = %" PRId64 " would make dp = 2", 2 * world);
    else
        help[0] = '\0';
    pgr_diagnose(found, "PG058", "world_size parallel.tp parallel.cp parallel.pp parallel.dp", help,
                 "dp = 1: the %" PRId64 " ranks hold one replica (tp * cp * pp = %" PRId64
                 " * %" PRId64 " * %" PRId64 ")",
                 world, s->parallel.tp, s->parallel.cp, s->parallel.pp);
}

void pgr_check_cluster(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found) {
    check_experts(spec, plan, found);
    check_shapes(spec, found);
    if (plan == NULL)
        return;
    check_crossings(spec, plan, found);
    check_world(spec, plan, found);
}
