/* What the CUDA module decides without a GPU, from values of the test's own; and what its threads
 * do, run one after the other on the host against the CPU's kernels, bit for bit. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "comm.h"
#include "cuda_body.h"
#include "cuda_context.h"
#include "cuda_host.h"
#include "random.h"

extern const pgr_module cpu_module __asm__("pgr_module");

static pgr_device *cpu;
static pgr_error error;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != PGR_OK)                                                                      \
            fail_msg("%s: %s", #call, error.message);                                              \
    } while (0)

/* ---- which GPU, and why none --------------------------------------------------------------- */

static void refused(pgr_cuda_facts facts, pgr_status status, const char *const *words) {
    error.message[0] = '\0';
    assert_int_equal(pgr_cuda_facts_check(&facts, &error), status);
    assert_null(strchr(error.message, '\n'));
    for (; *words; words++)
        if (!strstr(error.message, *words))
            fail_msg("no \"%s\" in: %s", *words, error.message);
}

static void test_facts(void **state) {
    (void)state;
    pgr_cuda_facts good = {.count = 8, .driver_version = 13000, .toolkit_version = 13000};
    assert_int_equal(pgr_cuda_facts_check(&good, &error), PGR_OK);
    refused((pgr_cuda_facts){.code = PGR_CUDA_INSUFFICIENT_DRIVER, .toolkit_version = 13000},
            PGR_UNSUPPORTED, (const char *[]){"no NVIDIA driver", "run.device = \"cpu\"", NULL});
    refused((pgr_cuda_facts){.code = PGR_CUDA_INSUFFICIENT_DRIVER,
                             .driver_version = 12020,
                             .toolkit_version = 13010,
                             .driver = "535.104.05"},
            PGR_UNSUPPORTED, (const char *[]){"driver 535.104.05", "CUDA 12.2", "CUDA 13.1", NULL});
    refused((pgr_cuda_facts){.code = PGR_CUDA_NO_DEVICE, .driver_version = 13000, .visible = ""},
            PGR_UNSUPPORTED, (const char *[]){"CUDA_VISIBLE_DEVICES = \"\"", NULL});
    refused((pgr_cuda_facts){.count = 0, .driver_version = 13000}, PGR_UNSUPPORTED,
            (const char *[]){"finds no GPU", "nvidia-smi -L", NULL});
    refused((pgr_cuda_facts){.code = 999, .code_name = "cudaErrorUnknown", .driver_version = 13000},
            PGR_BACKEND, (const char *[]){"cudaGetDeviceCount", "cudaErrorUnknown", NULL});
}

static void test_index(void **state) {
    (void)state;
    for (int rank = 0; rank < 8; rank++) {
        assert_int_equal(pgr_cuda_index(rank, 8), rank);
        assert_int_equal(pgr_cuda_index(rank, 1), 0); /* each sees its own, or all the same */
        assert_int_equal(pgr_cuda_index(rank, 4), rank % 4);
    }
    assert_int_equal(pgr_cuda_index(-1, 8), 0);
}

static void test_small(void **state) {
    (void)state;
    assert_int_equal(pgr_cuda_priority(0, 0, -5), 0);
    assert_int_equal(pgr_cuda_priority(1, 0, -5), -1);
    assert_int_equal(pgr_cuda_priority(9, 0, -5), -5);
    assert_int_equal(pgr_cuda_priority(INT32_MIN, 0, -5), 0);
    assert_int_equal(pgr_cuda_alignment((void *)0x1000), 256);
    assert_int_equal(pgr_cuda_alignment((void *)0x1010), 16);
    assert_int_equal(pgr_cuda_alignment((void *)0x1001), 1);
    assert_int_equal(pgr_cuda_capability_check("x", 8, 0, &error), PGR_OK);
    assert_int_equal(pgr_cuda_capability_check("x", 12, 0, &error), PGR_OK);
    assert_int_equal(pgr_cuda_capability_check("Tesla T4", 7, 5, &error), PGR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "Tesla T4 has compute capability 7.5"));
    static const uint8_t uuid[16] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
                                     0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10};
    char text[PGR_CUDA_UUID_TEXT];
    pgr_cuda_uuid_text(uuid, text);
    assert_string_equal(text, "GPU-01234567-89ab-cdef-fedc-ba9876543210");
}

static void test_driver_text(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023",
         "535.104.05"},
        {"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build",
         "580.65.06"},
        {"", ""},
        {"no version 5 here x1.2", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[16];
        pgr_cuda_driver_text(rows[i][0], text, sizeof text);
        assert_string_equal(text, rows[i][1]);
    }
}

