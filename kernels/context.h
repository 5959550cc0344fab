/* context.h - what every device refuses of padding, splits and gathers; private to the modules. */
#ifndef PGR_CONTEXT_H
#define PGR_CONTEXT_H

#include "device.h"

#include <inttypes.h>

/* PGR_INTERNAL for sizes that no caller may give. */
static inline pgr_status pgr_context_check(const pgr_context_args *args, pgr_error *error) {
    if (args->cp < 1 || args->row_bytes < 0 || args->seq_len < 0 || args->padded < args->seq_len ||
        (args->cp > 1 && args->padded % (2 * args->cp) != 0))
        return pgr_error_set(error, PGR_INTERNAL,
                             "a sequence of %" PRId64 " rows padded to %" PRId64
                             " cannot be split over cp = %" PRId64
                             ": it must be a multiple of %" PRId64,
                             args->seq_len, args->padded, args->cp, 2 * args->cp);
    if (args->sequences < 0 || (args->sequences > 0) != (args->cu_seqlens != NULL) ||
        (args->sequences > 0) != (args->cu_padded != NULL))
        return pgr_error_set(error, PGR_INTERNAL,
                             "%" PRId64 " packed sequences %s cu_seqlens and %s cu_padded: both "
                             "go with packed sequences, and with them alone",
                             args->sequences, args->cu_seqlens ? "with" : "without",
                             args->cu_padded ? "with" : "without");
    return PGR_OK;
}

/* The same of the arrays of packed sequences, where the host can read them. */
static inline pgr_status pgr_context_check_packed(const pgr_context_args *args, pgr_error *error) {
    int64_t chunks = args->cp > 1 ? 2 * args->cp : 1;
    const int64_t *real = args->cu_seqlens, *padded = args->cu_padded;
    if (args->sequences == 0)
        return PGR_OK;
    if (real[0] != 0 || padded[0] != 0 || real[args->sequences] != args->seq_len ||
        padded[args->sequences] != args->padded)
        return pgr_error_set(error, PGR_INTERNAL,
                             "packed sequences from %" PRId64 " to %" PRId64 ", padded %" PRId64
                             " to %" PRId64 ", are not the %" PRId64 " rows padded to %" PRId64,
                             real[0], real[args->sequences], padded[0], padded[args->sequences],
                             args->seq_len, args->padded);
    for (int64_t i = 0; i < args->sequences; i++) {
        int64_t length = real[i + 1] - real[i], whole = padded[i + 1] - padded[i];
        if (length < 0 || whole < length || whole % chunks != 0)
            return pgr_error_set(error, PGR_INTERNAL,
                                 "packed sequence %" PRId64 " of %" PRId64
                                 " rows padded to %" PRId64 " cannot be split over cp = %" PRId64
                                 ": it must be a multiple of %" PRId64,
                                 i, length, whole, args->cp, chunks);
    }
    return PGR_OK;
}

static inline pgr_status pgr_context_check_split(const pgr_context_args *args, pgr_error *error) {
    pgr_status status = pgr_context_check(args, error);
    if (status != PGR_OK)
        return status;
    int64_t end = args->local_begin + args->local_rows;
    if (args->cp_rank < 0 || args->cp_rank >= args->cp || args->local_begin < 0 ||
        args->local_rows < 0 || end > args->padded / args->cp)
        return pgr_error_set(error, PGR_INTERNAL,
                             "local rows %" PRId64 " to %" PRId64 " of cp rank %" PRId64
                             " are outside of its %" PRId64 " rows (cp = %" PRId64 ")",
                             args->local_begin, end, args->cp_rank, args->padded / args->cp,
                             args->cp);
    return PGR_OK;
}

#endif
