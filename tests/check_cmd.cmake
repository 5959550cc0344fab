# `pgrun check` and `pgrun explain`, as a user types them.
add_test(NAME check/command COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/busted.sh $<TARGET_FILE:pgrun>
         tests/spec/check_spec.lua)
set_tests_properties(check/command PROPERTIES LABELS "check;cli" TIMEOUT 120)

# The page of diagnostics in the tree is what the table of rules gives now.
add_test(NAME check/page COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/diagnostics_page.sh
         $<TARGET_FILE:pgrun> ${PROJECT_SOURCE_DIR}/docs/diagnostics.md)
set_tests_properties(check/page PROPERTIES LABELS check TIMEOUT 20)