/* ---- threads ------------------------------------------------------------------------------- */

/* Launches of one thread, of a few, and of more than there is work. */
static const int64_t lanes[] = {1, 7, 256, 4096};

static void both_same(const char *what, const uint8_t *got, const uint8_t *want, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i++)
        if (got[i] != want[i])
            fail_msg("%s: byte %lld is %02x, not %02x", what, (long long)i, got[i], want[i]);
}

static uint8_t *poisoned(int64_t bytes) {
    uint8_t *memory = NULL;
    assert_int_equal(posix_memalign((void **)&memory, 64, (size_t)bytes + 64), 0);
    memset(memory, 0xcd, (size_t)bytes + 64);
    return memory;
}

static void check_fill(pgr_fill_args args, int64_t offset) {
    int64_t element = args.dtype == PGR_F32 ? 4 : 2, bytes = (args.rows * args.ld + 8) * element;
    float unit = ldexpf(1.0f, args.random.exponent - 23);
    uint8_t *want = poisoned(bytes);
    args.out = want + offset * element;
    OK(cpu->ops->fill(cpu, &args, NULL, &error));
    for (size_t l = 0; l < sizeof lanes / sizeof *lanes; l++) {
        uint8_t *got = poisoned(bytes);
        args.out = got + offset * element;
        for (int64_t i = 0; i < lanes[l]; i++)
            cuda_fill(&args, unit, (cuda_lane){i, lanes[l]});
        both_same("fill", got, want, bytes);
        free(got);
    }
    free(want);
}

static void test_fill(void **state) {
    (void)state;
    static const int64_t ids[5] = {3, -1, 0, 3, (int64_t)1 << 33};
    pgr_random random = {0x123456789abcdefu, pgr_random_tensor("x"), 1};
    for (int d = 0; d < 2; d++) {
        pgr_dtype dtype = d ? PGR_BF16 : PGR_F32;
        for (int64_t cols = 1; cols < 40; cols++)
            check_fill((pgr_fill_args){.dtype = dtype,
                                       .rows = 3,
                                       .cols = cols,
                                       .ld = cols + 3,
                                       .random = random,
                                       .origin = cols * 7,
                                       .row_stride = 1000003},
                       cols % 3);
        check_fill((pgr_fill_args){.dtype = dtype,
                                   .rows = 5,
                                   .cols = 33,
                                   .ld = 40,
                                   .random = random,
                                   .origin = 1,
                                   .row_stride = 77,
                                   .row_ids = ids},
                   1);
        check_fill((pgr_fill_args){.dtype = dtype,
                                   .rows = 2,
                                   .cols = 33,
                                   .ld = 33,
                                   .random = random,
                                   .origin = ((int64_t)1 << 34) - 17,
                                   .row_stride = 100},
                   0);
    }
}

static void check_bias(pgr_dtype dtype, int64_t cols, int64_t ld, int64_t lane_count) {
    enum { ROWS = 5 };
    uint8_t *got = poisoned(ROWS * ld * 4), *want = poisoned(ROWS * ld * 4);
    uint8_t *bias = poisoned(cols * 4);
    pgr_fill_args fill = {.out = got,
                          .dtype = dtype,
                          .rows = ROWS,
                          .cols = cols,
                          .ld = ld,
                          .random = {1, pgr_random_tensor("y"), 0},
                          .row_stride = cols};
    OK(cpu->ops->fill(cpu, &fill, NULL, &error));
    memcpy(want, got, (size_t)(ROWS * ld * 4));
    fill.out = bias, fill.rows = 1, fill.origin = 1000;
    OK(cpu->ops->fill(cpu, &fill, NULL, &error));
    pgr_bias_args args = {want, bias, ROWS, cols, ld, dtype};
    OK(cpu->ops->add_bias(cpu, &args, NULL, &error));
    args.y = got;
    for (int64_t i = 0; i < lane_count; i++)
        cuda_add_bias(&args, (cuda_lane){i, lane_count});
    both_same("bias", got, want, ROWS * ld * 4);
    free(got), free(want), free(bias);
}

