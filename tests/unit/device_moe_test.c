/* The router and expert capacity of a device against the CPU module's, by tables of cases:
 * `device_moe_test KIND`. Experts, counts and what is kept must be equal; weights within 1e-6 of
 * themselves (8 units in the last place of f32), sums within 1e-6, both with nothing but the poison
 * left around them. Exit status 77, and a line that says why, where there is no such device here.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"
#include "comm.h"
#include "random.h"

enum { SKIPPED = 77, POISON = 0xcd, GUARD = 64 };

static pgr_device *device, *cpu;
static pgr_stream *stream;
static pgr_error error;
static int failures, cases_run;
static double tolerance = 1e-6; /* of weights and sums */

#define FAIL(...)                                                                                  \
    do {                                                                                           \
        printf("FAIL ");                                                                           \
        printf(__VA_ARGS__);                                                                       \
        printf("\n");                                                                              \
        failures++;                                                                                \
    } while (0)

static void must(pgr_status status, const char *what) {
    if (status == PGR_OK)
        return;
    printf("FAIL %s: %s\n", what, error.message);
    exit(1);
}

/* ---- memory -------------------------------------------------------------------------------- */

static void *host(int64_t bytes) {
    void *memory = malloc((size_t)bytes + 1);
    if (!memory)
        exit(1);
    memset(memory, POISON, (size_t)bytes + 1);
    return memory;
}

/* Device memory with `data`, or poisoned, and a poisoned guard behind. */
static void *on_device(const void *data, int64_t bytes) {
    void *memory = NULL;
    must(device->ops->alloc(device, PGR_MEMORY_DEVICE, bytes + GUARD, &memory, &error), "alloc");
    must(device->ops->set(device, memory, POISON, bytes + GUARD, stream, &error), "set");
    if (data)
        must(device->ops->copy(device, memory, data, bytes, stream, &error), "copy");
    must(device->ops->stream_sync(device, stream, &error), "sync");
    return memory;
}

/* A copy; frees the device's, and checks its guard. */
static void *fetch(const char *what, void *memory, int64_t bytes) {
    uint8_t *copy = host(bytes + GUARD);
    must(device->ops->copy(device, copy, memory, bytes + GUARD, stream, &error), "copy");
    must(device->ops->stream_sync(device, stream, &error), "sync");
    for (int i = 0; i < GUARD; i++)
        if (copy[bytes + i] != POISON) {
            FAIL("%s: something was written behind it", what);
            break;
        }
    device->ops->free(device, PGR_MEMORY_DEVICE, memory);
    return copy;
}

static void drop(void *memory) {
    if (memory)
        device->ops->free(device, PGR_MEMORY_DEVICE, memory);
}

/* ---- the router ---------------------------------------------------------------------------- */

typedef enum kind_of_data { SPREAD, TIED, ODD, MASKED, EQUAL } kind_of_data;

typedef struct router_case {
    int64_t tokens, experts, topk, groups, group_topk, sequences, skew;
    pgr_score score;
    pgr_dtype dtype;
    kind_of_data data;
    bool pre, bias, valid, losses;
    double scaling;
} router_case;

static void tell(const router_case *c, const char *what) {
    FAIL("%s: %lld tokens, top %lld of %lld, groups %lld of %lld, %lld sequences, score %d%s%s, "
         "%s, data %d, "
         "skew %lld%s%s",
         what, (long long)c->tokens, (long long)c->topk, (long long)c->experts,
         (long long)c->group_topk, (long long)c->groups, (long long)c->sequences, (int)c->score,
         c->pre ? " first" : "", c->bias ? " with bias" : "", pgr_dtype_name(c->dtype),
         (int)c->data, (long long)c->skew, c->valid ? ", masked" : "", c->losses ? ", losses" : "");
}

/* About normal, as far as sums of uniforms are. */
static float draw(const pgr_random *random, int64_t at) {
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += pgr_random_value(random, 4 * at + i, PGR_F32);
    return sum * 1.7f;
}

static float odd_value(float value, int64_t at) {
    switch (at * 2654435761u % 97 % 13) {
    case 0:
        return NAN;
    case 1:
        return -NAN;
    case 2:
        return INFINITY;
    case 3:
    case 4:
        return -INFINITY;
    case 5:
        return -0.0f;
    case 6:
        return 0.0f;
    case 7:
        return 3e38f;
    case 8:
        return -100;
    default:
        return value;
    }
}

