#!/bin/bash
# mpirun.sh N PROGRAM [ARGUMENT...] - runs PROGRAM on N ranks of this host with the flags that a test
# needs: as root or not, more ranks than cores, no binding, no network, bounded in time. N = 0 runs it
# without mpirun, else in the same way.
#
#   PGRUN_TEST_TIMEOUT  seconds until everything is killed (default 60; exit status 124)
#   PGRUN_MPIRUN_FLAGS  further flags of mpirun, split at blanks
set -u
if [ $# -lt 2 ]; then
    echo "usage: $0 N PROGRAM [ARGUMENT...]" >&2
    exit 2
fi
ranks=$1
program=$2
shift 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# A sanitised program: Open MPI keeps memory until the process ends, ours must still show. Modules
# stay mapped (pgrun never closes them), so that stacks keep their names.
file=$(command -v -- "$program" || echo "$program")
if [ -r "$file" ] && grep -qa __asan_init "$file"; then
    export LSAN_OPTIONS="suppressions=$here/lsan.supp:print_suppressions=0:${LSAN_OPTIONS:-}"
    export ASAN_OPTIONS="fast_unwind_on_malloc=0:${ASAN_OPTIONS:-}"
    export UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS:-}"
fi

if [ "$ranks" = 0 ]; then
    exec timeout -k 5 "${PGRUN_TEST_TIMEOUT:-60}" "$program" "$@" </dev/null
fi

# shellcheck disable=SC2086 # the flags are meant to be split
exec timeout -k 5 "${PGRUN_TEST_TIMEOUT:-60}" \
    mpirun -n "$ranks" --oversubscribe --bind-to none \
    --mca mpi_yield_when_idle 1 --mca btl vader,self --mca pml ob1 \
    --mca btl_vader_single_copy_mechanism none \
    ${PGRUN_MPIRUN_FLAGS:-} "$program" "$@" </dev/null
