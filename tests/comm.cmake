# Deadlines, against a clock of the test's own.
add_executable(deadline_test unit/deadline_test.c)
target_include_directories(deadline_test PRIVATE ${CMAKE_SOURCE_DIR}/runtime)
target_link_libraries(deadline_test PRIVATE PkgConfig::CMOCKA)
add_test(NAME unit/deadline COMMAND deadline_test)
set_tests_properties(unit/deadline PROPERTIES LABELS "unit;comm" TIMEOUT 20)

# Jobs, modules and communicators: alone and under mpirun.
add_executable(comm_test mpi/comm_test.c mpi/comm_test_groups.c mpi/comm_test_collectives.c
               mpi/comm_test_waiting.c)
target_link_libraries(comm_test PRIVATE pgrun_core m)
add_dependencies(comm_test pgrun_mpi pgrun_cpu)

set(mpirun ${CMAKE_CURRENT_SOURCE_DIR}/mpirun.sh)
add_test(NAME comm/alone COMMAND comm_test)
foreach(ranks 1 2 4 8)
  add_test(NAME comm/${ranks}_ranks COMMAND ${mpirun} ${ranks} $<TARGET_FILE:comm_test>)
endforeach()
# Counts above a limit are split: a small limit makes it happen with little data. The smallest one is
# slow, and with few ranks.
add_test(NAME comm/split_3_ranks COMMAND ${mpirun} 3 $<TARGET_FILE:comm_test>)
set_tests_properties(comm/split_3_ranks PROPERTIES ENVIRONMENT PGRUN_MPI_MAX_COUNT=13)
add_test(NAME comm/split_4_ranks COMMAND ${mpirun} 4 $<TARGET_FILE:comm_test>)
set_tests_properties(comm/split_4_ranks PROPERTIES ENVIRONMENT PGRUN_MPI_MAX_COUNT=61)
# Layouts that other sizes do not have: 3 stages of 2, and 10 ranks cut into 4, 4 and 2.
foreach(ranks 6 10)
  add_test(NAME comm/groups_${ranks}_ranks COMMAND ${mpirun} ${ranks} $<TARGET_FILE:comm_test> groups)
endforeach()
add_test(NAME comm/outside COMMAND ${mpirun} 4 $<TARGET_FILE:comm_test> outside)
add_test(NAME comm/late COMMAND ${mpirun} 2 $<TARGET_FILE:comm_test> late)
add_test(NAME comm/progress COMMAND ${mpirun} 4 $<TARGET_FILE:comm_test> progress)
add_test(NAME comm/launcher
         COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/mpi/launcher_test.sh $<TARGET_FILE:comm_test>)

# The example of docs/running.md, which docs_spec.lua compares with it.
file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/include)
file(CREATE_LINK ${CMAKE_SOURCE_DIR}/runtime ${CMAKE_CURRENT_BINARY_DIR}/include/pgrun SYMBOLIC)
add_executable(comm_example mpi/example.c)
target_include_directories(comm_example PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/include)
target_link_libraries(comm_example PRIVATE pgrun_core pgrun_config)
add_dependencies(comm_example pgrun_mpi)
add_test(NAME comm/example COMMAND ${mpirun} 12 $<TARGET_FILE:comm_example>)
set_tests_properties(comm/example PROPERTIES LABELS "mpi;docs" TIMEOUT 60
                     PASS_REGULAR_EXPRESSION "rank 7: sum 13, embedding -1 of 0")

# Opened and closed a hundred times without growth. It looks at MPI's own handles.
add_executable(reopen_test mpi/reopen_test.c)
target_link_libraries(reopen_test PRIVATE pgrun_core MPI::MPI_C)
add_dependencies(reopen_test pgrun_mpi)
add_test(NAME comm/reopen COMMAND ${mpirun} 4 $<TARGET_FILE:reopen_test>)

set_tests_properties(comm/alone comm/1_ranks comm/2_ranks comm/4_ranks comm/8_ranks
                     comm/split_3_ranks comm/split_4_ranks comm/late comm/progress comm/launcher comm/reopen
                     comm/groups_6_ranks comm/groups_10_ranks comm/outside
                     PROPERTIES LABELS mpi TIMEOUT 90)
# Many rounds, which a machine that does other work, too, takes its time for.
set_tests_properties(comm/reopen PROPERTIES TIMEOUT 150 ENVIRONMENT PGRUN_TEST_TIMEOUT=140)

# Communicators that stage device memory, here the CPU's, which needs no such thing: cuda.cmake has more.
add_executable(staged_test mpi/staged_test.c mpi/staged_test_operations.c)
target_link_libraries(staged_test PRIVATE pgrun_core)
add_dependencies(staged_test pgrun_mpi pgrun_cpu)
add_test(NAME staged/cpu COMMAND ${mpirun} 3 $<TARGET_FILE:staged_test> cpu)
add_test(NAME staged/cpu_pieces COMMAND ${mpirun} 3 $<TARGET_FILE:staged_test> cpu)
add_test(NAME staged/cpu_late COMMAND ${mpirun} 3 $<TARGET_FILE:staged_test> cpu late)
set_tests_properties(staged/cpu staged/cpu_pieces staged/cpu_late PROPERTIES LABELS mpi TIMEOUT 90)
set_tests_properties(staged/cpu_pieces PROPERTIES ENVIRONMENT PGRUN_STAGED_BYTES=200)
