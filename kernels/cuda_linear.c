/* cuda_linear.c - linear layers by cuBLASLt.
 *
 * cuBLASLt's matrices are column-major, ours row-major: y [m, n] is the column-major [n, m] with
 * leading dimension ldy, so y = x w^T is computed as y^T = w x^T: A = w (transposed), B = x. Its
 * bias epilogue adds one value per row of the result, which is per column of ours.
 *
 * Where cuBLASLt's epilogue does all that is asked, it writes y. Else (SwiGLU, `saved`, an f32 y of
 * bf16 inputs with a bias, a bias that is not aligned to 16 bytes, or no algorithm for the shape)
 * the product goes to f32 scratch, some rows at a time, and a kernel of ours does the rest with one
 * rounding; where cuBLASLt refuses the bare product too, a plain kernel of ours makes it. f32 is
 * f32, unless TF32 is asked for; GELU too, of which NVIDIA does not say how exact cuBLASLt's is.
 * Blocks are cuBLASLt's strided batches, with a stride of 0 for w and the bias. */
#include <cublasLt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda.h"

enum { CACHED = 128 };
#define WORKSPACE_BYTES ((size_t)32 << 20) /* what NVIDIA recommends for Hopper */
#ifndef PGR_CUDA_SCRATCH_BYTES /* a test has it smaller, for more than one panel of rows */
#define PGR_CUDA_SCRATCH_BYTES ((int64_t)256 << 20)
#endif

/* All that the choice of an algorithm depends on. Compared as bytes: no padding, cleared first. */
typedef struct product_key {
    int64_t m, n, k, ldx, ldw, ldy;
    int64_t stride_x, stride_y; /* 0 without a batch */
    int32_t batch, dtype, y_dtype, epilogue, compute;
    int32_t units; /* SMs that it may use; 0: all */
    uint32_t x_alignment, w_alignment, y_alignment, bias_alignment;
} product_key;
_Static_assert(sizeof(product_key) == 8 * sizeof(int64_t) + 10 * sizeof(int32_t), "no padding");

typedef struct cuda_products {
    cublasLtHandle_t handle;
    int cached, next; /* the oldest goes first */
    struct {
        product_key key;
        cublasLtMatmulAlgo_t algorithm;
        bool found; /* false: cuBLASLt has none */
    } cache[CACHED];
} cuda_products;

/* One call's descriptors; destroyed whatever was made of them. */
typedef struct product {
    product_key key;
    const void *x, *w, *bias;
    void *y;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulPreference_t preference;
    const char *call; /* the last one that was made, for messages */
} product;

#define CALL(p, name, ...) ((p)->call = #name, name(__VA_ARGS__))

static pgr_status check(const cuda_device *cuda, cublasStatus_t code, const char *call,
                        const product_key *key, pgr_error *error) {
    if (code == CUBLAS_STATUS_SUCCESS)
        return PGR_OK;
    char shape[96] = "";
    if (key)
        snprintf(shape, sizeof shape, " for m = %" PRId64 ", n = %" PRId64 ", k = %" PRId64, key->m,
                 key->n, key->k);
    return pgr_error_set(error, code == CUBLAS_STATUS_ALLOC_FAILED ? PGR_LIMIT : PGR_BACKEND,
                         "rank %" PRId64 " on %s: %s%s: %s (%s), GPU %d, %s", cuda->rank,
                         cuda->host, call, shape, cublasLtGetStatusName(code),
                         cublasLtGetStatusString(code), cuda->index, cuda->model);
}

pgr_status pgr_cuda_products_open(cuda_device *cuda, pgr_error *error) {
    cuda_products *made = calloc(1, sizeof *made);
    if (!made)
        return pgr_error_set(error, PGR_LIMIT, "no memory for cuBLASLt's algorithms");
    pgr_status status = check(cuda, cublasLtCreate(&made->handle), "cublasLtCreate", NULL, error);
    if (status != PGR_OK) {
        free(made);
        return status;
    }
    cuda->products = made;
    return PGR_OK;
}

void pgr_cuda_products_close(cuda_device *cuda) {
    if (!cuda->products)
        return;
    (void)cublasLtDestroy(cuda->products->handle);
    free(cuda->products);
    cuda->products = NULL;
}

