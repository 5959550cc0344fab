/* gpu_bench_bare.c - what CUDA says of the GPU, and a product by one bare call of cuBLASLt: the
 * baseline of linear layers. The only part of gpu_bench that sees CUDA. */
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

#include "cuda.h" /* a stream of the module's is a stream of CUDA's */
#include "gpu_bench.h"

static const size_t workspace_bytes = (size_t)32 << 20;

/* ---- the GPU ------------------------------------------------------------------------------- */

static pgr_status cuda_check(cudaError_t code, const char *call, pgr_error *error) {
    return code == cudaSuccess
               ? PGR_OK
               : pgr_error_set(error, PGR_BACKEND, "%s: %s", call, cudaGetErrorString(code));
}

static pgr_status attribute(enum cudaDeviceAttr name, int *value, pgr_error *error) {
    return cuda_check(cudaDeviceGetAttribute(value, name, 0), "cudaDeviceGetAttribute", error);
}

pgr_status gpu_facts_read(gpu_facts *facts, pgr_error *error) {
    struct cudaDeviceProp properties;
    gpu_facts f = {.cublaslt = (int)cublasLtGetVersion()};
    int khz = 0, l2 = 0;
    pgr_status status =
        cuda_check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties", error);
    if (status == PGR_OK)
        status = attribute(cudaDevAttrClockRate, &khz, error);
    if (status == PGR_OK)
        status = attribute(cudaDevAttrL2CacheSize, &l2, error);
    if (status == PGR_OK)
        status = cuda_check(cudaDriverGetVersion(&f.driver), "cudaDriverGetVersion", error);
    if (status == PGR_OK)
        status = cuda_check(cudaRuntimeGetVersion(&f.runtime), "cudaRuntimeGetVersion", error);
    if (status != PGR_OK)
        return status;
    snprintf(f.name, sizeof f.name, "%.127s", properties.name);
    f.major = properties.major;
    f.minor = properties.minor;
    f.sms = properties.multiProcessorCount;
    f.memory_bytes = (int64_t)properties.totalGlobalMem;
    f.clock_hz = (int64_t)khz * 1000;
    f.l2_bytes = l2;
    *facts = f;
    return PGR_OK;
}

/* ---- the product --------------------------------------------------------------------------- */

struct gpu_bare {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulAlgo_t algorithm;
    void *workspace;
};

static pgr_status lt_check(cublasStatus_t code, const char *call, pgr_error *error) {
    return code == CUBLAS_STATUS_SUCCESS ? PGR_OK
                                         : pgr_error_set(error, PGR_BACKEND, "bare %s: %s", call,
                                                         cublasLtGetStatusString(code));
}

