/* layer_overlap.c - linear layers with sequence parallelism whose communication runs in chunks
 * beside the product.
 *
 * Chunk i is the i-th part of the share of every rank (pgr_linear_chunk): after a reduce-scatter of
 * it each rank owns rows that it owns in the plain order too, which chunks of neighbouring rows
 * would not give. The product of a chunk has a block of rows per rank, so it is one call with
 * strides between the blocks.
 *
 *   column-parallel   communication   | gather 0 | gather 1 | gather 2 |
 *                     computation                | product 0 | product 1 | product 2 |
 *   row-parallel      computation     | product 0 | product 1 | product 2 |          | bias |
 *                     communication               | reduce 0  | reduce 1  | reduce 2 |
 *
 * Streams wait for each other by events; over NCCL the host waits at the end alone. MPI moves data
 * only while the host is in one of its calls, so that there little is hidden. */
#include "layer_linear.h"

/* Lets MPI move on; what only the GPU moves needs no help. */
static pgr_status poke(pgr_request *requests, int64_t count, pgr_error *error) {
    pgr_status status = PGR_OK;
    for (int64_t i = 0; i < count && !status; i++) {
        bool done;
        if (requests[i].state && !requests[i].comm->ops->stream_wait)
            status = requests[i].comm->ops->test(&requests[i], &done, error);
    }
    return status;
}

static pgr_status wait_all(pgr_request *requests, int64_t count, pgr_error *error) {
    pgr_status status = PGR_OK;
    for (int64_t i = 0; i < count && !status; i++)
        status = pgr_request_wait(&requests[i], error);
    return status;
}

static pgr_status lap(const pgr_site *site, pgr_phase phase, pgr_error *error) {
    return pgr_stopwatch_lap(site->stopwatch, phase, site->stream, error);
}

static void *offset(const pgr_linear *layer, const void *base, int64_t elements) {
    return (char *)(uintptr_t)base + elements * pgr_dtype_bytes(layer->config.dtype);
}

/* The product of one chunk, of the whole one's arguments. `packed_x` and `packed_y` are in the
 * order of chunks; the other side is in that of ranks. */
static pgr_status chunk_product(const pgr_site *site, const pgr_linear *layer, pgr_chunk chunk,
                                bool packed_x, const pgr_linear_args *whole, int32_t free_units,
                                pgr_error *error) {
    pgr_linear_args args = *whole;
    int64_t tp = layer->tp->size, share = layer->config.rows / tp;
    int64_t first_x = packed_x ? tp * chunk.begin : chunk.begin;
    int64_t first_y = packed_x ? chunk.begin : tp * chunk.begin;
    args.m = chunk.rows;
    args.batch = tp;
    args.x = offset(layer, whole->x, first_x * whole->ldx);
    args.stride_x = (packed_x ? chunk.rows : share) * whole->ldx;
    args.y = offset(layer, whole->y, first_y * whole->ldy);
    args.stride_y = (packed_x ? share : chunk.rows) * whole->ldy;
    args.saved = whole->saved ? offset(layer, whole->saved, chunk.begin * whole->n) : NULL;
    args.stride_saved = share * whole->n;
    args.free_units = free_units;
    pgr_status status = site->device->ops->linear(site->device, &args, site->stream, error);
    return status ? status : lap(site, PGR_COMPUTE, error);
}

/* ---- column-parallel ----------------------------------------------------------------------- */

/* All chunks are enqueued at once: communication need not wait for computation. */
static pgr_status gather_start(const pgr_site *site, pgr_linear *layer, const void *x,
                               pgr_request *requests, pgr_error *error) {
    pgr_comm *comm = layer->tp->comm;
    int64_t tp = layer->tp->size, width = layer->config.input;
    pgr_status status = pgr_site_comm_begin(site, comm, error);
    for (int64_t i = 0; i < layer->chunks && !status; i++) {
        pgr_chunk chunk = pgr_linear_chunk(layer, i);
        status = comm->ops->all_gather(comm, offset(layer, x, chunk.begin * width),
                                       offset(layer, layer->chunked, tp * chunk.begin * width),
                                       chunk.rows * width, layer->config.dtype, comm->stream,
                                       &requests[i], error);
    }
    return status;
}

