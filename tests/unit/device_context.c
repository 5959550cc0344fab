/* device_context.c - device_test's cases of padding, split and gather, of one sequence and of
 * packed ones. */
#include <stdlib.h>

#include "device_check.h"

enum { MOST_PACKED = 5 };

typedef struct context_case {
    int64_t seq_len, padded, cp, row_bytes, share;
    int64_t sequences; /* packed; 0: one sequence */
    int64_t lengths[MOST_PACKED], paddeds[MOST_PACKED];
} context_case;

/* The row of the source that a rank's local row has, spelled out; -1 for padding. */
static int64_t place(const context_case *c, int64_t rank, int64_t local) {
    int64_t first = 0, length = c->seq_len, padded = c->padded;
    for (int64_t i = 0; i < c->sequences; i++) {
        length = c->lengths[i], padded = c->paddeds[i];
        if (local < padded / c->cp)
            break;
        local -= padded / c->cp;
        first += length;
    }
    int64_t chunk = padded / (2 * c->cp), position = local;
    if (c->cp > 1 && local < chunk)
        position = rank * chunk + local;
    else if (c->cp > 1)
        position = (2 * c->cp - 1 - rank) * chunk + local - chunk;
    return position < length ? first + position : -1;
}

/* cu_seqlens and, behind it, cu_padded of packed sequences in device memory; NULL without any. */
static int64_t *sums_on_device(const context_case *c) {
    int64_t sums[2 * (MOST_PACKED + 1)] = {0}, count = c->sequences + 1;
    int64_t *padded = sums + count;
    for (int64_t i = 0; i < c->sequences; i++) {
        sums[i + 1] = sums[i] + c->lengths[i];
        padded[i + 1] = padded[i] + c->paddeds[i];
    }
    return c->sequences ? on_device(sums, 2 * count * (int64_t)sizeof *sums) : NULL;
}

static pgr_context_args args_of(const context_case *c, const int64_t *sums) {
    return (pgr_context_args){.row_bytes = c->row_bytes,
                              .seq_len = c->seq_len,
                              .padded = c->padded,
                              .cp = c->cp,
                              .sequences = c->sequences,
                              .cu_seqlens = sums,
                              .cu_padded = sums ? sums + c->sequences + 1 : NULL};
}

/* Both ways, from and to places that are `skew` bytes off. */
static void run_context(const context_case *c, int64_t skew) {
    int64_t rows = c->padded / c->cp, whole = c->seq_len * c->row_bytes;
    int64_t bytes = c->padded * c->row_bytes + skew;
    uint8_t *sequence = host(whole), *want = host(bytes);
    for (int64_t i = 0; i < whole; i++)
        sequence[i] = (uint8_t)(1 + i * 131 % 251);
    for (int64_t at = 0; at < c->padded; at++) {
        int64_t global = place(c, at / rows, at % rows);
        for (int64_t b = 0; b < c->row_bytes; b++)
            want[skew + at * c->row_bytes + b] =
                global >= 0 ? sequence[global * c->row_bytes + b] : 0;
    }
    uint8_t *src = on_device(sequence, whole), *local = on_device(NULL, bytes);
    uint8_t *back = on_device(NULL, whole);
    int64_t *sums = sums_on_device(c);
    pgr_context_args args = args_of(c, sums);
    args.src = src;
    for (int64_t rank = 0; rank < c->cp; rank++)
        for (int64_t begin = 0; begin < rows; begin += c->share) {
            int64_t count = begin + c->share < rows ? c->share : rows - begin;
            args.dst = local + skew + (rank * rows + begin) * c->row_bytes;
            args.cp_rank = rank;
            args.local_begin = begin;
            args.local_rows = count;
            worked(device->ops->context_split(device, &args, stream, &error), "context_split");
        }
    args.src = local + skew;
    args.dst = back;
    worked(device->ops->context_gather(device, &args, stream, &error), "context_gather");
    expect("context_gather", back, sequence, whole);
    expect("context_split", local, want, bytes);
    drop(src);
    if (sums)
        drop(sums);
}

/* A packed case: each sequence padded to its chunks, the last to `whole` more. */
static context_case packed_case(const int64_t *lengths, int64_t sequences, int64_t cp,
                                int64_t row_bytes, int64_t share, int64_t whole) {
    context_case c = {.cp = cp, .row_bytes = row_bytes, .share = share, .sequences = sequences};
    int64_t chunks = cp > 1 ? 2 * cp : 1;
    for (int64_t i = 0; i < sequences; i++) {
        c.lengths[i] = lengths[i];
        c.paddeds[i] = (lengths[i] + chunks - 1) / chunks * chunks;
        c.paddeds[i] += i == sequences - 1 ? whole : 0;
        c.seq_len += c.lengths[i];
        c.padded += c.paddeds[i];
    }
    return c;
}

/* Random lengths over random sizes: the split agrees with the plain loop, and the gather gives the
 * rows back. */
