/* The CPU's router on random configs and logits, from a fixed seed: its two forms agree, all
 * scores, groups and biases agree with the reference in double precision that runs are verified
 * with, and that reference refuses other choices. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bf16.h"
#include "cpu_router.h"
#include "draw.h"
#include "random.h"
#include "verify_routing.h"

extern const pgr_module cpu_module __asm__("pgr_module");

static pgr_device *device;
static pgr_error error;
static int64_t round_number; /* for messages */

static void *memory(int64_t count, size_t bytes) {
    void *out = calloc((size_t)count + 1, bytes);
    assert_non_null(out);
    return out;
}

/* ---- one drawn case ------------------------------------------------------------------------ */

typedef enum logits_kind { SMOOTH, COARSE, EQUAL, STEEP, ODD, LOGITS_KINDS } logits_kind;

typedef struct drawn {
    pgr_router_config config;
    logits_kind kind;
    pgr_dtype dtype;
    int64_t tokens, sequences;
    float *logits; /* as rounded to dtype */
    pgr_bf16 *narrow;
    float *bias;
    uint8_t *valid;
} drawn;

/* A result of the router. */
typedef struct routed {
    int32_t *indices;
    float *weights;
    int64_t *counts, *aux_counts;
    double *sums, z;
} routed;

static float draw_logit(logits_kind kind) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 1e18f, -1e18f, -0.0f, 1e-40f};
    float smooth = (float)(draw(1 << 20) - (1 << 19)) * 0x1p-17f; /* [-4, 4) */
    switch (kind) {
    case COARSE:
        return roundf(smooth);
    case EQUAL:
        return 0.5f;
    case STEEP:
        return 30 * smooth;
    case ODD:
        return draw(40) ? roundf(4 * smooth) / 4 : odd[draw(7)];
    default:
        return smooth;
    }
}

static void draw_logits(drawn *d) {
    int64_t cells = d->tokens * d->config.experts;
    d->logits = memory(cells, sizeof(float));
    d->narrow = memory(cells, sizeof(pgr_bf16));
    for (int64_t i = 0; i < cells; i++) {
        float x = draw_logit(d->kind);
        d->narrow[i] = pgr_bf16_from_f32(x);
        d->logits[i] = d->dtype == PGR_F32 ? x : pgr_bf16_to_f32(d->narrow[i]);
    }
    d->valid = draw(2) ? NULL : memory(d->tokens, 1);
    for (int64_t t = 0; d->valid && t < d->tokens; t++)
        d->valid[t] = draw(4) > 0;
}

/* Equal groups, as Megatron-Core allows them. */
static void draw_groups(pgr_router_config *c) {
    c->groups = draw_divisor(c->experts);
    c->group_topk = draw_divisor(c->topk);
    if (c->group_topk > c->groups || c->experts / c->groups * c->group_topk < c->topk)
        c->groups = c->group_topk = PGR_NIL;
}

static drawn draw_case(bool softmax) {
    static const int64_t most[] = {8, 64, 160, 1024, 1100};
    drawn d = {.kind = (logits_kind)draw(LOGITS_KINDS),
               .dtype = draw(2) ? PGR_F32 : PGR_BF16,
               .tokens = draw(60),
               .sequences = 1 + draw(draw(2) ? 1 : 9)};
    pgr_router_config *c = &d.config;
    c->experts = 1 + draw(most[draw(5)]);
    c->topk = 1 + draw(c->experts < 12 || draw(8) == 0 ? c->experts : 12);
    c->score = softmax ? PGR_SOFTMAX : (pgr_score)draw(3);
    c->pre_softmax = draw(2);
    c->scaling = draw(2) ? NAN : 2.5;
    c->groups = c->group_topk = PGR_NIL;
    if (!softmax && draw(3))
        draw_groups(c);
    draw_logits(&d);
    if (c->score != PGR_SOFTMAX && draw(2)) {
        d.bias = memory(c->experts, sizeof(float));
        for (int64_t e = 0; e < c->experts; e++)
            d.bias[e] = 0x1p-3f * draw_logit(d.kind == EQUAL ? EQUAL : COARSE);
    }
    return d;
}

static void drawn_free(drawn *d) {
    free(d->logits);
    free(d->narrow);
    free(d->bias);
    free(d->valid);
}