static void test_add_bias(void **state) {
    (void)state;
    static const int64_t shapes[][2] = {{37, 40}, {32, 32}, {32, 40}, {40, 41}, {1, 1}};
    for (int d = 0; d < 2; d++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (size_t l = 0; l < sizeof lanes / sizeof *lanes; l++)
                check_bias(d ? PGR_BF16 : PGR_F32, shapes[s][0], shapes[s][1], lanes[l]);
    pgr_bias_args args = {(void *)64, (void *)64, 5, 32, 40, PGR_F32};
    assert_int_equal(cuda_bias_width(&args), 4);
    args.dtype = PGR_BF16;
    assert_int_equal(cuda_bias_width(&args), 8);
    args.bias = (void *)66;
    assert_int_equal(cuda_bias_width(&args), 1);
}

/* Every width that two places allow, with heads and tails of every length. */
static void test_ranges(void **state) {
    (void)state;
    uint8_t *src = poisoned(256), *dst = poisoned(256), *want = poisoned(256);
    for (int i = 0; i < 256; i++)
        src[i] = (uint8_t)(i * 37 + 11);
    for (int64_t from = 0; from < 16; from++)
        for (int64_t to = 0; to < 16; to++)
            for (int64_t bytes = 0; bytes < 70; bytes += 1 + bytes / 20)
                for (int64_t zeroed = 0; zeroed < 40; zeroed += 13) {
                    memset(dst, 0xcd, 256);
                    memset(want, 0xcd, 256);
                    memcpy(want + to, src + from, (size_t)bytes);
                    memset(want + to + bytes, 0, (size_t)zeroed);
                    for (int64_t i = 0; i < 3; i++) {
                        cuda_lane lane = {i, 3};
                        cuda_copy_bytes((char *)dst + to, (char *)src + from, bytes, lane);
                        cuda_zero_bytes((char *)dst + to + bytes, zeroed, lane);
                    }
                    both_same("range", dst, want, 256);
                }
    assert_int_equal(cuda_width((char *)src, (char *)src + 16), 16);
    assert_int_equal(cuda_width((char *)src, (char *)src + 24), 8);
    assert_int_equal(cuda_width((char *)src + 1, (char *)src + 4), 1);
    free(src), free(dst), free(want);
}

/* Up to the end of memory, beyond which the sanitizers see a read or a write. One thread moves four
 * accesses at once and the rest one by one. */
static void test_copies(void **state) {
    (void)state;
    for (int64_t bytes = 0; bytes < 300; bytes += 1 + bytes / 3)
        for (int64_t from = 0; from < 16; from++)
            for (int64_t to = 0; to < 16; to += 5) {
                uint8_t *src = malloc((size_t)(from + bytes)), *dst = malloc((size_t)(to + bytes));
                for (int64_t i = 0; i < bytes; i++)
                    src[from + i] = (uint8_t)(i * 37 + 11);
                cuda_copy_bytes((char *)dst + to, (char *)src + from, bytes, (cuda_lane){0, 1});
                if (bytes > 0)
                    assert_memory_equal(dst + to, src + from, (size_t)bytes);
                free(src), free(dst);
            }
}

/* A launch of a few blocks and threads. */
static void launch(const pgr_context_args *args, bool gather) {
    static const int64_t threads = 5;
    int64_t bytes = gather ? cuda_gather_bytes(args) : cuda_split_bytes(args);
    int64_t tile = gather ? 48 : 16; /* far less than a launch's, so that tiles begin anywhere */
    for (int64_t i = 0; i * tile < bytes; i++)
        for (int64_t lane = 0; lane < threads; lane++)
            cuda_context_tile(args, gather, bytes, tile, i, (cuda_lane){lane, threads});
}

static void check_split(pgr_context_args args) {
    int64_t bytes = args.local_rows * args.row_bytes + 32;
    uint8_t *got = poisoned(bytes), *want = poisoned(bytes);
    args.dst = want + 16;
    OK(cpu->ops->context_split(cpu, &args, NULL, &error));
    args.dst = got + 16;
    launch(&args, false);
    both_same("split", got, want, bytes);
    free(got), free(want);
}

static void check_gather(pgr_context_args args) {
    int64_t bytes = args.seq_len * args.row_bytes + 32;
    uint8_t *src = poisoned(args.padded * args.row_bytes);
    uint8_t *got = poisoned(bytes), *want = poisoned(bytes);
    for (int64_t i = 0; i < args.padded * args.row_bytes; i++)
        src[i] = (uint8_t)(i * 131 % 251);
    args.src = src;
    args.dst = want;
    OK(cpu->ops->context_gather(cpu, &args, NULL, &error));
    args.dst = got;
    launch(&args, true);
    both_same("gather", got, want, bytes);
    free(src), free(got), free(want);
}

/* Every rank's split, in shares of every length, and the gather. */
static void check_both(pgr_context_args args) {
    int64_t rows = args.padded / args.cp, bytes = args.seq_len * args.row_bytes;
    uint8_t *src = poisoned(bytes);
    for (int64_t at = 0; at < bytes; at++)
        src[at] = (uint8_t)(1 + at * 131 % 251);
    args.src = src;
    for (args.cp_rank = 0; args.cp_rank < args.cp; args.cp_rank++)
        for (int64_t share = 1; share <= rows; share += 2 + share / 8)
            for (int64_t begin = 0; begin < rows; begin += share) {
                args.local_begin = begin;
                args.local_rows = begin + share < rows ? share : rows - begin;
                check_split(args);
            }
    check_gather(args);
    free(src);
}

static void test_context(void **state) {
    (void)state;
    static const int64_t cases[][3] = {{8, 8, 1},  {5, 7, 1},   {8, 8, 2},   {5, 8, 2},
                                       {1, 16, 4}, {13, 48, 3}, {63, 64, 8}, {9, 16, 4}};
    static const int64_t row_bytes[] = {1, 7, 16, 24, 100};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t b = 0; b < sizeof row_bytes / sizeof *row_bytes; b++) {
            pgr_context_args args = {.row_bytes = row_bytes[b],
                                     .seq_len = cases[i][0],
                                     .padded = cases[i][1],
                                     .cp = cases[i][2]};
            check_both(args);
        }
}

