#!/bin/bash
# nccl_overlap.sh PROGRAM - overlap_test on the stand-ins for a GPU and for NCCL.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PGRUN_FAKE_OWN_GPU=1 PGRUN_FAKE_NCCL_DIR=$work
PGRUN_NCCL_LIBRARY=$PGRUN_MODULE_PATH/libnccl_fake_22809.so "$here/../mpirun.sh" 2 "$1" cuda
rm -rf "${work:?}"/*
PGRUN_NCCL_LIBRARY=$PGRUN_MODULE_PATH/libnccl_fake_21805.so "$here/../mpirun.sh" 3 "$1" cuda
