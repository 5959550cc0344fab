/* fake_cublaslt.c - stands in for cuBLASLt on the stand-in for CUDA (fake_cuda.c): products in
 * double, in plain loops, enqueued like all else. Strict about what it is told; says nothing about
 * which products the real one has algorithms for. */
#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

#include "fake_cuda.h"

#define LT_MAY_FAIL                                                                                \
    do {                                                                                           \
        if (pgr_fake_cuda_faulty(__func__))                                                        \
            return CUBLAS_STATUS_EXECUTION_FAILED;                                                 \
    } while (0)

/* ---- products ------------------------------------------------------------------------------ */

typedef struct matmul {
    const void *w, *x, *bias;
    void *y;
    int64_t m, n, k, ldx, ldw, ldy, batch, stride_x, stride_w, stride_y;
    pgr_dtype dtype, y_dtype;
    bool gelu, tf32, narrow; /* narrow: a part of the sum is rounded to y's type */
} matmul;

/* An operand: with TF32 cut to 10 bits of mantissa. */
static double lt_load(const matmul *p, const void *data, int64_t at) {
    float value = cuda_load(data, p->dtype, at);
    return p->tf32 ? cuda_float(cuda_bits(value) & 0xffffe000u) : value;
}

/* GELU is as exact as a GPU's approximate tanh, which f32 may not have. */
static void matmul_row(const matmul *p, int64_t x, int64_t w, int64_t y) {
    for (int64_t col = 0; col < p->n; col++) {
        double sum = 0;
        for (int64_t i = 0; i < p->k; i++) {
            sum += lt_load(p, p->x, x + i) * lt_load(p, p->w, w + col * p->ldw + i);
            if (p->narrow && i == p->k / 2)
                sum = pgr_bf16_to_f32(pgr_bf16_from_f32((float)sum));
        }
        float z = (float)sum + (p->bias ? cuda_load(p->bias, p->dtype, col) : 0.0f);
        cuda_store(p->y, p->y_dtype, y + col, p->gelu ? cuda_gelu(z) * (1 + 0x1p-11f) : z);
    }
}

static bool matmul_run(void *context) {
    matmul *p = context;
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t row = 0; row < p->m; row++)
            matmul_row(p, b * p->stride_x + row * p->ldx, b * p->stride_w,
                       b * p->stride_y + row * p->ldy);
    free(p);
    return true;
}

/* ---- descriptors --------------------------------------------------------------------------- */

typedef struct operation {
    int compute, transposed, epilogue, units;
    const void *bias;
    int32_t bias_type;
} operation;

typedef struct layout {
    cudaDataType_t type;
    int64_t rows, cols, ld;
    int32_t batch;
    int64_t stride;
} layout;

const char *cublasLtGetStatusName(cublasStatus_t code) {
    return code == CUBLAS_STATUS_EXECUTION_FAILED ? "CUBLAS_STATUS_EXECUTION_FAILED" : "another";
}

const char *cublasLtGetStatusString(cublasStatus_t code) {
    (void)code;
    return "planted";
}

