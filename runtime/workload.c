/* workload.c - which families and sizes the workloads need; running one: verify, time, verify. */
#include "workload.h"
#include "check.h"
#include "random.h"
#include "workload_run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what the workloads need --------------------------------------------------------------- */

static int needed_families(const pgr_spec *spec, int64_t workload, const char *names[2]) {
    bool scattered = spec->parallel.sequence_parallel;
    switch (workload) {
    case PGR_MLP:
        names[0] = "tp";
        return 1;
    case PGR_ROUTER:
        names[0] = pgr_router_loss_family(spec->moe.aux_loss_type, scattered);
        return 1;
    default:
        names[0] = "cp";
        names[1] = "tp";
        return scattered ? 2 : 1;
    }
}

static bool has_name(const pgr_names *names, const char *name) {
    for (int64_t i = 0; i < names->count; i++)
        if (strcmp(names->items[i], name) == 0)
            return true;
    return false;
}

static void add_name(pgr_names *names, const char *name) {
    if (!has_name(names, name))
        snprintf(names->items[names->count++], PGR_NAME_MAX, "%s", name);
}

/* Whether one of the given families has the groups of `name`. */
static bool covers(const pgr_plan *plan, const pgr_names *given, const pgr_family *needed) {
    for (int64_t i = 0; i < given->count; i++) {
        pgr_family family;
        if (!pgr_plan_family_find(plan, given->items[i], &family, NULL) &&
            pgr_family_same(&family, needed))
            return true;
    }
    return false;
}

static pgr_status check_given(const pgr_spec *spec, const pgr_plan *plan, pgr_error *error) {
    const pgr_names *given = &spec->run.families;
    for (int64_t i = 0; i < given->count; i++) {
        pgr_family family;
        pgr_status status = pgr_plan_family_find(plan, given->items[i], &family, error);
        if (status) {
            pgr_error_prefix(error, "run.families: ");
            return status;
        }
    }
    for (int64_t i = 0; i < spec->run.workloads.count; i++) {
        const char *names[2];
        int count = needed_families(spec, spec->run.workloads.items[i], names);
        for (int n = 0; n < count; n++) {
            pgr_family needed;
            pgr_status status = pgr_plan_family_find(plan, names[n], &needed, error);
            if (status)
                return status;
            if (needed.size > 1 && !covers(plan, given, &needed))
                return pgr_error_set(error, PGR_INVALID,
                                     "run.families leaves out %s, which workload \"%s\" uses; add "
                                     "\"%s\" or remove run.families",
                                     names[n], pgr_workload_name(spec->run.workloads.items[i]),
                                     names[n]);
        }
    }
    return PGR_OK;
}

/* Options of a family that there is not would change nothing, and nobody would know. */
static pgr_status check_options(const pgr_spec *spec, const pgr_plan *plan, pgr_error *error) {
    pgr_status status = PGR_OK;
    for (int64_t i = 0; i < spec->run.nccl.count && status == PGR_OK; i++)
        status = pgr_check_nccl_family(spec, plan, i, error);
    return status;
}

pgr_status pgr_workload_families(const pgr_spec *spec, const pgr_plan *plan, pgr_names *names,
                                 pgr_error *error) {
    pgr_status status = check_options(spec, plan, error);
    if (!status && spec->run.families_given)
        status = check_given(spec, plan, error);
    if (status)
        return status;
    int64_t room = spec->run.families.count + 2 * spec->run.workloads.count + 1;
    pgr_names all = {.items = calloc((size_t)room, sizeof *all.items)};
    if (!all.items)
        return pgr_error_set(error, PGR_LIMIT, "no memory for %lld family names", (long long)room);
    for (int64_t i = 0; i < spec->run.families.count; i++)
        add_name(&all, spec->run.families.items[i]);
    for (int64_t i = 0; i < spec->run.workloads.count; i++) {
        const char *needed[2];
        int count = needed_families(spec, spec->run.workloads.items[i], needed);
        for (int n = 0; n < count; n++)
            add_name(&all, needed[n]);
    }
    *names = all;
    return PGR_OK;
}

bool pgr_workload_cuda_lacks(const pgr_spec *spec, char *text, size_t bytes) {
    bool router = false;
    for (int64_t i = 0; i < spec->run.workloads.count; i++)
        router = router || spec->run.workloads.items[i] == PGR_ROUTER;
    if (!router || spec->moe.experts <= PGR_CUDA_EXPERTS_MAX)
        return false;
    snprintf(text, bytes, "a router of %lld experts (%d at most)", (long long)spec->moe.experts,
             PGR_CUDA_EXPERTS_MAX);
    return true;
}

