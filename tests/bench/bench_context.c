/* Padding and zig-zag split, and the gather back, against memcpy of the same bytes.
 * Usage: bench_context [rounds]. */
#include "bench.h"

static void measure(pgr_device *device, int64_t seq_len, int64_t cp, int64_t row_bytes,
                    int rounds) {
    int64_t multiple = 2 * cp, padded = (seq_len + multiple - 1) / multiple * multiple;
    char *src = bench_alloc(device, seq_len * row_bytes);
    char *local = bench_alloc(device, padded * row_bytes);
    char *back = bench_alloc(device, padded * row_bytes);
    memset(src, 1, (size_t)(seq_len * row_bytes));
    pgr_context_args split = {.src = src,
                              .row_bytes = row_bytes,
                              .seq_len = seq_len,
                              .padded = padded,
                              .cp = cp,
                              .local_rows = padded / cp};
    pgr_context_args gather = split;
    gather.src = local;
    gather.dst = back;
    static bench_times s, g, base;
    s.count = g.count = base.count = 0;
    pgr_error error;
    for (int i = -3; i < rounds; i++) {
        double t0 = pgr_clock_seconds();
        for (int64_t rank = 0; rank < cp; rank++) {
            split.cp_rank = rank;
            split.dst = local + rank * (padded / cp) * row_bytes;
            device->ops->context_split(device, &split, NULL, &error);
        }
        double t1 = pgr_clock_seconds();
        memcpy(local, src, (size_t)(seq_len * row_bytes));
        double t2 = pgr_clock_seconds();
        device->ops->context_gather(device, &gather, NULL, &error);
        double t3 = pgr_clock_seconds();
        if (i >= 0) {
            bench_add(&s, t1 - t0);
            bench_add(&base, t2 - t1);
            bench_add(&g, t3 - t2);
        }
    }
    double gb = 1e-9 * (double)(seq_len * row_bytes), b = bench_median(&base);
    double ts = bench_median(&s), tg = bench_median(&g);
    printf("context split  seq=%-6lld padded=%-6lld cp=%-2lld row=%lldB  %6.2f GB/s  memcpy %6.2f "
           "GB/s  ratio %.3f\n",
           (long long)seq_len, (long long)padded, (long long)cp, (long long)row_bytes, gb / ts,
           gb / b, b / ts);
    printf("context gather seq=%-6lld padded=%-6lld cp=%-2lld row=%lldB  %6.2f GB/s  memcpy %6.2f "
           "GB/s  ratio %.3f\n",
           (long long)seq_len, (long long)padded, (long long)cp, (long long)row_bytes, gb / tg,
           gb / b, b / tg);
    device->ops->free(device, PGR_MEMORY_DEVICE, src);
    device->ops->free(device, PGR_MEMORY_DEVICE, local);
    device->ops->free(device, PGR_MEMORY_DEVICE, back);
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 41;
    pgr_device *device = bench_open(1);
    measure(device, 2041, 2, 4096, rounds);
    measure(device, 8185, 4, 4096, rounds);
    measure(device, 32761, 8, 4096, rounds);
    measure(device, 32761, 8, 2048, rounds);
    device->ops->close(device);
    return 0;
}
