#!/bin/bash
# staged_run.sh PGRUN - runs on the stand-in for a GPU whose ranks communicate over MPI: they are verified;
# which communication is chosen, and what is said where it cannot be.
set -u
program=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
failed=0

# expect STATUS RANKS [VARIABLE=VALUE...] -- WORD... - and then each TEXT of `says` is in exactly one line.
expect() {
    local status=$1 ranks=$2 variables=() got=0
    shift 2
    while [ "$1" != -- ]; do
        variables+=("$1")
        shift
    done
    label="$ranks ranks, ${variables[*]} ${*:2}"
    output=$(env "${variables[@]}" "$here/../mpirun.sh" "$ranks" "$program" "${@:2}" 2>&1) || got=$?
    if [ "$got" != "$status" ]; then
        printf 'FAIL %s: status %s, not %s in:\n%s\n' "$label" "$got" "$status" "$output"
        failed=1
    fi
}

says() {
    local text
    for text in "$@"; do
        if [ "$(grep -cF -- "$text" <<<"$output")" != 1 ]; then
            printf 'FAIL %s: wanted "%s" in one line of:\n%s\n' "$label" "$text" "$output"
            failed=1
        else
            printf 'ok %s\n' "$text"
        fi
    done
}

# says_not TEXT
says_not() {
    if grep -qF -- "$1" <<<"$output"; then
        printf 'FAIL %s: did not want "%s" in:\n%s\n' "$label" "$1" "$output"
        failed=1
    fi
}

verified="# 2 workloads verified"
staged=", staged through pinned memory"
note='run.comm = "auto" is MPI'
# Eight ranks on one GPU: the quickstart's layout, and sizes that the stand-in can multiply in seconds.
quickstart=("$root/configs/quickstart.lua" --set run.device=cuda --set run.share_gpu=true --set model.hidden=64
    --set model.ffn=128 --set model.seq_len=61 --set run.iterations=3 --set 'run.workloads={"mlp","context"}')
expect 0 8 -- "${quickstart[@]}" --set run.comm=mpi
says "$verified" "$staged" "ranks     8 on 1 host, cuda: Stand-in GPU"
says_not "$note"
expect 0 4 PGRUN_STAGED_BYTES=1000 -- "${quickstart[@]}" --set model.dtype=bf16
says "$verified" "$staged" "$note: ranks 0 and 1 share one GPU, GPU-00"
# A GPU for each rank does not keep one from asking for it.
two=("${quickstart[@]}" --set parallel.cp=1 --set parallel.ep=1)
expect 0 2 PGRUN_FAKE_OWN_GPU=1 -- "${two[@]}" --set run.comm=mpi --set run.share_gpu=false
says "$verified" "$staged"
# Pieces of any size: what is no number of bytes that there are is cut to one.
expect 0 2 PGRUN_STAGED_BYTES=9223372036854775807 -- "${two[@]}" --set run.comm=mpi
says "$verified"
# NCCL does not do it, and the errors say what does.
expect 1 2 -- "${two[@]}" --set run.comm=nccl
says 'ranks 0 and 1 share one GPU, GPU-00' \
    'which NCCL refuses: give each rank a GPU of its own, or use run.comm = "mpi"'
expect 1 2 -- "${two[@]}" --set run.share_gpu=false
says 'or set run.share_gpu = true, with which ranks communicate over MPI (NCCL refuses two'
exit $failed
