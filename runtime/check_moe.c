/* check_moe.c - whether the experts, their groups and the router fit each other and the layout:
 * PG030 to PG039. Sources: TransformerConfig and MoELayer of Megatron-Core. */
#include "check_trial.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

static bool given(int64_t value) {
    return value != PGR_NIL;
}

static int64_t etp_of(const pgr_spec *s) {
    return given(s->parallel.etp) ? s->parallel.etp : s->parallel.tp;
}

/* ---- the layers ---- */

bool pgr_check_layer_is_moe(const pgr_spec *s, int64_t layer) {
    const pgr_list *pattern = &s->moe.layer_pattern;
    if (!s->has_moe || !given(s->moe.experts))
        return false;
    if (pattern->count == 0)
        return true;
    if (pattern->count == 1 && pattern->items[0] >= 1)
        return layer % pattern->items[0] == 0; /* as Megatron-Core's moe_layer_freq */
    return layer < pattern->count && pattern->items[layer] == 1;
}

/* A list has an entry for each layer, as moe_layer_freq of Megatron-Core, which refuses others. */
static void check_pattern(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    static const char paths[] = "moe.layer_pattern model.layers";
    const pgr_list *pattern = &s->moe.layer_pattern;
    int64_t layers = s->model.layers;
    pgr_trial t;
    if (pattern->count == 0 || (pattern->count == 1 && pattern->items[0] >= 1))
        return; /* none, or every n-th */
    if (!given(layers) || pattern->count == layers)
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG038", paths)) {
        pgr_trial_offer(&t, "",
                        "give %" PRId64 " entries, one for each layer, or one number n for "
                        "every n-th layer",
                        layers);
        t.spec.model.layers = pattern->count;
        if (pgr_trial_mends(&t))
            pgr_trial_offer(&t, ", or ", "layers = %" PRId64, pattern->count);
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG038", paths, t.help,
                 "layer_pattern has %" PRId64 " entr%s and layers = %" PRId64, pattern->count,
                 pattern->count == 1 ? "y" : "ies", layers);
}

/* A dense model has no experts to lay out. */
static void check_view(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    bool experts = s->has_moe && given(s->moe.experts), ep = s->parallel.ep > 1;
    bool etp = given(s->parallel.etp) && s->parallel.etp > 1;
    char paths[128], values[128] = "", leave[64];
    pgr_trial t;
    if (s->parallel.expert_view || !(experts || ep || etp))
        return;
    snprintf(paths, sizeof paths, "parallel.expert_view%s%s%s", experts ? " moe.experts" : "",
             ep ? " parallel.ep" : "", etp ? " parallel.etp" : "");
    snprintf(leave, sizeof leave, "%s%s%s%s%s", experts ? "moe.experts" : "",
             experts && (ep || etp) ? " and " : "", ep ? "ep" : "", ep && etp ? " and " : "",
             etp ? "etp" : "");
    if (pgr_trial_begin(&t, s, plan, found, "PG039", paths)) {
        t.spec.parallel.expert_view = true;
        if (pgr_trial_mends(&t))
            pgr_trial_offer(&t, "", "set expert_view = true");
        pgr_trial_offer(&t, ", or ", "leave %s out", leave);
        pgr_trial_end(&t, found);
    }
    size_t used = 0;
    if (experts)
        used += (size_t)snprintf(values, sizeof values, "experts = %" PRId64, s->moe.experts);
    if (ep)
        used += (size_t)snprintf(values + used, sizeof values - used, "%sep = %" PRId64,
                                 used ? ", " : "", s->parallel.ep);
    if (etp)
        snprintf(values + used, sizeof values - used, "%setp = %" PRId64, used ? ", " : "",
                 s->parallel.etp);
    pgr_diagnose(found, "PG039", paths, t.help,
                 "expert_view = false says that the model is dense, and %s", values);
}

/* ---- experts over ranks ---- */

