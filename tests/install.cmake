# The installed tree, moved: as a package for C programs, and under mpirun.
foreach(what package mpirun)
  add_test(NAME install_${what}
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/install/run.sh ${what} ${PROJECT_BINARY_DIR})
endforeach()
set_tests_properties(install_package PROPERTIES LABELS install TIMEOUT 120)
set_tests_properties(install_mpirun PROPERTIES LABELS "install;mpi" TIMEOUT 120)
