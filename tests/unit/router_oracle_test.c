/* Every row of megatron-router.jsonl, what Megatron-Core answered, against the router and capacity
 * kernels of a device: `router_oracle_test KIND FILE`. Each row is a test of its own, in three
 * forms: as it is, against Megatron-Core's numbers; with its logits rounded to bf16, and with
 * padding and sequences, against the reference in double precision. Exit status 77, and a line that
 * says why, where there is no such device here. */
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

#include "bf16.h"
#include "verify_routing.h"

enum { MAX_ROWS = 256, LINE = 1 << 22, SKIPPED = 77, POISON = 0xcd };

static const char *kind;
static pgr_device *device;
static pgr_stream *stream;
static pgr_error error;

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
    void *out = calloc((size_t)count + 1, bytes);
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

/* ---- the device ---------------------------------------------------------------------------- */

static void worked(pgr_status status, const char *what) {
    if (status != PGR_OK)
        fail_msg("%s: %s", what, error.message);
}

/* Device memory, poisoned, with `data` (or NULL) copied to it. */
static void *on_device(const void *data, int64_t bytes) {
    void *out = NULL;
    const pgr_device_ops *ops = device->ops;
    worked(ops->alloc(device, PGR_MEMORY_DEVICE, bytes, &out, &error), "alloc");
    worked(ops->set(device, out, POISON, bytes, stream, &error), "set");
    if (data)
        worked(ops->copy(device, out, data, bytes, stream, &error), "copy");
    worked(ops->stream_sync(device, stream, &error), "sync");
    return out;
}

/* A copy on the host of device memory, which is freed. */
static void *to_host(void *from, int64_t bytes) {
    void *out = memory(bytes, 1);
    worked(device->ops->copy(device, out, from, bytes, stream, &error), "copy");
    worked(device->ops->stream_sync(device, stream, &error), "sync");
    device->ops->free(device, PGR_MEMORY_DEVICE, from);
    return out;
}

static void drop(void *from) {
    device->ops->free(device, PGR_MEMORY_DEVICE, from);
}

/* ---- one row ------------------------------------------------------------------------------- */

/* What a row is routed with, and what the kernel made of it; all on the host. */
typedef struct routed {
    pgr_router_config config;
    int64_t tokens, sequences;
    float *logits, *bias;
    uint8_t *valid; /* or NULL */
    int32_t *indices;
    float *weights;
    int64_t *counts, *aux_counts;
    double *aux_sums, *z_sum;
} routed;

static pgr_router_config read_config(json_t *config) {
    return (pgr_router_config){
        .experts = (int64_t)number(config, "experts", 0),
        .topk = (int64_t)number(config, "topk", 0),
        .score = is(config, "score", "softmax")   ? PGR_SOFTMAX
                 : is(config, "score", "sigmoid") ? PGR_SIGMOID
                                                  : PGR_SQRTSOFTPLUS,
        .pre_softmax = json_is_true(member(config, "pre_softmax")),
        .groups = (int64_t)number(config, "groups", PGR_NIL),
        .group_topk = (int64_t)number(config, "group_topk", PGR_NIL),
        .scaling = number(config, "scaling", NAN),
    };
}

static void read_row(json_t *row, routed *out) {
    json_t *config = member(row, "config"), *bias = member(row, "bias");
    *out = (routed){.config = read_config(config),
                    .tokens = (int64_t)number(config, "tokens", 0),
                    .sequences = 1};
    assert_false(json_is_true(member(config, "pad_to_capacity"))); /* no row has it */
    out->logits = floats(member(row, "logits"), out->tokens * out->config.experts);
    out->bias = json_is_null(bias) ? NULL : floats(bias, out->config.experts);
}

static void routed_free(routed *r) {
    void *parts[] = {r->logits, r->bias,       r->valid,    r->indices, r->weights,
                     r->counts, r->aux_counts, r->aux_sums, r->z_sum};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        free(parts[i]);
}

