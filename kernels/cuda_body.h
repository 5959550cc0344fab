/* cuda_body.h - what one CUDA thread does, in C that a host compiler takes too: the unit tests run
 * every thread of a launch in a loop and compare with the CPU's kernels, where there is no GPU. */
#ifndef PGR_CUDA_BODY_H
#define PGR_CUDA_BODY_H

#include <math.h>

#include "bf16.h"
#include "device.h"

/* A thread of a launch: its number, and how many there are. */
typedef struct cuda_lane {
    int64_t index, count;
} cuda_lane;

/* ---- random values ------------------------------------------------------------------------- */

/* The words of elements 4 * block .. 4 * block + 3: random.c's, in integers alone. */
PGR_BOTH void cuda_philox(const pgr_random *random, uint64_t block, uint32_t words[4]) {
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32);
    uint32_t c2 = (uint32_t)random->tensor, c3 = (uint32_t)(random->tensor >> 32);
    uint32_t k0 = (uint32_t)random->seed, k1 = (uint32_t)(random->seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
}

/* Philox blocks that a row of `cols` > 0 elements can touch, wherever in one it begins. */
PGR_BOTH int64_t cuda_fill_blocks(int64_t cols) {
    return (cols + 2) / 4 + 1;
}

PGR_BOTH void cuda_store(void *out, pgr_dtype dtype, int64_t at, float value) {
    if (dtype == PGR_F32)
        ((float *)out)[at] = value;
    else
        ((pgr_bf16 *)out)[at] = pgr_bf16_from_f32(value);
}

/* The columns of row `row` that lie in its `block`-th Philox block. `unit`: 2^(exponent - 23). */
PGR_BOTH void cuda_fill_block(const pgr_fill_args *args, float unit, int64_t row, int64_t block) {
    int64_t id = args->row_ids ? args->row_ids[row] : row;
    uint64_t first = (uint64_t)(args->origin + (id < 0 ? 0 : id) * args->row_stride);
    uint64_t at = first / 4 + (uint64_t)block;
    int64_t col = (int64_t)(4 * at - first); /* of the block's first word; -3 or more */
    if (col >= args->cols)
        return;
    uint32_t words[4] = {0, 0, 0, 0};
    if (id >= 0)
        cuda_philox(&args->random, at, words);
    for (int i = 0; i < 4; i++, col++) {
        if (col < 0 || col >= args->cols)
            continue;
        float value = id < 0 ? 0.0f : (float)((int32_t)(words[i] >> 8) - 0x800000) * unit;
        cuda_store(args->out, args->dtype, row * args->ld + col, value);
    }
}

/* One thread's share. */
PGR_BOTH void cuda_fill(const pgr_fill_args *args, float unit, cuda_lane lane) {
    int64_t blocks = cuda_fill_blocks(args->cols);
    for (int64_t i = lane.index; i < args->rows * blocks; i += lane.count)
        cuda_fill_block(args, unit, i / blocks, i % blocks);
}

/* ---- bias ---------------------------------------------------------------------------------- */

PGR_BOTH float cuda_load(const void *data, pgr_dtype dtype, int64_t at) {
    return dtype == PGR_F32 ? ((const float *)data)[at]
                            : pgr_bf16_to_f32(((const pgr_bf16 *)data)[at]);
}

/* Sixteen bytes of elements, as one access. */
typedef struct cuda_vector {
    uint32_t words[4];
} cuda_vector;

PGR_BOTH cuda_vector cuda_vector_load(const void *from) {
    cuda_vector v;
#ifdef __CUDA_ARCH__
    uint4 whole = *(const uint4 *)from;
    v.words[0] = whole.x, v.words[1] = whole.y, v.words[2] = whole.z, v.words[3] = whole.w;
#else
    memcpy(&v, from, sizeof v);
#endif
    return v;
}

PGR_BOTH void cuda_vector_store(void *to, cuda_vector v) {
#ifdef __CUDA_ARCH__
    *(uint4 *)to = make_uint4(v.words[0], v.words[1], v.words[2], v.words[3]);
#else
    memcpy(to, &v, sizeof v);
#endif
}

PGR_BOTH float cuda_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

PGR_BOTH uint32_t cuda_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* One word of f32, or two elements of bf16, added and rounded. */
PGR_BOTH uint32_t cuda_word_add(uint32_t a, uint32_t b, pgr_dtype dtype) {
    if (dtype == PGR_F32)
        return cuda_bits(cuda_float(a) + cuda_float(b));
    uint32_t low = pgr_bf16_from_f32(cuda_float(a << 16) + cuda_float(b << 16));
    uint32_t high = pgr_bf16_from_f32(cuda_float(a & 0xffff0000u) + cuda_float(b & 0xffff0000u));
    return low | high << 16;
}

