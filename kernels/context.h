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
