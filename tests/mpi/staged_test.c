/* staged_test.c - communicators that stage device memory through pinned host memory: every
 * operation on every dtype, order, errors and ends. One line per case from rank 0.
 *
 *   staged_test DEVICE          every case but those below; DEVICE: cpu, or cuda (on its stand-in)
 *   staged_test DEVICE large    pieces of the usual size
 *   staged_test DEVICE late     a rank that comes late, and one that never does (takes seconds)
 *   staged_test DEVICE reopen   opens and closes a hundred times */
#include "staged_check.h"

#include <dirent.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

pgr_job *job;
pgr_error error;
int failed;
static int failed_cases;
pgr_comm *comm;

void case_end(const char *name) {
    double sum = failed;
    if (job->bootstrap_ops->sum(job->bootstrap, &sum, 1, &error) != PGR_OK) {
        fprintf(stderr, "rank %d: %s: %s\n", (int)job->rank, name, error.message);
        sum = 1;
    }
    if (job->rank == 0)
        printf("%s %s\n", sum == 0 ? "ok" : "FAIL", name);
    fflush(stdout);
    failed_cases += sum != 0;
    failed = 0;
}

static void pause_seconds(double seconds) {
    struct timespec time = {.tv_sec = (time_t)seconds,
                            .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&time, NULL);
}

/* ---- order --------------------------------------------------------------------------------- */

/* The job's device, with a stream whose events are not done while `held`, and a count of copies. */
static const pgr_device_ops *true_ops;
static pgr_device_ops held_ops;
static pgr_stream *held_stream;
static _Atomic(pgr_event *) held_event;
static _Atomic bool held;
static _Atomic int copies;

static pgr_status held_record(pgr_device *device, pgr_event *event, pgr_stream *stream,
                              pgr_error *err) {
    if (stream == held_stream)
        atomic_store(&held_event, event);
    return true_ops->event_record(device, event, stream, err);
}

static pgr_status held_query(pgr_device *device, pgr_event *event, bool *done, pgr_error *err) {
    if (atomic_load(&held) && event == atomic_load(&held_event)) {
        *done = false;
        return PGR_OK;
    }
    return true_ops->event_query(device, event, done, err);
}

static pgr_status held_copy(pgr_device *device, void *dst, const void *src, int64_t bytes,
                            pgr_stream *stream, pgr_error *err) {
    copies++;
    return true_ops->copy(device, dst, src, bytes, stream, err);
}

static void hold(pgr_stream *stream) {
    true_ops = job->device->ops;
    held_ops = *true_ops;
    held_ops.event_record = held_record;
    held_ops.event_query = held_query;
    held_ops.copy = held_copy;
    held_stream = stream;
    held_event = NULL;
    held = true;
    job->device->ops = &held_ops;
}

static bool is_done(pgr_request *request) {
    bool done = false;
    CHECK_OK(comm->ops->test(request, &done, &error));
    return done;
}

/* What is on the stream comes first, and then the collectives in the order of the calls; messages
 * go past them. */
static void test_order(void) {
    pgr_request first, second, out, in;
    count = 3;
    dtype = PGR_I32;
    buffers_open(6 * count * comm->size * 4);
    prepare(false);
    hold(comm->stream);
    copies = 0;
    int64_t next = (comm->rank + 1) % comm->size, last = (comm->rank + comm->size - 1) % comm->size;
    CHECK_OK(comm->ops->all_reduce(comm, sent, got, count, dtype, PGR_SUM, comm->stream, &first,
                                   &error));
    CHECK_OK(comm->ops->all_reduce(comm, sent, element(got, count), count, dtype, PGR_MAX, NULL,
                                   &second, &error));
    pause_seconds(0.05);
    CHECK(copies == 0, "%d copies before their turn", copies);
    CHECK_OK(comm->ops->send(comm, sent, count, dtype, next, NULL, &out, &error));
    CHECK_OK(
        comm->ops->receive(comm, element(got, 2 * count), count, dtype, last, NULL, &in, &error));
    CHECK_OK(pgr_request_wait(&in, &error));
    CHECK_OK(pgr_request_wait(&out, &error));
    CHECK(!is_done(&first) && !is_done(&second), "done before what was on the stream");
    held = false;
    for (int64_t i = 0; i < count; i++) {
        expect(i, reduced(i, PGR_SUM));
        expect(count + i, reduced(i, PGR_MAX));
        expect(2 * count + i, value(last, i));
    }
    CHECK_OK(pgr_request_wait(&second, &error));
    compare(PGR_OK, &first, got, "two sums and a message");
    job->device->ops = true_ops;
    buffers_close();
    case_end("behind the stream, and in the order of the calls");
}

/* MPI gets what was copied, and a request is done when its result is there: later work on any
 * stream sees it. */
