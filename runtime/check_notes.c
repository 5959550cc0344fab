/* check_notes.c - what a layout comes to: derived sizes, parameters of a rank, and what it sends.
 * PG070 to PG072. Estimates are doubles: no size overflows them. */
#include "check.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Beyond these a model is no model, and the loops below would take long. */
enum { MOST_LAYERS = 1 << 16, MOST_CHUNKS = 1 << 12, MOST_WORK = 1 << 22 };

/* Bytes of optimizer state for a parameter: an f32 copy and Adam's two moments (Rajbhandari et al.
 * 2020, ZeRO, section 3.1). */
static const double optimizer_bytes = 12;

static bool given(int64_t value) {
    return value != PGR_NIL;
}

/* What the estimates need, as doubles. */
typedef struct sizes {
    double hidden, heads, kv_heads, head_dim, gates,
        bias; /* gates: matrices before the activation */
    double ffn, expert_ffn, shared_ffn, experts, vocab;
    double tp, etp, ep;
    bool moe;
} sizes;

/* What one rank holds. */
typedef struct holding {
    double dense, expert; /* parameters */
    double layers, moe_layers;
} holding;

static void count_text(double count, double unit, const char *const names[5], char *text,
                       size_t bytes) {
    int i = 0;
    while (count >= unit && i < 4) {
        count /= unit;
        i++;
    }
    snprintf(text, bytes, i == 0 ? "%.0f%s" : "%.2f%s", count, names[i]);
}

static void bytes_text(double count, char text[32]) {
    static const char *const names[5] = {" B", " KiB", " MiB", " GiB", " TiB"};
    count_text(count, 1024, names, text, 32);
}

static void number_text(double count, char text[32]) {
    static const char *const names[5] = {"", " thousand", " million", " billion", " trillion"};
    count_text(count, 1000, names, text, 32);
}

/* ---- parameters ---- */

static bool layer_is_moe(const pgr_spec *s, int64_t layer) {
    const pgr_list *pattern = &s->moe.layer_pattern;
    if (!s->has_moe || !given(s->moe.experts))
        return false;
    if (pattern->count == 0)
        return true;
    if (pattern->count == 1)
        return layer % pattern->items[0] == 0; /* as Megatron-Core's moe_layer_freq */
    return layer < pattern->count && pattern->items[layer] == 1;
}

/* Layers of a pipeline rank, over all its virtual stages; -1 where they do not work out. */
static int64_t layers_of_rank(const pgr_spec *s, int64_t stage) {
    const pgr_list *list = &s->parallel.stage_layers;
    int64_t pp = s->parallel.pp, first = s->parallel.first_stage_layers;
    int64_t last = s->parallel.last_stage_layers, rest = s->model.layers;
    if (list->count > 0)
        return list->count == pp ? list->items[stage] : -1;
    if (stage == 0 && given(first))
        return first;
    if (stage == pp - 1 && given(last))
        return last;
    rest -= (given(first) ? first : 0) + (given(last) ? last : 0);
    pp -= given(first) + given(last);
    return pp > 0 && rest >= 0 && rest % pp == 0 ? rest / pp : -1;
}

/* Whether every layer has its place; PG020 and PG029 tell where not. */
static bool layers_fit(const pgr_spec *s) {
    int64_t vpp = given(s->parallel.vpp) ? s->parallel.vpp : 1, sum = 0;
    if (s->model.layers > MOST_LAYERS || s->parallel.pp > MOST_CHUNKS || vpp > MOST_CHUNKS ||
        s->parallel.pp * vpp > MOST_CHUNKS ||
        s->parallel.pp * s->parallel.pp * vpp + s->model.layers * 8 > MOST_WORK)
        return false;
    for (int64_t stage = 0; stage < s->parallel.pp; stage++) {
        int64_t layers = layers_of_rank(s, stage);
        if (layers < 0 || layers > s->model.layers || layers % vpp != 0)
            return false;
        sum += layers;
    }
    return sum == s->model.layers;
}

