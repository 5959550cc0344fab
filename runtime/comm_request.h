/* comm_request.h - how messages name an operation. Internal: shared by the core and the modules. */
#ifndef PGR_COMM_REQUEST_H
#define PGR_COMM_REQUEST_H

#include "comm.h"

#include <stdio.h>

/* "all-reduce number 3 of 4096 bytes in family tp, group 0 (world ranks 0, 1)" */
static inline void pgr_request_text(const pgr_request *request, char *text, size_t bytes) {
    const pgr_comm *comm = request->comm;
    snprintf(text, bytes, "%s number %llu of %lld bytes in family %s, group %lld (world ranks %s)",
             request->operation, (unsigned long long)request->sequence, (long long)request->bytes,
             comm->family, (long long)comm->group, comm->members[0] ? comm->members : "unknown");
}

#endif
