/* The router and the capacity kernel against the obvious form in double precision: every topk, odd
 * numbers of experts, ties, NaN, infinities, padding, several sequences. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bf16.h"
#include "comm.h"
#include "random.h"

extern const pgr_module cpu_module __asm__("pgr_module");

static pgr_device *device;
static pgr_error error;

/* Whether a ranks before b: NaN highest, then the larger, then the lower expert. */
static bool before(const float *l, int64_t a, int64_t b) {
    bool na = isnan(l[a]), nb = isnan(l[b]);
    if (na != nb)
        return na;
    return (na || l[a] == l[b]) ? a < b : l[a] > l[b];
}

/* Softmax routing of one token, as plainly as can be. */
static void route_token(const float *l, int64_t experts, int64_t topk, bool pre, int32_t *picks,
                        double *weights, double *scores, double *z) {
    int64_t count = 0;
    for (int64_t e = 0; e < experts; e++) {
        int64_t ahead = 0;
        for (int64_t other = 0; other < experts; other++)
            ahead += other != e && before(l, other, e);
        if (ahead < topk)
            picks[count++] = (int32_t)e;
    }
    assert_int_equal(count, topk);
    double max = -INFINITY, sum = 0, chosen = 0;
    for (int64_t e = 0; e < experts; e++)
        max = l[e] > max ? l[e] : max;
    for (int64_t e = 0; e < experts; e++)
        sum += exp(l[e] - max);
    for (int64_t e = 0; e < experts; e++)
        scores[e] = exp(l[e] - max) / sum;
    for (int64_t j = 0; j < topk; j++)
        chosen += scores[picks[j]];
    for (int64_t j = 0; j < topk; j++)
        weights[j] = scores[picks[j]] / (pre ? 1 : chosen);
    *z = (max + log(sum)) * (max + log(sum));
}

typedef struct shape {
    int64_t tokens, experts, topk, sequences;
    pgr_dtype dtype;
    bool pre, valid, coarse; /* coarse: few distinct logits, so many ties */
} shape;

static void *array(int64_t count, size_t bytes) {
    void *out = malloc((size_t)count * bytes + 1);
    assert_non_null(out);
    memset(out, 0xcd, (size_t)count * bytes);
    return out;
}

static bool close_to(double got, double want) {
    return fabs(got - want) <= 3e-6 * (fabs(want) + 1e-3);
}

