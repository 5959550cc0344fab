#!/bin/bash
# nccl_faults.sh PGRUN - what NCCL may do wrong, on the stand-ins: each ends all ranks with one message
# and exit status 3, and leaves no communicator that was not aborted or destroyed on the rank that tells it
# (others may be ended by the job before they know).
set -u
program=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PGRUN_FAKE_OWN_GPU=1 PGRUN_FAKE_NCCL_DIR=$work/shared
library=$PGRUN_MODULE_PATH/libnccl_fake
config=$work/two.lua
echo 'return { parallel = { tp = 2 }, model = { hidden = 64, ffn = 128, seq_len = 32 },
  run = { workloads = { "mlp" }, iterations = 2, device = "cuda", timeout = 1, init_timeout = 2 } }' >"$config"
failed=0

# fault TEXT VARIABLE=VALUE... [-- WORD...] - 2 ranks end with status 3 (or $status), TEXT (an extended
# expression) in the one line of pgrun's.
fault() {
    local text=$1 variables=() output got=0 made ended lines speaker
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        variables+=("$1")
        shift
    done
    rm -rf "$PGRUN_FAKE_NCCL_DIR"
    mkdir "$PGRUN_FAKE_NCCL_DIR"
    output=$(env PGRUN_NCCL_LIBRARY="${library}_22809.so" PGRUN_TEST_TIMEOUT=30 "${variables[@]}" \
        "$here/../mpirun.sh" 2 "$program" "$config" "${@:2}" 2>&1) || got=$?
    speaker=$(grep -oE 'rank [0-9]+ (on|waited)' <<<"$output" | head -1 | tr -dc 0-9)
    made=$(grep -c '^made' "$PGRUN_FAKE_NCCL_DIR/log.${speaker:-0}" 2>/dev/null)
    ended=$(grep -cE '^(aborted|destroyed)' "$PGRUN_FAKE_NCCL_DIR/log.${speaker:-0}" 2>/dev/null)
    lines=$(grep -c '^pgrun: error' <<<"$output")
    if [ "$got" != "${status:-3}" ] || [ "$lines" != 1 ] || [ "${made:-0}" != $((${ended:-0} + ${left:-0})) ] ||
        ! grep '^pgrun: error' <<<"$output" | grep -qE -- "$text"; then
        printf 'FAIL %s: status %s, %s messages, %s communicators made and %s ended; wanted "%s" in:\n%s\n' \
            "${variables[*]} ${*:2}" "$got" "$lines" "$made" "$ended" "$text" "$output"
        failed=1
    else
        printf 'ok %s\n' "${variables[*]} ${*:2}"
    fi
}

code='ncclSystemError \(unhandled system error\): planted'
group='family tp, group 0 \(world ranks 0, 1\)'
# Each call in turn (each occurrence of all calls: nccl_calls.c): on both ranks where these agree on what to
# say, else on rank 0.
fault "opening NCCL's world: rank 0 on .*: ncclGetVersion: ncclSystemError \\(unhandled system error\\), of " PGRUN_FAKE_NCCL_FAIL=ncclGetVersion
for call in ncclGetUniqueId ncclCommInitRankConfig; do
    fault "opening NCCL's world: rank 0 on .*: $call: $code" PGRUN_FAKE_NCCL_FAIL=$call@0
done
fault "opening NCCL's world: rank 0 on .*: ncclCommInitRankScalable: $code" \
    PGRUN_NCCL_RANKS_PER_ROOT=1 PGRUN_FAKE_NCCL_FAIL=ncclCommInitRankScalable@0
fault "opening NCCL's world: rank [01] on .*: ncclCommGetAsyncError: $code" PGRUN_FAKE_NCCL_FAIL=ncclCommGetAsyncError@0
for call in ncclCommSplit ncclCommCount ncclCommUserRank; do
    fault "opening family tp, group 0 \(world ranks 0, 1\): rank [01] on .*: $call: $code" \
        PGRUN_FAKE_NCCL_FAIL=$call@0
done
fault "all-gather number 1 of 288 bytes in $group: rank 0 on .*: ncclAllGather: $code" \
    PGRUN_FAKE_NCCL_FAIL=ncclAllGather@0
fault "all-reduce number 4 of 8192 bytes in $group: rank 0 on .*: ncclAllReduce: $code" \
    PGRUN_FAKE_NCCL_FAIL=ncclAllReduce:3@0
fault "number [0-9]+ of [0-9]+ bytes in $group: rank 1 on .*: ncclCommGetAsyncError: $code" \
    PGRUN_FAKE_NCCL_FAIL=ncclCommGetAsyncError:60@1