static void random_packed(void) {
    static const int64_t row_bytes[] = {1, 2, 6, 16, 40, 130, 2048};
    uint64_t draws = 20261121;
    for (int i = 0; i < 100; i++) {
        int64_t lengths[MOST_PACKED], drawn[5];
        for (int d = 0; d < 5; d++) {
            draws = draws * 6364136223846793005u + 1442695040888963407u;
            drawn[d] = (int64_t)(draws >> 33);
        }
        int64_t cp = 1 + drawn[0] % 6, chunks = cp > 1 ? 2 * cp : 1;
        for (int s = 0; s < MOST_PACKED; s++)
            lengths[s] = 1 + (drawn[1] >> s) % (s % 2 ? 3 : 90);
        context_case c = packed_case(lengths, 1 + drawn[2] % MOST_PACKED, cp, row_bytes[i % 7],
                                     1 + drawn[3] % 50, chunks * (drawn[4] % 4));
        run_context(&c, drawn[4] % 16);
    }
}

void test_packed(void) {
    static const struct {
        int64_t lengths[MOST_PACKED], sequences, cp, row_bytes, share, whole;
    } cases[] = {
        {{5, 1, 8, 3}, 4, 2, 16, 3, 0},     {{5, 1, 8, 3}, 4, 1, 16, 7, 3},
        {{1, 1, 1, 1, 1}, 5, 4, 2, 5, 8},   {{1}, 1, 3, 7, 1, 6},
        {{3, 40, 1}, 3, 2, 100, 4, 4},      {{17, 64, 5, 33, 2}, 5, 4, 24, 9, 16},
        {{300, 1, 900}, 3, 2, 2050, 64, 8}, {{129, 1000, 7, 511}, 4, 4, 1024, 100, 0},
        {{64, 64}, 2, 2, 4096, 16, 4},
    };
    for (size_t i = 0; i < (quick ? 1 : sizeof cases / sizeof *cases); i++)
        for (int64_t skew = 0; skew < 16; skew += 1 + skew * 3) {
            context_case c = packed_case(cases[i].lengths, cases[i].sequences, cases[i].cp,
                                         cases[i].row_bytes, cases[i].share, cases[i].whole);
            run_context(&c, skew);
        }
}

void test_context(void) {
    static const int64_t cases[][5] = {
        {8, 8, 1, 64, 8},           {5, 7, 1, 7, 3},
        {8, 8, 2, 16, 1},           {5, 8, 2, 7, 3},
        {1, 16, 4, 1, 2},           {13, 48, 3, 24, 5},
        {63, 64, 8, 100, 3},        {0, 16, 4, 8, 4},
        {9, 16, 4, 4096, 4},        {1021, 1024, 4, 8192, 256},
        {1000, 1024, 2, 2050, 100},
    };
    for (size_t i = 0; i < (quick ? 2 : sizeof cases / sizeof *cases); i++)
        for (int64_t skew = 0; skew < 16; skew += 1 + skew * 3) {
            context_case c = {.seq_len = cases[i][0],
                              .padded = cases[i][1],
                              .cp = cases[i][2],
                              .row_bytes = cases[i][3],
                              .share = cases[i][4]};
            run_context(&c, skew);
        }
    if (!quick)
        random_packed();
}

/* Rows of 1 MiB, more than 2^32 bytes of them, split over cp = 2 and back: their first bytes. One
 * sequence, or the same rows packed. */
void large_context(bool packed) {
    enum { ROWS = 4099, PADDED = 4108, ROW = 1 << 20 };
    static const int64_t lengths[] = {1001, 3000, 98};
    context_case as = {.seq_len = ROWS, .padded = PADDED, .cp = 2, .row_bytes = ROW};
    if (packed)
        as = packed_case(lengths, 3, 2, ROW, 1, 4);
    int64_t *sums = sums_on_device(&as);
    void *src = NULL, *local = NULL;
    int64_t bytes = (int64_t)PADDED * ROW;
    if (worked(device->ops->alloc(device, PGR_MEMORY_DEVICE, bytes, &src, &error), "4 GiB") &&
        worked(device->ops->alloc(device, PGR_MEMORY_DEVICE, bytes, &local, &error), "4 GiB")) {
        pgr_context_args args = args_of(&as, sums);
        args.src = src;
        args.local_rows = PADDED / 2;
        for (int row = 0; row < ROWS; row++)
            worked(device->ops->set(device, (char *)src + (int64_t)row * ROW, (uint8_t)(row % 251),
                                    64, stream, &error),
                   "set");
        for (args.cp_rank = 0; args.cp_rank < 2; args.cp_rank++) {
            args.dst = (char *)local + args.cp_rank * (PADDED / 2) * ROW;
            worked(device->ops->context_split(device, &args, stream, &error), "a large split");
        }
        for (int64_t at = 0; at < PADDED; at++) {
            int64_t global = place(&as, at / (PADDED / 2), at % (PADDED / 2));
            uint8_t *got = to_host((char *)local + at * ROW, 1);
            if (*got != (global >= 0 ? global % 251 : 0))
                FAIL("row %lld of a large split is %u", (long long)at, *got);
            free(got);
        }
        worked(device->ops->set(device, src, POISON, bytes, stream, &error), "set");
        args.src = local;
        args.dst = src;
        worked(device->ops->context_gather(device, &args, stream, &error), "a large gather");
        uint8_t *last = to_host((char *)src + (int64_t)(ROWS - 1) * ROW, 1);
        if (*last != (ROWS - 1) % 251)
            FAIL("the last row of a large gather is %u", *last);
        free(last);
    }
    if (src)
        drop(src);
    if (local)
        drop(local);
    if (sums)
        drop(sums);
}