static void test_copies(void) {
    pgr_staged_comm *staged = (pgr_staged_comm *)comm;
    pgr_stream *streams[] = {staged->in, staged->out};
    pgr_request request;
    count = 3;
    dtype = PGR_F64;
    buffers_open(count * 8);
    for (int i = 0; i < 2; i++) {
        prepare(false);
        hold(streams[i]);
        CHECK_OK(
            comm->ops->all_reduce(comm, sent, got, count, dtype, PGR_SUM, NULL, &request, &error));
        for (int k = 0; k < (i ? 1000 : 5) && request.progress == 0; k++) {
            CHECK(!is_done(&request), "done before its copy %d", i);
            pause_seconds(0.01);
        }
        CHECK((request.progress > 0) == (i == 1), "copy %d: progress %d", i, (int)request.progress);
        CHECK(!is_done(&request), "done before its copy %d", i);
        held = false;
        for (int64_t e = 0; e < count; e++)
            expect(e, reduced(e, PGR_SUM));
        compare(PGR_OK, &request, got, "a sum");
        job->device->ops = true_ops;
    }
    buffers_close();
    case_end("copies are waited for");
}

/* Several at once, waited for from the end; numbers; what cannot be. */
static void test_many(void) {
    enum { REQUESTS = 40 };
    pgr_request requests[REQUESTS];
    dtype = PGR_F32;
    count = 1;
    buffers_open(REQUESTS * 4);
    prepare(false);
    uint64_t before = comm->sequence;
    for (int i = 0; i < REQUESTS; i++) {
        expect(i, reduced(i, PGR_SUM));
        CHECK_OK(comm->ops->all_reduce(comm, element(sent, i), element(got, i), 1, dtype, PGR_SUM,
                                       comm->stream, &requests[i], &error));
        CHECK(requests[i].sequence == before + (uint64_t)i + 1 && requests[i].bytes == 4, "%d", i);
    }
    for (int i = REQUESTS - 1; i > 0; i--) {
        CHECK_OK(pgr_request_wait(&requests[i], &error));
        CHECK_OK(pgr_request_wait(&requests[i], &error)); /* done already */
    }
    compare(PGR_OK, &requests[0], got, "40 sums");
    CHECK(comm->ops->broadcast(comm, sent, 1, dtype, comm->size, NULL, &requests[0], &error) ==
              PGR_INTERNAL,
          "a root outside of the group");
    CHECK(comm->ops->send(comm, sent, 1, dtype, -1, NULL, &requests[0], &error) == PGR_INTERNAL,
          "a peer outside of the group");
    CHECK(comm->ops->all_reduce(comm, sent, got, INT64_MAX / 2, dtype, PGR_SUM, NULL, &requests[0],
                                &error) == PGR_LIMIT,
          "2^62 elements");
    buffers_close();
    case_end("requests, sequence numbers and refusals");
}

/* A further communicator of all ranks. */
static pgr_comm *comm_other(void) {
    pgr_comm_open_args args = {job, "other", 0, job->rank, job->size, job->timeout, NULL};
    pgr_comm *other = NULL;
    bool done = false;
    pgr_status status = job->comm_ops->open_begin(&args, &other, &error);
    while (status == PGR_OK && !done)
        status = job->comm_ops->open_poll(other, &done, &error);
    CHECK_OK(status);
    return other;
}

/* Ranks come to two communicators in different orders. */
static void test_two(void) {
    pgr_comm *other = comm_other(), *comms[] = {comm, other};
    pgr_request requests[2];
    dtype = PGR_I64;
    count = 9;
    buffers_open(2 * count * 8);
    prepare(false);
    for (int k = 0; k < 2; k++) {
        int i = (k + (int)comm->rank) % 2; /* waits for one before it comes to the other */
        CHECK_OK(comms[i]->ops->all_reduce(comms[i], sent, element(got, i * count), count, dtype,
                                           i ? PGR_MAX : PGR_SUM, NULL, &requests[i], &error));
    }
    for (int64_t i = 0; i < count; i++) {
        expect(i, reduced(i, PGR_SUM));
        expect(count + i, reduced(i, PGR_MAX));
    }
    CHECK_OK(pgr_request_wait(&requests[1], &error));
    compare(PGR_OK, &requests[0], got, "two communicators");
    buffers_close();
    CHECK_OK(other->ops->close(other, &error));
    case_end("two communicators, in different orders");
}

