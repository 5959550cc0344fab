#!/bin/bash
# rules.sh RULE [ARGUMENT...] - one rule of the house; prints each offending line, exit status 1 if any.
# Works on the tree in $PGRUN_ROOT (default: this one). The rules are the functions rule_* below.
set -uo pipefail
root=${PGRUN_ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)}
cd "$root" || exit 2
offences=0

offend() {
    printf '%s\n' "$*"
    offences=$((offences + 1))
}

# The product's C files.
sources() {
    find runtime kernels lua -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | sort
}

# code FILE - the file without comments and the text of strings, line for line.
code() {
    awk '{
        line = $0; out = ""
        while (line != "") {
            if (comment) {
                end = index(line, "*/")
                if (!end) break
                comment = 0; line = substr(line, end + 2)
            } else if (match(line, /\/\*|\/\/|"([^"\\]|\\.)*"/)) {
                found = substr(line, RSTART, RLENGTH)
                out = out substr(line, 1, RSTART - 1)
                line = substr(line, RSTART + RLENGTH)
                if (found == "//") break
                if (found == "/*") comment = 1; else out = out "\"\""
            } else { out = out line; break }
        }
        print out
    }' "$1"
}

# nowhere PATTERN WHY EXCEPT - offends for each line of code that matches outside of the files whose
# path matches EXCEPT (extended expressions).
nowhere() {
    local file line
    for file in $(sources); do
        [[ ! $file =~ $3 ]] || continue
        while read -r line; do
            offend "$file:$line  <- $2"
        done < <(code "$file" | grep -nE "$1")
    done
}

# room FILE - its place in the order of inclusion. Files that export a module's table are the door of
# that module: they may see the seam they implement, which is comm.h's.
room() {
    case $1 in
    runtime/status.*) echo 0 ;;
    runtime/spec* | runtime/padding*) echo 1 ;;
    runtime/diagnostic*) echo 2 ;;
    runtime/plan*) echo 3 ;;
    runtime/state*) echo 4 ;;
    runtime/check*) echo 5 ;;
    kernels/cpu.c | kernels/cuda.c) echo 7 ;;
    kernels/*) echo 6 ;;
    runtime/comm* | runtime/job* | runtime/deadline* | runtime/module*) echo 7 ;;
    runtime/layer*) echo 8 ;;
    runtime/verify* | runtime/workload*) echo 9 ;;
    runtime/report*) echo 10 ;;
    lua/* | runtime/pgrun.h) echo 11 ;;
    *) echo none ;;
    esac
}

# status -> spec -> diagnostic -> plan -> state -> check -> device -> comm -> layer -> workload -> report -> lua,
# leftwards only.
rule_includes() {
    local names=(status spec diagnostic plan state check device comm layer workload report lua)
    local file number name at from to folder
    for file in $(sources); do
        from=$(room "$file")
        if [ "$from" = none ]; then
            offend "$file  <- belongs to no room: give it one in tests/rules/rules.sh"
            continue
        fi
        while IFS=: read -r number name; do
            at=
            for folder in "$(dirname "$file")" runtime kernels lua; do
                [ ! -e "$folder/${name:1:-1}" ] || { at=$folder/${name:1:-1}; break; }
            done
            if [ -z "$at" ]; then
                [[ $name = "<"* ]] || offend "$file:$number: $name  <- no such header of ours"
                continue
            fi
            [[ $name != "<"* ]] || offend "$file:$number: $name  <- ours: include it with quotes"
            to=$(room "$(realpath --relative-to=. "$at")")
            # A file without a room offends by itself, above.
            [[ $to = none || $to -le $from ]] ||
                offend "$file:$number: $name  <- ${names[from]} may not include ${names[to]}"
        done < <(sed -nE 's/^[ \t]*#[ \t]*include[ \t]*("[^"]+"|<[^>]+>).*/\1/;T;=;p' "$file" | paste -d: - -)
    done
}

# Foreign headers stay behind their seams.
rule_foreign() {
    nowhere '#[ ]*include[ ]*<mpi\.h>' "mpi.h is for the MPI module alone" '^runtime/comm_mpi'
    nowhere '#[ ]*include[ ]*<(nccl|cuda|cublas|nvml|nvtx)[^>]*>' \
        "NCCL and CUDA headers are for the CUDA module alone" '^kernels/cuda|^runtime/comm_nccl'
    nowhere '#[ ]*include[ ]*<(cblas|openblas)[^>]*>' "BLAS is for the CPU module alone" '^kernels/cpu'
    nowhere '#[ ]*include[ ]*<(lua|lauxlib|lualib|luaconf)\.h(pp)?>' "Lua is for lua/ alone" '^lua/'
}

# Names that begin with mpi_ are MPI's own.
rule_names() {
    nowhere '(^|[^a-zA-Z0-9_])mpi_[a-z0-9_]+([^a-zA-Z0-9_.]|$)' "mpi_ is MPI's: pgr_mpi_" '^$'
}

# The library never exits; the command line does so in one place. Only a backend's `abort`, which must
# not return, may end the process, and a child that was forked to check a config.
rule_exit() {
    nowhere '(^|[^a-zA-Z0-9_>.])exit[ ]*\(' "exit( is for lua/main.c alone" '^lua/main\.c$'
    nowhere '(^|[^a-zA-Z0-9_>.])(_exit|_Exit|quick_exit|abort)[ ]*\(' \
        "only a backend's abort, or a forked child, ends the process" '^runtime/comm_|^lua/(main|run|check_child)\.c$'
}