static pgr_router_args args_of(const drawn *d, routed *r) {
    const pgr_router_config *c = &d->config;
    int64_t cells = d->sequences * c->experts;
    *r = (routed){.indices = memory(d->tokens * c->topk, 4),
                  .weights = memory(d->tokens * c->topk, 4),
                  .counts = memory(c->experts, 8),
                  .aux_counts = memory(cells, 8),
                  .sums = memory(cells, 8)};
    return (pgr_router_args){.logits = d->dtype == PGR_F32 ? (void *)d->logits : d->narrow,
                             .dtype = d->dtype,
                             .expert_bias = d->bias,
                             .valid = d->valid,
                             .tokens = d->tokens,
                             .experts = c->experts,
                             .topk = c->topk,
                             .score = c->score,
                             .pre_softmax = c->pre_softmax,
                             .groups = c->groups,
                             .group_topk = c->group_topk,
                             .scaling = c->scaling,
                             .sequences = d->sequences,
                             .indices = r->indices,
                             .weights = r->weights,
                             .tokens_per_expert = r->counts,
                             .aux_counts = r->aux_counts,
                             .aux_score_sums = r->sums,
                             .z_sum = &r->z};
}

static void routed_free(routed *r) {
    free(r->indices);
    free(r->weights);
    free(r->counts);
    free(r->aux_counts);
    free(r->sums);
}

/* Whether the fast form did it. */
static bool route(const drawn *d, routed *r) {
    pgr_router_args args = args_of(d, r);
    if (device->ops->router(device, &args, NULL, &error) != PGR_OK)
        fail_msg("round %lld: %s", (long long)round_number, error.message);
    return pgr_cpu_router_tiled(&args);
}

static void near(const char *what, int64_t at, double got, double want) {
    bool both_nan = isnan(got) && isnan(want);
    if (!both_nan && got != want && !(fabs(got - want) <= 3e-6 * (fabs(want) + 1e-3)))
        fail_msg("round %lld: %s[%lld] is %.9g, not %.9g", (long long)round_number, what,
                 (long long)at, got, want);
}

/* ---- the plain form and the fast one ------------------------------------------------------- */

static void route_plainly(const drawn *d, routed *r) {
    pgr_router_args args = args_of(d, r);
    int64_t n = d->config.experts;
    router_row row = {.logit = memory(n, 4),
                      .score = memory(n, 4),
                      .biased = memory(n, 4),
                      .key = memory(n, 4),
                      .score_key = memory(n, 4),
                      .aux_picks = memory(n, 4),
                      .group_key = memory(n, 4),
                      .group_picks = memory(n, 4)};
    for (int64_t t = 0; t < d->tokens; t++)
        pgr_cpu_router_token(&row, &args, t);
    void *parts[] = {row.logit,     row.score,     row.biased,    row.key,
                     row.score_key, row.aux_picks, row.group_key, row.group_picks};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        free(parts[i]);
}

static void test_forms_agree(void **state) {
    (void)state;
    int fast = 0;
    generator_state = 20;
    for (round_number = 0; round_number < 300; round_number++) {
        drawn d = draw_case(true);
        int64_t pairs = d.tokens * d.config.topk, cells = d.sequences * d.config.experts;
        routed got, want;
        fast += route(&d, &got);
        route_plainly(&d, &want);
        for (int64_t i = 0; i < pairs; i++) {
            if (got.indices[i] != want.indices[i])
                fail_msg("round %lld: %lld experts, top %lld: index %lld is %d, not %d",
                         (long long)round_number, (long long)d.config.experts,
                         (long long)d.config.topk, (long long)i, got.indices[i], want.indices[i]);
            near("weight", i, got.weights[i], want.weights[i]);
        }
        assert_memory_equal(got.counts, want.counts, (size_t)d.config.experts * 8);
        assert_memory_equal(got.aux_counts, want.aux_counts, (size_t)cells * 8);
        for (int64_t i = 0; i < cells; i++)
            near("sum of scores", i, got.sums[i], want.sums[i]);
        near("z sum", 0, got.z, want.z);
        routed_free(&got);
        routed_free(&want);
        drawn_free(&d);
    }
    assert_true(fast > 100 && fast < 250); /* both forms had their turn */
}

/* ---- against double precision -------------------------------------------------------------- */

/* Whether it has one answer that the reference knows: an odd value beside others makes sums of
 * scores what the order of summation makes of them. */
static bool is_plain(const drawn *d) {
    return d->kind != ODD || (d->config.score == PGR_SOFTMAX && d->config.groups == PGR_NIL);
}

