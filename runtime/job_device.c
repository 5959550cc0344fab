/* job_device.c - which device the ranks of a job run on: all on the same kind, each on its own. */
#include "job_device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- opening ------------------------------------------------------------------------------- */

/* Local. */
static pgr_status device_open(pgr_job *job, const char *name, const pgr_device_open_args *open,
                              pgr_error *error) {
    const pgr_module *module;
    pgr_status status = pgr_module_open(name, &module, error);
    if (status != PGR_OK)
        return status;
    if (!module->device) {
        return pgr_error_set(error, PGR_UNSUPPORTED, "libpgrun_%s.so has no device in it",
                             module->name);
    }
    return module->device->open(open, &job->device, error);
}

static void device_close(pgr_job *job) {
    if (job->device)
        job->device->ops->close(job->device);
    job->device = NULL;
}

/* Whether it is worth to open the CUDA module for "auto": it is a gigabyte of NVIDIA's libraries,
 * which most machines without a GPU need not load to learn that. CUDA itself opens the driver so.
 */
static pgr_status cuda_likely(pgr_error *error) {
    if (!pgr_module_present("cuda")) {
        return pgr_error_set(error, PGR_UNSUPPORTED,
                             "this pgrun has no libpgrun_cuda.so beside its other modules");
    }
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (!driver) {
        return pgr_error_set(error, PGR_UNSUPPORTED,
                             "this machine has no NVIDIA driver (libcuda.so.1 was not found)");
    }
    dlclose(driver);
    return PGR_OK;
}

static pgr_status refuse_lack(const pgr_job_args *args, pgr_error *error) {
    if (!args->cuda_lacks)
        return PGR_OK;
    return pgr_error_set(
        error, PGR_UNSUPPORTED, "libpgrun_cuda.so does not have what this run needs: %s%s",
        args->cuda_lacks, args->device == PGR_DEVICE_CUDA ? "; use \"cpu\" or \"auto\"" : "");
}

/* ---- one GPU for each rank ----------------------------------------------------------------- */

static int compare_places(const void *a, const void *b) {
    const pgr_job_place *x = a, *y = b;
    int order = strcmp(x->identity, y->identity);
    return order ? order : (x->rank > y->rank) - (x->rank < y->rank);
}

/* The first of the lowest two that share one, once they are sorted; or NULL. */
static const pgr_job_place *places_shared(pgr_job_place *places, int64_t count) {
    int64_t first = -1;
    qsort(places, (size_t)count, sizeof *places, compare_places);
    for (int64_t i = 0; i + 1 < count; i++) {
        bool same = strcmp(places[i].identity, places[i + 1].identity) == 0;
        if (same && (first < 0 || places[i].rank < places[first].rank))
            first = i;
    }
    return first < 0 ? NULL : &places[first];
}

static void shared_text(const pgr_job_place *first, char text[PGR_JOB_SHARED_TEXT]) {
    snprintf(text, PGR_JOB_SHARED_TEXT, "ranks %lld and %lld share one GPU, %s on %s",
             (long long)first[0].rank, (long long)first[1].rank, first->identity, first->host);
}

pgr_status pgr_job_places_apart(pgr_job_place *places, int64_t count, pgr_error *error) {
    const pgr_job_place *first = places_shared(places, count);
    char text[PGR_JOB_SHARED_TEXT];
    if (!first)
        return PGR_OK;
    shared_text(first, text);
    return pgr_error_set(error, PGR_INVALID,
                         "%s: start at most as many ranks on a host as it has GPUs, let each rank "
                         "see its own (CUDA_VISIBLE_DEVICES), or set run.share_gpu = true, with "
                         "which ranks communicate over MPI (NCCL refuses two ranks on one GPU)",
                         text);
}

