#!/bin/bash
# launcher_test.sh COMM_TEST - what a job makes of its launcher: one clear message, and its exit
# status. COMM_TEST is the program of comm_test.c; its case "open" opens and closes a job.
set -u
program=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mpirun=$here/../mpirun.sh
failed=0

# What a surrounding launcher or shell may have set.
for variable in $(compgen -e | grep -E '^(OMPI_|PMIX_|PMI_|SLURM_|PGRUN_MODULE_PATH)'); do
    unset "$variable"
done

# expect STATUS TEXT COMMAND...: the exit status, and TEXT in exactly one line of the output that
# pgrun wrote ("" where it must write none).
expect() {
    local status=$1 text=$2 output got
    shift 2
    output=$(timeout 30 "$@" 2>&1)
    got=$?
    local lines
    lines=$(printf '%s\n' "$output" | grep -c '^pgrun: ')
    if [ $got != "$status" ] ||
        { [ -n "$text" ] && ! printf '%s\n' "$output" | grep -qF -- "$text"; } ||
        { [ "$status" != 0 ] && [ -n "$text" ] && [ "$lines" != 1 ]; } ||
        { [ -z "$text" ] && [ "$lines" != 0 ]; }; then
        printf 'FAIL %s\n  status %s, not %s; wanted "%s" once in:\n%s\n' "$*" "$got" "$status" \
            "$text" "$output"
        failed=1
    else
        printf 'ok %s\n' "$*"
    fi
}

expect 0 "1 ranks, self" "$mpirun" 0 "$program" open
expect 0 "1 ranks, self" env SLURM_NTASKS=1 SLURM_PROCID=0 "$mpirun" 0 "$program" open
expect 0 "1 ranks, " "$mpirun" 1 "$program" open
expect 0 "2 ranks, " env SLURM_NTASKS=8 "$mpirun" 2 "$program" open

mend='srun --mpi=pmix'
expect 2 "$mend" env SLURM_NTASKS=8 "$mpirun" 0 "$program" open
expect 2 "$mend" env SLURM_NTASKS=8 SLURM_STEP_NUM_TASKS=8 SLURM_PROCID=0 "$mpirun" 0 "$program" open
expect 2 "" env SLURM_NTASKS=8 SLURM_STEP_NUM_TASKS=8 SLURM_PROCID=3 "$mpirun" 0 "$program" open
expect 2 "$mend" env PMI_SIZE=4 PMI_RANK=0 "$mpirun" 0 "$program" open
expect 2 "" env PMI_SIZE=4 PMI_RANK=1 "$mpirun" 0 "$program" open

missing="cannot open libpgrun_mpi.so, needed for running on several ranks"
expect 3 "$missing" env PGRUN_MODULE_PATH=/nonesuch "$mpirun" 4 "$program" open
expect 0 "1 ranks, self" env PGRUN_MODULE_PATH=/nonesuch "$mpirun" 0 "$program" open
exit $failed