/* A backward pass wants the gathered rows in the order of ranks. */
static pgr_status keep_input(const pgr_site *site, const pgr_linear *layer, pgr_chunk chunk,
                             pgr_error *error) {
    int64_t tp = layer->tp->size, share = layer->config.rows / tp, width = layer->config.input;
    int64_t bytes = chunk.rows * width * pgr_dtype_bytes(layer->config.dtype);
    pgr_status status = PGR_OK;
    for (int64_t r = 0; r < tp && !status; r++)
        status = site->device->ops->copy(
            site->device, offset(layer, layer->gathered, (r * share + chunk.begin) * width),
            offset(layer, layer->chunked, (tp * chunk.begin + r * chunk.rows) * width), bytes,
            site->stream, error);
    return status;
}

static pgr_status column_parallel(const pgr_site *site, pgr_linear *layer, const void *x, void *y,
                                  pgr_saved *saved, pgr_error *error) {
    pgr_request requests[PGR_CHUNKS_MAX] = {{0}};
    pgr_status status = pgr_linear_save(site, layer, layer->gathered, saved, error);
    if (!status)
        status = gather_start(site, layer, x, requests, error);
    pgr_linear_args whole = pgr_linear_product_args(layer, layer->chunked, layer->bias, y, saved);
    for (int64_t i = 0; i < layer->chunks && !status; i++) {
        pgr_chunk chunk = pgr_linear_chunk(layer, i);
        bool beside = i + 1 < layer->chunks; /* there is a gather to run beside the product */
        status = pgr_site_comm_order(site, &requests[i], error);
        if (!status && saved)
            status = keep_input(site, layer, chunk, error);
        if (!status)
            status = lap(site, PGR_COMMUNICATION, error);
        if (!status)
            status = chunk_product(site, layer, chunk, true, &whole,
                                   beside ? layer->tp->comm->units : 0, error);
    }
    return status ? status : wait_all(requests, layer->chunks, error);
}

/* ---- row-parallel -------------------------------------------------------------------------- */

static pgr_status reduce_start(const pgr_site *site, const pgr_linear *layer, pgr_chunk chunk,
                               void *y, pgr_request *request, pgr_error *error) {
    pgr_comm *comm = layer->tp->comm;
    int64_t width = layer->config.output;
    pgr_status status = pgr_site_comm_begin(site, comm, error);
    return status ? status
                  : comm->ops->reduce_scatter(
                        comm, offset(layer, layer->partial, layer->tp->size * chunk.begin * width),
                        offset(layer, y, chunk.begin * width), chunk.rows * width,
                        layer->config.dtype, PGR_SUM, comm->stream, request, error);
}

static pgr_status row_parallel(const pgr_site *site, pgr_linear *layer, const void *x, void *y,
                               pgr_saved *saved, pgr_error *error) {
    pgr_request requests[PGR_CHUNKS_MAX] = {{0}};
    pgr_status status = pgr_linear_save(site, layer, x, saved, error);
    pgr_linear_args whole = pgr_linear_product_args(layer, x, NULL, layer->partial, saved);
    for (int64_t i = 0; i < layer->chunks && !status; i++) {
        pgr_chunk chunk = pgr_linear_chunk(layer, i);
        status = chunk_product(site, layer, chunk, false, &whole,
                               i > 0 ? layer->tp->comm->units : 0, error);
        if (!status)
            status = reduce_start(site, layer, chunk, y, &requests[i], error);
        if (!status)
            status = poke(requests, i, error);
        if (!status)
            status = lap(site, PGR_COMMUNICATION, error);
    }
    for (int64_t i = 0; i < layer->chunks && !status; i++)
        status = pgr_site_comm_order(site, &requests[i], error);
    if (!status)
        status = lap(site, PGR_COMMUNICATION, error);
    if (!status)
        status = pgr_linear_add_bias(site, layer, y, error);
    return status ? status : wait_all(requests, layer->chunks, error);
}

pgr_status pgr_linear_overlap(const pgr_site *site, pgr_linear *layer, const void *x, void *y,
                              pgr_saved *saved, pgr_error *error) {
    return layer->config.kind == PGR_COLUMN_PARALLEL
               ? column_parallel(site, layer, x, y, saved, error)
               : row_parallel(site, layer, x, y, saved, error);
}