/* Offers what ep can be: divisors of the experts. */
static void offer_ep(pgr_trial *t, const char *lead, const char *name) {
    pgr_trial_offer_divisors(t, "", lead, name, &t->spec.parallel.ep, t->spec.moe.experts);
}

/* ep given as the number of experts, in a world that does not hold etp * ep * pp ranks. */
static void check_ep_in_world(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    static const char paths[] = "parallel.ep moe.experts world_size";
    int64_t ep = s->parallel.ep, world = plan != NULL ? plan->world_size : s->world_size, product;
    pgr_trial t;
    if (ep == 1 || !given(world) || world == 0 ||
        __builtin_mul_overflow(ep, s->parallel.pp, &product) || world % product == 0)
        return; /* it is etp that does not fit, if anything: PG011 */
    if (pgr_trial_begin(&t, s, plan, found, "PG031", paths)) {
        int64_t others = product / ep, ranks = world % others == 0 ? world / others : 1;
        pgr_trial_offer_divisors(&t, "", "ep is a number of ranks, not of experts; ", "it",
                                 &t.spec.parallel.ep, pgr_greatest_divisor(s->moe.experts, ranks));
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG031", paths, t.help,
                 "ep = %" PRId64 " is the number of experts, and world_size = %" PRId64
                 " does not divide over so many ranks (ep * pp = %" PRId64 ")",
                 ep, world, product);
}

static void check_ep(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    static const char paths[] = "parallel.ep moe.experts";
    int64_t ep = s->parallel.ep, experts = s->moe.experts;
    char lead[64];
    pgr_trial t;
    if (ep == experts)
        check_ep_in_world(s, plan, found);
    if (experts % ep == 0)
        return;
    const char *code = ep > experts ? "PG031" : "PG030";
    if (pgr_trial_begin(&t, s, plan, found, code, paths)) {
        if (ep > experts) {
            offer_ep(&t, "ep is a number of ranks, not of experts; ", "it");
        } else {
            offer_ep(&t, "", "ep");
            snprintf(lead, sizeof lead, "with ep = %" PRId64 ", ", ep);
            pgr_trial_offer_multiples(&t, "; ", lead, "experts", &t.spec.moe.experts, ep);
        }
        pgr_trial_end(&t, found);
    }
    if (ep > experts)
        pgr_diagnose(found, code, paths, t.help,
                     "ep = %" PRId64 " is larger than experts = %" PRId64, ep, experts);
    else
        pgr_diagnose(found, code, paths, t.help,
                     "ep = %" PRId64 " does not divide experts = %" PRId64, ep, experts);
}

/* ---- groups of experts ---- */

/* Offers what group_topk, topk and groups can be, each by itself; where none of them is enough, a
 * router without groups. */
static void offer_groups(pgr_trial *t) {
    int64_t experts = t->spec.moe.experts, topk = t->spec.moe.topk;
    int64_t chosen = t->spec.moe.group_topk;
    bool any = false;
    if (given(chosen) && given(t->spec.moe.groups))
        any = pgr_trial_offer_divisors(t, ", or ", "", "group_topk", &t->spec.moe.group_topk, topk);
    if (!any && given(t->spec.moe.groups))
        any = pgr_trial_offer_divisors(t, ", or ", "", "groups", &t->spec.moe.groups, experts);
    if (given(chosen) && given(t->spec.moe.groups))
        any |= pgr_trial_offer_multiples(t, ", or ", "", "topk", &t->spec.moe.topk, chosen);
    if (any)
        return;
    t->spec.moe.groups = t->spec.moe.group_topk = PGR_NIL;
    if (pgr_trial_mends(t))
        pgr_trial_offer(t, ", or ", "leave groups%s out", given(chosen) ? " and group_topk" : "");
    pgr_trial_reset(t);
}

/* Offers a number of groups to a group_topk that came without. */
static void offer_missing_groups(pgr_trial *t) {
    int64_t experts = t->spec.moe.experts;
    t->spec.moe.groups = 0; /* to be raised to a divisor */
    pgr_trial_offer_divisors(t, "", "", "groups", &t->spec.moe.groups, experts);
    t->spec.moe.groups = PGR_NIL;
    t->spec.moe.group_topk = PGR_NIL;
    if (pgr_trial_mends(t))
        pgr_trial_offer(t, ", or ", "leave group_topk out");
    pgr_trial_reset(t);
}

