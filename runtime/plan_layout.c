/* plan_layout.c - the sizes of a layout, and which rules it breaks.
 *
 * The rules are those of initialize_model_parallel and RankGenerator of Megatron-Core
 * (megatron/core/parallel_state.py); what it answered is recorded in tests/oracles. */
#include "plan_layout.h"

#include <ctype.h>
#include <string.h>

const char *const pgr_dense_names[PGR_ORDER_AXES] = {"tp", "cp", NULL, "dp", "pp"};
const char *const pgr_expert_names[PGR_ORDER_AXES] = {"etp", NULL, "ep", "edp", "pp"};
const char *const pgr_order_names[PGR_ORDER_AXES] = {"tp", "cp", "ep", "dp", "pp"};

int64_t pgr_greatest_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

int64_t pgr_layout_product(int64_t a, int64_t b, int64_t c) {
    int64_t result;
    if (__builtin_mul_overflow(a, b, &result) || __builtin_mul_overflow(result, c, &result))
        return 0;
    return result;
}

static int64_t least_multiple(int64_t a, int64_t b) {
    return pgr_layout_product(a / pgr_greatest_divisor(a, b), b, 1);
}

/* Sizes that the spec gives by itself. They stay 0 where one is below 1. */
static void read_sizes(pgr_layout *l) {
    const pgr_spec *s = l->spec;
    bool expert_view = s->parallel.expert_view;
    int64_t etp = s->parallel.etp == PGR_NIL ? s->parallel.tp : s->parallel.etp;
    if (s->parallel.tp < 1 || s->parallel.cp < 1 || s->parallel.pp < 1 ||
        (expert_view && (s->parallel.ep < 1 || etp < 1)) ||
        (s->parallel.dp != PGR_NIL && s->parallel.dp < 1))
        return;
    l->dense[PGR_TP] = s->parallel.tp;
    l->dense[PGR_CP] = s->parallel.cp;
    l->dense[PGR_EP] = 1;
    l->dense[PGR_PP] = s->parallel.pp;
    l->expert[PGR_TP] = expert_view ? etp : 1;
    l->expert[PGR_CP] = 1;
    l->expert[PGR_EP] = expert_view ? s->parallel.ep : 1;
    l->expert[PGR_PP] = s->parallel.pp;
    l->dense_product = pgr_layout_product(s->parallel.tp, s->parallel.cp, s->parallel.pp);
    l->expert_product = pgr_layout_product(l->expert[PGR_TP], l->expert[PGR_EP], l->expert[PGR_PP]);
    if (!expert_view)
        l->unit = l->dense_product;
    else if (l->dense_product > 0 && l->expert_product > 0)
        l->unit = least_multiple(l->dense_product, l->expert_product);
}

/* The number of units that the optimizer's instances take, so that they divide dp * cp and edp, and
 * that make dp * cp even for hybrid_cp; 1 where it does not fit. What global_batch wants is no
 * reason for more: dp grows with the units, and what does not divide the batch has no multiple that
 * does.
 */
static int64_t units_of_shares(const pgr_layout *l) {
    int64_t instances = l->spec->parallel.optimizer_instances;
    int64_t ranks = l->unit / l->dense_product * l->dense[PGR_CP], units = 1;
    if (instances > 1) {
        units = instances / pgr_greatest_divisor(instances, ranks);
        if (l->spec->parallel.expert_view) {
            int64_t edp = l->unit / l->expert_product;
            units = least_multiple(units, instances / pgr_greatest_divisor(instances, edp));
        }
    }
    if (l->spec->parallel.hybrid_cp && ranks % 2 != 0)
        units = least_multiple(units, 2);
    return units > 0 && pgr_layout_product(l->unit, units, 1) > 0 ? units : 1;
}

/* The smallest legal world, or 0 where it does not fit: with a given dp there is but one size. */
static int64_t smallest_world(const pgr_layout *l) {
    int64_t dp = l->spec->parallel.dp;
    if (dp != PGR_NIL)
        return pgr_layout_product(l->dense_product, dp, 1);
    return l->unit == 0 ? 0 : l->unit * units_of_shares(l);
}

static void choose_world(pgr_layout *l, int64_t world_size) {
    l->asked = world_size != PGR_NIL ? world_size : l->spec->world_size;
    l->world_assumed = l->asked == PGR_NIL;
    if (!l->world_assumed)
        l->world = l->asked;
    else if (l->dense_product > 0 && l->expert_product > 0)
        l->world = smallest_world(l);
}

int pgr_layout_axis(const char *token, size_t length) {
    for (int axis = 0; axis < PGR_ORDER_AXES; axis++)
        if (strlen(pgr_order_names[axis]) == length &&
            memcmp(pgr_order_names[axis], token, length) == 0)
            return axis;
    return -1;
}

static void read_order(pgr_layout *l) {
    size_t length = strnlen(l->spec->parallel.order, PGR_NAME_MAX - 1);
    for (size_t i = 0; i < length; i++) /* Megatron-Core takes capitals too */
        l->order[i] = (char)tolower((unsigned char)l->spec->parallel.order[i]);
    l->order_ok = length > 0;
    for (const char *token = l->order; length > 0; token++) {
        size_t token_length = strcspn(token, "-");
        int axis = pgr_layout_axis(token, token_length);
        if (axis < 0 || l->named[axis]) {
            l->order_ok = false;
        } else {
            l->named[axis] = true;
            l->axes[l->axis_count++] = axis;
        }
        token += token_length;
        if (*token == '\0')
            return;
    }
}

