# The house's rules as tests (tests/rules/rules.sh), each with a self-test that shows it can fail.
set(rules ${CMAKE_CURRENT_SOURCE_DIR}/rules)

function(pgrun_rule rule)
  add_test(NAME rule_${rule} COMMAND ${rules}/rules.sh ${rule} ${ARGN})
  add_test(NAME rule_${rule}_selftest COMMAND ${rules}/selftest.sh ${rule})
  set_tests_properties(rule_${rule} rule_${rule}_selftest PROPERTIES LABELS rules TIMEOUT 60)
endfunction()

foreach(rule includes foreign names exit prints format luacheck shellcheck lines oracles)
  pgrun_rule(${rule})
endforeach()
set_tests_properties(rule_shellcheck rule_shellcheck_selftest PROPERTIES SKIP_RETURN_CODE 77)
set(modules $<TARGET_FILE:pgrun_mpi> $<TARGET_FILE:pgrun_cpu>)
if(PGRUN_WITH_CUDA)
  list(APPEND modules $<TARGET_FILE:pgrun_cuda>)
endif()
pgrun_rule(libraries $<TARGET_FILE:pgrun> $<TARGET_FILE:pgrun_shared> ${modules})
pgrun_rule(symbols $<TARGET_FILE:pgrun_shared> ${modules})
