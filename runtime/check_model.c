/* check_model.c - whether the model's shapes divide over the layout: PG012, PG021 to PG024
 * and PG026. */
#include "check_trial.h"

#include <inttypes.h>
#include <stdio.h>

enum { LIST = 200 }; /* bytes of a list of divisors */

static bool given(int64_t value) {
    return value != PGR_NIL;
}

static bool has_experts(const pgr_spec *s) {
    return s->has_moe && given(s->moe.experts) && s->parallel.expert_view;
}

/* The multiples of `step` on both sides of `value`: "48 or 96"; 0 is none. */
static void nearest_multiples(int64_t value, int64_t step, char *text, size_t bytes) {
    int64_t below = value / step * step;
    if (below > 0)
        snprintf(text, bytes, "%" PRId64 " or %" PRId64, below, below + step);
    else
        snprintf(text, bytes, "%" PRId64, step);
}

/* What tp must divide, whatever else: the greatest common divisor of the sizes that it cuts; 0
 * where there is none. */
static int64_t cut_by_tp(const pgr_spec *s) {
    int64_t common = given(s->model.heads) ? s->model.heads : 0;
    if (given(s->model.ffn))
        common = pgr_greatest_divisor(common, s->model.ffn);
    if (!has_experts(s))
        return common;
    common = pgr_greatest_divisor(common, s->moe.shared_ffn);
    if (!given(s->parallel.etp) && given(s->moe.ffn))
        common = pgr_greatest_divisor(common, s->moe.ffn);
    return common;
}

/* "with tp = 3, " where tp is kept. */
static const char *with_axis(const char *axis, int64_t ranks, char *text, size_t bytes) {
    snprintf(text, bytes, "with %s = %" PRId64 ", ", axis, ranks);
    return text;
}

static void check_tp_and_heads(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    static const char paths[] = "parallel.tp model.heads";
    int64_t tp = s->parallel.tp, heads = s->model.heads;
    char lead[64];
    pgr_trial t;
    if (!given(heads) || heads % tp == 0)
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG012", paths)) {
        t.open = true; /* the tp that the model allows; PG010 tells which of them fit a world */
        if (!pgr_trial_offer_divisors(&t, "", "", "tp", &t.spec.parallel.tp, cut_by_tp(s)))
            pgr_trial_offer_multiples(&t, "", with_axis("tp", tp, lead, sizeof lead), "heads",
                                      &t.spec.model.heads, tp);
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG012", paths, t.help, "tp = %" PRId64 " does not divide heads = %" PRId64,
                 tp, heads);
}

/* Grouped-query attention: num_query_groups of Megatron-Core's TransformerConfig. */
static void check_heads_and_kv(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    static const char paths[] = "model.kv_heads model.heads";
    int64_t heads = s->model.heads, kv = s->model.kv_heads;
    pgr_trial t;
    if (!given(heads) || !given(kv) || heads % kv == 0)
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG021", paths)) {
        pgr_trial_offer_divisors(&t, "", "", "kv_heads", &t.spec.model.kv_heads, heads);
        pgr_trial_offer_multiples(&t, ", or ", "", "heads", &t.spec.model.heads,
                                  pgr_least_multiple(kv, s->parallel.tp));
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG021", paths, t.help,
                 "kv_heads = %" PRId64 " does not divide heads = %" PRId64
                 ": each key-value head serves heads / kv_heads query heads",
                 kv, heads);
}

static void check_tp_and_kv(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    static const char paths[] = "parallel.tp model.kv_heads";
    int64_t tp = s->parallel.tp, kv = s->model.kv_heads, of = cut_by_tp(s);
    pgr_trial t;
    if (!given(kv) || kv % tp == 0 || tp % kv == 0)
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG021", paths)) {
        /* of the heads' divisors those that divide kv_heads or replicate them; the first multiples
         * of kv_heads where the heads are not given */
        if (of == 0 && __builtin_mul_overflow(kv, 12, &of))
            of = kv;
        pgr_trial_offer_divisors(&t, "", "", "tp", &t.spec.parallel.tp, of);
        char lead[64];
        pgr_trial_offer_divisors(&t, "; ", with_axis("tp", tp, lead, sizeof lead), "kv_heads",
                                 &t.spec.model.kv_heads,
                                 given(s->model.heads) ? s->model.heads : tp);
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG021", paths, t.help,
                 "neither of tp = %" PRId64 " and kv_heads = %" PRId64 " divides the other", tp,
                 kv);
}