static void check_router(const shape *s) {
    int64_t n = s->tokens * s->experts, k = s->topk;
    float *logits = array(n, 4);
    pgr_bf16 *narrow = array(n, 2);
    uint8_t *valid = array(s->tokens, 1);
    pgr_random random = {3, pgr_random_tensor("logits"), 2};
    for (int64_t i = 0; i < n; i++) {
        logits[i] = pgr_random_value(&random, i, s->dtype);
        if (s->coarse)
            logits[i] = roundf(logits[i]) == 0 ? -0.0f + 0.0f * (float)(i % 2) : roundf(logits[i]);
        narrow[i] = pgr_bf16_from_f32(logits[i]);
    }
    for (int64_t t = 0; t < s->tokens; t++)
        valid[t] = t % 5 != 3;
    double z_sum = -1, want_z = 0;
    int64_t cells = s->sequences * s->experts;
    pgr_router_args a = {.logits = s->dtype == PGR_F32 ? (void *)logits : (void *)narrow,
                         .dtype = s->dtype,
                         .valid = s->valid ? valid : NULL,
                         .tokens = s->tokens,
                         .experts = s->experts,
                         .topk = k,
                         .pre_softmax = s->pre,
                         .scaling = NAN,
                         .sequences = s->sequences,
                         .indices = array(s->tokens * k, 4),
                         .weights = array(s->tokens * k, 4),
                         .tokens_per_expert = array(s->experts, 8),
                         .aux_counts = array(cells, 8),
                         .aux_score_sums = array(cells, 8),
                         .z_sum = &z_sum};
    assert_int_equal(device->ops->router(device, &a, NULL, &error), PGR_OK);
    int64_t *counts = calloc((size_t)cells, 8), *total = calloc((size_t)s->experts, 8);
    double *sums = calloc((size_t)cells, 8), *scores = array(s->experts, 8), *weights = array(k, 8);
    int32_t *picks = array(k, 4);
    for (int64_t t = 0; t < s->tokens; t++) {
        if (s->valid && !valid[t]) {
            for (int64_t j = 0; j < k; j++)
                assert_true(a.indices[t * k + j] == -1 && a.weights[t * k + j] == 0);
            continue;
        }
        double z;
        route_token(logits + t * s->experts, s->experts, k, s->pre, picks, weights, scores, &z);
        want_z += z;
        for (int64_t j = 0; j < k; j++) {
            assert_int_equal(a.indices[t * k + j], picks[j]);
            assert_true(close_to(a.weights[t * k + j], weights[j]));
            counts[t % s->sequences * s->experts + picks[j]]++;
            total[picks[j]]++;
        }
        for (int64_t e = 0; e < s->experts; e++)
            sums[t % s->sequences * s->experts + e] += scores[e];
    }
    assert_memory_equal(a.aux_counts, counts, (size_t)cells * 8);
    assert_memory_equal(a.tokens_per_expert, total, (size_t)s->experts * 8);
    for (int64_t i = 0; i < cells; i++)
        assert_true(close_to(a.aux_score_sums[i], sums[i]));
    assert_true(close_to(z_sum, want_z));

    int32_t *same = array(s->tokens * k, 4); /* without the losses' sums: the same choice */
    memcpy(same, a.indices, (size_t)(s->tokens * k) * 4);
    pgr_router_args bare = a;
    bare.aux_counts = NULL, bare.aux_score_sums = NULL, bare.z_sum = NULL;
    assert_int_equal(device->ops->router(device, &bare, NULL, &error), PGR_OK);
    assert_memory_equal(a.indices, same, (size_t)(s->tokens * k) * 4);
    assert_memory_equal(a.tokens_per_expert, total, (size_t)s->experts * 8);
    void *all[] = {logits,       narrow,
                   valid,        a.indices,
                   a.weights,    a.tokens_per_expert,
                   a.aux_counts, a.aux_score_sums,
                   counts,       total,
                   sums,         scores,
                   weights,      picks,
                   same};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void test_every_topk(void **state) {
    (void)state;
    static const int64_t experts[] = {1, 2, 3, 8, 13, 31, 32, 33, 60, 64, 65, 100};
    for (size_t i = 0; i < sizeof experts / sizeof *experts; i++)
        for (int64_t k = 1; k <= experts[i] && k <= 12; k++)
            for (int form = 0; form < 8; form++)
                check_router(&(shape){17, experts[i], k, 1, form & 1 ? PGR_BF16 : PGR_F32, form & 2,
                                      form & 4, false});
}

static void test_ties(void **state) {
    (void)state;
    for (int64_t k = 1; k <= 9; k++)
        for (int64_t e = k; e <= 80; e += 7)
            for (int narrow = 0; narrow < 2; narrow++)
                check_router(
                    &(shape){33, e, k, 1, narrow ? PGR_BF16 : PGR_F32, k % 2, false, true});
}

static void test_sequences(void **state) {
    (void)state;
    for (int64_t sequences = 1; sequences <= 9; sequences++)
        check_router(&(shape){70, 24, 3, sequences, PGR_F32, true, true, false});
}

static void test_sizes(void **state) {
    (void)state;
    check_router(&(shape){0, 8, 2, 1, PGR_F32, true, false, false});
    check_router(&(shape){1, 256, 8, 1, PGR_F32, false, false, false});
    check_router(&(shape){2000, 16, 2, 2, PGR_F32, false, true, false}); /* sums are flushed */
    check_router(&(shape){20, 384, 8, 1, PGR_BF16, false, true, false});
    check_router(&(shape){20, 1100, 8, 1, PGR_F32, true, false, false});
    check_router(&(shape){20, 12, 12, 1, PGR_F32, true, false, false});
}

/* Indices of one odd token among ordinary ones. */
static void check_odd(const float *odd, int64_t experts, int64_t topk, const int32_t *want) {
    enum { TOKENS = 20, PLACE = 6 };
    float *logits = calloc((size_t)(TOKENS * experts), 4);
    assert_non_null(logits);
    for (int64_t i = 0; i < TOKENS * experts; i++)
        logits[i] = (float)(i % experts);
    memcpy(logits + PLACE * experts, odd, (size_t)experts * 4);
    int32_t indices[TOKENS * 8];
    float weights[TOKENS * 8];
    int64_t counts[64];
    pgr_router_args a = {.logits = logits,
                         .tokens = TOKENS,
                         .experts = experts,
                         .topk = topk,
                         .scaling = NAN,
                         .sequences = 1,
                         .indices = indices,
                         .weights = weights,
                         .tokens_per_expert = counts};
    assert_int_equal(device->ops->router(device, &a, NULL, &error), PGR_OK);
    assert_memory_equal(indices + PLACE * topk, want, (size_t)topk * 4);
    for (int64_t j = 0; j < topk; j++) /* its neighbours are not touched */
        assert_int_equal(indices[(PLACE + 1) * topk + j], experts - topk + j);
    free(logits);
}

static void test_not_finite(void **state) {
    (void)state;
    check_odd((float[]){1, NAN, 3, NAN, 9, 0, 0, 0}, 8, 2, (int32_t[]){1, 3});
    check_odd((float[]){1, NAN, 3, 2, 9, 0, 0, 0}, 8, 2, (int32_t[]){1, 4});
    check_odd((float[]){NAN, NAN, NAN, NAN}, 4, 3, (int32_t[]){0, 1, 2});
    check_odd((float[]){1, INFINITY, -NAN, 7}, 4, 2, (int32_t[]){1, 2});
    check_odd((float[]){-INFINITY, 2, -INFINITY, 1}, 4, 3, (int32_t[]){0, 1, 3});
    check_odd((float[]){-INFINITY, -INFINITY, -INFINITY, -INFINITY}, 4, 2, (int32_t[]){0, 1});
    check_odd((float[]){-0.0f, 0.0f, -0.0f, 0.0f}, 4, 2, (int32_t[]){0, 1});
    check_odd((float[]){3e38f, -3e38f, 3e38f, 1}, 4, 2, (int32_t[]){0, 2});
}

static void test_capacity(void **state) {
    (void)state;
    /* expert 0 is chosen by tokens 0, 1, 2, 4; token 3 is padding; 1 and 2 tie */
    static const int32_t indices[] = {0, 1, 0, 2, 0, 1, -1, -1, 0, 3};
    static const float weights[] = {.2f, .8f, .5f, .5f, .5f, .5f, 0, 0, .9f, .1f};
    uint8_t kept[10];
    pgr_capacity_args a = {indices, weights, 5, 2, 4, 2, PGR_DROP_PROBS, kept};
    assert_int_equal(device->ops->capacity(device, &a, NULL, &error), PGR_OK);
    assert_memory_equal(kept, ((uint8_t[]){0, 1, 1, 1, 0, 1, 0, 0, 1, 1}), 10);
    a.policy = PGR_DROP_POSITION;
    assert_int_equal(device->ops->capacity(device, &a, NULL, &error), PGR_OK);
    assert_memory_equal(kept, ((uint8_t[]){1, 1, 1, 1, 0, 1, 0, 0, 0, 1}), 10);
    a.capacity = 0;
    a.policy = PGR_DROP_PROBS;
    assert_int_equal(device->ops->capacity(device, &a, NULL, &error), PGR_OK);
    assert_memory_equal(kept, ((uint8_t[10]){0}), 10);
}

static void test_refuses(void **state) {
    (void)state;
    pgr_router_args a = {.tokens = 1, .experts = 4, .topk = 5, .sequences = 1};
    assert_int_equal(device->ops->router(device, &a, NULL, &error), PGR_INTERNAL);
    a.topk = 2;
    a.dtype = PGR_F64;
    assert_int_equal(device->ops->router(device, &a, NULL, &error), PGR_UNSUPPORTED);
}

static int open_device(void **state) {
    (void)state;
    pgr_device_open_args args = {.local_size = 1, .threads = 1};
    return cpu_module.device->open(&args, &device, &error) == PGR_OK ? 0 : -1;
}

static int close_device(void **state) {
    (void)state;
    device->ops->close(device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_topk), cmocka_unit_test(test_ties),
        cmocka_unit_test(test_sequences),  cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_refuses),
    };
    return cmocka_run_group_tests_name("router", tests, open_device, close_device);
}
