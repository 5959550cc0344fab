# The command line, as a user types it.
add_test(NAME cli COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/busted.sh $<TARGET_FILE:pgrun>
         tests/spec/cli_spec.lua tests/spec/configs_spec.lua)
set_tests_properties(cli PROPERTIES LABELS cli TIMEOUT 120)
# Pictures, tables for scripts, and a million ranks.
add_test(NAME cli/groups COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/busted.sh $<TARGET_FILE:pgrun>
         tests/spec/groups_spec.lua)
set_tests_properties(cli/groups PROPERTIES LABELS cli TIMEOUT 180)
