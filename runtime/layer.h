/* layer.h - kernel + collective = a parallel layer: which rank holds which tokens, column- and
 * row-parallel linear layers, the MoE router, context-parallel padding and splitting. */
#ifndef PGR_LAYER_H
#define PGR_LAYER_H

#include "comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- time ---------------------------------------------------------------------------------- */

typedef enum pgr_phase { PGR_COMPUTE, PGR_COMMUNICATION, PGR_PHASES } pgr_phase;

/* Device events that cut one iteration into laps of computation and communication. They are on the
 * stream of computation: where communication runs beside it, a lap of communication is the time
 * that computation waited for it, and what is hidden behind computation is in no lap. */
typedef struct pgr_stopwatch pgr_stopwatch;

pgr_status pgr_stopwatch_create(pgr_device *device, pgr_stopwatch **stopwatch, pgr_error *error);
void pgr_stopwatch_free(pgr_stopwatch *stopwatch);

/* Starts an iteration: forgets earlier laps. */
pgr_status pgr_stopwatch_start(pgr_stopwatch *stopwatch, pgr_stream *stream, pgr_error *error);

/* Ends a lap: the time since the start or the last lap belongs to `phase`. NULL does nothing. */
pgr_status pgr_stopwatch_lap(pgr_stopwatch *stopwatch, pgr_phase phase, pgr_stream *stream,
                             pgr_error *error);

/* Seconds per phase of the iteration; the stream must be done. */
pgr_status pgr_stopwatch_read(pgr_stopwatch *stopwatch, double seconds[PGR_PHASES],
                              pgr_error *error);

/* ---- where layers run ---------------------------------------------------------------------- */

/* What every layer needs; borrowed, owned by the run. */
typedef struct pgr_site {
    pgr_job *job;
    const pgr_plan *plan;
    const pgr_groups *groups;
    pgr_device *device;
    pgr_stream *stream;       /* computation */
    pgr_event *order;         /* orders a communicator's stream after `stream`, and back */
    pgr_stopwatch *stopwatch; /* or NULL: laps are not taken */
    uint64_t seed;
} pgr_site;

/* Opens what a site owns of its device: the stream, the event and the stopwatch. */
pgr_status pgr_site_open(pgr_site *site, pgr_error *error);
void pgr_site_close(pgr_site *site);

/* Device memory of a layer or workload; `out` must be freed with pgr_site_free. */
pgr_status pgr_site_alloc(const pgr_site *site, int64_t bytes, void **out, pgr_error *error);
void pgr_site_free(const pgr_site *site, void *memory);

/* Memory that `group` communicates from or into: its communicator's own, or device memory where it
 * has none (a group of one, NULL). Free it with the same group, while that is open. */
pgr_status pgr_site_buffer_alloc(const pgr_site *site, const pgr_group *group, int64_t bytes,
                                 void **out, pgr_error *error);
void pgr_site_buffer_free(const pgr_site *site, const pgr_group *group, void *buffer);

/* Around one operation of a communicator, which runs on the communicator's stream: begin lets that
 * stream wait for the computation so far, end waits for the operation (`status` is what starting it
 * gave), lets the computation go on after it, and counts its time as communication. A profiler sees
 * a range "comm FAMILY" from one to the other. */
pgr_status pgr_site_comm_begin(const pgr_site *site, const pgr_comm *comm, pgr_error *error);
pgr_status pgr_site_comm_end(const pgr_site *site, pgr_status status, pgr_request *request,
                             pgr_error *error);

/* In place of end, where more computation is to run beside: lets what is computed from now on wait
 * for the operation. The host waits too where the backend knows no other way (MPI). The request is
 * still to be waited for. No lap. */
pgr_status pgr_site_comm_order(const pgr_site *site, pgr_request *request, pgr_error *error);

/* This rank's open group of `family`; PGR_INTERNAL where the run did not open it. */
pgr_status pgr_site_group(const pgr_site *site, const char *family, const pgr_group **group,
                          pgr_error *error);

/* ---- tokens -------------------------------------------------------------------------------- */