size_t cublasLtGetVersion(void) {
    return 0;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    LT_MAY_FAIL;
    *handle = malloc(1);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    LT_MAY_FAIL;
    if ((compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_FAST_TF32) ||
        scale != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    operation *made = calloc(1, sizeof *made);
    made->compute = (int)compute;
    *desc = (cublasLtMatmulDesc_t)(void *)made;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
    free(desc);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t name,
                                              const void *value, size_t bytes) {
    operation *o = (operation *)desc;
    LT_MAY_FAIL;
    if (name == CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET && pgr_fake_cuda_faulty("SM_COUNT_TARGET"))
        return CUBLAS_STATUS_EXECUTION_FAILED;
    if (name == CUBLASLT_MATMUL_DESC_TRANSA && bytes == 4)
        memcpy(&o->transposed, value, 4);
    else if (name == CUBLASLT_MATMUL_DESC_EPILOGUE && bytes == 4)
        memcpy(&o->epilogue, value, 4);
    else if (name == CUBLASLT_MATMUL_DESC_BIAS_POINTER && bytes == sizeof o->bias)
        memcpy(&o->bias, value, sizeof o->bias);
    else if (name == CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE && bytes == 4)
        memcpy(&o->bias_type, value, 4);
    else if (name == CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET && bytes == 4)
        memcpy(&o->units, value, 4);
    else
        return CUBLAS_STATUS_INVALID_VALUE;
    return o->units >= 0 && o->units <= PGR_FAKE_MULTIPROCESSORS ? CUBLAS_STATUS_SUCCESS
                                                                 : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *made, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld) {
    LT_MAY_FAIL;
    layout *l = malloc(sizeof *l);
    *l = (layout){type, (int64_t)rows, (int64_t)cols, ld, 1, 0};
    *made = (cublasLtMatrixLayout_t)(void *)l;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t of,
                                                cublasLtMatrixLayoutAttribute_t name,
                                                const void *value, size_t bytes) {
    layout *l = (layout *)of;
    LT_MAY_FAIL;
    if (name == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT && bytes == sizeof l->batch)
        memcpy(&l->batch, value, bytes);
    else if (name == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET && bytes == sizeof l->stride)
        memcpy(&l->stride, value, bytes);
    else
        return CUBLAS_STATUS_INVALID_VALUE;
    return l->batch >= 1 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
    free(l);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
    LT_MAY_FAIL;
    uint32_t *schemes = malloc(sizeof *schemes);
    *schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
    *preference = (cublasLtMatmulPreference_t)schemes;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    free(preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void *value, size_t bytes) {
    LT_MAY_FAIL;
    if (name == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        memcpy(preference, value, 4);
    return bytes == 4 || bytes == 8 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

/* No GELU where 8 does not divide n and nothing at all where k is 33, so that the ways without are
 * taken too. Where parts of a sum may be in the output's type, the algorithm does that. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int *found) {
    (void)handle, (void)b, (void)c;
    LT_MAY_FAIL;
    int epilogue = ((const operation *)desc)->epilogue;
    bool gelu = epilogue == CUBLASLT_EPILOGUE_GELU || epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
    *found = wanted == 1 && !(gelu && ((const layout *)d)->rows % 8 != 0) &&
             ((const layout *)a)->rows != 33;
    memset(results, 0, sizeof *results);
    uint32_t schemes;
    memcpy(&schemes, preference, sizeof schemes);
    results->algo.data[0] = (schemes & (uint32_t)~CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) != 0 &&
                            ((const layout *)d)->type == CUDA_R_16BF;
    return *found ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* All of a product's matrices have its batch, and no two blocks of the result a place in common. */
static bool batches_fit(const layout *a, const layout *b, const layout *d) {
    return a->batch == d->batch && b->batch == d->batch && a->stride >= 0 && b->stride >= 0 &&
           (d->batch == 1 || d->stride >= d->ld * (d->cols - 1) + d->rows);
}

static pgr_dtype dtype_of(cudaDataType_t type) {
    return type == CUDA_R_32F ? PGR_F32 : PGR_BF16;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *w, cublasLtMatrixLayout_t wl, const void *x,
                              cublasLtMatrixLayout_t xl, const void *beta, const void *c,
                              cublasLtMatrixLayout_t cl, void *y, cublasLtMatrixLayout_t yl,
                              const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t bytes,
                              cudaStream_t stream) {
    (void)handle, (void)cl;
    LT_MAY_FAIL;
    const operation *o = (const operation *)desc;
    const layout *a = (const layout *)wl, *b = (const layout *)xl, *d = (const layout *)yl;
    bool fits = a->rows == b->rows && a->cols == d->rows && b->cols == d->cols &&
                a->ld >= a->rows && b->ld >= b->rows && d->ld >= d->rows && a->type == b->type &&
                batches_fit(a, b, d);
    if (!fits || o->transposed != CUBLAS_OP_T || *(const float *)alpha != 1 ||
        *(const float *)beta != 0 || c != y || !algorithm || !workspace || bytes < (32u << 20))
        return CUBLAS_STATUS_INVALID_VALUE;
    bool bias = o->epilogue == CUBLASLT_EPILOGUE_BIAS || o->epilogue == CUBLASLT_EPILOGUE_GELU_BIAS;
    if (bias && (o->bias_type != (int32_t)d->type || !o->bias))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (bias && (uintptr_t)o->bias % 16 != 0) /* a GPU faults: "misaligned address" */
        return CUBLAS_STATUS_EXECUTION_FAILED;
    if (a->rows == 34) /* offered, and refused all the same */
        return CUBLAS_STATUS_NOT_SUPPORTED;
    matmul p = {.w = w,
                .x = x,
                .bias = bias ? o->bias : NULL,
                .y = y,
                .m = d->cols,
                .n = d->rows,
                .k = a->rows,
                .ldx = b->ld,
                .ldw = a->ld,
                .ldy = d->ld,
                .batch = d->batch,
                .stride_x = b->stride,
                .stride_w = a->stride,
                .stride_y = d->stride,
                .dtype = dtype_of(a->type),
                .y_dtype = dtype_of(d->type),
                .gelu = o->epilogue == CUBLASLT_EPILOGUE_GELU ||
                        o->epilogue == CUBLASLT_EPILOGUE_GELU_BIAS,
                .tf32 = o->compute == (int)CUBLAS_COMPUTE_32F_FAST_TF32,
                .narrow = algorithm->data[0] != 0};
    matmul *made = malloc(sizeof *made);
    *made = p;
    pgr_fake_cuda_enqueue(stream, matmul_run, made);
    return CUBLAS_STATUS_SUCCESS;
}
