#!/bin/bash
# gpu.sh SOURCE BUILD - makes the bundle with the tests and runs gpu-test and gpu-bench from it in a folder that
# has a shell, some programs, libc and nothing else of the system: without a GPU they say so and end with
# status 77; then with the stand-in for one. Exit status 77 where this user may not do that.
set -euo pipefail
source=$(realpath "$1")
build=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo "gpu.sh: line $LINENO failed: $BASH_COMMAND" >&2' ERR
unset PGRUN_MODULE_PATH LD_LIBRARY_PATH

# shellcheck source=tests/install/root.sh
. "$source/tests/install/root.sh"
can_change_root
"$source/scripts/bundle" --tests --build "$build" "$work/made/pgrun-bundle"
packed=$(stat -c %s "$work/made/pgrun-bundle.tar.gz")
[ "$packed" -lt 60000000 ]

make_root readlink env timeout sleep date uname head tail sed grep sort uniq wc mktemp mkdir id rm cat dirname tr
tar -C "$root/opt" -xzf "$work/made/pgrun-bundle.tar.gz"
rm -r "$work/made"
bundle=$root/opt/pgrun-bundle

# ends STATUS COMMAND - the line of shell ends with that status; what it said is in $work/out.
ends() {
    local status=0
    echo "+ $2"
    inside "$2" >"$work/out" 2>&1 || status=$?
    [ "$status" = "$1" ] && return
    printf 'exit status %s, not %s:\n' "$status" "$1" >&2
    cat "$work/out" >&2
    return 1
}

# says COUNT PATTERN - so many lines of it match.
says() {
    [ "$(grep -cE -- "$2" "$work/out")" = "$1" ] && return
    printf 'not %s lines "%s" in:\n' "$1" "$2" >&2
    cat "$work/out" >&2
    return 1
}

# No GPU, and no libraries of NVIDIA's.
ends 77 "/opt/pgrun-bundle/bin/gpu-test"
says 1 "^skip: no device of kind cuda: "
says 3 "^# library  lib(cudart|cublasLt|nccl)\.so\.[0-9]+: not found$"
ends 77 "/opt/pgrun-bundle/bin/gpu-bench --quick"
says 1 "^skip: no device of kind cuda: "
ends 2 "/opt/pgrun-bundle/bin/gpu-test --fast"
says 1 "gpu-test: there is no --fast$"

# Libraries of a Python of the user's are found; here they are no libraries, and nothing asks for them.
packages=$root/opt/python/lib/python3.12/site-packages/nvidia
mkdir -p "$packages/cu13/lib" "$packages/nccl/lib" "$root/opt/python/bin"
sed "s,^libnccl,../../nccl/lib/libnccl,; s,^,$packages/cu13/lib/," "$bundle/share/tests/nvidia-libraries" |
    while read -r file; do echo "no library" >"$file"; done
