#!/bin/bash
# chroot.sh SOURCE - the linter as a CI image has it: built where neither MPI nor BLAS can be found, then
# run in a folder that holds the program, Lua and libc, and nothing else of the system. Exit status 77
# where this user may not change the root.
set -euo pipefail
source=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo "chroot.sh: line $LINENO failed: $BASH_COMMAND" >&2' ERR

within=(chroot)
[ "$(id -u)" = 0 ] || within=(unshare --map-root-user chroot)
if ! "${within[@]}" / true 2>"$work/said"; then
    echo "skipped: ${within[*]}: $(cat "$work/said")"
    exit 77
fi

# No package but Lua's is to be found, and MPI's compiler is not asked for.
mkdir "$work/packages"
ln -s "$(pkg-config --variable=pcfiledir lua5.4)/lua5.4.pc" "$work/packages/"
PKG_CONFIG_LIBDIR=$work/packages cmake -S "$source" -B "$work/build" -G Ninja -DPGRUN_CHECK_ONLY=ON \
    -DCMAKE_BUILD_TYPE=Debug >"$work/log"
if grep -E '^(MPI|OPENBLAS)' "$work/build/CMakeCache.txt"; then
    exit 1
fi
cmake --build "$work/build" >>"$work/log" || { cat "$work/log"; exit 1; }
cmake --install "$work/build" --prefix "$work/root" >>"$work/log"

root=$work/root
ldd "$root/bin/pgrun" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
cp -r "$source/configs/published" "$source/docs/illegal.lua" "$root/"
echo 'return { parallel = {}, model = { hidden = 64, ffn = 64, heads = 4, seq_len = 16 },
    run = { workloads = { "mlp" } } }' >"$root/one.lua"
echo 'while true do end' >"$root/loop.lua"
find "$root" -name '*.so*' -printf 'in the folder: %f\n'
if find "$root" -name '*.so*' | grep -qE 'mpi|blas|cuda|nccl'; then
    exit 1
fi

# gives STATUS TEXT COMMAND... - the command ends with STATUS and says TEXT.
gives() {
    local status=0
    timeout 60 "${within[@]}" "$root" "${@:3}" >"$work/out" 2>&1 || status=$?
    [ "$status" = "$1" ] && grep -qF -- "$2" "$work/out" && return
    printf '%s\nended with %s instead of %s, or without "%s":\n' "${*:3}" "$status" "$1" "$2" >&2
    cat "$work/out" >&2
    return 1
}

gives 0 "0 errors" /bin/pgrun check /published
gives 1 "error[PG012]" /bin/pgrun check /illegal.lua
gives 1 '"PG003"' /bin/pgrun check /loop.lua --format json
gives 0 "PG012" /bin/pgrun explain PG012
gives 0 '"tp"' /bin/pgrun groups /published/llama3-405b-8192.lua --world-size 8192 --group tp --format json
gives 0 "pgrun " /bin/pgrun --version
gives 3 "libpgrun" /bin/pgrun /one.lua
