/* groups_rank.c - stage, layers, experts and embeddings of one rank, as text. */
#include "groups_rank.h"
#include "check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { SHOWN_CHUNKS = 8, MOST_CHUNKS = 4096, MOST_LAYERS = 65536 /* that are looked at */ };

/* Adds to the text, as far as it fits. */
static void add(char text[PGR_GROUPS_HOLDS_MAX], const char *format, ...) PGR_PRINTF(2, 3);

static void add(char text[PGR_GROUPS_HOLDS_MAX], const char *format, ...) {
    size_t used = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, PGR_GROUPS_HOLDS_MAX - used, format, arguments);
    va_end(arguments);
}

/* "5", or "8 to 15". */
static void add_range(char text[PGR_GROUPS_HOLDS_MAX], pgr_range range) {
    add(text, "%" PRId64, range.first);
    if (range.count > 1)
        add(text, " to %" PRId64, range.first + (range.count - 1));
}

/* "layers 2 to 3, 10 to 11": those of each virtual stage; where they do not divide, why. */
static void add_layers(pgr_state *state, const char *before, char text[PGR_GROUPS_HOLDS_MAX]) {
    char ranges[PGR_GROUPS_HOLDS_MAX] = "";
    const pgr_spec *spec = state->spec;
    if (spec->model.layers == PGR_NIL && spec->parallel.stage_layers.count == 0)
        return;
    int64_t chunks = pgr_state_virtual_stages(state), chunk = 0, shown = 0, total = 0;
    if (chunks == PGR_NIL || pgr_state_stages(state) == 1)
        chunks = 1;
    for (; chunk < chunks && chunk < MOST_CHUNKS && shown < SHOWN_CHUNKS; chunk++) {
        pgr_range range;
        if (chunks > 1)
            pgr_state_set_virtual_stage(state, chunk, NULL);
        if (pgr_state_layers(state, PGR_NIL, &range, NULL) != PGR_OK) {
            add(text, "%slayers not known: pgrun check tells why", before);
            return;
        }
        if (range.count == 0)
            continue;
        add(ranges, shown > 0 ? ", " : "");
        add_range(ranges, range);
        total += range.count;
        shown++;
    }
    if (total == 0)
        add(text, "%sno layers", before);
    else
        add(text, "%slayer%s %s%s", before, total == 1 ? "" : "s", ranges,
            chunk < chunks ? ", ..." : "");
}

static void add_stage(pgr_state *state, char text[PGR_GROUPS_HOLDS_MAX]) {
    int64_t stages = pgr_state_stages(state);
    size_t used = strlen(text);
    if (stages > 1)
        add(text, "stage %" PRId64 " of %" PRId64, pgr_state_stage(state), stages);
    add_layers(state, stages > 1 ? ": " : "", text);
    if (strlen(text) > used)
        add(text, "\n");
}

/* Whether some layer of the rank has experts, or its layers are not known. */
static bool has_experts(pgr_state *state) {
    int64_t chunks = pgr_state_virtual_stages(state), seen = 0;
    if (chunks == PGR_NIL || pgr_state_stages(state) == 1)
        chunks = 1;
    for (int64_t chunk = 0; chunk < chunks && chunk < MOST_CHUNKS; chunk++) {
        pgr_range range;
        if (chunks > 1)
            pgr_state_set_virtual_stage(state, chunk, NULL);
        if (pgr_state_layers(state, PGR_NIL, &range, NULL) != PGR_OK)
            return true;
        for (int64_t i = 0; i < range.count; i++, seen++)
            if (seen >= MOST_LAYERS || pgr_check_layer_is_moe(state->spec, range.first + i))
                return true;
    }
    return false;
}

static void add_experts(pgr_state *state, char text[PGR_GROUPS_HOLDS_MAX]) {
    pgr_range experts;
    if (state->spec->moe.experts == PGR_NIL)
        return;
    if (pgr_state_experts(state, &experts, NULL) != PGR_OK) {
        add(text, "experts not known: pgrun check tells why\n");
        return;
    }
    if (!has_experts(state)) {
        add(text, "no experts: its layers are dense\n");
        return;
    }
    add(text, "expert%s ", experts.count == 1 ? "" : "s");
    add_range(text, experts);
    add(text, " of %" PRId64 "\n", state->spec->moe.experts);
}

/* Where there is a vocabulary. The first stage and the one that begins the decoder look tokens up,
 * the last one has the logits made; tied, that is by a copy of the embedding. */
static void add_embeddings(const pgr_state *state, char text[PGR_GROUPS_HOLDS_MAX]) {
    bool looks_up =
        pgr_state_is_first_stage(state, true) || pgr_state_stage(state) == pgr_state_split(state);
    bool last = pgr_state_is_last_stage(state, true), tied = state->spec->model.tie_embeddings;
    if (state->spec->model.vocab == PGR_NIL || (!looks_up && !last))
        return;
    add(text, "holds %s\n",
        !last      ? "the embedding"
        : looks_up ? tied ? "the embedding, which is the output layer too"
                          : "the embedding and the output layer"
        : tied     ? "a copy of the embedding as the output layer"
                   : "the output layer");
}

void pgr_groups_rank_holds(const pgr_plan *plan, const pgr_spec *spec, int64_t rank,
                           char text[PGR_GROUPS_HOLDS_MAX]) {
    pgr_state state;
    text[0] = '\0';
    if (pgr_state_create(plan, spec, rank, &state, NULL) != PGR_OK)
        return;
    add_stage(&state, text);
    add_experts(&state, text);
    add_embeddings(&state, text);
}
