/* gpu_bench_linear.c - linear layers of Llama-3-70B and Mixtral 8x7B in bf16, in the shapes that a
 * rank has at tp 1, 2, 4 and 8, against one bare call of cuBLASLt and against
 * torch.nn.functional.linear. */
#include "gpu_bench.h"

#include <math.h>
#include <string.h>

/* The unsharded layer: w [n, k]; column-parallel cuts n, row-parallel k. Sources: config.json of
 * meta-llama/Meta-Llama-3-70B (hidden 8192, ffn 28672, 64 heads, 8 kv heads, head_dim 128) and of
 * mistralai/Mixtral-8x7B-v0.1 (hidden 4096, ffn 14336, 32 heads, 8 kv heads, head_dim 128). */
typedef struct linear_layer {
    const char *model, *layer;
    int64_t tokens, n, k;
    bool row_parallel;
    const char *form; /* "plain", "bias", "gelu" (with bias) or "swiglu" (two halves of n) */
    bool bias;
} linear_layer;

static const linear_layer layers[] = {
    {"llama-3-70b", "qkv", 8192, 10240, 8192, false, "plain", false},
    {"llama-3-70b", "proj", 8192, 8192, 8192, true, "plain", false},
    {"llama-3-70b", "fc1", 8192, 57344, 8192, false, "plain", false},
    {"llama-3-70b", "fc1", 8192, 57344, 8192, false, "swiglu", false},
    {"llama-3-70b", "fc2", 8192, 8192, 28672, true, "plain", false},
    {"mixtral-8x7b", "qkv", 4096, 6144, 4096, false, "plain", false},
    {"mixtral-8x7b", "proj", 4096, 4096, 4096, true, "plain", false},
    {"mixtral-8x7b", "fc1", 4096, 28672, 4096, false, "plain", false},
    {"mixtral-8x7b", "fc1", 4096, 28672, 4096, false, "swiglu", false},
    {"mixtral-8x7b", "fc2", 4096, 4096, 14336, true, "plain", false},
    /* Neither model has a bias or GELU: the epilogues that cuBLASLt has, on a shape of theirs. */
    {"epilogue", "bias", 4096, 14336, 4096, false, "bias", true},
    {"epilogue", "gelu", 4096, 14336, 4096, false, "gelu", true},
};

typedef struct linear_run {
    pgr_linear_args args; /* of slot 0 */
    char *x, *w, *y, *bias;
    gpu_bare *bare;
    int64_t slots, x_bytes, w_bytes, y_bytes;
} linear_run;

static pgr_status enqueue(gpu_bench *bench, void *context, int64_t i, pgr_error *error) {
    const linear_run *run = context;
    pgr_linear_args args = run->args;
    int64_t slot = i % run->slots;
    args.x = run->x + slot * run->x_bytes;
    args.w = run->w + slot * run->w_bytes;
    args.y = run->y + slot * run->y_bytes;
    return bench->device->ops->linear(bench->device, &args, bench->stream, error);
}

static pgr_status enqueue_bare(gpu_bench *bench, void *context, int64_t i, pgr_error *error) {
    const linear_run *run = context;
    int64_t slot = i % run->slots;
    return gpu_bare_run(bench, run->bare, run->x + slot * run->x_bytes,
                        run->w + slot * run->w_bytes, run->y + slot * run->y_bytes, error);
}

static void run_free(gpu_bench *bench, linear_run *run) {
    gpu_bare_close(bench, run->bare);
    gpu_free(bench, run->x);
    gpu_free(bench, run->w);
    gpu_free(bench, run->y);
    gpu_free(bench, run->bias);
}

/* The pools, filled. y has room for the whole product, which a bare call writes where ours has
 * SwiGLU. */
static pgr_status pools_make(gpu_bench *bench, linear_run *run, pgr_error *error) {
    const pgr_linear_args *a = &run->args;
    run->x_bytes = 2 * a->m * a->k;
    run->w_bytes = 2 * a->n * a->k;
    run->y_bytes = 2 * a->m * a->n;
    run->slots = gpu_slots(bench, run->x_bytes + run->w_bytes);
    pgr_status status = gpu_alloc(bench, run->slots * run->x_bytes, &run->x, error);
    if (status == PGR_OK)
        status = gpu_alloc(bench, run->slots * run->w_bytes, &run->w, error);
    if (status == PGR_OK)
        status = gpu_alloc(bench, run->slots * run->y_bytes, &run->y, error);
    if (status == PGR_OK)
        status = gpu_alloc(bench, 2 * a->n, &run->bias, error);
    if (status == PGR_OK)
        status = gpu_fill(bench, run->x, "x", run->slots * a->m, a->k, PGR_BF16, error);
    if (status == PGR_OK)
        status = gpu_fill(bench, run->w, "w", run->slots * a->n, a->k, PGR_BF16, error);
    if (status == PGR_OK)
        status = gpu_fill(bench, run->bias, "b", 1, a->n, PGR_BF16, error);
    return status;
}