static float make_value(const router_case *c, const pgr_random *random, int64_t at) {
    float value = draw(random, at);
    switch (c->data) {
    case TIED:
        return floorf(value * 1.5f);
    case ODD:
        return at / c->experts % 3 == 0 ? value : odd_value(value, at);
    case MASKED:
        return at % 3 == 1 || at / c->experts % 5 == 2 ? -INFINITY : value;
    case EQUAL:
        return 1;
    default:
        return value;
    }
}

/* The inputs of a case, and both sets of outputs. */
typedef struct outputs {
    int32_t *indices;
    float *weights;
    int64_t *counts, *aux;
    double *sums, *z;
} outputs;

static void *make_logits(const router_case *c) {
    pgr_random random = {7, pgr_random_tensor("logits"), 0};
    int64_t size = c->dtype == PGR_F32 ? 4 : 2, count = c->tokens * c->experts + c->skew;
    void *logits = host(count * size);
    for (int64_t i = 0; i < c->tokens * c->experts; i++) {
        float value = make_value(c, &random, i);
        if (c->dtype == PGR_F32)
            ((float *)logits)[c->skew + i] = value;
        else
            ((pgr_bf16 *)logits)[c->skew + i] = pgr_bf16_from_f32(value);
    }
    return logits;
}

static bool alike(double got, double want, double least) {
    if (isnan(got) || isnan(want))
        return isnan(got) && isnan(want);
    return got == want || fabs(got - want) <= tolerance * fabs(want) + least;
}

static void compare(const router_case *c, const outputs *got, const outputs *want) {
    const int64_t pairs = c->tokens * c->topk, cells = c->sequences * c->experts;
    if (memcmp(got->indices, want->indices, (size_t)pairs * 4) != 0) {
        tell(c, "other experts");
        for (int64_t i = 0; i < pairs; i++)
            if (got->indices[i] != want->indices[i]) {
                printf("  token %lld, choice %lld: %d, not %d\n", (long long)(i / c->topk),
                       (long long)(i % c->topk), got->indices[i], want->indices[i]);
                break;
            }
        return;
    }
    for (int64_t i = 0; i < pairs; i++)
        if (!alike(got->weights[i], want->weights[i], 1e-37)) {
            tell(c, "another weight");
            printf("  token %lld: %.9g, not %.9g\n", (long long)(i / c->topk), got->weights[i],
                   want->weights[i]);
            break;
        }
    if (memcmp(got->counts, want->counts, (size_t)c->experts * 8) != 0)
        tell(c, "other counts");
    if (!c->losses)
        return;
    if (memcmp(got->aux, want->aux, (size_t)cells * 8) != 0)
        tell(c, "other counts for the loss");
    for (int64_t i = 0; i < cells; i++)
        if (!alike(got->sums[i], want->sums[i], 1e-12)) {
            tell(c, "another sum of scores");
            printf("  cell %lld: %.17g, not %.17g\n", (long long)i, got->sums[i], want->sums[i]);
            break;
        }
    if (!alike(*got->z, *want->z, 1e-12)) {
        tell(c, "another z_sum");
        printf("  %.17g, not %.17g\n", *got->z, *want->z);
    }
}

static pgr_router_args make_args(const router_case *c, const outputs *o) {
    return (pgr_router_args){.dtype = c->dtype,
                             .tokens = c->tokens,
                             .experts = c->experts,
                             .topk = c->topk,
                             .score = c->score,
                             .pre_softmax = c->pre,
                             .groups = c->groups,
                             .group_topk = c->group_topk,
                             .scaling = c->scaling,
                             .sequences = c->sequences,
                             .indices = o->indices,
                             .weights = o->weights,
                             .tokens_per_expert = o->counts,
                             .aux_counts = c->losses ? o->aux : NULL,
                             .aux_score_sums = c->losses ? o->sums : NULL,
                             .z_sum = c->losses ? o->z : NULL};
}

static outputs make_outputs(const router_case *c, void *(*make)(const void *, int64_t)) {
    int64_t pairs = c->tokens * c->topk, cells = c->sequences * c->experts;
    return (outputs){make(NULL, pairs * 4), make(NULL, pairs * 4), make(NULL, c->experts * 8),
                     make(NULL, cells * 8), make(NULL, cells * 8), make(NULL, 8)};
}