/* Packed sequences of few tokens or many, of which some are empty, which a map of tokens never has
 * but which the kernels must stand; the last has more padding than it needs. */
static void test_packed(void **state) {
    (void)state;
    static const int64_t row_bytes[] = {1, 7, 16, 24, 100};
    uint64_t draws = 7;
    for (int i = 0; i < 200; i++) {
        int64_t real[10] = {0}, padded[10] = {0}, cp = 1 + i % 4;
        int64_t sequences = 1 + i % 9, chunks = cp > 1 ? 2 * cp : 1;
        for (int64_t j = 0; j < sequences; j++) {
            draws = draws * 6364136223846793005u + 1442695040888963407u;
            int64_t length = (int64_t)(draws >> 33) % (j % 3 ? 20 : 3);
            int64_t whole = (length + chunks - 1) / chunks * chunks;
            real[j + 1] = real[j] + length;
            padded[j + 1] = padded[j] + whole + (j == sequences - 1 ? chunks * (i % 3) : 0);
        }
        pgr_context_args args = {.row_bytes = row_bytes[i % 5],
                                 .seq_len = real[sequences],
                                 .padded = padded[sequences],
                                 .cp = cp,
                                 .sequences = sequences,
                                 .cu_seqlens = real,
                                 .cu_padded = padded};
        check_both(args);
    }
}

/* Rows beyond 2^31, of one sequence and of packed ones: where a gather finds a row, a split put it.
 */
static void test_large_pieces(void **state) {
    (void)state;
    static const int64_t real[] = {0, (INT64_C(1) << 33) + 5, (INT64_C(1) << 33) + 12,
                                   INT64_C(5) << 33};
    int64_t padded[] = {0, (INT64_C(1) << 33) + 8, (INT64_C(1) << 33) + 16, INT64_C(5) << 33};
    uint64_t draws = 3;
    padded[3] += 16;
    for (int i = 0; i < 4000; i++) {
        pgr_context_args args = {.cp = 4, .row_bytes = 1, .seq_len = real[3], .padded = padded[3]};
        if (i % 2) {
            args.sequences = 3;
            args.cu_seqlens = real;
            args.cu_padded = padded;
        }
        draws = draws * 6364136223846793005u + 1442695040888963407u;
        int64_t row = (int64_t)(draws % (uint64_t)args.seq_len), share = args.padded / args.cp;
        cuda_piece from = cuda_gather_piece(&args, row, -1);
        args.cp_rank = from.from / share;
        cuda_piece back = cuda_split_piece(&args, from.from % share, -1);
        assert_int_equal(back.from, row);
        assert_int_equal(back.rows, from.rows);
        assert_int_equal(back.sequence, from.sequence);
    }
}

/* Tiles are whole accesses, cover what there is, and are as many as there are blocks or more. */
static void test_tiles(void **state) {
    (void)state;
    assert_int_equal(cuda_context_tile_bytes(1, 1056), 4096);
    assert_int_equal(cuda_context_tile_bytes((int64_t)1 << 40, 1056), 65536);
    for (int64_t bytes = 1; bytes < (int64_t)1 << 34; bytes = bytes * 3 + 5) {
        int64_t tile = cuda_context_tile_bytes(bytes, 1056);
        assert_int_equal(tile % 16, 0);
        assert_true(tile == 4096 || bytes / tile <= 1056 || tile == 65536);
        assert_true(tile == 4096 || bytes / tile >= 1000);
    }
}

