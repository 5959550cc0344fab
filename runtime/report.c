/* report.c - the table for people and rows.jsonl for programs. */
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct pgr_report {
    FILE *text;
    char path[1024]; /* of rows.jsonl; "" without a folder */
    int rows;        /* its descriptor, or -1 */
    int results, failed;
    bool header_done;
};

/* ---- text ---------------------------------------------------------------------------------- */

static void say(const pgr_report *report, const char *format, ...) PGR_PRINTF(2, 3);

static void say(const pgr_report *report, const char *format, ...) {
    if (!report->text)
        return;
    va_list args;
    va_start(args, format);
    vfprintf(report->text, format, args);
    va_end(args);
}

/* ---- JSON lines ---------------------------------------------------------------------------- */

/* One row under construction; too long is an internal error that finish_row reports. */
typedef struct row {
    char text[8192];
    size_t used;
    bool overflow;
} row;

static void put(row *line, const char *format, ...) PGR_PRINTF(2, 3);

static void put(row *line, const char *format, ...) {
    size_t room = sizeof line->text - line->used;
    va_list args;
    va_start(args, format);
    int wrote = vsnprintf(line->text + line->used, room, format, args);
    va_end(args);
    line->overflow = line->overflow || wrote < 0 || (size_t)wrote >= room;
    if (!line->overflow)
        line->used += (size_t)wrote;
}

static void put_string(row *line, const char *name, const char *value) {
    put(line, "\"%s\": \"", name);
    for (const unsigned char *c = (const unsigned char *)value; *c; c++)
        if (*c == '"' || *c == '\\')
            put(line, "\\%c", *c);
        else if (*c < 0x20)
            put(line, "\\u%04x", *c);
        else
            put(line, "%c", *c);
    put(line, "\"");
}

/* JSON has no infinity and no NaN: they become null. */
static void put_number(row *line, const char *name, double value) {
    if (isfinite(value))
        put(line, "\"%s\": %.6g", name, value);
    else
        put(line, "\"%s\": null", name);
}

static void put_times(row *line, const char *name, const pgr_times *times) {
    put(line, "\"%s\": {", name);
    put_number(line, "min", times->min);
    put(line, ", ");
    put_number(line, "median", times->median);
    put(line, ", ");
    put_number(line, "p95", times->p95);
    put(line, ", \"iterations\": %lld}", (long long)times->iterations);
}

/* One write for the whole line, so that the file is complete up to the last result at any time. */
static pgr_status finish_row(pgr_report *report, row *line, pgr_error *error) {
    if (report->rows < 0)
        return PGR_OK;
    put(line, "}\n");
    if (line->overflow)
        return pgr_error_set(error, PGR_INTERNAL, "a row of %s is too long", report->path);
    size_t done = 0;
    while (done < line->used) {
        ssize_t wrote = write(report->rows, line->text + done, line->used - done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0)
            return pgr_error_set(error, PGR_SYSTEM, "cannot write %s: %s", report->path,
                                 strerror(errno));
        done += (size_t)wrote;
    }
    return PGR_OK;
}

/* ---- opening ------------------------------------------------------------------------------- */

/* mkdir -p */
static int make_folder(const char *directory) {
    char path[1024];
    snprintf(path, sizeof path, "%s", directory);
    for (char *at = path + 1; *at; at++) {
        if (*at != '/')
            continue;
        *at = 0;
        if (mkdir(path, 0777) && errno != EEXIST)
            return -1;
        *at = '/';
    }
    return mkdir(path, 0777) && errno != EEXIST ? -1 : 0;
}

static pgr_status open_rows(pgr_report *report, const char *directory, pgr_error *error) {
    if (strlen(directory) + sizeof "/rows.jsonl" > sizeof report->path)
        return pgr_error_set(error, PGR_SYSTEM, "--report: the folder's name is too long");
    if (make_folder(directory))
        return pgr_error_set(error, PGR_SYSTEM, "--report %s: cannot make the folder: %s",
                             directory, strerror(errno));
    snprintf(report->path, sizeof report->path, "%s/rows.jsonl", directory);
    report->rows = open(report->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0666);
    if (report->rows < 0)
        return pgr_error_set(error, PGR_SYSTEM, "--report %s: cannot write %s: %s", directory,
                             report->path, strerror(errno));
    return PGR_OK;
}