/* Collective; the places of all ranks, [size], to be freed. */
static pgr_status places_gather(pgr_job *job, pgr_job_place **gathered, pgr_error *error) {
    pgr_job_place own = {.rank = job->rank};
    snprintf(own.identity, sizeof own.identity, "%s", job->device->identity);
    snprintf(own.host, sizeof own.host, "%s", job->host);
    pgr_job_place *places = calloc((size_t)job->size, sizeof *places);
    pgr_status status = PGR_OK;
    if (!places)
        status = pgr_error_set(error, PGR_LIMIT, "out of memory for the GPUs of %lld ranks",
                               (long long)job->size);
    status = pgr_job_agree(job, status, error);
    if (status == PGR_OK)
        status = job->bootstrap_ops->all_gather(job->bootstrap, &own, places, (int64_t)sizeof own,
                                                error);
    if (status == PGR_OK)
        *gathered = places;
    else
        free(places);
    return status;
}

/* Collective; the same result on every rank. */
static pgr_status devices_apart(pgr_job *job, pgr_error *error) {
    pgr_job_place *places;
    pgr_status status = places_gather(job, &places, error);
    if (status != PGR_OK)
        return status;
    status = pgr_job_places_apart(places, job->size, error);
    free(places);
    return status;
}

pgr_status pgr_job_device_shared(pgr_job *job, char text[PGR_JOB_SHARED_TEXT], pgr_error *error) {
    pgr_job_place *places;
    pgr_status status = places_gather(job, &places, error);
    if (status != PGR_OK)
        return status;
    const pgr_job_place *first = places_shared(places, job->size);
    text[0] = '\0';
    if (first)
        shared_text(first, text);
    free(places);
    return PGR_OK;
}

/* ---- the decision -------------------------------------------------------------------------- */

/* Collective. The CUDA device of every rank, or of none. */
static pgr_status cuda_open(pgr_job *job, const pgr_job_args *args,
                            const pgr_device_open_args *open, int32_t gpu_local_rank,
                            pgr_error *error) {
    pgr_device_open_args gpu = *open;
    gpu.local_rank = gpu_local_rank;
    bool sure = args->device == PGR_DEVICE_CUDA;
    pgr_status status = sure ? PGR_OK : cuda_likely(error);
    if (status == PGR_OK && !sure)
        status = refuse_lack(args, error);
    if (status == PGR_OK)
        status = device_open(job, "cuda", &gpu, error);
    if (status == PGR_OK && sure)
        status = refuse_lack(args, error);
    status = pgr_job_agree(job, status, error);
    if (status == PGR_OK && !args->share_gpu)
        status = devices_apart(job, error);
    if (status != PGR_OK)
        device_close(job);
    return status;
}

static pgr_status cpu_open(pgr_job *job, const pgr_device_open_args *open, pgr_error *error) {
    pgr_status status = pgr_job_agree(job, device_open(job, "cpu", open, error), error);
    if (status != PGR_OK)
        device_close(job);
    return status;
}

pgr_status pgr_job_device_decide(pgr_job *job, const pgr_job_args *args,
                                 const pgr_device_open_args *open, int32_t gpu_local_rank,
                                 pgr_error *error) {
    job->device_note[0] = '\0';
    if (args->device == PGR_DEVICE_CPU)
        return cpu_open(job, open, error);
    if (args->device == PGR_DEVICE_CUDA) {
        pgr_status status = cuda_open(job, args, open, gpu_local_rank, error);
        if (status != PGR_OK)
            pgr_error_prefix(error, "run.device = \"cuda\": ");
        return status;
    }
    pgr_error *why = calloc(1, sizeof *why);
    if (pgr_job_agree(job, why ? PGR_OK : PGR_LIMIT, NULL) != PGR_OK) {
        free(why);
        return pgr_error_set(error, PGR_LIMIT, "out of memory for a message");
    }
    pgr_status status = cuda_open(job, args, open, gpu_local_rank, why);
    if (status != PGR_OK) {
        why->message[strcspn(why->message, "\n")] = '\0';
        snprintf(job->device_note, sizeof job->device_note, "%.*s",
                 (int)sizeof job->device_note - 1, why->message);
        status = status == PGR_LOST || status == PGR_TIMEOUT
                     ? pgr_error_set(error, status, "%s", why->message)
                     : cpu_open(job, open, error);
    }
    free(why);
    return status;
}
