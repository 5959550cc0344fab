/* check_help_test.c - a way out is right: thousands of layouts are drawn, each help is read back as
 * a person would, applied by itself, and then the finding is gone and no new error is there. */
#include "check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ITEMS = 32, CLAUSE = 400 };

static uint64_t seed = 20240611;
static int64_t layouts = 1000, applied, unread;

/* A number below `most`; xorshift64*. */
static int64_t draw(int64_t most) {
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return (int64_t)((seed * UINT64_C(2685821657736338717) >> 33) % (uint64_t)most);
}

#define DRAW(...)                                                                                  \
    ((const int64_t[]){__VA_ARGS__}[draw(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))])

/* The value, or none, in one of three cases. */
static int64_t maybe(int64_t value) {
    return draw(3) == 0 ? PGR_NIL : value;
}

/* Lists that a layout may have; never freed by the spec. */
static int64_t stage_items[ITEMS], packed_items[ITEMS], pattern_items[ITEMS], help_items[ITEMS];

static void draw_parallel(pgr_spec *s) {
    s->parallel.tp = DRAW(1, 1, 2, 3, 4, 6, 7, 8, 12, 16);
    s->parallel.cp = DRAW(1, 1, 1, 2, 3, 4, 8);
    s->parallel.pp = DRAW(1, 1, 2, 3, 4);
    s->parallel.ep = DRAW(1, 1, 2, 3, 4, 6, 8, 16, 64);
    s->parallel.etp = draw(2) ? PGR_NIL : DRAW(1, 1, 2, 3, 4, 8);
    s->parallel.sequence_parallel = draw(2);
    s->parallel.vpp = s->parallel.pp > 1 && draw(3) == 0 ? DRAW(2, 3, 4) : PGR_NIL;
    s->parallel.pp_split = draw(4) ? PGR_NIL : DRAW(1, 2, 4);
    if (draw(4) == 0)
        s->parallel.first_stage_layers = DRAW(1, 3, 7, 8);
    if (draw(4) == 0)
        s->parallel.last_stage_layers = DRAW(1, 2, 7, 8);
    if (draw(6) == 0) {
        s->parallel.stage_layers = (pgr_list){DRAW(2, 3, 4, 8), stage_items};
        for (int i = 0; i < ITEMS; i++)
            stage_items[i] = 4 + draw(5);
    }
    s->parallel.tp_comm_overlap = draw(6) == 0;
    s->parallel.mode = draw(4) == 0 ? PGR_MODE_INFER : PGR_MODE_TRAIN;
    s->parallel.expert_view = draw(8) > 0;
    s->parallel.rank_offset = DRAW(0, 0, 0, 4, 8);
    if (draw(5) == 0)
        snprintf(s->parallel.order, sizeof s->parallel.order, "%s",
                 draw(2) ? "tp-pp-dp-cp-ep" : "dp-tp-cp-ep-pp");
    s->cluster.gpus_per_node = maybe(DRAW(4, 8, 8, 6));
    s->cluster.nvlink_domain = draw(6) ? PGR_NIL : DRAW(8, 16, 72);
    int64_t unit = s->parallel.tp * s->parallel.cp * s->parallel.pp;
    s->world_size = draw(4) ? unit * DRAW(1, 2, 3, 4, 8, 12, 16) : DRAW(8, 16, 64, 96);
    if (draw(5) == 0)
        s->world_size = PGR_NIL;
}

