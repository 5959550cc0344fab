/* groups_rank.h - what `pgrun groups --rank` tells of a rank beside its groups. */
#ifndef PGR_GROUPS_RANK_H
#define PGR_GROUPS_RANK_H

#include "state.h"

#define PGR_GROUPS_HOLDS_MAX 512 /* bytes of the text, NUL included */

/* Writes the rank's stage, layers, experts and embeddings, as far as the config gives them, a line
 * each with its newline; "" where it gives none, or `rank`, which counts from rank_offset, is not
 * in the world. What the config gives wrongly (layers that do not divide) is told as not known: it
 * is no matter of groups. */
void pgr_groups_rank_holds(const pgr_plan *plan, const pgr_spec *spec, int64_t rank,
                           char text[PGR_GROUPS_HOLDS_MAX]);

#endif
