/* padding_test.c - the padding rule against every recorded answer of Megatron-Core's get_padding,
 * and what it refuses. */
#include "check.h"
#include "spec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

static int64_t integer_of(const json_t *row, const char *key) {
    const json_t *value = json_object_get(row, key);
    return json_is_integer(value) ? json_integer_value(value) : PGR_NIL;
}

static bool flag_of(const json_t *row, const char *key) {
    return json_is_true(json_object_get(row, key));
}

/* The recorded name of a recipe; an unknown one fails the test. */
static pgr_fp8_recipe recipe_of(const json_t *row) {
    const char *name = json_string_value(json_object_get(row, "fp8_recipe"));
    if (name == NULL)
        return PGR_FP8_NONE;
    static const char *const names[] = {"", "delayed", "tensorwise", "blockwise", "mxfp8"};
    for (int i = 1; i < 5; i++)
        if (strcmp(name, names[i]) == 0)
            return (pgr_fp8_recipe)i;
    fail_msg("unknown fp8_recipe \"%s\"", name);
    return PGR_FP8_NONE;
}

static void every_oracle_row(void **state) {
    (void)state;
    FILE *file = fopen(PGR_ORACLES "/megatron-padding.jsonl", "r");
    assert_non_null(file);
    static char line[65536];
    int rows = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        json_t *row = json_loads(line, 0, NULL);
        assert_non_null(row);
        rows++;
        pgr_padding_args args = {.rule = PGR_PAD_MEGATRON,
                                 .seq_len = integer_of(row, "seq_len"),
                                 .cp = integer_of(row, "cp"),
                                 .tp = integer_of(row, "tp"),
                                 .sequence_parallel = flag_of(row, "sequence_parallel"),
                                 .tp_comm_overlap = flag_of(row, "tp_comm_overlap"),
                                 .decoder_seq_len = integer_of(row, "decoder_seq_len"),
                                 .fp8 = flag_of(row, "fp8"),
                                 .fp8_recipe = recipe_of(row)};
        int64_t padding = -1;
        pgr_error error = {0};
        pgr_status status = pgr_padding(&args, &padding, &error);
        if (status != PGR_OK || padding != integer_of(row, "padding")) {
            fail_msg("row %d: got status %s, padding %lld (%s)\n%s", rows, pgr_status_name(status),
                     (long long)padding, error.message, line);
        }
        json_decref(row);
    }
    fclose(file);
    assert_int_equal(rows, 150);
}

static pgr_padding_args plain(int64_t seq_len) {
    return (pgr_padding_args){.seq_len = seq_len, .cp = 1, .tp = 1, .decoder_seq_len = PGR_NIL};
}

static void a_multiple_ignores_the_layout(void **state) {
    (void)state;
    pgr_padding_args args = plain(1000);
    args.rule = PGR_PAD_MULTIPLE;
    args.multiple = 128;
    args.cp = 8;
    args.sequence_parallel = args.tp_comm_overlap = true;
    int64_t padding = -1;
    assert_int_equal(pgr_padding(&args, &padding, NULL), PGR_OK);
    assert_int_equal(padding, 24);
    args.seq_len = 1024;
    assert_int_equal(pgr_padding(&args, &padding, NULL), PGR_OK);
    assert_int_equal(padding, 0);
}

static void arguments_come_from_the_spec(void **state) {
    (void)state;
    pgr_spec spec;
    pgr_spec_init(&spec);
    spec.parallel.tp = 4;
    spec.parallel.cp = 2;
    spec.parallel.sequence_parallel = true;
    spec.model.seq_len = 100;
    pgr_padding_args args = pgr_padding_args_of(&spec);
    int64_t padding = -1;
    assert_int_equal(pgr_padding(&args, &padding, NULL), PGR_OK);
    assert_int_equal(padding, 12); /* to a multiple of 2 * cp * tp = 16 */
    pgr_spec_free(&spec);
}

