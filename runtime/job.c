/* job.c - the job: who launched it, its ranks and hosts, its device. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "comm_self.h"
#include "comm_staged.h"
#include "deadline.h"
#include "job_device.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS_VARIABLE "OPENBLAS_NUM_THREADS"

/* The job that is handed out, and what only this file knows. */
typedef struct job_state {
    pgr_job job;           /* first: the two are cast into each other */
    bool threads_are_ours; /* OPENBLAS_NUM_THREADS was not the user's */
    int64_t cores;         /* that this process may use */
    int64_t cores_shared;  /* ranks of this host with the same set of cores */
} job_state;

/* ---- the launcher -------------------------------------------------------------------------- */

/* The number in an environment variable, or `otherwise`. */
static int64_t variable_number(const char *name, int64_t otherwise) {
    const char *text = getenv(name);
    char *end;
    if (!text || !*text)
        return otherwise;
    long long number = strtoll(text, &end, 10);
    return end != text && number >= 0 ? number : otherwise;
}

/* The first of several variables that is set, or `otherwise`. */
static int64_t first_number(const char *const *names, int64_t otherwise) {
    for (; *names; names++) {
        int64_t number = variable_number(*names, -1);
        if (number >= 0)
            return number;
    }
    return otherwise;
}

/* mpirun's word goes before Slurm's: in an allocation of 8 tasks it may start 4 ranks, or one. A
 * step of srun counts its own tasks, the allocation's number stands in any shell of it. */
int64_t pgr_launcher_size(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS",
                                        "SLURM_NTASKS", NULL};
    int64_t size = first_number(names, 1);
    return size > 0 ? size : 1;
}

static int64_t launcher_rank(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                        "SLURM_PROCID", NULL};
    return first_number(names, 0);
}

static const char *const local_rank_names[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID",
                                               "SLURM_LOCALID", NULL};

static int64_t launcher_local_rank(void) {
    return first_number(local_rank_names, launcher_rank());
}

/* GPUs are counted by the launcher's local rank, which is what it bound cores and GPUs by; where it
 * says none, by the place among the ranks of the same host. */
static int32_t gpu_local_rank(const pgr_job *job) {
    int64_t number = first_number(local_rank_names, job->local_rank);
    return (int32_t)(number <= INT32_MAX ? number : job->local_rank);
}

/* Something is there that MPI can ask who its peers are. Slurm alone is not: without --mpi= there
 * is no such thing, and Open MPI then ends the process in its own words. */
bool pgr_launcher_present(void) {
    static const char *const names[] = {
        "OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE", "PMI_FD", NULL};
    return first_number(names, -1) >= 0;
}

static pgr_status launcher_error(int64_t said, int64_t seen, pgr_error *error) {
    bool slurm = getenv("SLURM_NTASKS") || getenv("SLURM_STEP_NUM_TASKS");
    bool step = getenv("SLURM_PROCID") != NULL;
    if (slurm && !step) {
        return pgr_error_set(error, PGR_USAGE,
                             "this Slurm allocation has %lld tasks, but pgrun was started as one "
                             "process: start it with `srun --mpi=pmix pgrun ...` or `mpirun pgrun "
                             "...` (for one rank: `srun -n 1` or `mpirun -n 1`)",
                             (long long)said);
    }
    if (slurm) {
        return pgr_error_set(
            error, PGR_USAGE,
            "the launcher started %lld tasks, but MPI sees %lld rank%s: they would "
            "be %lld separate jobs; start them with `srun --mpi=pmix pgrun ...` or "
            "`mpirun pgrun ...`",
            (long long)said, (long long)seen, seen == 1 ? "" : "s", (long long)(said / seen));
    }
    return pgr_error_set(error, PGR_USAGE,
                         "the launcher says %lld ranks, but MPI sees %lld: they would be %lld "
                         "separate jobs; use the mpirun that belongs to the MPI library of "
                         "libpgrun_mpi.so, or under Slurm `srun --mpi=pmix pgrun ...`",
                         (long long)said, (long long)seen, (long long)(said / seen));
}

/* mpirun may hang for ever where ranks end while it still starts others, unless they called
 * MPI_Init (measured: 64 ranks on 2 cores, 6 of 6 times; none with a pause of a second). Without
 * the MPI module they cannot; so they wait until it has surely started all. */
