/* clang-format off */
/* bind_state.h - the parallel state of a rank (state.h) as the object `pg` of Lua.
 *
 *   pg.world_size, pg.rank                   numbers
 *   pg.at(rank)                              the same object for another rank, with nothing overridden
 *   pg.coordinate("tp")                      the rank's place on an axis
 *   pg.group("tp-cp")                        a group: name, group_name, index, rank, size, count,
 *                                            members, source, last, next, previous, has_communicator
 *   pg.stage(), pg.stages()                  of the pipeline
 *   pg.virtual_stage(), pg.virtual_stages(), pg.split()
 *   pg.set_virtual_stage(n), pg.set_virtual_stages(n), pg.set_split(n)
 *   pg.is_first_stage{ignore_virtual = true}, pg.is_last_stage{...}, pg.in_embedding_group{...}
 *   pg.in_position_embedding_group()
 *   pg.is_before_split(stage), pg.is_after_split(stage), pg.is_at_split()
 *   pg.override("tp", {size = 8, rank = 5})  a dry run; pg.override("tp") ends it
 *   pg.layers(stage)                         {first = , count = }
 *   pg.experts()                             a list of global numbers
 *   pg.shard(4096, "tp")                     first, count
 *
 * Lists start at 1; ranks, stages, layers and experts count from 0. What there is none of is nil. An
 * error of state.h is a Lua error with its message, and so is a name that is not there. */
/* clang-format on */
#ifndef PGR_BIND_STATE_H
#define PGR_BIND_STATE_H

#include "state.h"

#include <lua.h>

/* Pushes an object for a copy of `state`: a table, so that the other functions of an experiment can
 * be put beside these. The plan and the spec of the state must outlive `L`. Takes memory from Lua
 * alone, so that a Lua error on the way loses nothing. */
void pgr_bind_state_push(lua_State *L, const pgr_state *state);

#endif
