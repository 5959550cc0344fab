/* plan_mend_test - whoever follows a way out gets out: over random layouts, every value that the
 * help of PG010 to PG018 names is read from its text, applied alone, and the layout planned again.
 * The finding must be gone, and no other rule of planning may be broken that was not before. */
#include "plan.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYOUTS = 8000, CODES = 20 /* PG010 to PG029 */ };

/* splitmix64: the layouts are the same on every machine. */
static uint64_t random_state;

static uint64_t random_bits(void) {
    uint64_t z = (random_state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int64_t below(int64_t count) {
    return (int64_t)(random_bits() % (uint64_t)count);
}

static int64_t one_of(const int64_t *values, int count) {
    return values[below(count)];
}

static void random_order(char out[PGR_NAME_MAX]) {
    static const char *const tokens[] = {"tp", "cp", "ep", "dp", "pp", "etp", "edp", "sp", ""};
    int axes[5] = {0, 1, 2, 3, 4}, count = below(3) == 0 ? (int)below(6) : 5;
    for (int i = 4; i > 0; i--) {
        int other = (int)below(i + 1), kept = axes[i];
        axes[i] = axes[other];
        axes[other] = kept;
    }
    out[0] = '\0';
    for (int i = 0; i < count; i++) {
        bool strange = below(20) == 0;
        strcat(out, i == 0 ? "" : "-");
        strcat(out, tokens[strange ? below(9) : axes[i]]);
    }
}

static void random_spec(pgr_spec *spec) {
    static const int64_t sizes[] = {1, 1, 1, 2, 2, 3, 4, 5, 6, 8};
    pgr_spec_init(spec);
    spec->parallel.tp = one_of(sizes, 10);
    spec->parallel.cp = one_of(sizes, 10);
    spec->parallel.pp = one_of(sizes, 10);
    spec->parallel.ep = one_of(sizes, 10);
    spec->parallel.etp = below(2) ? PGR_NIL : one_of(sizes, 10);
    spec->parallel.dp = below(4) ? PGR_NIL : one_of(sizes, 10);
    spec->parallel.vpp = below(4) ? PGR_NIL : one_of(sizes, 10);
    spec->parallel.expert_view = below(8) != 0;
    spec->parallel.optimizer_instances = below(4) ? 1 : one_of(sizes, 10);
    if (below(2))
        random_order(spec->parallel.order);
    if (below(3) == 0)
        spec->model.layers = 1 + below(40);
    if (below(3) == 0)
        spec->model.heads = 1 + below(64);
    if (below(3) == 0)
        spec->model.global_batch = 1 + below(200);
    if (below(6) == 0)
        return;
    int64_t replica = spec->parallel.tp * spec->parallel.cp * spec->parallel.pp;
    int64_t experts = spec->parallel.ep * spec->parallel.pp;
    spec->world_size = below(3) == 0   ? 1 + below(400)
                       : below(2) == 0 ? replica * (1 + below(24))
                                       : experts * replica * (1 + below(3));
}

/* Which codes are told: bit i is PG010 + i. */
static uint32_t codes_of(const pgr_diagnostics *found) {
    uint32_t codes = 0;
    for (int64_t i = 0; i < found->count; i++)
        codes |= 1u << (atoi(found->items[i].rule->code + 2) - 10);
    return codes;
}

/* What was told, by code. */
static long told[CODES], applied[CODES];

/* One way out: the spec with it, as it is being read. */
typedef struct attempt {
    const pgr_spec *spec;
    uint32_t codes; /* of the spec */
    int code;       /* that the way out is for */
    const char *help;
} attempt;

static void apply(const attempt *a, const pgr_spec *changed) {
    pgr_diagnostics found = {0};
    pgr_plan plan;
    pgr_plan_check(changed, PGR_NIL, &plan, &found);
    uint32_t codes = codes_of(&found);
    if ((codes >> a->code & 1u) != 0 || (codes & ~a->codes) != 0) {
        const pgr_spec *s = a->spec, *c = changed;
        fail_msg("PG0%d: \"%s\"\n  world %" PRId64 " tp %" PRId64 " cp %" PRId64 " pp %" PRId64
                 " ep %" PRId64 " etp %" PRId64 " dp %" PRId64 " vpp %" PRId64 " order %s\n"
                 "  followed: world %" PRId64 " tp %" PRId64 " cp %" PRId64 " pp %" PRId64
                 " ep %" PRId64 " etp %" PRId64 " order %s\n  gives %s: %s",
                 10 + a->code, a->help, s->world_size, s->parallel.tp, s->parallel.cp,
                 s->parallel.pp, s->parallel.ep, s->parallel.etp, s->parallel.dp, s->parallel.vpp,
                 s->parallel.order, c->world_size, c->parallel.tp, c->parallel.cp, c->parallel.pp,
                 c->parallel.ep, c->parallel.etp, c->parallel.order, found.items[0].rule->code,
                 found.items[0].message);
    }
    applied[a->code]++;
    pgr_diagnostics_free(&found);
}

/* The integer key of a name in a way out. */
static int64_t *field_of(pgr_spec *spec, const char *name, size_t length) {
    char path[PGR_NAME_MAX];
    if (length == strlen("world_size") && memcmp(name, "world_size", length) == 0)
        return &spec->world_size;
    snprintf(path, sizeof path, "parallel.%.*s", (int)length, name);
    const pgr_key *key = pgr_key_find(path);
    if (key == NULL || key->type != PGR_KEY_INTEGER)
        fail_msg("a way out names \"%s\"", name);
    return (int64_t *)(void *)((char *)spec + key->offset);
}

static const char *after(const char *text, const char *prefix) {
    size_t length = strlen(prefix);
    return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

/* "96 and 112", "5 or 10", "1, 2 or 4", "64": each value tried by itself. */
static const char *try_values(const attempt *a, const pgr_spec *base, const char *name,
                              size_t length, const char *text) {
    for (;;) {
        char *end;
        pgr_spec changed = *base;
        *field_of(&changed, name, length) = strtoll(text, &end, 10);
        assert_true(end > text);
        apply(a, &changed);
        const char *more = after(end, " and ");
        more = more ? more : after(end, " or ");
        more = more ? more : after(end, ", ");
        if (more == NULL || *more < '0' || *more > '9')
            return end;
        text = more;
    }
}

/* "etp = 2 and ep = 1": together. */
static const char *try_together(const attempt *a, pgr_spec changed, const char *text) {
    for (;;) {
        size_t length = strcspn(text, " ");
        char *end;
        const char *value = after(text + length, " = ");
        assert_non_null(value);
        *field_of(&changed, text, length) = strtoll(value, &end, 10);
        assert_true(end > value);
        text = after(end, " and ");
        if (text == NULL) {
            apply(a, &changed);
            return end;
        }
    }
}

static const char *try_order(const attempt *a, pgr_spec changed, const char *text) {
    size_t length = strcspn(text, "\"");
    assert_true(length < sizeof changed.parallel.order && text[length] == '"');
    memset(changed.parallel.order, 0, sizeof changed.parallel.order);
    memcpy(changed.parallel.order, text, length);
    apply(a, &changed);
    return text + length + 1;
}

/* Reads one way out and tries it; returns what follows it. Words that propose nothing are skipped.
 */
static const char *try_way(const attempt *a, pgr_spec *base, const char *text) {
    const char *rest;
    if ((rest = after(text, "without dp, ")) != NULL) {
        base->parallel.dp = PGR_NIL;
        return rest;
    }
    if ((rest = after(text, "the nearest sizes that fit are ")) != NULL ||
        (rest = after(text, "the nearest size that fits is ")) != NULL)
        rest = try_values(a, base, "world_size", strlen("world_size"), rest);
    else if (after(text, "the size that fits dp = ") != NULL)
        rest = try_values(a, base, "world_size", strlen("world_size"), strstr(text, " is ") + 4);
    else if ((rest = after(text, "in a world of ")) != NULL)
        return rest + strcspn(rest, ",") + 2;
    else if ((rest = after(text, "put pp last (\"")) != NULL)
        rest = try_order(a, *base, rest) + 1;
    else if ((rest = after(text, "as in order = \"")) != NULL)
        rest = try_order(a, *base, rest);
    else if ((rest = after(text, "take smaller sizes")) != NULL)
        return rest;
    else if ((rest = after(text, "take ")) != NULL)
        rest = try_together(a, *base, rest);
    else if ((rest = after(text, "where the model is dense, expert_view = false")) != NULL) {
        pgr_spec changed = *base;
        changed.parallel.expert_view = false;
        apply(a, &changed);
    } else if ((rest = after(text, "leave ")) != NULL) {
        pgr_spec changed = *base;
        size_t length = strcspn(rest, " ");
        *field_of(&changed, rest, length) = PGR_NIL;
        apply(a, &changed);
        rest = after(rest + length, " out");
        assert_non_null(rest);
    } else if (strcmp(text, "...") == 0) { /* a list that goes on */
        rest = text + 3;
    } else if ((rest = strstr(text, " can be ")) != NULL && strcspn(text, " ") < 20) {
        rest = try_values(a, base, text, strcspn(text, " "), rest + strlen(" can be "));
    } else {
        rest = strstr(text, ", as in "); /* the hint of an order */
        if (rest == NULL)
            fail_msg("PG0%d: no way out is read from \"%s\" of \"%s\"", 10 + a->code, text,
                     a->help);
    }
    return rest;
}

static void try_ways(const attempt *a) {
    static const char *const joints[] = {"; or, ", ", or, ", ", or ", ", ", "; "};
    pgr_spec base = *a->spec;
    for (const char *text = a->help; *text != '\0';) {
        if (after(text, " (ep divides the data-parallel ranks") != NULL)
            return;
        text = try_way(a, &base, text);
        for (size_t i = 0; i < sizeof joints / sizeof joints[0]; i++) {
            const char *next = after(text, joints[i]);
            if (next != NULL) {
                /* what was said without dp ends with its worlds */
                base = *a->spec;
                text = next;
                break;
            }
        }
    }
}

static void every_way_out_leads_out(void **state) {
    (void)state;
    random_state = 3;
    for (int i = 0; i < LAYOUTS; i++) {
        pgr_spec spec;
        pgr_plan plan;
        pgr_diagnostics found = {0};
        random_spec(&spec);
        pgr_plan_check(&spec, PGR_NIL, &plan, &found);
        attempt a = {.spec = &spec, .codes = codes_of(&found)};
        for (int64_t k = 0; k < found.count; k++) {
            a.code = atoi(found.items[k].rule->code + 2) - 10;
            a.help = found.items[k].help;
            told[a.code]++;
            if (a.code != 9)
                try_ways(&a);
        }
        pgr_diagnostics_free(&found);
        pgr_spec_free(&spec);
    }
    for (int code = 0; code < CODES; code++)
        print_message("PG0%d: told %ld times, %ld values tried\n", 10 + code, told[code],
                      applied[code]);
    for (int code = 0; code < CODES; code++)
        if (code != 2 && (code < 9 || code == 18) &&
            (told[code] < 100 || applied[code] < told[code]))
            fail_msg("PG0%d was told %ld times and %ld values were tried", 10 + code, told[code],
                     applied[code]);
}

/* What helps is not left out: where a rule of one size could be kept by another value of it in the
 * same world, and planning then says nothing at all, PG010 proposes one for that axis. */
static void a_size_that_helps_is_found(void **state) {
    (void)state;
    static const char *const axes[] = {"tp", "cp", "pp"};
    long proposed = 0;
    random_state = 5;
    for (int i = 0; i < 2000; i++) {
        pgr_spec spec;
        pgr_plan plan;
        pgr_diagnostics found = {0};
        random_spec(&spec);
        spec.world_size = 2 + below(94);
        spec.model.heads = spec.model.layers = spec.model.global_batch = PGR_NIL;
        spec.parallel.dp = spec.parallel.vpp = PGR_NIL;
        spec.parallel.optimizer_instances = 1;
        pgr_plan_check(&spec, PGR_NIL, &plan, &found);
        const pgr_diagnostic *world = NULL;
        for (int64_t k = 0; k < found.count && world == NULL; k++)
            world = strcmp(found.items[k].rule->code, "PG010") == 0 ? &found.items[k] : NULL;
        for (int axis = 0; axis < 3 && world != NULL; axis++) {
            pgr_spec changed = spec;
            int64_t *size = field_of(&changed, axes[axis], 2);
            bool helps = false;
            if (*size == 1)
                continue;
            for (*size = 1; *size <= spec.world_size && !helps; ++*size)
                helps = spec.world_size % *size == 0 &&
                        pgr_plan_create(&changed, PGR_NIL, &plan, NULL) == PGR_OK;
            char words[32];
            snprintf(words, sizeof words, "%s can be ", axes[axis]);
            proposed += helps;
            if (helps && strstr(world->help, words) == NULL)
                fail_msg("%s = %" PRId64 " in a world of %" PRId64 " is not in \"%s\"", axes[axis],
                         *size - 1, spec.world_size, world->help);
        }
        pgr_diagnostics_free(&found);
        pgr_spec_free(&spec);
    }
    print_message("%ld proposed\n", proposed);
    assert_true(proposed > 100);
}

/* The smallest world is that of the rules that a size can keep: the optimizer's instances too. */
static void the_smallest_world_shares_out(void **state) {
    (void)state;
    static const struct {
        int64_t tp, cp, ep, etp, instances, world;
    } rows[] = {{8, 1, 1, 1, 2, 16}, {8, 2, 1, 8, 2, 16}, {8, 2, 1, 16, 2, 32}, {8, 1, 2, 1, 3, 24},
                {2, 1, 8, 1, 4, 32}, {2, 3, 1, 2, 3, 6},  {1, 1, 1, 1, 12, 12}, {8, 1, 1, 1, 1, 8}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pgr_spec spec;
        int64_t smallest = 0;
        pgr_spec_init(&spec);
        spec.parallel.tp = rows[i].tp;
        spec.parallel.cp = rows[i].cp;
        spec.parallel.ep = rows[i].ep;
        spec.parallel.etp = rows[i].etp;
        spec.parallel.optimizer_instances = rows[i].instances;
        assert_int_equal(pgr_plan_smallest_world(&spec, &smallest, NULL), PGR_OK);
        if (smallest != rows[i].world)
            fail_msg("row %zu: %" PRId64 ", not %" PRId64, i, smallest, rows[i].world);
        pgr_spec_free(&spec);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_out_leads_out),
        cmocka_unit_test(a_size_that_helps_is_found),
        cmocka_unit_test(the_smallest_world_shares_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
