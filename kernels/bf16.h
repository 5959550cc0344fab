/* bf16.h - bfloat16 as the upper half of an IEEE float; round to nearest, ties to even; NaN stays
 * NaN. Inline, so that loops over it vectorise. */
#ifndef PGR_BF16_H
#define PGR_BF16_H

#include <stdint.h>
#include <string.h>

/* nvcc compiles these for the GPU too. */
#ifdef __CUDACC__
#define PGR_BOTH __host__ __device__ static inline
#else
#define PGR_BOTH static inline
#endif

typedef uint16_t pgr_bf16;

PGR_BOTH float pgr_bf16_to_f32(pgr_bf16 value) {
    uint32_t bits = (uint32_t)value << 16;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

PGR_BOTH pgr_bf16 pgr_bf16_from_f32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t quiet_nan = (bits >> 16) | 0x40u;
    return (pgr_bf16)((bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded);
}

#endif
