/* check_cluster.c - layouts that are legal and slow, or not what was meant: PG050, PG052, PG053 and
 * PG056 to PG058. */
#include "check_trial.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool given(int64_t value) {
    return value != PGR_NIL;
}

static bool has_experts(const pgr_spec *s) {
    return s->has_moe && given(s->moe.experts) && s->parallel.expert_view;
}

static void check_etp(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    static const char paths[] = "parallel.ep parallel.tp parallel.etp";
    int64_t ep = s->parallel.ep, tp = s->parallel.tp;
    pgr_trial t;
    if (ep == 1 || given(s->parallel.etp) || tp == 1 || !s->parallel.expert_view)
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG050", paths)) {
        t.spec.parallel.etp = 1;
        if (pgr_trial_mends(&t))
            pgr_trial_offer(&t, "", "write etp = 1 for whole experts");
        t.spec.parallel.etp = tp;
        if (pgr_trial_mends(&t))
            pgr_trial_offer(&t, ", or ", "%setp = %" PRId64, t.help[0] ? "" : "write ", tp);
        if (t.help[0] == '\0')
            pgr_trial_offer(&t, "", "give etp as it is meant");
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG050", paths, t.help,
                 "etp is left out with ep = %" PRId64 ", so it equals tp = %" PRId64
                 ": every expert is cut in %" PRId64,
                 ep, tp, tp);
}

