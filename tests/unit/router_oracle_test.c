/* Every row of megatron-router.jsonl, what Megatron-Core answered, against the CPU module's router
 * and capacity kernels. Each row is a test of its own. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "layer.h"

enum { MAX_ROWS = 256, LINE = 1 << 22 };

extern const pgr_module cpu_module __asm__("pgr_module");

static pgr_device *device;

/* ---- reading ------------------------------------------------------------------------------- */

static json_t *member(json_t *object, const char *name) {
    json_t *value = json_object_get(object, name);
    if (!value)
        fail_msg("the oracle's row has no %s", name);
    return value;
}

static double number(json_t *object, const char *name, double otherwise) {
    json_t *value = member(object, name);
    return json_is_null(value) ? otherwise : json_number_value(value);
}

static void *memory(int64_t count, size_t bytes) {
    void *out = calloc((size_t)count, bytes);
    assert_non_null(out);
    return out;
}

static float *floats(json_t *list, int64_t count) {
    assert_int_equal(json_array_size(list), count);
    float *out = memory(count, sizeof *out);
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)json_number_value(json_array_get(list, (size_t)i));
    return out;
}

static bool is(json_t *config, const char *name, const char *value) {
    return strcmp(json_string_value(member(config, name)), value) == 0;
}

/* ---- one row ------------------------------------------------------------------------------- */

/* A row's inputs and what the kernels made of them. */
typedef struct routed {
    pgr_router_args args;
    float *logits, *bias;
    int64_t *aux_counts;
    double *aux_sums, z_sum;
} routed;

static pgr_router_args read_args(json_t *config) {
    pgr_router_args a = {.dtype = PGR_F32, .sequences = 1};
    a.tokens = (int64_t)number(config, "tokens", 0);
    a.experts = (int64_t)number(config, "experts", 0);
    a.topk = (int64_t)number(config, "topk", 0);
    a.score = is(config, "score", "softmax")   ? PGR_SOFTMAX
              : is(config, "score", "sigmoid") ? PGR_SIGMOID
                                               : PGR_SQRTSOFTPLUS;
    a.pre_softmax = json_is_true(member(config, "pre_softmax"));
    a.groups = (int64_t)number(config, "groups", 0);
    a.group_topk = (int64_t)number(config, "group_topk", 0);
    a.scaling = number(config, "scaling", NAN);
    return a;
}

static void route(json_t *row, routed *out) {
    pgr_router_args a = read_args(member(row, "config"));
    json_t *bias = member(row, "bias");
    out->logits = floats(member(row, "logits"), a.tokens * a.experts);
    out->bias = json_is_null(bias) ? NULL : floats(bias, a.experts);
    out->aux_counts = memory(a.experts, sizeof(int64_t));
    out->aux_sums = memory(a.experts, sizeof(double));
    a.logits = out->logits;
    a.expert_bias = out->bias;
    a.indices = memory(a.tokens * a.topk, sizeof *a.indices);
    a.weights = memory(a.tokens * a.topk, sizeof *a.weights);
    a.tokens_per_expert = memory(a.experts, sizeof *a.tokens_per_expert);
    a.aux_counts = out->aux_counts;
    a.aux_score_sums = out->aux_sums;
    a.z_sum = &out->z_sum;
    out->args = a;
    pgr_error error;
    if (device->ops->router(device, &a, NULL, &error) != PGR_OK)
        fail_msg("router: %s", error.message);
}

static void routed_free(routed *r) {
    free(r->logits);
    free(r->bias);
    free(r->aux_counts);
    free(r->aux_sums);
    free(r->args.indices);
    free(r->args.weights);
    free(r->args.tokens_per_expert);
}

static void near(const char *what, int64_t at, double got, double want, double tolerance) {
    if (!(fabs(got - want) <= tolerance * (fabs(want) + 1e-3)))
        fail_msg("%s[%lld]: got %.9g, Megatron-Core has %.9g", what, (long long)at, got, want);
}

static void same(const char *what, int64_t at, int64_t got, int64_t want) {
    if (got != want)
        fail_msg("%s[%lld]: got %lld, Megatron-Core has %lld", what, (long long)at, (long long)got,
                 (long long)want);
}

static void compare_routing(json_t *row, const routed *r) {
    const pgr_router_args *a = &r->args;
    json_t *indices = member(row, "indices"), *probs = member(row, "probs");
    json_t *counts = member(row, "tokens_per_expert");
    assert_int_equal(json_array_size(indices), a->tokens * a->topk);
    for (int64_t i = 0; i < a->tokens * a->topk; i++)
        same("indices", i, a->indices[i], json_integer_value(json_array_get(indices, (size_t)i)));
    for (int64_t i = 0; i < a->tokens * a->topk; i++)
        near("probs", i, a->weights[i], json_number_value(json_array_get(probs, (size_t)i)), 2e-6);
    for (int64_t e = 0; e < a->experts; e++)
        same("tokens_per_expert", e, a->tokens_per_expert[e],
             json_integer_value(json_array_get(counts, (size_t)e)));
}

