# libpgrun.so and what `cmake --install` puts where. Everything is found relative to everything else,
# so the installed tree can be moved.

# The library: the rooms without the command line. The static parts are compiled once for both, with
# default visibility; the version script decides what leaves the library.
set_target_properties(pgrun_plan pgrun_core pgrun_config PROPERTIES C_VISIBILITY_PRESET default)
add_library(pgrun_shared SHARED $<TARGET_OBJECTS:pgrun_plan> $<TARGET_OBJECTS:pgrun_core>
                                $<TARGET_OBJECTS:pgrun_config>)
target_link_libraries(pgrun_shared PRIVATE PkgConfig::LUA m ${CMAKE_DL_LIBS} Threads::Threads)
target_link_options(pgrun_shared PRIVATE
                    -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/libpgrun.map)
target_include_directories(pgrun_shared INTERFACE
                           $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
set_target_properties(pgrun_shared PROPERTIES
                      OUTPUT_NAME pgrun EXPORT_NAME pgrun
                      VERSION ${PROJECT_VERSION} SOVERSION 0
                      LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib
                      LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/libpgrun.map)

set(modules pgrun_mpi pgrun_cpu)
if(PGRUN_WITH_CUDA)
  list(APPEND modules pgrun_cuda)
endif()
foreach(module ${modules})
  target_link_options(${module} PRIVATE
                      -Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/module.map)
  # A module built against an MPI or BLAS of a place of its own finds it again after the install.
  set_target_properties(${module} PROPERTIES
                        INSTALL_RPATH_USE_LINK_PATH TRUE
                        LINK_DEPENDS ${PROJECT_SOURCE_DIR}/cmake/module.map)
endforeach()

install(TARGETS pgrun RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS pgrun_shared EXPORT pgrunTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS ${modules} LIBRARY DESTINATION ${PGRUN_MODULE_DIR})

# The headers that pgrun.h includes, read off it, so that none is forgotten.
file(STRINGS ${PROJECT_SOURCE_DIR}/runtime/pgrun.h includes REGEX "^#include \"")
set(headers ${PROJECT_SOURCE_DIR}/runtime/pgrun.h)
foreach(line ${includes})
  string(REGEX REPLACE "#include \"(.*)\".*" "\\1" name "${line}")
  foreach(room runtime kernels lua)
    if(EXISTS ${PROJECT_SOURCE_DIR}/${room}/${name})
      list(APPEND headers ${PROJECT_SOURCE_DIR}/${room}/${name})
    endif()
  endforeach()
endforeach()
install(FILES ${headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/pgrun)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/configs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/pgrun/configs
        FILES_MATCHING PATTERN "*.lua")

# The editor's definitions (LuaCATS) of the config; a test keeps them as `pgrun --help luacats` says.
install(FILES ${PROJECT_SOURCE_DIR}/lua/pgrun.lua DESTINATION ${CMAKE_INSTALL_DATADIR}/pgrun/lua)

# pkg-config and CMake's find_package.
file(RELATIVE_PATH PGRUN_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" PGRUN_PC_PREFIX "${PGRUN_PC_PREFIX}")
configure_file(cmake/pgrun.pc.in pgrun.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/pgrun.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/pgrun)
configure_package_config_file(cmake/pgrunConfig.cmake.in pgrunConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(pgrunConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/pgrunConfig.cmake ${PROJECT_BINARY_DIR}/pgrunConfigVersion.cmake
        DESTINATION ${package_dir})
install(EXPORT pgrunTargets NAMESPACE pgrun:: DESTINATION ${package_dir})
