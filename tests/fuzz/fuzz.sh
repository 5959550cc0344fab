#!/bin/bash
# fuzz.sh BUILD [SECONDS] - builds the fuzz preset in folder BUILD and fuzzes `check` for a minute, or
# SECONDS, from the configs of this tree, the attacks and what earlier runs kept in BUILD/corpus. An input
# that fails is kept in BUILD/found-*. Exit status 77 where there is no clang with libFuzzer.
set -euo pipefail
if [ $# -lt 1 ]; then
    sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"
    exit 2
fi
mkdir -p "$1"
build=$(realpath "$1") seconds=${2:-60}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

printf 'int LLVMFuzzerTestOneInput(const char *b, long n) { return b && n < 0; }\n' >"$build/probe.c"
if ! clang -fsanitize=fuzzer,address,undefined "$build/probe.c" -o "$build/probe" 2>"$build/probe.log"; then
    echo "skipped: no clang that has libFuzzer (Debian: clang and libclang-rt-dev); see $build/probe.log"
    exit 77
fi
cmake -S . -B "$build" --preset fuzz >"$build/configure.log" || { cat "$build/configure.log"; exit 1; }
cmake --build "$build" --target fuzz_check >"$build/build.log" || { cat "$build/build.log"; exit 1; }

mkdir -p "$build/seeds" "$build/corpus"
find configs docs -name '*.lua' -size -64k | while read -r file; do
    cp "$file" "$build/seeds/$(tr / - <<<"$file")"
done
LUA_PATH="$PWD/tests/spec/?.lua;;" lua5.4 tests/fuzz/seeds.lua "$build/seeds" "$build/words" lua/pgrun.lua
exec timeout $((seconds + 60)) "$build/bin/fuzz_check" -max_total_time="$seconds" -timeout=20 \
    -rss_limit_mb=2048 -max_len=8192 -dict="$build/words" -artifact_prefix="$build/found-" -verbosity=1 \
    -reload=0 -print_final_stats=1 "$build/corpus" "$build/seeds"
