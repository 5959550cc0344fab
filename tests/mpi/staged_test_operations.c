/* staged_test_operations.c - staged_test's buffers, and every operation on every dtype: of nothing,
 * of several pieces, in place. */
#include "bf16.h"
#include "staged_check.h"

#include <stdlib.h>
#include <string.h>

/* ---- values -------------------------------------------------------------------------------- */

int value(int64_t rank, int64_t i) {
    return (int)((i * 7 + rank * 5 + i / 3) % 4);
}

static void store(void *data, int64_t i, pgr_dtype type, int v) {
    pgr_bf16 half = pgr_bf16_from_f32((float)v);
    float single = (float)v;
    double wide = v;
    int32_t whole = v;
    int64_t long_whole = v;
    uint8_t byte = (uint8_t)v;
    const void *from[] = {[PGR_F32] = &single, [PGR_BF16] = &half,      [PGR_F64] = &wide,
                          [PGR_I32] = &whole,  [PGR_I64] = &long_whole, [PGR_U8] = &byte};
    int64_t width = pgr_dtype_bytes(type);
    memcpy((char *)data + i * width, from[type], (size_t)width);
}

int reduced(int64_t i, pgr_reduce reduce) {
    int result = value(0, i);
    for (int64_t r = 1; r < comm->size; r++) {
        int v = value(r, i);
        result = reduce == PGR_SUM ? result + v : (reduce == PGR_MAX) == (v > result) ? v : result;
    }
    return result;
}

/* ---- buffers: on the device, with their host images ---------------------------------------- */

void *sent, *got;
pgr_dtype dtype;
int64_t count;
static char *host, *want;
static int64_t room; /* bytes of each */

void copy(void *to, const void *from, int64_t bytes) {
    CHECK_OK(job->device->ops->copy(job->device, to, from, bytes, NULL, &error));
    CHECK_OK(job->device->ops->stream_sync(job->device, NULL, &error));
}

void buffers_open(int64_t bytes) {
    room = bytes;
    host = malloc((size_t)bytes);
    want = malloc((size_t)bytes);
    CHECK_OK(comm->ops->buffer_alloc(comm, bytes, &sent, &error));
    CHECK_OK(comm->ops->buffer_alloc(comm, bytes, &got, &error));
}

void buffers_close(void) {
    comm->ops->buffer_free(comm, sent);
    comm->ops->buffer_free(comm, got);
    free(host);
    free(want);
}

void prepare(bool in_place) {
    int64_t elements = room / pgr_dtype_bytes(dtype);
    for (int64_t i = 0; i < elements; i++)
        store(host, i, dtype, value(comm->rank, i));
    copy(sent, host, room);
    if (in_place) {
        memcpy(want, host, (size_t)room);
        return;
    }
    memset(want, 77, (size_t)room);
    copy(got, want, room);
}

void expect(int64_t i, int v) {
    store(want, i, dtype, v);
}

void compare(pgr_status started, pgr_request *request, const void *buffer, const char *what) {
    CHECK(started == PGR_OK, "%s: %s", what, error.message);
    if (started != PGR_OK)
        return;
    CHECK_OK(pgr_request_wait(request, &error));
    copy(host, buffer, room);
    int64_t width = pgr_dtype_bytes(dtype), at = 0;
    while (at < room / width && memcmp(host + at * width, want + at * width, (size_t)width) == 0)
        at++;
    CHECK(at == room / width, "%s of %d %s: element %d", what, (int)count, pgr_dtype_name(dtype),
          (int)at);
}

void *element(void *data, int64_t i) {
    return (char *)data + i * pgr_dtype_bytes(dtype);
}

/* ---- operations ---------------------------------------------------------------------------- */

static void try_all_reduce(pgr_reduce reduce, bool in_place) {
    pgr_request request;
    void *result = in_place ? sent : got;
    prepare(in_place);
    for (int64_t i = 0; i < count; i++)
        expect(i, reduced(i, reduce));
    compare(comm->ops->all_reduce(comm, sent, result, count, dtype, reduce, comm->stream, &request,
                                  &error),
            &request, result, in_place ? "all-reduce in place" : "all-reduce");
}

/* in_place: 1: receive == send; 2: receive == send + rank * count */
static void try_reduce_scatter(pgr_reduce reduce, int in_place) {
    pgr_request request;
    int64_t at = in_place == 2 ? comm->rank * count : 0;
    void *result = in_place ? sent : got;
    prepare(in_place);
    for (int64_t i = 0; i < count; i++)
        expect(at + i, reduced(comm->rank * count + i, reduce));
    compare(comm->ops->reduce_scatter(comm, sent, element(result, at), count, dtype, reduce,
                                      comm->stream, &request, &error),
            &request, result, in_place ? "reduce-scatter in place" : "reduce-scatter");
}

static void try_all_gather(bool in_place) {
    pgr_request request;
    void *result = in_place ? sent : got;
    prepare(in_place);
    const void *own = in_place ? element(sent, comm->rank * count) : sent;
    for (int64_t i = 0; i < count * comm->size; i++) {
        int64_t from = i / count;
        expect(i, value(from, in_place ? i : i % count));
    }
    compare(comm->ops->all_gather(comm, own, result, count, dtype, comm->stream, &request, &error),
            &request, result, in_place ? "all-gather in place" : "all-gather");
}

