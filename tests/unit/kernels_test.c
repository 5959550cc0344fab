/* The CPU module's kernels against straightforward forms in double precision or byte by byte, on
 * odd shapes: strides wider than rows, tails, unaligned places, nothing at all. */
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bf16.h"
#include "comm.h"
#include "random.h"

extern const pgr_module cpu_module __asm__("pgr_module");

static pgr_device *device;
static pgr_error error;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != PGR_OK)                                                                      \
            fail_msg("%s: %s", #call, error.message);                                              \
    } while (0)

/* Device memory filled with 0xcd, so that what a kernel does not write shows. */
static void *poisoned(int64_t bytes) {
    void *out;
    OK(device->ops->alloc(device, PGR_MEMORY_DEVICE, bytes, &out, &error));
    assert_int_equal((uintptr_t)out % 64, 0);
    OK(device->ops->set(device, out, 0xcd, bytes, NULL, &error));
    return out;
}

static void drop(void *memory) {
    device->ops->free(device, PGR_MEMORY_DEVICE, memory);
}

/* ---- random -------------------------------------------------------------------------------- */

static void test_philox_vectors(void **state) {
    (void)state;
    /* Random123's kat_vectors, philox4x32 with 10 rounds: counter, key, result */
    static const uint32_t vectors[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        pgr_philox4x32(vectors[i], vectors[i] + 4, out);
        assert_memory_equal(out, vectors[i] + 6, sizeof out);
    }
    assert_true(pgr_random_tensor("a") == 0xaf63dc4c8601ec8cu); /* FNV-1a's published value */
}

static void test_random_range(void **state) {
    (void)state;
    pgr_random random = {7, pgr_random_tensor("w"), -3};
    double values[1001], sum = 0;
    pgr_random_values(&random, 5, 1001, PGR_F32, values);
    for (int i = 0; i < 1001; i++) {
        assert_true(values[i] >= -0.125 && values[i] < 0.125);
        assert_true(values[i] == pgr_random_value(&random, 5 + i, PGR_F32));
        sum += values[i];
    }
    assert_true(fabs(sum / 1001) < 0.01);
}

static void check_fill(pgr_dtype dtype, int64_t rows, int64_t cols, int64_t ld, int64_t origin,
                       int64_t row_stride, const int64_t *ids) {
    int64_t bytes = dtype == PGR_F32 ? 4 : 2;
    pgr_random random = {0x123456789abcdefu, pgr_random_tensor("x"), 1};
    char *memory = poisoned((rows * ld + 1) * bytes), *out = memory + bytes; /* unaligned */
    pgr_fill_args args = {out, dtype, rows, cols, ld, random, origin, row_stride, ids};
    OK(device->ops->fill(device, &args, NULL, &error));
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < ld; c++) {
            int64_t id = ids ? ids[r] : r;
            char want[4];
            memset(want, 0xcd, sizeof want);
            if (c < cols) {
                float value =
                    id < 0 ? 0 : pgr_random_value(&random, origin + id * row_stride + c, dtype);
                pgr_bf16 narrow = pgr_bf16_from_f32(value);
                memcpy(want, dtype == PGR_F32 ? (void *)&value : (void *)&narrow, (size_t)bytes);
            }
            assert_memory_equal(out + (r * ld + c) * bytes, want, (size_t)bytes);
        }
    }
    drop(memory);
}

static void test_fill(void **state) {
    (void)state;
    static const int64_t ids[5] = {3, -1, 0, 3, (int64_t)1 << 33};
    for (int d = 0; d < 2; d++) {
        pgr_dtype dtype = d ? PGR_BF16 : PGR_F32;
        for (int64_t cols = 1; cols <= 70; cols += 3)
            check_fill(dtype, 3, cols, cols + 5, cols * 7, 1000003, NULL);
        check_fill(dtype, 7, 65, 65, 3, 65, NULL); /* one run */
        check_fill(dtype, 5, 129, 140, 1, 77, ids);
        check_fill(dtype, 2, 33, 33, ((int64_t)1 << 34) - 17, 100, NULL); /* the counter's carry */
        check_fill(dtype, 0, 8, 8, 0, 8, NULL);
    }
}

