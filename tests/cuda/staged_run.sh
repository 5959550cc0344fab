#!/bin/bash
# staged_run.sh PGRUN - runs on the stand-in for a GPU whose ranks communicate over MPI: they are verified;
# which communication is chosen, and what is said where it cannot be.
set -u
program=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
failed=0

# expect STATUS RANKS TEXT [VARIABLE=VALUE...] -- WORD... - TEXT must be in exactly one line.
expect() {
    local status=$1 ranks=$2 text=$3 variables=() output got=0
    shift 3
    while [ "$1" != -- ]; do
        variables+=("$1")
        shift
    done
    output=$(env "${variables[@]}" "$here/../mpirun.sh" "$ranks" "$program" "${@:2}" 2>&1) || got=$?
    if [ "$got" != "$status" ] || [ "$(grep -cF -- "$text" <<<"$output")" != 1 ]; then
        printf 'FAIL (%s ranks, %s): status %s, not %s; wanted "%s" in one line of:\n%s\n' "$ranks" \
            "${variables[*]} ${*:2}" "$got" "$status" "$text" "$output"
        failed=1
    else
        printf 'ok %s ranks: %s\n' "$ranks" "$text"
    fi
}

# Eight ranks on one GPU: the quickstart's layout, and sizes that the stand-in can multiply in seconds.
quickstart=("$root/configs/quickstart.lua" --set run.device=cuda --set run.share_gpu=true --set model.hidden=64
    --set model.ffn=128 --set model.seq_len=61 --set run.iterations=3 --set 'run.workloads={"mlp","context"}')
expect 0 8 "# 2 workloads verified" PGRUN_FAKE_GPUS=1 -- "${quickstart[@]}" --set run.comm=mpi
expect 0 8 "# 2 workloads verified" PGRUN_FAKE_GPUS=1 PGRUN_STAGED_BYTES=1000 -- "${quickstart[@]}" \
    --set run.comm=mpi --set model.dtype=bf16
expect 0 4 "# 2 workloads verified" PGRUN_FAKE_GPUS=2 -- "${quickstart[@]}"
# What is chosen, and how that is said.
expect 0 8 "cuda: Stand-in GPU, 80.0 GiB, driver unknown (CUDA 13.0), Open MPI" -- "${quickstart[@]}" --set run.comm=mpi
expect 0 4 ", staged through pinned memory" -- "${quickstart[@]}"
expect 0 4 'run.comm = "auto" is MPI: ranks 0 and 1 share one GPU, GPU-00' -- "${quickstart[@]}"
expect 0 4 ", staged through pinned memory" PGRUN_FAKE_OWN_GPU=1 -- "${quickstart[@]}" --set run.comm=mpi
two=("${quickstart[@]}" --set parallel.cp=1 --set parallel.ep=1)
expect 1 2 'which NCCL refuses: give each rank a GPU of its own, or use run.comm = "mpi"' -- "${two[@]}" \
    --set run.comm=nccl
expect 1 2 'or set run.share_gpu = true, with which ranks communicate over MPI (NCCL refuses two' -- \
    "${two[@]}" --set run.share_gpu=false
exit $failed
