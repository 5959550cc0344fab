/* gpu_bench_router.c - the router against its floor, the larger of bytes and instructions, and
 * against torch.topk and softmax. */
#include "gpu_bench.h"

#include <math.h>
#include <string.h>

typedef struct router_case {
    int64_t experts, topk, groups, group_topk;
} router_case;

typedef struct router_run {
    pgr_router_args args; /* of slot 0 */
    char *logits;
    int32_t *indices;
    float *weights;
    int64_t slots, logit_bytes;
} router_run;

/* ---- the floor ----------------------------------------------------------------------------- */

/* How many lanes of a warp share a token, each with 16 bytes of logits at a time: a power of two.
 */
static int lanes_of(int64_t experts, int64_t element) {
    int lanes = 1;
    while (lanes < 32 && lanes * (16 / element) < experts)
        lanes *= 2;
    return lanes;
}

/* The warp instructions that a token needs at least, by a count of the method and not of a compiled
 * kernel: tokens are shared by as many lanes as 16-byte loads cover (lanes_of), and the top-k is
 * found by k times the maximum over these lanes. Sources: the CUDA C programming guide on warp
 * reduce functions (redux.sync, 32-bit integers, sm_80 and later) and on 16-byte accesses.
 *
 *   of each logit, a 32nd of:
 *     1/4 or 1/8 (f32, bf16)     load of 16 bytes
 *     1 (bf16)                   widen
 *     2                          its order as an integer, in which NaN is the highest
 *     1                          maximum of the lane's
 *     2 (grouped)                the two best of its group
 *     4 (losses)                 subtract and scale, ex2, sum, scaled sum
 *   of each choice, by warp:
 *     1, or 2 log2(lanes) of     maximum over the lanes: one instruction for a whole warp
 *       fewer than 32
 *     4                          who has it, keep it, retire it, that lane's next
 *     2                          ex2 and sum of the weights
 *   of each group chosen:
 *     the maximum again, and 2
 *   once, by warp:
 *     8                          reciprocal, scale, two stores, count, addresses
 *
 * What is by warp serves 32 / lanes tokens at once. */
static double instructions(const router_case *c, pgr_dtype dtype, bool losses) {
    int64_t element = dtype == PGR_F32 ? 4 : 2;
    int lanes = lanes_of(c->experts, element);
    double maximum = lanes == 32 ? 1 : 2 * log2(lanes);
    double logit = (double)element / 16 + (dtype == PGR_BF16) + 3;
    logit += (c->groups ? 2 : 0) + (losses ? 4 : 0);
    double warp = (double)c->topk * (maximum + 6) + 8;
    if (c->groups)
        warp += (double)c->group_topk * (maximum + 2);
    return (double)c->experts * logit / 32 + warp * lanes / 32;
}

/* ---- one row ------------------------------------------------------------------------------- */

static pgr_status enqueue(gpu_bench *bench, void *context, int64_t i, pgr_error *error) {
    const router_run *run = context;
    pgr_router_args args = run->args;
    int64_t slot = i % run->slots, chosen = slot * args.tokens * args.topk;
    args.logits = run->logits + slot * run->logit_bytes;
    args.indices = run->indices + chosen;
    args.weights = run->weights + chosen;
    return bench->device->ops->router(bench->device, &args, bench->stream, error);
}

static void run_free(gpu_bench *bench, router_run *run) {
    gpu_free(bench, run->logits);
    gpu_free(bench, run->indices);
    gpu_free(bench, run->weights);
    gpu_free(bench, run->args.tokens_per_expert);
    gpu_free(bench, run->args.aux_counts);
    gpu_free(bench, run->args.aux_score_sums);
    gpu_free(bench, run->args.z_sum);
}

static pgr_status run_make(gpu_bench *bench, const router_case *c, pgr_dtype dtype, int64_t tokens,
                           bool losses, router_run *run, pgr_error *error) {
    pgr_router_args *a = &run->args;
    *run = (router_run){.logit_bytes = tokens * c->experts * (dtype == PGR_F32 ? 4 : 2)};
    run->slots = gpu_slots(bench, run->logit_bytes);
    *a = (pgr_router_args){.dtype = dtype,
                           .tokens = tokens,
                           .experts = c->experts,
                           .topk = c->topk,
                           .score = PGR_SOFTMAX,
                           .groups = c->groups,
                           .group_topk = c->group_topk,
                           .scaling = NAN,
                           .sequences = 1};
    int64_t chosen = run->slots * tokens * c->topk;
    pgr_status status = gpu_alloc(bench, run->slots * run->logit_bytes, &run->logits, error);
    if (status == PGR_OK)
        status = gpu_alloc(bench, chosen * 4, &run->indices, error);
    if (status == PGR_OK)
        status = gpu_alloc(bench, chosen * 4, &run->weights, error);
    if (status == PGR_OK)
        status = gpu_alloc(bench, c->experts * 8, &a->tokens_per_expert, error);
    if (status == PGR_OK && losses)
        status = gpu_alloc(bench, c->experts * 8, &a->aux_counts, error);
    if (status == PGR_OK && losses)
        status = gpu_alloc(bench, c->experts * 8, &a->aux_score_sums, error);
    if (status == PGR_OK && losses)
        status = gpu_alloc(bench, 8, &a->z_sum, error);
    if (status == PGR_OK)
        status =
            gpu_fill(bench, run->logits, "logits", run->slots * tokens, c->experts, dtype, error);
    return status;
}

