/* device.h - the seam between layers and a device: memory, streams, events, and kernels as
 * functions over argument structs. The CPU module implements it with plain C and OpenBLAS, the
 * CUDA module with cuBLASLt and CUDA C. Communication is not its business.
 *
 * Shapes are row-major, the last index fastest. A kernel is enqueued on its stream and may return
 * before it is done; on a CPU it is done when it returns. What a device cannot do is
 * PGR_UNSUPPORTED, never a null pointer. */
#ifndef PGR_DEVICE_H
#define PGR_DEVICE_H

#include "spec.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pgr_device_ops pgr_device_ops;
typedef struct pgr_stream pgr_stream; /* opaque; an in-order queue of one device */
typedef struct pgr_event pgr_event;   /* opaque; a point in a stream, with a time */

/* An open device. A backend's own struct starts with this one. */
typedef struct pgr_device {
    const pgr_device_ops *ops;
    char name[128];    /* for people: "cpu: Intel(R) Xeon(R), 1 thread" */
    const char *kind;  /* "cpu", "cuda": what the report's `device` says */
    char identity[64]; /* what tells two devices apart: host and index, or a GPU's UUID */
    int32_t threads;   /* CPU threads that products may use */
    bool tf32;         /* pgr_linear_args.tf32 is heard; else f32 is f32 */
} pgr_device;

typedef struct pgr_device_open_args {
    int32_t local_rank, local_size; /* this rank among the ranks of its host */
    int32_t threads;                /* CPU threads per rank; 0: cores of the rank / local_size */
    int64_t rank;                   /* of the job, and */
    const char *host;               /* its host, for messages; NULL where there is no name */
} pgr_device_open_args;

/* ---- values -------------------------------------------------------------------------------- */

/* A named tensor of random values. Element `index` (64-bit, global: of the unsharded tensor) has
 * the value that Philox4x32-10 gives at counter (index / 4, tensor), key (seed), word index % 4: an
 * integer u, mapped to ((int32_t)(u >> 8) - 2^23) * 2^(exponent - 23), in [-2^exponent,
 * 2^exponent); then rounded to the dtype. Source: Salmon et al., "Parallel Random Numbers: As Easy
 * as 1, 2, 3", SC 2011. See random.h for the host function. */
typedef struct pgr_random {
    uint64_t seed;
    uint64_t tensor;  /* pgr_random_tensor(name) */
    int32_t exponent; /* log2 of the bound of the values */
} pgr_random;

/* Fills a [rows, cols] slice (row stride `ld` elements) of a random tensor. Element (r, c) has
 * global index origin + R * row_stride + c, with R = row_ids ? row_ids[r] : r. A row whose id is
 * negative is padding and becomes zero. */
typedef struct pgr_fill_args {
    void *out;
    pgr_dtype dtype; /* PGR_F32 or PGR_BF16 */
    int64_t rows, cols, ld;
    pgr_random random;
    int64_t origin, row_stride;
    const int64_t *row_ids; /* [rows], device memory; NULL: 0, 1, 2, ... */
} pgr_fill_args;

/* y = act(x * w^T + bias), accumulated in f32. x [m, k], w [n, k] (as Megatron stores it: [out,
 * in]), bias [n] or NULL, y [m, n] or, for PGR_SWIGLU, [m, n/2]: rows 0 .. n/2-1 of w give the gate
 * g, the others the value u, and y = silu(g) * u. PGR_GELU is the tanh approximation that
 * Megatron's fused bias-GELU and cuBLASLt's epilogue use (Hendrycks & Gimpel 2016): 0.5 z (1 +
 * tanh(sqrt(2/pi) (z + 0.044715 z^3))). `saved` (may be NULL) receives z = x w^T + bias, [m, n] in
 * `dtype`, for a backward pass.
 *
 * With `batch` > 1 the same is done for so many blocks of m rows, which share w and bias: block b
 * begins b * stride_x elements after the first in x, b * stride_y in y and b * stride_saved in
 * saved. Blocks of y do not overlap, nor do those of saved. */
