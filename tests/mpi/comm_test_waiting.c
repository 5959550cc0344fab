/* comm_test_waiting.c - requests that take their time: counts that come late, and slow operations
 * of which one part after the other is done. */
#include "comm_check.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RANKS_MAX = 64, ROOM = 8 };

/* One all-to-all-v: rank a sends rank b (a + 2b + salt) % ROOM elements, at b * ROOM. */
typedef struct exchange {
    int64_t counts[4][RANKS_MAX]; /* send, its displacements, receive, its displacements */
    int32_t send[RANKS_MAX * ROOM], receive[RANKS_MAX * ROOM];
    int salt;
    pgr_request request;
} exchange;

static int64_t part(int64_t from, int64_t to, int salt) {
    return (from + 2 * to + salt) % ROOM;
}

static int32_t element(int64_t from, int64_t to, int64_t i, int salt) {
    return (int32_t)(((salt * RANKS_MAX + from) * RANKS_MAX + to) * ROOM + i);
}

static void counts_set(exchange *e, const pgr_comm *comm) {
    for (int64_t p = 0; p < comm->size; p++) {
        e->counts[0][p] = part(comm->rank, p, e->salt);
        e->counts[2][p] = part(p, comm->rank, e->salt);
        e->counts[1][p] = e->counts[3][p] = p * ROOM;
    }
}

static void exchange_fill(exchange *e, const pgr_comm *comm, int salt) {
    e->salt = salt;
    for (int64_t p = 0; p < comm->size; p++)
        for (int64_t i = 0; i < ROOM; i++)
            e->send[p * ROOM + i] = element(comm->rank, p, i, salt);
    memset(e->receive, 0xff, sizeof e->receive);
    counts_set(e, comm);
}

static void exchange_start(exchange *e, pgr_comm *comm) {
    CHECK_OK(comm->ops->all_to_all_v(comm, e->send, e->counts[0], e->counts[1], e->receive,
                                     e->counts[2], e->counts[3], PGR_I32, NULL, &e->request,
                                     &error));
}

static pgr_status exchange_start_device(exchange *e, pgr_comm *comm, pgr_event *ready) {
    return comm->ops->all_to_all_v_device(comm, e->send, e->counts[0], e->counts[1], e->receive,
                                          e->counts[2], e->counts[3], ready, PGR_I32, NULL,
                                          &e->request, &error);
}

static void exchange_end(exchange *e, const pgr_comm *comm) {
    CHECK_OK(pgr_request_wait(&e->request, &error));
    for (int64_t p = 0; p < comm->size; p++) {
        for (int64_t i = 0; i < ROOM; i++) {
            int got = e->receive[p * ROOM + i];
            int want = i < part(p, comm->rank, e->salt) ? element(p, comm->rank, i, e->salt) : -1;
            CHECK(got == want, "exchange %d, from %d at %d: %d, not %d", e->salt, (int)p, (int)i,
                  got, want);
        }
    }
}

/* ---- counts that come late ----------------------------------------------------------------- */

/* The job's device with events that answer "not yet" some times. */
static const pgr_device_ops *true_ops;
static pgr_device_ops slow_ops;
static int refusals;

static pgr_status query_slowly(pgr_device *device, pgr_event *event, bool *done, pgr_error *err) {
    if (refusals > 0) {
        refusals--;
        *done = false;
        return PGR_OK;
    }
    return true_ops->event_query(device, event, done, err);
}

static pgr_event *events_slow(int count) {
    pgr_event *event = NULL;
    true_ops = job->device->ops;
    slow_ops = *true_ops;
    slow_ops.event_query = query_slowly;
    job->device->ops = &slow_ops;
    refusals = count;
    CHECK_OK(true_ops->event_create(job->device, &event, &error));
    CHECK_OK(true_ops->event_record(job->device, event, NULL, &error));
    return event;
}

static void events_true(pgr_event *event) {
    job->device->ops = true_ops;
    true_ops->event_free(job->device, event);
}

/* Two all-to-all-vs whose counts are missing on some ranks when they are called, and three other
 * operations in between that are over before. */
static void try_interleaved(pgr_comm *comm, exchange *e, bool late) {
    pgr_event *ready = events_slow(late ? 1000000000 : 0);
    int64_t sum = comm->rank;
    pgr_request request;
    for (int i = 0; i < 4; i++)
        exchange_fill(&e[i], comm, i);
    if (late) {
        memset(e[0].counts, 0xff, sizeof e[0].counts);
        memset(e[2].counts, 0xff, sizeof e[2].counts);
    }
    CHECK_OK(exchange_start_device(&e[0], comm, ready));
    exchange_start(&e[1], comm);
    CHECK_OK(exchange_start_device(&e[2], comm, ready));
    CHECK_OK(comm->ops->all_reduce(comm, &sum, &sum, 1, PGR_I64, PGR_SUM, NULL, &request, &error));
    exchange_start(&e[3], comm);
    exchange_end(&e[3], comm);
    CHECK_OK(pgr_request_wait(&request, &error));
    CHECK(sum == comm->size * (comm->size - 1) / 2, "%d", (int)sum);
    exchange_end(&e[1], comm);
    if (late) {
        bool done = true;
        CHECK_OK(comm->ops->test(&e[0].request, &done, &error));
        CHECK(!done, "done without its counts");
        counts_set(&e[0], comm);
        counts_set(&e[2], comm);
        refusals = 3; /* both start at the same look, the later call first or last */
    }
    exchange_end(&e[2], comm);
    exchange_end(&e[0], comm);
    events_true(ready);
}

