/* comm_test_collectives.c - every operation of a communicator on every dtype: odd counts and none,
 * in place and not, against results that are exactly predictable. */
#include "bf16.h"
#include "comm_check.h"

#include <stdlib.h>
#include <string.h>

/* ---- values -------------------------------------------------------------------------------- */

static void store(void *data, int64_t i, pgr_dtype dtype, int value) {
    switch (dtype) {
    case PGR_F32:
        ((float *)data)[i] = (float)value;
        break;
    case PGR_BF16:
        ((pgr_bf16 *)data)[i] = pgr_bf16_from_f32((float)value);
        break;
    case PGR_F64:
        ((double *)data)[i] = value;
        break;
    case PGR_I32:
        ((int32_t *)data)[i] = value;
        break;
    case PGR_I64:
        ((int64_t *)data)[i] = value;
        break;
    case PGR_U8:
        ((uint8_t *)data)[i] = (uint8_t)value;
        break;
    }
}

static int load(const void *data, int64_t i, pgr_dtype dtype) {
    switch (dtype) {
    case PGR_F32:
        return (int)((const float *)data)[i];
    case PGR_BF16:
        return (int)pgr_bf16_to_f32(((const pgr_bf16 *)data)[i]);
    case PGR_F64:
        return (int)((const double *)data)[i];
    case PGR_I32:
        return ((const int32_t *)data)[i];
    case PGR_I64:
        return (int)((const int64_t *)data)[i];
    case PGR_U8:
        return ((const uint8_t *)data)[i];
    }
    return -1;
}

/* Of 0..3, so that a sum over 64 ranks is exact in bf16 and fits a byte. */
static int value(int64_t rank, int64_t i) {
    return (int)((i * 7 + rank * 5 + i / 3) % 4);
}

static int reduced(const pgr_comm *comm, int64_t i, pgr_reduce reduce) {
    int result = value(0, i);
    for (int64_t r = 1; r < comm->size; r++) {
        int v = value(r, i);
        result = reduce == PGR_SUM ? result + v : (reduce == PGR_MAX) == (v > result) ? v : result;
    }
    return result;
}

static void fill(void *data, const pgr_comm *comm, int64_t count, pgr_dtype dtype) {
    for (int64_t i = 0; i < count; i++)
        store(data, i, dtype, value(comm->rank, i));
}

static void wait_for(pgr_status started, pgr_request *request) {
    CHECK(started == PGR_OK, "%s", error.message);
    if (started == PGR_OK)
        CHECK_OK(pgr_request_wait(request, &error));
}

/* ---- collectives --------------------------------------------------------------------------- */

typedef struct buffers {
    pgr_comm *comm;
    void *send, *receive;
    int64_t count;
    pgr_dtype dtype;
} buffers;

static void *element(void *data, int64_t i, pgr_dtype dtype) {
    return (char *)data + i * pgr_dtype_bytes(dtype);
}

static void try_all_reduce(const buffers *b, pgr_reduce reduce, bool in_place) {
    pgr_request request;
    const pgr_comm *comm = b->comm;
    void *result = in_place ? b->send : b->receive;
    fill(b->send, comm, b->count, b->dtype);
    wait_for(comm->ops->all_reduce(b->comm, b->send, result, b->count, b->dtype, reduce, NULL,
                                   &request, &error),
             &request);
    for (int64_t i = 0; i < b->count; i++) {
        int got = load(result, i, b->dtype), want = reduced(comm, i, reduce);
        CHECK(got == want, "all-reduce %s %d of %d: %d, not %d", pgr_dtype_name(b->dtype), (int)i,
              (int)b->count, got, want);
    }
}

/* in_place: 1: receive == send; 2: receive == send + rank * count */
static void try_reduce_scatter(const buffers *b, pgr_reduce reduce, int in_place) {
    pgr_request request;
    const pgr_comm *comm = b->comm;
    void *result = in_place == 0   ? b->receive
                   : in_place == 1 ? b->send
                                   : element(b->send, comm->rank * b->count, b->dtype);
    fill(b->send, comm, b->count * comm->size, b->dtype);
    wait_for(comm->ops->reduce_scatter(b->comm, b->send, result, b->count, b->dtype, reduce, NULL,
                                       &request, &error),
             &request);
    for (int64_t i = 0; i < b->count; i++) {
        int got = load(result, i, b->dtype),
            want = reduced(comm, comm->rank * b->count + i, reduce);
        CHECK(got == want, "reduce-scatter %s %d of %d in place %d: %d, not %d",
              pgr_dtype_name(b->dtype), (int)i, (int)b->count, in_place, got, want);
    }
}

