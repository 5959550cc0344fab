/* cpu_linear.c - matrix products by OpenBLAS, with bias and activation on each panel of the output
 * while it is still in a cache. bf16 operands are widened into scratch panels first. */
#include <cblas.h>
#include <inttypes.h>
#include <limits.h>

#include "bf16.h"
#include "vec.h"

/* A panel of the output: large enough that OpenBLAS's packing of the operands is small beside the
 * product, small enough that the panel is in a shared cache when its epilogue reads it. */
enum { PANEL_ROWS = 2048, PANEL_COLS = 1024 };

PGR_CLONES
static void widen(const pgr_bf16 *restrict in, float *restrict out, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        out[i] = pgr_bf16_to_f32(in[i]);
}

static void widen_rows(const pgr_bf16 *in, int64_t ld, float *out, int64_t rows, int64_t cols) {
    for (int64_t r = 0; r < rows; r++)
        widen(in + r * ld, out + r * cols, cols);
}

/* 0.5 z (1 + tanh(u)) = z / (1 + exp(-2 u)), u = sqrt(2/pi) (z + 0.044715 z^3). */
PGR_INLINE float gelu(float z) {
    float u2 = z * (1.59576912f + 0.0713548163f * (z * z));
    return z / (1.0f + vec_exp(-u2));
}

PGR_INLINE float silu(float z) {
    return z / (1.0f + vec_exp(-z));
}

/* One row of a panel. `z` holds x w^T of `cols` columns; with a gate, `u` holds the value half's
 * and z the gate's. Biases and saved rows may be NULL. */
typedef struct epilogue_row {
    float *z, *u;
    const float *bias_z, *bias_u;
    void *saved_z, *saved_u;
    void *y;
    int64_t cols;
    pgr_dtype saved_dtype, y_dtype;
    pgr_activation activation;
} epilogue_row;

PGR_INLINE void store_row(const float *restrict in, void *out, int64_t cols, pgr_dtype dtype) {
    if (dtype == PGR_F32) {
        if (out != (const void *)in)
            memcpy(out, in, (size_t)cols * sizeof *in);
        return;
    }
    pgr_bf16 *restrict narrow = out;
    for (int64_t j = 0; j < cols; j++)
        narrow[j] = pgr_bf16_from_f32(in[j]);
}

PGR_INLINE void bias_row(float *restrict z, const float *restrict bias, int64_t cols) {
    for (int64_t j = 0; j < cols; j++)
        z[j] += bias[j];
}

PGR_CLONES
static void epilogue(const epilogue_row *row) {
    float *restrict z = row->z;
    const int64_t cols = row->cols;
    if (row->activation == PGR_GELU && row->bias_z && !row->saved_z) { /* the usual: one pass */
        const float *restrict bias = row->bias_z;
        for (int64_t j = 0; j < cols; j++)
            z[j] = gelu(z[j] + bias[j]);
        store_row(z, row->y, cols, row->y_dtype);
        return;
    }
    if (row->bias_z)
        bias_row(z, row->bias_z, cols);
    if (row->saved_z)
        store_row(z, row->saved_z, cols, row->saved_dtype);
    if (row->activation == PGR_GELU)
        for (int64_t j = 0; j < cols; j++)
            z[j] = gelu(z[j]);
    if (row->activation == PGR_SWIGLU) {
        float *restrict u = row->u;
        if (row->bias_u)
            bias_row(u, row->bias_u, cols);
        if (row->saved_u)
            store_row(u, row->saved_u, cols, row->saved_dtype);
        for (int64_t j = 0; j < cols; j++)
            z[j] = silu(z[j]) * u[j];
    }
    store_row(z, row->y, cols, row->y_dtype);
}

/* One call's fixed facts, worked out once. */
typedef struct linear {
    const pgr_linear_args *args;
    int64_t element, y_element; /* bytes */
    int64_t out_cols;           /* n, or n / 2 with a gate */
    int64_t panel_rows, panel_cols;
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
                    int64_t m, int64_t n, int64_t k) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)n, (int)k, 1.0f, x,
                (int)(ldx > 0 ? ldx : 1), w, (int)(ldw > 0 ? ldw : 1), 0.0f, z, (int)ldz);
}

static void *offset(void *base, int64_t elements, int64_t element) {
    return base ? (char *)base + elements * element : NULL;
}

