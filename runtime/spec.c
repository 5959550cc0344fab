/* spec.c - defaults, freeing, digest and the small look-ups of pgr_spec, all driven by pgr_keys. */
#include "spec.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const pgr_key *pgr_key_find(const char *path) {
    for (int i = 0; i < pgr_key_count; i++)
        if (strcmp(pgr_keys[i].path, path) == 0)
            return &pgr_keys[i];
    return NULL;
}

/* The start and length of choice `index` in "a|b|c"; NULL past the end. */
static const char *choice_at(const pgr_key *key, int64_t index, size_t *length) {
    const char *at = key->choices;
    if (!at || index < 0)
        return NULL;
    for (; index > 0; index--) {
        at = strchr(at, '|');
        if (!at)
            return NULL;
        at++;
    }
    *length = strcspn(at, "|");
    return at;
}

void pgr_key_choice_name(const pgr_key *key, int64_t index, char *name) {
    size_t length = 0;
    const char *at = choice_at(key, index, &length);
    snprintf(name, PGR_NAME_MAX, "%.*s", at ? (int)length : 0, at ? at : "");
}

int64_t pgr_key_choice_index(const pgr_key *key, const char *name) {
    size_t wanted = strlen(name), length = 0;
    for (int64_t i = 0;; i++) {
        const char *at = choice_at(key, i, &length);
        if (!at)
            return -1;
        if (length == wanted && memcmp(at, name, length) == 0)
            return i;
    }
}

/* The text between the next pair of quotes at or after *at, or false. */
static bool next_quoted(const char **at, char *name) {
    const char *open = strchr(*at, '"');
    const char *close = open ? strchr(open + 1, '"') : NULL;
    if (!close)
        return false;
    snprintf(name, PGR_NAME_MAX, "%.*s", (int)(close - open - 1), open + 1);
    *at = close + 1;
    return true;
}

/* The default of a choice list such as { "mlp", "router" }. Left empty where there is no memory. */
static void default_choice_list(const pgr_key *key, pgr_list *list) {
    char name[PGR_NAME_MAX];
    const char *at = key->fallback;
    int64_t count = 0;
    while (next_quoted(&at, name))
        count++;
    list->items = count ? calloc((size_t)count, sizeof *list->items) : NULL;
    if (!list->items)
        return;
    at = key->fallback;
    while (list->count < count && next_quoted(&at, name))
        list->items[list->count++] = pgr_key_choice_index(key, name);
}

/* Sets one key's field of a zeroed spec to its default; lists only where `lists` is set. */
static void default_key(const pgr_key *key, pgr_spec *spec, bool lists) {
    void *field = (char *)spec + key->offset;
    const char *at = key->fallback;
    bool nil = strcmp(at, "nil") == 0;
    char name[PGR_NAME_MAX] = "";
    switch (key->type) {
    case PGR_KEY_INTEGER:
        *(int64_t *)field = nil ? PGR_NIL : strtoll(at, NULL, 10);
        break;
    case PGR_KEY_NUMBER:
        *(double *)field = nil ? NAN : strtod(at, NULL);
        break;
    case PGR_KEY_BOOLEAN:
        *(bool *)field = strcmp(at, "true") == 0;
        break;
    case PGR_KEY_CHOICE:
        *(int *)field = next_quoted(&at, name) ? (int)pgr_key_choice_index(key, name) : 0;
        break;
    case PGR_KEY_STRING:
        if (next_quoted(&at, name))
            memcpy(field, name, PGR_NAME_MAX);
        break;
    case PGR_KEY_CHOICE_LIST:
        if (lists && !nil)
            default_choice_list(key, field);
        break;
    case PGR_KEY_PADDING_RULE:
        spec->padding.rule = PGR_PAD_MEGATRON;
        spec->padding.multiple = 1;
        break;
    default: /* zero is the default of every other kind */
        break;
    }
}

static void default_spec(pgr_spec *spec, bool lists) {
    memset(spec, 0, sizeof *spec);
    for (int i = 0; i < pgr_key_count; i++)
        default_key(&pgr_keys[i], spec, lists);
}

void pgr_spec_init(pgr_spec *spec) {
    default_spec(spec, true);
}