static void test_bf16_rounding(void **state) {
    (void)state;
    assert_int_equal(pgr_bf16_from_f32(1.0f), 0x3f80);
    assert_int_equal(pgr_bf16_from_f32(1.00390625f), 0x3f80); /* a tie goes to the even one */
    assert_int_equal(pgr_bf16_from_f32(1.01171875f), 0x3f82); /* and here upwards */
    assert_int_equal(pgr_bf16_from_f32(1.00390637f), 0x3f81); /* just over a tie */
    assert_int_equal(pgr_bf16_from_f32(3.4e38f), 0x7f80);     /* overflow is infinity */
    assert_int_equal(pgr_bf16_from_f32(-INFINITY), 0xff80);
    assert_int_equal(pgr_bf16_from_f32(-0.0f), 0x8000);
    assert_true(isnan(pgr_bf16_to_f32(pgr_bf16_from_f32(NAN))));
    uint32_t low_nan = 0x7f800001; /* its payload is below bf16's bits */
    float value;
    memcpy(&value, &low_nan, sizeof value);
    assert_true(isnan(pgr_bf16_to_f32(pgr_bf16_from_f32(value))));
}

/* ---- linear -------------------------------------------------------------------------------- */

static double get(const void *data, pgr_dtype dtype, int64_t at) {
    return dtype == PGR_F32 ? ((const float *)data)[at]
                            : pgr_bf16_to_f32(((const pgr_bf16 *)data)[at]);
}

static void *random_matrix(const char *name, pgr_dtype dtype, int64_t rows, int64_t cols,
                           int64_t ld, int exponent) {
    void *out = poisoned(rows * ld * 4);
    pgr_fill_args args = {.out = out,
                          .dtype = dtype,
                          .rows = rows,
                          .cols = cols,
                          .ld = ld,
                          .random = {1, pgr_random_tensor(name), exponent},
                          .row_stride = cols};
    OK(device->ops->fill(device, &args, NULL, &error));
    return out;
}

static double reference(const pgr_linear_args *a, int64_t row, int64_t col) {
    double sum = a->bias ? get(a->bias, a->dtype, col) : 0;
    for (int64_t i = 0; i < a->k; i++)
        sum += get(a->x, a->dtype, row * a->ldx + i) * get(a->w, a->dtype, col * a->ldw + i);
    return sum;
}

static double activate(const pgr_linear_args *a, int64_t row, int64_t col) {
    double z = reference(a, row, col);
    if (a->activation == PGR_GELU)
        return 0.5 * z * (1 + tanh(sqrt(2 / M_PI) * (z + 0.044715 * z * z * z)));
    if (a->activation == PGR_SWIGLU)
        return z / (1 + exp(-z)) * reference(a, row, a->n / 2 + col);
    return z;
}

static void near(const char *what, double got, double want, double scale, pgr_dtype dtype) {
    double tolerance = scale * 2e-6 + (dtype == PGR_BF16 ? fabs(want) / 256 : fabs(want) * 2e-6);
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%s: got %.9g, want %.9g", what, got, want);
}

static void check_linear(int64_t m, int64_t n, int64_t k, pgr_dtype dtype, pgr_dtype y_dtype,
                         pgr_activation activation, bool bias, bool saved, int exponent) {
    int64_t outs = activation == PGR_SWIGLU ? n / 2 : n;
    pgr_linear_args a = {.m = m,
                         .n = n,
                         .k = k,
                         .ldx = k + 3,
                         .ldw = k + 1,
                         .ldy = outs + 2,
                         .dtype = dtype,
                         .y_dtype = y_dtype,
                         .activation = activation};
    void *x = random_matrix("x", dtype, m, k, a.ldx, exponent), *y = poisoned(m * a.ldy * 4);
    void *w = random_matrix("w", dtype, n, k, a.ldw, 0), *z = poisoned(m * n * 4);
    void *b = random_matrix("b", dtype, 1, n, n, 2);
    a.x = x, a.w = w, a.y = y, a.bias = bias ? b : NULL, a.saved = saved ? z : NULL;
    OK(device->ops->linear(device, &a, NULL, &error));
    double scale = sqrt((double)k + 1) * ldexp(4, exponent > 0 ? exponent : 0);
    if (activation == PGR_SWIGLU)
        scale *= scale;
    for (int64_t r = 0; r < m; r++) {
        for (int64_t c = 0; c < outs; c++)
            near("y", get(y, y_dtype, r * a.ldy + c), activate(&a, r, c), scale, y_dtype);
        uint8_t gap[8];
        memset(gap, 0xcd, sizeof gap);
        int64_t bytes = y_dtype == PGR_F32 ? 4 : 2;
        assert_memory_equal((char *)y + (r * a.ldy + outs) * bytes, gap, (size_t)(2 * bytes));
        for (int64_t c = 0; saved && c < n; c++)
            near("saved", get(z, dtype, r * n + c), reference(&a, r, c), scale, dtype);
    }
    drop(x), drop(y), drop(w), drop(z), drop(b);
}

