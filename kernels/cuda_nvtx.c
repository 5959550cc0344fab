/* cuda_nvtx.c - named ranges for NVIDIA's profilers. NVTX is a header: it opens the profiler's
 * library ($NVTX_INJECTION64_PATH, which nsys sets) at the first call and is a few instructions
 * where there is none. */
#include "cuda.h"

#ifdef PGRUN_WITH_NVTX
#include <nvtx3/nvToolsExt.h>

/* Ours among all libraries' ranges; made at the first one. Ranges are begun by the rank's one
 * thread that enqueues. */
static nvtxDomainHandle_t domain(void) {
    static nvtxDomainHandle_t made;
    if (!made)
        made = nvtxDomainCreateA("pgrun");
    return made;
}

void pgr_cuda_range_begin(pgr_device *device, const char *name) {
    (void)device;
    nvtxEventAttributes_t range = {
        .version = NVTX_VERSION,
        .size = NVTX_EVENT_ATTRIB_STRUCT_SIZE,
        .messageType = NVTX_MESSAGE_TYPE_ASCII,
        .message.ascii = name,
    };
    (void)nvtxDomainRangePushEx(domain(), &range);
}

void pgr_cuda_range_end(pgr_device *device) {
    (void)device;
    (void)nvtxDomainRangePop(domain());
}

#else

void pgr_cuda_range_begin(pgr_device *device, const char *name) {
    (void)device, (void)name;
}

void pgr_cuda_range_end(pgr_device *device) {
    (void)device;
}

#endif
