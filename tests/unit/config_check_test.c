/* config_check_test - what is wrong with a config as findings: codes, keys and ways out; and where
 * in the file they point. */
#include "config_reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A config and its first finding. `path` is NULL where no key is to blame. */
typedef struct row {
    const char *text, *code, *path, *message, *help;
    int64_t line, column;
    bool written;
} row;

#define TABLE_HELP "it must return a table, such as return { parallel = { tp = 2 } }"

static const row rows[] = {
    /* PG002: the config does not run */
    {"return {\n  parallel = { tp = 2 },\n  model = }\n", "PG002", NULL,
     "unexpected symbol near '}'", "", 3, 3, true},
    {"local x = nil\n\n\treturn { parallel = { tp = x.y } }", "PG002", NULL,
     "attempt to index a nil value (local 'x')", "", 3, 2, true},
    {"local t = os.time()\nreturn t", "PG002", NULL, "attempt to index a nil value (global 'os')",
     "a config has base, string, table and math, without what reaches outside", 1, 1, true},
    {"-- nothing\nerror('mine', 0)", "PG002", NULL, "mine", "", 0, 0, false},
    {"\n  return 5", "PG002", NULL, "the config returns a number", TABLE_HELP, 2, 3, false},
    {"local x = 1", "PG002", NULL, "the config returns nothing", TABLE_HELP, 0, 0, false},
    {"\x1bLua", "PG002", NULL, "this is compiled Lua code", "a config is text", 0, 0, false},
    /* PG003: over a limit */
    {"while true do end\nreturn {}", "PG003", NULL,
     "it runs too long: more than 50 million instructions or 5 seconds",
     "a config may compute, but not loop for ever", 2, 1, false},
    {"local s, t = ('x'):rep(1 << 20), {}\nfor i = 1, 100 do t[i] = s .. i end\nreturn {}", "PG003",
     NULL, "it needs more than 64 MiB of memory, the most that a config may use", "", 3, 1, false},
    {"return { parallel = {}, model = { seq_len = 8 },\n"
     "  padding = { sequence = function() while true do end end } }",
     "PG003", "padding.sequence",
     "padding.sequence: the function failed: it runs too long: more than 50 million instructions "
     "or 5 seconds",
     "a config may compute, but not loop for ever", 2, 26, true},
    /* PG004: an unknown key, told at the key, the nearest name first */
    {"return { parallel = {}, wordl_size = 8 }", "PG004", "wordl_size",
     "wordl_size: found an unknown key", "did you mean `world_size`? allowed: world_size, ", 1, 25,
     true},
    {"local m = {\n  hiden = 64 }\nlocal t = { parallel = {}, model = m }\nreturn t", "PG004",
     "model.hiden", "model.hiden: found an unknown key", "did you mean `hidden`? allowed: ", 2, 3,
     true},
    {"return { parallel = { tp = 2,\n  [\"a b; c\"] = 1 } }", "PG004", "parallel.a b; c",
     "parallel.a b; c: found an unknown key", "allowed: tp, ", 2, 3, true},
    {"return { parallel = { edp = 2 } }", "PG004", "parallel.edp",
     "parallel.edp: found an unknown key",
     "edp is derived: world_size / (etp * ep * pp); allowed: tp, ", 1, 23, true},
    {"return { parallel = {}, 5 }", "PG004", "[1]", "[1]: found a value without a name",
     "allowed: NAME = value", 1, 25, true},
    /* PG005: a wrong value, told at the value */
    {"return {\n  parallel = { tp = 'two' } }", "PG005", "parallel.tp",
     "parallel.tp: found \"two\", a string", "allowed: an integer from 1 to 2^40", 2, 21, true},
    {"local t = {}\nt.parallel = {}\nt.parallel.tp = 0\nreturn t", "PG005", "parallel.tp",
     "parallel.tp: found 0", "allowed: an integer from 1 to 2^40", 3, 17, true},
    {"return { parallel = {}, run = { workloads = { 'mlp',\n 'mpl' } } }", "PG005",
     "run.workloads[2]", "run.workloads[2]: found \"mpl\"", "did you mean `mlp`? allowed: ", 2, 2,
     true},
    {"return { parallel = { tp = '; allowed: x' } }", "PG005", "parallel.tp",
     "parallel.tp: found \"; allowed: x\", a string", "allowed: an integer from 1 to 2^40", 1, 28,
     true},
    /* computed: the nearest key around it that is written */
    {"local p = {}\nfor _, k in ipairs { 'tp' } do p[k] = 0 end\n"
     "return {\n  parallel = p }",
     "PG005", "parallel.tp", "parallel.tp: found 0", "allowed: an integer from 1 to 2^40", 2, 32,
     false},
    {"local t = { parallel = {} }\nfor k in pairs(t) do t[k].tp = 0 end\n return (t)", "PG005",
     "parallel.tp", "parallel.tp: found 0", "allowed: an integer from 1 to 2^40", 2, 32, true},
    {"return {}", "PG005", "parallel", "parallel: found nothing",
     "allowed: a table with the layout, such as parallel = { tp = 2 }", 1, 1, false},
    /* PG006: the padding function */
    {"return { parallel = {}, model = { seq_len = 8 },\n"
     "  padding = { sequence = function() return 0 end } }",
     "PG006", "padding.sequence", "padding.sequence: the function returned 0",
     "allowed: an integer from 1 to 2^40", 2, 26, true},
    {"return { parallel = {}, model = { seq_len = 8 },\n"
     "  padding = { sequence = function() error('mine', 0) end } }",
     "PG006", "padding.sequence", "padding.sequence: the function failed: mine",
     "allowed: a function that returns a multiple of tokens, such as get_padding's 1 here", 2, 26,
     true},
    {"return { parallel = {}, padding = { sequence = function() return 2 end } }", "PG006",
     "padding.sequence",
     "padding.sequence: found a function, which is asked about model.seq_len, but model.seq_len is "
     "missing",
     "give it, or a multiple here", 1, 48, true},
};

