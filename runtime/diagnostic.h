/* diagnostic.h - what is wrong with a config, or worth knowing about it: one list of findings, each
 * of a rule of the catalogue, with its values and a way out. Knows neither files nor positions: a
 * finding names the keys that contribute, and the reader of the file knows where they stand. */
#ifndef PGR_DIAGNOSTIC_H
#define PGR_DIAGNOSTIC_H

#include "spec.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PGR_PATH_MAX 160       /* bytes of a key's path, NUL included */
#define PGR_DIAGNOSTIC_PATHS 8 /* keys of one finding, at most */

typedef enum pgr_severity { PGR_NOTE, PGR_WARNING, PGR_ERROR } pgr_severity;

/* One rule of the catalogue; the source of `pgrun explain` and docs/diagnostics.md. */
typedef struct pgr_rule {
    const char *code; /* "PG012" */
    pgr_severity severity;
    const char *title;  /* a short phrase: "tp does not divide the heads" */
    const char *why;    /* a paragraph: what goes wrong, and where it would show */
    const char *bad;    /* a config that triggers it, Lua text */
    const char *mended; /* the same config, mended; NULL for what needs no mending */
} pgr_rule;

extern const pgr_rule pgr_rules[]; /* ascending by code */
extern const int pgr_rule_count;

/* The rule with this code, in any case of its letters, or NULL. */
const pgr_rule *pgr_rule_find(const char *code);

const char *pgr_severity_name(pgr_severity severity); /* "error", "warning", "note" */

/* One finding. The first path is where it is told, the others contribute. */
typedef struct pgr_diagnostic {
    const pgr_rule *rule;
    pgr_severity severity; /* the rule's, unless --strict raised it */
    char message[640];     /* the values: "tp = 3 does not divide heads = 52" */
    char help[384]; /* the way out: "tp can be 1, 2, 4, 13, 26 or 52"; "" where there is none */
    bool at_key;    /* the key itself is meant, not its value */
    int64_t line, column; /* where no key says it but Lua does; 0 unless known */
    int32_t path_count;
    char paths[PGR_DIAGNOSTIC_PATHS][PGR_PATH_MAX];
} pgr_diagnostic;

/* A list of findings; zero-initialised it is empty. Freed with pgr_diagnostics_free. */
typedef struct pgr_diagnostics {
    pgr_diagnostic *items;
    int64_t count, room;
    bool out_of_memory; /* a finding was lost */
    bool bare;          /* only which rules fire is asked for: no ways out, no notes */
} pgr_diagnostics;

/* Adds a finding of rule `code`. `paths` are the contributing keys, separated by blanks; `help` may
 * be NULL. Returns it (valid until the next one is added), or NULL where memory is short. */
pgr_diagnostic *pgr_diagnose(pgr_diagnostics *list, const char *code, const char *paths,
                             const char *help, const char *format, ...) PGR_PRINTF(5, 6);

/* Adds a copy of a finding; as pgr_diagnose. */
pgr_diagnostic *pgr_diagnostics_add(pgr_diagnostics *list, const pgr_diagnostic *finding);

/* Sorts by severity, worst first; otherwise the order of finding stays. */
void pgr_diagnostics_sort(pgr_diagnostics *list);

int64_t pgr_diagnostics_count(const pgr_diagnostics *list, pgr_severity severity);

void pgr_diagnostics_free(pgr_diagnostics *list);

#ifdef __cplusplus
}
#endif
#endif
