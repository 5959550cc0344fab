/* comm_test_groups.c - the plan's groups, opened: who shares with whom, ranks in no group, groups
 * of unequal size, random layouts, a second opening, and what the identity check catches. */
#include "comm_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FAMILIES_MAX = 48 };

/* ---- plans and groups ---------------------------------------------------------------------- */

pgr_plan plan_of(int64_t tp, int64_t cp) {
    pgr_spec spec;
    pgr_plan plan = {0};
    pgr_spec_init(&spec);
    spec.parallel.tp = tp;
    spec.parallel.cp = cp;
    CHECK_OK(pgr_plan_create(&spec, job->size, &plan, &error));
    pgr_spec_free(&spec);
    return plan;
}

/* A pipeline of `pp` stages, with hybrid groups of what is left where that is even. */
static pgr_plan pipeline_of(int64_t pp, int64_t pp_split) {
    pgr_spec spec;
    pgr_plan plan = {0};
    pgr_spec_init(&spec);
    spec.parallel.pp = pp;
    spec.parallel.pp_split = pp_split;
    spec.parallel.hybrid_cp = job->size / pp % 2 == 0;
    CHECK_OK(pgr_plan_create(&spec, job->size, &plan, &error));
    pgr_spec_free(&spec);
    return plan;
}

pgr_groups *groups_open(const pgr_plan *plan, const char *const *families, int64_t count) {
    char items[FAMILIES_MAX][PGR_NAME_MAX];
    pgr_names names = {.count = count, .items = items};
    pgr_groups *groups = NULL;
    for (int64_t i = 0; i < count; i++)
        snprintf(items[i], PGR_NAME_MAX, "%s", families[i]);
    CHECK_OK(pgr_groups_open_begin(job, plan, &names, &groups, &error));
    if (groups)
        CHECK_OK(pgr_groups_open_finish(groups, &error));
    return groups;
}

/* ---- sharing ------------------------------------------------------------------------------- */

static void test_sharing(void) {
    static const char *const families[] = {"cp-tp", "dp", "tp", "dp-cp", "cp", "tp-cp"};
    pgr_plan plan = plan_of(job->size % 2 ? 1 : 2, 1);
    pgr_groups *groups = groups_open(&plan, families, 6);
    if (groups) {
        const pgr_group *tp = pgr_groups_find(groups, "tp"), *dp = pgr_groups_find(groups, "dp");
        const pgr_group *cp = pgr_groups_find(groups, "cp");
        const pgr_group *dp_cp = pgr_groups_find(groups, "cp-dp");
        const pgr_group *tp_cp = pgr_groups_find(groups, "tp-cp");
        CHECK(pgr_groups_count(groups) == 5, "%d groups", (int)pgr_groups_count(groups));
        CHECK(tp && dp && cp && dp_cp && tp_cp, "not all found");
        CHECK(!pgr_groups_find(groups, "pp") && !pgr_groups_find(groups, "nonesuch"), "found");
        CHECK(cp && cp->size == 1 && !cp->comm && !cp->shared_with, "a group of one is open");
        CHECK(tp && tp->size == (job->size % 2 ? 1 : 2), "tp");
        CHECK(tp && !tp->comm == (job->size % 2 == 1), "tp's communicator");
        CHECK(tp && tp_cp && tp->comm == tp_cp->comm, "tp and tp-cp are one partition");
        CHECK(dp && dp_cp && dp->comm == dp_cp->comm, "dp and dp-cp are one partition");
        CHECK(tp && dp && (!tp->comm || tp->comm != dp->comm), "tp and dp are not");
        if (job->size >= 4 && job->size % 2 == 0) {
            CHECK(tp_cp->shared_with && strcmp(tp_cp->shared_with, "tp") == 0, "tp-cp shares tp");
            CHECK(tp->setup.open_seconds > 0 && tp->setup.first_seconds > 0 &&
                      tp_cp->setup.open_seconds == 0 && tp_cp->setup.first_seconds == 0,
                  "what opening took");
            CHECK(tp->setup.memory_bytes == PGR_NIL && !pgr_groups_world(groups), "memory");
            CHECK(tp->index == job->rank / 2 && tp->rank == job->rank % 2, "place in tp");
            /* the default families come in plan order, then the others */
            const pgr_group *last = pgr_groups_at(groups, 4);
            CHECK(last && last == tp_cp, "%s is last", last ? last->family.name : "nothing");
        }
        if (tp && tp->comm)
            test_collectives(tp->comm, "tp");
        if (dp && job->size >= 4)
            test_collectives(dp->comm, "dp");
        CHECK_OK(pgr_groups_close(groups, &error));
    }
    case_end("families share communicators");
}

