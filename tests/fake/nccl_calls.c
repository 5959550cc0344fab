/* nccl_calls.c - each call of NCCL fails, at each of its occurrences in a script that uses every
 * operation, on the stand-ins: the rank says so once, in words that name what it was doing, does
 * not hang, and leaves nothing behind. Two ranks are two processes of this program, without MPI;
 * the first that fails ends the other, as MPI_Abort does.
 *
 *   nccl_calls */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm_nccl.h"
#include "deadline.h"

enum { RANKS = 2, COUNT = 37, HANG_SECONDS = 20 };

#define GROUP "family tp, group 0 (world ranks 0, 1)"

/* What the processes of a case share. */
typedef struct shared {
    atomic_int arrived, left, round;
    char gathered[RANKS][65536];
    struct {
        pgr_status status;
        char step[256]; /* what it was doing; its message names that */
        char message[8192];
    } ranks[RANKS];
} shared;

static shared *the;
static int failures, cases;
static char folder[256];

/* ---- the bootstrap of a rank --------------------------------------------------------------- */

struct pgr_bootstrap {
    int rank;
};

static pgr_status boot_meet(atomic_int *counter, int wanted, pgr_error *error) {
    pgr_deadline deadline = pgr_deadline_start(10);
    atomic_fetch_add(counter, 1);
    while (atomic_load(counter) < wanted) {
        usleep(100);
        if (pgr_deadline_passed(&deadline))
            return pgr_error_set(error, PGR_TIMEOUT, "the other rank did not come");
    }
    return PGR_OK;
}

static pgr_status boot_all_gather(pgr_bootstrap *bootstrap, const void *send, void *receive,
                                  int64_t bytes, pgr_error *error) {
    int wanted = RANKS * (atomic_load(&the->round) + 1);
    memcpy(the->gathered[bootstrap->rank], send, (size_t)bytes);
    pgr_status status = boot_meet(&the->arrived, wanted, error);
    for (int r = 0; r < RANKS && status == PGR_OK; r++)
        memcpy((char *)receive + r * bytes, the->gathered[r], (size_t)bytes);
    if (status == PGR_OK)
        status = boot_meet(&the->left, wanted, error);
    if (bootstrap->rank == 0)
        atomic_fetch_add(&the->round, 1);
    return status;
}

static void boot_timeout(pgr_bootstrap *bootstrap, double seconds) {
    (void)bootstrap, (void)seconds;
}

static const pgr_bootstrap_ops boot_ops = {
    .name = "test", .all_gather = boot_all_gather, .timeout = boot_timeout};

/* ---- what a rank does ---------------------------------------------------------------------- */

static pgr_job job;
static pgr_error error;
static pgr_groups *groups;
static pgr_comm *comm;
static void *sent, *got;

/* The end of a rank: with PGR_OK, or with the error that it meets. */
static void finish(pgr_status status) {
    int rank = (int)job.rank;
    the->ranks[rank].status = status;
    snprintf(the->ranks[rank].message, sizeof the->ranks[rank].message, "%s",
             status == PGR_OK ? "" : error.message);
    if (status != PGR_OK)
        pgr_groups_abort(groups);
    if (job.device)
        job.device->ops->close(job.device);
    exit(status == PGR_OK ? 0 : 3);
}

static void must(pgr_status status) {
    if (status != PGR_OK)
        finish(status);
}

static void step(const char *text) {
    snprintf(the->ranks[job.rank].step, sizeof the->ranks[job.rank].step, "%s", text);
}

/* The words of a message about the next operation. */
static void operation(const char *name, int64_t bytes) {
    char text[256];
    snprintf(text, sizeof text, "%s number %llu of %lld bytes in " GROUP, name,
             (unsigned long long)comm->sequence + 1, (long long)bytes);
    step(text);
}

static void done(pgr_status started, pgr_request *request) {
    must(started);
    must(pgr_request_wait(request, &error));
}

