/* router.h - what every device does alike of the router: what it refuses, and the scores that
 * experts are chosen by. These take steps that every device rounds alike (fused multiply-adds,
 * sums, products by powers of two, correctly rounded reciprocals and roots), so that a CPU and a
 * GPU choose the same experts from the same logits. Private to the modules. */
#ifndef PGR_ROUTER_H
#define PGR_ROUTER_H

#include <inttypes.h>
#include <math.h>

#include "bf16.h"
#include "device.h"

/* PGR_UNSUPPORTED for a dtype, PGR_INTERNAL for sizes that no caller may give. */
static inline pgr_status pgr_router_check(const pgr_router_args *a, pgr_error *error) {
    if (a->dtype != PGR_F32 && a->dtype != PGR_BF16)
        return pgr_error_set(error, PGR_UNSUPPORTED, "router logits in %s; f32 and bf16 are there",
                             pgr_dtype_name(a->dtype));
    if (a->tokens < 0 || a->experts < 1 || a->experts > INT32_MAX || a->topk < 1 ||
        a->topk > a->experts || a->sequences < 1)
        return pgr_error_set(error, PGR_INTERNAL,
                             "a router of %" PRId64 " tokens, top %" PRId64 " of %" PRId64
                             " experts, %" PRId64 " sequences",
                             a->tokens, a->topk, a->experts, a->sequences);
    if (a->groups > 0 && a->group_topk > 0 &&
        (a->experts % a->groups != 0 || a->group_topk > a->groups))
        return pgr_error_set(error, PGR_INTERNAL,
                             "a router with the best %" PRId64 " of %" PRId64 " groups of %" PRId64
                             " experts",
                             a->group_topk, a->groups, a->experts);
    return PGR_OK;
}

PGR_BOTH float score_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

PGR_BOTH uint32_t score_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* 1 / x for normal x and 1 / x. On a GPU: the steps of its own 1.0f / x for this range, without the
 * branch for the others. */
PGR_BOTH float score_reciprocal(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return __fmaf_rn(y, __fmaf_rn(-x, y, 1.0f), y);
#else
    return 1.0f / x;
#endif
}

/* e^x for x in [-87, 88], within one unit in the last place or so; NaN for NaN. Elsewhere without
 * meaning. 2^n e^r with n = round(x / ln 2), by adding 1.5 * 2^23 + 127, whose low bits are then
 * the exponent field of 2^n; the polynomial is Cephes' expf's. */
PGR_BOTH float score_exp(float x) {
    const float magic = 12582912.0f + 127.0f;
    float shifted = fmaf(x, 1.44269504f, magic), n = shifted - magic;
    float r = fmaf(n, -0.693359375f, x);
    r = fmaf(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = fmaf(p, r, 1.3981999507e-3f);
    p = fmaf(p, r, 8.3334519073e-3f);
    p = fmaf(p, r, 4.1665795894e-2f);
    p = fmaf(p, r, 1.6666665459e-1f);
    p = fmaf(p, r, 5.0000001201e-1f);
    p = fmaf(p, r * r, r) + 1.0f;
    return p * score_float(score_bits(shifted) << 23);
}

/* e^x for x <= 0; what is below 2^-126, the smallest normal number, or so is 0. */
PGR_BOTH float score_exp_below(float x) {
    return x < -87.0f ? 0.0f : score_exp(x);
}

/* 1 / (1 + e^-x). */
PGR_BOTH float score_sigmoid(float x) {
    float e = score_exp(x > 30.0f ? -30.0f : -x); /* from 17 on the result is 1 */
    return x < -87.0f ? 0.0f : score_reciprocal(1.0f + e);
}

/* ln(1 + e), e >= 0: of u = 1 + e rounded (exponent and Cephes' logf), and what the rounding lost.
 */
PGR_BOTH float score_log1p(float e) {
    float u = 1.0f + e;
    int32_t above = (int32_t)score_bits(u) - 0x3f3504f3; /* over 1/sqrt(2) */
    float n = (float)(above >> 23);
    float f = score_float((uint32_t)((above & 0x7fffff) + 0x3f3504f3)) - 1.0f;
    float p = 7.0376836292e-2f;
    p = fmaf(p, f, -1.1514610310e-1f);
    p = fmaf(p, f, 1.1676998740e-1f);
    p = fmaf(p, f, -1.2420140846e-1f);
    p = fmaf(p, f, 1.4249322787e-1f);
    p = fmaf(p, f, -1.6668057665e-1f);
    p = fmaf(p, f, 2.0000714765e-1f);
    p = fmaf(p, f, -2.4999993993e-1f);
    p = fmaf(p, f, 3.3333331174e-1f);
    float f2 = f * f;
    p = fmaf(p * f2, f, n * -2.12194440e-4f);
    p = fmaf(f2, -0.5f, p) + f;
    p = fmaf(n, 0.693359375f, p);
    return fmaf(e - (u - 1.0f), score_reciprocal(u), p);
}

/* sqrt(softplus(x)), with PyTorch's threshold: softplus(x) = x above 20. */
PGR_BOTH float score_sqrtsoftplus(float x) {
    float below = score_log1p(x < -87.0f ? 0.0f : score_exp(x > 20.0f ? 20.0f : x));
    return sqrtf(x > 20.0f ? x : below);
}

PGR_BOTH float score_of(pgr_score score, float x) {
    return score == PGR_SIGMOID ? score_sigmoid(x) : score_sqrtsoftplus(x);
}

#endif
