/* module.c - finds and opens the backends' modules. */
#define _GNU_SOURCE /* dladdr */
#include "comm.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where modules lie, relative to the folder of the program and of the library, and where they were
 * installed: set by the build. */
#ifndef PGR_MODULES_FROM_BIN
#define PGR_MODULES_FROM_BIN "../lib/pgrun"
#endif
#ifndef PGR_MODULES_FROM_LIB
#define PGR_MODULES_FROM_LIB "pgrun"
#endif
#ifndef PGR_MODULES_INSTALLED
#define PGR_MODULES_INSTALLED "/usr/local/lib/pgrun"
#endif

enum { PLACES_MAX = 6, MODULES_MAX = 8, PATH_BYTES = 1024 };

typedef struct places {
    char folders[PLACES_MAX][PATH_BYTES];
    int count;
} places;

static pthread_mutex_t opened_lock = PTHREAD_MUTEX_INITIALIZER;
static const pgr_module *opened[MODULES_MAX];
static int opened_count;

/* What a run needs a module for, in the words of its user. */
static const char *module_purpose(const char *name) {
    static const struct {
        const char *name, *purpose;
    } purposes[] = {
        {"mpi", "running on several ranks (or under mpirun or srun)"},
        {"cpu", "running workloads with run.device = \"cpu\""},
        {"cuda", "running workloads with run.device = \"cuda\""},
    };
    for (size_t i = 0; i < sizeof purposes / sizeof *purposes; i++)
        if (strcmp(name, purposes[i].name) == 0)
            return purposes[i].purpose;
    return "this run";
}

/* Adds `relative` to the folder of `file`, once and only where it exists: a place that is not there
 * is still named in the error, unless another spelling of it is. */
static void places_add(places *list, const char *file, const char *relative) {
    char joined[PATH_BYTES], resolved[PATH_BYTES * 4];
    const char *slash = strrchr(file, '/');
    int length =
        slash ? snprintf(joined, sizeof joined, "%.*s/%s", (int)(slash - file), file, relative)
              : snprintf(joined, sizeof joined, "%s", relative);
    if (list->count == PLACES_MAX || length < 0 || (size_t)length >= sizeof joined)
        return;
    _Static_assert(sizeof resolved >= 4096, "realpath wants PATH_MAX bytes");
    const char *place = realpath(joined, resolved) ? resolved : joined;
    for (int i = 0; i < list->count; i++)
        if (strcmp(list->folders[i], place) == 0)
            return;
    snprintf(list->folders[list->count++], PATH_BYTES, "%.*s", PATH_BYTES - 1, place);
}

static void places_find(places *list) {
    list->count = 0;
    const char *given = getenv("PGRUN_MODULE_PATH");
    if (given && *given) {
        snprintf(list->folders[list->count++], PATH_BYTES, "%.*s", PATH_BYTES - 1, given);
        return;
    }
    char program[PATH_BYTES];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length > 0) {
        program[length] = '\0';
        places_add(list, program, PGR_MODULES_FROM_BIN);
        places_add(list, program, "../lib/pgrun"); /* the build tree, whatever libdir is called */
    }
    Dl_info here;
    char library[4096];
    /* A static libpgrun reports the program, as argv[0] named it; the place above is then right. */
    if (dladdr((void *)&opened_lock, &here) && here.dli_fname && strchr(here.dli_fname, '/') &&
        realpath(here.dli_fname, library) && (length <= 0 || strcmp(library, program) != 0))
        places_add(list, library, PGR_MODULES_FROM_LIB);
    /* as installed: for a program elsewhere that links the static library */
    places_add(list, "/", &PGR_MODULES_INSTALLED[1]);
}

static void places_text(const places *list, char *text, size_t bytes) {
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < list->count && used < bytes; i++) {
        int length = snprintf(text + used, bytes - used, "%s%s", i ? ", " : "", list->folders[i]);
        used += length > 0 ? (size_t)length : 0;
    }
}

/* The loader's reason for a file that is there, else "no such file". */
static void *module_load(const places *list, const char *name, char *reason, size_t bytes) {
    snprintf(reason, bytes, "no such file");
    for (int i = 0; i < list->count; i++) {
        char file[PATH_BYTES + 128];
        snprintf(file, sizeof file, "%s/libpgrun_%s.so", list->folders[i], name);
        if (access(file, F_OK) != 0)
            continue;
        void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
        if (handle)
            return handle;
        const char *why = dlerror();
        snprintf(reason, bytes, "%s", why ? why : "the loader gave no reason");
        return NULL; /* what lies first is what was meant */
    }
    return NULL;
}

static pgr_status module_check(void *handle, const char *name, const pgr_module **module,
                               pgr_error *error) {
    const pgr_module *found = dlsym(handle, "pgr_module");
    if (!found) {
        return pgr_error_set(error, PGR_UNSUPPORTED,
                             "libpgrun_%s.so has no symbol pgr_module: it is not a module of pgrun",
                             name);
    }
    if (found->abi != PGR_MODULE_ABI) {
        return pgr_error_set(error, PGR_UNSUPPORTED,
                             "libpgrun_%s.so has module ABI %u, this pgrun needs %u: rebuild the "
                             "module from the same version",
                             name, found->abi, PGR_MODULE_ABI);
    }
    if (!found->name || strcmp(found->name, name) != 0) {
        return pgr_error_set(error, PGR_UNSUPPORTED, "libpgrun_%s.so says it is module \"%s\"",
                             name, found->name ? found->name : "");
    }
    *module = found;
    return PGR_OK;
}

static pgr_status module_open(const char *name, const pgr_module **module, pgr_error *error) {
    for (int i = 0; i < opened_count; i++) {
        if (strcmp(opened[i]->name, name) == 0) {
            *module = opened[i];
            return PGR_OK;
        }
    }
    places list;
    char reason[1024], looked[4096];
    places_find(&list);
    void *handle = module_load(&list, name, reason, sizeof reason);
    if (!handle) {
        places_text(&list, looked, sizeof looked);
        return pgr_error_set(error, PGR_UNSUPPORTED,
                             "cannot open libpgrun_%s.so, needed for %s: %s; looked in %s (set "
                             "PGRUN_MODULE_PATH to the folder that has it)",
                             name, module_purpose(name), reason, looked);
    }
    pgr_status status = module_check(handle, name, module, error);
    if (status == PGR_OK && opened_count < MODULES_MAX)
        opened[opened_count++] = *module;
    return status; /* never closed: MPI and OpenBLAS leave threads and exit handlers behind */
}

pgr_status pgr_module_open(const char *name, const pgr_module **module, pgr_error *error) {
    pthread_mutex_lock(&opened_lock);
    pgr_status status = module_open(name, module, error);
    pthread_mutex_unlock(&opened_lock);
    return status;
}

bool pgr_module_present(const char *name) {
    places list;
    places_find(&list);
    for (int i = 0; i < list.count; i++) {
        char file[PATH_BYTES + 128];
        snprintf(file, sizeof file, "%s/libpgrun_%s.so", list.folders[i], name);
        if (access(file, F_OK) == 0)
            return true;
    }
    return false;
}
