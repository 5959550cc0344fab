/* fuzz_check.c - libFuzzer: any bytes as a config, read, planned, checked, located and shown, as a
 * child of `pgrun check` does it. The limits on time and memory are the fuzzer's, not the child's.
 */
#include "check_report.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static void require(bool good) {
    if (!good)
        __builtin_trap();
}

/* What is shown must be one line of text. */
static void require_text(const char *text, size_t room) {
    char clean[1024];
    require(memchr(text, '\0', room) != NULL);
    snprintf(clean, sizeof clean, "%s", text);
    pgr_check_clean(clean);
    require(strcmp(clean, text) == 0);
}

static void require_sound(const pgr_diagnostic *found) {
    require(found->rule && found->message[strspn(found->message, " ")]);
    require(found->path_count >= 0 && found->path_count <= PGR_DIAGNOSTIC_PATHS);
    require(memchr(found->message, '\0', sizeof found->message) != NULL);
    require(memchr(found->help, '\0', sizeof found->help) != NULL);
}

static void require_shown(const pgr_location *at, const char *text, size_t bytes) {
    pgr_check_location place = {.line = at->line, .column = at->column};
    require(at->line >= 0 && at->column >= 0 && (at->line > 0) == (at->column > 0));
    pgr_check_source(&place, text, bytes);
    require_text(place.source, sizeof place.source);
    require(place.caret >= 0 && place.caret_width >= 0);
    require((size_t)place.caret + (size_t)place.caret_width <= sizeof place.source);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    static pgr_error error;
    pgr_diagnostics found = {0};
    pgr_locations places = {0};
    int64_t world_size;
    char *text = malloc(count + 1); /* as pgr_config_read gives it */
    require(text != NULL);
    memcpy(text, bytes, count);
    text[count] = '\0';
    require(pgr_config_diagnose("fuzz.lua", text, count, NULL, 0, PGR_NIL, &world_size, &found,
                                &places, &error) == PGR_OK);
    require(places.count == found.count);
    require(world_size != PGR_NIL || found.count > 0); /* refused, with a word */
    for (int64_t i = 0; i < found.count; i++) {
        require_sound(&found.items[i]);
        for (int32_t k = 0; k < places.items[i].count; k++)
            require_shown(&places.items[i].items[k], text, count);
    }
    pgr_locations_free(&places);
    pgr_diagnostics_free(&found);
    free(text);
    return 0;
}
