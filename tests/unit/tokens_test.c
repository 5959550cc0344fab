/* Which rank holds which tokens, spelled out from DESIGN.md by lists of positions, against
 * pgr_tokens_*; and what stands on that map: the groups of the router's losses, and the sampled
 * rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "layer.h"
#include "verify.h"

enum { LAYOUTS = 400, MICRO_BATCHES = 3, MOST_PACKED = 7 };

/* ---- random layouts ------------------------------------------------------------------------ */

static uint64_t draws = 20261121;

static int64_t between(int64_t low, int64_t high) {
    draws = draws * 6364136223846793005u + 1442695040888963407u;
    return low + (int64_t)((draws >> 33) % (uint64_t)(high - low + 1));
}

enum { TP, CP, DP, PP, AXES };
static const char *const axis_names[AXES] = {"tp", "cp", "dp", "pp"};

/* A layout, and what follows from it by arithmetic of this file alone. */
typedef struct layout {
    pgr_spec spec;
    pgr_plan plan;
    int64_t sizes[AXES], strides[AXES], world;
    int64_t seq_len, padded, batch;
    int64_t sequences, lengths[MOST_PACKED], paddeds[MOST_PACKED]; /* packed; 0: one sequence */
    bool shares;                                                   /* sequence parallelism */
} layout;

static int64_t gcd(int64_t a, int64_t b) {
    return b ? gcd(b, a % b) : a;
}

/* The multiple that the split needs: 2 * cp chunks, cp * tp equal shares. */
static int64_t split_multiple(const layout *l) {
    int64_t chunks = l->sizes[CP] > 1 ? 2 * l->sizes[CP] : 1;
    int64_t shares = l->shares ? l->sizes[TP] * l->sizes[CP] : l->sizes[CP];
    return chunks / gcd(chunks, shares) * shares;
}

/* Megatron-Core's multiple, as its get_padding has it. */
static int64_t megatron_multiple(const layout *l) {
    int64_t tp = l->shares ? l->sizes[TP] : 1;
    return l->sizes[CP] > 1 ? 2 * l->sizes[CP] * tp : tp;
}

static void draw_order(layout *l) {
    int order[AXES] = {TP, CP, DP, PP};
    int64_t stride = 1;
    for (int i = AXES - 1; i > 0; i--) {
        int64_t j = between(0, i);
        int other = order[j];
        order[j] = order[i];
        order[i] = other;
    }
    l->spec.parallel.order[0] = '\0';
    for (int i = 0; i < AXES; i++) {
        strcat(l->spec.parallel.order, i ? "-" : "");
        strcat(l->spec.parallel.order, axis_names[order[i]]);
        l->strides[order[i]] = stride;
        stride *= l->sizes[order[i]];
    }
    l->world = stride;
}

/* No padding, Megatron-Core's, or a multiple that the split allows. */
static void draw_padding(layout *l) {
    int64_t multiple = megatron_multiple(l);
    l->seq_len = between(1, 60);
    switch (between(0, 2)) {
    case 0:
        l->seq_len = split_multiple(l) * between(1, 4);
        multiple = split_multiple(l);
        l->spec.padding.rule = PGR_PAD_MULTIPLE;
        break;
    case 1:
        multiple = split_multiple(l) * between(1, 5);
        l->spec.padding.rule = PGR_PAD_MULTIPLE;
        break;
    }
    l->spec.padding.multiple = multiple;
    l->padded = l->seq_len;
    while (l->padded % multiple)
        l->padded++;
}

/* A few lengths, some of one token: each padded to its chunks, the last one to the whole. */
static void draw_packed(layout *l) {
    int64_t chunks = l->sizes[CP] > 1 ? 2 * l->sizes[CP] : 1;
    l->sequences = between(1, MOST_PACKED);
    l->spec.padding.packed.items = malloc((size_t)l->sequences * sizeof(int64_t));
    l->spec.padding.packed.count = l->sequences;
    l->seq_len = l->padded = 0;
    for (int64_t i = 0; i < l->sequences; i++) {
        l->lengths[i] = between(0, 2) ? between(1, 40) : 1;
        l->spec.padding.packed.items[i] = l->lengths[i];
        l->paddeds[i] = l->lengths[i];
        while (l->paddeds[i] % chunks)
            l->paddeds[i]++;
        l->seq_len += l->lengths[i];
        l->padded += l->paddeds[i];
    }
    for (; l->padded % split_multiple(l); l->padded++)
        l->paddeds[l->sequences - 1]++;
    /* what the config says of one sequence is not for packed ones */
    l->spec.model.seq_len = between(0, 1) ? PGR_NIL : 12345;
}