/* ---- descriptors --------------------------------------------------------------------------- */

static cudaDataType_t cuda_type(int32_t dtype) {
    return dtype == PGR_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

static void product_free(product *p) {
    if (p->preference)
        (void)cublasLtMatmulPreferenceDestroy(p->preference);
    if (p->d)
        (void)cublasLtMatrixLayoutDestroy(p->d);
    if (p->b)
        (void)cublasLtMatrixLayoutDestroy(p->b);
    if (p->a)
        (void)cublasLtMatrixLayoutDestroy(p->a);
    if (p->operation)
        (void)cublasLtMatmulDescDestroy(p->operation);
}

static cublasStatus_t operation_set(product *p, cublasLtMatmulDescAttributes_t name,
                                    const void *value, size_t bytes) {
    return CALL(p, cublasLtMatmulDescSetAttribute, p->operation, name, value, bytes);
}

static cublasStatus_t operation_make(product *p) {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t epilogue = (cublasLtEpilogue_t)p->key.epilogue;
    const int32_t bias_type = (int32_t)cuda_type(p->key.dtype);
    cublasStatus_t code = CALL(p, cublasLtMatmulDescCreate, &p->operation,
                               (cublasComputeType_t)p->key.compute, CUDA_R_32F);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = operation_set(p, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = operation_set(p, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (code == CUBLAS_STATUS_SUCCESS && p->key.units > 0)
        code = operation_set(p, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, &p->key.units,
                             sizeof p->key.units);
    if (code == CUBLAS_STATUS_SUCCESS && p->bias)
        code = operation_set(p, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias);
    if (code == CUBLAS_STATUS_SUCCESS && p->bias)
        code = operation_set(p, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type, sizeof bias_type);
    return code;
}

static cublasStatus_t batch_set(product *p, cublasLtMatrixLayout_t layout, int64_t stride) {
    cublasStatus_t code =
        CALL(p, cublasLtMatrixLayoutSetAttribute, layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
             &p->key.batch, sizeof p->key.batch);
    return code != CUBLAS_STATUS_SUCCESS
               ? code
               : CALL(p, cublasLtMatrixLayoutSetAttribute, layout,
                      CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride);
}

static cublasStatus_t layouts_make(product *p) {
    const product_key *key = &p->key;
    cublasStatus_t code = CALL(p, cublasLtMatrixLayoutCreate, &p->a, cuda_type(key->dtype),
                               (uint64_t)key->k, (uint64_t)key->n, key->ldw);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = CALL(p, cublasLtMatrixLayoutCreate, &p->b, cuda_type(key->dtype), (uint64_t)key->k,
                    (uint64_t)key->m, key->ldx);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = CALL(p, cublasLtMatrixLayoutCreate, &p->d, cuda_type(key->y_dtype), (uint64_t)key->n,
                    (uint64_t)key->m, key->ldy);
    if (key->batch == 1)
        return code;
    if (code == CUBLAS_STATUS_SUCCESS)
        code = batch_set(p, p->a, 0);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = batch_set(p, p->b, key->stride_x);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = batch_set(p, p->d, key->stride_y);
    return code;
}

static cublasStatus_t preference_make(product *p) {
    const size_t workspace = WORKSPACE_BYTES;
    /* Split sums are added in f32: by default parts may be rounded to the output's bf16. */
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } wanted[] = {{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
                  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &p->key.w_alignment, 4},
                  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &p->key.x_alignment, 4},
                  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &p->key.y_alignment, 4},
                  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &p->key.y_alignment, 4},
                  {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes}};
    /* f32 results have nothing to round to */
    size_t count = sizeof wanted / sizeof *wanted - (p->key.y_dtype == PGR_BF16 ? 0 : 1);
    cublasStatus_t code = CALL(p, cublasLtMatmulPreferenceCreate, &p->preference);
    for (size_t i = 0; code == CUBLAS_STATUS_SUCCESS && i < count; i++)
        code = CALL(p, cublasLtMatmulPreferenceSetAttribute, p->preference, wanted[i].name,
                    wanted[i].value, wanted[i].bytes);
    return code;
}

