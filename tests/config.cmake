# From the text of a config to a pgr_spec. config_dump loads a config and prints what it holds.
add_executable(config_dump unit/config_dump.c)
target_link_libraries(config_dump PRIVATE pgrun_config PkgConfig::LUA)

add_executable(config_test unit/config_test.c)
target_link_libraries(config_test PRIVATE pgrun_config PkgConfig::LUA PkgConfig::CMOCKA)
add_test(NAME config/unit COMMAND config_test)
set_tests_properties(config/unit PROPERTIES LABELS "unit;config" TIMEOUT 60)

add_executable(config_check_test unit/config_check_test.c)
target_link_libraries(config_check_test PRIVATE pgrun_config PkgConfig::LUA PkgConfig::CMOCKA)
add_test(NAME config/check COMMAND config_check_test)
set_tests_properties(config/check PROPERTIES LABELS "unit;config" TIMEOUT 60)

add_executable(positions_test unit/positions_test.c)
target_link_libraries(positions_test PRIVATE pgrun_config PkgConfig::LUA PkgConfig::CMOCKA)
add_test(NAME config/positions COMMAND positions_test)
set_tests_properties(config/positions PROPERTIES LABELS "unit;config" TIMEOUT 60)

add_test(NAME config/spec COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/busted.sh $<TARGET_FILE:config_dump>
         tests/spec/config_spec.lua)
set_tests_properties(config/spec PROPERTIES LABELS config TIMEOUT 120)

# The editor definitions in the tree are what the table of keys gives now.
add_test(NAME config/luacats COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/unit/luacats.sh
         $<TARGET_FILE:pgrun> ${PROJECT_SOURCE_DIR}/lua/pgrun.lua)
set_tests_properties(config/luacats PROPERTIES LABELS config TIMEOUT 20)

# The objects that Lua sees, in a plain Lua state.
add_executable(bind_state_test unit/bind_state_test.c)
target_link_libraries(bind_state_test PRIVATE pgrun_bind PkgConfig::CMOCKA)
add_test(NAME unit/bind_state COMMAND bind_state_test)
set_tests_properties(unit/bind_state PROPERTIES LABELS "unit;lua" TIMEOUT 120)
