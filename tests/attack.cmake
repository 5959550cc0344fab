# Configs that do harm, given to `pgrun check`.
add_test(NAME check/attacks COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/busted.sh $<TARGET_FILE:pgrun>
         tests/spec/attack_spec.lua)
set_tests_properties(check/attacks PROPERTIES LABELS "check;cli" TIMEOUT 240
                     ENVIRONMENT PGRUN_TEST_TIMEOUT=230)

# Any bytes, for a minute. It builds with clang and its own sanitizers, so one preset runs it.
if(NOT PGRUN_SANITIZE)
  add_test(NAME check/fuzz COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/fuzz.sh ${PROJECT_BINARY_DIR}/fuzz)
  set_tests_properties(check/fuzz PROPERTIES LABELS "check;fuzz" TIMEOUT 300 SKIP_RETURN_CODE 77)
endif()