/* Sets the layers and MoE layers of pipeline rank `stage`: chunk after chunk goes round the
 * ranks. */
static void count_layers(const pgr_spec *s, int64_t stage, holding *held) {
    int64_t vpp = given(s->parallel.vpp) ? s->parallel.vpp : 1, at = 0;
    for (int64_t chunk = 0; chunk < s->parallel.pp * vpp; chunk++) {
        int64_t layers = layers_of_rank(s, chunk % s->parallel.pp) / vpp;
        for (int64_t i = 0; i < layers && chunk % s->parallel.pp == stage; i++) {
            held->layers++;
            held->moe_layers += layer_is_moe(s, at + i);
        }
        at += layers;
    }
}

static bool read_sizes(const pgr_spec *s, sizes *z) {
    bool moe = s->has_moe && given(s->moe.experts);
    int64_t expert_ffn = given(s->moe.ffn) ? s->moe.ffn : s->model.ffn;
    bool all_moe = moe && s->moe.layer_pattern.count == 0;
    if (!given(s->model.hidden) || !given(s->model.layers) || !given(s->model.heads) ||
        (!given(s->model.ffn) && !all_moe) || (moe && !given(expert_ffn)) || !layers_fit(s))
        return false;
    double heads = (double)s->model.heads;
    *z = (sizes){
        .hidden = (double)s->model.hidden,
        .heads = heads,
        .kv_heads = given(s->model.kv_heads) ? (double)s->model.kv_heads : heads,
        .head_dim =
            given(s->model.head_dim) ? (double)s->model.head_dim : (double)s->model.hidden / heads,
        .gates = s->model.activation == PGR_SWIGLU ? 2 : 1,
        .bias = s->model.bias,
        .ffn = given(s->model.ffn) ? (double)s->model.ffn : 0,
        .tp = (double)s->parallel.tp,
        .ep = (double)s->parallel.ep,
        .etp = (double)(given(s->parallel.etp) ? s->parallel.etp : s->parallel.tp),
        .moe = moe,
    };
    if (moe) {
        z->experts = (double)s->moe.experts;
        z->expert_ffn = (double)expert_ffn;
        z->shared_ffn = (double)s->moe.shared_ffn;
    }
    if (given(s->model.vocab)) {
        int64_t step = s->model.vocab_multiple, vocab = s->model.vocab;
        if (!__builtin_mul_overflow(step, s->parallel.tp, &step))
            z->vocab = (double)vocab + (double)((step - vocab % step) % step);
    }
    return true;
}

/* An MLP of inner size `ffn` cut in `ranks`: weights, and the bias of which the second part is
 * whole on every rank. */
static double mlp_parameters(const sizes *z, double ffn, double ranks) {
    if (ffn == 0)
        return 0;
    return (z->gates + 1) * z->hidden * ffn / ranks +
           z->bias * (z->gates * ffn / ranks + z->hidden);
}

static double attention_parameters(const sizes *z) {
    double kv = z->kv_heads > z->tp ? z->kv_heads / z->tp : 1; /* replicated beyond kv_heads */
    double qkv = (z->heads / z->tp + 2 * kv) * z->head_dim;
    double out = z->heads * z->head_dim / z->tp;
    return z->hidden * (qkv + out) + z->bias * (qkv + z->hidden);
}

static holding holding_of(const pgr_spec *s, const sizes *z, int64_t stage) {
    holding held = {0};
    count_layers(s, stage, &held);
    double plain = held.layers - held.moe_layers;
    held.dense =
        held.layers * (attention_parameters(z) + 2 * z->hidden) + /* two norms */
        plain * mlp_parameters(z, z->ffn, z->tp) +
        held.moe_layers * (mlp_parameters(z, z->shared_ffn, z->tp) + z->hidden * z->experts);
    held.expert =
        z->moe ? held.moe_layers * z->experts / z->ep * mlp_parameters(z, z->expert_ffn, z->etp)
               : 0;
    bool first = stage == 0, last = stage == s->parallel.pp - 1;
    double embeddings = first + (last && !(first && s->model.tie_embeddings));
    held.dense += embeddings * z->vocab * z->hidden / z->tp + (last ? z->hidden : 0);
    return held;
}

