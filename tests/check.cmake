# The rules that a layout must pass, on specs that no config was read for.
foreach(name check check_refused check_moe check_cluster check_help)
  add_executable(${name}_test unit/${name}_test.c)
  target_link_libraries(${name}_test PRIVATE pgrun_plan PkgConfig::CMOCKA)
  add_test(NAME unit/${name} COMMAND ${name}_test)
  set_tests_properties(unit/${name} PROPERTIES LABELS "unit;check" TIMEOUT 300)
endforeach()

# Each way out is tried on layouts at random; with the sanitizers on fewer.
if(PGRUN_SANITIZE)
  set_property(TEST unit/check_help APPEND PROPERTY ENVIRONMENT PGRUN_TEST_LAYOUTS=300)
endif()

# `pgrun check` where memory is short. --wrap is for all of the program, not for what it loads.
add_executable(check_memory_test unit/check_memory_test.c)
target_link_libraries(check_memory_test PRIVATE pgrun_check PkgConfig::LUA PkgConfig::CMOCKA)
foreach(name malloc calloc realloc strdup free realpath opendir)
  target_link_options(check_memory_test PRIVATE -Wl,--wrap=${name})
endforeach()
add_test(NAME check/memory COMMAND check_memory_test ${PROJECT_SOURCE_DIR})
set_tests_properties(check/memory PROPERTIES LABELS "unit;check" TIMEOUT 120)