static void check_one_expert(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    static const char paths[] = "parallel.ep moe.experts";
    int64_t ep = s->parallel.ep, experts = s->moe.experts, fewer[PGR_TRIAL_VALUES];
    pgr_trial t;
    if (!has_experts(s) || experts != ep || ep == 1 || plan == NULL ||
        pgr_plan_axis_size(plan, "edp") == 0)
        return; /* an ep that fits no world is an error of its own */
    if (!pgr_check_crosses(s, plan, "ep"))
        return; /* all-to-all is cheap there */
    if (pgr_trial_begin(&t, s, plan, found, "PG053", paths)) {
        int count = pgr_trial_divisors(&t, &t.spec.parallel.ep, experts, fewer);
        if (count > 0)
            pgr_trial_offer(&t, "", "ep = %" PRId64 " gives each rank %" PRId64 " experts",
                            fewer[count - 1], experts / fewer[count - 1]);
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG053", paths, t.help,
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

/* A size that an axis cuts, and the key to change where its parts are not aligned. */
typedef struct shard {
    const char *name, *axis, *paths; /* axis "": not cut */
    int64_t size, ranks;             /* PGR_NIL: not given */
    const char *key;                 /* as the way out names it */
    size_t field;                    /* its offset in the spec */
    int64_t step;                    /* the way out is a multiple of it */
} shard;

static void check_aligned(const pgr_spec *s, const pgr_plan *plan, const shard *cut,
                          pgr_diagnostics *found) {
    int64_t step = alignment(s), values[PGR_TRIAL_VALUES];
    const char *dtype = s->model.fp8 ? "fp8" : pgr_dtype_name(s->model.dtype);
    char list[64];
    pgr_trial t;
    if (!given(cut->size) || cut->size % cut->ranks != 0 || cut->size / cut->ranks % step == 0)
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG056", cut->paths)) {
        int64_t *field = (int64_t *)(void *)((char *)&t.spec + cut->field);
        if (*field == PGR_NIL)
            *field = cut->size; /* left out: the way out gives it */
        int count = pgr_trial_multiples(&t, field, cut->step, values);
        pgr_trial_list(values, count, list, sizeof list);
        if (count > 0)
            pgr_trial_offer(&t, "", "%s = %s is aligned", cut->key, list);
        pgr_trial_end(&t, found);
    }
    if (cut->axis[0] != '\0')
        pgr_diagnose(found, "PG056", cut->paths, t.help,
                     "%s / %s = %" PRId64 " / %" PRId64 " = %" PRId64
                     " is not a multiple of %" PRId64 " (16 bytes in %s)",
                     cut->name, cut->axis, cut->size, cut->ranks, cut->size / cut->ranks, step,
                     dtype);
    else
        pgr_diagnose(found, "PG056", cut->paths, t.help,
                     "%s = %" PRId64 " is not a multiple of %" PRId64 " (16 bytes in %s)",
                     cut->name, cut->size, step, dtype);
}

/* The attention projections' columns on a rank, with head_dim given or derived. */
static void check_width(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    int64_t heads = s->model.heads, dim = s->model.head_dim, tp = s->parallel.tp, width;
    bool own = given(dim);
    if (!given(heads) || heads % tp != 0)
        return;
    if (!own && given(s->model.hidden) && s->model.hidden % heads == 0)
        dim = s->model.hidden / heads;
    if (!given(dim) || __builtin_mul_overflow(heads, dim, &width))
        return;
    int64_t step = alignment(s), whole = step / pgr_greatest_divisor(step, heads / tp);
    shard cut = {"heads * head_dim",
                 "tp",
                 own ? "model.heads model.head_dim parallel.tp model.dtype"
                     : "model.heads model.hidden parallel.tp model.dtype",
                 width,
                 tp,
                 own ? "head_dim" : "hidden",
                 own ? offsetof(pgr_spec, model.head_dim) : offsetof(pgr_spec, model.hidden),
                 own ? whole : pgr_least_multiple(whole * heads, step)};
    check_aligned(s, plan, &cut, found);
}

/* The embedding's rows on a rank; the vocabulary is padded to vocab_multiple * tp. */
static void check_vocabulary(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    int64_t vocab = s->model.vocab, multiple = s->model.vocab_multiple, unit, padded;
    if (!given(vocab) || __builtin_mul_overflow(multiple, s->parallel.tp, &unit) ||
        __builtin_add_overflow(vocab, (unit - vocab % unit) % unit, &padded))
        return;
    shard cut = {"padded vocab",
                 "tp",
                 "model.vocab model.vocab_multiple parallel.tp model.dtype",
                 padded,
                 s->parallel.tp,
                 "vocab_multiple",
                 offsetof(pgr_spec, model.vocab_multiple),
                 alignment(s)};
    check_aligned(s, plan, &cut, found);
}

static void check_shapes(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    int64_t tp = s->parallel.tp, step = alignment(s), whole;
    int64_t hidden_step = given(s->model.heads) && !given(s->model.head_dim)
                              ? pgr_least_multiple(step, s->model.heads)
                              : step;
    if (__builtin_mul_overflow(step, tp, &whole))
        return;
    shard cuts[] = {
        {"hidden", "", "model.hidden model.dtype", s->model.hidden, 1, "hidden",
         offsetof(pgr_spec, model.hidden), hidden_step},
        {"ffn", "tp", "model.ffn parallel.tp model.dtype", s->model.ffn, tp, "ffn",
         offsetof(pgr_spec, model.ffn), whole},
        {"moe.shared_ffn", "tp", "moe.shared_ffn parallel.tp model.dtype",
         has_experts(s) && s->moe.shared_ffn > 0 ? s->moe.shared_ffn : PGR_NIL, tp,
         "moe.shared_ffn", offsetof(pgr_spec, moe.shared_ffn), whole},
    };
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
        check_aligned(s, plan, &cuts[i], found);
    bool own = given(s->moe.ffn), etp = given(s->parallel.etp);
    int64_t ranks = etp ? s->parallel.etp : tp;
    if (has_experts(s) && (own || (etp && ranks != tp)) &&
        !__builtin_mul_overflow(step, ranks, &whole)) {
        char paths[96];
        snprintf(paths, sizeof paths, "%s.ffn parallel.%s model.dtype", own ? "moe" : "model",
                 etp ? "etp" : "tp");
        shard cut = {own ? "moe.ffn" : "ffn",         "etp", paths,
                     own ? s->moe.ffn : s->model.ffn, ranks, "moe.ffn",
                     offsetof(pgr_spec, moe.ffn),     whole};
        check_aligned(s, plan, &cut, found);
    }
    check_width(s, plan, found);
    check_vocabulary(s, plan, found);
}

static void check_replicated(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    static const char paths[] = "parallel.tp model.kv_heads";
    int64_t tp = s->parallel.tp, kv = s->model.kv_heads, values[PGR_TRIAL_VALUES];
    pgr_trial t;
    if (!given(kv) || tp <= kv || tp % kv != 0)
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG052", paths)) {
        int count = pgr_trial_divisors(&t, &t.spec.parallel.tp, kv, values);
        if (count > 0)
            pgr_trial_offer(&t, "", "tp = %" PRId64 " keeps each on one rank", values[count - 1]);
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG052", paths, t.help,
                 "tp = %" PRId64 " is larger than kv_heads = %" PRId64
                 ": each key-value head is held by %" PRId64 " ranks",
                 tp, kv, tp / kv);
}

