/* deadline.h - deadlines without progress, and how to wait for something that is polled. Internal:
 * shared by the core and the modules, not installed. */
#ifndef PGR_DEADLINE_H
#define PGR_DEADLINE_H

#include "status.h"

#include <sched.h>
#include <time.h>

typedef struct pgr_deadline {
    double limit;       /* seconds without progress */
    double spent, last; /* seconds counted so far; the clock at the last look */
} pgr_deadline;

static inline pgr_deadline pgr_deadline_start(double seconds) {
    return (pgr_deadline){.limit = seconds, .spent = 0, .last = pgr_clock_seconds()};
}

/* Longer than any time between two looks of a process that runs, on crowded cores too. */
#define PGR_DEADLINE_GAP 1.0 /* seconds */

/* Whether the limit has passed. A look that comes more than half the limit after the one before,
 * and more than PGR_DEADLINE_GAP, means that this process itself did not run (stopped, suspended,
 * swapped out): it then starts over, since a rank that wakes up must not blame the others for its
 * own silence. */
static inline bool pgr_deadline_passed(pgr_deadline *deadline) {
    double now = pgr_clock_seconds();
    double gap = now - deadline->last;
    deadline->last = now;
    double half = deadline->limit / 2, longest = half > PGR_DEADLINE_GAP ? half : PGR_DEADLINE_GAP;
    deadline->spent = gap > longest ? 0 : deadline->spent + gap;
    return deadline->spent > deadline->limit;
}

/* One step of waiting: `rounds` counts the looks so far. At first it only spins (`spin` looks),
 * then gives the core to another rank; in a long wait it sleeps, so that ranks that wait do not
 * slow those that work: about 50 microseconds at a time (the kernel's slack), since a large message
 * only moves on when both its ends look; after about a second a millisecond. */
static inline void pgr_wait_step(int64_t *rounds, int64_t spin) {
    const int64_t yields = 4000, naps = 20000;
    int64_t round = (*rounds)++;
    if (round < spin)
        return;
    if (round < spin + yields) {
        sched_yield();
        return;
    }
    struct timespec pause = {.tv_sec = 0, .tv_nsec = round < spin + yields + naps ? 1000 : 1000000};
    nanosleep(&pause, NULL);
}

/* The same for something that another thread of this process does: that one needs the core, so that
 * this one sleeps from the start, 50 microseconds and more and more up to a millisecond. */
static inline void pgr_wait_step_asleep(int64_t *rounds) {
    int64_t microseconds = 50 + 25 * (*rounds)++;
    microseconds = microseconds < 1000 ? microseconds : 1000;
    struct timespec pause = {.tv_sec = 0, .tv_nsec = (long)microseconds * 1000};
    nanosleep(&pause, NULL);
}

#endif