/* Problems, a line each, in one message. */
typedef struct problems {
    char text[4096];
    size_t used;
} problems;

static void problem(problems *list, const char *format, ...) PGR_PRINTF(2, 3);

static void problem(problems *list, const char *format, ...) {
    if (list->used + 2 >= sizeof list->text)
        return;
    if (list->used)
        list->text[list->used++] = '\n';
    va_list args;
    va_start(args, format);
    int wrote = vsnprintf(list->text + list->used, sizeof list->text - list->used, format, args);
    va_end(args);
    size_t room = sizeof list->text - list->used - 1;
    list->used += (size_t)wrote < room ? (size_t)wrote : room;
}

static void need(problems *list, int64_t workload, int64_t value, const char *key) {
    if (value == PGR_NIL)
        problem(list, "workload \"%s\" needs %s, which the config does not give",
                pgr_workload_name(workload), key);
}

/* The divisors of `value`, "1, 2, 4 or 8"; long lists are cut to the ones below 1024. */
static void divisors(int64_t value, char *text, size_t bytes) {
    size_t used = 0;
    text[0] = 0;
    for (int64_t d = 1; d <= value && d <= 1024 && used + 16 < bytes; d++)
        if (value % d == 0)
            used +=
                (size_t)snprintf(text + used, bytes - used, used ? ", %lld" : "%lld", (long long)d);
}

static void divides(problems *list, const char *axis, int64_t size, const char *key,
                    int64_t value) {
    char fit[256];
    if (value == PGR_NIL || value % size == 0)
        return;
    divisors(value, fit, sizeof fit);
    problem(list, "%s = %lld does not divide %s = %lld; %s can be %s", axis, (long long)size, key,
            (long long)value, axis, fit);
}

static void check_padding(problems *list, const pgr_spec *spec, const pgr_plan *plan) {
    pgr_tokens tokens;
    pgr_error error;
    if ((spec->model.seq_len != PGR_NIL || spec->padding.packed.count > 0) &&
        pgr_tokens_create(spec, plan, 0, true, &tokens, &error))
        problem(list, "%s", error.message);
}

/* What Megatron-Core asks of group-limited routing; nothing where experts is not given. */
static void check_router_groups(problems *list, const pgr_spec *spec) {
    int64_t groups = spec->moe.groups, chosen = spec->moe.group_topk;
    int64_t experts = spec->moe.experts, topk = spec->moe.topk;
    if (groups != PGR_NIL)
        divides(list, "groups", groups, "moe.experts", experts);
    if (chosen == PGR_NIL || experts == PGR_NIL)
        return;
    if (groups == PGR_NIL)
        problem(list, "moe.group_topk = %lld is given, but moe.groups is not; give both or none",
                (long long)chosen);
    else if (chosen > groups)
        problem(list, "moe.group_topk = %lld is larger than moe.groups = %lld; it can be 1 to %lld",
                (long long)chosen, (long long)groups, (long long)groups);
    else if (topk % chosen != 0)
        divides(list, "group_topk", chosen, "moe.topk", topk);
    else if (experts % groups == 0 && topk > experts / groups * chosen)
        problem(list,
                "moe.group_topk = %lld groups of %lld experts hold %lld, fewer than moe.topk = "
                "%lld; take fewer groups, more of them, or a smaller topk",
                (long long)chosen, (long long)(experts / groups),
                (long long)(experts / groups * chosen), (long long)topk);
}

static void check_router(problems *list, const pgr_spec *spec, const pgr_plan *plan) {
    need(list, PGR_ROUTER, spec->moe.experts, "moe.experts");
    if (spec->moe.experts != PGR_NIL && spec->moe.topk > spec->moe.experts)
        problem(list, "moe.topk = %lld is larger than moe.experts = %lld; topk can be 1 to %lld",
                (long long)spec->moe.topk, (long long)spec->moe.experts,
                (long long)spec->moe.experts);
    if (pgr_plan_has_axis(plan, "ep"))
        divides(list, "ep", pgr_plan_axis_size(plan, "ep"), "moe.experts", spec->moe.experts);
    if (spec->moe.experts > INT32_MAX)
        problem(list, "moe.experts = %lld is more than %d", (long long)spec->moe.experts,
                INT32_MAX);
    check_router_groups(list, spec);
    if (spec->moe.expert_bias && spec->moe.score == PGR_SOFTMAX)
        problem(list, "moe.expert_bias does not go with moe.score = \"softmax\"; take \"sigmoid\" "
                      "or \"sqrtsoftplus\", or leave expert_bias out");
}