/* Which tokens a rank holds (DESIGN.md, "Which rank holds which tokens"). Activations are [s, b,
 * h]: local row = local position * batch + i. Micro batch m on data-parallel rank d holds samples
 * (m * dp + d) * batch + i. After padding to `padded` positions, context-parallel rank c holds
 * chunks c and 2*cp-1-c of 2*cp, concatenated; with `shares` > 1 (sequence parallel), tp rank t
 * holds the t-th contiguous share of that.
 *
 * With padding.packed a sample is that many sequences, one after the other: each is padded by
 * itself (pgr_padding_packed) and each is cut into 2*cp chunks, of which a rank holds two, sequence
 * after sequence. */
typedef struct pgr_tokens {
    int64_t seq_len, padded; /* positions of a sample, without and with padding */
    int64_t sequences;       /* packed in a sample; 0: one, not packed */
    const int64_t *lengths;  /* [sequences], tokens; the spec's */
    int64_t batch;           /* samples per micro batch */
    int64_t cp, cp_rank;
    int64_t shares, share; /* tp and its rank with sequence parallelism, else 1 and 0 */
    int64_t dp, dp_rank;
    int64_t positions; /* local: padded / cp / shares */
    int64_t rows;      /* local: positions * batch */
} pgr_tokens;

/* The map of `rank`; `scattered`: with the sequence-parallel share, where the spec has it (what
 * enters and leaves a block), else the whole context-parallel share (what a product sees).
 * PGR_INVALID where the padded length is not divisible, with the multiple that it needs. With
 * packed sequences, `tokens` borrows the spec's lengths. */
pgr_status pgr_tokens_create(const pgr_spec *spec, const pgr_plan *plan, int64_t rank,
                             bool scattered, pgr_tokens *tokens, pgr_error *error);

/* Local positions from `local_position` on that are neighbours in the sample, too: how many, at
 * least 1. *token: where the first is among the sample's seq_len tokens, or -1 where all of them
 * are padding. Runs end where a chunk, the padding or this rank's share ends. */
int64_t pgr_tokens_run(const pgr_tokens *tokens, int64_t local_position, int64_t *token);

/* The global id of the token in a local row of micro batch `m`: sample * seq_len + the token's
 * place in the sample without padding; -1 where the row is padding. Element c of the token has
 * global index id * hidden + c. */
int64_t pgr_tokens_id(const pgr_tokens *tokens, int64_t micro_batch, int64_t row);

/* The ids of all local rows, [tokens->rows]. */
void pgr_tokens_ids(const pgr_tokens *tokens, int64_t micro_batch, int64_t *ids);

/* ---- linear layers ------------------------------------------------------------------------- */

typedef enum pgr_linear_kind { PGR_COLUMN_PARALLEL, PGR_ROW_PARALLEL } pgr_linear_kind;

/* What a backward pass will need of one forward pass; NULL where none follows. The layer allocates
 * `pre_activation` at first use; pgr_saved_free releases it. */
typedef struct pgr_saved {
    const void *input; /* [rows of the product, local input]; borrowed from the layer or caller */
    void *pre_activation; /* x w^T + bias, [rows of the product, local width of w]; owned */
    int64_t bytes;        /* of pre_activation */
} pgr_saved;

void pgr_saved_free(const pgr_site *site, pgr_saved *saved);

enum { PGR_CHUNKS_MAX = 32 };

/* Weight [output, input] and bias [output] are the tensors "<name>.weight" and "<name>.bias" of the
 * generator; a column-parallel layer holds rows of both, a row-parallel one columns of the weight
 * and the whole bias. With PGR_SWIGLU `output` counts both halves, and each shard holds its slice
 * of both. Source: Shoeybi et al., "Megatron-LM", 2019; sequence parallelism: Korthikanti et al.,
 * "Reducing Activation Recomputation in Large Transformer Models", 2022. */