/* ---- the world ---- */

/* Every legal world is a multiple of it; 0 where it is not known. */
static int64_t unit_of(const pgr_spec *s) {
    int64_t unit;
    pgr_spec open = *s;
    pgr_error ignored = {0};
    open.parallel.dp = PGR_NIL;
    return pgr_plan_smallest_world(&open, &unit, &ignored) == PGR_OK ? unit : 0;
}

static void check_nodes(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    static const char paths[] = "world_size cluster.gpus_per_node";
    int64_t node = s->cluster.gpus_per_node, world = plan->world_size;
    int64_t unit = unit_of(s), values[PGR_TRIAL_VALUES];
    char list[64];
    pgr_trial t;
    if (!given(node) || world % node == 0)
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG057", paths)) {
        int64_t step = unit > 0 ? pgr_least_multiple(node, unit) : 0;
        int count = pgr_trial_multiples(&t, &t.world_size, step, values);
        pgr_trial_list(values, count, list, sizeof list);
        if (count > 0)
            pgr_trial_offer(&t, "", "world_size = %s fills whole nodes", list);
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG057", paths, t.help,
                 "world_size = %" PRId64 " is not a multiple of gpus_per_node = %" PRId64, world,
                 node);
}

static void check_replicas(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    static const char paths[] = "world_size parallel.tp parallel.cp parallel.pp parallel.dp";
    int64_t world = plan->world_size, larger;
    bool asserted = given(s->parallel.dp);
    pgr_trial t;
    if (pgr_plan_axis_size(plan, "dp") != 1 || world == 1 || s->parallel.mode == PGR_MODE_INFER)
        return;
    if (asserted && s->parallel.dp != 1)
        return; /* PG018 tells that dp is not what was meant */
    if (pgr_trial_begin(&t, s, plan, found, "PG058", paths)) {
        for (int64_t dp = 2; dp <= 16 && !__builtin_mul_overflow(world, dp, &larger); dp++) {
            t.world_size = larger;
            t.spec.parallel.dp = asserted ? dp : PGR_NIL;
            if (pgr_trial_mends(&t)) {
                pgr_trial_offer(&t, "", "world_size = %" PRId64 "%s dp = %" PRId64, larger,
                                asserted ? " with" : " would make", dp);
                break;
            }
        }
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG058", paths, t.help,
                 "dp = 1: the %" PRId64 " ranks hold one replica (tp * cp * pp = %" PRId64
                 " * %" PRId64 " * %" PRId64 ")",
                 world, s->parallel.tp, s->parallel.cp, s->parallel.pp);
}

/* Switches that have nothing to work on. Source: Megatron-Core, ModelParallelConfig and
 * TransformerConfig. */
static void check_idle(const pgr_spec *s, pgr_diagnostics *found) {
    if (s->parallel.sequence_parallel && s->parallel.tp == 1)
        pgr_diagnose(found, "PG059", "parallel.sequence_parallel parallel.tp",
                     "leave sequence_parallel out",
                     "sequence_parallel = true does nothing with tp = 1");
    if (s->parallel.ep > 1 && s->parallel.expert_view && s->has_model && !given(s->moe.experts))
        pgr_diagnose(found, "PG060", "parallel.ep moe.experts",
                     "give moe.experts, or leave ep out where the model is dense",
                     "ep = %" PRId64 " spreads experts, and moe.experts is not given",
                     s->parallel.ep);
}

void pgr_check_cluster(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found) {
    check_idle(spec, found);
    check_etp(spec, plan, found);
    check_one_expert(spec, plan, found);
    check_shapes(spec, plan, found);
    check_replicated(spec, plan, found);
    if (plan == NULL)
        return;
    pgr_check_crossings(spec, plan, found);
    if (plan->world_size_assumed)
        return; /* nobody asked for this size */
    check_nodes(spec, plan, found);
    check_replicas(spec, plan, found);
}
