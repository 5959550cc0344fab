/* simt.h - runs CUDA kernels on the CPU, from their own source: every thread of a block is a fiber,
 * and the primitives by which threads meet (shuffles, votes, reductions of a warp, barriers) are
 * where fibers wait for each other. A thread that does not come to one where the others wait ends
 * the program with a message, as does one that comes to another one. Blocks run one after the
 * other. What needs a GPU's own rounding or memory model is not shown by it. */
#ifndef SIMT_H
#define SIMT_H

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __shared__                                                                                 \
    static /* blocks run one after the other; the next one finds what the last one left */
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)

extern "C" {
struct simt_index {
    unsigned x, y, z;
};
extern struct simt_index threadIdx, blockIdx, blockDim, gridDim;

/* Leaves `value` to the warp and waits for all 32 lanes; what they left, by lane, valid until this
 * lane's next exchange. `name` and `line`: of the primitive; all lanes must agree. */
const uint64_t *simt_exchange(uint64_t value, unsigned mask, const char *name, int line);

/* Waits for all threads of the block. */
void simt_barrier(int line);

/* Runs `thread(context)` once for every thread of a grid. */
void simt_run(dim3 grid, unsigned threads, void (*thread)(void *), void *context);

/* The stand-in's queue (fake_cuda.c): calls step(context) when its turn has come; it returns true.
 */
cudaError_t pgr_fake_cuda_launch(cudaStream_t stream, bool (*step)(void *), void *context);
}

/* ---- launches ------------------------------------------------------------------------------ */

template <class F> struct simt_task {
    dim3 grid;
    unsigned threads;
    F body;
};

template <class F> void simt_thread(void *context) {
    ((simt_task<F> *)context)->body();
}

template <class F> bool simt_step(void *context) {
    simt_task<F> *task = (simt_task<F> *)context;
    simt_run(task->grid, task->threads, simt_thread<F>, task);
    delete task;
    return true;
}

template <class F>
cudaError_t simt_launch(dim3 grid, unsigned threads, cudaStream_t stream, F body) {
    simt_task<F> *task = new simt_task<F>{grid, threads, body};
    cudaError_t code = pgr_fake_cuda_launch(stream, simt_step<F>, task);
    if (code != cudaSuccess)
        delete task;
    return code;
}

/* Arguments are copied when it is launched, as CUDA does. */
template <class... P, class... A>
cudaError_t simt_bind(dim3 grid, unsigned threads, cudaStream_t stream, void (*kernel)(P...),
                      A... arguments) {
    return simt_launch(
        grid, threads, stream, [=] { kernel(arguments...); });
}

#define CUDA_LAUNCH(kernel, grid, threads, stream, ...)                                            \
    simt_bind(dim3(grid), (unsigned)(threads), stream, kernel, __VA_ARGS__)

/* ---- primitives ---------------------------------------------------------------------------- */

template <class T> uint64_t simt_pack(T value) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    return bits;
}

template <class T> T simt_unpack(uint64_t bits) {
    T value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <class T> T simt_shuffle(unsigned mask, T value, int from, const char *name, int line) {
    return simt_unpack<T>(simt_exchange(simt_pack(value), mask, name, line)[from & 31]);
}

static inline int simt_lane() {
    return (int)(threadIdx.x % 32);
}

/* Where a shuffle up reads: the lane itself where its segment has none so low. */
static inline int simt_up(int by, int width) {
    int lane = simt_lane();
    return lane % width >= by ? lane - by : lane;
}

static inline int simt_at(int from, int width) {
    return simt_lane() / width * width + from % width;
}

static inline unsigned simt_ballot(const uint64_t *values) {
    unsigned mask = 0;
    for (int i = 0; i < 32; i++)
        mask |= values[i] ? 1u << i : 0;
    return mask;
}

static inline int simt_max(const uint64_t *values) {
    int best = (int)values[0];
    for (int i = 1; i < 32; i++)
        best = (int)values[i] > best ? (int)values[i] : best;
    return best;
}

static inline int simt_add(const uint64_t *values) {
    unsigned sum = 0;
    for (int i = 0; i < 32; i++)
        sum += (unsigned)values[i];
    return (int)sum;
}

static inline unsigned simt_match(const uint64_t *values) {
    unsigned mask = 0;
    for (int i = 0; i < 32; i++)
        mask |= values[i] == values[simt_lane()] ? 1u << i : 0;
    return mask;
}

#define SIMT_PICK(_1, _2, _3, _4, name, ...) name
#define SIMT_UP4(m, v, by, width) simt_shuffle(m, v, simt_up(by, width), "__shfl_up_sync", __LINE__)
#define SIMT_AT4(m, v, from, width)                                                                \
    simt_shuffle(m, v, simt_at(from, width), "__shfl_sync", __LINE__)
#define __shfl_xor_sync(m, v, by)                                                                  \
    simt_shuffle(m, v, simt_lane() ^ (by), "__shfl_xor_sync", __LINE__)
#define __shfl_up_sync(m, v, by, width) SIMT_UP4(m, v, by, width)
#define __shfl_sync(m, v, from, width) SIMT_AT4(m, v, from, width)
#define __ballot_sync(m, v) simt_ballot(simt_exchange((v) ? 1 : 0, m, "__ballot_sync", __LINE__))
#define __any_sync(m, v) (simt_ballot(simt_exchange((v) ? 1 : 0, m, "__any_sync", __LINE__)) != 0)
#define __match_any_sync(m, v)                                                                     \
    simt_match(simt_exchange((uint64_t)(v), m, "__match_any_sync", __LINE__))
#define __reduce_max_sync(m, v)                                                                    \
    simt_max(simt_exchange((uint64_t)(uint32_t)(v), m, "__reduce_max_sync", __LINE__))
#define __reduce_add_sync(m, v)                                                                    \
    simt_add(simt_exchange((uint64_t)(uint32_t)(v), m, "__reduce_add_sync", __LINE__))
#define __syncwarp() ((void)simt_exchange(0, 0xffffffffu, "__syncwarp", __LINE__))
#define __syncthreads() simt_barrier(__LINE__)
#define __threadfence() ((void)0)

/* ---- what one thread does ------------------------------------------------------------------ */

static inline int __popc(unsigned v) {
    return __builtin_popcount(v);
}

static inline int __ffs(int v) {
    return __builtin_ffs(v);
}

template <class T> T atomicAdd(T *at, T value) {
    T was = *at;
    *at = was + value;
    return was;
}

template <class T> T atomicOr(T *at, T value) {
    T was = *at;
    *at = was | value;
    return was;
}

template <class T> T atomicExch(T *at, T value) {
    T was = *at;
    *at = value;
    return was;
}

#endif