typedef struct pgr_linear_config {
    pgr_linear_kind kind;
    const char *name;
    int64_t input, output; /* of the unsharded layer, elements */
    bool bias;
    pgr_activation activation; /* column-parallel only */
    pgr_dtype dtype;
    bool sequence_parallel; /* all-gather before a column-parallel, reduce-scatter after a
                               row-parallel product, over tp; else all-reduce after the latter */
    int64_t rows;           /* of the product: the context-parallel share of a micro batch */
    int64_t overlap_chunks; /* with sequence_parallel and tp > 1: so many chunks (at most
                               PGR_CHUNKS_MAX, and the rows that a rank owns) are communicated
                               beside the product; 0 or 1: one after the other */
    bool tf32;              /* f32 products may be TF32 where the device has it */
} pgr_linear_config;

typedef struct pgr_linear {
    pgr_linear_config config;
    char name[PGR_NAME_MAX];
    const pgr_group *tp;
    int64_t width;    /* rows of the local weight: output, or its 1/tp */
    int64_t depth;    /* columns of the local weight: input, or its 1/tp */
    int64_t features; /* columns that forward writes: width, halved by swiglu */
    int32_t exponent; /* of the weight's random values */
    void *weight;     /* [width, depth] */
    void *bias;       /* [width] (row-parallel: [output]) or NULL */
    void *gathered;   /* column-parallel with sequence parallelism: [rows, input] */
    void *partial;    /* row-parallel with tp > 1: [rows, output] */
    int64_t chunks;   /* that forward works in; 1: the plain order */
    void *chunked;    /* column-parallel with chunks > 1: [rows, input], chunk after chunk */
    bool tf32;        /* its products may be TF32 */
} pgr_linear;

/* Chunk `index` of layer->chunks: rows [begin, begin + rows) of the share of every rank of tp, so
 * that each rank owns the same rows as in the plain order. Chunks differ by one row at most. In
 * `chunked` (and in `partial`, in a forward pass with chunks) it lies at row tp * begin, as
 * [tp][rows]. */
typedef struct pgr_chunk {
    int64_t begin, rows;
} pgr_chunk;

pgr_chunk pgr_linear_chunk(const pgr_linear *layer, int64_t index);

/* Not collective. PGR_INVALID where tp does not divide the sharded dimension. */
pgr_status pgr_linear_create(const pgr_site *site, const pgr_linear_config *config,
                             pgr_linear **layer, pgr_error *error);
void pgr_linear_free(const pgr_site *site, pgr_linear *layer);

/* Collective over tp. x: [rows / tp or rows, depth]; y: column-parallel [rows, features],
 * row-parallel [rows / tp or rows, output]; y is complete in the site's stream on return. `saved`
 * may be NULL. */
pgr_status pgr_linear_forward(const pgr_site *site, pgr_linear *layer, const void *x, void *y,
                              pgr_saved *saved, pgr_error *error);

/* The same in the plain order, whatever layer->chunks is: what the other is compared with. */
pgr_status pgr_linear_forward_plain(const pgr_site *site, pgr_linear *layer, const void *x, void *y,
                                    pgr_saved *saved, pgr_error *error);

/* Fills the layer's own buffers with NaN, so that stale values cannot pass for results. */
pgr_status pgr_linear_poison(const pgr_site *site, pgr_linear *layer, pgr_error *error);

/* log2 of the bound of random weights for `depth` inputs bounded by 1: the power of two nearest to
 * sqrt(3 / depth), which makes outputs as large as inputs and biases. */
int32_t pgr_weight_exponent(int64_t depth);

/* ---- router -------------------------------------------------------------------------------- */

typedef struct pgr_router_config {
    const char *name;
    int64_t hidden, experts, topk;
    pgr_score score;
    bool pre_softmax;
    int64_t groups, group_topk; /* PGR_NIL: none */
    double scaling;             /* NaN: none */
    bool expert_bias;           /* not with PGR_SOFTMAX */
    pgr_aux_loss aux_loss_type;
    double aux_loss_coeff, z_loss_coeff;
    double capacity_factor; /* NaN: nothing is dropped */
    pgr_drop_policy drop_policy;
    pgr_dtype dtype; /* of x and the weight; logits are f32 */
    bool sequence_parallel;
    int64_t rows, batch; /* local rows of a micro batch, samples in it */
} pgr_router_config;