typedef struct pgr_linear_args {
    const void *x, *w, *bias;
    void *y, *saved;
    int64_t m, n, k;
    int64_t ldx, ldw, ldy; /* row strides, elements */
    pgr_dtype dtype;       /* of x, w, bias and saved: PGR_F32 or PGR_BF16 */
    pgr_dtype y_dtype;     /* of y: the same, or PGR_F32 */
    pgr_activation activation;
    int64_t batch; /* 0 and 1: one block */
    int64_t stride_x, stride_y, stride_saved;
    int32_t
        free_units; /* SMs to leave to what communicates beside; a CPU has none and ignores it */
    bool tf32; /* f32 operands may be cut to TF32 (10 bits of mantissa) where pgr_device.tf32 */
} pgr_linear_args;

/* y[r, c] += bias[c], in place. */
typedef struct pgr_bias_args {
    void *y;
    const void *bias;
    int64_t rows, cols, ld;
    pgr_dtype dtype;
} pgr_bias_args;

/* Context-parallel padding and zig-zag split of a sequence of rows (one row: all of a position's
 * bytes). The sequence of `seq_len` rows is padded with zero rows to `padded` = a multiple of 2*cp;
 * rank c of cp holds chunks c and 2*cp-1-c of 2*cp, concatenated: padded/cp local rows, of which
 * this call handles [local_begin, local_begin + local_rows) (a tensor-parallel rank's share).
 * cp = 1 holds everything in order: then split is pad, and gather is unpad.
 *   split:  src [seq_len] rows -> dst [local_rows] rows
 *   gather: src [cp][padded/cp] rows in cp-rank order -> dst [seq_len] rows (padding dropped);
 *           local_begin, local_rows and cp_rank are ignored.
 * src and dst do not overlap.
 *
 * With `sequences` > 0 the rows are those of packed sequences, one after the other: sequence j has
 * rows [cu_seqlens[j], cu_seqlens[j+1]) of seq_len = cu_seqlens[sequences], is padded to rows
 * [cu_padded[j], cu_padded[j+1]) of padded = cu_padded[sequences], and each is split by itself:
 * rank c holds chunks c and 2*cp-1-c of sequence 0, then of sequence 1, and so on. Every padded
 * length is a multiple of 2*cp, which the caller sees to (pgr_padding_packed): a GPU's host does
 * not read the arrays. Source: thd_partition_indices_kernel in transformer_engine/common/
 * fused_attn/context_parallel.cu of TransformerEngine. */
typedef struct pgr_context_args {
    const void *src;
    void *dst;
    int64_t row_bytes, seq_len, padded, cp, cp_rank, local_begin, local_rows;
    int64_t sequences; /* 0: one, not packed */
    /* [sequences + 1], device memory, from 0 ascending; NULL where not packed */
    const int64_t *cu_seqlens, *cu_padded;
} pgr_context_args;

enum { PGR_CUDA_EXPERTS_MAX = 1024 }; /* of a router on CUDA; PGR_UNSUPPORTED above */

/* Routes tokens to experts. For token t with logits l[e] (f32 or bf16, read as f32):
 *   softmax, pre_softmax:  p = softmax(l); select top-k of p; weight = p (not renormalised)
 *   softmax, else:         select top-k of l; weight = softmax over the selected logits
 *   sigmoid, sqrtsoftplus: s = sigmoid(l) | sqrt(softplus(l)); select top-k of s + expert_bias;
 *                          weight = s / sum of selected s (k > 1)
 * then weight *= scaling (if not NaN). With groups, the experts form `groups` equal groups of which
 * the `group_topk` best take part. Ties go to the lowest expert; NaN ranks highest; softmax selects
 * on logits, which it does not reorder. Rows whose `valid` is 0 are padding: indices -1, weights 0,
 * counted nowhere. Source: megatron/core/transformer/moe/moe_utils.py,
 * topk_routing_with_score_function.
 *
 * The auxiliary loss's sums use an unbiased, ungrouped top-k over normalised scores (softmax over
 * all experts; s / sum s otherwise), per sequence: token t belongs to sequence t % sequences. */
typedef struct pgr_router_args {
    const void *logits; /* [tokens, experts] */
    pgr_dtype dtype;
    const float *expert_bias; /* [experts] or NULL */
    const uint8_t *valid;     /* [tokens] or NULL: all are valid */
    int64_t tokens, experts, topk;
    pgr_score score;
    bool pre_softmax;
    int64_t groups, group_topk; /* 0 or PGR_NIL: none */
    double scaling;
    int64_t sequences;          /* >= 1 */
    int32_t *indices;           /* [tokens, topk], ascending within a token */
    float *weights;             /* [tokens, topk] */
    int64_t *tokens_per_expert; /* [experts], of the routing that is used, before dropping */
    int64_t *aux_counts;        /* [sequences, experts] or NULL */
    double *aux_score_sums;     /* [sequences, experts] or NULL: sums of normalised scores */
    double *z_sum;              /* [1] or NULL: sum over valid tokens of logsumexp(l)^2 */
} pgr_router_args;

