/* overlap_test.c - linear layers whose chunks communicate beside their product against the plain
 * order, bit by bit: weights and inputs are small whole numbers, whose sums are exact in any order.
 * Random shapes, dtypes, activations and numbers of chunks; and the order in which work is started.
 *
 *   mpirun -n N overlap_test [cuda] */
#include "pgrun.h"

#include "bf16.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CASES = 120 };

static pgr_job *job;
static pgr_site site;
static const pgr_comm_ops *real_comm;
static pgr_comm_ops comm_ops;
static const pgr_device_ops *real_device;
static pgr_device_ops device_ops;
static int failures;

static void must(pgr_status status, const pgr_error *error) {
    if (!status)
        return;
    fprintf(stderr, "rank %lld: %s\n", (long long)job->rank, error->message);
    job->bootstrap_ops->abort(job->bootstrap, 3);
}

static void fail(const char *what, const char *said) {
    printf("FAIL rank %lld: %s (%s)\n", (long long)job->rank, what, said);
    failures++;
}

/* The same numbers on every rank, from the case. */
static uint64_t state;

static int64_t draw(int64_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((state >> 33) % (uint64_t)below);
}

/* ---- device memory ------------------------------------------------------------------------- */

static void *on_device(const void *data, int64_t bytes) {
    pgr_error error;
    void *memory;
    must(pgr_site_alloc(&site, bytes, &memory, &error), &error);
    must(real_device->set(job->device, memory, 0xff, bytes, site.stream, &error), &error);
    if (data)
        must(real_device->copy(job->device, memory, data, bytes, site.stream, &error), &error);
    must(real_device->stream_sync(job->device, site.stream, &error), &error);
    return memory;
}

static char *to_host(const void *memory, int64_t bytes) {
    pgr_error error;
    char *copy = malloc((size_t)bytes + 1);
    must(real_device->copy(job->device, copy, memory, bytes, site.stream, &error), &error);
    must(real_device->stream_sync(job->device, site.stream, &error), &error);
    return copy;
}

/* -1, 0 and 1, others on every rank. */
static void fill(void *memory, int64_t count, pgr_dtype dtype, int64_t salt) {
    pgr_error error;
    int64_t size = pgr_dtype_bytes(dtype);
    char *values = malloc((size_t)(count * size) + 1);
    uint64_t own = (uint64_t)(salt * 1000 + job->rank + 1);
    for (int64_t i = 0; i < count; i++) {
        own = own * 6364136223846793005u + 1442695040888963407u;
        float value = (float)((int64_t)((own >> 33) % 3) - 1);
        if (dtype == PGR_F32)
            ((float *)(void *)values)[i] = value;
        else
            ((pgr_bf16 *)(void *)values)[i] = pgr_bf16_from_f32(value);
    }
    must(real_device->copy(job->device, memory, values, count * size, site.stream, &error), &error);
    must(real_device->stream_sync(job->device, site.stream, &error), &error);
    free(values);
}

/* ---- what is started, in order ------------------------------------------------------------- */

static char trace[512];
static int traced;
static char units[512]; /* of each product: f where SMs are left free, else a */
static int products;

static void note(char what) {
    if (traced < (int)sizeof trace - 1)
        trace[traced++] = what;
    trace[traced] = '\0';
}

static pgr_status noted_linear(pgr_device *device, const pgr_linear_args *args, pgr_stream *stream,
                               pgr_error *error) {
    note('p');
    if (products < (int)sizeof units - 1)
        units[products++] = args->free_units > 0 ? 'f' : 'a';
    units[products] = '\0';
    return real_device->linear(device, args, stream, error);
}

static pgr_status noted_bias(pgr_device *device, const pgr_bias_args *args, pgr_stream *stream,
                             pgr_error *error) {
    note('b');
    return real_device->add_bias(device, args, stream, error);
}

static pgr_status noted_gather(pgr_comm *comm, const void *send, void *receive, int64_t count,
                               pgr_dtype dtype, pgr_stream *stream, pgr_request *request,
                               pgr_error *error) {
    note('g');
    if (stream != comm->stream)
        fail("a gather is not on the communicator's stream", trace);
    return real_comm->all_gather(comm, send, receive, count, dtype, stream, request, error);
}

static pgr_status noted_reduce(pgr_comm *comm, const void *send, void *receive, int64_t count,
                               pgr_dtype dtype, pgr_reduce reduce, pgr_stream *stream,
                               pgr_request *request, pgr_error *error) {
    note('r');
    if (stream != comm->stream)
        fail("a reduction is not on the communicator's stream", trace);
    return real_comm->reduce_scatter(comm, send, receive, count, dtype, reduce, stream, request,
                                     error);
}