static void launcher_settle(void) {
    if (getenv("OMPI_COMM_WORLD_SIZE")) {
        double seconds = 0.5 + 0.02 * (double)pgr_launcher_size();
        seconds = seconds < 3 ? seconds : 3;
        struct timespec pause = {.tv_sec = (time_t)seconds,
                                 .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
        nanosleep(&pause, NULL);
    }
}

/* Leaves the message to one process. */
static pgr_status speak_once(pgr_status status, bool speaker, pgr_error *error) {
    if (status != PGR_OK && !speaker && error) {
        error->status = status;
        error->message[0] = '\0';
    }
    return status;
}

/* ---- cores and threads --------------------------------------------------------------------- */

static int64_t usable_cores(uint64_t *set_hash) {
    cpu_set_t set;
    *set_hash = 14695981039346656037u; /* FNV-1a */
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        return cores > 0 ? cores : 1;
    }
    const unsigned char *bytes = (const unsigned char *)&set;
    for (size_t i = 0; i < sizeof set; i++)
        *set_hash = (*set_hash ^ bytes[i]) * 1099511628211u;
    return CPU_COUNT(&set);
}

/* OpenBLAS reads its variable when the CPU module loads it. It is put in place before MPI starts
 * its threads, since adding a variable while another thread reads one is not safe; replacing its
 * value later is. */
static void threads_reserve(job_state *state) {
    state->threads_are_ours = getenv(THREADS_VARIABLE) == NULL;
    if (state->threads_are_ours)
        setenv(THREADS_VARIABLE, "1", 1);
}

/* The threads of this rank's products: the user's number, else its share of the cores. */
static int32_t threads_decide(const job_state *state) {
    int64_t threads = state->cores / (state->cores_shared > 0 ? state->cores_shared : 1);
    threads = threads > 0 ? threads : 1;
    if (!state->threads_are_ours) {
        int64_t given = variable_number(THREADS_VARIABLE, 0);
        return (int32_t)(given > 0 ? given : threads);
    }
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)threads);
    setenv(THREADS_VARIABLE, text, 1);
    return (int32_t)threads;
}

/* ---- hosts --------------------------------------------------------------------------------- */

/* What tells hosts apart: names alone may repeat ("localhost"), the kernel's boot id alone does in
 * containers of one machine. */
typedef struct place {
    char host[64];
    char boot[40];
    uint64_t cores; /* a hash of the set that the rank may use */
} place;

static void place_fill(place *here, uint64_t cores) {
    memset(here, 0, sizeof *here);
    here->cores = cores;
    if (gethostname(here->host, sizeof here->host - 1) != 0)
        snprintf(here->host, sizeof here->host, "unknown");
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (file) {
        size_t read = fread(here->boot, 1, sizeof here->boot - 1, file);
        here->boot[read] = '\0';
        fclose(file);
    }
}

static bool same_host(const place *a, const place *b) {
    return strcmp(a->host, b->host) == 0 && strcmp(a->boot, b->boot) == 0;
}

static void places_count(job_state *state, const place *places) {
    pgr_job *job = &state->job;
    const place *own = &places[job->rank];
    for (int64_t rank = 0; rank < job->size; rank++) {
        bool mine = same_host(&places[rank], own), first = true;
        job->local_rank += mine && rank < job->rank;
        job->local_size += mine;
        state->cores_shared += mine && places[rank].cores == own->cores;
        for (int64_t before = rank; before > 0 && first; before--) /* neighbours are alike */
            first = !same_host(&places[rank], &places[before - 1]);
        job->host_count += first;
    }
}

/* Collective. The gather is the truth; what launchers say is only good for messages. */
static pgr_status hosts_gather(job_state *state, pgr_error *error) {
    pgr_job *job = &state->job;
    place here;
    uint64_t cores;
    state->cores = usable_cores(&cores);
    place_fill(&here, cores);
    place *places = calloc((size_t)job->size, sizeof *places);
    if (!places) {
        return pgr_error_set(error, PGR_LIMIT, "out of memory for the hosts of %lld ranks",
                             (long long)job->size);
    }
    pgr_status status =
        job->bootstrap_ops->all_gather(job->bootstrap, &here, places, (int64_t)sizeof here, error);
    if (status == PGR_OK) {
        memcpy(job->host, here.host, sizeof job->host);
        places_count(state, places);
    }
    free(places);
    return status;
}

/* ---- opening and closing ------------------------------------------------------------------- */

