/* check_trial.c - tries a way out before a rule offers it: it changes a copy of the spec and asks
 * all rules again. */
#include "check_trial.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    TRIALS = 160,     /* of one finding */
    LONG_LIST = 4096, /* a list beyond it makes each trial slow */
    LONG_TRIALS = 4,
    DIVISORS = 1600, /* no number below 2^32 has more */
    STEPS = 12       /* multiples tried on each side */
};

/* Trial division up to the root of it is quick; of larger numbers, the small divisors are found. */
static const int64_t largest_factored = INT64_C(1) << 32;
static const int64_t largest_divisor = INT64_C(1) << 16;

int64_t pgr_least_multiple(int64_t a, int64_t b) {
    int64_t least;
    if (__builtin_mul_overflow(a / pgr_greatest_divisor(a, b), b, &least))
        return 0;
    return least;
}

/* ---- findings ---- */

static bool same_paths(const pgr_diagnostic *a, const pgr_diagnostic *b) {
    if (a->path_count != b->path_count)
        return false;
    for (int32_t i = 0; i < a->path_count; i++)
        if (strcmp(a->paths[i], b->paths[i]) != 0)
            return false;
    return true;
}

/* Whether `item` was there before: of the target's own code exactly, of another one at its first
 * key. */
static bool was_there(const pgr_trial *t, const pgr_diagnostic *item) {
    for (int64_t i = 0; i < t->before.count; i++) {
        const pgr_diagnostic *old = &t->before.items[i];
        if (old->rule != item->rule)
            continue;
        if (item->rule == t->target.rule ? same_paths(old, item)
                                         : strcmp(old->paths[0], item->paths[0]) == 0)
            return true;
    }
    return false;
}

static void ask(pgr_trial *t, pgr_diagnostics *found) {
    int64_t checked;
    pgr_spec spec = t->spec;
    found->bare = true;
    found->count = 0;
    spec.world_size = t->open ? PGR_NIL : t->world_size;
    if (spec.padding.is_function)
        spec.model.seq_len = PGR_NIL; /* its answer is that for the original sizes */
    pgr_check(&spec, spec.world_size, &checked, found);
    t->out_of_memory |= found->out_of_memory;
}

/* A trial goes through these lists. */
static bool is_slow(const pgr_spec *spec) {
    return spec->padding.packed.count > LONG_LIST ||
           spec->parallel.stage_layers.count > LONG_LIST ||
           spec->parallel.hierarchical_cp.count > LONG_LIST ||
           spec->moe.layer_pattern.count > LONG_LIST;
}

void pgr_trial_more(pgr_trial *t, int64_t trials) {
    if (!is_slow(t->original) && t->left < trials)
        t->left = trials;
}

bool pgr_trial_begin(pgr_trial *t, const pgr_spec *spec, const pgr_plan *plan,
                     const pgr_diagnostics *found, const char *code, const char *paths) {
    t->help[0] = '\0';
    if (found->bare)
        return false;
    bool sized = plan != NULL && !plan->world_size_assumed && plan->world_size > 0;
    *t = (pgr_trial){.spec = *spec,
                     .world_size = sized ? plan->world_size : spec->world_size,
                     .original = spec,
                     .left = is_slow(spec) ? LONG_TRIALS : TRIALS};
    pgr_diagnostics target = {.bare = true};
    const pgr_diagnostic *made = pgr_diagnose(&target, code, paths, NULL, "%s", "");
    if (made == NULL)
        t->out_of_memory = true;
    else
        t->target = *made;
    pgr_diagnostics_free(&target);
    ask(t, &t->before);
    return true;
}

void pgr_trial_reset(pgr_trial *t) {
    t->spec = *t->original;
}

void pgr_trial_end(pgr_trial *t, pgr_diagnostics *found) {
    pgr_diagnostics_free(&t->before);
    pgr_diagnostics_free(&t->after);
    found->out_of_memory |= t->out_of_memory;
}

/* The world does not divide over the sizes. */
static bool is_of_world(const pgr_diagnostic *item) {
    return item->rule != NULL &&
           (strcmp(item->rule->code, "PG010") == 0 || strcmp(item->rule->code, "PG011") == 0);
}

bool pgr_trial_mends(pgr_trial *t) {
    bool good = true;
    if (t->left <= 0 || t->out_of_memory)
        return false;
    t->left--;
    ask(t, &t->after);
    for (int64_t i = 0; i < t->after.count && good; i++) {
        const pgr_diagnostic *item = &t->after.items[i];
        if (t->fits && is_of_world(item))
            good = false;
        else if (item->rule == t->target.rule)
            good = !same_paths(item, &t->target) && was_there(t, item);
        else
            good = item->severity != PGR_ERROR || was_there(t, item);
    }
    return good && !t->out_of_memory;
}

/* ---- the help ---- */