static void try_all_gather(const buffers *b, bool in_place) {
    pgr_request request;
    const pgr_comm *comm = b->comm;
    void *own = in_place ? element(b->receive, comm->rank * b->count, b->dtype) : b->send;
    fill(own, comm, b->count, b->dtype);
    wait_for(
        comm->ops->all_gather(b->comm, own, b->receive, b->count, b->dtype, NULL, &request, &error),
        &request);
    for (int64_t i = 0; i < b->count * comm->size; i++) {
        int got = load(b->receive, i, b->dtype), want = value(i / b->count, i % b->count);
        CHECK(got == want, "all-gather %s %d of %d: %d, not %d", pgr_dtype_name(b->dtype), (int)i,
              (int)b->count, got, want);
    }
}

static void try_all_to_all(const buffers *b, bool in_place) {
    pgr_request request;
    const pgr_comm *comm = b->comm;
    void *result = in_place ? b->send : b->receive;
    fill(b->send, comm, b->count * comm->size, b->dtype);
    wait_for(
        comm->ops->all_to_all(b->comm, b->send, result, b->count, b->dtype, NULL, &request, &error),
        &request);
    for (int64_t i = 0; i < b->count * comm->size; i++) {
        int got = load(result, i, b->dtype);
        int want = value(i / b->count, comm->rank * b->count + i % b->count);
        CHECK(got == want, "all-to-all %s %d of %d: %d, not %d", pgr_dtype_name(b->dtype), (int)i,
              (int)b->count, got, want);
    }
}

static void try_broadcast(const buffers *b) {
    pgr_request request;
    for (int64_t root = 0; root < b->comm->size; root++) {
        fill(b->send, b->comm, b->count, b->dtype);
        wait_for(b->comm->ops->broadcast(b->comm, b->send, b->count, b->dtype, root, NULL, &request,
                                         &error),
                 &request);
        for (int64_t i = 0; i < b->count; i++) {
            int got = load(b->send, i, b->dtype);
            CHECK(got == value(root, i), "broadcast from %d: %d", (int)root, got);
        }
    }
}

static void try_ring(const buffers *b) {
    pgr_request requests[2];
    pgr_comm *comm = b->comm;
    int64_t next = (comm->rank + 1) % comm->size, last = (comm->rank + comm->size - 1) % comm->size;
    fill(b->send, comm, b->count, b->dtype);
    CHECK_OK(comm->ops->group_start(comm, &error));
    CHECK_OK(comm->ops->send(comm, b->send, b->count, b->dtype, next, NULL, &requests[0], &error));
    CHECK_OK(
        comm->ops->receive(comm, b->receive, b->count, b->dtype, last, NULL, &requests[1], &error));
    CHECK_OK(comm->ops->group_end(comm, &error));
    CHECK_OK(pgr_request_wait(&requests[0], &error));
    CHECK_OK(pgr_request_wait(&requests[1], &error));
    for (int64_t i = 0; i < b->count; i++) {
        int got = load(b->receive, i, b->dtype);
        CHECK(got == value(last, i), "ring: %d, not %d", got, value(last, i));
    }
}

/* Rank a sends rank b the first (a + 2b) % 4 * count of its elements that start at b * 3 * count:
 * every fourth part is empty. */
static int64_t part(int64_t from, int64_t to, int64_t count) {
    return (from + 2 * to) % 4 * count;
}

static void try_all_to_all_v(const buffers *b, bool device_counts) {
    enum { RANKS_MAX = 64 };
    int64_t counts[4][RANKS_MAX]; /* send, its displacements, receive, its displacements */
    pgr_request request;
    pgr_comm *comm = b->comm;
    int64_t size = comm->size, rank = comm->rank, room = 3 * b->count;
    for (int64_t p = 0; p < size; p++) {
        counts[0][p] = part(rank, p, b->count);
        counts[2][p] = part(p, rank, b->count);
        counts[1][p] = counts[3][p] = p * room;
    }
    fill(b->send, comm, size * room, b->dtype);
    for (int64_t i = 0; i < size * room; i++)
        store(b->receive, i, b->dtype, 99);
    if (device_counts) {
        pgr_device *device = job->device;
        pgr_event *ready = NULL;
        if (device) {
            CHECK_OK(device->ops->event_create(device, &ready, &error));
            CHECK_OK(device->ops->event_record(device, ready, NULL, &error));
        }
        wait_for(comm->ops->all_to_all_v_device(comm, b->send, counts[0], counts[1], b->receive,
                                                counts[2], counts[3], ready, b->dtype, NULL,
                                                &request, &error),
                 &request);
        if (ready)
            device->ops->event_free(device, ready);
    } else {
        pgr_status started =
            comm->ops->all_to_all_v(comm, b->send, counts[0], counts[1], b->receive, counts[2],
                                    counts[3], b->dtype, NULL, &request, &error);
        int64_t from_rank[RANKS_MAX];
        memcpy(from_rank, counts[2], sizeof from_rank);
        memset(counts, 0xff, sizeof counts); /* they were copied */
        memcpy(counts[2], from_rank, sizeof from_rank);
        wait_for(started, &request);
    }
    for (int64_t i = 0; i < size * room; i++) {
        int64_t from = room ? i / room : 0, at = room ? i % room : 0;
        int want = at < counts[2][from] ? value(from, rank * room + at) : 99;
        int got = load(b->receive, i, b->dtype);
        CHECK(got == want, "all-to-all-v from %d at %d: %d, not %d", (int)from, (int)at, got, want);
    }
}