static cublasStatus_t operation_make(gpu_bare *bare, const void *bias, bool gelu) {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = gelu   ? CUBLASLT_EPILOGUE_GELU_BIAS
                                        : bias ? CUBLASLT_EPILOGUE_BIAS
                                               : CUBLASLT_EPILOGUE_DEFAULT;
    const int32_t type = CUDA_R_16BF;
    cublasStatus_t code =
        cublasLtMatmulDescCreate(&bare->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatmulDescSetAttribute(bare->operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                              &transposed, sizeof transposed);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatmulDescSetAttribute(bare->operation, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                              &epilogue, sizeof epilogue);
    if (code == CUBLAS_STATUS_SUCCESS && bias)
        code = cublasLtMatmulDescSetAttribute(bare->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                              &bias, sizeof bias);
    if (code == CUBLAS_STATUS_SUCCESS && bias)
        code = cublasLtMatmulDescSetAttribute(bare->operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
                                              &type, sizeof type);
    return code;
}

/* Row-major y = x w^T is column-major y^T = w^T^T x^T. */
static cublasStatus_t layouts_make(gpu_bare *bare, int64_t m, int64_t n, int64_t k) {
    cublasStatus_t code =
        cublasLtMatrixLayoutCreate(&bare->w, CUDA_R_16BF, (uint64_t)k, (uint64_t)n, k);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatrixLayoutCreate(&bare->x, CUDA_R_16BF, (uint64_t)k, (uint64_t)m, k);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatrixLayoutCreate(&bare->y, CUDA_R_16BF, (uint64_t)n, (uint64_t)m, n);
    return code;
}

/* The first algorithm that cuBLASLt proposes. */
static pgr_status algorithm_find(gpu_bare *bare, pgr_error *error) {
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    cublasStatus_t code = cublasLtMatmulPreferenceCreate(&bare->preference);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatmulPreferenceSetAttribute(bare->preference,
                                                    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                    &workspace_bytes, sizeof workspace_bytes);
    /* As ours: parts of a sum stay in f32. */
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    if (code == CUBLAS_STATUS_SUCCESS)
        code = cublasLtMatmulPreferenceSetAttribute(
            bare->preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes);
    if (code == CUBLAS_STATUS_SUCCESS)
        code =
            cublasLtMatmulAlgoGetHeuristic(bare->handle, bare->operation, bare->w, bare->x, bare->y,
                                           bare->y, bare->preference, 1, &result, &found);
    if (code == CUBLAS_STATUS_NOT_SUPPORTED || (code == CUBLAS_STATUS_SUCCESS && found == 0))
        return pgr_error_set(error, PGR_UNSUPPORTED, "cuBLASLt has no algorithm for the bare call");
    if (code == CUBLAS_STATUS_SUCCESS)
        bare->algorithm = result.algo;
    return lt_check(code, "cublasLtMatmulAlgoGetHeuristic", error);
}

pgr_status gpu_bare_open(gpu_bench *bench, int64_t m, int64_t n, int64_t k, const void *bias,
                         bool gelu, gpu_bare **bare, pgr_error *error) {
    gpu_bare *made = calloc(1, sizeof *made);
    if (!made)
        return pgr_error_set(error, PGR_LIMIT, "no memory for a bare call");
    pgr_status status = lt_check(cublasLtCreate(&made->handle), "cublasLtCreate", error);
    if (status == PGR_OK)
        status = lt_check(operation_make(made, bias, gelu), "cublasLtMatmulDesc", error);
    if (status == PGR_OK)
        status = lt_check(layouts_make(made, m, n, k), "cublasLtMatrixLayoutCreate", error);
    if (status == PGR_OK)
        status = algorithm_find(made, error);
    if (status == PGR_OK)
        status = gpu_alloc(bench, (int64_t)workspace_bytes, &made->workspace, error);
    if (status != PGR_OK)
        gpu_bare_close(bench, made);
    else
        *bare = made;
    return status;
}

void gpu_bare_close(gpu_bench *bench, gpu_bare *bare) {
    if (!bare)
        return;
    gpu_free(bench, bare->workspace);
    if (bare->preference)
        (void)cublasLtMatmulPreferenceDestroy(bare->preference);
    if (bare->y)
        (void)cublasLtMatrixLayoutDestroy(bare->y);
    if (bare->x)
        (void)cublasLtMatrixLayoutDestroy(bare->x);
    if (bare->w)
        (void)cublasLtMatrixLayoutDestroy(bare->w);
    if (bare->operation)
        (void)cublasLtMatmulDescDestroy(bare->operation);
    if (bare->handle)
        (void)cublasLtDestroy(bare->handle);
    free(bare);
}

pgr_status gpu_bare_run(gpu_bench *bench, gpu_bare *bare, const void *x, const void *w, void *y,
                        pgr_error *error) {
    const float one = 1, zero = 0;
    return lt_check(cublasLtMatmul(bare->handle, bare->operation, &one, w, bare->w, x, bare->x,
                                   &zero, y, bare->y, y, bare->y, &bare->algorithm, bare->workspace,
                                   workspace_bytes, bench->stream->stream),
                    "cublasLtMatmul", error);
}