static void test_linear(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 2, 1},    {3, 10, 7}, {17, 34, 33},
                                        {5, 600, 40}, {0, 8, 8},  {4, 6, 0}};
    static const pgr_activation activations[] = {PGR_NO_ACTIVATION, PGR_GELU, PGR_SWIGLU};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int act = 0; act < 3; act++)
            for (int form = 0; form < 12; form++)
                check_linear(shapes[s][0], shapes[s][1], shapes[s][2],
                             form % 3 ? PGR_BF16 : PGR_F32, form % 3 == 1 ? PGR_BF16 : PGR_F32,
                             activations[act], form / 3 % 2, form / 6, 0);
}

/* More columns and rows than one panel. */
static void test_linear_panels(void **state) {
    (void)state;
    check_linear(3, 4100, 5, PGR_F32, PGR_F32, PGR_GELU, true, false, 0);
    check_linear(3, 4101, 5, PGR_BF16, PGR_BF16, PGR_NO_ACTIVATION, true, true, 0);
    check_linear(3, 8202, 5, PGR_BF16, PGR_F32, PGR_SWIGLU, true, true, 0);
    check_linear(2051, 6, 5, PGR_BF16, PGR_BF16, PGR_GELU, true, true, 0);
    check_linear(2051, 6, 5, PGR_F32, PGR_F32, PGR_SWIGLU, true, false, 0);
}

/* Far into both tails of the activations. */
static void test_linear_large(void **state) {
    (void)state;
    check_linear(16, 64, 9, PGR_F32, PGR_F32, PGR_GELU, true, false, 7);
    check_linear(16, 64, 9, PGR_F32, PGR_F32, PGR_SWIGLU, true, false, 7);
}

static void test_linear_nan(void **state) {
    (void)state;
    static const pgr_activation activations[] = {PGR_NO_ACTIVATION, PGR_GELU, PGR_SWIGLU};
    for (int act = 0; act < 3; act++) {
        float x[2] = {NAN, 1}, w[4] = {1, 1, 1, 1}, y[2] = {0, 0};
        pgr_linear_args a = {.x = x,
                             .w = w,
                             .y = y,
                             .m = 1,
                             .n = 2,
                             .k = 2,
                             .ldx = 2,
                             .ldw = 2,
                             .ldy = 2,
                             .activation = activations[act]};
        OK(device->ops->linear(device, &a, NULL, &error));
        assert_true(isnan(y[0]));
    }
}

static void test_linear_refuses(void **state) {
    (void)state;
    float one = 1;
    pgr_linear_args a = {.x = &one,
                         .w = &one,
                         .y = &one,
                         .m = 1,
                         .n = 1,
                         .k = 1,
                         .ldx = 1,
                         .ldw = 1,
                         .ldy = (int64_t)1 << 31};
    assert_int_equal(device->ops->linear(device, &a, NULL, &error), PGR_LIMIT);
    assert_non_null(strstr(error.message, "2147483648"));
    a.ldy = 1;
    a.dtype = PGR_I32;
    assert_int_equal(device->ops->linear(device, &a, NULL, &error), PGR_UNSUPPORTED);
}

static void test_add_bias(void **state) {
    (void)state;
    for (int d = 0; d < 2; d++) {
        pgr_dtype dtype = d ? PGR_BF16 : PGR_F32;
        void *y = random_matrix("y", dtype, 5, 37, 40, 0);
        void *before = random_matrix("y", dtype, 5, 37, 40, 0);
        void *bias = random_matrix("b", dtype, 1, 37, 37, 1);
        pgr_bias_args args = {y, bias, 5, 37, 40, dtype};
        OK(device->ops->add_bias(device, &args, NULL, &error));
        for (int64_t i = 0; i < 5 * 40; i++) {
            float want = (float)get(before, dtype, i);
            if (i % 40 < 37)
                want += (float)get(bias, dtype, i % 40);
            if (dtype == PGR_BF16)
                want = pgr_bf16_to_f32(pgr_bf16_from_f32(want));
            float got = (float)get(y, dtype, i);
            assert_memory_equal(&got, &want, sizeof got);
        }
        drop(y), drop(before), drop(bias);
    }
}

