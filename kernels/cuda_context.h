/* cuda_context.h - what one CUDA thread does in padding, split and gather: cuda_body.h goes on. */
#ifndef PGR_CUDA_CONTEXT_H
#define PGR_CUDA_CONTEXT_H

#include "cuda_body.h"

/* ---- ranges of bytes ----------------------------------------------------------------------- */

PGR_BOTH void cuda_zero(char *dst) {
    cuda_vector zero = {{0, 0, 0, 0}};
    cuda_vector_store(dst, zero);
}

/* The widest access, 16 bytes or less, for which the two sides are alike. */
PGR_BOTH int cuda_width(const char *dst, const char *src) {
    uintptr_t differ = ((uintptr_t)dst ^ (uintptr_t)src) | 16;
    return (int)(differ & (~differ + 1));
}

/* Bytes before the first place of `dst` that is aligned to `width`, at most `bytes`. */
PGR_BOTH int64_t cuda_head(const char *dst, int width, int64_t bytes) {
    int64_t head = (int64_t)((~(uintptr_t)dst + 1) & (uintptr_t)(width - 1));
    return head < bytes ? head : bytes;
}

/* A word at a place that is aligned to it. */
PGR_BOTH uint32_t cuda_word(const char *from) {
#ifdef __CUDA_ARCH__
    return *(const uint32_t *)from;
#else
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
#endif
}

/* Sixteen bytes from a place of which `width` says how it is aligned: as one access, as words, or
 * out of the five words that they lie in, of which each has one byte at least. Little-endian, as
 * GPUs and their hosts are. */
PGR_BOTH cuda_vector cuda_gather_vector(const char *from, int width) {
    cuda_vector v;
    if (width == 16)
        return cuda_vector_load(from);
    int shift = (int)((uintptr_t)from % 4);
    const char *words = from - shift;
    uint32_t low = cuda_word(words);
    for (int i = 0; i < 4; i++) {
        uint32_t high = shift || i < 3 ? cuda_word(words + 4 * (i + 1)) : 0;
        v.words[i] = (uint32_t)(((uint64_t)high << 32 | low) >> (8 * shift));
        low = high;
    }
    return v;
}

/* Accesses of 16 bytes to places of dst that are aligned to it; four loads are under way at once.
 */
PGR_BOTH void cuda_copy_units(char *dst, const char *src, int64_t units, int width,
                              cuda_lane lane) {
    int64_t i = lane.index;
    for (; i + 3 * lane.count < units; i += 4 * lane.count) {
        cuda_vector v[4];
        for (int k = 0; k < 4; k++)
            v[k] = cuda_gather_vector(src + (i + k * lane.count) * 16, width);
        for (int k = 0; k < 4; k++)
            cuda_vector_store(dst + (i + k * lane.count) * 16, v[k]);
    }
    for (; i < units; i += lane.count)
        cuda_vector_store(dst + i * 16, cuda_gather_vector(src + i * 16, width));
}

/* Single bytes up to the first place of dst that is aligned to 16, accesses of 16 bytes, single
 * bytes. Where dst and src are not alike, src is read by aligned words; no word is read that is not
 * wholly within the range, so that a few bytes more at its ends are moved one by one. */
PGR_BOTH void cuda_copy_bytes(char *dst, const char *src, int64_t bytes, cuda_lane lane) {
    int width = cuda_width(dst, src);
    int64_t head = cuda_head(dst, 16, bytes), end = bytes;
    if (width < 4) {
        head = head < 3 && head + 16 <= bytes ? head + 16 : head;
        end = bytes - 3;
    }
    int64_t units = end > head ? (end - head) / 16 : 0, tail = head + units * 16;
    if (width == 16) /* a constant, so that the loop has no other loads in it */
        cuda_copy_units(dst + head, src + head, units, 16, lane);
    else
        cuda_copy_units(dst + head, src + head, units, width, lane);
    for (int64_t i = lane.index; i < head; i += lane.count)
        dst[i] = src[i];
    for (int64_t i = tail + lane.index; i < bytes; i += lane.count)
        dst[i] = src[i];
}

PGR_BOTH void cuda_zero_bytes(char *dst, int64_t bytes, cuda_lane lane) {
    int64_t head = cuda_head(dst, 16, bytes), units = (bytes - head) / 16;
    for (int64_t i = lane.index; i < units; i += lane.count)
        cuda_zero(dst + head + i * 16);
    int64_t tail = head + units * 16;
    for (int64_t i = lane.index; i < head; i += lane.count)
        dst[i] = 0;
    for (int64_t i = tail + lane.index; i < bytes; i += lane.count)
        dst[i] = 0;
}

/* ---- sequences ----------------------------------------------------------------------------- */

/* Where sequence `i` begins, without and with padding; that of the last one's end, too. */
PGR_BOTH int64_t cuda_real(const pgr_context_args *args, int64_t i) {
    return args->sequences ? args->cu_seqlens[i] : i ? args->seq_len : 0;
}

PGR_BOTH int64_t cuda_padded(const pgr_context_args *args, int64_t i) {
    return args->sequences ? args->cu_padded[i] : i ? args->padded : 0;
}

