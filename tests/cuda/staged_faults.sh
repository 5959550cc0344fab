#!/bin/bash
# staged_faults.sh PGRUN - what may go wrong while GPU memory is staged, on the stand-in: calls of CUDA that
# fail on one rank, in opening and later; ranks that are stopped or killed. Each ends all ranks with one
# message.
set -u
program=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
config=$work/two.lua
echo 'return { parallel = { tp = 2 }, model = { hidden = 64, ffn = 128, seq_len = 32 },
  run = { workloads = { "mlp" }, warmup = 0, iterations = 2, device = "cuda", comm = "mpi", share_gpu = true,
    timeout = 5, init_timeout = 5 } }' >"$config"
# Tells the ranks' pids.
cat >"$work/rank" <<'RANK'
#!/bin/bash
echo $$ >"$1/pid.$OMPI_COMM_WORLD_RANK"
exec "${@:2}"
RANK
chmod +x "$work/rank"
failed=0 faults=0 staged=0

bad() {
    printf 'FAIL %s: %s\n' "$1" "$2"
    failed=1
}

# fault CALL:N - it fails on rank 1 alone, while rank 0 waits for it: the run ends with one message that names
# rank and call; or it has fewer such calls.
fault() {
    local said status=0
    said=$(PGRUN_FAKE_FAIL=$1@1 PGRUN_TEST_TIMEOUT=40 "$here/../mpirun.sh" 2 "$program" "$config" 2>&1) || status=$?
    if [ $status = 0 ] && grep -q '1 workload verified' <<<"$said"; then
        return 1
    fi
    faults=$((faults + 1))
    if [ $status != 3 ] || [ "$(grep -c '^pgrun: error' <<<"$said")" != 1 ] ||
        ! grep '^pgrun: error' <<<"$said" | grep -q "rank 1 on .*${1%:*}.*cudaErrorLaunchFailure (planted), GPU 0"; then
        bad "$1" "status $status in: $(head -n 4 <<<"$said")"
    elif grep -qE 'number [0-9]+ of [0-9]+ bytes in family tp, group 0 \(world ranks 0, 1\): rank 1' <<<"$said"; then
        staged=$((staged + 1))
    fi
}

for call in cudaSetDevice cudaStreamCreateWithPriority cudaEventCreate cudaEventRecord cudaEventQuery \
    cudaHostAlloc cudaMemcpyAsync; do
    for number in 1 3 9 24; do
        fault "$call:$number"
    done
done
echo "$faults faults, $staged of them in staged operations"
[ $faults -ge 20 ] || bad faults "fewer than 20"
[ $staged -ge 10 ] || bad faults "fewer than 10 in staged operations"

# signal NAME STATUS TEXT - rank 1 gets the signal while it works; the job ends soon.
signal() {
    local said status=0 job start=$SECONDS
    rm -f "$work"/pid.*
    : >"$work/said"
    PGRUN_TEST_TIMEOUT=40 "$here/../mpirun.sh" 2 "$work/rank" "$work" "$program" "$config" \
        --set run.iterations=1000000 --set run.timeout=2 >"$work/said" 2>&1 &
    job=$!
    for _ in {1..100}; do
        ! grep -q '^   tp  ' "$work/said" || break # the groups are open
        sleep 0.1
    done
    sleep 0.3
    kill "-$1" "$(cat "$work/pid.1")"
    wait $job || status=$?
    said=$(cat "$work/said")
    if [ "$status" != "$2" ] || ! grep -qE -- "$3" <<<"$said" || [ $((SECONDS - start)) -gt 25 ] ||
        [ "$(grep -c '^pgrun: error' <<<"$said")" -gt 1 ]; then
        bad "SIG$1" "status $status after $((SECONDS - start)) s in: $said"
    else
        echo "ok SIG$1"
    fi
}

signal STOP 3 'pgrun: error: workload "mlp": (.* in family tp, group 0 \(world ranks 0, 1\): world rank 0 waited 2|.*: rank 0 waited 2) seconds'
signal KILL 137 'signal 9'
exit $failed
