/* diagnostic_rules.c - the catalogue: every rule with its code, why it is one, a config that
 * triggers it and the same config mended. `pgrun explain` and docs/diagnostics.md are made of it.
 * Codes are never given a second meaning; a rule that goes leaves a gap. */
#include "diagnostic.h"

#define RULE(code, severity, title, why, bad, mended)                                              \
    { code, severity, title, why, bad, mended }
#define RULE_ERROR(code, title, why, bad, mended) RULE(code, PGR_ERROR, title, why, bad, mended)
#define RULE_WARNING(code, title, why, bad, mended) RULE(code, PGR_WARNING, title, why, bad, mended)
#define RULE_NOTE(code, title, why, bad, mended) RULE(code, PGR_NOTE, title, why, bad, mended)

const pgr_rule pgr_rules[] = {
    /* ---- reading ---- */
    RULE_ERROR("PG001", "the file cannot be read",
               "A config is one regular text file. A path that does not exist, that may not be "
               "read, or that is a folder, a pipe or a device is refused before anything is "
               "evaluated.",
               "-- pgrun check no-such-file.lua\n", "return { parallel = { tp = 2 } }\n"),
    RULE_ERROR("PG002", "the config does not run, or returns no table",
               "A config is a Lua chunk that returns one table with a `parallel` section. A syntax "
               "error, an error while it runs, a forgotten `return`, or a name that the sandbox "
               "does not have ends here, and nothing after it can be checked.",
               "return { parallel = { tp = 2 }\n", "return { parallel = { tp = 2 } }\n"),
    RULE_ERROR("PG003", "the config is over the sandbox's limit",
               "Configs come from pull requests, so instructions, memory and time are limited "
               "while one is evaluated. A layout needs a few thousand instructions; a config that "
               "needs millions loops for ever or builds what no layout has. Where the machine has "
               "no memory left to evaluate a config, that is told here too.",
               "while true do end\n"
               "return { parallel = { tp = 2 } }\n",
               "return { parallel = { tp = 2 } }\n"),
    RULE_ERROR("PG004", "an unknown key",
               "A key that is not in the table of keys would be ignored, and a misspelt size would "
               "silently keep its default. `pgrun --help config` lists every key.",
               "return { parallel = { tensor_parallel = 2 } }\n",
               "return { parallel = { tp = 2 } }\n"),
    RULE_ERROR("PG005", "a wrong value",
               "The value has the wrong type, is out of the key's range, or is none of its "
               "choices. Sizes are whole numbers from 1; names such as a dtype must be spelt as "
               "listed.",
               "return { parallel = { tp = 2 }, model = { hidden = 64, dtype = \"bfloat16\" } }\n",
               "return { parallel = { tp = 2 }, model = { hidden = 64, dtype = \"bf16\" } }\n"),
    RULE_ERROR("PG006", "the padding function fails or returns nonsense",
               "padding.sequence as a function is called with the sizes and must return the "
               "multiple of tokens to pad to: a whole number from 1. Anything else would fail in "
               "the first step of a run.",
               "return {\n"
               "  parallel = { cp = 2 },\n"
               "  model = { seq_len = 1000 },\n"
               "  padding = { sequence = function(p) return -p.cp end },\n"
               "}\n",
               "return {\n"
               "  parallel = { cp = 2 },\n"
               "  model = { seq_len = 1000 },\n"
               "  padding = { sequence = function(p) return 2 * p.cp end },\n"
               "}\n"),

    /* ---- layout ---- */
    RULE_ERROR("PG010", "the world is not divisible by tp * cp * pp",
               "Tensor, context and pipeline parallelism together make one replica of the model; "
               "data parallelism is what remains of the world. Megatron-Core refuses a world that "
               "is no whole number of replicas. ep is no factor here: it divides the data-parallel "
               "ranks.",
               "return { world_size = 100, parallel = { tp = 8, pp = 2 } }\n",
               "return { world_size = 96, parallel = { tp = 8, pp = 2 } }\n"),
    RULE_ERROR("PG011", "the world is not divisible by etp * ep * pp",
               "The expert view factors the same ranks as etp * ep * edp * pp. ep divides the "
               "data-parallel ranks and is no further factor of the world, but the world must be a "
               "whole number of etp * ep * pp, or edp would be no whole number.",
               "return { world_size = 16, parallel = { tp = 2, etp = 1, ep = 3 } }\n",
               "return { world_size = 16, parallel = { tp = 2, etp = 1, ep = 4 } }\n"),
    RULE_ERROR("PG012", "tp does not divide the heads",
               "Tensor parallelism gives each rank whole attention heads. Megatron-Core refuses a "
               "number of heads that tp does not divide.",
               "return {\n"
               "  world_size = 6,\n"
               "  parallel = { tp = 3 },\n"
               "  model = { heads = 52 },\n"
               "}\n",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { tp = 4 },\n"
               "  model = { heads = 52 },\n"
               "}\n"),
    RULE_ERROR("PG013", "order names an unknown axis, or one twice",
               "parallel.order lists tp, cp, ep, dp and pp, joined by dashes, the fastest-varying "
               "first; in the expert view tp and dp read etp and edp. An axis that is named twice "
               "or not known has no place in the grid of ranks.",
               "return { world_size = 8, parallel = { tp = 2, order = \"tp-cp-ep-tp-pp\" } }\n",
               "return { world_size = 8, parallel = { tp = 2, order = \"tp-cp-ep-dp-pp\" } }\n"),
    RULE_ERROR(
        "PG014", "an axis larger than 1 is missing from order",
        "Only axes of size 1 may be left out of parallel.order: for any other the order "
        "does not say which ranks form its groups.",
        "return { world_size = 8, parallel = { tp = 2, cp = 2, order = \"tp-ep-dp-pp\" } }\n",
        "return { world_size = 8, parallel = { tp = 2, cp = 2, order = \"tp-cp-ep-dp-pp\" } "
        "}\n"),
    RULE_ERROR("PG015", "the views disagree on pp",
               "A rank is in one pipeline stage, whichever view one looks at. Where pp is not last "
               "in the order and what precedes it has other sizes in the expert view, the two "
               "views would cut different pipelines; Megatron-Core refuses that.",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { tp = 2, etp = 1, ep = 2, pp = 2, order = \"tp-pp-ep-dp\" },\n"
               "}\n",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { tp = 2, etp = 1, ep = 2, pp = 2, order = \"tp-ep-dp-pp\" },\n"
               "}\n"),
    RULE_ERROR("PG016", "edp is not dp while pp is not last in the order",
               "With pp before dp in the order, Megatron-Core wants the data-parallel sizes of "
               "both views to be equal, so that the strides of the pipeline agree. A dense model "
               "has no expert view: parallel.expert_view = false says so.",
               "return {\n"
               "  world_size = 16,\n"
               "  parallel = { tp = 2, etp = 2, ep = 2, pp = 2, order = \"tp-ep-pp-dp\" },\n"
               "}\n",
               "return {\n"
               "  world_size = 16,\n"
               "  parallel = { tp = 2, etp = 2, ep = 2, pp = 2, order = \"tp-ep-dp-pp\" },\n"
               "}\n"),
    RULE_ERROR("PG017", "vpp without a pipeline",
               "Virtual stages interleave the stages of a pipeline; with pp = 1 there is none, and "
               "Megatron-Core refuses it.",
               "return { world_size = 8, parallel = { tp = 2, pp = 1, vpp = 2 } }\n",
               "return { world_size = 8, parallel = { tp = 2, pp = 2, vpp = 2 } }\n"),
    RULE_ERROR("PG018", "the given dp is not the derived one",
               "dp is what remains of the world after tp * cp * pp. A dp in the config is an "
               "assertion; where it does not hold, either it or another size is wrong.",
               "return { world_size = 16, parallel = { tp = 2, dp = 4 } }\n",
               "return { world_size = 16, parallel = { tp = 2, dp = 8 } }\n"),
    RULE_ERROR("PG019", "sizes that do not fit",
               "The product of the sizes is over 63 bits, or a size is out of range. No machine "
               "has that many ranks; one of the sizes is a slip.",
               "return { parallel = { tp = 1 << 40, cp = 1 << 40 } }\n",
               "return { parallel = { tp = 8, cp = 2 } }\n"),

    /* ---- model ---- */
    RULE_ERROR("PG020", "layers do not divide over the pipeline's stages",
               "Each of the pp * vpp stages takes layers / (pp * vpp) layers. Where that is no "
               "whole number, some systems silently drop the rest: the model trains with fewer "
               "layers. first_stage_layers, last_stage_layers or stage_layers account for uneven "
               "stages.",
               "return {\n"
               "  world_size = 16,\n"
               "  parallel = { tp = 1, pp = 4 },\n"
               "  model = { layers = 30 },\n"
               "}\n",
               "return {\n"
               "  world_size = 16,\n"
               "  parallel = { tp = 1, pp = 4, first_stage_layers = 7, last_stage_layers = 7 },\n"
               "  model = { layers = 30 },\n"
               "}\n"),
    RULE_ERROR("PG021", "kv_heads do not fit tp, or the heads",
               "Key and value heads are divided over tp where tp divides them, and replicated "
               "where they divide tp. Otherwise a rank would hold a fraction of a head. And each "
               "of them serves heads / kv_heads query heads (grouped-query attention); "
               "Megatron-Core refuses heads that are no multiple of them.",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { tp = 4 },\n"
               "  model = { heads = 24, kv_heads = 6 },\n"
               "}\n",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { tp = 2 },\n"
               "  model = { heads = 24, kv_heads = 6 },\n"
               "}\n"),
    RULE_ERROR("PG022", "tp does not divide the ffn",
               "The first linear layer of the MLP is cut by columns and the second by rows; each "
               "rank holds ffn / tp of them, which must be a whole number.",
               "return {\n"
               "  world_size = 6,\n"
               "  parallel = { tp = 3 },\n"
               "  model = { hidden = 1024, ffn = 4096 },\n"
               "}\n",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { tp = 4 },\n"
               "  model = { hidden = 1024, ffn = 4096 },\n"
               "}\n"),
    RULE_ERROR(
        "PG023", "etp does not divide the experts' ffn",
        "Each expert's linear layers are cut over etp; moe.ffn / etp must be a whole number. "
        "etp equals tp where it is left out.",
        "return {\n"
        "  world_size = 12,\n"
        "  parallel = { tp = 1, etp = 3, ep = 2 },\n"
        "  model = { hidden = 1024, bias = false },\n"
        "  moe = { experts = 8, ffn = 4096 },\n"
        "}\n",
        "return {\n"
        "  world_size = 12,\n"
        "  parallel = { tp = 1, etp = 2, ep = 2 },\n"
        "  model = { hidden = 1024, bias = false },\n"
        "  moe = { experts = 8, ffn = 4096 },\n"
        "}\n"),
    RULE_ERROR("PG024", "heads * head_dim does not divide",
               "The width of the attention projections is heads * head_dim, and tp cuts it. It "
               "must be divisible by tp; and where head_dim is left out, it is hidden / heads, "
               "which must be a whole number.",
               "return {\n"
               "  world_size = 10,\n"
               "  parallel = { tp = 5 },\n"
               "  model = { heads = 16, head_dim = 64 },\n"
               "}\n",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { tp = 4 },\n"
               "  model = { heads = 16, head_dim = 64 },\n"
               "}\n"),
    RULE_ERROR("PG025", "pp_split is out of range",
               "pp_split is the pipeline stage at which the decoder starts: at least one stage "
               "before it is the encoder's, so it is from 1 to pp - 1.",
               "return { world_size = 8, parallel = { pp = 4, pp_split = 4 } }\n",
               "return { world_size = 8, parallel = { pp = 4, pp_split = 2 } }\n"),
    RULE_ERROR("PG026", "the global batch is no whole number of micro batches",
               "In a step every dp rank runs global_batch / (micro_batch * dp) micro batches. "
               "Megatron-Core refuses a global batch that is no multiple of micro_batch * dp.",
               "return {\n"
               "  world_size = 12,\n"
               "  parallel = { tp = 2 },\n"
               "  model = { micro_batch = 2, global_batch = 64 },\n"
               "}\n",
               "return {\n"
               "  world_size = 12,\n"
               "  parallel = { tp = 2 },\n"
               "  model = { micro_batch = 2, global_batch = 72 },\n"
               "}\n"),
    RULE_ERROR("PG027", "the levels of hierarchical_cp do not make cp",
               "hierarchical_cp splits the context-parallel group into levels; the product of "
               "their sizes must be cp.",
               "return { world_size = 16, parallel = { cp = 8, hierarchical_cp = { 2, 2 } } }\n",
               "return { world_size = 16, parallel = { cp = 8, hierarchical_cp = { 2, 4 } } }\n"),
    RULE_ERROR("PG028", "optimizer_instances do not divide the data-parallel ranks",
               "Each instance of the distributed optimizer shards its state over an equal part of "
               "the dp * cp ranks, and over an equal part of the edp ranks for experts. The number "
               "of instances must divide both.",
               "return { world_size = 16, parallel = { tp = 2, optimizer_instances = 3 } }\n",
               "return { world_size = 16, parallel = { tp = 2, optimizer_instances = 2 } }\n"),
    RULE_ERROR("PG029", "the stages' layers do not add up",
               "stage_layers has one entry for each stage, and together they are model.layers. "
               "With first_stage_layers or last_stage_layers, what remains must divide evenly over "
               "the other stages. Otherwise layers would be lost or made up.",
               "return {\n"
               "  world_size = 16,\n"
               "  parallel = { pp = 4, stage_layers = { 7, 8, 8, 8 } },\n"
               "  model = { layers = 32 },\n"
               "}\n",
               "return {\n"
               "  world_size = 16,\n"
               "  parallel = { pp = 4, stage_layers = { 7, 9, 9, 7 } },\n"
               "  model = { layers = 32 },\n"
               "}\n"),

    /* ---- mixture of experts ---- */
    RULE_ERROR("PG030", "ep does not divide the experts",
               "Every rank of an expert-parallel group holds experts / ep whole experts.",
               "return {\n"
               "  world_size = 12,\n"
               "  parallel = { ep = 3 },\n"
               "  moe = { experts = 8 },\n"
               "}\n",
               "return {\n"
               "  world_size = 12,\n"
               "  parallel = { ep = 4 },\n"
               "  moe = { experts = 8 },\n"
               "}\n"),
    RULE_ERROR("PG031", "ep is given as a number of experts",
               "ep is the number of ranks that the experts are divided over, not the number of "
               "experts. More ranks than experts would leave ranks without any; and as many "
               "are often more than the world has.",
               "return {\n"
               "  world_size = 16,\n"
               "  parallel = { ep = 16 },\n"
               "  moe = { experts = 8 },\n"
               "}\n",
               "return {\n"
               "  world_size = 16,\n"
               "  parallel = { ep = 4 },\n"
               "  moe = { experts = 8 },\n"
               "}\n"),
    RULE_ERROR("PG032", "topk is larger than the number of experts",
               "Each token goes to topk different experts; there must be as many.",
               "return {\n"
               "  world_size = 4,\n"
               "  parallel = { ep = 2 },\n"
               "  moe = { experts = 4, topk = 8 },\n"
               "}\n",
               "return {\n"
               "  world_size = 4,\n"
               "  parallel = { ep = 2 },\n"
               "  moe = { experts = 4, topk = 2 },\n"
               "}\n"),
    RULE_ERROR("PG033", "the groups of experts do not work out",
               "Group-limited routing first chooses group_topk of the groups, then topk experts "
               "within them. The groups must be equal (groups divides experts), group_topk at most "
               "groups, topk a multiple of group_topk, and the chosen groups must hold topk "
               "experts.",
               "return {\n"
               "  world_size = 16,\n"
               "  parallel = { ep = 8 },\n"
               "  moe = { experts = 64, topk = 8, groups = 8, group_topk = 3 },\n"
               "}\n",
               "return {\n"
               "  world_size = 16,\n"
               "  parallel = { ep = 8 },\n"
               "  moe = { experts = 64, topk = 8, groups = 8, group_topk = 4 },\n"
               "}\n"),
    RULE_ERROR("PG034", "topk = 1 with softmax after the selection",
               "Softmax over one chosen score is always 1: the router's weight then has no "
               "gradient and the router does not learn. Megatron-Core asks for the softmax before "
               "the selection where topk is 1.",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { ep = 4 },\n"
               "  moe = { experts = 8, topk = 1 },\n"
               "}\n",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { ep = 4 },\n"
               "  moe = { experts = 8, topk = 1, pre_softmax = true },\n"
               "}\n"),
    RULE_ERROR("PG035", "expert_bias with softmax scores",
               "The bias per expert acts on scores that do not depend on each other; "
               "Megatron-Core has it for sigmoid (and sqrtsoftplus) scores and refuses it with "
               "softmax.",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { ep = 4 },\n"
               "  moe = { experts = 8, expert_bias = true },\n"
               "}\n",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { ep = 4 },\n"
               "  moe = { experts = 8, expert_bias = true, score = \"sigmoid\" },\n"
               "}\n"),
    RULE_ERROR("PG036", "MoE training with tp without sequence parallelism",
               "Without sequence parallelism every rank of a tp group holds the same tokens; "
               "Megatron-Core refuses to train an MoE model so, since the experts would see each "
               "token tp times. Inference (parallel.mode = \"infer\") may do it.",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { tp = 2, ep = 4, etp = 1 },\n"
               "  moe = { experts = 8 },\n"
               "}\n",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { tp = 2, ep = 4, etp = 1, sequence_parallel = true },\n"
               "  moe = { experts = 8 },\n"
               "}\n"),
    RULE_ERROR("PG037", "linear bias in experts that are cut over etp",
               "The second linear layer of an expert is summed over etp; its bias would be added "
               "etp times. Megatron-Core refuses a linear bias in experts with etp > 1. "
               "model.bias is true by default, and etp equals tp where it is left out.",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { tp = 2, ep = 4, etp = 2, sequence_parallel = true },\n"
               "  model = { hidden = 1024, bias = true },\n"
               "  moe = { experts = 8, ffn = 4096 },\n"
               "}\n",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { tp = 2, ep = 4, etp = 2, sequence_parallel = true },\n"
               "  model = { hidden = 1024, bias = false },\n"
               "  moe = { experts = 8, ffn = 4096 },\n"
               "}\n"),

    RULE_ERROR(
        "PG038", "layer_pattern has not one entry for each layer",
        "A list says of each layer whether it has experts (1) or not (0), so it has as many "
        "entries as the model has layers; Megatron-Core's moe_layer_freq refuses others. One "
        "number n means every n-th layer.",
        "return {\n"
        "  world_size = 8,\n"
        "  parallel = { ep = 4 },\n"
        "  model = { layers = 4 },\n"
        "  moe = { experts = 8, layer_pattern = { 0, 1 } },\n"
        "}\n",
        "return {\n"
        "  world_size = 8,\n"
        "  parallel = { ep = 4 },\n"
        "  model = { layers = 4 },\n"
        "  moe = { experts = 8, layer_pattern = { 0, 1, 1, 1 } },\n"
        "}\n"),
    RULE_ERROR("PG039", "expert_view = false with experts",
               "expert_view = false says that the model is dense: there are no expert groups, and "
               "no rule about experts is asked. Experts, or an ep or etp larger than 1, say the "
               "contrary.",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { ep = 4, expert_view = false },\n"
               "  moe = { experts = 8 },\n"
               "}\n",
               "return {\n"
               "  world_size = 8,\n"
               "  parallel = { ep = 4 },\n"
               "  moe = { experts = 8 },\n"
               "}\n"),

    /* ---- sequences ---- */
    RULE_ERROR("PG040", "the padded sequence does not divide over the ranks",
               "Context parallelism cuts a sequence into 2 * cp chunks, and sequence parallelism "
               "cuts each rank's part into tp pieces. The padded length must be a multiple of "
               "lcm(2 * cp, tp * cp).",
               "return {\n"
               "  world_size = 16,\n"
               "  parallel = { tp = 2, cp = 4, sequence_parallel = true },\n"
               "  model = { seq_len = 1000 },\n"
               "  padding = { sequence = 6 },\n"
               "}\n",
               "return {\n"
               "  world_size = 16,\n"
               "  parallel = { tp = 2, cp = 4, sequence_parallel = true },\n"
               "  model = { seq_len = 1000 },\n"
               "  padding = { sequence = 16 },\n"
               "}\n"),
    RULE_NOTE("PG041", "the padded sequence is off get_padding's multiple",
              "Megatron-Core's get_padding pads to 2 * tp * cp where both context and sequence "
              "parallelism are on. The length here is a multiple of lcm(2 * cp, tp * cp), which is "
              "enough, but other code that assumes get_padding's multiple may disagree.",
              "return {\n"
              "  world_size = 16,\n"
              "  parallel = { tp = 2, cp = 4, sequence_parallel = true },\n"
              "  model = { seq_len = 1000 },\n"
              "  padding = { sequence = 8 },\n"
              "}\n",
              "return {\n"
              "  world_size = 16,\n"
              "  parallel = { tp = 2, cp = 4, sequence_parallel = true },\n"
              "  model = { seq_len = 1000 },\n"
              "  padding = { sequence = \"megatron\" },\n"
              "}\n"),
    RULE_ERROR(
        "PG042", "padding to a capacity that is not given",
        "pad_to_capacity fills every expert's input up to its capacity, which comes from "
        "capacity_factor; Megatron-Core refuses the one without the other.",
        "return {\n"
        "  parallel = {},\n"
        "  moe = { experts = 8, topk = 2, pad_to_capacity = true },\n"
        "}\n",
        "return {\n"
        "  parallel = {},\n"
        "  moe = { experts = 8, topk = 2, pad_to_capacity = true, capacity_factor = 1.25 },\n"
        "}\n"),
    RULE_ERROR(
        "PG043", "fewer micro batches than stages with vpp",
        "The interleaved schedule sends groups of at least pp micro batches through the "
        "virtual stages; a step has global_batch / (micro_batch * dp) of them. Megatron-Core "
        "refuses fewer than pp.",
        "return {\n"
        "  world_size = 64,\n"
        "  parallel = { tp = 8, pp = 4, vpp = 2 },\n"
        "  model = { global_batch = 6, layers = 8 },\n"
        "}\n",
        "return {\n"
        "  world_size = 64,\n"
        "  parallel = { tp = 8, pp = 4, vpp = 2 },\n"
        "  model = { global_batch = 8, layers = 8 },\n"
        "}\n"),

    /* ---- the general grid, and parts of groups ---- */
    RULE_ERROR(
        "PG044", "the grid's sizes do not make the world",
        "The axes of parallel.grid factor the world, and so do those of each view in "
        "parallel.views. One size may be left out and is inferred: the others must divide the "
        "world. Where none is left out, their product must be the world. An axis of a view "
        "that the grid has too takes its size from there.",
        "return { world_size = 12, parallel = { grid = { { \"tp\", 8 }, { \"dp\" } } } }\n",
        "return { world_size = 16, parallel = { grid = { { \"tp\", 8 }, { \"dp\" } } } }\n"),
    RULE_ERROR(
        "PG045", "a name in the grid that cannot be used",
        "Families are named by dash-joined axes, and parts of them behind a slash, so that an "
        "axis has a name of letters, digits, _ and ., and each axis of a view its own. The "
        "grid itself is the view \"dense\". At most 12 axes in a view and 7 views are taken.",
        "return { world_size = 8, parallel = { grid = { { \"my-axis\", 8 } } } }\n",
        "return { world_size = 8, parallel = { grid = { { \"my_axis\", 8 } } } }\n"),
    RULE_ERROR(
        "PG046", "views disagree on an axis that they share",
        "An axis that two views name is one axis: its groups are the same ranks in both. It "
        "needs the same size, and the axes before it the same product. Otherwise a rank would "
        "be on two stages of one pipeline, and the two views' groups would wait for each "
        "other.",
        "return {\n"
        "  world_size = 16,\n"
        "  parallel = {\n"
        "    grid = { { \"tp\", 2 }, { \"pp\", 2 }, { \"dp\" } },\n"
        "    views = { expert = { { \"ep\", 4 }, { \"pp\" }, { \"edp\" } } },\n"
        "  },\n"
        "}\n",
        "return {\n"
        "  world_size = 16,\n"
        "  parallel = {\n"
        "    grid = { { \"tp\", 2 }, { \"dp\" }, { \"pp\", 2 } },\n"
        "    views = { expert = { { \"ep\", 4 }, { \"edp\" }, { \"pp\" } } },\n"
        "  },\n"
        "}\n"),
    RULE_ERROR(
        "PG047", "the short form beside the grid",
        "parallel.grid declares all axes with their sizes and their order, so that tp, cp, pp, "
        "ep, etp, dp, order and expert_view have nothing left to say; and parallel.views are "
        "further views of that grid.",
        "return { world_size = 8, parallel = { tp = 2, grid = { { \"tp\", 2 }, { \"dp\" } } } }\n",
        "return { world_size = 8, parallel = { grid = { { \"tp\", 2 }, { \"dp\" } } } }\n"),
    RULE_ERROR("PG048", "hybrid_cp over an odd number of ranks",
               "Hybrid context parallelism makes groups of each power of two from the ranks of "
               "dp * cp, and Megatron-Core refuses an odd number of them.",
               "return { world_size = 6, parallel = { tp = 2, hybrid_cp = true } }\n",
               "return { world_size = 8, parallel = { tp = 2, hybrid_cp = true } }\n"),

    /* ---- warnings ---- */
    RULE_WARNING("PG050", "etp is left out with ep > 1",
                 "etp silently equals tp where it is not given: every expert is then cut over tp "
                 "ranks too. Most MoE layouts want whole experts, etp = 1; whichever is meant, "
                 "write it down.",
                 "return {\n"
                 "  world_size = 16,\n"
                 "  parallel = { tp = 2, ep = 4, sequence_parallel = true },\n"
                 "  moe = { experts = 8 },\n"
                 "}\n",
                 "return {\n"
                 "  world_size = 16,\n"
                 "  parallel = { tp = 2, ep = 4, etp = 1, sequence_parallel = true },\n"
                 "  moe = { experts = 8 },\n"
                 "}\n"),
    RULE_WARNING("PG051", "a tp, ep or etp group crosses a node",
                 "Tensor-parallel collectives and the experts' all-to-all are in the way of every "
                 "layer. Within a node, or an NVLink domain, they are an order of magnitude faster "
                 "than over the network.",
                 "return {\n"
                 "  world_size = 32,\n"
                 "  parallel = { tp = 16 },\n"
                 "  cluster = { gpus_per_node = 8 },\n"
                 "}\n",
                 "return {\n"
                 "  world_size = 32,\n"
                 "  parallel = { tp = 8 },\n"
                 "  cluster = { gpus_per_node = 8 },\n"
                 "}\n"),
    RULE_WARNING("PG052", "tp is larger than kv_heads",
                 "With more tensor-parallel ranks than key and value heads each head is held by "
                 "several ranks: the key-value cache and its projections are replicated and no "
                 "longer shrink with tp.",
                 "return {\n"
                 "  world_size = 16,\n"
                 "  parallel = { tp = 8 },\n"
                 "  model = { heads = 32, kv_heads = 4 },\n"
                 "}\n",
                 "return {\n"
                 "  world_size = 16,\n"
                 "  parallel = { tp = 4 },\n"
                 "  model = { heads = 32, kv_heads = 4 },\n"
                 "}\n"),
    RULE_WARNING("PG053", "one expert on each rank",
                 "With a single expert on each rank nearly every token leaves its rank, all "
                 "traffic is all-to-all, and the slowest expert holds up the rest with nothing on "
                 "the same rank to even it out. It is not told where the ep group is known to stay "
                 "within a node or NVLink domain.",
                 "return {\n"
                 "  world_size = 16,\n"
                 "  parallel = { ep = 8 },\n"
                 "  moe = { experts = 8 },\n"
                 "}\n",
                 "return {\n"
                 "  world_size = 16,\n"
                 "  parallel = { ep = 4 },\n"
                 "  moe = { experts = 8 },\n"
                 "}\n"),
    RULE_WARNING("PG054", "padding wastes over 10% of the tokens",
                 "Padded tokens cost the same time and memory as real ones.",
                 "return {\n"
                 "  world_size = 8,\n"
                 "  parallel = { cp = 4 },\n"
                 "  model = { seq_len = 1100 },\n"
                 "  padding = { sequence = 1024 },\n"
                 "}\n",
                 "return {\n"
                 "  world_size = 8,\n"
                 "  parallel = { cp = 4 },\n"
                 "  model = { seq_len = 1100 },\n"
                 "  padding = { sequence = 8 },\n"
                 "}\n"),
    RULE_WARNING("PG055", "packed sequences shorter than 2 * cp",
                 "Every packed sequence is padded to a multiple of 2 * cp tokens of its own, so "
                 "that each rank has two chunks of it. One shorter than that is mostly padding.",
                 "return {\n"
                 "  world_size = 16,\n"
                 "  parallel = { cp = 8 },\n"
                 "  padding = { packed = { 4096, 7, 2048 } },\n"
                 "}\n",
                 "return {\n"
                 "  world_size = 16,\n"
                 "  parallel = { cp = 2 },\n"
                 "  padding = { packed = { 4096, 7, 2048 } },\n"
                 "}\n"),
    RULE_WARNING("PG056", "a shard's size is off the matrix units' alignment",
                 "Matrix units work on rows whose length is a multiple of 16 bytes: 8 elements of "
                 "bf16, 4 of f32 (as TF32), 16 of fp8. Other sizes take slower kernels or none "
                 "(NVIDIA, Matrix Multiplication Background User's Guide).",
                 "return {\n"
                 "  world_size = 8,\n"
                 "  parallel = { tp = 4 },\n"
                 "  model = { hidden = 1024, ffn = 4016, dtype = \"bf16\" },\n"
                 "}\n",
                 "return {\n"
                 "  world_size = 8,\n"
                 "  parallel = { tp = 4 },\n"
                 "  model = { hidden = 1024, ffn = 4000, dtype = \"bf16\" },\n"
                 "}\n"),
    RULE_WARNING("PG057", "the world is not a multiple of the node",
                 "The last node is only partly used, and groups that fit the other nodes may "
                 "straddle it.",
                 "return {\n"
                 "  world_size = 12,\n"
                 "  parallel = { tp = 2 },\n"
                 "  cluster = { gpus_per_node = 8 },\n"
                 "}\n",
                 "return {\n"
                 "  world_size = 16,\n"
                 "  parallel = { tp = 2 },\n"
                 "  cluster = { gpus_per_node = 8 },\n"
                 "}\n"),
    RULE_WARNING("PG058", "dp is 1",
                 "There is one replica of the model: no data parallelism, and nothing to shard the "
                 "optimizer over but cp. That may be meant, for a test or where the model just "
                 "fits; otherwise a size is larger than it needs to be. It is not told in "
                 "inference.",
                 "return { world_size = 16, parallel = { tp = 8, pp = 2 } }\n",
                 "return { world_size = 32, parallel = { tp = 8, pp = 2 } }\n"),
    RULE_NOTE("PG059", "sequence_parallel without tensor parallelism",
              "Sequence parallelism cuts activations over the ranks of tp, and there is one. "
              "Megatron's training script switches it off with a warning; a ModelParallelConfig "
              "of one's own refuses it.",
              "return { world_size = 8, parallel = { sequence_parallel = true } }\n",
              "return { world_size = 8, parallel = { tp = 2, sequence_parallel = true } }\n"),
    RULE_WARNING("PG060", "ep without experts",
                 "Expert parallelism spreads experts, and the config has a model but gives none: "
                 "Megatron-Core refuses that. Where the model is dense, ep is 1.",
                 "return { world_size = 8, parallel = { ep = 4 }, model = { layers = 8 } }\n",
                 "return {\n"
                 "  world_size = 8, parallel = { ep = 4 }, model = { layers = 8 },\n"
                 "  moe = { experts = 8, topk = 2 },\n"
                 "}\n"),
    RULE_ERROR("PG061", "a family that there is not",
               "run.families and run.nccl name families of rank groups. A run refuses a name that "
               "the layout does not have, and a family that run.nccl has by two names; only a "
               "layout that is legal is asked for them.",
               "return { world_size = 8, parallel = { tp = 2 }, run = { nccl = { tpp = { max_ctas "
               "= 16 } } } }\n",
               "return { world_size = 8, parallel = { tp = 2 }, run = { nccl = { tp = { max_ctas = "
               "16 } } } }\n"),

    /* ---- notes ---- */
    RULE_NOTE(
        "PG070", "derived sizes",
        "What follows from the given sizes: dp, edp, etp, the smallest legal world where none "
        "was given, micro batches of a step, layers and experts of a rank.",
        "return { world_size = 16, parallel = { tp = 2, pp = 2 } }\n", NULL),
    RULE_NOTE("PG071", "parameters of a rank",
              "Weights that the largest rank holds, dense and expert apart, and their bytes in the "
              "dtype, and in training the optimizer's share: 12 bytes for each parameter (an f32 "
              "copy and Adam's two moments), sharded over the ranks of one optimizer instance.",
              "return {\n"
              "  world_size = 16,\n"
              "  parallel = { tp = 2 },\n"
              "  model = { hidden = 1024, ffn = 4096, heads = 16, layers = 4, vocab = 32000 },\n"
              "}\n",
              NULL),
    RULE_NOTE(
        "PG072", "communication volume of a micro batch",
        "Bytes that a rank sends for a micro batch, forward and (in training) backward, by family, "
        "from the usual formulas: ring collectives of n ranks send (n - 1) / n of the data, an "
        "all-reduce twice that. pp is what crosses the boundaries of the rank's pipeline stages. "
        "The all-reduces within the embedding and the loss are left out: they are few beside those "
        "of the layers.",
        "return {\n"
        "  world_size = 16,\n"
        "  parallel = { tp = 2 },\n"
        "  model = { hidden = 1024, ffn = 4096, heads = 16, layers = 4, seq_len = 2048 },\n"
        "}\n",
        NULL),
};

const int pgr_rule_count = (int)(sizeof pgr_rules / sizeof pgr_rules[0]);
