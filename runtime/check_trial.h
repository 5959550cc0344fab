/* check_trial.h - ways out that are right: a rule changes a copy of the spec as its way out says,
 * and all rules are asked again. Private to the rules (check*.c) and their tests. */
#ifndef PGR_CHECK_TRIAL_H
#define PGR_CHECK_TRIAL_H

#include "check.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PGR_TRIAL_EACH = 6, PGR_TRIAL_VALUES = 2 * PGR_TRIAL_EACH };

/* The trials of one finding and the way out that they lead to. */
typedef struct pgr_trial {
    pgr_spec spec;      /* to be changed and tried; it shares the lists of `original` */
    int64_t world_size; /* of the check, PGR_NIL where none was asked for; may be changed too */
    bool fits;          /* what mends fits the world, also where the original does not */
    bool open;          /* try at whatever world fits, since the world has its own findings */
    char help[384];     /* the way out so far */
    const pgr_spec *original;
    pgr_diagnostics before; /* what the original has */
    pgr_diagnostics after;  /* what the last trial had; its room is used again */
    pgr_diagnostic target;  /* the finding that is to go */
    int64_t left;           /* trials that may still be made: hostile sizes end, too */
    bool out_of_memory;
} pgr_trial;

/* Begins the trials of the finding (code, paths) that the caller is about to add to `found`. The
 * help is empty then. False where no way out is wanted, since `found` is that of a trial. */
bool pgr_trial_begin(pgr_trial *trial, const pgr_spec *spec, const pgr_plan *plan,
                     const pgr_diagnostics *found, const char *code, const char *paths);

/* Whether with trial->spec and trial->world_size as they are now the finding is gone, and no error
 * and no finding of the same code is there that was not there before. */
bool pgr_trial_mends(pgr_trial *trial);

/* Allows some more trials, for another kind of way out; not where each of them is slow. */
void pgr_trial_more(pgr_trial *trial, int64_t trials);

/* Undoes all changes. */
void pgr_trial_reset(pgr_trial *trial);

/* Frees what the trials hold; `found` hears of memory that was short. The help stays. */
void pgr_trial_end(pgr_trial *trial, pgr_diagnostics *found);

/* Appends an alternative to the help, behind `joint` where it is not the first. */
void pgr_trial_offer(pgr_trial *trial, const char *joint, const char *format, ...) PGR_PRINTF(3, 4);

/* The values of *field, an integer of trial->spec, that mend, ascending: of the divisors of `of`
 * the PGR_TRIAL_EACH nearest on each side of its present one. Returns how many. */
int pgr_trial_divisors(pgr_trial *trial, int64_t *field, int64_t of,
                       int64_t values[PGR_TRIAL_VALUES]);

/* The nearest multiple of `step` on each side of *field that mends, ascending; 0 to 2 of them. */
int pgr_trial_multiples(pgr_trial *trial, int64_t *field, int64_t step,
                        int64_t values[PGR_TRIAL_VALUES]);

/* Offers "NAME can be 1, 2 or 4" of the divisors (multiples) that mend; where none does at this
 * world, of those that do at another one. Whether there is any. `lead` stands before the name. */
bool pgr_trial_offer_divisors(pgr_trial *trial, const char *joint, const char *lead,
                              const char *name, int64_t *field, int64_t of);
bool pgr_trial_offer_multiples(pgr_trial *trial, const char *joint, const char *lead,
                               const char *name, int64_t *field, int64_t step);

/* "1, 2 or 4" */
void pgr_trial_list(const int64_t *values, int count, char *text, size_t bytes);

/* The least common multiple of two sizes, or 0 where it does not fit in 63 bits. */
int64_t pgr_least_multiple(int64_t a, int64_t b);

#ifdef __cplusplus
}
#endif
#endif