/* The product of the sizes that are given, in 63 bits; 0 where it does not fit. */
static int64_t sizes_product(const int64_t *sizes, int count) {
    int64_t product = 1;
    for (int i = 0; i < count; i++)
        if (sizes[i] != PGR_NIL && __builtin_mul_overflow(product, sizes[i], &product))
            return 0;
    return product;
}

/* Every count of elements or bytes, and every global index of an element of any micro batch of the
 * run, must fit in 63 bits. */
static void check_sizes(problems *list, const pgr_spec *spec, const pgr_plan *plan) {
    int64_t widest = spec->model.hidden, seq_len = PGR_NIL;
    if (spec->model.seq_len != PGR_NIL || spec->padding.packed.count > 0) {
        seq_len = pgr_check_tokens(spec);
        if (seq_len == 0)
            return; /* check_padding says why */
    }
    int64_t others[] = {spec->model.ffn, spec->moe.experts};
    for (int i = 0; i < 2; i++)
        widest = others[i] > widest ? others[i] : widest; /* PGR_NIL is the least */
    int64_t dp = pgr_plan_axis_size(plan, "dp");
    /* 16: bytes of an element at most, and the two halves of a gated activation */
    int64_t activations[] = {seq_len, spec->model.micro_batch, widest, 16};
    int64_t weights[] = {spec->model.hidden, widest, 16};
    int64_t tokens[] = {1 + spec->run.warmup + spec->run.iterations, dp, spec->model.micro_batch,
                        seq_len, spec->model.hidden};
    if (!sizes_product(activations, 4))
        problem(list,
                "model.seq_len * micro_batch * the widest of hidden, ffn and experts does not "
                "fit in 63 bits; take smaller sizes");
    if (!sizes_product(weights, 3))
        problem(list,
                "model.hidden * the widest of hidden, ffn and experts does not fit in 63 bits; "
                "take smaller sizes");
    if (!sizes_product(tokens, 5))
        problem(list,
                "the activations of all micro batches of the run, dp * micro_batch * seq_len * "
                "hidden for each, do not fit in 63 bits; take smaller sizes or fewer iterations");
}

/* Which tokens a rank holds follows from its coordinates on these axes, and the losses and gathers
 * go over sets of them: they must be factors of one view. */
static void check_axes(problems *list, const pgr_plan *plan) {
    static const char *const axes[] = {"tp", "cp", "dp"};
    const pgr_view *grid = &plan->views[PGR_VIEW_DENSE];
    for (size_t i = 0; i < sizeof axes / sizeof axes[0]; i++) {
        bool there = false;
        for (int32_t a = 0; a < grid->axis_count; a++)
            there = there || strcmp(grid->axes[a].name, axes[i]) == 0;
        if (!there)
            problem(list,
                    "axis %s is in a view of its own, and the workloads cut tokens over tp, cp and "
                    "dp of one view; name it in parallel.grid",
                    axes[i]);
    }
}

pgr_status pgr_workload_check(const pgr_spec *spec, const pgr_plan *plan, pgr_error *error) {
    problems list = {.used = 0};
    check_axes(&list, plan);
    const pgr_list *workloads = &spec->run.workloads;
    for (int64_t i = 0; i < workloads->count; i++) {
        int64_t workload = workloads->items[i];
        need(&list, workload, spec->model.hidden, "model.hidden");
        if (spec->padding.packed.count == 0)
            need(&list, workload, spec->model.seq_len, "model.seq_len");
        if (workload == PGR_ROUTER)
            check_router(&list, spec, plan);
        if (workload != PGR_MLP)
            continue;
        need(&list, workload, spec->model.ffn, "model.ffn");
        divides(&list, "tp", pgr_plan_axis_size(plan, "tp"), "model.ffn", spec->model.ffn);
    }
    check_padding(&list, spec, plan);
    check_sizes(&list, spec, plan);
    return list.used ? pgr_error_set(error, PGR_INVALID, "%s", list.text) : PGR_OK;
}

/* ---- inputs -------------------------------------------------------------------------------- */

