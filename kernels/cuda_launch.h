/* cuda_launch.h - how a kernel is launched: CUDA's <<< >>>, in a word that a host compiler can give
 * another meaning, so that tests run the kernels on the CPU (tests/cuda/simt.h). */
#ifndef PGR_CUDA_LAUNCH_H
#define PGR_CUDA_LAUNCH_H

/* The code of the launch alone. */
#ifndef CUDA_LAUNCH
#define CUDA_LAUNCH(kernel, grid, threads, stream, ...)                                            \
    (kernel<<<grid, threads, 0, stream>>>(__VA_ARGS__), cudaGetLastError())
#endif

#endif
