/* cpu_router_tile.c - the router's fast form: softmax without groups. Sixteen tokens are transposed
 * into a tile [experts][16], so that every step is a loop over 16 tokens that vectorises without
 * sums across a vector. The k-th highest logit of each token is a threshold; the experts at or
 * above it are bits of a mask, read off in ascending order. What the threshold cannot decide (ties)
 * or holds no finite number goes the plain way. */
#include <math.h>
#include <string.h>

#include "bf16.h"
#include "cpu_router.h"
#include "vec.h"

enum {
    LANES = 16,
    TOPK_MAX = 8,
    EXPERTS_MAX = 1024,
    WORDS_MAX = EXPERTS_MAX / 32,
    FLUSH_TILES = 64 /* f32 partial sums of 64 probabilities per lane before doubles take them */
};

#define ALIGNED __attribute__((aligned(64)))

/* What one tile leaves for the tokens' own steps. */
typedef struct tile_result {
    float max[LANES] ALIGNED, threshold[LANES] ALIGNED, sum[LANES] ALIGNED;
    uint32_t mask[WORDS_MAX][LANES] ALIGNED; /* bit e % 32 of word e / 32: logit >= threshold */
} tile_result;

bool pgr_cpu_router_tiled(const pgr_router_args *args) {
    bool grouped = args->groups > 0 && args->group_topk > 0;
    return args->score == PGR_SOFTMAX && !grouped && !args->expert_bias && args->topk <= TOPK_MAX &&
           args->experts <= EXPERTS_MAX && LANES % args->sequences == 0;
}

/* Scratch: the tile, the partial sums, sixteen widened rows, and one row of zeros. */
int64_t pgr_cpu_router_tile_floats(const pgr_router_args *args) {
    return (3 * LANES + 1) * args->experts;
}

typedef float vec4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t vec4i __attribute__((vector_size(16)));

/* Four rows' columns e .. e + 3 into lanes lane .. lane + 3. */
PGR_INLINE void transpose4(const float *const *rows, int64_t e, float *tile, int64_t lane) {
    vec4 a = *(const vec4 *)(rows[lane] + e), b = *(const vec4 *)(rows[lane + 1] + e);
    vec4 c = *(const vec4 *)(rows[lane + 2] + e), d = *(const vec4 *)(rows[lane + 3] + e);
    vec4 ab0 = __builtin_shuffle(a, b, (vec4i){0, 4, 1, 5});
    vec4 ab1 = __builtin_shuffle(a, b, (vec4i){2, 6, 3, 7});
    vec4 cd0 = __builtin_shuffle(c, d, (vec4i){0, 4, 1, 5});
    vec4 cd1 = __builtin_shuffle(c, d, (vec4i){2, 6, 3, 7});
    float *out = tile + e * LANES + lane;
    *(vec4 *)out = __builtin_shuffle(ab0, cd0, (vec4i){0, 1, 4, 5});
    *(vec4 *)(out + LANES) = __builtin_shuffle(ab0, cd0, (vec4i){2, 3, 6, 7});
    *(vec4 *)(out + 2 * LANES) = __builtin_shuffle(ab1, cd1, (vec4i){0, 1, 4, 5});
    *(vec4 *)(out + 3 * LANES) = __builtin_shuffle(ab1, cd1, (vec4i){2, 3, 6, 7});
}

static void transpose_plain(const float *const *rows, int64_t experts, float *tile) {
    int64_t whole = experts & ~(int64_t)3;
    for (int64_t e = 0; e < whole; e += 4)
        for (int64_t lane = 0; lane < LANES; lane += 4)
            transpose4(rows, e, tile, lane);
    for (int64_t e = whole; e < experts; e++)
        for (int64_t lane = 0; lane < LANES; lane++)
            tile[e * LANES + lane] = rows[lane][e];
}