pgr_status pgr_inputs_create(const pgr_site *site, const pgr_tokens *tokens, int64_t hidden,
                             pgr_dtype dtype, pgr_inputs *inputs, pgr_error *error) {
    size_t rows = (size_t)tokens->rows;
    *inputs = (pgr_inputs){
        .tokens = *tokens,
        .hidden = hidden,
        .dtype = dtype,
        .random = {.seed = site->seed, .tensor = pgr_random_tensor("activations")},
        .host_ids = malloc(rows * sizeof(int64_t)),
        .host_valid = malloc(rows),
    };
    if (!inputs->host_ids || !inputs->host_valid)
        return pgr_error_set(error, PGR_LIMIT, "no memory for the ids of %zu tokens", rows);
    pgr_status status =
        pgr_site_alloc(site, tokens->rows * hidden * pgr_dtype_bytes(dtype), &inputs->x, error);
    if (!status)
        status = pgr_site_alloc(site, tokens->rows * (int64_t)sizeof(int64_t),
                                (void **)&inputs->ids, error);
    if (!status)
        status = pgr_site_alloc(site, tokens->rows, (void **)&inputs->valid, error);
    return status;
}

void pgr_inputs_free(const pgr_site *site, pgr_inputs *inputs) {
    pgr_site_free(site, inputs->x);
    pgr_site_free(site, inputs->ids);
    pgr_site_free(site, inputs->valid);
    free(inputs->host_ids);
    free(inputs->host_valid);
    *inputs = (pgr_inputs){0};
}

pgr_status pgr_inputs_fill(const pgr_site *site, pgr_inputs *inputs, int64_t micro_batch,
                           pgr_error *error) {
    const pgr_device_ops *ops = site->device->ops;
    int64_t rows = inputs->tokens.rows;
    pgr_tokens_ids(&inputs->tokens, micro_batch, inputs->host_ids);
    for (int64_t row = 0; row < rows; row++)
        inputs->host_valid[row] = inputs->host_ids[row] >= 0;
    pgr_status status = ops->copy(site->device, inputs->ids, inputs->host_ids,
                                  rows * (int64_t)sizeof(int64_t), site->stream, error);
    if (!status)
        status =
            ops->copy(site->device, inputs->valid, inputs->host_valid, rows, site->stream, error);
    if (status)
        return status;
    pgr_fill_args fill = {
        .out = inputs->x,
        .dtype = inputs->dtype,
        .rows = rows,
        .cols = inputs->hidden,
        .ld = inputs->hidden,
        .random = inputs->random,
        .row_stride = inputs->hidden,
        .row_ids = inputs->ids,
    };
    return ops->fill(site->device, &fill, site->stream, error);
}

/* ---- iterations ---------------------------------------------------------------------------- */

enum { COLUMNS = 1 + PGR_PHASES }; /* whole iteration, then each phase */

