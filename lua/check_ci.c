/* check_ci.c - findings for machines that show them: GitHub's workflow commands, SARIF 2.1.0 and
 * JUnit's XML. */
#include "check_report.h"
#include "pgrun.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define ANNOTATIONS 10             /* that GitHub shows of one step */
#define SUMMARY_BYTES (900 * 1024) /* of a step's summary; GitHub drops one of more than 1 MiB */

/* ---- GitHub ---- */

/* A workflow command ends at a line break, and a property of it at "," or ":". */
static void put_escaped(const char *text, bool property, FILE *out) {
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '%' || c < 0x20 || c == 0x7f || (property && (c == ':' || c == ',')))
            fprintf(out, "%%%02X", c);
        else
            fputc(c, out);
    }
}

static void print_command(const pgr_check_entry *entry, const pgr_check_finding *finding,
                          FILE *out) {
    static const char *const names[] = {"notice", "warning", "error"};
    char about[PGR_ABOUT_BYTES];
    const pgr_check_location *at = pgr_check_place(finding);
    fprintf(out, "::%s file=", names[finding->severity]);
    put_escaped(entry->file, true, out);
    if (at)
        fprintf(out, ",line=%" PRId64 ",col=%" PRId64, at->line, at->column);
    fprintf(out, ",title=%s::", finding->rule->code);
    put_escaped(finding->message, false, out);
    if (finding->help[0]) {
        fputs("%0Ahelp: ", out);
        put_escaped(finding->help, false, out);
    }
    pgr_check_about(entry, about, sizeof about);
    if (about[0]) {
        fputs("%0A", out);
        put_escaped(about + 1, false, out); /* without the blank before it */
    }
    fputs("\n", out);
}

/* Text in a Markdown table or a log line: no markup, no cell's end, no workflow command. */
static void put_markdown(const char *text, FILE *out) {
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '<' || c == '>' || c == '&' || c == '|' || c == '@')
            fprintf(out, "&#%d;", c);
        else if (strchr("\\`*_[]#~!", c))
            fprintf(out, "\\%c", c);
        else
            fputc(c < 0x20 || c == 0x7f ? ' ' : c, out);
    }
}

static void print_row(const pgr_check_entry *entry, const pgr_check_finding *finding, FILE *out) {
    const pgr_check_location *at = pgr_check_place(finding);
    char about[PGR_ABOUT_BYTES];
    fprintf(out, "| %s | %s | ", pgr_severity_name(finding->severity), finding->rule->code);
    put_markdown(entry->file, out);
    if (at)
        fprintf(out, ":%" PRId64, at->line);
    pgr_check_about(entry, about, sizeof about);
    put_markdown(about, out);
    fputs(" | ", out);
    put_markdown(finding->message, out);
    if (finding->help[0]) {
        fputs("; ", out);
        put_markdown(finding->help, out);
    }
    fputs(" |\n", out);
}

/* Calls print for every finding, worst first, but for the first `skip`, until `most` were printed
 * or the file has `bytes`. Returns how many were. */
static int64_t
each_finding(const pgr_check_report *report, int64_t skip, int64_t most, long bytes, FILE *out,
             void (*print)(const pgr_check_entry *, const pgr_check_finding *, FILE *)) {
    int64_t seen = 0;
    for (int severity = PGR_ERROR; severity >= PGR_NOTE; severity--) {
        for (int64_t i = 0; i < report->entry_count; i++) {
            const pgr_check_entry *entry = &report->entries[i];
            for (int64_t k = 0; k < entry->count; k++) {
                if ((int)entry->findings[k].severity != severity || ++seen <= skip)
                    continue;
                if (seen - skip > most || ftell(out) > bytes)
                    return seen - 1 - skip;
                print(entry, &entry->findings[k], out);
            }
        }
    }
    return seen > skip ? seen - skip : 0;
}

static int64_t total(const pgr_check_report *report) {
    return report->totals[PGR_ERROR] + report->totals[PGR_WARNING] + report->totals[PGR_NOTE];
}

static void print_totals(const pgr_check_report *report, FILE *out) {
    const struct {
        int64_t count;
        const char *name;
    } parts[] = {{report->entry_count, "layout"},
                 {report->totals[PGR_ERROR], "error"},
                 {report->totals[PGR_WARNING], "warning"},
                 {report->totals[PGR_NOTE], "note"}};
    fputs("pgrun check: ", out);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        fprintf(out, "%s%" PRId64 " %s%s", i ? ", " : "", parts[i].count, parts[i].name,
                parts[i].count == 1 ? "" : "s");
}

/* GitHub names this file; nothing else is read from the environment here. Returns how many findings
 * it took. */
static int64_t write_summary(const pgr_check_report *report, int64_t rest) {
    const char *name = getenv("GITHUB_STEP_SUMMARY");
    FILE *file = name && name[0] ? fopen(name, "a") : NULL;
    if (!file)
        return 0;
    fputs("### ", file);
    print_totals(report, file);
    fputs("\n\n| severity | code | place | finding |\n| --- | --- | --- | --- |\n", file);
    int64_t told = each_finding(report, ANNOTATIONS, rest, SUMMARY_BYTES, file, print_row);
    fputs("\n", file);
    if (told < rest)
        fprintf(file, "%" PRId64 " more findings are in the log.\n", rest - told);
    return fclose(file) == 0 ? told : 0;
}