/* The sequence that holds row `row` of `cu`'s rows: the last that begins there or before, by a
 * binary search, or from `sequence` on where that is not -1. */
PGR_BOTH int64_t cuda_sequence(const pgr_context_args *args, const int64_t *cu, int64_t row,
                               int64_t sequence) {
    int64_t low = sequence, high = args->sequences;
    if (high == 0)
        return 0;
    for (; low >= 0 && row >= cu[low + 1]; low++)
        ;
    if (low >= 0)
        return low;
    for (low = 0; high - low > 1;) {
        int64_t middle = low + (high - low) / 2;
        if (cu[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* ---- pieces -------------------------------------------------------------------------------- */

/* Rows of the destination that come from neighbouring rows of the source, or are padding. */
typedef struct cuda_piece {
    int64_t from; /* the first one's row of the source; -1: padding */
    int64_t rows;
    int64_t sequence;
} cuda_piece;

/* What row `row` of a split's destination begins or goes on with. `sequence`: of an earlier row,
 * or -1. */
PGR_BOTH cuda_piece cuda_split_piece(const pgr_context_args *args, int64_t row, int64_t sequence) {
    int64_t at = args->local_begin + row, chunks = args->cp > 1 ? 2 * args->cp : 1;
    int64_t j = cuda_sequence(args, args->cu_padded, at * args->cp, sequence);
    int64_t start = cuda_padded(args, j), real = cuda_real(args, j);
    int64_t length = cuda_real(args, j + 1) - real;
    int64_t chunk_rows = (cuda_padded(args, j + 1) - start) / chunks;
    int64_t offset = at - start / args->cp;
    bool second = offset >= chunk_rows;
    int64_t chunk = second ? chunks - 1 - args->cp_rank : args->cp_rank;
    int64_t within = offset - (second ? chunk_rows : 0), position = chunk * chunk_rows + within;
    int64_t rows = chunk_rows - within, held = length - position;
    cuda_piece piece = {held > 0 ? real + position : -1, rows, j};
    if (held > 0 && held < rows)
        piece.rows = held;
    return piece;
}

/* The same of a gather's destination. */
PGR_BOTH cuda_piece cuda_gather_piece(const pgr_context_args *args, int64_t row, int64_t sequence) {
    int64_t chunks = args->cp > 1 ? 2 * args->cp : 1;
    int64_t j = cuda_sequence(args, args->cu_seqlens, row, sequence);
    int64_t start = cuda_padded(args, j), position = row - cuda_real(args, j);
    int64_t chunk_rows = (cuda_padded(args, j + 1) - start) / chunks;
    int64_t chunk = position / chunk_rows, within = position % chunk_rows;
    bool second = chunk >= args->cp;
    int64_t cp_rank = second ? chunks - 1 - chunk : chunk;
    int64_t held = cuda_real(args, j + 1) - row, rows = chunk_rows - within;
    cuda_piece piece = {0, held < rows ? held : rows, j};
    piece.from =
        cp_rank * (args->padded / args->cp) + start / args->cp + (second ? chunk_rows : 0) + within;
    return piece;
}

/* ---- tiles --------------------------------------------------------------------------------- */

/* Bytes of the destination. */
PGR_BOTH int64_t cuda_split_bytes(const pgr_context_args *args) {
    return args->local_rows * args->row_bytes;
}

PGR_BOTH int64_t cuda_gather_bytes(const pgr_context_args *args) {
    return args->seq_len * args->row_bytes;
}

/* Bytes of a tile, which is what a thread block does at a time: a multiple of 16, few enough that
 * `blocks` blocks have work, enough that finding the first row's sequence costs little. */
PGR_BOTH int64_t cuda_context_tile_bytes(int64_t bytes, int blocks) {
    int64_t tile = (bytes / blocks + 16) & ~(int64_t)15;
    return tile < 4096 ? 4096 : tile < 65536 ? tile : 65536;
}

/* A thread's share of tile `index` of the destination's `bytes`: lane counts a block's threads. */
PGR_BOTH void cuda_context_tile(const pgr_context_args *args, bool gather, int64_t bytes,
                                int64_t tile_bytes, int64_t index, cuda_lane lane) {
    int64_t at = index * tile_bytes, end = at + tile_bytes < bytes ? at + tile_bytes : bytes;
    int64_t row_bytes = args->row_bytes, sequence = -1;
    while (at < end) {
        int64_t row = at / row_bytes;
        cuda_piece piece =
            gather ? cuda_gather_piece(args, row, sequence) : cuda_split_piece(args, row, sequence);
        int64_t stop = (row + piece.rows) * row_bytes;
        stop = stop < end ? stop : end;
        char *dst = (char *)args->dst + at;
        if (piece.from < 0)
            cuda_zero_bytes(dst, stop - at, lane);
        else
            cuda_copy_bytes(
                dst, (const char *)args->src + piece.from * row_bytes + (at - row * row_bytes),
                stop - at, lane);
        sequence = piece.sequence;
        at = stop;
    }
}

#endif