static void test_refusals(void) {
    char items[1][PGR_NAME_MAX] = {"tp-nonesuch"};
    pgr_names names = {.count = 1, .items = items};
    pgr_groups *groups = NULL;
    pgr_plan plan = plan_of(1, 1);
    CHECK(pgr_groups_open_begin(job, &plan, &names, &groups, &error) == PGR_INVALID && !groups,
          "an unknown family");
    names.count = 0;
    CHECK_OK(pgr_groups_open_begin(job, &plan, &names, &groups, &error));
    CHECK_OK(pgr_groups_open_finish(groups, &error));
    CHECK(pgr_groups_count(groups) == 0, "no families");
    CHECK_OK(pgr_groups_close(groups, &error));
    plan.world_size++;
    CHECK(pgr_groups_open_begin(job, &plan, &names, &groups, &error) == PGR_USAGE, "a larger plan");
    case_end("groups that cannot be");
}

/* ---- opening twice ------------------------------------------------------------------------- */

/* Rank 0 alone tries: it is told at once, so that nothing was said to the others. */
static void refuse_second(const pgr_plan *plan, const char *want) {
    char items[1][PGR_NAME_MAX] = {"pp"};
    pgr_names names = {.count = 1, .items = items};
    pgr_groups *groups = NULL;
    if (job->rank != 0)
        return;
    CHECK(pgr_groups_open_begin(job, plan, &names, &groups, &error) == PGR_USAGE && !groups,
          "opened twice");
    CHECK(strcmp(error.message, want) == 0, "%s", error.message);
}

static void test_twice(void) {
    static const char *const families[] = {"pp", "dp", "tp-dp", "tp"};
    static const char *const told = "the groups tp, dp, pp, tp-dp of this job are open already; "
                                    "close them first (pgr_groups_close)";
    pgr_plan plan = plan_of(1, 1);
    char items[4][PGR_NAME_MAX];
    pgr_names names = {.count = 4, .items = items};
    pgr_groups *groups;
    for (int i = 0; i < 4; i++)
        snprintf(items[i], PGR_NAME_MAX, "%s", families[i]);
    for (int round = 0; round < 2; round++) { /* closed, it can be opened again */
        CHECK_OK(pgr_groups_open_begin(job, &plan, &names, &groups, &error));
        refuse_second(&plan, told); /* from the beginning on */
        CHECK_OK(pgr_groups_open_finish(groups, &error));
        refuse_second(&plan, told);
        CHECK_OK(pgr_groups_close(groups, &error));
    }
    CHECK_OK(pgr_groups_open_begin(job, &plan, &names, &groups, &error));
    CHECK_OK(pgr_groups_open_finish(groups, &error));
    pgr_groups_abort(groups);
    names.count = 0;
    CHECK_OK(pgr_groups_open_begin(job, &plan, &names, &groups, &error));
    refuse_second(&plan, "the groups (of no family) of this job are open already; close them first "
                         "(pgr_groups_close)");
    CHECK_OK(pgr_groups_open_finish(groups, &error));
    CHECK_OK(pgr_groups_close(groups, &error));
    CHECK(!job->groups, "the job still has groups");
    case_end("opening twice is told what is open");
}

/* ---- who is where -------------------------------------------------------------------------- */

/* The communicator's members, in their order, are those of the plan. */
static void check_members(const pgr_group *group) {
    pgr_comm *comm = group->comm;
    pgr_request request;
    int64_t *members = calloc((size_t)group->size, sizeof *members);
    CHECK(comm->size == group->size && comm->rank == group->rank, "place in the communicator");
    CHECK_OK(comm->ops->all_gather(comm, &job->rank, members, 1, PGR_I64, comm->stream, &request,
                                   &error));
    CHECK_OK(pgr_request_wait(&request, &error));
    for (int64_t i = 0; i < group->size; i++) {
        int64_t want = pgr_family_member(&group->family, group->index, i);
        CHECK(members[i] == want, "%s has %d where the plan has %d", group->family.name,
              (int)members[i], (int)want);
    }
    free(members);
}