pgr_status pgr_report_open(FILE *text, const char *directory, pgr_report **report,
                           pgr_error *error) {
    pgr_report *made = calloc(1, sizeof *made);
    if (!made)
        return pgr_error_set(error, PGR_LIMIT, "no memory for the report");
    made->text = text;
    made->rows = -1;
    pgr_status status = directory ? open_rows(made, directory, error) : PGR_OK;
    if (status) {
        free(made);
        return status;
    }
    *report = made;
    return PGR_OK;
}

/* ---- what was declared --------------------------------------------------------------------- */

static void say_view(const pgr_report *report, const pgr_view *view) {
    say(report, "%s", view->name);
    for (int32_t i = 0; i < view->axis_count; i++)
        say(report, "%s %s %lld", i ? " x" : "", view->axes[i].name, (long long)view->axes[i].size);
}

/* What a layout has and no workload uses, so that nobody takes the times for those of a whole
 * model.
 */
static void say_notes(const pgr_report *report, const pgr_spec *spec, const pgr_plan *plan) {
    static const char *const known[] = {"tp", "cp", "dp", "pp", "etp", "ep", "edp"};
    if (pgr_plan_axis_size(plan, "ep") > 1 || pgr_plan_axis_size(plan, "pp") > 1)
        say(report,
            "#  note      nothing runs over ep and pp yet: expert layers and pipelines come "
            "later\n");
    if (spec->parallel.tp_comm_overlap &&
        (!spec->parallel.sequence_parallel || pgr_plan_axis_size(plan, "tp") == 1))
        say(report, "#  note      tp_comm_overlap overlaps nothing without sequence_parallel and "
                    "tp > 1\n");
    const pgr_view *grid = &plan->views[PGR_VIEW_DENSE];
    for (int32_t i = 0; i < grid->axis_count; i++) {
        bool used = grid->axes[i].size == 1;
        for (size_t k = 0; k < sizeof known / sizeof known[0]; k++)
            used = used || strcmp(grid->axes[i].name, known[k]) == 0;
        if (!used)
            say(report, "#  note      ranks along %s hold copies: workloads use tp, cp and dp\n",
                grid->axes[i].name);
    }
}

static void say_model(const pgr_report *report, const pgr_spec *spec, const pgr_plan *plan) {
    const char *separator = "";
    const char *activation = spec->model.activation == PGR_SWIGLU ? "swiglu" : "gelu";
    int64_t packed = spec->padding.packed.count;
    struct {
        const char *name;
        int64_t value;
    } sizes[] = {{"hidden", spec->model.hidden},
                 {"ffn", spec->model.ffn},
                 {"experts", spec->moe.experts},
                 {"seq_len", packed ? PGR_NIL : spec->model.seq_len}};
    say(report, "#  model     ");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (sizes[i].value == PGR_NIL)
            continue;
        say(report, "%s%s %lld", separator, sizes[i].name, (long long)sizes[i].value);
        separator = ", ";
    }
    pgr_tokens tokens;
    if ((packed || spec->model.seq_len != PGR_NIL) &&
        !pgr_tokens_create(spec, plan, 0, true, &tokens, NULL)) {
        if (packed)
            say(report, "%s%lld packed sequence%s of %lld tokens", separator, (long long)packed,
                packed == 1 ? "" : "s", (long long)tokens.seq_len);
        separator = packed ? ", " : separator;
        if (tokens.padded != tokens.seq_len)
            say(report, " padded to %lld", (long long)tokens.padded);
    }
    say(report, "%smicro batch %lld, %s, %s%s\n", separator, (long long)spec->model.micro_batch,
        activation, pgr_dtype_name(spec->model.dtype),
        spec->parallel.sequence_parallel ? ", sequence parallel" : "");
}

/* Which router runs: "top 8 of 256, sigmoid with bias, best 4 of 8 groups, scaling 2.5, aux_loss";
 * "" where none does. */
