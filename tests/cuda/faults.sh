#!/bin/bash
# faults.sh DEVICE_TEST - lets each call of CUDA and cuBLASLt fail in turn, on the stand-in: the device
# must say which, with the code's name (and rank and host once it is open), and must not crash.
set -u
program=$1
folder=$(dirname "${BASH_SOURCE[0]}")
fakes=("$folder/fake_cuda.c" "$folder/fake_cublaslt.c")
failed=0
count=0

# fault CALL[:N] TEXT... - all TEXTs must be in what is said.
fault() {
    local said status=0 text
    said=$(PGRUN_FAKE_FAIL=$1 "$program" cuda quick 2>&1) || status=$?
    count=$((count + 1))
    for text in "${@:2}"; do
        if { [ "$status" != 1 ] && [ "$status" != 77 ]; } || [[ $said != *"$text"* ]]; then
            printf 'FAIL %s: exit status %s, wanted "%s" in: %s\n' "$1" "$status" "$text" \
                "$(tail -n 3 <<<"$said")"
            failed=1
        fi
    done
}

# Every function of the stand-ins that can fail, read off them.
calls=$(awk '/^(cudaError_t|cublasStatus_t) / { match($2 $3, /[a-zA-Z0-9_]+\(/); name = substr($2 $3, RSTART, RLENGTH - 1) }
             /^ *(LT_)?MAY_FAIL;/ { print name }' "${fakes[@]}")
for call in $calls; do
    case $call in
    cudaGetDeviceCount) fault "$call" "rank 0 on test: $call: cudaErrorLaunchFailure" ;;
    cublasLtCreate) fault "$call" "rank 0 on test: $call: CUBLAS_STATUS_EXECUTION_FAILED" "GPU 0" ;;
    cublasLt*) fault "$call" "rank 0 on test: $call for m = " ": CUBLAS_STATUS_EXECUTION_FAILED" "GPU 0" ;;
    pgr_cuda_launch_* | pgr_fake_cuda_launch) fault "$call" "rank 0 on test: " cudaErrorLaunchFailure "Stand-in GPU" ;;
    *) fault "$call" "rank 0 on test: $call" "cudaErrorLaunchFailure (planted), GPU 0" ;;
    esac
done
# Products that leave SMs free set their target.
fault SM_COUNT_TARGET "rank 0 on test: cublasLtMatmulDescSetAttribute for m = "
fault cudaMalloc:9 "rank 0 on test: cudaMalloc of "
fault cudaSetDevice:2 "rank 0 on test: cudaSetDevice(0)"
echo "$count faults"
[ "$count" -ge 30 ] || { echo "FAIL fewer than 30 faults: are they read off ${fakes[*]}?"; failed=1; }
exit $failed