/* The epilogue against the CPU's whole linear layer: the product is of one term, which is exact, so
 * that only the activation may differ. */
static void check_epilogue(pgr_dtype dtype, pgr_dtype y_dtype, pgr_activation activation, bool bias,
                           bool saved) {
    enum { M = 5, N = 6 };
    float product[M * N];
    uint8_t x[M * 4], w[N * 4], b[N * 4], got[M * 8 * 4], want[M * 8 * 4], z[2][M * N * 4];
    memset(got, 0xcd, sizeof got), memset(want, 0xcd, sizeof want), memset(z, 0xcd, sizeof z);
    void *tensors[] = {x, w, b};
    static const int64_t sizes[] = {M, N, N};
    for (int i = 0; i < 3; i++) {
        pgr_fill_args fill = {.out = tensors[i],
                              .dtype = dtype,
                              .rows = 1,
                              .cols = sizes[i],
                              .ld = sizes[i],
                              .random = {1, 100 + (uint64_t)i, 1}};
        OK(cpu->ops->fill(cpu, &fill, NULL, &error));
    }
    for (int64_t i = 0; i < M * N; i++)
        product[i] = cuda_load(x, dtype, i / N) * cuda_load(w, dtype, i % N);
    pgr_linear_args args = {.x = x,
                            .w = w,
                            .bias = bias ? b : NULL,
                            .y = want,
                            .saved = saved ? z[0] : NULL,
                            .m = M,
                            .n = N,
                            .k = 1,
                            .ldx = 1,
                            .ldw = 1,
                            .ldy = 8,
                            .dtype = dtype,
                            .y_dtype = y_dtype,
                            .activation = activation};
    OK(cpu->ops->linear(cpu, &args, NULL, &error));
    args.y = got;
    args.saved = saved ? z[1] : NULL;
    for (int64_t first = 0; first < M; first += 2) { /* panels of two rows */
        cuda_epilogue e = {args, product + first * N, first, first + 2 < M ? 2 : M - first};
        for (int64_t i = 0; i < 7; i++)
            cuda_epilogue_apply(&e, (cuda_lane){i, 7});
    }
    int64_t outs = activation == PGR_SWIGLU ? N / 2 : N;
    for (int64_t i = 0; i < M * 8; i++) {
        if (i % 8 >= outs) {
            int64_t bytes = y_dtype == PGR_F32 ? 4 : 2;
            both_same("gap", got + i * bytes, want + i * bytes, bytes);
            continue;
        }
        double a = cuda_load(got, y_dtype, i), c = cuda_load(want, y_dtype, i);
        assert_true(fabs(a - c) <= fabs(c) * (y_dtype == PGR_F32 ? 1e-5 : 1.0 / 128) + 1e-6);
    }
    for (int64_t i = 0; saved && i < M * N; i++)
        assert_true(fabs(cuda_load(z[0], dtype, i) - cuda_load(z[1], dtype, i)) <= 1e-6);
}

static void test_epilogue(void **state) {
    (void)state;
    static const pgr_activation activations[] = {PGR_NO_ACTIVATION, PGR_GELU, PGR_SWIGLU};
    for (int act = 0; act < 3; act++)
        for (int form = 0; form < 12; form++)
            check_epilogue(form % 3 ? PGR_BF16 : PGR_F32, form % 3 == 1 ? PGR_BF16 : PGR_F32,
                           activations[act], form / 3 % 2, form / 6);
}

static int open_cpu(void **state) {
    (void)state;
    pgr_device_open_args args = {.local_size = 1, .threads = 1};
    return cpu_module.device->open(&args, &cpu, &error) == PGR_OK ? 0 : -1;
}

static int close_cpu(void **state) {
    (void)state;
    cpu->ops->close(cpu);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts),    cmocka_unit_test(test_index),
        cmocka_unit_test(test_small),    cmocka_unit_test(test_driver_text),
        cmocka_unit_test(test_fill),     cmocka_unit_test(test_add_bias),
        cmocka_unit_test(test_ranges),   cmocka_unit_test(test_context),
        cmocka_unit_test(test_copies),   cmocka_unit_test(test_packed),
        cmocka_unit_test(test_tiles),    cmocka_unit_test(test_large_pieces),
        cmocka_unit_test(test_epilogue),
    };
    return cmocka_run_group_tests_name("cuda_host", tests, open_cpu, close_cpu);
}
