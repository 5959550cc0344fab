# What `pgrun groups --rank` tells of a rank beside its groups.
add_executable(groups_rank_test unit/groups_rank_test.c ${CMAKE_SOURCE_DIR}/lua/groups_rank.c)
target_include_directories(groups_rank_test PRIVATE ${CMAKE_SOURCE_DIR}/lua)
target_link_libraries(groups_rank_test PRIVATE pgrun_plan PkgConfig::CMOCKA)
add_test(NAME unit/groups_rank COMMAND groups_rank_test)
set_tests_properties(unit/groups_rank PROPERTIES LABELS "unit;plan" TIMEOUT 60)

# The plan and the padding rule: linked against the plan alone, and checked against what
# Megatron-Core answered.
foreach(area plan plan_grid plan_oracle plan_rules plan_check plan_mend padding
             state state_holds state_random state_oracle)
  add_executable(${area}_test unit/${area}_test.c)
  target_link_libraries(${area}_test PRIVATE pgrun_plan PkgConfig::CMOCKA PkgConfig::JANSSON)
  target_compile_definitions(${area}_test PRIVATE PGR_ORACLES="${CMAKE_CURRENT_SOURCE_DIR}/oracles")
  add_test(NAME unit/${area} COMMAND ${area}_test)
  set_tests_properties(unit/${area} PROPERTIES LABELS "unit;plan" TIMEOUT 60)
endforeach()

# What `pgrun groups` prints, without the config that it comes from.
add_executable(groups_test unit/groups_test.c)
target_link_libraries(groups_test PRIVATE pgrun_groups PkgConfig::CMOCKA PkgConfig::JANSSON)
add_test(NAME unit/groups COMMAND groups_test)
set_tests_properties(unit/groups PROPERTIES LABELS "unit;plan" TIMEOUT 60)

add_executable(bench_groups bench/bench_groups.c)
target_link_libraries(bench_groups PRIVATE pgrun_groups)