/* What follows from the arguments alone. */
static void check_token(const drawn *d, const int32_t *indices, const float *weights) {
    const pgr_router_config *c = &d->config;
    double sum = 0, scaling = isnan(c->scaling) ? 1 : c->scaling;
    int64_t groups = 0, last = -1;
    for (int64_t j = 0; j < c->topk; j++) {
        assert_true(indices[j] >= 0 && indices[j] < c->experts);
        assert_true(j == 0 || indices[j] > indices[j - 1]);
        assert_true(d->kind == ODD || weights[j] >= 0);
        sum += weights[j];
        if (c->groups != PGR_NIL && indices[j] / (c->experts / c->groups) != last) {
            last = indices[j] / (c->experts / c->groups);
            groups++;
        }
    }
    assert_true(groups <= (c->groups == PGR_NIL ? 0 : c->group_topk));
    bool normalised = c->score == PGR_SOFTMAX ? !c->pre_softmax : c->topk > 1;
    if (normalised && d->kind != ODD && d->kind != STEEP) /* there all scores may be 0 */
        near("sum of weights", 0, sum, scaling);
}

/* One chosen expert becomes one of its group that is clearly worse: that must be refused. */
static bool check_refusal(const drawn *d, pgr_routing_reference *reference,
                          const int32_t *indices) {
    const pgr_router_config *c = &d->config;
    int64_t size = c->groups == PGR_NIL ? c->experts : c->experts / c->groups;
    int64_t place = draw(c->topk), from = indices[place] / size * size;
    int32_t *other = memory(c->topk, sizeof *other);
    bool told = false;
    for (int64_t e = from; e < from + size && !told; e++) {
        bool free_one = reference->rank[e] < reference->rank[indices[place]] - 1e-3;
        for (int64_t j = 0; j < c->topk; j++)
            free_one = free_one && indices[j] != e;
        if (!free_one)
            continue;
        int64_t at = 0;
        bool placed = false;
        for (int64_t j = 0; j < c->topk; j++) { /* ascending */
            if (!placed && indices[j] > e && j != place)
                other[at++] = (int32_t)e, placed = true;
            if (j != place)
                other[at++] = indices[j];
        }
        if (!placed)
            other[at++] = (int32_t)e;
        assert_int_equal(at, c->topk);
        if (pgr_routing_reference_wrong(reference, other) == 0)
            fail_msg("round %lld: expert %lld in place of %d is taken", (long long)round_number,
                     (long long)e, indices[place]);
        told = true;
    }
    free(other);
    return told;
}

static int64_t compare_with_reference(const drawn *d, const routed *r) {
    const pgr_router_config *c = &d->config;
    int64_t n = c->experts, cells = d->sequences * n, refused = 0;
    int64_t *counts = memory(n, 8), *least = memory(cells, 8), *most = memory(cells, 8);
    double *sums = memory(cells, 8), *weights = memory(c->topk, 8), z = 0;
    pgr_routing_reference reference;
    assert_int_equal(pgr_routing_reference_create(c, d->bias, &reference, &error), PGR_OK);
    for (int64_t t = 0; t < d->tokens; t++) {
        const int32_t *indices = r->indices + t * c->topk;
        if (d->valid && !d->valid[t]) {
            assert_true(indices[0] == -1 && r->weights[t * c->topk] == 0);
            continue;
        }
        check_token(d, indices, r->weights + t * c->topk);
        pgr_routing_reference_read(&reference, d->logits + t * n);
        int64_t wrong = pgr_routing_reference_wrong(&reference, indices);
        if (wrong)
            fail_msg("round %lld, token %lld: %lld wrong indices", (long long)round_number,
                     (long long)t, (long long)wrong);
        pgr_routing_reference_weigh(&reference, indices, weights);
        int64_t s = t % d->sequences * n;
        pgr_routing_reference_count(&reference, least + s, most + s);
        for (int64_t j = 0; j < c->topk; j++) {
            near("weight", t * c->topk + j, r->weights[t * c->topk + j], weights[j]);
            counts[indices[j]]++;
        }
        for (int64_t e = 0; e < n; e++)
            sums[s + e] += reference.score[e] / reference.score_sum;
        z += reference.log_sum_exp * reference.log_sum_exp;
        refused += d->kind != ODD && check_refusal(d, &reference, indices);
    }
    assert_memory_equal(r->counts, counts, (size_t)n * 8);
    for (int64_t i = 0; i < cells; i++) {
        assert_true(r->aux_counts[i] >= least[i] && r->aux_counts[i] <= most[i]);
        near("sum of scores", i, r->sums[i], sums[i]);
    }
    near("z sum", 0, r->z, z);
    pgr_routing_reference_free(&reference);
    void *parts[] = {counts, least, most, sums, weights};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        free(parts[i]);
    return refused;
}

