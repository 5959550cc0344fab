/* random.c - Philox4x32-10 on the host: the definition that every device's fill kernel must equal
 * bit for bit. Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. */
#include "random.h"

#include "bf16.h"

#include <math.h>

enum { ROUNDS = 10 };

uint64_t pgr_random_tensor(const char *name) {
    uint64_t hash = 14695981039346656037u;
    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 1099511628211u;
    return hash;
}

void pgr_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The four words that hold elements 4 * block .. 4 * block + 3. */
static void block_words(const pgr_random *random, uint64_t block, uint32_t words[4]) {
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)random->tensor,
                                 (uint32_t)(random->tensor >> 32)};
    const uint32_t key[2] = {(uint32_t)random->seed, (uint32_t)(random->seed >> 32)};
    pgr_philox4x32(counter, key, words);
}

/* 24 bits are exact in a float and the unit is a power of two, so nothing is rounded here; only
 * the bf16 rounding loses bits. */
static float word_value(uint32_t word, float unit, pgr_dtype dtype) {
    float value = (float)((int32_t)(word >> 8) - 0x800000) * unit;
    return dtype == PGR_BF16 ? pgr_bf16_to_f32(pgr_bf16_from_f32(value)) : value;
}

float pgr_random_value(const pgr_random *random, int64_t index, pgr_dtype dtype) {
    uint32_t words[4];
    block_words(random, (uint64_t)index / 4, words);
    return word_value(words[index & 3], ldexpf(1.0f, random->exponent - 23), dtype);
}

void pgr_random_values(const pgr_random *random, int64_t index, int64_t count, pgr_dtype dtype,
                       double *out) {
    uint32_t words[4] = {0};
    const float unit = ldexpf(1.0f, random->exponent - 23);
    for (int64_t i = 0; i < count; i++) {
        uint64_t at = (uint64_t)(index + i);
        if (i == 0 || at % 4 == 0)
            block_words(random, at / 4, words);
        out[i] = word_value(words[at % 4], unit, dtype);
    }
}
