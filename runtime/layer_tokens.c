/* layer_tokens.c - the map of tokens to ranks. */
#include "layer.h"

#include <stdlib.h>

/* Positions must divide into 2*cp chunks, and each cp share into tp parts where it is scattered:
 * lcm(2*cp, tp*cp). */
static int64_t needed_multiple(int64_t cp, int64_t shares) {
    int64_t chunks = cp > 1 ? 2 * cp : 1;
    int64_t parts = cp * shares;
    return chunks / pgr_greatest_divisor(chunks, parts) * parts;
}

/* Sets seq_len and padded of packed sequences; padded divides as it must. */
static pgr_status measure_packed(const pgr_spec *spec, int64_t tp, pgr_tokens *map,
                                 pgr_error *error) {
    const pgr_list *packed = &spec->padding.packed;
    pgr_packed_args args = {packed->items, packed->count, map->cp, tp,
                            spec->parallel.sequence_parallel};
    int64_t longest, *sums = malloc((size_t)(packed->count + 1) * 2 * sizeof *sums);
    if (!sums)
        return pgr_error_set(error, PGR_LIMIT, "no memory for %lld packed sequences",
                             (long long)packed->count);
    int64_t *padded = sums + packed->count + 1;
    pgr_status status = pgr_padding_packed(&args, sums, padded, &longest, error);
    if (!status) {
        map->seq_len = sums[packed->count];
        map->padded = padded[packed->count];
        map->sequences = packed->count;
        map->lengths = packed->items;
    }
    free(sums);
    return status;
}

/* The same of one sequence, by the config's rule. */
static pgr_status measure_one(const pgr_spec *spec, int64_t tp, pgr_tokens *map, pgr_error *error) {
    pgr_padding_args args = pgr_padding_args_of(spec);
    int64_t padding = 0;
    pgr_status status = pgr_padding(&args, &padding, error);
    if (status)
        return status;
    bool shared = spec->parallel.sequence_parallel;
    map->seq_len = spec->model.seq_len;
    map->padded = spec->model.seq_len + padding;
    int64_t multiple = needed_multiple(map->cp, shared ? tp : 1);
    if (map->padded % multiple)
        return pgr_error_set(
            error, PGR_INVALID,
            "seq_len = %lld, padded to %lld by the config's rule, is not a multiple of %lld = "
            "lcm(2*cp, tp*cp) with tp = %lld, cp = %lld%s; padding.sequence = \"megatron\" or "
            "padding.sequence = %lld would pad it to %lld",
            (long long)map->seq_len, (long long)map->padded, (long long)multiple, (long long)tp,
            (long long)map->cp, shared ? " and sequence_parallel" : "", (long long)multiple,
            (long long)((map->seq_len + multiple - 1) / multiple * multiple));
    return PGR_OK;
}

pgr_status pgr_tokens_create(const pgr_spec *spec, const pgr_plan *plan, int64_t rank,
                             bool scattered, pgr_tokens *tokens, pgr_error *error) {
    int64_t tp = pgr_plan_axis_size(plan, "tp");
    bool shared = spec->parallel.sequence_parallel && scattered;
    pgr_tokens map = {
        .batch = spec->model.micro_batch,
        .cp = pgr_plan_axis_size(plan, "cp"),
        .cp_rank = pgr_plan_coordinate(plan, "cp", rank),
        .shares = shared ? tp : 1,
        .share = shared ? pgr_plan_coordinate(plan, "tp", rank) : 0,
        .dp = pgr_plan_axis_size(plan, "dp"),
        .dp_rank = pgr_plan_coordinate(plan, "dp", rank),
    };
    pgr_status status = spec->padding.packed.count > 0 ? measure_packed(spec, tp, &map, error)
                                                       : measure_one(spec, tp, &map, error);
    if (status)
        return status;
    map.positions = map.padded / map.cp / map.shares;
    if (__builtin_mul_overflow(map.positions, map.batch, &map.rows))
        return pgr_error_set(
            error, PGR_LIMIT,
            "%lld positions per rank * micro_batch = %lld do not fit in 63 bits; take "
            "smaller sizes",
            (long long)map.positions, (long long)map.batch);
    *tokens = map;
    return PGR_OK;
}

/* A sequence of the sample: where it begins without and with padding, and its lengths. */
typedef struct span {
    int64_t real, start, length, padded;
} span;

/* The sequence that holds `at`, a position of this rank's share of cp; walked to from the first,
 * since the map keeps no sums. */
static span find_span(const pgr_tokens *tokens, int64_t at) {
    int64_t chunks = tokens->cp > 1 ? 2 * tokens->cp : 1;
    span s = {0, 0, tokens->seq_len, tokens->padded};
    for (int64_t i = 0; i < tokens->sequences; i++) {
        s.length = tokens->lengths[i];
        s.padded = (s.length + chunks - 1) / chunks * chunks;
        if (i == tokens->sequences - 1) /* it has the padding of the whole */
            s.padded = tokens->padded - s.start;
        if (at < (s.start + s.padded) / tokens->cp)
            break;
        s.real += s.length;
        s.start += s.padded;
    }
    return s;
}

int64_t pgr_tokens_run(const pgr_tokens *tokens, int64_t local_position, int64_t *token) {
    int64_t at = tokens->share * tokens->positions + local_position;
    span s = find_span(tokens, at);
    int64_t chunks = tokens->cp > 1 ? 2 * tokens->cp : 1;
    int64_t chunk_rows = s.padded / chunks, offset = at - s.start / tokens->cp;
    bool second = offset >= chunk_rows;
    int64_t chunk = second ? chunks - 1 - tokens->cp_rank : tokens->cp_rank;
    int64_t within = offset - (second ? chunk_rows : 0);
    int64_t position = chunk * chunk_rows + within;
    int64_t run = chunk_rows - within, left = tokens->positions - local_position;
    *token = position < s.length ? s.real + position : -1;
    if (position < s.length && s.length - position < run)
        run = s.length - position;
    return run < left ? run : left;
}

/* Samples before those of this rank's micro batch. */
static int64_t first_sample(const pgr_tokens *tokens, int64_t micro_batch) {
    return (micro_batch * tokens->dp + tokens->dp_rank) * tokens->batch;
}

int64_t pgr_tokens_id(const pgr_tokens *tokens, int64_t micro_batch, int64_t row) {
    int64_t token;
    (void)pgr_tokens_run(tokens, row / tokens->batch, &token);
    if (token < 0)
        return -1;
    return (first_sample(tokens, micro_batch) + row % tokens->batch) * tokens->seq_len + token;
}

void pgr_tokens_ids(const pgr_tokens *tokens, int64_t micro_batch, int64_t *ids) {
    int64_t first = first_sample(tokens, micro_batch), run;
    for (int64_t local = 0; local < tokens->positions; local += run) {
        int64_t token;
        run = pgr_tokens_run(tokens, local, &token);
        for (int64_t row = local * tokens->batch; row < (local + run) * tokens->batch; row++)
            ids[row] = token < 0 ? -1
                                 : (first + row % tokens->batch) * tokens->seq_len + token +
                                       (row / tokens->batch - local);
    }
}
