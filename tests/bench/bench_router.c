/* The router against its floor: the bytes that it must move at the bandwidth of a read loop, or one
 * exp per logit at the speed of a plain vectorised loop, whichever takes longer. All in one run,
 * alternating. Without the losses' sums only the chosen logits need an exp, so bytes are the floor
 * that counts; `ratio` is to the larger of the two all the same. Usage: bench_router [rounds]
 * [tokens] [experts]. */
#include <math.h>

#include "bench.h"
#include "vec.h"

/* Reads everything once; eight sums, so that the loop waits for memory and not for additions. */
__attribute__((optimize("O3"))) PGR_CLONES static int64_t read_all(const int64_t *data,
                                                                   int64_t count) {
    int64_t sums[32] = {0}, total = 0;
    for (int64_t i = 0; i + 32 <= count; i += 32)
        for (int j = 0; j < 32; j++)
            sums[j] += data[i + j];
    for (int j = 0; j < 32; j++)
        total += sums[j];
    return total;
}

/* One exp per value, in a buffer that stays in the nearest cache. */
__attribute__((optimize("O3"))) PGR_CLONES static void
exp_all(const float *restrict in, float *restrict out, int64_t count, int64_t repeat) {
    for (int64_t r = 0; r < repeat; r++) {
        for (int64_t i = 0; i < count; i++)
            out[i] = vec_exp2(1.44269504f * vec_limit(in[i], 87.0f));
        __asm__ volatile("" : : "r"(out) : "memory");
    }
}

enum { CACHED = 2048 };

static void measure(pgr_device *device, int64_t tokens, int64_t experts, int64_t topk,
                    pgr_dtype dtype, bool sums, bool grouped, int rounds) {
    int64_t element = dtype == PGR_F32 ? 4 : 2, bytes = tokens * experts * element;
    void *logits = bench_alloc(device, bytes);
    int64_t spare_bytes = bytes > (64 << 20) ? bytes : 64 << 20;
    int64_t *spare = bench_alloc(device, spare_bytes);
    bench_fill(device, logits, "logits", tokens, experts, dtype, 1);
    double z, *score_sums = bench_alloc(device, experts * 8);
    float in[CACHED], out[CACHED], *expert_bias = bench_alloc(device, experts * 4);
    bench_fill(device, expert_bias, "bias", 1, experts, PGR_F32, -3);
    bench_fill(device, in, "in", 1, CACHED, PGR_F32, 1);
    pgr_router_args args = {.logits = logits,
                            .dtype = dtype,
                            .tokens = tokens,
                            .experts = experts,
                            .topk = topk,
                            .score = grouped ? PGR_SIGMOID : PGR_SOFTMAX,
                            .groups = grouped ? 8 : PGR_NIL,
                            .group_topk = grouped ? 4 : PGR_NIL,
                            .expert_bias = grouped ? expert_bias : NULL,
                            .scaling = grouped ? 2.5 : NAN,
                            .sequences = 1,
                            .indices = bench_alloc(device, tokens * topk * 4),
                            .weights = bench_alloc(device, tokens * topk * 4),
                            .tokens_per_expert = bench_alloc(device, experts * 8),
                            .aux_counts = sums ? bench_alloc(device, experts * 8) : NULL,
                            .aux_score_sums = sums ? score_sums : NULL,
                            .z_sum = sums ? &z : NULL};
    static bench_times ours, reading, exps;
    ours.count = reading.count = exps.count = 0;
    pgr_error error;
    volatile int64_t sink = 0;
    for (int i = -2; i < rounds; i++) {
        double t0 = pgr_clock_seconds();
        device->ops->router(device, &args, NULL, &error);
        double t1 = pgr_clock_seconds();
        sink += read_all(spare, spare_bytes / 8);
        double t2 = pgr_clock_seconds();
        exp_all(in, out, CACHED, tokens * experts / CACHED);
        double t3 = pgr_clock_seconds();
        if (i >= 0) {
            bench_add(&ours, t1 - t0);
            bench_add(&reading, t2 - t1);
            bench_add(&exps, t3 - t2);
        }
    }
    double ms = 1e3 * bench_median(&ours), exp_ms = 1e3 * bench_median(&exps);
    double rate = (double)spare_bytes / bench_median(&reading);
    double byte_ms = 1e3 * (double)(bytes + tokens * topk * 8) / rate;
    double floor_ms = byte_ms > exp_ms ? byte_ms : exp_ms;
    printf("router %-4s experts=%-3lld topk=%lld%s tokens=%lld losses=%-3s %8.2f ms  floor bytes "
           "%7.2f ms (%.1f GB/s) exp %7.2f ms  to bytes %.3f to exp %.3f%s  ratio %.3f\n",
           dtype == PGR_F32 ? "f32" : "bf16", (long long)experts, (long long)topk,
           grouped ? " sigmoid, bias, 4 of 8 groups" : "", (long long)tokens, sums ? "yes" : "no",
           ms, byte_ms, rate * 1e-9, exp_ms, byte_ms / ms, exp_ms / ms, sums ? "" : " (needs none)",
           floor_ms / ms);
    fflush(stdout);
    void *all[] = {expert_bias,
                   logits,
                   spare,
                   score_sums,
                   args.indices,
                   args.weights,
                   args.tokens_per_expert,
                   args.aux_counts};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        device->ops->free(device, PGR_MEMORY_DEVICE, all[i]);
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 21;
    int64_t tokens = argc > 2 ? atoll(argv[2]) : 65536;
    int64_t only = argc > 3 ? atoll(argv[3]) : 0;
    static const int64_t shapes[][2] = {{8, 2}, {64, 6}, {64, 8}, {256, 8}};
    pgr_device *device = bench_open(1);
    if (!only || only == 256) /* DeepSeek-V3's */
        for (int form = 0; form < 2; form++)
            measure(device, tokens, 256, 8, PGR_F32, form > 0, true, rounds);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int form = 0; form < 3 && (!only || only == shapes[i][0]); form++)
            measure(device, tokens, shapes[i][0], shapes[i][1], form == 2 ? PGR_BF16 : PGR_F32,
                    form > 0, false, rounds);
    device->ops->close(device);
    return 0;
}
