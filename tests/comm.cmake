# Deadlines, against a clock of the test's own.
add_executable(deadline_test unit/deadline_test.c)
target_include_directories(deadline_test PRIVATE ${CMAKE_SOURCE_DIR}/runtime)
target_link_libraries(deadline_test PRIVATE PkgConfig::CMOCKA)
add_test(NAME unit/deadline COMMAND deadline_test)
set_tests_properties(unit/deadline PROPERTIES LABELS "unit;comm" TIMEOUT 20)

# Jobs, modules and communicators: alone and under mpirun.
add_executable(comm_test mpi/comm_test.c mpi/comm_test_collectives.c mpi/comm_test_waiting.c)
target_link_libraries(comm_test PRIVATE pgrun_core m)
add_dependencies(comm_test pgrun_mpi pgrun_cpu)

set(mpirun ${CMAKE_CURRENT_SOURCE_DIR}/mpirun.sh)
add_test(NAME comm/alone COMMAND comm_test)
foreach(ranks 1 2 4 8)
  add_test(NAME comm/${ranks}_ranks COMMAND ${mpirun} ${ranks} $<TARGET_FILE:comm_test>)
endforeach()
# Counts above a limit are split: a small limit makes it happen with little data.
foreach(ranks 3 4)
  add_test(NAME comm/split_${ranks}_ranks COMMAND ${mpirun} ${ranks} $<TARGET_FILE:comm_test>)
  set_tests_properties(comm/split_${ranks}_ranks PROPERTIES ENVIRONMENT PGRUN_MPI_MAX_COUNT=7)
endforeach()
add_test(NAME comm/late COMMAND ${mpirun} 2 $<TARGET_FILE:comm_test> late)
add_test(NAME comm/progress COMMAND ${mpirun} 4 $<TARGET_FILE:comm_test> progress)
add_test(NAME comm/launcher
         COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpi/launcher_test.sh $<TARGET_FILE:comm_test>)

set_tests_properties(comm/alone comm/1_ranks comm/2_ranks comm/4_ranks comm/8_ranks
                     comm/split_3_ranks comm/split_4_ranks comm/late comm/progress comm/launcher
                     PROPERTIES LABELS mpi TIMEOUT 90)
