/* spec.h - the checked content of a config as one plain C struct, and the one table of all keys
 * that drives parsing, defaults, `pgrun --help config` and the editor definitions. Knows no Lua. */
#ifndef PGR_SPEC_H
#define PGR_SPEC_H

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PGR_NIL INT64_MIN /* an optional integer that was not given; an optional number is NaN */
#define PGR_NAME_MAX 64   /* bytes of a name (axis, family, order, net name), NUL included */

/* A list of integers owned by the spec; `items` is NULL when count is 0. */
typedef struct pgr_list {
    int64_t count;
    int64_t *items;
} pgr_list;

/* A list of short names owned by the spec. */
typedef struct pgr_names {
    int64_t count;
    char (*items)[PGR_NAME_MAX];
} pgr_names;

/* One axis of the general grid; size is PGR_NIL for the one axis that is inferred. */
typedef struct pgr_grid_axis {
    char name[PGR_NAME_MAX];
    int64_t size;
} pgr_grid_axis;

typedef struct pgr_grid {
    int64_t count;
    pgr_grid_axis *axes; /* owned; the first axis varies fastest */
} pgr_grid;

typedef struct pgr_grid_view {
    char name[PGR_NAME_MAX];
    pgr_grid grid;
} pgr_grid_view;

/* NCCL options of one family; PGR_NIL or empty where not given. */
typedef struct pgr_nccl_options {
    char family[PGR_NAME_MAX];
    int64_t max_ctas, cga_cluster_size, traffic_class;
    bool split_share, high_priority;
    char net_name[PGR_NAME_MAX];
} pgr_nccl_options;

typedef enum pgr_mode { PGR_MODE_TRAIN, PGR_MODE_INFER } pgr_mode;
typedef enum pgr_dtype { PGR_F32, PGR_BF16, PGR_F64, PGR_I32, PGR_I64, PGR_U8 } pgr_dtype;
typedef enum pgr_activation { PGR_GELU, PGR_SWIGLU, PGR_NO_ACTIVATION } pgr_activation;
typedef enum pgr_fp8_recipe {
    PGR_FP8_NONE, /* not given: treated as "delayed" where fp8 is on */
    PGR_FP8_DELAYED,
    PGR_FP8_TENSORWISE,
    PGR_FP8_BLOCKWISE,
    PGR_FP8_MXFP8
} pgr_fp8_recipe;
typedef enum pgr_score { PGR_SOFTMAX, PGR_SIGMOID, PGR_SQRTSOFTPLUS } pgr_score;
typedef enum pgr_drop_policy { PGR_DROP_PROBS, PGR_DROP_POSITION } pgr_drop_policy;
typedef enum pgr_aux_loss {
    PGR_AUX_LOSS,
    PGR_SEQ_AUX_LOSS,
    PGR_GLOBAL_AUX_LOSS,
    PGR_NO_AUX_LOSS
} pgr_aux_loss;
typedef enum pgr_padding_rule {
    PGR_PAD_MEGATRON, /* Megatron-Core's get_padding */
    PGR_PAD_MULTIPLE  /* to a multiple that was given, or that the config's function returned */
} pgr_padding_rule;
typedef enum pgr_workload { PGR_MLP, PGR_ROUTER, PGR_CONTEXT, PGR_WORKLOADS } pgr_workload;
typedef enum pgr_device_kind { PGR_DEVICE_AUTO, PGR_DEVICE_CPU, PGR_DEVICE_CUDA } pgr_device_kind;
typedef enum pgr_comm_kind { PGR_COMM_AUTO, PGR_COMM_MPI, PGR_COMM_NCCL } pgr_comm_kind;