/* Keeps the `topk` highest logits of each lane sorted, by insertion; values alone, no indices. */
PGR_CLONES
static void insert_all(const float *restrict tile, int64_t experts, const int topk,
                       tile_result *out) {
    float top[TOPK_MAX][LANES] ALIGNED;
    for (int j = 0; j < topk; j++)
        for (int l = 0; l < LANES; l++)
            top[j][l] = -INFINITY;
    for (int64_t e = 0; e < experts; e++) {
        for (int l = 0; l < LANES; l++) {
            float x = tile[e * LANES + l];
            for (int j = 0; j < topk; j++) {
                float held = top[j][l];
                top[j][l] = x > held ? x : held;
                x = x > held ? held : x;
            }
        }
    }
    memcpy(out->max, top[0], sizeof out->max);
    memcpy(out->threshold, top[topk - 1], sizeof out->threshold);
}

static void top_plain(const float *tile, int64_t experts, int64_t topk, tile_result *out) {
    insert_all(tile, experts, (int)topk, out);
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

/* The same with registers, which gcc does not find by itself: groups of eight experts are sorted by
 * a network of 19 comparisons (each for all lanes at once) and merged with the eight best so far by
 * a bitonic merge. MAX and MIN on V, vectors of WIDTH lanes. */
#define ORDER(v, i, j, V, MAX, MIN)                                                                \
    do {                                                                                           \
        V high = MAX(v[i], v[j]), low = MIN(v[i], v[j]);                                           \
        v[i] = high;                                                                               \
        v[j] = low;                                                                                \
    } while (0)

#define DEFINE_TOP(NAME, TARGET, V, WIDTH, LOAD, STORE, SET, MAX, MIN)                             \
    __attribute__((target(TARGET))) static void NAME(const float *tile, int64_t experts,           \
                                                     int64_t topk, tile_result *out) {             \
        for (int lane = 0; lane < LANES; lane += WIDTH) {                                          \
            V best[8], next[8];                                                                    \
            for (int i = 0; i < 8; i++)                                                            \
                best[i] = SET(-INFINITY);                                                          \
            if (topk <= 2) {                                                                       \
                for (int64_t e = 0; e < experts; e++) {                                            \
                    V x = LOAD(tile + e * LANES + lane), low = MIN(best[0], x);                    \
                    best[0] = MAX(best[0], x);                                                     \
                    best[1] = MAX(best[1], low);                                                   \
                }                                                                                  \
                STORE(out->max + lane, best[0]);                                                   \
                STORE(out->threshold + lane, best[topk - 1]);                                      \
                continue;                                                                          \
            }                                                                                      \
            for (int64_t e = 0; e < experts; e += 8) {                                             \
                for (int i = 0; i < 8; i++)                                                        \
                    next[i] =                                                                      \
                        e + i < experts ? LOAD(tile + (e + i) * LANES + lane) : SET(-INFINITY);    \
                SORT8(next, V, MAX, MIN);                                                          \
                for (int i = 0; i < 8; i++)                                                        \
                    best[i] = MAX(best[i], next[7 - i]);                                           \
                MERGE8(best, V, MAX, MIN);                                                         \
            }                                                                                      \
            V sorted[8];                                                                           \
            for (int i = 0; i < 8; i++)                                                            \
                sorted[i] = best[i];                                                               \
            STORE(out->max + lane, sorted[0]);                                                     \
            STORE(out->threshold + lane, sorted[topk - 1]);                                        \
        }                                                                                          \
    }

#define SORT8(v, V, MAX, MIN)                                                                      \
    do {                                                                                           \
        ORDER(v, 0, 2, V, MAX, MIN);                                                               \
        ORDER(v, 1, 3, V, MAX, MIN);                                                               \
        ORDER(v, 4, 6, V, MAX, MIN);                                                               \
        ORDER(v, 5, 7, V, MAX, MIN);                                                               \
        ORDER(v, 0, 4, V, MAX, MIN);                                                               \
        ORDER(v, 1, 5, V, MAX, MIN);                                                               \
        ORDER(v, 2, 6, V, MAX, MIN);                                                               \
        ORDER(v, 3, 7, V, MAX, MIN);                                                               \
        ORDER(v, 0, 1, V, MAX, MIN);                                                               \
        ORDER(v, 2, 3, V, MAX, MIN);                                                               \
        ORDER(v, 4, 5, V, MAX, MIN);                                                               \
        ORDER(v, 6, 7, V, MAX, MIN);                                                               \
        ORDER(v, 2, 4, V, MAX, MIN);                                                               \
        ORDER(v, 3, 5, V, MAX, MIN);                                                               \
        ORDER(v, 1, 4, V, MAX, MIN);                                                               \
        ORDER(v, 3, 6, V, MAX, MIN);                                                               \
        ORDER(v, 1, 2, V, MAX, MIN);                                                               \
        ORDER(v, 3, 4, V, MAX, MIN);                                                               \
        ORDER(v, 5, 6, V, MAX, MIN);                                                               \
    } while (0)

#define MERGE8(v, V, MAX, MIN)                                                                     \
    do {                                                                                           \
        ORDER(v, 0, 4, V, MAX, MIN);                                                               \
        ORDER(v, 1, 5, V, MAX, MIN);                                                               \
        ORDER(v, 2, 6, V, MAX, MIN);                                                               \
        ORDER(v, 3, 7, V, MAX, MIN);                                                               \
        ORDER(v, 0, 2, V, MAX, MIN);                                                               \
        ORDER(v, 1, 3, V, MAX, MIN);                                                               \
        ORDER(v, 4, 6, V, MAX, MIN);                                                               \
        ORDER(v, 5, 7, V, MAX, MIN);                                                               \
        ORDER(v, 0, 1, V, MAX, MIN);                                                               \
        ORDER(v, 2, 3, V, MAX, MIN);                                                               \
        ORDER(v, 4, 5, V, MAX, MIN);                                                               \
        ORDER(v, 6, 7, V, MAX, MIN);                                                               \
    } while (0)

/* 16 x 16 at a time; whole lines are written, so that reading them back does not stall. */
__attribute__((target("avx512f"))) static void transpose_avx512(const float *const *rows,
                                                                int64_t experts, float *tile) {
    for (int64_t e = 0; e < experts; e += 16) {
        __m512 a[16], b[16];
        int64_t left = experts - e;
        __mmask16 mask = (__mmask16)(left < 16 ? (1u << left) - 1 : 0xffffu);
        for (int i = 0; i < 16; i++) {
            a[i] = _mm512_maskz_loadu_ps(mask, rows[i] + e);
            _mm_prefetch((const char *)(rows[i] + e + 16 * experts), _MM_HINT_T0); /* next tile */
        }
        for (int i = 0; i < 16; i += 2) { /* pairs of rows */
            b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
            b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
        }
        for (int i = 0; i < 16; i += 4) { /* a[i + c]: column 4 q + c of four rows, in quarter q */
            a[i] = _mm512_shuffle_ps(b[i], b[i + 2], 0x44);
            a[i + 1] = _mm512_shuffle_ps(b[i], b[i + 2], 0xee);
            a[i + 2] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0x44);
            a[i + 3] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0xee);
        }
        for (int c = 0; c < 4; c++) {
            __m512 low01 = _mm512_shuffle_f32x4(a[c], a[c + 4], 0x44);
            __m512 high01 = _mm512_shuffle_f32x4(a[c], a[c + 4], 0xee);
            __m512 low23 = _mm512_shuffle_f32x4(a[c + 8], a[c + 12], 0x44);
            __m512 high23 = _mm512_shuffle_f32x4(a[c + 8], a[c + 12], 0xee);
            b[c] = _mm512_shuffle_f32x4(low01, low23, 0x88);
            b[c + 4] = _mm512_shuffle_f32x4(low01, low23, 0xdd);
            b[c + 8] = _mm512_shuffle_f32x4(high01, high23, 0x88);
            b[c + 12] = _mm512_shuffle_f32x4(high01, high23, 0xdd);
        }
        if (left >= 16)
            for (int i = 0; i < 16; i++)
                _mm512_store_ps(tile + (e + i) * LANES, b[i]);
        else
            for (int i = 0; i < 16; i++)
                if (i < left)
                    _mm512_store_ps(tile + (e + i) * LANES, b[i]);
    }
}

