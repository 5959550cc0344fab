/* plan_rules.c - from sizes and an order to a plan, or to every reason why there is none.
 *
 * The rules are those of initialize_model_parallel and RankGenerator of Megatron-Core
 * (megatron/core/parallel_state.py); what it answered is recorded in tests/oracles. */
#include "plan.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The axes that `order` may name. In the expert view tp and dp read etp and edp and cp is absent;
 * in the dense view ep is absent. */
enum { TP, CP, EP, DP, PP, AXES };
static const char *const dense_names[AXES] = {"tp", "cp", NULL, "dp", "pp"};
static const char *const expert_names[AXES] = {"etp", NULL, "ep", "edp", "pp"};
static const char *const order_names[AXES] = {"tp", "cp", "ep", "dp", "pp"};

/* Everything the rules talk about. A size that could not be derived is 0. */
typedef struct layout {
    const pgr_spec *spec;
    int64_t world;
    bool world_assumed;
    int64_t dense[AXES], expert[AXES];     /* sizes per axis of `order` */
    int64_t dense_product, expert_product; /* without dp and edp; 0 where it overflows */
    char order[PGR_NAME_MAX];
    int axes[AXES]; /* the axes that order names, in order */
    int axis_count;
    bool named[AXES];
    bool order_ok;
} layout;

/* The refusals so far. */
typedef struct problems {
    pgr_status status; /* of the first one; PGR_OK while there are none */
    pgr_diagnostics *list;
} problems;

/* The keys that make a product, and with it the sizes that are derived from it. */
#define DENSE_KEYS "parallel.tp parallel.cp parallel.pp"

/* Notes a refusal. */
static void problem(problems *found, pgr_status status, const char *code, const char *paths,
                    const char *help, const char *format, ...) PGR_PRINTF(6, 7);

static void problem(problems *found, pgr_status status, const char *code, const char *paths,
                    const char *help, const char *format, ...) {
    char text[sizeof(((pgr_diagnostic *)NULL)->message)];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (found->status == PGR_OK)
        found->status = status;
    pgr_diagnose(found->list, code, paths, help, "%s", text);
}

/* The key that gives etp: its own, or tp where it is left out. */
static const char *etp_key(const pgr_spec *spec) {
    return spec->parallel.etp == PGR_NIL ? "parallel.tp" : "parallel.etp";
}

/* The keys that make the expert product, behind those in `first`. */
static const char *expert_keys(const pgr_spec *spec, const char *first, char *out, size_t bytes) {
    snprintf(out, bytes, "%s%s%s parallel.ep parallel.pp", first, *first ? " " : "", etp_key(spec));
    return out;
}

/* The keys that both views' sizes come from, told at order. */
static const char *layout_keys(const pgr_spec *spec) {
    return spec->parallel.etp == PGR_NIL
               ? "parallel.order parallel.pp parallel.tp parallel.cp parallel.ep"
               : "parallel.order parallel.pp parallel.tp parallel.cp parallel.etp parallel.ep";
}

int64_t pgr_greatest_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* The product of three sizes, or 0 where it does not fit in 63 bits. */
static int64_t product(int64_t a, int64_t b, int64_t c) {
    int64_t result;
    if (__builtin_mul_overflow(a, b, &result) || __builtin_mul_overflow(result, c, &result))
        return 0;
    return result;
}

/* The number that every legal world size is a multiple of, or 0 where it does not fit. */
static int64_t world_unit(const layout *l) {
    if (!l->spec->parallel.expert_view)
        return l->dense_product;
    if (l->dense_product == 0 || l->expert_product == 0)
        return 0;
    int64_t common = pgr_greatest_divisor(l->dense_product, l->expert_product);
    return product(l->dense_product / common, l->expert_product, 1);
}

static void check_size(problems *found, const char *key, int64_t value) {
    char path[32];
    if (value >= 1)
        return;
    snprintf(path, sizeof path, "parallel.%s", key);
    problem(found, PGR_INVALID, "PG019", path, "", "%s = %" PRId64 " must be at least 1", key,
            value);
}

