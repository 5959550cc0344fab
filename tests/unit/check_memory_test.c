/* check_memory_test - `pgrun check` where memory is short: the k-th allocation fails, alone or with
 * all that follow, for every k. What comes out is whole, or it is one clear "out of memory"; a lost
 * finding is never a clean pass, and nothing leaks. The linker puts the functions below in the
 * place of malloc and its kind (check.cmake), for our code and for Lua, whose blocks come from
 * ours. */
#include "check.h"
#include "check_report.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the allocator ---- */

/* Shared with the children, which count on in it. */
typedef struct countdown {
    long left; /* calls until the one that fails */
    bool for_good, failed;
} countdown;

static countdown *shared;
static bool armed;        /* calls of this process count */
static bool arm_children; /* those of the next child do */
static long live;         /* blocks that this process holds */

static bool refuse(void) {
    if (!armed)
        return false;
    bool now = shared->left == 0 || (shared->for_good && shared->failed);
    shared->left--;
    shared->failed = shared->failed || now;
    if (now)
        errno = ENOMEM;
    return now;
}

static void in_child(void) {
    armed = arm_children;
}

static void in_parent(void) {
    arm_children = false; /* the first one alone */
}

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *block, size_t bytes);
char *__real_strdup(const char *text);
void __real_free(void *block);
char *__real_realpath(const char *path, char *resolved);
void *__real_opendir(const char *path);

void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *block, size_t bytes);
char *__wrap_strdup(const char *text);
void __wrap_free(void *block);
char *__wrap_realpath(const char *path, char *resolved);
void *__wrap_opendir(const char *path);

void *__wrap_malloc(size_t bytes) {
    void *block = refuse() ? NULL : __real_malloc(bytes);
    live += block != NULL;
    return block;
}

void *__wrap_calloc(size_t count, size_t bytes) {
    void *block = refuse() ? NULL : __real_calloc(count, bytes);
    live += block != NULL;
    return block;
}

void *__wrap_realloc(void *old, size_t bytes) {
    bool fresh = old == NULL;
    void *block = refuse() ? NULL : __real_realloc(old, bytes);
    live += fresh && block;
    return block;
}

char *__wrap_strdup(const char *text) {
    char *block = refuse() ? NULL : __real_strdup(text);
    live += block != NULL;
    return block;
}

void __wrap_free(void *block) {
    live -= block != NULL;
    __real_free(block);
}

/* Two more that the C library allocates for. */
char *__wrap_realpath(const char *path, char *resolved) {
    return refuse() ? NULL : __real_realpath(path, resolved);
}

void *__wrap_opendir(const char *path) {
    return refuse() ? NULL : __real_opendir(path);
}

static void count_down(long k, bool for_good) {
    *shared = (countdown){k, for_good, false};
}

/* ---- the texts ---- */

static const char *source_folder;

static char *read_text(const char *name) {
    char path[PATH_MAX];
    pgr_config_text text;
    pgr_error error;
    snprintf(path, sizeof path, "%s/%s", source_folder, name);
    if (pgr_config_read(path, &text, &error) != PGR_OK)
        fail_msg("%s", error.message);
    return text.text;
}

static const char every_list[] =
    "return { world_size = 16,\n"
    "  parallel = { stage_layers = { 1, 2 }, hierarchical_cp = { 2, 2 },\n"
    "    grid = { {'tp', 2}, {'cp', 4}, {'pp', 2}, {'dp'} },\n"
    "    views = { b = { {'ep', 2}, {'edp'} }, a = { {'x'} } } },\n"
    "  model = { hidden = 64, heads = 4, layers = 3, seq_len = 100, ffn = 128 },\n"
    "  moe = { experts = 4, layer_pattern = { 1, 0, 1 } },\n"
    "  padding = { sequence = function(q) return q.tp * q.cp * 2 end, packed = { 3, 4 } },\n"
    "  run = { families = { 'tp', 'dp' }, workloads = { 'mlp' }, nccl = { tp = { max_ctas = 2 } "
    "},\n"
    "    collectives = { 'all_reduce' } } }\n";

/* A limit that a config catches is still one: here another layout would pass. */
static const char catches[] =
    "local parts = {}\n"
    "for i = 1, 40 do parts[i] = 'part ' .. i end\n"
    "local ok, text = pcall(function() return (table.concat(parts, ', '):rep(40)) end)\n"
    "return { parallel = { tp = ok and #text > 0 and 3 or 2 }, model = { heads = 52 } }\n";

