/* packed_test.c - packed sequences: every workload on them verifies, and with each of the faults
 * below, planted at the device's table, the verification fails.
 *
 *   mpirun -n N packed_test        prints a line per case from rank 0 */
#include "pgrun.h"
#include "workload_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PACKED_MAX = 6 };

static pgr_job *job;
static const pgr_plan *plan;
static const pgr_device_ops *real;
static pgr_device_ops ops;
static int failures;

/* ---- faults -------------------------------------------------------------------------------- */

typedef pgr_status context_function(pgr_device *, const pgr_context_args *, pgr_stream *,
                                    pgr_error *);

/* The packed sequences are moved as if they were one. */
static pgr_status as_one(context_function *move, pgr_device *device, const pgr_context_args *args,
                         pgr_stream *stream, pgr_error *error) {
    pgr_context_args changed = *args;
    changed.sequences = 0;
    changed.cu_seqlens = changed.cu_padded = NULL;
    return move(device, &changed, stream, error);
}

static pgr_status split_as_one(pgr_device *device, const pgr_context_args *args, pgr_stream *stream,
                               pgr_error *error) {
    return as_one(real->context_split, device, args, stream, error);
}

static pgr_status gather_as_one(pgr_device *device, const pgr_context_args *args,
                                pgr_stream *stream, pgr_error *error) {
    return as_one(real->context_gather, device, args, stream, error);
}

static void zigzag_of_the_whole(void) {
    ops.context_split = split_as_one;
    ops.context_gather = gather_as_one; /* so that they agree with each other */
}

static void gather_of_the_whole(void) {
    ops.context_gather = gather_as_one;
}

/* Moves with sums that `change` has changed: the CPU's device memory is the host's. */
static pgr_status with_sums(context_function *move,
                            void (*change)(int64_t *cu, int64_t *padded, int64_t sequences),
                            pgr_device *device, const pgr_context_args *args, pgr_stream *stream,
                            pgr_error *error) {
    int64_t cu[PACKED_MAX + 1], padded[PACKED_MAX + 1], count = args->sequences + 1;
    pgr_context_args changed = *args;
    memcpy(cu, args->cu_seqlens, (size_t)count * sizeof *cu);
    memcpy(padded, args->cu_padded, (size_t)count * sizeof *padded);
    change(cu, padded, args->sequences);
    changed.cu_seqlens = cu;
    changed.cu_padded = padded;
    changed.seq_len = cu[args->sequences];
    return move(device, &changed, stream, error);
}

static void lose_last(int64_t *cu, int64_t *padded, int64_t sequences) {
    (void)padded;
    cu[sequences] = cu[sequences - 1];
}

/* What the sum lacks is padding of the first sequence, not of the last. */
static void pad_first(int64_t *cu, int64_t *padded, int64_t sequences) {
    int64_t chunks = 2 * pgr_plan_axis_size(plan, "cp");
    int64_t last = (cu[sequences] - cu[sequences - 1] + chunks - 1) / chunks * chunks;
    int64_t extra = padded[sequences] - padded[sequences - 1] - last;
    for (int64_t i = 1; i < sequences; i++)
        padded[i] += extra;
}

/* A sequence's last token is taken for the next one's first. */
static void move_border(int64_t *cu, int64_t *padded, int64_t sequences) {
    (void)padded, (void)sequences;
    cu[1]--;
}

#define SUMS_FAULT(name, what, change)                                                             \
    static pgr_status name##_move(pgr_device *device, const pgr_context_args *args,                \
                                  pgr_stream *stream, pgr_error *error) {                          \
        return with_sums(real->what, change, device, args, stream, error);                         \
    }                                                                                              \
    static void name(void) {                                                                       \
        ops.what = name##_move;                                                                    \
    }

SUMS_FAULT(lost_sequence, context_split, lose_last)
SUMS_FAULT(lost_sequence_back, context_gather, lose_last)
SUMS_FAULT(padding_elsewhere, context_split, pad_first)
SUMS_FAULT(padding_elsewhere_back, context_gather, pad_first)
SUMS_FAULT(border, context_split, move_border)

static void padding_elsewhere_both(void) {
    padding_elsewhere();
    padding_elsewhere_back();
}

/* Padding is routed as if it were tokens. */
static pgr_status route_all(pgr_device *device, const pgr_router_args *args, pgr_stream *stream,
                            pgr_error *error) {
    pgr_router_args changed = *args;
    changed.valid = NULL;
    return real->router(device, &changed, stream, error);
}

static void routed_padding(void) {
    ops.router = route_all;
}

static const struct {
    const char *name;
    pgr_workload workload;
    void (*plant)(void); /* NULL: the workload as it is */
    bool needs_cp;       /* where nothing is split, the whole is one sequence after the other */
    bool needs_tail;     /* padding of the sum */
    bool needs_room;     /* the second sequence has padding */
} faults[] = {
    {"mlp", PGR_MLP, NULL, false, false, false},
    {"router", PGR_ROUTER, NULL, false, false, false},
    {"router, routed padding", PGR_ROUTER, routed_padding, false, true, false},
    {"context", PGR_CONTEXT, NULL, false, false, false},
    {"context, zig-zag of the whole", PGR_CONTEXT, zigzag_of_the_whole, true, false, false},
    {"context, gather of the whole", PGR_CONTEXT, gather_of_the_whole, true, false, false},
    {"context, a lost sequence", PGR_CONTEXT, lost_sequence, false, false, false},
    {"context, a lost sequence on the way back", PGR_CONTEXT, lost_sequence_back, false, false,
     false},
    {"context, padding of the wrong sequence", PGR_CONTEXT, padding_elsewhere_both, true, true,
     false},
    {"context, the same on the way back", PGR_CONTEXT, padding_elsewhere_back, true, true, false},
    {"context, a token in the wrong sequence", PGR_CONTEXT, border, false, false, true},
};