/* Whether `text` begins with `wanted`; all of it where `wanted` does not end in a blank. */
static bool matches(const char *text, const char *wanted) {
    size_t length = strlen(wanted);
    if (length > 0 && wanted[length - 1] == ' ')
        return strncmp(text, wanted, length) == 0;
    return strcmp(text, wanted) == 0;
}

static void check_row(const row *r) {
    pgr_spec spec;
    pgr_diagnostics found = {0};
    pgr_locations places = {0};
    pgr_error error = {0};
    size_t bytes = strlen(r->text);
    pgr_status status = pgr_config_check("t.lua", r->text, bytes, NULL, 0, &spec, &found, &error);
    if (status != PGR_INVALID || found.count < 1)
        fail_msg("%s\n%s, %lld findings: %s", r->text, pgr_status_name(status),
                 (long long)found.count, error.message);
    assert_string_equal(error.message, "");
    assert_int_equal(pgr_config_locate(r->text, bytes, NULL, &found, &places), PGR_OK);
    assert_int_equal(places.count, found.count);
    const pgr_diagnostic *first = &found.items[0];
    const pgr_location *at = &places.items[0].items[0];
    if (!first->rule || strcmp(first->rule->code, r->code) ||
        !matches(first->message, r->message) || !matches(first->help, r->help))
        fail_msg("%s\ngot %s %s\n  %s\nexpected %s %s\n  %s", r->text,
                 first->rule ? first->rule->code : "no rule", first->message, first->help, r->code,
                 r->message, r->help);
    if (at->line != r->line || at->column != r->column || at->written != r->written)
        fail_msg("%s\n%s: got %lld:%lld (%d), expected %lld:%lld (%d)", r->text, first->message,
                 (long long)at->line, (long long)at->column, at->written, (long long)r->line,
                 (long long)r->column, r->written);
    assert_int_equal(first->path_count, r->path != NULL);
    assert_int_equal(places.items[0].count, 1);
    assert_string_equal(at->path, r->path ? r->path : "");
    assert_int_equal(first->at_key, strcmp(r->code, "PG004") == 0);
    pgr_locations_free(&places);
    pgr_diagnostics_free(&found);
}

static void every_code(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check_row(&rows[i]);
}

/* All at once, in the order of the file, and what is from --set last and named so. */
static void in_the_order_of_the_file(void **state) {
    (void)state;
    static const char text[] = "return {\n  model = { hidden = 0 },\n  parallel = { tpp = 1,\n"
                               "    tp = 0, cp = 'x' } }";
    static const char *const paths[] = {"model.hidden", "parallel.tpp", "parallel.tp",
                                        "parallel.cp"};
    static const char *const sets[] = {"parallel.cp=0"};
    pgr_spec spec;
    pgr_diagnostics found = {0};
    assert_int_equal(pgr_config_check("t.lua", text, strlen(text), sets, 1, &spec, &found, NULL),
                     PGR_INVALID);
    assert_int_equal(found.count, 4);
    for (int i = 0; i < 4; i++)
        assert_string_equal(found.items[i].paths[0], paths[i]);
    assert_string_equal(found.items[3].message, "--set parallel.cp=0: found 0");
    pgr_diagnostics_free(&found);
}