/* `name` of the range that a profiler shows, which is what is timed. */
static pgr_status iterate(pgr_site *site, const pgr_steps *steps, int64_t micro_batch,
                          const char *name, double seconds[COLUMNS], pgr_error *error) {
    const pgr_device_ops *ops = site->device->ops;
    pgr_status status = steps->prepare(steps->state, micro_batch, error);
    if (!status)
        status = ops->stream_sync(site->device, site->stream, error);
    if (!status)
        status = site->job->bootstrap_ops->barrier(site->job->bootstrap, error);
    ops->range_begin(site->device, name);
    double start = pgr_clock_seconds();
    if (!status)
        status = pgr_stopwatch_start(site->stopwatch, site->stream, error);
    if (!status)
        status = steps->forward(steps->state, error);
    if (!status)
        status = ops->stream_sync(site->device, site->stream, error);
    seconds[0] = pgr_clock_seconds() - start;
    ops->range_end(site->device);
    return status ? status : pgr_stopwatch_read(site->stopwatch, seconds + 1, error);
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

pgr_times pgr_times_summarize(double *milliseconds, int64_t count) {
    qsort(milliseconds, (size_t)count, sizeof *milliseconds, compare_doubles);
    int64_t middle = count / 2, nearest = (95 * count + 99) / 100;
    double median =
        count % 2 ? milliseconds[middle] : 0.5 * (milliseconds[middle - 1] + milliseconds[middle]);
    return (pgr_times){milliseconds[0], median, milliseconds[nearest - 1], count};
}

/* One column of the iterations, in milliseconds. */
static pgr_times summarize(const double *seconds, int64_t iterations, int column, double *scratch) {
    for (int64_t i = 0; i < iterations; i++)
        scratch[i] = 1e3 * seconds[i * COLUMNS + column];
    return pgr_times_summarize(scratch, iterations);
}

pgr_status pgr_steps_time(pgr_site *site, const pgr_spec *spec, const pgr_steps *steps,
                          pgr_result *result, pgr_error *error) {
    int64_t warmup = spec->run.warmup, iterations = spec->run.iterations;
    double *seconds = malloc((size_t)iterations * (COLUMNS + 1) * sizeof *seconds);
    if (!seconds)
        return pgr_error_set(error, PGR_LIMIT, "no memory for %lld iterations",
                             (long long)iterations);
    double ignored[COLUMNS];
    pgr_status status = PGR_OK;
    for (int64_t i = 0; !status && i < warmup + iterations; i++) {
        char name[32] = "warm-up";
        if (i >= warmup)
            snprintf(name, sizeof name, "iteration %lld", (long long)(1 + i - warmup));
        status = iterate(site, steps, 1 + i, name,
                         i < warmup ? ignored : seconds + (i - warmup) * COLUMNS, error);
    }
    if (!status)
        status = site->job->bootstrap_ops->max(site->job->bootstrap, seconds, iterations * COLUMNS,
                                               error);
    if (!status) {
        double *scratch = seconds + iterations * COLUMNS;
        result->time = summarize(seconds, iterations, 0, scratch);
        result->compute = summarize(seconds, iterations, 1 + PGR_COMPUTE, scratch);
        result->communication = summarize(seconds, iterations, 1 + PGR_COMMUNICATION, scratch);
    }
    free(seconds);
    return status;
}

static pgr_status verify(pgr_site *site, const pgr_steps *steps, int64_t micro_batch,
                         pgr_verdict *verdict, pgr_error *error) {
    site->device->ops->range_begin(site->device, "verify");
    pgr_status status = steps->verify(steps->state, micro_batch, verdict, error);
    site->device->ops->range_end(site->device);
    return status;
}

pgr_status pgr_steps_run(pgr_site *site, const pgr_spec *spec, const pgr_steps *steps,
                         pgr_result *result, pgr_error *error) {
    double ignored[COLUMNS];
    pgr_verdict verdict = pgr_verdict_start();
    pgr_status status = iterate(site, steps, 0, "first", ignored, error);
    if (!status)
        status = verify(site, steps, 0, &verdict, error);
    if (!status)
        status = pgr_steps_time(site, spec, steps, result, error);
    int64_t last = spec->run.warmup + spec->run.iterations;
    if (!status)
        status = verify(site, steps, last, &verdict, error);
    if (!status)
        status = pgr_verdict_agree(site->job, &verdict, error);
    if (!status)
        result->verify = verdict;
    return status;
}

double pgr_rate_gb(double bus_bytes, double milliseconds) {
    return milliseconds > 0 ? bus_bytes / milliseconds * 1e-6 : 0;
}

/* ---- one workload -------------------------------------------------------------------------- */

static pgr_status run_on(pgr_site *site, const pgr_spec *spec, pgr_workload workload,
                         pgr_result *result, pgr_error *error) {
    switch (workload) {
    case PGR_MLP:
        return pgr_mlp_run(site, spec, result, error);
    case PGR_ROUTER:
        return pgr_router_run(site, spec, result, error);
    case PGR_CONTEXT:
        return pgr_context_run(site, spec, result, error);
    default:
        return pgr_error_set(error, PGR_INTERNAL, "unknown workload %d", (int)workload);
    }
}

pgr_status pgr_workload_run(pgr_job *job, const pgr_spec *spec, const pgr_plan *plan,
                            const pgr_groups *groups, pgr_workload workload, pgr_result *result,
                            pgr_error *error) {
    pgr_site site = {
        .job = job,
        .plan = plan,
        .groups = groups,
        .device = job->device,
        .seed = (uint64_t)spec->run.seed,
    };
    pgr_result made = {
        .workload = pgr_workload_name(workload),
        .dtype = spec->model.dtype,
        .ranks = job->size,
        .device = job->device->kind,
        .comm = job->comm_ops ? job->comm_ops->name : job->bootstrap_ops->name,
    };
    pgr_status status = pgr_site_open(&site, error);
    job->device->ops->range_begin(job->device, made.workload);
    if (!status)
        status = run_on(&site, spec, workload, &made, error);
    job->device->ops->range_end(job->device);
    if (status)
        pgr_error_prefix(error, "workload \"%s\": ", made.workload);
    pgr_site_close(&site);
    if (!status)
        *result = made;
    return status;
}