# A PyTorch that knows two times.
cat >"$root/opt/python/bin/python3" <<'END'
#!/bin/sh
[ "$1" != -c ] || exit 0
while read -r key; do case $key in linear/*) echo "$key 7.25" ;; esac; done
END
chmod +x "$root/opt/python/bin/python3"

# The stand-in: its module, and its driver.
cp "$build/fake/libpgrun_cuda.so" "$bundle/lib/pgrun/"
cp "$build/bin/gpu_bench_fake" "$bundle/libexec/gpu_bench"
mkdir -p "$root/usr/local/nvidia/lib64" "$root/nccl"
cp "$build/fake/driver/libcuda.so.1" "$root/usr/local/nvidia/lib64/"
copy_libraries "$build/fake/libpgrun_cuda.so" # it may be in C++

path="PATH=/opt/python/bin:/bin"
ends 0 "$path /opt/pgrun-bundle/bin/gpu-bench --tiny --rounds 2 --only linear --json /tmp/json"
says 1 "^# THE DEVICE IS A STAND-IN"
says 42 "^linear .* 7\.25 "
[ "$(wc -l <"$root/tmp/json")" = 44 ]
ends 0 "/opt/pgrun-bundle/bin/gpu-bench --tiny --rounds 2 --only context"
says 1 "^# torch    skip: python3"
ends 0 "/opt/pgrun-bundle/bin/gpu-bench --limit 0 --tiny --only context"
says 5 "^(pad|split|gather) .* skip \(the time of --limit is over\)$"
ends 2 "/opt/pgrun-bundle/bin/gpu-bench --limit"

inside "$path /opt/pgrun-bundle/bin/gpu-test --logs /tmp/one" >"$work/out" 2>&1
cat "$work/out"
says 2 "^# library  lib(cudart|cublasLt)\.so\.[0-9]+: /opt/python/lib/python3.12/site-packages/nvidia/cu13/lib/"
says 1 "^# library  libnccl\.so\.2: /opt/python/lib/python3.12/site-packages/nvidia/nccl/lib/libnccl\.so\.2"
says 1 "^# device   cuda: Stand-in GPU"
for name in device router-oracle quickstart-1 quickstart-1-bf16 quickstart-8-on-one; do
    says 1 "^ok      $name \([0-9]+ s\)$"
done
says 2 "^skip    (moe|large) \(the device is a stand-in\)"
says 1 "^skip    nccl \(one GPU, "
says 1 "^skip    memcheck-device \(compute-sanitizer was not found\)"
[ -s "$root/tmp/one/device.log" ]
says 2 "^ok      staged-(operations|pieces) "

# Two GPUs: NCCL's tests run too.
cp "$build/fake/libnccl_fake_22809.so" "$root/opt/libnccl.so.2"
fake="PGRUN_FAKE_GPUS=2 PGRUN_FAKE_NCCL_DIR=/nccl PGRUN_NCCL_LIBRARY=/opt/libnccl.so.2"
fake="$fake PGRUN_MODULE_PATH=/opt/pgrun-bundle/lib/pgrun" # where the stand-in of NCCL looks for CUDA's
inside "$path $fake /opt/pgrun-bundle/bin/gpu-test --only nccl" >"$work/out" 2>&1
says 2 "^# device   cuda: Stand-in GPU"
for name in nccl-operations nccl-tp-2 nccl-cp-2; do
    says 1 "^ok      $name \([0-9]+ s\)$"
done

# A GPU that fails, and a checker that finds something: the exit status says so, and the logs are shown.
cat >"$root/opt/python/bin/compute-sanitizer" <<'END'
#!/bin/sh
case $2 in
memcheck) echo "========= Invalid __global__ write of size 4 bytes" && exit 9 ;;
*) exit 1 ;;
esac
END
chmod +x "$root/opt/python/bin/compute-sanitizer"
ends 1 "$path PGRUN_FAKE_FAIL=cudaMemcpyAsync:5 /opt/pgrun-bundle/bin/gpu-test --only device,memcheck-device"
says 1 "^FAILED  device: exit status 1 "
grep -qE "^ +\| FAIL .*cudaMemcpyAsync" "$work/out"
says 1 "^FAILED  memcheck-device: exit status 9 "
says 0 "^(ok|FAILED|skip) +(quick|router|staged|nccl)"
echo 'echo "========= Error: Device not supported" && exit 1' >"$root/opt/python/bin/compute-sanitizer"
ends 77 "$path /opt/pgrun-bundle/bin/gpu-test --only memcheck-device"
says 1 "^skip    memcheck-device \(.*Device not supported\)"
ends 2 "/opt/pgrun-bundle/bin/gpu-test --only zz"
says 1 "gpu-test: no test has a name that begins with zz$"
# No time: what is left out is told.
ends 77 "/opt/pgrun-bundle/bin/gpu-test --limit 0"
[ "$(grep -c "^skip " "$work/out")" -ge 7 ]
says 0 "^(ok|FAILED) "
says 0 "^skip .*\( *\)$" # each has a reason
