/* comm_nccl_buffers.c - memory that NCCL sends from and receives into without a copy of its own:
 * ncclMemAlloc and ncclCommRegister (2.19), or plain device memory where a rank has them not.
 *
 * NCCL wants all ranks of a communicator to pass registered buffers, or none: which of the two was
 * agreed on when the world was made (comm_nccl.c), and is not decided again here. */
#include "comm_nccl.h"

#include <stdlib.h>

bool pgr_nccl_buffers_probe(const pgr_nccl_library *nccl) {
    void *memory = NULL;
    return nccl->MemAlloc && nccl->MemFree && nccl->CommRegister && nccl->CommDeregister &&
           nccl->MemAlloc(&memory, 1) == ncclSuccess && nccl->MemFree(memory) == ncclSuccess;
}

static pgr_status failed(const pgr_comm *comm, int64_t bytes, pgr_status status, pgr_error *error) {
    pgr_error_prefix(error, "a buffer of %lld bytes for family %s, group %lld (world ranks %s): ",
                     (long long)bytes, comm->family, (long long)comm->group, comm->members);
    pgr_nccl_abort_all();
    return status;
}

static pgr_status make(pgr_nccl_comm *comm, size_t bytes, pgr_nccl_buffer *made, pgr_error *error) {
    const pgr_job *job = comm->base.job;
    const pgr_nccl_library *nccl = pgr_nccl();
    cudaStream_t queue;
    pgr_status status = pgr_cuda_queue(job->device, NULL, &queue, error); /* the current GPU */
    if (status == PGR_OK)
        status = pgr_nccl_settle(comm, "before the buffer", error); /* it may be looking at them */
    if (status == PGR_OK)
        status = pgr_nccl_check(job, nccl->MemAlloc(&made->memory, bytes), "ncclMemAlloc", error);
    if (status != PGR_OK)
        return status;
    ncclResult_t result =
        nccl->CommRegister(comm->handle, made->memory, bytes, &made->registration);
    if (result != ncclSuccess) {
        pgr_cuda_idle(job->device);
        (void)nccl->MemFree(made->memory);
    }
    return pgr_nccl_check(job, result, "ncclCommRegister", error);
}

pgr_status pgr_nccl_buffer_alloc(pgr_comm *base, int64_t bytes, void **buffer, pgr_error *error) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)base;
    pgr_device *device = base->job->device;
    if (!pgr_nccl_the.registers || bytes < 0)
        return device->ops->alloc(device, PGR_MEMORY_DEVICE, bytes, buffer, error);
    if (pgr_nccl_the.aborted)
        return pgr_nccl_refuse(error);
    pgr_nccl_buffer *made = calloc(1, sizeof *made);
    if (!made)
        return pgr_error_set(error, PGR_LIMIT, "out of memory for a buffer's registration");
    pgr_status status = make(comm, bytes > 0 ? (size_t)bytes : 1, made, error);
    if (status != PGR_OK) {
        free(made);
        return failed(base, bytes, status, error);
    }
    made->next = comm->buffers;
    comm->buffers = made;
    *buffer = made->memory;
    return PGR_OK;
}

/* Giving back cannot fail: the first error is told when the communicator is closed. */
static void keep(pgr_nccl_comm *comm, const pgr_error *error) {
    if (!comm->lost)
        comm->lost = calloc(1, sizeof *comm->lost);
    if (comm->lost && comm->lost->status == PGR_OK)
        *comm->lost = *error;
}

static pgr_status deregister(pgr_nccl_comm *comm, const pgr_nccl_buffer *buffer, pgr_error *error) {
    if (!comm->handle || pgr_nccl_the.aborted) /* the abort took it along */
        return PGR_OK;
    pgr_status status =
        comm->launching ? pgr_nccl_settle(comm, "before a buffer's end", error) : PGR_OK;
    if (status != PGR_OK) {
        pgr_nccl_abort_all();
        return status;
    }
    return pgr_nccl_check(comm->base.job,
                          pgr_nccl()->CommDeregister(comm->handle, buffer->registration),
                          "ncclCommDeregister of a buffer", error);
}

/* Unlike cudaFree, ncclMemFree does not wait for what still uses the memory. */
static void give_back(pgr_nccl_comm *comm, pgr_nccl_buffer **link) {
    pgr_nccl_buffer *buffer = *link;
    pgr_error error;
    if (pgr_nccl_the.aborted && !atomic_load(&pgr_nccl_the.abort_done))
        return; /* something may hang in it */
    pgr_cuda_idle(comm->base.job->device);
    if (deregister(comm, buffer, &error) != PGR_OK)
        keep(comm, &error);
    if (pgr_nccl_check(comm->base.job, pgr_nccl()->MemFree(buffer->memory),
                       "ncclMemFree of a buffer", &error) != PGR_OK)
        keep(comm, &error);
    *link = buffer->next;
    free(buffer);
}

void pgr_nccl_buffer_free(pgr_comm *base, void *memory) {
    pgr_nccl_comm *comm = (pgr_nccl_comm *)base;
    pgr_device *device = base->job->device;
    pgr_nccl_buffer **link = &comm->buffers;
    while (*link && (*link)->memory != memory)
        link = &(*link)->next;
    if (*link)
        give_back(comm, link);
    else if (memory)
        device->ops->free(device, PGR_MEMORY_DEVICE, memory);
}

void pgr_nccl_buffers_free(pgr_nccl_comm *comm) {
    while (comm->buffers && !(pgr_nccl_the.aborted && !atomic_load(&pgr_nccl_the.abort_done)))
        give_back(comm, &comm->buffers);
}