/* Much that planning and the rules find, so that their list grows. */
static const char illegal_everywhere[] =
    "return { world_size = 100,\n"
    "  parallel = { tp = 3, cp = 2, pp = 3, ep = 16, etp = 5, vpp = 2, order = 'tp-xx' },\n"
    "  model = { hidden = 100, heads = 52, kv_heads = 7, ffn = 101, layers = 31 },\n"
    "  moe = { experts = 9, topk = 12, ffn = 7, shared_ffn = 11, groups = 4, group_topk = 5 },\n"
    "  padding = { packed = { 3, 5 } } }\n";

static const char broken[] = "return {\n  parallel = { tp = 2 },\n  model = }\n";
static const char fails_late[] =
    "return { parallel = { tp = 2 }, model = { seq_len = 8 },\n"
    "  padding = { sequence = function(p) return error('no ' .. p.seq_len .. p.tp) end } }\n";

/* `count` unknown keys, a line each; owned by the caller. */
static char *unknown_keys(int count) {
    char *text = malloc(64 + (size_t)count * 32);
    assert_non_null(text);
    int used = sprintf(text, "return { parallel = { tp = 0 },\n");
    for (int i = 0; i < count; i++)
        used += sprintf(text + used, "  key_%d = %d,\n", i, i);
    sprintf(text + used, "}\n");
    return text;
}

/* ---- reading and checking, as the child does ---- */

typedef struct outcome {
    pgr_status status;
    pgr_error error;
    int64_t world_size;
    pgr_diagnostics found;
    pgr_locations places;
} outcome;

static void check(const char *text, outcome *out) {
    static const char *const sets[] = {"run.seed=3", "run.iterations=4"};
    memset(out, 0, sizeof *out);
    out->status = pgr_config_diagnose("t.lua", text, strlen(text), sets, 2, PGR_NIL,
                                      &out->world_size, &out->found, &out->places, &out->error);
}

static void release(outcome *out) {
    pgr_diagnostics_free(&out->found);
    pgr_locations_free(&out->places);
}

static void assert_same(const outcome *got, const outcome *wanted, long k) {
    bool same = got->status == wanted->status && got->world_size == wanted->world_size &&
                got->found.count == wanted->found.count &&
                got->places.count == wanted->places.count;
    size_t count = (size_t)wanted->found.count;
    if (!same || (count > 0 && (memcmp(got->found.items, wanted->found.items,
                                       count * sizeof *wanted->found.items) != 0 ||
                                memcmp(got->places.items, wanted->places.items,
                                       count * sizeof *wanted->places.items) != 0)))
        fail_msg("call %ld failed, and so came out another result: %s, %lld findings: %s", k,
                 pgr_status_name(got->status), (long long)got->found.count, got->error.message);
}

static void sweep(const char *text, int64_t least_findings) {
    static outcome wanted, got;
    long before = live;
    check(text, &wanted);
    if (wanted.status != PGR_OK || wanted.found.count < least_findings)
        fail_msg("%s\n%s, %lld findings: %s", text, pgr_status_name(wanted.status),
                 (long long)wanted.found.count, wanted.error.message);
    for (int for_good = 0; for_good < 2; for_good++) {
        long held = live, k = 0, limits = 0;
        for (bool failed = true; failed; k++) {
            count_down(k, for_good);
            armed = true;
            check(text, &got);
            armed = false;
            failed = shared->failed;
            if (failed && got.status == PGR_LIMIT && strstr(got.error.message, "out of memory"))
                limits++;
            else
                assert_same(&got, &wanted, k);
            release(&got);
            assert_int_equal(live, held);
        }
        /* Lua collects garbage after a call that fails alone, and asks again */
        assert_true(limits > (for_good ? 200 : 5));
    }
    release(&wanted);
    assert_int_equal(live, before);
}

static void sweep_file(const char *name, int64_t least_findings) {
    char *text = read_text(name);
    sweep(text, least_findings);
    free(text);
}

static void a_clean_config(void **state) {
    (void)state;
    sweep_file("configs/published/deepseek-v3-1024.lua", 1);
}

static void an_illegal_layout(void **state) {
    (void)state;
    sweep_file("docs/illegal.lua", 2);
}

static void many_findings(void **state) {
    (void)state;
    sweep(illegal_everywhere, 17);
}

