#include <pgrun/pgrun.h>
#include <stdio.h>

/* Opens two families, and adds the ranks of this one's group; 12 ranks make 3 stages of 4. */
static pgr_status add_ranks(pgr_job *job, pgr_error *error) {
    char items[][PGR_NAME_MAX] = {"embedding", "dp-cp/hybrid2"};
    pgr_names names = {.items = items, .count = 2};
    pgr_spec spec;
    pgr_plan plan;
    pgr_groups *groups;
    pgr_spec_init(&spec);
    spec.parallel.pp = 3;
    spec.parallel.hybrid_cp = true;
    pgr_status status = pgr_plan_create(&spec, job->size, &plan, error);
    pgr_spec_free(&spec);
    if (status == PGR_OK)
        status = pgr_groups_open_begin(job, &plan, &names, &groups, error);
    if (status != PGR_OK)
        return status;
    status = pgr_groups_open_finish(groups, error);
    if (status != PGR_OK) { /* of this rank alone, perhaps: end the job */
        pgr_groups_abort(groups);
        return status;
    }
    const pgr_group *embedding = pgr_groups_find(groups, "embedding");
    const pgr_group *pair = pgr_groups_find(groups, "dp-cp/hybrid2");
    int64_t sum = job->rank;
    if (pair->comm) { /* a group of one has none */
        pgr_request request;
        status = pair->comm->ops->all_reduce(pair->comm, &sum, &sum, 1, PGR_I64, PGR_SUM,
                                             pair->comm->stream, &request, error);
        if (status == PGR_OK)
            status = pgr_request_wait(&request, error);
    }
    printf("rank %d: sum %d, embedding %d of %d\n", (int)job->rank, (int)sum, (int)embedding->rank,
           (int)embedding->size); /* -1 of 0 in the middle stage */
    pgr_status closed = pgr_groups_close(groups, status ? NULL : error);
    return status ? status : closed;
}

int main(void) {
    pgr_job *job;
    static pgr_error error;
    if (pgr_job_open(60, &job, &error))
        return fprintf(stderr, "%s\n", error.message), 1;
    if (add_ranks(job, &error)) {
        fprintf(stderr, "%s\n", error.message);
        job->bootstrap_ops->abort(job->bootstrap, pgr_exit_code(error.status));
    }
    return pgr_job_close(job, &error) ? 1 : 0;
}