static void check_groups(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    int64_t experts = s->moe.experts, topk = s->moe.topk;
    int64_t groups = s->moe.groups, chosen = s->moe.group_topk;
    char message[256];
    bool equal = given(groups) && experts % groups == 0;
    pgr_trial t;
    if (given(groups) && !equal) {
        static const char paths[] = "moe.groups moe.experts";
        if (pgr_trial_begin(&t, s, plan, found, "PG033", paths)) {
            if (!pgr_trial_offer_divisors(&t, "", "", "groups", &t.spec.moe.groups, experts))
                offer_groups(&t);
            pgr_trial_end(&t, found);
        }
        pgr_diagnose(found, "PG033", paths, t.help,
                     "groups = %" PRId64 " does not divide experts = %" PRId64, groups, experts);
    }
    if (!given(chosen))
        return;
    const char *paths;
    int64_t held = equal ? experts / groups : 0;
    if (!given(groups)) {
        paths = "moe.group_topk";
        snprintf(message, sizeof message, "group_topk = %" PRId64 " is given, but groups is not",
                 chosen);
    } else if (chosen > groups) {
        paths = "moe.group_topk moe.groups";
        snprintf(message, sizeof message,
                 "group_topk = %" PRId64 " is larger than groups = %" PRId64, chosen, groups);
    } else if (topk % chosen != 0) {
        paths = "moe.topk moe.group_topk";
        snprintf(message, sizeof message,
                 "topk = %" PRId64 " is not divisible by group_topk = %" PRId64, topk, chosen);
    } else if (equal && topk <= experts && held * chosen < topk) {
        paths = "moe.groups moe.group_topk moe.topk moe.experts";
        snprintf(message, sizeof message,
                 "group_topk = %" PRId64 " groups of %" PRId64 " experts hold %" PRId64
                 ", fewer than topk = %" PRId64,
                 chosen, held, held * chosen, topk);
    } else {
        return;
    }
    if (pgr_trial_begin(&t, s, plan, found, "PG033", paths)) {
        if (given(groups))
            offer_groups(&t);
        else
            offer_missing_groups(&t);
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG033", paths, t.help, "%s", message);
}

/* ---- the router ---- */

/* Tries one topk. */
static bool mends_topk(pgr_trial *t, int64_t topk) {
    t->spec.moe.topk = topk;
    bool mends = pgr_trial_mends(t);
    pgr_trial_reset(t);
    return mends;
}

static void check_topk(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    static const char paths[] = "moe.topk moe.experts";
    int64_t experts = s->moe.experts, topk = s->moe.topk;
    pgr_trial t;
    if (topk <= experts)
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG032", paths)) {
        int64_t least = mends_topk(&t, 1) ? 1 : 2;
        if (given(s->moe.group_topk))
            pgr_trial_offer_multiples(&t, "", "", "topk", &t.spec.moe.topk, s->moe.group_topk);
        else if (least < experts)
            pgr_trial_offer(&t, "", "topk can be %" PRId64 " to %" PRId64, least, experts);
        else if (least == experts && mends_topk(&t, least))
            pgr_trial_offer(&t, "", "topk = %" PRId64, least);
        if (t.help[0] == '\0') {
            int64_t step = s->parallel.ep > 1 ? s->parallel.ep : 1;
            t.spec.moe.experts = (topk + step - 1) / step * step;
            if (pgr_trial_mends(&t))
                pgr_trial_offer(&t, "", "experts = %" PRId64, t.spec.moe.experts);
        }
        if (t.help[0] == '\0')
            pgr_trial_offer(&t, "", "topk is at most %" PRId64, experts);
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG032", paths, t.help,
                 "topk = %" PRId64 " is larger than experts = %" PRId64, topk, experts);
}

