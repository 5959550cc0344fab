/* random.h - the counter-based generator on the host; device.h says how elements get their values.
 */
#ifndef PGR_RANDOM_H
#define PGR_RANDOM_H

#include "device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The 64-bit id of a tensor from its name (FNV-1a). */
uint64_t pgr_random_tensor(const char *name);

/* Four words of Philox4x32-10. */
void pgr_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* The value of one element, before and after rounding to `dtype` (f32 or bf16): exactly what every
 * device's fill kernel writes. */
float pgr_random_value(const pgr_random *random, int64_t index, pgr_dtype dtype);

/* `count` consecutive elements from `index` on, as doubles: the reference's view. */
void pgr_random_values(const pgr_random *random, int64_t index, int64_t count, pgr_dtype dtype,
                       double *out);

#ifdef __cplusplus
}
#endif
#endif
