/* comm.c - opening the plan's groups with their identity check. No threads: everything is polled.
 */
#include "comm_identity.h"
#include "comm_request.h"
#include "deadline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the groups ---------------------------------------------------------------------------- */

typedef enum opening {
    OPENING_WORLD,  /* what the backend's communicators share */
    OPENING_NEXT,   /* the next family, if there is one */
    OPENING_COMM,   /* the backend's open_poll */
    OPENING_GATHER, /* the identities */
    OPENING_WHOLE,  /* the sum of integers */
    OPENING_SMALL,  /* the sum of floats */
    OPENING_DONE
} opening;

struct pgr_groups {
    pgr_groups *next; /* in given_up */
    pgr_job *job;
    pgr_plan plan;
    int64_t count;
    pgr_group *items;
    int64_t *opened_by; /* [count]: the item whose communicator this one uses, itself, or -1 */

    opening phase;
    int64_t at;               /* the item being opened */
    pgr_comm *comm;           /* its communicator, until it is identified */
    pgr_measure begun, first; /* when it was begun, and before its first collective */
    bool joining;
    pgr_setup world;
    pgr_request request;
    pgr_identity *sent, *identities; /* buffers of comm */
    pgr_exact_sums *sums;            /* a buffer of comm */
    pgr_stream *stream;              /* of a communicator that was given up */
};

/* Groups that were given up while an operation was under way: the backend may still write into
 * their buffers, so that they stay until the process ends. */
static pgr_groups *given_up;

/* Host memory and a buffer of a communicator: the same on a CPU, else by the device's copy. */
static pgr_status buffer_copy(const pgr_job *job, void *to, const void *from, int64_t bytes,
                              pgr_error *error) {
    pgr_device *device = job->device;
    if (!device || strcmp(device->kind, "cpu") == 0) {
        memcpy(to, from, (size_t)bytes);
        return PGR_OK;
    }
    pgr_status status = device->ops->copy(device, to, from, bytes, NULL, error);
    return status == PGR_OK ? device->ops->stream_sync(device, NULL, error) : status;
}

/* ---- which families, in which order --------------------------------------------------------- */

/* The place of a family among the default ones, or their number for any other. */
static int32_t default_place(const pgr_plan *plan, const pgr_family *family) {
    int32_t count = pgr_plan_family_count(plan);
    for (int32_t i = 0; i < count; i++) {
        pgr_family known = pgr_plan_family_at(plan, i);
        if (pgr_family_is(&known, family))
            return i;
    }
    return count;
}

/* Whether `a` comes before `b`: the default families first, in their order, then by name. */
static bool comes_before(const pgr_plan *plan, const pgr_family *a, const pgr_family *b) {
    int32_t place_a = default_place(plan, a), place_b = default_place(plan, b);
    return place_a != place_b ? place_a < place_b : strcmp(a->name, b->name) < 0;
}

/* Adds a family in its place; one that is there under another spelling stays one. */
static void groups_insert(pgr_groups *groups, const pgr_family *family) {
    for (int64_t i = 0; i < groups->count; i++)
        if (pgr_family_is(&groups->items[i].family, family))
            return;
    int64_t place = groups->count++;
    while (place > 0 && comes_before(&groups->plan, family, &groups->items[place - 1].family)) {
        groups->items[place] = groups->items[place - 1];
        place--;
    }
    groups->items[place] = (pgr_group){.family = *family, .setup = {.memory_bytes = PGR_NIL}};
}

/* What run.nccl has for the family, by any spelling of its name; NULL: nothing. */
static const pgr_nccl_options *nccl_options(const pgr_groups *groups, const pgr_family *family) {
    const pgr_job *job = groups->job;
    for (int64_t i = 0; i < job->nccl_count; i++) {
        pgr_family named;
        if (pgr_plan_family_find(&groups->plan, job->nccl[i].family, &named, NULL) == PGR_OK &&
            pgr_family_is(&named, family))
            return &job->nccl[i];
    }
    return NULL;
}

