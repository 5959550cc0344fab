# The CUDA module without a GPU: its own C files on a stand-in for CUDA, cuBLASLt and the kernels'
# launches (cuda/fake_cuda.c), in a folder of modules of its own. The router's kernels are its own too,
# compiled for the CPU (cuda/simt.h). Needs CUDA's headers and a C++ compiler, no more.
if(PGRUN_WITH_CUDA)
  enable_language(CXX)
  set(fake ${PROJECT_BINARY_DIR}/fake)
  add_library(pgrun_fake_cuda MODULE cuda/fake_cuda.c ${CMAKE_SOURCE_DIR}/kernels/cuda.c
              ${CMAKE_SOURCE_DIR}/kernels/cuda_ops.c ${CMAKE_SOURCE_DIR}/kernels/cuda_moe.c
              ${CMAKE_SOURCE_DIR}/kernels/cuda_linear.c
              cuda/simt.cpp cuda/simt_router.cpp cuda/simt_capacity.cpp)
  add_executable(simt_test cuda/simt_test.cpp cuda/simt.cpp)
  target_include_directories(simt_test PRIVATE ${CMAKE_SOURCE_DIR}/kernels)
  target_include_directories(simt_test SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  foreach(target pgrun_fake_cuda simt_test)
    target_compile_options(${target} PRIVATE
      "$<$<COMPILE_LANGUAGE:CXX>:-std=c++17;-O1;-g;-Wall;-Wextra;-Wno-unknown-pragmas;-fno-exceptions;-fno-rtti>"
      "$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${PGRUN_WERROR}>>:-Werror>"
      "$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${PGRUN_SANITIZE}>>:-fsanitize=address,undefined;-fno-sanitize-recover=undefined;-fno-omit-frame-pointer>")
  endforeach()
  foreach(kernel good missing other)
    add_test(NAME cuda/simt_${kernel} COMMAND simt_test ${kernel})
    set_tests_properties(cuda/simt_${kernel} PROPERTIES LABELS "unit;cuda" TIMEOUT 60)
  endforeach()
  set_tests_properties(cuda/simt_missing PROPERTIES PASS_REGULAR_EXPRESSION
                       "FAIL simt: .*not all threads come to __shfl_xor_sync.*thread 35 has ended")
  set_tests_properties(cuda/simt_other PROPERTIES PASS_REGULAR_EXPRESSION
                       "FAIL simt: .*thread 3: the others do not come to __syncwarp")
  target_compile_definitions(pgrun_fake_cuda PRIVATE PGR_CUDA_SCRATCH_BYTES=4096)
  target_include_directories(pgrun_fake_cuda SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(pgrun_fake_cuda PRIVATE pgrun_cuda_host pgrun_plan)
  target_link_options(pgrun_fake_cuda PRIVATE
                      -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/fake/module.map)
  set_target_properties(pgrun_fake_cuda PROPERTIES OUTPUT_NAME pgrun_cuda
                        LIBRARY_OUTPUT_DIRECTORY ${fake})
  if(PGRUN_WITH_NCCL)
    target_sources(pgrun_fake_cuda PRIVATE ${pgrun_nccl_sources})
    target_compile_definitions(pgrun_fake_cuda PRIVATE PGRUN_WITH_NCCL)
    target_include_directories(pgrun_fake_cuda SYSTEM PRIVATE ${PGRUN_NCCL_INCLUDE})
    # NCCL as of 2.28 and, with less in it, as of 2.18.
    foreach(version 22809 21805)
      add_library(nccl_fake_${version} MODULE fake/nccl_fake.c)
      target_compile_definitions(nccl_fake_${version} PRIVATE NCCL_FAKE_VERSION=${version})
      target_include_directories(nccl_fake_${version} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS}
                                 ${PGRUN_NCCL_INCLUDE})
      set_target_properties(nccl_fake_${version} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${fake})
      add_dependencies(pgrun_fake_cuda nccl_fake_${version})
    endforeach()
    add_test(NAME nccl/run COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/fake/nccl_run.sh $<TARGET_FILE:pgrun>)
    add_test(NAME nccl/faults
             COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/fake/nccl_faults.sh $<TARGET_FILE:pgrun>)
    add_executable(nccl_ops fake/nccl_ops.c)
    target_link_libraries(nccl_ops PRIVATE pgrun_core)
    add_dependencies(nccl_ops pgrun_fake_cuda pgrun_mpi)
    add_test(NAME nccl/operations
             COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/fake/nccl_ops.sh $<TARGET_FILE:nccl_ops>)
    set_tests_properties(nccl/run nccl/faults nccl/operations PROPERTIES LABELS "mpi;cuda" TIMEOUT 240
      ENVIRONMENT "PGRUN_MODULE_PATH=${fake};LD_LIBRARY_PATH=${fake}/driver")
  endif()
  # What `auto` looks for before it opens the module.
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/fake_driver.c "int pgr_fake_driver = 1;\n")
  add_library(pgrun_fake_driver MODULE ${CMAKE_CURRENT_BINARY_DIR}/fake_driver.c)
  set_target_properties(pgrun_fake_driver PROPERTIES PREFIX "" OUTPUT_NAME libcuda SUFFIX .so.1
                        LIBRARY_OUTPUT_DIRECTORY ${fake}/driver)
  file(MAKE_DIRECTORY ${fake})
  foreach(module cpu mpi)
    file(CREATE_LINK ${PROJECT_BINARY_DIR}/lib/pgrun/libpgrun_${module}.so
         ${fake}/libpgrun_${module}.so SYMBOLIC)
  endforeach()

  set(variables "PGRUN_MODULE_PATH=${fake};LD_LIBRARY_PATH=${fake}/driver;ASAN_OPTIONS=allocator_may_return_null=1")
  add_test(NAME cuda/operations COMMAND device_test cuda)
  add_test(NAME cuda/moe COMMAND device_moe_test cuda)
  add_test(NAME cuda/faults
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cuda/faults.sh $<TARGET_FILE:device_test>)
  add_test(NAME cuda/run
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cuda/run.sh $<TARGET_FILE:pgrun>)
  add_dependencies(device_test pgrun_fake_cuda pgrun_fake_driver)
  add_dependencies(device_moe_test pgrun_fake_cuda pgrun_fake_driver)
  set_tests_properties(cuda/moe PROPERTIES LABELS "unit;cuda" TIMEOUT 300 ENVIRONMENT "${variables}")
  set_tests_properties(cuda/operations cuda/faults PROPERTIES LABELS "unit;cuda" TIMEOUT 120
                       ENVIRONMENT "${variables}")
  add_executable(cuda_groups_test cuda/groups_test.c)
  target_include_directories(cuda_groups_test PRIVATE ${CMAKE_SOURCE_DIR}/lua)
  target_link_libraries(cuda_groups_test PRIVATE pgrun_core)
  add_test(NAME cuda/groups
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpirun.sh 2 $<TARGET_FILE:cuda_groups_test>)
  # The module itself: machine code and PTX for each GPU that it was built for.
  if("${CMAKE_CUDA_ARCHITECTURES}" MATCHES "^[0-9;]+$")
    add_test(NAME cuda/architectures
             COMMAND lua5.4 ${CMAKE_CURRENT_SOURCE_DIR}/cuda/architectures.lua
                     $<TARGET_FILE:pgrun_cuda> ${CMAKE_CUDA_ARCHITECTURES})
    set_tests_properties(cuda/architectures PROPERTIES LABELS cuda TIMEOUT 20)
  endif()
  set_tests_properties(cuda/groups cuda/run PROPERTIES LABELS "mpi;cuda" TIMEOUT 120
                       ENVIRONMENT "${variables}")
endif()