/* The refusal's status and a part of its message; the output stays as it was. */
static void refused(pgr_padding_args args, pgr_status status, const char *part) {
    int64_t padding = 77;
    pgr_error error = {0};
    assert_int_equal(pgr_padding(&args, &padding, &error), status);
    assert_int_equal(error.status, status);
    assert_int_equal(padding, 77);
    if (strstr(error.message, part) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", part, error.message);
}

static void refusals_have_the_values(void **state) {
    (void)state;
    pgr_padding_args overlap = plain(512);
    overlap.sequence_parallel = overlap.tp_comm_overlap = true;
    refused(overlap, PGR_INVALID, "decoder_seq_len, which is not given");
    overlap.decoder_seq_len = 511;
    refused(overlap, PGR_INVALID, "decoder_seq_len = 511 is shorter than seq_len = 512");
    refused(plain(0), PGR_INVALID, "seq_len = 0");
    refused(plain(PGR_NIL), PGR_INVALID, "model.seq_len");
    pgr_padding_args sizes = plain(8);
    sizes.cp = 0;
    refused(sizes, PGR_INVALID, "cp = 0");
    pgr_padding_args multiple = plain(8);
    multiple.rule = PGR_PAD_MULTIPLE;
    multiple.multiple = -1;
    refused(multiple, PGR_INVALID, "multiple = -1");
}

static void overflow_is_a_limit(void **state) {
    (void)state;
    pgr_padding_args wide = plain(8);
    wide.cp = INT64_MAX / 2 + 1;
    refused(wide, PGR_LIMIT, "63 bits");
    wide.cp = INT64_MAX / 4;
    wide.tp = 4;
    wide.sequence_parallel = true;
    refused(wide, PGR_LIMIT, "63 bits");
    pgr_padding_args lengthy = plain(INT64_MAX);
    lengthy.cp = 2;
    refused(lengthy, PGR_LIMIT, "63 bits");
}

/* ---- packed sequences ---------------------------------------------------------------------- */

enum { MOST = 9 };

/* Four sequences at cp = 2 and tp = 3: each to a multiple of 4, all to one of 12, by the last. */
static void packed_by_hand(void **state) {
    (void)state;
    static const int64_t lengths[] = {5, 1, 8, 3}, real[] = {0, 5, 6, 14, 17};
    static const int64_t padded[] = {0, 8, 12, 20, 24}, with_tp[] = {0, 8, 12, 20, 24};
    static const int64_t wide[] = {0, 8, 12, 20, 40}, plain_sums[] = {0, 5, 6, 14, 17};
    pgr_packed_args args = {lengths, 4, 2, 3, false};
    int64_t cu[5], cu_padded[5], longest;
    assert_int_equal(pgr_padding_packed(&args, cu, cu_padded, &longest, NULL), PGR_OK);
    assert_memory_equal(cu, real, sizeof real);
    assert_memory_equal(cu_padded, padded, sizeof padded);
    assert_int_equal(longest, 8);
    args.sequence_parallel = true; /* 24 is a multiple of 12 */
    assert_int_equal(pgr_padding_packed(&args, cu, cu_padded, &longest, NULL), PGR_OK);
    assert_memory_equal(cu_padded, with_tp, sizeof with_tp);
    args.tp = 10; /* lcm(4, 20): the last takes 16 more */
    assert_int_equal(pgr_padding_packed(&args, cu, cu_padded, &longest, NULL), PGR_OK);
    assert_memory_equal(cu_padded, wide, sizeof wide);
    assert_int_equal(longest, 20);
    args = (pgr_packed_args){lengths, 4, 1, 4, false}; /* nothing to split */
    assert_int_equal(pgr_padding_packed(&args, cu, cu_padded, &longest, NULL), PGR_OK);
    assert_memory_equal(cu_padded, plain_sums, sizeof plain_sums);
    assert_int_equal(longest, 8);
}

static uint64_t draws = 5;

static int64_t between(int64_t low, int64_t high) {
    draws = draws * 6364136223846793005u + 1442695040888963407u;
    return low + (int64_t)((draws >> 33) % (uint64_t)(high - low + 1));
}

/* Counted up one by one, and the same tokens as `pgrun check` reckons with. */
static void packed_by_counting(void **state) {
    (void)state;
    for (int i = 0; i < 2000; i++) {
        int64_t lengths[MOST], cu[MOST + 1], cu_padded[MOST + 1], longest, most = 0;
        pgr_packed_args args = {lengths, between(1, MOST), between(1, 8), between(1, 8),
                                between(0, 1)};
        int64_t chunks = args.cp > 1 ? 2 * args.cp : 1,
                shares = args.sequence_parallel ? args.tp : 1;
        for (int64_t j = 0; j < args.sequences; j++)
            lengths[j] = between(0, 3) ? between(1, 100) : 1;
        assert_int_equal(pgr_padding_packed(&args, cu, cu_padded, &longest, NULL), PGR_OK);
        int64_t real = 0, padded = 0;
        for (int64_t j = 0; j < args.sequences; j++) {
            assert_int_equal(cu[j], real);
            assert_int_equal(cu_padded[j], padded);
            int64_t whole = lengths[j];
            while (whole % chunks)
                whole++;
            while (j == args.sequences - 1 && (padded + whole) % (shares * args.cp))
                whole += chunks;
            most = whole > most ? whole : most;
            real += lengths[j];
            padded += whole;
        }
        assert_int_equal(cu[args.sequences], real);
        assert_int_equal(cu_padded[args.sequences], padded);
        assert_int_equal(longest, most);
        pgr_spec spec;
        pgr_spec_init(&spec);
        spec.parallel.cp = args.cp;
        spec.parallel.tp = args.tp;
        spec.parallel.sequence_parallel = args.sequence_parallel;
        spec.padding.packed = (pgr_list){args.sequences, lengths};
        assert_int_equal(pgr_check_tokens(&spec), padded);
        spec.padding.packed = (pgr_list){0};
        pgr_spec_free(&spec);
    }
}

static void packed_refused(pgr_packed_args args, pgr_status status, const char *part) {
    int64_t sums[8] = {7, 7, 7, 7, 7, 7, 7, 7}, longest = 7;
    pgr_error error = {0};
    assert_int_equal(pgr_padding_packed(&args, sums, sums + 4, &longest, &error), status);
    if (strstr(error.message, part) == NULL)
        fail_msg("\"%s\" is not in \"%s\"", part, error.message);
    for (int i = 0; i < 8; i++)
        assert_int_equal(sums[i], 7);
    assert_int_equal(longest, 7);
}

static void packed_refusals(void **state) {
    (void)state;
    static const int64_t empty[] = {4, 0, 4}, vast[] = {INT64_MAX - 4, 3, 2}, one[] = {INT64_MAX};
    packed_refused((pgr_packed_args){empty, 3, 2, 1, false}, PGR_INVALID,
                   "packed sequence 2 of 3 has 0 tokens");
    packed_refused((pgr_packed_args){empty, 0, 2, 1, false}, PGR_INVALID, "0 packed sequences");
    packed_refused((pgr_packed_args){empty, 1, 0, 1, false}, PGR_INVALID, "cp = 0");
    packed_refused((pgr_packed_args){vast, 3, 1, 1, false}, PGR_LIMIT, "63 bits");
    packed_refused((pgr_packed_args){one, 1, 2, 1, false}, PGR_LIMIT, "63 bits");
    packed_refused((pgr_packed_args){empty, 1, INT64_MAX / 2 + 1, 1, false}, PGR_LIMIT, "63 bits");
    packed_refused((pgr_packed_args){empty, 1, INT64_MAX / 4, 8, true}, PGR_LIMIT, "63 bits");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_oracle_row),
        cmocka_unit_test(a_multiple_ignores_the_layout),
        cmocka_unit_test(arguments_come_from_the_spec),
        cmocka_unit_test(refusals_have_the_values),
        cmocka_unit_test(overflow_is_a_limit),
        cmocka_unit_test(packed_by_hand),
        cmocka_unit_test(packed_by_counting),
        cmocka_unit_test(packed_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
