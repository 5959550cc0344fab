/* cpu_router_ops.c - the router's steps that gcc does not vectorise well by itself: transposing
 * sixteen rows, keeping the best logits in registers. Plain C first, then the same for AVX2 and
 * AVX-512. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu_router.h"

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
    float *out = tile + e * ROUTER_LANES + lane;
    *(vec4 *)out = __builtin_shuffle(ab0, cd0, (vec4i){0, 1, 4, 5});
    *(vec4 *)(out + ROUTER_LANES) = __builtin_shuffle(ab0, cd0, (vec4i){2, 3, 6, 7});
    *(vec4 *)(out + 2 * ROUTER_LANES) = __builtin_shuffle(ab1, cd1, (vec4i){0, 1, 4, 5});
    *(vec4 *)(out + 3 * ROUTER_LANES) = __builtin_shuffle(ab1, cd1, (vec4i){2, 3, 6, 7});
}

static void transpose_plain(const float *const *rows, int64_t experts, float *tile) {
    int64_t whole = experts & ~(int64_t)3;
    for (int64_t e = 0; e < whole; e += 4)
        for (int64_t lane = 0; lane < ROUTER_LANES; lane += 4)
            transpose4(rows, e, tile, lane);
    for (int64_t e = whole; e < experts; e++)
        for (int64_t lane = 0; lane < ROUTER_LANES; lane++)
            tile[e * ROUTER_LANES + lane] = rows[lane][e];
}

static void two_plain(const float *tile, int64_t experts, router_two *two) {
    for (int l = 0; l < ROUTER_LANES; l++) {
        float value[2] = {-INFINITY, -INFINITY}, expert[2] = {0, 0};
        for (int64_t e = 0; e < experts; e++) {
            float x = tile[e * ROUTER_LANES + l];
            int at = x > value[0] ? 0 : x > value[1] ? 1 : 2;
            if (at == 0)
                value[1] = value[0], expert[1] = expert[0];
            if (at < 2)
                value[at] = x, expert[at] = (float)e;
        }
        for (int j = 0; j < 2; j++)
            two->value[j][l] = value[j], two->expert[j][l] = expert[j];
    }
}

/* Keeps the `topk` highest logits of each lane sorted, by insertion; values alone, no indices. */
static void best_plain(const float *const *rows, int64_t experts, int64_t topk, float *tile,
                       router_best *best) {
    transpose_plain(rows, experts, tile);
    for (int64_t j = 0; j < topk; j++)
        for (int l = 0; l < ROUTER_LANES; l++)
            best->value[j][l] = -INFINITY;
    for (int64_t e = 0; e < experts; e++) {
        for (int l = 0; l < ROUTER_LANES; l++) {
            float x = tile[e * ROUTER_LANES + l];
            for (int64_t j = 0; j < topk; j++) {
                float held = best->value[j][l];
                best->value[j][l] = x > held ? x : held;
                x = x > held ? held : x;
            }
        }
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

/* What two instruction sets share: V is a vector of WIDTH lanes, PICK(x, y, a, b) is a where x > y,
 * else b. */
#define ORDER(v, i, j, V, MAX, MIN)                                                                \
    do {                                                                                           \
        V high = MAX((v)[i], (v)[j]), low = MIN((v)[i], (v)[j]);                                   \
        (v)[i] = high;                                                                             \
        (v)[j] = low;                                                                              \
    } while (0)

#define DEFINE_TWO(NAME, TARGET, V, WIDTH, LOAD, STORE, SET, MAX, MIN, PICK)                       \
    __attribute__((target(TARGET))) static void NAME(const float *tile, int64_t experts,           \
                                                     router_two *two) {                            \
        for (int lane = 0; lane < ROUTER_LANES; lane += WIDTH) {                                   \
            V value0 = SET(-INFINITY), value1 = SET(-INFINITY), expert0 = SET(0),                  \
              expert1 = SET(0);                                                                    \
            for (int64_t e = 0; e < experts; e++) {                                                \
                V x = LOAD(tile + e * ROUTER_LANES + lane), this = SET((float)e);                  \
                expert1 = PICK(x, value1, this, expert1);                                          \
                expert1 = PICK(x, value0, expert0, expert1);                                       \
                expert0 = PICK(x, value0, this, expert0);                                          \
                value1 = MAX(value1, MIN(value0, x));                                              \
                value0 = MAX(value0, x);                                                           \
            }                                                                                      \
            STORE(two->value[0] + lane, value0);                                                   \
            STORE(two->value[1] + lane, value1);                                                   \
            STORE(two->expert[0] + lane, expert0);                                                 \
            STORE(two->expert[1] + lane, expert1);                                                 \
        }                                                                                          \
    }

/* Groups of eight experts are sorted by a network of 19 comparisons (each for all lanes at once)
 * and merged with the eight best so far by a bitonic merge. `next` is spent. */
#define KEEP_BEST(best, next, V, MAX, MIN)                                                         \
    do {                                                                                           \
        SORT8(next, V, MAX, MIN);                                                                  \
        for (int j = 0; j < 8; j++)                                                                \
            best[j] = MAX(best[j], (next)[7 - j]);                                                 \
        MERGE8(best, V, MAX, MIN);                                                                 \
    } while (0)

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

#define PICK_AVX2(x, y, a, b) _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, y, _CMP_GT_OQ))
#define PICK_AVX512(x, y, a, b) _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, y, _CMP_GT_OQ), b, a)

DEFINE_TWO(two_avx2, "avx2", __m256, 8, _mm256_load_ps, _mm256_store_ps, _mm256_set1_ps,
           _mm256_max_ps, _mm256_min_ps, PICK_AVX2)
DEFINE_TWO(two_avx512, "avx512f", __m512, 16, _mm512_load_ps, _mm512_store_ps, _mm512_set1_ps,
           _mm512_max_ps, _mm512_min_ps, PICK_AVX512)

__attribute__((target("avx2"))) static void best_avx2(const float *const *rows, int64_t experts,
                                                      int64_t topk, float *tile, router_best *out) {
    transpose_plain(rows, experts, tile);
    for (int lane = 0; lane < ROUTER_LANES; lane += 8) {
        __m256 best[8], next[8];
        for (int i = 0; i < 8; i++)
            best[i] = _mm256_set1_ps(-INFINITY);
        for (int64_t e = 0; e < experts; e += 8) {
            for (int i = 0; i < 8; i++)
                next[i] = e + i < experts ? _mm256_load_ps(tile + (e + i) * ROUTER_LANES + lane)
                                          : _mm256_set1_ps(-INFINITY);
            KEEP_BEST(best, next, __m256, _mm256_max_ps, _mm256_min_ps);
        }
        for (int j = 0; j < topk; j++)
            _mm256_store_ps(out->value[j] + lane, best[j]);
    }
}

/* Columns e .. e + 15 of sixteen rows, the missing ones zeros, as sixteen vectors. */
__attribute__((target("avx512f"), always_inline)) static inline void
transpose16(const float *const *rows, int64_t e, int64_t experts, __m512 *b) {
    __m512 a[16];
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
}

__attribute__((target("avx512f"))) static void transpose_avx512(const float *const *rows,
                                                                int64_t experts, float *tile) {
    for (int64_t e = 0; e < experts; e += 16) {
        __m512 column[16];
        transpose16(rows, e, experts, column);
        if (experts - e >= 16)
            for (int i = 0; i < 16; i++)
                _mm512_store_ps(tile + (e + i) * ROUTER_LANES, column[i]);
        else
            for (int i = 0; i < 16; i++)
                if (e + i < experts)
                    _mm512_store_ps(tile + (e + i) * ROUTER_LANES, column[i]);
    }
}

__attribute__((target("avx512f"))) static void best_avx512(const float *const *rows,
                                                           int64_t experts, int64_t topk,
                                                           float *tile, router_best *out) {
    transpose_avx512(rows, experts, tile);
    __m512 best[8], next[8];
    for (int i = 0; i < 8; i++)
        best[i] = _mm512_set1_ps(-INFINITY);
    for (int64_t e = 0; e < experts; e += 8) {
        for (int i = 0; i < 8; i++)
            next[i] = e + i < experts ? _mm512_load_ps(tile + (e + i) * ROUTER_LANES)
                                      : _mm512_set1_ps(-INFINITY);
        KEEP_BEST(best, next, __m512, _mm512_max_ps, _mm512_min_ps);
    }
    __m512 sorted[8];
    for (int i = 0; i < 8; i++)
        sorted[i] = best[i];
    for (int64_t j = 0; j < topk; j++)
        _mm512_store_ps(out->value[j], sorted[j]);
}
#endif

router_ops pgr_cpu_router_ops(void) {
    /* PGRUN_CPU=plain or avx2 asks for less than the machine has, so that every form can be tested
     */
    const char *asked = getenv("PGRUN_CPU");
    bool plain = asked && strcmp(asked, "plain") == 0;
    bool avx2 = asked && strcmp(asked, "avx2") == 0;
#if defined(__x86_64__) && defined(__GNUC__)
    if (!plain && !avx2 && __builtin_cpu_supports("avx512f"))
        return (router_ops){transpose_avx512, two_avx512, best_avx512};
    if (!plain && __builtin_cpu_supports("avx2"))
        return (router_ops){transpose_plain, two_avx2, best_avx2};
#endif
    return (router_ops){transpose_plain, two_plain, best_plain};
}
