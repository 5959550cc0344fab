# Which rank holds which tokens, and what stands on that map. verify.h is private to runtime/, which is
# in the core's include folders anyway.
add_executable(tokens_test unit/tokens_test.c)
target_link_libraries(tokens_test PRIVATE pgrun_core PkgConfig::CMOCKA)
add_test(NAME unit/tokens COMMAND tokens_test)
set_tests_properties(unit/tokens PROPERTIES LABELS "unit;workload" TIMEOUT 60)
