/* comm_test.c - jobs and communicators under mpirun, at any number of ranks. One line per case from
 * rank 0; the exit status is 1 where one failed on any rank.
 *
 *   comm_test            every case but those below
 *   comm_test open       opens and closes the job: its status is the exit status
 *   comm_test late       a rank that comes late: deadlines and their messages (takes seconds) */
#include "bf16.h"
#include "comm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static pgr_job *job;
static pgr_error error;
static int failed; /* checks of the current case, on this rank */
static int failed_cases;

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition) && failed++ < 3) {                                                        \
            fprintf(stderr, "rank %d, line %d: %s: ", (int)job->rank, __LINE__, #condition);       \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fprintf(stderr, "\n");                                                                 \
        }                                                                                          \
    } while (0)
#define CHECK_OK(call) CHECK((call) == PGR_OK, "%s", error.message)

/* Every rank's verdict counts; rank 0 prints the line. */
static void case_end(const char *name) {
    double sum = failed;
    if (job->bootstrap_ops->sum(job->bootstrap, &sum, 1, &error) != PGR_OK) {
        fprintf(stderr, "rank %d: %s: %s\n", (int)job->rank, name, error.message);
        sum = 1;
    }
    if (job->rank == 0) {
        printf("%s %s\n", sum == 0 ? "ok" : "FAIL", name);
        fflush(stdout);
    }
    failed_cases += sum != 0;
    failed = 0;
}

static void barrier(void) {
    CHECK_OK(job->bootstrap_ops->barrier(job->bootstrap, &error));
}

static void pause_seconds(double seconds) {
    struct timespec time = {.tv_sec = (time_t)seconds,
                            .tv_nsec = (long)((seconds - floor(seconds)) * 1e9)};
    nanosleep(&time, NULL);
}

/* A plan of the whole job with these sizes. */
static pgr_plan plan_of(int64_t tp, int64_t cp) {
    pgr_spec spec;
    pgr_plan plan = {0};
    pgr_spec_init(&spec);
    spec.parallel.tp = tp;
    spec.parallel.cp = cp;
    CHECK_OK(pgr_plan_create(&spec, job->size, &plan, &error));
    pgr_spec_free(&spec);
    return plan;
}

static pgr_groups *groups_open(const pgr_plan *plan, const char *const *families, int64_t count) {
    char items[16][PGR_NAME_MAX];
    pgr_names names = {.count = count, .items = items};
    pgr_groups *groups = NULL;
    for (int64_t i = 0; i < count; i++) {
        snprintf(items[i], PGR_NAME_MAX, "%s", families[i]);
    }
    CHECK_OK(pgr_groups_open_begin(job, plan, &names, &groups, &error));
    if (groups) {
        CHECK_OK(pgr_groups_open_finish(groups, &error));
    }
    return groups;
}

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
    for (int64_t i = 0; i < count; i++) {
        store(data, i, dtype, value(comm->rank, i));
    }
}

static void wait_for(pgr_status started, pgr_request *request) {
    CHECK(started == PGR_OK, "%s", error.message);
    if (started == PGR_OK) {
        CHECK_OK(pgr_request_wait(request, &error));
    }
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
    for (int64_t i = 0; i < size * room; i++) {
        store(b->receive, i, b->dtype, 99);
    }
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
        if (ready) {
            device->ops->event_free(device, ready);
        }
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
        for (int in_place = 0; in_place < 3; in_place++) {
            try_reduce_scatter(&b, reduce, in_place);
        }
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

static void test_collectives(pgr_comm *comm, const char *where) {
    static const int64_t counts[] = {0, 1, 3, 17, 301};
    char name[128];
    for (pgr_dtype dtype = PGR_F32; dtype <= PGR_U8; dtype++) {
        if (comm) {
            for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
                try_everything(comm, dtype, counts[i]);
            }
        }
        snprintf(name, sizeof name, "collectives on %s, %s", where, pgr_dtype_name(dtype));
        case_end(name);
    }
}

/* Sums whose rounding shows: bf16 must add in f32 and round once. 256 + 1 + 1 + ... : adding in
 * bf16 stays at 256. */