/* Runs the kernel; with PGR_BF16 the logits, which must have been rounded, go as bf16. */
static void route(routed *r, pgr_dtype dtype) {
    const pgr_router_config *c = &r->config;
    int64_t cells = r->tokens * c->experts, pairs = r->tokens * c->topk;
    int64_t sums = r->sequences * c->experts;
    pgr_bf16 *narrow = memory(cells, sizeof *narrow);
    for (int64_t i = 0; i < cells; i++)
        narrow[i] = pgr_bf16_from_f32(r->logits[i]);
    bool wide = dtype == PGR_F32;
    void *logits = on_device(wide ? (void *)r->logits : narrow, cells * (wide ? 4 : 2));
    free(narrow);
    float *bias = r->bias ? on_device(r->bias, c->experts * 4) : NULL;
    uint8_t *valid = r->valid ? on_device(r->valid, r->tokens) : NULL;
    pgr_router_args a = {.logits = logits,
                         .dtype = dtype,
                         .expert_bias = bias,
                         .valid = valid,
                         .tokens = r->tokens,
                         .experts = c->experts,
                         .topk = c->topk,
                         .score = c->score,
                         .pre_softmax = c->pre_softmax,
                         .groups = c->groups,
                         .group_topk = c->group_topk,
                         .scaling = c->scaling,
                         .sequences = r->sequences,
                         .indices = on_device(NULL, pairs * 4),
                         .weights = on_device(NULL, pairs * 4),
                         .tokens_per_expert = on_device(NULL, c->experts * 8),
                         .aux_counts = on_device(NULL, sums * 8),
                         .aux_score_sums = on_device(NULL, sums * 8),
                         .z_sum = on_device(NULL, 8)};
    worked(device->ops->router(device, &a, stream, &error), "router");
    r->indices = to_host(a.indices, pairs * 4);
    r->weights = to_host(a.weights, pairs * 4);
    r->counts = to_host(a.tokens_per_expert, c->experts * 8);
    r->aux_counts = to_host(a.aux_counts, sums * 8);
    r->aux_sums = to_host(a.aux_score_sums, sums * 8);
    r->z_sum = to_host(a.z_sum, 8);
    drop(logits);
    if (bias)
        drop(bias);
    if (valid)
        drop(valid);
}

/* Runs the capacity kernel on what was routed; [tokens, topk], owned by the caller. */
static uint8_t *keep(const routed *r, int64_t capacity, pgr_drop_policy policy) {
    int64_t pairs = r->tokens * r->config.topk;
    int32_t *indices = on_device(r->indices, pairs * 4);
    float *weights = on_device(r->weights, pairs * 4);
    pgr_capacity_args args = {.indices = indices,
                              .weights = weights,
                              .tokens = r->tokens,
                              .topk = r->config.topk,
                              .experts = r->config.experts,
                              .capacity = capacity,
                              .policy = policy,
                              .kept = on_device(NULL, pairs)};
    worked(device->ops->capacity(device, &args, stream, &error), "capacity");
    uint8_t *kept = to_host(args.kept, pairs);
    drop(indices);
    drop(weights);
    return kept;
}

static void near(const char *what, int64_t at, double got, double want) {
    if (!(fabs(got - want) <= 2e-6 * (fabs(want) + 1e-3)))
        fail_msg("%s[%lld]: got %.9g, not %.9g", what, (long long)at, got, want);
}

static void same(const char *what, int64_t at, int64_t got, int64_t want) {
    if (got != want)
        fail_msg("%s[%lld]: got %lld, not %lld", what, (long long)at, (long long)got,
                 (long long)want);
}

/* ---- as it is ------------------------------------------------------------------------------ */

static void compare_routing(json_t *row, const routed *r) {
    json_t *indices = member(row, "indices"), *probs = member(row, "probs");
    json_t *counts = member(row, "tokens_per_expert");
    int64_t pairs = r->tokens * r->config.topk;
    assert_int_equal(json_array_size(indices), pairs);
    for (int64_t i = 0; i < pairs; i++)
        same("indices", i, r->indices[i], json_integer_value(json_array_get(indices, (size_t)i)));
    for (int64_t i = 0; i < pairs; i++)
        near("probs", i, r->weights[i], json_number_value(json_array_get(probs, (size_t)i)));
    for (int64_t e = 0; e < r->config.experts; e++)
        same("tokens_per_expert", e, r->counts[e],
             json_integer_value(json_array_get(counts, (size_t)e)));
}

static void compare_losses(json_t *row, const routed *r) {
    json_t *config = member(row, "config");
    double sum = 0, tokens = (double)r->tokens, experts = (double)r->config.experts;
    for (int64_t e = 0; e < r->config.experts; e++)
        sum += (double)r->aux_counts[e] * r->aux_sums[e];
    double aux = number(config, "aux_loss_coeff", 0) * experts /
                 (tokens * tokens * (double)r->config.topk) * sum;
    near("aux_loss", 0, aux, number(row, "aux_loss", 0));
    near("z_loss", 0, number(config, "z_loss_coeff", 0) * *r->z_sum / tokens,
         number(row, "z_loss", 0));
}

