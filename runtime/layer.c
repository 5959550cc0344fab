/* layer.c - what all layers share: the site, the stopwatch, and the map of tokens to ranks. */
#include "layer.h"

#include <math.h>
#include <stdlib.h>

enum { LAPS_MAX = 16 + 4 * PGR_CHUNKS_MAX }; /* two layers: two laps a chunk, and their ends */

struct pgr_stopwatch {
    pgr_device *device;
    pgr_event *marks[LAPS_MAX + 1];
    pgr_phase phases[LAPS_MAX];
    int laps;
};

pgr_status pgr_stopwatch_create(pgr_device *device, pgr_stopwatch **stopwatch, pgr_error *error) {
    pgr_stopwatch *created = calloc(1, sizeof *created);
    if (!created)
        return pgr_error_set(error, PGR_LIMIT, "no memory for a stopwatch");
    created->device = device;
    for (int i = 0; i <= LAPS_MAX; i++) {
        pgr_status status = device->ops->event_create(device, &created->marks[i], error);
        if (status) {
            pgr_stopwatch_free(created);
            return status;
        }
    }
    *stopwatch = created;
    return PGR_OK;
}

void pgr_stopwatch_free(pgr_stopwatch *stopwatch) {
    if (!stopwatch)
        return;
    for (int i = 0; i <= LAPS_MAX; i++)
        if (stopwatch->marks[i])
            stopwatch->device->ops->event_free(stopwatch->device, stopwatch->marks[i]);
    free(stopwatch);
}

pgr_status pgr_stopwatch_start(pgr_stopwatch *stopwatch, pgr_stream *stream, pgr_error *error) {
    if (!stopwatch)
        return PGR_OK;
    stopwatch->laps = 0;
    return stopwatch->device->ops->event_record(stopwatch->device, stopwatch->marks[0], stream,
                                                error);
}

pgr_status pgr_stopwatch_lap(pgr_stopwatch *stopwatch, pgr_phase phase, pgr_stream *stream,
                             pgr_error *error) {
    if (!stopwatch)
        return PGR_OK;
    if (stopwatch->laps == LAPS_MAX)
        return pgr_error_set(error, PGR_INTERNAL, "more than %d laps in one iteration", LAPS_MAX);
    stopwatch->phases[stopwatch->laps++] = phase;
    return stopwatch->device->ops->event_record(stopwatch->device,
                                                stopwatch->marks[stopwatch->laps], stream, error);
}

pgr_status pgr_stopwatch_read(pgr_stopwatch *stopwatch, double seconds[PGR_PHASES],
                              pgr_error *error) {
    double sums[PGR_PHASES] = {0};
    for (int i = 0; i < stopwatch->laps; i++) {
        double lap = 0;
        pgr_status status = stopwatch->device->ops->event_elapsed(
            stopwatch->device, stopwatch->marks[i], stopwatch->marks[i + 1], &lap, error);
        if (status)
            return status;
        sums[stopwatch->phases[i]] += lap;
    }
    for (int phase = 0; phase < PGR_PHASES; phase++)
        seconds[phase] = sums[phase];
    return PGR_OK;
}

pgr_status pgr_site_alloc(const pgr_site *site, int64_t bytes, void **out, pgr_error *error) {
    return site->device->ops->alloc(site->device, PGR_MEMORY_DEVICE, bytes, out, error);
}

void pgr_site_free(const pgr_site *site, void *memory) {
    if (memory)
        site->device->ops->free(site->device, PGR_MEMORY_DEVICE, memory);
}

pgr_status pgr_site_open(pgr_site *site, pgr_error *error) {
    const pgr_device_ops *ops = site->device->ops;
    pgr_status status = ops->stream_create(site->device, 0, &site->stream, error);
    if (!status)
        status = ops->event_create(site->device, &site->order, error);
    if (!status)
        status = pgr_stopwatch_create(site->device, &site->stopwatch, error);
    if (status)
        pgr_site_close(site);
    return status;
}

void pgr_site_close(pgr_site *site) {
    const pgr_device_ops *ops = site->device->ops;
    pgr_stopwatch_free(site->stopwatch);
    if (site->order)
        ops->event_free(site->device, site->order);
    if (site->stream)
        ops->stream_free(site->device, site->stream);
    site->stopwatch = NULL;
    site->order = NULL;
    site->stream = NULL;
}

pgr_status pgr_site_buffer_alloc(const pgr_site *site, const pgr_group *group, int64_t bytes,
                                 void **out, pgr_error *error) {
    pgr_comm *comm = group ? group->comm : NULL;
    return comm ? comm->ops->buffer_alloc(comm, bytes, out, error)
                : pgr_site_alloc(site, bytes, out, error);
}

void pgr_site_buffer_free(const pgr_site *site, const pgr_group *group, void *buffer) {
    pgr_comm *comm = group ? group->comm : NULL;
    if (buffer && comm)
        comm->ops->buffer_free(comm, buffer);
    else
        pgr_site_free(site, buffer);
}

/* Lets `later` wait for what is on `earlier` now. */
static pgr_status order_streams(const pgr_site *site, pgr_stream *earlier, pgr_stream *later,
                                pgr_error *error) {
    const pgr_device_ops *ops = site->device->ops;
    pgr_status status = ops->event_record(site->device, site->order, earlier, error);
    return status ? status : ops->stream_wait(site->device, later, site->order, error);
}