static void a_padding_function(void **state) {
    (void)state;
    sweep_file("configs/examples/padding-function.lua", 1);
}

static void a_padding_function_that_fails(void **state) {
    (void)state;
    sweep(fails_late, 1);
}

static void many_unknown_keys(void **state) {
    (void)state;
    char *text = unknown_keys(40);
    sweep(text, 41);
    free(text);
}

static void a_syntax_error(void **state) {
    (void)state;
    sweep(broken, 1);
}

static void lists_of_every_kind(void **state) {
    (void)state;
    sweep(every_list, 1);
}

static void a_config_that_catches(void **state) {
    (void)state;
    sweep(catches, 1);
}

/* Loading, as groups and a run do: the problems are one message. */
static void sweep_load(const char *text, pgr_status expected) {
    static pgr_error wanted, got;
    static const char *const sets[] = {"parallel.pp_split=1", "run.workloads={mlp,\"router\"}"};
    long held = live;
    for (int for_good = 0; for_good < 2; for_good++) {
        long limits = 0;
        bool failed = true;
        for (long k = -1; failed || k == 0; k++) {
            pgr_error *error = k < 0 ? &wanted : &got;
            pgr_spec spec;
            error->message[0] = '\0';
            count_down(k, for_good);
            armed = true;
            pgr_status status = pgr_config_load("t.lua", text, strlen(text), sets, 2, &spec, error);
            armed = false;
            failed = shared->failed;
            if (failed && status == PGR_LIMIT && !strcmp(error->message, "t.lua: out of memory"))
                limits++;
            else if (status != expected || strcmp(error->message, wanted.message) != 0)
                fail_msg("call %ld failed: %s: %s", k, pgr_status_name(status), error->message);
            if (status == PGR_OK)
                pgr_spec_free(&spec);
            assert_int_equal(live, held);
        }
        assert_true(limits > (for_good ? 200 : 5));
    }
}

static void loading(void **state) {
    (void)state;
    char *unknown = unknown_keys(40);
    sweep_load(every_list, PGR_OK);
    sweep_load(unknown, PGR_INVALID);
    sweep_load(broken, PGR_INVALID);
    sweep_load(fails_late, PGR_INVALID);
    free(unknown);
}

/* ---- the command ---- */

static char folder[] = "/tmp/pgrun-memory-XXXXXX";

static void write_file(const char *name, const char *text) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

