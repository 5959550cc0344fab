/* layer_linear.c - column- and row-parallel linear layers, with and without sequence parallelism.
 */
#include "layer_linear.h"
#include "random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pgr_random tensor_of(const pgr_site *site, const pgr_linear *layer, const char *part,
                            int32_t exponent) {
    char name[2 * PGR_NAME_MAX];
    snprintf(name, sizeof name, "%s.%s", layer->name, part);
    return (pgr_random){
        .seed = site->seed, .tensor = pgr_random_tensor(name), .exponent = exponent};
}

/* Fills `rows` rows of the local weight from global row `first_row`, column `first_column`. */
static pgr_status fill_weight(const pgr_site *site, const pgr_linear *layer, int64_t local_row,
                              int64_t rows, int64_t first_row, int64_t first_column,
                              pgr_error *error) {
    int64_t offset = local_row * layer->depth * pgr_dtype_bytes(layer->config.dtype);
    pgr_fill_args fill = {
        .out = (char *)layer->weight + offset,
        .dtype = layer->config.dtype,
        .rows = rows,
        .cols = layer->depth,
        .ld = layer->depth,
        .random = tensor_of(site, layer, "weight", layer->exponent),
        .origin = first_row * layer->config.input + first_column,
        .row_stride = layer->config.input,
    };
    return site->device->ops->fill(site->device, &fill, site->stream, error);
}

static pgr_status fill_bias(const pgr_site *site, const pgr_linear *layer, int64_t local,
                            int64_t count, int64_t first, pgr_error *error) {
    pgr_fill_args fill = {
        .out = (char *)layer->bias + local * pgr_dtype_bytes(layer->config.dtype),
        .dtype = layer->config.dtype,
        .rows = 1,
        .cols = count,
        .ld = count,
        .random = tensor_of(site, layer, "bias", 0),
        .origin = first,
    };
    return site->device->ops->fill(site->device, &fill, site->stream, error);
}

/* A column-parallel shard is one slice of the rows, or with a gated activation a slice of each
 * half.
 */
static pgr_status fill_column_parallel(const pgr_site *site, const pgr_linear *layer,
                                       pgr_error *error) {
    int64_t halves = layer->config.activation == PGR_SWIGLU ? 2 : 1;
    int64_t slice = layer->width / halves;
    for (int64_t half = 0; half < halves; half++) {
        int64_t first = half * (layer->config.output / halves) + layer->tp->rank * slice;
        pgr_status status = fill_weight(site, layer, half * slice, slice, first, 0, error);
        if (!status && layer->bias)
            status = fill_bias(site, layer, half * slice, slice, first, error);
        if (status)
            return status;
    }
    return PGR_OK;
}

static pgr_status fill_parameters(const pgr_site *site, const pgr_linear *layer, pgr_error *error) {
    if (layer->config.kind == PGR_COLUMN_PARALLEL)
        return fill_column_parallel(site, layer, error);
    pgr_status status =
        fill_weight(site, layer, 0, layer->width, 0, layer->tp->rank * layer->depth, error);
    if (!status && layer->bias)
        status = fill_bias(site, layer, 0, layer->width, 0, error);
    return status;
}

static pgr_status shard(pgr_linear *layer, pgr_error *error) {
    const pgr_linear_config *config = &layer->config;
    bool column = config->kind == PGR_COLUMN_PARALLEL;
    int64_t halves = config->activation == PGR_SWIGLU ? 2 : 1;
    int64_t sharded = column ? config->output / halves : config->input;
    if (sharded % layer->tp->size)
        return pgr_error_set(error, PGR_INVALID, "%s: tp = %lld does not divide its %s = %lld",
                             layer->name, (long long)layer->tp->size, column ? "output" : "input",
                             (long long)sharded);
    layer->width = column ? config->output / layer->tp->size : config->output;
    layer->depth = column ? config->input : config->input / layer->tp->size;
    layer->features = layer->width / halves;
    return PGR_OK;
}

/* How many chunks there are to overlap. */
static int64_t chunks_of(const pgr_linear *layer) {
    const pgr_linear_config *config = &layer->config;
    int64_t share = config->rows / layer->tp->size, chunks = config->overlap_chunks;
    if (!config->sequence_parallel || layer->tp->size == 1)
        return 1;
    chunks = chunks < share ? chunks : share;
    return chunks < 1 ? 1 : chunks < PGR_CHUNKS_MAX ? chunks : PGR_CHUNKS_MAX;
}

