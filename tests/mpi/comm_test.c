/* comm_test.c - jobs and communicators under mpirun, at any number of ranks. One line per case from
 * rank 0; the exit status is 1 where one failed on any rank.
 *
 *   comm_test            every case but those below
 *   comm_test open       opens and closes the job: its status is the exit status
 *   comm_test late       a rank that comes late: deadlines and their messages (takes seconds)
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
    for (int64_t i = 0; i < count; i++)
        snprintf(items[i], PGR_NAME_MAX, "%s", families[i]);
    CHECK_OK(pgr_groups_open_begin(job, plan, &names, &groups, &error));
    if (groups)
        CHECK_OK(pgr_groups_open_finish(groups, &error));
    return groups;
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
        if (tp && tp->comm)
            test_collectives(tp->comm, "tp");
        if (dp && job->size >= 4)
            test_collectives(dp->comm, "dp");
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
        if (groups)
            CHECK_OK(pgr_groups_close(groups, &error));
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

/* -------------------------------------------------------------------------------------------- */

static void run_progress(void) {
    static const char *const families[] = {"tp"};
    pgr_plan plan = plan_of(job->size, 1);
    pgr_groups *groups = groups_open(&plan, families, 1);
    test_progress(pgr_groups_at(groups, 0)->comm);
    CHECK_OK(pgr_groups_close(groups, &error));
    case_end("closed");
}

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
    pgr_groups *others = groups_open(&plan, families, 1);
    const pgr_group *other = others ? pgr_groups_find(others, "tp") : NULL;
    test_late_counts(world ? world->comm : NULL, other ? other->comm : NULL);
    pgr_groups_abort(others);
    CHECK_OK(pgr_groups_close(groups, &error));
    case_end("all ranks, opened and closed");
    test_sharing();
    test_reopen();
    if (job->size % 2 == 0)
        try_broken(open_swapped, true, "swapped places are caught");
    if (job->size > 3 && job->size % 2 == 0)
        try_broken(open_shifted, false, "exchanged members are caught");
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
    } else if (strcmp(what, "progress") == 0) {
        run_progress();
    } else {
        run_all();
    }
    status = pgr_job_close(job, &error);
    if (status != PGR_OK)
        fprintf(stderr, "%s\n", error.message);
    return failed_cases || status != PGR_OK;
}