/* ---- algorithms ---------------------------------------------------------------------------- */

static cublasStatus_t ask_heuristic(cuda_products *products, product *p,
                                    cublasLtMatmulAlgo_t *algorithm, bool *found) {
    cublasLtMatmulHeuristicResult_t result;
    int count = 0;
    cublasStatus_t code = preference_make(p);
    *found = false;
    if (code != CUBLAS_STATUS_SUCCESS)
        return code;
    code = CALL(p, cublasLtMatmulAlgoGetHeuristic, products->handle, p->operation, p->a, p->b, p->d,
                p->d, p->preference, 1, &result, &count);
    *found = code == CUBLAS_STATUS_SUCCESS && count > 0 && result.state == CUBLAS_STATUS_SUCCESS;
    if (*found)
        *algorithm = result.algo;
    /* Both say that there is no algorithm for this product, which is an answer. */
    return code == CUBLAS_STATUS_NOT_SUPPORTED || code == CUBLAS_STATUS_INVALID_VALUE
               ? CUBLAS_STATUS_SUCCESS
               : code;
}

/* The place of a product's algorithm in the cache, found or not: asked once per shape. */
static pgr_status algorithm_find(const cuda_device *cuda, product *p, int *place,
                                 pgr_error *error) {
    cuda_products *products = cuda->products;
    for (int i = 0; i < products->cached; i++) {
        if (memcmp(&products->cache[i].key, &p->key, sizeof p->key) == 0) {
            *place = i;
            return PGR_OK;
        }
    }
    cublasLtMatmulAlgo_t made;
    bool found = false;
    cublasStatus_t code = ask_heuristic(products, p, &made, &found);
    pgr_status status = check(cuda, code, p->call, &p->key, error);
    if (status != PGR_OK)
        return status;
    int slot = products->next;
    products->next = (slot + 1) % CACHED;
    products->cached += products->cached < CACHED;
    products->cache[slot].key = p->key;
    products->cache[slot].found = found;
    if (found)
        products->cache[slot].algorithm = made;
    *place = slot;
    return PGR_OK;
}

/* Enqueues the product, if there is an algorithm. One that the call refuses although it was
 * offered is forgotten, so that it is not tried again. */
static pgr_status product_start(const cuda_device *cuda, const product *p, int place,
                                const pgr_stream *stream, pgr_error *error) {
    const float one = 1, zero = 0;
    cuda_products *products = cuda->products;
    if (!products->cache[place].found)
        return PGR_OK;
    cublasStatus_t code = cublasLtMatmul(
        products->handle, p->operation, &one, p->w, p->a, p->x, p->b, &zero, p->y, p->d, p->y, p->d,
        &products->cache[place].algorithm, stream->workspace, WORKSPACE_BYTES, stream->stream);
    if (code == CUBLAS_STATUS_NOT_SUPPORTED) {
        products->cache[place].found = false;
        return PGR_OK;
    }
    return check(cuda, code, "cublasLtMatmul", &p->key, error);
}

/* One product with its epilogue. *done is false where cuBLASLt cannot. */
static pgr_status product_run(const cuda_device *cuda, product *p, const pgr_stream *stream,
                              bool *done, pgr_error *error) {
    int place = 0;
    cublasStatus_t code = operation_make(p);
    if (code == CUBLAS_STATUS_SUCCESS)
        code = layouts_make(p);
    pgr_status status = check(cuda, code, p->call, &p->key, error);
    if (status == PGR_OK)
        status = algorithm_find(cuda, p, &place, error);
    if (status == PGR_OK)
        status = product_start(cuda, p, place, stream, error);
    product_free(p);
    if (status == PGR_OK)
        *done = cuda->products->cache[place].found;
    return status;
}

/* Of an operand's blocks: its first byte and the distance of the others. */
static uint32_t alignment_of(const void *first, int64_t stride, pgr_dtype dtype) {
    uintptr_t places = (uintptr_t)first | (uintptr_t)(stride * pgr_dtype_bytes(dtype));
    return pgr_cuda_alignment((const void *)places);
}

