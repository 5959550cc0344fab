/* nvtx_recorder.c - a profiler that NVTX opens ($NVTX_INJECTION64_PATH): writes each range of the
 * domain "pgrun" to $PGRUN_TEST_RANGES (under mpirun with the rank behind a dot), a line as it
 * begins, indented by those it is in, and a line "unbalanced" where one ends that never began. */
#include <nvtx3/nvToolsExt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static FILE *out;
static int depth;
static char ours, others; /* handles of domains */

static nvtxDomainHandle_t NVTX_API domain_create(const char *name) {
    return (nvtxDomainHandle_t)(strcmp(name, "pgrun") == 0 ? &ours : &others);
}

static int NVTX_API range_push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t *range) {
    if (domain != (nvtxDomainHandle_t)&ours)
        return 0;
    bool text = range->messageType == NVTX_MESSAGE_TYPE_ASCII;
    fprintf(out, "%*s%s\n", 2 * depth, "", text ? range->message.ascii : "?");
    fflush(out);
    return depth++;
}

static int NVTX_API range_pop(nvtxDomainHandle_t domain) {
    if (domain != (nvtxDomainHandle_t)&ours)
        return 0;
    if (depth == 0)
        fprintf(out, "unbalanced\n");
    depth -= depth > 0;
    return depth;
}

int NVTX_API InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table);
__attribute__((visibility("default"))) int NVTX_API
InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_table) {
    const NvtxExportTableCallbacks *callbacks = get_table(NVTX_ETID_CALLBACKS);
    NvtxFunctionTable table = NULL;
    unsigned int size = 0;
    const char *path = getenv("PGRUN_TEST_RANGES"), *rank = getenv("OMPI_COMM_WORLD_RANK");
    char name[4096];
    snprintf(name, sizeof name, "%s%s%s", path ? path : "/dev/null", rank ? "." : "",
             rank ? rank : "");
    out = fopen(name, "w");
    if (!out || !callbacks ||
        !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size) ||
        size <= NVTX_CBID_CORE2_DomainCreateA)
        return 0;
    *table[NVTX_CBID_CORE2_DomainCreateA] = (NvtxFunctionPointer)domain_create;
    *table[NVTX_CBID_CORE2_DomainRangePushEx] = (NvtxFunctionPointer)range_push;
    *table[NVTX_CBID_CORE2_DomainRangePop] = (NvtxFunctionPointer)range_pop;
    return 1;
}
