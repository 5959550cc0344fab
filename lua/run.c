/* run.c - `pgrun CONFIG`: open the job, read the config on every rank, open the groups, run the
 * workloads, report from rank 0. Errors are told once: agreed on while all ranks still can, and
 * after that by the first rank that meets one, which ends the job. */
#include "command.h"
#include "report.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_INIT_TIMEOUT 300.0 /* seconds; run.init_timeout counts once the config is read */

/* One run. Everything is released by close_run, whatever was reached. */
typedef struct run {
    const pgr_options *options;
    pgr_job *job;
    pgr_spec spec;
    pgr_plan plan;
    pgr_names families; /* to open */
    pgr_groups *groups;
    pgr_report *report; /* rank 0's; NULL elsewhere */
} run;

static void tell(const pgr_error *error) {
    if (error->message[0])
        fprintf(stderr, "pgrun: error: %s\n", error->message);
}

/* The fatal handler: the job cannot go on together. Ranks that meet the same trouble at the same
 * time take turns, so that the lowest tells it and ends the others; one that it does not end in
 * time hears that it tells, and gives it time to. */
static void end_job(const pgr_error *error, void *context) {
    const pgr_job *job = context;
    double delay = 0.1 * (double)job->rank;
    usleep((useconds_t)(1e6 * (delay < 2 ? delay : 2)));
    fflush(stdout);
    if (job->bootstrap_ops->claim(job->bootstrap))
        tell(error);
    else
        sleep(2);
    job->bootstrap_ops->abort(job->bootstrap, pgr_exit_code(error->status));
}

/* ---- reading the config -------------------------------------------------------------------- */

/* Rank 0 reads the file; all get its text, or why there is none. */
static pgr_status share_text(run *state, pgr_config_text *text, pgr_error *error) {
    const pgr_job *job = state->job;
    struct {
        int64_t bytes;
        pgr_error error;
    } read = {.bytes = 0};
    if (job->rank == 0) {
        read.error.status = pgr_config_read(state->options->files[0], text, &read.error);
        read.bytes = (int64_t)text->bytes;
    }
    pgr_status status = job->bootstrap_ops->broadcast(job->bootstrap, &read, sizeof read, 0, error);
    if (status)
        return status;
    if (read.error.status) {
        *error = read.error;
        return read.error.status;
    }
    if (job->rank != 0) {
        text->text = malloc((size_t)read.bytes + 1);
        text->bytes = (size_t)read.bytes;
        if (text->text)
            text->text[read.bytes] = 0;
        else
            status = pgr_error_set(error, PGR_LIMIT, "no memory for a config of %lld bytes",
                                   (long long)read.bytes);
    }
    status = pgr_job_agree(state->job, status, error);
    if (status)
        return status;
    return job->bootstrap_ops->broadcast(job->bootstrap, text->text, read.bytes, 0, error);
}

/* A single process of a layout that needs more: the command that would start them. */
static pgr_status explain_size(const run *state, pgr_status status, pgr_error *error) {
    int64_t smallest;
    if (status != PGR_INVALID || state->job->size > 1 || pgr_launcher_present() ||
        state->spec.world_size != PGR_NIL ||
        pgr_plan_smallest_world(&state->spec, &smallest, NULL) || smallest == 1)
        return status;
    return pgr_error_set(error, PGR_INVALID,
                         "this layout needs %lld ranks, or a multiple, and one was started; run it "
                         "with: mpirun -n %lld pgrun %s",
                         (long long)smallest, (long long)smallest, state->options->files[0]);
}

static pgr_status check_world(const run *state, pgr_error *error) {
    int64_t declared = state->spec.world_size, size = state->job->size;
    if (declared == PGR_NIL || declared == size)
        return PGR_OK;
    return pgr_error_set(error, PGR_INVALID,
                         "world_size = %lld, but the job has %lld rank%s; run it with: mpirun -n "
                         "%lld pgrun %s, or leave world_size out",
                         (long long)declared, (long long)size, size == 1 ? "" : "s",
                         (long long)declared, state->options->files[0]);
}

/* Says how many ranks there are in front of the layout's own complaint about it. Layers and padding
 * read the sizes of the short form, which a grid's axes are now known to have. */
