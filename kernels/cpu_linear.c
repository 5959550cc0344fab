/* cpu_linear.c - matrix products by OpenBLAS, with bias and activation on each panel of the output
 * while it is still in a cache. bf16 operands are widened into scratch panels first. */
#include <cblas.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>

#include "bf16.h"
#include "vec.h"

/* A panel of the output: large enough that OpenBLAS's packing of the operands is small beside the
 * product, small enough that the panel is in a shared cache when its epilogue reads it. */
enum { PANEL_ROWS = 2048, PANEL_COLS = 4096 };

PGR_CLONES
static void widen(const pgr_bf16 *restrict in, float *restrict out, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        out[i] = pgr_bf16_to_f32(in[i]);
}

static void widen_rows(const pgr_bf16 *in, int64_t ld, float *out, int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r++)
        widen(in + r * ld, out + r * cols, cols);
}

/* 0.5 z (1 + tanh(u)) = z / (1 + exp(-2 u)), u = sqrt(2/pi) (z + 0.044715 z^3); the constants carry
 * the factor -2 log2(e). */
PGR_INLINE float gelu(float z) {
    float c = vec_limit(z, 8.0f); /* beyond, gelu(z) is z or 0 in f32 */
    return z / (1.0f + vec_exp2(c * (-2.30220819f - 0.102943239f * (c * c))));
}

PGR_INLINE float silu(float z) {
    return z / (1.0f + vec_exp2(-1.44269504f * vec_limit(z, 60.0f)));
}

/* One row of a panel. `z` holds x w^T of `cols` columns; with a gate, `u` holds the value half's
 * and z the gate's. Biases and saved rows may be NULL; y may be z. */
typedef struct epilogue_row {
    const float *z, *u;
    const float *bias_z, *bias_u;
    void *saved_z, *saved_u;
    void *y;
    int64_t cols;
    pgr_dtype saved_dtype, y_dtype;
    pgr_activation activation;
} epilogue_row;

/* Columns that an epilogue handles at a time, in the nearest cache. */
enum { CHUNK = 256 };

PGR_INLINE void store(const float *restrict in, void *out, int64_t at, int64_t count,
                      pgr_dtype dtype) {
    float *restrict f32 = (float *)out + at;
    pgr_bf16 *restrict bf16 = (pgr_bf16 *)out + at;
    if (dtype == PGR_F32)
        for (int64_t j = 0; j < count; j++)
            f32[j] = in[j];
    else
        for (int64_t j = 0; j < count; j++)
            bf16[j] = pgr_bf16_from_f32(in[j]);
}

PGR_INLINE void load(const float *restrict z, const float *restrict bias, int64_t at, int64_t count,
                     float *restrict out) {
    if (bias)
        for (int64_t j = 0; j < count; j++)
            out[j] = z[at + j] + bias[at + j];
    else
        for (int64_t j = 0; j < count; j++)
            out[j] = z[at + j];
}

PGR_CLONES
static void epilogue(const epilogue_row *row) {
    for (int64_t at = 0; at < row->cols; at += CHUNK) {
        int64_t count = row->cols - at < CHUNK ? row->cols - at : CHUNK;
        float z[CHUNK] __attribute__((aligned(64))), u[CHUNK] __attribute__((aligned(64)));
        load(row->z, row->bias_z, at, count, z);
        if (row->saved_z)
            store(z, row->saved_z, at, count, row->saved_dtype);
        if (row->activation == PGR_GELU)
            for (int64_t j = 0; j < count; j++)
                z[j] = gelu(z[j]);
        if (row->activation == PGR_SWIGLU) {
            load(row->u, row->bias_u, at, count, u);
            if (row->saved_u)
                store(u, row->saved_u, at, count, row->saved_dtype);
            for (int64_t j = 0; j < count; j++)
                z[j] = silu(z[j]) * u[j];
        }
        store(z, row->y, at, count, row->y_dtype);
    }
}