/* Whether two families can have one communicator as far as NCCL's options go. */
static bool same_options(const pgr_groups *groups, const pgr_family *a, const pgr_family *b) {
    static const pgr_nccl_options none = {
        .max_ctas = PGR_NIL, .cga_cluster_size = PGR_NIL, .traffic_class = PGR_NIL};
    const pgr_nccl_options *x = nccl_options(groups, a), *y = nccl_options(groups, b);
    const pgr_comm_ops *ops = groups->job->comm_ops;
    if (!ops || strcmp(ops->name, "nccl") != 0)
        return true;
    x = x ? x : &none;
    y = y ? y : &none;
    return x->max_ctas == y->max_ctas && x->cga_cluster_size == y->cga_cluster_size &&
           x->traffic_class == y->traffic_class && x->split_share == y->split_share &&
           x->high_priority == y->high_priority && strcmp(x->net_name, y->net_name) == 0;
}

/* This rank's place in each family, and who shares with whom: one collective per partition. Whether
 * a family is opened, and whose communicators it uses, is a matter of the family alone: a rank that
 * is in none of its groups must decide as the others do. */
static void groups_place(pgr_groups *groups) {
    for (int64_t i = 0; i < groups->count; i++) {
        pgr_group *group = &groups->items[i];
        bool opens = group->family.size > 1;
        group->index = pgr_family_group(&group->family, groups->job->rank);
        group->rank = pgr_family_rank(&group->family, groups->job->rank);
        group->size = group->index < 0 ? 0 : pgr_family_group_size(&group->family, group->index);
        groups->opened_by[i] = opens ? i : -1;
        for (int64_t j = 0; j < i && opens; j++) {
            if (groups->opened_by[j] == j &&
                pgr_family_same(&groups->items[j].family, &group->family) &&
                same_options(groups, &groups->items[j].family, &group->family)) {
                groups->opened_by[i] = j;
                group->shared_with = groups->items[j].family.name;
                break;
            }
        }
    }
}

static bool opens_any(const pgr_groups *groups) {
    for (int64_t i = 0; i < groups->count; i++)
        if (groups->opened_by[i] >= 0)
            return true;
    return false;
}

static void groups_free(pgr_groups *groups) {
    free(groups->opened_by);
    free(groups->items);
    free(groups);
}

/* "tp, dp, pp", cut where it is long. */
static void families_text(const pgr_groups *groups, char *text, size_t bytes) {
    size_t used = 0;
    text[0] = '\0';
    for (int64_t i = 0; i < groups->count; i++) {
        const char *name = groups->items[i].family.name, *between = i ? ", " : "";
        if (used + strlen(between) + strlen(name) + sizeof ", ..." > bytes) {
            snprintf(text + used, bytes - used, ", ...");
            return;
        }
        used += (size_t)snprintf(text + used, bytes - used, "%s%s", between, name);
    }
}

/* Two sets of groups would make every communicator twice. */
static pgr_status refuse_second(const pgr_groups *open, pgr_error *error) {
    char names[1024];
    families_text(open, names, sizeof names);
    return pgr_error_set(error, PGR_USAGE,
                         "the groups %s of this job are open already; close them first "
                         "(pgr_groups_close)",
                         names[0] ? names : "(of no family)");
}

pgr_status pgr_groups_open_begin(pgr_job *job, const pgr_plan *plan, const pgr_names *names,
                                 pgr_groups **groups, pgr_error *error) {
    if (job->groups)
        return refuse_second(job->groups, error);
    if (plan->world_size != job->size) {
        return pgr_error_set(error, PGR_USAGE, "the plan is for %lld ranks, the job has %lld",
                             (long long)plan->world_size, (long long)job->size);
    }
    pgr_groups *made = calloc(1, sizeof *made);
    pgr_status status = PGR_OK;
    if (!made)
        return pgr_error_set(error, PGR_LIMIT, "out of memory for groups");
    size_t room = names->count > 0 ? (size_t)names->count : 1;
    made->job = job;
    made->plan = *plan;
    made->items = calloc(room, sizeof *made->items);
    made->opened_by = calloc(room, sizeof *made->opened_by);
    if (!made->items || !made->opened_by)
        status = pgr_error_set(error, PGR_LIMIT, "out of memory for %zu groups", room);
    for (int64_t i = 0; i < names->count && status == PGR_OK; i++) {
        pgr_family family;
        status = pgr_plan_family_find(plan, names->items[i], &family, error);
        if (status == PGR_OK)
            groups_insert(made, &family);
    }
    if (status != PGR_OK) {
        groups_free(made);
        return status;
    }
    groups_place(made);
    job->groups = made;
    *groups = made;
    return PGR_OK;
}