void pgr_spec_free(pgr_spec *spec) {
    if (!spec)
        return;
    free(spec->parallel.stage_layers.items);
    free(spec->parallel.hierarchical_cp.items);
    free(spec->parallel.grid.axes);
    for (int64_t i = 0; i < spec->parallel.views.count; i++)
        free(spec->parallel.views.items[i].grid.axes);
    free(spec->parallel.views.items);
    free(spec->moe.layer_pattern.items);
    free(spec->padding.packed.items);
    free(spec->run.workloads.items);
    free(spec->run.families.items);
    free(spec->run.nccl.items);
    free(spec->run.collectives.items);
    default_spec(spec, false);
}

/* The digest: FNV-1a over little-endian bytes, so that it is the same on every machine. */
static void digest_integer(uint64_t *hash, int64_t value) {
    uint64_t bits = (uint64_t)value;
    for (int i = 0; i < 8; i++, bits >>= 8)
        *hash = (*hash ^ (bits & 0xff)) * UINT64_C(0x100000001b3);
}

static void digest_number(uint64_t *hash, double value) {
    int64_t bits = PGR_NIL; /* one value for every NaN */
    if (!isnan(value)) {
        value += 0.0; /* -0 and 0 are one */
        memcpy(&bits, &value, sizeof bits);
    }
    digest_integer(hash, bits);
}

static void digest_text(uint64_t *hash, const char *text) {
    size_t length = strlen(text);
    digest_integer(hash, (int64_t)length);
    for (size_t i = 0; i < length; i++)
        *hash = (*hash ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
}

static void digest_list(uint64_t *hash, const pgr_list *list) {
    digest_integer(hash, list->count);
    for (int64_t i = 0; i < list->count; i++)
        digest_integer(hash, list->items[i]);
}

static void digest_names(uint64_t *hash, const pgr_names *names) {
    digest_integer(hash, names->count);
    for (int64_t i = 0; i < names->count; i++)
        digest_text(hash, names->items[i]);
}

static void digest_grid(uint64_t *hash, const pgr_grid *grid) {
    digest_integer(hash, grid->count);
    for (int64_t i = 0; i < grid->count; i++) {
        digest_text(hash, grid->axes[i].name);
        digest_integer(hash, grid->axes[i].size);
    }
}

static void digest_views(uint64_t *hash, const pgr_spec *spec) {
    digest_integer(hash, spec->parallel.views.count);
    for (int64_t i = 0; i < spec->parallel.views.count; i++) {
        digest_text(hash, spec->parallel.views.items[i].name);
        digest_grid(hash, &spec->parallel.views.items[i].grid);
    }
}

static void digest_nccl(uint64_t *hash, const pgr_spec *spec) {
    digest_integer(hash, spec->run.nccl.count);
    for (int64_t i = 0; i < spec->run.nccl.count; i++) {
        const pgr_nccl_options *options = &spec->run.nccl.items[i];
        digest_text(hash, options->family);
        digest_integer(hash, options->max_ctas);
        digest_integer(hash, options->cga_cluster_size);
        digest_integer(hash, options->traffic_class);
        digest_integer(hash, options->split_share);
        digest_integer(hash, options->high_priority);
        digest_text(hash, options->net_name);
    }
}

static void digest_key(uint64_t *hash, const pgr_key *key, const pgr_spec *spec) {
    const void *field = (const char *)spec + key->offset;
    switch (key->type) {
    case PGR_KEY_INTEGER:
        digest_integer(hash, *(const int64_t *)field);
        break;
    case PGR_KEY_NUMBER:
        digest_number(hash, *(const double *)field);
        break;
    case PGR_KEY_BOOLEAN:
    case PGR_KEY_FUNCTION:
        digest_integer(hash, *(const bool *)field);
        break;
    case PGR_KEY_CHOICE:
        digest_integer(hash, *(const int *)field);
        break;
    case PGR_KEY_STRING:
        digest_text(hash, field);
        break;
    case PGR_KEY_INTEGER_LIST:
    case PGR_KEY_PATTERN:
    case PGR_KEY_CHOICE_LIST:
        digest_list(hash, field);
        break;
    case PGR_KEY_NAME_LIST:
        digest_names(hash, field);
        break;
    case PGR_KEY_PADDING_RULE:
        digest_integer(hash, spec->padding.rule);
        digest_integer(hash, spec->padding.multiple);
        digest_integer(hash, spec->padding.is_function);
        break;
    case PGR_KEY_GRID:
        digest_grid(hash, field);
        break;
    case PGR_KEY_VIEWS:
        digest_views(hash, spec);
        break;
    case PGR_KEY_NCCL:
        digest_nccl(hash, spec);
        break;
    case PGR_KEY_SECTION:
        break;
    }
}

uint64_t pgr_spec_digest(const pgr_spec *spec) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int i = 0; i < pgr_key_count; i++)
        digest_key(&hash, &pgr_keys[i], spec);
    digest_integer(&hash, spec->run.families_given);
    digest_integer(&hash, spec->has_model);
    digest_integer(&hash, spec->has_moe);
    return hash;
}

