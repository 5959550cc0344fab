/* layer.c - what all layers share: the site and the stopwatch. */
#include "layer.h"

#include <math.h>
#include <stdio.h>
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
    char name[PGR_NAME_MAX + 8];
    pgr_status status = order_streams(site, site->stream, comm->stream, error);
    if (!status) {
        snprintf(name, sizeof name, "comm %s", comm->family);
        site->device->ops->range_begin(site->device, name);
    }
    return status;
}

pgr_status pgr_site_comm_end(const pgr_site *site, pgr_status status, pgr_request *request,
                             pgr_error *error) {
    if (!status)
        status = pgr_request_wait(request, error);
    if (!status)
        status = order_streams(site, request->comm->stream, site->stream, error);
    site->device->ops->range_end(site->device); /* where begin failed the run ends: no matter */
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
