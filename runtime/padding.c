/* padding.c - how many tokens a sequence is padded by.
 *
 * Source: get_padding in megatron/core/models/multimodal/context_parallel.py of Megatron-Core;
 * measured answers in tests/oracles/megatron-padding.jsonl. */
#include "spec.h"

#include <inttypes.h>

/* A model without a decoder's length of its own has nothing else to pad to: Megatron-Core asks for
 * one only where a decoder takes what an encoder's sequence was put into. */
pgr_padding_args pgr_padding_args_of(const pgr_spec *spec) {
    bool to_decoder = spec->parallel.tp_comm_overlap && spec->model.decoder_seq_len != PGR_NIL;
    return (pgr_padding_args){.rule = spec->padding.rule,
                              .multiple = spec->padding.multiple,
                              .seq_len = spec->model.seq_len,
                              .cp = spec->parallel.cp,
                              .tp = spec->parallel.tp,
                              .sequence_parallel = spec->parallel.sequence_parallel,
                              .tp_comm_overlap = to_decoder,
                              .decoder_seq_len = spec->model.decoder_seq_len,
                              .fp8 = spec->model.fp8,
                              .fp8_recipe = spec->model.fp8_recipe};
}

/* Megatron-Core's multiple: each of the 2 * cp chunks splits evenly over tp where the sequence is
 * split over both; fp8 asks for whole blocks only where nothing is split. 0 where it overflows. */
static int64_t megatron_multiple(const pgr_padding_args *a) {
    int64_t multiple = 1;
    if (a->cp > 1) {
        if (__builtin_mul_overflow(a->cp, 2, &multiple) ||
            (a->sequence_parallel && __builtin_mul_overflow(multiple, a->tp, &multiple)))
            return 0;
        return multiple;
    }
    if (a->sequence_parallel)
        return a->tp;
    return !a->fp8 ? 1 : a->fp8_recipe == PGR_FP8_MXFP8 ? 32 : 16;
}

static pgr_status check_sizes(const pgr_padding_args *a, pgr_error *error) {
    if (a->seq_len == PGR_NIL) {
        return pgr_error_set(error, PGR_INVALID,
                             "padding needs model.seq_len, which is not given; set it in tokens");
    }
    if (a->seq_len < 1) {
        return pgr_error_set(error, PGR_INVALID, "seq_len = %" PRId64 " must be at least 1 token",
                             a->seq_len);
    }
    if (a->rule == PGR_PAD_MULTIPLE && a->multiple < 1) {
        return pgr_error_set(error, PGR_INVALID,
                             "the padding multiple = %" PRId64 " must be at least 1 token",
                             a->multiple);
    }
    if (a->cp < 1 || a->tp < 1) {
        return pgr_error_set(error, PGR_INVALID,
                             "cp = %" PRId64 " and tp = %" PRId64 " must be at least 1", a->cp,
                             a->tp);
    }
    return PGR_OK;
}

/* With overlapped tensor-parallel communication every sequence has the decoder's fixed length. */
static pgr_status pad_to_decoder(const pgr_padding_args *a, int64_t *padding, pgr_error *error) {
    if (a->decoder_seq_len == PGR_NIL) {
        return pgr_error_set(error, PGR_INVALID,
                             "tp_comm_overlap with sequence_parallel pads to "
                             "model.decoder_seq_len, which is not given; set it to at least "
                             "seq_len = %" PRId64,
                             a->seq_len);
    }
    if (a->decoder_seq_len < a->seq_len) {
        return pgr_error_set(error, PGR_INVALID,
                             "decoder_seq_len = %" PRId64 " is shorter than seq_len = %" PRId64
                             "; tp_comm_overlap with sequence_parallel pads to it",
                             a->decoder_seq_len, a->seq_len);
    }
    *padding = a->decoder_seq_len - a->seq_len;
    return PGR_OK;
}