/* Sizes that the spec gives by itself. */
static void read_sizes(layout *l, problems *found) {
    const pgr_spec *s = l->spec;
    bool expert_view = s->parallel.expert_view;
    int64_t etp = s->parallel.etp == PGR_NIL ? s->parallel.tp : s->parallel.etp;
    check_size(found, "tp", s->parallel.tp);
    check_size(found, "cp", s->parallel.cp);
    check_size(found, "pp", s->parallel.pp);
    if (expert_view) {
        check_size(found, "ep", s->parallel.ep);
        if (s->parallel.etp != PGR_NIL)
            check_size(found, "etp", etp);
    }
    if (s->parallel.dp != PGR_NIL)
        check_size(found, "dp", s->parallel.dp);
    if (found->status != PGR_OK)
        return;
    l->dense[TP] = s->parallel.tp;
    l->dense[CP] = s->parallel.cp;
    l->dense[PP] = s->parallel.pp;
    l->dense[EP] = 1;
    l->expert[TP] = expert_view ? etp : 1;
    l->expert[EP] = expert_view ? s->parallel.ep : 1;
    l->expert[PP] = s->parallel.pp;
    l->expert[CP] = 1;
    l->dense_product = product(s->parallel.tp, s->parallel.cp, s->parallel.pp);
    l->expert_product = product(l->expert[TP], l->expert[EP], l->expert[PP]);
    if (l->dense_product == 0) {
        problem(found, PGR_LIMIT, "PG019", DENSE_KEYS, "take smaller sizes",
                "tp * cp * pp = %" PRId64 " * %" PRId64 " * %" PRId64 " does not fit in 63 bits",
                l->dense[TP], l->dense[CP], l->dense[PP]);
    }
    if (l->expert_product == 0) {
        char keys[96];
        problem(found, PGR_LIMIT, "PG019", expert_keys(s, "", keys, sizeof keys),
                "take smaller sizes",
                "etp * ep * pp = %" PRId64 " * %" PRId64 " * %" PRId64 " does not fit in 63 bits",
                l->expert[TP], l->expert[EP], l->expert[PP]);
    }
}

/* The smallest legal world: with a given dp there is but one size, dp * tp * cp * pp. */
static int64_t smallest_world(const layout *l, problems *found) {
    const pgr_spec *s = l->spec;
    int64_t size =
        s->parallel.dp == PGR_NIL ? world_unit(l) : product(l->dense_product, s->parallel.dp, 1);
    if (size != 0)
        return size;
    if (s->parallel.dp != PGR_NIL) {
        problem(found, PGR_LIMIT, "PG019", "parallel.dp " DENSE_KEYS, "take smaller sizes",
                "dp * tp * cp * pp = %" PRId64 " * %" PRId64 " does not fit in 63 bits",
                s->parallel.dp, l->dense_product);
    } else {
        problem(found, PGR_LIMIT, "PG019",
                s->parallel.etp == PGR_NIL ? DENSE_KEYS " parallel.ep"
                                           : DENSE_KEYS " parallel.etp parallel.ep",
                "take smaller sizes",
                "the smallest world, the least common multiple of tp * cp * pp = %" PRId64
                " and etp * ep * pp = %" PRId64 ", does not fit in 63 bits",
                l->dense_product, l->expert_product);
    }
    return 0;
}

static void choose_world(layout *l, int64_t world_size, problems *found) {
    const pgr_spec *s = l->spec;
    l->world = world_size != PGR_NIL ? world_size : s->world_size;
    if (l->world == PGR_NIL) {
        l->world_assumed = true;
        l->world = smallest_world(l, found);
    } else if (l->world < 1) {
        problem(found, PGR_INVALID, "PG019", "world_size", "",
                "world_size = %" PRId64 " must be at least 1", l->world);
    }
    int64_t last;
    if (s->parallel.rank_offset < 0) {
        problem(found, PGR_INVALID, "PG019", "parallel.rank_offset", "",
                "rank_offset = %" PRId64 " must be at least 0", s->parallel.rank_offset);
    } else if (__builtin_add_overflow(l->world, s->parallel.rank_offset, &last)) {
        problem(found, PGR_LIMIT, "PG019", "parallel.rank_offset world_size",
                "take a smaller rank_offset",
                "rank_offset = %" PRId64 " and world_size = %" PRId64
                " give ranks that do not fit in 63 bits",
                s->parallel.rank_offset, l->world);
    }
}

static int order_axis(const char *token, size_t length) {
    for (int axis = 0; axis < AXES; axis++)
        if (strlen(order_names[axis]) == length && memcmp(order_names[axis], token, length) == 0)
            return axis;
    return -1;
}

