/* job_device.h - which device the ranks of a job run on. Private to job.c and its tests. */
#ifndef PGR_JOB_DEVICE_H
#define PGR_JOB_DEVICE_H

#include "comm.h"

/* Collective. Decides between CPU and CUDA as `args` wants (auto: CUDA where every rank can, else
 * the CPU, with the reason of the lowest rank that cannot in job->device_note), and opens the
 * device. `open` is what a device is opened with; `gpu_local_rank` takes the place of its local
 * rank where GPUs are counted. All ranks return the same status and error; on an error no device is
 * open. */
pgr_status pgr_job_device_decide(pgr_job *job, const pgr_job_args *args,
                                 const pgr_device_open_args *open, int32_t gpu_local_rank,
                                 pgr_error *error);

/* A rank's device, as all ranks know it. */
typedef struct pgr_job_place {
    int64_t rank;
    char identity[64], host[64];
} pgr_job_place;

/* PGR_INVALID where two of the places have the same identity, with the lowest two such ranks. Puts
 * the places in another order. */
pgr_status pgr_job_places_apart(pgr_job_place *places, int64_t count, pgr_error *error);

#define PGR_JOB_SHARED_TEXT 256

/* Collective, with the job's device open. "ranks 0 and 1 share one GPU, GPU-... on HOST", of the
 * lowest two that do; "" where each rank has one of its own. */
pgr_status pgr_job_device_shared(pgr_job *job, char text[PGR_JOB_SHARED_TEXT], pgr_error *error);

#endif
