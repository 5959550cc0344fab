/* verify_routing.h - what the router has to decide about a token, from its logits, in double
 * precision. Private to the workloads. */
#ifndef PGR_VERIFY_ROUTING_H
#define PGR_VERIFY_ROUTING_H

#include "layer.h"

/* The reference for one token at a time, and its scratch. Scores that are not softmax, sums of
 * scores (groups) and biased scores are rounded on a device, so two experts, or two groups, that
 * are closer than these roundings may come in either order; everything else has one answer. */
typedef struct pgr_routing_reference {
    const pgr_router_config *config; /* borrowed */
    float *expert_bias;              /* [experts], or NULL: none */
    const float *logits;             /* of the token that was read; borrowed */
    double *score, *rank, *value;    /* [experts]: see pgr_routing_reference_read */
    int64_t *best;                   /* [1 + the larger of experts and groups] */
    uint8_t *allowed, *group_open;   /* [experts], [groups] */
    double log_sum_exp;              /* of the logits */
    double score_sum;                /* that normalises the scores; softmax: 1 */
    double most_score, most_rank;    /* the largest sizes: the scale of roundings */
} pgr_routing_reference;

/* `expert_bias` ([experts], as rounded to f32; NULL: none) is copied, `config` must stay. */
pgr_status pgr_routing_reference_create(const pgr_router_config *config, const float *expert_bias,
                                        pgr_routing_reference *reference, pgr_error *error);
void pgr_routing_reference_free(pgr_routing_reference *reference);

/* Reads a token's logits [experts], which must stay: `score` becomes softmax over all experts or
 * the score function, `rank` what the choice goes by: the logits for softmax, else score + bias. */
void pgr_routing_reference_read(pgr_routing_reference *reference, const float *logits);

/* How many of the token's `indices` [topk] are not what they have to be; 0: right. */
int64_t pgr_routing_reference_wrong(pgr_routing_reference *reference, const int32_t *indices);

/* The weights [topk] of `indices`. */
void pgr_routing_reference_weigh(const pgr_routing_reference *reference, const int32_t *indices,
                                 double *weights);

/* The token in the auxiliary loss's own top-k (unbiased, ungrouped): adds 1 to least[e] for each
 * expert that is surely in it, and to most[e] where it may be; both [experts]. */
void pgr_routing_reference_count(pgr_routing_reference *reference, int64_t *least, int64_t *most);

#endif