/* The pipeline rank that holds most. */
static holding largest_holding(const pgr_spec *s, const sizes *z, int64_t *stage) {
    holding most = {0};
    *stage = 0;
    for (int64_t i = 0; i < s->parallel.pp; i++) {
        holding held = holding_of(s, z, i);
        if (held.dense + held.expert > most.dense + most.expert) {
            most = held;
            *stage = i;
        }
    }
    return most;
}

/* ---- the notes ---- */

static void note_sizes(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    char expert[160] = "", batches[96] = "", layers[64] = "";
    int64_t dp = pgr_plan_axis_size(plan, "dp"), step;
    if (plan->view_count == 2 && s->has_moe) {
        int64_t experts = s->moe.experts;
        bool whole = given(experts) && experts % s->parallel.ep == 0;
        int length = snprintf(expert, sizeof expert, ", etp = %" PRId64 ", edp = %" PRId64,
                              pgr_plan_axis_size(plan, "etp"), pgr_plan_axis_size(plan, "edp"));
        if (whole)
            snprintf(expert + length, sizeof expert - (size_t)length,
                     ", experts on each rank = %" PRId64, experts / s->parallel.ep);
    }
    if (given(s->model.global_batch) && !__builtin_mul_overflow(s->model.micro_batch, dp, &step) &&
        s->model.global_batch % step == 0)
        snprintf(batches, sizeof batches, ", micro batches of a step = %" PRId64,
                 s->model.global_batch / step);
    if (given(s->model.layers) && s->parallel.pp > 1 && layers_fit(s))
        snprintf(layers, sizeof layers, ", layers of the first stage = %" PRId64,
                 layers_of_rank(s, 0));
    pgr_diagnose(found, "PG070", "world_size parallel.tp parallel.cp parallel.pp", NULL,
                 "world_size = %" PRId64 "%s: dp = %" PRId64 "%s%s%s", plan->world_size,
                 plan->world_size_assumed ? " (the smallest legal one; none was given)" : "", dp,
                 expert, layers, batches);
}

static void note_parameters(const pgr_spec *s, const pgr_plan *plan, const sizes *z,
                            pgr_diagnostics *found) {
    int64_t stage;
    holding held = largest_holding(s, z, &stage);
    double bytes = (double)pgr_dtype_bytes(s->model.dtype);
    double instances = (double)s->parallel.optimizer_instances;
    double ranks = (double)pgr_plan_axis_size(plan, "dp") * (double)s->parallel.cp;
    double expert_ranks = plan->view_count == 2 ? (double)pgr_plan_axis_size(plan, "edp") : ranks;
    double state = optimizer_bytes * instances * (held.dense / ranks + held.expert / expert_ranks);
    char dense[32], dense_bytes[32], expert[32], expert_bytes[32], state_text[32], own[128] = "";
    number_text(held.dense, dense);
    bytes_text(held.dense * bytes, dense_bytes);
    number_text(held.expert, expert);
    bytes_text(held.expert * bytes, expert_bytes);
    bytes_text(state, state_text);
    if (z->moe)
        snprintf(own, sizeof own, " and %s in experts (%s)", expert, expert_bytes);
    pgr_diagnose(found, "PG071", "model.hidden parallel.tp parallel.pp", NULL,
                 "the largest rank (stage %" PRId64 ") holds %s dense parameters (%s in %s)%s; its "
                 "part of the optimizer's state is %s over %" PRId64
                 " instance%s%s; attention is counted as grouped-query attention",
                 stage, dense, dense_bytes, pgr_dtype_name(s->model.dtype), own, state_text,
                 s->parallel.optimizer_instances, instances > 1 ? "s" : "",
                 z->vocab > 0 ? "" : "; embeddings are not counted, since vocab is not given");
}

