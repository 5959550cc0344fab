/* report.h - rows in, a table and JSON lines out. The text follows nccl-tests: comment lines start
 * with '#', a line per result. */
#ifndef PGR_REPORT_H
#define PGR_REPORT_H

#include "workload.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pgr_report pgr_report;

/* `text` (borrowed; may be NULL) gets the table, `directory` (may be NULL; made if need be) the
 * file rows.jsonl, a line as soon as a result is known. PGR_SYSTEM where the folder or the file
 * cannot be written. For one rank of a job; the others pass NULL for both or keep no report. */
pgr_status pgr_report_open(FILE *text, const char *directory, pgr_report **report,
                           pgr_error *error);

/* What was declared, and where it runs. */
pgr_status pgr_report_layout(pgr_report *report, const char *config, const pgr_job *job,
                             const pgr_spec *spec, const pgr_plan *plan, pgr_error *error);

/* The groups that this gave, and what opening took: on the slowest rank, and on the one whose
 * device lost most memory. `setups` has one entry per open family, and one for what the
 * communicators share (see pgr_groups_world). */
pgr_status pgr_report_groups(pgr_report *report, const pgr_job *job, const pgr_groups *groups,
                             const pgr_setup *setups, pgr_error *error);

/* One result: a line of text and a row. */
pgr_status pgr_report_result(pgr_report *report, const pgr_result *result, pgr_error *error);

/* The last line, then frees the report. NULL is allowed. */
pgr_status pgr_report_close(pgr_report *report, pgr_error *error);

#ifdef __cplusplus
}
#endif
#endif
