/* check_layers.c - whether the layers divide over the pipeline's stages: PG020, PG029. */
#include "check_trial.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SHOWN_STAGES = 24, /* a longer list is no way out to read */
    REACH = 24         /* layers that an end may be off what was asked for */
};

static bool given(int64_t value) {
    return value != PGR_NIL;
}

static int64_t or_zero(int64_t value) {
    return given(value) ? value : 0;
}

static int64_t stages_on_rank(const pgr_spec *s) {
    return given(s->parallel.vpp) ? s->parallel.vpp : 1;
}

/* ---- even stages ---- */

/* Offers shorter or longer ends that leave whole stages between them. */
static void offer_ends(pgr_trial *t, const pgr_spec *s) {
    int64_t layers = s->model.layers, pp = s->parallel.pp;
    int64_t middle = (layers + pp - 1) / pp;
    int64_t rest = pp > 2 ? layers - middle * (pp - 2) : layers;
    while (rest < 2 && middle > 1 && pp > 2) {
        middle--;
        rest = layers - middle * (pp - 2);
    }
    if (pp < 2 || rest < 2)
        return;
    t->spec.parallel.first_stage_layers = rest / 2;
    t->spec.parallel.last_stage_layers = rest - rest / 2;
    if (pgr_trial_mends(t))
        pgr_trial_offer(t, ", or ",
                        "first_stage_layers = %" PRId64 " and last_stage_layers = %" PRId64,
                        rest / 2, rest - rest / 2);
    pgr_trial_reset(t);
}

static void check_even_stages(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    int64_t layers = s->model.layers, pp = s->parallel.pp, vpp = stages_on_rank(s), stages;
    if (__builtin_mul_overflow(pp, vpp, &stages) || layers % stages == 0)
        return;
    const char *paths =
        vpp == 1 ? "model.layers parallel.pp" : "model.layers parallel.pp parallel.vpp";
    pgr_trial t;
    if (pgr_trial_begin(&t, s, plan, found, "PG020", paths)) {
        pgr_trial_offer_multiples(&t, "", "", "layers", &t.spec.model.layers, stages);
        pgr_trial_offer_divisors(&t, ", or ", "", "pp", &t.spec.parallel.pp, layers);
        if (vpp > 1)
            pgr_trial_offer_divisors(&t, ", or ", "", "vpp", &t.spec.parallel.vpp, layers);
        else
            offer_ends(&t, s);
        pgr_trial_end(&t, found);
    }
    if (vpp == 1)
        pgr_diagnose(found, "PG020", paths, t.help,
                     "layers = %" PRId64 " is not divisible by pp = %" PRId64 "; %" PRId64
                     " layers would be left over",
                     layers, pp, layers % pp);
    else
        pgr_diagnose(found, "PG020", paths, t.help,
                     "layers = %" PRId64 " is not divisible by pp * vpp = %" PRId64 " * %" PRId64
                     " = %" PRId64 "; %" PRId64 " layers would be left over",
                     layers, pp, vpp, stages, layers % stages);
}

/* ---- a list of stages ---- */

/* Offers stage_layers of `count` entries that add up to the layers: the list there is with layers
 * moved one by one where it has as many entries, else even ones. */
static void offer_stages(pgr_trial *t, const pgr_spec *s, int64_t count) {
    const pgr_list *list = &s->parallel.stage_layers;
    int64_t items[SHOWN_STAGES], layers = s->model.layers, sum = 0;
    char text[256];
    if (!given(layers) || count > SHOWN_STAGES)
        return;
    for (int64_t i = 0; i < count; i++) {
        items[i] = list->count == count ? list->items[i] : layers / count + (i < layers % count);
        sum += items[i]; /* the caller's sum did not overflow */
    }
    if (llabs(sum - layers) > 4096)
        return;
    for (; sum != layers; sum += sum < layers ? 1 : -1) {
        int64_t at = 0; /* the shortest stage grows, the longest shrinks */
        for (int64_t i = 1; i < count; i++)
            if (sum < layers ? items[i] < items[at] : items[i] > items[at])
                at = i;
        items[at] += sum < layers ? 1 : -1;
    }
    size_t used = 0;
    for (int64_t i = 0; i < count && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%" PRId64, i ? ", " : "",
                                 items[i]);
    t->spec.parallel.stage_layers = (pgr_list){count, items};
    if (used < sizeof text && pgr_trial_mends(t))
        pgr_trial_offer(t, ", or ", "stage_layers = { %s }", text);
    pgr_trial_reset(t);
}