/* Even ranks come to the exchange after the sum, odd ranks to the sum after the exchange: as in
 * streams, the even ranks' exchange must start while they wait for the sum. */
static void try_other_order(pgr_comm *comm, pgr_comm *other, exchange *e) {
    double timeouts[] = {comm->timeout, other->timeout};
    bool even = comm->rank % 2 == 0;
    pgr_event *ready = events_slow(even ? 5 : 0);
    int64_t sum = 1;
    pgr_request request;
    comm->timeout = other->timeout = 10;
    exchange_fill(e, comm, 7);
    CHECK_OK(exchange_start_device(e, comm, ready));
    if (!even)
        exchange_end(e, comm);
    CHECK_OK(
        other->ops->all_reduce(other, &sum, &sum, 1, PGR_I64, PGR_SUM, NULL, &request, &error));
    CHECK_OK(pgr_request_wait(&request, &error));
    CHECK(sum == comm->size, "%d", (int)sum);
    if (even)
        exchange_end(e, comm);
    comm->timeout = timeouts[0];
    other->timeout = timeouts[1];
    events_true(ready);
}

/* Counts that cannot be: an error of this operation, when they come, and of no other one. Leaves
 * `given_up` fit for abort alone. */
static void try_bad_counts(pgr_comm *comm, pgr_comm *given_up, exchange *e) {
    pgr_event *ready = events_slow(2);
    exchange_fill(&e[0], comm, 1);
    exchange_fill(&e[1], comm, 2);
    e[0].counts[0][comm->size - 1] = -1;
    CHECK_OK(exchange_start_device(&e[0], given_up, ready));
    refusals = 0;
    exchange_start(&e[1], comm);
    exchange_end(&e[1], comm);
    for (int i = 0; i < 2; i++) {
        CHECK(pgr_request_wait(&e[0].request, &error) == PGR_INTERNAL, "negative counts");
        CHECK(strstr(error.message, "negative count for rank"), "%s", error.message);
    }
    events_true(ready);
}

void test_late_counts(pgr_comm *comm, pgr_comm *other) {
    exchange *e = calloc(4, sizeof *e);
    if (comm && other && e && job->device) {
        for (int round = 0; round < 4; round++)
            try_interleaved(comm, e, round == 3 || comm->rank % 2 == round % 2);
        try_other_order(comm, other, e);
        try_bad_counts(comm, other, e);
    }
    CHECK(e, "out of memory");
    case_end("all-to-all-v whose counts come late");
    free(e);
}

/* ---- one part after the other -------------------------------------------------------------- */

static void pause_seconds(double seconds) {
    struct timespec time = {.tv_sec = (time_t)seconds,
                            .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&time, NULL);
}

/* Rank r comes a second after rank r-1: more than the limit in all, but less from message to
 * message. Then the last rank comes when the limit has passed without a further message. */
void test_progress(pgr_comm *comm) {
    exchange *e = calloc(1, sizeof *e);
    comm->timeout = 2;
    exchange_fill(e, comm, 3);
    pause_seconds((double)comm->rank);
    double start = pgr_clock_seconds();
    exchange_start(e, comm);
    exchange_end(e, comm);
    double waited = pgr_clock_seconds() - start;
    CHECK(comm->rank != 0 || waited > 2.5, "rank 0 waited only %g seconds", waited);
    case_end("a message now and then is progress");

    bool last = comm->rank == comm->size - 1;
    exchange_fill(e, comm, 4);
    pause_seconds(last ? 4.5 : comm->rank == 0 ? 0 : 1);
    start = pgr_clock_seconds();
    exchange_start(e, comm);
    if (comm->rank == 0) {
        CHECK(pgr_request_wait(&e->request, &error) == PGR_TIMEOUT, "no timeout");
        waited = pgr_clock_seconds() - start;
        CHECK(waited > 2.9 && waited < 4.4, "%g seconds", waited);
        CHECK(e->request.progress > 0 && strstr(error.message, "waited 2 seconds") &&
                  !strstr(error.message, "(0 of its parts"),
              "%s", error.message);
    }
    comm->timeout = 20;
    exchange_end(e, comm);
    case_end("no further message is none");
    free(e);
}