static void collectives(void) {
    const pgr_comm_ops *ops = comm->ops;
    pgr_stream *stream = comm->stream;
    pgr_request r;
    operation("all-reduce", COUNT * 4);
    done(ops->all_reduce(comm, sent, got, COUNT, PGR_F32, PGR_SUM, stream, &r, &error), &r);
    operation("reduce-scatter", 2 * COUNT * 4);
    done(ops->reduce_scatter(comm, sent, got, COUNT, PGR_F32, PGR_SUM, stream, &r, &error), &r);
    operation("all-gather", 2 * COUNT * 4);
    done(ops->all_gather(comm, sent, got, COUNT, PGR_F32, stream, &r, &error), &r);
    operation("broadcast", COUNT * 4);
    done(ops->broadcast(comm, got, COUNT, PGR_F32, 1, stream, &r, &error), &r);
    operation("all-to-all", 2 * COUNT * 4);
    done(ops->all_to_all(comm, sent, got, COUNT, PGR_F32, stream, &r, &error), &r);
    operation("barrier", 0);
    done(ops->barrier(comm, stream, &r, &error), &r);
}

static void messages(void) {
    const pgr_comm_ops *ops = comm->ops;
    const pgr_device_ops *device = job.device->ops;
    int64_t counts[4][2] = {{3, 3}, {0, 8}, {3, 3}, {0, 8}};
    void *there;
    pgr_request out, in;
    operation("all-to-all-v", 6 * 4);
    done(ops->all_to_all_v(comm, sent, counts[0], counts[1], got, counts[2], counts[3], PGR_F32,
                           comm->stream, &out, &error),
         &out);
    step("a buffer of 64 bytes for " GROUP);
    must(ops->buffer_alloc(comm, sizeof counts, &there, &error));
    operation("all-to-all-v", 6 * 4);
    must(device->copy(job.device, there, counts, sizeof counts, comm->stream, &error));
    int64_t *at = there;
    done(ops->all_to_all_v_device(comm, sent, at, at + 2, got, at + 4, at + 6, NULL, PGR_F32,
                                  comm->stream, &out, &error),
         &out);
    ops->buffer_free(comm, there);
    step(GROUP);
    must(ops->group_start(comm, &error));
    operation("send", COUNT * 4);
    must(ops->send(comm, sent, COUNT, PGR_F32, 1 - comm->rank, comm->stream, &out, &error));
    operation("receive", COUNT * 4);
    must(ops->receive(comm, got, COUNT, PGR_F32, 1 - comm->rank, comm->stream, &in, &error));
    step(GROUP);
    must(ops->group_end(comm, &error));
    must(pgr_request_wait(&in, &error));
    must(pgr_request_wait(&out, &error));
    if (comm->rank == 0) {
        operation("send", COUNT * 4);
        done(ops->send(comm, sent, COUNT, PGR_F32, 1, comm->stream, &out, &error), &out);
    } else {
        operation("receive", COUNT * 4);
        done(ops->receive(comm, got, COUNT, PGR_F32, 0, comm->stream, &in, &error), &in);
    }
}

static void open_device(int rank) {
    const pgr_module *module;
    pgr_device_open_args args = {
        .local_rank = rank, .local_size = RANKS, .rank = rank, .host = "h"};
    must(pgr_module_open("cuda", &module, &error));
    must(module->device->open(&args, &job.device, &error));
    job.comm_ops = module->comm;
}

static void rank_run(int rank) {
    static pgr_bootstrap bootstrap;
    char names[1][PGR_NAME_MAX] = {"tp"}, number[8];
    pgr_names families = {.count = 1, .items = names};
    pgr_spec spec;
    pgr_plan plan;
    snprintf(number, sizeof number, "%d", rank);
    setenv("OMPI_COMM_WORLD_RANK", number, 1);
    setenv("OMPI_COMM_WORLD_LOCAL_RANK", number, 1);
    double seconds = getenv("PGRUN_FAKE_NCCL_ABSENT") ? 0.5 : 10;
    bootstrap.rank = rank;
    job = (pgr_job){.rank = rank,
                    .size = RANKS,
                    .local_rank = rank,
                    .local_size = RANKS,
                    .host_count = 1,
                    .host = "h",
                    .bootstrap_ops = &boot_ops,
                    .bootstrap = &bootstrap,
                    .comm_name = "test",
                    .timeout = seconds,
                    .init_timeout = seconds};
    step("open");
    open_device(rank);
    pgr_spec_init(&spec);
    spec.parallel.tp = RANKS;
    must(pgr_plan_create(&spec, RANKS, &plan, &error));
    pgr_spec_free(&spec);
    must(pgr_groups_open_begin(&job, &plan, &families, &groups, &error));
    must(pgr_groups_open_finish(groups, &error));
    comm = pgr_groups_find(groups, "tp")->comm;
    step("a buffer of 4096 bytes for " GROUP);
    must(comm->ops->buffer_alloc(comm, 4096, &sent, &error));
    must(comm->ops->buffer_alloc(comm, 4096, &got, &error));
    must(job.device->ops->set(job.device, sent, 0, 4096, comm->stream, &error));
    collectives();
    messages();
    comm->ops->buffer_free(comm, sent);
    comm->ops->buffer_free(comm, got);
    step("closing " GROUP "|ending NCCL's world");
    pgr_groups *closing = groups;
    groups = NULL;
    must(pgr_groups_close(closing, &error));
    finish(PGR_OK);
}