/* The config. Sizes count elements unless the name says otherwise; times are in seconds. */
typedef struct pgr_spec {
    int64_t world_size; /* PGR_NIL where neither file nor flag gives it */

    struct {
        int64_t tp, cp, pp, ep;
        int64_t etp; /* PGR_NIL: equals tp */
        int64_t dp;  /* PGR_NIL: derived; given, it is asserted */
        char order[PGR_NAME_MAX];
        bool sequence_parallel;
        int64_t vpp, pp_split, first_stage_layers, last_stage_layers; /* PGR_NIL: not given */
        pgr_list stage_layers;
        pgr_list hierarchical_cp;
        bool hybrid_cp;
        int64_t optimizer_instances;
        int64_t rank_offset;
        bool tp_comm_overlap;
        pgr_mode mode;
        bool expert_view;
        pgr_grid grid; /* count 0: the short form above is used */
        struct {
            int64_t count;
            pgr_grid_view *items; /* owned */
        } views;
    } parallel;

    struct {
        int64_t gpus_per_node, nvlink_domain; /* PGR_NIL: not given */
    } cluster;

    struct {
        int64_t hidden, ffn, heads, kv_heads, head_dim, layers, vocab; /* PGR_NIL: not given */
        int64_t vocab_multiple;
        bool tie_embeddings, bias;
        pgr_activation activation;
        int64_t seq_len, decoder_seq_len; /* PGR_NIL: not given */
        int64_t micro_batch;
        int64_t global_batch; /* PGR_NIL: not given */
        pgr_dtype dtype;      /* PGR_F32 or PGR_BF16 */
        bool fp8;
        pgr_fp8_recipe fp8_recipe;
    } model;

    struct {
        int64_t experts, topk; /* experts PGR_NIL: not given, a dense model */
        int64_t ffn;           /* PGR_NIL: not given */
        int64_t shared_ffn;
        pgr_list
            layer_pattern; /* {n}: every n-th layer; more items: 1 = MoE, 0 = dense, per layer */
        pgr_score score;
        bool pre_softmax;
        int64_t groups, group_topk; /* PGR_NIL: not given */
        double scaling;             /* NaN: not given */
        bool expert_bias;
        double capacity_factor; /* NaN: nothing is dropped */
        pgr_drop_policy drop_policy;
        bool pad_to_capacity;
        pgr_aux_loss aux_loss_type;
        double aux_loss_coeff, z_loss_coeff;
    } moe;

    struct {
        pgr_padding_rule rule;
        int64_t multiple; /* tokens; of PGR_PAD_MULTIPLE */
        bool is_function; /* the multiple came from a function in the config */
        pgr_list packed;  /* lengths of packed sequences, tokens */
    } padding;

    struct {
        pgr_list workloads; /* of pgr_workload, in the order asked for */
        pgr_names families; /* count 0 and !families_given: what the workloads use */
        bool families_given;
        int64_t warmup, iterations;
        int64_t seed;
        int64_t overlap_chunks; /* of tp_comm_overlap */
        bool tf32;
        pgr_device_kind device;
        pgr_comm_kind comm;
        double timeout, init_timeout; /* seconds without progress */
        bool share_gpu;
        struct {
            int64_t count;
            pgr_nccl_options *items; /* owned */
        } nccl;
        pgr_names collectives;
    } run;

    bool has_model, has_moe, has_experiment; /* which optional sections the config has */
} pgr_spec;

/* How a key's value is read. */
typedef enum pgr_key_type {
    PGR_KEY_SECTION,      /* a table of further keys; no storage */
    PGR_KEY_INTEGER,      /* int64_t */
    PGR_KEY_NUMBER,       /* double */
    PGR_KEY_BOOLEAN,      /* bool */
    PGR_KEY_CHOICE,       /* int, the index of the name in `choices` (stored in an enum) */
    PGR_KEY_STRING,       /* char[PGR_NAME_MAX] */
    PGR_KEY_INTEGER_LIST, /* pgr_list */
    PGR_KEY_PATTERN,      /* pgr_list: an integer, or a list of 0 and 1 */
    PGR_KEY_CHOICE_LIST,  /* pgr_list of indices into `choices` */
    PGR_KEY_NAME_LIST,    /* pgr_names */
    PGR_KEY_PADDING_RULE, /* "megatron" | a multiple | function(p) return multiple end */
    PGR_KEY_GRID,         /* pgr_grid */
    PGR_KEY_VIEWS,        /* spec.parallel.views */
    PGR_KEY_NCCL,         /* spec.run.nccl */
    PGR_KEY_FUNCTION      /* bool has_experiment; the function itself stays in Lua */
} pgr_key_type;

/* One key of the config. The table below is the only place that lists keys. */
typedef struct pgr_key {
    const char *path; /* "parallel.tp" */
    pgr_key_type type;
    size_t offset;           /* of its storage in pgr_spec */
    double minimum, maximum; /* of an integer, a number or a list's items; inclusive */
    const char *fallback;    /* the default as Lua text: "1", "\"auto\"", "nil" */
    const char *choices;     /* "a|b|c", in the order of the enum; NULL where there are none */
    const char *later;       /* NULL, or the feature, by name, that a run does not have yet */
    const char *help;        /* one line */
} pgr_key;

extern const pgr_key pgr_keys[];
extern const int pgr_key_count;

