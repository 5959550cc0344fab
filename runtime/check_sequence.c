/* check_sequence.c - whether a sequence, padded by the config's rule, divides over the ranks, and
 * what the padding costs: PG040, PG041, PG054, PG055. */
#include "check_trial.h"

#include <inttypes.h>
#include <stdio.h>

static const double tolerable_waste = 0.10; /* of all tokens, padded ones included */

/* Sums with it stay within 63 bits. */
static const int64_t largest_multiple = INT64_MAX / 8;

static bool given(int64_t value) {
    return value != PGR_NIL;
}

/* The multiple that the layout needs: 2 * cp chunks for the zig-zag split, and tp pieces of each
 * rank's part with sequence parallelism. Text names the formula. 0 where it overflows. */
static int64_t needed_multiple(const pgr_spec *s, char *text, size_t bytes) {
    int64_t cp = s->parallel.cp, tp = s->parallel.tp, chunks = 1, pieces = 1, multiple;
    bool cut = s->parallel.sequence_parallel && tp > 1;
    if (cp > 1 && __builtin_mul_overflow(cp, 2, &chunks))
        return 0;
    if (cut && __builtin_mul_overflow(tp, cp, &pieces))
        return 0;
    if (__builtin_mul_overflow(chunks / pgr_greatest_divisor(chunks, pieces), pieces, &multiple) ||
        multiple > largest_multiple)
        return 0;
    if (cp > 1 && cut)
        snprintf(text, bytes, "lcm(2 * cp, tp * cp) = lcm(%" PRId64 ", %" PRId64 ") = %" PRId64,
                 chunks, pieces, multiple);
    else if (cp > 1)
        snprintf(text, bytes, "2 * cp = %" PRId64, multiple);
    else
        snprintf(text, bytes, "tp = %" PRId64, multiple);
    return multiple;
}

static int64_t padded_to(int64_t length, int64_t multiple) {
    return (length + multiple - 1) / multiple * multiple;
}

static bool wasteful(int64_t real, int64_t padded) {
    return (double)(padded - real) / (double)padded > tolerable_waste;
}

static void diagnose_waste(const char *what, int64_t real, int64_t padded, const char *paths,
                           const char *help, pgr_diagnostics *found) {
    pgr_diagnose(found, "PG054", paths, help,
                 "padding makes %" PRId64 " tokens of %s = %" PRId64 ": %.1f%% are waste", padded,
                 what, real, 100.0 * (double)(padded - real) / (double)padded);
}

/* ---- one sequence ---- */

/* A length and what the config's rule makes of it. */
typedef struct padded_length {
    int64_t length, padded, needed; /* tokens; what the layout needs a multiple of */
    bool to_decoder;                /* the decoder's length is what is padded to */
    const char *paths;
    char formula[128];
} padded_length;

static void set_multiple(pgr_spec *spec, int64_t multiple) {
    spec->padding.rule = PGR_PAD_MULTIPLE;
    spec->padding.multiple = multiple;
    spec->padding.is_function = false;
}

/* Offers a decoder's length that holds the sequence and divides over the ranks. */
static void offer_decoder(pgr_trial *t, int64_t least, int64_t needed) {
    int64_t right = least > INT64_MAX - needed ? 0 : padded_to(least, needed);
    t->spec.model.decoder_seq_len = right;
    if (right > 0 && pgr_trial_mends(t))
        pgr_trial_offer(t, ", or ", "decoder_seq_len = %" PRId64, right);
    pgr_trial_reset(t);
}

/* The rule cannot pad the sequence at all. */
static void diagnose_unpadded(const pgr_spec *s, const pgr_plan *plan, const padded_length *p,
                              const char *why, pgr_diagnostics *found) {
    pgr_trial t;
    if (pgr_trial_begin(&t, s, plan, found, "PG040", p->paths)) {
        if (p->to_decoder && p->needed > 0) {
            offer_decoder(&t, p->length, p->needed);
            t.spec.model.seq_len = s->model.decoder_seq_len;
            if (pgr_trial_mends(&t))
                pgr_trial_offer(&t, ", or ", "seq_len = %" PRId64, s->model.decoder_seq_len);
            pgr_trial_reset(&t);
            t.spec.parallel.tp_comm_overlap = false;
            if (pgr_trial_mends(&t))
                pgr_trial_offer(&t, ", or ", "tp_comm_overlap = false");
        } else {
            pgr_trial_offer(&t, "", "take smaller sizes");
        }
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG040", p->paths, t.help, "%s", why);
}

static void check_divides(const pgr_spec *s, const pgr_plan *plan, const padded_length *p,
                          pgr_diagnostics *found) {
    pgr_trial t;
    if (p->padded % p->needed == 0)
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG040", p->paths)) {
        int64_t right = padded_to(p->length, p->needed);
        if (p->to_decoder)
            offer_decoder(&t, p->padded, p->needed);
        set_multiple(&t.spec, p->needed);
        if (!p->to_decoder && pgr_trial_mends(&t))
            pgr_trial_offer(&t, "",
                            "pad by %" PRId64 " to %" PRId64 ": padding.sequence = %" PRId64,
                            right - p->length, right, p->needed);
        pgr_trial_reset(&t);
        t.spec.padding.rule = PGR_PAD_MEGATRON;
        t.spec.padding.is_function = false;
        if (!p->to_decoder && pgr_trial_mends(&t))
            pgr_trial_offer(&t, ", or ", "\"megatron\"");
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG040", p->paths, t.help,
                 "seq_len = %" PRId64 " padded by %" PRId64 " to %" PRId64
                 " is not a multiple of %s",
                 p->length, p->padded - p->length, p->padded, p->formula);
}