/* Marks which of the routed (token, choice) pairs stay where each expert takes at most `capacity`
 * tokens: by highest weight (ties: the lowest token) or by position. */
typedef struct pgr_capacity_args {
    const int32_t *indices; /* [tokens, topk]; -1 is padding */
    const float *weights;   /* [tokens, topk] */
    int64_t tokens, topk, experts, capacity;
    pgr_drop_policy policy;
    uint8_t *kept; /* [tokens, topk] */
} pgr_capacity_args;

/* ---- operations ---------------------------------------------------------------------------- */

typedef enum pgr_memory {
    PGR_MEMORY_DEVICE, /* what kernels read and write */
    PGR_MEMORY_PINNED  /* host memory that the device copies to and from at full speed */
} pgr_memory;

/* The table a device module fills. Every function is set. Allocation never returns NULL with
 * PGR_OK; memory is aligned to 64 bytes at least and not cleared. */
struct pgr_device_ops {
    const char *kind; /* "cpu", "cuda" */
    pgr_status (*open)(const pgr_device_open_args *args, pgr_device **device, pgr_error *error);
    void (*close)(pgr_device *device);

    pgr_status (*alloc)(pgr_device *device, pgr_memory memory, int64_t bytes, void **out,
                        pgr_error *error);
    void (*free)(pgr_device *device, pgr_memory memory, void *memory_to_free);
    /* bytes that are free on the device, for whoever asks first; PGR_UNSUPPORTED on a CPU */
    pgr_status (*memory_left)(pgr_device *device, int64_t *bytes, pgr_error *error);
    pgr_status (*copy)(pgr_device *device, void *dst, const void *src, int64_t bytes,
                       pgr_stream *stream, pgr_error *error); /* any side may be host memory */
    pgr_status (*set)(pgr_device *device, void *dst, uint8_t byte, int64_t bytes,
                      pgr_stream *stream, pgr_error *error);

    /* priority 0 is the default, higher runs first */
    pgr_status (*stream_create)(pgr_device *device, int32_t priority, pgr_stream **stream,
                                pgr_error *error);
    void (*stream_free)(pgr_device *device, pgr_stream *stream);
    pgr_status (*stream_sync)(pgr_device *device, pgr_stream *stream, pgr_error *error);
    pgr_status (*stream_wait)(pgr_device *device, pgr_stream *stream, pgr_event *event,
                              pgr_error *error);

    pgr_status (*event_create)(pgr_device *device, pgr_event **event, pgr_error *error);
    void (*event_free)(pgr_device *device, pgr_event *event);
    pgr_status (*event_record)(pgr_device *device, pgr_event *event, pgr_stream *stream,
                               pgr_error *error);
    pgr_status (*event_query)(pgr_device *device, pgr_event *event, bool *done, pgr_error *error);
    /* seconds from `begin` to `end`, both done */
    pgr_status (*event_elapsed)(pgr_device *device, pgr_event *begin, pgr_event *end,
                                double *seconds, pgr_error *error);

    /* A named range of the host's time, for a profiler's picture; ranges nest, in each thread by
     * itself. `name` is copied. Nothing where no profiler listens; neither can fail. */
    void (*range_begin)(pgr_device *device, const char *name);
    void (*range_end)(pgr_device *device);

    pgr_status (*fill)(pgr_device *, const pgr_fill_args *, pgr_stream *, pgr_error *);
    pgr_status (*linear)(pgr_device *, const pgr_linear_args *, pgr_stream *, pgr_error *);
    pgr_status (*add_bias)(pgr_device *, const pgr_bias_args *, pgr_stream *, pgr_error *);
    pgr_status (*context_split)(pgr_device *, const pgr_context_args *, pgr_stream *, pgr_error *);
    pgr_status (*context_gather)(pgr_device *, const pgr_context_args *, pgr_stream *, pgr_error *);
    pgr_status (*router)(pgr_device *, const pgr_router_args *, pgr_stream *, pgr_error *);
    pgr_status (*capacity)(pgr_device *, const pgr_capacity_args *, pgr_stream *, pgr_error *);
};

#ifdef __cplusplus
}
#endif
#endif