pgr_chunk pgr_linear_chunk(const pgr_linear *layer, int64_t index) {
    int64_t share = layer->config.rows / layer->tp->size, begin = share * index / layer->chunks;
    return (pgr_chunk){begin, share * (index + 1) / layer->chunks - begin};
}

pgr_status pgr_linear_create(const pgr_site *site, const pgr_linear_config *config,
                             pgr_linear **layer, pgr_error *error) {
    pgr_linear *created = calloc(1, sizeof *created);
    if (!created)
        return pgr_error_set(error, PGR_LIMIT, "no memory for layer %s", config->name);
    created->config = *config;
    snprintf(created->name, sizeof created->name, "%s", config->name);
    created->config.name = created->name;
    created->exponent = pgr_weight_exponent(config->input);
    created->tf32 = config->tf32 && config->dtype == PGR_F32 && site->device->tf32;

    int64_t element = pgr_dtype_bytes(config->dtype);
    pgr_status status = pgr_site_group(site, "tp", &created->tp, error);
    if (!status)
        status = shard(created, error);
    if (!status)
        status = pgr_site_alloc(site, created->width * created->depth * element, &created->weight,
                                error);
    if (!status && config->bias)
        status = pgr_site_alloc(site, created->width * element, &created->bias, error);
    bool shared = !status && created->tp->size > 1;
    created->chunks = shared ? chunks_of(created) : 1;
    if (shared && config->kind == PGR_COLUMN_PARALLEL && config->sequence_parallel)
        status = pgr_site_buffer_alloc(site, created->tp, config->rows * config->input * element,
                                       &created->gathered, error);
    if (!status && created->chunks > 1 && created->gathered)
        status = pgr_site_buffer_alloc(site, created->tp, config->rows * config->input * element,
                                       &created->chunked, error);
    if (shared && config->kind == PGR_ROW_PARALLEL)
        status = pgr_site_buffer_alloc(site, created->tp, config->rows * config->output * element,
                                       &created->partial, error);
    if (!status)
        status = fill_parameters(site, created, error);
    if (status) {
        pgr_linear_free(site, created);
        return status;
    }
    *layer = created;
    return PGR_OK;
}

void pgr_linear_free(const pgr_site *site, pgr_linear *layer) {
    if (!layer)
        return;
    pgr_site_free(site, layer->weight);
    pgr_site_free(site, layer->bias);
    pgr_site_buffer_free(site, layer->tp, layer->gathered);
    pgr_site_buffer_free(site, layer->tp, layer->partial);
    pgr_site_buffer_free(site, layer->tp, layer->chunked);
    free(layer);
}

static pgr_status poison(const pgr_site *site, void *memory, int64_t bytes, pgr_error *error) {
    if (!memory)
        return PGR_OK;
    return site->device->ops->set(site->device, memory, 0xff, bytes, site->stream, error);
}

pgr_status pgr_linear_poison(const pgr_site *site, pgr_linear *layer, pgr_error *error) {
    int64_t row_bytes = layer->config.rows * pgr_dtype_bytes(layer->config.dtype);
    pgr_status status = poison(site, layer->gathered, row_bytes * layer->config.input, error);
    if (!status)
        status = poison(site, layer->chunked, row_bytes * layer->config.input, error);
    return status ? status : poison(site, layer->partial, row_bytes * layer->config.output, error);
}

pgr_status pgr_linear_save(const pgr_site *site, const pgr_linear *layer, const void *input,
                           pgr_saved *saved, pgr_error *error) {
    if (!saved)
        return PGR_OK;
    saved->input = input;
    int64_t bytes = layer->config.rows * layer->width * pgr_dtype_bytes(layer->config.dtype);
    if (saved->pre_activation && saved->bytes >= bytes)
        return PGR_OK;
    pgr_saved_free(site, saved);
    saved->input = input;
    pgr_status status = pgr_site_alloc(site, bytes, &saved->pre_activation, error);
    if (!status)
        saved->bytes = bytes;
    return status;
}