/* Reads one token of order; what is wrong with it is a line. */
static void read_axis(layout *l, const char *token, size_t length, problems *found) {
    int axis = order_axis(token, length);
    if (axis < 0) {
        bool expert_name = length == 3 && token[0] == 'e' && order_axis(token + 1, 2) >= 0;
        char help[80] = "its axes are tp, cp, ep, dp and pp";
        if (expert_name)
            snprintf(help, sizeof help, "name it \"%.2s\", which the expert view reads so",
                     token + 1);
        problem(found, PGR_INVALID, "PG013", "parallel.order", help,
                "order = \"%s\" has the unknown axis \"%.*s\"", l->order, (int)length, token);
        l->order_ok = false;
    } else if (l->named[axis]) {
        problem(found, PGR_INVALID, "PG013", "parallel.order", "name each axis once",
                "order = \"%s\" names \"%s\" twice", l->order, order_names[axis]);
        l->order_ok = false;
    } else {
        l->named[axis] = true;
        l->axes[l->axis_count++] = axis;
    }
}

static void read_order(layout *l, problems *found) {
    size_t length = strnlen(l->spec->parallel.order, PGR_NAME_MAX - 1);
    for (size_t i = 0; i < length; i++) /* Megatron-Core takes capitals too */
        l->order[i] = (char)tolower((unsigned char)l->spec->parallel.order[i]);
    l->order_ok = true;
    if (length == 0) {
        problem(found, PGR_INVALID, "PG013", "parallel.order",
                "give the axes from the fastest to the slowest, as \"tp-cp-ep-dp-pp\"",
                "order is empty");
        l->order_ok = false;
        return;
    }
    const char *token = l->order;
    for (;;) {
        size_t token_length = strcspn(token, "-");
        read_axis(l, token, token_length, found);
        if (token[token_length] == '\0')
            return;
        token += token_length + 1;
    }
}

/* Writes the nearest world sizes that fit, or where none fits in 63 bits, what else would. */
static void nearest_worlds(const layout *l, char *out, size_t bytes) {
    int64_t unit = world_unit(l);
    int64_t below = unit == 0 ? 0 : l->world / unit * unit;
    int64_t above = 0;
    if (unit == 0 || __builtin_add_overflow(below, unit, &above))
        above = 0;
    if (below > 0 && above > 0) {
        snprintf(out, bytes, "the nearest sizes that fit are %" PRId64 " and %" PRId64, below,
                 above);
    } else if (below + above > 0) {
        snprintf(out, bytes, "the nearest size that fits is %" PRId64, below + above);
    } else {
        snprintf(out, bytes, "take smaller sizes");
    }
}

/* Derives edp, or says that the product does not divide the world. */
static void derive_expert_data_parallel(layout *l, const char *nearest, problems *found) {
    char keys[128], help[256];
    if (!l->spec->parallel.expert_view) {
        l->expert[DP] = 1;
    } else if (l->world % l->expert_product == 0) {
        l->expert[DP] = l->world / l->expert_product;
    } else if (l->expert_product != l->dense_product || l->expert[EP] > 1) {
        /* otherwise the dense product's line says it all */
        snprintf(help, sizeof help, "%s%s", nearest,
                 l->expert[EP] == 1
                     ? ""
                     : " (ep divides the data-parallel ranks and is no factor of the world)");
        problem(found, PGR_INVALID, "PG011", expert_keys(l->spec, "world_size", keys, sizeof keys),
                help,
                "world_size = %" PRId64 " is not divisible by etp * ep * pp = %" PRId64
                " * %" PRId64 " * %" PRId64 " = %" PRId64,
                l->world, l->expert[TP], l->expert[EP], l->expert[PP], l->expert_product);
    }
}

/* Derives dp and edp, or says which product does not divide the world. */
static void derive_data_parallel(layout *l, problems *found) {
    char nearest[128];
    nearest_worlds(l, nearest, sizeof nearest);
    if (l->world % l->dense_product != 0) {
        problem(found, PGR_INVALID, "PG010", "world_size " DENSE_KEYS, nearest,
                "world_size = %" PRId64 " is not divisible by tp * cp * pp = %" PRId64 " * %" PRId64
                " * %" PRId64 " = %" PRId64,
                l->world, l->dense[TP], l->dense[CP], l->dense[PP], l->dense_product);
    } else {
        l->dense[DP] = l->world / l->dense_product;
    }
    derive_expert_data_parallel(l, nearest, found);
}

