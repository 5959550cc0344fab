/* layer_context.c - context-parallel padding, split and gather of whole sequences. */
#include "layer.h"

#include <stdlib.h>

static int64_t share_rows(const pgr_tokens *tokens) {
    return tokens->padded / tokens->cp;
}

/* Copies the sums of the packed sequences' lengths to the device. */
static pgr_status place_sequences(const pgr_site *site, pgr_context *context, pgr_error *error) {
    const pgr_device_ops *ops = site->device->ops;
    const pgr_tokens *tokens = &context->tokens;
    int64_t longest, count = tokens->sequences + 1, bytes = 2 * count * (int64_t)sizeof longest;
    if (tokens->sequences == 0)
        return PGR_OK;
    int64_t *sums = malloc((size_t)bytes);
    if (!sums)
        return pgr_error_set(error, PGR_LIMIT, "no memory for %lld packed sequences",
                             (long long)tokens->sequences);
    pgr_packed_args args = {tokens->lengths, tokens->sequences, tokens->cp, 1, false};
    pgr_status status = pgr_padding_packed(&args, sums, sums + count, &longest, error);
    sums[2 * count - 1] = tokens->padded; /* with what sequence parallelism added to the last */
    if (!status)
        status = pgr_site_alloc(site, bytes, (void **)&context->cu_seqlens, error);
    if (!status)
        status = ops->copy(site->device, context->cu_seqlens, sums, bytes, site->stream, error);
    if (!status)
        status = ops->stream_sync(site->device, site->stream, error);
    free(sums);
    return status;
}

pgr_status pgr_context_create(const pgr_site *site, const pgr_tokens *tokens, int64_t hidden,
                              pgr_dtype dtype, bool sequence_parallel, pgr_context **context,
                              pgr_error *error) {
    pgr_context *created = calloc(1, sizeof *created);
    if (!created)
        return pgr_error_set(error, PGR_LIMIT, "no memory for the context layer");
    created->tokens = *tokens;
    created->dtype = dtype;
    created->row_bytes = tokens->batch * hidden * pgr_dtype_bytes(dtype);
    pgr_status status = pgr_site_group(site, "cp", &created->cp, error);
    if (!status && sequence_parallel)
        status = pgr_site_group(site, "tp", &created->tp, error);
    if (!status)
        status =
            pgr_site_alloc(site, share_rows(tokens) * created->row_bytes, &created->share, error);
    if (!status)
        status = pgr_site_buffer_alloc(site, created->cp, tokens->padded * created->row_bytes,
                                       &created->chunks, error);
    if (!status)
        status = place_sequences(site, created, error);
    if (status) {
        pgr_context_free(site, created);
        return status;
    }
    *context = created;
    return PGR_OK;
}

void pgr_context_free(const pgr_site *site, pgr_context *context) {
    if (!context)
        return;
    pgr_site_buffer_free(site, context->tp, context->share);
    pgr_site_buffer_free(site, context->cp, context->chunks);
    pgr_site_free(site, context->cu_seqlens);
    free(context);
}

pgr_status pgr_context_poison(const pgr_site *site, pgr_context *context, pgr_error *error) {
    const pgr_device_ops *ops = site->device->ops;
    pgr_status status =
        ops->set(site->device, context->share, 0xff,
                 share_rows(&context->tokens) * context->row_bytes, site->stream, error);
    if (!status)
        status = ops->set(site->device, context->chunks, 0xff,
                          context->tokens.padded * context->row_bytes, site->stream, error);
    return status;
}

static pgr_context_args kernel_args(const pgr_context *context, const void *src, void *dst) {
    const pgr_tokens *tokens = &context->tokens;
    return (pgr_context_args){
        .src = src,
        .dst = dst,
        .row_bytes = context->row_bytes,
        .seq_len = tokens->seq_len,
        .padded = tokens->padded,
        .cp = tokens->cp,
        .cp_rank = tokens->cp_rank,
        .local_begin = tokens->share * tokens->positions,
        .local_rows = tokens->positions,
        .sequences = tokens->sequences,
        .cu_seqlens = context->cu_seqlens,
        .cu_padded = context->cu_seqlens ? context->cu_seqlens + tokens->sequences + 1 : NULL,
    };
}

pgr_status pgr_context_split(const pgr_site *site, pgr_context *context, const void *full,
                             void *local, pgr_error *error) {
    pgr_context_args args = kernel_args(context, full, local);
    pgr_status status = site->device->ops->context_split(site->device, &args, site->stream, error);
    return status ? status : pgr_stopwatch_lap(site->stopwatch, PGR_COMPUTE, site->stream, error);
}

/* Gathers `bytes` bytes of each member; *data becomes `buffer` where there is more than one. */
static pgr_status gather(const pgr_site *site, const pgr_group *group, int64_t bytes, void *buffer,
                         const void **data, pgr_error *error) {
    if (!group || !group->comm)
        return PGR_OK;
    pgr_comm *comm = group->comm;
    pgr_request request = {0};
    pgr_status status = pgr_site_comm_begin(site, comm, error);
    if (!status)
        status = comm->ops->all_gather(comm, *data, buffer, bytes, PGR_U8, comm->stream, &request,
                                       error);
    status = pgr_site_comm_end(site, status, &request, error);
    if (!status)
        *data = buffer;
    return status;
}

pgr_status pgr_context_gather(const pgr_site *site, pgr_context *context, const void *local,
                              void *full, pgr_error *error) {
    const void *data = local;
    int64_t local_bytes = context->tokens.positions * context->row_bytes;
    int64_t share_bytes = share_rows(&context->tokens) * context->row_bytes;
    pgr_status status = gather(site, context->tp, local_bytes, context->share, &data, error);
    if (!status)
        status = gather(site, context->cp, share_bytes, context->chunks, &data, error);
    if (status)
        return status;
    pgr_context_args args = kernel_args(context, data, full);
    status = site->device->ops->context_gather(site->device, &args, site->stream, error);
    return status ? status : pgr_stopwatch_lap(site->stopwatch, PGR_COMPUTE, site->stream, error);
}
