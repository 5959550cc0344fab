# Whether libpgrun_cuda.so is built, and for which GPUs. Sets PGRUN_WITH_CUDA.
#
# AUTO never fails: where nvcc or cuBLASLt is missing or does not work, the module is left out and one
# line says why. ON fails instead.
set(PGRUN_WITH_CUDA OFF)
string(TOUPPER "${PGRUN_CUDA}" cuda_wanted)
if(PGRUN_CHECK_ONLY OR NOT PGRUN_CUDA)
  return()
endif()

if(cuda_wanted STREQUAL "AUTO")
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    message(STATUS "No nvcc that works: libpgrun_cuda.so is not built (PGRUN_CUDA = AUTO)")
    return()
  endif()
endif()

# An older toolkit knows no sm_100; PTX of the newest that it knows runs there all the same. Must be
# set before the language is: CMake tries the compiler with it.
find_package(CUDAToolkit QUIET)
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80 90 100)
  if(CUDAToolkit_FOUND AND CUDAToolkit_VERSION VERSION_LESS 12.8)
    set(CMAKE_CUDA_ARCHITECTURES 80 90)
  endif()
endif()
if(NOT TARGET CUDA::cublasLt OR NOT TARGET CUDA::cudart)
  if(cuda_wanted STREQUAL "AUTO")
    message(STATUS "The CUDA toolkit has no cuBLASLt: libpgrun_cuda.so is not built (PGRUN_CUDA = AUTO)")
    return()
  endif()
  message(FATAL_ERROR "PGRUN_CUDA = ON needs the CUDA toolkit with nvcc and cuBLASLt: set "
                      "CUDAToolkit_ROOT to its folder, or use -DPGRUN_CUDA=OFF")
endif()
enable_language(CUDA)

set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
set(PGRUN_WITH_CUDA ON)
message(STATUS "libpgrun_cuda.so: CUDA ${CUDAToolkit_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")

# Ranges for NVIDIA's profilers are a header of the toolkit's.
find_path(PGRUN_NVTX_INCLUDE nvtx3/nvToolsExt.h HINTS ${CUDAToolkit_INCLUDE_DIRS}
          DOC "Folder of nvtx3/nvToolsExt.h")
if(NOT PGRUN_NVTX_INCLUDE)
  message(STATUS "No nvtx3/nvToolsExt.h: libpgrun_cuda.so names no ranges (PGRUN_NVTX_INCLUDE)")
endif()

# NCCL ships no CMake or pkg-config file. Its library is opened at run time, 2.18 or later.
find_path(PGRUN_NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} $ENV{NCCL_HOME}/include
          DOC "Folder of nccl.h")
set(PGRUN_WITH_NCCL OFF)
if(PGRUN_NCCL_INCLUDE)
  set(PGRUN_WITH_NCCL ON)
else()
  message(STATUS "No nccl.h: libpgrun_cuda.so has no communication over NCCL (PGRUN_NCCL_INCLUDE)")
endif()
