/* draw.h - random layouts of tests: numbers from a fixed seed, so that a failure comes again. */
#ifndef PGR_TEST_DRAW_H
#define PGR_TEST_DRAW_H

#include "spec.h"

#include <stdio.h>

static uint64_t generator_state;

/* splitmix64; a number in [0, limit). */
static inline int64_t draw(int64_t limit) {
    uint64_t z = generator_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (int64_t)((z ^ z >> 31) % (uint64_t)limit);
}

/* A divisor of n. */
static inline int64_t draw_divisor(int64_t n) {
    int64_t divisor;
    do {
        divisor = 1 + draw(n);
    } while (n % divisor != 0);
    return divisor;
}

/* All five axes in any order. */
static inline void draw_order(char *order) {
    const char *axes[] = {"tp", "cp", "ep", "dp", "pp"};
    for (int i = 4; i > 0; i--) {
        int64_t j = draw(i + 1);
        const char *other = axes[i];
        axes[i] = axes[j];
        axes[j] = other;
    }
    snprintf(order, PGR_NAME_MAX, "%s-%s-%s-%s-%s", axes[0], axes[1], axes[2], axes[3], axes[4]);
}

#endif
