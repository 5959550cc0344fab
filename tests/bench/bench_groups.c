/* bench_groups.c - the groups of a million ranks: what `pgrun groups` prints against a plain loop
 * that writes as many bytes, and questions about random ranks against looking them up in tables.
 */
#include "groups.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 9, WORLD = 1 << 20, QUESTIONS = 1 << 20 };

static double seconds[4][ROUNDS]; /* of each thing that is measured, of each round */

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *times) {
    qsort(times, ROUNDS, sizeof *times, compare);
    return times[ROUNDS / 2];
}

static void *need(void *memory) {
    if (memory == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(3);
    }
    return memory;
}

static pgr_plan plan_of(int64_t world, int64_t tp, int64_t cp, int64_t pp, int64_t ep,
                        int64_t etp) {
    pgr_plan plan;
    pgr_spec spec;
    pgr_error error;
    pgr_spec_init(&spec);
    spec.parallel.tp = tp;
    spec.parallel.cp = cp;
    spec.parallel.pp = pp;
    spec.parallel.ep = ep;
    spec.parallel.etp = etp;
    if (pgr_plan_create(&spec, world, &plan, &error) != PGR_OK) {
        fprintf(stderr, "%s\n", error.message);
        exit(1);
    }
    pgr_spec_free(&spec);
    return plan;
}

/* ---- printing ---- */

/* A buffer as plain programs have it. */
typedef struct plain_text {
    FILE *out;
    size_t used;
    int64_t bytes;
    char buffer[65536];
} plain_text;

static void plain_flush(plain_text *t) {
    t->bytes += (int64_t)fwrite(t->buffer, 1, t->used, t->out);
    t->used = 0;
}

/* The plain loop: lists of as many groups of as many ranks, ascending, digit by digit. */
static int64_t plain(FILE *out, const pgr_groups *groups) {
    static plain_text t;
    t = (plain_text){.out = out};
    for (int32_t f = 0; f < groups->family_count; f++) {
        int64_t size = groups->families[f].size, ranks = size * groups->families[f].count;
        t.buffer[t.used++] = '[';
        for (int64_t rank = 0, place = 0; rank < ranks; rank++) {
            char digits[24];
            int count = 0;
            int64_t value = rank;
            do {
                digits[count++] = (char)('0' + value % 10);
                value /= 10;
            } while (value > 0);
            if (t.used + 32 > sizeof t.buffer)
                plain_flush(&t);
            if (rank > 0)
                t.buffer[t.used++] = ',';
            if (place == 0)
                t.buffer[t.used++] = '[';
            while (count > 0)
                t.buffer[t.used++] = digits[--count];
            if (++place == size) {
                t.buffer[t.used++] = ']';
                place = 0;
            }
        }
        t.buffer[t.used++] = ']';
    }
    plain_flush(&t);
    return t.bytes;
}

/* The bytes that the JSON has. */
static int64_t json_bytes(const pgr_groups *groups) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *memory = need(open_memstream(&text, &bytes));
    pgr_groups_print(groups, memory, NULL);
    fclose(memory);
    free(text);
    return (int64_t)bytes;
}

static void printing(const char *what, pgr_groups *groups, FILE *out) {
    int64_t bytes = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double start = pgr_clock_seconds();
        groups->format = PGR_GROUPS_JSON;
        pgr_groups_print(groups, out, NULL);
        seconds[0][round] = pgr_clock_seconds() - start;
        start = pgr_clock_seconds();
        bytes = plain(out, groups);
        seconds[1][round] = pgr_clock_seconds() - start;
        start = pgr_clock_seconds();
        groups->format = PGR_GROUPS_CSV;
        pgr_groups_print(groups, out, NULL);
        seconds[2][round] = pgr_clock_seconds() - start;
        start = pgr_clock_seconds();
        groups->summary = true;
        groups->format = PGR_GROUPS_TEXT;
        pgr_groups_print(groups, out, NULL);
        groups->summary = false;
        seconds[3][round] = pgr_clock_seconds() - start;
    }
    double json = median(seconds[0]), loop = median(seconds[1]);
    groups->format = PGR_GROUPS_JSON;
    printf("%s, %d ranks, %" PRId32
           " families: json %.3f s (%.1f MB), plain loop %.3f s (%.1f MB), json / plain "
           "%.2f; csv %.3f s; summary %.2f ms\n",
           what, WORLD, groups->family_count, json, (double)json_bytes(groups) / 1e6, loop,
           (double)bytes / 1e6, json / loop, median(seconds[2]), median(seconds[3]) * 1e3);
}

