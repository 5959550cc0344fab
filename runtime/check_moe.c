/* check_moe.c - whether the experts, their groups and the router fit each other and the layout:
 * PG030 to PG037. Sources: TransformerConfig and MoELayer of Megatron-Core. */
#include "check.h"

#include <inttypes.h>
#include <stdio.h>

enum { LIST = 200 };

static bool given(int64_t value) {
    return value != PGR_NIL;
}

static void check_ep(const pgr_spec *s, pgr_diagnostics *found) {
    int64_t ep = s->parallel.ep, experts = s->moe.experts;
    if (experts % ep == 0)
        return;
    char list[LIST], help[2 * LIST], text[64] = "";
    pgr_check_divisors(experts, experts, list, sizeof list);
    if (ep > experts) {
        snprintf(help, sizeof help, "ep is a number of ranks, not of experts; it can be %s", list);
        pgr_diagnose(found, "PG031", "parallel.ep moe.experts", help,
                     "ep = %" PRId64 " is larger than experts = %" PRId64, ep, experts);
        return;
    }
    int64_t below = experts / ep * ep;
    snprintf(text, sizeof text, "%" PRId64 " or %" PRId64, below, below + ep);
    snprintf(help, sizeof help, "ep can be %s; with ep = %" PRId64 ", experts can be %s", list, ep,
             text);
    pgr_diagnose(found, "PG030", "parallel.ep moe.experts", help,
                 "ep = %" PRId64 " does not divide experts = %" PRId64, ep, experts);
}

static void check_groups(const pgr_spec *s, pgr_diagnostics *found) {
    int64_t experts = s->moe.experts, topk = s->moe.topk;
    int64_t groups = s->moe.groups, chosen = s->moe.group_topk;
    char list[LIST], help[2 * LIST];
    bool equal = given(groups) && experts % groups == 0;
    if (given(groups) && !equal) {
        pgr_check_divisors(experts, experts, list, sizeof list);
        snprintf(help, sizeof help, "groups can be %s", list);
        pgr_diagnose(found, "PG033", "moe.groups moe.experts", help,
                     "groups = %" PRId64 " does not divide experts = %" PRId64, groups, experts);
    }
    if (!given(chosen))
        return;
    if (!given(groups)) {
        pgr_diagnose(found, "PG033", "moe.group_topk", "give moe.groups, or leave group_topk out",
                     "group_topk = %" PRId64 " is given, but groups is not", chosen);
        return;
    }
    if (chosen > groups) {
        snprintf(help, sizeof help, "group_topk can be at most %" PRId64, groups);
        pgr_diagnose(found, "PG033", "moe.group_topk moe.groups", help,
                     "group_topk = %" PRId64 " is larger than groups = %" PRId64, chosen, groups);
        return;
    }
    if (topk % chosen != 0) {
        pgr_check_divisors(topk, groups, list, sizeof list);
        snprintf(help, sizeof help, "group_topk can be %s", list);
        pgr_diagnose(found, "PG033", "moe.topk moe.group_topk", help,
                     "topk = %" PRId64 " is not divisible by group_topk = %" PRId64, topk, chosen);
        return;
    }
    int64_t held = experts / groups;
    if (equal && topk <= experts && held * chosen < topk) {
        snprintf(help, sizeof help,
                 "take group_topk of at least %" PRId64 ", or topk of at most %" PRId64,
                 (topk + held - 1) / held, held * chosen);
        pgr_diagnose(found, "PG033", "moe.groups moe.group_topk moe.topk moe.experts", help,
                     "group_topk = %" PRId64 " groups of %" PRId64 " experts hold %" PRId64
                     ", fewer than topk = %" PRId64,
                     chosen, held, held * chosen, topk);
    }
}

static void check_router(const pgr_spec *s, pgr_diagnostics *found) {
    int64_t experts = s->moe.experts, topk = s->moe.topk;
    char help[LIST];
    if (topk > experts) {
        snprintf(help, sizeof help, "topk can be 1 to %" PRId64, experts);
        pgr_diagnose(found, "PG032", "moe.topk moe.experts", help,
                     "topk = %" PRId64 " is larger than experts = %" PRId64, topk, experts);
    }
    if (s->moe.score != PGR_SOFTMAX)
        return;
    if (topk == 1 && !s->moe.pre_softmax) {
        pgr_diagnose(found, "PG034", "moe.topk moe.pre_softmax moe.score",
                     "set pre_softmax = true, score = \"sigmoid\", or topk of at least 2",
                     "topk = 1 with softmax after the selection: the one weight is always 1");
    }
    if (s->moe.expert_bias) {
        pgr_diagnose(found, "PG035", "moe.expert_bias moe.score",
                     "set score = \"sigmoid\" (or \"sqrtsoftplus\"), or expert_bias = false",
                     "expert_bias = true does not go with score = \"softmax\"");
    }
}

static void check_training(const pgr_spec *s, pgr_diagnostics *found) {
    int64_t tp = s->parallel.tp;
    if (s->parallel.mode == PGR_MODE_TRAIN && tp > 1 && !s->parallel.sequence_parallel) {
        pgr_diagnose(found, "PG036", "parallel.tp parallel.sequence_parallel moe.experts",
                     "set sequence_parallel = true, tp = 1, or mode = \"infer\" where nothing is "
                     "trained",
                     "training experts = %" PRId64 " with tp = %" PRId64
                     " needs sequence_parallel, which is off",
                     s->moe.experts, tp);
    }
    bool cut = given(s->parallel.etp);
    int64_t etp = cut ? s->parallel.etp : tp;
    /* the default of model.bias says nothing where the config has no model */
    if (s->has_model && s->model.bias && etp > 1) {
        pgr_diagnose(found, "PG037",
                     cut ? "model.bias parallel.etp" : "model.bias parallel.tp parallel.etp",
                     "set model.bias = false, or etp = 1",
                     "experts cut over etp = %" PRId64 "%s cannot have a linear bias (bias = true)",
                     etp, cut ? "" : " (left out, so it is tp)");
    }
}

void pgr_check_moe(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found) {
    (void)plan; /* nothing here depends on the world */
    if (!spec->has_moe || !given(spec->moe.experts))
        return;
    check_router(spec, found);
    check_groups(spec, found);
    if (!spec->parallel.expert_view)
        return;
    check_ep(spec, found);
    check_training(spec, found);
}
