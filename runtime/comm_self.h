/* comm_self.h - the bootstrap of one rank alone. Internal. */
#ifndef PGR_COMM_SELF_H
#define PGR_COMM_SELF_H

#include "comm.h"

extern const pgr_bootstrap_ops pgr_self_bootstrap;

#endif