/* ---- context ------------------------------------------------------------------------------- */

/* The place in the padded sequence of a cp rank's local row, word for word from DESIGN. */
static int64_t place(int64_t padded, int64_t cp, int64_t rank, int64_t local) {
    if (cp == 1)
        return local;
    int64_t chunk = padded / (2 * cp);
    return local < chunk ? rank * chunk + local : (2 * cp - 1 - rank) * chunk + local - chunk;
}

static void check_context(int64_t seq_len, int64_t padded, int64_t cp, int64_t row_bytes,
                          int64_t share) {
    uint8_t *src = poisoned(seq_len * row_bytes), *back = poisoned(seq_len * row_bytes);
    uint8_t *local = poisoned(padded * row_bytes + 1);
    for (int64_t i = 0; i < seq_len * row_bytes; i++)
        src[i] = (uint8_t)(1 + i * 131 % 251);
    int64_t rows = padded / cp;
    for (int64_t rank = 0; rank < cp; rank++) {
        for (int64_t begin = 0; begin < rows; begin += share) {
            int64_t count = begin + share < rows ? share : rows - begin;
            pgr_context_args args = {.src = src,
                                     .dst = local + (rank * rows + begin) * row_bytes,
                                     .row_bytes = row_bytes,
                                     .seq_len = seq_len,
                                     .padded = padded,
                                     .cp = cp,
                                     .cp_rank = rank,
                                     .local_begin = begin,
                                     .local_rows = count};
            OK(device->ops->context_split(device, &args, NULL, &error));
        }
        for (int64_t r = 0; r < rows; r++) {
            int64_t global = place(padded, cp, rank, r);
            for (int64_t b = 0; b < row_bytes; b++)
                assert_int_equal(local[(rank * rows + r) * row_bytes + b],
                                 global < seq_len ? src[global * row_bytes + b] : 0);
        }
    }
    assert_int_equal(local[padded * row_bytes], 0xcd);
    pgr_context_args args = {.src = local,
                             .dst = back,
                             .row_bytes = row_bytes,
                             .seq_len = seq_len,
                             .padded = padded,
                             .cp = cp};
    OK(device->ops->context_gather(device, &args, NULL, &error));
    assert_memory_equal(back, src, (size_t)(seq_len * row_bytes));
    drop(src), drop(back), drop(local);
}

static void test_context(void **state) {
    (void)state;
    static const int64_t cases[][3] = {{8, 8, 1},  {5, 7, 1},   {8, 8, 2},   {5, 8, 2},
                                       {1, 16, 4}, {13, 48, 3}, {63, 64, 8}, {9, 16, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int64_t share = 1; share <= cases[i][1]; share += 2)
            check_context(cases[i][0], cases[i][1], cases[i][2], i % 2 ? 7 : 64, share);
}

static void test_context_refuses(void **state) {
    (void)state;
    char row[64] = {0};
    pgr_context_args args = {
        .src = row, .dst = row + 32, .row_bytes = 1, .seq_len = 5, .padded = 6, .cp = 2};
    assert_int_equal(device->ops->context_split(device, &args, NULL, &error), PGR_INTERNAL);
    args.padded = 8;
    args.local_begin = 3;
    args.local_rows = 2;
    assert_int_equal(device->ops->context_split(device, &args, NULL, &error), PGR_INTERNAL);
}

/* Packed sequences whose sums are not what the rows say, or which cannot be cut into chunks. */
static void test_context_refuses_packed(void **state) {
    (void)state;
    static const int64_t real[] = {0, 3, 5}, good[] = {0, 4, 8};
    static const int64_t wrong[][3] = {{0, 4, 12}, {4, 4, 8}, {0, 6, 8}, {0, 2, 8}, {0, 8, 8}};
    char rows[64] = {0}, out[64];
    pgr_context_args args = {.src = rows,
                             .dst = out,
                             .row_bytes = 1,
                             .seq_len = 5,
                             .padded = 8,
                             .cp = 2,
                             .local_rows = 4,
                             .sequences = 2,
                             .cu_seqlens = real,
                             .cu_padded = good};
    OK(device->ops->context_split(device, &args, NULL, &error));
    OK(device->ops->context_gather(device, &args, NULL, &error));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        args.cu_padded = wrong[i];
        assert_int_equal(device->ops->context_split(device, &args, NULL, &error), PGR_INTERNAL);
        assert_int_equal(device->ops->context_gather(device, &args, NULL, &error), PGR_INTERNAL);
    }
    args.cu_padded = NULL;
    assert_int_equal(device->ops->context_split(device, &args, NULL, &error), PGR_INTERNAL);
    args.cu_padded = good;
    args.sequences = 0; /* the arrays of nothing */
    assert_int_equal(device->ops->context_split(device, &args, NULL, &error), PGR_INTERNAL);
}

