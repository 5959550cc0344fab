/* cpu_context.c - padding, zig-zag split and gather of sequences: nothing but copies of ranges. */
#include <inttypes.h>
#include <string.h>

#include "context.h"
#include "cpu.h"

/* A run of local rows that lies in one piece of the padded sequence. */
typedef struct piece {
    int64_t local, global, rows;
} piece;

/* The two chunks of rank `cp_rank`: c and 2 cp - 1 - c of 2 cp (one piece where cp is 1). */
static int rank_pieces(const pgr_context_args *args, int64_t cp_rank, piece pieces[2]) {
    if (args->cp == 1) {
        pieces[0] = (piece){0, 0, args->padded};
        return 1;
    }
    int64_t chunk = args->padded / (2 * args->cp);
    pieces[0] = (piece){0, cp_rank * chunk, chunk};
    pieces[1] = (piece){chunk, (2 * args->cp - 1 - cp_rank) * chunk, chunk};
    return 2;
}

pgr_status pgr_cpu_context_split(pgr_device *device, const pgr_context_args *args,
                                 pgr_stream *stream, pgr_error *error) {
    (void)device, (void)stream;
    pgr_status status = pgr_context_check_split(args, error);
    if (status != PGR_OK)
        return status;
    int64_t end = args->local_begin + args->local_rows;
    piece pieces[2];
    int count = rank_pieces(args, args->cp_rank, pieces);
    char *dst = args->dst;
    const char *src = args->src;
    for (int i = 0; i < count; i++) {
        int64_t from = pieces[i].local, to = from + pieces[i].rows;
        from = from > args->local_begin ? from : args->local_begin;
        to = to < end ? to : end;
        if (from >= to)
            continue;
        int64_t global = pieces[i].global + (from - pieces[i].local);
        int64_t held = args->seq_len - global; /* rows of the piece that are not padding */
        held = held < 0 ? 0 : held > to - from ? to - from : held;
        char *out = dst + (from - args->local_begin) * args->row_bytes;
        if (held > 0)
            memcpy(out, src + global * args->row_bytes, (size_t)(held * args->row_bytes));
        if (held < to - from)
            memset(out + held * args->row_bytes, 0, (size_t)((to - from - held) * args->row_bytes));
    }
    return PGR_OK;
}

pgr_status pgr_cpu_context_gather(pgr_device *device, const pgr_context_args *args,
                                  pgr_stream *stream, pgr_error *error) {
    (void)device, (void)stream;
    pgr_status status = pgr_context_check(args, error);
    if (status != PGR_OK)
        return status;
    char *dst = args->dst;
    const char *src = args->src;
    for (int64_t rank = 0; rank < args->cp; rank++) {
        piece pieces[2];
        int count = rank_pieces(args, rank, pieces);
        for (int i = 0; i < count; i++) {
            int64_t held = args->seq_len - pieces[i].global;
            held = held > pieces[i].rows ? pieces[i].rows : held;
            if (held > 0)
                memcpy(dst + pieces[i].global * args->row_bytes,
                       src + (rank * (args->padded / args->cp) + pieces[i].local) * args->row_bytes,
                       (size_t)(held * args->row_bytes));
        }
    }
    return PGR_OK;
}
