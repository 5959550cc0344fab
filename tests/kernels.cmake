# The CPU module's tests and benchmarks; benchmarks are targets, not tests.
function(pgrun_kernels_executable name source)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE pgrun_cpu_objects ${ARGN})
endfunction()

foreach(name kernels router)
  pgrun_kernels_executable(${name}_test unit/${name}_test.c PkgConfig::CMOCKA)
  add_test(NAME unit/${name} COMMAND ${name}_test)
  # a refused allocation is a test, which the address sanitizer would else end
  set_tests_properties(unit/${name} PROPERTIES LABELS "unit" TIMEOUT 120
                       ENVIRONMENT "ASAN_OPTIONS=allocator_may_return_null=1")
endforeach()

pgrun_kernels_executable(router_random_test unit/router_random_test.c pgrun_core PkgConfig::CMOCKA)
add_test(NAME unit/router_random COMMAND router_random_test)
set_tests_properties(unit/router_random PROPERTIES LABELS "unit" TIMEOUT 120)

# The router's forms for other instruction sets than this machine's best.
foreach(form plain avx2)
  foreach(name router router_random)
    add_test(NAME unit/${name}_${form} COMMAND ${name}_test)
    set_tests_properties(unit/${name}_${form} PROPERTIES LABELS "unit" TIMEOUT 120
                         ENVIRONMENT "ASAN_OPTIONS=allocator_may_return_null=1;PGRUN_CPU=${form}")
  endforeach()
endforeach()

foreach(name linear router context)
  pgrun_kernels_executable(bench_${name} bench/bench_${name}.c)
endforeach()

# What the CUDA module does without a GPU: its decisions, and its threads one after the other.
pgrun_kernels_executable(cuda_host_test unit/cuda_host_test.c pgrun_cuda_host PkgConfig::CMOCKA)
add_test(NAME unit/cuda_host COMMAND cuda_host_test)
set_tests_properties(unit/cuda_host PROPERTIES LABELS "unit;cuda" TIMEOUT 60)

# Every operation on every kind of device, by one table of cases; skipped where there is none.
add_executable(device_test unit/device_test.c unit/device_context.c)
target_link_libraries(device_test PRIVATE pgrun_core)
# So is every row of what Megatron-Core's router answered.
add_executable(router_oracle_test unit/router_oracle_test.c)
target_link_libraries(router_oracle_test PRIVATE pgrun_core PkgConfig::CMOCKA PkgConfig::JANSSON)
# The router and capacity at every size.
add_executable(device_moe_test unit/device_moe_test.c)
target_link_libraries(device_moe_test PRIVATE pgrun_core)
foreach(name device_test device_moe_test router_oracle_test)
  add_dependencies(${name} pgrun_cpu)
  if(PGRUN_WITH_CUDA)
    add_dependencies(${name} pgrun_cuda)
  endif()
endforeach()
set(router_oracle ${CMAKE_CURRENT_SOURCE_DIR}/oracles/megatron-router.jsonl)
foreach(kind cpu cuda)
  add_test(NAME unit/device_${kind} COMMAND device_test ${kind})
  add_test(NAME unit/device_moe_${kind} COMMAND device_moe_test ${kind})
  add_test(NAME unit/router_oracle_${kind} COMMAND router_oracle_test ${kind} ${router_oracle})
  set_tests_properties(unit/device_${kind} unit/device_moe_${kind} unit/router_oracle_${kind} PROPERTIES
                       LABELS "unit;cuda" TIMEOUT 300 SKIP_RETURN_CODE 77
                       ENVIRONMENT "ASAN_OPTIONS=allocator_may_return_null=1;PGRUN_MODULE_PATH=${PROJECT_BINARY_DIR}/lib/pgrun")
endforeach()
