# `pgrun check` and `pgrun explain`, as a user types them.
add_test(NAME check/command COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/busted.sh $<TARGET_FILE:pgrun>
         tests/spec/check_spec.lua)
set_tests_properties(check/command PROPERTIES LABELS "check;cli" TIMEOUT 120)