/* ---- one family ---------------------------------------------------------------------------- */

/* "0, 2, 4, 6" or "0, 2, 4, ... 1022 (512 ranks)". */
static void members_text(const pgr_group *group, char *text, size_t bytes) {
    size_t used = 0;
    int64_t shown = group->size <= 16 ? group->size : 8;
    for (int64_t i = 0; i < shown && used < bytes; i++) {
        int64_t member = pgr_family_member(&group->family, group->index, i);
        used +=
            (size_t)snprintf(text + used, bytes - used, "%s%lld", i ? ", " : "", (long long)member);
    }
    if (shown < group->size && used < bytes) {
        int64_t last = pgr_family_member(&group->family, group->index, group->size - 1);
        snprintf(text + used, bytes - used, ", ... %lld: %lld ranks", (long long)last,
                 (long long)group->size);
    }
}

/* Whether this rank gets a communicator of the family: with others in its group. */
static bool has_others(const pgr_group *group) {
    return group->size > 1;
}

/* Moves on with what the communicators share, where any is going to be opened. */
static pgr_status world_step(pgr_groups *groups, bool *done, pgr_error *error) {
    pgr_job *job = groups->job;
    pgr_measure now;
    *done = !job->comm_ops || !job->comm_ops->join || !opens_any(groups);
    if (*done)
        return PGR_OK;
    pgr_status status = groups->joining ? PGR_OK : pgr_measure_take(job, &groups->begun, error);
    groups->joining = true;
    if (status == PGR_OK)
        status = job->comm_ops->join(job, done, error);
    if (status == PGR_OK && *done)
        status = pgr_measure_take(job, &now, error);
    if (status == PGR_OK && *done)
        groups->world = (pgr_setup){.open_seconds = now.clock - groups->begun.clock,
                                    .memory_bytes = pgr_measure_taken(&groups->begun, &now)};
    return status;
}

static pgr_status family_begin(pgr_groups *groups, pgr_error *error) {
    pgr_job *job = groups->job;
    pgr_group *group = &groups->items[groups->at];
    if (!job->comm_ops) {
        return pgr_error_set(error, PGR_INTERNAL, "family %s has %lld ranks and the job no backend",
                             group->family.name, (long long)group->family.size);
    }
    pgr_comm_open_args args = {
        .job = job,
        .family = group->family.name,
        .group = has_others(group) ? group->index : -1,
        .rank = has_others(group) ? group->rank : -1,
        .size = has_others(group) ? group->size : 0,
        .timeout = job->timeout,
        .nccl = nccl_options(groups, &group->family),
    };
    pgr_status status = pgr_measure_take(job, &groups->begun, error);
    if (status == PGR_OK)
        status = job->comm_ops->open_begin(&args, &groups->comm, error);
    if (status == PGR_OK && has_others(group))
        members_text(group, groups->comm->members, sizeof groups->comm->members);
    return status;
}

/* A communicator where the plan has one, of so many ranks: else identities would not fit, or be
 * waited for in vain. */
static pgr_status size_check(const pgr_groups *groups, pgr_error *error) {
    const pgr_group *group = &groups->items[groups->at];
    int64_t wanted = has_others(group) ? group->size : 0;
    if (groups->comm->size == wanted)
        return PGR_OK;
    return pgr_error_set(error, PGR_BACKEND,
                         "family %s: the communicator of world rank %lld has %lld ranks where the "
                         "plan has %lld (0: it shares no group)",
                         group->family.name, (long long)groups->job->rank,
                         (long long)groups->comm->size, (long long)wanted);
}

/* The ranks that are in no group of the family were at its opening, and have nothing to do with
 * what follows. */
static void family_leave(pgr_groups *groups) {
    groups->comm->ops->abort(groups->comm);
    groups->comm = NULL;
    groups->at++;
}