static bool wants(const pgr_spec *spec, pgr_workload workload) {
    for (int64_t i = 0; i < spec->run.workloads.count; i++)
        if (spec->run.workloads.items[i] == (int64_t)workload)
            return true;
    return false;
}

/* Appends ", PATH: FEATURE" for a key whose feature is needed but not there. */
static void missing(char *text, size_t size, const char *path, const char *feature) {
    size_t used = strlen(text);
    const pgr_key *key = pgr_key_find(path);
    if (!feature && key)
        feature = key->later;
    if (used < size)
        snprintf(text + used, size - used, "%s%s (%s)", used ? ", " : "", feature ? feature : "?",
                 path);
}

static void missing_moe(const pgr_spec *spec, char *text, size_t size) {
    if (spec->moe.pad_to_capacity)
        missing(text, size, "moe.pad_to_capacity", NULL);
}

static void missing_run(const pgr_spec *spec, char *text, size_t size) {
    if (spec->run.collectives.count)
        missing(text, size, "run.collectives", NULL);
    if (spec->has_experiment)
        missing(text, size, "experiment", NULL);
}

pgr_status pgr_spec_runnable(const pgr_spec *spec, pgr_error *error) {
    char text[2048] = "";
    if (spec->parallel.rank_offset)
        missing(text, sizeof text, "parallel.rank_offset", NULL);
    if (spec->model.fp8)
        missing(text, sizeof text, "model.fp8", NULL);
    if (wants(spec, PGR_ROUTER))
        missing_moe(spec, text, sizeof text);
    missing_run(spec, text, sizeof text);
    if (!text[0] && spec->run.workloads.count == 0)
        return pgr_error_set(error, PGR_INVALID,
                             "run.workloads is empty: there is nothing to run; name some of mlp, "
                             "router and context");
    if (!text[0])
        return PGR_OK;
    return pgr_error_set(error, PGR_UNSUPPORTED,
                         "this config needs what a run does not have yet: %s; leave these keys out "
                         "of the config for a run (groups reads them as they are)",
                         text);
}

const char *pgr_dtype_name(pgr_dtype dtype) {
    static const char *const names[] = {"f32", "bf16", "f64", "i32", "i64", "u8"};
    return (unsigned)dtype < sizeof names / sizeof names[0] ? names[dtype] : "?";
}

int64_t pgr_dtype_bytes(pgr_dtype dtype) {
    static const int64_t bytes[] = {4, 2, 8, 4, 8, 1};
    return (unsigned)dtype < sizeof bytes / sizeof bytes[0] ? bytes[dtype] : 0;
}

const char *pgr_workload_name(int64_t workload) {
    static const char *const names[PGR_WORKLOADS] = {"mlp", "router", "context"};
    return workload >= 0 && workload < PGR_WORKLOADS ? names[workload] : "?";
}

int pgr_name_edits(const char *a, const char *b) {
    enum { LONGEST = PGR_NAME_MAX - 1 };
    int rows[3][LONGEST + 1];
    size_t n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    int *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= m; j++)
        last[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
            int least = last[j - 1] + (x != y);
            if (last[j] + 1 < least)
                least = last[j] + 1;
            if (row[j - 1] + 1 < least)
                least = row[j - 1] + 1;
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
                tolower((unsigned char)a[i - 2]) == y && before[j - 2] + 1 < least)
                least = before[j - 2] + 1;
            row[j] = least;
        }
        int *free_row = before;
        before = last;
        last = row;
        row = free_row;
    }
    return last[m];
}