DEFINE_TOP(top_avx512, "avx512f", __m512, 16, _mm512_load_ps, _mm512_store_ps, _mm512_set1_ps,
           _mm512_max_ps, _mm512_min_ps)
DEFINE_TOP(top_avx2, "avx2", __m256, 8, _mm256_load_ps, _mm256_store_ps, _mm256_set1_ps,
           _mm256_max_ps, _mm256_min_ps)
#endif

/* The steps that have forms of their own for an instruction set. */
typedef struct tile_ops {
    void (*transpose)(const float *const *rows, int64_t experts, float *tile);
    void (*top)(const float *tile, int64_t experts, int64_t topk, tile_result *out);
} tile_ops;

static tile_ops tile_ops_of_this_machine(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx512f"))
        return (tile_ops){transpose_avx512, top_avx512};
    if (__builtin_cpu_supports("avx2"))
        return (tile_ops){transpose_plain, top_avx2};
#endif
    return (tile_ops){transpose_plain, top_plain};
}

/* Turns the tile into exp(logit - max), sums it, and marks the experts at or above the threshold.
 * False where a logit is not finite. */
PGR_CLONES
static bool exponentials(float *restrict tile, int64_t experts, tile_result *restrict r) {
    float sum[LANES] ALIGNED = {0}, check[LANES] ALIGNED = {0};
    for (int64_t first = 0; first < experts; first += 32) {
        uint32_t mask[LANES] ALIGNED = {0};
        int64_t last = first + 32 < experts ? first + 32 : experts;
        for (int64_t e = first; e < last; e++) {
            const uint32_t bit = (uint32_t)1 << (e - first);
            for (int l = 0; l < LANES; l++) {
                float x = tile[e * LANES + l], d = x - r->max[l];
                float p = vec_exp2(1.44269504f * vec_limit(d, 87.0f));
                mask[l] |= -(uint32_t)(x >= r->threshold[l]) & bit;
                sum[l] += p;
                check[l] += d;
                tile[e * LANES + l] = p;
            }
        }
        memcpy(r->mask[first / 32], mask, sizeof mask);
    }
    if ((experts + 31) / 32 % 2 != 0)
        memset(r->mask[(experts + 31) / 32], 0, sizeof r->mask[0]);
    memcpy(r->sum, sum, sizeof sum);
    int bad = 0;
    for (int l = 0; l < LANES; l++)
        bad |= !(check[l] > -INFINITY); /* NaN too */
    return !bad;
}