static pgr_status stream_open(pgr_comm *comm, pgr_error *error) {
    pgr_device *device = comm->job->device;
    return device ? device->ops->stream_create(device, comm->priority, &comm->stream, error)
                  : PGR_OK;
}

static void stream_close(pgr_comm *comm) {
    pgr_device *device = comm->job->device;
    if (device && comm->stream)
        device->ops->stream_free(device, comm->stream);
    comm->stream = NULL;
}

static pgr_status gather_begin(pgr_groups *groups, pgr_error *error) {
    pgr_comm *comm = groups->comm;
    const pgr_job *job = groups->job;
    const pgr_comm_ops *ops = comm->ops;
    pgr_identity own;
    pgr_identity_fill(job, &groups->plan, &own);
    int64_t bytes = (int64_t)sizeof own, size = groups->items[groups->at].size;
    if (comm->priority == 0)
        comm->priority = 1; /* above computation */
    pgr_status status = stream_open(comm, error);
    if (status == PGR_OK)
        status = ops->buffer_alloc(comm, bytes, (void **)&groups->sent, error);
    if (status == PGR_OK)
        status = ops->buffer_alloc(comm, size * bytes, (void **)&groups->identities, error);
    if (status == PGR_OK) {
        status =
            ops->buffer_alloc(comm, (int64_t)sizeof(pgr_exact_sums), (void **)&groups->sums, error);
    }
    if (status == PGR_OK)
        status = buffer_copy(job, groups->sent, &own, bytes, error);
    if (status == PGR_OK)
        status = pgr_measure_take(job, &groups->first, error);
    if (status == PGR_OK) {
        status = ops->all_gather(comm, groups->sent, groups->identities, bytes, PGR_U8,
                                 comm->stream, &groups->request, error);
    }
    return status;
}

static pgr_status gather_end(pgr_groups *groups, pgr_error *error) {
    const pgr_group *group = &groups->items[groups->at];
    pgr_status status = PGR_OK;
    for (int64_t place = 0; place < group->size && status == PGR_OK; place++) {
        pgr_identity found;
        status = buffer_copy(groups->job, &found, &groups->identities[place], (int64_t)sizeof found,
                             error);
        if (status == PGR_OK)
            status = pgr_identity_check(&groups->plan, group, place, &found, error);
    }
    return status;
}

static pgr_status sums_begin(pgr_groups *groups, bool whole, pgr_error *error) {
    pgr_comm *comm = groups->comm;
    if (whole) {
        pgr_exact_sums own = pgr_exact_sums_of(groups->job->rank);
        pgr_status status =
            buffer_copy(groups->job, groups->sums, &own, (int64_t)sizeof own, error);
        return status != PGR_OK
                   ? status
                   : comm->ops->all_reduce(comm, groups->sums->whole, groups->sums->whole, 2,
                                           PGR_I64, PGR_SUM, comm->stream, &groups->request, error);
    }
    return comm->ops->all_reduce(comm, groups->sums->small, groups->sums->small, 4, PGR_F32,
                                 PGR_SUM, comm->stream, &groups->request, error);
}

static pgr_status sums_end(pgr_groups *groups, pgr_error *error) {
    pgr_exact_sums found;
    pgr_status status =
        buffer_copy(groups->job, &found, groups->sums, (int64_t)sizeof found, error);
    return status == PGR_OK ? pgr_exact_sums_check(&groups->items[groups->at], &found, error)
                            : status;
}

static void buffers_free(pgr_groups *groups) {
    if (!groups->comm)
        return;
    void *buffers[] = {groups->sent, groups->identities, groups->sums};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (buffers[i])
            groups->comm->ops->buffer_free(groups->comm, buffers[i]);
    groups->sent = groups->identities = NULL;
    groups->sums = NULL;
}

