/* layer_test.c - what a backward pass will need of a linear layer, and what a communicator carries.
 *
 *   mpirun -n 2 layer_test */
#include "pgrun.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 12, INPUT = 24, OUTPUT = 32 };

static pgr_job *job;
static int failures;

static void check(bool good, const char *what) {
    failures += !good;
    if (!good || job->rank == 0)
        printf("%s %s\n", good ? "ok  " : "FAIL", what);
}

static void must(pgr_status status, const pgr_error *error) {
    if (!status)
        return;
    fprintf(stderr, "rank %lld: %s\n", (long long)job->rank, error->message);
    job->bootstrap_ops->abort(job->bootstrap, 3);
}

static float gelu(float z) {
    return 0.5f * z * (1 + tanhf(0.79788456f * (z + 0.044715f * z * z * z)));
}

/* The forward pass keeps its input and the values before the activation; a second pass reuses them.
 */
static void test_saved(const pgr_site *site, pgr_linear *layer, const float *x) {
    pgr_error error;
    pgr_saved saved = {0};
    float *y = malloc((size_t)(ROWS * layer->features) * sizeof *y);
    must(pgr_linear_forward(site, layer, x, y, &saved, &error), &error);
    check(saved.input == layer->gathered, "the saved input is the gathered one");
    const float *z = saved.pre_activation;
    bool same = z != NULL;
    for (int64_t i = 0; same && i < ROWS * layer->features; i++)
        same = fabsf(gelu(z[i]) - y[i]) < 1e-5f;
    check(same, "gelu of the saved values is the output");
    const void *first = saved.pre_activation;
    must(pgr_linear_forward(site, layer, x, y, &saved, &error), &error);
    check(saved.pre_activation == first, "a second pass reuses the saved state");
    pgr_saved_free(site, &saved);
    check(saved.pre_activation == NULL, "freed");
    free(y);
}

/* A row-parallel layer keeps its part of the input and its partial product. */
static void test_saved_row(const pgr_site *site, pgr_linear *layer, const float *x) {
    pgr_error error;
    pgr_saved saved = {0};
    float y[ROWS * OUTPUT];
    must(pgr_linear_forward(site, layer, x, y, &saved, &error), &error);
    check(saved.input == x, "the saved input is the caller's");
    check(memcmp(saved.pre_activation, layer->partial, sizeof y) == 0,
          "the saved values are the partial product");
    pgr_saved_free(site, &saved);
}

static void test_saved_router(const pgr_site *site, const float *x) {
    pgr_error error;
    pgr_saved saved = {0};
    pgr_router *router;
    pgr_routing routing;
    uint8_t valid[ROWS];
    memset(valid, 1, sizeof valid);
    pgr_router_config config = {.name = "router",
                                .hidden = INPUT,
                                .experts = 4,
                                .topk = 2,
                                .scaling = NAN,
                                .aux_loss_type = PGR_AUX_LOSS,
                                .capacity_factor = NAN,
                                .dtype = PGR_F32,
                                .rows = ROWS,
                                .batch = 1};
    must(pgr_router_create(site, &config, &router, &error), &error);
    must(pgr_router_forward(site, router, x, valid, &saved, &routing, &error), &error);
    check(saved.input == x, "the router saves its input");
    check(routing.tokens == ROWS, "all tokens are routed");
    pgr_saved_free(site, &saved);
    pgr_router_free(site, router);
}

int main(void) {
    pgr_error error;
    pgr_spec spec;
    pgr_plan plan;
    pgr_groups *groups;
    if (pgr_job_open(60, &job, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 3;
    }
    pgr_job_args args = {.device = PGR_DEVICE_CPU, .timeout = 30, .init_timeout = 60};
    must(pgr_job_open_device(job, &args, &error), &error);
    pgr_spec_init(&spec);
    spec.parallel.tp = job->size;
    must(pgr_plan_create(&spec, job->size, &plan, &error), &error);
    char families[2][PGR_NAME_MAX] = {"tp", "cp"};
    pgr_names names = {2, families};
    must(pgr_groups_open_begin(job, &plan, &names, &groups, &error), &error);
    must(pgr_groups_open_finish(groups, &error), &error);
    check(pgr_groups_find(groups, "tp")->comm->stream != NULL, "a communicator has its own stream");

    pgr_site site = {.job = job, .plan = &plan, .groups = groups, .device = job->device, .seed = 1};
    pgr_linear_config config = {.kind = PGR_COLUMN_PARALLEL,
                                .name = "up",
                                .input = INPUT,
                                .output = OUTPUT,
                                .bias = true,
                                .activation = PGR_GELU,
                                .dtype = PGR_F32,
                                .sequence_parallel = true,
                                .rows = ROWS};
    pgr_linear *layer;
    float x[ROWS * INPUT];
    for (int i = 0; i < ROWS * INPUT; i++)
        x[i] = (float)((i * 7 + job->rank) % 13) / 13 - 0.5f;
    must(pgr_site_open(&site, &error), &error);
    must(pgr_linear_create(&site, &config, &layer, &error), &error);
    test_saved(&site, layer, x);
    pgr_linear_free(&site, layer);
    config.kind = PGR_ROW_PARALLEL;
    config.activation = PGR_NO_ACTIVATION;
    config.sequence_parallel = false;
    must(pgr_linear_create(&site, &config, &layer, &error), &error);
    test_saved_row(&site, layer, x);
    pgr_linear_free(&site, layer);
    test_saved_router(&site, x);
    pgr_site_close(&site);
    must(pgr_groups_close(groups, &error), &error);
    pgr_spec_free(&spec);
    must(pgr_job_close(job, &error), &error);
    return failures > 0;
}