/* Derives dp and edp. Where the world is no multiple of the replica, a given dp still tells the
 * world that is meant. */
static void derive_data_parallel(pgr_layout *l) {
    int64_t world = l->world, dp = l->spec->parallel.dp;
    l->expert[PGR_DP] = l->spec->parallel.expert_view ? 0 : 1;
    if (world < 1 || l->dense_product == 0 || l->expert_product == 0)
        return;
    if (world % l->dense_product != 0 && dp != PGR_NIL) {
        int64_t meant = pgr_layout_product(l->dense_product, dp, 1);
        world = meant > 0 ? meant : world;
    }
    if (world % l->dense_product == 0)
        l->dense[PGR_DP] = world / l->dense_product;
    if (l->spec->parallel.expert_view && world % l->expert_product == 0)
        l->expert[PGR_DP] = world / l->expert_product;
}

/* Sizes or ranks that are out of range or do not fit. */
static bool out_of_range(const pgr_layout *l) {
    int64_t last, offset = l->spec->parallel.rank_offset;
    return l->dense_product == 0 || l->expert_product == 0 || l->world < 1 || offset < 0 ||
           __builtin_add_overflow(l->world, offset, &last);
}

static uint32_t broken_by_world(const pgr_layout *l) {
    const pgr_spec *s = l->spec;
    uint32_t broken = 0;
    if (l->world < 1 || l->dense_product == 0 || l->expert_product == 0)
        return 0;
    if (l->world % l->dense_product != 0)
        broken |= PGR_PG010;
    else if (s->parallel.dp != PGR_NIL && s->parallel.dp != l->dense[PGR_DP])
        broken |= PGR_PG018;
    /* the same product once more says nothing new */
    if (s->parallel.expert_view && l->world % l->expert_product != 0 &&
        (l->expert_product != l->dense_product || l->expert[PGR_EP] > 1))
        broken |= PGR_PG011;
    return broken;
}

/* PG028 and PG048; ranks that are not known are 0, which anything divides. */
static uint32_t broken_by_shares(const pgr_layout *l) {
    const pgr_spec *s = l->spec;
    int64_t ranks = l->dense[PGR_DP] * l->dense[PGR_CP];
    int64_t edp = s->parallel.expert_view ? l->expert[PGR_DP] : 0;
    bool instances = pgr_instances_fit(s, ranks, edp);
    return (instances ? 0 : PGR_PG028) | (pgr_hybrid_fits(s, ranks) ? 0 : PGR_PG048);
}

bool pgr_layout_needs_dp(const pgr_layout *l) {
    return !l->named[PGR_DP] && (l->dense[PGR_DP] == 0 || l->expert[PGR_DP] == 0) &&
           l->dense[PGR_DP] <= 1 && l->expert[PGR_DP] <= 1 && l->unit > 0 && l->world > 0 &&
           (l->unit > l->dense_product ||
            (l->spec->parallel.expert_view && l->unit > l->expert_product));
}

int64_t pgr_layout_beside_pp(const pgr_layout *l, const int64_t sizes[PGR_ORDER_AXES]) {
    int64_t before = 1, after = 1;
    bool passed = false, dp_before = false;
    for (int i = 0; i < l->axis_count; i++) {
        int axis = l->axes[i];
        if (axis == PGR_PP)
            passed = true;
        else if (axis == PGR_DP)
            dp_before = !passed;
        else if (passed)
            after *= sizes[axis];
        else
            before *= sizes[axis];
    }
    return dp_before ? after : before;
}

/* PG015 and PG016: neither depends on the world. dp is edp exactly where the products are equal;
 * and both views' pp lie equally far apart exactly where the sizes on the side of pp without dp
 * are. */
static uint32_t broken_by_pp(const pgr_layout *l) {
    uint32_t broken = 0;
    bool last = l->axis_count > 0 && l->axes[l->axis_count - 1] == PGR_PP;
    if (!l->spec->parallel.expert_view || !l->order_ok || !l->named[PGR_PP] || last ||
        l->dense[PGR_PP] <= 1 || l->dense_product == 0 || l->expert_product == 0)
        return 0;
    if (l->dense_product != l->expert_product)
        broken |= PGR_PG016;
    if (!l->dense_missing && !l->expert_missing &&
        pgr_layout_beside_pp(l, l->dense) != pgr_layout_beside_pp(l, l->expert))
        broken |= PGR_PG015;
    return broken;
}

pgr_layout pgr_layout_of(const pgr_spec *spec, int64_t world_size) {
    pgr_layout l = {.spec = spec};
    read_sizes(&l);
    choose_world(&l, world_size);
    read_order(&l);
    derive_data_parallel(&l);
    for (int axis = 0; axis < PGR_ORDER_AXES; axis++) {
        l.dense_missing |= !l.named[axis] && l.dense[axis] > 1;
        l.expert_missing |= !l.named[axis] && l.expert[axis] > 1;
    }
    l.broken = broken_by_world(&l) | broken_by_pp(&l);
    if (out_of_range(&l))
        l.broken |= PGR_PG019;
    if (!l.order_ok)
        l.broken |= PGR_PG013;
    else if (l.dense_missing || l.expert_missing || pgr_layout_needs_dp(&l))
        l.broken |= PGR_PG014;
    l.broken |= broken_by_shares(&l);
    if (spec->parallel.vpp != PGR_NIL && l.dense[PGR_PP] == 1)
        l.broken |= PGR_PG017;
    return l;
}
