/* positions_test - where in a config's text its values stand: never at another value than the one
 * in force, through all ways to write a table, and in time that grows with the text alone. */
#include "config_reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A config and the place of one of its keys: "=" written there, "~" set there by a computed key,
 * "^" the nearest around it. */
typedef struct row {
    const char *text, *path;
    int64_t line, column;
    char how;
} row;

static const row rows[] = {
    /* the value in force, not another one */
    {"local c, t = true, { parallel = {} }\n"
     "if c then t.parallel.tp = 3\nelse t.parallel.tp = 4 end return t",
     "parallel.tp", 2, 27, '='},
    {"local c, t = false, { parallel = {} }\n"
     "if c then t.parallel.tp = 3\nelse t.parallel.tp = 4 end return t",
     "parallel.tp", 3, 22, '='},
    {"local t = { parallel = { tp = 2 } }\nlocal p = t.parallel\np.tp = 3\nreturn t", "parallel.tp",
     3, 8, '='},
    {"local t = { parallel = { tp = 2 } }\nlocal function f(x) x.tp = 3 end\nf(t.parallel)\nreturn "
     "t",
     "parallel.tp", 1, 13, '^'},
    {"local t = { parallel = {} }\nif false then t.parallel.tp = 4 end\nreturn t", "parallel.tp", 1,
     13, '^'},
    {"local n = 2\nlocal t = { parallel = { tp = n } }\nif false then t.parallel.tp = 4 "
     "end\nreturn t",
     "parallel.tp", 2, 31, '='},
    {"local n = 2\nlocal t = { parallel = { tp = 2 } }\nif not n then t.parallel.tp = n + 2 end\n"
     "return t",
     "parallel.tp", 3, 31, '='}, /* it may be: n is not looked into */
    {"local n = 4\nlocal t = { parallel = { tp = 2 } }\nif not n then t.parallel.tp = n "
     "end\nreturn t",
     "parallel.tp", 2, 31, '='}, /* it cannot be: n is 4 */
    {"local n = 1\nfor i = 1, 3 do n = n * 2 end\nreturn { parallel = { tp = n } }", "parallel.tp",
     3, 28, '='},
    {"local t = { parallel = {} }\nlocal n = 1\n"
     "while n < 5 do t.parallel.tp = n\nn = n + 1 end\nreturn t",
     "parallel.tp", 3, 32, '='},
    {"local n = 1\nlocal function make() return { tp = n } end\nn = 2\nreturn { parallel = make() "
     "}",
     "parallel.tp", 2, 37, '='},
    {"local c = 1\nreturn { parallel = c == 2 and\n{ tp = 2 } or\n{ tp = 4 } }", "parallel.tp", 4,
     8, '='},
    {"local c = 2\nreturn { parallel = c == 2 and\n{ tp = 2 } or\n{ tp = 4 } }", "parallel.tp", 3,
     8, '='},
    {"return { parallel = { tp = 0x10 } }", "parallel.tp", 1, 28, '='},
    {"return { run = { timeout = 1e3 }, parallel = {} }", "run.timeout", 1, 28, '='},
    {"return { run = { timeout = 1000, timeout = 0x1p4 }, parallel = {} }", "run.timeout", 1, 44,
     '='},
    {"return { run = { timeout = 2^3 }, parallel = {} }", "run.timeout", 1, 28, '='},
    {"return { run = { seed = -5 }, parallel = {} }", "run.seed", 1, 25, '='},
    {"return { run = { seed = 0xfffffffffffffffb }, parallel = {} }", "run.seed", 1, 25, '='},
    {"return { run = { seed = '\\65' }, parallel = {} }", "run.seed", 1, 25, '='},
    {"return { parallel = { order = [[\ntp-dp]] } }", "parallel.order", 1, 31, '='},
    {"local t = { parallel = {}, model = { bias = false } }\nif not t then t.model.bias = true "
     "end\n"
     "return t",
     "model.bias", 1, 45, '='},
    {"local t = { parallel = { tp = 2 } }\nt.parallel.tp = nil\nreturn t", "parallel.tp", 2, 17,
     '='},
    {"local t = { parallel = { tp = 4 } }\nt.parallel = { cp = 2 }\nreturn t", "parallel.tp", 2, 1,
     '^'},
    /* all ways to write a constructor */
    {"local parallel <const> = { tp = 3 }\nreturn { parallel = parallel }", "parallel.tp", 1, 33,
     '='},
    {"local p = { pp = 1; tp = 3; cp = 1 }\nreturn { parallel = p; }", "parallel.tp", 1, 26, '='},
    {"return ({ parallel = { tp = 3 } })", "parallel.tp", 1, 29, '='},
    {"return setmetatable({ parallel = { tp = 3 } }, nil)", "parallel.tp", 1, 41, '='},
    {"local x = false\nif x then\nreturn { parallel = { tp = 3 } } end\n"
     "return { parallel = { tp = 4 } }",
     "parallel.tp", 4, 28, '='},
    {"local x = true\nif x then\nreturn { parallel = { tp = 3 } } end\n"
     "return { parallel = { tp = 4 } }",
     "parallel.tp", 3, 28, '='},
    {"local x = true\nif x then\nreturn { parallel = { tp = 3, cp = 2 } } end\n"
     "return { parallel = { tp = 4, cp = 2 } }",
     "parallel.cp", 3, 36, '='}, /* the same value, but of the other return */
    {"local x = true\nif x then\nreturn { parallel = { tp = 3 } } end\n"
     "return { parallel = { tp = 4 } }",
     "model.heads", 3, 1, '^'},
    {"local a, b = { heads = 8 }, { tp = 3 }\nreturn { model = a, parallel = b }", "parallel.tp", 1,
     36, '='},
    {"local t = {}\nt[\"parallel\"] = { tp = 3 }\nreturn t", "parallel.tp", 2, 24, '='},
    {"local t = { model = { heads = 4 }, parallel = {} }\nt.model[\"heads\"] = 52\nreturn t",
     "model.heads", 2, 20, '='},
    {"local base = { parallel = { tp = 3 } }\nreturn { parallel = base.parallel }", "parallel.tp",
     1, 34, '='},
    {"local base = { parallel = { tp = 3 } }\nreturn { parallel = base['parallel'] }",
     "parallel.tp", 1, 34, '='},
    {"local t = { parallel = {} }\nlocal p = t.parallel\np.tp = 3\nreturn t", "parallel.tp", 3, 8,
     '='},
    {"local function make() return { parallel = { tp = 3 } } end\nreturn make()", "parallel.tp", 1,
     50, '='},
    {"local make = function(n)\nlocal t = { tp = 1 }\nt.tp = n\nreturn t end\n"
     "return { parallel = make(3) }",
     "parallel.tp", 3, 8, '='},
    {"local m = {}\nfunction m.make() return { tp = 3 } end\nreturn { parallel = m.make() }",
     "parallel.tp", 2, 33, '='},
    {"config = { parallel = { tp = 3 } }\nreturn config", "parallel.tp", 1, 30, '='},
    {"local t = { parallel = {} }\ndo local t = t.parallel\nt.tp = 3 end\nreturn t", "parallel.tp",
     3, 8, '='},
    {"local t, u = {}, {}\nt.parallel, u.x = { tp = 3 }, 1\nreturn t", "parallel.tp", 2, 26, '='},
    {"local k = 'tp'\nlocal t = { parallel = {} }\nt.parallel[k] = 3\nreturn t", "parallel.tp", 3,
     17, '='},
    {"local t = { parallel = { tp = 1 } }\nrawset(t.parallel, 'tp', 3)\nreturn t", "parallel.tp", 2,
     26, '='},
    {"return { parallel = {}, run = { workloads = { 'mlp',\n'router' } } }", "run.workloads[2]", 2,
     1, '='},
    {"local w = {}\nw[1] = 'mlp'\nw[2] = 'router'\nreturn { parallel = {}, run = { workloads = w } "
     "}",
     "run.workloads[2]", 3, 8, '='},
    {"local t = { s = '\\z\n  }', parallel = { tp = 3 } }\nt.s = nil\nreturn t", "parallel.tp", 2,
     25, '='},
    {"\xEF\xBB\xBF#!/usr/bin/pgrun\nreturn { parallel = { tp = 3 } }", "parallel.tp", 2, 28, '='},
    {"local function merge(a, b) for k, v in pairs(b) do a[k] = v end return a end\n"
     "return merge({ parallel = { tp = 2 }, world_size = 8 },\n{ parallel = { tp = 3 } })",
     "parallel.tp", 3, 21, '='},
    {"local function merge(a, b) for k, v in pairs(b) do a[k] = v end return a end\n"
     "return merge({ parallel = { tp = 2 }, world_size = 8 },\n{ parallel = { tp = 3 } })",
     "world_size", 2, 52, '='},
    {"local function merge(a, b)\nlocal c = {} for k, v in pairs(a) do c[k] = v end\n"
     "for k, v in pairs(b) do c[k] = v end return c end\n"
     "return merge({ parallel = { tp = 2 }, world_size = 8 },\n{ parallel = { tp = 3 } })",
     "parallel.tp", 5, 21, '='},
    {"local function copy(t) local c = {} for k, v in pairs(t) do c[k] = v end return c end\n"
     "local p = copy({ tp = 2 })\np.tp = 3\nreturn { parallel = p }",
     "parallel.tp", 3, 8, '='},
    /* computed */
    {"local c = { parallel = {} }\nfor k, v in pairs { tp = 3 } do\n  c.parallel[k] = "
     "v\nend\nreturn c",
     "parallel.tp", 3, 3, '~'},
    {"local c = { parallel = {} }\nfor k, v in pairs { tp = 3 } do\n  c.parallel[k] = "
     "v\nend\nreturn c",
     "parallel.cp", 1, 13, '^'}, /* not set at all */
    {"local c = {}\nfor _, k in ipairs { 'parallel' } do\n  c[k] = { tp = 3 }\nend\nreturn c",
     "parallel.tp", 3, 17, '='},
    {"local p = {}\np['t' .. 'p'] = 3\nreturn { parallel = p }", "parallel.tp", 2, 1, '~'},
    /* the nearest around it */
    {"return { model = { heads = 52 },\n  parallel = {} }", "parallel.tp", 2, 3, '^'},
    {"\n return { parallel = {} }", "model.heads", 2, 2, '^'},
    {"local function id(t) return { parallel = { tp = t.parallel.tp + 1 } } end\n"
     "return id({ parallel = { tp = 3 } })",
     "parallel.tp", 1, 49, '='},
    {"local function more(t) t.parallel.tp = t.parallel.tp + 1 return t end\n"
     "return more({ parallel = { tp = 3 } })",
     "parallel.tp", 2, 15, '^'},
    {"local function copy(t) local c = {} for k, v in pairs(t) do c[k] = v end return c end\n"
     "local p = { tp = n }\nlocal q = copy(p)\nreturn { parallel = q, model = { heads = 4 } }",
     "parallel.tp", 4, 10, '^'},
};

