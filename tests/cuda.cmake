# The CUDA module without a GPU: its own C files on a stand-in for CUDA, cuBLASLt and the kernels'
# launches (cuda/fake_cuda.c, cuda/fake_cublaslt.c), in a folder of modules of its own. The router's
# kernels are its own too, compiled for the CPU (cuda/simt.h). Needs CUDA's headers and a C++ compiler.
if(PGRUN_WITH_CUDA)
  enable_language(CXX)
  set(fake ${PROJECT_BINARY_DIR}/fake)
  add_library(pgrun_fake_cuda MODULE cuda/fake_cuda.c cuda/fake_cublaslt.c
              ${CMAKE_SOURCE_DIR}/kernels/cuda.c
              ${CMAKE_SOURCE_DIR}/kernels/cuda_ops.c ${CMAKE_SOURCE_DIR}/kernels/cuda_moe.c
              ${CMAKE_SOURCE_DIR}/kernels/cuda_linear.c ${CMAKE_SOURCE_DIR}/kernels/cuda_nvtx.c
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
      add_library(nccl_fake_${version} MODULE fake/nccl_fake.c fake/nccl_fake_data.c)
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
    add_executable(nccl_library_test unit/nccl_library_test.c
                   ${CMAKE_SOURCE_DIR}/runtime/comm_nccl_library.c)
    target_include_directories(nccl_library_test SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS}
                               ${PGRUN_NCCL_INCLUDE})
    target_link_libraries(nccl_library_test PRIVATE pgrun_core PkgConfig::CMOCKA)
    add_test(NAME unit/nccl_library COMMAND nccl_library_test)
    set_tests_properties(unit/nccl_library PROPERTIES LABELS "unit;cuda" TIMEOUT 20)
    add_executable(nccl_calls fake/nccl_calls.c)
    target_include_directories(nccl_calls SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS}
                               ${PGRUN_NCCL_INCLUDE})
    target_link_libraries(nccl_calls PRIVATE pgrun_core)
    add_dependencies(nccl_calls pgrun_fake_cuda)
    add_test(NAME nccl/calls COMMAND nccl_calls)
    add_test(NAME nccl/overlap
             COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/fake/nccl_overlap.sh $<TARGET_FILE:overlap_test>)
    set_tests_properties(nccl/run nccl/faults nccl/operations nccl/overlap nccl/calls PROPERTIES LABELS "mpi;cuda" TIMEOUT 400
      ENVIRONMENT "PGRUN_MODULE_PATH=${fake};LD_LIBRARY_PATH=${fake}/driver")
  endif()
  # A profiler of its own, which the module's ranges are told to.
  if(PGRUN_NVTX_INCLUDE)
    target_compile_definitions(pgrun_fake_cuda PRIVATE PGRUN_WITH_NVTX)
    target_include_directories(pgrun_fake_cuda SYSTEM PRIVATE ${PGRUN_NVTX_INCLUDE})
    target_link_libraries(pgrun_fake_cuda PRIVATE ${CMAKE_DL_LIBS})
    add_library(nvtx_recorder MODULE cuda/nvtx_recorder.c)
    set_target_properties(nvtx_recorder PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${fake})
    target_include_directories(nvtx_recorder SYSTEM PRIVATE ${PGRUN_NVTX_INCLUDE})
    add_test(NAME cuda/ranges COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cuda/ranges.sh $<TARGET_FILE:pgrun>
                                      $<TARGET_FILE:nvtx_recorder>)
    set_tests_properties(cuda/ranges PROPERTIES LABELS cuda TIMEOUT 60
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

  set(variables "PGRUN_MODULE_PATH=${fake};LD_LIBRARY_PATH=${fake}/driver;ASAN_OPTIONS=allocator_may_return_null=1;PGRUN_TEST_TIMEOUT=180")
  add_test(NAME cuda/operations COMMAND device_test cuda)
  add_test(NAME cuda/router_oracle COMMAND router_oracle_test cuda ${router_oracle})
  add_dependencies(router_oracle_test pgrun_fake_cuda pgrun_fake_driver)
  set_tests_properties(cuda/router_oracle PROPERTIES LABELS "unit;cuda" TIMEOUT 400
                       ENVIRONMENT "${variables}")
  add_test(NAME cuda/moe COMMAND device_moe_test cuda)
  add_test(NAME cuda/faults
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cuda/faults.sh $<TARGET_FILE:device_test>)
  add_test(NAME cuda/run
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cuda/run.sh $<TARGET_FILE:pgrun>)
  add_dependencies(device_test pgrun_fake_cuda pgrun_fake_driver)
  add_dependencies(device_moe_test pgrun_fake_cuda pgrun_fake_driver)
  set_tests_properties(cuda/moe PROPERTIES LABELS "unit;cuda" TIMEOUT 300 ENVIRONMENT "${variables}")
  set_tests_properties(cuda/operations cuda/faults PROPERTIES LABELS "unit;cuda" TIMEOUT 400
                       ENVIRONMENT "${variables}")
  # Communication over MPI, staged through pinned memory.
  set(mpirun ${CMAKE_CURRENT_SOURCE_DIR}/mpirun.sh)
  foreach(ranks 1 2 4)
    add_test(NAME staged/${ranks}_ranks COMMAND ${mpirun} ${ranks} $<TARGET_FILE:staged_test> cuda)
    list(APPEND staged staged/${ranks}_ranks)
  endforeach()
  add_test(NAME staged/pieces COMMAND ${mpirun} 3 $<TARGET_FILE:staged_test> cuda)
  foreach(what large late reopen)
    add_test(NAME staged/${what} COMMAND ${mpirun} 2 $<TARGET_FILE:staged_test> cuda ${what})
  endforeach()
  add_test(NAME staged/run COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cuda/staged_run.sh $<TARGET_FILE:pgrun>)
  add_test(NAME staged/faults
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cuda/staged_faults.sh $<TARGET_FILE:pgrun>)
  set_tests_properties(${staged} staged/pieces staged/large staged/late staged/reopen staged/run
                       staged/faults PROPERTIES LABELS "mpi;cuda" TIMEOUT 400
                       ENVIRONMENT "${variables}")
  set_tests_properties(staged/run staged/faults staged/large PROPERTIES TIMEOUT 400)
  # Several pieces of each operation, whose counts MPI splits again.
  set_tests_properties(staged/pieces PROPERTIES
                       ENVIRONMENT "${variables};PGRUN_STAGED_BYTES=200;PGRUN_MPI_MAX_COUNT=61")
  # The module itself: machine code and PTX for each GPU that it was built for.
  if("${CMAKE_CUDA_ARCHITECTURES}" MATCHES "^[0-9;]+$")
    add_test(NAME cuda/architectures
             COMMAND lua5.4 ${CMAKE_CURRENT_SOURCE_DIR}/cuda/architectures.lua
                     $<TARGET_FILE:pgrun_cuda> ${CMAKE_CUDA_ARCHITECTURES})
    set_tests_properties(cuda/architectures PROPERTIES LABELS cuda TIMEOUT 20)
  endif()
  set_tests_properties(cuda/run PROPERTIES LABELS "mpi;cuda" TIMEOUT 400
                       ENVIRONMENT "${variables}")
endif()
