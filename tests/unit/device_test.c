/* Every operation of a device against host references, by one table of cases: `device_test KIND
 * [quick]`; quick takes few of them.
 * Exit status 77, and a line that says why, where there is no such device here. Sums are compared
 * with double precision, everything else byte for byte; the router with the CPU module's. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"
#include "comm.h"
#include "device_check.h"
#include "random.h"

enum { SKIPPED = 77 };

pgr_device *device;
pgr_stream *stream;
pgr_error error;
int failures;
bool quick;
static pgr_device *cpu;
static int skips;

bool worked(pgr_status status, const char *what) {
    if (status == PGR_UNSUPPORTED && strstr(error.message, " yet")) {
        printf("skipped: %s\n", error.message);
        skips++;
    } else if (status != PGR_OK) {
        FAIL("%s: %s", what, error.message);
    }
    return status == PGR_OK;
}

/* ---- memory of the host and of the device -------------------------------------------------- */

void *host(int64_t bytes) {
    void *memory = malloc((size_t)bytes + 1);
    memset(memory, POISON, (size_t)bytes + 1);
    return memory;
}

void *on_device(const void *data, int64_t bytes) {
    void *memory = NULL;
    pgr_status status = device->ops->alloc(device, PGR_MEMORY_DEVICE, bytes, &memory, &error);
    if (status == PGR_OK)
        status = device->ops->set(device, memory, POISON, bytes, stream, &error);
    if (status == PGR_OK && data)
        status = device->ops->copy(device, memory, data, bytes, stream, &error);
    if (status == PGR_OK)
        status = device->ops->stream_sync(device, stream, &error);
    if (status != PGR_OK) {
        printf("FAIL device memory: %s\n", error.message);
        exit(1);
    }
    if ((uintptr_t)memory % 64 != 0)
        FAIL("memory at %p is not aligned to 64 bytes", memory);
    return memory;
}

void *to_host(const void *memory, int64_t bytes) {
    void *copy = host(bytes);
    pgr_status status = device->ops->copy(device, copy, memory, bytes, stream, &error);
    if (status == PGR_OK)
        status = device->ops->stream_sync(device, stream, &error);
    if (status != PGR_OK)
        FAIL("copy to the host: %s", error.message);
    return copy;
}

void drop(void *memory) {
    device->ops->free(device, PGR_MEMORY_DEVICE, memory);
}

void expect(const char *what, void *memory, void *want, int64_t bytes) {
    uint8_t *got = to_host(memory, bytes), *expected = want;
    for (int64_t i = 0; i < bytes; i++)
        if (got[i] != expected[i]) {
            FAIL("%s: byte %lld is %02x, not %02x", what, (long long)i, got[i], expected[i]);
            break;
        }
    free(got), free(want), drop(memory);
}

static void put(void *data, pgr_dtype dtype, int64_t at, float value) {
    if (dtype == PGR_F32)
        ((float *)data)[at] = value;
    else
        ((pgr_bf16 *)data)[at] = pgr_bf16_from_f32(value);
}

static double get(const void *data, pgr_dtype dtype, int64_t at) {
    return dtype == PGR_F32 ? ((const float *)data)[at]
                            : pgr_bf16_to_f32(((const pgr_bf16 *)data)[at]);
}

static int64_t element(pgr_dtype dtype) {
    return dtype == PGR_F32 ? 4 : 2;
}

/* ---- fill ---------------------------------------------------------------------------------- */

typedef struct fill_case {
    int64_t rows, cols, ld, origin, row_stride, offset; /* offset: elements from an aligned place */
    bool ids;
} fill_case;

static void run_fill(const fill_case *c, pgr_dtype dtype) {
    static const int64_t ids[5] = {3, -1, 0, 3, (int64_t)1 << 33};
    int64_t size = element(dtype), bytes = (c->rows * c->ld + c->offset + 4) * size;
    pgr_random random = {0x123456789abcdefu, pgr_random_tensor("x"), 1};
    uint8_t *want = host(bytes), *memory = on_device(NULL, bytes);
    int64_t *row_ids = c->ids ? on_device(ids, sizeof ids) : NULL;
    for (int64_t r = 0; r < c->rows; r++)
        for (int64_t col = 0; col < c->cols; col++) {
            int64_t id = c->ids ? ids[r] : r;
            float value = 0;
            if (id >= 0)
                value = pgr_random_value(&random, c->origin + id * c->row_stride + col, dtype);
            put(want, dtype, c->offset + r * c->ld + col, value);
        }
    pgr_fill_args args = {.out = memory + c->offset * size,
                          .dtype = dtype,
                          .rows = c->rows,
                          .cols = c->cols,
                          .ld = c->ld,
                          .random = random,
                          .origin = c->origin,
                          .row_stride = c->row_stride,
                          .row_ids = row_ids};
    worked(device->ops->fill(device, &args, stream, &error), "fill");
    expect("fill", memory, want, bytes);
    if (row_ids)
        drop(row_ids);
}

