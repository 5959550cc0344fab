/* check_model.c - whether the model's shapes divide over the layout: PG012, PG020 to PG029. */
#include "check.h"

#include <inttypes.h>
#include <stdio.h>

enum { LIST = 200 }; /* bytes of a list of divisors */

static bool given(int64_t value) {
    return value != PGR_NIL;
}

static int64_t or_one(int64_t value) {
    return given(value) ? value : 1;
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

static void check_heads(const pgr_spec *s, pgr_diagnostics *found) {
    int64_t tp = s->parallel.tp, heads = s->model.heads, kv = s->model.kv_heads;
    char list[LIST], help[2 * LIST];
    if (given(heads) && heads % tp != 0) {
        pgr_check_divisors(heads, heads, list, sizeof list);
        snprintf(help, sizeof help, "tp can be %s", list);
        pgr_diagnose(found, "PG012", "parallel.tp model.heads", help,
                     "tp = %" PRId64 " does not divide heads = %" PRId64, tp, heads);
    }
    if (given(kv) && kv % tp != 0 && tp % kv != 0) {
        pgr_check_divisors(kv, kv, list, sizeof list);
        snprintf(help, sizeof help, "tp can be %s, or a multiple of %" PRId64 " (replicated)", list,
                 kv);
        pgr_diagnose(found, "PG021", "parallel.tp model.kv_heads", help,
                     "neither of tp = %" PRId64 " and kv_heads = %" PRId64 " divides the other", tp,
                     kv);
    }
}

/* The width of the attention projections. */
static void check_head_dim(const pgr_spec *s, pgr_diagnostics *found) {
    int64_t tp = s->parallel.tp, heads = s->model.heads, dim = s->model.head_dim, width;
    char text[64], help[2 * LIST];
    if (!given(heads))
        return;
    if (!given(dim) && given(s->model.hidden) && s->model.hidden % heads != 0) {
        nearest_multiples(s->model.hidden, heads, text, sizeof text);
        snprintf(help, sizeof help, "give head_dim, or take hidden = %s", text);
        pgr_diagnose(found, "PG024", "model.hidden model.heads", help,
                     "head_dim is left out, and hidden = %" PRId64
                     " is not divisible by heads = %" PRId64,
                     s->model.hidden, heads);
        return;
    }
    if (!given(dim) && given(s->model.hidden))
        dim = s->model.hidden / heads;
    if (!given(dim) || __builtin_mul_overflow(heads, dim, &width) || width % tp == 0)
        return;
    int64_t step = tp / pgr_greatest_divisor(dim, tp);
    nearest_multiples(heads, step, text, sizeof text);
    char list[LIST];
    pgr_check_divisors(pgr_greatest_divisor(width, heads), heads, list, sizeof list);
    snprintf(help, sizeof help, "tp can be %s; with tp = %" PRId64 ", heads can be %s", list, tp,
             text);
    pgr_diagnose(found, "PG024",
                 given(s->model.head_dim) ? "parallel.tp model.heads model.head_dim"
                                          : "parallel.tp model.heads model.hidden",
                 help,
                 "heads * head_dim = %" PRId64 " * %" PRId64 " = %" PRId64
                 " is not divisible by tp = %" PRId64,
                 heads, dim, width, tp);
}

/* One linear layer's inner size over the axis that cuts it. */
static void check_inner(const char *code, const char *axis, int64_t ranks, const char *name,
                        int64_t size, const char *paths, pgr_diagnostics *found) {
    if (!given(size) || size % ranks == 0)
        return;
    char list[LIST], text[64], help[2 * LIST];
    /* the largest divisors are of no use: what is a legal axis size is at most the one asked for */
    pgr_check_divisors(size, ranks, list, sizeof list);
    nearest_multiples(size, ranks, text, sizeof text);
    snprintf(help, sizeof help, "%s can be %s; with %s = %" PRId64 ", %s can be %s", axis, list,
             axis, ranks, name, text);
    pgr_diagnose(found, code, paths, help, "%s = %" PRId64 " is not divisible by %s = %" PRId64,
                 name, size, axis, ranks);
}

static void check_ffn(const pgr_spec *s, pgr_diagnostics *found) {
    check_inner("PG022", "tp", s->parallel.tp, "ffn", s->model.ffn, "parallel.tp model.ffn", found);
    if (!has_experts(s))
        return;
    if (s->moe.shared_ffn > 0)
        check_inner("PG022", "tp", s->parallel.tp, "moe.shared_ffn", s->moe.shared_ffn,
                    "parallel.tp moe.shared_ffn", found);
    bool own = given(s->moe.ffn), cut = given(s->parallel.etp);
    int64_t ffn = own ? s->moe.ffn : s->model.ffn;
    int64_t etp = cut ? s->parallel.etp : s->parallel.tp;
    if (!own && !cut)
        return; /* the same two values as above */
    char paths[96];
    snprintf(paths, sizeof paths, "parallel.%s %s.ffn", cut ? "etp" : "tp", own ? "moe" : "model");
    check_inner("PG023", "etp", etp, own ? "moe.ffn" : "ffn", ffn, paths, found);
}

/* ---- layers over stages ---- */

static void uneven_help(int64_t layers, int64_t pp, int64_t vpp, char *text, size_t bytes) {
    int64_t middle = (layers + pp - 1) / pp;
    int64_t rest = pp > 2 ? layers - middle * (pp - 2) : layers;
    while (rest < 2 && middle > 1 && pp > 2) {
        middle--;
        rest = layers - middle * (pp - 2);
    }
    text[0] = '\0';
    if (vpp == 1 && pp > 1 && rest >= 2)
        snprintf(text, bytes,
                 ", or give first_stage_layers = %" PRId64 " and last_stage_layers = %" PRId64,
                 rest / 2, rest - rest / 2);
}

static void check_even_stages(const pgr_spec *s, pgr_diagnostics *found) {
    int64_t layers = s->model.layers, pp = s->parallel.pp, vpp = or_one(s->parallel.vpp), stages;
    if (__builtin_mul_overflow(pp, vpp, &stages) || layers % stages == 0)
        return;
    char list[LIST], text[64], uneven[128], help[3 * LIST];
    pgr_check_divisors(layers, layers, list, sizeof list);
    nearest_multiples(layers, stages, text, sizeof text);
    uneven_help(layers, pp, vpp, uneven, sizeof uneven);
    snprintf(help, sizeof help, "take layers = %s, or pp * vpp = %s%s", text, list, uneven);
    if (vpp == 1)
        pgr_diagnose(found, "PG020", "model.layers parallel.pp", help,
                     "layers = %" PRId64 " is not divisible by pp = %" PRId64 "; %" PRId64
                     " layers would be left over",
                     layers, pp, layers % pp);
    else
        pgr_diagnose(found, "PG020", "model.layers parallel.pp parallel.vpp", help,
                     "layers = %" PRId64 " is not divisible by pp * vpp = %" PRId64 " * %" PRId64
                     " = %" PRId64 "; %" PRId64 " layers would be left over",
                     layers, pp, vpp, stages, layers % stages);
}

static void check_stage_list(const pgr_spec *s, pgr_diagnostics *found) {
    const pgr_list *list = &s->parallel.stage_layers;
    int64_t pp = s->parallel.pp, vpp = or_one(s->parallel.vpp), sum = 0;
    for (int64_t i = 0; i < list->count; i++)
        if (__builtin_add_overflow(sum, list->items[i], &sum))
            return;
    char help[LIST];
    if (list->count != pp && (list->count % vpp != 0 || list->count / vpp != pp)) {
        snprintf(help, sizeof help, "give %" PRId64 " entries, one for each stage", pp);
        pgr_diagnose(found, "PG029", "parallel.stage_layers parallel.pp", help,
                     "stage_layers has %" PRId64 " entries and pp = %" PRId64, list->count, pp);
    }
    if (!given(s->model.layers) || sum == s->model.layers)
        return;
    int64_t off = s->model.layers - sum;
    snprintf(help, sizeof help, "%s %" PRId64 " layer%s %s the stages, or set layers = %" PRId64,
             off > 0 ? "add" : "take", off > 0 ? off : -off, off == 1 || off == -1 ? "" : "s",
             off > 0 ? "to" : "from", sum);
    pgr_diagnose(found, "PG029", "parallel.stage_layers model.layers", help,
                 "stage_layers add up to %" PRId64 ", and layers = %" PRId64, sum, s->model.layers);
}

/* first_stage_layers and last_stage_layers, as num_layers_in_first_pipeline_stage and
 * num_layers_in_last_pipeline_stage of Megatron-Core's TransformerConfig. */
static void check_uneven_stages(const pgr_spec *s, pgr_diagnostics *found) {
    int64_t first = s->parallel.first_stage_layers, last = s->parallel.last_stage_layers;
    int64_t pp = s->parallel.pp, vpp = or_one(s->parallel.vpp), layers = s->model.layers;
    int64_t ends = (given(first) ? first : 0) + (given(last) ? last : 0);
    int64_t stages = pp - given(first) - given(last);
    char paths[160], help[LIST];
    snprintf(paths, sizeof paths, "%s%smodel.layers parallel.pp%s",
             given(first) ? "parallel.first_stage_layers " : "",
             given(last) ? "parallel.last_stage_layers " : "", vpp > 1 ? " parallel.vpp" : "");
    if ((given(first) && first % vpp != 0) || (given(last) && last % vpp != 0)) {
        snprintf(help, sizeof help, "make each a multiple of vpp = %" PRId64, vpp);
        pgr_diagnose(found, "PG029", paths, help,
                     "the layers of the first or last stage (%" PRId64
                     " together) are not divisible by vpp = %" PRId64,
                     ends, vpp);
        return;
    }
    if (!given(layers))
        return;
    int64_t rest = layers - ends;
    if (stages > 0 ? rest > 0 && rest % stages == 0 && rest / stages % vpp == 0
                   : rest == 0 && stages == 0)
        return;
    int64_t step;
    if (stages <= 0) {
        snprintf(help, sizeof help, "with pp = %" PRId64 " leave %s", pp,
                 pp == 1 ? "both out" : "one out, or make them add up to layers");
    } else if (__builtin_mul_overflow(stages, vpp, &step) || step >= layers) {
        snprintf(help, sizeof help, "take a smaller pp or vpp: there are more stages than layers");
    } else {
        int64_t fitting = rest > step ? rest / step * step : step;
        snprintf(help, sizeof help,
                 "the other %" PRId64 " stages can take %" PRId64 " layers together, so the ends "
                 "would have %" PRId64,
                 stages, fitting, layers - fitting);
    }
    pgr_diagnose(found, "PG029", paths, help,
                 "layers = %" PRId64 " less %" PRId64 " at the ends leaves %" PRId64 " for %" PRId64
                 " other stages%s",
                 layers, ends, rest, stages < 0 ? 0 : stages,
                 stages > 0 && rest > 0 ? ", which do not divide them" : "");
}

static void check_layers(const pgr_spec *s, pgr_diagnostics *found) {
    if (s->parallel.stage_layers.count > 0)
        check_stage_list(s, found);
    else if (given(s->parallel.first_stage_layers) || given(s->parallel.last_stage_layers))
        check_uneven_stages(s, found);
    else if (given(s->model.layers))
        check_even_stages(s, found);
    int64_t split = s->parallel.pp_split, pp = s->parallel.pp;
    if (given(split) && (split < 1 || split >= pp)) {
        char help[LIST];
        if (pp > 1)
            snprintf(help, sizeof help, "pp_split can be 1 to %" PRId64 ", or take pp = %" PRId64,
                     pp - 1, split + 1);
        else
            snprintf(help, sizeof help, "leave pp_split out, or take pp = %" PRId64, split + 1);
        pgr_diagnose(found, "PG025", "parallel.pp_split parallel.pp", help,
                     "pp_split = %" PRId64 " is out of range for pp = %" PRId64, split, pp);
    }
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

static void check_hierarchy(const pgr_spec *s, pgr_diagnostics *found) {
    const pgr_list *levels = &s->parallel.hierarchical_cp;
    int64_t product = 1, before = 1, cp = s->parallel.cp;
    for (int64_t i = 0; i < levels->count; i++) {
        before = product;
        if (__builtin_mul_overflow(product, levels->items[i], &product)) {
            product = INT64_MAX;
            break;
        }
    }
    if (levels->count == 0 || product == cp)
        return;
    char help[LIST];
    if (cp % before == 0)
        snprintf(help, sizeof help, "make the last level %" PRId64 ", or take cp = %" PRId64,
                 cp / before, product);
    else
        snprintf(help, sizeof help, "take cp = %" PRId64 ", or leave hierarchical_cp out", product);
    pgr_diagnose(found, "PG027", "parallel.hierarchical_cp parallel.cp", help,
                 "the levels of hierarchical_cp multiply to %" PRId64 ", and cp = %" PRId64,
                 product, cp);
}

static void check_instances(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    int64_t instances = s->parallel.optimizer_instances;
    int64_t ranks = pgr_plan_axis_size(plan, "dp") * s->parallel.cp;
    int64_t expert = plan->view_count == 2 ? pgr_plan_axis_size(plan, "edp") : ranks;
    if (ranks % instances == 0 && expert % instances == 0) /* also where they are not known */
        return;
    char list[LIST], help[2 * LIST];
    int64_t common = pgr_greatest_divisor(ranks, expert);
    pgr_check_divisors(common, common, list, sizeof list);
    snprintf(help, sizeof help, "optimizer_instances can be %s", list);
    bool dense = ranks % instances != 0;
    pgr_diagnose(found, "PG028",
                 dense ? "parallel.optimizer_instances world_size parallel.tp parallel.pp"
                       : "parallel.optimizer_instances world_size parallel.etp parallel.ep "
                         "parallel.pp",
                 help, "optimizer_instances = %" PRId64 " does not divide %s = %" PRId64, instances,
                 dense ? "dp * cp" : "edp", dense ? ranks : expert);
}

void pgr_check_model(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found) {
    check_heads(spec, found);
    check_head_dim(spec, found);
    check_ffn(spec, found);
    check_layers(spec, found);
    check_hierarchy(spec, found);
    if (plan == NULL)
        return;
    check_batch(spec, plan, found);
    check_instances(spec, plan, found);
}