static void check_given_dp(const layout *l, problems *found) {
    int64_t dp = l->spec->parallel.dp;
    if (dp == PGR_NIL || l->dense[DP] == 0 || dp == l->dense[DP])
        return;
    char help[96];
    int64_t size = product(l->dense_product, dp, 1);
    if (size != 0)
        snprintf(help, sizeof help, "leave dp out, or take world_size = %" PRId64, size);
    else
        snprintf(help, sizeof help, "leave dp out");
    problem(found, PGR_INVALID, "PG018", "parallel.dp world_size " DENSE_KEYS, help,
            "dp = %" PRId64 " was given, but world_size = %" PRId64 " over tp * cp * pp = %" PRId64
            " makes dp = %" PRId64,
            dp, l->world, l->dense_product, l->dense[DP]);
}

/* An axis larger than 1 that order does not name; `keys` are those that its size comes from. */
static void missing_axis(const layout *l, const char *name, int axis, int64_t size,
                         const char *keys, problems *found) {
    char paths[160], help[96];
    const char *named = order_names[axis];
    snprintf(paths, sizeof paths, "parallel.order %s", keys);
    snprintf(help, sizeof help, "add \"%s\"%s", named,
             strcmp(name, named) == 0 ? "" : ", which the expert view reads so");
    problem(found, PGR_INVALID, "PG014", paths, help,
            "%s = %" PRId64 " is missing from order = \"%s\"", name, size, l->order);
}

static void check_named(const layout *l, problems *found) {
    static const char *const dense_keys[AXES] = {
        "parallel.tp", "parallel.cp", NULL, "parallel.dp world_size " DENSE_KEYS, "parallel.pp"};
    const pgr_spec *s = l->spec;
    char edp_keys[128];
    const char *const keys[AXES] = {etp_key(s), NULL, "parallel.ep",
                                    expert_keys(s, "world_size", edp_keys, sizeof edp_keys), NULL};
    for (int axis = 0; axis < AXES; axis++) {
        if (l->named[axis])
            continue;
        if (l->dense[axis] > 1) {
            bool derived = axis == DP && s->parallel.dp == PGR_NIL;
            missing_axis(l, dense_names[axis], axis, l->dense[axis],
                         derived ? "world_size " DENSE_KEYS : dense_keys[axis], found);
        }
        if (l->expert[axis] > 1 && s->parallel.expert_view && axis != PP)
            missing_axis(l, expert_names[axis], axis, l->expert[axis], keys[axis], found);
    }
}

/* `order` with pp moved to its end. */
static void order_pp_last(const layout *l, char out[PGR_NAME_MAX]) {
    out[0] = '\0';
    for (int i = 0; i < l->axis_count; i++) {
        if (l->axes[i] != PP) {
            strcat(out, order_names[l->axes[i]]);
            strcat(out, "-");
        }
    }
    strcat(out, "pp");
}

static void check_pipeline(const layout *l, problems *found) {
    const pgr_spec *s = l->spec;
    if (s->parallel.vpp != PGR_NIL && l->dense[PP] == 1) {
        problem(found, PGR_INVALID, "PG017", "parallel.vpp parallel.pp",
                "leave vpp out or raise pp",
                "vpp = %" PRId64 " needs pp greater than 1, and pp = 1", s->parallel.vpp);
    }
    bool pp_last = l->axis_count > 0 && l->axes[l->axis_count - 1] == PP;
    int64_t dp = l->dense[DP], edp = l->expert[DP];
    if (!s->parallel.expert_view || !l->order_ok || !l->named[PP] || l->dense[PP] == 1 || pp_last ||
        dp == 0 || edp == 0 || dp == edp)
        return;
    char better[PGR_NAME_MAX], help[PGR_NAME_MAX + 128];
    order_pp_last(l, better);
    snprintf(help, sizeof help,
             "put pp last (\"%s\"), or make etp * ep = %" PRId64 " equal tp * cp = %" PRId64,
             better, l->expert[TP] * l->expert[EP], l->dense[TP] * l->dense[CP]);
    problem(found, PGR_INVALID, "PG016", layout_keys(s), help,
            "dp = %" PRId64 " and edp = %" PRId64 " differ while pp = %" PRId64
            " is not last in order = \"%s\"",
            dp, edp, l->dense[PP], l->order);
}

/* Lays the axes of a view out: those that order names, then the rest, all of size 1. */
static void build_view(const layout *l, const char *const names[AXES], const int64_t sizes[AXES],
                       const char *name, pgr_view *view) {
    int64_t stride = 1;
    snprintf(view->name, sizeof view->name, "%s", name);
    for (int i = 0; i < l->axis_count + AXES; i++) {
        int axis = i < l->axis_count ? l->axes[i] : i - l->axis_count;
        if (names[axis] == NULL || (i >= l->axis_count && l->named[axis]))
            continue;
        pgr_axis *a = &view->axes[view->axis_count++];
        snprintf(a->name, sizeof a->name, "%s", names[axis]);
        a->size = sizes[axis];
        a->stride = stride;
        stride *= a->size;
    }
}