/* Counts on the device that cannot be end their communicator, and no other. */
static void test_broken(void) {
    pgr_comm *other = comm_other();
    int64_t v[4][RANKS_MAX] = {{0}};
    void *there = NULL;
    pgr_request bad, after;
    const int64_t *at;
    v[0][comm->size - 1] = -3;
    dtype = PGR_F32;
    count = 5;
    buffers_open(count * 4);
    prepare(true);
    CHECK_OK(comm->ops->buffer_alloc(comm, sizeof v, &there, &error));
    copy(there, v, sizeof v);
    at = there;
    CHECK_OK(other->ops->all_to_all_v_device(other, sent, at, at + RANKS_MAX, got,
                                             at + 2 * RANKS_MAX, at + 3 * RANKS_MAX, NULL, dtype,
                                             NULL, &bad, &error));
    for (int i = 0; i < 2; i++) {
        CHECK(pgr_request_wait(&bad, &error) == PGR_INTERNAL, "negative counts");
        CHECK(strstr(error.message, "all-to-all-v number 1 of 0 bytes in family other") &&
                  strstr(error.message, "negative count for rank") &&
                  !strstr(error.message, "before it failed"),
              "%s", error.message);
    }
    CHECK(other->ops->barrier(other, NULL, &after, &error) == PGR_INTERNAL, "after an error");
    CHECK(strstr(error.message, "barrier number 2") &&
              strstr(error.message, "all-to-all-v number 1 before it failed: "),
          "%s", error.message);
    for (int64_t i = 0; i < count; i++)
        expect(i, reduced(i, PGR_SUM));
    compare(comm->ops->all_reduce(comm, sent, sent, count, dtype, PGR_SUM, NULL, &after, &error),
            &after, sent, "all-reduce of another communicator");
    other->ops->abort(other);
    comm->ops->buffer_free(comm, there);
    buffers_close();
    case_end("an error ends its communicator, and no other");
}

/* ---- late, again --------------------------------------------------------------------------- */

static void test_late(void) {
    pgr_request request;
    dtype = PGR_I64;
    count = 3;
    buffers_open(count * 8);
    prepare(false);
    for (int64_t i = 0; i < count; i++)
        expect(i, reduced(i, PGR_SUM));
    comm->timeout = 1;
    if (job->rank == 1)
        pause_seconds(3);
    CHECK_OK(comm->ops->all_reduce(comm, sent, got, count, dtype, PGR_SUM, comm->stream, &request,
                                   &error));
    double start = pgr_clock_seconds();
    pgr_status status = pgr_request_wait(&request, &error);
    double waited = pgr_clock_seconds() - start;
    if (job->rank != 1) {
        CHECK(status == PGR_TIMEOUT && waited > 0.9 && waited < 2.8, "status %d after %g s",
              (int)status, waited);
        static const char *const parts[] = {
            "all-reduce number ", " of 24 bytes in family tp, group 0", "world ranks 0, 1",
            "waited 1 seconds", "(0 of its parts"};
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            CHECK(strstr(error.message, parts[i]), "no \"%s\" in: %s", parts[i], error.message);
    }
    comm->timeout = 20; /* the request is as good as before */
    compare(PGR_OK, &request, got, "a late sum");
    buffers_close();
    case_end("a rank that comes late");
}

/* The last rank never comes: the others give up what is under way, each in another phase. */
static void test_absent(void) {
    pgr_comm *other = comm_other();
    pgr_request sum, message;
    dtype = PGR_F32;
    count = 1000;
    buffers_open(count * 8);
    prepare(false);
    bool absent = job->rank == job->size - 1;
    other->timeout = 0.3;
    if (!absent) {
        CHECK_OK(
            other->ops->all_reduce(other, sent, got, count, dtype, PGR_SUM, NULL, &sum, &error));
        CHECK_OK(other->ops->receive(other, element(got, count), count, dtype, job->size - 1, NULL,
                                     &message, &error));
        CHECK(pgr_request_wait(&sum, &error) == PGR_TIMEOUT, "no timeout");
        CHECK(pgr_request_wait(&message, &error) == PGR_TIMEOUT, "no timeout");
        CHECK(other->ops->close(other, &error) == PGR_INTERNAL &&
                  strstr(error.message, "closed with operations under way"),
              "%s", error.message);
    } else {
        other->ops->abort(other);
    }
    buffers_close();
    case_end("a rank that never comes");
}

/* Files, or threads, of this process. */
static int64_t entries(const char *path) {
    int64_t number = 0;
    DIR *folder = opendir(path);
    while (folder && readdir(folder))
        number++;
    if (folder)
        closedir(folder);
    return number;
}

/* Pages that are mapped: pinned memory of the stand-in's is not malloc's. */
static int64_t pages(void) {
    long number = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%ld", &number) != 1)
        number = 0;
    if (file)
        fclose(file);
    return number;
}

size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static int64_t heap_bytes(void) {
    if (__sanitizer_get_current_allocated_bytes)
        return (int64_t)__sanitizer_get_current_allocated_bytes();
    struct mallinfo2 info = mallinfo2();
    return (int64_t)(info.uordblks + info.hblkhd);
}

