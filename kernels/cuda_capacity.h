/* cuda_capacity.h - expert capacity on a GPU: what the host decides for the launches. */
#ifndef PGR_CUDA_CAPACITY_H
#define PGR_CUDA_CAPACITY_H

#include "cuda.h"

/* The routed pairs are cut into `chunks` of `chunk` each, a warp to a chunk. Scratch:
 *   ranks     [chunks, experts] 64-bit: pairs of an expert before the chunk that compete for a
 * place digits    [experts, 256] 64-bit: how many pairs have a digit; by weight only threshold
 * [experts]: the key of the last place; by weight only places    [experts] 64-bit: places for the
 * pairs whose key is the threshold */
typedef struct cuda_capacity {
    pgr_capacity_args args;
    int64_t pairs, chunk, chunks;
    unsigned long long *ranks, *digits;
    int64_t *places;
    uint32_t *threshold;
} cuda_capacity;

#endif
