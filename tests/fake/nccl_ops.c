/* nccl_ops.c - every operation of a communicator over NCCL on every dtype, on the stand-ins.
 *
 *   mpirun -n 4 nccl_ops */
#include "bf16.h"
#include "comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 37, MOST = 8 * COUNT };

static pgr_job *job;
static pgr_error error;
static int failures;

static void must(pgr_status status) {
    if (status == PGR_OK)
        return;
    fprintf(stderr, "rank %d: %s\n", (int)job->rank, error.message);
    job->bootstrap_ops->abort(job->bootstrap, 3);
}

static void check(bool good, const char *what, pgr_dtype dtype) {
    failures += !good;
    if (!good)
        fprintf(stderr, "FAIL rank %d: %s, dtype %d\n", (int)job->rank, what, (int)dtype);
}

/* ---- values, exact in every dtype ---------------------------------------------------------- */

static int value(int64_t rank, int64_t i) {
    return (int)((rank * 3 + i) % 11 + 1);
}

static void store(void *data, int64_t i, pgr_dtype dtype, int v) {
    if (dtype == PGR_F32)
        ((float *)data)[i] = (float)v;
    if (dtype == PGR_F64)
        ((double *)data)[i] = v;
    if (dtype == PGR_BF16)
        ((pgr_bf16 *)data)[i] = pgr_bf16_from_f32((float)v);
    if (dtype == PGR_I32)
        ((int32_t *)data)[i] = v;
    if (dtype == PGR_I64)
        ((int64_t *)data)[i] = v;
    if (dtype == PGR_U8)
        ((uint8_t *)data)[i] = (uint8_t)v;
}

/* ---- buffers on the device ----------------------------------------------------------------- */

static pgr_comm *comm;
static void *sent, *got;
static char host[MOST * 8], want[MOST * 8];

static void copy(void *to, const void *from, int64_t bytes) {
    must(job->device->ops->copy(job->device, to, from, bytes, comm->stream, &error));
    must(job->device->ops->stream_sync(job->device, comm->stream, &error));
}

/* Element i of `sent` is value(rank, i); `got` is cleared. */
static void prepare(pgr_dtype dtype) {
    for (int64_t i = 0; i < MOST; i++)
        store(host, i, dtype, value(comm->rank, i));
    copy(sent, host, MOST * pgr_dtype_bytes(dtype));
    memset(want, 0, sizeof want);
    copy(got, want, sizeof want);
}

/* Waits; `buffer` must then be what `want` says. */
static void compare(pgr_status started, pgr_request *request, const void *buffer, int64_t count,
                    pgr_dtype dtype, const char *what) {
    must(started);
    must(pgr_request_wait(request, &error));
    copy(host, buffer, count * pgr_dtype_bytes(dtype));
    check(memcmp(host, want, (size_t)(count * pgr_dtype_bytes(dtype))) == 0, what, dtype);
}

/* ---- operations ---------------------------------------------------------------------------- */

static int reduced(pgr_reduce reduce, int64_t i) {
    int result = value(0, i);
    for (int64_t r = 1; r < comm->size; r++) {
        int v = value(r, i);
        result = reduce == PGR_SUM   ? result + v
                 : reduce == PGR_MAX ? (v > result ? v : result)
                                     : (v < result ? v : result);
    }
    return result;
}

static void try_reductions(pgr_dtype dtype) {
    pgr_request request;
    for (pgr_reduce reduce = PGR_SUM; reduce <= PGR_MIN; reduce++) {
        prepare(dtype);
        for (int64_t i = 0; i < COUNT; i++)
            store(want, i, dtype, reduced(reduce, i));
        compare(comm->ops->all_reduce(comm, sent, got, COUNT, dtype, reduce, comm->stream, &request,
                                      &error),
                &request, got, COUNT, dtype, "all-reduce");
        for (int64_t i = 0; i < COUNT; i++)
            store(want, i, dtype, reduced(reduce, comm->rank * COUNT + i));
        compare(comm->ops->reduce_scatter(comm, sent, got, COUNT, dtype, reduce, comm->stream,
                                          &request, &error),
                &request, got, COUNT, dtype, "reduce-scatter");
    }
}

static void try_moves(pgr_dtype dtype) {
    pgr_request request;
    int64_t size = comm->size, rank = comm->rank;
    prepare(dtype);
    for (int64_t i = 0; i < size * COUNT; i++)
        store(want, i, dtype, value(i / COUNT, i % COUNT));
    compare(comm->ops->all_gather(comm, sent, got, COUNT, dtype, comm->stream, &request, &error),
            &request, got, size * COUNT, dtype, "all-gather");
    for (int64_t i = 0; i < size * COUNT; i++)
        store(want, i, dtype, value(i / COUNT, rank * COUNT + i % COUNT));
    compare(comm->ops->all_to_all(comm, sent, got, COUNT, dtype, comm->stream, &request, &error),
            &request, got, size * COUNT, dtype, "all-to-all");
    for (int64_t i = 0; i < COUNT; i++)
        store(want, i, dtype, value(size - 1, i));
    compare(
        comm->ops->broadcast(comm, sent, COUNT, dtype, size - 1, comm->stream, &request, &error),
        &request, sent, COUNT, dtype, "broadcast");
}