static void draw_model(pgr_spec *s) {
    s->has_model = true;
    s->model.hidden = maybe(DRAW(64, 100, 160, 1000, 1024, 4096));
    s->model.ffn = maybe(DRAW(64, 100, 520, 4096, 14336, 28672));
    s->model.heads = maybe(DRAW(4, 8, 12, 20, 32, 52, 64, 96));
    s->model.kv_heads = maybe(DRAW(1, 2, 4, 6, 8, 12, 48));
    s->model.head_dim = draw(3) ? PGR_NIL : DRAW(20, 64, 128);
    s->model.layers = maybe(DRAW(1, 4, 16, 30, 32, 61));
    s->model.vocab = maybe(DRAW(1000, 32000, 50257));
    s->model.vocab_multiple = DRAW(1, 4, 128);
    s->model.bias = draw(2);
    s->model.seq_len = maybe(DRAW(3, 17, 1000, 1100, 4096));
    s->model.decoder_seq_len = draw(2) ? PGR_NIL : DRAW(512, 1000, 4096, 4100);
    s->model.global_batch = draw(4) ? PGR_NIL : DRAW(64, 96, 1000);
    s->model.dtype = draw(2) ? PGR_BF16 : PGR_F32;
    s->model.fp8 = draw(6) == 0;
    if (draw(3) == 0) {
        s->padding.rule = PGR_PAD_MULTIPLE;
        s->padding.multiple = DRAW(1, 6, 8, 16, 1024);
    }
    if (draw(6) == 0) {
        s->padding.packed = (pgr_list){1 + draw(4), packed_items};
        for (int i = 0; i < ITEMS; i++)
            packed_items[i] = DRAW(1, 7, 17, 33, 100, 4096);
    }
}

static void draw_experts(pgr_spec *s) {
    if (draw(3) == 0)
        return;
    s->has_moe = true;
    s->moe.experts = DRAW(1, 4, 6, 8, 12, 16, 64);
    s->moe.topk = DRAW(1, 2, 2, 4, 6, 8, 16);
    s->moe.ffn = maybe(DRAW(100, 512, 1408, 4096));
    s->moe.shared_ffn = DRAW(0, 0, 520, 1024);
    s->moe.groups = draw(2) ? PGR_NIL : DRAW(2, 4, 7, 8, 32);
    s->moe.group_topk = draw(2) ? PGR_NIL : DRAW(1, 2, 3, 4, 8);
    s->moe.score = draw(2) ? PGR_SOFTMAX : PGR_SIGMOID;
    s->moe.pre_softmax = draw(2);
    s->moe.expert_bias = draw(3) == 0;
    if (draw(5) == 0) {
        s->moe.layer_pattern = (pgr_list){1 + draw(4), pattern_items};
        for (int i = 0; i < ITEMS; i++)
            pattern_items[i] = draw(2);
    }
}

/* ---- reading a help ---- */

/* The key that a help means by `name`. */
static const pgr_key *key_of(const char *name) {
    static const char *const sections[] = {"", "parallel.", "model.", "moe.", "cluster."};
    char path[PGR_PATH_MAX];
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        snprintf(path, sizeof path, "%s%s", sections[i], name);
        const pgr_key *key = pgr_key_find(path);
        if (key != NULL)
            return key;
    }
    return NULL;
}

static void forget(pgr_spec *s, const pgr_key *key) {
    pgr_spec fresh;
    pgr_spec_init(&fresh);
    size_t bytes = key->type == PGR_KEY_INTEGER ? sizeof(int64_t) : sizeof(bool);
    memcpy((char *)s + key->offset, (char *)&fresh + key->offset, bytes);
    pgr_spec_free(&fresh);
}

/* Puts the value at *text into `spec`, and moves on behind it; false where it is none. */
static bool put_value(pgr_spec *spec, const pgr_key *key, const char **text) {
    char *field = (char *)spec + key->offset, word[PGR_NAME_MAX], *end;
    const char *at = *text;
    if (key->type == PGR_KEY_BOOLEAN) {
        *(bool *)(void *)field = strncmp(at, "true", 4) == 0;
        *text = at + strcspn(at, " ,;");
        return strncmp(at, "true", 4) == 0 || strncmp(at, "false", 5) == 0;
    }
    if (*at == '{') {
        pgr_list list = {0, help_items};
        for (at++; *at != '}' && list.count < ITEMS; at = end + strspn(end, ", "))
            list.items[list.count++] = strtoll(at, &end, 10);
        memcpy(field, &list, sizeof list);
        *text = at + 1;
        return true;
    }
    if (*at == '"') {
        size_t length = strcspn(at + 1, "\"");
        snprintf(word, sizeof word, "%.*s", (int)length, at + 1);
        if (key->type == PGR_KEY_CHOICE)
            *(int *)(void *)field = (int)pgr_key_choice_index(key, word);
        else
            memcpy(field, word, sizeof word);
        *text = at + length + 2;
        return true;
    }
    int64_t value = strtoll(at, &end, 10);
    if (end == at)
        return false;
    if (key->type == PGR_KEY_PADDING_RULE) {
        spec->padding.rule = PGR_PAD_MULTIPLE;
        spec->padding.multiple = value;
    } else {
        assert_int_equal(key->type, PGR_KEY_INTEGER);
        memcpy(field, &value, sizeof value);
    }
    *text = end;
    return true;
}