void pgr_check_github(const pgr_check_report *report, FILE *out) {
    int64_t rest = total(report) - ANNOTATIONS;
    each_finding(report, 0, ANNOTATIONS, LONG_MAX, out, print_command);
    print_totals(report, out);
    int64_t told = rest > 0 ? write_summary(report, rest) : 0;
    if (told > 0)
        fprintf(out, "; %" PRId64 " more findings are in the job's summary", told);
    fputs(rest > told ? "; the other findings:\n" : "\n", out);
    if (rest > told)
        each_finding(report, ANNOTATIONS + told, rest, LONG_MAX, out, print_row);
}

/* ---- SARIF ---- */

static const char *sarif_level(pgr_severity severity) {
    static const char *const levels[] = {"note", "warning", "error"};
    return levels[severity];
}

static void print_key(const char *key, const char *text, FILE *out) {
    fprintf(out, "\"%s\": ", key);
    pgr_json_string(text, out);
}

/* A path as a relative reference or a file URI. */
static void print_uri(const char *path, FILE *out) {
    static const char plain[] = "-._~/";
    fputs("\"uri\": \"", out);
    if (path[0] == '/')
        fputs("file://", out);
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    for (; *path; path++) {
        unsigned char c = (unsigned char)*path;
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (letter || strchr(plain, c))
            fputc(c, out);
        else
            fprintf(out, "%%%02X", c);
    }
    fputs("\"", out);
}

static void add_example(char *text, size_t bytes, const char *title, const char *example) {
    size_t used = strlen(text);
    if (example)
        snprintf(text + used, bytes - used, "\n\n%s:\n\n```lua\n%s```", title, example);
}

/* What the page of a result shows: the rule, and as Markdown its examples too. */
static void print_rule_help(const pgr_rule *rule, FILE *out) {
    char text[8192];
    snprintf(text, sizeof text, "%s", rule->why);
    print_key("text", text, out);
    add_example(text, sizeof text, rule->severity == PGR_NOTE ? "Example" : "Bad", rule->bad);
    add_example(text, sizeof text, "Mended", rule->mended);
    fputs(", ", out);
    print_key("markdown", text, out);
}

static void print_rule(const pgr_rule *rule, FILE *out) {
    fputs("        {", out);
    print_key("id", rule->code, out);
    fputs(", \"shortDescription\": {", out);
    print_key("text", rule->title, out);
    fputs("}, \"fullDescription\": {", out);
    print_key("text", rule->why, out);
    fputs("}, \"help\": {", out);
    print_rule_help(rule, out);
    fprintf(out, "}, \"defaultConfiguration\": {\"level\": \"%s\"}}", sarif_level(rule->severity));
}

static void print_sarif_place(const pgr_check_entry *entry, const pgr_check_location *at,
                              FILE *out) {
    fputs("{\"physicalLocation\": {\"artifactLocation\": {", out);
    print_uri(entry->file, out);
    fputs("}", out);
    if (at && at->line > 0)
        fprintf(out, ", \"region\": {\"startLine\": %" PRId64 ", \"startColumn\": %" PRId64 "}",
                at->line, at->text_column);
    fputs("}", out);
    if (at && at->path[0]) {
        fputs(", \"logicalLocations\": [{", out);
        print_key("fullyQualifiedName", at->path, out);
        fputs("}]", out);
    }
    if (at && at->line > 0 && at->path[0] && !at->written) {
        char text[sizeof at->path + 24];
        snprintf(text, sizeof text, "%s (not written out)", at->path);
        fputs(", \"message\": {", out);
        print_key("text", text, out);
        fputs("}", out);
    }
    fputs("}", out);
}

static void print_result(const pgr_check_entry *entry, const pgr_check_finding *finding,
                         FILE *out) {
    const pgr_check_location *first = pgr_check_place(finding);
    char text[sizeof finding->message + sizeof finding->help + 16];
    snprintf(text, sizeof text, "%s%s%s", finding->message, finding->help[0] ? "\nhelp: " : "",
             finding->help);
    fputs("      {", out);
    print_key("ruleId", finding->rule->code, out);
    fprintf(out, ", \"ruleIndex\": %td, \"level\": \"%s\", \"message\": {",
            finding->rule - pgr_rules, sarif_level(finding->severity));
    print_key("text", text, out);
    fputs("},\n       \"locations\": [", out);
    print_sarif_place(entry, first, out);
    fputs("]", out);
    const char *joint = ", \"relatedLocations\": [";
    for (int32_t i = 0; i < finding->location_count; i++) {
        if (&finding->locations[i] == first || !finding->locations[i].path[0])
            continue;
        fputs(joint, out);
        print_sarif_place(entry, &finding->locations[i], out);
        joint = ", ";
    }
    if (joint[2] == '\0')
        fputs("]", out);
    fputs(", \"properties\": {", out);
    if (entry->world_size != PGR_NIL)
        fprintf(out, "\"worldSize\": %" PRId64 ", ", entry->world_size);
    pgr_json_sets(entry->choice, out);
    fputs("}}", out);
}