static void test_fill(pgr_dtype dtype) {
    static const fill_case cases[] = {
        {3, 1, 1, 0, 1000003, 0, false},   {3, 5, 8, 7, 1000003, 1, false},
        {7, 65, 65, 3, 65, 0, false},      {5, 129, 140, 1, 77, 3, true},
        {0, 8, 8, 0, 8, 0, false},         {2, 33, 33, ((int64_t)1 << 34) - 17, 100, 2, false},
        {300, 257, 257, 0, 257, 0, false}, {1, 100003, 100003, 5, 0, 1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        run_fill(&cases[i], dtype);
}

/* ---- bias ---------------------------------------------------------------------------------- */

static void test_bias(pgr_dtype dtype) {
    static const int64_t cases[][3] = {{5, 37, 40}, {1, 1, 1}, {0, 8, 8}, {300, 1024, 1024}};
    pgr_random random = {1, pgr_random_tensor("y"), 0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t rows = cases[i][0], cols = cases[i][1], ld = cases[i][2], size = element(dtype);
        uint8_t *want = host(rows * ld * size), *add = host(cols * size);
        for (int64_t at = 0; at < rows * ld; at++)
            put(want, dtype, at, pgr_random_value(&random, at, dtype));
        for (int64_t at = 0; at < cols; at++)
            put(add, dtype, at, pgr_random_value(&random, 1000000 + at, dtype));
        void *y = on_device(want, rows * ld * size), *bias = on_device(add, cols * size);
        for (int64_t at = 0; at < rows * ld; at++)
            if (at % ld < cols)
                put(want, dtype, at, (float)get(want, dtype, at) + (float)get(add, dtype, at % ld));
        pgr_bias_args args = {y, bias, rows, cols, ld, dtype};
        worked(device->ops->add_bias(device, &args, stream, &error), "add_bias");
        expect("add_bias", y, want, rows * ld * size);
        drop(bias), free(add);
    }
}

/* ---- linear -------------------------------------------------------------------------------- */

typedef struct linear_case {
    int64_t m, n, k, pad; /* pad: of each row stride */
} linear_case;

static void *random_matrix(uint64_t tensor, pgr_dtype dtype, int64_t count) {
    pgr_random random = {1, tensor, 0};
    void *data = host(count * element(dtype));
    for (int64_t i = 0; i < count; i++)
        put(data, dtype, i, pgr_random_value(&random, i, dtype));
    return data;
}

static double product(const pgr_linear_args *a, int64_t row, int64_t col) {
    double sum = a->bias ? get(a->bias, a->dtype, col) : 0;
    for (int64_t i = 0; i < a->k; i++)
        sum += get(a->x, a->dtype, row * a->ldx + i) * get(a->w, a->dtype, col * a->ldw + i);
    return sum;
}

static double activated(const pgr_linear_args *a, int64_t row, int64_t col) {
    double z = product(a, row, col);
    if (a->activation == PGR_GELU)
        return 0.5 * z * (1 + tanh(sqrt(2 / M_PI) * (z + 0.044715 * z * z * z)));
    if (a->activation == PGR_SWIGLU)
        return z / (1 + exp(-z)) * product(a, row, a->n / 2 + col);
    return z;
}

static bool near(const char *what, double got, double want, double scale, pgr_dtype dtype) {
    double tolerance = scale * 4e-6 + (dtype == PGR_BF16 ? fabs(want) / 256 : fabs(want) * 4e-6);
    if (fabs(got - want) <= tolerance)
        return true;
    FAIL("%s: got %.9g, want %.9g", what, got, want);
    return false;
}

/* What is added to the scale where a GPU's approximate tanh may be at work (cuBLASLt's epilogue in
 * bf16): it carries 2^-11, which GELU multiplies by z/2. */
static double approximate(const pgr_linear_args *a, int64_t row, int64_t col) {
    bool quick_tanh = a->activation == PGR_GELU && a->y_dtype == PGR_BF16;
    return quick_tanh ? fabs(product(a, row, col)) * 0x1p-11 / 4e-6 : 0;
}

/* `a` has host memory; the device's results against it. */
static void linear_compare(const pgr_linear_args *a, const void *y, const void *saved) {
    int64_t outs = a->activation == PGR_SWIGLU ? a->n / 2 : a->n;
    double scale =
        sqrt((double)a->k + 1) * (a->activation == PGR_SWIGLU ? 4 * sqrt((double)a->k + 1) : 4);
    bool good = true;
    for (int64_t r = 0; good && r < a->m; r++) {
        for (int64_t c = 0; good && c < outs; c++)
            good = near("linear", get(y, a->y_dtype, r * a->ldy + c), activated(a, r, c),
                        scale + approximate(a, r, c), a->y_dtype);
        for (int64_t c = 0; good && saved && c < a->n; c++)
            good = near("saved", get(saved, a->dtype, r * a->n + c), product(a, r, c), scale,
                        a->dtype);
        const uint8_t *gap = (const uint8_t *)y + (r * a->ldy + outs) * element(a->y_dtype);
        for (int64_t i = 0; i < (a->ldy - outs) * element(a->y_dtype) && good; i++) {
            good = gap[i] == POISON;
            if (!good)
                FAIL("linear wrote between the rows of y, in row %lld", (long long)r);
        }
    }
}

static void run_linear(const linear_case *c, pgr_dtype dtype, pgr_dtype y_dtype,
                       pgr_activation activation, bool bias, bool saved) {
    int64_t outs = activation == PGR_SWIGLU ? c->n / 2 : c->n;
    pgr_linear_args want = {.m = c->m,
                            .n = c->n,
                            .k = c->k,
                            .ldx = c->k + c->pad,
                            .ldw = c->k + c->pad,
                            .ldy = outs + c->pad,
                            .dtype = dtype,
                            .y_dtype = y_dtype,
                            .activation = activation};
    int64_t size = element(dtype), y_bytes = want.m * want.ldy * element(y_dtype);
    void *x = random_matrix(1, dtype, want.m * want.ldx), *b = random_matrix(3, dtype, want.n);
    void *w = random_matrix(2, dtype, want.n * want.ldw);
    want.x = x, want.w = w, want.bias = bias ? b : NULL;
    pgr_linear_args args = want;
    void *dx = on_device(x, want.m * want.ldx * size), *dw = on_device(w, want.n * want.ldw * size);
    void *db = on_device(b, want.n * size), *dz = on_device(NULL, want.m * want.n * size);
    void *dy = on_device(NULL, y_bytes);
    args.x = dx, args.w = dw, args.y = dy;
    args.bias = bias ? db : NULL;
    args.saved = saved ? dz : NULL;
    if (worked(device->ops->linear(device, &args, stream, &error), "linear")) {
        void *y = to_host(dy, y_bytes), *z = to_host(dz, want.m * want.n * size);
        linear_compare(&want, y, saved ? z : NULL);
        free(y), free(z);
    }
    drop(dx), drop(dw), drop(db), drop(dz), drop(dy), free(x), free(w), free(b);
}

static void test_linear(void) {
    static const linear_case cases[] = {{1, 2, 1, 0},    {3, 10, 7, 1},     {17, 34, 33, 3},
                                        {0, 8, 8, 0},    {4, 6, 0, 0},      {64, 128, 64, 0},
                                        {5, 600, 40, 8}, {130, 258, 72, 8}, {16, 64, 64, 1}};
    static const pgr_activation activations[] = {PGR_NO_ACTIVATION, PGR_GELU, PGR_SWIGLU};
    for (size_t i = 0; i < (quick ? 2 : sizeof cases / sizeof *cases); i++)
        for (int act = 0; act < 3; act++)
            for (int form = 0; form < 12; form++)
                run_linear(&cases[i], form % 3 ? PGR_BF16 : PGR_F32,
                           form % 3 == 1 ? PGR_BF16 : PGR_F32, activations[act], form / 3 % 2,
                           form / 6);
}

#include "device_batch.h"

/* ---- router -------------------------------------------------------------------------------- */

/* Against the CPU module; a device that is the CPU has unit/router and unit/router_oracle_cpu. */
static void test_router(pgr_dtype dtype) {
    enum { TOKENS = 37, EXPERTS = 24, TOPK = 3 };
    void *logits = random_matrix(9, dtype, TOKENS * EXPERTS);
    int32_t want_indices[TOKENS * TOPK];
    float want_weights[TOKENS * TOPK];
    int64_t want_counts[EXPERTS];
    void *dl = on_device(logits, TOKENS * EXPERTS * element(dtype));
    int32_t *indices = on_device(NULL, sizeof want_indices);
    float *weights = on_device(NULL, sizeof want_weights);
    int64_t *counts = on_device(NULL, sizeof want_counts);
    pgr_router_args args = {.logits = logits,
                            .dtype = dtype,
                            .tokens = TOKENS,
                            .experts = EXPERTS,
                            .topk = TOPK,
                            .score = PGR_SOFTMAX,
                            .scaling = 1,
                            .sequences = 1,
                            .indices = want_indices,
                            .weights = want_weights,
                            .tokens_per_expert = want_counts};
    worked(cpu->ops->router(cpu, &args, NULL, &error), "the CPU's router");
    args.logits = dl, args.indices = indices, args.weights = weights;
    args.tokens_per_expert = counts;
    if (worked(device->ops->router(device, &args, stream, &error), "router")) {
        int32_t *got = to_host(indices, sizeof want_indices);
        float *share = to_host(weights, sizeof want_weights);
        int64_t *seen = to_host(counts, sizeof want_counts);
        if (memcmp(got, want_indices, sizeof want_indices) != 0)
            FAIL("other experts than the CPU's");
        if (memcmp(seen, want_counts, sizeof want_counts) != 0)
            FAIL("other counts than the CPU's");
        for (int i = 0; i < TOKENS * TOPK; i++)
            if (!near("weight", share[i], want_weights[i], 1, PGR_F32))
                break;
        free(got), free(share), free(seen);
    }
    drop(dl), drop(indices), drop(weights), drop(counts), free(logits);
}

static void test_capacity(void) {
    static const int32_t indices[] = {0, 1, 0, 1, 0, 1, -1, -1, 0, 2};
    static const float weights[] = {.1f, .9f, .2f, .8f, .3f, .7f, 0, 0, .4f, .6f};
    for (int policy = 0; policy < 2; policy++) {
        uint8_t *want = host(10);
        int32_t *di = on_device(indices, sizeof indices);
        float *dw = on_device(weights, sizeof weights);
        uint8_t *kept = on_device(NULL, 10);
        pgr_capacity_args args = {indices, weights, 5, 2, 3, 2, (pgr_drop_policy)policy, want};
        worked(cpu->ops->capacity(cpu, &args, NULL, &error), "the CPU's capacity");
        args.indices = di, args.weights = dw, args.kept = kept;
        if (worked(device->ops->capacity(device, &args, stream, &error), "capacity"))
            expect("capacity", kept, want, 10);
        else
            drop(kept), free(want);
        drop(di), drop(dw);
    }
}

/* ---- memory, streams, events --------------------------------------------------------------- */

static void test_memory(void) {
    void *pinned = NULL, *none = NULL;
    if (!worked(device->ops->alloc(device, PGR_MEMORY_PINNED, 100, &pinned, &error), "pinned"))
        return;
    memset(pinned, 'p', 100); /* the host writes it */
    uint8_t *memory = on_device(NULL, 100), *want = host(100);
    memset(want, 'p', 100);
    memset(want + 7, 'z', 50);
    worked(device->ops->copy(device, memory, pinned, 100, stream, &error), "copy");
    worked(device->ops->set(device, memory + 7, 'z', 50, stream, &error), "set");
    expect("copy and set", memory, want, 100);
    device->ops->free(device, PGR_MEMORY_PINNED, pinned);
    pgr_status status =
        device->ops->alloc(device, PGR_MEMORY_DEVICE, (int64_t)1 << 60, &none, &error);
    if (status != PGR_LIMIT || none || !strstr(error.message, "1152921504606846976"))
        FAIL("2^60 bytes: status %d, %s", (int)status, error.message);
    if (device->ops->alloc(device, PGR_MEMORY_DEVICE, -1, &none, &error) != PGR_INTERNAL)
        FAIL("-1 bytes are given out");
    if (worked(device->ops->alloc(device, PGR_MEMORY_DEVICE, 0, &none, &error), "0 bytes"))
        drop(none);
}

/* A CPU does not say; a GPU has less while 64 MiB of it are held, and as much again after that. */
static void test_memory_left(void) {
    int64_t before = -1, held = -1, after = -1, bytes = (int64_t)64 << 20;
    void *memory = NULL;
    pgr_status status = device->ops->memory_left(device, &before, &error);
    if (strcmp(device->kind, "cpu") == 0) {
        if (status != PGR_UNSUPPORTED || before != -1)
            FAIL("a CPU's memory: status %d, %lld bytes", (int)status, (long long)before);
        return;
    }
    if (!worked(status, "memory left") ||
        !worked(device->ops->alloc(device, PGR_MEMORY_DEVICE, bytes, &memory, &error), "64 MiB"))
        return;
    worked(device->ops->memory_left(device, &held, &error), "memory left");
    drop(memory);
    worked(device->ops->memory_left(device, &after, &error), "memory left");
    if (held > before - bytes / 2 || after < held + bytes / 2)
        FAIL("%lld bytes left, %lld while 64 MiB are held, %lld after", (long long)before,
             (long long)held, (long long)after);
}

static void use_events(pgr_stream *other, pgr_event *begin, pgr_event *end) {
    bool done = false;
    double seconds = -1;
    uint8_t *memory = on_device(NULL, 1 << 20), *want = host(1 << 20);
    if (device->ops->event_elapsed(device, begin, end, &seconds, &error) != PGR_INTERNAL)
        FAIL("the time between events that were never recorded");
    worked(device->ops->event_record(device, begin, stream, &error), "record");
    worked(device->ops->set(device, memory, 1, 1 << 20, stream, &error), "set");
    worked(device->ops->event_record(device, end, stream, &error), "record");
    /* what the other stream does comes after what `end` marks */
    worked(device->ops->stream_wait(device, other, end, &error), "wait");
    worked(device->ops->set(device, memory, 2, 1 << 19, other, &error), "set");
    worked(device->ops->stream_sync(device, other, &error), "sync");
    worked(device->ops->event_query(device, end, &done, &error), "query");
    worked(device->ops->event_elapsed(device, begin, end, &seconds, &error), "elapsed");
    if (!done || seconds < 0 || seconds > 10)
        FAIL("done %d, %g seconds", done, seconds);
    memset(want, 2, 1 << 19);
    memset(want + (1 << 19), 1, 1 << 19);
    expect("two streams", memory, want, 1 << 20);
}

static void test_events(void) {
    pgr_stream *other = NULL;
    pgr_event *begin = NULL, *end = NULL;
    if (worked(device->ops->stream_create(device, 1, &other, &error), "stream") &&
        worked(device->ops->event_create(device, &begin, &error), "event") &&
        worked(device->ops->event_create(device, &end, &error), "event"))
        use_events(other, begin, end);
    if (end)
        device->ops->event_free(device, end);
    if (begin)
        device->ops->event_free(device, begin);
    if (other)
        device->ops->stream_free(device, other);
}

static void test_refusals(void) {
    float *one = on_device(NULL, 64);
    pgr_linear_args linear = {.x = one,
                              .w = one,
                              .y = one,
                              .m = 1,
                              .n = 1,
                              .k = 1,
                              .ldx = 1,
                              .ldw = 1,
                              .ldy = (int64_t)1 << 31};
    if (device->ops->linear(device, &linear, stream, &error) != PGR_LIMIT ||
        !strstr(error.message, "2147483648"))
        FAIL("a row stride of 2^31: %s", error.message);
    linear.ldy = 1;
    linear.dtype = PGR_I32;
    if (device->ops->linear(device, &linear, stream, &error) != PGR_UNSUPPORTED)
        FAIL("a product of integers");
    pgr_context_args context = {
        .src = one, .dst = one, .row_bytes = 1, .seq_len = 5, .padded = 6, .cp = 2};
    if (device->ops->context_split(device, &context, stream, &error) != PGR_INTERNAL)
        FAIL("6 rows split over cp = 2");
    context.padded = 8;
    context.sequences = 1;
    if (device->ops->context_gather(device, &context, stream, &error) != PGR_INTERNAL)
        FAIL("packed sequences without cu_seqlens");
    drop(one);
}

/* ---- indices that do not fit in 32 bits ---------------------------------------------------- */

/* The last elements of a tensor of more than 2^31, and one in its middle. */
static void large_fill(void) {
    enum { WINDOW = 37 };
    int64_t cols = ((int64_t)1 << 31) + 12345;
    pgr_random random = {3, pgr_random_tensor("large"), 0};
    void *memory = NULL;
    if (!worked(device->ops->alloc(device, PGR_MEMORY_DEVICE, cols * 2, &memory, &error), "4 GiB"))
        return;
    pgr_fill_args args = {.out = memory,
                          .dtype = PGR_BF16,
                          .rows = 1,
                          .cols = cols,
                          .ld = cols,
                          .random = random,
                          .origin = 5};
    if (worked(device->ops->fill(device, &args, stream, &error), "a large fill")) {
        const int64_t places[] = {0, ((int64_t)1 << 30) + 1, cols - WINDOW};
        for (int i = 0; i < 3; i++) {
            pgr_bf16 *got = to_host((pgr_bf16 *)memory + places[i], WINDOW * 2);
            for (int64_t at = 0; at < WINDOW; at++)
                if (pgr_bf16_to_f32(got[at]) !=
                    pgr_random_value(&random, 5 + places[i] + at, PGR_BF16))
                    FAIL("element %lld of a large fill", (long long)(places[i] + at));
            free(got);
        }
    }
    drop(memory);
}

static void test_large(void) {
    if (getenv("PGRUN_TEST_LARGE")) {
        large_fill();
        large_context(false);
        large_context(true);
        return;
    }
    printf("skipped: more than 2^31 elements (9 GiB; PGRUN_TEST_LARGE=1 runs them)\n");
    skips++;
}

/* ---- all ----------------------------------------------------------------------------------- */

/* NULL, with the reason in `error`, where it cannot be opened. */
static pgr_device *open_device(const char *kind) {
    const pgr_module *module;
    pgr_device_open_args args = {.local_size = 1, .threads = 1, .host = "test"};
    pgr_device *opened = NULL;
    if (pgr_module_open(kind, &module, &error) == PGR_OK)
        (void)module->device->open(&args, &opened, &error);
    return opened;
}

/* Every function is there, with or without the hardware. */
static void test_table(const char *kind) {
    const pgr_module *module;
    if (pgr_module_open(kind, &module, &error) != PGR_OK)
        return;
    const void *const *functions = (const void *const *)&module->device->open;
    size_t count = (sizeof(pgr_device_ops) - offsetof(pgr_device_ops, open)) / sizeof(void *);
    for (size_t i = 0; i < count; i++)
        if (!functions[i])
            FAIL("function %zu of module %s is not set", i, kind);
    if (strcmp(module->device->kind, kind) != 0)
        FAIL("module %s has a device of kind %s", kind, module->device->kind);
}

int main(int count, char **words) {
    const char *kind = count > 1 ? words[1] : "cpu";
    quick = count > 2 && strcmp(words[2], "quick") == 0;
    cpu = open_device("cpu");
    if (!cpu) {
        printf("FAIL the CPU: %s\n", error.message);
        return 1;
    }
    test_table(kind);
    device = open_device(kind);
    if (!device) {
        printf("SKIPPED: no device of kind %s here: %s\n", kind, error.message);
        return failures ? 1 : SKIPPED;
    }
    printf("%s, %s\n", device->name, device->identity);
    if (!worked(device->ops->stream_create(device, 0, &stream, &error), "stream"))
        return 1;
    test_memory_left();
    test_memory();
    test_events();
    for (int i = 0; i < 2; i++) {
        pgr_dtype dtype = i ? PGR_BF16 : PGR_F32;
        test_fill(dtype);
        test_bias(dtype);
        test_router(dtype);
    }
    test_context();
    test_packed();
    test_linear();
    test_batch();
    test_tf32();
    test_capacity();
    test_refusals();
    test_large();
    device->ops->stream_free(device, stream);
    device->ops->close(device);
    cpu->ops->close(cpu);
    printf("%d failures, %d skipped calls\n", failures, skips);
    return failures > 0;
}
