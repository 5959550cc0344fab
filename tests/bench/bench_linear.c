/* The linear layer's compute against bare cblas_sgemm of the same shard shape; bf16 against
 * widening both operands and calling it. Usage: bench_linear [threads] [rounds]. */
#include <cblas.h>
#include <unistd.h>

#include "bench.h"
#include "bf16.h"

typedef struct shape {
    int64_t m, n, k;
} shape;

static void gemm(const shape *s, const float *x, const float *w, float *y) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)s->m, (int)s->n, (int)s->k, 1, x,
                (int)s->k, w, (int)s->k, 0, y, (int)s->n);
}

__attribute__((optimize("O3"),
               target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"))) static void
widen(const pgr_bf16 *restrict in, float *restrict out, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        out[i] = pgr_bf16_to_f32(in[i]);
}

/* One shape in one dtype; `activation` decides the epilogue. */
static void measure(pgr_device *device, const shape *s, pgr_dtype dtype, pgr_activation activation,
                    int rounds) {
    int64_t bytes = dtype == PGR_F32 ? 4 : 2;
    int64_t outs = activation == PGR_SWIGLU ? s->n / 2 : s->n;
    void *x = bench_alloc(device, s->m * s->k * bytes),
         *w = bench_alloc(device, s->n * s->k * bytes);
    void *bias = bench_alloc(device, s->n * bytes), *y = bench_alloc(device, s->m * outs * bytes);
    float *wx = bench_alloc(device, s->m * s->k * 4), *ww = bench_alloc(device, s->n * s->k * 4);
    float *wy = bench_alloc(device, s->m * s->n * 4);
    bench_fill(device, x, "x", s->m, s->k, dtype, 0);
    bench_fill(device, w, "w", s->n, s->k, dtype, -5);
    bench_fill(device, bias, "b", 1, s->n, dtype, 0);
    bench_fill(device, wx, "x", s->m, s->k, PGR_F32, 0);
    bench_fill(device, ww, "w", s->n, s->k, PGR_F32, -5);
    pgr_linear_args args = {.x = x,
                            .w = w,
                            .bias = bias,
                            .y = y,
                            .m = s->m,
                            .n = s->n,
                            .k = s->k,
                            .ldx = s->k,
                            .ldw = s->k,
                            .ldy = outs,
                            .dtype = dtype,
                            .y_dtype = dtype,
                            .activation = activation};
    static bench_times ours, base;
    ours.count = base.count = 0;
    pgr_error error;
    for (int i = -2; i < rounds; i++) {
        double t0 = pgr_clock_seconds();
        if (device->ops->linear(device, &args, NULL, &error) != PGR_OK) {
            fprintf(stderr, "%s\n", error.message);
            exit(3);
        }
        double t1 = pgr_clock_seconds();
        if (dtype == PGR_BF16) {
            widen(x, wx, s->m * s->k);
            widen(w, ww, s->n * s->k);
        }
        gemm(s, wx, ww, wy);
        double t2 = pgr_clock_seconds();
        if (i >= 0) {
            bench_add(&ours, t1 - t0);
            bench_add(&base, t2 - t1);
        }
    }
    double flop = 2e-9 * (double)s->m * (double)s->n * (double)s->k;
    double a = bench_median(&ours), b = bench_median(&base);
    const char *act = activation == PGR_GELU     ? "gelu"
                      : activation == PGR_SWIGLU ? "swiglu"
                                                 : "none";
    printf("linear %-4s bias+%-6s threads=%d m=%-5lld n=%-5lld k=%-5lld %8.1f GFLOP/s  %s %8.1f "
           "GFLOP/s  ratio %.3f\n",
           dtype == PGR_F32 ? "f32" : "bf16", act, (int)device->threads, (long long)s->m,
           (long long)s->n, (long long)s->k, flop / a,
           dtype == PGR_F32 ? "cblas_sgemm" : "widen+sgemm", flop / b, b / a);
    fflush(stdout);
    void *all[] = {x, w, bias, y, wx, ww, wy};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        device->ops->free(device, PGR_MEMORY_DEVICE, all[i]);
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1, rounds = argc > 2 ? atoi(argv[2]) : 15;
    static const shape shapes[] = {
        {512, 1024, 1024},  {512, 4096, 1024},  {1024, 2048, 1024}, {2048, 1024, 1024},
        {2048, 2048, 1024}, {2048, 4096, 1024}, {2048, 1024, 4096},
    };
    pgr_device *device = bench_open(threads);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        measure(device, &shapes[i], PGR_F32, PGR_GELU, rounds);
        measure(device, &shapes[i], PGR_BF16, PGR_GELU, rounds);
    }
    measure(device, &shapes[4], PGR_F32, PGR_NO_ACTIVATION, rounds);
    measure(device, &shapes[4], PGR_F32, PGR_SWIGLU, rounds);
    device->ops->close(device);
    return 0;
}