/* Rank r sends (r + p) % 3 elements to rank p, out of and into places 4 elements apart. */
static void try_all_to_all_v(pgr_dtype dtype, bool device_counts) {
    int64_t counts[4][MOST], size = comm->size, rank = comm->rank;
    pgr_request request;
    prepare(dtype);
    for (int64_t p = 0; p < size; p++) {
        counts[0][p] = counts[2][p] = (rank + p) % 3;
        counts[1][p] = counts[3][p] = 4 * p;
        for (int64_t i = 0; i < counts[2][p]; i++)
            store(want, 4 * p + i, dtype, value(p, 4 * rank + i));
    }
    if (!device_counts) {
        compare(comm->ops->all_to_all_v(comm, sent, counts[0], counts[1], got, counts[2], counts[3],
                                        dtype, comm->stream, &request, &error),
                &request, got, 4 * size, dtype, "all-to-all-v");
        return;
    }
    void *there = NULL;
    pgr_event *ready = NULL;
    const pgr_device_ops *ops = job->device->ops;
    must(comm->ops->buffer_alloc(comm, sizeof counts, &there, &error));
    must(ops->event_create(job->device, &ready, &error));
    must(ops->copy(job->device, there, counts, sizeof counts, comm->stream, &error));
    must(ops->event_record(job->device, ready, comm->stream, &error));
    const int64_t *at = there;
    compare(comm->ops->all_to_all_v_device(comm, sent, at, at + MOST, got, at + 2 * MOST,
                                           at + 3 * MOST, ready, dtype, comm->stream, &request,
                                           &error),
            &request, got, 4 * size, dtype, "all-to-all-v with counts on the device");
    ops->event_free(job->device, ready);
    comm->ops->buffer_free(comm, there);
}

/* Round the ring: in one group, both of whose requests are waited for. */
static void try_ring(pgr_dtype dtype) {
    pgr_request out, in;
    int64_t next = (comm->rank + 1) % comm->size,
            before = (comm->rank + comm->size - 1) % comm->size;
    prepare(dtype);
    for (int64_t i = 0; i < COUNT; i++)
        store(want, i, dtype, value(before, i));
    must(comm->ops->group_start(comm, &error));
    must(comm->ops->send(comm, sent, COUNT, dtype, next, comm->stream, &out, &error));
    must(comm->ops->receive(comm, got, COUNT, dtype, before, comm->stream, &in, &error));
    must(comm->ops->group_end(comm, &error));
    compare(PGR_OK, &in, got, COUNT, dtype, "ring");
    must(pgr_request_wait(&out, &error));
}

static void try_refusals(void) {
    pgr_request request;
    check(comm->ops->all_to_all(comm, sent, sent, 1, PGR_F32, comm->stream, &request, &error) ==
              PGR_UNSUPPORTED,
          "all-to-all in place", PGR_F32);
    check(comm->ops->send(comm, sent, 1, PGR_F32, comm->size, comm->stream, &request, &error) ==
              PGR_INTERNAL,
          "a peer outside", PGR_F32);
    check(comm->ops->all_reduce(comm, sent, got, INT64_MAX / 2, PGR_F64, PGR_SUM, comm->stream,
                                &request, &error) == PGR_LIMIT,
          "2^62 elements of 8 bytes", PGR_F64);
    must(comm->ops->barrier(comm, comm->stream, &request, &error));
    must(pgr_request_wait(&request, &error));
}

int main(void) {
    char names[1][PGR_NAME_MAX] = {"tp"};
    pgr_names families = {.count = 1, .items = names};
    pgr_job_args args = {
        .device = PGR_DEVICE_CUDA, .comm = PGR_COMM_NCCL, .timeout = 20, .init_timeout = 20};
    pgr_groups *groups = NULL;
    pgr_spec spec;
    pgr_plan plan;
    if (pgr_job_open(20, &job, &error) != PGR_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 3;
    }
    must(pgr_job_open_device(job, &args, &error));
    pgr_spec_init(&spec);
    spec.parallel.tp = job->size;
    must(pgr_plan_create(&spec, job->size, &plan, &error));
    for (int round = 0; round < 2; round++) { /* the second opens a world of its own */
        must(pgr_groups_open_begin(job, &plan, &families, &groups, &error));
        must(pgr_groups_open_finish(groups, &error));
        comm = pgr_groups_find(groups, "tp")->comm;
        must(comm->ops->buffer_alloc(comm, sizeof host, &sent, &error));
        must(comm->ops->buffer_alloc(comm, sizeof host, &got, &error));
        for (pgr_dtype dtype = PGR_F32; dtype <= PGR_U8; dtype++) {
            try_reductions(dtype);
            try_moves(dtype);
            try_all_to_all_v(dtype, false);
            try_all_to_all_v(dtype, true);
            try_ring(dtype);
        }
        try_refusals();
        comm->ops->buffer_free(comm, sent);
        comm->ops->buffer_free(comm, got);
        must(pgr_groups_close(groups, &error));
    }
    pgr_spec_free(&spec);
    double sum = failures;
    must(job->bootstrap_ops->sum(job->bootstrap, &sum, 1, &error));
    if (job->rank == 0)
        printf("%s\n", sum == 0 ? "all operations are right" : "FAIL");
    must(pgr_job_close(job, &error));
    return sum == 0 ? 0 : 1;
}
