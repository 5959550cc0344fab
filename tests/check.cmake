# The rules that a layout must pass, on specs that no config was read for.
add_executable(check_test unit/check_test.c)
target_link_libraries(check_test PRIVATE pgrun_plan PkgConfig::CMOCKA)
add_test(NAME unit/check COMMAND check_test)
set_tests_properties(unit/check PROPERTIES LABELS "unit;check" TIMEOUT 60)
