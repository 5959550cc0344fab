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

/* Virtual stages of each pipeline rank. */
static int64_t chunks_of(const pgr_spec *s) {
    return given(s->parallel.vpp) ? s->parallel.vpp : 1;
}

/* Layers of a pipeline rank, over all its virtual stages; -1 where they do not work out. */
static int64_t layers_of_rank(const pgr_spec *s, int64_t stage) {
    const pgr_list *list = &s->parallel.stage_layers;
    int64_t pp = s->parallel.pp, first = s->parallel.first_stage_layers;
    int64_t last = s->parallel.last_stage_layers, rest = s->model.layers, sum = 0;
    if (list->count > 0 && list->count != pp && list->count != pp * chunks_of(s))
        return -1;
    for (int64_t i = stage; list->count > 0 && i < list->count; i += pp)
        if (__builtin_add_overflow(sum, list->items[i], &sum))
            return -1;
    if (list->count > 0)
        return sum;
    if (stage == 0 && given(first))
        return first;
    if (stage == pp - 1 && given(last))
        return last;
    rest -= (given(first) ? first : 0) + (given(last) ? last : 0);
    pp -= given(first) + given(last);
    return pp > 0 && rest >= 0 && rest % pp == 0 ? rest / pp : -1;
}

/* Layers of a virtual stage; chunk after chunk goes round the ranks. A list may have an entry for
 * each chunk, as pipeline_model_parallel_layout of Megatron-Core. A rank's layers that its chunks
 * do not divide are in its first ones. */
static int64_t layers_of_chunk(const pgr_spec *s, int64_t chunk) {
    int64_t pp = s->parallel.pp, vpp = chunks_of(s), layers = layers_of_rank(s, chunk % pp);
    if (s->parallel.stage_layers.count > pp)
        return s->parallel.stage_layers.items[chunk];
    return layers / vpp + (chunk / pp < layers % vpp);
}

/* NULL where every layer has its place, else why nothing can be estimated. */
static const char *layers_unfit(const pgr_spec *s) {
    int64_t vpp = chunks_of(s), sum = 0;
    if (s->model.layers > MOST_LAYERS || s->parallel.pp > MOST_CHUNKS || vpp > MOST_CHUNKS ||
        s->parallel.pp * vpp > MOST_CHUNKS ||
        s->parallel.pp * s->parallel.pp * vpp + s->model.layers * 8 > MOST_WORK)
        return "it has more layers or stages than are counted";
    for (int64_t stage = 0; stage < s->parallel.pp; stage++) {
        int64_t layers = layers_of_rank(s, stage);
        bool listed = s->parallel.stage_layers.count > 0;
        if (layers < 0 || layers > s->model.layers || (!listed && layers % vpp != 0))
            return "the layers do not divide over the stages";
        sum += layers;
    }
    return sum == s->model.layers ? NULL : "the layers do not divide over the stages";
}

/* Sets the layers and MoE layers of pipeline rank `stage`. */
static void count_layers(const pgr_spec *s, int64_t stage, holding *held) {
    int64_t at = 0;
    for (int64_t chunk = 0; chunk < s->parallel.pp * chunks_of(s); chunk++) {
        int64_t layers = layers_of_chunk(s, chunk);
        for (int64_t i = 0; i < layers && chunk % s->parallel.pp == stage; i++) {
            held->layers++;
            held->moe_layers += pgr_check_layer_is_moe(s, at + i);
        }
        at += layers;
    }
}

