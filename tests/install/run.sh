#!/bin/bash
# run.sh package|mpirun BUILD - installs the build into a temporary folder, moves that elsewhere, and
# uses what lies there: by pkg-config, by CMake and as a program; or with mpirun on two ranks.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
what=$1
build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo "run.sh: line $LINENO failed: $BASH_COMMAND" >&2' ERR
unset PGRUN_MODULE_PATH LD_LIBRARY_PATH

wants() {
    [ "$1" = "$2" ] || { printf 'expected: %s\ngot:      %s\n' "$2" "$1" >&2; return 1; }
}

cmake --install "$build" --prefix "$work/first" >/dev/null
mkdir "$work/elsewhere"
tree="$work/elsewhere/pg run" # a blank, since homes have them
mv "$work/first" "$tree"
program=$tree/bin/pgrun
lib=$(dirname "$(find "$tree" -name libpgrun.so)")

if [ "$what" = mpirun ]; then
    "$here/../mpirun.sh" 2 "$program" "$here/pair.lua"
    exit
fi

# Everything is in its place, and nothing remembers where it was built or first put.
for file in bin/pgrun "${lib#"$tree"/}"/{libpgrun.so.0,pgrun/libpgrun_mpi.so,pgrun/libpgrun_cpu.so} \
    include/pgrun/{pgrun,status,plan,comm,device}.h share/pgrun/configs/quickstart.lua \
    share/pgrun/lua/pgrun.lua "${lib#"$tree"/}"/{pkgconfig/pgrun.pc,cmake/pgrun/pgrunConfig.cmake}; do
    [ -s "$tree/$file" ] || { echo "not installed: $file" >&2; exit 1; }
done
if grep -rIlF -e "$work/first" -e "$build" "$tree"; then
    echo "these files name the folder of the build or of the first installation" >&2
    exit 1
fi

wants "$("$program" --version)" "pgrun $(sed -n 's/^Version: //p' "$lib/pkgconfig/pgrun.pc")"
# (The layout names its own world size, or the smallest one is taken.)
"$program" groups "$tree/share/pgrun/configs/quickstart.lua" --format json | grep '"world_size"' >/dev/null

# The sanitizers' run time must come first in a program whose library has it.
flags=(-Wall -Werror)
if [[ $(readelf -d "$lib/libpgrun.so") == *libasan* ]]; then
    flags+=('-fsanitize=address,undefined')
fi
said="tp: 4 groups of 2, module cpu"

export PKG_CONFIG_PATH=$lib/pkgconfig
eval "package=($(pkg-config --cflags --libs pgrun))"
# shellcheck disable=SC2154 # set by eval: the words are quoted for a shell
cc "${flags[@]}" "$here/client/main.c" "${package[@]}" -o "$work/by-pkg-config"
wants "$(LD_LIBRARY_PATH=$lib "$work/by-pkg-config")" "$said"

cmake -S "$here/client" -B "$work/client" -DCMAKE_PREFIX_PATH="$tree" \
    -DCMAKE_C_FLAGS="${flags[*]}" >/dev/null
cmake --build "$work/client" >/dev/null
wants "$("$work/client/client")" "$said"

# C++ programs include the same header.
if command -v c++ >/dev/null; then
    echo '#include <pgrun/pgrun.h>' |
        c++ -Wall -Werror -fsyntax-only -I"$tree/include" -x c++ -
fi
