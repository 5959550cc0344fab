# The general grid, and vLLM's layout as one.
add_test(NAME grid COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/busted.sh $<TARGET_FILE:pgrun>
         tests/spec/grid_spec.lua tests/spec/vllm_spec.lua)

# The page that lists each getter of three systems. pg_eval asks in Lua what it says can be asked.
add_executable(pg_eval unit/pg_eval.c)
target_link_libraries(pg_eval PRIVATE pgrun_bind PkgConfig::LUA)
add_test(NAME getters COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/busted.sh $<TARGET_FILE:pgrun>
         tests/spec/getters_spec.lua tests/spec/getters_vllm_spec.lua)
set_tests_properties(grid getters PROPERTIES LABELS "cli;docs" TIMEOUT 120)
set_property(TEST getters PROPERTY ENVIRONMENT "PGRUN_LIBRARY=$<TARGET_FILE:pgrun_shared>"
             "PG_EVAL=$<TARGET_FILE:pg_eval>")