# The library never prints; the report writes to the file that it is given.
rule_prints() {
    nowhere '(^|[^a-zA-Z0-9_])((v?printf|puts|putchar|perror|psignal)[ ]*\(|(stdout|stderr)([^a-zA-Z0-9_]|$))' \
        "the library never prints" '^runtime/report|^lua/'
}

# All C is formatted by .clang-format.
rule_format() {
    local file
    for file in $(find runtime kernels lua tests -name '*.[ch]' | sort); do
        clang-format --dry-run -Werror "$file" >/dev/null 2>&1 ||
            offend "$file  <- clang-format -i $file"
    done
}

rule_luacheck() {
    local out
    # shellcheck disable=SC2046 # a list of names
    out=$(luacheck --codes --no-color --quiet $(find lua configs tests -name '*.lua' | sort) .luacheckrc 2>&1) ||
        offend "$out"
}

# Shell scripts, where shellcheck is (no test needs it): exit status 77 where it is not.
rule_shellcheck() {
    local file out
    command -v shellcheck >/dev/null || { echo "skipped: shellcheck is not installed"; exit 77; }
    while read -r file; do
        out=$(shellcheck -x "$file" 2>&1) || offend "$out"
    done < <(grep -rlE '^#!/bin/(ba)?sh|^# shellcheck shell=' scripts tests --include='*.sh' --include='[!.]*' |
        grep -E '^scripts/|\.sh$' | sort)
}

rule_lines() {
    local file lines
    for file in $(find runtime kernels lua configs tests scripts cmake \
        -name '*.jsonl' -prune -o -type f -print | sort); do
        lines=$(wc -l <"$file")
        [ "$lines" -le 700 ] || offend "$file: $lines lines  <- more than 700: two ideas in one file?"
    done
}

# What the reference systems answered is used as it was recorded.
rule_oracles() {
    local out
    out=$(cd tests/oracles && sha256sum --quiet --strict -c SHA256SUMS 2>&1) || offend "$out"
}

# libraries ALLOWED FILE - offends for each library that FILE asks for and ALLOWED does not match. The
# sanitizers' own are always allowed.
libraries() {
    local name count=0
    while read -r name; do
        count=$((count + 1))
        [[ $name =~ ^(lib(asan|ubsan)\.so.*|ld-linux.*|$1)$ ]] || offend "$(basename "$2") needs $name"
    done < <(readelf -d "$2" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p')
    [ "$count" -gt 0 ] || offend "$2  <- not a program or library that names what it needs"
}

# rule_libraries PGRUN LIBPGRUN MPI_MODULE CPU_MODULE [CUDA_MODULE] - who links what: `pgrun` starts
# anywhere, and a module needs the one thing that it is for.
rule_libraries() {
    local base='libc\.so\.6|libm\.so\.6|libdl\.so\.2|libpthread\.so\.0'
    libraries "$base|liblua5\.4\.so\.0" "$1"
    libraries "$base|liblua5\.4\.so\.0" "$2"
    libraries "$base|libmpi\.so.*" "$3"
    libraries "$base|libopenblas\.so.*" "$4"
    if [ $# -gt 4 ]; then
        libraries "$base|libcudart\.so.*|libcublasLt\.so.*" "$5"
        # Whoever runs it has not set LD_LIBRARY_PATH: it must find the toolkit by itself.
        readelf -d "$5" | grep -qE 'R(UN)?PATH.*\[/' || offend "$(basename "$5") has no RUNPATH to the CUDA toolkit"
    fi
}

# symbols ALLOWED FILE - offends for each symbol that FILE exports and ALLOWED does not match.
symbols() {
    local name count=0
    while read -r name; do
        count=$((count + 1))
        [[ $name =~ ^($1)$ ]] || offend "$(basename "$2") exports $name"
    done < <(nm -D --defined-only "$2" | sed 's/.* //')
    [ "$count" -gt 0 ] || offend "$(basename "$2") exports nothing"
}

# rule_symbols LIBPGRUN MODULE... - what leaves each library, and that nothing declared in
# a public header stays inside.
rule_symbols() {
    local name exported module
    symbols 'pgr_[a-z0-9_]+' "$1"
    for module in "${@:2}"; do
        symbols 'pgr_module' "$module"
    done
    exported=$(nm -D --defined-only "$1" | sed 's/.* //')
    for name in $(public_functions); do
        grep -qx "$name" <<<"$exported" || offend "$(basename "$1") lacks $name, which a header declares"
    done
}

# The functions that the public headers declare: a name at a line's start after a type, then "(".
public_functions() {
    local name header
    while read -r name; do
        for header in runtime/$name kernels/$name lua/$name; do
            [ ! -e "$header" ] || code "$header"
        done
    done < <(sed -nE 's/^#include "(.*)"/\1/p' runtime/pgrun.h) | grep -vE '^(typedef|static|#|[ \t])' | grep -oE '(^|[ *])pgr_[a-z0-9_]+\(' | tr -d ' *('
}

if [ $# -lt 1 ] || ! declare -F "rule_$1" >/dev/null; then
    echo "usage: $0 RULE [ARGUMENT...], RULE one of: $(declare -F | sed -n 's/.*rule_//p' | xargs)" >&2
    exit 2
fi
"rule_$1" "${@:2}"
if [ "$offences" -gt 0 ]; then
    echo "rule $1: broken in $offences place(s)"
    exit 1
fi
