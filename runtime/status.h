/* status.h - status codes, the error record and the fatal handler. The leftmost room: everything
 * includes it and it includes nothing of ours. */
#ifndef PGR_STATUS_H
#define PGR_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What went wrong. pgr_exit_code() maps each to the exit status that the command line returns. */
typedef enum pgr_status {
    PGR_OK = 0,
    PGR_INVALID,     /* the config (or an argument taken from it) is invalid         -> exit 1 */
    PGR_MISMATCH,    /* a verification failed                                         -> exit 1 */
    PGR_USAGE,       /* wrong usage of the command line or of the launcher            -> exit 2 */
    PGR_UNSUPPORTED, /* a feature or module that this build or machine does not have  -> exit 3 */
    PGR_LIMIT,       /* out of memory, over a limit, or a size that does not fit      -> exit 3 */
    PGR_TIMEOUT,     /* no progress within the deadline                               -> exit 3 */
    PGR_SYSTEM,      /* the operating system refused (files, threads)                 -> exit 3 */
    PGR_BACKEND,     /* MPI, NCCL, CUDA or BLAS returned an error                     -> exit 3 */
    PGR_LOST,        /* another rank failed or is gone                                -> exit 3 */
    PGR_INTERNAL     /* a bug in pgrun                                                -> exit 3 */
} pgr_status;

/* One error, owned by the caller. `message` is one or more lines of UTF-8 without a trailing
 * newline: the values, and the way out. Longer messages are cut at a character boundary. */
typedef struct pgr_error {
    pgr_status status;
    char message[8192];
} pgr_error;

#if defined(__GNUC__)
#define PGR_PRINTF(format_index, first_argument)                                                   \
    __attribute__((format(printf, format_index, first_argument)))
#else
#define PGR_PRINTF(format_index, first_argument)
#endif

/* Writes `status` and the formatted message into `error` (which may be NULL) and returns `status`,
 * so that the function that decides an error can `return pgr_error_set(error, PGR_..., ...)`. */
pgr_status pgr_error_set(pgr_error *error, pgr_status status, const char *format, ...)
    PGR_PRINTF(3, 4);

/* Puts the formatted text in front of the message already in `error`; the status stays. For a
 * caller that knows the context ("family tp: ") where the callee knew the cause. */
void pgr_error_prefix(pgr_error *error, const char *format, ...) PGR_PRINTF(2, 3);

/* A short name of the status ("invalid", "timeout"), for logs. Never NULL. */
const char *pgr_status_name(pgr_status status);

/* The process's exit status for a status: 0 good, 1 invalid config or failed verification, 2 wrong
 * usage, 3 anything else. */
int pgr_exit_code(pgr_status status);

/* The fatal handler: called where an error cannot be returned (a deadline that passed in another
 * thread, a collective that can no longer complete). It must not return. The library never exits,
 * aborts or prints by itself; without a handler pgr_fatal() does nothing and its caller returns the
 * error instead. */
typedef void (*pgr_fatal_handler)(const pgr_error *error, void *context);
void pgr_fatal_handler_set(pgr_fatal_handler handler, void *context);
void pgr_fatal(const pgr_error *error);

/* Seconds on the monotonic clock. */
double pgr_clock_seconds(void);

#ifdef __cplusplus
}
#endif
#endif