static layout draw_layout(void) {
    layout l;
    memset(&l, 0, sizeof l);
    pgr_spec_init(&l.spec);
    for (int a = 0; a < AXES; a++)
        l.sizes[a] = between(1, a == PP ? 2 : 4);
    l.shares = between(0, 1);
    l.batch = between(1, 3);
    draw_order(&l);
    draw_padding(&l);
    l.spec.parallel.tp = l.sizes[TP];
    l.spec.parallel.cp = l.sizes[CP];
    l.spec.parallel.pp = l.sizes[PP];
    l.spec.parallel.expert_view = false;
    l.spec.parallel.sequence_parallel = l.shares;
    l.spec.model.seq_len = l.seq_len;
    if (between(0, 2) == 0)
        draw_packed(&l);
    l.spec.model.micro_batch = l.batch;
    pgr_error error;
    if (pgr_plan_create(&l.spec, l.world, &l.plan, &error))
        fail_msg("%s", error.message);
    return l;
}

static int64_t rank_of(const layout *l, const int64_t at[AXES]) {
    int64_t rank = 0;
    for (int a = 0; a < AXES; a++)
        rank += at[a] * l->strides[a];
    return rank;
}

static void coordinates(const layout *l, int64_t rank, int64_t at[AXES]) {
    for (int a = 0; a < AXES; a++)
        at[a] = rank / l->strides[a] % l->sizes[a];
}

static pgr_tokens tokens_of(const layout *l, int64_t rank, bool scattered) {
    pgr_tokens tokens;
    pgr_error error;
    if (pgr_tokens_create(&l->spec, &l->plan, rank, scattered, &tokens, &error))
        fail_msg("%s", error.message);
    return tokens;
}

/* ---- the map, as lists --------------------------------------------------------------------- */

/* Appends what a rank of cp gets of one sequence, `padded` long: it is cut into chunks, and the
 * chunks are dealt out. out: each position's token, counted from `first`; -1 for padding; begins:
 * whether a chunk begins there. */
static int64_t deal(const layout *l, int64_t cp_rank, int64_t first, int64_t length, int64_t padded,
                    int64_t count, int64_t *out, bool *begins) {
    int64_t cp = l->sizes[CP], chunks[2] = {cp_rank, 2 * cp - 1 - cp_rank};
    int64_t rows = cp == 1 ? padded : padded / (2 * cp);
    for (int half = 0; half < (cp == 1 ? 1 : 2); half++)
        for (int64_t i = 0; i < rows; i++) {
            int64_t position = chunks[half] * rows + i;
            begins[count] = i == 0;
            out[count++] = position < length ? first + position : -1;
        }
    return count;
}

/* The tokens of a sample that a rank holds, in its order, -1 for padding; the count is returned.
 * What a rank got of each sequence is joined, and cut again for its tp ranks. */
static int64_t held_tokens(const layout *l, const int64_t at[AXES], bool scattered, int64_t *out,
                           bool *begins) {
    int64_t count = 0, first = 0, dealt[2048];
    bool marks[2048];
    assert_true(l->padded <= 2048);
    for (int64_t i = 0; i < l->sequences; first += l->lengths[i++])
        count = deal(l, at[CP], first, l->lengths[i], l->paddeds[i], count, dealt, marks);
    if (l->sequences == 0)
        count = deal(l, at[CP], 0, l->seq_len, l->padded, 0, dealt, marks);
    int64_t shares = l->shares && scattered ? l->sizes[TP] : 1;
    assert_int_equal(count % shares, 0);
    count /= shares;
    int64_t own = shares > 1 ? at[TP] * count : 0;
    memcpy(out, dealt + own, (size_t)count * sizeof *out);
    memcpy(begins, marks + own, (size_t)count * sizeof *begins);
    return count;
}

/* The id that DESIGN.md gives to a token of sample `i` of dp rank `d` in micro batch `m`. */
static int64_t wanted_id(const layout *l, int64_t m, int64_t d, int64_t i, int64_t token) {
    int64_t sample = (m * l->sizes[DP] + d) * l->batch + i;
    return token < 0 ? -1 : sample * l->seq_len + token;
}