static bool check_row(const row *r) {
    size_t bytes = strlen(r->text);
    pgr_spec spec;
    pgr_error error = {0};
    pgr_diagnostics found = {0}, asked = {0};
    pgr_snapshot held = {0};
    pgr_sandbox sandbox = {0};
    pgr_locations places = {0};
    if (pgr_config_check_in(&sandbox, "t.lua", r->text, bytes, NULL, 0, &spec, NULL, &found, &held,
                            &error) == PGR_OK)
        pgr_spec_free(&spec);
    assert_true(held.count > 0);
    pgr_diagnose(&asked, "PG010", r->path, NULL, "x");
    assert_int_equal(pgr_config_locate(r->text, bytes, &held, &asked, &places), PGR_OK);
    const pgr_location *at = &places.items[0].items[0];
    char how = at->written ? '=' : at->computed ? '~' : '^';
    bool good = at->line == r->line && at->column == r->column && how == r->how;
    if (!good)
        print_error("%s\n%s: got %lld:%lld %c, expected %lld:%lld %c\n", r->text, r->path,
                    (long long)at->line, (long long)at->column, how, (long long)r->line,
                    (long long)r->column, r->how);
    pgr_locations_free(&places);
    pgr_diagnostics_free(&asked);
    pgr_diagnostics_free(&found);
    pgr_snapshot_free(&held);
    return good;
}