static pgr_status create_plan(run *state, pgr_error *error) {
    int64_t size = state->job->size;
    pgr_status status = pgr_plan_create(&state->spec, size, &state->plan, error);
    if (!status)
        pgr_plan_name_sizes(&state->plan, &state->spec);
    else
        pgr_error_prefix(error, "%s: with the %lld rank%s of this job: ", state->options->files[0],
                         (long long)size, size == 1 ? "" : "s");
    return explain_size(state, status, error);
}

static pgr_status understand(run *state, const pgr_config_text *text, pgr_error *error) {
    const pgr_options *options = state->options;
    pgr_status status = pgr_config_load(options->files[0], text->text, text->bytes, options->sets,
                                        options->set_count, &state->spec, error);
    if (!status)
        status = check_world(state, error);
    if (!status)
        status = create_plan(state, error);
    if (status)
        return status;
    status = pgr_spec_runnable(&state->spec, error);
    if (!status)
        status = pgr_workload_check(&state->spec, &state->plan, error);
    if (!status)
        status = pgr_workload_families(&state->spec, &state->plan, &state->families, error);
    if (status)
        pgr_error_prefix(error, "%s: ", options->files[0]);
    return status;
}

/* All ranks must have understood the same. */
static pgr_status compare_digests(const run *state, pgr_error *error) {
    const pgr_job *job = state->job;
    uint64_t own[2] = {pgr_spec_digest(&state->spec), pgr_plan_digest(&state->plan)};
    uint64_t(*all)[2] = malloc((size_t)job->size * sizeof *all);
    if (!all)
        return pgr_error_set(error, PGR_LIMIT, "no memory for %lld digests", (long long)job->size);
    pgr_status status = job->bootstrap_ops->all_gather(job->bootstrap, own, all, sizeof own, error);
    for (int64_t rank = 1; !status && rank < job->size; rank++)
        if (memcmp(all[rank], all[0], sizeof own) != 0)
            status =
                pgr_error_set(error, PGR_LOST,
                              "rank %lld reads another layout from the config than rank 0 "
                              "(digests %016llx and %016llx); are all ranks the same pgrun?",
                              (long long)rank, (unsigned long long)(all[rank][0] ^ all[rank][1]),
                              (unsigned long long)(all[0][0] ^ all[0][1]));
    free(all);
    return status;
}

static pgr_status read_config(run *state, pgr_error *error) {
    pgr_config_text text = {0};
    pgr_status status = share_text(state, &text, error);
    if (!status)
        status = pgr_job_agree(state->job, understand(state, &text, error), error);
    free(text.text);
    return status ? status : compare_digests(state, error);
}

/* ---- running ------------------------------------------------------------------------------- */

static pgr_status open_report(run *state, pgr_error *error) {
    pgr_status status = PGR_OK;
    if (state->job->rank == 0)
        status = pgr_report_open(stdout, state->options->report, &state->report, error);
    return pgr_job_agree(state->job, status, error);
}

static pgr_status open_device(run *state, pgr_error *error) {
    char lacks[256];
    bool lacking = pgr_workload_cuda_lacks(&state->spec, lacks, sizeof lacks);
    pgr_job_args args = {
        .device = state->spec.run.device,
        .comm = state->spec.run.comm,
        .timeout = state->spec.run.timeout,
        .init_timeout = state->spec.run.init_timeout,
        .share_gpu = state->spec.run.share_gpu,
        .nccl = state->spec.run.nccl.items,
        .nccl_count = state->spec.run.nccl.count,
        .cuda_lacks = lacking ? lacks : NULL,
    };
    pgr_status status = pgr_job_open_device(state->job, &args, error);
    return pgr_job_agree(state->job, status, error);
}

static pgr_status open_groups(run *state, pgr_error *error) {
    pgr_status status =
        pgr_groups_open_begin(state->job, &state->plan, &state->families, &state->groups, error);
    return status ? status : pgr_groups_open_finish(state->groups, error);
}