static void check_router(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    pgr_trial t;
    check_topk(s, plan, found);
    if (s->moe.score != PGR_SOFTMAX)
        return;
    if (s->moe.topk == 1 && !s->moe.pre_softmax) {
        static const char paths[] = "moe.topk moe.pre_softmax moe.score";
        if (pgr_trial_begin(&t, s, plan, found, "PG034", paths)) {
            pgr_trial_offer(&t, "", "set pre_softmax = true, or score = \"sigmoid\"");
            if (mends_topk(&t, 2))
                pgr_trial_offer(&t, ", or ", "topk = 2");
            pgr_trial_end(&t, found);
        }
        pgr_diagnose(found, "PG034", paths, t.help,
                     "topk = 1 with softmax after the selection: the one weight is always 1");
    }
    if (s->moe.expert_bias) {
        pgr_diagnose(found, "PG035", "moe.expert_bias moe.score",
                     "set score = \"sigmoid\" (or \"sqrtsoftplus\"), or expert_bias = false",
                     "expert_bias = true does not go with score = \"softmax\"");
    }
}

/* ---- training ---- */

static void check_sequence_parallel(const pgr_spec *s, const pgr_plan *plan,
                                    pgr_diagnostics *found) {
    static const char paths[] = "parallel.tp parallel.sequence_parallel moe.experts";
    int64_t tp = s->parallel.tp;
    pgr_trial t;
    if (s->parallel.mode != PGR_MODE_TRAIN || tp == 1 || s->parallel.sequence_parallel)
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG036", paths)) {
        t.spec.parallel.sequence_parallel = true;
        if (pgr_trial_mends(&t))
            pgr_trial_offer(&t, "", "set sequence_parallel = true");
        pgr_trial_reset(&t);
        t.spec.parallel.tp = 1;
        if (pgr_trial_mends(&t))
            pgr_trial_offer(&t, ", or ", "tp = 1");
        pgr_trial_offer(&t, ", or ", "mode = \"infer\" where nothing is trained");
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG036", paths, t.help,
                 "training experts = %" PRId64 " with tp = %" PRId64
                 " needs sequence_parallel, which is off",
                 s->moe.experts, tp);
}

static void check_bias(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    bool cut = given(s->parallel.etp);
    const char *paths = cut ? "model.bias parallel.etp" : "model.bias parallel.tp parallel.etp";
    pgr_trial t;
    /* the default of model.bias says nothing where the config has no model */
    if (!s->has_model || !s->model.bias || etp_of(s) == 1)
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG037", paths)) {
        pgr_trial_offer(&t, "", "set model.bias = false");
        t.spec.parallel.etp = 1;
        if (pgr_trial_mends(&t))
            pgr_trial_offer(&t, ", or ", "etp = 1");
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG037", paths, t.help,
                 "experts cut over etp = %" PRId64 "%s cannot have a linear bias (bias = true)",
                 etp_of(s), cut ? "" : " (left out, so it is tp)");
}

/* Source: Megatron-Core, TransformerConfig: moe_pad_expert_input_to_capacity. */
static void check_capacity(const pgr_spec *s, pgr_diagnostics *found) {
    if (s->moe.pad_to_capacity && isnan(s->moe.capacity_factor))
        pgr_diagnose(found, "PG042", "moe.pad_to_capacity moe.capacity_factor",
                     "give capacity_factor, such as 1.25, or leave pad_to_capacity out",
                     "pad_to_capacity = true, but capacity_factor is not given");
}

void pgr_check_moe(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found) {
    check_view(spec, plan, found);
    if (!spec->has_moe)
        return;
    check_pattern(spec, plan, found);
    if (!given(spec->moe.experts))
        return;
    check_capacity(spec, found);
    check_router(spec, plan, found);
    check_groups(spec, plan, found);
    if (!spec->parallel.expert_view)
        return;
    check_ep(spec, plan, found);
    check_sequence_parallel(spec, plan, found);
    check_bias(spec, plan, found);
}