static bool read_sizes(const pgr_spec *s, sizes *z) {
    bool moe = s->has_moe && given(s->moe.experts);
    int64_t expert_ffn = given(s->moe.ffn) ? s->moe.ffn : s->model.ffn;
    bool all_moe = moe && s->moe.layer_pattern.count == 0;
    if (!given(s->model.hidden) || !given(s->model.layers) || !given(s->model.heads) ||
        (!given(s->model.ffn) && !all_moe) || (moe && !given(expert_ffn)))
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
    if (pgr_plan_has_axis(plan, "edp") && s->has_moe) {
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
    if (given(s->model.layers) && s->parallel.pp > 1 && layers_unfit(s) == NULL)
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
    double expert_ranks =
        pgr_plan_has_axis(plan, "edp") ? (double)pgr_plan_axis_size(plan, "edp") : ranks;
    double state = optimizer_bytes * instances * (held.dense / ranks + held.expert / expert_ranks);
    char dense[32], dense_bytes[32], expert[32], expert_bytes[32], state_text[32], own[128] = "";
    char optimizer[160] = "";
    number_text(held.dense, dense);
    bytes_text(held.dense * bytes, dense_bytes);
    number_text(held.expert, expert);
    bytes_text(held.expert * bytes, expert_bytes);
    bytes_text(state, state_text);
    if (z->moe)
        snprintf(own, sizeof own, " and %s in experts (%s)", expert, expert_bytes);
    if (s->parallel.mode == PGR_MODE_TRAIN)
        snprintf(optimizer, sizeof optimizer,
                 "; its part of the optimizer's state is %s over %" PRId64 " instance%s",
                 state_text, s->parallel.optimizer_instances, instances > 1 ? "s" : "");
    pgr_diagnose(found, "PG071", "model.hidden parallel.tp parallel.pp", NULL,
                 "the largest rank (stage %" PRId64 ") holds %s dense parameters (%s in %s)%s%s%s"
                 "; attention is counted as grouped-query attention",
                 stage, dense, dense_bytes, pgr_dtype_name(s->model.dtype), own, optimizer,
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

/* What a rank sends, in bytes: for a micro batch, and once a step. Ring collectives of n ranks send
 * (n - 1) / n of the data, an all-reduce twice that. */
typedef struct volume {
    double tp, cp, ep, etp, pp; /* for a micro batch */
    double dp, embedding;       /* once a step, of gradients */
} volume;

/* tokens: of a rank's part of a micro batch, cp taken into account. passes: 2 with the backward
 * pass in it, else 1. */
static volume volume_of(const pgr_spec *s, const pgr_plan *plan, const sizes *z,
                        const holding *held, int64_t stage, double tokens) {
    volume v = {0};
    double element = (double)pgr_dtype_bytes(s->model.dtype), cp = (double)s->parallel.cp;
    bool train = s->parallel.mode == PGR_MODE_TRAIN;
    double passes = train ? 2 : 1, row = z->hidden * element; /* bytes of one token */
    double cut_tokens = tokens / (s->parallel.sequence_parallel ? z->tp : 1);
    /* tp: an all-reduce behind attention and one behind the MLP in each pass, or as many pairs of
     * all-gather and reduce-scatter. Narayanan et al. 2021, section 3.2; Korthikanti et al. 2022;
     * megatron/core/tensor_parallel/mappings.py. Experts are not cut over tp. */
    double mlps = held->layers - held->moe_layers + (z->shared_ffn > 0 ? held->moe_layers : 0);
    v.tp = passes * (held->layers + mlps) * 2 * (z->tp - 1) / z->tp * tokens * row;
    /* cp: keys and values go round once forward, they and their gradients backward. Liu et al.
     * 2023, ring attention. */
    double kv = z->kv_heads > z->tp ? z->kv_heads / z->tp : 1;
    v.cp = (train ? 3 : 1) * (cp - 1) * held->layers * 2 * tokens * kv * z->head_dim * element;
    /* ep: dispatch and combine, an all-to-all each, in each pass. Lepikhin et al. 2020;
     * MoEAlltoAllTokenDispatcher of megatron/core/transformer/moe/token_dispatcher.py. There the
     * tokens that arrived are all-gathered over etp before the experts, and reduce-scattered behind
     * them: in a ring each sends etp - 1 times its own. Even routing is assumed. */
    double routed = z->moe ? cut_tokens * (double)s->moe.topk : 0;
    v.ep = passes * 2 * held->moe_layers * (z->ep - 1) / z->ep * routed * row;
    v.etp = passes * 2 * held->moe_layers * (z->etp - 1) * routed * row;
    /* pp: each virtual stage but the last of all sends its activations on, each but the first their
     * gradients back: s * b * h values, cut over cp, and over tp with sequence parallelism.
     * get_tensor_shapes of megatron/core/pipeline_parallel/schedules.py. */
    double chunks = (double)chunks_of(s), sends = 0;
    if (s->parallel.pp > 1)
        sends = chunks - (stage == s->parallel.pp - 1) + (train ? chunks - (stage == 0) : 0);
    v.pp = sends * cut_tokens * row;
    if (!train)
        return v;
    /* dp: an all-reduce of the gradients, or reduce-scatter and all-gather. Rajbhandari et al.
     * 2020. */
    double ranks = (double)pgr_plan_axis_size(plan, "dp") * cp;
    double edp = pgr_plan_has_axis(plan, "edp") ? (double)pgr_plan_axis_size(plan, "edp") : ranks;
    v.dp = 2 * element * (held->dense * (ranks - 1) / ranks + held->expert * (edp - 1) / edp);
    /* Tied embeddings are on the first and the last stage, two ranks that all-reduce their
     * gradient: _allreduce_word_embedding_grads of
     * megatron/core/distributed/finalize_model_grads.py. */
    if (s->model.tie_embeddings && s->parallel.pp > 1)
        v.embedding = z->vocab * row / z->tp;
    return v;
}

/* The same of the pipeline rank that sends most for a micro batch. */
static volume busiest_volume(const pgr_spec *s, const pgr_plan *plan, const sizes *z, double tokens,
                             int64_t *stage) {
    volume most = {0};
    double most_sent = -1;
    for (int64_t i = 0; i < s->parallel.pp; i++) {
        holding held = holding_of(s, z, i);
        volume v = volume_of(s, plan, z, &held, i, tokens);
        double sent = v.tp + v.cp + v.ep + v.etp + v.pp;
        if (sent > most_sent) {
            most_sent = sent;
            most = v;
            *stage = i;
        }
    }
    return most;
}

static void note_volume(const pgr_spec *s, const pgr_plan *plan, const sizes *z,
                        pgr_diagnostics *found) {
    bool packed = s->padding.packed.count > 0;
    const char *paths = packed ? "padding.packed parallel.tp parallel.cp parallel.ep parallel.pp"
                               : "model.seq_len parallel.tp parallel.cp parallel.ep parallel.pp";
    int64_t stage = 0, tokens = pgr_check_tokens(s);
    char sent[400] = "", once[160] = "";
    if (!packed && !given(s->model.seq_len))
        return; /* as without any model */
    if (tokens == 0) {
        pgr_diagnose(found, "PG072", paths, NULL,
                     "what a rank sends is not estimated: the sequence cannot be padded");
        return;
    }
    volume v = busiest_volume(
        s, plan, z, (double)tokens / (double)s->parallel.cp * (double)s->model.micro_batch, &stage);
    add_volume(sent, sizeof sent, "tp", v.tp, "Korthikanti et al. 2022");
    add_volume(sent, sizeof sent, "cp", v.cp, "Liu et al. 2023");
    add_volume(sent, sizeof sent, "ep", v.ep, "Lepikhin et al. 2020");
    add_volume(sent, sizeof sent, "etp", v.etp, "Megatron-Core's token dispatcher");
    add_volume(sent, sizeof sent, "pp", v.pp, "Narayanan et al. 2021");
    const char *what = sent[0] != '\0' ? sent : "nothing";
    if (s->parallel.mode == PGR_MODE_INFER) {
        pgr_diagnose(found, "PG072", paths, NULL,
                     "the busiest rank (stage %" PRId64 ") sends for a micro batch, forward: %s",
                     stage, what);
        return;
    }
    add_volume(once, sizeof once, "dp", v.dp, "Rajbhandari et al. 2020");
    add_volume(once, sizeof once, "embedding", v.embedding, "tied, first and last stage");
    pgr_diagnose(found, "PG072", paths, NULL,
                 "the busiest rank (stage %" PRId64 ") sends for a micro batch, forward and "
                 "backward: %s; and once a step for gradients: %s",
                 stage, what, once[0] != '\0' ? once : "nothing");
}

void pgr_check_notes(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found) {
    sizes z;
    if (plan == NULL || found->bare)
        return;
    note_sizes(spec, plan, found);
    if (!spec->has_model || !read_sizes(spec, &z))
        return;
    const char *unfit = layers_unfit(spec);
    if (unfit != NULL) {
        pgr_diagnose(found, "PG071", "model.layers parallel.pp parallel.vpp", NULL,
                     "the parameters of a rank and what it sends are not estimated: %s", unfit);
        return;
    }
    note_parameters(spec, plan, &z, found);
    note_volume(spec, plan, &z, found);
}
