# gpu-setup.sh - what gpu-test and gpu-bench share: where the bundle is, NVIDIA's libraries, the GPUs. Sourced,
# not run, by any POSIX shell: the machine may have nothing else.
# shellcheck shell=sh
# shellcheck disable=SC2154,SC2034 # `programs`, `logs` and `first` are the scripts'

# driver_found - whether NVIDIA's driver is here, for the loader or where a container has it.
driver_found() {
    { /sbin/ldconfig -p || ldconfig -p; } 2>/dev/null | grep -q 'libcuda\.so\.1' && return
    for folder in $(echo "${LD_LIBRARY_PATH:-}" | tr ':' ' ') /usr/local/nvidia/lib64 /usr/lib/wsl/lib; do
        [ ! -e "$folder/libcuda.so.1" ] || return 0
    done
    return 1
}

# from_checkout NAME [--build FOLDER] [ARGUMENT...] - in a checkout: makes the bundle with the tests, and
# goes on with the script of that name in it.
from_checkout() {
    name=$1
    shift
    # Before all is built for nothing.
    if ! driver_found; then
        echo "$name: this machine has no NVIDIA driver (libcuda.so.1 was not found)"
        exit 77
    fi
    scripts=$(dirname "$(readlink -f "$0")")
    bundle=$(dirname "$scripts")/build/gpu
    if [ "${1:-}" = --build ]; then
        [ $# -ge 2 ] || { echo "$name: --build takes a folder that CMake built in" >&2; exit 2; }
        build=$2
        shift 2
        "$scripts/bundle" --tests --build "$build" "$bundle" >&2 || exit 3
    else
        "$scripts/bundle" --tests "$bundle" >&2 || exit 3
    fi
    exec "$bundle/bin/$name" "$@"
}

# library_places - folders that may hold NVIDIA's libraries and that the loader does not look at: toolkits, and
# what Python's packages bring. A pattern that matches nothing stays itself, and is no folder.
library_places() {
    python=$(command -v python3 || echo /usr/bin/python3)
    echo "${LD_LIBRARY_PATH:-}" | tr ':' '\n' | while read -r folder; do
        case $folder in /*) [ ! -d "$folder" ] || echo "$folder" ;; esac
    done
    for folder in "${CUDA_HOME:-/usr/local/cuda}/lib64" "${CUDA_PATH:-/usr/local/cuda}/lib64" \
        /usr/local/cuda/lib64 /usr/local/cuda-*/lib64 /usr/local/cuda/targets/*/lib /opt/cuda/lib64 \
        "${NCCL_HOME:-/usr/local/nccl}/lib" \
        "$(dirname "$(dirname "$python")")"/lib/python3*/*-packages/nvidia/*/lib \
        "${VIRTUAL_ENV:-/opt/venv}"/lib/python3*/site-packages/nvidia/*/lib \
        "${HOME:-/root}"/.local/lib/python3*/site-packages/nvidia/*/lib \
        /usr/local/lib/python3*/*-packages/nvidia/*/lib /opt/*/lib/python3*/site-packages/nvidia/*/lib \
        /opt/*/.venv/lib/python3*/site-packages/nvidia/*/lib /opt/*/lib/python3*/site-packages/torch/lib; do
        [ -d "$folder" ] && echo "$folder"
    done
}

# loader_finds NAME - the file that the loader takes for that library, by itself.
loader_finds() {
    LD_TRACE_LOADED_OBJECTS=1 "$programs/gpu_bench" 2>/dev/null | sed -n "s,.*$1 => \(/[^ ]*\).*,\1,p"
}

# find_library NAME - sets `found` to its file, "" where there is none.
find_library() {
    found=$(loader_finds "$1")
    [ -z "$found" ] || return 0
    found=$(library_places | while read -r folder; do
        [ ! -e "$folder/$1" ] || { echo "$folder/$1"; break; }
    done)
    [ -n "$found" ] || found=$( { /sbin/ldconfig -p || ldconfig -p; } 2>/dev/null |
        sed -n "s,.*$1 .*=> *\(/.*\),\1,p" | head -n 1)
}

# find_libraries - lets the loader find NVIDIA's libraries, and says which they are. NCCL is named by
# its file and not by its folder, which may have other things in it.
find_libraries() {
    while read -r name; do
        find_library "$name"
        echo "# library  $name: ${found:-not found}"
        [ -n "$found" ] || continue
        case $name in
        libnccl.*) export PGRUN_NCCL_LIBRARY="${PGRUN_NCCL_LIBRARY:-$found}" ;;
        *)
            [ -n "$(loader_finds "$name")" ] ||
                export LD_LIBRARY_PATH="${found%/*}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
            ;;
        esac
    done <"$bundle/share/tests/nvidia-libraries"
    # The driver's own, where a container has it in a place of its own.
    for folder in /usr/local/nvidia/lib64 /usr/lib/wsl/lib; do
        [ ! -e "$folder/libcuda.so.1" ] ||
            export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder"
    done
}

# print_machine - when, where, which driver; and what nvidia-smi says now.
print_machine() {
    echo "# date     $(date -u '+%Y-%m-%d %H:%M UTC'), $(uname -srm)"
    echo "# version  $("$bundle/bin/pgrun" --version 2>&1 | head -n 1)"
    [ ! -r /proc/driver/nvidia/version ] || head -n 1 /proc/driver/nvidia/version | sed 's/^/# driver   /'
    print_clocks
}

print_clocks() {
    command -v nvidia-smi >/dev/null || return 0
    timeout 20 nvidia-smi --format=csv,noheader \
        --query-gpu=index,name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu,power.draw,power.limit \
        2>/dev/null | sed 's/^/# now      /'
}

# find_gpus - sets `gpus` to their number and `first` to what the first one is called; prints them. Ends
# with status 77 where there is none, and 1 where the machine has one that pgrun cannot use.
find_gpus() {
    status=0
    timeout 120 "$programs/gpu_devices" cuda >"$logs/devices.log" 2>&1 || status=$?
    if [ "$status" != 0 ]; then
        reason=$(tail -n 1 "$logs/devices.log")
        if [ "$status" = 77 ] && { [ ! -e /dev/nvidiactl ] || [ "${CUDA_VISIBLE_DEVICES-0}" = "" ]; }; then
            echo "skip: $reason"
            exit 77
        fi
        echo "FAILED: this machine has a GPU, but $reason"
        exit 1
    fi
    sed 's/^/# device   /' "$logs/devices.log"
    first=$(head -n 1 "$logs/devices.log")
    gpus=$(wc -l <"$logs/devices.log")
    gpus=$((gpus))
}
