/* check.h - every rule that a layout must pass, once it could be read: planning's first. Pure: it
 * opens nothing and links libc and libm alone. */
#ifndef PGR_CHECK_H
#define PGR_CHECK_H

#include "diagnostic.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Checks a spec at a world size (PGR_NIL: the spec's own, else the smallest legal one) and adds
 * every finding to `found`. *world_size is the size that was checked, PGR_NIL where there is none.
 */
void pgr_check(const pgr_spec *spec, int64_t world_size, int64_t *checked_world,
               pgr_diagnostics *found);

/* The parts of it, by what they look at. `plan` is what pgr_plan_check set, also where it refused
 * the layout: a rule whose sizes or strides are 0 there says nothing. It is NULL where nothing is
 * known; notes are only made of a legal layout. */
void pgr_check_model(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found);
void pgr_check_layers(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found);
void pgr_check_moe(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found);
void pgr_check_sequence(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found);
void pgr_check_cluster(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found);
void pgr_check_crossings(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found);
void pgr_check_families(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found);
void pgr_check_notes(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found);

/* Whether entry `index` of run.nccl is of a family that the plan has and no entry before names.
 * PGR_INVALID as pgr_plan_family_find, or with both names. */
pgr_status pgr_check_nccl_family(const pgr_spec *spec, const pgr_plan *plan, int64_t index,
                                 pgr_error *error);

/* Whether the groups of "tp", "ep" or "etp" cross a node (or NVLink domain), or it is not known. */
bool pgr_check_crosses(const pgr_spec *spec, const pgr_plan *plan, const char *axis);

/* Tokens of a sample after padding, of seq_len or of the packed sequences together; 0 where neither
 * is given or they cannot be padded. */
int64_t pgr_check_tokens(const pgr_spec *spec);

/* Whether layer `layer`, from 0, is one of experts. */
bool pgr_check_layer_is_moe(const pgr_spec *spec, int64_t layer);

#ifdef __cplusplus
}
#endif
#endif