/* One call's fixed facts, worked out once. */
typedef struct linear {
    const pgr_linear_args *args;
    int64_t element, y_element; /* bytes */
    int64_t out_cols;           /* n, or n / 2 with a gate */
    int64_t panel_rows, panel_cols;
    int64_t threads;    /* that an epilogue may use */
    bool gated, direct; /* direct: sgemm writes into y */
    float *x, *w, *z;   /* scratch, where needed */
} linear;

static const float *x_panel(const linear *l, int64_t row, int64_t rows, int64_t *ld) {
    const pgr_linear_args *a = l->args;
    if (a->dtype == PGR_F32) {
        *ld = a->ldx;
        return (const float *)a->x + row * a->ldx;
    }
    widen_rows((const pgr_bf16 *)a->x + row * a->ldx, a->ldx, l->x, rows, a->k);
    *ld = a->k;
    return l->x;
}

static const float *w_panel(const linear *l, int64_t row, int64_t rows, int64_t *ld) {
    const pgr_linear_args *a = l->args;
    if (a->dtype == PGR_F32) {
        *ld = a->ldw;
        return (const float *)a->w + row * a->ldw;
    }
    widen_rows((const pgr_bf16 *)a->w + row * a->ldw, a->ldw, l->w, rows, a->k);
    *ld = a->k;
    return l->w;
}

/* `cols` elements of the bias from `col` on, as f32; NULL where there is none. */
static const float *bias_panel(const pgr_linear_args *a, int64_t col, int64_t cols, float *wide) {
    if (!a->bias)
        return NULL;
    if (a->dtype == PGR_F32)
        return (const float *)a->bias + col;
    widen((const pgr_bf16 *)a->bias + col, wide, cols);
    return wide;
}

static void product(const float *x, int64_t ldx, const float *w, int64_t ldw, float *z, int64_t ldz,
                    int64_t m, int64_t n, int64_t k, float beta) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)k, 1.0f, x,
                (int)(ldx > 0 ? ldx : 1), w, (int)(ldw > 0 ? ldw : 1), beta, z, (int)ldz);
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static void *offset(void *base, int64_t elements, int64_t element) {
    return base ? (char *)base + elements * element : NULL;
}

/* x w^T into the panel's z. With a gate, the value half's columns come after the gate's. */
static void panel_product(const linear *l, const float *x, int64_t ldx, float *z, int64_t ldz,
                          int64_t rows, int64_t col, int64_t cols, float beta) {
    const pgr_linear_args *a = l->args;
    bool whole = l->gated && cols == l->out_cols; /* then both halves are one product */
    int64_t ldw, width = whole ? a->n : cols;
    const float *w = w_panel(l, col, width, &ldw);
    product(x, ldx, w, ldw, z, ldz, rows, width, a->k, beta);
    if (l->gated && !whole) {
        w = w_panel(l, l->out_cols + col, cols, &ldw);
        product(x, ldx, w, ldw, z + cols, ldz, rows, cols, a->k, beta);
    }
}

/* Rows [begin, end) of a panel's epilogue. */
typedef struct epilogue_share {
    const linear *l;
    const float *z;
    int64_t ldz;
    const float *bias_z, *bias_u;
    int64_t row, begin, end, col, cols; /* row, col: of the panel, in y */
} epilogue_share;

static void *epilogue_rows(void *argument) {
    const epilogue_share *s = argument;
    const pgr_linear_args *a = s->l->args;
    for (int64_t r = s->begin; r < s->end; r++) {
        int64_t at = (s->row + r) * a->n + s->col;
        const float *z = s->z + r * s->ldz;
        epilogue(&(epilogue_row){
            .z = z,
            .u = s->l->gated ? z + s->cols : NULL,
            .bias_z = s->bias_z,
            .bias_u = s->bias_u,
            .saved_z = offset(a->saved, at, s->l->element),
            .saved_u = s->l->gated ? offset(a->saved, at + s->l->out_cols, s->l->element) : NULL,
            .y = offset(a->y, (s->row + r) * a->ldy + s->col, s->l->y_element),
            .cols = s->cols,
            .saved_dtype = a->dtype,
            .y_dtype = a->y_dtype,
            .activation = a->activation,
        });
    }
    return NULL;
}