/* ---- one case ------------------------------------------------------------------------------ */

/* The number of lines of a rank's log that begin with `text`. */
static int logged(int rank, const char *text) {
    char path[512], line[512];
    int found = 0;
    snprintf(path, sizeof path, "%s/log.%d", folder, rank);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        found += strncmp(line, text, strlen(text)) == 0;
    if (file)
        fclose(file);
    return found;
}

static void clean(void) {
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s' && mkdir -p '%s'", folder, folder);
    if (system(command) != 0)
        exit(2);
    memset(the, 0, sizeof *the);
}

/* Runs all ranks; the first one that ended badly, -1 where none did, -2 where one hangs. */
static int run(void) {
    pid_t ids[RANKS];
    int left = RANKS, bad = -1;
    clean();
    fflush(stdout);
    for (int r = 0; r < RANKS; r++) {
        ids[r] = fork();
        if (ids[r] == 0)
            rank_run(r);
    }
    pgr_deadline deadline = pgr_deadline_start(HANG_SECONDS);
    while (left > 0) {
        bool late = bad < 0 && pgr_deadline_passed(&deadline);
        bad = late ? -2 : bad;
        for (int r = 0; r < RANKS; r++) {
            int how = 0;
            if (ids[r] && bad != -1)
                kill(ids[r], SIGKILL);
            if (!ids[r] || waitpid(ids[r], &how, bad == -1 ? WNOHANG : 0) == 0)
                continue;
            ids[r] = 0;
            left--;
            if (bad == -1 && how != 0)
                bad = r;
            if (bad == r && !(WIFEXITED(how) && WEXITSTATUS(how) == 3))
                snprintf(the->ranks[r].message, sizeof the->ranks[r].message,
                         "died: wait status %x", (unsigned)how);
        }
        usleep(500);
    }
    return bad;
}

static void fail(const char *variable, const char *value, int rank, const char *wanted) {
    failures++;
    printf("FAIL %s=%s: rank %d, wanted \"%s\", doing \"%s\": status %d, \"%s\"\n", variable, value,
           rank, wanted, rank >= 0 ? the->ranks[rank].step : "",
           rank >= 0 ? (int)the->ranks[rank].status : 0, rank >= 0 ? the->ranks[rank].message : "");
}

/* Whether a message has `words`, or one of those that '|' parts. */
static bool has(const char *message, const char *words) {
    char copy[256];
    snprintf(copy, sizeof copy, "%s", words);
    for (char *at = strtok(copy, "|"); at; at = strtok(NULL, "|"))
        if (strstr(message, at))
            return true;
    return false;
}

/* A rank that failed in the right words and left nothing. */
static void judge(const char *variable, const char *value, int rank, pgr_status status,
                  const char *what, const char *where) {
    const char *message = rank >= 0 ? the->ranks[rank].message : "";
    if (rank < 0 || the->ranks[rank].status != status || !has(message, what) ||
        !has(message, where))
        fail(variable, value, rank, what);
    else if (logged(rank, "made") != logged(rank, "aborted") + logged(rank, "destroyed"))
        fail(variable, value, rank, "all communicators ended");
    else if (logged(rank, "aborted ") != logged(rank, "aborted together "))
        fail(variable, value, rank, "aborts in one group");
    else if (logged(rank, "alloc") != logged(rank, "freed"))
        fail(variable, value, rank, "all buffers freed");
}