/* What is not the config's fault is an error, as ever. */
static void a_bad_set_is_no_finding(void **state) {
    (void)state;
    static const char *const sets[] = {"parallel.tpp=2"};
    pgr_spec spec;
    pgr_diagnostics found = {0};
    pgr_error error = {0};
    assert_int_equal(pgr_config_check("t.lua", "return {}", 9, sets, 1, &spec, &found, &error),
                     PGR_USAGE);
    assert_non_null(strstr(error.message, "did you mean `parallel.tp`?"));
    assert_int_equal(found.count, 0);
}

static void a_good_config_adds_nothing(void **state) {
    (void)state;
    static const char text[] = "return { parallel = { tp = 2 } }";
    pgr_spec spec;
    pgr_diagnostics found = {0};
    pgr_locations places = {0};
    assert_int_equal(pgr_config_check("t.lua", text, strlen(text), NULL, 0, &spec, &found, NULL),
                     PGR_OK);
    assert_int_equal(spec.parallel.tp, 2);
    assert_int_equal(found.count, 0);
    assert_int_equal(pgr_config_locate(text, strlen(text), NULL, &found, &places), PGR_OK);
    assert_int_equal(places.count, 0);
    pgr_locations_free(&places);
    pgr_spec_free(&spec);
}

/* Every key of a finding gets its place: its own, or the nearest around it. */
static void every_key_has_its_place(void **state) {
    (void)state;
    static const char text[] = "local p = {\n  tp = 3,\n}\n"
                               "local t = { world_size = 100, parallel = p }\nt.parallel.pp = 2\n"
                               "return t";
    static const struct {
        int64_t line, column;
        bool written;
    } expected[] = {{4, 26, true}, {2, 8, true}, {4, 31, false}, {5, 17, true}, {6, 1, false}};
    pgr_diagnostics found = {0};
    pgr_locations places = {0};
    pgr_diagnose(&found, "PG010", "world_size parallel.tp parallel.cp parallel.pp model.heads",
                 NULL, "x");
    assert_int_equal(pgr_config_locate(text, strlen(text), NULL, &found, &places), PGR_OK);
    assert_int_equal(places.items[0].count, 5);
    for (int i = 0; i < 5; i++) {
        const pgr_location *at = &places.items[0].items[i];
        if (at->line != expected[i].line || at->column != expected[i].column ||
            at->written != expected[i].written)
            fail_msg("%s: got %lld:%lld (%d)", at->path, (long long)at->line, (long long)at->column,
                     at->written);
        assert_string_equal(at->path, found.items[0].paths[i]);
    }
    pgr_locations_free(&places);
    pgr_diagnostics_free(&found);
}

/* A text that is cut or strange has fewer places, and none outside of it. */
static void strange_texts(void **state) {
    (void)state;
    static const char text[] = "local p = { tp = '\xff', [ 'a'] = [[x]] }\nreturn { parallel = p }";
    pgr_diagnostics found = {0};
    pgr_diagnose(&found, "PG010", "parallel.tp a..b[ [ . ", NULL, "x");
    pgr_diagnose(&found, "PG002", "", NULL, "x")->line = 99;
    for (size_t bytes = 0; bytes < sizeof text; bytes++) {
        char *copy = malloc(bytes + 1);
        memcpy(copy, text, bytes);
        pgr_locations places = {0};
        assert_int_equal(pgr_config_locate(copy, bytes, NULL, &found, &places), PGR_OK);
        assert_int_equal(places.items[1].items[0].line, 99);
        assert_int_equal(places.items[1].items[0].column, 1);
        pgr_locations_free(&places);
        free(copy);
    }
    pgr_diagnostics_free(&found);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code),
        cmocka_unit_test(in_the_order_of_the_file),
        cmocka_unit_test(a_bad_set_is_no_finding),
        cmocka_unit_test(a_good_config_adds_nothing),
        cmocka_unit_test(every_key_has_its_place),
        cmocka_unit_test(strange_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