/* sums[e][lane] += probability. */
PGR_CLONES
static void add_scores(const float *restrict tile, const float *restrict inverse, int64_t experts,
                       float *restrict sums) {
    for (int64_t e = 0; e < experts; e++)
        for (int l = 0; l < LANES; l++)
            sums[e * LANES + l] += tile[e * LANES + l] * inverse[l];
}

PGR_CLONES
static double z_squares(const tile_result *r, const float *restrict active) {
    float z[LANES] ALIGNED;
    double total = 0;
    for (int l = 0; l < LANES; l++) {
        float log_sum_exp = vec_log(r->sum[l]) + r->max[l];
        z[l] = log_sum_exp * log_sum_exp * active[l];
    }
    for (int l = 0; l < LANES; l++)
        total += z[l];
    return total;
}

PGR_CLONES
static void widen_row(const pgr_bf16 *restrict in, float *restrict out, int64_t count) {
    for (int64_t e = 0; e < count; e++)
        out[e] = pgr_bf16_to_f32(in[e]);
}

/* The bits of a token's mask in ascending order; false unless there are exactly `topk`. The loop
 * has the same length for every token and no branch inside: mispredictions would cost more than the
 * rest of the router. */
PGR_INLINE bool read_mask(const tile_result *r, int64_t words, int lane, int64_t topk,
                          int32_t *picks) {
    uint64_t word[WORDS_MAX / 2], filled = 0;
    int64_t count = 0, wide = (words + 1) / 2;
    if (wide == 1) {
        uint64_t bits = r->mask[0][lane] | (uint64_t)r->mask[1][lane] << 32;
        if (__builtin_popcountll(bits) != topk)
            return false;
        for (int64_t j = 0; j < topk; j++, bits &= bits - 1)
            picks[j] = __builtin_ctzll(bits);
        return true;
    }
    for (int64_t w = 0; w < wide; w++) { /* an odd last word has zeros beside it */
        word[w] = r->mask[2 * w][lane] | (uint64_t)r->mask[2 * w + 1][lane] << 32;
        count += __builtin_popcountll(word[w]);
        filled |= (uint64_t)(word[w] != 0) << w;
    }
    if (count != topk)
        return false;
    for (int64_t j = 0; j < topk; j++) {
        int w = __builtin_ctzll(filled);
        uint64_t bits = word[w];
        picks[j] = w * 64 + __builtin_ctzll(bits);
        word[w] = bits &= bits - 1;
        filled &= ~((uint64_t)(bits == 0) << w);
    }
    return true;
}