/* Where a rank may be that opens the groups. */
#define OPENING                                                                                    \
    "opening the communicator of the world|opening NCCL's world|opening family tp|opening: "       \
    "|in " GROUP "|for " GROUP

/* ---- all calls ----------------------------------------------------------------------------- */

static int count_of(const char *call) {
    char text[80];
    snprintf(text, sizeof text, "call %s\n", call);
    return logged(0, text);
}

typedef enum told {
    EACH,    /* each occurrence is an error, told where it happens */
    LATER,   /* told when the communicator is closed; the first is the trial, which is no error */
    TRIAL,   /* the first is the trial: buffers are plain memory then */
    FIRST,   /* told without a place: the library is not open yet */
    AFTER,   /* called where something else failed, whose message stays */
    NO_ERROR /* gives words, no code */
} told;

static const struct {
    const char *call;
    told how;
} known[] = {{"GetVersion", FIRST},
             {"GetUniqueId", EACH},
             {"GetErrorString", NO_ERROR},
             {"GetLastError", NO_ERROR},
             {"CommInitRankConfig", EACH},
             {"CommInitRankScalable", EACH},
             {"CommSplit", EACH},
             {"CommFinalize", EACH},
             {"CommDestroy", EACH},
             {"CommAbort", AFTER},
             {"CommGetAsyncError", EACH},
             {"CommCount", EACH},
             {"CommUserRank", EACH},
             {"AllReduce", EACH},
             {"ReduceScatter", EACH},
             {"AllGather", EACH},
             {"Broadcast", EACH},
             {"Send", EACH},
             {"Recv", EACH},
             {"GroupStart", EACH},
             {"GroupEnd", EACH},
             {"MemAlloc", TRIAL},
             {"MemFree", LATER},
             {"CommRegister", EACH},
             {"CommDeregister", LATER}};

/* The k-th call of a name fails on rank 0. */
static void occurrence(const char *call, told how, int k) {
    char value[96], what[160];
    snprintf(value, sizeof value, "%s:%d@0", call, k);
    snprintf(what, sizeof what, "%s%s: ncclSystemError (unhandled system error): planted", call,
             how == LATER ? " of a buffer" : "");
    if (how == FIRST)
        snprintf(what, sizeof what, "%s: ncclSystemError (unhandled system error), of ", call);
    setenv("PGRUN_FAKE_NCCL_FAIL", value, 1);
    int bad = run();
    unsetenv("PGRUN_FAKE_NCCL_FAIL");
    cases++;
    const char *step = the->ranks[0].step;
    bool trial = k == 1 && (how == TRIAL || strcmp(call, "ncclMemFree") == 0);
    if (logged(0, "planted") == 0) { /* as often as another run asked, polling */
        if (bad != -1)
            fail("PGRUN_FAKE_NCCL_FAIL", value, bad, "nothing");
    } else if (trial) {
        if (bad != -1 || logged(0, "registered") > 0)
            fail("PGRUN_FAKE_NCCL_FAIL", value, bad, "plain buffers");
    } else if (how == AFTER) {
        judge("PGRUN_FAKE_NCCL_FAIL", value, bad, PGR_BACKEND, "ncclRemoteError", step);
    } else {
        judge("PGRUN_FAKE_NCCL_FAIL", value, bad, PGR_BACKEND, what,
              how == LATER                ? "closing " GROUP
              : strcmp(step, "open") == 0 ? OPENING
                                          : step);
    }
}

static void occurrences(const char *name, told how, int count) {
    char call[64];
    snprintf(call, sizeof call, "nccl%s", name);
    if (count == 0) {
        failures++;
        printf("FAIL %s is not called in this script\n", call);
    }
    /* Those of the polling are many, and not the same number each time: all of the first ones. */
    for (int k = 1; k <= count; k += k < 24 ? 1 : 1 + k / 8)
        occurrence(call, how, k);
}

static int total(const int *counts, const char *call) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].call, call) == 0)
            return counts[i];
    failures++;
    printf("FAIL nccl%s is called by comm_nccl*.c and has no case here\n", call);
    return 0;
}

