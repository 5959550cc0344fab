#!/bin/bash
# nccl_ops.sh PROGRAM - nccl_ops on 2 and 5 ranks, with NCCL as of 2.28 and of 2.18.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PGRUN_FAKE_OWN_GPU=1 PGRUN_FAKE_NCCL_DIR=$work
for version in 22809 21805; do
    for ranks in 2 5; do
        PGRUN_NCCL_LIBRARY=$PGRUN_MODULE_PATH/libnccl_fake_$version.so "$here/../mpirun.sh" "$ranks" "$1"
    done
done
made=$(cat "$work"/log.* | grep -c '^made')
destroyed=$(cat "$work"/log.* | grep -c '^destroyed')
for pair in alloc:freed registered:deregistered; do
    [ "$(cat "$work"/log.* | grep -c "^${pair%:*}$")" = "$(cat "$work"/log.* | grep -c "^${pair#*:}$")" ] ||
        { echo "FAIL not as many ${pair#*:} as ${pair%:*}"; exit 1; }
done
grep -q '^registered' "$work"/log.0 || { echo "FAIL no buffer was registered"; exit 1; }
echo "$made communicators made, $destroyed destroyed"
[ "$made" = "$destroyed" ] && [ "$made" = 56 ] # 14 ranks, a world and a split each, twice
