/* cuda_ops.c - the operations but products: their arguments checked as the CPU's are, then
 * launched. */
#include <inttypes.h>
#include <math.h>

#include "context.h"
#include "cuda.h"

static pgr_status dtype_check(pgr_dtype dtype, const char *what, pgr_error *error) {
    if (dtype == PGR_F32 || dtype == PGR_BF16)
        return PGR_OK;
    return pgr_error_set(error, PGR_UNSUPPORTED, "%s in %s; f32 and bf16 are there", what,
                         pgr_dtype_name(dtype));
}

pgr_status pgr_cuda_fill(pgr_device *device, const pgr_fill_args *args, pgr_stream *stream,
                         pgr_error *error) {
    cuda_device *cuda;
    pgr_status status = dtype_check(args->dtype, "random values", error);
    if (status != PGR_OK || args->rows <= 0 || args->cols <= 0)
        return status;
    status = pgr_cuda_enter(device, stream, &cuda, &stream, error);
    if (status != PGR_OK)
        return status;
    float unit = ldexpf(1.0f, args->random.exponent - 23);
    return pgr_cuda_check(cuda, pgr_cuda_launch_fill(args, unit, cuda->blocks, stream->stream),
                          error, "random values for [%" PRId64 ", %" PRId64 "]", args->rows,
                          args->cols);
}

pgr_status pgr_cuda_add_bias(pgr_device *device, const pgr_bias_args *args, pgr_stream *stream,
                             pgr_error *error) {
    cuda_device *cuda;
    pgr_status status = dtype_check(args->dtype, "a bias", error);
    if (status != PGR_OK || args->rows <= 0 || args->cols <= 0)
        return status;
    status = pgr_cuda_enter(device, stream, &cuda, &stream, error);
    if (status != PGR_OK)
        return status;
    return pgr_cuda_check(cuda, pgr_cuda_launch_add_bias(args, cuda->blocks, stream->stream), error,
                          "adding a bias to [%" PRId64 ", %" PRId64 "]", args->rows, args->cols);
}

/* ---- context ------------------------------------------------------------------------------- */

pgr_status pgr_cuda_context_split(pgr_device *device, const pgr_context_args *args,
                                  pgr_stream *stream, pgr_error *error) {
    cuda_device *cuda;
    pgr_status status = pgr_context_check_split(args, error);
    if (status != PGR_OK || args->local_rows == 0 || args->row_bytes == 0)
        return status;
    status = pgr_cuda_enter(device, stream, &cuda, &stream, error);
    if (status != PGR_OK)
        return status;
    return pgr_cuda_check(cuda, pgr_cuda_launch_split(args, cuda->blocks, stream->stream), error,
                          "splitting %" PRId64 " rows of %" PRId64 " bytes over cp = %" PRId64,
                          args->seq_len, args->row_bytes, args->cp);
}

pgr_status pgr_cuda_context_gather(pgr_device *device, const pgr_context_args *args,
                                   pgr_stream *stream, pgr_error *error) {
    cuda_device *cuda;
    pgr_status status = pgr_context_check(args, error);
    if (status != PGR_OK || args->seq_len == 0 || args->row_bytes == 0)
        return status;
    status = pgr_cuda_enter(device, stream, &cuda, &stream, error);
    if (status != PGR_OK)
        return status;
    return pgr_cuda_check(cuda, pgr_cuda_launch_gather(args, cuda->blocks, stream->stream), error,
                          "gathering %" PRId64 " rows of %" PRId64 " bytes of cp = %" PRId64,
                          args->seq_len, args->row_bytes, args->cp);
}