static void check_megatron(const pgr_spec *s, const padded_length *p, pgr_diagnostics *found) {
    int64_t megatron = 2 * s->parallel.cp * s->parallel.tp;
    char help[128] = "";
    if (s->parallel.cp == 1 || !s->parallel.sequence_parallel || p->padded % p->needed != 0 ||
        p->padded % megatron == 0)
        return;
    if (p->to_decoder)
        snprintf(help, sizeof help, "decoder_seq_len = %" PRId64 " is one",
                 padded_to(p->length, megatron));
    else
        snprintf(help, sizeof help, "padding.sequence = \"megatron\" pads to %" PRId64,
                 padded_to(p->length, megatron));
    pgr_diagnose(found, "PG041", p->paths, help,
                 "seq_len = %" PRId64 " padded to %" PRId64 " is a multiple of %s, but not of "
                 "get_padding's 2 * tp * cp = %" PRId64,
                 p->length, p->padded, p->formula, megatron);
}

static void check_length_waste(const pgr_spec *s, const pgr_plan *plan, const padded_length *p,
                               pgr_diagnostics *found) {
    pgr_trial t;
    if (p->padded % p->needed != 0 || !wasteful(p->length, p->padded))
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG054", p->paths)) {
        int64_t right = padded_to(p->length, p->needed);
        set_multiple(&t.spec, p->needed);
        if (p->to_decoder)
            t.spec.model.decoder_seq_len = right;
        if (right < p->padded && pgr_trial_mends(&t))
            pgr_trial_offer(&t, "", "%s = %" PRId64 " makes %" PRId64 " tokens, %.1f%% waste",
                            p->to_decoder ? "decoder_seq_len" : "padding.sequence",
                            p->to_decoder ? right : p->needed, right,
                            100.0 * (double)(right - p->length) / (double)right);
        else
            pgr_trial_offer(&t, "", "a seq_len of %" PRId64 " fills the same tokens", p->padded);
        pgr_trial_end(&t, found);
    }
    diagnose_waste("seq_len", p->length, p->padded, p->paths, t.help, found);
}

static void check_length(const pgr_spec *s, const pgr_plan *plan, pgr_diagnostics *found) {
    pgr_padding_args args = pgr_padding_args_of(s);
    padded_length p = {.length = args.seq_len};
    p.to_decoder = args.rule == PGR_PAD_MEGATRON && args.sequence_parallel && args.tp_comm_overlap;
    if ((p.to_decoder && !given(args.decoder_seq_len)) ||
        (args.rule == PGR_PAD_MULTIPLE && args.multiple < 1))
        return;
    p.paths = p.to_decoder ? "model.decoder_seq_len model.seq_len parallel.cp parallel.tp"
                           : "padding.sequence model.seq_len parallel.cp parallel.tp "
                             "parallel.sequence_parallel";
    int64_t added;
    pgr_error error = {0};
    p.needed = needed_multiple(s, p.formula, sizeof p.formula);
    if (pgr_padding(&args, &added, &error) != PGR_OK || p.needed == 0) {
        diagnose_unpadded(
            s, plan, &p,
            error.message[0] ? error.message : "the padding multiple overflows 63 bits", found);
        return;
    }
    p.padded = p.length + added;
    check_divides(s, plan, &p, found);
    check_megatron(s, &p, found);
    check_length_waste(s, plan, &p, found);
}

/* ---- packed sequences ---- */

/* Packed sequences are padded one by one to 2 * cp, and together to the whole multiple. */
typedef struct packing {
    int64_t real, padded; /* tokens of all; padded is 0 where it does not fit in 63 bits */
    int64_t chunks;       /* 2 * cp, or 1 */
    int64_t short_count, shortest;
} packing;

