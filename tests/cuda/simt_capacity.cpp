/* kernels/cuda_capacity.cu as C++ for the CPU. */
#include "simt.h"

#include "../../kernels/cuda_capacity.cu"