/* ---- layouts ------------------------------------------------------------------------------- */

typedef struct layout {
    int64_t ranks, tp, cp, batch;
    bool sequence_parallel;
    pgr_dtype dtype;
    bool tail, room; /* faults' needs_tail, needs_room */
    int64_t sequences, lengths[PACKED_MAX];
} layout;

/* 2 * cp = 4 at cp = 2. At tp = 4 the sum must be a multiple of 8. */
static const layout layouts[] = {
    {1, 1, 1, 2, false, PGR_F32, false, false, 4, {11, 1, 8, 25}},
    {2, 1, 2, 1, true, PGR_F32, false, true, 4, {11, 1, 8, 25}},
    {2, 2, 1, 3, true, PGR_BF16, true, false, 3, {16, 1, 4}},
    {4, 2, 2, 2, true, PGR_BF16, false, true, 5, {30, 7, 16, 1, 22}},
    {4, 1, 4, 1, false, PGR_F32, false, true, 2, {1, 77}},
    {8, 4, 2, 1, true, PGR_F32, true, true, 5, {19, 33, 1, 40, 15}},
    {8, 2, 2, 2, false, PGR_F32, false, true, 6, {1, 1, 1, 1, 1, 1}},
};

static void declare(const layout *l, pgr_spec *spec) {
    pgr_spec_init(spec);
    spec->parallel.tp = l->tp;
    spec->parallel.cp = l->cp;
    spec->parallel.etp = 1;
    spec->parallel.sequence_parallel = l->sequence_parallel;
    spec->model.hidden = 72;
    spec->model.ffn = 152;
    spec->model.seq_len = l->batch == 1 ? 999 : PGR_NIL; /* packed sequences take its place */
    spec->model.micro_batch = l->batch;
    spec->model.dtype = l->dtype;
    spec->moe.experts = 8;
    spec->moe.capacity_factor = l->tp > 1 ? 1.0 : spec->moe.capacity_factor;
    spec->moe.z_loss_coeff = 0.001;
    spec->run.warmup = 1;
    spec->run.iterations = 2;
    spec->padding.packed.count = l->sequences;
    spec->padding.packed.items = malloc(sizeof l->lengths);
    memcpy(spec->padding.packed.items, l->lengths, sizeof l->lengths);
}

/* ---- cases --------------------------------------------------------------------------------- */

static void fail_now(pgr_status status, const pgr_error *error) {
    if (!status)
        return;
    fprintf(stderr, "rank %lld: %s\n", (long long)job->rank, error->message);
    job->bootstrap_ops->abort(job->bootstrap, 3);
}

static int64_t shape_of(const pgr_result *result, const char *name) {
    for (int i = 0; i < PGR_SHAPES_MAX && result->shape[i].name; i++)
        if (strcmp(result->shape[i].name, name) == 0)
            return result->shape[i].value;
    return -1;
}

static void run_case(int fault, const layout *l, const pgr_spec *spec, const pgr_groups *groups) {
    pgr_error error;
    pgr_result result;
    ops = *real;
    if (faults[fault].plant)
        faults[fault].plant();
    job->device->ops = &ops;
    fail_now(pgr_workload_run(job, spec, plan, groups, faults[fault].workload, &result, &error),
             &error);
    job->device->ops = real;
    const pgr_verdict *v = &result.verify;
    bool good = faults[fault].plant ? !v->ok : v->ok && v->checked > 0;
    if (faults[fault].workload == PGR_CONTEXT)
        good = good && shape_of(&result, "sequences") == l->sequences;
    failures += !good;
    if (job->rank == 0)
        printf("%s %s (tp %lld cp %lld of %lld, %lld sequences, %s%s): %s, %s\n",
               good ? "ok  " : "FAIL", faults[fault].name, (long long)l->tp, (long long)l->cp,
               (long long)l->ranks, (long long)l->sequences, pgr_dtype_name(l->dtype),
               l->sequence_parallel ? ", sp" : "", v->ok ? "verified" : "refused", v->what);
}

static void run_layout(const layout *l) {
    pgr_error error;
    pgr_spec spec;
    pgr_plan made;
    pgr_names names;
    pgr_groups *groups;
    declare(l, &spec);
    fail_now(pgr_spec_runnable(&spec, &error), &error);
    fail_now(pgr_plan_create(&spec, job->size, &made, &error), &error);
    fail_now(pgr_workload_check(&spec, &made, &error), &error);
    fail_now(pgr_workload_families(&spec, &made, &names, &error), &error);
    fail_now(pgr_groups_open_begin(job, &made, &names, &groups, &error), &error);
    fail_now(pgr_groups_open_finish(groups, &error), &error);
    plan = &made;
    for (int i = 0; i < (int)(sizeof faults / sizeof *faults); i++)
        if ((l->cp > 1 || !faults[i].needs_cp) && (l->tail || !faults[i].needs_tail) &&
            (l->room || !faults[i].needs_room))
            run_case(i, l, &spec, groups);
    fail_now(pgr_groups_close(groups, &error), &error);
    free(names.items);
    pgr_spec_free(&spec);
}

int main(void) {
    pgr_error error;
    if (pgr_job_open(60, &job, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 3;
    }
    pgr_job_args args = {.device = PGR_DEVICE_CPU, .timeout = 30, .init_timeout = 60};
    fail_now(pgr_job_open_device(job, &args, &error), &error);
    real = job->device->ops;
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (layouts[i].ranks == job->size)
            run_layout(&layouts[i]);
    fail_now(pgr_job_close(job, &error), &error);
    return failures > 0;
}