void pgr_check_sarif(const pgr_check_report *report, FILE *out) {
    fputs("{\"$schema\": \"https://json.schemastore.org/sarif-2.1.0.json\",\n"
          "  \"version\": \"2.1.0\",\n  \"runs\": [{\n"
          "    \"columnKind\": \"unicodeCodePoints\",\n"
          "    \"tool\": {\"driver\": {\"name\": \"pgrun\", \"version\": \"" PGRUN_VERSION
          "\", \"rules\": [\n",
          out);
    for (int i = 0; i < pgr_rule_count; i++) {
        print_rule(&pgr_rules[i], out);
        fputs(i + 1 < pgr_rule_count ? ",\n" : "\n", out);
    }
    fputs("    ]}},\n    \"results\": [", out);
    const char *joint = "\n";
    for (int64_t i = 0; i < report->entry_count; i++) {
        for (int64_t k = 0; k < report->entries[i].count; k++) {
            fputs(joint, out);
            print_result(&report->entries[i], &report->entries[i].findings[k], out);
            joint = ",\n";
        }
    }
    fputs("\n    ]\n  }]\n}\n", out);
}

/* ---- JUnit ---- */

/* What XML 1.0 may hold; a byte that is not UTF-8 becomes "?". */
static void put_xml(const char *text, FILE *out) {
    size_t left = strlen(text);
    while (left > 0) {
        int length = pgr_utf8_length(text, left);
        unsigned char c = (unsigned char)text[0];
        bool nonchar = length == 3 && c == 0xEF && (unsigned char)text[1] == 0xBF &&
                       (unsigned char)text[2] >= 0xBE;
        if (length == 0 || nonchar || (c < 0x20 && c != '\n') || c == 0x7f)
            fputc('?', out);
        else if (length == 1 && (strchr("<>&\"'", c) || c == '\n'))
            fprintf(out, "&#%d;", c);
        else
            fwrite(text, 1, (size_t)length, out);
        length += length == 0;
        text += length;
        left -= (size_t)length;
    }
}

static void print_xml_finding(const pgr_check_entry *entry, const pgr_check_finding *finding,
                              FILE *out) {
    const pgr_check_location *at = pgr_check_place(finding);
    put_xml(entry->file, out);
    if (at)
        fprintf(out, ":%" PRId64 ":%" PRId64, at->line, at->column);
    fprintf(out, ": %s %s: ", pgr_severity_name(finding->severity), finding->rule->code);
    put_xml(finding->message, out);
    if (finding->help[0]) {
        fputs("; ", out);
        put_xml(finding->help, out);
    }
    fputs("\n", out);
}

static void print_xml_findings(const pgr_check_entry *entry, bool errors, FILE *out) {
    for (int64_t i = 0; i < entry->count; i++)
        if ((entry->findings[i].severity == PGR_ERROR) == errors)
            print_xml_finding(entry, &entry->findings[i], out);
}

static void print_case(const pgr_check_entry *entry, FILE *out) {
    int64_t errors = pgr_check_count(entry, PGR_ERROR);
    char about[PGR_ABOUT_BYTES];
    fputs("    <testcase classname=\"pgrun.check\" name=\"", out);
    put_xml(entry->file, out);
    pgr_check_about(entry, about, sizeof about);
    put_xml(about, out);
    fputs("\" file=\"", out);
    put_xml(entry->file, out);
    fputs("\">\n", out);
    if (errors > 0) {
        fprintf(out, "      <failure type=\"%s\" message=\"", entry->findings[0].rule->code);
        put_xml(entry->findings[0].message, out);
        fputs("\">", out);
        print_xml_findings(entry, true, out);
        fputs("</failure>\n", out);
    }
    if (entry->count > errors) {
        fputs("      <system-out>", out);
        print_xml_findings(entry, false, out);
        fputs("</system-out>\n", out);
    }
    fputs("    </testcase>\n", out);
}

void pgr_check_junit(const pgr_check_report *report, FILE *out) {
    int64_t failures = 0;
    for (int64_t i = 0; i < report->entry_count; i++)
        failures += pgr_check_count(&report->entries[i], PGR_ERROR) > 0;
    fprintf(out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<testsuites tests=\"%" PRId64 "\" failures=\"%" PRId64 "\">\n"
            "  <testsuite name=\"pgrun check\" tests=\"%" PRId64 "\" failures=\"%" PRId64
            "\" errors=\"0\" skipped=\"0\">\n",
            report->entry_count, failures, report->entry_count, failures);
    for (int64_t i = 0; i < report->entry_count; i++)
        print_case(&report->entries[i], out);
    fputs("  </testsuite>\n</testsuites>\n", out);
}