static void compare_capacity(json_t *row, const routed *r) {
    json_t *config = member(row, "config"), *kept = json_object_get(row, "kept");
    json_t *kept_probs = json_object_get(row, "kept_probs");
    double factor = number(config, "capacity_factor", NAN);
    int64_t topk = r->config.topk, experts = r->config.experts;
    if (isnan(factor)) {
        assert_true(!kept || json_is_null(kept));
        return;
    }
    assert_true(is(config, "drop_policy", "probs"));
    int64_t capacity = pgr_router_capacity(r->tokens, topk, experts, factor);
    same("capacity", 0, capacity, json_integer_value(member(row, "capacity")));
    uint8_t *mask = keep(r, capacity, PGR_DROP_PROBS);
    int64_t *dense = memory(r->tokens * experts, sizeof *dense); /* 1 + the pair's place */
    for (int64_t i = 0; i < r->tokens * topk; i++)
        if (mask[i])
            dense[i / topk * experts + r->indices[i]] = 1 + i;
    for (int64_t i = 0; i < r->tokens * experts; i++) {
        same("kept", i, dense[i] != 0, json_integer_value(json_array_get(kept, (size_t)i)));
        near("kept_probs", i, dense[i] ? r->weights[dense[i] - 1] : 0,
             json_number_value(json_array_get(kept_probs, (size_t)i)));
    }
    free(dense);
    free(mask);
}

static void test_as_it_is(void **state) {
    json_t *row = *state;
    routed r;
    read_row(row, &r);
    route(&r, PGR_F32);
    compare_routing(row, &r);
    compare_losses(row, &r);
    compare_capacity(row, &r);
    routed_free(&r);
}

/* ---- against double precision -------------------------------------------------------------- */

/* What the kernel must have counted, by the reference. */
typedef struct expected {
    int64_t *counts, *least, *most; /* [experts], [sequences, experts] */
    double *sums, z, *weights;      /* [sequences, experts], [topk] */
} expected;

static void compare_token(const routed *r, int64_t t, pgr_routing_reference *reference,
                          expected *want) {
    int64_t topk = r->config.topk, experts = r->config.experts, s = t % r->sequences * experts;
    const int32_t *indices = r->indices + t * topk;
    if (r->valid && !r->valid[t]) {
        for (int64_t j = 0; j < topk; j++)
            if (indices[j] != -1 || r->weights[t * topk + j] != 0)
                fail_msg("token %lld is padding, but routed to %d", (long long)t, indices[j]);
        return;
    }
    pgr_routing_reference_read(reference, r->logits + t * experts);
    if (pgr_routing_reference_wrong(reference, indices))
        fail_msg("token %lld: other experts than in double precision", (long long)t);
    pgr_routing_reference_weigh(reference, indices, want->weights);
    pgr_routing_reference_count(reference, want->least + s, want->most + s);
    for (int64_t j = 0; j < topk; j++) {
        near("weights", t * topk + j, r->weights[t * topk + j], want->weights[j]);
        want->counts[indices[j]]++;
    }
    for (int64_t e = 0; e < experts; e++)
        want->sums[s + e] += reference->score[e] / reference->score_sum;
    want->z += reference->log_sum_exp * reference->log_sum_exp;
}

static void compare_with_reference(const routed *r) {
    int64_t experts = r->config.experts, cells = r->sequences * experts;
    pgr_routing_reference reference;
    expected want = {.counts = memory(experts, 8),
                     .least = memory(cells, 8),
                     .most = memory(cells, 8),
                     .sums = memory(cells, 8),
                     .weights = memory(r->config.topk, 8)};
    assert_int_equal(pgr_routing_reference_create(&r->config, r->bias, &reference, &error), PGR_OK);
    for (int64_t t = 0; t < r->tokens; t++)
        compare_token(r, t, &reference, &want);
    for (int64_t e = 0; e < experts; e++)
        same("tokens_per_expert", e, r->counts[e], want.counts[e]);
    for (int64_t i = 0; i < cells; i++) {
        if (r->aux_counts[i] < want.least[i] || r->aux_counts[i] > want.most[i])
            same("aux_counts", i, r->aux_counts[i], want.least[i]);
        near("aux_score_sums", i, r->aux_sums[i], want.sums[i]);
    }
    near("z_sum", 0, *r->z_sum, want.z);
    pgr_routing_reference_free(&reference);
    void *parts[] = {want.counts, want.least, want.most, want.sums, want.weights};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        free(parts[i]);
}