/* Runs are of neighbours, or all padding, and end where they must. */
static void compare_runs(const pgr_tokens *tokens, const int64_t *held) {
    int64_t token;
    for (int64_t p = 0, run; p < tokens->positions; p += run) {
        run = pgr_tokens_run(tokens, p, &token);
        assert_true(run >= 1 && p + run <= tokens->positions);
        for (int64_t i = 0; i < run; i++)
            assert_int_equal(held[p + i], token < 0 ? -1 : token + i);
        int64_t rest, middle = p + run / 2;
        assert_int_equal(pgr_tokens_run(tokens, middle, &rest), run - run / 2);
        assert_int_equal(rest, token < 0 ? -1 : token + run / 2);
    }
}

static void compare_rank(const layout *l, int64_t rank, bool scattered) {
    int64_t at[AXES], held[2048];
    bool begins[2048];
    coordinates(l, rank, at);
    assert_int_equal(rank_of(l, at), rank);
    pgr_tokens tokens = tokens_of(l, rank, scattered);
    int64_t count = held_tokens(l, at, scattered, held, begins);
    assert_int_equal(tokens.seq_len, l->seq_len);
    assert_int_equal(tokens.padded, l->padded);
    assert_int_equal(tokens.positions, count);
    assert_int_equal(tokens.rows, count * l->batch);
    compare_runs(&tokens, held);
    int64_t *ids = malloc((size_t)tokens.rows * sizeof *ids);
    for (int64_t m = 0; m < MICRO_BATCHES; m++) {
        pgr_tokens_ids(&tokens, m, ids);
        for (int64_t row = 0; row < tokens.rows; row++) {
            int64_t id = wanted_id(l, m, at[DP], row % l->batch, held[row / l->batch]);
            assert_int_equal(pgr_tokens_id(&tokens, m, row), id);
            assert_int_equal(ids[row], id);
        }
    }
    free(ids);
}

static void test_rows(void **state) {
    (void)state;
    for (int i = 0; i < LAYOUTS; i++) {
        layout l = draw_layout();
        for (int64_t rank = 0; rank < l.world; rank++) {
            compare_rank(&l, rank, true);
            compare_rank(&l, rank, false);
        }
        pgr_spec_free(&l.spec);
    }
}

/* ---- every token once ---------------------------------------------------------------------- */

/* How often each token, and how many padded positions each sample, has on the ranks counted. */
typedef struct census {
    int64_t samples;
    int *tokens;     /* [samples * seq_len] */
    int64_t *padded; /* [samples] */
} census;

static census census_create(const layout *l) {
    census c = {.samples = MICRO_BATCHES * l->sizes[DP] * l->batch};
    c.tokens = calloc((size_t)(c.samples * l->seq_len), sizeof *c.tokens);
    c.padded = calloc((size_t)c.samples, sizeof *c.padded);
    assert_non_null(c.tokens);
    assert_non_null(c.padded);
    return c;
}

static void census_free(census *c) {
    free(c->tokens);
    free(c->padded);
}

static void census_add(const layout *l, census *c, int64_t rank, int64_t m) {
    int64_t at[AXES];
    coordinates(l, rank, at);
    pgr_tokens tokens = tokens_of(l, rank, true);
    for (int64_t row = 0; row < tokens.rows; row++) {
        int64_t id = pgr_tokens_id(&tokens, m, row);
        assert_true(id >= -1 && id < c->samples * l->seq_len);
        if (id < 0)
            c->padded[(m * l->sizes[DP] + at[DP]) * l->batch + row % l->batch]++;
        else
            c->tokens[id]++;
    }
}

/* Samples first .. first + count - 1 are whole, once each. */
static void census_check(const layout *l, const census *c, int64_t first, int64_t count) {
    for (int64_t sample = 0; sample < c->samples; sample++) {
        bool inside = sample >= first && sample < first + count;
        for (int64_t p = 0; p < l->seq_len; p++)
            assert_int_equal(c->tokens[sample * l->seq_len + p], inside);
        assert_int_equal(c->padded[sample], inside ? l->padded - l->seq_len : 0);
    }
}

/* One pipeline stage, and one of the tp copies where the sequence is not split over tp. */
static bool counts(const layout *l, int64_t rank) {
    int64_t at[AXES];
    coordinates(l, rank, at);
    return at[PP] == 0 && (l->shares || at[TP] == 0);
}

static void test_partition(void **state) {
    (void)state;
    for (int i = 0; i < LAYOUTS; i++) {
        layout l = draw_layout();
        census c = census_create(&l);
        int64_t samples = l.sizes[DP] * l.batch; /* of a micro batch */
        for (int64_t m = 0; m < MICRO_BATCHES; m++) {
            for (int64_t rank = 0; rank < l.world; rank++)
                if (counts(&l, rank))
                    census_add(&l, &c, rank, m);
            census_check(&l, &c, 0, (m + 1) * samples); /* nothing of an earlier one again */
        }
        census_free(&c);
        pgr_spec_free(&l.spec);
    }
}