static void the_place_of_the_value(void **state) {
    (void)state;
    int bad = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        bad += !check_row(&rows[i]);
    assert_int_equal(bad, 0);
}

/* ---- texts that mean to take long ---- */

typedef struct hostile {
    const char *before, *again, *after; /* `again` as often as a text of 1 MiB takes */
} hostile;

static const hostile texts[] = {
    {"local t = {", "t;", "} return t"},
    {"t = {", "t;", "} return t"},
    {"local t = {} t.a = t ", "t.a = {t, t} ", "return t"},
    {"local t = {} ", "t = {t, t, t} ", "return t"},
    {"local t = {} ", "local t = {a = t, b = t} ", "return t"},
    {"local t = {} ", "do local t = {a = t} end ", "return t"},
    {"local t = {} ", "if t then t = {a = t, b = t} end ", "return t"},
    {"local t = {} ", "t = t or {t} t.a = t t[x] = t ", "return t"},
    {"local t = {} ", "t.a.a.a.a.a = t ", "return t"},
    {"local t = {} if x then t = {} end ", "t[x][x][x] = t[x] ", "return t"},
    {"local function f() return f() end ", "function f() return f(), f end ", "return f()"},
    {"local a = {} ", "f{f(a)} ", "return a"},
    {"return ", "{", ""},
    {"return ", "(", ""},
    {"return ", "function() return ", ""},
    {"return ", "not ", "x"},
    {"return ", "- ", "x"},
    {"return x", " or x", ""},
    {"return x", "..x", ""},
    {"return x", ".x", ""},
    {"return x", "()", ""},
    {"return x", "[x", ""},
    {"return {", "[", ""},
    {"return {", "a=", ""},
    {"", "x,", ""},
    {"", "local a,b,c,d,e,f,g,h;", "return a"},
    {"local a", ",a", " = 1"},
    {"", "if x then ", ""},
    {"", "repeat ", ""},
    {"", "end ", "return {}"},
    {"", "return ", ""},
    {"", "[====", ""},
    {"--", "[=", ""},
    {"", "]]", ""},
    {"x = [==[", "]=", ""},
    {"", "goto ", ""},
    {"", "\\z", ""},
    {"", "\"\\z ", ""},
    {"return {", "1,", "}"},
    {"return {a=1,", "a=1,", "}"},
    {"return {", "{},", "}"},
    {"local t = {} ", "t.x = 1 ", "return t"},
};