static const pgr_axis *pp_axis(const pgr_view *view) {
    for (int32_t i = 0; i < view->axis_count; i++)
        if (strcmp(view->axes[i].name, "pp") == 0)
            return &view->axes[i];
    return NULL;
}

/* Both views must cut the same pipelines. */
static void check_pp_groups(const layout *l, const pgr_plan *plan, problems *found) {
    if (plan->view_count < 2 || l->dense[PP] == 1)
        return;
    int64_t dense = pp_axis(&plan->views[PGR_VIEW_DENSE])->stride;
    int64_t expert = pp_axis(&plan->views[PGR_VIEW_EXPERT])->stride;
    if (dense == expert)
        return;
    char better[PGR_NAME_MAX], help[PGR_NAME_MAX + 32];
    order_pp_last(l, better);
    snprintf(help, sizeof help, "put pp last (\"%s\")", better);
    problem(found, PGR_INVALID, "PG015", layout_keys(l->spec), help,
            "the pp groups of the dense and the expert view differ: with order = \"%s\" and pp = "
            "%" PRId64 " the first ones begin 0, %" PRId64 " and 0, %" PRId64,
            l->order, l->dense[PP], dense, expert);
}

/* Writes the refusals into an error, a line each with its way out, and frees them. */
static pgr_status refuse(pgr_status status, pgr_diagnostics *list, pgr_error *error) {
    char text[sizeof error->message] = "";
    size_t used = 0;
    for (int64_t i = 0; i < list->count && used < sizeof text; i++) {
        const pgr_diagnostic *at = &list->items[i];
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s%s%s", i ? "\n" : "",
                                 at->message, at->help[0] ? "; " : "", at->help);
    }
    bool short_of_memory = list->out_of_memory;
    pgr_diagnostics_free(list);
    if (short_of_memory)
        return pgr_error_set(error, PGR_LIMIT, "out of memory");
    return pgr_error_set(error, status, "%s", text);
}

pgr_status pgr_plan_smallest_world(const pgr_spec *spec, int64_t *world_size, pgr_error *error) {
    layout l = {.spec = spec};
    pgr_diagnostics list = {0};
    problems found = {.status = PGR_OK, .list = &list};
    read_sizes(&l, &found);
    int64_t smallest = found.status == PGR_OK ? smallest_world(&l, &found) : 0;
    if (found.status != PGR_OK)
        return refuse(found.status, &list, error);
    *world_size = smallest;
    return PGR_OK;
}

/* All rules but the one that needs the views. */
static void check_layout(layout *l, int64_t world_size, problems *found) {
    read_sizes(l, found);
    if (found->status == PGR_OK)
        choose_world(l, world_size, found);
    read_order(l, found);
    if (l->world > 0) {
        derive_data_parallel(l, found);
        check_given_dp(l, found);
    }
    if (l->order_ok)
        check_named(l, found);
    check_pipeline(l, found);
}

pgr_status pgr_plan_check(const pgr_spec *spec, int64_t world_size, pgr_plan *plan,
                          pgr_diagnostics *list) {
    layout l = {.spec = spec};
    problems found = {.status = PGR_OK, .list = list};
    check_layout(&l, world_size, &found);
    if (found.status == PGR_OK) {
        pgr_plan made = {.world_size = l.world,
                         .rank_offset = spec->parallel.rank_offset,
                         .view_count = spec->parallel.expert_view ? 2 : 1,
                         .world_size_assumed = l.world_assumed};
        memcpy(made.order, l.order, sizeof made.order);
        build_view(&l, dense_names, l.dense, "dense", &made.views[PGR_VIEW_DENSE]);
        if (made.view_count == 2)
            build_view(&l, expert_names, l.expert, "expert", &made.views[PGR_VIEW_EXPERT]);
        check_pp_groups(&l, &made, &found);
        if (found.status == PGR_OK)
            *plan = made;
    }
    return list->out_of_memory && found.status != PGR_OK ? PGR_LIMIT : found.status;
}

pgr_status pgr_plan_create(const pgr_spec *spec, int64_t world_size, pgr_plan *plan,
                           pgr_error *error) {
    pgr_diagnostics list = {0};
    pgr_status status = pgr_plan_check(spec, world_size, plan, &list);
    return status == PGR_OK ? PGR_OK : refuse(status, &list, error);
}