/* What this rank says of a group is what the plan says, and all ranks say the same of sharing. */
static void check_group(const pgr_groups *groups, int64_t at) {
    const pgr_group *group = pgr_groups_at(groups, at);
    const pgr_family *family = &group->family;
    int64_t index = pgr_family_group(family, job->rank), ranks = job->size;
    char own[PGR_NAME_MAX] = "";
    char(*all)[PGR_NAME_MAX] = calloc((size_t)ranks, sizeof *all);
    CHECK(group->index == index && group->rank == pgr_family_rank(family, job->rank), "place in %s",
          family->name);
    CHECK(group->size == (index < 0 ? 0 : pgr_family_group_size(family, index)), "size of %s",
          family->name);
    CHECK(!group->comm == (group->size < 2), "communicator of %s", family->name);
    CHECK(pgr_groups_find(groups, family->name) == group, "%s is not found", family->name);
    if (group->shared_with)
        snprintf(own, sizeof own, "%s", group->shared_with);
    CHECK_OK(job->bootstrap_ops->all_gather(job->bootstrap, own, all, sizeof own, &error));
    for (int64_t rank = 0; rank < ranks; rank++)
        CHECK(strcmp(all[rank], all[0]) == 0, "%s: rank %d shares %s, rank 0 %s", family->name,
              (int)rank, all[rank], all[0]);
    if (group->comm)
        check_members(group);
    free(all);
}

/* Opens all default families. */
static void check_plan(const pgr_plan *plan) {
    char items[FAMILIES_MAX][PGR_NAME_MAX];
    pgr_names names = {.count = pgr_plan_family_count(plan), .items = items};
    pgr_groups *groups;
    for (int32_t i = 0; i < names.count; i++)
        memcpy(items[i], pgr_plan_family_at(plan, i).name, PGR_NAME_MAX);
    CHECK_OK(pgr_groups_open_begin(job, plan, &names, &groups, &error));
    CHECK_OK(pgr_groups_open_finish(groups, &error));
    CHECK(pgr_groups_count(groups) == names.count, "%d groups", (int)pgr_groups_count(groups));
    for (int64_t i = 0; i < pgr_groups_count(groups); i++)
        check_group(groups, i);
    CHECK_OK(pgr_groups_close(groups, &error));
}

/* 4 stages or more: the middle ones hold no embedding. */
static void test_outside(void) {
    static const char *const families[] = {"embedding", "position-embedding", "tp"};
    pgr_plan plan = pipeline_of(job->size, 1);
    pgr_groups *groups = groups_open(&plan, families, 3);
    const pgr_group *embedding = pgr_groups_find(groups, "embedding");
    const pgr_group *position = pgr_groups_find(groups, "position-embedding");
    bool first = job->rank < 2, last = job->rank == job->size - 1;
    int64_t place = first ? job->rank : last ? 2 : -1;
    CHECK(embedding->index == (first || last ? 0 : -1) && embedding->rank == place &&
              embedding->size == (first || last ? 3 : 0) && !embedding->comm == !(first || last),
          "embedding: %d, %d of %d", (int)embedding->index, (int)embedding->rank,
          (int)embedding->size);
    CHECK(position->index == (first ? 0 : -1) && position->rank == (first ? job->rank : -1) &&
              position->size == (first ? 2 : 0) && !position->comm == !first,
          "position-embedding: %d, %d of %d", (int)position->index, (int)position->rank,
          (int)position->size);
    CHECK((embedding->setup.open_seconds > 0) == (first || last) &&
              (embedding->setup.first_seconds > 0) == (first || last),
          "what opening took");
    if (embedding->comm)
        check_members(embedding);
    CHECK_OK(pgr_groups_close(groups, &error));
    case_end("ranks in no group");
}

/* 10 ranks in groups of 4, 4 and 2. */
static void test_unequal(void) {
    static const char *const families[] = {"dp-cp/hybrid4", "dp-cp/hybrid2"};
    pgr_plan plan = pipeline_of(1, PGR_NIL);
    pgr_groups *groups = groups_open(&plan, families, 2);
    const pgr_group *four = pgr_groups_find(groups, "dp-cp/hybrid4");
    CHECK(four->family.size == 4 && four->family.count == 3, "hybrid4");
    CHECK(four->size == (job->rank < 8 ? 4 : 2) && four->rank == job->rank % 4 && four->comm,
          "rank %d of %d", (int)four->rank, (int)four->size);
    test_collectives(four->comm, "dp-cp/hybrid4");
    CHECK_OK(pgr_groups_close(groups, &error));
    case_end("groups of unequal size");
}