static void describe_router(const pgr_spec *spec, char *text, size_t bytes) {
    static const char *const scores[] = {"softmax", "sigmoid", "sqrtsoftplus"};
    static const char *const losses[] = {"aux_loss", "seq_aux_loss", "global_aux_loss", "no loss"};
    char groups[64] = "", scaling[40] = "", capacity[64] = "";
    bool runs = false, softmax = spec->moe.score == PGR_SOFTMAX;
    for (int64_t i = 0; i < spec->run.workloads.count; i++)
        runs = runs || spec->run.workloads.items[i] == PGR_ROUTER;
    text[0] = '\0';
    if (!runs)
        return;
    if (spec->moe.groups != PGR_NIL && spec->moe.group_topk != PGR_NIL)
        snprintf(groups, sizeof groups, ", best %lld of %lld groups",
                 (long long)spec->moe.group_topk, (long long)spec->moe.groups);
    if (!isnan(spec->moe.scaling))
        snprintf(scaling, sizeof scaling, ", scaling %g", spec->moe.scaling);
    if (!isnan(spec->moe.capacity_factor))
        snprintf(capacity, sizeof capacity, ", capacity %g by %s", spec->moe.capacity_factor,
                 spec->moe.drop_policy == PGR_DROP_PROBS ? "probs" : "position");
    snprintf(text, bytes, "top %lld of %lld, %s%s%s%s%s, %s", (long long)spec->moe.topk,
             (long long)spec->moe.experts, scores[spec->moe.score],
             softmax ? (spec->moe.pre_softmax ? " before top-k" : " after top-k")
                     : (spec->moe.expert_bias ? " with bias" : ""),
             groups, scaling, capacity, losses[spec->moe.aux_loss_type]);
}

static bool is_earlier_axis(const pgr_plan *plan, int32_t view, const char *name) {
    for (int32_t before = 0; before < view; before++)
        for (int32_t i = 0; i < plan->views[before].axis_count; i++)
            if (strcmp(plan->views[before].axes[i].name, name) == 0)
                return true;
    return false;
}

/* Every axis once: one that several views name is the same ranks in each. */
static void put_axes(row *line, const pgr_plan *plan) {
    const char *separator = "";
    for (int32_t view = 0; view < plan->view_count; view++) {
        for (int32_t i = 0; i < plan->views[view].axis_count; i++) {
            const pgr_axis *axis = &plan->views[view].axes[i];
            if (is_earlier_axis(plan, view, axis->name))
                continue;
            put(line, "%s\"%s\": %lld", separator, axis->name, (long long)axis->size);
            separator = ", ";
        }
    }
}

pgr_status pgr_report_layout(pgr_report *report, const char *config, const pgr_job *job,
                             const pgr_spec *spec, const pgr_plan *plan, pgr_error *error) {
    say(report, "# pgrun %s\n", config);
    say(report, "#  ranks     %lld on %d host%s, %s, %s\n", (long long)job->size, job->host_count,
        job->host_count == 1 ? "" : "s", job->device->name, job->comm_name);
    for (int32_t i = 0; i < plan->view_count; i++) {
        say(report, "#  layout    ");
        say_view(report, &plan->views[i]);
        say(report, "\n");
    }
    say_model(report, spec, plan);
    char router[256];
    describe_router(spec, router, sizeof router);
    if (router[0])
        say(report, "#  router    %s\n", router);
    if (job->device_note[0])
        say(report, "#  note      run.device = \"auto\" is the CPU: %s\n", job->device_note);
    if (job->comm_note[0])
        say(report, "#  note      run.comm = \"auto\" is MPI: %s\n", job->comm_note);
    say_notes(report, spec, plan);
    say(report, "#\n");
    row line = {.used = 0};
    put(&line, "{");
    put_string(&line, "workload", "layout");
    put(&line, ", ");
    put_string(&line, "config", config);
    put(&line, ", \"ranks\": %lld, \"hosts\": %d, ", (long long)job->size, job->host_count);
    put_string(&line, "device", job->device->name);
    put(&line, ", ");
    put_string(&line, "comm", job->comm_name);
    put(&line, ", \"axes\": {");
    put_axes(&line, plan);
    put(&line, "}");
    if (router[0]) {
        put(&line, ", ");
        put_string(&line, "router", router);
    }
    return finish_row(report, &line, error);
}

/* ---- which groups this gave ---------------------------------------------------------------- */

