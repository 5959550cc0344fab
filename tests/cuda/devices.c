/* devices.c - the devices of a kind, a line each: name and identity. `gpu_devices KIND`; exit
 * status 77, and a line that says why, where there is none. */
#include <stdio.h>
#include <string.h>

#include "comm.h"

enum { NONE = 77, MOST = 64 };

int main(int count, char **words) {
    const char *kind = count > 1 ? words[1] : "cuda";
    const pgr_module *module;
    pgr_error error;
    char first[sizeof(((pgr_device *)0)->identity)] = "";
    pgr_status status = pgr_module_open(kind, &module, &error);
    /* Local ranks take the devices in turn: the first one comes again after the last. */
    for (int i = 0; i < MOST && status == PGR_OK; i++) {
        pgr_device_open_args args = {
            .local_rank = i, .local_size = MOST, .threads = 1, .rank = i, .host = "this host"};
        pgr_device *device = NULL;
        status = module->device->open(&args, &device, &error);
        if (status != PGR_OK)
            break;
        bool again = i > 0 && strcmp(device->identity, first) == 0;
        if (i == 0)
            snprintf(first, sizeof first, "%s", device->identity);
        if (!again)
            printf("%s, %s\n", device->name, device->identity);
        module->device->close(device);
        if (again)
            return 0;
    }
    if (status == PGR_OK)
        return 0;
    if (first[0])
        printf("a further device: ");
    printf("no device of kind %s: %s\n", kind, error.message);
    return first[0] ? 1 : NONE;
}