pgr_status pgr_site_comm_begin(const pgr_site *site, const pgr_comm *comm, pgr_error *error) {
    return order_streams(site, site->stream, comm->stream, error);
}

pgr_status pgr_site_comm_end(const pgr_site *site, pgr_status status, pgr_request *request,
                             pgr_error *error) {
    if (!status)
        status = pgr_request_wait(request, error);
    if (!status)
        status = order_streams(site, request->comm->stream, site->stream, error);
    return status ? status
                  : pgr_stopwatch_lap(site->stopwatch, PGR_COMMUNICATION, site->stream, error);
}

pgr_status pgr_site_comm_order(const pgr_site *site, pgr_request *request, pgr_error *error) {
    pgr_comm *comm = request->comm;
    if (request->state && comm->ops->stream_wait)
        return comm->ops->stream_wait(request, site->stream, error);
    pgr_status status = pgr_request_wait(request, error);
    return status ? status : order_streams(site, comm->stream, site->stream, error);
}

pgr_status pgr_site_group(const pgr_site *site, const char *family, const pgr_group **group,
                          pgr_error *error) {
    const pgr_group *found = pgr_groups_find(site->groups, family);
    if (!found)
        return pgr_error_set(error, PGR_INTERNAL, "family %s is needed but was not opened", family);
    *group = found;
    return PGR_OK;
}

int32_t pgr_weight_exponent(int64_t depth) {
    return (int32_t)lround(0.5 * log2(3.0 / (double)depth));
}

void pgr_saved_free(const pgr_site *site, pgr_saved *saved) {
    if (!saved)
        return;
    pgr_site_free(site, saved->pre_activation);
    *saved = (pgr_saved){0};
}

/* ---- tokens -------------------------------------------------------------------------------- */

/* Positions must divide into 2*cp chunks, and each cp share into tp parts where it is scattered:
 * lcm(2*cp, tp*cp). */
static int64_t needed_multiple(int64_t cp, int64_t shares) {
    int64_t chunks = cp > 1 ? 2 * cp : 1;
    int64_t parts = cp * shares;
    return chunks / pgr_greatest_divisor(chunks, parts) * parts;
}

pgr_status pgr_tokens_create(const pgr_spec *spec, const pgr_plan *plan, int64_t rank,
                             bool scattered, pgr_tokens *tokens, pgr_error *error) {
    pgr_padding_args args = pgr_padding_args_of(spec);
    int64_t padding = 0;
    pgr_status status = pgr_padding(&args, &padding, error);
    if (status)
        return status;

    int64_t tp = pgr_plan_axis_size(plan, "tp");
    bool shared = spec->parallel.sequence_parallel;
    pgr_tokens map = {
        .seq_len = spec->model.seq_len,
        .padded = spec->model.seq_len + padding,
        .batch = spec->model.micro_batch,
        .cp = pgr_plan_axis_size(plan, "cp"),
        .cp_rank = pgr_plan_coordinate(plan, "cp", rank),
        .shares = shared && scattered ? tp : 1,
        .share = shared && scattered ? pgr_plan_coordinate(plan, "tp", rank) : 0,
        .dp = pgr_plan_axis_size(plan, "dp"),
        .dp_rank = pgr_plan_coordinate(plan, "dp", rank),
    };
    int64_t multiple = needed_multiple(map.cp, shared ? tp : 1);
    if (map.padded % multiple)
        return pgr_error_set(
            error, PGR_INVALID,
            "seq_len = %lld, padded to %lld by the config's rule, is not a multiple of %lld = "
            "lcm(2*cp, tp*cp) with tp = %lld, cp = %lld%s; padding.sequence = \"megatron\" or "
            "padding.sequence = %lld would pad it to %lld",
            (long long)map.seq_len, (long long)map.padded, (long long)multiple, (long long)tp,
            (long long)map.cp, shared ? " and sequence_parallel" : "", (long long)multiple,
            (long long)((map.seq_len + multiple - 1) / multiple * multiple));
    map.positions = map.padded / map.cp / map.shares;
    if (__builtin_mul_overflow(map.positions, map.batch, &map.rows))
        return pgr_error_set(
            error, PGR_LIMIT,
            "%lld positions per rank * micro_batch = %lld do not fit in 63 bits; take "
            "smaller sizes",
            (long long)map.positions, (long long)map.batch);
    *tokens = map;
    return PGR_OK;
}

int64_t pgr_tokens_position(const pgr_tokens *tokens, int64_t local_position) {
    int64_t at = tokens->share * tokens->positions + local_position;
    if (tokens->cp == 1)
        return at;
    int64_t chunk = tokens->padded / (2 * tokens->cp);
    return at < chunk ? tokens->cp_rank * chunk + at
                      : (2 * tokens->cp - 1 - tokens->cp_rank) * chunk + (at - chunk);
}

int64_t pgr_tokens_id(const pgr_tokens *tokens, int64_t micro_batch, int64_t row) {
    int64_t position = pgr_tokens_position(tokens, row / tokens->batch);
    if (position >= tokens->seq_len)
        return -1;
    int64_t sample =
        (micro_batch * tokens->dp + tokens->dp_rank) * tokens->batch + row % tokens->batch;
    return sample * tokens->seq_len + position;
}
