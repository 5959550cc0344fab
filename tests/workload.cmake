# Workloads under mpirun, as they are and with planted faults; the quickstart at every size.
add_executable(workload_test mpi/workload_test.c)
target_link_libraries(workload_test PRIVATE pgrun_core pgrun_config)
foreach(ranks 1 2 4 8)
  add_test(NAME mpi/workload_${ranks}
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpirun.sh ${ranks} $<TARGET_FILE:workload_test>)
  set_tests_properties(mpi/workload_${ranks} PROPERTIES LABELS "mpi;workload" TIMEOUT 120
                       PROCESSORS 2)
endforeach()