/* Chooses MPI or nothing; opens it; sees whether all ranks that were meant are in one job. */
static pgr_status bootstrap_open(job_state *state, double init_timeout, pgr_error *error) {
    pgr_job *job = &state->job;
    int64_t said = pgr_launcher_size();
    bool present = pgr_launcher_present();
    if (!present && said > 1)
        return speak_once(launcher_error(said, 1, error), launcher_rank() == 0, error);
    job->bootstrap_ops = &pgr_self_bootstrap;
    if (present) {
        const pgr_module *module;
        pgr_status status = pgr_module_open("mpi", &module, error);
        if (status == PGR_OK && (!module->bootstrap || !module->comm))
            status = pgr_error_set(error, PGR_UNSUPPORTED, "libpgrun_mpi.so has no MPI in it");
        if (status != PGR_OK) {
            launcher_settle();
            return speak_once(status, launcher_local_rank() == 0, error);
        }
        job->bootstrap_ops = module->bootstrap;
        job->comm_ops = module->comm;
    }
    pgr_status status = job->bootstrap_ops->open(init_timeout, &job->bootstrap, error);
    if (status != PGR_OK)
        return speak_once(status, launcher_local_rank() == 0, error);
    job->rank = job->bootstrap_ops->rank(job->bootstrap);
    job->size = job->bootstrap_ops->size(job->bootstrap);
    job->bootstrap_ops->describe(job->bootstrap, job->comm_name, sizeof job->comm_name);
    if (job->size < said) {
        status = launcher_error(said, job->size, error);
        job->bootstrap_ops->close(job->bootstrap, NULL);
        return speak_once(status, launcher_rank() == 0, error);
    }
    return PGR_OK;
}

pgr_status pgr_job_open(double init_timeout, pgr_job **job, pgr_error *error) {
    job_state *state = calloc(1, sizeof *state);
    if (!state)
        return pgr_error_set(error, PGR_LIMIT, "out of memory for a job");
    state->job.timeout = state->job.init_timeout = init_timeout;
    threads_reserve(state);
    pgr_status status = bootstrap_open(state, init_timeout, error);
    if (status != PGR_OK)
        goto failed;
    status = hosts_gather(state, error);
    if (status != PGR_OK) {
        speak_once(status, state->job.rank == 0, error);
        goto close_bootstrap;
    }
    *job = &state->job;
    return PGR_OK;

close_bootstrap:
    state->job.bootstrap_ops->close(state->job.bootstrap, NULL);
failed:
    free(state);
    return status;
}

/* MPI is given copies in host memory. */
static void comm_stage(pgr_job *job) {
    size_t used = strlen(job->comm_name);
    job->staged_ops = job->comm_ops;
    job->comm_ops = &pgr_staged_comm_ops;
    snprintf(job->comm_name + used, sizeof job->comm_name - used, ", staged through pinned memory");
}

/* Collective. NCCL wants a GPU for each rank: "auto" is MPI where ranks share one, and says so. */
static pgr_status comm_auto(pgr_job *job, bool share_gpu, bool *staged, pgr_error *error) {
    *staged = false;
    if (!share_gpu) /* then all are apart */
        return PGR_OK;
    char shared[PGR_JOB_SHARED_TEXT];
    pgr_status status = pgr_job_device_shared(job, shared, error);
    if (status != PGR_OK || !shared[0])
        return status;
    snprintf(job->comm_note, sizeof job->comm_note, "%s, which NCCL refuses", shared);
    *staged = true;
    return PGR_OK;
}

/* Collective. Ranks on GPUs communicate by NCCL unless MPI is asked for. */
static pgr_status comm_decide(pgr_job *job, const pgr_job_args *args, pgr_error *error) {
    bool gpu = strcmp(job->device->kind, "cuda") == 0, staged = args->comm == PGR_COMM_MPI;
    const pgr_module *module = NULL;
    pgr_status status = PGR_OK;
    if (!gpu || job->size == 1)
        return PGR_OK;
    if (args->comm == PGR_COMM_AUTO)
        status = comm_auto(job, args->share_gpu, &staged, error);
    if (status != PGR_OK)
        return status;
    if (staged) {
        comm_stage(job);
        return PGR_OK;
    }
    status = pgr_module_open("cuda", &module, error);
    if (status == PGR_OK && !module->comm)
        status = pgr_error_set(error, PGR_UNSUPPORTED,
                               "libpgrun_cuda.so was built without nccl.h and has no communication "
                               "between GPUs: build it with -DPGRUN_NCCL_INCLUDE=FOLDER, or use "
                               "run.comm = \"mpi\", which copies through host memory");
    status = pgr_job_agree(job, status, error);
    if (status == PGR_OK)
        job->comm_ops = module->comm;
    return status;
}

