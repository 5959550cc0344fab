/* check_cases.h - a table of layouts, each with a code and what is told of it, and the tests that
 * such a table gives: included once by each file that has one. */
#ifndef PGR_CHECK_CASES_H
#define PGR_CHECK_CASES_H

#include "check_trial.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A key of a case: an integer (also of a choice or boolean), or a list of integers. */
typedef struct setting {
    const char *path;
    int64_t value;
    int64_t list[4]; /* used where the key takes one: `value` of them, or up to the first 0 */
} setting;

#define IS(path, value)                                                                            \
    {                                                                                              \
        path, value, {                                                                             \
            0                                                                                      \
        }                                                                                          \
    }
#define LIST(path, ...)                                                                            \
    {                                                                                              \
        path, 0, {                                                                                 \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

#define ITEMS(path, count, ...)                                                                    \
    {                                                                                              \
        path, count, {                                                                             \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

typedef struct check_case {
    const char *name, *code;
    int64_t world;
    setting settings[16];
    const char *message, *help; /* NULL: the code must not be there */
} check_case;

static void set_list(pgr_list *list, int64_t count, const int64_t items[4]) {
    while (count < 4 && items[count] != 0)
        count++;
    list->items = calloc((size_t)count, sizeof *list->items);
    assert_non_null(list->items);
    memcpy(list->items, items, (size_t)count * sizeof *items);
    list->count = count;
}

static void set(pgr_spec *spec, const setting *s) {
    spec->has_model |= strncmp(s->path, "model.", 6) == 0;
    spec->has_moe |= strncmp(s->path, "moe.", 4) == 0;
    if (strcmp(s->path, "padding.multiple") == 0) {
        spec->padding.rule = PGR_PAD_MULTIPLE;
        spec->padding.multiple = s->value;
        return;
    }
    const pgr_key *key = pgr_key_find(s->path);
    assert_non_null(key);
    char *at = (char *)spec + key->offset;
    if (key->type == PGR_KEY_INTEGER)
        memcpy(at, &s->value, sizeof s->value);
    else if (key->type == PGR_KEY_BOOLEAN)
        *(bool *)(void *)at = s->value != 0;
    else if (key->type == PGR_KEY_CHOICE)
        *(int *)(void *)at = (int)s->value;
    else
        set_list((pgr_list *)(void *)at, s->value, s->list);
}

static void check_of(const check_case *c, pgr_diagnostics *found) {
    pgr_spec spec;
    int64_t world;
    pgr_spec_init(&spec);
    for (const setting *s = c->settings; s->path != NULL; s++)
        set(&spec, s);
    spec.world_size = c->world; /* as the reader sets it */
    pgr_check(&spec, c->world, &world, found);
    assert_true(c->world == PGR_NIL || world == c->world);
    pgr_spec_free(&spec);
}

static const pgr_diagnostic *finding_of(const pgr_diagnostics *found, const char *code) {
    for (int64_t i = 0; i < found->count; i++) {
        assert_non_null(found->items[i].rule);
        if (strcmp(found->items[i].rule->code, code) == 0)
            return &found->items[i];
    }
    return NULL;
}

static void check_cases(const check_case *cases, size_t count) {
    int wrong = 0;
    for (size_t i = 0; i < count; i++) {
        const check_case *c = &cases[i];
        pgr_diagnostics found = {0};
        check_of(c, &found);
        const pgr_diagnostic *it = finding_of(&found, c->code);
        const char *message = it == NULL ? "(none)" : it->message;
        const char *help = it == NULL ? "" : it->help;
        bool right = c->message == NULL ? it == NULL
                                        : it != NULL && strcmp(message, c->message) == 0 &&
                                              strcmp(help, c->help) == 0 && it->path_count > 0;
        if (!right) {
            print_error("%s (%s)\n  got  %s\n       %s\n  want %s\n       %s\n", c->name, c->code,
                        message, help, c->message ? c->message : "(none)", c->help ? c->help : "");
            wrong++;
        }
        pgr_diagnostics_free(&found);
    }
    assert_int_equal(wrong, 0);
}

/* Every path that a finding names is a key, so that its place can be looked up. */
static void check_paths(const check_case *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        pgr_diagnostics found = {0};
        check_of(&cases[i], &found);
        for (int64_t k = 0; k < found.count; k++)
            for (int32_t p = 0; p < found.items[k].path_count; p++)
                if (pgr_key_find(found.items[k].paths[p]) == NULL)
                    fail_msg("%s names the key \"%s\"", found.items[k].rule->code,
                             found.items[k].paths[p]);
        pgr_diagnostics_free(&found);
    }
}

#endif
