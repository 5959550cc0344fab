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

/* x with its magnitude limited to `limit` > 0; NaN becomes +-limit. In integers, because gcc turns
 * comparisons with float constants into branches that do not vectorise well. */
PGR_INLINE float vec_limit(float x, float limit) {
    int32_t sign = vec_bits(x) & INT32_MIN, size = vec_bits(x) & INT32_MAX, most = vec_bits(limit);
    return vec_float(sign | (size < most ? size : most));
}

/* 2^x for |x| <= 126, within 2 units in the last place: 2^n 2^r with n = round(x), by adding and
 * subtracting 1.5 * 2^23, and a polynomial for 2^r (the coefficients of Cephes' exp2f). */
PGR_INLINE float vec_exp2(float x) {
    const float magic = 12582912.0f;
    float shifted = x + magic;
    float r = x - (shifted - magic);
    float p = 1.535336188e-4f;
    p = p * r + 1.339887440e-3f;
    p = p * r + 9.618437357e-3f;
    p = p * r + 5.550332471e-2f;
    p = p * r + 2.402264791e-1f;
    p = p * r + 6.931472028e-1f;
    p = p * r + 1.0f;
    uint32_t exponent = (uint32_t)vec_bits(shifted) << 23;
    return vec_float((int32_t)((uint32_t)vec_bits(p) + exponent));
}

/* ln x for normal x > 0: exponent and a mantissa in [1/sqrt(2), sqrt(2)), and Cephes' polynomial.
 */
PGR_INLINE float vec_log(float x) {
    int32_t biased = vec_bits(x) - 0x3f3504f3; /* 1/sqrt(2) */
    float n = (float)(biased >> 23);
    float f = vec_float((biased & 0x7fffff) + 0x3f3504f3) - 1.0f;
    float p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    float f2 = f * f;
    return p * f2 * f - 0.5f * f2 + f + n * 0.693147181f;
}

#endif
