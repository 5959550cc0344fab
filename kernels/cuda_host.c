/* cuda_host.c - the CUDA module's decisions on the host, from values alone. */
#include "cuda_host.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { OLDEST_MAJOR = 8 }; /* sm_80: CMAKE_CUDA_ARCHITECTURES begins there */

static int major_of(int version) {
    return version / 1000;
}

static int minor_of(int version) {
    return version % 1000 / 10;
}

static pgr_status no_driver(pgr_error *error) {
    return pgr_error_set(error, PGR_UNSUPPORTED,
                         "this machine has no NVIDIA driver (libcuda.so.1 was not found): run "
                         "where there is a GPU, or with run.device = \"cpu\"");
}

static pgr_status old_driver(const pgr_cuda_facts *facts, pgr_error *error) {
    const char *driver = facts->driver && facts->driver[0] ? facts->driver : "";
    return pgr_error_set(
        error, PGR_UNSUPPORTED,
        "the NVIDIA driver%s%s supports CUDA %d.%d, but libpgrun_cuda.so needs CUDA %d.%d: update "
        "the driver, or build libpgrun_cuda.so with a CUDA toolkit that the driver supports",
        driver[0] ? " " : "", driver, major_of(facts->driver_version),
        minor_of(facts->driver_version), major_of(facts->toolkit_version),
        minor_of(facts->toolkit_version));
}

static pgr_status no_device(const pgr_cuda_facts *facts, pgr_error *error) {
    if (facts->visible) {
        return pgr_error_set(error, PGR_UNSUPPORTED,
                             "no GPU is visible with CUDA_VISIBLE_DEVICES = \"%s\": unset it or "
                             "name GPUs that `nvidia-smi -L` lists",
                             facts->visible);
    }
    return pgr_error_set(error, PGR_UNSUPPORTED,
                         "the NVIDIA driver finds no GPU: see whether `nvidia-smi -L` lists one");
}

pgr_status pgr_cuda_facts_check(const pgr_cuda_facts *facts, pgr_error *error) {
    if (facts->code == PGR_CUDA_SUCCESS && facts->count > 0)
        return PGR_OK;
    if (facts->driver_version == 0 &&
        (facts->code == PGR_CUDA_INSUFFICIENT_DRIVER || facts->code == PGR_CUDA_NO_DEVICE))
        return no_driver(error);
    if (facts->code == PGR_CUDA_INSUFFICIENT_DRIVER)
        return old_driver(facts, error);
    if (facts->code == PGR_CUDA_NO_DEVICE || facts->code == PGR_CUDA_SUCCESS)
        return no_device(facts, error);
    return pgr_error_set(error, PGR_BACKEND, "cudaGetDeviceCount: %s (%d)",
                         facts->code_name ? facts->code_name : "?", facts->code);
}

int pgr_cuda_index(int64_t local_rank, int count) {
    return local_rank > 0 && count > 0 ? (int)(local_rank % count) : 0;
}

pgr_status pgr_cuda_capability_check(const char *model, int major, int minor, pgr_error *error) {
    if (major >= OLDEST_MAJOR)
        return PGR_OK;
    return pgr_error_set(error, PGR_UNSUPPORTED,
                         "%s has compute capability %d.%d; libpgrun_cuda.so has code for %d.0 "
                         "(A100) and later: use run.device = \"cpu\"",
                         model, major, minor, OLDEST_MAJOR);
}

int pgr_cuda_priority(int32_t priority, int least, int greatest) {
    int64_t wanted = -(int64_t)priority;
    return wanted < greatest ? greatest : wanted > least ? least : (int)wanted;
}

void pgr_cuda_uuid_text(const uint8_t uuid[16], char text[PGR_CUDA_UUID_TEXT]) {
    static const char digits[] = "0123456789abcdef";
    char *out = text;
    memcpy(out, "GPU-", 4);
    out += 4;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *out++ = '-';
        *out++ = digits[uuid[i] >> 4];
        *out++ = digits[uuid[i] & 15];
    }
    *out = '\0';
}

void pgr_cuda_driver_text(const char *line, char *text, size_t bytes) {
    text[0] = '\0';
    while (*line) {
        line += strspn(line, " \t\n");
        size_t length = strcspn(line, " \t\n");
        size_t digits = strspn(line, "0123456789.");
        if (length > 0 && digits == length && isdigit((unsigned char)line[0]) &&
            memchr(line, '.', length)) {
            snprintf(text, bytes, "%.*s", (int)length, line);
            return;
        }
        line += length;
    }
}

uint32_t pgr_cuda_alignment(const void *address) {
    uintptr_t bits = (uintptr_t)address | 256;
    return (uint32_t)(bits & (~bits + 1));
}
