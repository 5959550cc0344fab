/* kernels/cuda_router*.cu as C++ for the CPU. */
#include "simt.h"

#include "../../kernels/cuda_router.cu"
#include "../../kernels/cuda_router_any.cu"