/* Where several experts tie at the threshold, the lowest of them fill what is left. */
PGR_INLINE void break_ties(const tile_result *r, int64_t words, int lane, const float *logits,
                           int64_t topk, int32_t *picks) {
    const float threshold = r->threshold[lane];
    int64_t left = topk, count = 0;
    for (int pass = 0; pass < 2; pass++) { /* count the ones above, then take */
        for (int64_t w = 0; w < words; w++) {
            for (uint32_t bits = r->mask[w][lane]; bits; bits &= bits - 1) {
                int32_t e = (int32_t)(w * 32 + __builtin_ctz(bits));
                bool above = logits[e] > threshold;
                if (pass == 0)
                    left -= above;
                else if (above || left-- > 0)
                    picks[count++] = e;
            }
        }
    }
}

/* Indices, weights and counts of the tile's tokens. */
PGR_INLINE void emit_tokens(const pgr_router_args *args, int64_t first, const float *const *rows,
                            const float *restrict tile, const tile_result *restrict r,
                            const float *restrict inverse, const int64_t k) {
    const int64_t words = (args->experts + 31) / 32;
    const int lanes = args->tokens - first < LANES ? (int)(args->tokens - first) : LANES;
    const float scaling = isnan(args->scaling) ? 1.0f : (float)args->scaling;
    const bool pre = args->pre_softmax, per_sequence = args->aux_counts && args->sequences > 1;
    int64_t *restrict counts = args->tokens_per_expert;
    const uint8_t *valid = args->valid ? args->valid + first : NULL;
    for (int l = 0; l < lanes; l++) {
        int32_t *restrict picks = args->indices + (first + l) * k;
        float *restrict weights = args->weights + (first + l) * k;
        float sum = 0;
        if (valid && !valid[l]) {
            for (int64_t j = 0; j < k; j++) {
                picks[j] = -1;
                weights[j] = 0;
            }
            continue;
        }
        if (!read_mask(r, words, l, k, picks))
            break_ties(r, words, l, rows[l], k, picks);
        for (int64_t j = 0; j < k; j++)
            sum += tile[picks[j] * LANES + l];
        float factor = pre ? inverse[l] * scaling : scaling / sum;
        for (int64_t j = 0; j < k; j++) {
            weights[j] = tile[picks[j] * LANES + l] * factor;
            counts[picks[j]]++;
        }
        if (per_sequence)
            for (int64_t j = 0; j < k; j++)
                args->aux_counts[l % args->sequences * args->experts + picks[j]]++;
    }
}