/* NCCL needs GPUs: it decides what "auto" is. */
static pgr_status device_decide(job_state *state, const pgr_job_args *args, pgr_error *error) {
    pgr_job *job = &state->job;
    pgr_job_args wanted = *args;
    pgr_device_open_args open = {.local_rank = job->local_rank,
                                 .local_size = job->local_size,
                                 .threads = threads_decide(state),
                                 .rank = job->rank,
                                 .host = job->host};
    bool nccl = args->comm == PGR_COMM_NCCL;
    if (nccl && args->device == PGR_DEVICE_CPU)
        return pgr_error_set(error, PGR_INVALID,
                             "run.comm = \"nccl\" needs GPUs: use run.device = \"cuda\", or "
                             "run.comm = \"mpi\" with run.device = \"cpu\"");
    if (nccl)
        wanted.device = PGR_DEVICE_CUDA;
    pgr_status status = pgr_job_device_decide(job, &wanted, &open, gpu_local_rank(job), error);
    if (status != PGR_OK && nccl && args->device == PGR_DEVICE_AUTO)
        pgr_error_prefix(error, "run.comm = \"nccl\" needs ");
    return status == PGR_OK ? comm_decide(job, args, error) : status;
}

pgr_status pgr_job_open_device(pgr_job *job, const pgr_job_args *args, pgr_error *error) {
    if (job->device)
        return pgr_error_set(error, PGR_INTERNAL, "the job's device is already open");
    job->timeout = args->timeout;
    job->init_timeout = args->init_timeout;
    job->nccl = args->nccl;
    job->nccl_count = args->nccl_count;
    job->bootstrap_ops->timeout(job->bootstrap, args->init_timeout);
    pgr_status status = device_decide((job_state *)job, args, error);
    job->bootstrap_ops->timeout(job->bootstrap, args->timeout);
    return status;
}

pgr_status pgr_job_close(pgr_job *job, pgr_error *error) {
    if (!job)
        return PGR_OK;
    if (job->device)
        job->device->ops->close(job->device);
    pgr_status status = job->bootstrap_ops->close(job->bootstrap, error);
    if (((job_state *)job)->threads_are_ours)
        unsetenv(THREADS_VARIABLE);
    free(job);
    return status;
}

/* ---- agreement ----------------------------------------------------------------------------- */

/* The lowest rank whose status is not PGR_OK, or -1; and whether all failed. */
static int64_t first_failure(const int32_t *statuses, int64_t size, bool *all) {
    int64_t first = -1;
    *all = true;
    for (int64_t rank = size - 1; rank >= 0; rank--)
        if (statuses[rank] != PGR_OK)
            first = rank;
        else
            *all = false;
    return first;
}

/* Errors of a GPU name their rank and host themselves. */
static void name_speaker(const pgr_job *job, pgr_error *told) {
    char prefix[128];
    snprintf(prefix, sizeof prefix, "rank %lld on %s: ", (long long)job->rank, job->host);
    if (strncmp(told->message, prefix, strlen(prefix)) != 0)
        pgr_error_prefix(told, "%s", prefix);
}

pgr_status pgr_job_agree(pgr_job *job, pgr_status status, pgr_error *error) {
    int32_t own = (int32_t)status;
    int32_t *statuses = malloc((size_t)job->size * sizeof *statuses);
    pgr_error *told = malloc(sizeof *told);
    bool all;
    pgr_status result = status;
    if (!statuses || !told) {
        result = pgr_error_set(error, PGR_LIMIT, "out of memory for the statuses of %lld ranks",
                               (long long)job->size);
        goto done;
    }
    /* A status that cannot be shared leaves each rank with its own error, if it has one. */
    pgr_error *unheard = status == PGR_OK ? error : NULL;
    pgr_status shared = job->bootstrap_ops->all_gather(job->bootstrap, &own, statuses,
                                                       (int64_t)sizeof own, unheard);
    if (shared != PGR_OK) {
        result = status == PGR_OK ? shared : status;
        goto done;
    }
    int64_t first = first_failure(statuses, job->size, &all);
    if (first < 0)
        goto done;
    memset(told, 0, sizeof *told);
    if (first == job->rank) {
        if (error)
            memcpy(told, error, sizeof *told);
        told->status = status;
        if (!all)
            name_speaker(job, told);
    }
    shared =
        job->bootstrap_ops->broadcast(job->bootstrap, told, (int64_t)sizeof *told, first, unheard);
    if (shared != PGR_OK) {
        result = status == PGR_OK ? shared : status;
        goto done;
    }
    if (error)
        *error = *told;
    result = (pgr_status)statuses[first];

done:
    free(statuses);
    free(told);
    return result;
}