/* The communicator is open and identified: its family has it, and those that share it. */
static pgr_status family_end(pgr_groups *groups, pgr_error *error) {
    pgr_measure now;
    double done = pgr_clock_seconds();
    buffers_free(groups);
    pgr_status status = pgr_measure_take(groups->job, &now, error);
    if (status != PGR_OK)
        return status;
    for (int64_t i = groups->at; i < groups->count; i++)
        if (groups->opened_by[i] == groups->at)
            groups->items[i].comm = groups->comm;
    groups->items[groups->at].setup =
        (pgr_setup){.open_seconds = groups->first.clock - groups->begun.clock,
                    .first_seconds = done - groups->first.clock,
                    .memory_bytes = pgr_measure_taken(&groups->begun, &now)};
    groups->comm->identified = true;
    groups->comm = NULL;
    groups->at++;
    return PGR_OK;
}

/* ---- opening all --------------------------------------------------------------------------- */

static pgr_status request_test(pgr_groups *groups, bool *done, pgr_error *error) {
    pgr_status status = groups->comm->ops->test(&groups->request, done, error);
    if (status != PGR_OK) {
        char text[512];
        pgr_request_text(&groups->request, text, sizeof text);
        pgr_error_prefix(error, "opening: %s: ", text);
    }
    return status;
}

/* Moves on by one step; *moved is false where something has to be waited for. */
static pgr_status open_step(pgr_groups *groups, bool *moved, pgr_error *error) {
    bool done = true;
    pgr_status status = PGR_OK;
    *moved = false;
    switch (groups->phase) {
    case OPENING_WORLD:
        status = world_step(groups, &done, error);
        break;
    case OPENING_NEXT:
        while (groups->at < groups->count && groups->opened_by[groups->at] != groups->at)
            groups->at++;
        if (groups->at == groups->count) {
            groups->phase = OPENING_DONE;
            return PGR_OK;
        }
        status = family_begin(groups, error);
        break;
    case OPENING_COMM:
        status = groups->comm->ops->open_poll(groups->comm, &done, error);
        if (status == PGR_OK && done)
            status = size_check(groups, error);
        if (status == PGR_OK && done && !has_others(&groups->items[groups->at])) {
            family_leave(groups);
            groups->phase = OPENING_NEXT;
            *moved = true;
            return PGR_OK;
        }
        if (status == PGR_OK && done)
            status = gather_begin(groups, error);
        break;
    case OPENING_GATHER:
        status = request_test(groups, &done, error);
        if (status == PGR_OK && done)
            status = gather_end(groups, error);
        if (status == PGR_OK && done)
            status = sums_begin(groups, true, error);
        break;
    case OPENING_WHOLE:
        status = request_test(groups, &done, error);
        if (status == PGR_OK && done)
            status = sums_begin(groups, false, error);
        break;
    case OPENING_SMALL:
        status = request_test(groups, &done, error);
        if (status == PGR_OK && done)
            status = sums_end(groups, error);
        if (status == PGR_OK && done)
            status = family_end(groups, error);
        break;
    case OPENING_DONE:
        return PGR_OK;
    }
    *moved = status == PGR_OK && done;
    if (*moved)
        groups->phase = groups->phase == OPENING_SMALL ? OPENING_NEXT : groups->phase + 1;
    return status;
}

pgr_status pgr_groups_open_poll(pgr_groups *groups, bool *done, pgr_error *error) {
    bool moved = true;
    pgr_status status = PGR_OK;
    while (status == PGR_OK && moved)
        status = open_step(groups, &moved, error);
    *done = groups->phase == OPENING_DONE;
    return status;
}

static pgr_status open_timeout(const pgr_groups *groups, pgr_error *error) {
    const pgr_group *group = &groups->items[groups->at];
    char where[256];
    if (groups->phase == OPENING_WORLD)
        return pgr_error_set(error, PGR_TIMEOUT,
                             "opening the communicator of the world (%lld ranks): world rank %lld "
                             "waited %g seconds without progress; another rank did not take part "
                             "(a larger run.init_timeout waits longer)",
                             (long long)groups->job->size, (long long)groups->job->rank,
                             groups->job->init_timeout);
    if (has_others(group))
        snprintf(where, sizeof where, "group %lld (world ranks %s)", (long long)group->index,
                 groups->comm ? groups->comm->members : "unknown");
    else
        snprintf(where, sizeof where, "of which this rank shares no group");
    static const char *const phases[] = {"the world before it",
                                         "before it",
                                         "creating the communicator",
                                         "exchanging identities",
                                         "its first all-reduce of i64",
                                         "its first all-reduce of f32",
                                         "after it"};
    return pgr_error_set(
        error, PGR_TIMEOUT,
        "opening family %s, %s: world rank %lld waited %g seconds without progress in %s; another "
        "rank did not take part (a larger run.init_timeout waits longer)",
        group->family.name, where, (long long)groups->job->rank, groups->job->init_timeout,
        phases[groups->phase]);
}

