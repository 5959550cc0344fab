/* comm_self.c - the bootstrap of one rank alone: no launcher, no MPI. It has no communicators,
 * since a group of one gets none. */
#include "comm_self.h"

#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct pgr_bootstrap {
    double timeout;
};

static pgr_bootstrap self;

static pgr_status self_open(double init_timeout, pgr_bootstrap **bootstrap, pgr_error *error) {
    (void)error;
    self.timeout = init_timeout;
    *bootstrap = &self;
    return PGR_OK;
}

static int64_t self_rank(const pgr_bootstrap *bootstrap) {
    (void)bootstrap;
    return 0;
}

static int64_t self_size(const pgr_bootstrap *bootstrap) {
    (void)bootstrap;
    return 1;
}

static void self_describe(const pgr_bootstrap *bootstrap, char *text, size_t bytes) {
    (void)bootstrap;
    snprintf(text, bytes, "self");
}

static void self_timeout(pgr_bootstrap *bootstrap, double seconds) {
    bootstrap->timeout = seconds;
}

static pgr_status self_broadcast(pgr_bootstrap *bootstrap, void *data, int64_t bytes, int64_t root,
                                 pgr_error *error) {
    (void)bootstrap, (void)data, (void)bytes;
    if (root != 0) {
        return pgr_error_set(error, PGR_INTERNAL, "broadcast from rank %lld of a job of one rank",
                             (long long)root);
    }
    return PGR_OK;
}

static pgr_status self_all_gather(pgr_bootstrap *bootstrap, const void *send, void *receive,
                                  int64_t bytes, pgr_error *error) {
    (void)bootstrap, (void)error;
    if (receive != send && bytes > 0)
        memmove(receive, send, (size_t)bytes);
    return PGR_OK;
}

static pgr_status self_reduce(pgr_bootstrap *bootstrap, double *values, int64_t count,
                              pgr_error *error) {
    (void)bootstrap, (void)values, (void)count, (void)error;
    return PGR_OK;
}

static pgr_status self_barrier(pgr_bootstrap *bootstrap, pgr_error *error) {
    (void)bootstrap, (void)error;
    return PGR_OK;
}

static bool self_claim(pgr_bootstrap *bootstrap) {
    (void)bootstrap;
    return true;
}

/* Ends this process without its exit handlers, as MPI_Abort would: the caller may be any thread,
 * and has printed what there was to say. */
static void self_abort(pgr_bootstrap *bootstrap, int exit_status) {
    (void)bootstrap;
    int status = exit_status < 1 ? 1 : exit_status > 125 ? 125 : exit_status;
    for (;;)
        syscall(SYS_exit_group, status);
}

static pgr_status self_close(pgr_bootstrap *bootstrap, pgr_error *error) {
    (void)bootstrap, (void)error;
    return PGR_OK;
}

const pgr_bootstrap_ops pgr_self_bootstrap = {
    .name = "self",
    .open = self_open,
    .rank = self_rank,
    .size = self_size,
    .describe = self_describe,
    .timeout = self_timeout,
    .broadcast = self_broadcast,
    .all_gather = self_all_gather,
    .sum = self_reduce,
    .max = self_reduce,
    .barrier = self_barrier,
    .claim = self_claim,
    .abort = self_abort,
    .close = self_close,
};
