/* vec.h - elementary functions without branches or calls, so that loops over them vectorise. */
#ifndef PGR_VEC_H
#define PGR_VEC_H

#include <stdint.h>
#include <string.h>

#include "cpu.h"

PGR_INLINE float vec_float(int32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

PGR_INLINE int32_t vec_bits(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* e^x, within 2 units in the last place on [-87.3, 88.3] and clamped to that range outside; NaN
 * stays NaN. x = n ln 2 + r with |r| <= ln 2 / 2 (Cody & Waite's split of ln 2), a polynomial of
 * degree 6 for e^r (the coefficients of Cephes' expf), and 2^n added to the exponent's bits. */
PGR_INLINE float vec_exp(float x) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float c = x < -87.3f ? -87.3f : x;
    c = c > 88.3f ? 88.3f : c;
    float shifted = c * 1.44269504f + magic;
    float n = shifted - magic;
    float r = c - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    /* as unsigned: NaN's bits may overflow, and stay some NaN's or are replaced below */
    uint32_t exponent = (uint32_t)vec_bits(shifted) << 23;
    float e = vec_float((int32_t)((uint32_t)vec_bits(p) + exponent));
    return x != x ? x : e;
}

#endif