enum { THREADS_MAX = 16, THREAD_ELEMENTS = 1 << 18 };

/* Shares a panel's rows between the device's threads, where each has enough to do to be worth its
 * start (some tens of microseconds). What cannot be started is done here. */
static void epilogue_threads(const epilogue_share *whole) {
    pthread_t threads[THREADS_MAX];
    epilogue_share shares[THREADS_MAX];
    int64_t rows = whole->end, count = rows * whole->cols / THREAD_ELEMENTS;
    count = smaller(smaller(count, whole->l->threads), smaller(THREADS_MAX, rows));
    count = count < 1 ? 1 : count;
    int64_t started = 1;
    for (int64_t i = 0; i < count; i++) {
        shares[i] = *whole;
        shares[i].begin = rows * i / count;
        shares[i].end = rows * (i + 1) / count;
    }
    while (started < count &&
           pthread_create(&threads[started], NULL, epilogue_rows, &shares[started]) == 0)
        started++;
    epilogue_rows(&shares[0]);
    for (int64_t i = started; i < count; i++)
        epilogue_rows(&shares[i]);
    for (int64_t i = 1; i < started; i++)
        pthread_join(threads[i], NULL);
}

/* Columns [col, col + cols) of rows [row, row + rows) of y. `x` is the rows' panel of x. */
static void panel(const linear *l, const float *x, int64_t ldx, int64_t row, int64_t rows,
                  int64_t col, int64_t cols) {
    const pgr_linear_args *a = l->args;
    float wide[2][PANEL_COLS];
    const float *bias_z = bias_panel(a, col, cols, wide[0]);
    const float *bias_u = l->gated ? bias_panel(a, l->out_cols + col, cols, wide[1]) : NULL;
    int64_t ldz = l->direct ? a->ldy : l->gated ? 2 * cols : cols;
    float *z = l->direct ? (float *)a->y + row * a->ldy + col : l->z;
    if (l->direct && !a->saved && a->activation == PGR_NO_ACTIVATION) {
        /* the product adds to the bias: OpenBLAS would else write zeros first */
        for (int64_t r = 0; bias_z && r < rows; r++)
            memcpy(z + r * ldz, bias_z, (size_t)cols * sizeof *z);
        panel_product(l, x, ldx, z, ldz, rows, col, cols, bias_z ? 1.0f : 0.0f);
        return;
    }
    panel_product(l, x, ldx, z, ldz, rows, col, cols, 0.0f);
    epilogue_share whole = {l, z, ldz, bias_z, bias_u, row, 0, rows, col, cols};
    epilogue_threads(&whole);
}

static pgr_status check(const pgr_linear_args *a, pgr_error *error) {
    bool known = (a->dtype == PGR_F32 || a->dtype == PGR_BF16) &&
                 (a->y_dtype == a->dtype || a->y_dtype == PGR_F32);
    if (!known)
        return pgr_error_set(
            error, PGR_UNSUPPORTED,
            "a linear layer from %s to %s; f32 and bf16, and bf16 to f32 are there",
            pgr_dtype_name(a->dtype), pgr_dtype_name(a->y_dtype));
    if (a->m < 0 || a->n < 0 || a->k < 0 || a->batch < 0 ||
        (a->activation == PGR_SWIGLU && a->n % 2 != 0))
        return pgr_error_set(error, PGR_INTERNAL,
                             "a linear layer of m = %" PRId64 ", n = %" PRId64 ", k = %" PRId64
                             "; sizes are not negative, and n is even with swiglu",
                             a->m, a->n, a->k);
    if (a->k > INT_MAX || a->ldx > INT_MAX || a->ldw > INT_MAX || a->ldy > INT_MAX)
        return pgr_error_set(error, PGR_LIMIT,
                             "a linear layer with k = %" PRId64 " and row strides %" PRId64
                             ", %" PRId64 ", %" PRId64 ": OpenBLAS's sizes end at %d; use more "
                             "tensor-parallel ranks",
                             a->k, a->ldx, a->ldw, a->ldy, INT_MAX);
    return PGR_OK;
}