static void print_all(FILE *out) {
    static const char *const eleven[] = {"tp", "cp",  "dp",     "dp-cp",     "pp", "tp-pp",
                                         "ep", "etp", "etp-ep", "etp-ep-pp", "edp"};
    static pgr_groups groups;
    groups.plan = plan_of(WORLD, 8, 2, 8, 8, PGR_NIL);
    groups.rank = PGR_NIL;
    groups.gpus_per_node = 8;
    groups.nvlink_domain = 72;
    for (size_t i = 0; i < sizeof eleven / sizeof eleven[0]; i++)
        pgr_plan_family_find(&groups.plan, eleven[i], &groups.families[groups.family_count++],
                             NULL);
    printing("eleven families", &groups, out);
    groups.family_count = 0;
    for (int32_t i = 0; i < pgr_plan_family_count(&groups.plan); i++)
        groups.families[groups.family_count++] = pgr_plan_family_at(&groups.plan, i);
    printing("all families", &groups, out);
}

/* ---- questions ---- */

typedef struct question {
    int32_t family, rank;
} question;

/* xorshift: the same questions each time. */
static uint32_t next_random(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void ask(const char *what, const pgr_plan *plan) {
    pgr_family families[PGR_GROUPS_FAMILIES_MAX];
    int32_t count = pgr_plan_family_count(plan);
    question *questions = need(malloc(QUESTIONS * sizeof *questions));
    int32_t *table = need(malloc((size_t)count * (size_t)plan->world_size * 2 * sizeof *table));
    int64_t sums[3] = {0}, world = plan->world_size;
    uint32_t state = 1;
    for (int32_t f = 0; f < count; f++) {
        families[f] = pgr_plan_family_at(plan, f);
        for (int64_t rank = 0; rank < world; rank++) {
            table[2 * (f * world + rank)] = (int32_t)pgr_family_group(&families[f], rank);
            table[2 * (f * world + rank) + 1] = (int32_t)pgr_family_rank(&families[f], rank);
        }
    }
    for (int i = 0; i < QUESTIONS; i++) {
        questions[i].family = (int32_t)(next_random(&state) % (uint32_t)count);
        questions[i].rank = (int32_t)(next_random(&state) % (uint32_t)world);
    }
    for (int round = 0; round < ROUNDS; round++) {
        double start = pgr_clock_seconds();
        for (int i = 0; i < QUESTIONS; i++)
            sums[0] += pgr_family_group(&families[questions[i].family], questions[i].rank);
        seconds[0][round] = pgr_clock_seconds() - start;
        start = pgr_clock_seconds();
        for (int i = 0; i < QUESTIONS; i++) {
            const pgr_family *family = &families[questions[i].family];
            sums[1] += pgr_family_group(family, questions[i].rank) +
                       pgr_family_rank(family, questions[i].rank);
        }
        seconds[1][round] = pgr_clock_seconds() - start;
        start = pgr_clock_seconds();
        for (int i = 0; i < QUESTIONS; i++) {
            const int32_t *entry = &table[2 * (questions[i].family * world + questions[i].rank)];
            sums[2] += entry[0] + entry[1];
        }
        seconds[2][round] = pgr_clock_seconds() - start;
    }
    double group = median(seconds[0]), both = median(seconds[1]), lookup = median(seconds[2]);
    printf("%s, %" PRId64 " ranks, %" PRId32
           " families: group %.1f million a second, group and rank in "
           "it %.1f million, read from a stored table of %.0f MB %.1f million%s\n",
           what, world, count, QUESTIONS / group / 1e6, QUESTIONS / both / 1e6,
           (double)count * (double)world * 8 / 1e6, QUESTIONS / lookup / 1e6,
           sums[1] == sums[2] ? "" : " (WRONG: the answers differ)");
    free(questions);
    free(table);
}

int main(void) {
    FILE *out = fopen("/dev/null", "w");
    if (out == NULL)
        return 3;
    print_all(out);
    fclose(out);
    pgr_plan even = plan_of(WORLD, 8, 2, 8, 8, PGR_NIL);
    pgr_plan uneven = plan_of(1048500, 6, 3, 5, 6, 3);
    ask("sizes that are powers of two (tp 8, cp 2, pp 8, ep 8)", &even);
    ask("other sizes (tp 6, cp 3, pp 5, ep 6, etp 3)", &uneven);
    return 0;
}