static void say_members(const pgr_report *report, const pgr_group *group) {
    enum { SHOWN = 12 };
    if (group->index < 0)
        say(report, "rank 0 is in no group");
    for (int64_t i = 0; i < group->size && i < SHOWN; i++)
        say(report, "%s%lld", i ? " " : "",
            (long long)pgr_family_member(&group->family, group->index, i));
    if (group->size > SHOWN)
        say(report, " ... (%lld)", (long long)group->size);
}

/* Of a family whose groups are not all alike, or do not have every rank. */
typedef struct uneven {
    int64_t last_size; /* of the last piece of each whole */
    int64_t in_none;   /* ranks of the world */
} uneven;

static uneven uneven_of(const pgr_family *family, int64_t ranks) {
    uneven made = {.last_size = pgr_family_group_size(family, family->count - 1)};
    int64_t wholes = family->count / family->pieces;
    made.in_none = ranks - wholes * ((family->pieces - 1) * family->size + made.last_size);
    return made;
}

static void say_uneven(const pgr_report *report, const pgr_group *group, const uneven *rest) {
    if (rest->last_size != group->family.size)
        say(report, "  (the last group has %lld)", (long long)rest->last_size);
    if (rest->in_none)
        say(report, "  (%lld ranks are in no group)", (long long)rest->in_none);
}

/* Milliseconds of opening and of the first collectives, MiB of memory; '-' for what there is not.
 */
static void say_setup(const pgr_report *report, const pgr_setup *setup) {
    const double seconds[] = {setup->open_seconds, setup->first_seconds};
    for (int i = 0; i < 2; i++)
        if (seconds[i] > 0)
            say(report, " %9.2f", 1e3 * seconds[i]);
        else
            say(report, " %9s", "-");
    if (setup->memory_bytes != PGR_NIL)
        say(report, " %7.1f  ", (double)setup->memory_bytes / 1048576);
    else
        say(report, " %7s  ", "-");
}

static void put_setup(row *line, const pgr_setup *setup) {
    put_number(line, "open_ms", 1e3 * setup->open_seconds);
    if (setup->first_seconds > 0) {
        put(line, ", ");
        put_number(line, "first_ms", 1e3 * setup->first_seconds);
    }
    if (setup->memory_bytes != PGR_NIL)
        put(line, ", \"memory_bytes\": %lld", (long long)setup->memory_bytes);
    else
        put(line, ", \"memory_bytes\": null");
}

static void say_group(const pgr_report *report, const pgr_group *group, int width,
                      const pgr_setup *setup, const uneven *rest) {
    static const pgr_setup none = {.memory_bytes = PGR_NIL};
    say(report, "   %-*s %5lld %7lld ", width, group->family.name, (long long)group->family.size,
        (long long)group->family.count);
    if (group->shared_with && group->family.size > 1)
        say(report, " %9s %9s %7s  ", "shared", "-", "-");
    else
        say_setup(report, group->family.size > 1 ? setup : &none);
    say_members(report, group);
    say_uneven(report, group, rest);
    if (group->shared_with)
        say(report, "  (the communicator of %s)", group->shared_with);
    say(report, "\n");
}

static pgr_status report_group(pgr_report *report, const pgr_job *job, const pgr_group *group,
                               int width, const pgr_setup *setup, pgr_error *error) {
    uneven rest = uneven_of(&group->family, job->size);
    say_group(report, group, width, setup, &rest);
    row line = {.used = 0};
    put(&line, "{");
    put_string(&line, "workload", "open");
    put(&line, ", ");
    put_string(&line, "group", group->family.name);
    put(&line, ", \"size\": %lld, \"groups\": %lld, \"ranks\": %lld, ",
        (long long)group->family.size, (long long)group->family.count, (long long)job->size);
    if (rest.last_size != group->family.size)
        put(&line, "\"last_size\": %lld, ", (long long)rest.last_size);
    if (rest.in_none)
        put(&line, "\"ranks_in_none\": %lld, ", (long long)rest.in_none);
    if (group->shared_with)
        put_string(&line, "shared_with", group->shared_with);
    else
        put_setup(&line, setup);
    return finish_row(report, &line, error);
}