static void try_everything(pgr_comm *comm, pgr_dtype dtype, int64_t count) {
    buffers b = {.comm = comm, .count = count, .dtype = dtype};
    int64_t bytes = 3 * count * comm->size * pgr_dtype_bytes(dtype);
    CHECK_OK(comm->ops->buffer_alloc(comm, bytes, &b.send, &error));
    CHECK_OK(comm->ops->buffer_alloc(comm, bytes, &b.receive, &error));
    CHECK((uintptr_t)b.send % 64 == 0, "alignment");
    for (pgr_reduce reduce = PGR_SUM; reduce <= PGR_MIN; reduce++) {
        try_all_reduce(&b, reduce, false);
        try_all_reduce(&b, reduce, true);
        for (int in_place = 0; in_place < 3; in_place++)
            try_reduce_scatter(&b, reduce, in_place);
    }
    try_all_gather(&b, false);
    try_all_gather(&b, true);
    try_all_to_all(&b, false);
    try_all_to_all(&b, true);
    try_all_to_all_v(&b, false);
    try_all_to_all_v(&b, true);
    try_broadcast(&b);
    try_ring(&b);
    comm->ops->buffer_free(comm, b.send);
    comm->ops->buffer_free(comm, b.receive);
}

void test_collectives(pgr_comm *comm, const char *where) {
    static const int64_t counts[] = {0, 1, 3, 17, 301};
    char name[128];
    for (pgr_dtype dtype = PGR_F32; dtype <= PGR_U8; dtype++) {
        if (comm)
            for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
                try_everything(comm, dtype, counts[i]);
        snprintf(name, sizeof name, "collectives on %s, %s", where, pgr_dtype_name(dtype));
        case_end(name);
    }
}

/* Sums whose rounding shows: bf16 must add in f32 and round once. 256 + 1 + 1 + ... : adding in
 * bf16 stays at 256. */
void test_bf16_sum(pgr_comm *comm) {
    if (comm) {
        pgr_request request;
        pgr_bf16 own = pgr_bf16_from_f32(comm->rank == 0 ? 256 : 1), sum = 0;
        wait_for(
            comm->ops->all_reduce(comm, &own, &sum, 1, PGR_BF16, PGR_SUM, NULL, &request, &error),
            &request);
        float want = pgr_bf16_to_f32(pgr_bf16_from_f32((float)(256 + comm->size - 1)));
        CHECK(pgr_bf16_to_f32(sum) == want, "%g, not %g", (double)pgr_bf16_to_f32(sum),
              (double)want);
    }
    case_end("bf16 sums are rounded once");
}

/* Several operations at once, waited for in the other order; sequence numbers count them. */
void test_requests(pgr_comm *comm) {
    enum { REQUESTS = 6 };
    if (comm) {
        pgr_request requests[REQUESTS];
        float data[REQUESTS];
        uint64_t before = comm->sequence;
        for (int i = 0; i < REQUESTS; i++) {
            data[i] = (float)i;
            CHECK_OK(comm->ops->all_reduce(comm, &data[i], &data[i], 1, PGR_F32, PGR_SUM, NULL,
                                           &requests[i], &error));
            CHECK(requests[i].sequence == before + (uint64_t)i + 1, "sequence");
            CHECK(requests[i].bytes == 4 && strcmp(requests[i].operation, "all-reduce") == 0, "%s",
                  requests[i].operation);
        }
        for (int i = REQUESTS - 1; i >= 0; i--) {
            CHECK_OK(pgr_request_wait(&requests[i], &error));
            CHECK_OK(pgr_request_wait(&requests[i], &error)); /* done already */
            CHECK(data[i] == (float)(i * comm->size), "%g", (double)data[i]);
        }
        wait_for(comm->ops->barrier(comm, NULL, &requests[0], &error), &requests[0]);
        CHECK(comm->ops->broadcast(comm, data, 1, PGR_F32, comm->size, NULL, &requests[0],
                                   &error) == PGR_INTERNAL,
              "a root outside of the group");
        CHECK(comm->ops->send(comm, data, 1, PGR_F32, -1, NULL, &requests[0], &error) ==
                  PGR_INTERNAL,
              "a peer outside of the group");
    }
    case_end("requests, sequence numbers and refusals");
}