/* Of the slowest rank, and of the one that lost most memory. */
static pgr_status setups_max(const pgr_job *job, pgr_setup *setups, int64_t count,
                             pgr_error *error) {
    double *values = calloc((size_t)count, 3 * sizeof *values);
    if (!values)
        return pgr_error_set(error, PGR_LIMIT, "no memory for the set-up times");
    for (int64_t i = 0; i < count; i++) {
        values[3 * i] = setups[i].open_seconds;
        values[3 * i + 1] = setups[i].first_seconds;
        values[3 * i + 2] = setups[i].memory_bytes == PGR_NIL ? -1 : (double)setups[i].memory_bytes;
    }
    pgr_status status = job->bootstrap_ops->max(job->bootstrap, values, 3 * count, error);
    for (int64_t i = 0; i < count && !status; i++)
        setups[i] = (pgr_setup){.open_seconds = values[3 * i],
                                .first_seconds = values[3 * i + 1],
                                .memory_bytes =
                                    values[3 * i + 2] < 0 ? PGR_NIL : (int64_t)values[3 * i + 2]};
    free(values);
    return status;
}

static pgr_status report_setup(run *state, pgr_error *error) {
    int64_t count = pgr_groups_count(state->groups);
    const pgr_setup *world = pgr_groups_world(state->groups);
    pgr_setup *setups = calloc((size_t)count + 1, sizeof *setups);
    if (!setups)
        return pgr_error_set(error, PGR_LIMIT, "no memory for the set-up times");
    for (int64_t i = 0; i < count; i++)
        setups[i] = pgr_groups_at(state->groups, i)->setup;
    if (world)
        setups[count] = *world;
    pgr_status status = setups_max(state->job, setups, count + 1, error);
    if (!status && state->report)
        status = pgr_report_layout(state->report, state->options->files[0], state->job,
                                   &state->spec, &state->plan, error);
    if (!status && state->report)
        status = pgr_report_groups(state->report, state->job, state->groups, setups, error);
    free(setups);
    return status;
}

/* PGR_MISMATCH, without a message (the report has it), where any workload failed. */
static pgr_status run_workloads(run *state, pgr_error *error) {
    const pgr_list *workloads = &state->spec.run.workloads;
    bool all_ok = true;
    for (int64_t i = 0; i < workloads->count; i++) {
        pgr_result result;
        pgr_status status = pgr_workload_run(state->job, &state->spec, &state->plan, state->groups,
                                             (pgr_workload)workloads->items[i], &result, error);
        if (!status && state->report)
            status = pgr_report_result(state->report, &result, error);
        if (status)
            return status;
        all_ok = all_ok && result.verify.ok;
    }
    return all_ok ? PGR_OK : pgr_error_set(error, PGR_MISMATCH, "%s", "");
}

/* From here on an error may be one rank's alone: it ends the job. */
static pgr_status run_groups(run *state, pgr_error *error) {
    pgr_status status = open_groups(state, error);
    if (!status)
        status = report_setup(state, error);
    if (status)
        return status;
    pgr_status outcome = run_workloads(state, error);
    if (outcome && outcome != PGR_MISMATCH)
        return outcome;
    status = pgr_groups_close(state->groups, error);
    state->groups = NULL;
    return status ? status : outcome;
}

/* ---- the command --------------------------------------------------------------------------- */

static pgr_status prepare(run *state, pgr_status usage, pgr_error *error) {
    pgr_status status = pgr_job_agree(state->job, usage, error);
    if (!status)
        status = read_config(state, error);
    if (!status)
        status = open_device(state, error);
    return status ? status : open_report(state, error);
}

static int close_run(run *state, pgr_status status, pgr_error *error) {
    pgr_error later;
    bool first = state->job->rank == 0;
    pgr_status closed = pgr_report_close(state->report, &later);
    if (!status && closed) {
        *error = later;
        status = closed;
    }
    if (status && first)
        tell(error);
    free(state->families.items);
    pgr_spec_free(&state->spec);
    closed = pgr_job_close(state->job, &later);
    if (!status && closed) {
        tell(&later);
        status = closed;
    }
    return pgr_exit_code(status);
}

int pgr_command_run(const pgr_options *options, pgr_status usage, pgr_error *error) {
    run state = {.options = options};
    pgr_status status = pgr_job_open(DEFAULT_INIT_TIMEOUT, &state.job, error);
    if (status) {
        tell(error);
        return pgr_exit_code(status);
    }
    pgr_fatal_handler_set(end_job, state.job);
    status = prepare(&state, usage, error);
    if (!status) {
        status = run_groups(&state, error);
        if (status && status != PGR_MISMATCH)
            pgr_fatal(error);
    }
    return close_run(&state, status, error);
}