/* Nobody listens; they do nothing, but are there. */
static void test_ranges(void **state) {
    (void)state;
    device->ops->range_begin(device, "one");
    device->ops->range_end(device);
}

/* ---- memory, streams, events --------------------------------------------------------------- */

static void test_memory(void **state) {
    (void)state;
    void *memory = NULL;
    OK(device->ops->alloc(device, PGR_MEMORY_PINNED, 0, &memory, &error));
    assert_non_null(memory);
    device->ops->free(device, PGR_MEMORY_PINNED, memory);
    assert_int_equal(
        device->ops->alloc(device, PGR_MEMORY_DEVICE, (int64_t)1 << 60, &memory, &error),
        PGR_LIMIT);
    assert_non_null(strstr(error.message, "1152921504606846976"));
    char from[5] = "abcd", to[5] = "";
    OK(device->ops->copy(device, to, from, 5, NULL, &error));
    assert_string_equal(to, "abcd");
    OK(device->ops->set(device, to, 'z', 2, NULL, &error));
    assert_string_equal(to, "zzcd");
}

static void test_events(void **state) {
    (void)state;
    pgr_stream *stream;
    pgr_event *begin, *end;
    bool done = false;
    double seconds = -1;
    OK(device->ops->stream_create(device, 1, &stream, &error));
    OK(device->ops->event_create(device, &begin, &error));
    OK(device->ops->event_create(device, &end, &error));
    assert_int_equal(device->ops->event_elapsed(device, begin, end, &seconds, &error),
                     PGR_INTERNAL);
    OK(device->ops->event_record(device, begin, stream, &error));
    OK(device->ops->stream_wait(device, stream, begin, &error));
    OK(device->ops->event_record(device, end, stream, &error));
    OK(device->ops->stream_sync(device, stream, &error));
    OK(device->ops->event_query(device, end, &done, &error));
    OK(device->ops->event_elapsed(device, begin, end, &seconds, &error));
    assert_true(done && seconds >= 0 && seconds < 10);
    device->ops->event_free(device, begin);
    device->ops->event_free(device, end);
    device->ops->stream_free(device, stream);
}

static void test_module(void **state) {
    (void)state;
    assert_int_equal(cpu_module.abi, PGR_MODULE_ABI);
    assert_string_equal(cpu_module.name, "cpu");
    assert_string_equal(device->kind, "cpu");
    assert_int_equal(device->threads, 1);
    assert_int_equal(strncmp(device->name, "cpu: ", 5), 0);
    assert_non_null(strstr(device->identity, "/cpu0"));
    const void *const *functions = (const void *const *)&cpu_module.device->open;
    size_t count = (sizeof(pgr_device_ops) - offsetof(pgr_device_ops, open)) / sizeof(void *);
    for (size_t i = 0; i < count; i++)
        assert_non_null(functions[i]);
}

/* ---- all ----------------------------------------------------------------------------------- */

static int open_device(void **state) {
    (void)state;
    pgr_device_open_args args = {.local_size = 1, .threads = 1};
    return cpu_module.device->open(&args, &device, &error) == PGR_OK ? 0 : -1;
}

static int close_device(void **state) {
    (void)state;
    device->ops->close(device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_vectors),
        cmocka_unit_test(test_random_range),
        cmocka_unit_test(test_fill),
        cmocka_unit_test(test_bf16_rounding),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_linear_panels),
        cmocka_unit_test(test_linear_large),
        cmocka_unit_test(test_linear_nan),
        cmocka_unit_test(test_linear_refuses),
        cmocka_unit_test(test_add_bias),
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_context_refuses),
        cmocka_unit_test(test_context_refuses_packed),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_module),
    };
    return cmocka_run_group_tests_name("kernels", tests, open_device, close_device);
}