/* Appends what a family sends, and where the formula is from; families that send nothing are left
 * out. */
static void add_volume(char *text, size_t bytes, const char *family, double volume,
                       const char *source) {
    char amount[32];
    size_t length = strlen(text);
    if (volume <= 0)
        return;
    bytes_text(volume, amount);
    snprintf(text + length, bytes - length, "%s%s %s (%s)", length > 0 ? ", " : "", family, amount,
             source);
}

/* Sources: tp: Narayanan et al. 2021 (section 3.2) and Korthikanti et al. 2022: four all-reduces of
 * a layer, or as many pairs of all-gather and reduce-scatter. cp: Liu et al. 2023, ring attention:
 * keys and values once forward, they and their gradients backward. ep: Lepikhin et al. 2020:
 * dispatch and combine, forward and backward. dp: Rajbhandari et al. 2020: an all-reduce of the
 * gradients, or reduce-scatter and all-gather. Ring collectives send (n - 1) / n of the data. */
static void note_volume(const pgr_spec *s, const pgr_plan *plan, const sizes *z,
                        pgr_diagnostics *found) {
    pgr_padding_args args = pgr_padding_args_of(s);
    int64_t added, stage;
    pgr_error ignored = {0};
    if (!given(s->model.seq_len) || pgr_padding(&args, &added, &ignored) != PGR_OK)
        return;
    holding held = largest_holding(s, z, &stage);
    double element = (double)pgr_dtype_bytes(s->model.dtype), cp = (double)s->parallel.cp;
    double tokens = (double)(s->model.seq_len + added) / cp * (double)s->model.micro_batch;
    double mlps = held.layers - held.moe_layers + (z->shared_ffn > 0 ? held.moe_layers : 0);
    double tp = 2 * (held.layers + mlps) * 2 * (z->tp - 1) / z->tp * tokens * z->hidden * element;
    double kv = z->kv_heads > z->tp ? z->kv_heads / z->tp : 1;
    double ring = 3 * (cp - 1) * held.layers * 2 * tokens * kv * z->head_dim * element;
    double routed = tokens / (s->parallel.sequence_parallel ? z->tp : 1) * (double)s->moe.topk;
    double ep =
        z->moe ? 4 * held.moe_layers * (z->ep - 1) / z->ep * routed * z->hidden * element : 0;
    double ranks = (double)pgr_plan_axis_size(plan, "dp") * cp;
    double edp = plan->view_count == 2 ? (double)pgr_plan_axis_size(plan, "edp") : ranks;
    double dp = 2 * element * (held.dense * (ranks - 1) / ranks + held.expert * (edp - 1) / edp);
    char sent[256] = "", once[96] = "";
    add_volume(sent, sizeof sent, "tp", tp, "Korthikanti et al. 2022");
    add_volume(sent, sizeof sent, "cp", ring, "Liu et al. 2023");
    add_volume(sent, sizeof sent, "ep", ep, "Lepikhin et al. 2020");
    add_volume(once, sizeof once, "dp", dp, "Rajbhandari et al. 2020");
    pgr_diagnose(found, "PG072", "model.seq_len parallel.tp parallel.cp parallel.ep", NULL,
                 "the largest rank sends for a micro batch, forward and backward: %s; and once a "
                 "step for gradients: %s",
                 sent[0] != '\0' ? sent : "nothing", once[0] != '\0' ? once : "nothing");
}

void pgr_check_notes(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found) {
    sizes z;
    if (plan == NULL)
        return;
    note_sizes(spec, plan, found);
    if (!spec->has_model || !read_sizes(spec, &z))
        return;
    note_parameters(spec, plan, &z, found);
    note_volume(spec, plan, &z, found);
}
