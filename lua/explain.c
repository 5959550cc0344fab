/* explain.c - `pgrun explain CODE`: one page of the catalogue; without a code, all of it in
 * Markdown, which is docs/diagnostics.md. */
#include "check_report.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LINE_WIDTH 80

/* Markdown takes some characters for itself, but not within `code`; a lone dash may come to a
 * line's start, where it would open a list. Returns the columns used. */
static size_t print_markdown_word(const char *word, size_t length, bool *code, FILE *out) {
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        bool lone = length == 1 && strchr("-+", word[i]);
        if (word[i] == '`')
            *code = !*code;
        if (!*code && (lone || strchr("*<|[", word[i]))) {
            fputc('\\', out);
            used++;
        }
        fputc(word[i], out);
    }
    return used + length;
}

/* The paragraph, broken between words. */
static void print_wrapped(const char *text, bool markdown, FILE *out) {
    size_t used = 0;
    bool code = false;
    while (*text) {
        size_t space = strspn(text, " \n"), word = strcspn(text + space, " \n");
        text += space;
        if (word == 0)
            break;
        if (used > 0 && used + 1 + word > LINE_WIDTH) {
            fputc('\n', out);
            used = 0;
        }
        if (used > 0) {
            fputc(' ', out);
            used++;
        }
        if (markdown)
            used += print_markdown_word(text, word, &code, out);
        else
            used += (size_t)fprintf(out, "%.*s", (int)word, text);
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

static const char *example_title(const pgr_rule *rule) {
    return rule->severity == PGR_NOTE ? "Example" : "Bad";
}

static void print_text(const pgr_rule *rule, FILE *out) {
    fprintf(out, "%s (%s): %s\n\n", rule->code, pgr_severity_name(rule->severity), rule->title);
    print_wrapped(rule->why, false, out);
    if (rule->bad)
        print_example(example_title(rule), rule->bad, out);
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
    fputs("}", out);
}

/* ---- the whole catalogue ---- */

static void print_markdown_title(const pgr_rule *rule, FILE *out) {
    bool code = false;
    print_markdown_word(rule->title, strlen(rule->title), &code, out);
}

static void print_markdown_example(const char *title, const char *text, FILE *out) {
    size_t length = strlen(text);
    const char *end = length > 0 && text[length - 1] == '\n' ? "" : "\n";
    fprintf(out, "\n%s:\n\n```lua\n%s%s```\n", title, text, end);
}

static void print_markdown(const pgr_rule *rule, FILE *out) {
    fprintf(out, "\n## %s\n\n**%s: ", rule->code, pgr_severity_name(rule->severity));
    print_markdown_title(rule, out);
    fputs("**\n\n", out);
    print_wrapped(rule->why, true, out);
    if (rule->bad)
        print_markdown_example(example_title(rule), rule->bad, out);
    if (rule->mended)
        print_markdown_example("Mended", rule->mended, out);
}

static const char page_head[] =
    "# What does a diagnostic mean?\n"
    "\n"
    "`pgrun check` names each finding by a code that never changes its meaning. An **error** is a\n"
    "config that cannot be read, or a layout that cannot work or that Megatron-Core refuses; a\n"
    "**warning** is a layout that works but is slow or seldom meant (`--strict` makes it an "
    "error); a\n"
    "**note** tells what is worth knowing.\n"
    "\n"
    "`pgrun explain PG012` prints one of them in the terminal, `pgrun explain` this page, from "
    "the\n"
    "table in the code (`runtime/diagnostic_rules.c`). How to run the check in CI: "
    "[ci.md](ci.md).\n"
    "\n"
    "| code | severity | title |\n"
    "|---|---|---|\n";

static void print_page(FILE *out) {
    fputs(page_head, out);
    for (int i = 0; i < pgr_rule_count; i++) {
        const pgr_rule *rule = &pgr_rules[i];
        fprintf(out, "| [%s](#pg%s) | %s | ", rule->code, rule->code + 2,
                pgr_severity_name(rule->severity));
        print_markdown_title(rule, out);
        fputs(" |\n", out);
    }
    for (int i = 0; i < pgr_rule_count; i++)
        print_markdown(&pgr_rules[i], out);
}

static void print_json_list(FILE *out) {
    for (int i = 0; i < pgr_rule_count; i++) {
        fputs(i ? ",\n" : "[", out);
        print_json(&pgr_rules[i], out);
    }
    fputs("]\n", out);
}

/* ---- */

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
    const char *word = options->file_count > 0 ? options->files[0] : "all";
    bool json = options->format && strcmp(options->format, "json") == 0;
    if (strcmp(word, "all") == 0) {
        if (json)
            print_json_list(out);
        else
            print_page(out);
        return PGR_OK;
    }
    const pgr_rule *rule = pgr_rule_find(word);
    if (!rule)
        return unknown_code(word, error);
    if (json) {
        print_json(rule, out);
        fputc('\n', out);
    } else {
        print_text(rule, out);
    }
    return PGR_OK;
}