static void check_stage_list(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    const pgr_list *list = &s->parallel.stage_layers;
    int64_t pp = s->parallel.pp, vpp = stages_on_rank(s), sum = 0;
    pgr_trial t;
    for (int64_t i = 0; i < list->count; i++)
        if (__builtin_add_overflow(sum, list->items[i], &sum))
            return;
    if (list->count != pp && (list->count % vpp != 0 || list->count / vpp != pp)) {
        static const char paths[] = "parallel.stage_layers parallel.pp";
        if (pgr_trial_begin(&t, s, plan, found, "PG029", paths)) {
            offer_stages(&t, s, pp);
            t.spec.parallel.pp = list->count;
            if (pgr_trial_mends(&t))
                pgr_trial_offer(&t, ", or ", "pp = %" PRId64, list->count);
            pgr_trial_reset(&t);
            if (t.help[0] == '\0')
                pgr_trial_offer(&t, "", "give %" PRId64 " entries, one for each stage", pp);
            pgr_trial_end(&t, found);
        }
        pgr_diagnose(found, "PG029", paths, t.help,
                     "stage_layers has %" PRId64 " entries and pp = %" PRId64, list->count, pp);
    }
    if (!given(s->model.layers) || sum == s->model.layers)
        return;
    static const char paths[] = "parallel.stage_layers model.layers";
    int64_t off = s->model.layers - sum;
    if (pgr_trial_begin(&t, s, plan, found, "PG029", paths)) {
        offer_stages(&t, s, list->count);
        t.spec.model.layers = sum;
        if (sum > 0 && pgr_trial_mends(&t))
            pgr_trial_offer(&t, ", or ", "layers = %" PRId64, sum);
        if (t.help[0] == '\0')
            pgr_trial_offer(&t, "", "%s %" PRId64 " layer%s %s the stages",
                            off > 0 ? "add" : "take", off > 0 ? off : -off,
                            off == 1 || off == -1 ? "" : "s", off > 0 ? "to" : "from");
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG029", paths, t.help,
                 "stage_layers add up to %" PRId64 ", and layers = %" PRId64, sum, s->model.layers);
}

/* ---- uneven ends ---- */

/* Whether these ends leave whole stages: first_stage_layers and last_stage_layers as
 * num_layers_in_first_pipeline_stage and num_layers_in_last_pipeline_stage of Megatron-Core's
 * TransformerConfig. PGR_NIL: not given. */
static bool ends_fit(const pgr_spec *s, int64_t first, int64_t last) {
    int64_t vpp = stages_on_rank(s), stages = s->parallel.pp - given(first) - given(last);
    if (or_zero(first) % vpp != 0 || or_zero(last) % vpp != 0)
        return false;
    if (!given(s->model.layers))
        return true;
    int64_t rest = s->model.layers - or_zero(first) - or_zero(last);
    return stages > 0 ? rest > 0 && rest % stages == 0 && rest / stages % vpp == 0
                      : rest == 0 && stages == 0;
}

