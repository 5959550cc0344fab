# The CPU module's tests and benchmarks; benchmarks are targets, not tests.
function(pgrun_kernels_executable name source)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE pgrun_cpu_objects ${ARGN})
endfunction()

pgrun_kernels_executable(router_oracle_test unit/router_oracle_test.c pgrun_core
                         PkgConfig::CMOCKA PkgConfig::JANSSON)
add_test(NAME unit/router_oracle
         COMMAND router_oracle_test ${CMAKE_CURRENT_SOURCE_DIR}/oracles/megatron-router.jsonl)
set_tests_properties(unit/router_oracle PROPERTIES LABELS "unit" TIMEOUT 60)

foreach(name kernels router)
  pgrun_kernels_executable(${name}_test unit/${name}_test.c PkgConfig::CMOCKA)
  add_test(NAME unit/${name} COMMAND ${name}_test)
  # a refused allocation is a test, which the address sanitizer would else end
  set_tests_properties(unit/${name} PROPERTIES LABELS "unit" TIMEOUT 120
                       ENVIRONMENT "ASAN_OPTIONS=allocator_may_return_null=1")
endforeach()

# The router's forms for other instruction sets than this machine's best.
foreach(form plain avx2)
  add_test(NAME unit/router_${form} COMMAND router_test)
  set_tests_properties(unit/router_${form} PROPERTIES LABELS "unit" TIMEOUT 120
                       ENVIRONMENT "ASAN_OPTIONS=allocator_may_return_null=1;PGRUN_CPU=${form}")
endforeach()

foreach(name linear router context)
  pgrun_kernels_executable(bench_${name} bench/bench_${name}.c)
endforeach()

# What the CUDA module does without a GPU: its decisions, and its threads one after the other.
pgrun_kernels_executable(cuda_host_test unit/cuda_host_test.c pgrun_cuda_host PkgConfig::CMOCKA)
add_test(NAME unit/cuda_host COMMAND cuda_host_test)
set_tests_properties(unit/cuda_host PROPERTIES LABELS "unit;cuda" TIMEOUT 60)

# Every operation on every kind of device, by one table of cases; skipped where there is none.
add_executable(device_test unit/device_test.c)
target_link_libraries(device_test PRIVATE pgrun_core)
add_executable(device_moe_test unit/device_moe_test.c)
target_link_libraries(device_moe_test PRIVATE pgrun_core)
add_dependencies(device_test pgrun_cpu)
add_dependencies(device_moe_test pgrun_cpu)
if(PGRUN_WITH_CUDA)
  add_dependencies(device_test pgrun_cuda)
  add_dependencies(device_moe_test pgrun_cuda)
endif()
foreach(kind cpu cuda)
  add_test(NAME unit/device_${kind} COMMAND device_test ${kind})
  add_test(NAME unit/device_moe_${kind} COMMAND device_moe_test ${kind})
  set_tests_properties(unit/device_${kind} unit/device_moe_${kind} PROPERTIES LABELS "unit;cuda" TIMEOUT 120
                       SKIP_RETURN_CODE 77
                       ENVIRONMENT "ASAN_OPTIONS=allocator_may_return_null=1;PGRUN_MODULE_PATH=${PROJECT_BINARY_DIR}/lib/pgrun")
endforeach()