/* Counted, not timed: a step is a token, or a value that is looked at. */
static void hostile_texts(void **state) {
    (void)state;
    const size_t most = (size_t)1 << 20;
    char *text = malloc(most + 256);
    assert_non_null(text);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const hostile *h = &texts[i];
        pgr_positions *positions = NULL;
        size_t bytes = strlen(strcpy(text, h->before)), length = strlen(h->again);
        for (; bytes + length < most; bytes += length)
            memcpy(text + bytes, h->again, length);
        strcpy(text + bytes, h->after);
        bytes += strlen(h->after);
        assert_int_equal(pgr_positions_create(text, bytes, &positions, NULL), PGR_OK);
        for (int k = 0; k < 500; k++)
            pgr_positions_find(positions, NULL, "a.a.a.b.a[1][1].a.a.a.a.x");
        if (pgr_positions_steps(positions) > 20 * (int64_t)bytes)
            fail_msg("%s%s...: %lld steps", h->before, h->again,
                     (long long)pgr_positions_steps(positions));
        pgr_positions_free(positions);
    }
    free(text);
}

/* More than is kept: the return is still the place of what is not found. */
static void a_long_text(void **state) {
    (void)state;
    const int lines = 90000;
    char *text = malloc((size_t)lines * 8 + 64);
    pgr_positions *positions = NULL;
    bool computed;
    assert_non_null(text);
    size_t bytes = 0;
    for (int i = 0; i < lines; i++)
        bytes += (size_t)sprintf(text + bytes, "x = {}\n");
    bytes += (size_t)sprintf(text + bytes, "return { parallel = { tp = 3 } }");
    assert_int_equal(pgr_positions_create(text, bytes, &positions, NULL), PGR_OK);
    assert_int_equal(pgr_positions_near(positions, NULL, "parallel.tp", &computed).key_line,
                     lines + 1);
    assert_false(computed);
    pgr_positions_free(positions);
    free(text);
}

/* Any other name in each statement: what is looked up by name must not be searched for. */
static void many_names(void **state) {
    (void)state;
    static const char *const forms[] = {"x%d = {x%d}\n", "local x%d = {x%d} local y\n",
                                        "do local x%d = {} return x%d end\n", "t.x%d = {t.x%d}\n"};
    const size_t most = (size_t)1 << 20;
    char *text = malloc(most + 256);
    assert_non_null(text);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        pgr_positions *positions = NULL;
        size_t bytes = (size_t)sprintf(text, "local t = {}\n");
        for (int n = 0; bytes < most; n++)
            bytes += (size_t)sprintf(text + bytes, forms[i], n, n / 2);
        bytes += (size_t)sprintf(text + bytes, "return t");
        assert_int_equal(pgr_positions_create(text, bytes, &positions, NULL), PGR_OK);
        assert_true(pgr_positions_steps(positions) < 20 * (int64_t)bytes);
        pgr_positions_free(positions);
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_place_of_the_value),
        cmocka_unit_test(hostile_texts),
        cmocka_unit_test(many_names),
        cmocka_unit_test(a_long_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
