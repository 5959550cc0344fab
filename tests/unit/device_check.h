/* device_check.h - what device_test's files share. */
#ifndef PGR_DEVICE_CHECK_H
#define PGR_DEVICE_CHECK_H

#include <stdio.h>

#include "device.h"

enum { POISON = 0xcd };

extern pgr_device *device;
extern pgr_stream *stream;
extern pgr_error error;
extern int failures;
extern bool quick;

#define FAIL(...)                                                                                  \
    do {                                                                                           \
        printf("FAIL %s:%d: ", __func__, __LINE__);                                                \
        printf(__VA_ARGS__);                                                                       \
        printf("\n");                                                                              \
        failures++;                                                                                \
    } while (0)

/* An error ends the case; "not there yet" is a skip that is printed. */
bool worked(pgr_status status, const char *what);

/* Host memory, poisoned; device memory, poisoned, with `data` (or NULL) copied to it; a copy on the
 * host of device memory; drop frees device memory. */
void *host(int64_t bytes);
void *on_device(const void *data, int64_t bytes);
void *to_host(const void *memory, int64_t bytes);
void drop(void *memory);

/* Compares device memory with `want`, which it frees, as it does the device memory. */
void expect(const char *what, void *memory, void *want, int64_t bytes);

/* Cases: device_context.c. */
void test_context(void);
void test_packed(void);
void large_context(bool packed);

#endif
