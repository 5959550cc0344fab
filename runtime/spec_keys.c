/* spec_keys.c - the one table of every key of the config. It drives parsing, defaults, `pgrun
 * --help config` and the editor definitions; a key that is not here does not exist. */
#include "spec.h"

#include <float.h>

#define SIZE_TOP 0x1p40  /* of any size: products of a few of them stay far from 63 bits' end */
#define ANY_TOP 0x1p63   /* no bound of ours: every int64_t is below */
#define POSITIVE DBL_MIN /* "> 0" where the bound is inclusive */
#define NUMBER_TOP 1e12  /* of factors and coefficients */
#define SECONDS_LOW 0.1  /* of deadlines: below, a busy machine misses them all by itself */
#define SECONDS_TOP 1e7  /* of deadlines: some 115 days */
#define COUNT_TOP 1e6    /* of repetitions */
#define EXPERTS_TOP 0x1p16
#define CHUNKS_TOP 32    /* PGR_CHUNKS_MAX of layer.h */
#define SCALING_LOW 1e-6 /* beyond these, f32 weights lose their digits */
#define SCALING_TOP 1e6

#define AT(field) offsetof(pgr_spec, field)

#define SECTION(path, help)                                                                        \
    { path, PGR_KEY_SECTION, 0, 0, 0, "nil", NULL, NULL, help }
#define INTEGER(path, field, low, high, fallback, later, help)                                     \
    { path, PGR_KEY_INTEGER, AT(field), low, high, fallback, NULL, later, help }
#define SIZE(path, field, fallback, help) INTEGER(path, field, 1, SIZE_TOP, fallback, NULL, help)
#define NUMBER(path, field, low, high, fallback, help)                                             \
    { path, PGR_KEY_NUMBER, AT(field), low, high, fallback, NULL, NULL, help }
#define BOOLEAN(path, field, fallback, later, help)                                                \
    { path, PGR_KEY_BOOLEAN, AT(field), 0, 1, fallback, NULL, later, help }
#define CHOICE(path, field, fallback, choices, later, help)                                        \
    { path, PGR_KEY_CHOICE, AT(field), 0, 0, fallback, choices, later, help }
#define OTHER(path, type, field, low, high, fallback, choices, later, help)                        \
    { path, type, AT(field), low, high, fallback, choices, later, help }

