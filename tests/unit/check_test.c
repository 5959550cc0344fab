/* check_test.c - each rule is triggered with its values and its way out, and a legal layout beside
 * it does not trigger it. */
#include "check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A key of a case: an integer (also of a choice or boolean), or a list of integers. */
typedef struct setting {
    const char *path;
    int64_t value;
    int64_t list[4]; /* used where the key takes one; ends at the first 0 */
} setting;

#define IS(path, value)                                                                            \
    {                                                                                              \
        path, value, {                                                                             \
            0                                                                                      \
        }                                                                                          \
    }
#define LIST(path, ...)                                                                            \
    {                                                                                              \
        path, 0, {                                                                                 \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

typedef struct check_case {
    const char *name, *code;
    int64_t world;
    setting settings[14];
    const char *message, *help; /* NULL: the code must not be there */
} check_case;

static const check_case cases[] = {
    {"tp and heads",
     "PG012",
     6,
     {IS("parallel.tp", 3), IS("model.heads", 52)},
     "tp = 3 does not divide heads = 52",
     "tp can be 1, 2, 4, 13, 26 or 52"},
    {"tp divides heads", "PG012", 8, {IS("parallel.tp", 4), IS("model.heads", 52)}, NULL, NULL},

    {"layers over pp",
     "PG020",
     16,
     {IS("parallel.pp", 4), IS("model.layers", 30)},
     "layers = 30 is not divisible by pp = 4; 2 layers would be left over",
     "take layers = 28 or 32, or pp * vpp = 1, 2, 3, 5, 6, 10, 15 or 30, or give "
     "first_stage_layers = 7 and last_stage_layers = 7"},
    {"layers over pp and vpp",
     "PG020",
     16,
     {IS("parallel.pp", 4), IS("parallel.vpp", 3), IS("model.layers", 32)},
     "layers = 32 is not divisible by pp * vpp = 4 * 3 = 12; 8 layers would be left over",
     "take layers = 24 or 36, or pp * vpp = 1, 2, 4, 8, 16 or 32"},
    {"layers that fit", "PG020", 16, {IS("parallel.pp", 4), IS("model.layers", 32)}, NULL, NULL},
    {"layers accounted for",
     "PG020",
     16,
     {IS("parallel.pp", 4), IS("model.layers", 30), IS("parallel.first_stage_layers", 7),
      IS("parallel.last_stage_layers", 7)},
     NULL,
     NULL},

    {"kv_heads",
     "PG021",
     8,
     {IS("parallel.tp", 4), IS("model.kv_heads", 6)},
     "neither of tp = 4 and kv_heads = 6 divides the other",
     "tp can be 1, 2, 3 or 6, or a multiple of 6 (replicated)"},
    {"kv_heads replicated",
     "PG021",
     8,
     {IS("parallel.tp", 8), IS("model.kv_heads", 2)},
     NULL,
     NULL},

    {"ffn",
     "PG022",
     6,
     {IS("parallel.tp", 3), IS("model.ffn", 4096)},
     "ffn = 4096 is not divisible by tp = 3",
     "tp can be 1 or 2; with tp = 3, ffn can be 4095 or 4098"},
    {"ffn that fits", "PG022", 6, {IS("parallel.tp", 3), IS("model.ffn", 4098)}, NULL, NULL},

    {"experts' ffn",
     "PG023",
     12,
     {IS("parallel.etp", 3), IS("moe.experts", 8), IS("moe.ffn", 100)},
     "moe.ffn = 100 is not divisible by etp = 3",
     "etp can be 1 or 2; with etp = 3, moe.ffn can be 99 or 102"},
    {"experts' ffn of tp",
     "PG023",
     12,
     {IS("parallel.tp", 3), IS("moe.experts", 8), IS("moe.ffn", 100)},
     "moe.ffn = 100 is not divisible by etp = 3",
     "etp can be 1 or 2; with etp = 3, moe.ffn can be 99 or 102"},
    {"experts' ffn that fits",
     "PG023",
     12,
     {IS("parallel.etp", 4), IS("moe.experts", 8), IS("moe.ffn", 100)},
     NULL,
     NULL},

    {"heads * head_dim",
     "PG024",
     10,
     {IS("parallel.tp", 5), IS("model.heads", 16), IS("model.head_dim", 64)},
     "heads * head_dim = 16 * 64 = 1024 is not divisible by tp = 5",
     "tp can be 1, 2, 4, 8 or 16; with tp = 5, heads can be 15 or 20"},
    {"head_dim left out",
     "PG024",
     8,
     {IS("model.hidden", 1000), IS("model.heads", 16)},
     "head_dim is left out, and hidden = 1000 is not divisible by heads = 16",
     "give head_dim, or take hidden = 992 or 1008"},
    {"heads * head_dim that fits",
     "PG024",
     8,
     {IS("parallel.tp", 4), IS("model.heads", 16), IS("model.head_dim", 64)},
     NULL,
     NULL},

    {"pp_split",
     "PG025",
     8,
     {IS("parallel.pp", 4), IS("parallel.pp_split", 4)},
     "pp_split = 4 is out of range for pp = 4",
     "pp_split can be 1 to 3, or take pp = 5"},
    {"pp_split in range",
     "PG025",
     8,
     {IS("parallel.pp", 4), IS("parallel.pp_split", 3)},
     NULL,
     NULL},

    {"global batch",
     "PG026",
     12,
     {IS("parallel.tp", 2), IS("model.micro_batch", 2), IS("model.global_batch", 64)},
     "global_batch = 64 is not divisible by micro_batch * dp = 2 * 6 = 12",
     "global_batch can be 60 or 72"},
    {"global batch that fits",
     "PG026",
     12,
     {IS("parallel.tp", 2), IS("model.micro_batch", 2), IS("model.global_batch", 72)},
     NULL,
     NULL},

    {"hierarchy",
     "PG027",
     16,
     {IS("parallel.cp", 8), LIST("parallel.hierarchical_cp", 2, 2)},
     "the levels of hierarchical_cp multiply to 4, and cp = 8",
     "make the last level 4, or take cp = 4"},
    {"hierarchy that fits",
     "PG027",
     16,
     {IS("parallel.cp", 8), LIST("parallel.hierarchical_cp", 2, 4)},
     NULL,
     NULL},

    {"instances",
     "PG028",
     16,
     {IS("parallel.tp", 2), IS("parallel.optimizer_instances", 3)},
     "optimizer_instances = 3 does not divide dp * cp = 8",
     "optimizer_instances can be 1, 2, 4 or 8"},
    {"instances over edp",
     "PG028",
     16,
     {IS("parallel.ep", 8), IS("parallel.optimizer_instances", 4)},
     "optimizer_instances = 4 does not divide edp = 2",
     "optimizer_instances can be 1 or 2"},
    {"instances that fit",
     "PG028",
     16,
     {IS("parallel.tp", 2), IS("parallel.optimizer_instances", 2)},
     NULL,
     NULL},

    {"stage list",
     "PG029",
     16,
     {IS("parallel.pp", 4), LIST("parallel.stage_layers", 7, 8, 8, 8), IS("model.layers", 32)},
     "stage_layers add up to 31, and layers = 32",
     "add 1 layer to the stages, or set layers = 31"},
    {"stage count",
     "PG029",
     16,
     {IS("parallel.pp", 4), LIST("parallel.stage_layers", 8, 8), IS("model.layers", 16)},
     "stage_layers has 2 entries and pp = 4",
     "give 4 entries, one for each stage"},
    {"uneven ends",
     "PG029",
     16,
     {IS("parallel.pp", 4), IS("parallel.first_stage_layers", 7), IS("model.layers", 30)},
     "layers = 30 less 7 at the ends leaves 23 for 3 other stages, which do not divide them",
     "the other 3 stages can take 21 layers together, so the ends would have 9"},
    {"stage list that fits",
     "PG029",
     16,
     {IS("parallel.pp", 4), LIST("parallel.stage_layers", 7, 9, 9, 7), IS("model.layers", 32)},
     NULL,
     NULL},
    {"DeepSeek-V3's ends",
     "PG029",
     1024,
     {IS("parallel.pp", 16), IS("parallel.first_stage_layers", 4),
      IS("parallel.last_stage_layers", 1), IS("model.layers", 61)},
     NULL,
     NULL},

    {"experts over ep",
     "PG030",
     12,
     {IS("parallel.ep", 3), IS("moe.experts", 8)},
     "ep = 3 does not divide experts = 8",
     "ep can be 1, 2, 4 or 8; with ep = 3, experts can be 6 or 9"},
    {"experts that fit", "PG030", 12, {IS("parallel.ep", 4), IS("moe.experts", 8)}, NULL, NULL},
    {"ep beyond experts",
     "PG031",
     16,
     {IS("parallel.ep", 16), IS("moe.experts", 8)},
     "ep = 16 is larger than experts = 8",
     "ep is a number of ranks, not of experts; it can be 1, 2, 4 or 8"},
    {"ep of the experts' number",
     "PG031",
     16,
     {IS("parallel.ep", 8), IS("moe.experts", 8)},
     NULL,
     NULL},
    {"topk",
     "PG032",
     4,
     {IS("moe.experts", 4), IS("moe.topk", 8)},
     "topk = 8 is larger than experts = 4",
     "topk can be 1 to 4"},
    {"topk of all", "PG032", 4, {IS("moe.experts", 4), IS("moe.topk", 4)}, NULL, NULL},
    {"groups",
     "PG033",
     4,
     {IS("moe.experts", 64), IS("moe.groups", 7)},
     "groups = 7 does not divide experts = 64",
     "groups can be 1, 2, 4, 8, 16, 32 or 64"},
    {"group_topk",
     "PG033",
     4,
     {IS("moe.experts", 64), IS("moe.groups", 4), IS("moe.group_topk", 8)},
     "group_topk = 8 is larger than groups = 4",
     "group_topk can be at most 4"},
    {"topk over group_topk",
     "PG033",
     4,
     {IS("moe.experts", 64), IS("moe.topk", 8), IS("moe.groups", 8), IS("moe.group_topk", 3)},
     "topk = 8 is not divisible by group_topk = 3",
     "group_topk can be 1, 2, 4 or 8"},
    {"groups too small",
     "PG033",
     4,
     {IS("moe.experts", 16), IS("moe.topk", 8), IS("moe.groups", 8), IS("moe.group_topk", 2)},
     "group_topk = 2 groups of 2 experts hold 4, fewer than topk = 8",
     "take group_topk of at least 4, or topk of at most 4"},
    {"DeepSeek-V3's groups",
     "PG033",
     4,
     {IS("moe.experts", 256), IS("moe.topk", 8), IS("moe.groups", 8), IS("moe.group_topk", 4)},
     NULL,
     NULL},
    {"topk of one",
     "PG034",
     4,
     {IS("moe.experts", 8), IS("moe.topk", 1)},
     "topk = 1 with softmax after the selection: the one weight is always 1",
     "set pre_softmax = true, score = \"sigmoid\", or topk of at least 2"},
    {"topk of one, softmax before",
     "PG034",
     4,
     {IS("moe.experts", 8), IS("moe.topk", 1), IS("moe.pre_softmax", 1)},
     NULL,
     NULL},
    {"expert bias",
     "PG035",
     4,
     {IS("moe.experts", 8), IS("moe.expert_bias", 1)},
     "expert_bias = true does not go with score = \"softmax\"",
     "set score = \"sigmoid\" (or \"sqrtsoftplus\"), or expert_bias = false"},
    {"expert bias with sigmoid",
     "PG035",
     4,
     {IS("moe.experts", 8), IS("moe.expert_bias", 1), IS("moe.score", PGR_SIGMOID)},
     NULL,
     NULL},
    {"training MoE with tp",
     "PG036",
     8,
     {IS("parallel.tp", 2), IS("moe.experts", 8)},
     "training experts = 8 with tp = 2 needs sequence_parallel, which is off",
     "set sequence_parallel = true, tp = 1, or mode = \"infer\" where nothing is trained"},
    {"inference",
     "PG036",
     8,
     {IS("parallel.tp", 2), IS("moe.experts", 8), IS("parallel.mode", PGR_MODE_INFER)},
     NULL,
     NULL},
    {"with sequence parallelism",
     "PG036",
     8,
     {IS("parallel.tp", 2), IS("moe.experts", 8), IS("parallel.sequence_parallel", 1)},
     NULL,
     NULL},
    {"bias in cut experts",
     "PG037",
     8,
     {IS("parallel.etp", 2), IS("moe.experts", 8), IS("model.hidden", 64)},
     "experts cut over etp = 2 cannot have a linear bias (bias = true)",
     "set model.bias = false, or etp = 1"},
    {"bias in whole experts",
     "PG037",
     8,
     {IS("parallel.tp", 2), IS("parallel.etp", 1), IS("moe.experts", 8), IS("model.hidden", 64)},
     NULL,
     NULL},

    {"padding off",
     "PG040",
     16,
     {IS("parallel.tp", 2), IS("parallel.cp", 4), IS("parallel.sequence_parallel", 1),
      IS("model.seq_len", 1000), IS("padding.multiple", 6)},
     "seq_len = 1000 padded by 2 to 1002 is not a multiple of lcm(2 * cp, tp * cp) = lcm(8, 8) = "
     "8",
     "pad by 0 to 1000: padding.sequence = 8, or \"megatron\""},
    {"padding by rule",
     "PG040",
     16,
     {IS("parallel.tp", 2), IS("parallel.cp", 4), IS("parallel.sequence_parallel", 1),
      IS("model.seq_len", 1001)},
     NULL,
     NULL},
    {"padding off get_padding's",
     "PG041",
     16,
     {IS("parallel.tp", 2), IS("parallel.cp", 4), IS("parallel.sequence_parallel", 1),
      IS("model.seq_len", 1000), IS("padding.multiple", 8)},
     "seq_len = 1000 padded to 1000 is a multiple of lcm(2 * cp, tp * cp) = lcm(8, 8) = 8, but "
     "not of get_padding's 2 * tp * cp = 16",
     "padding.sequence = \"megatron\" pads to 1008"},
    {"get_padding's",
     "PG041",
     16,
     {IS("parallel.tp", 2), IS("parallel.cp", 4), IS("parallel.sequence_parallel", 1),
      IS("model.seq_len", 1000)},
     NULL,
     NULL},
    {"waste",
     "PG054",
     8,
     {IS("parallel.cp", 4), IS("model.seq_len", 1100), IS("padding.multiple", 1024)},
     "padding makes 2048 tokens of seq_len = 1100: 46.3% are waste",
     "padding to a multiple of 8 makes 1104 tokens, 0.4% waste"},
    {"little waste",
     "PG054",
     8,
     {IS("parallel.cp", 4), IS("model.seq_len", 1100), IS("padding.multiple", 128)},
     NULL,
     NULL},
    {"short packed",
     "PG055",
     16,
     {IS("parallel.cp", 8), LIST("padding.packed", 4096, 7, 2048)},
     "1 of 3 packed sequences are shorter than 2 * cp = 16 (the shortest has 7 tokens)",
     "pack only sequences of at least 16 tokens, or take cp = 3 at most"},
    {"long packed",
     "PG055",
     16,
     {IS("parallel.cp", 8), LIST("padding.packed", 4096, 16, 2048)},
     NULL,
     NULL},

    {"etp left out",
     "PG050",
     16,
     {IS("parallel.tp", 2), IS("parallel.ep", 4)},
     "etp is left out with ep = 4, so it equals tp = 2: every expert is cut in 2",
     "write etp = 1 for whole experts, or etp = 2"},
    {"etp written",
     "PG050",
     16,
     {IS("parallel.tp", 2), IS("parallel.ep", 4), IS("parallel.etp", 1)},
     NULL,
     NULL},
    {"tp over nodes",
     "PG051",
     32,
     {IS("parallel.tp", 16), IS("cluster.gpus_per_node", 8)},
     "tp groups of 16 ranks, 1 apart, cross the boundaries of gpus_per_node = 8, as between "
     "ranks 7 and 8",
     "tp = 8 keeps it inside"},
    {"tp in a domain",
     "PG051",
     32,
     {IS("parallel.tp", 16), IS("cluster.gpus_per_node", 8), IS("cluster.nvlink_domain", 32)},
     NULL,
     NULL},
    {"tp in nodes",
     "PG051",
     32,
     {IS("parallel.tp", 8), IS("cluster.gpus_per_node", 8)},
     NULL,
     NULL},
    {"tp astride nodes",
     "PG051",
     24,
     {IS("parallel.tp", 3), IS("cluster.gpus_per_node", 8)},
     "tp groups of 3 ranks, 1 apart, cross the boundaries of gpus_per_node = 8, as between ranks "
     "7 and 8",
     "a domain of 3 GPUs would keep it inside"},
    {"ep over nodes",
     "PG051",
     64,
     {IS("parallel.ep", 16), IS("cluster.gpus_per_node", 8)},
     "ep groups of 16 ranks, 1 apart, cross the boundaries of gpus_per_node = 8, as between "
     "ranks 7 and 8",
     "ep = 8 keeps it inside"},
    {"tp beyond kv_heads",
     "PG052",
     16,
     {IS("parallel.tp", 8), IS("model.kv_heads", 4)},
     "tp = 8 is larger than kv_heads = 4: each key-value head is held by 2 ranks",
     "tp = 4 keeps each on one rank"},
    {"tp of kv_heads", "PG052", 16, {IS("parallel.tp", 4), IS("model.kv_heads", 4)}, NULL, NULL},
    {"an expert each",
     "PG053",
     16,
     {IS("parallel.ep", 8), IS("moe.experts", 8)},
     "ep = 8 = experts: one expert on each rank, and 88% of the routed tokens leave their rank",
     "ep = 4 gives each rank 2 experts"},
    {"an expert each within a node",
     "PG053",
     16,
     {IS("parallel.ep", 8), IS("moe.experts", 8), IS("cluster.gpus_per_node", 8)},
     NULL,
     NULL},
    {"two experts each", "PG053", 16, {IS("parallel.ep", 4), IS("moe.experts", 8)}, NULL, NULL},
    {"alignment",
     "PG056",
     8,
     {IS("parallel.tp", 4), IS("model.ffn", 4016), IS("model.dtype", PGR_BF16)},
     "ffn / tp = 4016 / 4 = 1004 is not a multiple of 8 (16 bytes in bf16)",
     "ffn = 4000 or 4032 is aligned"},
    {"aligned",
     "PG056",
     8,
     {IS("parallel.tp", 4), IS("model.ffn", 4000), IS("model.dtype", PGR_BF16)},
     NULL,
     NULL},
    {"world and node",
     "PG057",
     12,
     {IS("cluster.gpus_per_node", 8)},
     "world_size = 12 is not a multiple of gpus_per_node = 8",
     "whole nodes have 8 or 16 ranks"},
    {"whole nodes", "PG057", 16, {IS("cluster.gpus_per_node", 8)}, NULL, NULL},
    {"one replica",
     "PG058",
     16,
     {IS("parallel.tp", 8), IS("parallel.pp", 2)},
     "dp = 1: the 16 ranks hold one replica (tp * cp * pp = 8 * 1 * 2)",
     "world_size = 32 would make dp = 2"},
    {"two replicas", "PG058", 32, {IS("parallel.tp", 8), IS("parallel.pp", 2)}, NULL, NULL},
    {"no world asked for",
     "PG058",
     PGR_NIL,
     {IS("parallel.tp", 8), IS("parallel.pp", 2)},
     NULL,
     NULL},

    {"derived sizes",
     "PG070",
     16,
     {IS("parallel.tp", 2), IS("parallel.ep", 4), IS("parallel.etp", 1), IS("moe.experts", 8)},
     "world_size = 16: dp = 8, etp = 1, edp = 4, experts on each rank = 2",
     ""},
    {"parameters",
     "PG071",
     16,
     {IS("parallel.tp", 2), IS("model.hidden", 1024), IS("model.ffn", 4096), IS("model.heads", 16),
      IS("model.layers", 4), IS("model.bias", 0)},
     /* a layer: (4 * 1024^2 + 2 * 1024 * 4096) / 2 + 2 * 1024; and the last norm */
     "the largest rank (stage 0) holds 25.18 million dense parameters (96.04 MiB in f32); its part "
     "of the optimizer's state is 36.01 MiB over 1 instance; embeddings are not counted, since "
     "vocab is not given; attention is counted as grouped-query attention",
     ""},
    {"parameters without layers",
     "PG071",
     16,
     {IS("model.hidden", 1024), IS("model.ffn", 4096), IS("model.heads", 16)},
     NULL,
     NULL},
    {"volume",
     "PG072",
     16,
     {IS("parallel.tp", 2), IS("model.hidden", 1024), IS("model.ffn", 4096), IS("model.heads", 16),
      IS("model.layers", 4), IS("model.bias", 0), IS("model.seq_len", 2048)},
     /* tp: 4 layers * 4 all-reduces * 2 * 1/2 * 2048 * 1024 * 4 B = 128 MiB */
     "the largest rank sends for a micro batch, forward and backward: tp 128.00 MiB (Korthikanti "
     "et al. 2022); and once a step for gradients: dp 168.06 MiB (Rajbhandari et al. 2020)",
     ""},
    {"volume without a sequence",
     "PG072",
     16,
     {IS("model.hidden", 1024), IS("model.ffn", 4096), IS("model.heads", 16),
      IS("model.layers", 4)},
     NULL,
     NULL},
    {"ep without an expert view",
     "PG051",
     64,
     {IS("parallel.ep", 16), IS("parallel.expert_view", 0), IS("cluster.gpus_per_node", 8)},
     NULL,
     NULL},
    {"ep beyond whole blocks",
     "PG051",
     64,
     {IS("parallel.ep", 4), IS("parallel.etp", 4), IS("parallel.tp", 1),
      IS("cluster.gpus_per_node", 8)},
     "ep groups of 4 ranks, 4 apart, cross the boundaries of gpus_per_node = 8, as between ranks "
     "4 and 8",
     "ep = 2 keeps it inside"},
    {"sizes at the top",
     "PG056",
     16,
     {IS("model.hidden", 1), IS("model.ffn", 1099511627776), IS("model.heads", 1099511627776),
      IS("model.layers", 1099511627776), IS("model.vocab", 1099511627776),
      IS("model.seq_len", 1099511627776), IS("model.micro_batch", 1099511627776)},
     "hidden = 1 is not a multiple of 4 (16 bytes in f32)",
     "hidden = 4 is aligned"},
    {"a layout at the top",
     "PG012",
     16,
     {IS("parallel.tp", 1099511627775), IS("parallel.cp", 1099511627776),
      IS("parallel.pp", 1099511627776), IS("parallel.ep", 1099511627776),
      IS("model.heads", 1099511627776), IS("model.ffn", 1099511627776),
      IS("model.layers", 1099511627776), IS("moe.experts", 8), IS("moe.ffn", 1099511627776)},
     "tp = 1099511627775 does not divide heads = 1099511627776",
     "tp can be 1"},
};

static void set_list(pgr_list *list, const int64_t items[4]) {
    int64_t count = 0;
    while (count < 4 && items[count] != 0)
        count++;
    list->items = calloc((size_t)count, sizeof *list->items);
    assert_non_null(list->items);
    memcpy(list->items, items, (size_t)count * sizeof *items);
    list->count = count;
}

static void set(pgr_spec *spec, const setting *s) {
    spec->has_model |= strncmp(s->path, "model.", 6) == 0;
    spec->has_moe |= strncmp(s->path, "moe.", 4) == 0;
    if (strcmp(s->path, "padding.multiple") == 0) {
        spec->padding.rule = PGR_PAD_MULTIPLE;
        spec->padding.multiple = s->value;
        return;
    }
    const pgr_key *key = pgr_key_find(s->path);
    assert_non_null(key);
    char *at = (char *)spec + key->offset;
    if (key->type == PGR_KEY_INTEGER)
        memcpy(at, &s->value, sizeof s->value);
    else if (key->type == PGR_KEY_BOOLEAN)
        *(bool *)(void *)at = s->value != 0;
    else if (key->type == PGR_KEY_CHOICE)
        *(int *)(void *)at = (int)s->value;
    else
        set_list((pgr_list *)(void *)at, s->list);
}

static void check_of(const check_case *c, pgr_diagnostics *found) {
    pgr_spec spec;
    int64_t world;
    pgr_spec_init(&spec);
    for (const setting *s = c->settings; s->path != NULL; s++)
        set(&spec, s);
    pgr_check(&spec, c->world, &world, found);
    assert_true(c->world == PGR_NIL || world == c->world);
    pgr_spec_free(&spec);
}

static const pgr_diagnostic *finding_of(const pgr_diagnostics *found, const char *code) {
    for (int64_t i = 0; i < found->count; i++) {
        assert_non_null(found->items[i].rule);
        if (strcmp(found->items[i].rule->code, code) == 0)
            return &found->items[i];
    }
    return NULL;
}

static void test_cases(void **state) {
    (void)state;
    int wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const check_case *c = &cases[i];
        pgr_diagnostics found = {0};
        check_of(c, &found);
        const pgr_diagnostic *it = finding_of(&found, c->code);
        const char *message = it == NULL ? "(none)" : it->message;
        const char *help = it == NULL ? "" : it->help;
        bool right = c->message == NULL ? it == NULL
                                        : it != NULL && strcmp(message, c->message) == 0 &&
                                              strcmp(help, c->help) == 0 && it->path_count > 0;
        if (!right) {
            print_error("%s (%s)\n  got  %s\n       %s\n  want %s\n       %s\n", c->name, c->code,
                        message, help, c->message ? c->message : "(none)", c->help ? c->help : "");
            wrong++;
        }
        pgr_diagnostics_free(&found);
    }
    assert_int_equal(wrong, 0);
}

/* Every path that a finding names is a key, so that its place can be looked up. */
static void test_paths(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pgr_diagnostics found = {0};
        check_of(&cases[i], &found);
        for (int64_t k = 0; k < found.count; k++)
            for (int32_t p = 0; p < found.items[k].path_count; p++)
                if (pgr_key_find(found.items[k].paths[p]) == NULL)
                    fail_msg("%s names the key \"%s\"", found.items[k].rule->code,
                             found.items[k].paths[p]);
        pgr_diagnostics_free(&found);
    }
}

static void test_catalogue_ascends(void **state) {
    (void)state;
    for (int i = 0; i < pgr_rule_count; i++) {
        assert_non_null(pgr_rules[i].bad);
        assert_true(i == 0 || strcmp(pgr_rules[i - 1].code, pgr_rules[i].code) < 0);
        assert_true(pgr_rules[i].mended != NULL || pgr_rules[i].severity == PGR_NOTE);
    }
}

static void test_divisors(void **state) {
    (void)state;
    static const struct {
        int64_t value, most;
        const char *text;
    } wanted[] = {{1, 1, "1"},
                  {7, 7, "1 or 7"},
                  {52, 52, "1, 2, 4, 13, 26 or 52"},
                  {52, 20, "1, 2, 4 or 13"},
                  {36, 36, "1, 2, 3, 4, 6, 9, 12, 18 or 36"},
                  {720720, 720720, "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, ..."}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        char text[200];
        pgr_check_divisors(wanted[i].value, wanted[i].most, text, sizeof text);
        assert_string_equal(text, wanted[i].text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_catalogue_ascends),
        cmocka_unit_test(test_divisors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
