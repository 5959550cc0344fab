# The installed tree, moved: as a package for C programs, and under mpirun.
foreach(what package mpirun)
  add_test(NAME install_${what}
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/install/run.sh ${what} ${PROJECT_BINARY_DIR})
endforeach()
set_tests_properties(install_package PROPERTIES LABELS install TIMEOUT 120)
set_tests_properties(install_mpirun PROPERTIES LABELS "install;mpi" TIMEOUT 120)

# The linter alone, built without MPI and BLAS and run without them. It is a build of its own, so one
# preset does it.
if(NOT PGRUN_SANITIZE)
  add_test(NAME install_chroot COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/install/chroot.sh ${PROJECT_SOURCE_DIR})
  set_tests_properties(install_chroot PROPERTIES LABELS "install;check" TIMEOUT 180 SKIP_RETURN_CODE 77)
endif()

# The relocatable folder, in a root that has nothing else. One preset is enough here too.
if(NOT PGRUN_SANITIZE)
  add_test(NAME install_bundle
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/install/bundle.sh ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
  set_tests_properties(install_bundle PROPERTIES LABELS "install;mpi" TIMEOUT 300 PROCESSORS 2
                       SKIP_RETURN_CODE 77)
endif()

# The bundle with gpu-test and gpu-bench, in such a root: without a GPU, and with the stand-in for one.
if(PGRUN_WITH_NCCL AND NOT PGRUN_SANITIZE)
  add_test(NAME install_gpu
           COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/install/gpu.sh ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
  set_tests_properties(install_gpu PROPERTIES LABELS "install;mpi;cuda" TIMEOUT 500 PROCESSORS 2
                       SKIP_RETURN_CODE 77)
endif()