/* a.lua is illegal; b.lua says much; in d is a good one and a link to it, and e leads out. */
static void make_folder(void) {
    char path[PATH_MAX];
    char *illegal = read_text("docs/illegal.lua"), *unknown = unknown_keys(20);
    assert_non_null(mkdtemp(folder));
    write_file("a.lua", illegal);
    write_file("b.lua", unknown);
    snprintf(path, sizeof path, "%s/d", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    write_file("d/good.lua", "return { parallel = { tp = 2 } }\n");
    snprintf(path, sizeof path, "%s/d/link.lua", folder);
    assert_int_equal(symlink("good.lua", path), 0);
    snprintf(path, sizeof path, "%s/e.lua", folder);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    free(illegal);
    free(unknown);
}

static void remove_folder(void) {
    static const char *const names[] = {"a.lua", "b.lua", "d/good.lua", "d/link.lua", "e.lua", "d"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        remove(path);
    }
    rmdir(folder);
}

typedef struct answer {
    pgr_status status;
    pgr_error error;
    char *text; /* what was printed */
    size_t bytes;
} answer;

static int next_descriptor(void) {
    int next = open("/dev/null", O_RDONLY);
    close(next);
    return next;
}

static const char *set; /* --set, or NULL */

/* Runs `pgrun check` on `count` names, counting down in this process or in its first child. */
static void run(const char *const *names, int count, bool in_this, answer *out) {
    static pgr_options options;
    options = (pgr_options){.command = PGR_COMMAND_CHECK, .rank = PGR_NIL};
    for (int i = 0; i < count; i++)
        options.files[options.file_count++] = names[i];
    if (set)
        options.sets[options.set_count++] = set;
    memset(out, 0, sizeof *out);
    FILE *file = open_memstream(&out->text, &out->bytes);
    assert_non_null(file);
    long held = live;
    int descriptor = next_descriptor();
    armed = in_this;
    arm_children = !in_this;
    out->status = pgr_command_check(&options, file, &out->error);
    armed = arm_children = false;
    assert_int_equal(live, held);
    assert_int_equal(next_descriptor(), descriptor);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* none is left */
    assert_int_equal(fclose(file), 0);
}

static void discard(answer *out) {
    __real_free(out->text); /* from the C library, which counts nothing */
}

static bool is_same(const answer *got, const answer *wanted) {
    return got->status == wanted->status && strcmp(got->text, wanted->text) == 0;
}

/* This process is short of memory: the whole report, or none and why. */
static void the_command(void **state) {
    (void)state;
    static answer wanted, got;
    const char *names[] = {folder};
    set = "run.seed=1,2";
    count_down(-1, false);
    run(names, 1, true, &wanted);
    assert_int_equal(wanted.status, PGR_INVALID);
    assert_non_null(strstr(wanted.text, "in all 9 layouts: 47 errors")); /* e.lua is not read */
    for (int for_good = 0; for_good < 2; for_good++) {
        long limits = 0;
        bool failed = true;
        for (long k = 0; failed; k++) {
            count_down(k, for_good);
            run(names, 1, true, &got);
            failed = shared->failed;
            if (failed && got.status == PGR_LIMIT && strstr(got.error.message, ": out of memory") &&
                got.text[0] == '\0')
                limits++;
            else if (!is_same(&got, &wanted))
                fail_msg("call %ld failed: %s: %s\n%s", k, pgr_status_name(got.status),
                         got.error.message, got.text);
            discard(&got);
        }
        assert_true(limits > 30);
    }
    set = NULL;
    discard(&wanted);
}

/* The child that reads a file is: that file is told of, and nothing else. */
static void the_child(void **state) {
    (void)state;
    static answer wanted, without, got;
    char name[PATH_MAX];
    const char *names[] = {name};
    snprintf(name, sizeof name, "%s/a.lua", folder);
    count_down(-1, false);
    run(names, 1, false, &wanted);
    count_down(0, true);
    run(names, 1, false, &without);
    assert_int_equal(without.status, PGR_INVALID);
    assert_non_null(strstr(without.text, "error[PG003]: out of memory\n"));
    assert_non_null(strstr(without.text, "a.lua: 1 error, 0 warnings\n"));
    for (int for_good = 0; for_good < 2; for_good++) {
        bool failed = true;
        /* Some calls only of the second sweep: all of them are tried below, without forks. */
        for (long k = 0; failed; k += 1 + 4 * for_good) {
            count_down(k, for_good);
            run(names, 1, false, &got);
            failed = shared->failed;
            if (!is_same(&got, &wanted) && !(failed && is_same(&got, &without)))
                fail_msg("call %ld failed: %s: %s\n%s", k, pgr_status_name(got.status),
                         got.error.message, got.text);
            discard(&got);
        }
    }
    discard(&wanted);
    discard(&without);
}

/* The files behind it are checked all the same. */
static void the_next_file(void **state) {
    (void)state;
    static answer got;
    char first[PATH_MAX], second[PATH_MAX];
    const char *names[] = {first, second};
    snprintf(first, sizeof first, "%s/a.lua", folder);
    snprintf(second, sizeof second, "%s/d/good.lua", folder);
    count_down(100, true);
    run(names, 2, false, &got);
    assert_int_equal(got.status, PGR_INVALID);
    assert_non_null(strstr(got.text, "a.lua: 1 error, 0 warnings\n"));
    assert_non_null(strstr(got.text, "good.lua at world size 2: good\n"));
    discard(&got);
}

int main(int argc, char **argv) {
    /* The forks first: they are quick while this process is small. */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_command),
        cmocka_unit_test(the_child),
        cmocka_unit_test(the_next_file),
        cmocka_unit_test(a_clean_config),
        cmocka_unit_test(an_illegal_layout),
        cmocka_unit_test(many_findings),
        cmocka_unit_test(a_padding_function),
        cmocka_unit_test(a_padding_function_that_fails),
        cmocka_unit_test(many_unknown_keys),
        cmocka_unit_test(a_syntax_error),
        cmocka_unit_test(lists_of_every_kind),
        cmocka_unit_test(a_config_that_catches),
        cmocka_unit_test(loading),
    };
    if (argc != 2)
        return 2;
    source_folder = argv[1];
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || pthread_atfork(NULL, in_parent, in_child) != 0)
        return 2;
    make_folder();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_folder();
    return failed;
}
