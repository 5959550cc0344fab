/* cuda_host.h - what the CUDA module decides on the host: which GPU a rank takes, and what it says
 * where there is none. No CUDA header is needed, so that a machine without a toolkit tests it with
 * values of its own. */
#ifndef PGR_CUDA_HOST_H
#define PGR_CUDA_HOST_H

#include "device.h"

/* cudaError_t's values that mean more than "an error"; cuda.c holds them against the toolkit's. */
enum {
    PGR_CUDA_SUCCESS = 0,
    PGR_CUDA_OUT_OF_MEMORY = 2,
    PGR_CUDA_INSUFFICIENT_DRIVER = 35,
    PGR_CUDA_NO_DEVICE = 100
};

/* What the machine says of its GPUs. Versions are CUDA's: 1000 * major + 10 * minor. */
typedef struct pgr_cuda_facts {
    int code;              /* of cudaGetDeviceCount */
    const char *code_name; /* its name, for codes that are not explained */
    int count;             /* GPUs that are visible; used where code is 0 */
    int driver_version;    /* the newest CUDA that the driver supports; 0: there is no driver */
    int toolkit_version;   /* of the CUDA runtime that the module runs with */
    const char *driver;    /* the driver's own version, "580.65.06"; "" where it is not known */
    const char *visible;   /* the value of CUDA_VISIBLE_DEVICES, NULL where it is not set */
} pgr_cuda_facts;

/* PGR_OK where there is a GPU to use; else PGR_UNSUPPORTED (no driver, a driver too old, no GPU) or
 * PGR_BACKEND with one line that says what is missing and the way out. */
pgr_status pgr_cuda_facts_check(const pgr_cuda_facts *facts, pgr_error *error);

/* The index of the GPU of a rank among the `count` > 0 visible ones: its local rank, counted round
 * where there are more ranks than GPUs (one GPU for each rank alone, which every rank calls 0, is
 * that case too; UUIDs tell it from one GPU for all). */
int pgr_cuda_index(int64_t local_rank, int count);

/* PGR_UNSUPPORTED for a GPU that is older than the oldest that the module has code for. */
pgr_status pgr_cuda_capability_check(const char *model, int major, int minor, pgr_error *error);

/* The stream priority for CUDA, where lower numbers run first, of ours, where higher ones do; cut
 * to [greatest, least], what cudaDeviceGetStreamPriorityRange gives (such as [-5, 0]). */
int pgr_cuda_priority(int32_t priority, int least, int greatest);

/* "GPU-01234567-89ab-cdef-0123-456789abcdef", as nvidia-smi -L has it. */
enum { PGR_CUDA_UUID_TEXT = 41 };
void pgr_cuda_uuid_text(const uint8_t uuid[16], char text[PGR_CUDA_UUID_TEXT]);

/* The driver's version out of /proc/driver/nvidia/version's first line (the open and the closed
 * kernel module word it differently): the first word of digits and at least one dot. "" if none. */
void pgr_cuda_driver_text(const char *line, char *text, size_t bytes);

/* The largest power of two, at most 256, that divides an address: what cuBLASLt wants to know. */
uint32_t pgr_cuda_alignment(const void *address);

#endif
