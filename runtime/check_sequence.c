/* check_sequence.c - whether a sequence, padded by the config's rule, divides over the ranks, and
 * what the padding costs: PG040, PG041, PG054, PG055. */
#include "check.h"

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

static void check_waste(const char *what, int64_t real, int64_t padded, const char *paths,
                        const char *help, pgr_diagnostics *found) {
    double waste = (double)(padded - real) / (double)padded;
    if (waste <= tolerable_waste)
        return;
    pgr_diagnose(found, "PG054", paths, help,
                 "padding makes %" PRId64 " tokens of %s = %" PRId64 ": %.1f%% are waste", padded,
                 what, real, 100 * waste);
}

static void check_length(const pgr_spec *s, pgr_diagnostics *found) {
    pgr_padding_args args = pgr_padding_args_of(s);
    bool to_decoder =
        args.rule == PGR_PAD_MEGATRON && args.sequence_parallel && args.tp_comm_overlap;
    if ((to_decoder && !given(args.decoder_seq_len)) ||
        (args.rule == PGR_PAD_MULTIPLE && args.multiple < 1))
        return;
    const char *paths = to_decoder ? "model.decoder_seq_len model.seq_len parallel.cp parallel.tp"
                                   : "padding.sequence model.seq_len parallel.cp parallel.tp "
                                     "parallel.sequence_parallel";
    int64_t length = args.seq_len, added;
    pgr_error error = {0};
    char formula[128] = "", help[384];
    int64_t needed = needed_multiple(s, formula, sizeof formula);
    if (pgr_padding(&args, &added, &error) != PGR_OK || needed == 0) {
        pgr_diagnose(found, "PG040", paths, NULL, "%s",
                     error.message[0] ? error.message : "the padding multiple overflows 63 bits");
        return;
    }
    int64_t padded = length + added, right = padded_to(length, needed);
    if (to_decoder)
        right = padded_to(padded, needed);
    if (padded % needed != 0) {
        if (to_decoder)
            snprintf(help, sizeof help, "decoder_seq_len can be %" PRId64, right);
        else
            snprintf(help, sizeof help,
                     "pad by %" PRId64 " to %" PRId64 ": padding.sequence = %" PRId64
                     ", or \"megatron\"",
                     right - length, right, needed);
        pgr_diagnose(found, "PG040", paths, help,
                     "seq_len = %" PRId64 " padded by %" PRId64 " to %" PRId64
                     " is not a multiple of %s",
                     length, added, padded, formula);
        return;
    }
    int64_t megatron = 2 * s->parallel.cp * s->parallel.tp;
    if (s->parallel.cp > 1 && s->parallel.sequence_parallel && padded % megatron != 0) {
        snprintf(help, sizeof help, "padding.sequence = \"megatron\" pads to %" PRId64,
                 padded_to(length, megatron));
        pgr_diagnose(found, "PG041", paths, help,
                     "seq_len = %" PRId64 " padded to %" PRId64 " is a multiple of %s, but not of "
                     "get_padding's 2 * tp * cp = %" PRId64,
                     length, padded, formula, megatron);
    }
    if (right < padded)
        snprintf(help, sizeof help,
                 "padding to a multiple of %" PRId64 " makes %" PRId64 " tokens, %.1f%% waste",
                 needed, right, 100.0 * (double)(right - length) / (double)right);
    else
        snprintf(help, sizeof help, "a seq_len of %" PRId64 " fills the same tokens", padded);
    check_waste("seq_len", length, padded, paths, help, found);
}

/* Packed sequences are padded one by one to 2 * cp, and together to the whole multiple. */
static void check_packed(const pgr_spec *s, pgr_diagnostics *found) {
    const pgr_list *packed = &s->padding.packed;
    int64_t cp = s->parallel.cp, chunks = cp > 1 ? 2 * cp : 1, real = 0, padded = 0;
    int64_t short_count = 0, shortest = INT64_MAX;
    char formula[128], help[384];
    for (int64_t i = 0; i < packed->count; i++) {
        int64_t length = packed->items[i];
        short_count += length < chunks;
        shortest = length < shortest ? length : shortest;
        if (__builtin_add_overflow(real, length, &real) ||
            __builtin_add_overflow(padded, padded_to(length, chunks), &padded))
            return;
    }
    if (short_count > 0) {
        snprintf(help, sizeof help, "pack only sequences of at least %" PRId64 " tokens", chunks);
        if (shortest / 2 >= 1)
            snprintf(help, sizeof help,
                     "pack only sequences of at least %" PRId64 " tokens, or take cp = %" PRId64
                     " at most",
                     chunks, shortest / 2);
        pgr_diagnose(found, "PG055", "padding.packed parallel.cp", help,
                     "%" PRId64 " of %" PRId64
                     " packed sequences are shorter than 2 * cp = %" PRId64
                     " (the shortest has %" PRId64 " tokens)",
                     short_count, packed->count, chunks, shortest);
    }
    int64_t needed = needed_multiple(s, formula, sizeof formula);
    if (needed == 0 || packed->count == 0 || padded > INT64_MAX - needed)
        return;
    padded = padded_to(padded, needed);
    snprintf(help, sizeof help, "pack longer sequences, or take a cp below %" PRId64, cp);
    check_waste("the packed sequences", real, padded,
                "padding.packed parallel.cp parallel.tp parallel.sequence_parallel",
                cp > 1 ? help : "pack longer sequences", found);
}

void pgr_check_sequence(const pgr_spec *spec, const pgr_plan *plan, pgr_diagnostics *found) {
    (void)plan; /* nothing here depends on the world */
    if (spec->parallel.cp > INT32_MAX || spec->parallel.tp > INT32_MAX)
        return; /* planning has said so */
    if (given(spec->model.seq_len) && spec->padding.packed.count == 0)
        check_length(spec, found);
    if (spec->padding.packed.count > 0)
        check_packed(spec, found);
}