/* Columns [col, col + cols) of rows [row, row + rows) of y. `x` is the rows' panel of x. */
static void panel(const linear *l, const float *x, int64_t ldx, int64_t row, int64_t rows,
                  int64_t col, int64_t cols) {
    const pgr_linear_args *a = l->args;
    float wide[2][PANEL_COLS];
    int64_t ldw, ldz = l->direct ? a->ldy : l->gated ? 2 * l->panel_cols : l->panel_cols;
    float *z = l->direct ? (float *)a->y + row * a->ldy + col : l->z;
    const float *w = w_panel(l, col, cols, &ldw);
    product(x, ldx, w, ldw, z, ldz, rows, cols, a->k);
    if (l->gated) {
        w = w_panel(l, l->out_cols + col, cols, &ldw);
        product(x, ldx, w, ldw, z + l->panel_cols, ldz, rows, cols, a->k);
    }
    if (l->direct && !a->bias && !a->saved && a->activation == PGR_NO_ACTIVATION)
        return;
    const float *bias_z = bias_panel(a, col, cols, wide[0]);
    const float *bias_u = l->gated ? bias_panel(a, l->out_cols + col, cols, wide[1]) : NULL;
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = row + r;
        epilogue(&(epilogue_row){
            .z = z + r * ldz,
            .u = l->gated ? z + r * ldz + l->panel_cols : NULL,
            .bias_z = bias_z,
            .bias_u = bias_u,
            .saved_z = offset(a->saved, at * a->n + col, l->element),
            .saved_u =
                l->gated ? offset(a->saved, at * a->n + l->out_cols + col, l->element) : NULL,
            .y = offset(a->y, at * a->ldy + col, l->y_element),
            .cols = cols,
            .saved_dtype = a->dtype,
            .y_dtype = a->y_dtype,
            .activation = a->activation,
        });
    }
}

static pgr_status check(const pgr_linear_args *a, pgr_error *error) {
    bool known = (a->dtype == PGR_F32 || a->dtype == PGR_BF16) &&
                 (a->y_dtype == a->dtype || a->y_dtype == PGR_F32);
    if (!known)
        return pgr_error_set(
            error, PGR_UNSUPPORTED,
            "a linear layer from %s to %s; f32 and bf16, and bf16 to f32 are there",
            pgr_dtype_name(a->dtype), pgr_dtype_name(a->y_dtype));
    if (a->m < 0 || a->n < 0 || a->k < 0 || (a->activation == PGR_SWIGLU && a->n % 2 != 0))
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
            status = pgr_cpu_scratch(device, CPU_SCRATCH_W, l->panel_cols * a->k * 4,
                                     (void **)&l->w, error);
    }
    if (status == PGR_OK && !l->direct)
        status = pgr_cpu_scratch(device, CPU_SCRATCH_Z,
                                 l->panel_rows * l->panel_cols * (l->gated ? 2 : 1) * 4,
                                 (void **)&l->z, error);
    return status;
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

pgr_status pgr_cpu_linear(pgr_device *device, const pgr_linear_args *args, pgr_stream *stream,
                          pgr_error *error) {
    (void)stream;
    pgr_status status = check(args, error);
    if (status != PGR_OK || args->m == 0 || args->n == 0)
        return status;
    linear l = {.args = args, .gated = args->activation == PGR_SWIGLU};
    l.element = args->dtype == PGR_F32 ? 4 : 2;
    l.y_element = args->y_dtype == PGR_F32 ? 4 : 2;
    l.out_cols = l.gated ? args->n / 2 : args->n;
    l.direct = args->y_dtype == PGR_F32 && !l.gated;
    l.panel_rows = smaller(args->m, PANEL_ROWS);
    l.panel_cols = smaller(l.out_cols, l.gated ? PANEL_COLS / 2 : PANEL_COLS);
    status = scratch(device, &l, error);
    if (status != PGR_OK)
        return status;
    for (int64_t row = 0; row < args->m; row += l.panel_rows) {
        int64_t rows = smaller(l.panel_rows, args->m - row), ldx;
        const float *x = x_panel(&l, row, rows, &ldx);
        for (int64_t col = 0; col < l.out_cols; col += l.panel_cols)
            panel(&l, x, ldx, row, rows, col, smaller(l.panel_cols, l.out_cols - col));
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
    for (int64_t r = 0; r < args->rows; r++) {
        if (args->dtype == PGR_F32)
            add_bias_f32((float *)args->y + r * args->ld, args->bias, args->cols);
        else
            add_bias_bf16((pgr_bf16 *)args->y + r * args->ld, args->bias, args->cols);
    }
    return PGR_OK;
}