static pgr_groups *tp_open(void);

typedef struct measure {
    const char *what;
    int64_t bound; /* of what may be there after the rounds and was not before */
    int64_t before, after;
} measure;

static void round_trip(void) {
    pgr_request request;
    pgr_groups *groups = tp_open();
    buffers_open(count * 4);
    for (int i = 0; i < 10; i++) {
        CHECK_OK(
            comm->ops->all_reduce(comm, sent, got, count, dtype, PGR_SUM, NULL, &request, &error));
        CHECK_OK(pgr_request_wait(&request, &error));
    }
    buffers_close();
    CHECK_OK(pgr_groups_close(groups, &error));
}

/* A slot of pinned memory that is lost in each round would be 400 kB. The bound of the heap is
 * reopen_test.c's; the address sanitizer counts exactly, and maps pages of its own. */
static void test_reopen(void) {
    enum { WARMUP = 40, ROUNDS = 100 };
    bool exact = __sanitizer_get_current_allocated_bytes;
    measure m[] = {{.what = "threads"},
                   {.what = "files"},
                   {.what = "pages", .bound = exact ? INT64_MAX : 64},
                   {.what = "bytes of heap", .bound = exact ? 2000 : 36000}};
    dtype = PGR_F32;
    count = 100;
    for (int round = 0; round <= WARMUP + ROUNDS; round++) {
        int64_t now[] = {entries("/proc/self/task"), entries("/proc/self/fd"), pages(),
                         heap_bytes()};
        for (int i = 0; i < 4; i++)
            *(round <= WARMUP ? &m[i].before : &m[i].after) = now[i];
        if (round < WARMUP + ROUNDS)
            round_trip();
    }
    for (int i = 0; i < 4; i++)
        CHECK(m[i].after - m[i].before <= m[i].bound, "%s: %d more", m[i].what,
              (int)(m[i].after - m[i].before));
    case_end("opened and closed a hundred times");
}

/* -------------------------------------------------------------------------------------------- */

static pgr_groups *tp_open(void) {
    char items[1][PGR_NAME_MAX] = {"tp"};
    pgr_names names = {.count = 1, .items = items};
    pgr_groups *groups = NULL;
    pgr_spec spec;
    pgr_plan plan;
    pgr_spec_init(&spec);
    spec.parallel.tp = job->size;
    CHECK_OK(pgr_plan_create(&spec, job->size, &plan, &error));
    pgr_spec_free(&spec);
    CHECK_OK(pgr_groups_open_begin(job, &plan, &names, &groups, &error));
    CHECK_OK(pgr_groups_open_finish(groups, &error));
    comm = pgr_groups_at(groups, 0)->comm;
    return groups;
}

static void device_open(const char *kind) {
    bool cuda = strcmp(kind, "cuda") == 0;
    pgr_job_args args = {.device = cuda ? PGR_DEVICE_CUDA : PGR_DEVICE_CPU,
                         .comm = PGR_COMM_MPI,
                         .timeout = 60,
                         .init_timeout = 60,
                         .share_gpu = true};
    CHECK_OK(pgr_job_open_device(job, &args, &error));
    if (!cuda) { /* which needs no staging, but can be staged */
        job->staged_ops = job->comm_ops;
        job->comm_ops = &pgr_staged_comm_ops;
    } else if (job->size > 1) {
        CHECK(job->comm_ops == &pgr_staged_comm_ops && job->staged_ops, "cuda is not staged");
        CHECK(strstr(job->comm_name, ", staged through pinned memory"), "%s", job->comm_name);
    }
    case_end("the device");
}

static void run(const char *what) {
    if (strcmp(what, "reopen") == 0) {
        test_reopen();
        return;
    }
    pgr_groups *groups = tp_open();
    if (job->size == 1) {
        CHECK(!comm, "a communicator of one");
        case_end("none for one rank");
    } else if (strcmp(what, "large") == 0) {
        test_large();
    } else if (strcmp(what, "late") == 0) {
        test_late();
        test_absent();
    } else {
        test_operations();
        test_order();
        test_copies();
        test_many();
        test_two();
        test_broken();
    }
    CHECK_OK(pgr_groups_close(groups, &error));
    case_end("closed");
}

int main(int argc, char **argv) {
    pgr_status status = pgr_job_open(30, &job, &error);
    if (status != PGR_OK || argc < 2) {
        fprintf(stderr, "%s\n", argc < 2 ? "usage: staged_test DEVICE [WHAT]" : error.message);
        return 3;
    }
    device_open(argv[1]);
    if (failed_cases == 0)
        run(argc > 2 ? argv[2] : "");
    status = pgr_job_close(job, &error);
    if (status != PGR_OK)
        fprintf(stderr, "%s\n", error.message);
    return failed_cases || status != PGR_OK;
}