static bool same_finding(const pgr_diagnostic *a, const pgr_diagnostic *b, int32_t paths) {
    if (a->rule != b->rule || (paths == PGR_DIAGNOSTIC_PATHS && a->path_count != b->path_count))
        return false;
    for (int32_t i = 0; i < paths && i < a->path_count; i++)
        if (strcmp(a->paths[i], b->paths[i]) != 0)
            return false;
    return true;
}

/* The mended layout no longer has the finding, and no error that was not there. */
static void check_mended(const pgr_spec *spec, bool any_world, const pgr_diagnostics *before,
                         const pgr_diagnostic *target) {
    pgr_diagnostics after = {0};
    pgr_spec mended = *spec;
    int64_t world;
    if (any_world)
        mended.world_size = PGR_NIL;
    pgr_check(&mended, PGR_NIL, &world, &after);
    applied++;
    for (int64_t i = 0; i < after.count; i++) {
        const pgr_diagnostic *item = &after.items[i];
        bool known = false;
        for (int64_t k = 0; k < before->count; k++)
            known |= same_finding(&before->items[k], item,
                                  item->rule == target->rule ? PGR_DIAGNOSTIC_PATHS : 1);
        if (same_finding(item, target, PGR_DIAGNOSTIC_PATHS) ||
            (item->severity == PGR_ERROR && !known))
            fail_msg("%s: %s\n  help: %s\n  gives %s: %s", target->rule->code, target->message,
                     target->help, item->rule->code, item->message);
    }
    pgr_diagnostics_free(&after);
}

/* "topk can be 2 to 4": both ends, of which `first` is read. */
static void check_range(const pgr_spec *spec, const pgr_key *key, const char *at,
                        const pgr_diagnostics *before, const pgr_diagnostic *target) {
    pgr_spec last = *spec;
    at += strlen(" to ");
    assert_true(put_value(&last, key, &at));
    check_mended(&last, false, before, target);
}

/* One alternative: NAME = VALUE [and NAME = VALUE], NAME can be A, B or C, or leave NAME out. */
static bool try_clause(const pgr_spec *spec, const char *clause, const pgr_diagnostics *before,
                       const pgr_diagnostic *target) {
    static const char *const leads[] = {"set ", "take ", "write "};
    pgr_spec first = *spec;
    char name[64];
    bool any_world =
        strcmp(target->rule->code, "PG012") == 0 || strstr(clause, "at another world_size") != NULL;
    if (strncmp(clause, "with ", 5) == 0 && strstr(clause, ", ") != NULL)
        clause = strstr(clause, ", ") + 2;
    if (strncmp(clause, "pad by ", 7) == 0)
        clause = strstr(clause, ": ") + 2;
    for (size_t i = 0; i < sizeof leads / sizeof *leads; i++)
        if (strncmp(clause, leads[i], strlen(leads[i])) == 0)
            clause += strlen(leads[i]);
    if (strncmp(clause, "leave ", 6) == 0) {
        for (clause += 6; strncmp(clause, "out", 3) != 0; clause += *clause == ' ') {
            size_t length = strcspn(clause, " ");
            snprintf(name, sizeof name, "%.*s", (int)length, clause);
            clause += length;
            const pgr_key *key = key_of(name);
            if (key != NULL)
                forget(&first, key);
            else
                assert_string_equal(name, "and");
        }
        check_mended(&first, any_world, before, target);
        return true;
    }
    if (strcmp(clause, "\"megatron\"") == 0) {
        first.padding.rule = PGR_PAD_MEGATRON;
        check_mended(&first, any_world, before, target);
        return true;
    }
    size_t length = strcspn(clause, " ");
    snprintf(name, sizeof name, "%.*s", (int)length, clause);
    const pgr_key *key = key_of(strcmp(name, "it") == 0 ? "ep" : name);
    const char *at = clause + length;
    bool many = strncmp(at, " can be ", 8) == 0;
    if (key == NULL || (!many && strncmp(at, " = ", 3) != 0))
        return false;
    at += many ? 8 : 3;
    if (!put_value(&first, key, &at))
        return false;
    while (strncmp(at, " and ", 5) == 0 || strncmp(at, " with ", 6) == 0) {
        at += strncmp(at, " with ", 6) == 0 ? 6 : 5;
        length = strcspn(at, " ");
        snprintf(name, sizeof name, "%.*s", (int)length, at);
        at += length + 3;
        assert_non_null(key_of(name));
        assert_true(put_value(&first, key_of(name), &at));
    }
    check_mended(&first, any_world, before, target);
    if (strncmp(at, " to ", 4) == 0) {
        check_range(spec, key, at, before, target);
        return true;
    }
    while (strncmp(at, ", ", 2) == 0 || strncmp(at, " or ", 4) == 0) {
        pgr_spec next = *spec;
        at += *at == ',' ? 2 : 4;
        if (!put_value(&next, key, &at))
            break;
        check_mended(&next, any_world, before, target);
    }
    return true;
}