static bool offer_nearest_ends(pgr_trial *t, const pgr_spec *s) {
    int64_t first = s->parallel.first_stage_layers, last = s->parallel.last_stage_layers;
    for (int64_t off = 1; off <= 2 * REACH; off++) {
        for (int64_t i = -off; i <= off; i++) { /* |i| + |j| = off, both signs of j */
            int64_t rest = off - (i < 0 ? -i : i);
            for (int sign = -1; sign <= (rest > 0); sign += 2) {
                int64_t new_first = given(first) ? first + i : first;
                int64_t new_last = given(last) ? last + sign * rest : last;
                if ((!given(first) && i != 0) || (!given(last) && rest != 0) ||
                    (given(first) && new_first < 1) || (given(last) && new_last < 1) ||
                    !ends_fit(s, new_first, new_last))
                    continue;
                t->spec.parallel.first_stage_layers = new_first;
                t->spec.parallel.last_stage_layers = new_last;
                bool mends = pgr_trial_mends(t);
                pgr_trial_reset(t);
                if (!mends)
                    continue;
                if (given(first) && given(last))
                    pgr_trial_offer(
                        t, "", "first_stage_layers = %" PRId64 " and last_stage_layers = %" PRId64,
                        new_first, new_last);
                else
                    pgr_trial_offer(t, "", "%s_stage_layers = %" PRId64,
                                    given(first) ? "first" : "last",
                                    given(first) ? new_first : new_last);
                return true;
            }
        }
    }
    return false;
}

/* Offers ends of whole virtual stages together with a number of layers that fits them. */
static void offer_ends_and_layers(pgr_trial *t, const pgr_spec *s) {
    int64_t first = s->parallel.first_stage_layers, last = s->parallel.last_stage_layers;
    int64_t vpp = stages_on_rank(s), stages = s->parallel.pp - given(first) - given(last), step;
    if (!given(s->model.layers) || stages < 0 || __builtin_mul_overflow(vpp, stages, &step))
        return;
    if (given(first))
        first = (first + vpp - 1) / vpp * vpp;
    if (given(last))
        last = (last + vpp - 1) / vpp * vpp;
    int64_t ends = or_zero(first) + or_zero(last), rest = s->model.layers - ends;
    int64_t between = step == 0 ? 0 : rest > step ? rest / step * step : step;
    t->spec.parallel.first_stage_layers = first;
    t->spec.parallel.last_stage_layers = last;
    t->spec.model.layers = ends + between;
    if (pgr_trial_mends(t)) {
        char text[128] = "";
        size_t used = 0;
        if (given(first))
            used =
                (size_t)snprintf(text, sizeof text, "first_stage_layers = %" PRId64 " and ", first);
        if (given(last))
            snprintf(text + used, sizeof text - used, "last_stage_layers = %" PRId64 " and ", last);
        pgr_trial_offer(t, "", "%slayers = %" PRId64, text, ends + between);
    }
    pgr_trial_reset(t);
    if (t->help[0] == '\0')
        pgr_trial_offer(t, "",
                        "give stage_layers: the layers of each stage, which add up to layers");
}

/* Offers other ends, another number of layers, or none of the ends. */
static void offer_uneven(pgr_trial *t, const pgr_spec *s) {
    int64_t first = s->parallel.first_stage_layers, last = s->parallel.last_stage_layers;
    int64_t stages = s->parallel.pp - given(first) - given(last), step = stages_on_rank(s);
    offer_nearest_ends(t, s);
    if (given(s->model.layers) && stages > 0 && !__builtin_mul_overflow(step, stages, &step)) {
        /* the layers between the ends are a multiple of the step */
        int64_t ends = or_zero(first) + or_zero(last), values[2], rest = s->model.layers - ends;
        char list[64];
        int count = 0;
        for (int side = 0; side < 2; side++) {
            int64_t between = rest > 0 ? (rest / step + side) * step : side * step;
            t->spec.model.layers = ends + between;
            if (between > 0 && t->spec.model.layers != s->model.layers && pgr_trial_mends(t))
                values[count++] = ends + between;
        }
        pgr_trial_reset(t);
        pgr_trial_list(values, count, list, sizeof list);
        if (count > 0)
            pgr_trial_offer(t, ", or ", "layers can be %s", list);
    }
    t->spec.parallel.first_stage_layers = t->spec.parallel.last_stage_layers = PGR_NIL;
    if (pgr_trial_mends(t))
        pgr_trial_offer(t, ", or ", "leave %s%s%s out", given(first) ? "first_stage_layers" : "",
                        given(first) && given(last) ? " and " : "",
                        given(last) ? "last_stage_layers" : "");
    pgr_trial_reset(t);
    if (t->help[0] == '\0')
        offer_ends_and_layers(t, s);
}