/* SMs to aim at where some are to be left free: half of all at least. 0: all. */
static int32_t units_for(const cuda_device *cuda, int32_t free_units) {
    int32_t half = (cuda->units + 1) / 2, left = cuda->units - free_units;
    return free_units <= 0 ? 0 : left > half ? left : half;
}

static product product_of(const cuda_device *cuda, const pgr_linear_args *args,
                          cublasLtEpilogue_t epilogue) {
    product p;
    memset(&p, 0, sizeof p);
    p.x = args->x;
    p.w = args->w;
    p.y = args->y;
    p.bias = args->bias;
    p.key.m = args->m;
    p.key.n = args->n;
    p.key.k = args->k;
    p.key.ldx = args->ldx;
    p.key.ldw = args->ldw;
    p.key.ldy = args->ldy;
    p.key.batch = args->batch > 1 ? (int32_t)args->batch : 1;
    p.key.stride_x = args->batch > 1 ? args->stride_x : 0;
    p.key.stride_y = args->batch > 1 ? args->stride_y : 0;
    p.key.dtype = (int32_t)args->dtype;
    p.key.y_dtype = (int32_t)args->y_dtype;
    p.key.epilogue = (int32_t)epilogue;
    p.key.compute = (int32_t)(args->tf32 && args->dtype == PGR_F32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                                   : CUBLAS_COMPUTE_32F);
    p.key.units = units_for(cuda, args->free_units);
    p.key.x_alignment = alignment_of(args->x, p.key.stride_x, args->dtype);
    p.key.w_alignment = pgr_cuda_alignment(args->w);
    p.key.y_alignment = alignment_of(args->y, p.key.stride_y, args->y_dtype);
    p.key.bias_alignment = args->bias ? pgr_cuda_alignment(args->bias) : 0;
    return p;
}

/* ---- the two ways -------------------------------------------------------------------------- */

/* Whether an epilogue of cuBLASLt's does all that is asked, and which. */
static bool epilogue_of(const pgr_linear_args *args, cublasLtEpilogue_t *epilogue) {
    if (args->saved || args->activation == PGR_SWIGLU || args->k == 0)
        return false;
    if (args->dtype != args->y_dtype && (args->bias || args->activation == PGR_GELU))
        return false;
    if (args->dtype == PGR_F32 && args->activation == PGR_GELU && !args->tf32)
        return false;
    /* The heuristic is told the alignment of the matrices and not the bias's: kernels that it
     * offers read the bias in 16 bytes (pytorch/pytorch pull request 194497). */
    if (args->bias && (uintptr_t)args->bias % 16 != 0)
        return false;
    if (args->activation == PGR_GELU)
        *epilogue = args->bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    else
        *epilogue = args->bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    return true;
}

/* Memory that a stream keeps; a larger piece takes the place of a smaller one. */
static pgr_status stream_memory(const cuda_device *cuda, pgr_stream *stream, int64_t scratch,
                                pgr_error *error) {
    pgr_status status = PGR_OK;
    if (!stream->workspace)
        status = pgr_cuda_check(cuda, cudaMalloc(&stream->workspace, WORKSPACE_BYTES), error,
                                "cudaMalloc of cuBLASLt's workspace, %zu bytes", WORKSPACE_BYTES);
    return status != PGR_OK ? status
                            : pgr_cuda_grow(cuda, stream, &stream->scratch, &stream->scratch_bytes,
                                            scratch, "a linear layer's scratch", error);
}