pgr_status pgr_padding(const pgr_padding_args *args, int64_t *padding, pgr_error *error) {
    pgr_status status = check_sizes(args, error);
    if (status != PGR_OK)
        return status;
    if (args->rule == PGR_PAD_MEGATRON && args->sequence_parallel && args->tp_comm_overlap)
        return pad_to_decoder(args, padding, error);
    int64_t multiple = args->rule == PGR_PAD_MULTIPLE ? args->multiple : megatron_multiple(args);
    int64_t padded;
    if (multiple > 0) {
        int64_t added = (multiple - args->seq_len % multiple) % multiple;
        if (!__builtin_add_overflow(args->seq_len, added, &padded)) {
            *padding = added;
            return PGR_OK;
        }
    }
    return pgr_error_set(error, PGR_LIMIT,
                         "seq_len = %" PRId64 " padded for cp = %" PRId64 " and tp = %" PRId64
                         " does not fit in 63 bits; take smaller sizes",
                         args->seq_len, args->cp, args->tp);
}

/* ---- packed sequences ---------------------------------------------------------------------- */

/* *padded = value rounded up to a multiple; false where that does not fit in 63 bits. */
static bool round_up(int64_t value, int64_t multiple, int64_t *padded) {
    return !__builtin_add_overflow(value, (multiple - value % multiple) % multiple, padded);
}

static int64_t greatest_divisor(int64_t a, int64_t b) {
    return b ? greatest_divisor(b, a % b) : a;
}

/* Sets the multiples of each sequence and of their sum; false where one does not fit. */
static bool packed_multiples(const pgr_packed_args *a, int64_t *each, int64_t *all) {
    int64_t pieces = 1;
    *each = 1;
    if (a->cp > 1 && __builtin_mul_overflow(a->cp, 2, each))
        return false;
    if (a->sequence_parallel && __builtin_mul_overflow(a->tp, a->cp, &pieces))
        return false;
    return !__builtin_mul_overflow(*each / greatest_divisor(*each, pieces), pieces, all);
}

static pgr_status check_packed(const pgr_packed_args *a, pgr_error *error) {
    if (a->sequences < 1)
        return pgr_error_set(error, PGR_INVALID,
                             "%" PRId64 " packed sequences; there must be one at least",
                             a->sequences);
    if (a->cp < 1 || a->tp < 1)
        return pgr_error_set(error, PGR_INVALID,
                             "cp = %" PRId64 " and tp = %" PRId64 " must be at least 1", a->cp,
                             a->tp);
    for (int64_t i = 0; i < a->sequences; i++)
        if (a->lengths[i] < 1)
            return pgr_error_set(error, PGR_INVALID,
                                 "packed sequence %" PRId64 " of %" PRId64 " has %" PRId64
                                 " tokens; it must have one at least, or be left out",
                                 i + 1, a->sequences, a->lengths[i]);
    return PGR_OK;
}

/* The sums, without and with padding; false where they do not fit. */
static bool packed_sums(const pgr_packed_args *a, int64_t each, int64_t all, int64_t *real,
                        int64_t *padded) {
    *real = *padded = 0;
    for (int64_t i = 0; i < a->sequences; i++) {
        int64_t whole;
        if (!round_up(a->lengths[i], each, &whole) ||
            __builtin_add_overflow(*real, a->lengths[i], real) ||
            __builtin_add_overflow(*padded, whole, padded))
            return false;
    }
    return round_up(*padded, all, padded);
}

pgr_status pgr_padding_packed(const pgr_packed_args *args, int64_t *cu_seqlens,
                              int64_t *cu_seqlens_padded, int64_t *max_seqlen, pgr_error *error) {
    int64_t each, all, real, padded, longest = 0;
    pgr_status status = check_packed(args, error);
    if (status != PGR_OK)
        return status;
    if (!packed_multiples(args, &each, &all) || !packed_sums(args, each, all, &real, &padded))
        return pgr_error_set(error, PGR_LIMIT,
                             "%" PRId64 " packed sequences padded for cp = %" PRId64
                             " and tp = %" PRId64 " do not fit in 63 bits; take smaller sizes",
                             args->sequences, args->cp, args->tp);
    cu_seqlens[0] = cu_seqlens_padded[0] = 0;
    for (int64_t i = 0; i < args->sequences; i++) {
        int64_t whole = args->lengths[i];
        (void)round_up(whole, each, &whole);
        if (i == args->sequences - 1)
            whole = padded - cu_seqlens_padded[i];
        longest = whole > longest ? whole : longest;
        cu_seqlens[i + 1] = cu_seqlens[i] + args->lengths[i];
        cu_seqlens_padded[i + 1] = cu_seqlens_padded[i] + whole;
    }
    *max_seqlen = longest;
    return PGR_OK;
}
