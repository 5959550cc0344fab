/* cpu_context.c - padding, zig-zag split and gather of sequences: nothing but copies of ranges. */
#include <inttypes.h>
#include <string.h>

#include "context.h"
#include "cpu.h"

/* A chunk of a sequence on a rank: its first row among the rank's rows and, of what is not padding,
 * among the rows of the unpadded sequences; how many rows it has, and how many are no padding. */
typedef struct piece {
    int64_t local, real, rows, held;
} piece;

/* A sequence: its first row without and with padding, and its lengths. */
typedef struct span {
    int64_t real, start, length, padded;
} span;

static span span_of(const pgr_context_args *args, int64_t sequence) {
    const int64_t *real = args->cu_seqlens, *padded = args->cu_padded;
    if (args->sequences == 0)
        return (span){0, 0, args->seq_len, args->padded};
    return (span){real[sequence], padded[sequence], real[sequence + 1] - real[sequence],
                  padded[sequence + 1] - padded[sequence]};
}

/* Half 0 or 1 of what rank `cp_rank` holds of a sequence: chunk c, or 2 cp - 1 - c, of 2 cp (all of
 * it, then nothing, where cp is 1). */
static piece piece_of(const pgr_context_args *args, const span *s, int64_t cp_rank, int half) {
    int64_t chunks = args->cp > 1 ? 2 * args->cp : 1, rows = s->padded / chunks;
    int64_t chunk = half ? chunks - 1 - cp_rank : cp_rank, held = s->length - chunk * rows;
    if (args->cp == 1 && half)
        rows = held = 0;
    held = held < 0 ? 0 : held > rows ? rows : held;
    return (piece){s->start / args->cp + half * rows, s->real + chunk * rows, rows, held};
}

/* The part of a piece that is within the local rows asked for. */
static void split_piece(const pgr_context_args *args, const piece *p) {
    int64_t from = p->local, to = p->local + p->rows, end = args->local_begin + args->local_rows;
    from = from > args->local_begin ? from : args->local_begin;
    to = to < end ? to : end;
    if (from >= to)
        return;
    int64_t skipped = from - p->local, held = p->held - skipped;
    held = held < 0 ? 0 : held > to - from ? to - from : held;
    char *out = (char *)args->dst + (from - args->local_begin) * args->row_bytes;
    if (held > 0)
        memcpy(out, (const char *)args->src + (p->real + skipped) * args->row_bytes,
               (size_t)(held * args->row_bytes));
    if (held < to - from)
        memset(out + held * args->row_bytes, 0, (size_t)((to - from - held) * args->row_bytes));
}

pgr_status pgr_cpu_context_split(pgr_device *device, const pgr_context_args *args,
                                 pgr_stream *stream, pgr_error *error) {
    (void)device, (void)stream;
    pgr_status status = pgr_context_check_split(args, error);
    if (status == PGR_OK)
        status = pgr_context_check_packed(args, error);
    if (status != PGR_OK)
        return status;
    for (int64_t sequence = 0; sequence == 0 || sequence < args->sequences; sequence++) {
        span s = span_of(args, sequence);
        for (int half = 0; half < 2; half++) {
            piece p = piece_of(args, &s, args->cp_rank, half);
            split_piece(args, &p);
        }
    }
    return PGR_OK;
}

/* A sequence's pieces of every rank. */
static void gather_span(const pgr_context_args *args, const span *s) {
    for (int64_t rank = 0; rank < args->cp; rank++) {
        const char *src =
            (const char *)args->src + rank * (args->padded / args->cp) * args->row_bytes;
        for (int half = 0; half < 2; half++) {
            piece p = piece_of(args, s, rank, half);
            if (p.held > 0)
                memcpy((char *)args->dst + p.real * args->row_bytes,
                       src + p.local * args->row_bytes, (size_t)(p.held * args->row_bytes));
        }
    }
}

pgr_status pgr_cpu_context_gather(pgr_device *device, const pgr_context_args *args,
                                  pgr_stream *stream, pgr_error *error) {
    (void)device, (void)stream;
    pgr_status status = pgr_context_check(args, error);
    if (status == PGR_OK)
        status = pgr_context_check_packed(args, error);
    if (status != PGR_OK)
        return status;
    for (int64_t sequence = 0; sequence == 0 || sequence < args->sequences; sequence++) {
        span s = span_of(args, sequence);
        gather_span(args, &s);
    }
    return PGR_OK;
}
