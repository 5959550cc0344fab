#!/bin/bash
# busted.sh PGRUN SPEC... - runs busted specs under Lua 5.4 (Debian's `busted` takes Lua 5.1), from the
# root of the tree. The specs find the program in $PGRUN and their shared modules in tests/spec.
set -u
if [ $# -lt 2 ]; then
    echo "usage: $0 PGRUN SPEC..." >&2
    exit 2
fi
PGRUN=$(realpath "$1")
export PGRUN
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
export LUA_PATH="$PWD/tests/spec/?.lua;;"
# Colours and cursor movements have no place in a log.
timeout "${PGRUN_TEST_TIMEOUT:-120}" lua5.4 /usr/bin/busted --output=utfTerminal --no-coverage "$@"
status=$?
[ "$status" != 124 ] || echo "busted.sh: stopped after ${PGRUN_TEST_TIMEOUT:-120} seconds" >&2
exit "$status"