static pgr_status run_make(gpu_bench *bench, const linear_layer *l, int64_t m, int64_t n, int64_t k,
                           linear_run *run, pgr_error *error) {
    bool gelu = strcmp(l->form, "gelu") == 0, swiglu = strcmp(l->form, "swiglu") == 0;
    *run = (linear_run){.args = {.m = m,
                                 .n = n,
                                 .k = k,
                                 .ldx = k,
                                 .ldw = k,
                                 .ldy = swiglu ? n / 2 : n,
                                 .dtype = PGR_BF16,
                                 .y_dtype = PGR_BF16,
                                 .activation = gelu     ? PGR_GELU
                                               : swiglu ? PGR_SWIGLU
                                                        : PGR_NO_ACTIVATION}};
    pgr_status status = pools_make(bench, run, error);
    run->args.bias = l->bias ? run->bias : NULL;
    if (status == PGR_OK)
        status = gpu_bare_open(bench, m, n, k, run->args.bias, gelu, &run->bare, error);
    return status;
}

static void print_row(gpu_bench *bench, const linear_layer *l, int64_t tp, const char *label,
                      const char *key, const pgr_linear_args *a, const gpu_action *actions) {
    double us = actions[0].us, bare = actions[1].us, torch = gpu_torch_us(bench, key);
    double rate = 2e-6 * (double)a->m * (double)a->n * (double)a->k / us;
    const char *aim = gpu_aim(bench, bare / us, 0.97);
    printf("%s %s %s %s %s %s %s  %s\n", label, gpu_number(us, 10, 2), gpu_number(rate, 7, 1),
           gpu_number(bare, 10, 2), gpu_number(bare / us, 7, 3), gpu_number(torch, 10, 2),
           gpu_number(torch / us, 6, 2), aim);
    fflush(stdout);
    if (bench->json)
        fprintf(bench->json,
                "{\"bench\": \"linear\", \"model\": \"%s\", \"layer\": \"%s\", \"tp\": %lld, "
                "\"m\": %lld, \"n\": %lld, \"k\": %lld, \"dtype\": \"bf16\", \"form\": \"%s\", "
                "\"time_us\": %s, \"tflops\": %s, \"cublaslt_us\": %s, \"of_cublaslt\": %s, "
                "\"torch_us\": %s, \"aim\": \"%s\"}\n",
                l->model, l->layer, (long long)tp, (long long)a->m, (long long)a->n,
                (long long)a->k, l->form, gpu_json(us), gpu_json(rate), gpu_json(bare),
                gpu_json(bare / us), gpu_json(torch), aim);
}

static void row(gpu_bench *bench, const linear_layer *l, int64_t tp) {
    int64_t scale = bench->tiny ? 64 : 1, m = bench->tiny ? 16 : l->tokens;
    int64_t n = l->n / scale / (l->row_parallel ? 1 : tp),
            k = l->k / scale / (l->row_parallel ? tp : 1);
    char key[80], label[96];
    snprintf(key, sizeof key, "linear/bf16/%lld/%lld/%lld/%s", (long long)m, (long long)n,
             (long long)k, l->form);
    if (bench->list) {
        printf("%s\n", key);
        return;
    }
    snprintf(label, sizeof label, "linear   %-12s %-4s %2lld %6lld %6lld %6lld %-6s", l->model,
             l->layer, (long long)tp, (long long)m, (long long)n, (long long)k, l->form);
    linear_run run;
    pgr_error error;
    gpu_action actions[2] = {{enqueue, &run, 0}, {enqueue_bare, &run, 0}};
    pgr_status status = run_make(bench, l, m, n, k, &run, &error);
    if (status == PGR_OK)
        status = gpu_measure(bench, actions, 2, &error);
    if (status == PGR_OK)
        print_row(bench, l, tp, label, key, &run.args, actions);
    run_free(bench, &run);
    if (status == PGR_UNSUPPORTED || status == PGR_LIMIT)
        gpu_skip(bench, label, &error);
    else
        gpu_must(status, &error);
}

void gpu_bench_linear(gpu_bench *bench) {
    if (!bench->list)
        printf("#\n# linear: against one bare cuBLASLt call of that shape (with its own bias and "
               "GELU; "
               "without SwiGLU), and F.linear\n"
               "#        model        layer tp     m      n      k form           us TFLOP/s    "
               "bare us "
               "of bare   torch us torch/  aim >= 0.97\n");
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        for (int64_t tp = 1; tp <= (layers[i].bias ? 1 : 8); tp *= 2)
            if (bench->tiny || !bench->quick || layers[i].bias || tp == 8)
                row(bench, &layers[i], tp);
}