pgr_status pgr_groups_open_finish(pgr_groups *groups, pgr_error *error) {
    pgr_deadline deadline = pgr_deadline_start(groups->job->init_timeout);
    int64_t rounds = 0;
    bool done = false;
    for (;;) {
        opening phase = groups->phase;
        int64_t at = groups->at;
        pgr_status status = pgr_groups_open_poll(groups, &done, error);
        if (status != PGR_OK || done)
            return status;
        if (phase != groups->phase || at != groups->at) {
            deadline = pgr_deadline_start(groups->job->init_timeout);
            rounds = 0;
        } else if (pgr_deadline_passed(&deadline)) {
            pgr_status late = open_timeout(groups, error);
            if (groups->job->comm_ops->leave)
                groups->job->comm_ops->leave(groups->job, true, NULL);
            return late;
        }
        if (groups->phase == OPENING_COMM ||
            groups->phase == OPENING_WORLD) /* MPI's split runs in a thread of its own */
            pgr_wait_step_asleep(&rounds);
        else
            pgr_wait_step(&rounds, 0);
    }
}

void pgr_groups_abort(pgr_groups *groups) {
    if (!groups)
        return;
    bool under_way = groups->comm && groups->request.state;
    pgr_job *job = groups->job;
    job->groups = NULL;
    if (job->comm_ops && job->comm_ops->leave)
        job->comm_ops->leave(job, true, NULL);
    if (groups->comm) {
        groups->stream = groups->comm->stream;
        if (!under_way) {
            buffers_free(groups);
            stream_close(groups->comm);
        }
        groups->comm->ops->abort(groups->comm);
    }
    for (int64_t i = 0; i < groups->count; i++) {
        pgr_group *group = &groups->items[i];
        if (group->comm && groups->opened_by[i] == i) {
            stream_close(group->comm);
            group->comm->ops->abort(group->comm);
        }
    }
    if (under_way) {
        groups->next = given_up;
        given_up = groups;
        return;
    }
    groups_free(groups);
}

pgr_status pgr_groups_close(pgr_groups *groups, pgr_error *error) {
    pgr_status first = PGR_OK;
    if (!groups)
        return PGR_OK;
    if (groups->phase != OPENING_DONE) {
        pgr_groups_abort(groups);
        return pgr_error_set(error, PGR_INTERNAL, "groups closed before they were open");
    }
    for (int64_t i = 0; i < groups->count; i++) {
        pgr_group *group = &groups->items[i];
        if (group->comm && groups->opened_by[i] == i) {
            stream_close(group->comm);
            pgr_status status = group->comm->ops->close(group->comm, first ? NULL : error);
            first = first ? first : status;
        }
    }
    pgr_job *job = groups->job;
    if (job->comm_ops && job->comm_ops->leave) {
        pgr_status status = job->comm_ops->leave(job, first != PGR_OK, first ? NULL : error);
        first = first ? first : status;
    }
    job->groups = NULL;
    groups_free(groups);
    return first;
}

int64_t pgr_groups_count(const pgr_groups *groups) {
    return groups->count;
}

const pgr_group *pgr_groups_at(const pgr_groups *groups, int64_t index) {
    return index >= 0 && index < groups->count ? &groups->items[index] : NULL;
}

const pgr_setup *pgr_groups_world(const pgr_groups *groups) {
    return groups->world.open_seconds > 0 ? &groups->world : NULL;
}

const pgr_group *pgr_groups_find(const pgr_groups *groups, const char *family) {
    pgr_family found;
    if (pgr_plan_family_find(&groups->plan, family, &found, NULL) != PGR_OK)
        return NULL;
    for (int64_t i = 0; i < groups->count; i++)
        if (pgr_family_is(&groups->items[i].family, &found))
            return &groups->items[i];
    return NULL;
}