/* How often each is called where nothing fails. */
static void count_all(int *counts) {
    char call[64];
    setenv("PGRUN_FAKE_NCCL_COUNT", "1", 1);
    int bad = run();
    unsetenv("PGRUN_FAKE_NCCL_COUNT");
    if (bad != -1)
        fail("", "", bad, "nothing");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        snprintf(call, sizeof call, "nccl%s", known[i].call);
        counts[i] = count_of(call);
    }
    if (logged(0, "registered") != logged(0, "deregistered") ||
        logged(0, "made") != logged(0, "destroyed") || logged(0, "alloc") != logged(0, "freed")) {
        failures++;
        printf("FAIL a good run leaves something\n");
    }
}

/* How many operations a rank begins. */
static int calls_fail(void) {
    static const char *const begins[] = {"AllReduce", "ReduceScatter", "AllGather",
                                         "Broadcast", "Send",          "Recv"};
    int counts[sizeof known / sizeof *known], operations = 0;
    count_all(counts);
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
        operations += total(counts, begins[i]);
#define HAS_CASE(name, ...) (void)total(counts, #name);
    PGR_NCCL_CALLS(HAS_CASE)
    PGR_NCCL_NEWER_CALLS(HAS_CASE)
#undef HAS_CASE
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].how == NO_ERROR)
            continue;
        bool scalable = strcmp(known[i].call, "CommInitRankScalable") == 0;
        if (scalable)
            setenv("PGRUN_NCCL_RANKS_PER_ROOT", "1", 1);
        if (known[i].how == AFTER)
            setenv("PGRUN_FAKE_NCCL_ASYNC", "5@0", 1);
        occurrences(known[i].call, known[i].how,
                    scalable || known[i].how == AFTER ? 2 - scalable : counts[i]);
        unsetenv("PGRUN_NCCL_RANKS_PER_ROOT");
        unsetenv("PGRUN_FAKE_NCCL_ASYNC");
    }
    return operations;
}

/* ---- what is no call's fault --------------------------------------------------------------- */

/* At each operation, rank 1's never begins: rank 0's ends at its deadline, or at an asynchronous
 * error before that. */
static void operations_fail(int count) {
    for (int n = 1; n <= count; n++) {
        for (int async = 0; async < 2; async++) {
            char absent[16], planted[16];
            snprintf(absent, sizeof absent, "%d@1", n);
            snprintf(planted, sizeof planted, "%d@0", n);
            setenv("PGRUN_FAKE_NCCL_ABSENT", absent, 1);
            if (async)
                setenv("PGRUN_FAKE_NCCL_ASYNC", planted, 1);
            int bad = run();
            unsetenv("PGRUN_FAKE_NCCL_ABSENT");
            unsetenv("PGRUN_FAKE_NCCL_ASYNC");
            const char *step = bad >= 0 ? the->ranks[bad].step : "";
            judge(async ? "PGRUN_FAKE_NCCL_ASYNC" : "PGRUN_FAKE_NCCL_ABSENT", absent, bad,
                  async ? PGR_BACKEND : PGR_TIMEOUT,
                  async ? "an asynchronous error: ncclRemoteError" : "waited 0.5 seconds",
                  strcmp(step, "open") ? step : OPENING);
            cases++;
        }
    }
}

int main(void) {
    const char *modules = getenv("PGRUN_MODULE_PATH");
    const char *temporary = getenv("TMPDIR");
    char library[512];
    the = mmap(NULL, sizeof *the, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (the == MAP_FAILED || !modules)
        return 2;
    snprintf(folder, sizeof folder, "%s/nccl_calls.%d", temporary ? temporary : "/tmp",
             (int)getpid());
    snprintf(library, sizeof library, "%s/libnccl_fake_22809.so", modules);
    setenv("PGRUN_NCCL_LIBRARY", library, 1);
    setenv("PGRUN_FAKE_NCCL_DIR", folder, 1);
    setenv("PGRUN_FAKE_OWN_GPU", "1", 1);
    operations_fail(calls_fail());
    clean();
    rmdir(folder);
    printf("%d cases, %d failures\n", cases, failures);
    return failures > 0;
}