static void head_dim_missing(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    static const char paths[] = "model.hidden model.heads";
    pgr_trial t;
    if (pgr_trial_begin(&t, s, plan, found, "PG024", paths)) {
        pgr_trial_offer_multiples(&t, "", "give head_dim, or ", "hidden", &t.spec.model.hidden,
                                  s->model.heads);
        if (t.help[0] == '\0')
            pgr_trial_offer(&t, "", "give head_dim");
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG024", paths, t.help,
                 "head_dim is left out, and hidden = %" PRId64
                 " is not divisible by heads = %" PRId64,
                 s->model.hidden, s->model.heads);
}

/* The width of the attention projections. */
static void check_head_dim(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    int64_t tp = s->parallel.tp, heads = s->model.heads, dim = s->model.head_dim, width;
    char lead[64];
    pgr_trial t;
    if (!given(heads))
        return;
    if (!given(dim) && given(s->model.hidden) && s->model.hidden % heads != 0) {
        head_dim_missing(s, plan, found);
        return;
    }
    if (!given(dim) && given(s->model.hidden))
        dim = s->model.hidden / heads;
    if (!given(dim) || __builtin_mul_overflow(heads, dim, &width) || width % tp == 0)
        return;
    const char *paths = given(s->model.head_dim) ? "parallel.tp model.heads model.head_dim"
                                                 : "parallel.tp model.heads model.hidden";
    if (pgr_trial_begin(&t, s, plan, found, "PG024", paths)) {
        pgr_trial_offer_divisors(&t, "", "", "tp", &t.spec.parallel.tp, cut_by_tp(s));
        pgr_trial_offer_multiples(&t, "; ", with_axis("tp", tp, lead, sizeof lead), "heads",
                                  &t.spec.model.heads, tp);
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG024", paths, t.help,
                 "heads * head_dim = %" PRId64 " * %" PRId64 " = %" PRId64
                 " is not divisible by tp = %" PRId64,
                 heads, dim, width, tp);
}

/* One linear layer's inner size over the axis that cuts it. */
typedef struct inner {
    const char *code, *axis, *name, *paths;
    int64_t ranks, of;             /* of the axis; what its size must divide */
    size_t axis_field, size_field; /* where the spec has them */
} inner;

static int64_t *field_at(pgr_spec *s, size_t offset) {
    return (int64_t *)(void *)((char *)s + offset);
}

static void check_inner(const pgr_spec *s, const pgr_plan *plan, const inner *in, int64_t size,
                        pgr_diagnostics *found) {
    char lead[64];
    pgr_trial t;
    if (!given(size) || size % in->ranks == 0)
        return;
    if (pgr_trial_begin(&t, s, plan, found, in->code, in->paths)) {
        pgr_trial_offer_divisors(&t, "", "", in->axis, field_at(&t.spec, in->axis_field), in->of);
        pgr_trial_offer_multiples(&t, "; ", with_axis(in->axis, in->ranks, lead, sizeof lead),
                                  in->name, field_at(&t.spec, in->size_field), in->ranks);
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, in->code, in->paths, t.help,
                 "%s = %" PRId64 " is not divisible by %s = %" PRId64, in->name, size, in->axis,
                 in->ranks);
}

#define TP_FIELD offsetof(pgr_spec, parallel.tp)
#define ETP_FIELD offsetof(pgr_spec, parallel.etp)

