/* pgrun.h - the whole public API of libpgrun, room by room, in the order data flows:
 *
 *   status -> spec -> diagnostic -> plan -> state -> check -> device -> comm -> layer -> workload
 * -> report
 *
 * Link with `pkg-config --cflags --libs pgrun` or CMake's find_package(pgrun), target pgrun::pgrun.
 */
#ifndef PGRUN_H
#define PGRUN_H

#include "status.h"

#include "spec.h"

#include "diagnostic.h"

#include "plan.h"

#include "state.h"

#include "check.h"

#include "device.h"

#include "random.h"

#include "comm.h"

#include "layer.h"

#include "workload.h"

#include "report.h"

#include "config.h"

#define PGRUN_VERSION "0.1.0"

#endif