/* What all communicators share is no family: a row of its own kind. */
static pgr_status report_world(pgr_report *report, const pgr_job *job, int width,
                               const pgr_setup *setup, pgr_error *error) {
    say(report, "   %-*s %5lld %7d ", width, "(all ranks)", (long long)job->size, 1);
    say_setup(report, setup);
    say(report, "shared by the communicators below\n");
    row line = {.used = 0};
    put(&line, "{");
    put_string(&line, "workload", "world");
    put(&line, ", ");
    put_string(&line, "comm", job->comm_name);
    put(&line, ", \"ranks\": %lld, ", (long long)job->size);
    put_setup(&line, setup);
    return finish_row(report, &line, error);
}

/* Of the column of families' names. */
static int name_width(const pgr_groups *groups) {
    int width = 14;
    for (int64_t i = 0; i < pgr_groups_count(groups); i++) {
        int length = (int)strlen(pgr_groups_at(groups, i)->family.name);
        width = length > width ? length : width;
    }
    return width;
}

pgr_status pgr_report_groups(pgr_report *report, const pgr_job *job, const pgr_groups *groups,
                             const pgr_setup *setups, pgr_error *error) {
    int width = name_width(groups);
    int64_t count = pgr_groups_count(groups);
    say(report, "#  %-*s %5s %7s %9s %9s %7s  %s\n", width, "family", "size", "groups", "open ms",
        "first ms", "MiB", "members of rank 0's group");
    pgr_status status = PGR_OK;
    if (pgr_groups_world(groups))
        status = report_world(report, job, width, &setups[count], error);
    for (int64_t i = 0; !status && i < count; i++)
        status = report_group(report, job, pgr_groups_at(groups, i), width, &setups[i], error);
    say(report, "#\n");
    if (report->text)
        fflush(report->text);
    return status;
}

/* ---- results ------------------------------------------------------------------------------- */

static void say_header(pgr_report *report) {
    if (report->header_done)
        return;
    report->header_done = true;
    say(report, "#  %-8s %-4s %-5s %-6s %8s %9s | %8s %8s %8s | %8s %8s | %-11s %8s | %s\n",
        "workload", "type", "group", "result", "error", "tolerance", "min ms", "median", "p95",
        "compute", "comm", "rate", "bus GB/s", "shape on a rank");
}

/* Milliseconds with as many decimals as they deserve in 8 columns. */
static void say_ms(const pgr_report *report, double ms) {
    say(report, " %8.*f", ms < 0.01 ? 5 : ms < 1 ? 4 : ms < 100 ? 3 : 1, ms);
}

static void say_error(const pgr_report *report, int width, double value) {
    if (value == 0)
        say(report, " %*s", width, "0");
    else
        say(report, " %*.1e", width, value);
}

static const pgr_rate *rate_named(const pgr_result *result, const char *name) {
    for (int i = 0; i < PGR_RATES_MAX && result->rates[i].name; i++)
        if (strcmp(result->rates[i].name, name) == 0)
            return &result->rates[i];
    return NULL;
}

/* The first rate is that of computation; the bus's is there where there was communication. */
static void say_rates(const pgr_report *report, const pgr_result *result) {
    const pgr_rate *bus = rate_named(result, "busbw_gb_per_s");
    say(report, " %-6.3g", result->rates[0].value);
    say(report, "%-5s", result->rates[0].unit);
    if (bus)
        say(report, " %8.3g |", bus->value);
    else
        say(report, " %8s |", "-");
}

static double plain_over_overlap(const pgr_result *result) {
    return result->time.median > 0 ? result->plain.median / result->time.median : 0;
}

static void say_result(const pgr_report *report, const pgr_result *result) {
    const pgr_verdict *verify = &result->verify;
    say(report, "   %-8s %-4s %-5s %-6s", result->workload,
        result->tf32 ? "tf32" : pgr_dtype_name(result->dtype), result->group,
        verify->ok ? "ok" : "FAILED");
    say_error(report, 8, verify->max_err);
    say_error(report, 9, verify->tolerance);
    say(report, " |");
    say_ms(report, result->time.min);
    say_ms(report, result->time.median);
    say_ms(report, result->time.p95);
    say(report, " |");
    say_ms(report, result->compute.median);
    if (rate_named(result, "busbw_gb_per_s") || result->communication.median >= 0.01)
        say_ms(report, result->communication.median);
    else
        say(report, " %8s", "-");
    say(report, " |");
    say_rates(report, result);
    for (int i = 0; i < PGR_SHAPES_MAX && result->shape[i].name; i++)
        say(report, "%s %s %lld", i ? "," : "", result->shape[i].name,
            (long long)result->shape[i].value);
    if (result->overlap_chunks)
        say(report, "; overlap in %lld chunks, plain order %.3g ms (%.2f times as long)",
            (long long)result->overlap_chunks, result->plain.median, plain_over_overlap(result));
    say(report, "\n");
    if (verify->ok)
        return;
    say(report, "#  FAILED: %s on rank %lld", verify->what, (long long)verify->rank);
    if (verify->row >= 0)
        say(report, ", row %lld", (long long)verify->row);
    if (verify->col >= 0)
        say(report, ", column %lld", (long long)verify->col);
    say(report, ": got %.9g, expected %.9g", verify->got, verify->want);
    if (verify->tolerance > 0)
        say(report, ", error %.3g over the tolerance %.3g\n", verify->max_err, verify->tolerance);
    else
        say(report, ", must be exact and %.0f are wrong\n", verify->max_err);
}