fault "closing $group: rank 0 on .*: ncclCommFinalize: $code" PGRUN_FAKE_NCCL_FAIL=ncclCommFinalize@0
fault "closing $group: rank 0 on .*: ncclCommDestroy: $code" PGRUN_FAKE_NCCL_FAIL=ncclCommDestroy@0
fault "ending NCCL's world: rank 0 on .*: ncclCommDestroy: $code" PGRUN_FAKE_NCCL_FAIL=ncclCommDestroy:2@0
# On one rank alone, while the other waits for it.
fault "rank 1 on .*: ncclCommSplit: $code" PGRUN_FAKE_NCCL_FAIL=ncclCommSplit@1
fault "all-reduce number 4 of 8192 bytes in $group: rank 1 on .*: ncclAllReduce: $code" \
    PGRUN_FAKE_NCCL_FAIL=ncclAllReduce:3@1
# The stream of a communicator has a priority of its own.
for priority in 1:false 2:true; do
    left=2 fault "rank 0 on .*: cudaStreamCreateWithPriority\(-${priority%:*}\): cudaErrorLaunchFailure" \
        PGRUN_FAKE_FAIL=cudaStreamCreateWithPriority:2@0 -- --set "run.nccl={ tp = { high_priority = ${priority#*:} } }"
done
# Asynchronous errors.
fault "all-reduce number 4 of 8192 bytes in $group: rank 0 on .*: an asynchronous error: ncclRemoteError" \
    PGRUN_FAKE_NCCL_ASYNC=4@0
# A rank that never arrives.
fault "opening the communicator of the world \(2 ranks\): world rank [01] waited 2 seconds without progress" \
    PGRUN_FAKE_NCCL_ABSENT=0@1
fault "all-reduce number 4 of 8192 bytes in $group: world rank [01] waited 1 seconds without progress" \
    PGRUN_FAKE_NCCL_ABSENT=4@1
# The same in chunks that communicate beside products.
overlap=(--set parallel.sequence_parallel=true --set parallel.tp_comm_overlap=true --set model.decoder_seq_len=32)
fault "all-gather number 5 of 2048 bytes in $group: world rank [01] waited 1 seconds without progress" \
    PGRUN_FAKE_NCCL_ABSENT=5@1 -- "${overlap[@]}"
fault "reduce-scatter number 9 of 2048 bytes in $group: rank [01] on .*: ncclReduceScatter: $code" \
    PGRUN_FAKE_NCCL_FAIL=ncclReduceScatter:2 -- "${overlap[@]}"
# An abort that hangs does not keep the message.
left=2 fault "all-reduce number 4 of 8192 bytes in $group: rank 0 on .*: ncclAllReduce: $code" \
    PGRUN_FAKE_NCCL_FAIL=ncclAllReduce:3@0 PGRUN_FAKE_NCCL_STUCK=1
# Before 2.19, what NCCL does in the background would not be waited for: then nothing is aborted.
old=PGRUN_NCCL_LIBRARY=${library}_21805.so
left=1 fault 'opening the communicator of the world \(2 ranks\): world rank [01] waited 2 seconds' \
    "$old" PGRUN_FAKE_NCCL_ABSENT=0@1
fault "all-reduce number 4 of 8192 bytes in $group: rank 0 on .*: ncclAllReduce: $code" \
    "$old" PGRUN_FAKE_NCCL_FAIL=ncclAllReduce:3@0
# Libraries that cannot be used.
fault 'rank 0 on .*: NCCL was not found: /nonesuch.so: .*PGRUN_NCCL_LIBRARY' PGRUN_NCCL_LIBRARY=/nonesuch.so
fault 'has no ncclGetVersion: pgrun needs NCCL 2.18 or later' PGRUN_NCCL_LIBRARY="$PGRUN_MODULE_PATH/libpgrun_cpu.so"
fault 'is NCCL 2.17.1 \(code 21701\): pgrun needs NCCL 2.18 or later' PGRUN_FAKE_NCCL_VERSION=21701
fault 'run.nccl.tp.traffic_class needs NCCL 2.26 or later, this one is 2.18.5' \
    PGRUN_NCCL_LIBRARY="${library}_21805.so" -- --set 'run.nccl={ tp = { traffic_class = 1 } }'
# Two ranks on one GPU.
status=1 fault 'ranks 0 and 1 share one GPU, GPU-00.* which NCCL refuses: .* run.comm = "mpi"' \
    PGRUN_FAKE_OWN_GPU=0 -- --set run.share_gpu=true --set run.comm=nccl
exit $failed
