#!/bin/bash
# ranges.sh PGRUN RECORDER - the ranges that a profiler is told of, on the stand-in for a GPU: one per
# workload, named as the report's row; in it what is timed and what is verified; in these, what waits
# for a family's communicator.
set -u
program=$1 recorder=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo 'return { parallel = {}, model = { hidden = 64, ffn = 128, seq_len = 32 },
  run = { device = "cuda", workloads = { "mlp", "context" }, warmup = 1, iterations = 2, timeout = 20 } }' >"$work/one.lua"
failed=0

# ranges WHAT RANKS FILE [WORD...] - a run with these settings gives the ranges in $work/wanted.
ranges() {
    local what=$1 ranks=$2 file=$3 output
    shift 3
    if ! output=$(env NVTX_INJECTION64_PATH="$recorder" PGRUN_TEST_RANGES="$work/ranges" \
        "$here/../mpirun.sh" "$ranks" "$program" "$work/one.lua" "$@" 2>&1); then
        printf 'FAIL %s:\n%s\n' "$what" "$output"
        failed=1
    elif diff -u "$work/wanted" "$work/$file"; then
        echo "ok $what"
    else
        echo "FAIL $what"
        failed=1
    fi
}

steps=('first' 'verify' 'warm-up' 'iteration 1' 'iteration 2' 'verify')
for workload in mlp context; do
    printf '%s\n' "$workload" "${steps[@]/#/  }"
done >"$work/wanted"
ranges "one rank" 0 ranges

# With NCCL: an all-reduce in each iteration, and one of sums in each verification.
nccl=$PGRUN_MODULE_PATH/libnccl_fake_22809.so
if [ -e "$nccl" ]; then
    {
        echo mlp
        for step in "${steps[@]}"; do
            printf '  %s\n    comm tp\n' "$step"
        done
    } >"$work/wanted"
    mkdir "$work/shared"
    export PGRUN_FAKE_OWN_GPU=1 PGRUN_FAKE_NCCL_DIR=$work/shared PGRUN_NCCL_LIBRARY=$nccl
    ranges "the last of two ranks" 2 ranges.1 --set parallel.tp=2 --set 'run.workloads={ "mlp" }'
fi
exit $failed