static void test_every_score(void **state) {
    (void)state;
    int64_t refused = 0;
    generator_state = 21;
    for (round_number = 0; round_number < 300; round_number++) {
        drawn d = draw_case(false);
        routed got;
        if (is_plain(&d)) {
            route(&d, &got);
            refused += compare_with_reference(&d, &got);
            routed_free(&got);
        }
        drawn_free(&d);
    }
    assert_true(refused > 500); /* choices that were made worse, and refused */
}

/* ---- what the reference takes -------------------------------------------------------------- */

/* Two scores that rounding may exchange, and equal inputs, which it may not. */
static void test_near_ties(void **state) {
    (void)state;
    pgr_router_config c = {.experts = 4,
                           .topk = 2,
                           .score = PGR_SIGMOID,
                           .groups = PGR_NIL,
                           .group_topk = PGR_NIL,
                           .scaling = NAN};
    pgr_routing_reference reference;
    assert_int_equal(pgr_routing_reference_create(&c, NULL, &reference, &error), PGR_OK);
    pgr_routing_reference_read(&reference, (float[]){1, 1 + 0x1p-23f, 2, -1});
    assert_int_equal(pgr_routing_reference_wrong(&reference, (int32_t[]){0, 2}), 0);
    assert_int_equal(pgr_routing_reference_wrong(&reference, (int32_t[]){1, 2}), 0);
    assert_true(pgr_routing_reference_wrong(&reference, (int32_t[]){2, 1}) > 0);
    assert_true(pgr_routing_reference_wrong(&reference, (int32_t[]){2, 2}) > 0);
    assert_true(pgr_routing_reference_wrong(&reference, (int32_t[]){0, 1}) > 0);
    assert_true(pgr_routing_reference_wrong(&reference, (int32_t[]){2, 3}) > 0);
    assert_true(pgr_routing_reference_wrong(&reference, (int32_t[]){-1, 2}) > 0);
    pgr_routing_reference_read(&reference, (float[]){1, 1, 2, -1});
    assert_int_equal(pgr_routing_reference_wrong(&reference, (int32_t[]){0, 2}), 0);
    assert_true(pgr_routing_reference_wrong(&reference, (int32_t[]){1, 2}) > 0);
    pgr_routing_reference_read(&reference, (float[]){1, 1 + 0x1p-12f, 2, -1});
    assert_true(pgr_routing_reference_wrong(&reference, (int32_t[]){0, 2}) > 0);
    assert_int_equal(pgr_routing_reference_wrong(&reference, (int32_t[]){1, 2}), 0);
    pgr_routing_reference_free(&reference);
}

/* Two groups whose sums rounding may exchange: the choice may come from either, not from both. */
static void test_near_groups(void **state) {
    (void)state;
    pgr_router_config c = {.experts = 6,
                           .topk = 2,
                           .score = PGR_SIGMOID,
                           .groups = 3,
                           .group_topk = 1,
                           .scaling = NAN};
    pgr_routing_reference reference;
    assert_int_equal(pgr_routing_reference_create(&c, NULL, &reference, &error), PGR_OK);
    pgr_routing_reference_read(&reference, (float[]){2, 1, -3, 1.5f, 1 + 0x1p-23f, 2});
    assert_int_equal(pgr_routing_reference_wrong(&reference, (int32_t[]){0, 1}), 0);
    assert_int_equal(pgr_routing_reference_wrong(&reference, (int32_t[]){4, 5}), 0);
    assert_true(pgr_routing_reference_wrong(&reference, (int32_t[]){0, 5}) > 0);
    assert_true(pgr_routing_reference_wrong(&reference, (int32_t[]){2, 3}) > 0);
    pgr_routing_reference_free(&reference);
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
        cmocka_unit_test(test_forms_agree),
        cmocka_unit_test(test_every_score),
        cmocka_unit_test(test_near_ties),
        cmocka_unit_test(test_near_groups),
    };
    return cmocka_run_group_tests_name("router, random", tests, open_device, close_device);
}