static void compare_losses(json_t *row, const routed *r) {
    const pgr_router_args *a = &r->args;
    json_t *config = member(row, "config");
    double sum = 0, tokens = (double)a->tokens;
    for (int64_t e = 0; e < a->experts; e++)
        sum += (double)r->aux_counts[e] * r->aux_sums[e];
    double aux = number(config, "aux_loss_coeff", 0) * (double)a->experts /
                 (tokens * tokens * (double)a->topk) * sum;
    near("aux_loss", 0, aux, number(row, "aux_loss", 0), 2e-6);
    near("z_loss", 0, number(config, "z_loss_coeff", 0) * r->z_sum / tokens,
         number(row, "z_loss", 0), 2e-6);
}

static void compare_capacity(json_t *row, const routed *r) {
    const pgr_router_args *a = &r->args;
    json_t *config = member(row, "config"), *kept = json_object_get(row, "kept");
    json_t *kept_probs = json_object_get(row, "kept_probs");
    double factor = number(config, "capacity_factor", NAN);
    if (isnan(factor)) {
        assert_true(!kept || json_is_null(kept));
        return;
    }
    assert_true(is(config, "drop_policy", "probs"));
    int64_t capacity = pgr_router_capacity(a->tokens, a->topk, a->experts, factor);
    same("capacity", 0, capacity, json_integer_value(member(row, "capacity")));
    uint8_t *mask = memory(a->tokens * a->topk, 1);
    pgr_capacity_args args = {.indices = a->indices,
                              .weights = a->weights,
                              .tokens = a->tokens,
                              .topk = a->topk,
                              .experts = a->experts,
                              .capacity = capacity,
                              .policy = PGR_DROP_PROBS,
                              .kept = mask};
    pgr_error error;
    assert_int_equal(device->ops->capacity(device, &args, NULL, &error), PGR_OK);
    int64_t *dense = memory(a->tokens * a->experts, sizeof *dense); /* 1 + the pair's place */
    for (int64_t i = 0; i < a->tokens * a->topk; i++)
        if (mask[i])
            dense[i / a->topk * a->experts + a->indices[i]] = 1 + i;
    for (int64_t i = 0; i < a->tokens * a->experts; i++) {
        same("kept", i, dense[i] != 0, json_integer_value(json_array_get(kept, (size_t)i)));
        near("kept_probs", i, dense[i] ? a->weights[dense[i] - 1] : 0,
             json_number_value(json_array_get(kept_probs, (size_t)i)), 2e-6);
    }
    free(dense);
    free(mask);
}

static void test_row(void **state) {
    json_t *row = *state;
    routed r = {0};
    route(row, &r);
    compare_routing(row, &r);
    compare_losses(row, &r);
    compare_capacity(row, &r);
    routed_free(&r);
}

/* ---- all rows ------------------------------------------------------------------------------ */

static int open_device(void **state) {
    (void)state;
    pgr_error error;
    pgr_device_open_args args = {.local_size = 1, .threads = 1};
    return cpu_module.device->open(&args, &device, &error) == PGR_OK ? 0 : -1;
}

static int close_device(void **state) {
    (void)state;
    device->ops->close(device);
    return 0;
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "tests/oracles/megatron-router.jsonl";
    static struct CMUnitTest tests[MAX_ROWS];
    static char names[MAX_ROWS][32];
    size_t count = 0;
    FILE *file = fopen(path, "r");
    char *line = malloc(LINE);
    if (!file || !line) {
        fprintf(stderr, "cannot read %s\n", path);
        return 2;
    }
    while (count < MAX_ROWS && fgets(line, LINE, file)) {
        json_error_t error;
        json_t *row = json_loads(line, 0, &error);
        if (!row) {
            fprintf(stderr, "%s:%zu: %s\n", path, count + 1, error.text);
            return 2;
        }
        snprintf(names[count], sizeof names[count], "row %zu", count + 1);
        tests[count] = (struct CMUnitTest){names[count], test_row, NULL, NULL, row};
        count++;
    }
    free(line);
    fclose(file);
    if (count < 48) {
        fprintf(stderr, "%s: only %zu rows, expected 48\n", path, count);
        return 2;
    }
    int failed = _cmocka_run_group_tests("router against Megatron-Core", tests, count, open_device,
                                         close_device);
    for (size_t i = 0; i < count; i++)
        json_decref(tests[i].initial_state);
    return failed;
}