static void *on_host(const void *data, int64_t bytes) {
    (void)data;
    return host(bytes);
}

static void run_router(router_case c) {
    c.sequences = c.sequences ? c.sequences : 1;
    c.scaling = c.scaling != 0 ? c.scaling : NAN;
    const int64_t size = c.dtype == PGR_F32 ? 4 : 2, cells = c.sequences * c.experts;
    const int64_t pairs = c.tokens * c.topk;
    uint8_t *logits = make_logits(&c), *valid = host(c.tokens);
    float *bias = host(c.experts * 4);
    pgr_random random = {8, pgr_random_tensor("bias"), -2};
    for (int64_t e = 0; e < c.experts; e++)
        bias[e] = c.data == SPREAD ? pgr_random_value(&random, e, PGR_F32) : 0;
    for (int64_t t = 0; t < c.tokens; t++)
        valid[t] = t % 4 != 1 && t != 6;
    outputs want = make_outputs(&c, on_host), there = make_outputs(&c, on_device);
    pgr_router_args args = make_args(&c, &want);
    args.logits = logits + c.skew * size;
    /* softmax has no bias, but with one the CPU takes its plain form, whose sums are in double */
    args.expert_bias = c.bias || c.score == PGR_SOFTMAX ? bias : NULL;
    args.valid = c.valid ? valid : NULL;
    must(cpu->ops->router(cpu, &args, NULL, &error), "the CPU's router");

    uint8_t *l = on_device(logits, (c.tokens * c.experts + c.skew) * size);
    uint8_t *v = on_device(valid, c.tokens);
    float *b = on_device(bias, c.experts * 4);
    args = make_args(&c, &there);
    args.logits = l + c.skew * size;
    args.expert_bias = c.bias ? b : NULL;
    args.valid = c.valid ? v : NULL;
    must(device->ops->router(device, &args, stream, &error), "router");
    outputs got = {fetch("indices", there.indices, pairs * 4),
                   fetch("weights", there.weights, pairs * 4),
                   fetch("counts", there.counts, c.experts * 8),
                   fetch("counts for the loss", there.aux, cells * 8),
                   fetch("sums", there.sums, cells * 8),
                   fetch("z_sum", there.z, 8)};
    compare(&c, &got, &want);
    cases_run++;
    drop(l), drop(v), drop(b);
    void *all[] = {logits,      valid,      bias,      want.indices, want.weights,
                   want.counts, want.aux,   want.sums, want.z,       got.indices,
                   got.weights, got.counts, got.aux,   got.sums,     got.z};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* Every number of experts in every form, with few, some and all experts chosen. */
static void test_experts(void) {
    static const int64_t experts[] = {1,   2,   3,   7,   8,   9,   33,  64,   100,
                                      128, 160, 255, 256, 257, 512, 513, 1000, 1024};
    for (size_t i = 0; i < sizeof experts / sizeof *experts; i++) {
        const int64_t e = experts[i], ks[] = {1, 2, 8, e > 40 ? 40 : e / 2, e};
        for (int j = 0; j < 5; j++) {
            if (ks[j] < 1 || ks[j] > e || (j == 4 && e > 300 && e != 1000))
                continue;
            for (int form = 0; form < 8; form++) {
                if (j != 2 && form != ((int)i + j) % 8) /* all forms once, the rest in turn */
                    continue;
                run_router((router_case){.tokens = e <= 8     ? 70
                                                   : e <= 128 ? 21
                                                              : 9,
                                         .experts = e,
                                         .topk = ks[j],
                                         .score = form < 4   ? PGR_SOFTMAX
                                                  : form < 6 ? PGR_SIGMOID
                                                             : PGR_SQRTSOFTPLUS,
                                         .pre = form == 2 || form == 3,
                                         .dtype = form % 2 ? PGR_BF16 : PGR_F32,
                                         .losses = form != 1,
                                         .bias = form == 4,
                                         .scaling = form == 5 ? 2.5 : 0,
                                         .skew = form == 7 ? 1 : 0});
            }
        }
    }
}

/* Equal logits, those that are not finite, rows of -inf, padded tokens, rows at any place. */
static void test_values(void) {
    static const int64_t experts[] = {5, 64, 130, 256, 600};
    for (size_t i = 0; i < sizeof experts / sizeof *experts; i++)
        for (int form = 0; form < 8; form++)
            for (int data = TIED + (form + (int)i) % 2; data <= EQUAL; data += 2)
                run_router((router_case){.tokens = 7,
                                         .experts = experts[i],
                                         .topk = experts[i] < 6 ? 3 : 6,
                                         .score = form < 4   ? PGR_SOFTMAX
                                                  : form < 6 ? PGR_SIGMOID
                                                             : PGR_SQRTSOFTPLUS,
                                         .pre = form == 2,
                                         .dtype = form % 2 ? PGR_BF16 : PGR_F32,
                                         .data = data,
                                         .losses = form % 2 == 0,
                                         .bias = form == 5,
                                         .valid = data != EQUAL,
                                         .skew = form});
}

static void test_groups(void) {
    static const int64_t shapes[][4] = {
        {256, 8, 8, 4}, {160, 6, 8, 3},    {64, 6, 8, 3},    {96, 4, 12, 4},  {128, 8, 4, 2},
        {60, 5, 5, 3},  {256, 64, 64, 32}, {256, 8, 2, 1},   {1024, 8, 8, 4}, {512, 10, 16, 5},
        {24, 12, 6, 6}, {8, 2, 4, 2},      {100, 30, 10, 3}, {16, 4, 8, 1},   {7, 3, 7, 3},
        {600, 9, 3, 1}, {300, 7, 100, 7},  {512, 33, 8, 4},  {40, 4, 2, 2}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int form = (int)i % 2; form < 10; form += 2)
            run_router((router_case){.tokens = 7,
                                     .experts = shapes[i][0],
                                     .topk = shapes[i][1],
                                     .groups = shapes[i][2],
                                     .group_topk = shapes[i][3],
                                     .score = form < 4   ? PGR_SOFTMAX
                                              : form < 8 ? PGR_SIGMOID
                                                         : PGR_SQRTSOFTPLUS,
                                     .pre = form == 1 || form == 2,
                                     .dtype = form % 3 == 2 ? PGR_BF16 : PGR_F32,
                                     .data = form == 3 || form == 6 ? TIED
                                             : form == 7            ? ODD
                                                                    : SPREAD,
                                     .losses = form != 4,
                                     .bias = form == 4 || form == 5 || form == 9,
                                     .valid = form == 5,
                                     .scaling = form == 5 ? 2.5 : 0});
}

/* Groups whose scores are equal sums of logits, most of them negative: bf16 keys carry the expert
 * in their low bits, which no score may see. */
static void test_group_ties(void) {
    for (int form = 0; form < 4; form++)
        for (int data = SPREAD; data <= TIED; data++)
            run_router((router_case){.tokens = 70,
                                     .experts = 64,
                                     .topk = form < 2 ? 16 : 32,
                                     .groups = 8,
                                     .group_topk = 4,
                                     .score = PGR_SOFTMAX,
                                     .pre = form % 2,
                                     .dtype = PGR_BF16,
                                     .data = data,
                                     .losses = true});
}

static void test_tokens(void) {
    static const int64_t shapes[][4] = {
        /* tokens, experts, topk, sequences */
        {0, 8, 2, 1},    {1, 8, 2, 1},     {1, 256, 8, 1},  {1, 1024, 4, 3},    {0, 64, 6, 4},
        {500, 8, 2, 1},  {403, 8, 2, 7},   {150, 64, 6, 2}, {101, 128, 8, 100}, {40, 128, 8, 64},
        {70, 256, 8, 1}, {20, 512, 10, 3}, {300, 3, 1, 1}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int form = 0; form < 3; form++)
            run_router((router_case){.tokens = shapes[i][0],
                                     .experts = shapes[i][1],
                                     .topk = shapes[i][2],
                                     .sequences = shapes[i][3],
                                     .score = form == 2 ? PGR_SIGMOID : PGR_SOFTMAX,
                                     .bias = form == 2,
                                     .losses = form != 1,
                                     .valid = form == 2,
                                     .dtype = form == 1 ? PGR_BF16 : PGR_F32});
}

/* The sums have the same bits each time, in whichever order the blocks end. */
static void test_again(void) {
    const router_case c = {.tokens = 200, .experts = 64, .topk = 6, .sequences = 1, .losses = true};
    double first[65];
    for (int round = 0; round < 2; round++) {
        void *logits = make_logits(&c), *l = on_device(logits, c.tokens * c.experts * 4);
        outputs there = make_outputs(&c, on_device);
        pgr_router_args args = make_args(&c, &there);
        args.logits = l;
        must(device->ops->router(device, &args, stream, &error), "router");
        double *sums = fetch("sums", there.sums, 64 * 8), *z = fetch("z_sum", there.z, 8);
        if (round == 0)
            memcpy(first, sums, 64 * 8), first[64] = *z;
        else if (memcmp(first, sums, 64 * 8) != 0 || first[64] != *z)
            FAIL("a second time the sums are others");
        drop(there.indices), drop(there.weights), drop(there.counts), drop(there.aux), drop(l);
        free(sums), free(z), free(logits);
    }
}

static void test_refusals(void) {
    if (strcmp(device->kind, "cuda") != 0)
        return;
    pgr_router_args args = {.tokens = 1, .experts = 1025, .topk = 2, .sequences = 1};
    if (device->ops->router(device, &args, stream, &error) != PGR_UNSUPPORTED ||
        !strstr(error.message, "1025"))
        FAIL("1025 experts: %s", error.message);
    args.topk = 1026;
    if (device->ops->router(device, &args, stream, &error) != PGR_INTERNAL)
        FAIL("more chosen than there are");
}

/* ---- capacity ------------------------------------------------------------------------------ */

/* Routed pairs, some tokens of padding; weights of few values, so that many are equal. */
static void run_capacity(int64_t tokens, int64_t topk, int64_t experts, int64_t capacity, bool tied,
                         pgr_drop_policy policy) {
    pgr_random random = {9, pgr_random_tensor("capacity"), 0};
    int64_t pairs = tokens * topk;
    int32_t *indices = host(pairs * 4);
    float *weights = host(pairs * 4);
    for (int64_t i = 0; i < pairs; i++) {
        float u = pgr_random_value(&random, i, PGR_F32), share = u * u;
        bool padding = i / topk % 9 == 4;
        indices[i] = padding ? -1 : (int32_t)((int64_t)(share * (float)experts) % experts);
        weights[i] = tied ? floorf(u * 4) / 4 : u;
        if (i % 57 == 3)
            weights[i] = i % 2 ? NAN : -0.0f;
    }
    uint8_t *want = host(pairs);
    pgr_capacity_args args = {indices, weights, tokens, topk, experts, capacity, policy, want};
    must(cpu->ops->capacity(cpu, &args, NULL, &error), "the CPU's capacity");
    void *i = on_device(indices, pairs * 4), *w = on_device(weights, pairs * 4);
    args.indices = i, args.weights = w, args.kept = on_device(NULL, pairs);
    must(device->ops->capacity(device, &args, stream, &error), "capacity");
    uint8_t *got = fetch("kept", args.kept, pairs);
    for (int64_t at = 0; at < pairs; at++)
        if (got[at] != want[at]) {
            FAIL("capacity %lld of %lld experts, %lld tokens, top %lld, %s, policy %d: pair %lld "
                 "of expert "
                 "%d and weight %g: %d, not %d",
                 (long long)capacity, (long long)experts, (long long)tokens, (long long)topk,
                 tied ? "tied" : "spread", (int)policy, (long long)at, indices[at], weights[at],
                 got[at], want[at]);
            break;
        }
    cases_run++;
    drop(i), drop(w);
    free(indices), free(weights), free(want), free(got);
}

static void test_capacity(void) {
    static const int64_t shapes[][3] = {{0, 2, 4},   {1, 1, 1},    {1, 3, 8},   {33, 2, 3},
                                        {400, 2, 8}, {300, 8, 64}, {900, 1, 5}, {120, 8, 1000}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int64_t pairs = shapes[i][0] * shapes[i][1], even = pairs / shapes[i][2];
        const int64_t capacities[] = {0, 1, even, 2 * even + 1, pairs, (int64_t)1 << 40};
        for (int c = 0; c < 6; c++)
            for (int form = 0; form < 4; form++)
                run_capacity(shapes[i][0], shapes[i][1], shapes[i][2], capacities[c], form % 2,
                             form / 2 ? PGR_DROP_POSITION : PGR_DROP_PROBS);
    }
}

/* ---- more than 2^31 logits ----------------------------------------------------------------- */

/* The last tokens of so many are routed as they are alone. */
static void test_large(void) {
    enum { EXPERTS = 1024, TOPK = 8, LAST = 5 };
    const int64_t tokens = ((int64_t)1 << 21) + 12345;
    if (!getenv("PGRUN_TEST_LARGE") || strstr(device->name, "Stand-in")) {
        printf("skipped: more than 2^31 logits (5 GiB; PGRUN_TEST_LARGE=1 runs them, not on a "
               "stand-in)\n");
        return;
    }
    void *logits = on_device(NULL, tokens * EXPERTS * 2);
    router_case c = {
        .tokens = tokens, .experts = EXPERTS, .topk = TOPK, .sequences = 1, .dtype = PGR_BF16};
    c.scaling = NAN;
    pgr_fill_args fill = {.out = logits,
                          .dtype = PGR_BF16,
                          .rows = tokens,
                          .cols = EXPERTS,
                          .ld = EXPERTS,
                          .random = {3, pgr_random_tensor("large"), 2},
                          .row_stride = EXPERTS};
    must(device->ops->fill(device, &fill, stream, &error), "fill");
    outputs there = make_outputs(&c, on_device);
    pgr_router_args args = make_args(&c, &there);
    args.logits = logits;
    must(device->ops->router(device, &args, stream, &error), "a large router");
    int32_t *indices = fetch("indices", there.indices, tokens * TOPK * 4);
    int64_t *counts = fetch("counts", there.counts, EXPERTS * 8), all = 0;
    for (int64_t e = 0; e < EXPERTS; e++)
        all += counts[e];
    if (all != tokens * TOPK)
        FAIL("%lld tokens counted, not %lld", (long long)all, (long long)(tokens * TOPK));
    c.tokens = LAST;
    pgr_bf16 *rows = host(LAST * EXPERTS * 2);
    must(device->ops->copy(device, rows, (pgr_bf16 *)logits + (tokens - LAST) * EXPERTS,
                           LAST * EXPERTS * 2, stream, &error),
         "copy");
    must(device->ops->stream_sync(device, stream, &error), "sync");
    outputs want = make_outputs(&c, on_host);
    args = make_args(&c, &want);
    args.logits = rows;
    must(cpu->ops->router(cpu, &args, NULL, &error), "the CPU's router");
    if (memcmp(indices + (tokens - LAST) * TOPK, want.indices, LAST * TOPK * 4) != 0)
        FAIL("the last of %lld tokens have other experts", (long long)tokens);
    drop(logits), drop(there.weights), drop(there.aux), drop(there.sums), drop(there.z);
    free(indices), free(counts), free(rows), free(want.indices), free(want.weights),
        free(want.counts);
    free(want.aux), free(want.sums), free(want.z);
}

/* ---- all ----------------------------------------------------------------------------------- */

static pgr_device *open_device(const char *kind) {
    const pgr_module *module;
    pgr_device_open_args args = {.local_size = 1, .threads = 1, .host = "test"};
    pgr_device *opened = NULL;
    if (pgr_module_open(kind, &module, &error) == PGR_OK)
        (void)module->device->open(&args, &opened, &error);
    return opened;
}

int main(int count, char **words) {
    const char *kind = count > 1 ? words[1] : "cpu";
    cpu = open_device("cpu");
    device = cpu ? open_device(kind) : NULL;
    if (!device) {
        printf("SKIPPED: no device of kind %s here: %s\n", kind, error.message);
        return SKIPPED;
    }
    printf("%s\n", device->name);
    if (strcmp(kind, "cpu") == 0)
        tolerance = 4e-6; /* its fast form sums 1,024 exponentials in f32 */
    must(device->ops->stream_create(device, 0, &stream, &error), "stream");
    test_experts();
    test_values();
    test_groups();
    test_group_ties();
    test_tokens();
    test_again();
    test_refusals();
    test_capacity();
    test_large();
    device->ops->stream_free(device, stream);
    device->ops->close(device);
    cpu->ops->close(cpu);
    printf("%d cases, %d failures\n", cases_run, failures);
    return failures > 0;
}