void pgr_trial_offer(pgr_trial *t, const char *joint, const char *format, ...) {
    size_t used = strlen(t->help), room = sizeof t->help;
    va_list arguments;
    char text[sizeof t->help];
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    /* an alternative that does not fit is left out, not cut: half a number is a wrong one */
    if (length < 0 || (size_t)length + used + strlen(joint) >= room)
        return;
    snprintf(t->help + used, room - used, "%s%s", used > 0 ? joint : "", text);
}

void pgr_trial_list(const int64_t *values, int count, char *text, size_t bytes) {
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < count && used < bytes; i++)
        used += (size_t)snprintf(text + used, bytes - used, "%s%" PRId64,
                                 i == 0           ? ""
                                 : i == count - 1 ? " or "
                                                  : ", ",
                                 values[i]);
}

/* ---- values ---- */

static int divisors_of(int64_t value, int64_t *divisors) {
    int small = 0, all;
    for (int64_t d = 1; small < DIVISORS / 2 && d <= largest_divisor && d <= value / d; d++)
        if (value % d == 0)
            divisors[small++] = d;
    all = small;
    for (int i = small - 1; i >= 0 && value <= largest_factored; i--)
        if (divisors[i] != value / divisors[i])
            divisors[all++] = value / divisors[i];
    return all;
}

/* Tries one value of *field. */
static bool mends_with(pgr_trial *t, int64_t *field, int64_t value) {
    int64_t old = *field;
    *field = value;
    bool mends = pgr_trial_mends(t);
    *field = old;
    return mends;
}

int pgr_trial_divisors(pgr_trial *t, int64_t *field, int64_t of, int64_t values[PGR_TRIAL_VALUES]) {
    int64_t divisors[DIVISORS], now = *field;
    int all = of >= 1 ? divisors_of(of, divisors) : 0, count = 0, at = 0;
    while (at < all && divisors[at] < now)
        at++;
    for (int i = at - 1; i >= 0 && count < PGR_TRIAL_EACH; i--)
        if (mends_with(t, field, divisors[i]))
            values[count++] = divisors[i];
    int below = count;
    for (int i = at; i < all && count - below < PGR_TRIAL_EACH; i++)
        if (divisors[i] != now && mends_with(t, field, divisors[i]))
            values[count++] = divisors[i];
    for (int i = 0; i < below / 2; i++) { /* the lower ones were found downwards */
        int64_t other = values[i];
        values[i] = values[below - 1 - i];
        values[below - 1 - i] = other;
    }
    return count;
}

int pgr_trial_multiples(pgr_trial *t, int64_t *field, int64_t step,
                        int64_t values[PGR_TRIAL_VALUES]) {
    int64_t now = *field, value;
    int count = 0;
    if (step < 1)
        return 0;
    value = now % step == 0 ? now - step : now / step * step;
    for (int i = 0; i < STEPS && value > 0 && count == 0; i++, value -= step)
        if (mends_with(t, field, value))
            values[count++] = value;
    int below = count;
    value = now / step * step;
    for (int i = 0; i < STEPS && count == below; i++) {
        if (__builtin_add_overflow(value, step, &value) || value > INT64_C(1) << 40)
            break; /* no key takes more */
        if (mends_with(t, field, value))
            values[count++] = value;
    }
    return count;
}

typedef int (*values_of)(pgr_trial *t, int64_t *field, int64_t of, int64_t values[]);

static bool offer(pgr_trial *t, const char *joint, const char *lead, const char *name,
                  int64_t *field, int64_t of, values_of find) {
    int64_t values[PGR_TRIAL_VALUES];
    char list[PGR_TRIAL_VALUES * 24];
    bool open = t->open;
    int count = find(t, field, of, values);
    if (count == 0 && !open && t->world_size != PGR_NIL) {
        t->open = true;
        count = find(t, field, of, values);
    }
    if (count > 0) {
        pgr_trial_list(values, count, list, sizeof list);
        pgr_trial_offer(t, joint, "%s%s can be %s%s", lead, name, list,
                        t->open && !open ? " at another world_size" : "");
    }
    t->open = open;
    return count > 0;
}

bool pgr_trial_offer_divisors(pgr_trial *t, const char *joint, const char *lead, const char *name,
                              int64_t *field, int64_t of) {
    const pgr_spec *s = &t->spec;
    t->fits = field == &s->parallel.tp || field == &s->parallel.pp || field == &s->parallel.ep ||
              field == &s->parallel.etp;
    bool any = offer(t, joint, lead, name, field, of, pgr_trial_divisors);
    t->fits = false;
    return any;
}

bool pgr_trial_offer_multiples(pgr_trial *t, const char *joint, const char *lead, const char *name,
                               int64_t *field, int64_t step) {
    return offer(t, joint, lead, name, field, step, pgr_trial_multiples);
}