/* The key with this path, or NULL. */
const pgr_key *pgr_key_find(const char *path);

/* The name of choice `index` of `key` copied into `name` (PGR_NAME_MAX bytes); "" out of range. */
void pgr_key_choice_name(const pgr_key *key, int64_t index, char *name);

/* The index of `name` in the key's choices, or -1. */
int64_t pgr_key_choice_index(const pgr_key *key, const char *name);

/* Edits (insert, remove, replace, swap of neighbours) that make one name of another, without regard
 * to case; for "did you mean". 63 where one is longer than a name. */
int pgr_name_edits(const char *a, const char *b);

/* Sets every field to its default from the table. Any earlier content is not freed. Where memory is
 * short, run.workloads is left empty. */
void pgr_spec_init(pgr_spec *spec);

/* Frees what the spec owns and sets it to the defaults again, but for its lists, which are empty
 * (so that freeing allocates nothing). NULL is allowed. */
void pgr_spec_free(pgr_spec *spec);

/* A 64-bit digest of every field: equal specs give equal digests on every machine. Ranks compare
 * it before they open anything. */
uint64_t pgr_spec_digest(const pgr_spec *spec);

/* Whether a run has every feature that this config asks for. PGR_UNSUPPORTED names each one that is
 * not there yet, with its key. PGR_INVALID where no workload is asked for. What only groups and
 * check read (stages, layer counts, ...) is fine. */
pgr_status pgr_spec_runnable(const pgr_spec *spec, pgr_error *error);

const char *pgr_dtype_name(pgr_dtype dtype); /* "f32", "bf16", ... */
int64_t pgr_dtype_bytes(pgr_dtype dtype);    /* of one element */
const char *pgr_workload_name(int64_t workload);

/* Tokens that Megatron-Core's get_padding adds to a sequence, or (for PGR_PAD_MULTIPLE) what the
 * multiple asks for. Source: megatron/core/models/multimodal/context_parallel.py, get_padding;
 * measured answers in tests/oracles/megatron-padding.jsonl. */
typedef struct pgr_padding_args {
    pgr_padding_rule rule;
    int64_t multiple; /* tokens; of PGR_PAD_MULTIPLE */
    int64_t seq_len;  /* tokens, > 0 */
    int64_t cp, tp;
    bool sequence_parallel, tp_comm_overlap;
    int64_t decoder_seq_len; /* tokens; PGR_NIL unless tp_comm_overlap needs it */
    bool fp8;
    pgr_fp8_recipe fp8_recipe;
} pgr_padding_args;

/* The arguments that the spec's own values give; tp_comm_overlap counts where there is a
 * decoder_seq_len to pad to. */
pgr_padding_args pgr_padding_args_of(const pgr_spec *spec);

/* Sets *padding (tokens to add, >= 0). PGR_INVALID where tp_comm_overlap with sequence_parallel has
 * no decoder_seq_len or one shorter than the sequence, or a size is out of range. */
pgr_status pgr_padding(const pgr_padding_args *args, int64_t *padding, pgr_error *error);

/* Packed sequences, one after the other in one sample: each is padded to a multiple of 2 * cp (of 1
 * where cp is 1) tokens, so that each is split over cp by itself, and their sum to a multiple of
 * lcm(2 * cp, tp * cp) where sequence parallelism cuts it over tp too. What the sum lacks is
 * padding of the last sequence, so that cu_seqlens_padded covers every token; a multiple of 2 * cp
 * it stays. Source: megatron/training/datasets/sft_dataset.py of Megatron-LM, which extends the
 * last of cu_seqlens to the end of the pack. */
typedef struct pgr_packed_args {
    const int64_t *lengths; /* [sequences], tokens, each >= 1 */
    int64_t sequences;      /* >= 1 */
    int64_t cp, tp;
    bool sequence_parallel;
} pgr_packed_args;

/* cu_seqlens, cu_seqlens_padded: [sequences + 1] of the caller's, from 0 on: where each sequence
 * begins without and with padding, and the sums. *max_seqlen: the longest padded length, which is
 * what attention over cu_seqlens_padded takes. PGR_INVALID where a size is below 1, PGR_LIMIT where
 * the sum does not fit in 63 bits. */
pgr_status pgr_padding_packed(const pgr_packed_args *args, int64_t *cu_seqlens,
                              int64_t *cu_seqlens_padded, int64_t *max_seqlen, pgr_error *error);

#ifdef __cplusplus
}
#endif
#endif