static packing pack(const pgr_spec *s) {
    const pgr_list *packed = &s->padding.packed;
    int64_t cp = s->parallel.cp, sum = 0;
    packing p = {.chunks = cp > 1 ? 2 * cp : 1, .shortest = INT64_MAX};
    char formula[128];
    for (int64_t i = 0; i < packed->count; i++) {
        int64_t length = packed->items[i];
        p.short_count += length < p.chunks;
        p.shortest = length < p.shortest ? length : p.shortest;
        if (__builtin_add_overflow(p.real, length, &p.real) ||
            __builtin_add_overflow(sum, padded_to(length, p.chunks), &sum))
            return p;
    }
    int64_t needed = needed_multiple(s, formula, sizeof formula);
    if (needed > 0 && sum <= INT64_MAX - needed)
        p.padded = padded_to(sum, needed);
    return p;
}

int64_t pgr_check_tokens(const pgr_spec *s) {
    pgr_padding_args args = pgr_padding_args_of(s);
    pgr_error ignored = {0};
    int64_t added;
    if (s->parallel.cp > INT32_MAX || s->parallel.tp > INT32_MAX)
        return 0;
    if (s->padding.packed.count > 0)
        return pack(s).padded;
    if (!given(s->model.seq_len) || pgr_padding(&args, &added, &ignored) != PGR_OK)
        return 0;
    return s->model.seq_len + added;
}

/* The largest cp below the present one, at most `most`, that mends; 0 where there is none. */
static int64_t largest_cp(pgr_trial *t, int64_t most) {
    int64_t now = t->spec.parallel.cp, largest = 0;
    for (int64_t cp = most < now ? most : now - 1; cp >= 1 && t->left > 0 && largest == 0; cp--) {
        t->spec.parallel.cp = cp;
        if (pgr_trial_mends(t))
            largest = cp;
    }
    pgr_trial_reset(t);
    return largest;
}

static void check_short(const pgr_spec *s, const pgr_plan *plan, const packing *p,
                        pgr_diagnostics *found) {
    static const char paths[] = "padding.packed parallel.cp";
    pgr_trial t;
    if (p->short_count == 0)
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG055", paths)) {
        pgr_trial_offer(&t, "", "pack only sequences of at least %" PRId64 " tokens", p->chunks);
        int64_t cp = largest_cp(&t, p->shortest / 2 > 1 ? p->shortest / 2 : 1);
        if (cp > 0)
            pgr_trial_offer(&t, ", or take ", "cp = %" PRId64, cp);
        pgr_trial_end(&t, found);
    }
    pgr_diagnose(found, "PG055", paths, t.help,
                 "%" PRId64 " of %" PRId64 " packed sequences are shorter than 2 * cp = %" PRId64
                 " (the shortest has %" PRId64 " tokens)",
                 p->short_count, s->padding.packed.count, p->chunks, p->shortest);
}

static void check_packed_waste(const pgr_spec *s, const pgr_plan *plan, const packing *p,
                               pgr_diagnostics *found) {
    static const char paths[] = "padding.packed parallel.cp parallel.tp parallel.sequence_parallel";
    pgr_trial t;
    if (p->padded == 0 || !wasteful(p->real, p->padded))
        return;
    if (pgr_trial_begin(&t, s, plan, found, "PG054", paths)) {
        int64_t cp = largest_cp(&t, INT64_MAX);
        if (cp > 0) {
            t.spec.parallel.cp = cp;
            packing less = pack(&t.spec);
            pgr_trial_offer(&t, "", "cp = %" PRId64 " makes %" PRId64 " tokens, %.1f%% waste", cp,
                            less.padded,
                            100.0 * (double)(less.padded - less.real) / (double)less.padded);
        } else {
            pgr_trial_offer(&t, "",
                            "%s%s of multiples of %" PRId64 " tokens, to %" PRId64
                            " together, waste none",
                            s->parallel.cp > 1 ? "no smaller cp that fits the rest wastes so "
                                                 "little as 10%; "
                                               : "",
                            "sequences", p->chunks, p->padded);
        }
        pgr_trial_end(&t, found);
    }
    diagnose_waste("the packed sequences", p->real, p->padded, paths, t.help, found);
}

void pgr_check_sequence(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found) {
    if (spec->parallel.cp > INT32_MAX || spec->parallel.tp > INT32_MAX)
        return; /* planning has said so */
    if (spec->padding.packed.count > 0) {
        packing p = pack(spec);
        check_short(spec, plan, &p, found);
        check_packed_waste(spec, plan, &p, found);
    } else if (given(spec->model.seq_len)) {
        check_length(spec, plan, found);
    }
}