static pgr_status scratch(pgr_device *device, linear *l, pgr_error *error) {
    const pgr_linear_args *a = l->args;
    pgr_status status = PGR_OK;
    if (a->dtype == PGR_BF16) {
        status =
            pgr_cpu_scratch(device, CPU_SCRATCH_X, l->panel_rows * a->k * 4, (void **)&l->x, error);
        if (status == PGR_OK)
            status = pgr_cpu_scratch(device, CPU_SCRATCH_W,
                                     l->panel_cols * (l->gated ? 2 : 1) * a->k * 4, (void **)&l->w,
                                     error);
    }
    if (status == PGR_OK && !l->direct)
        status = pgr_cpu_scratch(device, CPU_SCRATCH_Z,
                                 l->panel_rows * l->panel_cols * (l->gated ? 2 : 1) * 4,
                                 (void **)&l->z, error);
    return status;
}

static void linear_block(linear *l, const pgr_linear_args *args) {
    l->args = args;
    for (int64_t row = 0; row < args->m; row += l->panel_rows) {
        int64_t rows = smaller(l->panel_rows, args->m - row), ldx;
        const float *x = x_panel(l, row, rows, &ldx);
        for (int64_t col = 0; col < l->out_cols; col += l->panel_cols)
            panel(l, x, ldx, row, rows, col, smaller(l->panel_cols, l->out_cols - col));
    }
}

pgr_status pgr_cpu_linear(pgr_device *device, const pgr_linear_args *args, pgr_stream *stream,
                          pgr_error *error) {
    (void)stream;
    pgr_status status = check(args, error);
    if (status != PGR_OK || args->m == 0 || args->n == 0)
        return status;
    linear l = {.args = args, .threads = device->threads, .gated = args->activation == PGR_SWIGLU};
    l.element = args->dtype == PGR_F32 ? 4 : 2;
    l.y_element = args->y_dtype == PGR_F32 ? 4 : 2;
    l.out_cols = l.gated ? args->n / 2 : args->n;
    l.direct = args->y_dtype == PGR_F32 && !l.gated;
    l.panel_rows = smaller(args->m, PANEL_ROWS);
    l.panel_cols = smaller(l.out_cols, PANEL_COLS);
    status = scratch(device, &l, error);
    if (status != PGR_OK)
        return status;
    int64_t batch = args->batch > 1 ? args->batch : 1;
    for (int64_t b = 0; b < batch; b++) {
        pgr_linear_args block = *args;
        block.x = (const char *)args->x + b * args->stride_x * l.element;
        block.y = offset(args->y, b * args->stride_y, l.y_element);
        block.saved = offset(args->saved, b * args->stride_saved, l.element);
        linear_block(&l, &block);
    }
    return PGR_OK;
}

PGR_CLONES
static void add_bias_f32(float *restrict y, const float *restrict bias, int64_t cols) {
    for (int64_t j = 0; j < cols; j++)
        y[j] += bias[j];
}

PGR_CLONES
static void add_bias_bf16(pgr_bf16 *restrict y, const pgr_bf16 *restrict bias, int64_t cols) {
    for (int64_t j = 0; j < cols; j++)
        y[j] = pgr_bf16_from_f32(pgr_bf16_to_f32(y[j]) + pgr_bf16_to_f32(bias[j]));
}

pgr_status pgr_cpu_add_bias(pgr_device *device, const pgr_bias_args *args, pgr_stream *stream,
                            pgr_error *error) {
    (void)device, (void)stream;
    if (args->dtype != PGR_F32 && args->dtype != PGR_BF16)
        return pgr_error_set(error, PGR_UNSUPPORTED, "a bias in %s; f32 and bf16 are there",
                             pgr_dtype_name(args->dtype));
    for (int64_t r = 0; r < args->rows; r++)
        if (args->dtype == PGR_F32)
            add_bias_f32((float *)args->y + r * args->ld, args->bias, args->cols);
        else
            add_bias_bf16((pgr_bf16 *)args->y + r * args->ld, args->bias, args->cols);
    return PGR_OK;
}