static void print_row(gpu_bench *bench, const char *label, const char *key, const router_case *c,
                      pgr_dtype dtype, int64_t tokens, bool losses, double us) {
    double count = instructions(c, dtype, losses), all = (double)tokens;
    double bytes = (double)(c->experts * (dtype == PGR_F32 ? 4 : 2) + 8 * c->topk);
    double byte_us = 1e6 * all * bytes / bench->copy_rate;
    double issue_us = bench->issue_rate > 0 ? 1e6 * all * count / bench->issue_rate : NAN;
    double ratio = fmax(byte_us, issue_us > 0 ? issue_us : 0) / us;
    double torch = gpu_torch_us(bench, key);
    const char *aim = gpu_aim(bench, ratio, tokens >= 65536 ? 0.80 : 0);
    printf("%s %s %s %s %s %s %s  %s\n", label, gpu_number(us, 9, 2), gpu_number(byte_us, 9, 2),
           gpu_number(issue_us, 9, 2), gpu_number(ratio, 8, 3), gpu_number(torch, 9, 2),
           gpu_number(torch / us, 7, 2), aim);
    fflush(stdout);
    if (bench->json)
        fprintf(bench->json,
                "{\"bench\": \"router\", \"dtype\": \"%s\", \"experts\": %lld, \"topk\": %lld, "
                "\"groups\": %lld, \"group_topk\": %lld, \"tokens\": %lld, \"losses\": %s, "
                "\"time_us\": %s, \"floor_bytes_us\": %s, \"floor_instructions_us\": %s, "
                "\"warp_instructions_per_token\": %s, \"of_floor\": %s, \"torch_us\": %s, "
                "\"aim\": \"%s\"}\n",
                pgr_dtype_name(dtype), (long long)c->experts, (long long)c->topk,
                (long long)c->groups, (long long)c->group_topk, (long long)tokens,
                losses ? "true" : "false", gpu_json(us), gpu_json(byte_us), gpu_json(issue_us),
                gpu_json(count), gpu_json(ratio), gpu_json(torch), aim);
}

static void row(gpu_bench *bench, const router_case *c, pgr_dtype dtype, int64_t tokens,
                bool losses) {
    char key[80], label[80];
    snprintf(key, sizeof key, "router/%s/%lld/%lld/%lld/%lld/%lld/%d", pgr_dtype_name(dtype),
             (long long)c->experts, (long long)c->topk, (long long)c->groups,
             (long long)c->group_topk, (long long)tokens, losses);
    if (bench->list) {
        printf("%s\n", key);
        return;
    }
    snprintf(label, sizeof label, "router   %-5s %4lld %4lld %3lld/%-3lld %7lld %-6s",
             pgr_dtype_name(dtype), (long long)c->experts, (long long)c->topk, (long long)c->groups,
             (long long)c->group_topk, (long long)tokens, losses ? "yes" : "no");
    router_run run;
    pgr_error error;
    gpu_action action = {enqueue, &run, 0};
    pgr_status status = run_make(bench, c, dtype, tokens, losses, &run, &error);
    if (status == PGR_OK)
        status = gpu_measure(bench, &action, 1, &error);
    run_free(bench, &run);
    if (status == PGR_OK)
        print_row(bench, label, key, c, dtype, tokens, losses, action.us);
    else if (status == PGR_UNSUPPORTED || status == PGR_LIMIT)
        gpu_skip(bench, label, &error);
    else
        gpu_must(status, &error);
}

/* ---- all ----------------------------------------------------------------------------------- */

void gpu_bench_router(gpu_bench *bench) {
    static const router_case cases[] = {{8, 2, 0, 0},   {64, 6, 0, 0},  {128, 8, 0, 0},
                                        {256, 8, 0, 0}, {256, 8, 8, 4}, {512, 10, 0, 0}};
    static const int64_t all[] = {4096, 16384, 65536, 262144}, few[] = {65536}, tiny[] = {64};
    const int64_t *tokens = bench->tiny ? tiny : bench->quick ? few : all;
    int counts = bench->tiny || bench->quick ? 1 : 4;
    if (!bench->list)
        printf("#\n# router: the floor is the larger of bytes and instructions; torch is topk and "
               "softmax\n"
               "#        dtype  exp topk groups  tokens losses        us  bytes us  instr us of "
               "floor  torch us  torch/  aim >= 0.80\n");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int dtype = 0; dtype < 2; dtype++)
            for (int t = 0; t < counts; t++)
                for (int losses = 0; losses < 2; losses++)
                    row(bench, &cases[i], dtype ? PGR_BF16 : PGR_F32, tokens[t], losses);
}
