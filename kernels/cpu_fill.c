/* cpu_fill.c - slices of named random tensors: Philox on sixteen counters at a time. Equal to
 * pgr_random_value bit for bit. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "bf16.h"
#include "cpu.h"

enum { BLOCKS = 16, VALUES = 4 * BLOCKS };

/* The VALUES elements from 4 * block on. */
PGR_INLINE void philox_values(const pgr_random *random, float unit, uint64_t block,
                              float values[VALUES]) {
    uint32_t c0[BLOCKS], c1[BLOCKS], c2[BLOCKS], c3[BLOCKS];
    uint32_t k0 = (uint32_t)random->seed, k1 = (uint32_t)(random->seed >> 32);
    for (int i = 0; i < BLOCKS; i++) {
        c0[i] = (uint32_t)(block + (uint64_t)i);
        c1[i] = (uint32_t)((block + (uint64_t)i) >> 32);
        c2[i] = (uint32_t)random->tensor;
        c3[i] = (uint32_t)(random->tensor >> 32);
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c0[i];
            uint64_t p1 = (uint64_t)0xCD9E8D57u * c2[i];
            c0[i] = (uint32_t)(p1 >> 32) ^ c1[i] ^ k0;
            c1[i] = (uint32_t)p1;
            c2[i] = (uint32_t)(p0 >> 32) ^ c3[i] ^ k1;
            c3[i] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < BLOCKS; i++) {
        values[4 * i] = (float)((int32_t)(c0[i] >> 8) - 0x800000) * unit;
        values[4 * i + 1] = (float)((int32_t)(c1[i] >> 8) - 0x800000) * unit;
        values[4 * i + 2] = (float)((int32_t)(c2[i] >> 8) - 0x800000) * unit;
        values[4 * i + 3] = (float)((int32_t)(c3[i] >> 8) - 0x800000) * unit;
    }
}

/* `count` consecutive elements from `index` on. */
PGR_CLONES
static void fill_run(const pgr_random *random, float unit, int64_t index, int64_t count,
                     pgr_dtype dtype, void *out) {
    float *f32 = out;
    pgr_bf16 *bf16 = out;
    int64_t done = 0;
    while (done < count) {
        float values[VALUES];
        int64_t at = index + done, skip = at & 3;
        int64_t take = VALUES - skip < count - done ? VALUES - skip : count - done;
        philox_values(random, unit, (uint64_t)at / 4, values);
        if (dtype == PGR_F32)
            memcpy(f32 + done, values + skip, (size_t)take * sizeof *f32);
        else
            for (int64_t i = 0; i < take; i++)
                bf16[done + i] = pgr_bf16_from_f32(values[skip + i]);
        done += take;
    }
}

pgr_status pgr_cpu_fill(pgr_device *device, const pgr_fill_args *args, pgr_stream *stream,
                        pgr_error *error) {
    (void)device, (void)stream;
    if (args->dtype != PGR_F32 && args->dtype != PGR_BF16)
        return pgr_error_set(error, PGR_UNSUPPORTED, "random values in %s; f32 and bf16 are there",
                             pgr_dtype_name(args->dtype));
    int64_t bytes = args->dtype == PGR_F32 ? 4 : 2;
    float unit = ldexpf(1.0f, args->random.exponent - 23);
    int64_t rows = args->rows, cols = args->cols;
    if (rows <= 0 || cols <= 0)
        return PGR_OK;
    if (!args->row_ids && args->row_stride == cols && args->ld == cols) { /* one long row */
        cols *= rows;
        rows = 1;
    }
    for (int64_t r = 0; r < rows; r++) {
        char *out = (char *)args->out + r * args->ld * bytes;
        int64_t id = args->row_ids ? args->row_ids[r] : r;
        if (id < 0)
            memset(out, 0, (size_t)(cols * bytes));
        else
            fill_run(&args->random, unit, args->origin + id * args->row_stride, cols, args->dtype,
                     out);
    }
    return PGR_OK;
}