static void put_verdict(row *line, const char *name, const pgr_verdict *verify) {
    put(line, "\"%s\": {\"ok\": %s, \"checked\": %lld, ", name, verify->ok ? "true" : "false",
        (long long)verify->checked);
    put_number(line, "max_err", verify->max_err);
    put(line, ", ");
    put_number(line, "tolerance", verify->tolerance);
    put(line, ", ");
    put_string(line, "what", verify->what);
    put(line, ", \"rank\": %lld}", (long long)verify->rank);
}

static void put_overlap(row *line, const pgr_result *result) {
    put(line, ", \"overlap\": {\"chunks\": %lld, ", (long long)result->overlap_chunks);
    put_verdict(line, "verify", &result->overlap);
    put(line, ", ");
    put_times(line, "plain_ms", &result->plain);
    put(line, ", ");
    put_number(line, "plain_over_overlap", plain_over_overlap(result));
    put(line, "}");
}

pgr_status pgr_report_result(pgr_report *report, const pgr_result *result, pgr_error *error) {
    const pgr_verdict *verify = &result->verify;
    say_header(report);
    say_result(report, result);
    if (report->text)
        fflush(report->text);
    report->results++;
    report->failed += !verify->ok;

    row line = {.used = 0};
    put(&line, "{");
    put_string(&line, "workload", result->workload);
    put(&line, ", \"shape\": {");
    for (int i = 0; i < PGR_SHAPES_MAX && result->shape[i].name; i++)
        put(&line, "%s\"%s\": %lld", i ? ", " : "", result->shape[i].name,
            (long long)result->shape[i].value);
    put(&line, "}, ");
    put_string(&line, "dtype", pgr_dtype_name(result->dtype));
    put(&line, ", \"ranks\": %lld, ", (long long)result->ranks);
    put_string(&line, "group", result->group);
    put(&line, ", ");
    put_string(&line, "device", result->device);
    put(&line, ", ");
    put_string(&line, "comm", result->comm);
    put(&line, ", \"tf32\": %s, ", result->tf32 ? "true" : "false");
    put_verdict(&line, "verify", verify);
    put(&line, ", ");
    put_times(&line, "time_ms", &result->time);
    put(&line, ", ");
    put_times(&line, "compute_ms", &result->compute);
    put(&line, ", ");
    put_times(&line, "communication_ms", &result->communication);
    for (int i = 0; i < PGR_RATES_MAX && result->rates[i].name; i++) {
        put(&line, ", ");
        put_number(&line, result->rates[i].name, result->rates[i].value);
    }
    if (result->overlap_chunks)
        put_overlap(&line, result);
    return finish_row(report, &line, error);
}

pgr_status pgr_report_close(pgr_report *report, pgr_error *error) {
    if (!report)
        return PGR_OK;
    pgr_status status = PGR_OK;
    if (report->failed)
        say(report, "# FAILED: %d of %d workload%s\n", report->failed, report->results,
            report->results == 1 ? "" : "s");
    else
        say(report, "# %d workload%s verified\n", report->results, report->results == 1 ? "" : "s");
    if (report->text)
        fflush(report->text);
    if (report->rows >= 0 && close(report->rows))
        status =
            pgr_error_set(error, PGR_SYSTEM, "cannot write %s: %s", report->path, strerror(errno));
    free(report);
    return status;
}
