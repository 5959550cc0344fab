/* sandbox.h - a Lua state that a config may run in: it reaches nothing outside, gives every rank
 * the same answers, and stays within a memory and an instruction limit that Lua code cannot lift.
 */
#ifndef PGR_SANDBOX_H
#define PGR_SANDBOX_H

#include "status.h"

#include <lua.h>

#define PGR_SANDBOX_MEMORY ((size_t)64 << 20) /* bytes */
#ifndef PGR_SANDBOX_INSTRUCTIONS              /* of the Lua machine; the fuzzer takes fewer */
#define PGR_SANDBOX_INSTRUCTIONS ((int64_t)50 * 1000 * 1000)
#endif
#define PGR_SANDBOX_SECONDS 5.0 /* of this thread's processor time, for what no count bounds */

/* One sandbox; lives where its owner puts it, and must not move while it is open. Set `allocate`
 * and `allocate_context` before opening to take memory from elsewhere (a test that fails the k-th
 * call); zero takes malloc. */
typedef struct pgr_sandbox {
    lua_State *state;
    lua_Alloc allocate;
    void *allocate_context;
    size_t memory_used;     /* bytes */
    int64_t instructions;   /* spent so far, with what library calls were charged */
    bool refused;           /* the last failed allocation was over our limit, not the system's */
    bool over_memory;       /* sticky: an allocation failed for good */
    bool over_instructions; /* sticky; also where the time is over */
    double started;         /* seconds of this thread's processor time */
} pgr_sandbox;

/* Opens the state with its library: base, string, table and math without what reaches outside or
 * defeats the limits. math.random starts from `seed`. PGR_LIMIT where memory is short. */
pgr_status pgr_sandbox_open(pgr_sandbox *sandbox, int64_t seed, pgr_error *error);

/* Runs body(L) in protected mode with `context` as a light userdata at index 1. Every use of the
 * state must be inside such a body. What the body allocates outside Lua must hang on `context`, for
 * an error leaves the body by a jump. PGR_LIMIT where memory is short, PGR_INVALID where a limit
 * was hit, PGR_INTERNAL for an error that the body did not expect. */
pgr_status pgr_sandbox_protect(pgr_sandbox *sandbox, lua_CFunction body, void *context,
                               pgr_error *error);

/* Inside a body: calls the function below `arguments` values, as lua_call, within the limits. True
 * leaves `results` values; false leaves one string, the reason. */
bool pgr_sandbox_call(lua_State *L, int arguments, int results);

/* Inside a body: restarts math.random from `seed`. */
void pgr_sandbox_seed(lua_State *L, int64_t seed);

/* Frees the state. NULL, a zeroed and a closed sandbox are allowed. */
void pgr_sandbox_close(pgr_sandbox *sandbox);

/* For the sandbox's own library: the sandbox of a state. */
pgr_sandbox *pgr_sandbox_of(lua_State *L);

/* Charges `cost` instructions; raises a Lua error once the limit is passed. */
void pgr_sandbox_charge(lua_State *L, double cost);

/* Opens the sandbox's library; a lua_CFunction to be called in protected mode. */
int pgr_sandbox_library(lua_State *L);

#endif