/* Elements in an access where every row of y and the bias are aligned to 16 bytes, else 1. */
PGR_BOTH int cuda_bias_width(const pgr_bias_args *args) {
    int64_t size = args->dtype == PGR_F32 ? 4 : 2, width = 16 / size;
    bool aligned = ((uintptr_t)args->y | (uintptr_t)args->bias) % 16 == 0;
    return aligned && args->ld % width == 0 && args->cols % width == 0 ? (int)width : 1;
}

PGR_BOTH void cuda_add_bias(const pgr_bias_args *args, cuda_lane lane) {
    int width = cuda_bias_width(args);
    int64_t size = args->dtype == PGR_F32 ? 4 : 2, units = args->cols / width;
    for (int64_t i = lane.index; i < args->rows * units; i += lane.count) {
        int64_t col = i % units * width, at = i / units * args->ld + col;
        if (width == 1) {
            float sum =
                cuda_load(args->y, args->dtype, at) + cuda_load(args->bias, args->dtype, col);
            cuda_store(args->y, args->dtype, at, sum);
            continue;
        }
        cuda_vector y = cuda_vector_load((const char *)args->y + at * size);
        cuda_vector bias = cuda_vector_load((const char *)args->bias + col * size);
        for (int w = 0; w < 4; w++)
            y.words[w] = cuda_word_add(y.words[w], bias.words[w], args->dtype);
        cuda_vector_store((char *)args->y + at * size, y);
    }
}

/* ---- what follows a product ---------------------------------------------------------------- */

/* z = product + bias for `rows` rows of each block of a linear layer, from row `first` of it on:
 * saved, activated and rounded once. The product is [batch * rows, n], f32. */
typedef struct cuda_epilogue {
    pgr_linear_args linear;
    float *product;
    int64_t first, rows;
} cuda_epilogue;

/* Rows of the product, those of all blocks. */
PGR_BOTH int64_t cuda_epilogue_rows(const cuda_epilogue *e) {
    return e->linear.batch > 1 ? e->linear.batch * e->rows : e->rows;
}

/* Where row `row` of the product begins in a matrix of the layer, elements. */
PGR_BOTH int64_t cuda_epilogue_place(const cuda_epilogue *e, int64_t row, int64_t stride,
                                     int64_t ld) {
    return row / e->rows * stride + (e->first + row % e->rows) * ld;
}

/* The product itself, one element at a time: slow, for what cuBLASLt refuses. */
PGR_BOTH void cuda_product(const cuda_epilogue *e, cuda_lane lane) {
    const pgr_linear_args *l = &e->linear;
    int64_t count = cuda_epilogue_rows(e) * l->n;
    for (int64_t i = lane.index; i < count; i += lane.count) {
        int64_t x = cuda_epilogue_place(e, i / l->n, l->stride_x, l->ldx), w = i % l->n * l->ldw;
        float sum = 0;
        for (int64_t at = 0; at < l->k; at++)
            sum += cuda_load(l->x, l->dtype, x + at) * cuda_load(l->w, l->dtype, w + at);
        e->product[i] = sum;
    }
}

PGR_BOTH float cuda_gelu(float z) {
    return 0.5f * z * (1.0f + tanhf(0.7978845608028654f * (z + 0.044715f * z * z * z)));
}

PGR_BOTH float cuda_epilogue_z(const cuda_epilogue *e, int64_t row, int64_t col) {
    const pgr_linear_args *l = &e->linear;
    float z = e->product[row * l->n + col];
    if (l->bias)
        z += cuda_load(l->bias, l->dtype, col);
    if (l->saved)
        cuda_store(l->saved, l->dtype, cuda_epilogue_place(e, row, l->stride_saved, l->n) + col, z);
    return z;
}

PGR_BOTH void cuda_epilogue_apply(const cuda_epilogue *e, cuda_lane lane) {
    const pgr_linear_args *l = &e->linear;
    int64_t outs = l->activation == PGR_SWIGLU ? l->n / 2 : l->n;
    for (int64_t i = lane.index; i < cuda_epilogue_rows(e) * outs; i += lane.count) {
        int64_t row = i / outs, col = i % outs;
        float z = cuda_epilogue_z(e, row, col), y = z;
        if (l->activation == PGR_GELU)
            y = cuda_gelu(z);
        else if (l->activation == PGR_SWIGLU)
            y = z / (1.0f + expf(-z)) * cuda_epilogue_z(e, row, outs + col);
        cuda_store(l->y, l->y_dtype, cuda_epilogue_place(e, row, l->stride_y, l->ldy) + col, y);
    }
}

#endif
