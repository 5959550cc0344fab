# Workloads under mpirun, as they are and with planted faults; runs as a user sees them.
add_executable(workload_test mpi/workload_test.c)
target_link_libraries(workload_test PRIVATE pgrun_core pgrun_config)
foreach(ranks 1 2 4 8)
  add_test(NAME mpi/workload_${ranks}
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpirun.sh ${ranks} $<TARGET_FILE:workload_test>)
  set_tests_properties(mpi/workload_${ranks} PROPERTIES LABELS "mpi;workload" TIMEOUT 240
                       ENVIRONMENT PGRUN_TEST_TIMEOUT=220 PROCESSORS 2)
endforeach()

add_executable(packed_test mpi/packed_test.c)
target_link_libraries(packed_test PRIVATE pgrun_core pgrun_config)
foreach(ranks 1 2 4 8)
  add_test(NAME mpi/packed_${ranks}
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpirun.sh ${ranks} $<TARGET_FILE:packed_test>)
  set_tests_properties(mpi/packed_${ranks} PROPERTIES LABELS "mpi;workload" TIMEOUT 120
                       PROCESSORS 2)
endforeach()

add_executable(layer_test mpi/layer_test.c)
target_link_libraries(layer_test PRIVATE pgrun_core pgrun_config m)
add_test(NAME mpi/layer COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpirun.sh 2 $<TARGET_FILE:layer_test>)
set_tests_properties(mpi/layer PROPERTIES LABELS "mpi;workload" TIMEOUT 60)

add_executable(overlap_test mpi/overlap_test.c)
target_link_libraries(overlap_test PRIVATE pgrun_core pgrun_config)
foreach(ranks 2 3 4)
  add_test(NAME mpi/overlap_${ranks}
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpirun.sh ${ranks} $<TARGET_FILE:overlap_test>)
  set_tests_properties(mpi/overlap_${ranks} PROPERTIES LABELS "mpi;workload" TIMEOUT 60)
endforeach()

add_test(NAME mpi/run COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/busted.sh $<TARGET_FILE:pgrun>
         tests/spec/run_spec.lua)
# One processor: most of its time is mpirun's pause after a rank's failure.
set_tests_properties(mpi/run PROPERTIES LABELS "mpi;cli" TIMEOUT 520
                     ENVIRONMENT PGRUN_TEST_TIMEOUT=500)

# Not under the sanitizers, where 64 ranks on 2 cores take minutes.
if(NOT PGRUN_SANITIZE)
  add_test(NAME mpi/big COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/busted.sh $<TARGET_FILE:pgrun>
           tests/spec/big_spec.lua)
  set_tests_properties(mpi/big PROPERTIES LABELS "mpi;big" TIMEOUT 300 PROCESSORS 2
                       ENVIRONMENT PGRUN_TEST_TIMEOUT=280)
endif()

add_test(NAME docs COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/busted.sh $<TARGET_FILE:pgrun>
         tests/spec/docs_spec.lua)
set_tests_properties(docs PROPERTIES LABELS "docs;mpi" TIMEOUT 300 PROCESSORS 2
                     ENVIRONMENT PGRUN_TEST_TIMEOUT=280)

add_executable(bench_open bench/bench_open.c)
target_link_libraries(bench_open PRIVATE pgrun_core pgrun_config MPI::MPI_C)