static void test_refused(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_plan plan;
    pgr_error error;
    pgr_tokens tokens, before;
    pgr_spec_init(&spec);
    spec.parallel.tp = 3;
    spec.parallel.cp = 2;
    spec.parallel.sequence_parallel = true;
    spec.parallel.expert_view = false;
    spec.model.seq_len = 20;
    spec.padding.rule = PGR_PAD_MULTIPLE;
    spec.padding.multiple = 4; /* the 4 chunks fit, 6 shares do not */
    memset(&before, 0x5a, sizeof before);
    tokens = before;
    assert_int_equal(pgr_plan_create(&spec, 6, &plan, &error), PGR_OK);
    assert_int_equal(pgr_tokens_create(&spec, &plan, 0, true, &tokens, &error), PGR_INVALID);
    assert_non_null(strstr(error.message, "seq_len = 20"));
    assert_non_null(strstr(error.message, "multiple of 12"));
    assert_memory_equal(&tokens, &before, sizeof tokens);
    spec.parallel.sequence_parallel = false; /* now they do */
    assert_int_equal(pgr_tokens_create(&spec, &plan, 0, true, &tokens, &error), PGR_OK);
    pgr_spec_free(&spec);
}

/* ---- losses -------------------------------------------------------------------------------- */

static void test_loss_family_names(void **state) {
    (void)state;
    static const pgr_aux_loss local[] = {PGR_AUX_LOSS, PGR_SEQ_AUX_LOSS};
    for (int i = 0; i < 2; i++) {
        assert_string_equal(pgr_router_loss_family(local[i], true), "tp-cp");
        assert_string_equal(pgr_router_loss_family(local[i], false), "cp");
    }
    assert_string_equal(pgr_router_loss_family(PGR_GLOBAL_AUX_LOSS, true), "tp-dp-cp");
    assert_string_equal(pgr_router_loss_family(PGR_GLOBAL_AUX_LOSS, false), "dp-cp");
}

/* What the names are for: the ranks of a loss's group have each token that the loss counts once. */
static void test_loss_groups(void **state) {
    (void)state;
    for (int i = 0; i < LAYOUTS / 4; i++) {
        layout l = draw_layout();
        bool global = between(0, 1);
        int64_t at[AXES], rank = between(0, l.world - 1), m = between(0, MICRO_BATCHES - 1);
        pgr_family family;
        pgr_error error;
        const char *name =
            pgr_router_loss_family(global ? PGR_GLOBAL_AUX_LOSS : PGR_AUX_LOSS, l.shares);
        assert_int_equal(pgr_plan_family_find(&l.plan, name, &family, &error), PGR_OK);
        census c = census_create(&l);
        int64_t group = pgr_family_group(&family, rank);
        for (int64_t member = 0; member < family.size; member++)
            census_add(&l, &c, pgr_family_member(&family, group, member), m);
        coordinates(&l, rank, at);
        int64_t first = m * l.sizes[DP] + (global ? 0 : at[DP]);
        census_check(&l, &c, first * l.batch, (global ? l.sizes[DP] : 1) * l.batch);
        census_free(&c);
        pgr_spec_free(&l.spec);
    }
}

/* ---- weights ------------------------------------------------------------------------------- */

/* The power of two nearest to sqrt(3 / depth) is within a factor sqrt(2) of it: depth * 4^e / 3 is
 * from 1/2 to 2. */
static void test_weight_exponent(void **state) {
    (void)state;
    assert_int_equal(pgr_weight_exponent(3), 0);
    assert_int_equal(pgr_weight_exponent(12), -1);
    assert_int_equal(pgr_weight_exponent(3 << 20), -10);
    assert_int_equal(pgr_weight_exponent(1), 1);
    assert_int_equal(pgr_weight_exponent(1024), -4);
    assert_int_equal(pgr_weight_exponent(4096), -5);
    for (int64_t depth = 1; depth <= 1 << 17; depth++) {
        int32_t e = pgr_weight_exponent(depth);
        int64_t up = e > 0 ? (int64_t)1 << (2 * e) : 1, down = e < 0 ? (int64_t)1 << (-2 * e) : 1;
        assert_true(2 * depth * up >= 3 * down && depth * up <= 6 * down);
    }
}

/* ---- samples ------------------------------------------------------------------------------- */

static bool sampled(const int64_t *samples, int found, int64_t index) {
    for (int i = 0; i < found; i++)
        if (samples[i] == index)
            return true;
    return false;
}

