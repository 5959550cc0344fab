/* comm_test.c - jobs and communicators under mpirun, at any number of ranks. One line per case from
 * rank 0; the exit status is 1 where one failed on any rank.
 *
 *   comm_test            every case but those below
 *   comm_test open       opens and closes the job: its status is the exit status
 *   comm_test groups     groups alone
 *   comm_test late       a rank that comes late: deadlines and their messages (takes seconds)
 *   comm_test outside    the same, where ranks are in no group; on 4 ranks
 *   comm_test progress   ranks that come one after the other (takes seconds) */
#include "comm_check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

pgr_job *job;
pgr_error error;
int failed;
static int failed_cases;

void case_end(const char *name) {
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
    for (int64_t i = 0; i < job->size * BYTES; i++)
        CHECK(all[i] == (char)(i / BYTES + 1), "byte %d of the gather", (int)i);
    for (int i = 0; i < 33; i++)
        values[i] = (double)(job->rank + i);
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
    if (job->size == 1)
        snprintf(text, sizeof text, "from 0");
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
    pgr_job_args args = {
        .device = PGR_DEVICE_CPU, .comm = PGR_COMM_NCCL, .timeout = 60, .init_timeout = 60};
    CHECK(pgr_job_open_device(job, &args, &error) == PGR_INVALID && !job->device, "nccl");
    CHECK(strstr(error.message, "run.comm = \"nccl\" needs GPUs") == error.message, "%s",
          error.message);
    args.comm = PGR_COMM_AUTO;
    /* Refused on every rank with the same words, whether there is no module, no GPU, or one GPU for
     * several ranks; or, where each rank has a GPU, since the run needs what is not there yet. */
    args.device = PGR_DEVICE_CUDA;
    args.cuda_lacks = "a thing of the test's";
    CHECK(pgr_job_open_device(job, &args, &error) == PGR_UNSUPPORTED && !job->device, "cuda");
    CHECK(strstr(error.message, "run.device = \"cuda\": ") == error.message, "%s", error.message);
    CHECK(!strchr(error.message, '\n') && !job->device_note[0], "%s", error.message);
    args.device = PGR_DEVICE_AUTO;
    CHECK_OK(pgr_job_open_device(job, &args, &error));
    CHECK(job->device_note[0] && !strchr(job->device_note, '\n'), "\"%s\"", job->device_note);
    if (job->device) {
        CHECK(strcmp(job->device->kind, "cpu") == 0, "%s", job->device->kind);
        CHECK(job->device->threads >= 1, "%d threads", job->device->threads);
        const char *threads = getenv("OPENBLAS_NUM_THREADS");
        CHECK(threads && atoi(threads) == job->device->threads, "%s", threads ? threads : "unset");
    }
    case_end("the device, or why not");
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
    if (job->rank == 1)
        pause_seconds(3.2);
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
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            CHECK(strstr(error.message, parts[i]), "no \"%s\" in: %s", parts[i], error.message);
        comm->timeout = 20; /* the request is as good as before */
        CHECK_OK(pgr_request_wait(&request, &error));
    }
    CHECK(data[2] == 3 * job->size, "%d", (int)data[2]);
    CHECK_OK(pgr_groups_close(groups, &error));
    case_end("a late rank in a collective");
}

static void test_late_bootstrap(void) {
    job->bootstrap_ops->timeout(job->bootstrap, 1);
    if (job->rank == 1)
        pause_seconds(1.8);
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
    if (job->rank == 1)
        pause_seconds(1.8);
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

/* The last rank is late, and those that are in no group of the family wait for it too. */
static void test_late_outside(void) {
    pgr_spec spec;
    pgr_plan plan = {0};
    char items[1][PGR_NAME_MAX] = {"embedding"};
    pgr_names names = {.count = 1, .items = items};
    pgr_groups *groups = NULL;
    pgr_spec_init(&spec);
    spec.parallel.pp = job->size;
    CHECK_OK(pgr_plan_create(&spec, job->size, &plan, &error));
    pgr_spec_free(&spec);
    job->init_timeout = 1;
    if (job->rank == job->size - 1)
        pause_seconds(1.8);
    CHECK_OK(pgr_groups_open_begin(job, &plan, &names, &groups, &error));
    pgr_status status = pgr_groups_open_finish(groups, &error);
    bool outside = job->rank > 0 && job->rank < job->size - 1;
    CHECK(status == PGR_TIMEOUT, "status %d", (int)status);
    CHECK(strstr(error.message, outside ? "opening family embedding, of which this rank shares no "
                                          "group: world rank "
                                        : "opening family embedding, group 0 (world ranks 0, 3): "),
          "%s", error.message);
    pgr_groups_abort(groups);
    case_end("a late rank, and ranks in no group");
}

/* -------------------------------------------------------------------------------------------- */

static void run_progress(void) {
    static const char *const families[] = {"tp"};
    pgr_plan plan = plan_of(job->size, 1);
    pgr_groups *groups = groups_open(&plan, families, 1);
    test_progress(pgr_groups_at(groups, 0)->comm);
    CHECK_OK(pgr_groups_close(groups, &error));
    case_end("closed");
}

/* A further communicator of the group's ranks, as another layer of the job may have one. */
static pgr_comm *comm_like(const pgr_group *group) {
    pgr_comm_open_args args = {job,         "other",      group->index, group->rank,
                               group->size, job->timeout, NULL};
    pgr_comm *comm = NULL;
    bool done = false;
    pgr_status status = job->comm_ops->open_begin(&args, &comm, &error);
    while (status == PGR_OK && !done)
        status = job->comm_ops->open_poll(comm, &done, &error);
    CHECK_OK(status);
    return comm;
}

static void run_all(void) {
    static const char *const families[] = {"tp"};
    test_job();
    test_bootstrap();
    test_agree();
    test_modules();
    test_device();
    pgr_plan plan = plan_of(job->size, 1);
    pgr_groups *groups = groups_open(&plan, families, 1);
    const pgr_group *world = groups ? pgr_groups_find(groups, "tp") : NULL;
    if (world && world->comm) {
        test_collectives(world->comm, "all ranks");
        test_bf16_sum(world->comm);
        test_requests(world->comm);
    }
    pgr_comm *other = world && world->comm ? comm_like(world) : NULL;
    test_late_counts(world ? world->comm : NULL, other);
    if (other)
        other->ops->abort(other);
    CHECK_OK(pgr_groups_close(groups, &error));
    case_end("all ranks, opened and closed");
    test_groups();
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    pgr_status status = pgr_job_open(60, &job, &error);
    if (status != PGR_OK) {
        if (error.message[0])
            fprintf(stderr, "pgrun: %s\n", error.message);
        return pgr_exit_code(status);
    }
    if (strcmp(what, "open") == 0) {
        if (job->rank == 0)
            printf("%d ranks, %s\n", (int)job->size, job->comm_name);
    } else if (strcmp(what, "late") == 0) {
        test_late_collective();
        test_late_bootstrap();
        test_late_opening();
    } else if (strcmp(what, "outside") == 0) {
        test_late_outside();
    } else if (strcmp(what, "progress") == 0) {
        run_progress();
    } else if (strcmp(what, "groups") == 0) {
        test_groups();
    } else {
        run_all();
    }
    status = pgr_job_close(job, &error);
    if (status != PGR_OK)
        fprintf(stderr, "%s\n", error.message);
    return failed_cases || status != PGR_OK;
}