static void check_ffn(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    inner in = {"PG022",        "tp",         "ffn",    "parallel.tp model.ffn",
                s->parallel.tp, cut_by_tp(s), TP_FIELD, offsetof(pgr_spec, model.ffn)};
    check_inner(s, plan, &in, s->model.ffn, found);
    if (!has_experts(s))
        return;
    if (s->moe.shared_ffn > 0) {
        in.name = "moe.shared_ffn";
        in.paths = "parallel.tp moe.shared_ffn";
        in.size_field = offsetof(pgr_spec, moe.shared_ffn);
        check_inner(s, plan, &in, s->moe.shared_ffn, found);
    }
    bool own = given(s->moe.ffn), cut = given(s->parallel.etp);
    if (!own && !cut)
        return; /* the same two values as above */
    char paths[96];
    snprintf(paths, sizeof paths, "parallel.%s %s.ffn", cut ? "etp" : "tp", own ? "moe" : "model");
    int64_t size = own ? s->moe.ffn : s->model.ffn;
    in = (inner){"PG023",
                 "etp",
                 own ? "moe.ffn" : "ffn",
                 paths,
                 cut ? s->parallel.etp : s->parallel.tp,
                 size,
                 ETP_FIELD,
                 own ? offsetof(pgr_spec, moe.ffn) : offsetof(pgr_spec, model.ffn)};
    check_inner(s, plan, &in, size, found);
}

/* ---- data parallel ---- */

static void check_batch(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    int64_t batch = s->model.global_batch, micro = s->model.micro_batch, step;
    int64_t dp = pgr_plan_axis_size(plan, "dp");
    if (!given(batch) || dp == 0 || __builtin_mul_overflow(micro, dp, &step) || batch % step == 0)
        return;
    char text[64], help[LIST];
    nearest_multiples(batch, step, text, sizeof text);
    snprintf(help, sizeof help, "global_batch can be %s", text);
    pgr_diagnose(found, "PG026",
                 "model.global_batch model.micro_batch world_size parallel.tp parallel.cp "
                 "parallel.pp parallel.dp",
                 help,
                 "global_batch = %" PRId64 " is not divisible by micro_batch * dp = %" PRId64
                 " * %" PRId64 " = %" PRId64,
                 batch, micro, dp, step);
}

/* Source: Megatron-Core, forward_backward_pipelining_with_interleaving: a group of micro batches
 * has at least pp of them, and a step at least one group. */
static void check_interleaving(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    int64_t batch = s->model.global_batch, pp = s->parallel.pp, vpp = s->parallel.vpp, step, least;
    int64_t dp = pgr_plan_axis_size(plan, "dp");
    if (!given(batch) || !given(vpp) || vpp == 1 || dp == 0 || s->parallel.mode != PGR_MODE_TRAIN ||
        __builtin_mul_overflow(s->model.micro_batch, dp, &step) || batch % step != 0 ||
        batch / step >= pp || __builtin_mul_overflow(step, pp, &least))
        return;
    char help[LIST];
    snprintf(help, sizeof help, "global_batch = %" PRId64 " gives %" PRId64 ", or leave vpp out",
             least, pp);
    pgr_diagnose(found, "PG043",
                 "model.global_batch parallel.pp parallel.vpp model.micro_batch parallel.dp", help,
                 "with vpp = %" PRId64 " a step needs at least pp = %" PRId64
                 " micro batches, and global_batch / (micro_batch * dp) = %" PRId64 " / %" PRId64
                 " = %" PRId64,
                 vpp, pp, batch, step, batch / step);
}

void pgr_check_model(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found) {
    check_tp_and_heads(spec, plan, found);
    check_heads_and_kv(spec, plan, found);
    check_tp_and_kv(spec, plan, found);
    check_head_dim(spec, plan, found);
    check_ffn(spec, plan, found);
    pgr_check_layers(spec, plan, found);
    if (plan == NULL)
        return;
    check_batch(spec, plan, found);
    check_interleaving(spec, plan, found);
}