static void check_samples(const int64_t *samples, int found, int64_t count) {
    assert_true(found >= 0 && found <= 16 && found <= count);
    for (int i = 0; i < found; i++) {
        assert_true(samples[i] >= 0 && samples[i] < count);
        assert_true(i == 0 || samples[i] > samples[i - 1]);
    }
}

static void test_sample(void **state) {
    (void)state;
    assert_int_equal(PGR_SAMPLES, 16);
    for (int i = 0; i < 2000; i++) {
        int64_t samples[PGR_SAMPLES], again[PGR_SAMPLES], edges[8];
        int64_t count = i % 2 ? between(0, 40) : between(1000, 100000);
        int edge_count = (int)between(0, 8);
        uint64_t seed = (uint64_t)between(0, 1 << 30) << 20;
        for (int e = 0; e < edge_count; e++)
            edges[e] = between(-2, count + 2);
        int found = pgr_sample(count, edges, edge_count, seed, samples);
        check_samples(samples, found, count);
        for (int e = 0; e < edge_count; e++)
            if (edges[e] >= 0 && edges[e] < count)
                assert_true(sampled(samples, found, edges[e]));
        assert_true(count < 1000 || found == PGR_SAMPLES);
        assert_int_equal(pgr_sample(count, edges, edge_count, seed, again), found);
        assert_memory_equal(samples, again, (size_t)found * sizeof *samples);
    }
}

/* Where there are more edges than samples, the first ones; another seed, other samples. */
static void test_sample_limits(void **state) {
    (void)state;
    int64_t edges[20], samples[PGR_SAMPLES], other[PGR_SAMPLES];
    for (int64_t e = 0; e < 20; e++)
        edges[e] = 100 - e;
    assert_int_equal(pgr_sample(1000, edges, 20, 1, samples), PGR_SAMPLES);
    for (int64_t i = 0; i < PGR_SAMPLES; i++)
        assert_int_equal(samples[i], 85 + i);
    assert_int_equal(pgr_sample(1000000, NULL, 0, 1, samples), PGR_SAMPLES);
    assert_int_equal(pgr_sample(1000000, NULL, 0, 2, other), PGR_SAMPLES);
    assert_memory_not_equal(samples, other, sizeof samples);
}

/* Both sides of every place where another chunk or the padding begins; of three such places where
 * there are more, as packed sequences have. */
static void check_boundaries(const layout *l, int64_t rank, const int64_t *rows, int found) {
    int64_t at[AXES], held[2048], places = 0, seen = 0;
    bool begins[2048];
    coordinates(l, rank, at);
    int64_t count = held_tokens(l, at, true, held, begins);
    assert_true(sampled(rows, found, 0));
    assert_true(sampled(rows, found, count * l->batch - 1));
    for (int64_t p = 1; p < count; p++) {
        if (!begins[p] && (held[p] < 0) == (held[p - 1] < 0))
            continue;
        places++;
        /* the last row before, and the first row behind */
        seen += sampled(rows, found, p * l->batch - 1) && sampled(rows, found, p * l->batch);
    }
    assert_true(places <= 3 || l->sequences > 0);
    assert_true(seen == places || (places > 3 && seen >= 3));
}

static void test_sample_rows(void **state) {
    (void)state;
    for (int i = 0; i < LAYOUTS; i++) {
        layout l = draw_layout();
        for (int64_t rank = 0; rank < l.world; rank++) {
            int64_t at[AXES], rows[PGR_SAMPLES], copies[PGR_SAMPLES];
            pgr_tokens tokens = tokens_of(&l, rank, true);
            int found = pgr_sample_rows(&tokens, 7, rows);
            check_samples(rows, found, tokens.rows);
            check_boundaries(&l, rank, rows, found);
            /* the rank of the first stage, and of the first tp copy, has the same tokens */
            coordinates(&l, rank, at);
            at[PP] = 0;
            at[TP] = l.shares ? at[TP] : 0;
            tokens = tokens_of(&l, rank_of(&l, at), true);
            assert_int_equal(pgr_sample_rows(&tokens, 7, copies), found);
            assert_memory_equal(rows, copies, (size_t)found * sizeof *rows);
        }
        pgr_spec_free(&l.spec);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),        cmocka_unit_test(test_partition),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_loss_family_names),
        cmocka_unit_test(test_loss_groups), cmocka_unit_test(test_weight_exponent),
        cmocka_unit_test(test_sample),      cmocka_unit_test(test_sample_limits),
        cmocka_unit_test(test_sample_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
