/* config_dump - loads a config as pgrun does and prints either its error message or what it holds,
 * for tests/spec/config_spec.lua: config_dump FILE [--set KEY=VALUE]... Needs no MPI and no module.
 */
#include "config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void print_integer(int64_t value) {
    if (value == PGR_NIL)
        printf("nil\n");
    else
        printf("%" PRId64 "\n", value);
}

static void print_list(const pgr_list *list) {
    printf("{");
    for (int64_t i = 0; i < list->count; i++)
        printf("%s%" PRId64, i ? "," : "", list->items[i]);
    printf("}\n");
}

static void print_names(const pgr_names *names) {
    printf("{");
    for (int64_t i = 0; i < names->count; i++)
        printf("%s%s", i ? "," : "", names->items[i]);
    printf("}\n");
}

static void print_grid(const pgr_grid *grid) {
    for (int64_t i = 0; i < grid->count; i++) {
        printf("%s%s", i ? "," : "", grid->axes[i].name);
        if (grid->axes[i].size != PGR_NIL)
            printf(":%" PRId64, grid->axes[i].size);
    }
    printf("\n");
}

static void print_views(const pgr_spec *spec) {
    printf("%" PRId64 "\n", spec->parallel.views.count);
    for (int64_t i = 0; i < spec->parallel.views.count; i++) {
        printf("parallel.views.%s=", spec->parallel.views.items[i].name);
        print_grid(&spec->parallel.views.items[i].grid);
    }
}

static void print_nccl(const pgr_spec *spec) {
    printf("%" PRId64 "\n", spec->run.nccl.count);
    for (int64_t i = 0; i < spec->run.nccl.count; i++) {
        const pgr_nccl_options *options = &spec->run.nccl.items[i];
        printf("run.nccl.%s=%d %d %s ", options->family, options->split_share,
               options->high_priority, options->net_name);
        print_integer(options->max_ctas);
    }
}

static void print_number(double value) {
    if (isnan(value))
        printf("nil\n");
    else
        printf("%.17g\n", value);
}

static void print_key(const pgr_key *key, const pgr_spec *spec) {
    const void *field = (const char *)spec + key->offset;
    char name[PGR_NAME_MAX];
    printf("%s=", key->path);
    switch (key->type) {
    case PGR_KEY_SECTION:
        printf("section\n");
        break;
    case PGR_KEY_INTEGER:
        print_integer(*(const int64_t *)field);
        break;
    case PGR_KEY_NUMBER:
        print_number(*(const double *)field);
        break;
    case PGR_KEY_BOOLEAN:
    case PGR_KEY_FUNCTION:
        printf("%s\n", *(const bool *)field ? "true" : "false");
        break;
    case PGR_KEY_CHOICE:
        pgr_key_choice_name(key, *(const int *)field, name);
        printf("%s\n", name[0] ? name : "nil");
        break;
    case PGR_KEY_STRING:
        printf("%s\n", (const char *)field);
        break;
    case PGR_KEY_INTEGER_LIST:
    case PGR_KEY_PATTERN:
    case PGR_KEY_CHOICE_LIST:
        print_list(field);
        break;
    case PGR_KEY_NAME_LIST:
        print_names(field);
        break;
    case PGR_KEY_PADDING_RULE:
        printf("%s %" PRId64 "%s\n",
               spec->padding.rule == PGR_PAD_MEGATRON ? "megatron" : "multiple",
               spec->padding.multiple, spec->padding.is_function ? " function" : "");
        break;
    case PGR_KEY_GRID:
        print_grid(field);
        break;
    case PGR_KEY_VIEWS:
        print_views(spec);
        break;
    case PGR_KEY_NCCL:
        print_nccl(spec);
        break;
    }
}

static void print_spec(const pgr_spec *spec) {
    pgr_error error;
    for (int i = 0; i < pgr_key_count; i++)
        print_key(&pgr_keys[i], spec);
    printf("has_model=%d\nhas_moe=%d\nfamilies_given=%d\n", spec->has_model, spec->has_moe,
           spec->run.families_given);
    printf("digest=%016" PRIx64 "\n", pgr_spec_digest(spec));
    printf("runnable=%s\n", pgr_spec_runnable(spec, &error) == PGR_OK ? "yes" : error.message);
}

int main(int argc, char **argv) {
    pgr_config_set sets[64];
    int set_count = 0;
    pgr_config_text text;
    pgr_error error;
    pgr_spec spec;
    for (int i = 3; i < argc && set_count < 64; i += 2)
        sets[set_count++] = argv[i];
    if (argc < 2)
        return 2;
    pgr_status status = pgr_config_read(argv[1], &text, &error);
    if (status == PGR_OK) {
        status = pgr_config_load(argv[1], text.text, text.bytes, sets, set_count, &spec, &error);
        free(text.text);
    }
    if (status != PGR_OK) {
        printf("%s\n", error.message);
        return pgr_exit_code(status);
    }
    print_spec(&spec);
    pgr_spec_free(&spec);
    return 0;
}