static void check_uneven_stages(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    int64_t first = s->parallel.first_stage_layers, last = s->parallel.last_stage_layers;
    int64_t vpp = stages_on_rank(s), layers = s->model.layers;
    int64_t ends = or_zero(first) + or_zero(last);
    int64_t stages = s->parallel.pp - given(first) - given(last);
    if (ends_fit(s, first, last))
        return;
    char paths[160];
    snprintf(paths, sizeof paths, "%s%smodel.layers parallel.pp%s",
             given(first) ? "parallel.first_stage_layers " : "",
             given(last) ? "parallel.last_stage_layers " : "", vpp > 1 ? " parallel.vpp" : "");
    pgr_trial t;
    if (pgr_trial_begin(&t, s, plan, found, "PG029", paths)) {
        offer_uneven(&t, s);
        pgr_trial_end(&t, found);
    }
    if (or_zero(first) % vpp != 0 || or_zero(last) % vpp != 0)
        pgr_diagnose(found, "PG029", paths, t.help,
                     "the layers of the first or last stage (%" PRId64
                     " together) are not divisible by vpp = %" PRId64,
                     ends, vpp);
    else
        pgr_diagnose(found, "PG029", paths, t.help,
                     "layers = %" PRId64 " less %" PRId64 " at the ends leaves %" PRId64
                     " for %" PRId64 " other stages%s",
                     layers, ends, layers - ends, stages < 0 ? 0 : stages,
                     stages > 0 && layers > ends ? ", which do not divide them" : "");
}

/* stage_layers says all; what else says a part of it would be ignored. */
static void check_said_twice(const pgr_spec *s, pgr_diagnostics *found) {
    bool first = given(s->parallel.first_stage_layers), last = given(s->parallel.last_stage_layers);
    char paths[128], names[64];
    if (s->parallel.stage_layers.count == 0 || (!first && !last))
        return;
    snprintf(paths, sizeof paths, "%s%s parallel.stage_layers",
             first ? "parallel.first_stage_layers" : "", last ? " parallel.last_stage_layers" : "");
    snprintf(names, sizeof names, "%s%s%s", first ? "first_stage_layers" : "",
             first && last ? " and " : "", last ? "last_stage_layers" : "");
    char help[96];
    snprintf(help, sizeof help, "leave %s out", names);
    pgr_diagnose(found, "PG029", paths, help, "%s %s given beside stage_layers, which says it all",
                 names, first && last ? "are" : "is");
}

/* With vpp, a stage whose layers are given as one number is cut into as many chunks. */
static void check_chunks(const pgr_spec *s, pgr_diagnostics *found) {
    const pgr_list *list = &s->parallel.stage_layers;
    int64_t pp = s->parallel.pp, vpp = stages_on_rank(s);
    if (list->count != pp || vpp == 1)
        return;
    for (int64_t i = 0; i < pp; i++) {
        if (list->items[i] % vpp == 0)
            continue;
        char path[64], help[96];
        snprintf(path, sizeof path, "parallel.stage_layers[%" PRId64 "] parallel.vpp", i + 1);
        snprintf(help, sizeof help, "give pp * vpp = %" PRId64 " entries, one for each chunk",
                 pp * vpp);
        pgr_diagnose(found, "PG029", path, help,
                     "stage_layers[%" PRId64 "] = %" PRId64 " is not divisible by vpp = %" PRId64,
                     i + 1, list->items[i], vpp);
        return;
    }
}

void pgr_check_layers(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found) {
    check_said_twice(spec, found);
    if (spec->parallel.stage_layers.count > 0) {
        check_stage_list(spec, plan, found);
        check_chunks(spec, found);
    } else if (given(spec->parallel.first_stage_layers) || given(spec->parallel.last_stage_layers))
        check_uneven_stages(spec, plan, found);
    else if (given(spec->model.layers))
        check_even_stages(spec, plan, found);
}