const pgr_key pgr_keys[] = {
    SIZE("world_size", world_size, "nil",
         "Ranks in the job; under mpirun it must equal the job's size"),

    SECTION("parallel", "The layout: how the ranks are divided (the only required section)"),
    SIZE("parallel.tp", parallel.tp, "1", "Tensor parallel size"),
    SIZE("parallel.cp", parallel.cp, "1", "Context parallel size"),
    SIZE("parallel.pp", parallel.pp, "1", "Pipeline parallel size"),
    SIZE("parallel.ep", parallel.ep, "1", "Expert parallel size"),
    SIZE("parallel.etp", parallel.etp, "nil", "Expert tensor parallel size; nil: equals tp"),
    SIZE("parallel.dp", parallel.dp, "nil",
         "Data parallel size; nil: derived from world_size, given: asserted"),
    OTHER("parallel.order", PGR_KEY_STRING, parallel.order, 1, PGR_NAME_MAX - 1,
          "\"tp-cp-ep-dp-pp\"", NULL, NULL,
          "Order of the axes, dash-joined; the leftmost varies fastest"),
    BOOLEAN("parallel.sequence_parallel", parallel.sequence_parallel, "false", NULL,
            "Shard activations along the sequence over tp, outside the linear layers"),
    SIZE("parallel.vpp", parallel.vpp, "nil", "Virtual pipeline stages on each rank"),
    SIZE("parallel.pp_split", parallel.pp_split, "nil",
         "Pipeline stage at which the decoder starts"),
    SIZE("parallel.first_stage_layers", parallel.first_stage_layers, "nil",
         "Layers of the first pipeline stage, where stages are uneven"),
    SIZE("parallel.last_stage_layers", parallel.last_stage_layers, "nil",
         "Layers of the last pipeline stage, where stages are uneven"),
    OTHER("parallel.stage_layers", PGR_KEY_INTEGER_LIST, parallel.stage_layers, 0, SIZE_TOP, "nil",
          NULL, NULL, "Layers of each pipeline stage in turn"),
    OTHER("parallel.hierarchical_cp", PGR_KEY_INTEGER_LIST, parallel.hierarchical_cp, 1, SIZE_TOP,
          "nil", NULL, NULL,
          "Sizes of the levels of context parallelism, innermost first; their product is cp"),
    BOOLEAN("parallel.hybrid_cp", parallel.hybrid_cp, "false", NULL,
            "Also make hybrid data and context parallel groups of each power of two"),
    INTEGER("parallel.optimizer_instances", parallel.optimizer_instances, 1, SIZE_TOP, "1", NULL,
            "Instances of the distributed optimizer"),
    INTEGER("parallel.rank_offset", parallel.rank_offset, 0, SIZE_TOP, "0",
            "a rank offset (only groups and check have it)",
            "Added to every rank that is reported (groups and check only)"),
    BOOLEAN("parallel.tp_comm_overlap", parallel.tp_comm_overlap, "false", NULL,
            "With sequence_parallel: linear layers communicate in chunks beside their product; the "
            "padding rule depends on it"),
    CHOICE("parallel.mode", parallel.mode, "\"train\"", "train|infer", NULL,
           "What the layout is for"),
    BOOLEAN("parallel.expert_view", parallel.expert_view, "true", NULL,
            "false: a dense model, without expert families and their rules"),
    OTHER("parallel.grid", PGR_KEY_GRID, parallel.grid, 1, SIZE_TOP, "nil", NULL, NULL,
          "The general form: { {\"tp\", 2}, {\"mine\", 4}, {\"dp\"} }, the first varies fastest; "
          "one size may be left out"),
    OTHER("parallel.views", PGR_KEY_VIEWS, parallel.views, 1, SIZE_TOP, "nil", NULL, NULL,
          "Further factorings of the same ranks: { expert = { {\"etp\", 1}, {\"ep\", 8} } }"),

    SECTION("cluster", "The machines"),
    SIZE("cluster.gpus_per_node", cluster.gpus_per_node, "nil", "GPUs (ranks) on each node"),
    SIZE("cluster.nvlink_domain", cluster.nvlink_domain, "nil",
         "GPUs that reach each other over NVLink"),

    SECTION("model", "The model's shapes"),
    SIZE("model.hidden", model.hidden, "nil", "Hidden size"),
    SIZE("model.ffn", model.ffn, "nil", "Inner size of the dense MLP"),
    SIZE("model.heads", model.heads, "nil", "Attention heads"),
    SIZE("model.kv_heads", model.kv_heads, "nil", "Key and value heads; nil: equals heads"),
    SIZE("model.head_dim", model.head_dim, "nil", "Size of one head; nil: hidden / heads"),
    SIZE("model.layers", model.layers, "nil", "Transformer layers"),
    SIZE("model.vocab", model.vocab, "nil", "Vocabulary, tokens"),
    SIZE("model.vocab_multiple", model.vocab_multiple, "128",
         "The vocabulary is padded to a multiple of this times tp"),
    BOOLEAN("model.tie_embeddings", model.tie_embeddings, "false", NULL,
            "Input and output embeddings are one"),
    BOOLEAN("model.bias", model.bias, "true", NULL, "Linear layers have a bias"),
    CHOICE("model.activation", model.activation, "\"gelu\"", "gelu|swiglu", NULL,
           "Of the MLP; swiglu is gated: each shard holds its slice of both halves"),
    SIZE("model.seq_len", model.seq_len, "nil", "Tokens of a sequence, before padding"),
    SIZE("model.decoder_seq_len", model.decoder_seq_len, "nil",
         "Tokens of the decoder's sequence; Megatron's rule pads to it with tp_comm_overlap"),
    SIZE("model.micro_batch", model.micro_batch, "1", "Samples of a micro batch on each dp rank"),
    SIZE("model.global_batch", model.global_batch, "nil", "Samples of a step over all dp ranks"),
    CHOICE("model.dtype", model.dtype, "\"f32\"", "f32|bf16", NULL,
           "Of weights and activations; bf16 is stored, sums are f32"),
    BOOLEAN("model.fp8", model.fp8, "false", "fp8", "Linear layers in fp8"),
    CHOICE("model.fp8_recipe", model.fp8_recipe, "nil", "|delayed|tensorwise|blockwise|mxfp8",
           "fp8", "How fp8 is scaled; nil: delayed where fp8 is on"),

    SECTION("moe", "Mixture of experts"),
    INTEGER("moe.experts", moe.experts, 1, EXPERTS_TOP, "nil", NULL,
            "Experts of an MoE layer; nil: a dense model"),
    INTEGER("moe.topk", moe.topk, 1, EXPERTS_TOP, "2", NULL,
            "Experts that each token is routed to"),
    SIZE("moe.ffn", moe.ffn, "nil", "Inner size of one expert; nil: model.ffn"),
    INTEGER("moe.shared_ffn", moe.shared_ffn, 0, SIZE_TOP, "0", NULL,
            "Inner size of the shared experts together; 0: none"),
    OTHER("moe.layer_pattern", PGR_KEY_PATTERN, moe.layer_pattern, 1, SIZE_TOP, "nil", NULL, NULL,
          "Which layers are MoE: n for every n-th, or a list of 0 (dense) and 1 (MoE); nil: all"),
    CHOICE("moe.score", moe.score, "\"softmax\"", "softmax|sigmoid|sqrtsoftplus", NULL,
           "How the router turns logits into scores"),
    BOOLEAN("moe.pre_softmax", moe.pre_softmax, "false", NULL,
            "Softmax over all experts before top-k, not over the chosen ones after it"),
    INTEGER("moe.groups", moe.groups, 1, SIZE_TOP, "nil", NULL,
            "Groups of experts for group-limited routing; nothing without group_topk"),
    INTEGER("moe.group_topk", moe.group_topk, 1, SIZE_TOP, "nil", NULL,
            "Groups that each token may choose from; divides topk"),
    NUMBER("moe.scaling", moe.scaling, SCALING_LOW, SCALING_TOP, "nil",
           "Factor on the routing weights; nil: none"),
    BOOLEAN("moe.expert_bias", moe.expert_bias, "false", NULL,
            "A bias per expert that acts on the choice alone; not with softmax"),
    NUMBER("moe.capacity_factor", moe.capacity_factor, POSITIVE, NUMBER_TOP, "nil",
           "Tokens an expert takes, over the even share; nil: nothing is dropped"),
    CHOICE("moe.drop_policy", moe.drop_policy, "\"probs\"", "probs|position", NULL,
           "Which tokens stay where capacity is short: the likeliest or the first"),
    BOOLEAN("moe.pad_to_capacity", moe.pad_to_capacity, "false",
            "sending tokens to experts, whose input is what padding to capacity fills",
            "Pad each expert's input to its capacity"),
    CHOICE("moe.aux_loss_type", moe.aux_loss_type, "\"aux_loss\"",
           "aux_loss|seq_aux_loss|global_aux_loss|none", NULL,
           "Load-balancing loss: over the micro batch, each sequence, or the global batch"),
    NUMBER("moe.aux_loss_coeff", moe.aux_loss_coeff, 0, NUMBER_TOP, "0.01",
           "Coefficient of the load-balancing loss"),
    NUMBER("moe.z_loss_coeff", moe.z_loss_coeff, 0, NUMBER_TOP, "0", "Coefficient of the z-loss"),

    SECTION("padding", "How sequences are padded"),
    OTHER("padding.sequence", PGR_KEY_PADDING_RULE, padding, 1, SIZE_TOP, "\"megatron\"", NULL,
          NULL, "\"megatron\", a multiple of tokens, or function(p) return multiple end"),
    OTHER("padding.packed", PGR_KEY_INTEGER_LIST, padding.packed, 1, SIZE_TOP, "nil", NULL, NULL,
          "Lengths of the sequences packed into a sample, tokens; takes model.seq_len's place"),

    SECTION("run", "What a run does"),
    OTHER("run.workloads", PGR_KEY_CHOICE_LIST, run.workloads, 0, 0,
          "{ \"mlp\", \"router\", \"context\" }", "mlp|router|context", NULL,
          "What is run, verified and timed, in this order"),
    OTHER("run.families", PGR_KEY_NAME_LIST, run.families, 0, 0, "nil", NULL, NULL,
          "Group families to open; nil: those that the workloads use"),
    INTEGER("run.warmup", run.warmup, 0, COUNT_TOP, "2", NULL, "Iterations before timing"),
    INTEGER("run.iterations", run.iterations, 1, COUNT_TOP, "10", NULL,
            "Iterations that are timed"),
    INTEGER("run.seed", run.seed, 0, ANY_TOP, "1", NULL, "Of weights, inputs and math.random"),
    INTEGER("run.overlap_chunks", run.overlap_chunks, 1, CHUNKS_TOP, "4", NULL,
            "Chunks that communicate beside the product with tp_comm_overlap; 1: none do"),
    BOOLEAN("run.tf32", run.tf32, "false", NULL,
            "On a GPU, linear layers in f32 may multiply in TF32, 10 bits of mantissa"),
    CHOICE("run.device", run.device, "\"auto\"", "auto|cpu|cuda", NULL,
           "Where kernels run; auto: on GPUs if every rank has one, else on the CPU"),
    CHOICE("run.comm", run.comm, "\"auto\"", "auto|mpi|nccl", NULL,
           "What communicates; auto: NCCL between GPUs (MPI where ranks share one), else MPI"),
    NUMBER("run.timeout", run.timeout, SECONDS_LOW, SECONDS_TOP, "60",
           "Seconds without progress in one collective: what one of its messages may take"),
    NUMBER("run.init_timeout", run.init_timeout, SECONDS_LOW, SECONDS_TOP, "300",
           "Seconds without progress in opening"),
    BOOLEAN("run.share_gpu", run.share_gpu, "false", NULL,
            "Several ranks may use one GPU; they then communicate over MPI"),
    OTHER("run.nccl", PGR_KEY_NCCL, run.nccl, 0, SIZE_TOP, "nil", NULL, NULL,
          "NCCL options per family: max_ctas, cga_cluster_size, net_name, traffic_class, "
          "split_share, "
          "high_priority"),
    OTHER("run.collectives", PGR_KEY_NAME_LIST, run.collectives, 0, 0, "nil",
          "all_reduce|all_gather|reduce_scatter|all_to_all|broadcast|send_recv",
          "timing bare collectives", "Collectives to verify and time on each family"),

    {"experiment", PGR_KEY_FUNCTION, AT(has_experiment), 0, 1, "nil", NULL, "experiments",
     "function(pg) ... end: a scripted experiment"},
};

const int pgr_key_count = (int)(sizeof pgr_keys / sizeof pgr_keys[0]);
