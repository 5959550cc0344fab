#!/bin/bash
# run.sh PGRUN - runs as a user sees them, on the stand-in for a GPU: which device is chosen, and what
# is said where it cannot be.
set -u
program=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
config=$work/one.lua
echo 'return { parallel = {}, model = { hidden = 64, ffn = 128, seq_len = 32 },
  run = { workloads = { "mlp", "context" }, iterations = 2 } }' >"$config"
failed=0

# expect STATUS RANKS TEXT [VARIABLE=VALUE...] -- [WORD...] - TEXT must be in exactly one line.
expect() {
    local status=$1 ranks=$2 text=$3 variables=() output got=0
    shift 3
    while [ "$1" != -- ]; do
        variables+=("$1")
        shift
    done
    output=$(env "${variables[@]}" "$here/../mpirun.sh" "$ranks" "$program" "$config" "${@:2}" 2>&1) || got=$?
    if [ "$got" != "$status" ] || [ "$(grep -cF -- "$text" <<<"$output")" != 1 ]; then
        printf 'FAIL (%s ranks, %s): status %s, not %s; wanted "%s" in one line of:\n%s\n' "$ranks" \
            "${variables[*]} ${*:2}" "$got" "$status" "$text" "$output"
        failed=1
    else
        printf 'ok %s\n' "$text"
    fi
}

auto='run.device = "auto" is the CPU: '
cuda='pgrun: error: run.device = "cuda": '
# A GPU is used where it does what the run needs, and its results are verified.
expect 0 0 "1 on 1 host, cuda: Stand-in GPU" --
expect 0 0 "# 2 workloads verified" -- --set run.device=cuda
expect 0 0 "# 2 workloads verified" -- --set run.device=cuda --set model.dtype=bf16 --set model.activation=swiglu
# The router, with what its kernels do run on the CPU: softmax and its losses, bf16 rows, dropping.
router=(--set run.device=cuda --set 'run.workloads={"router"}')
moe=(--set moe.experts=64 --set moe.topk=6 --set moe.z_loss_coeff=0.001)
expect 0 0 "# 1 workload verified" -- "${router[@]}" "${moe[@]}"
expect 0 0 "# 1 workload verified" -- "${router[@]}" "${moe[@]}" --set moe.pre_softmax=true --set model.dtype=bf16
for policy in probs position; do
    expect 0 0 "# 1 workload verified" -- "${router[@]}" "${moe[@]}" --set moe.capacity_factor=1.1 \
        --set "moe.drop_policy=\"$policy\""
done
expect 3 0 "what this run needs: a router of 1500 experts (1024 at most)" -- "${router[@]}" "${moe[@]}" \
    --set moe.experts=1500
expect 0 0 'run.device = "auto" is the CPU: libpgrun_cuda.so does not have what this run needs: a router of 1500' \
    -- "${router[@]}" "${moe[@]}" --set moe.experts=1500 --set run.device=auto
expect 0 2 "2 on 1 host, cuda: Stand-in GPU" PGRUN_FAKE_OWN_GPU=1 --
expect 0 2 "2 on 1 host, cuda: Stand-in GPU" PGRUN_FAKE_GPUS=2 --
expect 0 2 "2 on 1 host, cuda: Stand-in GPU" -- --set run.share_gpu=true
# Two ranks on one.
expect 0 2 "${auto}ranks 0 and 1 share one GPU, GPU-00" --
expect 1 2 "${cuda}ranks 0 and 1 share one GPU, GPU-00" -- --set run.device=cuda
expect 1 3 "${cuda}ranks 0 and 2 share one GPU, GPU-00" PGRUN_FAKE_GPUS=2 -- --set run.device=cuda
# No GPU.
expect 0 0 "${auto}no GPU is visible with CUDA_VISIBLE_DEVICES = \"\"" PGRUN_FAKE_GPUS=0 CUDA_VISIBLE_DEVICES= --
expect 3 2 "${cuda}the NVIDIA driver finds no GPU" PGRUN_FAKE_GPUS=0 -- --set run.device=cuda
expect 0 0 "${auto}the NVIDIA driver supports CUDA 11.4, but " PGRUN_FAKE_DRIVER=11040 --
expect 3 0 "${cuda}the NVIDIA driver supports CUDA 11.4, but " PGRUN_FAKE_DRIVER=11040 -- --set run.device=cuda
expect 0 0 "${auto}this machine has no NVIDIA driver" LD_LIBRARY_PATH=/nonesuch --
# A GPU that fails is one message of one rank.
expect 3 2 'pgrun: error: workload "mlp": rank ' PGRUN_FAKE_OWN_GPU=1 PGRUN_FAKE_FAIL=cublasLtMatmul --
exit $failed
