/* bind_group.h - a rank's group of a family as an object of Lua, which pg.group returns. */
#ifndef PGR_BIND_GROUP_H
#define PGR_BIND_GROUP_H

#include "state.h"

#include <lua.h>

/* Pushes an object for a copy of `group`. Takes memory from Lua alone. Its fields:
 *
 *   name          the family, as asked for          group_name  "tp-0-1"
 *   index         of the group in its family        count       groups of the family
 *   rank, size    as overridden                     members     a list of ranks, from 1
 *   source, last, next, previous                    ranks
 *   has_communicator                                false for a group of one
 *
 * Where the rank is in no group, size is 0, members is empty, has_communicator is false, and what
 * there is none of is nil. Any other field is an error. members is one table, however often it is
 * read. */
void pgr_bind_group_push(lua_State *L, const pgr_state_group *group);

#endif
