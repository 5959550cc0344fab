# What scripts/gpu-bench and scripts/gpu-test run beside the tests that are there anyway.
if(NOT PGRUN_WITH_CUDA)
  return()
endif()

# Speed on a GPU (scripts/gpu-bench). On the stand-in, with the module in the program so that bare
# calls of cuBLASLt reach the stand-in too: every row is there, and no number means anything.
set(gpu_bench bench/gpu_bench.c bench/gpu_bench_measure.c bench/gpu_bench_bare.c
    bench/gpu_bench_router.c bench/gpu_bench_linear.c bench/gpu_bench_context.c)
add_executable(gpu_bench ${gpu_bench})
target_link_libraries(gpu_bench PRIVATE CUDA::cudart CUDA::cublasLt)
add_dependencies(gpu_bench pgrun_cuda)
set_target_properties(gpu_bench PROPERTIES BUILD_WITH_INSTALL_RPATH TRUE
                      INSTALL_RPATH "${CUDAToolkit_LIBRARY_DIR}")
add_executable(gpu_bench_fake ${gpu_bench} $<TARGET_OBJECTS:pgrun_fake_cuda>)
target_compile_definitions(gpu_bench_fake PRIVATE PGR_BENCH_LINKED)
target_link_libraries(gpu_bench_fake PRIVATE $<TARGET_PROPERTY:pgrun_fake_cuda,LINK_LIBRARIES>)
# The stand-in may have C++ in it.
get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
if("CXX" IN_LIST languages)
  set_target_properties(gpu_bench_fake PROPERTIES LINKER_LANGUAGE CXX)
endif()
foreach(program gpu_bench gpu_bench_fake)
  target_include_directories(${program} PRIVATE ${CMAKE_SOURCE_DIR}/lua)
  target_include_directories(${program} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(${program} PRIVATE pgrun_core)
endforeach()
add_executable(gpu_devices cuda/devices.c)
target_link_libraries(gpu_devices PRIVATE pgrun_core)
add_test(NAME cuda/bench
         COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cuda/bench.sh $<TARGET_FILE:gpu_bench_fake>)
set_tests_properties(cuda/bench PROPERTIES LABELS "unit;cuda" TIMEOUT 400
                     ENVIRONMENT "ASAN_OPTIONS=allocator_may_return_null=1")