/* Each pair against all others of its expert: how many come before it. */
static void compare_kept(const routed *r, int64_t capacity, pgr_drop_policy policy) {
    uint8_t *kept = keep(r, capacity, policy);
    int64_t pairs = r->tokens * r->config.topk;
    for (int64_t i = 0; i < pairs; i++) {
        int64_t ahead = 0;
        for (int64_t other = 0; other < pairs; other++) {
            bool heavier = policy == PGR_DROP_PROBS && r->weights[other] > r->weights[i];
            bool lighter = policy == PGR_DROP_PROBS && r->weights[other] < r->weights[i];
            ahead += r->indices[other] == r->indices[i] && (heavier || (!lighter && other < i));
        }
        same("kept", i, kept[i], r->indices[i] >= 0 && ahead < capacity);
    }
    free(kept);
}

static void compare_all_kept(const routed *r) {
    int64_t even = r->tokens * r->config.topk / r->config.experts;
    for (int policy = 0; policy < 2; policy++)
        for (int64_t capacity = 0; capacity <= even + 1; capacity += 1 + even / 2)
            compare_kept(r, capacity, policy ? PGR_DROP_POSITION : PGR_DROP_PROBS);
}

static void test_bf16(void **state) {
    routed r;
    read_row(*state, &r);
    for (int64_t i = 0; i < r.tokens * r.config.experts; i++)
        r.logits[i] = pgr_bf16_to_f32(pgr_bf16_from_f32(r.logits[i]));
    route(&r, PGR_BF16);
    compare_with_reference(&r);
    compare_all_kept(&r);
    routed_free(&r);
}

/* Every fourth token is padding; three sequences; logits of a few distinct values, so that there
 * are ties. */
static void test_padding_and_ties(void **state) {
    routed r;
    read_row(*state, &r);
    r.sequences = 3;
    r.valid = memory(r.tokens, 1);
    for (int64_t t = 0; t < r.tokens; t++)
        r.valid[t] = t % 4 != 1;
    for (int64_t i = 0; i < r.tokens * r.config.experts; i++)
        r.logits[i] = roundf(2 * r.logits[i]) / 2;
    route(&r, PGR_F32);
    compare_with_reference(&r);
    compare_all_kept(&r);
    routed_free(&r);
}

/* ---- all rows ------------------------------------------------------------------------------ */

static bool open_device(void) {
    const pgr_module *module;
    pgr_device_open_args args = {.local_size = 1, .threads = 1, .host = "test"};
    return pgr_module_open(kind, &module, &error) == PGR_OK &&
           module->device->open(&args, &device, &error) == PGR_OK &&
           device->ops->stream_create(device, 0, &stream, &error) == PGR_OK;
}

static void close_device(void) {
    device->ops->stream_free(device, stream);
    device->ops->close(device);
}

/* Three tests for each row of the file; 0 where it cannot be read. */
static size_t read_rows(const char *path, struct CMUnitTest *tests, char names[][32]) {
    size_t rows = 0;
    FILE *file = fopen(path, "r");
    char *line = malloc(LINE);
    if (!file || !line) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    for (; rows < MAX_ROWS && fgets(line, LINE, file); rows++) {
        json_error_t problem;
        json_t *row = json_loads(line, 0, &problem);
        if (!row) {
            fprintf(stderr, "%s:%zu: %s\n", path, rows + 1, problem.text);
            exit(2);
        }
        static const char *const forms[] = {"", ", bf16", ", padding and ties"};
        static const CMUnitTestFunction functions[] = {test_as_it_is, test_bf16,
                                                       test_padding_and_ties};
        for (size_t form = 0; form < 3; form++) {
            size_t at = 3 * rows + form;
            snprintf(names[at], sizeof names[at], "row %zu%s", rows + 1, forms[form]);
            tests[at] = (struct CMUnitTest){names[at], functions[form], NULL, NULL, row};
        }
    }
    free(line);
    fclose(file);
    return rows;
}

int main(int argc, char **argv) {
    static struct CMUnitTest tests[3 * MAX_ROWS];
    static char names[3 * MAX_ROWS][32];
    kind = argc > 1 ? argv[1] : "cpu";
    const char *path = argc > 2 ? argv[2] : "tests/oracles/megatron-router.jsonl";
    if (!open_device()) {
        printf("SKIPPED: no device of kind %s here: %s\n", kind, error.message);
        return strcmp(kind, "cpu") == 0 ? 1 : SKIPPED;
    }
    size_t rows = read_rows(path, tests, names);
    if (rows < 48) {
        fprintf(stderr, "%s: only %zu rows, expected 48\n", path, rows);
        return 2;
    }
    int failed =
        _cmocka_run_group_tests("router against Megatron-Core", tests, 3 * rows, NULL, NULL);
    for (size_t i = 0; i < rows; i++)
        json_decref(tests[3 * i].initial_state);
    close_device();
    return failed;
}