/* ---- random layouts ------------------------------------------------------------------------ */

static uint64_t drawn;

static int64_t draw(int64_t below) {
    drawn = drawn * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)(drawn >> 33) % below;
}

/* A divisor of what is left of the job's ranks, taken from it. */
static int64_t take(int64_t *left) {
    int64_t size = 1 + draw(*left);
    while (*left % size != 0)
        size--;
    *left /= size;
    return size;
}

/* Four axes, one of them with a name of its own, in any order. */
static void draw_grid(pgr_spec *spec) {
    static const char *const names[] = {"tp", "cp", "pp", "mine"};
    pgr_grid *grid = &spec->parallel.grid;
    int64_t first = draw(4), left = job->size;
    grid->count = 5;
    grid->axes = calloc(5, sizeof *grid->axes);
    for (int64_t i = 0; i < 4; i++) {
        snprintf(grid->axes[i].name, PGR_NAME_MAX, "%s", names[(first + i) % 4]);
        grid->axes[i].size = take(&left);
    }
    snprintf(grid->axes[4].name, PGR_NAME_MAX, "dp");
    grid->axes[4].size = PGR_NIL;
}

static void draw_levels(pgr_spec *spec) {
    pgr_list *levels = &spec->parallel.hierarchical_cp;
    int64_t left = spec->parallel.cp;
    levels->count = 2;
    levels->items = calloc(2, sizeof *levels->items);
    levels->items[0] = take(&left);
    levels->items[1] = left;
}

static void draw_short(pgr_spec *spec) {
    static const char *const orders[] = {"tp-cp-ep-dp-pp", "tp-cp-ep-pp-dp", "cp-tp-dp-ep-pp"};
    int64_t left = job->size;
    spec->parallel.pp = take(&left);
    spec->parallel.cp = take(&left);
    spec->parallel.tp = take(&left);
    spec->parallel.ep = 1 + draw(3);
    spec->parallel.etp = 1 + draw(2);
    spec->parallel.hybrid_cp = draw(2) == 0;
    spec->parallel.optimizer_instances = 1 + draw(2);
    snprintf(spec->parallel.order, sizeof spec->parallel.order, "%s", orders[draw(3)]);
    if (spec->parallel.pp > 1 && draw(2) == 0)
        spec->parallel.pp_split = 1 + draw(spec->parallel.pp - 1);
    if (spec->parallel.cp > 1)
        draw_levels(spec);
}

static void test_layouts(void) {
    enum { DRAWS = 4000, LAYOUTS = 6, GRIDS = 2 };
    int checked = 0;
    drawn = (uint64_t)job->size;
    for (int i = 0; i < DRAWS && checked < LAYOUTS; i++) {
        pgr_spec spec;
        pgr_plan plan;
        pgr_spec_init(&spec);
        if (checked < GRIDS)
            draw_grid(&spec);
        else
            draw_short(&spec);
        if (pgr_plan_create(&spec, job->size, &plan, &error) == PGR_OK) {
            check_plan(&plan);
            checked++;
        }
        pgr_spec_free(&spec);
    }
    CHECK(checked == LAYOUTS, "%d layouts", checked);
    case_end("random layouts, all their families");
}

/* ---- what the identity check catches ------------------------------------------------------- */

/* A backend that opens something else than it was asked for. */
static pgr_comm_ops broken_ops;
static const pgr_comm_ops *true_ops;
static const pgr_family *broken; /* the family that is being opened */
static int64_t exchanged[2];     /* ranks of two groups of one size; or one in none, and a member */

/* The first two members of each group at each other's place. */
static pgr_status open_swapped(const pgr_comm_open_args *args, pgr_comm **comm, pgr_error *err) {
    pgr_comm_open_args swapped = *args;
    if (args->rank >= 0 && args->rank < 2)
        swapped.rank = 1 - args->rank;
    return true_ops->open_begin(&swapped, comm, err);
}

/* Two ranks take each other's group and place: those groups hold other members. */
static pgr_status open_exchanged(const pgr_comm_open_args *args, pgr_comm **comm, pgr_error *err) {
    pgr_comm_open_args other = *args;
    for (int i = 0; i < 2; i++) {
        if (args->job->rank == exchanged[i]) {
            other.group = pgr_family_group(broken, exchanged[1 - i]);
            other.rank = pgr_family_rank(broken, exchanged[1 - i]);
            other.size = other.group < 0 ? 0 : pgr_family_group_size(broken, other.group);
        }
    }
    return true_ops->open_begin(&other, comm, err);
}

