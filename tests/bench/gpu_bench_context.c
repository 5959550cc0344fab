/* gpu_bench_context.c - padding, split and gather of a sequence against a device copy of the same
 * bytes. */
#include "gpu_bench.h"

#include <math.h>
#include <string.h>

typedef struct context_case {
    int64_t seq_len, cp, row_bytes;
} context_case;

typedef struct context_run {
    pgr_context_args args; /* of slot 0 */
    char *whole, *local;   /* pools: the sequence, and what one rank or all ranks have of it */
    int64_t slots, whole_bytes, local_bytes;
    bool gather;
} context_run;

static int64_t moved(const context_run *run) {
    return run->gather ? run->args.seq_len * run->args.row_bytes : run->local_bytes;
}

static pgr_status enqueue(gpu_bench *bench, void *context, int64_t i, pgr_error *error) {
    const context_run *run = context;
    pgr_context_args args = run->args;
    int64_t slot = i % run->slots;
    char *whole = run->whole + slot * run->whole_bytes,
         *local = run->local + slot * run->local_bytes;
    args.src = run->gather ? local : whole;
    args.dst = run->gather ? whole : local;
    args.cp_rank = i / run->slots % args.cp;
    if (run->gather)
        return bench->device->ops->context_gather(bench->device, &args, bench->stream, error);
    return bench->device->ops->context_split(bench->device, &args, bench->stream, error);
}

/* The same bytes out of and into the same pools. */
static pgr_status enqueue_copy(gpu_bench *bench, void *context, int64_t i, pgr_error *error) {
    const context_run *run = context;
    int64_t slot = i % run->slots;
    char *whole = run->whole + slot * run->whole_bytes,
         *local = run->local + slot * run->local_bytes;
    char *dst = run->gather ? whole : local, *src = run->gather ? local : whole;
    return bench->device->ops->copy(bench->device, dst, src, moved(run), bench->stream, error);
}

static pgr_status run_make(gpu_bench *bench, const context_case *c, bool gather, context_run *run,
                           pgr_error *error) {
    int64_t multiple = 2 * c->cp, padded = (c->seq_len + multiple - 1) / multiple * multiple;
    *run = (context_run){.gather = gather,
                         .args = {.row_bytes = c->row_bytes,
                                  .seq_len = c->seq_len,
                                  .padded = padded,
                                  .cp = c->cp,
                                  .local_rows = padded / c->cp}};
    run->whole_bytes = padded * c->row_bytes;
    run->local_bytes = gather ? run->whole_bytes : padded / c->cp * c->row_bytes;
    run->slots = gpu_slots(bench, run->local_bytes);
    pgr_status status = gpu_alloc(bench, run->slots * run->whole_bytes, &run->whole, error);
    if (status == PGR_OK)
        status = gpu_alloc(bench, run->slots * run->local_bytes, &run->local, error);
    if (status == PGR_OK)
        status =
            gpu_fill(bench, run->whole, "x", 1, run->slots * run->whole_bytes / 2, PGR_BF16, error);
    if (status == PGR_OK)
        status =
            gpu_fill(bench, run->local, "y", 1, run->slots * run->local_bytes / 2, PGR_BF16, error);
    return status;
}

static void print_row(gpu_bench *bench, const char *label, const context_run *run,
                      const gpu_action *actions) {
    double ratio = actions[1].us / actions[0].us;
    double rate = 2e-3 * (double)moved(run) / actions[0].us;
    double copy_rate = 2e-3 * (double)moved(run) / actions[1].us;
    const char *aim = gpu_aim(bench, ratio, 0.90);
    printf("%s %s %s %s %s %s  %s\n", label, gpu_number(actions[0].us, 9, 2),
           gpu_number(rate, 8, 0), gpu_number(actions[1].us, 9, 2), gpu_number(copy_rate, 8, 0),
           gpu_number(ratio, 7, 3), aim);
    fflush(stdout);
    if (bench->json)
        fprintf(bench->json,
                "{\"bench\": \"context\", \"op\": \"%s\", \"seq_len\": %lld, \"padded\": %lld, "
                "\"cp\": %lld, \"row_bytes\": %lld, \"time_us\": %s, \"copy_us\": %s, "
                "\"of_copy\": %s, \"aim\": \"%s\"}\n",
                run->gather ? "gather" : "split", (long long)run->args.seq_len,
                (long long)run->args.padded, (long long)run->args.cp,
                (long long)run->args.row_bytes, gpu_json(actions[0].us), gpu_json(actions[1].us),
                gpu_json(ratio), aim);
}

static void row(gpu_bench *bench, const context_case *c, bool gather) {
    char label[80];
    snprintf(label, sizeof label, "%-8s %7lld %3lld %6lld",
             gather      ? "gather"
             : c->cp > 1 ? "split"
                         : "pad",
             (long long)c->seq_len, (long long)c->cp, (long long)c->row_bytes);
    context_run run;
    pgr_error error;
    gpu_action actions[2] = {{enqueue, &run, 0}, {enqueue_copy, &run, 0}};
    pgr_status status = run_make(bench, c, gather, &run, &error);
    if (status == PGR_OK)
        status = gpu_measure(bench, actions, 2, &error);
    if (status == PGR_OK)
        print_row(bench, label, &run, actions);
    gpu_free(bench, run.whole);
    gpu_free(bench, run.local);
    if (status == PGR_UNSUPPORTED || status == PGR_LIMIT)
        gpu_skip(bench, label, &error);
    else
        gpu_must(status, &error);
}

/* Rows of hidden 8192 and 2048 in bf16, and of one that 16 does not divide. */
void gpu_bench_context(gpu_bench *bench) {
    static const context_case all[] = {{32761, 1, 16384}, {32761, 2, 16384}, {131065, 8, 16384},
                                       {131065, 1, 4096}, {131065, 2, 4096}, {131065, 8, 4096},
                                       {131065, 4, 2050}, {8185, 2, 8192}};
    static const context_case few[] = {{32761, 1, 16384}, {131065, 8, 4096}};
    static const context_case tiny[] = {{13, 1, 64}, {13, 2, 64}, {29, 4, 50}};
    const context_case *cases = bench->tiny ? tiny : bench->quick ? few : all;
    size_t count = bench->tiny ? 3 : bench->quick ? 2 : sizeof all / sizeof *all;
    if (bench->list)
        return;
    printf(
        "#\n# context: padding and split of one rank's rows, gather of all, against a device copy "
        "of the same bytes\n"
        "#        seq_len  cp  row B        us     GB/s   copy us     GB/s of copy  aim >= "
        "0.90\n");
    for (size_t i = 0; i < count; i++) {
        row(bench, &cases[i], false);
        if (cases[i].cp > 1)
            row(bench, &cases[i], true);
    }
}