typedef struct pgr_router {
    pgr_router_config config;
    char name[PGR_NAME_MAX];
    const pgr_group *loss_group; /* over which the losses are summed */
    int64_t sequences;           /* that the auxiliary sums are kept apart for */
    int32_t exponent;
    void *weight;       /* [experts, hidden] */
    float *expert_bias; /* [experts], or NULL */
    float *logits, *weights;
    int32_t *indices;
    uint8_t *kept; /* NULL without a capacity */
    int64_t *tokens_per_expert, *aux_counts;
    double *aux_score_sums, *z_sum;
    int64_t *reduced_counts; /* [sequences, experts], over the loss group */
    double *totals;          /* [3]: aux loss, z sum and tokens, over the loss group */
} pgr_router;

/* The result of one routing; the arrays are the router's, in device memory. */
typedef struct pgr_routing {
    int64_t tokens; /* that are no padding, on this rank */
    int64_t capacity;
    double aux_loss, z_loss; /* over the loss group */
} pgr_routing;

/* The family whose ranks' tokens the losses count, each token once: tp-cp (tp-dp-cp for
 * global_aux_loss) with sequence parallelism, and cp (dp-cp) without, where tp ranks hold copies.
 */
const char *pgr_router_loss_family(pgr_aux_loss type, bool sequence_parallel);

/* ceil(tokens * topk / experts * capacity_factor): Megatron-Core's get_capacity. */
int64_t pgr_router_capacity(int64_t tokens, int64_t topk, int64_t experts, double factor);

/* log2 of the bound of the expert bias's random values, the tensor "<name>.expert_bias" of f32:
 * about the distance between the scores of the chosen and the next experts, so that it changes some
 * choices and not all. */
enum { PGR_EXPERT_BIAS_EXPONENT = -3 };

/* The weight is the tensor "<name>.weight" of the generator. Not collective. */
pgr_status pgr_router_create(const pgr_site *site, const pgr_router_config *config,
                             pgr_router **router, pgr_error *error);
void pgr_router_free(const pgr_site *site, pgr_router *router);

/* Collective over the loss group. x [rows, hidden]; valid [rows] (device memory), 0 marks padding.
 * `saved` keeps the input for a backward pass, which finds the rest (logits, indices, weights) in
 * the router; may be NULL. */
pgr_status pgr_router_forward(const pgr_site *site, pgr_router *router, const void *x,
                              const uint8_t *valid, pgr_saved *saved, pgr_routing *routing,
                              pgr_error *error);
pgr_status pgr_router_poison(const pgr_site *site, pgr_router *router, pgr_error *error);

/* ---- context ------------------------------------------------------------------------------- */

/* Pads and splits whole samples, of one sequence or of packed ones, over cp (and tp, with sequence
 * parallelism), and gathers them back. One position is a row of batch * hidden elements. */
typedef struct pgr_context {
    pgr_tokens tokens; /* this rank's scattered share */
    int64_t row_bytes;
    pgr_dtype dtype;
    const pgr_group *tp, *cp; /* tp is NULL without sequence parallelism */
    void *share;              /* [padded / cp] rows: gathered over tp */
    void *chunks;             /* [cp][padded / cp] rows: gathered over cp */
    int64_t *cu_seqlens; /* device memory, [tokens.sequences + 1] without padding, then as many */
                         /* with it (pgr_padding_packed); NULL where not packed */
} pgr_context;

pgr_status pgr_context_create(const pgr_site *site, const pgr_tokens *tokens, int64_t hidden,
                              pgr_dtype dtype, bool sequence_parallel, pgr_context **context,
                              pgr_error *error);
void pgr_context_free(const pgr_site *site, pgr_context *context);

/* full: [seq_len] rows; local: [positions] rows. Not collective. */
pgr_status pgr_context_split(const pgr_site *site, pgr_context *context, const void *full,
                             void *local, pgr_error *error);

/* The inverse; collective over tp (with sequence parallelism) and cp. */
pgr_status pgr_context_gather(const pgr_site *site, pgr_context *context, const void *local,
                              void *full, pgr_error *error);
pgr_status pgr_context_poison(const pgr_site *site, pgr_context *context, pgr_error *error);

#ifdef __cplusplus
}
#endif
#endif
