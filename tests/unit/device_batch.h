/* device_batch.h - a part of device_test.c: linear layers of several blocks, and TF32. */
#ifndef PGR_DEVICE_BATCH_H
#define PGR_DEVICE_BATCH_H

/* Blocks, whose places are apart, with SMs left free; and a bias at an odd place. */
typedef struct batch_case {
    int64_t batch, m, n, k, gap,
        skew; /* gap: rows between blocks; skew: elements before the bias */
} batch_case;

static void run_batch(const batch_case *c, pgr_dtype dtype, pgr_activation activation, bool saved) {
    int64_t outs = activation == PGR_SWIGLU ? c->n / 2 : c->n, size = element(dtype);
    int64_t rows = c->batch * (c->m + c->gap);
    pgr_linear_args args = {.m = c->m,
                            .n = c->n,
                            .k = c->k,
                            .ldx = c->k,
                            .ldw = c->k,
                            .ldy = outs,
                            .dtype = dtype,
                            .y_dtype = dtype,
                            .activation = activation,
                            .batch = c->batch,
                            .stride_x = (c->m + c->gap) * c->k,
                            .stride_y = (c->m + c->gap) * outs,
                            .stride_saved = (c->m + c->gap) * c->n,
                            .free_units = 16};
    char *x = random_matrix(1, dtype, rows * c->k), *w = random_matrix(2, dtype, c->n * c->k);
    char *b = random_matrix(3, dtype, c->n + c->skew);
    void *dx = on_device(x, rows * c->k * size), *dw = on_device(w, c->n * c->k * size);
    char *db = on_device(b, (c->n + c->skew) * size), *dy = on_device(NULL, rows * outs * size);
    void *dz = on_device(NULL, rows * c->n * size);
    args.x = dx, args.w = dw, args.bias = db + c->skew * size, args.y = dy;
    args.saved = saved ? dz : NULL;
    if (worked(device->ops->linear(device, &args, stream, &error), "blocks")) {
        char *y = to_host(dy, rows * outs * size), *z = to_host(dz, rows * c->n * size);
        for (int64_t block = 0; block < c->batch; block++) {
            pgr_linear_args want = args;
            want.x = x + block * args.stride_x * size;
            want.w = w, want.bias = b + c->skew * size;
            linear_compare(&want, y + block * args.stride_y * size,
                           saved ? z + block * args.stride_saved * size : NULL);
            char *gap = y + (block * args.stride_y + c->m * outs) * size;
            for (int64_t i = 0; i < c->gap * outs * size; i++)
                if ((uint8_t)gap[i] != POISON) {
                    FAIL("linear wrote between its blocks");
                    break;
                }
        }
        free(y), free(z);
    }
    drop(dx), drop(dw), drop(db), drop(dy), drop(dz), free(x), free(w), free(b);
}

static void test_batch(void) {
    static const batch_case cases[] = {{2, 3, 8, 16, 2, 0},   {4, 1, 34, 33, 0, 0},
                                       {3, 17, 64, 40, 1, 3}, {8, 5, 10, 34, 3, 1},
                                       {1, 7, 16, 8, 0, 1},   {2, 40, 258, 24, 7, 0}};
    static const pgr_activation activations[] = {PGR_NO_ACTIVATION, PGR_GELU, PGR_SWIGLU};
    for (size_t i = 0; i < (quick ? 2 : sizeof cases / sizeof *cases); i++)
        for (int form = 0; form < 12; form++)
            run_batch(&cases[i], form % 2 ? PGR_BF16 : PGR_F32, activations[form / 2 % 3],
                      form / 6);
}

/* f32 is f32 unless TF32 is asked for, which a device without it does not hear. 1 + 2^-12 has more
 * digits than TF32. */
static void test_tf32(void) {
    enum { M = 16, N = 16, K = 64 };
    float ones[M * K], fine[N * K];
    for (int i = 0; i < M * K; i++)
        ones[i] = 1, fine[i] = 1 + 0x1p-12f;
    void *x = on_device(ones, sizeof ones), *w = on_device(fine, sizeof fine);
    for (int asked = 0; asked < 2; asked++) {
        float *y = on_device(NULL, M * N * sizeof *y);
        pgr_linear_args args = {.x = x,
                                .w = w,
                                .y = y,
                                .m = M,
                                .n = N,
                                .k = K,
                                .ldx = K,
                                .ldw = K,
                                .ldy = N,
                                .activation = PGR_NO_ACTIVATION,
                                .tf32 = asked};
        if (worked(device->ops->linear(device, &args, stream, &error), "TF32")) {
            float *got = to_host(y, M * N * sizeof *y);
            double off = got[M * N - 1] / (K * (1 + 0x1p-12)) - 1;
            bool cut = fabs(off) > 0x1p-14;
            /* a GPU may, and the stand-in for one does */
            bool sure = asked && strstr(device->name, "Stand-in");
            if ((cut && !(asked && device->tf32)) || (sure && !cut) || fabs(off) > 0x1p-10)
                FAIL("TF32 %sasked for: the product is off by %g", asked ? "" : "not ", off);
            free(got);
        }
        drop(y);
    }
    drop(x), drop(w);
}

#endif