/* An event on the stream of computation, and streams that wait: of communication, of computation.
 */
static pgr_status noted_record(pgr_device *device, pgr_event *event, pgr_stream *stream,
                               pgr_error *error) {
    if (event == site.order && stream == site.stream)
        note('e');
    return real_device->event_record(device, event, stream, error);
}

static pgr_status noted_wait(pgr_device *device, pgr_stream *stream, pgr_event *event,
                             pgr_error *error) {
    note(stream == site.stream ? 'm' : 'c');
    return real_device->stream_wait(device, stream, event, error);
}

static void check_trace(const pgr_linear *layer) {
    char want[512] = "", free_units[512] = "";
    bool column = layer->config.kind == PGR_COLUMN_PARALLEL, leaves = layer->tp->comm->units > 0;
    int64_t n = layer->chunks;
    if (n < 2)
        return;
    strcat(want, column ? "ec" : "");
    for (int64_t i = 0; i < n; i++)
        strcat(want, column ? "g" : "pecr");
    for (int64_t i = 0; i < n; i++) {
        bool beside = column ? i + 1 < n : i > 0;
        strcat(want, column ? "mp" : "m");
        strcat(free_units, leaves && beside ? "f" : "a");
    }
    strcat(want, !column && layer->bias ? "b" : "");
    if (strcmp(trace, want) != 0)
        fail(want, trace);
    if (strcmp(units, free_units) != 0)
        fail(free_units, units);
}

/* ---- cases --------------------------------------------------------------------------------- */

/* Nothing may differ, nor be left poisoned in both. */
static void same(const char *what, const char *case_text, void *got, void *want, int64_t bytes,
                 int64_t size) {
    static const uint8_t poison[4] = {0xff, 0xff, 0xff, 0xff};
    char *a = to_host(got, bytes), *b = to_host(want, bytes);
    for (int64_t at = 0; at < bytes; at += size)
        if (memcmp(a + at, b + at, (size_t)size) != 0 ||
            memcmp(a + at, poison, (size_t)size) == 0) {
            char text[256];
            snprintf(text, sizeof text, "%s differs in element %lld of %lld", what,
                     (long long)(at / size), (long long)(bytes / size));
            fail(text, case_text);
            break;
        }
    free(a), free(b);
}

static void compare(pgr_linear *layer, bool keep, const char *text) {
    pgr_error error;
    pgr_saved saved[2] = {{0}};
    const pgr_linear_config *config = &layer->config;
    bool column = config->kind == PGR_COLUMN_PARALLEL;
    int64_t size = pgr_dtype_bytes(config->dtype), share = config->rows / job->size;
    int64_t x_count = column ? share * config->input : config->rows * layer->depth;
    int64_t y_bytes = (column ? config->rows * layer->features : share * config->output) * size;
    void *x = on_device(NULL, x_count * size), *gathered = NULL;
    void *y[2] = {on_device(NULL, y_bytes), on_device(NULL, y_bytes)};
    fill(x, x_count, config->dtype, 7);
    fill(layer->weight, layer->width * layer->depth, config->dtype, 8);
    must(pgr_linear_poison(&site, layer, &error), &error);
    traced = products = 0;
    must(pgr_stopwatch_start(site.stopwatch, site.stream, &error), &error);
    must(pgr_linear_forward(&site, layer, x, y[0], keep ? &saved[0] : NULL, &error), &error);
    check_trace(layer);
    if (keep && column) { /* the plain order writes there too */
        char *copy = to_host(layer->gathered, config->rows * config->input * size);
        gathered = on_device(copy, config->rows * config->input * size);
        free(copy);
    }
    must(pgr_linear_forward_plain(&site, layer, x, y[1], keep ? &saved[1] : NULL, &error), &error);
    same("y", text, y[0], y[1], y_bytes, size);
    if (keep) {
        if (saved[0].input != saved[1].input)
            fail("the saved input is elsewhere", text);
        if (gathered)
            same("the saved input", text, gathered, layer->gathered,
                 config->rows * config->input * size, size);
        same("the saved product", text, saved[0].pre_activation, saved[1].pre_activation,
             config->rows * layer->width * size, size);
    }
    for (int i = 0; i < 2; i++) {
        pgr_saved_free(&site, &saved[i]);
        pgr_site_free(&site, y[i]);
    }
    pgr_site_free(&site, gathered);
    pgr_site_free(&site, x);
}

