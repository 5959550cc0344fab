#!/bin/bash
# nccl_run.sh PGRUN - runs whose ranks communicate by NCCL, on the stand-ins: they are verified, and
# NCCL was asked for what the plan has.
set -u
program=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PGRUN_FAKE_OWN_GPU=1 PGRUN_FAKE_NCCL_DIR=$work/shared
library=$PGRUN_MODULE_PATH/libnccl_fake
config=$work/run.lua
echo 'return { parallel = { tp = 2, cp = 2 }, model = { hidden = 64, ffn = 128, heads = 8, seq_len = 32 },
  run = { workloads = { "mlp", "context" }, iterations = 2, device = "cuda", timeout = 20, init_timeout = 20 } }' >"$config"
failed=0 output=
export PGRUN_TEST_TIMEOUT=${PGRUN_TEST_TIMEOUT:-150} # eight sanitised ranks on two cores

# run RANKS STATUS TEXT [VARIABLE=VALUE...] -- [WORD...] - TEXT is in one line of the output.
run() {
    local ranks=$1 status=$2 text=$3 variables=() got=0
    shift 3
    while [ "$1" != -- ]; do
        variables+=("$1")
        shift
    done
    rm -rf "$PGRUN_FAKE_NCCL_DIR"
    mkdir "$PGRUN_FAKE_NCCL_DIR"
    output=$(env PGRUN_NCCL_LIBRARY="${library}_22809.so" "${variables[@]}" \
        "$here/../mpirun.sh" "$ranks" "$program" "$config" "${@:2}" 2>&1) || got=$?
    if [ "$got" != "$status" ] || [ "$(grep -cF -- "$text" <<<"$output")" != 1 ]; then
        printf 'FAIL %s ranks, %s: status %s, not %s; wanted "%s" in:\n%s\n' "$ranks" \
            "${variables[*]} ${*:2}" "$got" "$status" "$text" "$output"
        failed=1
    else
        printf 'ok %s ranks %s\n' "$ranks" "${variables[*]} ${*:2}"
    fi
}

# logged COUNT PATTERN - so many lines of all ranks' logs match.
logged() {
    local count
    count=$(cat "$PGRUN_FAKE_NCCL_DIR"/log.* 2>/dev/null | grep -cE -- "$2")
    if [ "$count" != "$1" ]; then
        printf 'FAIL %s lines of the logs match "%s", not %s:\n' "$count" "$2" "$1"
        cat "$PGRUN_FAKE_NCCL_DIR"/log.*
        failed=1
    fi
}

# row PATTERN - one line of rows.jsonl matches.
row() {
    if [ "$(grep -cE -- "$1" "$work/report/rows.jsonl")" != 1 ]; then
        printf 'FAIL no row, or several, like "%s" in:\n%s\n' "$1" "$(cat "$work/report/rows.jsonl")"
        failed=1
    fi
}

verified='# 2 workloads verified'
run 8 0 "$verified" -- --report "$work/report"
# The world's own row, and what a communicator, its first collective and a barrier's token took: 1 MiB, and
# 2 + 4 MiB and a page (nccl_fake.c).
ms='[0-9.e-]+'
row "^\{\"workload\": \"world\", \"comm\": \"NCCL 2.28.9, Open MPI [0-9.]+\", \"ranks\": 8, \"open_ms\": $ms, \"memory_bytes\": 1048576\}\$"
for family in tp cp; do
    row "^\{\"workload\": \"open\", \"group\": \"$family\", .*, \"open_ms\": $ms, \"first_ms\": $ms, \"memory_bytes\": 6295552\}\$"
done
logged 8 '^made world [0-7] of 8 ids=1 name="pgrun world"$'
logged 2 '^split colour=0 key=0 name="pgrun (tp|cp) 0"$'
logged 8 '^split colour=[0-3] key=[01] name="pgrun tp [0-3]"$'
logged 8 '^split colour=[0-3] key=[01] name="pgrun cp [0-3]"$'
logged 24 '^destroyed'
# A family that not all ranks are in, and one of groups of one.
run 8 0 "NCCL 2.28.9, Open MPI" -- --set parallel.pp=4 --set parallel.cp=1 --set model.layers=4 \
    --set 'run.families={ "tp", "embedding", "cp" }' --set 'run.workloads={ "mlp" }'
logged 4 '^split colour=[01] key=[01] name="pgrun embedding [01]"$'
logged 4 '^split colour=-1 key=0 name="pgrun embedding -1"$'
logged 0 'pgrun cp'
# Options, by any spelling of a family's name.
run 2 0 "$verified" -- --set parallel.cp=1 --set \
    'run.nccl={ tp = { max_ctas = 16, cga_cluster_size = 2, traffic_class = 1, net_name = "IB", high_priority = true } }'
logged 2 '^split colour=0 key=[01] max_ctas=16 cga=2 traffic=1 net=IB name="pgrun tp 0"$'
run 2 0 "$verified" -- --set parallel.cp=1 --set 'run.nccl={ tp = { split_share = true } }'
logged 2 '^made world [01] of 2 ids=1 split_share=1 name="pgrun world"$'
# Chunks beside products, compared with the plain order.
run 2 0 'overlap in 3 chunks, plain order' -- --set parallel.cp=1 --set parallel.sequence_parallel=true \
    --set parallel.tp_comm_overlap=true --set model.decoder_seq_len=34 --set run.overlap_chunks=3
run 2 0 '   mlp      tf32 tp    ok' -- --set parallel.cp=1 --set run.tf32=true
# Families of the same groups share a communicator where their options are equal.
shared='run.families={ "tp", "tp-cp" }'
run 2 0 "$verified" -- --set parallel.cp=1 --set "$shared"
logged 2 '^split '
run 2 0 "$verified" -- --set parallel.cp=1 --set "$shared" --set 'run.nccl={ tp = { max_ctas = 4 } }'
logged 2 '^split colour=0 key=[01] max_ctas=4 name="pgrun tp 0"$'
logged 2 '^split colour=0 key=[01] name="pgrun tp-cp 0"$'
# Several roots, where the version has them.
run 8 0 "$verified" PGRUN_NCCL_RANKS_PER_ROOT=3 --
logged 8 '^made world [0-7] of 8 ids=3 '
run 4 0 "$verified" PGRUN_NCCL_RANKS_PER_ROOT=1 PGRUN_NCCL_LIBRARY="${library}_21805.so" --
logged 4 '^made world [0-3] of 4 ids=1$'
logged 8 '^split colour=[01] key=[01]$' # tp and cp, without names
# What it needs.
run 2 1 'run.comm = "nccl" needs GPUs: use' -- --set parallel.cp=1 --set run.comm=nccl --set run.device=cpu
run 2 3 'run.comm = "nccl" needs run.device = "cuda": the NVIDIA driver finds no GPU' PGRUN_FAKE_GPUS=0 -- \
    --set parallel.cp=1 --set run.comm=nccl --set run.device=auto
exit $failed
