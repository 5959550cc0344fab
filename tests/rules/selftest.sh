#!/bin/bash
# selftest.sh RULE - shows that a rule can fail: plants an offence in a copy of the tree (or makes an
# offending library) and wants the rule to name it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
rule=$1
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
export PGRUN_ROOT=$copy
mkdir "$copy"/{runtime,kernels,lua,configs,tests,scripts,cmake}
cp "$root"/{.clang-format,.luacheckrc} "$copy"
cp -r "$root/tests/oracles" "$copy/tests"
chmod -R u+w "$copy"

# caught TEXT [ARGUMENT...] - the rule must fail, and say TEXT.
caught() {
    local said status=0
    said=$("$here/rules.sh" "$rule" "${@:2}" 2>&1) || status=$?
    if [ "$status" != 1 ] || [[ $said != *"$1"* ]]; then
        echo "rule $rule: expected exit status 1 and \"$1\", got $status and: $said"
        exit 1
    fi
    echo "caught: $1"
}

# passed [ARGUMENT...] - the rule must hold.
passed() {
    local said
    if ! said=$("$here/rules.sh" "$rule" "$@" 2>&1); then
        echo "rule $rule: should hold here, but says: $said"
        exit 1
    fi
}

plant() { printf '%s\n' "$2" >"$copy/$1"; }

# library FILE SYMBOL [LINKER OPTION...] - a library that exports SYMBOL.
library() { echo "int $2; int $2 = 1;" | cc -shared -fPIC -x c -o "$copy/$1" - "${@:3}"; }

case $rule in
includes)
    plant runtime/status.h '/* status */'
    plant runtime/comm.h '/* comm */'
    plant runtime/layer.h '#include "comm.h"'
    passed
    plant runtime/plan.c '#include "comm.h"'
    caught 'runtime/plan.c:1: "comm.h"  <- plan may not include comm'
    plant runtime/plan.c '#include "nowhere.h"'
    caught 'runtime/plan.c:1: "nowhere.h"  <- no such header'
    plant runtime/plan.c '#include <comm.h>'
    caught 'runtime/plan.c:1: <comm.h>  <- plan may not include comm'
    plant runtime/layer.c '#include <comm.h>'
    rm "$copy/runtime/plan.c"
    caught 'runtime/layer.c:1: <comm.h>  <- ours: include it with quotes'
    plant runtime/layer.c '#include <stdio.h>
#include <mpi.h>'
    passed
    plant kernels/cpu_x.c '#include "../runtime/layer.h"'
    caught 'kernels/cpu_x.c:1: "../runtime/layer.h"  <- device may not include layer'
    rm "$copy/kernels/cpu_x.c"
    plant runtime/util.c 'int x;'
    caught 'runtime/util.c  <- belongs to no room'
    ;;
foreign)
    plant runtime/comm_mpi.c '#include <mpi.h>'
    plant runtime/job.c '/* #include <mpi.h> */'
    passed
    plant runtime/job.c '#include <mpi.h>'
    caught 'runtime/job.c:1:#include <mpi.h>'
    plant runtime/job.c '# include <cuda_runtime.h>'
    caught 'runtime/job.c:1:'
    plant runtime/job.c '/* none */'
    plant kernels/cpu.c '#include <cuda_runtime_api.h>'
    caught 'kernels/cpu.c:1:#include <cuda_runtime_api.h>'
    plant kernels/cpu.c '/* none */'
    plant kernels/cuda.h '#include <cuda_runtime_api.h>'
    passed
    plant runtime/job.c '#include <lua.h>'
    caught 'runtime/job.c:1:#include <lua.h>'
    plant runtime/job.c '#include <cblas.h>'
    caught 'runtime/job.c:1:#include <cblas.h>'
    ;;
names)
    plant runtime/job.c 'pgr_mpi_status(code); MPI_Init(); "mpi_x"; /* mpi_x */'
    plant runtime/comm_mpi.c '#include "comm_mpi.h"'
    passed
    plant runtime/comm_mpi.c 'static int mpi_status(int code) {'
    caught 'runtime/comm_mpi.c:1:static int mpi_status('
    ;;
exit)
    plant lua/main.c 'exit(1);'
    plant runtime/job.c 'ops->abort(b, 1); pgr_exit_code(x); // exit(1)'
    passed
    plant runtime/job.c '    exit(1);'
    caught 'runtime/job.c:1:    exit(1);'
    plant runtime/job.c 'abort();'
    caught 'runtime/job.c:1:abort();'
    ;;
prints)
    plant runtime/report.c 'printf("x");'
    plant runtime/job.c 'snprintf(b, 1, "printf(stderr)"); /* puts(
 * stdout */ fprintf(file, "x");'
    passed
    plant runtime/job.c '    printf("x");'
    caught 'runtime/job.c:1:    printf('
    plant kernels/cpu.c 'fprintf(stderr, "x");'
    caught 'kernels/cpu.c:1:fprintf(stderr'
    ;;
format)
    plant runtime/job.c 'int  x ;'
    caught 'runtime/job.c'
    ;;
luacheck)
    plant configs/good.lua 'return { parallel = { tp = 1 } }'
    passed
    plant configs/bad.lua 'x = 1'
    caught 'configs/bad.lua'
    ;;
shellcheck)
    command -v shellcheck >/dev/null || exit 77
    # shellcheck disable=SC2016 # planted as it is
    plant scripts/good '#!/bin/sh
echo "$1"'
    passed
    # shellcheck disable=SC2016
    plant tests/bad.sh '#!/bin/sh
echo $1'
    caught 'tests/bad.sh line 2'
    ;;
lines)
    plant runtime/job.c 'int x;'
    passed
    seq 701 >"$copy/runtime/job.c"
    caught 'runtime/job.c: 701 lines'
    ;;
oracles)
    passed
    echo >>"$copy/tests/oracles/megatron-groups.jsonl"
    caught 'megatron-groups.jsonl: FAILED'
    ;;
libraries)
    library plain.so pgr_x -Wl,--no-as-needed
    library math.so pgr_x -Wl,--no-as-needed -lm
    library blas.so pgr_module -Wl,--no-as-needed -lopenblas
    passed plain.so math.so plain.so blas.so
    caught 'blas.so needs libopenblas' blas.so math.so plain.so blas.so
    caught 'blas.so needs libopenblas' plain.so blas.so plain.so blas.so
    caught 'blas.so needs libopenblas' plain.so math.so blas.so blas.so
    library cuda.so pgr_x -Wl,--no-as-needed -lm -Wl,-rpath,/cuda/lib
    passed plain.so math.so plain.so blas.so cuda.so
    caught 'math.so has no RUNPATH to the CUDA' plain.so math.so plain.so blas.so math.so
    caught 'blas.so needs libopenblas' plain.so math.so plain.so blas.so blas.so
    caught 'not a program' missing.so math.so plain.so plain.so
    ;;
symbols)
    library good.so pgr_plan_create
    library module.so pgr_module
    library bad.so stray_name
    plant runtime/plan.h 'pgr_status pgr_plan_create(const pgr_spec *spec);'
    plant runtime/pgrun.h '#include "plan.h"'
    passed good.so module.so module.so
    caught 'bad.so exports stray_name' bad.so module.so module.so
    caught 'bad.so exports stray_name' good.so module.so bad.so
    caught 'bad.so exports stray_name' good.so module.so module.so bad.so
    caught 'module.so lacks pgr_plan_create' module.so module.so module.so
    ;;
*)
    echo "no self-test for rule $rule"
    exit 1
    ;;
esac