/* A rank that is in no group is in one, after its members. */
static pgr_status open_joined(const pgr_comm_open_args *args, pgr_comm **comm, pgr_error *err) {
    pgr_comm_open_args more = *args;
    if (args->job->rank == exchanged[0]) {
        more.group = pgr_family_group(broken, exchanged[1]);
        more.size = pgr_family_group_size(broken, more.group) + 1;
        more.rank = more.size - 1;
    }
    return true_ops->open_begin(&more, comm, err);
}

typedef pgr_status (*opener)(const pgr_comm_open_args *, pgr_comm **, pgr_error *);

/* Whether the fault is in this rank's group. */
static bool is_hit(const pgr_family *family, opener open) {
    int64_t own = pgr_family_group(family, job->rank);
    if (open == open_swapped)
        return own >= 0 && pgr_family_group_size(family, own) > 1;
    for (int i = 0; i < 2; i++)
        if (job->rank == exchanged[i] ||
            (own >= 0 && own == pgr_family_group(family, exchanged[i])))
            return true;
    return false;
}

static void try_broken(const pgr_plan *plan, const char *name, opener open) {
    char items[1][PGR_NAME_MAX];
    pgr_names names = {.count = 1, .items = items};
    pgr_groups *groups = NULL;
    pgr_family family;
    char told[PGR_NAME_MAX + 16];
    snprintf(items[0], PGR_NAME_MAX, "%s", name);
    snprintf(told, sizeof told, "family %s", name);
    CHECK_OK(pgr_plan_family_find(plan, name, &family, &error));
    broken = &family;
    true_ops = job->comm_ops;
    broken_ops = *true_ops;
    broken_ops.open_begin = open;
    job->comm_ops = &broken_ops;
    CHECK_OK(pgr_groups_open_begin(job, plan, &names, &groups, &error));
    pgr_status status = pgr_groups_open_finish(groups, &error);
    bool hit = is_hit(&family, open);
    CHECK(status == (hit ? PGR_BACKEND : PGR_OK), "%s: status %d", name, (int)status);
    CHECK(!hit || strstr(error.message, told), "%s", error.message);
    const char *found = open == open_joined ? " where the plan has " : "has world rank";
    CHECK(!hit || strstr(error.message, found) || strstr(error.message, "the plan at"), "%s",
          error.message);
    CHECK(!hit || open == open_joined || strstr(error.message, "place "), "%s", error.message);
    pgr_groups_abort(groups); /* local: the members do not all know */
    job->comm_ops = true_ops;
}

static void exchange(int64_t a, int64_t b) {
    exchanged[0] = a;
    exchanged[1] = b;
}

static void test_broken(void) {
    int64_t ranks = job->size;
    pgr_plan pairs = plan_of(2, 1);
    try_broken(&pairs, "tp", open_swapped);
    case_end("swapped places are caught");
    if (ranks >= 4) {
        exchange(0, ranks - 1);
        try_broken(&pairs, "tp", open_exchanged);
        case_end("exchanged members are caught");
        pgr_plan line = pipeline_of(ranks, PGR_NIL);
        try_broken(&line, "embedding", open_swapped);
        exchange(1, 0); /* rank 1 is in no group */
        try_broken(&line, "embedding", open_joined);
        case_end("a rank that should be in no group is caught");
    }
    if (ranks == 8) {
        pgr_plan two = pipeline_of(4, PGR_NIL);
        exchange(0, 7);
        try_broken(&two, "embedding", open_exchanged);
        case_end("exchanged members of two embeddings are caught");
    }
    if (ranks == 10) {
        pgr_plan hybrid = pipeline_of(1, PGR_NIL);
        exchange(1, 6);
        try_broken(&hybrid, "dp-cp/hybrid4", open_exchanged);
        try_broken(&hybrid, "dp-cp/hybrid4", open_swapped);
        case_end("exchanged members of groups of unequal size are caught");
    }
}

void test_groups(void) {
    test_refusals();
    test_sharing();
    test_twice();
    if (!getenv("PGRUN_MPI_MAX_COUNT")) /* identities in pieces of 7 bytes: slow, and nothing new */
        test_layouts();
    if (job->size >= 4)
        test_outside();
    if (job->size == 10)
        test_unequal();
    if (job->size % 2 == 0)
        test_broken();
}