static void test_bf16_sum(pgr_comm *comm) {
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
static void test_requests(pgr_comm *comm) {
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

/* ---- the job ------------------------------------------------------------------------------- */

static void test_bootstrap(void) {
    enum { BYTES = 1001 };
    const pgr_bootstrap_ops *ops = job->bootstrap_ops;
    char data[BYTES], *all = malloc((size_t)job->size * BYTES);
    double values[33];
    for (int64_t root = 0; root<job->size; root += job->size> 1 ? job->size - 1 : 1) {
        memset(data, (int)job->rank + 1, sizeof data);
        CHECK_OK(ops->broadcast(job->bootstrap, data, BYTES, root, &error));
        CHECK(data[0] == root + 1 && data[BYTES - 1] == root + 1, "%d", data[0]);
    }
    memset(data, (int)job->rank + 1, sizeof data);
    CHECK_OK(ops->all_gather(job->bootstrap, data, all, BYTES, &error));
    for (int64_t i = 0; i < job->size * BYTES; i++) {
        CHECK(all[i] == (char)(i / BYTES + 1), "byte %d of the gather", (int)i);
    }
    for (int i = 0; i < 33; i++) {
        values[i] = (double)(job->rank + i);
    }
    CHECK_OK(ops->sum(job->bootstrap, values, 33, &error));
    for (int i = 0; i < 33; i++) {
        double n = (double)job->size;
        CHECK(values[i] == n * i + n * (n - 1) / 2, "%g", values[i]);
        values[i] = (double)job->rank;
    }
    CHECK_OK(ops->max(job->bootstrap, values, 33, &error));
    CHECK(values[32] == (double)(job->size - 1), "%g", values[32]);
    barrier();
    free(all);
    case_end("bootstrap");
}

static void test_job(void) {
    CHECK(job->size == pgr_launcher_size(), "%d ranks", (int)job->size);
    CHECK(job->local_size == job->size && job->local_rank == job->rank && job->host_count == 1,
          "local %d of %d, %d hosts", job->local_rank, job->local_size, job->host_count);
    CHECK(pgr_launcher_present() == (strcmp(job->bootstrap_ops->name, "mpi") == 0), "%s",
          job->bootstrap_ops->name);
    case_end("job");
}

static void test_agree(void) {
    CHECK(pgr_job_agree(job, PGR_OK, &error) == PGR_OK, "all well");
    pgr_status own = PGR_OK;
    if (job->rank >= job->size / 2) {
        own = pgr_error_set(&error, job->rank % 2 ? PGR_LIMIT : PGR_INVALID, "from %d",
                            (int)job->rank);
    }
    int64_t lowest = job->size / 2;
    pgr_status want = lowest % 2 ? PGR_LIMIT : PGR_INVALID;
    char text[128];
    snprintf(text, sizeof text, job->size > 1 ? "rank %d on %s: from %d" : "from %d", (int)lowest,
             job->host, (int)lowest);
    if (job->size == 1) {
        snprintf(text, sizeof text, "from 0");
    }
    pgr_status status = pgr_job_agree(job, own, &error);
    CHECK(status == want && error.status == want, "status %d", (int)status);
    CHECK(strcmp(error.message, text) == 0, "\"%s\", not \"%s\"", error.message, text);
    own = pgr_error_set(&error, PGR_SYSTEM, "mine is %d", (int)job->rank);
    status = pgr_job_agree(job, own, &error);
    CHECK(status == PGR_SYSTEM && strcmp(error.message, "mine is 0") == 0, "%s", error.message);
    case_end("ranks agree on one error");
}

static void test_modules(void) {
    const pgr_module *module = NULL;
    CHECK(pgr_module_open("nonesuch", &module, &error) == PGR_UNSUPPORTED && !module, "opened");
    CHECK(strstr(error.message, "libpgrun_nonesuch.so") && strstr(error.message, "looked in /"),
          "%s", error.message);
    case_end("a missing module is named");
}

static void test_device(void) {
    pgr_job_args args = {.comm = PGR_COMM_NCCL, .timeout = 60, .init_timeout = 60};
    CHECK(pgr_job_open_device(job, &args, &error) == PGR_UNSUPPORTED && !job->device, "nccl");
    CHECK(strstr(error.message, "run.comm = \"nccl\" is not there yet") == error.message, "%s",
          error.message);
    args.comm = PGR_COMM_AUTO;
    args.device = PGR_DEVICE_CUDA;
    CHECK(pgr_job_open_device(job, &args, &error) == PGR_UNSUPPORTED && !job->device, "cuda");
    CHECK(strstr(error.message, "run.device = \"cuda\" is not there yet") == error.message, "%s",
          error.message);
    args.device = PGR_DEVICE_AUTO;
    CHECK_OK(pgr_job_open_device(job, &args, &error));
    if (job->device) {
        CHECK(strcmp(job->device->kind, "cpu") == 0, "%s", job->device->kind);
        CHECK(job->device->threads >= 1, "%d threads", job->device->threads);
        const char *threads = getenv("OPENBLAS_NUM_THREADS");
        CHECK(threads && atoi(threads) == job->device->threads, "%s", threads ? threads : "unset");
    }
    case_end("the device, or why not");
}

/* ---- groups -------------------------------------------------------------------------------- */

static void test_sharing(void) {
    static const char *const families[] = {"cp-tp", "dp", "tp", "dp-cp", "cp", "tp-cp"};
    pgr_plan plan = plan_of(job->size % 2 ? 1 : 2, 1);
    pgr_groups *groups = groups_open(&plan, families, 6);
    if (groups) {
        const pgr_group *tp = pgr_groups_find(groups, "tp"), *dp = pgr_groups_find(groups, "dp");
        const pgr_group *cp = pgr_groups_find(groups, "cp");
        const pgr_group *dp_cp = pgr_groups_find(groups, "cp-dp");
        const pgr_group *tp_cp = pgr_groups_find(groups, "tp-cp");
        CHECK(pgr_groups_count(groups) == 5, "%d groups", (int)pgr_groups_count(groups));
        CHECK(tp && dp && cp && dp_cp && tp_cp, "not all found");
        CHECK(!pgr_groups_find(groups, "pp") && !pgr_groups_find(groups, "nonesuch"), "found");
        CHECK(cp && cp->size == 1 && !cp->comm && !cp->shared_with, "a group of one is open");
        CHECK(tp && tp->size == (job->size % 2 ? 1 : 2), "tp");
        CHECK(tp && !tp->comm == (job->size % 2 == 1), "tp's communicator");
        CHECK(tp && tp_cp && tp->comm == tp_cp->comm, "tp and tp-cp are one partition");
        CHECK(dp && dp_cp && dp->comm == dp_cp->comm, "dp and dp-cp are one partition");
        CHECK(tp && dp && (!tp->comm || tp->comm != dp->comm), "tp and dp are not");
        if (job->size >= 4 && job->size % 2 == 0) {
            CHECK(tp_cp->shared_with && strcmp(tp_cp->shared_with, "tp") == 0, "tp-cp shares tp");
            CHECK(tp->open_seconds > 0 && tp_cp->open_seconds == 0, "open_seconds");
            CHECK(tp->index == job->rank / 2 && tp->rank == job->rank % 2, "place in tp");
            /* the default families come in plan order, then the others */
            const pgr_group *last = pgr_groups_at(groups, 4);
            CHECK(last && last == tp_cp, "%s is last", last ? last->family.name : "nothing");
        }
        if (tp && tp->comm) {
            test_collectives(tp->comm, "tp");
        }
        if (dp && job->size >= 4) {
            test_collectives(dp->comm, "dp");
        }
        CHECK_OK(pgr_groups_close(groups, &error));
    }
    case_end("families share communicators");
}

static void test_refusals(void) {
    char items[1][PGR_NAME_MAX] = {"tp-nonesuch"};
    pgr_names names = {.count = 1, .items = items};
    pgr_groups *groups = NULL;
    pgr_plan plan = plan_of(1, 1);
    CHECK(pgr_groups_open_begin(job, &plan, &names, &groups, &error) == PGR_INVALID && !groups,
          "an unknown family");
    names.count = 0;
    CHECK_OK(pgr_groups_open_begin(job, &plan, &names, &groups, &error));
    CHECK_OK(pgr_groups_open_finish(groups, &error));
    CHECK(pgr_groups_count(groups) == 0, "no families");
    CHECK_OK(pgr_groups_close(groups, &error));
    plan.world_size++;
    CHECK(pgr_groups_open_begin(job, &plan, &names, &groups, &error) == PGR_USAGE, "a larger plan");
    case_end("groups that cannot be");
}

static void test_reopen(void) {
    static const char *const families[] = {"dp", "tp"};
    pgr_plan plan = plan_of(job->size % 2 ? 1 : 2, 1);
    for (int i = 0; i < 20; i++) {
        pgr_groups *groups = groups_open(&plan, families, 2);
        if (groups) {
            CHECK_OK(pgr_groups_close(groups, &error));
        }
    }
    case_end("opened and closed 20 times");
}

/* A backend that opens what it was asked for, but for a wrong place: the identity check's prey. */
static pgr_comm_ops broken_ops;
static const pgr_comm_ops *true_ops;

static pgr_status open_swapped(const pgr_comm_open_args *args, pgr_comm **comm, pgr_error *err) {
    pgr_comm_open_args swapped = *args;
    swapped.rank = args->rank < 2 ? 1 - args->rank : args->rank;
    return true_ops->open_begin(&swapped, comm, err);
}

/* The same groups, numbered otherwise, hold other members where the count is even. */
static pgr_status open_shifted(const pgr_comm_open_args *args, pgr_comm **comm, pgr_error *err) {
    pgr_comm_open_args shifted = *args;
    bool first = args->job->rank == 0, last = args->job->rank == args->job->size - 1;
    if (first || last) { /* ranks 0 and n-1 take each other's group and place */
        int64_t n = args->job->size, tp = args->size;
        shifted.group = first ? (n - 1) / tp : 0;
        shifted.rank = first ? (n - 1) % tp : 0;
    }
    return true_ops->open_begin(&shifted, comm, err);
}

static void try_broken(pgr_status (*open)(const pgr_comm_open_args *, pgr_comm **, pgr_error *),
                       bool everywhere, const char *name) {
    pgr_plan plan = plan_of(2, 1);
    char items[1][PGR_NAME_MAX] = {"tp"};
    pgr_names names = {.count = 1, .items = items};
    pgr_groups *groups = NULL;
    true_ops = job->comm_ops;
    broken_ops = *true_ops;
    broken_ops.open_begin = open;
    job->comm_ops = &broken_ops;
    CHECK_OK(pgr_groups_open_begin(job, &plan, &names, &groups, &error));
    pgr_status status = pgr_groups_open_finish(groups, &error);
    bool mine = everywhere || job->rank < 2 || job->rank >= job->size - 2;
    CHECK(!mine || status == PGR_BACKEND, "status %d", (int)status);
    CHECK(!mine || (strstr(error.message, "family tp, group ") && strstr(error.message, "place ") &&
                    strstr(error.message, "has world rank")),
          "%s", error.message);
    pgr_groups_abort(groups); /* local: the members do not all know */
    job->comm_ops = true_ops;
    case_end(name);
}

/* ---- a rank that comes late ---------------------------------------------------------------- */

static void test_late_collective(void) {
    static const char *const families[] = {"tp"};
    pgr_plan plan = plan_of(job->size, 1);
    job->timeout = 2;
    pgr_groups *groups = groups_open(&plan, families, 1);
    pgr_comm *comm = pgr_groups_at(groups, 0)->comm;
    pgr_request request;
    int64_t data[3] = {1, 2, 3};
    if (job->rank == 1) {
        pause_seconds(3.2);
    }
    CHECK_OK(comm->ops->all_reduce(comm, data, data, 3, PGR_I64, PGR_SUM, NULL, &request, &error));
    double start = pgr_clock_seconds();
    pgr_status status = pgr_request_wait(&request, &error);
    double waited = pgr_clock_seconds() - start;
    if (job->rank != 1) {
        CHECK(status == PGR_TIMEOUT, "status %d", (int)status);
        CHECK(waited > 1.9 && waited < 3.5, "%g seconds", waited);
        static const char *const parts[] = {"all-reduce number ", " of 24 bytes",
                                            "family tp",          "group 0",
                                            "world ranks 0, 1",   "waited 2 seconds"};
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            CHECK(strstr(error.message, parts[i]), "no \"%s\" in: %s", parts[i], error.message);
        }
        comm->timeout = 20; /* the request is as good as before */
        CHECK_OK(pgr_request_wait(&request, &error));
    }
    CHECK(data[2] == 3 * job->size, "%d", (int)data[2]);
    CHECK_OK(pgr_groups_close(groups, &error));
    case_end("a late rank in a collective");
}

static void test_late_bootstrap(void) {
    job->bootstrap_ops->timeout(job->bootstrap, 1);
    if (job->rank == 1) {
        pause_seconds(1.8);
    }
    pgr_status status = job->bootstrap_ops->barrier(job->bootstrap, &error);
    CHECK(status == (job->rank == 1 ? PGR_OK : PGR_TIMEOUT), "status %d", (int)status);
    CHECK(status == PGR_OK || strstr(error.message, "barrier between all"), "%s", error.message);
    job->bootstrap_ops->timeout(job->bootstrap, 20);
    case_end("a late rank in the bootstrap");
}

static void test_late_opening(void) {
    pgr_plan plan = plan_of(job->size, 1);
    char items[1][PGR_NAME_MAX] = {"tp"};
    pgr_names names = {.count = 1, .items = items};
    pgr_groups *groups = NULL;
    job->init_timeout = 1;
    if (job->rank == 1) {
        pause_seconds(1.8);
    }
    CHECK_OK(pgr_groups_open_begin(job, &plan, &names, &groups, &error));
    double start = pgr_clock_seconds();
    pgr_status status = pgr_groups_open_finish(groups, &error); /* the late one waits in vain */
    double waited = pgr_clock_seconds() - start;
    CHECK(status == PGR_TIMEOUT && waited > 0.9 && waited < 2.5, "status %d after %g s",
          (int)status, waited);
    CHECK(strstr(error.message, "opening family tp, group 0 (world ranks 0, 1"), "%s",
          error.message);
    CHECK(strstr(error.message, job->rank == 1 ? "exchanging" : "creating"), "%s", error.message);
    pgr_groups_abort(groups);
    case_end("a late rank in opening");
}

/* -------------------------------------------------------------------------------------------- */

static void run_all(void) {
    static const char *const families[] = {"tp"};
    test_job();
    test_bootstrap();
    test_agree();
    test_modules();
    test_device();
    test_refusals();
    pgr_plan plan = plan_of(job->size, 1);
    pgr_groups *groups = groups_open(&plan, families, 1);
    const pgr_group *world = groups ? pgr_groups_find(groups, "tp") : NULL;
    if (world && world->comm) {
        test_collectives(world->comm, "all ranks");
        test_bf16_sum(world->comm);
        test_requests(world->comm);
    }
    CHECK_OK(pgr_groups_close(groups, &error));
    case_end("all ranks, opened and closed");
    test_sharing();
    test_reopen();
    if (job->size % 2 == 0) {
        try_broken(open_swapped, true, "swapped places are caught");
    }
    if (job->size > 3 && job->size % 2 == 0) {
        try_broken(open_shifted, false, "exchanged members are caught");
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    pgr_status status = pgr_job_open(60, &job, &error);
    if (status != PGR_OK) {
        if (error.message[0]) {
            fprintf(stderr, "pgrun: %s\n", error.message);
        }
        return pgr_exit_code(status);
    }
    if (strcmp(what, "open") == 0) {
        if (job->rank == 0) {
            printf("%d ranks, %s\n", (int)job->size, job->comm_name);
        }
    } else if (strcmp(what, "late") == 0) {
        test_late_collective();
        test_late_bootstrap();
        test_late_opening();
    } else {
        run_all();
    }
    status = pgr_job_close(job, &error);
    if (status != PGR_OK) {
        fprintf(stderr, "%s\n", error.message);
    }
    return failed_cases || status != PGR_OK;
}