static void try_all_to_all(bool in_place) {
    pgr_request request;
    void *result = in_place ? sent : got;
    prepare(in_place);
    for (int64_t i = 0; i < count * comm->size; i++)
        expect(i, value(i / count, comm->rank * count + i % count));
    compare(comm->ops->all_to_all(comm, sent, result, count, dtype, comm->stream, &request, &error),
            &request, result, in_place ? "all-to-all in place" : "all-to-all");
}

static void try_broadcast(int64_t root) {
    pgr_request request;
    prepare(true);
    for (int64_t i = 0; i < count; i++)
        expect(i, value(root, i));
    compare(comm->ops->broadcast(comm, sent, count, dtype, root, comm->stream, &request, &error),
            &request, sent, "broadcast");
}

/* Round the ring, more than once and from the end: receives of one peer keep their order. */
static void try_ring(void) {
    enum { TURNS = 3 };
    pgr_request out[TURNS], in[TURNS];
    int64_t next = (comm->rank + 1) % comm->size,
            before = (comm->rank + comm->size - 1) % comm->size;
    prepare(false);
    for (int64_t t = 0; t < TURNS; t++) {
        for (int64_t i = 0; i < count; i++)
            expect(t * count + i, value(before, t * count + i));
        CHECK_OK(comm->ops->group_start(comm, &error));
        CHECK_OK(comm->ops->send(comm, element(sent, t * count), count, dtype, next, comm->stream,
                                 &out[t], &error));
        CHECK_OK(comm->ops->receive(comm, element(got, t * count), count, dtype, before,
                                    comm->stream, &in[t], &error));
        CHECK_OK(comm->ops->group_end(comm, &error));
    }
    for (int64_t t = TURNS - 1; t > 0; t--) {
        CHECK_OK(pgr_request_wait(&in[t], &error));
        CHECK_OK(pgr_request_wait(&out[t], &error));
    }
    CHECK_OK(pgr_request_wait(&out[0], &error));
    compare(PGR_OK, &in[0], got, "ring");
}

/* Rank a sends rank b the first (a + 2b) % 4 * count of its elements that start at b * 3 * count.
 */
static int64_t part(int64_t from, int64_t to) {
    return (from + 2 * to) % 4 * count;
}

static void try_all_to_all_v(bool device_counts) {
    int64_t v[4][RANKS_MAX], size = comm->size, rank = comm->rank;
    pgr_request request;
    pgr_event *ready = NULL;
    void *there = NULL;
    prepare(false);
    for (int64_t p = 0; p < size; p++) {
        v[0][p] = part(rank, p);
        v[2][p] = part(p, rank);
        v[1][p] = v[3][p] = p * 3 * count;
        for (int64_t i = 0; i < v[2][p]; i++)
            expect(p * 3 * count + i, value(p, rank * 3 * count + i));
    }
    if (!device_counts) {
        pgr_status started = comm->ops->all_to_all_v(comm, sent, v[0], v[1], got, v[2], v[3], dtype,
                                                     comm->stream, &request, &error);
        memset(v, 0xff, sizeof v); /* they were copied */
        compare(started, &request, got, "all-to-all-v");
        return;
    }
    const pgr_device_ops *ops = job->device->ops;
    CHECK_OK(comm->ops->buffer_alloc(comm, sizeof v, &there, &error));
    CHECK_OK(ops->event_create(job->device, &ready, &error));
    CHECK_OK(ops->copy(job->device, there, v, sizeof v, comm->stream, &error));
    CHECK_OK(ops->event_record(job->device, ready, comm->stream, &error));
    const int64_t *at = there;
    compare(comm->ops->all_to_all_v_device(comm, sent, at, at + RANKS_MAX, got, at + 2 * RANKS_MAX,
                                           at + 3 * RANKS_MAX, ready, dtype, comm->stream, &request,
                                           &error),
            &request, got, "all-to-all-v with counts on the device");
    ops->event_free(job->device, ready);
    comm->ops->buffer_free(comm, there);
}

static void try_everything(void) {
    pgr_request request;
    for (pgr_reduce reduce = PGR_SUM; reduce <= PGR_MIN; reduce++) {
        for (int in_place = 0; in_place < 3; in_place++) {
            if (in_place < 2)
                try_all_reduce(reduce, in_place);
            try_reduce_scatter(reduce, in_place);
        }
    }
    for (int in_place = 0; in_place < 2; in_place++) {
        try_all_gather(in_place);
        try_all_to_all(in_place);
        try_all_to_all_v(in_place);
    }
    for (int64_t root = 0; root < comm->size; root++)
        try_broadcast(root);
    try_ring();
    CHECK_OK(comm->ops->barrier(comm, comm->stream, &request, &error));
    CHECK_OK(pgr_request_wait(&request, &error));
}

void test_operations(void) {
    static const int64_t counts[] = {0, 1, 3, 17, 301};
    char name[64];
    for (dtype = PGR_F32; dtype <= PGR_U8; dtype++) {
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            count = counts[i];
            buffers_open((3 * count * comm->size + 5) * pgr_dtype_bytes(dtype));
            try_everything();
            buffers_close();
        }
        snprintf(name, sizeof name, "every operation on %s", pgr_dtype_name(dtype));
        case_end(name);
    }
}

void test_large(void) {
    dtype = PGR_F64;
    count = (int64_t)9 << 19; /* 36 MiB */
    buffers_open(count * comm->size * 8);
    try_all_reduce(PGR_SUM, true);
    count = room / 8 / comm->size - 5;
    try_all_gather(false);
    case_end("more than one piece of 32 MiB");
    count = count / 3;
    try_all_to_all_v(false);
    case_end("an all-to-all-v of more than that");
    buffers_close();
}
