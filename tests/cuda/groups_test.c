/* groups_test.c - two ranks on the stand-in for a GPU: groups that would communicate over MPI are
 * refused on every rank, by the call that opens them; groups of one are not. */
#include <stdio.h>
#include <string.h>

#include "pgrun.h"

static pgr_status open_family(pgr_job *job, int64_t tp, pgr_error *error) {
    char items[][PGR_NAME_MAX] = {"tp"};
    pgr_names names = {.items = items, .count = 1};
    pgr_spec spec;
    pgr_plan plan;
    pgr_groups *groups = NULL;
    pgr_spec_init(&spec);
    spec.parallel.tp = tp;
    pgr_status status = pgr_plan_create(&spec, job->size, &plan, error);
    pgr_spec_free(&spec);
    if (status == PGR_OK)
        status = pgr_groups_open_begin(job, &plan, &names, &groups, error);
    if (status == PGR_OK)
        status = pgr_groups_open_finish(groups, error);
    if (status == PGR_OK)
        status = pgr_groups_close(groups, error);
    return status;
}

int main(void) {
    static pgr_error error;
    pgr_job *job;
    pgr_job_args args = {.device = PGR_DEVICE_CUDA,
                         .comm = PGR_COMM_MPI,
                         .timeout = 30,
                         .init_timeout = 30,
                         .share_gpu = true};
    int failures = 0;
    if (pgr_job_open(30, &job, &error) != PGR_OK)
        return printf("FAIL %s\n", error.message), 1;
    if (pgr_job_open_device(job, &args, &error) != PGR_OK)
        failures += printf("FAIL no device: %s\n", error.message) > 0;
    else if (open_family(job, 1, &error) != PGR_OK)
        failures += printf("FAIL groups of one: %s\n", error.message) > 0;
    else if (open_family(job, 2, &error) != PGR_UNSUPPORTED ||
             !strstr(error.message, "family tp has groups of 2 ranks, and device \"cuda\" has no "
                                    "communication over MPI yet"))
        failures += printf("FAIL groups of two: %s\n", error.message) > 0;
    pgr_job_close(job, NULL);
    return failures > 0;
}
