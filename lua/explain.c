/* explain.c - `pgrun explain CODE`: one page of the catalogue. */
#include "check_report.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LINE_WIDTH 80

/* The paragraph, broken between words. */
static void print_wrapped(const char *text, FILE *out) {
    size_t used = 0;
    while (*text) {
        size_t space = strspn(text, " \n"), word = strcspn(text + space, " \n");
        text += space;
        if (word == 0)
            break;
        if (used > 0 && used + 1 + word > LINE_WIDTH) {
            fputc('\n', out);
            used = 0;
        }
        used += (size_t)fprintf(out, "%s%.*s", used ? " " : "", (int)word, text);
        text += word;
    }
    fputc('\n', out);
}

static void print_example(const char *title, const char *text, FILE *out) {
    fprintf(out, "\n%s:\n\n", title);
    while (*text) {
        size_t length = strcspn(text, "\n");
        fprintf(out, "%s%.*s\n", length ? "    " : "", (int)length, text);
        text += length + (text[length] == '\n');
    }
}

static void print_text(const pgr_rule *rule, FILE *out) {
    fprintf(out, "%s (%s): %s\n\n", rule->code, pgr_severity_name(rule->severity), rule->title);
    print_wrapped(rule->why, out);
    if (rule->bad)
        print_example(rule->severity == PGR_NOTE ? "Example" : "Bad", rule->bad, out);
    if (rule->mended)
        print_example("Mended", rule->mended, out);
}

static void print_json(const pgr_rule *rule, FILE *out) {
    const char *const keys[] = {"code", "severity", "title", "why", "bad", "mended"};
    const char *const values[] = {rule->code,  pgr_severity_name(rule->severity),
                                  rule->title, rule->why,
                                  rule->bad,   rule->mended};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        fprintf(out, "%s\"%s\": ", i ? ",\n  " : "{", keys[i]);
        if (values[i])
            pgr_json_string(values[i], out);
        else
            fputs("null", out);
    }
    fputs("}\n", out);
}

/* The codes around a number that none has, or the range of them all. */
static pgr_status unknown_code(const char *word, pgr_error *error) {
    const char *before = NULL, *after = NULL;
    char *end = NULL;
    bool numbered = strncasecmp(word, "PG", 2) == 0 && word[2] >= '0' && word[2] <= '9';
    long number = numbered ? strtol(word + 2, &end, 10) : 0;
    for (int i = 0; i < pgr_rule_count && numbered && *end == '\0'; i++) {
        long at = strtol(pgr_rules[i].code + 2, NULL, 10);
        if (at <= number)
            before = pgr_rules[i].code;
        else if (!after)
            after = pgr_rules[i].code;
    }
    if (before || after)
        return pgr_error_set(error, PGR_USAGE, "there is no code \"%s\"; the nearest %s %s%s%s",
                             word, before && after ? "are" : "is", before ? before : after,
                             before && after ? " and " : "", before && after ? after : "");
    return pgr_error_set(error, PGR_USAGE, "there is no code \"%s\"; codes go from %s to %s", word,
                         pgr_rules[0].code, pgr_rules[pgr_rule_count - 1].code);
}

pgr_status pgr_command_explain(const pgr_options *options, FILE *out, pgr_error *error) {
    const pgr_rule *rule = pgr_rule_find(options->files[0]);
    if (!rule)
        return unknown_code(options->files[0], error);
    if (options->format && strcmp(options->format, "json") == 0)
        print_json(rule, out);
    else
        print_text(rule, out);
    return PGR_OK;
}