pgr_linear_args pgr_linear_product_args(const pgr_linear *layer, const void *x, const void *bias,
                                        void *y, const pgr_saved *saved) {
    return (pgr_linear_args){
        .x = x,
        .w = layer->weight,
        .bias = bias,
        .y = y,
        .saved = saved ? saved->pre_activation : NULL,
        .m = layer->config.rows,
        .n = layer->width,
        .k = layer->depth,
        .ldx = layer->depth,
        .ldw = layer->depth,
        .ldy = layer->features,
        .dtype = layer->config.dtype,
        .y_dtype = layer->config.dtype,
        .activation = layer->config.activation,
        .tf32 = layer->tf32,
    };
}

static pgr_status product(const pgr_site *site, const pgr_linear *layer, const void *x,
                          const void *bias, void *y, pgr_saved *saved, pgr_error *error) {
    pgr_status status = pgr_linear_save(site, layer, x, saved, error);
    if (status)
        return status;
    pgr_linear_args args = pgr_linear_product_args(layer, x, bias, y, saved);
    status = site->device->ops->linear(site->device, &args, site->stream, error);
    return status ? status : pgr_stopwatch_lap(site->stopwatch, PGR_COMPUTE, site->stream, error);
}

static pgr_status gather_rows(const pgr_site *site, pgr_linear *layer, const void **x,
                              pgr_error *error) {
    pgr_comm *comm = layer->tp->comm;
    if (!layer->gathered)
        return PGR_OK;
    pgr_request request = {0};
    int64_t count = layer->config.rows / layer->tp->size * layer->config.input;
    pgr_status status = pgr_site_comm_begin(site, comm, error);
    if (!status)
        status = comm->ops->all_gather(comm, *x, layer->gathered, count, layer->config.dtype,
                                       comm->stream, &request, error);
    status = pgr_site_comm_end(site, status, &request, error);
    if (!status)
        *x = layer->gathered;
    return status;
}

/* Sums the ranks' partial products into y: each its share of the rows, or all of them. */
static pgr_status reduce_rows(const pgr_site *site, pgr_linear *layer, void *y, pgr_error *error) {
    pgr_comm *comm = layer->tp->comm;
    pgr_request request = {0};
    int64_t count = layer->config.rows * layer->config.output;
    pgr_status status = pgr_site_comm_begin(site, comm, error);
    if (!status && layer->config.sequence_parallel)
        status =
            comm->ops->reduce_scatter(comm, layer->partial, y, count / layer->tp->size,
                                      layer->config.dtype, PGR_SUM, comm->stream, &request, error);
    else if (!status)
        status = comm->ops->all_reduce(comm, layer->partial, y, count, layer->config.dtype, PGR_SUM,
                                       comm->stream, &request, error);
    return pgr_site_comm_end(site, status, &request, error);
}

pgr_status pgr_linear_add_bias(const pgr_site *site, const pgr_linear *layer, void *y,
                               pgr_error *error) {
    if (!layer->bias)
        return PGR_OK;
    pgr_bias_args args = {
        .y = y,
        .bias = layer->bias,
        .rows = layer->config.rows / (layer->config.sequence_parallel ? layer->tp->size : 1),
        .cols = layer->config.output,
        .ld = layer->config.output,
        .dtype = layer->config.dtype,
    };
    pgr_status status = site->device->ops->add_bias(site->device, &args, site->stream, error);
    return status ? status : pgr_stopwatch_lap(site->stopwatch, PGR_COMPUTE, site->stream, error);
}

pgr_status pgr_linear_forward_plain(const pgr_site *site, pgr_linear *layer, const void *x, void *y,
                                    pgr_saved *saved, pgr_error *error) {
    if (layer->config.kind == PGR_COLUMN_PARALLEL) {
        pgr_status status = gather_rows(site, layer, &x, error);
        return status ? status : product(site, layer, x, layer->bias, y, saved, error);
    }
    if (!layer->partial)
        return product(site, layer, x, layer->bias, y, saved, error);
    pgr_status status = product(site, layer, x, NULL, layer->partial, saved, error);
    if (!status)
        status = reduce_rows(site, layer, y, error);
    return status ? status : pgr_linear_add_bias(site, layer, y, error);
}

pgr_status pgr_linear_forward(const pgr_site *site, pgr_linear *layer, const void *x, void *y,
                              pgr_saved *saved, pgr_error *error) {
    return layer->chunks > 1 ? pgr_linear_overlap(site, layer, x, y, saved, error)
                             : pgr_linear_forward_plain(site, layer, x, y, saved, error);
}