/* Sums of at most 4 * 8 * 8 products: whole numbers to 256, which bf16 has. */
static void run_case(int number) {
    static const pgr_activation activations[] = {PGR_NO_ACTIVATION, PGR_GELU, PGR_SWIGLU};
    pgr_error error;
    pgr_linear *layer;
    char text[128];
    state = (uint64_t)number;
    for (int i = 0; i < 4; i++)
        (void)draw(2);
    bool column = draw(2), keep = draw(3) == 0;
    int64_t share = 1 + draw(draw(2) ? 40 : 5);
    pgr_linear_config config = {
        .kind = column ? PGR_COLUMN_PARALLEL : PGR_ROW_PARALLEL,
        .name = "layer",
        .input = column ? 1 + draw(40) : job->size * (1 + draw(16)),
        .output = column ? 2 * job->size * (1 + draw(20)) : 1 + draw(40),
        .bias = draw(2),
        .activation = column ? activations[draw(3)] : PGR_NO_ACTIVATION,
        .dtype = draw(2) ? PGR_BF16 : PGR_F32,
        .sequence_parallel = true,
        .rows = share * job->size,
        .overlap_chunks = 1 + draw(draw(4) ? 8 : PGR_CHUNKS_MAX),
    };
    /* a bias is no whole number, but it is added once, to the same sum */
    must(pgr_linear_create(&site, &config, &layer, &error), &error);
    snprintf(text, sizeof text, "case %d: %s-parallel, %lld x %lld of %s, %lld rows, %lld chunks",
             number, column ? "column" : "row", (long long)config.input, (long long)config.output,
             pgr_dtype_name(config.dtype), (long long)config.rows, (long long)layer->chunks);
    int64_t want = config.overlap_chunks < share ? config.overlap_chunks : share;
    if (job->size > 1 && layer->chunks != want)
        fail("another number of chunks", text);
    compare(layer, keep, text);
    pgr_linear_free(&site, layer);
}

/* Chunks cover every share, in order, and differ by a row at most. */
static void check_chunks(void) {
    pgr_group group = {.size = 4};
    for (int64_t share = 1; share < 70; share++)
        for (int64_t count = 1; count <= PGR_CHUNKS_MAX && count <= share; count++) {
            pgr_linear layer = {.config = {.rows = 4 * share}, .tp = &group, .chunks = count};
            int64_t next = 0;
            for (int64_t i = 0; i < count; i++) {
                pgr_chunk chunk = pgr_linear_chunk(&layer, i);
                if (chunk.begin != next || chunk.rows < share / count ||
                    chunk.rows > share / count + 1)
                    fail("a chunk", "of a share");
                next += chunk.rows;
            }
            if (next != share)
                fail("chunks", "do not cover the share");
        }
}

int main(int count, char **words) {
    pgr_error error;
    pgr_spec spec;
    pgr_plan plan;
    pgr_groups *groups;
    bool cuda = count > 1 && strcmp(words[1], "cuda") == 0;
    if (pgr_job_open(60, &job, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 3;
    }
    pgr_job_args args = {.device = cuda ? PGR_DEVICE_CUDA : PGR_DEVICE_CPU,
                         .comm = cuda ? PGR_COMM_NCCL : PGR_COMM_MPI,
                         .timeout = 30,
                         .init_timeout = 60};
    must(pgr_job_open_device(job, &args, &error), &error);
    pgr_spec_init(&spec);
    spec.parallel.tp = job->size;
    must(pgr_plan_create(&spec, job->size, &plan, &error), &error);
    char families[1][PGR_NAME_MAX] = {"tp"};
    pgr_names names = {1, families};
    must(pgr_groups_open_begin(job, &plan, &names, &groups, &error), &error);
    must(pgr_groups_open_finish(groups, &error), &error);
    site =
        (pgr_site){.job = job, .plan = &plan, .groups = groups, .device = job->device, .seed = 1};
    must(pgr_site_open(&site, &error), &error);
    check_chunks();

    pgr_comm *comm = pgr_groups_find(groups, "tp")->comm;
    real_device = job->device->ops;
    real_comm = comm->ops;
    device_ops = *real_device;
    comm_ops = *real_comm;
    device_ops.linear = noted_linear;
    device_ops.add_bias = noted_bias;
    device_ops.event_record = noted_record;
    device_ops.stream_wait = noted_wait;
    comm_ops.all_gather = noted_gather;
    comm_ops.reduce_scatter = noted_reduce;
    job->device->ops = &device_ops;
    comm->ops = &comm_ops;
    if (cuda != (comm->units > 0))
        fail("SMs to leave to communication", job->device->kind);
    for (int i = 0; i < CASES; i++)
        run_case(i);
    job->device->ops = real_device;
    comm->ops = real_comm;
    if (job->rank == 0)
        printf("%d cases on %lld ranks\n", CASES, (long long)job->size);

    pgr_site_close(&site);
    must(pgr_groups_close(groups, &error), &error);
    pgr_spec_free(&spec);
    must(pgr_job_close(job, &error), &error);
    return failures > 0;
}