PGR_CLONES
static void emit(const pgr_router_args *args, int64_t first, const float *const *rows,
                 const float *tile, const tile_result *r, const float *inverse) {
    switch (args->topk) { /* constants, so that the short loops are unrolled */
    case 1:
        emit_tokens(args, first, rows, tile, r, inverse, 1);
        break;
    case 2:
        emit_tokens(args, first, rows, tile, r, inverse, 2);
        break;
    case 4:
        emit_tokens(args, first, rows, tile, r, inverse, 4);
        break;
    case 6:
        emit_tokens(args, first, rows, tile, r, inverse, 6);
        break;
    case 8:
        emit_tokens(args, first, rows, tile, r, inverse, 8);
        break;
    default:
        emit_tokens(args, first, rows, tile, r, inverse, args->topk);
    }
}

/* Adds the partial sums to the doubles and clears them. Lane l is of sequence l % sequences, since
 * sequences divides LANES and tiles begin at multiples of LANES. */
static void flush_scores(const pgr_router_args *args, float *sums) {
    for (int64_t e = 0; e < args->experts; e++)
        for (int64_t l = 0; l < LANES; l++)
            args->aux_score_sums[l % args->sequences * args->experts + e] += sums[e * LANES + l];
    memset(sums, 0, (size_t)(args->experts * LANES) * sizeof *sums);
}

static void plain_tokens(const router_row *row, const pgr_router_args *args, int64_t first) {
    for (int64_t token = first; token < first + LANES && token < args->tokens; token++)
        pgr_cpu_router_token(row, args, token);
}

/* One token's logits as f32: as they are, widened into `wide`, or zeros for padding. */
static const float *token_row(const pgr_router_args *args, int64_t token, float *wide,
                              const float *zeros) {
    if (token >= args->tokens || (args->valid && !args->valid[token]))
        return zeros;
    if (args->dtype == PGR_F32)
        return (const float *)args->logits + token * args->experts;
    widen_row((const pgr_bf16 *)args->logits + token * args->experts, wide, args->experts);
    return wide;
}

void pgr_cpu_router_tiles(const pgr_router_args *args, const router_row *row, float *scratch) {
    const int64_t experts = args->experts;
    float *tile = scratch, *sums = tile + LANES * experts, *wide = sums + LANES * experts;
    float *zeros = wide + LANES * experts;
    memset(sums, 0, (size_t)(LANES * experts) * sizeof *sums);
    memset(zeros, 0, (size_t)experts * sizeof *zeros);
    double z = 0;
    int64_t pending = 0;
    const tile_ops ops = tile_ops_of_this_machine();
    pgr_router_args plain = *args; /* with one sequence, aux_counts are filled at the end */
    if (args->sequences == 1)
        plain.aux_counts = NULL;
    for (int64_t first = 0; first < args->tokens; first += LANES) {
        const float *rows[LANES];
        float active[LANES] ALIGNED, inverse[LANES] ALIGNED;
        tile_result r;
        for (int l = 0; l < LANES; l++) {
            rows[l] = token_row(args, first + l, wide + l * experts, zeros);
            active[l] = rows[l] == zeros ? 0.0f : 1.0f;
        }
        ops.transpose(rows, experts, tile);
        ops.top(tile, experts, args->topk, &r);
        if (!exponentials(tile, experts, &r)) {
            plain_tokens(row, &plain, first);
            continue;
        }
        for (int l = 0; l < LANES; l++)
            inverse[l] = active[l] / r.sum[l];
        emit(args, first, rows, tile, &r, inverse);
        if (args->z_sum)
            z += z_squares(&r, active);
        if (args->aux_score_sums) {
            add_scores(tile, inverse, experts, sums);
            if (++pending == FLUSH_TILES) {
                flush_scores(args, sums);
                pending = 0;
            }
        }
    }
    if (args->aux_score_sums)
        flush_scores(args, sums);
    if (args->z_sum)
        *args->z_sum += z;
    if (args->aux_counts && args->sequences == 1)
        memcpy(args->aux_counts, args->tokens_per_expert, (size_t)experts * sizeof(int64_t));
}