/* x w^T of the panel into scratch. */
static pgr_status panel_product(const cuda_device *cuda, const cuda_epilogue *panel,
                                pgr_stream *stream, pgr_error *error) {
    const pgr_linear_args *args = &panel->linear;
    int64_t batch = args->batch > 1 ? args->batch : 1;
    pgr_linear_args plain = *args;
    bool done = false;
    plain.x = (const char *)args->x + panel->first * args->ldx * pgr_dtype_bytes(args->dtype);
    plain.y = panel->product;
    plain.y_dtype = PGR_F32;
    plain.ldy = args->n;
    plain.stride_y = panel->rows * args->n;
    plain.m = panel->rows;
    plain.bias = NULL;
    if (args->k == 0) {
        size_t bytes = (size_t)(batch * panel->rows * args->n) * sizeof(float);
        return pgr_cuda_check(cuda, cudaMemsetAsync(panel->product, 0, bytes, stream->stream),
                              error, "cudaMemsetAsync of %zu bytes", bytes);
    }
    product p = product_of(cuda, &plain, CUBLASLT_EPILOGUE_DEFAULT);
    pgr_status status = product_run(cuda, &p, stream, &done, error);
    if (status != PGR_OK || done)
        return status;
    return pgr_cuda_check(cuda, pgr_cuda_launch_product(panel, cuda->blocks, stream->stream), error,
                          "the product of [%" PRId64 ", %" PRId64 "] and [%" PRId64 ", %" PRId64
                          "]",
                          batch * panel->rows, args->k, args->n, args->k);
}

/* Some rows of every block at a time. */
static pgr_status linear_panels(const cuda_device *cuda, const pgr_linear_args *args,
                                pgr_stream *stream, pgr_error *error) {
    int64_t batch = args->batch > 1 ? args->batch : 1;
    int64_t row_bytes = batch * args->n * (int64_t)sizeof(float);
    int64_t most = PGR_CUDA_SCRATCH_BYTES / row_bytes;
    most = most < 1 ? 1 : most < args->m ? most : args->m;
    pgr_status status = stream_memory(cuda, stream, most * row_bytes, error);
    for (int64_t first = 0; status == PGR_OK && first < args->m; first += most) {
        int64_t rows = args->m - first < most ? args->m - first : most;
        cuda_epilogue panel = {
            .linear = *args, .product = stream->scratch, .first = first, .rows = rows};
        status = panel_product(cuda, &panel, stream, error);
        if (status == PGR_OK)
            status = pgr_cuda_check(
                cuda, pgr_cuda_launch_epilogue(&panel, cuda->blocks, stream->stream), error,
                "the epilogue of [%" PRId64 ", %" PRId64 "]", batch * rows, args->n);
    }
    return status;
}

/* As the CPU's: the sizes that products on every device take. */
static pgr_status arguments_check(const pgr_linear_args *args, pgr_error *error) {
    const int64_t sizes[] = {args->m,   args->n,   args->k,    args->ldx,
                             args->ldw, args->ldy, args->batch};
    static const char *const names[] = {"m", "n", "k", "ldx", "ldw", "ldy", "batch"};
    if ((args->dtype != PGR_F32 && args->dtype != PGR_BF16) ||
        (args->y_dtype != args->dtype && args->y_dtype != PGR_F32))
        return pgr_error_set(error, PGR_UNSUPPORTED,
                             "a linear layer of %s to %s; f32 and bf16 to the same or to f32 are "
                             "there",
                             pgr_dtype_name(args->dtype), pgr_dtype_name(args->y_dtype));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i] < 0 || sizes[i] > INT32_MAX)
            return pgr_error_set(error, PGR_LIMIT,
                                 "a linear layer with %s = %" PRId64 "; 0 to %d are there",
                                 names[i], sizes[i], INT32_MAX);
    if (args->activation == PGR_SWIGLU && args->n % 2 != 0)
        return pgr_error_set(error, PGR_INTERNAL, "SwiGLU of n = %" PRId64 " columns: it halves n",
                             args->n);
    return PGR_OK;
}

pgr_status pgr_cuda_linear(pgr_device *device, const pgr_linear_args *args, pgr_stream *stream,
                           pgr_error *error) {
    cuda_device *cuda;
    cublasLtEpilogue_t epilogue;
    bool done = false;
    pgr_status status = arguments_check(args, error);
    if (status != PGR_OK || args->m == 0 || args->n == 0)
        return status;
    status = pgr_cuda_enter(device, stream, &cuda, &stream, error);
    if (status == PGR_OK)
        status = stream_memory(cuda, stream, 0, error);
    if (status == PGR_OK && epilogue_of(args, &epilogue)) {
        product p = product_of(cuda, args, epilogue);
        status = product_run(cuda, &p, stream, &done, error);
    }
    return status != PGR_OK || done ? status : linear_panels(cuda, args, stream, error);
}
