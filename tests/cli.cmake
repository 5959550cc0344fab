# The command line, as a user types it.
add_test(NAME cli COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/busted.sh $<TARGET_FILE:pgrun>
         tests/spec/cli_spec.lua tests/spec/configs_spec.lua)
set_tests_properties(cli PROPERTIES LABELS cli TIMEOUT 120)

# The general grid, vLLM's layout as one, and the page that lists each getter of three systems.
add_test(NAME grid COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/busted.sh $<TARGET_FILE:pgrun>
         tests/spec/grid_spec.lua tests/spec/vllm_spec.lua)
add_test(NAME getters COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/busted.sh $<TARGET_FILE:pgrun>
         tests/spec/getters_spec.lua)
set_tests_properties(grid getters PROPERTIES LABELS "cli;docs" TIMEOUT 120
                     ENVIRONMENT PGRUN_LIBRARY=$<TARGET_FILE:pgrun_shared>)
