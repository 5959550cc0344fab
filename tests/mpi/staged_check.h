/* staged_check.h - what the files of staged_test share: see comm_check.h for the job and its
 * checks. */
#ifndef STAGED_CHECK_H
#define STAGED_CHECK_H

#include "comm_check.h"
#include "comm_staged.h"

enum { RANKS_MAX = 16 };

extern pgr_comm *comm; /* of all ranks; NULL: there is one alone */

/* ---- values -------------------------------------------------------------------------------- */

/* Element i of that rank's data: of 0..3, exact in every dtype, and so are sums of them. */
int value(int64_t rank, int64_t i);
int reduced(int64_t i, pgr_reduce reduce);

/* ---- buffers: on the device, with their host images ---------------------------------------- */

extern void *sent, *got;
extern pgr_dtype dtype; /* of the current case */
extern int64_t count;   /* elements of a block */

void buffers_open(int64_t bytes);
void buffers_close(void);

/* Between host and device; done when it returns. */
void copy(void *to, const void *from, int64_t bytes);

void *element(void *data, int64_t i);

/* Element i of `sent` becomes value(rank, i), and that is what `compare` wants unless `expect` says
 * otherwise; not in place `got` is full of 77s, which must be left alone. */
void prepare(bool in_place);
void expect(int64_t i, int v);

/* Waits; then the whole buffer must be what is expected. */
void compare(pgr_status started, pgr_request *request, const void *buffer, const char *what);

/* ---- cases --------------------------------------------------------------------------------- */

void test_operations(void);
void test_large(void); /* takes pieces of the usual size */

#endif