/* What is no value, but advice. */
static bool is_advice(const char *clause) {
    static const char *const known[] = {"ep is a number of ranks",
                                        "give head_dim",
                                        "give ",
                                        "one number n",
                                        "pack only sequences",
                                        "sequences of multiples",
                                        "no smaller cp",
                                        "a seq_len of",
                                        "take smaller",
                                        "add ",
                                        "take ",
                                        "to "};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strncmp(clause, known[i], strlen(known[i])) == 0)
            return true;
    return false;
}

static void try_help(const pgr_spec *spec, const pgr_diagnostics *before,
                     const pgr_diagnostic *target) {
    char clause[CLAUSE];
    for (const char *at = target->help; *at != '\0';) {
        const char *semicolon = strstr(at, "; "), *other = strstr(at, ", or ");
        const char *end =
            semicolon == NULL || (other != NULL && other < semicolon) ? other : semicolon;
        size_t length = end == NULL ? strlen(at) : (size_t)(end - at);
        snprintf(clause, sizeof clause, "%.*s", (int)length, at);
        if (!try_clause(spec, clause, before, target)) {
            if (!is_advice(clause))
                fail_msg("%s: \"%s\" of \"%s\" is not read", target->rule->code, clause,
                         target->help);
            unread++;
        }
        at = end == NULL ? at + length : end + (*end == ';' ? 2 : 5);
    }
}

/* Rules whose ways out are found by planning, tested in plan_check_test, and those without values.
 */
static bool is_other(const char *code) {
    static const char *const others[] = {"PG010", "PG011", "PG013", "PG014", "PG015",
                                         "PG016", "PG017", "PG018", "PG019", "PG026",
                                         "PG027", "PG028", "PG035", "PG041"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(code, others[i]) == 0)
            return true;
    return false;
}

static void test_ways_out(void **state) {
    (void)state;
    for (int i = 0; i < layouts; i++) {
        pgr_spec spec;
        pgr_diagnostics found = {0};
        int64_t world;
        pgr_spec_init(&spec);
        draw_parallel(&spec);
        if (draw(4) > 0)
            draw_model(&spec);
        draw_experts(&spec);
        pgr_check(&spec, PGR_NIL, &world, &found);
        for (int64_t k = 0; k < found.count; k++)
            if (!is_other(found.items[k].rule->code))
                try_help(&spec, &found, &found.items[k]);
        pgr_diagnostics_free(&found);
        spec.parallel.stage_layers = spec.padding.packed = spec.moe.layer_pattern = (pgr_list){0};
        pgr_spec_free(&spec);
    }
    print_message("%lld values applied, %lld pieces of advice\n", (long long)applied,
                  (long long)unread);
    assert_true(applied > 10 * unread && applied > layouts);
}

/* check_help_test [LAYOUTS [SEED]]; PGRUN_TEST_LAYOUTS gives the first where it is not given */
int main(int count, char **arguments) {
    const char *fewer = getenv("PGRUN_TEST_LAYOUTS");
    if (fewer)
        layouts = strtoll(fewer, NULL, 10);
    if (count > 1)
        layouts = strtoll(arguments[1], NULL, 10);
    if (count > 2)
        seed = strtoull(arguments[2], NULL, 10) | 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ways_out)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
