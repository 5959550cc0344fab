/* comm_nccl_library.c - finding libnccl, what its versions have, and its errors in our words. */
#include "comm_nccl.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OLDEST = 21800, WITH_TRAFFIC_CLASS = 22600, WITH_NAMES = 22700, NEWEST = 22800 };

static pgr_nccl_library opened;

/* ---- opening ------------------------------------------------------------------------------- */

static pgr_status lookup(void *handle, pgr_nccl_library *library, pgr_error *error) {
    const char *missing = NULL;
#define LOOK(name)                                                                                 \
    *(void **)&library->name = dlsym(handle, "nccl" #name);                                        \
    if (!library->name && !missing)                                                                \
        missing = "nccl" #name;
    PGR_NCCL_CALLS(LOOK)
#undef LOOK
#define LOOK_NEWER(name, type, arguments) *(void **)&library->name = dlsym(handle, "nccl" #name);
    PGR_NCCL_NEWER_CALLS(LOOK_NEWER)
#undef LOOK_NEWER
    if (!missing)
        return PGR_OK;
    return pgr_error_set(error, PGR_UNSUPPORTED, "%s has no %s: pgrun needs NCCL 2.18 or later",
                         library->file, missing);
}

static const char *code_name(ncclResult_t result) {
    static const char *const names[] = {
        "ncclSuccess",         "ncclUnhandledCudaError", "ncclSystemError", "ncclInternalError",
        "ncclInvalidArgument", "ncclInvalidUsage",       "ncclRemoteError", "ncclInProgress"};
    unsigned int index = (unsigned int)result;
    return index < sizeof names / sizeof *names ? names[index] : "an unknown code";
}

/* Codes of NCCL 2.9 and later: 10000 * major + 100 * minor + patch. */
static pgr_status version_read(pgr_nccl_library *library, pgr_error *error) {
    int code = 0;
    ncclResult_t result = library->GetVersion(&code);
    if (result != ncclSuccess) {
        return pgr_error_set(error, PGR_BACKEND, "ncclGetVersion: %s (%s), of %s",
                             code_name(result), library->GetErrorString(result), library->file);
    }
    snprintf(library->text, sizeof library->text, "%d.%d.%d", code / 10000, code / 100 % 100,
             code % 100);
    if (code < OLDEST) {
        return pgr_error_set(error, PGR_UNSUPPORTED,
                             "%s is NCCL %s (code %d): pgrun needs NCCL 2.18 or later",
                             library->file, library->text, code);
    }
    library->version = code;
    return PGR_OK;
}

pgr_status pgr_nccl_library_open(const pgr_nccl_library **library, pgr_error *error) {
    if (opened.version == 0) {
        pgr_nccl_library found = {.version = 0};
        const char *given = getenv("PGRUN_NCCL_LIBRARY");
        snprintf(found.file, sizeof found.file, "%s", given && *given ? given : "libnccl.so.2");
        void *handle = dlopen(found.file, RTLD_NOW | RTLD_LOCAL);
        if (!handle) {
            const char *why = dlerror();
            return pgr_error_set(error, PGR_UNSUPPORTED,
                                 "NCCL was not found: %s; install NCCL 2.18 or later where the "
                                 "loader finds it (LD_LIBRARY_PATH), or name its file in "
                                 "PGRUN_NCCL_LIBRARY",
                                 why ? why : found.file);
        }
        pgr_status status = lookup(handle, &found, error);
        if (status == PGR_OK)
            status = version_read(&found, error);
        if (status != PGR_OK) {
            dlclose(handle);
            return status;
        }
        opened = found;
    }
    *library = &opened;
    return PGR_OK;
}

/* ---- errors -------------------------------------------------------------------------------- */

pgr_status pgr_nccl_check(const pgr_job *job, ncclResult_t result, const char *call,
                          pgr_error *error) {
    if (result == ncclSuccess || result == ncclInProgress)
        return PGR_OK;
    const char *last = opened.version ? opened.GetLastError(NULL) : NULL;
    const char *text = opened.version ? opened.GetErrorString(result) : "";
    bool says = last && *last;
    return pgr_error_set(error, PGR_BACKEND,
                         "rank %lld on %s: %s: %s (%s)%s%.400s; NCCL_DEBUG=WARN tells more",
                         (long long)job->rank, job->host, call, code_name(result), text,
                         says ? ": " : "", says ? last : "");
}

/* ---- configurations ------------------------------------------------------------------------ */

/* What the versions had: sizeof(ncclConfig_t) of their headers. */
static size_t config_size(int version) {
    if (version < WITH_NAMES) /* before 2.26 the last four bytes were padding */
        return offsetof(pgr_nccl_config, comm_name);
    return version < NEWEST ? offsetof(pgr_nccl_config, channels_per_net_peer)
                            : sizeof(pgr_nccl_config);
}
_Static_assert(offsetof(pgr_nccl_config, comm_name) == 48, "ncclConfig_t of 2.18 to 2.26");
_Static_assert(offsetof(pgr_nccl_config, channels_per_net_peer) == 72, "ncclConfig_t of 2.27");
_Static_assert(sizeof(pgr_nccl_config) == 80, "ncclConfig_t of 2.28");
#if NCCL_VERSION_CODE >= 22800 && NCCL_VERSION_CODE < 22900
_Static_assert(sizeof(ncclConfig_t) == sizeof(pgr_nccl_config), "the same as nccl.h's");
_Static_assert(offsetof(ncclConfig_t, commName) == offsetof(pgr_nccl_config, comm_name), "too");
#endif

/* An option that was given, or NCCL's "undefined". */
static int given(int64_t value) {
    return value == PGR_NIL ? NCCL_CONFIG_UNDEF_INT : (int)value;
}

pgr_status pgr_nccl_config_fill(int version, const char *name, const pgr_nccl_options *options,
                                pgr_nccl_config *config, pgr_error *error) {
    const int undefined = NCCL_CONFIG_UNDEF_INT;
    pgr_nccl_config made = {.size = config_size(version),
                            .magic = 0xcafebeef,
                            .version = (unsigned int)(version < NEWEST ? version : NEWEST),
                            .blocking = 0,
                            .cga_cluster_size = undefined,
                            .min_ctas = undefined,
                            .max_ctas = undefined,
                            .split_share = undefined,
                            .traffic_class = undefined,
                            .collnet_enable = undefined,
                            .cta_policy = undefined,
                            .shrink_share = undefined,
                            .nvls_ctas = undefined,
                            .channels_per_net_peer = undefined,
                            .nvlink_centric = undefined};
    if (version >= WITH_NAMES)
        made.comm_name = name;
    if (options) {
        made.max_ctas = given(options->max_ctas);
        made.cga_cluster_size = given(options->cga_cluster_size);
        made.traffic_class = given(options->traffic_class);
        made.split_share = options->split_share ? 1 : undefined;
        made.net_name = options->net_name[0] ? options->net_name : NULL;
    }
    if (made.traffic_class != undefined && version < WITH_TRAFFIC_CLASS) {
        return pgr_error_set(error, PGR_UNSUPPORTED,
                             "run.nccl.%s.traffic_class needs NCCL 2.26 or later, this one is "
                             "%d.%d.%d: leave it out or update NCCL",
                             options->family, version / 10000, version / 100 % 100, version % 100);
    }
    *config = made;
    return PGR_OK;
}

/* ---- roots --------------------------------------------------------------------------------- */

int64_t pgr_nccl_roots(int64_t ranks, bool scalable) {
    const char *text = getenv("PGRUN_NCCL_RANKS_PER_ROOT"); /* for tests with few ranks */
    int64_t per_root = text ? strtoll(text, NULL, 10) : 256;
    per_root = per_root > 0 ? per_root : 256;
    return scalable && ranks > per_root ? (ranks + per_root - 1) / per_root : 1;
}

int64_t pgr_nccl_root_rank(int64_t ranks, int64_t roots, int64_t root) {
    int64_t each = ranks / roots, larger = ranks % roots;
    return root * each + (root < larger ? root : larger);
}
